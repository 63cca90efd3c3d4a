"""``bayesrec demo``: the main job on MovieLens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the plots.")] = Path("bayesrec-demo"),
    seed: Annotated[int, typer.Option(help="Seed of splits and chains.")] = 0,
    draws: Annotated[int, typer.Option(help="Draws in each of 4 chains.")] = 150,
) -> None:
    """Run the main job on MovieLens: Drama -> Comedy, as it is and with a source that cannot help."""
    from bayesrec.demo import run
    from bayesrec.diagnostics.verdict import CHOICE
    from bayesrec.inference import Gibbs

    console = Console()
    found = run(out, lambda text: console.print(f"[dim]{text}[/dim]"), seed, Gibbs(draws=draws, warmup=draws, chains=4))
    for kind, part in found.table.groupby("held-out users", sort=False):
        table = _table(f"Held-out users with {kind}", ["model", "RMSE", "minus PMF", "NLPD", "CRPS", "in 90%"])
        for _, row in part.iterrows():
            difference = f"{row['RMSE - PMF']:+.3f} ± {row['SE']:.3f}"
            numbers = (f"{row[name]:.3f}" for name in ("NLPD", "CRPS", "coverage"))
            table.add_row(row["model"], f"{row['RMSE']:.3f}", difference, *numbers)
        console.print(table)
    table = _table("Does the source help?", ["model", "users", "verdict", "log score a rating", "P(hurts)"])
    for name, report in found.verdicts.items():
        color = {"positive": "green", "negative": "red"}.get(report.verdict, "yellow")
        se = report.se / report.per_user["n"].sum()
        parts = [("all", report.verdict, report.delta_per_row, se, report.probability)]
        for users, row in report.regimes.iterrows():
            se = row["se"] / row["n_rows"]
            parts.append((str(users), row["verdict"], row["delta_per_row"], se, row["probability"]))
        for k, (users, verdict, delta, se, p) in enumerate(parts):
            style = f"bold {color}" if k == 0 else ""
            table.add_row("" if k else name, users, verdict, f"{delta:+.4f} ± {se:.4f}", f"{p:.3f}", style=style)
    console.print(table)
    console.print(CHOICE, highlight=False)
    films = _table(
        f"Ten comedies for user {found.user}, who has rated none", ["film", "mean", "90% interval", "source weight"]
    )
    for film in found.films.to_dict("records"):
        interval = f"{film['lower']:.1f} to {min(film['upper'], 5.0):.1f}"
        films.add_row(str(film["film"]), f"{film['mean']:.2f}", interval, f"{film['source_weight']:.2f}")
    console.print(films)
    console.print(f"\nReport: {found.folder / 'report.html'} ({found.seconds:.0f} s)")


def _table(title: str, columns: list[str]) -> Table:
    """A table that fits 80 columns: words to the left, numbers to the right."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False
    )
    for name in columns:
        words = name in ("model", "users", "verdict", "film")
        # only titles of films may be cut: a number that ends in dots says nothing
        width = 36 if name == "film" else None
        table.add_column(name, justify="left" if words else "right", no_wrap=True, max_width=width)
    return table
