"""StudentT: real-valued ratings with outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
from scipy.special import gammaln
from torch import Tensor

from bayesrec import conjugate, tails
from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table, key_of
from bayesrec.errors import DataError
from bayesrec.likelihoods.base import Fitted, Latents, Units
from bayesrec.likelihoods.gaussian import RealValued
from bayesrec.likelihoods.noise import in_chunks
from bayesrec.likelihoods.predicted import Predicted, Tails

__all__ = ["StudentT"]

IQR = 1.3489795003921634  # interquartile range of a standard normal


@dataclass(frozen=True)
class StudentT(RealValued):
    """Real-valued ratings with heavy tails: an outlier counts for less the farther off it is. Provisional.

    ``y = eta + noise[d] / sqrt(w[d, u]) * t`` with ``t`` from Student's t distribution; ``w`` is as in :class:`Gaussian`.
    In Gibbs each rating has a precision of its own, ``lambda ~ Gamma(dof / 2, dof / 2)``, given which it is normal. The unit of
    the model is the interquartile range of the ratings, over 1.349, around their median: outliers do not move it.

    Parameters
    ----------
    user_noise : bool
        False gives every user of a domain the same noise.
    dof : float
        Degrees of freedom, above 2: the fewer, the heavier the tails.

    References
    ----------
    The scale mixture: `geweke1993`; the choice of the degrees of freedom: `lange1989`; in matrix factorisation:
    `lakshminarayanan2011`.

    Examples
    --------
    >>> StudentT(dof=5)
    StudentT(user_noise=True, dof=5.0)
    """

    dof: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.dof, (int, float, np.integer, np.floating)) and not isinstance(self.dof, bool)
        if not number or not 2.0 < self.dof < np.inf:
            raise DataError(
                f"dof must be a number above 2, not {self.dof!r}: with fewer degrees of freedom the variance of a rating is "
                "infinite"
            )
        object.__setattr__(self, "dof", float(self.dof))

    def units(self, values: list[np.ndarray]) -> list[Units]:
        """Median and interquartile range of the ratings, over that of a normal; their sd where half of them are alike."""
        return [_robust(x) for x in values]

    def distribution(self, eta: Tensor, latents: Latents, batch: Any) -> dist.TorchDistribution:
        """Return a Student t around ``eta`` over the rows of the batch."""
        return dist.StudentT(self.dof, eta, self.scale(latents, batch))

    def predicted(
        self,
        mean: np.ndarray,
        spread: np.ndarray,
        noise: np.ndarray,
        latents: Latents,
        units: list[Units],
        domain: np.ndarray,
    ) -> Predicted:
        """Return t distributions, wider where users or items are unknown, in the units of the ratings."""
        center, scale = (np.array([getattr(one, name) for one in units])[domain] for name in ("center", "scale"))
        return Tails(mean, spread, noise, self.dof, center, scale)

    def working(self, state: State, table: Table, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the ratings and ``lambda w / noise^2``."""
        value, precision = super().working(state, table, by)
        mixing = state["mixing"] if by == "user" else state["mixing"][table.item_place]
        return value, precision * mixing

    def squares(self, state: State, table: Table, fitted: Fitted) -> np.ndarray:
        """Squared errors weighted by each rating's own precision."""
        error = (table.user_value - fitted.eta(state)) ** 2 * state["mixing"]
        shape = table.n_domains, table.n_users
        return np.bincount(table.user_cell, error, shape[0] * shape[1]).reshape(shape)

    def observed(self, state: State, table: Table, fitted: Fitted) -> tuple[np.ndarray, np.ndarray]:
        """Return the response that has a rating's score at ``eta``, and the expected information.

        The observed information of an outlier is negative: the density is not concave there.
        """
        eta, precision = fitted.eta(state), self._precision(state, table)
        error, dof = table.user_value - eta, self.dof
        pull = (dof + 3.0) / (dof + precision * error**2)
        return eta + pull * error, precision * (dof + 1.0) / (dof + 3.0)

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Start with the same precision for every rating."""
        return super().start(table, rng) | {"mixing": np.ones(len(table.user_value))}

    def blocks(self, table: Table, fitted: Fitted) -> list[Block]:
        """Precisions of single ratings, then noise as of a Gaussian, weighted."""

        def mixing(state: State, rng: np.random.Generator) -> State:
            key, out = key_of(rng), np.empty(len(table.user_value))
            error, precision = table.user_value - fitted.eta(state), self._precision(state, table)
            in_chunks(table, lambda first, last: tails.draw_mixing(error, precision, self.dof, key, out, first, last))
            return {"mixing": out}

        return [Block("mixing", ("mixing",), mixing, local=True), *super().blocks(table, fitted)]

    def _precision(self, state: State, table: Table) -> np.ndarray:
        """Precision of each rating's t, (rating,), in user order."""
        return conjugate.at_cells(self.cell_precision(state, table), table.user_cell, table.workers)

    def log_density(self, state: State, table: Table, fitted: Fitted) -> float:
        """Log density of all ratings of the table, in the model's units."""
        precision, dof = self._precision(state, table), self.dof
        square = precision * (table.user_value - fitted.eta(state)) ** 2
        constant = gammaln(0.5 * dof + 0.5) - gammaln(0.5 * dof) - 0.5 * np.log(dof * np.pi)
        parts = constant + 0.5 * np.log(precision) - 0.5 * (dof + 1.0) * np.log1p(square / dof)
        return float(parts.sum())


def _robust(value: np.ndarray) -> Units:
    if not len(value):
        return Units()
    low, middle, high = np.quantile(value, (0.25, 0.5, 0.75))
    return Units(float(middle), float((high - low) / IQR or value.std() or 1.0))
