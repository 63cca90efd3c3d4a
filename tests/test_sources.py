"""SourcePrior: what it refuses, what comes back from a file, what a broken file or an interrupted save does."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesrec import sources
from bayesrec.errors import DataError, LoadError
from bayesrec.sources import SourcePrior


def prior(ids=("ann", "bob", "cat"), size=3, **more):
    rng = np.random.default_rng(0)
    root = rng.standard_normal((len(ids), size, size))
    cov = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(size)
    return SourcePrior(more.pop("name", "book"), ids, rng.standard_normal((len(ids), size)), cov, **more)


@pytest.fixture
def file(tmp_path):
    return prior().save(tmp_path / "book.npz")


def rewrite(file, meta=None, signed=True, **arrays):
    """Change the contents of a file, by default with a digest that fits."""
    with np.load(file) as old:
        arrays = dict(old) | arrays
    index = json.loads(arrays.pop("meta").tobytes()) | (meta or {})
    if signed:
        del index["digest"]
        index["digest"] = sources._digest(index, arrays)
    np.savez(file, meta=sources._bytes(index), **arrays)


def test_it_says_what_it_is():
    assert repr(prior(range(2110), 9)) == "SourcePrior('book', 2110 users, rank 8)"
    private = prior(name=7, entity="item", privacy=(1, 1e-6, 2))
    assert repr(private) == "SourcePrior(7, 3 items, rank 2, epsilon 1, delta 1e-06)"
    assert (len(private), private.rank, private.privacy) == (3, 2, (1.0, 1e-6, 2.0))


def test_it_is_a_value():
    a, b = prior(), prior()
    assert a == b
    assert hash(a) == hash(b)
    changes = {"name": "film", "entity": "item", "alignment": 0.5, "privacy": (1.0, 0.1, 1.0), "mean": a.mean + 1e-12}
    changes |= {"cov": 2 * a.cov, "users": ["ann", "bob", "dan"]}
    for name, value in changes.items():
        assert a != replace(a, **{name: value}), name
    with pytest.raises(FrozenInstanceError):
        a.mean = b.mean
    for array in (a.mean, a.cov):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


def test_the_callers_arrays_stay_theirs():
    mean, cov = np.zeros((1, 2)), np.eye(2)[None]
    made = SourcePrior("book", [1], mean, cov)
    mean[:], cov[:] = 1.0, 0.0
    assert not made.mean.any()
    assert made.cov.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": True}, "name of a domain"),
        ({"name": 1.5}, "name of a domain"),
        ({"entity": "users"}, "entity must be"),
        ({"users": []}, "at least one user"),
        ({"users": ["ann", "bob", "ann"]}, "user 'ann' is there twice"),
        ({"users": ["ann", 2, "cat"]}, "types are mixed"),
        ({"users": ["ann", None, "cat"]}, "row 1 is missing"),
        ({"users": ["ann", "bob"]}, r"mean has the shape \(3, 3\)"),
        ({"mean": np.zeros((3, 1))}, r"mean has the shape \(3, 1\)"),
        ({"mean": np.zeros(3)}, r"mean has the shape \(3,\)"),
        ({"mean": "none"}, "mean is no array of numbers"),
        ({"cov": np.ones((3, 3))}, r"cov has the shape \(3, 3\)"),
        ({"mean": np.full((3, 3), np.nan)}, r"user 'ann' \(and 2 more\) has a mean that is not finite"),
        ({"alignment": 1.5}, "alignment must be"),
        ({"alignment": "good"}, "alignment must be"),
        ({"privacy": (1.0, 0.1)}, r"privacy must be None or \(epsilon"),
        ({"privacy": (0.0, 0.1, 1.0)}, "epsilon must be a positive number"),
        ({"privacy": (1.0, 1.0, 1.0)}, "delta must lie strictly between"),
        ({"privacy": (1.0, 0.1, -1.0)}, "clip must be a positive number"),
    ],
)
def test_contents_that_do_not_fit_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        replace(prior(), **change)


@pytest.mark.parametrize(
    ("cov", "message"),
    [
        (np.zeros((3, 3)), "'bob' has a covariance of zero.*overconfident"),
        (np.diag([1.0, np.inf, 1.0]), "'bob' has a covariance that is not finite"),
        (np.triu(np.ones((3, 3))), "'bob' has a covariance that is not symmetric"),
        (np.ones((3, 3)), "'bob' has a covariance that is not positive definite"),
        (np.diag([1.0, -1.0, 1.0]), "'bob' has a covariance that is not positive definite"),
    ],
)
def test_a_bad_covariance_names_its_user(cov, message):
    all_of_them = prior().cov.copy()
    all_of_them[1] = cov
    with pytest.raises(DataError, match=message):
        replace(prior(), cov=all_of_them)


@pytest.mark.parametrize(
    "ids",
    [
        [3, 1, 2**62],
        np.array([3, 1, 2], dtype=np.uint8),
        ["a", "b\0", "ü\ud800"],
        ["1", "02", ""],
        pd.array(["x", "y", "z"], dtype="string"),
    ],
)
def test_a_file_gives_back_what_was_saved(ids, tmp_path):
    for k, more in enumerate(({}, {"name": 12, "entity": "item", "privacy": (0.1, 1e-9, 3.0), "alignment": 1 / 3})):
        saved = prior(ids, **more)
        back = SourcePrior.load(saved.save(tmp_path / "deep" / f"{k}.npz"))
        assert back == saved
        assert back.users.dtype == saved.users.dtype
        assert back.users.tolist() == list(ids)
        assert not back.cov.flags.writeable


@pytest.mark.parametrize("bits", [0x01, 0xFF])
def test_every_changed_byte_is_noticed_or_harmless(bits, tmp_path):
    """Some bytes of a zip archive, such as its dates, say nothing; no other may pass."""
    saved = prior([1, 2], 2)
    file = saved.save(tmp_path / "book.npz")
    whole, passed = bytearray(file.read_bytes()), 0
    for k in range(len(whole)):
        whole[k] ^= bits
        file.write_bytes(whole)
        whole[k] ^= bits
        try:
            assert SourcePrior.load(file) == saved
            passed += 1
        except LoadError:
            pass
    assert passed < len(whole) / 4


@pytest.mark.parametrize("contents", [b"", b"nothing", b"PK\x03\x04 and no more", None])
def test_what_is_no_prior_is_a_load_error(contents, file):
    file.write_bytes(file.read_bytes()[:-40] if contents is None else contents)
    with pytest.raises(LoadError, match=r"book\.npz"):
        SourcePrior.load(file)


def test_other_arrays_and_pickles_are_load_errors(tmp_path):
    with pytest.raises(LoadError, match="there is no file"):
        SourcePrior.load(tmp_path / "nowhere.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", meta=np.array([{}], dtype=object))
    for name in ("array.npy", "other.npz", "pickle.npz"):
        with pytest.raises(LoadError, match=name):
            SourcePrior.load(tmp_path / name)


def test_changed_contents_do_not_pass_the_digest(file):
    rewrite(file, signed=False, mean=np.zeros((3, 3)))
    with pytest.raises(LoadError, match="corrupt"):
        SourcePrior.load(file)


def test_contents_with_a_right_digest_are_checked_too(file):
    rewrite(file, cov=np.zeros((3, 3, 3)))
    with pytest.raises(LoadError, match="covariance of zero"):
        SourcePrior.load(file)


def test_a_newer_format_asks_for_an_upgrade(file):
    rewrite(file, meta={"format": sources.FORMAT + 1})
    with pytest.raises(LoadError, match=r"newer bayesrec \(format 2.*Upgrade bayesrec"):
        SourcePrior.load(file)


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupted_save_leaves_the_old_file_whole(file, monkeypatch, late):
    real = np.savez

    def torn(where, **arrays):
        if late:
            real(where, **arrays)
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises(KeyboardInterrupt):
        prior(name="film").save(file)
    assert SourcePrior.load(file) == prior()
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_save_replaces_and_a_folder_is_refused(file):
    assert SourcePrior.load(prior(name="film").save(str(file))).name == "film"
    with pytest.raises(DataError, match="is a folder"):
        prior().save(Path(file).parent)
