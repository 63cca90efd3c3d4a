"""recommend: from a posterior and a rule to ranked lists with intervals and source weights."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data import Vocabulary
from bayesrec.data.frames import make_frame
from bayesrec.data.ids import lookup_keys, shown
from bayesrec.data.seeds import checked_seed
from bayesrec.diagnostics import Stack, source_weight
from bayesrec.errors import DataError, DataWarning
from bayesrec.posterior import Posterior, answers, topn
from bayesrec.posterior.lists import ExpectedRatings
from bayesrec.rules import Rule, by_name

__all__ = ["recommend", "sides"]

SHORT = 100  # up to this length lists are made in one pass over the utilities


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
    groups: Any = None,
    max_per_group: int | Mapping[Any, int] | None = None,
    explain: bool = True,
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
        ``"mean"``, ``"ucb"``, ``"lcb"``, ``"thompson"``, ``"prob_best"``, ``"expected_utility"``, ``"mean_variance"``, or
        a rule such as ``br.rules.ucb(2.0)``.
    exclude : "seen", None, Interactions or DataFrame
        Items a user must not get: the user's own target rows, nothing, or the rows given.
    items : sequence of ids, optional
        Candidates; by default the items with a target row in training.
    seed : int
        Every user has a generator of their own, derived from it and from the id: a Thompson list does not depend
        on who else is asked for.
    level : float
        Of the interval.
    groups : mapping or Series, optional
        Group of every candidate, by item id: a genre, a seller.
    max_per_group : int or mapping of group to int, optional
        The most items of a group in a list; groups that a mapping does not name have no limit. Items are taken in the
        order of utility, and those whose group is full are passed over.
    explain : bool
        False leaves the source weights out (NaN), which take most of the time of a short request where there is a source.

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
        list that makes no sense; a rule that returns NaN; a candidate without a group, a limit for a group that no
        candidate has.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(10, 10), n_ratings=(8, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=20, warmup=20, chains=2), progress=False)
    >>> br.recommend(posterior, [3], n=2)["rank"].tolist()
    [1, 2]
    """
    if not isinstance(posterior, (Posterior, Stack)):
        raise TypeError(f"recommend takes what br.fit or br.stack gave, not {type(posterior).__name__}")
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise DataError(f"n must be a whole number of at least 1, not {n!r}")
    rule, data = by_name(by), posterior.data
    seed = checked_seed(seed)
    people, things, domain = sides(posterior)
    ids = ids_of(users, "users")
    codes = people.encode(ids, domain)
    # a user of the fit is called as there, whatever the number type of the request
    ids = pd.Index([people.ids[code] if code >= 0 else id_ for code, id_ in zip(codes, ids, strict=True)], dtype=object)
    if ids.has_duplicates:
        raise DataError(f"user {shown(ids[ids.duplicated()][0])} is named twice; name each user once.")
    candidates = candidates_of(posterior, items)
    banned = excluded(posterior, exclude, ids, codes)
    limits = limits_of(groups, max_per_group, things.decode(candidates))
    who, rank, chosen, score, short = [], [], [], [], []
    for place, (utility, keep) in enumerate(_utilities(posterior, rule, candidates, codes, ids, banned, seed)):
        best = _best(utility, keep, n, limits)
        if len(best):
            chosen.append(candidates[best])  # codes follow the order of ids
            score.append(utility[best])
            rank.append(np.arange(1, len(best) + 1))
            who.append(np.full(len(best), place))
        if len(best) < n:
            short.append(ids[place])
    if short:
        warnings.warn(
            f"{len(short)} of {len(ids)} users have fewer than {n} candidates"
            f"{' within max_per_group' if limits else ''} (the first: {shown(short[0])}); their lists are shorter.",
            DataWarning,
            stacklevel=2,
        )
    codes_of, places = (np.concatenate([*parts, np.empty(0, dtype=int)]) for parts in (chosen, who))
    person, thing = data.columns.ids(data.columns.user, data.columns.item)
    names = like_known(ids, people, domain, data.layout.backend)
    cells = pd.DataFrame({person: names.take(places), thing: things.decode(codes_of)})
    if isinstance(posterior, Posterior):
        pair = (codes_of, codes[places]) if data.columns.swapped else (codes[places], codes_of)
        answer = answers.described(posterior, (*pair, np.full(len(cells), domain)), level)
    else:
        answer = posterior.predict(cells, level=level)
    table = {
        person: cells[person],
        "rank": np.concatenate([*rank, np.empty(0, dtype=int)]),
        thing: cells[thing],
        "score": np.concatenate([*score, np.empty(0)]).astype(float),
    }
    table |= {name: answer[name] for name in ("mean", "sd", "lower", "upper")}
    weight = _weights(posterior, cells) if explain else np.full(len(cells), np.nan)
    return make_frame(table | {"source_weight": weight}, data.layout.backend)


def _utilities(
    posterior: Posterior | Stack,
    rule: Rule,
    candidates: np.ndarray,
    codes: np.ndarray,
    ids: pd.Index,
    banned: dict[Any, np.ndarray],
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Utility of each candidate for each user in turn, and which of them the user may get."""
    _, things, _ = sides(posterior)
    alone = getattr(rule, "itemwise", False)
    everything, position = np.ones(len(candidates), dtype=bool), np.full(len(things), -1)
    position[candidates] = np.arange(len(candidates))

    def rng_of(place: int) -> np.random.Generator:
        return np.random.default_rng([seed, digest(ids[place])])

    def kept(place: int) -> np.ndarray:
        # the rows of a user who is not known by a code are found by id
        if ids[place] not in banned:
            return everything
        at, keep = position[banned[ids[place]]], everything.copy()
        keep[at[at >= 0]] = False
        return keep

    if isinstance(posterior, Posterior):
        ratings = ExpectedRatings(posterior, candidates, len(codes))
        if ratings.quick(rule):
            for place, quick in enumerate(ratings.utilities(codes, rule, rng_of)):
                yield quick, kept(place)
            return
        every = ratings.each(codes)
    else:
        every = (posterior.expected(int(user), candidates) for user in codes)
    for place, draws in enumerate(every):
        keep, utility = kept(place), np.zeros(len(candidates))
        if keep.any():
            given = draws if alone else draws[:, keep]
            found = _utility(rule, given, rng_of(place), ids[place])
            utility[slice(None) if alone else keep] = found
        yield utility, keep


def _utility(rule: Rule, draws: np.ndarray, rng: np.random.Generator, user_id: Any) -> np.ndarray:
    """What a rule says of one user's items, checked."""
    utility, n = np.asarray(rule(draws[:, None, :], rng)), draws.shape[1]
    if utility.shape != (1, n):
        raise DataError(f"the rule returned shape {utility.shape} for draws of 1 user and {n} items")
    if np.isnan(utility).any():
        raise DataError(
            f"the rule returned NaN for {np.isnan(utility).sum()} of {n} items of user {shown(user_id)}; "
            "a utility must be a number to rank by, such as -inf for an item that is out of the question."
        )
    return utility[0]


def _best(utility: np.ndarray, keep: np.ndarray, n: int, limits: Limits | None) -> np.ndarray:
    """Places of the ``n`` best that are kept in order, ties by place; with limits the best that they leave."""
    if limits is None and n <= SHORT:
        place = np.empty(n, dtype=np.int64)
        return place[: topn.top(utility, keep, n, place)]
    inside = np.flatnonzero(keep)
    if limits is None and n < len(inside):
        bound = np.partition(utility[inside], len(inside) - n)[len(inside) - n]
        inside = inside[utility[inside] >= bound]
    order = inside[np.argsort(-utility[inside], kind="stable")]
    return (order if limits is None else limits.kept(order))[:n]


def _weights(posterior: Posterior | Stack, cells: pd.DataFrame) -> np.ndarray:
    """Source weight of each cell; NaN without the ratings from which it is computed."""
    if not len(posterior.data):
        return np.full(len(cells), np.nan)
    if isinstance(posterior, Stack):
        return np.asarray(posterior.source_weight(cells)["source"])
    if posterior.schema.n_domains == 1:
        return np.zeros(len(cells))  # there is no source
    return np.asarray(source_weight(posterior, cells)["source"])


@dataclass(frozen=True)
class Limits:
    """How many items of each group a list may have: group of each candidate, limit of each group. Internal."""

    group: np.ndarray
    limit: np.ndarray

    def kept(self, order: np.ndarray) -> np.ndarray:
        """The candidates of ``order`` that find room in their group when they are taken in this order."""
        group = self.group[order]
        by_group = np.argsort(group, kind="stable")
        _, start, count = np.unique(group[by_group], return_index=True, return_counts=True)
        before = np.empty(len(order), dtype=int)
        before[by_group] = np.arange(len(order)) - np.repeat(start, count)
        return order[before < self.limit[group]]


def limits_of(groups: Any, most: Any, candidates: pd.Index) -> Limits | None:
    """Check groups and limits against the ids of the candidates. Internal."""
    if groups is None and most is None:
        return None
    if groups is None or most is None:
        given, missing = ("max_per_group", "groups") if groups is None else ("groups", "max_per_group")
        raise DataError(f"{given} needs {missing}: the group of each item, and how many of a group a list may have")
    series = groups if isinstance(groups, pd.Series) else pd.Series(dict(groups), dtype=object)
    if not len(series):
        raise DataError("groups is empty: it must name the group of every candidate")
    if series.index.has_duplicates:
        raise DataError(
            f"groups: item {shown(series.index[series.index.duplicated()][0])} has two entries; give it one"
        )
    place = lookup_keys(series.index).get_indexer(lookup_keys(candidates))
    code, names = pd.factorize(series.to_numpy(dtype=object)[place], use_na_sentinel=True)
    without = np.flatnonzero((place < 0) | (code < 0))
    if without.size:
        raise DataError(
            f"groups: item {shown(candidates[without[0]])} has no group ({without.size} of {len(candidates)} candidates have "
            "none); give it one, or leave it out of items=..."
        )
    named = most if isinstance(most, Mapping) else dict.fromkeys(names, most)
    for name, limit in named.items():
        if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 0:
            raise DataError(f"max_per_group: {limit!r} is no whole number of at least 0 (group {shown(name)})")
        if name not in names:
            raise DataError(
                f"max_per_group: no candidate has the group {shown(name)}; known groups: {list(names[:10])}"
            )
    return Limits(code, np.array([named.get(name, len(candidates)) for name in names], dtype=int))


def sides(posterior: Posterior | Stack) -> tuple[Vocabulary, Vocabulary, int]:
    """Users and items as the caller knows them, and the code of the target. Internal."""
    data = posterior.data
    pair = (data.items, data.users) if data.columns.swapped else (data.users, data.items)
    return (*pair, posterior.schema.n_domains - 1)


def ids_of(given: Any, what: str) -> pd.Index:
    """One id or a sequence of ids as objects; in an array of one type 1 and "new" would both become strings. Internal."""
    if len(getattr(given, "shape", ())) > 1:
        raise DataError(f"{what} must be a sequence of ids, such as one column, not a table of shape {given.shape}")
    one = given[()] if isinstance(given, np.ndarray) else given  # an array without axes as its number
    ids = pd.Index(list(given) if pd.api.types.is_list_like(given) else [one], dtype=object)
    if not len(ids):
        raise DataError(f"{what} is empty: name at least one id.")
    if ids.hasnans:
        raise DataError(f"{what}: the id at place {int(ids.isna().argmax())} (counted from 0) is missing; drop it.")
    return ids


def like_known(ids: pd.Index, people: Vocabulary, domain: int, backend: str) -> pd.Index:
    """Ids in the dtype that the known ones have in the data, or in one of their own if they do not fit it. Internal."""
    known = people.ids if people.scopes is None else people.ids[people.scope_of() == domain].infer_objects()
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


def candidates_of(posterior: Posterior | Stack, items: Any) -> np.ndarray:
    """Codes of the candidate items, sorted. Internal."""
    (_, things, last), data = sides(posterior), posterior.data
    if items is None:
        shelf = getattr(posterior, "shelf", None)
        if shelf is not None and not data.columns.swapped:
            return np.asarray(shelf)
        if len(data):
            rated = np.zeros(len(things), dtype=bool)
            rated[(data.user if data.columns.swapped else data.item)[data.is_target]] = True
            return np.flatnonzero(rated)
        return np.arange(len(things)) if things.scopes is None else np.flatnonzero(things.scope_of() == last)
    ids = ids_of(items, "items")
    codes = things.encode(ids, last)
    if (codes < 0).any():
        raise DataError(
            f"item {shown(ids[int(np.argmax(codes < 0))])} was not in the fit; candidates must be items of the target."
        )
    return np.unique(codes)


def excluded(posterior: Posterior | Stack, exclude: Any, ids: pd.Index, codes: np.ndarray) -> dict[Any, np.ndarray]:
    """Item codes that each user id must not get. Internal."""
    if exclude is None:
        return {}
    last, data = posterior.schema.n_domains - 1, posterior.data
    if isinstance(exclude, str):
        if exclude != "seen":
            raise DataError(f"exclude must be 'seen', None, Interactions or a frame, not {exclude!r}")
        posterior.require_data('exclude="seen"')
        who, what = (data.item, data.user) if data.columns.swapped else (data.user, data.item)
        asked = np.zeros(len(sides(posterior)[0]), dtype=bool)
        asked[codes[codes >= 0]] = True
        rows = np.flatnonzero(data.is_target & asked[who])
        return _by_user(who[rows], what[rows], dict(zip(codes.tolist(), ids, strict=True)))
    batch = data.encode(exclude)
    rows = batch.domain == last
    named, chosen = (batch.item_id, batch.user) if batch.columns.swapped else (batch.user_id, batch.item)
    code, names = pd.factorize(named[rows])
    return _by_user(code, chosen[rows], dict(enumerate(names)))


def _by_user(user: np.ndarray, item: np.ndarray, names: dict[int, Any]) -> dict[Any, np.ndarray]:
    """The items (row,) of each user (row,), under the user's name."""
    order = np.argsort(user, kind="stable")
    distinct, start = np.unique(user[order], return_index=True)
    parts = np.split(item[order], start[1:])
    return {names[code]: part for code, part in zip(distinct.tolist(), parts, strict=False)}


def digest(user_id: Any) -> int:
    """A number that depends on the id alone. Internal."""
    return int.from_bytes(hashlib.sha256(str(user_id).encode()).digest()[:8], "little")
