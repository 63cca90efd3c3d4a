"""From answers to numbers: metrics, their standard errors and paired differences, clustered. Internal."""

from __future__ import annotations

import numpy as np

from bayesrec.evaluation.cells import Answer
from bayesrec.evaluation.splits import Split
from bayesrec.metrics import clustered_mean, clustered_rmse, crps_normal, ndcg, order_accuracy, rmse_difference

__all__ = ["METRICS", "Loss", "NDCG", "better", "difference", "losses", "summarise"]

NDCG = "ndcg@10"
# 1: more is better; -1: less is better; otherwise the value of a calibrated forecast
METRICS: dict[str, tuple[int, float]] = {
    "rmse": (-1, np.nan),
    "mae": (-1, np.nan),
    "nlpd": (-1, np.nan),
    "crps": (-1, np.nan),
    "coverage": (0, 0.9),
    "z2": (0, 1.0),
    NDCG: (1, np.nan),
    "order": (1, np.nan),
}
Loss = tuple[np.ndarray, np.ndarray]


def better(metric: str, a: float, b: float) -> bool:
    """Whether ``a`` is better than ``b``; never for a metric that only says whether a forecast is calibrated."""
    return METRICS[metric][0] * (a - b) > 0


def losses(answer: Answer, split: Split) -> dict[str, Loss]:
    """What each metric averages, (row,) or (user,), and the cluster of each entry."""
    rows, a = split.test, answer.arrays
    y = rows.value
    cluster = rows.user if rows.shared == "users" else rows.item
    users = np.unique(rows.user)
    nothing = np.full(len(rows), np.nan)
    out: dict[str, Loss] = {name: (nothing, cluster) for name in METRICS}
    if "mean" in a and rows.columns.value is not None:
        error = y - a["mean"]
        inside = (y >= a["lower"]) & (y <= a["upper"])
        out |= {
            "rmse": (error**2, cluster),
            "mae": (np.abs(error), cluster),
            "nlpd": (-a.get("log_score", nothing), cluster),
            "crps": (crps_normal(y, a["mean"], a["sd"]), cluster),
            "coverage": (np.where(np.isfinite(a["sd"]), inside, np.nan), cluster),
            "z2": ((error / a["sd"]) ** 2, cluster),
        }
    score = a.get("score", nothing)
    out[NDCG] = ndcg(y, score, rows.user, floor=split.floor), users
    out["order"] = order_accuracy(y, score, rows.user), users
    return out


def summarise(metric: str, loss: Loss) -> tuple[float, float]:
    """Value and standard error; both NaN where there is nothing to average, the error NaN for one cluster."""
    values, cluster = _finite(metric, *loss)
    if not len(values) or not np.isfinite(values).all():
        return np.nan, np.nan
    if metric == "rmse":
        value, se = clustered_rmse(np.zeros(len(values)), np.sqrt(values), cluster)
    else:
        value, se = clustered_mean(values, cluster)
    return value, se if len(np.unique(cluster)) > 1 else np.nan


def difference(metric: str, loss: Loss, against: Loss) -> tuple[float, float]:
    """Value minus that of another arm on the same rows, and the standard error of the paired difference."""
    values, cluster = _finite(metric, *loss)
    others, _ = _finite(metric, *against)
    if not len(values) or len(values) != len(others) or not np.isfinite(values + others).all():
        return np.nan, np.nan
    if metric != "rmse":
        value, se = clustered_mean(values - others, cluster)
    elif np.array_equal(values, others):
        value, se = 0.0, 0.0
    else:
        value, se = rmse_difference(np.zeros(len(values)), np.sqrt(values), np.sqrt(others), cluster)
    return value, se if len(np.unique(cluster)) > 1 else np.nan


def _finite(metric: str, values: np.ndarray, cluster: np.ndarray) -> Loss:
    """Leave out users whose rows say nothing of their order."""
    if metric not in (NDCG, "order"):
        return values, cluster
    known = np.isfinite(values)
    return values[known], cluster[known]
