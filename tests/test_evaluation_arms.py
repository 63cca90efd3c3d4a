"""Names, ablations, splits, clicks and shared items; arguments that do not fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.errors import DataError
from bayesrec.evaluation import arms, evaluate, splits
from bayesrec.inference.base import Method
from bayesrec.models import PMF, CollectiveMF, TransferMF
from bayesrec.models.base import Model


def labels(models, ablate, data):
    by_name = arms.named(models, Model, "models")
    return [arm for arm in arms.make_arms(by_name, {"Gibbs": br.Gibbs()}, ablate, data) if arm.kind != "simple"]


def test_names_come_from_classes_and_from_the_whole_value_where_two_share_one():
    given = [PMF(rank=1), PMF(rank=2), TransferMF()]
    assert [*arms.named(given, Model, "models")] == [repr(given[0]), repr(given[1]), "TransferMF"]
    assert arms.named(PMF(), Model, "models") == {"PMF": PMF()}
    assert arms.named({"mine": PMF()}, Model, "models") == {"mine": PMF()}


@pytest.mark.parametrize("given", [PMF, [PMF], {"a": 3}, "PMF", 7, None])
def test_what_is_no_model_is_refused(given):
    with pytest.raises(TypeError, match="models must be a Model"):
        arms.named(given, Model, "models")


def test_one_model_twice_is_refused():
    with pytest.raises(DataError, match="twice"):
        arms.named([PMF(), PMF()], Model, "models")


def test_ablations_take_out_one_part_each(data):
    found = labels(TransferMF(rank=1), ["source", "gate", "biases", "map"], data)
    assert [(arm.name, arm.kind) for arm in found] == [
        ("TransferMF", "model"),
        ("TransferMF, without source", "ablation"),
        ("TransferMF, without gate", "ablation"),
        ("TransferMF, without bias transfer", "ablation"),
        ("TransferMF, without factor map", "ablation"),
    ]
    whole = TransferMF(rank=1)
    want = [whole, whole, TransferMF(rank=1, gate=False), TransferMF(rank=1, transfers="factors")]
    assert [arm.model for arm in found] == [*want, TransferMF(rank=1, transfers="biases")]
    assert [arm.drop_source for arm in found] == [False, True, False, False, False]


def test_models_without_the_part_are_passed_over(data):
    names = [arm.name for arm in labels([PMF(), CollectiveMF(), TransferMF()], ["source", "gate"], data)]
    assert names == [
        "PMF",
        "CollectiveMF",
        "CollectiveMF, without source",
        "TransferMF",
        "TransferMF, without source",
        "TransferMF, without gate",
    ]
    assert [arm.name for arm in labels({"open": TransferMF(gate=False), "shut": TransferMF()}, "gate", data)] == [
        "open",
        "shut",
        "shut, without gate",
    ]


@pytest.mark.parametrize(
    ("models", "ablate", "message"),
    [
        (PMF(), ["gate"], r"no model here has a part 'gate'.*PMF: nothing"),
        (CollectiveMF(), ["map"], r"no model here has a part 'map'.*CollectiveMF: \['source'\]"),
        (TransferMF(gate=False), ["gate"], "no model here has a part 'gate'"),
        (TransferMF(), ["gates"], "did you mean 'gate'"),
    ],
)
def test_an_ablation_that_no_model_has_says_what_there_is(models, ablate, message, data):
    with pytest.raises(DataError, match=message):
        labels(models, ablate, data)


def test_without_source_rows_there_is_no_source_to_take_out(data):
    with pytest.raises(DataError, match="'source'"):
        labels(CollectiveMF(), ["source"], data.only_target())


def test_the_ablated_fit_sees_no_source_row_and_is_the_plain_fit_of_the_target(data):
    method = br.Gibbs(draws=6, warmup=4, chains=2)
    result = evaluate(TransferMF(rank=1), data, method, ["cold"], ablate=["source"])
    from bayesrec.inference.base import fit_unchecked

    train, test = br.split.cold_users(data, fraction=0.2, seed=0)
    posterior = fit_unchecked(TransferMF(rank=1), train.without_sources(), method, 0)
    row = result.frame.query("model == 'TransferMF, without source' and metric == 'rmse'")
    assert row["value"].item() == pytest.approx(br.metrics.rmse(test.value, posterior.predict(test)["mean"]))
    assert row["kind"].item() == "ablation"


def test_splits_of_ones_own(data):
    def by_day(data, seed):
        return br.split.holdout(data, fraction=0.5, seed=seed)

    made, notes = splits.make_splits(data, {"half": by_day}, (4,))
    train, test = br.split.holdout(data, fraction=0.5, seed=4)
    assert (made[0].name, made[0].seed, notes) == ("half", 4, [])
    np.testing.assert_array_equal(made[0].test.item, test.item)
    np.testing.assert_array_equal(made[0].train.item, train.item)
    assert made[0].floor == data.value[data.is_target].min()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["cold", "wram"], DataError, "did you mean 'warm'"),
        ({}, DataError, "splits is empty"),
        ({"a": 3}, TypeError, r"splits\['a'\] must be a function"),
        ({"a": lambda data, seed: data}, DataError, "must return"),
        ({"a": lambda data, seed: (data, data)}, DataError, "test must hold target rows"),
        ({"a": lambda data, seed: (data.mask(~data.is_target), data.without_sources())}, DataError, "no target row"),
        ({"a": lambda data, seed: (data, data.only_target())}, DataError, "domains and ids"),
    ],
)
def test_splits_that_do_not_fit(given, error, message, data):
    with pytest.raises(error, match=message):
        splits.make_splits(data, given, (0,))


@dataclass(frozen=True)
class Never(Method):
    def run(self, model, data, schema, seed, progress, checkpoint=None):
        raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "item biases"}, "did you mean 'item bias'"),
        ({"reference": "TransferMF"}, "no row is called 'TransferMF'"),
        ({"workers": 0}, "workers"),
        ({"seeds": ()}, "seeds is empty"),
        ({"seeds": (-1,)}, "seed must be"),
        ({"seeds": 0.5}, "seed"),
        ({"models": {"popularity": PMF()}}, "taken by a simple baseline"),
    ],
)
def test_arguments_that_do_not_fit(options, message, data):
    options = {"models": PMF(), "data": data, "methods": Never()} | options
    with pytest.raises(DataError, match=message):
        evaluate(**options)


def test_data_must_be_interactions(frame):
    with pytest.raises(TypeError, match="Interactions"):
        evaluate(PMF(), frame, Never())


@pytest.fixture(scope="module")
def clicked():
    frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(15, 12), n_ratings=(8, 5), n_cold=4)
    return br.Interactions.from_frame(frame.drop(columns="value"), target="target", value=None)


def test_clicks_are_ranked_among_items_not_clicked(clicked):
    result = evaluate(PMF(rank=1), clicked, br.Gibbs(draws=2), ["warm"])
    assert result.reference == "popularity"
    assert result.frame.query("kind == 'simple'")["model"].unique().tolist() == ["popularity", "PPCA stacked"]
    known = result.frame.dropna(subset="value")
    assert set(known["metric"]) == {"ndcg@10", "order"}
    assert set(known["model"]) == {"popularity", "PPCA stacked"}, "a Gaussian on clicks fails, and says so"
    assert any("clicks" in note.lower() for note in result.notes)
    train, test = br.split.holdout(clicked, fraction=0.1, seed=0)
    count = np.bincount(train.item[train.is_target], minlength=clicked.n_items)
    areas = []
    for user in np.unique(test.user):
        hits = test.item[test.user == user]
        others = set(range(15, 27)) - set(train.item[(train.user == user) & train.is_target]) - set(hits)
        others = [i for i in others if count[i] or i in test.item]
        areas.append(np.mean([0.5 * (count[h] == count[o]) + (count[h] > count[o]) for h in hits for o in others]))
    found = result.frame.query("model == 'popularity' and metric == 'order'")
    assert found["value"].item() == pytest.approx(np.mean(areas))
    assert found["n_rows"].item() == len(test)


def test_unseen_items_are_drawn_anew_for_each_seed_only(clicked, monkeypatch):
    monkeypatch.setattr(splits, "UNSEEN", 3)
    one, two, other = (splits.make_splits(clicked, ["cold"], (s,))[0][0].test for s in (0, 0, 1))
    np.testing.assert_array_equal(one.item, two.item)
    assert len(one.item) != len(other.item) or (one.item != other.item).any()
    assert (np.bincount(one.user[one.value == 0])[np.unique(one.user)] == 3).all()
    pairs = pd.DataFrame({"user": one.user, "item": one.item})
    assert not pairs.duplicated().any()


def test_shared_items_are_held_out_by_item_and_clustered_by_item(data):
    frame = data.to_frame().rename(columns={"user": "item", "item": "user"})
    mirror = br.Interactions.from_frame(frame, target="target", shared="items")
    made = splits.make_splits(mirror, ["cold"], (0,))[0][0]
    assert not np.intersect1d(made.train.item[made.train.is_target], made.test.item).size
    result = evaluate(PMF(rank=1), mirror, br.Gibbs(draws=2, warmup=1, chains=2), ["cold"])
    rows = result.frame.query("model == 'global mean' and metric == 'mae'")
    train, test = br.split.cold_items(mirror, fraction=0.2, seed=0)
    error = np.abs(test.value - train.value[train.is_target].mean())
    want = br.metrics.clustered_mean(error, test.item)
    assert (rows["value"].item(), rows["se"].item()) == pytest.approx(want)
