"""bayesrec assess and report: the verdict of the Python API, exit codes for scripts, and a page."""

from __future__ import annotations

import dataclasses
import errno
import warnings

import pandas as pd
import pytest

import bayesrec as br
from bayesrec import diagnostics
from bayesrec.errors import ConvergenceWarning, NegativeTransferWarning
from bayesrec.tables import records

SMALL = ("--rank", 1, "--draws", 12, "--warmup", 8, "--chains", 4)
METHOD = br.Gibbs(draws=12, warmup=8, chains=4)


@pytest.fixture
def words(folder):
    return ("assess", folder / "ratings.csv", "--target", "target", *SMALL)


@pytest.fixture(scope="module")
def verdict(data):
    return br.assess_transfer(br.models.TransferMF(rank=1), data, METHOD, folds=2, progress=False)


@pytest.fixture
def pretend(verdict, monkeypatch):
    """Replace the work by a ready verdict; returns what assess_transfer was called with."""

    def install(kind):
        calls = []

        def assess(*args, **kwargs):
            calls.append((args, kwargs))
            if kind == "negative":
                warnings.warn("negative transfer: it hurts.", NegativeTransferWarning, stacklevel=2)
            return dataclasses.replace(verdict, verdict=kind, reason="")

        monkeypatch.setattr(diagnostics, "assess_transfer", assess)
        return calls

    return install


@pytest.fixture
def page(monkeypatch):
    """Replace the report by a file with one line; returns what it was called with."""
    calls = []

    def write(posterior, path, **kwargs):
        calls.append((posterior, kwargs))
        path.write_text("page")
        return path

    monkeypatch.setattr("bayesrec.reports.report", write)
    return calls


def test_the_verdict_is_that_of_the_python_api(run, words, verdict):
    done = run(*words, "--folds", 2, "--json")
    found = done.json()
    for name in (
        "verdict",
        "probability",
        "delta",
        "delta_per_row",
        "se",
        "sampler_se",
        "equal_user_mean",
        "joint_delta",
    ):
        assert found[name] == getattr(verdict, name), name
    assert found["regimes"] == records(verdict.regimes.reset_index())
    assert [r["regime"] for r in found["regimes"]] == ["cold"]
    assert found["metrics"] == records(verdict.metrics.reset_index())
    assert [r["metric"] for r in found["metrics"]] == ["log score", "RMSE", "CRPS", "NDCG@10"]
    assert found["segments"] == records(verdict.segments)
    assert {"segment", "level", "harm", "verdict"} < set(found["segments"][0])
    assert found["sensitivity"] is None
    assert (found["target"], found["sources"]) == ("target", ["source"])
    assert found["compared"] == ["TransferMF", "PMF"]
    assert found["users"] == len(verdict.per_user)
    assert found["rows"] == verdict.per_user["n"].sum()
    assert found["summary"] == verdict.summary()
    assert found["report"] is None
    assert "fitting 2 folds, with the source and without: 4 fits" in done.err


def test_the_words_of_a_verdict_and_the_options(run, words, pretend, verdict):
    calls = pretend("positive")
    given = ("--folds", 3, "--n-support", 2, "--baseline", "same", "--seed", 7, "--min-effect", 0.01, "--sensitivity")
    done = run(*words, *given, "--fail-on-negative")
    assert done.out.startswith("The source helps: source improves predictions in target.")
    (model, data, method, folds, n_support, baseline, seed), more = calls[0]
    assert model == baseline == br.models.TransferMF(rank=1)
    assert (len(data), method, folds, n_support, seed, more) == (
        *(495, METHOD, 3, 2, 7),
        {"min_effect": 0.01, "sensitivity": True},
    )
    run(*words)
    assert calls[1][0][5] == br.models.PMF(rank=1)
    assert calls[1][1]["sensitivity"] is False


def test_sensitivity_in_json(run, words, verdict, monkeypatch):
    table = pd.DataFrame(
        {"delta_per_row": [0.1, 0.2], "se": 0.01, "difference": [0.0, 0.1], "verdict": "positive"},
        index=pd.Index(["default", "shrinkage x 2"], name="variant"),
    )
    found = dataclasses.replace(verdict, sensitivity=table, segments=None, metrics=None)
    monkeypatch.setattr(diagnostics, "assess_transfer", lambda *args, **kwargs: found)
    out = run(*words, "--json").json()
    assert out["sensitivity"] == records(table.reset_index())
    assert out["sensitivity"][1]["variant"] == "shrinkage x 2"
    assert out["segments"] is out["metrics"] is None


def test_a_negative_verdict_fails_only_where_it_is_asked_to(run, words, pretend):
    pretend("negative")
    done = run(*words)
    assert done.out.startswith("The source hurts")
    assert "warning: negative transfer: it hurts." in done.err
    done = run(*words, "--fail-on-negative", "--json", code=3)
    assert done.json()["verdict"] == "negative"
    pretend("undetermined")
    assert run(*words, "--fail-on-negative").out.startswith("Undetermined")


def test_assess_writes_a_page_of_a_fit_to_all_rows(run, words, pretend, page, tmp_path):
    pretend("positive")
    out = tmp_path / "v.html"
    found = run(*words, "--report", out, "--json").json()
    assert found["report"] == str(out)
    posterior, kwargs = page[0]
    assert len(posterior.data) == 495
    assert posterior.method == METHOD
    assert kwargs["verdict"].verdict == "positive"


def test_a_page_that_cannot_be_written_does_not_cost_the_verdict(run, refused, words, pretend, monkeypatch, tmp_path):
    pretend("positive")
    line = refused(*words, "--report", tmp_path / "no" / "v.html")
    assert "there is no folder" in line, "told before the work"
    out = tmp_path / "v.html"
    out.write_text("old")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bayesrec.reports.report", full)
    done = run(*words, "--report", out, code=2)
    assert done.out.startswith("The source helps")
    assert done.err.strip().endswith("could not be written: the disk is full; what was there before is as it was")
    assert out.read_text() == "old"


def test_a_stopped_fold_is_no_basis_for_a_verdict(run, words, monkeypatch):
    def stopped(*args, **kwargs):
        warnings.warn("interrupted: kept 3 of 12 draws in each of 4 of 4 chains.", ConvergenceWarning, stacklevel=2)
        pytest.fail("went on")

    monkeypatch.setattr(diagnostics, "assess_transfer", stopped)
    done = run(*words, code=130)
    assert done.out == ""
    assert "stopped: there is no verdict yet and nothing was written" in done.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--baseline", "cmf"), "--baseline must be pmf or same"),
        (("--folds", 1), "folds"),
        (("--n-support", -1), "n_support"),
        (("--steps", 5), "--steps is no option of gibbs"),
        (("--user", "usr"), "did you mean 'user'?"),
    ],
)
def test_assess_says_what_does_not_fit(refused, words, more, message):
    assert message in refused(*words, *more)


def test_report_hands_on_what_it_is_given(run, model, folder, page, tmp_path):
    out = tmp_path / "r.html"
    assert run("report", model, "--out", out).out.strip() == str(out)
    posterior, kwargs = page[0]
    assert len(posterior.data) == 495
    assert (kwargs["folds"], kwargs["test"], kwargs["without"]) == (5, None, None)
    table = folder / "music.csv"
    found = run("report", model, "--out", out, "--test", table, "--without", model, "--no-verdict", "--json").json()
    assert found == {"model": str(model), "path": str(out), "warnings": []}
    kwargs = page[1][1]
    assert kwargs["folds"] == 0
    assert kwargs["without"].n_draws == posterior.n_draws
    pd.testing.assert_frame_equal(kwargs["test"], pd.read_csv(table))  # pandas 2 rounds the last digit otherwise


def test_report_for_real(run, model, folder, tmp_path):
    report = pytest.importorskip("bayesrec.reports", reason="br.report is not there yet")
    if not hasattr(report, "report"):
        pytest.skip("br.report is not there yet")
    run("report", model, "--out", tmp_path / "r.html", "--no-verdict", "--test", folder / "music.csv")
    text = (tmp_path / "r.html").read_text()
    assert text.lower().startswith("<!doctype html>")
    assert "target" in text


def test_report_says_what_does_not_fit(refused, run, model, folder, page, tmp_path, monkeypatch):
    assert "is a folder; name a file" in refused("report", model, "--out", tmp_path)
    assert "there is no folder" in refused("report", model, "--out", tmp_path / "no" / "r.html")
    assert "a model folder is expected" in refused("report", folder / "music.csv", "--out", tmp_path / "r.html")
    line = refused("report", model, "--out", tmp_path / "r.html", "--test", folder / "cells.csv")
    assert "no column 'rating' for ratings, as the model's table had them" in line
    assert page == []


def test_disk_full_and_ctrl_c_leave_the_old_page(refused, run, model, tmp_path, monkeypatch):
    out = tmp_path / "r.html"
    out.write_text("old")

    def fail(error):
        monkeypatch.setattr("bayesrec.reports.report", lambda *a, **k: (_ for _ in ()).throw(error))

    fail(OSError(errno.ENOSPC, "No space left on device"))
    assert "the disk is full; what was there before is as it was" in refused("report", model, "--out", out)
    fail(ConvergenceWarning("interrupted: kept 3 of 5 draws"))
    assert "stopped: no page was written" in run("report", model, "--out", out, code=130).err
    assert out.read_text() == "old"
