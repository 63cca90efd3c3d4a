"""Likelihoods: how a rating comes about once its expected value ``eta`` is known."""

from __future__ import annotations

import math
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
SHAPE_PRIOR = (math.log(4.0), 1.0)  # log-normal of both shapes


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
    def log_density(self, state: State, table: Table, errors: np.ndarray) -> float:
        """Log density of all ratings of the table, in sd units."""


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Normal ratings with a noise level for each domain and, inside it, for each user. Stable.

    ``y = eta + noise[d] / sqrt(user_precision[d, u]) * e`` with ``e ~ N(0, 1)``. Some people use two points of a
    scale and some all of it; with one noise for everybody the factors of a factorisation bend to explain that, and
    predict worse. ``user_precision[d, u] ~ Gamma(within, within * consistency[u])`` and
    ``consistency[u] ~ Gamma(between, between)``: what a user's source rows say of their noise carries over to the
    target as far as the two shapes, which are learned, allow.

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
            "shape_within": (),
            "shape_between": (),
            "consistency": ("user",),
            "user_precision": ("domain", "user"),
        }

    def check(self, value: np.ndarray, domain: Any) -> None:
        """Refuse a domain with one rating or with one value throughout."""
        if len(value) < 2:
            raise DataError(f"domain {domain!r} has {len(value)} rating(s); a Gaussian needs at least two to learn a noise level")
        if np.ptp(value) == 0:
            raise DataError(
                f"all {len(value)} ratings of domain {domain!r} are {value[0]:g}; a Gaussian on constant values learns nothing. "
                "Clicks (all ones) need a likelihood for implicit feedback."
            )

    def prior(self, schema: Any) -> Latents:
        """Sample noise, shapes and, per user, consistency and precision."""
        n_domains = schema.n_domains
        out = {"noise": pyro.sample("noise", half_t(NOISE_SCALE, shape=(n_domains,)))}
        if not self.user_noise:
            return out
        within = out["shape_within"] = pyro.sample("shape_within", dist.LogNormal(*map(torch.tensor, SHAPE_PRIOR)))
        between = out["shape_between"] = pyro.sample("shape_between", dist.LogNormal(*map(torch.tensor, SHAPE_PRIOR)))
        b = between.unsqueeze(-1).expand(between.shape + (schema.n_users,))
        level = out["consistency"] = pyro.sample("consistency", dist.Gamma(b, b).to_event(1))
        shape = torch.broadcast_shapes(level.unsqueeze(-2).shape, (n_domains, schema.n_users))
        w = within.unsqueeze(-1).unsqueeze(-1).expand(shape)
        rate = w * level.unsqueeze(-2)
        out["user_precision"] = pyro.sample("user_precision", dist.Gamma(w, rate).to_event(2))
        return out

    def scale(self, latents: Latents, batch: Any) -> Tensor:
        """Noise sd of each row, (..., row), in sd units."""
        noise = latents["noise"][..., batch.domain]
        if not self.user_noise:
            return noise
        return noise * latents["user_precision"][..., batch.domain, batch.user].rsqrt()

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
        """Spread the prior of a new user's precision over the draws: quantiles in a fixed low-discrepancy order."""
        if not self.user_noise:
            return {}
        from scipy.special import gammaincinv

        within = latents["shape_within"].numpy().astype(float)
        between = latents["shape_between"].numpy().astype(float)
        n_domains = latents["noise"].shape[-1]
        step = np.arange(1, within.size + 1).reshape(within.shape)
        level = gammaincinv(between, (step * 0.7548776662466927) % 1.0) / between
        precision = gammaincinv(within, (step * 0.5698402909980532) % 1.0) / (within * level)
        return {
            "consistency": torch.from_numpy(level),
            "user_precision": torch.from_numpy(np.repeat(precision[..., None], n_domains, axis=-1)),
        }

    def working(self, state: State, table: Table, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the ratings themselves and ``user_precision / noise^2``."""
        if by == "user":
            value, user, domain = table.user_value, table.user_of, table.user_domain
        else:
            value, user, domain = table.item_value, table.item_user, table.item_domain[table.item_of]
        base = 1.0 / state["noise"] ** 2
        if not self.user_noise:
            return value, base[domain]
        return value, (state["user_precision"] * base[:, None])[domain, user]

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Start at a noise of .8 sd for everybody."""
        state: State = {"noise": np.full(table.n_domains, 0.8)}
        if self.user_noise:
            state |= {"shape_within": 4.0, "shape_between": 4.0, "consistency": np.ones(table.n_users)}
            state["user_precision"] = np.ones((table.n_domains, table.n_users))
        return state

    def blocks(self, table: Table, errors: Any) -> list[Block]:
        """Noise of the domains; precision and consistency of the users; their shapes."""
        n_rows = table.count.sum(1)
        seen = table.count > 0
        per_user = seen.sum(0)
        active = per_user > 0

        def noise(state: State, rng: np.random.Generator) -> State:
            squares = errors(state)
            if self.user_noise:
                squares = squares * state["user_precision"]
            total = squares.sum(1)
            return {"noise": conjugate.half_t_scale(state["noise"], total, n_rows, NOISE_SCALE, rng)}

        def user_precision(state: State, rng: np.random.Generator) -> State:
            squares = errors(state) / state["noise"][:, None] ** 2
            within, between, level = state["shape_within"], state["shape_between"], state["consistency"]
            precision = rng.gamma(within + table.count / 2.0) / (within * level + squares / 2.0)
            # A domain in which the user has no rating is a leaf: it informs nothing and is drawn after consistency.
            level = rng.gamma(between + within * per_user) / (between + within * np.where(seen, precision, 0.0).sum(0))
            leaf = rng.gamma(within, size=seen.shape) / (within * level)
            return {"consistency": level, "user_precision": np.where(seen, precision, leaf)}

        def shapes(state: State, rng: np.random.Generator) -> State:
            level, precision = state["consistency"], state["user_precision"]
            ratio = (precision * level)[seen]
            within = conjugate.gamma_shape(
                state["shape_within"], ratio.size, np.log(ratio).sum(), ratio.sum(), *SHAPE_PRIOR, rng
            )
            level = level[active]
            between = conjugate.gamma_shape(
                state["shape_between"], level.size, np.log(level).sum(), level.sum(), *SHAPE_PRIOR, rng
            )
            return {"shape_within": within, "shape_between": between}

        out = [Block("noise", ("noise",), noise)]
        if self.user_noise:
            out.insert(0, Block("user_noise", ("consistency", "user_precision"), user_precision, local=True))
            out.append(Block("noise_shapes", ("shape_within", "shape_between"), shapes))
        return out

    def log_density(self, state: State, table: Table, errors: np.ndarray) -> float:
        """Log density of all ratings of the table, in sd units."""
        precision = np.repeat(1.0 / state["noise"][:, None] ** 2, table.n_users, axis=1)
        if self.user_noise:
            precision = precision * state["user_precision"]
        return float(0.5 * (table.count * np.log(precision / (2.0 * np.pi)) - precision * errors).sum())
