"""The effect of the source on each user, shrunk to the users like them. Internal.

A user's mean difference a row is ``d_u = D_u / n_u``; ``e_u`` is what it would be over many rows:

``e_u ~ N(mu, tau^2)``, with ``mu`` and ``tau`` of the user's regime, and ``d_u = e_u + noise``.

The variance ``s_u^2`` of one row's difference comes from the spread of the user's own rows, pooled over users as by Smyth
(2004): ``s_u^2`` has a scaled inverse chi-squared distribution, whose two parameters are matched to the mean and the variance
of the log variances of users. With it integrated out the noise is Student-t with ``nu + n_u - 1`` degrees of freedom, so that
heavy tails count less, and a user with one row has the pooled variance. The variance over chains is added to the squared scale.

The Student-t is a mixture of normals over a grid of precisions; ``mu`` and ``tau`` have the priors ``N(0, 0.25^2)`` and half-t
with 3 degrees of freedom and scale 0.1, in nats a row. ``tau`` is summed over a grid; ``mu`` given ``tau`` is summed over one,
too, and then taken for a normal. No sampling.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, gammaincinv, ndtr, polygamma

__all__ = ["MEAN_SCALE", "SPREAD_SCALE", "effects", "half_t_log_density", "row_noise"]

MEAN_SCALE, SPREAD_SCALE, SPREAD_DF = 0.25, 0.1, 3.0  # nats a row
LEAST_DF, MOST_DF, ALONE_DF = 3.0, 60.0, 4.0
LEAST_REPEATED = 5  # users with two rows or more from which a variance of rows is learned
NODES = 12  # precisions of a Student-t
TINY = 1e-12
NEAR, FAR = np.arange(-1.5, 2.0, 1.5), np.arange(-3.0, 4.0)  # a step of one sd sums a normal to 8 digits
CELLS = 2**17  # numbers of a chunk: what a cache holds


def effects(
    delta: np.ndarray, n: np.ndarray, within: np.ndarray, sampler: np.ndarray, regime: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posterior mean, sd and probability below zero of each user's effect a row, (user,) each. Internal.

    Parameters
    ----------
    delta, n : ndarray, (user,)
        Summed difference and number of rows.
    within : ndarray, (user,)
        Squared deviations of the user's rows from their mean, summed.
    sampler : ndarray, (user,)
        Variance of ``delta / n`` over chains.
    regime : ndarray, (user,)

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth, n = rng.normal(0.1, 0.1, 200), np.full(200, 8)
    >>> rows = truth[:, None] + 0.3 * rng.standard_normal((200, 8))
    >>> within = ((rows - rows.mean(1, keepdims=True)) ** 2).sum(1)
    >>> mean, sd, harm = effects(rows.sum(1), n, within, np.zeros(200), np.full(200, "cold"))
    >>> bool(((mean - truth) ** 2).mean() < ((rows.mean(1) - truth) ** 2).mean())
    True
    """
    mean = delta / n
    variance, df = row_noise(mean, n, within)
    scale = np.sqrt(variance / n + sampler + TINY)
    out = np.empty((3, len(delta)))
    for name in np.unique(regime):
        own = regime == name
        out[:, own] = _shrunk(mean[own], scale[own], df[own])
    return out[0], out[1], out[2]


def row_noise(mean: np.ndarray, n: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance of one row's difference for each user, and its degrees of freedom, (user,) each. Internal.

    Where almost nobody has two rows, the spread between users is taken for noise of rows.
    """
    free = n - 1.0
    some = free > 0
    if some.sum() < LEAST_REPEATED:
        pooled = (1.4826 * np.median(np.abs(mean - np.median(mean)) * np.sqrt(n))) ** 2
        prior = ALONE_DF
    else:
        own, half = within[some] / free[some], free[some] / 2.0
        own = np.maximum(own, 1e-4 * np.median(own) + TINY)
        log = np.log(own) - digamma(half) + np.log(half)
        excess = log.var(ddof=1) - polygamma(1, half).mean()
        prior = _degrees(excess)
        pooled = np.exp(log.mean() + digamma(prior / 2.0) - np.log(prior / 2.0))
    return (prior * pooled + within) / (prior + free), prior + free


def _degrees(excess: float) -> float:
    """Degrees of freedom of log variances with so much more variance than rows explain."""
    low, high = polygamma(1, np.array([MOST_DF, LEAST_DF]) / 2.0)
    if not low < excess < high:
        return MOST_DF if excess <= low else LEAST_DF
    return float(brentq(lambda df: float(polygamma(1, df / 2.0)) - excess, LEAST_DF, MOST_DF))


def half_t_log_density(tau: np.ndarray) -> np.ndarray:
    """Log density of the prior of a spread, up to a constant. Internal."""
    return -0.5 * (SPREAD_DF + 1.0) * np.log1p((tau / SPREAD_SCALE) ** 2 / SPREAD_DF)


def _shrunk(mean: np.ndarray, scale: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Posterior mean, sd and probability below zero, (3, user), of users who share ``mu`` and ``tau``."""
    weight, variance = _mixture(scale, df)
    mu, spread, tau, chance = (x[:, None, None] for x in _hyper(mean, scale, df, weight, variance))
    out = np.zeros((3, len(mean)))
    for part in _chunks(len(mean), len(mu)):
        d, v = mean[part, None], variance[part]
        total = tau + v
        share = weight[part] * np.exp(-0.5 * (d - mu) ** 2 / total) / np.sqrt(total) + 1e-300
        share *= chance / share.sum(2, keepdims=True)
        away = v / total  # weight of the others
        centre, sd = away * mu + (1.0 - away) * d, np.sqrt(away * tau + away**2 * spread)
        first = (share * centre).sum((0, 2))
        second = (share * (centre**2 + sd**2)).sum((0, 2))
        out[:, part] = first, np.sqrt(np.maximum(second - first**2, 0.0)), (share * ndtr(-centre / sd)).sum((0, 2))
    return out


def _mixture(scale: np.ndarray, df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and variances (user, node) of the normals that make up each user's Student-t."""
    kinds, code = np.unique(df, return_inverse=True)
    low, high = (np.log(2.0 * gammaincinv(kinds / 2.0, p) / kinds) for p in (1e-5, 1.0 - 1e-5))
    log = np.linspace(low, high, NODES, axis=1)
    height = 0.5 * kinds[:, None] * (log - np.exp(log))
    weight = np.exp(height - height.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    return weight[code], scale[:, None] ** 2 * np.exp(-log)[code]


def _hyper(
    mean: np.ndarray, scale: np.ndarray, df: np.ndarray, weight: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variance of ``mu`` for each ``tau^2`` of a grid, and the posterior probability of that, (tau,) each.

    Two looks for where the posterior lies, then the grid.
    """
    low, high = np.log(0.01 * SPREAD_SCALE), np.log(30.0 * SPREAD_SCALE)
    for n_tau, z in ((12, NEAR), (12, NEAR), (11, FAR)):
        tau = np.exp(np.linspace(low, high, n_tau))
        mu, se = _location(mean, scale, df, tau)
        points = mu[:, None] + se[:, None] * z
        log = half_t_log_density(tau) + np.log(tau) + np.log(se)
        log = log[:, None] - 0.5 * (points / MEAN_SCALE) ** 2
        log += _log_likelihood(points.ravel(), np.repeat(tau**2, len(z)), mean, weight, variance).reshape(points.shape)
        log -= log.max()
        near = np.flatnonzero(log.max(1) > -9.0)
        low, high = np.log(tau[max(near[0] - 1, 0)]), np.log(tau[min(near[-1] + 1, n_tau - 1)])
    chance = np.exp(log)
    share = chance / chance.sum(1, keepdims=True)
    centre = (share * points).sum(1)
    spread = (share * (points - centre[:, None]) ** 2).sum(1)
    return centre, spread, tau**2, chance.sum(1) / chance.sum()


def _location(mean: np.ndarray, scale: np.ndarray, df: np.ndarray, tau: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """About where ``mu`` lies for each ``tau``, and its sd: the centre of Student-t's, by weighted means."""
    total = tau[:, None] ** 2 + scale**2
    mu, prior = np.full((len(tau), 1), np.median(mean)), 1.0 / MEAN_SCALE**2
    for _ in range(8):
        w = (df + 1.0) / (df + (mean - mu) ** 2 / total) / total
        mu = (w @ mean / (w.sum(1) + prior))[:, None]
    return mu[:, 0], 1.0 / np.sqrt(((df + 1.0) / (df + 3.0) / total).sum(1) + prior)


def _log_likelihood(
    mu: np.ndarray, tau: np.ndarray, mean: np.ndarray, weight: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """Log likelihood (point,) of points ``mu`` and ``tau^2``."""
    out = np.zeros(len(mu))
    for part in _chunks(len(mean), len(mu)):
        total = tau[:, None, None] + variance[part]
        z = (mean[part] - mu[:, None])[..., None] ** 2 / total
        out += np.log((weight[part] * np.exp(-0.5 * z) / np.sqrt(total)).sum(2) + 1e-300).sum(1)
    return out


def _chunks(n_users: int, n_points: int) -> Iterator[slice]:
    step = max(1, CELLS // (NODES * n_points))
    return (slice(start, start + step) for start in range(0, n_users, step))
