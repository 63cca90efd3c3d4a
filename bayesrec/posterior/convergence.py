"""R-hat and effective sample sizes, on quantities that are identified. Internal."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

from bayesrec.errors import ConvergenceWarning
from bayesrec.likelihoods import Gaussian
from bayesrec.posterior import predictive

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

__all__ = ["diagnostics", "identified"]

PROBES = 50
RHAT_LIMIT = 1.1


def probe_cells(posterior: Posterior, n: int = PROBES) -> tuple[np.ndarray, np.ndarray]:
    """A fixed set of target cells (user, item), as codes, that does not depend on the draws."""
    rng = np.random.default_rng(0)
    target = posterior.schema.n_domains - 1
    items = np.flatnonzero(posterior.schema.item_domain.numpy() == target)
    users = np.arange(posterior.data.n_users)
    if len(posterior.data):
        rows = posterior.data.is_target
        users, items = np.unique(posterior.data.user[rows]), np.unique(posterior.data.item[rows])
    return rng.choice(users, n), rng.choice(items, n)


def identified(posterior: Posterior) -> dict[str, np.ndarray]:
    """Named series (chain, draw) of scales, weights, predictions of probe cells and the log density."""
    shape = (posterior.n_chains, posterior.n_draws)
    free = {name: x for name, x in posterior.draws.items() if not {"user", "item"} & set(posterior.model.dims[name])}
    out: dict[str, np.ndarray] = {}
    domains = posterior.schema.domains
    for name, value in posterior.model.identified(predictive.flat(free)).items():
        array = np.asarray(value, dtype=np.float64)
        array = array.reshape(*shape, -1)
        width = array.shape[-1]
        labels = [""] if width == 1 and name not in posterior.model.dims else None
        if labels is None:
            names = domains if width == len(domains) else domains[:-1] if width == len(domains) - 1 else range(width)
            scalar = posterior.model.dims.get(name) == ()
            labels = [""] if scalar else [f"[{label}]" for label in names]
        for k, label in enumerate(labels):
            out[name + label] = array[..., k]
    series = {name: np.asarray(x, dtype=np.float64) for name, x in posterior.stats.items()}
    if set(posterior.draws) != set(posterior.model.dims):
        return out | series  # no predictions without the draws of users and items
    user, item = probe_cells(posterior)
    domain = np.full(len(user), len(domains) - 1)
    rows = predictive.compact(posterior.model, posterior.draws, posterior.schema, user, item, domain)
    eta = posterior.model.score(rows.latents, rows.batch)
    if not isinstance(posterior.model.likelihood, Gaussian):  # the location of a latent response means nothing
        eta = posterior.model.likelihood.expected(eta, rows.latents, rows.batch, posterior.schema.units)
    answers = eta.numpy().astype(np.float64).reshape(*shape, -1)
    ids = zip(posterior.data.users.decode(user), posterior.data.items.decode(item), strict=True)
    for k, (u, i) in enumerate(ids):
        cell = f"{i}, {u}" if posterior.data.columns.swapped else f"{u}, {i}"
        out[f"prediction[{cell}]"] = answers[..., k]
    return out | series


def diagnostics(posterior: Posterior) -> pd.DataFrame:
    """Table of mean, sd, rhat, ess_bulk and ess_tail; see :meth:`Posterior.diagnostics`."""
    series = identified(posterior)
    stacked = np.stack(list(series.values()), axis=-1)
    halves = stacked
    if posterior.n_chains == 1:  # one chain: compare its halves
        half = posterior.n_draws // 2
        halves = np.stack([stacked[0, :half], stacked[0, half : 2 * half]]) if half else stacked
    axes = {"chain_axis": 0, "draw_axis": 1}
    few = halves.shape[1] < 4
    nan = np.full(len(series), np.nan)
    out = pd.DataFrame(
        {
            "mean": stacked.mean((0, 1)),
            "sd": stacked.std((0, 1)),
            "rhat": nan if few else array_stats.rhat(halves, **axes),
            "ess_bulk": nan if few else array_stats.ess(halves, method="bulk", **axes),
            "ess_tail": nan if few else array_stats.ess(halves, method="tail", prob=0.9, **axes),
        },
        index=pd.Index(list(series), name="quantity"),
    )
    rhat = out["rhat"]
    bad = int((rhat > RHAT_LIMIT).sum())
    if bad:
        warnings.warn(
            f"R-hat exceeds {RHAT_LIMIT} for {bad} of {len(out)} quantities (largest: {rhat.idxmax()}, {rhat.max():.2f}); "
            "the chains have not met. Draw longer, or read the pooled draws as a mixture of modes.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return out
