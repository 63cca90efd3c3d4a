"""assess_transfer: fits side by side, Ctrl-C, and how far a verdict hangs on the priors."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.diagnostics import beside, verdict
from bayesrec.diagnostics.sensitivity import variants
from bayesrec.errors import DataError
from bayesrec.models import TransferMF

pytestmark = pytest.mark.filterwarnings("ignore::bayesrec.errors.NegativeTransferWarning")
GIBBS = br.Gibbs(draws=10, warmup=10, chains=1, threads=4)


def at_work():
    """Chains that are being drawn: threads inside of one."""
    return [t for t in threading.enumerate() if t is not threading.main_thread() and "ThreadPool" in t.name]


def assess(data, method, model=None, **kwargs):
    model = br.models.CollectiveMF(rank=1) if model is None else model
    return br.assess_transfer(model, data, method, folds=3, progress=False, **kwargs)


def same(a, b):
    for name in ("per_user", "regimes", "rows", "metrics", "segments"):
        pd.testing.assert_frame_equal(getattr(a, name), getattr(b, name), check_exact=True)
    assert (a.delta, a.se, a.probability, a.verdict) == (b.delta, b.se, b.probability, b.verdict)


@pytest.fixture
def crowd(monkeypatch):
    """The most fits that ran at once, and the threads that each was given."""
    seen = {"now": 0, "most": 0, "threads": set()}
    lock = threading.Lock()
    for name in ("fit", "fit_unchecked"):
        original = getattr(verdict, name)

        def spy(model, data, method, *args, _fit=original, **kwargs):
            with lock:
                seen["now"] += 1
                seen["most"] = max(seen["most"], seen["now"])
                seen["threads"].add(method.threads)
            time.sleep(0.05)
            try:
                return _fit(model, data, method, *args, **kwargs)
            finally:
                with lock:
                    seen["now"] -= 1

        monkeypatch.setattr(verdict, name, spy)
    return seen


@pytest.mark.parametrize(
    ("chains", "threads", "most", "each"), [(1, 2, 2, 1), (1, 3, 3, 1), (2, 5, 2, 2), (2, 2, 1, 2)]
)
def test_fits_run_side_by_side_and_the_report_does_not_depend_on_it(data, crowd, chains, threads, most, each):
    method = dataclasses.replace(GIBBS, chains=chains)
    got = assess(data, dataclasses.replace(method, threads=threads))
    assert crowd["most"] == most
    assert crowd["threads"] == {each}
    same(got, assess(data, dataclasses.replace(method, threads=1)))
    assert crowd["most"] == most, "one thread, one fit"


def test_what_runs_alone(data, crowd):
    assert beside.at_once(br.SVI(), 10) == (1, br.SVI())
    aim = dataclasses.replace(GIBBS, target_ess=5, max_draws=20)
    assert beside.at_once(aim, 10) == (1, aim), "it silences warnings, which is for all threads"
    assert beside.at_once(GIBBS, 3)[0] == 3, "no more than there are fits"


@pytest.mark.timeout(60)
def test_ctrl_c_ends_all_fits_at_once(data):
    """Hours of sampling in each of two threads; the signal comes after half a second, to a handler that polars may have set."""
    with contextlib.suppress(ImportError):
        importlib.import_module("polars")
    assess(data, GIBBS)  # compiled by now
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    start = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt, match="no verdict from half an arm"):
        assess(data, dataclasses.replace(GIBBS, warmup=10**6, threads=2))
    assert time.perf_counter() - start < 10
    assert at_work() == []


def test_a_fit_that_fails_ends_the_others(data, monkeypatch):
    def broken(*args, **kwargs):
        raise DataError("planted")

    monkeypatch.setattr(verdict, "fit", broken)
    with pytest.raises(DataError, match="planted"):
        assess(data, dataclasses.replace(GIBBS, warmup=10**6))
    assert at_work() == []


def test_a_stoppable_model_is_an_equal_one(data):
    model = br.models.TransferMF(rank=2)
    other = beside.stoppable(model, threading.Event())
    assert other == model
    assert repr(other) == repr(model)
    a, b = (br.fit(m, data, GIBBS, progress=False) for m in (model, other))
    assert all(np.array_equal(a.draws[name], b.draws[name]) for name in a.draws)


def test_variants():
    found = {
        name: (m.gate_prior, m.shrinkage) for name, m in variants(TransferMF(rank=1, gate_prior=(2.0, 5.0))).items()
    }
    assert found == {
        "gate prior x 2": ((4.0, 5.0), 1.0),
        "gate prior / 2": ((1.0, 5.0), 1.0),
        "shrinkage x 2": ((2.0, 5.0), 2.0),
        "shrinkage / 2": ((2.0, 5.0), 0.5),
    }
    assert list(variants(TransferMF(gate=False))) == ["shrinkage x 2", "shrinkage / 2"]
    assert variants(br.models.CollectiveMF()) == {}


@pytest.mark.parametrize("threads", [1, 3])
def test_sensitivity_fits_the_first_fold_again(data, crowd, threads):
    method = br.Gibbs(draws=8, warmup=4, chains=1, threads=threads)
    plain = assess(data, method, TransferMF(rank=1))
    got = assess(data, method, TransferMF(rank=1), sensitivity=True)
    same(got, plain)
    assert plain.sensitivity is None
    table = got.sensitivity
    assert table.columns.tolist() == ["delta_per_row", "se", "difference", "verdict"]
    train, test = next(br.split.kfold_users(data, folds=3))
    bare = br.fit(br.models.PMF(rank=1), train, method, progress=False)
    models = {"default": TransferMF(rank=1), **variants(TransferMF(rank=1))}
    assert table.index.tolist() == list(models)
    for name, model in models.items():
        found = br.negative_transfer(br.fit(model, train, method, progress=False), bare, test)
        row = table.loc[name]
        assert row["delta_per_row"] == pytest.approx(found.delta_per_row)
        assert row["se"] == pytest.approx(found.se / len(test))
        assert row["difference"] == pytest.approx(row["delta_per_row"] - table.loc["default", "delta_per_row"])
        assert row["verdict"] == found.verdict
    assert (table["difference"].drop("default") != 0).all(), "each variant is another fit"
    assert "Priors doubled and halved, first fold:" in got.summary()
    assert len(got.summary().splitlines()) < 15


def test_a_model_without_the_fields_has_no_sensitivity(data):
    assert assess(data, GIBBS, sensitivity=True).sensitivity is None
