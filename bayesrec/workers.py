"""Workers: threads that share the rows of a compiled loop. Internal."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ALONE", "Workers"]

RUNS = 2


@dataclass(frozen=True)
class Workers:
    """Some threads and the rows they take: contiguous runs of about equal cost, RUNS for each thread.

    Rows are independent and each has a random stream of its own, so results do not depend on the number of threads.

    Attributes
    ----------
    n : int
        Number of threads, the caller's among them.
    pool : Executor, optional
        Where the others come from; needed for more than one.
    jittered : list of (str, int), optional
        Takes the block and the number of rows whose precision was positive definite only with jitter.
    device : str, optional
        A device of torch on which rows are updated in batches instead; None is the compiled loops.
    layouts : object, optional
        What the batched updates remember of their rows; see :mod:`bayesrec.batched`.
    """

    n: int = 1
    pool: Executor | None = None
    jittered: list[tuple[str, int]] | None = None
    device: str | None = None
    layouts: Any = None

    def edges(self, indptr: np.ndarray, width: int) -> np.ndarray:
        """First rows of the runs and the end; a row costs its ratings and ``width`` more."""
        rows = len(indptr) - 1
        if self.n == 1 or self.pool is None or rows < 2 * self.n:
            return np.array([0, rows])
        cost = indptr + width * np.arange(rows + 1)
        return np.searchsorted(cost, np.linspace(cost[0], cost[-1], RUNS * self.n + 1)).clip(0, rows)

    def share(self, run: Callable[[int, int], Any], indptr: np.ndarray, width: int) -> Any:
        """Call ``run(first, last)`` for every run of rows and add up what the calls return."""
        edges = self.edges(indptr, width).tolist()
        if len(edges) == 2:
            return run(*edges)
        spans = list(zip(edges[:-1], edges[1:], strict=True))

        def work() -> int:
            total: Any = 0
            while True:
                try:
                    span = spans.pop()  # of one thread at a time
                except IndexError:
                    return total
                total = total + run(*span)

        others = [self.pool.submit(work) for _ in range(min(self.n, len(spans)) - 1)] if self.pool else []
        try:
            mine = work()
        finally:  # whatever happens, nobody works on behind the caller's back
            spans.clear()
            others = [future for future in others if not future.cancel()]  # who has not begun finds nothing left
            wait(others)
        return mine + sum(future.result() for future in others)


ALONE = Workers()
