"""The power prior: a rating that counts twice at a power of one half counts once, in every update and every density."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from pyro_program import joint
from scipy import stats
from test_conjugate import ALARM, by, twist

import bayesrec as br
from bayesrec import conjugate
from bayesrec.conjugate import Table
from bayesrec.diagnostics import powers
from bayesrec.errors import DataError
from bayesrec.inference.base import fit_unchecked
from bayesrec.inference.bound import bound_of
from bayesrec.models.base import Schema

MODEL = br.models.TransferMF(rank=2)
HALF = replace(MODEL, power=0.5)
METHOD = br.Gibbs(draws=10, warmup=10, chains=2)


def twice(schema, data):
    """The table of ratings in which every source rating stands twice."""
    rows = np.concatenate([np.arange(len(data)), np.flatnonzero(~data.is_target)])
    value = schema.standardise(data.value, data.domain)[rows]
    sizes = {"n_users": schema.n_users, "n_items": schema.n_items, "n_domains": schema.n_domains}
    known = {"item_domain": schema.item_domain.numpy(), "user_ids": schema.user_ids}
    return Table.build(data.user[rows], data.item[rows], data.domain[rows], value, **sizes, **known)


@pytest.mark.parametrize("fault", [{}, {"_2": by(1.01)}])
@pytest.mark.parametrize("model", [MODEL, replace(MODEL, prior_family="commensurate_spike_slab", gate=False)])
def test_every_update_of_half_the_power_and_twice_the_ratings(model, fault, data, monkeypatch):
    """With the same random numbers each block draws the same, to rounding; a hundredth more is caught."""
    schema = Schema.of(data)
    once, double = schema.table(data), twice(schema, data)
    state = model.start(once, np.random.default_rng(0))
    for block in model.blocks(once):  # away from the start, where all noise is alike
        state |= block.update(state, np.random.default_rng(1))
    pairs = list(zip(model.blocks(once), replace(model, power=0.5).blocks(double), strict=True))
    want = [one.update(state, np.random.default_rng(2)) for one, _ in pairs]
    twist(monkeypatch, conjugate, "half_t_scale", **fault)
    same = []
    for (one, half), left in zip(pairs, want, strict=True):
        assert one.name == half.name
        right = half.update(state, np.random.default_rng(2))
        same += [np.allclose(left[name], right[name], rtol=1e-7, atol=1e-9) for name in one.sites]
    assert all(same) is not bool(fault)


def test_who_informs_whom_at_half_the_power(data):
    schema = Schema.of(data)
    once, double = schema.table(data), twice(schema, data)
    state = MODEL.start(once, np.random.default_rng(0))
    want, got = MODEL.prior_precision(state, once), HALF.prior_precision(state, double)
    np.testing.assert_allclose(got.source, want.source, atol=1e-9)
    np.testing.assert_allclose(got.probability, want.probability, atol=1e-9)
    assert np.abs(HALF.prior_precision(state, once).source - want.source).max() > 0.01


def test_densities_of_svi_and_nuts_at_half_the_power(data):
    schema, rng = Schema.of(data), np.random.default_rng(0)
    once, double = schema.table(data), twice(schema, data)
    first = bound_of(MODEL, schema, once, rng, "rows")
    latents, _ = first.guide.sample(first.guide.take())
    with torch.no_grad():
        want = first.ratings(latents, first.parts.whole())
        second = bound_of(HALF, schema, double, np.random.default_rng(0), "rows")
        torch.testing.assert_close(second.ratings(latents, second.parts.whole()), want, rtol=1e-5, atol=1e-3)
        full = bound_of(MODEL, schema, double, np.random.default_rng(0), "rows")
        assert abs(float(full.ratings(latents, full.parts.whole()) - want)) > 1

    def log_density(model):
        program = joint(model, schema, data)
        fixed = {name: x.detach().double() for name, x in latents.items()}
        with pyro.poutine.block():
            trace = pyro.poutine.trace(pyro.poutine.condition(program, fixed)).get_trace()
        trace.compute_log_prob()
        return float(trace.nodes["_ratings"]["log_prob_sum"])

    parts = {power: log_density(replace(MODEL, power=power)) for power in (0.25, 0.5, 1.0)}
    np.testing.assert_allclose(parts[1.0] - parts[0.5], 2 * (parts[0.5] - parts[0.25]), rtol=1e-5)
    assert abs(parts[1.0] - parts[0.5]) > 1


def test_a_power_of_one_changes_nothing(data):
    """Bit for bit, also where the weights of one are multiplied in."""
    plain, one = (br.fit(m, data, METHOD, progress=False) for m in (MODEL, replace(MODEL, power=1)))
    assert all(np.array_equal(plain.draws[name], one.draws[name]) for name in plain.draws)
    schema = Schema.of(data)
    table = schema.table(data)
    state = MODEL.start(table, np.random.default_rng(0))
    ones = replace(table, weight=np.ones(2))
    for left, right in zip(MODEL.blocks(table), MODEL.likelihood.blocks(ones, MODEL.fitted(ones)), strict=False):
        if left.name == right.name:
            a, b = (block.update(state, np.random.default_rng(0)) for block in (left, right))
            assert all(np.array_equal(a[name], b[name]) for name in left.sites)
    half = br.fit(HALF, data, METHOD, progress=False)
    assert not np.array_equal(half.draws["user_vector"], plain.draws["user_vector"])


def test_a_power_of_zero_is_the_model_without_source_rows(data):
    zero = br.fit(replace(MODEL, power=0), data, METHOD, progress=False)
    bare = fit_unchecked(MODEL, data.mask(data.is_target), METHOD, seed=0)
    assert all(np.array_equal(zero.draws[name], bare.draws[name]) for name in bare.draws)
    assert (br.source_weight(zero, pd.DataFrame({"user": [6, 7], "item": [0, 1]}))["source"] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("power", [1e-6, 1.0])
def test_a_power_of_almost_zero_is_no_source_within_monte_carlo_error(power, data, target_rows):
    """Means of 20 predictions over independent chains: Welch's t with Bonferroni; a power of one is told apart."""
    method, cells = br.Gibbs(draws=300, warmup=300, chains=10), target_rows.iloc[::9].head(20)
    means = []
    for posterior in (
        br.fit(replace(MODEL, power=power), data, method, seed=1, progress=False),
        fit_unchecked(MODEL, data.mask(data.is_target), method, seed=2),
    ):
        chains = [replace(posterior, draws={k: x[c : c + 1] for k, x in posterior.draws.items()}) for c in range(10)]
        means.append(np.array([chain.predict(cells)["mean"] for chain in chains]))
    p = stats.ttest_ind(*means, equal_var=False).pvalue
    assert bool(p.min() * len(p) > ALARM) is (power < 1)


@pytest.mark.parametrize("power", [-0.1, 1.1, True, "half", float("nan")])
def test_powers_are_checked(power):
    with pytest.raises(DataError, match="power must be a number from 0 to 1"):
        br.models.TransferMF(power=power)


def test_powers_that_have_no_exact_update_are_refused():
    with pytest.raises(DataError, match=r"power=0\.5 needs ratings that are normal"):
        br.models.TransferMF(power=0.5, likelihood=br.Ordinal())
    assert br.models.TransferMF(power=0, likelihood=br.Ordinal()).power == 0


def test_the_least_power_within_one_standard_error_is_taken():
    rng, user = np.random.default_rng(0), np.repeat(np.arange(50), 4)
    base = rng.normal(-1, 0.3, 200)
    wobble = rng.normal(0, 0.5, 50)[user]  # between users
    wobble -= wobble.mean()
    scores = {0.0: base - 1.0, 0.25: base - 0.01 + wobble, 0.5: base, 1.0: base - 0.2}
    table, best, power = powers.judged(scores, user)
    assert (best, power) == (0.5, 0.25)
    sums = np.bincount(user, wobble)
    np.testing.assert_allclose(table.loc[0.25, "difference"], -0.01, atol=1e-12)
    np.testing.assert_allclose(table.loc[0.25, "difference_se"], np.sqrt(50 / 49 * (sums**2).sum()) / 200, rtol=1e-9)
    assert powers.judged({0.0: base - 0.1, 1.0: base}, user)[2] == 1.0  # the same for everybody: no error, no mercy


@pytest.fixture(scope="module")
def choices(tmp_path_factory):
    """A source that helps, and the same with its users deranged."""
    frame, _ = br.data.synthetic.cross_domain(n_users=80, n_items=(25, 20), n_ratings=(15, 8), rank=1, correlation=0.95)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    options = {"grid": (0.0, 1.0), "folds": 2, "progress": False}
    method, model = br.Gibbs(draws=60, warmup=60, chains=2), br.models.TransferMF(rank=1)
    return [br.choose_power(model, rows, method, **options) for rows in (data, br.data.derange_sources(data))]


def test_a_good_source_gets_its_weight_and_a_deranged_one_none(choices):
    good, deranged = choices
    assert (good.power, good.best, good.model.power) == (1.0, 1.0, 1.0)
    assert good.table.loc[0.0, "difference"] < -5 * good.table.loc[0.0, "difference_se"]
    assert deranged.power == 0.0
    assert good.table.columns.tolist() == ["log_score", "se", "difference", "difference_se"]


def test_cached_scores_are_read_and_belong_to_their_call(data, tmp_path, monkeypatch):
    options = {"method": br.Gibbs(draws=4, warmup=4, chains=1), "folds": 2, "cache": tmp_path, "progress": False}
    first = br.choose_power(MODEL, data, grid=(0, 1), **options)
    assert len(list(tmp_path.iterdir())) == 4
    real, fits = powers.fit, []
    monkeypatch.setattr(powers, "fit", lambda *args, **more: fits.append(args) or real(*args, **more))
    again = br.choose_power(MODEL, data, grid=(1, 0.5, 0), **options)
    assert [args[0].power for args in fits] == [0.5, 0.5]
    pd.testing.assert_series_equal(again.table.loc[[0.0, 1.0], "log_score"], first.table["log_score"])
    br.choose_power(replace(MODEL, gate=False), data, grid=(1,), **options)
    assert len(fits) == 4


@pytest.mark.parametrize("grid", [(), (0.5, 0.5), (2,)])
def test_grids_are_checked(grid, data):
    with pytest.raises(DataError, match="from 0 to 1"):
        br.choose_power(MODEL, data, METHOD, grid=grid, folds=2)
    with pytest.raises(DataError, match="PMF has no power to choose"):
        br.choose_power(br.models.PMF(rank=2), data, METHOD, folds=2)
