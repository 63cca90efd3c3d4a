"""From data sets to Interactions with a source and a target: by file, genre, category or time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data import Interactions
from bayesrec.data.columns import nearest
from bayesrec.datasets.common import Dataset
from bayesrec.errors import DataError


def by_file(
    parts: Mapping[str, Any],
    target: str,
    *,
    shared: str = "users",
    user_features: Any = None,
    item_features: Any = None,
) -> Interactions:
    """Make one domain of each data set. Provisional.

    Parameters
    ----------
    parts : mapping of str to Dataset or data frame
        A frame has the columns `user`, `item`, `rating`. Times are kept if all parts have a column `time`.
    target : str
        The domain to predict.
    shared : {"users", "items"}
        The side whose ids mean the same in all parts.
    user_features, item_features : data frame, optional
        Passed on to `Interactions`.

    Returns
    -------
    Interactions

    Raises
    ------
    DataError
        A target that is no part, or a table that `Interactions.from_frames` refuses.

    Examples
    --------
    >>> book = pd.DataFrame({"user": [1, 2], "item": [7, 8], "rating": [5.0, 1.0]})
    >>> music = pd.DataFrame({"user": [1], "item": [7], "rating": [4.0]})
    >>> by_file({"book": book, "music": music}, target="music").sources
    ('book',)
    """
    frames = {name: part.ratings if isinstance(part, Dataset) else part for name, part in parts.items()}
    if target not in frames:
        raise DataError(f"target {target!r} is no part{nearest(target, frames)}; the parts are {list(frames)}")
    if any("domain" in getattr(frame, "columns", ()) for frame in frames.values()):
        frames = {name: _without_domain(frame, name) for name, frame in frames.items()}
    time = "time" if all("time" in getattr(frame, "columns", ()) for frame in frames.values()) else None
    return Interactions.from_frames(
        frames, target=target, time=time, shared=shared, user_features=user_features, item_features=item_features
    )


def by_genre(
    dataset: Dataset,
    source: str | Sequence[str],
    target: str,
    *,
    column: str = "genres",
    user_features: Any = None,
    item_features: Any = None,
) -> Interactions:
    """Make domains of genres. An item of both the source's and the target's genre goes to the target only. Provisional.

    Were such an item in both, the target ratings that are held out would stand in the source.

    Parameters
    ----------
    dataset : Dataset
        With `items` that have the column of genres.
    source : str or sequence of str
        Genre or genres; an item of several of them goes to the first named.
    target : str
        Genre to predict.
    column : str
        Column of `items` with ``|`` between genres.
    user_features, item_features : data frame, optional
        Passed on to `Interactions`.

    Returns
    -------
    Interactions
        With `dataset.trust` as `user_graph`.

    Raises
    ------
    DataError
        No such column, or a genre that no rated item has.

    Examples
    --------
    >>> ratings = pd.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3], "rating": [3.0, 4.0, 5.0]})
    >>> items = pd.DataFrame({"item": [1, 2, 3], "genres": ["Drama", "Comedy|Drama", "Comedy"]})
    >>> by_genre(Dataset("toy", ratings, items), source="Drama", target="Comedy").to_frame()["domain"].tolist()
    ['Drama', 'Comedy', 'Comedy']
    """
    groups = _item_column(dataset, column).fillna("").astype(str).str.split("|")
    groups = groups[groups.index.isin(dataset.ratings["item"])]
    has = {name: set(groups.index[[name in genres for genres in groups]]) for name in _names(source, target)}
    known = sorted({genre for genres in groups for genre in genres if genre})
    return _labelled(dataset, has, target, known, column, user_features, item_features)


def by_category(
    dataset: Dataset,
    column: str,
    source: Any,
    target: Any,
    *,
    user_features: Any = None,
    item_features: Any = None,
) -> Interactions:
    """Make domains of the values of a column of `ratings` or of `items`. Provisional.

    Parameters
    ----------
    dataset : Dataset
        With the column.
    column : str
        For example "category" (Ciao), "type" (anime), "city" (Yelp), "main_category" (Amazon) or "domain" (Douban).
    source : value or list of values
        What a source row has there.
    target : value
        What a target row has there.
    user_features, item_features : data frame, optional
        Passed on to `Interactions`.

    Returns
    -------
    Interactions
        With `dataset.trust` as `user_graph`. Where an item stands in two categories, all its rows in either go to the
        target, or to the first source. With column "domain" ids belong to their domain and nothing moves.

    Raises
    ------
    DataError
        No such column, or a value that no row has.

    Examples
    --------
    >>> ratings = pd.DataFrame({"user": [1, 1, 2], "item": [1, 2, 1], "rating": [3.0, 4.0, 5.0], "category": [3, 2, 2]})
    >>> by_category(Dataset("toy", ratings), "category", source=3, target=2).domains
    (2,)
    """
    frame = dataset.ratings
    wanted = _names(source, target)
    if column == "domain" and column in frame:
        known = list(pd.unique(frame[column]))
        for name in wanted:
            _check_known(name, known, column)
        return _interactions(dataset, frame[frame[column].isin(wanted)], target, user_features, item_features)
    if column in frame:
        pairs = frame.drop_duplicates(["item", column])
        has = {name: set(pairs["item"][pairs[column] == name]) for name in wanted}
        known, rows = list(pd.unique(frame[column])), frame[frame[column].isin(wanted)]
    else:
        values = _item_column(dataset, column)
        values = values[values.index.isin(frame["item"])]
        has = {name: set(values.index[values == name]) for name in wanted}
        known, rows = list(pd.unique(values)), frame
    return _labelled(dataset, has, target, known, column, user_features, item_features, rows)


def by_time(
    dataset: Dataset,
    cut: Any,
    *,
    source: str = "before",
    target: str = "after",
    shared: str = "users",
    user_features: Any = None,
    item_features: Any = None,
) -> Interactions:
    """Make a source of the ratings before a moment and a target of the others. Provisional.

    Parameters
    ----------
    dataset : Dataset
        With `time` in its ratings.
    cut : str, datetime or float
        A moment in UTC ("2005-01-01"), or a share strictly between 0 and 1 of the ratings that are to lie before it.
    source, target : str
        Names of the two domains.
    shared : {"users", "items"}
        With "users" an item of the first period and the same item of the second are two items, as a domain owns its
        items: the model asks what a user's past says about the user, and an item may have changed its public. With
        "items" it is the other way round.
    user_features, item_features : data frame, optional
        Passed on to `Interactions`.

    Returns
    -------
    Interactions
        With `dataset.trust` as `user_graph`.

    Raises
    ------
    DataError
        No times, a cut that is no moment, or a period without ratings.

    Examples
    --------
    >>> times = pd.to_datetime(["2004-05-01", "2005-01-01"]).astype("datetime64[s]")
    >>> ratings = pd.DataFrame({"user": [1, 1], "item": [1, 1], "rating": [3.0, 4.0], "time": times})
    >>> by_time(Dataset("toy", ratings), "2005-01-01").to_frame()["domain"].tolist()
    ['before', 'after']
    """
    frame = dataset.ratings
    if "time" not in frame:
        raise DataError(f"{dataset.name} has no times; by_time needs them")
    if source == target:
        raise DataError(f"source and target must have different names, both are {source!r}")
    if isinstance(cut, float | np.floating):
        if not 0 < cut < 1:
            raise DataError(f"cut as a share must lie strictly between 0 and 1, got {cut}")
        moment = np.sort(frame["time"].to_numpy())[int(cut * len(frame))] if len(frame) else None
    else:
        try:
            moment = pd.Timestamp(cut)
        except (ValueError, TypeError) as error:
            raise DataError(f"cut must be a moment such as '2005-01-01' or a share, got {cut!r}") from error
        if moment.tzinfo is not None:
            moment = moment.tz_convert("UTC").tz_localize(None)
    before = (frame["time"] < moment).to_numpy()
    if before.all() or not before.any():
        span = f"{frame['time'].min()} to {frame['time'].max()}"
        raise DataError(f"no ratings {'after' if before.all() else 'before'} the cut {moment}; times run from {span}")
    frame = frame.assign(domain=np.where(before, source, target))
    return _interactions(dataset, frame, target, user_features, item_features, shared)


def by_split(
    dataset: Dataset,
    source: Any,
    target: Any,
    *,
    value: str | None = "rating",
    splits: Sequence[str] = ("train", "valid", "test"),
) -> tuple[Interactions, ...]:
    """Make Interactions of each split that the data set came with. Provisional.

    Parameters
    ----------
    dataset : Dataset
        With the columns `domain` and `split` in its ratings.
    source : value or list of values
        Domains whose rows of the first split inform. Their held-out rows belong to the other direction and are left out.
    target : value
        Domain to predict.
    value : str or None
        Column of ratings; None for clicks.
    splits : sequence of str
        Names in `split`, training first.

    Returns
    -------
    tuple of Interactions
        One for each split, all with the vocabularies of the whole; all but the first hold target rows only.

    Raises
    ------
    DataError
        No such columns, or a domain or a split that no row has.

    Examples
    --------
    >>> ratings = pd.DataFrame({"user": [1, 1, 2, 2], "item": [7, 8, 7, 8], "rating": 1.0, "domain": ["a", "b", "a", "b"],
    ...                         "split": ["train", "train", "train", "test"]})
    >>> train, test = by_split(Dataset("toy", ratings), "a", "b", value=None, splits=("train", "test"))
    >>> len(train), test.to_frame().to_dict("list")
    (3, {'user': [2], 'item': [8], 'domain': ['b']})
    """
    frame = dataset.ratings
    for column in ("domain", "split"):
        if column not in frame:
            raise DataError(f"{dataset.name} has no column {column!r}{nearest(column, frame)}; it has {list(frame)}")
    for column, wanted in (("domain", _names(source, target)), ("split", splits)):
        for name in wanted:
            _check_known(name, list(pd.unique(frame[column])), column)
    frame = frame[frame["domain"].isin(_names(source, target)) & frame["split"].isin(splits)]
    frame = frame[(frame["domain"] == target) | (frame["split"] == splits[0])]
    data = Interactions.from_frame(
        frame, target=target, value=value, time="time" if "time" in frame else None, user_graph=dataset.trust
    )
    # of a pair that repeats, Interactions keep the last row: name the splits of the rows that are kept
    split = frame.loc[~frame.duplicated(["user", "item", "domain"], keep="last"), "split"].to_numpy()
    return tuple(data.mask(split == name) for name in splits)


def _names(source: Any, target: Any) -> list:
    """Return the target, then the sources; a DataError if one is named twice."""
    several = isinstance(source, Sequence | np.ndarray) and not isinstance(source, str)
    names = [target, *(source if several else [source])]
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(
            f"source and target must be different and at least one source be named, got {source!r}, {target!r}"
        )
    return names


def _labelled(
    dataset: Dataset, has: Mapping[Any, set], target: Any, known: list, column: str,
    user_features: Any, item_features: Any, rows: pd.DataFrame | None = None,
) -> Interactions:  # fmt: skip
    """Give each item to the first domain of `has` (the target, then the sources) that has it."""
    owner: dict[Any, Any] = {}
    for name, items in has.items():
        if not items:
            _check_known(name, known, column)
        for item in items:
            owner.setdefault(item, name)
    frame = dataset.ratings if rows is None else rows
    frame = frame[frame["item"].isin(owner)]
    frame = frame.assign(domain=frame["item"].map(owner))
    return _interactions(dataset, frame, target, user_features, item_features)


def _interactions(
    dataset: Dataset, frame: pd.DataFrame, target: Any, user_features: Any, item_features: Any, shared: str = "users"
) -> Interactions:
    return Interactions.from_frame(
        frame, target=target, time="time" if "time" in frame else None, shared=shared,
        user_features=user_features, item_features=item_features, user_graph=dataset.trust,
    )  # fmt: skip


def _item_column(dataset: Dataset, column: str) -> pd.Series:
    """Return a column of `items` by item id."""
    if dataset.items is None:
        raise DataError(
            f"{dataset.name} has no items table, so no column {column!r}; give the folder with the items' file"
        )
    names = list(dataset.items)
    if column not in names:
        names += [name for name in dataset.ratings if name not in names]
        raise DataError(f"{dataset.name} has no column {column!r}{nearest(column, names)}; it has {names}")
    return dataset.items.set_index("item")[column]


def _check_known(name: Any, known: list, column: str) -> None:
    """Raise a DataError for a value that no rated item has."""
    if name not in known:
        raise DataError(
            f"no rated item has {column} {name!r}{nearest(name, known)}; there are {sorted(map(str, known))[:30]}"
        )


def _without_domain(frame: Any, name: str) -> Any:
    """Return a frame without its column `domain`, unless that would mix the item ids of several domains."""
    if "domain" not in frame.columns:
        return frame
    if len(set(frame["domain"])) > 1:
        raise DataError(f"part {name!r} holds several domains; use by_category(dataset, 'domain', source, target)")
    return frame[[column for column in frame.columns if column != "domain"]]
