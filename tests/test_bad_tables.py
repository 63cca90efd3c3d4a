"""Malformed tables are refused with a message that names the place, and are not changed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from pandas.testing import assert_frame_equal

from bayesrec.data import Interactions
from bayesrec.errors import DataError


def table(**columns):
    """Return a small table; arguments replace or add columns."""
    base = {
        "user": [1, 2, 2, 3, 1],
        "item": [7, 7, 8, 9, 7],
        "domain": ["book", "book", "music", "music", "music"],
        "rating": [5, 4, 3, 2, 1],
    }
    return pd.DataFrame(base | columns)


def read(frame=None, **arguments):
    return Interactions.from_frame(table() if frame is None else frame, **{"target": "music"} | arguments)


def polars_table():
    return pl.DataFrame(
        {
            "rating": pl.Series([5, 4, 3], dtype=pl.Int8),
            "user": pl.Series(["a", "b", "b"]),
            "item": pl.Series([7, 2, 8], dtype=pl.UInt16),
            "domain": ["book", "music", "music"],
        }
    )


BAD = {
    "a list": (lambda: [[1, 2]], {}, "must be a data frame such as pandas or polars, got list"),
    "a dict": (lambda: {"user": [1]}, {}, "got dict"),
    "a series": (lambda: table()["user"], {}, "got Series"),
    "a lazy frame": (lambda: pl.from_pandas(table()).lazy(), {}, r"got LazyFrame; call \.collect\(\) first"),
    "no rows": (lambda: table().iloc[:0], {}, "no rows"),
    "no columns": (lambda: pd.DataFrame(), {}, "no column 'user'"),
    "no user column": (
        lambda: table().rename(columns={"user": "users"}),
        {},
        r"no column 'user'.*mean 'users'",
    ),
    "no item column": (
        lambda: table(),
        {"item": "itm"},
        r"no column 'itm' for item \(did you mean 'item'\?\); it has",
    ),
    "no domain column": (lambda: table().drop(columns="domain"), {}, "'domain'.*pass domain=None"),
    "no value column": (lambda: table(), {"value": "stars"}, "'stars' for value.*pass value=None"),
    "no time column": (lambda: table(), {"time": "when"}, "'when' for time"),
    "repeated column": (
        lambda: table().set_axis(["user", "user", "domain", "rating"], axis=1),
        {},
        "repeated column",
    ),
    "two roles": (lambda: table(), {"item": "user"}, "'user' is named for both user and item"),
    "answer column": (
        lambda: table(mean=1.0),
        {"value": "mean"},
        "value='mean': answers have a column of that name",
    ),
    "answer domain": (lambda: table(source=1), {"domain": "source"}, "domain='source'.*rename the column"),
    "number as name": (lambda: table(), {"user": 0}, "must be a string"),
    "user None": (lambda: table(), {"user": None}, "user=None: every table needs"),
    "missing user": (lambda: table(user=[1, None, 2, 3, 1]), {}, "column 'user' has 1 missing value.*row 1"),
    "missing item": (
        lambda: table(item=["a", "b", None, None, "c"]),
        {},
        "column 'item' has 2 missing.*row 2",
    ),
    "missing domain": (
        lambda: table(domain=["book", "music", None, "a", "b"]),
        {},
        "column 'domain' has 1 missing",
    ),
    "NaN": (lambda: table(rating=[1, np.nan, 2, np.nan, 3]), {}, "'rating' has 2 missing.*first in row 1"),
    "infinite": (
        lambda: table(rating=[1, 2, np.inf, -np.inf, 3]),
        {},
        "'rating': 2 value.*NaN or infinite.*row 2",
    ),
    "a number beyond floats": (
        lambda: table(rating=pd.Series([1, 10**400, 3, 4, 5], dtype=object)),
        {},
        "'rating': 1 value.*NaN or infinite.*row 1",
    ),
    "text values": (lambda: table(rating=list("54321")), {}, "'rating': 5.*not numbers.*row 0.*'5'; convert"),
    "one text": (lambda: table(rating=[1, 2, "x", 4, 5]), {}, "'rating': 1 value.*row 2.*'x'"),
    "date values": (lambda: table(rating=pd.to_datetime(["2024-01-01"] * 5)), {}, "not numbers"),
    "complex values": (lambda: table(rating=[1j] * 5), {}, "not numbers"),
    "unknown target": (
        lambda: table(),
        {"target": "musik"},
        r"'musik' is no domain.*mean 'music'.*\['book', 'music'\]",
    ),
    "target of other type": (
        lambda: table(domain=[1, 2, 3, 1, 2]),
        {"target": "1"},
        "target='1' is no domain",
    ),
    "target None": (lambda: table(), {"target": None}, "name the domain to predict"),
    "shared": (lambda: table(), {"shared": "both"}, "shared must be 'users' or 'items', got 'both'"),
    "mixed users": (
        lambda: table(user=[1, 2, "a", 3, 1]),
        {},
        "column 'user'.*mixed, 1 in row 0 and 'a' in row 2",
    ),
    "mixed items": (lambda: table(item=[1, 2, 8, "a", 9]), {}, "column 'item'.*8 in row 2 and 'a' in row 3"),
    "boolean ids": (lambda: table(user=[True] * 5), {}, "column 'user': ids are booleans"),
    "broken floats": (
        lambda: table(user=[1, 2, 2.5, 3, 1]),
        {},
        "column 'user': id 2\\.5 in row 2 is a float",
    ),
    "huge ids": (
        lambda: table(item=[1, 2, 2**64, 3, 4]),
        {},
        "column 'item': id 18446744073709551616 in row 2",
    ),
    "dates as ids": (
        lambda: table(user=pd.to_datetime(["2024-01-01"] * 5)),
        {},
        "must be integers or strings",
    ),
    "missing time": (lambda: table(when=[1, 2, None, 4, 5]), {"time": "when"}, "'when' has 1 missing"),
    "text time": (lambda: table(when=list("abcde")), {"time": "when"}, "numbers or datetimes"),
    "infinite time": (lambda: table(when=[1, 2, np.inf, 4, 5]), {"time": "when"}, "'when': 1 value"),
    "features": (
        lambda: table(),
        {"user_features": pd.DataFrame({"age": [3]})},
        "user_features has no column 'user'",
    ),
    "features kind": (lambda: table(), {"item_features": [1]}, "item_features must be a data frame"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_tables_are_refused(case):
    make, arguments, message = BAD[case]
    frame = make()
    before = frame.copy(deep=True) if isinstance(frame, pd.DataFrame) else None
    with pytest.raises(DataError, match=f"(?s){message}"):
        read(frame, **arguments)
    if before is not None:
        assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rating": [1.0, None, 3.0]}, "column 'rating' has 1 missing.*row 1"),
        ({"rating": [1.0, float("nan"), 3.0]}, "column 'rating': 1 value.*row 1"),
        ({"rating": ["1", "2", "x"]}, "column 'rating': 3 value.*not numbers"),
        ({"user": ["a", None, "b"]}, "column 'user' has 1 missing.*row 1"),
        ({"user": [True, False, True]}, "booleans"),
        ({"user": pl.Series([1, 2, 2**100], dtype=pl.Int128)}, "in row 2 does not fit a 64-bit integer"),
        ({"user": [[1], [2], [3]]}, "must be integers or strings, got "),
        ({"domain": ["book", "book", "book"]}, "'music' is no domain"),
    ],
)
def test_malformed_polars_tables(change, message):
    frame = polars_table().with_columns(**{name: pl.Series(values) for name, values in change.items()})
    with pytest.raises(DataError, match=message):
        read(frame)


@pytest.mark.parametrize(
    ("frames", "arguments", "message"),
    [
        ({}, {}, "at least one entry"),
        ([table()], {}, "mapping from domain name to table"),
        ({"music": [1]}, {}, "the table of domain 'music' must be a data frame"),
        ({"music": table().iloc[:0]}, {}, "the table of domain 'music' has no rows"),
        ({"music": table()}, {}, "domain 'music' has a column 'domain' that names other domains"),
        (
            {"music": table().drop(columns=["domain", "item"])},
            {},
            "the table of domain 'music' has no column 'item'",
        ),
        (
            {"music": table().drop(columns="domain").assign(user=None)},
            {},
            "'music': column 'user' has 5 missing",
        ),
        (
            {"m": table().iloc[2:, [0, 1, 3]].assign(rating="a")},
            {"target": "m"},
            "domain 'm': column 'rating'",
        ),
        ({"music": table().drop(columns="domain")}, {"domain": None}, "give domain='domain'"),
        ({"book": table().iloc[:2, [0, 1, 3]]}, {}, "target='music' is no domain"),
        (
            {"b": table().iloc[:2, [0, 1, 3]], "music": polars_table().drop("domain")},
            {},
            "different libraries",
        ),
        (
            {
                "b": polars_table().drop("domain"),
                "music": polars_table().drop("domain").cast({"item": pl.String}),
            },
            {},
            r"column 'item' has different types in the tables \(UInt16, String\); cast it to one type",
        ),
    ],
)
def test_from_frames_refuses(frames, arguments, message):
    with pytest.raises(DataError, match=message):
        Interactions.from_frames(frames, **{"target": "music"} | arguments)
