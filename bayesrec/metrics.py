"""Metrics of predictions and of ranked lists: arrays in, numbers out; standard errors clustered by user."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from bayesrec.errors import DataError
from bayesrec.ranking_metrics import list_chance, list_coverage, list_metrics, list_names, list_novelty

__all__ = [
    "calibration_error",
    "clustered_mean",
    "clustered_rmse",
    "crps_normal",
    "list_chance",
    "list_coverage",
    "list_metrics",
    "list_names",
    "list_novelty",
    "ndcg",
    "nlpd_normal",
    "order_accuracy",
    "rmse",
    "rmse_difference",
]

PAIRS = 2**24  # pairs of rows of one user that are compared at a time


def rmse(value: np.ndarray, mean: np.ndarray) -> float:
    """Root mean squared error.

    Examples
    --------
    >>> rmse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    1.4142135623730951
    """
    return float(np.sqrt(np.mean((np.asarray(value) - np.asarray(mean)) ** 2)))


def nlpd_normal(value: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Negative log density of each value under a normal, (row,), in nats.

    Examples
    --------
    >>> value, mean = np.array([3.0, 3.0]), np.array([3.0, 5.0])
    >>> nlpd_normal(value, mean, 1.0).round(3)  # a miss by two sds costs two nats more than a hit
    array([0.919, 2.919])
    >>> nlpd_normal(value, mean, 2.0).round(3)  # a wider prediction loses less by a miss, and gains less by a hit
    array([1.612, 2.112])
    """
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
    """RMSE of ``a`` minus RMSE of ``b`` on the same rows, and its clustered standard error (delta method).

    Examples
    --------
    >>> value, user = np.array([3.0, 4.0, 2.0, 5.0]), np.array([0, 0, 1, 1])
    >>> difference, se = rmse_difference(value, value + 0.5, value + [1.0, -1.0, 1.0, -1.0], user)
    >>> difference, se  # every error of a is half of that of b: nothing varies between users
    (-0.5, 0.0)
    """
    a, b = (np.asarray(value) - mean_a) ** 2, (np.asarray(value) - mean_b) ** 2
    root_a, root_b = np.sqrt(a.mean()), np.sqrt(b.mean())
    influence = (a - a.mean()) / (2.0 * root_a) - (b - b.mean()) / (2.0 * root_b)
    return float(root_a - root_b), clustered_mean(influence, cluster)[1]


def clustered_rmse(value: np.ndarray, mean: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """RMSE and its standard error with rows of one cluster dependent (delta method). Provisional.

    Examples
    --------
    >>> clustered_rmse(np.array([1.0, 2.0]), np.array([2.0, 3.0]), np.array([0, 1]))
    (1.0, 0.0)
    """
    square, se = clustered_mean((np.asarray(value) - mean) ** 2, cluster)
    root = float(np.sqrt(square))
    return root, se / (2.0 * root) if root else 0.0


def order_accuracy(value: np.ndarray, score: np.ndarray, user: np.ndarray) -> np.ndarray:
    """Share of each user's pairs of rows with different values that the scores put in the right order. Provisional.

    Parameters
    ----------
    value, score, user : ndarray, (row,)
        Two rows with equal scores count a half. With values 0 and 1 this is the area under the ROC curve.

    Returns
    -------
    ndarray, (user,)
        In the order of ``np.unique(user)``; NaN for a user without two different values.

    Examples
    --------
    >>> order_accuracy(np.array([5.0, 3.0, 1.0]), np.array([0.9, 0.2, 0.2]), np.zeros(3)).round(4)
    array([0.8333])
    """
    value, score = np.asarray(value, dtype=float), np.asarray(score, dtype=float)
    out = []
    for rows in _by_user(user):
        v, s = value[rows], score[rows]
        right, pairs = 0.0, 0
        step = max(1, PAIRS // len(rows))
        for start in range(0, len(rows), step):
            above = v[start : start + step, None] > v
            gap = s[start : start + step, None] - s
            pairs += int(above.sum())
            right += float((above & (gap > 0)).sum() + 0.5 * (above & (gap == 0)).sum())
        known = pairs > 0 and np.isfinite(s).all()
        out.append(right / pairs if known else np.nan)
    return np.array(out)


def ndcg(value: np.ndarray, score: np.ndarray, user: np.ndarray, k: int = 10, floor: float = 0.0) -> np.ndarray:
    """Normalised discounted cumulative gain at ``k`` of each user's rows in the order of the scores. Provisional.

    The gain of a row is ``value - floor``, its discount ``1 / log2(1 + position)``; rows with equal scores stand in
    random order, of which this is the expectation (McSherry and Najork 2008).

    Parameters
    ----------
    value, score, user : ndarray, (row,)
    k : int
        Length of the list.
    floor : float
        Value of a worthless row: the low end of the scale.

    Returns
    -------
    ndarray, (user,)
        In the order of ``np.unique(user)``; NaN for a user whose values are all equal: any order is right.

    References
    ----------
    McSherry and Najork (2008), `mcsherry2008` in docs/references.bib.

    Examples
    --------
    >>> ndcg(np.array([5.0, 1.0]), np.array([0.1, 0.7]), np.zeros(2), floor=1.0).round(4)
    array([0.6309])
    """
    value, score = np.asarray(value, dtype=float), np.asarray(score, dtype=float)
    out = []
    for rows in _by_user(user):
        gain, s = value[rows] - floor, score[rows]
        if np.ptp(gain) == 0 or not np.isfinite(s).all():
            out.append(np.nan)
            continue
        place = np.arange(len(rows))
        discount = np.where(place < k, 1.0 / np.log2(place + 2.0), 0.0)
        _, tie = np.unique(-s, return_inverse=True)  # groups of equal scores, best first
        order = np.argsort(tie, kind="stable")
        average = np.bincount(tie, gain) / np.bincount(tie)
        out.append(float(discount @ average[tie[order]] / (discount @ np.sort(gain)[::-1])))
    return np.array(out)


def calibration_error(
    relevant: np.ndarray, probability: np.ndarray, user: np.ndarray, bins: int = 10
) -> tuple[float, float]:
    """Expected calibration error of probabilities of a click, and its standard error clustered by user. Provisional.

    Rows are put into bins of about equal size by their probability, since clicks are rare and bins of equal width would hold
    nearly all rows in the first; equal probabilities share a bin. The error is the mean over rows of the absolute difference
    between the clicks and the mean probability of the bin. It is never negative: where forecasts are perfect, noise alone makes
    it about ``0.8 sqrt(bins p (1 - p) / rows)``. The standard error takes the signs of the differences as given.

    Parameters
    ----------
    relevant : ndarray of bool, or of 0 and 1, (row,)
        Whether there was a click.
    probability : ndarray, (row,)
    user : ndarray, (row,)
        Whose rows depend on each other.
    bins : int

    Returns
    -------
    error, se : float

    Raises
    ------
    DataError
        No rows, arrays of different lengths, a probability outside 0 to 1, a click other than 0 and 1, fewer than one bin.

    References
    ----------
    Naeini, Cooper and Hauskrecht (2015), `naeini2015` in docs/references.bib.

    Examples
    --------
    >>> calibration_error(np.array([0, 1, 1, 1]), np.array([0.5, 0.5, 0.9, 0.9]), np.arange(4), bins=2)[0].__round__(3)
    0.05
    """
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
        raise DataError(f"bins must be a whole number of at least 1, not {bins!r}")
    click, p, user = np.asarray(relevant), np.asarray(probability, dtype=float), np.asarray(user)
    if click.shape != p.shape or user.shape != p.shape or p.ndim != 1 or not len(p):
        raise DataError(
            f"relevant, probability and user have shapes {click.shape}, {p.shape}, {user.shape}; they must be equal"
        )
    for name, values, bad in (("probability", p, ~((p >= 0) & (p <= 1))), ("relevant", click, ~np.isin(click, (0, 1)))):
        if bad.any():
            raise DataError(
                f"{name} of row {bad.argmax()} is {values[bad.argmax()]!r}; it must lie in 0 to 1, clicks be 0 or 1"
            )
    edges = np.unique(np.quantile(p, np.arange(1, bins) / bins))
    bin_of = np.searchsorted(edges, p, side="right")
    gap = click - p
    sign = np.sign(np.bincount(bin_of, gap))
    return clustered_mean(sign[bin_of] * gap, user)


def _by_user(user: np.ndarray) -> list[np.ndarray]:
    """Positions of each user's rows, users ascending."""
    _, code = np.unique(np.asarray(user), return_inverse=True)
    order = np.argsort(code, kind="stable")
    return np.split(order, np.cumsum(np.bincount(code))[:-1]) if len(order) else []
