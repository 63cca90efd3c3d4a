"""Synthetic tables agree with the truth they come with; the placebo keeps everything but the users' identity."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bayesrec.data import Interactions, derange_sources, synthetic
from bayesrec.errors import DataError


def _eta(frame, truth, domain, users, items):
    rows = frame[frame["domain"] == domain]
    user, item = truth[users][rows["user"]], truth[items][rows["item"]]
    eta = 3.5 + user[:, 0] + item[:, 0] + (user[:, 1:] * item[:, 1:]).sum(1)
    return rows, eta


def test_sizes_and_ids():
    frame, truth = synthetic.cross_domain(n_users=30, n_items=(12, 9), n_ratings=(5, 4), rank=2, n_cold=6)
    assert frame.columns.tolist() == ["user", "item", "domain", "value"]
    assert frame.groupby("domain").size().to_dict() == {"source": 150, "target": 96}
    assert not frame.duplicated(["user", "item", "domain"]).any()
    target = frame[frame["domain"] == "target"]
    assert sorted(target["user"].unique()) == list(range(6, 30))
    assert target["item"].between(0, 8).all()
    shapes = {name: array.shape for name, array in truth.items()}
    assert shapes == {
        "user": (30, 3),
        "source_user": (30, 3),
        "item_source": (12, 3),
        "item_target": (9, 3),
        "noise": (),
        "gate": (30,),
        "eta_target": (30, 9),
    }
    assert isinstance(frame.index, pd.RangeIndex)


def test_values_are_eta_plus_noise():
    frame, truth = synthetic.cross_domain(n_users=400, noise=0.3, seed=3)
    for domain, users, items in (("source", "source_user", "item_source"), ("target", "user", "item_target")):
        rows, eta = _eta(frame, truth, domain, users, items)
        residual = rows["value"].to_numpy() - eta
        assert abs(residual.mean()) < 0.03
        assert residual.std() == pytest.approx(0.3, rel=0.05)
    picked = truth["eta_target"][rows["user"], rows["item"]]
    np.testing.assert_allclose(picked, eta)
    exact, truth = synthetic.cross_domain(noise=0.0)
    rows, eta = _eta(exact, truth, "target", "user", "item_target")
    np.testing.assert_allclose(rows["value"], eta)


def test_distribution_of_the_factors():
    _, truth = synthetic.cross_domain(n_users=20_000, n_items=(2, 2), n_ratings=(1, 1), rank=2, seed=1)
    for side in ("user", "source_user"):
        np.testing.assert_allclose(truth[side].std(axis=0), [0.4, 1, 1], rtol=0.03)
    for component in range(3):
        pair = truth["user"][:, component], truth["source_user"][:, component]
        assert np.corrcoef(*pair)[0, 1] == pytest.approx(0.8, abs=0.02)
    _, truth = synthetic.cross_domain(n_users=2, n_items=(4000, 4000), n_ratings=(1, 1), rank=2, seed=1)
    np.testing.assert_allclose(truth["item_target"].std(axis=0), [0.4, 0.6 / 2**0.25, 0.6 / 2**0.25], rtol=0.06)


def test_hostile_users_do_not_follow_their_source():
    _, truth = synthetic.cross_domain(n_users=4000, n_items=(5, 5), n_ratings=(1, 1), hostile=0.5, seed=2)
    gate = truth["gate"]
    assert gate.dtype == bool
    assert (~gate).sum() == 2000
    follow, other = (np.corrcoef(truth["user"][rows, 1], truth["source_user"][rows, 1])[0, 1] for rows in (gate, ~gate))
    assert follow == pytest.approx(0.8, abs=0.05)
    assert abs(other) < 0.08
    assert synthetic.cross_domain()[1]["gate"].all()


def test_seed_decides_everything_and_cold_users_only_lose_rows():
    first, truth = synthetic.cross_domain(seed=5)
    again, _ = synthetic.cross_domain(seed=5)
    pd.testing.assert_frame_equal(first, again)
    assert not first["value"].equals(synthetic.cross_domain(seed=6)[0]["value"])
    cold, cold_truth = synthetic.cross_domain(seed=5, n_cold=50)
    kept = first[(first["domain"] == "source") | (first["user"] >= 50)].reset_index(drop=True)
    pd.testing.assert_frame_equal(cold, kept)
    np.testing.assert_array_equal(cold_truth["eta_target"], truth["eta_target"])


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    synthetic.cross_domain(n_users=5)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_users": 0}, "must be 1 or more"),
        ({"rank": 0}, "must be 1 or more"),
        ({"n_ratings": (81, 8)}, "81 rated items per user in the source, which has 80"),
        ({"n_ratings": (8, 61)}, "in the target, which has 60"),
        ({"correlation": 1.1}, "correlation must lie in"),
        ({"hostile": -0.1}, "hostile must lie in"),
        ({"noise": -1.0}, "noise must be 0 or more"),
        ({"n_cold": 200}, "n_cold must be from 0 to"),
        ({"n_cold": -1}, "n_cold must be from 0 to"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(DataError, match=message):
        synthetic.cross_domain(**arguments)


def _data(shared="users"):
    frame, _ = synthetic.cross_domain(n_users=25, n_items=(12, 9), n_ratings=(5, 4), n_cold=3)
    more = frame[frame["domain"] == "source"].iloc[:40].assign(domain="another")
    return Interactions.from_frame(pd.concat([frame, more]), target="target", value="value", shared=shared)


@pytest.mark.parametrize("shared", ["users", "items"])
def test_placebo_gives_every_history_to_somebody_else(shared):
    data = _data(shared)
    side, other = ("user", "item") if shared == "users" else ("item", "user")
    placebo = derange_sources(data, seed=4)
    target = data.is_target
    np.testing.assert_array_equal(getattr(placebo, other), getattr(data, other))
    for same in ("value", "domain"):
        np.testing.assert_array_equal(getattr(placebo, same), getattr(data, same))
    np.testing.assert_array_equal(getattr(placebo, side)[target], getattr(data, side)[target])
    assert placebo.users == data.users
    assert placebo.items == data.items
    for code in range(2):
        rows = data.domain == code
        old, new = getattr(data, side)[rows], getattr(placebo, side)[rows]
        assert (old != new).all()
        pairs = set(zip(old.tolist(), new.tolist(), strict=True))
        assert len(pairs) == len(set(old.tolist())) == len(set(new.tolist()))
        assert set(old.tolist()) == set(new.tolist())


def test_placebo_is_one_cycle_and_depends_on_the_seed():
    data = _data()
    placebo = derange_sources(data)
    rows = data.domain == data.domain_code("source")
    heir = dict(zip(data.user[rows].tolist(), placebo.user[rows].tolist(), strict=True))
    seen, at = [], 0
    while at not in seen:
        seen.append(at)
        at = heir[at]
    assert len(seen) == len(heir)
    np.testing.assert_array_equal(placebo.user, derange_sources(data).user)
    assert (placebo.user != derange_sources(data, seed=1).user).any()


def test_placebo_does_not_depend_on_row_order():
    data = _data()
    order = np.random.default_rng(0).permutation(len(data))
    frame = data.to_frame().iloc[order]
    shuffled = derange_sources(Interactions.from_frame(frame, target="target", value="value"))
    np.testing.assert_array_equal(shuffled.user, derange_sources(data).user[order])


def test_placebo_with_two_users_swaps_them():
    frame = pd.DataFrame({"user": [1, 2, 1], "item": [1, 1, 1], "domain": ["s", "s", "t"]})
    data = Interactions.from_frame(frame, target="t", value=None)
    assert derange_sources(data).user.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("users", "domains", "message"),
    [([1, 1], ["s", "t"], "source 's' has one user only"), ([1, 2], ["t", "t"], "no source rows")],
)
def test_placebo_needs_two_users(users, domains, message):
    frame = pd.DataFrame({"user": users, "item": [1, 2], "domain": domains})
    with pytest.raises(DataError, match=message):
        derange_sources(Interactions.from_frame(frame, target="t", value=None))
