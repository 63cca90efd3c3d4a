"""Who informs a user's vector under gates: closed forms for one draw, apart from the kernels. Internal."""

from __future__ import annotations

import numpy as np

from bayesrec.blocks import State
from bayesrec.models.base import Informants

__all__ = ["informants"]


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
    shift = np.zeros((n_sources, n_users, size))
    own, pop = np.zeros((n_sources, n_users, size, size)), np.zeros((n_sources, size, size))
    for k, w in enumerate(maps):
        cov = np.linalg.inv(gram[:, k] + np.diag(1.0 / scale[k] ** 2))
        shift[k] = (cov @ linear[:, k, :, None])[..., 0] @ w.T
        pop[k] = (w * scale[k] ** 2) @ w.T
        # a user of whom the source knows nothing has the prior itself, to the last bit: the source's share is zero
        own[k] = np.where(known[k][:, None, None], w @ cov @ w.T, pop[k])
    v_pop = state["user_cov"] + pop.sum(0)
    population = np.linalg.inv(v_pop)
    source = np.empty((len(configurations), n_users, size, size))
    log_chance = np.zeros((len(configurations), n_users))
    for c, on in enumerate(configurations):
        v_src = np.broadcast_to(state["user_cov"], (n_users, size, size)).copy()
        mean = np.broadcast_to(state["user_mean"], (n_users, size)).copy()
        for k in range(n_sources):
            v_src += own[k] if on[k] else pop[k]
            mean += shift[k] if on[k] else 0.0
            if gate:
                log_chance[c] += np.log1p(-state["gate"][k]) if on[k] else np.log(state["gate"][k])
        same = np.all([~known[k] | (not on[k]) for k in range(n_sources)], axis=0)
        source[c] = np.where(same[:, None, None], 0.0, np.linalg.inv(v_src) - population)
        log_chance[c] += _log_evidence(v_src, mean, gram[:, -1], linear[:, -1])
    chance = np.exp(log_chance - log_chance.max(0))
    chance /= chance.sum(0)
    open_gates = np.array(configurations, dtype=bool)
    relevance = np.stack([chance[open_gates[:, k]].sum(0) for k in range(n_sources)])
    unknown = ~known if gate else np.ones_like(relevance, dtype=bool)
    return Informants(
        probability=chance,
        population=np.broadcast_to(population, (n_users, size, size)),
        source=source,
        relevance=np.where(unknown, np.nan, relevance),
    )


def _log_evidence(cov: np.ndarray, mean: np.ndarray, gram: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Log marginal likelihood (user,) of target rows under theta ~ N(mean, cov), up to a constant of the rows."""
    inverse = np.linalg.inv(cov)
    a = inverse + gram
    b = (inverse @ mean[..., None])[..., 0] + linear
    fitted = np.einsum("ui,ui->u", b, np.linalg.solve(a, b[..., None])[..., 0])
    prior = np.einsum("ui,uij,uj->u", mean, inverse, mean)
    return 0.5 * (fitted - prior - np.linalg.slogdet(a)[1] - np.linalg.slogdet(cov)[1])
