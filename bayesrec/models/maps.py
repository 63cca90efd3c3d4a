"""Priors of the map from a source vector to the target's: names, sites, scales and their updates. Internal.

Entries are normal around zero. Their sds are a fixed pattern (bias to bias, factor to factor, across), times ``shrinkage``, times
learned scales: one for each part of the map ("normal"), one for each source component ("ard", MacKay 1995), or one for
every entry and one for all ("horseshoe", Carvalho, Polson and Scott 2010). The commensurate families have no map:
:mod:`bayesrec.models.discrepancy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesrec import conjugate
from bayesrec.blocks import State
from bayesrec.distributions import half_t
from bayesrec.likelihoods import Latents

__all__ = ["FAMILIES", "MapPrior"]

FAMILIES = ("normal", "ard", "horseshoe")


@dataclass(frozen=True)
class MapPrior:
    """The prior of the maps of one model."""

    family: str
    rank: int
    shrinkage: float

    @property
    def parts(self) -> np.ndarray:
        """Which part an entry belongs to: 0 bias to bias, 1 factor to factor, 2 across; (R, R)."""
        parts = np.ones((self.rank + 1, self.rank + 1), dtype=int)
        parts[0, :] = parts[:, 0] = 2
        parts[0, 0] = 0
        return parts

    @property
    def by_part(self) -> np.ndarray:
        """Scale of the entries of each part, in sd units, (3,)."""
        return self.shrinkage * np.array([0.5, 0.6 / np.sqrt(self.rank), 0.2 / np.sqrt(self.rank)])

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of the sites."""
        entries = ("source", "latent_component", "latent_component_bis")
        scales: dict[str, dict[str, tuple[str, ...]]] = {
            "normal": {"map_scale": ("source", "map_part")},
            "ard": {"map_scale": ("source", "latent_component_bis")},
            "horseshoe": {"map_global_scale": ("source",), "map_local_scale": entries},
        }
        return scales[self.family] | {"map": entries} if self.family in scales else {}

    def sample(self, n_sources: int) -> Latents:
        """Sample scales and maps (Pyro)."""
        if self.family not in FAMILIES:
            return {}
        size, out = self.rank + 1, {}
        if self.family == "normal":
            scale = half_t(torch.as_tensor(self.by_part, dtype=torch.get_default_dtype()), shape=(n_sources, 3))
            out["map_scale"] = pyro.sample("map_scale", scale)
        elif self.family == "ard":
            out["map_scale"] = pyro.sample("map_scale", half_t(1.0, shape=(n_sources, size)))
        else:
            out["map_global_scale"] = pyro.sample("map_global_scale", half_t(1.0, shape=(n_sources,), dof=1.0))
            local = half_t(1.0, shape=(n_sources, size, size), dof=1.0)
            out["map_local_scale"] = pyro.sample("map_local_scale", local)
        sd = self.sd(out)
        return out | {"map": pyro.sample("map", dist.Normal(torch.zeros_like(sd), sd).to_event(3))}

    def sd(self, latents: Any) -> Any:
        """Sd of every entry, (..., source, R, R), for tensors or arrays."""
        if self.family == "normal":
            return latents["map_scale"][..., self.parts]
        name = "map_scale" if self.family == "ard" else "map_global_scale"
        base: Any = self.by_part[self.parts]
        if isinstance(latents[name], Tensor):
            base = torch.as_tensor(base, dtype=latents[name].dtype)
        if self.family == "ard":
            return latents[name][..., None, :] * base
        return latents[name][..., None, None] * latents["map_local_scale"] * base

    def start(self, n_sources: int) -> State:
        """Maps near the identity."""
        size = self.rank + 1
        scales = {
            "normal": {"map_scale": np.tile(self.by_part, (n_sources, 1))},
            "ard": {"map_scale": np.ones((n_sources, size))},
            "horseshoe": {"map_global_scale": np.ones(n_sources), "map_local_scale": np.ones((n_sources, size, size))},
        }
        return scales[self.family] | {"map": np.tile(0.7 * np.eye(size), (n_sources, 1, 1))} if self.dims else {}

    def update(self, state: State, rng: np.random.Generator) -> State:
        """Draw the scales given the maps."""
        squares, base = state["map"] ** 2, self.by_part[self.parts]
        if self.family == "normal":
            masks = [self.parts == p for p in range(3)]
            by_part = np.stack([(squares * mask).sum((1, 2)) for mask in masks], axis=1)
            count = np.array([mask.sum() for mask in masks])
            return {"map_scale": conjugate.half_t_scale(state["map_scale"], by_part, count, self.by_part, rng)}
        if self.family == "ard":
            by_source = (squares / base**2).sum(1)
            return {"map_scale": conjugate.half_t_scale(state["map_scale"], by_source, self.rank + 1, 1.0, rng)}
        wide, local = state["map_global_scale"], state["map_local_scale"]
        local = conjugate.half_t_scale(local, squares / (wide[:, None, None] * base) ** 2, 1, 1.0, rng, dof=1.0)
        rest = (squares / (local * base) ** 2).sum((1, 2))
        wide = conjugate.half_t_scale(wide, rest, base.size, 1.0, rng, dof=1.0)
        return {"map_global_scale": wide, "map_local_scale": local}
