"""To and from other recommender libraries: Surprise, LensKit and RecBole.

RecBole's files are read with `bayesrec.datasets.recbole`. Where items are shared, tables hold users and items as the
caller knows them.
"""

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
NAMES = {"user": "user_id", "item": "item_id", "time": "timestamp"}  # of LensKit and RecBole alike
# what pandas, and so RecBole, takes for a missing value
MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip


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
        Raw ids, columns user, item, rating and, where every row of a Dataset has a time that is a number, time; no
        domain column.

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
        rows = [(user, item, value, *time[:1]) for user, item, value, *time in ratings.raw_ratings]
    elif hasattr(ratings, "all_ratings"):
        raw_user, raw_item = ratings.to_raw_uid, ratings.to_raw_iid
        rows = [(raw_user(user), raw_item(item), value) for user, item, value in ratings.all_ratings()]
    else:
        raise DataError(
            f"ratings must be a surprise Trainset or a Dataset with ratings, not {type(ratings).__name__}; for a Dataset of "
            f"given folds pass each fold's Trainset"
        )
    names = ["user", "item", "rating", "time"][: len(rows[0]) if rows else 3]
    frame, time = pd.DataFrame(rows, columns=names), None
    if "time" in names:
        frame["time"] = pd.to_numeric(frame["time"], errors="coerce")  # text, if it comes from a file
        time = "time" if np.isfinite(frame["time"]).all() else None
    return Interactions.from_frame(frame, target=target, domain=None, time=time)


def to_surprise(data: Interactions, domain: Any = None, scale: tuple[float, float] | None = None) -> Any:
    """Return the ratings of one domain as a Surprise Dataset. Provisional.

    Parameters
    ----------
    data : Interactions
    domain : str or int, optional
        None is the target.
    scale : (float, float), optional
        Lowest and highest rating, to which Surprise clips its predictions; None is what the rows hold. A split's parts
        hold different rows: give both the same.

    Returns
    -------
    surprise.Dataset
        Ids as they came; ``build_full_trainset()`` makes a Trainset.

    Raises
    ------
    MissingExtraError
        Surprise is not installed.
    DataError
        An unknown domain, or one without rows; clicks, which Surprise has no models for; a scale that leaves ratings
        out.
    """
    rows = _table(data, domain)
    if not len(rows):
        raise DataError(f"domain {data.target if domain is None else domain!r} has no rows: nothing for Surprise.")
    if data.columns.value is None:
        raise DataError("data are clicks, and Surprise predicts ratings; LensKit and RecBole take clicks.")
    least, most = rows["rating"].min(), rows["rating"].max()
    low, high = (least, most) if scale is None else scale
    if not low <= least <= most <= high:
        raise DataError(f"scale={scale!r} leaves ratings out: they are from {least:g} to {most:g}")
    try:
        from surprise import Dataset, Reader
    except ImportError as error:
        raise _missing("Surprise") from error
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
        user_id, item_id, rating (float64; left out for clicks), timestamp (where the data have times; UTC). Ids are
        int64 or objects.

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
    rows = _named(data, domain)
    for name in ("user_id", "item_id"):  # LensKit refuses small and unsigned integers and the string type of pandas 3
        ids = rows[name].infer_objects()
        rows[name] = ids.astype("int64" if pd.api.types.is_integer_dtype(ids.dtype) else object)
    return rows


def lenskit_lists(recommendations: Any, data: Interactions) -> Any:
    """Return the answer of `br.recommend` as LensKit's lists, for its metrics. Provisional.

    Parameters
    ----------
    recommendations : DataFrame
        With the id columns of `data`, rank and score.
    data : Interactions
        Names the id columns; ``posterior.data`` will do.

    Returns
    -------
    lenskit.data.ItemListCollection
        An ordered ItemList for each user, key ``user_id``. A user without recommendations has none.

    Raises
    ------
    MissingExtraError
        LensKit is not installed.
    DataError
        A table without these columns.
    """
    columns = _as_called(data).columns
    names = {columns.user: "user_id", columns.item: "item_id", "rank": "rank", "score": "score"}
    for name in names:
        if name not in list(recommendations.columns):
            raise DataError(f"recommendations have no column {name!r}; pass the answer of br.recommend as it is")
    try:
        from lenskit.data import ItemList, ItemListCollection
    except ImportError as error:
        raise _missing("LensKit") from error
    frame = pd.DataFrame({new: np.asarray(recommendations[old]) for old, new in names.items()})
    lists: Any = {
        user: ItemList(item_ids=part["item_id"].to_numpy(), scores=part["score"].to_numpy(dtype=float), ordered=True)
        for user, part in frame.sort_values("rank", kind="stable").groupby("user_id", sort=False)
    }
    return ItemListCollection.from_dict(lists, key="user_id")


def to_recbole(data: Interactions, folder: str | os.PathLike[str]) -> list[Path]:
    r"""Write each domain as a RecBole atomic file, ``folder/DOMAIN/DOMAIN.inter``. Provisional.

    RecBole's ``data_path`` is then `folder` and ``dataset`` the domain; ``br.datasets.recbole`` reads the files back.
    RecBole itself is not needed here. Times are seconds since 1970 where they are datetimes.

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
        An id that RecBole would read as another: with a tab, a line break or a quotation mark in front, or a word that
        pandas takes for a missing value, such as "NA"; a domain whose name cannot be a file's. Nothing is written then.
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
        contents[Path(folder, name, f"{name}.inter")] = _inter(_named(data, domain))
    return [write_bytes(path, content) for path, content in contents.items()]


def _inter(rows: pd.DataFrame) -> bytes:
    """Return the content of a .inter file: tab between, a typed header, no quotes."""
    kinds = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
    text = {}
    for name in map(str, rows):
        if kinds[name] == "token":
            text[name] = [str(value) for value in rows[name]]
            for value in text[name]:
                if value in MISSING:
                    raise DataError(f"{name} {value!r} is a missing value to RecBole; rename it")
                if len(value.splitlines()) > 1 or {*"\t\n\r"} & {*value} or value.startswith('"'):
                    raise DataError(
                        f"{name} {value!r} has a tab, a line break or a quotation mark in front, which RecBole's files "
                        f"cannot hold; rename it"
                    )
        else:
            column = rows[name]
            if pd.api.types.is_datetime64_any_dtype(column.dtype):
                column = column.astype("datetime64[ns]").astype("int64") / 1e9
            text[name] = [repr(value).removesuffix(".0") for value in column.tolist()]
    head = "\t".join(f"{name}:{kinds[name]}" for name in text)
    lines = ["\t".join(fields) for fields in zip(*text.values(), strict=True)]
    return ("\n".join([head, *lines]) + "\n").encode()


def _as_called(data: Interactions) -> Interactions:
    """Return the table with users and items as the caller knows them: that of a posterior may be transposed."""
    if not isinstance(data, Interactions):
        raise DataError(f"data must be Interactions, not {type(data).__name__}; make them with Interactions.from_frame")
    return data.transposed() if data.columns.swapped else data


def _named(data: Interactions, domain: Any) -> pd.DataFrame:
    """Rows of one domain under the names of LensKit and RecBole, without a rating for clicks."""
    rows = _table(data, domain).rename(columns=NAMES)
    return rows if data.columns.value is not None else rows.drop(columns="rating")


def _table(data: Interactions, domain: Any) -> pd.DataFrame:
    """Rows of one domain: user, item, rating and, where there are times, time (UTC)."""
    data = _as_called(data)
    code = len(data.domains) - 1 if domain is None else data.domain_code(domain)
    rows = data.mask(data.domain == code)
    out = pd.DataFrame(
        {"user": rows.users.decode(rows.user), "item": rows.items.decode(rows.item), "rating": rows.value}
    )
    if rows.time is not None:
        out["time"] = rows.time
    return out


def _missing(library: str) -> MissingExtraError:
    return MissingExtraError(f"{library} is not installed: pip install 'bayesrec[interop]'")
