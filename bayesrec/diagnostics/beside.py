"""Fits side by side, in threads, where a method leaves some over. Internal."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.inference.base import Method
from bayesrec.inference.gibbs import Gibbs, cpus
from bayesrec.models.base import Model

__all__ = ["INTERRUPTED", "Stopped", "at_once", "in_order", "stoppable"]

T = TypeVar("T")
GLANCE = 0.2  # seconds
INTERRUPTED = "a fit was interrupted; there is no verdict from half an arm"


class Stopped(Exception):
    """A fit was told to stop."""


def at_once(method: Method, most: int) -> tuple[int, Method]:
    """How many fits run at once, and the method of each, with its share of the threads.

    One at a time for other methods than Gibbs, where the chains need all threads, and with ``target_ess``, which silences
    warnings, for all threads of a process at once.

    Examples
    --------
    >>> at_once(Gibbs(chains=2, threads=9), most=10)[0], at_once(Gibbs(chains=4, threads=2), most=10)[0]
    (4, 1)
    """
    if not isinstance(method, Gibbs) or method.target_ess is not None:
        return 1, method
    threads = method.threads or cpus()
    n = max(1, min(most, threads // method.chains))
    return n, replace(method, threads=threads // n) if n > 1 else method


def in_order(jobs: Iterable[Callable[[], T]], n: int, stop: threading.Event) -> Generator[T]:
    """Results of the jobs in their order, ``n`` at once. ``stop`` is set when the caller ends early, and the rest is awaited."""
    if n == 1:
        yield from (job() for job in jobs)
        return
    pool, running = ThreadPoolExecutor(n), deque[Future[T]]()
    try:
        for job in jobs:
            running.append(pool.submit(job))
            if len(running) > n:  # and no more: results wait in memory
                yield _awaited(running.popleft())
        while running:
            yield _awaited(running.popleft())
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(INTERRUPTED) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _awaited(future: Future[T]) -> T:
    """The result, with a look at signals now and then: some libraries' handlers leave a waiting thread asleep (polars)."""
    while not future.done():
        wait([future], timeout=GLANCE)
    return future.result()


def stoppable(model: Model, stop: threading.Event) -> Model:
    """An equal model whose sweeps end with Stopped once ``stop`` is set: Ctrl-C reaches the main thread alone."""

    def blocks(table: Table) -> list[Block]:
        first, *others = model.blocks(table)

        def update(state: State, rng: np.random.Generator) -> State:
            if stop.is_set():
                raise Stopped
            return first.update(state, rng)

        return [replace(first, update=update), *others]

    out: Any = copy.copy(model)
    object.__setattr__(out, "blocks", blocks)  # of this copy; the class, and so equality and repr, stay
    return out
