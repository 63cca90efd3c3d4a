"""Who informs a user's vector under gates: closed forms for one draw, apart from the kernels. Internal."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from bayesrec.blocks import State
from bayesrec.models.base import Informants

__all__ = ["informants", "source_precision"]

SURE = 1e-8  # a rate in float32 may be 0 or 1


def informants(
    state: State,
    maps: np.ndarray,
    scale: np.ndarray,
    gram: np.ndarray,
    linear: np.ndarray,
    known: np.ndarray,
    configurations: list[tuple[int, ...]],
    gate: bool,
) -> Informants:
    """Population and source precisions for each configuration of the gates, and how probable each is.

    Parameters
    ----------
    maps, scale : ndarray, (source, R, R) and (source, R)
    gram, linear : ndarray, (user, domain, R, R) and (user, domain, R)
        What the rows of each domain, the target last, say of the user's vector there.
    known : ndarray of bool, (source, user)
    """
    n_sources, size = scale.shape
    n_users = len(gram)
    own, pop, cov = _carried(maps, scale, gram, known)
    shift = np.stack([(cov[k] @ linear[:, k, :, None])[..., 0] @ w.T for k, w in enumerate(maps)])
    v_pop = state["user_cov"] + pop.sum(0)
    population = np.linalg.inv(v_pop)
    source = np.empty((len(configurations), n_users, size, size))
    means = np.empty((len(configurations), n_users, size))
    log_chance, evidence = np.zeros((2, len(configurations), n_users))
    off = np.clip(state.get("gate", np.zeros(n_sources)), SURE, 1.0 - SURE)
    for c, on in enumerate(configurations):
        v_src = np.broadcast_to(state["user_cov"], (n_users, size, size)).copy()
        mean = np.broadcast_to(state["user_mean"], (n_users, size)).copy()
        for k in range(n_sources):
            v_src += own[k] if on[k] else pop[k]
            mean += shift[k] if on[k] else 0.0
            if gate:
                log_chance[c] += np.log1p(-off[k]) if on[k] else np.log(off[k])
        same = np.all([~known[k] | (not on[k]) for k in range(n_sources)], axis=0)
        source[c] = np.where(same[:, None, None], 0.0, np.linalg.inv(v_src) - population)
        means[c] = np.where(same[:, None], state["user_mean"], mean)
        evidence[c] = _log_evidence(v_src, mean, gram[:, -1], linear[:, -1])
    before, chance = _shares(log_chance), _shares(log_chance + evidence)
    open_gates = np.array(configurations, dtype=bool)
    relevance = np.stack([chance[open_gates[:, k]].sum(0) for k in range(n_sources)])
    unknown = ~known if gate else np.ones_like(relevance, dtype=bool)
    return Informants(
        probability=chance,
        before=before,
        population=np.broadcast_to(population, (n_users, size, size)),
        source=source,
        population_mean=np.broadcast_to(state["user_mean"], (n_users, size)),
        mean=means,
        relevance=np.where(unknown, np.nan, relevance),
    )


def source_precision(
    user_cov: np.ndarray,
    maps: np.ndarray,
    scale: np.ndarray,
    gram: np.ndarray,
    known: np.ndarray,
    configurations: list[tuple[int, ...]],
) -> np.ndarray:
    """What each source adds to a user's precision, (source, configuration, user, R, R); they sum to ``Informants.source``.

    Precisions do not add up over sources: what one adds depends on which others are there already. Its part is Shapley's
    (1953): the average over all orders in which the open sources can come in.
    """
    own, pop, _ = _carried(maps, scale, gram, known)
    known_so_far: dict[frozenset[int], np.ndarray] = {}

    def precision(used: frozenset[int]) -> np.ndarray:
        if used not in known_so_far:
            spread = sum(own[k] if k in used else pop[k] for k in range(len(maps)))
            known_so_far[used] = np.linalg.inv(user_cov + spread)
        return known_so_far[used]

    out = np.zeros((len(maps), len(configurations), *own.shape[1:]))
    for c, on in enumerate(configurations):
        chosen = [k for k, used in enumerate(on) if used]
        n = len(chosen)
        for k in chosen:
            others = [j for j in chosen if j != k]
            for size in range(n):
                for before in map(frozenset, combinations(others, size)):
                    out[k, c] += (precision(before | {k}) - precision(before)) / (n * comb(n - 1, size))
    return out


def _carried(
    maps: np.ndarray, scale: np.ndarray, gram: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariances in the target of what a source leaves open about each user, and about anybody, and the first in the source."""
    cov = np.linalg.inv(gram[:, :-1].swapaxes(0, 1) + np.stack([np.diag(s**-2.0) for s in scale])[:, None])
    pop = np.stack([(w * s**2) @ w.T for w, s in zip(maps, scale, strict=True)])
    # a user of whom the source knows nothing has the prior itself, to the last bit: the source's share is zero
    own = np.where(known[..., None, None], maps[:, None] @ cov @ maps.swapaxes(1, 2)[:, None], pop[:, None])
    return own, pop, cov


def _shares(log: np.ndarray) -> np.ndarray:
    """Probabilities (configuration, user) from their logarithms, up to a constant of each user."""
    out = np.exp(log - log.max(0))
    return out / out.sum(0)


def _log_evidence(cov: np.ndarray, mean: np.ndarray, gram: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Log marginal likelihood (user,) of target rows under theta ~ N(mean, cov), up to a constant of the rows."""
    inverse = np.linalg.inv(cov)
    a = inverse + gram
    b = (inverse @ mean[..., None])[..., 0] + linear
    fitted = np.einsum("ui,ui->u", b, np.linalg.solve(a, b[..., None])[..., 0])
    prior = np.einsum("ui,uij,uj->u", mean, inverse, mean)
    return 0.5 * (fitted - prior - np.linalg.slogdet(a)[1] - np.linalg.slogdet(cov)[1])
