"""polars and pandas alike: the same fit, the same numbers, and answers in the library of the table that came in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayesrec as br

pl = pytest.importorskip("polars", reason="polars is not installed")
SHORT = br.Gibbs(draws=8, warmup=8, chains=4)
KINDS = ("pandas", "polars")
CASTS = {
    "as they are": lambda frame: frame,
    "words": lambda frame: frame.assign(user=[f"u{user:03d}" for user in frame["user"]], item=frame["item"] + 7),
    "small integers": lambda frame: frame.astype({"user": "uint8", "item": "int16", "rating": "float32"}),
}


def to_polars(table):
    columns = {name: column.tolist() if column.dtype == "str" else column.to_numpy() for name, column in table.items()}
    return pl.DataFrame({name: pl.Series(name, values) for name, values in columns.items()})


def same(answer, other):
    """Whether a polars answer holds what a pandas answer holds, to the last bit."""
    assert isinstance(answer, pl.DataFrame)
    assert isinstance(other, pd.DataFrame)
    assert answer.columns == list(other.columns)
    for name in answer.columns:
        assert answer[name].to_list() == other[name].tolist(), name


def read(table, **more):
    return br.Interactions.from_frame(table, target="target", **more)


@pytest.fixture(scope="module", params=CASTS)
def tables(request, frame):
    table = CASTS[request.param](frame.assign(time=pd.date_range("2020", periods=len(frame), freq="h")))
    return {"pandas": table, "polars": to_polars(table)}


@pytest.fixture(scope="module")
def fits(tables):
    """A posterior of each library's table, from four short chains."""
    return {
        kind: br.fit(br.models.TransferMF(rank=2), read(table, time="time"), SHORT, progress=False)
        for kind, table in tables.items()
    }


def ask(table, n=12):
    """Target rows of one library, with a user nobody knows in the last one."""
    if isinstance(table, pl.DataFrame):
        rows = table.filter(pl.col("domain") == "target")
        stranger = pl.lit("nobody" if rows.schema["user"] == pl.String else 250).cast(rows.schema["user"])
        return pl.concat([rows.head(n), rows.tail(1).with_columns(user=stranger)])
    rows = table[table["domain"] == "target"]
    last = rows.tail(1).assign(user="nobody" if rows["user"].dtype.kind not in "iu" else 250)
    return pd.concat([rows.head(n), last.astype({"user": rows["user"].dtype})], ignore_index=True)


def test_fits_are_the_same(fits):
    a, b = (fits[kind] for kind in KINDS)
    assert a.draws.keys() == b.draws.keys()
    for name in a.draws:
        assert np.array_equal(a.draws[name], b.draws[name]), name
    assert repr(a) == repr(b)


@pytest.mark.parametrize("fitted", KINDS)
def test_answers_about_rows_come_in_the_library_of_the_rows(fits, tables, fitted):
    """Whatever the fit came from."""
    posterior, rows = fits[fitted], {kind: ask(table) for kind, table in tables.items()}
    same(posterior.predict(rows["polars"]), posterior.predict(rows["pandas"]))
    same(br.source_weight(posterior, rows["polars"]), br.source_weight(posterior, rows["pandas"]))
    assert np.array_equal(posterior.log_score(rows["polars"]), posterior.log_score(rows["pandas"]))


@pytest.mark.filterwarnings("ignore::bayesrec.errors.ConvergenceWarning")  # eight draws
def test_answers_about_a_fit_come_in_the_library_of_the_fit(fits, tables):
    a, b = (fits[kind] for kind in KINDS)
    users = tables["pandas"]["user"].unique()[:4]
    rows = {kind: ask(table) for kind, table in tables.items()}
    same(br.recommend(b, users, n=4), br.recommend(a, pl.Series(list(users)), n=4))
    banned = br.recommend(b, list(users), n=4, exclude=rows["pandas"], by="thompson", seed=3)
    same(banned, br.recommend(a, list(users), n=4, exclude=rows["polars"], by="thompson", seed=3))
    same(br.relevance(b), br.relevance(a))
    same(b.data.to_frame(), a.data.to_frame())
    same(b.predict(b.data), a.predict(a.data))
    pd.testing.assert_frame_equal(b.diagnostics(), a.diagnostics())


def test_new_users_come_from_either(fits, tables):
    a, b = (fits[kind] for kind in KINDS)
    rows = {kind: ask(table).tail(1) for kind, table in tables.items()}
    folded = a.fold_in(rows["pandas"], seed=1), b.fold_in(rows["polars"], seed=1), a.fold_in(rows["polars"], seed=1)
    for other in folded[1:]:
        assert np.array_equal(folded[0].draws["user_vector"], other.draws["user_vector"])
    same(folded[1].predict(rows["polars"]), folded[0].predict(rows["pandas"]))
    same(br.relevance(folded[1]), br.relevance(folded[0]))


@pytest.mark.parametrize(
    "split",
    [
        lambda data: [br.split.holdout(data, fraction=0.2, seed=1)],
        lambda data: [br.split.cold_users(data, n_support=1)],
        lambda data: [br.split.temporal(data)],
        lambda data: br.split.kfold_users(data, folds=2),
        lambda data: [(br.data.derange_sources(data), data.without_sources())],
    ],
    ids=["holdout", "cold_users", "temporal", "kfold_users", "derange_sources"],
)
def test_parts_of_a_table_keep_its_library(tables, split):
    pairs = zip(*(split(read(tables[kind], time="time")) for kind in KINDS), strict=True)
    for parts in pairs:
        for ours, theirs in zip(*parts, strict=True):
            same(theirs.to_frame(), ours.to_frame())
            assert len(ours)


def test_shared_items(frame):
    table = frame.rename(columns={"user": "item", "item": "user"})
    a, b = (
        br.fit(br.models.TransferMF(rank=1), read(rows, shared="items"), SHORT, progress=False)
        for rows in (table, to_polars(table))
    )
    rows = table[table["domain"] == "target"].head(5)
    same(b.predict(to_polars(rows)), a.predict(rows))
    same(br.recommend(b, [100], n=3, exclude=None), br.recommend(a, [100], n=3, exclude=None))
    same(br.relevance(b), br.relevance(a))
    same(br.source_weight(b, to_polars(rows)), br.source_weight(a, rows))


@pytest.mark.filterwarnings(
    "ignore::bayesrec.errors.NegativeTransferWarning", "ignore::bayesrec.errors.ConvergenceWarning"
)
def test_verdicts_and_evaluations_take_either(frame):
    model = br.models.TransferMF(rank=1)
    data = {kind: read(table) for kind, table in zip(KINDS, (frame, to_polars(frame)), strict=True)}
    a, b = (br.evaluate(model, data[kind], SHORT, ["warm"]) for kind in KINDS)
    pd.testing.assert_frame_equal(a.frame.drop(columns="seconds"), b.frame.drop(columns="seconds"))
    a, b = (br.assess_transfer(model, data[kind], SHORT, folds=2, progress=False) for kind in KINDS)
    assert (a.verdict, a.delta, a.se) == (b.verdict, b.delta, b.se)
    pd.testing.assert_frame_equal(a.per_user, b.per_user)
    train, test = br.split.holdout(data["pandas"])
    arms = [br.fit(m, train, SHORT, progress=False) for m in (model, br.models.PMF(rank=1))]
    a, b = (br.negative_transfer(*arms, rows) for rows in (test.to_frame(), to_polars(test.to_frame())))
    assert (a.verdict, a.delta, a.se) == (b.verdict, b.delta, b.se)


def test_one_table_a_domain(frame):
    parts = dict(iter(frame.groupby("domain")))
    a = br.Interactions.from_frames(
        {name: rows.drop(columns="domain") for name, rows in parts.items()}, target="target"
    )
    b = br.Interactions.from_frames(
        {name: to_polars(rows).drop("domain") for name, rows in parts.items()}, target="target"
    )
    same(b.to_frame(), a.to_frame())


def test_other_libraries_get_the_same_table(tables, tmp_path):
    a, b = (read(tables[kind], time="time") for kind in KINDS)
    table = br.interop.to_lenskit(a)
    pd.testing.assert_frame_equal(br.interop.to_lenskit(b), table, check_dtype=False)
    files = [br.interop.to_recbole(data, tmp_path / kind) for kind, data in zip(KINDS, (a, b), strict=True)]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    same(br.interop.from_lenskit(to_polars(table)).to_frame(), br.interop.from_lenskit(table).to_frame())


def test_a_lazy_frame_is_refused_with_advice(tables, fits):
    lazy = tables["polars"].lazy()
    for call in (read, fits["polars"].predict, lambda rows: br.source_weight(fits["polars"], rows)):
        with pytest.raises(br.errors.DataError, match=r"got LazyFrame; call \.collect\(\) first"):
            call(lazy)
