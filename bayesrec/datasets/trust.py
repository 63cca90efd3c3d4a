"""Ciao and Epinions: ratings in many categories, and who trusts whom."""

from __future__ import annotations

import io
import os
import zlib

import numpy as np
import pandas as pd

from bayesrec.datasets.common import Collector, Dataset, Keep, Problems
from bayesrec.datasets.files import Entry, Source, open_source
from bayesrec.datasets.tables import Spec, blocks, collect_text, fields, first_line, parse
from bayesrec.errors import DataError

_ROLES = {
    "user": ("int", ("user", "userid", "user_id")),
    "item": ("int", ("item", "productid", "itemid", "item_id", "product")),
    "category": ("int", ("category", "categoryid")),
    "rating": ("float", ("rating",)),
    "helpfulness": ("float", ("helpfulness",)),
    "time": ("int", ("unix_time", "time", "timestamp")),
}
_MATLAB = ("user", "item", "category", "rating", "helpfulness", "time")
_CIAODVD = Spec(  # user, film, genre, review, rating, day
    ",",
    6,
    ((0, "user", "int"), (1, "item", "int"), (2, "category", "int"), (4, "rating", "float"), (5, "time", "date")),
)
_TRUSTLET = Spec.of(" ", user="int", item="int", rating="float")
_RATINGS = (
    "rating_with_timestamp.mat", "rating.mat", "ratings.csv", "rating.csv", "movie-ratings.txt", "ratings_data.txt",
)  # fmt: skip
_TRUST = ("trustnetwork.mat", "trust.mat", "trust.csv", "trusts.txt", "trust_data.txt")


def ciao(
    path: str | os.PathLike[str], *, strict: bool = False, keep: Keep | None = None, max_rows: int | None = None
) -> Dataset:
    r"""Read Ciao: 28 categories, times, trust. Stable.

    Parameters
    ----------
    path : path
        Folder or archive with `rating.mat` or `rating_with_timestamp.mat` and `trustnetwork.mat` (Tang et al. 2012), or
        with `ratings.csv` and `trust.csv` (header ``user,item,category,rating,helpfulness,unix_time``), or CiaoDVD's
        `movie-ratings.txt` and `trusts.txt`; or a file of ratings alone.
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows; returns a boolean mask.
    max_rows : int, optional
        Stop after so many rows.

    Returns
    -------
    Dataset
        `ratings` also has `category` (an integer) and, where given, `helpfulness`. A rating of 0 is a missing value and
        is dropped. `trust` has `truster` and `trustee`, in the same ids. Some items stand in two categories: see
        `by_category`. Memory: blocks of 8 MB, but a .mat file is read whole.

    Raises
    ------
    DataError
        No ratings at `path`, columns that are not recognised, a damaged file, a problem in strict mode.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp(), "ciao")
    >>> folder.mkdir()
    >>> rows = "user,item,category,rating,helpfulness,unix_time\n1,5,24,4,3,959670000\n1,6,24,0,3,959670000\n"
    >>> _ = (folder / "ratings.csv").write_text(rows)
    >>> _ = (folder / "trust.csv").write_text("truster,trustee\n1,2\n")
    >>> data = ciao(folder)
    >>> len(data.ratings), len(data.trust), list(data.problems.values())
    (1, 1, [1])
    """
    return _read(path, Problems(strict), keep, max_rows)


def epinions(
    path: str | os.PathLike[str], *, strict: bool = False, keep: Keep | None = None, max_rows: int | None = None
) -> Dataset:
    r"""Read Epinions: 27 categories and trust (Tang et al.), or ratings and trust alone (Massa). Stable.

    Parameters
    ----------
    path : path
        Folder or archive with the .mat files named under `ciao`, the same as CSV, or `ratings_data.txt` and
        `trust_data.txt` (blanks between, no header); or a file of ratings alone.
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows; returns a boolean mask.
    max_rows : int, optional
        Stop after so many rows.

    Returns
    -------
    Dataset
        As for `ciao`; `ratings_data.txt` has neither categories nor times.

    Raises
    ------
    DataError
        As for `ciao`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "ratings_data.txt")
    >>> _ = file.write_text("1 100 4\n1 101 5\n")
    >>> epinions(file)
    Dataset ratings_data: 2 ratings of 1 users on 2 items, from 4 to 5
    """
    return _read(path, Problems(strict), keep, max_rows)


def _read(path: str | os.PathLike[str], problems: Problems, keep: Keep | None, max_rows: int | None) -> Dataset:
    with open_source(path) as source:
        into = Collector(problems, (1.0, 5.0), {0.0: "zero ratings (missing values)"}, keep, max_rows)
        entry = source.need("ratings", *_RATINGS)
        base = entry.base.lower()
        if base.endswith(".mat"):
            _collect_matlab(entry, into)
        elif base.endswith(".csv"):
            names = fields(first_line(entry), ",")
            optional = ("category", "helpfulness", "time")
            collect_text(entry, Spec.from_header(names, ",", _ROLES, entry.label, optional), into, header=True)
        else:
            collect_text(entry, _CIAODVD if base == "movie-ratings.txt" else _TRUSTLET, into)
        ratings = into.table(entry.label)
        return Dataset(source.stem, ratings, trust=_trust(source, problems), problems=problems.sentences())


def _collect_matlab(entry: Entry, into: Collector) -> None:
    """Read the ratings of a .mat file; a "line" is a row of its matrix, from 1."""
    matrix = _matrix(entry)
    if matrix.shape[1] not in (5, 6):
        raise DataError(f"{entry.label}: a matrix of ratings has 5 or 6 columns, this one {matrix.shape[1]}")
    lines = np.arange(1, len(matrix) + 1)
    names = _MATLAB[: matrix.shape[1]]
    whole = [k for k, name in enumerate(names) if name not in ("rating", "helpfulness")]
    good = np.isfinite(matrix).all(axis=1) & (matrix[:, whole] == np.floor(matrix[:, whole])).all(axis=1)
    if not good.all():
        first = f"{entry.label}, line {lines[~good][0]}"
        into.problems.add("malformed lines, dropped", first, int((~good).sum()))
    frame = pd.DataFrame(matrix[good], columns=list(names))
    frame = frame.astype({names[k]: np.int64 for k in whole})
    if len(frame):
        into.add(frame, entry.label, lines[good])


def _matrix(entry: Entry) -> np.ndarray:
    """Return the largest matrix of a .mat file as float64."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    with entry.open() as stream:
        data = stream.read()
    try:
        held = loadmat(io.BytesIO(data))
    except (ValueError, TypeError, KeyError, IndexError, EOFError, OSError, zlib.error, MatReadError) as error:
        raise DataError(
            f"{entry.label} is no readable .mat file ({error}); it may be truncated: fetch it again"
        ) from error
    except NotImplementedError as error:
        raise DataError(f"{entry.label} is a .mat file of version 7.3; save it with -v7") from error
    found = [m for m in held.values() if isinstance(m, np.ndarray) and m.ndim == 2 and m.dtype.kind in "iuf" and m.size]
    if not found:
        raise DataError(f"{entry.label} holds no matrix of numbers")
    return max(found, key=lambda m: m.size).astype(np.float64)


def _trust(source: Source, problems: Problems) -> pd.DataFrame | None:
    """Read the edges of whichever layout this is; None without a file of them."""
    entry = source.find(*_TRUST)
    if entry is None:
        return None
    base = entry.base.lower()
    if base.endswith(".mat"):
        matrix = _matrix(entry)
        if matrix.shape[1] < 2 or not np.isfinite(matrix).all():
            raise DataError(f"{entry.label}: a matrix of trust has two columns of user ids")
        return _cleaned(pd.DataFrame(matrix[:, :2].astype(np.int64), columns=["truster", "trustee"]), entry, problems)
    if base == "trust.csv":
        names = fields(first_line(entry), ",")
        roles = {"truster": ("int", ("truster", "trustor", "source")), "trustee": ("int", ("trustee", "target"))}
        return read_edges(entry, Spec.from_header(names, ",", roles, entry.label), problems, header=True)
    kinds = {"truster": "int", "trustee": "int", "value": "float"}
    return read_edges(entry, Spec.of("," if base == "trusts.txt" else " ", **kinds), problems)


def read_edges(entry: Entry, spec: Spec, problems: Problems, header: bool = False) -> pd.DataFrame:
    """Read a file of edges with the columns `truster`, `trustee` and perhaps `value`."""
    parts, number = [], 1
    with entry.open() as stream:
        for data in blocks(stream, entry.label):
            numbers = np.arange(number, number + data.count(b"\n"))
            number += len(numbers)
            if header:
                data, numbers, header = data.partition(b"\n")[2], numbers[1:], False
            parts.append(parse(data, numbers, spec, problems, entry.label)[0])
    if not parts:
        raise DataError(f"{entry.label} is empty")
    return _cleaned(pd.concat(parts, ignore_index=True), entry, problems)


def _cleaned(edges: pd.DataFrame, entry: Entry, problems: Problems) -> pd.DataFrame:
    """Drop statements of distrust, edges to oneself and repeated edges, and count them."""
    if "value" in edges:
        trusted = edges["value"] > 0
        problems.add("statements without trust, dropped", entry.label, int((~trusted).sum()))
        edges = edges[trusted]
    edges = edges[["truster", "trustee"]]
    self_loop = edges["truster"] == edges["trustee"]
    problems.add("users who trust themselves, dropped", entry.label, int(self_loop.sum()))
    edges = edges[~self_loop]
    repeated = edges.duplicated()
    problems.add("repeated trust edges, dropped", entry.label, int(repeated.sum()))
    return edges[~repeated].reset_index(drop=True)
