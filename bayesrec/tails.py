"""A compiled loop over ratings with Student t noise: the precisions of single ratings. Internal."""

from __future__ import annotations

from bayesrec.jit import compiled
from bayesrec.streams import gamma, start

__all__ = ["draw_mixing"]


@compiled
def draw_mixing(error, precision, dof, key, out, first, last):
    """Draw what multiplies the precisions (rating,) of ratings first..last, given how far they are from their means."""
    shape = 0.5 * (dof + 1.0)
    for t in range(first, last):
        rate = 0.5 * (dof + precision[t] * error[t] * error[t])
        out[t] = gamma(start(key, t), shape) / rate
