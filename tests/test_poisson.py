"""Poisson: numerics against scipy, blocks against the joint law (Geweke 2004), predictions by brute force."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from scipy import special, stats
from test_conjugate import calm, twist
from test_geweke import MODELS, bounded, design, eta, moments, noise_sd

import bayesrec as br
from bayesrec import conjugate, counts
from bayesrec.errors import DataError
from bayesrec.likelihoods import poisson
from bayesrec.likelihoods.lognormal import PoissonLogNormal
from bayesrec.likelihoods.predicted import Counts
from bayesrec.models.base import Batch, Schema

N = 2000
QUICK = br.Gibbs(draws=30, warmup=30, chains=2)


def plays(seed=0, level=1.0, n_users=40):
    frame, _ = br.data.synthetic.cross_domain(n_users=n_users, n_items=(15, 15), n_ratings=(8, 6), rank=1, seed=seed)
    rate = np.exp(level + 0.7 * (frame["value"] - frame["value"].mean()))
    return frame.assign(value=np.random.default_rng(seed).poisson(rate).astype(float))


def interactions(frame, **more):
    return br.Interactions.from_frame(frame, target="target", value="value", **more)


# numerics


CELLS = [(y, m, s) for y in (0, 1, 7, 300, 100_000) for m in (-4.0, 0.0, 3.0, 11.0) for s in (0.01, 0.3, 1.0, 3.0)]


def brute(y, m, s, power=0):
    """Log probability of a count and moments of its log rate, on a fine grid around the mode and the bulk."""
    top = np.log(y + 0.5)
    z = np.linspace(min(m, top) - 9 * s - 1, max(m, top) + 9 * s + 1, 60_001)
    log = stats.norm.logpdf(z, m, s) + y * z - np.exp(z) - special.gammaln(y + 1)
    total = special.logsumexp(log) + np.log(z[1] - z[0])
    p = np.exp(log - special.logsumexp(log))
    return total, p @ z, p @ z**2 - (p @ z) ** 2


def test_log_probabilities():
    value = np.array([float(y) for y, _, _ in CELLS])
    mean, sd = (np.array([c[k] for c in CELLS])[:, None] for k in (1, 2))
    out = np.empty((len(CELLS), 1))
    counts.log_probabilities(value, mean, sd, out)
    want = np.array([brute(*c)[0] for c in CELLS])
    np.testing.assert_allclose(out[:, 0], want, rtol=1e-8, atol=5e-5)
    law = PoissonLogNormal(torch.from_numpy(mean[:, 0]), torch.from_numpy(sd[:, 0]))
    np.testing.assert_allclose(law.log_prob(torch.from_numpy(value)).numpy(), out[:, 0], rtol=1e-8, atol=5e-5)


def test_distribution_functions():
    mean, sd = (np.array([c[k] for c in CELLS])[:, None] for k in (1, 2))
    out = np.empty(len(CELLS))
    counts.count_cdf(np.array([c[0] for c in CELLS]) + 0.5, mean, sd, out)
    grid = np.linspace(-9, 9, 100_001)
    weight = stats.norm.pdf(grid) / stats.norm.pdf(grid).sum()
    want = [weight @ special.pdtr(y, np.exp(m + s * grid)) for y, m, s in CELLS]
    np.testing.assert_allclose(out, want, atol=3e-6)


def test_gamma_tail():
    a, x = np.meshgrid([1.0, 2.0, 30.0, 1e4, 3e6], [0.3, 0.9, 1.0, 1.02, 2.0])
    got = [counts._gamma_tail(p, p * q) for p, q in zip(a.ravel(), x.ravel(), strict=True)]
    np.testing.assert_allclose(got, special.gammaincc(a, a * x).ravel(), atol=1e-7)


def test_quantiles_are_the_least_counts_that_reach_the_probabilities():
    rng = np.random.default_rng(0)
    law = Counts(rng.normal(1, 1, (40, 20)) + 6 * (rng.random((40, 1)) < 0.3), rng.uniform(0.01, 1.2, (40, 20)))
    probability = (0.001, 0.05, 0.5, 0.95, 0.999)
    found = law.quantiles(probability)
    for p, k in zip(probability, found.T, strict=True):
        assert ((law.cdf(k) >= p) & (law.below(k) < p)).all()
    assert (found == np.floor(found)).all()


def test_moments_by_sums():
    law = Counts(np.array([[0.5, 1.0]]), np.array([[0.4, 0.6]]))
    y = np.arange(400.0)
    p = np.exp([law.log_density(np.array([k]))[0] for k in y])  # (count, draw)
    np.testing.assert_allclose(p.sum(0), 1.0, rtol=1e-6)
    np.testing.assert_allclose(y @ p, law.mean[0], rtol=1e-5)
    np.testing.assert_allclose(y**2 @ p - (y @ p) ** 2, law.variance[0], rtol=1e-3)
    assert law.log_density(np.array([1.5])).max() == law.log_density(np.array([-1.0])).max() == -np.inf


def test_score_and_information_by_differences():
    rng = np.random.default_rng(1)
    n, h = 50, 1e-3
    value, cell = rng.poisson(4.0, n).astype(float), rng.integers(0, 10, n).astype(np.int32)
    at, w, intercept = 0.5 * rng.standard_normal(n), rng.gamma(3.0, 0.7, 10), np.array([1.0, 1.5])

    def run(move):
        out = np.empty((3, n))
        counts.evidence(value, cell, 5, at + move, w, intercept, out, 0, n)
        return out

    log, score, information = run(0.0)
    assert log == pytest.approx(
        [brute(y, a + intercept[c // 5], w[c] ** -0.5)[0] for y, a, c in zip(value, at, cell, strict=True)]
    )
    np.testing.assert_allclose(score, (run(h)[0] - run(-h)[0]) / (2 * h), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(information, -(run(h)[1] - run(-h)[1]) / (2 * h), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("y", "m", "w"), [(0.0, 5.0, 0.1), (0.0, -3.0, 1.5), (2.0, 1.0, 1.5), (5000.0, 1.0, 100.0)])
def test_responses_have_their_law(y, m, w):
    """By chance a KS test fails one time in 10,000. At least four of five proposals are taken."""
    n = 4000
    out, cell = np.empty(n), np.zeros(n, np.int32)
    tried = counts.draw_responses(
        np.full(n, y), cell, 1, np.full(n, m - 0.3), np.array([w]), np.array([0.3]), np.uint64(3), out, 0, n
    )
    z = np.linspace(-30, 20, 400_001)

    def cdf(precision):
        log = y * z - np.exp(z) - 0.5 * precision * (z - m) ** 2
        total = np.cumsum(np.exp(log - log.max()))
        return np.interp(out + 0.3, z, total / total[-1])

    assert stats.kstest(cdf(w), "uniform").pvalue > 1e-4
    assert stats.kstest(cdf(1.5 * w), "uniform").pvalue < 1e-4  # planted
    assert n / tried > 0.8


def test_gradients_of_the_torch_law():
    loc = torch.tensor([0.5, 3.0, -2.0], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.7, 0.2, 1.5], dtype=torch.float64, requires_grad=True)
    value = torch.tensor([0.0, 30.0, 4.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: PoissonLogNormal(a, b).log_prob(value), (loc, scale), atol=1e-5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        law = PoissonLogNormal(torch.tensor([1.0]), torch.tensor([0.5]))
        x = law.sample((20_000,))
    assert x.mean().item() == pytest.approx(law.mean.item(), abs=5 * law.variance.sqrt().item() / 20_000**0.5)


# blocks


@lru_cache(maxsize=1)
def world():
    """Latents, responses and counts from their joint law."""
    model = replace(MODELS["CollectiveMF"][0], likelihood=br.Poisson(user_noise=True))
    table, rng = design(2), np.random.default_rng(0)
    schema = Schema(12, table.n_items, ("a", "b"), torch.from_numpy(table.item_domain), np.zeros(2), np.ones(2))
    with torch.random.fork_rng(devices=[]), pyro.poutine.block(), pyro.plate("replication", N, dim=-1):
        torch.manual_seed(0)
        x = {site: value.double().numpy() for site, value in model.prior(schema).items()}
    sd = noise_sd(table, x)
    x["response"] = eta(table, x) + sd * rng.standard_normal(sd.shape)
    rate = x["response"] + x["intercept"][:, table.user_domain]
    usual = (rate.max(1) < 35) & (
        x["intercept"].max(1) < 12
    )  # larger rates make counts that are no floating-point integers
    x = {site: value[usual] for site, value in x.items()}
    return model, table, x, rng.poisson(np.exp(rate[usual])).astype(float)


def features(table, x, value):
    out, e = {}, (x["response"] - eta(table, x)) / noise_sd(table, x)
    bounded(out, "intercept", 0.2 * x["intercept"])
    bounded(out, "item_mean", 2 * x["item_mean"][..., :1])
    bounded(out, "noise", np.log(x["noise"]))
    item = (x["item_vector"] - x["item_mean"][:, table.item_domain]) / x["item_scale"][:, table.item_domain]
    moments(out, "item", item)
    for d in range(2):
        mine = table.user_domain == d
        moments(out, f"residual {d}", e[:, mine, None])
        rate = x["response"][:, mine] + x["intercept"][:, d, None]
        out[f"surprise {d}"] = np.tanh((value[:, mine] - np.exp(rate)) / np.exp(0.5 * rate)).mean(1)
        out[f"square {d}"] = np.tanh((value[:, mine] - np.exp(rate)) ** 2 / np.exp(rate)).mean(1)
        out[f"residual and count {d}"] = (np.tanh(e[:, mine]) * np.tanh(np.log1p(value[:, mine]))).mean(1)
        out[f"location {d}"] = np.tanh(0.2 * x["intercept"][:, d]) * np.tanh(x["item_mean"][:, d, 0])
    return out


def wide(monkeypatch):
    monkeypatch.setattr(poisson, "LOCATION_SCALE", 1.5)


def sure(monkeypatch):
    twist(monkeypatch, conjugate, "at_cells", _0=lambda precision: 1.5 * precision)


def loose(monkeypatch):
    twist(monkeypatch, counts, "draw_responses", _4=lambda precision: 1.3 * precision)


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ("location", None),
        ("intercept", None),
        ("response", None),
        ("location", wide),
        ("intercept", sure),
        ("response", loose),
    ],
)
def test_blocks_leave_the_joint_law(block, fault, monkeypatch):
    """Exact blocks change no test function on average; 1e-4 of runs would say otherwise."""
    model, table, x, value = world()
    if fault:
        fault(monkeypatch)
    rng, after, n = np.random.default_rng(1), [], len(value)
    assert n > 0.9 * N
    for r in range(n):
        mine = replace(table, user_value=value[r], item_value=value[r][table.item_place])
        state = {site: x[site][r].copy() for site in x}
        update = next(b for b in model.blocks(mine) if b.name == block)
        after.append(state | update.update(state, rng))
    new = {site: np.stack([np.asarray(s[site]) for s in after]) for site in x}
    a, b = features(table, x, value), features(table, new, value)
    change = np.stack([b[f] - a[f] for f in a], 1)
    change = change[:, np.abs(change).max(0) > 1e-9]
    assert calm(change.mean(0) / change.std(0) * np.sqrt(n)) is (fault is None)


# what users see


@pytest.fixture(scope="module")
def fitted():
    train, test = br.split.holdout(interactions(plays()), 0.2, seed=0)
    return br.fit(br.models.TransferMF(rank=1, likelihood=br.Poisson()), train, QUICK, progress=False), test


def test_predictions_by_brute_force(fitted):
    """Moments, quantiles and scores from sums over counts of the law that Pyro has."""
    posterior, test = fitted
    model, latents, rows = posterior.model, posterior.latents(), test.mask(np.arange(len(test)) < 8)
    batch = Batch(*(torch.from_numpy(np.array(x)) for x in (rows.user, rows.item, rows.domain)))
    law = model.likelihood.distribution(model.score(latents, batch).double(), latents, batch)
    y = torch.arange(600.0, dtype=torch.float64)
    p = torch.stack([law.log_prob(k.expand(len(rows))).exp().mean(0) for k in y], 1).numpy()
    answer, grid = posterior.predict(rows, level=0.8), y.numpy()
    np.testing.assert_allclose(p.sum(1), 1.0, atol=1e-4)
    np.testing.assert_allclose(answer["mean"], p @ grid, rtol=5e-3)
    for name, q in (("lower", 0.1), ("upper", 0.9)):
        np.testing.assert_array_equal(answer[name], [np.argmax(row.cumsum() >= q) for row in p])
    np.testing.assert_allclose(
        posterior.log_score(rows), np.log(p[np.arange(len(rows)), rows.value.astype(int)]), atol=1e-4
    )
    for u, i, mean in zip(rows.user, rows.item, answer["mean"], strict=True):
        assert posterior.expected(int(u), np.array([i])).mean() == pytest.approx(mean, rel=1e-4)
    listed = br.recommend(posterior, rows.to_frame()["user"].unique()[:2].tolist(), n=3)
    again = posterior.predict(listed[["user", "item"]])
    np.testing.assert_allclose(listed["score"], again["mean"], rtol=1e-3)


def test_pit_is_uniform_on_data_from_the_model():
    """Counts drawn from the predictive distribution itself; a KS test fails one time in 10,000."""
    rng = np.random.default_rng(2)
    mean, sd = rng.normal(1, 1, (2000, 1)), rng.uniform(0.1, 1, (2000, 1))
    value = rng.poisson(np.exp(mean + sd * rng.standard_normal(mean.shape)))[:, 0].astype(float)
    law = Counts(mean, sd)
    above = law.cdf(value)
    pit = above - rng.random(2000) * (above - law.below(value))
    assert stats.kstest(pit, "uniform").pvalue > 1e-4
    assert stats.kstest(Counts(mean, 0.5 * sd).cdf(value), "uniform").pvalue < 1e-4  # planted


def test_recovers_rates_and_beats_a_gaussian():
    """The Gaussian is counted by the mass it gives to the count's unit interval."""
    train, test = br.split.holdout(interactions(plays(n_users=300)), 0.2, seed=0)
    posterior, other = (
        br.fit(br.models.TransferMF(rank=1, likelihood=likelihood), train, QUICK, progress=False)
        for likelihood in (br.Poisson(user_noise=False), br.Gaussian())
    )
    law = next(iter(other.laws(other.data.encode(test))))[1]
    low = np.where(test.value == 0, -1e9, test.value - 0.5)
    mass = np.log(law.cdf(test.value + 0.5) - law.cdf(low))
    assert posterior.log_score(test).mean() > mass.mean() + 0.05


def test_save_load_fold_in(fitted, tmp_path):
    posterior, test = fitted
    back = br.load(posterior.save(tmp_path / "p"))
    assert back.predict(test).equals(posterior.predict(test))
    many = plays().query("domain == 'source'").head(6)
    users = {name: many.assign(user=555, value=many["value"] * k) for name, k in (("few", 1.0), ("many", 9.0))}
    means = {
        k: posterior.fold_in(f).predict(pd.DataFrame({"user": [555], "item": [0]}))["mean"][0] for k, f in users.items()
    }
    assert means["many"] > means["few"]


def test_threads_change_nothing():
    model, data = br.models.PMF(rank=1, likelihood=br.Poisson()), interactions(plays())
    fits = [br.fit(model, data, br.Gibbs(draws=5, warmup=5, chains=2, threads=n), progress=False) for n in (1, 2)]
    assert all(np.array_equal(fits[0].draws[name], fits[1].draws[name]) for name in fits[0].draws)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:NUTS will take about")  # on a machine that does other things too
def test_gibbs_agrees_with_nuts():
    """Logarithms of expected counts; the fits' Monte Carlo error is about .03."""
    frame = plays().query("user < 12")
    model, data = br.models.PMF(rank=1, likelihood=br.Poisson()), interactions(frame)
    gibbs = br.fit(model, data, br.Gibbs(draws=4000, warmup=500, chains=4), progress=False)
    nuts = br.fit(model, data, br.NUTS(draws=500, warmup=500, chains=2), progress=False)
    cells = data.to_frame().query("domain == 'target'").head(20)
    means = [np.log(posterior.predict(cells)["mean"].to_numpy()) for posterior in (gibbs, nuts)]
    assert np.abs(means[0] - means[1]).max() < 0.15


# bad input


def frame_of(values):
    n = len(values)
    return pd.DataFrame({"user": np.arange(n) % 3, "item": np.arange(n) // 3, "domain": "target", "value": values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0, -3.0] * 4, "domain 'target' has a value -3; Poisson needs counts"),
        ([1.0, 2.0, 2.5] * 4, r"domain 'target' has a value 2\.5; Poisson needs counts"),
        ([0.0] * 12, "all 12 counts of domain 'target' are 0"),
        ([3.0] * 12, "all 12 counts of domain 'target' are 3"),
        ([3.0], r"domain 'target' has 1 count\(s\)"),
    ],
)
def test_data_that_cannot_be(values, message):
    with pytest.raises(DataError, match=message):
        br.fit(br.models.PMF(rank=1, likelihood=br.Poisson()), interactions(frame_of(values)), QUICK, progress=False)


def test_folding_what_is_no_count_names_it(fitted):
    with pytest.raises(DataError, match=r"the value 2\.5 is no count"):
        fitted[0].fold_in(plays().head(2).assign(user=555, value=2.5))


def test_what_is_no_count_has_no_probability(fitted):
    posterior, test = fitted
    rows = test.to_frame().head(3).assign(value=[1.0, 2.5, -1.0])
    assert np.isfinite(posterior.log_score(rows)).tolist() == [True, False, False]
