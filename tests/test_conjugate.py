"""Every conjugate update and distribution against a closed form, numerical integration or SciPy.

A check returns True or False; it must be True for the package as it is and False for each planted fault.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from numba.core.errors import TypingError
from scipy import integrate, optimize, special, stats

from bayesrec import conjugate, kernels, mixtures, streams
from bayesrec.distributions import HuangWand, gated_normal, half_t
from bayesrec.errors import ConvergenceWarning, SamplingError
from bayesrec.workers import Workers

ALARM = 1e-4  # false-alarm rate of every statistical check below, Bonferroni over its quantities
R = 3


def calm(z):
    """Two-sided z tests of all entries at once."""
    z = np.ravel(z)
    return bool(np.abs(z).max() < stats.norm.isf(ALARM / 2 / z.size))


def fits(samples, cdf):
    """Kolmogorov-Smirnov tests of every column."""
    samples = samples.reshape(len(samples), -1)
    return all(stats.kstest(column, cdf).pvalue > ALARM / samples.shape[1] for column in samples.T)


def close(a, b, tol=1e-10):
    return np.allclose(a, b, rtol=tol, atol=tol)


def twist(monkeypatch, module, name, **change):
    """Plant a fault: ``change[argument](old value)`` goes in. An argument is named by its position, ``_3``."""
    if change:
        real = getattr(module, name)

        @functools.wraps(real)
        def wrong(*args, **kwargs):
            args = [change.get(f"_{i}", lambda x: x)(x) for i, x in enumerate(args)]
            return real(*args, **{k: change.get(k, lambda x: x)(x) for k, x in kwargs.items()})

        monkeypatch.setattr(module, name, wrong)


class Fixed:
    """A generator whose normals are given; it is its own key for the compiled streams."""

    def __init__(self, normals):
        self.normals = normals

    def standard_normal(self, size):
        return np.broadcast_to(self.normals, size).astype(float).copy()

    def integers(self, *_, **__):
        return self


@pytest.fixture(autouse=True)
def given_normals(monkeypatch):
    def fill(key, out, first, last):
        if isinstance(key, Fixed):
            out[first:last] = key.normals
        else:
            streams.normals(key, out, first, last)

    monkeypatch.setattr(kernels, "normals", fill)


def by(factor):
    return lambda x: factor * x


def covariance(rng, size=R):
    root = rng.standard_normal((size, size + 2))
    return root @ root.T / size


def long_rows(rng, sizes, n_other=7):
    """Rows of the given numbers of ratings: indptr, index, value, weight, other."""
    n = int(np.sum(sizes))
    other = rng.standard_normal((n_other, R))
    value, weight = rng.standard_normal(n), rng.uniform(0.5, 2.0, n)
    return np.concatenate([[0], np.cumsum(sizes)]), rng.integers(0, n_other, n), value, weight, other


def gram_loop(indptr, index, value, weight, other):
    """Likelihood precision and linear term of each row, one rating after another."""
    out = []
    for start, stop in zip(indptr[:-1], indptr[1:], strict=True):
        p, h = np.zeros((R, R)), np.zeros(R)
        for t in range(start, stop):
            v = np.concatenate([[1.0], other[index[t], 1:]])
            p += weight[t] * np.outer(v, v)
            h += weight[t] * v * (value[t] - other[index[t], 0])
        out.append((p, h))
    return out


def moment_z(draws, mean, cov):
    """z of first and second moments of normal draws (n, size)."""
    n, x = len(draws), draws - mean
    sd = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
    return np.append(x.mean(0) / np.sqrt(np.diag(cov) / n), ((x.T @ x / n - cov) / sd)[np.tril_indices(len(cov))])


@pytest.mark.parametrize("fault", [{}, {"_6": by(1.1)}, {"_3": by(2.0)}, {"_7": by(1.1)}])
def test_draw_rows(fault, monkeypatch):
    rng = np.random.default_rng(0)
    rows = long_rows(rng, range(10))
    group, mean = np.arange(10) % 2, rng.standard_normal((2, R))
    precision = np.stack([covariance(rng), covariance(rng)])
    twist(monkeypatch, kernels, "draw_rows", **fault)
    draw = functools.partial(conjugate.draw_rows, *rows, group, mean, precision)
    exact, z = True, []
    centre = draw(Fixed(0.0))
    units = [draw(Fixed(np.eye(R)[j])) - centre for j in range(R)]
    sample = np.stack([draw(rng) for _ in range(4000)])
    for u, (p, h) in enumerate(gram_loop(*rows)):
        p, h = p + precision[group[u]], h + precision[group[u]] @ mean[group[u]]
        root = np.stack([x[u] for x in units], axis=1)  # a square root of the covariance
        exact &= close(centre[u], np.linalg.solve(p, h)) and close(root @ root.T, np.linalg.inv(p))
        z.append(moment_z(sample[:, u], np.linalg.solve(p, h), np.linalg.inv(p)))
    assert exact is not bool(fault)
    assert calm(z) is not bool(fault)


@pytest.mark.parametrize("rank", [1, 2, 7, 8, 9, 15, 16, 17, 33])
@pytest.mark.parametrize("fault", [False, True])
def test_every_rank_fills_its_tiles(rank, fault, monkeypatch):
    """Widths below, at and above a multiple of the tile, rows of 0 to 200 ratings; the fault leaves a rating out."""
    rng, size = np.random.default_rng(rank), rank + 1
    counts = np.array([0, 1, 3, 63, 64, 65, 128, 200])
    indptr, n = np.concatenate([[0], np.cumsum(counts)]), counts.sum()
    rows = indptr, rng.integers(0, 50, n), rng.standard_normal(n), rng.random(n) + 0.2, rng.standard_normal((50, size))
    a = rng.standard_normal((size, size + 3))
    mean, precision = rng.standard_normal((1, size)), (a @ a.T)[None]
    if fault:
        twist(monkeypatch, kernels, "draw_rows", _0=lambda x: np.minimum(x, n - 1))
    got = conjugate.draw_rows(*rows, np.zeros(len(counts), int), mean, precision, Fixed(0.0))
    index, value, weight, other = rows[1:]
    want = []
    for start, stop in zip(indptr[:-1], indptr[1:], strict=True):
        v = other[index[start:stop]].copy()
        v[:, 0] = 1.0
        w, r = weight[start:stop], value[start:stop] - other[index[start:stop], 0]
        p = precision[0] + (v * w[:, None]).T @ v
        want.append(np.linalg.solve(p, precision[0] @ mean[0] + v.T @ (w * r)))
    assert close(got, np.stack(want), 1e-8) is not fault


@pytest.mark.parametrize(
    "view", [lambda x: x.astype(np.int64), lambda x: np.repeat(x.astype(np.int32), 2)[::2]], ids=["int64", "strided"]
)
def test_an_index_of_another_kind_is_read_right(view):
    """The kernels read arrays by their address, where a stride or another width would be misread."""
    indptr, index, value, weight, other = long_rows(np.random.default_rng(0), range(10))
    prior = np.zeros(10, int), np.zeros((1, R)), np.eye(R)[None], Fixed(0.0)
    want, got = (conjugate.draw_rows(indptr, i, value, weight, other, *prior) for i in (index, view(index)))
    assert np.array_equal(got, want)
    both = (conjugate.row_grams(indptr, i, value, weight, other) for i in (index, view(index)))
    assert all(np.array_equal(a, b) for a, b in zip(*both, strict=True))
    with pytest.raises(TypingError, match="contiguous arrays"):
        kernels.draw_rows(indptr, view(index), value, weight, other, prior[0], prior[2], prior[1], want, want, 0, 10)


@pytest.mark.parametrize("where", [0, 1, R - 1])
def test_a_precision_that_is_bad_in_one_component_is_refused(where):
    """Component 0, the bias, is the border of the factorisation and has a check of its own."""
    rows, precision = long_rows(np.random.default_rng(0), [2, 0]), np.eye(R)[None].copy()
    precision[0, where, where] = -1e3
    with pytest.raises(SamplingError, match="2 rows of block 'items'"):
        conjugate.draw_rows(*rows, np.zeros(2, int), np.zeros((1, R)), precision, Fixed(0.0), "items")


def test_jitter_is_bounded_and_counted():
    """Somebody hears of jitter; a definite matrix gets none, and one that is further off is refused."""
    rows, prior = long_rows(np.random.default_rng(0), [0, 0]), [np.zeros(2, int), np.zeros((1, R)), None]

    def draw(least, **kwargs):
        prior[2] = np.eye(R)[None].copy()
        prior[2][0, 1:, 1:] += (1.0 - least) * (1.0 - np.eye(R - 1))  # eigenvalues least, 1 and 2 - least
        return conjugate.draw_rows(*rows, *prior, Fixed(0.1), "items", **kwargs)

    with pytest.warns(ConvergenceWarning, match="2 rows of block 'items' needed jitter"):
        assert np.isfinite(draw(-1e-11)).all()
    counts: list = []
    workers = Workers(jittered=counts)
    draw(-1e-11, workers=workers)
    assert counts == [("items", 2)]
    draw(1e-6, workers=workers)
    assert counts == [("items", 2)]
    with pytest.raises(SamplingError, match="2 rows of block 'items'"):
        draw(-1e-7, workers=workers)


def test_draw_rows_refuses_a_bad_precision():
    rows = long_rows(np.random.default_rng(0), [2, 0])
    with pytest.raises(FloatingPointError, match="'items'"):
        conjugate.draw_rows(*rows, np.zeros(2, int), np.zeros((1, R)), -9 * np.eye(R)[None], Fixed(0.0), "items")


@pytest.mark.parametrize("fault", [{}, {"_2": by(1.1)}, {"_0": lambda x: np.minimum(x, 44)}])
def test_row_grams_and_row_squared_errors(fault, monkeypatch):
    rng = np.random.default_rng(0)
    indptr, index, value, weight, other = long_rows(rng, range(10))
    rows, of = rng.standard_normal((10, R)), np.repeat(np.arange(10), range(10))
    for name in ("grams", "row_errors"):
        twist(monkeypatch, kernels, name, **fault)
    got = conjugate.row_grams(indptr, index, value, weight, other)
    want = [np.stack(x) for x in zip(*gram_loop(indptr, index, value, weight, other), strict=True)]
    assert (close(got[0], want[0]) and close(got[1], want[1])) is not bool(fault)
    got = conjugate.row_squared_errors(indptr, index, value, other, rows)
    e = value - rows[of, 0] - other[index, 0] - (rows[of, 1:] * other[index, 1:]).sum(1)
    assert close(got, np.bincount(of, e**2, minlength=10)) is not bool(fault)


def half_t_cdf(scale, dof):
    return lambda x: 2 * stats.t.cdf(x / scale, dof) - 1


@pytest.mark.parametrize("fault", [{}, {"_3": by(1.1)}, {"_1": by(1.1)}, {"_2": lambda n: n + 1}])
def test_half_t_scale(fault, monkeypatch):
    """A draw from the prior stays one if data come from it; the conditional is invariant (numerical integration)."""
    rng = np.random.default_rng(0)
    twist(monkeypatch, conjugate, "half_t_scale", **fault)
    s = 0.4 * np.abs(rng.standard_t(3, size=200_000))
    squares = s**2 * rng.chisquare(3, size=s.size)
    good = fits(conjugate.half_t_scale(s, squares, 3, 0.4, rng), half_t_cdf(0.4, 3))
    grid = np.geomspace(1e-2, 50, 20_000)
    density = stats.t.pdf(grid / 0.4, 3) * grid**-3.0 * np.exp(-0.5 * 1.5 / grid**2)
    cdf = integrate.cumulative_trapezoid(density, grid, initial=0)
    cdf /= cdf[-1]
    s = np.interp(rng.random(200_000), cdf, grid)
    good &= fits(conjugate.half_t_scale(s, 1.5, 3, 0.4, rng), lambda x: np.interp(x, grid, cdf))
    assert good is not bool(fault)


@pytest.mark.parametrize("fault", [{}, {"_0": by(1.1)}, {"_1": by(1.1)}])
def test_wishart(fault, monkeypatch):
    rng = np.random.default_rng(0)
    scale, dof = covariance(rng), 5.5
    twist(monkeypatch, conjugate, "wishart", **fault)
    draws = np.stack([conjugate.wishart(dof, scale, rng) for _ in range(8000)])
    sd = np.sqrt(dof * (np.outer(np.diag(scale), np.diag(scale)) + scale**2))
    assert calm(((draws.mean(0) - dof * scale) / sd)[np.tril_indices(R)] * np.sqrt(8000)) is not bool(fault)


@pytest.mark.parametrize("fault", [{}, {"_3": by(1.25)}, {"_1": by(1.25)}, {"_2": lambda n: n + 1}])
def test_huang_wand_covariance(fault, monkeypatch):
    """The prior has half-t sds and uniform correlations; an update with data drawn from it leaves it as it is."""
    rng = np.random.default_rng(0)
    scale = np.array([0.5, 1.0, 2.0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = HuangWand(torch.tensor(scale.tolist())).sample((5000,)).double().numpy()
    twist(monkeypatch, conjugate, "huang_wand_covariance", **fault)
    after = prior.copy()
    for _ in range(4):  # new data from the covariance, then the covariance given them
        for r, cov in enumerate(after):
            rows = rng.standard_normal((3, R)) @ np.linalg.cholesky(cov).T
            after[r] = conjugate.huang_wand_covariance(cov, rows.T @ rows, 3, scale, rng)
    for covs, broken in ((prior, False), (after, bool(fault))):
        sd = np.sqrt(np.diagonal(covs, axis1=1, axis2=2))
        correlation = np.stack([covs[:, i, j] / (sd[:, i] * sd[:, j]) for i, j in ((1, 0), (2, 0), (2, 1))], axis=1)
        good = fits(sd / scale, half_t_cdf(1.0, 2)) and fits(correlation, stats.uniform(-1, 2).cdf)
        assert good is not broken


@pytest.mark.parametrize("fault", [{}, {"_1": by(1.1)}, {"_2": by(0.9)}])
def test_normal_mean(fault, monkeypatch):
    rng = np.random.default_rng(0)
    rows, scale, prior = rng.standard_normal((5, R)), np.array([0.5, 1.0, 2.0]), np.array([0.5, 0.3, 0.3])
    twist(monkeypatch, conjugate, "normal_mean", **fault)
    centre = conjugate.normal_mean(rows, scale, prior, Fixed(0.0))
    sd = conjugate.normal_mean(rows, scale, prior, Fixed(1.0)) - centre
    cov = np.linalg.inv(np.diag(1 / prior**2) + 5 * np.diag(1 / scale**2))
    want = cov @ np.diag(1 / scale**2) @ rows.sum(0)
    assert (close(centre, want) and close(sd, np.sqrt(np.diag(cov)))) is not bool(fault)


@pytest.mark.parametrize("fault", [{}, {"_3": by(0.0)}, {"_2": by(1.1)}, {"_1": by(1.1)}])
def test_regression(fault, monkeypatch):
    """Against the dense formula for the stacked responses, built row by row."""
    rng = np.random.default_rng(0)
    design, response = rng.standard_normal((9, 4)), rng.standard_normal((9, R))
    cov, prior = covariance(rng), rng.uniform(0.5, 3.0, (4, R))
    twist(monkeypatch, conjugate, "regression", **fault)
    p, h, inverse = np.diag(prior.ravel()), np.zeros(4 * R), np.linalg.inv(cov)
    for x, y in zip(design, response, strict=True):
        big = np.concatenate([c * np.eye(R) for c in x], axis=1)  # y = big @ B.ravel() + noise
        p, h = p + big.T @ inverse @ big, h + big.T @ inverse @ y
    draw = functools.partial(conjugate.regression, design, response, cov, prior)
    centre = draw(Fixed(0.0))
    root = np.stack([(draw(Fixed(unit)) - centre).ravel() for unit in np.eye(4 * R)], axis=1)
    good = close(centre.ravel(), np.linalg.solve(p, h), 1e-9) and close(root @ root.T, np.linalg.inv(p), 1e-9)
    assert good is not bool(fault)


@pytest.mark.parametrize("fault", [{}, {"_1": lambda n: n + 1}, {"_2": lambda prior: prior[::-1]}])
def test_bernoulli_rate(fault, monkeypatch):
    rng = np.random.default_rng(0)
    twist(monkeypatch, conjugate, "bernoulli_rate", **fault)
    draws = conjugate.bernoulli_rate(np.full(20_000, 7), 5, (1.0, 4.0), rng)
    assert fits(draws, stats.beta(8, 9).cdf) is not bool(fault)


@pytest.mark.parametrize("n_domains", [1, 2])
@pytest.mark.parametrize(
    "fault", [{}, {"_2": by(1.1)}, {"_1": by(0.5)}, {"_3": by(2)}, {"_4": by(1.2)}, {"_5": lambda a: a + 0.3}]
)
def test_noise_slices(fault, n_domains, monkeypatch):
    """From the exact posterior one step stays in it; from far away thirty steps arrive there."""
    rng, mean, sd, bound = np.random.default_rng(0), 0.5, 1.3, 3.0
    count, squares, shift = np.array([4, 2])[:n_domains], np.array([6.0, 3.0])[:n_domains], np.array([0.0, -0.7])

    def log_likelihood(x):
        out = 0.0
        for c, s, a in zip(count, squares, shift, strict=False):
            bent = bound * np.tanh((x + a) / bound)
            out = out + 0.5 * (c * bent - s * np.exp(bent))
        return out

    def step(x):
        n = len(x)
        same = [np.repeat(a[:n_domains, None], n, axis=1) for a in (count, squares, shift)]
        return conjugate.noise_slices(x, np.full(n, mean), sd, *same, bound, rng)

    twist(monkeypatch, conjugate, "noise_slices", **fault)
    grid = np.linspace(-6, 5, 20_000)
    cdf = integrate.cumulative_trapezoid(np.exp(log_likelihood(grid)) * stats.norm.pdf(grid, mean, sd), grid, initial=0)
    cdf /= cdf[-1]
    here, far = np.interp(rng.random(100_000), cdf, grid), np.full(20_000, 4.0)
    here = step(here)
    for _ in range(30):
        far = step(far)
    good = [fits(x, lambda x: np.interp(x, grid, cdf)) for x in (here, far)]
    assert good == ([False, False] if fault else [True, True])


def test_uniform_numbers_are_uniform_and_unrelated():
    keys = np.random.default_rng(0).integers(2**64, size=20, dtype=np.uint64)
    starts = [np.uint64(streams.start(key, row)) for key in keys for row in range(20)]
    u = np.array([[streams.uniform(state, k) for k in range(50)] for state in starts])
    assert fits(u.ravel(), lambda x: x)
    assert fits((u[:, 1:] + u[:, :-1]).ravel() % 1, lambda x: x)
    assert ((u >= 0) & (u < 1)).all()
    neighbours = np.array([streams.uniform(np.uint64(streams.start(np.uint64(3), k)), 0) for k in range(20_000)])
    assert fits(neighbours, lambda x: x)
    assert abs(np.corrcoef(neighbours[:-1], neighbours[1:])[0, 1]) < 4 / np.sqrt(20_000)


def test_normals_of_streams(monkeypatch):
    """Normal in every column and in the tail; unrelated from row to row and from column to column; whatever the runs."""
    out, again = np.empty((200_000, 4)), np.empty((200_000, 4))
    streams.normals(np.uint64(11), out, 0, len(out))
    for first in (0, 70_000, 150_000):
        streams.normals(np.uint64(11), again, first, min(first + 90_000, len(out)))
    assert np.array_equal(out, again)
    assert fits(out, stats.norm.cdf)
    tail, limit = np.abs(out[np.abs(out) > 3.0]), 2 * stats.norm.sf(3.0)
    assert calm((len(tail) - out.size * limit) / np.sqrt(out.size * limit))
    assert fits(tail[:, None], lambda x: 1 - stats.norm.sf(x) / stats.norm.sf(3.0))
    n = len(out)
    pairs = [out[1:, k] * out[:-1, k] for k in range(4)] + [out[:, 0] * out[:, k] for k in (1, 2, 3)]
    assert calm([p.mean() * np.sqrt(n) for p in pairs])
    squares = out**2 - 1
    assert calm([(squares[:, 0] * squares[:, 1]).mean() * np.sqrt(n) / 2, squares.mean() * np.sqrt(out.size / 2)])
    assert not fits(1.03 * out, stats.norm.cdf)


def test_noise_slices_refuse_what_is_not_finite():
    one = np.ones((1, 3))
    for x, sd, squares in (
        (np.array([0, np.nan, 0]), 1.0, one),
        (np.zeros(3), np.inf, one),
        (np.zeros(3), 1.0, one * np.nan),
    ):
        with pytest.raises(SamplingError, match="not finite"):
            conjugate.noise_slices(x, np.zeros(3), sd, one, squares, 0 * one, 3.0, np.random.default_rng(0))


def test_half_t_distribution():
    x = np.array([0.01, 0.4, 3.0])
    got = [half_t(0.5).log_prob(torch.tensor(v)).item() for v in x]
    np.testing.assert_allclose(got, np.log(2) + stats.t.logpdf(x, 3, scale=0.5), rtol=1e-6, atol=1e-6)
    scale = np.array([0.5, 1.0, 2.0])
    rows = half_t(torch.tensor(scale), dof=1.0, shape=(2, 3))
    value = np.random.default_rng(0).exponential(size=(4, 2, 3))
    exact = (np.log(2) + stats.t.logpdf(value, 1, scale=scale)).sum((1, 2))
    np.testing.assert_allclose(rows.log_prob(torch.tensor(value)), exact, rtol=1e-5)
    assert rows.sample((4,)).shape == (4, *rows.event_shape)
    assert rows.support.event_dim == 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = half_t(0.5).sample((20_000,)).numpy()
    assert fits(draws, half_t_cdf(0.5, 3))
    assert not fits(1.1 * draws, half_t_cdf(0.5, 3))


def test_huang_wand_log_prob():
    """A mixture of inverse Wisharts over inverse-gamma scales, by the trapezoid rule on their logarithms."""
    scale, dof, cov = np.array([0.5, 1.5]), 2.0, np.array([[0.4, 0.2], [0.2, 1.1]])
    t = np.linspace(-14, 14, 141)
    density = [stats.invgamma.pdf(np.exp(t), 0.5, scale=1 / s**2) * np.exp(t) for s in scale]
    total = 0.0
    for a, weight in zip(np.exp(t), density[0], strict=True):
        for b, other in zip(np.exp(t), density[1], strict=True):
            if weight * other > 0:
                total += weight * other * stats.invwishart.pdf(cov, dof + 1, 2 * dof * np.diag([1 / a, 1 / b]))
    want = np.log(total * (t[1] - t[0]) ** 2)
    got = HuangWand(torch.tensor(scale)).log_prob(torch.tensor(cov)).item()
    assert abs(got - want) < 1e-6
    assert abs(HuangWand(torch.tensor(1.1 * scale)).log_prob(torch.tensor(cov)).item() - want) > 1e-3


def test_gated_normal_log_prob():
    rng = np.random.default_rng(0)
    loc, cov, p = rng.standard_normal((4, 2, R)), np.stack([covariance(rng), covariance(rng)]), np.array([0.3, 0.7])
    x = rng.standard_normal((4, R))
    normal = stats.multivariate_normal
    rows = [[np.log(p[g]) + normal(loc[u, g], cov[g]).logpdf(x[u]) for g in (0, 1)] for u in range(4)]
    got = gated_normal(*(torch.tensor(a) for a in (loc, cov[None], p))).log_prob(torch.tensor(x))
    assert got.item() == pytest.approx(special.logsumexp(rows, axis=1).sum(), rel=1e-9)


def test_mixtures_of_normals():
    rng = np.random.default_rng(0)
    mean, sd = 3 * rng.standard_normal((5, 40)), rng.uniform(0.01, 2.0, (5, 40))
    p, out, back = np.array([1e-4, 0.05, 0.5, 0.95]), np.empty((5, 4)), np.empty(5)
    equal = np.full(mean.shape[1], 1.0 / mean.shape[1])
    mixtures.mixture_quantiles(mean, sd, equal, p, special.ndtri(p), out)
    for r, q in np.ndindex(5, 4):
        want = optimize.brentq(lambda x, r=r, q=q: stats.norm.cdf(x, mean[r], sd[r]).mean() - p[q], -40, 40)
        assert out[r, q] == pytest.approx(want, abs=1e-6)
    mixtures.mixture_cdf(mean, sd, equal, np.ascontiguousarray(out[:, 1]), back)
    np.testing.assert_allclose(back, 0.05, atol=1e-7)
