"""SVD and PPCA of stacked domains, and popularity: planted structure, plain formulas, brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.baselines import clicks, item_bias, popularity, stacked, stacked_ppca, stacked_svd
from bayesrec.data import split

RNG = np.random.default_rng(11)


def test_alternation_stops_where_the_gradient_of_its_loss_vanishes():
    user, item = RNG.integers(0, 12, 90), RNG.integers(0, 9, 90)
    keep = np.unique(user * 9 + item, return_index=True)[1]
    user, item, value = user[keep], item[keep], RNG.normal(size=len(keep))
    p, q = stacked.alternate(user, item, value, (12, 9), rank=2, penalty=0.7)
    ridge = stacked.shrunk(value, item, 9)[2]
    left = value - p[user, 0] - q[item, 0] - (p[user, 1:] * q[item, 1:]).sum(1)
    for i in range(9):  # items come last: exact given the users
        rows = item == i
        np.testing.assert_allclose(left[rows].sum(), ridge * q[i, 0], atol=1e-9)
        np.testing.assert_allclose(left[rows] @ p[user[rows], 1:], 0.7 * q[i, 1:], atol=1e-9)


def test_blocks_of_the_normal_equations_change_nothing(monkeypatch):
    user, item = np.repeat(np.arange(20), 6), np.tile(np.arange(12), 10)
    value = RNG.normal(size=120)
    whole = stacked.alternate(user, item, value, (20, 12), 2, 1.0)
    monkeypatch.setattr(stacked, "BLOCK", 20)
    for a, b in zip(whole, stacked.alternate(user, item, value, (20, 12), 2, 1.0), strict=True):
        np.testing.assert_allclose(a, b)


def low_rank(n_users=120, n_items=(40, 40), rank=2, noise=0.05):
    """Ratings 3 + 2 p . q + noise in both domains from the same users' factors; half of the cells are rated."""
    p = RNG.normal(size=(n_users, rank))
    parts = []
    for name, size in zip(("book", "music"), n_items, strict=True):
        q = RNG.normal(size=(size, rank))
        u, i = np.nonzero(RNG.random((n_users, size)) < 0.5)
        y = 3.0 + 2.0 * (p @ q.T)[u, i] + noise * RNG.normal(size=len(u))
        parts.append(pd.DataFrame({"user": u, "item": i, "domain": name, "rating": y}))
    return br.Interactions.from_frame(pd.concat(parts), target="music")


def test_svd_recovers_a_planted_matrix_for_known_and_for_cold_users():
    data = low_rank()
    sd = data.value[data.is_target].std()
    for train, test in (split.holdout(data), split.cold_users(data)):
        baseline = stacked_svd(train)
        answer = baseline.predict(test.user, test.item)
        assert br.metrics.rmse(test.value, answer) < 0.1 * sd
        assert br.metrics.rmse(test.value, item_bias(train).predict(test.user, test.item)) > 0.7 * sd
        z = (test.value - answer) / baseline.spread(test.user, test.item)
        assert 0.3 < (z**2).mean() < 3
    assert baseline.rank >= 2
    assert baseline.penalty == min(stacked.PENALTIES)


def test_svd_does_not_fit_noise():
    n = 4000
    frame = pd.DataFrame({"user": RNG.integers(0, 200, n), "item": RNG.integers(0, 60, n)}).drop_duplicates()
    frame["domain"] = np.where(frame["item"] < 30, "book", "music")
    level = 0.4 * RNG.normal(size=200)
    frame["rating"] = level[frame["user"]] + RNG.normal(size=len(frame))
    data = br.Interactions.from_frame(frame, target="music")
    train, test = split.holdout(data)
    error = br.metrics.rmse(test.value, stacked_svd(train).predict(test.user, test.item))
    best = br.metrics.rmse(test.value, level[test.users.decode(test.user).astype(int)])
    careless = stacked._fit(train, 16, 0.3)
    assert error < 1.06 * best
    assert br.metrics.rmse(test.value, careless.predict(test.user, test.item)) > 1.2 * best


def test_a_large_table_is_judged_by_a_part_of_its_users(monkeypatch):
    data = low_rank()
    monkeypatch.setattr(stacked, "CHOICE_ROWS", len(data) // 2)
    inner, cold, warm = stacked._inner(data)
    rows = [len(inner), len(cold), len(warm)]
    assert 0.35 < sum(rows) / len(data) < 0.65
    assert not np.intersect1d(cold.user, inner.user[inner.is_target]).size
    train, test = split.holdout(data)
    baseline = stacked_svd(train)
    assert br.metrics.rmse(test.value, baseline.predict(test.user, test.item)) < 0.1 * test.value.std()
    assert np.abs(baseline.user[train.user]).min() > 0, "the fit itself is on all users"


def test_svd_of_unknown_ids_and_of_the_target_alone(data):
    alone = stacked_svd(data.only_target())
    assert np.isfinite([alone.sd, alone.sd_new]).all()
    baseline = stacked_svd(data)
    middle, other = baseline.predict(np.array([-1, -1]), np.array([-1, 20]))
    assert middle == pytest.approx(data.value[data.is_target].mean())
    assert other == pytest.approx(middle + baseline.scale * baseline.item[20, 0])
    assert baseline.spread(np.array([-1]), np.array([20]))[0] == baseline.sd_new


def test_svd_with_shared_items_and_with_hardly_any_rows(data):
    frame = data.to_frame().rename(columns={"user": "item", "item": "user"})
    mirror = stacked_svd(br.Interactions.from_frame(frame, target="target", shared="items"))
    assert np.isfinite(mirror.predict(np.arange(5), np.arange(5))).all()
    cold, _ = br.split.cold_items(
        br.Interactions.from_frame(frame, target="target", shared="items"), fraction=0.3, seed=0
    )
    fitted = stacked_svd(cold)
    rated = np.bincount(cold.item[cold.is_target], minlength=cold.n_items) > 0
    item = np.arange(cold.n_items)
    expected = np.where(rated, fitted.sd, fitted.sd_new)
    np.testing.assert_array_equal(fitted.spread(np.zeros_like(item), item), expected)
    assert fitted.spread(np.zeros(1, int), np.array([-1]))[0] == fitted.sd_new != fitted.sd
    two = pd.DataFrame({"user": [1, 2], "item": [1, 1], "rating": [1.0, 3.0]})
    tiny = stacked_svd(br.Interactions.from_frame(two, target="music", domain=None))
    assert np.isfinite([*tiny.predict(np.arange(2), np.zeros(2, int)), tiny.sd, tiny.sd_new]).all()


def test_popularity_is_a_count(data):
    rows = data.to_frame().query("domain == 'target'")
    baseline = popularity(data)
    for item in rows["item"].unique():
        code = data.items.encode([item], scope=[1])
        assert baseline.predict(np.array([0]), code)[0] == (rows["item"] == item).sum()
    assert baseline.predict(np.array([0]), np.array([-1]))[0] == 0
    assert not baseline.is_rating
    assert np.isnan(baseline.spread(np.array([0]), np.array([20]))).all()


def test_popularity_orders_as_the_brute_force_does(data):
    rows = data.mask(data.is_target)
    counts = {i: sum(1 for j in rows.item if j == i) for i in set(rows.item)}
    score = popularity(data).predict(rows.user, rows.item)
    found = br.metrics.ndcg(rows.value, score, rows.user, k=3, floor=rows.value.min())
    for user, share in zip(np.unique(rows.user), found, strict=True):
        mine = [
            (counts[i], v - rows.value.min())
            for u, i, v in zip(rows.user, rows.item, rows.value, strict=True)
            if u == user
        ]
        total, place = 0.0, 0
        for count in sorted({c for c, _ in mine}, reverse=True):
            tied = [g for c, g in mine if c == count]
            total += sum(np.mean(tied) / np.log2(k + 2) for k in range(place, min(place + len(tied), 3)))
            place += len(tied)
        best = sum(g / np.log2(k + 2) for k, g in enumerate(sorted((g for _, g in mine), reverse=True)[:3]))
        assert share == pytest.approx(total / best)


def communities(n_users=160, n_cold=40):
    """Two kinds of people with items of their own in both domains; the last users have no music."""
    kind = np.arange(n_users) % 2
    parts = []
    for name, last in (("book", n_users), ("music", n_users - n_cold)):
        chance = np.where(kind[:, None] == np.arange(30) % 2, 0.35, 0.03)
        u, i = np.nonzero(RNG.random((n_users, 30)) < chance)
        parts.append(pd.DataFrame({"user": u, "item": i, "domain": name})[u < last])
    return br.Interactions.from_frame(pd.concat(parts), target="music", value=None), kind


@pytest.mark.parametrize("shared", ["users", "items"])
def test_ppca_knows_the_taste_of_users_without_music(shared):
    data, kind = communities()
    if shared == "items":
        frame = data.to_frame().rename(columns={"user": "item", "item": "user"})
        data = br.Interactions.from_frame(frame, target="music", value=None, shared="items")
    baseline = stacked_ppca(data, rank=4)
    right = []
    for user in range(120, 160):
        entity, column = np.full(30, user), np.arange(30, 60)
        pair = (entity, column) if shared == "users" else (column, entity)
        score = baseline.predict(*pair)
        mine = np.arange(30) % 2 == kind[user]
        right.append(score[mine].mean() > score[~mine].mean())
    assert np.mean(right) > 0.9
    assert not baseline.is_rating
    assert baseline.predict(np.array([-1]), np.array([-1]))[0] == 0.0


def test_ppca_without_missing_domains_is_the_closed_form(monkeypatch):
    """Tipping and Bishop: noise is the mean of the small eigenvalues, loadings the leading ones; EM must get there."""
    monkeypatch.setattr(clicks, "STEPS", 3000)
    monkeypatch.setattr(clicks, "FLATTEN", 0.0)
    x = (RNG.random((60, 8)) < np.where(np.arange(60)[:, None] % 2 == np.arange(8) % 2, 0.8, 0.2)).astype(float)
    u, i = np.nonzero(x)
    data = br.Interactions.from_frame(pd.DataFrame({"user": u, "item": i}), target="music", domain=None, value=None)
    baseline = stacked_ppca(data, rank=2)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = values[:-2].mean()
    assert baseline.variance == pytest.approx(noise, rel=1e-4)
    want = (vectors[:, -2:] * (values[-2:] - noise)) @ vectors[:, -2:].T
    np.testing.assert_allclose(baseline.loading @ baseline.loading.T, want, atol=1e-3)
    smooth = x.mean(0) + (x - x.mean(0)) @ (vectors[:, -2:] * (1 - noise / values[-2:])) @ vectors[:, -2:].T
    user, item = np.divmod(np.arange(480), 8)
    np.testing.assert_allclose(baseline.predict(user, item), smooth.ravel(), atol=2e-3)


def test_a_user_silent_everywhere_gets_the_mean():
    data, _ = communities()
    empty = data.mask(data.user != 3)
    baseline = stacked_ppca(empty, rank=3)
    assert (baseline.z[3] == 0).all()
    np.testing.assert_allclose(baseline.predict(np.full(30, 3), np.arange(30, 60)), baseline.mean[30:])
