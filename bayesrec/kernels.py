"""Compiled loops behind :mod:`bayesrec.conjugate`. Internal.

Each function works on rows in loops over small matrices and releases the GIL (chains run in threads). Random numbers
come from a stream for every row (:mod:`bayesrec.streams`), so results do not depend on threads.
Vectors have ``R = rank + 1`` components, bias first.
"""

from __future__ import annotations

import numpy as np

from bayesrec.jit import compiled, reordered
from bayesrec.lanes import add, aligned, arrange, evidence, factor, fill, good, solve, systems
from bayesrec.rows import JITTER, accumulate, draw_rows, padded, room
from bayesrec.streams import normals
from bayesrec.vectors import LANES

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
def joint(prior, mean, cov, maps):
    """[precision | linear term] of (phi_1, .., phi_K, theta), no ratings seen: ((K + 1) R, (K + 1) R + 1).

    phi_k has precision ``diag(prior[k])`` and mean 0, theta given all phi has mean ``mean + sum of maps[k] phi_k``.
    """
    n_sources, n = prior.shape
    inverse = np.linalg.inv(cov)
    design = np.zeros((n, (n_sources + 1) * n))
    design[:, n_sources * n :] = np.eye(n)
    for k in range(n_sources):
        design[:, k * n : (k + 1) * n] = -maps[k]
    out = np.zeros((design.shape[1], design.shape[1] + 1))
    half = np.ascontiguousarray(design.T) @ inverse
    out[:, :-1] = half @ design
    out[:, -1] = half @ np.ascontiguousarray(mean)
    for k in range(n_sources):
        for i in range(n):
            out[k * n + i, k * n + i] += prior[k, i]
    return out


@compiled
def _rows_say(domain, first, n, indptr, index, value, weight, factors, bias, tells, given, common, memory, apart, out):
    """What the rows of users first..first + n in one domain say, one system a user, as ``out``; ``tells`` (user,)."""
    size = out.shape[0]
    given_precision, given_linear = given
    common_precision, common_linear = common
    n_domains = (len(indptr) - 1) // len(tells)
    for lane in range(n):
        u = first + lane
        a = apart[lane]
        for i in range(size):
            for j in range(i, size + 1):
                a[i, j] = 0.0
        if tells[u] and len(common_precision) > 0:
            for i in range(size):
                a[i, size] += common_linear[domain, i]
                for j in range(i, size):
                    a[i, j] += common_precision[domain, i, j]
        if domain < len(given_precision):
            for i in range(size):
                a[i, size] += given_linear[domain, u, i]
                for j in range(i, size):
                    a[i, j] += given_precision[domain, u, i, j]
        row = u * n_domains + domain
        accumulate(indptr[row], indptr[row + 1], index, value, weight, factors, bias, memory, a, a[:, size])
    arrange(apart, out)


@compiled
def _add_jitter(a, jitter):
    """Add jitter times the mean of the diagonal to the diagonal of every system."""
    n = len(a)
    if jitter > 0.0:
        for lane in range(LANES):
            trace = 0.0
            for i in range(n):
                trace += a[i, i, lane]
            for i in range(n):
                a[i, i, lane] += jitter * trace / n


@compiled
def _together(start, say, use, jitter, a, inverse):
    """Factor the joint precision of all sources' vectors, with their rows where ``use`` (source + 1, LANES) is 1, and theta."""
    fill(start, a)
    for k in range(len(say)):
        add(say[k], use[k], a, k)
    _add_jitter(a, jitter)
    factor(a, inverse)


@compiled
def _users(first, n, jitter, rows, prior, room, normals, uniforms, gate, log_odds, theta, phi, phi_used, fine):
    """Draw users first..first + n, at most LANES, side by side; which had precisions that are positive definite, ``fine``."""
    indptr, index, value, weight, factors, bias, present, given, common = rows
    start, alone, log_det, log_prior_odds, gated = prior
    memory, apart, say, own, own_inverse, a, inverse, use, own_evidence, off_evidence = room
    n_sources, size = len(alone), theta.shape[1]
    always = use[n_sources]
    fine[:] = True
    for d in range(n_sources + 1):
        _rows_say(
            d, first, n, indptr, index, value, weight, factors, bias, present[d], given, common, memory, apart, say[d]
        )
    for k in range(n_sources):
        use[k] = 1.0
        if gated:
            fill(alone[k], own[k])
            add(say[k], always, own[k], 0)
            _add_jitter(own[k], jitter)
            factor(own[k], own_inverse[k])
            for lane in range(n):
                fine[lane] &= good(own_inverse[k], lane)
                own_evidence[k, lane] = evidence(own[k], own_inverse[k], lane) + log_det[k]
                use[k, lane] = gate[k, first + lane]
    # the gates, one after another, with theta and all phi integrated out
    settled = False
    for k in range(n_sources):
        if not gated:
            for lane in range(n):
                gate[k, first + lane], log_odds[k, first + lane] = True, np.nan
            continue
        use[k] = 0.0
        _together(start, say, use, jitter, a, inverse)
        for lane in range(n):
            fine[lane] &= good(inverse, lane)
            off_evidence[lane] = evidence(a, inverse, lane)
        use[k] = 1.0
        _together(start, say, use, jitter, a, inverse)
        settled = True
        for lane in range(n):
            u = first + lane
            fine[lane] &= good(inverse, lane)
            has = present[k, u] or (len(given[0]) > 0 and given[0][k, u].any())
            odds = log_prior_odds[k]
            if has and present[n_sources, u]:  # else the gate makes no difference to what the rows say
                odds += 0.5 * (evidence(a, inverse, lane) - off_evidence[lane] - own_evidence[k, lane])
            log_odds[k, u] = odds if has else np.nan
            gate[k, u] = uniforms[k, u] < 1.0 / (1.0 + np.exp(-odds))
            use[k, lane] = gate[k, u]
            settled &= gate[k, u]
    # all vectors: those of the target stand last
    if not settled:
        _together(start, say, use, jitter, a, inverse)
    whole = len(a)
    for lane in range(n):
        fine[lane] &= good(inverse, lane)
        for k in range(n_sources + 1):
            z = normals[(k + 1) % (n_sources + 1), first + lane]
            for i in range(size):
                a[k * size + i, whole, lane] += z[i]
    solve(a, inverse)
    for lane in range(n):
        u = first + lane
        for i in range(size):
            theta[u, i] = a[n_sources * size + i, whole, lane]
        for k in range(n_sources):
            for i in range(size):
                phi_used[k, u, i] = phi[k, u, i] = a[k * size + i, whole, lane]
    # where a gate is off, that was the copy, which came from theta; the user's own phi comes from the source rows alone
    for k in range(n_sources):
        if gate[k, first : first + n].all():
            continue
        for lane in range(n):
            for i in range(size):
                own[k, i, size, lane] += normals[1 + n_sources + k, first + lane, i]
        solve(own[k], own_inverse[k])
        for lane in range(n):
            if not gate[k, first + lane]:
                for i in range(size):
                    phi[k, first + lane, i] = own[k, i, size, lane]


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
    Given the gates, all phi and theta are one normal: the precision of :func:`joint`, with what the rows say added to its
    diagonal blocks. Where a gate is off, phi in it is the independent copy, and the rows are left to the user's own phi. The
    gates are drawn one after another with all vectors integrated out, then the vectors.
    ``phi_used`` is phi where the gate is on and the independent copy where it is off.
    """
    prepared = transfer_prepared(
        indptr, index, value, weight, item, prior_scale, user_mean, user_cov, maps, off, gated, present, given, given_linear,
        common, common_linear,
    )  # fmt: skip
    return transfer_drawn(prepared, normals, uniforms, theta, phi, phi_used, gate, log_odds, first, last)


@compiled
def transfer_prepared(
    indptr, index, value, weight, item, prior_scale, user_mean, user_cov, maps, off, gated, present, given, given_linear,
    common, common_linear,
):  # fmt: skip
    """What :func:`transfer_drawn` needs of everything but the users: the prior, the rows, and room to work in."""
    n_sources, size = maps.shape[0], maps.shape[1]
    factors, bias = padded(item)
    precision = 1.0 / prior_scale**2
    alone, log_det, log_prior_odds = np.zeros((n_sources, size, size + 1)), np.zeros(n_sources), np.zeros(n_sources)
    for k in range(n_sources):
        log_prior_odds[k] = np.log1p(-off[k]) - np.log(off[k])
        for i in range(size):
            alone[k, i, i] = precision[k, i]
            log_det[k] += np.log(precision[k, i])
    prior = (joint(precision, user_mean, user_cov, maps), alone, log_det, log_prior_odds, gated)
    rows = (indptr, index, value, weight, factors, bias, present, (given, given_linear), (common, common_linear))
    one, _ = systems(size)
    say = aligned((n_sources + 1) * one.size).reshape((n_sources + 1, *one.shape))
    own = aligned(n_sources * one.size).reshape((n_sources, *one.shape))
    a, inverse = systems((n_sources + 1) * size)
    memory = (
        room(factors.shape[1]), np.zeros((LANES, size, size + 1 + LANES)), say, own, np.ones((n_sources, size, LANES)), a,
        inverse, np.ones((n_sources + 1, LANES)), np.zeros((n_sources, LANES)), np.zeros(LANES),
    )  # fmt: skip
    return rows, prior, memory


@compiled
def transfer_drawn(prepared, normals, uniforms, theta, phi, phi_used, gate, log_odds, first, last):
    """:func:`transfer_rows` after its preparations, which serve any number of calls by one thread."""
    rows, prior, memory = prepared
    n_sources = len(phi)
    fine, again = np.empty(LANES, dtype=np.bool_), np.empty(LANES, dtype=np.bool_)
    before = np.empty((n_sources, LANES), dtype=np.bool_)
    bad = 0
    jittered = 0
    for u in range(first, last, LANES):
        n = min(LANES, last - u)
        for lane in range(n):
            before[:, lane] = gate[:, u + lane]
        _users(u, n, 0.0, rows, prior, memory, normals, uniforms, gate, log_odds, theta, phi, phi_used, fine)
        for lane in range(n):
            again[0] = fine[lane]
            for k in range(1, len(JITTER)):
                if again[0]:
                    break
                gate[:, u + lane] = before[:, lane]
                _users(
                    u + lane, 1, JITTER[k], rows, prior, memory, normals, uniforms, gate, log_odds, theta, phi, phi_used,
                    again,
                )  # fmt: skip
                jittered += again[0]
            bad += not again[0]
    return bad, jittered
