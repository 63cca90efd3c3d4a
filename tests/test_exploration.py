"""replay against refits by folding in, and against orders that are known."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec import exploration
from bayesrec.errors import DataError, DataWarning
from bayesrec.exploration import CAUTION, replay

pytestmark = pytest.mark.filterwarnings("ignore:Logged replay")


@pytest.fixture(scope="module")
def table():
    frame, _ = br.data.synthetic.cross_domain(n_users=70, n_items=(15, 24), n_ratings=(8, 16), rank=2)
    return frame.rename(columns={"value": "rating"})


@pytest.fixture(scope="module")
def log(table):
    return table[(table["user"] >= 50) & (table["domain"] == "target")]


@pytest.fixture(scope="module")
def cold(table):
    """Users 50 to 69 have source ratings alone."""
    train = table[(table["user"] < 50) | (table["domain"] == "source")]
    data = br.Interactions.from_frame(train, target="target")
    return br.fit(br.models.TransferMF(rank=2), data, br.Gibbs(draws=40, warmup=40, chains=2), progress=False)


@pytest.fixture(scope="module")
def unknown(table):
    data = br.Interactions.from_frame(table[table["user"] < 50], target="target")
    model = br.models.PMF(rank=2, likelihood=br.Gaussian(user_noise=False))
    return br.fit(model, data, br.Gibbs(draws=40, warmup=40, chains=2), progress=False)


def test_rows_rewards_and_regrets(cold, log):
    with pytest.warns(DataWarning, match="Logged replay sees only observed items"):
        found = replay(cold, log, steps=5, draws=20)
    rating = log.set_index(["user", "item"])["rating"]
    assert found.rows.columns.tolist() == ["user", "rule", "step", "item", "reward", "regret"]
    assert len(found.rows) == 20 * 4 * 5
    for (user, _), part in found.rows.groupby(["user", "rule"]):
        assert part["item"].is_unique
        np.testing.assert_array_equal(part["reward"], rating.loc[[(user, i) for i in part["item"]]])
        best = np.sort(rating.loc[user].to_numpy())[::-1][:5]
        np.testing.assert_allclose(part["regret"], np.cumsum(best) - part["reward"].cumsum())
    assert (found.rows["regret"] >= -1e-12).all()
    assert CAUTION in found.summary()
    curve = found.curves().set_index(["rule", "step"])
    mine = found.rows.query("rule == 'ucb' and step == 3")["regret"]
    np.testing.assert_allclose(curve.loc[("ucb", 3), ["regret", "se"]], [mine.mean(), mine.std() / np.sqrt(20)])
    gap = found.rows.pivot(index=["user", "step"], columns="rule", values="regret").xs(5, level="step")
    gap = gap["ucb"] - gap["greedy"]
    last = found.difference("ucb", "greedy").iloc[-1]
    np.testing.assert_allclose(last[["difference", "se"]], [gap.mean(), gap.std() / np.sqrt(20)])
    with pytest.raises(DataError, match="rule 'best' was not replayed"):
        found.difference("best", "ucb")


def test_popularity_shows_the_most_rated_first(cold, log, table):
    found = replay(cold, log, steps=4, draws=10, rules={"p": "popularity"}).rows
    count = table[(table["domain"] == "target") & (table["user"] < 50)].groupby("item").size()
    for user, part in found.groupby("user"):
        mine = log.loc[log["user"] == user, "item"]
        want = sorted(mine, key=lambda i: (-count.get(i, 0), i))[:4]
        assert part["item"].tolist() == want


@pytest.mark.parametrize("which", ["cold", "unknown"])
def test_what_a_rule_sees_is_the_posterior_of_a_refit_of_the_user(which, request, log):
    """After three answers the means over draws are those of an exact conditioning, which folding in samples."""
    posterior, seen = request.getfixturevalue(which), {}

    def spy(draws, rng):
        seen.setdefault(draws.shape[2], []).append(draws[:, 0].copy())
        return draws.mean(0)

    one = log[log["user"] == 55]
    found = replay(posterior, one, steps=4, draws=80, rules={"spy": spy}).rows
    rest = [i for i in sorted(one["item"]) if i not in set(found["item"][:3])]
    drawn = seen[len(rest)][0]
    assert drawn.shape == (80, len(rest))
    answered = one[one["item"].isin(found["item"][:3])]
    cells = pd.DataFrame({"user": 55, "item": rest, "domain": "target"})
    exact = np.mean([posterior.update(answered, seed=k).predict(cells)["mean"] for k in range(10)], axis=0)
    se = drawn.std(0) * np.sqrt(1.1 / 80)
    assert (np.abs(drawn.mean(0) - exact) < 4.5 * se).all()
    before = seen[len(one)][0].mean(0)[[i in rest for i in sorted(one["item"])]]
    gaps = [((x - exact) ** 2).sum() for x in (before, drawn.mean(0))]
    assert gaps[0] > 2 * gaps[1], "planted fault: no answer is used"


def test_users_alike_for_all_rules_and_orders_of_the_log(unknown, log):
    a = replay(unknown, log, steps=3, draws=10, seed=3).rows
    shuffled = log.sample(frac=1.0, random_state=0)
    b = replay(unknown, shuffled, steps=3, draws=10, seed=3).rows
    keys = ["user", "rule", "step"]
    pd.testing.assert_frame_equal(
        a.sort_values(keys, ignore_index=True), b.sort_values(keys, ignore_index=True), check_dtype=False
    )
    other = replay(unknown, log, steps=3, draws=10, seed=4).rows
    assert not a.query("rule == 'thompson'")["item"].equals(other.query("rule == 'thompson'")["item"])


def test_knowing_pays(cold, log):
    found = replay(cold, log, steps=6, rules={"greedy": "mean", "worst": lambda draws, rng: -draws.mean(0)})
    last = found.difference("greedy", "worst").iloc[-1]
    assert last["difference"] < -3 * last["se"]


def test_logs_that_do_not_do(cold, unknown, log, table, frame):
    with pytest.raises(DataError, match=r"no user of the log has 40 rated target items .* \(the most: 16\)"):
        replay(cold, log)
    with pytest.raises(DataError, match=r"row 0 of the log \(user 0\) was in the fit"):
        replay(cold, table[table["domain"] == "target"], steps=2)
    with pytest.raises(DataError, match="steps must be a whole number"):
        replay(cold, log, steps=0)
    with pytest.raises(DataError, match="draws must be at least 1"):
        replay(cold, log, steps=2, draws=0)
    with pytest.raises(DataError, match="rules is empty"):
        replay(cold, log, steps=2, rules={})
    with pytest.raises(DataError, match="unknown rule 'best'"):
        replay(cold, log, steps=2, rules={"a": "best"})
    few = replay(unknown, pd.concat([log, log.head(1).assign(user=900)]), steps=2, draws=5)
    assert few.left_out == 1
    swapped = frame.rename(columns={"user": "item", "item": "user"})
    shared = br.Interactions.from_frame(swapped, target="target", shared="items")
    posterior = br.fit(br.models.PMF(rank=1), shared, br.Gibbs(draws=5, warmup=5, chains=1), progress=False)
    with pytest.raises(DataError, match="replay needs normal ratings"):
        replay(posterior, log, steps=2)


def test_the_default_rules_are_known():
    assert set(exploration.RULES) == {"thompson", "ucb", "greedy", "popularity"}


def test_uncertainty_about_the_user_alone():
    """What rules see: the means of all, and the spread that the user's own covariance gives in each draw."""
    frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(10, 20), n_ratings=(6, 12))
    data = br.Interactions.from_frame(frame[frame.user < 50], target="target", value="value")
    posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=20, warmup=20, chains=2), progress=False)
    log = frame[(frame.user >= 50) & (frame.domain == "target")]
    seen = {}

    def watching(name):
        def rule(draws, rng):
            seen.setdefault(name, draws[:, 0])
            return draws.mean(0)

        return rule

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        for about in ("all", "user"):
            replay(posterior, log, steps=2, rules={"watch": watching(about)}, draws=40, about=about)
    start = exploration._stranger(posterior, exploration.spread_out(posterior, 40))
    first = log[log["user"] == log["user"].iloc[0]]
    codes = np.sort(posterior.data.items.encode(first["item"], np.zeros(len(first), dtype=int)))
    vectors = posterior.draws["item_vector"].reshape(-1, posterior.data.n_items, 2)[:, codes].astype(float)
    design = np.stack([np.ones_like(vectors[..., 1]), vectors[..., 1]], -1)
    inside = np.einsum("sjr,srt,sjt->sj", design, start.cov, design)
    scale = posterior.schema.units[-1].scale
    # 40 fixed normals: their sum of squares is within a half of what is expected with probability .97, all items together
    ratio = seen["user"].var(0).mean() / (scale**2 * inside.mean())
    assert 0.5 < ratio < 1.7
    assert (seen["all"].std(0) > seen["user"].std(0)).mean() > 0.5
    means = np.einsum("sjr,sr->sj", design, start.mean) + vectors[..., 0]
    want = means.mean(0) * scale + posterior.schema.units[-1].center
    spread = seen["user"].std(0) / np.sqrt(40)
    assert (np.abs(seen["user"].mean(0) - want) < 4.5 * spread).all()
    with pytest.raises(DataError, match="about must be 'all' or 'user', not 'items'"):
        replay(posterior, log, steps=2, about="items")


def test_plot_has_the_curves_and_their_bands():
    pytest.importorskip("matplotlib")
    from bayesrec import plots

    rng, n_users = np.random.default_rng(0), 30
    rows = pd.DataFrame(
        {
            "user": np.repeat(np.arange(n_users), 6),
            "rule": np.tile(np.repeat(["ucb", "greedy"], 3), n_users),
            "step": np.tile([1, 2, 3], 2 * n_users),
            "item": 0,
            "reward": 1.0,
            "regret": rng.random(6 * n_users) + np.repeat(rng.random(n_users), 6),
        }
    )
    result = br.Replay(rows)
    by_hand = rows.groupby(["rule", "step"])["regret"]
    for against in (None, "greedy"):
        figure = plots.replay(result, against=against)
        figure.canvas.draw()
        (ax,) = figure.axes
        lines = {line.get_label(): line for line in ax.lines}
        assert set(lines) == {"ucb", "greedy"}
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        if against is None:
            y, half = by_hand.mean()["ucb"], 2 * by_hand.std()["ucb"] / np.sqrt(n_users)
        else:
            gap = rows.pivot(index=["user", "step"], columns="rule", values="regret")
            gap = (gap["ucb"] - gap["greedy"]).groupby("step")
            y, half = gap.mean(), 2 * gap.std() / np.sqrt(n_users)
            assert "minus that of greedy" in ax.get_ylabel()
        np.testing.assert_allclose(lines["ucb"].get_ydata(), y)
        np.testing.assert_allclose([band.min(), band.max()], [(y - half).min(), (y + half).max()])
        assert f"{n_users} users" in ax.get_title(loc="left")
    with pytest.raises(DataError, match="rule 'best' was not replayed"):
        plots.replay(result, against="best")
    with pytest.raises(DataError, match="nothing to compare it with"):
        plots.replay(br.Replay(rows[rows["rule"] == "ucb"]), against="ucb")
