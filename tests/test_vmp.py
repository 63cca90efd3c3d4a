"""VMP: its bound against Monte Carlo, its fixed points against brute force, its draws against Gibbs, its manners."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

import bayesrec as br
from bayesrec.errors import ConvergenceWarning, DataError, UnsupportedMethodError
from bayesrec.inference import vmp_sides
from bayesrec.inference.start import warm_start
from bayesrec.inference.vmp_noise import Noise
from bayesrec.inference.vmp_rows import accumulate, expected_errors, gram_of, moments_of, room
from bayesrec.inference.vmp_scales import Covariance, Scale
from bayesrec.inference.vmp_single import SingleFit
from bayesrec.inference.vmp_transfer import TransferFit
from bayesrec.likelihoods.noise import BOUND
from bayesrec.models.base import Batch, Schema
from bayesrec.posterior.arviz import log_prior

MODELS = [
    br.models.PMF(rank=2),
    br.models.CollectiveMF(rank=1, likelihood=br.Gaussian(user_noise=False)),
    br.models.TransferMF(rank=2),
    br.models.TransferMF(rank=2, prior_family="ard", transfers="factors", gate=False),
    br.models.TransferMF(rank=1, power=0.5),
]
IDS = ["PMF", "CollectiveMF", "TransferMF", "TransferMF-ard", "TransferMF-power"]


def interactions(n_users=40, n_cold=5, seed=0, **more):
    frame, _ = br.data.synthetic.cross_domain(
        n_users=n_users, n_items=(15, 12), n_ratings=(8, 5), rank=2, n_cold=n_cold, seed=seed, **more
    )
    return br.Interactions.from_frame(frame, target="target", value="value")


def fit_of(model, data, passes=0, seed=0, start=3):
    view = model.view(data)
    schema = Schema.of(view)
    table = schema.table(view)
    table = br.inference.vmp.replace(table, weight=model.exponents(schema.n_domains))
    state, _ = warm_start(model, table, np.random.default_rng(seed), start)
    kind = TransferFit if isinstance(model, br.models.TransferMF) else SingleFit
    fit = kind(model, table, state)
    for _ in range(passes):
        fit.advance()
    return fit, view, schema


# --- sums and factors ----------------------------------------------------------------------------------------------


def test_sums_and_errors_are_expectations():
    """Precision, linear term and expected squared error by explicit moments of one side, seven ratings, two rows."""
    rng = np.random.default_rng(0)
    size, indptr, index = 3, np.array([0, 2, 7]), np.array([0, 3, 1, 2, 3, 0, 1], dtype=np.int32)
    y, w = rng.normal(size=7), rng.uniform(0.5, 2, 7)

    def normals(n):
        root = 0.4 * rng.normal(size=(n, size, size))
        return rng.normal(size=(n, size)), root @ root.swapaxes(1, 2)

    (mean, cov), (own_mean, own_cov) = normals(4), normals(2)
    moments, own = np.zeros((4, room(size)[0])), np.zeros((2, room(size)[0]))
    moments_of(mean, cov, moments)
    moments_of(own_mean, own_cov, own)
    sums = np.empty((2, room(size)[1]))
    accumulate(indptr, index, y, w, moments, size, sums, 0, 2)
    precision, linear, errors = np.empty((2, size, size)), np.empty((2, size)), np.empty(2)
    gram_of(sums, size, precision, linear)
    expected_errors(sums, 1, own, size, errors, 0, 2)
    for r in range(2):
        a, b, e = np.zeros((size, size)), np.zeros(size), 0.0
        for t in range(indptr[r], indptr[r + 1]):
            m, s = mean[index[t]], cov[index[t]]
            v, spread, tie = np.r_[1.0, m[1:]], np.zeros((size, size)), np.r_[0.0, s[0, 1:]]
            spread[1:, 1:] = s[1:, 1:]
            a += w[t] * (np.outer(v, v) + spread)
            b += w[t] * (v * (y[t] - m[0]) - tie)
            u, c = own_mean[r], own_cov[r]
            along = np.r_[1.0, u[1:]]
            variance = v @ c @ v + along @ s @ along + (c[1:, 1:] * s[1:, 1:]).sum()
            e += w[t] * ((y[t] - m[0] - v @ u) ** 2 + variance)
        assert precision[r] == pytest.approx(a)
        assert linear[r] == pytest.approx(b)
        assert errors[r] == pytest.approx(e)


@pytest.mark.parametrize(
    ("scale", "squares", "n", "loss"), [(0.5, 3.0, 5, 0.2), (1.0, 10.0, 20, 0.2), (0.3, 0.01, 1, 0.8)]
)
def test_a_scale_bounds_its_evidence(scale, squares, n, loss):
    """The bound is the evidence minus what two independent factors lose: never above it, and less with more data."""

    def density(s):
        return 2 * stats.t.pdf(s / scale, 3) / scale * np.exp(-0.5 * squares / s**2) * s**-n * (2 * np.pi) ** (-n / 2)

    exact = np.log(quad(density, 0, np.inf, limit=500)[0])
    factor = Scale(np.array(scale), np.array(1.0))
    for _ in range(20):
        factor.update(squares, n)
    bound = factor.bound() + 0.5 * (n * (factor.log_precision - np.log(2 * np.pi)) - squares * factor.precision)
    assert exact - loss < bound <= exact


def test_a_covariance_of_one_is_a_scale():
    """Huang and Wand in one dimension is a half-t with two degrees of freedom."""
    one, other = Covariance(np.array([0.7]), np.eye(1)), Scale(np.array(0.7), np.array(1.0), dof=2.0)
    for _ in range(5):
        one.update(np.array([[4.0]]), 9)
        other.update(4.0, 9)
    assert one.bound() == pytest.approx(other.bound())
    assert (one.precision[0, 0], one.log_det) == pytest.approx((float(other.precision), float(other.log_precision)))
    draws = np.array([one.draw(np.random.default_rng(k))[0, 0] for k in range(2000)])
    assert np.mean(1 / draws) == pytest.approx(
        one.precision[0, 0], rel=0.1
    )  # 5 standard errors: sd of 1/x is .45 of it


def test_a_covariance_bounds_its_evidence():
    """Two dimensions, the evidence by importance sampling from the factor with the prior as Pyro has it."""
    from bayesrec.distributions import HuangWand

    scatter, n, scale = np.array([[4.0, 1.0], [1.0, 3.0]]), 8, np.array([0.5, 0.8])
    factor = Covariance(scale, np.eye(2))
    for _ in range(20):
        factor.update(scatter, n)
    law = stats.invwishart(factor.own_dof, factor.scatter)
    draws = law.rvs(4000, random_state=0)
    inverse = np.linalg.inv(draws)
    log_det = np.linalg.slogdet(draws)[1]
    target = HuangWand(torch.tensor(scale)).log_prob(torch.tensor(draws)).numpy()
    target += -0.5 * n * log_det - 0.5 * (inverse * scatter).sum((1, 2)) - n * np.log(2 * np.pi)
    log_ratio = target - np.array([law.logpdf(x) for x in draws])
    exact = np.log(np.mean(np.exp(log_ratio - log_ratio.max()))) + log_ratio.max()
    bound = factor.bound() + 0.5 * (n * (factor.log_det - 2 * np.log(2 * np.pi)) - (factor.precision * scatter).sum())
    assert exact - 0.3 < bound < exact + 4 * log_ratio.std() / np.sqrt(len(draws))


def test_noise_factor_is_the_density_on_a_grid():
    """One user in one domain: the factor of x is exact there, so are its moments and the bound's parts."""
    frame = pd.DataFrame({"user": [0] * 6, "item": range(6), "value": [1.0, 2, 3, 4, 5, 3]})
    data = br.Interactions.from_frame(frame, target="all", domain=None, value="value")
    table = Schema.of(data).table(data)
    state = {
        "noise": np.array([0.8]), "level_within": 0.3, "level_between": 0.6,
        "user_log_precision": np.zeros((1, 1)),
    }  # fmt: skip
    noise = Noise(table, state, True)
    base = float(noise.base.precision[0])
    noise.update(np.array([[9.0]]))
    x = np.linspace(-8, 8, 200001)
    bent = BOUND * np.tanh(x / BOUND)
    log = 0.5 * (6 * bent - 9.0 * base * np.exp(bent)) + stats.norm.logpdf(x, 0, np.hypot(0.3, 0.6))
    p = np.exp(log - log.max())
    p /= p.sum()
    step = x[1] - x[0]
    assert noise.mean[0, 0] == pytest.approx((p * x).sum(), abs=1e-6)
    assert noise.var[0, 0] == pytest.approx((p * x**2).sum() - (p * x).sum() ** 2, rel=1e-5)
    assert noise.factor[0, 0] == pytest.approx((p * np.exp(bent)).sum(), rel=1e-6)
    assert noise.entropy[0, 0] == pytest.approx(-(p * np.log(p / step + 1e-300)).sum(), abs=1e-5)
    assert noise.level == pytest.approx(  # E[level^2]
        (0.36 / 0.45) ** 2 * (p * x**2).sum() + 0.36 * 0.09 / 0.45, rel=1e-5
    )


# --- the bound -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_passes_never_lower_the_bound(model):
    fit, _, _ = fit_of(model, interactions())
    trace = []
    for _ in range(25):
        fit.advance()
        trace.append(fit.elbo)
    assert np.diff(trace).min() > -1e-6 * abs(trace[-1])
    assert trace[-1] > trace[0] + 1


def test_forgotten_covariances_are_caught(monkeypatch):
    """Planted fault: users meet the items' means as if they were known."""
    true = vmp_sides.accumulate

    def faulty(indptr, index, value, weight, moments, size, *rest):
        if len(weight) == 0:  # the sums of users
            mean, points = moments[:, 1 : size + 1].copy(), np.zeros_like(moments)
            moments_of(mean, np.zeros((len(mean), size, size)), points)
            moments = points
        true(indptr, index, value, weight, moments, size, *rest)

    monkeypatch.setattr(vmp_sides, "accumulate", faulty)
    fit, _, _ = fit_of(MODELS[0], interactions())
    trace = []
    for _ in range(25):
        fit.advance()
        trace.append(fit.elbo)
    assert np.diff(trace).min() < -1e-3


def estimate(fit, model, view, schema, n, seed=3):
    """Mean and standard error of log p(everything) - log q(users, items) over draws of the whole approximation, in parts.

    Hyperparameters enter with their own bounds; users, items and ratings with densities as Pyro has them.
    """
    rng = np.random.default_rng(seed)
    batch = Batch(*(torch.from_numpy(np.array(x)) for x in (view.user, view.item, view.domain)))
    value = torch.from_numpy(schema.standardise(view.value, view.domain))
    users, items = np.flatnonzero(fit.users.active), np.flatnonzero(fit.rated)
    own = {"user_vector": fit.users.normals(users), "item_vector": fit.items.normals(items)}
    out = []
    for _ in range(n):
        state = fit.draw(rng)
        state |= {"item_vector": fit.draw_items(state, rng)}
        latents = {name: torch.as_tensor(np.asarray(x)).double() for name, x in state.items()}
        law = model.likelihood.distribution(model.score(latents, batch), latents, batch)
        prior = log_prior(model, schema, latents)
        total = float(law.log_prob(value).sum()) + float(prior["user_vector"].sum() + prior["item_vector"].sum())
        for name, rows in (("user_vector", users), ("item_vector", items)):
            mean, cov = own[name]
            off = state[name][rows] - mean
            total += 0.5 * (np.linalg.slogdet(cov)[1] + np.einsum("ri,rij,rj->r", off, np.linalg.inv(cov), off)).sum()
            total += 0.5 * off.size * np.log(2 * np.pi)
        out.append(total)
    return np.mean(out), np.std(out) / np.sqrt(n)


@pytest.mark.parametrize("k", [0, 1])
def test_bound_against_monte_carlo(k):
    """Every user rates everything, so there are no leaves. Four standard errors of 400 draws: fails once in 10,000."""
    model = MODELS[k]
    rng = np.random.default_rng(5)
    cells = [(u, i, d) for d, n in (("source", 4), ("target", 3)) for u in range(6) for i in range(n)]
    frame = pd.DataFrame(cells, columns=["user", "item", "domain"]).assign(rating=rng.normal(size=len(cells)))
    fit, view, schema = fit_of(model, br.Interactions.from_frame(frame, target="target"), passes=4)
    fit.items.moments, items = fit.items.moments.copy(), fit.items.moments
    fit.users.gather(fit.table.user_item, fit.table.user_value, fit.whole, items)  # errors of the items as they are now
    fit.noise.squares = fit.table.powered(fit._errors())
    hyper = 0.0
    for d, scale in enumerate(fit.populations.scales):
        hyper += scale.bound() + vmp_sides.normal_bound(
            fit.populations.mean[d], np.diag(fit.populations.var[d]), fit.populations.prior_precision
        )
    users = fit.population
    hyper += users.spread.bound() + vmp_sides.normal_bound(users.mean, users.cov, users.prior_precision)
    hyper += fit.noise.bound() - fit.noise.expected_density()
    bound = fit._bound() - hyper
    mean, error = estimate(fit, model, view, schema, 400)
    assert abs(mean - bound) < 4 * error
    assert error < 0.5


# --- fixed points --------------------------------------------------------------------------------------------------


def test_fixed_point_against_coordinate_ascent():
    """One user, one item, known hyperparameters: plain coordinate ascent in NumPy ends at the same two normals."""
    y, w, size = 1.3, 2.0, 2
    tables = SimpleNamespace(
        mean=np.array([0.1, 0.4]), item=np.array([4.0, 2.0]), user=np.array([[3.0, 0.5], [0.5, 1.5]])
    )
    start = np.array([[0.2, 0.7]])
    one = np.array([True])
    rows = [vmp_sides.Rows(np.array([0, 1]), 1, one, start, vmp_sides.Workers()) for _ in range(2)]
    index, value, group = np.zeros(1, dtype=np.int32), np.array([y]), np.zeros(1, dtype=np.int64)
    priors = [(np.diag(tables.item)[None], (tables.item * tables.mean)[None]), (tables.user[None], np.zeros((1, size)))]
    m, s = [start[0].copy(), start[0].copy()], [np.zeros((size, size)), np.zeros((size, size))]
    for _ in range(200):
        for a, b in ((1, 0), (0, 1)):
            rows[a].gather(index, value, np.empty(0), rows[b].moments)
            rows[a].solve(np.full((1, 1), w), *priors[a], group)
            v, tie, spread = np.r_[1.0, m[b][1:]], np.r_[0.0, s[b][0, 1:]], np.zeros((size, size))
            spread[1:, 1:] = s[b][1:, 1:]
            s[a] = np.linalg.inv(priors[a][0][0] + w * (np.outer(v, v) + spread))
            m[a] = s[a] @ (priors[a][1][0] + w * (v * (y - m[b][0]) - tie))
    for a in range(2):
        mean, cov = rows[a].normals(np.array([0]))
        assert mean[0] == pytest.approx(m[a], abs=1e-10)
        assert cov[0] == pytest.approx(s[a], abs=1e-10)


def test_gates_are_weighed_as_by_enumeration():
    """One source: probability of an open gate and mean of theta from the two joint normals, by NumPy, for every user."""
    model = br.models.TransferMF(rank=1)
    fit, _, _ = fit_of(model, interactions(), passes=3)
    fit.users.gather(fit.table.user_item, fit.table.user_value, fit.whole, fit.items.moments)
    weight, (prior, log_prior_), log_gate = fit.noise.weight(), fit.source_precision(), fit.log_gates()[0]
    cross, gram = fit.maps.natural()
    target = fit.maps.spread.precision.copy()
    fit._users()
    size, n = 2, fit.table.n_users
    precision, linear = np.empty((2 * n, size, size)), np.empty((2 * n, size))
    gram_of(fit.users.sums, size, precision, linear)
    checked = 0
    for u in np.flatnonzero(fit.both[:, 0]):
        a_s, l_s = weight[0, u] * precision[2 * u], weight[0, u] * linear[2 * u]
        a_t, l_t = weight[1, u] * precision[2 * u + 1], weight[1, u] * linear[2 * u + 1]
        log, means = [], []
        for on in (1, 0):
            joint = np.block([[gram[1:, 1:] + np.diag(prior[0]) + on * a_s, -cross[1:]], [-cross[1:].T, target + a_t]])
            right = np.r_[-gram[0, 1:] + on * l_s, cross[0] + l_t]
            mean = np.linalg.solve(joint, right)
            evidence = 0.5 * (right @ mean - np.linalg.slogdet(joint)[1]) + log_gate[on]
            if not on:
                own = np.diag(prior[0]) + a_s
                evidence += 0.5 * (log_prior_[0].sum() + l_s @ np.linalg.solve(own, l_s) - np.linalg.slogdet(own)[1])
            log.append(evidence)
            means.append(mean[size:])
        share = np.exp(np.array(log) - np.logaddexp(*log))
        assert fit.chance[:, u] == pytest.approx(share, abs=1e-9)
        assert fit.moments[n + u, 1 : size + 1] == pytest.approx(share @ np.array(means), abs=1e-9)
        checked += 1
    assert checked > 20


# --- against Gibbs -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:R-hat exceeds")  # chains end in different modes
@pytest.mark.parametrize(
    "model",
    [MODELS[0], *(pytest.param(m, marks=pytest.mark.slow) for m in (br.models.CollectiveMF(rank=1), MODELS[2]))],
)
def test_near_gibbs(model):
    frame, _ = br.data.synthetic.cross_domain(n_users=120, n_items=(30, 25), n_ratings=(15, 10))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    train, test = br.split.holdout(data, fraction=0.2)
    y = test.value
    exact = br.fit(model, train, br.Gibbs(draws=150, warmup=100, chains=2), progress=False)
    close = br.fit(model, train, br.VMP(draws=100, chains=2), progress=False, watch=test)
    error = [np.sqrt(np.mean((y - p.predict(test)["mean"].to_numpy()) ** 2)) for p in (exact, close)]
    bias = np.sqrt(np.mean((y - train.value[train.is_target].mean()) ** 2))
    assert error[1] < 1.05 * error[0] < bias
    assert close.log_score(test).mean() > exact.log_score(test).mean() - 0.06
    assert np.allclose(close.watched["log_score"], close.log_score(test), atol=1e-3)
    assert (close.stats["elbo"] < close.stats["log_density"]).all()
    assert "khat" in close.diagnostics().index


def test_pareto_shapes_see_a_factor_that_is_too_narrow():
    """A tenth of its sd. Over five seeds the means are .33 to .46 and .79 to .95: .6 is six sds from either."""
    from bayesrec.inference.vmp_honesty import item_shapes

    model = MODELS[0]
    fit, _, _ = fit_of(model, interactions(n_users=60), passes=40, start=20)
    rng, shapes = np.random.default_rng(0), {}
    for label in ("own", "narrow"):
        if label == "narrow":
            mean, cov = fit.items.normals(np.arange(fit.table.n_items))
            moments_of(mean.copy(), 0.01 * cov, fit.items.moments)
            fit.items._root = None
        draws = []
        for _ in range(200):
            state = fit.draw(rng)
            draws.append(state | {"item_vector": fit.draw_items(state, rng)})
        arrays = {name: np.stack([np.asarray(d[name], dtype=np.float32) for d in draws]) for name in model.dims}
        shapes[label] = np.mean(item_shapes(model, fit.table, arrays, fit.items, 12, rng))
    assert shapes["own"] < 0.6 < shapes["narrow"]


# --- manners -------------------------------------------------------------------------------------------------------

SHORT = br.VMP(passes=6, draws=20, chains=2)
QUIET = pytest.mark.filterwarnings("ignore:the ELBO still rose", "ignore:the factors explain nothing")


@QUIET
@pytest.mark.parametrize("model", [MODELS[0], MODELS[2]], ids=["PMF", "TransferMF"])
def test_equal_seeds_give_equal_draws_whatever_the_threads(model):
    data = interactions()
    one, two, other = (
        br.fit(model, data, br.VMP(passes=6, draws=20, chains=1, threads=threads), seed=seed, progress=False).draws
        for seed, threads in ((0, 1), (0, 3), (1, 1))
    )
    for name in model.dims:
        assert np.array_equal(one[name], two[name]), name
        assert not np.array_equal(one[name], other[name]), name


@QUIET
def test_saved_and_refused(tmp_path):
    data, model = interactions(), MODELS[2]
    posterior = br.fit(model, data, SHORT, progress=False)
    again = br.load(posterior.save(tmp_path / "model"))
    assert again.method == SHORT
    assert np.array_equal(again.stats["elbo"], posterior.stats["elbo"])
    assert "khat" not in posterior.stats  # of twenty draws
    for other in (
        br.models.TransferMF(rank=1, prior_family="commensurate"),
        br.models.TransferMF(rank=1, prior_family="horseshoe"),
        br.models.PMF(rank=1, likelihood=br.StudentT()),
        type("Mine", (br.models.PMF,), {"__module__": "mine"})(rank=1),
    ):
        with pytest.raises(UnsupportedMethodError, match="Gibbs"):
            br.fit(other, data, SHORT, progress=False)


def test_passes_that_do_not_suffice_are_reported():
    with pytest.warns(ConvergenceWarning, match=r"still rose.*in 1 of 1 chains"):
        br.fit(MODELS[0], interactions(), br.VMP(passes=6, draws=5, chains=1), progress=False)
    with pytest.raises(DataError, match="tolerance"):
        br.VMP(tolerance=0.0)
    with pytest.raises(DataError, match="passes"):
        br.VMP(passes=1)


@QUIET
def test_ctrl_c_keeps_the_fit(monkeypatch):
    passes, true = iter(range(100)), SingleFit.advance

    def interrupted(self):
        if next(passes) == 8:
            raise KeyboardInterrupt
        true(self)

    monkeypatch.setattr(SingleFit, "advance", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted: kept 2 of 3 chains"):
        posterior = br.fit(MODELS[0], interactions(), br.VMP(passes=6, draws=5, chains=3), progress=False)
    assert (posterior.n_chains, posterior.n_draws) == (2, 5)
