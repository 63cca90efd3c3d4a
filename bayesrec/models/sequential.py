"""A source posterior in the place of source ratings: what TransferMF does with a SourcePrior. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyro.distributions import MultivariateNormal, TorchDistribution

from bayesrec.data import Interactions
from bayesrec.errors import DataError
from bayesrec.models import priors
from bayesrec.sources import SourcePrior

__all__ = ["check", "distribution", "given", "known"]

Natural = tuple[np.ndarray, np.ndarray]


def given(source: SourcePrior | None, ids: Any, n_users: int) -> Natural | None:
    """What a source prior says of users, beyond N(0, I): precision (1, user, R, R) and linear term (1, user, R)."""
    if source is None:
        return None
    size = source.rank + 1
    precision, linear = np.zeros((1, n_users, size, size)), np.zeros((1, n_users, size))
    if ids is not None:
        place, natural = source.places(ids), source.natural
        own = np.flatnonzero(place >= 0)
        precision[0, own], linear[0, own] = natural[0][place[own]] - np.eye(size), natural[1][place[own]]
    return precision, linear


def known(present: np.ndarray, natural: Natural | None) -> np.ndarray:
    """Of whom a source knows something, bool (source, user), given of whom cells do (domain, user)."""
    rated = present[:-1]
    return rated if natural is None else rated | (np.abs(natural[0]).max((2, 3)) > 0)


def distribution(source: SourcePrior, ids: Any, n_users: int) -> TorchDistribution:
    """The source prior as a distribution of vectors (1, user, R); N(0, I) for users whom it does not know."""
    precision, linear = given(source, ids, n_users) or (np.empty(0), np.empty(0))
    cov = np.linalg.inv(precision + np.eye(source.rank + 1))
    mean = priors.tensor((cov @ linear[..., None])[..., 0])
    return MultivariateNormal(mean, covariance_matrix=priors.tensor(cov)).to_event(2)


def check(source: SourcePrior, data: Interactions) -> None:
    """Refuse data that have none of the prior's users."""
    if source.entity != data.entity:
        raise DataError(
            f"the source prior is about {source.entity}s, and the data share {data.entity}s; make it from a posterior "
            f"whose {data.entity}s are those of the target."
        )
    if not (source.places(data.users.decode(np.unique(data.user))) >= 0).any():
        raise DataError(
            f"none of the {len(source)} {source.entity}s of the source prior {source.name!r} has a row in the target "
            f"{data.target!r}: nothing can be learned about how the source bears on the target. Do the ids mean the same?"
        )
