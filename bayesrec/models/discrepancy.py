"""Priors of what the sources leave open, by name: sites, scales and their updates. Internal.

The covariance of ``eps`` in ``theta = m + sum W phi + eps`` has the prior of Huang and Wand (2013). With a free map its
scales are those of the users' spread. In the commensurate families the map is the identity and ``eps`` is shrunk to zero,
which is pooling: scales a quarter as wide ("commensurate", Hobbs et al. 2011); for each component a narrow scale or a wide
one, as the data say ("commensurate_spike_slab", after Hobbs, Sargent and Carlin 2012); or half-Cauchy factors on the
quarter, one for all and one for each component ("commensurate_horseshoe", after Carvalho, Polson and Scott 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyro
import torch
from torch import Tensor

from bayesrec import conjugate
from bayesrec.blocks import State
from bayesrec.distributions import HuangWand, SpikedHuangWand, half_t
from bayesrec.likelihoods import Latents
from bayesrec.models import priors

__all__ = ["COMMENSURATE", "Discrepancy"]

COMMENSURATE = ("commensurate", "commensurate_spike_slab", "commensurate_horseshoe")
NARROW = 0.25  # scales of a commensurate discrepancy, in units of those of the users' spread
SPIKE, SLAB = 0.05, 1.0  # the two scales of spike and slab, in the same units
IN_SPIKE = 0.5  # prior probability of the spike, for each component
DOF = 2.0  # of the half-t sds of Huang and Wand
HORSESHOE = {"discrepancy_global_scale": (), "discrepancy_local_scale": ("latent_component",)}


@dataclass(frozen=True)
class Discrepancy:
    """The prior of ``user_cov`` in a model with maps or without."""

    family: str
    rank: int
    shrinkage: float

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of the sites beside ``user_cov``."""
        return dict(HORSESHOE) if self.family == "commensurate_horseshoe" else {}

    @property
    def scale(self) -> np.ndarray:
        """Half-t scales of the sds (R,), those of the slab, and for a horseshoe what its factors multiply."""
        spread = priors.user_scale(self.rank)
        if self.family not in COMMENSURATE:
            return spread
        return self.shrinkage * (SLAB if self.family == "commensurate_spike_slab" else NARROW) * spread

    def sample(self) -> Latents:
        """Sample ``user_cov`` and its scales (Pyro)."""
        scale, out = priors.tensor(self.scale), {}
        if self.family == "commensurate_spike_slab":
            return {"user_cov": pyro.sample("user_cov", SpikedHuangWand(scale, SPIKE / SLAB * scale, IN_SPIKE))}
        if self.dims:
            wide = pyro.sample("discrepancy_global_scale", half_t(1.0, dof=1.0))
            local = pyro.sample("discrepancy_local_scale", half_t(1.0, shape=(self.rank + 1,), dof=1.0))
            out = {"discrepancy_global_scale": wide, "discrepancy_local_scale": local}
            scale = wide.unsqueeze(-1) * local * scale
        return out | {"user_cov": pyro.sample("user_cov", HuangWand(scale))}

    def start(self) -> State:
        """Scales of one."""
        if not self.dims:
            return {}
        return {"discrepancy_global_scale": np.float64(1.0), "discrepancy_local_scale": np.ones(self.rank + 1)}

    def covariance(self, state: State, scatter: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw ``user_cov`` (R, R) given ``n`` discrepancies with a scatter matrix; before it, spike or slab given the last."""
        scale = self.scale
        if self.family == "commensurate_spike_slab":
            scale = np.where(rng.random(len(scale)) < self.in_spike(state["user_cov"]), SPIKE / SLAB * scale, scale)
        elif self.dims:
            scale = state["discrepancy_global_scale"] * state["discrepancy_local_scale"] * scale
        return conjugate.huang_wand_covariance(state["user_cov"], scatter, n, scale, rng, DOF)

    def scales(self, state: State, rng: np.random.Generator) -> State:
        """Draw the factors of a horseshoe given ``user_cov``.

        Twice a mixing variable of Huang and Wand is the square of a centred normal whose sd is the half-t's scale: drawn and
        used at once, it stands in for an observation.
        """
        wide, local, base = state["discrepancy_global_scale"], state["discrepancy_local_scale"], self.scale
        precision = np.diag(np.linalg.inv(state["user_cov"]))
        rate = DOF * precision + 1.0 / (wide * local * base) ** 2
        squares = 2.0 * rng.gamma((DOF + len(base)) / 2.0, size=len(base)) / rate
        local = conjugate.half_t_scale(local, squares / (wide * base) ** 2, 1, 1.0, rng, dof=1.0)
        rest = (squares / (local * base) ** 2).sum()
        wide = conjugate.half_t_scale(wide, rest, len(base), 1.0, rng, dof=1.0)
        return {"discrepancy_global_scale": wide, "discrepancy_local_scale": local}

    def in_spike(self, cov: np.ndarray) -> np.ndarray:
        """Probability (..., R) that a component's scale is the spike's, given ``user_cov`` (..., R, R)."""
        precision = np.diagonal(np.linalg.inv(cov), axis1=-2, axis2=-1)
        wide, shape = self.scale, 0.5 * (DOF + self.rank + 1)
        narrow = SPIKE / SLAB * wide
        log_odds = np.log(IN_SPIKE / (1.0 - IN_SPIKE)) + np.log(wide / narrow)
        log_odds = log_odds + shape * np.log((DOF * precision + wide**-2.0) / (DOF * precision + narrow**-2.0))
        return 1.0 / (1.0 + np.exp(-log_odds))

    def identified(self, latents: Latents) -> dict[str, Tensor]:
        """With spike and slab, the probability that the source's bias is pooled, and the share of factors that are."""
        if self.family != "commensurate_spike_slab":
            return {}
        pooled = torch.as_tensor(self.in_spike(latents["user_cov"].double().numpy()))
        return {"pooled_bias": pooled[..., 0], "pooled_factors": pooled[..., 1:].mean(-1)}
