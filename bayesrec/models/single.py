"""What PMF and CollectiveMF have in common: one vector a user, whatever the domain. Internal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
from pyro.distributions import MultivariateNormal
from torch import Tensor

from bayesrec import conjugate
from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.likelihoods import Latents
from bayesrec.linear_maps import without_shift
from bayesrec.models import features, priors
from bayesrec.models.base import Batch, Model, Population, Schema

__all__ = ["SingleVector"]


@dataclass(frozen=True)
class SingleVector(Model):
    """Each user is one vector ``(b, p)``, drawn from one population. Abstract."""

    @property
    def latent_dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of the model's own sites."""
        maps = features.ITEM_MAP | features.USER_MAP if self.features else {}
        return priors.ITEM_DIMS | priors.POPULATION_DIMS | {"user_vector": ("user", "latent_component")} | maps

    def prior(self, schema: Schema) -> Latents:
        """Sample items, the population, the users and the likelihood's latents."""
        out = priors.item_prior(schema, self.rank, self.features) | priors.population_prior(self.rank)
        if self.features:
            out |= features.map_prior("user", priors.user_scale(self.rank), schema.user_x)
        mean, cov = features.user_loc(out, schema.user_x), out["user_cov"].unsqueeze(-3)
        shape = mean.shape[:-2] + (schema.n_users,)
        out["user_vector"] = pyro.sample(
            "user_vector", MultivariateNormal(mean, covariance_matrix=cov).expand(shape).to_event(1)
        )
        return out | self.likelihood.prior(schema)

    def vectors(self, latents: Latents, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors of the rows' users and items."""
        return latents["user_vector"].index_select(-2, batch.user), latents["item_vector"].index_select(-2, batch.item)

    def raters(self, latents: Latents) -> Tensor:
        """Vectors of the users, (..., user, R)."""
        return latents["user_vector"]

    def rater_index(self, table: Table) -> np.ndarray:
        """User of each rating, in item order."""
        return table.item_user

    def population(self, latents: Latents, schema: Schema | None) -> Population:
        """The prior of a user and of an item without ratings."""
        mean, cov = self.new_user_mean(latents), latents["user_cov"] + features.unknown_user_cov(latents, schema)
        n_domains = latents["item_mean"].shape[-2]
        return Population(
            user={"user_vector": mean} | self.likelihood.unknown_user(latents),
            item={"item_vector": latents["item_mean"]} | self.likelihood.unknown_item(latents),
            user_cov=cov.unsqueeze(-3).expand(cov.shape[:-2] + (n_domains,) + cov.shape[-2:]),
            item_cov=features.unknown_item_cov(latents, schema),
        )

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Small random vectors."""
        size = self.rank + 1
        return (
            priors.item_start(table, self.rank, rng, self.features)
            | self.likelihood.start(table, rng)
            | (features.start("user", priors.user_scale(self.rank), table.user_x) if self.features else {})
            | {
                "user_vector": 0.3 * rng.standard_normal((table.n_users, size)),
                "user_mean": np.zeros(size),
                "user_cov": 0.3 * np.eye(size),
            }
        )

    def blocks(self, table: Table) -> list[Block]:
        """Noise and populations first, then users and items."""
        rank, likelihood = self.rank, self.likelihood
        pointers = np.ascontiguousarray(table.user_ptr[:: table.n_domains])
        one_group = np.zeros(table.n_users, dtype=np.int64)
        present = likelihood.present(table)
        active, seen = table.count.sum(0) > 0, np.ascontiguousarray(present.T)
        prior_precision = np.diag(1.0 / priors.mean_scale(rank) ** 2)

        def users(state: State, rng: np.random.Generator) -> State:
            value, weight = likelihood.working(state, table, "user")
            shift = features.user_shift(state, table)
            if shift is not None:
                value = without_shift(pointers, table.user_item, value, state["item_vector"], shift, table.workers)
            mean, precision = state["user_mean"][None], np.linalg.inv(state["user_cov"])[None]
            out = priors.drawn(
                pointers,
                table.user_item,
                value,
                weight,
                state["item_vector"],
                one_group,
                mean,
                precision,
                rng,
                "users",
                table.workers,
                rest=likelihood.everywhere(state, table, state["item_vector"]),
                seen=seen,
            )
            return {"user_vector": out if shift is None else out + shift}

        def population(state: State, rng: np.random.Generator) -> State:
            # Users without ratings are leaves: they are drawn from the population and do not inform it.
            shift = features.user_shift(state, table)
            rows = state["user_vector"][active] - (0.0 if shift is None else shift[active])
            design = np.ones((len(rows), 1))
            mean = conjugate.regression(design, rows, state["user_cov"], prior_precision.diagonal()[None], rng)[0]
            residual = rows - mean
            cov = conjugate.huang_wand_covariance(
                state["user_cov"], residual.T @ residual, len(rows), priors.user_scale(rank), rng
            )
            return {"user_mean": mean, "user_cov": cov}

        items, item_populations = priors.item_blocks(
            table, rank, likelihood, lambda state: state["user_vector"], self.rater_index(table), self.features,
            raters_of=[np.flatnonzero(here) for here in present],
        )  # fmt: skip
        maps = []
        if self.features:
            scales = priors.user_scale(rank), priors.mean_scale(rank)
            maps = [features.user_map_block(lambda s: s["user_vector"][active], table.user_x[active], *scales)]
        noise = likelihood.blocks(table, self.fitted(table))
        # Populations before members: a kept draw's users and items without rows belong to its populations.
        return [
            *(block for block in noise if not block.local),
            *item_populations,
            *maps,
            Block("user_population", ("user_mean", "user_cov"), population),
            Block("users", ("user_vector",), users, local=True),
            items,
            *(block for block in noise if block.local),
        ]

    def leaves(self, table: Table) -> dict[str, np.ndarray]:
        """Users without rows."""
        return super().leaves(table) | {"user_vector": (table.count == 0).all(0)}

    def cell_vectors(self, state: State, table: Table) -> np.ndarray:
        """The user's vector once for each domain, (user * domain, R)."""
        return np.repeat(state["user_vector"], table.n_domains, axis=0)

    def identified(self, latents: Latents) -> dict[str, Any]:
        """Noise, spreads of biases and of the personal part of a prediction."""
        return super().identified(latents) | priors.spreads(latents, latents["user_cov"])
