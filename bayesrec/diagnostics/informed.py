"""Who informs each user's target vector, draw by draw: the base of source weights, borrowing and conflict. Internal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.data.batch import Batch
from bayesrec.errors import DataError, UnsupportedMethodError
from bayesrec.models.base import Informants
from bayesrec.posterior import Posterior

__all__ = ["Informed", "checked_draws", "designs", "informed", "popularity", "spread_out", "target_rows"]

Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Informed:
    """One draw.

    Attributes
    ----------
    place : list of int
        Chain and draw.
    state : State
    informants : Informants
    own, linear, squares : ndarray, (user, R, R), (user, R) and (user,)
        Of the user's target ratings less the items' biases ``y``, with designs ``X`` and noise precisions ``L``:
        ``X'LX``, ``X'Ly`` and ``y'Ly``.
    unit : ndarray, (user,)
        Noise precision of one target rating.
    sources : ndarray, (source, component, user, R, R)
        Part of each source in what the informants have from all of them; without sources where it was not asked for.
    """

    place: list[int]
    state: State
    informants: Informants
    own: np.ndarray
    linear: np.ndarray
    squares: np.ndarray
    unit: np.ndarray
    sources: np.ndarray


def checked_draws(draws: Any) -> int:
    """A number of draws, or a DataError."""
    if isinstance(draws, bool) or not isinstance(draws, (int, np.integer)) or draws < 1:
        raise DataError(f"draws must be at least 1, not {draws!r}; give a whole number")
    return int(draws)


def spread_out(posterior: Posterior, draws: int) -> list[tuple[int, int]]:
    """At most so many places (chain, draw), evenly spaced over all chains."""
    n = posterior.n_chains * posterior.n_draws
    return [divmod(int(s), posterior.n_draws) for s in np.unique(np.linspace(0, n - 1, min(draws, n)).astype(int))]


def needs_rows(posterior: Posterior, what: str) -> None:
    """Refuse likelihoods to which cells without a row say something as well."""
    if posterior.model.likelihood.whole:
        raise UnsupportedMethodError(
            f"{what} counts in rows, and {posterior.model.likelihood!r} counts cells without a row as well; "
            "br.source_weight says what each prediction rests on."
        )


def informed(
    posterior: Posterior,
    users: np.ndarray,
    places: Iterable[tuple[int, int]],
    rows: Rows | None = None,
    by_source: bool = False,
) -> Iterator[Informed]:
    """For some draws, who informs ``users`` (codes), given ratings ``rows`` (user, item, domain, value), by default their own."""
    if not len(users):
        return
    data, model = posterior.data, posterior.model
    user, item, domain, value = (data.user, data.item, data.domain, data.value) if rows is None else rows
    position = np.full(data.n_users, -1)
    position[users] = np.arange(len(users))
    mine = position[user] >= 0
    value = posterior.schema.standardise(value[mine], domain[mine])
    table = _table(posterior, users, position[user[mine]], item[mine], domain[mine], value)
    target = table.user_domain == table.n_domains - 1
    who, what = table.user_of[target], table.user_item[target]
    probe = _probe(posterior, users)
    for chain, draw in places:
        state = posterior.draw(chain, draw, users=users)
        response, weight = model.observed(state, table)
        gram, linear = model.told(state, table)
        above = response[target] - state["item_vector"][what, 0]
        informants = model.prior_precision(state, table)
        yield Informed(
            [chain, draw],
            state,
            informants,
            gram[:, -1],
            linear[:, -1],
            np.bincount(who, weight[target] * above**2, minlength=table.n_users),
            np.asarray(model.observed(state, probe)[1], dtype=np.float64),
            model.source_precision(state, table) if by_source else informants.source[None][:0],
        )


def _table(
    posterior: Posterior,
    users: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
    domain: np.ndarray,
    value: np.ndarray,
) -> Table:
    """Ratings (standardised) of ``users``, whose places there are ``user``."""
    schema = posterior.schema
    return Table.build(
        user,
        item,
        domain,
        value,
        n_users=len(users),
        n_items=posterior.data.n_items,
        item_domain=schema.item_domain.numpy(),
        n_domains=schema.n_domains,
        user_ids=posterior.data.users.decode(users),
        user_x=None if schema.user_x is None else schema.user_x[users],
        item_x=schema.item_x,
    )


def _probe(posterior: Posterior, users: np.ndarray) -> Table:
    """A rating for each user, of the item that has most: what says how precise one would be."""
    item, domain = popularity(posterior).argmax(), posterior.schema.n_domains - 1
    items, domains = (np.full(len(users), code) for code in (item, domain))
    return _table(posterior, users, np.arange(len(users)), items, domains, np.zeros(len(users)))


def popularity(posterior: Posterior) -> np.ndarray:
    """Share of each item (item,) of the target ratings; equal shares of the target's items if there is no rating."""
    data = posterior.data
    count = np.bincount(data.item[data.is_target], minlength=data.n_items)
    if not count.any():
        count = (posterior.schema.item_domain.numpy() == posterior.schema.n_domains - 1).astype(int)
    return count / count.sum()


def designs(state: State, item: np.ndarray) -> np.ndarray:
    """Vectors (row, R) that users' vectors are multiplied by, the bias's entry 1; an unknown item (-1) is an average one."""
    vectors = np.concatenate([state["item_vector"], state["item_mean"][-1:]])[item].copy()
    vectors[:, 0] = 1.0
    return vectors


def target_rows(posterior: Posterior, frame: Any, what: str, need_value: bool = False) -> Batch:
    """A table's rows in the codes of the posterior; a DataError if one is not of the target."""
    batch = posterior.data.encode(frame, need_value=need_value)
    outside = np.flatnonzero(batch.domain != posterior.schema.n_domains - 1)
    if outside.size:
        raise DataError(
            f"row {outside[0]} belongs to domain {batch.domain_name[outside[0]]!r}; {what} in the "
            f"target {posterior.data.target!r}."
        )
    return batch
