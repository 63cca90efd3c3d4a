"""SVD of stacked domains: all rows in one matrix, biases and a few factors, fitted by alternating least squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from bayesrec.baselines.base import Baseline
from bayesrec.baselines.bias import item_bias, shrunk
from bayesrec.data import Interactions, split
from bayesrec.errors import DataError

__all__ = ["StackedSVD", "alternate", "stacked_svd"]

SWEEPS = 15
BLOCK = 2**24  # numbers that the normal equations of a block may take
PENALTIES = (0.3, 3.0, 10.0, 20.0, 30.0)
RANKS = (0, 2, 4, 8, 16)
FIRST_RANK = 8  # with it the penalty is chosen
CHOICE_ROWS = 300_000  # of more rows, rank and penalty are chosen on a random part of the users
INNER = 0.1  # share of users, and of other target rows, on which rank and penalty are chosen


@dataclass(frozen=True)
class StackedSVD(Baseline):
    """``center + scale * (b_u + c_i + p_u . q_i)``, one vector a user and an item whatever the domain.

    Attributes
    ----------
    user, item : ndarray, (user, rank + 1) and (item, rank + 1)
        Bias first, in sd units.
    center, scale : float
        Of the target's ratings.
    known : ndarray of bool, (user,)
        Users with target rows; items, (item,), where items are shared.
    sd, sd_new : float
        Root mean squared error for them and for the others, on rows that an inner fit had not seen.
    rank : int
    penalty : float
        Of the factors' squares, in units of the noise variance.
    shared : str
        "users" or "items": of whom ``known`` is.
    """

    user: np.ndarray
    item: np.ndarray
    center: float
    scale: float
    known: np.ndarray
    sd: float
    sd_new: float
    rank: int
    penalty: float
    shared: str = "users"

    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Expected ratings (row,); unknown ids count zero."""
        p = np.where((user >= 0)[:, None], self.user[user], 0.0)
        q = np.where((item >= 0)[:, None], self.item[item], 0.0)
        return self.center + self.scale * _score(p, q)

    def spread(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Sd of a new rating (row,)."""
        code = user if self.shared == "users" else item
        return np.where((code >= 0) & self.known[code], self.sd, self.sd_new)


def stacked_svd(train: Interactions) -> StackedSVD:
    """Fit the SVD of stacked domains; rank and penalty are chosen inside the training rows. Provisional.

    Ratings are standardised by domain. A tenth of the users (items where items are shared) that have source rows lose
    their target rows, and a tenth of the other target rows go too; the choice is the smallest squared error there. The
    fit is then repeated on all rows. Deterministic. Without a source it is the SVD of the target.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, _ = synthetic.cross_domain(n_users=60, noise=0.2)
    >>> data = Interactions.from_frame(frame, target="target", value="value")
    >>> stacked_svd(data).predict(data.user[:3], data.item[:3]).shape
    (3,)
    """
    inner, cold, warm = _inner(train)
    rank, penalty = FIRST_RANK, 10.0
    sd = sd_new = item_bias(train).sd
    held = [part for part in (cold, warm) if part is not None]
    if held:

        def error(rank: int, penalty: float) -> float:
            fitted = _fit(inner, rank, penalty)
            return sum(float(((part.value - fitted.predict(part.user, part.item)) ** 2).sum()) for part in held)

        penalty = min(PENALTIES, key=lambda penalty: error(rank, penalty))
        rank = min(RANKS, key=lambda rank: error(rank, penalty))
        fitted = _fit(inner, rank, penalty)

        def root(part: Interactions, alone: bool = False) -> float:
            nobody = np.full(len(part), -1)
            known = part.user, part.item
            strange = (nobody, part.item) if train.shared == "users" else (part.user, nobody)
            return float(np.sqrt(((part.value - fitted.predict(*(strange if alone else known))) ** 2).mean()))

        sd = root(warm) if warm is not None else sd
        sd_new = root(cold) if cold is not None else root(held[0], alone=True)
    return _fit(train, rank, penalty, sd, sd_new)


def _inner(train: Interactions) -> tuple[Interactions, Interactions | None, Interactions | None]:
    """Rows to choose on: what is left, rows of users new to the target, other target rows."""
    if len(train) > CHOICE_ROWS:
        lucky = np.random.default_rng(0).random(train.n_users) < CHOICE_ROWS / len(train)
        train = train.mask(lucky[train.user])
    inner, cold, warm = train, None, None
    cold_side = split.cold_users if train.shared == "users" else split.cold_items
    try:
        rest, held = cold_side(train, fraction=INNER, seed=0)
        if rest.is_target.sum() > 1:
            inner, cold = rest, held
    except DataError:  # nobody has rows in both domains
        pass
    if inner.is_target.sum() > 2:
        inner, warm = split.holdout(inner, fraction=INNER, seed=0)
    return inner, cold, warm


def _fit(data: Interactions, rank: int, penalty: float, sd: float = np.nan, sd_new: float = np.nan) -> StackedSVD:
    center, scale = np.zeros(len(data.domains)), np.ones(len(data.domains))
    for code in range(len(data.domains)):
        value = data.value[data.domain == code]
        if len(value):
            center[code], scale[code] = value.mean(), value.std() or 1.0
    z = (data.value - center[data.domain]) / scale[data.domain]
    user, item = alternate(data.user, data.item, z, (data.n_users, data.n_items), rank, penalty)
    codes, n = (data.user, data.n_users) if data.shared == "users" else (data.item, data.n_items)
    known = np.bincount(codes[data.is_target], minlength=n) > 0
    return StackedSVD(user, item, float(center[-1]), float(scale[-1]), known, sd, sd_new, rank, penalty, data.shared)


def alternate(
    user: np.ndarray, item: np.ndarray, value: np.ndarray, shape: tuple[int, int], rank: int, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Biases and factors of a sparse matrix by alternating ridge regressions from a fixed start.

    Parameters
    ----------
    user, item : ndarray of int, (row,)
    value : ndarray, (row,)
    shape : (users, items)
    rank : int
        0 for biases only.
    penalty : float
        On the squares of factors; biases have one each side, by moments.

    Returns
    -------
    user, item : ndarray, (users, rank + 1) and (items, rank + 1)
        Bias first.
    """
    ridge = [
        np.r_[shrunk(value, codes, n)[2], np.full(rank, penalty)] for codes, n in zip((user, item), shape, strict=True)
    ]
    seen = sparse.csr_matrix((np.ones(len(value)), (user, item)), shape=shape)
    matrix = sparse.csr_matrix((value, (user, item)), shape=shape)
    sides = [(seen, matrix), (sparse.csr_matrix(seen.T), sparse.csr_matrix(matrix.T))]
    rng = np.random.default_rng(0)
    p, q = np.zeros((shape[0], rank + 1)), np.zeros((shape[1], rank + 1))
    q[:, 1:] = rng.standard_normal((shape[1], rank)) / np.sqrt(max(rank, 1))
    for _ in range(SWEEPS):
        p = _ridge(*sides[0], q, ridge[0])
        q = _ridge(*sides[1], p, ridge[1])
    return p, q


def _ridge(seen: sparse.csr_matrix, matrix: sparse.csr_matrix, other: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Vectors (row, R) that fit the rows of a matrix given the vectors (column, R) of the other side."""
    size = other.shape[1]
    design = other.copy()
    design[:, 0] = 1.0
    outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    right = matrix @ design - seen @ (other[:, :1] * design)
    out = np.empty((seen.shape[0], size))
    step = max(1, BLOCK // size**2)
    for start in range(0, len(out), step):
        rows = slice(start, start + step)
        gram = (seen[rows] @ outer).reshape(-1, size, size) + np.diag(ridge)
        out[rows] = np.linalg.solve(gram, right[rows, :, None])[..., 0]
    return out


def _score(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p[:, 0] + q[:, 0] + (p[:, 1:] * q[:, 1:]).sum(1)
