"""The config file: a TOML table for each command, and ``[data]`` for all that read ratings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from bayesrec.errors import DataError

__all__ = ["chosen_tables", "read_config"]

DATA = ("tables", "target", "user", "item", "domain", "value", "time", "shared")
NOT_IN_FILE = ("config", "help")


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the options in a file the defaults of the command that runs.

    Raises
    ------
    DataError
        No such file, no TOML, a table that is no command, a key that is no option; the message names the nearest.
    """
    if path is None:
        return None
    import tomllib

    from bayesrec.data.columns import nearest

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"the config file {str(path)!r} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise DataError(f"the config file {str(path)!r} is no TOML: {error}") from error
    allowed = _allowed(context)
    for table, entries in content.items():
        if table not in allowed or not isinstance(entries, dict):
            kind = "table" if isinstance(entries, dict) else "key outside a table,"
            raise DataError(
                f"{str(path)!r} has an unknown {kind} {table!r}{nearest(table, allowed)}; it may have "
                + ", ".join(f"[{name}]" for name in allowed)
            )
        for key in entries:
            if key.replace("-", "_") not in allowed[table]:
                raise DataError(
                    f"{str(path)!r}, [{table}]: unknown key {key!r}{nearest(key, allowed[table])}; "
                    f"known: {', '.join(allowed[table])}"
                )
    here = str(context.info_name)
    names = allowed[here]
    mine = {key.replace("-", "_"): value for key, value in (content.get("data", {}) | content.get(here, {})).items()}
    defaults: dict[str, Any] = {names[key]: value for key, value in mine.items() if key in names}
    if isinstance(defaults.get("tables"), str):
        defaults["tables"] = [defaults["tables"]]
    context.default_map = defaults
    return path


def chosen_tables(context: typer.Context, given: list[str] | None) -> list[str]:
    """Return the tables of the command line, or else of the config file, which not every parser looks up for a list.

    Raises
    ------
    DataError
        Neither has any.
    """
    tables = given or (context.default_map or {}).get("tables") or []
    if not tables and not context.resilient_parsing:
        raise DataError(f"Missing argument 'TABLE': name a file of ratings (bayesrec {context.info_name} --help)")
    return list(map(str, tables))


def _allowed(context: typer.Context) -> dict[str, dict[str, str]]:
    """Table to the keys it may have (options as one types them, without dashes in front) to parameters."""
    group = context.parent.command if context.parent is not None else context.command
    commands: dict[str, Any] = getattr(group, "commands", {})
    tables: dict[str, dict[str, str]] = {"data": dict(zip(DATA, DATA, strict=True))}
    for name, command in commands.items():
        if any(p.name == "config" for p in command.params):
            tables[name] = {
                next((word[2:] for word in p.opts if word.startswith("--")), p.name).replace("-", "_"): p.name
                for p in command.params
                if p.name not in NOT_IN_FILE
            }
    return tables
