"""Wider spreads for variational fits. Internal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesrec.errors import DataError, UnsupportedMethodError

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

__all__ = ["widened"]


def widened(posterior: Posterior, factor: Any) -> Posterior:
    """Stretch the draws of users and items about the means of their chain; see :meth:`Posterior.widened`."""
    number = isinstance(factor, (int, float, np.integer, np.floating)) and not isinstance(factor, bool)
    if not number or not 0.0 < factor < np.inf:
        raise DataError(f"factor must be a number above 0, not {factor!r}")
    if not getattr(posterior.method, "approximates", False):
        raise UnsupportedMethodError(
            f"widened() is for draws of SVI or VMP, which lie about one point in each chain; those of "
            f"{type(posterior.method).__name__} wander, and have the spread of the posterior."
        )
    posterior.require_draws("widened")
    draws = dict(posterior.draws)
    for name, axes in posterior.model.dims.items():
        if name.endswith("_vector") and {"user", "item"} & set(axes):
            centre = draws[name].mean(1, keepdims=True, dtype=np.float64)
            draws[name] = (centre + factor * (draws[name] - centre)).astype(np.float32)
    return replace(posterior, draws=draws, stats={}, watched=None)
