"""Shared items: users and items swap roles. The oracle is the same table with its two columns of ids renamed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.errors import DataError
from bayesrec.models import PMF, CollectiveMF, TransferMF

SWAP = {"user": "item", "item": "user"}
SHORT = br.Gibbs(draws=8, warmup=8, chains=4)


def swapped(frame):
    """The frame with users for items, columns in the usual order."""
    out = frame.rename(columns=SWAP)
    return out[[name for name in ("user", "item", *out.columns) if name in out.columns]].loc[
        :, lambda x: ~x.columns.duplicated()
    ]


def mirror(frame, **more):
    return br.Interactions.from_frame(swapped(frame), target="target", shared="items", **more)


@pytest.fixture(scope="module")
def pair(frame, data):
    """Fits of a table with shared users and of its mirror image."""
    return [br.fit(TransferMF(rank=2), rows, SHORT, progress=False) for rows in (data, mirror(frame))]


def equal(mirrored, straight):
    """Whether a table of answers is the other one with its columns of ids swapped."""
    want = swapped(straight)
    pd.testing.assert_frame_equal(mirrored, want[mirrored.columns])
    assert list(mirrored.columns[:2]) == list(want.columns[:2])


def test_transposing_twice_is_nothing(frame):
    data = mirror(frame, user_features=pd.DataFrame({"user": [0], "x": [1]}))
    once, twice = data.transposed(), data.transposed().transposed()
    assert (once.shared, once.entity, data.entity, twice.shared) == ("users", "item", "item", "items")
    assert (once.users, once.items) == (data.items, data.users)
    assert once.item_features is data.user_features
    for name in ("user", "item", "domain", "value"):
        assert np.array_equal(getattr(twice, name), getattr(data, name))
    assert twice.columns == data.columns
    pd.testing.assert_frame_equal(once.to_frame(), data.to_frame())


@pytest.mark.parametrize(
    "model", [PMF(rank=1), CollectiveMF(rank=1), TransferMF(rank=1)], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize(
    "method",
    [br.Gibbs(draws=4, warmup=4, chains=2), br.SVI(steps=30, draws=5)],
    ids=lambda m: type(m).__name__,
)
@pytest.mark.filterwarnings("ignore::bayesrec.errors.ConvergenceWarning")  # fits of a few steps
def test_the_mirror_image_has_the_same_fit(frame, data, model, method):
    straight, other = (br.fit(model, rows, method, progress=False) for rows in (data, mirror(frame)))
    assert straight.draws.keys() == other.draws.keys()
    for name in straight.draws:
        assert np.array_equal(straight.draws[name], other.draws[name]), name


def test_answers_are_the_mirror_image(pair, frame, target_rows):
    straight, other = pair
    equal(other.predict(swapped(frame)), straight.predict(frame))
    equal(br.source_weight(other, swapped(target_rows)), br.source_weight(straight, target_rows))
    pd.testing.assert_frame_equal(br.relevance(other), br.relevance(straight).rename(columns=SWAP))
    assert np.array_equal(other.log_score(swapped(frame)), straight.log_score(frame))
    assert np.array_equal(other.log_likelihood(), straight.log_likelihood())


def test_interactions_in_the_callers_orientation_are_understood(pair, frame):
    _, other = pair
    rows = mirror(frame)
    numbers = ["mean", "sd", "lower", "upper"]
    want = other.predict(swapped(frame))[numbers]
    pd.testing.assert_frame_equal(other.predict(rows)[numbers], want)
    pd.testing.assert_frame_equal(other.predict(rows.transposed())[numbers], want)


def test_lists_are_for_users(pair, frame, target_rows):
    """Users are in the role of items: their lists rank the shared items."""
    _, other = pair
    mine = swapped(target_rows)
    users = sorted(mine["user"].unique())[:4]
    got = br.recommend(other, users, n=3)
    assert list(got.columns[:3]) == ["user", "rank", "item"]
    known = sorted(mine["item"].unique())
    for user, part in got.groupby("user"):
        seen = set(mine.loc[mine["user"] == user, "item"])
        candidates = [item for item in known if item not in seen]
        cells = pd.DataFrame({"user": user, "item": candidates})
        best = other.predict(cells).assign(item=candidates).sort_values(["mean", "item"], ascending=[False, True])
        assert part["item"].tolist() == best["item"].head(3).tolist()
        np.testing.assert_allclose(part["score"], best["mean"].head(3), rtol=1e-5)
    chosen = known[2:7]
    again = br.recommend(other, users[0], n=5, items=chosen, exclude=None)
    assert sorted(again["item"]) == chosen
    banned = pd.DataFrame({"user": [users[0]] * 3, "item": chosen[:3]})
    left = br.recommend(other, users[0], n=2, items=chosen, exclude=banned)
    assert set(left["item"]) == set(chosen[3:])
    with pytest.raises(DataError, match="item 10000 was not in the fit"):
        br.recommend(other, users[0], items=[10000])


def test_an_unknown_user_is_one_of_the_targets_population(pair, monkeypatch):
    """Draws of an unknown user spread as those of new members of the population, with the mean of predict."""
    _, other = pair
    people = [10**6, 10**6 + 1]
    by_mean = br.recommend(other, people, n=4, exclude=None)
    first, second = (part.reset_index(drop=True) for _, part in by_mean.groupby("user"))
    assert first["item"].tolist() == second["item"].tolist()
    np.testing.assert_allclose(first["score"], first["mean"], rtol=1e-5)
    items = np.arange(other.data.n_users)
    latents = {name: x.double().numpy() for name, x in other.latents().items()}
    p, scale = latents["user_vector"].copy(), latents["item_scale"][:, -1]
    p[..., 0] = 1.0
    want = ((p * scale[:, None]) ** 2).sum(-1).mean() * other.schema.scale[-1] ** 2  # variance of a member, by hand
    drawn = other.expected(-1, items)
    monkeypatch.setattr("bayesrec.posterior.predictive.deviations", lambda model, rows: 0.0)
    average = other.expected(-1, items)  # planted fault: every stranger is the average member
    np.testing.assert_allclose(drawn.mean(0), average.mean(0), rtol=1e-6)
    # 32 draws: a ratio of variances has an sd of about .25
    assert 0.4 < (drawn - average).var(0).mean() / want < 1.9


def test_the_tree_has_the_callers_axes(pair):
    straight, other = (p.to_datatree()["posterior"] for p in pair)
    assert other["user_vector"].dims == ("chain", "draw", "item", "latent_component")
    assert other["item_vector"].dims == ("chain", "draw", "user", "latent_component")
    assert list(other.coords["item"].values) == list(straight.coords["user"].values)
    assert list(other.coords["user"].values) == list(straight.coords["item"].values)
    prior = br.sample_prior(TransferMF(rank=1), pair[1].data, draws=2)
    assert prior["prior"]["user_vector"].dims == ("chain", "draw", "item", "latent_component")


@pytest.mark.filterwarnings("ignore::bayesrec.errors.ConvergenceWarning")  # eight draws
def test_diagnostics_name_the_cell_as_the_caller_does(pair):
    straight, other = (p.diagnostics().index for p in pair)
    cells = [name for name in straight if name.startswith("prediction[")]
    user, item = cells[0][len("prediction[") : -1].split(", ")
    assert f"prediction[{item}, {user}]" in other


def test_saved_and_loaded(pair, frame, tmp_path):
    _, other = pair
    again = br.load(other.save(tmp_path / "model"))
    pd.testing.assert_frame_equal(again.predict(swapped(frame)), other.predict(swapped(frame)))
    pd.testing.assert_frame_equal(br.recommend(again, [0], n=2), br.recommend(other, [0], n=2))
    bare = br.load(other.save(tmp_path / "bare", data=False))
    assert len(br.recommend(bare, [0], n=2, exclude=None)) == 2


def test_new_items_are_folded_in(pair, frame):
    straight, other = pair
    new = frame[frame["user"] == 0].assign(user=999)
    a, b = straight.fold_in(new), other.fold_in(swapped(new))
    assert np.array_equal(a.draws["user_vector"], b.draws["user_vector"])
    equal(b.predict(swapped(new)), a.predict(new))
    with pytest.raises(DataError, match=r"item 0 was in the fit already \(row 0\); fold_in takes new items only"):
        other.fold_in(swapped(frame[frame["user"] == 0]))


def test_the_verdict_is_about_items(frame, data):
    model, rows = TransferMF(rank=1), mirror(frame)
    mine, other = (br.assess_transfer(model, x, SHORT, folds=2, progress=False) for x in (data, rows))
    assert (mine.entity, other.entity) == ("user", "item")
    for name in ("verdict", "probability", "delta", "se", "joint_delta"):
        assert getattr(mine, name) == getattr(other, name)
    pd.testing.assert_frame_equal(other.per_user, mine.per_user.rename(columns={"user": "item"}))
    assert other.rows["user"].equals(mine.rows["item"])
    text = other.summary()
    assert "if every item counts the same" in text
    assert " user" not in text.replace("nobody like these users rates", "")
    assert "items with" in other._repr_html_()
    assert "user" in mine.summary()


def test_no_shared_item_is_said_so(frame):
    apart = swapped(frame).assign(item=lambda x: x["item"] + 1000 * (x["domain"] == "source"))
    data = br.Interactions.from_frame(apart, target="target", shared="items")
    with pytest.raises(
        DataError, match=r"no item has rows both in the target 'target'.*Do the ids mean the same items\?"
    ):
        br.fit(TransferMF(rank=1), data, SHORT, progress=False)


def test_a_missing_column_is_called_as_the_caller_calls_it(pair):
    with pytest.raises(DataError, match="no column 'user' for user"):
        pair[1].predict(pd.DataFrame({"item": [1]}))


def test_sizes_are_the_callers(pair):
    straight, other = pair
    assert "40 users, 27 items" in repr(straight)
    assert "27 users, 40 items" in repr(other)
    assert "shared='items'" in repr(other.data)
    assert "in each other's role" in repr(other.data)
    assert "items shared" in other.data._repr_html_()
