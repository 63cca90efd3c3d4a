"""Source weight and relevance: what a prediction owes to source, population and the user's own ratings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bayesrec import conjugate
from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.data.frames import make_frame
from bayesrec.errors import DataError
from bayesrec.models.base import Informants
from bayesrec.posterior import Posterior

__all__ = ["relevance", "source_weight"]


def source_weight(posterior: Posterior, frame: Any, draws: int = 100) -> Any:
    """Say how much of each prediction comes from the source, the target population and the user's own ratings. Stable.

    Given a draw of items and hyperparameters the posterior precision of a user's target vector is a sum,
    ``A = L_population + L_source + L_target``, and the prediction for an item with design vector ``v = (1, q)`` has
    variance ``v'A^-1 v``. Informant ``c`` has the weight ``v'A^-1 L_c A^-1 v / v'A^-1 v``; the weights sum to one
    and are averaged over draws, and over the states of the gates with their posterior probabilities.

    Parameters
    ----------
    posterior : Posterior
    frame : DataFrame or Interactions
        User and item columns; target rows.
    draws : int
        Number of draws, evenly spaced over all chains, that the average takes.

    Returns
    -------
    DataFrame
        user, item, source, population, target; the three sum to 1 in every row. A user without source rows has
        source 0 exactly; an unknown user rests on the population alone; an unknown item counts as an average one.

    Raises
    ------
    DataError
        Rows of a source domain; fewer draws than one.
    NotFittedError
        A posterior that was saved without its ratings.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(10, 10), n_ratings=(8, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=20, warmup=20, chains=2), progress=False)
    >>> weights = br.source_weight(posterior, frame[frame.domain == "target"].head(3))
    >>> bool(((weights.source + weights.population + weights.target - 1).abs() < 1e-9).all())
    True
    """
    _check_draws(draws)
    posterior.require_data("source_weight")
    batch = posterior.data.encode(frame)
    last = posterior.schema.n_domains - 1
    if (batch.domain != last).any():
        row = int(np.argmax(batch.domain != last))
        raise DataError(
            f"row {row} belongs to domain {batch.domain_name[row]!r}; source weights are of predictions in the "
            f"target {posterior.data.target!r}."
        )
    users, index = np.unique(batch.user, return_inverse=True)
    known = index[batch.user >= 0] - int(len(users) > 0 and users[0] < 0)
    item = batch.item[batch.user >= 0]
    total = np.zeros((3, len(item)))
    count = 0
    for state, table, informants in _informants(posterior, users[users >= 0], draws):
        vectors = np.concatenate([state["item_vector"], state["item_mean"][-1:]])[item].copy()
        vectors[:, 0] = 1.0
        total += _weights(posterior, state, table, informants, known, vectors)
        count += 1
    out = np.zeros((3, len(batch)))
    out[1, batch.user < 0] = 1.0
    if count:
        out[:, batch.user >= 0] = total / count
    out /= out.sum(0)
    names = posterior.data.columns
    answer = names.ids(batch.user_id, batch.item_id)
    return make_frame(answer | dict(zip(("source", "population", "target"), out, strict=True)), batch.backend)


def relevance(posterior: Posterior, draws: int = 100) -> Any:
    """Posterior probability that a source says something about a user. Provisional.

    The gate of :class:`bayesrec.models.TransferMF`, given the user's target rows, with the user's vectors integrated
    out: close to 1 for users whose target ratings fit what their source ratings announced.

    Parameters
    ----------
    posterior : Posterior
    draws : int
        Number of draws that the average takes.

    Returns
    -------
    DataFrame
        user, domain (the source), n (the user's target rows), relevance; users with rows in that source only. NaN
        for a model without a gate. User and domain have the names that the columns have in the data.

    Raises
    ------
    DataError
        Fewer draws than one.
    NotFittedError
        A posterior that was saved without its ratings.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(10, 10), n_ratings=(8, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=20, warmup=20, chains=2), progress=False)
    >>> br.relevance(posterior).columns.tolist()
    ['user', 'domain', 'n', 'relevance']
    """
    _check_draws(draws)
    posterior.require_data("relevance")
    data = posterior.data
    total: np.ndarray | float = 0.0
    count = 0
    for _, _, informants in _informants(posterior, np.arange(data.n_users), draws):
        total = total + informants.relevance
        count += 1
    mean = np.asarray(total) / max(count, 1)
    own = np.bincount(data.user[data.is_target], minlength=data.n_users)
    pairs = np.unique(np.stack([data.domain, data.user], axis=1)[~data.is_target], axis=0)
    if getattr(posterior.model, "source", None) is not None:  # no rows: whom the source prior knows
        pairs = np.argwhere(~np.isnan(mean))
    source, user = pairs[:, 0], pairs[:, 1]
    name = data.columns.domain or "domain"
    table = {
        data.columns.user: data.users.decode(user),
        name: np.array(data.domains, dtype=object)[source],
        "n": own[user],
        "relevance": mean[source, user],
    }
    return make_frame(table, data.layout.backend, {name: data.layout.domain_dtype})


def _check_draws(draws: Any) -> None:
    if isinstance(draws, bool) or not isinstance(draws, (int, np.integer)) or draws < 1:
        raise DataError(f"draws must be at least 1, not {draws!r}; give a whole number")


def _informants(posterior: Posterior, users: np.ndarray, draws: int) -> Iterator[tuple[State, Table, Informants]]:
    """State, ratings and informants of ``users`` (codes) for some draws, evenly spaced over all chains."""
    if not len(users):
        return
    data = posterior.data
    position = np.full(data.n_users, -1)
    position[users] = np.arange(len(users))
    mine = data.mask(position[data.user] >= 0)
    table = Table.build(
        position[mine.user],
        mine.item,
        mine.domain,
        posterior.schema.standardise(mine.value, mine.domain),
        n_users=len(users),
        n_items=data.n_items,
        item_domain=posterior.schema.item_domain.numpy(),
        n_domains=posterior.schema.n_domains,
        user_ids=data.users.decode(users),
    )
    n = posterior.n_chains * posterior.n_draws
    for s in np.unique(np.linspace(0, n - 1, min(draws, n)).astype(int)):
        state = posterior.draw(*divmod(int(s), posterior.n_draws), users=users)
        yield state, table, posterior.model.prior_precision(state, table)


def _weights(
    posterior: Posterior, state: State, table: Table, informants: Informants, user: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """Weights (3, row) of source, population and target for one draw."""
    value, weight = posterior.model.likelihood.working(state, table, "user")
    gram, _ = conjugate.row_grams(table.user_ptr, table.user_item, value, weight, state["item_vector"])
    own = gram.reshape(table.n_users, table.n_domains, *gram.shape[1:])[:, -1]
    out = np.zeros((3, len(user)))
    for probability, source in zip(informants.probability, informants.source, strict=True):
        cov = np.linalg.inv(informants.population + source + own)
        a = np.einsum("nij,nj->ni", cov[user], vectors)
        variance = np.einsum("ni,ni->n", a, vectors)
        parts = [np.einsum("ni,nij,nj->n", a, part[user], a) for part in (source, informants.population, own)]
        out += probability[user] * np.stack(parts) / variance
    return out
