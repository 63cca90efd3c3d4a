"""Conflict: whether users' own ratings contradict what their source ratings announced."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.special import ndtr
from scipy.stats import binom, chi2

from bayesrec.data.frames import make_frame
from bayesrec.diagnostics.informed import Informed, checked_draws, informed, spread_out, target_rows
from bayesrec.diagnostics.judge import LEAST_DELTA, LEAST_USERS
from bayesrec.errors import NegativeTransferWarning, UnsupportedMethodError
from bayesrec.likelihoods import Gaussian
from bayesrec.posterior import Posterior

__all__ = ["LEVEL", "conflict", "needs_gaussian", "tested"]

LEVEL = 0.05  # p-value of a conflict
SURE = 0.01  # probability of what is seen, were there nothing, below which a warning comes


def conflict(posterior: Posterior, frame: Any = None, draws: int = 100) -> Any:
    """Test for each user whether their target ratings contradict what their source ratings announced. Provisional.

    Box's (1980) check of a prior by its predictive: given a draw of items and hyperparameters the user's ratings are jointly
    normal under the prior that the source gives them, and their squared distance from its mean is chi-squared with as many
    degrees of freedom as ratings. ``p_source`` is the probability of a larger distance, ``p_population`` the same under the
    prior of the target's population, both averaged over draws. A user who is in conflict with both is a noisy rater, and the
    source is not to blame: conflict is a ``p_source`` below .05 *and* ratings that are less probable under the source's
    prior than under the population's.

    Parameters
    ----------
    posterior : Posterior
        With Gaussian ratings.
    frame : DataFrame or Interactions, optional
        Target ratings that were not in the fit, for an exact check. None takes those of the fit, which had a part in placing
        items and the user's noise level: the check then errs on the side of agreement.
    draws : int
        Number of draws, evenly spaced over all chains, that the average takes.

    Returns
    -------
    DataFrame
        user, n (target ratings tested), p_source, p_population, support (log density of the ratings under the source's prior
        less that under the population's, nats), used (probability that the model uses a source for this user: 1 without a
        gate), conflict (bool). Users with source rows and target ratings only. All sources of a user are tested together.

    Raises
    ------
    DataError
        Rows of a source domain; fewer draws than one.
    NotFittedError
        A posterior that was saved without its ratings.
    UnsupportedMethodError
        Another likelihood than a Gaussian.

    Warns
    -----
    NegativeTransferWarning
        More than a tenth of the users are in conflict, and more than chance allows at a rate of 5% (binomial, 1%); or the
        summed support is below -4 nats and below zero beyond chance (1%, at least 30 users). A user counts by ``used``: a
        gate that shuts the source out for users in conflict is no negative transfer.

    References
    ----------
    Box (1980), `box1980`; Evans and Moshonov (2006), `evans2006`.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(10, 10), n_ratings=(8, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=20, warmup=20, chains=2), progress=False)
    >>> found = br.conflict(posterior)
    >>> found.columns.tolist()
    ['user', 'n', 'p_source', 'p_population', 'support', 'used', 'conflict']
    """
    places = spread_out(posterior, checked_draws(draws))
    posterior.require_data("conflict")
    needs_gaussian(posterior)
    data, last = posterior.data, posterior.schema.n_domains - 1
    rows = None
    user = data.user[data.is_target]
    if frame is not None:
        batch = target_rows(posterior, frame, "conflict is about ratings", need_value=True)
        keep, source = (batch.user >= 0) & (batch.item >= 0), ~data.is_target
        user = batch.user[keep]
        new = (user, batch.item[keep], np.full(len(user), last), np.asarray(batch.value)[keep])
        old = (data.user[source], data.item[source], data.domain[source], data.value[source])
        rows = tuple(np.concatenate(pair) for pair in zip(old, new, strict=True))
    users, n = np.unique(user, return_counts=True)
    total, told = np.zeros((4, len(users))), np.zeros(len(users), dtype=bool)
    for one in informed(posterior, users, places, rows):  # type: ignore[arg-type]
        total += np.stack([*tested(one, n), _used(one)])
        told |= (one.informants.source != 0.0).any((0, 2, 3))
    p_source, p_population, support, used = total[:, told] / len(places)
    found = (p_source < LEVEL) & (support < 0.0)
    _warn(posterior, used, support, found)
    table = {
        data.columns.user: data.users.decode(users[told]),
        "n": n[told],
        "p_source": p_source,
        "p_population": p_population,
        "support": support,
        "used": used,
        "conflict": found,
    }
    return make_frame(table, data.layout.backend)


def needs_gaussian(posterior: Posterior) -> None:
    """Refuse other likelihoods, whose ratings are not jointly normal. Internal."""
    if not isinstance(posterior.model.likelihood, Gaussian):
        raise UnsupportedMethodError(
            f"conflict needs ratings that are normal given a draw, and this model has {posterior.model.likelihood!r}; "
            "br.negative_transfer on held-out ratings judges a source under any likelihood."
        )


def tested(one: Informed, n: np.ndarray) -> np.ndarray:
    """P under the source's prior and under the population's, and the support (user,) of ``n`` ratings, for one draw. Internal."""
    who = one.informants
    near, size = _distance(one, who.population + who.source[0], who.mean[0])
    near_without, size_without = _distance(one, who.population, who.population_mean)
    support = 0.5 * (near_without + size_without - near - size)
    return np.stack([chi2.sf(near, n), chi2.sf(near_without, n), support])


def _distance(one: Informed, precision: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``r'C^-1 r`` and ``log |I + V X'LX|`` (user,) of residuals ``r`` under ``theta ~ N(mean, V)``, ``C = X V X' + L^-1``.

    In the form of Woodbury: matrices have the size R, however many ratings there are.
    """
    toward = one.linear - (one.own @ mean[..., None])[..., 0]
    straight = one.squares - (mean * (one.linear + toward)).sum(1)
    whole = precision + one.own
    explained = (toward * np.linalg.solve(whole, toward[..., None])[..., 0]).sum(1)
    return straight - explained, np.linalg.slogdet(whole)[1] - np.linalg.slogdet(precision)[1]


def _used(one: Informed) -> np.ndarray:
    """Probability (user,) that not all gates are shut; the last configuration has them all shut."""
    chance = one.informants.probability
    return 1.0 - chance[-1] if len(chance) > 1 else np.ones(chance.shape[1])


def _warn(posterior: Posterior, used: np.ndarray, support: np.ndarray, found: np.ndarray) -> None:
    """Warn if too many users are in conflict, or if all together have less probable ratings under the source's prior."""
    many, count, gain = used.sum(), used[found].sum(), used * support
    crowded = count >= 2.0 * LEVEL * many and binom.sf(round(count) - 1, round(many), LEVEL) < SURE
    worse = gain.sum() <= -LEAST_DELTA and len(gain) >= LEAST_USERS
    worse = worse and ndtr(gain.sum() / np.sqrt(len(gain) * gain.var(ddof=1))) < SURE
    if not crowded and not worse:
        return
    data, entity = posterior.data, posterior.data.entity
    facts = [
        f"the target ratings of {count:.0f} of {many:.0f} {entity}s for whom the source is used contradict what it announced "
        f"(chance allows {LEVEL:.0%})"
    ] * int(crowded) + [f"those of all together are {-gain.sum():.1f} nats less probable than without it"] * int(worse)
    warnings.warn(
        f"{' and '.join(map(str, data.sources))}: {', and '.join(facts)}. The source may make predictions worse: compare with "
        "a fit without it (br.negative_transfer), or use TransferMF, whose gate shuts it out where it is wrong.",
        NegativeTransferWarning,
        stacklevel=3,
    )
