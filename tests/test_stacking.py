"""Stacks: weights against brute force and planted arms, and a mixture that predicts what its weights say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import logsumexp

import bayesrec as br
from bayesrec.diagnostics import Stack, stacking
from bayesrec.diagnostics.mixture import REGIMES
from bayesrec.diagnostics.mixture import _quantile as quantile_of_mixture
from bayesrec.errors import ConvergenceWarning, DataError, LoadError, NotFittedError

GIBBS = br.Gibbs(draws=20, warmup=20, chains=2)


def scored(n_users, arms, regime="cold", n_rows=5, seed=0):
    """Held-out rows of arms that predict with N(shift, 1), the ratings being N(0, 1)."""
    y = np.random.default_rng(seed).standard_normal(n_users * n_rows)
    rows = {"user": np.repeat(np.arange(n_users), n_rows), "regime": regime, "fold": 0}
    return pd.DataFrame(rows | {name: stats.norm.logpdf(y, shift) for name, shift in arms.items()})


# Weights


def em(score, factor, prior, steps=200_000):
    """The same maximum by EM, which needs no derivative."""
    density, w = np.exp(score), np.full(len(prior), 1 / len(prior))
    for _ in range(steps):
        share = density * w
        new = factor * (share / share.sum(1, keepdims=True)).sum(0) + prior
        new /= new.sum()
        if np.abs(new - w).max() < 1e-14:
            break
        w = new
    return w


@pytest.mark.parametrize("seed", [0, 1])
def test_weights_are_the_maximum(seed):
    rng = np.random.default_rng(seed)
    score, prior = rng.normal(0, 1.0, (80, 3)) - 300 * seed, np.array([0.5, 2.0, 1.0])  # exp(-300) must not matter
    w = stacking.simplex_maximum(stacking.log_density(score), 0.7, prior)
    np.testing.assert_allclose(w, em(score + 300 * seed, 0.7, prior), atol=1e-8)
    grid = np.array([(i, j, 100 - i - j) for i in range(1, 99) for j in range(1, 100 - i)]) / 100

    def value(w):
        return 0.7 * logsumexp(score[:, None, :] + np.log(w), axis=2).sum(0) + np.log(w) @ prior

    assert value(w[None])[0] >= value(grid).max()
    np.testing.assert_allclose(grid[value(grid).argmax()], w, atol=0.02)


def test_weights_of_one_arm_and_of_a_far_worse_one():
    assert stacking.simplex_maximum(stacking.log_density(np.zeros((3, 1))), 1.0, np.ones(1)).tolist() == [1.0]
    w = stacking.simplex_maximum(stacking.log_density(np.tile([0.0, -800.0], (1000, 1))), 1.0, np.full(2, 1e-3))
    assert w[1] == pytest.approx(1e-3 / 1000.002, rel=1e-6)


def test_a_right_arm_gets_everything_and_a_misleading_one_nothing():
    rows = scored(400, {"right": 0.0, "wrong": 2.0})
    weights = stacking.regime_weights(rows, ["right", "wrong"], "user")
    assert weights.index.tolist() == list(REGIMES)
    assert (weights["right"] > 0.97).all()
    assert (weights["wrong"] < 0.03).all()


def test_regimes_differ_where_the_ratings_say_so():
    cold, warm = scored(300, {"a": 0.0, "b": 1.5}), scored(300, {"a": 1.5, "b": 0.0}, "warm", seed=1)
    weights = stacking.regime_weights(pd.concat([cold, warm]), ["a", "b"], "user")
    assert weights.loc["cold", "a"] > 0.9
    assert weights.loc["warm", "a"] < 0.1
    assert 0.3 < weights.loc["few", "a"] < 0.7, "no row speaks for it: the common weights"


def test_a_handful_of_users_does_not_decide():
    """Four users all for one arm: the common weight is 5 of 6 at most, that of their regime .88, however many rows."""
    for n_rows in (2, 200):
        weights = stacking.regime_weights(
            scored(4, {"right": 0.0, "wrong": 9.0}, n_rows=n_rows), ["right", "wrong"], "user"
        )
        assert 0.7 < weights.loc["cold", "right"] <= (4 + 10 * 5 / 6) / 14 + 1e-9


# The mixture


@pytest.fixture(scope="module")
def mixture(data, transfer, pmf):
    pooled = br.fit(br.models.CollectiveMF(rank=2), data, GIBBS, progress=False)
    table = pd.DataFrame([[0.2, 0.7, 0.1], [0.5, 0.1, 0.4], [0.3, 0.3, 0.4]], REGIMES, ["none", "transfer", "pooled"])
    rows = pd.DataFrame({"user": [1], "regime": "few", "fold": 0, "none": -1.0, "transfer": -1.0, "pooled": -1.0})
    return Stack({"none": pmf, "transfer": transfer, "pooled": pooled}, table, rows.assign(stack=-1.0))


@pytest.fixture(scope="module")
def cells(target_rows):
    """Users with 5 target ratings, without any, and strangers; an unknown item."""
    users = [int(target_rows["user"].iloc[0])] * 3 + [0, 1] + ["nobody"] * 2
    return pd.DataFrame({"user": users, "item": [0, 3, 99, 1, 2, 4, 0], "rating": [3.0, 4.0, 3.5, 5.0, 2.0, 3.0, 4.0]})


def shares(mixture):
    return mixture.weights.loc[["few"] * 3 + ["cold"] * 4].to_numpy().T


def test_log_score_is_that_of_the_weighted_densities(mixture, cells):
    densities = np.exp([arm.log_score(cells) for arm in mixture.arms.values()])
    np.testing.assert_allclose(mixture.log_score(cells), np.log((shares(mixture) * densities).sum(0)), rtol=1e-10)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.999])
def test_bounds_are_quantiles_and_moments_those_of_the_mixture(mixture, cells, level):
    answer, share = mixture.predict(cells, level), shares(mixture)
    assert answer.columns.tolist() == ["user", "item", "mean", "sd", "lower", "upper"]
    means = [arm.predict(cells)["mean"] for arm in mixture.arms.values()]
    squares = [arm.predict(cells)["sd"] ** 2 + arm.predict(cells)["mean"] ** 2 for arm in mixture.arms.values()]
    mean, square = (share * means).sum(0), (share * squares).sum(0)
    np.testing.assert_allclose(answer["mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(answer["sd"], np.sqrt(square - mean**2), rtol=1e-5)
    for bound, p in (("lower", (1 - level) / 2), ("upper", (1 + level) / 2)):
        below = 0.0
        for w, arm in zip(share, mixture.arms.values(), strict=True):
            b = arm.data.encode(cells)
            ((_, law),) = arm.laws(b)
            z = (answer[bound].to_numpy()[:, None] - law.mean) / np.sqrt(law.variance)
            below = below + w * stats.norm.cdf(z).mean(1)
        np.testing.assert_allclose(below, p, atol=2e-9)
    one = mixture.predict(cells.iloc[[3]], level)  # a row's answer depends on that row alone
    assert one.iloc[0, 2:].tolist() == answer.iloc[3, 2:].tolist()


@pytest.mark.parametrize("likelihood", [br.Poisson(), {"source": br.Gaussian(), "target": br.Poisson()}])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_bounds_of_counts_are_the_least_counts_that_reach_the_probability(likelihood, level):
    """A mixture of counts has steps where a mixture of normals has a slope; the oracle walks up from 0."""
    frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(12, 10), n_ratings=(6, 4), rank=1)
    rate = np.exp(1.5 * (frame["value"] - frame["value"].mean()) + 1.0)
    frame["value"] = np.random.default_rng(0).poisson(rate).astype(float)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    models = [br.models.PMF(rank=1, likelihood=br.Poisson()), br.models.TransferMF(rank=1, likelihood=likelihood)]
    method = br.Gibbs(draws=10, warmup=10, chains=1)
    rows = data.mask(data.is_target).to_frame().head(12)
    laws = []
    for model in models:
        arm = br.fit(model, data, method, progress=False)
        laws.append(next(iter(arm.laws(arm.data.encode(rows))))[1])
    weight = np.stack([np.linspace(0.1, 0.9, 12), np.linspace(0.9, 0.1, 12)])
    for p in ((1 - level) / 2, (1 + level) / 2):
        got, want = quantile_of_mixture(laws, weight, p), np.zeros(12)
        for _ in range(2000):
            below = sum(w * law.cdf(want) for w, law in zip(weight, laws, strict=True))
            want += below < p
        np.testing.assert_array_equal(got, want)


def test_one_arm_with_all_the_weight_is_that_arm(mixture, cells):
    table = mixture.weights * 0 + [0.0, 1.0, 0.0]
    alone, arm = replace(mixture, weights=table), mixture.arms["transfer"]
    for name in ("mean", "sd", "lower", "upper"):
        np.testing.assert_allclose(alone.predict(cells)[name], arm.predict(cells)[name], rtol=1e-6)
    np.testing.assert_allclose(alone.log_score(cells), arm.log_score(cells))
    assert br.recommend(alone, [0, 7], n=3)["item"].tolist() == br.recommend(arm, [0, 7], n=3)["item"].tolist()


@pytest.mark.parametrize("rule", ["mean", "ucb", "thompson", "prob_best"])
def test_recommend_takes_a_stack(mixture, rule):
    out = br.recommend(mixture, [0, 7, "new"], n=4, by=rule)
    assert out["rank"].tolist() == [1, 2, 3, 4] * 3
    assert out["source_weight"].between(0, 1).all()
    cells = out[["user", "item"]].assign(user=out["user"].astype(object))
    np.testing.assert_allclose(out["mean"], mixture.predict(cells)["mean"])
    if rule == "mean":
        np.testing.assert_allclose(out["score"], out["mean"], rtol=1e-6)
    parts = [br.source_weight(arm, cells)["source"] for arm in mixture.arms.values()]
    regimes = ["cold" if user in (0, "new") else "few" for user in out["user"]]
    np.testing.assert_allclose(out["source_weight"], (mixture.weights.loc[regimes].to_numpy().T * parts).sum(0))


def test_expected_ratings_come_from_the_arms_in_proportion(mixture):
    drawn = mixture.expected(-1, np.array([15, 16]))  # codes of target items
    assert drawn.shape == (sum(a.n_chains * a.n_draws for a in mixture.arms.values()), 2)
    cells = pd.DataFrame({"user": "nobody", "item": mixture.data.items.decode([15, 16])})
    np.testing.assert_allclose(drawn.mean(0), mixture.predict(cells)["mean"], rtol=1e-6)


def test_new_users_are_folded_into_every_arm(mixture, frame):
    new = frame[frame["user"] == 7].assign(user=70)
    source = frame[(frame["user"] == 9) & (frame["domain"] == "source")].assign(user=90)
    more = mixture.fold_in(pd.concat([new, source]), seed=3)
    cells = pd.DataFrame({"user": [70, 90], "item": [0, 0], "rating": [3.0, 3.0]})
    weights = mixture.weights.loc[["few", "cold"]].to_numpy().T
    densities = np.exp([arm.log_score(cells) for arm in more.arms.values()])
    np.testing.assert_allclose(more.log_score(cells), np.log((weights * densities).sum(0)))
    assert 90 not in more.arms["none"].data.users.ids, "nothing to learn from for a model of the target alone"
    alone = mixture.fold_in(source)
    assert alone.arms["none"] is mixture.arms["none"]
    with pytest.raises(DataError, match="user 7 was in the fit"):
        mixture.fold_in(frame[frame["user"] == 7])


def test_saved_and_read(mixture, cells, tmp_path):
    path = mixture.save(tmp_path / "stack")
    again = br.load(mixture.save(path))  # over itself
    pd.testing.assert_frame_equal(again.predict(cells), mixture.predict(cells))
    pd.testing.assert_frame_equal(again.rows, mixture.rows)
    assert list(again.arms) == list(mixture.arms)
    assert [p.name for p in tmp_path.iterdir()] == ["stack"]
    (path / "stack.json").write_text("{")
    with pytest.raises(LoadError, match="cannot be read"):
        br.load(path)
    with pytest.raises(LoadError, match=r"bayesrec\.json"):
        br.load(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="not a saved stack"):
        mixture.save(tmp_path / "mine")


def test_bad_weights_and_rows(mixture, frame):
    for table, message in (
        (mixture.weights.rename(columns={"none": "nothing"}), "a column for each arm"),
        (mixture.weights.drop(index="warm"), "a row for each of cold, few, warm"),
        (mixture.weights * 2, "sum to 1"),
        (mixture.weights + [-1.0, 0.5, 0.5], "0 or more"),
        (mixture.weights * np.nan, "sum to 1"),
    ):
        with pytest.raises(DataError, match=message):
            replace(mixture, weights=table)
    with pytest.raises(DataError, match=r"row 0 belongs to domain 'source'.*Ask one of its arms"):
        mixture.predict(frame.head(2))
    with pytest.raises(DataError, match="level"):
        mixture.predict(frame.tail(1), level=1.0)
    bare = {name: replace(arm, data=arm.data.mask(np.zeros(len(arm.data), bool))) for name, arm in mixture.arms.items()}
    with pytest.raises(NotFittedError, match="weights depend"):
        replace(mixture, arms=bare).predict(frame.tail(1))


# Folds and fits


def table(n_users=60, n_ratings=(12, 9), shared="users", seed=0):
    frame, _ = br.data.synthetic.cross_domain(n_users, (20, 20), n_ratings, rank=1, seed=seed)
    names = {"shared": shared, "value": "value"}
    if shared == "items":
        frame, names = frame.rename(columns={"user": "item", "item": "user"}), names
    return br.Interactions.from_frame(frame, target="target", **names)


def test_every_regime_has_held_out_rows(monkeypatch):
    data, trained = table(), []
    original = stacking.fit

    def spy(model, train, *args, **kwargs):
        trained.append(np.bincount(train.user[train.is_target], minlength=train.n_users))
        assert (~train.is_target).sum() == (~data.is_target).sum(), "source rows stay"
        return original(model, train, *args, **kwargs)

    monkeypatch.setattr(stacking, "fit", spy)
    found = br.stack(br.models.TransferMF(rank=1), data, GIBBS, folds=2, progress=False)
    assert len(trained) == 3 * 2 + 3
    assert (trained[-1] == 9).all()
    rows = found.rows
    users = rows.groupby("user").agg(regime=("regime", "first"), fold=("fold", "first"), n=("fold", "size"))
    assert (rows.groupby("user")["fold"].nunique() == 1).all(), "a user's rows stay together"
    assert len(users) == 60
    assert (users["regime"].value_counts().loc[list(REGIMES)] > 8).all()  # a third each: below with probability 1e-3
    kept = np.array([trained[3 * fold][user] for user, fold in users["fold"].items()])
    assert {regime: set(kept[users["regime"] == regime]) for regime in REGIMES} == {
        "cold": {0},
        "few": {3},
        "warm": {8},
    }
    assert (kept + users["n"] == 9).all()
    text = found.summary()
    assert "mixture minus none" in text
    assert f"weighed by {len(rows)} held-out ratings of 60 users" in text


def test_a_stack_is_the_same_again_and_for_rows_in_another_order():
    data = table(20)
    mixed = [br.stack(br.models.PMF(rank=1), d, GIBBS, folds=2, progress=False, arms={"a": br.models.PMF(rank=1)}) for d in
             (data, br.Interactions.from_frame(data.to_frame()[::-1], target="target", value="value"))]  # fmt: skip
    ones = [m.rows.groupby("user").agg({"regime": "first", "fold": ["first", "size"]}) for m in mixed]
    pd.testing.assert_frame_equal(*ones)
    assert mixed[0].weights["a"].tolist() == [1.0, 1.0, 1.0]
    assert mixed[0].rows["stack"].tolist() == mixed[0].rows["a"].tolist()


def test_few_ratings_leave_a_regime_to_the_common_weights():
    found = br.stack(br.models.TransferMF(rank=1), table(n_ratings=(12, 4)), GIBBS, folds=2, progress=False)
    assert set(found.rows["regime"]) == {"cold", "few"}
    assert "no user of this kind could be held out: the common weights" in found.summary()


def test_support_is_what_everybody_keeps():
    found = br.stack(br.models.TransferMF(rank=1), table(), GIBBS, folds=2, n_support=2, progress=False)
    assert set(found.rows["regime"]) == {"few", "warm"}


def test_shared_items():
    found = br.stack(br.models.TransferMF(rank=1), table(shared="items"), GIBBS, folds=2, progress=False)
    assert found.rows["item"].nunique() == 60
    assert "of 60 items" in found.summary()
    out = br.recommend(found, [3], n=3, by="mean")
    np.testing.assert_allclose(out["score"], out["mean"], rtol=1e-6)
    assert out.columns[0] == "user"


def test_bad_input(data):
    model = br.models.TransferMF(rank=1)
    with pytest.raises(DataError, match="folds must be from 2 to 35"):
        br.stack(model, data, GIBBS, folds=36)
    for arms in ({}, {"stack": model}, {"fold": model}, {3: model}):
        with pytest.raises(DataError, match="arms must have names"):
            br.stack(model, data, GIBBS, arms=arms)
    with pytest.raises(DataError, match="seed"):
        br.stack(model, data, GIBBS, seed=-1)


def test_an_interrupted_fit_ends_it(data, monkeypatch):
    def cut(*args, **kwargs):
        import warnings

        warnings.warn("interrupted: kept 3 of 20 draws", ConvergenceWarning, stacklevel=2)

    monkeypatch.setattr(stacking, "fit", cut)
    with pytest.raises(KeyboardInterrupt, match="no weights from half an arm"):
        br.stack(br.models.TransferMF(rank=1), data, GIBBS, folds=2, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("placebo", [True, False])
def test_the_safety_net_holds(placebo):
    """Four tables each: the stack loses to neither the right arm nor, on a deranged source, to the target alone.

    The margin is .01 nats a rating plus 3 SE over users of the pooled difference.
    """
    arms, users = {name: [] for name in ("none", "transfer", "pooled", "stack")}, []
    for seed in range(4):
        frame, _ = br.data.synthetic.cross_domain(150, (40, 40), (20, 10), rank=2, correlation=0.9, seed=seed)
        data = br.Interactions.from_frame(frame, target="target", value="value")
        data = br.data.derange_sources(data) if placebo else data
        train, test = br.split.cold_users(data, fraction=0.3, seed=seed)
        found = br.stack(
            br.models.TransferMF(rank=2), train, br.Gibbs(draws=60, warmup=60, chains=2), folds=3, progress=False
        )
        for name, arm in (found.arms | {"stack": found}).items():
            arms[name].append(arm.log_score(test))
        users.append(test.user + 1000 * seed)
    score, user = {name: np.concatenate(parts) for name, parts in arms.items()}, np.concatenate(users)

    def holds(name):
        mean, se = br.metrics.clustered_mean(score[name] - score["none" if placebo else "transfer"], user)
        return mean > -0.01 - 3 * se

    assert holds("stack")
    assert not holds("pooled" if placebo else "none"), "the margin is no free pass"
