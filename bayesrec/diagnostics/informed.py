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

__all__ = ["Informed", "checked_draws", "informed", "needs_posterior", "popularity", "spread_out", "target_rows"]

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
    row_of : ndarray of int, (item + 1,)
        Rows of ``state["item_vector"]`` by the code of an item; the last, of an unknown item (-1), is -1.
    """

    place: list[int]
    state: State
    informants: Informants
    own: np.ndarray
    linear: np.ndarray
    squares: np.ndarray
    unit: np.ndarray
    sources: np.ndarray
    row_of: np.ndarray

    def vectors(self, item: np.ndarray) -> np.ndarray:
        """Vectors (row, R) of items, the bias first; an unknown item (-1) is an average one."""
        return np.concatenate([self.state["item_vector"], self.state["item_mean"][-1:]])[self.row_of[item]]

    def designs(self, item: np.ndarray) -> np.ndarray:
        """The same with 1 in the place of the bias: what users' vectors are multiplied by."""
        out = self.vectors(item)
        out[:, 0] = 1.0
        return out


def needs_posterior(posterior: Any, what: str, otherwise: str) -> None:
    """Refuse a stack, a model or nothing where a posterior is needed."""
    if not isinstance(posterior, Posterior):
        raise TypeError(f"{what} takes a Posterior, not {type(posterior).__name__}; {otherwise}")


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
    items: np.ndarray | None = None,
) -> Iterator[Informed]:
    """For some draws, who informs ``users`` (codes), given ratings ``rows`` (user, item, domain, value), by default their own.

    With ``items`` (codes, -1 unknown) the vectors of these alone can be asked for, and no others are touched.
    """
    if not len(users):
        return
    data, model = posterior.data, posterior.model
    user, item, domain, value = (data.user, data.item, data.domain, data.value) if rows is None else rows
    position = np.full(data.n_users, -1)
    position[users] = np.arange(len(users))
    mine = position[user] >= 0
    value = posterior.schema.standardise(value[mine], domain[mine])
    typical, some = int(popularity(posterior).argmax()), None
    if items is not None and not model.likelihood.whole:
        some = np.unique(np.concatenate([items[items >= 0], item[mine], [typical]]))
    row_of = np.append(np.arange(data.n_items), -1)
    if some is not None:
        row_of[:-1] = data.n_items  # of all others: no row has this number
        row_of[some] = np.arange(len(some))
    table = _table(posterior, users, position[user[mine]], row_of[item[mine]], domain[mine], value, some)
    target = table.user_domain == table.n_domains - 1
    who, what = table.user_of[target], table.user_item[target]
    probe = _probe(posterior, users, row_of[typical], some)
    for chain, draw in places:
        state = posterior.draw(chain, draw, users, some)
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
            row_of,
        )


def _table(
    posterior: Posterior,
    users: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
    domain: np.ndarray,
    value: np.ndarray,
    some: np.ndarray | None,
) -> Table:
    """Ratings (standardised) of ``users``, whose places there are ``user``, and of all items or of some (codes)."""
    schema, items = posterior.schema, slice(None) if some is None else some
    return Table.build(
        user,
        item,
        domain,
        value,
        n_users=len(users),
        n_items=posterior.data.n_items if some is None else len(some),
        item_domain=schema.item_domain.numpy()[items],
        n_domains=schema.n_domains,
        user_ids=posterior.data.users.decode(users),
        user_x=None if schema.user_x is None else schema.user_x[users],
        item_x=None if schema.item_x is None else schema.item_x[items],
    )


def _probe(posterior: Posterior, users: np.ndarray, item: int, some: np.ndarray | None) -> Table:
    """A rating for each user, of the item that has most: what says how precise one would be."""
    items, domains = (np.full(len(users), code) for code in (item, posterior.schema.n_domains - 1))
    return _table(posterior, users, np.arange(len(users)), items, domains, np.zeros(len(users)), some)


def popularity(posterior: Posterior) -> np.ndarray:
    """Share of each item (item,) of the target ratings; equal shares of the target's items if there is no rating."""
    data = posterior.data
    count = np.bincount(data.item[data.is_target], minlength=data.n_items)
    if not count.any():
        count = (posterior.schema.item_domain.numpy() == posterior.schema.n_domains - 1).astype(int)
    return count / count.sum()


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
