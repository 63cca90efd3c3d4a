"""From tables to the fields of Interactions: the checks of `from_frame` and `from_frames`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from bayesrec.data.batch import Batch, domain_codes
from bayesrec.data.columns import Columns, nearest, require_columns
from bayesrec.data.features import Features
from bayesrec.data.frames import (
    Layout,
    backend_of,
    dtype_name,
    make_frame,
    open_frame,
    read_column,
    read_numbers,
    read_time,
)
from bayesrec.data.ids import checked_ids, shown
from bayesrec.data.vocabulary import Vocabulary
from bayesrec.errors import DataError, DataWarning

if TYPE_CHECKING:
    from bayesrec.data.interactions import Interactions


def fields(frame: Any, target: Any, columns: Columns, shared: str, features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of Interactions from one table."""
    check_shared(shared)
    table = open_frame(frame)
    require_columns(table.columns, columns.present())
    if len(table) == 0:
        raise DataError("the table has no rows; give at least one row of the target domain")
    domain, domains, domain_dtype = _domains(table, columns, target)
    users = read_column(table, columns.user)
    items = read_column(table, columns.item)
    scope = {"user": None if shared == "users" else domain, "item": domain if shared == "users" else None}
    user_words = Vocabulary.from_ids(users, scope["user"], f"column {columns.user!r}")
    item_words = Vocabulary.from_ids(items, scope["item"], f"column {columns.item!r}")
    value, value_dtype = (np.ones(len(users)), None) if columns.value is None else read_numbers(table, columns.value)
    time, time_dtype, zone = (None, None, None) if columns.time is None else read_time(table, columns.time)
    order = tuple(name for name in table.columns if name in columns.present().values())
    codes = {"user": user_words.encode(users, domain), "item": item_words.encode(items, domain), "domain": domain}
    for array in codes.values():
        array.flags.writeable = False  # nobody else has them: no need of copies
    del users, items
    built = {**codes, "value": value, "time": time}
    return {
        **without_duplicates(built, len(item_words), stacklevel=4),
        "users": user_words,
        "items": item_words,
        "domains": domains,
        "columns": columns,
        "shared": shared,
        "layout": Layout(backend_of(table), order, domain_dtype, value_dtype, time_dtype, zone),
        **checked_features(features, columns),
    }


def stacked(frames: Mapping[Any, Any], columns: Columns) -> Any:
    """Return one table from one per domain, the domain column taken from the keys."""
    if not isinstance(frames, Mapping) or not frames:
        raise DataError("from_frames needs a mapping from domain name to table with at least one entry")
    if columns.domain is None:
        raise DataError("from_frames needs the name of a domain column for its answers; give domain='domain'")
    parts, needed = [], {role: name for role, name in columns.present().items() if role != "domain"}
    for name, frame in frames.items():
        _check_domain(plain_name(name), "the mapping of tables")
        what = f"the table of domain {name!r}"
        part = open_frame(frame, what)
        require_columns(part.columns, needed, what)
        if len(part) == 0:
            raise DataError(f"{what} has no rows; leave it out")
        if columns.domain in part.columns and (read_column(part, columns.domain) != name).any():
            raise DataError(f"{what} has a column {columns.domain!r} that names other domains; drop or rename it")
        _check_part(part, columns, what)
        parts.append(part.select(*needed.values()).with_columns(nw.lit(name).alias(columns.domain)))
    backends = {backend_of(part) for part in parts}
    if len(backends) > 1:
        raise DataError(f"the tables are of different libraries, {sorted(backends)}; convert them to one")
    if backends == {"pandas"}:
        return pd.concat([_plain(part.to_native()) for part in parts], ignore_index=True)
    return nw.concat(_of_one_schema(parts), how="vertical").to_native()


def without_duplicates(rows: dict[str, Any], n_items: int, stacklevel: int = 3) -> dict[str, Any]:
    """Keep the last row of each (user, item) of a domain, at its place, and warn about how many were dropped."""
    pair = _pairs(rows, n_items)
    pair.sort()  # a table of hashes would take several times the room
    if not (pair[1:] == pair[:-1]).any():
        return rows
    pair = _pairs(rows, n_items)
    earlier = pd.Series(pair).duplicated(keep="last").to_numpy()
    warnings.warn(
        f"{earlier.sum()} row(s) repeat a (user, item) pair of their domain, the first is row {earlier.argmax()} "
        f"(rows count from 0); the last row of each pair is kept",
        DataWarning,
        stacklevel=stacklevel,
    )
    return {name: None if array is None else array[~earlier] for name, array in rows.items()}


def _pairs(rows: dict[str, Any], n_items: int) -> np.ndarray:
    """One number for each (user, item); one of the two sides is scoped by domain, so it implies the domain."""
    pair = np.multiply(rows["user"], n_items, dtype=np.int64)
    pair += rows["item"]
    return pair


def to_frame(data: Interactions) -> Any:
    """Return the rows as a table of the library they came in; see `Interactions.to_frame`."""
    names, layout = data.columns, data.layout
    table = names.ids(data.users.decode(data.user), data.items.decode(data.item))
    if names.domain is not None:
        table[names.domain] = np.array(data.domains, dtype=object)[data.domain]
    if names.value is not None:
        table[names.value] = data.value
    if names.time is not None and data.time is not None:
        table[names.time] = data.time
    order = [name for name in layout.order if name in table]
    order += [name for name in table if name not in order]
    kinds = (layout.domain_dtype, layout.value_dtype, layout.time_dtype)
    roles = (names.domain, names.value, names.time)
    dtypes = {name: dtype for name, dtype in zip(roles, kinds, strict=True) if name in table}
    zones = {names.time: layout.time_zone} if names.time in table else {}
    return make_frame({name: table[name] for name in order}, layout.backend, dtypes, zones)


def only_target(data: Interactions) -> dict[str, Any]:
    """Return the fields that change where the target stands alone; see `Interactions.only_target`."""
    if len(data.domains) == 1:
        return {}
    rows, last = data.mask(data.is_target), len(data.domains) - 1
    side, codes = ("items", rows.item) if data.shared == "users" else ("users", rows.user)
    vocabulary = getattr(data, side)
    here = np.flatnonzero(vocabulary.scope_of() == last)
    position = np.full(len(vocabulary), -1)
    position[here] = np.arange(len(here))
    blocks = tuple(b for b, code in zip(vocabulary.blocks, vocabulary.scopes or (), strict=True) if code == last)
    kept: dict[str, Any] = {side: Vocabulary(blocks, (0,) * len(blocks)), side[:-1]: position[codes]}
    described = getattr(data, f"{side[:-1]}_features")
    if isinstance(described, Features):
        kept[f"{side[:-1]}_features"] = described.of_target(here)
    return {"domains": data.domains[-1:], "domain": np.zeros_like(rows.domain), **kept}


def with_rows(data: Interactions, batch: Batch) -> dict[str, Any]:
    """Return the columns of the rows followed by those of a batch; see `Interactions.with_rows`."""
    if batch.value is None:
        raise DataError("the new rows have no values; encode them with need_value=True")
    sides = data.columns.sides
    for role, codes, ids in ((sides[0], batch.user, batch.user_id), (sides[1], batch.item, batch.item_id)):
        if (codes < 0).any():
            raise DataError(f"{role} {shown(ids[int(np.argmax(codes < 0))])} is unknown; extend the {role}s first")
    time = data.time
    if time is not None:
        newest = time.max() if len(time) else np.zeros((), time.dtype)
        new = np.full(len(batch), newest, dtype=time.dtype) if batch.time is None else batch.time
        dated = [x.dtype.kind == "M" for x in (time, new)]
        if dated[0] != dated[1]:
            kinds = ["datetimes" if one else "numbers" for one in dated]
            raise DataError(
                f"time column {data.columns.time!r} holds {kinds[1]} in the new rows and {kinds[0]} in the data; convert it"
            )
        time = np.concatenate([time, new])
    names = ("user", "item", "domain", "value")
    rows = {name: np.concatenate([getattr(data, name), getattr(batch, name)]) for name in names}
    return without_duplicates({**rows, "time": time}, data.n_items, stacklevel=4)


def _domains(table: nw.DataFrame, columns: Columns, target: Any) -> tuple[np.ndarray, tuple, str | None]:
    """Return the domain codes (n,), the names (sources sorted as strings, then the target) and their dtype."""
    if target is None:
        raise DataError("target=None: name the domain to predict")
    if columns.domain is None:
        return np.zeros(len(table), dtype=np.int64), ordered_domains([], target, None), None
    series = read_column(table, columns.domain)
    names = pd.Index(series)
    domains = ordered_domains([plain_name(name) for name in names.unique()], target, columns.domain)
    return domain_codes(names, domains, columns.domain), domains, dtype_name(table, columns.domain, series)


def ordered_domains(distinct: list[Any], target: Any, column: str | None) -> tuple:
    """Return the names of the domains: sources sorted as strings, then the target; without a column the target alone."""
    target = plain_name(target)
    if column is None:
        _check_domain(target, "target")
        return (target,)
    for name in distinct:
        _check_domain(name, f"column {column!r}")
    if target not in distinct:
        raise DataError(
            f"target={target!r} is no domain of column {column!r}{nearest(target, distinct)}; "
            f"it has {sorted(distinct, key=str)}"
        )
    sources = sorted((name for name in distinct if name != target), key=str)
    return (*sources, next(name for name in distinct if name == target))


def check_shared(shared: Any) -> None:
    """Refuse another side than users or items."""
    if shared not in ("users", "items"):
        raise DataError(f"shared must be 'users' or 'items', got {shared!r}")


def plain_name(name: Any) -> Any:
    """Return a NumPy scalar as the Python value that it is."""
    return name.item() if isinstance(name, np.generic) else name


def _check_domain(name: Any, what: str) -> None:
    """Refuse the name of a domain that is neither a string nor an integer: it could not be saved, nor typed again."""
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise DataError(
            f"{what}: the domain {name!r} is of type {type(name).__name__}; domains have strings or integers for "
            f"names: convert them, for example with .astype(str)"
        )


def _check_part(part: nw.DataFrame, columns: Columns, what: str) -> None:
    """Check the table of one domain by itself, so that a message can name it and its own rows."""
    try:
        for column in (columns.user, columns.item):
            checked_ids(read_column(part, column), f"column {column!r}")
        if columns.value is not None:
            read_numbers(part, columns.value)
        if columns.time is not None:
            read_time(part, columns.time)
    except DataError as error:
        raise DataError(f"{what}: {error}") from error


def checked_features(features: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """Check that feature tables have their id column."""
    for role in ("user", "item"):
        table = features[f"{role}_features"]
        if table is not None:
            what = f"{role}_features"
            require_columns(open_frame(table, what).columns, {role: getattr(columns, role)}, what)
    return dict(features)


def _of_one_schema(parts: list[nw.DataFrame]) -> list[nw.DataFrame]:
    """Cast the columns of several tables to common types, as libraries with strict types need to stack them."""
    casts: dict[str, Any] = {}
    for name in parts[0].columns:
        kinds = [part.schema[name] for part in parts]
        if len(set(kinds)) == 1:
            continue
        if all(kind.is_numeric() for kind in kinds):
            casts[name] = nw.Int64() if all(kind.is_integer() for kind in kinds) else nw.Float64()
        elif all(kind in (nw.String, nw.Categorical, nw.Enum) for kind in kinds):
            casts[name] = nw.String()
        else:
            shown = ", ".join(str(kind) for kind in dict.fromkeys(kinds))
            raise DataError(f"column {name!r} has different types in the tables ({shown}); cast it to one type")
    return [part.with_columns(*(nw.col(n).cast(kind) for n, kind in casts.items())) for part in parts]


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn categories into their values, so that stacking does not depend on the sets of categories."""
    kinds = {n: d.categories.dtype for n, d in frame.dtypes.items() if isinstance(d, pd.CategoricalDtype)}
    return frame.astype(kinds)
