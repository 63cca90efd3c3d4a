"""What a sweep of PMF asks of a machine and what the machine can do: the floor under its time (Williams et al. 2009).

`python benchmarks/roofline.py 2` prints the peaks of this machine with two threads; `gibbs_scaling.py` uses the rest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

CODE, NUMBER = 4, 8  # bytes of an index and of a double
SIDE, LONG = 3000, 2**26  # of the matrices of dgemm; doubles in an array of the triad, half a GiB


def work(ratings: int, rows: int, rank: int) -> dict[str, float]:
    """Least work of a sweep in double precision; ``rows`` are users and items, vectors have R = rank + 1 components.

    flops: a rating adds w v v' (a triangle, R(R+1)) and w r v (3R with the product w v) to its user and to its item, and
    a squared error (2R + 2). A row factors its precision (R^3 / 3) and solves twice (2R^2). Populations, noise levels
    and random numbers are not counted.
    streamed: bytes that no order of the ratings saves. Index, value and weight of a rating once for its user and once
    for its item; normals and new vector of a row.
    gathered: bytes of the vectors that ratings point at, once for each side. They come from cache where they fit.
    """
    r = rank + 1
    return {
        "flops": ratings * (2 * (r * (r + 1) + 3 * r) + 2 * r + 2) + rows * (r**3 / 3 + 2 * r**2),
        "streamed": ratings * 2 * (CODE + 2 * NUMBER) + rows * 2 * r * NUMBER,
        "gathered": ratings * 2 * r * NUMBER,
    }


def peaks(threads: int) -> dict[str, float]:
    """Measured flop/s of dgemm and bytes/s of a triad with so many threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # BLAS reads them when it is loaded
    env = os.environ | dict.fromkeys(names, str(threads))
    answer = subprocess.run([sys.executable, __file__, "dgemm"], env=env, check=True, stdout=subprocess.PIPE, text=True)
    return {"flops": float(answer.stdout), "bandwidth": triad(threads)}


def best(run: Callable[[], object]) -> float:
    """Least seconds of eight runs after one that does not count."""
    return min(timeit.repeat(run, number=1, repeat=9)[1:])


def dgemm() -> float:
    """Flop/s of a product of two large matrices in NumPy's BLAS."""
    a, b = np.random.default_rng(0).standard_normal((2, SIDE, SIDE))
    out = np.empty_like(a)
    return 2 * SIDE**3 / best(lambda: np.matmul(a, b, out=out))


@njit(nogil=True)
def _triad(a, b, c, first, last):
    for i in range(first, last):
        a[i] = b[i] + 3.0 * c[i]


def triad(threads: int) -> float:
    """Bytes/s of ``a = b + 3 c``, counted as in STREAM: two arrays read, one written."""
    arrays = [np.full(LONG, x) for x in (0.0, 1.0, 2.0)]
    edges = np.linspace(0, LONG, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        return 3 * NUMBER * LONG / best(lambda: list(pool.map(lambda f, l: _triad(*arrays, f, l), edges, edges[1:])))


if __name__ == "__main__":
    print(dgemm() if sys.argv[1] == "dgemm" else peaks(int(sys.argv[1])))
