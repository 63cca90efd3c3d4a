"""What rules have in common. Internal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bayesrec.errors import DataError

__all__ = ["Rule", "check_length", "is_number", "itemwise", "of_moments"]

Rule = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""The type of a rule: draws (draw, user, item) and a generator in, utilities (user, item) out. Stable."""


def itemwise(rule: Rule) -> Rule:
    """Mark a rule whose utility of an item depends on no other item."""
    rule.itemwise = True  # type: ignore[attr-defined]
    return rule


def of_moments(width: float) -> Rule:
    """The rule of mean plus ``width`` sds, which says so: lists by it are made without holding draws."""
    rule = itemwise(lambda draws, rng: draws.mean(0) + width * draws.std(0) if width else draws.mean(0))
    rule.width = width  # type: ignore[attr-defined]
    return rule


def is_number(x: object) -> bool:
    """Whether x is a finite number and no truth value."""
    return isinstance(x, (int, float, np.number)) and not isinstance(x, bool) and bool(np.isfinite(x))


def check_length(rule: str, n: object) -> None:
    """Refuse a length of a list that is no whole number of at least 1."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise DataError(f"{rule}: n must be a whole number of at least 1, not {n!r}")
