"""Rules beyond the plain ones, against brute force over small cases."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from bayesrec import rules
from bayesrec.errors import DataError

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def draws():
    """(draw, user, item) with covariance between items."""
    rng = np.random.default_rng(3)
    return rng.standard_normal((80, 3, 2)) @ rng.standard_normal((2, 6)) + rng.standard_normal((80, 3, 6))


def test_quantile_is_numpys_of_each_item(draws):
    np.testing.assert_array_equal(rules.quantile(0.1)(draws, RNG), np.quantile(draws, 0.1, axis=0))


@pytest.mark.parametrize("n", [1, 2, 5, 6, 9])
def test_prob_top_counts_draws(draws, n):
    rough = np.round(draws)  # ties, also at the bound
    for given in (draws, rough):
        got = rules.prob_top(n)(given, RNG)
        for u in range(3):
            first = [sorted(range(6), key=lambda i, row=row: (-row[i], i))[:n] for row in given[:, u]]
            want = [np.mean([i in some for some in first]) for i in range(6)]
            np.testing.assert_allclose(got[u], want)
    np.testing.assert_allclose(rules.prob_top(1)(rough, RNG), rules.prob_best()(rough, RNG))


def test_certainty_equivalents(draws):
    want = -(logsumexp(-2.0 * draws, axis=0) - np.log(80)) / 2.0
    np.testing.assert_allclose(rules.expected_utility(2.0)(draws, RNG), want)
    np.testing.assert_allclose(rules.expected_utility(0.0)(draws, RNG), draws.mean(0))
    small = rules.expected_utility(1e-4)(draws, RNG)
    np.testing.assert_allclose(small, draws.mean(0) - 0.5e-4 * draws.var(0), atol=1e-7)
    far = rules.expected_utility(2.0)(draws + 1000.0, RNG)  # no overflow
    np.testing.assert_allclose(far, want + 1000.0)
    taste = rules.expected_utility(-2.0)(draws, RNG)
    assert (taste > draws.mean(0)).all()
    np.testing.assert_allclose(rules.expected_utility(lambda r: r > 1)(draws, RNG), (draws > 1).mean(0))


def _greedy(objective, n_items, n):
    """Brute force: the list that takes at every place the item with the best objective of the list so far."""
    chosen = []
    for _ in range(n):
        rest = [i for i in range(n_items) if i not in chosen]
        chosen.append(max(rest, key=lambda i: objective([*chosen, i])))
    return chosen


def test_a_list_under_risk_aversion_is_the_greedy_one(draws):
    for u in range(3):
        mine = draws[:, u]

        def worth(some, mine=mine):
            return -np.log(np.mean(np.exp(-1.5 * mine[:, some].mean(1)))) / 1.5

        utility = rules.expected_utility(1.5, n=4)(draws, RNG)[u]
        assert np.argsort(-utility)[:4].tolist() == _greedy(worth, 6, 4)


def test_mean_variance_is_the_greedy_portfolio(draws):
    for u in range(3):
        mine = draws[:, u]
        mean, cov = mine.mean(0), np.cov(mine.T, bias=True)

        def worth(some, mean=mean, cov=cov):
            w = 1.0 / np.log2(np.arange(len(some)) + 2.0)
            return w @ mean[some] - 0.8 * w @ cov[np.ix_(some, some)] @ w  # Wang and Zhu's objective of a list

        utility = rules.mean_variance(0.8, n=4)(draws, RNG)[u]
        assert np.argsort(-utility)[:4].tolist() == _greedy(worth, 6, 4)
        assert len(set(utility.tolist())) == 6, "no ties, which would be broken by id"
    np.testing.assert_array_equal(np.argsort(-rules.mean_variance(0.0, n=6)(draws, RNG)), np.argsort(-draws.mean(0)))


def test_diversification_separates_twins():
    rng = np.random.default_rng(1)
    taste, other = rng.standard_normal((2, 200))
    draws = np.stack([3.1 + taste, 3.05 + taste, 3.0 + other], 1)[:, None, :]
    assert np.argsort(-rules.mean_variance(0.5, n=2)(draws, RNG)[0])[:2].tolist() == [0, 2]
    assert np.argsort(-rules.mean()(draws, RNG)[0])[:2].tolist() == [0, 1], "planted: the mean does not"


def test_epsilon_mixes_with_chance():
    draws = np.arange(6.0)[None, None].repeat(4000, axis=1)  # every user alike: 5 is best
    first = rules.epsilon("mean", 0.3)(draws, np.random.default_rng(5)).argmax(1)
    counts = np.bincount(first, minlength=6)
    want = np.full(6, 0.3 / 6) + np.array([0, 0, 0, 0, 0, 0.7])
    assert stats.chisquare(counts, 4000 * want).pvalue > 1e-4
    for share in (0.0, 0.4, 1.0):
        lists = rules.epsilon(rules.mean(), share)(draws[:, :50], np.random.default_rng(0))
        np.testing.assert_array_equal(np.sort(lists, 1), np.arange(6.0)[None].repeat(50, axis=0))
    assert (rules.epsilon("mean", 0.0)(draws[:, :9], RNG) == np.arange(6.0)).all()
    chance = rules.epsilon("mean", 1.0)(draws[:, :3000, :3], np.random.default_rng(2)).argsort(1)
    orders = [tuple(p) for p in permutations(range(3))]
    seen = np.bincount([orders.index(tuple(row)) for row in chance.tolist()], minlength=6)
    assert stats.chisquare(seen).pvalue > 1e-4, "every order alike"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rules.quantile(0.0), "q must lie strictly between 0 and 1, not 0.0"),
        (lambda: rules.quantile("a"), "q must lie strictly between 0 and 1"),
        (lambda: rules.prob_top(0), "prob_top: n must be a whole number of at least 1, not 0"),
        (lambda: rules.expected_utility(np.inf), "aversion to risk must be a finite number"),
        (lambda: rules.expected_utility(np.exp, n=3), "a list of n=3 needs an aversion"),
        (lambda: rules.mean_variance(-1.0), "risk must be a finite number of at least 0"),
        (lambda: rules.mean_variance(1.0, n=True), "mean_variance: n must be"),
        (lambda: rules.epsilon("mean", 1.5), "share must lie between 0 and 1"),
        (lambda: rules.epsilon("best", 0.5), "unknown rule 'best'"),
    ],
)
def test_options_that_make_no_sense(make, message):
    with pytest.raises(DataError, match=message):
        make()


@pytest.mark.parametrize(
    "rule",
    [
        rules.mean(),
        rules.ucb(),
        rules.lcb(2.0),
        rules.thompson(),
        rules.quantile(0.3),
        rules.expected_utility(),
        rules.expected_utility(np.tanh),
    ],
)
def test_what_is_itemwise_is(draws, rule):
    """An item's utility is the same whoever else is there: recommend counts on it."""
    keep = np.array([0, 2, 5])
    whole = rule(draws, np.random.default_rng(1))[:, keep]
    np.testing.assert_array_equal(whole, rule(draws[:, :, keep], np.random.default_rng(1)))
    assert rule.itemwise


@pytest.mark.parametrize(
    "rule",
    [
        rules.prob_best(),
        rules.prob_top(2),
        rules.mean_variance(),
        rules.expected_utility(n=2),
        rules.epsilon("mean", 0.1),
    ],
)
def test_what_is_not_itemwise_does_not_say_so(rule):
    assert not getattr(rule, "itemwise", False)
