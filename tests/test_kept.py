"""What a Gibbs fit keeps: draws, moments, files in the place of memory, and predictions that gather while it runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_checkpoint import break_after

import bayesrec as br
from bayesrec.errors import DataError, NotFittedError, UnsupportedMethodError
from bayesrec.inference.watch import TOGETHER, Watch
from bayesrec.models.base import Schema

METHOD = {"draws": TOGETHER + 7, "warmup": 10, "chains": 2}
MODELS = [br.models.PMF(rank=2), br.models.TransferMF(rank=2)]


@pytest.fixture(scope="module")
def halves():
    frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(12, 10), n_ratings=(6, 5))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    return br.split.cold_users(data, fraction=0.3, n_support=1)


def fit(model, train, checkpoint=None, watch=None, **options):
    return br.fit(model, train, br.Gibbs(**METHOD | options), progress=False, checkpoint=checkpoint, watch=watch)


def strangers(test):
    """The held-out rows and two about nobody and nothing."""
    frame = test.to_frame()[["user", "item", "domain", "value"]]
    return pd.concat([frame, frame.head(2).assign(user=[999, 0], item=[0, 777])], ignore_index=True)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_watched_rows_are_those_of_predict(model, halves):
    """Means, spreads and scores from sums over the draws equal those from the draws; unknown ids are integrated out."""
    train, test = halves
    posterior = fit(model, train, watch=test)
    answer = posterior.predict(test)
    for name in ("mean", "sd"):
        np.testing.assert_allclose(posterior.watched[name], answer[name], rtol=1e-6)
    np.testing.assert_allclose(posterior.watched["log_score"], posterior.log_score(test), rtol=1e-6, atol=1e-6)
    rows = strangers(test)
    watched = fit(model, train, watch=rows).watched
    np.testing.assert_allclose(watched["mean"], posterior.predict(rows)["mean"], rtol=1e-6)
    np.testing.assert_allclose(watched["sd"], posterior.predict(rows)["sd"], rtol=0.05)  # noise of nobody: a quadrature
    assert "log_score" not in fit(model, train, watch=rows.drop(columns="value")).watched


def test_a_watch_holds_only_the_users_and_items_of_its_rows(halves):
    """The draws that wait to be predicted are cut down: a fit of millions watches a thousand rows at their cost."""
    train, test = halves
    few = test.mask(np.arange(len(test)) < 3)
    model, schema = MODELS[1], Schema.of(train)
    watch = Watch(model, schema, train.encode(few, need_value=True))
    watch.add(model.start(schema.table(train), np.random.default_rng(0)))
    sizes = dict(zip(model.dims["source_vector"], watch.waiting[0]["source_vector"].shape, strict=True))
    assert sizes["user"] == len(np.unique(few.user)) < train.n_users
    assert watch.waiting[0]["item_vector"].shape[0] == len(np.unique(few.item)) < train.n_items


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_what_is_not_kept_comes_as_moments(model, halves):
    train, test = halves
    whole, part = fit(model, train), fit(model, train, keep=("item_vector",), watch=test)
    assert set(whole.draws) == set(part.draws) | set(part.moments)
    assert "item_vector" in part.draws
    assert "noise" in part.draws
    for name, (mean, sd) in part.moments.items():
        np.testing.assert_allclose(mean, whole.draws[name].mean(1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(sd, whole.draws[name].std(1), rtol=1e-3, atol=1e-4)
    assert np.array_equal(part.draws["item_vector"], whole.draws["item_vector"])
    np.testing.assert_allclose(part.watched["mean"], whole.predict(test)["mean"], rtol=1e-6)


def test_what_needs_all_draws_says_so(halves, tmp_path):
    train, test = halves
    posterior = fit(MODELS[1], train, keep=())
    new = test.to_frame().assign(user=1234)
    for call in (
        lambda: posterior.predict(test),
        lambda: posterior.log_score(test),
        lambda: posterior.fold_in(new),
        lambda: posterior.log_likelihood(),
        lambda: br.recommend(posterior, [0]),
        lambda: br.source_weight(posterior, test),
    ):
        with pytest.raises(NotFittedError, match=r"user_vector.*keep=\(\)"):
            call()
    with pytest.warns(br.errors.ConvergenceWarning):
        assert posterior.diagnostics().index.str.startswith("noise").sum() == 2
    tree = posterior.to_datatree()
    assert "user_vector" not in tree["posterior"]
    assert tree["posterior"]["map"].shape[:2] == (2, METHOD["draws"])
    back = br.load(posterior.save(tmp_path / "model"))
    for name, pair in posterior.moments.items():
        assert all(np.array_equal(a, b) for a, b in zip(pair, back.moments[name], strict=True))
    assert set(back.draws) == set(posterior.draws)


def test_a_memory_budget_sends_draws_to_files(halves, tmp_path):
    train, test = halves
    whole, small = fit(MODELS[0], train), fit(MODELS[0], train, memory=1e-6)
    assert isinstance(small.draws["user_vector"], np.memmap)
    assert "in files" in repr(small)
    assert "in files" not in repr(whole)
    for name, draws in whole.draws.items():
        assert np.array_equal(draws, small.draws[name])
    pd.testing.assert_frame_equal(whole.predict(test), small.predict(test))
    back = br.load(small.save(tmp_path / "model"))
    assert np.array_equal(back.draws["user_vector"], whole.draws["user_vector"])


@pytest.mark.parametrize("n", [3, 30, 45, 70, 83])
def test_a_fit_that_was_cut_off_goes_on_with_all_it_keeps(n, halves, tmp_path, monkeypatch):
    train, test = halves
    options = {"keep": ("item_vector",), "memory": 1e-6}
    whole = fit(MODELS[1], train, watch=test, **options)
    with monkeypatch.context() as patch:
        break_after(patch, n)
        with pytest.raises(RuntimeError, match="cut off"):
            fit(MODELS[1], train, tmp_path, test, **options)
    again = fit(MODELS[1], train, tmp_path, test, **options)
    for name, draws in whole.draws.items():
        assert np.array_equal(draws, again.draws[name])
    for name, pair in whole.moments.items():
        assert all(np.array_equal(a, b) for a, b in zip(pair, again.moments[name], strict=True))
    pd.testing.assert_frame_equal(whole.watched, again.watched)


def test_draws_that_are_missing_from_a_checkpoint_are_noticed(halves, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_after(patch, 60)
        with pytest.raises(RuntimeError, match="cut off"):
            fit(MODELS[0], halves[0], tmp_path)
    for path in tmp_path.glob("*.draws"):
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(br.errors.LoadError, match="lacks draws"):
        fit(MODELS[0], halves[0], tmp_path)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_the_batched_kernel_is_equal_in_law(model, halves):
    """Predictive means and sds of two kernels differ no more than those of two seeds; the draws themselves are others."""
    train, test = halves
    options = {"draws": 150, "warmup": 60, "chains": 2}
    loops = [br.fit(model, train, br.Gibbs(**options), seed=s, progress=False, watch=test).watched for s in (0, 1)]
    method = br.Gibbs(kernel="batched", **options)
    batches = br.fit(model, train, method, progress=False, watch=test).watched
    apart = {name: np.abs(loops[0][name] - loops[1][name]).mean() for name in ("mean", "sd")}
    for name, between in apart.items():
        found = np.abs(batches[name] - loops[0][name]).mean()
        assert 0 < found < 3 * between + 0.02, name


def test_bad_options_are_refused(halves):
    for keep in ("user_vector", ("noise",), ("nothing",)):
        with pytest.raises(DataError, match="keep"):
            fit(MODELS[0], halves[0], keep=keep)
    for options in ({"memory": 0.0}, {"kernel": "fast"}):
        with pytest.raises(DataError, match=next(iter(options))):
            br.Gibbs(**options)
    with pytest.raises(UnsupportedMethodError, match=r"NUTS cannot use fit\(watch"):
        br.fit(MODELS[0], halves[0], br.NUTS(draws=2), watch=halves[1])
    with pytest.raises(DataError, match="column"):
        fit(MODELS[0], halves[0], watch=pd.DataFrame({"user": [1]}))
    with pytest.raises(UnsupportedMethodError, match="nonsense"):
        br.fit(MODELS[0], halves[0], br.Gibbs(**METHOD), device="nonsense")
