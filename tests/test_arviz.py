"""ArviZ on `to_datatree()`: summary, loo, psense_summary and the trace plot, each against numbers of our own."""

from __future__ import annotations

import itertools

import arviz_stats as azs
import numpy as np
import pytest
import torch
from scipy.special import logsumexp

import bayesrec as br
from bayesrec.posterior.arviz import coordinates, log_prior

FITS = ("gibbs", "svi", "pmf")
# loo and psense_summary say so where they smooth heavy tails, as with 60 draws and few ratings a user.
HEAVY_TAIL = "ignore:Estimated shape parameter of Pareto distribution is greater than:UserWarning"
# psense_summary calls xarray.concat without an argument whose default is to change.
CONCAT = "ignore:In a future version of xarray the default value for data_vars will change:FutureWarning"


@pytest.fixture(scope="module")
def svi(data):
    return br.fit(br.models.TransferMF(rank=1), data, br.SVI(steps=60, draws=60), progress=False)


@pytest.fixture(scope="module")
def fits(transfer, svi, pmf):
    posteriors = dict(zip(FITS, (transfer, svi, pmf), strict=True))
    return {name: (posterior, posterior.to_datatree()) for name, posterior in posteriors.items()}


def shift(x, log_density):
    """Rate at which a marginal moves as a density is raised to a power near one; Kallioinen et al. (2024).

    From draws (draw,) and their log density, by importance weights without smoothing.
    """

    def distance(x, weight):
        order = np.argsort(x)
        width, p, q = np.diff(x[order]), np.arange(1, len(x)) / len(x), np.cumsum(weight[order])[:-1]

        def divergence(p, q):
            return width @ (p * np.log2(2 * p / (p + q)) + (q - p) / (2 * np.log(2)))

        return np.sqrt((divergence(p, q) + divergence(q, p)) / (width @ (p + q)))

    rates = []
    for power in (0.99, 1.01):
        weight = np.exp((power - 1) * (log_density - log_density.mean()))
        weight /= weight.sum()
        rates.append(max(distance(x, weight), distance(-x, weight)) / abs(np.log2(power)))
    return np.mean(rates)


def moments(posterior, site):
    """Mean and sd of every number of a site, (number,)."""
    draws = posterior.draws[site].astype(float).reshape(posterior.n_chains * posterior.n_draws, -1)
    return draws.mean(0), draws.std(0)


@pytest.mark.parametrize("name", FITS)
def test_summary_of_a_site_has_the_mean_and_sd_of_its_draws_by_ids(fits, name, frame):
    posterior, tree = fits[name]
    labels = coordinates(posterior)
    assert labels["user"].tolist() == sorted(set(frame["user"]))
    for site, axes in posterior.model.dims.items():
        # One site a call: with several, ArviZ mixes up the rows of those with two axes (docs/tutorials/arviz.md).
        table = azs.summary(tree, var_names=[site], kind="stats", round_to="none")
        ids = [", ".join(map(str, some)) for some in itertools.product(*(labels[axis] for axis in axes))]
        assert table.index.tolist() == ([f"{site}[{some}]" for some in ids] if axes else [site])
        mean, sd = moments(posterior, site)
        np.testing.assert_allclose(table["mean"].astype(float), mean, atol=1e-5, err_msg=site)
        np.testing.assert_allclose(table["sd"].astype(float), sd, rtol=0.02, atol=1e-5, err_msg=site)


@pytest.mark.parametrize("name", FITS)
def test_summary_of_the_whole_tree(fits, name):
    posterior, tree = fits[name]
    table = azs.summary(tree, round_to="none")
    means = np.concatenate([moments(posterior, site)[0] for site in posterior.model.dims])
    np.testing.assert_allclose(np.sort(table["mean"].astype(float)), np.sort(means), atol=1e-5)
    for domain, mean in zip(posterior.schema.domains, moments(posterior, "noise")[0], strict=True):
        assert float(table["mean"][f"noise[{domain}]"]) == pytest.approx(mean, abs=1e-5)
    assert (table["ess_bulk"].astype(float) > 0).all()


@pytest.mark.parametrize("name", FITS)
@pytest.mark.filterwarnings(HEAVY_TAIL)
def test_loo_agrees_with_the_log_score_and_with_plain_importance_weights(fits, name, target_rows):
    posterior, tree = fits[name]
    answer = azs.loo(tree, pointwise=True)
    assert answer.n_data_points == len(target_rows)
    assert answer.n_samples == posterior.n_chains * posterior.n_draws
    density = posterior.log_likelihood().reshape(answer.n_samples, -1).astype(float)
    # In-sample log score of a row = elpd + p. Ours comes by another way, from the rows of the table.
    pooled = logsumexp(tree["log_likelihood"]["rating"].values.astype(float), axis=(0, 1)) - np.log(answer.n_samples)
    np.testing.assert_allclose(pooled, posterior.log_score(target_rows), atol=2e-3)
    assert answer.elpd + answer.p == pytest.approx(pooled.sum(), abs=0.01)
    plain = np.log(answer.n_samples) - logsumexp(-density, axis=0)  # leave-one-out as a harmonic mean
    light = answer.pareto_k.values < 0.5
    assert light.sum() > 20
    np.testing.assert_allclose(answer.elpd_i.values[light], plain[light], atol=0.1)
    assert answer.elpd == pytest.approx(answer.elpd_i.values.sum(), rel=1e-6)
    assert answer.p > 1.0


@pytest.mark.parametrize("name", FITS)
@pytest.mark.filterwarnings(HEAVY_TAIL, CONCAT)
def test_psense_summary_is_the_shift_of_the_weighted_draws(fits, name):
    posterior, tree = fits[name]
    names = list(posterior.model.dims)
    table = azs.psense_summary(tree, prior_var_names=["noise"], round_to=9)
    assert {label.split("[")[0] for label in table.index} == set(names)
    assert len(table) == sum(posterior.draws[site][0, 0].size for site in names)
    latents = {site: torch.from_numpy(x.astype(float)).flatten(0, 1) for site, x in posterior.draws.items()}
    prior = log_prior(posterior.model, posterior.schema, latents)["noise"].numpy()
    likelihood = posterior.log_likelihood().astype(float).sum(-1).ravel()
    noise = posterior.draws["noise"][:, :, -1].ravel().astype(float)
    row = table.loc["noise[target]"]
    assert row["prior"] == pytest.approx(shift(noise, prior), rel=0.05)
    assert row["likelihood"] == pytest.approx(shift(noise, likelihood), rel=0.05)
    for word in table["diagnosis"]:
        assert word == "✓" or word.startswith("potential")


@pytest.mark.parametrize("name", FITS)
def test_trace_plot_draws_every_chain_of_every_entry(fits, name):
    azp = pytest.importorskip("arviz_plots", reason="the trace plot is arviz-plots'")
    plt = pytest.importorskip("matplotlib.pyplot", reason="plots need the extra 'plots'")
    posterior, tree = fits[name]
    sites = ["noise", "level_within"]
    plots = azp.plot_trace_dist(tree, var_names=sites, backend="matplotlib")
    figure = plots.viz["figure"].item()
    try:
        assert len(figure.axes) == 2 * len(sites)  # a row a site: density, trace
        for site, panel in zip(sites, figure.axes[1::2], strict=True):
            lines = [line.get_ydata() for line in panel.get_lines() if len(line.get_ydata()) == posterior.n_draws]
            entries = np.moveaxis(posterior.draws[site], 1, -1).reshape(-1, posterior.n_draws)
            assert sorted(map(tuple, lines)) == sorted(map(tuple, entries))
    finally:
        plt.close(figure)
