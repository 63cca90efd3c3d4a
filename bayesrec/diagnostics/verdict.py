"""Does the source help or hurt? Held-out log scores with and without it, and a verdict that may be "undetermined"."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data import Interactions
from bayesrec.data.interactions import checked_interactions
from bayesrec.data.seeds import checked_seed
from bayesrec.diagnostics.beside import INTERRUPTED, at_once, in_order, stoppable
from bayesrec.diagnostics.folds import kfold
from bayesrec.diagnostics.heldout import LEAST_CHAINS, held_out
from bayesrec.diagnostics.heldout import HeldOut as HeldOut
from bayesrec.diagnostics.heldout import regime_of as regime_of
from bayesrec.diagnostics.informed import needs_posterior
from bayesrec.diagnostics.judge import Judgement, chain_sums, sampler_variance
from bayesrec.diagnostics.judge import judge as _judge
from bayesrec.diagnostics.measures import measures
from bayesrec.diagnostics.segments import aligned, built_in
from bayesrec.diagnostics.segments import segments as by_segment
from bayesrec.diagnostics.sensitivity import sensitivity as by_variant
from bayesrec.diagnostics.sensitivity import variants
from bayesrec.diagnostics.transfer_report import TransferReport
from bayesrec.diagnostics.users import everyone, log_scores, user_frame
from bayesrec.diagnostics.wording import CHOICE as CHOICE
from bayesrec.errors import DataError, NegativeTransferWarning
from bayesrec.inference.base import Method, fit, fit_unchecked, whole_fits
from bayesrec.inference.progress import Progress
from bayesrec.models import PMF
from bayesrec.models.base import Model
from bayesrec.posterior import Posterior

__all__ = ["TransferReport", "assess_transfer", "negative_transfer"]


def negative_transfer(
    with_transfer: Posterior,
    without_transfer: Posterior,
    test: Any,
    *,
    min_effect: float = 0.0,
    seed: int = 0,
    segments: Any = None,
) -> TransferReport:
    """Compare two posteriors on held-out ratings. Stable.

    The negative-transfer gap (Wang et al. 2019) in log scores. The cleanest comparison is the same model with the source
    rows removed; PMF is a second reference.

    Parameters
    ----------
    with_transfer, without_transfer : Posterior
    test : DataFrame or Interactions
        Target rows that neither posterior was fitted to; the reason of the verdict says so if one was.
    min_effect : float
        Smallest mean difference a row, in nats, worth a verdict.
    seed : int
        Of the Bayesian bootstrap over users; 0 or more.
    segments : DataFrame or Series, optional
        Groups of users (of items where they are shared): a column for each segment, users in the index or in a column of
        the name it has in the data. Target and source ratings in training are always among the segments.

    Returns
    -------
    TransferReport

    Raises
    ------
    DataError
        No test rows, test rows outside the target, a seed that is no whole number of 0 or more; ids that are numbers in one
        fit and text in the other; a user of the test rows who has no row or a missing value in ``segments``.

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
    for one in (with_transfer, without_transfer):
        needs_posterior(one, "negative_transfer", "of a stack give it an arm")
    _check_ids(with_transfer, without_transfer)
    scores = held_out(with_transfer, without_transfer, test)
    labels = _labels(with_transfer.model, without_transfer.model)
    found = report([scores], with_transfer.data, labels, min_effect, seed, segments)
    return replace(found, reason=found.reason + _seen((with_transfer, without_transfer), test))


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
    segments: Any = None,
    sensitivity: bool = False,
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
        Every user with source and target rows is held out once; with a source prior, every user whom it knows.
    n_support : int
        Target ratings a held-out user keeps: 0 judges cold start, 1 to 5 the regime "few".
    baseline : Model, optional
        Never sees a source row. None is PMF of the same rank and likelihood; pass the model itself for the gap
        between one algorithm with and without the source.
    seed : int
        Of the folds, the fits and the bootstrap; 0 or more.
    min_effect : float
        Smallest mean difference a row, in nats, worth a verdict.
    segments : DataFrame or Series, optional
        As for :func:`negative_transfer`.
    sensitivity : bool
        Fit the first fold again with the prior odds of an irrelevant source, and with the shrinkage scale of the map,
        doubled and halved, where the model has the fields ``gate_prior`` and ``shrinkage``: four more fits.
    progress : bool

    Returns
    -------
    TransferReport

    Raises
    ------
    DataError
        As `fit` and ``br.split.kfold_users`` do; ``segments`` that miss a held-out user, told before the first fit.
    KeyboardInterrupt
        A fit was interrupted: there is no verdict from half an arm.

    Notes
    -----
    Where ``Gibbs`` has more threads than chains, so many fits run side by side as have a thread for each chain. The report
    does not depend on it.

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
    checked_interactions(data)
    for what, one in (("model", model), ("baseline", baseline)):
        if not isinstance(one, Model) and (one is not None or what == "model"):
            raise TypeError(f"{what} must be a Model such as br.models.TransferMF(), not {one!r}")
    if baseline is None:
        baseline = PMF(**model.common)
    if not data.is_target.all() and model.view(data).is_target.all() and getattr(model, "source", None) is None:
        raise DataError(
            f"{model!r} uses no source rows, so there is nothing to judge; assess a model that does, such as "
            "br.models.TransferMF()."
        )
    if getattr(baseline, "source", None) is not None:
        raise DataError(
            "the baseline must not see the source, and this one has a source prior; leave baseline out for PMF."
        )
    if segments is not None:  # before the work
        for _, test in kfold(model, data, folds, n_support, seed):
            vocabulary, code = (test.users, test.user) if test.shared == "users" else (test.items, test.item)
            aligned(segments, pd.Index(vocabulary.decode(np.unique(code))), _key(data), data.entity)
    others = variants(model) if sensitivity else {}
    parts: list[HeldOut] = []
    changed: dict[str, HeldOut] = {}
    plan = (model, baseline, list(others.values()), data, method, folds, n_support, seed, progress)
    with closing(_fits(*plan)) as fits:
        for test, arm, bare, more in fits:
            parts.append(held_out(arm, bare, test))
            changed |= {name: held_out(x, bare, test) for name, x in zip(others, more, strict=False)}
    found = report(parts, data, _labels(model, baseline), min_effect, seed, segments)
    prior = getattr(model, "source", None)
    found = found if prior is None else replace(found, sources=(prior.name,))
    if not changed:
        return found
    first = {"default": parts[0]} | changed
    table = by_variant({name: _whole([part], min_effect, seed, data.entity) for name, part in first.items()})
    return replace(found, sensitivity=table)


def _fits(
    model: Model,
    baseline: Model,
    others: list[Model],
    data: Interactions,
    method: Method,
    folds: int,
    n_support: int,
    seed: int,
    progress: bool,
) -> Generator[tuple[Interactions, Posterior, Posterior, list[Posterior]]]:
    """For each fold the held-out rows and the fits: with the source, without, and of the other models in the first fold."""
    parts = kfold(model, data, folds, n_support, seed)
    n, method = at_once(method, 2 * folds + len(others))
    stop, tests = threading.Event(), list[Interactions]()

    def jobs() -> Iterator[Callable[[], Posterior]]:
        each = progress and n == 1
        arms = [stoppable(arm, stop) if n > 1 else arm for arm in (model, baseline, *others)]
        for train, test in parts:
            tests.append(test)
            yield partial(fit, arms[0], train, method, seed=seed, progress=each)
            yield partial(fit_unchecked, arms[1], train.without_sources(), method, seed, each)
            if len(tests) == 1:
                yield from (partial(fit, arm, train, method, seed=seed, progress=each) for arm in arms[2:])

    with Progress("folds", folds, progress and n > 1) as bar, closing(in_order(jobs(), n, stop)) as results:
        for fold in range(folds):
            with whole_fits(INTERRUPTED):
                arm, bare = next(results), next(results)
                more = [next(results) for _ in others] if fold == 0 else []
            yield tests[fold], arm, bare, more
            bar.advance()


def _check_effect(min_effect: Any) -> None:
    number = isinstance(min_effect, (int, float, np.integer, np.floating)) and not isinstance(min_effect, bool)
    if not number or not 0.0 <= min_effect < np.inf:
        raise DataError(f"min_effect must be a number of nats a row, 0 or more, not {min_effect!r}")


def _check_ids(arm: Posterior, bare: Posterior) -> None:
    """Refuse fits with ids of different types."""
    numbers = [pd.api.types.is_integer_dtype(posterior.data.users.ids.dtype) for posterior in (arm, bare)]
    if numbers[0] != numbers[1]:
        kinds = ["numbers" if one else "text" for one in numbers]
        raise DataError(
            f"{arm.data.entity}s are {kinds[0]} in one fit and {kinds[1]} in the other: what one knows is unknown to the other. "
            "Fit both to the same table."
        )


def _seen(fits: tuple[Posterior, Posterior], test: Any) -> str:
    """What the reason adds if one of the posteriors was fitted to test rows."""
    for posterior in fits:
        data, batch = posterior.data, posterior.data.encode(test)
        mine, known = data.is_target, (batch.user >= 0) & (batch.item >= 0)
        pairs = data.user[mine] * data.n_items + data.item[mine]
        n = int((known & np.isin(batch.user * data.n_items + batch.item, pairs)).sum())
        if n:
            return (
                f" But {n:,} of {len(batch):,} test rows were in a fit, and a verdict needs rows that neither has seen."
            )
    return ""


def _labels(model: Model, baseline: Model) -> tuple[str, str]:
    name, other = type(model).__name__, type(baseline).__name__
    return name, f"{other} without the source" if name == other else other


def _key(data: Interactions) -> str:
    """Name of the column of the shared side."""
    return data.columns.user if data.shared == "users" else data.columns.item


def report(
    parts: list[HeldOut],
    data: Interactions,
    labels: tuple[str, str],
    min_effect: float,
    seed: int,
    segments: Any = None,
) -> TransferReport:
    """Judge held-out rows of one or more folds. Internal."""
    frames = [user_frame(part, data.entity) for part in parts]
    users = everyone(frames)
    ids = pd.Index(users[data.entity])
    extra = [] if segments is None else [aligned(segments, ids, _key(data), data.entity)]
    scores = [log_scores(part) for part in parts]
    rows = [part.rows.assign(delta=x[0] - x[1]) for part, x in zip(parts, scores, strict=True) if part.rows is not None]
    table = pd.concat(rows, ignore_index=True) if len(rows) == len(parts) else None
    regimes = {}
    for name in ("cold", "few", "warm"):
        chosen = [frame["regime"].to_numpy() == name for frame in frames]
        if any(c.any() for c in chosen):
            regimes[name] = _judge(frames, parts, chosen, min_effect, seed, data.entity)
    alone = len(regimes) == 1  # then the regime is all there is
    whole = next(iter(regimes.values())) if alone else _whole(parts, min_effect, seed, data.entity)
    edges = np.cumsum([len(part.ids) for part in parts])[:-1]

    def sampler(chosen: np.ndarray) -> float:
        pairs = zip(parts, np.split(chosen, edges), strict=True)
        return sum(sampler_variance(chain_sums(part, c)) for part, c in pairs)

    n_own = np.concatenate([part.n_own for part in parts])
    n_source = [part.n_source for part in parts if part.n_source is not None]
    groups = [built_in(n_own, np.concatenate(n_source) if len(n_source) == len(parts) else None), *extra]
    delta, n = users["delta"].to_numpy(), users["n"].to_numpy()
    notes = []
    if not all(len(part.shares) == 2 for part in parts):
        notes.append(f"Fewer than {LEAST_CHAINS} chains: the sampler's noise is not part of the standard errors.")
    if whole.verdict == "negative":
        warnings.warn(
            f"negative transfer: {labels[0]} scores {-whole.delta:.1f} nats worse than {labels[1]} on held-out ratings.",
            NegativeTransferWarning,
            stacklevel=3,
        )
    return TransferReport(
        verdict=whole.verdict,
        probability=whole.probability,
        delta=whole.delta,
        delta_per_row=whole.delta_per_row,
        se=whole.se,
        per_user=users,
        regimes=pd.DataFrame([vars(j) for j in regimes.values()], index=pd.Index(list(regimes), name="regime")),
        equal_user_mean=whole.equal_user_mean,
        joint_delta=float(users["joint"].sum()),
        sampler_se=whole.sampler_se,
        reason=whole.reason,
        sources=data.sources,
        target=data.target,
        labels=labels,
        notes=tuple(notes),
        rows=table,
        entity=data.entity,
        metrics=measures(whole, sum(x.sum(1) for x in scores), table, data.entity, _floor(data, table), seed),
        segments=by_segment(delta, n, pd.concat(groups, axis=1), sampler, min_effect),
    )


def _whole(parts: list[HeldOut], min_effect: float, seed: int, entity: str) -> Judgement:
    """The verdict on all users of the parts."""
    frames = [user_frame(part, entity) for part in parts]
    return _judge(frames, parts, [np.ones(len(f), dtype=bool) for f in frames], min_effect, seed, entity)


def _floor(data: Interactions, rows: pd.DataFrame | None) -> float:
    """Lowest target rating in training or held out."""
    values = [data.value[data.is_target], *([] if rows is None else [rows["value"].to_numpy()])]
    return float(min((x.min() for x in values if len(x)), default=0.0))
