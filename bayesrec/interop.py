"""To and from other recommender libraries: Surprise, LensKit and RecBole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data import Interactions
from bayesrec.data.columns import nearest
from bayesrec.errors import DataError, MissingExtraError
from bayesrec.tables import write_bytes

__all__ = ["from_lenskit", "from_surprise", "lenskit_lists", "to_lenskit", "to_recbole", "to_surprise"]

LENSKIT = {"user": ("user_id", "user"), "item": ("item_id", "item"), "time": ("timestamp", "time")}


def from_surprise(ratings: Any, target: Any = "target") -> Interactions:
    """Read the ratings of a Surprise Dataset or Trainset. Provisional.

    Parameters
    ----------
    ratings : surprise.Dataset or surprise.Trainset
        Surprise knows one domain: the answer has no sources. For transfer, put ``from_surprise(a).to_frame()`` and so
        on into ``Interactions.from_frames``.
    target : str or int
        Name of the domain.

    Returns
    -------
    Interactions
        Raw ids, columns user, item, rating; no domain column.

    Raises
    ------
    DataError
        Neither of the two, or a Dataset of given folds, which has no ratings of its own.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> rows = SimpleNamespace(raw_ratings=[("ann", "Heat", 4.0, None), ("bob", "Heat", 2.0, None)])
    >>> from_surprise(rows, target="film").to_frame()["rating"].tolist()
    [4.0, 2.0]
    """
    if hasattr(ratings, "raw_ratings"):
        rows = [(user, item, value) for user, item, value, *_ in ratings.raw_ratings]
    elif hasattr(ratings, "all_ratings"):
        raw_user, raw_item = ratings.to_raw_uid, ratings.to_raw_iid
        rows = [(raw_user(user), raw_item(item), value) for user, item, value in ratings.all_ratings()]
    else:
        raise DataError(
            f"ratings must be a surprise Trainset or a Dataset with ratings, not {type(ratings).__name__}; for a Dataset of "
            f"given folds pass each fold's Trainset"
        )
    frame = pd.DataFrame(rows, columns=["user", "item", "rating"])
    return Interactions.from_frame(frame, target=target, domain=None)


def to_surprise(data: Interactions, domain: Any = None, scale: tuple[float, float] | None = None) -> Any:
    """Return the ratings of one domain as a Surprise Dataset. Provisional.

    Parameters
    ----------
    data : Interactions
    domain : str or int, optional
        None is the target.
    scale : (float, float), optional
        Lowest and highest rating, to which Surprise clips its predictions; None is what the rows hold.

    Returns
    -------
    surprise.Dataset
        Ids as they came; ``build_full_trainset()`` makes a Trainset.

    Raises
    ------
    MissingExtraError
        Surprise is not installed.
    DataError
        An unknown domain, or one without rows.
    """
    rows = _table(data, domain)
    if not len(rows):
        raise DataError(f"domain {data.target if domain is None else domain!r} has no rows: nothing for Surprise.")
    try:
        from surprise import Dataset, Reader
    except ImportError as error:
        raise _missing("Surprise", "scikit-surprise") from error
    low, high = (rows["rating"].min(), rows["rating"].max()) if scale is None else scale
    ratings = rows[["user", "item", "rating"]]
    return Dataset.load_from_df(ratings, Reader(rating_scale=(float(low), float(high))))


def from_lenskit(dataset: Any, target: Any = "target") -> Interactions:
    """Read a LensKit Dataset, or a table in its layout. Provisional.

    Parameters
    ----------
    dataset : lenskit.data.Dataset or DataFrame (n rows)
        A table has user_id (or user), item_id (or item), and may have rating and timestamp (or time).
    target : str or int
        Name of the domain.

    Returns
    -------
    Interactions
        Under the names of the table's columns; no domain column. Clicks where there is no rating.

    Raises
    ------
    DataError
        A table without ids of users or items.

    Examples
    --------
    >>> frame = pd.DataFrame({"user_id": [1, 2], "item_id": ["a", "a"], "rating": [4.0, 2.0]})
    >>> from_lenskit(frame).columns.user
    'user_id'
    """
    frame = dataset.interactions().pandas(ids=True) if hasattr(dataset, "interactions") else dataset
    if not hasattr(frame, "columns"):
        raise DataError(f"dataset must be a LensKit Dataset or a data frame, not {type(dataset).__name__}")
    have = list(frame.columns)
    found = {role: next((name for name in names if name in have), None) for role, names in LENSKIT.items()}
    for role in ("user", "item"):
        if found[role] is None:
            wanted = LENSKIT[role][0]
            raise DataError(f"the table has no column {wanted!r}{nearest(wanted, have)}; it has {have}")
    value = "rating" if "rating" in have else None
    return Interactions.from_frame(
        frame,
        target=target,
        user=str(found["user"]),
        item=str(found["item"]),
        domain=None,
        value=value,
        time=found["time"],
    )


def to_lenskit(data: Interactions, domain: Any = None) -> Any:
    """Return the ratings of one domain as a table that LensKit reads. Provisional.

    Pass it to ``lenskit.data.from_interactions_df``; LensKit itself is not needed here.

    Parameters
    ----------
    data : Interactions
    domain : str or int, optional
        None is the target.

    Returns
    -------
    pandas.DataFrame (n rows)
        user_id, item_id, rating (float64; left out for clicks), timestamp (where the data have times).

    Raises
    ------
    DataError
        An unknown domain.

    Examples
    --------
    >>> frame = pd.DataFrame({"who": [1, 2], "what": ["a", "a"], "stars": [4, 2]})
    >>> data = Interactions.from_frame(frame, target="film", user="who", item="what", value="stars", domain=None)
    >>> to_lenskit(data).columns.tolist()
    ['user_id', 'item_id', 'rating']
    """
    rows = _table(data, domain).rename(columns={"user": "user_id", "item": "item_id", "time": "timestamp"})
    for name in ("user_id", "item_id"):
        if not pd.api.types.is_integer_dtype(rows[name].dtype):
            rows[name] = rows[name].astype(object)  # LensKit refuses the string type of pandas 3
    return rows if data.columns.value is not None else rows.drop(columns="rating")


def lenskit_lists(recommendations: Any, data: Interactions) -> Any:
    """Return the answer of `br.recommend` as LensKit's lists, for its metrics. Provisional.

    Parameters
    ----------
    recommendations : DataFrame
        With the id columns of `data`, rank and score.
    data : Interactions
        Names the id columns.

    Returns
    -------
    lenskit.data.ItemListCollection
        An ordered ItemList for each user, key ``user_id``.

    Raises
    ------
    MissingExtraError
        LensKit is not installed.
    DataError
        A table without these columns.
    """
    names = {data.columns.user: "user_id", data.columns.item: "item_id", "rank": "rank", "score": "score"}
    for name in names:
        if name not in list(recommendations.columns):
            raise DataError(f"recommendations have no column {name!r}; pass the answer of br.recommend as it is")
    try:
        from lenskit.data import ItemList, ItemListCollection
    except ImportError as error:
        raise _missing("LensKit", "lenskit") from error
    frame = pd.DataFrame({new: np.asarray(recommendations[old]) for old, new in names.items()})
    lists = {
        user: ItemList(item_ids=part["item_id"].to_numpy(), scores=part["score"].to_numpy(dtype=float), ordered=True)
        for user, part in frame.sort_values("rank", kind="stable").groupby("user_id", sort=False)
    }
    return ItemListCollection.from_dict(lists, key="user_id")


def to_recbole(data: Interactions, folder: str | os.PathLike[str]) -> list[Path]:
    r"""Write each domain as a RecBole atomic file, ``folder/DOMAIN/DOMAIN.inter``. Provisional.

    RecBole's ``data_path`` is then `folder` and ``dataset`` the domain; ``br.datasets.recbole`` reads the files back.

    Parameters
    ----------
    data : Interactions
    folder : path
        Is made where it is missing. Files there of the same names are replaced, each whole or not at all.

    Returns
    -------
    list of Path
        The files, in the order of ``data.domains``.

    Raises
    ------
    DataError
        An id with a tab or a line break, or a domain whose name cannot be a file's; nothing is written then.
    BayesrecError
        The disk is full, or the place cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> frame = pd.DataFrame({"user": [1], "item": ["Heat"], "rating": [4.5]})
    >>> data = Interactions.from_frame(frame, target="film", domain=None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_recbole(data, folder)[0].read_text()
    'user_id:token\titem_id:token\trating:float\n1\tHeat\t4.5\n'
    """
    contents = {}
    for domain in data.domains:
        name = str(domain)
        if not name or name in (".", "..") or any(mark in name for mark in "/\\:\0\n\t"):
            raise DataError(f"domain {domain!r} cannot be the name of a file; rename the domain")
        rows = to_lenskit(data, domain)
        contents[Path(folder, name, f"{name}.inter")] = _inter(rows)
    return [write_bytes(path, content) for path, content in contents.items()]


def _inter(rows: pd.DataFrame) -> bytes:
    """Return the content of a .inter file: tab between, a typed header, no quotes."""
    kinds = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
    text = {}
    for name in rows:
        if kinds[name] == "token":
            text[name] = [str(value) for value in rows[name]]
            bad = next((value for value in text[name] if len(value.splitlines()) > 1 or {*"\t\n\r"} & {*value}), None)
            if bad is not None:
                raise DataError(
                    f"{name} {bad!r} has a tab or a line break, which RecBole's files cannot hold; rename it"
                )
        else:
            column = rows[name]
            if pd.api.types.is_datetime64_any_dtype(column.dtype):
                column = column.astype("datetime64[ns]").astype("int64") / 1e9
            text[name] = [repr(value).removesuffix(".0") for value in column.tolist()]
    head = "\t".join(f"{name}:{kinds[name]}" for name in text)
    lines = ["\t".join(fields) for fields in zip(*text.values(), strict=True)]
    return ("\n".join([head, *lines]) + "\n").encode()


def _table(data: Interactions, domain: Any) -> pd.DataFrame:
    """Rows of one domain: user, item, rating and, where there are times, time (seconds since 1970 for datetimes)."""
    if not isinstance(data, Interactions):
        raise DataError(f"data must be Interactions, not {type(data).__name__}; make them with Interactions.from_frame")
    code = len(data.domains) - 1 if domain is None else data.domain_code(domain)
    rows = data.mask(data.domain == code)
    out = pd.DataFrame(
        {"user": rows.users.decode(rows.user), "item": rows.items.decode(rows.item), "rating": rows.value}
    )
    if rows.time is not None:
        out["time"] = rows.time
    return out


def _missing(library: str, package: str) -> MissingExtraError:
    return MissingExtraError(f"{library} is not installed: pip install {package}")
