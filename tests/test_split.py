"""Splits: partition, who is held out, and independence of row order and values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesrec.data import Interactions, split
from bayesrec.errors import DataError


def make(seed=0, shared="users", n=160, time=False, order=None, values=None):
    """Return a random table of three domains; some users or items lack the target, some lack every source."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "user": rng.integers(0, 12, n),
            "item": rng.integers(0, 12, n),
            "domain": rng.choice(["book", "film", "music"], n),
            "rating": rng.normal(size=n),
            "when": rng.integers(0, 40, n),
        }
    )
    if values is not None:
        frame["rating"] = values
    side = shared[:-1]
    frame = frame[~((frame[side] < 3) & (frame["domain"] == "music"))]
    frame = frame[~((frame[side] > 9) & (frame["domain"] != "music"))]
    frame = frame.drop_duplicates(["user", "item", "domain"])
    if order is not None:
        frame = frame.sample(frac=1, random_state=order)
    return Interactions.from_frame(frame, target="music", shared=shared, time="when" if time else None)


def pairs(data, value=False):
    """Return the rows as a set of tuples."""
    columns = [data.user, data.item, data.domain] + ([data.value] if value else [])
    return set(zip(*(column.tolist() for column in columns), strict=True))


SPLITS = {
    "holdout": ("users", lambda data, seed: [split.holdout(data, fraction=0.3, seed=seed)]),
    "cold_users": (
        "users",
        lambda data, seed: [split.cold_users(data, fraction=0.4, n_support=1, seed=seed)],
    ),
    "cold_items": (
        "items",
        lambda data, seed: [split.cold_items(data, fraction=0.4, n_support=1, seed=seed)],
    ),
    "kfold": ("users", lambda data, seed: list(split.kfold_users(data, folds=3, n_support=1, seed=seed))),
    "kfold of items": (
        "items",
        lambda data, seed: list(split.kfold_users(data, folds=3, n_support=0, seed=seed)),
    ),
    "temporal": ("users", lambda data, seed: [split.temporal(data, fraction=0.3)]),
}


@pytest.mark.parametrize("name", SPLITS)
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000))
def test_partition(name, seed):
    shared, cut = SPLITS[name]
    data = make(seed, shared, time=name == "temporal")
    for train, test in cut(data, seed):
        assert train.users is data.users
        assert test.items is data.items
        assert train.domains == test.domains == data.domains
        assert len(test) > 0
        assert test.is_target.all()
        assert not pairs(train, True) & pairs(test, True)
        if name == "temporal":
            assert pairs(train.without_sources(), True) | pairs(test, True) == pairs(data.without_sources(), True)
        else:
            assert pairs(train, True) | pairs(test, True) == pairs(data, True)
            assert len(train) + len(test) == len(data)


@pytest.mark.parametrize("name", SPLITS)
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), order=st.integers(0, 10_000))
def test_row_order_and_values_do_not_matter(name, seed, order):
    shared, cut = SPLITS[name]
    time = name == "temporal"
    expected = [pairs(test) for _, test in cut(make(seed, shared, time=time), 1)]
    shuffled = [pairs(test) for _, test in cut(make(seed, shared, time=time, order=order), 1)]
    assert shuffled == expected
    flat = [pairs(test) for _, test in cut(make(seed, shared, time=time, values=3.0), 1)]
    assert flat == expected


@pytest.mark.parametrize("name", [name for name in SPLITS if name != "temporal"])
def test_the_seed_matters_and_repeats(name):
    shared, cut = SPLITS[name]
    data = make(0, shared)
    draws = [[frozenset(pairs(test)) for _, test in cut(data, seed)] for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1


@pytest.mark.parametrize("name", SPLITS)
def test_halves_keep_the_order_of_the_table(name):
    shared, cut = SPLITS[name]
    data = make(0, shared, time=name == "temporal")
    place = {row: n for n, row in enumerate(zip(data.user, data.item, data.domain, strict=True))}
    for half in cut(data, 0)[0]:
        places = [place[row] for row in zip(half.user, half.item, half.domain, strict=True)]
        assert places == sorted(places)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.5, 0.9])
def test_holdout_counts_target_rows(fraction):
    data = make()
    n_target = int(data.is_target.sum())
    train, test = split.holdout(data, fraction=fraction)
    assert len(test) == max(1, round(fraction * n_target))
    assert (~train.is_target).sum() == (~data.is_target).sum()


def eligible(data, n_support):
    """Return the codes with source rows and more than n_support target rows, in the plainest way."""
    who = data.user if data.shared == "users" else data.item
    codes = set(who.tolist())
    in_source = {c for c in codes if (~data.is_target & (who == c)).any()}
    return {c for c in in_source if (data.is_target & (who == c)).sum() > n_support}


@pytest.mark.parametrize("shared", ["users", "items"])
@pytest.mark.parametrize("n_support", [0, 1, 3])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_cold_split_takes_all_but_the_support(shared, n_support, fraction):
    data = make(4, shared)
    cut = split.cold_users if shared == "users" else split.cold_items
    train, test = cut(data, fraction=fraction, n_support=n_support, seed=2)
    side = shared[:-1]
    cold = set(getattr(test, side).tolist())
    assert cold <= eligible(data, n_support)
    assert len(cold) == max(1, round(fraction * len(eligible(data, n_support))))
    left = getattr(train, side)[train.is_target]
    assert all((left == code).sum() == n_support for code in cold)
    assert (~train.is_target).sum() == (~data.is_target).sum()


def test_other_users_rows_do_not_move_a_users_support():
    data = make(4)
    keep = ~(data.is_target & (data.user == max(eligible(data, 1))))
    fewer = data.mask(keep)
    support = {}
    for name, table in (("all", data), ("fewer", fewer)):
        rows = {}
        for train, test in split.kfold_users(table, folds=2, n_support=1, seed=3):
            for user in set(test.user.tolist()):
                rows[user] = train.item[train.is_target & (train.user == user)].tolist()
        support[name] = rows
    common = support["fewer"].keys()
    assert common == support["all"].keys() - {max(eligible(data, 1))}
    assert all(support["all"][user] == support["fewer"][user] for user in common)


@pytest.mark.parametrize("shared", ["users", "items"])
@pytest.mark.parametrize("folds", [2, 5])
def test_folds_partition_the_eligible(shared, folds):
    data = make(4, shared)
    held = [set(getattr(test, shared[:-1]).tolist()) for _, test in split.kfold_users(data, folds=folds)]
    assert len(held) == folds
    assert set().union(*held) == eligible(data, 0)
    assert sum(map(len, held)) == len(eligible(data, 0))
    assert max(map(len, held)) - min(map(len, held)) <= 1


def test_temporal_leaves_no_row_newer_than_the_cut():
    data = make(3, time=True)
    train, test = split.temporal(data, fraction=0.2)
    cut = test.time.min()
    assert len(test) == round(0.2 * data.is_target.sum())
    assert (train.time <= cut).all()
    source = ~data.is_target
    assert (~train.is_target).sum() == (source & (data.time <= cut)).sum()
    assert (source & (data.time > cut)).any()
    assert train.time[train.is_target].max() <= cut


def test_temporal_keeps_source_rows_of_the_time_of_the_cut():
    frame = pd.DataFrame({"user": [1, 1, 1, 1], "item": [1, 2, 1, 2], "domain": list("sstt"), "when": [5, 6, 1, 5]})
    data = Interactions.from_frame(frame, target="t", value=None, time="when")
    train, test = split.temporal(data, fraction=0.5)
    assert test.time.tolist() == [5]
    assert train.time.tolist() == [5, 1]


def test_temporal_takes_dates_and_breaks_ties_by_id():
    frame = pd.DataFrame(
        {
            "user": [3, 1, 2],
            "item": [1, 1, 1],
            "when": pd.to_datetime(["2024-01-02", "2024-01-02", "2024-01-01"]),
        }
    )
    data = Interactions.from_frame(frame, target="music", domain=None, value=None, time="when")
    _, test = split.temporal(data, fraction=0.3)
    assert test.to_frame()["user"].tolist() == [3]
    _, test = split.temporal(data, fraction=0.6)
    assert sorted(test.to_frame()["user"]) == [1, 3]


def target_only():
    return make(4).without_sources()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *[(lambda f=f: split.holdout(make(), fraction=f), "fraction must lie between 0 and 1") for f in (0, 1, -1, 2)],
        (lambda: split.holdout(make(), fraction=float("nan")), "fraction must lie"),
        (lambda: split.temporal(make(time=True), fraction=1.0), "fraction must lie"),
        (lambda: split.cold_users(make(), fraction=0.0), "fraction must lie"),
        (lambda: split.cold_items(make(shared="items"), fraction=1.5), "fraction must lie"),
        (lambda: split.temporal(make()), r"needs times: name the column with time=\.\.\."),
        (
            lambda: split.cold_users(make(shared="items")),
            r"cold_users needs shared='users'.*use split\.cold_items",
        ),
        (lambda: split.cold_items(make()), r"cold_items needs shared='items'.*use split\.cold_users"),
        (
            lambda: split.cold_users(make(), n_support=-1),
            "n_support must be a whole number, 0 or more; got -1",
        ),
        (lambda: split.cold_users(make(), n_support=1.5), "n_support must be a whole number"),
        (lambda: split.kfold_users(make(), n_support=-2), "n_support must be"),
        (
            lambda: split.cold_users(make(), n_support=1000),
            "no user has source rows and more than n_support=1000",
        ),
        (lambda: split.cold_users(target_only()), r"no user has source rows.*use split\.holdout"),
        (lambda: split.cold_items(make(shared="items"), n_support=99), "no item has source rows"),
        (lambda: split.kfold_users(target_only()), "no user has source rows"),
        (
            lambda: split.kfold_users(make(), folds=1),
            "folds must be from 2 to 7, the number of eligible users; got 1",
        ),
        (lambda: split.kfold_users(make(), folds=8), "folds must be from 2 to 7"),
        (lambda: split.kfold_users(make(), folds=2.5), "folds must be"),
        (lambda: split.holdout(make(), seed=-1), "seed must be a whole number"),
        (lambda: split.holdout(make(), seed=0.5), "seed must be a whole number"),
        (lambda: split.holdout(make().mask(~make().is_target)), "no rows of the target 'music'"),
    ],
)
def test_refusals_come_at_the_call(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_a_single_eligible_user_can_be_held_out():
    frame = pd.DataFrame({"user": [1, 1, 2], "item": [1, 1, 1], "domain": ["s", "t", "t"], "rating": [1, 2, 3]})
    data = Interactions.from_frame(frame, target="t")
    train, test = split.cold_users(data, fraction=0.2)
    assert test.to_frame()["user"].tolist() == [1]
    assert len(train) == 2
