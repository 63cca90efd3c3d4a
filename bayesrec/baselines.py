"""Simple honest baselines: item bias, and item bias plus what the source says of a user's general level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesrec.data import Interactions

__all__ = ["BiasBaseline", "item_bias", "item_user_bias"]


@dataclass(frozen=True)
class BiasBaseline:
    """A fitted baseline: ``mean + item + user``, with one sd for every prediction.

    Attributes
    ----------
    mean : float
    item : ndarray, (item,)
        Shrunk deviations of items.
    user : ndarray, (user,)
        What is added for a user; zero without a source.
    sd : float
        Root mean squared leave-one-out residual of the training rows.
    slope : float
        Of the target's user deviations on the source's.
    """

    mean: float
    item: np.ndarray
    user: np.ndarray
    sd: float
    slope: float = 0.0

    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Expected ratings (row,) for codes; unknown ids (-1) count zero."""
        c = np.where(item >= 0, self.item[item], 0.0)
        return self.mean + c + np.where(user >= 0, self.user[user], 0.0)


def _shrunk(value: np.ndarray, group: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Shrunk group means (group,), leave-one-out residuals (row,) and the shrinkage, by moments (empirical Bayes)."""
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
    return total / (n + shrinkage), value - left_out, shrinkage


def item_bias(train: Interactions) -> BiasBaseline:
    """Item means of the target, shrunk to the global mean: what popularity is to ranking.

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
    item, residual, _ = _shrunk(rows.value - mean, rows.item, train.n_items)
    return BiasBaseline(mean, item, np.zeros(train.n_users), float(np.sqrt((residual**2).mean())))


def item_user_bias(train: Interactions) -> BiasBaseline:
    """Item bias plus the user's shrunk source bias times a slope, learned on users with rows in both domains.

    The cheapest honest transfer: on real data much of what transfers is how generous a user is.
    """
    base = item_bias(train)
    rows, source = train.mask(train.is_target), train.mask(~train.is_target)
    deviation = np.zeros(len(source))
    for code in range(len(train.domains) - 1):
        here = source.domain == code
        if here.any():
            value = source.value[here] - source.value[here].mean()
            item, _, _ = _shrunk(value, source.item[here], train.n_items)
            # in the target's units
            deviation[here] = (
                (value - item[source.item[here]]) * rows.value.std() / max(source.value[here].std(), 1e-12)
            )
    level, _, _ = _shrunk(deviation, source.user, train.n_users)
    residual = rows.value - base.predict(rows.user, rows.item)
    x = level[rows.user]
    slope = float((x * residual).sum() / max((x * x).sum(), 1e-12))
    user = slope * level
    left = residual - user[rows.user]
    sd = base.sd * float(np.sqrt((left**2).mean() / max((residual**2).mean(), 1e-12)))
    return BiasBaseline(base.mean, base.item, user, sd, slope)
