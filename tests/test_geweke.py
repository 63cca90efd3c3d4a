"""Joint-distribution tests (Geweke 2004) of every Gibbs block: latents and data from the prior, one update, no change.

Latents come from ``model.prior``, data from a likelihood written here in NumPy; then (latents, data) is a draw from the
joint distribution, and an exact conditional update leaves that distribution alone. For each test function the paired
difference before and after has mean zero; test functions are pivots or bounded, so it has a variance too.

Blocks leave *leaves* out: a user without rows in a domain and an item without rows inform no hyperparameter. After
an update of hyperparameters a leaf's latents are stale until its own block runs, so test functions of leaves are
compared only after the blocks that draw them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyro
import pytest
import torch
from test_conjugate import by, calm, twist

import bayesrec as br
from bayesrec import conjugate
from bayesrec.conjugate import Table
from bayesrec.models import populations
from bayesrec.models.base import Schema

N = 3000  # replications; calm() has a false-alarm rate of 1e-4 a test, Bonferroni over its test functions
N_USERS, N_ITEMS, RANK = 12, 6, 2
PLAIN = br.Gaussian(user_noise=False)
MODELS = {
    "PMF": (br.models.PMF(rank=RANK), 0),
    "CollectiveMF": (br.models.CollectiveMF(rank=RANK), 1),
    "TransferMF": (br.models.TransferMF(rank=RANK), 1),
    "PMF plain": (br.models.PMF(rank=RANK, likelihood=PLAIN), 0),
    "CollectiveMF plain": (br.models.CollectiveMF(rank=RANK, likelihood=PLAIN), 2),
    "TransferMF open": (br.models.TransferMF(rank=RANK, gate=False, likelihood=PLAIN), 1),
    "TransferMF biases": (br.models.TransferMF(rank=RANK, transfers="biases"), 1),
    "TransferMF factors": (br.models.TransferMF(rank=RANK, transfers="factors"), 1),
    "TransferMF two": (br.models.TransferMF(rank=RANK), 2),
    "TransferMF ard": (br.models.TransferMF(rank=RANK, prior_family="ard", gate_prior=(2.0, 3.0)), 1),
    "TransferMF horseshoe": (br.models.TransferMF(rank=RANK, prior_family="horseshoe", shrinkage=2.0), 2),
    "TransferMF commensurate": (br.models.TransferMF(rank=RANK, prior_family="commensurate", shrinkage=2.0), 1),
    "TransferMF spike": (br.models.TransferMF(rank=RANK, prior_family="commensurate_spike_slab", gate=False), 1),
    "TransferMF commensurate horseshoe": (br.models.TransferMF(rank=RANK, prior_family="commensurate_horseshoe"), 1),
    "TransferMF distribution": (br.models.TransferMF(rank=RANK, link="distribution"), 1),
    "TransferMF open two": (br.models.TransferMF(rank=RANK, gate=False), 2),
}
DEFAULT, SLOW = list(MODELS)[:3], list(MODELS)[3:]


@dataclass
class World:
    """N draws of latents (replication first) and of ratings (replication, rating) in user order."""

    model: object
    table: Table
    latents: dict
    value: np.ndarray

    def replication(self, r):
        order = np.lexsort((self.table.user_of, self.table.user_item))
        table = replace(self.table, user_value=self.value[r].copy(), item_value=self.value[r][order])
        return table, {name: x[r].copy() for name, x in self.latents.items()}


def design(n_domains):
    """A table without values: user 0 has no target rows, user 1 no source rows, user 2 none at all."""
    rng = np.random.default_rng(0)
    rows = []
    for u in range(N_USERS):
        for d in range(n_domains):
            target = d == n_domains - 1
            if u == 2 or (u == 0 and target) or (u == 1 and not target) or (u == 3 and d == 1 and not target):
                continue
            items = rng.choice(N_ITEMS - 1, rng.integers(2, 6), replace=False)  # the last item has no ratings
            rows += [(u, i + d * N_ITEMS, d) for i in sorted(items)]
    user, item, domain = np.array(rows).T
    sizes = {"n_users": N_USERS, "n_items": n_domains * N_ITEMS, "n_domains": n_domains}
    sizes["item_domain"] = np.repeat(range(n_domains), N_ITEMS)
    return Table.build(user, item, domain, np.zeros(len(user)), **sizes)


def eta(table, x):
    vectors = np.repeat(x["user_vector"][:, None], table.n_domains, 1)
    if "source_vector" in x:
        vectors = np.concatenate([x["source_vector"], x["user_vector"][:, None]], 1)
    user, item = vectors[:, table.user_domain, table.user_of], x["item_vector"][:, table.user_item]
    return user[..., 0] + item[..., 0] + (user[..., 1:] * item[..., 1:]).sum(-1)


def noise_sd(table, x):
    sd = x["noise"][:, table.user_domain]
    if "user_log_precision" in x:
        sd = sd * np.exp(-1.5 * np.tanh(x["user_log_precision"][:, table.user_domain, table.user_of] / 3))
    return sd


def source_sd(x):
    return np.stack([x["source_bias_scale"], *[np.ones_like(x["source_bias_scale"])] * RANK], axis=-1)


def carried(model, maps):
    """The entries of maps (..., R, R) that take part, zero elsewhere."""
    out = np.zeros_like(maps)
    blocks = {"biases": (slice(1),) * 2, "factors": (slice(1, None),) * 2, "all": (slice(None),) * 2}
    here = (..., *blocks[model.transfers])
    out[here] = maps[here]
    return out


def whole_maps(model, x):
    """The maps that take part; the identity where a model has none."""
    if "map" in x:
        return carried(model, x["map"])
    n, n_sources, _, size = x["source_vector"].shape
    return np.broadcast_to(np.eye(size), (n, n_sources, size, size))


def map_sd(model, x):
    """Prior sd of every entry of the maps, and the learned scales that it is made of."""
    part = np.pad(np.ones((RANK, RANK), dtype=int), (1, 0), constant_values=2)
    part[0, 0] = 0
    base = model.shrinkage * np.array([0.5, 0.6 / RANK**0.5, 0.2 / RANK**0.5])[part]
    if model.prior_family == "normal":
        return x["map_scale"][..., part], {"map_scale": 3 * x["map_scale"]}
    if model.prior_family == "ard":
        return x["map_scale"][..., None, :] * base, {"map_scale": x["map_scale"]}
    scales = {name: x[name] for name in ("map_global_scale", "map_local_scale")}
    return scales["map_global_scale"][..., None, None] * scales["map_local_scale"] * base, scales


def augment(x, model, rng):
    """Gates and phi_used from their conditional given theta, phi and hyperparameters, which completes the joint draw.

    Exact and written independently of the package: running the block "users" first instead would be valid only if
    that block were right, which is what is to be tested. Configurations by Bayes' rule, copies by Matheron's rule.
    """
    phi, maps, sd, gated = x["source_vector"], whole_maps(model, x), source_sd(x), model.gate
    n, n_sources, n_users, _ = phi.shape
    rest = x["user_vector"] - x["user_mean"][:, None]
    shift, spread = np.einsum("nkij,nkuj->nkui", maps, phi), np.einsum("nkij,nkj,nklj->nkil", maps, sd**2, maps)
    configs = np.array(list(np.ndindex((2,) * n_sources)), dtype=bool) if gated else np.ones((1, n_sources), dtype=bool)
    log_p = np.zeros((n, n_users, len(configs)))
    for c, on in enumerate(configs):
        r, cov = rest - shift[:, on].sum(1), x["user_cov"] + spread[:, ~on].sum(1)
        solved = np.linalg.solve(cov, r.transpose(0, 2, 1)).transpose(0, 2, 1)
        log_p[..., c] = -0.5 * ((r * solved).sum(-1) + np.linalg.slogdet(cov)[1][:, None])
        if gated:
            log_p[..., c] += np.where(on, np.log1p(-x["gate"]), np.log(x["gate"])).sum(-1)[:, None]
    chosen = configs[(log_p + rng.gumbel(size=log_p.shape)).argmax(-1)].transpose(0, 2, 1)  # (n, source, user)
    copy = sd[:, :, None] * rng.standard_normal(phi.shape)
    eps = np.einsum("nij,nuj->nui", np.linalg.cholesky(x["user_cov"]), rng.standard_normal(rest.shape))
    off = ~chosen[..., None]
    gap = rest - np.where(off, np.einsum("nkij,nkuj->nkui", maps, copy), shift).sum(1) - eps
    cov = x["user_cov"][:, None] + np.einsum("nku,nkij->nuij", ~chosen, spread)
    gap = np.linalg.solve(cov, gap[..., None])[..., 0]
    copy += sd[:, :, None] ** 2 * np.einsum("nkji,nuj->nkui", maps, gap)
    return x | {"on": chosen, "phi_used": np.where(off, copy, phi)}


@lru_cache(maxsize=2)
def world(name):
    model, n_sources = MODELS[name]
    table, rng, n_domains = design(n_sources + 1), np.random.default_rng(0), n_sources + 1
    unit = np.zeros(n_domains), np.ones(n_domains)
    schema = Schema(N_USERS, table.n_items, tuple("abc"[:n_domains]), torch.from_numpy(table.item_domain), *unit)
    with torch.random.fork_rng(devices=[]), pyro.poutine.block(), pyro.plate("replication", N, dim=-1):
        torch.manual_seed(0)
        x = {site: value.double().numpy() for site, value in model.prior(schema).items()}
    if "source_bias_scale" in x:
        x = augment(x, model, rng)
    value = eta(table, x) + noise_sd(table, x) * rng.standard_normal((N, len(table.user_of)))
    return World(model, table, x, value)


def moments(out, name, z, where=None):
    """First and second moments of pivots z (n, ..., R), over the axes between; cross products of the components."""
    z = z.reshape(len(z), -1, z.shape[-1]) if where is None else z[:, where]
    for i in range(z.shape[-1]):
        mean = out[f"{name}{i}"] = z[..., i].mean(-1)
        out[f"{name}{i} squared"] = mean**2
        for j in range(i + 1):
            out[f"{name}{i}{j}"] = (z[..., i] * z[..., j]).mean(-1)
        out[f"{name}{i} spread"] = (out[f"{name}{i}{i}"] - 1) ** 2


def bounded(out, name, x):
    """Squashed values (n, ...) and their squares, each entry on its own."""
    for k, column in enumerate(np.tanh(x.reshape(len(x), -1)).T):
        out[f"{name}{k}"], out[f"{name}{k} squared"] = column, column**2


def features(w, x, leaves):
    """Test functions (n,) of latents and data; with ``leaves`` also those of users and items without rows."""
    table, out = w.table, {}
    seen = (table.count > 0) | leaves
    in_target = seen[-1]
    e = (w.value - eta(table, x)) / noise_sd(table, x)
    item = (x["item_vector"] - x["item_mean"][:, table.item_domain]) / x["item_scale"][:, table.item_domain]
    moments(out, "item", item, table.rated | leaves)
    bounded(out, "item_mean", x["item_mean"] * 2)
    bounded(out, "item_scale", np.log(x["item_scale"] * 3))
    bounded(out, "user_mean", x["user_mean"] * 2)
    sd = sd_of_user = np.sqrt(np.diagonal(x["user_cov"], axis1=1, axis2=2))
    bounded(out, "user_sd", np.log(sd))
    bounded(out, "user_sd of a spike", np.log(20 * sd))
    bounded(out, "correlation", (x["user_cov"] / sd[:, None] / sd[:, :, None])[:, *np.tril_indices(RANK + 1, -1)])
    bounded(out, "noise", np.log(x["noise"]))
    out["noise shared"] = np.tanh(np.log(x["noise"])).prod(1)
    theta = x["user_vector"]
    if "source_cov" in x:
        apart(out, x, seen)
    elif "source_vector" in x:
        used, both = x["phi_used"], (table.count[:-1] > 0) & (table.count[-1] > 0)
        in_source, own = seen[:-1], x["source_vector"] / source_sd(x)[:, :, None]
        theta = theta - np.einsum("nkij,nkuj->nui", whole_maps(w.model, x), used)
        moments(out, "phi", own, in_source)
        copy = used / source_sd(x)[:, :, None]
        for k in range(RANK + 1):
            new = ~x["on"] & in_target if leaves else in_target & ~(x["on"] & in_source)
            out[f"copy{k}"], out[f"copy{k} squared"] = ((new * copy[..., k] ** p).sum((1, 2)) for p in (1, 2))
        if "map" in x:
            sd, scales = map_sd(w.model, x)
            z = x["map"] / sd
            for name, entries in (("bias", z[..., :1, 0]), ("factor", z[..., 1:, 1:]), ("row", z[..., 0, 1:])):
                moments(out, f"map {name}", entries.reshape(len(z), -1, 1))
            moments(out, "map column", z[..., 1:, 0].reshape(len(z), -1, 1))
            for name, scale in scales.items():
                bounded(out, name, np.log(scale))
        if "discrepancy_local_scale" in x:
            both_scales = np.column_stack([x["discrepancy_global_scale"], x["discrepancy_local_scale"]])
            bounded(out, "discrepancy scale", np.log(both_scales))
            ratio = sd_of_user / x["discrepancy_global_scale"][:, None] / x["discrepancy_local_scale"]
            bounded(out, "sd by its scale", np.log(ratio))
        bounded(out, "source_bias", np.log(x["source_bias_scale"] * 2))
        on = x["on"] if leaves else x["on"][:, both]
        out["on"] = on.reshape(len(theta), -1).mean(1)
        if "gate" in x:
            bounded(out, "gate", 3 * x["gate"])
            out["gate agrees"] = out["on"] * x["gate"].mean(1)
    active = in_target if "source_vector" in x else (table.count.sum(0) > 0) | leaves
    z = theta - x["user_mean"][:, None]
    z = np.linalg.solve(np.linalg.cholesky(x["user_cov"])[:, None], z[..., None])[..., 0]
    moments(out, "user", z, active)
    for d in range(table.n_domains):
        mine = table.user_domain == d
        for name, weight in (("item", item[:, table.user_item]), ("user", z[:, table.user_of])):
            for k in range(RANK + 1):
                out[f"residual x {name}{k} {d}"] = (e * np.tanh(weight[..., k]))[:, mine].mean(1)
        moments(out, f"residual {d}", e[:, mine, None])
        out[f"data {d}"] = np.tanh(w.value * np.tanh(theta[:, table.user_of, 0]))[:, mine].mean(1)
    if "user_level" in x:
        shift = (x["user_log_precision"] - x["user_level"][:, None]) / x["level_within"][:, None, None]
        moments(out, "log precision", shift[:, seen][..., None])
        moments(out, "level", (x["user_level"] / x["level_between"][:, None])[..., None], seen.any(0))
        bounded(out, "levels", np.log(2 * np.stack([x["level_within"], x["level_between"]], 1)))
        bounded(out, "log precision of user", x["user_log_precision"][:, seen])
    return out


def apart(out, x, seen):
    """Test functions of domains that share no user: source users, populations around common scales, ties."""
    z = x["source_vector"] - x["source_mean"][:, :, None]
    root = np.linalg.cholesky(x["source_cov"])[:, :, None]
    moments(out, "phi", np.linalg.solve(root, z[..., None])[..., 0], seen[:-1])
    bounded(out, "source_mean", 2 * x["source_mean"])
    bounded(out, "ties", np.stack([x["user_tie"], x["item_tie"]], 1))
    covs = np.concatenate([x["source_cov"], x["user_cov"][:, None]], axis=1)
    sd = np.sqrt(np.diagonal(covs, axis1=2, axis2=3))
    for side, scales in (("user", sd), ("item", x["item_scale"])):
        ratio = np.log(scales / x[f"common_{side}_scale"][:, None])
        bounded(out, f"common {side}", np.log(x[f"common_{side}_scale"]))
        bounded(out, f"{side} ratio", ratio)
        bounded(out, f"{side} ratio by tie", ratio * x[f"{side}_tie"][:, None, None])
        out[f"{side} apart by tie"] = np.tanh(ratio**2).mean((1, 2)) * x[f"{side}_tie"]


LEAVES = ("users", "items", "user_noise", "noise")  # blocks after which leaves belong to the hyperparameters


def scores(w, names=None, leaves=None, before_block=lambda state: state, n=N, order=list):
    """z of every test function that one pass of the named blocks changes; ``before_block`` plants a fault."""
    rng, after = np.random.default_rng(1), []
    for r in range(n):
        table, state = w.replication(r)
        for block in order(w.model.blocks(table)):
            if names is None or block.name in names:
                state |= block.update(before_block(state), rng)
        after.append(state)
    leaves = bool(names) and set(names) <= set(LEAVES) if leaves is None else leaves
    after = {site: np.stack([np.asarray(s[site]) for s in after]) for site in w.latents}
    w = replace(w, latents={site: x[:n] for site, x in w.latents.items()}, value=w.value[:n])
    before, after = features(w, w.latents, leaves), features(w, after, leaves)
    change = np.stack([after[f] - before[f] for f in before], axis=1)
    change = change[:, np.abs(change).max(0) > 1e-9]
    return change.mean(0) / change.std(0) * np.sqrt(n)


def all_on(state):
    return state | {"on": np.ones_like(state["on"])}


def own_for_copy(state):
    return state | {"phi_used": state["source_vector"]}


# What goes wrong in each block: a function of bayesrec.conjugate and the argument that is falsified, or a state.
PRECISION, TWICE = ("draw_rows", {"_7": by(1.1)}), ("draw_rows", {"_3": by(2.0)})
SQUARES, DOUBLED = ("half_t_scale", {"_1": by(1.1)}), ("half_t_scale", {"_1": by(2.0), "_2": by(2.0)})
SCATTER, NO_SHRINKAGE = ("huang_wand_covariance", {"_1": by(1.1)}), ("regression", {"_3": by(0.0)})
FAULTS = {
    "users": [PRECISION, TWICE],
    "items": [PRECISION, TWICE],
    "user_noise": [("noise_slices", {"_3": by(2), "_4": by(2)}), ("noise_slices", {"_1": by(0.7)})],
    "noise": [SQUARES, DOUBLED],
    "noise_spreads": [("nested_scales", {"_2": by(1.1)}), ("nested_scales", {"_4": by(2.0)})],
    "item_population": [DOUBLED, ("normal_mean", {"_2": by(1.5)})],
    "user_population": [SCATTER, NO_SHRINKAGE, ("huang_wand_covariance", {"_1": by(2.0), "_2": by(2.0)})],
    "item_populations": [("_item_evidence", {"_2": by(1.5)}), ("_common_scale", {"_1": by(1.5)})],
    "user_populations": [("_user_evidence", {"_2": by(1.5)}), ("_common_scale", {"_1": by(1.5)}), NO_SHRINKAGE],
    "map": [SCATTER, NO_SHRINKAGE, own_for_copy],
    "map_scale": [SQUARES, ("half_t_scale", {"_3": by(2.0)})],
    "discrepancy": [("half_t_scale", {"_1": by(1.5)}), ("half_t_scale", {"_2": lambda n: n + 1})],
    "source_bias": [SQUARES, all_on],
    "gate": [("bernoulli_rate", {"_2": lambda prior: prior[::-1]}), ("bernoulli_rate", {"_0": lambda n: n + 1})],
    "transfer users": [("transfer_rows", {name: by(x)}) for name, x in (("_2", 2.0), ("_6", 1.1), ("_4", 1.1))],
    "gated users": [("transfer_rows", {"_8": lambda off: 1 - off}), ("transfer_rows", {"_10": lambda gated: False})],
}


def cases(names, mark=()):
    for name in names:
        model, n_sources = MODELS[name]
        for block in model.blocks(design(n_sources + 1)):
            faults = FAULTS[block.name]
            if block.name == "users" and "source_bias_scale" in model.dims:
                faults = FAULTS["transfer users"] + FAULTS["gated users"] * model.gate
            for fault in [None, *(faults[:1] if name == "CollectiveMF" else faults)]:  # it shares its blocks with PMF
                if not callable(fault) or model.gate:  # without gates these states are as they should be
                    what = fault.__name__ if callable(fault) else "".join([fault[0], *fault[1]]) if fault else "exact"
                    yield pytest.param(name, block.name, fault, marks=mark, id=f"{name}-{block.name}-{what}")


@pytest.mark.parametrize(("name", "block", "fault"), [*cases(DEFAULT), *cases(SLOW, pytest.mark.slow)])
def test_block(name, block, fault, monkeypatch):
    if fault and not callable(fault):
        twist(monkeypatch, conjugate if hasattr(conjugate, fault[0]) else populations, fault[0], **fault[1])
    before = {"before_block": fault} if callable(fault) else {}
    assert calm(scores(world(name), [block], **before)) is (fault is None)


@pytest.mark.parametrize("name", [m if m == "TransferMF" else pytest.param(m, marks=pytest.mark.slow) for m in MODELS])
def test_sweep(name, monkeypatch):
    """All blocks in their order; the planted fault counts the likelihood of the items twice."""
    assert calm(scores(world(name), n=1000))
    twist(monkeypatch, conjugate, TWICE[0], **TWICE[1])
    assert not calm(scores(world(name), n=1000))


@pytest.mark.parametrize("name", ["PMF", "TransferMF"])
def test_kept_draws_are_joint(name):
    """A kept draw is the end of a sweep: users and items without rows must belong to its populations, drawn before."""
    assert calm(scores(world(name), leaves=True, n=1000))
    assert not calm(scores(world(name), leaves=True, n=1000, order=lambda blocks: blocks[::-1]))  # planted
