"""Compiled draws of many small Gaussian rows: Gram matrices in tiles, Cholesky factors in place. Internal.

The factors of the other side are padded with zeros to a multiple of ``LANES`` columns, and so is the precision matrix of
the factors (with ones on the diagonal there). The bias, component 0, has a design of ones; it is kept apart and comes last
in the factorisation, as a border.
"""

from __future__ import annotations

import numpy as np

from bayesrec.jit import compiled, reordered
from bayesrec.tiles import LANES, address, factor_tile, gather, solve_tile, tile_add, tile_subtract

__all__ = ["JITTER", "accumulate", "cholesky_upper", "draw_rows", "multiple", "padded", "room", "solve_upper"]

BLOCK = 64  # ratings gathered at once
JITTER = (0.0, 1e-12, 1e-10, 1e-8)  # added to the diagonal, times its mean, one after another until the factor exists


@compiled
def multiple(n):
    """The least multiple of LANES that is not below ``n``."""
    return (n + LANES - 1) // LANES * LANES


@compiled
def padded(other):
    """The factors of the other side with columns of zeros behind, and their biases."""
    rank = other.shape[1] - 1
    factors = np.zeros((other.shape[0], multiple(rank)))
    bias = np.empty(other.shape[0])
    for r in range(other.shape[0]):
        bias[r] = other[r, 0]
        for k in range(rank):
            factors[r, k] = other[r, k + 1]
    return factors, bias


@compiled
def room(width):
    """Working memory for rows of ``width`` factors: precision, its border, linear term, a block of ratings, LANES numbers.

    The precision has LANES columns more than rows, for right-hand sides.
    """
    precision = np.empty((width, width + LANES))
    return precision, np.empty(width), np.empty(width), np.empty((BLOCK, width)), np.empty((3, BLOCK)), np.empty(LANES)


@compiled
def _add(start, stop, index, value, weight, factors, bias, memory):
    """Add ratings start..stop to the memory; returns what they add to the bias's precision and linear term.

    A rating is ``value = row bias + bias[i] + row @ factors[i] + noise``.
    """
    precision, border, linear, block, scalars, _ = memory
    width = factors.shape[1]
    total = 0.0
    first = 0.0
    for t in range(start, stop, BLOCK):
        m = min(BLOCK, stop - t)
        for q in range(m):
            w = weight[t + q]
            r = w * (value[t + q] - bias[index[t + q]])
            scalars[0, q] = np.sqrt(w)
            scalars[1, q] = r
            scalars[2, q] = w
            total += w
            first += r
        for j in range(0, width, LANES):
            gather(
                address(factors), width, address(index[t:]), m, j, address(scalars[0]), address(scalars[1]),
                address(scalars[2]), address(block), address(linear), address(border),
            )  # fmt: skip
        for i in range(0, width, LANES):
            for j in range(i, width, LANES):
                tile_add(address(block), width, m, i, j, address(precision), width + LANES)
    return total, first


@compiled
def accumulate(start, stop, index, value, weight, factors, bias, memory, precision, linear):
    """Add the likelihood of ratings start..stop to a row's precision, upper triangle, and linear term, bias first."""
    if start == stop:
        return
    upper, border, right, _, _, _ = memory
    upper[:, :] = 0.0
    border[:] = 0.0
    right[:] = 0.0
    total, first = _add(start, stop, index, value, weight, factors, bias, memory)
    precision[0, 0] += total
    linear[0] += first
    for i in range(min(linear.shape[0] - 1, len(border))):
        precision[0, i + 1] += border[i]
        linear[i + 1] += right[i]
        for j in range(i, min(linear.shape[0] - 1, len(border))):
            precision[i + 1, j + 1] += upper[i, j]


@compiled
def cholesky_upper(a, inverse):
    """U with U'U = A for ``a = [A | B]`` (n, n + m), in place of A's upper triangle, and U'^-1 B in place of B.

    ``n`` and ``m`` are multiples of LANES; ``inverse`` is room for LANES numbers. False if A is not positive definite.
    """
    n, stride = a.shape
    for k in range(0, n, LANES):
        rows = address(a[k])
        if not factor_tile(rows, stride, k, address(inverse)):
            return False
        for j in range(k + LANES, stride, LANES):
            solve_tile(rows, stride, k, j, address(inverse))
        for i in range(k + LANES, n, LANES):
            for j in range(i, stride, LANES):
                tile_subtract(rows, stride, LANES, i, j, address(a), stride)
    return True


@reordered
def solve_upper(upper, x):
    """Solve Ux = b in place of b, whose length is a multiple of LANES."""
    for k in range(x.shape[0] - LANES, -1, -LANES):
        for r in range(LANES - 1, -1, -1):
            x[k + r] /= upper[k + r, k + r]
            for s in range(r):
                x[k + s] -= upper[k + s, k + r] * x[k + r]
        for i in range(k):
            total = 0.0
            for j in range(LANES):
                total += upper[i, k + j] * x[k + j]
            x[i] -= total


@compiled
def _starts(prior, right, width):
    """What rows without ratings begin with: precisions (group, width, width + LANES), their borders and linear terms."""
    n, rank = right.shape[0], right.shape[1] - 1
    upper, border, linear = np.zeros((n, width, width + LANES)), np.zeros((n, width)), np.zeros((n, width))
    for g in range(n):
        for i in range(width):
            upper[g, i, i] = 1.0
        for i in range(rank):
            linear[g, i] = right[g, i + 1]
            border[g, i] = prior[g, i + 1, 0]
            for j in range(i, rank):
                upper[g, i, j] = prior[g, i + 1, j + 1]
    return upper, border, linear


@compiled
def _factor(start, stop, index, value, weight, factors, bias, prior, right, begin, jitter, memory):
    """Factor the precision of a row, ratings and prior; precision and linear term of the bias given the factors.

    The precision of the bias is not above 0 where the row's is not positive definite. The border and the linear term stand
    in the first two columns behind the precision's.
    """
    upper, border, linear, _, _, inverse = memory
    width = factors.shape[1]
    rank = right.shape[0] - 1
    for i in range(width):
        for j in range(width + LANES):
            upper[i, j] = begin[0][i, j]
        border[i] = begin[1][i]
        linear[i] = begin[2][i]
    total, one = _add(start, stop, index, value, weight, factors, bias, memory)
    total += prior[0, 0]
    one += right[0]
    if jitter > 0.0:
        trace = total
        for i in range(rank):
            trace += upper[i, i]
        total += jitter * trace / (rank + 1)
        for i in range(rank):
            upper[i, i] += jitter * trace / (rank + 1)
    for i in range(width):
        upper[i, width] = border[i]
        upper[i, width + 1] = linear[i]
    if not cholesky_upper(upper, inverse):
        return 0.0, 0.0
    for i in range(width):
        border[i] = upper[i, width]
        linear[i] = upper[i, width + 1]
        total -= border[i] * border[i]
        one -= border[i] * linear[i]
    return total, one


@compiled
def draw_rows(indptr, index, value, weight, other, group, prior_precision, prior_linear, normals, out, first, last):
    """Draw rows first..last from their Gaussian conditionals.

    Returns how many were not positive definite, whatever the jitter, and how many were so only with jitter.
    """
    factors, bias = padded(other)
    width = factors.shape[1]
    rank = out.shape[1] - 1
    memory = room(width)
    starts = _starts(prior_precision, prior_linear, width)
    upper, border, linear, _, _, _ = memory
    bad = 0
    jittered = 0
    for u in range(first, last):
        prior = prior_precision[group[u]]
        right = prior_linear[group[u]]
        begin = starts[0][group[u]], starts[1][group[u]], starts[2][group[u]]
        total = 0.0
        one = 0.0
        for k in range(len(JITTER)):
            total, one = _factor(
                indptr[u], indptr[u + 1], index, value, weight, factors, bias, prior, right, begin, JITTER[k], memory
            )
            if total > 0.0:
                jittered += k > 0
                break
        if not total > 0.0:
            bad += 1
            continue
        root = np.sqrt(total)
        out[u, 0] = (one / root + normals[u, 0]) / root
        for i in range(rank):
            linear[i] += normals[u, i + 1] - border[i] * out[u, 0]
        solve_upper(upper, linear)
        for i in range(rank):
            out[u, i + 1] = linear[i]
    return bad, jittered
