"""Bytes of a file to a pandas table, format by format. Internal."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from bayesrec.data.columns import nearest
from bayesrec.errors import DataError

__all__ = ["UNTYPED", "format_of", "parse", "zipped"]

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
UNTYPED = ("csv", "tsv")  # everything is text there


def format_of(path: str | Path) -> str:
    """Return the format that a file name means: "csv", "tsv", "jsonl" or "parquet". Provisional.

    Raises
    ------
    DataError
        Another extension.

    Examples
    --------
    >>> format_of("ratings.tsv.gz")
    'tsv'
    """
    suffix = (Path(path).with_suffix("") if zipped(path) else Path(path)).suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        said = f"the extension {suffix!r}{nearest(suffix, FORMATS)}" if suffix else "no extension"
        raise DataError(f"{str(path)!r} has {said}; a table is {known}, or one of these with .gz")
    return FORMATS[suffix]


def zipped(path: str | Path) -> bool:
    """Whether the name ends in .gz."""
    return Path(path).suffix.lower() == ".gz"


def parse(data: bytes, form: str, path: Path) -> pd.DataFrame:
    """Read the bytes of a table; what has no types is text."""
    if form != "parquet":
        data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise DataError(f"{str(path)!r} is empty")
    if form == "parquet":
        return _parquet(data, path)
    if b"\0" in data[:65536]:
        raise DataError(
            f"{str(path)!r} is no {form.upper()} file: it holds zero bytes, as pictures and UTF-16 do; save it as UTF-8"
        )
    return _jsonl(data, path) if form == "jsonl" else _csv(data, path, form)


def _parquet(data: bytes, path: Path) -> pd.DataFrame:
    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        _once(file.schema_arrow.names, path, "rename one")
        return file.read().to_pandas(ignore_metadata=True, date_as_object=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} is no Parquet file, or damaged or cut short: {error}") from error


def _once(names: list[str], path: Path, advice: str) -> None:
    """Refuse a table of which two columns have one name."""
    twice = next((name for k, name in enumerate(names) if name in names[:k]), None)
    if twice is not None:
        raise DataError(f"{str(path)!r} has two columns named {twice!r}; {advice}")


def _jsonl(data: bytes, path: Path) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {}
    rows = 0
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
            raise DataError(f"{str(path)!r}, line {number} is no JSON: {error}; correct or delete the line") from error
        if not isinstance(row, dict):
            raise DataError(f'{str(path)!r}, line {number} is no JSON object such as {{"user": 1}}: {row!r:.60}')
        for name, value in row.items():
            if name not in columns:
                columns[name] = [None] * rows
            columns[name].append(value)
        rows += 1
        for values in columns.values():
            if len(values) < rows:
                values.append(None)
    return pd.DataFrame(columns, index=pd.RangeIndex(rows))


def _csv(data: bytes, path: Path, form: str) -> pd.DataFrame:
    data = data.lstrip(b"\r\n")
    try:
        first = data.splitlines()[0].decode()
        mark = "\t" if form == "tsv" else next((m for m in ",;\t" if m in first), ",")
        names = [name.strip() for name in next(csv.reader([first], delimiter=mark))]
        _once(names, path, "rename one in its first line")
        if not data.endswith((b"\n", b"\r")):
            data += b"\n"  # the parser takes a first line without an end for no line
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            arrow_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            arrow_csv.ParseOptions(delimiter=mark, newlines_in_values=True),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        if "UTF8" in str(error) or isinstance(error, UnicodeDecodeError):
            raise DataError(f"{str(path)!r} is no UTF-8 text; save it as UTF-8") from error
        found = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", str(error), re.DOTALL)
        if found is None:
            raise DataError(f"{str(path)!r} cannot be read: {error}") from error
        row, wanted, got, text = found.groups()
        raise DataError(
            f"{str(path)!r}, row {int(row) - 2} (rows count from 0) has {got} fields, its first line {wanted}: {text[:60]!r}"
        ) from error
    return table.to_pandas()
