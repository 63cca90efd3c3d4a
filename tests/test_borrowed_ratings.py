"""Ratings borrowed, pull and conflict: against dense Gaussian conditioning, quadrature, the sampler, and their laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from test_borrowing import BOTH, MANY, NO_SOURCE, NO_TARGET, NOTHING, Case, R
from test_conjugate import ALARM, by, calm, fits

import bayesrec as br
from bayesrec import conjugate
from bayesrec.data import Interactions
from bayesrec.diagnostics.borrowing import information, means
from bayesrec.diagnostics.informed import informed
from bayesrec.errors import DataError, NegativeTransferWarning, NotFittedError, UnsupportedMethodError
from bayesrec.models.base import Schema
from bayesrec.models.transfer import TransferMF
from bayesrec.posterior import Posterior

USERS, ITEMS, N_SOURCE, N_TARGET = 500, 12, 6, 4


def planted(monkeypatch, **change):
    """Make ``prior_precision`` return changed fields."""
    real = TransferMF.prior_precision

    def wrong(self, state, table):
        out = real(self, state, table)
        return replace(out, **{name: f(out) for name, f in change.items()})

    monkeypatch.setattr(TransferMF, "prior_precision", wrong)


FAULTS = {
    "none": {},
    "mean": {"mean": lambda x: 1.05 * x.mean},
    "population mean": {"population_mean": lambda x: x.population_mean + 0.05},
    "gates after own ratings": {"before": lambda x: x.probability},
    "gates before own ratings": {"probability": lambda x: x.before},
    "source": {"source": lambda x: 1.05 * x.source},
}


def own_rows(case, user):
    """Designs, responses less the items' biases and noise variances of a user's target ratings."""
    table, x = case.table, case.state
    rows = slice(table.user_ptr[user * (case.K + 1) + case.K], table.user_ptr[(user + 1) * (case.K + 1)])
    item = x["item_vector"][table.user_item[rows]]
    design = np.column_stack([np.ones(len(item)), item[:, 1:]])
    return design, table.user_value[rows] - item[:, 0], 1.0 / case.weight[rows]


def conditioned(mean, cov, design, y, variance):
    """Mean of theta ~ N(mean, cov) given ratings, by the covariance of everything."""
    gain = cov @ design.T @ np.linalg.inv(design @ cov @ design.T + np.diag(variance))
    return mean + gain @ (y - design @ mean)


def source_prior(case, user, on):
    """Mean and covariance of theta given a user's source ratings and the states of the gates."""
    x = case.state
    mean, cov = x["user_mean"].copy(), x["user_cov"].copy()
    for k, w in enumerate(x["map"]):
        s0 = np.diag(case.scale[k] ** 2)
        gram, linear = case.gram[user][k]
        s = np.linalg.inv(np.linalg.inv(s0) + gram) if on[k] else s0
        cov += w @ s @ w.T
        mean += w @ s @ linear if on[k] else 0.0
    return mean, cov


def noise_of(case, user):
    x = case.state
    return x["noise"][-1] ** 2 * np.exp(-3.0 * np.tanh(x["user_log_precision"][-1, user] / 3.0))


def mixture_information(chance, mean, sd):
    def slope_squared(t):
        parts = chance * stats.norm.pdf(t, mean, sd)
        return (parts * (mean - t) / sd**2).sum() ** 2 / max(parts.sum(), 1e-300)

    ends = (mean - 9 * sd).min(), (mean + 9 * sd).max()
    return integrate.quad(slope_squared, *ends, points=np.unique(mean), limit=500)[0]


@pytest.mark.parametrize("n_sources", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_borrowing_of_predictions(fault, n_sources, monkeypatch):
    """``n0`` by adaptive quadrature of the prior along v, and the pull from two explicit conditionings."""
    case = Case(n_sources)
    rows, prior = case.target_rows(), np.array([np.where(on, 1 - case.off, case.off).prod() for on in case.configs])
    want = np.zeros((2, len(rows)))
    for r, (user, item) in enumerate(rows.itertuples(index=False)):
        v = case.vector(item)
        design, y, variance = own_rows(case, user)
        bare = conditioned(case.state["user_mean"], case.v_pop(), design, y, variance)
        moments = [source_prior(case, user, on) for on in case.configs]
        after = np.exp(case.log_posterior(user))
        moved = sum(p * (conditioned(*m, design, y, variance) - bare) for p, m in zip(after, moments, strict=True))
        want[1, r] = v @ moved * case.posterior.schema.scale[-1]
        along = np.array([(v @ m, np.sqrt(v @ c @ v)) for m, c in moments])
        gain = mixture_information(prior, *along.T) - 1.0 / (v @ case.v_pop() @ v)
        want[0, r] = noise_of(case, user) * gain
    planted(monkeypatch, **FAULTS[fault])
    found = br.borrowing(case.posterior, rows)
    np.testing.assert_array_equal(found[["user", "item"]], rows)
    close = [
        np.allclose(got, x, rtol=2e-3, atol=2e-4) for got, x in zip((found["n0"], found["pull"]), want, strict=True)
    ]
    assert all(close) is (fault == "none")
    if fault.startswith("gates"):
        assert close[0 if "before" in fault else 1], (
            "the gates' states before own ratings are for n0, those after for the pull"
        )


def test_information_of_a_mixture():
    """Wide and narrow, near and far: to 1% of adaptive quadrature; equal components are one normal."""
    rng = np.random.default_rng(3)
    chance, mean, sd = rng.dirichlet(np.ones(2), 60).T, rng.normal(0, 1.5, (2, 60)), rng.uniform(0.3, 1.5, (2, 60))
    got = information(chance, mean, sd**2)
    want = [mixture_information(*x) for x in zip(chance.T, mean.T, sd.T, strict=True)]
    np.testing.assert_allclose(got, want, rtol=0.01)
    same = information(chance, np.zeros((2, 60)), np.full((2, 60), 0.25))
    np.testing.assert_allclose(same, 4.0, rtol=1e-7)


def test_ratings_borrowed_by_a_user_add_up():
    """Without a gate: so many ratings, of items as they come, make the population's prior worth as much in expectation."""
    case = Case(2, gate=False)
    found = br.borrowing(case.posterior)
    x, data = case.state, case.data
    item = data.item[data.is_target]
    design = np.column_stack([np.ones(len(item)), x["item_vector"][item, 1:]])
    typical = design.T @ design / len(item)
    l_pop = np.linalg.inv(case.v_pop())
    for user, row in found.iterrows():
        prior = np.linalg.inv(source_prior(case, user, (True, True))[1])
        unit = typical / noise_of(case, user)

        def size(precision, unit=unit):
            return np.trace(precision @ np.linalg.inv(unit)) / R

        assert row["n0"] == pytest.approx(size(prior) - size(l_pop), abs=1e-9)
        np.testing.assert_allclose(size(l_pop + row["n0"] * unit), size(prior))
    assert found["n"].tolist() == [2, 3, 0, 0, 9]
    cells = case.target_rows()
    pull = br.borrowing(case.posterior, cells).groupby("user")["pull"]
    count = np.bincount(data.items.decode(item), minlength=9)[cells["item"].iloc[:9]]
    np.testing.assert_allclose(found["pull"], pull.apply(lambda x: np.average(x, weights=count)), atol=1e-12)


def test_ratings_borrowed_by_a_user_under_a_gate():
    """Against ``E[s s']`` with 200,000 points: the few points of one draw leave 3%, and errors average out over draws."""
    case, rng = Case(1), np.random.default_rng(1)
    draws = {name: np.repeat(x, 100, axis=1) for name, x in case.posterior.draws.items()}
    found = br.borrowing(replace(case.posterior, draws=draws), draws=100)["n0"]
    item = case.data.item[case.data.is_target]
    design = np.column_stack([np.ones(len(item)), case.state["item_vector"][item, 1:]])
    inverse = np.linalg.inv(design.T @ design / len(item))
    off, l_pop = case.off[0], np.linalg.inv(case.v_pop())
    for user in (BOTH, NO_TARGET, MANY):
        parts = [(p, *source_prior(case, user, (on,))) for p, on in ((1 - off, True), (off, False))]
        total = 0.0
        for p, mean, cov in parts:
            x = rng.multivariate_normal(mean, cov, 200_000)
            log = np.stack([np.log(q) + stats.multivariate_normal(m, c).logpdf(x) for q, m, c in parts])
            share = np.exp(log - log.max(0)) / np.exp(log - log.max(0)).sum(0)
            slope = sum(s[:, None] * np.linalg.solve(c, (m - x).T).T for s, (_, m, c) in zip(share, parts, strict=True))
            total += p * np.einsum("ni,ij,nj->", slope, inverse, slope) / len(x)
        want = noise_of(case, user) * (total - np.trace(l_pop @ inverse)) / R
        assert found[user] == pytest.approx(want, rel=0.1, abs=0.02)


@pytest.mark.parametrize("gate", [True, False])
def test_nothing_is_borrowed_from_nothing(gate):
    case = Case(2, gate)
    cells = br.borrowing(case.posterior, case.target_rows())
    users = br.borrowing(case.posterior)
    for found in (cells, users):
        without = found["user"].isin([NO_SOURCE, NOTHING])
        assert (found.loc[without, ["n0", "pull"]] == 0).all(axis=None)
        assert (found.loc[~without, "pull"] != 0).all()
        assert (found.loc[~without, "n0"] != 0).all()
    case.set(map=np.zeros((2, R, R)))
    for found in (br.borrowing(case.posterior), br.borrowing(case.posterior, case.target_rows())):
        np.testing.assert_allclose(found[["n0", "pull"]], 0.0, atol=1e-10)
    unknown = br.borrowing(case.posterior, pd.DataFrame({"user": [77, BOTH], "item": [0, 99]}))
    assert (unknown.loc[0, ["n0", "pull"]] == 0).all()


def test_pull_is_what_the_sampler_does_without_the_source():
    """Everything else held fixed, 4,000 draws of the users' vectors with and without the source rows."""
    case, n = Case(1), 4000
    rng, vectors = np.random.default_rng(0), []
    start = np.stack([case.configs[rng.choice(2, n, p=np.exp(case.log_posterior(u)))] for u in range(5)], axis=2)
    table = case.table
    for keep in (np.ones(len(case.data), dtype=bool), case.data.is_target):
        case.table = case.posterior.schema.table(case.data.mask(keep))
        sd = case.state["noise"][:, None] * np.exp(-1.5 * np.tanh(case.state["user_log_precision"] / 3))
        case.weight = sd[case.table.user_domain, case.table.user_of] ** -2.0
        vectors.append([case.update(np.ascontiguousarray(on), rng)["user_vector"] for on in start])
    case.table = table
    items = case.data.item[case.data.is_target]
    design = np.column_stack([np.ones(len(items)), case.state["item_vector"][items, 1:]]).mean(0)
    scores = np.array(vectors) @ design * case.posterior.schema.scale[-1]  # (arm, draw, user)
    gap, se = scores[0].mean(0) - scores[1].mean(0), np.sqrt(scores.var(1).sum(0) / n)
    pull = br.borrowing(case.posterior)["pull"].to_numpy()
    assert calm((gap - pull) / se)
    assert not calm((gap - 1.5 * pull) / se)


@pytest.mark.parametrize("fault", ["none", "weight", "mean", "source"])
def test_conflict_is_a_distance_from_the_priors(fault, monkeypatch):
    case = Case(2)
    want = []
    for user in (BOTH, MANY):
        design, y, variance = own_rows(case, user)
        told = source_prior(case, user, (True, True))
        row, log = [], []
        for mean, cov in (told, (case.state["user_mean"], case.v_pop())):
            normal = stats.multivariate_normal(design @ mean, design @ cov @ design.T + np.diag(variance))
            gap = y - normal.mean
            row.append(stats.chi2.sf(gap @ np.linalg.solve(normal.cov, gap), len(y)))
            log.append(normal.logpdf(y))
        want.append([len(y), *row, log[0] - log[1], 1.0 - np.exp(case.log_posterior(user)[-1])])
    if fault == "weight":
        real = conjugate.row_grams
        monkeypatch.setattr(conjugate, "row_grams", lambda *a: real(*a[:3], by(1.1)(a[3]), a[4]))
    else:
        planted(monkeypatch, **FAULTS[fault])
    found = br.conflict(case.posterior).set_index("user")
    assert found.index.tolist() == [BOTH, MANY]
    assert np.allclose(found[["n", "p_source", "p_population", "support", "used"]], want, rtol=1e-8) is (
        fault == "none"
    )
    np.testing.assert_array_equal(found["conflict"], (found["p_source"] < 0.05) & (found["support"] < 0))


@pytest.fixture(scope="module")
def world():
    """A state, and ratings of 500 users simulated from it: what each announced in the source is true of the target."""
    rng, model = np.random.default_rng(11), br.models.TransferMF(rank=2, likelihood=br.Gaussian(user_noise=False))
    state = {
        "user_mean": np.array([0.3, -0.2, 0.1]),
        "user_cov": np.diag([0.1, 0.15, 0.15]),
        "noise": np.array([0.6, 0.5]),
    }
    state |= {"map": np.array([[[0.9, 0.1, 0.0], [0.1, 0.8, 0.2], [0.0, -0.3, 0.9]]]), "gate": np.array([0.2])}
    state |= {"source_bias_scale": np.array([0.7]), "item_vector": rng.normal(0, 0.8, (2 * ITEMS, 3))}
    state = {name: np.asarray(x, np.float32).astype(float) for name, x in state.items()}
    phi = rng.standard_normal((USERS, 3)) * [0.7, 1.0, 1.0]
    theta = (
        state["user_mean"]
        + phi @ state["map"][0].T
        + rng.standard_normal((USERS, 3)) * np.sqrt(state["user_cov"].diagonal())
    )
    frames = []
    for d, (name, vectors, n) in enumerate((("a", phi, N_SOURCE), ("t", theta, N_TARGET))):
        user = np.repeat(np.arange(USERS), n)
        item = np.concatenate([rng.permutation(ITEMS)[:n] for _ in range(USERS)])
        q = state["item_vector"][d * ITEMS + item].copy()
        bias, q[:, 0] = q[:, 0].copy(), 1.0
        value = bias + (vectors[user] * q).sum(1) + state["noise"][d] * rng.standard_normal(len(user))
        frames.append(pd.DataFrame({"user": user, "item": item, "domain": name, "value": value}))
    return model, state, pd.concat(frames, ignore_index=True)


def held(world, change=lambda frame: frame, **other):
    """A posterior of one draw, the true state, on changed data, in units of 1."""
    model, state, frame = world
    data = Interactions.from_frame(change(frame.copy()), target="t", value="value")
    schema = replace(Schema.of(data), center=np.zeros(2), scale=np.ones(2))
    sizes = {
        "user": USERS,
        "item": 2 * ITEMS,
        "domain": 2,
        "source": 1,
        "latent_component": 3,
        "latent_component_bis": 3,
        "map_part": 3,
    }
    state = {s: (state | other).get(s, np.ones([sizes[a] for a in axes])) for s, axes in model.dims.items()}
    return Posterior({s: np.asarray(x, np.float32)[None, None] for s, x in state.items()}, model, None, data, schema)


def test_p_values_are_uniform_under_the_model(world):
    """KS at ALARM = 1e-4 for both; not so where the noise is thought half as large, or the source to mean the opposite."""
    found = br.conflict(held(world))
    assert len(found) == USERS
    assert fits(found[["p_source", "p_population"]].to_numpy(), "uniform")
    wrong = br.conflict(held(world, noise=np.array([0.6, 0.25])))  # no warning: both priors look bad
    assert not fits(wrong[["p_source"]].to_numpy(), "uniform")
    with pytest.warns(NegativeTransferWarning, match="contradict what it announced"):
        wrong = br.conflict(held(world, map=-world[1]["map"], gate=np.array([1e-9])))
    assert not fits(wrong[["p_source"]].to_numpy(), "uniform")


def test_few_conflicts_under_the_model_and_many_with_the_source_of_others(world):
    """Under the model at most 5% of users, up to what one run in 10,000 exceeds."""
    good = br.conflict(held(world))
    assert good["conflict"].sum() <= stats.binom.isf(ALARM, USERS, 0.05)
    assert good["support"].mean() > 0

    def deranged(frame):
        frame.loc[frame["domain"] == "a", "user"] = (frame["user"] + 1) % USERS
        return frame

    with pytest.warns(NegativeTransferWarning, match=r"^a: the target ratings of \d+ of \d+ users for whom"):
        bad = br.conflict(held(world, deranged, gate=np.array([1e-9])))
    assert bad["conflict"].mean() > 0.25
    gated = br.conflict(held(world, deranged, gate=np.array([0.8])))
    assert gated["conflict"].mean() > 0.25, "no warning: the gate shuts the source out"
    assert gated.loc[gated["conflict"], "used"].mean() < 0.1


def test_one_contradictory_user(world):
    """One user's target ratings are turned round the population's mean; nobody else's answer changes."""
    good = br.conflict(held(world)).set_index("user")
    away = (good["p_source"] - 0.5).abs() < 0.4
    user = int(good.index[away & (good["support"] > 3.0)][0])
    _, state, frame = world
    mine = (frame["user"] == user) & (frame["domain"] == "t")
    q = state["item_vector"][ITEMS + frame.loc[mine, "item"]]
    usual = q[:, 0] + state["user_mean"][0] + q[:, 1:] @ state["user_mean"][1:]

    def turned(table):
        table.loc[mine, "value"] = 2.0 * usual - table.loc[mine, "value"]
        return table

    bad = br.conflict(held(world, turned)).set_index("user")
    assert good.loc[user, "p_source"] > 0.1
    assert bad.loc[user, "p_source"] < 0.01
    assert bad.loc[user, "conflict"]
    assert bad.loc[user, "p_population"] == pytest.approx(good.loc[user, "p_population"])
    pd.testing.assert_frame_equal(bad.drop(user), good.drop(user))


def test_held_out_ratings_take_the_place_of_those_in_the_fit(world):
    frame = world[2]
    target = frame[frame["domain"] == "t"]
    whole = held(world)
    same = br.conflict(whole, target)
    pd.testing.assert_frame_equal(same, br.conflict(whole))
    pd.testing.assert_frame_equal(same, br.conflict(whole, target.sample(frac=1.0, random_state=1)))
    part = br.conflict(whole, target[target["item"] < 4])
    assert part["n"].max() <= 4
    assert part["n"].sum() == (target["item"] < 4).sum()
    stranger = target.head(1).assign(user=-5)
    pd.testing.assert_frame_equal(br.conflict(whole, pd.concat([target, stranger])), same)


def test_the_warning_after_a_fit():
    """CollectiveMF cannot shut out a source: it warns where users are deranged, and not where they are not."""
    frame, _ = br.data.synthetic.cross_domain(n_users=150, n_items=(30, 25), n_ratings=(20, 10), rank=2, seed=4)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    method = br.Gibbs(draws=20, warmup=60, chains=1)
    for model in (br.models.CollectiveMF(rank=2), br.models.TransferMF(rank=2)):
        br.conflict(br.fit(model, data, method, progress=False))
    wrong = br.data.derange_sources(data)
    with pytest.warns(NegativeTransferWarning, match="nats less probable than without it"):
        br.conflict(br.fit(br.models.CollectiveMF(rank=2), wrong, method, progress=False))
    br.conflict(br.fit(br.models.TransferMF(rank=2), wrong, method, progress=False))


def test_models_without_a_source(pmf, target_rows):
    rows = target_rows.head(5)
    assert (br.borrowing(pmf, rows)[["n0", "pull"]] == 0).all(axis=None)
    assert (br.borrowing(pmf)[["n0", "pull"]] == 0).all(axis=None)
    assert not len(br.conflict(pmf))


def test_what_is_refused(transfer, frame, tmp_path):
    source = frame[frame["domain"] == "source"]
    for call in (br.borrowing, br.conflict):
        with pytest.raises(DataError, match="belongs to domain 'source'"):
            call(transfer, source.head(2))
    bare = br.load(transfer.save(tmp_path / "bare", data=False))
    for call in (br.borrowing, br.conflict, br.transfer_datatree):
        with pytest.raises(NotFittedError, match="data=False"):
            call(bare)
        for draws in (0, True, 1.5):
            with pytest.raises(DataError, match="draws must be at least 1"):
                call(transfer, draws=draws)


def test_transfer_datatree(transfer):
    """Means over its draws are what the tables say, and it goes beside the groups of the posterior."""
    tree = br.transfer_datatree(transfer, draws=60)
    group = tree["transfer"]
    assert group["n0"].dims == ("chain", "draw", "user")
    assert group["relevance"].dims == ("chain", "draw", "source", "user")
    assert {"posterior", "sample_stats", "log_prior", "observed_data", "log_likelihood"} < set(tree.children)
    users = br.borrowing(transfer)
    for name in ("n0", "pull"):
        np.testing.assert_allclose(group[name].mean(["chain", "draw"]), users[name], atol=1e-12)
    found = br.conflict(transfer).set_index("user")
    for name in ("p_source", "p_population", "support"):
        part = group[name].mean(["chain", "draw"]).sel(user=found.index.to_numpy())
        np.testing.assert_allclose(part, found[name])
    assert group["p_source"].isnull().any(["chain", "draw"]).sum() == 5, "five users have no target ratings"
    shown = br.relevance(transfer).set_index("user")["relevance"]
    part = group["relevance"].sel(source="source", user=shown.index.to_numpy()).mean(["chain", "draw"])
    np.testing.assert_allclose(part, shown)
    few = br.transfer_datatree(transfer, draws=6, log_likelihood=False)["transfer"]
    assert few["draw"].to_numpy().tolist() == [0, 14, 29]
    np.testing.assert_allclose(few["n0"], group["n0"].sel(draw=few["draw"]))


def test_levels():
    """Ordinal ratings: the pull is in levels, against expected ratings by hand; conflict refuses them by name."""
    frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(20, 15), n_ratings=(15, 5), rank=1, seed=2)
    frame["value"] = pd.cut(frame["value"], [-np.inf, 2.0, 3.0, 4.0, np.inf], labels=False) + 1.0
    data = br.Interactions.from_frame(frame, target="target", value="value")
    model = br.models.TransferMF(rank=1, likelihood=br.Ordinal())
    posterior = br.fit(model, data, br.Gibbs(draws=1, warmup=30, chains=1), progress=False)
    with pytest.raises(UnsupportedMethodError, match="Ordinal"):
        br.conflict(posterior)
    rows = frame[frame["domain"] == "target"]
    found, state = br.borrowing(posterior, rows), posterior.draw(0, 0)
    (one,) = informed(posterior, np.arange(60), [(0, 0)])
    bare, moved = means(one)
    user, item = rows["user"].to_numpy(), data.items.encode(rows["item"], 1)
    precision = np.exp(3.0 * np.tanh(state["user_log_precision"][-1, user] / 3.0))

    def level(theta):
        q = state["item_vector"][item]
        eta = q[:, 0] + theta[user, 0] + q[:, 1] * theta[user, 1]
        return 1.0 + stats.norm.cdf((eta[:, None] - state["cut"][-1]) * np.sqrt(precision)[:, None]).sum(1)

    np.testing.assert_allclose(found["pull"], level(bare + moved) - level(bare), atol=1e-5)
    assert found["pull"].std() > 0.02
    assert np.isfinite(br.borrowing(posterior)[["n0", "pull"]]).all(axis=None)
    group = br.transfer_datatree(posterior)["transfer"]
    assert set(group.data_vars) == {"n0", "pull", "relevance"}


@pytest.mark.parametrize("likelihood", [br.Gaussian(), br.Ordinal()])
@pytest.mark.parametrize("question", [br.source_weight, br.borrowing])
def test_a_row_has_the_same_answer_alone_and_among_others(question, likelihood, monkeypatch):
    """Alone it touches the items of its user's rows only; an item that nobody knows is an average one either way."""
    frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(20, 15), n_ratings=(10, 5), n_cold=3, rank=1, seed=2)
    frame["value"] = pd.cut(frame["value"], [-np.inf, 2.0, 3.0, 4.0, np.inf], labels=False) + 1.0
    data = br.Interactions.from_frame(frame, target="target", value="value")
    model = br.models.TransferMF(rank=1, likelihood=likelihood)
    posterior = br.fit(model, data, br.Gibbs(draws=5, warmup=20, chains=1), progress=False)
    cells = [(user, item) for user in range(30) for item in (*data.items.decode(np.arange(20, 35)), 10**6)]
    rows = pd.DataFrame(cells, columns=["user", "item"]).assign(domain="target")
    together = question(posterior, rows).drop(columns=["user", "item"])
    taken = []
    whole = Posterior.draw
    monkeypatch.setattr(Posterior, "draw", lambda *given: taken.append(given[-1]) or whole(*given))
    for k in (0, 15, 100, 300, len(rows) - 1):
        alone = question(posterior, rows.iloc[[k]]).drop(columns=["user", "item"])
        np.testing.assert_allclose(alone.to_numpy()[0], together.to_numpy()[k], rtol=1e-6, atol=1e-9)
    assert max(len(items) for items in taken) <= 17, (
        "ten source rows, five target rows, the one asked for, the typical one"
    )


def test_items_that_were_not_named_have_no_vector():
    """An error, not the vector of another item."""
    frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(12, 10), n_ratings=(6, 3), rank=1, seed=2)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=2, warmup=5, chains=1), progress=False)
    (one,) = informed(posterior, np.array([3]), [(0, 0)], items=np.array([12, -1]))
    np.testing.assert_array_equal(one.vectors(np.array([12]))[0], posterior.draw(0, 0)["item_vector"][12])
    np.testing.assert_array_equal(one.vectors(np.array([-1]))[0], posterior.draw(0, 0)["item_mean"][-1])
    rest = np.setdiff1d(
        np.arange(12, 22), [*data.item[data.user == 3], 12, np.bincount(data.item[data.is_target]).argmax()]
    )
    for item in rest:
        with pytest.raises(IndexError):
            one.vectors(np.array([item]))
