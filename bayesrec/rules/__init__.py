"""Rules: from draws of expected ratings to a utility by which items are ranked.

A rule is a plain function ``rule(draws, rng) -> utility`` with ``draws`` (draw, user, item) and ``utility``
(user, item). It sees arrays and nothing else, so it works with any model and any method. A rule that looks at each item alone
may say so with an attribute ``itemwise = True``: then items that a user must not get are dropped after it, not before.
"""

from __future__ import annotations

from bayesrec.rules.base import Rule
from bayesrec.rules.items import lcb, mean, prob_best, prob_top, quantile, thompson, ucb
from bayesrec.rules.lists import expected_utility, mean_variance
from bayesrec.rules.named import by_name, epsilon

__all__ = [
    "Rule",
    "by_name",
    "epsilon",
    "expected_utility",
    "lcb",
    "mean",
    "mean_variance",
    "prob_best",
    "prob_top",
    "quantile",
    "thompson",
    "ucb",
]
