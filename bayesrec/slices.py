"""Compiled elliptical slice sampling of noise levels, with a random stream for every entry. Internal."""

from __future__ import annotations

import numpy as np

from bayesrec.jit import compiled

__all__ = ["noise_slices", "uniform"]

_STEP, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@compiled
def uniform(seed, k):
    """The k-th number in [0, 1) of the stream of a seed (uint64): SplitMix64 of Steele et al. (2014)."""
    z = seed + np.uint64(k + 1) * _STEP
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * 1.1102230246251565e-16


@compiled
def _noise_evidence(x, bound, count, squares, shift, r):
    """Log density of a user's residuals given ``x``: log precisions ``x + shift``, bent to stay within the bound."""
    total = 0.0
    for d in range(count.shape[0]):
        bent = bound * np.tanh((x + shift[d, r]) / bound)
        total += 0.5 * (count[d, r] * bent - squares[d, r] * np.exp(bent))
    return total


@compiled
def noise_slices(x, mean, sd, count, squares, shift, bound, normals, seeds, out, first, last):
    """Elliptical slice steps of entries first..last; returns how many started or got stuck where they must not."""
    bad = 0
    for r in range(first, last):
        centred = x[r] - mean[r]
        nu = sd * normals[r]
        start = _noise_evidence(x[r], bound, count, squares, shift, r)
        level = start + np.log(uniform(seeds[r], 0))
        angle = 2.0 * np.pi * uniform(seeds[r], 1)
        low = angle - 2.0 * np.pi
        high = angle
        new = x[r]
        k = 2
        if not np.isfinite(start):
            bad += 1
        while np.isfinite(start) and k < 1000:
            new = mean[r] + centred * np.cos(angle) + nu * np.sin(angle)
            if _noise_evidence(new, bound, count, squares, shift, r) > level:
                break
            if angle < 0.0:
                low = angle
            else:
                high = angle
            angle = low + (high - low) * uniform(seeds[r], k)
            k += 1
        if k >= 1000:
            bad += 1
        out[r] = new
    return bad
