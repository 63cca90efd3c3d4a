"""The gap in other metrics, how many users a verdict takes, and what the summary says of it all."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

import bayesrec as br
from bayesrec.diagnostics import verdict
from bayesrec.diagnostics.heldout import HeldOut
from bayesrec.diagnostics.judge import negative
from bayesrec.diagnostics.power import needed_text, users_needed


def part(n_users=60, gain=0.3, seed=0, chains=4):
    """Users with 1 to 6 ratings of 1 to 5; the second arm errs more by ``gain``."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), rng.integers(1, 7, n_users))
    size = len(user)
    value = rng.integers(1, 6, size).astype(float)
    mean = value + 0.6 * rng.standard_normal(size)
    without = value + (0.6 + gain) * rng.standard_normal(size)
    rows = pd.DataFrame({"user": user, "item": np.arange(size), "n_own": 0, "value": value, "mean": mean, "sd": 0.7})
    rows = rows.assign(lower=0.0, upper=0.0, pit=0.5, mean_without=without, sd_without=0.8 + 0.01 * user)
    scores = [
        np.tile(stats.norm.logpdf(value, rows[m], rows[s]), (chains, 1))
        for m, s in (("mean", "sd"), ("mean_without", "sd_without"))
    ]
    zero = np.zeros(n_users, dtype=int)
    return HeldOut(pd.RangeIndex(n_users), user, zero, *scores, zero.astype(float), rows, zero + user.max())


@pytest.fixture
def report(data):
    def call(*parts, **kwargs):
        return verdict.report(list(parts), data, ("TransferMF", "PMF"), 0.0, 0, **kwargs)

    return call


def values(rows, mean, sd):
    """The three metrics of one arm, the slow way."""
    out = {"RMSE": np.sqrt(np.mean((rows["value"] - rows[mean]) ** 2))}
    crps = []
    for _, row in rows.iterrows():
        law = stats.norm(row[mean], row[sd])
        below = integrate.quad(lambda x, law=law: law.cdf(x) ** 2, row["value"] - 12, row["value"])[0]
        crps.append(below + integrate.quad(lambda x, law=law: law.sf(x) ** 2, row["value"], row["value"] + 12)[0])
    out["CRPS"] = np.mean(crps)
    lists = []
    for _, own in rows.groupby("user"):
        if own["value"].nunique() > 1:
            discount = 1.0 / np.log2(np.arange(len(own)) + 2.0)
            gain = own.sort_values(mean, ascending=False)["value"].to_numpy() - rows["value"].min()
            lists.append((discount @ gain) / (discount @ np.sort(gain)[::-1]))
    return out | {"NDCG@10": np.mean(lists)}, len(lists)


def test_metrics_are_those_of_the_rows(report, data):
    given = part()
    assert given.rows["value"].min() <= data.value[data.is_target].min(), "the floor of the gains is in the rows"
    found = report(given)
    table, rows = found.metrics, found.rows
    assert table.columns.tolist() == ["with_transfer", "without", "difference", "se", "harm", "users"]
    assert table.index.tolist() == ["log score", "RMSE", "CRPS", "NDCG@10"]
    for column, mean, sd in (("with_transfer", "mean", "sd"), ("without", "mean_without", "sd_without")):
        want, n_lists = values(rows, mean, sd)
        for name, value in want.items():
            assert table.loc[name, column] == pytest.approx(value, rel=1e-5), (name, column)
    assert table["users"].tolist() == [60, 60, 60, n_lists]
    assert n_lists < 60
    assert table["difference"].to_numpy() == pytest.approx((table["with_transfer"] - table["without"]).to_numpy())
    log = table.loc["log score"]
    assert log["with_transfer"] == pytest.approx(given.with_chains[0].mean())
    assert (log["difference"], log["harm"]) == (pytest.approx(found.delta_per_row), found.probability)
    assert log["se"] == pytest.approx(found.se / len(rows))
    assert (table["harm"] < 0.05).sum() >= 3, "the second arm was made worse"


def test_standard_errors_and_harm_against_the_jackknife(report):
    given = part(n_users=150, gain=0.06, seed=3)
    table = report(given).metrics
    left = []
    for k in range(150):
        keep = given.user != k
        rows = given.rows[keep].reset_index(drop=True)
        left.append([np.sqrt(((rows["value"] - rows[m]) ** 2).mean()) for m in ("mean", "mean_without")])
    gap = np.subtract(*np.array(left).T)
    jackknife = np.sqrt(149 / 150 * ((gap - gap.mean()) ** 2).sum())
    row = table.loc["RMSE"]
    assert row["se"] == pytest.approx(jackknife, rel=0.05)
    for name, sign in (("RMSE", 1.0), ("CRPS", 1.0), ("NDCG@10", -1.0)):
        row = table.loc[name]
        assert row["harm"] == pytest.approx(stats.norm.cdf(sign * row["difference"] / row["se"]), abs=0.03), name


@pytest.mark.filterwarnings("ignore:.*were in a fit")  # what the table says is tested, not who wins
def test_metrics_of_real_fits(transfer, pmf, target_rows):
    rows = target_rows.head(80)
    table = br.negative_transfer(transfer, pmf, rows).metrics
    for column, arm in (("with_transfer", transfer), ("without", pmf)):
        answer = arm.predict(rows)
        error = answer["mean"] - rows["rating"]
        assert table.loc["RMSE", column] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)
        crps = br.metrics.crps_normal(rows["rating"], answer["mean"], answer["sd"]).mean()
        assert table.loc["CRPS", column] == pytest.approx(crps, rel=1e-6)
        assert table.loc["log score", column] == pytest.approx(arm.log_score(rows).mean())
    same = br.negative_transfer(transfer, transfer, rows).metrics
    assert same.loc[["RMSE", "CRPS", "NDCG@10"], "difference"].tolist() == [0.0, 0.0, 0.0]
    assert same.loc[["RMSE", "CRPS", "NDCG@10"], "harm"].tolist() == [0.5, 0.5, 0.5]
    alike = br.negative_transfer(transfer, pmf, rows.assign(rating=3.0)).metrics
    assert alike.loc["NDCG@10", "users"] == 0
    assert np.isnan(alike.loc["NDCG@10", "difference"])


def test_bare_scores_have_a_log_score_only(report):
    given = part()
    bare = HeldOut(given.ids, given.user, given.n_own, given.with_chains, given.without_chains, given.joint)
    assert report(bare).metrics.index.tolist() == ["log score"]


@pytest.mark.parametrize(("effect", "spread"), [(0.3, 1.0), (-0.5, 1.2)])
def test_that_many_users_give_a_verdict_in_four_of_five_repetitions(effect, spread):
    """400 repetitions: a share of .8 has a standard error of .02, and .70 to .90 is five of them."""
    rng = np.random.default_rng(5)
    n_users = round(users_needed(spread, effect))
    harm = [negative(rng.normal(effect, spread, n_users), [], k) for k in range(400)]
    sure = np.mean([min(p, 1.0 - p) < 0.05 for p in harm])
    assert 0.70 < sure < 0.90
    half = [negative(rng.normal(effect, spread, n_users // 3), [], k) for k in range(200)]
    assert np.mean([min(p, 1.0 - p) < 0.05 for p in half]) < 0.60, "a third of them is not enough"


def test_the_reason_says_how_many_users_it_would_take():
    rng = np.random.default_rng(0)
    delta, n = rng.normal(0.2, 1.0, 20), np.full(20, 4)
    delta += 0.2 - delta.mean()
    delta = 0.2 + (delta - 0.2) / delta.std(ddof=1)
    assert needed_text(delta, n, 0.0, "user") == "; about 160 users would show an effect of the size found"
    assert needed_text(delta, n, 0.01, "item") == "; about 3,900 items would show an effect of 0.01 nats a rating"
    assert (
        needed_text(delta, n, 1e-6, "user")
        == "; about over a million users would show an effect of 1e-06 nats a rating"
    )
    assert needed_text(np.zeros(20), n, 0.0, "user") == "", "no effect has no number"
    assert needed_text(delta[:4], n[:4], 0.0, "user") == "", "four users show no spread"
    assert needed_text(np.full(20, 0.5), n, 0.0, "user") == "", "thirty are enough"


@pytest.mark.parametrize(
    ("n_users", "start"), [(20, "only 20 users, at least 30 are needed"), (40, "the probability of")]
)
def test_the_reason_of_a_report(report, n_users, start):
    given = part(n_users=n_users)
    gain = np.where(given.user % 2, 0.5, -0.32)  # nats a row: an effect of .09 in a spread of over four times that
    found = report(dataclasses.replace(given, with_chains=given.without_chains + gain))
    assert found.verdict == "undetermined"
    delta = found.per_user["delta"]
    number = users_needed(delta.std(ddof=1), delta.mean())
    assert found.reason.startswith(start)
    said = re.search(r"; about ([\d,]+) users would show an effect of the size found$", found.reason)
    assert 1.0 <= int(said[1].replace(",", "")) / number < 1.1


def test_the_summary_is_short_and_says_who_is_harmed(report):
    found = report(part(), segments=pd.Series(["a", "b"] * 30, name="kind"))
    text = found.summary()
    assert len(text.splitlines()) < 15
    for name, row in found.metrics.iterrows():
        (line,) = (x for x in text.splitlines() if x.strip().startswith(name) and "P(worse)" in x)
        assert f"{row['difference']:+.4f} (SE {row['se']:.4f}), P(worse) {row['harm']:.3f}" in line
    harmed = (found.per_user["harm"] > 0.9).sum()
    assert f"Harmed with a probability above 0.9: {harmed} of 60 users." in text
    worst = found.segments.sort_values("harm").iloc[-1]
    assert f"Worst group: {worst['segment']} {worst['level']}, P(negative) {worst['harm']:.3f}," in text
    assert "nan" not in report(part(n_users=1)).summary()
