"""Gibbs: exact blocked Gibbs sampling over the conjugate blocks that a model declares."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bayesrec.data import Interactions
from bayesrec.errors import ConvergenceWarning, DataError
from bayesrec.inference.base import Method, positive_number, whole_number
from bayesrec.inference.chain import Chain
from bayesrec.inference.checkpoint import ChainFile, fingerprint
from bayesrec.inference.progress import Progress
from bayesrec.models.base import Model, Schema
from bayesrec.posterior import Posterior
from bayesrec.workers import Workers

__all__ = ["Gibbs"]

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

    def __post_init__(self) -> None:
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
    ) -> Posterior:
        """Run the chains in threads; Ctrl-C keeps what was drawn by then."""
        threads = self.threads or _cpus()
        helpers, pool = ThreadPoolExecutor(threads), ThreadPoolExecutor(threads)
        table = replace(schema.table(data), workers=Workers(max(1, threads // self.chains), helpers))
        same = checkpoint and fingerprint(
            model, replace(self, threads=None), seed, data.user, data.item, data.domain, data.value
        )
        files = [ChainFile(checkpoint, c, same or "") for c in range(self.chains)]
        chains = [Chain(model, table, seed, c, self.warmup, self.thin, file) for c, file in enumerate(files)]
        goal, most = self.draws, self.max_draws or self.draws
        interrupted, reached = False, True

        def posterior(finished: int, chosen: Iterable[Chain]) -> Posterior:
            parts = [(chain.kept[:finished], chain.log_density[:finished]) for chain in chosen]
            draws = {name: np.stack([[draw[name] for draw in kept] for kept, _ in parts]) for name in model.dims}
            return Posterior(draws, model, self, data, schema, {"log_density": np.array([stat for _, stat in parts])})

        with Progress("Gibbs", self.chains * (self.warmup + goal * self.thin), progress) as bar, helpers, pool:
            bar.advance(sum(chain.sweep for chain in chains))
            while not interrupted:
                interrupted = _run(chains, goal, pool, bar)
                if interrupted or self.target_ess is None:
                    break
                reached = enough(posterior(goal, chains), self.target_ess)
                if reached or goal >= most:
                    break
                more = min(2 * goal, most)
                bar.extend(self.chains * (more - goal) * self.thin)
                goal = more
        if interrupted:
            usable, finished = _rectangle([len(chain.kept) for chain in chains])
            if not finished:
                raise KeyboardInterrupt("interrupted before the first draw; there is nothing to keep")
            warnings.warn(
                f"interrupted: kept {finished} of {goal} draws in each of {len(usable)} of {self.chains} chains.",
                ConvergenceWarning,
                stacklevel=3,
            )
            return posterior(finished, [chains[c] for c in usable])
        for file in files:
            file.remove()
        if not reached:
            warnings.warn(
                f"{goal} draws in each of {self.chains} chains do not reach target_ess={self.target_ess} with an R-hat of at "
                f"most {RHAT}; diagnostics() says for which quantities. Raise max_draws, or take the draws as they are.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return posterior(goal, chains)


def _run(chains: list[Chain], goal: int, pool: ThreadPoolExecutor, bar: Progress) -> bool:
    """Bring all chains to ``goal`` draws; True if Ctrl-C came first."""
    stop = threading.Event()
    futures = [pool.submit(chain.advance, goal, stop, bar) for chain in chains]
    try:
        for future in as_completed(futures):  # as they end: one that fails must not wait for its elders
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


def _cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rectangle(lengths: list[int]) -> tuple[list[int], int]:
    """Chains and draws a chain that keep most draws of chains with these lengths."""
    order = sorted(range(len(lengths)), key=lambda c: -lengths[c])
    k = max(range(len(order)), key=lambda k: (k + 1) * lengths[order[k]])
    return sorted(order[: k + 1]), lengths[order[k]]
