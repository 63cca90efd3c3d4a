"""What comes out: tables to a file, a terminal or a pipe; JSON; warnings as lines. And ids as the model knows them."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bayesrec.cli.shell import say
from bayesrec.errors import BayesrecWarning

if TYPE_CHECKING:
    import pandas as pd

    from bayesrec.data import Interactions, Vocabulary
    from bayesrec.posterior import Posterior

__all__ = ["as_known", "check_out", "heard", "put", "put_json", "read_rows", "tell_data"]

SHOWN = 50  # rows of a table on a terminal


@contextmanager
def heard() -> Iterator[list[str]]:
    """Print warnings of bayesrec as lines, each once, and collect them."""
    lines: list[str] = []
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Any, category: type[Warning], *rest: Any) -> None:
            if not issubclass(category, BayesrecWarning):
                usual(message, category, *rest)
            elif str(message) not in lines:
                lines.append(str(message))
                say(f"warning: {message}")

        warnings.simplefilter("always", BayesrecWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield lines


def tell_data(data: Interactions) -> None:
    """Print the sizes of the data, to the standard error stream."""
    for line in repr(data).splitlines():
        typer.echo(line, err=True)


def check_out(path: Path | None) -> None:
    """Refuse a table's file name or place before the work is done, not after."""
    if path is not None:
        from bayesrec.tables import check_place, format_of

        format_of(path)
        check_place(path)


def put(frame: pd.DataFrame, out: Path | None, as_json: bool, head: dict[str, Any], lines: list[str]) -> None:
    """Give a table: to a file, as JSON, as CSV, or as a drawn table on a terminal."""
    from bayesrec.tables import records, to_bytes, write_table

    if out is not None:
        head = {**head, "path": str(write_table(frame, out))}
        say(f"wrote {len(frame)} rows to {out}")
    if as_json:
        rows = {} if out is not None else {"records": records(frame)}
        put_json({**head, "rows": len(frame), **rows, "warnings": lines})
    elif out is None and sys.stdout.isatty():
        _draw(frame)
    elif out is None:
        typer.echo(to_bytes(frame, "csv"), nl=False)


def put_json(content: dict[str, Any]) -> None:
    """Print one JSON object; numbers that JSON has no word for are null."""
    typer.echo(json.dumps(_plain(content), ensure_ascii=False, allow_nan=False, indent=2))


def _plain(value: Any) -> Any:
    from bayesrec.tables import plain

    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return plain(value)


def _draw(frame: pd.DataFrame) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in frame.columns:
        table.add_column(str(name), justify="right" if frame[name].dtype.kind in "if" else "left")
    for row in frame.head(SHOWN).itertuples(index=False):
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    Console().print(table)
    if len(frame) > SHOWN:
        say(f"the first {SHOWN} of {len(frame)} rows; --out FILE or a pipe gives all of them")


def read_rows(posterior: Posterior, path: Path, *, value: bool = False) -> pd.DataFrame:
    """Read rows to be answered by a posterior, ids and domains as it knows them."""
    from bayesrec.tables import Column, read_table

    names, data = posterior.data.columns, posterior.data
    columns = [
        Column(name, "id", f"{side}s, as the model's table had them")
        for name, side in zip((names.user, names.item), names.sides, strict=True)
    ]
    if names.domain is not None:
        columns.append(Column(names.domain, "id", needed=False))
    if value and names.value is not None:
        columns.append(Column(names.value, "number", "ratings, as the model's table had them"))
    if names.time is not None:
        columns.append(Column(names.time, "time", needed=False))
    frame = read_table(path, columns)
    frame[names.user] = as_known(frame[names.user], data.users)
    frame[names.item] = as_known(frame[names.item], data.items)
    if names.domain in frame:
        by_text = {str(name): name for name in data.domains}
        frame[names.domain] = [by_text.get(str(name), name) for name in frame[names.domain]]
    return frame


def as_known(ids: pd.Series, vocabulary: Vocabulary) -> pd.Series:
    """Ids in the type of a vocabulary: those of a file or a command line are matched as they are written.

    "7" is 7 where the vocabulary holds whole numbers, and 7 is "7" where it holds text. A missing id stays missing.
    """
    import pandas as pd

    from bayesrec.tables import whole

    kinds = {type(word) for word in vocabulary.ids.tolist()}
    if kinds == {str}:
        return ids if ids.isna().any() or pd.api.types.is_string_dtype(ids) else ids.astype(str)
    if kinds != {int} or pd.api.types.is_integer_dtype(ids):
        return ids
    numbers = {text: int(text) if isinstance(text, str) and whole(text) else text for text in ids.unique().tolist()}
    out = [numbers.get(word, word) for word in ids]
    plain = all(isinstance(word, int) for word in numbers.values())
    return pd.Series(out, index=ids.index, name=ids.name, dtype="int64" if plain else object)
