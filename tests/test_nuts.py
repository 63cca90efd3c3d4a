"""NUTS samples the posterior that everything else samples: its potential energy, its answers, its manners."""

import warnings
from dataclasses import replace

import numpy as np
import pyro
import pytest
import torch
from pyro.infer.autoguide.initialization import init_to_value
from pyro.infer.mcmc.util import initialize_model

import bayesrec as br
from bayesrec.errors import ConvergenceWarning, SlowWarning
from bayesrec.inference import nuts
from bayesrec.inference.start import warm_start
from bayesrec.models.base import Batch, Schema
from bayesrec.posterior.arviz import log_prior
from bayesrec.testing import example_frame

MODELS = [br.models.PMF(rank=2), br.models.CollectiveMF(rank=1), br.models.TransferMF(rank=2)]


def tiny():
    frame, _ = br.data.synthetic.cross_domain(n_users=14, n_items=(8, 7), n_ratings=(6, 4))
    return br.Interactions.from_frame(frame, target="target", value="value")


def potentials(model, program):
    """Potential energy of Pyro's NUTS at a state, and minus log prior, log likelihood and log Jacobian there."""
    data = model.view(tiny())
    schema = Schema.of(data)
    with nuts._double(), pyro.settings.context(module_local_params=True):
        state, _ = warm_start(model, schema.table(data), np.random.default_rng(3), 5)
        start = {name: torch.as_tensor(np.asarray(state[name])).double() for name in model.dims}
        params, energy, transforms, _ = initialize_model(
            program(model, schema, data), init_strategy=init_to_value(values=start)
        )
        got = float(energy(params))
        batch = Batch(*(torch.from_numpy(np.array(x)) for x in (data.user, data.item, data.domain)))
        value = torch.from_numpy(schema.standardise(data.value, data.domain))
        likelihood = model.likelihood.distribution(model.score(start, batch), start, batch).log_prob(value).sum()
        prior = sum(log_prior(model, schema, start).values())
        jacobian = sum(t.inv.log_abs_det_jacobian(params[k], start[k]).sum() for k, t in transforms.items())
    return got, -float(prior + likelihood + jacobian)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_potential_energy(model):
    got, expected = potentials(model, nuts.joint)
    assert got == pytest.approx(expected, rel=1e-9)


def test_planted_fault_counting_the_ratings_twice_is_seen():
    def twice(model, schema, data):
        rows = np.repeat(np.arange(len(data)), 2)
        codes = {name: getattr(data, name)[rows] for name in ("user", "item", "domain", "value")}
        return nuts.joint(model, schema, replace(data, **codes))

    got, expected = potentials(br.models.PMF(rank=1), twice)
    assert abs(got - expected) > 1.0


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
            trace = pyro.poutine.trace(nuts.joint(model, schema, data)).get_trace()
            found.append((*schema.center, *schema.scale, float(trace.log_prob_sum())))
    assert len(set(found)) == 1
    values = frame.query("domain == 'target'")["rating"].to_numpy()
    assert len({rng.permutation(values).std() for _ in range(20)}) > 1  # planted: sums in the order of the rows
