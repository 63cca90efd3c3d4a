"""Model: a prior over latents and one forward pass. Everything else is optional help for inference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.errors import DataError
from bayesrec.likelihoods import Gaussian, Latents, Likelihood

__all__ = ["Batch", "Informants", "Model", "Population", "Schema"]


@dataclass(frozen=True)
class Schema:
    """Sizes and units that a model takes from the data.

    Attributes
    ----------
    n_users, n_items : int
    domains : tuple
        The target last.
    item_domain : Tensor of int, (item,)
    center, scale : ndarray, (domain,)
        Mean and sd of each domain's training ratings: models work on ``(value - center) / scale``.
    user_ids : pandas.Index, optional
        Ids of the users, for models that know something of single users beforehand.
    """

    n_users: int
    n_items: int
    domains: tuple
    item_domain: Tensor
    center: np.ndarray
    scale: np.ndarray
    user_ids: Any = None

    @classmethod
    def of(cls, data: Interactions) -> Schema:
        """Read sizes and units off the training data; a domain without spread gets unit scale."""
        center, scale = np.zeros(len(data.domains)), np.ones(len(data.domains))
        for code in range(len(data.domains)):
            value = data.value[data.domain == code]
            if len(value):
                center[code], scale[code] = value.mean(), value.std() or 1.0
        item_domain = torch.from_numpy(np.array(data.item_domain))
        ids = data.users.decode(np.arange(data.n_users))
        return cls(data.n_users, data.n_items, data.domains, item_domain, center, scale, ids)

    @property
    def n_domains(self) -> int:
        """Number of domains, the target included."""
        return len(self.domains)

    def standardise(self, value: np.ndarray, domain: np.ndarray) -> np.ndarray:
        """Ratings (row,) in sd units of their domain."""
        return (value - self.center[domain]) / self.scale[domain]

    def table(self, data: Interactions) -> Table:
        """Sort the rows of ``data`` for the row updates."""
        return Table.build(
            data.user,
            data.item,
            data.domain,
            self.standardise(data.value, data.domain),
            n_users=data.n_users,
            n_items=data.n_items,
            item_domain=self.item_domain.numpy(),
            n_domains=self.n_domains,
            user_ids=self.user_ids,
        )


@dataclass(frozen=True)
class Batch:
    """Rows to score, as code tensors (row,)."""

    user: Tensor
    item: Tensor
    domain: Tensor


@dataclass(frozen=True)
class Population:
    """What is known of a user or an item without a single rating, draw by draw.

    Attributes
    ----------
    user : dict of Tensor
        Fill-in value of each site with a user axis, that axis left out.
    item : dict of Tensor
        The same for items, with a domain axis in the place of the item axis.
    user_cov : Tensor, (..., domain, R, R)
    item_var : Tensor, (..., domain, R)
        Spread around the fill-in values, to be integrated out.
    """

    user: Latents
    item: Latents
    user_cov: Tensor
    item_var: Tensor


@dataclass(frozen=True)
class Informants:
    """Who informs the users' target factors, as a mixture of prior precisions, for one draw.

    Attributes
    ----------
    probability : ndarray, (component, user)
        Posterior probability of each configuration of gates; one component for models without gates.
    population : ndarray, (user, R, R)
        Precision that comes from the target population.
    source : ndarray, (component, user, R, R)
        Precision that the user's source ratings add.
    relevance : ndarray, (source, user)
        Posterior probability that a source is relevant to the user; NaN without source rows or without a gate.
    """

    probability: np.ndarray
    population: np.ndarray
    source: np.ndarray
    relevance: np.ndarray


@dataclass(frozen=True)
class Model(ABC):
    """A hierarchical model of ratings in several domains. Stable for callers, Provisional for authors.

    Parameters
    ----------
    rank : int
        Number of factors.
    likelihood : Likelihood
        ``Gaussian()`` unless given.
    """

    rank: int = 8
    likelihood: Likelihood = Gaussian()

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, (int, np.integer)) or self.rank < 1:
            raise DataError(f"rank must be a whole number of at least 1, not {self.rank!r}")
        object.__setattr__(self, "rank", int(self.rank))  # a NumPy integer is no JSON
        if not isinstance(self.likelihood, Likelihood):
            raise DataError(f"likelihood must be a likelihood such as Gaussian(), not {self.likelihood!r}")

    @property
    @abstractmethod
    def latent_dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of the model's own sites."""

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of every site, the likelihood's included."""
        return self.latent_dims | self.likelihood.dims

    def view(self, data: Interactions) -> Interactions:
        """Return the part of the data that the model looks at."""
        return data

    def check(self, data: Interactions) -> None:
        """Refuse data that the model cannot use."""
        for code, name in enumerate(data.domains):
            value = data.value[data.domain == code]
            if name == data.target or len(value):
                self.likelihood.check(value, name)

    @abstractmethod
    def prior(self, schema: Schema) -> Latents:
        """Sample all latents (Pyro), likelihood included."""

    @abstractmethod
    def vectors(self, latents: Latents, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors (bias first) of each row's user, in the row's domain, and item: twice (..., row, R)."""

    def score(self, latents: Latents, batch: Batch) -> Tensor:
        """Expected value of each row, (..., row), in sd units; leading draw axes broadcast.

        ``b + c + p . q``: the one forward pass of training, prediction, log score, ranking and diagnostics.
        """
        user, item = self.vectors(latents, batch)
        eta = user[..., 0] + item[..., 0]
        for k in range(1, user.shape[-1]):
            eta = eta + user[..., k] * item[..., k]
        return eta

    @abstractmethod
    def raters(self, latents: Latents) -> Tensor:
        """Vectors of all users as one matrix, (..., rater, R)."""

    @abstractmethod
    def rater_index(self, table: Table) -> np.ndarray:
        """Row of ``raters`` that each rating belongs to, in item order."""

    @abstractmethod
    def population(self, latents: Latents) -> Population:
        """Prior of unknown users and items."""

    @abstractmethod
    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Starting values of a Gibbs chain."""

    @abstractmethod
    def blocks(self, table: Table) -> list[Block]:
        """Conjugate blocks, in the order of a sweep."""

    def leaves(self, table: Table) -> dict[str, np.ndarray]:
        """Members that no rating informs but through their prior, as masks over the leading axes of their sites.

        Given everything else their posterior is their prior, so SVI keeps them out of the ELBO and draws them from it.
        """
        return {"item_vector": ~table.rated} | self.likelihood.leaves(table)

    @abstractmethod
    def squared_errors(self, state: State, table: Table) -> np.ndarray:
        """Sum of squared residuals of each user in each domain, (domain, user)."""

    @abstractmethod
    def prior_precision(self, state: State, table: Table) -> Informants:
        """Who informs each user's target factors, for one draw."""

    def identified(self, latents: Latents) -> dict[str, Any]:
        """Quantities on which R-hat and ESS mean something (they do not on factors, which rotate)."""
        return {name: latents[name] for name in self.likelihood.dims if "user" not in self.likelihood.dims[name]}
