"""The group of commands: exit codes, one-line errors, Ctrl-C."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from bayesrec.errors import BayesrecError

__all__ = ["DEFECT", "NEGATIVE", "STOPPED", "WRONG", "Shell"]

DEFECT, WRONG, NEGATIVE, STOPPED = 1, 2, 3, 130


class Shell(TyperGroup):
    """A group whose errors are one line and an exit code, never a traceback unless it is asked for."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; Ctrl-C says what was kept."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            say(f"stopped: {stop}" if str(stop) else "stopped: nothing was written")
            raise typer.Exit(STOPPED) from stop

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit with its code."""
        given = list(sys.argv[1:] if args is None else args)
        shown = "--traceback" in given  # it may stand anywhere
        given = [word for word in given if word != "--traceback"]

        def run() -> Any:
            return super(Shell, self).main(given, prog_name, complete_var, False, windows_expand_args, **extra)

        if not standalone_mode:
            return run()
        sys.exit(guarded(run, shown))


def guarded(run: Callable[[], Any], show_traceback: bool) -> int:
    """Return the exit code of a run."""
    try:
        code = run()
        return code if isinstance(code, int) else 0
    except Exception as error:  # noqa: BLE001 - the last place where a defect can be told in one line
        if show_traceback:
            traceback.print_exception(error)
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            return DEFECT
        line, code = told(error)
        say(line)
        return code


def told(error: Exception) -> tuple[str, int]:
    """What a user reads of an error, and the exit code."""
    if isinstance(error, BayesrecError):
        return f"error: {error}", WRONG
    if hasattr(error, "format_message"):  # a word of the command line that does not fit
        context: Any = getattr(error, "ctx", None)
        command = context.info_name if context is not None and context.parent is not None else ""
        where = " ".join(word for word in ("bayesrec", command, "--help") if word)
        text = error.format_message().rstrip(".")
        return (f"error: {text} ({where})" if text else ""), WRONG
    if isinstance(error, OSError | MemoryError):
        return f"error: {str(error) or 'there is not enough memory'}", WRONG
    return (
        f"defect: {type(error).__name__}: {error}. This is a fault of bayesrec, not yours. Run the same command with "
        "--traceback and report what it prints, with the output of bayesrec --version."
    ), DEFECT


def say(text: str) -> None:
    """Print one line to the standard error stream."""
    if text:
        head, colon, rest = " ".join(text.split()).partition(":")
        color = {"error": typer.colors.RED, "defect": typer.colors.RED, "warning": typer.colors.YELLOW}.get(head)
        typer.secho(head + colon, err=True, fg=color, nl=False)
        typer.echo(rest, err=True)
