"""Factors of a variational approximation for what populations have: means, scales, covariances. Internal.

Each factor is the optimal one given the others, in closed form: a half-t scale through its mixture of inverse gammas, a
covariance under the prior of Huang and Wand through its mixture of inverse Wisharts (Wand et al. 2011; Huang and Wand 2013).
``bound`` is the factor's part of the ELBO: expected log prior plus entropy, its mixing variable's included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import digamma, gammaln, multigammaln

from bayesrec.conjugate import wishart

__all__ = ["Covariance", "Scale", "normal_bound"]

ROUNDS = 5  # of a variable and its mixing variable, which cost nothing


def _gamma_part(shape: Any, rate: Any, mean: Any, log_mean: Any) -> Any:
    """E log of an inverse gamma density (shape, rate) of x, where E[1/x] and E[log 1/x] are given."""
    return shape * np.log(rate) - gammaln(shape) + (shape + 1.0) * log_mean - rate * mean


@dataclass
class Scale:
    """Scales under half-t priors; their squares are inverse gamma.

    Attributes
    ----------
    prior_scale : ndarray
        Of the half-t, one for each scale.
    precision, log_precision : ndarray
        ``E[1 / s^2]`` and ``E[log 1 / s^2]``.
    """

    prior_scale: np.ndarray
    precision: np.ndarray
    dof: float = 3.0

    def __post_init__(self) -> None:
        self.prior_scale, self.precision = (np.asarray(x, dtype=float) for x in (self.prior_scale, self.precision))
        self.log_precision = np.log(self.precision)
        self.shape, self.rate = np.full(self.precision.shape, np.inf), np.full(self.precision.shape, np.inf)
        self._mix()

    def _mix(self) -> None:
        self.mixing_rate = self.dof * self.precision + self.prior_scale**-2.0
        self.mixing = 0.5 * (self.dof + 1.0) / self.mixing_rate

    def update(self, squares: Any, n: Any) -> None:
        """Meet ``n`` centred normals with an expected sum of squares."""
        for _ in range(ROUNDS):
            self.shape = np.broadcast_to(0.5 * (self.dof + np.asarray(n)), self.precision.shape)
            self.rate = self.dof * self.mixing + 0.5 * np.asarray(squares)
            self.precision = self.shape / self.rate
            self._mix()
        self.log_precision = digamma(self.shape) - np.log(self.rate)

    def bound(self) -> float:
        """Expected log prior plus entropy, given at least one update."""
        half = 0.5 * (self.dof + 1.0)
        log_mixing = digamma(half) - np.log(self.mixing_rate)
        # s^2 | a ~ IG(dof / 2, dof / a), a ~ IG(1 / 2, 1 / prior_scale^2), both minus their own log densities
        prior = 0.5 * self.dof * (np.log(self.dof) + log_mixing) - gammaln(0.5 * self.dof)
        prior += (0.5 * self.dof + 1.0) * self.log_precision - self.dof * self.mixing * self.precision
        prior += _gamma_part(0.5, self.prior_scale**-2.0, self.mixing, log_mixing)
        own = _gamma_part(self.shape, self.rate, self.precision, self.log_precision)
        own += _gamma_part(half, self.mixing_rate, self.mixing, log_mixing)
        return float(np.sum(prior - own))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Scales."""
        return np.sqrt(self.rate / rng.gamma(self.shape))


@dataclass
class Covariance:
    """A covariance matrix under the prior of Huang and Wand; it is inverse Wishart.

    Attributes
    ----------
    prior_scale : ndarray, (R,)
    precision : ndarray, (R, R)
        Expected inverse.
    log_det : float
        Expected log determinant of the inverse.
    """

    prior_scale: np.ndarray
    precision: np.ndarray
    dof: float = 2.0

    def __post_init__(self) -> None:
        self.log_det = float(np.linalg.slogdet(self.precision)[1])
        self.own_dof, self.scatter = np.inf, np.full_like(self.precision, np.inf)
        self._mix()

    def _mix(self) -> None:
        self.mixing_rate = self.dof * np.diag(self.precision) + self.prior_scale**-2.0
        self.mixing = 0.5 * (self.dof + len(self.precision)) / self.mixing_rate

    def update(self, scatter: np.ndarray, n: float) -> None:
        """Meet ``n`` centred normals with an expected scatter matrix."""
        size = len(scatter)
        for _ in range(ROUNDS):
            self.own_dof = self.dof + size - 1.0 + n
            self.scatter = scatter + 2.0 * self.dof * np.diag(self.mixing)
            inverse = self.own_dof * np.linalg.inv(self.scatter)
            self.precision = 0.5 * (inverse + inverse.T)
            self._mix()
        places = 0.5 * (self.own_dof - np.arange(size))
        self.log_det = float(digamma(places).sum() + size * np.log(2.0) - np.linalg.slogdet(self.scatter)[1])

    def bound(self) -> float:
        """Expected log prior plus entropy, given at least one update."""
        size = len(self.precision)
        half = 0.5 * (self.dof + size)
        log_mixing = digamma(half) - np.log(self.mixing_rate)
        first = self.dof + size - 1.0
        prior = 0.5 * first * (size * np.log(2.0 * self.dof) + log_mixing.sum())
        prior += self._wishart_part(first, float((2.0 * self.dof * self.mixing * np.diag(self.precision)).sum()))
        own = 0.5 * self.own_dof * float(np.linalg.slogdet(self.scatter)[1])
        own += self._wishart_part(self.own_dof, float((self.scatter * self.precision).sum()))
        mixing = _gamma_part(0.5, self.prior_scale**-2.0, self.mixing, log_mixing)
        mixing -= _gamma_part(half, self.mixing_rate, self.mixing, log_mixing)
        return float(prior - own + mixing.sum())

    def _wishart_part(self, dof: float, trace: float) -> float:
        """E log of an inverse Wishart density of the covariance, without the determinant of its scatter matrix."""
        size = len(self.precision)
        out = 0.5 * (dof + size + 1.0) * self.log_det - 0.5 * trace
        return float(out - 0.5 * dof * size * np.log(2.0) - multigammaln(0.5 * dof, size))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A covariance matrix (R, R)."""
        scale = np.linalg.inv(self.scatter)
        cov = np.linalg.inv(wishart(self.own_dof, 0.5 * (scale + scale.T), rng))
        return 0.5 * (cov + cov.T)


def normal_bound(mean: np.ndarray, cov: np.ndarray, prior_precision: np.ndarray) -> float:
    """Expected log prior plus entropy of a normal (k,) under independent normals around zero."""
    quadratic = float((prior_precision * (mean**2 + np.diag(cov))).sum())
    return 0.5 * (float(np.log(prior_precision).sum()) - quadratic + float(np.linalg.slogdet(cov)[1]) + len(mean))
