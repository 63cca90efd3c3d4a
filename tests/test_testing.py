"""The conformance suite catches planted faults: each broken model fails the check that is named beside it."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesrec as br
from bayesrec.blocks import Block
from bayesrec.errors import UnsupportedMethodError
from bayesrec.inference import NUTS, SVI, Gibbs, sample_prior
from bayesrec.inference.vmp_noise import Noise
from bayesrec.models import PMF, CollectiveMF, TransferMF, priors
from bayesrec.testing import Case, ModelConformance, agreement, draws, example_frame, prediction
from bayesrec.testing.case import global_state_untouched


class IgnoresDomain(TransferMF):
    """Scores source rows with the target's vectors."""

    def vectors(self, latents, batch):
        return latents["user_vector"][..., batch.user, :], latents["item_vector"][..., batch.item, :]


class WrongDims(PMF):
    """Says that item means belong to items."""

    @property
    def latent_dims(self):
        return super().latent_dims | {"item_mean": ("item", "latent_component")}


class ForgottenSite(PMF):
    """Names a site that the prior does not sample."""

    def prior(self, schema):
        out = super().prior(schema)
        out.pop("item_scale")
        return out


class LoopsOverTheLastDraw(PMF):
    """Forgets that there may be draw axes in front."""

    def score(self, latents, batch):
        eta = super().score(latents, batch)
        return eta if eta.dim() == 1 else eta - eta[-1:] + eta[:1]


class PrivateDice(PMF):
    """Starts from NumPy's global generator."""

    def start(self, table, rng):
        np.random.rand(1)  # noqa: NPY002
        return super().start(table, rng)


class InPlace(PMF):
    """Moves the users where they stand."""

    def blocks(self, table):
        def move(state, rng):
            state["user_vector"] += 1e-3
            return {"user_vector": state["user_vector"]}

        return [*super().blocks(table), Block("move", ("user_vector",), move)]


class TorchDice(PMF):
    """Disturbs torch's global generator when it predicts."""

    def population(self, latents, schema):
        torch.rand(1)
        return super().population(latents, schema)


class Diary(PMF):
    """Keeps notes on itself."""

    def blocks(self, table):
        object.__setattr__(self, "seen", table.n_users)
        return super().blocks(table)


class NarrowPopulation(TransferMF):
    """Is too sure about people nobody has seen."""

    def population(self, latents, schema):
        out = super().population(latents, schema)
        return dataclasses.replace(out, user_cov=0.5 * out.user_cov)


class NarrowSource(CollectiveMF):
    """Is too sure about strangers in the source."""

    def population(self, latents, schema):
        out = super().population(latents, schema)
        half = torch.tensor([0.5, 1.0])[:, None, None]
        return dataclasses.replace(out, user_cov=half * out.user_cov)


class SureOfNewItems(PMF):
    """Takes every unknown item for the average one."""

    def population(self, latents, schema):
        out = super().population(latents, schema)
        return dataclasses.replace(out, item_cov=0.0 * out.item_cov)


class QuietStrangers(br.Gaussian):
    """Gives every unknown user the noise of the average one."""

    def unknown_user(self, latents):
        return {name: torch.zeros_like(x) for name, x in super().unknown_user(latents).items()}


class ShiftedItems(CollectiveMF):
    """Takes an unknown item for a good one."""

    def population(self, latents, schema):
        out = super().population(latents, schema)
        return dataclasses.replace(out, item={"item_vector": latents["item_mean"] + 0.5})


class FirstComeFirstServed(PMF):
    """Likes the users with small codes."""

    def vectors(self, latents, batch):
        user, item = super().vectors(latents, batch)
        shift = torch.zeros_like(user)
        shift[..., 0] = (batch.user < 15).to(user.dtype) - 0.5
        return user + shift, item


class Stubborn(PMF):
    """Draws the same whatever the seed."""

    def blocks(self, table):
        def frozen(block):
            return dataclasses.replace(block, update=lambda state, rng: block.update(state, np.random.default_rng(0)))

        return [frozen(block) for block in super().blocks(table)]

    def start(self, table, rng):
        return super().start(table, np.random.default_rng(0))


class Leaky(CollectiveMF):
    """Claims to use the target alone."""


class Wide(PMF):
    """Expects items a hundred times as good as others."""

    def prior(self, schema):
        return {name: x * 100 if name == "item_vector" else x for name, x in super().prior(schema).items()}


class LastRowDecides(PMF):
    """Depends on the order of the rows of the table."""

    def check(self, data):
        super().check(data)
        object.__setattr__(data, "value", data.value + 0.01 * data.value[-1] * (np.arange(len(data)) == 0))


class Rescaled(br.Gaussian):
    """Scales the density of a batch up to a thousand rows, twice over."""

    def distribution(self, eta, latents, batch):
        law = super().distribution(eta, latents, batch)
        factor = (1000.0 / eta.shape[-1]) ** 0.5
        return dist.Normal(law.loc, law.scale * factor)


class Doubled(br.Gaussian):
    """Counts every rating twice in the sampler."""

    def log_density(self, state, table, errors):
        return 2.0 * super().log_density(state, table, errors)


class OthersInTheMatrix(PMF):
    """Gives SVI the vectors of other users."""

    def raters(self, latents):
        return super().raters(latents).flip(-2)


class PriorOfAnother(PMF):
    """Samples users whom its blocks do not know: all nearly alike."""

    def prior(self, schema):
        out = priors.item_prior(schema, self.rank) | priors.population_prior(self.rank)
        shape = out["user_mean"].shape[:-1] + (schema.n_users,)
        cov = 1e-4 * torch.eye(self.rank + 1)
        users = dist.MultivariateNormal(out["user_mean"].unsqueeze(-2), covariance_matrix=cov)
        out["user_vector"] = pyro.sample("user_vector", users.expand(shape).to_event(1))
        return out | self.likelihood.prior(schema)


class PreciseForSVI(br.Gaussian):
    """Gives SVI a third of the noise."""

    def precision(self, latents):
        return 9.0 * super().precision(latents)


class NoFits(PMF):
    """Refuses every method, and says so before anything is done."""

    def start(self, table, rng):
        raise UnsupportedMethodError("there is no way to fit this")


class NoSVI(PMF):
    """Refuses SVI, after some sweeps."""

    def leaves(self, table):
        raise UnsupportedMethodError("no SVI")


SHORT_SVI = SVI(steps=5, draws=10, chains=2)

FAULTS = [
    (IgnoresDomain(rank=1), True, draws.stated_log_density, "not that of score"),
    (NarrowSource(rank=1), True, prediction.unknown_user, "'source'.*simulation"),
    (WrongDims(rank=1), False, draws.draws_match_dims, "item_mean.*dims"),
    (ForgottenSite(rank=1), False, draws.prior_samples_dims, "returns other sites"),
    (LoopsOverTheLastDraw(rank=1), False, draws.score_broadcasts, "draw axis"),
    (PrivateDice(rank=1), False, draws.no_global_state, "fit changes NumPy's"),
    (TorchDice(rank=1), False, draws.no_global_state, "predict changes torch's"),
    (Diary(rank=1), False, draws.model_unchanged, "attributes"),
    (InPlace(rank=1), False, draws.blocks_leave_the_state, "block 'move' changes.*user_vector"),
    (NarrowPopulation(rank=1), True, prediction.unknown_user, "simulation"),
    (ShiftedItems(rank=1), True, prediction.unknown_item, "simulation"),
    (SureOfNewItems(rank=1), False, prediction.unknown_both, "simulation"),
    (FirstComeFirstServed(rank=1), False, prediction.relabelling, "depend on the ids"),
    (Stubborn(rank=1), False, draws.equal_seeds, "do not depend on the seed"),
    (Leaky(rank=1), False, prediction.source_is_used, "uses_source=False"),
    (PMF(rank=1), True, prediction.source_is_used, "uses_source=True"),
    (Wide(rank=1), False, prediction.prior_predictive_scale, "typical sd"),
    (LastRowDecides(rank=1), False, prediction.row_order, "order of the rows"),
    (PMF(rank=1, likelihood=Rescaled()), False, draws.batched_log_density, "do not add up"),
    (PMF(rank=1, likelihood=Doubled()), False, draws.stated_log_density, "not that of score"),
]


@pytest.mark.parametrize(
    ("model", "uses_source", "check", "message"), FAULTS, ids=lambda x: getattr(x, "__name__", None)
)
def test_a_broken_model_fails_its_check(model, uses_source, check, message):
    with pytest.raises(AssertionError, match=message):
        check(Case(model, uses_source))


def test_quiet_strangers_are_noticed_where_people_differ():
    """The fault is as large as the spread of the users' noise that the fit has learned, so the table has a wide one."""
    frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(12, 20), n_ratings=(6, 15), rank=1, noise=0.3)
    noise = np.random.default_rng(0).standard_normal(len(frame))
    frame = frame.assign(rating=frame["value"] + 2.0 * noise * (frame["user"] % 3 == 0)).drop(columns="value")
    method = Gibbs(draws=300, warmup=20, chains=2)  # the quadrature over a wide noise needs more draws than usual
    prediction.unknown_user(Case(PMF(rank=1), False, frame, method=method))
    with pytest.raises(AssertionError, match="simulation"):
        prediction.unknown_user(Case(PMF(rank=1, likelihood=QuietStrangers()), False, frame, method=method))


def test_the_same_checks_pass_a_sound_model():
    case = Case(CollectiveMF(rank=1))
    for check in {check for _, _, check, _ in FAULTS}:
        check(case)


DISAGREEMENTS = [
    (OthersInTheMatrix(rank=1), SHORT_SVI, "expected ratings"),
    (PriorOfAnother(rank=2), SHORT_SVI, "expected ratings"),
    (PMF(rank=1, likelihood=PreciseForSVI()), SHORT_SVI, "sd of a new rating"),
    pytest.param(PriorOfAnother(rank=2), NUTS(), "expected ratings", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("model", "method", "message"), DISAGREEMENTS)
def test_a_method_that_samples_another_posterior_is_caught(model, method, message, monkeypatch):
    if message.startswith("sd"):  # this fault moves expected ratings as well; it must be caught by the spread alone
        monkeypatch.setattr(agreement, "DISTANCE", float("inf"))
    with pytest.raises(AssertionError, match=f"{type(method).__name__}'s {message}"):
        agreement.agrees_with_gibbs(Case(model, False, method=method))


@pytest.mark.parametrize(("factor", "message"), [(0.05, "expected ratings"), (1.0, "sd of a new rating")])
def test_a_wrong_vmp_is_caught(factor, message, monkeypatch):
    """It weighs ratings as a twentieth, or draws a third of the noise."""
    weight, draw = Noise.weight, Noise.draw
    monkeypatch.setattr(Noise, "weight", lambda self: factor * weight(self))
    if factor == 1.0:
        monkeypatch.setattr(Noise, "draw", lambda self, rng: (x := draw(self, rng)) | {"noise": x["noise"] / 3.0})
    case = Case(PMF(rank=1), False, method=br.VMP(passes=5, draws=10, chains=2))
    with pytest.raises(AssertionError, match=f"VMP's {message}"):
        agreement.agrees_with_gibbs(case)


@pytest.mark.parametrize(
    ("model", "check", "message"),
    [
        (FirstComeFirstServed(rank=1), prediction.relabelling, "depend on the ids"),
        (LastRowDecides(rank=1), prediction.row_order, "order of the rows"),
        (Leaky(rank=1), prediction.source_is_used, "uses_source=False"),
        (PrivateDice(rank=1), draws.no_global_state, "fit changes NumPy's"),
    ],
)
def test_faults_of_a_fit_are_caught_under_another_method(model, check, message):
    with pytest.raises(AssertionError, match=message):
        check(Case(model, False, method=SHORT_SVI))


def test_a_refusal_comes_before_any_work():
    for method in ModelConformance.methods:
        agreement.refuses_at_once(Case(NoFits(rank=1), False, method=method))
    with pytest.raises(AssertionError, match="SVI is refused only after work: block 'users' was updated"):
        agreement.refuses_at_once(Case(NoSVI(rank=1), False, method=SHORT_SVI))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        agreement.refuses_at_once(Case(PMF(rank=1), False, method=SHORT_SVI))


def test_a_model_that_is_not_exported_is_saved_and_not_loaded():
    draws.save_and_load(Case(Leaky(rank=1)))
    namesake = type("PMF", (PMF,), {"__doc__": "Must not be taken for the model of the package."})
    draws.save_and_load(Case(namesake(rank=1), False))


def test_a_namesake_that_would_be_loaded_is_noticed():
    namesake = type("PMF", (PMF,), {"__doc__": "Is taken for the model of the package.", "__module__": "bayesrec.mine"})
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        draws.save_and_load(Case(namesake(rank=1), False))


def cells(cls, name):
    """Ids of the cells that a test of a conformance class runs in, with a "!" where they are slow."""
    found = []

    class Metafunc:
        fixturenames = ("case",)
        function = staticmethod(getattr(cls, name))

        class config:
            addinivalue_line = staticmethod(lambda *args: None)

        def parametrize(self, argument, values, **options):
            assert (argument, options) == ("case", {"indirect": True, "scope": "class"})
            found.extend(values)

    cls().pytest_generate_tests(Metafunc())
    return [p.id + ("!" if p.marks else "") for p in found]


def test_the_grid_is_every_likelihood_by_every_method():
    class Sound(ModelConformance):
        model = PMF(rank=1)

    class Picky(ModelConformance):
        model = PMF(rank=1, likelihood=PreciseForSVI())
        likelihoods = ()
        methods = (Gibbs(draws=5), SHORT_SVI, NUTS())
        refuses = (SVI,)

    class Stranger(ModelConformance):
        model = NoSVI(rank=1)
        likelihoods = (br.Ordinal(),)

    class GibbsAlone(ModelConformance):
        model = PMF(rank=1)
        methods = (Gibbs(draws=5),)

    one, other = "Gaussian", "Gaussian(user_noise=False)"
    everything = [f"{one}-{column}" for column in ("Gibbs", "VMP", "SVI", "NUTS!")]
    everything += [f"{other}-{column}" for column in ("Gibbs", "VMP!", "SVI!", "NUTS!")]
    assert cells(Sound, "test_row_order") == everything
    assert cells(Sound, "test_prior_samples_dims") == [f"{one}-Gibbs", f"{other}-Gibbs"]
    assert cells(Sound, "test_agrees_with_gibbs") == [cell for cell in everything if "Gibbs" not in cell]
    assert Sound.test_refuses_at_once is None
    assert cells(Picky, "test_row_order") == ["PreciseForSVI-Gibbs", "PreciseForSVI-NUTS!"]
    assert cells(Picky, "test_agrees_with_gibbs") == ["PreciseForSVI-NUTS!"]
    assert cells(Picky, "test_refuses_at_once") == ["PreciseForSVI-SVI"]
    assert cells(Stranger, "test_refuses_at_once") == [
        "Ordinal-VMP",
        f"{one}-VMP",
    ]  # VMP: no class of its own
    assert cells(Stranger, "test_agrees_with_gibbs") == [
        "Ordinal-SVI!",
        "Ordinal-NUTS!",
        f"{one}-SVI",
        f"{one}-NUTS!",
    ]
    assert GibbsAlone.test_agrees_with_gibbs is None


def test_the_page_on_extending_passes_its_own_test_file(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    (model,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    test, usage = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    (tmp_path / "zero_mean.py").write_text(model)
    (tmp_path / "test_zero_mean.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-W", "error", "-p", "no:cacheprovider"]
    command += ["-m", "not slow", "-k", "not user_noise", "test_zero_mean.py"]  # half the grid, for time
    run = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout
    assert re.search(r"\d\d passed, \d\d deselected", run.stdout), run.stdout
    assert "skipped" not in run.stdout
    monkeypatch.syspath_prepend(tmp_path)
    try:
        exec(compile(usage, "<docs>", "exec"), {"__name__": "docs"})
    finally:
        sys.modules.pop("zero_mean", None)


def test_every_check_is_a_test_of_the_suite():
    for name in [*draws.__all__, *prediction.__all__, *agreement.__all__]:
        assert f"test_{name}" in vars(ModelConformance), name


def test_reading_the_global_state_leaves_it_alone():
    with global_state_untouched("nothing"):
        pass
    with pytest.raises(AssertionError, match="leaves parameters"), global_state_untouched("a leak"):
        pyro.param("bayesrec_test_leak", torch.zeros(1))
    del pyro.get_param_store()["bayesrec_test_leak"]


def test_the_example_has_cold_users_and_items_of_one_number_in_both_domains():
    frame = example_frame()
    target, source = (frame[frame["domain"] == name] for name in ("target", "source"))
    assert set(source["user"]) - set(target["user"]) == {0, 1, 2, 3}
    assert set(source["item"]) & set(target["item"])
    assert not example_frame(1).equals(frame)


def test_prior_draws_do_not_depend_on_what_was_drawn_before():
    case = Case(PMF(rank=1))
    first = sample_prior(case.model, case.data, draws=2, seed=5)
    torch.rand(3)
    assert sample_prior(case.model, case.data, draws=2, seed=5).equals(first)
