"""The Netflix Prize: one file a movie, or the four combined files."""

from __future__ import annotations

import os
import re

import numpy as np
import pandas as pd

from bayesrec.datasets.common import Collector, Dataset, Keep, Problems
from bayesrec.datasets.files import Entry, open_source
from bayesrec.datasets.tables import Spec, blocks, parse, text_table

_HEADING = re.compile(rb"^([^,\n]*):[ \t]*\n", re.MULTILINE)
_NO_HEADING, _NO_ITEM = -1, -2  # above the first heading; below one that is no number
_SPEC = Spec.of(",", user="int", rating="float", time="date")


def netflix(
    path: str | os.PathLike[str], *, strict: bool = False, keep: Keep | None = None, max_rows: int | None = None
) -> Dataset:
    r"""Read the Netflix Prize training set. Stable.

    Parameters
    ----------
    path : path
        Folder or archive with `training_set/mv_*.txt` (a .tar inside the .tar.gz is opened too) or with
        `combined_data_*.txt`, or one of these files. `movie_titles.txt` or `.csv` is read if it is there.
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows; returns a boolean mask. 100 million ratings need it, or `max_rows`.
    max_rows : int, optional
        Stop after so many rows.

    Returns
    -------
    Dataset
        `time` is a day. `items` has `year` (missing for a few) and `title`. Memory: blocks of 8 MB; the peak is about
        three times the table that is kept, and the table of the whole set has 3.2 GB.

    Raises
    ------
    DataError
        No such files at `path`, a damaged archive, a problem in strict mode.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "combined_data_1.txt")
    >>> _ = file.write_text("1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n2059652,4,2005-09-05\n")
    >>> netflix(file)
    Dataset combined_data_1: 3 ratings of 3 users on 2 items, from 3 to 5, 2005-05-13 to 2005-09-06
    """
    problems = Problems(strict)
    with open_source(path) as source:
        into = Collector(problems, (1.0, 5.0), {0.0: "zero ratings"}, keep, max_rows)
        entries = source.every("combined_data_*.txt") or source.every("mv_*.txt")
        if not entries:
            raise source.nothing("Netflix ratings", "mv_*.txt", "combined_data_*.txt")
        for entry in entries:
            if _collect(entry, into):
                break
        ratings = into.table(str(source.path))
        titles = source.find("movie_titles.txt", "movie_titles.csv")
        items = None
        if titles is not None:
            names = ["item", "year", "title"]
            items = text_table(titles, ",", names, problems, {"item": "int"}, latin=True, last_takes_rest=True)
            items["year"] = pd.to_numeric(items["year"], errors="coerce").astype("Int64")
        return Dataset(source.stem, ratings, items, problems=problems.sentences())


def _collect(entry: Entry, into: Collector) -> bool:
    """Read one file; a line such as "17:" names the item of the lines below it. True when there are enough rows."""
    number, item = 1, _NO_HEADING
    with entry.open() as stream:
        for data in blocks(stream, entry.label):
            if item == _NO_HEADING:  # rows above the first heading belong to no film
                head = _HEADING.search(data)
                above = data[: head.start() if head else len(data)]
                orphans = sum(1 for line in above.split(b"\n") if line.strip())
                into.problems.add("malformed lines, dropped", f"{entry.label}, line {number}", orphans)
                number += above.count(b"\n")
                data = data[len(above) :]
                if head is None:
                    continue
            heads = list(_HEADING.finditer(data))
            at = [0, *(head.start() for head in heads)]
            starts = np.cumsum([data.count(b"\n", a, b) for a, b in zip(at, at[1:], strict=False)], dtype=np.int64)
            n_lines = data.count(b"\n")
            row_item = np.full(n_lines, item, dtype=np.int64)
            for head, start, end in zip(heads, starts, [*starts[1:], n_lines], strict=False):
                item = int(head[1]) if re.fullmatch(rb"[0-9]{1,18}", head[1]) else _NO_ITEM
                row_item[start:end] = item
            is_row = np.ones(n_lines, dtype=bool)
            is_row[starts] = False
            numbers = np.arange(number, number + n_lines)[is_row]
            frame, lines = parse(_HEADING.sub(b"", data), numbers, _SPEC, into.problems, entry.label)
            frame.insert(1, "item", row_item[lines - number])
            if (row_item == _NO_ITEM).any():  # a heading that is no number, and the rows below it
                first = f"{entry.label}, line {number + int((row_item == _NO_ITEM).argmax())}"
                orphan = frame["item"].to_numpy() == _NO_ITEM
                broken = sum(not re.fullmatch(rb"[0-9]{1,18}", head[1]) for head in heads)
                into.problems.add("malformed lines, dropped", first, broken + int(orphan.sum()))
                frame, lines = frame[~orphan], lines[~orphan]
            number += n_lines
            if len(frame) and into.add(frame, entry.label, lines):
                return True
    return False
