"""Checkpoints of VMP chains: a fit between two passes, or the draws of one that is done. Internal.

A file holds what the next pass reads and does not write first; everything else of a fit is made anew from the ratings.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from bayesrec.inference import checkpoint
from bayesrec.inference.vmp_sides import Rows
from bayesrec.inference.watch import Watch

__all__ = ["FitFile", "put_state", "state_of"]

SEPARATOR = "/"


def state_of(fit: Any) -> dict[str, np.ndarray]:
    """What a fit carries from pass to pass, by path: arrays and numbers of the factors that it names as ``carried``."""
    out, left = {}, [(name, getattr(fit, name)) for name in fit.carried]
    while left:
        path, x = left.pop()
        if isinstance(x, np.ndarray | float | int | np.number):
            out[path] = np.asarray(x)
        elif isinstance(x, list):
            left += [(f"{path}{SEPARATOR}{k}", part) for k, part in enumerate(x)]
        elif type(x).__module__.startswith("bayesrec.inference.vmp"):
            names = ("moments", "log_det") if isinstance(x, Rows) else vars(x)
            left += [(f"{path}{SEPARATOR}{name}", getattr(x, name)) for name in names]
    return out


def put_state(fit: Any, state: dict[str, np.ndarray]) -> None:
    """Put a fit of the same model and data, from whatever start, where another one was."""
    for path, value in state.items():
        owner, (*steps, last) = fit, path.split(SEPARATOR)
        for step in steps:
            owner = owner[int(step)] if isinstance(owner, list) else getattr(owner, step)
        if isinstance(owner, list):
            owner[int(last)] = value
        else:
            setattr(owner, last, value[()])  # a number if it has no axis


class FitFile:
    """The file of one chain in a checkpoint folder."""

    def __init__(self, folder: str | Path, chain: int, fingerprint: str):
        self.path = Path(folder) / f"chain-{chain}.npz"
        self.fingerprint = fingerprint
        self.last = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """What was written last; None if there is no file."""
        return checkpoint.read_state(self.path, self.fingerprint)

    def write(self, fit: Any, trace: list[float], rng: np.random.Generator) -> None:
        """Write a fit that has another pass before it, unless the last write is less than EVERY seconds ago."""
        if time.monotonic() - self.last < checkpoint.EVERY:
            return
        meta = {"done": False, "trace": trace, "generator": rng.bit_generator.state}
        self._write(meta, {"fit": state_of(fit)})

    @staticmethod
    def restore(saved: dict[str, Any], fit: Any, rng: np.random.Generator) -> None:
        """Put a fit and the generator where they were."""
        put_state(fit, checkpoint.group(saved["arrays"], "fit"))
        rng.bit_generator.state = saved["generator"]

    def finish(
        self, draws: dict[str, np.ndarray], stats: dict[str, np.ndarray], stopped: bool, watch: Watch | None
    ) -> None:
        """Write the draws of a chain that is done; ``stopped``: by its tolerance."""
        seen = {}
        if watch is not None:
            watch.settle()
            seen = {"n": np.array(watch.n), "sums": watch.sums}
        self._write({"done": True, "stopped": stopped}, {"draws": draws, "stats": stats, "watch": seen})

    @staticmethod
    def drawn(saved: dict[str, Any], watch: Watch | None) -> tuple[dict[str, Any], dict[str, Any], bool]:
        """Draws and stats of a chain that is done, and whether its tolerance stopped it."""
        if watch is not None:
            seen = checkpoint.group(saved["arrays"], "watch")
            watch.n, watch.sums = int(seen["n"]), seen["sums"]
        return checkpoint.group(saved["arrays"], "draws"), checkpoint.group(saved["arrays"], "stats"), saved["stopped"]

    def _write(self, meta: dict[str, Any], groups: dict[str, dict[str, np.ndarray]]) -> None:
        arrays = {f"{group}{SEPARATOR}{name}": x for group, part in groups.items() for name, x in part.items()}
        checkpoint.write_state(self.path, meta | {"fingerprint": self.fingerprint}, arrays)
        self.last = time.monotonic()

    def remove(self) -> None:
        """Delete the file: the fit is done."""
        checkpoint.remove_state(self.path)
