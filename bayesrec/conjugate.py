"""Conjugate block updates: pure functions of arrays and a random generator. Internal.

Everything a Gibbs block of a model needs stands here: Gaussian rows, scales under half-t priors, a covariance under
the prior of Huang and Wand, a regression with a free precision for every coefficient, gamma precisions. The compiled
loops are in :mod:`bayesrec.kernels`, their counterparts for a GPU in :mod:`bayesrec.batched`; which of them runs is decided here
and nowhere else.

Random numbers come from NumPy's generator, in one order; a compiled loop over rows gets a key from it and has a stream for every
row (:mod:`bayesrec.streams`): equal seeds give equal draws, whoever works on a row.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bayesrec import batched, kernels, slices
from bayesrec.errors import ConvergenceWarning, SamplingError, UnsupportedMethodError
from bayesrec.table import Table
from bayesrec.workers import ALONE, Workers

__all__ = [
    "Table",
    "at_cells",
    "bernoulli_rate",
    "draw_rows",
    "half_t_scale",
    "huang_wand_covariance",
    "key_of",
    "nested_scales",
    "noise_slices",
    "normal_mean",
    "regression",
    "row_grams",
    "row_scores",
    "row_squared_errors",
    "transfer_rows",
    "unit_slice",
    "wishart",
]


ROW = 40  # ratings whose cost is that of a row's own work, such as its Cholesky factor
FEW = 200_000  # ratings that one thread looks up sooner than it calls another


def _whole(counts: Any, block: str, workers: Workers) -> None:
    """Refuse rows without a factor; count, or say, where jitter was needed."""
    failures, jittered = (int(n) for n in counts)
    if failures:
        raise SamplingError(f"{failures} rows of block {block!r} had a precision matrix that is not positive definite.")
    if jittered and workers.jittered is not None:
        workers.jittered.append((block, jittered))
    elif jittered:
        warnings.warn(
            f"{jittered} rows of block {block!r} needed jitter to be factored.", ConvergenceWarning, stacklevel=3
        )


def key_of(rng: np.random.Generator) -> np.uint64:
    """The key of the streams of one update."""
    return rng.integers(2**64, dtype=np.uint64)


def draw_rows(indptr, index, value, weight, other, group, mean, precision, rng, block="rows", workers=ALONE):
    """Draw every row from its Gaussian conditional, intercept and factors at once.

    Parameters
    ----------
    indptr, index : ndarray
        Row ``r`` owns ratings ``indptr[r]:indptr[r + 1]``; ``index`` gives the row of ``other`` each one meets.
    value, weight : ndarray, (rating,)
        Response and its noise precision.
    other : ndarray, (n_other, rank + 1)
        The other side, bias first.
    group : ndarray of int, (row,)
        Which prior a row has.
    mean, precision : ndarray, (group, rank + 1) and (group, rank + 1, rank + 1)

    Returns
    -------
    ndarray, (row, rank + 1)
    """
    if workers.device is not None:
        out, bad = batched.draw_rows(
            indptr, index, value, weight, other, group, mean, precision, rng, workers.device, workers.layouts
        )
        _whole((bad, 0), block, workers)
        return out
    index = np.ascontiguousarray(index, dtype=np.int32)  # the kernels read it by address
    linear = np.einsum("gij,gj->gi", precision, mean)
    normals, key = np.empty((len(group), other.shape[1])), key_of(rng)
    out = np.empty_like(normals)

    def run(first, last):
        kernels.normals(key, normals, first, last)
        counts = kernels.draw_rows(
            indptr, index, value, weight, other, group, precision, linear, normals, out, first, last
        )
        return np.array(counts)

    _whole(workers.share(run, indptr, ROW), block, workers)
    return out


def transfer_rows(
    table, value, weight, item, scale, mean, cov, maps, off, gate, gated, rng, given=None, rest=None, present=None
):
    """Draw gates, target factors and source factors of all users; see :func:`bayesrec.kernels.transfer_rows`.

    Parameters
    ----------
    given : tuple of ndarray, optional
        Precision (source, user, R, R) and linear term (source, user, R) that add to what the source rows say.
    rest : bayesrec.whole.Everywhere, optional
        Adds to what the rows of a domain say of every user who is present.
    present : ndarray of bool, (domain, user), optional
        Of whom the cells of a domain say something; without, those with rows there.

    Returns
    -------
    dict
        ``user_vector`` (user, R), ``source_vector`` and ``phi_used`` (source, user, R), ``on`` bool (source, user).
    """
    workers = table.workers
    if workers.device is not None and rest is not None:
        raise UnsupportedMethodError("cells without a row are counted on the CPU; fit with device='cpu'.")
    if workers.device is not None:
        found, bad = batched.transfer_rows(
            table, value, weight, item, scale, mean, cov, maps, off, gate, gated, rng, workers.device, workers.layouts,
            given,
        )  # fmt: skip
        _whole((bad, 0), "users", workers)
        return found
    n_sources, size = maps.shape[0], maps.shape[1]
    shape = (n_sources, table.n_users, size)
    if given is None:
        given = np.empty((0, table.n_users, size, size)), np.empty((0, table.n_users, size))
    common = (np.empty((0, size, size)), np.empty((0, size))) if rest is None else (rest.precision, rest.linear)
    present = table.count > 0 if present is None else present
    keys = [key_of(rng) for _ in range(1 + 2 * n_sources)]
    normals = np.empty((len(keys), table.n_users, size))
    uniforms = rng.random((n_sources, table.n_users))
    theta, phi, used = np.empty(shape[1:]), np.empty(shape), np.empty(shape)
    on, log_odds = gate.copy(), np.empty(shape[:2])  # the log odds are there for tests

    def run(first, last):
        for key, out in zip(keys, normals, strict=True):
            kernels.normals(key, out, first, last)
        counts = kernels.transfer_rows(
            table.user_ptr, table.user_item, value, weight, item, scale, mean, cov, maps, off, gated, present, *given, *common,
            normals, uniforms, theta, phi, used, on, log_odds, first, last,
        )  # fmt: skip
        return np.array(counts)

    _whole(workers.share(run, table.user_ptr[:: table.n_domains], 8 * ROW), "users", workers)
    return {"user_vector": theta, "source_vector": phi, "phi_used": used, "on": on}


def at_cells(array, cell, workers=ALONE):
    """The entries of ``array`` (domain, user) that belong to each rating, (rating,)."""
    flat = np.ascontiguousarray(array).ravel()
    if len(cell) < FEW:
        return flat.take(cell)
    out, step = np.empty(len(cell)), max(1, len(cell) // 64)
    edges = np.append(np.arange(0, len(cell), step), len(cell))

    def run(first, last):
        kernels.take(flat, cell, out, edges[first], edges[last])
        return 0

    workers.share(run, edges, 0)
    return out


def row_grams(indptr, index, value, weight, other):
    """Likelihood precision (row, R, R) and linear term (row, R) of every row."""
    index = np.ascontiguousarray(index, dtype=np.int32)
    n, size = len(indptr) - 1, other.shape[1]
    precision, linear = np.empty((n, size, size)), np.empty((n, size))
    kernels.grams(indptr, index, value, weight, other, precision, linear)
    return precision, linear


def row_squared_errors(indptr, index, value, other, rows, workers=ALONE):
    """Sum of squared residuals of every row, (row,)."""
    if workers.device is not None:
        return batched.row_squared_errors(indptr, index, value, other, rows, workers.device, workers.layouts)
    out = np.empty(len(rows))

    def run(first, last):
        kernels.row_errors(indptr, index, value, other, rows, out, first, last)
        return 0

    workers.share(run, indptr, 1)
    return out


def row_scores(indptr, index, other, rows, workers=ALONE):
    """Score of every rating, (rating,)."""
    index, out = np.ascontiguousarray(index, dtype=np.int32), np.empty(len(index))

    def run(first, last):
        kernels.row_scores(indptr, index, other, rows, out, first, last)
        return 0

    workers.share(run, indptr, 1)
    return out


def half_t_scale(scale, sum_of_squares, n, prior_scale, rng, dof=3.0):
    """Draw scales ``s`` of ``n`` centred normals under ``s ~ half-t(dof, prior_scale)``.

    The half-t is an inverse-gamma mixture of inverse gammas (Wand et al. 2011); the mixing variable is drawn from the
    current scale and used at once, so it needs no place in the state.
    """
    shape = np.shape(scale)
    mixing = (dof / np.square(scale) + 1.0 / np.square(prior_scale)) / rng.gamma((dof + 1.0) / 2.0, size=shape)
    rate = dof / mixing + 0.5 * np.asarray(sum_of_squares)
    return np.sqrt(rate / rng.gamma((dof + np.asarray(n)) / 2.0, size=shape))


def unit_slice(log_density: Callable[[float], float], x: float, rng: np.random.Generator) -> float:
    """One exact step of slice sampling on the unit interval, by shrinking it (Neal 2003)."""
    floor, low, high = log_density(x) - rng.exponential(), 0.0, 1.0
    while True:
        new = rng.uniform(low, high)
        if log_density(new) >= floor:
            return np.float64(new)
        low, high = (new, high) if new < x else (low, new)


def nested_scales(within, between, x, seen, prior_scale, rng, dof=3.0):
    """Draw the sds of ``x[d, u] = level[u] + deviation[d, u]`` under half-t(``dof``, ``prior_scale``), levels integrated out.

    ``level ~ N(0, between^2)`` and ``deviation ~ N(0, within^2)``, where ``seen`` (domain, user). Where users have one domain
    the data know ``within^2 + between^2`` only, so the two move in polar coordinates: a slice step along the angle, then one
    along the length.

    Returns
    -------
    within, between : float
    """
    count, x = seen.sum(0), np.where(seen, x, 0.0)
    share = x.sum(0) ** 2 / np.maximum(count, 1)  # of a user's sum of squares, what their mean explains
    users, shares = np.bincount(count), np.bincount(count, share)
    inside, right = float((x**2).sum() - share.sum()), 0.5 * math.pi
    groups = [(n, float(users[n]), float(shares[n])) for n in np.flatnonzero(users) if n > 0]

    def log_density(w: float, b: float) -> float:
        v = w * w
        if v < 1e-280:
            return -math.inf
        out = -0.5 * inside / v
        for n, size, square in groups:
            whole = v + n * b * b
            out -= 0.5 * (size * ((n - 1) * math.log(v) + math.log(whole)) + square / whole)
        return out - 0.5 * (dof + 1.0) * sum(math.log1p((s / prior_scale) ** 2 / dof) for s in (w, b))

    def of_length(t: float) -> float:
        tan = math.tan(right * t)
        if tan <= 0.0:
            return -math.inf
        length = prior_scale * tan
        return log_density(length * cos, length * sin) + math.log(length) + math.log1p(tan * tan)

    def of_angle(t: float) -> float:
        return log_density(radius * math.cos(right * t), radius * math.sin(right * t))

    radius = math.hypot(within, between)
    angle = right * unit_slice(of_angle, math.atan2(between, within) / right, rng)
    cos, sin = math.cos(angle), math.sin(angle)
    radius = prior_scale * math.tan(right * unit_slice(of_length, math.atan(radius / prior_scale) / right, rng))
    return np.float64(radius * cos), np.float64(radius * sin)


def wishart(dof, scale, rng):
    """One draw of a Wishart matrix with mean ``dof * scale`` (Bartlett's decomposition)."""
    size = len(scale)
    lower = np.tril(rng.standard_normal((size, size)), -1)
    lower.flat[:: size + 1] = np.sqrt(rng.chisquare(dof - np.arange(size)))
    root = np.linalg.cholesky(scale) @ lower
    return root @ root.T


def huang_wand_covariance(cov, scatter, n, prior_scale, rng, dof=2.0):
    """Draw the covariance of ``n`` centred normals with scatter matrix (R, R) under the prior of Huang and Wand (2013).

    Each sd is half-t(``dof``, ``prior_scale[k]``); with ``dof=2`` every correlation is uniform.
    """
    size = len(cov)
    mixing = rng.gamma((dof + size) / 2.0, size=size) / (dof * np.linalg.inv(cov).diagonal() + 1.0 / prior_scale**2)
    scale = np.linalg.inv(scatter + 2.0 * dof * np.diag(mixing))
    precision = wishart(dof + size - 1.0 + n, 0.5 * (scale + scale.T), rng)
    cov = np.linalg.inv(precision)
    return 0.5 * (cov + cov.T)


def normal_mean(rows, scale, prior_scale, rng):
    """Draw the mean (R,) of rows (n, R) with sds ``scale`` under N(0, prior_scale^2)."""
    precision = len(rows) / scale**2 + 1.0 / prior_scale**2
    mean = rows.sum(0) / scale**2 / precision
    return mean + rng.standard_normal(len(mean)) / np.sqrt(precision)


def regression(design, response, cov, prior_precision, rng, free=None):
    """Draw coefficients B (P, R) of ``response = design @ B + N(0, cov)`` with independent normal priors.

    ``prior_precision`` is (P, R): one precision a coefficient, zero mean. Coefficients that are not ``free``, bool
    (P, R), are zero.
    """
    size, inverse = prior_precision.size, np.linalg.inv(cov)
    precision = (design.T @ design)[:, None, :, None] * inverse[:, None]
    precision = precision.reshape(size, size)
    precision.flat[:: size + 1] += prior_precision.ravel()
    linear = (design.T @ response @ inverse).ravel()
    if free is not None:
        free = free.ravel()
        precision, linear = precision[free][:, free], linear[free]
    chol = np.linalg.cholesky(precision)
    drawn = np.linalg.solve(chol.T, np.linalg.solve(chol, linear) + rng.standard_normal(len(linear)))
    if free is None:
        return drawn.reshape(prior_precision.shape)
    out = np.zeros(size)
    out[free] = drawn
    return out.reshape(prior_precision.shape)


def bernoulli_rate(n_success, n_failure, prior, rng):
    """Draw a rate under Beta(*prior)."""
    return rng.beta(prior[0] + n_success, prior[1] + n_failure)


def noise_slices(x, mean, sd, count, squares, shift, bound, rng, workers=ALONE):
    """One exact step of elliptical slice sampling (Murray et al. 2010) for each log precision of ``x`` (n,).

    The prior of an entry is N(mean, sd^2), the entries are independent given the rest. Entry ``r`` explains ``count[d, r]``
    residuals with a sum of squares ``squares[d, r]`` in each of several domains, whose log precision is ``x[r] +
    shift[d, r]``, bent to stay within ``bound``: the log likelihood is the sum over d of ``(count b - squares exp(b)) / 2``
    with ``b = bound tanh((x + shift) / bound)``.

    Returns
    -------
    ndarray, (n,)
    """
    (first_key, key), normals, out = (key_of(rng), key_of(rng)), np.empty((len(x), 1)), np.empty(len(x))

    def run(first, last):
        kernels.normals(first_key, normals, first, last)
        return slices.noise_slices(x, mean, sd, count, squares, shift, bound, normals, key, out, first, last)

    bad = workers.share(run, np.arange(len(x) + 1), 0) if np.isfinite(sd) else len(x)
    if bad:
        raise SamplingError(f"elliptical slice sampling of {bad} noise levels started from values that are not finite.")
    return out
