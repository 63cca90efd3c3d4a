"""Domains without a shared user: evidence by quadrature, ties that follow the data, nothing of a single user carried over."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from test_conjugate import ALARM

import bayesrec as br
from bayesrec import conjugate
from bayesrec.errors import DataError
from bayesrec.models import populations
from bayesrec.testing import ModelConformance, example_frame

MODEL = br.models.TransferMF(rank=2, link="distribution")
METHOD = br.Gibbs(draws=60, warmup=60, chains=2)


def apart(frame):
    """The same ratings with other users in the source."""
    return frame.assign(user=frame["user"].where(frame["domain"] == "target", frame["user"] + 1000))


class TestDistributionLink(ModelConformance):
    model = MODEL
    uses_source = True
    likelihoods = ()
    methods = (br.Gibbs(draws=40, warmup=20, chains=2),)

    @classmethod
    def frame(cls):
        return apart(example_frame())


@pytest.mark.slow
class TestDistributionLinkOtherwise(TestDistributionLink):
    methods = ModelConformance.methods


@pytest.fixture(scope="module")
def data(frame):
    return br.Interactions.from_frame(apart(frame), target="target")


@pytest.mark.parametrize(("evidence", "squares"), [(populations._item_evidence, [[2.0], [0.3]]), (None, [2.0, 0.3])])
def test_spreads_integrated_out(evidence, squares):
    """For one component the evidence of two degrees of freedom differs as numerical integration says."""
    n, common = np.array([6, 4]), np.array([0.5])

    def ours(dof):
        if evidence is not None:
            return evidence(dof, common, np.array(squares), n[:, None])
        return populations._user_evidence(dof, common, np.array(squares)[:, None, None], n)

    def brute(dof):
        total = 0.0
        for s, m in zip(np.ravel(squares), n, strict=True):
            prior = stats.invgamma(dof / 2, scale=dof * common[0] ** 2 / 2)
            inner = integrate.quad(
                lambda v, s=s, m=m, p=prior: v ** (-m / 2) * np.exp(-s / 2 / v) * p.pdf(v), 0, np.inf
            )[0]
            total += np.log(inner)
        return total

    for dof in (3.0, 30.0):
        assert np.isclose(ours(dof) - ours(8.0), brute(dof) - brute(8.0), rtol=1e-6)
    assert not np.isclose(ours(3.0) - ours(8.0), brute(3.0) - brute(9.0), rtol=1e-3)  # planted


@pytest.mark.parametrize("wrong", [False, True])
def test_the_slice_step_leaves_a_density_alone(wrong):
    rng, law = np.random.default_rng(0), stats.beta(2, 5)
    start = law.rvs(4000, random_state=rng)
    density = (lambda x: law.logpdf(x)) if not wrong else (lambda x: 0.5 * law.logpdf(x))
    after = [conjugate.unit_slice(density, x, rng) for x in start]
    assert (stats.kstest(after, law.cdf).pvalue > ALARM) is not wrong
    assert np.corrcoef(start, after)[0, 1] < 0.5  # it moves


def test_shared_users_are_sent_to_the_default(frame):
    shared = br.Interactions.from_frame(frame, target="target")
    with pytest.raises(DataError, match=r"35 users have rows both .*the first: 5\)\. Leave link out"):
        br.fit(MODEL, shared, METHOD)
    alone = br.Interactions.from_frame(frame[frame["domain"] == "target"], target="target")
    with pytest.raises(DataError, match="needs source rows"):
        br.fit(MODEL, alone, METHOD)


def test_the_default_points_to_this_link(data):
    with pytest.raises(DataError, match="link='distribution' learns from the source how much users vary"):
        br.fit(br.models.TransferMF(rank=2), data, METHOD)


@pytest.mark.parametrize(
    "option", [{"gate": False}, {"prior_family": "ard"}, {"shrinkage": 2.0}, {"transfers": "biases"}]
)
def test_options_about_shared_users_are_refused(option):
    with pytest.raises(DataError, match=f"{next(iter(option))} is about shared users"):
        br.models.TransferMF(link="distribution", **option)
    with pytest.raises(DataError, match="link must be one of 'users', 'distribution'"):
        br.models.TransferMF(link="items")


def test_no_prediction_owes_anything_to_a_source_user(data, target_rows):
    posterior = br.fit(MODEL, data, METHOD, progress=False)
    weights = br.source_weight(posterior, target_rows)
    assert (weights["source"] == 0).all()
    assert br.relevance(posterior)["relevance"].isna().all()
    table = posterior.schema.table(posterior.data)
    assert not MODEL.source_precision(posterior.draw(0, 0), table).any()
    assert {"user_tie", "item_tie"} <= set(MODEL.identified(posterior.latents()))
    new = apart(pd.DataFrame({"user": [77] * 3, "item": [0, 1, 2], "domain": "source", "rating": [5.0, 5.0, 5.0]}))
    told = posterior.fold_in(new).predict(pd.DataFrame({"user": [1077], "item": [0]}))
    anybody = posterior.predict(pd.DataFrame({"user": [4321], "item": [0]}))
    gap = (told["mean"] - anybody["mean"]).abs()[0] / anybody["sd"][0]
    assert gap < 4.5 / np.sqrt(120)  # a Monte Carlo mean over the draws of the population


def world(sd, rng, n_users=120, n_items=30, n=12):
    """A domain with users' biases of this sd, no factors."""
    bias = sd * rng.standard_normal(n_users)
    return [
        (u, i, bias[u] + 0.5 * rng.standard_normal()) for u in range(n_users) for i in rng.choice(n_items, n, False)
    ]


def test_a_tie_follows_the_data():
    """Eight sources with one spread of biases tie closer than eight whose spreads differ tenfold."""
    ties = []
    for alike in (True, False):
        rng, parts = np.random.default_rng(0), {}
        for d in range(9):
            rows = pd.DataFrame(world(0.6 if alike else (1.2, 0.1)[d % 2], rng, 40), columns=["user", "item", "value"])
            parts["target" if d == 8 else f"s{d}"] = rows.assign(user=rows["user"] + 100 * d)
        data = br.Interactions.from_frames(parts, target="target", value="value")
        model = br.models.TransferMF(rank=1, link="distribution")
        posterior = br.fit(model, data, br.Gibbs(draws=150, warmup=100, chains=1), progress=False)
        ties.append(float(posterior.draws["user_tie"].mean()))
    assert ties[0] > ties[1] + 0.1


def test_shared_items_turn_the_roles(frame):
    mirrored = apart(frame).rename(columns={"user": "item", "item": "user"})
    data = br.Interactions.from_frame(mirrored, target="target", shared="items")
    posterior = br.fit(MODEL, data, br.Gibbs(draws=5, warmup=5, chains=1), progress=False)
    assert posterior.data.entity == "item"
    swapped = frame.rename(columns={"user": "item", "item": "user"})
    shared = br.Interactions.from_frame(swapped, target="target", shared="items")
    with pytest.raises(DataError, match="without shared items"):
        br.fit(MODEL, shared, METHOD)
