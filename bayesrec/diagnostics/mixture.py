"""Stack: a mixture of posteriors, which predicts as one of them does."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data import Interactions
from bayesrec.data.batch import Batch
from bayesrec.diagnostics.heldout import regime_of
from bayesrec.diagnostics.simple import Simple, kind_of
from bayesrec.diagnostics.weights import source_weight
from bayesrec.diagnostics.wording import CHOICE, counted
from bayesrec.errors import DataError
from bayesrec.likelihoods.predicted import Counts, Levels, Predicted
from bayesrec.metrics import clustered_mean
from bayesrec.models.base import Model, Schema
from bayesrec.posterior import Posterior, predictive

__all__ = ["FORMAT", "META", "OBJECTIVES", "REGIMES", "ROWS", "Stack", "breadth", "mixed", "residual_of", "same_kind"]

REGIMES = ("cold", "few", "warm")
OBJECTIVES = {"log_score": "log score", "squared_error": "squared error"}
TOLERANCE = 1e-9  # of the probability below a quantile
FORMAT = 2
META, ROWS = "stack.json", "rows.parquet"


@dataclass(frozen=True, eq=False)
class Stack:
    """A mixture of posteriors whose weights depend on how many target ratings a user has. Provisional.

    It predicts ratings of the target as a posterior does; ``br.recommend`` takes it.

    Attributes
    ----------
    arms : dict of name to Posterior or baseline
        Each fitted to all data; at least one is a posterior.
    weights : DataFrame
        A row for each regime (cold: no target rating in training; few: 1 to 5; warm: more), a column for each arm.
    rows : DataFrame
        A row for each held-out rating: user (item where items are shared), regime, fold, its log score under each arm,
        and ``stack``, that of the mixture with weights from the other folds; ``residual[...]`` for each of them, the rating less
        the mean.
    objective : str
        What the weights were chosen for: "log_score" or "squared_error".

    Raises
    ------
    DataError
        Weights of other arms or regimes, or that are no probabilities.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(20, 20), n_ratings=(12, 9), rank=1)
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> method = br.Gibbs(draws=20, warmup=20, chains=2)
    >>> mixed = br.stack(br.models.TransferMF(rank=1), data, method, folds=2, progress=False)
    >>> mixed.weights.columns.tolist(), mixed.weights.sum(axis=1).round(6).tolist()
    (['none', 'transfer', 'pooled'], [1.0, 1.0, 1.0])
    >>> br.recommend(mixed, [3], n=2)["rank"].tolist()
    [1, 2]
    """

    arms: dict[str, Posterior | Simple]
    weights: pd.DataFrame
    rows: pd.DataFrame = field(repr=False)
    objective: str = "log_score"

    def __post_init__(self) -> None:
        table = self.weights
        if set(table.columns) != set(self.arms) or set(table.index) != set(REGIMES):
            raise DataError(
                f"weights need a column for each arm ({', '.join(self.arms)}) and a row for each of {', '.join(REGIMES)}; "
                f"they have {list(table.columns)} and {list(table.index)}."
            )
        table = table.loc[list(REGIMES), list(self.arms)].astype(float)
        sums = table.to_numpy().sum(1)
        if not ((table.to_numpy() >= 0).all() and np.allclose(sums, 1.0, atol=1e-6)):
            raise DataError(f"weights must be 0 or more and sum to 1 in every regime; the sums are {sums.tolist()}.")
        object.__setattr__(self, "weights", table)
        if self.objective not in OBJECTIVES:
            raise DataError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}")
        same_kind({name: kind_of(arm.model, arm.schema) for name, arm in self._fits.items()})

    @property
    def _fits(self) -> dict[str, Posterior]:
        """The arms that are posteriors."""
        return {name: arm for name, arm in self.arms.items() if isinstance(arm, Posterior)}

    @property
    def _widest(self) -> Posterior:
        """The one of them that sees most."""
        return max(self._fits.values(), key=lambda arm: breadth(arm.data))

    @property
    def model(self) -> Model:
        """The model of the first arm that sees the sources."""
        return self._widest.model

    @property
    def data(self) -> Interactions:
        """The rows that this arm looked at."""
        return self._widest.data

    @property
    def schema(self) -> Schema:
        """Sizes and units of this arm."""
        return self._widest.schema

    def require_data(self, purpose: str) -> None:
        """Raise NotFittedError if the ratings are not there. Internal."""
        self._widest.require_data(purpose)

    def predict(self, frame: Any, level: float = 0.9) -> Any:
        """Predict new ratings of the target.

        Parameters
        ----------
        frame : DataFrame or Interactions
            As for :meth:`Posterior.predict`; target rows.
        level : float
            Probability of the central interval, whose bounds are quantiles of the mixture.

        Returns
        -------
        DataFrame
            user, item[, domain], mean, sd, lower, upper, in the units of the ratings.

        Raises
        ------
        DataError
            Rows of a source, a missing column.
        """
        if not 0.0 < level < 1.0:
            raise DataError(f"level must lie strictly between 0 and 1, not {level!r}")
        batch, weight = self._encode(frame)
        out, tail = np.empty((4, len(batch))), (1.0 - level) / 2.0
        for rows, parts in self._parts(frame, len(batch)):
            share = weight[:, rows]
            centre = sum(w * law.mean.mean(1) for w, law in zip(share, parts, strict=True))
            spread = [law.variance.mean(1) + ((law.mean - centre[:, None]) ** 2).mean(1) for law in parts]
            bounds = [_quantile(parts, share, p) for p in (tail, 1.0 - tail)]
            out[:, rows] = centre, np.sqrt((share * spread).sum(0)), *bounds
        return batch.answer(dict(zip(("mean", "sd", "lower", "upper"), out, strict=True)))

    def log_score(self, frame: Any) -> np.ndarray:
        """Log predictive density of each row's value, float64 (row,): of the weighted densities of the arms."""
        _, weight = self._encode(frame)
        return mixed(np.stack([arm.log_score(frame) for arm in self.arms.values()]), weight)

    def expected(self, user: int, items: np.ndarray) -> np.ndarray:
        """Draws of the expected target rating of one user for items, (draw, item), from the arms in proportion. Internal.

        They are picked by systematic resampling, and shifted so that their mean is that of :meth:`predict`.
        """
        people, stock = _sides(self.data)
        drawn = []
        for arm in self.arms.values():
            known, shelf = _sides(arm.data)
            domain = arm.schema.n_domains - 1
            code = known.encode(people.decode([user]), domain)[0] if user >= 0 else -1
            drawn.append(arm.expected(int(code), shelf.encode(stock.decode(items), domain)))
        if self.data.columns.swapped:
            weight = self._shares(items)
        else:
            weight = np.repeat(self._shares(np.array([user])), len(items), axis=1)
        out = np.empty((sum(map(len, drawn)), len(items)))
        places = (np.arange(len(out)) + 0.5) / len(out)
        for k, share in enumerate(weight.T):
            each = np.repeat(share / list(map(len, drawn)), list(map(len, drawn)))
            pick = np.minimum(np.searchsorted(each.cumsum(), places), len(out) - 1)
            out[:, k] = np.concatenate([d[:, k] for d in drawn])[pick]
        mean = sum(w * d.mean(0) for w, d in zip(weight, drawn, strict=True))
        return out - out.mean(0) + mean

    def source_weight(self, frame: Any) -> pd.DataFrame:
        """What each prediction rests on, as :func:`bayesrec.source_weight` says it, averaged over the posteriors by weight.

        A baseline does not say it and is left out.
        """
        batch, weight = self._encode(frame)
        names = ["source", "population", "target"]
        tables = np.array([[source_weight(arm, frame)[name] for name in names] for arm in self._fits.values()])
        share = weight[[name in self._fits for name in self.arms]]
        with np.errstate(invalid="ignore"):  # no posterior has any weight: NaN
            total = (share[:, None] * tables).sum(0) / share.sum(0)
        return batch.answer(dict(zip(names, total, strict=True)))

    def fold_in(self, frame: Any, seed: int = 0) -> Stack:
        """Take in new users without refitting, as :meth:`Posterior.fold_in`; an arm gets the rows of domains it knows.

        A baseline is made anew, from all rows.
        """
        batch = self.data.encode(frame, need_value=True)
        arms: dict[str, Posterior | Simple] = dict(self.arms)
        for name, arm in self._fits.items():
            known = np.isin(np.array(self.schema.domains, dtype=object), np.array(arm.schema.domains, dtype=object))
            mine = _rows_of(batch, known[batch.domain], len(arm.schema.domains) > 1)
            arms[name] = arm.fold_in(mine, seed) if len(mine) or known.all() else arm
        data = replace(self, arms=arms).data
        return replace(
            self, arms={k: replace(arm, data=data) if isinstance(arm, Simple) else arm for k, arm in arms.items()}
        )

    def summary(self) -> str:
        """A few plain sentences: the weights, and what the mixture gained on held-out users."""
        data = self.data
        first, who = next(iter(self.arms)), self.rows[data.entity]
        lines = [
            f"Mixture of {', '.join(self.arms)} for {data.target}, weighed by {counted(len(self.rows), 'held-out rating')} of "
            f"{counted(who.nunique(), data.entity)} for the best {OBJECTIVES[self.objective]}. What the mixture gained is with "
            "weights from the other folds."
        ]
        for regime, weights in self.weights.iterrows():
            part = self.rows[self.rows["regime"] == regime]
            text = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
            if len(part):
                gain, se = clustered_mean((part["stack"] - part[first]).to_numpy(), part[data.entity].to_numpy())
                text += f"; mixture minus {first} {gain:+.4f} a rating (SE {se:.4f}, "
                text += f"{counted(part[data.entity].nunique(), data.entity)})"
                if residual_of("stack") in part and data.columns.value is not None:
                    errors = [np.sqrt((part[residual_of(name)] ** 2).mean()) for name in ("stack", first)]
                    text += f"; RMSE {errors[0]:.4f}, {first} {errors[1]:.4f}"
            else:
                text += f"; no {data.entity} of this kind could be held out: the common weights"
            lines.append(f"  {regime:5s} {text}")
        return "\n".join([*lines, CHOICE])

    def save(self, path: str | Path) -> Path:
        """Write the arms, the weights and the held-out scores to a folder, for ``br.load``; an existing stack there is replaced.

        Raises
        ------
        DataError
            Something else stands there; an arm is a baseline of one's own, which no file can hold.
        """
        path = Path(path)
        if path.exists() and not (path / META).is_file():
            raise DataError(f"{str(path)!r} exists and is not a saved stack; it is left alone. Choose another path.")
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            for k, arm in enumerate(self.arms.values()):
                if isinstance(arm, Posterior):
                    arm.save(fresh / f"arm-{k}")
            self.rows.to_parquet(fresh / ROWS)
            simple = {name: arm.name for name, arm in self.arms.items() if isinstance(arm, Simple)}
            meta = {"format": FORMAT, "arms": list(self.arms), "weights": self.weights.to_dict("split")}
            meta |= {"baselines": simple, "objective": self.objective}
            (fresh / META).write_text(json.dumps(meta, indent=1))
            shutil.rmtree(path, ignore_errors=True)
            fresh.rename(path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return path

    def _encode(self, frame: Any) -> tuple[Batch, np.ndarray]:
        """Rows in the codes of ``data``, and the weights (arm, row) of their users."""
        batch = self.data.encode(frame)
        source = np.flatnonzero(batch.domain != self.schema.n_domains - 1)
        if source.size:
            raise DataError(
                f"row {source[0]} belongs to domain {batch.domain_name[source[0]]!r}; a stack predicts the target "
                f"{self.data.target!r}. Ask one of its arms."
            )
        return batch, self._shares(batch.user)

    def _shares(self, user: np.ndarray) -> np.ndarray:
        """Weights (arm, user) of users (codes)."""
        self.require_data("a stack (its weights depend on a user's ratings)")
        own = np.bincount(self.data.user[self.data.is_target], minlength=self.data.n_users)
        regime = regime_of(np.where(user >= 0, own[user], 0))
        return self.weights.to_numpy()[[REGIMES.index(name) for name in regime]].T

    def _parts(self, frame: Any, n: int) -> Iterator[tuple[slice, list[Predicted]]]:
        """Predictive distributions of each arm, some rows at a time."""
        batches = [arm.data.encode(frame) for arm in self.arms.values()]
        step = min(predictive.rows_at_once(arm.model, arm.draws) for arm in self._fits.values())
        for rows in (slice(start, start + step) for start in range(0, n, step)):
            yield rows, [_law(*pair, rows) for pair in zip(self.arms.values(), batches, strict=True)]


def breadth(data: Interactions) -> tuple[int, int]:
    """How much an arm sees: domains, then rows. Internal."""
    return len(data.domains), len(data)


def same_kind(kinds: Mapping[str, str]) -> None:
    """Refuse arms that say different things, by name. Internal."""
    first = next(iter(kinds), "")
    for name, kind in kinds.items():
        if kind != kinds[first]:
            raise DataError(f"arm {first!r} gives {kinds[first]} and arm {name!r} {kind}; they cannot be mixed.")


def residual_of(arm: str) -> str:
    """Column of ``Stack.rows`` that has the residuals of an arm. Internal."""
    return f"residual[{arm}]"


def mixed(scores: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Log density (row,) of mixtures: log densities and weights of the arms, (arm, row). Internal."""
    top = scores.max(0)
    return top + np.log((weight * np.exp(scores - top)).sum(0))


def _quantile(parts: list[Predicted], weight: np.ndarray, probability: float) -> np.ndarray:
    """Quantile (row,) of the mixture with weights (arm, row): it lies between the least and the largest of the arms."""
    graded = [law for law in parts if isinstance(law, Levels)]
    if graded:
        levels = np.unique(np.concatenate([law.levels[0] for law in graded]))  # one arm may have seen a level less
        share = np.zeros((len(graded[0].levels), len(levels)))
        for w, law in zip(weight, graded, strict=True):
            share[:, np.searchsorted(levels, law.levels[0])] += w[:, None] * law.share
        return Levels(share[:, None], np.broadcast_to(levels, share.shape)).quantiles((probability,))[:, 0]
    each = np.stack([law.quantiles((probability,))[:, 0] for law in parts])

    def gap(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        total = np.full(len(rows), -probability)
        for w, law in zip(weight, parts, strict=True):
            total += w[rows] * law.cdf(x, rows)
        return total

    return (_least if isinstance(parts[0], Counts) else _crossing)(gap, each.min(0), each.max(0))


def _least(gap: Callable[[np.ndarray, np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The least whole numbers from ``low`` to ``high`` (row,) at which increasing steps ``gap(x, rows)`` are not below zero."""
    low, high = low.copy(), high.copy()
    while len(rows := np.flatnonzero(low < high)):
        middle = np.floor((low[rows] + high[rows]) / 2.0)
        reached = gap(middle, rows) >= -TOLERANCE
        high[rows] = np.where(reached, middle, high[rows])
        low[rows] = np.where(reached, low[rows], middle + 1.0)
    return high


def _crossing(gap: Callable[[np.ndarray, np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where each increasing ``gap(x, rows)`` is zero between two bounds (row,): regula falsi, Illinois' version."""
    rows = np.arange(len(low))
    at_low, at_high = gap(low, rows), gap(high, rows)
    out = np.where(-at_low < at_high, low, high)
    rows = np.flatnonzero((at_low < -TOLERANCE) & (at_high > TOLERANCE))
    a, b, fa, fb = low[rows], high[rows], at_low[rows], at_high[rows]
    while len(rows):
        x = b - fb * (b - a) / (fb - fa)
        fx = gap(x, rows)
        out[rows] = x
        crossed = fx * fb < 0
        a, fa = np.where(crossed, b, a), np.where(crossed, fb, fa / 2)
        b, fb = x, fx
        going = np.abs(fx) > TOLERANCE
        rows, a, b, fa, fb = rows[going], a[going], b[going], fa[going], fb[going]
    return out


def _law(arm: Posterior | Simple, batch: Batch, rows: slice) -> Predicted:
    """Predictive distributions of an arm for some rows of a batch, no more than are predicted at once."""
    if isinstance(arm, Simple):
        return arm.law(batch.user[rows], batch.item[rows])
    codes = [code[rows] for code in (batch.user, batch.item, batch.domain)]
    return next(iter(predictive.components(arm.model, arm.draws, arm.schema, *codes)))[1]


def _rows_of(batch: Batch, keep: np.ndarray, with_domain: bool) -> pd.DataFrame:
    """Some rows of a batch as a table, without their domain for an arm that knows the target alone."""
    names = batch.columns
    table: dict[str, Any] = {names.user: batch.user_id, names.item: batch.item_id}
    parts = {names.value: batch.value, names.time: batch.time, names.domain: batch.domain_name if with_domain else None}
    table |= {name: np.asarray(part) for name, part in parts.items() if name is not None and part is not None}
    return pd.DataFrame(table)[keep].reset_index(drop=True)


def _sides(data: Interactions) -> tuple[Any, Any]:
    """Vocabularies of users and items as the caller knows them."""
    return (data.items, data.users) if data.columns.swapped else (data.users, data.items)
