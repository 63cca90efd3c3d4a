"""Eight small linear systems at once, one in each lane of a vector. Internal.

The Cholesky factor of a small matrix is a chain of square roots and divisions that wait for one another; of eight
matrices side by side the chain takes no longer. Systems are arrays (n, n + 1 + LANES, LANES): upper triangles in the first n
columns, right-hand sides in column n; the others are room for the last block of columns. What lies below the diagonals is never
read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bayesrec.jit import compiled
from bayesrec.vectors import F64, FLOATS, I32, I64, LANES, VECTOR, address, fma_of, load, loop, splat, store

__all__ = ["add", "aligned", "arrange", "evidence", "factor", "fill", "good", "solve", "systems"]

COLUMNS = 4


@compiled
def aligned(n):
    """``n`` numbers of memory that begin with a line of the cache."""
    memory = np.zeros(n + LANES)
    start = (-(memory.ctypes.data // 8)) % LANES
    return memory[start : start + n]


@compiled
def systems(n):
    """Room for LANES systems of ``n`` unknowns, and for the inverse diagonals (n, LANES) of their factors."""
    stride = n + 1 + LANES
    return aligned(n * stride * LANES).reshape((n, stride, LANES)), aligned(n * LANES).reshape((n, LANES))


def _block(pivot):
    def typed(typingctx, a, stride, i, j, inverse):
        signature = types.void(FLOATS, *[types.int64] * 3, FLOATS)

        def codegen(context, builder, signature, args):
            a, stride, i, j, inverse = args
            fma, lanes = fma_of(builder), ir.Constant(I64, LANES)

            def entry(row, column, ahead=0):
                place = builder.add(builder.mul(row, stride), builder.add(column, ir.Constant(I64, ahead)))
                return builder.gep(a, [builder.mul(place, lanes)])

            def body(k, sums):
                left = load(builder, entry(k, i))
                return [fma(left, load(builder, entry(k, j, c)), sums[c]) for c in range(COLUMNS)]

            sums = loop(builder, i, [VECTOR] * COLUMNS, body)
            values = [builder.fsub(load(builder, entry(i, j, c)), x) for c, x in enumerate(sums)]
            place = builder.gep(inverse, [builder.mul(i, lanes)])
            if pivot:
                kind = ir.FunctionType(VECTOR, [VECTOR])
                root = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f64")
                ones = ir.Constant(VECTOR, [ir.Constant(F64, 1.0)] * LANES)
                number = builder.fdiv(ones, builder.call(root, [values[0]]))
                store(builder, number, place)
            else:
                number = load(builder, place)
            for c, x in enumerate(values):
                store(builder, builder.fmul(number, x), entry(i, j, c))
            return context.get_dummy_value()

        return signature, codegen

    return typed


#: COLUMNS columns from j of row i of the factors, given the rows before and inverse[i]; a has rows of stride vectors
_row_block: Any = intrinsic(_block(False))
#: the first of them, j = i, which also sets inverse[i]
_pivot_block: Any = intrinsic(_block(True))


def _back(typingctx, a, stride, i, column, inverse):
    signature = types.void(FLOATS, *[types.int64] * 3, FLOATS)

    def codegen(context, builder, signature, args):
        a, stride, i, column, inverse = args
        fma, lanes = fma_of(builder), ir.Constant(I64, LANES)

        def entry(row, column):
            return builder.gep(a, [builder.mul(builder.add(builder.mul(row, stride), column), lanes)])

        number = load(builder, builder.gep(inverse, [builder.mul(i, lanes)]))
        x = builder.fmul(number, load(builder, entry(i, column)))
        store(builder, x, entry(i, column))
        minus = builder.fneg(x)

        def body(k, sums):
            place = entry(k, column)
            store(builder, fma(minus, load(builder, entry(k, i)), load(builder, place)), place)
            return []

        loop(builder, i, [], body)
        return context.get_dummy_value()

    return signature, codegen


#: unknown i of U x = column, and its part taken off the column's numbers above
_back_step: Any = intrinsic(_back)


def _transpose(typingctx, source, apart, out):
    signature = types.void(FLOATS, types.int64, FLOATS)

    def codegen(context, builder, signature, args):
        source, apart, out = args
        whole = ir.VectorType(I32, LANES)
        rows = [load(builder, builder.gep(source, [builder.mul(apart, ir.Constant(I64, r))])) for r in range(LANES)]
        step = 1
        while step < LANES:  # swap the halves of blocks of twice as many rows and columns
            new = list(rows)
            for r in range(LANES):
                if r & step:
                    continue
                a, b = rows[r], rows[r + step]
                low = [c if not c & step else LANES + c - step for c in range(LANES)]
                high = [c + step if not c & step else LANES + c for c in range(LANES)]
                new[r] = builder.shuffle_vector(a, b, ir.Constant(whole, low))
                new[r + step] = builder.shuffle_vector(a, b, ir.Constant(whole, high))
            rows, step = new, 2 * step
        for r, value in enumerate(rows):
            store(builder, value, builder.gep(out, [ir.Constant(I64, r * LANES)]))
        return context.get_dummy_value()

    return signature, codegen


#: eight numbers from each of eight places, which are ``apart``, as eight vectors in a row
_transposed: Any = intrinsic(_transpose)


@compiled
def arrange(apart, a):
    """Make systems ``a`` of matrices [A | b], (LANES, n, any stride), one after another."""
    n = a.shape[0]
    for i in range(n):
        for j in range(i, n + 1, LANES):
            _transposed(address(apart[0, i, j:]), apart.shape[1] * apart.shape[2], address(a[i, j]))


def _fill(typingctx, numbers, count, out):
    signature = types.void(FLOATS, types.int64, FLOATS)

    def codegen(context, builder, signature, args):
        numbers, count, out = args

        def body(q, sums):
            vector = splat(builder, builder.load(builder.gep(numbers, [q])))
            store(builder, vector, builder.gep(out, [builder.mul(q, ir.Constant(I64, LANES))]))
            return []

        loop(builder, count, [], body)
        return context.get_dummy_value()

    return signature, codegen


#: out[q] = numbers[q] in all lanes, q < count
_filled: Any = intrinsic(_fill)


def _add(typingctx, vectors, count, times, out):
    signature = types.void(FLOATS, types.int64, FLOATS, FLOATS)

    def codegen(context, builder, signature, args):
        vectors, count, times, out = args
        fma, factor = fma_of(builder), load(builder, times)

        def body(q, sums):
            place = [builder.mul(q, ir.Constant(I64, LANES))]
            old = load(builder, builder.gep(out, place))
            store(builder, fma(factor, load(builder, builder.gep(vectors, place)), old), builder.gep(out, place))
            return []

        loop(builder, count, [], body)
        return context.get_dummy_value()

    return signature, codegen


#: out[q] += times * vectors[q], q < count
_added: Any = intrinsic(_add)


@compiled
def fill(matrix, a):
    """Make ``a`` of one matrix [A | b] (n, n + 1), the same in all lanes."""
    for i in range(len(matrix)):
        _filled(address(matrix[i, i:]), len(matrix) + 1 - i, address(a[i, i]))


@compiled
def add(part, times, a, k):
    """Add systems ``part``, multiplied by ``times`` (LANES,), to diagonal block k of ``a``, whose blocks have their size."""
    n, whole = len(part), len(a)
    for i in range(n):
        _added(address(part[i, i]), n - i, address(times), address(a[k * n + i, k * n + i]))
        _added(address(part[i, n]), 1, address(times), address(a[k * n + i, whole]))


@compiled
def factor(a, inverse):
    """Factors U, U'U = A, in place of upper triangles, and U'^-1 b in place of right-hand sides b.

    ``inverse[:, l]`` are positive numbers if and only if system ``l`` is positive definite.
    """
    n, stride, _ = a.shape
    for i in range(n):
        _pivot_block(address(a), stride, i, i, address(inverse))
        for j in range(i + COLUMNS, n + 1, COLUMNS):
            _row_block(address(a), stride, i, j, address(inverse))


@compiled
def solve(a, inverse):
    """Solve U x = b in place of b."""
    n, stride, _ = a.shape
    for i in range(n - 1, -1, -1):
        _back_step(address(a), stride, i, n, address(inverse))


@compiled
def good(inverse, lane):
    """Whether a system was positive definite."""
    out = True
    for i in range(len(inverse)):
        out &= 0.0 < inverse[i, lane] < np.inf
    return out


@compiled
def evidence(a, inverse, lane):
    """Return b' A^-1 b - log det A of a system that is factored, not solved."""
    n = len(inverse)
    total = 0.0
    for first in range(0, n, LANES):
        part = 1.0
        for i in range(first, min(n, first + LANES)):
            part *= inverse[i, lane]
            total += a[i, n, lane] ** 2
        total += 2.0 * np.log(part)
    return total
