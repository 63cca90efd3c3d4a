"""Tables to tables: k-core, binarise, time bins, features from genres and text."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse.linalg
from scipy import sparse

from bayesrec.data.columns import require_columns
from bayesrec.errors import DataError

_WORD = re.compile(r"[^\W_]{2,}")


def k_core(frame: pd.DataFrame, user: int = 5, item: int = 5) -> pd.DataFrame:
    """Drop rows until every user has `user` rows or more and every item `item`, domain by domain. Provisional.

    Parameters
    ----------
    frame : pandas.DataFrame
        With `user`, `item` and perhaps `domain`.
    user, item : int
        Least numbers of rows, 1 or more.

    Returns
    -------
    pandas.DataFrame
        The greatest part with this property, rows in their order; it may be empty.

    Raises
    ------
    DataError
        Missing columns, numbers below 1.

    Examples
    --------
    >>> frame = pd.DataFrame({"user": [1, 1, 2, 2, 3], "item": [1, 2, 1, 2, 1]})
    >>> k_core(frame, user=2, item=2)["user"].tolist()
    [1, 1, 2, 2]
    """
    _check(frame, "user", "item")
    if min(user, item) < 1:
        raise DataError(f"user and item must be 1 or more, got {user} and {item}")
    users, items = (pd.factorize(frame[name])[0] for name in ("user", "item"))
    if "domain" in frame:
        domain = pd.factorize(frame["domain"])[0]
        users, items = (pd.factorize(codes * (domain.max(initial=0) + 1) + domain)[0] for codes in (users, items))
    rows = np.arange(len(frame))
    while len(rows):
        good = np.bincount(users[rows])[users[rows]] >= user
        good &= np.bincount(items[rows])[items[rows]] >= item
        if good.all():
            break
        rows = rows[good]
    return frame.iloc[rows].reset_index(drop=True)


def binarise(frame: pd.DataFrame, at_least: float = 4, drop: bool = False) -> pd.DataFrame:
    """Turn ratings into 1.0 (`at_least` or more) and 0.0. Provisional.

    Parameters
    ----------
    frame : pandas.DataFrame
        With `rating`.
    at_least : float
        Least rating that counts as liked.
    drop : bool
        Whether to keep the ones only, for models of clicks.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    DataError
        No column `rating`.

    Examples
    --------
    >>> binarise(pd.DataFrame({"rating": [3.5, 4.0]}))["rating"].tolist()
    [0.0, 1.0]
    """
    _check(frame, "rating")
    liked = (frame["rating"] >= at_least).astype(np.float64)
    frame = frame.assign(rating=liked)
    return frame[liked == 1].reset_index(drop=True) if drop else frame


def time_bins(frame: pd.DataFrame, by: int | str) -> pd.DataFrame:
    """Add a column `bin`, 0 for the oldest rows. Provisional.

    Parameters
    ----------
    frame : pandas.DataFrame
        With `time`: datetimes, or numbers if `by` is a number of bins.
    by : int or str
        Number of bins with about the same number of rows (rows of one moment stay together), or a period of the
        calendar such as "D", "W", "M", "Q", "Y"; empty periods count.

    Returns
    -------
    pandas.DataFrame
        With `bin` (int64).

    Raises
    ------
    DataError
        No column `time`, fewer than one bin, an unknown period.

    Examples
    --------
    >>> times = pd.to_datetime(["2005-01-31", "2005-02-01", "2005-04-01"])
    >>> time_bins(pd.DataFrame({"time": times}), "M")["bin"].tolist()
    [0, 1, 3]
    """
    _check(frame, "time")
    if isinstance(by, str):
        try:
            period = frame["time"].dt.to_period(by)
        except (ValueError, AttributeError, TypeError) as error:
            raise DataError(f"cannot bin the times by {by!r} ({error}); use D, W, M, Q or Y on datetimes") from error
        ordinal = np.asarray(period.array.asi8)
        return frame.assign(bin=ordinal - (ordinal.min() if len(ordinal) else 0))
    if by < 1:
        raise DataError(f"time_bins needs 1 bin or more, got {by}")
    times = frame["time"].to_numpy()
    edges = np.sort(times)[[len(times) * k // by for k in range(1, by)]] if len(times) else times
    return frame.assign(bin=np.searchsorted(np.unique(edges), times, side="right").astype(np.int64))


def genre_features(items: pd.DataFrame, column: str = "genres") -> pd.DataFrame:
    """Return one 0/1 column for each genre. Provisional.

    Parameters
    ----------
    items : pandas.DataFrame
        With `item` and the column of genres, ``|`` between.
    column : str
        That column.

    Returns
    -------
    pandas.DataFrame
        `item`, then the genres by name, float64; ready for `item_features`.

    Raises
    ------
    DataError
        Missing columns, or no genre at all.

    Examples
    --------
    >>> genre_features(pd.DataFrame({"item": [1, 2], "genres": ["Drama|War", ""]})).to_dict("list")
    {'item': [1, 2], 'Drama': [1.0, 0.0], 'War': [1.0, 0.0]}
    """
    _check(items, "item", column)
    lists = [[part for part in str(text).split("|") if part] for text in items[column].fillna("")]
    names = sorted({name for part in lists for name in part} - {"item"})
    if not names:
        raise DataError(f"column {column!r} names no genre; genres are text with | between")
    at = {name: k for k, name in enumerate(names)}
    table = np.zeros((len(items), len(names)))
    for row, part in enumerate(lists):
        for name in part:
            if name in at:
                table[row, at[name]] = 1.0
    return pd.concat([items[["item"]].reset_index(drop=True), pd.DataFrame(table, columns=names)], axis=1)


def text_features(items: pd.DataFrame, column: str, n: int = 50) -> pd.DataFrame:
    """Return the leading directions of the words of a text column (tf-idf, truncated SVD). Provisional.

    Parameters
    ----------
    items : pandas.DataFrame
        With `item` and the text.
    column : str
        Column of text; a word has two letters or digits at least, and counts if two items or more have it.
    n : int
        Number of directions.

    Returns
    -------
    pandas.DataFrame
        `item` and `text_0` ... in falling order of what they explain; fewer than `n` where there are fewer words or
        items. Deterministic: the largest weight of a direction is positive.

    Raises
    ------
    DataError
        Missing columns, n below 1, or no word that two items share.

    Examples
    --------
    >>> items = pd.DataFrame({"item": [1, 2, 3], "title": ["red fox", "red dog", "blue dog"]})
    >>> text_features(items, "title", n=2).shape
    (3, 3)
    """
    _check(items, "item", column)
    if n < 1:
        raise DataError(f"text_features needs n of 1 or more, got {n}")
    weights = _tf_idf(items[column].fillna("").astype(str).tolist())
    if weights.shape[1] == 0:
        raise DataError(f"column {column!r} has no word that two items share; is it text?")
    small = min(weights.shape)
    n = min(n, small)
    if small <= 200 or n > small // 2:
        left, scale, right = np.linalg.svd(weights.toarray(), full_matrices=False)
        left, scale, right = left[:, :n], scale[:n], right[:n]
    else:
        start = np.random.default_rng(0).normal(size=small)  # ARPACK draws its start otherwise
        left, scale, right = scipy.sparse.linalg.svds(weights, k=n, v0=start)
        left, scale, right = left[:, ::-1], scale[::-1], right[::-1]
    sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    table = pd.DataFrame(left * (scale * sign), columns=[f"text_{k}" for k in range(len(scale))])
    return pd.concat([items[["item"]].reset_index(drop=True), table], axis=1)


def _tf_idf(texts: list[str]) -> sparse.csr_array:
    """Return unit rows of (1 + log count) * log(n / items with the word), words of two items or more, by name."""
    words = [_WORD.findall(text.lower()) for text in texts]
    having = pd.Series([word for part in words for word in set(part)], dtype=object).value_counts()
    names = sorted(having.index[having >= 2])
    at = {word: k for k, word in enumerate(names)}
    rows = [row for row, part in enumerate(words) for word in part if word in at]
    columns = [at[word] for part in words for word in part if word in at]
    counts = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(texts), len(names))).tocsr()
    counts.data = 1 + np.log(counts.data)
    idf = 1 + np.log(len(texts) / having.reindex(names).to_numpy(dtype=np.float64))
    weights = counts * idf[None, :]
    norm = np.sqrt(weights.power(2).sum(axis=1))
    return sparse.csr_array(sparse.diags_array(1 / np.where(norm > 0, norm, 1)) @ weights)


def _check(frame: Any, *names: str) -> None:
    """Raise a DataError for something that is no pandas table, or for a missing column."""
    if not isinstance(frame, pd.DataFrame):
        hint = (
            "; pass its ratings or items"
            if hasattr(frame, "ratings")
            else "; call .to_pandas()" * hasattr(frame, "to_pandas")
        )
        raise DataError(f"need a pandas DataFrame, got {type(frame).__name__}{hint}")
    require_columns(frame.columns, {name: name for name in names})
