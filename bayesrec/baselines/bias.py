"""Means and biases: of the target, and what the source says of a user's general level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesrec.baselines.base import Baseline
from bayesrec.data import Interactions

__all__ = ["BiasBaseline", "bias_transfer", "global_mean", "item_bias", "item_user_bias", "shrunk", "target_bias"]

SWEEPS = 5  # of item and user bias in turn


@dataclass(frozen=True)
class BiasBaseline(Baseline):
    """A fitted baseline: ``mean + item + user``, with one sd for known users and one for new ones.

    Attributes
    ----------
    mean : float
    item : ndarray, (item,)
        Shrunk deviations of items.
    user : ndarray, (user,)
        What is added for a user.
    sd : float
        Root mean squared leave-one-out residual of the training rows.
    slope : float
        Of the target's deviations on the source's, where there is a transfer.
    known : ndarray of bool, (user,), optional
        Users to whom ``sd`` applies; None for all.
    sd_new : float, optional
        For the others: the residual without the user's deviation.

    Examples
    --------
    >>> baseline = BiasBaseline(mean=3.5, item=np.array([0.5, -0.5]), user=np.array([1.0]), sd=0.8)
    >>> baseline.predict(np.array([0, 0, -1]), np.array([0, 1, 0]))  # -1 is an unknown user: the item's bias alone
    array([5., 4., 4.])
    """

    mean: float
    item: np.ndarray
    user: np.ndarray
    sd: float
    slope: float = 0.0
    known: np.ndarray | None = None
    sd_new: float | None = None

    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Expected ratings (row,) for codes; unknown ids (-1) count zero."""
        c = np.where(item >= 0, self.item[item], 0.0)
        return self.mean + c + np.where(user >= 0, self.user[user], 0.0)

    def spread(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Sd of a new rating (row,)."""
        if self.known is None or self.sd_new is None:
            return np.full(len(user), self.sd)
        return np.where((user >= 0) & self.known[user], self.sd, self.sd_new)


def shrunk(value: np.ndarray, group: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Shrunk group means (group,), leave-one-out means (row,) and the shrinkage, by moments (empirical Bayes)."""
    n = np.bincount(group, minlength=n_groups)
    total = np.bincount(group, value, minlength=n_groups)
    mean = total / np.maximum(n, 1)
    many = n > 1
    # no group with two rows says nothing of the spread within: shrink them all the way
    squares, free = ((value - mean[group]) ** 2).sum(), (n[many] - 1).sum()
    within = max(squares / free if free else (value**2).sum() / max(len(value), 1), 1e-9)
    between = max(((n * mean**2).sum() - (n > 0).sum() * within) / max(n.sum(), 1), 1e-6)
    shrinkage = within / between
    left_out = (total[group] - value) / (n[group] - 1 + shrinkage)
    return total / (n + shrinkage), left_out, shrinkage


def _root(residual: np.ndarray) -> float:
    return float(np.sqrt((residual**2).mean()))


def global_mean(train: Interactions) -> BiasBaseline:
    """The mean of the target's ratings, for everybody and everything. Provisional.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, _ = synthetic.cross_domain(n_users=20)
    >>> baseline = global_mean(Interactions.from_frame(frame, target="target", value="value"))
    >>> bool(np.isclose(baseline.mean, frame.loc[frame.domain == "target", "value"].mean()))
    True
    >>> len(np.unique(baseline.predict(np.arange(3), np.arange(3))))
    1
    """
    value = train.value[train.is_target]
    return BiasBaseline(
        float(value.mean()), np.zeros(train.n_items), np.zeros(train.n_users), _root(value - value.mean())
    )


def item_bias(train: Interactions) -> BiasBaseline:
    """Item means of the target, shrunk to the global mean: what popularity is to ranking. Provisional.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, _ = synthetic.cross_domain(n_users=20)
    >>> baseline = item_bias(Interactions.from_frame(frame, target="target", value="value"))
    >>> baseline.item.shape
    (136,)
    """
    rows = train.mask(train.is_target)
    mean = float(rows.value.mean())
    item, left_out, _ = shrunk(rows.value - mean, rows.item, train.n_items)
    return BiasBaseline(mean, item, np.zeros(train.n_users), _root(rows.value - mean - left_out))


def target_bias(train: Interactions) -> BiasBaseline:
    """Item bias plus the user's own bias, both from the target alone and shrunk, in turns. Provisional.

    A user without target rows gets the item bias, and the spread of other people around it.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, _ = synthetic.cross_domain(n_users=20)
    >>> baseline = target_bias(Interactions.from_frame(frame, target="target", value="value"))
    >>> baseline.sd < baseline.sd_new
    True
    """
    rows = train.mask(train.is_target)
    mean = float(rows.value.mean())
    centred = rows.value - mean
    user, user_out = np.zeros(train.n_users), np.zeros(len(rows))
    for _ in range(SWEEPS):
        item, item_out, _ = shrunk(centred - user[rows.user], rows.item, train.n_items)
        user, user_out, _ = shrunk(centred - item[rows.item], rows.user, train.n_users)
    known = np.bincount(rows.user, minlength=train.n_users) > 0
    sd, sd_new = _root(centred - item_out - user_out), _root(centred - item_out)
    return BiasBaseline(mean, item, user, sd, known=known, sd_new=max(sd, sd_new))


def bias_transfer(train: Interactions) -> BiasBaseline:
    """Item bias plus the user's shrunk source bias times a slope, learned where both are known. Provisional.

    The cheapest honest transfer: on real data much of what transfers is how generous a user is. Where items are shared
    it is user bias plus the item's shrunk source bias.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, truth = synthetic.cross_domain(n_users=200, n_cold=100, rank=1)
    >>> baseline = bias_transfer(Interactions.from_frame(frame, target="target", value="value"))
    >>> cold = slice(0, 100)  # no target rating: what is known of them is how they rate in the source
    >>> bool(np.corrcoef(baseline.user[cold], truth["user"][cold, 0])[0, 1] > 0.5)
    True
    """
    rows, source = train.mask(train.is_target), train.mask(~train.is_target)
    sides = {"user": (rows.user, source.user, train.n_users), "item": (rows.item, source.item, train.n_items)}
    across = train.shared[:-1]
    other = "item" if across == "user" else "user"
    mean = float(rows.value.mean())
    own, left_out, _ = shrunk(rows.value - mean, sides[other][0], sides[other][2])
    alone = _root(rows.value - mean - left_out)
    deviation = np.zeros(len(source))
    for code in range(len(train.domains) - 1):
        here = source.domain == code
        if here.any():
            value = source.value[here] - source.value[here].mean()
            codes = sides[other][1][here]
            level, _, _ = shrunk(value, codes, sides[other][2])
            # in the target's units
            deviation[here] = (value - level[codes]) * rows.value.std() / max(source.value[here].std(), 1e-12)
    level, _, _ = shrunk(deviation, sides[across][1], sides[across][2])
    residual = rows.value - mean - own[sides[other][0]]
    x = level[sides[across][0]]
    slope = float((x * residual).sum() / max((x * x).sum(), 1e-12))
    left = residual - slope * x
    sd = alone * float(np.sqrt((left**2).mean() / max((residual**2).mean(), 1e-12)))
    part = {other: own, across: slope * level}
    return BiasBaseline(mean, part["item"], part["user"], sd, slope)


item_user_bias = bias_transfer
"""The name that `bias_transfer` had first."""
