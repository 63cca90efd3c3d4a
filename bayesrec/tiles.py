"""Vector instructions behind the row kernels: small blocks of a Gram matrix that stay in registers. Internal.

Plain loops over small matrices leave the compiler with remainders that fill no vector, so the inner loops are written in
LLVM's vectors of eight doubles, which LLVM splits into what the machine has (AVX-512, AVX2, NEON).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

__all__ = ["LANES", "address", "factor_tile", "gather", "solve_tile", "tile_add", "tile_subtract"]

LANES = 8
F64, I32, I64 = ir.DoubleType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(F64, LANES)
FLOATS, WHOLES = types.CPointer(types.float64), types.CPointer(types.int32)


def _load(builder, pointer):
    value = builder.load(builder.bitcast(pointer, VECTOR.as_pointer()))
    value.align = 8
    return value


def _store(builder, value, pointer):
    builder.store(value, builder.bitcast(pointer, VECTOR.as_pointer())).align = 8


def _splat(builder, number):
    one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), number, ir.Constant(I32, 0))
    lanes = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(VECTOR, ir.Undefined), lanes)


def _fma(builder):
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f64")
    return lambda a, b, c: builder.call(function, [a, b, c])


def _loop(builder, count, n_sums, body):
    """Sum in registers: ``body(q, sums)`` returns the new sums, for q < count, count >= 1."""
    entry = builder.block
    loop, done = (builder.append_basic_block(name) for name in ("loop", "done"))
    builder.branch(loop)
    builder.position_at_end(loop)
    q = builder.phi(I64)
    q.add_incoming(ir.Constant(I64, 0), entry)
    sums = [builder.phi(VECTOR) for _ in range(n_sums)]
    new = body(q, sums)
    following = builder.add(q, ir.Constant(I64, 1))
    q.add_incoming(following, loop)
    for phi, value in zip(sums, new, strict=True):
        phi.add_incoming(ir.Constant(VECTOR, [0.0] * LANES), entry)
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)
    return new


def _address(typingctx, array):
    pointers = {types.float64: FLOATS, types.int32: WHOLES}
    if array.dtype not in pointers or array.layout != "C":
        raise TypingError(f"address() reads contiguous arrays of float64 or int32, not {array}")
    pointer = pointers[array.dtype]

    def codegen(context, builder, signature, args):
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return pointer(array), codegen


#: where the numbers of a contiguous array begin
address: Any = intrinsic(_address)


def _tile(sign):
    def typed(typingctx, rows, stride, count, i, j, out, out_stride):
        signature = types.void(FLOATS, *[types.int64] * 4, FLOATS, types.int64)

        def codegen(context, builder, signature, args):
            rows, stride, count, i, j, out, out_stride = args
            fma = _fma(builder)

            def body(q, sums):
                row = builder.gep(rows, [builder.mul(q, stride)])
                right = _load(builder, builder.gep(row, [j]))
                left = builder.gep(row, [i])
                numbers = [builder.load(builder.gep(left, [ir.Constant(I64, a)])) for a in range(LANES)]
                return [fma(_splat(builder, x), right, s) for x, s in zip(numbers, sums, strict=True)]

            sums = _loop(builder, count, LANES, body)
            for a, value in enumerate(sums):
                place = builder.add(builder.mul(builder.add(i, ir.Constant(I64, a)), out_stride), j)
                pointer = builder.gep(out, [place])
                old = _load(builder, pointer)
                _store(builder, (builder.fadd if sign > 0 else builder.fsub)(old, value), pointer)
            return context.get_dummy_value()

        return signature, codegen

    return typed


#: out[i:i+8, j:j+8] += sum over q < count of outer(rows[q, i:i+8], rows[q, j:j+8]); count >= 1
tile_add: Any = intrinsic(_tile(1))
#: the same with a minus
tile_subtract: Any = intrinsic(_tile(-1))


def _gather(typingctx, other, stride, index, count, j, root, response, weight, out, linear, total):
    signature = types.void(FLOATS, types.int64, WHOLES, types.int64, types.int64, *[FLOATS] * 6)

    def codegen(context, builder, signature, args):
        other, stride, index, count, j, root, response, weight, out, linear, total = args
        fma = _fma(builder)

        def body(q, sums):
            place = builder.mul(builder.sext(builder.load(builder.gep(index, [q])), I64), stride)
            o = _load(builder, builder.gep(other, [builder.add(place, j)]))
            s, r, w = (_splat(builder, builder.load(builder.gep(x, [q]))) for x in (root, response, weight))
            _store(builder, builder.fmul(s, o), builder.gep(out, [builder.add(builder.mul(q, stride), j)]))
            return [fma(r, o, sums[0]), fma(w, o, sums[1])]

        for value, x in zip(_loop(builder, count, 2, body), (linear, total), strict=True):
            pointer = builder.gep(x, [j])
            _store(builder, builder.fadd(_load(builder, pointer), value), pointer)
        return context.get_dummy_value()

    return signature, codegen


#: eight columns from j of o = other[index[q]], q < count, count >= 1: out[q] = root[q] o, linear += sum of response[q] o,
#: total += sum of weight[q] o; other and out have rows of stride numbers
gather: Any = intrinsic(_gather)


def _factor(typingctx, rows, stride, k, inverse):
    signature = types.boolean(FLOATS, *[types.int64] * 2, FLOATS)

    def codegen(context, builder, signature, args):
        rows, stride, k, inverse = args
        fma, one = _fma(builder), ir.Constant(F64, 1.0)
        root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(F64, [F64]), "llvm.sqrt.f64")
        starts = [builder.gep(rows, [builder.add(builder.mul(stride, ir.Constant(I64, r)), k)]) for r in range(LANES)]
        left = [_load(builder, start) for start in starts]
        good = ir.Constant(ir.IntType(1), 1)
        for r in range(LANES):
            pivot = builder.extract_element(left[r], ir.Constant(I32, r))
            good = builder.and_(good, builder.fcmp_ordered(">", pivot, ir.Constant(F64, 0.0)))
            number = builder.fdiv(one, builder.call(root, [pivot]))
            builder.store(number, builder.gep(inverse, [ir.Constant(I64, r)]))
            left[r] = builder.fmul(left[r], _splat(builder, number))
            for s in range(r + 1, LANES):
                factor = builder.fneg(_splat(builder, builder.extract_element(left[r], ir.Constant(I32, s))))
                left[s] = fma(factor, left[r], left[s])
        for start, value in zip(starts, left, strict=True):
            _store(builder, value, start)
        return good

    return signature, codegen


#: the upper triangle of A = rows[:8, k:k+8] becomes U with U'U = A, inverse[r] = 1 / U[r, r], what is below the diagonal is lost;
#: whether A is positive definite
factor_tile: Any = intrinsic(_factor)


def _solve(typingctx, rows, stride, k, j, inverse):
    signature = types.void(FLOATS, types.int64, types.int64, types.int64, FLOATS)

    def codegen(context, builder, signature, args):
        rows, stride, k, j, inverse = args
        fma = _fma(builder)
        starts = [builder.gep(rows, [builder.mul(stride, ir.Constant(I64, r))]) for r in range(LANES)]
        solved: list = []
        for r, start in enumerate(starts):
            value = _load(builder, builder.gep(start, [j]))
            for s in range(r):
                column = builder.add(k, ir.Constant(I64, r))
                factor = builder.fneg(_splat(builder, builder.load(builder.gep(starts[s], [column]))))
                value = fma(factor, solved[s], value)
            one = builder.load(builder.gep(inverse, [ir.Constant(I64, r)]))
            solved.append(builder.fmul(value, _splat(builder, one)))
        for start, value in zip(starts, solved, strict=True):
            _store(builder, value, builder.gep(start, [j]))
        return context.get_dummy_value()

    return signature, codegen


#: eight rows X = rows[:8, j:j+8] become the solution of U'X = X, U upper triangular in rows[:8, k:k+8], inverse[r] = 1 / U[r, r]
solve_tile: Any = intrinsic(_solve)
