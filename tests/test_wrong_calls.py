"""Calls that go wrong in ways people get wrong: what was given, and what to give instead, in the error."""

from __future__ import annotations

import dataclasses
import os
import threading

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.errors import DataError, NotFittedError

METHOD = br.Gibbs(draws=8, warmup=8, chains=4, threads=1)


@pytest.fixture(scope="module")
def frame():
    return br.data.synthetic.cross_domain(n_users=30, n_items=(12, 12), n_ratings=(6, 5), rank=1)[0]


@pytest.fixture(scope="module")
def data(frame):
    return br.Interactions.from_frame(frame, target="target", value="value")


@pytest.fixture(scope="module")
def fits(data):
    train, test = br.split.holdout(data, fraction=0.2)
    models = br.models.TransferMF(rank=1), br.models.PMF(rank=1)
    return *(br.fit(model, train, METHOD, progress=False) for model in models), train, test


@pytest.mark.parametrize(
    "call",
    [
        br.split.holdout,
        br.split.cold_users,
        br.split.cold_items,
        br.split.temporal,
        br.split.kfold_users,
        br.data.derange_sources,
        br.data.cross_domain_duplicates,
        lambda frame: br.assess_transfer(br.models.TransferMF(rank=1), frame, METHOD),
        lambda frame: br.sample_prior(br.models.PMF(rank=1), frame),
        lambda frame: br.evaluate_ranking({}, frame, frame),
    ],
)
def test_a_frame_where_interactions_are_needed(call, frame):
    with pytest.raises(
        TypeError, match=r"must be Interactions, not DataFrame; make them with br\.Interactions\.from_frame"
    ):
        call(frame)


@pytest.mark.parametrize("fraction", [None, "x", True, [0.1]])
def test_a_fraction_that_is_no_number(fraction, data):
    with pytest.raises(DataError, match="fraction must lie between 0 and 1"):
        br.split.holdout(data, fraction)


def test_a_verdict_on_rows_that_were_fitted(fits):
    arm, bare, train, test = fits
    both = train.mask(train.is_target).to_frame().head(7)
    assert "But 7 of 7 test rows were in a fit" in br.negative_transfer(arm, bare, both).reason
    assert "in a fit" not in br.negative_transfer(arm, bare, test).reason


def test_a_verdict_on_fits_that_do_not_know_the_same_ids(fits, frame):
    arm, _, _, test = fits
    text = br.Interactions.from_frame(frame.assign(user=frame["user"].astype(str)), target="target", value="value")
    other = br.fit(br.models.PMF(rank=1), text, METHOD, progress=False)
    with pytest.raises(DataError, match="users are numbers in one fit and text in the other"):
        br.negative_transfer(arm, other, test)


def test_a_verdict_on_what_is_no_transfer(data, fits):
    with pytest.raises(DataError, match="uses no source rows, so there is nothing to judge"):
        br.assess_transfer(br.models.PMF(rank=1), data, METHOD)
    with pytest.raises(TypeError, match=r"model must be a Model such as .*not 'pmf'"):
        br.assess_transfer("pmf", data, METHOD)
    with pytest.raises(TypeError, match=r"baseline must be a Model such as .*not 'pmf'"):
        br.assess_transfer(br.models.TransferMF(rank=1), data, METHOD, baseline="pmf")
    with pytest.raises(TypeError, match="negative_transfer takes a Posterior, not NoneType"):
        br.negative_transfer(fits[0], None, fits[3])


def test_what_takes_a_posterior_says_so(frame):
    for call in (lambda: br.source_weight(None, frame), lambda: br.relevance(None)):
        with pytest.raises(TypeError, match="takes a Posterior, not NoneType"):
            call()
    with pytest.raises(TypeError, match=r"recommend takes what br\.fit or br\.stack gave, not PMF"):
        br.recommend(br.models.PMF(rank=1), [0])


def test_interactions_are_frozen(data):
    for name in ("target", "sources", "shared", "n_users", "mine"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(data, name, 3)


@pytest.mark.parametrize("by", ["mean", "ucb", "thompson"])
def test_lists_of_ratings_far_from_zero(by, fits):
    """The same draws around another centre, where float32 has steps of 128, give the same lists, of one and of many."""
    near = fits[0]
    far = dataclasses.replace(near, schema=dataclasses.replace(near.schema, center=near.schema.center + 2.0**30))
    for users in ([3], range(20)):
        one, two = (br.recommend(posterior, users, n=3, by=by, explain=False) for posterior in (near, far))
        assert two["item"].tolist() == one["item"].tolist()
        np.testing.assert_allclose(two["score"] - 2.0**30, one["score"], atol=1e-5)


@pytest.mark.parametrize("make", [br.Gaussian, br.Ordinal, br.Bernoulli, br.Poisson, br.StudentT])
def test_user_noise_is_true_or_false(make):
    with pytest.raises(DataError, match="user_noise must be True or False, not 'False'"):
        make(user_noise="False")
    with pytest.raises(DataError, match="gate must be True or False, not 'False'"):
        br.models.TransferMF(gate="False")


def test_ratings_without_a_spread_that_is_a_number(frame):
    huge = br.Interactions.from_frame(frame.assign(value=frame["value"] * 1e300), target="target", value="value")
    with pytest.raises(DataError, match="are too large for their sd to be a number"):
        br.fit(br.models.PMF(rank=1), huge, METHOD, progress=False)


@pytest.mark.parametrize("level", [None, "x", pd.NA, True])
def test_a_level_that_is_no_number(level, fits, frame):
    with pytest.raises(DataError, match="level must lie strictly between 0 and 1"):
        fits[0].predict(frame[["user", "item"]].head(2), level=level)
    with pytest.raises(DataError, match="level must lie strictly between 0 and 1"):
        br.recommend(fits[0], [0], n=2, level=level)


def test_a_rule_that_is_a_list_and_groups_that_are_empty(fits):
    with pytest.raises(DataError, match=r"unknown rule \['mean'\]"):
        br.recommend(fits[0], [0], by=["mean"])
    with pytest.raises(DataError, match="groups is empty"):
        br.recommend(fits[0], [0], groups={}, max_per_group=1)


def test_times_of_another_kind(frame):
    data = br.Interactions.from_frame(
        frame.assign(day=np.arange(len(frame))), target="target", value="value", time="day"
    )
    posterior = br.fit(br.models.TransferMF(rank=1), data, METHOD, progress=False)
    new = frame[frame["domain"] == "target"].head(2).assign(user=[900, 901], day=pd.Timestamp("2020-01-01"))
    for call in (posterior.update, posterior.fold_in):
        with pytest.raises(
            DataError, match="time column 'day' holds datetimes in the new rows and numbers in the data"
        ):
            call(new)
    posterior.update(new.assign(day=[1.5, 2.5]))


def test_questions_to_somebody_whose_ratings_were_not_saved(fits, tmp_path):
    without = br.load(fits[0].save(tmp_path / "fit", data=False))
    with pytest.raises(NotFittedError, match="next_question for a user of the fit"):
        br.next_question(without, 0)
    assert len(br.next_question(without, 999, n=2)) == 2


def test_a_checkpoint_in_a_file(data, tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(DataError, match=r"checkpoint must name a folder, and .*notes' is a file"):
        br.fit(br.models.PMF(rank=1), data, METHOD, progress=False, checkpoint=tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_link_goes_on_to_name_the_saved_model(fits, tmp_path):
    (tmp_path / "link").symlink_to("real")
    for model in fits[:2]:  # the place is made, then another model takes its place
        model.save(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert sorted(os.listdir(tmp_path)) == ["link", "real"]
        assert br.load(tmp_path / "real").model == br.load(tmp_path / "link").model == model.model


def test_gates_that_are_sure():
    frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4), rank=1)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    for prior in ((100.0, 0.01), (0.01, 100.0)):
        posterior = br.fit(br.models.TransferMF(rank=1, gate_prior=prior), data, METHOD, progress=False)
        posterior.draws["gate"][:] = float(prior[0] > 1.0)  # what float32 makes of it
        weight = br.source_weight(posterior, frame[frame["domain"] == "target"])
        assert np.isfinite(weight[["source", "population", "target"]]).all(axis=None)


@pytest.mark.filterwarnings("ignore::bayesrec.errors.ConvergenceWarning")  # short fits
def test_fits_of_svi_in_threads_wait_for_one_another(data):
    found = []

    def fit():
        found.append(br.fit(br.models.PMF(rank=1), data, br.SVI(steps=8, draws=2, chains=1), progress=False))

    threads = [threading.Thread(target=fit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for other in found[1:]:
        np.testing.assert_array_equal(other.draws["user_vector"], found[0].draws["user_vector"])
