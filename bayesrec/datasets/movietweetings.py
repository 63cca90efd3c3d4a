"""MovieTweetings: ratings of films found in tweets, with IMDb numbers."""

from __future__ import annotations

import os

from bayesrec.datasets.common import Collector, Dataset, Keep, Problems
from bayesrec.datasets.files import open_source
from bayesrec.datasets.tables import Spec, collect_text, text_table

_RATINGS = Spec.of("::", user="int", item="int", rating="float", time="int")


def movietweetings(
    path: str | os.PathLike[str], *, strict: bool = False, keep: Keep | None = None, max_rows: int | None = None
) -> Dataset:
    r"""Read MovieTweetings. Stable.

    Parameters
    ----------
    path : path
        Folder or archive with `ratings.dat`, and `movies.dat` and `users.dat` where they are there, or `ratings.dat`.
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows; returns a boolean mask.
    max_rows : int, optional
        Stop after so many rows.

    Returns
    -------
    Dataset
        Ratings run from 0 to 10, and 0 is a rating. The item is the IMDb number without its leading zeros, as in
        `movielens(...).items["imdb"]`. `users` has `twitter`. Memory: blocks of 8 MB; the peak is about three times the table.

    Raises
    ------
    DataError
        No ratings at `path`, a damaged archive, a problem in strict mode.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "ratings.dat")
    >>> _ = file.write_text("1::0068646::10::1381620027\n1::0113277::10::1379466669\n")
    >>> movietweetings(file).ratings["item"].tolist()
    [68646, 113277]
    """
    problems = Problems(strict)
    with open_source(path) as source:
        into = Collector(problems, (0.0, 10.0), {}, keep, max_rows)
        entry = source.need("MovieTweetings ratings", "ratings.dat")
        collect_text(entry, _RATINGS, into)
        ratings = into.table(entry.label)
        movies, people = source.find("movies.dat"), source.find("users.dat")
        items = users = None
        if movies is not None:
            items = text_table(movies, "::", ["item", "title", "genres"], problems, {"item": "int"})
        if people is not None:
            users = text_table(people, "::", ["user", "twitter"], problems, {"user": "int"})
        return Dataset(source.stem, ratings, items, users, problems=problems.sentences())
