"""NUTS: Pyro's sampler on the same models, an oracle for small data."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pyro.infer.mcmc import NUTS as PyroNUTS

from bayesrec.data import Interactions
from bayesrec.data.batch import Batch as Rows
from bayesrec.errors import ConvergenceWarning, SlowWarning, UnsupportedMethodError
from bayesrec.inference.base import Method, needs_gibbs, whole_number
from bayesrec.inference.potential import Potential
from bayesrec.inference.progress import Progress
from bayesrec.inference.start import warm_start
from bayesrec.models.base import Model, Schema
from bayesrec.posterior import Posterior

__all__ = ["NUTS"]

START_SWEEPS = 20
PATIENCE = 600.0  # seconds of estimated time above which a fit says so
LOOK_AT = 3  # iterations after which the time is estimated


@dataclass(frozen=True)
class NUTS(Method):
    """No-U-turn sampling of all latents at once, by Pyro. Provisional.

    It needs no conjugacy and knows nothing of the blocks of Gibbs, so it checks them. On a factorisation its trees
    saturate: a second of Gibbs gives more effective draws than minutes of NUTS. Use it on small data. After its first
    iterations it estimates its time and warns when that is above ten minutes.

    Parameters
    ----------
    draws, warmup, chains : int
    max_tree_depth : int
        At most ``2 ** max_tree_depth`` gradients a draw.

    References
    ----------
    Hoffman and Gelman (2014), `hoffman2014` in docs/references.bib.

    Examples
    --------
    >>> NUTS(draws=100).warmup
    300
    """

    alone: ClassVar[bool] = True

    draws: int = 300
    warmup: int = 300
    chains: int = 2
    max_tree_depth: int = 8

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("warmup", 1), ("chains", 1), ("max_tree_depth", 1)):
            object.__setattr__(self, name, whole_number(self, name, least))

    def run(
        self,
        model: Model,
        data: Interactions,
        schema: Schema,
        seed: int,
        progress: bool,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
        watch: Rows | None = None,
    ) -> Posterior:
        """Run one chain after another; Ctrl-C keeps the draws of the chains that have as many as the shortest kept."""
        needs_gibbs(self, checkpoint, device, watch)
        if model.likelihood.whole:
            raise UnsupportedMethodError(
                f"NUTS multiplies densities of rows, and {model.likelihood!r} counts all cells; br.Gibbs() fits it."
            )
        table = schema.table(data)
        potential = Potential(model, schema, data)
        kept: list[list[dict[str, np.ndarray]]] = []
        stats: list[list[float]] = []
        interrupted = False
        with (
            Progress("NUTS", self.chains * (self.warmup + self.draws), progress) as bar,
            torch.random.fork_rng(devices=[]),
            _double(),
        ):
            for c in range(self.chains):
                rng = np.random.default_rng([seed, c])
                torch.manual_seed(int(rng.integers(2**62)))
                state, _ = warm_start(model, table, rng, START_SWEEPS)
                start = {name: torch.as_tensor(np.asarray(state[name]), dtype=torch.float64) for name in model.dims}
                kernel = PyroNUTS(potential_fn=potential, max_tree_depth=self.max_tree_depth)
                kernel.initial_params = potential.values(start)
                kept.append([])
                stats.append([])
                try:
                    self._chain(kernel, potential, kept[-1], stats[-1], table, bar, first=c == 0)
                except KeyboardInterrupt:
                    interrupted = True
                    break
                finally:
                    kernel.cleanup()
        if interrupted:
            if len(kept) > 1 and len(kept[-1]) < self.draws // 2:
                kept.pop()
            if not kept[-1]:
                raise KeyboardInterrupt("interrupted before the first draw; there is nothing to keep")
        n = min(len(draws) for draws in kept)
        if interrupted:
            warnings.warn(
                f"interrupted: kept {n} of {self.draws} draws in each of {len(kept)} of {self.chains} chains.",
                ConvergenceWarning,
                stacklevel=3,
            )
        everything = {name: np.stack([[d[name] for d in draws[:n]] for draws in kept]) for name in model.dims}
        log_density = np.array([x[:n] for x in stats[: len(kept)]])
        return Posterior(everything, model, self, data, schema, {"log_density": log_density})

    def _chain(
        self, kernel: Any, potential: Potential, draws: list, stats: list, table: Any, bar: Progress, *, first: bool
    ) -> None:
        kernel.setup(self.warmup)
        params, total = kernel.initial_params, self.warmup + self.draws
        begin = time.monotonic()
        for k in range(total):
            params = kernel.sample(params)
            if first and k + 1 == LOOK_AT:
                self._estimate((time.monotonic() - begin) / LOOK_AT * total * self.chains)
            if k >= self.warmup:
                latents = potential.latents(params)
                state = {name: latents[name].detach().numpy() for name in potential.model.dims}
                stats.append(potential.model.log_density(state, table))
                draws.append({name: x.astype(np.float32) for name, x in state.items()})
            bar.advance()

    def _estimate(self, seconds: float) -> None:
        if seconds > PATIENCE:
            long = f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.0f} minutes"
            warnings.warn(
                f"NUTS will take about {long} at the pace of its first {LOOK_AT} iterations; br.Gibbs() samples the same "
                "posterior in a fraction of that. Ctrl-C keeps what was drawn.",
                SlowWarning,
                stacklevel=5,
            )


class _double:
    """Double precision by default inside the block; NUTS conserves an energy, which single precision blurs."""

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *error: object) -> None:
        torch.set_default_dtype(self.before)
