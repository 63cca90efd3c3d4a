"""Later tables in the codes of known ones, answers in the ids and the library of the rows, appended rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from pandas.testing import assert_frame_equal

from bayesrec.data import Interactions
from bayesrec.errors import DataError, DataWarning


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


def test_encode_knows_its_own_rows_and_marks_strangers():
    data = read()
    batch = data.encode(table(), need_value=True)
    for name in ("user", "item", "domain", "value"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(data, name))
    frame = pd.DataFrame({"user": [3, 99, 1], "item": [9, 7, 12345]}, index=[1, 1, 1])
    batch = data.encode(frame)
    assert len(batch) == 3
    assert batch.user.tolist() == [2, -1, 0]
    assert batch.item.tolist() == [3, 1, -1]
    assert batch.domain.tolist() == [1, 1, 1]
    assert batch.value is None
    assert batch.user_id.tolist() == [3, 99, 1]
    assert batch.domain_name.tolist() == ["music"] * 3
    assert not batch.has_domain
    assert data.encode(frame, domain="book").item.tolist() == [-1, 0, -1]
    with pytest.raises(DataError, match=r"unknown domain 'bookz'.*'book'"):
        data.encode(frame, domain="bookz")


@pytest.mark.parametrize("users", [["1", "x"], pd.Series([1, "x"], dtype=object), [1.5, np.inf], [True, False]])
def test_encode_of_other_types_is_unknown(users):
    batch = read().encode(pd.DataFrame({"user": users, "item": ["a", "b"]}))
    assert batch.user[1] == -1
    assert batch.item.tolist() == [-1, -1]


def test_encode_of_repeated_rows_and_of_none():
    data = read()
    assert len(data.encode(pd.concat([table(), table()]))) == 10
    empty = data.encode(table().iloc[:0], need_value=True)
    assert len(empty) == 0
    assert empty.user.dtype == np.int64
    assert empty.answer({"mean": []}).columns.tolist() == ["user", "item", "domain", "mean"]


@pytest.mark.parametrize(
    ("frame", "need_value", "message"),
    [
        (
            table().drop(columns="item"),
            False,
            r"no column 'item' for item.*it has \['user', 'domain', 'rating'\]",
        ),
        (table().drop(columns="rating"), True, "no column 'rating' for value"),
        (
            table(domain=["book", "film", "music", "film", "book"]),
            False,
            "unknown domain 'film' in row 1.*'book', 'music'",
        ),
        (table(user=[1, None, 2, 3, 4]), False, "column 'user' has 1 missing"),
        (table(domain=[None, "book", "book", "book", "book"]), False, "column 'domain' has 1 missing"),
        (table(rating=[1, None, 2, 3, 4]), True, "column 'rating' has 1 missing"),
        (table(rating=["a"] * 5), True, "not numbers"),
        (5, False, "must be a data frame"),
    ],
)
def test_encode_refuses(frame, need_value, message):
    with pytest.raises(DataError, match=message):
        read().encode(frame, need_value=need_value)


def test_encode_does_not_read_values_it_does_not_need():
    frame = table(rating=["a"] * 5)
    assert read().encode(frame).value is None
    assert read(value=None).encode(frame[["user", "item"]], need_value=True).value.tolist() == [1.0] * 5


def test_encode_interactions():
    data = read()
    part = data.mask(data.is_target)
    batch = data.encode(part, need_value=True)
    np.testing.assert_array_equal(batch.item, part.item)
    assert batch.domain_name.tolist() == ["music"] * 3
    other = read(table(user=[1, 5, 5, 3, 1], rating=[9, 8, 7, 6, 5]))
    batch = data.encode(other, need_value=True)
    assert batch.user.tolist() == [0, -1, -1, 2, 0]
    assert batch.item.tolist() == [0, 0, 2, 3, 1]
    assert batch.value.tolist() == [9, 8, 7, 6, 5]
    assert batch.user_id.tolist() == [1, 5, 5, 3, 1]
    others = read(table(item=[7, 7, 9, 8, 10]))
    assert others.users == data.users
    assert data.encode(others).item.tolist() == [0, 0, 3, 2, -1]
    foreign = read(table(domain=["film", "film", "music", "music", "music"]))
    with pytest.raises(DataError, match="unknown domain 'film'"):
        data.encode(foreign)
    assert len(data.encode(foreign.without_sources())) == 3


def test_answers_come_in_the_library_and_the_ids_of_the_rows():
    data = read()
    frame = pd.DataFrame({"item": [9, 7], "user": np.array([3, 99], dtype="int32")}, index=[4, 4])
    out = data.encode(frame).answer({"mean": np.array([1.5, 2.5])})
    expected = pd.DataFrame({"user": pd.Series([3, 99], dtype="int32"), "item": [9, 7], "mean": [1.5, 2.5]})
    assert_frame_equal(out, expected)
    out = data.encode(pl.from_pandas(table())).answer({"mean": np.zeros(5), "rank": np.arange(5)})
    assert isinstance(out, pl.DataFrame)
    assert out.columns == ["user", "item", "domain", "mean", "rank"]
    assert out["user"].to_list() == table()["user"].tolist()
    with pytest.raises(DataError, match="'mean' has 3 entries, the batch 5 rows"):
        data.encode(table()).answer({"mean": [1, 2, 3]})


def test_new_users_and_rows_are_appended():
    data = read(table(when=[1, 2, 3, 4, 9]), time="when")
    fresh = pd.DataFrame({"user": [50, 40], "item": [7, 8], "domain": ["book", "music"], "rating": [1, 5]})
    with pytest.raises(DataError, match="user 50 is unknown; extend the users first"):
        data.with_rows(data.encode(fresh, need_value=True))
    grown = data.extend_users(fresh["user"])
    assert grown.n_users == 5
    np.testing.assert_array_equal(grown.user, data.user)
    with pytest.raises(DataError, match="need_value=True"):
        grown.with_rows(grown.encode(fresh))
    more = grown.with_rows(grown.encode(fresh, need_value=True))
    assert more.to_frame()["user"].tolist() == [1, 2, 2, 3, 1, 50, 40]
    assert more.user.tolist()[-2:] == [4, 3]
    assert more.time.tolist()[-2:] == [9, 9]
    assert len(data) == 5
    timed = grown.with_rows(grown.encode(fresh.assign(when=[3, 4]), need_value=True))
    assert timed.time.tolist()[-2:] == [3, 4]
    with pytest.warns(DataWarning, match="1 row"):
        again = more.with_rows(more.encode(fresh.iloc[:1].assign(rating=3), need_value=True))
    assert again.to_frame()["rating"].tolist()[-2:] == [5, 3]


def test_new_items_of_a_domain():
    data = read()
    more = data.extend_items([100, 100], domain=[0, 1])
    assert more.n_items == 6
    assert more.item_domain.tolist() == [0, 1, 1, 1, 0, 1]
    with pytest.raises(DataError, match="id 7 is known already"):
        data.extend_items([7], domain=0)
