"""Rules that rank items one by one."""

from __future__ import annotations

import numpy as np

from bayesrec.errors import DataError
from bayesrec.rules.base import Rule, check_length, is_number, itemwise, of_moments

__all__ = ["lcb", "mean", "prob_best", "prob_top", "quantile", "thompson", "ucb"]


def mean() -> Rule:
    """Rank by the posterior mean: the best single guess. Stable.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.0]], [[3.0, 0.0]]])
    >>> mean()(draws, np.random.default_rng(0))
    array([[2., 1.]])
    """
    return of_moments(0.0)


def ucb(width: float = 1.0) -> Rule:
    """Rank by mean plus ``width`` sds: optimism, to learn about a user. Stable.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.0]], [[3.0, 2.0]]])
    >>> ucb(2.0)(draws, np.random.default_rng(0))
    array([[4., 2.]])
    """
    return of_moments(width)


def lcb(width: float = 1.0) -> Rule:
    """Rank by mean minus ``width`` sds: caution, where a bad recommendation costs more than a missed one. Stable.

    Examples
    --------
    >>> draws = np.array([[[1.0, 1.5]], [[3.0, 1.5]]])  # the first item is better on average, and less certain
    >>> lcb()(draws, np.random.default_rng(0))
    array([[1. , 1.5]])
    """
    return ucb(-width)


def thompson() -> Rule:
    """Rank each user's items by one draw from the posterior: explores in proportion to what is plausible. Stable.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.0]], [[3.0, 0.0]]])
    >>> thompson()(draws, np.random.default_rng(0)).tolist() in draws.tolist()
    True
    """

    def rule(draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return draws[drawn(rng, len(draws), draws.shape[1]), np.arange(draws.shape[1])]

    rule.drawn = drawn  # type: ignore[attr-defined]
    return itemwise(rule)


def drawn(rng: np.random.Generator, n_draws: int, n_users: int) -> np.ndarray:
    """The draw of each user that Thompson sampling ranks by. Internal."""
    return rng.integers(n_draws, size=n_users)


def quantile(q: float) -> Rule:
    """Rank by a quantile of each item's draws: caution or curiosity stated as a probability. Provisional.

    Parameters
    ----------
    q : float
        Strictly between 0 and 1: 0.05 is cautious, 0.95 curious.

    Raises
    ------
    DataError
        A ``q`` that is no such number.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.0]], [[3.0, 2.0]], [[5.0, 2.0]]])
    >>> quantile(0.25)(draws, np.random.default_rng(0))
    array([[2., 2.]])
    """
    if not is_number(q) or not 0.0 < q < 1.0:
        raise DataError(f"quantile: q must lie strictly between 0 and 1, not {q!r}")
    return itemwise(lambda draws, rng: np.quantile(draws, q, axis=0))


def prob_best() -> Rule:
    """Rank by the posterior probability of being the user's best item among the candidates. Stable.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.0]], [[3.0, 0.0]], [[4.0, 1.0]], [[2.0, 1.0]]])
    >>> prob_best()(draws, np.random.default_rng(0))
    array([[0.75, 0.25]])
    """

    def rule(draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        best = draws.argmax(2)
        return np.stack([np.bincount(b, minlength=draws.shape[2]) / len(draws) for b in best.T])

    return rule


def prob_top(n: int) -> Rule:
    """Rank by the posterior probability of being among the user's ``n`` best: for pages seen as a whole. Provisional.

    Parameters
    ----------
    n : int
        At least 1; ``prob_top(1)`` is ``prob_best()``. Items that a draw rates alike are taken in their order.

    Raises
    ------
    DataError
        An ``n`` that is no such number.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.0, 0.0]], [[3.0, 0.0, 1.0]]])
    >>> prob_top(2)(draws, np.random.default_rng(0))
    array([[1. , 0.5, 0.5]])
    """
    check_length("prob_top", n)

    def rule(draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n_items = draws.shape[2]
        if n >= n_items:
            return np.ones(draws.shape[1:])
        out = np.empty(draws.shape[1:])
        for user in range(draws.shape[1]):
            mine = draws[:, user]
            bound = np.partition(mine, n_items - n, axis=1)[:, n_items - n, None]
            inside = mine >= bound
            for row in np.flatnonzero(inside.sum(1) > n):  # ties at the bound
                inside[row] = False
                inside[row, np.argsort(-mine[row], kind="stable")[:n]] = True
            out[user] = inside.mean(0)
        return out

    return rule
