"""Priors of the discrepancy: densities and updates against sums over all choices and SciPy; what they find in data."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, stats
from test_conjugate import ALARM, by, calm, covariance, twist
from test_geweke import scores, world

import bayesrec as br
from bayesrec import conjugate
from bayesrec.distributions import AroundDiagonal, HuangWand, SpikedHuangWand
from bayesrec.models.discrepancy import COMMENSURATE, IN_SPIKE, SLAB, SPIKE, Discrepancy

SCALE, NARROW, P = torch.tensor([0.5, 1.0, 0.8]), torch.tensor([0.05, 0.02, 0.04]), 0.3
SPIKED = SpikedHuangWand(SCALE, NARROW, P)


def choices(size=3):
    """Every choice of spikes, as masks, and its prior probability."""
    for spiked in product((False, True), repeat=size):
        mask = np.array(spiked)
        yield mask, P ** mask.sum() * (1 - P) ** (~mask).sum()


def test_spike_and_slab_is_the_sum_over_all_choices():
    cov = torch.from_numpy(covariance(np.random.default_rng(0)) * np.outer([0.1, 1, 0.3], [0.1, 1, 0.3]))
    scale, narrow = SCALE.double(), NARROW.double()
    total = [
        HuangWand(torch.where(torch.from_numpy(mask), narrow, scale)).log_prob(cov) + np.log(p) for mask, p in choices()
    ]
    got = SpikedHuangWand(scale, narrow, P).log_prob(cov)
    torch.testing.assert_close(got, torch.logsumexp(torch.stack(total), 0), rtol=1e-12, atol=1e-12)
    wrong = SpikedHuangWand(scale, narrow, 1 - P).log_prob(cov)
    assert abs(float(wrong - got)) > 0.01


def test_draws_of_spike_and_slab_have_sds_from_the_two_half_ts():
    """P(sd < x) is a mixture of two half-t probabilities, at three places of each component."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sd = SPIKED.sample((20_000,)).diagonal(dim1=-2, dim2=-1).sqrt().double().numpy()
    z = []
    for k, (wide, narrow) in enumerate(zip(SCALE.tolist(), NARROW.tolist(), strict=True)):
        for x in (0.5 * narrow, 3 * narrow, wide):
            parts = [2 * stats.t(2).cdf(x / s) - 1 for s in (narrow, wide)]
            want = P * parts[0] + (1 - P) * parts[1]
            z.append(((sd[:, k] < x).mean() - want) / np.sqrt(want * (1 - want) / len(sd)))
    assert calm(z)


def test_probability_of_the_spike_is_bayes_rule():
    prior, cov = Discrepancy("commensurate_spike_slab", 2, 0.7), covariance(np.random.default_rng(1)) * 0.01
    wide, chance = torch.from_numpy(prior.scale), np.zeros(3)
    total = 0.0
    for spiked in product((False, True), repeat=3):
        mask = torch.tensor(spiked)
        density = np.exp(float(HuangWand(torch.where(mask, SPIKE / SLAB * wide, wide)).log_prob(torch.from_numpy(cov))))
        weight = density * IN_SPIKE ** sum(spiked) * (1 - IN_SPIKE) ** (3 - sum(spiked))
        total, chance = total + weight, chance + weight * np.array(spiked)
    np.testing.assert_allclose(prior.in_spike(cov), chance / total, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_a_swapped_spike_is_caught(wrong, monkeypatch):
    real = Discrepancy.in_spike
    if wrong:
        monkeypatch.setattr(Discrepancy, "in_spike", lambda self, cov: 1 - real(self, cov))
    assert calm(scores(world("TransferMF spike"), ["map"])) is not wrong


@pytest.mark.parametrize("fault", [{}, {"_1": by(1.2)}])
def test_horseshoe_scales_given_a_covariance(fault, monkeypatch):
    """Of one component with the common factor held: the conditional density of its scale, by quadrature."""
    prior = Discrepancy("commensurate_horseshoe", 1, 1.0)
    cov, base, rng = np.array([[0.04, 0.01], [0.01, 0.3]]), prior.scale, np.random.default_rng(0)
    twist(monkeypatch, conjugate, "half_t_scale", **fault)
    state = {"user_cov": cov, "discrepancy_global_scale": np.float64(1.0), "discrepancy_local_scale": np.ones(2)}
    drawn = []
    for _ in range(12_000):  # a Gibbs sampler of the local factors alone
        state |= {"discrepancy_local_scale": prior.scales(state, rng)["discrepancy_local_scale"]}
        drawn.append(state["discrepancy_local_scale"])
    precision = np.diag(np.linalg.inv(cov))
    drawn, z = np.array(drawn)[200:], []
    for k in range(2):

        def density(log_s, k=k):
            s = np.exp(log_s)
            return (
                (2 * precision[k] + (s * base[k]) ** -2.0) ** -2.0 / base[k] / (1 + s**2)
            )  # s cancels: the log's Jacobian

        grid = np.linspace(-12, 12, 20_001)
        weight = density(grid)
        mean = integrate.trapezoid(np.tanh(grid) * weight, grid) / integrate.trapezoid(weight, grid)
        batches = np.tanh(np.log(drawn[:, k])).reshape(40, -1).mean(1)  # dependent draws: means of batches
        z.append((batches.mean() - mean) / batches.std(ddof=1) * np.sqrt(40))
    limit = stats.t(39).isf(ALARM / 4)
    assert (np.abs(z).max() < limit) is not bool(fault)


def test_inverse_wishart_density_and_draws():
    """Against SciPy; at 2 degrees of freedom, with half-normal scales, it is the prior of Huang and Wand."""
    scale, dof = torch.tensor([0.5, 1.2, 0.8], dtype=torch.float64), torch.tensor(7.0, dtype=torch.float64)
    cov = covariance(np.random.default_rng(0))
    want = stats.invwishart(df=9, scale=7 * np.diag(scale.numpy() ** 2))
    around = AroundDiagonal(scale, dof)
    np.testing.assert_allclose(around.log_prob(torch.from_numpy(cov)), want.logpdf(cov), rtol=1e-10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        try:
            draws = around.sample((20_000,)).numpy()
            half = torch.distributions.HalfNormal(scale).sample((20_000,))
            mixed = AroundDiagonal(half, torch.full((20_000,), 2.0)).sample().numpy()
        finally:
            torch.set_default_dtype(torch.float32)
    precision = np.linalg.inv(draws)[:, *np.tril_indices(3)]
    mean = (9 * np.linalg.inv(7 * np.diag(scale.numpy() ** 2)))[np.tril_indices(3)]  # of a Wishart
    assert calm((precision.mean(0) - mean) / precision.std(0) * np.sqrt(len(draws)))
    for k, s in enumerate(scale.tolist()):
        sd = np.sqrt(mixed[:, k, k])
        assert stats.kstest(sd / s, lambda x: 2 * stats.t(2).cdf(x) - 1).pvalue > ALARM


@pytest.mark.parametrize("family", COMMENSURATE)
def test_every_discrepancy_has_its_sites_in_prior_and_sampler(family):
    model = br.models.TransferMF(rank=2, prior_family=family)
    frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    sampled = br.sample_prior(model, data, draws=2)["prior"]
    posterior = br.fit(model, data, br.Gibbs(draws=4, warmup=4, chains=2), progress=False)
    assert set(sampled.data_vars) == set(posterior.draws) == set(model.dims)
    assert ("pooled_bias" in model.identified(posterior.latents())) is (family == "commensurate_spike_slab")


@pytest.mark.parametrize("same", [True, False])
def test_spike_and_slab_says_whether_a_bias_is_pooled(same):
    """Users whose bias is the same in both domains, or independent: a spike is possible, or out of the question.

    Over six seeds of data and chain the mean was .10 to .79 (chains cross slowly) and at most .0013.
    """
    rng, rows = np.random.default_rng(0), []
    bias = 0.8 * rng.standard_normal(150)
    for domain, b in (("source", bias), ("target", bias if same else 0.8 * rng.standard_normal(150))):
        for u in range(150):
            rows += [(u, i, domain, b[u] + 0.1 * i + 0.4 * rng.standard_normal()) for i in rng.choice(15, 8, False)]
    data = br.Interactions.from_frame(
        pd.DataFrame(rows, columns=["user", "item", "domain", "value"]), target="target", value="value"
    )
    model = br.models.TransferMF(rank=1, prior_family="commensurate_spike_slab", gate=False)
    posterior = br.fit(model, data, br.Gibbs(draws=100, warmup=100, chains=1), progress=False)
    pooled = float(model.identified(posterior.latents())["pooled_bias"].mean())
    assert (pooled > 0.02) if same else (pooled < 0.01)
