"""Stacks with simple baselines among their arms, and weights for the best mean."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import bayesrec as br
from bayesrec.baselines import Baseline, bias_transfer, item_bias, popularity
from bayesrec.diagnostics import Stack, stacking
from bayesrec.diagnostics.simple import Simple
from bayesrec.errors import DataError, LoadError

GIBBS = br.Gibbs(draws=15, warmup=15, chains=2)
TRANSFER, STARS = br.models.TransferMF(rank=1), br.Ordinal(levels=(1, 2, 3, 4, 5))


def table(stars=False, shared="users", seed=0):
    frame, _ = br.data.synthetic.cross_domain(45, (20, 20), (12, 9), rank=1, n_cold=5, seed=seed)
    if stars:
        frame["value"] = (3 + 1.3 * (frame["value"] - frame["value"].mean()) / frame["value"].std()).round().clip(1, 5)
    if shared == "items":
        frame = frame.rename(columns={"user": "item", "item": "user"})
    return br.Interactions.from_frame(frame, target="target", value="value", shared=shared)


@pytest.fixture(scope="module", params=[False, True], ids=["normals", "levels"])
def mix(request):
    likelihood = STARS if request.param else br.Gaussian()
    arms = {"biases": bias_transfer, "transfer": br.models.TransferMF(rank=1, likelihood=likelihood)}
    return br.stack(
        TRANSFER, table(request.param), GIBBS, folds=2, progress=False, arms=arms, objective="squared_error"
    )


@pytest.fixture(scope="module")
def cells(mix):
    rows = mix.data.mask(mix.data.is_target).to_frame()[["user", "item", "value"]].head(6)
    cold = rows.head(3).assign(user=0)  # the first five have source ratings alone
    strange = rows.head(1).assign(user=999)
    return pd.concat([rows, cold, strange, rows.head(1).assign(item=998)], ignore_index=True)


# Weights for the best mean


def objective(w, residual, factor, prior):
    best = (residual**2).mean(0).min()
    return -0.5 * factor * ((residual @ w) ** 2).sum() / best + prior @ np.log(w)


def test_weights_for_squared_error_are_the_maximum():
    rng = np.random.default_rng(0)
    residual = rng.standard_normal((200, 1)) + rng.standard_normal((200, 3)) * [0.4, 0.5, 1.5]
    prior = np.array([0.5, 2.0, 1.0])
    w = stacking.simplex_maximum(stacking.squares(residual), 0.3, prior)
    grid = np.array([(i, j, 200 - i - j) for i in range(1, 198) for j in range(1, 200 - i)]) / 200
    values = np.array([objective(x, residual, 0.3, prior) for x in grid])
    assert objective(w, residual, 0.3, prior) >= values.max()
    np.testing.assert_allclose(grid[values.argmax()], w, atol=0.01)


def rows_of(n_users, means, sds, seed=0):
    """Held-out rows, five a user, of ratings N(0, 1) and forecasts N(mean + noise, sd)."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(5 * n_users)
    out = {"user": np.repeat(np.arange(n_users), 5), "regime": "cold", "fold": 0}
    for name, (shift, noise) in means.items():
        mean = shift + noise * rng.standard_normal(len(y))
        out |= {name: stats.norm.logpdf(y, mean, sds[name]), f"residual[{name}]": y - mean}
    return pd.DataFrame(out)


def test_two_means_that_err_apart_share_the_weight():
    rows = rows_of(2000, {"a": (0.0, 0.7), "b": (0.0, 0.7)}, {"a": 1.2, "b": 1.2})
    weights = stacking.regime_weights(rows, ["a", "b"], "user", "squared_error")
    np.testing.assert_allclose(weights.loc["cold"], 0.5, atol=0.05)  # SE .02
    uneven = rows_of(2000, {"a": (0.0, 0.5), "b": (0.0, 1.0)}, {"a": 1.2, "b": 1.2})
    weights = stacking.regime_weights(uneven, ["a", "b"], "user", "squared_error")
    assert weights.loc["cold", "a"] == pytest.approx(0.8, abs=0.05)  # 1 / .25 to 1 / 1


def test_the_objective_decides_between_a_good_mean_and_a_good_density():
    """One has the right mean and a spread far too wide, the other the reverse."""
    rows = rows_of(600, {"mean": (0.0, 0.0), "density": (0.5, 0.0)}, {"mean": 5.0, "density": 1.0})
    found = {
        name: stacking.regime_weights(rows, ["mean", "density"], "user", name).loc["cold", "mean"]
        for name in ("squared_error", "log_score")
    }
    assert found["squared_error"] > 0.95
    assert found["log_score"] < 0.1


# The arm


class Numbers(Baseline):
    """The same for everybody."""

    def __init__(self, mean, sd):
        self.both = mean, sd

    def predict(self, user, item):
        return np.full(len(user), self.both[0])

    def spread(self, user, item):
        return np.full(len(user), self.both[1])


def test_the_law_of_a_baseline():
    data = table(stars=True)
    fitted = br.fit(br.models.PMF(rank=1, likelihood=STARS), data, GIBBS, progress=False)
    arm = Simple(item_bias, fitted.data, fitted.schema)
    item = np.flatnonzero(np.bincount(fitted.data.item))[:4]
    user = np.array([0, 1, -1, 3])
    mean, sd = arm.baseline.predict(user, item), arm.baseline.spread(user, item)
    law = arm.law(user, item)
    edges = [-np.inf, 1.5, 2.5, 3.5, 4.5, np.inf]
    levels = fitted.schema.units[-1].levels
    assert levels.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(law.mean[:, 0], mean, atol=1e-6)

    def masses(centre, k):
        return np.diff(stats.norm.cdf(edges, centre, sd[k]))

    for k in range(4):
        centre = optimize.brentq(lambda x, k=k: masses(x, k) @ levels - mean[k], -20, 20, xtol=1e-12)
        np.testing.assert_allclose(law.share[k], masses(centre, k), atol=1e-8)
    ends = Simple(lambda train: Numbers(9.0, 1.0), fitted.data, fitted.schema).law(user, item)
    assert (ends.share[:, -1] > 0.999).all(), "a rating beyond the levels is the last of them"
    plain = br.fit(br.models.PMF(rank=1), data, GIBBS, progress=False)
    smooth = Simple(item_bias, plain.data, plain.schema).law(user, item)
    np.testing.assert_allclose(smooth.log_density(np.full(4, 3.0))[:, 0], stats.norm.logpdf(3.0, mean, sd))


# The stack


def test_residuals_are_those_of_means_that_did_not_see_the_row(monkeypatch):
    """Fit by fit: what each arm says of the rows that it had not seen."""
    data, seen, original = table(), [], stacking._judged

    def spy(arm, test):
        if isinstance(arm, Simple):
            where = arm.data.mask(arm.data.is_target)
            pairs = set(zip(where.user.tolist(), where.item.tolist(), strict=True))
            assert pairs.isdisjoint(zip(test.user.tolist(), test.item.tolist(), strict=True))
            mean = bias_transfer(arm.data).predict(test.user, test.item)
        else:
            mean = arm.predict(test)["mean"].to_numpy()
        seen.append(test.value - mean)
        return original(arm, test)

    monkeypatch.setattr(stacking, "_judged", spy)
    arms = {"biases": bias_transfer, "transfer": TRANSFER}
    rows = br.stack(TRANSFER, data, GIBBS, folds=2, progress=False, arms=arms).rows
    np.testing.assert_allclose(rows["residual[biases]"], np.concatenate(seen[::2]), atol=1e-6)
    np.testing.assert_allclose(rows["residual[transfer]"], np.concatenate(seen[1::2]), atol=1e-5)


def test_held_out_rows_have_residuals_of_everybody(mix):
    rows = mix.rows
    names = ["biases", "transfer", "stack"]
    assert set(rows.columns) == {"user", "regime", "fold", *names, *(f"residual[{name}]" for name in names)}
    assert np.isfinite(rows[names]).all(axis=None)
    for fold in (0, 1):
        mine = rows["fold"] == fold
        weights = stacking.regime_weights(rows[~mine], ["biases", "transfer"], "user", "squared_error")
        share = weights.loc[rows.loc[mine, "regime"]].to_numpy()
        own = rows.loc[mine, ["residual[biases]", "residual[transfer]"]].to_numpy()
        np.testing.assert_allclose(rows.loc[mine, "residual[stack]"], (share * own).sum(1))
    assert "for the best squared error" in mix.summary()
    rmse = np.sqrt((rows.loc[rows["regime"] == "cold", "residual[stack]"] ** 2).mean())
    assert f"RMSE {rmse:.4f}, biases" in mix.summary()


def test_predictions_are_those_of_the_arms_by_weight(mix, cells):
    batch = mix.data.encode(cells)
    law = mix.arms["biases"].law(batch.user, batch.item)
    share = mix.weights.loc[["warm"] * 6 + ["cold"] * 4 + ["warm"]].to_numpy().T
    other = mix.arms["transfer"]
    got = mix.predict(cells)
    np.testing.assert_allclose(got["mean"], share[0] * law.mean[:, 0] + share[1] * other.predict(cells)["mean"])
    density = np.exp(np.stack([law.log_density(cells["value"].to_numpy())[:, 0], other.log_score(cells)]))
    np.testing.assert_allclose(mix.log_score(cells), np.log((share * density).sum(0)))
    assert (got["lower"] < got["upper"]).all()
    pd.testing.assert_frame_equal(mix.source_weight(cells), br.source_weight(other, cells))
    alone = br.fit(replace(other.model, rank=2), mix.data, GIBBS, progress=False)
    three = mix.weights.assign(biases=0.2, transfer=0.6, other=0.2)[["biases", "transfer", "other"]]
    more = Stack(mix.arms | {"other": alone}, three, mix.rows)
    parts = [br.source_weight(arm, cells)["source"] for arm in (other, alone)]
    np.testing.assert_allclose(more.source_weight(cells)["source"], 0.75 * parts[0] + 0.25 * parts[1])
    out = br.recommend(mix, [0, 12], n=3, by="mean")
    np.testing.assert_allclose(out["score"], mix.predict(out[["user", "item"]])["mean"], rtol=1e-6)
    assert len(br.recommend(mix, [0], n=3, by="thompson")) == 3


def test_saved_and_read(mix, cells, tmp_path):
    again = br.load(mix.save(tmp_path / "mix"))
    pd.testing.assert_frame_equal(again.predict(cells), mix.predict(cells))
    assert list(again.arms) == ["biases", "transfer"]
    assert again.objective == "squared_error"
    alone = Stack({"transfer": mix.arms["transfer"]}, mix.weights[["transfer"]] * 0 + 1, mix.rows)
    path = alone.save(tmp_path / "old")
    meta = json.loads((path / "stack.json").read_text())
    del meta["baselines"], meta["objective"]
    (path / "stack.json").write_text(json.dumps(meta | {"format": 1}))
    assert br.load(path).objective == "log_score"
    path = mix.save(tmp_path / "bad")
    meta = json.loads((path / "stack.json").read_text())
    (path / "stack.json").write_text(json.dumps(meta | {"baselines": {"biases": "clicks"}}))
    with pytest.raises(LoadError, match="there is no baseline 'clicks'"):
        br.load(path)


def mine(train):
    """A baseline of one's own."""
    return Numbers(train.value[train.is_target].mean(), 1.0)


def test_a_baseline_of_ones_own_mixes_but_has_no_file(tmp_path):
    arms = {"mine": mine, "transfer": TRANSFER}
    found = br.stack(TRANSFER, table(), GIBBS, folds=2, progress=False, arms=arms)
    assert found.weights["mine"].between(0, 1).all()
    with pytest.raises(DataError, match="mine is no baseline of"):
        found.save(tmp_path / "mix")
    assert not list(tmp_path.iterdir())


def test_newcomers_are_in_the_baseline_too():
    data = table()
    frame = data.to_frame()
    arms = {"biases": bias_transfer, "transfer": TRANSFER}
    kept = br.Interactions.from_frame(frame[frame["user"] != 7], target="target", value="value")
    found = br.stack(TRANSFER, kept, GIBBS, folds=2, progress=False, arms=arms)
    more = found.fold_in(frame[frame["user"] == 7])
    whole = bias_transfer(data)
    code = data.users.encode(np.array([7]), np.zeros(1, int))
    item = np.flatnonzero(np.bincount(data.item[data.is_target]))[:3]
    ids = data.items.decode(item)
    again = more.data.users.encode(np.array([7]), np.zeros(1, int))
    got = more.arms["biases"].baseline.predict(np.repeat(again, 3), more.data.items.encode(ids, np.ones(3, int)))
    np.testing.assert_allclose(got, whole.predict(np.repeat(code, 3), item), rtol=1e-6)


@pytest.mark.parametrize("make", [bias_transfer, item_bias])
def test_shared_items(make):
    """A baseline sees the caller's table: the item bias is that of the caller's items."""
    data = table(shared="items")
    found = br.stack(TRANSFER, data, GIBBS, folds=2, progress=False, arms={"simple": make, "transfer": TRANSFER})
    rows = data.mask(data.is_target)
    whole = make(data).predict(rows.user, rows.item)
    arm, batch = found.arms["simple"], found.data.encode(rows)
    np.testing.assert_allclose(arm.law(batch.user, batch.item).mean[:, 0], whole, rtol=1e-6)
    drawn = arm.expected(int(rows.user[0]), rows.item[:3])
    assert drawn.shape == (1, 3)
    np.testing.assert_allclose(drawn[0], make(data).predict(np.repeat(rows.user[:1], 3), rows.item[:3]), rtol=1e-6)
    share = found.weights.loc["warm"].to_numpy()
    both = share @ [whole[:4], found.arms["transfer"].predict(rows.to_frame().head(4))["mean"]]
    np.testing.assert_allclose(found.predict(rows.to_frame().head(4))["mean"], both, rtol=1e-6)


def test_a_baseline_learns_from_the_arm_that_sees_most():
    """A model at power 0 keeps the source's name and has none of its rows."""
    data, blind = table(), br.models.TransferMF(rank=1, power=0.0)
    arms = {"blind": blind, "transfer": TRANSFER, "biases": bias_transfer}
    found = br.stack(TRANSFER, data, GIBBS, folds=2, progress=False, arms=arms)
    assert found.arms["biases"].baseline.slope == pytest.approx(bias_transfer(data).slope)
    with pytest.raises(DataError, match="no model beside it sees the ratings of a source"):
        br.stack(TRANSFER, data, GIBBS, folds=2, progress=False, arms={"blind": blind, "biases": bias_transfer})


def test_an_arm_may_have_seen_a_level_less():
    """No 1 among the ratings of the target: PMF does not know of it, models of both domains do."""
    frame = table(stars=True).to_frame()
    low = (frame["domain"] == "target") & (frame["value"] == 1)
    data = br.Interactions.from_frame(frame.assign(value=frame["value"].mask(low, 2.0)), target="target", value="value")
    graded = br.models.TransferMF(rank=1, likelihood=br.Ordinal())
    found = br.stack(graded, data, GIBBS, folds=2, progress=False)
    cells = data.mask(data.is_target).to_frame().head(8)
    answer = found.predict(cells, level=0.8)
    each = [arm.predict_proba(cells) for arm in found.arms.values()]
    assert ["p_1" in answer_ for answer_ in each] == [False, True, True]
    share = np.zeros((8, 5))
    for table_, weight in zip(each, found.weights.loc["warm"], strict=True):
        for level in range(1, 6):
            if f"p_{level}" in table_:
                share[:, level - 1] += weight * table_[f"p_{level}"]
    lower = 1 + (share.cumsum(1) < 0.1 - 1e-12).sum(1)
    np.testing.assert_array_equal(answer["lower"], lower)


def test_bad_arms_are_refused_before_a_fit(monkeypatch):
    data, pmf = table(stars=True), br.models.PMF(rank=1)
    monkeypatch.setattr(stacking, "fit", lambda *args, **more: pytest.fail("fitted before it was refused"))

    def mixed(**more):
        return br.stack(TRANSFER, data, GIBBS, folds=2, progress=False, **more)

    for arms, message in (
        ({"a": br.models.PMF}, "arm 'a' is neither a model nor a baseline"),
        ({"a": 3}, "arm 'a' is neither"),
        ({"biases": bias_transfer}, "arms need a model"),
        ({"none": pmf, "biases": bias_transfer}, "no model beside it sees the ratings of a source"),
        ({"transfer": TRANSFER, "pop": popularity}, "does not say ratings"),
        (
            {"a": pmf, "b": br.models.PMF(rank=1, likelihood=br.Ordinal())},
            "arm 'a' gives densities and arm 'b' probabilities",
        ),
        (
            {"a": TRANSFER, "b": br.models.PMF(rank=1, likelihood=br.Poisson())},
            "densities and arm 'b' what Poisson says",
        ),
        (
            {"t": br.models.TransferMF(rank=1, likelihood=br.Poisson()), "b": bias_transfer},
            "beside it stands what Poisson",
        ),
        ({"t": TRANSFER, "b": bias_transfer(data)}, "give the function, not what it returns"),
        ({"t": TRANSFER, "residual[t]": TRANSFER}, "arms must have names"),
        (
            {"t": TRANSFER, "b": lambda train: Numbers(3.0, np.nan)},
            "spread of the baseline <lambda> must give a finite",
        ),
        ({"t": TRANSFER, "b": lambda train: Numbers(np.inf, 1.0)}, "predict of the baseline <lambda> must give"),
        ({"t": TRANSFER, "b": lambda train: Numbers(3.0, 0.0)}, "spread one above 0"),
    ):
        with pytest.raises(DataError, match=message):
            mixed(arms=arms)
    with pytest.raises(DataError, match="objective must be one of log_score, squared_error, not 'rmse'"):
        mixed(objective="rmse")


def test_clicks_have_no_squared_error():
    data = br.Interactions.from_frame(table().to_frame()[["user", "item", "domain"]], target="target", value=None)
    model = br.models.TransferMF(rank=1, likelihood=br.Implicit())
    with pytest.raises(DataError, match="clicks are all 1"):
        br.stack(model, data, GIBBS, folds=2, progress=False, objective="squared_error")
    with pytest.raises(DataError, match="beside it stands what Implicit says"):
        br.stack(model, data, GIBBS, folds=2, progress=False, arms={"t": model, "b": item_bias})
    assert "RMSE" not in br.stack(model, data, GIBBS, folds=2, progress=False).summary()


@pytest.mark.slow
@pytest.mark.parametrize("placebo", [True, False])
def test_the_net_for_the_mean_holds(placebo):
    """Four tables each, cold users: the mixture has the mean of the better arm, and on a deranged source gains nothing.

    Margins are 3 SE over users of the paired difference in squared error, and .01 of the arm's own against the better arm.
    """
    errors, users = {name: [] for name in ("biases", "transfer", "stack", "items")}, []
    for seed in range(4):
        frame, _ = br.data.synthetic.cross_domain(150, (40, 40), (20, 10), rank=2, correlation=0.9, seed=seed)
        data = br.Interactions.from_frame(frame, target="target", value="value")
        data = br.data.derange_sources(data) if placebo else data
        train, test = br.split.cold_users(data, fraction=0.3, seed=seed)
        model = br.models.TransferMF(rank=2)
        arms = {"biases": bias_transfer, "transfer": model}
        method = br.Gibbs(draws=60, warmup=60, chains=2)
        mix = br.stack(model, train, method, folds=2, progress=False, arms=arms, objective="squared_error")
        batch = mix.data.encode(test)
        means = {"stack": mix.predict(test)["mean"], "transfer": mix.arms["transfer"].predict(test)["mean"]}
        means |= {name: make(train).predict(batch.user, batch.item) for name, make in
                  (("biases", bias_transfer), ("items", item_bias))}  # fmt: skip
        for name, mean in means.items():
            errors[name].append((test.value - np.asarray(mean)) ** 2)
        users.append(test.user + 1000 * seed)
    square, user = {name: np.concatenate(parts) for name, parts in errors.items()}, np.concatenate(users)

    def apart(a, b):
        return br.metrics.clustered_mean(square[a] - square[b], user)

    best = min(("biases", "transfer"), key=lambda name: square[name].mean())
    worse, se = apart("stack", best)
    assert worse < 0.01 * square[best].mean() + 3 * se
    gain, se = apart("items", "stack")  # over what needs no source
    assert abs(gain) < 3 * se + 0.01 * square["items"].mean() if placebo else gain > 5 * se
