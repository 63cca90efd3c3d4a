"""A normal response with a noise level for each domain and each user: what likelihoods have in common. Internal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

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
from bayesrec.likelihoods.base import Fitted, Latents, Likelihood

__all__ = ["CHUNKS", "NoisyResponse", "in_chunks"]

NOISE_SCALE = 1.0  # half-t scale of the noise sd, in sd units
CHUNKS = 64  # parts of the ratings, whatever the threads: sums come out alike
LEVEL_SCALE = 0.5  # half-t scale of the spread of users' log precisions, between users and between a user's domains
BOUND = (
    3.0  # log precisions are bent into (-BOUND, BOUND): no user's noise is below .22 or above 4.5 times the domain's
)


def in_chunks(table: Table, run: Callable[[int, int], Any]) -> None:
    """Call a compiled loop, ``run(first, last)``, for parts of the ratings that do not depend on the threads."""
    edges = np.linspace(0, len(table.user_value), CHUNKS + 1).astype(int)

    def part(first: int, last: int) -> int:
        for k in range(first, last):
            run(edges[k], edges[k + 1])
        return 0

    table.workers.share(part, edges, 0)


@dataclass(frozen=True)
class NoisyResponse(Likelihood):
    """A response ``eta + noise[d] / sqrt(w[d, u]) * e`` with ``e ~ N(0, 1)``; see :class:`Gaussian` for ``w``. Abstract.

    Where the unit of the response is free the noise of a domain is 1: ``learned`` is False.
    """

    user_noise: bool = True
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.user_noise, (bool, np.bool_)):
            raise DataError(f"user_noise must be True or False, not {self.user_noise!r}; give other options by name")
        object.__setattr__(self, "user_noise", bool(self.user_noise))

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of each site."""
        noise: dict[str, tuple[str, ...]] = {"noise": ("domain",)} if self.learned else {}
        if not self.user_noise:
            return noise
        return noise | {
            "level_between": (),
            "level_within": (),
            "user_level": ("user",),
            "user_log_precision": ("domain", "user"),
        }

    def prior(self, schema: Any) -> Latents:
        """Sample noise, spreads and, per user, level and log precisions."""
        n_domains = schema.n_domains
        out = {}
        if self.learned:
            out["noise"] = pyro.sample("noise", half_t(NOISE_SCALE, shape=(n_domains,)))
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
        """Noise sd of each row's response, (..., row), or one number."""
        noise = latents["noise"].index_select(-1, batch.domain) if self.learned else torch.ones(())
        if not self.user_noise:
            return noise
        every = latents["user_log_precision"]
        x = every.flatten(-2).index_select(-1, batch.domain * every.shape[-1] + batch.user)
        return noise * torch.exp(-0.5 * BOUND * torch.tanh(x / BOUND))

    def components(self, eta: Tensor, variance: Tensor, latents: Latents, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``eta``, its sd and the noise of each row."""
        return eta, variance.sqrt(), self.scale(latents, batch)

    def unknown_user(self, latents: Latents) -> Latents:
        """Spread the prior of a new user's level over the draws: quantiles in a fixed low-discrepancy order."""
        if not self.user_noise:
            return {}
        between, within = latents["level_between"], latents["level_within"]
        step = torch.arange(1, between.numel() + 1, dtype=torch.float64).reshape(between.shape)
        normals = (torch.special.ndtri((step * r) % 1.0) for r in (0.7548776662466927, 0.5698402909980532))
        level, shift = (z.to(between.dtype) * sd for z, sd in zip(normals, (between, within), strict=True))
        n_domains = latents["noise"].shape[-1] if self.learned else latents["cut"].shape[-2]
        x = (level + shift).unsqueeze(-1).expand(level.shape + (n_domains,))
        return {"user_level": level, "user_log_precision": x}

    def working(self, state: State, table: Table, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the responses and ``w / noise^2``."""
        latent, by_user = "response" in state, by == "user"
        value, cell = (table.user_value, table.user_cell) if by_user else (table.item_value, table.item_cell)
        if latent:
            value = state["response"] if by_user else state["response"][table.item_place]
        return value, conjugate.at_cells(table.powered(self.cell_precision(state, table)), cell, table.workers)

    def squares(self, state: State, table: Table, fitted: Fitted) -> np.ndarray:
        """Sum of squared errors of responses, as the noise of each user has it, (domain, user)."""
        return fitted.errors(state)

    def observed(self, state: State, table: Table, fitted: Fitted) -> tuple[np.ndarray, np.ndarray]:
        """Return the ratings themselves and their precision."""
        return self.working(state, table, "user")

    def cell_precision(self, state: State, table: Table) -> np.ndarray:
        """Noise precision of each user in each domain, (domain, user)."""
        noise = state["noise"] if self.learned else np.ones(table.n_domains)
        base = 1.0 / noise[:, None] ** 2
        if self.user_noise:
            return base * _bent(state["user_log_precision"])
        return np.repeat(base, table.n_users, axis=1)

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Start at a noise of .8 sd for everybody."""
        state: State = {"noise": np.full(table.n_domains, 0.8)} if self.learned else {}
        if self.user_noise:
            state |= {"level_between": 0.5, "level_within": 0.5, "user_level": np.zeros(table.n_users)}
            state["user_log_precision"] = np.zeros((table.n_domains, table.n_users))
        return state

    def blocks(self, table: Table, fitted: Fitted) -> list[Block]:
        """Log precisions and levels of the users; noise of the domains; the spreads."""
        count = table.powered(table.count)
        n_rows = count.sum(1)
        seen = table.count > 0
        per_user = seen.sum(0)
        count_seen, zeros, zeros_seen = count[seen][None], np.zeros(table.n_users), np.zeros((1, seen.sum()))

        def user_noise(state: State, rng: np.random.Generator) -> State:
            squares = table.powered(self.squares(state, table, fitted))
            if self.learned:
                squares = squares / state["noise"][:, None] ** 2
            within, between, level = state["level_within"], state["level_between"], state["user_level"]
            # A user's level and log precisions move together, then apart: each move alone mixes slowly where one of
            # the two spreads is small.
            shift = state["user_log_precision"] - level
            level = conjugate.noise_slices(level, zeros, between, count, squares, shift, BOUND, rng, table.workers)
            x, loc = level + shift, np.broadcast_to(level, seen.shape)
            x[seen] = conjugate.noise_slices(
                x[seen], loc[seen], within, count_seen, squares[seen][None], zeros_seen, BOUND, rng, table.workers
            )
            return levels(x, within, between, rng)

        def levels(x: np.ndarray, within: Any, between: Any, rng: np.random.Generator) -> State:
            # A domain in which the user has no rating is a leaf: it informs nothing and is drawn after the level.
            precision = 1.0 / between**2 + per_user / within**2
            mean = np.where(seen, x, 0.0).sum(0) / within**2 / precision
            level = mean + rng.standard_normal(len(mean)) / np.sqrt(precision)
            leaf = level + within * rng.standard_normal(seen.shape)
            return {"user_level": level, "user_log_precision": np.where(seen, x, leaf)}

        def noise(state: State, rng: np.random.Generator) -> State:
            squares = table.powered(self.squares(state, table, fitted))
            if self.user_noise:
                squares = squares * _bent(state["user_log_precision"])
            return {"noise": conjugate.half_t_scale(state["noise"], squares.sum(1), n_rows, NOISE_SCALE, rng)}

        def spreads(state: State, rng: np.random.Generator) -> State:
            # Levels that shrink with their spread, which shrinks with them, hardly move: they are integrated out, then drawn.
            x = state["user_log_precision"]
            within, between = conjugate.nested_scales(
                state["level_within"], state["level_between"], x, seen, LEVEL_SCALE, rng
            )
            return {"level_within": within, "level_between": between} | levels(x, within, between, rng)

        out = [Block("noise", ("noise",), noise)] if self.learned else []
        if self.user_noise:
            out.insert(0, Block("user_noise", ("user_level", "user_log_precision"), user_noise, local=True))
            sites = ("level_within", "level_between", "user_level", "user_log_precision")
            out.append(Block("noise_spreads", sites, spreads))
        return out

    def precision(self, latents: Latents) -> Tensor:
        """Noise precision of each user's ratings in each domain, (domain, user)."""
        base = latents["noise"].square().reciprocal().unsqueeze(-1) if self.learned else torch.ones(1, 1)
        return base * (BOUND * torch.tanh(latents["user_log_precision"] / BOUND)).exp() if self.user_noise else base

    def leaves(self, table: Table) -> dict[str, np.ndarray]:
        """Domains in which a user is silent, and users without any row."""
        silent = table.count == 0
        return {"user_log_precision": silent, "user_level": silent.all(0)} if self.user_noise else {}


def _bent(x: np.ndarray) -> np.ndarray:
    """Precision multiplier of a log precision: between exp(-BOUND) and exp(BOUND)."""
    return np.exp(BOUND * np.tanh(x / BOUND))
