"""Stacking: predictive distributions with and without the source, weighed by what held-out users say."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from bayesrec.baselines import Baseline
from bayesrec.data import Interactions
from bayesrec.data.seeds import checked_seed, generator
from bayesrec.diagnostics.folds import kfold
from bayesrec.diagnostics.heldout import possible, regime_of
from bayesrec.diagnostics.mixture import OBJECTIVES, REGIMES, Stack, breadth, mixed, residual_of, same_kind
from bayesrec.diagnostics.simple import Simple, kind_of
from bayesrec.errors import DataError, DataWarning
from bayesrec.inference import fit
from bayesrec.inference.base import Method, whole_fits
from bayesrec.likelihoods.predicted import Predicted
from bayesrec.models import PMF, CollectiveMF
from bayesrec.models.base import Model, Schema
from bayesrec.posterior import Posterior

__all__ = ["stack"]

FEW_KEPT, WARM_KEPT = 3, 6  # target ratings that held-out users of the two regimes keep, or more
EVEN = 1.0  # users for each arm that the prior of the common weights is worth
POOLED = 10.0  # users that the common weights are worth in a regime
RESERVED = ("fold", "item", "regime", "stack", "user")
# from weights (arm,) to a value, its gradient (arm,) and minus its Hessian (arm, arm)
Goal = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]


def stack(
    model: Model,
    data: Interactions,
    method: Method,
    folds: int = 5,
    seed: int = 0,
    *,
    n_support: int = 0,
    progress: bool = True,
    arms: Mapping[str, Model | Callable] | None = None,
    objective: str = "log_score",
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
    arms : mapping of name to Model or baseline, optional
        What is mixed, instead of ``none`` (PMF of the same rank and likelihood), ``transfer`` (the model) and ``pooled``
        (CollectiveMF). A baseline is one of ``br.baselines``, such as ``br.baselines.bias_transfer``: a normal around its
        rating, on levels the mass that falls to each.
    objective : str
        ``"log_score"``, or ``"squared_error"``: weights for the best mean (Breiman 1996) rather than the best distribution,
        as if ratings were normal around the mixed mean, with the mean square that the best arm leaves as variance.

    Returns
    -------
    Stack

    Raises
    ------
    DataError
        As `fit` and ``br.split.kfold_users`` do; names of arms that are none; no model among them, or a baseline beside
        models that leave out the ratings of sources; arms with densities beside arms with probabilities; another objective.
    KeyboardInterrupt
        A fit was interrupted: there are no weights from half an arm.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), Using stacking to average Bayesian predictive distributions.
    Breiman (1996), Stacked regressions.

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
    if objective not in OBJECTIVES:
        raise DataError(f"objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}")
    made = _arms(model, arms)
    data = data if data.shared == "users" else data.transposed()
    models = {name: arm for name, arm in made.items() if isinstance(arm, Model)}
    simple = {name: arm for name, arm in made.items() if not isinstance(arm, Model)}
    halves = kfold(model, data, folds, n_support, seed)
    _check(models, simple, data, objective)
    order = own_order(data, seed)
    keep = _kept(np.bincount(data.user[data.is_target], minlength=data.n_users), n_support, seed)
    parts = []

    def fits(train: Interactions) -> dict[str, Posterior | Simple]:
        with whole_fits("a fit was interrupted; there are no weights from half an arm"):
            fitted = {name: fit(arm, train, method, seed=seed, progress=progress) for name, arm in models.items()}
        most = max(fitted.values(), key=lambda arm: breadth(arm.data))
        every = fitted | {name: Simple(make, most.data, most.schema) for name, make in simple.items()}
        return {name: every[name] for name in made}

    for fold, (_, test) in enumerate(halves):
        held = np.isin(data.user, np.unique(test.user)) & (order >= keep[data.user])
        fitted, test = fits(data.mask(~held)), data.mask(held)
        who = {data.entity: data.users.decode(test.user), "regime": regime_of(keep[test.user]), "fold": fold}
        scores, residuals = {}, {}
        for name, arm in fitted.items():
            scores[name], mean = _judged(arm, test)
            residuals[residual_of(name)] = test.value - mean
        parts.append(pd.DataFrame(who | scores | residuals))
    rows, names = pd.concat(parts, ignore_index=True), list(made)
    rows["stack"] = rows[residual_of("stack")] = 0.0
    for fold in range(len(parts)):
        mine = rows["fold"] == fold
        weights = regime_weights(rows[~mine], names, data.entity, objective)
        share = weights.loc[rows.loc[mine, "regime"]].to_numpy().T
        rows.loc[mine, "stack"] = mixed(rows.loc[mine, names].to_numpy().T, share)
        rows.loc[mine, residual_of("stack")] = (rows.loc[mine, _residuals(names)].to_numpy().T * share).sum(0)
    return Stack(fits(data), regime_weights(rows, names, data.entity, objective), rows, objective)


def _arms(model: Model, arms: Mapping[str, Model | Callable] | None) -> dict[str, Model | Callable]:
    if arms is None:
        three: dict[str, Model | Callable] = {"none": PMF(**model.common), "transfer": model}
        return three if getattr(model, "source", None) is not None else three | {"pooled": CollectiveMF(**model.common)}
    bad = [
        name for name in arms if not isinstance(name, str) or name in RESERVED or name.startswith(residual_of("")[:-1])
    ]
    if bad or not arms:
        raise DataError(f"arms must have names other than {', '.join(RESERVED)}, at least one; got {list(arms)}")
    for name, arm in arms.items():
        if isinstance(arm, type) or not (isinstance(arm, Model) or callable(arm)):
            hint = "; give the function, not what it returns" if isinstance(arm, Baseline) else f": {arm!r}"
            raise DataError(f"arm {name!r} is neither a model nor a baseline of br.baselines{hint}")
    if not any(isinstance(arm, Model) for arm in arms.values()):
        raise DataError("arms need a model: baselines alone are no posterior.")
    return dict(arms)


def _check(models: dict[str, Model], simple: dict[str, Callable], data: Interactions, objective: str) -> None:
    """Refuse before any fit arms that cannot be mixed."""
    if objective == "squared_error" and data.columns.value is None:
        raise DataError("objective='squared_error' needs ratings; clicks are all 1.")
    kinds, views, schemas = {}, {}, {}
    for name, arm in models.items():
        views[name] = arm.view(data)
        model = arm.bound(views[name], data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # the fit says it again
            model.check(views[name])
        schemas[name] = Schema.of(views[name], model.likelihood)
        kinds[name] = kind_of(model, schemas[name])
    same_kind(kinds)
    most, kind = max(views, key=lambda name: breadth(views[name])), next(iter(kinds.values()))
    for name, make in simple.items():
        if kind not in ("densities", "probabilities of levels"):
            raise DataError(f"arm {name!r} is a baseline of ratings, and beside it stands {kind}; leave it out.")
        if views[most].is_target.all() and not data.is_target.all():
            raise DataError(
                f"arm {name!r} is a baseline, and no model beside it sees the ratings of a source; add TransferMF."
            )
        Simple(make, views[most], schemas[most]).normal(data.user[:1], data.item[:1])


def _judged(arm: Posterior | Simple, test: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """Log scores and means (row,) of held-out rows."""
    if isinstance(arm, Simple):
        return arm.scored(test)
    mean = np.empty(len(test))

    def look(rows: slice, law: Predicted) -> None:
        mean[rows] = law.mean.mean(1)

    by_chain, *_ = arm.scores(test, look)
    return possible(arm, logsumexp(by_chain, axis=0) - np.log(arm.n_chains), test), mean


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


def regime_weights(rows: pd.DataFrame, arms: list[str], entity: str, objective: str = "log_score") -> pd.DataFrame:
    """Weights by regime, shrunk to common ones, from the log scores or residuals of held-out rows. Internal."""
    common = _weights(rows, arms, entity, objective, np.full(len(arms), EVEN))
    table = [_weights(rows[rows["regime"] == name], arms, entity, objective, POOLED * common) for name in REGIMES]
    return pd.DataFrame(table, index=pd.Index(REGIMES, name="regime"), columns=arms)


def _weights(rows: pd.DataFrame, arms: list[str], entity: str, objective: str, prior: np.ndarray) -> np.ndarray:
    factor = rows[entity].nunique() / max(len(rows), 1)
    if objective == "log_score":
        return simplex_maximum(log_density(rows[arms].to_numpy()), factor, prior)
    return simplex_maximum(squares(rows[_residuals(arms)].to_numpy()), factor, prior)


def _residuals(arms: list[str]) -> list[str]:
    return [residual_of(name) for name in arms]


def log_density(score: np.ndarray) -> Goal:
    """``sum(log(exp(score) @ w))`` but for a constant; log scores (row, arm). Internal."""
    density = np.exp(score - score.max(1, keepdims=True))

    def goal(w: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        total = density @ w
        ratio = density / total[:, None]
        return float(np.log(total).sum()), ratio.sum(0), ratio.T @ ratio

    return goal


def squares(residual: np.ndarray) -> Goal:
    """Minus half the squared mixed residuals over the mean square of the best arm; residuals (row, arm). Internal."""
    gram = residual.T @ residual
    least = max(gram.diagonal().min(), 1e-12 * gram.diagonal().max()) / max(len(residual), 1)
    gram /= least or 1.0

    def goal(w: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        return -0.5 * float(w @ gram @ w), -gram @ w, gram

    return goal


def simplex_maximum(goal: Goal, factor: float, prior: np.ndarray) -> np.ndarray:
    """Weights (arm,) that maximise ``factor * goal(w) + prior @ log(w)`` for a concave goal. Internal.

    The objective is concave and a barrier: damped Newton steps inside the simplex reach the only maximum.
    """
    basis = np.linalg.svd(np.ones((1, len(prior))))[2][1:].T  # directions that keep the sum

    def value(w: np.ndarray) -> float:
        return factor * goal(w)[0] + float(prior @ np.log(w))

    w = prior / prior.sum()
    for _ in range(200):
        _, slope, curve = goal(w)
        slope = basis.T @ (factor * slope + prior / w)
        curve = basis.T @ (factor * curve + np.diag(prior / w**2)) @ basis
        move = np.linalg.solve(curve, slope)
        gain, step, size = float(slope @ move), basis @ move, 1.0
        if gain < 1e-20:
            break
        while (w + size * step).min() <= 0 or (gain > 1e-8 and value(w + size * step) < value(w) + 0.1 * size * gain):
            size /= 2
        w = w + size * step
    return w / w.sum()
