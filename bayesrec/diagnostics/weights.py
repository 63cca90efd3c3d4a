"""Source weight and relevance: what a prediction owes to source, population and the user's own ratings."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesrec.data.frames import make_frame
from bayesrec.diagnostics.informed import Informed, checked_draws, informed, needs_posterior, spread_out, target_rows
from bayesrec.posterior import Posterior

__all__ = ["relevance", "source_weight"]


def source_weight(posterior: Posterior, frame: Any, draws: int = 100, *, by_source: bool = False) -> Any:
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
    by_source : bool
        Whether a column for each source says what is its part in ``source``. What one source adds depends on which others are
        there already, so its part is Shapley's (1953), `shapley1953`: the average over all orders in which they can come in,
        exactly. The work grows like ``3 ** sources`` where there are gates.

    Returns
    -------
    DataFrame
        user, item, source, population, target; the three sum to 1 in every row. A user without source rows has
        source 0 exactly; an unknown user rests on the population alone; an unknown item counts as an average one.
        With ``by_source`` also ``source[book]``, ... for each source; they sum to ``source``, and are exactly 0 for a user
        without rows there.

    Raises
    ------
    DataError
        Rows of a source domain; fewer draws than one.
    NotFittedError
        A posterior that was saved without its ratings.
    UnsupportedMethodError
        ``by_source`` for a model that does not say what each of several sources adds.

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
    needs_posterior(posterior, "source_weight", "stack.source_weight(frame) weighs its arms")
    places = spread_out(posterior, checked_draws(draws))
    posterior.require_data("source_weight")
    batch = target_rows(posterior, frame, "source weights are of predictions")
    known = batch.user >= 0
    users, index = np.unique(batch.user[known], return_inverse=True)
    sources = posterior.schema.domains[:-1] if by_source else ()
    names = ["source", "population", "target", *(f"source[{name}]" for name in sources)]
    out = np.zeros((len(names), len(batch)))
    for one in informed(posterior, users, places, by_source=by_source, items=batch.item[known]):
        out[:, known] += _weights(one, index, one.designs(batch.item[known]))
    out[1, ~known] = 1.0
    out /= out[:3].sum(0)
    answer = posterior.data.columns.ids(batch.user_id, batch.item_id)
    return make_frame(answer | dict(zip(names, out, strict=True)), batch.backend)


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
    needs_posterior(posterior, "relevance", "of a stack give it an arm")
    places = spread_out(posterior, checked_draws(draws))
    posterior.require_data("relevance")
    data = posterior.data
    every = informed(posterior, np.arange(data.n_users), places)
    mean = np.asarray(sum(one.informants.relevance for one in every)) / len(places)
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


def _weights(one: Informed, user: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Weights (3 + source, row) of source, population and target, and of single sources, for one draw."""
    who, out = one.informants, np.zeros((3 + len(one.sources), len(user)))
    for c, (probability, source) in enumerate(zip(who.probability, who.source, strict=True)):
        cov = np.linalg.inv(who.population + source + one.own)
        a = np.einsum("nij,nj->ni", cov[user], vectors)
        variance = np.einsum("ni,ni->n", a, vectors)
        each = source, who.population, one.own, *one.sources[:, c]
        parts = [np.einsum("ni,nij,nj->n", a, part[user], a) for part in each]
        out += probability[user] * np.stack(parts) / variance
    return out
