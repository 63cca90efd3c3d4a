"""Gaussian: real-valued ratings, and what all likelihoods for such ratings share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.errors import DataError
from bayesrec.likelihoods.base import Fitted, Latents, Units
from bayesrec.likelihoods.noise import NoisyResponse
from bayesrec.likelihoods.predicted import Normals, Predicted

__all__ = ["Gaussian", "RealValued"]


@dataclass(frozen=True)
class RealValued(NoisyResponse):
    """Ratings that are their own responses, in units of their spread. Abstract."""

    def check(self, value: np.ndarray, domain: Any) -> None:
        """Refuse a domain with one rating or with one value throughout."""
        name = f"a {type(self).__name__}"
        if len(value) < 2:
            raise DataError(
                f"domain {domain!r} has {len(value)} rating(s); {name} needs at least two to learn a noise level"
            )
        if np.ptp(value) == 0:
            raise DataError(
                f"all {len(value)} ratings of domain {domain!r} are {value[0]:g}; {name} on constant values learns nothing. "
                "Clicks (all ones) need a likelihood for implicit feedback."
            )

    def expected(self, eta: Tensor, latents: Latents, batch: Any, units: list[Units]) -> Tensor:
        """Return ``eta`` in the units of the ratings."""
        center, scale = (
            torch.tensor([getattr(one, name) for one in units], dtype=eta.dtype) for name in ("center", "scale")
        )
        return eta * scale[batch.domain] + center[batch.domain]


@dataclass(frozen=True)
class Gaussian(RealValued):
    """Normal ratings with a noise level for each domain and, inside it, for each user. Stable.

    ``y = eta + noise[d] / sqrt(w[d, u]) * e``, ``e ~ N(0, 1)``. Some people use two points of a scale and some all of
    it; with one noise for everybody the factors of a factorisation bend to explain that, and predict worse.
    ``log w = B tanh(x / B)`` with ``x = user_log_precision[d, u] ~ N(user_level[u], level_within)`` and
    ``user_level[u] ~ N(0, level_between)``: what a user's source rows say of their noise carries over to the target
    as far as the two spreads, which are learned, allow. The bend keeps a user whose ratings are all alike from
    driving the noise to zero.

    Parameters
    ----------
    user_noise : bool
        False gives every user of a domain the same noise.

    Examples
    --------
    >>> Gaussian(user_noise=False).dims
    {'noise': ('domain',)}
    """

    normal: ClassVar[bool] = True

    def units(self, values: list[np.ndarray]) -> list[Units]:
        """Mean and sd of the ratings; a domain without spread gets unit scale."""
        with np.errstate(over="ignore", invalid="ignore"):
            units = [Units(float(x.mean()), float(x.std()) or 1.0) if len(x) else Units() for x in values]
        for x, one in zip(values, units, strict=True):
            if not np.isfinite([one.center, one.scale]).all():
                largest = x[np.abs(x).argmax()]
                raise DataError(f"ratings such as {largest:g} are too large for their sd to be a number; rescale them")
        return units

    def distribution(self, eta: Tensor, latents: Latents, batch: Any) -> dist.TorchDistribution:
        """Return ``Normal(eta, scale)`` over the rows of the batch."""
        return dist.Normal(eta, self.scale(latents, batch))

    def predicted(
        self,
        mean: np.ndarray,
        spread: np.ndarray,
        noise: np.ndarray,
        latents: Latents,
        units: list[Units],
        domain: np.ndarray,
    ) -> Predicted:
        """Return normals in the units of the ratings."""
        center, scale = (np.array([getattr(one, name) for one in units])[domain] for name in ("center", "scale"))
        return Normals(mean, np.hypot(spread, noise), center, scale)

    def log_density(self, state: State, table: Table, fitted: Fitted) -> float:
        """Log density of all ratings of the table, in sd units."""
        precision = self.cell_precision(state, table)
        parts = table.count * np.log(precision / (2.0 * np.pi)) - precision * fitted.errors(state)
        return float(0.5 * parts.sum())
