"""When SVI has climbed enough, and what is left of a fit that was cut off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bayesrec as br
from bayesrec.errors import ConvergenceWarning, DataError
from bayesrec.inference import checkpoint, steps
from bayesrec.inference.bound import bound_of
from bayesrec.inference.steps import LAST_RATE, Steps, rises
from bayesrec.models.base import Schema

pytestmark = pytest.mark.filterwarnings("ignore:the factors explain nothing")  # after a few steps it is true
METHOD = br.SVI(steps=12, draws=5, chains=3, batch_size=60)


@pytest.fixture(scope="module")
def data():
    frame, _ = br.data.synthetic.cross_domain(n_users=25, n_items=(12, 10), n_ratings=(6, 4), n_cold=3)
    return br.Interactions.from_frame(frame, target="target", value="value")


def rows(data):
    return data.without_sources().to_frame()


def test_rises_is_a_regression():
    """Slope and standard error of SciPy; a trend is found as often as its size and the noise allow."""
    from scipy.stats import linregress

    rng = np.random.default_rng(0)
    y = 0.3 * np.arange(80) + 5.0 * rng.standard_normal(80)
    expected = linregress(np.arange(80), y)
    assert rises(y) == pytest.approx((100 * expected.slope, 100 * expected.stderr))


class Made:
    """A climb whose ELBOs are given."""

    def __init__(self, method, elbos, data):
        model = br.models.PMF(rank=1)
        view = model.view(data)
        schema = Schema.of(view)
        torch.manual_seed(0)
        bound = bound_of(model, schema, schema.table(view), np.random.default_rng(0), "rows", 0)
        self.climb, self.rates = Steps(method, bound, 100, np.random.default_rng(0)), []
        while not self.climb.done:
            self.rates.append(self.climb._rate() / method.learning_rate)
            self.climb.taken += 1
            self.climb.elbos.append(float(elbos[self.climb.taken - 1]))
            self.climb._look()


def test_the_rate_falls_where_the_elbo_stands(data):
    rng = np.random.default_rng(1)
    method = br.SVI(steps=1000, tolerance=1e-3)
    stands = 100.0 * (1.0 - np.exp(-np.arange(1000) / 30)) + 0.05 * rng.standard_normal(1000)
    climb = Made(method, stands, data).climb
    assert climb.settled
    assert climb.taken < 700
    assert climb.end - climb.cooling == max(50, climb.cooling // 2)
    rising = 0.01 * np.arange(1000) + 0.05 * rng.standard_normal(1000)  # 1 nat in 100 steps, a hundredth a rating
    made = Made(method, rising, data)
    assert not made.climb.settled
    assert made.climb.taken == 1000
    assert made.rates[:666] == [1.0] * 666
    assert made.rates[-1] == pytest.approx(LAST_RATE, abs=1e-3)
    assert (np.diff(made.rates) <= 0).all()
    noisy = 200.0 * rng.standard_normal(1000)  # nobody can tell: go on
    assert Made(method, noisy, data).climb.taken == 1000
    assert Made(br.SVI(steps=5), stands, data).climb.taken == 5


def test_an_easy_fit_ends_by_itself(data, monkeypatch):
    """And every draw of a chain has the Pareto shape of the whole."""
    ends, true = [], Steps.draw
    monkeypatch.setattr(
        Steps, "draw", lambda self, watch: (ends.append((self.settled, self.taken)), true(self, watch))[1]
    )
    method = br.SVI(steps=600, draws=50, chains=1, learning_rate=0.05, tolerance=0.2)
    posterior = br.fit(br.models.PMF(rank=1), data, method, progress=False)
    assert ends[0][0]
    assert ends[0][1] < 600
    assert posterior.stats["khat"].shape == (1, 50)
    assert len(np.unique(posterior.stats["khat"])) == 1


def cut_after(monkeypatch, n, error=RuntimeError):
    """Make the n-th step of all chains end the run, each step but the last of a chain being written."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    taken, true = [], Steps.advance

    def advance(self):
        if len(taken) == n:
            raise error("cut off")
        taken.append(1)
        true(self)

    monkeypatch.setattr(Steps, "advance", advance)


CASES = {
    "items out": (br.models.TransferMF(rank=1), "rows"),
    "structured": (br.models.PMF(rank=1), "structured"),
    "mean field": (br.models.PMF(rank=1), "mean_field"),
    "amortised": (br.models.CollectiveMF(rank=1), "amortised"),
}


@pytest.mark.parametrize(
    ("name", "n"), [*((name, 5) for name in CASES), ("items out", 0), ("items out", 12), ("items out", 30)]
)
def test_resumed_equals_unbroken(name, n, data, tmp_path, monkeypatch):
    model, guide = CASES[name]
    method = br.SVI(steps=12, draws=5, chains=3, batch_size=60, guide=guide)
    expected = br.fit(model, data, method, progress=False, watch=rows(data))
    with monkeypatch.context() as patch:
        cut_after(patch, n)
        with pytest.raises(RuntimeError, match="cut off"):
            br.fit(model, data, method, progress=False, checkpoint=tmp_path, watch=rows(data))
    assert bool(list(tmp_path.iterdir())) == (n > 0)
    again = br.fit(model, data, method, progress=False, checkpoint=tmp_path, watch=rows(data))
    for kind in ("draws", "stats"):
        for key, array in getattr(expected, kind).items():
            assert np.array_equal(array, getattr(again, kind)[key]), key
    assert expected.watched.equals(again.watched)
    assert not list(tmp_path.iterdir())


def test_what_a_file_lacks_would_be_noticed(data, tmp_path, monkeypatch):
    """The planted faults: moments of Adam, torch's generator and a table put back as they were at the start."""
    model = br.models.TransferMF(rank=1)
    expected = br.fit(model, data, METHOD, progress=False)
    for part in ("user-first-0", "torch", "alone-0-exp_avg"):
        folder = tmp_path / part
        with monkeypatch.context() as patch:
            cut_after(patch, 6)
            with pytest.raises(RuntimeError, match="cut off"):
                br.fit(model, data, METHOD, progress=False, checkpoint=folder)
        with np.load(folder / "chain-0.npz") as file:
            arrays = dict(file)
        if part == "torch":
            arrays["fit/torch"] = torch.Generator().manual_seed(9).get_state().numpy()
        else:
            arrays[f"fit/{part}"] = np.ones_like(arrays[f"fit/{part}"])
        np.savez(folder / "chain-0.npz", **arrays)
        again = br.fit(model, data, METHOD, progress=False, checkpoint=folder)
        assert not np.array_equal(again.draws["user_vector"][0], expected.draws["user_vector"][0]), part


def test_ctrl_c_and_files_of_another_fit(data, tmp_path, monkeypatch):
    model = br.models.PMF(rank=1)
    with monkeypatch.context() as patch:
        cut_after(patch, 16, KeyboardInterrupt)
        with pytest.warns(ConvergenceWarning, match="interrupted: kept 1 of 3 chains, the last after 4 of 12 steps"):
            part = br.fit(model, data, METHOD, progress=False, checkpoint=tmp_path)
    assert part.n_chains == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chain-0.npz", "chain-1.npz"]
    for other in (br.SVI(steps=13, draws=5, chains=3, batch_size=60), br.VMP(passes=3, draws=5)):
        with pytest.raises(DataError, match="belongs to another"):
            br.fit(model, data, other, progress=False, checkpoint=tmp_path)


def test_watched_rows_are_predicted_as_by_the_draws(data):
    method = br.SVI(steps=8, draws=30, chains=2)
    posterior = br.fit(br.models.PMF(rank=1), data, method, progress=False, watch=rows(data))
    answer = posterior.predict(rows(data))
    for name in ("mean", "sd"):
        np.testing.assert_allclose(posterior.watched[name], answer[name], rtol=1e-5)
    np.testing.assert_allclose(posterior.watched["log_score"], posterior.log_score(rows(data)), rtol=1e-4)


def test_the_bar_says_what_is_held_out(data, monkeypatch):
    """And looking does not change the fit."""
    from bayesrec.inference.progress import Progress

    said = []
    plain = br.fit(br.models.PMF(rank=1), data, METHOD, progress=False, watch=rows(data))
    monkeypatch.setattr(Progress, "shown", True)
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    seen = br.fit(br.models.PMF(rank=1), data, METHOD, progress=False, watch=rows(data))
    assert any("held out" in text for text in said)
    assert np.array_equal(plain.draws["user_vector"], seen.draws["user_vector"])
    assert steps.GLANCES > 0


def test_a_fit_that_collapses_is_made_again(data, monkeypatch):
    """Twice at most, each time from another start; then it is kept, and a warning says so (conftest turns it into an error)."""
    from bayesrec.inference import climb

    starts, model, method = [], br.models.PMF(rank=1), br.SVI(steps=6, draws=4, chains=1)
    true = Steps.__init__
    monkeypatch.setattr(Steps, "__init__", lambda self, *args: (starts.append(1), true(self, *args))[1])
    monkeypatch.setattr(Steps, "collapsed", property(lambda self: len(starts) < 2))
    again = br.fit(model, data, method, progress=False)
    assert len(starts) == 2
    monkeypatch.setattr(Steps, "collapsed", False)
    once = br.fit(model, data, method, progress=False)
    assert len(starts) == 3
    assert not np.array_equal(once.draws["user_vector"], again.draws["user_vector"])
    monkeypatch.setattr(Steps, "collapsed", True)
    br.fit(model, data, method, progress=False)
    assert len(starts) == 3 + 1 + climb.RESTARTS


def test_a_collapse_is_seen(data):
    """Factors of zero where the start had some; not where it had none."""
    model = br.models.PMF(rank=1)
    view = model.view(data)
    schema = Schema.of(view)
    torch.manual_seed(0)
    bound = bound_of(model, schema, schema.table(view), np.random.default_rng(0), "mean_field", 10)
    fit = Steps(br.SVI(steps=1, guide="mean_field"), bound, len(view), np.random.default_rng(0))
    assert not fit.collapsed
    members = bound.guide.members["user"]
    members.tables[0][:, 1] = 0.0
    members.tables[1][:, 1] = -20.0
    assert fit.collapsed
    bound.guide.start["user_vector"][:, 1] = 0.0
    assert not Steps(br.SVI(steps=1, guide="mean_field"), bound, len(view), np.random.default_rng(0)).collapsed


def test_a_resumed_chain_knows_how_it_began(data):
    """What the factors explained at the start decides on a restart, and comes from the file, not from the start of a resume."""
    model = br.models.PMF(rank=1)
    view = model.view(data)
    schema = Schema.of(view)

    def made(sweeps):
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        return Steps(METHOD, bound_of(model, schema, schema.table(view), rng, "rows", sweeps), 100, rng)

    warm, resumed = made(40), made(0)
    assert warm.awake != resumed.awake
    for _ in range(2):
        warm.advance()
    resumed.restore(warm.state())
    assert resumed.awake == warm.awake
    assert resumed.collapsed == warm.collapsed
