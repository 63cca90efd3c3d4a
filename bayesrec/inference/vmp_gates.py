"""Compiled factors of users with a vector in every domain and gates between them. Internal.

Given the gates, what theta of a user sees of the sources (``used``) and theta itself are jointly normal; where a gate is off
an independent copy is used, and the source's own vector has its rows alone. All configurations of the gates are counted:
the factor of a user is their mixture, which is the optimal one for gates, copies and vectors together.
"""

from __future__ import annotations

import numpy as np

from bayesrec.inference.vmp_rows import add_row, normal_of, place
from bayesrec.jit import compiled

__all__ = ["PARTS", "transfer_solve"]

PARTS = 64  # sums over users are added up by parts, whatever the threads


@compiled
def _blend(share, mean, cov, first, size, out):
    """Add ``share`` of a normal's moments, components first .. first + size, to a row of moments."""
    out[0] += share
    for i in range(size):
        out[i + 1] += share * mean[first + i]
        for j in range(i, size):
            both = cov[first + i, first + j] + mean[first + i] * mean[first + j]
            out[place(i + 1, j + 1, size)] += share * both


@compiled
def transfer_solve(
    sums, weight, has, prior, log_prior, cross, gram, target, log_gate, gated, moments, chance, entropy, scatter, copies, rows
):  # fmt: skip
    """Update the factors of users rows[0]..rows[1]; returns how many precisions were not positive definite.

    Parameters
    ----------
    sums : ndarray, (user * domain, room)
    weight : ndarray, (user, domain)
    has : ndarray of bool, (user, domain)
        Who has rows in a domain, the target last.
    prior, log_prior : ndarray, (source, R)
        Expected prior precisions of source vectors, and log precisions.
    cross, gram : ndarray, (1 + source * R, R) and (1 + source * R, 1 + source * R)
        ``E[B L]`` and ``E[B L B']`` of the coefficients ``B``, intercept first, and theta's precision ``L`` (R, R) = ``target``.
    log_gate : ndarray, (source, 2)
        Expected log probabilities that a gate is off and on.
    moments : ndarray, (domain * user, room)
        Written: of every vector that ratings inform.
    chance : ndarray, (configuration, user)
        Written; bit ``k`` of a configuration is set where source ``k``'s gate is off.
    entropy : ndarray, (user,)
        Written: of gates, copies and vectors.
    scatter : ndarray, (part, P + R, P + R)
        ``E[h h']`` with ``h = (1, used, theta)``, summed over target users in the parts of ``rows`` alone. Upper triangle.
    copies : ndarray, (part, source, 1 + R)
        Expected number of copies and of their squares.
    rows : ndarray, (part + 1,)
    """
    n_sources, size = prior.shape
    n_users = has.shape[0]
    n_domains = n_sources + 1
    wide = n_domains * size
    n_on = 2**n_sources if gated else 1
    precision, linear = np.zeros((n_domains, size, size)), np.zeros((n_domains, size))
    own_cov, own_mean, own_half = np.zeros((n_sources, size, size)), np.zeros((n_sources, size)), np.zeros(n_sources)
    a, right = np.zeros((wide, wide)), np.zeros(wide)
    inverse, small, room = np.zeros((wide, wide)), np.zeros((size, size)), np.zeros((size, size))
    cov, mean = np.zeros((n_on, wide, wide)), np.zeros((n_on, wide))
    log_weight, parts = np.empty(n_on), np.empty(n_on)
    constant = 1.0 + np.log(2.0 * np.pi)
    bad = 0
    for part in range(len(rows) - 1):
        sum_h, sum_copies = scatter[part], copies[part]
        sum_h[:] = 0.0
        sum_copies[:] = 0.0
        for u in range(rows[part], rows[part + 1]):
            entropy[u] = 0.0
            for d in range(n_domains):
                moments[d * n_users + u] = 0.0
                precision[d] = 0.0
                linear[d] = 0.0
                if has[u, d]:
                    add_row(sums[u * n_domains + d], weight[u, d], size, precision[d], linear[d])
            for k in range(n_sources):
                if not has[u, k]:
                    continue
                small[:] = precision[k]
                for i in range(size):
                    small[i, i] += prior[k, i]
                own_half[k] = normal_of(small, linear[k], room, own_cov[k], own_mean[k])
                bad += np.isnan(own_half[k])
            if not has[u, n_sources]:  # source vectors alone are informed
                for k in range(n_sources):
                    if has[u, k]:
                        _blend(1.0, own_mean[k], own_cov[k], 0, size, moments[k * n_users + u])
                        entropy[u] += 0.5 * size * constant - own_half[k]
                continue
            top = -np.inf
            for c in range(n_on):
                log_weight[c] = 0.0
                possible = True
                a[:] = 0.0
                for k in range(n_sources):
                    off = (c >> k) & 1 == 1
                    possible &= has[u, k] or not off
                    start = k * size
                    for i in range(size):
                        right[start + i] = -gram[0, 1 + start + i]
                        for j in range(i, wide - size - start):
                            a[start + i, start + j] = gram[1 + start + i, 1 + start + j]
                        for j in range(size):
                            a[start + i, wide - size + j] = -cross[1 + start + i, j]
                        a[start + i, start + i] += prior[k, i]
                    if has[u, k] and not off:
                        for i in range(size):
                            right[start + i] += linear[k, i]
                            for j in range(i, size):
                                a[start + i, start + j] += precision[k, i, j]
                    if has[u, k] and gated:
                        log_weight[c] += log_gate[k, 0 if off else 1]
                    if off:  # the copy's prior, and the evidence of the source's own rows
                        for i in range(size):
                            log_weight[c] += 0.5 * (log_prior[k, i] + own_mean[k, i] * linear[k, i])
                        log_weight[c] -= own_half[k]
                for i in range(size):
                    right[wide - size + i] = cross[0, i] + linear[n_sources, i]
                    for j in range(i, size):
                        a[wide - size + i, wide - size + j] = target[i, j] + precision[n_sources, i, j]
                if not possible:
                    log_weight[c] = -np.inf
                    continue
                half = normal_of(a, right, inverse, cov[c], mean[c])
                bad += np.isnan(half)
                for i in range(wide):
                    log_weight[c] += 0.5 * mean[c, i] * right[i]
                log_weight[c] -= half
                parts[c] = 0.5 * wide * constant - half
                top = max(top, log_weight[c])
            total = 0.0
            for c in range(n_on):
                total += np.exp(log_weight[c] - top)
            for c in range(n_on):
                share = np.exp(log_weight[c] - top) / total
                chance[c, u] = share
                if not share > 0.0:
                    continue
                entropy[u] += share * (parts[c] - np.log(share))
                _blend(share, mean[c], cov[c], wide - size, size, moments[n_sources * n_users + u])
                for k in range(n_sources):
                    off = (c >> k) & 1 == 1
                    if off:
                        _blend(share, own_mean[k], own_cov[k], 0, size, moments[k * n_users + u])
                        entropy[u] += share * (0.5 * size * constant - own_half[k])
                    else:
                        _blend(share, mean[c], cov[c], k * size, size, moments[k * n_users + u])
                    if off or not has[u, k]:
                        sum_copies[k, 0] += share
                        for i in range(size):
                            q = k * size + i
                            sum_copies[k, 1 + i] += share * (cov[c, q, q] + mean[c, q] ** 2)
                sum_h[0, 0] += share
                for i in range(wide):
                    sum_h[0, 1 + i] += share * mean[c, i]
                    for j in range(i, wide):
                        sum_h[1 + i, 1 + j] += share * (cov[c, i, j] + mean[c, i] * mean[c, j])
    return bad
