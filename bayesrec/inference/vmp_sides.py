"""Factors of the vectors of items and users, and of their populations. Internal."""

from __future__ import annotations

import numpy as np

from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.errors import SamplingError
from bayesrec.inference.vmp_rows import accumulate, moments_of, room, second_moments, solve_rows, sum_moments
from bayesrec.inference.vmp_scales import Covariance, Scale, normal_bound
from bayesrec.models import priors
from bayesrec.workers import Workers

__all__ = ["ItemPopulations", "Rows", "UserPopulation"]

ROW = 80  # ratings whose cost is that of a row's own work
LOG_2PI = float(np.log(2.0 * np.pi))
PARTS = 64  # sums over rows are added up by parts, whatever the threads
TOGETHER = 4096  # rows whose covariances are factored at once


class Rows:
    """Independent normals, one for each row of one side of the table.

    Attributes
    ----------
    moments : ndarray, (row, room)
        See :mod:`bayesrec.inference.vmp_rows`.
    sums : ndarray, (row * per, room)
        What the ratings say of each row, in each of ``per`` domains.
    """

    def __init__(self, indptr: np.ndarray, per: int, active: np.ndarray, start: np.ndarray, workers: Workers):
        self.indptr, self.per, self.active, self.workers = indptr, per, active, workers
        self.size = start.shape[1]
        width, total = room(self.size)
        self.log_det = np.zeros(len(active))
        self._root: tuple[np.ndarray, np.ndarray] | None = None
        self.sums = np.zeros((len(indptr) - 1, total))
        self.moments = np.zeros((len(active), width))
        moments_of(start, np.zeros((len(start), self.size, self.size)), self.moments)

    def gather(self, index: np.ndarray, value: np.ndarray, weight: np.ndarray, other: np.ndarray) -> None:
        """Add up what the ratings of each row say, given the moments of the other side."""

        def run(first: int, last: int) -> int:
            accumulate(self.indptr, index, value, weight, other, self.size, self.sums, first, last)
            return 0

        self.workers.share(run, self.indptr, 1)

    def solve(self, weight: np.ndarray, prior: np.ndarray, right: np.ndarray, group: np.ndarray) -> None:
        """Meet the sums, times ``weight`` (row, per), under normal priors by group: precision and linear term."""
        self._root = None

        def run(first: int, last: int) -> int:
            return solve_rows(
                self.sums, self.per, weight, prior, right, group, self.active, self.moments, self.log_det, first, last
            )

        bad = self.workers.share(run, self.indptr[:: self.per], ROW)
        if bad:
            raise SamplingError(f"{bad} rows had a precision matrix that is not positive definite.")

    def entropy(self) -> float:
        """Of the rows that ratings inform."""
        n = self.active.sum() * self.size
        return float(0.5 * (self.log_det[self.active].sum() + n * (1.0 + LOG_2PI)))

    def totals(self, group: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Means (n, R) and second moments (n, R, R), summed over the informed rows of each of ``n`` groups."""
        edges = np.linspace(0, len(self.active), PARTS + 1).astype(int)
        out = np.empty((PARTS, n, self.moments.shape[1]))

        def run(first: int, last: int) -> int:
            sum_moments(self.moments, group, self.active, edges[first : last + 1], out[first:last])
            return 0

        self.workers.share(run, edges, 0)
        return second_moments(out.sum(0), self.size)

    def normals(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means (n, R) and covariances (n, R, R) of some rows."""
        mean, second = second_moments(self.moments[rows], self.size)
        return mean, second - mean[:, :, None] * mean[:, None, :]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Vectors (row, R) of the rows that ratings inform; zeros elsewhere."""
        rows = np.flatnonzero(self.active)
        if self._root is None:
            self._root = np.empty((len(rows), self.size)), np.empty((len(rows), self.size, self.size))
            for first in range(0, len(rows), TOGETHER):
                part = slice(first, first + TOGETHER)
                self._root[0][part], cov = self.normals(rows[part])
                self._root[1][part] = np.linalg.cholesky(cov)
        mean, lower = self._root
        out = np.zeros((len(self.active), self.size))
        out[rows] = mean + (lower @ rng.standard_normal((*mean.shape, 1)))[..., 0]
        return out


class ItemPopulations:
    """Means and scales of the items of each domain."""

    def __init__(self, table: Table, rank: int, state: State):
        self.domain = table.item_domain
        self.n = np.bincount(self.domain[table.rated], minlength=table.n_domains)
        self.prior_precision = priors.mean_scale(rank) ** -2.0
        self.mean, self.var = state["item_mean"].copy(), np.zeros_like(state["item_mean"])
        self.scales = [Scale(priors.item_scale(rank), s**-2.0) for s in state["item_scale"]]
        self.squares = np.zeros_like(self.mean)

    def natural(self) -> tuple[np.ndarray, np.ndarray]:
        """Expected prior precision (domain, R, R) and linear term (domain, R) of an item."""
        precision = np.stack([scale.precision for scale in self.scales])
        return np.stack([np.diag(p) for p in precision]), precision * self.mean

    def update(self, items: Rows) -> None:
        """Meet the moments of the items."""
        totals, second = items.totals(self.domain, len(self.n))
        for d, (n, total) in enumerate(zip(self.n, totals, strict=True)):
            squares = np.diag(second[d])
            for _ in range(2):
                precision = n * self.scales[d].precision + self.prior_precision
                self.var[d], self.mean[d] = 1.0 / precision, self.scales[d].precision * total / precision
                self.squares[d] = squares - 2.0 * self.mean[d] * total + n * (self.mean[d] ** 2 + self.var[d])
                self.scales[d].update(self.squares[d], n)

    def bound(self) -> float:
        """Expected log prior of the items, and all of the populations."""
        out = 0.0
        for d, scale in enumerate(self.scales):
            out += 0.5 * (self.n[d] * (scale.log_precision - LOG_2PI) - scale.precision * self.squares[d]).sum()
            out += scale.bound() + normal_bound(self.mean[d], np.diag(self.var[d]), self.prior_precision)
        return float(out)

    def draw(self, rng: np.random.Generator) -> State:
        """Means and scales (domain, R)."""
        mean = self.mean + np.sqrt(self.var) * rng.standard_normal(self.mean.shape)
        return {"item_mean": mean, "item_scale": np.stack([scale.draw(rng) for scale in self.scales])}


class UserPopulation:
    """Mean and covariance of the users."""

    def __init__(self, active: np.ndarray, rank: int, state: State):
        self.n = int(active.sum())
        self.prior_precision = priors.mean_scale(rank) ** -2.0
        self.mean, self.cov = state["user_mean"].copy(), np.zeros_like(state["user_cov"])
        self.spread = Covariance(priors.user_scale(rank), np.linalg.inv(state["user_cov"]))
        self.scatter = np.zeros_like(self.cov)

    def natural(self) -> tuple[np.ndarray, np.ndarray]:
        """Expected prior precision (1, R, R) and linear term (1, R) of a user."""
        return self.spread.precision[None], (self.spread.precision @ self.mean)[None]

    def update(self, users: Rows) -> None:
        """Meet the moments of the users."""
        (total,), (squares,) = users.totals(np.zeros(len(users.active), dtype=np.int64), 1)
        for _ in range(2):
            self.cov = np.linalg.inv(self.n * self.spread.precision + np.diag(self.prior_precision))
            self.mean = self.cov @ (self.spread.precision @ total)
            cross = np.outer(self.mean, total)
            self.scatter = squares - cross - cross.T + self.n * (np.outer(self.mean, self.mean) + self.cov)
            self.spread.update(self.scatter, self.n)

    def bound(self) -> float:
        """Expected log prior of the users, and all of the population."""
        spread = self.spread
        out = 0.5 * (self.n * (spread.log_det - len(self.mean) * LOG_2PI) - (spread.precision * self.scatter).sum())
        return float(out + spread.bound() + normal_bound(self.mean, self.cov, self.prior_precision))

    def draw(self, rng: np.random.Generator) -> State:
        """Mean (R,) and covariance (R, R)."""
        mean = self.mean + np.linalg.cholesky(self.cov) @ rng.standard_normal(len(self.mean))
        return {"user_mean": mean, "user_cov": self.spread.draw(rng)}
