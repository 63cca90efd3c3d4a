"""Implicit against the same model with every cell written out as a row: draws agree to rounding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from test_conjugate import calm, twist
from test_ordinal import ratings

import bayesrec as br
from bayesrec import conjugate, whole
from bayesrec.baselines.clicks import stacked_ppca
from bayesrec.errors import DataError, UnsupportedMethodError
from bayesrec.likelihoods import implicit
from bayesrec.models.base import Schema
from bayesrec.workers import Workers

QUICK = br.Gibbs(draws=30, warmup=30, chains=2)
CONFIGURATIONS = {
    "alike": br.Implicit(popularity_exponent=0.3),
    "weak zeros": br.Implicit(popularity_exponent=0.5, unobserved=0.2),
    "confidence": br.Implicit(popularity_exponent=0.0, unobserved=0.7, confidence=True),
    "absent zeros": br.Implicit(popularity_exponent=0.3, absent="zeros"),
    "weak absent zeros": br.Implicit(popularity_exponent=0.3, unobserved=0.2, absent="zeros"),
}
MODELS = {
    "PMF": br.models.PMF(rank=2),
    "CollectiveMF": br.models.CollectiveMF(rank=2),
    "TransferMF": br.models.TransferMF(rank=2),
    "no gate": br.models.TransferMF(rank=2, gate=False),
    "distribution": br.models.TransferMF(rank=2, link="distribution"),
}


def clicks(seed=0, n_users=12, value=False):
    """Three users have no source rows, two no target rows; values from 1."""
    frame = ratings(seed=seed).query(f"user < {n_users}")
    frame = frame[~((frame.domain == "source") & (frame.user < 3)) & ~((frame.domain == "target") & (frame.user > 9))]
    frame = frame.assign(value=1.0 + np.random.default_rng(seed).integers(0, 3, len(frame)))
    return br.Interactions.from_frame(frame, target="target", value="value")


def apart(data):
    """The same rows with other users in the source."""
    frame = data.to_frame()
    return br.Interactions.from_frame(
        frame.assign(user=frame.user + 100 * (frame.domain == "source")), target="target", value="value"
    )


@dataclass(frozen=True)
class Weighted(br.Gaussian):
    """Normal responses with one noise for all and a weight for each row, given in user order."""

    user_noise: bool = False
    weight: tuple = ()

    def working(self, state, table, by):
        value, precision = super().working(state, table, by)
        weight = np.array(self.weight)
        return value, precision * (weight if by == "user" else weight[table.item_place])

    def blocks(self, table, fitted):
        def noise(state, rng):
            return {
                "noise": conjugate.half_t_scale(
                    state["noise"], self.squares(state, table, fitted), table.count.sum(1), 1.0, rng
                )
            }

        return [replace(super().blocks(table, fitted)[0], update=noise)]

    def squares(self, state, table, fitted):
        own = np.array(self.weight) * (table.user_value - fitted.eta(state)) ** 2
        return np.bincount(table.user_domain, own, table.n_domains)


def written_out(model, data):
    """The model and the table of the implicit fit, and of the one in which cells are rows; starting states of both."""
    data = model.view(data)
    schema = Schema.of(data, model.likelihood)
    table = schema.table(data)
    state = model.start(table, np.random.default_rng(5))
    k, alpha = state["click"], model.likelihood.popularity_exponent
    popularity = np.bincount(data.item, minlength=data.n_items)
    rows = dict(zip(zip(data.user, data.item, strict=True), data.value, strict=True))
    user, item, value, weight = [], [], [], []
    present = table.count > 0
    if model.likelihood.absent == "zeros":
        present[:, present.any(0)] = True
    for u in range(data.n_users):
        for i in range(data.n_items):
            d = table.item_domain[i]
            if present[d, u] and popularity[i]:
                click = k[d] * popularity[i] ** -alpha
                user.append(u)
                item.append(i)
                value.append(click if (u, i) in rows else 0.0)
                mine = rows.get((u, i), 0.0) if model.likelihood.confidence else 1.0
                weight.append(mine if (u, i) in rows else model.likelihood.unobserved)
    order = np.lexsort((table.item_domain[item], user))
    item = np.array(item)
    dense = conjugate.Table.build(
        np.array(user), item, table.item_domain[item], np.array(value), n_users=data.n_users, n_items=data.n_items,
        item_domain=table.item_domain, n_domains=table.n_domains,
    )  # fmt: skip
    dense_model = replace(model, likelihood=Weighted(weight=tuple(np.array(weight)[order])))
    assert np.array_equal(dense.user_value, np.array(value)[order])
    return model, table, state, dense_model, dense


def gap(model, table, state, dense_model, dense, sweeps=3):
    """Largest difference of two chains after some sweeps, relative to 1."""
    chains = []
    for one, rows in ((model, table), (dense_model, dense)):
        rng, mine = np.random.default_rng(7), dict(state)
        for _ in range(sweeps):
            for block in one.blocks(rows):
                if block.swept:
                    mine |= block.update(mine, rng)
        chains.append(mine)
    return max(np.abs(np.asarray(chains[0][name]) - chains[1][name]).max() for name in dense_model.dims)


@pytest.mark.parametrize(
    ("name", "which"), [(m, c) for m in MODELS for c in CONFIGURATIONS if m != "distribution" or "absent" not in c]
)
def test_sweeps_are_those_of_the_matrix_written_out(name, which):
    """Users, items, populations, maps, gates and noise: every block, three times over."""
    data = clicks() if name != "distribution" else apart(clicks())
    both = written_out(replace(MODELS[name], likelihood=CONFIGURATIONS[which]), data)
    assert gap(*both) < 1e-8


@pytest.mark.parametrize(
    ("name", "which", "module", "fault"),
    [
        ("CollectiveMF", "alike", (implicit, "grams"), {"_2": lambda p: 1.01 * p}),
        ("CollectiveMF", "weak zeros", (whole, "draw_rows"), {"_12": lambda seen: seen | True}),
        ("TransferMF", "alike", (implicit, "grams"), {"_2": lambda p: 1.01 * p}),
        ("PMF", "alike", (conjugate, "half_t_scale"), {"_1": lambda s: 1.01 * np.asarray(s)}),
        ("CollectiveMF", "absent zeros", (br.Implicit, "present"), {}),
        ("TransferMF", "absent zeros", (br.Implicit, "present"), {}),
    ],
)
def test_a_fault_is_seen(name, which, module, fault, monkeypatch):
    both = written_out(replace(MODELS[name], likelihood=CONFIGURATIONS[which]), clicks())
    if module[1] == "half_t_scale":
        real = br.Implicit.squares
        monkeypatch.setattr(br.Implicit, "squares", lambda *args: 1.01 * real(*args))
    elif module[1] == "present":
        monkeypatch.setattr(br.Implicit, "present", lambda self, table: table.count > 0)
    else:
        twist(monkeypatch, *module, **fault)
    assert gap(*both, sweeps=1) > 1e-4


@pytest.mark.parametrize("which", CONFIGURATIONS)
def test_log_density_and_what_rows_tell_are_those_of_the_matrix_written_out(which):
    model, table, state, dense_model, dense = written_out(
        replace(MODELS["TransferMF"], likelihood=CONFIGURATIONS[which]), clicks()
    )
    weight, fitted = np.array(dense_model.likelihood.weight), dense_model.fitted(dense)
    precision = weight / state["noise"][dense.user_domain] ** 2
    log = 0.5 * (np.log(precision / (2 * np.pi)) - precision * (dense.user_value - fitted.eta(state)) ** 2)
    assert model.log_density(state, table) == pytest.approx(log.sum(), rel=1e-9)
    for got, want in zip(model.told(state, table), dense_model.told(state, dense), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)
    ours, theirs = model.prior_precision(state, table), dense_model.prior_precision(state, dense)
    np.testing.assert_allclose(ours.source, theirs.source, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-7, atol=1e-8)


def test_no_loop_over_users_and_items(monkeypatch):
    """What the kernels and Gram matrices are given grows with rows, users and items, not with their product."""
    sizes = []

    def note(real):
        def wrapped(*args, **kwargs):
            sizes.extend(x.size for x in (*args, *kwargs.values()) if isinstance(x, np.ndarray))
            out = real(*args, **kwargs)
            sizes.extend(x.size for x in (out if isinstance(out, tuple) else (out,)) if isinstance(x, np.ndarray))
            return out

        return wrapped

    n = 400
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user": np.repeat(np.arange(n), 4), "item": rng.integers(0, n, 4 * n), "domain": "target"})
    data = br.Interactions.from_frame(frame.drop_duplicates(), target="target", value=None)
    model = br.models.PMF(rank=2, likelihood=br.Implicit())
    for module, name in (
        (implicit, "grams"),
        (whole, "draw_rows"),
        (conjugate, "row_scores"),
        (conjugate, "half_t_scale"),
    ):
        monkeypatch.setattr(module, name, note(getattr(module, name)))
    br.fit(model, data, br.Gibbs(draws=1, warmup=1, chains=1), progress=False)
    assert max(sizes) <= 3 * 4 * n < n * n / 30


def test_close_to_svd_shrinkage_where_noise_is_small():
    """Columns without scaling: posterior mean scores are near the truncated SVD of a matrix of low rank."""
    rng = np.random.default_rng(2)
    group = rng.integers(0, 3, 60)
    taken = (group[:, None] == rng.integers(0, 3, 40)) & (rng.random((60, 40)) < 0.9)
    user, item = np.nonzero(taken)
    frame = pd.DataFrame({"user": user, "item": item, "domain": "target"})
    data = br.Interactions.from_frame(frame, target="target", value=None)
    model = br.models.PMF(rank=3, likelihood=br.Implicit(popularity_exponent=0.0))
    posterior = br.fit(model, data, br.Gibbs(draws=100, warmup=100, chains=2), progress=False)
    every = pd.DataFrame({"user": np.repeat(np.unique(user), 40), "item": np.tile(np.arange(40), len(np.unique(user)))})
    score = posterior.predict(every)["mean"].to_numpy().reshape(-1, 40)
    x = taken[np.unique(user)].astype(float)
    u, s, v = np.linalg.svd(x)
    best = (u[:, :3] * s[:3]) @ v[:3]
    assert np.sqrt(((score - best) ** 2).mean()) < 0.3 * np.sqrt(((x - best) ** 2).mean())


# what users see


@pytest.fixture(scope="module")
def fitted():
    frame = ratings().drop(columns="value")
    cold = frame.user.isin(frame.user.unique()[:5]) & (frame.domain == "target")
    data = br.Interactions.from_frame(frame[~cold], target="target", value=None)
    return br.fit(br.models.CollectiveMF(rank=2, likelihood=br.Implicit()), data, QUICK, progress=False), frame[cold]


def test_predictions_by_brute_force(fitted):
    posterior, cold = fitted
    draws, data = posterior.latents(), posterior.data
    batch = data.encode(cold)
    popularity = np.bincount(data.item, minlength=data.n_items)[batch.item]
    user, item = (
        draws[f"{side}_vector"].numpy()[:, codes] for side, codes in (("user", batch.user), ("item", batch.item))
    )
    click = draws["click"].numpy()[:, 1:] * np.maximum(popularity, 1.0) ** -0.3
    score = (user[..., 0] + item[..., 0] + (user * item)[..., 1:].sum(-1)) / click
    sd = draws["noise"].numpy()[:, 1:] / click
    answer = posterior.predict(cold)
    np.testing.assert_allclose(answer["mean"], score.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(answer["sd"], np.sqrt((sd**2).mean(0) + score.var(0)), rtol=1e-4)
    density = np.exp(-0.5 * ((1 - score) / sd) ** 2) / sd / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(posterior.log_score(cold), np.log(density.mean(0)), rtol=1e-4, atol=1e-5)
    for u, i, want in zip(batch.user[:4], batch.item, score.T, strict=False):
        np.testing.assert_allclose(posterior.expected(int(u), np.array([i]))[:, 0], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(draws["popularity"][0], np.bincount(data.item, minlength=data.n_items))


def test_lists_rank_by_scores_scaled_back(fitted):
    posterior, cold = fitted
    users = cold.user.unique()
    top = br.recommend(posterior, users, n=3)
    items = np.array(sorted(posterior.data.to_frame().query("domain == 'target'").item.unique()))
    for user in users:
        mean = posterior.predict(pd.DataFrame({"user": user, "item": items}))["mean"].to_numpy()
        assert set(top[top.user == user].item) == set(items[np.argsort(-mean)[:3]])


@pytest.fixture(scope="module")
def complete():
    """Absent users of the fit are zeros; cold users are left out, and their source rows stand beside."""
    frame = ratings().drop(columns="value")
    cold = frame.user.isin(frame.user.unique()[:5])
    data = br.Interactions.from_frame(frame[~cold], target="target", value=None)
    model = br.models.CollectiveMF(rank=2, likelihood=br.Implicit(absent="zeros"))
    return br.fit(model, data, QUICK, progress=False), frame[cold & (frame.domain == "source")]


def heavier(monkeypatch):
    twist(monkeypatch, implicit, "grams", _2=lambda precision: 1.2 * precision)


def everywhere(monkeypatch):
    monkeypatch.setattr(br.Implicit, "present", lambda self, table: np.ones_like(table.count, dtype=bool))


def in_full(monkeypatch):
    monkeypatch.setattr(br.Implicit, "_precision", staticmethod(lambda state, table: state["noise"] ** -2.0))


@pytest.mark.parametrize(
    ("which", "power", "fault"),
    [
        ("fitted", 1.0, None),
        ("fitted", 1.0, heavier),
        ("complete", 1.0, None),
        ("complete", 1.0, everywhere),
        ("complete", 0.1, None),
        ("complete", 0.1, in_full),
    ],
)
def test_fold_in_of_a_cold_user(which, power, fault, request, monkeypatch):
    """Many copies of a cold user, whitened by the closed form over all cells of the source; 1e-4 of runs would say otherwise."""
    posterior, cold = request.getfixturevalue(which)
    if fault:
        fault(monkeypatch)
    data, user = posterior.data, cold.user.iloc[0]
    rows = data.to_frame()[lambda frame: frame.user == user] if which == "fitted" else cold[cold.user == user]
    taken, copies = data.encode(rows).item, 400
    folded = posterior.fold_in(pd.concat([rows.assign(user=1000 + k) for k in range(copies)]), power=power)
    items, state = np.flatnonzero((data.item_domain == 0) & (np.bincount(data.item, minlength=data.n_items) > 0)), []
    for chain in range(posterior.n_chains):
        for draw in range(posterior.n_draws):
            x = posterior.draw(chain, draw)
            click = x["click"][0] * x["popularity"][items] ** -0.3 * np.isin(items, taken)
            v = x["item_vector"][items].copy()
            response, v[:, 0] = click - v[:, 0], 1.0
            prior = np.linalg.inv(x["user_cov"])
            told = power / x["noise"][0] ** 2
            precision = prior + told * v.T @ v
            mean = np.linalg.solve(precision, prior @ x["user_mean"] + told * v.T @ response)
            state.append((folded.draws["user_vector"][chain, draw, -copies:] - mean) @ np.linalg.cholesky(precision))
    z = np.concatenate(state)
    first, second = z.mean(0) * np.sqrt(len(z)), ((z**2).mean(0) - 1) * np.sqrt(len(z) / 2)
    assert calm(np.append(first, second)) is (fault is None)


def test_newcomers_stay_newcomers(complete, tmp_path):
    """An update of somebody who was folded in has no zeros in the target; nor after saving. Those of the fit keep theirs."""
    posterior, cold = complete
    more = posterior.fold_in(cold)
    more = br.load(more.save(tmp_path / "p"))
    table, new = more.schema.table(more.data), more.data.n_users - posterior.data.n_users
    present = more.model.likelihood.present(table)
    assert new == cold.user.nunique()
    assert present[:, :-new].all()
    np.testing.assert_array_equal(present[:, -new:], [[True] * new, [False] * new])
    state, fit_only = more.draw(0, 0), posterior.draw(0, 0)
    told = posterior.model.told(fit_only, posterior.schema.table(posterior.data))
    for ours, theirs in zip(more.model.told(state, table), told, strict=True):
        np.testing.assert_allclose(ours[:-new], theirs, rtol=1e-6)
        assert not ours[-new:, 1].any()
    again = more.update(cold.drop_duplicates("user"), seed=3).draws["user_vector"]
    assert np.array_equal(again[:, :, :-new], more.draws["user_vector"][:, :, :-new])


def test_threads_change_nothing():
    model, data = MODELS["CollectiveMF"], clicks(n_users=40)
    model = replace(model, likelihood=br.Implicit())
    fits = [br.fit(model, data, replace(QUICK, threads=n), progress=False) for n in (1, 2)]
    assert all(np.array_equal(fits[0].draws[name], fits[1].draws[name]) for name in fits[0].draws)


def test_save_and_load(fitted, tmp_path):
    posterior, cold = fitted
    back = br.load(posterior.save(tmp_path / "p"))
    assert back.predict(cold).equals(posterior.predict(cold))
    assert posterior.to_datatree()["posterior"]["popularity"].dims[-1] == "item"
    assert not {"click", "popularity"} & set(posterior.model.identified(posterior.latents()))


def test_ranks_a_shared_taste_like_probabilistic_pca():
    """Three tastes, cold users: mean rank of what they take is near PPCA's, and far from popularity's."""
    rng = np.random.default_rng(4)
    taste, kind = rng.integers(0, 3, 300), {d: rng.integers(0, 3, 60) for d in ("source", "target")}
    parts = []
    for d, kinds in kind.items():
        user, item = np.nonzero(rng.random((300, 60)) < np.where(taste[:, None] == kinds, 0.2, 0.03))
        parts.append(pd.DataFrame({"user": user, "item": item, "domain": d}))
    frame = pd.concat(parts)
    held = (frame.user < 60) & (frame.domain == "target")
    data = br.Interactions.from_frame(frame[~held], target="target", value=None)
    model = br.models.CollectiveMF(rank=4, likelihood=br.Implicit())
    scorers = {"ours": br.fit(model, data, QUICK, progress=False), "ppca": stacked_ppca(data, 4)}
    everything = data.with_rows(data.encode(frame[held], need_value=True))
    test = everything.mask(np.arange(len(everything)) >= len(data))
    found = br.evaluate_ranking(scorers, data, test, 10)
    mrr = found.frame.query("metric == 'mrr'").set_index("model")["mean"]
    assert mrr["ours"] > mrr["popularity"] + 0.03
    assert mrr["ours"] > mrr["ppca"] - 0.02


@pytest.mark.parametrize("absent", ["missing", "zeros"])
def test_chains_start_from_an_svd_of_all_cells(absent):
    """Against NumPy's SVD of the centred matrix written out, cells of missing users at zero."""
    data = clicks()
    model = replace(MODELS["TransferMF"], likelihood=br.Implicit(absent=absent))
    table = Schema.of(data, model.likelihood).table(data)
    rng = np.random.default_rng(0)
    state = model.started(model.start(table, rng), table, rng)
    x = np.zeros((table.n_users, table.n_items))
    x[data.user, data.item] = model.likelihood.response(state, table)[
        np.lexsort((data.item, data.domain, data.user)).argsort()
    ]
    for d in (0, 1):
        here, columns = (table.count[d] > 0) | (absent == "zeros"), table.item_domain == d
        mean = x[np.ix_(here, columns)].mean(0)
        np.testing.assert_allclose(state["item_vector"][columns, 0], mean, atol=1e-12)
        x[np.ix_(here, columns)] -= mean
    u, s, v = np.linalg.svd(x)
    want = (u[:, :2] * s[:2]) @ v[:2]
    np.testing.assert_allclose(state["user_vector"][:, 1:] @ state["item_vector"][:, 1:].T, want, atol=1e-8)
    np.testing.assert_array_equal(state["source_vector"][0], state["user_vector"])


# bad input and other methods


@pytest.mark.parametrize(
    ("likelihood", "change", "message"),
    [
        (br.Implicit(), -1.0, "a row with the value -1.*leave out rows"),
        (br.Implicit(), 0.0, "a row with the value 0"),
        (br.Implicit(confidence=True), 0.5, r"value 0\.5.*at least 1"),
    ],
)
def test_data_that_cannot_be(likelihood, change, message):
    frame = clicks().to_frame()
    frame.loc[0, "value"] = change
    data = br.Interactions.from_frame(frame, target="target", value="value")
    with pytest.raises(DataError, match=message):
        br.fit(br.models.CollectiveMF(rank=1, likelihood=likelihood), data, QUICK, progress=False)


@pytest.mark.parametrize(
    "options",
    [{"unobserved": 0.0}, {"unobserved": 2}, {"popularity_exponent": "a"}, {"confidence": 1}, {"absent": "no"}],
)
def test_options_are_checked(options):
    with pytest.raises(DataError, match=next(iter(options))):
        br.Implicit(**options)


@pytest.mark.parametrize("method", [br.NUTS(draws=2, warmup=2), br.SVI(steps=2)])
def test_methods_that_cannot(method):
    with pytest.raises(UnsupportedMethodError, match="Gibbs"):
        br.fit(br.models.CollectiveMF(rank=1, likelihood=br.Implicit()), clicks(), method, progress=False)


def test_summaries_of_single_rows_are_refused():
    posterior = br.fit(br.models.PMF(rank=1, likelihood=br.Implicit()), clicks(), QUICK, progress=False)
    with pytest.raises(UnsupportedMethodError, match="cells without a row"):
        posterior.as_prior()


def test_domains_without_shared_users_have_no_absent_ones():
    for likelihood in (br.Implicit(absent="zeros"), {"source": br.Gaussian(), "target": br.Implicit(absent="zeros")}):
        with pytest.raises(DataError, match="leave absent out"):
            br.models.TransferMF(rank=1, link="distribution", likelihood=likelihood)


def test_what_else_cannot():
    model, data = br.models.PMF(rank=1, likelihood=br.Implicit()), clicks()
    with pytest.raises(UnsupportedMethodError, match="popularity of items from the data"):
        br.sample_prior(model, data, draws=2)
    with pytest.raises(DataError, match="features"):
        br.fit(replace(model, features=True), data, QUICK, progress=False)
    table = Schema.of(model.view(data), model.likelihood).table(model.view(data))
    table = replace(table, workers=Workers(device="meta"))
    users = next(b for b in model.blocks(table) if b.name == "users")
    with pytest.raises(UnsupportedMethodError, match="CPU"):
        users.update(model.start(table, np.random.default_rng(0)), np.random.default_rng(0))
