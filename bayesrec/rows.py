"""Compiled draws of many small Gaussian rows: Gram matrices in tiles, Cholesky factors of eight rows at once. Internal.

The factors of the other side are padded with zeros to a multiple of ``WIDTH`` columns. The bias, component 0, has a design of
ones: what a row's ratings say of it comes as sums beside the Gram matrix of the factors.
"""

from __future__ import annotations

import numpy as np

from bayesrec.jit import compiled
from bayesrec.lanes import aligned, arrange, factor, good, solve, systems
from bayesrec.tiles import corner_add, gather, gather_half, short_add, tall_add, taller_add, tile_add
from bayesrec.vectors import LANES, address

__all__ = ["JITTER", "accumulate", "draw_rows", "padded", "room"]

BLOCK = 64  # ratings gathered at once
WIDTH = 4
JITTER = (0.0, 1e-12, 1e-10, 1e-8)  # added to the diagonal, times its mean, one after another until the factor exists


@compiled
def padded(other):
    """The factors of the other side with columns of zeros behind, and their biases."""
    rank = other.shape[1] - 1
    width = max(WIDTH, (rank + WIDTH - 1) // WIDTH * WIDTH)
    factors = aligned(other.shape[0] * width).reshape((other.shape[0], width))
    bias = np.empty(other.shape[0])
    for r in range(other.shape[0]):
        bias[r] = other[r, 0]
        for k in range(rank):
            factors[r, k] = other[r, k + 1]
    return factors, bias


@compiled
def room(width):
    """Working memory for rows of ``width`` factors: precision, border, linear term, a block of ratings and their numbers."""
    block = aligned(BLOCK * width).reshape((BLOCK, width))
    return np.empty((width, width)), np.empty(width), np.empty(width), block, np.empty((3, BLOCK))


@compiled
def _add(start, stop, index, value, weight, factors, bias, precision, stride, memory):
    """Add ratings start..stop: to the upper triangle at the address ``precision``, with rows of ``stride``, and to the memory.

    A rating is ``value = row bias + bias[i] + row @ factors[i] + noise``. Returns what they add to the bias's precision and
    linear term.
    """
    _, border, linear, block, scalars = memory
    width = factors.shape[1]
    even = width // LANES * LANES
    border[:] = 0.0
    linear[:] = 0.0
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
        for j in range(0, even, LANES):
            gather(
                address(factors), width, address(index[t:]), m, j, address(scalars[0]), address(scalars[1]),
                address(scalars[2]), address(block), address(linear), address(border),
            )  # fmt: skip
            for i in range(0, j, LANES):
                tile_add(address(block), width, m, i, j, precision, stride)
            corner_add(address(block), width, m, j, j, precision, stride)
        if even < width:
            gather_half(
                address(factors), width, address(index[t:]), m, even, address(scalars[0]), address(scalars[1]),
                address(scalars[2]), address(block), address(linear), address(border),
            )  # fmt: skip
            for i in range(0, even - LANES, LANES):
                tall_add(address(block), width, m, i, even, precision, stride)
            if even > 0:
                taller_add(address(block), width, m, even - LANES, even, precision, stride)
            else:
                short_add(address(block), width, m, 0, 0, precision, stride)
    return total, first


@compiled
def accumulate(start, stop, index, value, weight, factors, bias, memory, precision, linear):
    """Add the likelihood of ratings start..stop to a row's precision, upper triangle, and linear term, bias first."""
    if start == stop:
        return
    upper, border, right, _, _ = memory
    upper[:, :] = 0.0
    total, first = _add(start, stop, index, value, weight, factors, bias, address(upper), upper.shape[1], memory)
    precision[0, 0] += total
    linear[0] += first
    for i in range(min(linear.shape[0] - 1, len(border))):
        precision[0, i + 1] += border[i]
        linear[i + 1] += right[i]
        for j in range(i, min(linear.shape[0] - 1, len(border))):
            precision[i + 1, j + 1] += upper[i, j]


@compiled
def _begin(prior, right, width):
    """What a row without ratings says, [precision | linear term] with room for padded factors, (group, width + 1, stride)."""
    size = right.shape[1]
    out = np.zeros((len(right), width + 1, width + 1 + LANES))
    out[:, :size, :size] = prior
    out[:, :size, size] = right
    return out


@compiled
def _meet(a, begin, row, indptr, index, value, weight, factors, bias, jitter, size, memory):
    """[precision | linear term] of a row, ratings and prior, in ``a``."""
    flat, start, stride = a.reshape(-1), begin.reshape(-1), a.shape[1]
    for i in range(size * stride):  # a loop over one axis is a copy of memory
        flat[i] = start[i]
    if indptr[row + 1] > indptr[row]:
        _, border, linear, _, _ = memory
        total, first = _add(
            indptr[row],
            indptr[row + 1],
            index,
            value,
            weight,
            factors,
            bias,
            address(flat[stride + 1 :]),
            stride,
            memory,
        )
        a[0, 0] += total
        a[0, size] = begin[0, size] + first
        for i in range(1, size):
            a[0, i] += border[i - 1]
            a[i, size] = begin[i, size] + linear[i - 1]
    if jitter > 0.0:
        trace = 0.0
        for i in range(size):
            trace += a[i, i]
        for i in range(size):
            a[i, i] += jitter * trace / size


@compiled
def _finish(a, inverse, n, normals, out, fine):
    """Draw rows (n, size) from the first ``n`` systems; which were positive definite, ``fine``. The others are left alone."""
    size = out.shape[1]
    factor(a, inverse)
    for i in range(size):
        for lane in range(n):
            a[i, size, lane] += normals[lane, i]
    solve(a, inverse)
    for lane in range(n):
        fine[lane] = good(inverse, lane)
    for i in range(size):
        for lane in range(n):
            if fine[lane]:
                out[lane, i] = a[i, size, lane]


@compiled
def draw_rows(indptr, index, value, weight, other, group, prior_precision, prior_linear, normals, out, first, last):
    """Draw rows first..last from their Gaussian conditionals, LANES at once.

    Returns how many were not positive definite, whatever the jitter, and how many were so only with jitter.
    """
    factors, bias = padded(other)
    size = out.shape[1]
    memory = room(factors.shape[1])
    begin = _begin(prior_precision, prior_linear, factors.shape[1])
    apart = np.zeros((LANES, begin.shape[1], begin.shape[2]))
    a, inverse = systems(size)
    fine, again = np.empty(LANES, dtype=np.bool_), np.empty(1, dtype=np.bool_)
    bad = 0
    jittered = 0
    for u in range(first, last, LANES):
        n = min(LANES, last - u)
        for k in range(n):
            _meet(apart[k], begin[group[u + k]], u + k, indptr, index, value, weight, factors, bias, 0.0, size, memory)
        arrange(apart, a)
        _finish(a, inverse, n, normals[u : u + n], out[u : u + n], fine)
        for row in range(u, u + n):
            again[0] = fine[row - u]
            for k in range(1, len(JITTER)):
                if again[0]:
                    break
                _meet(
                    apart[0],
                    begin[group[row]],
                    row,
                    indptr,
                    index,
                    value,
                    weight,
                    factors,
                    bias,
                    JITTER[k],
                    size,
                    memory,
                )
                arrange(apart, a)
                _finish(a, inverse, 1, normals[row : row + 1], out[row : row + 1], again)
                jittered += again[0]
            bad += not again[0]
    return bad, jittered
