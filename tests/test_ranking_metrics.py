"""Metrics of lists against every order of the tied items, and against pytrec_eval through ir-measures."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from bayesrec import metrics
from bayesrec.errors import DataError
from bayesrec.metrics import calibration_error, list_coverage, list_metrics, list_novelty


def one_order(hits, n):
    """Metrics of one list without ties, written out."""
    top, total = hits[:n], sum(hits)
    first = next((k + 1 for k, hit in enumerate(hits) if hit), None)
    ideal = sum(1 / np.log2(k + 2) for k in range(min(total, n)))
    return {
        f"hr@{n}": float(any(top)),
        f"ndcg@{n}": sum(hit / np.log2(k + 2) for k, hit in enumerate(top)) / ideal,
        f"mrr@{n}": 1 / first if first <= n else 0.0,
        f"map@{n}": sum(hit * sum(hits[: k + 1]) / (k + 1) for k, hit in enumerate(top)) / total,
        f"recall@{n}": sum(top) / total,
        f"precision@{n}": sum(top) / n,
        "mrr": 1 / first,
    }


def orders(score):
    """Every order of the rows that the scores allow."""
    return [
        p for p in permutations(range(len(score))) if all(score[a] >= score[b] for a, b in zip(p, p[1:], strict=False))
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_ties_are_the_mean_over_all_orders(n):
    rng = np.random.default_rng(n)
    user, score, relevant, expected, top = [], [], [], [], []
    for u in range(25):
        size = int(rng.integers(1, 7))
        s = rng.integers(0, 3, size).astype(float)
        if u % 5 == 0:
            s[s == 0] = -np.inf
        r = rng.random(size) < 0.4
        r[rng.integers(size)] = True
        each = [one_order([int(r[k]) for k in p], n) for p in orders(s)]
        expected.append({name: np.mean([one[name] for one in each]) for name in each[0]})
        top.append([np.mean([k in p[:n] for p in orders(s)]) for k in range(size)])
        user, score, relevant = user + [u] * size, score + [*s], relevant + [*r]
    shuffle = rng.permutation(len(user))
    user, score, relevant = (np.array(x)[shuffle] for x in (user, score, relevant))
    found = list_metrics(user, score, relevant, n)
    for name in expected[0]:
        np.testing.assert_allclose(found[name], [one[name] for one in expected], atol=1e-12, err_msg=name)
    assert [*found] == [*metrics.list_names(n)] == [*expected[0]]
    information = rng.random(len(user))
    chance = np.array([c for one in top for c in one])[shuffle]
    mean = [np.average(information[user == u], weights=chance[user == u]) for u in range(25)]
    np.testing.assert_allclose(list_novelty(user, score, information, n), mean)


def test_coverage_is_the_mean_over_all_orders():
    score = {0: [2.0, 1.0, 1.0, 1.0], 1: [1.0, 1.0, 0.0], 2: [5.0, 5.0]}
    item = {0: [0, 1, 2, 3], 1: [1, 4, 0], 2: [4, 5]}
    seen = []
    for a in orders(score[0]):
        for b in orders(score[1]):
            for c in orders(score[2]):
                shown = zip((0, 1, 2), (a, b, c), strict=True)
                seen.append(len({item[u][k] for u, p in shown for k in p[:2]}) / 10)
    user = np.repeat([0, 1, 2], [4, 3, 2])
    flat = [np.concatenate([part[u] for u in range(3)]) for part in (item, score)]
    assert np.isclose(list_coverage(user, *flat, n=2, items=10), np.mean(seen))
    assert np.isclose(list_coverage(user, *flat, n=2), np.mean(seen) * 10 / 6)
    with pytest.raises(DataError, match="6 different items"):
        list_coverage(user, *flat, items=3)


def test_without_ties_against_trec_eval():
    measures = pytest.importorskip("ir_measures", reason="the oracle comes with bayesrec[dev]")
    rng = np.random.default_rng(0)
    user, item = np.repeat(np.arange(40), 30), np.tile(np.arange(30), 40)
    score, relevant = rng.permutation(1200).astype(float), rng.random(1200) < 0.15
    relevant[::30] = True
    n = 10
    wanted = {
        measures.Success @ n: f"hr@{n}",
        measures.nDCG @ n: f"ndcg@{n}",
        measures.AP @ n: f"map@{n}",
        measures.R @ n: f"recall@{n}",
        measures.P @ n: f"precision@{n}",
        measures.RR: "mrr",
    }
    qrels = [measures.Qrel(f"{u:02}", str(i), int(r)) for u, i, r in zip(user, item, relevant, strict=True)]
    run = [measures.ScoredDoc(f"{u:02}", str(i), s) for u, i, s in zip(user, item, score, strict=True)]
    theirs = {name: np.zeros(40) for name in metrics.list_names(n)}
    for row in measures.pytrec_eval.iter_calc(list(wanted), qrels, run):
        theirs[wanted[row.measure]][int(row.query_id)] = row.value
    # trec_eval cuts no reciprocal rank: give it the first n alone
    shown = [run[k] for u in range(40) for k in u * 30 + np.argsort(-score[u * 30 : u * 30 + 30])[:n]]
    for row in measures.pytrec_eval.iter_calc([measures.RR], qrels, shown):
        theirs[f"mrr@{n}"][int(row.query_id)] = row.value
    for name, mine in list_metrics(user, score, relevant, n).items():
        np.testing.assert_allclose(mine, theirs[name], atol=1e-9, err_msg=name)


def test_large_groups_of_ties_stay_finite():
    score, relevant = np.zeros(20000), np.zeros(20000, dtype=bool)
    relevant[:40] = True
    out = list_metrics(np.zeros(20000), score, relevant)
    assert np.isclose(out["precision@10"][0], 40 / 20000)
    miss = np.prod([(19960 - k) / (20000 - k) for k in range(10)])
    assert np.isclose(out["hr@10"][0], 1 - miss, rtol=1e-6)
    assert 0 < out["mrr@10"][0] < out["mrr"][0] < 0.02


def test_a_user_without_a_relevant_item_is_not_a_zero():
    out = list_metrics(np.array(["b", "a", "b"]), np.array([1.0, 2.0, 3.0]), np.array([1, 0, 0]))
    assert all(np.isnan(values[0]) and np.isfinite(values[1]) for values in out.values())


def test_empty_arrays_are_empty_answers():
    out = list_metrics(np.empty(0), np.empty(0), np.empty(0, dtype=bool))
    assert all(values.shape == (0,) for values in out.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": np.array([1.0, np.nan])}, "row 1 is NaN"),
        ({"relevant": np.array([5.0, 1.0])}, "row 0 has"),
        ({"relevant": np.array([1])}, "relevant has shape"),
        ({"user": np.array([1])}, "user has shape"),
        ({"n": 0}, "n must be"),
        ({"n": True}, "n must be"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"user": np.array([0, 0]), "score": np.array([1.0, 2.0]), "relevant": np.array([0, 1]), "n": 10} | change
    with pytest.raises(DataError, match=message):
        list_metrics(**given)


def test_calibration_error_of_a_forecast_with_a_known_fault():
    # 5,000 users, 8 rows each; a fault of .1 in every probability. The chance of an error outside 5 SE is below 1e-5.
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.1, 0.8, 40000)
    click, user = rng.random(40000) < truth, np.repeat(np.arange(5000), 8)
    error, se = calibration_error(click, truth + 0.1, user)
    assert 0.001 < se < 0.005
    assert abs(error - 0.1) < 5 * se
    good, _ = calibration_error(click, truth, user)
    assert good < 0.012  # ten bins, each off by .008 sd on average


def test_calibration_error_by_hand_and_its_bins():
    probability = np.array([0.1, 0.1, 0.1, 0.6, 0.6, 0.9])
    click = np.array([0, 0, 1, 1, 1, 1])
    expected = (3 * abs(1 / 3 - 0.1) + 2 * 0.4 + 0.1) / 6
    assert np.isclose(calibration_error(click, probability, np.arange(6), bins=10)[0], expected)
    order = np.array([5, 2, 0, 4, 1, 3])
    assert np.isclose(calibration_error(click[order], probability[order], np.arange(6), bins=10)[0], expected)
    whole = abs(click.mean() - probability.mean())
    assert np.isclose(calibration_error(click, probability, np.arange(6), bins=1)[0], whole)
    # the same rows three times are no more information
    once, thrice = (
        calibration_error(np.repeat(click, k), np.repeat(probability, k), np.repeat(np.arange(6), k)) for k in (1, 3)
    )
    np.testing.assert_allclose(once, thrice)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": np.array([0.2, 1.2])}, "row 1"),
        ({"relevant": np.array([3, 1])}, "row 0"),
        ({"bins": 0}, "bins"),
        ({"user": np.array([1])}, "shape"),
    ],
)
def test_bad_probabilities_are_named(change, message):
    given = {"relevant": np.array([0, 1]), "probability": np.array([0.2, 0.9]), "user": np.array([0, 1])} | change
    with pytest.raises(DataError, match=message):
        calibration_error(**given)
