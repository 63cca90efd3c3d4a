"""Predictive distributions of ratings: equal-weight mixtures over draws, a row each. Internal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from scipy.special import gammaln, logsumexp, ndtr, ndtri

from bayesrec import counts, mixtures

__all__ = ["Counts", "Levels", "Normals", "Predicted", "Tails", "log_interval"]


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
        self._equal = np.full(mean.shape[1], 1.0 / mean.shape[1])

    def log_density(self, value: np.ndarray) -> np.ndarray:
        """Log density of each component."""
        z = ((value[:, None] - self.center) / self.scale - self.inner) / self.sd
        return -0.5 * z**2 - np.log(self.sd) - 0.5 * np.log(2.0 * np.pi) - np.log(self.scale)

    def cdf(self, value: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Distribution function of the mixtures."""
        out = np.empty(len(value))
        inner = (value - self.center[rows, 0]) / self.scale[rows, 0]
        mixtures.mixture_cdf(self.inner[rows], self.sd[rows], self._equal, inner, out)
        return out

    def quantiles(self, probability: tuple[float, ...]) -> np.ndarray:
        """Quantiles of the mixtures."""
        out = np.empty((len(self.inner), len(probability)))
        p = np.array(probability)
        mixtures.mixture_quantiles(self.inner, self.sd, self._equal, p, ndtri(p), out)
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


class Counts(Predicted):
    """Poisson counts whose logarithmic rates are normal with mean and sd (row, draw)."""

    def __init__(self, mean: np.ndarray, sd: np.ndarray):
        self.inner, self.sd = mean, sd
        self.mean = np.exp(mean + 0.5 * sd**2)
        self.variance = self.mean + self.mean**2 * np.expm1(sd**2)

    def log_density(self, value: np.ndarray) -> np.ndarray:
        """Log probability of each row's count; minus infinity for what is no count."""
        out = np.empty(self.inner.shape)
        counts.log_probabilities(value.astype(np.float64), self.inner, self.sd, out)
        return out

    def cdf(self, value: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Probability of a count of at most a value."""
        out = np.empty(len(value))
        counts.count_cdf(value.astype(np.float64), self.inner[rows], self.sd[rows], out)
        return out

    def below(self, value: np.ndarray) -> np.ndarray:
        """Probability of a count below a value."""
        return self.cdf(np.ceil(value) - 1.0)

    def quantiles(self, probability: tuple[float, ...]) -> np.ndarray:
        """The least count at which the distribution function reaches each probability."""
        out = np.empty((len(self.inner), len(probability)))
        counts.count_quantiles(self.inner, self.sd, np.array(probability), out)
        return out


class Tails(Predicted):
    """Student t noise around means that are normal where users or items are unknown.

    Mean, sd of the mean and scale of the noise (row, draw) in units of which a rating is ``center + scale * x``, each (row,).
    A t variable is a normal whose precision is a gamma variable: a sum over a few precisions where no closed form is at hand.
    """

    ROWS = 64  # at once

    def __init__(
        self, mean: np.ndarray, spread: np.ndarray, noise: np.ndarray, dof: float, center: np.ndarray, scale: np.ndarray
    ):
        self.inner, self.spread, self.noise, self.dof = mean, spread, noise, dof
        self.center, self.scale = center[:, None], scale[:, None]
        self.mean = mean * self.scale + self.center
        self.variance = (spread**2 + noise**2 * dof / (dof - 2.0)) * self.scale**2

    def log_density(self, value: np.ndarray) -> np.ndarray:
        """Log density: of a t where the mean is known, else of the mixture."""
        e, dof = (value[:, None] - self.center) / self.scale - self.inner, self.dof
        constant = gammaln(0.5 * dof + 0.5) - gammaln(0.5 * dof) - 0.5 * np.log(dof * np.pi)
        out = constant - np.log(self.noise) - 0.5 * (dof + 1.0) * np.log1p((e / self.noise) ** 2 / dof)
        wide = self.spread > 0.0
        if wide.any():
            e, spread, noise = e[wide][:, None], self.spread[wide][:, None], self.noise[wide][:, None]
            stretch, weight = _normals_of_t(dof, 36)
            variance = spread**2 + (noise * stretch) ** 2
            parts = -0.5 * (e**2 / variance + np.log(2.0 * np.pi * variance))
            out[wide] = logsumexp(parts, axis=1, b=weight)
        return out - np.log(self.scale)

    def _mixtures(self, rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normal mixtures (row, draw * node) and their weights, of some rows."""
        mean, spread, noise = (x[rows][:, :, None] for x in (self.inner, self.spread, self.noise))
        stretch, weight = _normals_of_t(self.dof, 24)
        sd = np.sqrt(spread**2 + (noise * stretch) ** 2)
        weight = np.tile(weight / mean.shape[1], mean.shape[1])
        return np.broadcast_to(mean, sd.shape).reshape(len(sd), -1), sd.reshape(len(sd), -1), weight

    def cdf(self, value: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Distribution function of the mixtures."""
        out, which = np.empty(len(value)), np.arange(len(self.inner))[rows]
        for k in range(0, len(which), self.ROWS):
            part = which[k : k + self.ROWS]
            inner = (value[k : k + self.ROWS] - self.center[part, 0]) / self.scale[part, 0]
            mixtures.mixture_cdf(*self._mixtures(part), inner, out[k : k + self.ROWS])
        return out

    def quantiles(self, probability: tuple[float, ...]) -> np.ndarray:
        """Quantiles of the mixtures."""
        out, p = np.empty((len(self.inner), len(probability))), np.array(probability)
        for k in range(0, len(out), self.ROWS):
            part = np.arange(k, min(k + self.ROWS, len(out)))
            mixtures.mixture_quantiles(*self._mixtures(part), p, ndtri(p), out[k : k + self.ROWS])
        return out * self.scale + self.center


def _normals_of_t(dof: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Sds (n,) of normals that make up a standard t, and their weights: a trapezoid sum over log precisions."""
    half = 0.5 * dof
    low, high = max(-32.0 / half - 1.0, -11.0), np.log1p(18.0 / half) + 0.1  # the density is small there
    grid = np.linspace(low, high, 4000)
    fall = half * (np.exp(grid) - grid - 1.0)
    inside = grid[fall < np.where(grid < 0.0, 32.0, 18.0)]  # small precisions make the tails
    log = np.linspace(inside[0], inside[-1], n)
    weight = np.exp(half * (log - np.exp(log) + 1.0))
    return np.exp(-0.5 * log), weight / weight.sum()


def log_interval(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Log probability of a standard normal between two bounds, accurate in both tails."""
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    with np.errstate(divide="ignore"):
        return np.log(ndtr(b) - ndtr(a))
