"""Simulation-based calibration: exact samplers pass, planted faults are seen, the band covers what it declares."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from scipy import stats
from test_conjugate import ALARM, by, twist

import bayesrec as br
from bayesrec import conjugate
from bayesrec.errors import DataError, SamplingError
from bayesrec.inference import Method
from bayesrec.posterior import Posterior
from bayesrec.testing import Ranks, ecdf_band, sbc_ranks, uniform
from bayesrec.testing.sbc import rank_among

L = 19
PMF, TRANSFER = br.models.PMF(rank=2), br.models.TransferMF(rank=2)
SHORT = br.Gibbs(draws=L, warmup=5, chains=1, threads=1)


@pytest.fixture(scope="module")
def design():
    frame, _ = br.data.synthetic.cross_domain(n_users=10, n_items=(8, 8), n_ratings=(6, 6), rank=1, n_cold=1)
    return br.Interactions.from_frame(frame, target="target", value="value")


def normal_mean(n, factor=1.0, seed=0):
    """Ranks among 99 draws of a mean with prior N(0, 1) given five observations; the precision is 6 times ``factor``."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(n)
    centre = (truth[:, None] + rng.standard_normal((n, 5))).sum(1) / 6
    draws = centre[:, None] + rng.standard_normal((n, 99)) / np.sqrt(6 * factor)
    return np.array([rank_among(t, d, rng) for t, d in zip(truth, draws, strict=True)])


def test_exact_draws_are_uniform_and_a_factor_two_in_the_precision_is_seen():
    """False alarms: 1e-4. Of 200 simulated tests with either fault, 500 replications each, none was passed."""
    assert uniform(normal_mean(500), 99, ALARM)
    assert not uniform(normal_mean(500, 2.0), 99, ALARM)
    assert not uniform(normal_mean(500, 0.5), 99, ALARM)


@pytest.mark.parametrize(("n", "n_draws", "probability"), [(60, 19, 0.9), (500, 99, 0.95)])
def test_band_covers_the_whole_ecdf_as_often_as_declared(n, n_draws, probability):
    size, share = 10_000, np.arange(1, n_draws + 2) / (n_draws + 1)
    counts = np.random.default_rng(0).multinomial(n, np.full(n_draws + 1, 1 / (n_draws + 1)), size=size).cumsum(1)

    def covered(lower, upper):
        return int(((counts / n >= lower - 1e-12) & (counts / n <= upper + 1e-12)).all(1).sum())

    found = covered(*ecdf_band(n, n_draws, probability))
    low = stats.binom.ppf(ALARM / 2, size, probability)
    high = stats.binom.isf(ALARM / 2, size, probability + 0.01)  # counts are whole numbers: a little more than declared
    assert low <= found <= high
    tail = (1 - probability) / 2
    pointwise = [stats.binom.ppf(q, n, share) / n for q in (tail, 1 - tail)]
    assert covered(*pointwise) < low  # planted: each point on its own


def test_uniform_and_the_band_agree():
    rng = np.random.default_rng(0)
    for power in np.linspace(0.6, 1.6, 60):
        ranks = np.floor(20 * rng.random(100) ** power).astype(int)
        ecdf = np.bincount(ranks, minlength=20).cumsum() / 100
        lower, upper = ecdf_band(100, L, 0.95)
        inside = bool(((ecdf >= lower - 1e-12) & (ecdf <= upper + 1e-12)).all())
        assert uniform(ranks, L, 0.05) == inside


def test_ties_are_broken_at_random():
    rng = np.random.default_rng(0)
    draws = np.array([0.0] * 5 + [1.0] * 9 + [2.0] * 5)
    ranks = np.array([rank_among(1.0, draws, rng) for _ in range(5000)])
    assert ranks.min() == 5
    assert ranks.max() == 14
    assert stats.chisquare(np.bincount(ranks - 5)).pvalue > ALARM
    constant = np.array([rank_among(1.0, np.ones(L), rng) for _ in range(500)])
    assert uniform(constant, L, ALARM)
    assert not uniform(np.zeros(500), L, ALARM)  # planted: a tie always counts as below


def test_ranks_outside_their_range_are_refused():
    with pytest.raises(DataError, match="from 0 to 19"):
        uniform(np.array([0, 20]), L)


class FromPrior(Method):
    """Draws from the prior, whatever the ratings are; fails where their sum is above ``most``."""

    def __init__(self, most=np.inf):
        self.most = most

    def run(self, model, data, schema, seed, progress, checkpoint=None):
        assert (schema.center == 0).all()  # ratings stay in the units of the prior
        assert (schema.scale == 1).all()
        if data.value.sum() > self.most:
            raise SamplingError("too high for me")
        with torch.random.fork_rng(devices=[]), pyro.poutine.block(), pyro.plate("draw", L, dim=-1):
            torch.manual_seed(seed)
            latents = model.prior(schema)
        draws = {name: latents[name].numpy()[None] for name in model.dims}
        return Posterior(draws, model, self, data, schema)


@pytest.fixture(scope="module")
def from_prior(design):
    return sbc_ranks(TRANSFER, design, FromPrior(), 100, L=L)


def test_only_quantities_of_the_data_see_that_draws_ignore_the_ratings(from_prior):
    table = from_prior.table(ALARM)
    of_data = {"log_likelihood", "source_weight", "relevance"}
    assert of_data < set(table.index)
    assert table.drop(of_data)["uniform"].all()
    assert not table.loc["log_likelihood", "uniform"]


def test_a_replication_depends_on_the_seed_and_its_number_alone(design, from_prior):
    parts = [sbc_ranks(TRANSFER, design, FromPrior(), [k], L=L) for k in (3, 1)]
    joined = Ranks.joined(parts)
    assert joined.ranks.equals(from_prior.ranks.loc[[3, 1]])
    assert joined.ess.shape == joined.ranks.shape
    other = sbc_ranks(TRANSFER, design, FromPrior(), [3], L=L, seed=1)
    assert not other.ranks.equals(parts[0].ranks)


def test_failures_are_kept(design):
    found = sbc_ranks(PMF, design, FromPrior(most=0.0), 12, L=L)
    assert sorted([*found.ranks.index, *found.failures]) == list(range(12))
    assert 0 < len(found.failures) < 12
    assert set(found.failures.values()) == {"SamplingError: too high for me"}


def test_too_few_draws_are_no_failure_but_a_mistake(design):
    with pytest.raises(DataError, match="L=20"):
        sbc_ranks(PMF, design, SHORT, 1, L=20)


def test_quantities_of_ones_own(design):
    found = sbc_ranks(PMF, design, SHORT, 2, L=L, quantities=lambda model, state, table: {"one": 1.0})
    assert found.ranks.columns.tolist() == ["one"]
    assert found.ranks["one"].between(0, L).all()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("fault", "n"), [({}, 60), ({"_3": by(2.0)}, 20)], ids=["exact", "precision doubled"])
def test_gibbs_on_tiny_data(design, fault, n, monkeypatch):
    """Planted: every noise precision doubled in the updates of users and items.

    False alarms: 1e-4, a little more for draws that are not quite independent. Power: with the fault the noise was above
    all draws in 60 of 60 replications, and already 12 such ranks are called not uniform.
    """
    twist(monkeypatch, conjugate, "draw_rows", **fault)
    method = br.Gibbs(draws=L, warmup=100, chains=1, thin=20 if fault else 60, threads=1)
    assert sbc_ranks(PMF, design, method, n, L=L).table(ALARM)["uniform"].all() == (not fault)
