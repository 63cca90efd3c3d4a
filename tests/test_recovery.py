"""Data with a known truth: what a fit must find, and how sure it may be."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from test_conjugate import ALARM, by, calm

import bayesrec as br
from bayesrec.data import derange_sources, synthetic

METHOD = br.Gibbs(draws=150, warmup=150, chains=2, threads=1)
PLAIN = br.Gaussian(user_noise=False)
N_COLD, N_ITEMS = 40, 50


@lru_cache
def known(hostile=0.0, deranged=False):
    """Interactions and truth; the first 40 of 200 users have no target rows."""
    sizes = {"n_users": 200, "n_items": (60, N_ITEMS), "n_ratings": (20, 10), "rank": 2}
    frame, truth = synthetic.cross_domain(**sizes, n_cold=N_COLD, hostile=hostile, seed=0)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    return derange_sources(data, seed=0) if deranged else data, truth


@lru_cache
def fitted(model, hostile=0.0, deranged=False):
    return br.fit(model, known(hostile, deranged)[0], METHOD, progress=False)


def cells(users):
    return pd.DataFrame([(u, i) for u in users for i in range(N_ITEMS)], columns=["user", "item"])


def better(one, other, truth):
    """One-sided test, clustered by user: are the expected ratings of ``one`` closer to the truth for cold users?"""
    rows = cells(range(N_COLD))
    eta = truth["eta_target"][rows["user"], rows["item"]]
    loss = [((p.predict(rows)["mean"] - eta) ** 2).groupby(rows["user"]).mean() for p in (one, other)]
    gain = loss[1] - loss[0]
    return gain.mean() / (gain.std() / np.sqrt(len(gain))) > stats.norm.isf(ALARM)


def test_transfer_helps_cold_users():
    truth = known()[1]
    model = br.models.TransferMF(rank=2)
    bare = fitted(br.models.PMF(rank=2))
    assert better(fitted(model), bare, truth)
    assert not better(fitted(model, deranged=True), bare, truth)  # planted: the source rows of other people
    assert not better(bare, fitted(model), truth)


def friendly(model, deranged=False):
    """Is the weight far above that of a hostile source, and the gate's rate clearly below that of a half hostile one?

    A source that is hostile to everybody says little of its gate: the map is zero and either state explains the data.
    """
    posterior, rows = fitted(model, deranged=deranged), cells(range(N_COLD + 20))
    weights = [br.source_weight(p, rows)["source"].mean() for p in (posterior, fitted(model, 1.0))]
    gate, half = (p.draws["gate"].ravel() for p in (posterior, fitted(model, 0.5)))
    return weights[0] > 4 * weights[1] and np.quantile(gate, 0.999) < np.quantile(half, 0.001)


def test_weight_and_gate_tell_a_friendly_source_from_a_hostile_one():
    assert friendly(br.models.TransferMF(rank=2))
    assert not friendly(br.models.TransferMF(rank=2), deranged=True)  # planted: the source rows of other people


def near(draws, value):
    """Is ``value`` where the posterior puts it, up to a two-sided normal test?"""
    return calm((draws.mean() - value) / draws.std())


def test_the_gates_rate_is_the_share_of_hostile_users():
    gate = fitted(br.models.TransferMF(rank=2), 0.5).draws["gate"]
    assert near(gate, 0.5)
    assert not near(gate, 0.0)
    assert not near(1 - 0.5 * gate, 0.5)  # planted: the rate of users who are on, half of it


def two_way(x, user, item):
    """z of the mean of ``x``, with a standard error clustered by user and by item (Cameron et al. 2011)."""
    x, n = x - x.mean(), len(x)
    sums = [np.bincount(code, x) for code in (user, item)]
    variance = sum((s**2).sum() for s in sums) - (x**2).sum()
    return np.sqrt(max(variance, (x**2).sum())) / n


def calibration(posterior, truth, noise):
    """z of the coverage of 90 % intervals and of the mean squared standardised residual, over new ratings."""
    rows = cells(range(0, len(truth["user"]), 2))
    value = (truth["eta_target"] + noise)[rows["user"], rows["item"]]
    answer = posterior.predict(rows)
    inside = ((value > answer["lower"]) & (value < answer["upper"])).to_numpy(float)
    square = (((value - answer["mean"]) / answer["sd"]) ** 2).to_numpy()
    return [
        (x.mean() - want) / two_way(x, rows["user"].to_numpy(), rows["item"].to_numpy())
        for x, want in ((inside, 0.9), (square, 1.0))
    ]


@pytest.mark.parametrize("name", ["PMF", "TransferMF", pytest.param("CollectiveMF", marks=pytest.mark.slow)])
def test_predictions_of_new_ratings_are_calibrated(name):
    """Every other user, cold and warm, every target item, fresh noise; red when the noise is taken 15 % too small."""
    truth = known()[1]
    posterior = fitted(getattr(br.models, name)(rank=2, likelihood=PLAIN))
    noise = truth["noise"] * np.random.default_rng(1).standard_normal(truth["eta_target"].shape)
    z = calibration(posterior, truth, noise)
    assert (np.abs(z) < stats.norm.isf(ALARM / 4)).all(), z
    sure = replace(posterior, draws=posterior.draws | {"noise": 0.85 * posterior.draws["noise"]})
    assert (np.abs(calibration(sure, truth, noise)) > stats.norm.isf(ALARM / 4)).all()


def test_the_noise_is_found():
    _, truth = known()
    for model in (br.models.PMF(rank=2, likelihood=PLAIN), br.models.TransferMF(rank=2, likelihood=PLAIN)):
        posterior = fitted(model)
        noise = posterior.draws["noise"] * posterior.schema.scale
        for d in range(noise.shape[-1]):
            assert near(noise[..., d], truth["noise"])
            assert not near(1.15 * noise[..., d], truth["noise"])


@lru_cache
def posterior_of(likelihood, n_draws):
    """A PMF whose draws are one draw of a fit, many times over: everything but the new users is known."""
    model = br.models.PMF(rank=2, likelihood=likelihood)
    data = known()[0].only_target()
    posterior = br.fit(model, data, br.Gibbs(draws=1, warmup=60, chains=1), progress=False)
    return replace(posterior, draws={name: np.repeat(x, n_draws, axis=1) for name, x in posterior.draws.items()})


def newcomers(posterior, n_users):
    """The same four ratings for every new user, as a frame, and their design and response."""
    items = np.arange(4)
    rows = pd.DataFrame({"user": np.repeat(np.arange(n_users) + 9000, 4), "item": np.tile(items, n_users)})
    rows["value"] = np.tile([4.5, 2.0, 3.0, 5.5], n_users)
    state = posterior.draw(0, 0)
    code = posterior.data.items.encode(items, 0)
    design = np.column_stack([np.ones(4), state["item_vector"][code, 1:]])
    value = posterior.schema.standardise(rows["value"].to_numpy()[:4], np.zeros(4, dtype=int))
    return rows.assign(domain="target"), design, value - state["item_vector"][code, 0], state


def theta_given(design, response, weight, state):
    """Mean and covariance of a new user's vector under noise precision ``weight``."""
    inverse = np.linalg.inv(state["user_cov"])
    cov = np.linalg.inv(inverse + weight * design.T @ design)
    return cov @ (inverse @ state["user_mean"] + weight * design.T @ response), cov


def falsified(posterior, fault):
    """The posterior with some of its draws multiplied: what folds in is another model than the one that judges."""
    return replace(posterior, draws=posterior.draws | {name: by(x)(posterior.draws[name]) for name, x in fault.items()})


@pytest.mark.parametrize("fault", [{}, {"noise": 2.0**-0.5}, {"user_cov": 1.1}])
def test_fold_in_with_one_noise_is_the_closed_form(fault):
    posterior = posterior_of(PLAIN, 100)
    rows, design, response, state = newcomers(posterior, 400)
    posterior = falsified(posterior, fault)
    new = posterior.fold_in(rows).draws["user_vector"][0, :, -400:].reshape(-1, 3).astype(float)
    mean, cov = theta_given(design, response, state["noise"][0] ** -2, state)
    x = np.linalg.solve(np.linalg.cholesky(cov), (new - mean).T).T
    n, low = len(x), np.tril_indices(3)
    products = (x[:, low[0]] * x[:, low[1]] - np.eye(3)[low]) / np.where(low[0] == low[1], np.sqrt(2), 1)
    assert calm(np.sqrt(n) * np.append(x.mean(0), products.mean(0))) is not bool(fault)


def user_noise_scores(within, fault=()):
    """z of moments of folded-in (theta, log precision), whose posterior is a one-dimensional integral."""
    posterior = posterior_of(br.Gaussian(), 40)
    spreads = {
        name: np.full((1, 40), sd, np.float32) for name, sd in (("level_between", 0.8), ("level_within", within))
    }
    posterior = replace(posterior, draws=posterior.draws | spreads)
    rows, design, response, state = newcomers(posterior, 400)
    more = falsified(posterior, dict(fault)).fold_in(rows).draws
    theta, x = more["user_vector"][0, :, -400:].astype(float), more["user_log_precision"][0, :, 0, -400:].astype(float)
    grid = np.linspace(-6, 6, 1201)
    density, first, second = np.empty(len(grid)), np.empty((len(grid), 3)), np.empty((len(grid), 3))
    for g, point in enumerate(grid):
        weight = np.exp(3 * np.tanh(point / 3)) / state["noise"][0] ** 2
        spread = design @ state["user_cov"] @ design.T + np.eye(4) / weight
        density[g] = stats.multivariate_normal(design @ state["user_mean"], spread).pdf(response)
        mean, cov = theta_given(design, response, weight, state)
        first[g], second[g] = mean, mean**2 + np.diag(cov)
    density *= stats.norm.pdf(grid, 0, np.hypot(state["level_between"], state["level_within"]))
    functions = np.column_stack([grid, grid**2, np.exp(-grid), first, second])
    want = integrate.trapezoid(functions * density[:, None], grid, axis=0) / integrate.trapezoid(density, grid)
    got = np.concatenate([np.stack([x, x**2, np.exp(-x)], -1), theta, theta**2], axis=-1).mean(0)  # (user, function)
    return (got.mean(0) - want) / got.std(0) * np.sqrt(len(got))  # users are independent replications


@pytest.mark.parametrize("fault", [{}, {"noise": 0.9}, {"level_between": 1.2}])
def test_fold_in_with_user_noise_is_the_quadrature(fault):
    assert calm(user_noise_scores(within=0.4, fault=fault)) is not bool(fault)


def test_fold_in_with_a_small_spread_within_users():
    assert calm(user_noise_scores(within=0.07))
