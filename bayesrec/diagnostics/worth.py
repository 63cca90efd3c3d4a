"""Worth in ratings: how many target ratings of their own the source replaces for a user, and when it stops to matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from bayesrec.data import Interactions, Vocabulary
from bayesrec.data.seeds import checked_seed, generator
from bayesrec.diagnostics.folds import kfold, known
from bayesrec.diagnostics.heldout import possible
from bayesrec.diagnostics.stacking import own_order
from bayesrec.diagnostics.wording import CHOICE, counted
from bayesrec.errors import DataError
from bayesrec.inference.base import Method, fit, fit_unchecked, whole_fits
from bayesrec.models import PMF
from bayesrec.models.base import Model
from bayesrec.posterior import Posterior

__all__ = ["EFFECT", "Worth", "worth_in_ratings"]

EFFECT = 0.005  # nats a rating below which a gain no longer matters: about half a percent of RMSE
TAILS = (0.05, 0.95)
BOOTSTRAP = 2000
GRID = 400
FURTHEST = 10  # multiples of the largest size that the gap is extrapolated to
TURNS, DECAYS = 2.0 ** np.arange(7), np.arange(1, 17) / 4  # c and d of gaps b (1 + n / c)^-d


@dataclass(frozen=True, eq=False)
class Worth:
    """What a source is worth in target ratings of a user's own. Provisional.

    Attributes
    ----------
    curve : DataFrame
        A row for each number ``n`` of target ratings that held-out users keep: loss and loss_none (mean log loss a
        held-out rating with the source and without, every user counting the same), gap (loss_none - loss), se (of the
        gap, over users), harm (probability that the gap is negative; a tie counts one half).
    worth : DataFrame
        A row for each ``n``: worth, lower, upper (90% interval) and censored: "high" where the source was worth at least
        so much, "low" where at most, "" otherwise.
    exhausted : float
        Ratings from which on the gain is below ``EFFECT`` = 0.005 nats a rating, from a curve ``b (1 + n / c)^-d``
        through the gaps: 0 if it never was above, inf if that lies beyond ten times the largest ``n``, NaN for fewer than
        three sizes.
    exhausted_interval : tuple of float
        Its 90% interval.
    per_user : DataFrame
        user (item where items are shared), n, rows (held-out ratings), loss, loss_none.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(20, 20), n_ratings=(15, 9), rank=1)
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> method = br.Gibbs(draws=20, warmup=20, chains=2)
    >>> found = br.worth_in_ratings(br.models.TransferMF(rank=1), data, method, sizes=(0, 2, 5), folds=2, progress=False)
    >>> found.worth.columns.tolist()
    ['n', 'worth', 'lower', 'upper', 'censored']
    >>> print(found.summary().split(" (")[0])  # doctest: +ELLIPSIS
    The source was worth ... ratings a user
    """

    curve: pd.DataFrame
    worth: pd.DataFrame
    exhausted: float
    exhausted_interval: tuple[float, float]
    per_user: pd.DataFrame = field(repr=False)
    target: Any = None
    entity: str = "user"

    def summary(self) -> str:
        """A few plain sentences with the numbers."""
        first = self.worth.iloc[0]
        most = int(self.curve["n"].iloc[-1])
        start = "without a rating of their own" if first["n"] == 0 else f"with {counted(int(first['n']), 'rating')}"
        lines = [
            f"The source was worth {_amount(first)} ratings a {self.entity} {_interval(first)} to {self.entity}s {start}."
        ]
        if first["censored"] == "low":
            lines[0] += " It made their predictions worse."
        for (_, row), (_, point) in zip(self.worth.iterrows(), self.curve.iterrows(), strict=True):
            text = f"  with {int(row['n']):3d} own: log loss lower by {point['gap']:+.4f} a rating (SE {point['se']:.4f}), "
            text += f"P(negative) {point['harm']:.3f}"
            if row["n"] < most:  # beyond it nothing is known of the arm without the source
                text += f"; worth {_amount(row)} {_interval(row)}"
            lines.append(text)
        low, high = self.exhausted_interval
        gain = f"{EFFECT:g} nats a rating, about half a percent of RMSE"
        if self.exhausted == 0:
            lines.append(f"At no number of ratings does the source matter: its gain is below {gain}.")
        elif np.isfinite(self.exhausted):
            lines.append(
                f"From about {self.exhausted:.0f} ratings a {self.entity} on the source no longer matters: its gain is below "
                f"{gain} (90% interval {low:.0f} to {_end(high, most)}{', extrapolated' if self.exhausted > most else ''})."
            )
        elif np.isinf(self.exhausted):
            lines.append(
                f"The source still matters at {FURTHEST * most} ratings a {self.entity}, as far as the curve is extrapolated "
                f"(90% interval {low:.0f} to {_end(high, most)}): its gain is not below {gain}."
            )
        else:
            lines.append("Give three sizes or more to learn from how many ratings on the source no longer matters.")
        users = self.per_user[self.entity].nunique()
        lines.append(
            f"From {counted(users, self.entity)} with source ratings and more than {most} target ratings; intervals are those of "
            "a Bayesian bootstrap over them, without the sampler's noise."
        )
        return "\n".join([*lines, CHOICE])


def _amount(row: pd.Series) -> str:
    return {"high": "at least ", "low": "at most ", "": ""}[row["censored"]] + f"{row['worth']:.1f}"


def _interval(row: pd.Series) -> str:
    return f"(90% interval {row['lower']:.1f} to {row['upper']:.1f})"


def _end(value: float, most: int) -> str:
    return f"{value:.0f}" if np.isfinite(value) else f"more than {FURTHEST * most}"


def worth_in_ratings(
    model: Model,
    data: Interactions,
    method: Method,
    sizes: Sequence[int] = (0, 1, 2, 3, 5, 8, 12),
    folds: int = 5,
    baseline: Model | None = None,
    seed: int = 0,
    *,
    progress: bool = True,
) -> Worth:
    """Say how many ratings of their own the source replaces for a user: the effective current sample size. Provisional.

    Held-out users keep ``n`` of their target ratings for each ``n`` in ``sizes``, the same ones and more as ``n`` grows,
    and are judged on the same others. The worth at ``n`` is the number of further ratings at which the model without the
    source predicts as well: ``loss(n) = loss_none(n + worth)``, on a decreasing interpolation of ``loss_none``, and is
    censored where sizes end. Negative worth is negative transfer. Wiesenfarth and Calderazzo (2020), for predictions.

    Each arm is fitted once a fold, without the held-out users, who are folded in with their source ratings and ``n`` of
    the target: the fit learns nothing from them. What a source prior says of them is there throughout.

    Parameters
    ----------
    model : Model
        With the source, for example ``TransferMF()``. One with a source prior needs target ratings alone.
    data : Interactions
    method : Method
    sizes : sequence of int
        Ascending, from 0 or more, two at least. Users with source ratings and more target ratings than the largest are
        held out.
    folds : int
        Every one of these users is held out once.
    baseline : Model, optional
        Never sees a source row. None is PMF of the same rank and likelihood.
    seed : int
        Of the folds, the fits and the bootstrap; 0 or more.
    progress : bool

    Returns
    -------
    Worth

    Raises
    ------
    DataError
        Sizes that do not ascend, are negative, or larger than anyone has; as `fit` and ``br.split.kfold_users`` do.
    KeyboardInterrupt
        A fit was interrupted.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(20, 20), n_ratings=(15, 9), rank=1)
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> method = br.Gibbs(draws=20, warmup=20, chains=2)
    >>> found = worth_in_ratings(br.models.TransferMF(rank=1), data, method, sizes=(0, 2, 5), folds=2, progress=False)
    >>> found.curve["n"].tolist(), len(found.per_user)
    ([0, 2, 5], 180)
    """
    seed = checked_seed(seed)
    data = data if data.shared == "users" else data.transposed()
    steps, sequential = _checked(sizes, model, data), getattr(model, "source", None) is not None
    most = steps[-1]
    if baseline is None:
        baseline = PMF(**model.common)
    order = own_order(data, seed)
    frames = []
    for _, test in kfold(model, data, folds, most, seed):
        users = np.unique(test.user)
        mine = np.isin(data.user, users)
        rest = _without(data, users)
        with whole_fits("a fit was interrupted; there is no worth from half an arm"):
            arm = fit(model, rest, method, seed=seed, progress=progress)
            bare = fit_unchecked(baseline, rest.without_sources(), method, seed, progress)
        judged = data.mask(mine & (order >= most))
        source, stranger = (arm, _forgetting(arm, data.users.decode(users))) if sequential else (None, arm)
        for n in steps:
            given = data.mask(mine & (order < n))
            own = given.mask(given.is_target)
            given = own if sequential else given
            row = {data.entity: data.users.decode(users), "n": n, "rows": np.bincount(judged.user)[users]}
            row["loss"] = _losses(source if source and not len(own) else stranger.fold_in(given, seed), judged)
            row["loss_none"] = _losses(bare.fold_in(own, seed) if len(own) else bare, judged)
            frames.append(pd.DataFrame(row))
    return measured(pd.concat(frames, ignore_index=True), data.entity, data.target, seed)


def _checked(sizes: Sequence[int], model: Model, data: Interactions) -> list[int]:
    """Sizes as a list of int; a DataError if they make no sense or nobody can be held out."""
    steps = list(sizes)
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 0 for n in steps)
    if not whole or len(steps) < 2 or steps != sorted(set(steps)):
        raise DataError(f"sizes must be two or more whole numbers, 0 or more, in ascending order; got {steps}")
    rated = known(model, data)
    longest = int(np.bincount(data.user[data.is_target], minlength=data.n_users)[rated].max(initial=0))
    if longest <= steps[-1]:
        raise DataError(
            f"sizes go up to {steps[-1]}, and no {data.entity} known to the source has more than {longest} target ratings; "
            f"one more than the largest size is needed, to judge: give sizes up to {max(longest - 1, 0)} at most."
        )
    return [int(n) for n in steps]


def _without(data: Interactions, users: np.ndarray) -> Interactions:
    """The data without some users (codes): their rows go, and their ids."""
    stay = ~np.isin(np.arange(data.n_users), users)
    kept = data.mask(stay[data.user])
    return replace(kept, user=(stay.cumsum() - 1)[kept.user], users=Vocabulary((data.users.ids[stay],)))


def _forgetting(posterior: Posterior, ids: pd.Index) -> Posterior:
    """The posterior without some users, who had no rating in the fit: they can be folded in, and keep what the prior says."""
    data, schema = posterior.data, posterior.schema
    gone = data.users.encode(ids, None)
    stay = np.setdiff1d(np.arange(data.n_users), gone)
    axes = {name: dims.index("user") for name, dims in posterior.model.dims.items() if "user" in dims}
    draws = {name: np.take(x, stay, axis=2 + axes[name]) if name in axes else x for name, x in posterior.draws.items()}
    fewer = _without(data, gone)
    x = None if schema.user_x is None else schema.user_x[stay]
    schema = replace(schema, n_users=len(stay), user_ids=fewer.users.decode(np.arange(len(stay))), user_x=x)
    return replace(posterior, draws=draws, data=fewer, schema=schema)


def _losses(posterior: Posterior, rows: Interactions) -> np.ndarray:
    """Mean log loss of the rows of each user, (user,), users by code."""
    _, user, count = np.unique(rows.user, return_inverse=True, return_counts=True)
    return -np.bincount(user, possible(posterior, posterior.log_score(rows), rows)) / count


def measured(per_user: pd.DataFrame, entity: str, target: Any, seed: int) -> Worth:
    """Worth from the losses of each user at each size. Internal."""
    sizes = np.unique(per_user["n"].to_numpy())
    table = per_user.pivot(index=entity, columns="n", values=["loss", "loss_none"])
    loss, bare = (table[name].to_numpy() for name in ("loss", "loss_none"))
    weights = _bootstrap(len(table), seed)
    gap = bare - loss
    gaps = weights @ gap
    with np.errstate(invalid="ignore", divide="ignore"):
        se = np.sqrt(((gap - gap.mean(0)) ** 2).sum(0) / (len(gap) * (len(gap) - 1)))
    harm = ((gaps[1:] < 0) + 0.5 * (gaps[1:] == 0)).mean(0)
    reached = equal_size(weights @ bare, weights @ loss, sizes)
    none = decreasing(bare.mean(0)[None])[0]
    sides = np.where(loss.mean(0) > none[0], "low", np.where(loss.mean(0) < none[-1], "high", ""))
    lower, upper = np.quantile(reached[1:] - sizes, TAILS, axis=0)
    ends = exhaustion(gaps, sizes)
    interval = np.quantile(ends[1:], TAILS, method="closest_observation")
    curve = {"n": sizes, "loss": loss.mean(0), "loss_none": bare.mean(0), "gap": gap.mean(0), "se": se, "harm": harm}
    worth = {"n": sizes, "worth": reached[0] - sizes, "lower": lower, "upper": upper, "censored": sides}
    return Worth(
        pd.DataFrame(curve), pd.DataFrame(worth), float(ends[0]), (float(interval[0]), float(interval[1])), per_user,
        target, entity,
    )  # fmt: skip


def _bootstrap(n: int, seed: int) -> np.ndarray:
    """Weights (1 + draw, user) that sum to one: equal ones, then those of a Bayesian bootstrap."""
    draws = generator(seed, 2).standard_exponential((BOOTSTRAP, n))
    return np.concatenate([np.full((1, n), 1.0 / n), draws / draws.sum(1, keepdims=True)])


def decreasing(curves: np.ndarray) -> np.ndarray:
    """Nearest decreasing curve (isotonic regression, by its min-max formula) to each of (curve, size). Internal."""
    n = curves.shape[1]
    total = np.concatenate([np.zeros((len(curves), 1)), curves.cumsum(1)], axis=1)
    mean = {(j, k): (total[:, k + 1] - total[:, j]) / (k + 1 - j) for j in range(n) for k in range(j, n)}
    tops = {(j, i): np.max([mean[j, k] for k in range(i, n)], axis=0) for j in range(n) for i in range(j, n)}
    return np.stack([np.min([tops[j, i] for j in range(i + 1)], axis=0) for i in range(n)], axis=1)


def equal_size(curves: np.ndarray, levels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Size at which each curve (curve, size) comes down to each of its levels (curve, level), inside ``sizes``. Internal.

    Between sizes the curve is the monotone cubic interpolation in ``log(1 + n)``.
    """
    at = np.log1p(sizes)
    grid = np.linspace(at[0], at[-1], GRID)
    value = PchipInterpolator(at, decreasing(curves), axis=1)(grid)
    out = np.empty(levels.shape)
    rows = np.arange(len(curves))
    for k, level in enumerate(levels.T):
        after = np.clip((value > level[:, None]).sum(1), 1, GRID - 1)
        left, right = value[rows, after - 1], value[rows, after]
        drop = np.where(left > right, left - right, 1.0)
        out[:, k] = np.expm1(grid[after - 1] + np.clip((left - level) / drop, 0.0, 1.0) * (grid[1] - grid[0]))
    return out


def exhaustion(gaps: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Size at which the curve ``b (1 + n / c)^-d`` through each set of gaps (draw, size) falls to EFFECT. Internal.

    Least squares over a grid of shapes (c, d), with the variances of the gaps over draws, the first excepted.
    """
    if len(sizes) < 3:
        return np.full(len(gaps), np.nan)
    turn, decay = (x.ravel() for x in np.meshgrid(TURNS, DECAYS))
    shape = (1.0 + sizes / turn[:, None]) ** -decay[:, None]
    spread = gaps[1:].var(0)
    weight = 1.0 / np.maximum(spread, 1e-12 + 1e-6 * spread.max())
    height = (gaps * weight) @ shape.T / (shape**2 @ weight)
    best = (height**2 * (shape**2 @ weight)).argmax(1)  # what a shape explains
    b = height[np.arange(len(gaps)), best]
    with np.errstate(over="ignore"):
        size = turn[best] * (np.maximum(b / EFFECT, 1.0) ** (1.0 / decay[best]) - 1.0)
    return np.where(size > FURTHEST * sizes[-1], np.inf, size)
