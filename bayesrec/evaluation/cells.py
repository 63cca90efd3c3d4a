"""Cells: one arm on one split. Computed once, kept as arrays under a fingerprint of all that they depend on. Internal."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from bayesrec.data import Vocabulary
from bayesrec.errors import BayesrecError, UnsupportedMethodError
from bayesrec.evaluation.arms import SIMPLE, Arm
from bayesrec.evaluation.splits import Split
from bayesrec.files import beside
from bayesrec.inference.base import fit, fit_unchecked, whole_fits

__all__ = ["LEVEL", "Answer", "Cell", "fingerprint", "read", "solve", "split_digest"]

LEVEL = 0.9
Z = 1.6448536269514722  # half width of a central interval of that level, in sds
FAILURES = (BayesrecError, ArithmeticError, ValueError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class Cell:
    """One arm on one split, and the file where its answer is kept (None: nowhere)."""

    arm: Arm
    split: Split
    path: Path | None = None
    threads: int | None = None

    @property
    def title(self) -> str:
        """What messages call the cell."""
        how = f" by {self.arm.method_name}" if self.arm.method_name else ""
        return f"{self.arm.name}{how}, split {self.split.name!r}, seed {self.split.seed}"


@dataclass(frozen=True)
class Answer:
    """What an arm says of the rows of a split: arrays (row,) ``score, mean, sd, lower, upper, log_score``, or none."""

    arrays: dict[str, np.ndarray]
    seconds: float = float("nan")
    notes: tuple[str, ...] = ()
    failed: bool = False


def split_digest(split: Split) -> str:
    """A digest of a split: its name and seed, the rows and ids of both halves."""
    return _digest(split.name, split.seed, split.train, split.test)


def fingerprint(arm: Arm, split: str) -> str:
    """A digest of bayesrec's version, an arm and a split (its digest). How a model is called does not count."""
    try:
        release = version("bayesrec")
    except PackageNotFoundError:  # run from a source tree that was never installed
        release = ""
    method = arm.method
    if hasattr(method, "threads"):  # does not change the draws
        method = replace(method, threads=None)  # type: ignore[type-var]
    what = (arm.name,) if arm.model is None else (arm.model, method, arm.drop_source)
    return _digest(release, split, *what)


def _digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()[:40]


def _feed(digest: Any, part: Any) -> None:
    """Take in a value: arrays by their bytes, dataclasses field by field, all else by its repr."""
    if isinstance(part, Vocabulary):
        for block in part.blocks:
            _feed(digest, pd.util.hash_pandas_object(pd.Series(np.asarray(block)), index=False).to_numpy())
        digest.update(repr(part.scopes).encode())
    elif is_dataclass(part) and not isinstance(part, type):
        digest.update(type(part).__qualname__.encode())
        for field in fields(part):
            digest.update(field.name.encode())
            _feed(digest, getattr(part, field.name))
    elif isinstance(part, pd.DataFrame):
        _feed(digest, pd.util.hash_pandas_object(part).to_numpy())
    elif hasattr(part, "__array__") and not isinstance(part, np.generic):
        array = np.asarray(part)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes())
    elif isinstance(part, dict):
        for key, value in part.items():
            _feed(digest, key)
            _feed(digest, value)
    elif isinstance(part, tuple | list):
        for value in part:
            _feed(digest, value)
    else:
        digest.update(repr(part).encode())
    digest.update(b"|")


def read(path: Path | None) -> Answer | None:
    """Return the answer kept in a file; None if there is none, or none that can be read."""
    if path is None or not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
        meta = json.loads(str(arrays.pop("meta")))
        return Answer(arrays, meta["seconds"], tuple(meta["notes"]))
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile):
        return None


def _write(path: Path, answer: Answer) -> None:
    meta = json.dumps({"seconds": answer.seconds, "notes": answer.notes})
    with beside(path) as fresh, fresh.open("wb") as file:
        np.savez(file, meta=np.array(meta), **answer.arrays)  # type: ignore[arg-type]


def solve(cell: Cell, strict: bool = False) -> Answer:
    """Fit and predict, and keep the answer; a failure is an answer without arrays, unless ``strict``."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with whole_fits(f"{cell.title}: the fit was interrupted"):
                arrays = _baseline(cell) if cell.arm.model is None else _model(cell)
    except FAILURES as error:
        if strict:
            raise
        return Answer({}, time.perf_counter() - start, (f"{type(error).__name__}: {error}",), failed=True)
    said = (w for w in caught if not issubclass(w.category, (DeprecationWarning, FutureWarning)))
    notes = [*dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in said)]
    if cell.arm.model is not None and "log_score" not in arrays:
        notes.append("no NLPD: this posterior has no log scores")
    answer = Answer(arrays, time.perf_counter() - start, tuple(notes))
    if cell.path is not None:
        _write(cell.path, answer)
    return answer


def _baseline(cell: Cell) -> dict[str, np.ndarray]:
    rows = cell.split.test
    baseline = SIMPLE[cell.arm.name](cell.split.train)
    score, sd = baseline.predict(rows.user, rows.item), baseline.spread(rows.user, rows.item)
    if not baseline.is_rating:
        return {"score": score}
    z = (rows.value - score) / sd
    return {
        "score": score,
        "mean": score,
        "sd": sd,
        "lower": score - Z * sd,
        "upper": score + Z * sd,
        "log_score": -0.5 * z**2 - np.log(sd) - 0.5 * np.log(2.0 * np.pi),
    }


def _model(cell: Cell) -> dict[str, np.ndarray]:
    arm, split = cell.arm, cell.split
    assert arm.model is not None
    assert arm.method is not None
    method = arm.method
    if cell.threads and getattr(method, "threads", 0) is None:  # does not change the draws
        method = replace(method, threads=cell.threads)  # type: ignore[type-var]
    if arm.drop_source:
        posterior = fit_unchecked(arm.model, split.train.without_sources(), method, split.seed)
    else:
        posterior = fit(arm.model, split.train, method, seed=split.seed, progress=False)
    table = posterior.predict(split.test, level=LEVEL)
    arrays = {name: np.asarray(table[name].to_numpy(), dtype=float) for name in ("mean", "sd", "lower", "upper")}
    arrays["score"] = arrays["mean"]
    if split.train.columns.value is None:  # only the order of cells is measured
        return arrays | {"log_score": np.full(len(split.test), np.nan)}
    with suppress(UnsupportedMethodError):
        arrays["log_score"] = posterior.log_score(split.test)
    return arrays
