"""Joint-distribution tests (Geweke 2004) of the Gibbs blocks of models with features; see test_geweke.py for the method.

Latents come from ``model.prior``, ratings from NumPy; one exact update leaves their joint distribution alone. What the maps say
of items and users is written here anew. ``calm`` has a false-alarm rate of 1e-4 a test.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pyro
import pytest
import torch
from test_conjugate import by, calm, twist
from test_geweke import (
    N_ITEMS,
    N_USERS,
    PLAIN,
    RANK,
    World,
    augment,
    bounded,
    design,
    eta,
    moments,
    noise_sd,
    whole_maps,
)

import bayesrec as br
from bayesrec.models import features as side
from bayesrec.models.base import Schema

N = 2000
MODELS = {
    "PMF": (br.models.PMF(rank=RANK, features=True, likelihood=PLAIN), 0),
    "CollectiveMF": (br.models.CollectiveMF(rank=RANK, features=True, likelihood=PLAIN), 1),
    "TransferMF": (br.models.TransferMF(rank=RANK, features=True, likelihood=PLAIN), 1),
    "TransferMF commensurate": (
        br.models.TransferMF(rank=RANK, features=True, likelihood=PLAIN, prior_family="commensurate", gate=False), 2,
    ),
}  # fmt: skip


def described(n_sources):
    """The table of test_geweke with two features of users and three of items, neither centred nor apart."""
    table, rng = design(n_sources + 1), np.random.default_rng(5)
    user_x, item_x = 0.5 + rng.standard_normal((N_USERS, 2)), rng.standard_normal((table.n_items, 3))
    item_x[:, 2] = item_x[:, 0] + 1.0
    return replace(table, user_x=user_x, item_x=item_x)


@lru_cache(maxsize=2)
def world(name):
    model, n_sources = MODELS[name]
    table, rng, n_domains = described(n_sources), np.random.default_rng(0), n_sources + 1
    schema = Schema(
        N_USERS, n_domains * N_ITEMS, tuple("abc"[:n_domains]), torch.from_numpy(table.item_domain), np.zeros(n_domains),
        np.ones(n_domains), user_x=table.user_x, item_x=table.item_x,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), pyro.poutine.block(), pyro.plate("replication", N, dim=-1):
        torch.manual_seed(0)
        x = {site: value.double().numpy() for site, value in model.prior(schema).items()}
    if "source_vector" in x:
        own = x["user_vector"] - table.user_x @ x["user_map"]
        x |= {name: part for name, part in augment(x | {"user_vector": own}, model, rng).items() if name not in x}
    value = eta(table, x) + noise_sd(table, x) * rng.standard_normal((N, len(table.user_of)))
    return World(model, table, x, value)


def statistics(w, x):
    """Test functions (n,): pivots of items, users, maps and residuals; logarithms of scales."""
    table, out = w.table, {}
    active, theta = table.count.sum(0) > 0, x["user_vector"]
    if "source_vector" in x:
        active = table.count[-1] > 0
        theta = theta - np.einsum("nkij,nkuj->nui", whole_maps(w.model, x), x["phi_used"])
    theta = theta - x["user_mean"][:, None] - np.einsum("uf,nfr->nur", table.user_x, x["user_map"])
    z = np.linalg.solve(np.linalg.cholesky(x["user_cov"])[:, None], theta[..., None])[..., 0]
    moments(out, "user", z, active)
    shift = np.stack([table.item_x[i] @ x["item_map"][:, d] for i, d in enumerate(table.item_domain)], axis=1)
    item = x["item_vector"] - x["item_mean"][:, table.item_domain] - shift
    item = item / x["item_scale"][:, table.item_domain]
    moments(out, "item", item, table.rated)
    for name, rows, feature in (("item", item, table.item_x), ("user", z, table.user_x)):
        here = table.rated if name == "item" else active
        for f in range(feature.shape[1]):
            for k in range(RANK + 1):
                out[f"{name} {k} x feature {f}"] = (rows[..., k] * feature[:, f])[:, here].mean(1)
        entries, scale = x[f"{name}_map"], x[f"{name}_map_scale"]
        pivots = entries / scale[..., None, :]
        moments(out, f"{name} map", pivots.reshape(len(z), -1, RANK + 1))
        bounded(out, f"{name} map entry", entries * 5)
        bounded(out, f"{name} map scale", np.log(scale * 8))
        bounded(out, f"{name} mean", x[f"{name}_mean"] * 2)
    bounded(out, "item_scale", np.log(x["item_scale"] * 3))
    bounded(out, "user_sd", np.log(np.sqrt(np.diagonal(x["user_cov"], axis1=1, axis2=2))))
    e = (w.value - eta(table, x)) / noise_sd(table, x)
    for d in range(table.n_domains):
        mine = table.user_domain == d
        moments(out, f"residual {d}", e[:, mine, None])
        for k in range(RANK + 1):
            out[f"residual x item{k} {d}"] = (e * np.tanh(item[:, table.user_item, k]))[:, mine].mean(1)
            out[f"residual x user{k} {d}"] = (e * np.tanh(z[:, table.user_of, k]))[:, mine].mean(1)
    return out


def scores(name, blocks=None):
    """z of every test function that one pass of the named blocks, or one sweep, changes."""
    w, rng, after = world(name), np.random.default_rng(1), []
    for r in range(N):
        table, state = w.replication(r)
        for block in w.model.blocks(table):
            if block.swept and (blocks is None or block.name in blocks):
                state |= block.update(state, rng)
        after.append({site: np.asarray(state[site]) for site in w.latents})
    after = {site: np.stack([state[site] for state in after]) for site in w.latents}
    before, after = statistics(w, w.latents), statistics(w, after)
    change = np.stack([after[f] - before[f] for f in before], axis=1)
    change = change[:, np.abs(change).max(0) > 1e-9]
    return change.mean(0) / change.std(0) * np.sqrt(N)


# What goes wrong in a map: a module, its function, the argument that is falsified.
WRONG_SCALE, WRONG_NOISE = (side, "draw_map", {"_4": by(1.5)}), (side, "draw_map", {"_2": by(1.5)})
FEW = (side, "draw_scale", {"_1": by(1.3)})
BLOCKS = ("item_map", "user_map", "items", "users", "item_population", "user_population", "map")
DEFAULT = {"PMF": BLOCKS, "TransferMF": ("users", "map", "user_map")}  # the others run the same code


def cases():
    for name, (model, n_sources) in MODELS.items():
        for block in model.blocks(described(n_sources)):
            if block.name in BLOCKS:
                mark = () if block.name in DEFAULT.get(name, ()) else pytest.mark.slow
                yield pytest.param(name, block.name, marks=mark, id=f"{name}-{block.name}")


@pytest.mark.parametrize(("name", "block"), [*cases()])
def test_block(name, block):
    assert calm(scores(name, [block]))


@pytest.mark.parametrize(
    "fault",
    [WRONG_SCALE, pytest.param(WRONG_NOISE, marks=pytest.mark.slow), pytest.param(FEW, marks=pytest.mark.slow)],
    ids=["prior", "noise", "scale"],
)
@pytest.mark.parametrize("block", ["item_map", "user_map"])
def test_planted_fault_in_a_map_is_seen(block, fault, monkeypatch):
    module, function, change = fault
    twist(monkeypatch, module, function, **change)
    assert not calm(scores("PMF", [block]))


@pytest.mark.parametrize(("name", "block", "part"), [
    ("PMF", "items", "item_shift"), ("PMF", "users", "user_shift"), ("TransferMF", "users", "user_shift"),
    ("PMF", "item_population", "item_shift"), ("PMF", "user_population", "user_shift"), ("TransferMF", "map", "user_shift"),
])  # fmt: skip
def test_planted_fault_a_block_that_forgets_the_features_is_seen(name, block, part, monkeypatch):
    monkeypatch.setattr(side, part, lambda state, table: None)
    assert not calm(scores(name, [block]))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_sweep(name):
    assert calm(scores(name))
