"""evaluate_ranking against a few lines of brute force; whose items are negatives; samples that depend on ids alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.errors import DataError, DataWarning
from bayesrec.evaluation import ranking
from bayesrec.evaluation.candidates import Candidates
from bayesrec.metrics import list_metrics

N_ITEMS = 25


def table(seed=0, n_users=30):
    """Clicks of users with 3 to 9 of 25 target items, popular ones first, and a source."""
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, N_ITEMS + 1)
    rows = [
        (f"u{u}", f"i{i}", name)
        for u in range(n_users)
        for name, n in (("source", 4), ("target", int(rng.integers(3, 10))))
        for i in rng.choice(N_ITEMS, n, replace=False, p=weight / weight.sum())
    ]
    return pd.DataFrame(rows, columns=["user", "item", "domain"])


def held_out(data):
    """Train and test, without the test rows of items that train does not have."""
    train, test = br.split.holdout(data, fraction=0.3, seed=1)
    return train, test.mask(np.isin(test.item, train.item[train.is_target]))


@pytest.fixture
def split():
    return held_out(br.Interactions.from_frame(table(), target="target", value=None))


def letter(user, items):
    """A score that depends on user and item, without ties."""
    return np.array([hash_of(user, item) for item in items])


def hash_of(*words):
    return sum(ord(c) * (7 * k + 3) ** 2 for k, c in enumerate("|".join(map(str, words)))) * 0.618 % 1


@pytest.fixture
def sets(split):
    """Items of the target by user, in train and in test, and the catalogue."""
    train, test = (part.mask(part.is_target).to_frame() for part in split)
    by = [{user: set(rows["item"]) for user, rows in part.groupby("user")} for part in (train, test)]
    return (*by, sorted(set(train["item"])))


def test_full_ranking_is_brute_force(split, sets):
    train, test = split
    before, held, catalogue = sets
    result = br.evaluate_ranking({"letter": letter}, train, test, n=4)
    count = train.mask(train.is_target).to_frame()["item"].value_counts()
    for name in ("popularity", "letter"):
        expected = {}
        for user in held:
            items = [item for item in catalogue if item not in before.get(user, ())]
            score = [count[item] if name == "popularity" else hash_of(user, item) for item in items]
            one = list_metrics(np.zeros(len(items)), np.array(score), np.array([i in held[user] for i in items]), 4)
            expected[user] = {metric: values[0] for metric, values in one.items()}
        mine = result.lists[result.lists["model"] == name].set_index("user")
        wanted = pd.DataFrame(expected).T.loc[mine.index]
        pd.testing.assert_frame_equal(mine[wanted.columns], wanted, check_names=False)
        frame = result.frame[result.frame["model"] == name].set_index("metric")
        assert np.allclose(frame.loc[wanted.columns, "mean"], wanted.mean())
        assert np.allclose(frame.loc[wanted.columns, "se"], wanted.std(ddof=1) / np.sqrt(len(wanted)))
        assert (frame["n_users"] == len(held)).all()
    top = {u: sorted(set(catalogue) - before.get(u, set()), key=lambda i, u=u: -hash_of(u, i))[:4] for u in held}
    frame = result.frame[result.frame["model"] == "letter"].set_index("metric")["mean"]
    assert np.isclose(frame["coverage@4"], len({i for items in top.values() for i in items}) / len(catalogue))
    bits = [np.mean([-np.log2(count[i] / train.n_users) for i in items]) for items in top.values()]
    assert np.isclose(frame["novelty@4"], np.mean(bits))
    assert "popularity" in repr(result)


def test_popularity_is_always_a_row(split):
    assert br.evaluate_ranking({}, *split).frame["model"].unique().tolist() == ["popularity"]
    with pytest.raises(DataError, match="taken"):
        br.evaluate_ranking({"popularity": letter}, *split)


@pytest.mark.parametrize("how", ["uniform", "popularity"])
@pytest.mark.parametrize("each", [False, True])
def test_no_negative_was_taken(split, sets, how, each):
    train, test = split
    before, held, _ = sets
    lists = Candidates(train, test, (how, 6), 0, each, None, None)
    assert set(lists.user_id) == set(held)
    for k, user in enumerate(lists.user_id):
        mine = lists.of(k)
        assert len(mine) == (len(held[user]) if each else 1)
        for item, relevant in mine:
            names = train.items.decode(item)
            assert len(set(names)) == len(names) == relevant.sum() + 6
            assert not set(names[~relevant]) & (held[user] | before.get(user, set()))
            assert set(names[relevant]) <= held[user]
        found = [set(train.items.decode(item[relevant])) for item, relevant in mine]
        assert set.union(*found) == held[user]


def test_excluded_rows_are_no_negatives(split, sets):
    train, test = split
    before, held, catalogue = sets
    user = min(held)
    free = [item for item in catalogue if item not in before.get(user, set()) | held[user]]
    more = pd.DataFrame({"user": user, "item": free[:-3], "domain": "target"})
    lists = Candidates(train, test, "all", 0, False, more, None)
    item, relevant = lists.of(list(lists.user_id).index(user))[0]
    assert set(train.items.decode(item[~relevant])) == set(free[-3:])


@pytest.mark.parametrize("negatives", [("uniform", 5), ("popularity", 5)])
@pytest.mark.parametrize("each", [False, True])
def test_a_sample_depends_on_seed_and_ids_alone(negatives, each):
    frame = table()
    rng = np.random.default_rng(3)
    held = (frame["domain"] == "target").to_numpy() & (rng.random(len(frame)) < 0.3)

    def samples(order, users=None, seed=0):
        rows, out = frame.iloc[order], held[order]
        train = br.Interactions.from_frame(rows[~out], target="target", value=None)
        test = rows[out] if users is None else rows[out & rows["user"].isin(users).to_numpy()]
        test = test[test["item"].isin(rows["item"][~out & (rows["domain"] == "target").to_numpy()])]
        lists = Candidates(train, test, negatives, seed, each, None, None)
        return {
            user: [frozenset(train.items.decode(item[~relevant])) for item, relevant in lists.of(k)]
            for k, user in enumerate(lists.user_id)
        }

    order = np.arange(len(frame))
    first = samples(order)
    assert samples(rng.permutation(order)) == first
    some = list(first)[::3]
    # a test row less is a row that may be drawn, so the training set must be the same: only who is asked for changes
    assert samples(order, some) == {user: first[user] for user in first if user in some}
    assert samples(order, seed=1) != first


def test_samples_have_the_chances_that_they_claim():
    """One user, one positive; how often an item is drawn first. 4,000 seeds: a chi-square over 9 items, bound at p = 1e-6."""
    counts = np.array([1, 2, 4, 8, 16, 1, 2, 4, 8])
    rows = [(f"v{k}", f"i{item}") for item, n in enumerate(counts) for k in range(n)] + [("v0", "pos")]
    frame = pd.DataFrame(rows, columns=["user", "item"])
    train = br.Interactions.from_frame(frame, target="t", domain=None, value=None)
    test = pd.DataFrame({"user": ["new"], "item": ["pos"]})
    for how, weight in (("uniform", np.ones(9)), ("popularity", counts)):
        drawn, lists = np.zeros(9), Candidates(train, test, (how, 1), 0, True, None, None)
        for seed in range(4000):
            lists.seed = seed
            item, relevant = lists.of(0)[0]
            drawn[int(train.items.decode(item[~relevant])[0][1:])] += 1
        expected = 4000 * weight / weight.sum()
        assert ((drawn - expected) ** 2 / expected).sum() < 45.0  # the 1 - 4e-7 quantile at 8 degrees of freedom


def test_each_test_row_has_its_own_list(split, sets):
    train, test = split
    before, held, catalogue = sets
    result = br.evaluate_ranking({"letter": letter}, train, test, each=True)
    mine = result.lists[result.lists["model"] == "letter"]
    assert set(zip(mine["user"], mine["item"], strict=True)) == {(u, i) for u, items in held.items() for i in items}
    for row in mine.itertuples():
        others = set(catalogue) - before.get(row.user, set()) - held[row.user]
        above = sum(hash_of(row.user, i) > hash_of(row.user, row.item) for i in others)
        assert np.isclose(row.mrr, 1 / (1 + above))
    frame = result.frame[(result.frame["model"] == "letter") & (result.frame["metric"] == "mrr")]
    mean, se = br.metrics.clustered_mean(mine["mrr"].to_numpy(), mine["user"].to_numpy())
    assert np.allclose(frame[["mean", "se"]], [[mean, se]])
    with pytest.warns(DataWarning, match="Krichene and Rendle 2020"):
        sampled = br.evaluate_ranking({"letter": letter}, train, test, negatives=("uniform", 8), each=True)
    assert "coverage@10" not in set(sampled.frame["metric"])
    assert (sampled.lists["mrr"] >= 1 / 9).all()


def test_differences_are_paired_by_user(split):
    result = br.evaluate_ranking({"letter": letter, "same": letter}, *split)
    same = result.difference("letter", "same")
    assert (same[["difference", "se"]] == 0).all().all()
    gap = result.difference("letter").set_index("metric").loc["ndcg@10"]
    a, b = (result.lists.loc[result.lists["model"] == name, "ndcg@10"].to_numpy() for name in ("letter", "popularity"))
    assert np.isclose(gap["difference"], (a - b).mean())
    assert np.isclose(gap["se"], (a - b).std(ddof=1) / np.sqrt(len(a)))
    with pytest.raises(DataError, match="did you mean 'letter'"):
        result.difference("leter")


def test_blocks_change_nothing(split, monkeypatch):
    whole = br.evaluate_ranking({"letter": letter}, *split)
    monkeypatch.setattr(ranking, "BLOCK", 30)
    pd.testing.assert_frame_equal(br.evaluate_ranking({"letter": letter}, *split).frame, whole.frame)


def test_a_posterior_scores_by_its_expected_ratings(transfer, pmf, data):
    rows = data.mask(data.is_target).to_frame()
    seen = set(zip(rows["user"], rows["item"], strict=True))
    new = [(u, i, "target") for u in (0, 1, 2, 7, "nobody") for i in sorted(set(rows["item"])) if (u, i) not in seen][
        ::3
    ]
    test = pd.DataFrame(new, columns=["user", "item", "domain"])
    test = test[test["user"] != "nobody"].astype({"user": "int64"})
    result = br.evaluate_ranking({"transfer": transfer, "pmf": pmf}, data, test, n=3)

    def predicted(user, items):
        cells = pd.DataFrame({"user": user, "item": items, "domain": "target"})
        return transfer.predict(cells)["mean"].to_numpy()

    again = br.evaluate_ranking({"transfer": predicted}, data, test, n=3)
    for metric in ("ndcg@3", "mrr"):
        one, two = (r.frame.set_index(["model", "metric"])["mean"]["transfer", metric] for r in (result, again))
        assert np.isclose(one, two)
    assert result.frame["model"].unique().tolist() == ["popularity", "transfer", "pmf"]


def test_unknown_users_are_ranked_apart(split):
    train, _ = split
    test = pd.DataFrame({"user": ["new", "other", "new"], "item": ["i0", "i1", "i1"], "domain": "target"})
    result = br.evaluate_ranking({"bias": br.baselines.popularity(train)}, train, test)
    assert result.lists["user"].tolist() == ["new", "other"] * 2


def test_ratings_below_a_bound_are_neither_relevant_nor_negatives():
    frame = pd.DataFrame({"user": [1, 1, 2, 2, 2], "item": list("abacd"), "rating": [5, 4, 3, 5, 1]})
    train = br.Interactions.from_frame(frame, target="t", domain=None)
    test = pd.DataFrame({"user": [1, 1, 3], "item": ["c", "d", "a"], "rating": [5.0, 2.0, 2.0]})
    lists = Candidates(train, test, "all", 0, False, None, 4)
    assert lists.user_id.tolist() == [1]
    item, relevant = lists.of(0)[0]
    assert (train.items.decode(item).tolist(), relevant.tolist()) == (["c"], [True])


def test_what_is_left_out_or_short_is_said(split):
    train, test = split
    odd = pd.concat([test.to_frame(), pd.DataFrame({"user": ["u0"], "item": ["never"], "domain": ["target"]})])
    with pytest.warns(DataWarning, match="1 of .* test rows .*'never'"):
        br.evaluate_ranking({}, train, odd)
    with pytest.warns(DataWarning) as said:
        br.evaluate_ranking({}, train, test, negatives=("uniform", 400))
    assert any("fewer than 400" in str(one.message) for one in said)


@pytest.mark.parametrize("given", ["some", ("uniform", 0), ("uniform", True), ("rare", 9), ("uniform",), 99])
def test_bad_negatives_are_named(split, given):
    with pytest.raises(DataError, match="negatives must be"):
        br.evaluate_ranking({}, *split, negatives=given)


def test_bad_input_is_named(split):
    train, test = split
    with pytest.raises(TypeError, match="fit the model first"):
        br.evaluate_ranking({"pmf": br.models.PMF()}, train, test)
    with pytest.raises(DataError, match=r"'nan': .* NaN"):
        br.evaluate_ranking({"nan": lambda user, items: np.full(len(items), np.nan)}, train, test)
    with pytest.raises(DataError, match="have shape"):
        br.evaluate_ranking({"short": lambda user, items: np.zeros(1)}, train, test)
    with pytest.raises(DataError, match="in train and in test"):
        br.evaluate_ranking({}, train, train.mask(train.is_target))
    with pytest.raises(DataError, match="only items of 'target'"):
        br.evaluate_ranking({}, train, train.mask(~train.is_target))
    with pytest.raises(DataError, match="no target rows"):
        br.evaluate_ranking({}, train.mask(~train.is_target), test)
    with pytest.raises(DataError, match="n must be"):
        br.evaluate_ranking({}, train, test, n=0)
    with pytest.raises(DataError, match="seed"):
        br.evaluate_ranking({}, train, test, seed=-1)
    with pytest.raises(DataError, match="transposed"):
        br.evaluate_ranking({}, train.transposed(), test)
    with pytest.raises(DataError, match="no test row"):
        br.evaluate_ranking({}, train, test, min_rating=2)


def test_shared_items_rank_items_for_the_target_s_users():
    frame = table(5)
    data = br.Interactions.from_frame(frame, target="target", value=None, shared="items")
    train, test = held_out(data)
    result = br.evaluate_ranking({"letter": letter}, train, test)
    assert set(result.lists["user"]) == set(test.to_frame()["user"])
    assert result.frame["mean"].notna().all()
