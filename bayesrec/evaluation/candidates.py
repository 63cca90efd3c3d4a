"""What a test user's list is made of: every candidate, or a sample of items the user has not taken. Internal."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data import Interactions
from bayesrec.data.batch import Batch
from bayesrec.data.ids import lookup_keys, shown
from bayesrec.data.seeds import checked_seed
from bayesrec.errors import DataError, DataWarning

__all__ = ["Candidates", "negatives_of"]

WAYS = ("uniform", "popularity")


def negatives_of(given: Any) -> tuple[str, int]:
    """Check ``negatives``: ("all", 0), or how they are drawn and how many."""
    if isinstance(given, str) and given == "all":
        return "all", 0
    if isinstance(given, tuple | list) and len(given) == 2 and given[0] in WAYS:
        how, count = given
        if not isinstance(count, bool) and isinstance(count, int | np.integer) and count > 0:
            return how, int(count)
    raise DataError(f"negatives must be 'all', ('uniform', 999) or ('popularity', 999), not {given!r}")


class Candidates:
    """The test users, what each has taken, and the items that a list of theirs is made of.

    Parameters
    ----------
    train, test, negatives, seed, each, exclude, min_rating
        See `evaluate_ranking`.

    Attributes
    ----------
    user_id : pandas.Index, (user,)
        Sorted by their text.
    user : ndarray of int, (user,)
        Codes in the training data; -1 if unknown there.
    catalogue : ndarray of int, (item,)
        Codes of the items with a target row in training: the candidates.
    taken : ndarray, (item code,)
        Target rows in training.
    short : int
        Lists so far with fewer negatives than asked for.
    """

    def __init__(
        self,
        train: Interactions,
        test: Any,
        negatives: Any,
        seed: int,
        each: bool,
        exclude: Any,
        min_rating: float | None,
    ):
        self.how, self.count = negatives_of(negatives)
        self.seed, self.each, self.short, self.items = checked_seed(seed), each, 0, train.items
        self.taken = np.bincount(train.item[train.is_target], minlength=train.n_items)
        self.catalogue = np.flatnonzero(self.taken)
        if not len(self.catalogue):
            raise DataError("train has no target rows, so there is no item to rank")
        batch = _target_rows(train, test, "test", need_value=min_rating is not None)
        key = lookup_keys(batch.user_id)
        good = np.ones(len(batch), dtype=bool) if min_rating is None else np.asarray(batch.value) >= min_rating
        known = (batch.item >= 0) & (self.taken[batch.item] > 0)
        self._say_unknown(batch, good & ~known)
        people = pd.Index(sorted(set(key[good & known]), key=str), dtype=object)
        if not len(people):
            raise DataError(
                "no test row is left to rank: none is of an item with a target row in train, and rated high enough"
            )
        place = people.get_indexer(key)  # -1: a user whose test rows all are left out
        self.user_id, self.user = _of_people(place, batch, len(people))
        self._positive = _lists(place, batch.item, good & known, len(people))
        self._own = _lists(place, batch.item, batch.item >= 0, len(people))
        self._history = self._taken_before(train, exclude, people)
        for k, (mine, before) in enumerate(zip(self._positive, self._train_rows(train), strict=True)):
            both = np.intersect1d(mine, before)
            if len(both):
                raise DataError(
                    f"user {shown(self.user_id[k])} has item {shown(train.items.decode(both[:1])[0])} in train and in test; "
                    "a row belongs in one of them"
                )

    def __len__(self) -> int:
        return len(self.user)

    def of(self, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Items and which of them are relevant, for each list of user ``k``."""
        positive = self._positive[k]
        free = ~np.isin(self.catalogue, np.concatenate([self._own[k], self._history[k]]))
        if self.each:
            return [self._list(free, positive[j : j + 1], k) for j in range(len(positive))]
        return [self._list(free, positive, k)]

    def item_ids(self, k: int) -> pd.Index:
        """The relevant item of each list of user ``k``, where every test row has a list of its own."""
        return self.items.decode(self._positive[k])

    def _list(self, free: np.ndarray, positive: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self.how == "all":
            negative = self.catalogue[free]
        else:
            # successive draws without replacement: the shortest of exponential waits at the rates of the weights. Every item of
            # the catalogue waits, taken or not, so that a list changes little with what the user has taken
            path = [_digest(self.user_id[k])] + ([_digest(self.items.decode(positive)[0])] if self.each else [])
            wait = np.random.default_rng([self.seed, *path]).standard_exponential(len(self.catalogue))
            if self.how == "popularity":
                wait /= self.taken[self.catalogue]
            pool = np.flatnonzero(free)
            if len(pool) > self.count:
                pool = pool[np.argpartition(wait[pool], self.count - 1)[: self.count]]
            elif len(pool) < self.count:
                self.short += 1
            negative = self.catalogue[np.sort(pool)]
        return np.concatenate([positive, negative]), np.arange(len(positive) + len(negative)) < len(positive)

    def _train_rows(self, train: Interactions) -> list[np.ndarray]:
        """Target items of each test user in training."""
        place = np.full(train.n_users + 1, -1)  # the last entry is for the code of unknown users
        place[self.user[self.user >= 0]] = np.flatnonzero(self.user >= 0)
        return _lists(place[train.user], train.item, train.is_target, len(self))

    def _taken_before(self, train: Interactions, exclude: Any, people: pd.Index) -> list[np.ndarray]:
        """Target items of each test user in training and in the rows to exclude."""
        out = self._train_rows(train)
        if exclude is not None:
            batch = _target_rows(train, exclude, "exclude", need_value=False)
            place = people.get_indexer(lookup_keys(batch.user_id))
            more = _lists(place, batch.item, batch.item >= 0, len(people))
            out = [np.union1d(a, b) for a, b in zip(out, more, strict=True)]
        return out

    def _say_unknown(self, batch: Batch, lost: np.ndarray) -> None:
        if lost.any():
            first = batch.item_id[int(lost.argmax())]
            warnings.warn(
                f"{int(lost.sum())} of {len(batch)} test rows are of items without a target row in train (the first: "
                f"{shown(first)}), which no candidate list holds; they are left out",
                DataWarning,
                stacklevel=4,
            )


def _target_rows(train: Interactions, rows: Any, what: str, need_value: bool) -> Batch:
    """Rows in the codes of the training data; a DataError for one of another domain."""
    batch = train.encode(rows, need_value=need_value)
    other = batch.domain != len(train.domains) - 1
    if other.any():
        raise DataError(
            f"{what} has rows of {batch.domain_name[int(other.argmax())]!r}, but only items of {train.target!r} are ranked; "
            "take them out, for example with .mask(test.is_target)"
        )
    return batch


def _of_people(place: np.ndarray, batch: Batch, n: int) -> tuple[pd.Index, np.ndarray]:
    """Id and code of each user."""
    rows = np.flatnonzero(place >= 0)
    first = np.empty(n, dtype=np.int64)
    first[place[rows][::-1]] = rows[::-1]
    return batch.user_id.take(first), batch.user[first]


def _lists(place: np.ndarray, item: np.ndarray, rows: np.ndarray, n: int) -> list[np.ndarray]:
    """Sorted distinct items of each of ``n`` users in some rows."""
    rows = rows & (place >= 0)
    pairs = np.unique(np.stack([place[rows], item[rows]]), axis=1)
    return np.split(pairs[1], np.searchsorted(pairs[0], np.arange(1, n)))


def _digest(id_: Any) -> int:
    """A number that depends on the id alone."""
    return int.from_bytes(hashlib.sha256(str(id_).encode()).digest()[:8], "little")
