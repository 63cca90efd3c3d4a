"""Duplicates across domains: planted twins are found, look-alikes are not, and what is dropped or merged is what should be."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.data import cross_domain_duplicates, drop_duplicates, duplicates, leaked_rows, merge_duplicates
from bayesrec.errors import DataError, DataWarning

DATA = os.environ.get("BAYESREC_DATA")


def brute(frame, target, min_users, jaccard):
    """Every pair of items by sets."""
    out = {}
    there = set(frame["user"][frame["domain"] == target])
    for source in sorted(set(frame["domain"]) - {target}):
        both = there & set(frame["user"][frame["domain"] == source])
        taken = {
            name: {item: set(rows["user"]) & both for item, rows in frame[frame["domain"] == name].groupby("item")}
            for name in (source, target)
        }
        for a, left in taken[source].items():
            for b, right in taken[target].items():
                together = len(left & right)
                if together >= min_users and together / len(left | right) > jaccard:
                    out[source, a, b] = (together, together / len(left | right))
    return out


@pytest.fixture
def frame():
    """Two sources and a target of random clicks, with twins planted."""
    rng = np.random.default_rng(0)
    rows = [
        (u, f"i{i}", name)
        for name, n in (("a", 30), ("b", 20), ("t", 30))
        for u in range(60)
        for i in rng.choice(n, 5, replace=False)
        if not (name == "b" and u > 40)
    ]
    twin = [(u, "twin", "a") for u in range(10, 20)] + [(u, "twin too", "t") for u in range(11, 21)]  # 9 of 11
    half = [(u, "half", "b") for u in range(6)] + [
        (u, "half too", "t") for u in range(2, 8)
    ]  # 4 of 8: not above a half
    one = [(30, "rare", "a"), (30, "rare too", "t")]  # one user only
    return pd.DataFrame(rows + twin + half + one, columns=["user", "item", "domain"]).drop_duplicates(ignore_index=True)


@pytest.fixture
def data(frame):
    return br.Interactions.from_frame(frame, target="t", value=None)


@pytest.mark.parametrize(("min_users", "jaccard"), [(2, 0.5), (1, 0.5), (2, 0.2), (4, 0.49), (1, 0.0)])
@pytest.mark.parametrize("strip", [50, 2**22])
def test_pairs_are_those_of_sets(frame, data, min_users, jaccard, strip, monkeypatch):
    monkeypatch.setattr(duplicates, "STRIP", strip)
    expected = brute(frame, "t", min_users, jaccard)
    with pytest.warns(DataWarning, match="nearly the same users"):
        found = cross_domain_duplicates(data, min_users, jaccard)
    keys = list(zip(found["domain"], found["source_item"], found["target_item"], strict=True))
    assert set(keys) == set(expected)
    assert len(keys) == len(expected)
    for key, users, overlap in zip(keys, found["users"], found["jaccard"], strict=True):
        assert (users, overlap) == (expected[key][0], pytest.approx(expected[key][1]))


def test_planted_twins_are_found_and_look_alikes_are_not(data):
    with pytest.warns(DataWarning, match="1 pairs"):
        found = cross_domain_duplicates(data)
    assert found.values.tolist() == [["a", "twin", "twin too", 9, pytest.approx(9 / 11)]]
    with pytest.warns(DataWarning):
        assert "half" in set(cross_domain_duplicates(data, jaccard=0.49)["source_item"])
    with pytest.warns(DataWarning):
        assert "rare" in set(cross_domain_duplicates(data, min_users=1)["source_item"])


def test_nothing_found_says_nothing(frame):
    data = br.Interactions.from_frame(frame[~frame["item"].str.startswith("twin")], target="t", value=None)
    assert len(cross_domain_duplicates(data)) == 0


def test_users_who_count_can_be_named(data):
    with pytest.warns(DataWarning):
        found = cross_domain_duplicates(data, users=[*range(12, 18), "nobody"])
    assert found.loc[found["source_item"] == "twin", ["users", "jaccard"]].values.tolist() == [[6, 1.0]]


def test_leaked_rows_are_those_whose_user_has_the_twin(frame, data):
    with pytest.warns(DataWarning):
        pairs = cross_domain_duplicates(data)
    test = data.mask(data.is_target)
    rows = test.to_frame()
    expected = (rows["item"] == "twin too") & rows["user"].between(10, 19)
    assert leaked_rows(data, test, pairs).tolist() == expected.tolist()
    assert expected.sum() == 9
    new = pd.DataFrame({"user": [999, 12, 12], "item": ["twin too", "nothing", "twin too"], "domain": "t"})
    assert leaked_rows(data, new, pairs).tolist() == [False, False, True]
    assert not leaked_rows(data, test, pairs.head(0)).any()


def test_drop_takes_the_source_rows_alone(frame, data):
    with pytest.warns(DataWarning):
        pairs = cross_domain_duplicates(data)
    with pytest.warns(DataWarning, match="10 source rows of 1 items dropped"):
        left = drop_duplicates(data, pairs)
    pd.testing.assert_frame_equal(left.to_frame(), frame[frame["item"] != "twin"].reset_index(drop=True))
    assert not leaked_rows(left, left.mask(left.is_target), pairs).any()


def test_merge_moves_rows_and_keeps_the_target_s_own():
    rows = [
        ("ann", "x", "a", 1.0), ("ann", "X", "t", 5.0), ("bob", "x", "a", 2.0), ("bob", "y", "a", 3.0), ("cid", "x2", "b", 4.0),
        ("bob", "x2", "b", 2.5), ("cid", "z", "t", 3.5),
    ]  # fmt: skip
    data = br.Interactions.from_frame(pd.DataFrame(rows, columns=["user", "item", "domain", "rating"]), target="t")
    pairs = pd.DataFrame({"domain": ["a", "b", "a"], "source_item": ["x", "x2", "x"], "target_item": ["X", "X", "z"]})
    with pytest.warns(
        DataWarning, match=r"4 source rows of 2 items moved to the target \(2 of them were there already\)"
    ):
        merged = merge_duplicates(data, pairs)
    assert [tuple(row) for row in merged.to_frame().values] == [
        ("ann", "X", "t", 5.0), ("bob", "X", "t", 2.0), ("bob", "y", "a", 3.0), ("cid", "X", "t", 4.0), ("cid", "z", "t", 3.5)
    ]  # fmt: skip


def test_with_shared_items_the_pairs_are_accounts(frame, data):
    mirror = frame.rename(columns={"user": "item", "item": "user"})
    other = br.Interactions.from_frame(mirror, target="t", value=None, shared="items")
    with pytest.warns(DataWarning, match="nearly the same items"):
        found = cross_domain_duplicates(other)
    assert found[["domain", "source_user", "target_user", "items"]].values.tolist() == [["a", "twin", "twin too", 9]]
    with pytest.warns(DataWarning):
        pairs = cross_domain_duplicates(data)
    assert (
        leaked_rows(other, other.mask(other.is_target), found).tolist()
        == leaked_rows(data, data.mask(data.is_target), pairs).tolist()
    )
    with pytest.warns(DataWarning, match="10 source rows of 1 users"):
        assert len(merge_duplicates(other, found)) == len(data) - 9
    with pytest.warns(DataWarning, match="10 source rows of 1 items"):
        assert len(merge_duplicates(data, pairs)) == len(data) - 9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data, pairs: cross_domain_duplicates(data, min_users=0), "min_users"),
        (lambda data, pairs: cross_domain_duplicates(data, jaccard=1.0), "jaccard"),
        (lambda data, pairs: cross_domain_duplicates(data.only_target()), "rows of a source"),
        (lambda data, pairs: drop_duplicates(data, pairs.drop(columns="domain")), "domain"),
        (lambda data, pairs: drop_duplicates(data, pairs.assign(domain="c")), "unknown domain 'c'"),
        (lambda data, pairs: merge_duplicates(data, pairs.assign(target_item="nix")), "'nix' in row 0"),
        (lambda data, pairs: leaked_rows(data, data, pairs.assign(domain="t", source_item="i1")), "names the target"),
    ],
)
def test_bad_input_is_named(data, call, message):
    pairs = pd.DataFrame({"domain": ["a"], "source_item": ["twin"], "target_item": ["twin too"]})
    with pytest.raises(DataError, match=message):
        call(data, pairs)


@pytest.mark.skipif(not DATA, reason="BAYESREC_DATA names no folder with the real files")
@pytest.mark.parametrize(
    ("pair", "target", "source", "leaked"),
    [
        ("game_video", "video", "game", 0.0206),
        ("cloth_sport", "sport", "cloth", 0.1173),
    ],
)
def test_leak_of_the_cdrib_files(pair, target, source, leaked):
    folder = Path(DATA) / "cdrib"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    train, _, test = br.datasets.by_split(br.datasets.cdrib(folder, pair), source, target, value=None)
    shared = [user for user in train.users.ids if ":" not in user]
    with pytest.warns(DataWarning):
        pairs = cross_domain_duplicates(train, users=shared)
    assert leaked_rows(train, test, pairs).mean() == pytest.approx(leaked, abs=5e-5)
