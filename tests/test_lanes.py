"""Eight linear systems at once against NumPy, one after another."""

import numpy as np
import pytest

from bayesrec import lanes
from bayesrec.vectors import LANES


def problem(n, rng):
    """Positive definite matrices (LANES, n, n) and right-hand sides (LANES, n)."""
    root = rng.normal(size=(LANES, n, n + 2))
    return root @ root.transpose(0, 2, 1), rng.normal(size=(LANES, n))


def arranged(matrices, right):
    n = right.shape[1]
    apart = np.full((LANES, n, n + 1 + LANES), np.nan)  # what is below the diagonal or behind is never used
    apart[:, :, :n], apart[:, :, n] = np.triu(matrices), right
    apart[:, *np.tril_indices(n, -1)] = np.nan
    a, inverse = lanes.systems(n)
    lanes.arrange(apart, a)
    return a, inverse


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 11, 16, 17, 33])
def test_factors_and_solutions(n):
    matrices, right = problem(n, np.random.default_rng(n))
    a, inverse = arranged(matrices, right)
    lanes.factor(a, inverse)
    upper = np.linalg.cholesky(matrices).transpose(0, 2, 1)
    for lane in range(LANES):
        assert np.allclose(np.triu(a[:, :n, lane]), upper[lane], rtol=1e-8, atol=1e-8)
        assert np.allclose(a[:, n, lane], np.linalg.solve(upper[lane].T, right[lane]), rtol=1e-6, atol=1e-8)
        assert np.allclose(inverse[:, lane] * np.diag(upper[lane]), 1.0)
    lanes.solve(a, inverse)
    want = np.linalg.solve(matrices, right[..., None])[..., 0]
    assert np.allclose(a[:, n].T, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("where", [0, 3, 10])
def test_a_system_that_is_not_positive_definite_spoils_no_other(where):
    matrices, right = problem(11, np.random.default_rng(0))
    matrices[2, where, where] = -1.0
    a, inverse = arranged(matrices, right)
    lanes.factor(a, inverse)
    assert (((inverse > 0) & (inverse < np.inf)).all(0) == (np.arange(LANES) != 2)).all()
    lanes.solve(a, inverse)
    others = np.delete(np.arange(LANES), 2)
    want = np.linalg.solve(matrices, right[..., None])[..., 0]
    assert np.allclose(a[:, 11].T[others], want[others], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [1, 8, 13])
def test_memory_begins_with_a_line_of_the_cache(n):
    assert all(lanes.aligned(n).ctypes.data % 64 == 0 for _ in range(20))
