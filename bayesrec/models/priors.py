"""Pieces that several models share: items, the population of users, the bilinear score. Internal.

A *component* axis holds the bias first and then the factors, so a user is one vector ``(b, p)`` and an item one
vector ``(c, q)``; the score is ``b + c + p . q``. All scales are in sd units of the ratings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesrec import conjugate, whole
from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.distributions import HuangWand, half_t
from bayesrec.likelihoods import Latents, Likelihood
from bayesrec.linear_maps import without_shift
from bayesrec.models import features

__all__ = [
    "ITEM_DIMS",
    "POPULATION_DIMS",
    "drawn",
    "item_blocks",
    "item_prior",
    "item_start",
    "mean_scale",
    "population_prior",
    "second_moment",
    "spreads",
    "stacked",
    "user_mean_prior",
    "user_scale",
]

ITEM_DIMS = {
    "item_mean": ("domain", "latent_component"),
    "item_scale": ("domain", "latent_component"),
    "item_vector": ("item", "latent_component"),
}
POPULATION_DIMS = {"user_mean": ("latent_component",), "user_cov": ("latent_component", "latent_component_bis")}


def _by_component(bias: float, factor: float, rank: int) -> np.ndarray:
    """Scales (R,); the factors' shrink with the rank, so that the score's prior spread does not grow with it."""
    return np.concatenate([[bias], np.full(rank, factor / np.sqrt(rank))])


def mean_scale(rank: int) -> np.ndarray:
    """Prior sds (R,) of the mean vectors of items and users."""
    return _by_component(0.5, 0.4, rank)


def item_scale(rank: int) -> np.ndarray:
    """Half-t scales (R,) of the spread of items."""
    return _by_component(0.4, 0.5, rank)


def user_scale(rank: int) -> np.ndarray:
    """Half-t scales (R,) of the spread of users; the factors' unit is arbitrary, the items' scales adapt to it."""
    return np.concatenate([[0.4], np.full(rank, 0.7)])


def tensor(array: np.ndarray) -> Tensor:
    """Return the array as a tensor of torch's default dtype."""
    return torch.as_tensor(array, dtype=torch.get_default_dtype())


def second_moment(latents: Latents) -> Tensor:
    """E[v v'] of the design vector ``v = (1, q)`` of an item of the target: (..., R, R)."""
    mean, scale = latents["item_mean"][..., -1, :], latents["item_scale"][..., -1, :]
    v = torch.cat([torch.ones_like(mean[..., :1]), mean[..., 1:]], -1)
    spread = torch.cat([torch.zeros_like(scale[..., :1]), scale[..., 1:].square()], -1)
    return v.unsqueeze(-1) * v.unsqueeze(-2) + torch.diag_embed(spread)


def item_prior(schema: Any, rank: int, mapped: bool = False) -> Latents:
    """Sample items around a mean vector for each domain, or a linear map of features, with a scale for each component."""
    size, n_domains = rank + 1, schema.n_domains
    spread = tensor(mean_scale(rank)).expand(n_domains, size)
    mean = pyro.sample("item_mean", dist.Normal(torch.zeros(n_domains, size), spread).to_event(2))
    scale = pyro.sample("item_scale", half_t(tensor(item_scale(rank)), shape=(n_domains, size)))
    out = {"item_mean": mean, "item_scale": scale}
    if mapped:
        out |= features.map_prior("item", item_scale(rank), schema.item_x, n_domains)
    loc, sd = features.item_loc(out, schema.item_domain, schema.item_x), scale[..., schema.item_domain, :]
    return out | {"item_vector": pyro.sample("item_vector", dist.Normal(loc, sd).to_event(2))}


def user_mean_prior(rank: int) -> Latents:
    """Sample the mean of the users' vectors."""
    spread = tensor(mean_scale(rank))
    return {"user_mean": pyro.sample("user_mean", dist.Normal(torch.zeros(rank + 1), spread).to_event(1))}


def population_prior(rank: int) -> Latents:
    """Sample the mean and covariance of the users' vectors."""
    return user_mean_prior(rank) | {"user_cov": pyro.sample("user_cov", HuangWand(tensor(user_scale(rank))))}


def item_start(table: Table, rank: int, rng: np.random.Generator, mapped: bool = False) -> State:
    """Small random items around zero."""
    size = rank + 1
    out = {
        "item_vector": 0.1 * rng.standard_normal((table.n_items, size)),
        "item_mean": np.zeros((table.n_domains, size)),
        "item_scale": np.full((table.n_domains, size), 0.3),
    }
    return out | (features.start("item", item_scale(rank), table.item_x, table.n_domains) if mapped else {})


def drawn(*rows: Any, rest: whole.Everywhere | None, seen: np.ndarray) -> np.ndarray:
    """Rows as :func:`bayesrec.conjugate.draw_rows` draws them, or with all cells of the domains where a row is ``seen``."""
    return conjugate.draw_rows(*rows) if rest is None else whole.draw_rows(*rows, rest, seen)  # type: ignore[call-arg]


def stacked(present: np.ndarray) -> list[np.ndarray]:
    """Rows of users stacked by domain, (domain * user, R), who are ``present`` (domain, user) in each domain."""
    return [d * len(here) + np.flatnonzero(here) for d, here in enumerate(present)]


def item_blocks(
    table: Table,
    rank: int,
    likelihood: Likelihood,
    raters: Callable[[State], np.ndarray],
    index: np.ndarray,
    mapped: bool = False,
    raters_of: list[np.ndarray] | None = None,
) -> tuple[Block, list[Block]]:
    """Items given users; the map of their features where there is one, and their means and scales.

    Parameters
    ----------
    raters : callable
        ``raters(state)`` is the array (n, R) of user vectors that ``index`` (rating, in item order) points into.
    raters_of : list of ndarray of int
        Rows of that array of whom cells say something, for each domain.
    """
    rated = table.rated
    seen = rated[:, None] & (table.item_domain[:, None] == np.arange(table.n_domains))
    members = [np.flatnonzero(rated & (table.item_domain == d)) for d in range(table.n_domains)]

    def items(state: State, rng: np.random.Generator) -> State:
        value, weight = likelihood.working(state, table, "item")
        shift, others = features.item_shift(state, table), raters(state)
        if shift is not None:
            value = without_shift(table.item_ptr, index, value, others, shift, table.workers)
        precision = np.stack([np.diag(1.0 / s**2) for s in state["item_scale"]])
        out = drawn(
            table.item_ptr,
            index,
            value,
            weight,
            others,
            table.item_domain,
            state["item_mean"],
            precision,
            rng,
            "items",
            table.workers,
            rest=likelihood.everywhere(state, table, others, raters_of),
            seen=seen,
        )
        return {"item_vector": out if shift is None else out + shift}

    def hyper(state: State, rng: np.random.Generator) -> State:
        mean, scale = state["item_mean"].copy(), state["item_scale"].copy()
        shift = features.item_shift(state, table)
        own = state["item_vector"] if shift is None else state["item_vector"] - shift
        for d, codes in enumerate(members):
            rows = own[codes]
            mean[d] = conjugate.normal_mean(rows, scale[d], mean_scale(rank), rng)
            squares = ((rows - mean[d]) ** 2).sum(0)
            scale[d] = conjugate.half_t_scale(scale[d], squares, len(rows), item_scale(rank), rng)
        return {"item_mean": mean, "item_scale": scale}

    populations = [Block("item_population", ("item_mean", "item_scale"), hyper)]
    if mapped:
        populations.insert(0, features.item_map_block(table, members, item_scale(rank), mean_scale(rank)))
    return Block("items", ("item_vector",), items), populations


def spreads(latents: Latents, user_cov: Tensor) -> dict[str, Tensor]:
    """Sds that do not change when the factors rotate, in sd units of the target's ratings.

    ``user_bias_sd`` and ``item_bias_sd`` of the intercepts, ``personal_sd`` of ``b_u + p_u . q_i`` over users for an
    average item.
    """
    moment = second_moment(latents)
    return {
        "item_bias_sd": latents["item_scale"][..., -1, 0],
        "user_bias_sd": user_cov[..., 0, 0].sqrt(),
        "personal_sd": (user_cov * moment).sum((-1, -2)).sqrt(),
    }
