"""Workers: threads that share the rows of a compiled loop. Internal."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

__all__ = ["ALONE", "Workers"]

RUNS = 2


@dataclass(frozen=True)
class Workers:
    """Some threads and the rows they take: contiguous runs of about equal cost, RUNS for each thread.

    Rows are independent and their random numbers are drawn before, so results do not depend on the number of threads.

    Attributes
    ----------
    n : int
        Number of threads, the caller's among them.
    pool : Executor, optional
        Where the others come from; needed for more than one.
    """

    n: int = 1
    pool: Executor | None = None

    def edges(self, indptr: np.ndarray, width: int) -> np.ndarray:
        """First rows of the runs and the end; a row costs its ratings and ``width`` more."""
        rows = len(indptr) - 1
        if self.n == 1 or self.pool is None or rows < 2 * self.n:
            return np.array([0, rows])
        cost = indptr + width * np.arange(rows + 1)
        return np.searchsorted(cost, np.linspace(cost[0], cost[-1], RUNS * self.n + 1)).clip(0, rows)

    def share(self, run: Callable[[int, int], int | None], indptr: np.ndarray, width: int) -> int:
        """Call ``run(first, last)`` for every run of rows and add up what the calls return."""
        edges = self.edges(indptr, width).tolist()
        spans = list(zip(edges[:-1], edges[1:], strict=True))

        def work() -> int:
            total = 0
            while True:
                try:
                    span = spans.pop()  # of one thread at a time
                except IndexError:
                    return total
                total += run(*span) or 0

        others = [self.pool.submit(work) for _ in range(min(self.n, len(spans)) - 1)] if self.pool else []
        return work() + sum(future.result() for future in others)


ALONE = Workers()
