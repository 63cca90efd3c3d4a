"""PMF: Bayesian probabilistic matrix factorisation of the target alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.models.base import Informants
from bayesrec.models.features import user_means
from bayesrec.models.single import SingleVector

__all__ = ["PMF"]


@dataclass(frozen=True)
class PMF(SingleVector):
    """Bayesian matrix factorisation of the target domain: the no-transfer reference. Stable.

    ``eta = b_u + c_i + p_u . q_i`` with ``(b_u, p_u) ~ N(user_mean, user_cov)`` and items around a mean with a scale
    for each component. Source rows are ignored. Salakhutdinov and Mnih (2008), with intercepts, half-t scales in
    place of the inverse Wishart, and a noise level a user.

    Parameters
    ----------
    rank : int
        Number of factors.
    likelihood : Likelihood
        Gaussian unless given.
    features : bool
        Whether the prior means of users and items depend on their features: docs/models/side_information.md.
    activity : bool
        Whether users who have not rated in the target are taken for the user of a random rating there, not for a random
        person: docs/models/pmf.md.

    Examples
    --------
    >>> PMF(rank=2).dims["user_vector"]
    ('user', 'latent_component')
    """

    def view(self, data: Interactions) -> Interactions:
        """Return the target rows, the target's items and all users."""
        return self.with_features(data).only_target()

    def prior_precision(self, state: State, table: Table) -> Informants:
        """Everything that is not the user's own comes from the population."""
        precision = np.linalg.inv(state["user_cov"])
        population = np.broadcast_to(precision, (table.n_users, *precision.shape))
        mean = np.broadcast_to(user_means(state, table), (table.n_users, len(precision)))
        return Informants(
            probability=np.ones((1, table.n_users)),
            before=np.ones((1, table.n_users)),
            population=population,
            source=np.zeros((1, *population.shape)),
            population_mean=mean,
            mean=mean[None],
            relevance=np.empty((0, table.n_users)),
        )
