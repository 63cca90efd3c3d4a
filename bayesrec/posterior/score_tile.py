"""The product of a few users' vectors and a strip of items' vectors, in vectors of LLVM. Internal.

Sums run over components in the order of `Model.score`: unlike in BLAS a number does not depend on who stands beside it. Where
draws are kept a component is one multiply and one add, as there; means over draws take fused ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bayesrec.vectors import F32, I64, address, fma_of, load, splat, store

__all__ = ["LANES", "TALL", "WIDE", "address", "fused", "fused_tile", "gap_tile", "score_tile"]

LANES, WIDE, TALL = 16, 2, 4
VECTOR, POINTER = ir.VectorType(F32, LANES), types.CPointer(types.float32)
WHOLE, REAL = types.int64, types.float32


def _fused(typingctx, a, b, c):
    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return REAL(REAL, REAL, REAL), codegen


def _at(builder: Any, pointer: Any, *places: Any) -> Any:
    for place in places:
        pointer = builder.gep(pointer, [place if not isinstance(place, int) else ir.Constant(I64, place)])
    return pointer


def _products(builder: Any, users: Any, stride: Any, items: Any, n_items: Any, size: Any, fuse: bool) -> list[Any]:
    """Sums (TALL * WIDE vectors) over the components of TALL users, ``stride`` apart, and a strip of items (R, n_items)."""

    def vectors(row: Any) -> list[Any]:
        return [load(builder, _at(builder, row, b * LANES), VECTOR) for b in range(WIDE)]

    lines = [_at(builder, users, builder.mul(stride, ir.Constant(I64, a))) for a in range(TALL)]
    bias = vectors(items)
    start = [builder.fadd(splat(builder, builder.load(line), VECTOR), c) for line in lines for c in bias]
    entry = builder.block
    loop, done = (builder.append_basic_block(name) for name in ("loop", "done"))
    builder.branch(loop)
    builder.position_at_end(loop)
    k, sums = builder.phi(I64), [builder.phi(VECTOR) for _ in start]
    right = vectors(_at(builder, items, builder.mul(k, n_items)))
    left = [splat(builder, builder.load(_at(builder, line, k)), VECTOR) for line in lines]
    pairs = [(p, q) for p in left for q in right]
    if fuse:
        fma = fma_of(builder, VECTOR)
        new = [fma(p, q, total) for (p, q), total in zip(pairs, sums, strict=True)]
    else:
        new = [builder.fadd(total, builder.fmul(p, q)) for (p, q), total in zip(pairs, sums, strict=True)]
    following = builder.add(k, ir.Constant(I64, 1))
    for phi, before, after in zip([k, *sums], [ir.Constant(I64, 1), *start], [following, *new], strict=True):
        phi.add_incoming(before, entry)
        phi.add_incoming(after, loop)
    builder.cbranch(builder.icmp_signed("<", following, size), loop, done)
    builder.position_at_end(done)
    return new


def _scaled(fuse: bool) -> Callable[..., Any]:
    """``out = product * scale + center``, rows of ``out`` its stride apart."""

    def tile(typingctx, users, stride, items, n_items, size, scale, center, out, out_stride):
        signature = types.void(POINTER, WHOLE, POINTER, WHOLE, WHOLE, REAL, REAL, POINTER, WHOLE)

        def codegen(context, builder, signature, args):
            users, stride, items, n_items, size, scale, center, out, out_stride = args
            new = _products(builder, users, stride, items, n_items, size, fuse)
            factor, shift = splat(builder, scale, VECTOR), splat(builder, center, VECTOR)
            for place, total in enumerate(new):
                a, b = divmod(place, WIDE)
                pointer = _at(builder, out, builder.mul(out_stride, ir.Constant(I64, a)), b * LANES)
                store(builder, builder.fadd(builder.fmul(total, factor), shift), pointer)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _gaps(typingctx, users, stride, items, n_items, size, first, total, squares):
    """Adds ``product - first`` and its square to ``total`` and ``squares``, arrays (TALL, LANES * WIDE)."""
    signature = types.void(POINTER, WHOLE, POINTER, WHOLE, WHOLE, POINTER, POINTER, POINTER)

    def codegen(context, builder, signature, args):
        users, stride, items, n_items, size, first, total, squares = args
        for place, product in enumerate(_products(builder, users, stride, items, n_items, size, False)):
            here = [_at(builder, pointer, place * LANES) for pointer in (first, total, squares)]
            gap = builder.fsub(product, load(builder, here[0], VECTOR))
            store(builder, builder.fadd(load(builder, here[1], VECTOR), gap), here[1])
            store(builder, builder.fadd(load(builder, here[2], VECTOR), builder.fmul(gap, gap)), here[2])
        return context.get_dummy_value()

    return signature, codegen


fused: Any = intrinsic(_fused)
score_tile: Any = intrinsic(_scaled(False))
fused_tile: Any = intrinsic(_scaled(True))
gap_tile: Any = intrinsic(_gaps)
