"""What a posterior answers: the work behind the methods of the same names. Internal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp

from bayesrec.errors import DataError
from bayesrec.likelihoods.predicted import Levels, Predicted
from bayesrec.models.base import Batch
from bayesrec.posterior import predictive

if TYPE_CHECKING:
    from bayesrec.data.batch import Batch as Rows
    from bayesrec.posterior.posterior import Posterior

__all__ = ["described", "draw", "expected", "log_likelihood", "predict", "predict_proba", "scores"]


def _encoded(posterior: Posterior, frame: Any, need_value: bool = False) -> Rows:
    """The rows of a table in the codes of the posterior; refused if they belong to a domain of which there is a prior alone."""
    batch = posterior.data.encode(frame, need_value=need_value)
    prior = getattr(posterior.model, "source", None)
    outside = np.flatnonzero(batch.domain != posterior.schema.n_domains - 1)
    if prior is not None and outside.size:
        raise DataError(
            f"row {outside[0]} belongs to {prior.name!r}, of which this fit has a source prior and no ratings: only the target "
            f"{posterior.data.target!r} can be predicted."
        )
    return batch


def predict(posterior: Posterior, frame: Any, level: float) -> Any:
    """Moments and central intervals of new ratings."""
    batch = _encoded(posterior, frame)
    return batch.answer(described(posterior, (batch.user, batch.item, batch.domain), level))


def described(posterior: Posterior, codes: tuple[np.ndarray, ...], level: float) -> dict[str, np.ndarray]:
    """The same of users, items and domains by their codes (row,): mean, sd, lower and upper (row,)."""
    number = isinstance(level, (int, float, np.number)) and not isinstance(level, bool)
    if not number or not 0.0 < level < 1.0:
        raise DataError(f"level must lie strictly between 0 and 1, not {level!r}")
    posterior.require_draws("predict")
    out = np.empty((4, len(codes[0])))
    tail = (1.0 - level) / 2.0
    for rows, law in predictive.components(posterior.model, posterior.draws, posterior.schema, *codes):
        out[:2, rows] = law.moments()
        out[2:, rows] = law.quantiles((tail, 1.0 - tail)).T
    return dict(zip(("mean", "sd", "lower", "upper"), out, strict=True))


def predict_proba(posterior: Posterior, frame: Any) -> Any:
    """Probabilities of levels."""
    posterior.require_draws("predict_proba")
    batch = _encoded(posterior, frame)
    units = posterior.schema.units
    known = [units[d].levels for d in np.unique(batch.domain)]
    if any(levels is None for levels in known):
        raise DataError(
            f"predict_proba needs ratings on levels, and {posterior.model.likelihood!r} has none; fit with Ordinal or Bernoulli."
        )
    if any(not np.array_equal(levels, known[0]) for levels in known):
        raise DataError("the rows belong to domains with different levels; ask for one domain at a time.")
    levels = known[0] if known else np.empty(0)
    out = np.empty((len(batch), len(levels)))
    for rows, law in posterior.laws(batch):
        assert isinstance(law, Levels)
        out[rows] = law.share
    return batch.answer({f"p_{level:g}": out[:, k] for k, level in enumerate(levels)})


def scores(
    posterior: Posterior, frame: Any, look: Callable[[slice, Predicted], None] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log predictive densities by chain, and of the rows of a user together; ``look`` sees all laws on the way."""
    posterior.require_draws("log_score")
    batch = _encoded(posterior, frame, need_value=True)
    value = np.asarray(batch.value)
    user, ids = pd.factorize(batch.user_id)
    total = np.zeros((len(ids), posterior.n_chains * posterior.n_draws))
    by_chain = np.empty((posterior.n_chains, len(batch)))
    for rows, law in posterior.laws(batch):
        if look is not None:
            look(rows, law)
        density = law.log_density(value[rows])
        known = batch.user[rows] >= 0
        np.add.at(total, user[rows][known], density[known])
        split = density.reshape(len(density), posterior.n_chains, posterior.n_draws)
        by_chain[:, rows] = logsumexp(split, axis=2).T - np.log(posterior.n_draws)
    strangers = pd.DataFrame({"user": user, "domain": batch.domain})[batch.user < 0]
    for _, part in strangers.groupby(["user", "domain"]):
        mine = part.index.to_numpy()
        domain = int(batch.domain[mine[0]])
        density = predictive.together(
            posterior.model, posterior.draws, posterior.schema, batch.item[mine], domain, value[mine]
        )
        total[user[mine[0]]] += density
    return by_chain, user, logsumexp(total, axis=1) - np.log(total.shape[1])


def expected(posterior: Posterior, user: int, items: np.ndarray) -> np.ndarray:
    """Draws of the expected target rating of one user for items: (draw, item)."""
    posterior.require_draws("ranking")
    domain, users = np.full(len(items), posterior.schema.n_domains - 1), np.full(len(items), user)
    first, second = (items, users) if posterior.data.columns.swapped else (users, items)
    rows = predictive.compact(posterior.model, posterior.draws, posterior.schema, first, second, domain)
    eta = posterior.model.score(rows.latents, rows.batch).double()
    if user < 0:
        eta = eta + predictive.deviations(posterior.model, rows)
    return posterior.model.likelihood.expected(eta, rows.latents, rows.batch, posterior.schema.units).numpy()


def log_likelihood(posterior: Posterior) -> np.ndarray:
    """Log density of the training rows of the target, (chain, draw, row)."""
    posterior.require_data("log_likelihood")
    posterior.require_draws("log_likelihood")
    data = posterior.data.mask(posterior.data.is_target)
    codes = [torch.from_numpy(np.array(x)) for x in (data.user, data.item, data.domain)]
    value = torch.from_numpy(posterior.schema.standardise(data.value, data.domain)).float()
    latents, batch = posterior.latents(), Batch(*codes)
    out = []
    for s in range(posterior.n_chains * posterior.n_draws):
        one = {name: x[s] for name, x in latents.items()}
        likelihood = posterior.model.likelihood.distribution(posterior.model.score(one, batch), one, batch)
        out.append(likelihood.log_prob(value).numpy())
    stacked = np.stack(out).reshape(posterior.n_chains, posterior.n_draws, -1)
    return stacked - np.log(posterior.schema.scale[-1]).astype(np.float32)  # of levels the scale is 1


def draw(
    posterior: Posterior, chain: int, draw: int, users: np.ndarray | None, items: np.ndarray | None
) -> dict[str, np.ndarray]:
    """One draw as a state (float64)."""
    posterior.require_draws("this")
    state, dims = {}, posterior.model.dims
    for name, array in posterior.draws.items():
        value, axes = array[chain, draw], dims[name]
        for axis, some in (("user", users), ("item", items)):
            if some is not None and axis in axes:
                value = np.take(value, some, axis=axes.index(axis))
        state[name] = value.astype(np.float64)
    return state
