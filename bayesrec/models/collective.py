"""CollectiveMF: one user vector for all domains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.models.base import Informants
from bayesrec.models.features import user_means
from bayesrec.models.single import SingleVector

__all__ = ["CollectiveMF"]


@dataclass(frozen=True)
class CollectiveMF(SingleVector):
    """Bayesian collective matrix factorisation: full pooling of the users over all domains. Stable.

    As PMF, but source and target ratings share the user's vector; items, their populations and the noise belong to
    a domain. It is the strongest possible transfer and has no way to say no: a source that does not fit hurts.
    Singh and Gordon (2008), in Bayesian form.

    Parameters
    ----------
    rank : int
        Number of factors.
    likelihood : Likelihood
        Gaussian unless given.
    features : bool
        Whether the prior means of users and items depend on their features: docs/models/side_information.md.
    activity : bool
        Whether users who have not rated anything are taken for the user of a random rating there, not for a random
        person: docs/models/pmf.md.

    Examples
    --------
    >>> CollectiveMF(rank=2).dims["noise"]
    ('domain',)
    """

    @property
    def pools(self) -> bool:
        """A user has one vector."""
        return True

    def prior_precision(self, state: State, table: Table) -> Informants:
        """The source's part is the precision of the user's source ratings."""
        grams, linear = self.told(state, table)
        size = grams.shape[-1]
        source, told = grams[:, :-1].sum(1), linear[:, :-1].sum(1)
        precision = np.linalg.inv(state["user_cov"])
        mean = np.broadcast_to(user_means(state, table), (table.n_users, size))
        moved = np.linalg.solve(precision + source, (told - np.einsum("uij,uj->ui", source, mean))[..., None])[..., 0]
        return Informants(
            probability=np.ones((1, table.n_users)),
            before=np.ones((1, table.n_users)),
            population=np.broadcast_to(precision, (table.n_users, *precision.shape)),
            source=source[None],
            population_mean=mean,
            mean=(mean + moved)[None],
            relevance=np.full((table.n_domains - 1, table.n_users), np.nan),
        )

    def source_precision(self, state: State, table: Table) -> np.ndarray:
        """The precision of the user's ratings in each source, (source, 1, user, R, R): here what sources add is a sum."""
        return self.told(state, table)[0][:, :-1].swapaxes(0, 1)[:, None]
