"""Does the source help or hurt? Held-out log scores with and without it, and a verdict that may be "undetermined"."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from bayesrec.data import Interactions, split
from bayesrec.data.seeds import checked_seed
from bayesrec.diagnostics import wording
from bayesrec.diagnostics.heldout import HeldOut as HeldOut
from bayesrec.diagnostics.heldout import held_out, regime_of
from bayesrec.diagnostics.wording import CHOICE as CHOICE
from bayesrec.diagnostics.wording import counted
from bayesrec.errors import DataError, NegativeTransferWarning
from bayesrec.inference.base import Method, fit, fit_unchecked, whole_fits
from bayesrec.models import PMF
from bayesrec.models.base import Model
from bayesrec.posterior import Posterior

__all__ = ["TransferReport", "assess_transfer", "negative_transfer"]

LEAST_DELTA = 4.0  # summed log score below which nothing is claimed
LEAST_USERS = 30
CONFIDENCE = 0.95
LEAST_CHAINS = 4
BOOTSTRAP = 4000


@dataclass(frozen=True)
class Judgement:
    """The verdict on one set of held-out rows. Internal."""

    verdict: str
    probability: float
    delta: float
    delta_per_row: float
    se: float
    sampler_se: float
    n_users: int
    n_rows: int
    equal_user_mean: float
    reason: str


@dataclass(frozen=True)
class TransferReport:
    """What held-out ratings say about a source. Stable.

    Attributes
    ----------
    verdict : {"positive", "negative", "undetermined"}
    probability : float
        Probability of negative transfer: that the summed log-score difference is below zero; a tie counts one half.
    delta : float
        Log score with the source minus without, summed over held-out rows.
    delta_per_row, se : float
        Mean a row; standard error of ``delta``, clustered by user, with the sampler's noise. NaN for a single user.
    per_user : DataFrame
        user (item where items are shared), n (held-out rows), delta, joint (the same for all of a user's rows at once), regime.
    regimes : DataFrame
        A row for each regime (cold: no target rating in training; few: 1 to 5; warm: more) with a verdict of its own.
    equal_user_mean : float
        Mean over users of their delta a row; heavy raters dominate the sum, not this.
    joint_delta : float
        As ``delta``, from the joint density of each user's rows.
    reason : str
        Why a verdict is undetermined; empty otherwise.
    rows : DataFrame or None
        A row for each held-out rating: user, item, n_own (the user's target ratings in training), value, mean, sd,
        lower, upper (90%), pit, mean_without (the other arm's prediction), delta. Rating units but for pit and delta.
    entity : {"user", "item"}
        Which side is shared. Where it is the items, they stand in the users' place in everything above.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(20, 20), n_ratings=(15, 10), rank=1)
    >>> train, test = br.split.cold_users(br.Interactions.from_frame(frame, target="target", value="value"), fraction=0.6)
    >>> method = br.Gibbs(draws=20, warmup=20, chains=4)
    >>> fits = [br.fit(m, train, method, progress=False) for m in (br.models.TransferMF(rank=1), br.models.PMF(rank=1))]
    >>> found = br.negative_transfer(*fits, test)
    >>> found.verdict, found.probability < 0.05, found.regimes.index.tolist()
    ('positive', True, ['cold'])
    >>> found.per_user.columns.tolist()
    ['user', 'n', 'delta', 'joint', 'regime']
    """

    verdict: str
    probability: float
    delta: float
    delta_per_row: float
    se: float
    per_user: pd.DataFrame
    regimes: pd.DataFrame
    equal_user_mean: float
    joint_delta: float
    sampler_se: float
    reason: str
    sources: tuple = ()
    target: Any = None
    labels: tuple[str, str] = ("with the source", "without")
    notes: tuple[str, ...] = field(default_factory=tuple)
    rows: pd.DataFrame | None = field(default=None, repr=False)
    entity: str = "user"

    def summary(self) -> str:
        """A few plain sentences with the numbers."""
        return wording.summary(self)

    def _repr_html_(self) -> str:
        return wording.card(self)

    def __repr__(self) -> str:
        return f"TransferReport({self.verdict!r}, delta={self.delta:+.1f}, se={self.se:.1f}, probability={self.probability:.3f})"


def negative_transfer(
    with_transfer: Posterior, without_transfer: Posterior, test: Any, *, min_effect: float = 0.0, seed: int = 0
) -> TransferReport:
    """Compare two posteriors on held-out ratings. Stable.

    The negative-transfer gap (Wang et al. 2019) in log scores. The cleanest comparison is the same model with the source
    rows removed; PMF is a second reference.

    Parameters
    ----------
    with_transfer, without_transfer : Posterior
    test : DataFrame or Interactions
        Target rows that neither posterior was fitted to.
    min_effect : float
        Smallest mean difference a row, in nats, worth a verdict.
    seed : int
        Of the Bayesian bootstrap over users; 0 or more.

    Returns
    -------
    TransferReport

    Raises
    ------
    DataError
        No test rows, test rows outside the target, a seed that is no whole number of 0 or more.

    Warns
    -----
    NegativeTransferWarning
        If the verdict is negative.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(20, 20), n_ratings=(12, 6))
    >>> train, test = br.split.cold_users(br.Interactions.from_frame(frame, target="target", value="value"))
    >>> method = br.Gibbs(draws=20, warmup=20, chains=4)
    >>> fits = [br.fit(m, train, method, progress=False) for m in (br.models.TransferMF(rank=1), br.models.PMF(rank=1))]
    >>> br.negative_transfer(*fits, test).verdict
    'undetermined'
    """
    seed = checked_seed(seed)
    _check_effect(min_effect)
    scores = held_out(with_transfer, without_transfer, test)
    return report([scores], with_transfer.data, _labels(with_transfer.model, without_transfer.model), min_effect, seed)


def assess_transfer(
    model: Model,
    data: Interactions,
    method: Method,
    folds: int = 5,
    n_support: int = 0,
    baseline: Model | None = None,
    seed: int = 0,
    *,
    min_effect: float = 0.0,
    progress: bool = True,
) -> TransferReport:
    """Hold out users in folds (items where items are shared), fit with and without the source, and judge. Stable.

    Parameters
    ----------
    model : Model
        With the source, for example ``TransferMF()``.
    data : Interactions
    method : Method
        Four chains or more, or the sampler's noise is not part of the standard error.
    folds : int
        Every user with source and target rows is held out once.
    n_support : int
        Target ratings a held-out user keeps: 0 judges cold start, 1 to 5 the regime "few".
    baseline : Model, optional
        Never sees a source row. None is PMF of the same rank and likelihood; pass the model itself for the gap
        between one algorithm with and without the source.
    seed : int
        Of the folds, the fits and the bootstrap; 0 or more.
    min_effect : float
        Smallest mean difference a row, in nats, worth a verdict.
    progress : bool

    Returns
    -------
    TransferReport

    Raises
    ------
    DataError
        As `fit` and ``br.split.kfold_users`` do.
    KeyboardInterrupt
        A fit was interrupted: there is no verdict from half an arm.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(20, 20), n_ratings=(12, 6), rank=1)
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> model, method = br.models.TransferMF(rank=1), br.Gibbs(draws=10, warmup=10, chains=4)
    >>> found = assess_transfer(model, data, method, folds=2, baseline=model, progress=False)
    >>> len(found.per_user), len(found.rows)  # every user was held out once, with all their target ratings
    (40, 240)
    >>> found.labels
    ('TransferMF', 'TransferMF without the source')
    """
    seed = checked_seed(seed)
    _check_effect(min_effect)
    baseline = PMF(rank=model.rank, likelihood=model.likelihood) if baseline is None else baseline
    parts = []
    for train, test in split.kfold_users(data, folds=folds, n_support=n_support, seed=seed):
        with whole_fits("a fit was interrupted; there is no verdict from half an arm"):
            arm = fit(model, train, method, seed=seed, progress=progress)
            bare = fit_unchecked(baseline, train.without_sources(), method, seed, progress)
        parts.append(held_out(arm, bare, test))
    return report(parts, data, _labels(model, baseline), min_effect, seed)


def _check_effect(min_effect: Any) -> None:
    number = isinstance(min_effect, (int, float, np.integer, np.floating)) and not isinstance(min_effect, bool)
    if not number or not 0.0 <= min_effect < np.inf:
        raise DataError(f"min_effect must be a number of nats a row, 0 or more, not {min_effect!r}")


def _labels(model: Model, baseline: Model) -> tuple[str, str]:
    name, other = type(model).__name__, type(baseline).__name__
    return name, f"{other} without the source" if name == other else other


def report(
    parts: list[HeldOut], data: Interactions, labels: tuple[str, str], min_effect: float, seed: int
) -> TransferReport:
    frames, rows = [], []
    for part in parts:
        pooled = [logsumexp(x, axis=0) - np.log(len(x)) for x in (part.with_chains, part.without_chains)]
        n = np.bincount(part.user, minlength=len(part.ids))
        delta = np.bincount(part.user, pooled[0] - pooled[1], minlength=len(part.ids))
        regime = regime_of(part.n_own)
        if part.rows is not None:
            rows.append(part.rows.assign(delta=pooled[0] - pooled[1]))
        who = {data.entity: part.ids}
        frames.append(pd.DataFrame(who | {"n": n, "delta": delta, "joint": part.joint, "regime": regime}))
    everyone = pd.concat(frames, ignore_index=True)
    regimes = {}
    for name in ("cold", "few", "warm"):
        chosen = [frame["regime"].to_numpy() == name for frame in frames]
        if any(c.any() for c in chosen):
            regimes[name] = _judge(frames, parts, chosen, min_effect, seed, data.entity)
    whole = _judge(frames, parts, [np.ones(len(f), dtype=bool) for f in frames], min_effect, seed, data.entity)
    notes = []
    if not all(len(x) >= LEAST_CHAINS for p in parts for x in (p.with_chains, p.without_chains)):
        notes.append(f"Fewer than {LEAST_CHAINS} chains: the sampler's noise is not part of the standard errors.")
    if whole.verdict == "negative":
        warnings.warn(
            f"negative transfer: {labels[0]} scores {-whole.delta:.1f} nats worse than {labels[1]} on held-out ratings.",
            NegativeTransferWarning,
            stacklevel=3,
        )
    table = pd.DataFrame([vars(j) for j in regimes.values()], index=pd.Index(list(regimes), name="regime"))
    return TransferReport(
        verdict=whole.verdict,
        probability=whole.probability,
        delta=whole.delta,
        delta_per_row=whole.delta_per_row,
        se=whole.se,
        per_user=everyone,
        regimes=table,
        equal_user_mean=whole.equal_user_mean,
        joint_delta=float(everyone["joint"].sum()),
        sampler_se=whole.sampler_se,
        reason=whole.reason,
        sources=data.sources,
        target=data.target,
        labels=labels,
        notes=tuple(notes),
        rows=pd.concat(rows, ignore_index=True) if len(rows) == len(parts) else None,
        entity=data.entity,
    )


def _judge(
    frames: list[pd.DataFrame],
    parts: list[HeldOut],
    chosen: list[np.ndarray],
    min_effect: float,
    seed: int,
    entity: str,
) -> Judgement:
    """Judge the chosen users of each part, or items where they are shared."""
    delta = np.concatenate([f["delta"].to_numpy()[c] for f, c in zip(frames, chosen, strict=True)])
    n = np.concatenate([f["n"].to_numpy()[c] for f, c in zip(frames, chosen, strict=True)])
    sampler = sum(_sampler_variance(p, c) for p, c in zip(parts, chosen, strict=True))
    n_users, n_rows, total = len(delta), int(n.sum()), float(delta.sum())
    clustered = n_users / (n_users - 1) * ((delta - delta.mean()) ** 2).sum() if n_users > 1 else np.nan
    verdict, probability = _classify(delta, sampler, seed)
    reason = ""
    if n_users < LEAST_USERS:
        reason = f"only {counted(n_users, entity)}, at least {LEAST_USERS} are needed"
    elif abs(total) < LEAST_DELTA:
        reason = f"the summed difference {total:+.1f} is below {LEAST_DELTA:g} nats"
    elif abs(total) / n_rows < min_effect:
        reason = f"the mean difference {total / n_rows:+.4f} is below the effect of interest {min_effect:g}"
    elif verdict == "undetermined":
        reason = f"the probability of negative transfer is {probability:.2f}"
    elif _classify(np.delete(delta, np.argmax(np.abs(delta))), sampler, seed)[0] != verdict:
        reason = f"one {entity} decides: without the {entity} with the largest difference the verdict changes"
    return Judgement(
        verdict="undetermined" if reason else verdict,
        probability=probability,
        delta=total,
        delta_per_row=total / n_rows,
        se=float(np.sqrt(clustered + sampler)),
        sampler_se=float(np.sqrt(sampler)),
        n_users=n_users,
        n_rows=n_rows,
        equal_user_mean=float((delta / n).mean()),
        reason=reason,
    )


def _classify(delta: np.ndarray, sampler: float, seed: int) -> tuple[str, float]:
    """Verdict and probability of a negative sum, by the Bayesian bootstrap over users plus the sampler's noise."""
    rng = np.random.default_rng(seed)
    negative, done = 0.0, 0
    while done < BOOTSTRAP:  # in pieces: the weights of many users take room
        m = min(500, BOOTSTRAP - done)
        weights = rng.standard_exponential((m, len(delta)))
        sums = len(delta) * (weights @ delta) / weights.sum(1) + np.sqrt(sampler) * rng.standard_normal(m)
        negative, done = negative + (sums < 0).sum() + 0.5 * (sums == 0).sum(), done + m
    probability = float(negative / BOOTSTRAP)
    if abs(delta.sum()) < LEAST_DELTA:
        return "undetermined", probability
    if probability > CONFIDENCE:
        return "negative", probability
    return ("positive" if probability < 1.0 - CONFIDENCE else "undetermined"), probability


def _sampler_variance(part: HeldOut, chosen: np.ndarray) -> float:
    """Variance of the summed difference that comes from the chains: Var over chains / chains, both arms."""
    rows = chosen[part.user]
    out = 0.0
    for chains in (part.with_chains, part.without_chains):
        if len(chains) >= LEAST_CHAINS:
            out += float(chains[:, rows].sum(1).var(ddof=1)) / len(chains)
    return out
