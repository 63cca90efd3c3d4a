"""Variational message passing for models with one vector a user. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesrec import conjugate
from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.inference.vmp_noise import Noise
from bayesrec.inference.vmp_rows import expected_errors
from bayesrec.inference.vmp_sides import ItemPopulations, Rows, UserPopulation

__all__ = ["SingleFit"]


class SingleFit:
    """The approximation of one chain: pass after pass, then draws.

    A pass updates users, noise and the users' population, then items and theirs. ``elbo`` is that after the users and all
    populations, where every part of it is at hand.
    """

    carried = ("items", "populations", "population", "noise")  # what a pass reads before it writes it

    def __init__(self, model: Any, table: Table, state: State):
        self.table, rank = table, model.rank
        self.rated, active = table.rated, table.count.sum(0) > 0
        self.items = Rows(table.item_ptr, 1, self.rated, state["item_vector"], table.workers)
        self.users = Rows(table.user_ptr, table.n_domains, active, state["user_vector"], table.workers)
        self.populations = ItemPopulations(table, rank, state)
        self.population = UserPopulation(active, rank, state)
        self.noise = Noise(table, state, model.likelihood.user_noise)
        self.index = model.rater_index(table)
        self.alike, self.whole = np.zeros(table.n_users, dtype=np.int64), np.empty(0)
        self.elbo = -np.inf
        self._items()  # from the vectors of the start: before that they are points

    def advance(self) -> None:
        """One pass."""
        users, table = self.users, self.table
        users.gather(table.user_item, table.user_value, self.whole, self.items.moments)
        users.solve(np.ascontiguousarray(self.noise.weight().T), *self.population.natural(), self.alike)
        self.noise.update(self._errors())
        self.population.update(users)
        self.elbo = self._bound()
        self._items()

    def _items(self) -> None:
        items, table = self.items, self.table
        weight = conjugate.at_cells(self.noise.weight(), table.item_cell, table.workers)
        items.gather(self.index, table.item_value, weight, self.users.moments)
        items.solve(np.ones((table.n_items, 1)), *self.populations.natural(), table.item_domain)
        self.populations.update(items)

    def _errors(self) -> np.ndarray:
        """Expected squared errors (domain, user), given the sums of the users."""
        users, table = self.users, self.table
        out = np.empty(len(users.sums))

        def run(first: int, last: int) -> int:
            expected_errors(users.sums, table.n_domains, users.moments, users.size, out, first, last)
            return 0

        table.workers.share(run, np.arange(len(out) + 1), 0)
        return out.reshape(table.n_users, table.n_domains).T

    def _bound(self) -> float:
        parts = self.noise.bound(), self.populations.bound(), self.population.bound()
        return float(sum(parts) + self.users.entropy() + self.items.entropy())

    def draw(self, rng: np.random.Generator) -> State:
        """A draw of every site but the items: users without a rating come from their population."""
        out = self.noise.draw(rng) | self.population.draw(rng) | self.populations.draw(rng)
        users = self.users.draw(rng)
        silent = ~self.users.active
        normals = rng.standard_normal((silent.sum(), users.shape[1]))
        users[silent] = out["user_mean"] + normals @ np.linalg.cholesky(out["user_cov"]).T
        return out | {"user_vector": users}

    def draw_items(self, state: State, rng: np.random.Generator) -> np.ndarray:
        """Items from their own factor; without a rating from their population."""
        out, domain = self.items.draw(rng), self.table.item_domain
        leaf = state["item_mean"][domain] + state["item_scale"][domain] * rng.standard_normal(out.shape)
        return np.where(self.rated[:, None], out, leaf)
