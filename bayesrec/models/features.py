"""Side information: linear maps from features to the prior means of users and items. Internal.

With features ``x``, of mean 0 and sd 1, an item of domain ``d`` is ``item_mean[d] + x item_map[d] + N(0, item_scale[d]^2)``, and
the target vector of a user has ``user_mean + x user_map`` in the place of ``user_mean``. Each component has a scale of its own
for the entries of a map (Simm et al. 2017, with half-t scales). Vectors stay whole in draws: what a map says of them is their
prior, so scores, noise and folding in need nothing new.
"""

from __future__ import annotations

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
from bayesrec.likelihoods import Latents
from bayesrec.linear_maps import Spectrum, draw_map

__all__ = [
    "ITEM_MAP",
    "USER_MAP",
    "draw_scale",
    "item_loc",
    "item_map_block",
    "item_shift",
    "map_prior",
    "scale_prior",
    "start",
    "unknown_item_cov",
    "unknown_user_cov",
    "user_loc",
    "user_map_block",
    "user_means",
    "user_shift",
]

ITEM_MAP = {
    "item_map": ("domain", "item_feature", "latent_component"),
    "item_map_scale": ("domain", "latent_component"),
}
USER_MAP = {"user_map": ("user_feature", "latent_component"), "user_map_scale": ("latent_component",)}

SHARE = 0.5  # of the members' own spread: the prior scale of what all features together add to it


def scale_prior(own: np.ndarray, n_features: int) -> np.ndarray:
    """Half-t scales (R,) of the entries of a map, from those of the members' spread; together as wide for any number."""
    return SHARE * own / np.sqrt(max(n_features, 1))


def map_prior(side: str, own: np.ndarray, x: Any, n_domains: int | None = None) -> Latents:
    """Sample the scales and entries of a map (Pyro), one for each domain where there is a number of domains."""
    shape = (len(own),) if n_domains is None else (n_domains, len(own))
    scales = torch.as_tensor(scale_prior(own, x.shape[1]), dtype=torch.get_default_dtype())
    scale = pyro.sample(f"{side}_map_scale", half_t(scales, shape=shape))
    sd = scale.unsqueeze(-2).expand(*scale.shape[:-1], x.shape[1], len(own))
    entries = dist.Normal(torch.zeros_like(sd), sd).to_event(len(shape) + 1)
    return {f"{side}_map": pyro.sample(f"{side}_map", entries), f"{side}_map_scale": scale}


def start(side: str, own: np.ndarray, x: np.ndarray, n_domains: int | None = None) -> State:
    """A map of zeros."""
    first = () if n_domains is None else (n_domains,)
    scale = np.broadcast_to(scale_prior(own, x.shape[1]), (*first, len(own)))
    return {f"{side}_map": np.zeros((*first, x.shape[1], len(own))), f"{side}_map_scale": scale.copy()}


def draw_scale(scale: np.ndarray, entries: np.ndarray, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the scales (R,) given a map (feature, R)."""
    prior = scale_prior(own, len(entries))
    return conjugate.half_t_scale(scale, (entries**2).sum(0), len(entries), prior, rng)


def item_loc(latents: Latents, domain: Tensor, x: np.ndarray | None) -> Tensor:
    """Prior means of items (..., item, R) with these domains (item,) and features (item, feature)."""
    loc = latents["item_mean"][..., domain, :]
    if x is None or "item_map" not in latents:
        return loc
    every = torch.as_tensor(x, dtype=loc.dtype) @ latents["item_map"]  # (..., domain, item, R)
    return loc + every[..., domain, torch.arange(len(domain)), :]


def user_loc(latents: Latents, x: np.ndarray | None) -> Tensor:
    """Prior means of users, (..., user, R); (..., 1, R) where they are all alike."""
    loc = latents["user_mean"].unsqueeze(-2)
    if x is None or "user_map" not in latents:
        return loc
    return loc + torch.as_tensor(x, dtype=loc.dtype) @ latents["user_map"]


def item_shift(state: State, table: Table) -> np.ndarray | None:
    """What features add to the prior mean of each item, (item, R)."""
    if "item_map" not in state or table.item_x is None:
        return None
    out = np.empty((table.n_items, state["item_map"].shape[-1]))
    for domain, entries in enumerate(state["item_map"]):
        here = table.item_domain == domain
        out[here] = table.item_x[here] @ entries
    return out


def user_shift(state: State, table: Table) -> np.ndarray | None:
    """What features add to the prior mean of each user's target vector, (user, R)."""
    return None if "user_map" not in state or table.user_x is None else table.user_x @ state["user_map"]


def user_means(state: State, table: Table) -> np.ndarray:
    """Prior means of users: (user, R), or (R,) where they are all alike."""
    shift = user_shift(state, table)
    return state["user_mean"] if shift is None else state["user_mean"] + shift


def unknown_user_cov(latents: Latents, schema: Any) -> Any:
    """What unknown features add to the covariance of an unknown user's target vector, (..., R, R); 0 without a map."""
    return _spread(latents["user_map"], schema.user_moment) if schema is not None and "user_map" in latents else 0.0


def unknown_item_cov(latents: Latents, schema: Any) -> Tensor:
    """Covariance of an unknown item in each domain, unknown features included, (..., domain, R, R)."""
    own = torch.diag_embed(latents["item_scale"].square())
    mapped = schema is not None and "item_map" in latents
    return own + _spread(latents["item_map"], schema.item_moment) if mapped else own


def _spread(entries: Tensor, moments: np.ndarray) -> Tensor:
    return entries.mT @ torch.as_tensor(moments, dtype=entries.dtype) @ entries


def item_map_block(table: Table, members: list[np.ndarray], own: np.ndarray, mean_scale: np.ndarray) -> Block:
    """Means and maps of the items of each domain, then the maps' scales; ``members`` are the codes of rated items."""
    spectra = [Spectrum.of(table.item_x[codes]) for codes in members]

    def update(state: State, rng: np.random.Generator) -> State:
        mean, entries, scale = (np.empty_like(state[name]) for name in ("item_mean", *ITEM_MAP))
        for d, codes in enumerate(members):
            rows, cov = state["item_vector"][codes], np.diag(state["item_scale"][d] ** 2)
            mean[d], entries[d] = draw_map(spectra[d], rows, cov, mean_scale, state["item_map_scale"][d], rng)
            scale[d] = draw_scale(state["item_map_scale"][d], entries[d], own, rng)
        return {"item_mean": mean, "item_map": entries, "item_map_scale": scale}

    return Block("item_map", ("item_mean", *ITEM_MAP), update)


def user_map_block(rows: Any, x: np.ndarray, own: np.ndarray, mean_scale: np.ndarray) -> Block:
    """Intercept and map of the users' target vectors, then the map's scales.

    Parameters
    ----------
    rows : callable
        ``rows(state)``: vectors (member, R) without all that the prior adds to them but intercept and map.
    x : ndarray, (member, feature)
    """
    spectrum = Spectrum.of(x)

    def update(state: State, rng: np.random.Generator) -> State:
        mean, entries = draw_map(spectrum, rows(state), state["user_cov"], mean_scale, state["user_map_scale"], rng)
        scale = draw_scale(state["user_map_scale"], entries, own, rng)
        return {"user_mean": mean, "user_map": entries, "user_map_scale": scale}

    return Block("user_map", ("user_mean", *USER_MAP), update)
