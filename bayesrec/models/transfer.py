"""TransferMF: a prior for the target's user vectors that a gate opens to the source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.data.silent import with_silent_source, with_users
from bayesrec.distributions import gated_normal, half_t
from bayesrec.errors import DataError
from bayesrec.likelihoods import Latents
from bayesrec.models import features, populations, priors, sequential, transfer_blocks, transfer_options
from bayesrec.models.base import Batch, Informants, Model, Population, Schema
from bayesrec.models.discrepancy import Discrepancy
from bayesrec.models.gates import informants, source_precision
from bayesrec.models.maps import MapPrior
from bayesrec.models.transfer_blocks import SOURCE_BIAS_SCALE
from bayesrec.sources import SourcePrior

__all__ = ["TransferMF"]


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
    features : bool
        Whether the prior means of users and items depend on their features: docs/models/side_information.md.
    activity : bool
        Whether users who have not rated in the target are taken for the user of a random rating there, not for a random
        person: docs/models/pmf.md.
    gate : bool
        False trusts every source for every user.
    transfers : {"all", "biases", "factors"}
        What the map may carry: everything, only a user's bias to their bias, or only factors to factors. The entries
        that are left out take no part, and their draws are those of their prior.

    prior_family : {"normal", "ard", "horseshoe", "commensurate", "commensurate_spike_slab", "commensurate_horseshoe"}
        What the source is shrunk to. The first three shrink a free map to zero, no transfer: with a scale for each part of
        the map, for each source component, or for each entry. The commensurate ones have no map: ``theta_u = m + phi_u +
        eps``, and ``eps`` is shrunk to zero, pooling: with one scale (Hobbs et al. 2011), with a narrow or a wide one for
        each component (Hobbs et al. 2012), or with half-Cauchy scales.
    shrinkage : float
        Multiplies the scales of that prior; below 1 shrinks more.
    gate_prior : tuple of float
        Beta prior (irrelevant, relevant) of the share of users for whom a source is irrelevant.
    source : SourcePrior, optional
        What a source posterior says of each user, from ``posterior.as_prior("user")``, in the place of source ratings: the
        sequential mode. Only target rows are fitted, no raw source rating is needed, and the users of the prior are known.

    link : {"users", "distribution"}
        What the domains share. "users" is all of the above. With "distribution" no user is shared, and the target learns from
        the sources how much users, items and factors vary, as closely as the data tie the domains (after Iwata and Takeuchi
        2015); it learns nothing about single users or items, and the other options keep their defaults.

    power : float
        From 0 to 1: the power to which the density of every source rating is raised, as if it counted for so many ratings
        (Ibrahim and Chen 2000). 0 leaves the source rows out. ``br.choose_power`` chooses it on held-out users.

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
    link: str = "users"
    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        transfer_options.check(self)

    def exponents(self, n_domains: int) -> np.ndarray | None:
        """The power for each source, 1 for the target; None where it is 1."""
        return None if self.power in (0.0, 1.0) else np.append(np.full(n_domains - 1, self.power), 1.0)

    def _powered(self, table: Table) -> Table:
        powers = self.exponents(table.n_domains)
        return table if table.weight is not None or powers is None else replace(table, weight=powers)

    @property
    def _apart(self) -> bool:
        """Whether the domains have no user in common."""
        return self.link == "distribution"

    @property
    def map_prior(self) -> MapPrior:
        """The prior of the maps."""
        return MapPrior(self.prior_family, self.rank, self.shrinkage)

    @property
    def discrepancy(self) -> Discrepancy:
        """The prior of what the sources leave open."""
        return Discrepancy(self.prior_family, self.rank, self.shrinkage)

    def used(self) -> np.ndarray:
        """Which entries of a map take part, bool (R, R)."""
        return np.array(transfer_options.PARTS[self.transfers])[self.map_prior.parts]

    def _maps(self, latents: Latents) -> Tensor:
        """The maps with zeros where an entry takes no part, (..., source, R, R)."""
        used = torch.as_tensor(self.used(), device=latents["user_mean"].device)
        if "map" in latents:
            return latents["map"] * used.to(latents["map"].dtype)
        return (used & torch.eye(self.rank + 1, dtype=torch.bool)).to(latents["user_mean"].dtype).unsqueeze(-3)

    def state_maps(self, state: State, n_sources: int) -> np.ndarray:
        """The same of a state, (source, R, R)."""
        size = self.rank + 1
        return state.get("map", np.tile(np.eye(size), (n_sources, 1, 1))) * self.used()

    def view(self, data: Interactions) -> Interactions:
        """Return the data; without source rows at power 0; with a source prior the target rows and all its users."""
        if self.power == 0.0:
            data = data.mask(data.is_target)
        if self.source is None:
            return self.with_features(data)
        data = self.with_features(with_users(data, self.source.users))
        return with_silent_source(data, self.source.name, self.source.users)

    @property
    def latent_dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of the model's own sites."""
        if self._apart:
            return populations.DIMS
        return (
            priors.ITEM_DIMS
            | priors.POPULATION_DIMS
            | ({} if self.source is not None else {"source_bias_scale": ("source",)})
            | {"source_vector": ("source", "user", "latent_component"), "user_vector": ("user", "latent_component")}
            | self.map_prior.dims
            | self.discrepancy.dims
            | ({"gate": ("source",)} if self.gate else {})
            | (features.ITEM_MAP | features.USER_MAP if self.features else {})
        )

    def check(self, data: Interactions) -> None:
        """Refuse data without a source or without shared users."""
        super().check(data)
        if self.source is not None:
            return sequential.check(self.source, data)
        if self.power == 0.0:
            return None
        if data.is_target.all():
            raise DataError(
                f"TransferMF needs source rows: every row belongs to the target {data.target!r}. "
                "Add a domain, or use PMF for the target alone."
            )
        if self._apart:
            return populations.check(data)
        if not np.intersect1d(data.user[data.is_target], data.user[~data.is_target]).size:
            raise DataError(
                f"no {data.entity} has rows both in the target {data.target!r} and in a source {list(data.sources)}: "
                f"nothing can be learned about how the source bears on the target. Do the ids mean the same {data.entity}s? If "
                f"no {data.entity} is shared, link='distribution' learns from the source how much {data.entity}s vary."
            )

    def prior(self, schema: Schema) -> Latents:
        """Sample items, sources, maps, gates, the target's users and the likelihood's latents."""
        if self._apart:
            return populations.prior(self.rank, schema) | self.likelihood.prior(schema)
        size, n_sources, n_users = self.rank + 1, schema.n_domains - 1, schema.n_users
        out = priors.item_prior(schema, self.rank, self.features) | priors.user_mean_prior(self.rank)
        out |= self.discrepancy.sample()
        if self.features:
            out |= features.map_prior("user", priors.user_scale(self.rank), schema.user_x)
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
        out["user_vector"] = pyro.sample("user_vector", self._users(out, schema))
        return out | self.likelihood.prior(schema)

    def _users(self, latents: Latents, schema: Schema) -> dist.TorchDistribution:
        """Distribution of the target's users given their source vectors, gates summed out."""
        phi, maps, size = latents["source_vector"], self._maps(latents), self.rank + 1
        shift = torch.einsum("...kij,...kuj->...kui", maps, phi)
        spread = (maps * _source_scale(latents, size).unsqueeze(-2).square()) @ maps.mT
        locs, covs, chances = [], [], []
        start = features.user_loc(latents, schema.user_x)
        for on in self._configurations(schema.n_domains - 1):
            gates = torch.tensor(on, dtype=phi.dtype)
            locs.append(start + torch.einsum("k,...kui->...ui", gates, shift))
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

    def population(self, latents: Latents, schema: Schema | None) -> Population:
        """The prior of a user and of an item without ratings, in each domain."""
        if self._apart:
            return populations.population(latents | {"user_mean": self.new_user_mean(latents)}, self.likelihood, schema)
        size = self.rank + 1
        prior_var = _source_scale(latents, size).square()
        source = torch.diag_embed(prior_var)
        target = (self._population_cov(latents) + features.unknown_user_cov(latents, schema)).unsqueeze(-3)
        return Population(
            user={"user_vector": self.new_user_mean(latents), "source_vector": torch.zeros_like(prior_var)}
            | self.likelihood.unknown_user(latents),
            item={"item_vector": latents["item_mean"]} | self.likelihood.unknown_item(latents),
            user_cov=torch.cat([source, target], -3),
            item_cov=features.unknown_item_cov(latents, schema),
        )

    def _population_cov(self, latents: Latents) -> Tensor:
        """V_pop = sum_k W_k S0_k W_k' + Sigma, (..., R, R)."""
        maps = self._maps(latents)
        scale = _source_scale(latents, self.rank + 1).unsqueeze(-2)
        return ((maps * scale.square()) @ maps.mT).sum(-3) + latents["user_cov"]

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Small random vectors, a map near the identity, gates on."""
        if self._apart:
            return populations.start(self.rank, table, rng) | self.likelihood.start(table, rng)
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
        state |= self.map_prior.start(n_sources) | self.discrepancy.start()
        if self.features:
            state |= features.start("user", priors.user_scale(self.rank), table.user_x)
        return priors.item_start(table, self.rank, rng, self.features) | self.likelihood.start(table, rng) | state

    def blocks(self, table: Table) -> list[Block]:
        """Noise, populations, map and gates' rates first; then users in all domains at once; then items."""
        return (populations if self._apart else transfer_blocks).blocks(self, self._powered(table))

    def leaves(self, table: Table) -> dict[str, np.ndarray]:
        """Users without target rows, and source vectors of users who are silent there and in the target."""
        silent = ~self.likelihood.present(table)
        own = {"user_vector": silent[-1], "source_vector": silent[:-1] & (silent[-1] | self._apart)}
        return super().leaves(table) | own

    def cell_vectors(self, state: State, table: Table) -> np.ndarray:
        """Vectors of all users in all domains, the target last, (user * domain, R)."""
        rows = np.concatenate([state["source_vector"], state["user_vector"][None]]).transpose(1, 0, 2)
        return np.ascontiguousarray(rows).reshape(-1, self.rank + 1)

    def prior_precision(self, state: State, table: Table) -> Informants:
        """Population and source precisions for each configuration of the gates, and how probable each is."""
        if self._apart:
            return populations.prior_precision(state, table)
        maps, scale, gram, linear, known = self._told(state, table)
        centre = {"user_mean": features.user_means(state, table)}
        configurations = self._configurations(len(maps))
        return informants(state | centre, maps, scale, gram, linear, known, configurations, self.gate)

    def source_precision(self, state: State, table: Table) -> np.ndarray:
        """The part of each source in ``prior_precision(...).source``, (source, component, user, R, R): Shapley's average."""
        if self._apart:
            return populations.prior_precision(state, table).source[None].repeat(table.n_domains - 1, axis=0)
        maps, scale, gram, _, known = self._told(state, table)
        return source_precision(state["user_cov"], maps, scale, gram, known, self._configurations(len(maps)))

    def _told(self, state: State, table: Table) -> tuple[np.ndarray, ...]:
        """Maps, scales of S0, precisions and linear terms of each user's rows by domain, and whom a source knows."""
        size, n_sources, n_users = self.rank + 1, table.n_domains - 1, table.n_users
        gram, linear = self.told(state, self._powered(table))
        given = sequential.given(self.source, table.user_ids, n_users)
        if given is not None:
            gram[:, :-1] += given[0].swapaxes(0, 1)
            linear[:, :-1] += given[1].swapaxes(0, 1)
        scale = np.ones((n_sources, size))
        scale[:, 0] = state.get("source_bias_scale", 1.0)
        return (
            self.state_maps(state, n_sources),
            scale,
            gram,
            linear,
            sequential.known(self.likelihood.present(table), given),
        )

    def identified(self, latents: Latents) -> dict[str, Any]:
        """Noise, spreads, gates and the share of the target's variance that each map could explain."""
        if self._apart:
            return super().identified(latents) | populations.identified(latents)
        v_pop = self._population_cov(latents)
        moment = priors.second_moment(latents)
        maps, scale = self._maps(latents), _source_scale(latents, self.rank + 1).unsqueeze(-2)
        explained = (((maps * scale.square()) @ maps.mT) * moment.unsqueeze(-3)).sum((-1, -2))
        out = super().identified(latents) | priors.spreads(latents, v_pop)
        out["map_r2"] = explained / (v_pop * moment).sum((-1, -2)).unsqueeze(-1)
        return out | self.discrepancy.identified(latents) | ({"gate": latents["gate"]} if self.gate else {})


def _source_scale(latents: Latents, size: int) -> Tensor:
    """Sds of S0: the bias's own, one for the factors, whose unit the source items carry: (..., source, R).

    A source prior is whitened: there the bias's is one too.
    """
    if "source_bias_scale" not in latents:
        return torch.ones(latents["user_mean"].shape[:-1] + (1, size), dtype=latents["user_mean"].dtype)
    bias = latents["source_bias_scale"].unsqueeze(-1)
    return torch.cat([bias, torch.ones(bias.shape[:-1] + (size - 1,), dtype=bias.dtype)], -1)
