"""Metrics against numerical integration, formulas and the bootstrap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from bayesrec import metrics

RNG = np.random.default_rng(5)


def test_rmse():
    value, mean = RNG.normal(size=(2, 50))
    assert metrics.rmse(value, mean) == pytest.approx(np.sqrt(((value - mean) ** 2).sum() / 50))
    assert metrics.rmse(value, value) == 0.0


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (3.2, 0.4), (-1.0, 2.5)])
@pytest.mark.parametrize("shift", [-4.0, -0.3, 0.0, 1.7])
def test_crps_is_the_integral_of_the_squared_difference_of_distribution_functions(mean, sd, shift):
    value = mean + shift
    law = stats.norm(mean, sd)
    low = integrate.quad(lambda x: law.cdf(x) ** 2, mean - 12 * sd - 9, value)[0]
    high = integrate.quad(lambda x: law.sf(x) ** 2, value, mean + 12 * sd + 9)[0]
    assert metrics.crps_normal(np.array([value]), mean, sd)[0] == pytest.approx(low + high, abs=1e-7)


def test_crps_becomes_the_absolute_error():
    assert metrics.crps_normal(np.array([2.0]), 1.25, 1e-9)[0] == pytest.approx(0.75)


def test_nlpd():
    value, mean, sd = RNG.normal(size=20), RNG.normal(size=20), RNG.gamma(2.0, size=20)
    np.testing.assert_allclose(metrics.nlpd_normal(value, mean, sd), -stats.norm.logpdf(value, mean, sd))


def test_clustered_mean_by_its_formula():
    values, cluster = RNG.normal(size=30), RNG.integers(0, 7, 30)
    mean, se = metrics.clustered_mean(values, cluster)
    total = 0.0
    names = set(cluster.tolist())
    for name in names:
        total += (values[cluster == name] - values.mean()).sum() ** 2
    assert mean == pytest.approx(values.mean())
    assert se == pytest.approx(np.sqrt(len(names) / (len(names) - 1) * total) / 30)
    assert metrics.clustered_mean(values, np.array([f"u{c}" for c in cluster])) == (mean, se)


def test_clusters_of_one_row_are_the_ordinary_standard_error():
    values = RNG.normal(size=40)
    assert metrics.clustered_mean(values, np.arange(40))[1] == pytest.approx(stats.sem(values))


def test_the_clustered_standard_error_is_right_and_the_plain_one_is_not():
    """Users differ: over 400 tables the mean's spread is what the clustered error says (within 4 sds of its own)."""
    cluster = np.repeat(np.arange(80), 5)
    tables = RNG.normal(size=(400, 80, 1)) + 0.5 * RNG.normal(size=(400, 80, 5))
    found = [metrics.clustered_mean(t.ravel(), cluster) for t in tables]
    spread = np.std([mean for mean, _ in found])
    assert np.mean([se for _, se in found]) == pytest.approx(spread, rel=4 / np.sqrt(2 * 400))
    assert stats.sem(tables[0].ravel()) < 0.65 * spread


def test_the_difference_of_rmses_has_the_error_of_the_bootstrap_over_users():
    n_users = 300
    cluster = np.repeat(np.arange(n_users), RNG.integers(1, 8, n_users))
    user = RNG.normal(size=n_users)[cluster]
    value = user + RNG.normal(size=len(cluster))
    mean_a, mean_b = 0.7 * user + 0.2 * RNG.normal(size=len(cluster)), np.zeros(len(cluster))
    difference, se = metrics.rmse_difference(value, mean_a, mean_b, cluster)
    assert difference == pytest.approx(metrics.rmse(value, mean_a) - metrics.rmse(value, mean_b))
    assert difference < 0
    rows = [np.flatnonzero(cluster == c) for c in range(n_users)]
    redrawn = []
    for _ in range(500):
        pick = np.concatenate([rows[c] for c in RNG.integers(0, n_users, n_users)])
        redrawn.append(metrics.rmse(value[pick], mean_a[pick]) - metrics.rmse(value[pick], mean_b[pick]))
    assert se == pytest.approx(np.std(redrawn), rel=4 / np.sqrt(2 * 500) + 0.03)
    other = metrics.rmse_difference(value, mean_b, mean_a, cluster)
    assert other == pytest.approx((-difference, se))


def test_the_error_of_an_rmse_is_the_spread_over_users_drawn_anew():
    cluster = np.repeat(np.arange(250), RNG.integers(1, 7, 250))
    value = RNG.gamma(1.0, size=250)[cluster] * RNG.normal(size=len(cluster))
    root, se = metrics.clustered_rmse(value, np.zeros(len(value)), cluster)
    assert root == pytest.approx(metrics.rmse(value, 0.0))
    rows = [np.flatnonzero(cluster == c) for c in range(250)]
    redrawn = [
        metrics.rmse(value[np.concatenate([rows[c] for c in RNG.integers(0, 250, 250)])], 0.0) for _ in range(500)
    ]
    assert se == pytest.approx(np.std(redrawn), rel=4 / np.sqrt(2 * 500) + 0.03)
    assert metrics.clustered_rmse(value, value, cluster) == (0.0, 0.0)


def tied_table():
    user = RNG.permutation(np.repeat([3, 5, 8, 9], [6, 9, 1, 4]))
    value = RNG.integers(1, 6, len(user)).astype(float)
    value[user == 9] = 2.0
    return value, RNG.integers(0, 4, len(user)).astype(float), user


def test_order_accuracy_against_all_pairs():
    value, score, user = tied_table()
    found = metrics.order_accuracy(value, score, user)
    for u, share in zip([3, 5, 8, 9], found, strict=True):
        rows = np.flatnonzero(user == u)
        points = [
            0.5 if score[i] == score[j] else float(score[i] > score[j])
            for i in rows
            for j in rows
            if value[i] > value[j]
        ]
        assert share == pytest.approx(np.mean(points)) if points else np.isnan(share)
    assert np.isnan(found).tolist() == [False, False, True, True]


def test_order_accuracy_does_not_depend_on_the_size_of_its_blocks(monkeypatch):
    value, score, user = tied_table()
    whole = metrics.order_accuracy(value, score, user)
    monkeypatch.setattr(metrics, "PAIRS", 13)
    np.testing.assert_array_equal(metrics.order_accuracy(value, score, user), whole)


def test_order_accuracy_of_clicks_is_the_area_under_the_curve():
    value, score = RNG.integers(0, 2, 60).astype(float), RNG.normal(size=60)
    statistic = stats.mannwhitneyu(score[value == 1], score[value == 0]).statistic
    area = statistic / (value.sum() * (1 - value).sum())
    assert metrics.order_accuracy(value, score, np.zeros(60))[0] == pytest.approx(area)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ndcg_against_the_mean_over_all_orders_of_tied_rows(k):
    value, score = np.array([5.0, 1.0, 3.0, 4.0, 2.0, 2.0]), np.array([1.0, 3.0, 3.0, 1.0, 1.0, 2.0])
    gain = value - 1.0
    best = sum(g / np.log2(r + 2) for r, g in enumerate(sorted(gain, reverse=True)[:k]))
    lists = [
        order
        for order in itertools.permutations(range(6))
        if all(score[a] >= score[b] for a, b in itertools.pairwise(order))
    ]
    assert len(lists) == 12
    want = np.mean([sum(gain[i] / np.log2(r + 2) for r, i in enumerate(order[:k])) for order in lists]) / best
    assert metrics.ndcg(value, score, np.zeros(6), k=k, floor=1.0)[0] == pytest.approx(want)


def test_ndcg_user_by_user():
    value, score, user = tied_table()
    found = metrics.ndcg(value, score, user, floor=1.0)
    alone = [metrics.ndcg(value[user == u], score[user == u], user[user == u], floor=1.0)[0] for u in (3, 5, 8, 9)]
    np.testing.assert_array_equal(found, alone)
    assert np.isnan(found).tolist() == [False, False, True, True], "one row, and equal values, say nothing"
    np.testing.assert_allclose(metrics.ndcg(value, value, user, floor=1.0)[:2], 1.0)
    assert (metrics.ndcg(value, -value, user, floor=1.0)[:2] < 0.95).all()


def test_rankings_without_a_score_are_unknown():
    value, score, user = tied_table()
    for metric in (metrics.ndcg, metrics.order_accuracy):
        assert np.isnan(metric(value, np.full(len(score), np.nan), user)).all()
        assert len(metric(value[:0], score[:0], user[:0])) == 0
