"""Metrics of predictions: arrays in, numbers out; differences with a standard error clustered by user."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

__all__ = ["clustered_mean", "crps_normal", "nlpd_normal", "rmse", "rmse_difference"]


def rmse(value: np.ndarray, mean: np.ndarray) -> float:
    """Root mean squared error.

    Examples
    --------
    >>> rmse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    1.4142135623730951
    """
    return float(np.sqrt(np.mean((np.asarray(value) - np.asarray(mean)) ** 2)))


def nlpd_normal(value: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Negative log density of each value under a normal, (row,)."""
    z = (np.asarray(value) - mean) / sd
    return 0.5 * z**2 + np.log(sd) + 0.5 * np.log(2.0 * np.pi)


def crps_normal(value: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of a normal, (row,), in the units of the values (Gneiting and Raftery 2007).

    Examples
    --------
    >>> float(crps_normal(np.array([0.0]), 0.0, 1.0)[0].round(4))
    0.2337
    """
    z = (np.asarray(value) - mean) / sd
    return sd * (z * (2.0 * ndtr(z) - 1.0) + np.sqrt(2.0 / np.pi) * np.exp(-0.5 * z**2) - 1.0 / np.sqrt(np.pi))


def clustered_mean(values: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """Mean of values (row,) and its standard error with rows of one cluster dependent.

    Examples
    --------
    >>> mean, se = clustered_mean(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]))
    >>> mean, se
    (2.0, 1.0)
    """
    values = np.asarray(values, dtype=float)
    _, index = np.unique(cluster, return_inverse=True)
    n, groups = len(values), index.max() + 1
    mean = values.mean()
    sums = np.bincount(index, values - mean, minlength=groups)
    factor = groups / max(groups - 1, 1)
    return float(mean), float(np.sqrt(factor * (sums**2).sum()) / n)


def rmse_difference(
    value: np.ndarray, mean_a: np.ndarray, mean_b: np.ndarray, cluster: np.ndarray
) -> tuple[float, float]:
    """RMSE of ``a`` minus RMSE of ``b`` on the same rows, and its clustered standard error (delta method)."""
    a, b = (np.asarray(value) - mean_a) ** 2, (np.asarray(value) - mean_b) ** 2
    root_a, root_b = np.sqrt(a.mean()), np.sqrt(b.mean())
    influence = (a - a.mean()) / (2.0 * root_a) - (b - b.mean()) / (2.0 * root_b)
    return float(root_a - root_b), clustered_mean(influence, cluster)[1]
