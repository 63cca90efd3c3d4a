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
from bayesrec.inference.gibbs import cpus
from bayesrec.inference.progress import Progress
from bayesrec.inference.start import warm_start
from bayesrec.inference.svi import warn_if_asleep
from bayesrec.inference.vmp_fit import SingleFit, TransferFit
from bayesrec.inference.vmp_honesty import shape_of_tails
from bayesrec.inference.watch import Watch, watched
from bayesrec.likelihoods import Gaussian
from bayesrec.models.base import Model, Schema
from bayesrec.models.single import SingleVector
from bayesrec.posterior import Posterior
from bayesrec.workers import Workers

__all__ = ["VMP"]

START_SWEEPS = 5
WINDOW = 5  # passes whose mean gain decides when to stop


@dataclass(frozen=True)
class VMP(Method):
    """Variational message passing. Provisional.

    Users and items are independent normals, each with a full covariance; gates, means, scales and covariances have the
    factors that are optimal given the rest; so do the noise levels of users, by quadrature. A pass updates everything once, in
    closed form, and never lowers the ELBO. Draws of users then bring exact conditional draws of the items. Fits a Gaussian
    likelihood with the models of this package; docs/methods.md says how far from Gibbs it ends, and when not to use it.

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
    The draws of a chain are independent. ``posterior.stats`` has, beside ``log_density``: ``elbo``, whose mean over the draws of
    a chain is its ELBO but for a constant of the data (each is a log density of everything minus that of the approximation);
    and ``khat``, one member after another: the Pareto shape of the ratios between the conditional density of a user or an item,
    given draws of the rest, and its factor. Above .7 the factor misses what ties this member to the others.

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
