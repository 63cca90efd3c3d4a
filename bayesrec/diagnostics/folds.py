"""Folds of the users of whom a source knows something, by its ratings or by a source prior. Internal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bayesrec.data import Interactions, split
from bayesrec.errors import DataError
from bayesrec.models.base import Model

__all__ = ["kfold", "known"]


def known(model: Model, data: Interactions) -> np.ndarray:
    """Of whom the source knows something, bool (user,), or (item,) where items are shared."""
    who, vocabulary = (data.user, data.users) if data.shared == "users" else (data.item, data.items)
    prior = getattr(model, "source", None)
    if prior is None:
        return np.bincount(who[~data.is_target], minlength=len(vocabulary)) > 0
    return prior.places(vocabulary.decode(np.arange(len(vocabulary)))) >= 0


def kfold(
    model: Model, data: Interactions, folds: int, n_support: int, seed: int
) -> Iterator[tuple[Interactions, Interactions]]:
    """As ``br.split.kfold_users``; with a source prior, of users whom it knows."""
    if getattr(model, "source", None) is None:
        return split.kfold_users(data, folds=folds, n_support=n_support, seed=seed)
    who = data.user if data.shared == "users" else data.item
    ready = known(model, data)
    own = np.bincount(who[data.is_target], minlength=len(ready))
    eligible = np.flatnonzero(ready & (own > n_support))
    if not len(eligible):
        raise DataError(
            f"no {data.entity} of the source prior has more than {n_support} target ratings; do the ids mean the same?"
        )
    return split.kfold_among(data, eligible, folds, n_support, seed)
