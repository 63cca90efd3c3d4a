"""Predictive distributions of ratings: equal-weight mixtures over draws, a row each. Internal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from bayesrec import mixtures

__all__ = ["Levels", "Normals", "Predicted", "log_interval"]


class Predicted(ABC):
    """Distributions of new ratings, in the units of the ratings.

    Attributes
    ----------
    mean, variance : ndarray, (row, draw)
        Of a rating given each draw.
    """

    mean: np.ndarray
    variance: np.ndarray

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd (row,) over all draws."""
        centre = self.mean.mean(1)
        return centre, np.sqrt(self.variance.mean(1) + ((self.mean - centre[:, None]) ** 2).mean(1))

    @abstractmethod
    def log_density(self, value: np.ndarray) -> np.ndarray:
        """Log density, or probability, of a value (row,) given each draw: (row, draw)."""

    @abstractmethod
    def cdf(self, value: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Probability (row,) of a rating of at most ``value`` (row,), for some of the rows."""

    def below(self, value: np.ndarray) -> np.ndarray:
        """Probability (row,) of a rating below ``value`` (row,)."""
        return self.cdf(value)

    @abstractmethod
    def quantiles(self, probability: tuple[float, ...]) -> np.ndarray:
        """Quantiles (row, q): the least values whose distribution function is not below the probabilities."""


class Normals(Predicted):
    """Normal ratings with mean and sd (row, draw) in units of which a rating is ``center + scale * x``, each (row,)."""

    def __init__(self, mean: np.ndarray, sd: np.ndarray, center: np.ndarray, scale: np.ndarray):
        self.inner, self.sd, self.center, self.scale = mean, sd, center[:, None], scale[:, None]
        self.mean, self.variance = mean * self.scale + self.center, (sd * self.scale) ** 2

    def log_density(self, value: np.ndarray) -> np.ndarray:
        """Log density of each component."""
        z = ((value[:, None] - self.center) / self.scale - self.inner) / self.sd
        return -0.5 * z**2 - np.log(self.sd) - 0.5 * np.log(2.0 * np.pi) - np.log(self.scale)

    def cdf(self, value: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Distribution function of the mixtures."""
        out = np.empty(len(value))
        inner = (value - self.center[rows, 0]) / self.scale[rows, 0]
        mixtures.mixture_cdf(self.inner[rows], self.sd[rows], inner, out)
        return out

    def quantiles(self, probability: tuple[float, ...]) -> np.ndarray:
        """Quantiles of the mixtures."""
        out = np.empty((len(self.inner), len(probability)))
        p = np.array(probability)
        mixtures.mixture_quantiles(self.inner, self.sd, p, ndtri(p), out)
        return out * self.scale + self.center


class Levels(Predicted):
    """Ratings on a few levels: probabilities (row, draw, level) of the levels (row, level), ascending."""

    def __init__(self, probability: np.ndarray, levels: np.ndarray):
        self.probability, self.levels = probability, levels
        self.mean = np.einsum("rdl,rl->rd", probability, levels)
        square = np.einsum("rdl,rl->rd", probability, levels**2)
        self.variance = np.maximum(square - self.mean**2, 0.0)
        self.share = probability.mean(1)

    def log_density(self, value: np.ndarray) -> np.ndarray:
        """Log probability of each row's level; minus infinity for a value between levels."""
        hit = self.levels == value[:, None]
        out = np.full(self.probability.shape[:2], -np.inf)
        row, level = np.nonzero(hit)
        with np.errstate(divide="ignore"):
            out[row] = np.log(self.probability[row, :, level])
        return out

    def cdf(self, value: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Sum of the shares of the levels up to a value."""
        return (self.share[rows] * (self.levels[rows] <= value[:, None])).sum(1)

    def below(self, value: np.ndarray) -> np.ndarray:
        """Sum of the shares of the levels below a value."""
        return (self.share * (self.levels < value[:, None])).sum(1)

    def quantiles(self, probability: tuple[float, ...]) -> np.ndarray:
        """The least level at which the distribution function reaches each probability."""
        reached = np.cumsum(self.share, 1)
        reached[:, -1] = np.inf  # but for rounding
        place = [(reached < p - 1e-12).sum(1) for p in probability]
        return np.stack([np.take_along_axis(self.levels, k[:, None], 1)[:, 0] for k in place], 1)


def log_interval(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Log probability of a standard normal between two bounds, accurate in both tails."""
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    with np.errstate(divide="ignore"):
        return np.log(ndtr(b) - ndtr(a))
