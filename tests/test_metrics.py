"""Metrics against numerical integration, formulas and the bootstrap."""

from __future__ import annotations

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
