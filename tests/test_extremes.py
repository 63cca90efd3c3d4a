"""Gibbs where data are extreme: giant rows beside rows of one, empty rows, more factors than items, huge ratings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.errors import ConvergenceWarning, SamplingError

KERNELS = ["compiled", "batched"]


def data_of(frame, **kwargs):
    return br.Interactions.from_frame(frame, target="t", domain=None, **kwargs)


def fit(model, data, kernel="compiled", threads=1, draws=4, warmup=4):
    method = br.Gibbs(draws=draws, warmup=warmup, chains=1, kernel=kernel, threads=threads)
    return br.fit(model, data, method, progress=False)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_giant_row_beside_rows_of_one(kernel):
    """An item with 100,000 ratings and 99 with one each: its bias is known to the last digit, threads change nothing."""
    n, rng = 100_000, np.random.default_rng(0)
    giant = pd.DataFrame({"user": np.arange(n), "item": 0, "rating": 1.5 + 0.5 * rng.standard_normal(n)})
    rest = pd.DataFrame({"user": np.arange(99), "item": 1 + np.arange(99), "rating": rng.standard_normal(99)})
    data = data_of(pd.concat([giant, rest]))
    model = br.models.PMF(rank=2, likelihood=br.Gaussian(user_noise=False))
    one, two = (fit(model, data, kernel, threads, draws=2, warmup=2) for threads in (1, 2))
    for name, draws in one.draws.items():
        assert np.isfinite(draws).all()
        assert np.array_equal(draws, two.draws[name])
    known = one.predict(pd.DataFrame({"user": [-1], "item": [0]}))["mean"][0]
    assert abs(known - 1.5) < 0.05


@pytest.mark.parametrize("kernel", KERNELS)
def test_more_factors_than_items_and_empty_rows(kernel):
    frame = pd.DataFrame({"user": [0, 0, 1, 2, 3], "item": [0, 1, 0, 1, 1], "rating": [1.0, 2.0, 3.0, 4.0, 2.0]})
    data = data_of(pd.concat([frame, pd.DataFrame({"user": [7], "item": [5], "rating": [3.0]})]))
    data = data.mask(np.arange(len(data)) < 5)  # user 7 and item 5 are known and have no row
    posterior = fit(br.models.PMF(rank=12), data, kernel, draws=30)
    answer = posterior.predict(pd.DataFrame({"user": [7, 0], "item": [5, 0]}))
    assert np.isfinite(answer[["mean", "sd", "lower", "upper"]].to_numpy()).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_huge_ratings_are_ratings_in_another_unit(kernel):
    """Ratings of size 1e9, far from zero: the same posterior as on a scale from 1 to 5, in other units."""
    frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(5, 12), n_ratings=(3, 6))
    frame = frame[frame["domain"] == "target"].drop(columns="domain")
    huge = frame.assign(value=1e9 + 1e8 * frame["value"])
    small, large = (fit(br.models.PMF(rank=2), data_of(f, value="value"), kernel, draws=20) for f in (frame, huge))
    a, b = (p.predict(f) for p, f in ((small, frame), (large, huge)))
    np.testing.assert_allclose(b["mean"], 1e9 + 1e8 * a["mean"], rtol=1e-6)
    np.testing.assert_allclose(b["sd"], 1e8 * a["sd"], rtol=1e-3)


def test_jitter_is_said_at_the_end_of_a_fit(monkeypatch):
    frame, _ = br.data.synthetic.cross_domain(n_users=10, n_items=(5, 6), n_ratings=(3, 3))
    data = data_of(frame[frame["domain"] == "target"].drop(columns="domain"), value="value")
    from bayesrec import kernels

    real = kernels.draw_rows

    def shaky(*args):
        bad, _ = real(*args)
        return bad, 2

    monkeypatch.setattr(kernels, "draw_rows", shaky)
    with pytest.warns(ConvergenceWarning) as seen:
        fit(br.models.PMF(rank=1), data)
    said = [str(w.message) for w in seen]
    assert any("16 rows of block 'users' were drawn with jitter" in m for m in said)
    assert any("of block 'items' were drawn with jitter" in m for m in said)
    assert seen[0].filename == __file__


@pytest.mark.parametrize(("site", "block"), [("user_vector", "users"), ("item_vector", "items"), ("noise", "noise")])
def test_a_value_that_is_not_finite_stops_the_fit_with_the_name_of_its_block(site, block, monkeypatch):
    frame, _ = br.data.synthetic.cross_domain(n_users=10, n_items=(5, 6), n_ratings=(3, 3))
    data = data_of(frame[frame["domain"] == "target"].drop(columns="domain"), value="value")
    original = br.models.PMF.blocks

    def broken(self, table):
        def poison(update):
            return lambda state, rng: {
                k: np.asarray(x) * np.nan if k == site else x for k, x in update(state, rng).items()
            }

        from dataclasses import replace

        return [replace(b, update=poison(b.update)) if b.name == block else b for b in original(self, table)]

    monkeypatch.setattr(br.models.PMF, "blocks", broken)
    with pytest.raises(SamplingError, match=f"{site}.*block '{block}' not finite"):
        fit(br.models.PMF(rank=1), data)
