"""What one row of a Gibbs update costs, and each of its ratings: least time of many runs of the compiled loop, one thread.

`python benchmarks/row_time.py [--ranks 10,16,32] [--repeats 60]` prints nanoseconds. Vectors of the other side are in cache.
"""

from __future__ import annotations

import argparse
import os
import timeit

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from common import show

from bayesrec import kernels

ROWS, OTHERS, LENGTHS = 500, 800, (1, 65, 129)


def seconds(rank: int, length: int, repeats: int) -> float:
    """Least seconds a row with so many ratings."""
    rng = np.random.default_rng(rank)
    n = ROWS * length
    index, value = rng.integers(0, OTHERS, n).astype(np.int32), rng.standard_normal(n)
    other, normals = rng.standard_normal((OTHERS, rank + 1)), rng.standard_normal((ROWS, rank + 1))
    prior = np.eye(rank + 1)[None], np.zeros((1, rank + 1))
    rows = np.arange(ROWS + 1) * length, index, value, np.ones(n), other, np.zeros(ROWS, dtype=int)
    out = np.empty_like(normals)
    times = timeit.repeat(lambda: kernels.draw_rows(*rows, *prior, normals, out, 0, ROWS), number=1, repeat=repeats)
    return min(times) / ROWS


def error_seconds(rank: int, repeats: int) -> float:
    """Least seconds of the squared error of a rating."""
    rng = np.random.default_rng(rank)
    n = ROWS * LENGTHS[2]
    index, value = rng.integers(0, OTHERS, n).astype(np.int32), rng.standard_normal(n)
    other, rows = rng.standard_normal((OTHERS, rank + 1)), rng.standard_normal((ROWS, rank + 1))
    start, out = np.arange(ROWS + 1) * LENGTHS[2], np.empty(ROWS)
    run = lambda: kernels.row_errors(start, index, value, other, rows, out, 0, ROWS)  # noqa: E731
    return min(timeit.repeat(run, number=1, repeat=repeats)) / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="10,16,32")
    parser.add_argument("--repeats", type=int, default=60)
    args = parser.parse_args()
    table = {}
    for rank in map(int, args.ranks.split(",")):
        one, some, more = (1e9 * seconds(rank, length, args.repeats) for length in LENGTHS)
        table[rank] = {"a row of one rating": one, "a rating more": (more - some) / (LENGTHS[2] - LENGTHS[1])}
        table[rank]["a squared error"] = 1e9 * error_seconds(rank, args.repeats)
    show("Nanoseconds", pd.DataFrame(table).T.rename_axis("rank"), "row_time")


if __name__ == "__main__":
    main()
