"""Batch: the rows of any later table in the codes of known interactions, and the way back to an answer table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayesrec.data.columns import Columns, nearest, require_columns
from bayesrec.data.frames import backend_of, make_frame, open_frame, read_column, read_numbers, read_time
from bayesrec.data.ids import shown
from bayesrec.errors import DataError

if TYPE_CHECKING:
    from bayesrec.data.interactions import Interactions


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows to answer, in their order, as codes next to the ids they came with. Provisional.

    Attributes
    ----------
    user, item, domain : ndarray (n,) of int64
        Codes; -1 for a user or item that is unknown. Domains are always known.
    value : ndarray (n,) of float64, or None
        Ratings, where asked for.
    time : ndarray (n,), or None
        Times, where the table has them.
    user_id, item_id, domain_name : pandas.Index (n,)
        What the table holds; `np.asarray` makes plain arrays of them.
    columns : Columns
        Names of the columns.
    has_domain : bool
        Whether the table has a domain column, which answers then repeat.
    backend : str
        Library of the table ("pandas", "polars", ...).

    Examples
    --------
    >>> from bayesrec.data import Interactions
    >>> frame = pd.DataFrame({"user": [1, 2], "item": ["a", "b"], "rating": [4, 5]})
    >>> data = Interactions.from_frame(frame, target="music", domain=None)
    >>> batch = data.encode(pd.DataFrame({"user": [2, 9], "item": ["a", "a"]}))
    >>> batch.user.tolist(), batch.user_id.tolist(), batch.item.tolist()  # nobody called 9 is in the data
    ([1, -1], [2, 9], [0, 0])
    """

    user: np.ndarray
    item: np.ndarray
    domain: np.ndarray
    value: np.ndarray | None
    time: np.ndarray | None
    user_id: pd.Index
    item_id: pd.Index
    domain_name: pd.Index
    columns: Columns
    has_domain: bool
    backend: str = "pandas"

    def __len__(self) -> int:
        return len(self.user)

    def answer(self, columns: Mapping[str, Any]) -> Any:
        """Return a table of the library the rows came in: ids, the domain if it was given, then `columns`.

        Parameters
        ----------
        columns : mapping of str to array (n,)
            Answer columns, one entry per row of the batch.

        Raises
        ------
        DataError
            A column of another length.

        Examples
        --------
        >>> import pandas as pd
        >>> from bayesrec.data import Interactions
        >>> frame = pd.DataFrame({"user": [1, 2], "item": ["a", "b"], "rating": [4, 5]})
        >>> data = Interactions.from_frame(frame, target="music", domain=None)
        >>> data.encode(frame).answer({"mean": [4.5, 4.5]}).to_dict("list")
        {'user': [1, 2], 'item': ['a', 'b'], 'mean': [4.5, 4.5]}
        """
        for name, values in columns.items():
            if len(values) != len(self):
                raise DataError(f"answer column {name!r} has {len(values)} entries, the batch {len(self)} rows")
        ids = self.columns.ids(self.user_id, self.item_id)
        if self.has_domain and self.columns.domain is not None:
            ids[self.columns.domain] = self.domain_name
        return make_frame({**ids, **{name: np.asarray(values) for name, values in columns.items()}}, self.backend)


def encode(data: Interactions, rows: Any, need_value: bool, domain: Any) -> Batch:
    """Return the rows of a frame or of other interactions as a Batch of `data`; see `Interactions.encode`."""
    default = data.domain_code(data.target if domain is None else domain)
    if isinstance(rows, type(data)):
        return _from_interactions(data, rows, need_value)
    columns = data.columns
    frame = open_frame(rows)
    needed = dict(zip(columns.sides, (columns.user, columns.item), strict=True))
    if need_value and columns.value is not None:
        needed["value"] = columns.value
    require_columns(frame.columns, needed)
    users, items = read_column(frame, columns.user), read_column(frame, columns.item)
    has_domain = columns.domain is not None and columns.domain in frame.columns
    if has_domain:
        names = pd.Index(read_column(frame, str(columns.domain)))
        codes = domain_codes(names, data.domains, str(columns.domain))
    else:
        codes = np.full(len(users), default, dtype=np.int64)
        names = pd.Index([data.domains[default]] * len(users))
    value = None
    if need_value:
        value = np.ones(len(users)) if columns.value is None else read_numbers(frame, columns.value)[0]
    time = None
    if columns.time is not None and columns.time in frame.columns:
        time = read_time(frame, columns.time)[0]
    return Batch(
        data.users.encode(users, codes), data.items.encode(items, codes), codes, value, time,
        pd.Index(users, copy=True), pd.Index(items, copy=True), names, columns, has_domain, backend_of(frame),
    )  # fmt: skip


def domain_codes(names: pd.Index, domains: tuple, column: str) -> np.ndarray:
    """Return the code of each domain name (n,); a DataError for one that is not known."""
    found, distinct = pd.factorize(names)
    table = {name: code for code, name in enumerate(domains)}
    codes = np.empty(len(distinct), dtype=np.int64)
    for position, name in enumerate(distinct):
        if name not in table:
            row = int(np.argmax(found == position))
            raise DataError(
                f"column {column!r}: unknown domain {shown(name)} in row {row} (rows count from 0)"
                f"{nearest(name, domains)}; known domains: {list(domains)}"
            )
        codes[position] = table[name]
    return codes[found]


def _from_interactions(data: Interactions, rows: Interactions, need_value: bool) -> Batch:
    """Return other interactions in the codes of `data`; with the same vocabularies the codes stay."""
    if rows.columns.swapped != data.columns.swapped:
        rows = rows.transposed()
    names = pd.Index(np.array(rows.domains, dtype=object)[rows.domain])
    users, items = rows.users.decode(rows.user), rows.items.decode(rows.item)
    if rows.domains == data.domains and rows.users == data.users and rows.items == data.items:
        codes, user, item = rows.domain, rows.user, rows.item
    else:
        codes = domain_codes(names, data.domains, str(rows.columns.domain or "domain"))
        user, item = data.users.encode(users, codes), data.items.encode(items, codes)
    return Batch(
        user, item, codes, rows.value if need_value else None, rows.time, users, items, names,
        data.columns, data.columns.domain is not None, rows.layout.backend,
    )  # fmt: skip
