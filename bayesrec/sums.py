"""Items integrated out: the density of an item's ratings given the users, in closed form and differentiable. Internal.

Ratings of item ``i`` have the expected value ``b_n + v_n'x_i`` with ``v_n = (1, p_n)`` of the rater and
``x_i = (c_i, q_i)`` of the item; with ``r_n = y_n - b_n`` and precisions ``w_n`` they matter through
``gram = sum w v v'``, ``linear = sum w v r`` and ``square = sum w r^2`` alone. Compiled loops do the sums and their reverse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesrec.kernels import compiled

__all__ = ["log_evidence", "row_sums", "row_sums_of_tensors"]


@compiled
def _forward(items, indptr, index, cell, value, raters, precision, gram, linear, square):
    size = raters.shape[1]
    v, wv = np.empty(size, raters.dtype), np.empty(size, raters.dtype)
    for k in range(len(items)):
        for n in range(indptr[items[k]], indptr[items[k] + 1]):
            row, w = raters[index[n]], precision[cell[n]]
            r = value[n] - row[0]
            v[0] = 1.0
            for i in range(1, size):
                v[i] = row[i]
            for i in range(size):
                wv[i] = w * v[i]
                for j in range(i + 1):
                    gram[k, i, j] += wv[i] * v[j]
                linear[k, i] += wv[i] * r
            square[k] += w * r * r
        for i in range(size):
            for j in range(i):
                gram[k, j, i] = gram[k, i, j]


@compiled
def _backward(items, indptr, index, cell, value, raters, precision, d_gram, d_linear, d_square, out, d_precision):
    size = raters.shape[1]
    zero = raters.dtype.type(0.0)
    v, both = np.empty(size, raters.dtype), np.empty((size, size), raters.dtype)
    for k in range(len(items)):
        for i in range(size):
            for j in range(size):
                both[i, j] = d_gram[k, i, j] + d_gram[k, j, i]
        for n in range(indptr[items[k]], indptr[items[k] + 1]):
            row, grad, w = raters[index[n]], out[index[n]], precision[cell[n]]
            r = value[n] - row[0]
            v[0] = 1.0
            for i in range(1, size):
                v[i] = row[i]
            along, curved = zero, zero
            for i in range(size):
                along += v[i] * d_linear[k, i]
                bent = zero
                for j in range(size):
                    bent += both[i, j] * v[j]
                curved += v[i] * bent
                if i > 0:
                    grad[i] += w * (r * d_linear[k, i] + bent)
            grad[0] -= w * (2.0 * r * d_square[k] + along)
            d_precision[cell[n]] += 0.5 * curved + r * along + r * r * d_square[k]


class _RowSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, raters: Tensor, precision: Tensor, *arrays: Any) -> Any:
        rows, w = raters.detach().numpy(), precision.detach().numpy()
        n, size = len(arrays[0]), rows.shape[1]
        gram, linear = np.zeros((n, size, size), rows.dtype), np.zeros((n, size), rows.dtype)
        square = np.zeros(n, rows.dtype)
        _forward(*arrays, rows, w, gram, linear, square)  # type: ignore[call-arg]
        ctx.arrays = (*arrays, rows, w)
        return torch.from_numpy(gram), torch.from_numpy(linear), torch.from_numpy(square)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, w = ctx.arrays[-2:]
        out, d_precision = np.zeros_like(rows), np.zeros_like(w)
        _backward(*ctx.arrays, *(np.ascontiguousarray(g.numpy()) for g in grads), out, d_precision)  # type: ignore[call-arg]
        return torch.from_numpy(out), torch.from_numpy(d_precision), None, None, None, None, None


def row_sums(
    raters: Tensor,
    precision: Tensor,
    items: np.ndarray,
    indptr: np.ndarray,
    index: np.ndarray,
    cell: np.ndarray,
    value: np.ndarray,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gram (k, R, R), linear (k, R) and square (k,) of some items' rows; gradients reach the raters and precisions.

    Parameters
    ----------
    raters : Tensor, (rater, R)
        Vectors, intercept first.
    precision : Tensor, (cell,)
        Noise precisions.
    items : ndarray of int, (k,)
        Items whose rows are summed.
    indptr : ndarray of int, (item + 1,)
        Rows ``indptr[i] : indptr[i + 1]`` are those of item ``i``.
    index, cell, value : ndarray, (row,)
        Rater, cell of ``precision`` and rating of each row.
    """
    arrays = items, indptr, index, cell, value
    if raters.device.type != "cpu":
        return row_sums_of_tensors(raters, precision, *arrays)
    return _RowSums.apply(raters, precision.contiguous(), *arrays)


def row_sums_of_tensors(raters: Tensor, precision: Tensor, *arrays: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """The same on any device of torch; the rows are those of the items, in their order and no others."""
    items, indptr, *rows = arrays
    sizes = indptr[items + 1] - indptr[items]
    index, cell, of = (
        torch.as_tensor(x, device=raters.device).long() for x in (*rows[:2], np.arange(len(items)).repeat(sizes))
    )
    rater, w = raters.index_select(0, index), precision.reshape(-1).index_select(0, cell)
    left = torch.as_tensor(rows[2], device=raters.device) - rater[:, 0]
    v = torch.cat([torch.ones_like(rater[:, :1]), rater[:, 1:]], 1)
    wv = w.unsqueeze(1) * v

    def summed(x: Tensor) -> Tensor:
        return x.new_zeros(len(items), *x.shape[1:]).index_add(0, of, x)

    return summed(wv.unsqueeze(2) * v.unsqueeze(1)), summed(wv * left.unsqueeze(1)), summed(w * left.square())


def log_evidence(mean: Tensor, sd: Tensor, gram: Tensor, linear: Tensor) -> Tensor:
    """Log of the integral of ``exp(x'linear - x'gram x / 2)`` over ``x ~ N(mean, diag(sd^2))``, (k,)."""
    eye = torch.eye(sd.shape[-1], dtype=sd.dtype)
    chol = torch.linalg.cholesky(sd.unsqueeze(-1) * gram * sd.unsqueeze(-2) + eye)
    pull = (gram @ mean.unsqueeze(-1)).squeeze(-1)
    z = torch.linalg.solve_triangular(chol, (sd * (linear - pull)).unsqueeze(-1), upper=False)
    log_det = chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * z.square().sum((-2, -1)) - log_det + (mean * (linear - 0.5 * pull)).sum(-1)
