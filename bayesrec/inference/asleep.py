"""Whether a variational fit has collapsed to the bias model: its factors explain nothing. Internal."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from bayesrec.errors import ConvergenceWarning
from bayesrec.likelihoods import Latents
from bayesrec.models.base import Batch, Model
from bayesrec.posterior import Posterior

__all__ = ["ASLEEP", "of_factors", "warn_if_asleep"]

ASLEEP = 0.03  # sd of p . q over the target's rows, in rating sds, below which the factors say nothing
TOGETHER = 2**18  # rows that are looked at at once


def of_factors(model: Model, latents: Latents, codes: list[np.ndarray]) -> float:
    """Sd of ``p . q`` over rows (user, item, domain), beyond what users' and items' means explain, in rating sds."""
    part = np.empty(len(codes[0]))
    for first in range(0, len(part), TOGETHER):
        rows = slice(first, first + TOGETHER)
        left, right = model.vectors(latents, Batch(*(torch.from_numpy(x[rows]) for x in codes)))
        part[rows] = (left[:, 1:] * right[:, 1:]).sum(-1).numpy()
    for side in codes[:2]:
        count = np.bincount(side)
        part = part - (np.bincount(side, part) / np.maximum(count, 1))[side]
    return float(part.std())


def warn_if_asleep(posterior: Posterior) -> None:
    """Say so if in a fit the factors explain nothing in the target, beyond what users' and items' means do."""
    data = posterior.data.mask(posterior.data.is_target)
    codes = [np.array(x) for x in (data.user, data.item, data.domain)]
    chains = range(posterior.n_chains)
    firsts = [{name: torch.as_tensor(x[c, 0]) for name, x in posterior.draws.items()} for c in chains]
    spreads = [of_factors(posterior.model, latents, codes) for latents in firsts]
    asleep = sum(spread < ASLEEP for spread in spreads)
    if asleep:
        warnings.warn(
            f"the factors explain nothing in {asleep} of {len(spreads)} fits: p . q has an sd of {min(spreads):.3f} rating "
            "sds over the target's rows. Either the ratings have no such structure or the approximation collapsed to the bias "
            "model; another seed or, for SVI, more steps and a lower learning_rate tell, and Gibbs does not collapse.",
            ConvergenceWarning,
            stacklevel=5,
        )
