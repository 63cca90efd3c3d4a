"""``bayesrec predict``: from a model folder and a table of users and items to ratings with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayesrec.cli.options import Config, Json, grouped


@grouped
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that fit wrote.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Users and items, under the column names of the fit.")],
    level: Annotated[float, typer.Option(help="Probability of the interval from lower to upper.")] = 0.9,
    out: Annotated[
        Path | None, typer.Option(help="Table to write; without it CSV goes to the standard output.")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Predict ratings: a mean, an sd and an interval for each row of a table."""
    from bayesrec.cli.answers import check_out, heard, put, read_rows
    from bayesrec.cli.build import load_model

    check_out(out)
    with heard() as lines:
        posterior = load_model(model)
        frame = posterior.predict(read_rows(posterior, table), level=level)
    put(frame, out, json, {"model": str(model), "level": level}, lines)
