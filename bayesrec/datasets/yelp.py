"""The Yelp open data set: JSON lines of reviews, businesses and users."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

import pandas as pd

from bayesrec.datasets.common import Collector, Dataset, Keep, Problems
from bayesrec.datasets.files import Entry, open_source
from bayesrec.datasets.tables import collect_json, json_records

_KEYS = {
    "user": ("str", ("user_id",)),
    "item": ("str", ("business_id",)),
    "rating": ("float", ("stars",)),
    "time": ("date", ("date",)),
}
_BUSINESS = ("name", "city", "state", "stars", "review_count")
_USER = ("review_count", "yelping_since", "average_stars", "fans")


def yelp(
    path: str | os.PathLike[str],
    *,
    friends: bool = False,
    strict: bool = False,
    keep: Keep | None = None,
    max_rows: int | None = None,
) -> Dataset:
    r"""Read Yelp reviews, with businesses and users where their files are there. Stable.

    Parameters
    ----------
    path : path
        Folder or archive with `yelp_academic_dataset_review.json`, `..._business.json`, `..._user.json`, or the file
        of reviews alone. A .tar inside a .zip is opened too.
    friends : bool
        Whether `trust` holds friendships between users with ratings.
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows; returns a boolean mask.
    max_rows : int, optional
        Stop after so many rows.

    Returns
    -------
    Dataset
        `time` is the day of the review; of two reviews of a business by one user the newer stays. `items` and `users`
        hold rated businesses and rating users only; names of users are left out. Lists are strings with ``|`` between.
        Memory: 100,000 reviews at a time without their texts; the peak is about three times the table that is kept.

    Raises
    ------
    DataError
        No reviews at `path`, a damaged archive, a problem in strict mode.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "yelp_academic_dataset_review.json")
    >>> _ = file.write_text('{"user_id": "u", "business_id": "b", "stars": 4.0, "date": "2016-03-09 20:56:38"}\n')
    >>> yelp(file)
    Dataset yelp_academic_dataset_review: 1 ratings of 1 users on 1 items, from 4 to 4, 2016-03-09 to 2016-03-09
    """
    problems = Problems(strict)
    with open_source(path) as source:
        into = Collector(problems, (1.0, 5.0), {0.0: "zero ratings"}, keep, max_rows)
        entry = source.need("Yelp reviews", "*review.json", "*review*.json")
        collect_json(entry, _KEYS, into)
        ratings = into.table(entry.label)
        business, user = source.find("*business.json"), source.find("*user.json")
        items = None if business is None else _businesses(business, set(ratings["item"].unique()), problems)
        users = trust = None
        if user is not None:
            users, trust = _users(user, set(ratings["user"].unique()), friends, problems)
        return Dataset(source.stem, ratings, items, users, trust, problems.sentences())


def _businesses(entry: Entry, rated: Collection[str], problems: Problems) -> pd.DataFrame:
    rows = [
        {
            "item": item,
            **{name: record.get(name) for name in _BUSINESS},
            "categories": "|".join(_names(record.get("categories"))),
        }
        for item, record in _by_id(entry, "business_id", problems)
        if item in rated
    ]
    return pd.DataFrame(rows, columns=["item", *_BUSINESS, "categories"]).drop_duplicates("item", ignore_index=True)


def _users(
    entry: Entry, rating: Collection[str], friends: bool, problems: Problems
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    rows, edges = [], []
    for user, record in _by_id(entry, "user_id", problems):
        if user in rating:
            rows.append({"user": user, **{name: record.get(name) for name in _USER}})
            if friends:
                edges += [(user, other) for other in _names(record.get("friends")) if other in rating]
    users = pd.DataFrame(rows, columns=["user", *_USER]).drop_duplicates("user", ignore_index=True)
    trust = pd.DataFrame(edges, columns=["truster", "trustee"]).drop_duplicates(ignore_index=True) if friends else None
    return users, trust


def _by_id(entry: Entry, key: str, problems: Problems) -> Iterator[tuple[str, dict]]:
    """Yield the id and the object of each line; lines without an id are counted."""
    for number, record in json_records(entry, problems):
        if isinstance(record.get(key), str):
            yield record[key], record
        else:
            problems.add(f"malformed lines of {entry.base}, dropped", f"line {number}")


def _names(value: object) -> list[str]:
    """Return the entries of "a, b", of a list (older editions), or of nothing (null, "None")."""
    parts = value if isinstance(value, list) else str(value or "").split(",")
    return [part.strip() for part in map(str, parts) if part.strip() not in ("", "None")]
