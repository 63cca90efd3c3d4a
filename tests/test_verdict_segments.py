"""Segments of a verdict: which levels there are, their numbers against oracles, and tables that do not fit."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayesrec as br
from bayesrec.diagnostics import verdict
from bayesrec.diagnostics.effects import MEAN_SCALE, SPREAD_DF, SPREAD_SCALE
from bayesrec.diagnostics.heldout import HeldOut
from bayesrec.diagnostics.segments import built_in, pooled, segments
from bayesrec.errors import DataError


def nothing(chosen):
    return 0.0


def found(delta, groups, n=5, least=0.0, sampler=nothing):
    delta = np.asarray(delta, dtype=float)
    return segments(delta, np.broadcast_to(n, len(delta)), pd.DataFrame(groups), sampler, least)


def test_levels_are_pooled_as_brute_force_does():
    mean, variance = np.array([0.10, -0.05, 0.02, 0.30]), np.array([0.05, 0.02, 0.10, 0.08]) ** 2
    rng = np.random.default_rng(0)
    tau = SPREAD_SCALE * np.abs(rng.standard_t(SPREAD_DF, 400_000))
    mu = MEAN_SCALE * rng.standard_normal(len(tau))
    theta = mu[:, None] + tau[:, None] * rng.standard_normal((len(tau), 4))
    weight = np.exp(-0.5 * ((mean - theta) ** 2 / variance).sum(1))
    weight /= weight.sum()
    effect, harm = pooled(mean, variance)
    # about 2,000 effective draws: tolerances are five standard errors
    assert effect == pytest.approx(weight @ theta, abs=0.012)
    assert harm == pytest.approx(weight @ (theta < 0), abs=0.05)
    assert (np.abs(effect - mean.mean()) < np.abs(mean - mean.mean()) + 0.02).all()


def test_numbers_of_a_level():
    rng = np.random.default_rng(1)
    kind = np.repeat(["a", "b"], [40, 60])
    n = rng.integers(1, 9, 100)
    delta = np.where(kind == "a", 0.3, -0.3) * n + 0.2 * rng.standard_normal(100)
    table = found(delta, {"kind": kind}, n).set_index("level")
    for name in ("a", "b"):
        own, row = kind == name, table.loc[name]
        mean = delta[own].sum() / n[own].sum()
        excess = delta[own] - mean * n[own]
        assert (row["users"], row["rows"]) == (own.sum(), n[own].sum())
        assert row["delta_per_row"] == pytest.approx(mean)
        assert row["se"] == pytest.approx(np.sqrt(len(excess) / (len(excess) - 1) * (excess**2).sum()) / n[own].sum())
    assert table["verdict"].tolist() == ["positive", "negative"]
    assert found(delta, {"kind": kind}, n, least=0.5)["verdict"].tolist() == ["undetermined"] * 2
    noisy = found(delta, {"kind": kind}, n, sampler=lambda chosen: 25.0 * chosen.sum()).set_index("level")
    assert (noisy["se"] > table["se"]).all()


def test_small_levels_lean_on_the_others_and_are_not_called():
    rng = np.random.default_rng(2)
    kind = np.repeat(["big", "other", "one", "two"], [200, 200, 1, 2])
    delta = 0.5 + 0.5 * rng.standard_normal(403)
    delta[-3:] = -3.0
    table = found(delta, {"kind": pd.Categorical(kind, ["big", "other", "one", "two"])}).set_index("level")
    assert table.index.tolist() == ["big", "other", "one", "two"]
    assert np.isnan(table.loc["one", "se"])
    assert table.loc["one", "delta_per_row"] < table.loc["one", "effect"] < table.loc["big", "effect"]
    assert table["verdict"].tolist() == ["positive", "positive", "undetermined", "undetermined"]


def test_one_user_must_not_decide_a_level():
    kind = np.repeat(["a", "b"], 60)
    delta = np.full(120, 0.02) + 0.05 * np.random.default_rng(3).standard_normal(120)
    delta[3] = 30.0
    table = found(delta, {"kind": kind}).set_index("level")
    assert table.loc["a", "verdict"] == "undetermined"
    assert found(np.abs(delta) + 0.3, {"kind": kind})["verdict"].tolist() == ["positive"] * 2


def test_at_a_null_levels_are_called_at_most_one_time_in_ten():
    """100 sets of four levels, both sides together; the binomial test at 1e-3 is the rate of failure by chance."""
    rng = np.random.default_rng(4)
    kind = np.repeat(list("abcd"), 50)
    words = [found(rng.standard_t(5, 200), {"kind": kind}, n=1)["verdict"] for _ in range(100)]
    wrong = int((pd.concat(words) != "undetermined").sum())
    assert stats.binomtest(wrong, 400, 0.10, alternative="greater").pvalue > 1e-3
    assert wrong > 0


def test_built_in_levels():
    own = np.array([0, 1, 2, 3, 5, 6, 15, 16, 900])
    table = built_in(own, np.arange(9))
    want = ["0", "1 to 2", "1 to 2", "3 to 5", "3 to 5", "6 to 15", "6 to 15", "16 or more", "16 or more"]
    assert table["own ratings"].tolist() == want
    thirds = ["lowest third (0 to 2)", "middle third (3 to 5)", "highest third (6 to 8)"]
    assert table["source ratings"].tolist() == list(np.repeat(thirds, 3))
    assert set(built_in(own, np.full(9, 4))["source ratings"]) == {"all (4)"}
    assert set(built_in(own, np.array([0] * 6 + [7] * 3))["source ratings"]) == {"lower (0)", "upper (7)"}
    assert built_in(own, None).columns.tolist() == ["own ratings"]


@pytest.fixture
def rows(target_rows):
    return target_rows.head(60)


@pytest.fixture
def countries(rows):
    users = pd.unique(rows["user"])
    return pd.DataFrame({"user": users, "country": np.where(users % 2, "SE", "NO"), "age": users % 3})


@pytest.mark.filterwarnings("ignore:.*were in a fit")  # what the table says is tested, not who wins
def test_a_callers_columns_in_every_form(transfer, pmf, rows, countries):
    same = partial(pd.testing.assert_frame_equal, check_dtype=False)  # pandas 3 has a dtype for strings
    report = br.negative_transfer(transfer, pmf, rows, segments=countries)
    table = report.segments
    names = ["segment", "level", "users", "rows", "delta_per_row", "se", "effect", "harm", "verdict"]
    assert table.columns.tolist() == names
    assert table["segment"].unique().tolist() == ["own ratings", "source ratings", "country", "age"]
    for segment, part in table.groupby("segment"):
        assert part["rows"].sum() == len(rows), segment
        assert part["users"].sum() == len(report.per_user), segment
        assert (part["delta_per_row"] * part["rows"]).sum() == pytest.approx(report.delta), segment
    own = rows.merge(countries)["country"].value_counts()
    assert table[table["segment"] == "country"].set_index("level")["rows"].to_dict() == own.to_dict()
    again = br.negative_transfer(transfer, pmf, rows, segments=countries.set_index("user")).segments
    same(again, table)
    series = br.negative_transfer(transfer, pmf, rows, segments=countries.set_index("user")["country"]).segments
    same(series, table[table["segment"] != "age"])
    shuffled = br.negative_transfer(transfer, pmf, rows, segments=countries.sample(frac=1, random_state=0)).segments
    same(shuffled, table)
    polars = pytest.importorskip("polars")
    same(
        br.negative_transfer(transfer, pmf, rows, segments=polars.from_pandas(countries)).segments,
        table,
    )
    unnamed = countries.set_index("user")["country"].rename(None)
    assert "segment" in set(br.negative_transfer(transfer, pmf, rows, segments=unnamed).segments["segment"])


@pytest.mark.filterwarnings("ignore:.*were in a fit")  # what the table says is tested, not who wins
def test_tables_that_do_not_fit(transfer, pmf, rows, countries):
    first = countries["user"].iloc[3]

    def refuse(table, message):
        with pytest.raises(DataError, match=message):
            br.negative_transfer(transfer, pmf, rows, segments=table)

    hole = countries.assign(country=countries["country"].where(countries["user"] != first))
    refuse(hole, rf"column 'country' has no value for user {first};")
    refuse(countries[countries["user"] != first], rf"segments has no row for user {first}, who is held out")
    refuse(pd.concat([countries, countries.iloc[[3]]]), rf"more than one row for user {first}; keep one")
    refuse(countries[["user"]], "segments has no column besides 'user'")
    refuse(countries.rename(columns={"age": "own ratings"}), "rename the column")
    refuse([1, 2], "segments must be a data frame")
    more = pd.concat([countries, pd.DataFrame({"user": [991], "country": [None], "age": [1]})], ignore_index=True)
    report = br.negative_transfer(transfer, pmf, rows, segments=more)
    assert len(report.per_user) == len(countries), "a hole of somebody who is not judged is none"


def test_assess_refuses_before_it_fits(data, countries, monkeypatch):
    monkeypatch.setattr(verdict, "fit", lambda *args, **kwargs: pytest.fail("fitted"))
    with pytest.raises(DataError, match="segments has no row for user"):
        br.assess_transfer(br.models.CollectiveMF(rank=1), data, br.Gibbs(), folds=2, segments=countries.head(3))


def test_shared_items_have_segments_of_items(frame):
    swapped = frame.rename(columns={"user": "item", "item": "user"})
    data = br.Interactions.from_frame(swapped, target="target", shared="items")
    train, test = br.split.cold_items(data, fraction=0.4)
    method = br.Gibbs(draws=5, warmup=5, chains=2)
    arm, bare = (br.fit(m(rank=1), train, method, progress=False) for m in (br.models.CollectiveMF, br.models.PMF))
    kinds = pd.Series(["new", "old"] * 20, index=pd.Index(range(40), name="item"), name="age")
    report = br.negative_transfer(arm, bare, test, segments=kinds)
    part = report.segments[report.segments["segment"] == "age"].set_index("level")
    items = report.per_user["item"].map(kinds)
    assert part["users"].to_dict() == items.value_counts().to_dict()


def test_regimes_and_fine_levels_agree(data):
    n_own = np.repeat([0, 1, 2, 4, 20], 10)
    user, rng = np.repeat(np.arange(50), 4), np.random.default_rng(0)
    with_source, without = rng.normal(-1, 0.3, (2, 4, 200))
    part = HeldOut(pd.RangeIndex(50), user, n_own, with_source, without, np.zeros(50), n_source=np.arange(50))
    report = verdict.report([part], data, ("a", "b"), 0.0, 0)
    own = report.segments[report.segments["segment"] == "own ratings"].set_index("level")
    assert own["rows"].tolist() == [40, 80, 40, 40]
    assert own.loc["0", "delta_per_row"] == pytest.approx(report.regimes.loc["cold", "delta_per_row"])
