"""Guides by name: hyperparameters that vary together, users read off their ratings by a network."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from test_svi_parts import levels, some

import bayesrec as br
from bayesrec.inference.bound import bound_of
from bayesrec.inference.nuts import _double
from bayesrec.models.base import Schema
from bayesrec.testing import Case, agreement, example_frame
from bayesrec.testing.case import suited


def shaken(model, data, guide):
    """A bound whose guide is not at its start."""
    data = model.view(data)
    schema = Schema.of(data, model.likelihood)
    torch.manual_seed(0)
    bound = bound_of(model, schema, schema.table(data), np.random.default_rng(0), guide, sweeps=5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for x in [*bound.guide.parameters, *(x for m in bound.guide.members.values() for x in m.tables)]:
            x += 0.2 * torch.randn(x.shape, generator=generator)
    return bound, data, schema


@pytest.mark.parametrize("fault", [False, True])
@pytest.mark.parametrize("guide", ["rows", "structured"])
def test_volume_and_excess_are_those_of_one_normal(guide, fault):
    """Entropy and log density of all hyperparameters together, from torch's low-rank normal; without their ties both are off."""
    with _double(), torch.no_grad():
        bound, *_ = shaken(br.models.TransferMF(rank=2), some(n_ratings=20), guide)
        of, taken = bound.guide, bound.guide.take()
        loc = torch.cat([of.loc[name].detach().reshape(-1) for name in of.alone])
        sd = torch.cat([of.log_sd[name].detach().reshape(-1) for name in of.alone]).exp()
        factor = (of.factor if of.factor.numel() else torch.zeros(len(sd), 1)).detach() * sd.unsqueeze(1)
        if fault:
            factor = 0.0 * factor
        law = torch.distributions.LowRankMultivariateNormal(loc, factor, sd**2)
        torch.manual_seed(2)
        noise, excess = of.noise(taken)
        latents, volume = of.sample(taken, noise=noise)
        x = torch.cat([of.transforms[name].inv(latents[name].detach()).reshape(-1) for name in of.alone])
        jacobian = sum(
            of.transforms[name].log_abs_det_jacobian(of.transforms[name].inv(latents[name]), latents[name]).sum()
            for name in of.alone
        )
        members = 0.0
        for axis, one in of.members.items():
            free = one.free.to(torch.float64)
            members += float(((one.tables[1] + 0.5 * np.log(2 * np.pi * np.e)) * free).sum())
            excess -= float((0.5 * (noise[axis].square() - 1.0) * free).sum())
        entropy = float(volume - jacobian) - members
        right = [
            entropy == pytest.approx(float(law.entropy())),
            excess == pytest.approx(-float(law.log_prob(x) + law.entropy())),
        ]
    assert all(right) == (not fault or guide == "rows")


def test_hyperparameters_of_a_structured_guide_have_its_covariance():
    with _double():
        bound, *_ = shaken(br.models.PMF(rank=1), some(n_ratings=20), "structured")
        of, taken = bound.guide, bound.guide.take()
        torch.manual_seed(3)
        draws = []
        with torch.no_grad():
            for _ in range(3000):
                latents, _ = of.sample(taken)
                draws.append(torch.cat([of.transforms[n].inv(latents[n]).reshape(-1) for n in of.alone]))
        sd = torch.cat([of.log_sd[name].detach().reshape(-1) for name in of.alone]).exp()
        expected = (torch.eye(len(sd)).double() + of.factor.detach() @ of.factor.detach().T) * sd[:, None] * sd
        found = torch.cov(torch.stack(draws).T)
        scale = expected.diagonal().sqrt()
        assert (((found - expected) / scale[:, None] / scale).abs() < 5 / np.sqrt(1500)).all()


CASES = {"Gaussian": br.Gaussian(), "Ordinal": br.Ordinal()}


@pytest.mark.parametrize("name", CASES)
def test_parts_are_unbiased_for_an_encoder(name):
    """ELBO and its gradient in the network's weights over every pair of ratings."""
    model = br.models.TransferMF(rank=1, likelihood=CASES[name])
    data = some() if name == "Gaussian" else levels(some())
    with _double():
        bound, *_ = shaken(model, data, "amortised")
        of = bound.guide
        noise = {n: torch.randn_like(x) for n, x in of.loc.items()}
        noise |= {
            "user": torch.randn(of.members["user"].free.shape),
            "item": torch.randn(of.members["item"].free.shape),
        }

        def ask(part):
            own = {k: x if part.rows.get(k) is None else x[part.rows[k]] for k, x in noise.items()}
            for x in of.parameters:
                x.grad = None
            elbo = bound.elbo(part, of.take(part.rows), own)
            elbo.backward()
            return torch.cat([elbo.detach().reshape(1), *(x.grad.reshape(-1) for x in of.parameters)])

        pairs = [bound.parts.of_ratings(np.array(x)) for x in combinations(range(len(bound.table.item_value)), 2)]
        mean = torch.stack([ask(part) for part in pairs]).mean(0)
        assert torch.allclose(mean, ask(bound.parts.whole()), rtol=1e-9, atol=1e-9)


def test_an_encoder_reads_a_set_of_own_ratings():
    """A user's normal depends on the user's ratings alone, not on their order; it starts at their ridge regression."""
    model = br.models.TransferMF(rank=1)
    frame = some(n_ratings=20).to_frame()
    rng = np.random.default_rng(0)

    def encoded(frame):
        data = br.Interactions.from_frame(frame, target="target")
        schema = Schema.of(some(n_ratings=20))
        torch.manual_seed(0)
        bound = bound_of(model, schema, schema.table(data), np.random.default_rng(0), "amortised", sweeps=0)
        return bound, [x.detach() for x in bound.guide.take().tensors["user"]]

    bound, one = encoded(frame)
    _, two = encoded(frame.iloc[rng.permutation(len(frame))])
    for a, b in zip(one, two, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    changed = frame.copy()
    changed.loc[changed["user"] == 0, "rating"] += 1.0
    _, three = encoded(changed)
    assert not torch.allclose(one[0][0], three[0][0], atol=1e-3)
    assert torch.allclose(one[0][1:], three[0][1:], atol=1e-6)
    table, items = bound.table, bound.guide.members["item"].tables[0][:, :2].numpy()
    members, mean = bound.guide.members["user"], one[0]
    sites = members._as_sites(mean)
    for user in range(table.n_users):
        rows = slice(table.user_ptr[2 * user + 1], table.user_ptr[2 * user + 2])
        v = items[table.user_item[rows]].copy()
        residual = table.user_value[rows] - v[:, 0]
        v[:, 0] = 1.0
        ridge = np.linalg.solve(v.T @ v + np.eye(2), v.T @ residual)
        assert sites["user_vector"][user].numpy() == pytest.approx(ridge, abs=0.1)  # the hidden layer starts near zero


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["structured", "amortised"])
@pytest.mark.parametrize("likelihood", [br.Gaussian(), br.Ordinal()], ids=lambda x: type(x).__name__)
def test_agrees_with_gibbs(guide, likelihood, monkeypatch):
    method = br.SVI(steps=400, learning_rate=0.05, draws=50, chains=2, guide=guide)
    monkeypatch.setitem(agreement.LONGER, br.SVI, method)
    short = br.SVI(steps=5, draws=10, chains=2)
    agreement.agrees_with_gibbs(
        Case(br.models.PMF(rank=2, likelihood=likelihood), False, suited(example_frame(), likelihood), method=short)
    )


def test_an_encoder_in_a_fit():
    """Near Gibbs in held-out rows; without items' means to look at it would know nothing."""
    frame, _ = br.data.synthetic.cross_domain(n_users=100, n_items=(25, 20), n_ratings=(12, 9))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    train, test = br.split.holdout(data, fraction=0.2)
    model = br.models.PMF(rank=1)
    exact = br.fit(model, train, br.Gibbs(draws=100, warmup=60, chains=2), progress=False)
    close = br.fit(model, train, br.SVI(steps=120, draws=60, chains=1, guide="amortised"), progress=False)
    assert close.log_score(test).mean() > exact.log_score(test).mean() - 0.06
