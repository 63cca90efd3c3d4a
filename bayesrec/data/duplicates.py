"""The same thing listed in two domains under two ids: find such pairs, the test rows they give away, drop or merge them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from bayesrec.data.columns import require_columns
from bayesrec.data.frames import open_frame, read_column
from bayesrec.data.ids import shown
from bayesrec.data.interactions import Interactions, checked_interactions
from bayesrec.errors import DataError, DataWarning

__all__ = ["cross_domain_duplicates", "drop_duplicates", "leaked_rows", "merge_duplicates"]

STRIP = 2**22  # pairs of items that are compared at a time, about


def cross_domain_duplicates(
    data: Interactions, min_users: int = 2, jaccard: float = 0.5, users: Any = None
) -> pd.DataFrame:
    """Find items of a source and of the target that nearly the same people took: one thing under two ids. Provisional.

    Such a pair is a leak: a held-out target row may stand in the user's own source history. Two items are a pair if at least
    ``min_users`` shared users took both, and of the shared users who took either more than ``jaccard`` took both. Values are not
    looked at. Where items are shared it is the other way round: two accounts of one person.

    Parameters
    ----------
    data : Interactions
        All rows, or those of training.
    min_users : int
        A pair of rare items reaches any overlap by chance; more users make a pair surer.
    jaccard : float
        From 0 to 1; exceeded by a pair.
    users : sequence of ids, optional
        The shared users who count; by default those with rows in the source and in the target. Given more, among them users whose
        target rows are held out, fewer pairs exceed ``jaccard``.

    Returns
    -------
    DataFrame
        ``domain`` (of the source), ``source_item``, ``target_item``, ``users`` who took both, ``jaccard``;
        the surest pairs first. Where items are shared: ``source_user``, ``target_user``, ``items``.

    Raises
    ------
    DataError
        No source, no users in common, numbers outside their range.

    Warns
    -----
    DataWarning
        Some pairs were found; it counts them and the items in them.

    Examples
    --------
    >>> import warnings
    >>> rows = [(u, "ball", "sport") for u in (1, 2, 3)] + [(u, "a ball", "toys") for u in (1, 2, 3)]
    >>> rows += [(1, "bat", "sport"), (4, "bat", "sport"), (1, "kite", "toys"), (4, "car", "toys")]
    >>> frame = pd.DataFrame(rows, columns=["user", "item", "domain"])
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     cross_domain_duplicates(Interactions.from_frame(frame, target="toys", value=None))
      domain source_item target_item  users  jaccard
    0  sport        ball      a ball      3      1.0
    """
    checked_interactions(data)
    _check_range(data, min_users, jaccard)
    one, many = ("item", "users") if data.shared == "users" else ("user", "items")
    entity, thing, n, m = _sides(data)
    last = len(data.domains) - 1
    vocabulary = data.items if data.shared == "users" else data.users
    counted = None
    if users is not None:
        known = (data.users if data.shared == "users" else data.items).encode(pd.Index(list(users)))
        counted = np.zeros(n, dtype=bool)
        counted[known[known >= 0]] = True
    parts = []
    for code in range(last):
        inside = [np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)]
        for mask, domain in zip(inside, (code, last), strict=True):
            mask[entity[data.domain == domain]] = True
        both = inside[0] & inside[1] if counted is None else counted
        source, target = (
            _taken(entity, thing, (data.domain == domain) & both[entity], n, m) for domain in (code, last)
        )
        a, b, shared_by, overlap = _pairs(source, target, min_users, jaccard)
        ids = [vocabulary.decode(codes) for codes in (a, b)]
        columns = {"domain": [data.domains[code]] * len(a), f"source_{one}": ids[0], f"target_{one}": ids[1]}
        parts.append(pd.DataFrame(columns | {many: shared_by, "jaccard": overlap}))
    out = pd.concat(parts, ignore_index=True)
    out = out.sort_values([many, "jaccard"], ascending=False, kind="stable", ignore_index=True)
    if len(out):
        warnings.warn(
            f"{len(out)} pairs of a source {one} and a target {one} have nearly the same {many}: held-out target rows of "
            f"{out[f'target_{one}'].nunique()} {one}s may stand in a source under another id. Leave such test rows out "
            "(leaked_rows), drop the source's rows (drop_duplicates), or merge them (merge_duplicates).",
            DataWarning,
            stacklevel=2,
        )
    return out


def leaked_rows(train: Interactions, test: Any, pairs: pd.DataFrame) -> np.ndarray:
    """Say which test rows stand in training under another id: the user has the item's duplicate in a source. Provisional.

    Parameters
    ----------
    train : Interactions
    test : data frame or Interactions
        Target rows.
    pairs : DataFrame
        Of `cross_domain_duplicates`.

    Returns
    -------
    ndarray of bool, (row,)

    Raises
    ------
    DataError
        A missing column, a domain or an id that `train` does not know.

    Examples
    --------
    >>> frame = pd.DataFrame({"user": [1, 1, 2, 2], "item": ["a", "c", "b", "c"], "domain": ["x", "y", "x", "y"]})
    >>> data = Interactions.from_frame(frame, target="y", value=None)
    >>> pairs = pd.DataFrame({"domain": ["x"], "source_item": ["a"], "target_item": ["c"]})
    >>> leaked_rows(data, data.mask(data.is_target), pairs)
    array([ True, False])
    """
    source, target = _codes(train, pairs)
    entity, thing, n, m = _sides(train)
    batch = train.encode(test)
    who, what = (batch.user, batch.item) if train.shared == "users" else (batch.item, batch.user)
    history = _taken(entity, thing, ~train.is_target, n, m)
    twin = sparse.csr_matrix((np.ones(len(source)), (source, target)), shape=(m, m))
    known = (who >= 0) & (what >= 0)
    out = np.zeros(len(batch), dtype=bool)
    if known.any():
        out[known] = np.asarray((history @ twin)[who[known], what[known]]).ravel() > 0
    return out


def drop_duplicates(data: Interactions, pairs: pd.DataFrame) -> Interactions:
    """Drop the source rows of duplicated items; the target stays as it is. Provisional.

    Parameters
    ----------
    data : Interactions
    pairs : DataFrame
        Of `cross_domain_duplicates`.

    Returns
    -------
    Interactions
        The other rows, with the same vocabularies.

    Raises
    ------
    DataError
        A missing column, a domain or an id that `data` does not know.

    Warns
    -----
    DataWarning
        Says how many rows of how many source items were dropped.

    Examples
    --------
    >>> import warnings
    >>> frame = pd.DataFrame({"user": [1, 1, 2, 2], "item": ["a", "c", "b", "c"], "domain": ["x", "y", "x", "y"]})
    >>> data = Interactions.from_frame(frame, target="y", value=None)
    >>> pairs = pd.DataFrame({"domain": ["x"], "source_item": ["a"], "target_item": ["c"]})
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     drop_duplicates(data, pairs).to_frame()["item"].tolist()
    ['c', 'b', 'c']
    """
    source, _ = _codes(data, pairs)
    thing = _sides(data)[1]
    gone = np.isin(thing, source)
    _say(data, "dropped", gone, source, thing)
    return data.mask(~gone)


def merge_duplicates(data: Interactions, pairs: pd.DataFrame) -> Interactions:
    """Make the source rows of a duplicated item rows of its target item. Provisional.

    Merge before splitting: afterwards the held-out row of a user and that user's row in the source would be one cell in train
    and test. A user who has both rows keeps the target's. An item with several partners goes to the one with which it
    shares most users.

    Parameters
    ----------
    data : Interactions
    pairs : DataFrame
        Of `cross_domain_duplicates`, surest first.

    Returns
    -------
    Interactions
        With the same vocabularies; the source items have no rows any more.

    Raises
    ------
    DataError
        A missing column, a domain or an id that `data` does not know.

    Warns
    -----
    DataWarning
        Says how many rows moved, and how many were in both domains.

    Examples
    --------
    >>> import warnings
    >>> frame = pd.DataFrame({"user": [1, 1, 2, 3], "item": ["a", "c", "a", "b"], "domain": ["x", "y", "x", "y"]})
    >>> data = Interactions.from_frame(frame, target="y", value=None)
    >>> pairs = pd.DataFrame({"domain": ["x"], "source_item": ["a"], "target_item": ["c"]})
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     merge_duplicates(data, pairs).to_frame().values.tolist()
    [[1, 'c', 'y'], [2, 'c', 'y'], [3, 'b', 'y']]
    """
    source, target = _codes(data, pairs)
    entity, thing, _, m = _sides(data)
    heir = np.arange(m)
    heir[source[::-1]] = target[::-1]  # of several partners the first, the surest, is written last
    moved = np.isin(thing, source)
    new = heir[thing]
    cell = entity * m + new
    own = cell[~moved]
    # a row that moves onto a row of the target, or onto another that moved before it
    twice = moved & (
        np.isin(cell, own) | pd.Series(np.where(moved, cell, -1 - np.arange(len(cell)))).duplicated().to_numpy()
    )
    _say(data, f"moved to the target ({int(twice.sum())} of them were there already)", moved, source, thing)
    side = "item" if data.shared == "users" else "user"
    domain = np.where(moved, len(data.domains) - 1, data.domain)
    return replace(data, **{side: new, "domain": domain}).mask(~twice)


def _check_range(data: Interactions, min_users: int, jaccard: float) -> None:
    if isinstance(min_users, bool) or not isinstance(min_users, int | np.integer) or min_users < 1:
        raise DataError(f"min_users must be a whole number of at least 1, not {min_users!r}")
    if isinstance(jaccard, bool) or not isinstance(jaccard, int | float | np.number) or not 0 <= jaccard < 1:
        raise DataError(f"jaccard must be a number from 0 to below 1, not {jaccard!r}")
    if data.is_target.all() or not data.is_target.any():
        raise DataError("duplicates across domains need rows of a source and of the target")


def _sides(data: Interactions) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Codes of the shared side and of the other, and how many there are."""
    if data.shared == "users":
        return data.user, data.item, data.n_users, data.n_items
    return data.item, data.user, data.n_items, data.n_users


def _taken(entity: np.ndarray, thing: np.ndarray, rows: np.ndarray, n: int, m: int) -> sparse.csr_matrix:
    """Who took what in some rows, 0 and 1, (n, m)."""
    return sparse.csr_matrix((np.ones(int(rows.sum())), (entity[rows], thing[rows])), shape=(n, m))


def _pairs(
    source: sparse.csr_matrix, target: sparse.csr_matrix, min_users: int, jaccard: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes of the pairs, how many took both, and the overlap; a strip of source items at a time."""
    taken_a, taken_b = (np.asarray(x.sum(0)).ravel() for x in (source, target))
    by_item = sparse.csr_matrix(source.T)
    rows = np.flatnonzero(taken_a >= min_users)
    # what a row of the product can hold at most: the target rows of the users of the item
    size = np.cumsum(by_item[rows] @ np.asarray(target.sum(1)).ravel()) if len(rows) else np.empty(0)
    cuts = np.searchsorted(size, np.arange(STRIP, size[-1] if len(size) else 0, STRIP))
    found: list[tuple] = []
    for strip in np.split(rows, np.unique(cuts)):
        if not len(strip):
            continue
        together = (by_item[strip] @ target).tocoo()
        a, b, count = strip[together.row], together.col, together.data
        overlap = count / (taken_a[a] + taken_b[b] - count)
        keep = (count >= min_users) & (overlap > jaccard)
        found.append((a[keep], b[keep], count[keep], overlap[keep]))
    if not found:
        found = [(np.empty(0),) * 4]
    a, b, count, overlap = (np.concatenate(part) for part in zip(*found, strict=True))
    a, b = a.astype(np.int64), b.astype(np.int64)
    order = np.lexsort((b, a))
    return a[order], b[order], count[order].astype(np.int64), overlap[order]


def _codes(data: Interactions, pairs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the source and target items of a table of pairs."""
    one = "item" if data.shared == "users" else "user"
    frame = open_frame(pairs, "pairs")
    names = {"domain": "domain", "source": f"source_{one}", "target": f"target_{one}"}
    require_columns(frame.columns, names, "pairs")
    domain = np.array([data.domain_code(name) for name in read_column(frame, "domain")], dtype=np.int64)
    vocabulary = data.items if data.shared == "users" else data.users
    last = len(data.domains) - 1
    out = []
    for side, scope in (("source", domain), ("target", np.full(len(domain), last))):
        ids = read_column(frame, names[side])
        codes = vocabulary.encode(ids, scope) if len(ids) else np.empty(0, dtype=np.int64)
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise DataError(
                f"pairs, column {names[side]!r}: {shown(pd.Index(ids)[row])} in row {row} is no {one} of these data"
            )
        out.append(codes)
    if (domain == last).any():
        raise DataError(
            f"pairs, column 'domain': row {int(np.argmax(domain == last))} names the target, {data.target!r}"
        )
    return out[0], out[1]


def _say(data: Interactions, what: str, rows: np.ndarray, source: np.ndarray, thing: np.ndarray) -> None:
    if rows.any():
        one = "item" if data.shared == "users" else "user"
        count = len(np.unique(thing[rows]))
        warnings.warn(f"{int(rows.sum())} source rows of {count} {one}s {what}", DataWarning, stacklevel=3)
