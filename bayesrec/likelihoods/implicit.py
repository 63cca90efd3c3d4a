"""Implicit: what was taken, and as weak zeros all that was not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesrec import conjugate
from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.distributions import half_t
from bayesrec.errors import DataError, UnsupportedMethodError
from bayesrec.likelihoods.base import Fitted, Latents, Likelihood, Units
from bayesrec.likelihoods.predicted import Normals, Predicted
from bayesrec.whole import Everywhere, grams

__all__ = ["Implicit"]

NOISE_SCALE = 1.0  # half-t scale of the noise sd, where the mean square of all cells of a domain is 1
NOTHING = 1e-11  # in the place of a weight of zero, so that weight times response is finite


@dataclass(frozen=True)
class Implicit(Likelihood):
    """Clicks, purchases, plays: a row says that a user took an item, and all else was not taken. Provisional.

    Every cell of a user and an item counts where both have rows in a domain, or with ``absent="zeros"`` where the item has: 1
    with a row, 0 without. A 1 of an item that many took has the response ``click[d] * popularity[i] ** -popularity_exponent``,
    a 0 the response 0, and responses are normal around ``eta`` with a noise for each domain, whose precision a cell's weight
    multiplies. Gram matrices stand for the zeros, so that a sweep costs what the rows cost. Whoever is folded in is unknown
    where they have no rows, not zeros: a cold user's vector comes from the source alone. Predictions are scaled back: a score
    near the share of such users who take the item, an order more than a probability. Gibbs fits it, on the CPU.

    Parameters
    ----------
    popularity_exponent : float
        0 to 1: how far columns are flattened before they are fitted; with 0 what many take fills the factors.
    unobserved : float
        Weight of a cell without a row, above 0 and at most 1; a row has 1. With 1 and exponent 0 it is Bayesian
        probabilistic PCA of the matrix of zeros and ones.
    confidence : bool
        True takes the value of a row, at least 1, as its weight; otherwise values are ignored.
    absent : {"missing", "zeros"}
        What users of the fit without rows in a domain are there: unknown, or people who took nothing, as if they had seen it
        all. With "zeros" leave cold users out of the fit and give their rows to ``fold_in``.

    References
    ----------
    Hu, Koren and Volinsky (2008), `hu2008`; Rendle, Krichene, Zhang and Koren (2022), `rendle2022`; Tipping and Bishop (1999),
    `tipping1999`, in docs/references.bib.

    Examples
    --------
    >>> Implicit().dims
    {'noise': ('domain',), 'click': ('domain',), 'popularity': ('item',)}
    """

    popularity_exponent: float = 0.3
    unobserved: float = 1.0
    confidence: bool = False
    absent: str = "missing"

    def __post_init__(self) -> None:
        for name, least in (("popularity_exponent", 0.0), ("unobserved", 1e-6)):
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not number or not least <= value <= 1.0:
                raise DataError(f"{name} must be a number from {least:g} to 1, not {value!r}")
            object.__setattr__(self, name, float(value))
        if not isinstance(self.confidence, bool):
            raise DataError(f"confidence must be True or False, not {self.confidence!r}; it is about the value column")
        if self.absent not in ("missing", "zeros"):
            raise DataError(f"absent must be 'missing' or 'zeros', not {self.absent!r}")

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of each site; ``click`` and ``popularity`` are known from the data."""
        return {"noise": ("domain",), "click": ("domain",), "popularity": ("item",)}

    @property
    def whole(self) -> bool:
        """Cells without a row count."""
        return True

    @property
    def tempers(self) -> bool:
        """The weight of a table multiplies precisions."""
        return True

    @property
    def fixed(self) -> tuple[str, ...]:
        """Sites that are known from the data."""
        return "click", "popularity"

    def check(self, value: np.ndarray, domain: Any) -> None:
        """Refuse a domain without rows, rows that say that nothing was taken, and weights below 1."""
        if not len(value):
            raise DataError(f"domain {domain!r} has no rows: nothing was taken there that could be learned from.")
        if (value <= 0).any():
            raise DataError(
                f"domain {domain!r} has a row with the value {value[value <= 0][0]:g}. To Implicit a row says that the user took "
                "the item: leave out rows that say otherwise, or fit ratings with Ordinal, Bernoulli, Gaussian or Poisson."
            )
        if self.confidence and (value < 1).any():
            raise DataError(
                f"domain {domain!r} has a row with the value {value[value < 1][0]:g}. Implicit(confidence=True) takes values "
                "as weights, and a row weighs at least 1, such as 1 + log(1 + plays)."
            )

    def units(self, values: list[np.ndarray]) -> list[Units]:
        """Values as they are."""
        return [Units() for _ in values]

    def prior(self, schema: Any) -> Latents:
        """Sample the noise; click and popularity come with the data."""
        out = {"noise": pyro.sample("noise", half_t(NOISE_SCALE, shape=(schema.n_domains,)))}
        for name, n in (("click", schema.n_domains), ("popularity", schema.n_items)):
            out[name] = pyro.sample(name, _FromData(dist.constraints.independent(dist.constraints.real, 1), (), (n,)))
        return out

    def distribution(self, eta: Tensor, latents: Latents, batch: Any) -> dist.TorchDistribution:
        """Scores of cells with a row, whose density is that of a 1 whatever the value."""
        click = self._click(latents, batch)
        return _Scores(eta / click, latents["noise"].index_select(-1, batch.domain) / click)

    def components(self, eta: Tensor, variance: Tensor, latents: Latents, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Mean of a score, its sd and the sd of the noise, scaled back."""
        click = self._click(latents, batch)
        return eta / click, variance.sqrt() / click, latents["noise"].index_select(-1, batch.domain) / click

    def predicted(
        self,
        mean: np.ndarray,
        spread: np.ndarray,
        noise: np.ndarray,
        latents: Latents,
        units: list[Units],
        domain: np.ndarray,
    ) -> Predicted:
        """Return normals around scores, where every row counts as a 1."""
        return _Clicks(mean, np.sqrt(spread**2 + noise**2), np.zeros(len(domain)), np.ones(len(domain)))

    def expected(self, eta: Tensor, latents: Latents, batch: Any, units: list[Units]) -> Tensor:
        """Return the score, scaled back."""
        return eta / self._click(latents, batch)

    def unknown_user(self, latents: Latents) -> Latents:
        """Nothing: users have no site."""
        return {}

    def unknown_item(self, latents: Latents) -> Latents:
        """Nobody took it."""
        return {"popularity": torch.zeros_like(latents["click"])}

    def _click(self, latents: Latents, batch: Any) -> Tensor:
        """Response of a 1 in each row, (..., row)."""
        popularity = latents["popularity"].index_select(-1, batch.item).clamp(min=1.0)
        return latents["click"].index_select(-1, batch.domain) * popularity**-self.popularity_exponent

    def _of_items(self, state: State, table: Table) -> np.ndarray:
        """Response of a 1 for each item."""
        flat = np.maximum(state["popularity"], 1.0) ** -self.popularity_exponent
        return np.asarray(state["click"][table.item_domain] * flat)

    def _weight(self, value: np.ndarray) -> np.ndarray:
        """Weight of each row."""
        return value if self.confidence else np.ones(len(value))

    def present(self, table: Table) -> np.ndarray:
        """Users with rows in a domain, or with ``absent="zeros"`` all who have rows in the fit, bool (domain, user)."""
        seen = table.count > 0
        return seen if self.absent == "missing" else seen | (table.in_fit & seen.any(1, keepdims=True))

    @staticmethod
    def _precision(state: State, table: Table) -> np.ndarray:
        """Noise precision of each domain, to the power of the table."""
        precision = 1.0 / state["noise"] ** 2
        return np.asarray(precision if table.weight is None else precision * table.weight)

    def _rated(self, state: State, table: Table) -> list[np.ndarray]:
        """Items of each domain that have rows, codes."""
        rated = state["popularity"] > 0
        return [np.flatnonzero(rated & (table.item_domain == d)) for d in range(table.n_domains)]

    def response(self, state: State, table: Table) -> np.ndarray:
        """Response of a 1 of each row's item, in user order."""
        return self._of_items(state, table)[table.user_item]

    def working(self, state: State, table: Table, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Response and precision of each row beyond what ``everywhere`` counts of its cell."""
        click = self._of_items(state, table)
        if by == "user":
            value, domain, click = table.user_value, table.user_domain, click[table.user_item]
        else:
            value = table.item_value
            domain, click = table.item_cell // table.n_users, np.repeat(click, np.diff(table.item_ptr))
        full, precision = self._weight(value), self._precision(state, table)[domain]
        beyond = np.maximum(full - self.unobserved, NOTHING)
        return click * full / beyond, precision * beyond

    def everywhere(
        self, state: State, table: Table, vectors: np.ndarray, members: list[np.ndarray] | None = None
    ) -> Everywhere:
        """What a zero in all cells says of a vector, through the Gram matrices of the other side."""
        precision = self.unobserved * self._precision(state, table)
        members = self._rated(state, table) if members is None else members
        alike = self.unobserved == 1.0 and not self.confidence
        return Everywhere(*grams(vectors, members, precision), alike)

    def observed(self, state: State, table: Table, fitted: Fitted) -> tuple[np.ndarray, np.ndarray]:
        """Return what ``working`` does: the rest is the same for everybody."""
        return self.working(state, table, "user")

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Popularity of the items, and the response of a click that makes the mean square of all cells 1."""
        popularity = np.diff(table.item_ptr).astype(np.float64)
        flat = np.maximum(popularity, 1.0) ** (1.0 - 2.0 * self.popularity_exponent) * (popularity > 0)
        cells = np.maximum(self._cells(table, popularity), 1.0)
        squares = np.bincount(table.item_domain, flat, table.n_domains)
        click = np.sqrt(cells / np.where(squares > 0, squares, cells))
        return {"noise": np.ones(table.n_domains), "click": click, "popularity": popularity}

    def _cells(self, table: Table, popularity: np.ndarray) -> np.ndarray:
        """Number of cells of each domain."""
        items = np.bincount(table.item_domain[popularity > 0], minlength=table.n_domains)
        return self.present(table).sum(1) * items.astype(np.float64)

    def squares(self, state: State, table: Table, fitted: Fitted) -> np.ndarray:
        """Weighted sum of squared errors over all cells of each domain, (domain,)."""
        size = state["item_vector"].shape[1]
        users = fitted.vectors(state).reshape(table.n_users, table.n_domains, size)
        zeros, present = np.empty(table.n_domains), self.present(table)
        for d, items in enumerate(self._rated(state, table)):
            p, q = users[present[d], d], state["item_vector"][items]
            p = np.column_stack([p[:, 0], np.ones(len(p)), p[:, 1:]])
            q = np.column_stack([np.ones(len(q)), q])
            zeros[d] = self.unobserved * ((p.T @ p) * (q.T @ q)).sum()
        eta, full = fitted.eta(state), self._weight(table.user_value)
        own = full * (self.response(state, table) - eta) ** 2 - self.unobserved * eta**2
        return zeros + np.bincount(table.user_domain, own, table.n_domains)

    def blocks(self, table: Table, fitted: Fitted) -> list[Block]:
        """Draw the noise given all cells."""

        def noise(state: State, rng: np.random.Generator) -> State:
            squares, cells = self.squares(state, table, fitted), self._cells(table, state["popularity"])
            return {"noise": conjugate.half_t_scale(state["noise"], squares, cells, NOISE_SCALE, rng)}

        return [Block("noise", ("noise",), noise)]

    def precision(self, latents: Latents) -> Tensor:
        """Refuse: SVI would need every cell."""
        raise UnsupportedMethodError("SVI has no way to count cells without a row; fit Implicit with br.Gibbs().")

    def log_density(self, state: State, table: Table, fitted: Fitted) -> float:
        """Log density of the responses of all cells, where users and items have rows."""
        cells, n_rows = self._cells(table, state["popularity"]), table.count.sum(1)
        precision = 1.0 / state["noise"] ** 2
        parts = cells * np.log(precision / (2.0 * np.pi)) - precision * self.squares(state, table, fitted)
        weights = np.log(self._weight(table.user_value)).sum() + ((cells - n_rows) * np.log(self.unobserved)).sum()
        return float(0.5 * (parts.sum() + weights))


class _Scores(dist.Normal):
    """Normal scores; the log density of any row is that of a 1."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at 1."""
        return super().log_prob(torch.ones_like(value))


class _FromData(dist.ImproperUniform):
    """What the data say and no prior does."""

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Refuse."""
        raise UnsupportedMethodError(
            "Implicit takes the popularity of items from the data and has no prior for it; only br.Gibbs() fits it."
        )

    rsample = sample


class _Clicks(Normals):
    """Normal scores; the log density of any row is that of a 1."""

    def log_density(self, value: np.ndarray) -> np.ndarray:
        """Log density of a 1 given each draw."""
        return super().log_density(np.ones(len(value)))
