"""Seeds: private generators, never a global one."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesrec.errors import DataError


def checked_seed(seed: Any) -> int:
    """Return a seed as an int; a DataError unless it is a whole number from 0 to 2**63 - 1. Internal.

    Examples
    --------
    >>> checked_seed(np.int64(3))
    3
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise DataError(f"seed must be a whole number of at least 0 and below 2**63, not {seed!r}")
    return int(seed)


def generator(seed: int, *path: int) -> np.random.Generator:
    """Return a private generator for `seed`, or for one place `path` (say, a user's code) under it. Internal.

    Raises
    ------
    DataError
        As in `checked_seed`.

    Examples
    --------
    >>> bool(generator(0, 3).random() == generator(0, 3).random())
    True
    """
    seed = checked_seed(seed)
    return np.random.default_rng([seed, *path] if path else seed)
