"""Seeds: private generators, never a global one."""

from __future__ import annotations

import numpy as np

from bayesrec.errors import DataError


def generator(seed: int, *path: int) -> np.random.Generator:
    """Return a private generator for `seed`, or for one place `path` (say, a user's code) under it. Internal.

    Raises
    ------
    DataError
        A seed that is no whole number of 0 or more.

    Examples
    --------
    >>> bool(generator(0, 3).random() == generator(0, 3).random())
    True
    """
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise DataError(f"seed must be a whole number, 0 or more; got {seed!r}")
    return np.random.default_rng([int(seed), *path] if path else int(seed))
