"""What every reader shares: the Dataset it returns, the tally of problems and the collector of rating blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.errors import DataError

Keep = Callable[[pd.DataFrame], Any]
_MILLISECONDS = 10**11  # as seconds this would be the year 5138
_TIMES = (-62_135_596_800, 253_402_300_800)  # seconds at which the years 1 and 10000 begin


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Dataset:
    """A public data set as read from its files. Provisional.

    Attributes
    ----------
    name : str
        Name of the folder, archive or file.
    ratings : pandas.DataFrame
        `user`, `item`, `rating` (float64), and where the files have them `time` (datetime64[s], UTC), `domain` and
        columns of their own. One row per (user, item) of a domain.
    items, users : pandas.DataFrame or None
        One row per id, with the column `item` or `user`. Lists such as genres are strings with ``|`` between.
    trust : pandas.DataFrame or None
        Directed edges, `truster` and `trustee`.
    problems : mapping of str to int
        What was wrong with the files, as sentences, and how often.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"user": [1, 1, 2], "item": [7, 8, 8], "rating": [5.0, 3.0, 4.0]})
    >>> Dataset("toy", frame, problems={"malformed lines, dropped (first: toy.csv, line 3)": 1})
    Dataset toy: 3 ratings of 2 users on 2 items, from 3 to 5
      problem: 1 x malformed lines, dropped (first: toy.csv, line 3)
    """

    name: str
    ratings: pd.DataFrame
    items: pd.DataFrame | None = None
    users: pd.DataFrame | None = None
    trust: pd.DataFrame | None = None
    problems: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        frame = self.ratings
        keys = ["domain", "item"] if "domain" in frame else ["item"]
        head = f"{len(frame):,} ratings of {frame['user'].nunique():,} users on {len(frame[keys].drop_duplicates()):,} items"
        if len(frame):
            head += f", from {frame['rating'].min():g} to {frame['rating'].max():g}"
            if "time" in frame:
                head += f", {frame['time'].min():%Y-%m-%d} to {frame['time'].max():%Y-%m-%d}"
        lines = [f"Dataset {self.name}: {head}"]
        if "domain" in frame:
            lines.append("  domains: " + ", ".join(f"{k} {n:,}" for k, n in frame["domain"].value_counts().items()))
        for what, table in (("items", self.items), ("users", self.users)):
            if table is not None:
                lines.append(f"  {what}: {len(table):,} rows ({', '.join(table.columns)})")
        if self.trust is not None:
            lines.append(f"  trust: {len(self.trust):,} edges")
        return "\n".join([*lines, *(f"  problem: {n:,} x {what}" for what, n in self.problems.items())])


@dataclass
class Problems:
    """Counts problems, with the place of the first of each kind; in strict mode the first of all is an error."""

    strict: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, place: str = "", count: int = 1) -> None:
        """Count a problem; a DataError in strict mode."""
        if count <= 0:
            return
        if self.strict:
            where = f"{place}: " if place else ""
            raise DataError(f"{where}{what} ({count}); correct the file, or read it with strict=False")
        self.counts[what] = self.counts.get(what, 0) + count
        self.first.setdefault(what, place)

    def sentences(self) -> dict[str, int]:
        """Problem to count, the first place in the sentence."""
        places = {what: f" (first: {place})" if place else "" for what, place in self.first.items()}
        return {f"{what}{places[what]}": count for what, count in self.counts.items()}


@dataclass
class Collector:
    """Takes blocks of ratings, drops what is no rating, filters, and gives one table.

    Attributes
    ----------
    problems : Problems
    scale : (float, float)
        Least and greatest possible rating.
    missing : mapping of float to str
        Values outside the scale that stand for "no rating", and what to call them.
    keep : callable, optional
        Called with each block (a DataFrame); its boolean mask says which rows stay.
    max_rows : int, optional
        Rows to stop after.
    """

    problems: Problems
    scale: tuple[float, float] = (-np.inf, np.inf)
    missing: Mapping[float, str] = field(default_factory=dict)
    keep: Keep | None = None
    max_rows: int | None = None
    blocks: list[pd.DataFrame] = field(default_factory=list)
    places: list[tuple[str, np.ndarray]] = field(default_factory=list)
    size: int = 0
    seen: int = 0

    def __post_init__(self) -> None:
        whole = isinstance(self.max_rows, int) and not isinstance(self.max_rows, bool)
        if self.max_rows is not None and not (whole and self.max_rows > 0):
            raise DataError(f"max_rows must be a whole number of 1 or more, or None, got {self.max_rows!r}")

    def add(self, block: pd.DataFrame, label: str, lines: np.ndarray) -> bool:
        """Take a block; `lines` (n,) are its line numbers in the file `label`. True when there are enough rows."""
        self.seen += len(block)
        if "time" in block and block["time"].dtype.kind == "f":
            finite = np.isfinite(block["time"].to_numpy())
            self._report(~finite, "times that are no number, dropped", label, lines)
            block, lines = block[finite], lines[finite]
        rating = block["rating"].to_numpy(dtype=np.float64)
        good = np.isfinite(rating) & (rating >= self.scale[0]) & (rating <= self.scale[1])
        if not good.all():
            for value, what in self.missing.items():
                good |= self._report(rating == value, f"{what}, dropped", label, lines)
            low, high = self.scale
            self._report(~good, f"ratings outside {low:g} to {high:g}, dropped", label, lines)
            good &= ~np.isin(rating, list(self.missing))
            block, lines = block[good], lines[good]
        if "time" in block:
            block = block.assign(time=as_time(block["time"]))
            seconds = block["time"].to_numpy().astype(np.int64)
            good = (seconds >= _TIMES[0]) & (seconds < _TIMES[1])
            if not good.all():
                self._report(~good, "times outside the years 1 to 9999, dropped", label, lines)
                block, lines = block[good], lines[good]
        if self.keep is not None:
            mask = np.asarray(self.keep(block))
            if mask.dtype != bool or mask.shape != (len(block),):
                raise DataError(
                    f"keep must return one True or False for each of the {len(block)} rows of a block, "
                    f"got {mask.dtype} of shape {mask.shape}"
                )
            block, lines = block[mask], lines[mask]
        if self.max_rows is not None:
            block, lines = block[: self.max_rows - self.size], lines[: self.max_rows - self.size]
        self.size += len(block)
        self.blocks.append(block)
        if self.problems.strict:
            self.places.append((label, lines))
        return self.size == self.max_rows

    def table(self, label: str) -> pd.DataFrame:
        """Return all rows; of a repeated (user, item) of a domain the newest, or without times the last, stays.

        Raises
        ------
        DataError
            No row at all, or more malformed lines than good ones: the file is something else.
        """
        bad = sum(count for what, count in self.problems.counts.items() if what.startswith(("malformed", "broken")))
        if not self.blocks or bad > self.seen:
            raise DataError(
                f"{label}: {'no ratings' if not self.blocks else 'more malformed lines than ratings'} in it; "
                f"problems: {self.problems.sentences() or 'none'}; is it the file that this reader is for?"
            )
        frame = (
            pd.concat(self.blocks, ignore_index=True) if len(self.blocks) > 1 else self.blocks[0].reset_index(drop=True)
        )
        self.blocks = []
        repeated = _repeated(frame)
        if repeated is None:
            return frame
        self.problems.add("repeated (user, item) rows, the newest kept", self._place(repeated), int(repeated.sum()))
        return frame[~repeated].reset_index(drop=True)

    def _report(self, bad: np.ndarray, what: str, label: str, lines: np.ndarray) -> np.ndarray:
        if bad.any():
            self.problems.add(what, f"{label}, line {lines[bad.argmax()]}", int(bad.sum()))
        return bad

    def _place(self, repeated: np.ndarray) -> str:
        """File and line of the first repeated row; known in strict mode only."""
        row = int(repeated.argmax())
        for label, lines in self.places:
            if row < len(lines):
                return f"{label}, line {lines[row]}"
            row -= len(lines)
        return ""


def as_time(times: pd.Series) -> pd.Series:
    """Return epoch seconds, epoch milliseconds (told by their size) or datetimes as datetime64[s]."""
    if pd.api.types.is_numeric_dtype(times.dtype):
        values = times.to_numpy(dtype=np.int64)
        times = pd.Series(np.where(np.abs(values) >= _MILLISECONDS, values // 1000, values), index=times.index)
    return times.astype("datetime64[s]")


def _repeated(frame: pd.DataFrame) -> np.ndarray | None:
    """Return which rows have a newer one of the same (user, item[, domain]), or None without any."""
    names = [name for name in ("domain", "user", "item") if name in frame]
    key = np.zeros(len(frame), dtype=np.int64)
    for name in names:
        codes, found = pd.factorize(frame[name])
        key *= max(len(found), 1)
        key += codes
    ordered = np.sort(key)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return None
    at = np.searchsorted(twice, key)
    rows = np.flatnonzero(twice[np.minimum(at, len(twice) - 1)] == key)
    if "time" in frame:
        rows = rows[frame["time"].to_numpy()[rows].argsort(kind="stable")]
    repeated = np.zeros(len(frame), dtype=bool)
    repeated[rows] = pd.Series(key[rows]).duplicated(keep="last").to_numpy()
    return repeated
