"""The numbers of a cell against formulas written anew."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import bayesrec as br
from bayesrec.evaluation.cells import Answer
from bayesrec.evaluation.score import METRICS, better, difference, losses, summarise
from bayesrec.evaluation.splits import Split

RNG = np.random.default_rng(2)


@pytest.fixture(scope="module")
def part(data):
    train, test = br.split.holdout(data, fraction=0.4, seed=0)
    return Split("warm", 0, train, test, float(data.value[data.is_target].min()), len(test))


def answer(part, sd=0.7):
    mean = part.test.value + 0.6 * RNG.normal(size=len(part.test))
    return Answer(
        {
            "score": mean,
            "mean": mean,
            "sd": np.full(len(mean), sd),
            "lower": mean - 1.645 * sd,
            "upper": mean + 1.645 * sd,
            "log_score": stats.norm.logpdf(part.test.value, mean, sd),
        }
    )


def jackknife(statistic, cluster):
    """Standard error of a statistic by leaving out one cluster at a time."""
    names = np.unique(cluster)
    left_out = np.array([statistic(cluster != name) for name in names])
    return np.sqrt((len(names) - 1) / len(names) * ((left_out - left_out.mean()) ** 2).sum())


def plain(part, a):
    """Every metric as a function of the rows kept."""
    y, m, s = part.test.value, a.arrays["mean"], a.arrays["sd"]
    z = (y - m) / s
    crps = s * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    return {
        "rmse": lambda keep: np.sqrt(((y - m)[keep] ** 2).mean()),
        "mae": lambda keep: np.abs(y - m)[keep].mean(),
        "nlpd": lambda keep: -stats.norm.logpdf(y, m, s)[keep].mean(),
        "crps": lambda keep: crps[keep].mean(),
        "coverage": lambda keep: (np.abs(y - m) <= 1.645 * s)[keep].mean(),
        "z2": lambda keep: (z**2)[keep].mean(),
    }


def test_metrics_and_errors_against_formulas_and_the_jackknife(part):
    a, b = answer(part), answer(part, 0.5)
    found, other = losses(a, part), losses(b, part)
    everything = np.ones(len(part.test), dtype=bool)
    one, two = plain(part, a), plain(part, b)
    assert len(part.test) > 60
    for metric, statistic in one.items():
        value, se = summarise(metric, found[metric])
        assert value == pytest.approx(statistic(everything))
        assert se == pytest.approx(jackknife(statistic, part.test.user), rel=0.12)
        gap, gap_se = difference(metric, found[metric], other[metric])
        assert gap == pytest.approx(statistic(everything) - two[metric](everything))
        both = jackknife(lambda keep, m=metric: one[m](keep) - two[m](keep), part.test.user)
        assert gap_se == pytest.approx(both, rel=0.12)


def test_rankings_are_means_over_users_with_a_plain_error(part):
    a = answer(part)
    found = losses(a, part)
    y, m, user = part.test.value, a.arrays["mean"], part.test.user
    shares = []
    for u in np.unique(user):
        rows = user == u
        if len(np.unique(y[rows])) > 1:
            shares.append(0.5 * (1 + stats.kendalltau(y[rows], m[rows]).statistic))  # no ties: tau is the same thing
    value, se = summarise("order", found["order"])
    assert value == pytest.approx(np.mean(shares))
    assert se == pytest.approx(stats.sem(shares))
    assert summarise("order", losses(Answer({"score": -m}), part)["order"])[0] == pytest.approx(1 - value)
    assert difference("order", found["order"], found["order"]) == (0.0, 0.0)
    assert 0 < summarise("ndcg@10", found["ndcg@10"])[0] < 1


def test_scores_that_are_no_ratings_have_an_order_only(part):
    found = losses(Answer({"score": RNG.normal(size=len(part.test))}), part)
    known = [metric for metric in METRICS if np.isfinite(summarise(metric, found[metric])[0])]
    assert known == ["ndcg@10", "order"]
    full = losses(answer(part), part)
    assert np.isnan(difference("rmse", full["rmse"], found["rmse"])).all()
    assert np.isfinite(difference("order", full["order"], found["order"])).all()


def test_nothing_at_all_is_nan_everywhere(part):
    found = losses(Answer({}, failed=True), part)
    for metric in METRICS:
        assert np.isnan(summarise(metric, found[metric])).all()
        assert np.isnan(difference(metric, found[metric], losses(answer(part), part)[metric])).all()


def test_one_user_has_no_standard_error(part):
    keep = part.test.user == part.test.user[0]
    alone = Split("one", 0, part.train, part.test.mask(keep), part.floor, int(keep.sum()))
    value, se = summarise("mae", losses(answer(alone), alone)["mae"])
    assert np.isfinite(value)
    assert np.isnan(se)


@pytest.mark.parametrize(
    ("metric", "a", "b", "want"),
    [
        ("rmse", 0.8, 0.9, True),
        ("rmse", 0.9, 0.8, False),
        ("order", 0.9, 0.8, True),
        ("ndcg@10", 0.5, 0.5, False),
        ("coverage", 0.9, 0.5, False),
        ("z2", 1.0, 3.0, False),
        ("rmse", np.nan, 0.8, False),
    ],
)
def test_which_is_better(metric, a, b, want):
    assert better(metric, a, b) is want
