"""Borrowing: what the source is worth to one user or one prediction, in ratings, and how far it moves it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp

from bayesrec.data.frames import make_frame
from bayesrec.diagnostics.informed import (
    Informed,
    checked_draws,
    informed,
    needs_rows,
    popularity,
    spread_out,
    target_rows,
)
from bayesrec.likelihoods import Gaussian
from bayesrec.models.base import Batch, Informants
from bayesrec.posterior import Posterior

__all__ = ["borrowing", "information", "means", "of_users"]

NODES = np.linspace(
    -6.5, 6.5, 97
)  # sds of a component; even spacing, for what is integrated may bend sharply in places
CHANCES = np.exp(-0.5 * NODES**2) / np.exp(-0.5 * NODES**2).sum()
CHUNK = 2**13  # rows whose mixtures are integrated at once
SOME = 20  # items whose pulls are averaged where the pull is no multiple of the design
POINTS = 4  # pairs of points a configuration and draw, for the information of a mixture in several dimensions


def borrowing(posterior: Posterior, frame: Any = None, draws: int = 100) -> Any:
    """Say how many ratings each user borrows from the source, and how far it moves their predictions. Provisional.

    ``n0`` is the effective sample size of the prior that the source gives, beyond that of the population: the expected local
    information ratio (Neuenschwander et al. 2020), in target ratings of the user's own. For a prediction with design vector
    ``v`` it is ``sigma^2 (1 / v' V_source v - 1 / v' V_population v)``: so many ratings of this very item would say as much. For
    a user it is ``trace(L_source I^-1) / (rank + 1)``, ``I`` being what one rating of the target's items tells on average, and
    ``m`` ratings add ``m`` to it. Where a gate makes the prior a mixture, information is ``E[-(log p)'']``, as the definition has
    it; it can then lie a little below zero, where the mixture is less certain than the population. ``n0`` counts before the
    user's own ratings are seen; :func:`bayesrec.source_weight` says what is left of it afterwards.

    ``pull`` is the prediction's mean given everything less the same without the user's source ratings, items and
    hyperparameters held fixed in each draw: after the user's own ratings, and after the gates. Where ratings are no multiple of
    the response (:class:`bayesrec.Ordinal`) it is the difference of the ratings expected at the two means, and what ratings
    tell is their observed information.

    Parameters
    ----------
    posterior : Posterior
    frame : DataFrame or Interactions, optional
        User and item columns; target rows. None answers for each user of the data.
    draws : int
        Number of draws, evenly spaced over all chains, that the average takes.

    Returns
    -------
    DataFrame
        user, item, n0 (ratings), pull (in units of the ratings); both are exactly 0 without source rows. Without ``frame``
        user, n (target ratings in the fit), n0, pull (mean over the target's ratings).

    Raises
    ------
    DataError
        Rows of a source domain; fewer draws than one.
    NotFittedError
        A posterior that was saved without its ratings.

    References
    ----------
    Neuenschwander, Weber, Schmidli and O'Hagan (2020), `neuenschwander2020`.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(10, 10), n_ratings=(8, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=20, warmup=20, chains=2), progress=False)
    >>> br.borrowing(posterior).columns.tolist()
    ['user', 'n', 'n0', 'pull']
    >>> br.borrowing(posterior, frame[frame.domain == "target"].head(2)).columns.tolist()
    ['user', 'item', 'n0', 'pull']
    """
    places = spread_out(posterior, checked_draws(draws))
    posterior.require_data("borrowing")
    needs_rows(posterior, "borrowing")
    data = posterior.data
    if frame is None:
        total = np.zeros((2, data.n_users))
        for one in informed(posterior, np.arange(data.n_users), places):
            total += of_users(posterior, one)
        own = np.bincount(data.user[data.is_target], minlength=data.n_users)
        table = {data.columns.user: data.users.decode(np.arange(data.n_users)), "n": own}
        n0, pull = total / len(places)
        return make_frame(table | {"n0": n0, "pull": pull}, data.layout.backend)
    batch = target_rows(posterior, frame, "borrowing is of predictions")
    known = batch.user >= 0
    users, index = np.unique(batch.user[known], return_inverse=True)
    out = np.zeros((2, len(batch)))
    for one in informed(posterior, users, places, items=batch.item[known]):
        n0 = _n0(one, index, one.designs(batch.item[known]))
        out[:, known] += np.stack([n0, _pull(posterior, one, index, batch.item[known])]) / len(places)
    n0, pull = out
    return make_frame(data.columns.ids(batch.user_id, batch.item_id) | {"n0": n0, "pull": pull}, batch.backend)


def of_users(posterior: Posterior, one: Informed) -> np.ndarray:
    """Ratings borrowed and mean pull of each user for one draw, (2, user). Internal."""
    share = popularity(posterior)
    item = np.flatnonzero(share)
    vectors, share = one.designs(item), share[item]
    typical = np.linalg.pinv((vectors * share[:, None]).T @ vectors, hermitian=True)
    n0 = _trace_of_gain(one, typical) / min(vectors.shape) / one.unit
    if isinstance(posterior.model.likelihood, Gaussian):
        return np.stack([n0, means(one)[1] @ (share @ vectors) * posterior.schema.scale[-1]])
    few = item[np.random.default_rng(0).choice(len(item), SOME, p=share)]
    cells = np.repeat(np.arange(len(n0)), SOME), np.tile(few, len(n0))
    return np.stack([n0, _pull(posterior, one, *cells).reshape(-1, SOME).mean(1)])


def _pull(posterior: Posterior, one: Informed, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """How far the source moves the expected rating of each row, (row,)."""
    (bare, moved), vectors = (x[user] for x in means(one)), one.designs(item)
    if isinstance(posterior.model.likelihood, Gaussian):
        return (vectors * moved).sum(1) * posterior.schema.scale[-1]
    domain = np.full(len(user), posterior.schema.n_domains - 1)
    batch = Batch(*(torch.from_numpy(code) for code in (user, np.maximum(one.row_of[item], 0), domain)))
    latents = {name: torch.as_tensor(x) for name, x in one.state.items()}
    without, whole = (
        posterior.model.likelihood.expected(torch.from_numpy(eta), latents, batch, posterior.schema.units)
        for eta in (one.vectors(item)[:, 0] + (vectors * theta).sum(1) for theta in (bare, bare + moved))
    )
    return (whole - without).numpy()


def means(one: Informed) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each user's target vector without the source, and how far the source moves it, (user, R). Internal."""
    who = one.informants
    bare = np.linalg.solve(
        who.population + one.own, _times(who.population, who.population_mean) + one.linear[..., None]
    )
    out = np.zeros(one.linear.shape)
    for chance, source, mean in zip(who.probability, who.source, who.mean, strict=True):
        prior = who.population + source
        whole = np.linalg.solve(prior + one.own, _times(prior, mean) + one.linear[..., None])
        out += chance[:, None] * (whole - bare)[..., 0]
    return bare[..., 0], np.where(_borrows(who)[:, None], out, 0.0)


def _times(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return matrix @ vector[..., None]


def _borrows(who: Informants) -> np.ndarray:
    """Users of whom a source says something, bool (user,)."""
    return (who.source != 0.0).any((0, 2, 3))


def _n0(one: Informed, user: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Ratings borrowed (row,) in the direction of each row's vector."""
    who = one.informants
    rows = np.flatnonzero(_borrows(who)[user])
    out = np.zeros(len(user))
    if not len(rows):
        return out
    u, v = user[rows], vectors[rows]

    def along(precision: np.ndarray) -> np.ndarray:
        return (v * np.linalg.solve(precision[u], v[..., None])[..., 0]).sum(1)

    mean = np.stack([(v * m[u]).sum(1) for m in who.mean])
    variance = np.stack([along(who.population + source) for source in who.source])
    out[rows] = (information(who.before[:, u], mean, variance) - 1.0 / along(who.population)) / one.unit[u]
    return out


def information(chance: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Expected ``-(log p)''`` (row,) of mixtures of normals, components (component, row). Internal.

    It is the expected square of the slope of ``log p``: quadrature by the trapezoidal rule, component by component.
    """
    if len(chance) == 1:
        return 1.0 / variance[0]
    if mean.shape[1] > CHUNK:
        parts = [slice(start, start + CHUNK) for start in range(0, mean.shape[1], CHUNK)]
        return np.concatenate([information(chance[:, p], mean[:, p], variance[:, p]) for p in parts])
    out = np.zeros(mean.shape[1])
    with np.errstate(divide="ignore"):
        log = np.log(chance) - 0.5 * np.log(variance)
    for k in range(len(chance)):
        x = mean[k, :, None] + np.sqrt(variance[k, :, None]) * NODES
        gap = (mean[..., None] - x) / variance[..., None]
        height = log[..., None] - 0.5 * gap**2 * variance[..., None]
        slope = (np.exp(height - logsumexp(height, axis=0)) * gap).sum(0)
        out += chance[k] * (slope**2 @ CHANCES)
    return out


def _trace_of_gain(one: Informed, typical: np.ndarray) -> np.ndarray:
    """Trace (user,) of the information that the source adds, times ``typical``.

    A mixture has the mean information of its components less the spread of their slopes, which is averaged over a few
    points, others in each draw.
    """
    who = one.informants
    out = np.einsum("cu,cuij,ji->u", who.before, who.source, typical)
    if len(who.before) == 1:
        return out
    users = np.flatnonzero(_borrows(who))
    root = np.linalg.cholesky(typical)
    precision, mean, chance = who.population[users] + who.source[:, users], who.mean[:, users], who.before[:, users]
    half = np.random.default_rng(one.place).standard_normal((POINTS, len(typical)))
    with np.errstate(divide="ignore"):
        log = np.log(chance) + 0.5 * np.linalg.slogdet(precision)[1]
    for k, inverse in enumerate(np.linalg.inv(precision)):
        for z in (*half, *-half):
            gap = mean - (mean[k] + np.linalg.cholesky(inverse) @ z)
            slope = _times(precision, gap)[..., 0]
            height = log - 0.5 * (gap * slope).sum(-1)
            share = np.exp(height - logsumexp(height, axis=0))
            slope = slope @ root
            between = (share[..., None] * (slope - (share[..., None] * slope).sum(0)) ** 2).sum((0, 2))
            out[users] -= chance[k] * between / (2 * POINTS)
    return out
