"""What each of several sources is worth to a prediction: Shapley's parts by dense algebra, a source that cannot help."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_borrowing import BOTH, MANY, NO_SOURCE, Case, shapley
from test_conjugate import by, twist

import bayesrec as br
from bayesrec import conjugate
from bayesrec.errors import ConvergenceWarning, UnsupportedMethodError


@pytest.mark.parametrize("fault", [{}, {"_3": by(1.1)}])
@pytest.mark.parametrize(("n_sources", "gate"), [(1, True), (2, True), (3, False)])
def test_weights_of_single_sources(n_sources, gate, fault, monkeypatch):
    """Columns are the Shapley parts along each prediction, over the gates' states; they sum to the source's column."""
    case, rows = Case(n_sources, gate), []
    frame = case.target_rows([BOTH, NO_SOURCE, MANY])
    twist(monkeypatch, conjugate, "row_grams", **fault)
    plain, found = br.source_weight(case.posterior, frame), br.source_weight(case.posterior, frame, by_source=True)
    each = found.filter(like="source[")
    assert each.columns.tolist() == [f"source[{name}]" for name in "abc"[:n_sources]]
    pd.testing.assert_frame_equal(found[plain.columns], plain, check_exact=True)
    np.testing.assert_allclose(each.sum(axis=1), found["source"], rtol=1e-9, atol=1e-12)
    if n_sources == 1:
        assert each["source[a]"].tolist() == plain["source"].tolist()
    for u, i in frame.itertuples(index=False):
        v, out = case.vector(i), 0.0
        chances = case.log_posterior(u) if gate else [0.0]
        for on, log_p in zip(case.configs, chances, strict=True):
            a = np.linalg.solve(case.schur(u, on), v)
            out = out + np.exp(log_p) * np.einsum("i,kij,j->k", a, shapley(case, u, on), a) / (v @ a)
        rows.append(out)
    assert np.allclose(each, rows, rtol=1e-5, atol=1e-8) is not bool(fault)
    assert not each.to_numpy()[frame["user"] == NO_SOURCE].any()
    assert not each.to_numpy()[frame["user"] == BOTH, 1:].any()  # user 0 lacks the other sources


@pytest.fixture(scope="module")
def two_sources():
    """The true source, and a second one that is the first with its users deranged; one target."""
    frame, _ = br.data.synthetic.cross_domain(n_users=150, n_items=(40, 30), n_ratings=(20, 10), rank=1)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    other = br.data.derange_sources(data, seed=0).to_frame()
    other = other[other["domain"] == "source"].assign(domain="deranged")
    both = br.Interactions.from_frame(pd.concat([frame, other]), target="target", value="value")
    train, test = br.split.cold_users(both, fraction=0.3)
    return train, test


def test_a_deranged_second_source_has_no_share(two_sources):
    train, test = two_sources
    posterior = br.fit(br.models.TransferMF(rank=1), train, br.Gibbs(draws=60, warmup=60, chains=2), progress=False)
    weights = br.source_weight(posterior, test, draws=40, by_source=True)
    true, deranged = weights["source[source]"].mean(), weights["source[deranged]"].mean()
    assert true > 0.2
    assert abs(deranged) < 0.05  # a map has some breadth even where it carries nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        use = posterior.diagnostics()["mean"]
    assert use["map_r2[deranged]"] < 0.1 < use["map_r2[source]"]


def test_single_sources_of_other_models(two_sources):
    train, test = two_sources
    method = br.Gibbs(draws=5, warmup=5, chains=1)
    pooled = br.fit(br.models.CollectiveMF(rank=1), train, method, progress=False)
    weights = br.source_weight(pooled, test, by_source=True)  # pooling believes both
    each = weights[["source[source]", "source[deranged]"]]
    np.testing.assert_allclose(each.sum(axis=1), weights["source"], rtol=1e-9)
    assert (each.mean() > 0.2).all()
    alone = br.fit(br.models.PMF(rank=1), train, method, progress=False)
    columns = ["user", "item", "source", "population", "target"]
    assert br.source_weight(alone, test, by_source=True).columns.tolist() == columns
    posterior = replace(pooled, model=Unsaid(rank=1))
    with pytest.raises(UnsupportedMethodError, match="leave by_source out"):
        br.source_weight(posterior, test, by_source=True)


class Unsaid(br.models.CollectiveMF):
    """A model that says nothing of single sources."""

    source_precision = br.models.base.Model.source_precision
