"""Calibration: whether the predictive distributions mean what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayesrec.posterior import Posterior

__all__ = ["coverage", "forecast", "moments", "pit"]


def pit(posterior: Posterior, frame: Any) -> np.ndarray:
    """Probability integral transform: the predictive distribution function at each row's value, (row,). Provisional.

    Uniform on (0, 1) if the predictive distributions are calibrated and ratings continuous; ratings on a coarse
    scale make it lumpy. Where predictions are probabilities of levels it is randomised: uniform between the distribution
    function below a value and at it (Czado, Gneiting and Held 2009, `czado2009`), always by the same numbers.

    Parameters
    ----------
    posterior : Posterior
    frame : DataFrame or Interactions
        Held-out rows with values.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=20, warmup=10, chains=1), progress=False)
    >>> u = pit(posterior, data.mask(data.is_target))
    >>> bool((u > 0).all() and (u < 1).all())
    True
    """
    batch = posterior.data.encode(frame, need_value=True)
    value, chance = np.asarray(batch.value), np.random.default_rng(0).random(len(batch))
    out = np.empty(len(batch))
    for rows, law in posterior.laws(batch):
        above = law.cdf(value[rows])
        out[rows] = above - chance[rows] * (above - law.below(value[rows]))
    return out


def forecast(posterior: Posterior, frame: Any, level: float = 0.9) -> pd.DataFrame:
    """Predictions and PIT values of held-out rows, side by side. Provisional.

    Parameters
    ----------
    posterior : Posterior
    frame : DataFrame or Interactions
        Held-out rows with values.
    level : float
        Probability of the central interval.

    Returns
    -------
    DataFrame
        A row for each row of ``frame``: user, item, value, mean, sd, lower, upper (rating units), pit.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=20, warmup=10, chains=1), progress=False)
    >>> rows = forecast(posterior, data.mask(data.is_target))
    >>> bool(((rows["pit"] > 0.05) == (rows["value"] > rows["lower"])).all())
    True
    """
    batch, answer = posterior.data.encode(frame, need_value=True), posterior.predict(frame, level)
    sides = dict(zip(batch.columns.sides, (batch.user_id, batch.item_id), strict=True))
    table = {"user": sides["user"], "item": sides["item"], "value": batch.value}
    table |= {name: answer[name] for name in ("mean", "sd", "lower", "upper")} | {"pit": pit(posterior, frame)}
    return pd.DataFrame({name: pd.Series(np.asarray(column)) for name, column in table.items()})


def moments(posterior: Posterior, frame: Any) -> tuple[np.ndarray, np.ndarray]:
    """Predicted ratings and their sds (row,), as `predict` has them, without the cost of intervals. Internal."""
    batch = posterior.data.encode(frame)
    centre, spread = np.empty((2, len(batch)))
    for rows, law in posterior.laws(batch):
        centre[rows], spread[rows] = law.moments()
    return centre, spread


def coverage(u: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Share of rows inside the central interval of each level, from their PIT values.

    Examples
    --------
    >>> coverage(np.array([0.5, 0.99]), np.array([0.9, 0.5])).tolist()
    [0.5, 0.5]
    """
    return (np.abs(2.0 * np.asarray(u)[:, None] - 1.0) <= np.asarray(level)).mean(0)
