"""New users as they are met in ratings: in proportion to how much they rate. Internal.

A model's prior is that of people. Whose rating comes next is another question: who rates ten times as much is met ten times as
often, and people who rate much rate otherwise, lower as a rule. With ``theta`` jointly normal with the log number of ratings the
vector of whoever gave a random rating is that of a random person with its mean moved by a covariance (length-biased sampling,
Cox 1969; Patil and Rao 1978). The number of ratings of users who have some is known, and they stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesrec.errors import DataError

if TYPE_CHECKING:
    from bayesrec.models.base import Model
    from bayesrec.posterior.posterior import Posterior

__all__ = ["check_activity", "met_by_ratings", "moved_back"]

MOST = 20_000  # users whom a draw's regression takes, evenly spread
SHARE = 0.5  # prior sd of what an sd of activity adds to a component, in sds of the component


def check_activity(model: Model, method: Any, watch: Any) -> None:
    """Refuse what would not know of the new users' mean."""
    keep = getattr(method, "keep", None)
    of_users = [name for name, axes in model.dims.items() if "user" in axes and name.endswith("_vector")]
    missing = [] if keep is None else [name for name in of_users if name not in keep]
    if missing:
        raise DataError(
            f"activity=True needs the draws of {missing[0]!r}: name it in Gibbs(keep=...), or leave keep out."
        )
    if watch is not None:
        raise DataError(
            "fit(watch=...) predicts while the chains run, and activity=True learns from their draws; use predict instead."
        )


def met_by_ratings(posterior: Posterior, model: Model, seed: int) -> Posterior:
    """Move users without target rows from the mean of people to that of ratings; ``user_shift`` moves unknown ones.

    The posterior is that of ``model.of_people``, and nobody has seen it yet; without ``activity`` it stays as it is. The move
    comes from a regression, in each draw, of the vectors of users with target rows on their log number of such rows, given all
    else that the prior of a vector knows of them: source vectors, features. It is a cut: the numbers of ratings tell nothing
    about the users who gave them.
    """
    if not model.activity:
        return posterior
    data, draws = posterior.data, posterior.draws
    shift = np.zeros_like(draws["user_mean"])
    out = replace(posterior, model=model, draws=draws | {"user_shift": shift})
    counts = np.bincount(data.user[data.is_target], minlength=data.n_users)
    rated = np.flatnonzero(counts)
    logs = np.log(counts[rated])
    if len(rated) < 2 or np.ptp(logs) == 0.0:  # everybody rates as much
        return out
    x = (logs - logs.mean()) / logs.std()
    gap = float(counts[rated] @ x / counts.sum())  # of the user of a random rating, in sds
    some = np.unique(np.linspace(0, len(rated) - 1, MOST).astype(int)) if len(rated) > MOST else np.arange(len(rated))
    users, silent = rated[some], np.flatnonzero(counts == 0)
    known = [] if posterior.schema.user_x is None else [posterior.schema.user_x[users]]
    fixed = np.column_stack([np.ones(len(some)), x[some], *known])
    vectors = draws["user_vector"]  # may lie in files: moved in place, nobody else has them
    rng = np.random.default_rng([seed, 0, 1])  # no chain's
    for place in np.ndindex(posterior.n_chains, posterior.n_draws):
        of_sources = [phi[users] for phi in draws["source_vector"][place]] if "source_vector" in draws else []
        shift[place] = gap * _slope(np.column_stack([fixed, *of_sources]), vectors[place][users], rng)
        if not posterior.model.pools:
            vectors[place][silent] += shift[place]
    return out


def moved_back(posterior: Posterior) -> dict[str, np.ndarray]:
    """The draws of people: users without target rows where their prior had them."""
    draws, data = dict(posterior.draws), posterior.data
    shift = draws.pop("user_shift", None)
    if shift is not None and not posterior.model.pools and len(data):
        silent = np.bincount(data.user[data.is_target], minlength=data.n_users) == 0
        draws["user_vector"] = draws["user_vector"] - shift[:, :, None] * silent[:, None]
    return draws


def _slope(design: np.ndarray, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw of the coefficients (R,) of column 1 of ``design`` (user, column) for vectors (user, R)."""
    design, vectors = design.astype(np.float64), vectors.astype(np.float64)
    gram = design.T @ design
    gram[np.diag_indices(len(gram))] += np.append(
        [0.0, SHARE**-2.0], np.ones(len(gram) - 2)
    )  # the others have unit scales
    inverse = np.linalg.inv(gram)
    fitted = inverse @ (design.T @ vectors)
    left = vectors - design @ fitted
    root = np.linalg.cholesky(left.T @ left / len(left) + 1e-12 * np.eye(left.shape[1]))
    return fitted[1] + np.sqrt(inverse[1, 1]) * root @ rng.standard_normal(left.shape[1])
