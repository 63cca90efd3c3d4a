"""What a likelihood has to offer. Provisional.

Every likelihood has a *response* behind each rating, normal around ``eta``: the rating itself, or a latent variable of which
the rating is a measurement (a level between two cut points, a count). Gibbs draws latent responses, and the blocks of a model
see normal data whatever the likelihood; predictions are normal mixtures of the response, measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyro.distributions as dist
from torch import Tensor

from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.errors import DataError
from bayesrec.likelihoods.predicted import Predicted
from bayesrec.whole import Everywhere

__all__ = ["Fitted", "Latents", "Likelihood", "Units", "shown"]

Latents = dict[str, Any]


@dataclass(frozen=True)
class Units:
    """In which units a model sees the ratings of one domain.

    Attributes
    ----------
    center, scale : float
        The response is ``(value - center) / scale`` where a likelihood measures on the scale of the ratings.
    levels : ndarray, (level,), optional
        The values that ratings can take, ascending, where they are codes of levels to the likelihood.
    """

    center: float = 0.0
    scale: float = 1.0
    levels: np.ndarray | None = None

    def encode(self, value: np.ndarray) -> np.ndarray:
        """Ratings (row,) as the model sees them: in its units, or the number of their level, from 0."""
        if self.levels is None:
            return (value - self.center) / self.scale
        code = np.searchsorted(self.levels, value).clip(max=len(self.levels) - 1)
        wrong = self.levels[code] != value
        if wrong.any():
            raise DataError(f"the rating {value[wrong][0]:g} is none of the levels {shown(self.levels)}")
        return code.astype(float)

    def decode(self, value: np.ndarray) -> np.ndarray:
        """Ratings from what ``encode`` makes of them."""
        return value * self.scale + self.center if self.levels is None else self.levels[value.astype(int)]


def shown(levels: np.ndarray) -> str:
    """Levels as a message names them."""
    some = [f"{level:g}" for level in levels]
    return ", ".join(some if len(some) <= 12 else [*some[:5], "...", *some[-5:]])


@dataclass(frozen=True)
class Fitted:
    """What a model's vectors say of the ratings of a table.

    Attributes
    ----------
    errors : callable
        ``errors(state)``: sum of squared differences of responses and ``eta``, (domain, user).
    eta : callable
        ``eta(state)``: expected response of each rating, (rating,), in user order.
    vectors : callable
        ``vectors(state)``: of all users in all domains, in the order of ``table.user_ptr``, (user * domain, R).
    """

    errors: Callable[[State], np.ndarray]
    eta: Callable[[State], np.ndarray]
    vectors: Callable[[State], np.ndarray]


class Likelihood(ABC):
    """How ratings come about given their expected response ``eta``. Provisional.

    ``units`` and ``check`` look at data; ``prior`` and ``distribution`` are the likelihood as Pyro has it;
    ``predicted`` is what users see; ``start``, ``blocks``, ``response`` and ``working`` serve Gibbs.
    """

    normal: ClassVar[bool] = False
    """Whether ratings are normal given the factors, with the noise of ``precision``: items can be integrated out."""

    @property
    def svi(self) -> bool:
        """Whether SVI can fit it: every rating has a density of its own."""
        return not self.whole

    @property
    @abstractmethod
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of each site."""

    @property
    def whole(self) -> bool:
        """Whether cells without a rating count; see ``everywhere``."""
        return False

    @property
    def tempers(self) -> bool:
        """Whether its updates know powers of its density, the ``weight`` of a table."""
        return self.normal

    @property
    def fixed(self) -> tuple[str, ...]:
        """Sites that are known from the data."""
        return ()

    def of(self, domain: int) -> Likelihood:
        """The likelihood of a domain (code)."""
        return self

    @abstractmethod
    def check(self, value: np.ndarray, domain: Any) -> None:
        """Refuse values of a domain that this likelihood cannot have produced."""

    @abstractmethod
    def units(self, values: list[np.ndarray]) -> list[Units]:
        """Units of each domain, whose training ratings are given; a domain may have none."""

    @abstractmethod
    def prior(self, schema: Any) -> Latents:
        """Sample the latents of the likelihood (Pyro)."""

    @abstractmethod
    def distribution(self, eta: Tensor, latents: Latents, batch: Any) -> dist.TorchDistribution:
        """Distribution of encoded ratings with expected response ``eta`` (..., row)."""

    @abstractmethod
    def components(self, eta: Tensor, variance: Tensor, latents: Latents, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Mean of a new response, sd of that mean and scale of the noise around it, draw by draw (..., row).

        The sd is that of unknown users and items, whose ``variance`` of ``eta`` is given; the noise of most likelihoods is
        normal, and the two add up to one normal.
        """

    @abstractmethod
    def predicted(
        self,
        mean: np.ndarray,
        spread: np.ndarray,
        noise: np.ndarray,
        latents: Latents,
        units: list[Units],
        domain: np.ndarray,
    ) -> Predicted:
        """Predictive distributions of ratings from those of responses.

        Parameters
        ----------
        mean, spread, noise : ndarray, (row, draw)
            Of ``components``.
        latents : dict of Tensor, (draw, *event)
        units : list of Units
            Of each domain.
        domain : ndarray of int, (row,)
        """

    @abstractmethod
    def expected(self, eta: Tensor, latents: Latents, batch: Any, units: list[Units]) -> Tensor:
        """Expected rating (..., row) in the users' units, noise averaged out, parameters not: what rules rank."""

    @abstractmethod
    def unknown_user(self, latents: Latents) -> Latents:
        """Fill-in values of the sites with a user axis, for a user without any rating."""

    def unknown_item(self, latents: Latents) -> Latents:
        """Fill-in values of the sites with an item axis, with a domain axis in its place, for an item without any rating."""
        return {}

    def everywhere(
        self, state: State, table: Table, vectors: np.ndarray, members: list[np.ndarray] | None = None
    ) -> Everywhere | None:
        """What cells say of a vector on one side as if none had a rating; None where cells without a rating do not count.

        ``vectors`` are those of the other side, ``members`` the rows of it that have cells, for each domain; items without.
        """
        return None

    def present(self, table: Table) -> np.ndarray:
        """Users of whom the cells of a domain say something, bool (domain, user): those with ratings there."""
        return table.count > 0

    def response(self, state: State, table: Table) -> np.ndarray:
        """Response of each rating in user order: the rating, unless it is a measurement of something latent."""
        return state.get("response", table.user_value)

    @abstractmethod
    def working(self, state: State, table: Table, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Response and noise precision of each rating, in the table's user or item order."""

    @abstractmethod
    def observed(self, state: State, table: Table, fitted: Fitted) -> tuple[np.ndarray, np.ndarray]:
        """A normal response and its precision (rating,) that say of ``eta`` what a rating says, in user order.

        Latent responses integrated out: where there are any, score and observed information at ``eta``.
        """

    @abstractmethod
    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Starting values of a chain."""

    @abstractmethod
    def blocks(self, table: Table, fitted: Fitted) -> list[Block]:
        """Gibbs blocks."""

    @abstractmethod
    def precision(self, latents: Latents) -> Tensor:
        """Noise precision of each user's responses in each domain, (domain, user) or (domain, 1), for SVI."""

    def leaves(self, table: Table) -> dict[str, np.ndarray]:
        """Masks of what no rating informs; see :meth:`bayesrec.models.base.Model.leaves`."""
        return {}

    @abstractmethod
    def log_density(self, state: State, table: Table, fitted: Fitted) -> float:
        """Log density of all encoded ratings of the table, latent responses integrated out."""
