"""From draws to predictive distributions: the draws that some rows need, unknown ids filled in. Internal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from bayesrec.likelihoods import Gaussian, Latents, Units
from bayesrec.likelihoods.predicted import Predicted
from bayesrec.models.base import Batch, Model, Population, Schema
from bayesrec.posterior import topn

__all__ = ["Compact", "compact", "components", "deviations", "rows_at_once", "together"]

CHUNK_FLOATS = 2**23  # floats of gathered user vectors that a chunk of rows may take: larger ones leave the caches
SHARED = 16  # users from the population, in each draw, over which the rows of an unknown user are averaged


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
    shapes = {name: draws[name].shape for name in names}  # reshape(-1) cannot tell where an axis has no entries
    return {name: torch.from_numpy(draws[name].reshape(s[0] * s[1], *s[2:])) for name, s in shapes.items()}


def compact(
    model: Model,
    draws: dict[str, np.ndarray],
    schema: Schema,
    user: np.ndarray,
    item: np.ndarray,
    domain: np.ndarray,
) -> Compact:
    """Gather what rows (user, item, domain), codes (row,) with -1 for unknown, need.

    Unknown users and items get the values of :class:`bayesrec.models.base.Population`.
    """
    dims = model.dims
    free = flat(draws, [name for name in draws if not {"user", "item"} & set(dims[name])])
    population = model.population(free, schema if user.min(initial=0) < 0 or item.min(initial=0) < 0 else None)
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
    spread = (population.user_cov if of_user else population.item_cov)[..., -1, :, :]
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
    cov, item_cov = rows.population.user_cov, rows.population.item_cov
    for d in torch.unique(rows.batch.domain).tolist():
        here = rows.batch.domain == d
        pick = here & new_user
        if of_users and pick.any():
            v = item[:, pick].clone()
            v[..., 0] = 1.0
            out[:, pick] += ((v @ cov[:, d]) * v).sum(-1)
        pick = here & new_item
        if pick.any():
            p = user[:, pick].clone()
            p[..., 0] = 1.0
            out[:, pick] += ((p @ item_cov[:, d]) * p).sum(-1)
        pick = here & new_user & new_item
        if pick.any():
            both = cov[:, d, 1:, 1:] * item_cov[:, d, 1:, 1:]
            out[:, pick] += both.sum((-1, -2)).unsqueeze(-1)
    return out


def rows_at_once(model: Model, draws: dict[str, np.ndarray]) -> int:
    """How many rows are predicted at once."""
    n_draws = int(np.prod(next(iter(draws.values())).shape[:2]))
    return max(1, CHUNK_FLOATS // (n_draws * (model.rank + 1)))


def components(
    model: Model, draws: dict[str, np.ndarray], schema: Schema, user: np.ndarray, item: np.ndarray, domain: np.ndarray
) -> Iterator[tuple[slice, Predicted]]:
    """Predictive distributions of new ratings, a chunk of rows at a time."""
    chunk, units = rows_at_once(model, draws), schema.units
    for start in range(0, len(user), chunk):
        part = slice(start, start + chunk)
        rows = compact(model, draws, schema, user[part], item[part], domain[part])
        unknown = bool(rows.unknown_user.any() or rows.unknown_item.any())
        eta = model.score(rows.latents, rows.batch) if unknown else _scores(model, rows)
        variance = _spread(model, rows) if unknown else torch.zeros((), dtype=eta.dtype)
        yield part, _law(model, eta, variance, rows, units, domain[part])


def _scores(model: Model, rows: Compact) -> Tensor:
    """``model.score`` (draw, row) of known users and items: the same sums, with each vector looked up once."""
    user, item, domain = (np.asarray(x) for x in (rows.batch.user, rows.batch.item, rows.batch.domain))
    place, n_domains = user * (domain.max(initial=0) + 1) + domain, domain.max(initial=0) + 1
    cells, row_user = np.unique(place, return_inverse=True)
    things, row_item = np.unique(item, return_inverse=True)
    nobody = torch.zeros(max(len(cells), len(things)), dtype=torch.int64)
    who, where = torch.from_numpy(cells // n_domains), torch.from_numpy(cells % n_domains)
    left = model.vectors(rows.latents, Batch(who, nobody[: len(cells)], where))[0]
    some = nobody[: len(things)]
    right = model.vectors(rows.latents, Batch(some, torch.from_numpy(things), some))[1]
    out = np.empty((len(user), left.shape[0]), dtype=left.numpy().dtype)
    users = np.ascontiguousarray(left.numpy().swapaxes(0, 1))
    topn.scores(row_user, row_item, users, np.ascontiguousarray(right.numpy()), out)
    return torch.from_numpy(out.T)


def _law(
    model: Model, eta: Tensor, variance: Tensor, rows: Compact, units: list[Units], domain: np.ndarray
) -> Predicted:
    """Predictive distributions of rows with expected responses ``eta`` (draw, row)."""
    parts = model.likelihood.components(eta, variance, rows.latents, rows.batch)
    mean, spread, noise = (np.ascontiguousarray(x.expand(eta.shape).numpy().T, dtype=np.float64) for x in parts)
    return model.likelihood.predicted(mean, spread, noise, rows.latents, units, domain)


def together(
    model: Model, draws: dict[str, np.ndarray], schema: Schema, item: np.ndarray, domain: int, value: np.ndarray
) -> np.ndarray:
    """Log density (draw,) of ratings ``value`` (row,) that one unknown user gave in a domain.

    Given a draw the rows share the user's vector. Normal ratings are jointly normal with covariance ``v' cov v`` and, on the
    diagonal, noise and the spread of unknown items: in the form of Woodbury, so that matrices have the size R. Other
    ratings are averaged over SHARED users taken from the population, the same for everybody.
    """
    n, units = len(item), schema.units
    rows = compact(model, draws, schema, np.full(n, -1), item, np.full(n, domain))
    spread = _spread(model, rows, of_users=False)
    if not isinstance(model.likelihood.of(domain), Gaussian):
        return _averaged(model, rows, spread, units, domain, value)
    mean, apart, noise = model.likelihood.components(
        model.score(rows.latents, rows.batch), spread, rows.latents, rows.batch
    )
    mean, sd = mean.double(), torch.hypot(apart.double(), noise.expand(mean.shape).double())
    residual = (torch.from_numpy(units[domain].encode(value)) - mean) / sd
    cov = rows.population.user_cov[:, domain].double()
    design = _design(model, rows).double() / sd[..., None]
    inner = torch.eye(cov.shape[-1], dtype=torch.float64) + design.mT @ design @ cov
    linear = design.mT @ residual[..., None]
    explained = (linear * (cov @ torch.linalg.solve(inner, linear))).sum((-2, -1))
    quadratic = residual.square().sum(-1) - explained
    log_det = 2.0 * sd.log().sum(-1) + torch.linalg.slogdet(inner).logabsdet
    return (-0.5 * (quadratic + log_det + n * np.log(2.0 * np.pi * units[domain].scale ** 2))).numpy()


def _averaged(
    model: Model, rows: Compact, spread: Tensor, units: list[Units], domain: int, value: np.ndarray
) -> np.ndarray:
    """Log density (draw,) of rows of one unknown user, averaged over users from the population."""
    eta, design = model.score(rows.latents, rows.batch).double(), _design(model, rows).double()
    chol = torch.linalg.cholesky(rows.population.user_cov[:, domain].double())
    rng, parts = np.random.default_rng(0), []
    for _ in range(SHARED):
        vector = chol @ torch.from_numpy(rng.standard_normal(chol.shape[:-1]))[..., None]
        given = eta + (design @ vector)[..., 0]
        law = _law(model, given, spread, rows, units, np.full(len(value), domain))
        parts.append(law.log_density(value).sum(0))
    return logsumexp(np.stack(parts), axis=0) - np.log(SHARED)
