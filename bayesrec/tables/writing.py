"""Tables to files, whole or not at all."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.errors import BayesrecError, DataError
from bayesrec.files import beside
from bayesrec.tables.formats import format_of, zipped

__all__ = ["check_place", "not_written", "plain", "records", "to_bytes", "write_bytes", "write_table"]


def write_table(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write a table in the format that the name means, whole or not at all. Provisional.

    Parameters
    ----------
    frame : DataFrame (n rows)
        Its index is left out. Numbers are written so that reading gives the same bits.
    path : str or Path
        A folder that does not exist is made.

    Raises
    ------
    DataError
        An unknown extension.
    BayesrecError
        The disk is full, or the place cannot be written to; a file that was there is as it was.
    """
    data = to_bytes(frame, format_of(path))
    return write_bytes(path, gzip.compress(data, mtime=0) if zipped(path) else data)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a file beside its place and move it there. Internal."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as fresh:
            fresh.write_bytes(data)
    except OSError as error:
        raise not_written(path, error) from error
    return path


def check_place(path: str | Path) -> None:
    """Refuse, before the work is done, a place that cannot be written to. Internal."""
    near = next(place for place in Path(path).absolute().parents if place.exists())
    if not near.is_dir():
        raise DataError(f"{str(path)!r} cannot be written: {str(near)!r} is a file, not a folder")
    if not os.access(near, os.W_OK | os.X_OK):
        raise DataError(f"{str(path)!r} cannot be written: the folder {str(near)!r} is read-only; choose another place")


def not_written(path: str | Path, error: OSError) -> BayesrecError:
    """Say why a file or folder could not be written, and what became of the old one. Internal."""
    why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    kept = "; what was there before is as it was" if Path(path).exists() else ""
    return BayesrecError(f"{str(path)!r} could not be written: {why}{kept}")


def to_bytes(frame: pd.DataFrame, form: str) -> bytes:
    """Return a table in a format, uncompressed. Internal."""
    if form == "parquet":
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        return buffer.getvalue()
    if form == "jsonl":
        lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records(frame))
        return "".join(line + "\n" for line in lines).encode()
    sep = "\t" if form == "tsv" else ","
    text = frame.to_csv(index=False, sep=sep, lineterminator="\n")
    if "\r" in text:  # the writer would leave a bare carriage return without quotes, and it would read as a line end
        text = frame.to_csv(index=False, sep=sep, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text.encode()


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dicts that JSON can hold: missing and infinite numbers as None, times as text. Internal.

    Examples
    --------
    >>> records(pd.DataFrame({"a": [1, 2], "b": [0.5, float("nan")]}))
    [{'a': 1, 'b': 0.5}, {'a': 2, 'b': None}]
    """
    return [{str(name): plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def plain(value: Any) -> Any:
    """Return one value as JSON can hold it. Internal."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NaT or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value if isinstance(value, str | int | float) else str(value)
