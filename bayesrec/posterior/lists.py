"""Draws of the expected ratings of many users for many items. Internal.

The score of a user and an item is a product of two short vectors in every draw. It is written in vectors of LLVM, one multiply
and one add a component, in the order of `Model.score`: unlike in BLAS a number does not depend on who stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bayesrec.jit import compiled
from bayesrec.likelihoods import Gaussian
from bayesrec.models.base import Batch

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

__all__ = ["ExpectedRatings"]

FLOATS = 2**25  # of draws that are held at once
TURNED = 2**28  # floats of items up to which they are turned for vectors
FEW = 8  # users below whom turning the items costs more than it brings
BLOCK = 64  # users that share a pass over the items
LANES, WIDE, TALL, STRIP = 16, 2, 4, 512
F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR, POINTER = ir.VectorType(F32, LANES), types.CPointer(types.float32)


def _address(typingctx, array):
    def codegen(context, builder, signature, args):
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return POINTER(array), codegen


def _tile(typingctx, users, stride, items, n_items, size, scale, center, out, out_stride):
    whole, real = types.int64, types.float32
    signature = types.void(POINTER, whole, POINTER, whole, whole, real, real, POINTER, whole)

    def codegen(context, builder, signature, args):
        users, stride, items, n_items, size, scale, center, out, out_stride = args
        unset, first = ir.Constant(VECTOR, ir.Undefined), ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)

        def at(pointer, *places):
            for place in places:
                pointer = builder.gep(pointer, [place if not isinstance(place, int) else ir.Constant(I64, place)])
            return pointer

        def splat(number):
            return builder.shuffle_vector(builder.insert_element(unset, number, ir.Constant(I32, 0)), unset, first)

        def vectors(row):
            for b in range(WIDE):
                value = builder.load(builder.bitcast(at(row, b * LANES), VECTOR.as_pointer()))
                value.align = 4
                yield value

        lines = [at(users, builder.mul(stride, ir.Constant(I64, a))) for a in range(TALL)]
        bias = list(vectors(items))
        start = [builder.fadd(splat(builder.load(line)), c) for line in lines for c in bias]
        entry = builder.block
        loop, done = (builder.append_basic_block(name) for name in ("loop", "done"))
        builder.branch(loop)
        builder.position_at_end(loop)
        k, sums = builder.phi(I64), [builder.phi(VECTOR) for _ in start]
        right = list(vectors(at(items, builder.mul(k, n_items))))
        left = [splat(builder.load(at(line, k))) for line in lines]
        products = [builder.fmul(p, q) for p in left for q in right]
        new = [builder.fadd(total, product) for total, product in zip(sums, products, strict=True)]
        following = builder.add(k, ir.Constant(I64, 1))
        for phi, before, after in zip([k, *sums], [ir.Constant(I64, 1), *start], [following, *new], strict=True):
            phi.add_incoming(before, entry)
            phi.add_incoming(after, loop)
        builder.cbranch(builder.icmp_signed("<", following, size), loop, done)
        builder.position_at_end(done)
        factor, shift = splat(scale), splat(center)
        for place, total in enumerate(new):
            a, b = divmod(place, WIDE)
            pointer = at(out, builder.mul(out_stride, ir.Constant(I64, a)), b * LANES)
            value = builder.fadd(builder.fmul(total, factor), shift)
            builder.store(value, builder.bitcast(pointer, VECTOR.as_pointer())).align = 4
        return context.get_dummy_value()

    return signature, codegen


_at: Any = intrinsic(_address)
_score_tile: Any = intrinsic(_tile)


@compiled
def _many(users, items, scale, center, out):
    """Scores (user, draw, item) of users (draw, user, R) and turned items (draw, R, item), in multiples of the tiles."""
    n_draws, n_users, size = users.shape
    n_items = items.shape[2]
    for s in range(n_draws):
        for strip in range(0, n_items, STRIP):
            for u in range(0, n_users, TALL):
                for i in range(strip, min(strip + STRIP, n_items), LANES * WIDE):
                    _score_tile(
                        _at(users[s, u]), size, _at(items[s, 0, i:]), n_items, size, scale, center,
                        _at(out[u, s, i:]), n_draws * n_items,
                    )  # fmt: skip


@compiled
def _few(users, items, codes, scale, center, out):
    """The same of items (draw, item, R) as the draws have them."""
    size = users.shape[2]
    for s in range(users.shape[0]):
        for u in range(users.shape[1]):
            for i in range(len(codes)):
                total = users[s, u, 0] + items[s, codes[i], 0]
                for k in range(1, size):
                    total += users[s, u, k] * items[s, codes[i], k]
                out[u, s, i] = total * scale + center


class ExpectedRatings:
    """Expected target ratings of users for the same items, in the units of the ratings.

    Parameters
    ----------
    posterior : Posterior
    items : ndarray of int, (item,)
        Codes, as the caller has them.
    n_users : int
        About how many users are going to be asked for.
    """

    def __init__(self, posterior: Posterior, items: np.ndarray, n_users: int):
        posterior.require_draws("ranking")
        self.posterior, self.items = posterior, items
        self.swapped = posterior.data.columns.swapped
        self.linear = type(posterior.model.likelihood.of(-1)).expected is Gaussian.expected
        self.n_draws, size = posterior.n_chains * posterior.n_draws, posterior.model.rank + 1
        self.width = -(-len(items) // (LANES * WIDE)) * LANES * WIDE
        self.turned = None
        if n_users >= FEW and self.n_draws * size * self.width <= TURNED:
            self.turned = np.zeros((self.n_draws, size, self.width), dtype=np.float32)
            self.turned[:, :, : len(items)] = self._vectors(items, of_items=True).transpose(0, 2, 1)
        elif not self.swapped:
            drawn = posterior.draws["item_vector"]
            self.straight = drawn.reshape(-1, *drawn.shape[2:])
        block = max(1, FLOATS // max(1, self.n_draws * self.width)) if self.turned is not None else 1
        self.block = min(BLOCK, -(-block // TALL) * TALL) if self.turned is not None else block

    def each(self, users: np.ndarray) -> Iterator[np.ndarray]:
        """Draws (draw, item) of each user (code, -1 unknown) in turn; an array may be written over at the next one."""
        stranger, out = None, None
        for start in range(0, len(users), self.block):
            part = users[start : start + self.block]
            known = part[part >= 0]
            if len(known):
                out = self._known(known, out)
            place = 0
            for user in part:
                if user < 0:
                    stranger = self.posterior.expected(-1, self.items) if stranger is None else stranger
                    yield stranger
                else:
                    assert out is not None
                    yield out[place][:, : len(self.items)]
                    place += 1

    def _known(self, users: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """Draws (user, draw, item and more) of some known users."""
        if self.turned is None and self.swapped:
            return np.stack([self.posterior.expected(int(user), self.items) for user in users])
        units = self.posterior.schema.units[-1]
        scale, center = (np.float32(x) for x in ((units.scale, units.center) if self.linear else (1.0, 0.0)))
        vectors = self._vectors(users, of_items=False)
        if self.turned is None:
            out = np.empty((len(users), self.n_draws, len(self.items)), dtype=np.float32)
            _few(vectors, self.straight, self.items, scale, center, out)
        else:
            rows = -(-len(users) // TALL) * TALL
            padded = np.zeros((self.n_draws, rows, vectors.shape[2]), dtype=np.float32)
            padded[:, : len(users)] = vectors
            if out is None or len(out) < rows:
                out = np.empty((rows, self.n_draws, self.width), dtype=np.float32)
            _many(padded, self.turned, scale, center, out)
        return out if self.linear else self._measured(users, out)

    def _measured(self, users: np.ndarray, eta: np.ndarray) -> np.ndarray:
        """Expected ratings from expected responses (user, draw, item), where the two are no straight line."""
        if self.swapped:
            return np.stack([self.posterior.expected(int(user), self.items) for user in users])
        last, n = self.posterior.schema.n_domains - 1, len(self.items)
        model, units = self.posterior.model, self.posterior.schema.units
        latents = self._latents(users, self.items, model.likelihood.dims)
        zero, item, domain = torch.zeros(n, dtype=torch.int64), torch.arange(n), torch.full((n,), last)
        for u in range(len(users)):
            given = torch.from_numpy(eta[u, :, :n]).double()
            eta[u, :, :n] = model.likelihood.expected(given, latents, Batch(zero + u, item, domain), units).numpy()
        return eta

    def _vectors(self, codes: np.ndarray, of_items: bool) -> np.ndarray:
        """Vectors (draw, member, R) of users or items, as the caller calls them."""
        as_users, nobody = of_items == self.swapped, np.zeros(1, dtype=np.int64)
        latents = self._latents(*((codes, nobody) if as_users else (nobody, codes)))
        every, zero = torch.arange(len(codes)), torch.zeros(len(codes), dtype=torch.int64)
        domain = torch.full((len(codes),), self.posterior.schema.n_domains - 1)
        batch = Batch(every if as_users else zero, zero if as_users else every, domain)
        pair = self.posterior.model.vectors(latents, batch)
        return np.ascontiguousarray(pair[0 if as_users else 1].numpy(), dtype=np.float32)

    def _latents(self, users: np.ndarray, items: np.ndarray, sites: Any = None) -> dict[str, torch.Tensor]:
        """All draws of all or some sites on one axis, with the user and item axes cut down to some codes."""
        out, dims = {}, self.posterior.model.dims
        for name in self.posterior.draws if sites is None else sites:
            drawn = self.posterior.draws[name]
            array = drawn.reshape(-1, *drawn.shape[2:])
            for side, codes in (("user", users), ("item", items)):
                if side in dims[name]:
                    array = np.take(array, codes, axis=1 + dims[name].index(side))
            out[name] = torch.from_numpy(np.ascontiguousarray(array))
        return out
