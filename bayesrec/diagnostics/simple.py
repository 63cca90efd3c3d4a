"""A simple baseline as an arm of a stack: its number, with a normal around it. Internal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import ndtr

from bayesrec import baselines
from bayesrec.baselines import Baseline
from bayesrec.data import Interactions
from bayesrec.errors import DataError
from bayesrec.likelihoods import Gaussian, StudentT
from bayesrec.likelihoods.predicted import Levels, Normals, Predicted
from bayesrec.models.base import Schema
from bayesrec.posterior import Posterior

__all__ = ["Simple"]

LEAST = 1e-12  # probability of a level: a normal far away would leave none
HALVINGS = 40  # of the range in which a normal lies


@dataclass(frozen=True, eq=False)
class Simple:
    """A baseline and the rows that it learns from.

    On levels a level has the normal's mass between the middles to its neighbours, and the normal lies where the levels have the
    baseline's rating as their mean: the ends would pull it in otherwise.

    Attributes
    ----------
    make : callable
        One of ``br.baselines``: from Interactions to a fitted Baseline.
    data : Interactions
    schema : Schema
        Of the model that it is mixed with.
    """

    make: Callable[[Interactions], Baseline]
    data: Interactions
    schema: Schema

    @classmethod
    def beside(cls, make: Any, posterior: Posterior) -> Simple:
        """The arm that is mixed with a posterior, and learns from the rows which that has looked at."""
        out, target = cls(make, posterior.data, posterior.schema), posterior.model.likelihood.of(-1)
        if out.levels is None and not isinstance(target, Gaussian | StudentT):
            raise DataError(f"a baseline says ratings, and {target!r} is of something else; leave it out of the arms.")
        if not isinstance(out.baseline, Baseline) or not out.baseline.is_rating:
            raise DataError(f"{make!r} does not say ratings; take one such as br.baselines.bias_transfer.")
        return out

    @classmethod
    def named(cls, name: str, posterior: Posterior) -> Simple:
        """The same of a baseline in ``br.baselines``."""
        if name not in baselines.__all__:
            raise LookupError(f"there is no baseline {name!r}")
        return cls.beside(getattr(baselines, name), posterior)

    def __repr__(self) -> str:
        return f"Simple({getattr(self.make, '__name__', repr(self.make))})"

    @property
    def name(self) -> str:
        """Of the baseline in ``br.baselines``."""
        name = getattr(self.make, "__name__", repr(self.make))
        if getattr(baselines, name, None) is not self.make:
            raise DataError(f"{name} is no baseline of br.baselines, and a file cannot hold it; leave that arm out.")
        return name

    @property
    def levels(self) -> np.ndarray | None:
        """The values that ratings of the target can take, if they are on levels."""
        return self.schema.units[-1].levels

    @cached_property
    def baseline(self) -> Baseline:
        """Fitted to ``data``."""
        return self.make(self.data)

    def law(self, user: np.ndarray, item: np.ndarray) -> Predicted:
        """Predictive distributions of target rows (codes)."""
        mean, sd = self.baseline.predict(user, item), self.baseline.spread(user, item)
        levels = self.levels
        if levels is None:
            one = np.ones(len(user))
            return Normals(mean[:, None], sd[:, None], 0.0 * one, one)
        share = _shares(mean, sd, levels)
        return Levels(share[:, None], np.broadcast_to(levels, share.shape))

    def log_score(self, frame: Any) -> np.ndarray:
        """Log predictive density of each row's value, (row,)."""
        batch = self.data.encode(frame, need_value=True)
        return self.law(batch.user, batch.item).log_density(np.asarray(batch.value, dtype=float))[:, 0]

    def expected(self, user: int, items: np.ndarray) -> np.ndarray:
        """The expected target ratings of one user (code) for items (codes), as the only draw: (1, item)."""
        first, second = np.full(len(items), user), items
        if self.data.columns.swapped:
            first, second = second, first
        return self.law(first, second).mean.T


def _shares(mean: np.ndarray, sd: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Probabilities (row, level) of levels, rounded normals with these sds, whose means are ``mean`` as far as levels reach."""
    bounds, reach = (levels[1:] + levels[:-1]) / 2.0, 6.0 * sd
    low, high = levels[0] - reach, levels[-1] + reach

    def shares(centre: np.ndarray) -> np.ndarray:
        mass = np.diff(ndtr((bounds - centre[:, None]) / sd[:, None]), prepend=0.0, append=1.0)
        mass = np.maximum(mass, LEAST)
        return mass / mass.sum(1, keepdims=True)

    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        above = shares(middle) @ levels > mean
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return shares((low + high) / 2.0)
