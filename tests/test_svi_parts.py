"""Steps of SVI on some of the ratings: unbiased, equal to Pyro's own ELBO, and blind to the size of the tables."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro_program import joint

import bayesrec as br
from bayesrec.inference.bound import ItemsIn, bound_of
from bayesrec.inference.nuts import _double
from bayesrec.inference.row_adam import RowAdam
from bayesrec.inference.steps import Steps
from bayesrec.models.base import Schema


def some(n_users=5, n_items=(3, 3), n_ratings=11, seed=0):
    """A few ratings of two domains."""
    rng = np.random.default_rng(seed)
    cells = [
        (u, i, d) for d, n in zip(("source", "target"), n_items, strict=True) for u in range(n_users) for i in range(n)
    ]
    kept = np.sort(rng.choice(len(cells), n_ratings, replace=False))
    frame = pd.DataFrame([cells[k] for k in kept], columns=["user", "item", "domain"])
    return br.Interactions.from_frame(frame.assign(rating=rng.normal(size=len(frame))), target="target")


def levels(data):
    codes = 1.0 + (data.value > np.median(data.value)) + (data.value > np.quantile(data.value, 0.8))
    return replace(data, value=codes)


def made(model, data, guide):
    data = model.view(data)
    schema = Schema.of(data, model.likelihood)
    bound = bound_of(model, schema, schema.table(data), np.random.default_rng(0), guide)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for x in parameters(bound):
            x += 0.2 * torch.randn(x.shape, generator=generator)
    noise = {name: torch.randn(x.shape, generator=generator) for name, x in bound.guide.loc.items()}
    noise |= {k: torch.randn(x.tables[0].shape, generator=generator) for k, x in bound.guide.members.items()}
    return bound, noise, data, schema


def parameters(bound):
    tables = [x for members in bound.guide.members.values() for x in members.tables]
    return [*bound.guide.parameters, *tables]


def value_and_gradient(bound, part, noise):
    """ELBO and gradient in every parameter, zero where a row is not touched, as one vector."""
    guide = bound.guide
    taken = guide.take(part.rows)
    own = {k: x if part.rows.get(k) is None else x[part.rows[k]] for k, x in noise.items()}
    for x in guide.parameters:
        x.grad = None
    elbo = bound.elbo(part, taken, own)
    elbo.backward()
    out = [elbo.detach().reshape(1), *(x.grad.reshape(-1) for x in guide.parameters)]
    for axis, members in guide.members.items():
        rows = part.rows.get(axis)
        for table, x in zip(members.tables, taken.tensors[axis], strict=True):
            full = torch.zeros_like(table)
            full[slice(None) if rows is None else rows] = torch.zeros_like(x) if x.grad is None else x.grad
            out.append(full.reshape(-1))
    return torch.cat(out)


CASES = {
    "PMF, items out": (br.models.PMF(rank=1), "rows"),
    "TransferMF, items out": (br.models.TransferMF(rank=1, power=0.5), "rows"),
    "TransferMF, mean field": (br.models.TransferMF(rank=1, power=0.5), "mean_field"),
    "CollectiveMF, Ordinal": (br.models.CollectiveMF(rank=1, likelihood=br.Ordinal()), "rows"),
}


@pytest.mark.parametrize("fault", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_mean_over_all_parts_is_the_whole(name, fault):
    """ELBO and gradient, every subset enumerated; members weighted as if certain to be in a part are noticed."""
    model, guide = CASES[name]
    data = some()
    with _double():
        bound, noise, *_ = made(model, levels(data) if "Ordinal" in name else data, guide)
        if isinstance(bound, ItemsIn):
            pieces = [bound.parts.of_ratings(np.array(x)) for x in combinations(range(len(bound.table.item_value)), 2)]
        else:
            rated = bound.parts.rated
            pieces = [bound.parts.of_items(np.array(x)) for x in combinations(rated, len(rated) // 2)]
        if fault:
            pieces = [replace(x, weights={k: torch.ones_like(w) for k, w in x.weights.items()}) for x in pieces]
        mean = torch.stack([value_and_gradient(bound, part, noise) for part in pieces]).mean(0)
        whole = value_and_gradient(bound, bound.parts.whole(), noise)
    assert torch.allclose(mean, whole, rtol=1e-9, atol=1e-9) != fault


def triangle(members, below):
    """The unit lower triangles that scaled by the sds are the Cholesky factors, (member, S, S)."""
    size = members.free.shape[1]
    out = torch.eye(size, dtype=below.dtype).repeat(len(below), 1, 1)
    if members.whole:
        row, column = np.tril_indices(size, -1)
        out[:, row, column] = below
    return out


def pyros_guide(bound):
    """The same approximation as a Pyro program."""
    guide = bound.guide

    def program():
        for name in guide.alone:
            base = torch.distributions.Normal(guide.loc[name], guide.log_sd[name].exp())
            law = pyro.distributions.TransformedDistribution(base, [guide.transforms[name]])
            pyro.sample(name, law.to_event(len(law.batch_shape)))
        for axis, members in guide.members.items():
            loc, log_sd, below = members.tables
            tril = log_sd.exp().unsqueeze(-1) * triangle(members, below)
            rows = pyro.distributions.MultivariateNormal(loc, scale_tril=tril).to_event(1)
            value = pyro.sample(f"_{axis}", rows, infer={"is_auxiliary": True})
            for name, x in members._as_sites(value).items():
                pyro.sample(name, pyro.distributions.Delta(x, event_dim=x.dim()))

    return program


@pytest.mark.parametrize("guide", ["rows", "mean_field"])
@pytest.mark.parametrize("likelihood", [br.Gaussian(), br.Ordinal(), br.StudentT()], ids=lambda x: type(x).__name__)
def test_the_elbo_is_that_of_pyro(likelihood, guide):
    """Pyro takes log q at the draw and we the entropy: at the same draw they differ by half of the normals' squares less one."""
    data = some(n_ratings=30, seed=1)  # all cells: no leaves
    model = br.models.TransferMF(rank=1, likelihood=likelihood)
    if isinstance(likelihood, br.Ordinal):
        data = levels(data)
    with _double(), pyro.settings.context(module_local_params=True):
        data = model.view(data)
        schema = Schema.of(data, likelihood)
        bound = ItemsIn(model, schema, schema.table(data), np.random.default_rng(0), guide)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for x in parameters(bound):
                x += 0.2 * torch.randn(x.shape, generator=generator)
            program = pyros_guide(bound)
            torch.manual_seed(3)
            theirs = -Trace_ELBO().loss(joint(model, schema, data), program)
            torch.manual_seed(3)
            drawn = pyro.poutine.trace(program).get_trace()
            noise = {}
            for name in bound.guide.alone:
                x = bound.guide.transforms[name].inv(drawn.nodes[name]["value"])
                noise[name] = (x - bound.guide.loc[name]) / bound.guide.log_sd[name].exp()
            for axis, members in bound.guide.members.items():
                loc, log_sd, below = members.tables
                apart = (drawn.nodes[f"_{axis}"]["value"] - loc) / log_sd.exp()
                noise[axis] = torch.linalg.solve_triangular(
                    triangle(members, below), apart.unsqueeze(-1), upper=False
                ).squeeze(-1)
            ours = float(bound.elbo(bound.parts.whole(), bound.guide.take(), noise))
        squares = sum(float((x.square() - 1.0).sum()) for x in noise.values())
    assert theirs == pytest.approx(ours + 0.5 * squares, rel=1e-8)


def many(n_users):
    rng = np.random.default_rng(2)
    n = 4 * n_users
    frame = pd.DataFrame({"user": np.arange(n) % n_users, "item": rng.integers(0, n // 8, n), "domain": "target"})
    frame = frame.drop_duplicates(["user", "item"])
    return br.Interactions.from_frame(frame.assign(rating=rng.normal(size=len(frame))), target="target")


@pytest.mark.parametrize("guide", ["rows", "mean_field"])
def test_a_step_touches_the_rows_of_its_ratings_alone(guide):
    """What a step computes does not grow with the tables, and untouched rows and their moments stay as they are."""
    touched = []
    for n_users in (400, 4000):
        model, data = br.models.PMF(rank=1), many(n_users)
        schema = Schema.of(data)
        table = schema.table(data)
        bound = bound_of(model, schema, table, np.random.default_rng(0), guide)
        before = [x.clone() for members in bound.guide.members.values() for x in members.tables]
        seen = []
        ask, take = bound.part, bound.guide.take
        bound.part = lambda share, rng, ask=ask, seen=seen: seen.append(ask(share, rng)) or seen[-1]
        sizes = []
        bound.guide.take = lambda rows, take=take, sizes=sizes: sizes.append(take(rows)) or sizes[-1]
        Steps(br.SVI(batch_size=80, guide=guide), bound, 1, np.random.default_rng(1)).advance()
        (part,), (taken,) = seen, sizes
        after = [x for members in bound.guide.members.values() for x in members.tables]
        rows = [part.rows[axis] for axis, members in bound.guide.members.items() for _ in members.tables]
        for old, new, index in zip(before, after, rows, strict=True):
            changed = (old != new).any(1).nonzero()[:, 0] if old.shape[1] else index[:0]
            assert np.isin(changed, index).all()
        assert (before[0] != after[0]).any()
        assert part.schema.n_users == len(taken.tensors["user"][0]) <= len(part.table.item_value)
        touched.append(part.schema.n_users + part.schema.n_items)
    assert touched[1] < 2 * touched[0]  # ten times the users


def test_rows_of_adam_are_those_of_adam():
    """Every row by itself has had the steps that torch's Adam takes with the gradients that touched it."""
    rng = np.random.default_rng(0)
    tables = [torch.tensor(rng.normal(size=(6, k))) for k in (3, 2, 0)]
    rows = [[x[r : r + 1].clone().requires_grad_() for x in tables[:2]] for r in range(6)]
    theirs = [torch.optim.Adam(x, lr=0.1, betas=(0.9, 0.99)) for x in rows]
    ours = RowAdam(tables, (0.9, 0.99))
    for step in range(12):
        index = None if step == 5 else torch.tensor(np.sort(rng.choice(5, 2, replace=False)))
        touched = torch.arange(6) if index is None else index
        gradients = [torch.tensor(rng.normal(size=(len(touched), k))) for k in (3, 2, 0)]
        ours.step(index, gradients, 0.1)
        for k, r in enumerate(touched.tolist()):
            for x, gradient in zip(rows[r], gradients[:2], strict=True):
                x.grad = gradient[k : k + 1]
            theirs[r].step()
    for k in (0, 1):
        assert torch.allclose(tables[k], torch.cat([x[k].detach() for x in rows]))
