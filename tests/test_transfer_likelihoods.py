"""Transfer under every kind of feedback: the true source helps cold users, a deranged one has nothing to give."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

import bayesrec as br
from bayesrec.data import derange_sources
from bayesrec.metrics import clustered_mean

METHOD = br.Gibbs(draws=100, warmup=150, chains=4)


def stars(frame):
    return frame["value"].round().clip(1, 5)


def likes(frame):
    return (frame["value"] > frame["value"].mean()).astype(float)


def plays(frame):
    rate = np.exp(0.7 * (frame["value"] - frame["value"].mean()) + 0.5)
    return np.random.default_rng(0).poisson(rate).astype(float)


CASES = {
    "Ordinal": (stars, br.Ordinal()),
    "Bernoulli": (likes, br.Bernoulli()),
    "Poisson": (plays, br.Poisson()),
    "StudentT": (lambda frame: frame["value"], br.StudentT()),
}


@lru_cache
def arms(name):
    """Cold users' rows and log scores with the true source, with a deranged one and without any; source weights."""
    make, likelihood = CASES[name]
    frame, _ = br.data.synthetic.cross_domain(n_users=300, n_items=(80, 60), n_ratings=(20, 12), rank=2, seed=1)
    data = br.Interactions.from_frame(frame.assign(value=make(frame)), target="target", value="value")
    train, test = br.split.cold_users(data, fraction=0.25, seed=0)
    alone = br.fit(br.models.PMF(rank=2, likelihood=likelihood), train, METHOD, progress=False)
    out = {"alone": (alone, alone.log_score(test), 0.0)}
    for what, rows in (("true", train), ("deranged", derange_sources(train, seed=0))):
        posterior = br.fit(br.models.TransferMF(rank=2, likelihood=likelihood), rows, METHOD, progress=False)
        weight = br.source_weight(posterior, test)["source"].mean()
        out[what] = posterior, posterior.log_score(test), weight
    return test, out


def gain(name, what):
    test, found = arms(name)
    return clustered_mean(found[what][1] - found["alone"][1], test.user)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_true_source_helps(name):
    """By four standard errors: one run in 30,000 would by chance if it did not."""
    mean, se = gain(name, "true")
    assert mean > 4.0 * se
    test, found = arms(name)
    assert br.negative_transfer(found["true"][0], found["alone"][0], test).verdict == "positive"
    assert found["true"][2] > 0.15


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_with_the_source_users_deranged_the_gain_is_gone(name):
    """The same users, items and ratings, histories handed to others: the fault planted in `test_the_true_source_helps`."""
    mean, se = gain(name, "deranged")
    assert abs(mean) < max(4.0 * se, 0.01)
    test, found = arms(name)
    assert br.negative_transfer(found["deranged"][0], found["alone"][0], test).verdict != "positive"
    assert found["deranged"][2] < 0.1
    assert found["deranged"][2] < 0.3 * found["true"][2]
