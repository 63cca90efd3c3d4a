"""What loops over vectors of LLVM are written in: loads, stores, products, sums in registers. Internal."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

__all__ = [
    "F32",
    "F64",
    "FLOATS",
    "I32",
    "I64",
    "LANES",
    "VECTOR",
    "address",
    "fma_of",
    "load",
    "loop",
    "splat",
    "store",
]

LANES = 8
F32, F64, I32, I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(F64, LANES)
FLOATS = types.CPointer(types.float64)
_BYTES = {F32: 4, F64: 8}


def load(builder, pointer, kind=VECTOR):
    """A vector from numbers that stand side by side."""
    value = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    value.align = _BYTES[kind.element]
    return value


def store(builder, value, pointer):
    """Write a vector."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = _BYTES[value.type.element]


def splat(builder, number, kind=VECTOR):
    """A vector of equal numbers."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(I32, 0))
    lanes = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)


def fma_of(builder, kind=VECTOR):
    """The function a b + c of three vectors."""
    function_type = ir.FunctionType(kind, [kind] * 3)
    function = cgutils.get_or_insert_function(
        builder.module, function_type, f"llvm.fma.v{kind.count}f{8 * _BYTES[kind.element]}"
    )
    return lambda a, b, c: builder.call(function, [a, b, c])


def loop(builder, count, kinds, body):
    """Sum in registers: ``body(q, sums)`` returns the new sums, vectors of these kinds, for q < count."""
    entry, zeros = builder.block, [ir.Constant(kind, [0.0] * kind.count) for kind in kinds]
    loop, done = (builder.append_basic_block(name) for name in ("loop", "done"))
    builder.cbranch(builder.icmp_signed(">", count, ir.Constant(I64, 0)), loop, done)
    builder.position_at_end(loop)
    q = builder.phi(I64)
    q.add_incoming(ir.Constant(I64, 0), entry)
    sums = [builder.phi(kind) for kind in kinds]
    new = body(q, sums)
    following = builder.add(q, ir.Constant(I64, 1))
    q.add_incoming(following, loop)
    for phi, zero, value in zip(sums, zeros, new, strict=True):
        phi.add_incoming(zero, entry)
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)
    out = [builder.phi(kind) for kind in kinds]
    for phi, zero, value in zip(out, zeros, new, strict=True):
        phi.add_incoming(zero, entry)
        phi.add_incoming(value, loop)
    return out


def _address(typingctx, array):
    if array.dtype not in (types.float64, types.float32, types.int32) or array.layout != "C":
        raise TypingError(f"address() reads contiguous arrays of float64, float32 or int32, not {array}")
    pointer = types.CPointer(array.dtype)

    def codegen(context, builder, signature, args):
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return pointer(array), codegen


#: where the numbers of a contiguous array begin
address: Any = intrinsic(_address)
