"""Threads that share the rows of a chain: the same draws, whatever their number; and fits that stop by themselves."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_checkpoint import break_after

import bayesrec as br
from bayesrec import conjugate
from bayesrec.blocks import remembered
from bayesrec.errors import ConvergenceWarning, DataError, SamplingError
from bayesrec.inference import gibbs
from bayesrec.models.base import Schema
from bayesrec.workers import ALONE, Workers


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 100])
def test_every_row_is_taken_once(n, rows, pool):
    taken = []

    def run(first, last):
        taken.extend(range(first, last))
        return last - first

    indptr = np.concatenate([[0], np.cumsum(np.random.default_rng(rows).integers(0, 9, rows))])
    assert Workers(n, pool).share(run, indptr, 3) == rows
    assert sorted(taken) == list(range(rows))


def test_runs_have_equal_cost_even_with_one_giant_row(pool):
    sizes = np.ones(1000, dtype=int)
    sizes[500:] = 9
    edges = Workers(2, pool).edges(np.concatenate([[0], np.cumsum(sizes)]), 0)
    assert edges.tolist() == [
        0,
        584,
        723,
        862,
        1000,
    ]  # quarters of 5000: 500 + 84 * 9 = 1256, 500 + 223 * 9 = 2507, ...
    giant = np.array([0, 1, 2, 100_000, 100_001])
    edges = Workers(2, pool).edges(giant, 5)
    assert edges[0] == 0
    assert edges[-1] == 4
    assert ALONE.edges(giant, 5).tolist() == [0, 4]


def test_an_error_of_any_run_comes_out(pool):
    def run(first, last):
        if last == 10:
            raise SamplingError("here")

    with pytest.raises(SamplingError, match="here"):
        Workers(2, pool).share(run, np.arange(11), 0)


MODELS = (
    br.models.PMF(rank=3),
    br.models.CollectiveMF(rank=2),
    br.models.TransferMF(rank=2),
    br.models.TransferMF(rank=2, gate=False),
)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_draws_do_not_depend_on_threads(data, model):
    fits = [
        br.fit(model, data, br.Gibbs(draws=5, warmup=5, chains=1, threads=threads), progress=False)
        for threads in (1, 2, 3)
    ]
    for other in fits[1:]:
        for name, draws in fits[0].draws.items():
            assert np.array_equal(draws, other.draws[name]), name
        assert np.array_equal(fits[0].stats["log_density"], other.stats["log_density"])


def test_shared_rows_are_really_shared(data, monkeypatch):
    calls = []
    original = Workers.edges

    def edges(self, indptr, width):
        out = original(self, indptr, width)
        calls.append(len(out) - 1)
        return out

    monkeypatch.setattr(Workers, "edges", edges)
    br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=1, warmup=0, chains=1, threads=3), progress=False)
    assert set(calls) == {6}
    calls.clear()
    br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=1, warmup=0, chains=2, threads=2), progress=False)
    assert set(calls) == {1}


def test_remembered_sees_a_new_array():
    calls = []

    def total(state):
        calls.append(1)
        return state["a"] + state["b"]

    state = {"a": np.ones(2), "b": np.ones(2), "c": 0}
    call = remembered(total, ("a", "b"))
    assert call(state).tolist() == [2, 2]
    assert call(state | {"c": 1}).tolist() == [2, 2]
    assert len(calls) == 1
    assert call(state | {"b": np.zeros(2)}).tolist() == [1, 1]
    assert call(state).tolist() == [2, 2]
    assert len(calls) == 3


ADAPTIVE = br.Gibbs(
    draws=10, warmup=40, chains=2, target_ess=30.0, max_draws=5000
)  # 20 draws have an ESS of 26 at most


def test_a_fit_goes_on_until_there_are_enough_effective_draws(data, monkeypatch):
    monkeypatch.setattr(gibbs, "RHAT", 1.2)  # 1.01 takes longer than a test may
    model = br.models.PMF(rank=1, likelihood=br.Gaussian(user_noise=False))
    posterior = br.fit(model, data, ADAPTIVE, progress=False)
    n = posterior.n_draws
    assert n > 10
    sizes = {min(10 * 2**k, ADAPTIVE.max_draws) for k in range(20)}
    assert n in sizes
    found = posterior.diagnostics()
    assert found["ess_bulk"].min() >= 30
    assert found["rhat"].max() <= 1.2
    # the size before was not enough, and the draws are those of a fit of that length
    plain = br.fit(model, data, br.Gibbs(draws=n, warmup=40, chains=2), progress=False)
    assert np.array_equal(plain.draws["noise"], posterior.draws["noise"])
    before = max(m for m in sizes if m < n)
    half = br.fit(model, data, br.Gibbs(draws=before, warmup=40, chains=2), progress=False)
    assert not gibbs.enough(half, 30.0)
    assert gibbs.enough(posterior, 30.0)
    assert not gibbs.enough(posterior, 1e6)


def test_a_target_out_of_reach_is_given_up_and_said(data):
    method = br.Gibbs(draws=4, warmup=0, chains=2, target_ess=1e5, max_draws=12)
    with pytest.warns(ConvergenceWarning, match="12 draws in each of 2 chains do not reach target_ess=100000") as seen:
        posterior = br.fit(br.models.PMF(rank=1), data, method, progress=False)
    assert posterior.n_draws == 12
    assert seen[0].filename == __file__


@pytest.mark.parametrize("n", [3, 30, 70])
def test_an_adaptive_fit_that_was_cut_off_goes_on(data, n, tmp_path, monkeypatch):
    method = br.Gibbs(draws=5, warmup=3, chains=2, target_ess=1e5, max_draws=40)
    model = br.models.PMF(rank=1)
    with pytest.warns(ConvergenceWarning, match="do not reach"):
        whole = br.fit(model, data, method, progress=False)
    with monkeypatch.context() as patch:
        break_after(patch, n)
        with pytest.raises(RuntimeError, match="cut off"):
            br.fit(model, data, method, progress=False, checkpoint=tmp_path)
    with pytest.warns(ConvergenceWarning, match="do not reach"):
        again = br.fit(model, data, method, progress=False, checkpoint=tmp_path)
    assert all(np.array_equal(whole.draws[name], again.draws[name]) for name in whole.draws)


def test_without_a_place_for_a_cache_loops_are_compiled_all_the_same(monkeypatch):
    from numba.core import caching

    from bayesrec import jit

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    for compile_ in (jit.compiled, jit.reordered):
        double = compile_(lambda x: 2.0 * x)
        assert double(3.0) == 6.0
        assert type(double._cache).__name__ == "NullCache"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_draws": 5}, "needs target_ess"),
        ({"target_ess": 0.0}, "target_ess.*above 0"),
        ({"target_ess": 10, "draws": 9, "max_draws": 8}, "max_draws.*at least 9"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(DataError, match=message):
        br.Gibbs(**options)


def test_threads_remember_by_themselves():
    """Two threads take turns with states of their own; a memory that they shared would mix them up."""
    calls = []

    def total(state):
        calls.append(1)
        return state["a"].sum()

    call, turn = remembered(total, ("a",)), threading.Barrier(2)
    states = [{"a": np.full(3, 1.0)}, {"a": np.full(3, 5.0)}]

    def ask(state):
        out = []
        for _ in range(50):
            turn.wait()
            out.append(call(state))
        return set(out)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, states)) == [{3.0}, {15.0}]
    assert len(calls) == 2


def test_a_kept_sweep_sums_squared_errors_once(monkeypatch):
    """The log density of a draw and the noise of the next sweep look at the same sums."""
    frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    calls, true = [], conjugate.row_squared_errors
    monkeypatch.setattr(conjugate, "row_squared_errors", lambda *args: (calls.append(1), true(*args))[1])
    for model in (br.models.PMF(rank=1), br.models.TransferMF(rank=1), br.models.CollectiveMF(rank=1)):
        calls.clear()
        br.fit(model, data, br.Gibbs(draws=10, warmup=5, chains=2), progress=False)
        assert len(calls) == 2 * (10 + 5), model


def test_a_table_goes_with_its_fit():
    """What models remember of a table makes no circle with it: it is freed at once, not when the collector comes round."""
    frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 8), n_ratings=(6, 4))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    model = br.models.TransferMF(rank=1)
    table = Schema.of(data).table(data)
    state = model.start(table, np.random.default_rng(0))
    assert np.isfinite(model.log_density(state, table))
    gone = weakref.ref(table)
    gc.disable()
    try:
        del table
        assert gone() is None
    finally:
        gc.enable()


def test_whoever_stops_waits_for_the_others():
    """An error in the caller's share ends the sharing: no helper works on behind its back."""
    caller, late = threading.get_ident(), []

    def run(first, last):
        if threading.get_ident() == caller:
            raise KeyboardInterrupt
        time.sleep(0.05)
        late.append(first)
        return 0

    with ThreadPoolExecutor(2) as pool, pytest.raises(KeyboardInterrupt):
        Workers(2, pool).share(run, np.arange(0, 4000, 10), 1)
    done = len(late)
    time.sleep(0.2)
    assert len(late) == done
