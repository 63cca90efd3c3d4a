"""The command line: ``bayesrec fit | predict | recommend | assess | report | demo``.

Nothing heavy is imported before a command runs, so that ``bayesrec --help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from bayesrec.cli.assess import assess
from bayesrec.cli.demo import demo
from bayesrec.cli.fit import fit
from bayesrec.cli.predict import predict
from bayesrec.cli.recommend import recommend
from bayesrec.cli.report import report
from bayesrec.cli.shell import Shell

__all__ = ["app", "main"]

EXIT_CODES = (
    "Exit codes: 0 fine; 1 a fault of bayesrec; 2 a word of the command line, a file or a table does not fit; "
    "3 the source hurts (assess --fail-on-negative); 130 stopped by Ctrl-C."
)
EXAMPLES = {
    fit: "bayesrec fit book=books.csv music=music.csv --target music --value stars --out model",
    predict: "bayesrec predict model wanted.csv --level 0.8 --out predictions.csv",
    recommend: "bayesrec recommend model --users 12,15 -n 5 --by ucb",
    assess: "bayesrec assess ratings.csv --target music --report verdict.html",
    report: "bayesrec report model --test heldout.csv --out report.html",
    demo: "bayesrec demo --out bayesrec-demo",
}

app = typer.Typer(cls=Shell, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
for command, example in EXAMPLES.items():
    app.command(epilog=f"Example: {example}")(command)


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"bayesrec {version('bayesrec')}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error came from; may stand anywhere.")
    ] = False,
) -> None:
    """Bayesian transfer learning for recommender systems."""


def main() -> None:
    """Run the command line; an error of ours is one line and an exit code, not a traceback."""
    app()


if __name__ == "__main__":
    main()
