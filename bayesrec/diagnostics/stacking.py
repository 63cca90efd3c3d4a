"""Stacking: predictive distributions with and without the source, weighed by what held-out users say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bayesrec.data import Interactions
from bayesrec.data.seeds import checked_seed, generator
from bayesrec.diagnostics.folds import kfold
from bayesrec.diagnostics.heldout import possible, regime_of
from bayesrec.diagnostics.mixture import REGIMES, Stack, mixed
from bayesrec.errors import DataError
from bayesrec.inference import fit
from bayesrec.inference.base import Method, whole_fits
from bayesrec.models import PMF, CollectiveMF
from bayesrec.models.base import Model
from bayesrec.posterior import Posterior

__all__ = ["stack"]

FEW_KEPT, WARM_KEPT = 3, 6  # target ratings that held-out users of the two regimes keep, or more
EVEN = 1.0  # users for each arm that the prior of the common weights is worth
POOLED = 10.0  # users that the common weights are worth in a regime
RESERVED = ("fold", "item", "regime", "stack", "user")


def stack(
    model: Model,
    data: Interactions,
    method: Method,
    folds: int = 5,
    seed: int = 0,
    *,
    n_support: int = 0,
    progress: bool = True,
    arms: Mapping[str, Model] | None = None,
) -> Stack:
    """Mix no transfer, transfer and full pooling by what held-out users say: a safety net. Provisional.

    Stacking of predictive distributions (Yao et al. 2018): the weights maximise the log density of the mixture, summed
    over the rows of held-out users. Every user with source and target rows is held out in one fold, and there keeps
    none, three or most (four fifths, at least six) of their target ratings, drawn at random among what leaves a rating
    to be judged: so each regime has held-out rows, and weights of its own. At last all arms are fitted to all data.

    The prior of the common weights is Dirichlet, worth one user for each arm; that of a regime's weights has its mode
    at the common ones and is worth ten users. Rows count alike, with a sum of weights that is the number of users, since
    the rows of a user are no independent evidence.

    Parameters
    ----------
    model : Model
        With the source, for example ``TransferMF()``. One with a source prior needs target ratings alone; nothing can then be
        pooled.
    data : Interactions
    method : Method
    folds : int
    seed : int
        Of the folds, the ratings kept and the fits; 0 or more.
    n_support : int
        The least that a held-out user keeps: 1 where nobody is ever cold.
    progress : bool
    arms : mapping of name to Model, optional
        What is mixed, instead of ``none`` (PMF of the same rank and likelihood), ``transfer`` (the model) and ``pooled``
        (CollectiveMF).

    Returns
    -------
    Stack

    Raises
    ------
    DataError
        As `fit` and ``br.split.kfold_users`` do; names of arms that are none.
    KeyboardInterrupt
        A fit was interrupted: there are no weights from half an arm.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), Using stacking to average Bayesian predictive distributions.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(20, 20), n_ratings=(12, 9), rank=1)
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> method = br.Gibbs(draws=20, warmup=20, chains=2)
    >>> mix = stack(br.models.TransferMF(rank=1), data, method, folds=2, progress=False)
    >>> mix.predict(frame[frame.domain == "target"].head(1)).columns.tolist()
    ['user', 'item', 'domain', 'mean', 'sd', 'lower', 'upper']
    """
    seed = checked_seed(seed)
    models = _models(model, arms)
    data = data if data.shared == "users" else data.transposed()
    order = own_order(data, seed)
    keep = _kept(np.bincount(data.user[data.is_target], minlength=data.n_users), n_support, seed)
    parts = []

    def fits(train: Interactions) -> dict[str, Posterior]:
        with whole_fits("a fit was interrupted; there are no weights from half an arm"):
            return {name: fit(arm, train, method, seed=seed, progress=progress) for name, arm in models.items()}

    for fold, (_, test) in enumerate(kfold(model, data, folds, n_support, seed)):
        held = np.isin(data.user, np.unique(test.user)) & (order >= keep[data.user])
        fitted, test = fits(data.mask(~held)), data.mask(held)
        who = {data.entity: data.users.decode(test.user), "regime": regime_of(keep[test.user]), "fold": fold}
        scores = {name: possible(arm, arm.log_score(test), test) for name, arm in fitted.items()}
        parts.append(pd.DataFrame(who | scores))
    rows = pd.concat(parts, ignore_index=True)
    rows["stack"] = 0.0
    for fold in range(len(parts)):
        mine = rows["fold"] == fold
        weights = regime_weights(rows[~mine], list(models), data.entity)
        share = weights.loc[rows.loc[mine, "regime"]].to_numpy().T
        rows.loc[mine, "stack"] = mixed(rows.loc[mine, list(models)].to_numpy().T, share)
    return Stack(fits(data), regime_weights(rows, list(models), data.entity), rows)


def _models(model: Model, arms: Mapping[str, Model] | None) -> dict[str, Model]:
    if arms is None:
        pooled = {} if getattr(model, "source", None) is not None else {"pooled": CollectiveMF(**model.common)}
        return {"none": PMF(**model.common), "transfer": model} | pooled
    bad = [name for name in arms if not isinstance(name, str) or name in RESERVED]
    if bad or not arms:
        raise DataError(f"arms must have names other than {', '.join(RESERVED)}, at least one; got {list(arms)}")
    return dict(arms)


def own_order(data: Interactions, seed: int) -> np.ndarray:
    """Place of each target row among those of its user in a random order, (row,); -1 for source rows. Internal.

    It depends on the pairs of user and item, not on the order of rows.
    """
    rows = np.flatnonzero(data.is_target)
    rows = rows[np.lexsort((data.item[rows], data.user[rows]))]
    rows = rows[np.lexsort((generator(seed).random(len(rows)), data.user[rows]))]
    _, start, count = np.unique(data.user[rows], return_index=True, return_counts=True)
    out = np.full(len(data), -1)
    out[rows] = np.arange(len(rows)) - np.repeat(start, count)
    return out


def _kept(count: np.ndarray, n_support: int, seed: int) -> np.ndarray:
    """Target ratings that each user keeps when held out: none, few or most, at random among what leaves one."""
    warm = np.maximum(WARM_KEPT, count - np.maximum(1, count // 5))
    plan = generator(seed, 1).integers(0, 1 + (count > FEW_KEPT) + (count > WARM_KEPT))
    return np.maximum(np.choose(plan, [np.zeros_like(count), np.full_like(count, FEW_KEPT), warm]), n_support)


def regime_weights(rows: pd.DataFrame, arms: list[str], entity: str) -> pd.DataFrame:
    """Weights by regime, shrunk to common ones, from the log scores of held-out rows. Internal."""
    common = _weights(rows, arms, entity, np.full(len(arms), EVEN))
    table = [_weights(rows[rows["regime"] == name], arms, entity, POOLED * common) for name in REGIMES]
    return pd.DataFrame(table, index=pd.Index(REGIMES, name="regime"), columns=arms)


def _weights(rows: pd.DataFrame, arms: list[str], entity: str, prior: np.ndarray) -> np.ndarray:
    factor = rows[entity].nunique() / max(len(rows), 1)
    return simplex_maximum(rows[arms].to_numpy(), factor, prior)


def simplex_maximum(score: np.ndarray, factor: float, prior: np.ndarray) -> np.ndarray:
    """Weights (arm,) that maximise ``factor * sum(log(exp(score) @ w)) + prior @ log(w)``; score (row, arm). Internal.

    The objective is concave and a barrier: damped Newton steps inside the simplex reach the only maximum.
    """
    density = np.exp(score - score.max(1, keepdims=True))
    basis = np.linalg.svd(np.ones((1, len(prior))))[2][1:].T  # directions that keep the sum

    def value(w: np.ndarray) -> float:
        return float(factor * np.log(density @ w).sum() + prior @ np.log(w))

    w = prior / prior.sum()
    for _ in range(200):
        ratio = density / (density @ w)[:, None]
        slope = basis.T @ (factor * ratio.sum(0) + prior / w)
        curve = basis.T @ (factor * ratio.T @ ratio + np.diag(prior / w**2)) @ basis
        move = np.linalg.solve(curve, slope)
        gain, step, size = float(slope @ move), basis @ move, 1.0
        if gain < 1e-20:
            break
        while (w + size * step).min() <= 0 or (gain > 1e-8 and value(w + size * step) < value(w) + 0.1 * size * gain):
            size /= 2
        w = w + size * step
    return w / w.sum()
