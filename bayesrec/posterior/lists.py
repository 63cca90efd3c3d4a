"""Draws of the expected ratings of many users for many items. Internal.

The score of a user and an item is a product of two short vectors in every draw, see :mod:`bayesrec.posterior.score_tile`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bayesrec.jit import compiled
from bayesrec.likelihoods import Gaussian
from bayesrec.models.base import Batch
from bayesrec.posterior import topn
from bayesrec.posterior.score_tile import LANES, TALL, WIDE, address, score_tile

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

Rule = Any  # bayesrec.rules.Rule, which stands above

__all__ = ["ExpectedRatings"]

FLOATS = 2**25  # of draws that are held at once
TURNED = 2**28  # floats of items up to which they are turned for vectors
FEW = 8  # users below whom turning the items costs more than it brings
BLOCK = 64  # users that share a pass over the items
QUICK = 256  # the same where no draws are held
STRIP = 512  # items of a pass


@compiled
def _many(users, items, scale, center, out):
    """Scores (user, draw, item) of users (draw, user, R) and turned items (draw, R, item), in multiples of the tiles."""
    n_draws, n_users, size = users.shape
    n_items = items.shape[2]
    for s in range(n_draws):
        for strip in range(0, n_items, STRIP):
            for u in range(0, n_users, TALL):
                for i in range(strip, min(strip + STRIP, n_items), LANES * WIDE):
                    score_tile(
                        address(users[s, u]), size, address(items[s, 0, i:]), n_items, size, scale, center,
                        address(out[u, s, i:]), n_draws * n_items,
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


def _mean(draws: np.ndarray) -> np.ndarray:
    """Mean over the first axis, summed up in float64."""
    return draws.mean(0, dtype=np.float64).astype(np.float32)


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
        self.turned: np.ndarray | None = None
        self.stranger: np.ndarray | None = None
        if n_users >= FEW and self.n_draws * size * self.width <= TURNED:
            self.turned = np.zeros((self.n_draws, size, self.width), dtype=np.float32)
            self.turned[:, :, : len(items)] = self._vectors(items, of_items=True).transpose(0, 2, 1)
        elif not self.swapped:
            drawn = posterior.draws["item_vector"]
            self.straight = drawn.reshape(-1, *drawn.shape[2:])
        block = max(1, FLOATS // max(1, self.n_draws * self.width)) if self.turned is not None else 1
        self.block = min(BLOCK, -(-block // TALL) * TALL) if self.turned is not None else block

    def quick(self, rule: Rule) -> bool:
        """Whether ``utilities`` knows this rule and these ratings."""
        known = hasattr(rule, "width") or hasattr(rule, "drawn")
        return known and self.linear and (self.turned is not None or not self.swapped)

    def utilities(self, users: np.ndarray, rule: Rule, rng_of: Callable[[int], Any]) -> Iterator[np.ndarray]:
        """What a quick rule says of each user's items (item,), in turn, without the draws of it all.

        ``rng_of`` gives the generator of the user at a place. An array may be written over at the next user.
        """
        units = self.posterior.schema.units[-1]
        out = np.empty((QUICK, self.width), dtype=np.float32)
        for start in range(0, len(users), QUICK):
            part = users[start : start + QUICK]
            place, known = np.flatnonzero(part >= 0), part[part >= 0]
            if len(known):
                vectors = self._vectors(known, of_items=False)
                if hasattr(rule, "width"):
                    found = self._moments(vectors, np.float32(rule.width))
                    out[place, : found.shape[1]] = found
                else:
                    for row, mine in zip(place.tolist(), vectors.transpose(1, 0, 2), strict=True):
                        s = int(rule.drawn(rng_of(start + row), self.n_draws, 1)[0])  # type: ignore[attr-defined]
                        items = self.straight[s, self.items].T if self.turned is None else self.turned[s]
                        topn.one_draw(mine[s], np.ascontiguousarray(items), out[row, : items.shape[1]])
            for row, user in enumerate(part):
                if user < 0:
                    if self.stranger is None:
                        self.stranger = self.posterior.expected(-1, self.items)
                    yield rule(self.stranger[:, None, :], rng_of(start + row))[0]
                else:
                    yield out[row, : len(self.items)].astype(np.float64) * units.scale + units.center

    def _moments(self, vectors: np.ndarray, width: np.float32) -> np.ndarray:
        """Mean plus ``width`` sds (user, item) of users (draw, user, R), in sds of the ratings."""
        given = topn.stacked(vectors) if width == 0.0 else np.ascontiguousarray(vectors.transpose(1, 0, 2))
        if self.turned is None:
            out = np.empty((len(given), len(self.items)), dtype=np.float32)
            if width == 0.0:
                drawn = self.posterior.draws["item_vector"]
                bias = self.posterior.recalled("item biases", drawn, lambda: _mean(self.straight[..., 0]))
                topn.few_means(given, self.straight, self.items, bias[self.items], out)
            else:
                topn.few_uppers(given, self.straight, self.items, width, out)
            return out
        padded = np.zeros((-(-len(given) // TALL) * TALL, *given.shape[1:]), dtype=np.float32)
        padded[: len(given)] = given
        out = np.empty((len(padded), self.width), dtype=np.float32)
        if width == 0.0:
            topn.means(padded, self._long, out)
        else:
            topn.uppers(padded, self.turned, width, out)
        return out[: len(given)]

    @cached_property
    def _long(self) -> np.ndarray:
        """The turned items of all draws on one axis, behind the mean of their biases."""
        assert self.turned is not None
        return np.concatenate([_mean(self.turned[:, 0])[None], self.turned[:, 1:].reshape(-1, self.width)])

    def each(self, users: np.ndarray) -> Iterator[np.ndarray]:
        """Draws (draw, item) of each user (code, -1 unknown) in turn; an array may be written over at the next one."""
        out = None
        for start in range(0, len(users), self.block):
            part = users[start : start + self.block]
            known = part[part >= 0]
            if len(known):
                out = self._known(known, out)
            place = 0
            for user in part:
                if user < 0:
                    if self.stranger is None:
                        self.stranger = self.posterior.expected(-1, self.items)
                    yield self.stranger
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
            array = drawn.reshape(self.n_draws, *drawn.shape[2:])  # -1 cannot tell where an axis has no entries
            for side, codes in (("user", users), ("item", items)):
                if side in dims[name]:
                    array = np.take(array, codes, axis=1 + dims[name].index(side))
            out[name] = torch.from_numpy(np.ascontiguousarray(array))
        return out
