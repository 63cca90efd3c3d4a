"""Fits that climb a bound, one chain after another: the loop that VMP and SVI share, and its checkpoints. Internal."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bayesrec.inference import checkpoint
from bayesrec.inference.asleep import warn_if_asleep
from bayesrec.inference.progress import Progress
from bayesrec.inference.watch import Watch, watched
from bayesrec.posterior import Posterior

__all__ = ["Climb", "Climbed", "FitFile", "climb_all", "fit_files"]

SEPARATOR = "/"
RESTARTS = 2  # of a fit that collapses
Draws = dict[str, np.ndarray]


class Climb(ABC):
    """The fit of one chain, step by step. Abstract.

    Attributes
    ----------
    most : int
        Steps after which it is done.
    taken : int
        Steps so far.
    settled : bool
        Whether its own rule has ended it.
    attempt : int
        How many fits of this chain have collapsed before.
    """

    taken = 0
    settled = False
    attempt = 0

    def __init__(self, most: int, rng: np.random.Generator):
        self.most, self.rng = most, rng

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return self.settled or self.taken >= self.most

    @property
    def usable(self) -> bool:
        """Whether a fit that is interrupted now is worth keeping beside others."""
        return self.taken > 0

    @property
    def drawable(self) -> bool:
        """Whether there is anything to draw from, worth it or not."""
        return self.taken > 0

    @property
    def collapsed(self) -> bool:
        """Whether a fit that is done should be made again from another start."""
        return False

    @abstractmethod
    def advance(self) -> None:
        """Take a step."""

    @abstractmethod
    def words(self) -> str:
        """What the progress bar says."""

    @abstractmethod
    def state(self) -> Draws:
        """All that the next step reads and does not make anew, the generator left out."""

    @abstractmethod
    def restore(self, state: Draws) -> None:
        """Put a fit of the same model and data, from whatever start, where another one was."""

    @abstractmethod
    def draw(self, watch: Watch | None) -> tuple[Draws, Draws]:
        """Draws (draw, *event) of every site, and the stats (draw,)."""


class FitFile:
    """The file of one chain in a checkpoint folder: a fit between two steps, or the draws of one that is done."""

    def __init__(self, folder: str | Path, chain: int, fingerprint: str):
        self.path = Path(folder) / f"chain-{chain}.npz"
        self.fingerprint = fingerprint
        self.last = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """What was written last; None if there is no file."""
        return checkpoint.read_state(self.path, self.fingerprint)

    def write(self, climb: Climb) -> None:
        """Write a fit that has another step before it, unless the last write is less than EVERY seconds ago."""
        if time.monotonic() - self.last < checkpoint.EVERY:
            return
        meta = {
            "done": False,
            "taken": climb.taken,
            "attempt": climb.attempt,
            "generator": climb.rng.bit_generator.state,
        }
        self._write(meta, {"fit": climb.state()})

    @staticmethod
    def restore(saved: dict[str, Any], climb: Climb) -> None:
        """Put a fit and its generator where they were."""
        climb.taken, climb.attempt = saved["taken"], saved["attempt"]
        climb.restore(checkpoint.group(saved["arrays"], "fit"))
        climb.rng.bit_generator.state = saved["generator"]

    def finish(self, draws: Draws, stats: Draws, settled: bool, watch: Watch | None) -> None:
        """Write the draws of a chain that is done."""
        seen = {}
        if watch is not None:
            watch.settle()
            seen = {"n": np.array(watch.n), "sums": watch.sums}
        self._write({"done": True, "settled": settled}, {"draws": draws, "stats": stats, "watch": seen})

    @staticmethod
    def drawn(saved: dict[str, Any], watch: Watch | None) -> tuple[Draws, Draws, bool]:
        """Draws and stats of a chain that is done, and whether its own rule ended it."""
        if watch is not None:
            seen = checkpoint.group(saved["arrays"], "watch")
            watch.n, watch.sums = int(seen["n"]), seen["sums"]
        return checkpoint.group(saved["arrays"], "draws"), checkpoint.group(saved["arrays"], "stats"), saved["settled"]

    def _write(self, meta: dict[str, Any], groups: dict[str, Draws]) -> None:
        arrays = {f"{group}{SEPARATOR}{name}": x for group, part in groups.items() for name, x in part.items()}
        checkpoint.write_state(self.path, meta | {"fingerprint": self.fingerprint}, arrays)
        self.last = time.monotonic()

    def remove(self) -> None:
        """Delete the file: the fit is done."""
        checkpoint.remove_state(self.path)


def fit_files(
    folder: str | Path | None,
    method: Any,
    chains: int,
    model: Any,
    data: Any,
    schema: Any,
    seed: int,
    watch: Any,
) -> list[FitFile | None]:
    """The file of each chain, or as many times None; ``method`` without what does not change the draws."""
    if folder is None:
        return [None] * chains
    same = checkpoint.fit_fingerprint(model, method, data, schema, seed, watch)
    return [FitFile(folder, c, same) for c in range(chains)]


@dataclass
class Climbed:
    """What the chains of a fit have left.

    Attributes
    ----------
    draws, stats : list of dict
        One for each chain that is kept.
    unsettled : list of int
        Chains that ran out of steps.
    interrupted : bool
        Whether Ctrl-C ended the last one kept, or one after it.
    taken : int
        Steps of the last chain that was worked on.
    """

    draws: list[Draws] = field(default_factory=list)
    stats: list[Draws] = field(default_factory=list)
    unsettled: list[int] = field(default_factory=list)
    interrupted: bool = False
    taken: int = 0

    def posterior(
        self,
        model: Any,
        method: Any,
        data: Any,
        schema: Any,
        files: list[FitFile | None],
        watches: list[Watch],
        watch: Any,
    ) -> Posterior:
        """All that is kept; the files of a fit that is done go."""
        draws = {name: np.stack([one[name] for one in self.draws]) for name in model.dims}
        stats = {name: np.stack([one[name] for one in self.stats]) for name in self.stats[0]}
        answer = None if watch is None else watched(watches[: len(self.draws)], schema, watch)
        out = Posterior(draws, model, method, data, schema, stats, watched=answer)
        warn_if_asleep(out)
        for file in files if not self.interrupted else []:
            if file is not None:
                file.remove()
        return out


def _finish(climb: Climb, file: FitFile | None, bar: Progress) -> None:
    """Take all steps that are left."""
    while not climb.done:
        climb.advance()
        bar.advance()
        bar.say(climb.words())
        if file is not None and not climb.done:
            file.write(climb)


def climb_all(
    make: Callable[[np.random.Generator, bool], Climb],
    seed: int,
    most: int,
    files: list[FitFile | None],
    watches: list[Watch],
    bar: Progress,
) -> Climbed:
    """Fit one chain after another; Ctrl-C ends the steps and keeps what was reached.

    Parameters
    ----------
    make : callable
        ``make(rng, fresh)``: the fit of a chain at its start, which may be any where ``fresh`` is False.
    most : int
        Steps of a chain.
    files : list
        Of each chain; None without checkpoints.
    watches : list
        Of each chain, or empty.
    """
    out = Climbed()
    for c, file in enumerate(files):
        rng, watch = np.random.default_rng([seed, c]), watches[c] if watches else None
        saved = None if file is None else file.read()
        if saved is not None and saved["done"]:
            draws, stats, settled = FitFile.drawn(saved, watch)
            bar.advance(most)
        else:
            climb = _climbed(make, rng, file, saved, bar, out)
            if climb is None:  # the chains before are better without this one
                break
            try:
                draws, stats = climb.draw(watch)
                settled = climb.settled
                if file is not None and not out.interrupted and c + 1 < len(files):
                    file.finish(draws, stats, settled, watch)
            except KeyboardInterrupt:
                if not out.draws:
                    raise
                out.interrupted, out.taken = True, climb.taken
                break
            bar.advance(climb.most - climb.taken)
        if not settled:
            out.unsettled.append(c)
        out.draws.append(draws)
        out.stats.append(stats)
        if out.interrupted:
            break
    return out


def _climbed(
    make: Callable[[np.random.Generator, bool], Climb],
    rng: np.random.Generator,
    file: FitFile | None,
    saved: dict[str, Any] | None,
    bar: Progress,
    out: Climbed,
) -> Climb | None:
    """The fit of one chain after all its steps, or as far as it came; None where it is not worth keeping beside ``out``."""
    climb: Climb | None = None
    try:
        climb = make(rng, saved is None)
        if saved is not None:
            FitFile.restore(saved, climb)
            bar.extend(climb.attempt * climb.most)
            bar.advance(climb.attempt * climb.most + climb.taken)
        _finish(climb, file, bar)
        while climb.collapsed and climb.attempt < RESTARTS:
            bar.extend(climb.taken)
            attempt, climb = climb.attempt + 1, None
            climb = make(rng, True)
            climb.attempt = attempt
            _finish(climb, file, bar)
    except KeyboardInterrupt:
        out.interrupted, out.taken = True, 0 if climb is None else climb.taken
        if out.draws:
            return climb if climb is not None and climb.usable else None
        if climb is None or not climb.drawable:
            raise
    return climb
