"""Checkpoints of VMP: a fit that was cut off, in any pass, between chains or by a kill, gives what the unbroken one gives."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bayesrec as br
from bayesrec.errors import ConvergenceWarning, DataError, LoadError
from bayesrec.inference import checkpoint
from bayesrec.inference.climb import FitFile
from bayesrec.inference.vmp_single import SingleFit
from bayesrec.inference.vmp_transfer import TransferFit
from bayesrec.models.base import Schema

METHOD = br.VMP(passes=8, draws=6, chains=3, tolerance=1e-9, threads=2)
MODELS = {
    "PMF": br.models.PMF(rank=2),
    "one noise": br.models.PMF(rank=1, likelihood=br.Gaussian(user_noise=False)),
    "CollectiveMF": br.models.CollectiveMF(rank=1),
    "TransferMF": br.models.TransferMF(rank=1),
    "without gate": br.models.TransferMF(rank=1, gate=False, prior_family="ard"),
}
pytestmark = pytest.mark.filterwarnings("ignore:the ELBO still rose", "ignore:the factors explain nothing")


@pytest.fixture(scope="module")
def data():
    frame, _ = br.data.synthetic.cross_domain(n_users=25, n_items=(12, 10), n_ratings=(6, 4), n_cold=3)
    return br.Interactions.from_frame(frame, target="target", value="value")


@pytest.fixture(scope="module")
def unbroken(data):
    return {}  # by name, made when wanted


def rows(data):
    return data.without_sources().to_frame()


def whole(unbroken, data, name):
    if name not in unbroken:
        unbroken[name] = br.fit(MODELS[name], data, METHOD, progress=False, watch=rows(data))
    return unbroken[name]


def break_after(monkeypatch, n, error=RuntimeError):
    """Make the n-th pass of all chains end the run, each pass but the last of a chain being written."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    passes = []
    for kind in (SingleFit, TransferFit):

        def advance(self, true=kind.advance):
            if len(passes) == n:
                raise error("cut off")
            passes.append(1)
            true(self)

        monkeypatch.setattr(kind, "advance", advance)


def assert_same(one, other):
    for kind in ("draws", "stats"):
        for name, array in getattr(one, kind).items():
            assert np.array_equal(array, getattr(other, kind)[name], equal_nan=True), name
    assert one.watched.equals(other.watched)


@pytest.mark.parametrize(
    ("name", "n"),
    [*((name, n) for name in MODELS for n in (1, 10)), ("PMF", 0), ("PMF", 7), ("PMF", 8), ("TransferMF", 23)],
)
def test_resumed_equals_unbroken(name, n, data, unbroken, tmp_path, monkeypatch):
    expected = whole(unbroken, data, name)
    with monkeypatch.context() as patch:
        break_after(patch, n)
        with pytest.raises(RuntimeError, match="cut off"):
            br.fit(MODELS[name], data, METHOD, progress=False, checkpoint=tmp_path, watch=rows(data))
    assert bool(list(tmp_path.iterdir())) == (n > 0)
    advanced, kinds = [], (SingleFit, TransferFit)
    for kind in kinds:
        monkeypatch.setattr(kind, "advance", lambda self, true=kind.advance: (advanced.append(1), true(self)))
    again = br.fit(MODELS[name], data, METHOD, progress=False, checkpoint=tmp_path, watch=rows(data))
    done = (
        n if n % METHOD.passes else max(0, n - 1) if n < METHOD.passes else n
    )  # the last pass of a chain is not written
    assert len(advanced) == METHOD.chains * METHOD.passes - done
    assert_same(again, expected)
    assert not list(tmp_path.iterdir())


def test_whatever_is_left_out_of_a_file_would_be_noticed(data, unbroken, tmp_path, monkeypatch):
    """The planted fault: a file without one factor after another."""
    expected = whole(unbroken, data, "TransferMF")
    for missing in ("items", "populations", "maps", "bias", "noise", "gates"):
        folder = tmp_path / missing
        with monkeypatch.context() as patch:
            break_after(patch, 3)
            with pytest.raises(RuntimeError, match="cut off"):
                br.fit(MODELS["TransferMF"], data, METHOD, progress=False, checkpoint=folder, watch=rows(data))
        with np.load(folder / "chain-0.npz") as file:
            arrays = {k: x for k, x in file.items() if k.split("/")[:2] != ["fit", missing]}
            assert len(arrays) < len(file.files), missing
        np.savez(folder / "chain-0.npz", **arrays)
        again = br.fit(MODELS["TransferMF"], data, METHOD, progress=False, checkpoint=folder, watch=rows(data))
        assert not np.array_equal(again.stats["elbo"][0], expected.stats["elbo"][0]), missing


def test_ctrl_c_keeps_what_was_reached_and_the_files(data, unbroken, tmp_path, monkeypatch):
    expected = whole(unbroken, data, "PMF")
    with monkeypatch.context() as patch:
        break_after(patch, 11, KeyboardInterrupt)
        with pytest.warns(ConvergenceWarning, match="interrupted: kept 2 of 3 chains"):
            part = br.fit(MODELS["PMF"], data, METHOD, progress=False, checkpoint=tmp_path, watch=rows(data))
    assert part.n_chains == 2
    assert np.array_equal(part.draws["item_vector"][0], expected.draws["item_vector"][0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chain-0.npz", "chain-1.npz"]
    assert_same(br.fit(MODELS["PMF"], data, METHOD, progress=False, checkpoint=tmp_path, watch=rows(data)), expected)


def test_ctrl_c_in_the_first_pass_after_a_resume_draws_nothing(data, tmp_path, monkeypatch):
    """A file holds what a pass reads first, not all that draws need."""
    for name in ("PMF", "TransferMF"):
        folder = tmp_path / name
        for error in (RuntimeError, KeyboardInterrupt):
            with monkeypatch.context() as patch:
                break_after(patch, 3 if error is RuntimeError else 0, error)
                with pytest.raises(error):
                    br.fit(MODELS[name], data, METHOD, progress=False, checkpoint=folder)
        assert [p.name for p in folder.iterdir()] == ["chain-0.npz"]


def test_ctrl_c_while_a_chain_is_drawn_from_keeps_those_before(data, unbroken, monkeypatch):
    expected, drawn, true = whole(unbroken, data, "PMF"), [], SingleFit.draw

    def draw(self, rng):
        drawn.append(1)
        if len(drawn) == METHOD.draws + 3:
            raise KeyboardInterrupt
        return true(self, rng)

    monkeypatch.setattr(SingleFit, "draw", draw)
    with pytest.warns(ConvergenceWarning, match="interrupted: kept 1 of 3 chains"):
        part = br.fit(MODELS["PMF"], data, METHOD, progress=False)
    assert np.array_equal(part.draws["item_vector"][0], expected.draws["item_vector"][0])


def test_a_failed_write_leaves_the_old_file(data, unbroken, tmp_path, monkeypatch):
    expected = whole(unbroken, data, "PMF")
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    true, writes, old = np.savez, [], {}

    def full(file, **arrays):
        if len(writes) == 4:
            file.write(b"half of")
            raise OSError(28, "No space left on device")
        writes.append(1)
        true(file, **arrays)
        file.flush()
        old["bytes"] = Path(file.name).read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space"):
            br.fit(MODELS["PMF"], data, METHOD, progress=False, checkpoint=tmp_path, watch=rows(data))
    assert [p.name for p in tmp_path.iterdir()] == ["chain-0.npz"]
    assert (tmp_path / "chain-0.npz").read_bytes() == old["bytes"]
    assert_same(br.fit(MODELS["PMF"], data, METHOD, progress=False, checkpoint=tmp_path, watch=rows(data)), expected)


def test_files_of_another_fit_and_damaged_ones_are_refused(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_after(patch, 4)
        with pytest.raises(RuntimeError, match="cut off"):
            br.fit(MODELS["PMF"], data, METHOD, progress=False, checkpoint=tmp_path)
    others = (
        (MODELS["one noise"], METHOD, 0),
        (MODELS["PMF"], METHOD, 1),
        (MODELS["PMF"], br.Gibbs(draws=2, warmup=1), 0),
    )
    for model, method, seed in others:
        with pytest.raises(DataError, match="belongs to another"):
            br.fit(model, data, method, seed=seed, progress=False, checkpoint=tmp_path)
    half = data.mask(np.arange(len(data)) % 2 == 0)
    with pytest.raises(DataError, match="belongs to another"):
        br.fit(MODELS["PMF"], half, METHOD, progress=False, checkpoint=tmp_path)
    for damaged in (b"nonsense", b""):
        (tmp_path / "chain-0.npz").write_bytes(damaged)
        with pytest.raises(LoadError, match=r"chain-0\.npz"):
            br.fit(MODELS["PMF"], data, METHOD, progress=False, checkpoint=tmp_path)


def test_features_and_source_priors_are_of_the_fit(data):
    """Two fits that differ in these alone have other files."""
    schema = Schema.of(data)
    plain = checkpoint.fit_fingerprint(MODELS["PMF"], METHOD, data, schema, 0, None)
    assert plain == checkpoint.fit_fingerprint(MODELS["PMF"], METHOD, data, schema, 0, None)
    other = [replace(schema, **{name: np.eye(3)}) for name in ("user_x", "item_x")]
    found = {checkpoint.fit_fingerprint(MODELS["PMF"], METHOD, data, one, 0, None) for one in other}
    assert len(found | {plain}) == 3
    books = br.Interactions.from_frame(data.to_frame().query("domain == 'source'"), target="source", value="value")
    long = br.Gibbs(draws=200, warmup=100, chains=1)
    prior = br.fit(MODELS["one noise"], books, long, progress=False).as_prior("user")
    priors = [prior, replace(prior, mean=prior.mean + 1.0)]
    models = [br.models.TransferMF(rank=1, source=prior) for prior in priors]
    assert len({checkpoint.fit_fingerprint(one, METHOD, data, schema, 0, None) for one in models}) == 2


def test_writes_wait_for_their_time(data, tmp_path, monkeypatch):
    wrote = []
    monkeypatch.setattr(FitFile, "_write", lambda self, meta, groups: wrote.append(meta["done"]))
    br.fit(MODELS["PMF"], data, METHOD, progress=False, checkpoint=tmp_path)
    assert wrote == [True, True]  # chains that are done, but for the last; 20 seconds did not pass


def fit_and_answer(folder, threads, ready, answer):
    """What the processes below do: fit, writing after every pass, and say what came out."""
    import warnings

    checkpoint.EVERY = 0.0
    warnings.simplefilter("ignore")
    frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(20, 20), n_ratings=(8, 6))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    ready.set()
    method = br.VMP(passes=60, draws=10, chains=2, tolerance=1e-12, threads=threads)
    out = br.fit(br.models.TransferMF(rank=2), data, method, progress=False, checkpoint=folder)
    half = answer.with_suffix(".half")  # a kill may come here too
    half.write_text(hashlib.sha256(b"".join(x.tobytes() for x in out.draws.values())).hexdigest())
    half.replace(answer)


def test_killed_it_goes_on(tmp_path):
    """Killed when there are files, twice, a fit gives the bytes of an unbroken one with other threads."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()  # imports once
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["bayesrec.inference.vmp", "bayesrec.models.transfer"])
    expected, resumed, folder = tmp_path / "whole", tmp_path / "resumed", tmp_path / "chains"

    def start(*args):
        ready = context.Event()
        process = context.Process(target=fit_and_answer, args=(*args[:2], ready, args[2]))
        process.start()
        assert ready.wait(120)
        return process

    start(None, 1, expected).join()
    for number in (0, 1):
        process = start(folder, 2, resumed)
        while not (folder / f"chain-{number}.npz").exists() and process.is_alive():
            time.sleep(0.001)
        process.kill()
        process.join()
        assert process.exitcode != 0
    start(folder, 2, resumed).join()
    assert resumed.read_text() == expected.read_text() != ""
    assert not list(folder.iterdir())
