"""Which users the source helps or hurts: groups of users, their differences pooled where they are small. Internal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

from bayesrec.data.frames import open_frame
from bayesrec.data.ids import shown
from bayesrec.diagnostics.effects import MEAN_SCALE, SPREAD_SCALE, half_t_log_density
from bayesrec.diagnostics.judge import LEAST_USERS, called
from bayesrec.errors import DataError

__all__ = ["OWN", "SOURCE", "aligned", "built_in", "pooled", "segments"]

OWN, SOURCE = "own ratings", "source ratings"
OWN_EDGES = (1, 3, 6, 16)
OWN_LEVELS = ["0", "1 to 2", "3 to 5", "6 to 15", "16 or more"]
PRIOR_USERS = 4.0  # weight of the pooled variance in a level's own, in users
TINY = 1e-12


def aligned(table: Any, ids: pd.Index, key: str, entity: str) -> pd.DataFrame:
    """The caller's columns for the users ``ids``, in their order. Internal.

    Examples
    --------
    >>> aligned(pd.Series({"a": "NO", "b": "SE"}, name="country"), pd.Index(["b", "a"]), "user", "user")["country"].tolist()
    ['SE', 'NO']
    """
    if isinstance(table, pd.Series):
        table = table.to_frame("segment" if table.name is None else table.name)
    elif not isinstance(table, pd.DataFrame):
        frame = open_frame(table, "segments")
        table = pd.DataFrame({name: frame[name].to_list() for name in frame.columns})
    if key in table.columns:
        table = table.set_index(key)
    if not len(table.columns):
        raise DataError(f"segments has no column besides {key!r}: give at least one with the group of each {entity}")
    for name in (OWN, SOURCE):
        if name in table.columns:
            raise DataError(f"segments: {name!r} is a segment that every report has; rename the column")
    twice = table.index.duplicated()
    if twice.any():
        raise DataError(f"segments has more than one row for {entity} {shown(table.index[twice][0])}; keep one")
    where = table.index.get_indexer(ids)
    if (where < 0).any():
        one = shown(ids[int(np.argmax(where < 0))])
        raise DataError(
            f"segments has no row for {entity} {one}, who is held out; each {entity} needs its groups in {key!r}"
        )
    table = table.iloc[where]
    for name in table.columns:
        missing = table[name].isna().to_numpy()
        if missing.any():
            one = shown(ids[int(np.argmax(missing))])
            raise DataError(
                f"segments: column {name!r} has no value for {entity} {one}; fill it in or leave the column out"
            )
    return table.reset_index(drop=True)


def built_in(n_own: np.ndarray, n_source: np.ndarray | None) -> pd.DataFrame:
    """The segments that every report has: target ratings, and thirds of users by source ratings, in training. Internal.

    Examples
    --------
    >>> built_in(np.array([0, 2, 40]), np.array([1, 2, 30])).astype(str).to_numpy().T.tolist()
    [['0', '1 to 2', '16 or more'], ['lowest third (1)', 'middle third (2)', 'highest third (30)']]
    """
    out = {OWN: pd.Categorical.from_codes(np.digitize(n_own, OWN_EDGES), pd.Index(OWN_LEVELS), ordered=True)}
    if n_source is not None:
        edges = np.unique(np.quantile(n_source, (1 / 3, 2 / 3), method="inverted_cdf"))
        third = np.searchsorted(edges, n_source)
        _, code = np.unique(third, return_inverse=True)
        names = {1: ("all",), 2: ("lower", "upper"), 3: ("lowest third", "middle third", "highest third")}[
            code.max() + 1
        ]
        levels = [f"{name} ({_range(n_source[code == k])})" for k, name in enumerate(names)]
        out[SOURCE] = pd.Categorical.from_codes(code, pd.Index(levels), ordered=True)
    return pd.DataFrame(out)


def _range(n: np.ndarray) -> str:
    low, high = int(n.min()), int(n.max())
    return str(low) if low == high else f"{low} to {high}"


def segments(
    delta: np.ndarray,
    n: np.ndarray,
    groups: pd.DataFrame,
    sampler: Callable[[np.ndarray], float],
    min_effect: float,
) -> pd.DataFrame:
    """A row for each level of each segment. Internal.

    Parameters
    ----------
    delta, n : ndarray, (user,)
        Summed difference and number of rows.
    groups : DataFrame
        A row for each user, a column for each segment.
    sampler : callable
        Variance of the summed difference of chosen users, bool (user,), that comes from the chains.
    min_effect : float
        Nats a row.

    Examples
    --------
    >>> delta, n = np.repeat([1.0, -0.2], 40) + np.tile([0.1, -0.1], 40), np.full(80, 5)
    >>> found = segments(delta, n, pd.DataFrame({"kind": np.repeat(["a", "b"], 40)}), lambda chosen: 0.0, 0.0)
    >>> found[["level", "users", "verdict"]].to_numpy().tolist()
    [['a', 40, 'positive'], ['b', 40, 'negative']]
    """
    tables = [_levels(name, groups[name], delta, n, sampler, min_effect) for name in groups.columns]
    return pd.concat(tables, ignore_index=True)


def _levels(
    segment: Any,
    column: pd.Series,
    delta: np.ndarray,
    n: np.ndarray,
    sampler: Callable[[np.ndarray], float],
    least: float,
) -> pd.DataFrame:
    kinds = pd.Categorical(column).remove_unused_categories()
    code = np.asarray(kinds.codes, dtype=int)
    noise = np.array([sampler(code == k) for k in range(len(kinds.categories))])
    mean, se, variance = _estimates(delta, n, code, noise)
    effect, harm = pooled(mean, variance)
    users, rows = np.bincount(code), np.bincount(code, n).astype(int)
    verdicts = []
    for k in range(len(users)):
        word = (
            called(mean[k] * rows[k], harm[k]) if users[k] >= LEAST_USERS and abs(mean[k]) >= least else "undetermined"
        )
        if word != "undetermined":  # one user must not decide
            keep = np.ones(len(delta), dtype=bool)
            keep[np.argmax(np.where(code == k, np.abs(delta), -1.0))] = False
            rest, _, spread = _estimates(delta[keep], n[keep], code[keep], noise)
            total = delta[keep & (code == k)].sum()
            word = word if called(total, pooled(rest, spread)[1][k]) == word else "undetermined"
        verdicts.append(word)
    table = {"segment": segment, "level": list(kinds.categories), "users": users, "rows": rows}
    table |= {"delta_per_row": mean, "se": se, "effect": effect, "harm": harm, "verdict": verdicts}
    return pd.DataFrame(table)


def _estimates(
    delta: np.ndarray, n: np.ndarray, code: np.ndarray, sampler: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean a row of each level, its standard error clustered by user, and a variance that borrows from the other levels."""
    users, rows = np.bincount(code), np.bincount(code, n)
    mean = np.bincount(code, delta) / rows
    squares = np.bincount(code, (delta - mean[code] * n) ** 2)
    free = users - 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.sqrt(np.where(free > 0, users / free * squares, np.nan) + sampler) / rows
    if free.any():
        a_row = squares.sum() / (rows * free / users).sum()
    else:
        a_row = ((delta - delta.sum() / n.sum() * n) ** 2).sum() / n.sum()
    variance = users * (squares + PRIOR_USERS * a_row * rows / users) / (free + PRIOR_USERS) + sampler
    return mean, se, variance / rows**2 + TINY


def pooled(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Partial pooling of levels: posterior mean and probability below zero, (level,) each. Internal.

    ``mean_l ~ N(theta_l, variance_l)``, ``theta_l ~ N(mu, tau^2)``; ``mu ~ N(0, 0.25^2)`` is integrated out in closed form,
    ``tau`` (half-t, 3 degrees of freedom, scale 0.1 nats a row) over a grid.
    """
    tau = np.geomspace(0.003 * SPREAD_SCALE, 30.0 * SPREAD_SCALE, 60)
    total = tau[:, None] ** 2 + variance
    prior = 1.0 / MEAN_SCALE**2
    precision = (1.0 / total).sum(1) + prior
    mu = (mean / total).sum(1) / precision
    fit = (mean**2 / total).sum(1) - mu**2 * precision
    log = half_t_log_density(tau) + np.log(tau) - 0.5 * (np.log(total).sum(1) + np.log(precision) + fit)
    chance = np.exp(log - log.max())
    chance /= chance.sum()
    keep = tau[:, None] ** 2 / total
    centre = keep * mean + (1.0 - keep) * mu[:, None]
    sd = np.sqrt(keep * variance + (1.0 - keep) ** 2 / precision[:, None])
    return chance @ centre, chance @ ndtr(-centre / sd)
