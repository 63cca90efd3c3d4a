"""Effects of single users: against brute force, and whether their probabilities mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bayesrec.diagnostics.effects import MEAN_SCALE, SPREAD_DF, SPREAD_SCALE, effects, row_noise


def table(rng, n_users=120):
    """Users with effects around a mean, noise levels of their own, rows with heavy tails; a fifth has one row."""
    truth = rng.normal(rng.normal(0.0, 0.05), abs(rng.normal(0.0, 0.1)), n_users)
    n = 1 + rng.geometric(0.2, n_users) * (rng.random(n_users) > 0.2)
    level = 0.3 * np.exp(0.5 * rng.standard_normal(n_users))
    user = np.repeat(np.arange(n_users), n)
    rows = truth[user] + level[user] * rng.standard_t(5, len(user)) * np.sqrt(3 / 5)
    delta = np.bincount(user, rows)
    within = np.bincount(user, (rows - (delta / n)[user]) ** 2)
    return truth, delta, n, within


def run(delta, n, within, sampler=0.0, regime="cold"):
    regime = np.broadcast_to(regime, len(delta))
    return effects(delta, n, within, np.broadcast_to(float(sampler), len(delta)), regime)


def decile_gaps(probability, harmed, number):
    """For each decile of the probability, (share harmed - probability) in standard errors, tables as clusters."""
    out = []
    for k in range(10):
        here = np.minimum((10 * probability).astype(int), 9) == k
        gap = np.bincount(number[here], (harmed - probability)[here])
        out.append(gap.sum() / np.sqrt((gap**2).sum()))
    return np.array(out)


def test_probabilities_of_harm_are_calibrated_and_overconfident_ones_are_caught():
    """150 tables. Each of ten gaps is about standard normal: one beyond 4.5 comes once in 15,000 runs."""
    rng = np.random.default_rng(11)
    good, bad, unshrunk, harmed, number = [], [], [], [], []
    for k in range(150):
        truth, delta, n, within = table(rng)
        good.append(run(delta, n, within)[2])
        bad.append(run(delta, n, within / 9.0)[2])  # a third of the noise
        unshrunk.append(stats.norm.cdf(-delta / np.sqrt(within.sum() / (n - 1).sum() * n)))
        harmed.append(truth < 0)
        number.append(np.full(len(n), k))
    harmed, number = np.concatenate(harmed), np.concatenate(number)
    assert np.abs(decile_gaps(np.concatenate(good), harmed, number)).max() < 4.5
    assert np.abs(decile_gaps(np.concatenate(bad), harmed, number)).max() > 4.5
    assert np.abs(decile_gaps(np.concatenate(unshrunk), harmed, number)).max() > 4.5


def test_effects_are_those_of_brute_force():
    """Three integrals on fine grids, with SciPy's Student-t, for few users with different numbers of rows."""
    delta, n = np.array([0.9, -0.5, 1.8, 0.1, -0.7, 0.4]), np.array([3, 2, 9, 4, 1, 5])
    within = np.array([0.2, 0.5, 0.6, 0.1, 0.0, 0.9])
    variance, df = row_noise(delta / n, n, within)
    e = 0.002 * (np.arange(2000) - 999.5)  # no point at zero
    mu, log_tau = np.linspace(-0.8, 0.8, 41), np.linspace(np.log(2e-3), np.log(3), 51)
    tau = np.exp(log_tau)
    noise = stats.t.pdf((delta / n)[:, None], df[:, None], e, np.sqrt(variance / n)[:, None])  # user, e
    effect = stats.norm.pdf(e, mu[:, None, None], tau[:, None])  # mu, tau, e
    joint = np.einsum("ux,mtx->umt", noise, effect) * (e[1] - e[0])
    prior = stats.norm.pdf(mu, 0, MEAN_SCALE)[:, None] * stats.t.pdf(tau / SPREAD_SCALE, SPREAD_DF) * tau
    chance = joint.prod(0) * prior
    chance /= chance.sum()
    density = noise * np.einsum("mt,umt,mtx->ux", chance, 1.0 / joint, effect)
    density /= density.sum(1, keepdims=True)
    mean = density @ e
    got = run(delta, n, within)
    assert got[0] == pytest.approx(mean, abs=2e-3)
    assert got[1] == pytest.approx(np.sqrt(density @ e**2 - mean**2), abs=3e-3)
    assert got[2] == pytest.approx(density[:, e < 0].sum(1), abs=5e-3)


def test_the_variance_of_a_row_is_pooled_and_robust():
    rng = np.random.default_rng(0)
    n = rng.integers(1, 12, 400)
    within = 0.09 * rng.chisquare(np.maximum(n - 1, 1e-9)) * (n > 1)
    variance, df = row_noise(np.zeros(400), n, within)
    assert variance.mean() == pytest.approx(0.09, rel=0.1)
    assert variance.std() < 0.02, "one variance for all: users are pulled together"
    assert np.ptp(variance[n == 1]) == 0
    assert df.min() > 20
    within[:4] = 500.0
    assert row_noise(np.zeros(400), n, within)[0][n == 1][0] < 0.15, "four users do not set the level of all"
    uneven = row_noise(np.zeros(400), n, within * np.exp(2.0 * rng.standard_normal(400)))
    assert uneven[1].min() < 8, "heavy tails where users differ"


def test_one_user_moves_the_others_little():
    rng = np.random.default_rng(1)
    n = np.full(100, 4)
    delta = 4 * rng.normal(0.05, 0.05, 100) + 2 * 0.3 * rng.standard_normal(100)
    within = 0.09 * rng.chisquare(3, 100)
    before = run(delta, n, within)
    delta[0], within[0] = -40.0, 300.0
    after = run(delta, n, within)
    assert np.abs(after[0][1:] - before[0][1:]).max() < 0.02


def test_more_rows_shrink_less_and_noisy_chains_shrink_more():
    rng = np.random.default_rng(2)
    n = np.repeat([1, 4, 40], 60)
    delta = n * rng.normal(0.0, 0.1, 180) + 0.3 * np.sqrt(n) * rng.standard_normal(180)
    within = 0.09 * rng.chisquare(np.maximum(n - 1, 1e-9)) * (n > 1)
    mean, sd, harm = run(delta, n, within)
    kept = [np.abs(mean[n == k] / (delta / n)[n == k]) for k in (1, 4, 40)]
    assert np.median(kept[0]) < np.median(kept[1]) < np.median(kept[2])
    assert sd[n == 1].mean() > sd[n == 40].mean()
    assert ((harm > 0.5) == (mean < 0)).mean() > 0.95
    assert run(delta, n, within, sampler=0.05)[0].std() < 0.5 * mean.std()


def test_regimes_have_means_of_their_own():
    rng = np.random.default_rng(3)
    regime = np.repeat(["cold", "warm"], 80)
    delta = np.where(regime == "cold", 0.3, -0.3) * 5 + 0.5 * rng.standard_normal(160)
    within, n = 0.05 * rng.chisquare(4, 160), np.full(160, 5)
    mean, _, harm = run(delta, n, within, regime=regime)
    assert harm[regime == "cold"].max() < 0.1 < 0.9 < harm[regime == "warm"].min()
    apart = [run(delta[own], n[own], within[own]) for own in (regime == "cold", regime == "warm")]
    assert mean == pytest.approx(np.concatenate([a[0] for a in apart]), abs=0.02)


@pytest.mark.parametrize("n_users", [1, 2, 40])
@pytest.mark.parametrize("rows", [1, 3])
def test_little_to_go_on_is_no_error(n_users, rows):
    mean, sd, harm = run(np.full(n_users, 0.3), np.full(n_users, rows), np.zeros(n_users))
    assert np.isfinite([mean, sd, harm]).all()
    assert (mean > 0).all()
    assert run(np.zeros(n_users), np.full(n_users, rows), np.zeros(n_users))[2] == pytest.approx(0.5)
