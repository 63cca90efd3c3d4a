"""The Pyro program of a model, an oracle for what is fitted to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyro
import torch

from bayesrec.data import Interactions
from bayesrec.models.base import Batch, Model, Schema

__all__ = ["joint"]


def joint(model: Model, schema: Schema, data: Interactions) -> Callable[[], None]:
    """The Pyro program of prior and observed ratings, in sd units."""
    order = np.lexsort((data.domain, data.item, data.user))  # sums do not depend on the order of a table's rows
    batch = Batch(*(torch.from_numpy(x[order]) for x in (data.user, data.item, data.domain)))
    value = torch.from_numpy(schema.standardise(data.value, data.domain)[order])
    exponents = model.exponents(schema.n_domains)

    def program() -> None:
        latents = model.prior(schema)
        ratings = model.likelihood.distribution(model.score(latents, batch), latents, batch)
        if exponents is None:
            pyro.sample("_ratings", ratings.to_event(1), obs=value)
        else:
            pyro.factor("_ratings", (torch.from_numpy(exponents)[batch.domain] * ratings.log_prob(value)).sum())

    return program
