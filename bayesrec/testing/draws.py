"""Checks on draws, seeds and side effects. Each takes a Case and raises AssertionError. Provisional."""

from __future__ import annotations

import copy
import dataclasses
import tempfile

import numpy as np
import pyro
import pyro.poutine
import pytest
import torch

from bayesrec import inference, likelihoods, models
from bayesrec.errors import LoadError
from bayesrec.inference import Gibbs, load, sample_prior
from bayesrec.models.base import Batch, Schema
from bayesrec.posterior import Posterior
from bayesrec.posterior.arviz import coordinates
from bayesrec.ranking import recommend
from bayesrec.testing.case import UNKNOWN, Case, global_state_untouched, quiet

__all__ = [
    "batched_log_density",
    "blocks_leave_the_state",
    "draws_match_dims",
    "equal_seeds",
    "model_unchanged",
    "no_global_state",
    "prior_samples_dims",
    "save_and_load",
    "score_broadcasts",
    "stated_log_density",
]


def draws_match_dims(case: Case) -> None:
    """Check that draws are float32 in C order, (chain, draw, *event), with the event that ``dims`` announces."""
    posterior = case.posterior
    sizes = {axis: len(labels) for axis, labels in coordinates(posterior).items()}
    assert set(posterior.draws) == set(case.model.dims), "draws and dims name different sites"
    for name, axes in case.model.dims.items():
        array, clash = posterior.draws[name], {name} & set(sizes)
        unknown = [axis for axis in axes if axis not in sizes]
        assert not unknown, f"site {name!r} has axes {unknown} without coordinates"
        assert not clash, f"site {name!r} has the name of an axis, which ArviZ refuses"
        want = (posterior.n_chains, posterior.n_draws, *(sizes[axis] for axis in axes))
        assert array.shape == want, f"site {name!r} has draws {array.shape}; dims {axes} mean {want}"
        assert array.dtype == np.float32, f"site {name!r} is {array.dtype}, not float32"
        assert array.flags.c_contiguous, f"site {name!r} is not in C order"
        assert np.isfinite(array).all(), f"site {name!r} is not finite"


def prior_samples_dims(case: Case) -> None:
    """``prior`` samples the sites of ``dims``, no other, with the announced shapes, and returns them."""
    schema = Schema.of(case.model.view(case.data), case.model.likelihood)
    with torch.random.fork_rng(devices=[]), pyro.poutine.block(), pyro.poutine.trace() as traced:
        latents = case.model.prior(schema)
    sites = {name: node for name, node in traced.trace.nodes.items() if node["type"] == "sample"}
    assert set(sites) == set(case.model.dims), "prior samples other sites than dims names"
    assert set(latents) == set(case.model.dims), "prior returns other sites than dims names"
    for name, node in sites.items():
        assert latents[name] is node["value"], f"prior returns something else than the site {name!r}"
        shape = case.posterior.draws[name].shape[2:]
        assert node["value"].shape == shape, f"prior of {name!r} has shape {tuple(node['value'].shape)}, draws {shape}"
    tree = sample_prior(case.model, case.data, draws=3)
    assert set(tree["prior"].data_vars) == set(case.model.dims)
    predicted = tree["prior_predictive"].data_vars
    assert list(predicted) == ["rating"], "the prior predictive group does not hold the ratings"
    assert predicted["rating"].shape == (1, 3, len(case.target_frame))


def score_broadcasts(case: Case) -> None:
    """``score`` with leading draw axes equals a loop over draws, bit by bit."""
    model, rows, latents = case.model, case.rows, case.posterior.latents()
    together = model.score(latents, rows)
    n = case.posterior.n_chains * case.posterior.n_draws
    assert together.shape == (n, len(rows.user)), f"score has shape {tuple(together.shape)}, not (draw, row)"
    for s in range(0, n, max(1, n // 10)):
        alone = model.score({name: x[s] for name, x in latents.items()}, rows)
        assert torch.equal(together[s], alone), "score with a draw axis differs from score of one draw"
    by_chain = {name: torch.from_numpy(x) for name, x in case.posterior.draws.items()}
    assert torch.equal(model.score(by_chain, rows).reshape(n, -1), together), "score with two draw axes differs"


def _density(case: Case, latents: dict, rows: Batch, value: torch.Tensor) -> torch.Tensor:
    """Log density of each row, (draw, row)."""
    eta = case.model.score(latents, rows)
    return case.model.likelihood.distribution(eta, latents, rows).log_prob(value)


def batched_log_density(case: Case) -> None:
    """Log densities of chunks of rows sum to the one of all rows, for every draw."""
    data, rows = case.posterior.data, case.rows
    latents = {name: x.double() for name, x in case.posterior.latents().items()}
    value = torch.from_numpy(case.posterior.schema.standardise(data.value, data.domain))
    full = _density(case, latents, rows, value).sum(-1)
    total = torch.zeros_like(full)
    for codes in torch.arange(len(value)).split(37):
        batch = Batch(rows.user[codes], rows.item[codes], rows.domain[codes])
        total += _density(case, latents, batch, value[codes]).sum(-1)
    torch.testing.assert_close(total, full, rtol=1e-9, atol=1e-9, msg="log densities of batches do not add up")


def stated_log_density(case: Case) -> None:
    """Compare the sampler's own ``log_density`` with what ``score`` and ``likelihood.distribution`` say."""
    stated = case.posterior.stats.get("log_density")
    if stated is None:
        return
    data = case.posterior.data
    latents = {name: x.double() for name, x in case.posterior.latents().items()}
    value = torch.from_numpy(case.posterior.schema.standardise(data.value, data.domain))
    ours = _density(case, latents, case.rows, value).sum(-1).reshape(stated.shape).numpy()
    message = "the sampler's log density is not that of score and likelihood"
    np.testing.assert_allclose(ours, stated, rtol=1e-4, atol=0.01, err_msg=message)


def _equal(a: Posterior, b: Posterior) -> bool:
    return all(np.array_equal(a.draws[name], b.draws[name]) for name in a.draws)


def equal_seeds(case: Case) -> None:
    """One seed gives equal draws, whatever the threads; another seed gives other draws."""
    first = case.posterior
    assert _equal(first, case.fit()), "two fits with one seed differ"
    if isinstance(case.method, Gibbs):
        for threads in (1, 2):
            method = dataclasses.replace(case.method, threads=threads)
            assert _equal(first, case.fit(method=method)), f"draws depend on threads={threads}"
    other = case.fit(seed=1)
    same = [name for name in first.draws if np.array_equal(first.draws[name], other.draws[name])]
    assert not same, f"sites {same} do not depend on the seed"


def no_global_state(case: Case) -> None:
    """Nothing touches the global generators or Pyro's parameter store."""
    with global_state_untouched("fit"):
        posterior = case.fit()
    with global_state_untouched("sample_prior"):
        sample_prior(case.model, case.data, draws=2)
    rows = case.target_frame.head(5)
    with global_state_untouched("predict"):
        posterior.predict(rows)
        posterior.log_score(rows)
    with global_state_untouched("recommend"), quiet():
        recommend(posterior, [int(rows["user"].iloc[0]), UNKNOWN], n=3, by="thompson")
    with global_state_untouched("fold_in"), quiet():
        new = rows.assign(user=UNKNOWN)
        posterior.fold_in(new, features=case.features("user", new))
    with global_state_untouched("to_datatree"):
        posterior.to_datatree()


def blocks_leave_the_state(case: Case) -> None:
    """Check that no block changes an array in place: what was computed from one is kept as long as it is the same object."""
    table, rng = case.posterior.schema.table(case.posterior.data), np.random.default_rng(0)
    state = case.model.start(table, rng)
    for block in case.model.blocks(table):
        before = {name: np.array(value) for name, value in state.items()}
        new = block.update(state, rng)
        changed = [name for name, value in before.items() if not np.array_equal(value, state[name])]
        assert not changed, f"block {block.name!r} changes {changed} in place; return new arrays"
        state |= new


def model_unchanged(case: Case) -> None:
    """Check that a model is a frozen, hashable value that fitting does not change."""
    model, twin, before = case.model, copy.deepcopy(case.model), dict(vars(case.model))
    posterior = case.fit()
    assert vars(model) == before, "fit changes the model's attributes"
    assert model == twin, "fit changes the model"
    assert hash(model) == hash(twin), "equal models have different hashes"
    assert posterior.model is model, "the posterior holds another model"
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.rank = model.rank + 1  # type: ignore[misc]


def save_and_load(case: Case) -> None:
    """Check that what was saved and loaded gives the same draws, predictions, scores and lists, bit by bit.

    Only what bayesrec exports can be loaded: a posterior of another class must be refused by the name of that class.
    """
    posterior, rows = case.posterior, case.frame if case.uses_source else case.target_frame
    rows = rows.iloc[::7].reset_index(drop=True)
    rows.loc[0, "user"] = UNKNOWN
    parts, known = (case.model, case.model.likelihood, case.method), (models, likelihoods, inference)
    exported = {getattr(module, name) for module in known for name in module.__all__}
    foreign = [rf"\.{type(part).__name__}'" for part in parts if type(part) not in exported]
    with tempfile.TemporaryDirectory() as folder:
        path = posterior.save(f"{folder}/saved")
        if foreign:
            with pytest.raises(LoadError, match="|".join(foreign)):
                load(path)
            return
        back = load(path)
    assert back.model == posterior.model, "the model changed on disk"
    assert back.method == posterior.method, "the method changed on disk"
    assert set(back.draws) == set(posterior.draws)
    for name, array in posterior.draws.items():
        assert back.draws[name].dtype == array.dtype, f"{name!r} changed its dtype on disk"
        assert np.array_equal(back.draws[name], array), f"draws of {name!r} changed on disk"
    for name, array in posterior.stats.items():
        assert np.array_equal(back.stats[name], array), f"stats {name!r} changed on disk"
    assert back.predict(rows).equals(posterior.predict(rows)), "predictions changed on disk"
    assert np.array_equal(back.log_score(rows), posterior.log_score(rows)), "log scores changed on disk"
    users = [int(u) for u in case.target_frame["user"].unique()[:3]] + [UNKNOWN]
    with quiet():
        lists = [recommend(p, users, n=4, by="thompson") for p in (posterior, back)]
    assert lists[0].equals(lists[1]), "lists changed on disk"
