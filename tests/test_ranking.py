"""Rules against arrays small enough to do by hand, and recommend."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

import bayesrec as br
from bayesrec import rules
from bayesrec.errors import DataError, DataWarning

# (draw, user, item): item 0 is safe, item 1 is a gamble, item 2 is hopeless
DRAWS = np.array([[[3.0, 1.0, 0.0]], [[3.0, 6.0, 0.0]], [[3.0, 1.0, 0.0]], [[3.0, 6.0, 0.0]]])
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("rule", "utility"),
    [
        (rules.mean(), [3.0, 3.5, 0.0]),
        (rules.ucb(), [3.0, 6.0, 0.0]),
        (rules.ucb(2.0), [3.0, 8.5, 0.0]),
        (rules.lcb(), [3.0, 1.0, 0.0]),
        (rules.lcb(0.4), [3.0, 2.5, 0.0]),
        (rules.prob_best(), [0.5, 0.5, 0.0]),
    ],
)
def test_rules_by_hand(rule, utility):
    np.testing.assert_allclose(rule(DRAWS, RNG), [utility])


def test_thompson_takes_one_draw_a_user_whole():
    draws = np.random.default_rng(1).standard_normal((50, 400, 3))
    chosen = rules.thompson()(draws, np.random.default_rng(2))
    which = [np.flatnonzero((draws[:, u] == chosen[u]).all(1)) for u in range(400)]
    assert all(len(w) == 1 for w in which)
    assert stats.chisquare(np.bincount(np.concatenate(which), minlength=50)).pvalue > 1e-3, "every draw alike, a user"


def test_prob_best_sums_to_one_for_each_user():
    draws = np.random.default_rng(1).standard_normal((50, 7, 4))
    utility = rules.prob_best()(draws, RNG)
    np.testing.assert_allclose(utility.sum(1), 1.0)
    assert utility[3, 2] == np.mean(draws[:, 3].argmax(1) == 2)


def test_names_and_functions_of_rules():
    assert rules.by_name("lcb")(DRAWS, RNG).tolist() == rules.lcb(1.0)(DRAWS, RNG).tolist()
    assert rules.by_name(len) is len
    with pytest.raises(DataError, match="unknown rule 'best'; known: mean, ucb, lcb, thompson, prob_best"):
        rules.by_name("best")


COLUMNS = ["user", "rank", "item", "score", "mean", "sd", "lower", "upper", "source_weight"]


def test_columns_ranks_and_numbers(transfer, target_rows):
    lists = br.recommend(transfer, [6, 20], n=4)
    assert lists.columns.tolist() == COLUMNS
    assert lists["user"].tolist() == [6] * 4 + [20] * 4
    assert lists["rank"].tolist() == [1, 2, 3, 4] * 2
    for _, part in lists.groupby("user"):
        assert part["score"].is_monotonic_decreasing
    cells = lists[["user", "item"]]
    answer = transfer.predict(cells)
    assert lists[["mean", "sd", "lower", "upper"]].equals(answer[["mean", "sd", "lower", "upper"]])
    np.testing.assert_allclose(lists["score"], lists["mean"], atol=1e-5)  # by the mean, noise or not
    assert lists["source_weight"].tolist() == br.source_weight(transfer, cells)["source"].tolist()
    wide = br.recommend(transfer, [6, 20], n=4, level=0.99)
    assert (wide["upper"] > lists["upper"]).all()


def test_the_list_is_the_best_of_all_unseen_items(transfer, target_rows):
    for user in (6, 20):
        seen = set(target_rows.loc[target_rows["user"] == user, "item"])
        rest = [i for i in range(12) if i not in seen]
        means = transfer.predict(pd.DataFrame({"user": user, "item": rest}))
        best = means.sort_values("mean", ascending=False)["item"].head(3).tolist()
        assert br.recommend(transfer, user, n=3)["item"].tolist() == best


def test_exclude_seen_nothing_a_frame_or_interactions(transfer, data, target_rows):
    users, everything = [6, 20], range(12)
    with pytest.warns(DataWarning, match=r"2 of 2 users have fewer than 12 candidates \(the first: 6\)"):
        unseen = br.recommend(transfer, users, n=12)
    assert not set(zip(unseen["user"], unseen["item"], strict=True)) & set(
        zip(target_rows["user"], target_rows["item"], strict=True)
    )
    assert unseen.groupby("user").size().tolist() == [7, 7]
    assert sorted(br.recommend(transfer, users, n=12, exclude=None)["item"]) == sorted([*everything] * 2)
    ban = pd.DataFrame({"user": [6, 6, 999], "item": [0, 1, 2]})
    with pytest.warns(DataWarning, match="1 of 3 users"):
        lists = br.recommend(transfer, [6, 20, 999], n=11, exclude=ban)
    assert set(lists.loc[lists["user"] == 6, "item"]) == set(range(2, 12))
    assert 2 not in set(lists.loc[lists["user"] == 999, "item"])  # an unknown user's ban holds too
    again = br.recommend(transfer, users, n=5, exclude=data)
    assert again.equals(br.recommend(transfer, users, n=5))
    source = ban.assign(domain="source")  # item 1 of the source is not item 1 of the target
    assert len(br.recommend(transfer, [6], n=12, exclude=source)) == 12
    with pytest.raises(DataError, match="exclude must be 'seen', None, Interactions or a frame, not 'all'"):
        br.recommend(transfer, users, exclude="all")


def test_candidates(transfer, target_rows):
    lists = br.recommend(transfer, [6], n=3, items=[4, 9, 11, 4], exclude=None)
    assert set(lists["item"]) == {4, 9, 11}
    with pytest.raises(DataError, match="item 14 was not in the fit; candidates must be items of the target"):
        br.recommend(transfer, [6], items=[4, 14])  # item 14 is one of the source
    mine = target_rows.loc[target_rows["user"] == 6, "item"].tolist()
    with pytest.warns(DataWarning, match="fewer than 10"):
        none = br.recommend(transfer, [6], items=mine)
    assert none.columns.tolist() == COLUMNS
    assert len(none) == 0


def test_items_without_a_target_row_in_training_are_no_candidates(data):
    held = data.item == data.items.encode([3], 1)[0]
    posterior = br.fit(br.models.PMF(rank=1), data.mask(~held), br.Gibbs(draws=5, warmup=5, chains=1), progress=False)
    assert 3 not in set(br.recommend(posterior, [0], n=11, exclude=None)["item"])
    with pytest.warns(DataWarning):
        assert len(br.recommend(posterior, [0], n=12, exclude=None)) == 11


def test_ties_break_by_id(transfer):
    lists = br.recommend(transfer, [6, 20], n=12, exclude=None, by=lambda draws, rng: np.zeros(draws.shape[1:]))
    assert lists["item"].tolist() == [*range(12)] * 2
    coarse = br.recommend(transfer, [6], n=12, exclude=None, by=lambda draws, rng: np.round(draws.mean(0)))
    assert coarse[["score", "item"]].equals(
        coarse[["score", "item"]].sort_values(["score", "item"], ascending=[False, True])
    )


def test_thompson_lists_are_a_users_own(transfer):
    users = [6, 20, 31, 999, 998]
    together = br.recommend(transfer, users, n=6, by="thompson", exclude=None, seed=4)
    backwards = br.recommend(transfer, users[::-1], n=6, by="thompson", exclude=None, seed=4)
    alone = pd.concat([br.recommend(transfer, [u], n=6, by="thompson", exclude=None, seed=4) for u in users])
    for other in (backwards, alone):
        other = other.sort_values(["user", "rank"], ignore_index=True)
        assert together.sort_values(["user", "rank"], ignore_index=True)[COLUMNS[:4]].equals(other[COLUMNS[:4]])
    seeds = [tuple(br.recommend(transfer, [6], n=6, by="thompson", exclude=None, seed=s)["item"]) for s in range(8)]
    assert len(set(seeds)) > 1, "another seed, another list"
    strangers = [tuple(br.recommend(transfer, [u], n=6, by="thompson", exclude=None)["item"]) for u in range(990, 998)]
    assert len(set(strangers)) > 1, "strangers have generators of their own"


def test_unknown_users_get_the_populations_list(transfer):
    lists = br.recommend(transfer, [999, 998], n=12, exclude=None)
    first, second = (lists.loc[lists["user"] == u] for u in (999, 998))
    means = transfer.predict(pd.DataFrame({"user": 999, "item": range(12)}))
    np.testing.assert_allclose(first.sort_values("item")["mean"], means["mean"])
    np.testing.assert_allclose(first.sort_values("item")["mean"], second.sort_values("item")["mean"])
    assert (lists["source_weight"] == 0).all()


def test_draws_of_a_stranger_have_the_spread_of_the_population(transfer):
    """What Thompson and UCB see of an unknown user: mean and sd of the expected rating over a new user."""
    items = np.flatnonzero(transfer.data.item_domain == 1)
    sets = [transfer.expected(-1, items, np.random.default_rng(s)) for s in range(300)]
    pooled = np.concatenate(sets)
    answer = transfer.predict(pd.DataFrame({"user": 999, "item": range(12)}))
    np.testing.assert_allclose(pooled.mean(0), answer["mean"], atol=5 * answer["sd"].max() / np.sqrt(len(pooled)))
    noise = transfer.model.likelihood.user_noise
    assert noise
    assert (pooled.std(0) < answer["sd"]).all(), "without noise the spread is smaller"
    assert (pooled.std(0) > 0.4 * answer["sd"]).all()


def test_custom_rules_see_one_user_at_a_time(transfer):
    shapes = []

    def rule(draws, rng):
        shapes.append(draws.shape)
        assert isinstance(rng, np.random.Generator)
        return -draws.mean(0)

    worst = br.recommend(transfer, [6, 20], n=12, by=rule, exclude=None)
    assert shapes == [(60, 1, 12)] * 2
    best = br.recommend(transfer, [6, 20], n=12, exclude=None)
    assert worst.loc[worst["user"] == 6, "item"].tolist() == best.loc[best["user"] == 6, "item"].tolist()[::-1]
    with pytest.raises(DataError, match=r"the rule returned shape \(12,\) for draws of 1 user and 12 items"):
        br.recommend(transfer, [6], by=lambda draws, rng: draws.mean((0, 1)), exclude=None)


@pytest.mark.parametrize("by", ["mean", "ucb", "lcb", "thompson", "prob_best"])
def test_every_named_rule_ranks(transfer, by):
    lists = br.recommend(transfer, [6], n=5, by=by)
    utility = lists["score"].to_numpy()
    assert (np.diff(utility) <= 0).all()
    assert lists["item"].is_unique


def test_bad_requests(transfer):
    for n in (0, -1, 2.5, True):
        with pytest.raises(DataError, match="n must be a whole number of at least 1"):
            br.recommend(transfer, [6], n=n)
    with pytest.raises(DataError, match="users is empty"):
        br.recommend(transfer, [])
    with pytest.raises(DataError, match="user 6 is named twice"):
        br.recommend(transfer, [6, 20, 6])
    with pytest.raises(DataError, match="unknown rule 'best'"):
        br.recommend(transfer, [6], by="best")


def test_polars_lists(frame):
    data = br.Interactions.from_frame(pl.from_pandas(frame), target="target")
    posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=5, warmup=5, chains=1), progress=False)
    lists = br.recommend(posterior, pl.Series([6, 20]), n=2)
    assert isinstance(lists, pl.DataFrame)
    assert lists.columns == COLUMNS
    assert lists["user"].to_list() == [6, 6, 20, 20]
