"""Three distributions that Pyro does not have, as the conjugate blocks need them. Internal."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import MixtureSameFamily, MultivariateNormal, TorchDistribution, TransformedDistribution
from torch import Tensor
from torch.distributions import Categorical, FisherSnedecor, biject_to, constraints
from torch.distributions.transforms import AffineTransform, PowerTransform, Transform

__all__ = ["HuangWand", "gated_normal", "half_t"]


def half_t(scale: float | Tensor, dof: float = 3.0, shape: tuple[int, ...] = ()) -> TorchDistribution:
    """Half-t: the absolute value of a Student t with ``dof`` degrees of freedom times ``scale``.

    Parameters
    ----------
    scale : float or Tensor
        Broadcasts with ``shape``, which becomes the event shape.
    """
    scale = torch.as_tensor(scale, dtype=torch.get_default_dtype()).expand(shape)
    base = FisherSnedecor(torch.ones(shape), torch.full(shape, float(dof)))
    # the power last: torch reads the support off the last transform, and an affine map's is the whole line
    half = TransformedDistribution(
        base, [AffineTransform(torch.zeros(()), scale**2), PowerTransform(torch.tensor(0.5))]
    )
    return half.to_event(len(shape))


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
        root = torch.diag_embed((2.0 * self.dof * mixing).rsqrt())
        dof = self.dof + size - 1.0
        lower = torch.randn(scale.shape + (size,)).tril(-1)
        chi2 = 2.0 * torch.distributions.Gamma((dof - torch.arange(size, dtype=scale.dtype)) / 2.0, 1.0).sample(
            scale.shape[:-1]
        )
        lower = lower + torch.diag_embed(chi2.sqrt())
        inverse = torch.linalg.solve_triangular(root @ lower, torch.eye(size).expand(lower.shape), upper=False)
        return inverse.mT @ inverse

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
        tail = shape * (dof * precision + self.scale.square().reciprocal()).log().sum(-1)
        return normaliser - self.scale.log().sum(-1) - 0.5 * (dof + 2.0 * size) * log_det - tail


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
