"""The regression of vectors on features: its law against a dense one, and responses without a known part."""

import numpy as np
import pytest

from bayesrec import conjugate
from bayesrec.linear_maps import Spectrum, draw_map, without_shift


class Axis:
    """A generator whose normals are all zero but for one, counted over its calls: draws are affine in them."""

    def __init__(self, place):
        self.place, self.seen = place, 0

    def standard_normal(self, size):
        n = int(np.prod(size))
        out = np.zeros(n)
        if self.seen <= self.place < self.seen + n:
            out[self.place - self.seen] = 1.0
        self.seen += n
        return out.reshape(size)


def case(n=9, n_features=4, size=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, n_features))
    x[:, -1] = 1.5  # not centred here: intercept and map must be drawn together
    x[:, 0] = 2.0 * x[:, 1]  # and not of full rank
    root = rng.standard_normal((size, size))
    return (
        x,
        rng.standard_normal((n, size)),
        root @ root.T + np.eye(size),
        np.array([0.5, 1.0, 2.0]),
        np.array([0.3, 2.0, 0.7]),
    )


def dense(x, rows, cov, mean_scale, map_scale):
    """Mean and covariance of (intercept, map), raveled, from the normal equations of all entries at once."""
    design = np.column_stack([np.ones(len(x)), x])
    prior = np.concatenate([mean_scale**-2.0, np.tile(map_scale**-2.0, x.shape[1])])
    inverse = np.linalg.inv(cov)
    posterior = np.linalg.inv(np.kron(design.T @ design, inverse) + np.diag(prior))
    return posterior @ (design.T @ rows @ inverse).ravel(), posterior


def law(x, rows, cov, mean_scale, map_scale, decompose=Spectrum.of):
    """Mean and covariance of what draw_map draws, from its answers to zeros and to unit normals."""

    def draw(place):
        mean, entries = draw_map(decompose(x), rows, cov, mean_scale, map_scale, Axis(place))
        return np.concatenate([mean, entries.ravel()])

    centre = draw(-1)
    jacobian = np.stack([draw(place) - centre for place in range(len(centre))], axis=1)
    return centre, jacobian @ jacobian.T


@pytest.mark.parametrize("shape", [(9, 4, 3), (2, 4, 3), (0, 4, 3), (300, 12, 3)])
def test_draws_have_the_dense_law(shape):
    args = case(*shape)
    for got, want in zip(law(*args), dense(*args), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-9 * max(1.0, np.abs(want).max()))


def test_without_features_it_is_the_mean():
    x, rows, cov, mean_scale, map_scale = case()
    args = x[:, :0], rows, cov, mean_scale, map_scale
    for got, want in zip(law(*args), dense(*args), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_planted_fault_a_map_drawn_apart_from_the_intercept_is_seen():
    """With sums of features of zero the intercept is drawn as if the features were centred."""

    def centred(x):
        spectrum = Spectrum.of(x)
        return Spectrum(spectrum.axes, spectrum.along - spectrum.along.mean(0), spectrum.power)

    args = case()
    assert max(np.abs(g - w).max() for g, w in zip(law(*args, centred), dense(*args), strict=True)) > 1e-2


def test_a_row_about_its_shift_is_its_shift_and_a_row(monkeypatch):
    """Conditional means of rows with prior means of their own: by brute force, and as shifts plus rows of one prior mean."""

    def zeros(key, out, first, last):
        out[first:last] = 0.0

    monkeypatch.setattr(conjugate.kernels, "normals", zeros)
    rng = np.random.default_rng(1)
    indptr, size = np.array([0, 3, 3, 7]), 3
    index = rng.integers(0, 5, 7).astype(np.int32)
    value, weight, other = rng.standard_normal(7), rng.uniform(0.5, 2.0, 7), rng.standard_normal((5, size))
    shift, mean, precision = rng.standard_normal((3, size)), rng.standard_normal(size), np.diag([1.0, 2.0, 3.0])
    rest = without_shift(indptr, index, value, other, shift)
    group = np.zeros(3, dtype=int)
    got = shift + conjugate.draw_rows(indptr, index, rest, weight, other, group, mean[None], precision[None], rng)
    want = np.empty((3, size))
    for r in range(3):
        here = slice(indptr[r], indptr[r + 1])
        v, w = other[index[here]].copy(), weight[here]
        bias, v[:, 0] = v[:, 0].copy(), 1.0
        linear = precision @ (mean + shift[r]) + v.T @ (w * (value[here] - bias))
        want[r] = np.linalg.solve(precision + (v.T * w) @ v, linear)
    np.testing.assert_allclose(got, want, atol=1e-10)
