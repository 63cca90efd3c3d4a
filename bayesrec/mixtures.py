"""Compiled quantiles and distribution functions of normal mixtures, a row at a time. Internal."""

from __future__ import annotations

import math

import numpy as np

from bayesrec.jit import compiled

__all__ = ["mixture_cdf", "mixture_quantiles"]


@compiled
def _mixture_cdf(x, mean, sd, weight):
    below = 0.0
    density = 0.0
    slope = 0.0
    for s in range(mean.shape[0]):
        z = (x - mean[s]) / sd[s]
        below += weight[s] * 0.5 * math.erfc(-z * 0.7071067811865476)
        here = weight[s] * math.exp(-0.5 * z * z) / sd[s]
        density += here
        slope -= here * z / sd[s]
    return below, density * 0.3989422804014327, slope * 0.3989422804014327


@compiled
def mixture_cdf(mean, sd, weight, value, out):
    """Distribution functions of normal mixtures (row, part) with weights (part,) at ``value`` (row,)."""
    for r in range(mean.shape[0]):
        out[r] = _mixture_cdf(value[r], mean[r], sd[r], weight)[0]


@compiled
def mixture_quantiles(mean, sd, weight, probability, normal, out):
    """Quantiles of normal mixtures: mean, sd (row, part), weight (part,), probability (q,), out (row, q).

    Halley's steps inside a bracket that every step narrows, so a row's answer depends on that row alone. Each leaves the error
    before it to the third power, so one below a thousandth of the least sd is the last. They begin at the quantile of a normal
    with the mixture's moments; ``normal`` (q,) are the quantiles of the standard one.
    """
    for r in range(mean.shape[0]):
        centre = 0.0
        square = 0.0
        low0 = np.inf
        high0 = -np.inf
        least = np.inf
        for s in range(mean.shape[1]):
            centre += weight[s] * mean[r, s]
            square += weight[s] * (mean[r, s] * mean[r, s] + sd[r, s] * sd[r, s])
            least = min(least, sd[r, s])
            low0 = min(low0, mean[r, s] - 9.0 * sd[r, s])
            high0 = max(high0, mean[r, s] + 9.0 * sd[r, s])
        spread = np.sqrt(max(square - centre * centre, 0.0))
        for q in range(probability.shape[0]):
            low = low0
            high = high0
            x = min(max(centre + normal[q] * spread, low), high)
            for _ in range(80):
                p, d, slope = _mixture_cdf(x, mean[r], sd[r], weight)
                gap = p - probability[q]
                if gap > 0.0:
                    high = x
                else:
                    low = x
                bent = d - 0.5 * gap * slope / d if d > 1e-12 else 0.0
                step = x - gap / bent if bent > 0.5 * d > 0.0 else x - gap / d if d > 1e-12 else -np.inf
                last = bent > 0.5 * d > 0.0 and abs(step - x) < 1e-3 * least
                last = last and abs(gap) < 1e-3 * min(probability[q], 1.0 - probability[q])
                if not low <= step <= high:
                    step, last = 0.5 * (low + high), False
                if last or abs(step - x) < 1e-9 * (1.0 + abs(x)):
                    x = step
                    break
                x = step
            out[r, q] = x
