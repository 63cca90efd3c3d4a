"""Checkpoints of chains: of Gibbs here, of VMP and SVI in :mod:`bayesrec.inference.climb`. Internal.

A chain that goes on from its files draws what the unbroken one would have drawn: they hold its state, the state of its
random generator and what it has kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from bayesrec.errors import DataError, LoadError
from bayesrec.files import beside

if TYPE_CHECKING:
    from bayesrec.inference.chain import Chain

__all__ = ["ChainFile", "fingerprint", "fit_fingerprint", "group", "read_state", "remove_state", "write_state"]

EVERY = 20.0  # seconds between two writes of a chain


def fingerprint(*parts: Any) -> str:
    """A digest of what a chain depends on: arrays by their bytes, all else by its repr."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()


def fit_fingerprint(model: Any, method: Any, data: Any, schema: Any, seed: int, watch: Any) -> str:
    """The digest of a fit; ``method`` without what does not change the draws."""
    source = getattr(model, "source", None)  # a source prior, whose repr is short
    prior = [] if source is None else [source.users.tolist(), source.mean, source.cov]
    rows = [x for part in (data, watch) if part is not None for x in (part.user, part.item, part.domain, part.value)]
    units = schema.center, schema.scale
    return fingerprint(model, *prior, schema.user_x, schema.item_x, *units, method, seed, *rows)


def read_state(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """What ``write_state`` wrote, the arrays under ``arrays``; None if there is no file.

    Raises
    ------
    DataError
        The file belongs to another fit.
    LoadError
        The file is damaged.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        meta = json.loads(str(arrays.pop("meta")))
    except (ValueError, KeyError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise LoadError(f"the checkpoint {str(path)!r} cannot be read ({error}); delete it to start afresh.") from error
    if meta["fingerprint"] != fingerprint:
        raise DataError(
            f"the checkpoint {str(path)!r} belongs to another model, method, seed or data; "
            "name another folder, or delete it to start afresh."
        )
    return meta | {"arrays": arrays}


def write_state(path: Path, meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Write arrays and what JSON can hold, ``fingerprint`` among it, as one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as fresh, fresh.open("wb") as file:
        np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
        file.flush()
        os.fsync(file.fileno())


def remove_state(path: Path) -> None:
    """Delete a file of ``write_state``, and what a killed process left of one."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


class ChainFile:
    """The files of one chain in a checkpoint folder.

    ``chain-0.npz`` holds the chain's state and is written whole; ``chain-0.draws`` holds its draws one after another and only
    grows. What stands in it beyond the number of draws that the first file names, whose checksum it has, is of an unfinished
    write or of a fit whose state was deleted, and is written over.
    """

    def __init__(self, folder: str | Path, chain: int, fingerprint: str):
        self.path = Path(folder) / f"chain-{chain}.npz"
        self.draws = Path(folder) / f"chain-{chain}.draws"
        self.fingerprint = fingerprint
        self.last = time.monotonic()
        self.written = self.end = self.checksum = 0  # draws, their bytes, and the CRC of these

    def read(self) -> dict[str, Any] | None:
        """What was written last; None if there is no file."""
        return read_state(self.path, self.fingerprint)

    def restore(self, chain: Chain, saved: dict[str, Any]) -> None:
        """Put a chain, which has room for them, where its files end."""
        arrays, kept = saved["arrays"], chain.kept
        chain.sweep, chain.rng.bit_generator.state = saved["sweep"], saved["generator"]
        chain.state = {name: _plain(x) for name, x in group(arrays, "state").items()}
        kept.log_density, kept.n, self.written = (
            saved["log_density"],
            len(saved["log_density"]),
            len(saved["log_density"]),
        )
        kept.moments.n = kept.n
        kept.moments.mean, kept.moments.squares = group(arrays, "mean"), group(arrays, "squares")
        if chain.watch is not None:
            chain.watch.n, chain.watch.sums = saved["watched"], arrays["watch"]
            waiting = group(arrays, "waiting")
            count = len(next(iter(waiting.values()))) if waiting else 0
            chain.watch.waiting = [{name: x[k] for name, x in waiting.items()} for k in range(count)]
        if not kept.n:
            return
        try:
            with self.draws.open("rb") as file:
                for k in range(kept.n):
                    for array in kept.draws.values():
                        raw = file.read(array[k].nbytes)
                        self.checksum = zlib.crc32(raw, self.checksum)
                        array[k] = np.frombuffer(raw, np.float32).reshape(array[k].shape)
                self.end = file.tell()
            if self.checksum != saved.get("checksum"):
                raise ValueError("its checksum is another")
        except (OSError, ValueError) as error:
            raise LoadError(
                f"the checkpoint {str(self.draws)!r} lacks draws or is damaged ({error}); delete its folder to start afresh."
            ) from error

    def write(self, chain: Chain) -> None:
        """Write, unless the last write is less than EVERY seconds ago."""
        if time.monotonic() - self.last < EVERY:
            return
        kept = chain.kept
        meta = {
            "fingerprint": self.fingerprint,
            "sweep": chain.sweep,
            "generator": chain.rng.bit_generator.state,
            "log_density": kept.log_density,
        }
        groups: dict[str, Any] = {"state": chain.state, "mean": kept.moments.mean, "squares": kept.moments.squares}
        more: dict[str, Any] = {}
        if chain.watch is not None:
            meta["watched"], more["watch"] = chain.watch.n, chain.watch.sums
            waiting = chain.watch.waiting
            groups["waiting"] = (
                {name: np.stack([draw[name] for draw in waiting]) for name in waiting[0]} if waiting else {}
            )
        arrays: dict[str, Any] = {
            f"{group}/{name}": np.asarray(x) for group, part in groups.items() for name, x in part.items()
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        checksum = self.checksum
        with self.draws.open("r+b" if self.written else "wb") as file:
            file.seek(self.end)
            file.truncate()
            for k in range(self.written, kept.n):
                for array in kept.draws.values():
                    checksum = zlib.crc32(array[k].tobytes(), checksum)
                    file.write(array[k].tobytes())
            file.flush()
            os.fsync(file.fileno())
            end = file.tell()
        write_state(self.path, meta | {"checksum": checksum}, arrays | more)
        self.last, self.written, self.end, self.checksum = time.monotonic(), kept.n, end, checksum

    def remove(self) -> None:
        """Delete the files, and what a killed process left of one: the chain is done."""
        remove_state(self.path)
        self.draws.unlink(missing_ok=True)


def group(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with ``name/``."""
    return {key.removeprefix(f"{name}/"): x for key, x in arrays.items() if key.startswith(f"{name}/")}


def _plain(x: np.ndarray) -> Any:
    return x.item() if x.ndim == 0 else x
