"""Row updates in batches of tensors against closed forms in NumPy and the compiled loops, on the CPU and, where it is, a GPU.

Each user or row stands in a call in many copies, whose draws are independent. A statistical check raises a false alarm at most
once in 10,000 runs (``ALARM`` of test_conjugate, Bonferroni over its quantities; exact normal, chi-square and binomial laws, but
for the two-sample test). A check must be False for each planted fault.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy import special, stats
from test_conjugate import by, calm, close, covariance, gram_loop, long_rows, twist

from bayesrec import batched, conjugate
from bayesrec.batched import Layouts
from bayesrec.conjugate import Table

R, COPIES = 3, 4000
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here")
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_GPU)])
FORGOTTEN_WEIGHT = ("_grams", {"_2": torch.ones_like})


def plant(monkeypatch, fault):
    """Plant (name, change) in the module; a name with a dot is a method."""
    if fault:
        *owner, name = fault[0].split(".")
        twist(monkeypatch, getattr(batched, owner[0]) if owner else batched, name, **fault[1])


def fix(monkeypatch, normals=None, uniforms=None):
    """Random numbers whose last axes are given."""
    for name, value in (("_normals", normals), ("_uniforms", uniforms)):
        if value is not None:
            array = torch.tensor(np.asarray(value, dtype=float))
            fixed = lambda g, *shape, array=array: array.to(g.device).expand(shape).clone()  # noqa: E731
            monkeypatch.setattr(batched, name, fixed)


def normal_z(draws, mean, cov):
    """Exact z of means, variances and correlations of normal draws (n, size), whitened."""
    w, n = np.linalg.solve(np.linalg.cholesky(cov), (draws - mean).T).T, len(draws)
    i, j = np.tril_indices(w.shape[1], -1)
    squares = (np.concatenate([w, (w[:, i] + w[:, j]) / np.sqrt(2)], 1) ** 2).sum(0)
    return np.append(w.sum(0) / np.sqrt(n), stats.norm.ppf(stats.chi2.cdf(squares, n)))


def share_z(count, n, p):
    """z of a number of successes; its two-sided binomial test is conservative."""
    tail = min(stats.binom.cdf(count, n, p), stats.binom.sf(count - 1, n, p))
    return stats.norm.isf(min(tail, 0.5))


def closed_form(rows, group, mean, precision):
    """Posterior mean and covariance of every row, from plain loops."""
    out = []
    for (p, h), g in zip(gram_loop(*rows), group, strict=True):
        total = p + precision[g]
        out.append((np.linalg.solve(total, h + precision[g] @ mean[g]), np.linalg.inv(total)))
    return out


FAULTS = [None, FORGOTTEN_WEIGHT, ("_designs", {"_0": by(1.1)}), ("_padded", {"_0": lambda n: n - (n > 4)})]


@DEVICES
@pytest.mark.parametrize("fault", FAULTS)
def test_draw_rows(fault, device, monkeypatch):
    """Exact mean and root of the covariance; moments of many draws, of the compiled kernel too."""
    rng, n = np.random.default_rng(0), 10
    indptr, index, value, weight, other = rows = long_rows(rng, range(n))
    group, mean = np.arange(n) % 2, rng.standard_normal((2, R))
    precision = np.stack([covariance(rng), covariance(rng)])
    want, layouts = closed_form(rows, group, mean, precision), Layouts()
    plant(monkeypatch, fault)

    def draw(normals):
        with monkeypatch.context() as patch:
            fix(patch, normals)
            out, bad = batched.draw_rows(*rows, group, mean, precision, rng, device, layouts)
        assert bad == 0
        return out

    centre = draw(0.0)
    root = np.stack([draw(unit) - centre for unit in np.eye(R)], axis=2)
    exact = close(centre, [m for m, _ in want]) and close(root @ root.swapaxes(1, 2), [c for _, c in want])
    copies = np.concatenate([[0], np.cumsum(np.tile(np.diff(indptr), COPIES))])
    ratings = [np.tile(x, COPIES) for x in (index, value, weight)]
    many = copies, *ratings, other, np.tile(group, COPIES), mean, precision, rng
    sample, bad = batched.draw_rows(*many, device, layouts)
    compiled = conjugate.draw_rows(*many)
    good = [calm([normal_z(x.reshape(COPIES, n, R)[:, u], *want[u]) for u in range(n)]) for x in (sample, compiled)]
    assert bad == 0
    assert exact is not bool(fault)
    assert good == [not fault, True]


SIZES = (0, 1, 2, 3, 5, 8, 13, 0, 511, 512, 513, 1024, 1025, 3000, 1)


@DEVICES
@pytest.mark.parametrize("floats", [1, 5000, 2**24], ids=["a row at a time", "chunks", "one chunk"])
@pytest.mark.parametrize("fault", [False, True])
def test_buckets_have_the_sums_of_a_plain_loop(fault, floats, device):
    """Units of one and of three rows, longer and shorter than a piece and than a batch; the fault leaves one rating out."""
    indptr, index, value, weight, other = rows = long_rows(np.random.default_rng(0), SIZES)
    if fault:
        indptr = np.minimum(indptr, len(index) - 1)
    tensors = batched._after_zero(value, device), batched._after_zero(weight, device), batched._designs(other, device)
    gram, linear = (np.stack(x) for x in zip(*gram_loop(*rows), strict=True))
    compiled = conjugate.row_grams(*rows)
    for n_domains in (1, 3):
        got, chunks = np.full((len(SIZES), R + 1, R + 1), np.nan), Layouts(floats)
        for chunk in chunks.of(indptr, index, R + 1, device, n_domains):
            where = chunk.units.cpu().numpy()[:, None] * n_domains + np.arange(n_domains)
            got[where.ravel()] = batched._grams(chunk, *tensors).cpu().numpy()
        assert (close(got[:, :R, :R], gram) and close(got[:, :R, R], linear)) is not fault
        assert (close(got[:, :R, :R], compiled[0]) and close(got[:, :R, R], compiled[1])) is not fault


@pytest.mark.parametrize("floats", [1, 2000, 2**24])
def test_chunks_hold_every_unit_once_in_bounded_memory(floats):
    indptr, index, *_ = long_rows(np.random.default_rng(0), [2] * 300)
    chunks = Layouts(floats).of(indptr, index, R, "cpu", n_domains=3, matrices=7)
    assert sorted(torch.cat([c.units for c in chunks]).tolist()) == [*range(100)]
    assert all(len(c.units) * 7 * R * R <= max(floats, 7 * R * R) for c in chunks)


def test_lengths_are_rounded_up_by_half_at_most():
    count = np.arange(5000)
    padded = batched._padded(count)
    assert padded[:13].tolist() == [0, 1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12]
    assert (padded >= count).all()
    assert (padded <= 1.5 * count).all()
    assert len(np.unique(padded)) < 30


@DEVICES
def test_a_row_of_100000_ratings_next_to_rows_of_one(device, monkeypatch):
    indptr, index, value, weight, other = rows = long_rows(np.random.default_rng(0), [1, 1, 100_000, 0, 1])
    v, of = other[index], np.repeat(range(5), np.diff(indptr))
    response = value - v[:, 0]
    v[:, 0] = 1.0
    fix(monkeypatch, 0.0)
    for floats in (2**12, 2**24):
        layouts = Layouts(floats)
        prior = np.zeros(5, int), np.ones((1, R)), np.eye(R)[None], np.random.default_rng(0)
        got, bad = batched.draw_rows(*rows, *prior, device, layouts)
        assert bad == 0
        for u in range(5):
            x, w = v[of == u], weight[of == u]
            assert close(got[u], np.linalg.solve(np.eye(R) + (x.T * w) @ x, 1.0 + x.T @ (w * response[of == u])))
        biggest = max(b.rating.numel() for c in layouts.of(indptr, index, R + 1, device) for b in c.buckets)
        assert biggest * (R + 1) <= max(floats, batched.PIECE * (R + 1))


@pytest.mark.parametrize("n_rows", [0, 1, 4])
@pytest.mark.parametrize("n_other", [0, 2])
def test_no_ratings_at_all(n_rows, n_other, monkeypatch):
    rng, none = np.random.default_rng(0), np.empty(0)
    rows = np.zeros(n_rows + 1, int), none.astype(int), none, none, np.ones((n_other, R))
    fix(monkeypatch, 0.0)
    got, bad = batched.draw_rows(*rows, np.zeros(n_rows, int), np.ones((1, R)), np.eye(R)[None], rng, "cpu", Layouts())
    assert bad == 0
    assert close(got, np.ones((n_rows, R)))
    errors = batched.row_squared_errors(rows[0], rows[1], none, rows[-1], got, "cpu", Layouts())
    assert errors.tolist() == [0.0] * n_rows


def test_rows_without_ratings_are_draws_of_the_prior():
    rng, none, mean, precision = np.random.default_rng(0), np.empty(0), np.array([[1.0, -2.0, 0.5]]), np.eye(R)[None]
    precision = precision + 0.5
    rows = np.zeros(COPIES + 1, int), none.astype(int), none, none, np.ones((2, R)), np.zeros(COPIES, int)
    got, _ = batched.draw_rows(*rows, mean, precision, rng, "cpu", Layouts())
    assert calm(normal_z(got, mean[0], np.linalg.inv(precision[0])))
    assert not calm(normal_z(got, mean[0], np.linalg.inv(1.2 * precision[0])))


@DEVICES
@pytest.mark.parametrize("where", [0, 1, R - 1])
@pytest.mark.parametrize("value", [-1e4, np.nan])
def test_bad_precisions_are_counted(where, value, device):
    rng = np.random.default_rng(0)
    rows, precision = long_rows(rng, [2, 0, 4, 1]), np.stack([np.eye(R), np.eye(R)])
    precision[1, where, where] = value
    group, mean = np.array([0, 1, 1, 0]), np.zeros((2, R))
    got, bad = batched.draw_rows(*rows, group, mean, precision, rng, device, Layouts(1))
    assert bad == 2
    assert np.isfinite(got[[0, 3]]).all()


@DEVICES
@pytest.mark.parametrize("floats", [1, 2**24])
@pytest.mark.parametrize("fault", [False, True])
def test_row_squared_errors(fault, floats, device):
    rng = np.random.default_rng(0)
    indptr, index, value, _, other = long_rows(rng, SIZES)
    rows, of = rng.standard_normal((len(SIZES), R)), np.repeat(np.arange(len(SIZES)), SIZES)
    got = batched.row_squared_errors(
        np.minimum(indptr, len(index) - fault), index, value, other, rows, device, Layouts(floats)
    )
    e = value - rows[of, 0] - other[index, 0] - (rows[of, 1:] * other[index, 1:]).sum(1)
    assert close(got, np.bincount(of, e**2, minlength=len(SIZES))) is not fault
    assert close(got, conjugate.row_squared_errors(indptr, index, value, other, rows)) is not fault


COUNTS = ((3, 2), (0, 3), (4, 0), (0, 0), (6, 9))  # source and target rows of each user; user 0 lacks the second source
N_USERS = len(COUNTS)


class Case:
    """A known state of K sources, many copies of five users, and the same users by dense linear algebra."""

    def __init__(self, n_sources, copies=COPIES, given=False):
        rng, self.K, n_domains, self.copies = np.random.default_rng(1), n_sources, n_sources + 1, copies
        count = np.array([[a] * n_sources + [b] for a, b in COUNTS])
        count[0, 1:n_sources] = 0
        user, domain = (np.repeat(x, count.ravel()) for x in np.indices(count.shape).reshape(2, -1))
        item, value = rng.integers(0, 9, len(user)) + 9 * domain, rng.standard_normal(len(user))
        shift = np.repeat(np.arange(copies) * N_USERS, len(user))
        sizes = {"n_users": N_USERS * copies, "n_items": 9 * n_domains, "n_domains": n_domains}
        sizes["item_domain"] = np.repeat(range(n_domains), 9)
        columns = (np.tile(x, copies) for x in (item, domain, value))
        self.table = Table.build(np.tile(user, copies) + shift, *columns, **sizes)
        weight, self.item = rng.uniform(0.5, 2.0, len(user)), 0.7 * rng.standard_normal((9 * n_domains, R))
        self.weight = np.tile(weight, copies)
        start = self.table.user_ptr[: N_USERS * n_domains + 1]
        ratings = (x[: len(user)] for x in (self.table.user_item, self.table.user_value, weight))
        grams = gram_loop(start, *ratings, self.item)
        self.gram = [[tuple(x) for x in grams[u * n_domains : (u + 1) * n_domains]] for u in range(N_USERS)]
        self.scale, self.mean = rng.uniform(0.5, 1.5, (n_sources, R)), rng.standard_normal(R)
        self.cov, self.maps = 0.3 * covariance(rng), 0.7 * rng.standard_normal((n_sources, R, R))
        self.off, self.given = np.array([0.3, 0.6, 0.2])[:n_sources], None
        self.configs = np.array([*product((True, False), repeat=n_sources)])
        if given:
            p = np.stack([[covariance(rng) for _ in range(N_USERS)] for _ in range(n_sources)])
            h = rng.standard_normal((n_sources, N_USERS, R))
            p[:, 2], h[:, 2] = 0.0, 0.0
            self.given = tuple(np.tile(x, (1, copies) + (1,) * (x.ndim - 2)) for x in (p, h))
            for u, k in np.ndindex(N_USERS, n_sources):
                self.gram[u][k] = (self.gram[u][k][0] + p[k, u], self.gram[u][k][1] + h[k, u])

    def joint(self, u, on):
        """Mean and covariance of (theta, phi_1.., copy_1..) given the gates, and the log evidence."""
        size = R * (1 + 2 * self.K)
        link, prior, centre = np.eye(R, size), np.zeros((size, size)), np.pad(self.mean, (0, size - R))
        for k in range(self.K):
            source = R * (1 + k + (0 if on[k] else self.K))
            link[:, source : source + R] = -self.maps[k]
            for start in (R * (1 + k), R * (1 + self.K + k)):
                prior[start : start + R, start : start + R] = np.diag(1 / self.scale[k] ** 2)
        prior += link.T @ np.linalg.inv(self.cov) @ link
        p, h = prior.copy(), prior @ centre
        for (gram, linear), start in zip(self.gram[u], [R * (1 + k) for k in range(self.K)] + [0], strict=True):
            p[start : start + R, start : start + R] += gram
            h[start : start + R] += linear
        mean = np.linalg.solve(p, h)
        gain = np.linalg.slogdet(prior)[1] - np.linalg.slogdet(p)[1]
        return mean, np.linalg.inv(p), 0.5 * (h @ mean - centre @ prior @ centre + gain)

    def log_posterior(self, u):
        """Log probability of each configuration of the gates."""
        chance = [np.where(on, np.log1p(-self.off), np.log(self.off)).sum() for on in self.configs]
        log_p = np.array([self.joint(u, on)[2] for on in self.configs]) + chance
        return log_p - special.logsumexp(log_p)

    def pick(self, on):
        """Where theta, phi and, of gates that are off, phi_used stand in the joint vector, and in ``rows``."""
        blocks = [*range(1 + self.K), *(1 + self.K + k for k in range(self.K) if not on[k])]
        return np.concatenate([np.arange(R) + R * b for b in blocks])

    def start(self, rng):
        """Gates from their posterior, (source, user)."""
        share = [np.exp(self.log_posterior(u)) for u in range(N_USERS)]
        rows = [self.configs[rng.choice(len(p), self.copies, p=p)] for p in share]
        return np.ascontiguousarray(np.stack(rows, axis=1).reshape(-1, self.K).T)

    def arguments(self, on, gated=True):
        table = self.table
        hyper = self.scale, self.mean, self.cov, self.maps, self.off
        return (table, table.user_value, self.weight, self.item, *hyper, on, gated)

    def update(self, on, rng, device="cpu", gated=True, layouts=None):
        out, bad = batched.transfer_rows(*self.arguments(on, gated), rng, device, layouts or Layouts(), self.given)
        assert bad == 0
        return out

    def rows(self, out):
        """(copy, user, theta and phi and phi_used)."""
        vectors = np.concatenate([out["user_vector"][None], out["source_vector"], out["phi_used"]])
        return vectors.transpose(1, 0, 2).reshape(self.copies, N_USERS, -1)


TRANSFER_FAULTS = [
    FORGOTTEN_WEIGHT,
    ("_Users", {"_2": by(1.1)}),
    ("_Users", {"_3": by(1.5)}),
    ("_Users", {"_4": by(1.5)}),
    ("_Users", {"_5": lambda maps: maps.mT.contiguous()}),
    ("_Users.gates", {"_2": lambda off: 1 - off}),
    ("_Users.sources", {"_2": by(0.8)}),
    ("_Users.sources", {"_3": by(0.9)}),
]


@DEVICES
@pytest.mark.parametrize(("n_sources", "given"), [(1, False), (2, False), (2, True), (3, True)])
@pytest.mark.parametrize("fault", [None, *TRANSFER_FAULTS])
def test_transfer_rows(fault, n_sources, given, device, monkeypatch):
    """Gates that start in their posterior stay there; given the gates, the vectors have the moments of their normal."""
    case, rng = Case(n_sources, given=given), np.random.default_rng(0)
    start = case.start(rng)
    plant(monkeypatch, fault)
    out, z = case.update(start, rng, device), []
    rows, on = case.rows(out), out["on"].T.reshape(COPIES, N_USERS, n_sources)
    assert np.array_equal(out["source_vector"][out["on"]], out["phi_used"][out["on"]])
    for u in range(N_USERS):
        for config, log_p in zip(case.configs, case.log_posterior(u), strict=True):
            here = (on[:, u] == config).all(1)
            mean, cov, _ = case.joint(u, config)
            pick = case.pick(config)
            z.append([share_z(here.sum(), COPIES, np.exp(log_p))])
            if here.any():
                z.append(normal_z(rows[here, u][:, pick], mean[pick], cov[np.ix_(pick, pick)]))
    assert calm(np.concatenate(z)) is (fault is None)


@pytest.mark.parametrize("forgotten", [False, True])
def test_given_precision_is_added_to_the_source_rows(forgotten):
    case, rng = Case(1, given=True), np.random.default_rng(0)
    want = case.joint(1, [True])  # a user without source rows
    if forgotten:
        case.given = None
    rows, pick = case.rows(case.update(np.ones((1, case.table.n_users), bool), rng, gated=False)), case.pick([True])
    assert calm(normal_z(rows[:, 1, pick], want[0][pick], want[1][np.ix_(pick, pick)])) is not forgotten


@DEVICES
@pytest.mark.parametrize("given", [False, True])
def test_gates_turn_at_their_posterior_probability(given, device, monkeypatch):
    """Exact: uniform numbers just below the probability open the gate, those just above shut it."""
    case = Case(1, copies=1, given=given)
    p = np.exp([case.log_posterior(u)[0] for u in range(N_USERS)])
    assert np.allclose(p[[2, 3] if not given else [2]], 1 - case.off)  # no target rows: the prior
    for start, (step, want) in product((False, True), ((-1e-9, True), (1e-9, False))):
        with monkeypatch.context() as patch:
            fix(patch, uniforms=p + step)
            assert (case.update(np.full((1, N_USERS), start), np.random.default_rng(0), device)["on"] == want).all()


@DEVICES
@pytest.mark.parametrize("fault", [None, FORGOTTEN_WEIGHT, ("_Users.sources", {"_2": by(0.8)})])
def test_transfer_rows_has_the_law_of_the_compiled_kernel(fault, device, monkeypatch):
    """First and second moments of bounded features and gates of both samples, from equal starts."""
    case, rng = Case(2), np.random.default_rng(0)
    plant(monkeypatch, fault)
    start = case.start(rng)
    both = case.update(start, rng, device), conjugate.transfer_rows(*case.arguments(start), rng)
    features = []
    for out in both:
        rows = np.tanh(case.rows(out))
        i, j = np.tril_indices(rows.shape[-1])
        on = out["on"].T.reshape(COPIES, -1)
        features.append(np.concatenate([x.reshape(COPIES, -1) for x in (rows, rows[..., i] * rows[..., j], on)], 1))
    a, b = features
    sd = np.sqrt((a.var(0) + b.var(0)) / COPIES)
    z = (a.mean(0) - b.mean(0)) / np.where(sd > 0, sd, 1.0)
    assert calm(z) is (fault is None)


def test_without_gates_every_source_is_trusted(monkeypatch):
    case, rng = Case(2, copies=1), np.random.default_rng(0)
    fix(monkeypatch, 0.0)
    out = case.update(np.zeros((2, N_USERS), bool), rng, gated=False)
    assert out["on"].all()
    for u in range(N_USERS):  # with normals of zero every step gives a conditional mean
        pick = case.pick([True, True])
        assert close(case.rows(out)[0, u, pick], case.joint(u, [True, True])[0][pick])
    assert np.array_equal(out["phi_used"], out["source_vector"])


def test_no_source_at_all_is_draw_rows(monkeypatch):
    case, rng = Case(0, copies=1), np.random.default_rng(0)
    fix(monkeypatch, 0.0)
    out, table = case.update(np.ones((0, N_USERS), bool), rng), case.table
    prior = np.zeros(N_USERS, int), case.mean[None], np.linalg.inv(case.cov)[None]
    rows = table.user_ptr, table.user_item, table.user_value, case.weight, case.item
    assert close(out["user_vector"], batched.draw_rows(*rows, *prior, rng, "cpu", Layouts())[0])


@pytest.mark.parametrize("name", ["cov", "weight"])
def test_bad_users_are_counted(name):
    case = Case(1, copies=2)
    if name == "cov":
        case.cov, want = -case.cov, 2 * N_USERS
    else:
        case.weight[case.table.user_of == 1], want = np.nan, 1
    on = np.ones((1, case.table.n_users), bool)
    _, bad = batched.transfer_rows(*case.arguments(on), np.random.default_rng(0), "cpu", Layouts(1))
    assert bad == want


@DEVICES
def test_equal_seeds_give_equal_draws(device):
    """Another seed gives others, and chunks of another size the same up to rounding."""
    case = Case(2, copies=50)
    draws = []
    for seed, floats in ((0, 2**24), (0, 2**24), (0, 2**12), (1, 2**24)):
        rng, table, layouts = np.random.default_rng(seed), case.table, Layouts(floats)
        out = case.update(np.ones((2, table.n_users), bool), rng, device, layouts=layouts)
        prior = table.item_domain, np.zeros((3, R)), np.stack([np.eye(R)] * 3)
        ratings = table.item_ptr, table.item_user, table.item_value, case.weight, out["user_vector"]
        items, bad = batched.draw_rows(*ratings, *prior, rng, device, layouts)
        draws.append([out["user_vector"], out["source_vector"], out["phi_used"], out["on"], items])
        assert bad == 0
        assert {x.dtype for x in draws[-1]} == {np.dtype(float), np.dtype(bool)}
    one, again, chunked, other = draws
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert all(close(a, b, 1e-8) for a, b in zip(one, chunked, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_torch_and_the_arguments_are_left_as_they_were():
    case, rng = Case(2, copies=3, given=True), np.random.default_rng(0)
    arrays = [*case.given, case.table.user_value, case.weight, case.item, case.scale, case.maps, case.cov]
    before = [x.copy() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    settings = lambda: (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())  # noqa: E731
    state, was, on = torch.get_rng_state(), settings(), np.ones((2, case.table.n_users), bool)
    case.update(on, rng)
    assert torch.equal(torch.get_rng_state(), state)
    assert settings() == was
    assert on.all()
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


def test_layouts_are_made_once_for_each_pair_of_arrays():
    rows, layouts = long_rows(np.random.default_rng(0), SIZES), Layouts()
    first = layouts.of(rows[0], rows[1], R + 1, "cpu")
    assert layouts.of(rows[0], rows[1], R + 1, "cpu") is first
    for _ in range(20):  # copies die at once; an id that comes back must not find another's layout
        other = rows[1][::-1].copy()
        got = torch.cat([b.other.ravel() for c in layouts.of(rows[0], other, R + 1, "cpu") for b in c.buckets])
        assert got.sum() == (other + 1).sum()
    assert len(layouts.known) == 21


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.int64])
def test_an_index_of_another_kind_is_read_right(kind, monkeypatch):
    indptr, index, *rest = long_rows(np.random.default_rng(0), range(10))
    prior = np.zeros(10, int), np.zeros((1, R)), np.eye(R)[None], np.random.default_rng(0), "cpu"
    fix(monkeypatch, 0.0)
    want, _ = batched.draw_rows(indptr, index, *rest, *prior, Layouts())
    strided = np.repeat(index.astype(kind), 2)[::2]
    got, _ = batched.draw_rows(indptr.astype(kind), strided, *rest, *prior, Layouts())
    assert np.array_equal(got, want)
