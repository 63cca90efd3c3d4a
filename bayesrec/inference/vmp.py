"""VMP: variational message passing, closed-form updates of a factorised approximation."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.data.batch import Batch as Rows
from bayesrec.errors import ConvergenceWarning, SamplingError, UnsupportedMethodError
from bayesrec.inference.base import Method, needs_gibbs, positive_number, whole_number
from bayesrec.inference.checkpoint import fingerprint
from bayesrec.inference.gibbs import cpus
from bayesrec.inference.progress import Progress
from bayesrec.inference.start import warm_start
from bayesrec.inference.svi import warn_if_asleep
from bayesrec.inference.vmp_honesty import item_shapes
from bayesrec.inference.vmp_saved import FitFile
from bayesrec.inference.vmp_single import SingleFit
from bayesrec.inference.vmp_transfer import TransferFit
from bayesrec.inference.watch import Watch, watched
from bayesrec.likelihoods import Gaussian
from bayesrec.models.base import Model, Schema
from bayesrec.models.single import SingleVector
from bayesrec.posterior import Posterior
from bayesrec.workers import Workers

__all__ = ["VMP", "fits"]

START_SWEEPS = 40  # of Gibbs: from fewer, passes end in worse optima
ENOUGH = 50  # draws that tell the shape of a tail
WINDOW = 5  # passes whose mean gain decides when to stop


@dataclass(frozen=True)
class VMP(Method):
    """Variational message passing. Provisional.

    Users and items are independent normals, each with a full covariance; gates, means, scales and covariances have the
    factors that are optimal given the rest; so do the noise levels of users, by quadrature. A pass updates everything once, in
    closed form, and never lowers the ELBO. Fits Gaussian ratings with the models of this package.
    Spreads are narrower than those of Gibbs, and what is weak is pruned, such as the factors of a map: docs/methods.md says by
    how much, and when not to use it.

    Parameters
    ----------
    passes : int
        At most so many passes of each chain.
    tolerance : float
        A chain stops when a pass raises the ELBO by less than this, in nats a rating, on average over five passes.
    draws : int
        Draws from each fitted approximation.
    chains : int
        Fits from different starts, whose draws are pooled: they end in different modes, as Gibbs's chains do.
    threads : int, optional
        That share the rows of a chain; by default as many as there are CPUs allowed. The draws do not depend on it.

    Notes
    -----
    The draws of a chain are independent. ``posterior.stats``, and so ``diagnostics()``, has beside ``log_density`` two more:

    * ``elbo``: the log density of the ratings at a draw minus the divergence of the approximation from the prior. Its mean over
      a chain's draws is that chain's ELBO (ratings in sd units).
    * ``khat``, from 50 draws on: not of draws but of rated items at random, one after another: the Pareto shape of the
      ratios between an item's conditional density, averaged over draws of the rest, and its factor. Above .7 the factor is
      too narrow to stand for it.

    References
    ----------
    Winn, J. and Bishop, C. M. (2005). Variational message passing. Journal of Machine Learning Research 6.
    Lim, Y. J. and Teh, Y. W. (2007). Variational Bayesian approach to movie rating prediction. KDD Cup and Workshop.
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. Journal of Machine Learning Research 25.

    Examples
    --------
    >>> VMP(passes=50).chains
    4
    """

    passes: int = 150
    tolerance: float = 2e-5
    draws: int = 250
    chains: int = 4
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("passes", 2), ("draws", 1), ("chains", 1), ("threads", 1)):
            if name != "threads" or self.threads is not None:
                object.__setattr__(self, name, whole_number(self, name, least))
        object.__setattr__(self, "tolerance", positive_number(self, "tolerance"))

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
        """Fit one chain after another; Ctrl-C ends the passes and keeps what was reached."""
        needs_gibbs(self, None, device, None)
        kind = _fit_of(model)
        threads = self.threads or cpus()
        kept: list[dict[str, np.ndarray]] = []
        stats: list[dict[str, np.ndarray]] = []
        watches: list[Watch] = []
        unfinished, interrupted = [], False
        files = self._files(checkpoint, model, data, schema, seed, watch)
        with Progress("VMP", self.chains * self.passes, progress) as bar, ThreadPoolExecutor(threads) as pool:
            table = schema.table(data)
            table = replace(table, workers=Workers(threads, pool), weight=model.exponents(schema.n_domains))
            for c, file in enumerate(files):
                rng = np.random.default_rng([seed, c])
                saved = None if file is None else file.read()
                watches += [] if watch is None else [Watch(model, schema, watch)]
                seen = watches[-1] if watches else None
                if saved is not None and saved["done"]:
                    draws, one, stopped = FitFile.drawn(saved, seen)
                    passes = self.passes
                    bar.advance(passes)
                else:
                    fit, trace = None, [] if saved is None else saved["trace"]
                    try:
                        if saved is None:
                            fit = kind(model, table, warm_start(model, table, rng, START_SWEEPS)[0])
                        else:
                            bar.advance(len(trace))
                            fit = kind(model, table, model.start(table, np.random.default_rng(0)))
                            FitFile.restore(saved, fit, rng)
                        gain = self._climb(fit, trace, len(data), bar, file, rng)
                    except KeyboardInterrupt:
                        interrupted, gain = True, np.inf
                        if fit is None or not trace:
                            if not kept:
                                raise
                            break  # the chains before are better without this one
                    passes, stopped = len(trace), gain < self.tolerance
                    draws, one = self._draw(model, table, fit, rng, seen)
                    if file is not None and not interrupted and c + 1 < self.chains:
                        file.finish(draws, one, stopped, seen)
                unfinished += [] if stopped else [c]
                kept.append(draws)
                stats.append(one)
                bar.advance(self.passes - passes)
                if interrupted:
                    break
        _say_unfinished(unfinished, interrupted, len(kept), self)
        everything = {name: np.stack([draws[name] for draws in kept]) for name in model.dims}
        all_stats = {name: np.stack([one[name] for one in stats]) for name in stats[0]}
        answer = None if watch is None else watched(watches[: len(kept)], schema, watch)
        posterior = Posterior(everything, model, self, data, schema, all_stats, watched=answer)
        warn_if_asleep(posterior)
        for file in files if not interrupted else []:
            if file is not None:
                file.remove()
        return posterior

    def _files(
        self, folder: Any, model: Model, data: Interactions, schema: Schema, seed: int, watch: Rows | None
    ) -> list[FitFile | None]:
        """The file of each chain, or as many times None."""
        if folder is None:
            return [None] * self.chains
        rows = [
            x for part in (data, watch) if part is not None for x in (part.user, part.item, part.domain, part.value)
        ]
        same = fingerprint(model, replace(self, threads=None), schema.center, schema.scale, seed, *rows)
        return [FitFile(folder, c, same) for c in range(self.chains)]

    def _climb(
        self, fit: Any, trace: list[float], n: int, bar: Progress, file: FitFile | None, rng: np.random.Generator
    ) -> float:
        """Passes until the ELBO, of which each adds one to ``trace``, stands; the mean gain of the last in nats a rating."""
        gain = np.inf
        for _ in range(self.passes - len(trace)):
            fit.advance()
            if not np.isfinite(fit.elbo):
                raise SamplingError(
                    f"the ELBO is not finite after pass {len(trace) + 1}; look for ratings of extreme size."
                )
            trace.append(fit.elbo)
            bar.advance()
            if len(trace) > WINDOW:
                gain = (trace[-1] - trace[-1 - WINDOW]) / (WINDOW * n)
                if gain < self.tolerance:
                    break
            if file is not None and len(trace) < self.passes:
                file.write(fit, trace, rng)
        return gain

    def _draw(
        self, model: Model, table: Table, fit: Any, rng: np.random.Generator, watch: Watch | None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Draws (draw, *event) of every site, and the stats (draw,)."""
        out: dict[str, np.ndarray] = {}
        density = np.empty(self.draws)
        for s in range(self.draws):
            state = fit.draw(rng)
            state |= {"item_vector": fit.draw_items(state, rng)}
            density[s] = model.log_density(state, table)
            for name in model.dims:
                value = np.asarray(state[name], dtype=np.float32)
                if s == 0:
                    out[name] = np.empty((self.draws, *value.shape), dtype=np.float32)
                out[name][s] = value
            if watch is not None:
                watch.add(state)
        stats = {"log_density": density, "elbo": density + fit.elbo - fit.noise.expected_density()}
        if self.draws >= ENOUGH:
            stats["khat"] = item_shapes(model, table, out, fit.items, self.draws, rng)
        return out, stats


def fits(model: Model) -> bool:
    """Whether VMP has a closed form for a model. Internal."""
    try:
        _fit_of(model)
    except UnsupportedMethodError:
        return False
    return True


def _fit_of(model: Model) -> Any:
    """The class that fits a model; UnsupportedMethodError where there is none."""
    own = type(model).__module__.startswith("bayesrec.models.")  # a model of somebody else may have another prior
    if type(model.likelihood) is not Gaussian:
        raise UnsupportedMethodError(f"VMP fits Gaussian ratings, not {model.likelihood!r}; use br.Gibbs().")
    if own and isinstance(model, SingleVector) and not model.features:
        return SingleFit
    if own and not isinstance(model, SingleVector) and _closed(model):
        return TransferFit
    raise UnsupportedMethodError(
        f"VMP has no closed form for {model!r}: it fits PMF, CollectiveMF and TransferMF(prior_family='normal' or 'ard') "
        "without features, a source prior or link='distribution', and no model of one's own. br.Gibbs() and br.SVI() fit it."
    )


def _closed(model: Any) -> bool:
    """Whether a model with a map has closed forms."""
    families = model.link == "users" and model.prior_family in ("normal", "ard")
    return bool(families and model.source is None and not model.features)


def _say_unfinished(chains: list[int], interrupted: bool, kept: int, method: VMP) -> None:
    if interrupted:
        text = f"interrupted: kept {kept} of {method.chains} chains, the last as it was."
    elif chains:
        text = (
            f"the ELBO still rose by more than {method.tolerance:g} nats a rating and pass after {method.passes} passes in "
            f"{len(chains)} of {method.chains} chains; raise passes."
        )
    else:
        return
    warnings.warn(text, ConvergenceWarning, stacklevel=4)
