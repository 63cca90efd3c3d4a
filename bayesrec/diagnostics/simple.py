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
from bayesrec.models.base import Model, Schema

__all__ = ["Simple", "kind_of"]

LEAST = 1e-12  # probability of a level: a normal far away would leave none
HALVINGS = 40  # of the range in which a normal lies
ROWS = 2**16  # at once


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
        As models see them, with shared users.
    schema : Schema
        Of the model that it is mixed with.
    """

    make: Callable[[Interactions], Baseline]
    data: Interactions
    schema: Schema

    def __repr__(self) -> str:
        return f"Simple({self.label})"

    @classmethod
    def named(cls, name: str, data: Interactions, schema: Schema) -> Simple:
        """One of ``br.baselines``."""
        if name not in baselines.__all__:
            raise LookupError(f"there is no baseline {name!r}")
        return cls(getattr(baselines, name), data, schema)

    @property
    def label(self) -> str:
        """What the function is called."""
        return getattr(self.make, "__name__", repr(self.make))

    @property
    def name(self) -> str:
        """Of the baseline in ``br.baselines``."""
        if getattr(baselines, self.label, None) is not self.make:
            raise DataError(
                f"{self.label} is no baseline of br.baselines, and a file cannot hold it; leave that arm out."
            )
        return self.label

    @cached_property
    def baseline(self) -> Baseline:
        """Fitted to ``data``, in which items are shared again if they are."""
        out = self.make(self.data.transposed() if self.data.columns.swapped else self.data)
        if not isinstance(out, Baseline) or not out.is_rating:
            raise DataError(f"{self.label} does not say ratings; take one such as br.baselines.bias_transfer.")
        return out

    def normal(self, user: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd (row,) of target rows (codes of ``data``), as the baseline says them."""
        codes = (item, user) if self.data.columns.swapped else (user, item)
        mean, sd = (np.asarray(x, dtype=float) for x in (self.baseline.predict(*codes), self.baseline.spread(*codes)))
        for x, what, good in ((mean, "predict", np.isfinite(mean)), (sd, "spread", np.isfinite(sd) & (sd > 0.0))):
            if x.shape != np.shape(user) or not good.all():
                raise DataError(
                    f"{what} of the baseline {self.label} must give a finite number for each of {len(user)} rows, spread one "
                    f"above 0; it gave {x!r}."
                )
        return mean, sd

    def law(self, user: np.ndarray, item: np.ndarray) -> Predicted:
        """Predictive distributions of target rows (codes of ``data``)."""
        (mean, sd), levels = self.normal(user, item), self.schema.units[-1].levels
        if levels is None:
            one = np.ones(len(user))
            return Normals(mean[:, None], sd[:, None], 0.0 * one, one)
        share = _shares(mean, sd, levels)
        return Levels(share[:, None], np.broadcast_to(levels, share.shape))

    def scored(self, frame: Any) -> tuple[np.ndarray, np.ndarray]:
        """Log predictive density of each row's value and mean, (row,) each."""
        batch = self.data.encode(frame, need_value=True)
        score, mean, value = np.empty(len(batch)), np.empty(len(batch)), np.asarray(batch.value, dtype=float)
        for start in range(0, len(batch), ROWS):
            rows = slice(start, start + ROWS)
            law = self.law(batch.user[rows], batch.item[rows])
            score[rows], mean[rows] = law.log_density(value[rows])[:, 0], law.mean[:, 0]
        return score, mean

    def log_score(self, frame: Any) -> np.ndarray:
        """Log predictive density of each row's value, (row,)."""
        return self.scored(frame)[0]

    def expected(self, user: int, items: np.ndarray) -> np.ndarray:
        """The expected target ratings of one user for items (the caller's, codes), as the only draw: (1, item)."""
        codes = np.full(len(items), user), items
        mean, _ = self.normal(*(codes[::-1] if self.data.columns.swapped else codes))
        levels = self.schema.units[-1].levels
        return (mean if levels is None else mean.clip(levels[0], levels[-1]))[None]


def kind_of(model: Model, schema: Schema) -> str:
    """What a model says of target ratings: arms of different kinds cannot be mixed. Internal."""
    target = model.likelihood.of(-1)
    if schema.units[-1].levels is not None:
        return "probabilities of levels"
    return "densities" if isinstance(target, Gaussian | StudentT) else f"what {type(target).__name__} says"


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
