"""How far a variational factor is from the conditionals that it stands for: Pareto shapes. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from arviz_stats.base import array_stats

from bayesrec.conjugate import Table
from bayesrec.inference.vmp_sides import Rows
from bayesrec.models.base import Model

__all__ = ["item_shapes"]

MOST = 2000  # ratings that an item may have to be looked at: more of them cost much and tell no more


def item_shapes(
    model: Model, table: Table, draws: dict[str, np.ndarray], factor: Rows, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Pareto shapes (n,) of the ratios between conditional and factor, for ``n`` rated items at random, with repetition.

    Given a draw of all the rest an item is normal, with a known density; averaged over draws of the rest these conditionals
    are what the factor would be if it knew of the dependence. The ratios are taken at the item's own draws.
    """
    counts = np.diff(table.item_ptr)
    known = np.flatnonzero((counts > 0) & (counts <= max(MOST, counts.min(initial=MOST, where=counts > 0))))
    chosen = rng.choice(known, min(n, len(known)), replace=False)
    index = model.rater_index(table)
    raters = model.raters({name: torch.from_numpy(x) for name, x in draws.items() if name.endswith("_vector")}).numpy()
    weights = np.stack(
        [
            table.powered(
                model.likelihood.cell_precision({k: draws[k][s].astype(float) for k in model.likelihood.dims}, table)
            )
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
    mean, cov = factor.normals(np.array([i]))
    own = np.linalg.inv(cov[0])
    apart, off = x - np.linalg.solve(precision, linear[..., None])[..., 0], x - mean[0]
    ratios = 0.5 * np.linalg.slogdet(precision)[1] - 0.5 * np.einsum("si,sij,sj->s", apart, precision, apart)
    ratios -= 0.5 * np.linalg.slogdet(own)[1] - 0.5 * np.einsum("si,ij,sj->s", off, own, off)
    return float(array_stats.psislw(ratios)[1])
