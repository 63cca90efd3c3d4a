"""VMP: variational message passing, closed-form updates of a factorised approximation."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.data.batch import Batch as Rows
from bayesrec.errors import ConvergenceWarning, SamplingError, UnsupportedMethodError
from bayesrec.inference.base import Method, needs_gibbs, positive_number, whole_number
from bayesrec.inference.climb import Climb, Climbed, climb_all, fit_files
from bayesrec.inference.gibbs import cpus
from bayesrec.inference.progress import Progress
from bayesrec.inference.start import warm_start
from bayesrec.inference.vmp_honesty import item_shapes
from bayesrec.inference.vmp_saved import put_state, state_of
from bayesrec.inference.vmp_single import SingleFit
from bayesrec.inference.vmp_transfer import TransferFit
from bayesrec.inference.watch import Watch
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

    approximates: ClassVar[bool] = True

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
        files = fit_files(checkpoint, replace(self, threads=None), self.chains, model, data, schema, seed, watch)
        watches = [] if watch is None else [Watch(model, schema, watch) for _ in files]
        with Progress("VMP", self.chains * self.passes, progress) as bar, ThreadPoolExecutor(threads) as pool:
            table = schema.table(data)
            table = replace(table, workers=Workers(threads, pool), weight=model.exponents(schema.n_domains))

            def make(rng: np.random.Generator, fresh: bool) -> _Passes:
                start = (
                    warm_start(model, table, rng, START_SWEEPS)[0]
                    if fresh
                    else model.start(table, np.random.default_rng(0))
                )
                return _Passes(self, model, table, kind(model, table, start), len(data), rng)

            found = climb_all(make, seed, self.passes, files, watches, bar)
        _say_unfinished(found, self)
        return found.posterior(model, self, data, schema, files, watches, watch)


class _Passes(Climb):
    """Passes of one chain until the ELBO stands."""

    def __init__(self, method: VMP, model: Model, table: Table, fit: Any, n: int, rng: np.random.Generator):
        super().__init__(method.passes, rng)
        self.method, self.model, self.table, self.fit, self.n = method, model, table, fit, n
        self.trace: list[float] = []

    @property
    def drawable(self) -> bool:
        """After a pass: what a checkpoint holds is what a pass reads first, not what it makes."""
        return bool(np.isfinite(self.fit.elbo))

    @property
    def usable(self) -> bool:
        """As soon as it can be drawn from."""
        return self.drawable

    def advance(self) -> None:
        """One pass; it is the last if the mean gain of the last ones is below the tolerance."""
        self.fit.advance()
        if not np.isfinite(self.fit.elbo):
            raise SamplingError(
                f"the ELBO is not finite after pass {self.taken + 1}; look for ratings of extreme size."
            )
        self.taken += 1
        self.trace.append(self.fit.elbo)
        if len(self.trace) > WINDOW:
            gain = (self.trace[-1] - self.trace[-1 - WINDOW]) / (WINDOW * self.n)
            self.settled = bool(gain < self.method.tolerance)

    def words(self) -> str:
        """The ELBO."""
        return f"{self.fit.elbo / self.n:.4f} nats a rating"

    def state(self) -> dict[str, np.ndarray]:
        """The factors that a pass reads first, and the ELBOs."""
        return state_of(self.fit) | {"trace": np.array(self.trace)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Put the factors where they were."""
        self.trace = state.pop("trace").tolist()
        put_state(self.fit, state)

    def draw(self, watch: Watch | None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Draws (draw, *event) of every site, and the stats (draw,)."""
        model, table, fit, rng, n = self.model, self.table, self.fit, self.rng, self.method.draws
        out: dict[str, np.ndarray] = {}
        density = np.empty(n)
        for s in range(n):
            state = fit.draw(rng)
            state |= {"item_vector": fit.draw_items(state, rng)}
            density[s] = model.log_density(state, table)
            for name in model.dims:
                value = np.asarray(state[name], dtype=np.float32)
                if s == 0:
                    out[name] = np.empty((n, *value.shape), dtype=np.float32)
                out[name][s] = value
            if watch is not None:
                watch.add(state)
        stats = {"log_density": density, "elbo": density + fit.elbo - fit.noise.expected_density()}
        if n >= ENOUGH:
            stats["khat"] = item_shapes(model, table, out, fit.items, n, rng)
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


def _say_unfinished(found: Climbed, method: VMP) -> None:
    if found.interrupted:
        text = f"interrupted: kept {len(found.draws)} of {method.chains} chains, the last as it was."
    elif found.unsettled:
        text = (
            f"the ELBO still rose by more than {method.tolerance:g} nats a rating and pass after {method.passes} passes in "
            f"{len(found.unsettled)} of {method.chains} chains; raise passes."
        )
    else:
        return
    warnings.warn(text, ConvergenceWarning, stacklevel=4)
