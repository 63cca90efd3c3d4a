"""The gap between two arms in several metrics, on the same held-out rows. Internal."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayesrec.diagnostics.judge import Judgement, negative
from bayesrec.metrics import clustered_mean, crps_normal, ndcg, rmse, rmse_difference

__all__ = ["LOG_SCORE", "NDCG", "measures"]

LOG_SCORE, NDCG = "log score", "NDCG@10"
COLUMNS = ("with_transfer", "without", "difference", "se", "harm", "users")


def measures(
    whole: Judgement, log_scores: np.ndarray, rows: pd.DataFrame | None, entity: str, floor: float, seed: int
) -> pd.DataFrame:
    """A row for each metric; that of the log score is the verdict's, the others need ``rows``. Internal.

    Parameters
    ----------
    whole : Judgement
    log_scores : ndarray, (2,)
        Sums over all rows, with the source and without.
    rows : DataFrame or None
        Of :class:`bayesrec.diagnostics.heldout.HeldOut`.
    entity : {"user", "item"}
        Which rows belong together; lists for NDCG are always a user's.
    floor : float
        Lowest rating: what gains are counted from.
    seed : int
    """
    mean = log_scores / whole.n_rows
    out = {LOG_SCORE: (*mean, whole.delta_per_row, whole.se / whole.n_rows, whole.probability, whole.n_users)}
    if rows is not None:
        value, a, b = (rows[name].to_numpy() for name in ("value", "mean", "mean_without"))
        who = rows[entity].to_numpy()
        squares = (value - a) ** 2, (value - b) ** 2
        gap = rmse_difference(value, a, b, who) if not np.array_equal(*squares) else (0.0, 0.0)
        out["RMSE"] = (rmse(value, a), rmse(value, b), *_judged(gap, squares[1] - squares[0], who, seed))
        crps = [crps_normal(value, m, rows[sd].to_numpy()) for m, sd in ((a, "sd"), (b, "sd_without"))]
        gap = clustered_mean(crps[0] - crps[1], who)
        out["CRPS"] = (crps[0].mean(), crps[1].mean(), *_judged(gap, crps[1] - crps[0], who, seed))
        out[NDCG] = _lists(value, a, b, rows["user"].to_numpy(), floor, seed)
    table = pd.DataFrame(out, index=list(COLUMNS)).T.rename_axis("metric")
    return table.astype({"users": int})


def _lists(
    value: np.ndarray, a: np.ndarray, b: np.ndarray, user: np.ndarray, floor: float, seed: int
) -> tuple[float, ...]:
    """NDCG@10 of each user's own rows, over the users whose ratings are not all alike."""
    arms = [ndcg(value, score, user, floor=floor) for score in (a, b)]
    known = np.isfinite(arms[0])
    if not known.any():
        return (np.nan, np.nan, np.nan, np.nan, np.nan, 0)
    first, second = (arm[known] for arm in arms)
    who = np.arange(known.sum())
    return (first.mean(), second.mean(), *_judged(clustered_mean(first - second, who), first - second, who, seed))


def _judged(gap: tuple[float, float], gain: np.ndarray, who: np.ndarray, seed: int) -> tuple[float, float, float, int]:
    """Difference, its standard error, the probability that the summed gain (row,) is below zero, and the number of users."""
    _, code = np.unique(who, return_inverse=True)
    by_user = np.bincount(code, gain)
    return gap[0], gap[1] if len(by_user) > 1 else np.nan, negative(by_user, [], seed), len(by_user)
