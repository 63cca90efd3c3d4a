"""Rankings: popularity, and probabilistic PCA of stacked clicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from bayesrec.baselines.base import Baseline
from bayesrec.data import Interactions

__all__ = ["Popularity", "StackedPPCA", "popularity", "stacked_ppca"]

RANK = 32
FLATTEN = 1 / 3  # columns are divided by popularity to this power
STEPS = 40


@dataclass(frozen=True)
class Popularity(Baseline):
    """The number of target rows of an item: an order, not a rating."""

    count: np.ndarray
    is_rating = False

    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Scores (row,); an unknown item counts zero."""
        return np.where(item >= 0, self.count[item], 0.0)


def popularity(train: Interactions) -> Popularity:
    """Count the target rows of each item: the list that everybody gets. Provisional.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, _ = synthetic.cross_domain(n_users=20)
    >>> data = Interactions.from_frame(frame, target="target", value="value")
    >>> int(popularity(data).count.sum()) == int(data.is_target.sum())
    True
    """
    return Popularity(np.bincount(train.item[train.is_target], minlength=train.n_items).astype(float))


@dataclass(frozen=True)
class StackedPPCA(Baseline):
    """Scores ``mean + loading . z`` of clicks, where ``z`` is the posterior mean of a latent vector.

    Attributes
    ----------
    mean : ndarray, (column,)
    loading : ndarray, (column, rank)
        Items where users are shared, users where items are.
    z : ndarray, (entity, rank)
    shared : str
    variance : float
        Of the noise, in flattened units.
    """

    mean: np.ndarray
    loading: np.ndarray
    z: np.ndarray
    shared: str
    variance: float
    is_rating = False

    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Scores (row,); unknown ids count zero."""
        entity, column = (user, item) if self.shared == "users" else (item, user)
        z = np.where((entity >= 0)[:, None], self.z[entity], 0.0)
        return np.where(column >= 0, self.mean[column] + (self.loading[column] * z).sum(1), 0.0)


def stacked_ppca(train: Interactions, rank: int = RANK) -> StackedPPCA:
    """Fit probabilistic PCA to the 0/1 matrix of users and the items of all domains side by side. Provisional.

    Fitted by EM. A user without a single row in a domain is missing there, not a row of zeros: such a user's vector is inferred
    from the other domains, and shrunk as much as that warrants. Columns are divided by a power of their popularity, so
    that hits do not fill all components. Where items are shared, users and items swap roles. Deterministic.

    References
    ----------
    Probabilistic PCA and its EM: Tipping and Bishop (1999), `tipping1999` in docs/references.bib.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, _ = synthetic.cross_domain(n_users=30)
    >>> data = Interactions.from_frame(frame.drop(columns="value"), target="target", value=None)
    >>> stacked_ppca(data, rank=2).z.shape
    (30, 2)
    """
    users = train.shared == "users"
    entity, column = (train.user, train.item) if users else (train.item, train.user)
    n, m = (train.n_users, train.n_items) if users else (train.n_items, train.n_users)
    domain_of = train.item_domain if users else train.user_domain
    count = np.bincount(column, minlength=m)
    weight = np.maximum(count, 1.0) ** -FLATTEN
    x = sparse.csr_matrix((weight[column], (entity, column)), shape=(n, m))
    rank = max(1, min(rank, min(x.shape) - 1))
    present = np.zeros((len(train.domains), n), dtype=bool)
    present[train.domain, entity] = True
    parts = [_Part(np.flatnonzero(domain_of == d), present[d], x, count, weight) for d in range(len(present))]
    parts = [part for part in parts if part.here.any() and len(part.columns)]
    _, scale, axes = svds(x, k=rank, v0=np.ones(min(x.shape)))
    loading = axes.T * scale / np.sqrt(max(n, 1))
    total = sum(part.squares for part in parts)
    size = sum(part.here.sum() * len(part.columns) for part in parts)
    variance = float(total / size)
    patterns, pattern = np.unique(np.stack([part.here for part in parts]), axis=1, return_inverse=True)
    pattern = pattern.ravel()
    for step in range(STEPS + 1):
        z, cov = np.zeros((n, rank)), np.zeros((patterns.shape[1], rank, rank))
        right = np.zeros((n, rank))
        for part in parts:
            right[part.here] += part.project(loading[part.columns])
        for g in range(patterns.shape[1]):
            grams = [
                loading[p.columns].T @ loading[p.columns] for p, on in zip(parts, patterns[:, g], strict=True) if on
            ]
            inverse = np.linalg.inv(variance * np.eye(rank) + sum(grams))
            who = pattern == g
            z[who], cov[g] = right[who] @ inverse, variance * inverse
        if step == STEPS:
            break
        left = total
        for part in parts:
            mine, groups = z[part.here], np.bincount(pattern[part.here], minlength=patterns.shape[1])
            second = mine.T @ mine + np.einsum("g,gij->ij", groups, cov)
            cross = part.cross(mine)
            new = np.linalg.solve(second, cross.T).T
            left += -2.0 * (new * cross).sum() + ((new @ second) * new).sum()
            loading[part.columns] = new
        variance = max(float(left / size), 1e-9)
    mean = np.zeros(m)
    for part in parts:
        mean[part.columns] = part.mean
    return StackedPPCA(mean / weight, loading / weight[:, None], z, train.shared, variance)


class _Part:
    """The block of one domain: its columns, and the entities that have a row there."""

    def __init__(self, columns: np.ndarray, here: np.ndarray, x: Any, count: np.ndarray, weight: np.ndarray):
        self.columns, self.here = columns, here
        self.x = sparse.csr_matrix(x[here][:, columns])
        n = max(int(here.sum()), 1)
        share = count[columns] / n
        self.mean = share * weight[columns]
        self.squares = float((n * share * (1.0 - share) * weight[columns] ** 2).sum())

    def project(self, loading: np.ndarray) -> np.ndarray:
        """Centred rows times the loadings, (entity here, rank)."""
        return self.x @ loading - self.mean @ loading

    def cross(self, z: np.ndarray) -> np.ndarray:
        """Centred columns times latent vectors, (column, rank)."""
        return self.x.T @ z - np.outer(self.mean, z.sum(0))
