"""evaluate: a planted order of models comes out, cells are computed once, and nothing depends on how they are run."""

from __future__ import annotations

import warnings
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.errors import BayesrecError, ConvergenceWarning, DataError, UnsupportedMethodError
from bayesrec.evaluation import Evaluation, evaluate
from bayesrec.inference.base import Method
from bayesrec.models import PMF, CollectiveMF, TransferMF

SIMPLE = ["global mean", "item bias", "item + user bias", "bias transfer", "popularity", "SVD stacked"]
METRICS = ["rmse", "mae", "nlpd", "crps", "coverage", "z2", "ndcg@10", "order"]


@dataclass(frozen=True)
class Oracle(Method):
    """Knows the answers, and misses them by normal errors: a fit whose quality is planted."""

    error: float = 0.1
    scores: bool = True

    fits: ClassVar[list] = []

    def run(self, model, data, schema, seed, progress, checkpoint=None):
        self.fits.append((model, data, seed))
        return Answers(self, seed)


@dataclass(frozen=True)
class Answers:
    oracle: Oracle
    seed: int

    def _mean(self, rows):
        return rows.value + self.oracle.error * np.random.default_rng(self.seed).normal(size=len(rows))

    def predict(self, rows, level=0.9):
        mean, half = self._mean(rows), 1.6449 * self.oracle.error
        return pd.DataFrame({"mean": mean, "sd": self.oracle.error, "lower": mean - half, "upper": mean + half})

    def log_score(self, rows):
        if not self.oracle.scores:
            raise UnsupportedMethodError("no log scores here")
        z = (rows.value - self._mean(rows)) / self.oracle.error
        return -0.5 * z**2 - np.log(self.oracle.error * np.sqrt(2 * np.pi))


@dataclass(frozen=True)
class Broken(Method):
    """Cannot fit a transfer model; interrupted on another."""

    def run(self, model, data, schema, seed, progress, checkpoint=None):
        if isinstance(model, TransferMF):
            raise UnsupportedMethodError("no guide for the gate")
        if isinstance(model, CollectiveMF):
            warnings.warn("interrupted: kept 3 of 10 draws", ConvergenceWarning, stacklevel=2)
        warnings.warn("chains have not met", ConvergenceWarning, stacklevel=2)
        return Answers(Oracle(0.5), seed)


@pytest.fixture(autouse=True)
def no_fits():
    Oracle.fits.clear()


def value(result, metric, model, column="value", **where):
    rows = result.frame.query("metric == @metric and model == @model")
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    assert len(rows) == 1
    return rows[column].iloc[0]


def same(a, b):
    pd.testing.assert_frame_equal(a.frame.drop(columns="seconds"), b.frame.drop(columns="seconds"))


def test_the_frame_has_a_row_for_every_cell_and_metric(data):
    result = evaluate(
        {"good": PMF(rank=1), "other": TransferMF(rank=1)}, data, [Oracle(0.2), Oracle(0.9)], ["cold", "warm"], (0, 1)
    )
    assert isinstance(result, Evaluation)
    frame = result.frame
    assert frame.columns.tolist()[:12] == [
        "split", "seed", "method", "model", "metric", "value", "se", "difference", "difference_se", "n_rows", "n_users",
        "seconds",
    ]  # fmt: skip
    assert len(frame) == (len(SIMPLE) + 2 * 2) * 2 * 2 * len(METRICS)
    assert frame.query("kind == 'simple'")["model"].unique().tolist() == SIMPLE
    assert frame["metric"].unique().tolist() == METRICS
    assert frame["split"].unique().tolist() == ["cold", "warm"]
    assert set(frame["method"]) == {"", repr(Oracle(0.2)), repr(Oracle(0.9))}
    assert not frame.duplicated(["split", "seed", "method", "model", "metric"]).any()
    assert len(Oracle.fits) == 2 * 2 * 2 * 2
    assert (frame["seconds"] >= 0).all()
    assert result.notes == ()


def test_seeds_drive_the_split_and_the_fit(data):
    result = evaluate(PMF(rank=1), data, Oracle(), ["cold"], (3, 8))
    assert [seed for _, _, seed in Oracle.fits] == [3, 8]
    for (_, seen, _), seed in zip(Oracle.fits, (3, 8), strict=True):
        train, test = br.split.cold_users(data, fraction=0.2, seed=seed)
        assert len(seen) == train.is_target.sum()
        assert value(result, "rmse", "PMF", "n_rows", seed=seed) == len(test)
        assert value(result, "rmse", "PMF", "n_users", seed=seed) == len(set(test.user))


def test_a_worse_model_is_reported_worse(data):
    result = evaluate(
        PMF(rank=1), data, {"sharp": Oracle(0.05), "blunt": Oracle(3.0)}, ["warm"], reference="item + user bias"
    )
    for metric in ("rmse", "mae", "nlpd", "crps"):
        gaps = [value(result, metric, "PMF", "difference", method=name) for name in ("sharp", "blunt")]
        errors = [value(result, metric, "PMF", "difference_se", method=name) for name in ("sharp", "blunt")]
        assert gaps[0] < -2 * errors[0]
        assert gaps[1] > 2 * errors[1]
    assert value(result, "order", "PMF", method="sharp") > value(result, "order", "PMF", method="blunt")
    behind = result.behind()
    assert set(behind["method"]) == {"blunt"}
    np.testing.assert_allclose(behind["difference"], behind["value"] - behind["baseline_value"], atol=1e-12)
    assert (behind["difference_se"] > 0).all()
    own = result.pairs.query("metric == 'rmse' and baseline == 'item + user bias' and method == 'sharp'").iloc[0]
    for name in ("difference", "difference_se"):
        assert own[name] == value(result, "rmse", "PMF", name, method="sharp")
    assert {"rmse", "nlpd"} <= set(behind["metric"])
    assert (behind["value"] > behind["baseline_value"])[behind["metric"].isin(["rmse", "nlpd"])].all()


def test_a_reference_that_is_a_model_is_compared_within_each_method(data):
    methods = {"a": Oracle(0.2), "b": Oracle(0.5)}
    result = evaluate([PMF(rank=1), TransferMF(rank=1)], data, methods, ["warm"], reference="PMF")
    for name in methods:
        assert value(result, "rmse", "PMF", "difference", method=name) == 0
        # an Oracle answers alike for both models
        assert value(result, "rmse", "TransferMF", "difference", method=name) == 0
    gap = value(result, "rmse", "item bias", "difference")
    want = value(result, "rmse", "item bias") - value(result, "rmse", "PMF", method="a")
    assert gap == pytest.approx(want), "rows without that method are compared with the first"


def test_a_real_fit_has_the_numbers_of_the_posterior(data):
    method = br.Gibbs(draws=20, warmup=10, chains=2)
    result = evaluate(TransferMF(rank=1), data, method, ["cold"], (1,))
    train, test = br.split.cold_users(data, fraction=0.2, seed=1)
    posterior = br.fit(TransferMF(rank=1), train, method, seed=1, progress=False)
    answer = posterior.predict(test, level=0.9)
    inside = (test.value >= answer["lower"]) & (test.value <= answer["upper"])
    assert value(result, "rmse", "TransferMF") == pytest.approx(br.metrics.rmse(test.value, answer["mean"]))
    assert value(result, "nlpd", "TransferMF") == pytest.approx(-posterior.log_score(test).mean())
    assert value(result, "coverage", "TransferMF") == pytest.approx(inside.mean())


def test_defaults_are_the_three_regimes_and_warm_without_a_source(data):
    assert evaluate(PMF(rank=1), data, Oracle()).frame["split"].unique().tolist() == ["cold", "warm"]
    alone = evaluate(PMF(rank=1), data.only_target(), Oracle())
    assert alone.frame["split"].unique().tolist() == ["warm"]
    assert "bias transfer" not in set(alone.frame["model"])
    assert alone.notes == ()


def test_a_default_split_that_cannot_be_made_is_noted(data):
    """Nobody has more than 5 ratings here; asked for by name it is an error."""
    result = evaluate(PMF(rank=1), data, Oracle())
    assert len(result.notes) == 1
    assert "'few' left out" in result.notes[0]
    with pytest.raises(DataError, match="n_support=5"):
        evaluate(PMF(rank=1), data, Oracle(), ["few"])


def test_finished_cells_are_not_computed_again(data, tmp_path):
    folder = tmp_path / "cells"

    def run(**more):
        options = {"splits": ["warm"], "cache": folder} | more
        models = options.pop("models", {"a": PMF(rank=1)})
        return evaluate(models, data, options.pop("methods", Oracle()), **options), len(Oracle.fits)

    first, n = run()
    again, m = run()
    assert (n, m) == (1, 1)
    same(first, again)
    assert again.frame["seconds"].tolist() == first.frame["seconds"].tolist()
    _, n = run(seeds=(0, 1))
    assert n == 2, "only the new seed"
    renamed, n = run(models={"b": PMF(rank=1)})
    assert n == 2, "a name does not change a fit"
    assert "b" in set(renamed.frame["model"])
    for changed in ({"models": PMF(rank=2)}, {"methods": Oracle(0.3)}, {"splits": ["cold"]}):
        before = len(Oracle.fits)
        assert run(**changed)[1] == before + 1, changed
    assert not [file for file in folder.iterdir() if file.suffix != ".npz"], "nothing half written is left"


def test_other_data_and_another_version_are_other_cells(data, tmp_path, monkeypatch):
    def run(table, model=PMF(rank=1)):  # noqa: B008
        evaluate(model, table, Oracle(), ["warm"], cache=tmp_path)
        return len(Oracle.fits)

    assert run(data) == 1
    assert run(replace(data, value=data.value + 0.5)) == 2
    assert run(data.extend_users([999])) == 3
    assert run(data, PMF(rank=1, likelihood=br.Gaussian(user_noise=False))) == 4
    monkeypatch.setattr("bayesrec.evaluation.cells.version", lambda name: "9.9")
    assert run(data) == 5


def test_threads_of_a_sampler_do_not_count_in_the_cache(data, tmp_path):
    for threads in (None, 1):
        method = br.Gibbs(draws=3, warmup=2, chains=2, threads=threads)
        evaluate(PMF(rank=1), data, method, ["warm"], cache=tmp_path)
    assert len([*tmp_path.iterdir()]) == len(SIMPLE) + 1


def test_it_goes_on_after_an_interruption(data, tmp_path, monkeypatch):
    models = {f"m{k}": PMF(rank=k) for k in (1, 2, 3)}
    honest = Oracle.run

    def interrupted(self, model, *rest):
        if model.rank == 2:
            raise KeyboardInterrupt
        return honest(self, model, *rest)

    monkeypatch.setattr(Oracle, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(models, data, Oracle(), ["warm"], cache=tmp_path)
    assert [model.rank for model, _, _ in Oracle.fits] == [1]
    monkeypatch.setattr(Oracle, "run", honest)
    result = evaluate(models, data, Oracle(), ["warm"], cache=tmp_path)
    assert [model.rank for model, _, _ in Oracle.fits] == [1, 2, 3]
    same(result, evaluate(models, data, Oracle(), ["warm"]))


def test_a_fit_cut_short_does_not_pass_for_a_whole_one(data, tmp_path):
    """Ctrl-C during Gibbs gives a posterior with fewer draws and a warning; evaluate must stop, and keep nothing."""
    with pytest.raises(KeyboardInterrupt, match="CollectiveMF"):
        evaluate(CollectiveMF(rank=1), data, Broken(), ["warm"], cache=tmp_path)
    assert len([*tmp_path.iterdir()]) == len(SIMPLE)


def test_a_damaged_cell_is_computed_again(data, tmp_path):
    first = evaluate(PMF(rank=1), data, Oracle(), ["warm"], cache=tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:40])
    same(first, evaluate(PMF(rank=1), data, Oracle(), ["warm"], cache=tmp_path))
    assert len(Oracle.fits) == 2
    with pytest.raises(DataError, match="is a file"):
        evaluate(PMF(rank=1), data, Oracle(), cache=next(tmp_path.iterdir()))


def test_workers_change_nothing(data, tmp_path):
    models, method = [PMF(rank=1), TransferMF(rank=1)], br.Gibbs(draws=8, warmup=5, chains=2)
    here = evaluate(models, data, method, ["cold"])
    there = evaluate(models, data, method, ["cold"], workers=2, cache=tmp_path)
    same(here, there)
    assert len([*tmp_path.iterdir()]) == len(SIMPLE) + 2
    same(here, evaluate(models, data, method, ["cold"], workers=2, cache=tmp_path))


def test_a_worker_that_dies_says_what_to_look_at(data, monkeypatch):
    class Pool:
        def __init__(self, *args, **options):
            assert args[0] == 2

        def submit(self, *task):
            raise BrokenProcessPool("a process in the process pool was terminated abruptly")

        def shutdown(self, **options):
            assert options["cancel_futures"]

    monkeypatch.setattr("bayesrec.evaluation.run.ProcessPoolExecutor", Pool)
    with pytest.raises(BrokenProcessPool, match="__main__"):
        evaluate(PMF(rank=1), data, Oracle(), ["warm"], workers=2)


def test_a_cell_that_fails_is_a_row_with_a_reason(data, tmp_path):
    models = [PMF(rank=1), TransferMF(rank=1)]
    result = evaluate(models, data, Broken(), ["warm"], cache=tmp_path)
    rows = result.frame.query("model == 'TransferMF'")
    assert rows[["value", "se", "difference", "difference_se"]].isna().all(axis=None)
    assert np.isfinite(value(result, "rmse", "PMF"))
    assert [note for note in result.notes if "TransferMF" in note and "no guide for the gate" in note]
    assert [note for note in result.notes if "PMF by Broken" in note and "chains have not met" in note]
    assert len([*tmp_path.iterdir()]) == len(SIMPLE) + 1, "a failure is tried again next time"
    with pytest.raises(UnsupportedMethodError):
        evaluate(models, data, Broken(), ["warm"], strict=True)
    assert not result.behind()["model"].eq("TransferMF").any()


def test_warnings_of_a_fit_are_kept_with_its_cell(data, tmp_path):
    notes = [evaluate(PMF(rank=1), data, Broken(), ["warm"], cache=tmp_path).notes for _ in range(2)]
    assert notes[0] == notes[1]
    assert "ConvergenceWarning: chains have not met" in notes[0][0]


def test_a_posterior_without_log_scores_has_no_nlpd(data):
    result = evaluate(PMF(rank=1), data, Oracle(scores=False), ["warm"])
    assert np.isnan(value(result, "nlpd", "PMF"))
    assert np.isfinite(value(result, "crps", "PMF"))
    assert "no NLPD" in result.notes[0]


def test_other_errors_are_not_swallowed(data, monkeypatch):
    monkeypatch.setattr(Oracle, "run", lambda *args: None)
    with pytest.raises(AttributeError):
        evaluate(PMF(rank=1), data, Oracle(), ["warm"])
    assert not issubclass(AttributeError, BayesrecError)
