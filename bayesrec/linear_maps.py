"""Regression of vectors on their features: the exact joint draw of intercept and map, at the cost of one spectrum. Internal.

With ``rows = 1 m' + x B + E``, rows of ``E`` N(0, cov), and ``B[f, k] ~ N(0, scale_k^2)`` independent over features the
orthogonal axes of ``x'x`` separate the features: it is decomposed once, and a draw takes no factor of its size after that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesrec.jit import compiled
from bayesrec.workers import ALONE, Workers

__all__ = ["Spectrum", "draw_map", "without_shift"]


@dataclass(frozen=True)
class Spectrum:
    """Features of some members along the principal axes of ``x'x``.

    Attributes
    ----------
    axes : ndarray, (feature, feature)
        Orthogonal; one axis a column.
    along : ndarray, (member, feature)
        ``x @ axes``.
    power : ndarray, (feature,)
        Sums of squares of the columns of ``along``.
    """

    axes: np.ndarray
    along: np.ndarray
    power: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Spectrum:
        """Decompose features (member, feature)."""
        power, axes = np.linalg.eigh(x.T @ x)
        return cls(axes, x @ axes, np.maximum(power, 0.0))


def draw_map(
    spectrum: Spectrum,
    rows: np.ndarray,
    cov: np.ndarray,
    mean_scale: np.ndarray,
    map_scale: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw intercept (R,) and map (feature, R) given rows (member, R), jointly.

    Parameters
    ----------
    cov : ndarray, (R, R)
        Of a row about its expectation.
    mean_scale, map_scale : ndarray, (R,)
        Prior sds of the intercept and of the entries of each column of the map.
    """
    inverse, size = np.linalg.inv(cov), len(mean_scale)
    # Basis that makes the noise precision diag(stretch) and the prior precision of an axis's coefficients I.
    stretch, turn = np.linalg.eigh(map_scale[:, None] * inverse * map_scale)
    basis = map_scale[:, None] * turn
    weigh = inverse @ basis
    data, total = spectrum.along.T @ rows @ weigh, spectrum.along.sum(0)
    variance = 1.0 / (spectrum.power[:, None] * np.maximum(stretch, 0.0) + 1.0)
    # The intercept with the map integrated out, then the map given it.
    precision = len(rows) * inverse + np.diag(1.0 / mean_scale**2) - (weigh * (total**2 @ variance)) @ weigh.T
    linear = inverse @ rows.sum(0) - weigh @ (total @ (variance * data))
    chol = np.linalg.cholesky(0.5 * (precision + precision.T))
    mean = np.linalg.solve(chol.T, np.linalg.solve(chol, linear) + rng.standard_normal(size))
    centred = data - total[:, None] * (mean @ weigh)
    along = variance * centred + np.sqrt(variance) * rng.standard_normal(centred.shape)
    return mean, spectrum.axes @ (along @ basis.T)


@compiled
def _without_shift(indptr, index, value, other, shift, out, first, last):
    for r in range(first, last):
        row = shift[r]
        for t in range(indptr[r], indptr[r + 1]):
            o = other[index[t]]
            e = value[t] - row[0]
            for k in range(1, len(row)):
                e -= row[k] * o[k]
            out[t] = e


def without_shift(
    indptr: np.ndarray,
    index: np.ndarray,
    value: np.ndarray,
    other: np.ndarray,
    shift: np.ndarray,
    workers: Workers = ALONE,
) -> np.ndarray:
    """Responses (rating,) without what the known part ``shift`` (row, R) of each row's vector adds to them.

    A row whose prior mean is ``mean + shift[r]`` is ``shift[r]`` plus a row with the prior mean ``mean`` and these responses.
    """
    out = np.empty(len(value))

    def run(first: int, last: int) -> int:
        _without_shift(indptr, index, value, other, shift, out, first, last)  # type: ignore[call-arg]
        return 0

    workers.share(run, indptr, 1)
    return out
