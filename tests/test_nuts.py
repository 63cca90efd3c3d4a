"""NUTS samples the posterior that everything else samples: its potential energy, its answers, its manners."""

import warnings
from dataclasses import replace

import numpy as np
import pyro
import pytest
import torch
from pyro_program import joint

import bayesrec as br
from bayesrec.errors import ConvergenceWarning, SlowWarning
from bayesrec.inference import nuts
from bayesrec.inference.potential import Potential
from bayesrec.inference.start import warm_start
from bayesrec.models.base import Schema
from bayesrec.testing import example_frame

MODELS = [
    br.models.PMF(rank=2),
    br.models.CollectiveMF(rank=1),
    br.models.TransferMF(rank=2),
    br.models.TransferMF(rank=1, power=0.5),
    br.models.TransferMF(rank=1, prior_family="commensurate_spike_slab", gate=False),
    br.models.TransferMF(rank=1, prior_family="horseshoe", likelihood=br.StudentT()),
]


def tiny():
    frame, _ = br.data.synthetic.cross_domain(n_users=14, n_items=(8, 7), n_ratings=(6, 4))
    return br.Interactions.from_frame(frame, target="target", value="value")


def at(model, data):
    """Potential of NUTS at a state of Gibbs, the values it is a function of, the latents."""
    data = model.view(data)
    schema = Schema.of(data)
    state, _ = warm_start(model, schema.table(data), np.random.default_rng(3), 5)
    latents = {name: torch.as_tensor(np.asarray(state[name])).double() for name in model.dims}
    potential = Potential(model, schema, data)
    return potential, potential.values(latents), latents


def energies(model, data, fault=lambda data: data):
    """The potential energy, and what it should be: minus Pyro's log joint density and the log volume of the map."""
    with nuts._double():
        potential, z, latents = at(model, data)
        program = joint(model, potential.schema, model.view(fault(data)))
        trace = pyro.poutine.trace(pyro.poutine.condition(program, data=latents)).get_trace()
        volume = 0.0
        for name, x in z.items():
            rest = {k: v for k, v in z.items() if k != name}

            def site(x, name=name, rest=rest):
                return potential.latents(rest | {name: x})[name]

            jacobian = torch.autograd.functional.jacobian(site, x)
            if name.endswith("_cov"):  # a symmetric matrix is its lower triangle
                jacobian = jacobian[torch.ones_like(latents[name]).tril().bool()]
            volume += torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel()))[1]
        return float(potential(z)), -float(trace.log_prob_sum() + volume)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: repr(m)[:40])
def test_potential_energy(model):
    got, expected = energies(model, tiny())
    assert got == pytest.approx(expected, rel=1e-9)


def test_planted_fault_counting_the_ratings_twice_is_seen():
    def twice(data):
        rows = np.repeat(np.arange(len(data)), 2)
        codes = {name: getattr(data, name)[rows] for name in ("user", "item", "domain", "value")}
        return replace(data, **codes)

    got, expected = energies(br.models.PMF(rank=1), tiny(), twice)
    assert abs(got - expected) > 1.0


@pytest.mark.parametrize("model", MODELS, ids=lambda m: repr(m)[:40])
def test_values_without_bounds_stand_for_the_latents(model):
    with nuts._double():
        potential, z, latents = at(model, tiny())
        back = potential.latents(z)
    assert set(back) == set(latents)
    assert all(torch.allclose(back[name], x, rtol=1e-9, atol=1e-12) for name, x in latents.items())


def test_long_fits_are_announced(monkeypatch):
    monkeypatch.setattr(nuts, "PATIENCE", 0.0)
    with pytest.warns(SlowWarning, match=r"NUTS will take about \d+ minutes"):
        br.fit(br.models.PMF(rank=1), tiny(), br.NUTS(draws=2, warmup=2, chains=1, max_tree_depth=1), progress=False)


def test_ctrl_c_keeps_what_was_drawn(monkeypatch):
    calls = iter(range(10**6))

    class Interrupted(nuts.PyroNUTS):
        def sample(self, params):
            if next(calls) == 12:
                raise KeyboardInterrupt
            return super().sample(params)

    monkeypatch.setattr(nuts, "PyroNUTS", Interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted: kept 7 of 50 draws in each of 1 of 2 chains"):
        posterior = br.fit(br.models.PMF(rank=1), tiny(), br.NUTS(draws=50, warmup=5, max_tree_depth=1), progress=False)
    assert (posterior.n_chains, posterior.n_draws) == (1, 7)


@pytest.mark.slow
def test_agrees_with_gibbs():
    """Means of identified quantities within 4 standard errors of the two samplers together (about 1 in 1,000 runs fails)."""
    model, data = br.models.PMF(rank=1, likelihood=br.Gaussian(user_noise=False)), tiny()
    methods = (br.Gibbs(draws=4000, warmup=500), br.NUTS(draws=300, warmup=200, max_tree_depth=6))
    tables = []
    for method in methods:
        posterior = br.fit(model, data, method, progress=False)
        names = ["noise[target]", "item_bias_sd", "user_bias_sd", "personal_sd"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # some other quantity; the errors below know the ESS
            tables.append(posterior.diagnostics().loc[names])
    error = sum(t["sd"] ** 2 / t["ess_bulk"] for t in tables) ** 0.5
    assert ((tables[0]["mean"] - tables[1]["mean"]).abs() / error < 4).all()


def test_units_and_densities_do_not_depend_on_the_order_of_the_rows():
    """To the last bit, in any order: a bit is enough to send a trajectory elsewhere."""
    frame, rng, found = example_frame(), np.random.default_rng(0), []
    model = br.models.TransferMF(rank=1)
    for order in [np.arange(len(frame)), *(rng.permutation(len(frame)) for _ in range(20))]:
        data = br.Interactions.from_frame(frame.iloc[order], target="target")
        schema = Schema.of(data)
        with nuts._double(), pyro.poutine.seed(rng_seed=1):
            latents = pyro.poutine.trace(joint(model, schema, data)).get_trace().nodes
            potential = Potential(model, schema, data)
            z = potential.values({name: latents[name]["value"] for name in model.dims})
            found.append((*schema.center, *schema.scale, float(potential(z))))
    assert len(set(found)) == 1
    values = frame.query("domain == 'target'")["rating"].to_numpy()
    assert len({rng.permutation(values).std() for _ in range(20)}) > 1  # planted: sums in the order of the rows


def test_other_links_have_the_right_energy():
    """Domains without shared users, whose vectors are normal in both; and a source that is known by its posterior alone."""
    frame, _ = br.data.synthetic.cross_domain(n_users=14, n_items=(8, 7), n_ratings=(6, 4))
    apart = frame.assign(user=frame["user"].where(frame["domain"] == "target", frame["user"] + 100))
    data = br.Interactions.from_frame(apart, target="target", value="value")
    got, expected = energies(br.models.TransferMF(rank=1, link="distribution"), data)
    assert got == pytest.approx(expected, rel=1e-9)

    frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(20, 7), n_ratings=(15, 4), rank=1)
    source = br.Interactions.from_frame(frame[frame["domain"] == "source"], target="source", value="value")
    fitted = br.fit(br.models.PMF(rank=1), source, br.Gibbs(draws=20, warmup=20, chains=4), progress=False)
    mine = br.Interactions.from_frame(frame[frame["domain"] == "target"], target="target", value="value")
    got, expected = energies(br.models.TransferMF(rank=1, source=fitted.as_prior("user")), mine)
    assert got == pytest.approx(expected, rel=1e-9)
