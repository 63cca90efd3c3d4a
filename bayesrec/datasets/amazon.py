"""Amazon reviews: ratings-only CSV of 2014, 2018 and 2023, JSON lines of reviews and of products."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import pandas as pd

from bayesrec.datasets.common import Collector, Dataset, Keep, Problems
from bayesrec.datasets.files import Entry, open_source, stem
from bayesrec.datasets.tables import Spec, collect_json, collect_text, fields, first_line, json_records
from bayesrec.errors import DataError

_ROLES = {
    "user": ("str", ("user_id", "reviewerid", "userid", "user")),
    "item": ("str", ("parent_asin", "asin", "item", "productid")),
    "rating": ("float", ("rating", "overall")),
    "time": ("int", ("timestamp", "unixreviewtime")),
}
_KEYS = {
    "user": ("str", ("user_id", "reviewerID")),
    "item": ("str", ("parent_asin", "asin")),
    "rating": ("float", ("rating", "overall")),
    "time": ("int", ("timestamp", "unixReviewTime")),
}
_ORDERS = {"user,item": ("user", "item"), "item,user": ("item", "user")}


def amazon(
    path: str | os.PathLike[str],
    *,
    meta: str | os.PathLike[str] | None = None,
    order: str | None = None,
    strict: bool = False,
    keep: Keep | None = None,
    max_rows: int | None = None,
) -> Dataset:
    r"""Read Amazon ratings of one category, or of several in one folder. Stable.

    Parameters
    ----------
    path : path
        A ratings-only .csv, a review .jsonl or .json, either also .gz, or a folder or archive of these. With more than
        one file the column `domain` holds the name of each file.
    meta : path, optional
        File of products, `meta_*.jsonl[.gz]`; one that stands in the folder is found by itself.
    order : {"user,item", "item,user"}, optional
        Order of a CSV without header: 2014 puts the user first, 2018 the item. Told from the first line if not given,
        since an item id has ten characters and a user id more.
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows; returns a boolean mask.
    max_rows : int, optional
        Stop after so many rows.

    Returns
    -------
    Dataset
        Ids are strings (an ISBN begins with zeros). The item is the `parent_asin` where there is one. Times of 2023
        come in milliseconds and are told by their size. `items` holds rated products only, with `title`,
        `main_category`, `categories` (``|`` between), `store`, `price`. Memory: blocks of 8 MB of text, or of
        100,000 reviews without their texts; the peak is about three times the table that is kept.

    Raises
    ------
    DataError
        No ratings at `path`, columns that are not recognised, a damaged file, a problem in strict mode.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "Musical_Instruments.csv")
    >>> _ = file.write_text("0006428320,A1XHWAQP1M0Q2Y,3.0,1394496000\n")
    >>> amazon(file).ratings.to_dict("records")[0]["item"]
    '0006428320'
    """
    if order is not None and order not in _ORDERS:
        raise DataError(f"order must be 'user,item' or 'item,user', got {order!r}")
    problems = Problems(strict)
    with open_source(path) as source:
        into = Collector(problems, (1.0, 5.0), {0.0: "zero ratings"}, keep, max_rows)
        found = source.every("*.csv", "*.jsonl", "*.json")
        entries = [entry for entry in found if not entry.base.lower().startswith("meta_")]
        if not entries:
            raise source.nothing("Amazon ratings", "*.csv", "*.jsonl", "*.json")
        for entry in entries:
            domain = stem(entry.base) if len(entries) > 1 else None
            if entry.base.lower().endswith(".csv"):
                spec, header = _layout(entry, order)
                full = collect_text(entry, spec, into, header, domain)
            else:
                full = collect_json(entry, _KEYS, into, domain)
            if full:
                break
        ratings = into.table(str(source.path))
        rated = set(ratings["item"].unique())
        parts = [_products(entry, rated, problems) for entry in found if entry not in entries]
        if meta is not None:
            with open_source(meta) as other:
                parts += [_products(entry, rated, problems) for entry in other.every("*.jsonl", "*.json")]
        items = pd.concat(parts, ignore_index=True).drop_duplicates("item", ignore_index=True) if parts else None
        return Dataset(source.stem, ratings, items, problems=problems.sentences())


def _layout(entry: Entry, order: str | None) -> tuple[Spec, bool]:
    """Tell the columns of a CSV, and whether it has a header."""
    first = fields(first_line(entry), ",")
    if any(name.strip().strip('"').lower() in ("rating", "overall") for name in first):
        return Spec.from_header(first, ",", _ROLES, entry.label), True
    if order is None and len(first) == 4:
        lengths = len(first[0].strip()), len(first[1].strip())
        order = {(True, False): "item,user", (False, True): "user,item"}.get((lengths[0] == 10, lengths[1] == 10))
    if order is None:
        raise DataError(
            f"{entry.label}: the first line {','.join(first)!r} does not tell the user from the item; "
            f"say order='user,item' (as in 2014) or order='item,user' (as in 2018)"
        )
    one, two = _ORDERS[order]
    return Spec.of(",", **{one: "str", two: "str", "rating": "float", "time": "int"}), False


def _products(entry: Entry, rated: Collection[str], problems: Problems) -> pd.DataFrame:
    """Read the products that are rated from one file of metadata."""
    rows = []
    for number, record in json_records(entry, problems):
        item = record.get("parent_asin") or record.get("asin")
        if not isinstance(item, str):
            problems.add(f"malformed lines of {entry.base}, dropped", f"line {number}")
        elif item in rated:
            rows.append(
                {
                    "item": item,
                    "title": record.get("title") or "",
                    "main_category": record.get("main_category") or record.get("main_cat") or "",
                    "categories": "|".join(_flat(record.get("categories") or record.get("category"))),
                    "store": record.get("store") or record.get("brand") or "",
                    "price": _price(record.get("price")),
                }
            )
    return pd.DataFrame(rows, columns=["item", "title", "main_category", "categories", "store", "price"])


def _flat(value: Any) -> list[str]:
    """Return the names in a list, or in the list of lists of 2014."""
    if isinstance(value, list):
        return list(dict.fromkeys(name for part in value for name in _flat(part)))
    return [value] if isinstance(value, str) else []


def _price(value: Any) -> float:
    """Return a price such as 9.5 or "$1,009.50", or NaN."""
    try:
        return float(str(value).strip().lstrip("$").replace(",", ""))
    except ValueError:
        return float("nan")
