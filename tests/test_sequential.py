"""TransferMF from a source posterior: exactly the joint model where the two know the same, and honest where they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec import conjugate
from bayesrec.batched import Layouts
from bayesrec.errors import DataError
from bayesrec.models.base import Schema
from bayesrec.sources import SourcePrior
from bayesrec.workers import Workers

RANK = 2
METHOD = br.Gibbs(draws=60, warmup=60, chains=2)


@pytest.fixture(scope="module")
def frame():
    return br.data.synthetic.cross_domain(n_users=150, n_items=(25, 20), n_ratings=(12, 8), rank=1, seed=3)[0]


@pytest.fixture(scope="module")
def data(frame):
    return br.Interactions.from_frame(frame, target="target", value="value")


@pytest.fixture(scope="module")
def source_posterior(frame):
    rows = frame[frame["domain"] == "source"]
    return br.fit(
        br.models.PMF(rank=RANK),
        br.Interactions.from_frame(rows, target="source", value="value"),
        br.Gibbs(draws=100, warmup=100, chains=2),
        progress=False,
    )


@pytest.fixture(scope="module")
def prior(source_posterior):
    return source_posterior.as_prior("user")


@pytest.fixture(scope="module")
def target(frame):
    """The target's owner's table: no source row, and a third of the users without any row."""
    mine = frame[(frame["domain"] == "target") & (frame["user"] % 3 > 0)]
    return br.Interactions.from_frame(mine, target="target", value="value")


def both(data, rng):
    """A state of the joint model, its table, and the same source rows as a prior given items and noise of the state."""
    joint = br.models.TransferMF(rank=RANK)
    schema = Schema.of(data)
    table = schema.table(data)
    state = joint.start(table, rng)
    state |= {"item_vector": rng.standard_normal(state["item_vector"].shape), "source_bias_scale": np.ones(1)}
    state |= {"map": rng.standard_normal((1, RANK + 1, RANK + 1)), "user_mean": rng.standard_normal(RANK + 1)}
    value, weight = joint.likelihood.working(state, table, "user")
    gram, linear = conjugate.row_grams(table.user_ptr, table.user_item, value, weight, state["item_vector"])
    has = table.count[0] > 0
    cov = np.linalg.inv(np.eye(RANK + 1) + gram[::2][has])
    mean = (cov @ linear[::2][has][..., None])[..., 0]
    return joint, table, state, SourcePrior("source", data.users.decode(np.flatnonzero(has)), mean, cov)


def alone(data, joint, state, prior):
    """The sequential model, its table of target rows and the state in its items."""
    model = br.models.TransferMF(rank=RANK, source=prior)
    view = model.view(data)
    keep = data.item_domain == 1
    cut = state | {"item_vector": state["item_vector"][keep]}
    cut = {name: x for name, x in cut.items() if name != "source_bias_scale"}
    table = Schema.of(view).table(view)
    # the joint schema standardises the target by the same rows
    return model, table, cut


@pytest.mark.parametrize("fault", [False, True])
def test_equal_to_the_joint_model_given_items_noise_map_and_covariance(data, fault):
    """The users' block with the same random numbers, and the closed forms behind weights and relevance, to 1e-6."""
    joint, table, state, prior = both(data, np.random.default_rng(0))
    if fault:
        prior = SourcePrior(prior.name, prior.users, prior.mean, 1.1 * prior.cov)
    model, small, cut = alone(data, joint, state, prior)
    draws = []
    for m, t, s in ((joint, table, state), (model, small, cut)):
        block = next(b for b in m.blocks(t) if b.name == "users")
        draws.append(block.update(s, np.random.default_rng(1)))
    same = [
        np.allclose(draws[0][name], draws[1][name], atol=1e-6) for name in ("user_vector", "source_vector", "phi_used")
    ]
    assert all(same) is not fault
    a, b = (m.prior_precision(s, t) for m, t, s in ((joint, table, state), (model, small, cut)))
    close = [
        np.allclose(getattr(a, x), getattr(b, x), atol=1e-6, equal_nan=True)
        for x in ("source", "probability", "relevance")
    ]
    assert all(close) is not fault


def test_the_batched_kernel_takes_the_prior_too(data):
    """Relevance of gates and means of the target vectors, over many draws, agree with the compiled loops."""
    joint, _, state, prior = both(data, np.random.default_rng(0))
    model, small, cut = alone(data, joint, state, prior)
    found = []
    for kernel in ("compiled", "batched"):
        workers = small.workers
        if kernel == "batched":
            workers = Workers(device="cpu", layouts=Layouts())
        block = next(b for b in model.blocks(replace(small, workers=workers)) if b.name == "users")
        rng = np.random.default_rng(5)
        draws = np.stack([block.update(cut, rng)["user_vector"] for _ in range(400)])
        found.append((draws.mean(0), draws.std(0)))
    z = (found[0][0] - found[1][0]) / (found[0][1] + found[1][1]) * 2 * np.sqrt(400 / 2)
    assert np.abs(z).max() < 6


def test_users_of_the_prior_are_known_and_informed(target, prior, data, frame):
    """People without target rows are predicted from the source alone, better than by the target's population."""
    model = br.models.TransferMF(rank=RANK, source=prior)
    posterior = br.fit(model, target, METHOD, progress=False)
    assert posterior.data.sources == ("source",)
    assert not posterior.data.mask(~posterior.data.is_target).value.size
    held = frame[(frame["domain"] == "target") & (frame["user"] % 3 == 0)]
    bare = br.fit(br.models.PMF(rank=RANK), target, METHOD, progress=False)
    gain = posterior.log_score(held) - bare.log_score(held)
    by_user = np.array([gain[(held["user"] == u).to_numpy()].sum() for u in held["user"].unique()])
    assert by_user.mean() > 2 * by_user.std() / np.sqrt(len(by_user))
    weights = br.source_weight(posterior, held)
    assert (weights["target"].abs() < 1e-9).all()
    assert weights["source"].mean() > 0.3
    assert {"user", "n", "relevance"} <= set(br.relevance(posterior).columns)
    assert len(br.relevance(posterior)) == len(prior)


def test_a_sequential_posterior_is_a_posterior(target, prior, tmp_path):
    posterior = br.fit(br.models.TransferMF(rank=RANK, source=prior), target, METHOD, progress=False)
    back = br.load(posterior.save(tmp_path / "model"))
    assert back.model == posterior.model
    assert np.array_equal(back.predict(target)["mean"], posterior.predict(target)["mean"])
    assert "source_bias_scale" not in posterior.to_datatree()["posterior"]
    new = target.to_frame().head(3).assign(user=12345)
    assert len(posterior.fold_in(new).predict(new)) == 3
    svi = br.fit(
        br.models.TransferMF(rank=RANK, source=prior), target, br.SVI(steps=200, draws=50, chains=2), progress=False
    )
    assert np.corrcoef(svi.predict(target)["mean"], posterior.predict(target)["mean"])[0, 1] > 0.9


def test_the_source_of_a_prior_cannot_be_predicted(target, prior, frame):
    """The fit knows no item there: every answer would be that of the population."""
    posterior = br.fit(br.models.TransferMF(rank=RANK, source=prior), target, METHOD, progress=False)
    rows = frame.sort_values("domain", ascending=False).head(2000)  # target first
    first = int((rows["domain"] == "target").sum())
    for call in (posterior.predict, posterior.log_score):
        with pytest.raises(
            DataError, match=f"row {first} belongs to 'source', of which this fit has a source prior and no"
        ):
            call(rows)


def test_the_gain_vanishes_where_the_prior_is_of_others(target, prior, frame):
    """The ids of the prior deranged: the gate closes, and nobody is predicted worse than without the source."""
    shuffled = SourcePrior(prior.name, np.roll(prior.users.to_numpy(), 7), prior.mean, prior.cov)
    held = frame[(frame["domain"] == "target") & (frame["user"] % 3 == 0)]
    scores = {}
    for name, model in {
        "true": br.models.TransferMF(rank=RANK, source=prior),
        "shuffled": br.models.TransferMF(rank=RANK, source=shuffled),
        "none": br.models.PMF(rank=RANK),
    }.items():
        scores[name] = br.fit(model, target, METHOD, progress=False).log_score(held)
    gain = {name: scores[name].mean() - scores["none"].mean() for name in ("true", "shuffled")}
    assert gain["true"] > 0.05
    assert abs(gain["shuffled"]) < 0.5 * gain["true"]


def test_bad_priors_are_refused(target, prior):
    strangers = SourcePrior("source", prior.users + 1000, prior.mean, prior.cov)
    with pytest.raises(DataError, match=r"none of the 150 users .* 'source' has a row in the target"):
        br.fit(br.models.TransferMF(rank=RANK, source=strangers), target, METHOD)
    items = SourcePrior("source", prior.users, prior.mean, prior.cov, entity="item")
    with pytest.raises(DataError, match="about items"):
        br.fit(br.models.TransferMF(rank=RANK, source=items), target, METHOD)
    with pytest.raises(DataError, match="rank 2, the model 3"):
        br.models.TransferMF(rank=3, source=prior)
    with pytest.raises(DataError, match="which is the target"):
        br.fit(
            br.models.TransferMF(rank=RANK, source=SourcePrior("target", prior.users, prior.mean, prior.cov)),
            target,
            METHOD,
        )
    with pytest.raises(DataError, match="must be a SourcePrior"):
        br.models.TransferMF(rank=RANK, source="book")
    with pytest.raises(DataError, match="needs source ratings"):
        br.models.TransferMF(rank=RANK, source=prior, prior_family="commensurate")


def test_a_sequential_model_is_judged_against_pmf(data, prior):
    """Every fold's users keep their source prior; a baseline that would have it too is refused."""
    model, method = br.models.TransferMF(rank=RANK, source=prior), br.Gibbs(draws=40, warmup=40, chains=4)
    found = br.assess_transfer(model, data, method, folds=2, progress=False)
    assert (found.labels, found.verdict) == (("TransferMF", "PMF"), "positive")
    alone = br.assess_transfer(model, data.only_target(), method, folds=2, progress=False)
    assert (alone.verdict, alone.sources, len(alone.per_user)) == ("positive", ("source",), len(found.per_user))
    with pytest.raises(DataError, match="leave baseline out"):
        br.assess_transfer(model, data, method, folds=2, baseline=model, progress=False)


def test_prior_families_are_read_and_refused():
    for options in ({"prior_family": "flat"}, {"shrinkage": 0.0}, {"gate_prior": (1.0,)}, {"gate_prior": (0.0, 1.0)}):
        with pytest.raises(DataError, match=next(iter(options))):
            br.models.TransferMF(**options)


@pytest.mark.parametrize(
    "family", ["ard", "horseshoe", "commensurate", "commensurate_spike_slab", "commensurate_horseshoe"]
)
def test_every_family_borrows_where_the_source_is_good(family, data):
    train, test = br.split.cold_users(data, fraction=0.3, seed=0)
    model = br.models.TransferMF(rank=RANK, prior_family=family)
    found, bare = (br.fit(m, train, METHOD, progress=False).log_score(test) for m in (model, br.models.PMF(rank=RANK)))
    assert (found - bare).mean() > 0.05


def test_a_commensurate_vector_is_the_source_vector_where_nothing_is_left_open(data):
    """Given a discrepancy of next to nothing and open gates, theta = m + phi for everybody; with a wide one it is not."""
    model = br.models.TransferMF(rank=RANK, prior_family="commensurate", gate=False)
    table, rng = Schema.of(data).table(data), np.random.default_rng(0)
    state = model.start(table, rng)
    block = next(b for b in model.blocks(table) if b.name == "users")
    for variance, pooled in ((1e-10, True), (1.0, False)):
        out = block.update(state | {"user_cov": variance * np.eye(RANK + 1)}, rng)
        gap = out["user_vector"] - state["user_mean"] - out["source_vector"][0]
        assert bool(np.abs(gap).max() < 1e-3) is pooled


def test_stack_and_worth_need_no_source_rows(data, prior):
    """Held-out users keep what the prior says of them; where users have the prior of others it is worth less."""
    target, method = data.only_target(), br.Gibbs(draws=20, warmup=30, chains=1)
    turned = SourcePrior(prior.name, prior.users, np.roll(prior.mean, 1, 0), np.roll(prior.cov, 1, 0))
    good, bad = (br.models.TransferMF(rank=RANK, source=one, gate=False) for one in (prior, turned))
    mix = br.stack(good, target, method, folds=2, progress=False)
    assert list(mix.arms) == ["none", "transfer"]
    assert (mix.weights["transfer"] > 0.5).all()
    assert br.recommend(mix, prior.users[:2], n=2).shape[0] == 4
    found, other = (
        br.worth_in_ratings(model, target, method, sizes=(0, 2, 3), folds=2, progress=False) for model in (good, bad)
    )
    assert (found.curve["gap"] - 2.0 * found.curve["se"] > other.curve["gap"]).all()
    pd.testing.assert_series_equal(found.curve["loss_none"], other.curve["loss_none"])
    strangers = SourcePrior(prior.name, [f"nobody {k}" for k in range(3)], prior.mean[:3], prior.cov[:3])
    for call, words in (
        (br.stack, "source prior"),
        (br.assess_transfer, "source prior"),
        (br.worth_in_ratings, "known to the source"),
    ):
        with pytest.raises(DataError, match=words):
            call(br.models.TransferMF(rank=RANK, source=strangers), target, method, folds=2, progress=False)
