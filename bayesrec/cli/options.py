"""Options that several commands share, in groups; `grouped` makes one parameter of a command out of each group."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from bayesrec.cli.config import chosen_tables, read_config

__all__ = ["Config", "DataOptions", "Json", "MethodOptions", "ModelOptions", "grouped"]

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=read_config,
        is_eager=True,
        help="TOML file with any of these options; the command line wins.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]


def option(text: str, *names: str, panel: str) -> Any:
    """An option of a panel of the help."""
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=True)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which table, and what its columns are; the names are those of ``Interactions.from_frame``."""

    tables: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE",
            callback=chosen_tables,
            help="CSV, TSV, JSONL or Parquet, also .gz, or a folder of Parquet files. One table with a domain column, or "
            "one table a domain: book=a.csv music=b.csv.",
        ),
    ] = None
    target: Annotated[str, option("The domain to predict; every other one is a source.", panel="Data")]
    user: Annotated[str, option("Column of user ids.", panel="Data")] = "user"
    item: Annotated[str, option("Column of item ids.", panel="Data")] = "item"
    domain: Annotated[str, option("Column of domains, or none: all rows belong to the target.", panel="Data")] = (
        "domain"
    )
    value: Annotated[str, option("Column of ratings, or none for clicks.", panel="Data")] = "rating"
    time: Annotated[str | None, option("Column of times: numbers or ISO dates.", panel="Data")] = None
    shared: Annotated[str, option("The side whose ids mean the same everywhere: users or items.", panel="Data")] = (
        "users"
    )


@dataclass(frozen=True)
class ModelOptions:
    """Which model."""

    model: Annotated[str, option("pmf (target only), collective or transfer.", panel="Model")] = "transfer"
    rank: Annotated[int, option("Number of factors.", panel="Model")] = 8
    likelihood: Annotated[str, option("gaussian, student, ordinal, bernoulli, poisson or implicit.", panel="Model")] = (
        "gaussian"
    )
    activity: Annotated[
        bool, option("Meet users who have not rated yet in proportion to how much people rate.", panel="Model")
    ] = False


@dataclass(frozen=True)
class MethodOptions:
    """How to fit; an option that is not given has the default of the method."""

    method: Annotated[str, option("gibbs, vmp, svi or nuts.", panel="Method")] = "gibbs"
    draws: Annotated[int | None, option("Draws kept in each chain.", panel="Method")] = None
    warmup: Annotated[int | None, option("Sweeps before the first of them.", panel="Method")] = None
    chains: Annotated[int | None, option("Number of chains.", panel="Method")] = None
    thin: Annotated[int | None, option("Sweeps for each kept draw.", panel="Method")] = None
    threads: Annotated[int | None, option("Threads; those left over share the rows of a chain.", panel="Method")] = None
    passes: Annotated[int | None, option("At most so many passes of a chain (vmp).", panel="Method")] = None
    tolerance: Annotated[
        float | None, option("Least gain that is worth going on, in nats a rating (vmp, svi).", panel="Method")
    ] = None
    steps: Annotated[int | None, option("At most so many steps of the optimiser (svi).", panel="Method")] = None
    batch_size: Annotated[int | None, option("Rows in a step (svi).", panel="Method")] = None
    learning_rate: Annotated[float | None, option("Size of the first steps (svi).", panel="Method")] = None
    seed: Annotated[int, option("Equal seeds give equal answers.", panel="Method")] = 0


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Spread the parameters of a command that are groups into the options they hold, as typer reads them."""
    hints = get_type_hints(command, include_extras=True)
    spread: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if hints[name] not in (DataOptions, ModelOptions, MethodOptions):
            spread.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))
            continue
        groups[name] = hints[name]
        inner = get_type_hints(hints[name], include_extras=True)
        for key, field in inspect.signature(hints[name]).parameters.items():
            spread.append(field.replace(annotation=inner[key], kind=field.KEYWORD_ONLY))

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    flat.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    return flat
