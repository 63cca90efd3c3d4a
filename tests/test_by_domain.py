"""A likelihood per domain: against one Gaussian for all, against the joint law (Geweke 2004), and by domain what users see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from test_conjugate import calm, twist
from test_geweke import MODELS, bounded, design, eta, moments
from test_ordinal import ratings

import bayesrec as br
from bayesrec import conjugate
from bayesrec.errors import DataError
from bayesrec.likelihoods import ByDomain
from bayesrec.models.base import Batch, Schema
from bayesrec.table import Table

QUICK = br.Gibbs(draws=20, warmup=20, chains=2)
N = 2000


def data(frame=None):
    return br.Interactions.from_frame(ratings() if frame is None else frame, target="target", value="value")


def of(**parts):
    return br.models.CollectiveMF(rank=1, likelihood=parts)


def test_two_gaussians_are_one(monkeypatch):
    """With one noise for all users, and scales set to a function of what they would be drawn from, draws are equal."""
    monkeypatch.setattr(
        conjugate,
        "half_t_scale",
        lambda scale, squares, n, prior, rng, dof=3.0: np.sqrt((np.asarray(squares) + 1) / (np.asarray(n) + 3)),
    )
    plain = br.Gaussian(user_noise=False)
    fits = [
        br.fit(replace(of(source=plain), likelihood=likelihood), data(), QUICK, progress=False)
        for likelihood in (plain, {"target": plain, "source": plain})
    ]
    one, two = (dict(fit.draws) for fit in fits)
    np.testing.assert_array_equal(one.pop("noise")[..., 1], two.pop("noise_target")[..., 0])
    del two["noise_source"]
    assert all(np.array_equal(one[name], two[name]) for name in one)
    rows = ratings().head(30)
    assert fits[0].predict(rows).equals(fits[1].predict(rows))
    np.testing.assert_allclose(fits[0].log_score(rows), fits[1].log_score(rows), rtol=1e-12)
    assert np.allclose(fits[0].stats["log_density"], fits[1].stats["log_density"])
    many = [br.recommend(fit, range(20), n=3) for fit in fits]
    pd.testing.assert_frame_equal(*many)


def test_a_table_is_cut_by_domain():
    """Every entry of the tables of single domains, against tables built from the rows of each."""
    whole, schema = data(), Schema.of(data())
    for d, part in enumerate(schema.table(whole).parts):
        rows = whole.mask(whole.domain == d)
        items = np.flatnonzero(whole.item_domain == d)
        want = Table.build(
            rows.user, np.searchsorted(items, rows.item), np.zeros(len(rows), int), schema.standardise(rows.value, rows.domain),
            n_users=whole.n_users, n_items=len(items), item_domain=np.zeros(len(items), int), n_domains=1,
        )  # fmt: skip
        for name in (
            "user_ptr",
            "user_item",
            "user_value",
            "item_ptr",
            "item_user",
            "item_value",
            "user_cell",
            "item_cell",
        ):
            np.testing.assert_array_equal(getattr(part.table, name), getattr(want, name), err_msg=name)
        np.testing.assert_array_equal(part.table.count, want.count)
        np.testing.assert_array_equal(schema.table(whole).user_value[part.rows], want.user_value)
        np.testing.assert_array_equal(schema.table(whole).item_value[part.item_rows], want.item_value)


# Geweke: an ordinal source, a Gaussian target


def world():
    parts = (("a", br.Ordinal()), ("b", br.Gaussian()))
    model = replace(MODELS["CollectiveMF"][0], likelihood=ByDomain(parts))
    table, rng = design(2), np.random.default_rng(0)
    schema = Schema(
        12,
        table.n_items,
        ("a", "b"),
        torch.from_numpy(table.item_domain),
        np.zeros(2),
        np.ones(2),
        None,
        (np.arange(4.0), None),
    )
    with torch.random.fork_rng(devices=[]), pyro.poutine.block(), pyro.plate("replication", N, dim=-1):
        torch.manual_seed(0)
        x = {site: value.double().numpy() for site, value in model.prior(schema).items()}
    assert set(x) == set(model.dims)
    mean, source = eta(table, x), table.user_domain == 0
    log = np.where(
        source, x["user_log_precision_a"][:, 0][:, table.user_of], x["user_log_precision_b"][:, 0][:, table.user_of]
    )
    sd = np.exp(-1.5 * np.tanh(log / 3)) * np.where(source, 1.0, x["noise_b"])
    value = mean + sd * rng.standard_normal(sd.shape)
    code = (value[..., None] > x["cut_a"]).sum(-1).astype(float)
    return model, table, x | {"response": value}, np.where(source, code, value), source


def features(table, x, value, source):
    out = {}
    error = x["response"] - eta(table, x)
    bounded(out, "cut", x["cut_a"])
    bounded(out, "noise", np.log(x["noise_b"]))
    bounded(out, "level a", x["user_level_a"])
    bounded(out, "level b", x["user_level_b"])
    item = (x["item_vector"] - x["item_mean"][:, table.item_domain]) / x["item_scale"][:, table.item_domain]
    moments(out, "item", item)
    out["source"] = (np.tanh(error) * value)[:, source].mean(1)
    scaled = np.tanh(error / x["noise_b"]) ** 2
    out["target"] = scaled[:, ~source].mean(1)
    out["target and width"] = (scaled * np.tanh(x["user_log_precision_b"][:, 0][:, table.user_of]))[:, ~source].mean(1)
    out["source and width"] = (np.tanh(error) ** 2 * np.tanh(x["user_log_precision_a"][:, 0][:, table.user_of]))[
        :, source
    ].mean(1)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, "rows"])
def test_sweeps_leave_the_joint_law(fault, monkeypatch):
    """All blocks once, in their order; 1e-4 of runs would say otherwise."""
    model, table, x, value, source = world()
    if fault:
        twist(monkeypatch, conjugate, "noise_slices", _4=lambda squares: 1.3 * squares)
    rng, after = np.random.default_rng(1), []
    for r in range(N):
        mine = replace(table, user_value=value[r], item_value=value[r][table.item_place])
        state = {site: x[site][r].copy() for site in x} | {"0@response": x["response"][r][source].copy()}
        for block in model.blocks(mine):
            if block.swept:
                state |= block.update(state, rng)
        after.append({site: np.asarray(state[site]) for site in x})
    new = {site: np.stack([s[site] for s in after]) for site in x}
    a, b = features(table, x, value, source), features(table, new, value, source)
    change = np.stack([b[f] - a[f] for f in a], 1)
    change = change[:, np.abs(change).max(0) > 1e-9]
    assert calm(change.mean(0) / change.std(0) * np.sqrt(N)) is (fault is None)


# what users see


MIXES = {
    "clicks and stars": {"source": br.Implicit(), "target": br.Ordinal()},
    "stars and clicks": {"source": br.Ordinal(), "target": br.Implicit()},
    "counts and t": {"source": br.Poisson(), "target": br.StudentT()},
    "yes and stars": {"target": br.Gaussian(), "source": br.Bernoulli()},
}


def mixed(name):
    frame = ratings()
    kinds = {domain: type(one).__name__ for domain, one in MIXES[name].items()}
    for domain, kind in kinds.items():
        mine = frame.domain == domain
        if kind == "Bernoulli":
            frame.loc[mine, "value"] = (frame.value[mine] > 2).astype(float)
    return frame


@pytest.mark.parametrize("name", MIXES)
def test_every_answer_comes_from_the_part_of_its_domain(name, tmp_path):
    """Predictions for both domains at once and one by one; saved and loaded; a newcomer; ArviZ."""
    frame = mixed(name)
    posterior = br.fit(br.models.TransferMF(rank=1, likelihood=MIXES[name]), data(frame), QUICK, progress=False)
    assert [str(domain) for domain, _ in posterior.model.likelihood.parts] == ["source", "target"]
    rows = frame.groupby("domain").head(8).sample(frac=1.0, random_state=0)
    together = posterior.predict(rows)
    assert np.isfinite(together[["mean", "sd", "lower", "upper"]].to_numpy()).all()
    score = posterior.log_score(rows)
    for domain in ("source", "target"):
        mine = (rows.domain == domain).to_numpy()
        alone = posterior.predict(rows[mine])
        pd.testing.assert_frame_equal(together[mine].reset_index(drop=True), alone)
        np.testing.assert_allclose(score[mine], posterior.log_score(rows[mine]), rtol=1e-9)
        one = MIXES[name][domain]
        d = ("source", "target").index(domain)
        unit = posterior.schema.units[d]
        sub = {site: posterior.latents()[f"{site}_{domain}"] for site in one.dims}
        batch = posterior.data.encode(rows[mine])
        codes = Batch(*(torch.from_numpy(np.array(x)) for x in (batch.user, batch.item, batch.domain)))
        response = posterior.model.score(posterior.latents(), codes)
        want = one.expected(response, sub, replace(codes, domain=torch.zeros_like(codes.domain)), [unit])
        np.testing.assert_allclose(alone["mean"], want.mean(0), rtol=1e-3, atol=1e-4)
    back = br.load(posterior.save(tmp_path / "p"))
    assert back.model == posterior.model
    assert back.predict(rows).equals(together)
    folded = posterior.fold_in(frame[frame.domain == "source"].head(5).assign(user=999))
    assert len(br.recommend(folded, [999, 0, 12345], n=2)) == 6
    tree = posterior.to_datatree()["posterior"]
    kind = type(MIXES[name]["source"]).__name__
    tree_noise = f"{'cut' if kind in ('Ordinal', 'Bernoulli') else 'noise'}_source"
    assert tree_noise in tree
    assert tree.coords["domain_source"].values.tolist() == ["source"]
    named = posterior.model.identified(posterior.latents())
    assert {"gate", tree_noise} <= set(named)
    assert not {name for name in named if name.startswith(("click", "popularity"))}


def test_levels_of_domains_have_lengths_of_their_own():
    frame = ratings()
    frame.loc[frame.domain == "source", "value"] = frame["value"].clip(upper=3)
    posterior = br.fit(of(source=br.Ordinal(), target=br.Ordinal()), data(frame), QUICK, progress=False)
    assert posterior.draws["cut_source"].shape[-2:] == (1, 2)
    assert posterior.draws["cut_target"].shape[-2:] == (1, 3)
    labels = posterior.to_datatree()["posterior"].coords
    assert labels["threshold_source"].values.tolist() == ["1|2", "2|3"]
    assert posterior.predict_proba(frame[frame.domain == "source"].head(3)).shape[1] == 3 + 3
    mean = posterior.predict(frame.groupby("domain").head(2))["mean"]
    assert mean.between(1, 4).all()


def test_pmf_takes_the_part_of_the_target():
    model = br.models.PMF(rank=1, likelihood={"source": br.Implicit(), "target": br.Ordinal()})
    posterior = br.fit(model, data(), QUICK, progress=False)
    assert [*posterior.model.likelihood.dims] == [*(f"{site}_target" for site in br.Ordinal().dims)]


def test_threads_and_checkpoints_change_nothing(tmp_path):
    model = of(source=br.Ordinal(), target=br.Implicit())
    fits = [br.fit(model, data(), replace(QUICK, threads=n), progress=False) for n in (1, 2)]
    fits.append(br.fit(model, data(), QUICK, progress=False, checkpoint=tmp_path / "c"))
    assert all(np.array_equal(fit.draws[name], fits[0].draws[name]) for fit in fits for name in fit.draws)


@pytest.mark.parametrize("name", ["counts and t", "yes and stars"])
def test_pyro_and_gibbs_have_one_density(name):
    """What NUTS multiplies, rating by rating, against what Gibbs reports for its draws."""
    frame = mixed(name)
    posterior = br.fit(br.models.CollectiveMF(rank=1, likelihood=MIXES[name]), data(frame), QUICK, progress=False)
    rows, model = posterior.data, posterior.model
    batch = Batch(*(torch.from_numpy(np.array(x)) for x in (rows.user, rows.item, rows.domain)))
    value = torch.from_numpy(posterior.schema.standardise(rows.value, rows.domain))
    table = posterior.schema.table(rows)
    for chain, draw in ((0, 0), (1, 19)):
        state = posterior.draw(chain, draw)
        latents = {name: torch.from_numpy(np.asarray(x)) for name, x in state.items()}
        law = model.likelihood.distribution(model.score(latents, batch), latents, batch)
        assert law.log_prob(value).sum().item() == pytest.approx(_whole_density(model, state, table), rel=1e-6)


def _whole_density(model, state, table):
    return model.log_density(model.start(table, np.random.default_rng(0)) | state, table)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"source": br.Gaussian()}, r"none for the domain 'target'; it names \['source'"),
        (
            {"source": br.Gaussian(), "target": br.Gaussian(), "film": br.Gaussian()},
            "'film', which the data do not have",
        ),
        ({}, "names no domain"),
        ({"source": 3, "target": br.Gaussian()}, "domain 'source' must be one such as"),
    ],
)
def test_names_are_checked(parts, message):
    with pytest.raises(DataError, match=message):
        br.fit(br.models.CollectiveMF(rank=1, likelihood=parts), data(), QUICK, progress=False)


def test_values_are_checked_by_their_part():
    with pytest.raises(DataError, match=r"domain 'source' has a rating .* none of the levels 0, 1"):
        br.fit(of(source=br.Bernoulli(), target=br.Gaussian()), data(), QUICK, progress=False)


def test_prior_predictive():
    tree = br.sample_prior(of(source=br.Ordinal(), target=br.Gaussian(user_noise=False)), data(), draws=3)
    assert tree["prior"]["noise_target"].shape == (1, 3, 1)
