"""A progress bar that is silent unless the standard error stream is a terminal. Internal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

__all__ = ["Progress"]


class Progress:
    """Context manager around rich's bar; ``advance`` may be called from any thread."""

    def __init__(self, title: str, total: int, show: bool):
        self._bar, self._title = None, title
        if show and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(title, total=total)

    @property
    def shown(self) -> bool:
        """Whether anybody sees it."""
        return self._bar is not None

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def extend(self, steps: int) -> None:
        """Expect more steps."""
        if self._bar:
            self._bar.update(self._task, total=(self._bar.tasks[0].total or 0) + steps)

    def say(self, text: str) -> None:
        """Show some words beside the title."""
        if self._bar:
            self._bar.update(self._task, description=f"{self._title} {text}")

    def advance(self, steps: int = 1) -> None:
        """Count steps."""
        if self._bar:
            self._bar.advance(self._task, steps)
