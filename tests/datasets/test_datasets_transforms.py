"""Transforms against slow and plain versions of themselves."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from bayesrec import datasets
from bayesrec.datasets import transforms
from bayesrec.errors import DataError


@pytest.fixture
def frame():
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"user": rng.integers(0, 30, 300), "item": rng.integers(0, 40, 300)}).drop_duplicates()
    return rows.assign(rating=rng.integers(1, 11, len(rows)) / 2, mark=range(len(rows)))


def core_by_loop(rows, user, item):
    while True:
        users, items = Counter(u for u, _ in rows), Counter(i for _, i in rows)
        left = [(u, i) for u, i in rows if users[u] >= user and items[i] >= item]
        if left == rows:
            return rows
        rows = left


@pytest.mark.parametrize(("user", "item"), [(1, 1), (5, 5), (9, 3), (2, 8), (100, 1)])
def test_k_core_against_a_loop(user, item, frame):
    before = frame.copy()
    found = datasets.k_core(frame, user, item)
    expected = core_by_loop(list(zip(frame["user"], frame["item"], strict=True)), user, item)
    assert list(zip(found["user"], found["item"], strict=True)) == expected
    assert frame.equals(before)
    if (user, item) == (9, 3):
        assert 0 < len(found) < len(frame)


def test_k_core_goes_domain_by_domain(frame):
    one, two = frame[:150], frame[150:]
    both = pd.concat([one.assign(domain="a"), two.assign(domain="b")])
    found = datasets.k_core(both, 4, 3)
    expected = pd.concat([datasets.k_core(one, 4, 3), datasets.k_core(two, 4, 3)])
    assert found["mark"].tolist() == expected["mark"].tolist()
    assert len(found) > 0


def test_k_core_refuses_and_takes_nothing(frame):
    with pytest.raises(DataError, match="1 or more, got 0 and 5"):
        datasets.k_core(frame, 0)
    with pytest.raises(DataError, match=r"no column 'item' .*did you mean 'items'"):
        datasets.k_core(frame.rename(columns={"item": "items"}))
    assert len(datasets.k_core(frame[:0])) == 0


PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=14, unique=True)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.integers(1, 3), st.integers(1, 3))
def test_the_k_core_is_the_greatest_of_all_cores(pairs, user, item):
    """Over every set of users and items: the union of all parts with the property is the core."""
    users, items = sorted({u for u, _ in pairs}), sorted({i for _, i in pairs})
    union: set = set()
    for a in range(1, 2 ** len(users)):
        for b in range(1, 2 ** len(items)):
            ours = {u for k, u in enumerate(users) if a >> k & 1}, {i for k, i in enumerate(items) if b >> k & 1}
            part = [p for p in pairs if p[0] in ours[0] and p[1] in ours[1]]
            n_users, n_items = Counter(u for u, _ in part), Counter(i for _, i in part)
            if all(n_users[u] >= user for u in ours[0]) and all(n_items[i] >= item for i in ours[1]):
                union |= set(part)
    frame = pd.DataFrame(pairs, columns=["user", "item"], dtype="int64")
    core = datasets.k_core(frame, user, item)
    assert list(zip(core["user"], core["item"], strict=True)) == [pair for pair in pairs if pair in union]
    assert datasets.k_core(core, user, item).equals(core)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.integers(1, 8))
def test_time_bins_keep_the_order_and_the_moments_and_share_the_rows(times, by):
    found = datasets.time_bins(pd.DataFrame({"time": times}), by)["bin"].to_numpy()
    for a, one in zip(times, found, strict=True):
        for b, two in zip(times, found, strict=True):
            assert (a < b) <= (one <= two)
            assert (a == b) <= (one == two)
    assert found.min() >= 0
    assert found.max() < by
    if len(set(times)) == len(times):
        sizes = np.bincount(found, minlength=by)
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(("by", "unit"), [("D", "datetime64[D]"), ("M", "datetime64[M]"), ("Y", "datetime64[Y]")])
def test_time_bins_of_the_calendar_against_numpy(by, unit):
    rng = np.random.default_rng(2)
    times = np.datetime64("1969-06-01", "s") + rng.integers(0, 3 * 10**8, 200).astype("timedelta64[s]")
    found = datasets.time_bins(pd.DataFrame({"time": times}), by)["bin"].to_numpy()
    numbers = times.astype(unit).astype(int)
    assert np.array_equal(found, numbers - numbers.min())


def test_tables_that_are_none(frame):
    with pytest.raises(DataError, match="need a pandas DataFrame, got Dataset; pass its ratings or items"):
        datasets.k_core(datasets.Dataset("x", frame))
    pl = pytest.importorskip("polars")
    with pytest.raises(DataError, match=r"got DataFrame; call .to_pandas\(\)"):
        datasets.binarise(pl.DataFrame({"rating": [1.0]}))


def test_binarise(frame):
    found = datasets.binarise(frame, at_least=3.5)
    assert found["rating"].tolist() == [1.0 if r >= 3.5 else 0.0 for r in frame["rating"]]
    ones = datasets.binarise(frame, at_least=3.5, drop=True)
    assert set(ones["rating"]) == {1.0}
    assert ones["mark"].tolist() == frame["mark"][frame["rating"] >= 3.5].tolist()
    assert frame["rating"].max() == 5


def test_time_bins_of_equal_size():
    rng = np.random.default_rng(0)
    times = rng.permutation(100)
    found = datasets.time_bins(pd.DataFrame({"time": times}), 4)["bin"].to_numpy()
    assert np.array_equal(found, times // 25)
    assert set(datasets.time_bins(pd.DataFrame({"time": times}), 1)["bin"]) == {0}


def test_time_bins_keep_a_moment_together():
    times = np.array([5] * 50 + list(range(6, 16)))
    found = datasets.time_bins(pd.DataFrame({"time": times}), 6)["bin"].to_numpy()
    assert len(set(found[:50])) == 1
    assert found[-1] > found[0]
    assert (np.diff(found) >= 0).all()


def test_time_bins_of_the_calendar():
    times = pd.Series(pd.to_datetime(["2005-12-31", "2006-01-01", "2006-03-15", "2005-12-01"])).astype("datetime64[s]")
    table = pd.DataFrame({"time": times})
    assert datasets.time_bins(table, "M")["bin"].tolist() == [0, 1, 3, 0]
    assert datasets.time_bins(table, "Y")["bin"].tolist() == [0, 1, 1, 0]
    assert datasets.time_bins(table, "D")["bin"].tolist() == [30, 31, 104, 0]


def test_time_bins_refuse():
    numbers = pd.DataFrame({"time": [1, 2]})
    with pytest.raises(DataError, match="1 bin or more"):
        datasets.time_bins(numbers, 0)
    with pytest.raises(DataError, match="cannot bin the times by 'M'"):
        datasets.time_bins(numbers, "M")
    with pytest.raises(DataError, match="cannot bin the times by 'fortnight'"):
        datasets.time_bins(pd.DataFrame({"time": pd.to_datetime(["2005-01-01"])}), "fortnight")
    with pytest.raises(DataError, match="no column 'time'"):
        datasets.time_bins(pd.DataFrame({"when": [1]}), 2)
    assert len(datasets.time_bins(pd.DataFrame({"time": pd.Series([], dtype="int64")}), 3)) == 0


def test_genre_features():
    items = pd.DataFrame(
        {"item": ["b", "a", "c", "d"], "genres": ["War|Drama", "Drama||Drama", "", None]}, index=[9, 9, 3, 1]
    )
    found = datasets.genre_features(items)
    assert list(found) == ["item", "Drama", "War"]
    assert found.to_numpy().tolist() == [["b", 1, 1], ["a", 1, 0], ["c", 0, 0], ["d", 0, 0]]
    with pytest.raises(DataError, match="names no genre"):
        datasets.genre_features(items.assign(genres=""))


def tf_idf_by_loop(texts):
    words = [Counter(w for w in text.lower().split() if len(w) > 1) for text in texts]
    having = Counter(w for part in words for w in part)
    names = sorted(w for w, n in having.items() if n >= 2)
    table = np.zeros((len(texts), len(names)))
    for row, part in enumerate(words):
        for k, name in enumerate(names):
            if part[name]:
                table[row, k] = (1 + np.log(part[name])) * (1 + np.log(len(texts) / having[name]))
        if table[row].any():
            table[row] /= np.linalg.norm(table[row])
    return table


def made_up_texts(n, words, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{k}" for k in rng.integers(0, words, rng.integers(1, 12))) for _ in range(n)]


def test_tf_idf_against_a_loop():
    texts = [*made_up_texts(40, 30), "", "unique words here", "a b c"]
    assert np.allclose(transforms._tf_idf(texts).toarray(), tf_idf_by_loop(texts))


@pytest.mark.parametrize(("n_items", "words", "n"), [(40, 30, 6), (600, 400, 8)])
def test_text_features_are_the_leading_directions(n_items, words, n):
    """Both ways of computing them, dense and ARPACK, against NumPy's full decomposition."""
    texts = made_up_texts(n_items, words)
    items = pd.DataFrame({"item": range(n_items), "text": texts})
    found = datasets.text_features(items, "text", n=n)
    assert list(found) == ["item", *(f"text_{k}" for k in range(n))]
    left, scale, _ = np.linalg.svd(tf_idf_by_loop(texts), full_matrices=False)
    table = found.drop(columns="item").to_numpy()
    assert np.allclose(np.linalg.norm(table, axis=0), scale[:n])
    assert np.allclose(np.abs((table / scale[:n] * left[:, :n]).sum(axis=0)), 1, atol=1e-6)
    assert datasets.text_features(items, "text", n=n).equals(found), "deterministic"


def test_the_sign_of_a_direction_is_fixed():
    items = pd.DataFrame({"item": [1, 2], "text": ["red dog", "red dog"]})
    assert (datasets.text_features(items, "text", n=1)["text_0"] > 0).all()


def test_text_features_at_the_edges():
    items = pd.DataFrame({"item": [1, 2, 3], "text": ["red fox", None, "red dog"]})
    found = datasets.text_features(items, "text", n=50)
    assert list(found) == ["item", "text_0"], "one shared word, one direction"
    assert found["text_0"].tolist() == pytest.approx([1, 0, 1])
    with pytest.raises(DataError, match="no word that two items share"):
        datasets.text_features(items, "item")
    with pytest.raises(DataError, match="n of 1 or more"):
        datasets.text_features(items, "text", n=0)


def test_sparse_and_dense_agree_on_scale():
    texts = made_up_texts(300, 250, seed=4)
    weights = transforms._tf_idf(texts)
    assert sparse.issparse(weights)
    assert min(weights.shape) > 200
    norms = np.sqrt(weights.power(2).sum(axis=1))
    assert np.allclose(norms[norms > 0], 1)
