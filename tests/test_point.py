"""posterior.point: invariance of each draw's scores, means that survive rotation, and serving from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.errors import DataError, UnsupportedMethodError
from bayesrec.posterior import point


@pytest.fixture(scope="module")
def fitted():
    frame, _ = br.data.synthetic.cross_domain(n_users=100, n_items=(30, 30), n_ratings=(20, 15), rank=2)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    return br.fit(br.models.CollectiveMF(rank=2), data, br.Gibbs(draws=60, warmup=60, chains=2), progress=False)


def _scores(vectors, items):
    return vectors[:, :1] + items[:, 0] + vectors[:, 1:] @ items[:, 1:].T


def _prior(state):
    """Mean and covariance of a newcomer's scores."""
    design = state["item_vector"].copy()
    design[:, 0] = 1.0
    return state["item_vector"][:, 0] + design @ state["user_mean"], design @ state["user_cov"] @ design.T


def test_scores_of_a_draw_stay(fitted):
    rng = np.random.default_rng(0)
    state = fitted.draw(1, 5)
    root = np.linalg.cholesky(state["user_cov"][1:, 1:])
    turn = np.linalg.qr(rng.standard_normal((2, 2)))[0]
    moved = point._moved(state, rng.standard_normal(2), root @ turn, np.linalg.solve(root.T, turn))
    before, after = (_scores(s["user_vector"], s["item_vector"]) for s in (state, moved))
    np.testing.assert_allclose(after, before, atol=1e-12)
    priors = [_prior(s) for s in (state, moved)]
    for one, two in zip(*priors, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-12)
    np.testing.assert_allclose(moved["user_cov"][1:, 1:], np.eye(2), atol=1e-12)


def test_means_survive_rotation(fitted):
    """Draws whose factors are turned at random have the same point; without alignment their mean is far off."""
    users, items = (fitted.data.n_users, fitted.data.n_items)
    cells = pd.DataFrame({"user": np.repeat(np.arange(100), 30), "item": np.tile(np.arange(30), 100)})
    mean = fitted.predict(cells)["mean"]
    rng, draws = np.random.default_rng(1), {name: x.copy() for name, x in fitted.draws.items()}
    for chain in range(2):
        for draw in range(60):
            turn = np.eye(3)
            turn[1:, 1:] = np.linalg.qr(rng.standard_normal((2, 2)))[0]
            for name in ("user_vector", "item_vector", "user_mean", "item_mean"):
                draws[name][chain, draw] = draws[name][chain, draw] @ turn
            draws["user_cov"][chain, draw] = turn.T @ draws["user_cov"][chain, draw] @ turn
    turned = replace(fitted, draws=draws)
    one, two = fitted.point(), turned.point()
    assert one.draws["user_vector"].shape == (1, 1, users, 3)
    assert one.draws["item_vector"].shape == (1, 1, items, 3)
    np.testing.assert_allclose(one.predict(cells)["mean"], two.predict(cells)["mean"], atol=2e-3)
    naive = replace(turned, draws={n: x.mean((0, 1), keepdims=True) for n, x in draws.items()})
    off = [np.sqrt(((p.predict(cells)["mean"] - mean) ** 2).mean()) / mean.std() for p in (one, naive)]
    assert off[0] < 0.1
    assert off[1] > 3 * off[0], "planted fault: means without alignment"
    assert (one.predict(cells)["sd"] < fitted.predict(cells)["sd"]).mean() > 0.9, "the uncertainty of vectors is gone"


def test_it_serves(fitted, tmp_path):
    one = fitted.point()
    new = pd.DataFrame({"user": 900, "item": [1, 2, 5, 7], "domain": "target", "value": [4.0, 1.0, 3.0, 2.0]})
    cells = pd.DataFrame({"user": 900, "item": np.arange(30)})
    few, many = (p.fold_in(new).predict(cells)["mean"] for p in (fitted.point(draws=200), fitted))
    assert np.corrcoef(few, many)[0, 1] > 0.9
    lists = [set(br.recommend(p, [3], n=10)["item"]) for p in (one, fitted)]
    assert len(lists[0] & lists[1]) >= 7
    thompson, mean = (br.recommend(one, [3], n=5, by=by)["item"].tolist() for by in ("thompson", "mean"))
    assert thompson == mean
    back = br.load(one.save(tmp_path / "point"))
    pd.testing.assert_frame_equal(back.predict(cells), one.predict(cells))


def test_models_with_several_vectors_refuse(transfer):
    with pytest.raises(UnsupportedMethodError, match="PMF or CollectiveMF, not TransferMF"):
        transfer.point()


def test_numbers_of_draws_that_are_none(fitted):
    for draws in (0, True, 1.5):
        with pytest.raises(DataError, match="draws must be a whole number of at least 1"):
            fitted.point(draws=draws)
