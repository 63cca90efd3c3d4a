"""SVI: its closed forms against brute force, its draws against Gibbs, its manners."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import bayesrec as br
from bayesrec.distributions import LogCholesky
from bayesrec.errors import DataError, UnsupportedMethodError
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


@pytest.mark.parametrize("batch_size", [None, 500])
@pytest.mark.parametrize("model", [br.models.PMF(rank=1), br.models.CollectiveMF(rank=1), br.models.TransferMF(rank=1)])
def test_near_gibbs(model, batch_size):
    frame, _ = br.data.synthetic.cross_domain(n_users=120, n_items=(30, 25), n_ratings=(15, 10))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    train, test = br.split.holdout(data, fraction=0.2)
    y = test.value
    exact = br.fit(model, train, br.Gibbs(draws=150, warmup=100, chains=2), progress=False)
    method = br.SVI(steps=400, draws=100, batch_size=batch_size)
    close = br.fit(model, train, method, progress=False)
    again = br.fit(model, train, method, progress=False)
    assert all(np.array_equal(close.draws[k], again.draws[k]) for k in close.draws)
    error = [np.sqrt(np.mean((y - p.predict(test)["mean"].to_numpy()) ** 2)) for p in (exact, close)]
    bias = np.sqrt(np.mean((y - train.value[train.is_target].mean()) ** 2))
    assert error[1] < 1.05 * error[0] < bias
    assert close.log_score(test).mean() > exact.log_score(test).mean() - 0.06


def test_options():
    with pytest.raises(DataError, match="learning_rate"):
        br.SVI(learning_rate=0.0)
    with pytest.raises(DataError, match="steps"):
        br.SVI(steps=0)
    with pytest.raises(DataError, match="max_tree_depth"):
        br.NUTS(max_tree_depth=0)


@pytest.mark.filterwarnings("ignore:the factors explain nothing")  # after five steps it is true
@pytest.mark.parametrize("method", [br.SVI(steps=5, draws=5), br.NUTS(draws=2, warmup=2, chains=1, max_tree_depth=2)])
def test_saved_and_no_checkpoint(method, tmp_path):
    frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    posterior = br.fit(br.models.TransferMF(rank=1), data, method, progress=False)
    assert br.load(posterior.save(tmp_path / "model")).method == method
    assert np.isfinite(posterior.predict(frame)["mean"]).all()
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(UnsupportedMethodError, match="checkpoint"):
        br.fit(br.models.TransferMF(rank=1), data, method, progress=False, checkpoint=tmp_path / "c")
