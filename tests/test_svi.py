"""SVI: its closed forms against brute force, its draws against Gibbs, its manners."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from test_svi_parts import triangle

import bayesrec as br
from bayesrec.distributions import LogCholesky
from bayesrec.errors import ConvergenceWarning, DataError, UnsupportedMethodError
from bayesrec.inference.asleep import warn_if_asleep
from bayesrec.inference.bound import Bound, ItemsOut
from bayesrec.inference.guide import Prior
from bayesrec.inference.nuts import _double
from bayesrec.models.base import Batch, Schema
from bayesrec.posterior.arviz import log_prior
from bayesrec.sums import log_evidence, row_sums


def rows(seed=0):
    rng = np.random.default_rng(seed)
    indptr, index, cell = np.array([0, 3, 3, 7]), np.array([0, 2, 1, 3, 0, 1, 2]), np.array([0, 1, 1, 0, 0, 1, 0])
    raters, precision = rng.standard_normal((4, 3)), rng.uniform(0.5, 2.0, 2)
    return torch.tensor(raters), torch.tensor(precision), np.arange(3), indptr, index, cell, rng.standard_normal(7)


def test_evidence_is_the_density_with_the_item_integrated_out():
    raters, precision, items, indptr, index, cell, value = rows()
    mean, sd = torch.tensor([0.2, -0.4, 0.1]).double(), torch.tensor([0.7, 0.5, 1.1]).double()
    gram, linear, square = row_sums(raters, precision, items, indptr, index, cell, value)
    got = log_evidence(mean.expand(3, 3), sd.expand(3, 3), gram, linear) - 0.5 * square
    for k in range(3):
        part = slice(indptr[k], indptr[k + 1])
        if part.start == part.stop:
            assert got[k] == 0
            continue
        v = raters.numpy()[index[part]].copy()
        bias, w = v[:, 0].copy(), precision.numpy()[cell[part]]
        v[:, 0] = 1.0
        cov = v @ np.diag(sd.numpy() ** 2) @ v.T + np.diag(1 / w)
        expected = multivariate_normal(bias + v @ mean.numpy(), cov).logpdf(value[part])
        assert float(got[k]) + 0.5 * np.log(w / (2 * np.pi)).sum() == pytest.approx(expected)


def test_gradients_of_the_sums():
    raters, precision, *arrays = rows(1)
    inputs = (raters.requires_grad_(), precision.requires_grad_())
    assert torch.autograd.gradcheck(lambda r, w: row_sums(r, w, *arrays), inputs)


def test_log_cholesky_jacobian():
    transform, x = LogCholesky(4), torch.randn(10, dtype=torch.float64)
    row, col = torch.tril_indices(4, 4)
    jacobian = torch.autograd.functional.jacobian(lambda x: transform(x)[row, col], x)
    y = transform(x)
    assert torch.allclose(transform.inv(y), x)
    assert torch.allclose(torch.linalg.slogdet(jacobian)[1], transform.log_abs_det_jacobian(x, y))


NEAR = [
    (model(rank=1), size)
    for model in (br.models.TransferMF, br.models.PMF, br.models.CollectiveMF)
    for size in (None, 500)
]


@pytest.mark.parametrize(
    ("model", "batch_size"), [*NEAR[:3], *(pytest.param(*x, marks=pytest.mark.slow) for x in NEAR[3:])]
)
def test_near_gibbs(model, batch_size):
    frame, _ = br.data.synthetic.cross_domain(n_users=120, n_items=(30, 25), n_ratings=(15, 10))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    train, test = br.split.holdout(data, fraction=0.2)
    y = test.value
    exact = br.fit(model, train, br.Gibbs(draws=100, warmup=60, chains=2), progress=False)
    method = br.SVI(steps=200, draws=100, batch_size=batch_size, chains=1)
    close = br.fit(model, train, method, progress=False)
    error = [np.sqrt(np.mean((y - p.predict(test)["mean"].to_numpy()) ** 2)) for p in (exact, close)]
    bias = np.sqrt(np.mean((y - train.value[train.is_target].mean()) ** 2))
    assert error[1] < 1.05 * error[0] < bias
    assert close.log_score(test).mean() > exact.log_score(test).mean() - 0.06


def whole():
    """Every user rates every item, so there are no leaves."""
    rng = np.random.default_rng(5)
    cells = [(u, i, d) for d, n in (("source", 4), ("target", 3)) for u in range(6) for i in range(n)]
    frame = pd.DataFrame(cells, columns=["user", "item", "domain"]).assign(rating=rng.normal(size=len(cells)))
    return br.Interactions.from_frame(frame, target="target")


def bound_of(model):
    data = model.view(whole())
    schema = Schema.of(data)
    bound = ItemsOut(model, schema, schema.table(data), np.random.default_rng(0))
    shake(bound.guide)
    return bound, data, schema


def shake(guide):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for x in [*guide.parameters, *(x for members in guide.members.values() for x in members.tables)]:
            x += 0.2 * torch.randn(x.shape, generator=generator)


MODELS = [br.models.PMF(rank=2), br.models.CollectiveMF(rank=1), br.models.TransferMF(rank=2)]


def joint_and_items_removed(bound, data, schema, latents):
    """log p(everything) - log p(items | the rest): what is left when the items are integrated out."""
    model, table = bound.model, bound.table
    state = {name: x.detach().numpy() for name, x in latents.items()}
    state |= bound.blocks["items"].update(state, np.random.default_rng(2))
    latents = {name: torch.as_tensor(np.asarray(x)).double() for name, x in state.items()}
    batch = Batch(*(torch.from_numpy(np.array(x)) for x in (data.user, data.item, data.domain)))
    value = torch.from_numpy(schema.standardise(data.value, data.domain))
    ratings = model.likelihood.distribution(model.score(latents, batch), latents, batch)
    total = float(sum(log_prior(model, schema, latents).values()) + ratings.log_prob(value).sum())
    left, _ = model.vectors(latents, batch)
    for i in range(data.n_items):
        mine = data.item == i
        v = left[mine].numpy().copy()
        bias, w = v[:, 0].copy(), 1.0 / ratings.scale[mine].numpy() ** 2
        v[:, 0] = 1.0
        d = table.item_domain[i]
        precision = np.diag(state["item_scale"][d] ** -2.0) + (v.T * w) @ v
        linear = state["item_scale"][d] ** -2.0 * state["item_mean"][d] + (v.T * w) @ (value.numpy()[mine] - bias)
        cov = np.linalg.inv(precision)
        total -= multivariate_normal(cov @ linear, cov).logpdf(state["item_vector"][i])
    return total


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("fault", [None, "evidence twice", "prior left out"])
def test_elbo_climbs_the_joint_density_with_the_items_integrated_out(model, fault):
    with _double():
        bound, data, schema = bound_of(model)
        torch.manual_seed(0)
        with torch.no_grad():
            latents, _ = bound.guide.sample(bound.guide.take())
        prior = 0.0 if fault == "prior left out" else Prior(latents, bound.guide.leaves).run(model, schema).log_density
        evidence = bound.ratings(latents, bound.parts.whole()).detach()
        got = float(torch.as_tensor(prior).detach() + (2 if fault == "evidence twice" else 1) * evidence)
        expected = joint_and_items_removed(bound, data, schema, latents)
    assert (abs(got - expected) < 1e-3 * abs(expected)) == (fault is None)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_volume_is_entropy_and_jacobian(model):
    with _double():
        bound, _, _ = bound_of(model)
        guide = bound.guide
        torch.manual_seed(0)
        latents, volume = guide.sample(guide.take())
        normals = [torch.distributions.Normal(guide.loc[k], guide.log_sd[k].exp()).entropy().sum() for k in guide.alone]
        users = guide.members["user"]
        loc, log_sd, below = users.tables
        tril = log_sd.exp().unsqueeze(-1) * triangle(users, below)
        entropy = torch.distributions.MultivariateNormal(loc, scale_tril=tril).entropy().sum()
        jacobian = sum(t.log_abs_det_jacobian(t.inv(latents[k]), latents[k]).sum() for k, t in guide.transforms.items())
        assert volume.item() == pytest.approx((sum(normals) + entropy + jacobian).item())


@pytest.mark.filterwarnings("ignore:the factors explain nothing")  # after thirty steps it may be true
def test_ctrl_c_keeps_the_fit(monkeypatch):
    steps, elbo = iter(range(100)), Bound.elbo

    def interrupted(self, *part):
        if next(steps) == 30:
            raise KeyboardInterrupt
        return elbo(self, *part)

    monkeypatch.setattr(Bound, "elbo", interrupted)
    frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(15, 12), n_ratings=(8, 5))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    with pytest.warns(ConvergenceWarning, match="interrupted: kept 1 of 2 chains, the last after 30 of 50 steps"):
        posterior = br.fit(br.models.PMF(rank=1), data, br.SVI(steps=50, chains=2, draws=10), progress=False)
    assert (posterior.n_chains, posterior.n_draws) == (1, 10)


def test_factors_asleep_are_reported():
    frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(30, 25), n_ratings=(15, 10))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    posterior = br.fit(br.models.PMF(rank=2), data, br.Gibbs(draws=3, warmup=30, chains=1), progress=False)
    warn_if_asleep(posterior)
    draws = {k: x * np.r_[1, 0, 0] if k == "user_vector" else x for k, x in posterior.draws.items()}
    with pytest.warns(ConvergenceWarning, match="in 1 of 1 fits.*collapsed to the bias model"):
        warn_if_asleep(replace(posterior, draws=draws))
    both = {k: np.concatenate([posterior.draws[k], draws[k]]) for k in draws}  # the second chain sleeps
    with pytest.warns(ConvergenceWarning, match="in 1 of 2 fits"):
        warn_if_asleep(replace(posterior, draws=both))


def test_options():
    with pytest.raises(DataError, match="learning_rate"):
        br.SVI(learning_rate=0.0)
    with pytest.raises(DataError, match="steps"):
        br.SVI(steps=0)
    with pytest.raises(DataError, match=r"guide.*'mean_field', 'amortised', not 'amortized'"):
        br.SVI(guide="amortized")
    with pytest.raises(DataError, match="max_tree_depth"):
        br.NUTS(max_tree_depth=0)


@pytest.mark.filterwarnings("ignore:the factors explain nothing")  # after twenty steps it may be true
def test_equal_seeds_give_equal_draws():
    frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(15, 12), n_ratings=(8, 5))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    method = br.SVI(steps=20, draws=5, batch_size=100)
    one, two, other = (
        br.fit(br.models.PMF(rank=1), data, method, seed=seed, progress=False).draws["user_vector"]
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.filterwarnings("ignore:the factors explain nothing")  # after five steps it is true
@pytest.mark.parametrize("method", [br.SVI(steps=5, draws=5), br.NUTS(draws=2, warmup=2, chains=1, max_tree_depth=2)])
def test_saved(method, tmp_path):
    frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    posterior = br.fit(br.models.TransferMF(rank=1), data, method, progress=False)
    assert br.load(posterior.save(tmp_path / "model")).method == method
    assert np.isfinite(posterior.predict(frame)["mean"]).all()
    assert torch.get_default_dtype() == torch.float32
    if isinstance(method, br.NUTS):
        with pytest.raises(UnsupportedMethodError, match="checkpoint"):
            br.fit(br.models.TransferMF(rank=1), data, method, progress=False, checkpoint=tmp_path / "c")
