"""Factors of the maps from source vectors to the target's: coefficients, their scales, what they leave open. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesrec.blocks import State
from bayesrec.inference.vmp_scales import Covariance, Scale
from bayesrec.models import priors

__all__ = ["Maps"]

LOG_2PI = float(np.log(2.0 * np.pi))


class Maps:
    """``theta = B' (1, used) + N(0, cov)``: one normal over all free coefficients, intercept first, with a full covariance.

    Attributes
    ----------
    mean : ndarray, (P, R)
        Expected coefficients, ``P = 1 + source * R``.
    spread : Covariance
        Of what is left open.
    """

    def __init__(self, model: Any, state: State, n_sources: int):
        size = model.rank + 1
        self.prior, self.used, self.n_sources, self.size = model.map_prior, model.used(), n_sources, size
        self.intercept = priors.mean_scale(model.rank)[None] ** -2.0
        self.spread = Covariance(model.discrepancy.scale, np.linalg.inv(state["user_cov"]))
        self.base = self.prior.by_part[self.prior.parts]
        if self.prior.family == "normal":
            self.scale = Scale(np.tile(self.prior.by_part, (n_sources, 1)), state["map_scale"] ** -2.0)
        else:
            self.scale = Scale(np.ones((n_sources, size)), state["map_scale"] ** -2.0)
        maps = model.state_maps(state, n_sources)
        self.mean = np.concatenate([state["user_mean"][None], maps.transpose(0, 2, 1).reshape(-1, size)])
        every = np.concatenate([np.ones((1, size), dtype=bool), np.tile(self.used.T, (n_sources, 1))])
        self.free = np.flatnonzero(every)
        self.cov = np.zeros((self.mean.size, self.mean.size))

    def entry_precision(self) -> tuple[np.ndarray, np.ndarray]:
        """Expected precisions and log precisions (source, R, R) of the maps' entries."""
        if self.prior.family == "normal":
            return self.scale.precision[:, self.prior.parts], self.scale.log_precision[:, self.prior.parts]
        shape = self.n_sources, self.size, self.size
        precision = np.broadcast_to(self.scale.precision[:, None, :], shape) / self.base**2
        return precision, np.broadcast_to(self.scale.log_precision[:, None, :], shape) - 2.0 * np.log(self.base)

    def prior_precision(self) -> np.ndarray:
        """Of every coefficient, (P, R)."""
        entries = self.entry_precision()[0].transpose(0, 2, 1).reshape(-1, self.size)
        return np.concatenate([self.intercept, entries])

    def natural(self) -> tuple[np.ndarray, np.ndarray]:
        """``E[B L]`` (P, R) and ``E[B L B']`` (P, P), ``L`` the precision of what is left open."""
        precision, n = self.spread.precision, len(self.mean)
        cross = self.mean @ precision
        cov = self.cov.reshape(n, self.size, n, self.size)
        return cross, cross @ self.mean.T + np.einsum("prqs,rs->pq", cov, precision)

    def update(self, scatter: np.ndarray) -> None:
        """Meet ``E[h h']``, ``h = (1, used, theta)``, summed over users with target rows."""
        n, size = len(self.mean), self.size
        self.n = scatter[0, 0]
        design, cross, target = scatter[:n, :n], scatter[:n, n:], scatter[n:, n:]
        for _ in range(2):
            precision = np.kron(design, self.spread.precision)
            precision[np.diag_indices_from(precision)] += self.prior_precision().ravel()
            chosen = np.ix_(self.free, self.free)
            inverse = np.linalg.inv(precision[chosen])
            self.cov[chosen] = 0.5 * (inverse + inverse.T)
            mean = np.zeros(n * size)
            mean[self.free] = self.cov[chosen] @ (cross @ self.spread.precision).ravel()[self.free]
            self.mean = mean.reshape(n, size)
            fitted = self.mean.T @ cross
            residual = target - fitted - fitted.T + self.mean.T @ design @ self.mean
            residual += np.einsum("pq,prqs->rs", design, self.cov.reshape(n, size, n, size))
            self.residual = 0.5 * (residual + residual.T)
            self.spread.update(self.residual, self.n)
            self.squares = (self.mean**2 + np.diag(self.cov).reshape(n, size))[1:]
            self._update_scale(self.squares.reshape(self.n_sources, size, size).transpose(0, 2, 1))

    def _update_scale(self, squares: np.ndarray) -> None:
        """Meet the expected squares (source, R, R) of the entries that take part."""
        if self.prior.family == "normal":
            masks = [(self.prior.parts == p) & self.used for p in range(3)]
            by_part = np.stack([(squares * mask).sum((1, 2)) for mask in masks], axis=1)
            self.scale.update(by_part, np.array([mask.sum() for mask in masks]))
        else:
            self.scale.update((squares * self.used / self.base**2).sum(1), self.used.sum(0))

    def bound(self) -> float:
        """Expected log prior of theta given the rest, and all of coefficients, scales and covariance."""
        spread, size = self.spread, self.size
        out = 0.5 * (self.n * (spread.log_det - size * LOG_2PI) - (spread.precision * self.residual).sum())
        out += spread.bound() + self.scale.bound()
        precision, log_precision = self.entry_precision()
        entries = self.squares.reshape(self.n_sources, size, size).transpose(0, 2, 1)
        out += 0.5 * ((log_precision - precision * entries) * self.used).sum()
        first = self.mean[0] ** 2 + np.diag(self.cov)[:size]
        out += 0.5 * (np.log(self.intercept[0]) - self.intercept[0] * first).sum()
        chosen = np.ix_(self.free, self.free)
        return float(out + 0.5 * (np.linalg.slogdet(self.cov[chosen])[1] + len(self.free)))

    def draw(self, rng: np.random.Generator) -> State:
        """Mean, covariance, maps and their scales; entries that take no part come from their prior."""
        chosen = np.ix_(self.free, self.free)
        mean = self.mean.ravel().copy()
        mean[self.free] += np.linalg.cholesky(self.cov[chosen]) @ rng.standard_normal(len(self.free))
        coefficients = mean.reshape(self.mean.shape)
        maps = coefficients[1:].reshape(self.n_sources, self.size, self.size).transpose(0, 2, 1)
        out: State = {
            "user_mean": coefficients[0],
            "user_cov": self.spread.draw(rng),
            "map_scale": self.scale.draw(rng),
        }
        maps = np.where(self.used, maps, self.prior.sd(out) * rng.standard_normal(maps.shape))
        return out | {"map": np.ascontiguousarray(maps)}
