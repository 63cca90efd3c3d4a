"""Calibration: whether the predictive distributions mean what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayesrec.errors import DataError
from bayesrec.likelihoods.predicted import Predicted
from bayesrec.posterior import Posterior

__all__ = ["Seen", "coverage", "forecast", "pit"]


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
    value = np.asarray(batch.value)
    chance, out = _chances(len(value)), np.empty(len(value))
    for rows, law in posterior.laws(batch):
        out[rows] = _pit(law, value[rows], chance[rows])
    return out


def _chances(n: int) -> np.ndarray:
    return np.random.default_rng(0).random(n)


def _pit(law: Predicted, value: np.ndarray, chance: np.ndarray) -> np.ndarray:
    above = law.cdf(value)
    return above - chance * (above - law.below(value))


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
    posterior.require_draws("forecast")
    batch = posterior.data.encode(frame, need_value=True)
    seen = Seen(np.asarray(batch.value), level)
    for rows, law in posterior.laws(batch):
        seen.look(rows, law)
    sides = dict(zip(batch.columns.sides, (batch.user_id, batch.item_id), strict=True))
    table = {"user": sides["user"], "item": sides["item"], "value": batch.value} | seen.columns
    return pd.DataFrame({name: pd.Series(np.asarray(column)) for name, column in table.items()})


class Seen:
    """What a table of held-out rows says of predictive distributions, gathered as chunks of them go by. Internal.

    Parameters
    ----------
    value : ndarray, (row,)
    level : float or None
        Probability of the central interval; None leaves intervals and PIT values out, which cost most.

    Attributes
    ----------
    columns : dict
        mean, sd, lower, upper, pit, (row,) each.
    """

    def __init__(self, value: np.ndarray, level: float | None):
        if level is not None and not 0.0 < level < 1.0:
            raise DataError(f"level must lie strictly between 0 and 1, not {level!r}")
        self.value, self.level, self._chance = value, level, _chances(len(value))
        names = ("mean", "sd") if level is None else ("mean", "sd", "lower", "upper", "pit")
        self.columns = {name: np.empty(len(value)) for name in names}

    def look(self, rows: slice, law: Predicted) -> None:
        """Take in some rows."""
        found = [*law.moments()]
        if self.level is not None:
            tail = (1.0 - self.level) / 2.0
            found += [*law.quantiles((tail, 1.0 - tail)).T, _pit(law, self.value[rows], self._chance[rows])]
        for column, x in zip(self.columns.values(), found, strict=True):
            column[rows] = x


def coverage(u: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Share of rows inside the central interval of each level, from their PIT values.

    Examples
    --------
    >>> coverage(np.array([0.5, 0.99]), np.array([0.9, 0.5])).tolist()
    [0.5, 0.5]
    """
    return (np.abs(2.0 * np.asarray(u)[:, None] - 1.0) <= np.asarray(level)).mean(0)
