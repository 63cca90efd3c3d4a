"""fit, Gibbs and sample_prior: bad input, Ctrl-C, numbers that run away."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.blocks import Block
from bayesrec.errors import ConvergenceWarning, DataError
from bayesrec.models import PMF, CollectiveMF, TransferMF

SHORT = br.Gibbs(draws=4, warmup=2, chains=2)


def interactions(**changes):
    table = pd.DataFrame(
        {
            "user": [1, 2, 3, 1, 2, 3],
            "item": [1, 1, 2, 1, 2, 2],
            "domain": ["book"] * 3 + ["music"] * 3,
            "rating": [1.0, 2.0, 3.0, 4.0, 5.0, 3.0],
        }
    )
    return br.Interactions.from_frame(table.assign(**changes), target="music")


@pytest.mark.parametrize("model", [PMF, CollectiveMF, TransferMF])
@pytest.mark.parametrize("rank", [0, -1, 2.0, "8", True, None])
def test_rank(model, rank):
    with pytest.raises(DataError, match=r"rank must be a whole number of at least 1, not"):
        model(rank=rank)


def test_likelihood():
    with pytest.raises(DataError, match="likelihood must be a likelihood such as Gaussian"):
        PMF(likelihood="gaussian")
    with pytest.raises(DataError, match="likelihood must be a likelihood"):
        PMF(likelihood=br.Gaussian)


@pytest.mark.parametrize(
    ("name", "bad", "least"),
    [
        ("draws", 0, 1),
        ("draws", 10.0, 1),
        ("draws", True, 1),
        ("warmup", -1, 0),
        ("chains", 0, 1),
        ("thin", 0, 1),
        ("threads", 0, 1),
    ],
)
def test_gibbs_options(name, bad, least):
    with pytest.raises(DataError, match=rf"Gibbs\({name}=\.\.\.\) must be a whole number of at least {least}, not"):
        br.Gibbs(**{name: bad})


@pytest.mark.parametrize("model", [PMF(), CollectiveMF(), TransferMF()])
def test_constant_ratings(model):
    with pytest.raises(DataError, match=r"all 3 ratings of domain 'music' are 4; a Gaussian on constant values"):
        br.fit(model, interactions(rating=[1.0, 2.0, 3.0, 4.0, 4.0, 4.0]), SHORT, progress=False)


def test_constant_ratings_of_a_source():
    data = interactions(rating=[2.0, 2.0, 2.0, 4.0, 5.0, 3.0])
    with pytest.raises(DataError, match="all 3 ratings of domain 'book' are 2"):
        br.fit(TransferMF(rank=1), data, SHORT, progress=False)
    assert br.fit(PMF(rank=1), data, SHORT, progress=False).n_draws == 4  # does not look at the source


def test_clicks_need_another_likelihood():
    frame = pd.DataFrame({"user": [1, 2], "item": [1, 2]})
    clicks = br.Interactions.from_frame(frame, target="music", domain=None, value=None)
    with pytest.raises(DataError, match=r"Clicks .* need a likelihood for implicit feedback"):
        br.fit(PMF(rank=1), clicks, SHORT, progress=False)


@pytest.mark.parametrize("rows", [1, 0])
def test_one_rating_or_none(rows):
    data = interactions()
    keep = ~data.is_target
    keep[3 : 3 + rows] = True
    with pytest.raises(DataError, match=rf"domain 'music' has {rows} rating\(s\).*at least two"):
        br.fit(CollectiveMF(rank=1), data.mask(keep), SHORT, progress=False)


def test_no_source():
    alone = interactions(domain="music", item=range(6))
    for data in (alone, interactions().without_sources()):
        with pytest.raises(DataError, match=r"TransferMF needs source rows.*'music'.*or use PMF"):
            br.fit(TransferMF(rank=1), data, SHORT, progress=False)
        assert br.fit(PMF(rank=1), data, SHORT, progress=False).n_draws == 4


def test_no_shared_user():
    data = interactions(user=[1, 2, 3, 4, 5, 6])
    with pytest.raises(DataError, match=r"no user has rows both in the target 'music' and in a source \['book'\]"):
        br.fit(TransferMF(rank=1), data, SHORT, progress=False)


def test_wrong_types():
    data = interactions()
    with pytest.raises(TypeError, match=r"model must be a Model, not <class.*Call it: br\.models\.PMF\(rank=8\)"):
        br.fit(PMF, data, SHORT)
    with pytest.raises(TypeError, match="data must be Interactions, not DataFrame"):
        br.fit(PMF(), data.to_frame(), SHORT)
    with pytest.raises(TypeError, match="method must be a Method"):
        br.fit(PMF(), data, br.Gibbs)
    for seed in (-1, 0.5, True, None):
        with pytest.raises(DataError, match="seed must be a whole number of at least 0"):
            br.fit(PMF(), data, SHORT, seed=seed)
    with pytest.raises(DataError, match="draws must be at least 1, not 0"):
        br.sample_prior(PMF(), data, draws=0)


def test_a_refused_fit_changes_nothing():
    data = interactions(user=[1, 2, 3, 4, 5, 6])
    before = data.to_frame()
    with pytest.raises(DataError):
        br.fit(TransferMF(rank=1), data, SHORT, progress=False)
    assert data.to_frame().equals(before)


def test_draws_warmup_and_thin(data):
    all_draws = br.fit(PMF(rank=1), data, br.Gibbs(draws=9, warmup=0, chains=2), progress=False)
    thinned = br.fit(PMF(rank=1), data, br.Gibbs(draws=3, warmup=2, chains=2, thin=2), progress=False)
    assert (thinned.n_chains, thinned.n_draws) == (2, 3)
    assert np.array_equal(thinned.draws["noise"], all_draws.draws["noise"][:, [3, 5, 7]])
    assert thinned.stats["log_density"].shape == (2, 3)
    assert not np.array_equal(all_draws.draws["noise"][0], all_draws.draws["noise"][1])


@dataclasses.dataclass(frozen=True)
class Faulty(PMF):
    """Runs ``fault(state, sweep)`` as a block of its own, which says that it draws ``sites``."""

    fault: object = None
    sites: tuple = ()

    def blocks(self, table):
        sweep = iter(range(10**6))
        return [*super().blocks(table), Block("fault", self.sites, lambda state, rng: self.fault(state, next(sweep)))]


@pytest.mark.parametrize("site", ["noise", "item_scale", "user_level", "user_vector"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_site_that_is_not_finite_is_named_with_its_block(data, site, number):
    def fault(state, sweep):
        return {site: np.full_like(state[site], number) if sweep == 4 else state[site]}

    model = Faulty(rank=1, fault=fault, sites=(site,))
    with pytest.raises(FloatingPointError, match=rf"chain 0, sweep 4: \['{site}'\] of block 'fault'"):
        br.fit(model, data, br.Gibbs(draws=10, warmup=6, chains=1), progress=False)


def test_a_log_density_that_is_not_finite_is_named(data):
    def fault(state, sweep):
        return {"noise": state["noise"] * np.nan} if sweep == 6 else {}

    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match=r"sweep 6: sites \['noise'\]"):
        br.fit(Faulty(rank=1, fault=fault), data, br.Gibbs(draws=10, warmup=6, chains=1), progress=False)


def test_a_block_that_breaks_down_is_named(data):
    def fault(state, sweep):
        return {"user_cov": state["user_cov"] * np.nan} if sweep == 3 else {}

    with pytest.raises(FloatingPointError, match=r"of block 'user_population' not finite"):
        br.fit(Faulty(rank=1, fault=fault), data, SHORT, progress=False)


def test_a_kernel_that_breaks_down_names_its_block(data, monkeypatch):
    monkeypatch.setattr("bayesrec.kernels.draw_rows", lambda *_: (3, 0))
    with pytest.raises(br.errors.SamplingError, match=r"3 rows of block 'users'"):
        br.fit(PMF(rank=1), data, SHORT, progress=False)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_chain_stops_the_others(data, failing):
    chains = iter(range(100))

    class OneFails(PMF):
        def blocks(self, table):
            sweeps, chain = iter(range(10**6)), next(chains)

            def fault(state, rng):
                if next(sweeps) == 3 and chain == failing:
                    raise ZeroDivisionError("planted")
                return {}

            return [*super().blocks(table), Block("fault", (), fault)]

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="planted"):
        br.fit(OneFails(rank=1), data, br.Gibbs(draws=1, warmup=10**6, chains=2, threads=2), progress=False)
    assert time.monotonic() - start < 20, "a million sweeps take minutes"


SCRIPT = """
import dataclasses, os, signal, warnings
import numpy as np
import bayesrec as br
from bayesrec.blocks import Block

sweeps = iter(range(10**9))  # of all chains: one signal

@dataclasses.dataclass(frozen=True)
class Interrupted(br.models.PMF):
    def blocks(self, table):
        def interrupt(state, rng):
            if next(sweeps) == {sweep}:
                os.kill(os.getpid(), signal.SIGINT)
            return {{}}
        return [*super().blocks(table), Block("interrupt", (), interrupt)]

frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(15, 12), n_ratings=(8, 5))
data = br.Interactions.from_frame(frame, target="target", value="value")
model, method = Interrupted(rank=1), br.Gibbs(draws=50_000, warmup=50, chains=2, threads={threads})
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    posterior = br.fit(model, data, method, progress=False)
whole = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=20, warmup=50, chains=2), progress=False)
print(seen[0].category.__name__, seen[0].message)
print(posterior.n_chains, 20 <= posterior.n_draws < 50_000)
print(posterior.stats["log_density"].shape == (2, posterior.n_draws))
print(all(np.array_equal(posterior.draws[k][:, :20], whole.draws[k]) for k in whole.draws))
"""


def _interrupted(**values):
    code = textwrap.dedent(SCRIPT.format(**values))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_ctrl_c_keeps_what_was_drawn_and_says_so():
    done = _interrupted(sweep=2000, threads=2)
    assert done.returncode == 0, done.stderr
    message, shape, stats, same = done.stdout.splitlines()
    assert message.startswith("ConvergenceWarning interrupted: kept ")
    assert message.endswith("of 50000 draws in each of 2 of 2 chains.")
    assert (shape, stats, same) == ("2 True", "True", "True")


def test_ctrl_c_before_the_first_draw_is_ctrl_c():
    done = _interrupted(sweep=10, threads=2)
    assert done.returncode != 0
    assert "KeyboardInterrupt: interrupted before the first draw; there is nothing to keep" in done.stderr


def test_the_warning_of_an_interrupted_fit_points_at_the_caller(data, monkeypatch):
    from concurrent.futures import Future

    original = Future.result

    def result(self, timeout=None):
        original(self, timeout)
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", result)
    with pytest.warns(ConvergenceWarning, match="kept 4 of 4 draws in each of 1 of 1 chains") as seen:
        posterior = br.fit(PMF(rank=1), data, br.Gibbs(draws=4, warmup=2, chains=1, threads=1), progress=False)
    assert posterior.n_draws == 4
    assert seen[0].filename == __file__


def test_sample_prior(data):
    tree = br.sample_prior(TransferMF(rank=1), data, draws=200, seed=1)
    assert tree["prior"]["map"].dims == ("chain", "draw", "source", "latent_component", "latent_component_bis")
    predicted = tree["prior_predictive"]["rating"]
    assert predicted.shape == (1, 200, int(data.is_target.sum()))
    assert tree["observed_data"]["rating"].values.tolist() == data.value[data.is_target].tolist()
    target = data.value[data.is_target]
    assert float(predicted.mean()) == pytest.approx(target.mean(), abs=target.std())
    again = br.sample_prior(TransferMF(rank=1), data, draws=200, seed=1)
    assert again.equals(tree)
    assert not br.sample_prior(TransferMF(rank=1), data, draws=200, seed=2).equals(tree)
    with pytest.raises(DataError, match="needs source rows"):
        br.sample_prior(TransferMF(rank=1), data.without_sources())


@pytest.mark.parametrize("column", ["rating", "row", "noise", "value"])
def test_the_name_of_the_value_column_never_clashes(frame, column):
    data = br.Interactions.from_frame(frame.rename(columns={"rating": column}), target="target", value=column)
    posterior = br.fit(PMF(rank=1), data, SHORT, progress=False)
    for tree, groups in (
        (br.sample_prior(PMF(rank=1), data, draws=3), ("prior_predictive", "observed_data")),
        (posterior.to_datatree(), ("log_likelihood", "observed_data")),
    ):
        for group in groups:
            assert list(tree[group].data_vars) == [column]
    assert posterior.to_datatree()["posterior"]["noise"].dims == ("chain", "draw", "domain")
