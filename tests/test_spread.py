"""How sure methods are beside Gibbs, and draws made wider."""

import numpy as np
import pytest

import bayesrec as br
from bayesrec.diagnostics import spread
from bayesrec.errors import DataError, UnsupportedMethodError

GIBBS = br.Gibbs(draws=100, warmup=60, chains=4)


@pytest.fixture(scope="module")
def data():
    frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(20, 15), n_ratings=(10, 8), rank=2)
    return br.Interactions.from_frame(frame, target="target", value="value")


def test_gibbs_is_as_wide_as_itself_and_a_narrow_fit_is_seen(data, monkeypatch):
    """Two Gibbs fits: a ratio near one. The planted fault: draws pulled half-way to their means."""
    model = br.models.PMF(rank=1)
    same = br.compare_spread(model, data, GIBBS, users=50, against=GIBBS, seed=1, progress=False)
    assert (same["ratio"] == 1.0).all()  # one seed
    other = br.Gibbs(draws=101, warmup=60, chains=4)
    found = br.compare_spread(model, data, other, users=50, against=GIBBS, progress=False)
    assert 0.85 < found["ratio"].median() < 1.15
    assert set(found["user"]) <= set(range(60))
    true = spread._expected

    def narrow(posterior, test):
        mean, sd = true(posterior, test)
        return mean, sd * (0.5 if posterior.method == other else 1.0)

    monkeypatch.setattr(spread, "_expected", narrow)
    planted = br.compare_spread(model, data, other, users=50, against=GIBBS, progress=False)
    assert planted["ratio"].median() < 0.6


def test_widened_spreads_are_those_that_were_asked_for(data):
    posterior = br.fit(br.models.PMF(rank=1), data, br.VMP(draws=200, chains=2, tolerance=1e-3), progress=False)
    rows = data.mask(data.is_target)
    mean, sd = spread._expected(posterior, rows)
    wide_mean, wide_sd = spread._expected(posterior.widened(1.5), rows)
    assert np.median(wide_sd / sd) == pytest.approx(1.5, abs=0.1)
    assert np.abs(wide_mean - mean).max() < 0.3 * sd.mean() + 0.05
    for name in ("noise", "user_cov"):
        assert np.array_equal(posterior.draws[name], posterior.widened(1.5).draws[name])
    assert np.allclose(posterior.widened(1.0).draws["user_vector"], posterior.draws["user_vector"], atol=1e-6)


def test_refusals(data):
    model = br.models.PMF(rank=1)
    gibbs = br.fit(model, data, br.Gibbs(draws=4, warmup=2, chains=2), progress=False)
    with pytest.raises(UnsupportedMethodError, match="those of Gibbs wander"):
        gibbs.widened(1.2)
    for factor in (0.0, -1, "2", True, float("inf")):
        with pytest.raises(DataError, match="factor must be a number above 0"):
            gibbs.widened(factor)
    for arguments, words in (
        ((model, data.to_frame(), GIBBS), "data must be"),
        ((model, data, "SVI"), "method must be"),
    ):
        with pytest.raises(TypeError, match=words):
            br.compare_spread(*arguments)
    with pytest.raises(TypeError, match="against must be a Method, not 'Gibbs'"):
        br.compare_spread(model, data, GIBBS, against="Gibbs")
    with pytest.raises(DataError, match="users must be a whole number of at least 20, not 5"):
        br.compare_spread(model, data, GIBBS, users=5)
    few = data.mask(np.isin(data.user, np.arange(10)))
    with pytest.raises(DataError, match="only 10 users have target ratings"):
        br.compare_spread(model, few, GIBBS, progress=False)


def test_shared_items_too():
    frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(20, 15), n_ratings=(10, 8), rank=1)
    swapped = frame.rename(columns={"user": "item", "item": "user"})
    data = br.Interactions.from_frame(swapped, target="target", value="value", shared="items")
    short = br.Gibbs(draws=10, warmup=5, chains=2)
    found = br.compare_spread(br.models.TransferMF(rank=1), data, short, users=30, against=short, progress=False)
    assert set(found["item"]) <= set(range(40))
