"""Whether variational factors are as wide as the conditionals that they stand for: Pareto shapes. Internal."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from arviz_stats.base import array_stats
from scipy.special import logsumexp

from bayesrec.conjugate import Table
from bayesrec.inference.vmp_sides import Rows
from bayesrec.models.base import Model

__all__ = ["item_shapes"]

LOOKED = 100
MOST = 2000  # ratings that an item may have to be looked at: more of them cost much and tell no more


def item_shapes(
    model: Model, table: Table, draws: dict[str, np.ndarray], factor: Rows, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Pareto shapes (n,) of what an item's factor should be to what it is, for at most LOOKED rated items at random, repeated.

    Given a draw of all the rest an item is normal. The mean of these densities over the draws is what its factor would be if it
    spread with the rest; its ratio to the factor is taken at the item's own draws. A factor that is too narrow has a heavy tail.
    """
    counts = np.diff(table.item_ptr)
    known = np.flatnonzero((counts > 0) & (counts <= max(MOST, counts.min(initial=MOST, where=counts > 0))))
    chosen = rng.choice(known, min(n, LOOKED, len(known)), replace=False)
    index, likelihood = model.rater_index(table), cast(Any, model.likelihood)
    raters = model.raters({name: torch.from_numpy(x) for name, x in draws.items() if name.endswith("_vector")}).numpy()
    weights = np.stack(
        [
            table.powered(likelihood.cell_precision({k: draws[k][s].astype(float) for k in likelihood.dims}, table))
            for s in range(len(raters))
        ]
    ).reshape(len(raters), -1)
    shapes = np.array([_shape(i, table, draws, factor, index, raters, weights) for i in chosen])
    return np.resize(shapes, n)


def _shape(
    i: int, table: Table, draws: Any, factor: Rows, index: np.ndarray, raters: np.ndarray, weights: np.ndarray
) -> float:
    rows = slice(table.item_ptr[i], table.item_ptr[i + 1])
    v = raters[:, index[rows]].astype(float)  # (draw, rating, R)
    w, r = weights[:, table.item_cell[rows]], table.item_value[rows] - v[..., 0]
    v[..., 0] = 1.0
    tau = draws["item_scale"][:, table.item_domain[i]].astype(float) ** -2.0
    weighted = w[..., None] * v
    precision = v.swapaxes(1, 2) @ weighted
    precision[:, np.arange(tau.shape[1]), np.arange(tau.shape[1])] += tau
    linear = tau * draws["item_mean"][:, table.item_domain[i]] + (weighted * r[..., None]).sum(1)
    x = draws["item_vector"][:, i].astype(float)
    lower = np.linalg.cholesky(precision)
    centre = np.linalg.solve(precision, linear[..., None])[..., 0]
    apart = np.einsum("tij,sti->stj", lower, x[:, None] - centre[None])  # the draw's place under every conditional
    log_det = np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(1)
    mixture = logsumexp(log_det - 0.5 * (apart**2).sum(2), axis=1) - np.log(len(x))
    mean, cov = factor.normals(np.array([i]))
    root = np.linalg.cholesky(np.linalg.inv(cov[0]))
    own = np.log(np.diag(root)).sum() - 0.5 * (((x - mean[0]) @ root) ** 2).sum(1)
    return float(array_stats.psislw(own - mixture)[1])  # it takes the negative of log ratios
