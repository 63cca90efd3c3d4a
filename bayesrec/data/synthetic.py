"""Synthetic tables whose truth is known, in plain NumPy."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayesrec.data.seeds import generator
from bayesrec.errors import DataError

_BIAS_SD = 0.4  # of users and of items
_MEAN = 3.5


def cross_domain(
    n_users: int = 200,
    n_items: tuple[int, int] = (80, 60),
    n_ratings: tuple[int, int] = (20, 8),
    rank: int = 3,
    correlation: float = 0.8,
    noise: float = 0.6,
    n_cold: int = 0,
    hostile: float = 0.0,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Draw a source and a target domain whose user factors are correlated. Stable.

    User u has source factors phi_u, a bias (sd 0.4) and `rank` components (sd 1), and target factors theta_u =
    correlation * phi_u + sqrt(1 - correlation^2) * eps_u, component by component. Ratings are eta + noise, eta = 3.5 +
    user bias + item bias + p . q, with item factors q ~ N(0, 0.36 / sqrt(rank)) and item biases N(0, 0.4^2).

    Parameters
    ----------
    n_users : int
        Users, all of them in the source.
    n_items, n_ratings : pair of int
        Items of the source and of the target; rated items of each user there, drawn without replacement.
    rank : int
        Number of factors besides the bias.
    correlation : float
        Of source and target factors, in [-1, 1].
    noise : float
        Standard deviation of a rating about eta.
    n_cold : int
        The first users, who have no target rows; it changes nothing for the others.
    hostile : float
        Share of the users, drawn at random, whose target factors follow an independent copy of phi.
    seed : int
        Of everything drawn.

    Returns
    -------
    frame : pandas.DataFrame
        Columns user, item (integers; items count from 0 in each domain), domain ("source", "target"), value.
    truth : dict of ndarray
        user and source_user (n_users, rank + 1), item_source and item_target (items, rank + 1), bias first; noise ();
        gate (n_users,) of bool, false for hostile users; eta_target (n_users, target items).

    Raises
    ------
    DataError
        Sizes below one, more ratings than items, a correlation, share or noise out of range.

    Examples
    --------
    >>> frame, truth = cross_domain(n_users=4, n_items=(9, 8), n_ratings=(5, 2), n_cold=1)
    >>> frame.groupby("domain").size().to_dict(), truth["eta_target"].shape
    ({'source': 20, 'target': 6}, (4, 8))
    """
    _check(n_users, n_items, n_ratings, rank, correlation, noise, n_cold, hostile)
    rng = generator(seed)
    scale = np.array([_BIAS_SD] + [1.0] * rank)
    phi, copy, eps = (scale * rng.standard_normal((n_users, rank + 1)) for _ in range(3))
    gate = np.ones(n_users, dtype=bool)
    gate[rng.permutation(n_users)[: round(hostile * n_users)]] = False
    theta = correlation * np.where(gate[:, None], phi, copy) + np.sqrt(1 - correlation**2) * eps
    tables, items, etas = [], [], []
    for name, users, size, count in zip(("source", "target"), (phi, theta), n_items, n_ratings, strict=True):
        factors = rng.standard_normal((size, rank + 1)) * np.array([_BIAS_SD] + [0.6 / rank**0.25] * rank)
        eta = _MEAN + users[:, :1] + factors[:, 0] + users[:, 1:] @ factors[:, 1:].T
        item = np.sort(rng.random((n_users, size)).argsort(axis=1)[:, :count], axis=1)
        value = np.take_along_axis(eta, item, axis=1) + noise * rng.standard_normal(item.shape)
        first = n_cold if name == "target" else 0
        user = np.repeat(np.arange(first, n_users), count)
        tables.append(
            pd.DataFrame({"user": user, "item": item[first:].ravel(), "domain": name, "value": value[first:].ravel()})
        )
        items.append(factors)
        etas.append(eta)
    truth = {
        "user": theta,
        "source_user": phi,
        "item_source": items[0],
        "item_target": items[1],
        "noise": np.array(noise),
        "gate": gate,
        "eta_target": etas[1],
    }
    return pd.concat(tables, ignore_index=True), truth


def _check(
    n_users: int,
    n_items: tuple[int, int],
    n_ratings: tuple[int, int],
    rank: int,
    correlation: float,
    noise: float,
    n_cold: int,
    hostile: float,
) -> None:
    """Raise a DataError for an argument out of range."""
    if min(n_users, rank, *n_items, *n_ratings) < 1:
        raise DataError("n_users, rank, n_items and n_ratings must be 1 or more")
    for name, size, count in zip(("source", "target"), n_items, n_ratings, strict=True):
        if count > size:
            raise DataError(f"n_ratings: {count} rated items per user in the {name}, which has {size} items only")
    if not -1 <= correlation <= 1:
        raise DataError(f"correlation must lie in [-1, 1], got {correlation}")
    if not 0 <= hostile <= 1:
        raise DataError(f"hostile must lie in [0, 1], got {hostile}")
    if noise < 0:
        raise DataError(f"noise must be 0 or more, got {noise}")
    if not 0 <= n_cold < n_users:
        raise DataError(f"n_cold must be from 0 to n_users - 1, got {n_cold}")
