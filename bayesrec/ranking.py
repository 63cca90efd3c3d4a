"""recommend: from a posterior and a rule to ranked lists with intervals and source weights."""

from __future__ import annotations

import hashlib
import warnings
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data import Interactions, Vocabulary
from bayesrec.data.frames import make_frame
from bayesrec.data.ids import lookup_keys, shown
from bayesrec.data.seeds import checked_seed
from bayesrec.diagnostics import Stack, source_weight
from bayesrec.errors import DataError, DataWarning
from bayesrec.posterior import Posterior
from bayesrec.rules import Rule, by_name

__all__ = ["recommend", "sides"]


def recommend(
    posterior: Posterior | Stack,
    users: Any,
    n: int = 10,
    by: str | Rule = "mean",
    exclude: Any = "seen",
    items: Any = None,
    seed: int = 0,
    *,
    level: float = 0.9,
) -> Any:
    """Rank items of the target for each user. Stable.

    Parameters
    ----------
    posterior : Posterior or Stack
    users : sequence of ids, or one id
        An id that was not in the fit is ranked from the population: such users differ in Thompson lists alone. Where
        items are shared, ids are those of the target's users.
    n : int
        Length of a list. With fewer candidates the list is shorter and a warning says so.
    by : str or callable
        ``"mean"``, ``"ucb"``, ``"lcb"``, ``"thompson"``, ``"prob_best"``, or a rule such as ``br.rules.ucb(2.0)``.
    exclude : "seen", None, Interactions or DataFrame
        Items a user must not get: the user's own target rows, nothing, or the rows given.
    items : sequence of ids, optional
        Candidates; by default the items with a target row in training.
    seed : int
        Every user has a generator of their own, derived from it and from the id: a Thompson list does not depend
        on who else is asked for.
    level : float
        Of the interval.

    Returns
    -------
    DataFrame
        user, rank, item, score, mean, sd, lower, upper, source_weight. ``score`` is the rule's utility, from draws of
        the expected rating; mean to upper describe a new rating. Ties break by id. The source weight is NaN if the
        posterior was saved without its ratings. Ids have the dtype that they have in the data, where all fit it.

    Raises
    ------
    DataError
        No user, a user named twice or an id that is missing; an unknown candidate; a rule, a seed or a length of a
        list that makes no sense; a rule that returns NaN.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(10, 10), n_ratings=(8, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=20, warmup=20, chains=2), progress=False)
    >>> br.recommend(posterior, [3], n=2)["rank"].tolist()
    [1, 2]
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise DataError(f"n must be a whole number of at least 1, not {n!r}")
    rule, data = by_name(by), posterior.data
    seed = checked_seed(seed)
    people, things, domain = sides(posterior)
    ids = _ids(users, "users")
    codes = people.encode(ids, domain)
    # a user of the fit is called as there, whatever the number type of the request
    ids = pd.Index([people.ids[code] if code >= 0 else id_ for code, id_ in zip(codes, ids, strict=True)], dtype=object)
    if ids.has_duplicates:
        raise DataError(f"user {shown(ids[ids.duplicated()][0])} is named twice; name each user once.")
    candidates = _candidates(posterior, items)
    banned = _excluded(posterior, exclude)
    lists, short = [], []
    for place, (user_id, user) in enumerate(zip(ids, codes, strict=True)):
        # the rows of a user who is not known by a code are found by id
        mine = candidates[~np.isin(candidates, banned.get(user_id, ()))]
        rng = np.random.default_rng([seed, _digest(user_id)])
        chosen = np.empty(0, dtype=int)
        if len(mine):
            utility = np.asarray(rule(posterior.expected(int(user), mine)[:, None, :], rng))
            if utility.shape != (1, len(mine)):
                raise DataError(f"the rule returned shape {utility.shape} for draws of 1 user and {len(mine)} items")
            if np.isnan(utility).any():
                raise DataError(
                    f"the rule returned NaN for {np.isnan(utility).sum()} of {len(mine)} items of user {shown(user_id)}; "
                    "a utility must be a number to rank by, such as -inf for an item that is out of the question."
                )
            order = np.lexsort((mine, -utility[0]))[:n]  # codes follow the order of ids
            chosen, score = mine[order], utility[0][order]
            lists.append(
                pd.DataFrame({"u": place, "rank": np.arange(1, len(order) + 1), "code": chosen, "score": score})
            )
        if len(chosen) < n:
            short.append(user_id)
    if short:
        warnings.warn(
            f"{len(short)} of {len(ids)} users have fewer than {n} candidates (the first: {shown(short[0])}); "
            "their lists are shorter.",
            DataWarning,
            stacklevel=2,
        )
    if lists:
        out = pd.concat(lists, ignore_index=True)
    else:
        out = pd.DataFrame(
            {"u": np.empty(0, int), "rank": np.empty(0, int), "code": np.empty(0, int), "score": np.empty(0)}
        )
    person, thing = data.columns.ids(data.columns.user, data.columns.item)
    known = people.ids if people.scopes is None else people.ids[people.scope_of() == domain].infer_objects()
    like_known = _like_known(ids, known, data.layout.backend)
    cells = pd.DataFrame({person: like_known.take(out["u"].to_numpy()), thing: things.decode(out["code"])})
    answer = posterior.predict(cells, level=level)
    weights = posterior.source_weight if isinstance(posterior, Stack) else partial(source_weight, posterior)
    weight = weights(cells)["source"].to_numpy() if len(data) else np.full(len(cells), np.nan)
    table = {person: cells[person], "rank": out["rank"], thing: cells[thing], "score": out["score"]}
    table |= {name: answer[name] for name in ("mean", "sd", "lower", "upper")} | {"source_weight": weight}
    return make_frame(table, data.layout.backend)


def sides(posterior: Posterior | Stack) -> tuple[Vocabulary, Vocabulary, int]:
    """Users and items as the caller knows them, and the code of the target. Internal."""
    data = posterior.data
    pair = (data.items, data.users) if data.columns.swapped else (data.users, data.items)
    return (*pair, posterior.schema.n_domains - 1)


def _ids(given: Any, what: str) -> pd.Index:
    """One id or a sequence of ids as objects: in an array of one type 1 and "new" would both become strings."""
    if len(getattr(given, "shape", ())) > 1:
        raise DataError(f"{what} must be a sequence of ids, such as one column, not a table of shape {given.shape}")
    one = given[()] if isinstance(given, np.ndarray) else given  # an array without axes as its number
    ids = pd.Index(list(given) if pd.api.types.is_list_like(given) else [one], dtype=object)
    if not len(ids):
        raise DataError(f"{what} is empty: name at least one id.")
    if ids.hasnans:
        raise DataError(f"{what}: the id at place {int(ids.isna().argmax())} (counted from 0) is missing; drop it.")
    return ids


def _like_known(ids: pd.Index, known: pd.Index, backend: str) -> pd.Index:
    """Ids in the dtype that the known ones have in the data, or in one of their own if they do not fit it."""
    try:
        cast = ids.astype(known.dtype)
    except (TypeError, ValueError, OverflowError):
        cast = ids.infer_objects()
    if not lookup_keys(cast).equals(lookup_keys(ids)):
        cast = ids.infer_objects()
    if backend != "pandas" and len({isinstance(id_, str) for id_ in ids}) > 1:
        raise DataError(
            f"users are strings and numbers, which no column of {backend} can hold; ask for {shown(ids[0])} and for ids "
            "of the other type apart."
        )
    return cast


def _candidates(posterior: Posterior | Stack, items: Any) -> np.ndarray:
    """Codes of the candidate items, sorted."""
    (_, things, last), data = sides(posterior), posterior.data
    if items is None:
        if len(data):
            return np.unique((data.user if data.columns.swapped else data.item)[data.is_target])
        return np.arange(len(things)) if things.scopes is None else np.flatnonzero(things.scope_of() == last)
    ids = _ids(items, "items")
    codes = things.encode(ids, last)
    if (codes < 0).any():
        raise DataError(
            f"item {shown(ids[int(np.argmax(codes < 0))])} was not in the fit; candidates must be items of the target."
        )
    return np.unique(codes)


def _excluded(posterior: Posterior | Stack, exclude: Any) -> dict[Any, np.ndarray]:
    """Item codes that each user id must not get."""
    if exclude is None:
        return {}
    if isinstance(exclude, str):
        if exclude != "seen":
            raise DataError(f"exclude must be 'seen', None, Interactions or a frame, not {exclude!r}")
        posterior.require_data('exclude="seen"')
        rows: Interactions | Any = posterior.data.mask(posterior.data.is_target)
    else:
        rows = exclude
    batch = posterior.data.encode(rows)
    target = batch.domain == posterior.schema.n_domains - 1
    who, what = (batch.item_id, batch.user) if batch.columns.swapped else (batch.user_id, batch.item)
    frame = pd.DataFrame({"u": who[target], "item": what[target]})
    return {user: group.to_numpy() for user, group in frame.groupby("u")["item"]}


def _digest(user_id: Any) -> int:
    """A number that depends on the id alone."""
    return int.from_bytes(hashlib.sha256(str(user_id).encode()).digest()[:8], "little")
