"""Checkpoints: a fit that was cut off, at any sweep, gives the draws of an unbroken one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

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


def test_killed_process_goes_on(tmp_path):
    code = textwrap.dedent(
        """
        import sys, numpy as np, bayesrec as br
        from bayesrec.inference import checkpoint
        checkpoint.EVERY = 0.0
        frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(20, 20), n_ratings=(8, 6))
        data = br.Interactions.from_frame(frame, target="target", value="value")
        draws = int(sys.argv[2])
        out = br.fit(br.models.PMF(rank=2), data, br.Gibbs(draws=draws, warmup=5, chains=2), checkpoint=sys.argv[1])
        print(float(out.draws["user_vector"].sum(dtype=float)))
        """
    )
    folder = tmp_path / "chains"
    command = [sys.executable, "-c", code, str(folder), "120"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / "chain-1.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    process.wait()
    assert (folder / "chain-1.npz").exists()
    resumed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    command[3] = str(tmp_path / "other")
    assert resumed == subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("lengths", "chains", "draws"),
    [([5, 5, 5], [0, 1, 2], 5), ([500, 500, 10, 0], [0, 1], 500), ([0, 3], [1], 3), ([4, 9, 5], [0, 1, 2], 4)],
)
def test_rectangle_keeps_most(lengths, chains, draws):
    assert gibbs._rectangle(lengths) == (chains, draws)


def test_only_the_cpu(data):
    with pytest.raises(br.errors.UnsupportedMethodError, match="cuda"):
        br.fit(br.models.PMF(), data, METHOD, device="cuda")
