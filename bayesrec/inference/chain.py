"""One Gibbs chain: its state, its random generator and the draws it has kept. Internal."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.errors import SamplingError
from bayesrec.inference.kept import ChainKept, Moments
from bayesrec.inference.progress import Progress
from bayesrec.inference.start import first_block
from bayesrec.inference.watch import Watch
from bayesrec.models.base import Model

if TYPE_CHECKING:
    from bayesrec.inference.checkpoint import ChainFile

__all__ = ["Chain"]


class Chain:
    """Goes on from where it stands, sweep by sweep."""

    def __init__(self, model: Model, table: Table, seed: int, number: int, warmup: int, thin: int):
        self.model, self.table, self.number, self.warmup, self.thin = model, table, number, warmup, thin
        self.rng = np.random.default_rng([seed, number])
        self.state: State = model.started(model.start(table, self.rng), table, self.rng)
        self.sweep = 0
        self.blocks = [block for block in model.blocks(table) if block.swept]
        self.kept = ChainKept({}, Moments({}))
        self.watch: Watch | None = None
        self.file: ChainFile | None = None

    def advance(self, draws: int, stop: threading.Event, bar: Progress) -> None:
        """Sweep until so many draws are kept, or until ``stop`` is set."""
        while self.sweep < self.warmup + draws * self.thin and not stop.is_set():
            self._sweep()
            done = self.sweep - self.warmup
            if done > 0 and done % self.thin == 0:
                self._keep()
            if self.file is not None:
                self.file.write(self)
            bar.advance()

    def _sweep(self) -> None:
        for block in self.blocks[first_block(self.blocks) if self.sweep == 0 else 0 :]:
            new = block.update(self.state, self.rng)
            bad = [name for name in block.sites if not np.isfinite(new[name]).all()]
            if bad:
                raise SamplingError(
                    f"chain {self.number}, sweep {self.sweep}: {bad} of block {block.name!r} not finite."
                )
            self.state |= new
        self.sweep += 1

    def _keep(self) -> None:
        log_density = self.model.log_density(self.state, self.table)
        if not np.isfinite(log_density):
            raise SamplingError(f"chain {self.number}, sweep {self.sweep - 1}: {self._blamed()} are not finite.")
        self.kept.put(self.state, log_density)
        if self.watch is not None:
            self.watch.add(self.state)

    def _blamed(self) -> str:
        """The sites that are not finite."""
        values: dict[str, Any] = {name: np.asarray(self.state[name], dtype=float) for name in self.model.dims}
        bad = [name for name, value in values.items() if not np.isfinite(value).all()]
        return f"sites {bad or ['log density']}"
