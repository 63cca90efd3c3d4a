"""Prior predictive checks: before any rating is seen, scores spread by about one rating sd, at any rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bayesrec as br
from bayesrec.models.base import Batch, Schema

MODELS = [br.models.PMF, br.models.CollectiveMF, br.models.TransferMF]


def spread(model, data, draws=150):
    view = model.view(data)
    schema, rows = Schema.of(view), view.mask(view.is_target)
    batch = Batch(*(torch.from_numpy(np.array(x)) for x in (rows.user, rows.item, rows.domain)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return np.array([model.score(model.prior(schema), batch).std().item() for _ in range(draws)])


@pytest.fixture(scope="module")
def data():
    frame, _ = br.data.synthetic.cross_domain(n_users=60)
    return br.Interactions.from_frame(frame, target="target", value="value")


@pytest.mark.parametrize("rank", [2, 8, 24])
@pytest.mark.parametrize("model", MODELS)
def test_score_spreads_by_about_one_rating_sd(model, rank, data):
    low, middle, high = np.quantile(spread(model(rank=rank), data), [0.05, 0.5, 0.75])
    assert low > 0.2
    assert 0.5 < middle < 1.8
    assert high < 2.5


def test_wide_hyperprior_is_caught(data, monkeypatch):
    from bayesrec.models import priors

    monkeypatch.setattr(priors, "item_scale", lambda rank: np.full(rank + 1, 2.0))
    assert np.median(spread(br.models.PMF(rank=8), data, draws=60)) > 1.8


def test_sample_prior_is_labelled_and_leaves_the_global_generator_alone(data):
    before = torch.random.get_rng_state()
    tree = br.sample_prior(br.models.TransferMF(rank=2), data, draws=4)
    assert torch.equal(before, torch.random.get_rng_state())
    assert set(tree.children) == {"prior", "prior_predictive", "observed_data"}
    assert tree["prior"]["user_vector"].dims == ("chain", "draw", "user", "latent_component")
    again = br.sample_prior(br.models.TransferMF(rank=2), data, draws=4)
    np.testing.assert_array_equal(tree["prior"]["map"], again["prior"]["map"])


@pytest.mark.parametrize("draws", [0, -1, 1.5, True, None])
def test_draws_must_be_positive(data, draws):
    with pytest.raises(br.errors.DataError, match=r"draws must be at least 1, not .*; give a whole number"):
        br.sample_prior(br.models.PMF(), data, draws=draws)


@pytest.mark.parametrize("seed", [-1, 1.5, True, None, 2**70, "1"])
def test_seeds_are_checked(data, seed):
    with pytest.raises(br.errors.DataError, match="seed must be a whole number of at least 0"):
        br.sample_prior(br.models.PMF(rank=1), data, draws=1, seed=seed)
    with pytest.raises(br.errors.DataError, match="seed must be a whole number of at least 0"):
        br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=1, warmup=0, chains=1), seed=seed, progress=False)
