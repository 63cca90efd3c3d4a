"""What the text of a column stands for: whole numbers, numbers, times. Internal."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bayesrec.errors import DataError

__all__ = ["all_whole", "check_ids", "integers", "is_text", "read_as", "whole"]

WHOLE = r"^(0|-?[1-9][0-9]{0,18})$"
MISSING = ("", "NA", "NaN", "nan", "null", "None")  # in a column of numbers or times; an id is missing only if empty


def whole(text: str) -> bool:
    """Whether a text is a whole number of 64 bits as one would write it: "7" but not "007" or "+7". Internal."""
    return re.fullmatch(WHOLE, text) is not None and -(2**63) <= int(text) < 2**63


def is_text(series: pd.Series) -> bool:
    """Whether the entries that are there are text."""
    return pd.api.types.infer_dtype(series, skipna=True) == "string"


def all_whole(series: pd.Series | pa.Array) -> bool:
    """Whether every entry of a column of text is a whole number; see `whole`."""
    text = pa.array(series, pa.string())
    if not pc.all(pc.match_substring_regex(text, WHOLE)).as_py():
        return False
    long = pc.filter(text, pc.greater_equal(pc.utf8_length(text), 19)).to_pylist()
    return all(map(whole, long))


def check_ids(series: pd.Series, where: str) -> None:
    """Refuse lists and objects, which JSONL and Parquet can hold, among ids."""
    if series.dtype != object:
        return
    row = next((k for k, value in enumerate(series) if isinstance(value, list | dict | np.ndarray)), None)
    if row is not None:
        raise DataError(
            f"{where}, column {series.name!r}, row {row} (rows count from 0): {series.iloc[row]!r} is no id; "
            "ids are text or whole numbers"
        )


def integers(series: pd.Series) -> pd.Series:
    """Turn a column of whole numbers into int64."""
    return pd.Series(pc.cast(pa.array(series, pa.string()), pa.int64()).to_numpy(), index=series.index)


def read_as(kind: str, series: pd.Series, where: str) -> pd.Series:
    """Turn text into numbers or times; for kind "any" it may stay text."""
    text = pc.utf8_trim_whitespace(pa.array(series, pa.string()))
    text = pc.if_else(pc.is_in(text, pa.array(MISSING)), pa.scalar(None, pa.string()), text)
    if kind == "any" and pc.any(pc.match_substring_regex(text, r"^[+-]?0[0-9]")).as_py():
        return series  # ids such as 007
    try:
        kind_of = pa.int64() if text.null_count == 0 and all_whole(text) else pa.float64()
        return pd.Series(pc.cast(text, kind_of).to_numpy(zero_copy_only=False), index=series.index)
    except pa.ArrowInvalid as error:
        if kind == "any":
            return series
        if kind == "time":
            return _times(text, series, where)
        row = next(k for k, value in enumerate(text.to_pylist()) if value is not None and not _is_number(value))
        found = series.iloc[row]
        advice = "; write a decimal point" if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", found) else ""
        raise DataError(
            f"{where}, column {series.name!r}, row {row} (rows count from 0): {found!r} is no number{advice}"
        ) from error


def _times(text: pa.Array, series: pd.Series, where: str) -> pd.Series:
    """Turn ISO times into moments in UTC; those without an offset are UTC."""
    times = pd.to_datetime(text.to_pandas(), format="ISO8601", utc=True, errors="coerce").dt.tz_localize(None)
    wrong = times.isna().to_numpy() & pc.is_valid(text).to_numpy(zero_copy_only=False)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{where}, column {series.name!r} holds neither numbers nor ISO times: row {row} (rows count from 0) is "
            f"{series.iloc[row]!r}; write times as 2024-05-31 or 2024-05-31T18:30:00"
        )
    return pd.Series(times.to_numpy(), index=series.index)


def _is_number(value: str) -> bool:
    try:
        pc.cast(pa.scalar(value), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
