"""SVI on a GPU: what can be known without one, and a fit where there is one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from test_batched import NO_GPU

import bayesrec as br
from bayesrec import sums
from bayesrec.data import synthetic
from bayesrec.inference.bound import bound_of
from bayesrec.models.base import Schema

GUIDES = ("rows", "structured", "mean_field", "amortised")
LIKELIHOODS = {
    "Gaussian": br.Gaussian(),
    "one noise": br.Gaussian(user_noise=False),
    "Ordinal": br.Ordinal(),
    "StudentT": br.StudentT(),
    "Bernoulli": br.Bernoulli(),
}
MODELS = {
    "PMF": br.models.PMF(rank=2),
    "CollectiveMF": br.models.CollectiveMF(rank=2),
    "TransferMF": br.models.TransferMF(rank=2),
    "horseshoe": br.models.TransferMF(rank=2, gate=False, transfers="factors", prior_family="horseshoe"),
    "pooling": br.models.TransferMF(rank=2, prior_family="commensurate_spike_slab"),
    "distribution": br.models.TransferMF(rank=2, link="distribution"),
    "power": br.models.TransferMF(rank=2, power=0.5),
    "features": br.models.TransferMF(rank=2, features=True),
}
# Neither an encoder, which reads the items' numbers, nor Poisson, whose nodes are looked for until they stand.
CASES = [
    *((model, "Gaussian", "rows", 0.3) for model in MODELS),
    *(("TransferMF", "Gaussian", guide, 1.0) for guide in GUIDES if guide != "amortised"),
    *(("TransferMF", likelihood, "rows", 0.3) for likelihood in LIKELIHOODS if likelihood != "Gaussian"),
]


def bound(name, likelihood, guide):
    """The ELBO of a small table, on the CPU."""
    model = replace(MODELS[name], likelihood=LIKELIHOODS[likelihood])
    frame, _ = synthetic.cross_domain(n_users=12, n_items=(10, 8), n_ratings=(6, 4), n_cold=2, seed=0)
    share = frame["value"].rank(pct=True)
    values = {"Bernoulli": 1.0 * (share > 0.5), "Ordinal": np.ceil(5 * share)}
    frame["value"] = values.get(likelihood, frame["value"])
    options = {"user_features": pd.DataFrame({"user": frame["user"].unique()}).assign(x=np.arange(12) % 5)}
    options = options if model.features else {}
    data = model.view(br.Interactions.from_frame(frame, target="target", value="value", **options))
    model = model.bound(data, data)
    schema = Schema.of(data, model.likelihood)
    return bound_of(model, schema, schema.table(data), np.random.default_rng(0), guide, sweeps=2)


def devices_of_a_step(found, share):
    """Where the ELBO and all gradients lie."""
    part = found.part(share, np.random.default_rng(1))
    with torch.device("meta"), pyro.validation_enabled(False):
        taken = found.guide.take(part.rows)
        elbo = found.elbo(part, taken)
        elbo.backward()
    learned = [*found.guide.parameters, *(x for many in taken.tensors.values() for x in many)]
    return {elbo.device.type, *(x.grad.device.type for x in learned if x.grad is not None)}


@pytest.mark.parametrize(("name", "likelihood", "guide", "share"), CASES)
def test_a_step_stays_on_its_device(name, likelihood, guide, share):
    """torch's device "meta" has shapes without numbers: like a GPU it takes no tensor of the CPU beside its own."""
    assert devices_of_a_step(bound(name, likelihood, guide).on("meta"), share) == {"meta"}


@pytest.mark.parametrize("fault", ["parts", "power", "leaves"])
def test_what_is_left_behind_is_noticed(fault):
    found = bound("power", "Gaussian", "rows")
    there = found.on("meta")
    if fault == "leaves":
        there.guide.leaves = found.guide.leaves
    else:
        setattr(there, fault, getattr(found, fault))
    with pytest.raises(RuntimeError, match="device"):
        devices_of_a_step(there, 0.3)


def test_sums_of_tensors_are_those_of_the_loops():
    rng = np.random.default_rng(0)
    indptr = np.array([0, 3, 3, 10])
    index, cell = rng.integers(4, size=10).astype(np.int32), rng.integers(2, size=10).astype(np.int32)
    rows = np.arange(3), indptr, index, cell, rng.normal(size=10)
    found = []
    for function in (sums.row_sums, sums.row_sums_of_tensors):
        raters = torch.tensor(np.random.default_rng(1).normal(size=(4, 3)), requires_grad=True)
        precision = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
        parts = function(raters, precision, *rows)
        sum((x * torch.arange(1.0, 1 + x.numel()).reshape(x.shape).cos()).sum() for x in parts).backward()
        found.append([*parts, raters.grad, precision.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@NO_GPU
@pytest.mark.parametrize("guide", GUIDES)
def test_a_fit_is_that_of_the_cpu(guide):
    frame, _ = synthetic.cross_domain(n_users=60, n_items=(20, 20), n_ratings=(12, 8), n_cold=10, seed=0)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    method = br.SVI(steps=200, batch_size=300, chains=1, guide=guide)
    one, other = (
        br.fit(br.models.TransferMF(rank=2), data, method, device=device, progress=False) for device in ("cpu", "cuda")
    )
    for column in ("mean", "sd"):
        x, y = (fit.predict(frame)[column] for fit in (one, other))
        assert np.sqrt(np.mean((x - y) ** 2)) < 0.05 * x.std()


def test_a_device_that_is_not_there_is_named():
    frame, _ = synthetic.cross_domain(n_users=12, n_items=(10, 8), n_ratings=(6, 4), seed=0)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    with pytest.raises(br.errors.UnsupportedMethodError, match="cuda:99"):
        br.fit(br.models.PMF(rank=1), data, br.SVI(steps=10), device="cuda:99", progress=False)
