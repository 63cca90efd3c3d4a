"""Held-out rows under two posteriors: what a verdict is made of. Internal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from bayesrec.diagnostics import calibration
from bayesrec.errors import DataError
from bayesrec.posterior import Posterior

__all__ = ["LEAST_CHAINS", "HeldOut", "held_out", "possible", "regime_of"]

LEAST_CHAINS = 4  # that say how much chains differ
LEVEL = 0.9  # of the intervals of held-out ratings
FEW = 5  # most target ratings of the regime "few"


@dataclass(frozen=True)
class HeldOut:
    """Held-out log densities (chain, row) of both arms; ``user`` (row,) are positions in ``ids``. Internal.

    ``n_own`` and ``n_source`` (user,) count a user's target and source ratings in training.
    """

    ids: pd.Index
    user: np.ndarray
    n_own: np.ndarray
    with_chains: np.ndarray
    without_chains: np.ndarray
    joint: np.ndarray
    rows: pd.DataFrame | None = None
    n_source: np.ndarray | None = None

    @cached_property
    def shares(self) -> list[np.ndarray]:
        """Densities (chain, row) of each chain over those of all pooled, of the arms that have chains enough; minus that without.

        The pooled log score moves by a chain's summed share where the chain gets more weight: to first order, by ``(w_c - 1/C)``
        times it for weights ``w``. Where chains differ little the sums differ as the chains' own log scores do.
        """
        arms = zip((1.0, -1.0), (self.with_chains, self.without_chains), strict=True)
        return [sign * softmax(x, axis=0) * len(x) for sign, x in arms if len(x) >= LEAST_CHAINS]


def regime_of(n_own: np.ndarray) -> np.ndarray:
    """Kind of user by the number of target ratings in training: "cold", "few" or "warm". Internal."""
    return np.select([n_own == 0, n_own <= FEW], ["cold", "few"], "warm")


def possible(posterior: Posterior, score: np.ndarray, test: Any) -> np.ndarray:
    """Return log scores (..., row); refuse a rating that has no probability, which no judgement survives. Internal."""
    bad = np.flatnonzero(~np.isfinite(score).reshape(-1, score.shape[-1]).all(0))
    if bad.size:
        batch = posterior.data.encode(test, need_value=True)
        likelihood, value = posterior.model.likelihood, np.asarray(batch.value)[bad[0]]
        raise DataError(
            f"{bad.size} of {score.shape[-1]} held-out ratings have no probability under {likelihood!r}; the first, in row "
            f"{bad[0]}, is {value:g}, and no rating in training was. Name all levels: Ordinal(levels=(1, 2, 3, 4, 5))."
        )
    return score


def held_out(arm: Posterior, bare: Posterior, test: Any) -> HeldOut:
    """Score the test rows under both arms. Internal."""
    batch = arm.data.encode(test, need_value=True)
    if not len(batch):
        raise DataError("test has no rows: nothing to judge.")
    if (batch.domain != arm.schema.n_domains - 1).any():
        raise DataError(f"test has rows outside the target {arm.data.target!r}; hold out target rows only.")
    codes, user = np.unique(pd.factorize(batch.user_id)[0], return_inverse=True)
    ids = batch.user_id.unique()
    arm.require_data("the number of ratings each user had in training")
    n_own, n_source = np.zeros((2, len(codes)), dtype=int)
    known = batch.user >= 0
    for count, rows_of in ((n_own, arm.data.is_target), (n_source, ~arm.data.is_target)):
        total = np.bincount(arm.data.user[rows_of], minlength=arm.data.n_users)
        count[user[known]] = total[batch.user[known]]
    seen = [calibration.Seen(np.asarray(batch.value), level) for level in (LEVEL, None)]
    with_chains, index, with_joint = arm.scores(test, seen[0].look)
    without_chains, bare_index, bare_joint = bare.scores(test, seen[1].look)
    for posterior, found in ((arm, with_chains), (bare, without_chains)):
        possible(posterior, found, test)
    joint = np.zeros(len(codes))
    joint[user] = with_joint[index] - bare_joint[bare_index]
    sides = dict(zip(batch.columns.sides, (batch.user_id, batch.item_id), strict=True))
    table = {"user": sides["user"], "item": sides["item"], "n_own": n_own[user], "value": batch.value}
    table |= seen[0].columns | {f"{name}_without": x for name, x in seen[1].columns.items()}
    rows = pd.DataFrame({name: pd.Series(np.asarray(column)) for name, column in table.items()})
    return HeldOut(ids, user, n_own, with_chains, without_chains, joint, rows, n_source)
