"""Anime ratings from MyAnimeList, as on Kaggle."""

from __future__ import annotations

import os

from bayesrec.datasets.common import Collector, Dataset, Keep, Problems
from bayesrec.datasets.files import open_source
from bayesrec.datasets.tables import Spec, collect_text, fields, first_line, text_table

_ROLES = {
    "user": ("int", ("user_id",)),
    "item": ("int", ("anime_id",)),
    "rating": ("float", ("rating", "feedback")),
}


def anime(
    path: str | os.PathLike[str], *, strict: bool = False, keep: Keep | None = None, max_rows: int | None = None
) -> Dataset:
    r"""Read anime ratings with names, genres and types. Provisional.

    Parameters
    ----------
    path : path
        Folder or archive with `rating.csv` or `ratings.tsv` and, for `items`, `anime.csv` or `anime.tsv` (either also
        .gz), or the file of ratings alone.
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows; returns a boolean mask.
    max_rows : int, optional
        Stop after so many rows.

    Returns
    -------
    Dataset
        Ratings from 1 to 10; Kaggle's -1 (watched, not rated) is dropped and counted. `items` has `name`, `genres` and
        `type` (TV, Movie, ...), for `by_category`. Memory: blocks of 8 MB; the peak is about three times the table.

    Raises
    ------
    DataError
        No ratings at `path`, columns that are not recognised, a damaged file, a problem in strict mode.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "rating.csv")
    >>> _ = file.write_text("user_id,anime_id,rating\n1,20,-1\n3,20,8\n")
    >>> anime(file)
    Dataset rating: 1 ratings of 1 users on 1 items, from 8 to 8
      problem: 1 x watched but not rated (-1), dropped (first: ..., line 2)
    """
    problems = Problems(strict)
    with open_source(path) as source:
        into = Collector(
            problems, (1.0, 10.0), {-1.0: "watched but not rated (-1)", 0.0: "zero ratings"}, keep, max_rows
        )
        entry = source.need("anime ratings", "ratings.tsv", "rating.csv", "ratings.csv", "rating.tsv")
        sep = "\t" if entry.base.lower().endswith("tsv") else ","
        collect_text(
            entry, Spec.from_header(fields(first_line(entry), sep), sep, _ROLES, entry.label), into, header=True
        )
        ratings = into.table(entry.label)
        table = source.find("anime.tsv", "anime.csv")
        items = None
        if table is not None:
            sep = "\t" if table.base.lower().endswith("tsv") else ","
            key = next((name for name in fields(first_line(table), sep) if name.strip() == "anime_ids"), "anime_id")
            items = text_table(table, sep, None, problems, {key: "int"})
            items = items.rename(columns={key: "item", "genre": "genres"})
            if "genres" in items:
                items["genres"] = items["genres"].str.replace(r"\s*,\s*", "|", regex=True)
        return Dataset(source.stem, ratings, items, problems=problems.sentences())
