"""Distributions that Pyro does not have, as the conjugate blocks need them. Internal."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import MixtureSameFamily, MultivariateNormal, TorchDistribution
from pyro.distributions import constraints as pyro_constraints
from torch import Tensor
from torch.distributions import Categorical, biject_to, constraints
from torch.distributions.transforms import Transform

__all__ = ["AroundDiagonal", "HalfT", "HuangWand", "SpikedHuangWand", "gated_normal", "half_t"]

FAR = 38.0  # sds: as good as infinite, and with a gradient


def half_t(scale: float | Tensor, dof: float = 3.0, shape: tuple[int, ...] = ()) -> HalfT:
    """Half-t distribution; ``scale`` broadcasts with ``shape``, which becomes the event shape."""
    return HalfT(torch.as_tensor(scale, dtype=torch.get_default_dtype()).expand(shape), dof)


class HalfT(TorchDistribution):
    """Half-t: the absolute value of a Student t with ``dof`` degrees of freedom times ``scale``, in one event.

    torch's own way there, the root of a scaled F, makes a step of SVI a fifth longer.

    Parameters
    ----------
    scale : Tensor, of the shape of the event
    dof : float
    """

    arg_constraints: ClassVar = {}
    has_rsample = True

    @property
    def support(self) -> constraints.Constraint:
        """Positive numbers."""
        return pyro_constraints.independent(constraints.positive, len(self.event_shape))

    def __init__(self, scale: Tensor, dof: float = 3.0, validate_args: bool | None = None):
        self.scale, self.dof = scale, float(dof)
        super().__init__(torch.Size(), scale.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws (sample, event)."""
        shape = torch.Size(sample_shape) + self.event_shape
        return self.scale * torch.distributions.StudentT(torch.full(shape, self.dof)).rsample().abs()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of values (sample, event): (sample,)."""
        dof = self.dof
        normaliser = math.log(2.0) + math.lgamma(0.5 * (dof + 1.0)) - math.lgamma(0.5 * dof)
        normaliser -= 0.5 * math.log(dof * math.pi)
        tail = torch.log1p((value / self.scale).square() / dof)
        density = normaliser - self.scale.log() - 0.5 * (dof + 1.0) * tail
        return density.sum(tuple(range(-len(self.event_shape), 0))) if self.event_shape else density


class _Covariance(constraints.Constraint):
    """Symmetric positive definite matrices of one size, which SVI and NUTS move in by their log-Cholesky vector."""

    event_dim = 2

    def __init__(self, size: int):
        self.size = size

    def check(self, value: Tensor) -> Tensor:
        """Whether each matrix is positive definite."""
        return constraints.positive_definite.check(value)


class LogCholesky(Transform):
    """Vectors (R (R + 1) / 2,) to covariance matrices: the logarithms of the factor's diagonal, then what is below."""

    domain = constraints.real_vector
    bijective = True

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.codomain = _Covariance(size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogCholesky) and other.size == self.size

    def __hash__(self) -> int:
        return hash(("LogCholesky", self.size))

    def _call(self, x: Tensor) -> Tensor:
        row, col = torch.tril_indices(self.size, self.size, -1)
        below = x.new_zeros(x.shape[:-1] + (self.size, self.size))
        below[..., row, col] = x[..., self.size :]
        lower = below + torch.diag_embed(x[..., : self.size].exp())
        return lower @ lower.mT

    def _inverse(self, y: Tensor) -> Tensor:
        row, col = torch.tril_indices(self.size, self.size, -1)
        lower = torch.linalg.cholesky(y)
        return torch.cat([lower.diagonal(dim1=-2, dim2=-1).log(), lower[..., row, col]], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log of |d cov / d x|: 2^R times the product of the k-th diagonal entry to the power R - k + 2, k from 1."""
        power = torch.arange(self.size + 1, 1, -1, dtype=x.dtype)
        return self.size * math.log(2.0) + (x[..., : self.size] * power).sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        """Shape of the matrices."""
        return torch.Size(shape[:-1]) + (self.size, self.size)

    def inverse_shape(self, shape: Any) -> Any:
        """Shape of the vectors."""
        return torch.Size(shape[:-2]) + (self.size * (self.size + 1) // 2,)


@biject_to.register(_Covariance)
def _covariance_transform(constraint: _Covariance) -> LogCholesky:
    return LogCholesky(constraint.size)


class HuangWand(TorchDistribution):
    """Covariance matrix whose sds are half-t(``dof``, ``scale[k]``); with ``dof=2`` all correlations are uniform.

    Huang and Wand (2013): an inverse Wishart whose scale matrix is diagonal with inverse-gamma entries, here
    integrated out.

    Parameters
    ----------
    scale : Tensor, (R,)
    dof : float
    """

    arg_constraints: ClassVar = {"scale": constraints.independent(constraints.positive, 1)}
    has_rsample = False

    @property
    def support(self) -> constraints.Constraint:
        """Positive definite matrices."""
        return _Covariance(self.scale.shape[-1])

    def __init__(self, scale: Tensor, dof: float = 2.0, validate_args: bool | None = None):
        self.scale, self.dof = scale, float(dof)
        size = scale.shape[-1]
        super().__init__(scale.shape[:-1], torch.Size((size, size)), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> HuangWand:
        """The same distribution over a larger batch."""
        return HuangWand(
            self.scale.expand(torch.Size(batch_shape) + self.event_shape[:1]), self.dof, validate_args=False
        )

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw covariance matrices, (sample, batch, R, R)."""
        size, scale = self.event_shape[0], self.scale.expand(torch.Size(sample_shape) + self.scale.shape)
        mixing = torch.distributions.Gamma(torch.full_like(scale, 0.5), scale.square().reciprocal()).sample()
        return _inverse_wishart(torch.full(scale.shape[:-1], self.dof + size - 1.0), 2.0 * self.dof * mixing)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, (batch,)."""
        size, dof = self.event_shape[0], self.dof
        chol = torch.linalg.cholesky(value)
        log_det = 2.0 * chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        precision = torch.cholesky_inverse(chol).diagonal(dim1=-2, dim2=-1)
        shape = 0.5 * (dof + size)
        half = 0.5 * (dof + size - 1.0)
        normaliser = (
            size * (math.lgamma(shape) - math.lgamma(0.5))
            + size * half * math.log(dof)
            - 0.25 * size * (size - 1) * math.log(math.pi)
            - sum(math.lgamma(half - 0.5 * k) for k in range(size))
        )
        return normaliser - 0.5 * (dof + 2.0 * size) * log_det + self._by_component(precision).sum(-1)

    def _by_component(self, precision: Tensor) -> Tensor:
        """Terms of the log density (batch, R) that the scales enter, by the diagonal (batch, R) of the inverse."""
        shape = 0.5 * (self.dof + self.event_shape[0])
        return -self.scale.log() - shape * (self.dof * precision + self.scale.square().reciprocal()).log()


def _inverse_wishart(dof: Tensor, scale: Tensor) -> Tensor:
    """Draw inverse Wishart matrices (..., R, R) with a diagonal scale matrix (..., R), by Bartlett's decomposition."""
    size = scale.shape[-1]
    lower = torch.randn(scale.shape + (size,)).tril(-1)
    chi2 = (
        2.0 * torch.distributions.Gamma((dof.unsqueeze(-1) - torch.arange(size, dtype=scale.dtype)) / 2.0, 1.0).sample()
    )
    lower = scale.rsqrt().unsqueeze(-1) * (lower + torch.diag_embed(chi2.sqrt()))
    inverse = torch.linalg.solve_triangular(lower, torch.eye(size).expand(lower.shape), upper=False)
    return inverse.mT @ inverse


class AroundDiagonal(TorchDistribution):
    """Inverse Wishart with ``dof + R - 1`` degrees of freedom and the scale matrix ``dof * diag(scale^2)``.

    The more degrees of freedom, the nearer to ``diag(scale^2)``. With ``dof`` 2 and half-normal scales it is the prior of
    Huang and Wand.

    Parameters
    ----------
    scale : Tensor, (..., R)
    dof : Tensor, (...)
    """

    arg_constraints: ClassVar = {
        "scale": constraints.independent(constraints.positive, 1),
        "dof": constraints.positive,
    }
    has_rsample = False

    @property
    def support(self) -> constraints.Constraint:
        """Positive definite matrices."""
        return _Covariance(self.scale.shape[-1])

    def __init__(self, scale: Tensor, dof: Tensor, validate_args: bool | None = None):
        shape = torch.broadcast_shapes(scale.shape[:-1], dof.shape)
        self.scale, self.dof = scale.expand(shape + scale.shape[-1:]), dof.expand(shape)
        super().__init__(shape, torch.Size((scale.shape[-1],) * 2), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> AroundDiagonal:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape)
        return AroundDiagonal(
            self.scale.expand(shape + self.event_shape[:1]), self.dof.expand(shape), validate_args=False
        )

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw covariance matrices, (sample, batch, R, R)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        dof, size = self.dof.expand(shape), self.event_shape[0]
        scale = dof.unsqueeze(-1) * self.scale.expand(shape + (size,)).square()
        return _inverse_wishart(dof + (size - 1.0), scale)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, (batch,)."""
        size = self.event_shape[0]
        dof = self.dof + (size - 1.0)
        chol = torch.linalg.cholesky(value)
        log_det = 2.0 * chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        precision = torch.cholesky_inverse(chol).diagonal(dim1=-2, dim2=-1)
        scale = self.dof.unsqueeze(-1) * self.scale.square()
        normaliser = 0.5 * dof * (scale.log().sum(-1) - size * math.log(2.0)) - torch.special.multigammaln(
            0.5 * dof, size
        )
        return normaliser - 0.5 * (dof + size + 1.0) * log_det - 0.5 * (scale * precision).sum(-1)


class SpikedHuangWand(HuangWand):
    """The same with a scale for each component that is one of two: ``spike`` with ``probability``, else ``scale``.

    Given the matrix the choices are independent, so they are summed out one by one.

    Parameters
    ----------
    scale, spike : Tensor, (R,)
    probability : float
    dof : float
    """

    def __init__(
        self, scale: Tensor, spike: Tensor, probability: float, dof: float = 2.0, validate_args: bool | None = None
    ):
        self.spike, self.probability = spike, float(probability)
        super().__init__(scale, dof, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> SpikedHuangWand:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape) + self.event_shape[:1]
        return SpikedHuangWand(self.scale.expand(shape), self.spike, self.probability, self.dof, validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw covariance matrices, (sample, batch, R, R)."""
        wide = self.scale.expand(torch.Size(sample_shape) + self.scale.shape)
        spiked = torch.rand_like(wide) < self.probability
        return HuangWand(torch.where(spiked, self.spike, wide), self.dof, validate_args=False).sample()

    def _by_component(self, precision: Tensor) -> Tensor:
        narrow = HuangWand(self.spike, self.dof, validate_args=False)._by_component(precision)
        wide = super()._by_component(precision)
        return torch.logaddexp(narrow + math.log(self.probability), wide + math.log1p(-self.probability))


class _Rows(MixtureSameFamily):
    """A mixture of normals, whose support torch does not know."""

    support = constraints.real_vector


def gated_normal(loc: Tensor, cov: Tensor, probability: Tensor) -> TorchDistribution:
    """Rows that are independent mixtures of normals.

    Parameters
    ----------
    loc : Tensor, (..., user, gate, R)
    cov : Tensor, (..., 1, gate, R, R)
    probability : Tensor, (..., gate)
    """
    weights = Categorical(probability.unsqueeze(-2).expand(loc.shape[:-1]))
    components = MultivariateNormal(loc, scale_tril=torch.linalg.cholesky(cov))  # one factor for all users
    return _Rows(weights, components).to_event(1)


class OrderedNormal(TorchDistribution):
    """Independent N(0, scale^2) in ascending order, over the last axis."""

    arg_constraints: ClassVar[dict] = {"scale": constraints.independent(constraints.positive, 1)}
    support = pyro_constraints.ordered_vector

    def __init__(self, scale: Tensor):
        self.scale = scale
        super().__init__(scale.shape[:-1], scale.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> OrderedNormal:
        """Return the same distribution over more batches."""
        return OrderedNormal(self.scale.expand(torch.Size(batch_shape) + self.event_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw normals and sort them."""
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        return (torch.randn(shape, dtype=self.scale.dtype) * self.scale).sort(-1).values

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density: that of the normals, for each of their orders."""
        density = -0.5 * (value / self.scale).square() - self.scale.log() - 0.5 * math.log(2.0 * math.pi)
        return density.sum(-1) + math.lgamma(value.shape[-1] + 1.0)


class Graded(TorchDistribution):
    """Numbers of levels, from 0: a standard normal falls between bounds (..., row, level - 1), ascending."""

    arg_constraints: ClassVar[dict] = {}

    def __init__(self, bounds: Tensor):
        self.bounds = bounds
        super().__init__(bounds.shape[:-1], validate_args=False)

    @property
    def support(self) -> Any:
        """Whole numbers from 0."""
        return constraints.integer_interval(0, self.bounds.shape[-1])

    @property
    def probs(self) -> Tensor:
        """Probability of each level, (..., row, level)."""
        below = torch.special.ndtr(self.bounds)
        ends = torch.zeros_like(below[..., :1]), torch.ones_like(below[..., :1])
        return torch.cat([ends[0], below, ends[1]], -1).diff()

    def _powers(self, power: int) -> Tensor:
        codes = torch.arange(self.bounds.shape[-1] + 1, dtype=self.bounds.dtype)
        return (self.probs * codes**power).sum(-1)

    @property
    def mean(self) -> Tensor:
        """Mean of the level's number."""
        return self._powers(1)

    @property
    def variance(self) -> Tensor:
        """Variance of the level's number."""
        return self._powers(2) - self._powers(1).square()

    def expand(self, batch_shape: Any, _instance: Any = None) -> Graded:
        """Return the same distribution over more batches."""
        return Graded(self.bounds.expand(torch.Size(batch_shape) + self.bounds.shape[-1:]))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw normals and count the bounds below them."""
        normals = torch.randn(torch.Size(sample_shape) + self.batch_shape, dtype=self.bounds.dtype)
        return (normals.unsqueeze(-1) > self.bounds).sum(-1).to(self.bounds.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of level numbers, accurate in both tails."""
        far = torch.full_like(self.bounds[..., :1], FAR)
        wide = torch.cat([-far, self.bounds.clamp(-FAR, FAR), far], -1)
        code = value.long().expand(self.batch_shape).unsqueeze(-1)
        low, high = wide.gather(-1, code).squeeze(-1), wide.gather(-1, code + 1).squeeze(-1)
        flip = low + high > 0.0
        low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
        top = torch.special.log_ndtr(high)
        return top + torch.log1p(-(torch.special.log_ndtr(low) - top).exp())
