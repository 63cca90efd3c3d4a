"""Readers: how Interactions are made of tables, in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from bayesrec.data import build, parquet
from bayesrec.data.columns import Columns


class Readers:
    """The constructors of :class:`bayesrec.data.Interactions`. Provisional."""

    __slots__ = ()

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        target: Any,
        user: str = "user",
        item: str = "item",
        domain: str | None = "domain",
        value: str | None = "rating",
        time: str | None = None,
        shared: str = "users",
        user_features: Any = None,
        item_features: Any = None,
        user_graph: Any = None,
    ) -> Self:
        """Read one table that holds all domains. Stable.

        Parameters
        ----------
        frame : data frame (n rows), pandas or polars
            Never changed; its index is ignored and may repeat. Other columns than those named here are dropped.
        target : str or int
            The domain to predict; every other domain is a source.
        user, item : str
            Columns of ids: integers or strings.
        domain : str or None
            Column of domain names; None if all rows belong to the target.
        value : str or None
            Column of finite numbers; None for clicks, which all count 1.0.
        time : str or None
            Column of numbers or datetimes.
        shared : {"users", "items"}
            The side whose ids mean the same in every domain.
        user_features, item_features : data frame, optional
            One row per id, with the id column; models with ``features=True`` use the others.
        user_graph : object, optional
            Carried along.

        Returns
        -------
        Interactions
            Rows in the order of the table.

        Raises
        ------
        DataError
            A malformed table; the message names the column, the row or the id.

        Warns
        -----
        DataWarning
            A (user, item) pair that repeats within a domain: the last row is kept, at its place.

        Examples
        --------
        >>> import pandas as pd
        >>> from bayesrec.data import Interactions
        >>> frame = pd.DataFrame({"user": [1, 1, 2], "item": [7, 7, 8], "domain": ["book", "music", "music"],
        ...                       "rating": [5, 4, 3]})
        >>> data = Interactions.from_frame(frame, target="music")
        >>> data.target, data.sources, len(data), data.n_users, data.n_items
        ('music', ('book',), 3, 2, 3)
        """
        features = {"user_features": user_features, "item_features": item_features, "user_graph": user_graph}
        return cls(**build.fields(frame, target, Columns(user, item, domain, value, time), shared, features))

    @classmethod
    def from_frames(
        cls,
        frames: Mapping[Any, Any],
        *,
        target: Any,
        user: str = "user",
        item: str = "item",
        domain: str = "domain",
        value: str | None = "rating",
        time: str | None = None,
        shared: str = "users",
        user_features: Any = None,
        item_features: Any = None,
        user_graph: Any = None,
    ) -> Self:
        """Read one table per domain. Stable.

        Parameters
        ----------
        frames : mapping of domain name to data frame
            All of one library; rows are stacked in the order of the mapping.
        domain : str
            Name of the domain column in `to_frame` and in answers; the tables themselves need none.
        target, user, item, value, time, shared, user_features, item_features, user_graph
            As in `from_frame`.

        Raises
        ------
        DataError
            As in `from_frame`.

        Examples
        --------
        >>> import pandas as pd
        >>> from bayesrec.data import Interactions
        >>> book = pd.DataFrame({"user": [1, 2], "item": [7, 8], "rating": [5.0, 1.0]})
        >>> music = pd.DataFrame({"user": [1], "item": ["song"], "rating": [4.0]})
        >>> Interactions.from_frames({"book": book, "music": music}, target="music").n_items
        3
        """
        columns = Columns(user, item, domain, value, time)
        features = {"user_features": user_features, "item_features": item_features, "user_graph": user_graph}
        frame = build.stacked(frames, columns)
        return cls(**build.fields(frame, target, columns, shared, features))

    @classmethod
    def from_parquet(
        cls,
        paths: str | Path | Iterable[str | Path],
        *,
        target: Any,
        user: str = "user",
        item: str = "item",
        domain: str | None = "domain",
        value: str | None = "rating",
        time: str | None = None,
        shared: str = "users",
        user_features: Any = None,
        item_features: Any = None,
        user_graph: Any = None,
        batch_rows: int = 2**18,
    ) -> Self:
        """Read Parquet files in portions, for tables that as a whole do not fit in memory. Provisional.

        The files are read twice, ids first, and give what `from_frame` would give of all their rows in one table. At its peak
        this takes about 40 bytes a rating (8 more with times), 32 of which are the result, besides the ids and a portion.
        Repeated pairs, should there be any, take up to 40 bytes a rating more.

        Parameters
        ----------
        paths : str, Path or several
            Parquet files, or folders of them, which are searched to the bottom and taken in the order of their names.
            Columns of whole numbers may differ in width between files, columns of numbers and of text may not be mixed.
        target, user, item, domain, value, time, shared, user_features, item_features, user_graph
            As in `from_frame`. Columns whose entries come from a dictionary (categories) count as their entries.
        batch_rows : int
            Rows in a portion.

        Returns
        -------
        Interactions
            Rows in the order of the files and of the rows in them; `to_frame` gives a pandas table.

        Raises
        ------
        DataError
            As in `from_frame`, with the file and with rows counted through all files; a file that is not there, or is no
            Parquet file.

        Warns
        -----
        DataWarning
            As in `from_frame`.

        Examples
        --------
        >>> import tempfile
        >>> import pandas as pd
        >>> from bayesrec.data import Interactions
        >>> frame = pd.DataFrame({"user": [1, 1, 2], "item": ["a", "b", "b"], "rating": [5, 4, 3]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     frame.to_parquet(Path(folder, "part-0.parquet"))
        ...     data = Interactions.from_parquet(folder, target="music", domain=None)
        >>> len(data), data.to_frame().equals(frame)
        (3, True)
        """
        features = {"user_features": user_features, "item_features": item_features, "user_graph": user_graph}
        return cls(
            **parquet.fields(paths, target, Columns(user, item, domain, value, time), shared, features, batch_rows)
        )
