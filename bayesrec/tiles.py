"""Vector instructions behind the row kernels: small blocks of a Gram matrix that stay in registers. Internal.

Plain loops over small matrices leave the compiler with remainders that fill no vector, so the inner loops are written in
LLVM's vectors of eight doubles, which LLVM splits into what the machine has (AVX-512, AVX2, NEON).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bayesrec.vectors import F64, FLOATS, I64, LANES, VECTOR, fma_of, load, loop, splat, store

__all__ = ["corner_add", "gather", "gather_half", "short_add", "tall_add", "taller_add", "tile_add"]

HALF, WHOLES = ir.VectorType(F64, LANES // 2), types.CPointer(types.int32)


def _tile(parts):
    """A block of a Gram matrix; ``parts`` are some of its rows, the kind of their vectors and the column where these begin."""

    def typed(typingctx, rows, stride, count, i, j, out, out_stride):
        signature = types.void(FLOATS, *[types.int64] * 4, FLOATS, types.int64)

        def codegen(context, builder, signature, args):
            rows, stride, count, i, j, out, out_stride = args
            places = [(a, kind, column) for span, kind, column in parts for a in span]

            def body(q, sums):
                row = builder.gep(rows, [builder.mul(q, stride)])
                left, right = builder.gep(row, [i]), builder.gep(row, [j])
                loaded = [load(builder, builder.gep(right, [ir.Constant(I64, c)]), kind) for _, kind, c in parts]
                vectors = [x for (span, _, _), x in zip(parts, loaded, strict=True) for _ in span]
                numbers = [builder.load(builder.gep(left, [ir.Constant(I64, a)])) for a, _, _ in places]
                return [
                    fma_of(builder, x.type)(splat(builder, number, x.type), x, s)
                    for number, x, s in zip(numbers, vectors, sums, strict=True)
                ]

            for (a, kind, column), value in zip(
                places, loop(builder, count, [kind for _, kind, _ in places], body), strict=True
            ):
                place = builder.add(builder.mul(builder.add(i, ir.Constant(I64, a)), out_stride), j)
                pointer = builder.gep(out, [builder.add(place, ir.Constant(I64, column))])
                old = load(builder, pointer, kind)
                store(builder, builder.fadd(old, value), pointer)
            return context.get_dummy_value()

        return signature, codegen

    return typed


#: out[i:i+8, j:j+8] += sum over q < count of outer(rows[q, i:i+8], rows[q, j:j+8])
tile_add: Any = intrinsic(_tile([(range(8), VECTOR, 0)]))
#: tile_add for i = j, without four by four numbers below the diagonal
corner_add: Any = intrinsic(_tile([(range(4), VECTOR, 0), (range(4, 8), HALF, 4)]))
#: tile_add of four columns: out[i:i+h, j:j+4], h = 4, 8, 12
short_add: Any = intrinsic(_tile([(range(4), HALF, 0)]))
tall_add: Any = intrinsic(_tile([(range(8), HALF, 0)]))
taller_add: Any = intrinsic(_tile([(range(12), HALF, 0)]))


def _gather(kind):
    def typed(typingctx, other, stride, index, count, j, root, response, weight, out, linear, total):
        signature = types.void(FLOATS, types.int64, WHOLES, types.int64, types.int64, *[FLOATS] * 6)

        def codegen(context, builder, signature, args):
            other, stride, index, count, j, root, response, weight, out, linear, total = args
            fma = fma_of(builder, kind)

            def body(q, sums):
                place = builder.mul(builder.sext(builder.load(builder.gep(index, [q])), I64), stride)
                o = load(builder, builder.gep(other, [builder.add(place, j)]), kind)
                s, r, w = (splat(builder, builder.load(builder.gep(x, [q])), kind) for x in (root, response, weight))
                store(builder, builder.fmul(s, o), builder.gep(out, [builder.add(builder.mul(q, stride), j)]))
                return [fma(r, o, sums[0]), fma(w, o, sums[1])]

            for value, x in zip(loop(builder, count, [kind] * 2, body), (linear, total), strict=True):
                pointer = builder.gep(x, [j])
                store(builder, builder.fadd(load(builder, pointer, kind), value), pointer)
            return context.get_dummy_value()

        return signature, codegen

    return typed


#: eight columns from j of o = other[index[q]], q < count: out[q] = root[q] o, linear += sum of response[q] o, total += sum of
#: weight[q] o; other and out have rows of stride numbers
gather: Any = intrinsic(_gather(VECTOR))
#: four columns
gather_half: Any = intrinsic(_gather(HALF))
