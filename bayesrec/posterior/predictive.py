"""From draws to predictive distributions: the draws that some rows need, unknown ids filled in. Internal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from bayesrec import mixtures
from bayesrec.likelihoods import Latents
from bayesrec.models.base import Batch, Model, Population

__all__ = ["Compact", "compact", "components", "deviations", "quantiles", "together"]

CHUNK_FLOATS = 2**25  # floats of gathered user vectors that a chunk of rows may take


@dataclass(frozen=True)
class Compact:
    """The latents of the users and items of some rows, all draws on one axis, and the rows in their codes."""

    latents: Latents
    batch: Batch
    population: Population
    unknown_user: Tensor
    unknown_item: Tensor


def flat(draws: dict[str, np.ndarray], sites: Any = None) -> Latents:
    """Chains and draws on one axis, as tensors that share memory with the arrays where they can."""
    names = draws if sites is None else sites
    return {name: torch.from_numpy(draws[name].reshape(-1, *draws[name].shape[2:])) for name in names}


def compact(
    model: Model,
    draws: dict[str, np.ndarray],
    user: np.ndarray,
    item: np.ndarray,
    domain: np.ndarray,
) -> Compact:
    """Gather what rows (user, item, domain), codes (row,) with -1 for unknown, need.

    Unknown users and items get the values of :class:`bayesrec.models.base.Population`.
    """
    dims = model.dims
    free = flat(draws, [name for name in draws if not {"user", "item"} & set(dims[name])])
    population = model.population(free)
    users, items = np.unique(user[user >= 0]), np.unique(item[item >= 0])
    latents = dict(free)
    for name in draws:
        for side, codes, extra in (("user", users, population.user), ("item", items, population.item)):
            if side not in dims[name]:
                continue
            axis = 1 + dims[name].index(side)
            array = draws[name].reshape(-1, *draws[name].shape[2:])
            known = torch.from_numpy(np.take(array, codes, axis=axis))
            more = extra[name].unsqueeze(axis) if side == "user" else extra[name]
            latents[name] = torch.cat([known, more.to(known.dtype)], axis)
    user_code = np.where(user >= 0, np.searchsorted(users, user), len(users))
    item_code = np.where(item >= 0, np.searchsorted(items, item), len(items) + domain)
    batch = Batch(torch.from_numpy(user_code), torch.from_numpy(item_code), torch.from_numpy(np.array(domain)))
    return Compact(latents, batch, population, torch.from_numpy(user < 0), torch.from_numpy(item < 0))


def _design(model: Model, rows: Compact, of_user: bool = True) -> Tensor:
    """What a user's vector is multiplied by, (draw, row, R): the item's, with 1 for the bias; or the other way round."""
    v = model.vectors(rows.latents, rows.batch)[1 if of_user else 0].clone()
    v[..., 0] = 1.0
    return v


def deviations(model: Model, rows: Compact) -> Tensor:
    """How far the expected target ratings of one unknown id lie from the population's, for each draw: (draw, row).

    The id is a user, or an item where no user is unknown, and each draw takes another from the population. The normals
    are fixed, alike for every unknown id and seed, since nothing tells them apart. Over the draws the deviations of a
    row have the mean zero exactly: the mean of what is ranked is what `predict` says.
    """
    of_user = bool(rows.unknown_user.any())
    population = rows.population
    spread = population.user_cov[..., -1, :, :] if of_user else population.item_var[..., -1, :].diag_embed()
    chol = torch.linalg.cholesky(spread.double())
    normals = torch.from_numpy(np.random.default_rng(0).standard_normal(chol.shape[:-1]))
    out = (_design(model, rows, of_user).double() @ (chol @ normals[..., None]))[..., 0]
    return out - out.mean(0)


def _spread(model: Model, rows: Compact, of_users: bool = True) -> Tensor:
    """Variance of ``eta`` (draw, row) that comes from unknown users and items; both unknown is moment-matched.

    Without ``of_users`` the part that the rows of a user share is left out.
    """
    user, item = model.vectors(rows.latents, rows.batch)
    out = torch.zeros(user.shape[:-1], dtype=user.dtype)
    new_user, new_item = rows.unknown_user, rows.unknown_item
    cov, var = rows.population.user_cov, rows.population.item_var
    for d in torch.unique(rows.batch.domain).tolist():
        here = rows.batch.domain == d
        pick = here & new_user
        if of_users and pick.any():
            v = item[:, pick].clone()
            v[..., 0] = 1.0
            out[:, pick] += ((v @ cov[:, d]) * v).sum(-1)
        pick = here & new_item
        if pick.any():
            p = user[:, pick].square()
            p[..., 0] = 1.0
            out[:, pick] += (p * var[:, None, d]).sum(-1)
        pick = here & new_user & new_item
        if pick.any():
            both = cov[:, d].diagonal(dim1=-2, dim2=-1) * var[:, d]
            out[:, pick] += both[:, 1:].sum(-1, keepdim=True)
    return out


def components(
    model: Model, draws: dict[str, np.ndarray], user: np.ndarray, item: np.ndarray, domain: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Mean and sd (row, draw) of a new rating given each draw, in sd units, a chunk of rows at a time."""
    n_draws = int(np.prod(next(iter(draws.values())).shape[:2]))
    chunk = max(1, CHUNK_FLOATS // (n_draws * (model.rank + 1)))
    for start in range(0, len(user), chunk):
        part = slice(start, start + chunk)
        rows = compact(model, draws, user[part], item[part], domain[part])
        eta = model.score(rows.latents, rows.batch)
        unknown = bool(rows.unknown_user.any() or rows.unknown_item.any())
        variance = _spread(model, rows) if unknown else torch.zeros((), dtype=eta.dtype)
        mean, sd = model.likelihood.components(eta, variance, rows.latents, rows.batch)
        by_row = [np.ascontiguousarray(x.numpy().T, dtype=np.float64) for x in (mean, sd.expand(mean.shape))]
        yield part, by_row[0], by_row[1]


def together(
    model: Model, draws: dict[str, np.ndarray], item: np.ndarray, domain: int, value: np.ndarray
) -> np.ndarray:
    """Log density (draw,), in sd units, of ratings ``value`` (row,) that one unknown user gave in a domain.

    Given a draw the rows share the user's vector: they are jointly normal with covariance ``v' cov v`` and, on the
    diagonal, noise and the spread of unknown items. In the form of Woodbury, so that matrices have the size R.
    """
    n = len(item)
    rows = compact(model, draws, np.full(n, -1), item, np.full(n, domain))
    spread = _spread(model, rows, of_users=False)
    mean, sd = model.likelihood.components(model.score(rows.latents, rows.batch), spread, rows.latents, rows.batch)
    mean, sd = mean.double(), sd.expand(mean.shape).double()
    residual = (torch.from_numpy(value) - mean) / sd
    cov = rows.population.user_cov[:, domain].double()
    design = _design(model, rows).double() / sd[..., None]
    inner = torch.eye(cov.shape[-1], dtype=torch.float64) + design.mT @ design @ cov
    linear = design.mT @ residual[..., None]
    explained = (linear * (cov @ torch.linalg.solve(inner, linear))).sum((-2, -1))
    quadratic = residual.square().sum(-1) - explained
    log_det = 2.0 * sd.log().sum(-1) + torch.linalg.slogdet(inner).logabsdet
    return (-0.5 * (quadratic + log_det + n * np.log(2.0 * np.pi))).numpy()


def quantiles(mean: np.ndarray, sd: np.ndarray, probability: tuple[float, ...]) -> np.ndarray:
    """Quantiles (row, q) of mixtures of normals with equal weights, components (row, draw)."""
    out = np.empty((len(mean), len(probability)))
    mixtures.mixture_quantiles(mean, sd, np.array(probability), ndtri(np.array(probability)), out)
    return out
