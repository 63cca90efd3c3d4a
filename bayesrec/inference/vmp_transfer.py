"""Variational message passing for models with a vector in every domain, a map and gates between them. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import betaln, digamma

from bayesrec import conjugate
from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.errors import SamplingError
from bayesrec.inference.vmp_gates import PARTS, transfer_solve
from bayesrec.inference.vmp_maps import Maps
from bayesrec.inference.vmp_noise import Noise
from bayesrec.inference.vmp_rows import expected_errors, gram_of, moments_of, room
from bayesrec.inference.vmp_scales import Scale
from bayesrec.inference.vmp_sides import ItemPopulations, Rows

__all__ = ["TransferFit"]

SOURCE_BIAS_SCALE = 0.5
LOG_2PI = float(np.log(2.0 * np.pi))


class TransferFit:
    """The approximation of one chain: pass after pass, then draws. See :class:`bayesrec.inference.vmp_single.SingleFit`."""

    def __init__(self, model: Any, table: Table, state: State):
        self.model, self.table = model, table
        size, n_users, n_domains = model.rank + 1, table.n_users, table.n_domains
        self.size, self.n_sources = size, n_domains - 1
        self.rated = table.rated
        self.has = np.ascontiguousarray(table.count.T > 0)
        raters = np.concatenate([state["source_vector"], state["user_vector"][None]]).reshape(-1, size)
        self.items = Rows(table.item_ptr, 1, self.rated, state["item_vector"], table.workers)
        everyone = np.ones(n_users, dtype=bool)
        self.users = Rows(table.user_ptr, n_domains, everyone, state["user_vector"], table.workers)
        self.moments = np.zeros((n_domains * n_users, room(size)[0]))
        moments_of(raters, np.zeros((len(raters), size, size)), self.moments)
        self.populations = ItemPopulations(table, model.rank, state)
        self.maps = Maps(model, state, self.n_sources)
        self.bias = Scale(np.full(self.n_sources, SOURCE_BIAS_SCALE), state["source_bias_scale"] ** -2.0)
        self.gated = bool(model.gate)
        self.carried = ("items", "populations", "maps", "bias", "noise", *(("gates",) if self.gated else ()))
        if self.gated:  # off, on
            self.gates = np.tile(np.asarray(model.gate_prior, float), (self.n_sources, 1))
        self.noise = Noise(table, state, model.likelihood.user_noise)
        self.index = model.rater_index(table)
        self.whole = np.empty(0)
        n_on = 2**self.n_sources if self.gated else 1
        wide = 1 + n_domains * size
        self.chance, self.entropy = np.zeros((n_on, n_users)), np.zeros(n_users)
        self.scatter, self.copies = np.zeros((PARTS, wide, wide)), np.zeros((PARTS, self.n_sources, 1 + size))
        self.parts = np.linspace(0, n_users, PARTS + 1).astype(int)
        self.off = np.array([[(c >> k) & 1 for k in range(self.n_sources)] for c in range(n_on)], dtype=bool)
        self.both = self.has[:, :-1] & self.has[:, -1:]
        self.elbo = -np.inf
        self._roots: Any = None
        self._items()

    def advance(self) -> None:
        """One pass: users with their gates, noise, what is learned of users; then items and their populations."""
        table = self.table
        self.users.gather(table.user_item, table.user_value, self.whole, self.items.moments)
        self._users()
        self.noise.update(self._errors())
        self._population()
        self.elbo = self._bound()
        self._roots = None
        self._items()

    def source_precision(self) -> tuple[np.ndarray, np.ndarray]:
        """Expected prior precision (source, R) of a source vector, one for factors, and log precision."""
        out, log = np.ones((self.n_sources, self.size)), np.zeros((self.n_sources, self.size))
        out[:, 0], log[:, 0] = self.bias.precision, self.bias.log_precision
        return out, log

    def log_gates(self) -> np.ndarray:
        """Expected log probabilities (source, 2) of off and on."""
        if not self.gated:
            return np.zeros((self.n_sources, 2))
        return digamma(self.gates) - digamma(self.gates.sum(1, keepdims=True))

    def _users(self) -> None:
        weight = np.ascontiguousarray(self.noise.weight().T)
        (prior, log_prior), log_gates, maps = self.source_precision(), self.log_gates(), self.maps
        cross, gram = maps.natural()

        def run(first: int, last: int) -> int:
            return transfer_solve(
                self.users.sums, weight, self.has, prior, log_prior, cross, gram, maps.spread.precision, log_gates, self.gated,
                self.moments, self.chance, self.entropy, self.scatter[first:last], self.copies[first:last],
                self.parts[first : last + 1],
            )  # fmt: skip

        bad = self.table.workers.share(run, self.parts, 0)
        if bad:
            raise SamplingError(f"{bad} users had a precision matrix that is not positive definite.")

    def _population(self) -> None:
        scatter, copies = self.scatter.sum(0), self.copies.sum(0)
        self.maps.update(np.triu(scatter) + np.triu(scatter, 1).T)
        own = self.moments.reshape(self.n_sources + 1, self.table.n_users, -1)[:-1]
        size = self.size
        diagonal = [size + 1 + i * size - i * (i - 1) // 2 for i in range(size)]
        known = self.has[:, :-1].T
        self.squares = np.where(known[..., None], own[..., diagonal], 0.0).sum(1) + copies[:, 1:]
        self.number = known.sum(1) + copies[:, 0]
        self.bias.update(self.squares[:, 0], self.number)
        if self.gated:
            self.expected_off = np.array(
                [self.chance[self.off[:, k]][:, self.both[:, k]].sum() for k in range(self.n_sources)]
            )
            self.expected = np.stack([self.expected_off, self.both.sum(0) - self.expected_off], axis=1)
            self.gates = np.asarray(self.model.gate_prior) + self.expected

    def _items(self) -> None:
        items, table = self.items, self.table
        weight = conjugate.at_cells(self.noise.weight(), table.item_cell, table.workers)
        items.gather(self.index, table.item_value, weight, self.moments)
        items.solve(np.ones((table.n_items, 1)), *self.populations.natural(), table.item_domain)
        self.populations.update(items)

    def _errors(self) -> np.ndarray:
        table, n_domains = self.table, self.table.n_domains
        own = self.moments.reshape(n_domains, table.n_users, -1).swapaxes(0, 1).reshape(len(self.moments), -1)
        out = np.empty(len(own))

        def run(first: int, last: int) -> int:
            expected_errors(self.users.sums, 1, own, self.size, out, first, last)
            return 0

        table.workers.share(run, np.arange(len(out) + 1), 0)
        return out.reshape(table.n_users, n_domains).T

    def _bound(self) -> float:
        prior, log_prior = self.source_precision()
        sources = 0.5 * (self.number[:, None] * (log_prior - LOG_2PI) - prior * self.squares).sum()
        out = self.noise.bound() + self.populations.bound() + self.items.entropy() + self.maps.bound()
        out += float(sources + self.bias.bound() + self.entropy.sum())
        if self.gated:
            log_gates, start = self.log_gates(), np.asarray(self.model.gate_prior)
            out += float((log_gates * (self.expected + start - self.gates)).sum())
            out += float((betaln(*self.gates.T) - betaln(*start)).sum())
        return out

    def draw(self, rng: np.random.Generator) -> State:
        """A draw of every site but the items: what no rating informs comes from its prior given the rest."""
        out = self.noise.draw(rng) | self.maps.draw(rng) | self.populations.draw(rng)
        scale = np.ones((self.n_sources, self.size))
        out["source_bias_scale"] = scale[:, 0] = self.bias.draw(rng)
        if self.gated:
            out["gate"] = rng.beta(*self.gates.T)
        n_users, size = self.table.n_users, self.size
        maps = self.model.state_maps(out, self.n_sources)
        phi = scale[:, None] * rng.standard_normal((self.n_sources, n_users, size))
        used, theta = np.empty_like(phi), np.zeros((n_users, size))
        in_target = self.has[:, -1]
        choice = _choose(self.chance, rng)
        if self._roots is None:
            self._roots = self._settle()
        alone, joint = self._roots
        for k in range(self.n_sources):
            free = self.off[choice, k] | ~in_target
            phi[k] = np.where((free & self.has[:, k])[:, None], _drawn(alone[k], rng, n_users), phi[k])
        for c in range(len(self.off)):
            members = in_target & (choice == c)
            x = _drawn(joint[c], rng, n_users)
            theta[members] = x[members, -size:]
            for k in range(self.n_sources):
                if not self.off[c, k]:
                    phi[k, members] = x[members, k * size : (k + 1) * size]
        # users without target rows are leaves: a gate, then theta given the source or a copy of it
        silent = ~in_target
        for k in range(self.n_sources):
            off = (
                self.has[:, k] & (rng.random(n_users) < out["gate"][k]) if self.gated else np.zeros(n_users, dtype=bool)
            )
            copy = scale[k] * rng.standard_normal((n_users, size))
            used[k] = np.where(off[:, None], copy, phi[k])
        normals = rng.standard_normal((n_users, size)) @ np.linalg.cholesky(out["user_cov"]).T
        prior = out["user_mean"] + np.einsum("kij,kuj->ui", maps, used) + normals
        return out | {"user_vector": np.where(silent[:, None], prior, theta), "source_vector": phi}

    def _settle(self) -> tuple[list[Any], list[Any]]:
        """What draws need: source vectors from their rows alone, by source; (used, theta) by configuration."""
        size, n_users, n_domains = self.size, self.table.n_users, self.n_sources + 1
        prior, weight = self.source_precision()[0], self.noise.weight()
        cross, gram = self.maps.natural()
        precision, linear = np.empty((n_users * n_domains, size, size)), np.empty((n_users * n_domains, size))
        gram_of(self.users.sums, size, precision, linear)
        precision = precision.reshape(n_users, n_domains, size, size) * weight.T[..., None, None]
        linear = linear.reshape(n_users, n_domains, size) * weight.T[..., None]
        alone, joint = [], []
        for k in range(self.n_sources):
            members = np.flatnonzero(self.has[:, k])
            alone.append(_root(members, precision[members, k] + np.diag(prior[k]), linear[members, k]))
        for c, off in enumerate(self.off):
            members = np.flatnonzero(self.has[:, -1] & (self.chance[c] > 0.0))
            wide = n_domains * size
            a, right = np.zeros((len(members), wide, wide)), np.zeros((len(members), wide))
            a[:, :-size, :-size] = gram[1:, 1:] + np.diag(prior.ravel())
            a[:, :-size, -size:], a[:, -size:, :-size] = -cross[1:], -cross[1:].T
            a[:, -size:, -size:] = self.maps.spread.precision
            right[:, :-size], right[:, -size:] = -gram[0, 1:], cross[0]
            for d in range(n_domains):
                if d == self.n_sources or not off[d]:
                    here = slice(d * size, (d + 1) * size)
                    a[:, here, here] += precision[members, d]
                    right[:, here] += linear[members, d]
            joint.append(_root(members, a, right))
        return alone, joint

    def draw_items(self, state: State, rng: np.random.Generator) -> np.ndarray:
        """Items from their own factor; without a rating from their population."""
        out, domain = self.items.draw(rng), self.table.item_domain
        leaf = state["item_mean"][domain] + state["item_scale"][domain] * rng.standard_normal(out.shape)
        return np.where(self.rated[:, None], out, leaf)


def _choose(chance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A configuration (user,) for everybody, by its probability."""
    return (rng.random(chance.shape[1]) > np.cumsum(chance, 0)[:-1]).sum(0)


def _root(members: np.ndarray, precision: np.ndarray, linear: np.ndarray) -> tuple[np.ndarray, ...]:
    """Members, means (member, k) and square roots (member, k, k) of the covariance of normals."""
    lower = np.linalg.cholesky(precision)
    root = np.linalg.inv(lower).swapaxes(1, 2)
    return members, (root @ (root.swapaxes(1, 2) @ linear[..., None]))[..., 0], root


def _drawn(normals: tuple[np.ndarray, ...], rng: np.random.Generator, n_users: int) -> np.ndarray:
    """Draws (user, k), zeros but for the members."""
    members, mean, root = normals
    out = np.zeros((n_users, mean.shape[1]))
    out[members] = mean + (root @ rng.standard_normal((*mean.shape, 1)))[..., 0]
    return out
