"""Calibration: whether the predictive distributions mean what they say."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesrec import mixtures
from bayesrec.posterior import Posterior, predictive

__all__ = ["coverage", "pit"]


def pit(posterior: Posterior, frame: Any) -> np.ndarray:
    """Probability integral transform: the predictive distribution function at each row's value, (row,). Provisional.

    Uniform on (0, 1) if the predictive distributions are calibrated and ratings continuous; ratings on a coarse
    scale make it lumpy.

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
    value = posterior.schema.standardise(np.asarray(batch.value), batch.domain)
    out = np.empty(len(batch))
    for rows, mean, sd in predictive.components(posterior.model, posterior.draws, batch.user, batch.item, batch.domain):
        part = np.empty(len(mean))
        mixtures.mixture_cdf(mean, sd, value[rows], part)
        out[rows] = part
    return out


def coverage(u: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Share of rows inside the central interval of each level, from their PIT values.

    Examples
    --------
    >>> coverage(np.array([0.5, 0.99]), np.array([0.9, 0.5])).tolist()
    [0.5, 0.5]
    """
    return (np.abs(2.0 * np.asarray(u)[:, None] - 1.0) <= np.asarray(level)).mean(0)
