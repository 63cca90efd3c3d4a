"""StudentT: numerics against scipy, blocks against the joint law (Geweke 2004), predictions, outliers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from scipy import stats
from test_conjugate import calm, twist
from test_geweke import MODELS, bounded, design, eta, moments, noise_sd

import bayesrec as br
from bayesrec import streams, tails
from bayesrec.errors import DataError
from bayesrec.likelihoods import noise as noise_module
from bayesrec.likelihoods.predicted import Tails
from bayesrec.models.base import Batch, Schema

N = 2000
QUICK = br.Gibbs(draws=30, warmup=30, chains=2)


def ratings(seed=0, outliers=0.08):
    frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(15, 15), n_ratings=(8, 6), rank=1, seed=seed)
    rng = np.random.default_rng(seed)
    odd = rng.random(len(frame)) < outliers
    return frame.assign(value=frame["value"] + odd * rng.normal(0, 6, len(frame)))


def interactions(frame, **more):
    return br.Interactions.from_frame(frame, target="target", value="value", **more)


# numerics


@pytest.mark.parametrize("shape", [1.0, 1.7, 2.5, 40.0])
def test_gammas(shape):
    """By chance a KS test fails one time in 10,000."""
    x = np.array([streams.gamma(np.uint64(streams.start(np.uint64(5), k)), shape) for k in range(4000)])
    assert stats.kstest(x, stats.gamma(shape).cdf).pvalue > 1e-4
    assert stats.kstest(x, stats.gamma(shape * 1.15).cdf).pvalue < 1e-4  # planted


@pytest.mark.parametrize("dof", [2.2, 3.0, 4.0, 10.0, 100.0])
def test_predictive_distributions(dof):
    """Against convolutions with a normal on a fine grid, 8 sds to either side."""
    for spread in (0.0, 0.05, 0.3, 1.0, 3.0):
        x = np.linspace(-8, 8, 41) * np.sqrt(spread**2 + dof / (dof - 2))
        n = len(x)
        law = Tails(np.zeros((n, 1)), np.full((n, 1), spread), np.ones((n, 1)), dof, np.zeros(n), np.ones(n))
        z = np.linspace(-12, 12, 4001)
        weight = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
        gap = x[:, None] - spread * z
        np.testing.assert_allclose(law.log_density(x)[:, 0], np.log(stats.t.pdf(gap, dof) @ weight), atol=1e-3)
        np.testing.assert_allclose(law.cdf(x), stats.t.cdf(gap, dof) @ weight, atol=2e-5)
    assert law.variance[0, 0] == pytest.approx(9 + dof / (dof - 2))


def test_quantiles():
    law = Tails(*(np.array([[x]]) for x in (0.5, 0.0, 2.0)), 4.0, np.array([3.0]), np.array([10.0]))
    p = (0.01, 0.05, 0.5, 0.95)
    np.testing.assert_allclose(law.quantiles(p)[0], 3 + 10 * (0.5 + 2 * stats.t.ppf(p, 4)), rtol=1e-3)
    many = Tails(*np.abs(np.random.default_rng(0).normal(1, 0.5, (3, 100, 7))), 3.0, np.zeros(100), np.ones(100))
    np.testing.assert_allclose(many.cdf(many.quantiles((0.2,))[:, 0]), 0.2, atol=1e-8)  # more rows than go at once


# blocks


@lru_cache(maxsize=1)
def world():
    """Latents, precisions of single ratings and ratings from their joint law."""
    model = replace(MODELS["CollectiveMF"][0], likelihood=br.StudentT(dof=3.0))
    table, rng = design(2), np.random.default_rng(0)
    schema = Schema(12, table.n_items, ("a", "b"), torch.from_numpy(table.item_domain), np.zeros(2), np.ones(2))
    with torch.random.fork_rng(devices=[]), pyro.poutine.block(), pyro.plate("replication", N, dim=-1):
        torch.manual_seed(0)
        x = {site: value.double().numpy() for site, value in model.prior(schema).items()}
    sd = noise_sd(table, x)
    x["mixing"] = rng.gamma(1.5, 1 / 1.5, sd.shape)
    return model, table, x, eta(table, x) + sd * rng.standard_normal(sd.shape) / np.sqrt(x["mixing"])


def features(table, x, value):
    plain = (value - eta(table, x)) / noise_sd(table, x)
    out, e = {}, plain * np.sqrt(x["mixing"])
    bounded(out, "noise", np.log(x["noise"]))
    bounded(out, "user_mean", 2 * x["user_mean"])
    seen = table.count > 0
    bounded(out, "log precision", x["user_log_precision"][:, seen])
    item = (x["item_vector"] - x["item_mean"][:, table.item_domain]) / x["item_scale"][:, table.item_domain]
    moments(out, "item", item, table.rated)
    z = np.linalg.solve(
        np.linalg.cholesky(x["user_cov"])[:, None], (x["user_vector"] - x["user_mean"][:, None])[..., None]
    )
    moments(out, "user", z[..., 0], seen.any(0))
    for d in range(2):
        mine = table.user_domain == d
        moments(out, f"residual {d}", e[:, mine, None])
        out[f"precision {d}"] = np.tanh(x["mixing"][:, mine]).mean(1)
        out[f"log precision {d}"] = np.tanh(np.log(x["mixing"][:, mine])).mean(1)
        out[f"precision and error {d}"] = (np.tanh(x["mixing"]) * np.tanh(plain**2))[:, mine].mean(1)
        out[f"data {d}"] = np.tanh(value * np.tanh(x["user_vector"][:, table.user_of, 0]))[:, mine].mean(1)
    return out


def more_dof(monkeypatch):
    twist(monkeypatch, tails, "draw_mixing", _2=lambda dof: 1.3 * dof)


def unweighted(monkeypatch):
    monkeypatch.setattr(br.StudentT, "squares", noise_module.NoisyResponse.squares)


def as_gaussian(monkeypatch):
    monkeypatch.setattr(br.StudentT, "working", noise_module.NoisyResponse.working)


@pytest.mark.parametrize("fault", [None, True])
@pytest.mark.parametrize(
    ("block", "what"),
    [
        ("mixing", more_dof),
        ("noise", unweighted),
        ("user_noise", unweighted),
        ("users", as_gaussian),
        ("items", as_gaussian),
    ],
)
def test_blocks_leave_the_joint_law(block, what, fault, monkeypatch):
    """Exact blocks change no test function on average; 1e-4 of runs would say otherwise."""
    model, table, x, value = world()
    if fault:
        what(monkeypatch)
    rng, after = np.random.default_rng(1), []
    for r in range(N):
        mine = replace(table, user_value=value[r], item_value=value[r][table.item_place])
        state = {site: x[site][r].copy() for site in x}
        update = next(b for b in model.blocks(mine) if b.name == block)
        after.append(state | update.update(state, rng))
    new = {site: np.stack([np.asarray(s[site]) for s in after]) for site in x}
    a, b = features(table, x, value), features(table, new, value)
    change = np.stack([b[f] - a[f] for f in a], 1)
    change = change[:, np.abs(change).max(0) > 1e-9]
    assert calm(change.mean(0) / change.std(0) * np.sqrt(N)) is (fault is None)


def test_what_a_rating_says():
    """The score of the response that stands for a rating is that of the t density; its precision is Fisher's information."""
    model, table, x, value = world()
    mine = replace(table, user_value=value[0], item_value=value[0][table.item_place])
    state = {site: x[site][0] for site in x}
    response, weight = model.observed(state, mine)
    at, sd, h = eta(table, x)[0], noise_sd(table, x)[0], 1e-4
    log = [stats.t.logpdf(value[0], 3, at + move, sd) for move in (-h, h)]
    np.testing.assert_allclose(weight * (response - at), (log[1] - log[0]) / (2 * h), rtol=1e-4, atol=1e-6)
    t = stats.t.rvs(3, size=100_000, random_state=0)
    score = 4 * t / (3 + t**2)
    np.testing.assert_allclose(weight * sd**2, (score**2).mean(), rtol=0.02)
    assert model.log_density(state, mine) == pytest.approx(stats.t.logpdf(value[0], 3, at, sd).sum())


# what users see


@pytest.fixture(scope="module")
def fitted():
    train, test = br.split.holdout(interactions(ratings()), 0.2, seed=0)
    return br.fit(br.models.TransferMF(rank=1, likelihood=br.StudentT()), train, QUICK, progress=False), test


def test_predictions_by_brute_force(fitted):
    posterior, test = fitted
    model, latents, rows = posterior.model, posterior.latents(), test.mask(np.arange(len(test)) < 8)
    batch = Batch(*(torch.from_numpy(np.array(x)) for x in (rows.user, rows.item, rows.domain)))
    law = model.likelihood.distribution(model.score(latents, batch).double(), latents, batch)
    units = posterior.schema.units[-1]
    mean = law.mean.numpy() * units.scale + units.center
    answer = posterior.predict(rows, level=0.8)
    np.testing.assert_allclose(answer["mean"], mean.mean(0), rtol=1e-5)
    variance = law.variance.numpy().mean(0) * units.scale**2 + mean.var(0)
    np.testing.assert_allclose(answer["sd"], np.sqrt(variance), rtol=1e-5)
    scale = law.scale.expand(mean.shape).numpy() * units.scale
    np.testing.assert_allclose(stats.t.cdf(answer["lower"].to_numpy(), 4, mean, scale).mean(0), 0.1, atol=1e-4)
    score = np.log(stats.t.pdf(rows.value, 4, mean, scale).mean(0))
    np.testing.assert_allclose(posterior.log_score(rows), score, atol=1e-4)
    assert br.recommend(posterior, [0, 1], n=2)["score"].notna().all()


def test_outliers_pull_less_than_under_a_gaussian():
    """Held-out ratings, a twelfth of them far off, in log score; and one far-off rating of a newcomer."""
    train, test = br.split.holdout(interactions(ratings()), 0.2, seed=0)
    new = ratings().query("domain == 'target'").head(5).assign(user=555)
    score, moved = [], []
    for likelihood in (br.StudentT(user_noise=False), br.Gaussian(user_noise=False)):
        posterior = br.fit(br.models.PMF(rank=1, likelihood=likelihood), train, QUICK, progress=False)
        score.append(posterior.log_score(test).mean())
        means = []
        for odd in (0.0, 40.0):
            folded = posterior.fold_in(new.assign(value=new["value"] + odd * (np.arange(5) == 0)))
            means.append(folded.predict(pd.DataFrame({"user": 555, "item": range(15)}))["mean"])
        moved.append((means[1] - means[0]).abs().mean())
    assert score[0] > score[1] + 0.1
    assert moved[0] < 0.5 * moved[1]


def test_save_load_and_threads(fitted, tmp_path):
    posterior, test = fitted
    back = br.load(posterior.save(tmp_path / "p"))
    assert back.predict(test).equals(posterior.predict(test))
    assert back.model.likelihood == br.StudentT(dof=4)
    method = br.Gibbs(draws=5, warmup=5, chains=2)
    fits = [br.fit(posterior.model, posterior.data, replace(method, threads=n), progress=False) for n in (1, 2)]
    assert all(np.array_equal(fits[0].draws[name], fits[1].draws[name]) for name in fits[0].draws)


def test_units_do_not_follow_outliers():
    units = br.StudentT().units(
        [np.r_[np.random.default_rng(0).normal(3, 2, 4000), 1e6], np.empty(0), np.r_[[1.0] * 9, 5.0]]
    )
    assert units[0].center == pytest.approx(3, abs=0.2)
    assert units[0].scale == pytest.approx(2, abs=0.2)
    assert (units[1].scale, units[2].scale) == (1.0, pytest.approx(1.2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:NUTS will take about")  # on a busy machine
def test_gibbs_agrees_with_nuts():
    """Means in sds of the ratings; the fits' Monte Carlo error is about .02."""
    model, data = (
        br.models.PMF(rank=1, likelihood=br.StudentT(user_noise=False)),
        interactions(ratings().query("user < 12")),
    )
    gibbs = br.fit(model, data, br.Gibbs(draws=4000, warmup=500, chains=4), progress=False)
    nuts = br.fit(model, data, br.NUTS(draws=500, warmup=500, chains=2), progress=False)
    cells = data.to_frame().query("domain == 'target'").head(20)
    means = [posterior.predict(cells)["mean"].to_numpy() for posterior in (gibbs, nuts)]
    assert np.abs(means[0] - means[1]).max() < 0.1 * data.value.std()


# bad input


@pytest.mark.parametrize("dof", [2, 1.5, 0, -1, float("nan"), float("inf"), "4", True])
def test_degrees_of_freedom(dof):
    with pytest.raises(DataError, match="dof must be a number above 2"):
        br.StudentT(dof=dof)


def test_a_number_in_the_place_of_user_noise():
    with pytest.raises(DataError, match=r"user_noise must be True or False, not 4\.0; give other options by name"):
        br.StudentT(4.0)


def test_constant_ratings():
    frame = ratings().assign(value=2.0)
    with pytest.raises(DataError, match="a StudentT on constant values learns nothing"):
        br.fit(br.models.PMF(rank=1, likelihood=br.StudentT()), interactions(frame), QUICK, progress=False)
