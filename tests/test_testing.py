"""The conformance suite catches planted faults: each broken model fails the check that is named beside it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesrec as br
from bayesrec.inference import sample_prior
from bayesrec.models import PMF, CollectiveMF, TransferMF
from bayesrec.testing import Case, ModelConformance, draws, example_frame, prediction
from bayesrec.testing.case import global_state_untouched


class IgnoresDomain(TransferMF):
    """Scores source rows with the target's vectors."""

    def vectors(self, latents, batch):
        return latents["user_vector"][..., batch.user, :], latents["item_vector"][..., batch.item, :]


class WrongDims(PMF):
    """Says that item means belong to items."""

    @property
    def latent_dims(self):
        return super().latent_dims | {"item_mean": ("item", "component")}


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


class TorchDice(PMF):
    """Disturbs torch's global generator when it predicts."""

    def population(self, latents):
        torch.rand(1)
        return super().population(latents)


class Diary(PMF):
    """Keeps notes on itself."""

    def blocks(self, table):
        object.__setattr__(self, "seen", table.n_users)
        return super().blocks(table)


class NarrowPopulation(TransferMF):
    """Is too sure about people nobody has seen."""

    def population(self, latents):
        out = super().population(latents)
        return dataclasses.replace(out, user_cov=0.5 * out.user_cov)


class NarrowSource(CollectiveMF):
    """Is too sure about strangers in the source."""

    def population(self, latents):
        out = super().population(latents)
        half = torch.tensor([0.5, 1.0])[:, None, None]
        return dataclasses.replace(out, user_cov=half * out.user_cov)


class SureOfNewItems(PMF):
    """Takes every unknown item for the average one."""

    def population(self, latents):
        out = super().population(latents)
        return dataclasses.replace(out, item_var=0.0 * out.item_var)


class QuietStrangers(br.Gaussian):
    """Gives every unknown user the noise of the average one."""

    def unknown_user(self, latents):
        return {name: torch.zeros_like(x) for name, x in super().unknown_user(latents).items()}


class ShiftedItems(CollectiveMF):
    """Takes an unknown item for a good one."""

    def population(self, latents):
        out = super().population(latents)
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


FAULTS = [
    (IgnoresDomain(rank=1), True, draws.stated_log_density, "not that of score"),
    (NarrowSource(rank=1), True, prediction.unknown_user, "'source'.*simulation"),
    (WrongDims(rank=1), False, draws.draws_match_dims, "item_mean.*dims"),
    (ForgottenSite(rank=1), False, draws.prior_samples_dims, "returns other sites"),
    (LoopsOverTheLastDraw(rank=1), False, draws.score_broadcasts, "draw axis"),
    (PrivateDice(rank=1), False, draws.no_global_state, "fit changes NumPy's"),
    (TorchDice(rank=1), False, draws.no_global_state, "predict changes torch's"),
    (Diary(rank=1), False, draws.model_unchanged, "attributes"),
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
    prediction.unknown_user(Case(PMF(rank=1), False, frame))
    with pytest.raises(AssertionError, match="simulation"):
        prediction.unknown_user(Case(PMF(rank=1, likelihood=QuietStrangers()), False, frame))


def test_the_same_checks_pass_a_sound_model():
    case = Case(CollectiveMF(rank=1))
    for check in {check for _, _, check, _ in FAULTS}:
        check(case)


def test_every_check_is_a_test_of_the_suite():
    for name in [*draws.__all__, *prediction.__all__]:
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
