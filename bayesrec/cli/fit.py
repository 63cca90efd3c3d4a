"""``bayesrec fit``: from a table to a model folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesrec.cli.options import Config, DataOptions, Json, MethodOptions, ModelOptions, grouped
from bayesrec.cli.shell import STOPPED, say

if TYPE_CHECKING:
    from bayesrec.posterior import Posterior


@grouped
def fit(
    data: DataOptions,
    model: ModelOptions,
    method: MethodOptions,
    out: Annotated[Path, typer.Option(help="Model folder to write; an older model there is replaced at the end.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for the chains' state: the same command goes on after an interruption.")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Fit a model to your ratings and save it."""
    from bayesrec import inference
    from bayesrec.cli.answers import heard, put_json, tell_data
    from bayesrec.cli.build import check_folder, load_data, make_method, make_model
    from bayesrec.tables import not_written

    began = time.perf_counter()
    check_folder(out, checkpoint)
    with heard() as lines:
        how, what = make_method(method), make_model(model)
        rows = load_data(data)
        tell_data(rows)
        try:
            posterior = inference.fit(what, rows, how, seed=method.seed, checkpoint=checkpoint)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"{str(stop) or 'no model was written'}{_go_on(checkpoint)}") from stop
        try:
            posterior.save(out)
        except OSError as error:
            raise not_written(out, error) from error
        convergence = _convergence(posterior)
    stopped = any(line.startswith("interrupted") for line in lines)
    content: dict[str, Any] = {
        "path": str(out),
        "model": type(what).__name__,
        "rank": what.rank,
        "method": type(how).__name__,
        "seed": method.seed,
        "target": str(rows.target),
        "sources": [str(name) for name in rows.sources],
        "rows": len(rows),
        "users": rows.n_users,
        "items": rows.n_items,
        "chains": posterior.n_chains,
        "draws": posterior.n_draws,
        "seconds": round(time.perf_counter() - began, 3),
        "convergence": convergence,
        "interrupted": stopped,
        "warnings": lines,
    }
    if json:
        put_json(content)
    else:
        worst = convergence["worst_rhat"]
        met = "R-hat needs more draws" if worst is None else f"largest R-hat {worst:.2f} ({convergence['quantity']})"
        typer.echo(
            f"{out}: {content['model']} of rank {what.rank}, {posterior.n_chains} chains of {posterior.n_draws} draws, "
            f"{content['seconds']:.0f} s; {met}"
        )
    if stopped:
        say(f"stopped: the draws so far were kept in {out}{_go_on(checkpoint)}")
        raise typer.Exit(STOPPED)


def _go_on(checkpoint: Path | None) -> str:
    """What a checkpoint is good for, if there is one by now."""
    if checkpoint is None or not checkpoint.is_dir() or not any(checkpoint.iterdir()):
        return ""
    return f"; the same command goes on from the checkpoint {checkpoint}"


def _convergence(posterior: Posterior) -> dict[str, Any]:
    """The worst of the diagnostics."""
    table = posterior.diagnostics()
    rhat = table["rhat"].dropna()
    return {
        "worst_rhat": float(rhat.max()) if len(rhat) else None,
        "quantity": str(rhat.idxmax()) if len(rhat) else None,
        "least_ess_bulk": float(table["ess_bulk"].min()) if table["ess_bulk"].notna().any() else None,
    }
