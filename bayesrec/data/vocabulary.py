"""Vocabulary: ids of one side of the table (users or items) and their integer codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data.ids import checked_ids, joined, lookup_keys, shown
from bayesrec.errors import DataError


@dataclass(frozen=True, eq=False, slots=True)
class Vocabulary:
    """The ids of one side (users or items) in the order of their codes 0..n-1. Provisional.

    A *global* vocabulary knows an id once. A *scoped* one knows it once per domain: item 7 of one domain is not
    item 7 of another. The ids of a scope stand together and sorted, scope after scope; ids added later by
    `extend` stand at the end, so that a code never changes.

    Parameters
    ----------
    blocks : tuple of pandas.Index
        Ids, in their own dtype, without repetition within a scope.
    scopes : tuple of int or None
        Domain code of each block; None for a global vocabulary.

    Examples
    --------
    >>> items = Vocabulary.from_ids([7, 9, 7], scope=[0, 0, 1])
    >>> len(items), items.encode([7, 9, "7"], scope=[1, 1, 0]).tolist()
    (3, [2, -1, -1])
    >>> items.decode([2, 0]).tolist(), items.scope_of().tolist()
    ([7, 7], [0, 0, 1])
    """

    blocks: tuple[pd.Index, ...]
    scopes: tuple[int, ...] | None = None
    _keys: tuple[pd.Index, ...] = field(init=False, repr=False)
    _ids: pd.Index = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keys", tuple(lookup_keys(block) for block in self.blocks))
        object.__setattr__(self, "_ids", joined(list(self.blocks)))

    @classmethod
    def from_ids(cls, ids: Any, scope: Any = None, what: str = "ids") -> Vocabulary:
        """Collect the distinct ids (n,), sorted, in each scope.

        Parameters
        ----------
        ids : array-like (n,)
            Integers or strings.
        scope : array-like of int (n,), optional
            Domain code of each id; None makes a global vocabulary.
        what : str
            How messages call the ids.

        Raises
        ------
        DataError
            Ids that are neither integers nor strings, or of mixed types within a scope.

        Examples
        --------
        >>> Vocabulary.from_ids(["b", "a", "b"]).decode([0, 1]).tolist()
        ['a', 'b']
        """
        series = pd.Series(ids).reset_index(drop=True)
        if scope is None:
            return cls((_distinct(series, what),))
        scope = np.asarray(scope, dtype=np.int64)
        codes = tuple(int(code) for code in np.unique(scope))
        return cls(tuple(_distinct(series[scope == code], what) for code in codes), codes)

    @property
    def offsets(self) -> np.ndarray:
        """Code at which each block starts, and the size at the end, int64 (blocks + 1,)."""
        return np.cumsum([0, *(len(block) for block in self.blocks)], dtype=np.int64)

    @property
    def ids(self) -> pd.Index:
        """All ids in the order of their codes, (n,)."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self is other or (
            self.scopes == other.scopes
            and len(self.blocks) == len(other.blocks)
            and all(mine.equals(theirs) for mine, theirs in zip(self._keys, other._keys, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def encode(self, ids: Any, scope: Any = None) -> np.ndarray:
        """Return the codes of ids.

        Parameters
        ----------
        ids : array-like (n,)
            Ids of any type; one that is no id of this vocabulary is unknown, never an error.
        scope : array-like of int (n,) or int, optional
            Domain code of each id; ignored by a global vocabulary, needed by a scoped one.

        Returns
        -------
        ndarray (n,) of int64
            Codes, -1 for unknown ids.

        Raises
        ------
        DataError
            A scoped vocabulary without `scope`.

        Examples
        --------
        >>> Vocabulary.from_ids([3, 5]).encode([5, 4, "5"]).tolist()
        [1, -1, -1]
        """
        keys = lookup_keys(ids)
        if self.scopes is None:
            return self._keys[0].get_indexer(keys).astype(np.int64, copy=False)
        if scope is None:
            raise DataError("these ids belong to domains: encode needs scope, the domain code of each id")
        scope = np.broadcast_to(np.asarray(scope, dtype=np.int64), len(keys))
        codes = np.full(len(keys), -1, dtype=np.int64)
        for start, known, code in zip(self.offsets, self._keys, self.scopes, strict=False):
            here = scope == code
            rows = slice(None) if here.all() else np.flatnonzero(here)
            found = known.get_indexer(keys[rows])
            found[found >= 0] += start
            codes[rows] = np.maximum(codes[rows], found)  # a scope may have several blocks
        return codes

    def decode(self, codes: Any) -> pd.Index:
        """Return the ids of codes (n,), in their own dtype; object when scopes have different dtypes.

        Raises
        ------
        IndexError
            A code outside 0..n-1, such as the -1 of an unknown id.

        Examples
        --------
        >>> Vocabulary.from_ids([3, 5]).decode([1, 1, 0]).tolist()
        [5, 5, 3]
        """
        codes = np.asarray(codes, dtype=np.int64)
        if codes.size and not (codes.min() >= 0 and codes.max() < len(self)):
            raise IndexError(f"codes must lie in 0..{len(self) - 1}, got {codes.min()}..{codes.max()}")
        return self._ids.take(codes)

    def scope_of(self) -> np.ndarray:
        """Return the domain code of each entry of a scoped vocabulary, int64 (n,).

        Raises
        ------
        DataError
            A global vocabulary: its ids belong to no domain.

        Examples
        --------
        >>> Vocabulary.from_ids([7, 9, 7], scope=[0, 0, 1]).scope_of().tolist()
        [0, 0, 1]
        """
        if self.scopes is None:
            raise DataError("the ids of a global vocabulary belong to no domain")
        return np.repeat(np.array(self.scopes, dtype=np.int64), np.diff(self.offsets))

    def extend(self, new_ids: Any, scope: Any = None) -> Vocabulary:
        """Return a vocabulary with the distinct new ids at the end; codes of known ids stay as they are.

        Parameters
        ----------
        new_ids : array-like (n,)
            Ids not yet known, of the type of the known ones.
        scope : array-like of int (n,) or int, optional
            Domain code of each new id; needed by a scoped vocabulary.

        Raises
        ------
        DataError
            An id that is known already, or of another type than the known ids of its scope.

        Examples
        --------
        >>> Vocabulary.from_ids([3, 5]).extend([4]).decode([0, 1, 2]).tolist()
        [3, 5, 4]
        """
        series = pd.Series(new_ids).reset_index(drop=True)
        if len(series) == 0:
            return self
        known = np.flatnonzero(self.encode(series, scope) >= 0)
        if known.size:
            raise DataError(f"id {shown(series.iloc[known[0]])} is known already; give new ids only")
        if self.scopes is not None:
            scope = np.broadcast_to(np.asarray(scope, dtype=np.int64), len(series))
        added = Vocabulary.from_ids(series, None if self.scopes is None else scope, "new ids")
        pairs = zip(added.blocks, added.scopes or (0,), strict=True)
        blocks = tuple(self._like_known(block, code) for block, code in pairs)
        if self.scopes is None:
            return Vocabulary((joined([self.blocks[0], blocks[0]]),))
        return Vocabulary(self.blocks + blocks, self.scopes + (added.scopes or ()))

    def _like_known(self, new: pd.Index, code: int) -> pd.Index:
        """Return new ids in the dtype of the known ids of their scope; a DataError if these are of another type."""
        for scope, block, known in zip(self.scopes or (0,), self.blocks, self._keys, strict=True):
            if scope != code or len(block) == 0:
                continue
            keys = lookup_keys(new)
            if (known.dtype == object) != (keys.dtype == object):
                kind = "strings" if known.dtype == object else "integers"
                raise DataError(f"the known ids are {kind}, the new id {shown(new[0])} is not; convert the new ids")
            cast = new.astype(block.dtype)
            return cast if lookup_keys(cast).equals(keys) else new
        return new


def _distinct(series: pd.Series, what: str) -> pd.Index:
    """Return the distinct ids of one scope, sorted, in their own dtype."""
    ids, keys = checked_ids(series, what)
    if keys.dtype != object:
        keys = np.sort(keys)
        return pd.Index(keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]], dtype=ids.dtype)
    codes, found = pd.factorize(keys, sort=True)
    if (found[codes] != keys).any():  # pandas 2 takes a NUL for the end of a string
        found = np.array(sorted(set(keys)), dtype=object)
        codes = pd.Index(found).get_indexer(keys)
    first = np.empty(len(found), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return ids.take(first).rename(None)
