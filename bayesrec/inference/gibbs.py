"""Gibbs: exact blocked Gibbs sampling over the conjugate blocks that a model declares."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bayesrec.blocks import State
from bayesrec.data import Interactions
from bayesrec.errors import ConvergenceWarning, SamplingError
from bayesrec.inference.base import Method, whole_number
from bayesrec.inference.checkpoint import ChainFile, fingerprint
from bayesrec.inference.progress import Progress
from bayesrec.inference.start import first_block
from bayesrec.models.base import Model, Schema
from bayesrec.posterior import Posterior

__all__ = ["Gibbs"]


@dataclass(frozen=True)
class Gibbs(Method):
    """Exact blocked Gibbs. Stable.

    Every block is drawn from its conditional distribution, all components of a user or an item at once. Chains end
    in different modes of a factorisation, so their draws are pooled: several chains predict better than one long one.

    Parameters
    ----------
    draws : int
        Draws kept in each chain.
    warmup : int
        Sweeps before the first of them.
    chains : int
    thin : int
        Sweeps for each kept draw.
    threads : int, optional
        Chains run at once; by default as many as there are CPUs allowed. The draws do not depend on it.

    Examples
    --------
    >>> Gibbs(draws=100).chains
    4
    """

    draws: int = 500
    warmup: int = 200
    chains: int = 4
    thin: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("warmup", 0), ("chains", 1), ("thin", 1), ("threads", 1)):
            if name != "threads" or self.threads is not None:
                object.__setattr__(self, name, whole_number(self, name, least))

    def run(
        self,
        model: Model,
        data: Interactions,
        schema: Schema,
        seed: int,
        progress: bool,
        checkpoint: str | Path | None = None,
    ) -> Posterior:
        """Run the chains in threads; Ctrl-C keeps what was drawn by then."""
        table = schema.table(data)
        stop = threading.Event()
        kept: list[list[dict[str, np.ndarray]]] = [[] for _ in range(self.chains)]
        stats: list[list[float]] = [[] for _ in range(self.chains)]
        sweeps = self.warmup + self.draws * self.thin
        same = checkpoint and fingerprint(
            model, replace(self, threads=None), seed, data.user, data.item, data.domain, data.value
        )
        files = [ChainFile(checkpoint, c, same or "") for c in range(self.chains)]

        def chain(c: int) -> None:
            rng = np.random.default_rng([seed, c])
            state = model.start(table, rng)
            first, saved = 0, files[c].read()
            if saved:
                first, state, rng.bit_generator.state, kept[c], stats[c] = saved
                bar.advance(first)
            blocks = model.blocks(table)
            members = first_block(blocks)
            for sweep in range(first, sweeps):
                if stop.is_set():
                    return
                for block in blocks[members if sweep == 0 else 0 :]:
                    new = block.update(state, rng)
                    bad = [name for name in block.sites if not np.isfinite(new[name]).all()]
                    if bad:
                        raise SamplingError(f"chain {c}, sweep {sweep}: {bad} of block {block.name!r} not finite.")
                    state |= new
                done = sweep + 1 - self.warmup
                if done > 0 and done % self.thin == 0:
                    errors = model.squared_errors(state, table)
                    log_density = model.likelihood.log_density(state, table, errors)
                    if not np.isfinite(log_density):
                        raise SamplingError(_blame(state, model, c, sweep))
                    stats[c].append(log_density)
                    kept[c].append({name: np.asarray(state[name], dtype=np.float32) for name in model.dims})
                files[c].write(sweep + 1, state, rng, kept[c], stats[c])
                bar.advance()

        interrupted = False
        with (
            Progress("Gibbs", self.chains * sweeps, progress) as bar,
            ThreadPoolExecutor(self.threads or _cpus()) as pool,
        ):
            futures = [pool.submit(chain, c) for c in range(self.chains)]
            try:
                for future in as_completed(futures):  # as they end: one that fails must not wait for its elders
                    future.result()
            except KeyboardInterrupt:
                interrupted = True
            finally:
                stop.set()
        chosen, finished = _rectangle([len(k) for k in kept])
        if interrupted:
            if not finished:
                raise KeyboardInterrupt("interrupted before the first draw; there is nothing to keep")
            warnings.warn(
                f"interrupted: kept {finished} of {self.draws} draws in each of {len(chosen)} of {self.chains} chains.",
                ConvergenceWarning,
                stacklevel=3,
            )
        else:
            for file in files:
                file.remove()
        draws = {name: np.stack([[d[name] for d in kept[c][:finished]] for c in chosen]) for name in model.dims}
        density = np.array([stats[c][:finished] for c in chosen])
        return Posterior(draws, model, self, data, schema, {"log_density": density})


def _cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rectangle(lengths: list[int]) -> tuple[list[int], int]:
    """Chains and draws a chain that keep most draws of chains with these lengths."""
    order = sorted(range(len(lengths)), key=lambda c: -lengths[c])
    k = max(range(len(order)), key=lambda k: (k + 1) * lengths[order[k]])
    return sorted(order[: k + 1]), lengths[order[k]]


def _blame(state: State, model: Model, chain: int, sweep: int) -> str:
    """Name the sites that are not finite."""
    bad = [name for name in model.dims if not np.all(np.isfinite(np.asarray(state[name], dtype=float)))]
    return f"chain {chain}, sweep {sweep}: sites {bad or ['log density']} are not finite."
