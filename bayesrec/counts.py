"""Compiled loops over counts: Poisson counts whose logarithmic rates are normal. Internal.

A count ``y`` is Poisson with the rate ``exp(z)``, and ``z`` is normal with mean ``m`` and precision ``w``. As a function of ``z``
the log density ``y z - exp(z) - w (z - m)^2 / 2`` is concave. Integrals over ``z`` are trapezoid sums between the points at
which it has fallen by DROP: the integrand and all its derivatives vanish there, so the sums converge as fast as Gauss-Hermite
rules where these do well, and do not suffer from the skew of small counts, where these do badly.
"""

from __future__ import annotations

import math

import numpy as np

from bayesrec.cuts import normal_quantile
from bayesrec.jit import compiled
from bayesrec.streams import start, uniform

__all__ = ["count_cdf", "count_quantiles", "draw_responses", "evidence", "log_probabilities"]

NODES, DROP = 24, 20.0
_LOG_2PI, _ROOT_HALF = math.log(2.0 * math.pi), math.sqrt(0.5)
_FINE = 0.25  # times the sd of log gamma(count + 1): a normal of this sd or less needs few nodes of its own
_X, _W = np.polynomial.hermite_e.hermegauss(9)
_W = _W / _W.sum()
MANY = 1e15  # counts beyond it are not whole numbers in floating point


@compiled
def _level(z, y, m, w):
    return y * z - math.exp(z) - 0.5 * w * (z - m) * (z - m)


@compiled
def _slope(z, y, m, w):
    return y - math.exp(z) - w * (z - m)


@compiled
def _mode(y, m, w):
    """Where the log density is largest: Newton from a point above it, from which the steps go down without overshooting."""
    if y > 0.0:
        z = math.log(y)
        if m > z:
            z = min(m, math.log(y + w * (m - z)))
    else:
        z = min(m, max(0.0, math.log(w * m))) if m > 0.0 else m
    for _ in range(100):
        step = _slope(z, y, m, w) / (math.exp(z) + w)
        z += step
        if abs(step) < 1e-10 * (1.0 + abs(z)):
            break
    return z


@compiled
def _fallen(z, step, y, m, w, top, drop):
    """About where, from ``z`` in the direction of ``step``, the log density has fallen by ``drop``, or a bit more."""
    x = z + step
    for _ in range(3):
        x -= (_level(x, y, m, w) - (top - drop)) / _slope(x, y, m, w)
    return x


@compiled
def _support(y, m, w, drop):
    """Mode, and the ends of an interval that holds all but exp(-drop) of the mass or so."""
    z = _mode(y, m, w)
    top = _level(z, y, m, w)
    rate = math.exp(z)
    width = math.sqrt(2.0 * drop / (rate + w))
    low = _fallen(z, -width, y, m, w, top, drop)
    high = _fallen(z, min(width, math.log(2.0 + (drop + 2.0) / rate)), y, m, w, top, drop)
    return z, top, low, high


@compiled
def _moments(y, m, w):
    """Log probability of the count, mean and variance of ``z`` given it."""
    z, top, low, high = _support(y, m, w, DROP)
    h = (high - low) / (NODES - 1)
    rate = math.exp(low)
    ratio = math.exp(h)
    total = 0.0
    first = 0.0
    second = 0.0
    for k in range(NODES):
        x = low + k * h
        p = math.exp(y * x - rate - 0.5 * w * (x - m) * (x - m) - top)
        rate *= ratio
        total += p
        first += p * (x - z)
        second += p * (x - z) * (x - z)
    first /= total
    log = top + math.log(total * h) + 0.5 * (math.log(w) - _LOG_2PI) - math.lgamma(y + 1.0)
    return log, z + first, second / total - first * first


@compiled
def log_probabilities(value, mean, sd, out):
    """Log probabilities (row, draw) of counts (row,), rates being log-normal with mean and sd (row, draw) of the logarithm."""
    for r in range(mean.shape[0]):
        whole = value[r] >= 0.0 and value[r] == math.floor(value[r]) and value[r] < MANY
        for s in range(mean.shape[1]):
            out[r, s] = _moments(value[r], mean[r, s], 1.0 / (sd[r, s] * sd[r, s]))[0] if whole else -np.inf


@compiled
def evidence(value, cell, n_users, eta, precision, intercept, out, first, last):
    """Log probability, score and observed information (3, rating) of ratings first..last at ``eta``."""
    for t in range(first, last):
        w = precision[cell[t]]
        m = eta[t] + intercept[cell[t] // n_users]
        log, mean, variance = _moments(value[t], m, w)
        out[0, t] = log
        out[1, t] = w * (mean - m)
        out[2, t] = max(w * (1.0 - w * variance), 1e-12)


@compiled
def draw_responses(value, cell, n_users, eta, precision, intercept, key, out, first, last):
    """Draw the responses of ratings first..last, logarithmic rates less ``intercept`` (domain,); returns how many were tried.

    Rejection from a hat of three pieces, flat at the mode and exponential beside it: tangents of a concave function lie above
    it (Devroye 1986), so the draws are exact.
    """
    tried = 0
    for t in range(first, last):
        y = value[t]
        w = precision[cell[t]]
        b = intercept[cell[t] // n_users]
        m = eta[t] + b
        z = _mode(y, m, w)
        top = _level(z, y, m, w)
        rate = math.exp(z)
        width = math.sqrt(2.0 / (rate + w))
        left = z - width
        left -= (_level(left, y, m, w) - top + 1.0) / _slope(left, y, m, w)
        right = z + min(width, math.log(2.0 + 2.0 / rate))
        up = _slope(left, y, m, w)
        down = -_slope(right, y, m, w)
        low = left + (top - _level(left, y, m, w)) / up
        high = right - (top - _level(right, y, m, w)) / down
        area = high - low + 1.0 / up + 1.0 / down
        stream = start(key, t)
        k = 0
        x = z
        while k < 3000:
            u = uniform(stream, k) * area
            v = 1.0 - uniform(stream, k + 1)
            hat = top
            if u < high - low:
                x = low + u
            elif u < high - low + 1.0 / up:
                e = math.log(1.0 - uniform(stream, k + 2))
                x = low + e / up
                hat += e
            else:
                e = math.log(1.0 - uniform(stream, k + 2))
                x = high - e / down
                hat += e
            k += 3
            if math.log(v) + hat <= _level(x, y, m, w):
                break
        tried += k // 3
        out[t] = x - b
    return tried


@compiled
def _gamma_tail(a, x):
    """Probability that a gamma variable of shape ``a`` is above ``x`` (regularised upper incomplete gamma function)."""
    if x <= 0.0:
        return 1.0
    if a > 1e6:  # Wilson and Hilferty: the error is of the order of 1 / a
        cube = ((x / a) ** (1.0 / 3.0) - 1.0 + 1.0 / (9.0 * a)) * 3.0 * math.sqrt(a)
        return 0.5 * math.erfc(cube * _ROOT_HALF)
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:  # series
        term = 1.0 / a
        total = term
        n = a
        for _ in range(100000):
            n += 1.0
            term *= x / n
            total += term
            if term < total * 1e-15:
                break
        return max(1.0 - front * total, 0.0)
    b = x + 1.0 - a  # continued fraction (Lentz)
    c = 1e300
    d = 1.0 / b
    value = d
    for i in range(1, 100000):
        an = -i * (i - a)
        b += 2.0
        d = 1.0 / (an * d + b)
        c = b + an / c
        value *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return front * value


@compiled
def _at_most(k, m, s):
    """Probability of at most ``k``: of a log gamma(k + 1) variable being above a normal, integrated over the wider of the two."""
    if k < 0.0:
        return 0.0
    a = k + 1.0
    sharp = math.sqrt(a)
    if s * sharp < _FINE:
        total = 0.0
        for j in range(len(_X)):
            total += _W[j] * _gamma_tail(a, math.exp(min(m + s * _X[j], 700.0)))
        return total
    width = math.sqrt(2.0 * DROP) / sharp
    z = math.log(a)
    top = _level(z, a, 0.0, 0.0)
    low = max(_fallen(z, -width, a, 0.0, 0.0, top, DROP), m - 6.5 * s)
    high = _fallen(z, min(width, math.log(2.0 + (DROP + 2.0) / a)), a, 0.0, 0.0, top, DROP)
    if low >= high:
        return 0.0
    n = math.ceil((high - low) * max((sharp + 1.0 / s) / 1.1, 1.7)) + 2
    h = (high - low) / n
    scale = top - math.lgamma(a)
    total = 0.0
    for j in range(n + 1):
        g = low + j * h
        total += math.exp(_level(g, a, 0.0, 0.0) - top) * math.erfc((m - g) / s * _ROOT_HALF)
    return min(0.5 * h * math.exp(scale) * total, 1.0)


@compiled
def _share(k, mean, sd):
    total = 0.0
    for s in range(mean.shape[0]):
        total += _at_most(k, mean[s], sd[s])
    return total / mean.shape[0]


@compiled
def count_cdf(value, mean, sd, out):
    """Probability (row,) of a count of at most ``value`` (row,), averaged over draws; mean and sd (row, draw) as above."""
    for r in range(mean.shape[0]):
        out[r] = _share(math.floor(value[r]), mean[r], sd[r])


@compiled
def _normal_of(p):
    p = min(max(p, 1e-300), 1.0 - 1e-15)
    return normal_quantile(p) if p <= 0.5 else -normal_quantile(1.0 - p)


@compiled
def count_quantiles(mean, sd, probability, out):
    """Least counts (row, q) whose distribution function is not below the probabilities (q,)."""
    for r in range(mean.shape[0]):
        centre = mean[r].mean()
        square = ((mean[r] - centre) ** 2).mean() + (sd[r] ** 2).mean()
        spread = math.sqrt(square + math.exp(-max(centre, 0.0)))
        for q in range(probability.shape[0]):
            want = _normal_of(probability[q])
            low = -1.0  # the distribution function is below the probability there
            high = np.inf  # and is not there
            k = float(math.floor(math.exp(min(centre + want * spread, 34.0))))
            while high - low > 1.0 and low < MANY:
                p = _share(k, mean[r], sd[r])
                if p < probability[q]:
                    low = k
                else:
                    high = k
                # on a logarithmic scale the count is about normal
                guess = math.log(k + 0.5) + (want - _normal_of(p)) * spread
                k = float(math.floor(math.exp(min(guess, 36.0)) + 0.5))
                ahead = 2.0 * low + 2.0 if high == np.inf else high - 1.0
                if not low < k < high:
                    k = low + 1.0 if k <= low else ahead
                if high < np.inf and high - low > 64.0:  # never worse than bisection in the long run
                    k = min(max(k, low + math.ceil((high - low) / 16.0)), high - math.ceil((high - low) / 16.0))
            out[r, q] = high
