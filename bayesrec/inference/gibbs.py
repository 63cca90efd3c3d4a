"""Gibbs: exact blocked Gibbs sampling over the conjugate blocks that a model declares."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bayesrec.batched import Layouts
from bayesrec.data import Interactions
from bayesrec.data.batch import Batch
from bayesrec.errors import ConvergenceWarning, DataError
from bayesrec.inference.base import Method, positive_number, whole_number
from bayesrec.inference.chain import Chain
from bayesrec.inference.checkpoint import ChainFile, fit_fingerprint
from bayesrec.inference.kept import Kept, kept_sites
from bayesrec.inference.progress import Progress
from bayesrec.inference.watch import Watch, watched
from bayesrec.models.base import Model, Schema
from bayesrec.posterior import Posterior
from bayesrec.rows import JITTER
from bayesrec.workers import Workers

__all__ = ["Gibbs", "cpus"]

GLANCE = 0.2  # seconds
RHAT = 1.01  # at most this where a fit stops by itself


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
        By default as many as there are CPUs allowed. Chains run side by side; threads that are left over share the rows
        of a chain. The draws do not depend on it.
    target_ess : float, optional
        Go on after ``draws`` until every identified quantity of ``diagnostics()`` has this bulk ESS and an R-hat of at
        most 1.01 (Vehtari et al. 2021); it is looked at after ``draws``, twice as many, and so on.
    max_draws : int, optional
        Draws a chain at which ``target_ess`` is given up, with a warning; by default ten times ``draws``.
    keep : tuple of str, optional
        Sites with an axis of users or items whose draws stay; of the others ``posterior.moments`` has mean and sd, and what
        needs their draws says so. By default all stay. The other sites are small and always stay.
    memory : float, optional
        GiB of draws held in memory; draws that take more go to temporary files as a whole. By default all are in memory.
    kernel : {"compiled", "batched"}, optional
        Loops for the CPU or batches of torch, which are equal in law; by default batches on a GPU and loops elsewhere.

    Examples
    --------
    >>> Gibbs(draws=100).chains
    4
    >>> Gibbs(draws=200, target_ess=400).max_draws
    2000
    """

    draws: int = 500
    warmup: int = 200
    chains: int = 4
    thin: int = 1
    threads: int | None = None
    target_ess: float | None = None
    max_draws: int | None = None
    keep: tuple[str, ...] | None = None
    memory: float | None = None
    kernel: str | None = None

    def __post_init__(self) -> None:
        if self.keep is not None:
            if isinstance(self.keep, str) or not all(isinstance(name, str) for name in self.keep):
                raise DataError(f"Gibbs(keep=...) must be a tuple of names of sites, not {self.keep!r}")
            object.__setattr__(self, "keep", tuple(self.keep))
        if self.memory is not None:
            object.__setattr__(self, "memory", positive_number(self, "memory"))
        if self.kernel not in (None, "compiled", "batched"):
            raise DataError(f"Gibbs(kernel=...) must be 'compiled', 'batched' or None, not {self.kernel!r}")
        for name, least in (("draws", 1), ("warmup", 0), ("chains", 1), ("thin", 1), ("threads", 1)):
            if name != "threads" or self.threads is not None:
                object.__setattr__(self, name, whole_number(self, name, least))
        if self.target_ess is None:
            if self.max_draws is not None:
                raise DataError("Gibbs(max_draws=...) needs target_ess=...: without it exactly `draws` are drawn")
            return
        object.__setattr__(self, "target_ess", positive_number(self, "target_ess"))
        if self.max_draws is None:
            object.__setattr__(self, "max_draws", 10 * self.draws)
        object.__setattr__(self, "max_draws", whole_number(self, "max_draws", self.draws))

    def run(
        self,
        model: Model,
        data: Interactions,
        schema: Schema,
        seed: int,
        progress: bool,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
        watch: Batch | None = None,
    ) -> Posterior:
        """Run the chains in threads; Ctrl-C keeps what was drawn by then."""
        threads = self.threads or cpus()
        helpers, pool = ThreadPoolExecutor(threads), ThreadPoolExecutor(threads)
        jittered: list[tuple[str, int]] = []
        workers = Workers(max(1, threads // self.chains), helpers, jittered)
        if device != "cpu" or self.kernel == "batched":
            workers = replace(workers, device=device, layouts=Layouts())
        table = replace(schema.table(data), workers=workers)
        sites = kept_sites(model, self.keep)
        chains = [Chain(model, table, seed, c, self.warmup, self.thin) for c in range(self.chains)]
        others = [name for name in model.dims if name not in sites]
        memory = None if self.memory is None else self.memory * 2**30
        kept = Kept(chains[0].state, sites, others, self.chains, self.draws, memory)
        watches = [] if watch is None else [Watch(model, schema, watch) for _ in chains]
        for c, chain in enumerate(chains):
            chain.kept, chain.watch = kept.chains[c], watches[c] if watches else None
        goal, most = self.draws, self.max_draws or self.draws
        if checkpoint is not None:
            same = fit_fingerprint(model, replace(self, threads=None, memory=None), data, schema, seed, watch)
            _restore(chains, kept, [ChainFile(checkpoint, c, same) for c in range(self.chains)])
        interrupted, reached = False, True

        def posterior(finished: int, chosen: list[int], final: bool = False) -> Posterior:
            stats = {"log_density": np.array([kept.chains[c].log_density[:finished] for c in chosen])}
            moments = {name: kept.moments(name, chosen) for name in others} if final else {}
            seen = watched([watches[c] for c in chosen], schema, watch) if final and watch is not None else None
            return Posterior(kept.arrays(chosen, finished), model, self, data, schema, stats, moments, seen)

        every = list(range(self.chains))
        with Progress("Gibbs", self.chains * (self.warmup + goal * self.thin), progress) as bar, helpers, pool:
            bar.advance(sum(chain.sweep for chain in chains))
            while not interrupted:
                interrupted = _run(chains, goal, pool, bar)
                if interrupted or self.target_ess is None:
                    break
                reached = enough(posterior(goal, every), self.target_ess)
                if reached or goal >= most:
                    break
                more = min(2 * goal, most)
                bar.extend(self.chains * (more - goal) * self.thin)
                kept.grow(more)
                goal = more
        _say_jitter(jittered)
        if interrupted:
            usable, finished = _rectangle([part.n for part in kept.chains])
            if not finished:
                raise KeyboardInterrupt("interrupted before the first draw; there is nothing to keep")
            warnings.warn(
                f"interrupted: kept {finished} of {goal} draws in each of {len(usable)} of {self.chains} chains.",
                ConvergenceWarning,
                stacklevel=3,
            )
            return posterior(finished, usable, final=True)
        for chain in chains:
            if chain.file is not None:
                chain.file.remove()
        if not reached:
            warnings.warn(
                f"{goal} draws in each of {self.chains} chains do not reach target_ess={self.target_ess} with an R-hat of at "
                f"most {RHAT}; diagnostics() says for which quantities. Raise max_draws, or take the draws as they are.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return posterior(goal, every, final=True)


def _restore(chains: list[Chain], kept: Kept, files: list[ChainFile]) -> None:
    """Put every chain where its file ends."""
    saved = [file.read() for file in files]
    kept.grow(max(len(one["log_density"]) if one else 0 for one in saved))
    for chain, file, one in zip(chains, files, saved, strict=True):
        chain.file = file
        if one:
            file.restore(chain, one)


def _say_jitter(jittered: list[tuple[str, int]]) -> None:
    """Warn of rows whose precision was positive definite only with jitter."""
    for block in sorted({name for name, _ in jittered}):
        n = sum(count for name, count in jittered if name == block)
        warnings.warn(
            f"{n} rows of block {block!r} were drawn with jitter of at most {JITTER[-1]:g} on their precision matrix, which was "
            "singular but for rounding. Ratings or scales of extreme size do that; look at the data.",
            ConvergenceWarning,
            stacklevel=4,
        )


def _run(chains: list[Chain], goal: int, pool: ThreadPoolExecutor, bar: Progress) -> bool:
    """Bring all chains to ``goal`` draws; True if Ctrl-C came first."""
    stop = threading.Event()
    futures = [pool.submit(chain.advance, goal, stop, bar) for chain in chains]
    try:
        waiting = set(futures)
        while waiting:  # with glances: a wait without end is deaf to Ctrl-C where a library has taken over its signal
            done, waiting = wait(waiting, timeout=GLANCE, return_when=FIRST_COMPLETED)
            for future in done:  # as they end: one that fails must not wait for its elders
                future.result()
    except KeyboardInterrupt:
        return True
    finally:
        stop.set()
        wait(futures)
    return False


def enough(posterior: Posterior, target_ess: float) -> bool:
    """Whether every identified quantity has the bulk ESS and an R-hat of at most RHAT."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        table = posterior.diagnostics()
    return bool((table["ess_bulk"] >= target_ess).all() and (table["rhat"] <= RHAT).all())


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rectangle(lengths: list[int]) -> tuple[list[int], int]:
    """Chains and draws a chain that keep most draws of chains with these lengths."""
    order = sorted(range(len(lengths)), key=lambda c: -lengths[c])
    k = max(range(len(order)), key=lambda k: (k + 1) * lengths[order[k]])
    return sorted(order[: k + 1]), lengths[order[k]]
