"""Compiled elliptical slice sampling of noise levels. Internal."""

from __future__ import annotations

import numpy as np

from bayesrec.jit import compiled
from bayesrec.streams import start, uniform

__all__ = ["noise_slices"]


@compiled
def _noise_evidence(x, bound, count, squares, shift, r):
    """Log density of a user's residuals given ``x``: log precisions ``x + shift``, bent to stay within the bound."""
    total = 0.0
    for d in range(count.shape[0]):
        bent = bound * np.tanh((x + shift[d, r]) / bound)
        total += 0.5 * (count[d, r] * bent - squares[d, r] * np.exp(bent))
    return total


@compiled
def noise_slices(x, mean, sd, count, squares, shift, bound, normals, key, out, first, last):
    """Elliptical slice steps of entries first..last; returns how many started or got stuck where they must not."""
    bad = 0
    for r in range(first, last):
        centred = x[r] - mean[r]
        nu = sd * normals[r, 0]
        stream = start(key, r)
        here = _noise_evidence(x[r], bound, count, squares, shift, r)
        level = here + np.log(1.0 - uniform(stream, 0))
        angle = 2.0 * np.pi * uniform(stream, 1)
        low = angle - 2.0 * np.pi
        high = angle
        new = x[r]
        k = 2
        if not np.isfinite(here):
            bad += 1
        while np.isfinite(here) and k < 1000:
            new = mean[r] + centred * np.cos(angle) + nu * np.sin(angle)
            if _noise_evidence(new, bound, count, squares, shift, r) > level:
                break
            if angle < 0.0:
                low = angle
            else:
                high = angle
            angle = low + (high - low) * uniform(stream, k)
            k += 1
        if k >= 1000:
            bad += 1
        out[r] = new
    return bad
