"""Tables in, codes inside, tables out: what is accepted, what is refused, and that nothing is changed."""

from __future__ import annotations

import dataclasses
import datetime as dt
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from pandas.testing import assert_frame_equal

from bayesrec.data import Columns, Interactions
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


def test_fields():
    data = read()
    assert (data.target, data.sources, data.domains, data.shared) == (
        "music",
        ("book",),
        ("book", "music"),
        "users",
    )
    assert (len(data), data.n_users, data.n_items) == (5, 3, 4)
    assert data.user.tolist() == [0, 1, 1, 2, 0]
    assert data.item.tolist() == [0, 0, 2, 3, 1]
    assert data.domain.tolist() == [0, 0, 1, 1, 1]
    assert data.value.tolist() == [5, 4, 3, 2, 1]
    assert data.item_domain.tolist() == [0, 1, 1, 1]
    assert data.is_target.tolist() == [False, False, True, True, True]
    assert data.time is None
    assert data.columns == Columns("user", "item", "domain", "rating", None)
    assert {data.user.dtype, data.item.dtype, data.domain.dtype} == {np.dtype("int64")}
    assert data.value.dtype == np.float64


def test_shared_items_swap_the_scopes():
    data = read(shared="items")
    assert (data.n_users, data.n_items) == (5, 3)
    assert data.user_domain.tolist() == [0, 0, 1, 1, 1]
    assert data.item.tolist() == [0, 0, 1, 2, 0]
    with pytest.raises(DataError, match="belong to no domain"):
        data.item_domain  # noqa: B018


def test_target_stands_last_and_sources_are_sorted_as_strings():
    frame = table(domain=["z", "b", "a", "c", "b"])
    assert read(frame, target="b").domains == ("a", "c", "z", "b")
    numbered = table(domain=[10, 9, 2, 2, 9])
    data = read(numbered, target=9)
    assert data.domains == (10, 2, 9)
    assert all(type(name) is int for name in data.domains)
    assert_frame_equal(data.to_frame(), numbered)


def test_no_domain_column_means_the_target():
    data = read(table().drop(columns="domain").drop_duplicates(["user", "item"]), domain=None)
    assert data.domains == ("music",)
    assert data.sources == ()
    assert data.to_frame().columns.tolist() == ["user", "item", "rating"]
    assert data.is_target.all()


def test_clicks_count_one_and_come_back_without_a_value():
    data = read(value=None)
    assert data.value.tolist() == [1.0] * 5
    assert_frame_equal(data.to_frame(), table()[["user", "item", "domain"]])


@pytest.mark.parametrize("shared", ["users", "items"])
def test_valid_edge_tables_are_accepted(shared):
    assert len(read(table(rating=[3.0] * 5), shared=shared)) == 5
    apart = read(table(user=[1, 2, 3, 4, 5], item=[1, 2, 3, 4, 5]), shared=shared)
    assert len(apart) == 5
    assert len(read(table().iloc[[2]], shared=shared)) == 1


@pytest.mark.parametrize(
    "ids", ["int8", "int32", "uint16", "uint64", "Int64", "int64[pyarrow]", "str", "string", "object"]
)
@pytest.mark.parametrize("values", ["int64", "int8", "float32", "float64", "Int64", "Float64"])
def test_pandas_dtypes_come_back(ids, values):
    kind = {"user": "str", "item": "str"} if ids == "object" else {}
    frame = table().astype(kind).astype({"user": ids, "item": ids, "rating": values})
    assert_frame_equal(read(frame).to_frame(), frame)


@pytest.mark.parametrize("dtype", ["str", "string", "object"])
def test_domain_dtype_comes_back(dtype):
    frame = table().astype({"domain": dtype})
    assert_frame_equal(read(frame).to_frame(), frame)


def test_categories_come_back_as_their_values():
    frame = table(user=list("abbca"))
    out = read(frame.astype({"user": "category", "item": "category", "domain": "category"})).to_frame()
    assert_frame_equal(out, frame)


def test_boolean_and_object_values():
    frame = table(rating=[True, False, True, True, False])
    assert_frame_equal(read(frame).to_frame(), frame)
    objects = table(rating=pd.Series([1, 2.5, np.float32(3), np.int8(4), True], dtype=object))
    assert read(objects).value.tolist() == [1, 2.5, 3, 4, 1]


@pytest.mark.parametrize(
    "when",
    [
        [5, 4, 3, 2, 1],
        [0.5, 4, 3, 2, 1],
        pd.array([5, 4, 3, 2, 1], dtype="Int64"),
        pd.to_datetime(["2024-03-01"] * 5),
        pd.to_datetime(["2024-03-31 01:30"] * 5).tz_localize("Europe/Berlin"),
        pd.to_datetime(["2024-03-01"] * 5).as_unit("ns"),
    ],
)
def test_time_comes_back(when):
    frame = table(when=when)
    data = read(frame, time="when")
    assert data.time.shape == (5,)
    assert_frame_equal(data.to_frame(), frame)
    assert_frame_equal(data.mask(data.is_target).to_frame(), frame[2:].reset_index(drop=True))


def polars_table():
    return pl.DataFrame(
        {
            "rating": pl.Series([5, 4, 3], dtype=pl.Int8),
            "user": pl.Series(["a", "b", "b"]),
            "item": pl.Series([7, 2, 8], dtype=pl.UInt16),
            "domain": ["book", "music", "music"],
        }
    )


@pytest.mark.parametrize(
    "when",
    [
        pl.Series([3, 1, 2], dtype=pl.Int32),
        pl.Series([3.5, 1, 2]),
        pl.Series([dt.datetime(2024, 1, day) for day in (3, 1, 2)]),
        pl.Series([dt.date(2024, 1, day) for day in (3, 1, 2)]),
        pl.Series([dt.datetime(2024, 1, day) for day in (3, 1, 2)]).dt.replace_time_zone("Asia/Tokyo"),
    ],
)
def test_polars_in_polars_out(when):
    frame = polars_table().with_columns(when=when)
    before = frame.clone()
    out = read(frame, time="when").to_frame()
    assert isinstance(out, pl.DataFrame)
    assert out.schema == frame.schema
    assert out.equals(frame)
    assert frame.equals(before)


@pytest.mark.parametrize("kind", [pl.Int8, pl.Int64, pl.UInt32])
def test_polars_domains_may_be_integers(kind):
    frame = polars_table().with_columns(domain=pl.Series([10, 9, 9], dtype=kind))
    data = read(frame, target=9)
    assert data.domains == (10, 9)
    out = data.to_frame()
    assert out.equals(frame)
    assert out.schema == frame.schema
    assert data.mask(data.is_target).to_frame().equals(frame[1:])
    assert data.mask(np.zeros(3, dtype=bool)).to_frame().schema == frame.schema
    stacked = {10: frame[:1].drop("domain"), 9: frame[1:].drop("domain")}
    out = Interactions.from_frames(stacked, target=9).to_frame()
    assert out["domain"].to_list() == [10, 9, 9]


def test_polars_categories_and_pandas_agree():
    frame = polars_table().with_columns(pl.col("user").cast(pl.Categorical), pl.col("domain").cast(pl.Categorical))
    out = read(frame).to_frame()
    assert out.equals(polars_table())
    other = read(pd.DataFrame(polars_table().to_dict(as_series=False)))
    for name in ("user", "item", "domain", "value"):
        np.testing.assert_array_equal(getattr(read(frame), name), getattr(other, name))


def test_order_and_names_of_columns_come_back_and_others_are_dropped():
    frame = table(extra=0)[["rating", "item", "extra", "domain", "user"]]
    frame.columns = ["stars", "isbn", "extra", "shop", "who"]
    data = read(frame, user="who", item="isbn", domain="shop", value="stars")
    assert_frame_equal(data.to_frame(), frame.drop(columns="extra"))


def test_arrow_in_arrow_out():
    pa = pytest.importorskip("pyarrow")
    frame = pa.table({"user": ["x", "y"], "item": [1, 2], "rating": [1.5, 2.0]})
    data = read(frame, domain=None)
    assert data.to_frame().equals(frame)
    assert data.encode(frame).answer({"mean": np.zeros(2)}).column_names == ["user", "item", "mean"]


@pytest.mark.parametrize("index", [[0, 0, 0, 1, 1], list("abcde"), [4, 3, 2, 1, 0]])
def test_index_is_ignored_and_frame_unchanged(index):
    frame = table()
    frame.index = index
    before = frame.copy(deep=True)
    data = read(frame)
    assert_frame_equal(frame, before)
    assert_frame_equal(data.to_frame(), table())
    np.testing.assert_array_equal(data.encode(frame).user, data.user)
    assert_frame_equal(frame, before)


def test_later_changes_of_the_frame_do_not_reach_the_data():
    frame = table(rating=[5.0, 4, 3, 2, 1])
    data = read(frame)
    frame.loc[0, ["rating", "user", "item"]] = 99
    frame["rating"].to_numpy(copy=False)
    assert data.value[0] == 5
    assert data.to_frame()["user"].tolist() == [1, 2, 2, 3, 1]
    raw = np.array([[5.0], [4.0]])
    pair = pd.DataFrame(raw, columns=["rating"], copy=False).assign(user=[1, 2], item=[1, 2])
    data = read(pair, domain=None)
    raw[:] = 0
    assert data.value.tolist() == [5, 4]


def test_frozen():
    data = read(table(when=range(5)), time="when")
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.shared = "items"
    for name in ("user", "item", "domain", "value", "time"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(data, name)[0] = 0
    out = data.to_frame()
    out.loc[0, "rating"] = 77
    assert data.value[0] == 5


def test_ids_as_large_and_negative_as_int64():
    big = [2**63 - 1, -(2**63), 2**53 + 1, 2**53, -1]
    data = read(table(user=big))
    assert data.to_frame()["user"].tolist() == big
    assert data.n_users == 5


def test_items_may_have_other_types_in_other_domains():
    frame = table(item=pd.Series([7, 8, "a", "b", "c"], dtype=object))
    data = read(frame)
    assert data.to_frame()["item"].tolist() == [7, 8, "a", "b", "c"]
    assert data.encode(frame).item.tolist() == data.item.tolist()


def test_whole_floats_become_integers():
    data = read(table(user=[1.0, 2, 2, 3, 1]))
    assert data.to_frame()["user"].dtype == np.int64


def test_the_last_of_repeated_pairs_wins_with_a_warning():
    frame = table(user=[1, 2, 1, 1, 1], item=[7, 7, 7, 8, 7], domain=["book", "book", "music", "music", "music"])
    with pytest.warns(DataWarning, match=r"1 row\(s\) repeat .*first is row 2") as caught:
        data = read(frame)
    assert caught[0].filename == __file__
    assert data.to_frame()["rating"].tolist() == [5, 4, 2, 1]
    assert data.to_frame()["item"].tolist() == [7, 7, 8, 7]
    with pytest.warns(DataWarning, match=r"2 row\(s\)"):
        read(frame.iloc[[2, 3, 4, 4]])


@pytest.mark.parametrize("shared", ["users", "items"])
def test_the_same_pair_in_two_domains_is_no_repetition(shared):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(table(user=[1] * 5, item=[1, 2, 1, 2, 3]), shared=shared)) == 5


def test_from_frames_stacks_in_order():
    music = table().iloc[2:].drop(columns="domain")
    book = table().iloc[:2].drop(columns="domain")
    before = music.copy()
    data = Interactions.from_frames({"book": book, "music": music}, target="music")
    assert_frame_equal(data.to_frame()[table().columns], table())
    assert_frame_equal(music, before)
    other = Interactions.from_frames({"music": music, "book": book}, target="book")
    assert other.domains == ("music", "book")
    assert other.to_frame()["domain"].tolist() == ["music"] * 3 + ["book"] * 2
    kept = Interactions.from_frames({"book": table().iloc[:2], "music": table().iloc[2:]}, target="music")
    assert_frame_equal(kept.to_frame()[table().columns], table())


def test_from_frames_of_other_types_and_libraries():
    book = pd.DataFrame({"user": [1, 2], "item": [7, 8], "rating": [5, 1]}, index=[3, 3])
    music = pd.DataFrame({"user": [1], "item": pd.Categorical(["song"]), "rating": [4.5]})
    data = Interactions.from_frames({"book": book, "music": music}, target="music")
    assert data.to_frame()["item"].tolist() == [7, 8, "song"]
    frames = {"book": polars_table()[:1].drop("domain"), "music": polars_table()[1:].drop("domain")}
    casts = {"item": pl.Int32, "rating": pl.Float32, "user": pl.Categorical}
    cast = frames | {"book": frames["book"].cast(casts)}
    schema = Interactions.from_frames(cast, target="music").to_frame().schema
    assert [schema[name] for name in ("user", "item", "rating")] == [pl.String, pl.Int64, pl.Float64]
    assert (
        Interactions.from_frames(frames, target="music")
        .to_frame()
        .select(polars_table().columns)
        .equals(polars_table())
    )


def test_mask_and_without_sources_keep_the_vocabularies():
    data = read(table(when=range(5)), time="when")
    part = data.mask(np.array([True, False, False, True, False]))
    assert part.to_frame()["rating"].tolist() == [5, 2]
    assert part.time.tolist() == [0, 3]
    assert part.users is data.users
    target = data.without_sources()
    assert len(target) == 3
    assert target.sources == ("book",)
    assert target.n_items == 4
    assert len(data) == 5
    for bad in ([0, 1], np.ones(5), np.ones(4, dtype=bool)):
        with pytest.raises(DataError, match="boolean array"):
            data.mask(bad)


def test_features_and_graph_are_carried_along():
    features = pd.DataFrame({"user": [1, 2, 3], "age": [30, 40, 50]})
    genres = pd.DataFrame({"item": [7], "genre": ["rock"]})
    data = read(user_features=features, item_features=genres, user_graph="edges")
    part = data.without_sources()
    assert part.user_features is features
    assert part.item_features is genres
    assert part.user_graph == "edges"


def test_repr_shows_the_sizes_of_each_domain():
    text = repr(read())
    assert "target='music'" in text
    assert "book   2 rows, 2 users, 1 items, density 100.00%" in text
    assert "music  3 rows, 3 users, 3 items, density 33.33%" in text


def test_domain_names_are_plain_strings_and_integers():
    alone = table().iloc[2:].drop(columns="domain")
    for given, name in ((np.int64(3), 3), (np.str_("music"), "music"), (7, 7)):
        data = read(alone, target=given, domain=None)
        assert data.domains == (name,)
        assert type(data.target) is type(name)
    assert type(read(table(domain=[1, 1, 2, 2, 2]), target=np.int8(2)).target) is int


@pytest.mark.parametrize(
    ("names", "target", "kind"),
    [
        (pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-02"]), pd.Timestamp("2024-01-02"), "Timestamp"),
        ([1.5, 2.5, 2.5], 2.5, "float"),
        ([False, True, True], True, "bool"),
        ([("a",), ("b",), ("b",)], ("b",), "tuple"),
    ],
)
def test_other_domain_names_are_refused(names, target, kind):
    frame = table().iloc[[0, 2, 3]].assign(domain=pd.Series(names, index=[0, 2, 3]))
    with pytest.raises(
        DataError, match=rf"column 'domain': the domain .* is of type {kind}; domains have strings or int"
    ):
        read(frame, target=target)
    with pytest.raises(DataError, match=f"target: the domain .* is of type {kind}"):
        read(frame, target=target, domain=None)
    with pytest.raises(DataError, match=f"the mapping of tables: the domain .* is of type {kind}"):
        Interactions.from_frames({target: frame.drop(columns="domain")}, target=target)


@pytest.mark.parametrize("role", ["user", "item", "domain", "value", "time"])
@pytest.mark.parametrize("name", ["relevance", "n", "source_weight"])
def test_names_of_answer_columns_are_refused(role, name):
    frame = table(when=range(5)).rename(columns={{"value": "rating", "time": "when"}.get(role, role): name})
    with pytest.raises(DataError, match=f"{role}='{name}': answers have a column of that name"):
        read(frame, **{"time": "when"} | {role: name})


def test_the_word_domain_is_free_only_where_the_domain_column_has_another_name():
    frame = table().rename(columns={"domain": "shop", "user": "domain"})
    assert read(frame, user="domain", domain="shop").n_users == 3
    with pytest.raises(DataError, match="user='domain': answers have a column of that name"):
        read(frame.iloc[2:], user="domain", domain=None)
