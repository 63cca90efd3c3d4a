"""Domains without a shared user: what TransferMF(link="distribution") learns from one about another. Internal.

Every domain has users, items and factors of its own. What carries over is how large things are: the spreads of a domain's
users and items scatter around common ones, and how closely they do is learned, for users and for items apart, as a
*tie* between 0 (no closer than the half-t priors of a model of one domain) and 1 (a hundred times the degrees of freedom).
In the spirit of Iwata and Takeuchi (2015), whose domains have one distribution of vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.special import gammaln, multigammaln
from torch import Tensor

from bayesrec import conjugate
from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.data.ids import shown
from bayesrec.distributions import AroundDiagonal
from bayesrec.errors import DataError
from bayesrec.likelihoods import Latents, Likelihood
from bayesrec.models import features, priors
from bayesrec.models.base import Informants, Population, Schema

__all__ = ["DIMS", "blocks", "check", "identified", "population", "prior", "prior_precision", "start"]

LEAST_USER_DOF, LEAST_ITEM_DOF = 2.0, 3.0  # those of the half-t priors of a model of one domain
TIED = 100.0  # factor on them at a tie of 1
DIMS = {
    "common_item_scale": ("latent_component",),
    "item_tie": (),
    **priors.ITEM_DIMS,
    "common_user_scale": ("latent_component",),
    "user_tie": (),
    **priors.POPULATION_DIMS,
    "source_mean": ("source", "latent_component"),
    "source_cov": ("source", "latent_component", "latent_component_bis"),
    "source_vector": ("source", "user", "latent_component"),
    "user_vector": ("user", "latent_component"),
}


def check(data: Interactions) -> None:
    """Refuse data whose target shares users with a source."""
    both = np.intersect1d(data.user[data.is_target], data.user[~data.is_target])
    if both.size:
        raise DataError(
            f"link='distribution' is for domains without shared {data.entity}s, and {both.size} {data.entity}s have rows both "
            f"in the target {data.target!r} and in a source (the first: {shown(data.users.decode(both[:1])[0])}). Leave link "
            f"out: the default knows that they are the same {data.entity}s."
        )


def prior(rank: int, schema: Schema) -> Latents:
    """Sample items, populations and users of all domains (Pyro)."""
    size, n_domains, n_users = rank + 1, schema.n_domains, schema.n_users
    out: Latents = {}

    def common(side: str, scale: np.ndarray, least: float) -> tuple[Tensor, Tensor]:
        name, tie = f"common_{side}_scale", f"{side}_tie"
        out[name] = pyro.sample(name, dist.HalfNormal(priors.tensor(scale)).to_event(1))
        out[tie] = pyro.sample(tie, dist.Uniform(torch.zeros(()), torch.ones(())))
        return out[name], least * TIED ** out[tie]

    scale, dof = common("item", priors.item_scale(rank), LEAST_ITEM_DOF)
    spread = priors.tensor(priors.mean_scale(rank))
    out["item_mean"] = pyro.sample("item_mean", _normal(spread.expand(n_domains, size)))
    half = (0.5 * dof)[..., None, None]
    rate = (half * scale.square().unsqueeze(-2)).expand(scale.shape[:-1] + (n_domains, size))
    variance = dist.InverseGamma(half.expand(rate.shape), rate)
    root = dist.transforms.PowerTransform(torch.tensor(0.5))
    out["item_scale"] = pyro.sample("item_scale", dist.TransformedDistribution(variance, [root]).to_event(2))
    loc, sd = (out[name][..., schema.item_domain, :] for name in ("item_mean", "item_scale"))
    out["item_vector"] = pyro.sample("item_vector", dist.Normal(loc, sd).to_event(2))

    scale, dof = common("user", priors.user_scale(rank), LEAST_USER_DOF)
    out["user_mean"] = pyro.sample("user_mean", _normal(spread))
    out["user_cov"] = pyro.sample("user_cov", AroundDiagonal(scale, dof))
    out["source_mean"] = pyro.sample("source_mean", _normal(spread.expand(n_domains - 1, size)))
    around = AroundDiagonal(scale.unsqueeze(-2), dof.unsqueeze(-1))
    around = around.expand(dof.shape + (n_domains - 1,))
    out["source_cov"] = pyro.sample("source_cov", around.to_event(1))
    for side in ("source", "user"):
        mean, cov = out[f"{side}_mean"].unsqueeze(-2), out[f"{side}_cov"].unsqueeze(-3)
        rows = dist.MultivariateNormal(mean, covariance_matrix=cov).expand(mean.shape[:-2] + (n_users,))
        out[f"{side}_vector"] = pyro.sample(f"{side}_vector", rows.to_event(2 if side == "source" else 1))
    return out


def _normal(spread: Tensor) -> dist.TorchDistribution:
    return dist.Normal(torch.zeros_like(spread), spread).to_event(spread.dim())


def population(latents: Latents, likelihood: Likelihood, schema: Schema | None) -> Population:
    """The prior of a user and of an item without ratings, in each domain."""
    return Population(
        user={"user_vector": latents["user_mean"], "source_vector": latents["source_mean"]}
        | likelihood.unknown_user(latents),
        item={"item_vector": latents["item_mean"]} | likelihood.unknown_item(latents),
        user_cov=torch.cat([latents["source_cov"], latents["user_cov"].unsqueeze(-3)], -3),
        item_cov=features.unknown_item_cov(latents, schema),
    )


def start(rank: int, table: Table, rng: np.random.Generator) -> State:
    """Small random vectors, loose ties."""
    size, n_sources = rank + 1, table.n_domains - 1
    return priors.item_start(table, rank, rng) | {
        "common_item_scale": priors.item_scale(rank),
        "item_tie": np.float64(0.3),
        "common_user_scale": priors.user_scale(rank),
        "user_tie": np.float64(0.3),
        "user_mean": np.zeros(size),
        "user_cov": 0.3 * np.eye(size),
        "source_mean": np.zeros((n_sources, size)),
        "source_cov": np.tile(0.3 * np.eye(size), (n_sources, 1, 1)),
        "source_vector": 0.3 * rng.standard_normal((n_sources, table.n_users, size)),
        "user_vector": 0.3 * rng.standard_normal((table.n_users, size)),
    }


def blocks(model: Any, table: Table) -> list[Block]:
    """Noise and populations first; then users of all domains; then items."""
    rank, likelihood = model.rank, model.likelihood
    size, n_domains, n_users = rank + 1, table.n_domains, table.n_users
    seen = table.count > 0
    domain = np.tile(np.arange(n_domains), n_users)
    own = seen.T.reshape(-1, 1) & (domain[:, None] == np.arange(n_domains))
    mean_precision = 1.0 / priors.mean_scale(rank)[None] ** 2
    members = [np.flatnonzero(table.rated & (table.item_domain == d)) for d in range(n_domains)]

    def stacked(state: State) -> np.ndarray:
        return np.concatenate([state["source_vector"], state["user_vector"][None]]).reshape(-1, size)

    def users(state: State, rng: np.random.Generator) -> State:
        value, weight = likelihood.working(state, table, "user")
        mean = np.concatenate([state["source_mean"], state["user_mean"][None]])
        cov = np.concatenate([state["source_cov"], state["user_cov"][None]])
        rows = priors.drawn(
            table.user_ptr, table.user_item, value, weight, state["item_vector"], domain, mean, np.linalg.inv(cov), rng,
            "users", table.workers, rest=likelihood.everywhere(state, table, state["item_vector"]), seen=own,
        )  # fmt: skip
        rows = np.ascontiguousarray(rows.reshape(n_users, n_domains, size).transpose(1, 0, 2))
        return {"source_vector": rows[:-1], "user_vector": rows[-1]}

    def user_populations(state: State, rng: np.random.Generator) -> State:
        everybody = stacked(state).reshape(n_domains, n_users, size)
        means, scatters = np.empty((n_domains, size)), np.empty((n_domains, size, size))
        for d, cov in enumerate([*state["source_cov"], state["user_cov"]]):
            rows = everybody[d, seen[d]]
            means[d] = conjugate.regression(np.ones((len(rows), 1)), rows, cov, mean_precision, rng)[0]
            scatters[d] = (rows - means[d]).T @ (rows - means[d])
        common, n = state["common_user_scale"], seen.sum(1)
        tie = conjugate.unit_slice(
            lambda t: _user_evidence(LEAST_USER_DOF * TIED**t, common, scatters, n), state["user_tie"], rng
        )
        dof, covs = LEAST_USER_DOF * TIED**tie, np.empty_like(scatters)
        for d in range(n_domains):
            scale = np.linalg.inv(dof * np.diag(common**2) + scatters[d])
            cov = np.linalg.inv(conjugate.wishart(dof + size - 1.0 + n[d], 0.5 * (scale + scale.T), rng))
            covs[d] = 0.5 * (cov + cov.T)
        precision = np.diagonal(np.linalg.inv(covs), axis1=1, axis2=2).sum(0)
        common = _common_scale(dof + size - 1.0, dof * precision, n_domains, priors.user_scale(rank), rng)
        out = {"user_tie": tie, "common_user_scale": common, "user_mean": means[-1], "user_cov": covs[-1]}
        return out | {"source_mean": means[:-1], "source_cov": covs[:-1]}

    def item_populations(state: State, rng: np.random.Generator) -> State:
        means, squares = np.empty((n_domains, size)), np.empty((n_domains, size))
        for d, codes in enumerate(members):
            rows = state["item_vector"][codes]
            means[d] = conjugate.normal_mean(rows, state["item_scale"][d], priors.mean_scale(rank), rng)
            squares[d] = ((rows - means[d]) ** 2).sum(0)
        common, n = state["common_item_scale"], np.array([[len(codes)] for codes in members])
        tie = conjugate.unit_slice(
            lambda t: _item_evidence(LEAST_ITEM_DOF * TIED**t, common, squares, n), state["item_tie"], rng
        )
        dof = LEAST_ITEM_DOF * TIED**tie
        scale = np.sqrt(0.5 * (dof * common**2 + squares) / rng.gamma(0.5 * (dof + n), size=squares.shape))
        common = _common_scale(dof, dof * (scale**-2.0).sum(0), n_domains, priors.item_scale(rank), rng)
        return {"item_mean": means, "item_tie": tie, "item_scale": scale, "common_item_scale": common}

    items, _ = priors.item_blocks(
        table, rank, likelihood, stacked, model.rater_index(table), raters_of=priors.stacked(seen)
    )
    noise = likelihood.blocks(table, model.fitted(table))
    ties = ("user_tie", "common_user_scale", "user_mean", "user_cov", "source_mean", "source_cov")
    # Populations before members: a kept draw's users and items without rows belong to its populations.
    return [
        *(block for block in noise if not block.local),
        Block("item_populations", ("item_mean", "item_tie", "item_scale", "common_item_scale"), item_populations),
        Block("user_populations", ties, user_populations),
        Block("users", ("source_vector", "user_vector"), users, local=True),
        items,
        *(block for block in noise if block.local),
    ]


def _user_evidence(dof: float, common: np.ndarray, scatter: np.ndarray, n: np.ndarray) -> float:
    """Log density of centred normal rows with these scatter matrices (domain, R, R), covariances integrated out."""
    size = len(common)
    prior_dof, base = dof + size - 1.0, dof * np.diag(common**2)
    before, after = np.linalg.slogdet(base)[1], np.linalg.slogdet(base + scatter)[1]
    gamma = multigammaln(0.5 * (prior_dof + n), size) - multigammaln(0.5 * prior_dof, size)
    return float((0.5 * prior_dof * before - 0.5 * (prior_dof + n) * after + gamma).sum())


def _item_evidence(dof: float, common: np.ndarray, squares: np.ndarray, n: np.ndarray) -> float:
    """Log density of centred normals with these sums of squares (domain, R), scales integrated out."""
    base = 0.5 * dof * common**2
    shape = 0.5 * (dof + n)
    return float(
        (0.5 * dof * np.log(base) - shape * np.log(base + 0.5 * squares) + gammaln(shape) - gammaln(0.5 * dof)).sum()
    )


def _common_scale(dof: float, precision: np.ndarray, n: int, scale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw half-normal scales (R,) of ``n`` inverse-gamma or inverse Wishart variances with ``dof`` degrees of freedom."""
    rate = 0.5 * (precision + scale**-2.0)
    return np.sqrt(rng.gamma(0.5 * (n * dof + 1.0), size=len(scale)) / rate)


def prior_precision(state: State, table: Table) -> Informants:
    """Nothing of a user's own comes from another domain: the source has shaped the population alone."""
    precision = np.linalg.inv(state["user_cov"])
    everybody = np.broadcast_to(precision, (table.n_users, *precision.shape))
    mean = np.broadcast_to(state["user_mean"], (table.n_users, len(precision)))
    return Informants(
        probability=np.ones((1, table.n_users)),
        before=np.ones((1, table.n_users)),
        population=everybody,
        source=np.zeros((1, *everybody.shape)),
        population_mean=mean,
        mean=mean[None],
        relevance=np.full((table.n_domains - 1, table.n_users), np.nan),
    )


def identified(latents: Latents) -> Latents:
    """Spreads of the target and the ties."""
    spreads = priors.spreads(latents, latents["user_cov"])
    return spreads | {name: latents[name] for name in ("user_tie", "item_tie")}
