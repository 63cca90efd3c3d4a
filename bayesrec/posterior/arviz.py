"""From a posterior to ArviZ's DataTree. Internal."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyro
import torch

from bayesrec.likelihoods import Latents
from bayesrec.models.base import Model, Schema
from bayesrec.posterior import predictive
from bayesrec.posterior.activity import moved_back

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

__all__ = ["axes", "called", "coordinates", "log_prior", "row_axis", "to_datatree"]

CHUNK = 25  # draws whose prior is evaluated at once


def coordinates(posterior: Posterior) -> dict[str, Any]:
    """Labels of every axis of the model: ids of users, ids of items, ``domain/id`` where there are several domains."""
    data, domains = posterior.data, [str(d) for d in posterior.schema.domains]
    items = data.items.decode(np.arange(data.n_items)).to_numpy()
    if len(domains) > 1:
        items = np.array([f"{domains[d]}/{i}" for d, i in zip(data.item_domain, items, strict=True)], dtype=object)
    component = ["bias", *(f"factor_{k}" for k in range(1, posterior.model.rank + 1))]
    return {
        "user": data.users.decode(np.arange(data.n_users)).to_numpy(),
        "item": items,
        "domain": domains,
        "source": domains[:-1],
        "latent_component": component,
        "latent_component_bis": component,
        "map_part": ["bias", "factor", "across"],
        "user_feature": list(getattr(data.user_features, "names", ())),
        "item_feature": list(getattr(data.item_features, "names", ())),
    } | _thresholds(posterior)


def _thresholds(posterior: Posterior) -> dict[str, Any]:
    """Cut points by the levels that they part, of the target unless each domain has its own."""
    schema = posterior.schema
    cuts = [None if one.levels is None else [f"{a:g}|{b:g}" for a, b in pairwise(one.levels)] for one in schema.units]
    named = {f"threshold_{domain}": labels for domain, labels in zip(schema.domains, cuts, strict=True)}
    named |= {f"domain_{domain}": [str(domain)] for domain in schema.domains}
    return {axis: labels for axis, labels in (named | {"threshold": cuts[-1]}).items() if labels is not None}


def called(posterior: Posterior, axis: str) -> str:
    """The caller's name of an axis: where items are shared, they are the users of the model."""
    side, *rest = axis.split("_")
    names = dict(zip(("user", "item"), posterior.data.columns.sides, strict=True))
    return "_".join([names.get(side, side), *rest])


def axes(posterior: Posterior) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Names of the axes of every site as the caller calls them, and the labels of those that are used."""
    dims = {name: [called(posterior, axis) for axis in given] for name, given in posterior.model.dims.items()}
    used = {axis for given in dims.values() for axis in given}
    labels = {called(posterior, axis): entries for axis, entries in coordinates(posterior).items()}
    return dims, {axis: entries for axis, entries in labels.items() if axis in used}


def row_axis(column: str) -> str:
    """Name of the axis of ratings, which must not be that of their variable."""
    return "row" if column != "row" else "rating"


def log_prior(model: Model, schema: Schema, latents: Latents) -> dict[str, torch.Tensor]:
    """Log prior density of each site for draws (draw, *event), each (draw,)."""
    with pyro.poutine.trace() as trace, pyro.poutine.condition(data=latents):
        model.prior(schema)
    nodes = trace.trace.nodes
    return {name: cast(Any, nodes[name]["fn"]).log_prob(value) for name, value in latents.items()}


def _log_priors(posterior: Posterior) -> dict[str, np.ndarray]:
    """Log prior density of each site, (chain, draw)."""
    shape = (posterior.n_chains, posterior.n_draws)
    latents = predictive.flat(moved_back(posterior))
    parts = []
    for start in range(0, shape[0] * shape[1], CHUNK):
        some = {name: x[start : start + CHUNK].double() for name, x in latents.items()}
        parts.append(log_prior(posterior.model, posterior.schema, some))
    return {name: torch.cat([p[name] for p in parts]).numpy().reshape(shape) for name in latents}


def to_datatree(posterior: Posterior, log_likelihood: bool) -> Any:
    """Build the tree; see :meth:`Posterior.to_datatree`."""
    from arviz_base import from_dict

    whole = set(posterior.draws) == set(posterior.model.dims)
    dims, coords = axes(posterior)
    dims = {name: given for name, given in dims.items() if name in posterior.draws}
    groups: dict[str, Any] = {"posterior": posterior.draws}
    if posterior.stats:
        groups["sample_stats"] = posterior.stats
    tree = from_dict(groups, dims=dims, coords=coords)
    if whole:
        tree["log_prior"] = from_dict({"log_prior": _log_priors(posterior)}, dims={}).children["log_prior"]
    rows, column = posterior.data.is_target, posterior.data.columns.value or "value"
    if rows.any():
        observed = {"observed_data": {column: posterior.data.value[rows]}}
        if log_likelihood and whole:
            observed["log_likelihood"] = {column: posterior.log_likelihood()}
        axis = row_axis(column)
        tree_of_rows = from_dict(observed, dims={column: [axis]}, coords={axis: np.flatnonzero(rows)})
        for name, group in tree_of_rows.children.items():
            tree[name] = group  # apart: a value column may be named like a site
    tree.attrs |= {"library": "bayesrec", "model": repr(posterior.model), "method": repr(posterior.method)}
    return tree
