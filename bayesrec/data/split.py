"""Splits of interactions into train and test. Both halves keep the vocabularies; test holds target rows only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bayesrec.data.interactions import Interactions, checked_interactions
from bayesrec.data.seeds import generator
from bayesrec.errors import DataError

__all__ = ["cold_items", "cold_users", "holdout", "kfold_users", "temporal"]


def holdout(data: Interactions, fraction: float = 0.1, seed: int = 0) -> tuple[Interactions, Interactions]:
    """Hold out random target rows. Stable.

    Parameters
    ----------
    data : Interactions
        Table to split.
    fraction : float
        Share of the target rows (at least one row) that goes to test.
    seed : int
        The draw depends on it and on the (user, item) pairs, not on their order or values.

    Returns
    -------
    train, test : Interactions
        All other rows; the held-out target rows.

    Raises
    ------
    DataError
        A fraction outside (0, 1), or no target rows.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, _ = synthetic.cross_domain(n_users=10, n_items=(9, 9), n_ratings=(4, 3))
    >>> train, test = holdout(Interactions.from_frame(frame, target="target", value="value"), fraction=0.2)
    >>> len(train), len(test)
    (64, 6)
    """
    checked_interactions(data)
    _check_fraction(fraction)
    rng = generator(seed)
    rows = _target_rows(data)
    rows = rows[np.lexsort((data.item[rows], data.user[rows]))]
    return _two(data, rng.permutation(rows)[: _count(fraction, len(rows))])


def cold_users(
    data: Interactions, fraction: float = 0.2, n_support: int = 0, seed: int = 0
) -> tuple[Interactions, Interactions]:
    """Make some users new to the target: their target rows go to test, but for `n_support` of each. Stable.

    Parameters
    ----------
    data : Interactions
        Table with shared users.
    fraction : float
        Share of the eligible users (at least one): those with source rows and more than `n_support` target rows.
    n_support : int
        Target rows of each of these users, drawn at random, that stay in train.
    seed : int
        The draw depends on it and on the sorted ids, not on the order of rows or on values.

    Returns
    -------
    train, test : Interactions
        Train keeps all source rows.

    Raises
    ------
    DataError
        Shared items (use `cold_items`), no eligible user, a fraction outside (0, 1), a negative `n_support`.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, _ = synthetic.cross_domain(n_users=10, n_items=(9, 9), n_ratings=(4, 3))
    >>> data = Interactions.from_frame(frame, target="target", value="value")
    >>> train, test = cold_users(data, fraction=0.2, n_support=1)
    >>> len(set(test.user)), len(test)
    (2, 4)
    """
    _check_shared(data, "users", "cold_items")
    return _cold(data, fraction, n_support, seed)


def cold_items(
    data: Interactions, fraction: float = 0.2, n_support: int = 0, seed: int = 0
) -> tuple[Interactions, Interactions]:
    """Make some items new to the target; `cold_users` with users and items swapped, for shared items. Stable.

    Parameters
    ----------
    data : Interactions
        Table with shared items.
    fraction, n_support, seed
        As in `cold_users`.

    Returns
    -------
    train, test : Interactions
        Train keeps all source rows.

    Raises
    ------
    DataError
        Shared users (use `cold_users`), and as in `cold_users`.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"user": [1, 2, 1, 2], "item": [5, 6, 5, 6], "domain": ["a", "a", "b", "b"]})
    >>> data = Interactions.from_frame(frame, target="b", value=None, shared="items")
    >>> train, test = cold_items(data, fraction=0.5)
    >>> len(train), len(test)
    (3, 1)
    """
    _check_shared(data, "items", "cold_users")
    return _cold(data, fraction, n_support, seed)


def temporal(data: Interactions, fraction: float = 0.1) -> tuple[Interactions, Interactions]:
    """Hold out the newest target rows; source rows newer than the oldest of them are dropped. Stable.

    Parameters
    ----------
    data : Interactions
        Table with times. Rows of one time are ordered by user, then item.
    fraction : float
        Share of the target rows (at least one row) that goes to test.

    Returns
    -------
    train, test : Interactions
        Train has no row newer than the cut, the smallest time in test.

    Raises
    ------
    DataError
        No times, a fraction outside (0, 1), or no target rows.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"user": [1, 2, 1, 2], "item": [5, 6, 5, 6], "domain": ["a", "a", "b", "b"],
    ...                       "rating": [1, 2, 3, 4], "day": [1, 9, 2, 8]})
    >>> train, test = temporal(Interactions.from_frame(frame, target="b", time="day"), fraction=0.5)
    >>> train.time.tolist(), test.time.tolist()
    ([1, 2], [8])
    """
    checked_interactions(data)
    _check_fraction(fraction)
    if data.time is None:
        raise DataError("temporal needs times: name the column with time=... in from_frame")
    rows = _target_rows(data)
    rows = rows[np.lexsort((data.item[rows], data.user[rows], data.time[rows]))]
    held = np.zeros(len(data), dtype=bool)
    held[rows[len(rows) - _count(fraction, len(rows)) :]] = True
    newer = ~data.is_target & (data.time > data.time[held].min())
    return data.mask(~held & ~newer), data.mask(held)


def kfold_users(
    data: Interactions, folds: int = 5, n_support: int = 0, seed: int = 0
) -> Iterator[tuple[Interactions, Interactions]]:
    """Make each eligible user new to the target in one of `folds` splits (items when items are shared). Stable.

    Parameters
    ----------
    data : Interactions
        Table to split.
    folds : int
        Number of splits, 2 to the number of eligible users; see `cold_users` for who is eligible.
    n_support : int
        Target rows of each held-out user that stay in train.
    seed : int
        As in `cold_users`; the support rows of a user do not depend on the fold.

    Yields
    ------
    train, test : Interactions
        As from `cold_users`.

    Raises
    ------
    DataError
        At the call: too few or too many folds, a negative `n_support`, nobody eligible.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, _ = synthetic.cross_domain(n_users=10, n_items=(9, 9), n_ratings=(4, 3))
    >>> data = Interactions.from_frame(frame, target="target", value="value")
    >>> [len(test) for train, test in kfold_users(data, folds=5)]
    [6, 6, 6, 6, 6]
    """
    checked_interactions(data)
    return kfold_among(data, _eligible(data, n_support), folds, n_support, seed)


def kfold_among(
    data: Interactions, eligible: np.ndarray, folds: int, n_support: int, seed: int
) -> Iterator[tuple[Interactions, Interactions]]:
    """As `kfold_users`, of given users or items (codes, ascending). Internal."""
    if not isinstance(folds, int | np.integer) or not 2 <= folds <= len(eligible):
        raise DataError(f"folds must be from 2 to {len(eligible)}, the number of eligible {data.shared}; got {folds!r}")
    parts = np.array_split(generator(seed).permutation(eligible), folds)
    return (_two(data, _held_rows(data, part, n_support, seed)) for part in parts)


def _cold(data: Interactions, fraction: float, n_support: int, seed: int) -> tuple[Interactions, Interactions]:
    """Split by a random share of the eligible users, or items when items are shared."""
    _check_fraction(fraction)
    rng = generator(seed)
    eligible = _eligible(data, n_support)
    chosen = rng.permutation(eligible)[: _count(fraction, len(eligible))]
    return _two(data, _held_rows(data, chosen, n_support, seed))


def _eligible(data: Interactions, n_support: int) -> np.ndarray:
    """Return the codes, ascending, with source rows and more than `n_support` target rows."""
    if not isinstance(n_support, int | np.integer) or n_support < 0:
        raise DataError(f"n_support must be a whole number, 0 or more; got {n_support!r}")
    who, size = (data.user, data.n_users) if data.shared == "users" else (data.item, data.n_items)
    in_source = np.bincount(who[~data.is_target], minlength=size)
    in_target = np.bincount(who[data.is_target], minlength=size)
    eligible = np.flatnonzero((in_source > 0) & (in_target > n_support))
    if eligible.size == 0:
        raise DataError(
            f"no {data.shared[:-1]} has source rows and more than n_support={n_support} target rows; "
            f"use split.holdout, or a smaller n_support"
        )
    return eligible


def _held_rows(data: Interactions, chosen: np.ndarray, n_support: int, seed: int) -> np.ndarray:
    """Return the target rows of the chosen codes but `n_support` of each, drawn with a seed of their own."""
    who, other = (data.user, data.item) if data.shared == "users" else (data.item, data.user)
    rows = np.flatnonzero(data.is_target & np.isin(who, chosen))
    if n_support == 0:
        return rows
    rows = rows[np.lexsort((other[rows], who[rows]))]
    codes, starts = np.unique(who[rows], return_index=True)
    held = []
    for code, own in zip(codes, np.split(rows, starts[1:]), strict=True):
        held.append(generator(seed, int(code)).permutation(own)[n_support:])
    return np.concatenate(held)


def _two(data: Interactions, held_rows: np.ndarray) -> tuple[Interactions, Interactions]:
    """Return the other rows and the held-out ones, both in the order of the table."""
    held = np.zeros(len(data), dtype=bool)
    held[held_rows] = True
    return data.mask(~held), data.mask(held)


def _target_rows(data: Interactions) -> np.ndarray:
    """Return the positions of the target rows, of which there must be one."""
    rows = np.flatnonzero(data.is_target)
    if rows.size == 0:
        raise DataError(f"there are no rows of the target {data.target!r} to hold out")
    return rows


def _count(fraction: float, size: int) -> int:
    """Return how many of `size` make the share, at least one."""
    return max(1, round(fraction * size))


def _check_fraction(fraction: float) -> None:
    """Raise a DataError unless 0 < fraction < 1."""
    number = isinstance(fraction, int | float | np.number) and not isinstance(fraction, bool)
    if not number or not 0 < fraction < 1:
        raise DataError(f"fraction must lie between 0 and 1, both excluded; got {fraction!r}")


def _check_shared(data: Interactions, shared: str, use: str) -> None:
    """Raise a DataError if the other side is shared."""
    checked_interactions(data)
    if data.shared != shared:
        raise DataError(
            f"cold_{shared} needs shared={shared!r}, these interactions share {data.shared}: use split.{use}"
        )
