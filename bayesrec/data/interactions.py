"""Interactions: the frozen table of who rated what, in any number of domains."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bayesrec.data import batch as batches
from bayesrec.data import build
from bayesrec.data.batch import Batch
from bayesrec.data.columns import Columns, nearest
from bayesrec.data.frames import Layout
from bayesrec.data.html import sizes_html, sizes_text
from bayesrec.data.readers import Readers
from bayesrec.data.vocabulary import Vocabulary
from bayesrec.errors import DataError


@dataclass(frozen=True, eq=False, repr=False)
class Interactions(Readers):
    """Rows (user, item, domain, value[, time]) as codes, with the vocabularies of their ids. Stable.

    Make one with `from_frame`, `from_frames` or `from_parquet`. With `shared="users"` a user id means the same user in every
    domain while an item id belongs to its domain; with `shared="items"` it is the other way round.

    Attributes
    ----------
    user, item, domain : ndarray (n,) of int64, read-only
        Codes in `users`, `items` and `domains`.
    value : ndarray (n,) of float64, read-only
        Ratings; 1.0 for clicks.
    time : ndarray (n,), read-only, or None
        Numbers or datetimes (UTC).
    users, items : Vocabulary
        Ids of all domains.
    domains : tuple
        Names of the domains: the sources sorted as strings, then the target.
    columns : Columns
        The column names the table came with.
    shared : str
        "users" or "items".
    user_features, item_features, user_graph
        Carried along as given.
    layout : Layout
        Library, column order and dtypes of the table, for `to_frame`.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"user": ["ann", "ann", "bob"], "item": [7, 7, 8], "domain": ["book", "film", "film"],
    ...                       "rating": [5, 4, 3]})
    >>> data = Interactions.from_frame(frame, target="film")
    >>> data.domains, data.user.tolist(), data.item.tolist()  # item 7 of one domain is not item 7 of the other
    (('book', 'film'), [0, 0, 1], [0, 1, 2])
    >>> data.users.decode(data.user[data.is_target]).tolist()
    ['ann', 'bob']
    """

    user: np.ndarray
    item: np.ndarray
    domain: np.ndarray
    value: np.ndarray
    time: np.ndarray | None
    users: Vocabulary
    items: Vocabulary
    domains: tuple
    columns: Columns
    shared: str = "users"
    user_features: Any = None
    item_features: Any = None
    user_graph: Any = None
    layout: Layout = field(default_factory=Layout)

    def __post_init__(self) -> None:
        for name, dtype in (
            ("user", np.int64),
            ("item", np.int64),
            ("domain", np.int64),
            ("value", np.float64),
        ):
            object.__setattr__(self, name, _frozen(np.asarray(getattr(self, name), dtype=dtype)))
        if self.time is not None:
            object.__setattr__(self, "time", _frozen(np.asarray(self.time)))

    @property
    def target(self) -> Any:
        """Name of the domain to predict."""
        return self.domains[-1]

    @property
    def sources(self) -> tuple:
        """Names of the other domains, sorted as strings."""
        return self.domains[:-1]

    @property
    def n_users(self) -> int:
        """Number of users over all domains."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Number of items over all domains."""
        return len(self.items)

    @property
    def item_domain(self) -> np.ndarray:
        """Domain code of each item, int64 (n_items,); a DataError when items are shared."""
        return self.items.scope_of()

    @property
    def user_domain(self) -> np.ndarray:
        """Domain code of each user, int64 (n_users,); a DataError when users are shared."""
        return self.users.scope_of()

    @property
    def is_target(self) -> np.ndarray:
        """Whether each row belongs to the target, bool (n,)."""
        return self.domain == len(self.domains) - 1

    def domain_code(self, name: Any) -> int:
        """Return the code of a domain name; a DataError if it is not known."""
        if name not in self.domains:
            raise DataError(f"unknown domain {name!r}{nearest(name, self.domains)}; known: {list(self.domains)}")
        return self.domains.index(name)

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        return sizes_text(self)

    def _repr_html_(self) -> str:
        return sizes_html(self)

    def to_frame(self) -> Any:
        """Return the rows as a table of the library they came in. Stable.

        Returns
        -------
        data frame (n rows)
            Original ids, dtypes and column names; a RangeIndex; categories come back as their values.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"user": [1, 2], "item": ["a", "b"], "rating": [5, 3]})
        >>> Interactions.from_frame(frame, target="music", domain=None).to_frame().equals(frame)
        True
        """
        return build.to_frame(self)

    @property
    def entity(self) -> str:
        """What the caller calls a member of the shared side: "user" or "item"."""
        return self.columns.sides[0 if self.shared == "users" else 1]

    def transposed(self) -> Interactions:
        """Return the same rows with users and items in each other's role. Provisional.

        Models know shared users only. To them data with shared items are data whose users are the items: `fit` takes
        the transposed table, and answers come back under the caller's own column names. Transposing twice gives back
        the table. A `user_graph` stays what it is, a graph of the caller's users.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"user": [1, 2], "item": [7, 7], "domain": ["a", "b"], "rating": [5, 4]})
        >>> data = Interactions.from_frame(frame, target="b", shared="items").transposed()
        >>> data.shared, data.entity, data.n_users, data.columns.user
        ('users', 'item', 1, 'item')
        """
        return replace(
            self,
            user=self.item,
            item=self.user,
            users=self.items,
            items=self.users,
            user_features=self.item_features,
            item_features=self.user_features,
            columns=self.columns.transposed(),
            shared="items" if self.shared == "users" else "users",
        )

    def mask(self, keep: np.ndarray) -> Interactions:
        """Return the rows where `keep`, bool (n,), is true; the vocabularies stay whole. Provisional.

        Raises
        ------
        DataError
            A `keep` that is not boolean or not as long as the table.

        Examples
        --------
        >>> from bayesrec.data import synthetic
        >>> frame, _ = synthetic.cross_domain(n_users=5, n_items=(9, 9), n_ratings=(4, 3))
        >>> data = Interactions.from_frame(frame, target="target", value="value")
        >>> len(data), len(data.mask(data.is_target)), data.mask(data.is_target).n_items == data.n_items
        (35, 15, True)
        """
        keep = np.asarray(keep)
        if keep.dtype != np.bool_ or keep.shape != self.user.shape:
            raise DataError(f"keep must be a boolean array ({len(self)},), got {keep.dtype} {keep.shape}")
        if keep.all():
            return self
        time = None if self.time is None else self.time[keep]
        kept = {name: getattr(self, name)[keep] for name in ("user", "item", "domain", "value")}
        return replace(self, time=time, **kept)

    def without_sources(self) -> Interactions:
        """Return the target rows only; vocabularies and the names of the sources stay. Provisional."""
        return self.mask(self.is_target)

    def only_target(self) -> Interactions:
        """Return the target as data of its own: its rows, its items, no sources, all users. Provisional.

        With shared items, users and items swap roles.

        Examples
        --------
        >>> from bayesrec.data import synthetic
        >>> frame, _ = synthetic.cross_domain(n_users=5, n_items=(9, 6), n_ratings=(4, 3))
        >>> alone = Interactions.from_frame(frame, target="target", value="value").only_target()
        >>> alone.sources, len(alone), alone.n_items, alone.n_users
        ((), 15, 6, 5)
        """
        return replace(self.mask(self.is_target), **build.only_target(self))

    def encode(self, rows: Any, *, need_value: bool = False, domain: Any = None) -> Batch:
        """Return the rows of a later table in the codes of this one. Provisional.

        Parameters
        ----------
        rows : data frame (n rows) or Interactions
            Same column names as here. Without a domain column all rows belong to `domain`.
        need_value : bool
            Whether to read values, float64 (n,); 1.0 where there is no value column (clicks).
        domain : str or int, optional
            Domain of a table without a domain column; None is the target.

        Returns
        -------
        Batch
            Codes, -1 for unknown users and items, with the ids as given.

        Raises
        ------
        DataError
            A missing column, a missing id, an unknown domain, a value that is no finite number.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"user": [1, 2], "item": ["a", "b"], "rating": [5, 3]})
        >>> data = Interactions.from_frame(frame, target="music", domain=None)
        >>> data.encode(pd.DataFrame({"user": [2, 9], "item": ["a", "a"]})).user.tolist()
        [1, -1]
        """
        return batches.encode(self, rows, need_value, domain)

    def extend_users(self, ids: Any, domain: Any = None) -> Interactions:
        """Return the same rows with new users at the end of the vocabulary; see `Vocabulary.extend`. Internal."""
        return replace(self, users=self.users.extend(ids, domain))

    def extend_items(self, ids: Any, domain: Any = None) -> Interactions:
        """Return the same rows with new items at the end of the vocabulary; see `Vocabulary.extend`. Internal."""
        return replace(self, items=self.items.extend(ids, domain))

    def with_rows(self, batch: Batch) -> Interactions:
        """Return these rows followed by those of a batch. Internal.

        The batch needs values and known codes only (see `extend_users`). Where this table has times and the batch
        has none, its rows get the newest time here.

        Raises
        ------
        DataError
            An unknown user or item, or a batch without values.
        """
        return replace(self, **build.with_rows(self, batch))


def checked_interactions(data: Any, name: str = "data") -> Interactions:
    """Return the data if they are Interactions; else a TypeError that says how to make them. Internal."""
    if isinstance(data, Interactions):
        return data
    raise TypeError(
        f"{name} must be Interactions, not {type(data).__name__}; make them with br.Interactions.from_frame(frame, target=...)"
    )


def _frozen(array: np.ndarray) -> np.ndarray:
    """Return a read-only array that shares no memory with the table it came from."""
    if array.flags.writeable or not array.flags.owndata:
        array = array.copy()
        array.flags.writeable = False
    return array
