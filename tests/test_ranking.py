"""Rules against arrays small enough to do by hand, and recommend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

import bayesrec as br
from bayesrec import rules
from bayesrec.errors import DataError, DataWarning
from bayesrec.posterior.lists import ExpectedRatings

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


def test_what_is_ranked_of_a_stranger_has_the_mean_that_predict_says(transfer):
    items = np.flatnonzero(transfer.data.item_domain == 1)
    answer = transfer.predict(pd.DataFrame({"user": 999, "item": range(12)}))
    draws = transfer.expected(-1, items)
    np.testing.assert_allclose(draws.mean(0), answer["mean"], rtol=1e-12)
    assert (draws.std(0) > 0.4 * answer["sd"]).all(), "the spread of a new user is there"
    lists = br.recommend(transfer, [999], n=12, exclude=None)
    np.testing.assert_allclose(lists["score"], lists["mean"], rtol=1e-12)
    assert lists["mean"].is_monotonic_decreasing


def test_draws_of_a_stranger_have_the_spread_of_the_population(transfer):
    """Given many draws their sds are those of the mixture over a draw's population, without noise."""
    many = replace(
        transfer, draws={name: np.tile(x, (1, 100) + (1,) * (x.ndim - 2)) for name, x in transfer.draws.items()}
    )
    items = np.flatnonzero(transfer.data.item_domain == 1)
    want, scale = [], transfer.schema.scale[-1]
    for chain in range(2):
        for draw in range(30):
            x = transfer.draw(chain, draw)
            w, source = x["map"][0], np.append(x["source_bias_scale"], np.ones(2)) ** 2
            cov = x["user_cov"] + (w * source) @ w.T
            v = np.column_stack([np.ones(len(items)), x["item_vector"][items, 1:]])
            mean = v @ x["user_mean"] + x["item_vector"][items, 0]
            want.append((mean, mean**2 + np.einsum("ni,ij,nj->n", v, cov, v)))
    mean, square = np.mean(want, axis=0)
    sd = scale * np.sqrt(square - mean**2)
    np.testing.assert_allclose(many.expected(-1, items).std(0), sd, rtol=0.05)


@pytest.mark.parametrize("by", ["mean", "ucb", "lcb", "prob_best"])
def test_all_strangers_have_one_list_whatever_the_seed(transfer, by):
    lists = [br.recommend(transfer, range(990, 998), n=12, by=by, exclude=None, seed=seed) for seed in range(3)]
    for part in (part for some in lists for _, part in some.groupby("user")):
        assert part["item"].tolist() == lists[0]["item"].tolist()[:12]
        assert part["score"].tolist() == lists[0]["score"].tolist()[:12]


def test_known_and_unknown_ids_of_two_types_in_one_request(transfer):
    lists = br.recommend(transfer, [6, "new", 999], n=2, exclude=None)
    assert lists["user"].tolist() == [6, 6, "new", "new", 999, 999]
    alone = br.recommend(transfer, [6], n=2, exclude=None)
    assert lists["item"].tolist()[:2] == alone["item"].tolist()
    assert lists["mean"].tolist()[:2] == alone["mean"].tolist()
    with pytest.raises(DataError, match=r"item 'x' was not in the fit"):
        br.recommend(transfer, [6], items=[4, "x"])
    with pytest.raises(DataError, match=r"item '4' was not in the fit"):
        br.recommend(transfer, [6], items=[9, "4"])


@pytest.mark.parametrize(
    "users", [6, np.int16(6), np.array(6), [6.0], {6}, pd.Series([6.0]), range(6, 7), pl.Series([6])]
)
def test_one_user_however_named_is_the_same_user(transfer, users):
    want = br.recommend(transfer, [6], n=3, by="thompson")
    assert br.recommend(transfer, users, n=3, by="thompson").equals(want)


def test_missing_ids_and_tables_are_no_users(transfer):
    with pytest.raises(DataError, match=r"users: the id at place 1 .* is missing"):
        br.recommend(transfer, [6, None])
    with pytest.raises(DataError, match=r"items: the id at place 0 .* is missing"):
        br.recommend(transfer, [6], items=[np.nan])
    with pytest.raises(DataError, match=r"users must be a sequence of ids.*not a table of shape \(1, 1\)"):
        br.recommend(transfer, pd.DataFrame({"user": [6]}))


def _small(frame):
    data = br.Interactions.from_frame(frame, target="target")
    return br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=5, warmup=5, chains=1), progress=False)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "Int64", "string", "str", "object"])
def test_ids_have_the_dtype_of_the_data(frame, dtype):
    kind = {"user": "str", "item": "str"} if dtype == "object" else {}
    posterior = _small(frame.astype(kind).astype({"user": dtype, "item": dtype}))
    one = 6 if dtype in ("int16", "uint8", "Int64") else "6"
    other = type(one)(77)
    for users in ([one], [one, other], [other]):
        lists = br.recommend(posterior, users, n=2, exclude=None)
        assert lists["user"].dtype == lists["item"].dtype == posterior.data.to_frame()["user"].dtype
        assert lists["user"].tolist() == [u for u in users for _ in range(2)]
    with pytest.warns(DataWarning):
        none = br.recommend(posterior, [one], exclude=pd.DataFrame({"user": one, "item": posterior.data.items.ids}))
    assert none["user"].dtype == posterior.data.to_frame()["user"].dtype
    if dtype == "uint8":
        assert br.recommend(posterior, [one, 300], n=1)["user"].tolist() == [one, 300]


@pytest.mark.parametrize("dtype", [pl.Int32, pl.UInt8, pl.String])
def test_ids_have_the_polars_dtype_of_the_data(frame, dtype):
    posterior = _small(pl.from_pandas(frame).with_columns(pl.col("user", "item").cast(dtype)))
    users = ["6", "77"] if dtype == pl.String else [6, 77]
    lists = br.recommend(posterior, users, n=2, exclude=None)
    assert [lists.schema[name] for name in ("user", "item")] == [dtype, dtype]
    assert lists["user"].to_list() == [u for u in users for _ in range(2)]
    with pytest.raises(DataError, match="strings and numbers, which no column of polars can hold"):
        br.recommend(posterior, [6, "77"], n=2, exclude=None)


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


def test_a_rule_that_returns_nan_is_named(transfer):
    with pytest.raises(DataError, match="the rule returned NaN for 12 of 12 items of user 6; a utility must"):
        br.recommend(transfer, [6], by=lambda draws, rng: draws.mean(0) * np.nan, exclude=None)

    def out_of_the_question(draws, rng):
        return np.where(np.arange(12) == 3, -np.inf, draws.mean(0))

    assert br.recommend(transfer, [6], n=12, by=out_of_the_question, exclude=None)["item"].iloc[-1] == 3


@pytest.mark.parametrize("seed", [-1, 1.5, True, None, 2**70, "1"])
def test_seeds_are_checked(transfer, seed):
    with pytest.raises(DataError, match="seed must be a whole number of at least 0"):
        br.recommend(transfer, [6], seed=seed)


def test_polars_lists(frame):
    data = br.Interactions.from_frame(pl.from_pandas(frame), target="target")
    posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=5, warmup=5, chains=1), progress=False)
    lists = br.recommend(posterior, pl.Series([6, 20]), n=2)
    assert isinstance(lists, pl.DataFrame)
    assert lists.columns == COLUMNS
    assert lists["user"].to_list() == [6, 6, 20, 20]


@pytest.mark.parametrize(
    ("by", "exclude"),
    [("mean", "seen"), ("ucb", None), ("thompson", "seen"), ("expected_utility", None), ("mean_variance", "seen")],
)
def test_many_users_at_once_get_what_each_gets_alone(transfer, by, exclude):
    """The tiles of many users, the loop of few and the draws of `expected` say the same, bit for bit or in float32."""
    users = [*range(6), 999, *range(20, 23)]
    options = {"n": 4, "by": by, "exclude": exclude, "seed": 3, "explain": False}
    together = br.recommend(transfer, users, **options)
    alone = pd.concat([br.recommend(transfer, [u], **options) for u in users])
    pd.testing.assert_frame_equal(together[COLUMNS[:4]], alone[COLUMNS[:4]].reset_index(drop=True), check_exact=True)
    rule, items = rules.by_name(by), np.flatnonzero(transfer.data.item_domain == 1)
    if by in ("mean", "ucb", "expected_utility"):
        for user in (5, 20):
            utility = rule(transfer.expected(user, items)[:, None, :], RNG)[0]
            mine = together[together["user"] == user]
            codes = transfer.data.items.encode(mine["item"], 1)
            np.testing.assert_allclose(mine["score"], utility[np.searchsorted(items, codes)], rtol=1e-5)


@pytest.mark.parametrize("n_users", [1, 3, 8, 37])
def test_expected_ratings_of_every_model(transfer, pmf, data, n_users):
    collective = br.fit(br.models.CollectiveMF(rank=2), data, br.Gibbs(draws=5, warmup=5, chains=2), progress=False)
    for posterior in (transfer, pmf, collective):
        last = posterior.schema.n_domains - 1
        items = np.flatnonzero(posterior.data.item_domain == last)[[0, 3, 4, 11]]
        users = np.random.default_rng(n_users).permutation(40)[:n_users]
        users[n_users // 2 :: 3] = -1
        each = [x.copy() for x in ExpectedRatings(posterior, items, n_users).each(users)]
        for user, got in zip(users, each, strict=True):
            np.testing.assert_allclose(got, posterior.expected(int(user), items), rtol=2e-6)


def test_expected_ratings_where_items_are_shared(frame):
    data = br.Interactions.from_frame(
        frame.rename(columns={"user": "item", "item": "user"}), target="target", shared="items"
    )
    posterior = br.fit(br.models.TransferMF(rank=2), data, br.Gibbs(draws=5, warmup=5, chains=2), progress=False)
    for users in ([0, 5], range(12)):
        lists = br.recommend(posterior, users, n=3, exclude=None)
        np.testing.assert_allclose(lists["score"], lists["mean"], rtol=1e-5)


def test_groups_limit_a_list(transfer):
    group = {item: "even" if item % 2 == 0 else "odd" for item in range(12)}
    free = br.recommend(transfer, [6], n=12, exclude=None)
    for most, room in (
        (2, {"even": 2, "odd": 2}),
        ({"even": 1}, {"even": 1, "odd": 12}),
        ({"odd": 0}, {"even": 12, "odd": 0}),
    ):
        want = []
        for item in free["item"]:  # brute force: in order of utility, as long as there is room
            if sum(group[i] == group[item] for i in want) < room[group[item]]:
                want.append(item)
        n = min(4, len(want))
        for groups in (group, pd.Series(group)):
            got = br.recommend(transfer, [6], n=n, exclude=None, groups=groups, max_per_group=most)
            assert got["item"].tolist() == want[:n]
    with pytest.warns(DataWarning, match="1 of 1 users have fewer than 5 candidates within max_per_group"):
        assert len(br.recommend(transfer, [6], n=5, exclude=None, groups=group, max_per_group=2)) == 4


@pytest.mark.parametrize(
    ("groups", "most", "message"),
    [
        ({i: "a" for i in range(12) if i != 7}, 2, r"groups: item 7 has no group \(1 of 12 candidates"),
        ({i: None if i == 3 else "a" for i in range(12)}, 2, "item 3 has no group"),
        (None, 2, "max_per_group needs groups"),
        (dict.fromkeys(range(12), "a"), None, "groups needs max_per_group"),
        (dict.fromkeys(range(12), "a"), {"b": 1}, "no candidate has the group 'b'; known groups: "),
        (dict.fromkeys(range(12), "a"), 1.5, "1.5 is no whole number of at least 0"),
        (pd.Series("a", index=[*range(12), 4]), 1, "item 4 has two entries"),
    ],
)
def test_bad_groups(transfer, groups, most, message):
    with pytest.raises(DataError, match=message):
        br.recommend(transfer, [6], n=2, exclude=None, groups=groups, max_per_group=most)


def test_source_weights_can_be_left_out(transfer):
    lists = br.recommend(transfer, [6, 20], n=3, explain=False)
    assert lists["source_weight"].isna().all()
    assert lists[COLUMNS[:-1]].equals(br.recommend(transfer, [6, 20], n=3)[COLUMNS[:-1]])
