"""Predictions of some rows that gather while a chain runs. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesrec.blocks import State
from bayesrec.data.batch import Batch
from bayesrec.models.base import Model, Schema
from bayesrec.posterior import predictive

__all__ = ["Watch", "watched"]

TOGETHER = 25  # draws that are predicted at once


class Watch:
    """Sums over the draws of one chain of what rows are expected to be; the draws themselves are not kept.

    A draw waits with its users and items of these rows until there are TOGETHER of them.
    """

    def __init__(self, model: Model, schema: Schema, batch: Batch):
        self.model, self.batch = model, batch
        self.places = {side: np.unique(code[code >= 0]) for side, code in (("user", batch.user), ("item", batch.item))}
        sides = zip(self.places.values(), (batch.user, batch.item), strict=True)
        self.codes = (*(np.where(code >= 0, np.searchsorted(own, code), -1) for own, code in sides), batch.domain)
        self.schema = schema
        self.value = None if batch.value is None else np.asarray(batch.value)
        self.n = 0
        self.sums = np.zeros((4, len(batch)))  # mean, sum of squared deviations of means, sum of variances, log density
        self.sums[3] = -np.inf
        self.waiting: list[State] = []

    def add(self, state: State) -> None:
        """Take in one draw."""
        self.waiting.append({name: self._cut(name, np.asarray(state[name], np.float32)) for name in self.model.dims})
        if len(self.waiting) == TOGETHER:
            self.settle()

    def _cut(self, name: str, value: np.ndarray) -> np.ndarray:
        """The users and items of the rows."""
        for axis, side in enumerate(self.model.dims[name]):
            if side in self.places:
                value = np.take(value, self.places[side], axis=axis)
        return value

    def settle(self) -> None:
        """Predict under the draws that wait."""
        if not self.waiting:
            return
        draws = {name: np.stack([draw[name] for draw in self.waiting])[None] for name in self.model.dims}
        self.waiting = []
        for rows, law in predictive.components(self.model, draws, self.schema, *self.codes):
            centre, squares, variances, density = self.sums[:, rows]
            mean = law.mean
            n, k = self.n, mean.shape[1]
            own = mean.mean(1)
            squares += ((mean - own[:, None]) ** 2).sum(1) + (own - centre) ** 2 * n * k / (n + k)
            centre += (own - centre) * k / (n + k)
            variances += law.variance.sum(1)
            if self.value is not None:
                density[:] = np.logaddexp(density, np.logaddexp.reduce(law.log_density(self.value[rows]), axis=1))
        self.n += len(draws[next(iter(draws))][0])


def watched(chains: list[Watch], schema: Schema, batch: Batch) -> Any:
    """The table of :attr:`Posterior.watched`, from all draws so far."""
    for chain in chains:
        chain.settle()
    n = np.array([chain.n for chain in chains])[:, None]
    means, squares, variances, density = (np.stack(x) for x in zip(*(chain.sums for chain in chains), strict=True))
    mean = (n * means).sum(0) / n.sum()
    within = (squares / np.maximum(n - 1, 1)).mean(0)
    between = means.var(0, ddof=1) if len(chains) > 1 else np.full(len(mean), np.nan)
    total = (squares.sum(0) + (n * (means - mean) ** 2).sum(0) + variances.sum(0)) / n.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        rhat = np.sqrt(1.0 + between / within)
    out = {"mean": mean, "sd": np.sqrt(total)}
    if batch.value is not None:
        out["log_score"] = np.logaddexp.reduce(density, axis=0) - np.log(n.sum())
    return batch.answer(out | {"rhat": rhat})
