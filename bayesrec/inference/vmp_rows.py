"""Compiled sums over ratings and solutions of rows for variational message passing. Internal.

A vector ``x = (c, q)`` of one side, bias first, is known by its *moments*: the upper triangle, row by row, of ``E[z z']`` with
``z = (1, c, q)``, so that its first numbers are ``E[z]``. The squared error of a rating between ``x`` and a vector ``(b, p)`` of
the other side is ``(y - z . g)^2`` with ``g = (b, 1, p)``: what the ratings of a row say comes down to sums of moments, of
``y E[z]`` and of ``y^2``, in rows of ``room(size)`` numbers.
"""

from __future__ import annotations

import numpy as np

from bayesrec.jit import compiled, reordered

__all__ = [
    "accumulate",
    "add_row",
    "expected_errors",
    "gram_of",
    "moments_of",
    "normal_of",
    "room",
    "second_moments",
    "solve_rows",
    "sum_moments",
]

CACHED = 2**20  # numbers: 8 MiB, which a cache that cores share has room for
LINE = 8  # numbers: rows begin at multiples of it


@compiled
def _packed(size):
    """Numbers of an upper triangle of ``z``, whose vector has ``size`` components."""
    return (size + 1) * (size + 2) // 2


@compiled
def room(size):
    """Numbers of a row of moments and of a row of sums: the triangle up to a multiple of LINE, then ``y E[z]`` and ``y^2``."""
    width = (_packed(size) + LINE - 1) // LINE * LINE
    return width, width + size + 2


@compiled
def place(i, j, size):
    """Where entry (i, j), i <= j, of ``z z'`` stands."""
    return i * (size + 1) - i * (i - 1) // 2 + j - i


@compiled
def _add_ratings(start, stop, index, value, weight, moments, size, row):
    """Add ratings start..stop to a row of sums."""
    width, _ = room(size)
    weighted = len(weight) > 0
    triangle, linear = row[:width], row[width:]
    for t in range(start, stop - 3, 4):  # four at a time: a sum is loaded and stored once for all
        a, b, c, d = moments[index[t]], moments[index[t + 1]], moments[index[t + 2]], moments[index[t + 3]]
        wa, wb, wc, wd = (weight[t], weight[t + 1], weight[t + 2], weight[t + 3]) if weighted else (1.0, 1.0, 1.0, 1.0)
        for k in range(width):
            triangle[k] += wa * a[k] + wb * b[k] + wc * c[k] + wd * d[k]
        ya, yb, yc, yd = wa * value[t], wb * value[t + 1], wc * value[t + 2], wd * value[t + 3]
        for k in range(size + 1):
            linear[k] += ya * a[k] + yb * b[k] + yc * c[k] + yd * d[k]
        squares = ya * value[t] + yb * value[t + 1] + yc * value[t + 2] + yd * value[t + 3]
        linear[size + 1] += squares
    for t in range(stop - (stop - start) % 4, stop):
        w, a, y = weight[t] if weighted else 1.0, moments[index[t]], value[t]
        for k in range(width):
            triangle[k] += w * a[k]
        for k in range(size + 1):
            linear[k] += w * y * a[k]
        linear[size + 1] += w * y * y


@compiled
def accumulate(indptr, index, value, weight, moments, size, out, first, last):
    """Sums (row, room) of rows first..last; ``weight`` multiplies each rating, and has no entry where all are one.

    Moments are read CACHED numbers at a time by all rows in turn, so that they stay in the cache: each row takes its ratings as
    far as their ``index`` stays below a bound that rises. Where a row's index falls, all the rest waits for the last round.
    """
    others = max(1, CACHED // moments.shape[1])
    place = indptr[first:last].copy()
    out[first:last] = 0.0
    for bound in range(others, len(moments) + others, others):
        for r in range(first, last):
            start, end = place[r - first], indptr[r + 1]
            stop = start
            if bound >= len(moments):
                stop = end
            while stop < end and index[stop] < bound:
                stop += 1
            if stop > start:
                _add_ratings(start, stop, index, value, weight, moments, size, out[r])
                place[r - first] = stop


@compiled
def add_row(row, w, size, precision, linear):
    """Add the precision (upper triangle) and linear term of a vector that a row of sums comes down to, times ``w``."""
    width, _ = room(size)
    for i in range(size):
        a = i + (i > 0)  # bias meets z_0 = 1, factor k meets z_{k + 1}; z_1 is the bias of the other side
        cross = row[place(0, 1, size)] if i == 0 else row[place(1, a, size)]
        linear[i] += w * (row[width + a] - cross)
        for j in range(i, size):
            precision[i, j] += w * row[place(a, j + (j > 0), size)]


@compiled
def gram_of(sums, size, precision, linear):
    """Precisions (row, R, R) and linear terms (row, R) of rows of sums."""
    precision[:] = 0.0
    linear[:] = 0.0
    for r in range(len(sums)):
        add_row(sums[r], 1.0, size, precision[r], linear[r])
        for i in range(size):
            for j in range(i):
                precision[r, i, j] = precision[r, j, i]


@compiled
def _write(mean, cov, out):
    """Moments of a vector with this mean and covariance (upper triangle)."""
    size = len(mean)
    out[0] = 1.0
    for i in range(size):
        out[i + 1] = mean[i]
        for j in range(i, size):
            out[place(i + 1, j + 1, size)] = cov[i, j] + mean[i] * mean[j]


@compiled
def moments_of(mean, cov, out):
    """Moments (row, room) of normal rows."""
    for r in range(len(mean)):
        _write(mean[r], cov[r], out[r])


@reordered
def normal_of(a, linear, inverse, cov, mean):
    """Covariance and mean of a normal with precision ``a``, upper triangle, and this linear term; ``a`` is overwritten.

    Returns half the log determinant of the precision, NaN where it is not positive definite. ``inverse`` is room.
    """
    size = len(mean)
    half = 0.0
    for i in range(size):  # U'U = A
        for k in range(i):
            for j in range(i, size):
                a[i, j] -= a[k, i] * a[k, j]
        if not a[i, i] > 0.0:
            return np.nan
        root = np.sqrt(a[i, i])
        half += np.log(root)
        for j in range(i, size):
            a[i, j] /= root
    for i in range(size - 1, -1, -1):  # V = U^-1 by rows, cov = V V'
        for j in range(i, size):
            inverse[i, j] = 0.0
        inverse[i, i] = 1.0 / a[i, i]
        for k in range(i + 1, size):
            share = a[i, k] * inverse[i, i]
            for j in range(k, size):
                inverse[i, j] -= share * inverse[k, j]
    for i in range(size):
        for j in range(i, size):
            total = 0.0
            for k in range(j, size):
                total += inverse[i, k] * inverse[j, k]
            cov[i, j] = total
            cov[j, i] = total
    for i in range(size):
        total = 0.0
        for j in range(size):
            total += cov[i, j] * linear[j]
        mean[i] = total
    return half


@compiled
def solve_rows(sums, per, weight, prior, right, group, active, moments, log_det, first, last):
    """Normals of rows first..last that are ``active``; returns how many precisions were not positive definite.

    Row ``r`` has the sums ``sums[r * per : (r + 1) * per]``, times ``weight[r]``, and the prior ``prior[group[r]]`` with the
    linear term ``right[group[r]]``. ``moments`` and ``log_det`` (of the covariance) are written.
    """
    size = right.shape[1]
    a, inverse, cov = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size))
    linear, mean = np.empty(size), np.empty(size)
    bad = 0
    for r in range(first, last):
        if not active[r]:
            continue
        a[:] = prior[group[r]]
        linear[:] = right[group[r]]
        for d in range(per):
            add_row(sums[r * per + d], weight[r, d], size, a, linear)
        half = normal_of(a, linear, inverse, cov, mean)
        if np.isnan(half):
            bad += 1
            continue
        _write(mean, cov, moments[r])
        log_det[r] = -2.0 * half
    return bad


@compiled
def expected_errors(sums, per, moments, size, out, first, last):
    """Expected sum of squared errors of the ratings of each row of sums; ``per`` of them belong to one row of moments."""
    width, _ = room(size)
    for r in range(first, last):
        row, own = sums[r], moments[r // per]
        # g = (b, 1, p) are the entries 1, 0, 2, 3, ... of the row's own z
        total = row[width + size + 1]
        for i in range(size + 1):
            a = 1 - i if i < 2 else i
            total -= 2.0 * row[width + i] * own[a]
            for j in range(i, size + 1):
                b = 1 - j if j < 2 else j
                both = row[place(i, j, size)] * own[place(min(a, b), max(a, b), size)]
                total += both if i == j else 2.0 * both
        out[r] = total


@compiled
def sum_moments(moments, group, active, edges, out):
    """Sums (part, group, room) of the moments of active rows, by parts of the rows that ``edges`` divides."""
    for part in range(len(edges) - 1):
        out[part] = 0.0
        for r in range(edges[part], edges[part + 1]):
            if active[r]:
                total, own = out[part, group[r]], moments[r]
                for k in range(len(own)):
                    total[k] += own[k]


def second_moments(moments: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Means (row, R) and second moments (row, R, R) of vectors."""
    row, column = np.triu_indices(size)
    second = np.empty((len(moments), size, size))
    second[:, row, column] = second[:, column, row] = moments[:, size + 1 : size + 1 + len(row)]
    return moments[:, 1 : size + 1], second
