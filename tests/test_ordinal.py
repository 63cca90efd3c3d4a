"""Ordinal and Bernoulli: numerics against scipy, blocks against the joint law (Geweke 2004), predictions by brute force."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from test_conjugate import calm, twist
from test_geweke import MODELS, bounded, design, eta, moments

import bayesrec as br
from bayesrec import cuts
from bayesrec.distributions import Graded, OrderedNormal
from bayesrec.errors import DataError, DataWarning
from bayesrec.likelihoods import ordinal
from bayesrec.likelihoods.predicted import Levels
from bayesrec.models.base import Batch, Schema

N = 2000
QUICK = br.Gibbs(draws=30, warmup=30, chains=2)


def ratings(seed=0, levels=4, **more):
    frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(15, 15), n_ratings=(8, 6), rank=1, seed=seed, **more)
    edges = np.quantile(frame["value"], np.linspace(0, 1, levels + 1)[1:-1])
    return frame.assign(value=1.0 + np.searchsorted(edges, frame["value"]))


def interactions(frame, **more):
    return br.Interactions.from_frame(frame, target="target", value="value", **more)


# numerics


def test_normal_quantile():
    p = np.concatenate([10.0 ** -np.arange(1.0, 300.0, 7.0), np.linspace(0.001, 0.5, 100)])
    got = np.array([cuts.normal_quantile(x) for x in p])
    np.testing.assert_allclose(got, stats.norm.ppf(p), rtol=1e-13)


@pytest.mark.parametrize(
    ("low", "high"), [(-np.inf, -3.0), (-1.0, 0.5), (2.0, np.inf), (7.0, 7.5), (-39.0, -38.5), (45.0, np.inf)]
)
def test_responses_are_truncated_normals(low, high):
    """By chance a KS test fails one time in 10,000."""
    n, cut = 4000, np.array([[-np.inf, low, high, np.inf]])
    out, code, cell = np.empty(n), np.ones(n), np.zeros(n, np.int32)
    cuts.draw_responses(code, cell, 1, np.full(n, 0.5), np.array([4.0]), 0.5 + cut / 2, np.uint64(3), out, 0, n)
    z = 2 * (out - 0.5)
    assert ((z >= low - 1e-12) & (z <= high + 1e-12)).all()
    if min(abs(low), abs(high)) < 30:
        uniform = stats.truncnorm(low, high).cdf(z)
        assert stats.kstest(uniform, "uniform").pvalue > 1e-4
        assert stats.kstest(stats.truncnorm(low - 0.3, high).cdf(z), "uniform").pvalue < 1e-4 or high == -3.0
    else:  # so far out the law is an exponential, whose mean is 1 / bound
        gap = (z - low) if low > 0 else (high - z)
        assert gap.mean() == pytest.approx(1.0 / min(abs(low), abs(high)), rel=0.1)


def evidence(code, cell, n_users, at, precision, cut):
    out = np.zeros((len(cut), 1 + 3 * cut.shape[1]))
    cuts.evidence(code, cell, n_users, at, precision, cut, out, 0, len(code))
    return out[:, 0], out[:, 1:].reshape(len(cut), 3, -1)


def some_ratings(seed=0, n=60, n_users=5, levels=4):
    rng = np.random.default_rng(seed)
    code, cell = rng.integers(0, levels, n).astype(float), rng.integers(0, 2 * n_users, n).astype(np.int32)
    cut = np.sort(rng.standard_normal((2, levels - 1)), 1)
    cut = np.pad(cut, ((0, 0), (1, 1)), constant_values=((0, 0), (-np.inf, np.inf)))
    return code, cell, n_users, 0.7 * rng.standard_normal(n), rng.gamma(3.0, 0.4, 2 * n_users), cut


def test_evidence_and_its_derivatives():
    code, cell, n_users, at, w, cut = given = some_ratings()
    root, d, k = np.sqrt(w[cell]), cell // n_users, code.astype(int)
    log = np.log(stats.norm.cdf((cut[d, k + 1] - at) * root) - stats.norm.cdf((cut[d, k] - at) * root))
    value, (gradient, second, cross) = evidence(*given)[0], evidence(*given)[1].swapaxes(0, 1)
    np.testing.assert_allclose(value, np.bincount(d, log, 2), rtol=1e-12)

    def moved(*changes):
        other = cut.copy()
        for j, h in changes:
            other[:, j] += h
        return evidence(code, cell, n_users, at, w, other)

    h = 1e-5
    for j in range(1, cut.shape[1] - 1):
        up, down = moved((j, h)), moved((j, -h))
        np.testing.assert_allclose((up[0] - down[0]) / (2 * h), gradient[:, j], rtol=1e-5, atol=1e-6)
        slope = (up[1][:, 0] - down[1][:, 0]) / (2 * h)
        np.testing.assert_allclose(-slope[:, j], second[:, j], rtol=1e-5, atol=1e-6)
        if j > 1:
            np.testing.assert_allclose(-slope[:, j - 1], cross[:, j], rtol=1e-5, atol=1e-6)


def test_observed_information():
    """Score and curvature of each rating's log probability at eta, by differences."""
    code, cell, n_users, at, w, cut = some_ratings(1)
    value, weight = np.empty((2, len(code)))
    cuts.informed(code, cell, n_users, at, w, cut, value, weight, 0, len(code))
    root, d, k = np.sqrt(w[cell]), cell // n_users, code.astype(int)

    def log(x):
        return np.log(stats.norm.cdf((cut[d, k + 1] - x) * root) - stats.norm.cdf((cut[d, k] - x) * root))

    h = 1e-4
    np.testing.assert_allclose(weight * (value - at), (log(at + h) - log(at - h)) / (2 * h), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(weight, -(log(at + h) - 2 * log(at) + log(at - h)) / h**2, rtol=1e-4, atol=1e-5)


def test_graded():
    bounds = torch.tensor([[-1.0, 0.2, 1.5], [-30.0, -29.0, 25.0]], dtype=torch.float64)
    law = Graded(bounds)
    want = stats.norm.cdf([-1.0, 0.2, 1.5, np.inf]) - stats.norm.cdf([-np.inf, -1.0, 0.2, 1.5])
    got = np.stack([law.log_prob(torch.tensor([k, k])).numpy() for k in range(4)])
    np.testing.assert_allclose(got[:, 0], np.log(want), rtol=1e-12)
    np.testing.assert_allclose(got[1, 1], stats.norm.logcdf(-29.0), rtol=1e-6)  # where a difference of cdfs is zero
    assert law.mean[0].item() == pytest.approx(want @ range(4))
    assert law.variance[0].item() == pytest.approx(want @ np.arange(4) ** 2 - (want @ range(4)) ** 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        count = np.bincount(law.sample((5000,))[:, 0].int().numpy(), minlength=4)
    assert stats.chisquare(count, 5000 * want).pvalue > 1e-4


def test_ordered_normal():
    """The density of sorted normals: of two, by integration over the upper triangle."""
    law = OrderedNormal(torch.tensor([1.5, 1.5], dtype=torch.float64))
    grid = torch.linspace(-9, 9, 301, dtype=torch.float64)
    a, b = torch.meshgrid(grid, grid, indexing="ij")
    density = law.log_prob(torch.stack([a, b], -1)).exp()
    cell = (grid[1] - grid[0]) ** 2
    assert (density * (a < b)).sum() * cell + 0.5 * density.diagonal().sum() * cell == pytest.approx(1.0, abs=1e-4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        x = law.sample((4000,))
    assert (x[:, 0] < x[:, 1]).all()
    assert stats.kstest(x[:, 1].numpy(), lambda v: stats.norm.cdf(v / 1.5) ** 2).pvalue > 1e-4


# blocks


@lru_cache(maxsize=1)
def world():
    """Latents, responses and ratings from their joint law."""
    model = replace(MODELS["CollectiveMF"][0], likelihood=br.Ordinal())
    table, rng = design(2), np.random.default_rng(0)
    domains = torch.from_numpy(table.item_domain)
    levels = (np.arange(4.0),) * 2
    schema = Schema(12, table.n_items, ("a", "b"), domains, np.zeros(2), np.ones(2), None, levels)
    with torch.random.fork_rng(devices=[]), pyro.poutine.block(), pyro.plate("replication", N, dim=-1):
        torch.manual_seed(0)
        x = {site: value.double().numpy() for site, value in model.prior(schema).items()}
    sd = np.exp(-1.5 * np.tanh(x["user_log_precision"][:, table.user_domain, table.user_of] / 3))
    x["response"] = eta(table, x) + sd * rng.standard_normal(sd.shape)
    code = (x["response"][..., None] > x["cut"][:, table.user_domain]).sum(-1).astype(float)
    return model, table, x, code, sd


def features(table, x, code, sd):
    out, e = {}, (x["response"] - eta(table, x)) / sd
    bounded(out, "cut", x["cut"])
    bounded(out, "gap", np.log(np.diff(x["cut"])))
    bounded(out, "item_mean", 2 * x["item_mean"][..., :1])
    item = (x["item_vector"] - x["item_mean"][:, table.item_domain]) / x["item_scale"][:, table.item_domain]
    moments(out, "item", item)
    for d in range(2):
        mine = table.user_domain == d
        moments(out, f"residual {d}", e[:, mine, None])
        out[f"levels {d}"] = (np.tanh(x["cut"][:, d, :1]) * code[:, mine]).mean(1)
        out[f"residual and level {d}"] = (np.tanh(e) * code)[:, mine].mean(1)
        out[f"location {d}"] = np.tanh(x["cut"][:, d].mean(1) - x["item_mean"][:, d, 0])
    return out


def unaccepted(monkeypatch):
    """Newton proposals taken as they come."""
    monkeypatch.setattr(ordinal, "_log_normal", lambda *_: 0.0)


def wide(monkeypatch):
    monkeypatch.setattr(ordinal, "LOCATION_SCALE", 1.5)


def loose(monkeypatch):
    twist(monkeypatch, cuts, "draw_responses", _4=lambda precision: 1.2 * precision)


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ("cut", None),
        ("location", None),
        ("response", None),
        ("cut", unaccepted),
        ("location", wide),
        ("response", loose),
    ],
)
def test_blocks_leave_the_joint_law(block, fault, monkeypatch):
    """Exact blocks change no test function on average; 1e-4 of runs would say otherwise."""
    model, table, x, code, sd = world()
    if fault:
        fault(monkeypatch)
    rng, after = np.random.default_rng(1), []
    sites = [*x]
    for r in range(N):
        mine = replace(table, user_value=code[r], item_value=code[r][table.item_place])
        state = {site: x[site][r].copy() for site in sites}
        update = next(b for b in model.blocks(mine) if b.name == block)
        after.append(state | update.update(state, rng))
    new = {site: np.stack([np.asarray(s[site]) for s in after]) for site in sites}
    a, b = features(table, x, code, sd), features(table, new, code, sd)
    change = np.stack([b[f] - a[f] for f in a], 1)
    change = change[:, np.abs(change).max(0) > 1e-9]
    assert calm(change.mean(0) / change.std(0) * np.sqrt(N)) is (fault is None)


def test_sweeps_have_the_responses_with_the_cut_points_and_fold_in_has_them_alone():
    model, table, *_ = world()
    blocks = model.blocks(table)
    assert [b.name for b in blocks if not b.swept] == ["response"]
    assert next(b for b in blocks if b.name == "response").local


# what users see


@pytest.fixture(scope="module")
def fitted():
    train, test = br.split.holdout(interactions(ratings()), 0.2, seed=0)
    model = br.models.TransferMF(rank=1, likelihood=br.Ordinal())
    return br.fit(model, train, QUICK, progress=False), test


def test_predictions_by_brute_force(fitted):
    """Probabilities, moments, quantiles and scores from a loop over draws and levels."""
    posterior, test = fitted
    model, latents, rows = posterior.model, posterior.latents(), test.mask(np.arange(len(test)) < 12)
    batch = Batch(*(torch.from_numpy(np.array(x)) for x in (rows.user, rows.item, rows.domain)))
    law = model.likelihood.distribution(model.score(latents, batch).double(), latents, batch)
    share = law.probs.mean(0).numpy()
    proba = posterior.predict_proba(rows)
    assert [c for c in proba if c.startswith("p_")] == ["p_1", "p_2", "p_3", "p_4"]
    np.testing.assert_allclose(proba.filter(like="p_").to_numpy(), share, atol=1e-6)
    answer = posterior.predict(rows, level=0.8)
    levels = np.arange(1.0, 5.0)
    np.testing.assert_allclose(answer["mean"], share @ levels, atol=1e-5)
    np.testing.assert_allclose(answer["sd"], np.sqrt(share @ levels**2 - (share @ levels) ** 2), atol=1e-5)
    for name, p in (("lower", 0.1), ("upper", 0.9)):
        want = [levels[np.argmax(row.cumsum() >= p)] for row in share]
        np.testing.assert_array_equal(answer[name], want)
    hit = share[np.arange(len(rows)), rows.value.astype(int) - 1]
    np.testing.assert_allclose(posterior.log_score(rows), np.log(hit), atol=1e-5)
    for u, i, mean in zip(rows.user, rows.item, answer["mean"], strict=True):
        assert posterior.expected(int(u), np.array([i])).mean() == pytest.approx(mean, abs=1e-5)


def test_a_value_between_levels_has_no_probability(fitted):
    posterior, test = fitted
    rows = test.to_frame().head(3).assign(value=[1.0, 2.5, 9.0])
    assert np.isfinite(posterior.log_score(rows)).tolist() == [True, False, False]


def test_joint_score_of_an_unknown_user(fitted):
    """Against users simulated from the population, 400 in each draw."""
    posterior, _ = fitted
    rows = ratings().query("domain == 'target'").head(4).assign(user=777)
    _, _, joint = posterior.scores(rows)
    model, latents = posterior.model, posterior.latents()
    batch = posterior.data.encode(rows, need_value=True)
    pop, rng, parts = model.population(latents, posterior.schema), np.random.default_rng(5), []
    for s in range(len(pop.user_cov)):
        root = np.linalg.cholesky(pop.user_cov[s, -1].double().numpy())
        vector = pop.user["user_vector"][s].numpy() + rng.standard_normal((400, 2)) @ root.T
        item = latents["item_vector"][s, torch.from_numpy(np.array(batch.item))].numpy()
        at = vector[:, :1] + item[:, 0] + vector[:, 1:] @ item[:, 1:].T
        x = float(pop.user["user_log_precision"][s, -1])
        bounds = (latents["cut"][s, -1].numpy() - at[..., None]) * np.exp(1.5 * np.tanh(x / 3))
        share = np.diff(stats.norm.cdf(bounds), prepend=0.0, append=1.0)
        parts.append(np.log(share[:, np.arange(4), np.asarray(batch.value).astype(int) - 1]).sum(1))
    want = logsumexp(np.concatenate(parts)) - np.log(400 * len(parts))
    assert joint[0] == pytest.approx(want, abs=0.1)


def test_save_load_fold_in_and_proba_sum_to_one(fitted, tmp_path):
    posterior, test = fitted
    back = br.load(posterior.save(tmp_path / "p"))
    assert back.predict_proba(test).equals(posterior.predict_proba(test))
    folded = posterior.fold_in(ratings().query("domain == 'source'").head(6).assign(user=555))
    proba = folded.predict_proba(pd.DataFrame({"user": [555, 999], "item": [0, 1]}))
    np.testing.assert_allclose(proba.filter(like="p_").sum(axis=1), 1.0, atol=1e-9)
    assert posterior.to_datatree(log_likelihood=False)["posterior"]["cut"].dims[-1] == "threshold"


def test_folding_a_rating_off_the_scale_names_it(fitted):
    with pytest.raises(DataError, match=r"the rating 2\.5 is none of the levels 1, 2, 3, 4"):
        fitted[0].fold_in(ratings().head(2).assign(user=555, value=2.5))


def test_threads_and_resuming_change_nothing(tmp_path):
    model, data = br.models.CollectiveMF(rank=1, likelihood=br.Ordinal()), interactions(ratings())
    fits = [br.fit(model, data, replace(QUICK, threads=n), progress=False) for n in (1, 2)]
    assert all(np.array_equal(fits[0].draws[name], fits[1].draws[name]) for name in fits[0].draws)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:NUTS will take about")  # on a busy machine
def test_gibbs_agrees_with_nuts():
    """Probabilities of levels; the fits' Monte Carlo error is about .01."""
    frame = ratings().query("user < 12")
    model, data = br.models.PMF(rank=1, likelihood=br.Ordinal(user_noise=False)), interactions(frame)
    gibbs = br.fit(model, data, br.Gibbs(draws=4000, warmup=500, chains=4), progress=False)
    nuts = br.fit(model, data, br.NUTS(draws=500, warmup=500, chains=2), progress=False)
    cells = data.to_frame().query("domain == 'target'").head(20)
    tables = []
    for posterior in (gibbs, nuts):
        tables.append(posterior.predict_proba(cells).filter(like="p_").to_numpy())
    assert np.abs(tables[0] - tables[1]).max() < 0.04


def test_recovers_cut_points_and_beats_a_gaussian_on_uneven_levels():
    """Levels at quantiles of a skewed scale: an ordinal likelihood scores higher than a Gaussian, counted by its mass."""
    frame = ratings(seed=3, levels=5)
    frame["value"] = frame["value"].map({1: 1, 2: 2, 3: 3, 4: 4, 5: 10})
    train, test = br.split.holdout(interactions(frame), 0.3, seed=1)
    scores = []
    for likelihood in (br.Ordinal(), br.Gaussian()):
        posterior = br.fit(br.models.PMF(rank=1, likelihood=likelihood), train, QUICK, progress=False)
        if isinstance(likelihood, br.Gaussian):
            mass = []
            for low, high in ((-1e9, 1.5), (1.5, 2.5), (2.5, 3.5), (3.5, 7.0), (7.0, 1e9)):
                law = next(iter(posterior.laws(posterior.data.encode(test))))[1]
                mass.append(law.cdf(np.full(len(test), high)) - law.cdf(np.full(len(test), low)))
            k = np.searchsorted([1, 2, 3, 4, 10], test.value)
            scores.append(np.log(np.array(mass)[k, np.arange(len(test))]).mean())
        else:
            scores.append(posterior.log_score(test).mean())
    assert scores[0] > scores[1] + 0.02


def test_bernoulli():
    frame = ratings(levels=2).assign(value=lambda f: f["value"] - 1.0)
    posterior = br.fit(br.models.PMF(rank=1, likelihood=br.Bernoulli()), interactions(frame), QUICK, progress=False)
    rows = frame.query("domain == 'target'").head(5)
    answer, p = posterior.predict(rows), posterior.predict_proba(rows)["p_1"]
    np.testing.assert_allclose(answer["mean"], p, atol=1e-12)
    np.testing.assert_allclose(answer["sd"], np.sqrt(p * (1 - p)), atol=1e-12)
    assert set(posterior.model.dims) == {*br.models.PMF(rank=1).latent_dims, "cut"}


def test_levels_by_hand():
    law = Levels(np.array([[[0.2, 0.3, 0.5], [0.4, 0.4, 0.2]]]), np.array([[1.0, 2.0, 4.0]]))
    mean, sd = law.moments()
    assert mean[0] == pytest.approx(0.3 * 1 + 0.35 * 2 + 0.35 * 4)
    assert sd[0] == pytest.approx(np.sqrt(0.3 + 0.35 * 4 + 0.35 * 16 - mean[0] ** 2))
    assert law.cdf(np.array([2.0]))[0] == pytest.approx(0.65)
    assert law.below(np.array([2.0]))[0] == pytest.approx(0.3)
    np.testing.assert_array_equal(law.quantiles((0.3, 0.31, 0.999)), [[1.0, 2.0, 4.0]])


# bad input


def frame_of(values):
    n = len(values)
    return pd.DataFrame({"user": np.arange(n) % 3, "item": np.arange(n) // 3, "domain": "target", "value": values})


@pytest.mark.parametrize(
    ("likelihood", "values", "message"),
    [
        (
            br.Ordinal(levels=(1, 2, 3)),
            [1, 2, 3, 7.0] * 3,
            "domain 'target' has a rating 7, which is none of the levels 1, 2, 3",
        ),
        (br.Ordinal(), [3.0] * 12, "all 12 ratings of domain 'target' are 3"),
        (br.Ordinal(), np.arange(120.0), "120 different values, more than 100 levels"),
        (br.Bernoulli(), [1.0] * 12, "all 12 values .* are 1: .* need Implicit"),
        (br.Bernoulli(), [0.0, 1.0, 2.0] * 4, "a rating 2, which is none of the levels 0, 1"),
    ],
)
def test_data_that_cannot_be(likelihood, values, message):
    with pytest.raises(DataError, match=message):
        br.fit(br.models.PMF(rank=1, likelihood=likelihood), interactions(frame_of(values)), QUICK, progress=False)


def test_an_unused_level_is_named():
    with pytest.warns(DataWarning, match="no rating of domain 'target' has the level 4"):
        br.fit(
            br.models.PMF(rank=1, likelihood=br.Ordinal(levels=(1, 2, 3, 4, 5))),
            interactions(frame_of([1.0, 2, 3, 5] * 6)), QUICK, progress=False,
        )  # fmt: skip


def test_domains_with_different_scales_are_told_apart():
    frame = ratings()
    frame.loc[frame.domain == "source", "value"] = 2 * frame["value"].clip(upper=3) - 0.5
    with pytest.raises(DataError, match=r"different numbers of levels \(3, 4, the target last\).*of its own"):
        br.fit(br.models.CollectiveMF(rank=1, likelihood=br.Ordinal()), interactions(frame), QUICK, progress=False)


def test_a_domain_that_lacks_a_level_shares_the_other_ones_scale():
    """Nobody gave the source's highest level: its last cut point has the prior alone, and the target keeps four levels."""
    frame = ratings()
    frame.loc[frame.domain == "source", "value"] = frame["value"].clip(upper=3)
    model = br.models.CollectiveMF(rank=1, likelihood=br.Ordinal())
    posterior = br.fit(model, interactions(frame), QUICK, progress=False)
    assert [one.levels.tolist() for one in posterior.schema.units] == [[1, 2, 3, 4]] * 2
    assert (np.diff(posterior.draws["cut"]) > 0).all()
    proba = posterior.predict_proba(frame.head(3))
    assert (proba["p_4"] < 0.1).all()


def test_a_verdict_on_a_level_that_training_lacks_names_the_row():
    frame = ratings()
    train, test = br.split.holdout(interactions(frame), 0.2, seed=0)
    low = train.mask(train.value < 4)
    arms = [br.fit(br.models.PMF(rank=1, likelihood=br.Ordinal()), low, QUICK, seed=s, progress=False) for s in (0, 1)]
    first = int(np.argmax(test.value == 4))
    with pytest.raises(
        DataError, match=rf"no probability under Ordinal.*in row {first}, is 4, and no rating in training"
    ):
        br.negative_transfer(*arms, test)
    arms = [
        br.fit(replace(arm.model, likelihood=br.Ordinal(levels=(1, 2, 3, 4))), train, QUICK, progress=False)
        for arm in arms
    ]
    assert np.isfinite(br.negative_transfer(*arms, test).delta)


@pytest.mark.parametrize("levels", [(1,), (2, 1), (1, 1), "abc", 5])
def test_levels_must_ascend(levels):
    with pytest.raises(DataError, match="levels must be"):
        br.Ordinal(levels=levels)


def test_proba_needs_levels():
    data = interactions(ratings())
    posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=2, warmup=1, chains=1), progress=False)
    with pytest.raises(DataError, match="predict_proba needs ratings on levels"):
        posterior.predict_proba(data.mask(data.is_target))
