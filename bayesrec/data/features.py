"""Features of users and items: from the caller's tables to numbers in the order of codes. Internal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from bayesrec.data.batch import domain_codes
from bayesrec.data.columns import require_columns
from bayesrec.data.frames import open_frame, read_column, read_numbers
from bayesrec.data.ids import checked_ids, shown
from bayesrec.data.vocabulary import Vocabulary
from bayesrec.errors import DataError

if TYPE_CHECKING:
    from bayesrec.data.interactions import Interactions

__all__ = ["Features", "described", "matrices", "newcomers"]


@dataclass(frozen=True, eq=False)
class Features:
    """What is known of the members of one side besides their ratings, as a model sees it.

    Attributes
    ----------
    names : tuple of str
        Of the columns.
    x : ndarray, (member, feature), float64
        In the order of codes. In each domain (all users are one where users are shared) a column has the mean 0 and the sd
        1, or is 0 throughout if it does not vary there; members of a domain that the table leaves out have zeros.
    center, sd : ndarray, (feature,)
        What newcomers of the target are measured by; an infinite sd makes zeros.
    moment : ndarray, (domain, feature, feature)
        Mean of ``x x'`` over the first members of each domain; newcomers do not change it.
    """

    names: tuple[str, ...]
    x: np.ndarray
    center: np.ndarray
    sd: np.ndarray
    moment: np.ndarray

    def take(self, codes: np.ndarray) -> Features:
        """Only these members."""
        return replace(self, x=self.x[codes])

    def of_target(self, codes: np.ndarray) -> Features:
        """Only these members, who are those of the target."""
        return replace(self.take(codes), moment=self.moment[-1:])

    def extended(self, x: np.ndarray) -> Features:
        """With newcomers behind."""
        return replace(self, x=np.concatenate([self.x, x]))


def described(data: Interactions) -> Interactions:
    """Return the data with `Features` in the place of feature tables, and with all whom these tables describe.

    A user or an item with features and without any rating is known from then on. An item without a domain column in its
    table is that of every domain which has the id, or else a new one of the target. A side without a table has no features.

    Raises
    ------
    DataError
        No table at all; ids that no rating has, of another type or repeated; a rated id without features; columns that
        are no finite numbers or constant. The message names the column or the id.
    """
    if data.user_features is None and data.item_features is None:
        raise DataError(
            "features=True needs user_features=... or item_features=... of Interactions.from_frame, and the data have neither"
        )
    for side, what in zip(("user", "item"), data.columns.sides, strict=True):
        given = getattr(data, f"{side}_features")
        if not isinstance(given, Features):
            data = _with(data, side, f"{what}_features", given)
    return data


def newcomers(data: Interactions, table: Any, ids: pd.Index) -> np.ndarray:
    """Return features (id, feature) of new members of the shared side, measured as the known ones are.

    Raises
    ------
    DataError
        As `described`; no table where the model needs one; an id without a row.
    """
    known = data.user_features
    if not isinstance(known, Features) or not known.names:
        if table is not None:
            raise DataError("features=... was given, and the fit used no features of that side; leave it out")
        return np.zeros((len(ids), 0))
    who = data.columns.sides[0]
    if table is None:
        raise DataError(
            f"the fit used the features {list(known.names)} of {who}s: give those of the new ones as "
            f"features=..., a table with the columns {[data.columns.user, *known.names]}"
        )
    frame, what = open_frame(table, "features"), "features"
    require_columns(frame.columns, {who: data.columns.user} | {name: name for name in known.names}, what)
    found = _ids(frame, data.columns.user, what)
    place = Vocabulary((found,)).encode(ids)
    if (place < 0).any():
        raise DataError(f"{what}: {who} {shown(ids[int(np.argmax(place < 0))])} has no row")
    return (_numbers(frame, known.names, found, what)[place] - known.center) / known.sd


def matrices(data: Interactions) -> dict[str, np.ndarray]:
    """Return features and second moments of both sides by the names that a schema gives them; none of undescribed data."""
    users, items = data.user_features, data.item_features
    if not isinstance(users, Features) or not isinstance(items, Features):
        return {}
    silent = len(data.domains) - len(items.moment)  # sources without items come first
    moment = np.concatenate([np.zeros((silent, *items.moment.shape[1:])), items.moment])
    return {"user_x": users.x, "item_x": items.x, "user_moment": users.moment[0], "item_moment": moment}


def _with(data: Interactions, side: str, what: str, table: Any) -> Interactions:
    """Return the data with the features of one side, whose vocabulary grows by those who have no ratings."""
    words: Vocabulary = getattr(data, f"{side}s")
    if table is None:
        n_groups = 1 if words.scopes is None else len(data.domains)
        nothing = Features((), np.zeros((len(words), 0)), np.zeros(0), np.zeros(0), np.zeros((n_groups, 0, 0)))
        none: dict[str, Any] = {f"{side}_features": nothing}
        return replace(data, **none)
    frame, column = open_frame(table, what), getattr(data.columns, side)
    own = [column] if words.scopes is None or data.columns.domain is None else [column, data.columns.domain]
    names = tuple(name for name in frame.columns if name not in own)
    if not names:
        raise DataError(f"{what} has no column besides {own}; give at least one feature")
    scope = None
    if len(own) == 2 and own[1] in frame.columns:
        scope = domain_codes(pd.Index(read_column(frame, own[1])), data.domains, own[1])
    ids = _ids(frame, column, what, scope)
    values = _numbers(frame, names, ids, what)
    codes, rows = _places(words, ids, scope, len(data.domains))
    if not len(codes):
        raise DataError(
            f"{what}: none of the {len(ids)} ids, such as {shown(ids[0])}, has a rating; do the ids mean the same {side}s?"
        )
    new = np.setdiff1d(np.arange(len(ids)), rows)
    try:
        grown = words.extend(ids[new], len(data.domains) - 1 if scope is None else scope[new])
    except DataError as error:
        raise DataError(f"{what}: {error}") from error
    more, rest = _places(grown, ids[new], None if scope is None else scope[new], len(data.domains))
    raw = np.full((len(grown), len(names)), np.nan)
    raw[codes], raw[more] = values[rows], values[new[rest]]
    groups = np.zeros(len(grown), dtype=np.int64) if grown.scopes is None else grown.scope_of()
    known: dict[str, Any] = {f"{side}s": grown, f"{side}_features": _standardised(names, raw, groups, grown, what)}
    return replace(data, **known)


def _places(words: Vocabulary, ids: pd.Index, scope: Any, n_domains: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and the rows of `ids` that describe them; without a scope an id stands for its namesakes in all domains."""
    if words.scopes is None or scope is not None:
        found = words.encode(ids, scope)
        return found[found >= 0], np.flatnonzero(found >= 0)
    parts = [words.encode(ids, domain) for domain in range(n_domains)]
    rows = [np.flatnonzero(found >= 0) for found in parts]
    return np.concatenate([part[here] for part, here in zip(parts, rows, strict=True)]), np.concatenate(rows)


def _standardised(
    names: tuple[str, ...], raw: np.ndarray, groups: np.ndarray, words: Vocabulary, what: str
) -> Features:
    """Centre and scale each domain by itself; refuse gaps within a domain, and columns that vary in none."""
    gap = np.isnan(raw[:, 0])
    x, varies = np.zeros_like(raw), np.zeros(len(names), dtype=bool)
    center, sd = np.zeros(len(names)), np.full(len(names), np.inf)
    moment = np.zeros((groups.max() + 1, len(names), len(names)))
    for group in np.unique(groups):  # the target is the last
        here = groups == group
        if gap[here].all() and group < groups.max():
            continue
        if gap[here].any():
            first, n = int(np.argmax(gap & here)), int(gap[here].sum())
            more = f" (and {n - 1} more)" if n > 1 else ""
            raise DataError(f"{what}: id {shown(words.decode([first])[0])}{more} has no features; add a row")
        mine = raw[here]
        center, sd = mean, spread = mine.mean(0), mine.std(0)
        # a constant that is no binary fraction has a mean off by rounding
        constant = spread <= 1e-12 * np.abs(mine).max(0, initial=0.0)
        sd = np.where(constant, np.inf, spread)
        varies |= ~constant
        x[here] = (mine - mean) / sd
        moment[group] = x[here].T @ x[here] / len(mine)
    if not varies.all():
        where = " within every domain" if len(np.unique(groups[~gap])) > 1 else ""
        raise DataError(
            f"{what}: column {names[int(np.argmin(varies))]!r} is constant{where} and says nothing; drop it"
        )
    return Features(names, x, center, sd, moment)


def _ids(frame: nw.DataFrame, column: str, what: str, scope: np.ndarray | None = None) -> pd.Index:
    """Return the ids of a feature table, each of which may have one row in each scope."""
    try:
        series = read_column(frame, column)
        if not len(series):
            raise DataError("the table has no rows")
        ids, keys = checked_ids(series, f"column {column!r}")
    except DataError as error:
        raise DataError(f"{what}: {error}") from error
    twice = pd.DataFrame({"id": pd.Series(keys, dtype=keys.dtype), "scope": 0 if scope is None else scope}).duplicated()
    if twice.any():
        row = int(twice.to_numpy().argmax())
        raise DataError(f"{what}: id {shown(ids[row])} is there twice, again in row {row} (rows count from 0)")
    return ids


def _numbers(frame: nw.DataFrame, names: Sequence[str], ids: pd.Index, what: str) -> np.ndarray:
    """Return the columns as finite float64 (row, feature)."""
    out = np.empty((len(ids), len(names)))
    for k, name in enumerate(names):
        missing = np.asarray(frame[name].is_null().to_numpy(), dtype=bool)
        if missing.any():
            raise DataError(
                f"{what}: column {name!r} has {int(missing.sum())} missing value(s), the first for id "
                f"{shown(ids[int(missing.argmax())])}; fill them, for example with the column's mean and a column that says where"
            )
        try:
            out[:, k] = read_numbers(frame, name)[0]
        except DataError as error:
            raise DataError(
                f"{what}: {error}. Features are numbers: drop a column of text, or make one of 0 and 1 for each of its values"
            ) from error
    return out
