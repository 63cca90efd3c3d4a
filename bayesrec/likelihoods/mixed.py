"""Rows of several likelihoods side by side. Internal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesrec.likelihoods.predicted import Levels, Predicted

__all__ = ["EachRow", "joined"]


def joined(parts: list[tuple[np.ndarray, Predicted]]) -> Predicted:
    """Predictions of all rows from those of some rows each; on levels where all are, on equally many."""
    laws = [law for _, law in parts]
    if len(laws) == 1:
        return laws[0]
    if all(isinstance(law, Levels) for law in laws) and len({law.levels.shape[1] for law in laws}) == 1:  # type: ignore[attr-defined]
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        return Levels(
            *(np.concatenate([getattr(law, name) for law in laws])[order] for name in ("probability", "levels"))
        )
    return Joined(parts)


class Joined(Predicted):
    """Predictions of different kinds, each for some rows."""

    def __init__(self, parts: list[tuple[np.ndarray, Predicted]]):
        self.parts = parts
        n = sum(len(rows) for rows, _ in parts)
        self.owner, self.place = np.empty(n, dtype=int), np.empty(n, dtype=int)
        for k, (rows, _) in enumerate(parts):
            self.owner[rows], self.place[rows] = k, np.arange(len(rows))
        self.mean, self.variance = self._each(lambda law, _: law.mean), self._each(lambda law, _: law.variance)

    def _each(self, ask: Callable[[Predicted, np.ndarray], np.ndarray]) -> np.ndarray:
        found = [(rows, ask(law, rows)) for rows, law in self.parts]
        out = np.empty((len(self.owner), *found[0][1].shape[1:]))
        for rows, x in found:
            out[rows] = x
        return out

    def log_density(self, value: np.ndarray) -> np.ndarray:
        """Log density, or probability, each by its part."""
        return self._each(lambda law, rows: law.log_density(value[rows]))

    def cdf(self, value: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Distribution function, each by its part."""
        asked, out = np.arange(len(self.owner))[rows], np.empty(len(value))
        for k, (_, law) in enumerate(self.parts):
            mine = self.owner[asked] == k
            if mine.any():
                out[mine] = law.cdf(value[mine], self.place[asked[mine]])
        return out

    def below(self, value: np.ndarray) -> np.ndarray:
        """Probability of less, each by its part."""
        return self._each(lambda law, rows: law.below(value[rows]))

    def quantiles(self, probability: tuple[float, ...]) -> np.ndarray:
        """Quantiles, each by its part."""
        return self._each(lambda law, _: law.quantiles(probability))


class EachRow(dist.TorchDistribution):
    """Independent rows, each with the distribution of its part."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, parts: list[tuple[Tensor, Any]], shape: torch.Size):
        self.parts = parts
        super().__init__(batch_shape=shape, validate_args=False)

    def _each(self, ask: Callable[[Any, Tensor], Tensor], shape: Any = ()) -> Tensor:
        found = [(rows, ask(law, rows)) for rows, law in self.parts]
        out = torch.empty(torch.Size(shape) + self.batch_shape, dtype=found[0][1].dtype)
        for rows, x in found:
            out[..., rows] = x.to(out.dtype)
        return out

    @property
    def support(self) -> Any:
        """Numbers; what a part allows it checks itself."""
        return dist.constraints.real

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Sample every row."""
        return self._each(lambda law, _: law.sample(sample_shape), sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, or probability, of every row."""
        found = [(rows, law.log_prob(value[..., rows])) for rows, law in self.parts]
        order = torch.argsort(torch.cat([rows for rows, _ in found]))
        return torch.cat([x for _, x in found], -1)[..., order]

    @property
    def mean(self) -> Tensor:
        """Mean of every row."""
        return self._each(lambda law, _: law.mean)

    @property
    def variance(self) -> Tensor:
        """Variance of every row."""
        return self._each(lambda law, _: law.variance)
