"""Ids to codes and back: unknown ids, mixed types, scopes, growth without renumbering."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesrec.data import Vocabulary
from bayesrec.errors import DataError

BIG = 2**63 - 1


def test_global_vocabulary_sorts_distinct_ids():
    words = Vocabulary.from_ids([30, -10, 20, -10])
    assert len(words) == 3
    assert words.decode([0, 1, 2]).tolist() == [-10, 20, 30]
    assert words.encode([20, 30, -10, 20]).tolist() == [1, 2, 0, 1]
    assert words.encode([20]).dtype == np.int64
    assert words.offsets.tolist() == [0, 3]


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint64", "Int64", "Int16", "str", "string", "object"])
def test_dtype_of_ids_is_kept(dtype):
    ids = pd.Series(["5", "3", "5"] if dtype in ("str", "string", "object") else [5, 3, 5]).astype(dtype)
    words = Vocabulary.from_ids(ids)
    assert words.decode([0, 1]).dtype == ids.dtype
    assert words.decode(words.encode(ids)).tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("given_ids", "dtype"),
    [
        (pd.Series([2, 1, 2], dtype="category"), "int64"),
        (pd.Series(["b", "a"], dtype="category"), pd.Series(["a"]).dtype),
        (np.array([2.0, 1.0]), "int64"),
        (pd.Series([2, 1], dtype=object), "int64"),
        (pd.Series([2.0, 1], dtype=object), "int64"),
    ],
)
def test_categories_whole_floats_and_integer_objects(given_ids, dtype):
    if isinstance(given_ids, pd.Series) and isinstance(given_ids.dtype, pd.CategoricalDtype):
        given_ids = given_ids.astype(given_ids.cat.categories.dtype)
    assert Vocabulary.from_ids(given_ids).ids.dtype == dtype


@pytest.mark.parametrize(
    "unknown",
    [
        "7",
        "",
        None,
        np.nan,
        7.5,
        True,
        [7],
        (7,),
        2**70,
        -(2**70),
        pd.NA,
        b"7",
        {"a": 1},
        float("inf"),
        pd.Timestamp(7),
    ],
    ids=repr,
)
def test_an_id_of_another_kind_is_unknown_and_no_crash(unknown):
    ids = np.empty(2, dtype=object)
    ids[:] = [unknown, 7]
    assert Vocabulary.from_ids([7, 1]).encode(ids).tolist() == [-1, 1]
    scoped = Vocabulary.from_ids([7, 1], scope=[0, 1])
    assert scoped.encode(ids, scope=0).tolist() == [-1, 0]
    strings = Vocabulary.from_ids(["x", "y"])
    expected = [-1, -1]
    assert strings.encode(ids).tolist() == expected


@pytest.mark.parametrize(
    ("ids", "codes"),
    [
        (["1", "7"], [-1, -1]),
        (pd.Series(["1", "7"], dtype="string"), [-1, -1]),
        (pd.Series(["1", "7"], dtype="category"), [-1, -1]),
        (pd.Series([1, 7], dtype="category"), [0, 1]),
        ([1.0, 7.0], [0, 1]),
        ([1.5, np.nan], [-1, -1]),
        ([True, False], [-1, -1]),
        (np.array([7, 2**64 - 1], dtype=np.uint64), [1, -1]),
        (np.array([7, 1], dtype=np.uint8), [1, 0]),
        (pd.Series([7, None], dtype="Int64"), [1, -1]),
        (pd.Index([7, 3]), [1, -1]),
        (pd.Series([7, 3], index=[5, 5]), [1, -1]),
        ([], []),
    ],
)
def test_whole_arrays_of_another_dtype(ids, codes):
    assert Vocabulary.from_ids([7, 1]).encode(ids).tolist() == codes


def test_big_and_negative_ids_do_not_run_into_each_other():
    ids = [BIG, BIG - 1, -BIG - 1, 2**53, 2**53 + 1]
    words = Vocabulary.from_ids(ids)
    assert words.decode(words.encode(ids)).tolist() == ids
    assert words.encode(np.array([2.0**53])).tolist() == [words.encode([2**53])[0]]
    assert words.encode(np.array([2.0**63])).tolist() == [-1]
    assert Vocabulary.from_ids([2**60]).encode(np.array([2.0**60])).tolist() == [-1]  # too big for a float to tell


def test_an_id_in_two_scopes_has_two_codes():
    words = Vocabulary.from_ids([7, 9, 7, 8], scope=[0, 0, 2, 2])
    assert len(words) == 4
    assert words.scope_of().tolist() == [0, 0, 2, 2]
    assert words.offsets.tolist() == [0, 2, 4]
    assert words.encode([7, 7, 7, 9, 9], scope=[0, 2, 1, 0, 2]).tolist() == [0, 2, -1, 1, -1]
    with pytest.raises(DataError, match="needs scope"):
        words.encode([7])


def test_scopes_of_different_dtypes():
    words = Vocabulary.from_ids(pd.Series([7, "a", 8], dtype=object), scope=[0, 1, 0])
    assert words.blocks[0].dtype == np.int64
    assert words.decode([2, 0]).tolist() == ["a", 7]
    assert words.decode([2, 0]).dtype == object
    assert words.encode(["a", 7, 8, "a"], scope=[1, 1, 0, 0]).tolist() == [2, -1, 1, -1]


def test_integer_scopes_of_different_widths_stay_exact():
    blocks = (pd.Index([1], dtype="uint64"), pd.Index([BIG], dtype="int64"))
    words = Vocabulary(blocks, (0, 1))
    assert words.decode([1, 0]).tolist() == [BIG, 1]
    assert words.decode([1]).dtype == np.int64


@pytest.mark.parametrize("codes", [[-1], [3], [0, 5]])
def test_decode_refuses_codes_out_of_range(codes):
    with pytest.raises(IndexError, match=r"0\.\.2"):
        Vocabulary.from_ids([1, 2, 3]).decode(codes)


def test_global_ids_have_no_scope():
    with pytest.raises(DataError, match="belong to no domain"):
        Vocabulary.from_ids([1]).scope_of()


def test_extend_appends_without_renumbering():
    words = Vocabulary.from_ids([10, 30])
    more = words.extend([20, 5, 20])
    assert words.ids.tolist() == [10, 30]
    assert more.ids.tolist() == [10, 30, 5, 20]
    assert more.encode([10, 30, 5, 20]).tolist() == [0, 1, 2, 3]
    assert more.extend([]) is more
    again = more.extend([1])
    assert again.decode([4]).tolist() == [1]
    assert again.encode([5, 1]).tolist() == [2, 4]


def test_extend_keeps_the_dtype_where_it_can():
    assert Vocabulary.from_ids(np.array([1, 2], dtype=np.int32)).extend([3]).ids.dtype == np.int32
    grown = Vocabulary.from_ids(np.array([1, 2], dtype=np.int8)).extend([300])
    assert grown.ids.tolist() == [1, 2, 300]
    assert grown.encode([300]).tolist() == [2]
    strings = pd.Series(["a"], dtype="string")
    assert Vocabulary.from_ids(strings).extend(["b"]).ids.dtype == strings.dtype


def test_extend_a_scoped_vocabulary_keeps_all_codes():
    words = Vocabulary.from_ids([7, 9, 7], scope=[0, 0, 1])
    more = words.extend([5, 5], scope=[0, 1])
    assert more.scope_of().tolist() == [0, 0, 1, 0, 1]
    assert more.encode([7, 9, 7, 5, 5], scope=[0, 0, 1, 0, 1]).tolist() == [0, 1, 2, 3, 4]
    assert more.encode([9], scope=1).tolist() == [-1]


@pytest.mark.parametrize(
    ("known", "new", "message"),
    [
        ([1, 2], [3, 2], "id 2 is known already"),
        ([1, 2], ["x"], "known ids are integers, the new id 'x' is not"),
        (["a"], [3], "known ids are strings, the new id 3 is not"),
        ([1, 2], [2.5], "no whole number"),
        ([1, 2], [True], "booleans"),
    ],
)
def test_extend_refuses(known, new, message):
    with pytest.raises(DataError, match=message):
        Vocabulary.from_ids(known).extend(new)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([True, False], "things: ids are booleans"),
        (pd.Series([True, "a"], dtype=object), "different types are mixed"),
        ([1.0, 2.5], r"id 2\.5 in row 1 is a float and no whole number"),
        ([1.0, np.inf], "no whole number"),
        ([2.0**60], "no whole number up to"),
        ([1, "a"], r"mixed, 1 in row 0 and 'a' in row 1 .*\.astype\(str\)"),
        (["a", 2], r"mixed, 'a' in row 0 and 2 in row 1"),
        ([1, 2**63], f"id {2**63} in row 1 does not fit a 64-bit integer; convert the ids to strings"),
        ([1, 2**70], "does not fit a 64-bit integer"),
        ([-(2**63) - 1], "does not fit a 64-bit integer"),
        (pd.to_datetime(["2020-01-01"]), "must be integers or strings, got Timestamp"),
        ([(1, 2)], "must be integers or strings, got tuple"),
    ],
)
def test_ids_that_are_refused(ids, message):
    with pytest.raises(DataError, match=message):
        Vocabulary.from_ids(ids, what="things")


def test_equality_is_by_ids_and_scopes():
    assert Vocabulary.from_ids([1, 2]) == Vocabulary.from_ids(np.array([2, 1], dtype=np.int32))
    assert Vocabulary.from_ids([1, 2]) != Vocabulary.from_ids([1, 3])
    assert Vocabulary.from_ids([1, 2]) != Vocabulary.from_ids(["1", "2"])
    assert Vocabulary.from_ids([1, 2]) != Vocabulary.from_ids([1, 2], scope=[0, 0])
    assert Vocabulary.from_ids([1, 2], scope=[0, 1]) != Vocabulary.from_ids([1, 2], scope=[0, 0])
    assert Vocabulary.from_ids([1]) != "a"
    with pytest.raises(TypeError, match="unhashable"):
        hash(Vocabulary.from_ids([1]))


def test_empty_vocabulary():
    words = Vocabulary.from_ids([])
    assert len(words) == 0
    assert words.encode([1, "a"]).tolist() == [-1, -1]
    assert len(words.decode([])) == 0
    assert len(Vocabulary.from_ids([], scope=[])) == 0


integers = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(integers, min_size=1, max_size=20) | st.lists(st.text(max_size=3), min_size=1, max_size=20),
    st.data(),
)
def test_encode_inverts_decode(ids, data):
    scope = data.draw(st.lists(st.integers(0, 2), min_size=len(ids), max_size=len(ids)))
    series = pd.Series(ids, dtype="int64" if isinstance(ids[0], int) else object)
    for words, where in ((Vocabulary.from_ids(series), None), (Vocabulary.from_ids(series, scope), scope)):
        codes = words.encode(series, where)
        assert codes.min() >= 0
        assert words.decode(codes).tolist() == ids
        assert sorted(set(codes.tolist())) == list(range(len(words)))
        order = data.draw(st.permutations(range(len(ids))))
        shuffled = Vocabulary.from_ids(series.iloc[order], None if where is None else np.array(where)[order])
        assert shuffled == words


def test_ids_that_differ_behind_a_nul_are_two_ids():
    """pandas 2 takes a NUL for the end of a string and would make one user of two."""
    ids = ["", "\0", "a", "a\0", "a\0b"]
    words = Vocabulary.from_ids(pd.Series(ids, dtype=object))
    assert len(words) == len(ids)
    assert words.decode(words.encode(ids)).tolist() == ids
