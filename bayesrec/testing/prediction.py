"""Checks on the law of predictions and on reports. Each takes a Case and raises AssertionError. Provisional."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.poutine
import torch
from scipy import stats
from scipy.special import logsumexp

from bayesrec.inference import sample_prior
from bayesrec.likelihoods import Poisson, Units
from bayesrec.models.base import Batch, Schema
from bayesrec.posterior.arviz import coordinates
from bayesrec.testing.case import UNKNOWN, Case, quiet

__all__ = [
    "datatree",
    "diagnostics_with_chains",
    "prior_predictive_scale",
    "relabelling",
    "row_order",
    "source_is_used",
    "unknown_both",
    "unknown_item",
    "unknown_user",
]

FALSE_ALARM = 1e-3  # of relabelling: once in a thousand runs by chance
NEW = 400  # newcomers simulated for each draw
SLACK = 0.035  # relative: the noise of a newcomer is a quadrature over few draws


def relabelling(case: Case) -> None:
    """Other ids for the same users and items change predictions only by Monte Carlo error.

    Chains are independent and equal in law whether or not they have converged, so the two fits are compared by a
    t test of chain means in every probe cell, with Bonferroni's correction: by chance it fails one run in a thousand.
    """
    rng = np.random.default_rng(20)
    method = case.with_chains(10)
    frame, other = case.frame, case.frame.copy()
    users = frame["user"].unique()
    other["user"] = frame["user"].map(dict(zip(users, rng.permutation(users), strict=True)))
    for _, part in frame.groupby("domain"):
        items = part["item"].unique()
        names = dict(zip(items, rng.permutation(items), strict=True))
        other.loc[part.index, "item"] = part["item"].map(names)
    means = []
    for table in (frame, other):
        means.append(case.eta(case.fit(case.interactions(table), method), table).mean(1))
    p = stats.ttest_ind(*means, axis=0, equal_var=False).pvalue * means[0].shape[1]
    assert p.min() > FALSE_ALARM, f"predictions depend on the ids: a corrected p value of {p.min():.1e}"


def row_order(case: Case) -> None:
    """Check that the order of the rows of a table changes no bit of the draws."""
    shuffled = case.frame.sample(frac=1.0, random_state=3)
    other = case.fit(case.interactions(shuffled))
    for name, array in case.posterior.draws.items():
        assert np.array_equal(array, other.draws[name]), f"site {name!r} depends on the order of the rows"


def source_is_used(case: Case) -> None:
    """Source ratings bear on target predictions if, and only if, the model says so."""
    other = case.frame.copy()
    source = other["domain"] != case.target
    other.loc[source, "rating"] = other.loc[source, "rating"].to_numpy()[::-1]
    rows = case.target_frame[["user", "item"]]
    posteriors = case.posterior, case.fit(case.interactions(other))
    means = [posterior.predict(rows)["mean"].to_numpy() for posterior in posteriors]
    equal = np.array_equal(*means)
    assert equal != case.uses_source, f"uses_source={case.uses_source}, but source rows say otherwise"


def _newcomers(
    case: Case, new: set[str], row: int, domain: int, up_to: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance, log density and distribution function (draw, newcomer), for newcomers simulated from ``prior``.

    Given each draw the sites with an axis in ``new`` ("user", "item") are drawn anew, many at a time; all else stays.
    The partner of a newcomer, and the value, are those of a training row. The distribution function is that of counts at
    ``up_to``, and zero below zero.
    """
    posterior, model, data = case.posterior, case.model, case.posterior.data
    everyone = torch.arange(NEW)
    user = everyone if "user" in new else torch.full((NEW,), int(data.user[row]))
    item = everyone if "item" in new else torch.full((NEW,), int(data.item[row]))
    batch = Batch(user, item, torch.full((NEW,), domain))
    schema = posterior.schema
    if "user" in new:
        schema = dataclasses.replace(schema, n_users=NEW, user_x=_resampled(schema.user_x, np.arange(schema.n_users)))
    if "item" in new:
        here = np.flatnonzero(schema.item_domain.numpy() == domain)
        x, codes = _resampled(schema.item_x, here), torch.full((NEW,), domain)
        schema = dataclasses.replace(schema, n_items=NEW, item_domain=codes, item_x=x)
    units = schema.units[domain]
    value = torch.tensor(posterior.schema.standardise(data.value[[row]], data.domain[[row]]))
    kept = {name: x for name, x in posterior.latents().items() if not new & set(model.dims[name])}
    parts = []
    with torch.random.fork_rng(devices=[]), pyro.poutine.block():
        torch.manual_seed(domain)
        for s in range(posterior.n_chains * posterior.n_draws):
            with pyro.poutine.condition(data={name: x[s] for name, x in kept.items()}):
                latents = model.prior(schema)
            law = model.likelihood.distribution(model.score(latents, batch), latents, batch)
            below = sum((law.log_prob(torch.tensor(float(k))).exp() for k in range(up_to + 1)), torch.zeros(NEW))
            density = law.log_prob(value) - np.log(units.scale)
            parts.append(torch.stack([*_moments(law, units), density, below]).double().numpy())
    mean, variance, density, below = np.stack(parts, axis=1)
    return mean, variance, density, below


def _moments(law: Any, units: Units) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of ratings, in their units, whose distribution is that of levels' numbers or of values."""
    if units.levels is None:
        return law.mean * units.scale + units.center, law.variance * units.scale**2
    levels, share = torch.from_numpy(np.asarray(units.levels)), law.probs.double()
    mean = share @ levels
    return mean, share @ levels**2 - mean**2


def _resampled(x: np.ndarray | None, members: np.ndarray) -> np.ndarray | None:
    """Features of newcomers: each as often those of every member as can be."""
    return None if x is None else x[members[np.arange(NEW) % len(members)]]


def _check_newcomer(case: Case, *new: str) -> None:
    """Compare predictions about newcomers with simulations, in every domain."""
    posterior, data, who = case.posterior, case.posterior.data, "unknown " + " and ".join(new)
    for domain, name in enumerate(posterior.schema.domains):
        rows = np.flatnonzero(data.domain == domain)
        row = int(rows[len(rows) // 2])
        ids = {"user": data.users.decode([data.user[row]])[0], "item": data.items.decode([data.item[row]])[0]}
        ids |= dict.fromkeys(new, UNKNOWN)
        frame = pd.DataFrame([ids | {"domain": name, "rating": data.value[row]}])
        answer = posterior.predict(frame).iloc[0]
        counted = isinstance(case.model.likelihood, Poisson)  # the simulated variance of a log-normal is noise
        up_to = int(answer["upper"]) if counted else -1
        mean, variance, density, below = _newcomers(case, set(new), row, domain, up_to)
        sd, unit = np.sqrt(variance.mean() + mean.var()), data.value[rows].std()
        error = np.sqrt(mean.var(1).mean() / mean.size)  # of the simulation, given the draws
        found = f"{who} in {name!r}: mean {answer['mean']:.4f}, sd {answer['sd']:.4f}"
        want = f"simulation from the prior: mean {mean.mean():.4f} +- {error:.4f}, sd {sd:.4f}"
        assert abs(answer["mean"] - mean.mean()) < 5.0 * error + 1e-3 * unit, f"{found}; {want}"
        if counted:
            share = next(iter(posterior.laws(data.encode(frame))))[1].cdf(np.array([up_to]))[0]
            assert abs(share - below.mean()) < 0.015, (
                f"{who}: P(count <= {up_to}) {share:.3f}; simulation {below.mean():.3f}"
            )
        else:
            assert abs(answer["sd"] / sd - 1.0) < SLACK, f"{found}; {want}"
        score = posterior.log_score(frame)[0]
        expected = logsumexp(density) - np.log(density.size)
        # with both unknown the score is a sum of products: the package matches its moments
        slack = SLACK if len(new) == 1 else 0.1
        assert abs(score - expected) < slack, f"{who}: log score {score:.4f}; simulation {expected:.4f}"


def unknown_user(case: Case) -> None:
    """Check that an unknown user is the prior of a new user, integrated out, in every domain."""
    _check_newcomer(case, "user")


def unknown_item(case: Case) -> None:
    """Check that an unknown item is the prior of a new item of its domain, integrated out."""
    _check_newcomer(case, "item")


def unknown_both(case: Case) -> None:
    """Check that an unknown user and an unknown item have the mean and sd of two independent newcomers."""
    _check_newcomer(case, "user", "item")


def diagnostics_with_chains(case: Case) -> None:
    """R-hat and effective sample sizes exist with two chains and with one, and are about what is identified."""
    for posterior in (case.posterior, case.fit(method=case.with_chains(1))):
        with quiet():
            table = posterior.diagnostics()
        assert list(table.columns) == ["mean", "sd", "rhat", "ess_bulk", "ess_tail"]
        missing = table.index[table.isna().any(axis=1)].tolist()
        assert not missing, f"no diagnostics for {missing}"
        assert (table["ess_bulk"] > 0).all()
        assert table.index.is_unique, "quantities share a name"
        large = {name for name, axes in case.model.dims.items() if {"user", "item"} & set(axes)}
        named = {str(name).split("[")[0] for name in table.index}
        assert not large & named, f"{large & named} rotate, or are too many, and are not diagnosed"
        assert any(str(name).startswith("prediction[") for name in table.index), "predictions are not diagnosed"


def datatree(case: Case) -> None:
    """Check the five groups of the tree, their axes and numbers, and that ArviZ's functions run on it."""
    import arviz_stats

    posterior, model = case.posterior, case.model
    tree = posterior.to_datatree()
    groups = {"posterior", "log_likelihood", "log_prior", "observed_data", "sample_stats"}
    assert groups <= set(tree.children), f"groups {groups - set(tree.children)} are missing"
    labels = coordinates(posterior)
    for name, axes in model.dims.items():
        array = tree["posterior"][name]
        assert array.dims == ("chain", "draw", *axes), f"site {name!r} has axes {array.dims} in the tree"
        assert all(list(array.coords[axis].values) == list(labels[axis]) for axis in axes), f"coordinates of {name!r}"
        assert np.array_equal(array.values, posterior.draws[name])
        prior = tree["log_prior"][name]
        assert prior.dims == ("chain", "draw"), f"log_prior of {name!r} has axes {prior.dims}"
        assert np.isfinite(prior.values).all(), f"log_prior of {name!r} is not finite"
    shape = (posterior.n_chains, posterior.n_draws, len(case.target_frame))
    for name in ("log_likelihood", "observed_data"):
        assert list(tree[name].data_vars) == ["rating"], f"group {name!r} does not hold the ratings"
    assert tree["log_likelihood"]["rating"].shape == shape
    assert tree["observed_data"]["rating"].values.tolist() == case.target_frame["rating"].tolist()
    pooled = logsumexp(tree["log_likelihood"]["rating"].values.astype(float), axis=(0, 1)) - np.log(shape[0] * shape[1])
    np.testing.assert_allclose(pooled, posterior.log_score(case.target_frame), atol=2e-3, err_msg="log_likelihood")
    assert "log_likelihood" not in posterior.to_datatree(log_likelihood=False).children
    small = [name for name, axes in model.dims.items() if not {"user", "item"} & set(axes)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pareto k and short chains
        assert len(arviz_stats.summary(tree, var_names=small)) >= len(small)
        rows = arviz_stats.loo(tree, reff=1.0, pointwise=True).elpd_i.values
    assert np.isfinite(rows).mean() > 0.9, "loo has no number for many rows"  # for single rows of few draws it has none


def prior_predictive_scale(case: Case) -> None:
    """Check that a typical draw from the prior spreads the expected ratings by .2 to 2 sds of the ratings."""
    tree = sample_prior(case.model, case.data, draws=100)
    schema = Schema.of(case.model.view(case.data), case.model.likelihood)
    latents = {name: torch.from_numpy(tree["prior"][name].values[0]) for name in case.model.dims}
    spread = case.model.score(latents, case.rows)[:, case.rows.domain == schema.n_domains - 1].std(-1).median()
    assert 0.2 < float(spread) < 2.0, f"the prior's typical sd of eta is {float(spread):.2f} sd of the ratings"
