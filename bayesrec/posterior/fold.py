"""Folding new users into a posterior. Internal."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesrec.conjugate import Table
from bayesrec.data.ids import shown
from bayesrec.data.seeds import checked_seed
from bayesrec.errors import DataError, DataWarning

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

__all__ = ["fold_in"]

WARM, SWEEPS = 20, 3  # sweeps of the local blocks before a chain's first draw, and between draws


def fold_in(posterior: Posterior, frame: Any, seed: int) -> Posterior:
    """Draw the latents of new users given each draw of everything else; see :meth:`Posterior.fold_in`.

    With one noise for all users a single pass of the local blocks is an independent exact draw. With a noise level
    a user the local blocks are a small Gibbs sampler of their own, which is carried from draw to draw.
    """
    seed = checked_seed(seed)
    batch = posterior.data.encode(frame, need_value=True)
    known, (who, other) = np.flatnonzero(batch.user >= 0), posterior.data.columns.sides
    if known.size:
        raise DataError(
            f"{who} {shown(batch.user_id[known[0]])} was in the fit already (row {known[0]}); fold_in takes new {who}s only. "
            f"Refit to learn from new ratings of known {who}s."
        )
    if not len(batch):
        raise DataError("fold_in got an empty frame.")
    usable = batch.item >= 0
    if not usable.all():
        first = batch.item_id[np.flatnonzero(~usable)[0]]
        warnings.warn(
            f"{int((~usable).sum())} of {len(batch)} rows are about {other}s that were not in the fit (the first: "
            f"{shown(first)}) and are left out.",
            DataWarning,
            stacklevel=3,
        )
    ids = batch.user_id.unique()
    data = posterior.data.extend_users(ids)
    n_known, n_new = posterior.data.n_users, len(ids)
    user = data.users.encode(batch.user_id, batch.domain)
    rows = replace(batch, user=user)
    rows = _subset(rows, usable)
    # duplicates within the frame: the data layer keeps the last and warns
    merged = data.with_rows(rows)
    new = merged.mask(merged.user >= n_known)
    schema = posterior.schema
    table = Table.build(
        new.user - n_known,
        new.item,
        new.domain,
        schema.standardise(new.value, new.domain),
        n_users=n_new,
        n_items=schema.n_items,
        item_domain=schema.item_domain.numpy(),
        n_domains=schema.n_domains,
        user_ids=ids,
    )
    draws = _draw(posterior, table, seed)
    everybody = merged.users.decode(np.arange(merged.n_users))
    kept = merged if len(posterior.data) else merged.mask(np.zeros(len(merged), dtype=bool))
    return replace(
        posterior, draws=draws, data=kept, schema=replace(schema, n_users=merged.n_users, user_ids=everybody)
    )


def _draw(posterior: Posterior, table: Table, seed: int) -> dict[str, np.ndarray]:
    """Draws with the new users behind the known ones on every user axis."""
    model = posterior.model
    local = [block for block in model.blocks(table) if block.local]
    sites = [name for name, axes in model.dims.items() if "user" in axes]
    new: dict[str, list] = {name: [] for name in sites}
    for chain in range(posterior.n_chains):
        rng = np.random.default_rng([seed, chain])
        start = model.start(table, rng)
        carried = {name: value for name, value in start.items() if name in sites or name not in model.dims}
        for draw in range(posterior.n_draws):
            state = posterior.draw(chain, draw, users=np.empty(0, dtype=int)) | carried
            for _ in range(WARM if draw == 0 and len(local) > 1 else SWEEPS if len(local) > 1 else 1):
                for block in local:
                    state |= block.update(state, rng)
            carried = {name: state[name] for name in carried}
            for name in sites:
                new[name].append(state[name])
    out = dict(posterior.draws)
    for name in sites:
        axis = 2 + model.dims[name].index("user")
        stacked = np.stack(new[name]).astype(np.float32)
        stacked = stacked.reshape(posterior.n_chains, posterior.n_draws, *stacked.shape[1:])
        out[name] = np.concatenate([out[name], stacked], axis=axis)
    return out


def _subset(batch: Any, keep: np.ndarray) -> Any:
    names = ("user", "item", "domain", "value", "time", "user_id", "item_id", "domain_name")
    parts = {name: getattr(batch, name) for name in names}
    return replace(batch, **{name: part if part is None else part[keep] for name, part in parts.items()})
