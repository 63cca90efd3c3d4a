"""The edge to data frame libraries (narwhals): columns in, tables of the same library out."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from narwhals.exceptions import DuplicateError

from bayesrec.data.ids import shown
from bayesrec.errors import DataError


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table came, so that it can be given back alike: plain strings, easy to save. Internal.

    `backend` is the library ("pandas", "polars", ...), `order` the order of the columns, the dtypes are names in
    that library, `time_zone` is the zone of a time column that has one.
    """

    backend: str = "pandas"
    order: tuple[str, ...] = ()
    domain_dtype: str | None = None
    value_dtype: str | None = None
    time_dtype: str | None = None
    time_zone: str | None = None


def open_frame(frame: Any, what: str = "the table") -> nw.DataFrame:
    """Wrap a data frame of any eager library; a DataError for anything else."""
    try:
        return nw.from_native(frame, eager_only=True)
    except DuplicateError as error:
        raise DataError(f"{what} has repeated column names ({error}); rename or drop one of each") from error
    except TypeError as error:
        lazy = "; call .collect() first" if "lazy" in type(frame).__name__.lower() else ""
        raise DataError(
            f"{what} must be a data frame such as pandas or polars, got {type(frame).__name__}{lazy}"
        ) from error


def backend_of(frame: nw.DataFrame) -> str:
    """Name of the library of an open frame."""
    return str(frame.implementation.value)


def read_column(frame: nw.DataFrame, name: str) -> pd.Series:
    """Return a column as a Series numbered 0..n-1, a category as its values; a DataError on missing entries."""
    column = frame[name]
    missing = np.asarray(column.is_null().to_numpy(), dtype=bool)
    if missing.any():
        raise DataError(
            f"column {name!r} has {missing.sum()} missing value(s), the first in row {missing.argmax()} "
            f"(rows count from 0); drop or fill these rows"
        )
    if backend_of(frame) == "pandas":
        series = column.to_native().reset_index(drop=True)
        if isinstance(series.dtype, pd.CategoricalDtype):
            series = series.astype(series.cat.categories.dtype)
        return series
    if column.dtype in (nw.String, nw.Categorical, nw.Enum, nw.Int128, nw.UInt128):  # NumPy has none of these
        return pd.Series(column.to_list(), dtype=object)
    return pd.Series(column.to_numpy())


def dtype_name(frame: nw.DataFrame, name: str, series: pd.Series) -> str:
    """Name of the dtype of a column in its own library."""
    if backend_of(frame) == "pandas":
        return str(series.dtype)
    name = type(frame.schema[name]).__name__
    return {"Categorical": "String", "Enum": "String"}.get(name, name)


def read_numbers(frame: nw.DataFrame, name: str, first: int | None = None) -> tuple[np.ndarray, str]:
    """Return a column as finite float64 (n,) and its dtype name; a DataError names the first bad row.

    Of a portion of a table ``first`` is the number of the first row.
    """
    series = read_column(frame, name)
    dtype = series.dtype
    if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
        good = [isinstance(value, numbers.Real | Decimal | np.bool_) for value in series]
        _refuse_first(series, ~np.array(good, dtype=bool), name, "not numbers", "convert the column to numbers", first)
        series = pd.Series(pd.to_numeric(pd.Series([_plain(value) for value in series], dtype=object)))
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse_first(series, ~np.isfinite(values), name, "NaN or infinite", "drop or correct these rows", first)
    return values, dtype_name(frame, name, series)


def read_time(frame: nw.DataFrame, name: str, first: int | None = None) -> tuple[np.ndarray, str, str | None]:
    """Return a column of numbers or datetimes as an array (n,), its dtype name and its time zone or None."""
    series = read_column(frame, name)
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        zone = getattr(frame.schema[name], "time_zone", None)
        if isinstance(series.dtype, pd.DatetimeTZDtype):
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        dates = backend_of(frame) != "pandas" and frame.schema[name] == nw.Date
        return series.to_numpy(), "Date" if dates else "datetime", zone
    if not pd.api.types.is_numeric_dtype(series.dtype) or series.dtype.kind in "cb":
        raise DataError(
            f"time column {name!r} has dtype {series.dtype}; it must hold numbers or datetimes: convert it, "
            f"for example with pandas.to_datetime"
        )
    if series.dtype.kind in "iu":
        return series.to_numpy(dtype=np.int64), dtype_name(frame, name, series), None
    values, dtype = read_numbers(frame, name, first)
    return values, dtype, None


def make_frame(
    columns: Mapping[str, Any],
    backend: Any,
    dtypes: Mapping[str, str | None] | None = None,
    zones: Mapping[str, str | None] | None = None,
) -> Any:
    """Build a table of the library `backend` from arrays; `dtypes` and `zones` are restored where given."""
    if backend == "pandas":
        frame = nw.from_native(pd.DataFrame(dict(columns)), eager_only=True)
    else:
        frame = nw.DataFrame.from_dict({k: _series(k, v, backend) for k, v in columns.items()}, backend=backend)
    for name, zone in (zones or {}).items():
        if zone is not None:
            moment = nw.col(name).dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
            frame = frame.with_columns(moment)
    native = frame.to_native()
    wanted = {name: dtype for name, dtype in (dtypes or {}).items() if dtype not in (None, "datetime", "Decimal")}
    if backend == "pandas":
        return native.astype(wanted)
    casts = [nw.col(name).cast(getattr(nw, str(dtype))) for name, dtype in wanted.items()]
    return frame.with_columns(*casts).to_native() if casts else native


def _series(name: str, values: Any, backend: Any) -> nw.Series:
    """Return one column for a library other than pandas; objects that are not all integers become strings."""
    array = np.asarray(values)
    if array.dtype.kind == "O" and array.size and all(type(value) is int for value in array):
        array = array.astype(np.int64 if max(array) < 2**63 else np.uint64)  # names of domains, say
    if array.dtype.kind in "OUS":
        text = [value if value is None else str(value) for value in array.tolist()]
        return nw.Series.from_iterable(name, text, nw.String, backend=backend)
    if array.dtype == "datetime64[s]":
        array = array.astype("datetime64[ms]")  # the coarsest unit that polars knows
    return nw.Series.from_numpy(name, array, backend=backend)


def _plain(value: Any) -> Any:
    """Return a Decimal, and an integer that is too large for one, as a float, anything else as it is."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return float(value) if abs(value) < 2**1023 else math.inf if value > 0 else -math.inf
    return float(value) if isinstance(value, Decimal) else value


def _refuse_first(series: pd.Series, bad: np.ndarray, name: str, problem: str, advice: str, first: int | None) -> None:
    """Raise a DataError for the first bad row, if there is one."""
    if bad.any():
        row, start = int(bad.argmax()), first or 0
        so_far = "" if first is None else f" up to row {start + len(bad) - 1}"
        raise DataError(
            f"column {name!r}: {int(bad.sum())} value(s){so_far} are {problem}, the first in row {start + row} "
            f"(rows count from 0): {shown(series.iloc[row])}; {advice}"
        )
