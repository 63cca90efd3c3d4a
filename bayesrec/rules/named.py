"""Rules by name, and mixtures of a rule with chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bayesrec.errors import DataError
from bayesrec.rules.base import Rule, is_number
from bayesrec.rules.items import lcb, mean, prob_best, thompson, ucb
from bayesrec.rules.lists import expected_utility, mean_variance

__all__ = ["NAMED", "by_name", "epsilon"]

#: What is called by name, with its defaults.
NAMED: dict[str, Callable[[], Rule]] = {
    "mean": mean,
    "ucb": ucb,
    "lcb": lcb,
    "thompson": thompson,
    "prob_best": prob_best,
    "expected_utility": expected_utility,
    "mean_variance": mean_variance,
}


def epsilon(rule: str | Rule, share: float) -> Rule:
    """Follow a rule, but give a ``share`` of the places to items at random: the simplest exploration. Provisional.

    Every item can turn up, which keeps logs useful for off-policy estimates. The utility is the number of candidates
    behind an item.

    Parameters
    ----------
    rule : str or Rule
    share : float
        Between 0 and 1. A random item that stands in the list already is passed over.

    Raises
    ------
    DataError
        An unknown rule, a share that is no probability.

    Examples
    --------
    >>> draws = np.array([[[1.0, 2.0, 3.0]]])
    >>> epsilon("mean", 0.0)(draws, np.random.default_rng(0))
    array([[0., 1., 2.]])
    """
    followed = by_name(rule)
    if not is_number(share) or not 0.0 <= share <= 1.0:
        raise DataError(f"epsilon: share must lie between 0 and 1, not {share!r}")

    def mixed(draws: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        utility = np.asarray(followed(draws, rng))
        out = np.empty(utility.shape)
        for user, mine in enumerate(utility):
            n = len(mine)
            # Two queues, the rule's and a random one, are called in the order of coins; an item keeps its first call.
            random = rng.random(2 * n) < share
            first = np.full(n, 2 * n)
            for queue, calls in (
                (np.argsort(-mine, kind="stable"), np.flatnonzero(~random)),
                (rng.permutation(n), np.flatnonzero(random)),
            ):
                served = min(n, len(calls))
                first[queue[:served]] = np.minimum(first[queue[:served]], calls[:served])
            out[user, np.argsort(first, kind="stable")] = np.arange(n - 1, -1, -1)
        return out

    return mixed


def by_name(rule: str | Rule) -> Rule:
    """Return the rule of a name, or the rule itself. Stable.

    Parameters
    ----------
    rule : {"mean", "ucb", "lcb", "thompson", "prob_best", "expected_utility", "mean_variance"} or Rule

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
    if callable(rule):
        return rule
    if not isinstance(rule, str) or rule not in NAMED:
        raise DataError(f"unknown rule {rule!r}; known: {', '.join(NAMED)}, or a function of (draws, rng)")
    return NAMED[rule]()
