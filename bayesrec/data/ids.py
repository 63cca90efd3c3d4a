"""Ids of users and items: what is accepted, and the plain form in which they are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from bayesrec.errors import DataError

_INT64 = (-(2**63), 2**63 - 1)
_EXACT = 2**53  # the largest size up to which every integer is a float64


def checked_ids(series: pd.Series, what: str) -> tuple[pd.Index, np.ndarray]:
    """Check the ids of one scope.

    Parameters
    ----------
    series : pandas.Series (n,)
        Ids without missing entries; its index holds the row numbers that messages name.
    what : str
        Start of a message, for example "column 'user'".

    Returns
    -------
    ids : pandas.Index (n,)
        The ids in their own dtype (integral floats and Python integers become int64).
    keys : ndarray (n,)
        int64, or object holding str: the form in which ids are sorted and compared.

    Raises
    ------
    DataError
        Ids that are neither integers nor strings, a mix of the two, integers beyond int64.
    """
    dtype = series.dtype
    kind = types.infer_dtype(series, skipna=False) if types.is_object_dtype(dtype) else ""
    if types.is_bool_dtype(dtype) or kind == "boolean":
        raise DataError(f"{what}: ids are booleans; use integers or strings")
    if types.is_integer_dtype(dtype) or kind == "integer":
        return _integers(series, what)
    if types.is_float_dtype(dtype) or kind in ("floating", "mixed-integer-float"):
        return _floats(series, what)
    if kind == "string" or (not types.is_object_dtype(dtype) and types.is_string_dtype(dtype)):
        return pd.Index(series), series.to_numpy(dtype=object)
    if len(series) == 0:
        return pd.Index(series), np.empty(0, dtype=object)
    first = type(series.iloc[0])
    other = next(((row, value) for row, value in series.items() if type(value) is not first), None)
    if kind.startswith("mixed") and other is not None:
        row, value = other
        raise DataError(
            f"{what}: ids of different types are mixed, {shown(series.iloc[0])} in row {series.index[0]} and "
            f"{shown(value)} in row {row} (rows count from 0); convert the column to one type, "
            f"for example with .astype(str)"
        )
    raise DataError(f"{what}: ids must be integers or strings, got {first.__name__}; convert them, e.g. to strings")


def lookup_keys(ids: Any) -> pd.Index:
    """Return any ids (n,) in the compared form, without ever failing: what can be no id becomes None."""
    if getattr(ids, "dtype", None) == np.int64:  # nothing to compare, and much of the time of a short request
        return pd.Index(np.array(ids))
    series = ids.to_series() if isinstance(ids, pd.Index) else pd.Series(ids)
    series = series.reset_index(drop=True)
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.cat.categories.dtype)
    dtype = series.dtype
    whole = types.is_integer_dtype(dtype) and not series.isna().any()
    if whole and (dtype.kind == "i" or len(series) == 0 or int(series.max()) <= _INT64[1]):
        return pd.Index(series.to_numpy(dtype=np.int64, copy=True))
    if isinstance(dtype, pd.StringDtype) or (
        types.is_object_dtype(dtype) and types.infer_dtype(series, skipna=False) == "string"
    ):
        return pd.Index(series.astype(object).where(series.notna(), None).to_numpy(), dtype=object)
    return pd.Index([_lookup_key(value) for value in series.astype(object)], dtype=object)


def shown(value: Any) -> str:
    """Return a value as messages show it: 5, not np.int64(5)."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def joined(parts: list[pd.Index]) -> pd.Index:
    """Concatenate ids of several scopes: int64 when all are integers, object when the dtypes do not agree."""
    if len(parts) <= 1:
        return parts[0] if parts else pd.Index([], dtype=object)
    dtypes = {part.dtype for part in parts}
    if len(dtypes) == 1 and dtypes != {np.dtype(object)}:  # append would turn objects into strings
        return parts[0].append(parts[1:])
    if all(types.is_integer_dtype(dtype) for dtype in dtypes):
        return pd.Index(np.concatenate([part.to_numpy(dtype=np.int64) for part in parts]))
    return pd.Index(np.concatenate([part.to_numpy(dtype=object) for part in parts]), dtype=object)


def _lookup_key(value: Any) -> int | str | None:
    """Return one id in the compared form, or None."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) <= _EXACT:
        return int(value)
    return None


def _integers(series: pd.Series, what: str) -> tuple[pd.Index, np.ndarray]:
    """Return integer ids, which must be representable as int64."""
    if series.dtype == object or series.dtype.kind == "u":
        too_big = np.array([not _INT64[0] <= int(value) <= _INT64[1] for value in series], dtype=bool)
        if too_big.any():
            row = int(too_big.argmax())
            raise DataError(
                f"{what}: id {series.iloc[row]} in row {series.index[row]} does not fit a 64-bit integer; "
                f"convert the ids to strings"
            )
    keys = series.astype("int64").to_numpy(dtype=np.int64)
    return pd.Index(keys if series.dtype == object else series), keys


def _floats(series: pd.Series, what: str) -> tuple[pd.Index, np.ndarray]:
    """Return float ids as int64; they must all be whole numbers that a float holds exactly."""
    values = series.to_numpy(dtype=np.float64)
    bad = ~(np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) <= _EXACT))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{what}: id {shown(values[row])} in row {series.index[row]} is a float and no whole number up to 2**53; "
            f"convert the ids to integers or strings"
        )
    keys = values.astype(np.int64)
    return pd.Index(keys), keys
