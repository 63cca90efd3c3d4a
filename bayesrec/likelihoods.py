"""Likelihoods: how a rating comes about once its expected value ``eta`` is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesrec import conjugate
from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.distributions import half_t
from bayesrec.errors import DataError

__all__ = ["Gaussian", "Likelihood"]

Latents = dict[str, Any]

NOISE_SCALE = 1.0  # half-t scale of the noise sd, in sd units
LEVEL_SCALE = 0.5  # half-t scale of the spread of users' log precisions, between users and between a user's domains
BOUND = (
    3.0  # log precisions are bent into (-BOUND, BOUND): no user's noise is below .22 or above 4.5 times the domain's
)


class Likelihood(ABC):
    """What a likelihood has to offer. Provisional.

    ``prior`` samples its latents (Pyro), ``distribution`` and ``mean`` say what a rating looks like given ``eta``;
    ``working``, ``blocks`` and ``start`` serve conjugate Gibbs.
    """

    @property
    @abstractmethod
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of each site."""

    @abstractmethod
    def check(self, value: np.ndarray, domain: Any) -> None:
        """Refuse values of a domain that this likelihood cannot have produced."""

    @abstractmethod
    def prior(self, schema: Any) -> Latents:
        """Sample the latents of the likelihood (Pyro)."""

    @abstractmethod
    def distribution(self, eta: Tensor, latents: Latents, batch: Any) -> dist.TorchDistribution:
        """Distribution of ratings with expected value ``eta`` (..., row)."""

    @abstractmethod
    def mean(self, eta: Tensor, latents: Latents) -> Tensor:
        """Expected rating (..., row)."""

    @abstractmethod
    def components(self, eta: Tensor, variance: Tensor, latents: Latents, batch: Any) -> tuple[Tensor, Tensor]:
        """Mean and sd of a new rating, draw by draw (..., row); ``variance`` of ``eta`` is integrated out."""

    @abstractmethod
    def unknown_user(self, latents: Latents) -> Latents:
        """Fill-in values of the sites with a user axis, for a user without any rating."""

    @abstractmethod
    def working(self, state: State, table: Table, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Response and noise precision of each rating, in the table's user or item order."""

    @abstractmethod
    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Starting values of a chain."""

    @abstractmethod
    def blocks(self, table: Table, errors: Any) -> list[Block]:
        """Gibbs blocks; ``errors(state)`` gives the sum of squared residuals (domain, user)."""

    @abstractmethod
    def precision(self, latents: Latents) -> Tensor:
        """Noise precision of each user's ratings in each domain, (domain, user) or (domain, 1), for SVI."""

    def leaves(self, table: Table) -> dict[str, np.ndarray]:
        """Masks of what no rating informs; see :meth:`bayesrec.models.base.Model.leaves`."""
        return {}

    @abstractmethod
    def log_density(self, state: State, table: Table, errors: np.ndarray) -> float:
        """Log density of all ratings of the table, in sd units."""


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Normal ratings with a noise level for each domain and, inside it, for each user. Stable.

    ``y = eta + noise[d] / sqrt(w[d, u]) * e``, ``e ~ N(0, 1)``. Some people use two points of a scale and some all of
    it; with one noise for everybody the factors of a factorisation bend to explain that, and predict worse.
    ``log w = B tanh(x / B)`` with ``x = user_log_precision[d, u] ~ N(user_level[u], level_within)`` and
    ``user_level[u] ~ N(0, level_between)``: what a user's source rows say of their noise carries over to the target
    as far as the two spreads, which are learned, allow. The bend keeps a user whose ratings are all alike from
    driving the noise to zero.

    Parameters
    ----------
    user_noise : bool
        False gives every user of a domain the same noise.

    Examples
    --------
    >>> Gaussian(user_noise=False).dims
    {'noise': ('domain',)}
    """

    user_noise: bool = True

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of each site."""
        if not self.user_noise:
            return {"noise": ("domain",)}
        return {
            "noise": ("domain",),
            "level_between": (),
            "level_within": (),
            "user_level": ("user",),
            "user_log_precision": ("domain", "user"),
        }

    def check(self, value: np.ndarray, domain: Any) -> None:
        """Refuse a domain with one rating or with one value throughout."""
        if len(value) < 2:
            raise DataError(
                f"domain {domain!r} has {len(value)} rating(s); a Gaussian needs at least two to learn a noise level"
            )
        if np.ptp(value) == 0:
            raise DataError(
                f"all {len(value)} ratings of domain {domain!r} are {value[0]:g}; a Gaussian on constant values learns nothing. "
                "Clicks (all ones) need a likelihood for implicit feedback."
            )

    def prior(self, schema: Any) -> Latents:
        """Sample noise, spreads and, per user, level and log precisions."""
        n_domains = schema.n_domains
        out = {"noise": pyro.sample("noise", half_t(NOISE_SCALE, shape=(n_domains,)))}
        if not self.user_noise:
            return out
        between = out["level_between"] = pyro.sample("level_between", half_t(LEVEL_SCALE))
        within = out["level_within"] = pyro.sample("level_within", half_t(LEVEL_SCALE))
        sd = between.unsqueeze(-1).expand(between.shape + (schema.n_users,))
        level = out["user_level"] = pyro.sample("user_level", dist.Normal(torch.zeros_like(sd), sd).to_event(1))
        loc = level.unsqueeze(-2).expand(level.shape[:-1] + (n_domains, schema.n_users))
        x = dist.Normal(loc, within.unsqueeze(-1).unsqueeze(-1)).to_event(2)
        out["user_log_precision"] = pyro.sample("user_log_precision", x)
        return out

    def scale(self, latents: Latents, batch: Any) -> Tensor:
        """Noise sd of each row, (..., row), in sd units."""
        noise = latents["noise"].index_select(-1, batch.domain)
        if not self.user_noise:
            return noise
        every = latents["user_log_precision"]
        x = every.flatten(-2).index_select(-1, batch.domain * every.shape[-1] + batch.user)
        return noise * torch.exp(-0.5 * BOUND * torch.tanh(x / BOUND))

    def distribution(self, eta: Tensor, latents: Latents, batch: Any) -> dist.TorchDistribution:
        """Return ``Normal(eta, scale)`` over the rows of the batch."""
        return dist.Normal(eta, self.scale(latents, batch))

    def mean(self, eta: Tensor, latents: Latents) -> Tensor:
        """Return ``eta``."""
        return eta

    def components(self, eta: Tensor, variance: Tensor, latents: Latents, batch: Any) -> tuple[Tensor, Tensor]:
        """Return ``eta`` and the sd of parameter spread and noise together."""
        return eta, (variance + self.scale(latents, batch).square()).sqrt()

    def unknown_user(self, latents: Latents) -> Latents:
        """Spread the prior of a new user's level over the draws: quantiles in a fixed low-discrepancy order."""
        if not self.user_noise:
            return {}
        between, within = latents["level_between"], latents["level_within"]
        step = torch.arange(1, between.numel() + 1, dtype=torch.float64).reshape(between.shape)
        normals = (torch.special.ndtri((step * r) % 1.0) for r in (0.7548776662466927, 0.5698402909980532))
        level, shift = (z.to(between.dtype) * sd for z, sd in zip(normals, (between, within), strict=True))
        x = (level + shift).unsqueeze(-1).expand(level.shape + latents["noise"].shape[-1:])
        return {"user_level": level, "user_log_precision": x}

    def working(self, state: State, table: Table, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the ratings themselves and ``w / noise^2``."""
        value, cell = (table.user_value, table.user_cell) if by == "user" else (table.item_value, table.item_cell)
        return value, conjugate.at_cells(self._precision(state, table.n_users), cell, table.workers)

    def _precision(self, state: State, n_users: int) -> np.ndarray:
        """Noise precision of each user in each domain, (domain, user)."""
        base = 1.0 / state["noise"][:, None] ** 2
        return base * _bent(state["user_log_precision"]) if self.user_noise else np.repeat(base, n_users, axis=1)

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Start at a noise of .8 sd for everybody."""
        state: State = {"noise": np.full(table.n_domains, 0.8)}
        if self.user_noise:
            state |= {"level_between": 0.5, "level_within": 0.5, "user_level": np.zeros(table.n_users)}
            state["user_log_precision"] = np.zeros((table.n_domains, table.n_users))
        return state

    def blocks(self, table: Table, errors: Any) -> list[Block]:
        """Log precisions and levels of the users; noise of the domains; the spreads."""
        n_rows = table.count.sum(1)
        seen = table.count > 0
        per_user = seen.sum(0)
        active = per_user > 0
        count_seen, zeros, zeros_seen = table.count[seen][None], np.zeros(table.n_users), np.zeros((1, seen.sum()))

        def user_noise(state: State, rng: np.random.Generator) -> State:
            squares = errors(state) / state["noise"][:, None] ** 2
            within, between, level = state["level_within"], state["level_between"], state["user_level"]
            # A user's level and log precisions move together, then apart: each move alone mixes slowly where one of
            # the two spreads is small.
            shift = state["user_log_precision"] - level
            level = conjugate.noise_slices(
                level, zeros, between, table.count, squares, shift, BOUND, rng, table.workers
            )
            x, loc = level + shift, np.broadcast_to(level, seen.shape)
            x[seen] = conjugate.noise_slices(
                x[seen], loc[seen], within, count_seen, squares[seen][None], zeros_seen, BOUND, rng, table.workers
            )
            # A domain in which the user has no rating is a leaf: it informs nothing and is drawn after the level.
            precision = 1.0 / between**2 + per_user / within**2
            mean = np.where(seen, x, 0.0).sum(0) / within**2 / precision
            level = mean + rng.standard_normal(len(mean)) / np.sqrt(precision)
            leaf = level + within * rng.standard_normal(seen.shape)
            return {"user_level": level, "user_log_precision": np.where(seen, x, leaf)}

        def noise(state: State, rng: np.random.Generator) -> State:
            squares = errors(state)
            if self.user_noise:
                squares = squares * _bent(state["user_log_precision"])
            return {"noise": conjugate.half_t_scale(state["noise"], squares.sum(1), n_rows, NOISE_SCALE, rng)}

        def spreads(state: State, rng: np.random.Generator) -> State:
            level = state["user_level"]
            shift = (state["user_log_precision"] - level)[seen]
            within = conjugate.half_t_scale(state["level_within"], (shift**2).sum(), shift.size, LEVEL_SCALE, rng)
            squares = (level[active] ** 2).sum()
            between = conjugate.half_t_scale(state["level_between"], squares, active.sum(), LEVEL_SCALE, rng)
            return {"level_within": within, "level_between": between}

        out = [Block("noise", ("noise",), noise)]
        if self.user_noise:
            out.insert(0, Block("user_noise", ("user_level", "user_log_precision"), user_noise, local=True))
            out.append(Block("noise_spreads", ("level_within", "level_between"), spreads))
        return out

    def precision(self, latents: Latents) -> Tensor:
        """Noise precision of each user's ratings in each domain, (domain, user)."""
        base = latents["noise"].square().reciprocal().unsqueeze(-1)
        return base * (BOUND * torch.tanh(latents["user_log_precision"] / BOUND)).exp() if self.user_noise else base

    def leaves(self, table: Table) -> dict[str, np.ndarray]:
        """Domains in which a user is silent, and users without any row."""
        silent = table.count == 0
        return {"user_log_precision": silent, "user_level": silent.all(0)} if self.user_noise else {}

    def log_density(self, state: State, table: Table, errors: np.ndarray) -> float:
        """Log density of all ratings of the table, in sd units."""
        precision = self._precision(state, table.n_users)
        return float(0.5 * (table.count * np.log(precision / (2.0 * np.pi)) - precision * errors).sum())


def _bent(x: np.ndarray) -> np.ndarray:
    """Precision multiplier of a log precision: between exp(-BOUND) and exp(BOUND)."""
    return np.exp(BOUND * np.tanh(x / BOUND))
