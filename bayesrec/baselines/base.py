"""What a baseline can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

__all__ = ["Baseline"]


class Baseline(ABC):
    """A fitted baseline: expected ratings, or scores to rank by, from codes. Provisional.

    Attributes
    ----------
    is_rating : bool
        Whether predictions are in rating units; otherwise they only order items.

    Examples
    --------
    A baseline of one's own says what it expects; without a ``spread`` it has no predictive density.

    >>> class Indifferent(Baseline):
    ...     def predict(self, user, item):
    ...         return np.full(len(user), 3.0)
    >>> user, item = np.array([0, -1]), np.array([4, 2])
    >>> Indifferent().predict(user, item), Indifferent().spread(user, item)
    (array([3., 3.]), array([nan, nan]))
    """

    is_rating: bool = True

    @abstractmethod
    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Expected ratings or scores (row,) for codes; unknown ids (-1) are the average user or item."""

    def spread(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Sd of a new rating around the prediction (row,); NaN where the baseline has no predictive distribution."""
        return np.full(len(user), np.nan)
