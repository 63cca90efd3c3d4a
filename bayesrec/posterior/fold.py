"""Taking new ratings into a posterior without refitting. Internal.

For users items and hyperparameters stay as they are in each draw, and the latents of single users are drawn given them and
the users' rows: a cut posterior. With one noise for all users a single pass of the local blocks is an independent exact draw.
With a noise level a user, or with latent responses, the local blocks are a small Gibbs sampler of their own, which is carried
from draw to draw. New items: :mod:`bayesrec.posterior.fold_items`.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayesrec.conjugate import Table
from bayesrec.data import Interactions, Vocabulary
from bayesrec.data.batch import Batch
from bayesrec.data.features import Features, newcomers
from bayesrec.data.ids import shown
from bayesrec.data.seeds import checked_seed
from bayesrec.errors import DataError, DataWarning
from bayesrec.posterior import fold_items
from bayesrec.posterior.chains import chains, covers

if TYPE_CHECKING:
    from bayesrec.blocks import Block
    from bayesrec.models.base import Model
    from bayesrec.posterior.posterior import Posterior

__all__ = ["fold_in", "update"]

WARM, SWEEPS = 20, 2  # sweeps of the local blocks before a chain's first draw, and between draws


def fold_in(
    posterior: Posterior, frame: Any, seed: int, side: Any, tables: tuple[Any, Any], alone: bool, power: float
) -> Posterior:
    """Take in new users, new items or both; see :meth:`Posterior.fold_in`."""
    seed, power = checked_seed(seed), _checked_power(posterior, power)
    (who, other), side = posterior.data.columns.sides, _checked_side(posterior, side, alone)
    features = _by_side(side, *tables)
    given, more = features[who], features[other]
    empty = frame is None and side != who and more is not None
    batch = posterior.data.encode(_no_rows(posterior) if empty else frame, need_value=True)
    old, known = batch.user >= 0, batch.item >= 0
    wrong = {who: old, other: known, "both": old & known}[side]
    if wrong.any():
        raise DataError(_known(posterior, batch, int(np.argmax(wrong)), side))
    if not len(batch) and (side == who or more is None):
        raise DataError("fold_in got an empty frame.")
    if side == who:
        return _extended(posterior, batch, seed, given, alone, power)
    posterior = _with_items(posterior, batch, seed, more, power, side == "both")
    if side == "both" and (~old).any():
        batch = _subset(batch, ~old)
        batch = replace(batch, item=posterior.data.items.encode(batch.item_id, batch.domain))
        posterior = _extended(posterior, batch, seed, given, False, power)
    return posterior


def _checked_side(posterior: Posterior, side: Any, alone: bool) -> str:
    who = posterior.data.columns.sides[0]
    side = who if side is None else side
    if side not in ("user", "item", "both"):
        raise DataError(f"side must be 'user', 'item' or 'both', not {side!r}")
    if alone and side != who:
        raise DataError(f"alone=True is for new {who}s, who stand by themselves; with side={side!r} leave it out.")
    return str(side)


def _by_side(side: str, users: Any, items: Any) -> dict[str, Any]:
    """Feature tables of new users and new items, as the caller calls them."""
    if side == "user" and items is not None:
        raise DataError("item_features=... are those of new items; give them with side='item' or side='both'")
    if side == "item" and users is not None:
        if items is not None:
            raise DataError("side='item' takes new items alone: give their features once, as item_features=...")
        users, items = None, users
    return {"user": users, "item": items}


def _no_rows(posterior: Posterior) -> pd.DataFrame:
    columns = posterior.data.columns
    names = (columns.user, columns.item, columns.value)
    return pd.DataFrame({name: np.empty(0, dtype=np.int64) for name in names if name is not None})


def _known(posterior: Posterior, batch: Batch, row: int, side: str) -> str:
    """Why a row cannot be folded in."""
    who, other = posterior.data.columns.sides
    if side == "both":
        return (
            f"{who} {shown(batch.user_id[row])} and {other} {shown(batch.item_id[row])} were both in the fit already (row {row});"
            " fold_in takes rows of those who are new. Refit, or use update, to learn from other rows."
        )
    ids = batch.user_id if side == who else batch.item_id
    cure = (
        f"Refit, or use update, to learn from new ratings of known {who}s."
        if side == who
        else (
            f"Refit to learn from new ratings of known {other}s, or use update to learn from them about their {who}s."
        )
    )
    return f"{side} {shown(ids[row])} was in the fit already (row {row}); fold_in takes new {side}s only. {cure}"


def _with_items(posterior: Posterior, batch: Batch, seed: int, features: Any, power: float, both: bool) -> Posterior:
    """Draw new items given the rows of known users."""
    model, who = posterior.model, posterior.data.columns.sides[0]
    unknown, new = batch.user < 0, batch.item < 0
    if not both and unknown.any():
        row = int(np.argmax(unknown))
        if unknown.all():
            raise DataError(
                f"no row is by a {who} of the fit (row 0: {shown(batch.user_id[0])}): nothing is known of who rated. side='both' "
                f"takes in new {who}s as well."
            )
        warnings.warn(
            f"{int(unknown.sum())} of {len(batch)} rows are by {who}s who were not in the fit (the first: "
            f"{shown(batch.user_id[row])}) and are left out.",
            DataWarning,
            stacklevel=4,
        )
    ids, domain = batch.item_id[new], batch.domain[new]
    if model.features and features is not None:
        silent = fold_items.described_ids(posterior, features)
        ids, domain = ids.append(silent), np.append(domain, np.full(len(silent), posterior.schema.n_domains - 1))
    if not len(ids):
        return posterior
    told = _subset(batch, new & ~unknown)

    def rows(data: Interactions) -> Interactions:
        return _new_rows(data, replace(told, item=data.items.encode(told.item_id, told.domain)))

    weight = model.exponents(posterior.schema.n_domains)
    if power < 1.0:
        weight = power * (np.ones(posterior.schema.n_domains) if weight is None else weight)
    return fold_items.extended(posterior, ids, domain, rows, seed, features, (WARM, SWEEPS), weight)


def _checked_power(posterior: Posterior, power: Any) -> float:
    number = isinstance(power, (int, float, np.number)) and not isinstance(power, bool)
    if not number or not 0.0 < power <= 1.0:
        raise DataError(f"power must be a number above 0 and at most 1, not {power!r}")
    likelihood = posterior.model.likelihood
    if power < 1.0 and not likelihood.tempers:
        raise DataError(
            f"power={power:g} needs rows that are normal given the factors, br.Gaussian() or br.Implicit(), not {likelihood!r}: "
            "the power of another density has no exact update. A power of 1 is possible."
        )
    return float(power)


def update(posterior: Posterior, frame: Any, seed: int, features: Any) -> Posterior:
    """Take in ratings of known and new users; see :meth:`Posterior.update`."""
    seed = checked_seed(seed)
    batch = posterior.data.encode(frame, need_value=True)
    if not len(batch):
        raise DataError("update got an empty frame.")
    new = batch.user < 0
    if not new.all():
        posterior.require_data(f"update for {posterior.data.columns.sides[0]}s who were in the fit")
        posterior = _redrawn(posterior, _subset(batch, ~new), seed)
    if new.any():
        posterior = _extended(posterior, _subset(batch, new), seed, features, False, 1.0)
    return posterior


def _extended(posterior: Posterior, batch: Batch, seed: int, features: Any, alone: bool, power: float) -> Posterior:
    """Draw the latents of new users, and put them behind the known ones unless they shall be alone."""
    model, schema, n_known = posterior.model, posterior.schema, posterior.data.n_users
    data = posterior.data.extend_users(batch.user_id.unique())
    ids, x = data.users.decode(np.arange(n_known, data.n_users)), None
    if model.features:
        x = newcomers(posterior.data, features, ids)
        data = replace(data, user_features=posterior.data.user_features.extended(x))
    elif features is not None:
        raise DataError(f"{model!r} uses no features; leave features=... out.")
    rows = _new_rows(data, _usable(posterior, replace(batch, user=data.users.encode(batch.user_id, batch.domain))))
    table, items = _table(posterior, rows, np.arange(n_known, data.n_users), ids, x)
    if power < 1.0:
        exponents = model.exponents(schema.n_domains)
        table = replace(table, weight=power * (np.ones(schema.n_domains) if exponents is None else exponents))
    latents = _draw(posterior, (table, items), [seed])
    if alone:
        draws, kept = dict(posterior.draws) | latents, _alone(rows, n_known, ids)
        shelf: np.ndarray | None = _shelf(posterior)
    else:
        axes = {name: 2 + model.dims[name].index("user") for name in latents}
        joined = {name: np.concatenate([posterior.draws[name], new], axis=axes[name]) for name, new in latents.items()}
        draws, shelf = dict(posterior.draws) | joined, posterior.shelf
        kept = _joined(data, rows) if len(posterior.data) else data
    people = kept.users.decode(np.arange(kept.n_users))
    new = kept.n_users if alone else schema.newcomers + len(ids)
    schema = replace(schema, n_users=kept.n_users, user_ids=people, newcomers=new)
    if x is not None:
        schema = replace(schema, user_x=kept.user_features.x)
    return replace(posterior, draws=draws, data=kept, schema=schema, shelf=shelf)


def _redrawn(posterior: Posterior, batch: Batch, seed: int) -> Posterior:
    """Draw known users anew, given the rows kept and the new ones."""
    batch = _usable(posterior, batch)
    if not len(batch):
        return posterior
    data, n_items = posterior.data, posterior.data.n_items
    # a pair that was rated before has the new rating
    again = np.isin(data.user * n_items + data.item, batch.user * n_items + batch.item)
    data = data.mask(~again)
    data = _joined(data, _new_rows(data, batch))
    users = np.unique(batch.user)
    mine = np.zeros(data.n_users, dtype=bool)
    mine[users] = True
    x = None if posterior.schema.user_x is None else posterior.schema.user_x[users]
    table = _table(posterior, data.mask(mine[data.user]), users, data.users.decode(users), x)
    draws = dict(posterior.draws)
    for name, new in _draw(posterior, table, [seed, 1]).items():
        draws[name] = draws[name].copy()
        np.moveaxis(draws[name], 2 + posterior.model.dims[name].index("user"), 0)[users] = np.moveaxis(
            new, 2 + posterior.model.dims[name].index("user"), 0
        )
    return replace(posterior, draws=draws, data=data)


def _usable(posterior: Posterior, batch: Batch) -> Batch:
    """The rows about items that are known, with a warning about the others."""
    usable, other = batch.item >= 0, posterior.data.columns.sides[1]
    if usable.all():
        return batch
    first = batch.item_id[np.flatnonzero(~usable)[0]]
    warnings.warn(
        f"{int((~usable).sum())} of {len(batch)} rows are about {other}s that were not in the fit (the first: "
        f"{shown(first)}) and are left out.",
        DataWarning,
        stacklevel=5,
    )
    return _subset(batch, usable)


def _subset(batch: Batch, keep: np.ndarray) -> Batch:
    names = ("user", "item", "domain", "value", "time", "user_id", "item_id", "domain_name")
    parts: dict[str, Any] = {name: getattr(batch, name) for name in names}
    kept: dict[str, Any] = {name: part if part is None else part[keep] for name, part in parts.items()}
    return replace(batch, **kept)


def _new_rows(data: Interactions, batch: Batch) -> Interactions:
    """The rows of a batch under the ids of the data; of those that repeat the data layer keeps the last and warns."""
    if data.time is not None and batch.time is None:
        newest = data.time.max() if len(data) else np.zeros((), data.time.dtype)
        batch = replace(batch, time=np.full(len(batch), newest, dtype=data.time.dtype))
    return data.mask(np.zeros(len(data), dtype=bool)).with_rows(batch)


def _joined(data: Interactions, rows: Interactions) -> Interactions:
    """Rows behind the others, none of which they repeat."""
    names = ("user", "item", "domain", "value") + (() if data.time is None else ("time",))
    parts: dict[str, Any] = {name: np.concatenate([getattr(data, name), getattr(rows, name)]) for name in names}
    return replace(data, **parts)


def _alone(rows: Interactions, n_known: int, ids: pd.Index) -> Interactions:
    """The rows of new users, in a table that knows nobody else."""
    features = rows.user_features
    if isinstance(features, Features):
        features = features.take(np.arange(n_known, rows.n_users))
    return replace(rows, user=rows.user - n_known, users=Vocabulary((ids,)), user_features=features)


def _shelf(posterior: Posterior) -> np.ndarray:
    """Items that had a target row in training, as codes."""
    if posterior.shelf is not None:
        return posterior.shelf
    data, last = posterior.data, posterior.schema.n_domains - 1

    def codes() -> np.ndarray:
        return np.unique(data.item[data.is_target]) if len(data) else np.flatnonzero(data.items.scope_of() == last)

    return np.asarray(posterior.recalled("shelf", data, codes))


def _table(
    posterior: Posterior, rows: Interactions, users: np.ndarray, ids: pd.Index, x: Any
) -> tuple[Table, np.ndarray]:
    """Ratings of some users (codes, ascending) and of no items but those that count for them; and the codes of these."""
    schema = posterior.schema
    every = np.arange(schema.n_items) if posterior.model.likelihood.whole else rows.item
    items = np.unique(every)
    item = np.searchsorted(items, rows.item)
    table = Table.build(
        np.searchsorted(users, rows.user),
        item,
        rows.domain,
        schema.standardise(rows.value, rows.domain),
        n_users=len(users),
        n_items=len(items),
        item_domain=schema.item_domain.numpy()[items],
        n_domains=schema.n_domains,
        user_ids=ids,
        user_x=x,
        item_x=None if schema.item_x is None else schema.item_x[items],
        newcomers=int((users >= schema.n_users - schema.newcomers).sum()),
    )
    return table, items


def _draw(posterior: Posterior, given: tuple[Table, np.ndarray], seed: list[int]) -> dict[str, np.ndarray]:
    """Draws (chain, draw, *event) of the sites of the users of a table, given everything else in each draw."""
    (table, items), model = given, posterior.model
    dims = model.dims
    local = [block for block in model.blocks(table) if block.local]
    sites = [name for name, axes in dims.items() if "user" in axes]
    held = {}
    for name in dims:
        if name not in sites:
            part = posterior.draws[name]
            if "item" in dims[name]:
                part = np.take(part, items, axis=2 + dims[name].index("item"))
            held[name] = part.astype(np.float64)
    rngs = [np.random.default_rng([*seed, chain]) for chain in range(posterior.n_chains)]
    sweeps = (1, 1) if len(local) == 1 else (WARM, SWEEPS)
    if covers(model) and table.weight is None:
        out = chains(model, table, held, len(local) > 1, *sweeps, rngs)
    else:
        out = _by_blocks(model, table, held, local, sweeps, rngs)
    if model.activity and not model.pools:
        out["user_vector"][:, :, table.count[-1] == 0] += posterior.draws["user_shift"][:, :, None]
    return out


def _by_blocks(
    model: Model,
    table: Table,
    held: dict[str, np.ndarray],
    local: list[Block],
    sweeps: tuple[int, int],
    rngs: list[np.random.Generator],
) -> dict[str, np.ndarray]:
    """The same by the blocks of any model."""
    dims = model.dims
    sites = [name for name in dims if name not in held]
    n_draws = next(iter(held.values())).shape[1]
    new: dict[str, np.ndarray] = {}
    for chain, rng in enumerate(rngs):
        carried = {name: x for name, x in model.start(table, rng).items() if name in sites or name not in dims}
        for draw in range(n_draws):
            state = {name: x[chain, draw] for name, x in held.items()} | carried
            for _ in range(sweeps[draw > 0]):
                for block in local:
                    state |= block.update(state, rng)
            carried = {name: state[name] for name in carried}
            for name in sites:
                value = np.asarray(state[name])
                if name not in new:
                    new[name] = np.empty((len(rngs), n_draws, *value.shape), dtype=np.float32)
                new[name][chain, draw] = value
    return new
