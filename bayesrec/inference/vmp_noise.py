"""Factors of a variational approximation for the noise: of domains, and of users within them. Internal.

With ``level`` integrated out, the log precisions ``x`` (domain,) of a user are jointly normal beforehand. Their factors are
independent over domains, each the optimal one, whatever its shape: its moments come from Gauss-Hermite quadrature around its
mode. The level is normal given ``x``. So a pass cannot lower the ELBO, but for the error of quadrature.
"""

from __future__ import annotations

import numpy as np

from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.inference.vmp_scales import Scale
from bayesrec.jit import compiled
from bayesrec.likelihoods.noise import BOUND, LEVEL_SCALE, NOISE_SCALE

__all__ = ["Noise"]

NODES = 15
ROUNDS = 3  # over the domains of a user who has ratings in several


@compiled
def _log_factor(x, count, squares, precision, pull, bound):
    bent = bound * np.tanh(x / bound)
    return 0.5 * (count * bent - squares * np.exp(bent)) - 0.5 * precision * x * x + pull * x


@compiled
def _mode(x, count, squares, precision, pull, bound):
    """Mode by Newton's method with halved steps, and the curvature there, at least the prior's."""
    here = _log_factor(x, count, squares, precision, pull, bound)
    curvature = precision
    for _ in range(50):
        t = np.tanh(x / bound)
        slope, bend = 1.0 - t * t, -2.0 * t * (1.0 - t * t) / bound
        told = squares * np.exp(bound * t)
        first = 0.5 * (count - told) * slope - precision * x + pull
        curvature = max(0.5 * told * slope * slope - 0.5 * (count - told) * bend + precision, precision)
        step = first / curvature
        new = x + step
        value = _log_factor(new, count, squares, precision, pull, bound)
        for _ in range(30):
            if value >= here:
                break
            step *= 0.5
            new = x + step
            value = _log_factor(new, count, squares, precision, pull, bound)
        if not value >= here:
            break
        x, here = new, value
        if abs(step) < 1e-7:
            break
    return x, curvature


@compiled
def user_factors(
    count, squares, within, between, nodes, weights, bound, rounds, mean, var, bent, factor, entropy, first, last
):
    """Update the factors of users first..last: moments of ``x``, of its bent value and of exp(bent), entropy; (domain, user)."""
    logs = np.empty(len(nodes))
    for u in range(first, last):
        seen = 0
        for d in range(count.shape[0]):
            seen += count[d, u] > 0.0
        if seen == 0:
            continue
        share = within / (between + seen * within)  # of the sum of x in the mean of the level
        own = within - within * share
        for _ in range(rounds if seen > 1 else 1):
            for d in range(count.shape[0]):
                if not count[d, u] > 0.0:
                    continue
                others = 0.0
                for other in range(count.shape[0]):
                    if other != d and count[other, u] > 0.0:
                        others += mean[other, u]
                pull = within * share * others
                n, s = count[d, u], squares[d, u]
                mode, curvature = _mode(mean[d, u], n, s, own, pull, bound)
                width = np.sqrt(2.0 / curvature)
                top = -np.inf
                for k in range(len(nodes)):
                    logs[k] = _log_factor(mode + width * nodes[k], n, s, own, pull, bound) + nodes[k] ** 2
                    top = max(top, logs[k])
                total, one, two, b, e, f = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                for k in range(len(nodes)):
                    x = mode + width * nodes[k]
                    w = weights[k] * np.exp(logs[k] - top)
                    value = bound * np.tanh(x / bound)
                    total += w
                    one += w * (x - mode)
                    two += w * (x - mode) ** 2
                    b += w * value
                    e += w * np.exp(value)
                    f += w * (logs[k] - nodes[k] ** 2)
                one /= total
                mean[d, u] = mode + one
                var[d, u] = two / total - one * one
                bent[d, u] = b / total
                factor[d, u] = e / total
                entropy[d, u] = np.log(total) + top + np.log(width) - f / total


class Noise:
    """Factors of a domain's noise, users' levels and log precisions, and their spreads."""

    def __init__(self, table: Table, state: State, user_noise: bool):
        self.table, self.by_user = table, user_noise
        self.count = table.powered(table.count).astype(float)
        self.n_rows = self.count.sum(1)
        self.base = Scale(np.full(table.n_domains, NOISE_SCALE), state["noise"] ** -2.0)
        shape = self.count.shape
        self.bent, self.factor = np.zeros(shape), np.ones(shape)
        if not user_noise:
            return
        self.seen = table.count > 0
        self.per_user = self.seen.sum(0)
        self.nodes, self.weights = np.polynomial.hermite.hermgauss(NODES)
        self.mean, self.var, self.entropy = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.within, self.between = (
            Scale(np.array(LEVEL_SCALE), np.asarray(state[name]) ** -2.0) for name in ("level_within", "level_between")
        )
        x = state["user_log_precision"]
        self.mean[:] = x
        self.bent[:] = BOUND * np.tanh(x / BOUND)
        self.factor[:] = np.exp(self.bent)

    def weight(self) -> np.ndarray:
        """Expected precision of each user's ratings in each domain, powers of the density included, (domain, user)."""
        return self.table.powered(self.base.precision[:, None] * self.factor)

    def update(self, squares: np.ndarray) -> None:
        """Meet the expected squared errors (domain, user): users, their spreads, then domains."""
        squares = self.table.powered(squares)
        if self.by_user:
            self._update_users(squares * self.base.precision[:, None])
        self.base.update((squares * self.factor).sum(1), self.n_rows)
        self.squares = squares

    def _update_users(self, squares: np.ndarray) -> None:
        within, between = float(self.within.precision), float(self.between.precision)

        def run(first: int, last: int) -> int:
            user_factors(
                self.count, squares, within, between, self.nodes, self.weights, BOUND, ROUNDS, self.mean, self.var,
                self.bent, self.factor, self.entropy, first, last,
            )  # fmt: skip
            return 0

        self.table.workers.share(run, np.arange(self.table.n_users + 1), 0)
        n = self.per_user
        self.share, self.level_var = within / (between + n * within), 1.0 / (between + n * within)
        mean, var = np.where(self.seen, self.mean, 0.0), np.where(self.seen, self.var, 0.0)
        total = mean.sum(0) ** 2 + var.sum(0)
        apart = (mean**2 + var).sum(0) + self.share * (n * self.share - 2.0) * total + n * self.level_var
        level = self.share**2 * total + self.level_var
        rated = n > 0
        self.apart, self.level = float(apart[rated].sum()), float(level[rated].sum())
        self.within.update(self.apart, n.sum())
        self.between.update(self.level, rated.sum())

    def expected_density(self) -> float:
        """Expected log density of the ratings, given their squared errors at the last update."""
        base = self.base
        out = 0.5 * (self.count * (base.log_precision[:, None] + self.bent - np.log(2.0 * np.pi))).sum()
        return float(out - 0.5 * (base.precision[:, None] * self.factor * self.squares).sum())

    def bound(self) -> float:
        """Expected log density of the ratings, and all that the noise adds to the ELBO."""
        out = self.expected_density() + self.base.bound()
        if not self.by_user:
            return float(out)
        rated = self.per_user > 0
        log_2pi, n = np.log(2.0 * np.pi), int(self.per_user.sum())
        out += 0.5 * (n * (self.within.log_precision - log_2pi) - self.within.precision * self.apart)
        out += 0.5 * (rated.sum() * (self.between.log_precision - log_2pi) - self.between.precision * self.level)
        out += self.entropy[self.seen].sum() + 0.5 * (1.0 + log_2pi + np.log(self.level_var[rated])).sum()
        return float(out + self.within.bound() + self.between.bound())

    def draw(self, rng: np.random.Generator) -> State:
        """Sites of the likelihood; what no rating informs comes from its prior."""
        out: State = {"noise": self.base.draw(rng)}
        if not self.by_user:
            return out
        out |= {"level_within": self.within.draw(rng), "level_between": self.between.draw(rng)}
        x = self.mean + np.sqrt(self.var) * rng.standard_normal(self.mean.shape)
        total = np.where(self.seen, x, 0.0).sum(0)
        spread = np.where(self.per_user > 0, np.sqrt(self.level_var), out["level_between"])
        level = self.share * total + spread * rng.standard_normal(len(total))
        leaf = level + out["level_within"] * rng.standard_normal(x.shape)
        return out | {"user_level": level, "user_log_precision": np.where(self.seen, x, leaf)}
