"""``bayesrec report``: one HTML page about a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayesrec.cli.options import Config, Json, grouped


@grouped
def report(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that fit wrote.")],
    out: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("report.html"),
    test: Annotated[
        Path | None, typer.Option(help="Table of target ratings that the model has not seen: for the calibration.")
    ] = None,
    without: Annotated[
        Path | None,
        typer.Option(help="Model folder of a fit without the source: with --test, the verdict comes from it."),
    ] = None,
    verdict: Annotated[
        bool, typer.Option("--verdict/--no-verdict", help="Whether the source helps; costs two fits a fold.")
    ] = True,
    folds: Annotated[int, typer.Option(help="Parts into which users are split for the verdict.")] = 5,
    config: Config = None,
    json: Json = False,
) -> None:
    """Write a page that says in two minutes what a model is worth."""
    from bayesrec.cli.answers import heard, put_json, read_rows
    from bayesrec.cli.build import check_page, load_model
    from bayesrec.inference.base import whole_fits
    from bayesrec.reports import report as write_report
    from bayesrec.tables import not_written

    check_page(out)
    with heard() as lines:
        posterior = load_model(model)
        bare = None if without is None else load_model(without)
        rows = None if test is None else read_rows(posterior, test, value=True)
        try:
            with whole_fits("no page was written"):
                page = write_report(posterior, out, without=bare, test=rows, folds=folds if verdict else 0)
        except OSError as error:
            raise not_written(out, error) from error
    if json:
        put_json({"model": str(model), "path": str(page), "warnings": lines})
    else:
        typer.echo(str(page))
