"""Users integrated out: the density of a user's ratings given items and hyperparameters, in closed form. Internal.

Torch, differentiable: SVI climbs it. Given ratings with expected value ``v'theta`` and known precisions a user's rows
matter through ``gram = sum w v v'`` and ``linear = sum w v y`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesrec.conjugate import Table
from bayesrec.sums import row_sums

__all__ = ["Rows", "condition", "log_evidence", "statistics"]


@dataclass(frozen=True)
class Rows:
    """What is left of ratings once users are all that is unknown.

    Attributes
    ----------
    gram : Tensor, (domain, user, R, R)
    linear : Tensor, (domain, user, R)
    constant : Tensor, (user,)
        Log density of the ratings at ``theta = 0``.
    """

    gram: Tensor
    linear: Tensor
    constant: Tensor


def statistics(item: Tensor, precision: Tensor, table: Table, users: np.ndarray) -> Rows:
    """Sum up the rows of some users.

    Parameters
    ----------
    item : Tensor, (item, R)
        Item vectors, intercept first.
    precision : Tensor, (domain, user)
        Noise precision of those users' ratings.
    table : Table
    users : ndarray of int, (user,)
        Codes.
    """
    n_domains = table.n_domains
    groups = (users * n_domains + np.arange(n_domains)[:, None]).reshape(-1)
    value = table.user_value.astype(item.detach().numpy().dtype, copy=False)
    gram, linear, square = row_sums(item, groups, table.user_ptr, table.user_item, value)
    shape, weight = (n_domains, len(users)), precision.unsqueeze(-1)
    count = torch.from_numpy(table.count[:, users])
    density = 0.5 * (count * (precision / (2.0 * torch.pi)).log() - precision * square.reshape(shape))
    return Rows(
        gram=weight.unsqueeze(-1) * gram.reshape(shape + gram.shape[1:]),
        linear=weight * linear.reshape(shape + linear.shape[1:]),
        constant=density.sum(0),
    )


def log_evidence(mean: Tensor, root: Tensor, gram: Tensor, linear: Tensor) -> Tensor:
    """Log of the integral of ``exp(theta'linear - theta'gram theta / 2)`` over ``N(mean, root root')``, (user,)."""
    if root.dim() == gram.dim() - 1:
        inner = root.unsqueeze(-1) * gram * root.unsqueeze(-2) + torch.eye(root.shape[-1], dtype=root.dtype)
    else:
        inner = root.mT @ gram @ root + torch.eye(root.shape[-1], dtype=root.dtype)
    chol = torch.linalg.cholesky(inner)
    pull = (gram @ mean.unsqueeze(-1)).squeeze(-1)
    white = (root * (linear - pull)).unsqueeze(-1) if root.dim() == gram.dim() - 1 else root.mT @ (linear - pull).unsqueeze(-1)
    z = torch.linalg.solve_triangular(chol, white, upper=False)
    log_det = chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * z.square().sum((-2, -1)) - log_det + (mean * (linear - 0.5 * pull)).sum(-1)


def condition(scale: Tensor, gram: Tensor, linear: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior of ``phi ~ N(0, diag(scale^2))`` given rows: mean (user, R), root of the covariance, log evidence."""
    size = scale.shape[-1]
    chol = torch.linalg.cholesky(scale.unsqueeze(-1) * gram * scale + torch.eye(size, dtype=gram.dtype))
    inverse = torch.linalg.solve_triangular(chol, torch.eye(size, dtype=gram.dtype).expand_as(chol), upper=False)
    z = inverse @ (scale * linear).unsqueeze(-1)
    mean = scale * (inverse.mT @ z).squeeze(-1)
    log_det = chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return mean, scale.unsqueeze(-1) * inverse.mT, 0.5 * z.square().sum((-2, -1)) - log_det
