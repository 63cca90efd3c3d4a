"""MovieLens in all its official layouts."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from bayesrec.data.columns import nearest
from bayesrec.datasets.common import Collector, Dataset, Keep, Problems
from bayesrec.datasets.download import fetch
from bayesrec.datasets.files import Source, open_source, stem
from bayesrec.datasets.tables import Spec, collect_text, first_line, text_table
from bayesrec.errors import DataError

_SITE = "https://files.grouplens.org/datasets/movielens/"
_EDITIONS = (
    "ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small", "ml-latest",
)  # fmt: skip
_FLAGS = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_HEADER = {
    "user": ("int", ("userid", "user_id")),
    "item": ("int", ("movieid", "movie_id")),
    "rating": ("float", ("rating",)),
    "time": ("int", ("timestamp",)),
}


def movielens(
    path: str | os.PathLike[str],
    *,
    strict: bool = False,
    keep: Keep | None = None,
    max_rows: int | None = None,
    download: bool = False,
    _site: str = _SITE,
) -> Dataset:
    r"""Read MovieLens 100K, 1M, 10M, 20M, 25M, 32M, latest or latest-small. Stable.

    Parameters
    ----------
    path : path
        The folder, the .zip as distributed, or a single file of ratings (`u.data`, `ratings.dat`, `ratings.csv`).
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows (a DataFrame with `user`, `item`, `rating`, `time`); returns a boolean mask.
    max_rows : int, optional
        Stop after so many rows.
    download : bool
        Fetch the archive from files.grouplens.org first, if `path` is not there. The last part of the path names the
        edition: "data/ml-1m" or "data/ml-1m.zip".

    Returns
    -------
    Dataset
        `ratings` with integer ids and `time`; `items` with `title`, `genres` (``|`` between) and, where there is a
        links.csv, `imdb` and `tmdb`; `users` for 100K and 1M. Memory: the file is read 8 MB at a time; the peak is
        about three times the table that is kept (32 bytes a rating).

    Raises
    ------
    DataError
        Nothing of MovieLens at `path`, a damaged archive, a problem in strict mode, a failed download.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp(), "ml-latest-small")
    >>> folder.mkdir()
    >>> rows = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,1029,3.0,1260759179\n"
    >>> _ = (folder / "ratings.csv").write_text(rows)
    >>> movielens(folder)
    Dataset ml-latest-small: 2 ratings of 1 users on 2 items, from 2.5 to 3, 2009-12-14 to 2009-12-14
    """
    if download and not Path(path).expanduser().exists():
        path = _download(Path(path), _site)
    problems = Problems(strict)
    with open_source(path) as source:
        into = Collector(problems, (0.5, 5.0), {0.0: "zero ratings"}, keep, max_rows)
        entry = source.need("MovieLens ratings", "u.data", "ratings.dat", "ratings.csv")
        kinds = {"user": "int", "item": "int", "rating": "float", "time": "int"}
        if entry.base.lower() == "ratings.csv":
            spec = Spec.from_header(first_line(entry).split(","), ",", _HEADER, entry.label)
            collect_text(entry, spec, into, header=True)
        else:
            collect_text(entry, Spec.of("\t" if entry.base.lower() == "u.data" else "::", **kinds), into)
        ratings = into.table(entry.label)
        return Dataset(
            source.stem, ratings, _items(source, problems), _users(source, problems), problems=problems.sentences()
        )


def _items(source: Source, problems: Problems) -> pd.DataFrame | None:
    """Read the titles and genres of whichever edition this is."""
    entry = source.find("u.item", "movies.dat", "movies.csv")
    if entry is None:
        return None
    if entry.base.lower() == "u.item":
        names = ["item", "title", "date", "", "url", *_FLAGS]
        table = text_table(entry, "|", names, problems, {"item": "int"}, latin=True)
        flags = table[list(_FLAGS)].to_numpy() == "1"
        genres = ["|".join(name for name, on in zip(_FLAGS, row, strict=True) if on) for row in flags]
        return table[["item", "title", "date", "url"]].assign(genres=genres)
    if entry.base.lower() == "movies.dat":  # Latin-1 in the 1M edition, UTF-8 in the 10M one
        table = text_table(entry, "::", ["item", "title", "genres"], problems, {"item": "int"}, latin=True)
    else:
        table = text_table(entry, ",", None, problems, {"movieId": "int", "title": "str"})
        table = table.rename(columns={"movieId": "item"})
    if "genres" in table:
        table["genres"] = table["genres"].replace("(no genres listed)", "")
    links = source.find("links.csv")
    if links is None:
        return table
    other = text_table(links, ",", None, problems, {"movieId": "int"}).rename(
        columns={"movieId": "item", "imdbId": "imdb", "tmdbId": "tmdb"}
    )
    for name in {"imdb", "tmdb"} & set(other):
        other[name] = pd.to_numeric(other[name], errors="coerce").astype("Int64")
    return table.merge(other, on="item", how="left")


def _users(source: Source, problems: Problems) -> pd.DataFrame | None:
    """Read the users of the 100K and 1M editions."""
    entry = source.find("u.user", "users.dat")
    if entry is None:
        return None
    if entry.base.lower() == "u.user":
        names, sep = ["user", "age", "gender", "occupation", "zip"], "|"
    else:
        names, sep = ["user", "gender", "age", "occupation", "zip"], "::"
    return text_table(entry, sep, names, problems, {"user": "int", "age": "int"}, latin=True)


def _download(path: Path, site: str) -> Path:
    """Fetch the edition that the last part of a path names and return where the archive is."""
    edition = stem(path.name).lower()
    if edition not in _EDITIONS:
        raise DataError(
            f"{path.name!r} names no MovieLens edition{nearest(edition, _EDITIONS)}; the last part of the path must be "
            f"one of {', '.join(_EDITIONS)}, with .zip or without"
        )
    return fetch(f"{site}{edition}.zip", path.parent / f"{re.sub(r'(?i)[.]zip$', '', path.name)}.zip")
