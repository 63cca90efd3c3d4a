"""Rules: from draws of expected ratings to a utility by which items are ranked.

A rule is a plain function ``rule(draws, rng) -> utility`` with ``draws`` (draw, user, item) and ``utility``
(user, item). It sees arrays and nothing else, so it works with any model and any method.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bayesrec.errors import DataError

__all__ = ["Rule", "by_name", "lcb", "mean", "prob_best", "thompson", "ucb"]

Rule = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""The type of a rule: draws (draw, user, item) and a generator in, utilities (user, item) out. Stable."""


def mean() -> Rule:
    """Rank by the posterior mean: the best single guess. Stable.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.0]], [[3.0, 0.0]]])
    >>> mean()(draws, np.random.default_rng(0))
    array([[2., 1.]])
    """
    return lambda draws, rng: draws.mean(0)


def ucb(width: float = 1.0) -> Rule:
    """Rank by mean plus ``width`` sds: optimism, to learn about a user. Stable.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.0]], [[3.0, 2.0]]])
    >>> ucb(2.0)(draws, np.random.default_rng(0))
    array([[4., 2.]])
    """
    return lambda draws, rng: draws.mean(0) + width * draws.std(0)


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
        return draws[rng.integers(len(draws), size=draws.shape[1]), np.arange(draws.shape[1])]

    return rule


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


def by_name(rule: str | Rule) -> Rule:
    """Return the rule of a name, or the rule itself. Stable.

    Parameters
    ----------
    rule : {"mean", "ucb", "lcb", "thompson", "prob_best"} or Rule

    Returns
    -------
    Rule

    Raises
    ------
    DataError
        A name that no rule has; the message lists the names.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.0]], [[3.0, 0.0]]])
    >>> by_name("mean")(draws, np.random.default_rng(0))
    array([[2., 1.]])
    >>> def median(draws, rng):
    ...     return np.median(draws, axis=0)
    >>> by_name(median) is median
    True
    """
    factories = {"mean": mean, "ucb": ucb, "lcb": lcb, "thompson": thompson, "prob_best": prob_best}
    if callable(rule):
        return rule
    if rule not in factories:
        raise DataError(f"unknown rule {rule!r}; known: {', '.join(factories)}, or a function of (draws, rng)")
    return factories[rule]()
