"""``bayesrec assess``: folds with and without the source, and a verdict."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesrec.cli.options import Config, DataOptions, Json, MethodOptions, ModelOptions, grouped
from bayesrec.cli.shell import NEGATIVE, say
from bayesrec.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from bayesrec.data import Interactions
    from bayesrec.diagnostics import TransferReport
    from bayesrec.inference import Method
    from bayesrec.models.base import Model


@grouped
def assess(
    data: DataOptions,
    model: ModelOptions,
    method: MethodOptions,
    folds: Annotated[
        int, typer.Option(help="Parts into which users, or shared items, are split; each is held out once.")
    ] = 5,
    n_support: Annotated[int, typer.Option(help="Target ratings that a held-out user keeps: 0 is a cold start.")] = 0,
    baseline: Annotated[str, typer.Option(help="pmf, or same: the same model without the source rows.")] = "pmf",
    min_effect: Annotated[float, typer.Option(help="Least difference a rating, in nats, worth a verdict.")] = 0.0,
    sensitivity: Annotated[
        bool,
        typer.Option(
            help="Fit the first fold again with the priors of the gate and the map changed: up to 4 more fits."
        ),
    ] = False,
    report: Annotated[Path | None, typer.Option(help="HTML page to write; costs one more fit, on all rows.")] = None,
    fail_on_negative: Annotated[
        bool, typer.Option(help="Exit with 3 if the source hurts, for use in scripts.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Hold out users, fit with and without the source, and say whether it helps or hurts."""
    from bayesrec.cli.answers import heard, put_json, tell_data
    from bayesrec.cli.build import check_page, load_data, make_method, make_model
    from bayesrec.diagnostics import assess_transfer
    from bayesrec.inference.base import whole_fits

    if baseline not in ("pmf", "same"):
        raise DataError(f"--baseline must be pmf or same, not {baseline!r}")
    if report is not None:
        check_page(report)
    began = time.perf_counter()
    with heard() as lines:
        how, what = make_method(method), make_model(model)
        other = what if baseline == "same" else make_model(model, "pmf")
        rows = load_data(data)
        tell_data(rows)
        say(f"fitting {folds} folds, with the source and without: {2 * folds} fits")
        with whole_fits("there is no verdict yet and nothing was written"):
            found = assess_transfer(
                what, rows, how, folds, n_support, other, method.seed, min_effect=min_effect, sensitivity=sensitivity
            )
        page = None
        try:
            if report is not None:
                page = _page(what, rows, how, method.seed, found, report)
        finally:  # the verdict is not lost if the page is
            if json:
                put_json(content(found, time.perf_counter() - began, page, lines))
            else:
                typer.echo(found.summary())
    if fail_on_negative and found.verdict == "negative":
        raise typer.Exit(NEGATIVE)


def _page(model: Model, data: Interactions, method: Method, seed: int, found: TransferReport, path: Path) -> Path:
    """Fit to all rows and write the page."""
    from bayesrec import inference
    from bayesrec.inference.base import whole_fits
    from bayesrec.reports import report
    from bayesrec.tables import not_written

    try:
        with whole_fits("the verdict is complete, no page was written"):
            posterior = inference.fit(model, data, method, seed=seed)
            page = Path(report(posterior, path, verdict=found))
    except OSError as error:
        raise not_written(path, error) from error
    say(f"wrote {page}")
    return page


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    """Rows of a table with their label, where it has one; None where there is no table."""
    from bayesrec.tables import records

    if table is None:
        return None
    return records(table if table.index.name is None else table.reset_index())


def content(found: TransferReport, seconds: float, page: Path | None, lines: list[str]) -> dict[str, Any]:
    """The JSON object of a verdict."""
    from bayesrec.tables import records

    whole = (
        "verdict", "probability", "delta", "delta_per_row", "se", "sampler_se", "equal_user_mean", "joint_delta", "reason",
    )  # fmt: skip
    return {
        **{name: getattr(found, name) for name in whole},
        "target": str(found.target),
        "sources": [str(name) for name in found.sources],
        "compared": list(found.labels),
        f"{found.entity}s": len(found.per_user),
        "rows": int(found.per_user["n"].sum()),
        "regimes": records(found.regimes.reset_index()),
        **{name: _records(getattr(found, name)) for name in ("metrics", "segments", "sensitivity")},
        "summary": found.summary(),
        "report": None if page is None else str(page),
        "seconds": round(seconds, 3),
        "warnings": lines,
    }
