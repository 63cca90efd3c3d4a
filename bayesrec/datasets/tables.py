"""Delimited text and JSON lines in blocks: a fast parser where a block is clean, line by line where it is not. Internal."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pandas as pd

from bayesrec.data.columns import nearest
from bayesrec.datasets.common import Collector, Problems
from bayesrec.datasets.files import Entry
from bayesrec.errors import DataError

_BLOCK = 1 << 23  # bytes read at a time
_JSON_ROWS = 100_000
_LONG = re.compile(rb"[0-9]{19}")
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_DTYPES: dict[str, Any] = {"int": np.int64, "float": np.float64, "date": str, "str": str}


@dataclass(frozen=True)
class Spec:
    """How a line is laid out: the separator, the number of fields, and (position, column, kind) of those wanted.

    A kind is "int", "float", "str" or "date" (which begins with year-month-day).
    """

    sep: str
    width: int
    wanted: tuple[tuple[int, str, str], ...]

    @classmethod
    def of(cls, sep: str, **kinds: str) -> Spec:
        """Make the Spec of a line whose fields are all wanted, in this order."""
        return cls(sep, len(kinds), tuple((k, name, kind) for k, (name, kind) in enumerate(kinds.items())))

    @classmethod
    def from_header(
        cls,
        names: Sequence[str],
        sep: str,
        roles: Mapping[str, tuple[str, Sequence[str]]],
        label: str,
        optional: Any = (),
    ) -> Spec:
        """Find columns by name; `roles` maps a column to its kind and the names it goes by (case does not count)."""
        lower = [name.strip().strip('"').lower() for name in names]
        wanted = []
        for column, (kind, aliases) in roles.items():
            at = next((lower.index(alias) for alias in aliases if alias in lower), None)
            if at is not None:
                wanted.append((at, column, kind))
            elif column not in optional:
                raise DataError(
                    f"{label}: no column for {column} in the header {list(names)}{nearest(aliases[0], names)}; "
                    f"looked for {', '.join(aliases)}"
                )
        return cls(sep, len(names), tuple(wanted))


def blocks(stream: IO[bytes], label: str, size: int = _BLOCK) -> Iterator[bytes]:
    r"""Yield whole lines, about `size` bytes at a time, without byte order mark and with \n as line end."""
    rest, start = b"", True
    while chunk := stream.read(size):
        if start:
            if chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise DataError(f"{label} is in UTF-16; convert it to UTF-8")
            chunk, start = chunk.removeprefix(b"\xef\xbb\xbf"), False
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield (rest + head + newline).replace(b"\r\n", b"\n")
            rest = tail
        else:
            rest += chunk
    if rest:
        yield rest.removesuffix(b"\r") + b"\n"


def first_line(entry: Entry) -> str:
    """Return the first line of a file."""
    with entry.open() as stream:
        for block in blocks(stream, entry.label, 1 << 16):
            return decoded(block.split(b"\n", 1)[0])[0]
    return ""


def decoded(line: bytes) -> tuple[str, bool]:
    """Return text from UTF-8, or from Latin-1 (which takes any bytes) with False."""
    try:
        return line.decode("utf-8"), True
    except UnicodeDecodeError:
        return line.decode("latin-1"), False


def fields(text: str, sep: str) -> list[str]:
    """Split a line; quotes count in CSV and TSV, runs of blanks are one where the separator is a blank."""
    if sep == " ":
        return text.split()
    if '"' in text and len(sep) == 1:
        return next(csv.reader([text], delimiter=sep), [])
    return text.split(sep)


def collect_text(entry: Entry, spec: Spec, into: Collector, header: bool = False, domain: str | None = None) -> bool:
    """Read a file of ratings into a collector; True when it has enough rows. `header` skips the first line."""
    number = 1
    with entry.open() as stream:
        for data in blocks(stream, entry.label):
            n_lines = data.count(b"\n")
            numbers = np.arange(number, number + n_lines)
            number += n_lines
            if header:
                data, numbers, header = data.partition(b"\n")[2], numbers[1:], False
            frame, lines = parse(data, numbers, spec, into.problems, entry.label)
            if "rating" not in frame:  # clicks
                frame = frame.assign(rating=1.0)
            if domain is not None:
                frame = frame.assign(domain=domain)
            if len(frame) and into.add(frame, entry.label, lines):
                return True
    return False


def parse(
    data: bytes, numbers: np.ndarray, spec: Spec, problems: Problems, label: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the rows of some whole lines and the line number of each; malformed ones are counted."""
    frame = _parse_fast(data, len(numbers), spec)
    if frame is not None:
        return frame, numbers
    rows: list[list[Any]] = []
    kept: list[int] = []
    readers = [(at, _READ[kind]) for at, _, kind in spec.wanted]
    for raw, number in zip(data.split(b"\n"), numbers, strict=False):
        if not raw.strip():
            continue
        text, utf8 = decoded(raw)
        try:
            parts = fields(text, spec.sep)
            if len(parts) != spec.width:
                raise ValueError
            row = [read(parts[at].strip()) for at, read in readers]
        except (ValueError, OverflowError, csv.Error):
            problems.add("malformed lines, dropped", f"{label}, line {number}")
            continue
        if not utf8:
            problems.add("lines that are not UTF-8, read as Latin-1", f"{label}, line {number}")
        rows.append(row)
        kept.append(int(number))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(spec.wanted)
    table = {
        name: pd.Series(list(values), dtype="datetime64[s]" if kind == "date" else _DTYPES[kind])
        for (_, name, kind), values in zip(spec.wanted, columns, strict=True)
    }
    return pd.DataFrame(table), np.array(kept, dtype=np.int64)


def _parse_fast(data: bytes, n_lines: int, spec: Spec) -> pd.DataFrame | None:
    """Return the rows in one go, or None unless every line certainly has the right fields."""
    sep = spec.sep
    if len(sep) > 1:
        if b"\t" in data:
            return None
        data, sep = data.replace(sep.encode(), b"\t"), "\t"
    if n_lines == 0 or b'"' in data or b"\r" in data or data.count(sep.encode()) != n_lines * (spec.width - 1):
        return None
    kinds = {at: kind for at, _, kind in spec.wanted}
    mark = sep.encode()
    if {b"true", b"false"} & set(data.partition(b"\n")[0].lower().split(mark)):
        return None  # pandas makes numbers of a column of truth values
    edges = (mark + b" ", b" " + mark, b"\n ", b" \n")
    if "str" in kinds.values() and b" " in data and (data[:1] == b" " or any(edge in data for edge in edges)):
        return None  # blanks around an id are no part of it
    if b"\0" in data or ("int" in kinds.values() and _LONG.search(data)):
        return None  # pandas 2 ends a string at a NUL and wraps integers of 64 bits around
    kinds.setdefault(spec.width - 1, "str")
    try:
        with np.errstate(invalid="raise"):  # pandas casts inf to an integer otherwise
            frame = pd.read_csv(
                io.BytesIO(data), sep=sep, header=None, names=range(spec.width), usecols=list(kinds),
                dtype={at: _DTYPES[kind] for at, kind in kinds.items()}, index_col=False, quoting=csv.QUOTE_NONE,
                keep_default_na=False, na_values=[""], low_memory=False,
            )  # fmt: skip
            # with as many separators as due in all, a line with one too many means one with a missing last field
            if len(frame) != n_lines or frame.isna().any().any():
                return None
            for at, kind in kinds.items():
                if kind == "date":
                    day = frame[at].str[:10]
                    if not day.str.fullmatch(_DAY).all():
                        return None  # pandas takes 2005-9-6 and NaT
                    frame[at] = pd.to_datetime(day, format="%Y-%m-%d").astype("datetime64[s]")
    except (ValueError, ArithmeticError, TypeError):  # no number, too large a one, not UTF-8, no date
        return None
    frame = frame[[at for at, _, _ in spec.wanted]]
    frame.columns = pd.Index([name for _, name, _ in spec.wanted])
    return frame


def _integer(text: str) -> int:
    """Read an integer, also one written as 3.0; a ValueError for anything else."""
    if "_" in text:  # Python takes 1_000
        raise ValueError
    try:
        value = int(text)
    except ValueError:
        number = float(text)
        value = int(number)
        if value != number:
            raise
    if not -(2**63) <= value < 2**63:
        raise OverflowError
    return value


def _word(text: str) -> str:
    """Read a string that is not empty."""
    if not text:
        raise ValueError
    return text


def _date(text: str) -> np.datetime64:
    """Read the day at the start of a text."""
    if not re.match(_DAY, text):
        raise ValueError
    return np.datetime64(text[:10], "s")


_READ: dict[str, Callable[[str], Any]] = {"int": _integer, "float": float, "str": _word, "date": _date}


def text_table(
    entry: Entry, sep: str, columns: Sequence[str] | None, problems: Problems, ids: Mapping[str, str],
    latin: bool = False, last_takes_rest: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Return a small table of items or users as strings; missing entries stay "".

    Parameters
    ----------
    columns : sequence of str or None
        Names by position ("" for one not wanted); None takes them from the first line.
    ids : mapping of str to str
        Kind ("int" or "str") of the columns that must be right for the line to count; the first of them is the id.
    latin : bool
        Whether lines in Latin-1 are in order (the official encoding).
    last_takes_rest : bool
        Whether the last column may hold the separator.
    """
    rows = []
    for number, raw in numbered(entry):
        text, utf8 = decoded(raw)
        if columns is None:
            columns = [name.strip() for name in fields(text, sep)]
            missing = [name for name in ids if name not in columns]
            if missing:
                raise DataError(f"{entry.label}: no column {missing[0]!r} in the header {columns}")
            continue
        try:
            parts = text.split(sep, len(columns) - 1) if last_takes_rest else fields(text, sep)
            if len(parts) != len(columns):
                raise ValueError
            row = {name: part.strip() for name, part in zip(columns, parts, strict=True) if name}
            for name, kind in ids.items():
                row[name] = _READ[kind](row[name])
        except (ValueError, OverflowError, csv.Error):
            problems.add(f"malformed lines of {entry.base}, dropped", f"line {number}")
            continue
        if not (utf8 or latin):
            problems.add("lines that are not UTF-8, read as Latin-1", f"{entry.label}, line {number}")
        rows.append(row)
    if columns is None:
        raise DataError(f"{entry.label} is empty")
    table = pd.DataFrame(rows, columns=[name for name in columns if name])
    key = next(iter(ids))
    repeated = table[key].duplicated()
    problems.add(f"repeated ids in {entry.base}, the first kept", count=int(repeated.sum()))
    return table[~repeated].reset_index(drop=True)


def numbered(entry: Entry) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, line) of the lines that are not blank."""
    number = 0
    with entry.open() as stream:
        for data in blocks(stream, entry.label):
            for raw in data.removesuffix(b"\n").split(b"\n"):
                number += 1
                if raw.strip():
                    yield number, raw


def json_records(entry: Entry, problems: Problems) -> Iterator[tuple[int, dict]]:
    """Yield (line number, object) of a file with one JSON object a line; broken lines are counted."""
    for number, raw in numbered(entry):
        if number == 1 and raw.lstrip().startswith(b"["):
            raise DataError(f"{entry.label} is one JSON array; write one object a line (JSON lines)")
        text, utf8 = decoded(raw)
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            problems.add("broken JSON lines, dropped", f"{entry.label}, line {number}")
            continue
        if not utf8:
            problems.add("lines that are not UTF-8, read as Latin-1", f"{entry.label}, line {number}")
        yield number, record


def collect_json(
    entry: Entry, roles: Mapping[str, tuple[str, Sequence[str]]], into: Collector, domain: str | None = None
) -> bool:
    """Read ratings from JSON lines; `roles` maps a column to its kind and the keys it goes by. True when enough."""
    rows: list[list[Any]] = []
    lines: list[int] = []

    def flush() -> bool:
        table = {
            name: pd.Series(list(values), dtype="datetime64[s]" if kind == "date" else _DTYPES[kind])
            for (name, (kind, _)), values in zip(roles.items(), zip(*rows, strict=True), strict=True)
        }
        block = pd.DataFrame(table) if domain is None else pd.DataFrame(table).assign(domain=domain)
        enough = into.add(block, entry.label, np.array(lines))
        rows.clear()
        lines.clear()
        return enough

    for number, record in json_records(entry, into.problems):
        try:
            row = [_READ[kind](_text(record, keys)) for kind, keys in roles.values()]
        except (ValueError, OverflowError):
            into.problems.add("malformed lines, dropped", f"{entry.label}, line {number}")
            continue
        rows.append(row)
        lines.append(number)
        if len(rows) == _JSON_ROWS and flush():
            return True
    return bool(rows) and flush()


def _text(record: dict, keys: Sequence[str]) -> str:
    """Return the first value that is there as text; a ValueError without one."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return repr(value)
    raise ValueError
