"""evaluate: run every cell, here or in worker processes, and measure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bayesrec.data import Interactions
from bayesrec.data.columns import nearest
from bayesrec.data.seeds import generator
from bayesrec.errors import DataError
from bayesrec.evaluation.arms import Arm, make_arms, named
from bayesrec.evaluation.cells import Answer, Cell, fingerprint, read, solve, split_digest
from bayesrec.evaluation.result import COLUMNS, PAIRS, Evaluation
from bayesrec.evaluation.score import METRICS, Loss, difference, losses, summarise
from bayesrec.evaluation.splits import Split, make_splits
from bayesrec.inference.base import Method
from bayesrec.inference.progress import Progress
from bayesrec.models.base import Model

__all__ = ["evaluate"]


def evaluate(
    models: Model | Sequence[Model] | Mapping[str, Model],
    data: Interactions,
    methods: Method | Sequence[Method] | Mapping[str, Method],
    splits: Mapping[str, Callable[[Interactions, int], tuple[Interactions, Interactions]]]
    | Sequence[str]
    | None = None,
    seeds: Iterable[int] = (0,),
    *,
    ablate: str | Sequence[str] = (),
    reference: str | None = None,
    cache: str | Path | None = None,
    workers: int = 1,
    progress: bool = True,
    strict: bool = False,
) -> Evaluation:
    """Fit models by methods on splits, and measure them beside the simple baselines. Provisional.

    Parameters
    ----------
    models : Model, list of Model or {name: Model}
    data : Interactions
    methods : Method, list of Method or {name: Method}
    splits : {name: function (data, seed) -> (train, test)}, or a list of names, optional
        Without it: ``cold`` (a fifth of the users that have source rows lose their target rows), ``few`` (the same, but each
        keeps 5 rows) and ``warm`` (a tenth of the target rows, at random); ``warm`` alone where there are no source
        rows. Where items are shared, items take the place of users in the first two.
    seeds : iterable of int
        Each seeds the split and the sampler.
    ablate : list of {"source", "gate", "biases", "map"}
        More rows for each model that has the part: fitted without the source's rows, without the gate, without the
        transfer of biases, without the map between factors.
    reference : str, optional
        The row that ``difference`` is against: ``"item + user bias"`` unless given (for clicks ``"popularity"``). If it
        names a model, each row is compared with that model under its own method.
    cache : str or Path, optional
        Folder where each finished cell is kept. The same call, or one that shares cells with it, takes them from there: after
        Ctrl-C or a crash it goes on where it stopped.
    workers : int
        Processes. Answers do not depend on it. With more than one, a script must guard its call by
        ``if __name__ == "__main__":``, since workers import it.
    progress : bool
        Show a progress bar, if the standard error stream is a terminal.
    strict : bool
        Raise where a fit fails; otherwise its metrics are NaN and the reason stands in ``notes``.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        A misspelt split, ablation or reference; an ablation that no model has; two rows of one name; a split that cannot be made.
    TypeError
        Something that is no model, method, split or Interactions.

    Examples
    --------
    >>> import bayesrec as br
    >>> from bayesrec.evaluation import evaluate
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(12, 12), n_ratings=(8, 6))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> result = evaluate(br.models.PMF(rank=1), data, br.Gibbs(draws=5, warmup=5, chains=2), ["cold"])
    >>> result.table("rmse").columns.tolist()[:4]
    ['split', 'model', 'method', 'metric']
    >>> result.frame["model"].nunique()
    7
    """
    if not isinstance(data, Interactions):
        raise TypeError(f"data must be Interactions, not {type(data).__name__}")
    if isinstance(workers, bool) or not isinstance(workers, (int, np.integer)) or workers < 1:
        raise DataError(f"workers must be a whole number of at least 1, not {workers!r}")
    seeds = list(dict.fromkeys(seeds if isinstance(seeds, Iterable) else [seeds]))
    if not seeds:
        raise DataError("seeds is empty; give at least one")
    for seed in seeds:
        generator(seed)  # refuses what is no seed
    seeds = [int(seed) for seed in seeds]
    by_name, how = named(models, Model, "models"), named(methods, Method, "methods")
    arms = make_arms(by_name, how, ablate, data)
    reference = _reference(reference, arms, data)
    parts, notes = make_splits(data, splits, seeds)
    if not parts:
        raise DataError("no split can be made of these data: " + "; ".join(notes))
    threads = max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None
    folder, cells = _folder(cache), []
    for part in parts:
        digest = split_digest(part) if folder else ""
        for arm in arms:
            path = folder / f"{fingerprint(arm, digest)}.npz" if folder else None
            cells.append(Cell(arm, part, path, threads))
    answers: dict[int, Answer] = {}
    with Progress("evaluate", len(cells), progress) as bar:
        for k, answer in _answers(cells, int(workers), strict):
            answers[k] = answer
            bar.advance()
    rows: list[tuple] = []
    pairs: list[tuple] = []
    for number, part in enumerate(parts):
        first = number * len(arms)
        here = [answers[first + k] for k in range(len(arms))]
        found = [losses(answer, part) for answer in here]
        rows += _measure(part, arms, here, found, reference)
        pairs += _against_simple(part, arms, found)
        for arm, answer in zip(arms, here, strict=True):
            notes += [f"{Cell(arm, part).title}: {note}" for note in answer.notes]
    return Evaluation(
        pd.DataFrame(rows, columns=list(COLUMNS)), reference, tuple(notes), pd.DataFrame(pairs, columns=list(PAIRS))
    )


def _reference(given: str | None, arms: Sequence[Arm], data: Interactions) -> str:
    names = [arm.name for arm in arms]
    if given is None:
        return "popularity" if data.columns.value is None else "item + user bias"
    if given not in names:
        raise DataError(
            f"reference: no row is called {given!r}{nearest(given, names)}; there are {list(dict.fromkeys(names))}"
        )
    return given


def _folder(cache: str | Path | None) -> Path | None:
    if cache is None:
        return None
    folder = Path(cache)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"cache={str(cache)!r} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _answers(cells: Sequence[Cell], workers: int, strict: bool) -> Iterator[tuple[int, Answer]]:
    """Answers as they come, with the position of their cell: those of the cache first."""
    missing = []
    for k, cell in enumerate(cells):
        answer = read(cell.path)
        if answer is None:
            missing.append(k)
        else:
            yield k, answer
    if workers == 1 or len(missing) < 2:
        for k in missing:
            yield k, solve(cells[k], strict)
        return
    # Spawned, not forked: a fork copies the locks of Numba's and torch's threads as they stand.
    pool = ProcessPoolExecutor(
        min(workers, len(missing)),
        get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(torch.get_num_threads(),),
    )
    try:
        # A few at a time: each task carries its own copy of the rows.
        queue = iter(missing)
        running: dict[Future[Answer], int] = {}
        for k in queue:
            running[pool.submit(solve, cells[k], strict)] = k
            if len(running) < 2 * workers:
                continue
            yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool as error:
        raise BrokenProcessPool(
            "a worker process ended. Out of memory? A script must call evaluate under `if __name__ == '__main__':`, and "
            "models or methods written in a notebook do not reach workers: put them in a module, or use workers=1."
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _finished(running: dict[Future[Answer], int]) -> Iterator[tuple[int, Answer]]:
    """Wait for one or more and take them out."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future.result()


def _measure(
    part: Split, arms: Sequence[Arm], answers: Sequence[Answer], found: Sequence[dict[str, Loss]], reference: str
) -> list[tuple]:
    """Rows of the frame for one split and seed."""
    position = {(arm.name, arm.method_name): k for k, arm in enumerate(arms)}
    fallback = next(k for k, arm in enumerate(arms) if arm.name == reference)
    n_users = len(np.unique(part.test.user))
    rows = []
    for k, arm in enumerate(arms):
        against = found[position.get((reference, arm.method_name), fallback)]
        for metric in METRICS:
            value, se = summarise(metric, found[k][metric])
            gap, gap_se = difference(metric, found[k][metric], against[metric])
            row = (part.name, part.seed, arm.method_name, arm.name, metric, value, se, gap, gap_se)
            rows.append((*row, part.n_held, n_users, answers[k].seconds, arm.kind))
    return rows


def _against_simple(part: Split, arms: Sequence[Arm], found: Sequence[dict[str, Loss]]) -> list[tuple]:
    """Paired differences of every model to every baseline, in the metrics that have a better and a worse."""
    rows = []
    for arm, mine in zip(arms, found, strict=True):
        for simple, other in zip(arms, found, strict=True):
            if arm.kind == "simple" or simple.kind != "simple":
                continue
            for metric, (sign, _) in METRICS.items():
                if sign:
                    gap = difference(metric, mine[metric], other[metric])
                    rows.append((part.name, part.seed, arm.method_name, arm.name, metric, simple.name, *gap))
    return rows
