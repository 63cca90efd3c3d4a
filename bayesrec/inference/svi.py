"""SVI: a Gaussian approximation of the posterior, fitted by stochastic gradients of the ELBO."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from bayesrec.data import Interactions
from bayesrec.data.batch import Batch as Rows
from bayesrec.errors import ConvergenceWarning, DataError, UnsupportedMethodError
from bayesrec.inference.base import Method, positive_number, whole_number
from bayesrec.inference.bound import START_SWEEPS, bound_of
from bayesrec.inference.climb import climb_all, fit_files
from bayesrec.inference.progress import Progress
from bayesrec.inference.steps import Steps
from bayesrec.inference.watch import Watch
from bayesrec.models.base import Model, Schema
from bayesrec.posterior import Posterior

__all__ = ["SVI"]

GUIDES = ("rows", "structured", "mean_field", "amortised")


@dataclass(frozen=True)
class SVI(Method):
    """Stochastic variational inference. Provisional.

    Hyperparameters are independent normals on the unconstrained scale; all that belongs to one user is one normal. Where ratings
    are normal given the factors (Gaussian) items are integrated out in closed form, and draws of the users bring exact
    conditional draws of the items; under other likelihoods every item is a normal too. A step touches the users and items of its
    batch alone, so its cost does not grow with the tables. Spreads are narrower than those of Gibbs: docs/methods.md says by how
    much.

    Parameters
    ----------
    steps : int
        At most so many gradient steps (Adam) of each chain.
    tolerance : float
        A chain climbs until the ELBO gains less than this in 100 steps, in nats a rating, by more than two standard errors of the
        trend over the second half of the steps so far; at the latest for two thirds of ``steps``.
    batch_size : int, optional
        Ratings a step, about; at random. Where items are integrated out they are all ratings of some items. All by default.
    learning_rate : float
        While a chain climbs; then it falls along a cosine to a fiftieth, within half as many steps.
    draws : int
        Draws from each fitted approximation.
    chains : int
        Fits from different starts, whose draws are pooled: they end in different modes, as Gibbs's chains do.
    guide : {"rows", "structured", "mean_field", "amortised"}
        What is fitted: a full covariance for each user (and item); the same, with hyperparameters that vary together along some
        directions; everything independent, items included; or, for users, a network from their ratings to such a normal.

    Notes
    -----
    The draws of a chain are independent, so R-hat compares the fits of different chains and says nothing with one.
    ``posterior.stats``, and so ``diagnostics()``, has beside ``log_density`` an ``elbo``, an estimate from each draw: its
    mean over a chain's draws is that chain's ELBO (ratings as the model sees them, in sd units for a Gaussian).

    References
    ----------
    Hoffman, M. D. et al. (2013). Stochastic variational inference. Journal of Machine Learning Research 14.
    Kucukelbir, A. et al. (2017). Automatic differentiation variational inference. Journal of Machine Learning Research 18.

    Examples
    --------
    >>> SVI(steps=500).chains
    4
    >>> SVI(guide="mean_field", batch_size=10_000).steps
    1000
    """

    approximates: ClassVar[bool] = True
    alone: ClassVar[bool] = True

    steps: int = 1000
    batch_size: int | None = None
    learning_rate: float = 0.02
    draws: int = 250
    chains: int = 4
    guide: str = "rows"
    tolerance: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("steps", "draws", "chains"):
            object.__setattr__(self, name, whole_number(self, name, 1))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", whole_number(self, "batch_size", 1))
        for name in ("learning_rate", "tolerance"):
            object.__setattr__(self, name, positive_number(self, name))
        if self.guide not in GUIDES:
            raise DataError(f"SVI(guide=...) must be one of {', '.join(map(repr, GUIDES))}, not {self.guide!r}")

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
        """Fit one chain after another; Ctrl-C stops climbing and keeps what was reached."""
        if not model.likelihood.svi:
            raise UnsupportedMethodError(
                f"SVI multiplies densities of rows, and {model.likelihood!r} counts all cells; br.Gibbs() fits it."
            )
        table = schema.table(data)
        files = fit_files(checkpoint, self, self.chains, model, data, schema, seed, watch)
        watches = [] if watch is None else [Watch(model, schema, watch) for _ in files]

        def make(rng: np.random.Generator, fresh: bool) -> Steps:
            torch.default_generator.manual_seed(int(rng.integers(2**62)))
            bound = bound_of(model, schema, table, rng, self.guide, START_SWEEPS if fresh else 0)
            seen = watches[0] if watch is not None and watch.value is not None and bar.shown else None
            return Steps(self, bound, len(data), rng, seen, device)

        with Progress("SVI", self.chains * self.steps, progress) as bar, torch.random.fork_rng(devices=[]):
            found = climb_all(make, seed, self.steps, files, watches, bar)
        if found.interrupted:
            warnings.warn(
                f"interrupted: kept {len(found.draws)} of {self.chains} chains, the last after {found.taken} of "
                f"{self.steps} steps.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return found.posterior(model, self, data, schema, files, watches, watch)
