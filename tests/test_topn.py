"""Quick utilities and lists against the rules on all draws, and predictions against the model's score."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bayesrec as br
from bayesrec.posterior import predictive, topn
from bayesrec.posterior.lists import ExpectedRatings
from bayesrec.rules import by_name


def _rng_of(place):
    return np.random.default_rng([7, place])


@pytest.mark.parametrize("n_users", [3, 40], ids=["few", "many"])
@pytest.mark.parametrize("rule", ["mean", "lcb", "thompson", br.rules.ucb(2.5)], ids=["mean", "lcb", "thompson", "ucb"])
def test_quick_utilities_are_those_of_the_draws(rule, n_users, transfer):
    rule, users = by_name(rule), np.append(np.arange(n_users), -1)
    items = np.flatnonzero(transfer.data.item_domain == 1)[[0, 2, 3, 7, 11]]
    ratings = ExpectedRatings(transfer, items, n_users)
    assert ratings.quick(rule)
    got = [one.copy() for one in ratings.utilities(users, rule, _rng_of)]
    want = [
        rule(transfer.expected(int(u), items)[:, None, :].astype(float), _rng_of(k))[0] for k, u in enumerate(users)
    ]
    np.testing.assert_allclose(got, want, rtol=3e-6)
    other = np.abs(np.array(got) - [transfer.expected(int(u), items).max(0) for u in users]).max()
    assert other > 1e-2, "planted fault: another rule"
    assert not ratings.quick(br.rules.quantile(0.3))


def test_an_entry_does_not_depend_on_who_stands_beside_it(pmf):
    items, rule = np.arange(pmf.data.n_items), by_name("ucb")
    many = [x.copy() for x in ExpectedRatings(pmf, items, 40).utilities(np.arange(40), rule, _rng_of)]
    for user in (0, 17, 39):
        (alone,) = ExpectedRatings(pmf, items, 1).utilities(np.array([user]), rule, _rng_of)
        np.testing.assert_array_equal(alone, many[user])


def test_the_best_of_a_list_in_order_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n_items, n = rng.integers(1, 30), int(rng.integers(1, 12))
        utility, keep = rng.integers(0, 6, n_items).astype(np.float32), rng.random(n_items) < 0.7
        utility[rng.random(n_items) < 0.1] = -np.inf
        want = [i for i in np.argsort(-utility, kind="stable") if keep[i]][:n]
        place = np.empty(n, dtype=np.int64)
        assert place[: topn.top(utility, keep, n, place)].tolist() == want


def test_scores_are_those_of_the_model(transfer):
    data = transfer.data
    rows = predictive.compact(transfer.model, transfer.draws, transfer.schema, data.user, data.item, data.domain)
    got, want = predictive._scores(transfer.model, rows), transfer.model.score(rows.latents, rows.batch)
    assert torch.equal(got, want)
