"""next_question against explicit conditioning and against folding in."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.elicitation import questions
from bayesrec.errors import DataError


def _brute(covs, noises, asked):
    """Mean over models of the summed variance after ratings of some items, by inverting their joint covariance."""
    total = 0.0
    for cov, noise in zip(covs, noises, strict=True):
        k = cov[:, asked]
        total += np.trace(cov - k @ np.linalg.solve(cov[np.ix_(asked, asked)] + np.diag(noise[asked]), k.T))
    return total / len(covs)


@pytest.mark.parametrize("n_models", [1, 4])
def test_questions_are_the_greedy_ones(n_models):
    rng = np.random.default_rng(n_models)
    roots, noise = rng.standard_normal((n_models, 3, 7)), rng.uniform(0.2, 2.0, (n_models, 7))
    covs = roots.transpose(0, 2, 1) @ roots
    chosen, reduction, left = questions(roots, noise, 5)
    start, asked = np.trace(covs, axis1=1, axis2=2).mean(), []
    before = start
    for step in range(5):
        after = {i: _brute(covs, noise, [*asked, i]) for i in range(7) if i not in asked}
        best = min(after, key=after.get)
        assert chosen[step] == best
        np.testing.assert_allclose(reduction[step], before - after[best])
        np.testing.assert_allclose(left[step], after[best] / start)
        asked, before = [*asked, best], after[best]
    order = np.argsort(-(roots**2).sum(1).mean(0))
    assert chosen.tolist() != order[:5].tolist(), "planted fault: the most uncertain items are other ones"


def test_more_questions_than_items_and_nothing_to_learn():
    chosen, _, left = questions(np.zeros((1, 2, 3)), np.ones((1, 3)), 9)
    assert sorted(chosen) == [0, 1, 2]
    assert (left == 0).all()


@pytest.fixture(scope="module")
def calm(data):
    model = br.models.PMF(rank=2, likelihood=br.Gaussian(user_noise=False))
    return br.fit(model, data, br.Gibbs(draws=30, warmup=30, chains=2), progress=False)


def test_a_strangers_reduction_is_what_folding_in_does(calm):
    """One draw of items repeated: the variance over the draws of a newcomer who answers is what is left.

    The answer's value does not matter; variances of 4,000 draws have a relative error of 2.2%, their sum less.
    """
    one = {name: np.repeat(x[:1, :1], 40000, axis=1) for name, x in calm.draws.items()}
    fixed = replace(calm, draws=one)
    asked = br.next_question(replace(calm, draws={n: x[:1, :1] for n, x in calm.draws.items()}), "new", n=2)
    items = np.arange(12)
    ids = count(1000)

    def spread(answers):
        user = next(ids)
        more = fixed.fold_in(
            pd.DataFrame({"user": user, "item": answers, "domain": "target", "rating": 3.0}), alone=True
        )
        return more.expected(0, items).var(0).sum()

    first, second = asked["item"].tolist()
    start = asked["reduction"][0] / (1.0 - asked["left"][0])
    after = [spread([first]), spread([first, second])]
    np.testing.assert_allclose(after, start * asked["left"], rtol=0.05)
    others = [spread([item]) for item in range(12) if item != first]
    assert min(others) > 0.95 * after[0], "no other question leaves less"
    assert max(others) > 1.1 * after[0], "it matters which"


def test_a_known_user_by_the_covariance_of_the_draws(transfer, target_rows):
    asked = br.next_question(transfer, 6, n=3)
    seen = set(target_rows.loc[target_rows["user"] == 6, "item"])
    rest = np.array([i for i in range(12) if i not in seen])
    codes = transfer.data.items.encode(rest, 1)
    cov = np.cov(transfer.expected(6, codes).T)
    x = transfer.latents()
    spread = 3.0 * np.tanh(x["user_log_precision"].numpy()[:, 1, 6] / 3.0)
    noise = (x["noise"].numpy()[:, 1] ** 2 * np.exp(-spread)).mean() * transfer.schema.scale[1] ** 2
    taken = []
    for k in range(3):
        after = {i: _brute([cov], [np.full(len(rest), noise)], [*taken, i]) for i in range(len(rest)) if i not in taken}
        taken.append(min(after, key=after.get))
        np.testing.assert_allclose(asked["left"][k], after[taken[-1]] / np.trace(cov), rtol=1e-4)
    assert asked["item"].tolist() == rest[taken].tolist()


def test_frames_candidates_and_several_users(transfer):
    asked = br.next_question(transfer, [6, "new", 20], n=2, items=[0, 3, 4, 7, 9])
    assert asked.columns.tolist() == ["user", "rank", "item", "reduction", "left"]
    assert asked["user"].tolist() == [6, 6, "new", "new", 20, 20]
    assert asked["rank"].tolist() == [1, 2] * 3
    assert set(asked["item"]) <= {0, 3, 4, 7, 9}
    assert (asked["reduction"] > 0).all()
    assert asked["left"].between(0, 1).all()
    alone = br.next_question(transfer, 20, n=2, items=[0, 3, 4, 7, 9])
    np.testing.assert_allclose(alone["left"], asked["left"][4:])


def test_requests_that_make_no_sense(transfer, data):
    with pytest.raises(DataError, match="n must be a whole number of at least 1, not 0"):
        br.next_question(transfer, 6, n=0)
    with pytest.raises(DataError, match="user 6 is named twice"):
        br.next_question(transfer, [6, 6])
    with pytest.raises(DataError, match="item 99 was not in the fit"):
        br.next_question(transfer, 6, items=[99])
    rated = data.items.decode(data.item[data.is_target & (data.user == 6)]).tolist()
    with pytest.raises(DataError, match="user 6 has rated every candidate"):
        br.next_question(transfer, 6, items=rated)


def test_items_that_are_shared(frame):
    swapped = frame.rename(columns={"user": "item", "item": "user"})
    data = br.Interactions.from_frame(swapped, target="target", shared="items")
    posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=20, warmup=10, chains=1), progress=False)
    asked = br.next_question(posterior, [0, "new"], n=2)
    assert asked.columns[0] == "user"
    assert asked["left"].between(0, 1).all()
