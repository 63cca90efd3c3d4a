"""Poisson: counts whose rates vary more than the model explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesrec import conjugate, counts
from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table, key_of
from bayesrec.errors import DataError
from bayesrec.likelihoods.base import Fitted, Latents, Units
from bayesrec.likelihoods.lognormal import PoissonLogNormal
from bayesrec.likelihoods.noise import NoisyResponse, in_chunks
from bayesrec.likelihoods.predicted import Counts, Predicted

__all__ = ["Poisson"]

INTERCEPT_SCALE = 5.0  # prior sd of the intercepts: rates from exp(-10) to exp(10)
LOCATION_SCALE = 0.5  # prior sd of the mean of the items' biases


@dataclass(frozen=True)
class Poisson(NoisyResponse):
    """Counts, such as plays or hours: Poisson with a log-normal rate. Provisional.

    ``y ~ Poisson(exp(z))`` with ``z = intercept[d] + eta + noise[d] e``, ``e ~ N(0, 1)``. The noise makes counts vary more than
    Poisson counts do, as those of people do; where they do not, it is learned to be small. Predictions are of counts: the mean
    is ``exp(intercept + eta + noise^2 / 2)`` given a draw, and intervals have whole numbers as ends.

    Parameters
    ----------
    user_noise : bool
        True gives every user a noise level of their own. Counts say little of it, and the mean grows with its square.

    References
    ----------
    The Poisson log-normal law: `aitchison1989`. Rejection from tangents: `devroye1986`. Two ways to draw the intercept,
    interwoven: `yu2011`.

    Examples
    --------
    >>> Poisson().dims
    {'intercept': ('domain',), 'noise': ('domain',)}
    """

    user_noise: bool = False
    learned: ClassVar[bool] = True

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of each site."""
        return {"intercept": ("domain",)} | super().dims

    def check(self, value: np.ndarray, domain: Any) -> None:
        """Refuse what is no count, and a domain whose counts are all alike."""
        wrong = _no_counts(value)
        if wrong.any():
            raise DataError(
                f"domain {domain!r} has a value {value[wrong][0]:g}; Poisson needs counts, whole numbers from 0. Round it, or "
                "use Gaussian or StudentT for real values."
            )
        if len(value) < 2:
            raise DataError(
                f"domain {domain!r} has {len(value)} count(s); Poisson needs at least two to learn their spread"
            )
        if np.ptp(value) == 0:
            more = "says nothing of what is taken more than what" if value[0] == 0 else "learns nothing"
            raise DataError(
                f"all {len(value)} counts of domain {domain!r} are {value[0]:g}; a Poisson on them {more}. Clicks need "
                "Implicit."
            )

    def units(self, values: list[np.ndarray]) -> list[Units]:
        """Counts are what they are."""
        return [Units() for _ in values]

    def prior(self, schema: Any) -> Latents:
        """Sample intercepts, then noise and, per user, level and log precisions."""
        law = dist.Normal(torch.zeros(schema.n_domains), INTERCEPT_SCALE).to_event(1)
        return {"intercept": pyro.sample("intercept", law)} | super().prior(schema)

    def distribution(self, eta: Tensor, latents: Latents, batch: Any) -> dist.TorchDistribution:
        """Return the distribution of counts over the rows of the batch."""
        loc = eta + latents["intercept"].index_select(-1, batch.domain)
        return PoissonLogNormal(loc, self.scale(latents, batch).expand(loc.shape))

    def components(self, eta: Tensor, variance: Tensor, latents: Latents, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, its sd and the noise of logarithmic rates."""
        return super().components(eta + latents["intercept"].index_select(-1, batch.domain), variance, latents, batch)

    def predicted(
        self,
        mean: np.ndarray,
        spread: np.ndarray,
        noise: np.ndarray,
        latents: Latents,
        units: list[Units],
        domain: np.ndarray,
    ) -> Predicted:
        """Return distributions of counts."""
        return Counts(mean, np.hypot(spread, noise))

    def expected(self, eta: Tensor, latents: Latents, batch: Any, units: list[Units]) -> Tensor:
        """Return the expected count."""
        loc = eta + latents["intercept"].index_select(-1, batch.domain)
        return (loc + 0.5 * self.scale(latents, batch).square()).exp()

    def observed(self, state: State, table: Table, fitted: Fitted) -> tuple[np.ndarray, np.ndarray]:
        """Return the response that has a count's score at ``eta``, and the observed information there."""
        _, score, weight = self._evidence(state, table, fitted)
        return fitted.eta(state) + score / weight, weight

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Intercepts at the logarithm of the mean count; responses at that of the counts."""
        wrong = _no_counts(table.user_value)
        if wrong.any():
            raise DataError(f"the value {table.user_value[wrong][0]:g} is no count: no whole number from 0")
        total = np.bincount(table.user_domain, table.user_value, table.n_domains)
        intercept = np.log((total + 0.5) / (table.count.sum(1) + 0.5))
        response = np.log(table.user_value + 0.5) - intercept[table.user_domain]
        return {"intercept": intercept, "response": response} | super().start(table, rng)

    def blocks(self, table: Table, fitted: Fitted) -> list[Block]:
        """Intercepts with and without the items' biases; noise; responses."""
        domain, n = table.user_domain, table.n_domains
        total = np.bincount(domain, table.user_value, n)

        def responses(state: State, rng: np.random.Generator) -> State:
            key, out = key_of(rng), np.empty(len(table.user_value))
            given = self._given(state, table, fitted)
            in_chunks(table, lambda first, last: counts.draw_responses(*given, key, out, first, last))
            return {"response": out}

        def intercepts(state: State, rng: np.random.Generator) -> State:
            # given the responses, which then move all rates of a domain: as good as a gamma draw where counts are many
            old, mass = state["intercept"], np.bincount(domain, np.exp(state["response"]), n)
            chance, intercept = np.log(rng.random(n)), old.copy()
            for d in np.flatnonzero(total > 0):
                new = np.log(rng.gamma(total[d])) - np.log(mass[d])
                if chance[d] < 0.5 * (old[d] ** 2 - new**2) / INTERCEPT_SCALE**2:
                    intercept[d] = new
            # given the rates: a normal mean, good where counts say little of each rate
            rate = state["response"] + intercept[domain]
            precision = conjugate.at_cells(self.cell_precision(state, table), table.user_cell, table.workers)
            total_precision = np.bincount(domain, precision, n) + 1.0 / INTERCEPT_SCALE**2
            mean = np.bincount(domain, precision * (rate - fitted.eta(state)), n) / total_precision
            intercept = mean + rng.standard_normal(n) / np.sqrt(total_precision)
            return {"intercept": intercept, "response": rate - intercept[domain]}

        def location(state: State, rng: np.random.Generator) -> State:
            # Intercept and the biases of all items of a domain may move against each other: counts cannot tell, the two priors
            # can.
            old, mean, item = state["intercept"], state["item_mean"], state["item_vector"]
            precision = 1.0 / INTERCEPT_SCALE**2 + 1.0 / LOCATION_SCALE**2
            linear = old / INTERCEPT_SCALE**2 - mean[:, 0] / LOCATION_SCALE**2
            shift = linear / precision + rng.standard_normal(n) / np.sqrt(precision)
            bias = np.zeros((n, item.shape[1]))
            bias[:, 0] = shift
            return {
                "intercept": old - shift,
                "item_mean": mean + bias,
                "item_vector": item + bias[table.item_domain],
                "response": state["response"] + shift[domain],
            }

        return [
            Block("location", ("intercept", "item_mean", "item_vector", "response"), location),
            Block("intercept", ("intercept", "response"), intercepts),
            *super().blocks(table, fitted),
            Block("response", ("response",), responses, local=True),
        ]

    def _given(self, state: State, table: Table, fitted: Fitted) -> tuple[Any, ...]:
        """What compiled loops over the counts look at."""
        precision = self.cell_precision(state, table).ravel()
        intercept = np.asarray(state["intercept"], dtype=np.float64)
        return table.user_value, table.user_cell, table.n_users, fitted.eta(state), precision, intercept

    def _evidence(self, state: State, table: Table, fitted: Fitted) -> np.ndarray:
        """Log probability of each count, its score and its information at ``eta``, (3, rating)."""
        given, out = self._given(state, table, fitted), np.empty((3, len(table.user_value)))
        in_chunks(table, lambda first, last: counts.evidence(*given, out, first, last))
        return out

    def log_density(self, state: State, table: Table, fitted: Fitted) -> float:
        """Log probability of all counts of the table."""
        return float(self._evidence(state, table, fitted)[0].sum())


def _no_counts(value: np.ndarray) -> np.ndarray:
    return (value < 0) | (value != np.floor(value))
