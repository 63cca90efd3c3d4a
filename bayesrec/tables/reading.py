"""Tables from files, with their columns checked and typed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from bayesrec.data.columns import nearest
from bayesrec.errors import DataError
from bayesrec.tables import kinds
from bayesrec.tables.formats import UNTYPED, format_of, parse, zipped

__all__ = ["Column", "read_table", "read_tables"]


@dataclass(frozen=True)
class Column:
    """A column that is wanted of a table. Provisional.

    Attributes
    ----------
    name : str
    kind : {"id", "number", "time", "any"}
        What its entries are, where the file does not say.
    label : str
        How a message calls it, for example "--user".
    needed : bool
        Whether a table without it is refused.
    advice : str
        What to do if it is not there.
    """

    name: str
    kind: Literal["id", "number", "time", "any"] = "any"
    label: str = ""
    needed: bool = True
    advice: str = ""


def read_table(path: str | Path, columns: Sequence[Column] | None = None) -> pd.DataFrame:
    r"""Read one table. Provisional.

    Parameters
    ----------
    path : str or Path
        CSV (separated by commas, or by semicolons or tabs if its first line has no comma), TSV, JSONL or Parquet; text is
        UTF-8.
    columns : sequence of Column, optional
        What is wanted; other columns are left out. None takes all.

    Returns
    -------
    DataFrame (n rows)

    Raises
    ------
    DataError
        No such file, an unknown extension, a damaged or an empty file, a column that is not there, an entry that does
        not fit its column. The message names the file and the line or row, and the nearest name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.csv")
    ...     _ = path.write_text("user,item,rating\n1,007,4.5\n")
    ...     read_table(path).to_dict("records")
    [{'user': 1, 'item': '007', 'rating': 4.5}]
    """
    return read_tables({"": path}, columns)[""]


def read_tables(paths: Mapping[Any, str | Path], columns: Sequence[Column] | None = None) -> dict[Any, pd.DataFrame]:
    """Read several tables, whose ids are integers in all of them or text in all; see `read_table`. Provisional."""
    tables = {name: _wanted(_load(Path(path)), path, columns) for name, path in paths.items()}
    kind_of = {c.name: c.kind for c in columns or ()}
    untyped = [name for name, path in paths.items() if format_of(path) in UNTYPED]
    for column in dict.fromkeys(c for table in tables.values() for c in table.columns):
        having = {name: table[column] for name, table in tables.items() if column in table.columns}
        bare = {name: series for name, series in having.items() if name in untyped}
        kind = kind_of.get(column, "any")
        if kind == "id":
            for name, series in having.items():
                kinds.check_ids(series, repr(str(paths[name])))
            if all(kinds.all_whole(s) if name in bare else not kinds.is_text(s) for name, s in having.items()):
                having |= {name: kinds.integers(series) for name, series in bare.items()}
            else:
                having |= {name: series.mask(series == "") for name, series in bare.items()}
        else:
            text = bare if kind == "any" else {name: s for name, s in having.items() if kinds.is_text(s)}
            having |= {name: kinds.read_as(kind, s, repr(str(paths[name]))) for name, s in text.items()}
        for name, series in having.items():
            tables[name][column] = series
    return tables


def _load(path: Path) -> pd.DataFrame:
    """Read a file; what has no types is text."""
    if not path.exists():
        there = path.parent.is_dir()
        here = [p.name for p in path.parent.iterdir() if p.is_file()] if there else []
        where = "" if there else f": there is no folder {str(path.parent)!r}"
        raise DataError(f"there is no file {str(path)!r}{nearest(path.name, here)}{where}")
    if path.is_dir():
        kind = "model folder" if (path / "bayesrec.json").exists() else "folder"
        raise DataError(f"{str(path)!r} is a {kind}; a table is expected in its place")
    form = format_of(path)
    try:
        data = path.read_bytes()
        if zipped(path):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{str(path)!r} is damaged or cut short: {error}; get the file again") from error
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    return parse(data, form, path)


def _wanted(table: pd.DataFrame, path: str | Path, columns: Sequence[Column] | None) -> pd.DataFrame:
    """Keep the wanted columns; an error for one that is not there, or for a table without rows."""
    names = list(map(str, table.columns))
    for column in columns or ():
        if column.needed and column.name not in names:
            free = [name for name in names if name not in [c.name for c in columns or ()]]
            of = f" for {column.label}" if column.label else ""
            raise DataError(
                f"{str(path)!r} has no column {column.name!r}{of}{nearest(column.name, free)}; it has {', '.join(names)}"
                + (f"; {column.advice}" if column.advice else "")
            )
    if not len(table):
        raise DataError(f"{str(path)!r} has no rows")
    return table if columns is None else table[list(dict.fromkeys(c.name for c in columns if c.name in names))].copy()
