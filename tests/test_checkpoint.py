"""Checkpoints: a fit that was cut off, at any sweep, gives the draws of an unbroken one."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch

import bayesrec as br
from bayesrec.inference import checkpoint, gibbs

METHOD = br.Gibbs(draws=12, warmup=6, chains=3, thin=2, threads=2)


@pytest.fixture(scope="module")
def data():
    frame, _ = br.data.synthetic.cross_domain(n_users=25, n_items=(12, 10), n_ratings=(6, 4))
    return br.Interactions.from_frame(frame, target="target", value="value")


@pytest.fixture(scope="module")
def unbroken(data):
    return br.fit(br.models.TransferMF(rank=2), data, METHOD, progress=False)


def break_after(monkeypatch, n):
    """Make the n-th write of any chain end the run, after it has been written."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    original, calls = checkpoint.ChainFile.write, []

    def write(self, *args):
        original(self, *args)
        calls.append(1)
        if len(calls) == n:
            raise RuntimeError("cut off")

    monkeypatch.setattr(checkpoint.ChainFile, "write", write)


def same(a, b):
    return all(np.array_equal(a.draws[name], b.draws[name]) for name in a.draws)


@pytest.mark.parametrize("n", [1, 5, 40, 71])
def test_resumed_equals_unbroken(n, data, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_after(patch, n)
        with pytest.raises(RuntimeError, match="cut off"):
            br.fit(br.models.TransferMF(rank=2), data, METHOD, progress=False, checkpoint=tmp_path)
    assert list(tmp_path.iterdir())
    again = br.fit(br.models.TransferMF(rank=2), data, METHOD, progress=False, checkpoint=tmp_path)
    assert same(again, unbroken)
    np.testing.assert_array_equal(again.stats["log_density"], unbroken.stats["log_density"])
    assert not list(tmp_path.iterdir())


def test_resuming_from_the_start_would_be_noticed(data, unbroken):
    other = br.fit(br.models.TransferMF(rank=2), data, METHOD, seed=1, progress=False)
    assert not same(other, unbroken)


def test_another_fit_is_refused(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_after(patch, 4)
        with pytest.raises(RuntimeError, match="cut off"):
            br.fit(br.models.PMF(rank=2), data, METHOD, progress=False, checkpoint=tmp_path)
    for model, seed in ((br.models.PMF(rank=3), 0), (br.models.PMF(rank=2), 1)):
        with pytest.raises(br.errors.DataError, match="belongs to another"):
            br.fit(model, data, METHOD, seed=seed, progress=False, checkpoint=tmp_path)
    (tmp_path / "chain-0.npz").write_bytes(b"nonsense")
    with pytest.raises(br.errors.LoadError, match=r"chain-0\.npz"):
        br.fit(br.models.PMF(rank=2), data, METHOD, progress=False, checkpoint=tmp_path)


def break_between(monkeypatch, n):
    """Make a run end when some chain has kept n draws: these are in their file, the state that names them is not."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    original = checkpoint.write_state

    def write_state(path, meta, arrays):
        if len(meta["log_density"]) == n:
            raise RuntimeError("cut off")
        original(path, meta, arrays)

    monkeypatch.setattr(checkpoint, "write_state", write_state)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_draws_of_an_unfinished_write_are_written_over(n, data, unbroken, tmp_path, monkeypatch):
    """Broken between a draw and the state that names it, and broken again later: no draw is there twice."""
    model = br.models.TransferMF(rank=2)
    for stop in (n, 11):
        with monkeypatch.context() as patch:
            break_between(patch, stop)
            with pytest.raises(RuntimeError, match="cut off"):
                br.fit(model, data, METHOD, progress=False, checkpoint=tmp_path)
    assert same(br.fit(model, data, METHOD, progress=False, checkpoint=tmp_path), unbroken)


def test_a_state_that_was_deleted_leaves_no_draws_to_another_fit(data, unbroken, tmp_path, monkeypatch):
    """As the message advises: delete the state of another fit and start afresh, also if that one is broken in turn."""
    model = br.models.TransferMF(rank=2)
    for seed in (1, 0):
        for state in tmp_path.glob("*.npz"):
            state.unlink()
        with monkeypatch.context() as patch:
            break_between(patch, 12)
            with pytest.raises(RuntimeError, match="cut off"):
                br.fit(model, data, METHOD, seed=seed, progress=False, checkpoint=tmp_path)
    assert any(path.stat().st_size for path in tmp_path.glob("*.draws"))
    assert same(br.fit(model, data, METHOD, progress=False, checkpoint=tmp_path), unbroken)


def test_a_byte_of_the_draws_that_changed_is_seen(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_between(patch, 12)
        with pytest.raises(RuntimeError, match="cut off"):
            br.fit(br.models.PMF(rank=2), data, METHOD, progress=False, checkpoint=tmp_path)
    path = max(tmp_path.glob("*.draws"), key=lambda path: path.stat().st_size)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(br.errors.LoadError, match=r"chain-\d\.draws' lacks draws or is damaged"):
        br.fit(br.models.PMF(rank=2), data, METHOD, progress=False, checkpoint=tmp_path)


def fit_and_answer(folder, kernel, threads, ready, answer):
    """What the processes below do: fit, writing at every sweep, and say what came out."""
    checkpoint.EVERY = 0.0
    frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(20, 20), n_ratings=(8, 6))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    method = br.Gibbs(draws=120, warmup=5, chains=2, threads=threads, kernel=kernel, keep=("item_vector",))
    ready.set()
    out = br.fit(br.models.TransferMF(rank=2), data, method, progress=False, checkpoint=folder, watch=data)
    arrays = [*out.draws.values(), *(x for pair in out.moments.values() for x in pair), out.watched["sd"].to_numpy()]
    half = answer.with_suffix(".half")  # a kill may come here too
    half.write_text(hashlib.sha256(b"".join(x.tobytes() for x in arrays)).hexdigest())
    half.replace(answer)


@pytest.mark.parametrize("kernel", ["compiled", pytest.param("batched", marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_goes_on(kernel, tmp_path):
    """Killed five times, mostly while it samples or writes, a fit gives the bytes of an unbroken one with other threads."""
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    forks = "forkserver" in multiprocessing.get_all_start_methods()  # imports once
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["bayesrec.inference.gibbs", "bayesrec.models.transfer"])
    whole, resumed, folder = tmp_path / "whole", tmp_path / "resumed", tmp_path / "chains"

    def start(*args):
        ready = context.Event()
        process = context.Process(target=fit_and_answer, args=(*args[:3], ready, args[3]))
        process.start()
        assert ready.wait(120)  # what takes long is to start; the clock runs from there
        return process

    process = start(None, kernel, 1, whole)
    process.join()
    kills = 0
    for attempt in range(12):
        process = start(folder, kernel, 2, resumed)
        if attempt < 5:
            time.sleep(rng.uniform(0.0, 0.8))
            process.kill()
        process.join()
        kills += process.exitcode != 0
        if resumed.exists():
            break
    assert kills > 0
    assert resumed.read_text() == whole.read_text() != ""
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("lengths", "chains", "draws"),
    [([5, 5, 5], [0, 1, 2], 5), ([500, 500, 10, 0], [0, 1], 500), ([0, 3], [1], 3), ([4, 9, 5], [0, 1, 2], 4)],
)
def test_rectangle_keeps_most(lengths, chains, draws):
    assert gibbs._rectangle(lengths) == (chains, draws)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_refused(data):
    with pytest.raises(br.errors.UnsupportedMethodError, match="cuda"):
        br.fit(br.models.PMF(), data, METHOD, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False")
def test_a_fit_on_a_gpu(data):
    posterior = br.fit(br.models.TransferMF(rank=2), data, METHOD, progress=False, device="cuda")
    again = br.fit(br.models.TransferMF(rank=2), data, METHOD, progress=False, device="cuda")
    assert same(posterior, again)
