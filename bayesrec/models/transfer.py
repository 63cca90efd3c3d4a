"""TransferMF: a prior for the target's user vectors that a gate opens to the source."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesrec import conjugate
from bayesrec.blocks import Block, State, remembered
from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.data.silent import with_silent_source
from bayesrec.distributions import gated_normal, half_t
from bayesrec.errors import DataError
from bayesrec.likelihoods import Latents
from bayesrec.models import priors, sequential
from bayesrec.models.base import Batch, Informants, Model, Population, Schema
from bayesrec.models.gates import informants
from bayesrec.models.maps import FAMILIES, MapPrior
from bayesrec.sources import SourcePrior

__all__ = ["TransferMF"]

SOURCE_BIAS_SCALE = 0.5
PARTS = {"all": (True, True, True), "biases": (True, False, False), "factors": (False, True, False)}


@dataclass(frozen=True)
class TransferMF(Model):
    """Matrix factorisation of the target whose prior for each user comes from the user's source ratings. Stable.

    The user's target vector is ``theta_u = m + sum_k W_k phi_uk + eps``, ``eps ~ N(0, user_cov)``: ``phi_uk`` is the
    vector of user ``u`` in source ``k``, ``W_k`` a learned map, shrunk to zero. For a share ``gate[k]`` of the
    users the source says nothing: for them an independent copy of ``phi_uk`` stands in its place, so that their
    prior is exactly the population's. Everything is fitted jointly. Robust meta-analytic priors (Schmidli et al.
    2014) brought to the mapping methods of Man et al. (2017); the construction of the gate is ours.

    Parameters
    ----------
    rank : int
        Number of factors, in the target and in every source.
    likelihood : Likelihood
        Gaussian unless given.
    gate : bool
        False trusts every source for every user.
    transfers : {"all", "biases", "factors"}
        What the map may carry: everything, only a user's bias to their bias, or only factors to factors. The entries
        that are left out take no part, and their draws are those of their prior.

    prior_family : {"normal", "ard", "horseshoe", "commensurate"}
        What the source is shrunk to. The first three shrink a free map to zero, no transfer: with a scale for each part of
        the map, for each source component, or for each entry. "commensurate" has no map: ``theta_u = m + phi_u + eps``, and
        ``eps`` is shrunk to zero, pooling (Hobbs et al. 2011).
    shrinkage : float
        Multiplies the scales of that prior; below 1 shrinks more.
    gate_prior : tuple of float
        Beta prior (irrelevant, relevant) of the share of users for whom a source is irrelevant.
    source : SourcePrior, optional
        What a source posterior says of each user, from ``posterior.as_prior("user")``, in the place of source ratings: the
        sequential mode. Only target rows are fitted, no raw source rating is needed, and the users of the prior are known.

    Examples
    --------
    >>> TransferMF(rank=2).dims["map"]
    ('source', 'latent_component', 'latent_component_bis')
    >>> TransferMF(prior_family="commensurate", shrinkage=0.5).gate
    True
    """

    gate: bool = True
    transfers: str = "all"
    prior_family: str = "normal"
    shrinkage: float = 1.0
    gate_prior: tuple[float, float] = (1.0, 4.0)
    source: SourcePrior | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("transfers", tuple(PARTS)), ("prior_family", FAMILIES)):
            if getattr(self, name) not in known:
                raise DataError(f"{name} must be one of {', '.join(map(repr, known))}, not {getattr(self, name)!r}")
        object.__setattr__(self, "shrinkage", _positive("shrinkage", self.shrinkage))
        if not isinstance(self.gate_prior, (tuple, list)) or len(self.gate_prior) != 2:
            raise DataError(f"gate_prior must be two numbers above 0, not {self.gate_prior!r}")
        object.__setattr__(self, "gate_prior", tuple(_positive("gate_prior", x) for x in self.gate_prior))
        if self.source is not None and not isinstance(self.source, SourcePrior):
            raise DataError(f"source must be a SourcePrior, from posterior.as_prior('user'), not {self.source!r}")
        if self.source is not None and self.prior_family == "commensurate":
            raise DataError(
                "prior_family='commensurate' needs source ratings: a source prior is whitened, and its unit is lost"
            )
        if self.source is not None and self.source.rank != self.rank:
            raise DataError(
                f"the source prior has rank {self.source.rank}, the model {self.rank}; give both the same rank"
            )

    @property
    def map_prior(self) -> MapPrior:
        """The prior of the maps."""
        return MapPrior(self.prior_family, self.rank, self.shrinkage)

    def _used(self) -> np.ndarray:
        """Which entries of a map take part, bool (R, R)."""
        return np.array(PARTS[self.transfers])[self.map_prior.parts]

    def _maps(self, latents: Latents) -> Tensor:
        """The maps with zeros where an entry takes no part, (..., source, R, R)."""
        used = torch.from_numpy(self._used())
        if "map" in latents:
            return latents["map"] * used.to(latents["map"].dtype)
        return (used & torch.eye(self.rank + 1, dtype=torch.bool)).to(latents["user_mean"].dtype).unsqueeze(-3)

    def _state_maps(self, state: State, n_sources: int) -> np.ndarray:
        """The same of a state, (source, R, R)."""
        size = self.rank + 1
        return state.get("map", np.tile(np.eye(size), (n_sources, 1, 1))) * self._used()

    def view(self, data: Interactions) -> Interactions:
        """Return the data, or with a source prior the target rows and all its users."""
        return data if self.source is None else with_silent_source(data, self.source.name, self.source.users)

    @property
    def latent_dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of the model's own sites."""
        return (
            priors.ITEM_DIMS
            | priors.POPULATION_DIMS
            | ({} if self.source is not None else {"source_bias_scale": ("source",)})
            | {"source_vector": ("source", "user", "latent_component"), "user_vector": ("user", "latent_component")}
            | self.map_prior.dims
            | ({"gate": ("source",)} if self.gate else {})
        )

    def check(self, data: Interactions) -> None:
        """Refuse data without a source or without shared users."""
        super().check(data)
        if self.source is not None:
            return sequential.check(self.source, data)
        if data.is_target.all():
            raise DataError(
                f"TransferMF needs source rows: every row belongs to the target {data.target!r}. "
                "Add a domain, or use PMF for the target alone."
            )
        if not np.intersect1d(data.user[data.is_target], data.user[~data.is_target]).size:
            raise DataError(
                f"no {data.entity} has rows both in the target {data.target!r} and in a source {list(data.sources)}: "
                f"nothing can be learned about how the source bears on the target. Do the ids mean the same {data.entity}s?"
            )

    def prior(self, schema: Schema) -> Latents:
        """Sample items, sources, maps, gates, the target's users and the likelihood's latents."""
        size, n_sources, n_users = self.rank + 1, schema.n_domains - 1, schema.n_users
        out = priors.item_prior(schema, self.rank) | priors.population_prior(self.rank, self.map_prior.discrepancy)
        if self.source is None:
            bias = half_t(SOURCE_BIAS_SCALE, shape=(n_sources,))
            out["source_bias_scale"] = pyro.sample("source_bias_scale", bias)
            scale = _source_scale(out, size).unsqueeze(-2).expand(out["source_bias_scale"].shape + (n_users, size))
            out["source_vector"] = pyro.sample("source_vector", dist.Normal(torch.zeros_like(scale), scale).to_event(3))
        else:
            out["source_vector"] = pyro.sample(
                "source_vector", sequential.distribution(self.source, schema.user_ids, n_users)
            )
        out |= self.map_prior.sample(n_sources)
        if self.gate:
            off, on = (torch.full((n_sources,), c) for c in self.gate_prior)
            out["gate"] = pyro.sample("gate", dist.Beta(off, on).to_event(1))
        out["user_vector"] = pyro.sample("user_vector", self._users(out, n_sources))
        return out | self.likelihood.prior(schema)

    def _users(self, latents: Latents, n_sources: int) -> dist.TorchDistribution:
        """Distribution of the target's users given their source vectors, gates summed out."""
        phi, maps, size = latents["source_vector"], self._maps(latents), self.rank + 1
        shift = torch.einsum("...kij,...kuj->...kui", maps, phi)
        spread = (maps * _source_scale(latents, size).unsqueeze(-2).square()) @ maps.mT
        locs, covs, chances = [], [], []
        for on in self._configurations(n_sources):
            gates = torch.tensor(on, dtype=phi.dtype)
            locs.append(latents["user_mean"].unsqueeze(-2) + torch.einsum("k,...kui->...ui", gates, shift))
            covs.append(latents["user_cov"] + torch.einsum("k,...kij->...ij", 1.0 - gates, spread))
            if self.gate:
                off = latents["gate"]
                chances.append((gates * (1.0 - off) + (1.0 - gates) * off).prod(-1))
            else:
                chances.append(torch.ones(phi.shape[:-3], dtype=phi.dtype))
        return gated_normal(torch.stack(locs, -2), torch.stack(covs, -3).unsqueeze(-4), torch.stack(chances, -1))

    def _configurations(self, n_sources: int) -> list[tuple[int, ...]]:
        """All combinations of gates, 1 for on."""
        return list(product((1, 0), repeat=n_sources)) if self.gate else [(1,) * n_sources]

    def vectors(self, latents: Latents, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors of the rows' users, in the domain of the row, and items."""
        n_users = latents["user_vector"].shape[-2]
        rows = self.raters(latents).index_select(-2, batch.domain * n_users + batch.user)
        return rows, latents["item_vector"].index_select(-2, batch.item)

    def raters(self, latents: Latents) -> Tensor:
        """Vectors of all users in all domains, (..., domain * user, R)."""
        return torch.cat([latents["source_vector"], latents["user_vector"].unsqueeze(-3)], -3).flatten(-3, -2)

    def rater_index(self, table: Table) -> np.ndarray:
        """Row of ``raters`` that each rating belongs to, in item order."""
        return table.item_cell

    def population(self, latents: Latents) -> Population:
        """The prior of a user and of an item without ratings, in each domain."""
        size = self.rank + 1
        prior_var = _source_scale(latents, size).square()
        source = torch.diag_embed(prior_var)
        target = self._population_cov(latents).unsqueeze(-3)
        return Population(
            user={"user_vector": latents["user_mean"], "source_vector": torch.zeros_like(prior_var)}
            | self.likelihood.unknown_user(latents),
            item={"item_vector": latents["item_mean"]},
            user_cov=torch.cat([source, target], -3),
            item_var=latents["item_scale"].square(),
        )

    def _population_cov(self, latents: Latents) -> Tensor:
        """V_pop = sum_k W_k S0_k W_k' + Sigma, (..., R, R)."""
        maps = self._maps(latents)
        scale = _source_scale(latents, self.rank + 1).unsqueeze(-2)
        return ((maps * scale.square()) @ maps.mT).sum(-3) + latents["user_cov"]

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Small random vectors, a map near the identity, gates on."""
        size, n_sources = self.rank + 1, table.n_domains - 1
        phi = 0.3 * rng.standard_normal((n_sources, table.n_users, size))
        state = {
            "user_vector": 0.3 * rng.standard_normal((table.n_users, size)),
            "user_mean": np.zeros(size),
            "user_cov": 0.3 * np.eye(size),
            "source_vector": phi,
            "gate": np.full(n_sources, 0.2),
            "phi_used": phi.copy(),
            "on": np.ones((n_sources, table.n_users), dtype=bool),
        }
        if self.source is None:
            state["source_bias_scale"] = np.full(n_sources, 0.5)
        state |= self.map_prior.start(n_sources)
        return priors.item_start(table, self.rank, rng) | self.likelihood.start(table, rng) | state

    def blocks(self, table: Table) -> list[Block]:
        """Noise, populations, map and gates' rates first; then users in all domains at once; then items."""
        rank, likelihood = self.rank, self.likelihood
        size, n_sources, n_users = rank + 1, table.n_domains - 1, table.n_users
        in_target = table.count[-1] > 0
        given = sequential.given(self.source, table.user_ids, n_users)
        in_source = sequential.known(table, given)
        maps_prior = self.map_prior
        prior_mean_precision = 1.0 / priors.mean_scale(rank)[None] ** 2
        used_entries = self._used()
        intercept = np.ones((1, size), dtype=bool)
        free = np.concatenate([intercept, np.tile(used_entries.T, (n_sources, 1))])

        def users(state: State, rng: np.random.Generator) -> State:
            value, weight = likelihood.working(state, table, "user")
            scale = np.ones((n_sources, size))
            scale[:, 0] = state.get("source_bias_scale", 1.0)
            off = state["gate"] if self.gate else np.zeros(n_sources)
            on = state.get("on", np.ones((n_sources, n_users), dtype=bool))
            return conjugate.transfer_rows(
                table, value, weight, state["item_vector"], scale, state["user_mean"], state["user_cov"],
                self._state_maps(state, n_sources), off, on, self.gate, rng, given,
            )  # fmt: skip

        def stacked(state: State) -> np.ndarray:
            return np.concatenate([state["source_vector"], state["user_vector"][None]]).reshape(-1, size)

        def population(state: State, rng: np.random.Generator) -> State:
            # Users without target rows are leaves of this regression: nothing is known of their theta but its prior.
            used = state["phi_used"][:, in_target]
            columns, spread = [np.ones((in_target.sum(), 1))], [prior_mean_precision]
            response = state["user_vector"][in_target]
            if maps_prior.dims:
                columns, sd = [*columns, *used], maps_prior.sd(state)
                spread += [1.0 / np.maximum(one, 1e-100).T ** 2 for one in sd]
            else:
                response = response - (used * used_entries.diagonal()).sum(0)
            design = np.concatenate(columns, axis=1)
            coefficients = conjugate.regression(
                design, response, state["user_cov"], np.concatenate(spread), rng, free[: design.shape[1]]
            )
            residual = response - design @ coefficients
            scale = maps_prior.discrepancy * priors.user_scale(rank)
            cov = conjugate.huang_wand_covariance(state["user_cov"], residual.T @ residual, len(residual), scale, rng)
            out = {"user_mean": coefficients[0], "user_cov": cov}
            if not maps_prior.dims:
                return out
            maps = coefficients[1:].reshape(n_sources, size, size).transpose(0, 2, 1)
            if not used_entries.all():
                maps = np.where(used_entries, maps, sd * rng.standard_normal(maps.shape))
            return out | {"map": np.ascontiguousarray(maps)}

        def source_bias(state: State, rng: np.random.Generator) -> State:
            copies = in_target & ~(state["on"] & in_source)
            bias = np.where(in_source, state["source_vector"][..., 0], 0.0) ** 2
            copy = np.where(copies, state["phi_used"][..., 0], 0.0) ** 2
            n = in_source.sum(1) + copies.sum(1)
            squares = bias.sum(1) + copy.sum(1)
            scale = conjugate.half_t_scale(state["source_bias_scale"], squares, n, SOURCE_BIAS_SCALE, rng)
            return {"source_bias_scale": scale}

        def gates(state: State, rng: np.random.Generator) -> State:
            both = in_source & in_target
            on = (state["on"] & both).sum(1)
            return {"gate": conjugate.bernoulli_rate(both.sum(1) - on, on, self.gate_prior, rng)}

        items, item_population = priors.item_blocks(table, rank, likelihood, stacked, self.rater_index(table))
        vectors = ("source_vector", "user_vector", "item_vector")
        errors = remembered(lambda state: self.squared_errors(state, table), vectors)
        noise = likelihood.blocks(table, errors)
        scales = tuple(name for name in maps_prior.dims if name != "map")
        # Populations before members: a kept draw's users and items without rows belong to its populations.
        return [
            *(block for block in noise if not block.local),
            item_population,
            Block("map", ("user_mean", "user_cov", *(("map",) if maps_prior.dims else ())), population),
            *([Block("map_scale", scales, maps_prior.update)] if scales else []),
            *([Block("source_bias", ("source_bias_scale",), source_bias)] if self.source is None else []),
            *([Block("gate", ("gate",), gates)] if self.gate else []),
            Block("users", ("source_vector", "user_vector"), users, local=True),
            items,
            *(block for block in noise if block.local),
        ]

    def leaves(self, table: Table) -> dict[str, np.ndarray]:
        """Users without target rows, and source vectors of users who are silent there and in the target."""
        silent = table.count == 0
        own = {"user_vector": silent[-1], "source_vector": silent[:-1] & silent[-1]}
        return super().leaves(table) | own

    def squared_errors(self, state: State, table: Table) -> np.ndarray:
        """Sum of squared residuals of each user in each domain, (domain, user)."""
        rows = (
            np.concatenate([state["source_vector"], state["user_vector"][None]])
            .transpose(1, 0, 2)
            .reshape(-1, self.rank + 1)
        )
        out = conjugate.row_squared_errors(
            table.user_ptr,
            table.user_item,
            table.user_value,
            state["item_vector"],
            np.ascontiguousarray(rows),
            table.workers,
        )
        return out.reshape(table.n_users, table.n_domains).T

    def prior_precision(self, state: State, table: Table) -> Informants:
        """Population and source precisions for each configuration of the gates, and how probable each is."""
        size, n_sources, n_users = self.rank + 1, table.n_domains - 1, table.n_users
        value, weight = self.likelihood.working(state, table, "user")
        gram, linear = conjugate.row_grams(table.user_ptr, table.user_item, value, weight, state["item_vector"])
        gram = gram.reshape(n_users, table.n_domains, size, size)
        linear = linear.reshape(n_users, table.n_domains, size)
        given = sequential.given(self.source, table.user_ids, n_users)
        if given is not None:
            gram[:, :-1] += given[0].swapaxes(0, 1)
            linear[:, :-1] += given[1].swapaxes(0, 1)
        scale = np.ones((n_sources, size))
        scale[:, 0] = state.get("source_bias_scale", 1.0)
        return informants(
            state, self._state_maps(state, n_sources), scale, gram, linear, sequential.known(table, given),
            self._configurations(n_sources), self.gate,
        )  # fmt: skip

    def identified(self, latents: Latents) -> dict[str, Any]:
        """Noise, spreads, gates and the share of the target's variance that each map could explain."""
        v_pop = self._population_cov(latents)
        moment = priors.second_moment(latents)
        maps, scale = self._maps(latents), _source_scale(latents, self.rank + 1).unsqueeze(-2)
        explained = (((maps * scale.square()) @ maps.mT) * moment.unsqueeze(-3)).sum((-1, -2))
        out = super().identified(latents) | priors.spreads(latents, v_pop)
        out["map_r2"] = explained / (v_pop * moment).sum((-1, -2)).unsqueeze(-1)
        return out | ({"gate": latents["gate"]} if self.gate else {})


def _source_scale(latents: Latents, size: int) -> Tensor:
    """Sds of S0: the bias's own, one for the factors, whose unit the source items carry: (..., source, R).

    A source prior is whitened: there the bias's is one too.
    """
    if "source_bias_scale" not in latents:
        return torch.ones(latents["user_mean"].shape[:-1] + (1, size), dtype=latents["user_mean"].dtype)
    bias = latents["source_bias_scale"].unsqueeze(-1)
    return torch.cat([bias, torch.ones(bias.shape[:-1] + (size - 1,), dtype=bias.dtype)], -1)


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0.0 < value < np.inf:
        raise DataError(f"{name} must be above 0, not {value!r}")
    return float(value)
