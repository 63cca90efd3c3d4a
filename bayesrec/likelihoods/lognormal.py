"""Poisson counts with log-normal rates as torch and Pyro have them. Internal."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

__all__ = ["PoissonLogNormal"]

NODES, DROP, STEPS = 24, 20.0, 60
LARGEST = 43.0  # of the logarithm of a rate that is sampled: beyond it counts are no whole numbers


class PoissonLogNormal(TorchDistribution):
    """Counts that are Poisson with rates ``exp(z)``, ``z ~ N(loc, scale^2)``; see :mod:`bayesrec.counts` for the integrals.

    Parameters
    ----------
    loc, scale : Tensor, (..., row)
    """

    arg_constraints: ClassVar[dict] = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.nonnegative_integer

    def __init__(self, loc: Tensor, scale: Tensor):
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> PoissonLogNormal:
        """Return the same distribution over more batches."""
        return PoissonLogNormal(self.loc.expand(batch_shape), self.scale.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """Expected count."""
        return (self.loc.double() + 0.5 * self.scale.double().square()).exp()

    @property
    def variance(self) -> Tensor:
        """Variance of the count."""
        return self.mean + self.mean.square() * self.scale.double().square().expm1()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw rates, then counts."""
        shape = torch.Size(sample_shape) + self.batch_shape
        z = self.loc.double() + self.scale.double() * torch.randn(shape, dtype=torch.float64)
        return torch.poisson(z.clamp(max=LARGEST).exp())

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of counts; the nodes of the sum do not depend on the parameters as far as gradients go."""
        y, m, s = torch.broadcast_tensors(value.double(), self.loc.double(), self.scale.double())
        with torch.no_grad():
            z = _nodes(y, m, s)
            log_step = (z[..., 1] - z[..., 0]).log()
        y, m, s = y.unsqueeze(-1), m.unsqueeze(-1), s.unsqueeze(-1)
        level = y * z - z.exp() - 0.5 * ((z - m) / s).square() - s.log()
        out = level.logsumexp(-1) + log_step - torch.lgamma(y.squeeze(-1) + 1.0) - 0.5 * math.log(2.0 * math.pi)
        return out.to(self.loc.dtype)


def _nodes(y: Tensor, m: Tensor, s: Tensor) -> Tensor:
    """Equally spaced values of ``z`` (..., node) that hold the mass of the integrand."""
    w = s.square().reciprocal()

    def level(z: Tensor) -> Tensor:
        return y * z - z.exp() - 0.5 * w * (z - m).square()

    def slope(z: Tensor) -> Tensor:
        return y - z.exp() - w * (z - m)

    log = y.clamp(min=0.5).log()
    some = torch.where(m > log, torch.minimum(m, (y + w * (m - log).clamp(min=0.0)).log()), log)
    none = torch.where(m > 0.0, torch.minimum(m, (w * m).clamp(min=1.0).log()), m)
    z = torch.where(y > 0.0, some, none)
    for _ in range(STEPS):
        step = slope(z) / (z.exp() + w)
        z = z + step
        if bool((step.abs() < 1e-9 * (1.0 + z.abs())).all()):
            break
    rate, top = z.exp(), level(z)
    width = (2.0 * DROP / (rate + w)).sqrt()
    ends = []
    for start in (-width, torch.minimum(width, (2.0 + (DROP + 2.0) / rate).log())):
        x = z + start
        for _ in range(3):
            x = x - (level(x) - top + DROP) / slope(x)
        ends.append(x.unsqueeze(-1))
    return ends[0] + (ends[1] - ends[0]) * torch.linspace(0.0, 1.0, NODES, dtype=y.dtype)
