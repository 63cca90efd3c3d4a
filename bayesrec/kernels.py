"""Compiled loops behind :mod:`bayesrec.conjugate`. Internal.

Each function works on one row after another in plain loops over small matrices, releases the GIL (chains run in
threads) and draws no random numbers: standard normals come in as an array, so results do not depend on threads.
Vectors have ``R = rank + 1`` components, bias first. Inside :func:`transfer_rows` they are padded to a multiple of LANES
(zeros, and ones on the diagonal of precisions and covariances), of symmetric matrices only the upper triangle is kept, and
right-hand sides stand behind the matrix that is factored.
"""

from __future__ import annotations

import numpy as np

from bayesrec.jit import compiled, reordered
from bayesrec.rows import JITTER, accumulate, cholesky_upper, draw_rows, multiple, padded, room, solve_upper
from bayesrec.streams import normals
from bayesrec.tiles import LANES, address, tile_subtract

__all__ = ["draw_rows", "grams", "normals", "row_errors", "row_scores", "take", "transfer_rows"]


@compiled
def take(table, place, out, first, last):
    """``out[t] = table[place[t]]`` for t in first..last."""
    for t in range(first, last):
        out[t] = table[place[t]]


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
                precision[u, i, j] = precision[u, j, i]


@reordered
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


@reordered
def row_scores(indptr, index, other, rows, out, first, last):
    """Score of each rating of rows first..last: ``out`` (rating,)."""
    n = rows.shape[1]
    for u in range(first, last):
        for t in range(indptr[u], indptr[u + 1]):
            o = other[index[t]]
            e = rows[u, 0] + o[0]
            for k in range(1, n):
                e += rows[u, k] * o[k]
            out[t] = e


@compiled
def _subtract_gram(rows, offset, out):
    """Subtract B'B from the upper triangle of ``out``, B (n, n) = rows[:, offset : offset + n]."""
    n = rows.shape[0]
    left = address(rows[0][offset:])
    for i in range(0, n, LANES):
        for j in range(i, n, LANES):
            tile_subtract(left, rows.shape[1], n, i, j, address(out), out.shape[1])


@compiled
def _log_det(upper):
    """Log det(U'U)."""
    total = 0.0
    for i in range(0, upper.shape[0], LANES):
        part = 1.0
        for j in range(i, i + LANES):
            part *= upper[j, j]
        total += np.log(part)
    return 2.0 * total


@compiled
def _add_jitter(a, jitter):
    """Add jitter times the mean of the diagonal to the diagonal."""
    n = a.shape[0]
    trace = 0.0
    for i in range(n):
        trace += a[i, i]
    for i in range(n):
        a[i, i] += jitter * trace / n


@reordered
def _add_product(rows, offset, x, out):
    """Add B x to ``out``, B = rows[:, offset : offset + n]."""
    for i in range(x.shape[0]):
        row = rows[i]
        total = 0.0
        for j in range(x.shape[0]):
            total += row[offset + j] * x[j]
        out[i] += total


@compiled
def _square(a, column):
    """Sum of squares of a column."""
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i, column] ** 2
    return total


@compiled
def _alone(precision, linear, jitter, a, inverse):
    """Twice the log evidence of a source's rows alone, up to a constant; leaves [U | . | U'^-1 linear] in ``a``."""
    n = precision.shape[0]
    a[:, :n] = precision
    a[:, n:] = 0.0
    a[:, n] = linear
    _add_jitter(a, jitter)
    if not cholesky_upper(a, inverse):
        return np.nan
    return _square(a, n) - _log_det(a)


@compiled
def _integrate(
    use, precision, linear, prior, maps, first_map, first_gram, cov_inverse, start, jitter, a, t, lin, inverse
):
    """Integrate the source vectors out of theta's prior, one after another.

    Where ``use`` is False the source has its prior ``diag(prior[k])`` in the place of its rows. On return ``t`` (upper
    triangle) and ``lin`` are theta's precision and linear term, and ``a[k]`` = [U | D | c] draws ``phi[k]`` given what remains
    of theta, r: U phi = c + D r + z. Returns the sum of c'c - log det(U'U).
    """
    n = start.shape[0]
    t[:, :] = cov_inverse
    lin[:] = start
    total = 0.0
    for k in range(maps.shape[0]):
        b = a[k]
        b[:, 2 * n :] = 0.0
        if k == 0:
            b[:, :n] = first_gram
            b[:, n : 2 * n] = first_map
        else:
            b[:, : 2 * n] = 0.0
            for i in range(n):
                for j in range(i):
                    t[i, j] = t[j, i]
            for j in range(n):
                for i in range(n):
                    for q in range(n):
                        b[i, n + q] += maps[k, j, i] * t[j, q]
            for i in range(n):
                for j in range(n):
                    for q in range(i, n):
                        b[i, q] += b[i, n + j] * maps[k, j, q]
        if use[k]:
            for i in range(n):
                for j in range(i, n):
                    b[i, j] += precision[k, i, j]
                b[i, 2 * n] = linear[k, i]
        else:
            for i in range(n):
                b[i, i] += prior[k, i]
        for j in range(n):
            if lin[j] != 0.0:
                for i in range(n):
                    b[i, 2 * n] -= maps[k, j, i] * lin[j]
        if jitter > 0.0:
            _add_jitter(b, jitter)
        if not cholesky_upper(b, inverse):
            return np.nan
        total += _square(b, 2 * n) - _log_det(b)
        _subtract_gram(b, n, t)
        for q in range(n):
            c = b[q, 2 * n]
            for i in range(n):
                lin[i] += b[q, n + i] * c
    return total


@compiled
def _meet(t, lin, gram, linear, jitter, after, inverse):
    """Twice the log evidence of target rows under theta's prior (t, lin), up to a constant; [U | U'^-1 linear] in ``after``."""
    n = lin.shape[0]
    for i in range(n):
        for j in range(i, n):
            after[i, j] = t[i, j] + gram[i, j]
        after[i, n] = lin[i] + linear[i]
        for j in range(n + 1, after.shape[1]):
            after[i, j] = 0.0
    if jitter > 0.0:
        _add_jitter(after, jitter)
    if not cholesky_upper(after, inverse):
        return np.nan
    return _square(after, n) - _log_det(after)


@compiled
def transfer_rows(
    indptr, index, value, weight, item, prior_scale, user_mean, user_cov, maps, off, gated, present, given, given_linear,
    common, common_linear, normals, uniforms, theta, phi, phi_used, gate, log_odds, first, last,
):  # fmt: skip
    """Draw (gate, theta, phi) of users first..last jointly; returns failures and rows that needed jitter.

    The ratings of user ``u`` in domain ``d`` are ``indptr[u * D + d] .. indptr[u * D + d + 1]``; the target is the
    last domain; ``present`` (domain, user) says of whom the cells of a domain tell something. ``given`` (source, user, R, R) and
    ``given_linear`` (source, user, R), or arrays without a source, add to what the source rows say of phi: natural parameters.
    ``common`` (domain, R, R) and ``common_linear`` (domain, R), or arrays without a domain, add to what the rows of a domain
    say of every user who is present. ``off[k]`` is the prior probability that source ``k``'s gate is off (``gated`` False:
    never off).
    Given the gates, all phi are integrated out of theta's prior one after another: phi_k has precision ``P + G + W' T W``,
    P its prior's, G its rows' where the gate is on (0 where it is off), T theta's precision so far. The gates are drawn with
    theta and all phi integrated out, then theta with all phi integrated out, then one phi after another, the last first.
    ``phi_used`` is phi where the gate is on and the independent copy where it is off.
    """
    size = theta.shape[1]
    n = multiple(size)
    n_sources = maps.shape[0]
    n_given = given.shape[0]
    n_domains = n_sources + 1
    factors, bias = padded(item)
    memory = room(factors.shape[1])
    inverse = np.empty(LANES)
    # padded constants
    prior = np.ones((n_sources, n))
    prior[:, :size] = 1.0 / prior_scale**2
    prior_log_det = np.log(prior).sum(1)
    wide_maps = np.zeros((n_sources, n, n))
    wide_maps[:, :size, :size] = maps
    cov_inverse = np.eye(n)
    cov_inverse[:size, :size] = np.linalg.inv(user_cov)
    start_lin = np.zeros(n)
    start_lin[:size] = np.linalg.solve(user_cov, user_mean)
    first_map = wide_maps[0].T.copy() @ cov_inverse
    first_gram = first_map @ wide_maps[0]
    # what sources say alone; theta's prior with no source used, and for the two states of a gate
    precision = np.zeros((n_sources, n, n))
    linear = np.zeros((n_sources, n))
    own = np.zeros((n_sources, n, n + LANES))
    alone = np.empty(n_sources)
    a = np.zeros((2, n_sources, n, 2 * n + LANES))
    a_off = np.zeros((n_sources, n, 2 * n + LANES))
    t = np.zeros((2, n, n))
    lin = np.zeros((2, n))
    t_off = np.zeros((n, n))
    lin_off = np.zeros(n)
    after = np.zeros((2, n, n + LANES))
    gram = np.empty((n, n))
    target = np.empty(n)
    evidence = np.empty(2)
    rest = np.empty(n)
    b = np.empty(n)
    use = np.zeros(n_sources, dtype=np.bool_)
    has = np.zeros(n_sources, dtype=np.bool_)
    before = np.zeros(n_sources, dtype=np.bool_)
    nothing = _integrate(
        use, precision, linear, prior, wide_maps, first_map, first_gram, cov_inverse, start_lin, 0.0, a_off, t_off,
        lin_off, inverse,
    )  # fmt: skip
    if np.isnan(nothing):
        return last - first, 0
    bad = 0
    jittered = 0
    for u in range(first, last):
        before[:] = gate[:, u]
        # what each source says of its own factors, and what the target rows say of theta
        for k in range(n_sources):
            row = u * n_domains + k
            rows = present[k, u]
            has[k] = rows or (n_given > 0 and given[k, u].any())
            if not has[k]:
                continue
            precision[k] = np.diag(prior[k])
            linear[k] = 0.0
            if rows and len(common) > 0:
                precision[k, :size, :size] += common[k]
                linear[k, :size] += common_linear[k]
            if n_given > 0:
                precision[k, :size, :size] += given[k, u]
                linear[k, :size] += given_linear[k, u]
            accumulate(
                indptr[row], indptr[row + 1], index, value, weight, factors, bias, memory, precision[k], linear[k]
            )
        start = indptr[u * n_domains + n_domains - 1]
        stop = indptr[u * n_domains + n_domains]
        in_target = present[n_sources, u]
        gram[:, :] = 0.0
        target[:] = 0.0
        if in_target and len(common) > 0:
            gram[:size, :size] += common[n_sources]
            target[:size] += common_linear[n_sources]
        accumulate(start, stop, index, value, weight, factors, bias, memory, gram, target)
        good = False
        for attempt in range(len(JITTER)):
            jitter = JITTER[attempt]
            gate[:, u] = before
            good = True
            for k in range(n_sources):
                alone[k] = 0.0
                if has[k] and gated:
                    alone[k] = _alone(precision[k], linear[k], jitter, own[k], inverse) + prior_log_det[k]
                    good &= not np.isnan(alone[k])
            # gates, with theta and all phi integrated out
            slot = 0
            used = False
            met = False
            for k in range(n_sources + 1):
                # the last round has no gate to draw: it settles theta's prior if the last gate did not
                choose = k < n_sources and gated
                if k < n_sources:
                    log_odds[k, u] = np.nan
                    if not gated:
                        gate[k, u] = True
                        continue
                    odds = np.log1p(-off[k]) - np.log(off[k])
                    met = has[k] and in_target
                elif met:
                    break
                if met or k == n_sources:
                    for choice in range(2 if choose else 1):
                        used = False
                        for j in range(n_sources):
                            use[j] = has[j] and (gate[j, u] if j != k else choice == 1)
                            used |= use[j]
                        if used:
                            evidence[choice] = _integrate(
                                use, precision, linear, prior, wide_maps, first_map, first_gram, cov_inverse, start_lin,
                                jitter, a[choice], t[choice], lin[choice], inverse,
                            )  # fmt: skip
                            evidence[choice] += _meet(
                                t[choice], lin[choice], gram, target, jitter, after[choice], inverse
                            )
                        else:
                            evidence[choice] = nothing
                            evidence[choice] += _meet(t_off, lin_off, gram, target, jitter, after[choice], inverse)
                        good &= not np.isnan(evidence[choice])
                    slot = 0
                if choose:
                    if met:
                        odds += 0.5 * (evidence[1] - evidence[0] - alone[k])
                    if has[k]:
                        log_odds[k, u] = odds
                    gate[k, u] = uniforms[k, u] < 1.0 / (1.0 + np.exp(-odds))
                    slot = 1 if met and gate[k, u] else 0
            used = False
            for j in range(n_sources):
                used |= has[j] and gate[j, u]
            # theta, then phi, the last first
            b[:] = after[slot][:, n]
            for i in range(size):
                b[i] += normals[0, u, i]
            solve_upper(after[slot], b)
            theta[u] = b[:size]
            rest[:] = b
            for k in range(n_sources - 1, -1, -1):
                c = a[slot, k] if used else a_off[k]
                b[:] = c[:, 2 * n]
                for i in range(size):
                    b[i] += normals[1 + k, u, i]
                _add_product(c, n, rest, b)
                solve_upper(c, b)
                for i in range(size):
                    for j in range(size):
                        rest[i] -= wide_maps[k, i, j] * b[j]
                phi_used[k, u] = b[:size]
                if gate[k, u] or not gated:
                    phi[k, u] = b[:size]
                    continue
                # the copy came from theta, the user's own phi comes from the source rows alone
                b[:] = 0.0
                if has[k]:
                    b[:] = own[k][:, n]
                for i in range(size):
                    b[i] += normals[1 + n_sources + k, u, i]
                if has[k]:
                    solve_upper(own[k], b)
                    phi[k, u] = b[:size]
                else:
                    for i in range(size):
                        phi[k, u, i] = b[i] / np.sqrt(prior[k, i])
            if good:
                jittered += attempt > 0
                break
        bad += not good
    return bad, jittered
