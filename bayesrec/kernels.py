"""Compiled loops behind :mod:`bayesrec.conjugate`. Internal.

Each function works on one row after another in plain loops over small matrices, releases the GIL (chains run in
threads) and draws no random numbers: standard normals come in as an array, so results do not depend on threads.
Matrices are ``(R, R)`` with ``R = rank + 1`` components, bias first.
"""

from __future__ import annotations

import numpy as np

from bayesrec.jit import compiled
from bayesrec.rows import accumulate, draw_rows, padded, room

__all__ = ["draw_rows", "grams", "row_errors", "transfer_rows"]


@compiled
def cholesky(a):
    """Lower Cholesky factor of ``a`` in place (upper triangle is left as it was); False if not positive definite."""
    n = a.shape[0]
    for j in range(n):
        s = a[j, j]
        for k in range(j):
            s -= a[j, k] * a[j, k]
        if not s > 0.0:
            return False
        d = np.sqrt(s)
        a[j, j] = d
        for i in range(j + 1, n):
            t = a[i, j]
            for k in range(j):
                t -= a[i, k] * a[j, k]
            a[i, j] = t / d
    return True


@compiled
def solve_lower(chol, x):
    """Solve ``L x = b`` in place of ``b``."""
    n = x.shape[0]
    for i in range(n):
        t = x[i]
        for k in range(i):
            t -= chol[i, k] * x[k]
        x[i] = t / chol[i, i]


@compiled
def solve_upper(chol, x):
    """Solve ``L' x = b`` in place of ``b``."""
    n = x.shape[0]
    for i in range(n - 1, -1, -1):
        t = x[i]
        for k in range(i + 1, n):
            t -= chol[k, i] * x[k]
        x[i] = t / chol[i, i]


@compiled
def invert(chol, out):
    """Write ``(L L')^-1`` to ``out``, from the lower factor."""
    n = chol.shape[0]
    for j in range(n):
        for i in range(n):
            out[j, i] = 0.0
        out[j, j] = 1.0
        solve_lower(chol, out[j])
        solve_upper(chol, out[j])


@compiled
def log_det(chol):
    """Log det(L L')."""
    s = 0.0
    for i in range(chol.shape[0]):
        s += np.log(chol[i, i])
    return 2.0 * s


@compiled
def grams(indptr, index, value, weight, other, precision, linear):
    """Per row: sum of w v v' (full matrix) and sum of w v r, written to (rows, R, R) and (rows, R)."""
    n = linear.shape[1]
    factors, bias = padded(other)
    memory = room(factors.shape[1])
    for u in range(linear.shape[0]):
        precision[u] = 0.0
        linear[u] = 0.0
        accumulate(indptr[u], indptr[u + 1], index, value, weight, factors, bias, memory, precision[u], linear[u])
        for i in range(n):
            for j in range(i):
                precision[u, j, i] = precision[u, i, j]


@compiled
def row_errors(indptr, index, value, other, rows, out, first, last):
    """Sum of squared residuals of the ratings of rows first..last: ``out`` (rows,)."""
    n = rows.shape[1]
    for u in range(first, last):
        total = 0.0
        for t in range(indptr[u], indptr[u + 1]):
            o = other[index[t]]
            e = value[t] - rows[u, 0] - o[0]
            for k in range(1, n):
                e -= rows[u, k] * o[k]
            total += e * e
        out[u] = total


@compiled
def _sandwich(w, s, out):
    """Write ``w s w'`` to ``out``."""
    n = w.shape[0]
    m = w.shape[1]
    tmp = np.empty(m)
    for i in range(n):
        for k in range(m):
            t = 0.0
            for j in range(m):
                t += w[i, j] * s[j, k]
            tmp[k] = t
        for l in range(n):
            t = 0.0
            for k in range(m):
                t += tmp[k] * w[l, k]
            out[i, l] = t


@compiled
def _evidence(inverse, log_det_cov, mean, gram, linear, a, b):
    """Log marginal likelihood (up to a constant) of target rows under theta ~ N(mean, cov), given cov's inverse.

    Leaves in ``a`` the Cholesky factor of the posterior precision and in ``b`` the posterior's L^-1 linear term.
    """
    n = mean.shape[0]
    quad = 0.0
    for i in range(n):
        t = 0.0
        for j in range(n):
            t += inverse[i, j] * mean[j]
        b[i] = t + linear[i]
        quad += t * mean[i]
        for j in range(i + 1):
            a[i, j] = inverse[i, j] + gram[i, j]
    if not cholesky(a):
        return np.nan
    solve_lower(a, b)
    for i in range(n):
        quad -= b[i] * b[i]
    return -0.5 * (quad + log_det_cov + log_det(a))


@compiled
def _invert_sum(base, own, pop, use, skip, chol, inverse):
    """Invert base + sum of own[j] where used, pop[j] where not, to ``inverse``; returns the log determinant of the sum."""
    chol[:, :] = base
    for j in range(own.shape[0]):
        if j < skip:
            continue
        chol += own[j] if use[j] else pop[j]
    if not cholesky(chol):
        return np.nan
    invert(chol, inverse)
    return log_det(chol)


@compiled
def transfer_rows(
    indptr, index, value, weight, item, prior_scale, user_mean, user_cov, maps, off, gated, normals, uniforms,
    theta, phi, phi_used, gate, log_odds, first, last,
):  # fmt: skip
    """Draw (gate, theta, phi) of users first..last jointly; returns the number of failed factorisations.

    The ratings of user ``u`` in domain ``d`` are ``indptr[u * D + d] .. indptr[u * D + d + 1]``; the target is the
    last domain. ``off[k]`` is the prior probability that source ``k``'s gate is off (``gated`` False: never off).
    Given the source rows ``phi_k ~ N(m_k, S_k)``; given the gates ``theta ~ N(m + sum W m_k, Sigma + sum W S_k W')``
    with ``(0, S0)`` in the place of ``(m_k, S_k)`` where the gate is off. The gates are drawn with theta and all
    phi integrated out, then theta with all phi integrated out, then one phi after another.
    ``phi_used`` is phi where the gate is on and the independent copy where it is off.
    """
    n = theta.shape[1]
    n_sources = maps.shape[0]
    n_domains = n_sources + 1
    bad = 0
    factors, bias = padded(item)
    memory = room(factors.shape[1])
    eye_s0 = np.zeros((n_sources, n, n))
    pop = np.empty((n_sources, n, n))
    for k in range(n_sources):
        for i in range(n):
            eye_s0[k, i, i] = prior_scale[k, i] ** 2
        _sandwich(maps[k], eye_s0[k], pop[k])
    own_cov = np.empty((n_sources, n, n))
    own_chol = np.empty((n_sources, n, n))
    own_mean = np.empty((n_sources, n))
    own = np.empty((n_sources, n, n))
    shift = np.empty((n_sources, n))
    gram = np.empty((n, n))
    linear = np.empty(n)
    chol = np.empty((n, n))
    a = np.empty((n, n))
    b = np.empty(n)
    cov = np.empty((n, n))
    mean = np.empty(n)
    inverse = np.empty((n, n))
    evidence = np.empty(2)
    use = np.zeros(n_sources, dtype=np.bool_)
    # the population's prior, and the last source's step, are the same for every user
    off_inverse = np.empty((n, n))
    off_log_det = _invert_sum(user_cov, pop, pop, use, 0, chol, off_inverse)
    last_inverse = np.empty((n, n))
    last_log_det = _invert_sum(user_cov, pop, pop, use, n_sources, chol, last_inverse)
    last_gram = np.empty((n, n))
    _sandwich(maps[n_sources - 1].T.copy(), last_inverse, last_gram)
    if np.isnan(off_log_det) or np.isnan(last_log_det):
        return last - first
    for u in range(first, last):
        # what each source says of its own factors
        for k in range(n_sources):
            start = indptr[u * n_domains + k]
            stop = indptr[u * n_domains + k + 1]
            own_chol[k] = 0.0
            own_mean[k] = 0.0
            for i in range(n):
                own_chol[k, i, i] = 1.0 / prior_scale[k, i] ** 2
            accumulate(start, stop, index, value, weight, factors, bias, memory, own_chol[k], own_mean[k])
            if not cholesky(own_chol[k]):
                bad += 1
            solve_lower(own_chol[k], own_mean[k])
            solve_upper(own_chol[k], own_mean[k])
            if stop > start:
                invert(own_chol[k], own_cov[k])
                _sandwich(maps[k], own_cov[k], own[k])
                for i in range(n):
                    t = 0.0
                    for j in range(n):
                        t += maps[k, i, j] * own_mean[k, j]
                    shift[k, i] = t
        # what the target rows say
        start = indptr[u * n_domains + n_sources]
        stop = indptr[u * n_domains + n_sources + 1]
        gram[:, :] = 0.0
        linear[:] = 0.0
        accumulate(start, stop, index, value, weight, factors, bias, memory, gram, linear)
        # gates, with theta and all phi integrated out; then theta, with all phi integrated out
        for k in range(n_sources + 1):
            choose = k < n_sources and gated
            if k < n_sources and not gated:
                gate[k, u] = True
                log_odds[k, u] = np.nan
                continue
            odds = 0.0
            has_source = choose and indptr[u * n_domains + k + 1] > indptr[u * n_domains + k]
            if choose:
                odds = np.log1p(-off[k]) - np.log(off[k])
                log_odds[k, u] = np.nan
            if not choose or (has_source and stop > start):
                for choice in range(2 if choose else 1):
                    any_on = False
                    mean[:] = user_mean
                    for j in range(n_sources):
                        on = gate[j, u] if j != k else choice == 1
                        use[j] = on and indptr[u * n_domains + j + 1] > indptr[u * n_domains + j]
                        if use[j]:
                            any_on = True
                            mean += shift[j]
                    if any_on:
                        ld = _invert_sum(user_cov, own, pop, use, 0, chol, inverse)
                        evidence[choice] = _evidence(inverse, ld, mean, gram, linear, a, b)
                    else:
                        evidence[choice] = _evidence(off_inverse, off_log_det, mean, gram, linear, a, b)
                if choose:
                    odds += evidence[1] - evidence[0]
            if choose:
                if has_source:
                    log_odds[k, u] = odds
                gate[k, u] = uniforms[k, u] < 1.0 / (1.0 + np.exp(-odds))
        if np.isnan(evidence[0]):
            bad += 1
        for i in range(n):
            b[i] += normals[0, u, i]
        solve_upper(a, b)
        theta[u] = b
        # phi, one source after another, given theta
        rest = b - mean
        for k in range(n_sources):
            on = gate[k, u]
            # deviation of phi from its mean: precision P + W' E^-1 W, linear term W' E^-1 rest
            if k == n_sources - 1:
                inverse[:, :] = last_inverse
                cov[:, :] = last_gram
            else:
                for j in range(n_sources):
                    use[j] = gate[j, u] and indptr[u * n_domains + j + 1] > indptr[u * n_domains + j]
                if np.isnan(_invert_sum(user_cov, own, pop, use, k + 1, chol, inverse)):
                    bad += 1
                _sandwich(maps[k].T.copy(), inverse, cov)
            for i in range(n):
                t = 0.0
                for j in range(n):
                    t += inverse[i, j] * rest[j]
                linear[i] = t
            for i in range(n):
                t = 0.0
                for j in range(n):
                    t += maps[k, j, i] * linear[j]
                b[i] = t
                for j in range(i + 1):
                    if on:
                        t = 0.0
                        for l in range(j + 1):
                            t += own_chol[k, i, l] * own_chol[k, j, l]
                        cov[i, j] += t
                    elif i == j:
                        cov[i, i] += 1.0 / prior_scale[k, i] ** 2
            if not cholesky(cov):
                bad += 1
            solve_lower(cov, b)
            for i in range(n):
                b[i] += normals[1 + k, u, i]
            solve_upper(cov, b)
            for i in range(n):
                t = 0.0
                for j in range(n):
                    t += maps[k, i, j] * b[j]
                rest[i] -= t
            if on:
                for i in range(n):
                    phi_used[k, u, i] = own_mean[k, i] + b[i]
                    phi[k, u, i] = phi_used[k, u, i]
            else:
                # the copy comes from theta, the user's own phi from the source rows alone
                phi_used[k, u] = b
                for i in range(n):
                    b[i] = normals[1 + n_sources + k, u, i]
                solve_upper(own_chol[k], b)
                for i in range(n):
                    phi[k, u, i] = own_mean[k, i] + b[i]
    return bad
