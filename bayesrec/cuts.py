"""Compiled loops over ratings on levels: normals between cut points, and what the ratings say of the cut points. Internal.

A rating has level k where a normal response lies between cut points k - 1 and k of its domain, the outer ones infinite.
"""

from __future__ import annotations

import math

import numpy as np

from bayesrec.jit import compiled
from bayesrec.streams import start, uniform

__all__ = ["draw_responses", "evidence", "informed", "normal_quantile"]

_ROOT_HALF, _DENSITY = 0.7071067811865476, 0.3989422804014327
_TINY = 1e-290  # below it an interval lies so far out that only its near end counts

# Wichura (1988), algorithm AS 241: rational functions for the centre, the shoulders and the tails
_CENTRE = np.array([
    [3.3871328727963666080, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3],
    [1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3],
])  # fmt: skip
_SHOULDER = np.array([
    [1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4],
    [1.0, 2.05319162663775882187, 1.67638483018380384940, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9],
])  # fmt: skip
_TAIL = np.array([
    [6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7],
    [1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15],
])  # fmt: skip


@compiled
def _ratio(table, x):
    top = table[0, 7]
    bottom = table[1, 7]
    for k in range(6, -1, -1):
        top = top * x + table[0, k]
        bottom = bottom * x + table[1, k]
    return top / bottom


@compiled
def normal_quantile(p):
    """The standard normal quantile of a probability up to one half."""
    q = p - 0.5
    if q > -0.425:
        return q * _ratio(_CENTRE, 0.180625 - q * q)
    r = math.sqrt(-math.log(p))
    return -_ratio(_SHOULDER, r - 1.6) if r <= 5.0 else -_ratio(_TAIL, r - 5.0)


@compiled
def _below(x):
    return 0.5 * math.erfc(-x * _ROOT_HALF)


@compiled
def _between(low, high, u):
    """The quantile at ``u`` of a standard normal that is known to lie between two bounds."""
    sign = 1.0
    if low + high > 0.0:  # most of the interval is in the upper half: look from the other side
        low, high, sign, u = -high, -low, -1.0, 1.0 - u
    a = _below(low)
    p = a + u * (_below(high) - a)
    if p > 0.5:
        x = -normal_quantile(1.0 - p)
    elif p > _TINY:
        x = normal_quantile(p)
    else:
        x = high + math.log(max(u, 1e-300)) / -high
    return sign * min(max(x, low), high)


@compiled
def draw_responses(code, cell, n_users, eta, precision, cut, key, out, first, last):
    """Draw the responses of ratings first..last: normal around ``eta`` within the rating's cut points.

    ``code`` (rating,) counts levels from 0, ``cell`` is ``domain * n_users + user``, ``precision`` (cell,), ``cut`` (domain,
    level + 1) with the infinite ends.
    """
    for t in range(first, last):
        d = cell[t] // n_users
        k = np.int64(code[t])
        root = math.sqrt(precision[cell[t]])
        u = uniform(start(key, t), 0)
        x = _between((cut[d, k] - eta[t]) * root, (cut[d, k + 1] - eta[t]) * root, u)
        out[t] = eta[t] + x / root


@compiled
def _interval(low, high):
    """Log probability of an interval, and the densities at its ends over the probability; infinite ends are allowed."""
    flip = low + high > 0.0
    if flip:
        low, high = -high, -low
    p = _below(high) - _below(low)
    if p > _TINY:
        at_low = _DENSITY * math.exp(-0.5 * low * low) / p
        at_high = _DENSITY * math.exp(-0.5 * high * high) / p
        log = math.log(p)
    else:
        at_low = 0.0
        at_high = -high
        log = -0.5 * high * high - math.log(-high) + math.log(_DENSITY)
    if flip:
        at_low, at_high = at_high, at_low
    return log, at_low, at_high


@compiled
def _times(x, density):
    """``x * density`` with 0 for an infinite bound, whose density is 0."""
    return x * density if density > 0.0 else 0.0


@compiled
def evidence(code, cell, n_users, eta, precision, cut, out, first, last):
    """Add to ``out`` (domain, 1 + 3 (level + 1)) what ratings first..last say of the cut points.

    The log probability, then of each cut point the gradient, minus the second derivative, and minus the cross derivative
    with the one before.
    """
    size = cut.shape[1]
    for t in range(first, last):
        d = cell[t] // n_users
        k = np.int64(code[t])
        w = precision[cell[t]]
        root = math.sqrt(w)
        low = (cut[d, k] - eta[t]) * root
        high = (cut[d, k + 1] - eta[t]) * root
        log, at_low, at_high = _interval(low, high)
        out[d, 0] += log
        out[d, 1 + k] -= root * at_low
        out[d, 2 + k] += root * at_high
        out[d, 1 + size + k] += w * (at_low * at_low - _times(low, at_low))
        out[d, 2 + size + k] += w * (at_high * at_high + _times(high, at_high))
        out[d, 2 + 2 * size + k] -= w * at_low * at_high


@compiled
def informed(code, cell, n_users, eta, precision, cut, value, weight, first, last):
    """Observed information (rating,) of ratings first..last on ``eta``, and the response that has their score there."""
    for t in range(first, last):
        d = cell[t] // n_users
        k = np.int64(code[t])
        w = precision[cell[t]]
        root = math.sqrt(w)
        low = (cut[d, k] - eta[t]) * root
        high = (cut[d, k + 1] - eta[t]) * root
        _, at_low, at_high = _interval(low, high)
        gap = at_high - at_low
        weight[t] = w * max(gap * gap + _times(high, at_high) - _times(low, at_low), 1e-12)
        value[t] = eta[t] - root * gap / weight[t]
