"""Sums over each user's rows with their derivative: what the density of integrated-out users rests on. Internal.

For group ``g`` (a user in a domain) and its rows ``n`` with design vectors ``v_n = (1, q_n)`` and ``r_n = y_n - c_n``:
``gram_g = sum v v'``, ``linear_g = sum v r`` and ``square_g = sum r^2``. Compiled loops do them and their reverse; torch
sees one differentiable function of the item vectors ``(c, q)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesrec.kernels import compiled

__all__ = ["row_sums"]


@compiled
def _forward(groups, indptr, index, value, weight, item, gram, linear, square):
    size = item.shape[1]
    v, wv = np.empty(size, item.dtype), np.empty(size, item.dtype)
    for k in range(len(groups)):
        for n in range(indptr[groups[k]], indptr[groups[k] + 1]):
            row = item[index[n]]
            r = value[n] - row[0]
            v[0] = 1.0
            for i in range(1, size):
                v[i] = row[i]
            for i in range(size):
                wv[i] = weight[n] * v[i]
                for j in range(i + 1):
                    gram[k, i, j] += wv[i] * v[j]
                linear[k, i] += wv[i] * r
            square[k] += weight[n] * r * r
        for i in range(size):
            for j in range(i):
                gram[k, j, i] = gram[k, i, j]


@compiled
def _backward(groups, indptr, index, value, weight, item, d_gram, d_linear, d_square, out, d_weight):
    size = item.shape[1]
    v, both = np.empty(size, item.dtype), np.empty((size, size), item.dtype)
    for k in range(len(groups)):
        for i in range(size):
            for j in range(size):
                both[i, j] = d_gram[k, i, j] + d_gram[k, j, i]
        for n in range(indptr[groups[k]], indptr[groups[k] + 1]):
            row, grad = item[index[n]], out[index[n]]
            r = value[n] - row[0]
            v[0] = 1.0
            for i in range(1, size):
                v[i] = row[i]
            w, along, curved = weight[n], v[0] * 0, v[0] * 0
            for i in range(size):
                along += v[i] * d_linear[k, i]
                bent = v[0] * 0
                for j in range(size):
                    bent += both[i, j] * v[j]
                curved += v[i] * bent
                if i > 0:
                    grad[i] += w * (r * d_linear[k, i] + bent)
            grad[0] -= w * (2.0 * r * d_square[k] + along)
            d_weight[n] = 0.5 * curved + r * along + r * r * d_square[k]


class _RowSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, item: Tensor, weight: Tensor, groups: Any, indptr: Any, index: Any, value: Any) -> Any:
        rows, w = item.detach().numpy(), weight.detach().numpy()
        size = rows.shape[1]
        gram = np.zeros((len(groups), size, size), rows.dtype)
        linear, square = np.zeros((len(groups), size), rows.dtype), np.zeros(len(groups), rows.dtype)
        _forward(groups, indptr, index, value, w, rows, gram, linear, square)
        ctx.arrays = (groups, indptr, index, value, w, rows)
        return torch.from_numpy(gram), torch.from_numpy(linear), torch.from_numpy(square)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        w, rows = ctx.arrays[-2:]
        out, d_weight = np.zeros_like(rows), np.zeros_like(w)
        _backward(*ctx.arrays, *(np.ascontiguousarray(g.numpy()) for g in grads), out, d_weight)
        return torch.from_numpy(out), torch.from_numpy(d_weight), None, None, None, None


def row_sums(
    item: Tensor, weight: Tensor, groups: np.ndarray, indptr: np.ndarray, index: np.ndarray, value: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    return _RowSums.apply(item, weight, groups, indptr, index, value)
