"""Taking new items, those of one domain, into a posterior without refitting. Internal.

The mirror image of :mod:`bayesrec.posterior.fold`: users and hyperparameters stay as they are in each draw, and the vectors of
the new items are drawn given them and the items' rows, a cut posterior. Where ratings are their own responses a pass is an
independent exact draw; with latent responses the items and these are a small Gibbs sampler, carried from draw to draw.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.data.features import newcomers
from bayesrec.data.frames import open_frame, read_column
from bayesrec.data.ids import shown
from bayesrec.errors import DataError
from bayesrec.models import priors
from bayesrec.models.base import Model

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

__all__ = ["described_ids", "extended"]


def described_ids(posterior: Posterior, features: Any) -> pd.Index:
    """Ids of a table of item features that no item of the target has."""
    data, last = posterior.data, posterior.schema.n_domains - 1
    ids = pd.Index(read_column(open_frame(features, "features"), data.columns.item))
    return ids[data.items.encode(ids, np.full(len(ids), last)) < 0]


def extended(
    posterior: Posterior,
    ids: pd.Index,
    domain: np.ndarray,
    rows: Any,
    seed: int,
    features: Any,
    sweeps: tuple[int, int],
    weight: np.ndarray | None,
) -> Posterior:
    """Put new items (ids, with the codes of their domains) behind the known ones, drawn given their rows.

    Parameters
    ----------
    rows : callable
        ``rows(data)``: the items' rows by known users, as a table with the ids of ``data``.
    sweeps : (int, int)
        Before the first draw of a chain, and between draws, where there are latent responses.
    weight : ndarray, (domain,), optional
        Power of the density of each domain's rows.
    """
    model, schema, last = posterior.model, posterior.schema, posterior.schema.n_domains - 1
    n_known, other = schema.n_items, posterior.data.columns.sides[1]
    data = posterior.data.extend_items(ids, domain)
    fresh = np.arange(n_known, data.n_items)
    item_domain, x = data.item_domain, None
    if model.features:
        named = data.items.decode(fresh)
        if (item_domain[fresh] != last).any() and posterior.data.item_features.names:
            first = named[int(np.argmax(item_domain[fresh] != last))]
            raise DataError(
                f"{other} {shown(first)} is new in a source, whose features are measured by members that only a fit sees; "
                f"fold_in takes new {other}s with features in the target {schema.domains[-1]!r} alone. Refit."
            )
        x = newcomers(posterior.data.transposed(), features, named)
        data = replace(data, item_features=posterior.data.item_features.extended(x))
    elif features is not None:
        raise DataError(f"{model!r} uses no features; leave features=... out.")
    own = rows(data)
    latents = _draw(posterior, own, item_domain[fresh], x, seed, sweeps, weight)
    draws = dict(posterior.draws)
    for name, new in latents.items():
        draws[name] = np.concatenate([draws[name], new], axis=2 + model.dims[name].index("item"))
    shelf = posterior.shelf
    if shelf is not None:
        shelf = np.union1d(shelf, own.item[own.is_target])
    schema = replace(schema, n_items=data.n_items, item_domain=torch.from_numpy(np.array(item_domain)))
    if x is not None:
        schema = replace(schema, item_x=data.item_features.x)
    if len(posterior.data):
        names = ("user", "item", "domain", "value") + (() if data.time is None else ("time",))
        parts: dict[str, Any] = {name: np.concatenate([getattr(data, name), getattr(own, name)]) for name in names}
        data = replace(data, **parts)
    return replace(posterior, draws=draws, data=data, schema=schema, shelf=shelf)


def _draw(
    posterior: Posterior,
    rows: Interactions,
    item_domain: np.ndarray,
    x: np.ndarray | None,
    seed: int,
    sweeps: tuple[int, int],
    weight: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Draws (chain, draw, *event) of the sites of new items, the last codes of ``rows``, given the raters in each draw."""
    model, schema, whole = posterior.model, posterior.schema, posterior.model.likelihood.whole
    raters = np.arange(schema.n_users) if whole else np.unique(rows.user)
    table = Table.build(
        np.searchsorted(raters, rows.user),
        rows.item - schema.n_items,
        rows.domain,
        schema.standardise(rows.value, rows.domain),
        n_users=len(raters),
        n_items=len(item_domain),
        item_domain=item_domain,
        n_domains=schema.n_domains,
        user_x=None if schema.user_x is None else schema.user_x[raters],
        item_x=x,
    )
    table, blocks = replace(table, weight=weight), []
    present = None
    if whole:  # cells without a row count, of users whom the rows of the fit name
        posterior.require_data(f"fold_in of {posterior.data.columns.sides[1]}s with {model.likelihood!r}")
        present = model.likelihood.present(schema.table(posterior.data))
    blocks = _blocks(model, table, present)
    sweeps = sweeps if len(blocks) > 1 else (1, 1)
    sites = [name for name, axes in model.dims.items() if "item" in axes]
    new: dict[str, list[np.ndarray]] = {name: [] for name in sites}
    for chain in range(posterior.n_chains):
        rng = np.random.default_rng([seed, 2, chain])
        carried = {name: one for name, one in model.start(table, rng).items() if _moves(name, model)}
        for draw in range(posterior.n_draws):
            state = posterior.draw(chain, draw, users=raters) | carried
            for _ in range(sweeps[draw > 0]):
                for block in blocks:
                    state |= block.update(state, rng)
            carried = {name: state[name] for name in carried}
            for name in sites:
                new[name].append(np.asarray(state[name], dtype=np.float32))
    shape = posterior.n_chains, posterior.n_draws
    return {name: np.stack(parts).reshape(*shape, *parts[0].shape) for name, parts in new.items()}


def _moves(name: str, model: Model) -> bool:
    """Whether a site is an item's own, or a variable of the sampler that no model has."""
    return "item" in model.dims.get(name, ("item",))


def _blocks(model: Model, table: Table, present: np.ndarray | None) -> list[Block]:
    """Latent responses and the like, which nobody but the rows have, and then the items given everything else."""
    auxiliary = [
        block
        for block in model.likelihood.blocks(table, model.fitted(table))
        if block.local and not set(block.sites) & set(model.dims)
    ]

    def raters(state: State) -> np.ndarray:
        sites = [name for name in model.latent_dims if name.endswith("_vector")]
        return np.asarray(model.raters({name: torch.from_numpy(state[name]) for name in sites}))

    index, cells = model.rater_index(table), None
    if present is not None:
        by_domain = index is table.item_cell  # users have a vector in each domain
        cells = priors.stacked(present) if by_domain else [np.flatnonzero(here) for here in present]
    items, _ = priors.item_blocks(table, model.rank, model.likelihood, raters, index, model.features, raters_of=cells)
    return [*auxiliary, items]
