"""Metrics of ranked lists: arrays of scores in, a number for each user out; ties by expectation over their orders.

Items of one user with equal scores stand in random order, and a metric is its expectation over these orders. No order is
drawn: within a group of ``m`` tied items, ``r`` of them relevant, behind ``a`` better ones of which ``A`` are relevant,

* a position holds a relevant item with probability ``r / m`` (precision, recall, NDCG, coverage, novelty),
* the first ``k`` positions hold none with probability ``C(m - r, k) / C(m, k)`` (hit rate),
* the first relevant item stands at position ``j`` with probability ``C(m - j, r - 1) / C(m, r)`` (reciprocal rank),
* given a relevant item at position ``j``, ``(j - 1) (r - 1) / (m - 1)`` of those before it are expected to be relevant
  (average precision).

All are exact. `bayesrec.metrics` exports the public names.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from bayesrec.errors import DataError

__all__ = ["list_chance", "list_coverage", "list_metrics", "list_names", "list_novelty"]


def list_names(n: int) -> tuple[str, ...]:
    """Names of the metrics of `list_metrics`, in its order. Provisional.

    Examples
    --------
    >>> list_names(5)
    ('hr@5', 'ndcg@5', 'mrr@5', 'map@5', 'recall@5', 'precision@5', 'mrr')
    """
    return (*(f"{name}@{n}" for name in ("hr", "ndcg", "mrr", "map", "recall", "precision")), "mrr")


def list_metrics(user: np.ndarray, score: np.ndarray, relevant: np.ndarray, n: int = 10) -> dict[str, np.ndarray]:
    """Hit rate, NDCG, reciprocal rank, average precision, recall and precision of each user's list. Provisional.

    A user's list is that user's rows by score, best first. Ties count by expectation over their orders, in closed form.

    Parameters
    ----------
    user : ndarray, (row,)
        Whose list the row belongs to; codes or ids of any sortable type.
    score : ndarray, (row,)
        More is better; infinite scores are fine, NaN is not.
    relevant : ndarray of bool, or of 0 and 1, (row,)
    n : int
        Length of the list that is shown.

    Returns
    -------
    dict of str to ndarray, (user,)
        In the order of ``np.unique(user)``; NaN for a user without a relevant row, whom no order can serve.
        ``hr``: whether one of the first ``n`` is relevant. ``ndcg``: binary gains, discount ``1 / log2(1 + position)``,
        divided by that of the best order. ``mrr@n``: one over the position of the first relevant item, 0 behind ``n``; ``mrr``:
        the same without a cut. ``map``: precision at the positions of relevant items among the first ``n``, divided by the
        number of *all* relevant rows, as in TREC. ``recall`` and ``precision``: relevant ones among the first ``n``, over
        all relevant ones and over ``n``, also where the list is shorter.

    Raises
    ------
    DataError
        Arrays of different lengths, a NaN, values of ``relevant`` other than 0 and 1, an ``n`` below 1.

    References
    ----------
    McSherry and Najork (2008), `mcsherry2008` in docs/references.bib.

    Examples
    --------
    >>> user, score = np.array([0, 0, 0, 1, 1]), np.array([3.0, 2.0, 1.0, 5.0, 5.0])
    >>> out = list_metrics(user, score, np.array([0, 1, 0, 1, 0]), n=1)
    >>> out["hr@1"], out["mrr"]  # the second user's two items tie: first or second, each in half of the orders
    (array([0. , 0.5]), array([0.5 , 0.75]))
    """
    code, n_users, score, n = _checked(user, score, n)
    hit = np.asarray(relevant)
    if hit.shape != score.shape:
        raise DataError(f"relevant has shape {hit.shape}, score {score.shape}; give one entry for each row")
    odd = np.zeros(len(hit), dtype=bool) if hit.dtype == bool else ~np.isin(hit, (0, 1))
    if odd.any():
        raise DataError(
            f"relevant must be True or False (1 or 0), row {odd.argmax()} has {hit[odd.argmax()]!r}; "
            "compare ratings with a threshold first"
        )
    hit = hit.astype(float)
    total = np.bincount(code, hit, minlength=n_users)
    last = np.full(n_users, np.inf)
    np.minimum.at(last, code[hit > 0], score[hit > 0])
    needed = score >= last[code]  # what stands behind the last relevant row of a list changes nothing
    code, score, hit = code[needed], score[needed], hit[needed]
    groups = _Groups(code, score)
    owner, before, m = groups.owner, groups.before, groups.size
    r = np.bincount(groups.of_row, hit, minlength=len(m))  # relevant rows of each group
    earlier = np.cumsum(r) - r
    earlier -= earlier[groups.head]  # relevant rows above the group, of the same user
    share = r / m
    slots = np.clip(n - before, 0, m)  # positions of the group among the first n
    with np.errstate(invalid="ignore", divide="ignore"):
        shown = np.bincount(owner, share * slots, minlength=n_users)
        missed = np.where(r > 0, _log_choose(m - r, slots) - _log_choose(m, slots), 0.0)
        missed = np.where(slots > m - r, -np.inf, missed)
        none = np.exp(np.bincount(owner, np.where(np.isfinite(missed), missed, 0.0), minlength=n_users))
        none[np.unique(owner[(r > 0) & ~np.isfinite(missed)])] = 0.0
        discount = np.r_[0.0, np.cumsum(1.0 / np.log2(np.arange(2, n + 2)))]
        gain = share * (discount[np.minimum(before + slots, n)] - discount[np.minimum(before, n)])
        dcg = np.bincount(owner, gain, minlength=n_users)
        ideal = discount[np.minimum(total, n).astype(int)]
        reciprocal, cut = _reciprocal(groups, r, earlier, n, n_users)
        out = {
            "hr": 1.0 - none,
            "ndcg": dcg / ideal,
            "mrr@n": cut,
            "map": _precision_sum(groups, r, earlier, slots, n_users) / total,
            "recall": shown / total,
            "precision": shown / n,
            "mrr": reciprocal,
        }
    return {name: np.where(total > 0, values, np.nan) for name, values in zip(list_names(n), out.values(), strict=True)}


def list_novelty(user: np.ndarray, score: np.ndarray, information: np.ndarray, n: int = 10) -> np.ndarray:
    """Mean self-information of the first ``n`` items of each user's list. Provisional.

    Parameters
    ----------
    user, score : ndarray, (row,)
        As in `list_metrics`; ties count by expectation.
    information : ndarray, (row,)
        Of the row's item, in bits: ``-log2`` of the share of users who took it.
    n : int
        Length of the list that is shown.

    Returns
    -------
    ndarray, (user,)
        In the order of ``np.unique(user)``.

    Raises
    ------
    DataError
        Arrays of different lengths, a NaN, an ``n`` below 1.

    References
    ----------
    Vargas and Castells (2011), `vargas2011` in docs/references.bib.

    Examples
    --------
    >>> list_novelty(np.zeros(3), np.array([3.0, 2.0, 1.0]), np.array([1.0, 4.0, 9.0]), n=2)
    array([2.5])
    """
    chance = list_chance(user, score, n)
    information = np.asarray(information, dtype=float)
    if information.shape != chance.shape or np.isnan(information).any():
        raise DataError(f"information must be numbers of shape {chance.shape}, one for each row, none of them NaN")
    code = np.unique(np.asarray(user), return_inverse=True)[1]
    return np.bincount(code, chance * information) / np.bincount(code, chance)


def list_coverage(
    user: np.ndarray, item: np.ndarray, score: np.ndarray, n: int = 10, items: int | None = None
) -> float:
    """Share of the catalogue that stands among the first ``n`` of at least one list. Provisional.

    With ties it is the expectation over orders that are drawn for each user apart.

    Parameters
    ----------
    user, item, score : ndarray, (row,)
        As in `list_metrics`, with the item of each row.
    n : int
        Length of the list that is shown.
    items : int, optional
        Size of the catalogue; by default the number of different items in ``item``.

    Returns
    -------
    float

    Raises
    ------
    DataError
        Arrays of different lengths, a NaN, an ``n`` below 1, a catalogue smaller than the items of the rows.

    Examples
    --------
    >>> list_coverage(np.array([0, 0, 1, 1]), np.array([7, 8, 7, 9]), np.array([2.0, 1.0, 2.0, 1.0]), n=1)
    0.3333333333333333
    """
    chance = list_chance(user, score, n)
    known, which = np.unique(np.asarray(item), return_inverse=True)
    if which.shape != chance.shape:
        raise DataError(f"item has shape {which.shape}, score {chance.shape}; give one entry for each row")
    size = len(known) if items is None else items
    if size < len(known):
        raise DataError(f"items={items} is the size of the catalogue, but the rows have {len(known)} different items")
    return float((1.0 - unseen(which, chance, len(known))).sum() / size)


def list_chance(user: np.ndarray, score: np.ndarray, n: int = 10) -> np.ndarray:
    """Probability that a row is among the first ``n`` of its user's list, over the orders of ties, (row,). Provisional.

    Parameters
    ----------
    user, score : ndarray, (row,)
        As in `list_metrics`.
    n : int
        Length of the list that is shown.

    Raises
    ------
    DataError
        Arrays of different lengths, a NaN, an ``n`` below 1.

    Examples
    --------
    >>> list_chance(np.zeros(4), np.array([9.0, 5.0, 5.0, 1.0]), n=2)
    array([1. , 0.5, 0.5, 0. ])
    """
    code, _, score, n = _checked(user, score, n)
    groups = _Groups(code, score)
    return (np.clip(n - groups.before, 0, groups.size) / groups.size)[groups.of_row]


def unseen(item: np.ndarray, chance: np.ndarray, n_items: int) -> np.ndarray:
    """Probability that an item stands in none of the lists, (item,), from that of each row. Internal."""
    with np.errstate(divide="ignore"):
        absent = np.log1p(-chance)
    sure = np.isneginf(absent)
    out = np.exp(np.bincount(item, np.where(sure, 0.0, absent), minlength=n_items))
    out[item[sure]] = 0.0
    return out


class _Groups:
    """Tied groups of rows, lists one after another and best first.

    Attributes
    ----------
    of_row : ndarray of int, (row,)
        Group of each row, in the order in which rows were given.
    owner, size, before : ndarray of int, (group,)
        List of the group, its number of rows, rows of the list that are better.
    head : ndarray of int, (group,)
        First group of the same list.
    """

    def __init__(self, code: np.ndarray, score: np.ndarray):
        order = np.lexsort((-score, code))
        who, value = code[order], score[order]
        starts = np.r_[True, (who[1:] != who[:-1]) | (value[1:] != value[:-1])][: len(order)]
        at = np.flatnonzero(starts)
        self.of_row = np.empty(len(order), dtype=np.int64)
        self.of_row[order] = np.cumsum(starts) - 1
        self.owner = who[at]
        self.size = np.diff(np.r_[at, len(order)])
        opens = np.r_[True, self.owner[1:] != self.owner[:-1]][: len(at)]
        self.head = np.flatnonzero(opens)[np.cumsum(opens) - 1]
        self.before = at - at[self.head]


def _checked(user: np.ndarray, score: np.ndarray, n: int) -> tuple[np.ndarray, int, np.ndarray, int]:
    """Codes of the users, their number, scores as floats, and the length of a list."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise DataError(f"n must be a whole number of at least 1, not {n!r}")
    score, user = np.asarray(score, dtype=float), np.asarray(user)
    if score.ndim != 1 or user.shape != score.shape:
        raise DataError(f"user has shape {user.shape}, score {score.shape}; give one entry for each row")
    bad = np.isnan(score)
    if bad.any():
        raise DataError(
            f"the score of row {bad.argmax()} is NaN, which has no place in a list; use -inf for the last place"
        )
    if (
        len(user) and user.dtype.kind in "iu" and (user[1:] >= user[:-1]).all()
    ):  # lists that stand together need no sort
        code = np.r_[0, np.cumsum(user[1:] != user[:-1])]
        return code, int(code[-1]) + 1, score, int(n)
    known, code = np.unique(user, return_inverse=True)
    return code, len(known), score, int(n)


def _log_choose(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return gammaln(a + 1.0) - gammaln(b + 1.0) - gammaln(a - b + 1.0)


def _positions(groups: _Groups, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group and position within it (from 1) of the first ``length`` (group,) positions of each group."""
    group = np.repeat(np.arange(len(length)), length)
    return group, np.arange(len(group)) - np.repeat(np.cumsum(length) - length, length) + 1


def _reciprocal(
    groups: _Groups, r: np.ndarray, earlier: np.ndarray, n: int, n_users: int
) -> tuple[np.ndarray, np.ndarray]:
    """Expected one over the position of the first relevant row, (user,): everywhere, and among the first ``n``."""
    leading = (r > 0) & (earlier == 0)  # the one group of each list that holds its first relevant row
    group, j = _positions(groups, np.where(leading, groups.size - r + 1, 0).astype(np.int64))
    m, rel = groups.size[group], r[group]
    chance = np.exp(_log_choose(m - j, rel - 1.0) - _log_choose(m, rel))
    place = groups.before[group] + j
    owner, worth = groups.owner[group], chance / place
    return np.bincount(owner, worth, minlength=n_users), np.bincount(owner, worth * (place <= n), minlength=n_users)


def _precision_sum(groups: _Groups, r: np.ndarray, earlier: np.ndarray, slots: np.ndarray, n_users: int) -> np.ndarray:
    """Expected sum of the precision at the positions of relevant rows among the first ``n``, (user,)."""
    group, j = _positions(groups, np.where(r > 0, slots, 0))
    m, rel = groups.size[group], r[group]
    above = earlier[group] + (j - 1.0) * (rel - 1.0) / np.maximum(m - 1.0, 1.0)
    worth = rel / m * (above + 1.0) / (groups.before[group] + j)
    return np.bincount(groups.owner[group], worth, minlength=n_users)
