"""Utilities of many users' items, where a rule asks for less than all draws, and the best of them. Internal.

A mean over draws of products is one long product. Sds are summed up draw by draw in the first cache, for a few users and a
strip of items at a time; the draws themselves are never written out. All is in sds: ratings far from 0 have no digits left in
float32. An entry is the same whoever stands beside it: every path
has one order of operations.
"""

from __future__ import annotations

import numpy as np

from bayesrec.jit import compiled
from bayesrec.posterior.score_tile import LANES, TALL, WIDE, address, fused, fused_tile, gap_tile, score_tile

__all__ = ["few_means", "few_uppers", "means", "one_draw", "scores", "stacked", "top", "uppers"]

STRIP = LANES * WIDE


@compiled
def means(users, items, out):
    """Means over draws of scores (user, item), of stacked users (user, C) and items (C, item), see ``stacked``.

    Users come in multiples of TALL and items in multiples of a strip.
    """
    n_users, size = users.shape
    panel = np.empty((size, STRIP), dtype=np.float32)
    one, zero = np.float32(1.0), np.float32(0.0)
    for i in range(0, items.shape[1], STRIP):
        panel[:] = items[:, i : i + STRIP]
        for u in range(0, n_users, TALL):
            fused_tile(
                address(users[u]), size, address(panel), STRIP, size, one, zero, address(out[u, i:]), out.shape[1]
            )


@compiled
def few_means(users, items, codes, bias, out):
    """The same of items (draw, item, R) as the draws have them, some of which are asked for; ``bias`` (item,) is their mean."""
    n_draws, size = items.shape[0], items.shape[2]
    n, total = len(codes), np.empty(len(codes), dtype=np.float32)
    for u in range(len(users)):
        for j in range(n):
            total[j] = users[u, 0] + bias[j]
        for s in range(n_draws):
            user = users[u, 1 + s * (size - 1) :]
            for j in range(0, n, 4):  # four at once: each is a chain of additions
                j1, j2, j3 = min(j + 1, n - 1), min(j + 2, n - 1), min(j + 3, n - 1)
                a, b, c, d = items[s, codes[j]], items[s, codes[j1]], items[s, codes[j2]], items[s, codes[j3]]
                w, x, y, z = total[j], total[j1], total[j2], total[j3]
                for k in range(size - 1):
                    w = fused(user[k], a[k + 1], w)
                    x = fused(user[k], b[k + 1], x)
                    y = fused(user[k], c[k + 1], y)
                    z = fused(user[k], d[k + 1], z)
                total[j3] = z
                total[j2] = y
                total[j1] = x
                total[j] = w
        for j in range(n):
            out[u, j] = total[j]


def stacked(vectors: np.ndarray) -> np.ndarray:
    """Users (user, C) whose products with stacked items are means over draws, of users (draw, user, R)."""
    n_draws, n_users, size = vectors.shape
    out = np.empty((n_users, 1 + n_draws * (size - 1)), dtype=np.float32)
    out[:, 0] = vectors[:, :, 0].mean(0, dtype=np.float64)
    out[:, 1:] = (vectors[:, :, 1:] / np.float32(n_draws)).transpose(1, 0, 2).reshape(n_users, -1)
    return out


@compiled
def uppers(users, items, width, out):
    """Mean plus ``width`` sds over draws of scores (user, item), of users (user, draw, R) and turned items (draw, R, item)."""
    n_users, n_draws, size = users.shape
    panel = np.empty((n_draws, size, STRIP), dtype=np.float32)
    first = np.empty((TALL, STRIP), dtype=np.float32)
    total, squares = np.empty_like(first), np.empty_like(first)
    one, zero = np.float32(1.0), np.float32(0.0)
    for i in range(0, items.shape[2], STRIP):
        panel[:] = items[:, :, i : i + STRIP]
        for u in range(0, n_users, TALL):
            stride = n_draws * size
            score_tile(address(users[u]), stride, address(panel), STRIP, size, one, zero, address(first), STRIP)
            total[:] = zero
            squares[:] = zero
            for s in range(1, n_draws):
                gap_tile(
                    address(users[u, s]), stride, address(panel[s]), STRIP, size, address(first), address(total),
                    address(squares),
                )  # fmt: skip
            for a in range(TALL):
                for b in range(STRIP):
                    out[u + a, i + b] = _upper(first[a, b], total[a, b], squares[a, b], n_draws, width)


@compiled
def _upper(first, total, squares, n_draws, width):
    """Mean plus ``width`` sds of draws whose first, and whose sums of gaps to it, are given."""
    gap = total / np.float32(n_draws)
    variance = max(squares / np.float32(n_draws) - gap * gap, np.float32(0.0))
    return first + gap + width * np.sqrt(variance)


@compiled
def few_uppers(users, items, codes, width, out):
    """The same of items (draw, item, R) as the draws have them, some of which are asked for."""
    n_users, n_draws, size = users.shape
    n = len(codes)
    first, total, squares = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)
    four = np.empty(4, dtype=np.float32)
    for u in range(n_users):
        total[:] = np.float32(0.0)
        squares[:] = np.float32(0.0)
        for s in range(n_draws):
            user = users[u, s]
            for start in range(0, n, 4):
                a, b = items[s, codes[start]], items[s, codes[min(start + 1, n - 1)]]
                c, d = items[s, codes[min(start + 2, n - 1)]], items[s, codes[min(start + 3, n - 1)]]
                w, x, y, z = user[0] + a[0], user[0] + b[0], user[0] + c[0], user[0] + d[0]
                for k in range(1, size):
                    w += user[k] * a[k]
                    x += user[k] * b[k]
                    y += user[k] * c[k]
                    z += user[k] * d[k]
                four[0], four[1], four[2], four[3] = w, x, y, z
                for j in range(start, min(start + 4, n)):
                    if s == 0:
                        first[j] = four[j - start]
                    else:
                        gap = four[j - start] - first[j]
                        total[j] += gap
                        squares[j] += gap * gap
        for j in range(n):
            out[u, j] = _upper(first[j], total[j], squares[j], n_draws, width)


@compiled
def one_draw(user, items, out):
    """Scores (item,) of one user (R,) and turned items (R, item) in one draw."""
    for start in range(0, items.shape[1], 1024):
        stop = min(start + 1024, items.shape[1])
        for i in range(start, stop):
            out[i] = user[0] + items[0, i]
        for k in range(1, len(user)):
            for i in range(start, stop):
                out[i] += user[k] * items[k, i]


@compiled
def top(utility, keep, n, place):
    """Places of the ``n`` best entries that are kept, best first and ties by place; returns how many there are."""
    found = 0
    for i in range(len(utility)):
        x = utility[i]
        if not keep[i] or (found == n and not x > utility[place[n - 1]]):
            continue
        j = found if found < n else n - 1
        while j > 0 and x > utility[place[j - 1]]:
            place[j] = place[j - 1]
            j -= 1
        place[j] = i
        found = min(found + 1, n)
    return found


@compiled
def scores(user, item, users, items, out):
    """Scores (cell, draw) of cells (user, item), of users (user, draw, R) and items (draw, item, R) as the draws have them."""
    n_draws, size = users.shape[1], users.shape[2]
    for c in range(len(user)):
        for s in range(n_draws):
            left, right = users[user[c], s], items[s, item[c]]
            total = left[0] + right[0]
            for k in range(1, size):
                total += left[k] * right[k]
            out[c, s] = total
