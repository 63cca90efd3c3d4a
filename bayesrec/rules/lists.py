"""Rules for lists that are good as a whole, and for users who lose more by a bad item than they gain by a good one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bayesrec.errors import DataError
from bayesrec.rules.base import Rule, check_length, is_number, itemwise

__all__ = ["expected_utility", "mean_variance"]


def expected_utility(utility: float | Callable[[np.ndarray], np.ndarray] = 1.0, n: int = 1) -> Rule:
    """Rank by expected utility: where a bad item costs more than a good one brings. Provisional.

    With a number ``a``, the aversion to risk, the utility of a rating ``r`` is exponential, and items are ranked by their
    certainty equivalent ``-log(mean(exp(-a r))) / a``, in rating units: the mean for ``a = 0``, about ``a / 2`` variances
    below it for a small ``a``. With ``n`` above 1 the utility is that of a list: the items are taken one after another, each
    so that the certainty equivalent of the average rating of the list so far is largest, over all draws jointly.

    Parameters
    ----------
    utility : float or callable
        Aversion, in 1 / rating units, negative for a taste for risk; or a function from ratings to utilities, of any shape.
    n : int
        Length of the list, 1 for items by themselves; needs an aversion above 1.

    Raises
    ------
    DataError
        An aversion that is not finite, a length that is none, a function together with ``n`` above 1.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.9]], [[5.0, 2.9]]])  # a gamble and something safe
    >>> expected_utility(0.0)(draws, np.random.default_rng(0))
    array([[3. , 2.9]])
    >>> expected_utility(1.0)(draws, np.random.default_rng(0)).round(2)
    array([[1.67, 2.9 ]])
    >>> expected_utility(lambda rating: rating >= 4)(draws, np.random.default_rng(0))
    array([[0.5, 0. ]])

    References
    ----------
    Pratt (1964), Risk aversion in the small and in the large.
    """
    check_length("expected_utility", n)
    if callable(utility):
        if n > 1:
            raise DataError(f"expected_utility: a list of n={n} needs an aversion, a number, not a function")
        return itemwise(lambda draws, rng: np.asarray(utility(draws), dtype=float).mean(0))
    if not is_number(utility):
        raise DataError(
            f"expected_utility: the aversion to risk must be a finite number or a function, not {utility!r}"
        )
    averse = float(utility)
    if n == 1:
        return itemwise(lambda draws, rng: _certainty(draws, averse))

    def listed(draws: np.ndarray) -> np.ndarray:
        total = np.zeros((len(draws), 1))

        def gain(place: int, last: int | None) -> np.ndarray:
            nonlocal total
            if last is not None:
                total = total + draws[:, [last]]
            return _certainty((total + draws) / (place + 1), averse)

        return _greedy(gain, draws.shape[1], n)

    return lambda draws, rng: np.stack([listed(draws[:, user]) for user in range(draws.shape[1])])


def mean_variance(risk: float = 1.0, n: int = 10) -> Rule:
    """Rank so that the list as a whole is good and safe: items that fail together are not all recommended. Provisional.

    The portfolio theory of ranking: place ``k`` goes to the item with the largest ``mean_i - risk * (w_k var_i + 2 sum_j w_j
    cov_ij)``, ``j`` running over the places before and ``w_k = 1 / log2(k + 1)``, ``k = 1, 2, ...``. Means, variances and
    covariances are those of the draws: two items covary if the same uncertainty about the user moves both.

    Parameters
    ----------
    risk : float
        In 1 / rating units, 0 or more; 0 ranks by the mean.
    n : int
        Length of the list that is diversified; the items behind follow by what they would add to it.

    Raises
    ------
    DataError
        A risk that is negative or not finite, a length that is none.

    Examples
    --------
    >>> draws = np.array([[[5.0, 4.8, 3.0]], [[3.0, 3.0, 4.5]]])  # the first two stand and fall together
    >>> mean_variance(0.0, n=2)(draws, np.random.default_rng(0)).argsort()[0, ::-1].tolist()
    [0, 1, 2]
    >>> mean_variance(0.5, n=2)(draws, np.random.default_rng(0)).argsort()[0, ::-1].tolist()
    [0, 2, 1]

    References
    ----------
    Wang and Zhu (2009), Portfolio theory of information retrieval.
    """
    check_length("mean_variance", n)
    if not is_number(risk) or risk < 0:
        raise DataError(f"mean_variance: risk must be a finite number of at least 0, not {risk!r}")

    def listed(draws: np.ndarray) -> np.ndarray:
        mean = draws.mean(0, dtype=float)
        centred = draws - mean
        variance = (centred**2).mean(0)
        shared = np.zeros(len(mean))

        def gain(place: int, last: int | None) -> np.ndarray:
            nonlocal shared
            if last is not None:
                shared = shared + centred[:, last] @ centred / len(centred) / np.log2(place + 1)
            return mean - risk * (variance / np.log2(place + 2) + 2.0 * shared)

        return _greedy(gain, len(mean), n)

    return lambda draws, rng: np.stack([listed(draws[:, user]) for user in range(draws.shape[1])])


def _certainty(draws: np.ndarray, averse: float) -> np.ndarray:
    """Certainty equivalent over the first axis under exponential utility."""
    mean = draws.mean(0)
    if averse == 0.0:
        return mean
    loss = -averse * (draws - mean)
    top = loss.max(0)
    return mean - (top + np.log(np.exp(loss - top).mean(0))) / averse


def _greedy(gain: Callable[[int, int | None], np.ndarray], n_items: int, n: int) -> np.ndarray:
    """Utilities (item,) that rank items as they are picked one by one.

    ``gain(place, last)`` gives the worth of every item at a place (0, 1, ...) after ``last`` was picked. Where the worth rises
    along the list, as it may for an item that hedges those before it, the utility stays just below that of the place before.
    """
    out, free = np.empty(n_items), np.ones(n_items, dtype=bool)
    ceiling, last = np.inf, None
    for place in range(min(n, n_items)):
        worth = np.where(free, gain(place, last), -np.inf)
        last = int(worth.argmax())
        ceiling = out[last] = min(worth[last], np.nextafter(ceiling, -np.inf))
        free[last] = False
    if free.any():
        rest = gain(n, last)[free]
        out[free] = np.minimum(rest, np.nextafter(ceiling, -np.inf)) if np.isfinite(ceiling) else rest
    return out
