"""Checkpoints of Gibbs chains: a file a chain, written whole or not at all. Internal.

A chain that goes on from its file draws what the unbroken one would have drawn: the file holds its state, the state of
its random generator and what it has kept.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from bayesrec.blocks import State
from bayesrec.errors import DataError, LoadError
from bayesrec.files import beside

__all__ = ["ChainFile", "fingerprint"]

EVERY = 20.0  # seconds between two writes of a chain


def fingerprint(*parts: Any) -> str:
    """A digest of what a chain depends on: arrays by their bytes, all else by its repr."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()


class ChainFile:
    """The file of one chain in a checkpoint folder; does nothing without a folder."""

    def __init__(self, folder: str | Path | None, chain: int, fingerprint: str):
        self.path = None if folder is None else Path(folder) / f"chain-{chain}.npz"
        self.fingerprint = fingerprint
        self.last = time.monotonic()

    def read(self) -> tuple[int, State, dict, list[dict[str, np.ndarray]], list[float]] | None:
        """Sweeps done, state, generator state, kept draws and their log densities; None if there is no file."""
        if self.path is None or not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = dict(file)
            meta = json.loads(str(arrays.pop("meta")))
        except (ValueError, KeyError, OSError) as error:
            raise LoadError(
                f"the checkpoint {str(self.path)!r} cannot be read ({error}); delete it to start afresh."
            ) from error
        if meta["fingerprint"] != self.fingerprint:
            raise DataError(
                f"the checkpoint {str(self.path)!r} belongs to another model, method, seed or data; "
                "name another folder, or delete it to start afresh."
            )
        state = {name[6:]: _plain(x) for name, x in arrays.items() if name.startswith("state/")}
        sites = [name[5:] for name in arrays if name.startswith("kept/")]
        kept = [{name: arrays[f"kept/{name}"][k] for name in sites} for k in range(len(meta["log_density"]))]
        return meta["sweep"], state, meta["generator"], kept, meta["log_density"]

    def write(
        self,
        sweep: int,
        state: State,
        rng: np.random.Generator,
        kept: list[dict[str, np.ndarray]],
        log_density: list[float],
    ) -> None:
        """Write, unless the last write is less than EVERY seconds ago."""
        if self.path is None or time.monotonic() - self.last < EVERY:
            return
        meta = {
            "fingerprint": self.fingerprint,
            "sweep": sweep,
            "generator": rng.bit_generator.state,
            "log_density": log_density,
        }
        arrays: dict[str, Any] = {f"state/{name}": np.asarray(x) for name, x in state.items()}
        if kept:
            arrays |= {f"kept/{name}": np.stack([draw[name] for draw in kept]) for name in kept[0]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with beside(self.path) as fresh, fresh.open("wb") as file:
            np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
        self.last = time.monotonic()

    def remove(self) -> None:
        """Delete the file: the chain is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _plain(x: np.ndarray) -> Any:
    return x.item() if x.ndim == 0 else x
