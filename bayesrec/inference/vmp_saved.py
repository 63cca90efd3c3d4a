"""What a checkpoint of VMP holds: what the next pass reads and does not write first. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesrec.inference.climb import SEPARATOR
from bayesrec.inference.vmp_sides import Rows

__all__ = ["put_state", "state_of"]


def state_of(fit: Any) -> dict[str, np.ndarray]:
    """What a fit carries from pass to pass, by path: arrays and numbers of the factors that it names as ``carried``."""
    out, left = {}, [(name, getattr(fit, name)) for name in fit.carried]
    while left:
        path, x = left.pop()
        if isinstance(x, np.ndarray | float | int | np.number):
            out[path] = np.asarray(x)
        elif isinstance(x, list):
            left += [(f"{path}{SEPARATOR}{k}", part) for k, part in enumerate(x)]
        elif type(x).__module__.startswith("bayesrec.inference.vmp"):
            names = ("moments", "log_det") if isinstance(x, Rows) else vars(x)
            left += [(f"{path}{SEPARATOR}{name}", getattr(x, name)) for name in names]
    return out


def put_state(fit: Any, state: dict[str, np.ndarray]) -> None:
    """Put a fit of the same model and data, from whatever start, where another one was."""
    for path, value in state.items():
        owner, (*steps, last) = fit, path.split(SEPARATOR)
        for step in steps:
            owner = owner[int(step)] if isinstance(owner, list) else getattr(owner, step)
        if isinstance(owner, list):
            owner[int(last)] = value
        else:
            setattr(owner, last, value[()])  # a number if it has no axis
