"""Model: a prior over latents and one forward pass. Everything else is optional help for inference."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesrec import conjugate, whole
from bayesrec.blocks import Block, State, remembered
from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.data.features import described, matrices
from bayesrec.errors import DataError, UnsupportedMethodError
from bayesrec.likelihoods import ByDomain, Fitted, Gaussian, Latents, Likelihood, Units

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
    levels : tuple of ndarray
        The values that each domain's ratings can take, where the likelihood knows levels: models work on their numbers.
    user_ids : pandas.Index, optional
        Ids of the users, for models that know something of single users beforehand.
    user_x, item_x : ndarray, (user, feature) and (item, feature), optional
        Features, for models that use them: mean 0 and sd 1 in each domain.
    user_moment, item_moment : ndarray, (feature, feature) and (domain, feature, feature), optional
        Their second moments over the members of the fit.
    newcomers : int
        How many users, the last ones, were folded in after the fit.
    """

    n_users: int
    n_items: int
    domains: tuple
    item_domain: Tensor
    center: np.ndarray
    scale: np.ndarray
    user_ids: Any = None
    levels: tuple = ()
    user_x: np.ndarray | None = None
    item_x: np.ndarray | None = None
    user_moment: np.ndarray | None = None
    item_moment: np.ndarray | None = None
    newcomers: int = 0

    @classmethod
    def of(cls, data: Interactions, likelihood: Likelihood | None = None) -> Schema:
        """Read sizes and units off the training data, as the likelihood (Gaussian) has it."""
        likelihood = likelihood or Gaussian()
        # sorted: sums are then the same to the last bit, whatever the order of the rows
        units = likelihood.units([np.sort(data.value[data.domain == code]) for code in range(len(data.domains))])
        center, scale = np.array([one.center for one in units]), np.array([one.scale for one in units])
        levels = tuple(one.levels for one in units)
        item_domain = torch.from_numpy(np.array(data.item_domain))
        ids = data.users.decode(np.arange(data.n_users))
        of_features: dict[str, Any] = matrices(data)
        return cls(
            data.n_users, data.n_items, data.domains, item_domain, center, scale, ids, levels, **of_features
        )  # fmt: skip

    @property
    def n_domains(self) -> int:
        """Number of domains, the target included."""
        return len(self.domains)

    @property
    def units(self) -> list[Units]:
        """Units of each domain."""
        levels = self.levels or (None,) * self.n_domains
        return [Units(float(c), float(s), k) for c, s, k in zip(self.center, self.scale, levels, strict=True)]

    def standardise(self, value: np.ndarray, domain: np.ndarray) -> np.ndarray:
        """Ratings (row,) as the model sees them: in sd units of their domain, or the number of their level."""
        if all(one.levels is None for one in self.units):
            return (value - self.center[domain]) / self.scale[domain]
        out = np.empty(len(value))
        for code, one in enumerate(self.units):
            out[domain == code] = one.encode(value[domain == code])
        return out

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
            user_x=self.user_x,
            item_x=self.item_x,
            newcomers=self.newcomers,
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
    item_cov : Tensor, (..., domain, R, R)
        Spread around the fill-in values, to be integrated out.
    """

    user: Latents
    item: Latents
    user_cov: Tensor
    item_cov: Tensor


@dataclass(frozen=True)
class Informants:
    """Who informs the users' target factors, as a mixture of prior precisions, for one draw.

    Attributes
    ----------
    probability : ndarray, (component, user)
        Posterior probability of each configuration of gates; one component for models without gates. In the first all
        sources are used.
    before : ndarray, (component, user)
        The same before the user's target ratings.
    population : ndarray, (user, R, R)
        Precision that comes from the target population.
    source : ndarray, (component, user, R, R)
        Precision that the user's source ratings add.
    population_mean : ndarray, (user, R)
        Prior mean of the user's target vector without the source.
    mean : ndarray, (component, user, R)
        Prior mean with the user's source ratings; that without where they add nothing.
    relevance : ndarray, (source, user)
        Posterior probability that a source is relevant to the user; NaN without source rows or without a gate.
    """

    probability: np.ndarray
    before: np.ndarray
    population: np.ndarray
    source: np.ndarray
    population_mean: np.ndarray
    mean: np.ndarray
    relevance: np.ndarray


@dataclass(frozen=True)
class Model(ABC):
    """A hierarchical model of ratings in several domains. Stable for callers, Provisional for authors.

    Parameters
    ----------
    rank : int
        Number of factors.
    likelihood : Likelihood or dict
        ``Gaussian()`` unless given; ``{domain: likelihood}`` gives each domain its own.
    features : bool
        Whether the prior means of users and items depend on ``user_features`` and ``item_features`` of the data.
    activity : bool
        Whether whoever has not rated in the target is taken for the user of a random rating there, not for a random person:
        people who rate much are met more often, and rate otherwise. See docs/models/pmf.md.
    """

    rank: int = 8
    likelihood: Likelihood = Gaussian()
    features: bool = field(default=False, kw_only=True)
    activity: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, (int, np.integer)) or self.rank < 1:
            raise DataError(f"rank must be a whole number of at least 1, not {self.rank!r}")
        object.__setattr__(self, "rank", int(self.rank))  # a NumPy integer is no JSON
        if isinstance(self.likelihood, Mapping):
            object.__setattr__(self, "likelihood", ByDomain(tuple(self.likelihood.items())))
        if not isinstance(self.likelihood, Likelihood):
            raise DataError(f"likelihood must be a likelihood such as Gaussian(), not {self.likelihood!r}")
        if not isinstance(self.features, bool):
            raise DataError(f"features must be True or False, not {self.features!r}; the features come with the data")
        if not isinstance(self.activity, bool):
            raise DataError(f"activity must be True or False, not {self.activity!r}")

    @property
    @abstractmethod
    def latent_dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of the model's own sites."""

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of every site, the likelihood's included, and with ``activity`` of what new users are moved by."""
        shift = {"user_shift": ("latent_component",)} if self.activity else {}
        return self.latent_dims | self.likelihood.dims | shift

    @property
    def of_people(self) -> Model:
        """The model without ``activity``: what is sampled."""
        return replace(self, activity=False) if self.activity else self

    def new_user_mean(self, latents: Latents) -> Tensor:
        """Mean of the target vector of somebody unknown, (..., R)."""
        return latents["user_mean"] + latents["user_shift"] if self.activity else latents["user_mean"]

    def view(self, data: Interactions) -> Interactions:
        """Return the part of the data that the model looks at."""
        return self.with_features(data)

    def bound(self, view: Interactions, data: Interactions) -> Model:
        """The model with a likelihood per domain in the order of the domains of ``view``, its part of ``data``."""
        if not isinstance(self.likelihood, ByDomain):
            return self
        return replace(self, likelihood=self.likelihood.bound(view.domains, data.domains))

    def with_features(self, data: Interactions) -> Interactions:
        """Return the data with features as numbers and all whom they describe, if the model uses features."""
        return described(data) if self.features else data

    @property
    def common(self) -> dict[str, Any]:
        """Arguments that every model takes, as they are here."""
        names = ("rank", "likelihood", "features", "activity")
        return {name: getattr(self, name) for name in names}

    @property
    def pools(self) -> bool:
        """Whether source ratings are ratings of the target vector, so that users who have some are known."""
        return False

    def check(self, data: Interactions) -> None:
        """Refuse data that the model cannot use."""
        for code, name in enumerate(data.domains):
            value = data.value[data.domain == code]
            if name == data.target or len(value):
                self.likelihood.check(value, name)
        if self.likelihood.whole and self.features:
            raise DataError(
                f"{self.likelihood!r} counts cells without a row, which features=True cannot do so far; leave the features out."
            )

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
    def population(self, latents: Latents, schema: Schema | None) -> Population:
        """Prior of unknown users and items, whose features are unknown too; without a schema the spreads lack them."""

    @abstractmethod
    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Starting values of a Gibbs chain."""

    @abstractmethod
    def blocks(self, table: Table) -> list[Block]:
        """Conjugate blocks, in the order of a sweep; those that are not ``swept`` are for ``fold_in``."""

    def exponents(self, n_domains: int) -> np.ndarray | None:
        """Power to which the density of each domain's ratings is raised, (domain,); None where all are 1."""
        return None

    def leaves(self, table: Table) -> dict[str, np.ndarray]:
        """Members that no rating informs but through their prior, as masks over the leading axes of their sites.

        Given everything else their posterior is their prior, so SVI keeps them out of the ELBO and draws them from it.
        """
        return {"item_vector": ~table.rated} | self.likelihood.leaves(table)

    def started(self, state: State, table: Table, rng: np.random.Generator) -> State:
        """The starting values, where cells without a rating count everywhere with vectors from an SVD of all cells."""
        if not all(self.likelihood.of(d).whole for d in range(table.n_domains)):
            return state
        users, items = whole.spectral(
            table, self.likelihood.response(state, table), self.likelihood.present(table), self.rank, rng
        )
        out = state | {"user_vector": users, "item_vector": items}
        own = [name for name in ("source_vector", "phi_used") if name in state]
        return out | {name: np.tile(users, (table.n_domains - 1, 1, 1)) for name in own}

    @abstractmethod
    def cell_vectors(self, state: State, table: Table) -> np.ndarray:
        """Vectors of all users in all domains in the order of ``table.user_ptr``, (user * domain, R)."""

    def fitted(self, table: Table) -> Fitted:
        """What the vectors of a state say of the ratings of a table: one for all who ask, so that nothing is computed twice."""
        known = table.fitted
        if id(self) not in known:
            known[id(self)] = self, self._fitted(table)  # the model goes along: its number stays its own
        return known[id(self)][1]

    def _fitted(self, table: Table) -> Fitted:
        sites = (*(name for name in self.latent_dims if name.endswith("_vector")), "response")
        item_index, workers = table.user_item, table.workers
        table = weakref.proxy(table)  # it remembers what is made here: a circle would outlive the fit

        def errors(state: State) -> np.ndarray:
            out = conjugate.row_squared_errors(
                table.user_ptr, item_index, self.likelihood.response(state, table), state["item_vector"],
                self.cell_vectors(state, table), workers,
            )  # fmt: skip
            return out.reshape(table.n_users, table.n_domains).T

        def eta(state: State) -> np.ndarray:
            rows = self.cell_vectors(state, table)
            return conjugate.row_scores(table.user_ptr, item_index, state["item_vector"], rows, workers)

        return Fitted(
            remembered(errors, sites), remembered(eta, sites[:-1]), lambda state: self.cell_vectors(state, table)
        )

    def log_density(self, state: State, table: Table) -> float:
        """Log density of the ratings of a table."""
        return self.likelihood.log_density(state, table, self.fitted(table))

    def observed(self, state: State, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """A normal response and its precision (rating,) that say what a rating says, in user order."""
        return self.likelihood.observed(state, table, self.fitted(table))

    def told(self, state: State, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """Precision (user, domain, R, R) and linear term (user, domain, R) that a user's ratings of each domain come down to."""
        value, weight = self.observed(state, table)
        gram, linear = conjugate.row_grams(table.user_ptr, table.user_item, value, weight, state["item_vector"])
        shape = table.n_users, table.n_domains, gram.shape[-1]
        gram, linear = gram.reshape(*shape, shape[-1]), linear.reshape(shape)
        whole.add(
            self.likelihood.everywhere(state, table, state["item_vector"]),
            self.likelihood.present(table).T,
            gram,
            linear,
        )
        return gram, linear

    @abstractmethod
    def prior_precision(self, state: State, table: Table) -> Informants:
        """Who informs each user's target factors, for one draw."""

    def source_precision(self, state: State, table: Table) -> np.ndarray:
        """The part of each source in ``prior_precision(...).source``, (source, component, user, R, R)."""
        if table.n_domains > 2:
            raise UnsupportedMethodError(
                f"{type(self).__name__} does not say what each of several sources adds; leave by_source out."
            )
        return self.prior_precision(state, table).source[None][: table.n_domains - 1]

    def identified(self, latents: Latents) -> dict[str, Any]:
        """Quantities on which R-hat and ESS mean something (they do not on factors, which rotate)."""
        free = {name: axes for name, axes in self.likelihood.dims.items() if name not in self.likelihood.fixed}
        return {name: latents[name] for name, axes in free.items() if "user" not in axes}
