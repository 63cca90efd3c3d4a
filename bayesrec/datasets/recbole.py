"""RecBole's atomic files: .inter, .user, .item and .net with typed headers."""

from __future__ import annotations

import os

import pandas as pd

from bayesrec.data.columns import nearest
from bayesrec.datasets.common import Collector, Dataset, Keep, Problems
from bayesrec.datasets.files import Entry, Source, open_source, stem
from bayesrec.datasets.tables import Spec, collect_text, first_line, text_table
from bayesrec.datasets.trust import read_edges
from bayesrec.errors import DataError

_TYPES = ("token", "token_seq", "float", "float_seq")


def recbole(
    path: str | os.PathLike[str],
    *,
    user: str = "user_id",
    item: str = "item_id",
    rating: str = "rating",
    time: str = "timestamp",
    strict: bool = False,
    keep: Keep | None = None,
    max_rows: int | None = None,
) -> Dataset:
    r"""Read a data set in RecBole's atomic format. Stable.

    Parameters
    ----------
    path : path
        Folder or archive with a .inter file and, where they are there, .user, .item and .net, or a .inter file. With
        more than one .inter file the column `domain` holds the name of each.
    user, item, rating, time : str
        Names of the fields, as in RecBole's USER_ID_FIELD and so on. Without a rating field every row counts 1.
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows; returns a boolean mask.
    max_rows : int, optional
        Stop after so many rows.

    Returns
    -------
    Dataset
        Ids are strings, as tokens are. Sequences are strings with ``|`` between, "float" fields are numbers. `trust`
        comes from a .net file. Memory: blocks of 8 MB; the peak is about three times the table that is kept.

    Raises
    ------
    DataError
        No .inter file at `path`, a header without types or without the named fields, a damaged archive, a problem in
        strict mode.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "toy.inter")
    >>> _ = file.write_text("user_id:token\titem_id:token\trating:float\n7\tHeat (1995)\t4\n")
    >>> recbole(file).ratings.to_dict("records")
    [{'user': '7', 'item': 'Heat (1995)', 'rating': 4.0}]
    """
    problems = Problems(strict)
    with open_source(path) as source:
        into = Collector(problems, keep=keep, max_rows=max_rows)
        entries = source.every("*.inter")
        if not entries:
            raise source.nothing("RecBole interactions", "*.inter")
        for entry in entries:
            names = [name for name, _ in _header(entry)]
            roles = {"user": (user, "str"), "item": (item, "str"), "rating": (rating, "float"), "time": (time, "float")}
            wanted = []
            for column, (name, kind) in roles.items():
                if name in names:
                    wanted.append((names.index(name), column, kind))
                elif column in ("user", "item"):
                    raise DataError(
                        f"{entry.label} has no field {name!r}{nearest(name, names)}; it has {names}; name the right one "
                        f"with {column}=..."
                    )
            domain = stem(entry.base) if len(entries) > 1 else None
            if collect_text(entry, Spec("\t", len(names), tuple(wanted)), into, True, domain):
                break
        ratings = into.table(str(source.path))
        parts = {end: _table(source, end, key, problems) for end, key in (("item", item), ("user", user))}
        items = None if parts["item"] is None else parts["item"].rename(columns={item: "item"})
        users = None if parts["user"] is None else parts["user"].rename(columns={user: "user"})
        return Dataset(source.stem, ratings, items, users, _edges(source, problems), problems.sentences())


def _header(entry: Entry) -> list[tuple[str, str]]:
    """Return the fields of a file and their types."""
    pairs = [tuple(field.strip().rsplit(":", 1)) for field in first_line(entry).split("\t")]
    if not all(len(pair) == 2 and pair[1] in _TYPES for pair in pairs):
        raise DataError(
            f"{entry.label}: the first line is no typed header such as 'user_id:token<tab>item_id:token'; "
            f"types are {', '.join(_TYPES)}"
        )
    return [(pair[0], pair[1]) for pair in pairs]


def _table(source: Source, end: str, key: str, problems: Problems) -> pd.DataFrame | None:
    """Read the .user or .item file; None without one."""
    entry = source.find(f"*.{end}")
    if entry is None:
        return None
    header = _header(entry)
    typed = {f"{name}:{kind}": (name, kind) for name, kind in header}
    column = next((full for full, (name, _) in typed.items() if name == key), None)
    if column is None:
        raise DataError(f"{entry.label} has no field {key!r}; it has {[name for name, _ in header]}")
    table = text_table(entry, "\t", None, problems, {column: "str"})
    for full, (name, kind) in typed.items():
        if kind == "float":
            table[full] = pd.to_numeric(table[full], errors="coerce")
        elif kind.endswith("_seq"):
            table[full] = table[full].str.replace(" ", "|")
        table = table.rename(columns={full: name})
    return table


def _edges(source: Source, problems: Problems) -> pd.DataFrame | None:
    """Read the .net file; None without one."""
    entry = source.find("*.net")
    if entry is None:
        return None
    names = [name for name, _ in _header(entry)]
    if not {"source_id", "target_id"} <= set(names):
        raise DataError(f"{entry.label} has no fields source_id and target_id; it has {names}")
    wanted = ((names.index("source_id"), "truster", "str"), (names.index("target_id"), "trustee", "str"))
    return read_edges(entry, Spec("\t", len(names), wanted), problems, header=True)
