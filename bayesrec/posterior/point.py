"""One draw that stands for all: aligned posterior means, for serving by the thousands. Internal.

The score ``b + c + p . q`` does not change where a constant moves from the items' factors to the users' biases, nor under
``p -> p G'^-1, q -> q G``. Each draw is brought to the form in which the items' factors have the mean zero over ratings and
the users' the covariance I, and is then turned to a common orientation (generalised Procrustes). Means of that mean something.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesrec.errors import DataError, UnsupportedMethodError
from bayesrec.models.single import SingleVector

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

__all__ = ["point"]

PASSES = 3


def point(posterior: Posterior, draws: int) -> Posterior:
    """Aligned posterior means in the place of draws; see :meth:`Posterior.point`."""
    if isinstance(draws, bool) or not isinstance(draws, (int, np.integer)) or draws < 1:
        raise DataError(f"draws must be a whole number of at least 1, not {draws!r}")
    posterior.require_draws("point")
    model = posterior.model
    if not isinstance(model, SingleVector):
        raise UnsupportedMethodError(
            f"point() needs a model with one vector a user, PMF or CollectiveMF, not {type(model).__name__}: its maps tie "
            "several vectors, whose orientations differ. Serve from fewer draws instead, Gibbs(thin=...)."
        )
    data = posterior.data
    count = np.bincount(data.item, minlength=data.n_items) if len(data) else np.ones(data.n_items)
    weight = count / count.sum()
    places = [(c, d) for c in range(posterior.n_chains) for d in range(posterior.n_draws)]
    forms = []
    for chain, draw in places:
        items = posterior.draws["item_vector"][chain, draw, :, 1:].astype(np.float64)
        centre = weight @ items
        root = np.linalg.cholesky(posterior.draws["user_cov"][chain, draw, 1:, 1:].astype(np.float64))
        forms.append((centre, root, (items - centre) @ root))
    turns = _turns([factors for _, _, factors in forms], weight)
    total: dict[str, Any] = {}
    means = []
    for (chain, draw), (centre, root, _), turn in zip(places, forms, turns, strict=True):
        state = {name: x[chain, draw].astype(np.float64) for name, x in posterior.draws.items()}
        moved = _moved(state, centre, root @ turn, np.linalg.solve(root.T, turn))
        means.append(moved["user_mean"])
        for name, x in moved.items():
            total[name] = total.get(name, 0.0) + x / len(places)
    # a user from the population of any draw, seen in these coordinates
    total["user_cov"] = total["user_cov"] + np.atleast_2d(np.cov(np.array(means).T, bias=True))
    once = {name: np.asarray(x, dtype=np.float32)[None, None] for name, x in total.items()}
    copies = {name: np.repeat(x, draws, axis=1) for name, x in once.items()}
    return replace(posterior, draws=copies, stats={}, moments={}, watched=None)


def _turns(factors: list[np.ndarray], weight: np.ndarray) -> list[np.ndarray]:
    """Orthogonal matrices that turn factors (item, rank) to one orientation."""
    mean = factors[-1]
    turns = []
    for _ in range(PASSES):
        turns = [_turn(one, mean, weight) for one in factors]
        mean = sum(one @ turn for one, turn in zip(factors, turns, strict=True)) / len(factors)
    return turns


def _turn(factors: np.ndarray, reference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(factors.T @ (weight[:, None] * reference))
    return left @ right


def _moved(
    state: dict[str, np.ndarray], centre: np.ndarray, item_map: np.ndarray, user_map: np.ndarray
) -> dict[str, np.ndarray]:
    """A draw in other coordinates: ``q -> (q - centre) item_map``, ``p -> p user_map``, biases so that scores stay."""
    size = len(centre) + 1
    of_users = np.eye(size)
    of_users[1:, 0], of_users[1:, 1:] = centre, user_map
    of_items = np.eye(size)
    of_items[1:, 1:] = item_map
    shift = np.append(0.0, centre)
    out = dict(state)
    for name in ("user_vector", "user_mean", "user_shift", "user_map"):
        if name in state:
            out[name] = state[name] @ of_users
    out["user_cov"] = of_users.T @ state["user_cov"] @ of_users
    for name in ("item_vector", "item_mean"):
        out[name] = (state[name] - shift) @ of_items
    if "item_map" in state:
        out["item_map"] = state["item_map"] @ of_items
    out["item_scale"] = np.sqrt(state["item_scale"] ** 2 @ of_items**2)
    return out
