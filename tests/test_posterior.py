"""Posterior: predict, log_score, fold_in."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from scipy.optimize import brentq
from scipy.special import logsumexp

import bayesrec as br
from bayesrec.errors import DataError, DataWarning
from bayesrec.likelihoods.noise import BOUND
from bayesrec.posterior import predictive


def by_hand(posterior, user, item, domain="target"):
    """Mean and sd (draw,) of a new rating of a known user and item, from the draws alone, in rating units."""
    data, latents = posterior.data, {k: v.reshape(-1, *v.shape[2:]).astype(float) for k, v in posterior.draws.items()}
    d = data.domain_code(domain)
    u, i = data.users.encode([user])[0], data.items.encode([item], d)[0]
    source = domain != data.target
    p = latents["source_vector"][:, d, u] if source else latents["user_vector"][:, u]
    q = latents["item_vector"][:, i]
    eta = p[:, 0] + q[:, 0] + (p[:, 1:] * q[:, 1:]).sum(1)
    bent = BOUND * np.tanh(latents["user_log_precision"][:, d, u] / BOUND)
    sd = latents["noise"][:, d] * np.exp(-0.5 * bent)
    center, scale = posterior.schema.center[d], posterior.schema.scale[d]
    return center + scale * eta, scale * sd


def test_predictions_have_the_order_and_columns_of_the_rows(transfer, frame):
    rows = frame.sample(25, random_state=1)
    rows = pd.concat([rows, rows.iloc[:5]])  # an index that repeats, rows that repeat
    answer = transfer.predict(rows)
    assert answer.columns.tolist() == ["user", "item", "domain", "mean", "sd", "lower", "upper"]
    assert answer.index.equals(pd.RangeIndex(30))
    for name in ("user", "item", "domain"):
        assert answer[name].tolist() == rows[name].tolist()
    assert answer.iloc[:5].equals(answer.iloc[25:].reset_index(drop=True))
    assert (answer["lower"] < answer["mean"]).all()
    assert (answer["mean"] < answer["upper"]).all()
    bare = transfer.predict(rows[["item", "user"]])
    assert bare.columns.tolist() == ["user", "item", "mean", "sd", "lower", "upper"]


def test_without_a_domain_column_the_rows_belong_to_the_target(transfer, target_rows):
    with_domain, without = transfer.predict(target_rows), transfer.predict(target_rows.drop(columns="domain"))
    assert with_domain.drop(columns="domain").equals(without)


@pytest.mark.parametrize("domain", ["target", "source"])
@pytest.mark.parametrize("level", [0.9, 0.5])
def test_predictions_are_the_mixture_over_draws(transfer, frame, domain, level):
    rows = frame[frame["domain"] == domain].iloc[::60]
    answer = transfer.predict(rows, level=level)
    for row in answer.itertuples():
        mean, sd = by_hand(transfer, row.user, row.item, domain)
        assert row.mean == pytest.approx(mean.mean(), abs=1e-4)
        assert row.sd == pytest.approx(np.sqrt(mean.var() + (sd**2).mean()), rel=1e-4)
        for bound, probability in ((row.lower, 0.5 - level / 2), (row.upper, 0.5 + level / 2)):
            want = brentq(lambda x, p=probability, m=mean, s=sd: stats.norm.cdf(x, m, s).mean() - p, -50, 50)
            assert bound == pytest.approx(want, abs=1e-3)


def test_log_scores_are_the_mixture_density(transfer, frame):
    rows = frame.iloc[::40]
    expected = []
    for row in rows.itertuples():
        mean, sd = by_hand(transfer, row.user, row.item, row.domain)
        expected.append(np.log(stats.norm.pdf(row.rating, mean, sd).mean()))
    np.testing.assert_allclose(transfer.log_score(rows), expected, atol=1e-3)


def test_scores_of_chains_pool_and_joint_scores_take_a_users_rows_together(transfer, target_rows):
    rows = target_rows.head(12)
    by_chain, user, joint = transfer.scores(rows)
    assert by_chain.shape == (2, 12)
    np.testing.assert_allclose(np.log(np.exp(by_chain).mean(0)), transfer.log_score(rows))
    for position in np.unique(user):
        mine = rows[user == position]
        density = [stats.norm.logpdf(r.rating, *by_hand(transfer, r.user, r.item)) for r in mine.itertuples()]
        assert joint[position] == pytest.approx(np.log(np.exp(np.sum(density, axis=0)).mean()), abs=1e-3)


@pytest.mark.parametrize("name", ["transfer", "pmf"])
def test_the_rows_of_an_unknown_user_share_a_vector_in_joint_scores(name, request, target_rows):
    """Given a draw they are jointly normal; known users beside them are scored as before."""
    posterior = request.getfixturevalue(name)
    strangers = target_rows.head(11).assign(user=np.repeat([900, 901, 902], [7, 3, 1]))
    rows = pd.concat([target_rows.tail(3), strangers.sample(frac=1, random_state=2)], ignore_index=True)
    _, user, joint = posterior.scores(rows)
    data, center, scale = posterior.data, posterior.schema.center[-1], posterior.schema.scale[-1]
    population = posterior.model.population(posterior.latents(), posterior.schema)
    cov = population.user_cov[:, -1].double().numpy()
    bent = BOUND * np.tanh(population.user["user_log_precision"][:, -1].double().numpy() / BOUND)
    for unknown in (900, 901, 902):
        mine = rows[rows["user"] == unknown]
        items = data.items.encode(mine["item"], len(data.domains) - 1)
        density = []
        for s in range(60):
            x = posterior.draw(*divmod(s, 30))
            v = np.column_stack([np.ones(len(items)), x["item_vector"][items, 1:]])
            mean = center + scale * (v @ x["user_mean"] + x["item_vector"][items, 0])
            noise = x["noise"][-1] ** 2 * np.exp(-bent[s])
            spread = scale**2 * (v @ cov[s] @ v.T + noise * np.eye(len(items)))
            density.append(stats.multivariate_normal(mean, spread).logpdf(mine["rating"]))
        where = user[mine.index[0]]
        assert joint[where] == pytest.approx(logsumexp(density) - np.log(60), abs=1e-4)
    alone = posterior.scores(target_rows.tail(3))
    np.testing.assert_allclose(joint[user[:3]], alone[2][alone[1]], rtol=1e-12)
    single = np.flatnonzero(rows["user"] == 902)[0]  # one row: the marginal density
    assert joint[user[single]] == pytest.approx(posterior.log_score(rows)[single], abs=1e-5)


def test_unknown_items_add_their_own_spread_to_joint_scores(transfer, target_rows):
    """Each row of an unknown item has the variance that it has alone, and shares the user with the others."""
    rows = target_rows.head(4).assign(user=900, item=[1, 777, 778, 2])
    _, _, joint = transfer.scores(rows)
    batch = transfer.data.encode(rows)
    items, law = batch.item, next(iter(transfer.laws(batch)))[1]
    mean, sd = law.inner, law.sd
    cov = transfer.model.population(transfer.latents(), transfer.schema).user_cov[:, -1].double().numpy()
    value, density = transfer.schema.standardise(rows["rating"].to_numpy(), np.full(4, 1)), []
    for s in range(60):
        x = transfer.draw(*divmod(s, 30))
        q = np.where(items[:, None] >= 0, x["item_vector"][items], x["item_mean"][-1])
        v = np.column_stack([np.ones(4), q[:, 1:]])
        spread = v @ cov[s] @ v.T
        np.fill_diagonal(spread, sd[:, s] ** 2)
        density.append(stats.multivariate_normal(mean[:, s], spread).logpdf(value))
    assert joint[0] == pytest.approx(logsumexp(density) - np.log(60) - 4 * np.log(transfer.schema.scale[-1]), abs=1e-4)


def test_interactions_are_rows_too(transfer, data, frame):
    assert transfer.predict(data).equals(transfer.predict(frame))
    assert np.array_equal(transfer.log_score(data), transfer.log_score(frame))


def test_polars_in_polars_out(transfer, target_rows):
    answer = transfer.predict(pl.from_pandas(target_rows))
    assert isinstance(answer, pl.DataFrame)
    pd.testing.assert_frame_equal(answer.to_pandas(), transfer.predict(target_rows), check_dtype=False)


def test_a_rows_answer_does_not_depend_on_other_rows(transfer, frame, monkeypatch):
    rows = pd.concat([frame.iloc[::30], frame.iloc[::70].assign(user=9999), frame.iloc[::90].assign(item=777)])
    rows = pd.concat([rows, frame.iloc[:1].assign(user=9999, item=777)], ignore_index=True)
    whole = transfer.predict(rows)
    scores = transfer.log_score(rows)
    backwards = transfer.predict(rows.iloc[::-1]).iloc[::-1].reset_index(drop=True)
    alone = pd.concat([transfer.predict(rows.iloc[[k]]) for k in range(len(rows))], ignore_index=True)
    monkeypatch.setattr(predictive, "CHUNK_FLOATS", 3 * 60 * 3)  # three rows a chunk
    chunks, chunk_scores = transfer.predict(rows), transfer.log_score(rows)
    numbers = ["mean", "sd", "lower", "upper"]
    for other in (backwards, alone, chunks):
        assert np.array_equal(other[["user", "item"]], whole[["user", "item"]])
        np.testing.assert_allclose(other[numbers], whole[numbers], rtol=0, atol=1e-6)
    np.testing.assert_allclose(chunk_scores, scores, rtol=0, atol=1e-6)
    known = (rows["user"] != 9999) & (rows["item"] != 777)
    assert alone[known].equals(whole[known])  # to the last bit


def test_a_wider_level_gives_a_wider_interval_and_nothing_else(transfer, target_rows):
    narrow, wide = transfer.predict(target_rows, level=0.5), transfer.predict(target_rows, level=0.99)
    assert narrow[["mean", "sd"]].equals(wide[["mean", "sd"]])
    assert (wide["upper"] - wide["lower"] > narrow["upper"] - narrow["lower"]).all()


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90, float("nan")])
def test_a_level_outside_0_and_1_is_refused(transfer, target_rows, level):
    with pytest.raises(DataError, match=r"level must lie strictly between 0 and 1, not"):
        transfer.predict(target_rows, level=level)


def test_bad_rows_are_refused_by_name(transfer, pmf, target_rows):
    with pytest.raises(DataError, match="unknown domain 'film'"):
        transfer.predict(target_rows.assign(domain="film"))
    with pytest.raises(DataError, match="unknown domain 'source'"):  # PMF saw no source
        pmf.predict(target_rows.assign(domain="source"))
    with pytest.raises(DataError, match="no column 'item'"):
        transfer.predict(target_rows[["user"]])
    with pytest.raises(DataError, match="no column 'rating'"):
        transfer.log_score(target_rows[["user", "item"]])
    with pytest.raises(DataError, match=r"column 'rating'.*row 3"):
        transfer.log_score(target_rows.assign(rating=target_rows["rating"].mask(target_rows.index == 3, np.inf)))


def test_no_rows_no_answers(transfer, target_rows):
    none = target_rows.iloc[:0]
    assert len(transfer.predict(none)) == 0
    assert transfer.log_score(none).shape == (0,)


@pytest.fixture(scope="module")
def newcomers(frame):
    """Source rows of two new users, and target rows of one of them."""
    source = frame[(frame["domain"] == "source") & frame["user"].isin([7, 8])]
    target = frame[(frame["domain"] == "target") & (frame["user"] == 8)]
    return pd.concat([source, target]).assign(user=lambda t: t["user"] + 1000)


def test_fold_in_leaves_the_old_users_alone(transfer, newcomers, frame):
    before = transfer.predict(frame)
    more = transfer.fold_in(newcomers)
    assert more.predict(frame).equals(before)
    assert np.array_equal(more.log_score(frame), transfer.log_score(frame))
    assert transfer.predict(frame).equals(before)
    assert more.data.n_users == transfer.data.n_users + 2
    assert len(more.data) == len(transfer.data) + len(newcomers)
    assert more.data.users.ids[-2:].tolist() == [1007, 1008]
    for name, axes in more.model.dims.items():
        assert more.draws[name].shape[2:] == tuple(
            n + 2 * (axis == "user") for n, axis in zip(transfer.draws[name].shape[2:], axes, strict=True)
        )
        assert more.draws[name].dtype == np.float32


def test_folded_in_users_are_predicted_like_their_twins_in_the_fit(transfer, newcomers):
    items = np.arange(12)
    more = transfer.fold_in(newcomers, seed=3)
    correlation = {}
    for user in (7, 8):
        new, old = (
            p.predict(pd.DataFrame({"user": u, "item": items})) for p, u in ((more, 1000 + user), (transfer, user))
        )
        correlation[user] = np.corrcoef(new["mean"], old["mean"])[0, 1]
    assert correlation[8] > 0.9, "with the same rows the predictions are alike"
    stranger = transfer.predict(pd.DataFrame({"user": 5555, "item": items}))
    cold = more.predict(pd.DataFrame({"user": 1007, "item": items}))
    assert (cold["sd"].mean() < stranger["sd"].mean()) or not np.allclose(cold["mean"], stranger["mean"])
    assert not np.allclose(cold["mean"], stranger["mean"], atol=0.02), "source rows alone say something"


def test_fold_in_is_exact_for_one_noise_and_no_gate(data, newcomers):
    """Given a draw the new user's target vector is normal: its moments over draws match the closed form."""
    model = br.models.TransferMF(rank=1, gate=False, likelihood=br.Gaussian(user_noise=False))
    posterior = br.fit(model, data, br.Gibbs(draws=1500, warmup=50, chains=1), progress=False)
    rows = newcomers[(newcomers["user"] == 1007)]
    more = posterior.fold_in(rows)
    new = more.draws["user_vector"][0, :, -1].astype(float)
    standard = []
    for s in range(1500):
        state = posterior.draw(0, s)
        design = state["item_vector"][data.items.encode(rows["item"], 0)].copy()
        value = posterior.schema.standardise(rows["rating"].to_numpy(), np.zeros(len(rows), dtype=int)) - design[:, 0]
        design[:, 0] = 1.0
        precision = design.T @ design / state["noise"][0] ** 2 + np.diag([state["source_bias_scale"][0] ** -2.0, 1.0])
        mean = np.linalg.solve(precision, design.T @ value / state["noise"][0] ** 2)
        w = state["map"][0]
        cov = state["user_cov"] + w @ np.linalg.inv(precision) @ w.T
        standard.append(np.linalg.solve(np.linalg.cholesky(cov), new[s] - state["user_mean"] - w @ mean))
    for column in np.array(standard).T:
        assert stats.kstest(column, "norm").pvalue > 1e-4


def test_fold_in_is_exact_for_two_gates():
    """The gates of two sources are drawn one after the other, and carried from draw to draw: right in the long run."""
    frame = pd.DataFrame({"user": np.tile(np.arange(8), 9), "item": np.repeat(np.arange(9), 8)})
    frame = frame.assign(domain=np.repeat(["a", "b", "target"], 24), rating=np.sin(np.arange(72.0)))
    data = br.Interactions.from_frame(frame, target="target")
    model = br.models.TransferMF(rank=1, likelihood=br.Gaussian(user_noise=False))
    posterior = br.fit(model, data, br.Gibbs(draws=2, warmup=2, chains=1), progress=False)
    # items without effect; source a says +1.2, source b says -1.2, the only target row says 0
    cov, noise, off = 0.05, 0.5, 0.4
    fixed = {"item_vector": 0.0, "user_mean": 0.0, "source_bias_scale": 1.0, "noise": noise, "gate": off}
    fixed |= {"user_cov": cov * np.eye(2), "map": np.eye(2)}
    n = 2000
    draws = {k: np.repeat(v[:, :1], n, axis=1) for k, v in posterior.draws.items()}
    draws |= {k: (np.zeros_like(draws[k]) + v).astype(np.float32) for k, v in fixed.items()}
    value, domain = np.array([1.2, 1.2, 1.2, -1.2, -1.2, -1.2, 0.0]), np.array([0, 0, 0, 1, 1, 1, 2])
    schema = posterior.schema
    rows = pd.DataFrame({"user": 99, "item": np.arange(7), "domain": np.array(["a", "b", "target"])[domain]})
    rows["rating"] = value * schema.scale[domain] + schema.center[domain]
    bias = replace(posterior, draws=draws).fold_in(rows).draws["user_vector"][0, :, -1, 0]
    s = 1 / (1 + 3 / noise**2)
    m = np.array([1.2, -1.2]) * s * 3 / noise**2
    chance, means, squares = [], [], []
    for on in itertools.product((1, 0), repeat=2):
        prior_mean, prior_var = np.dot(on, m), cov + sum(s if z else 1.0 for z in on)
        gain = prior_var / (prior_var + noise**2)
        evidence = stats.norm.pdf(0.0, prior_mean, np.sqrt(prior_var + noise**2))
        chance.append(evidence * np.prod([1 - off if z else off for z in on]))
        means.append(prior_mean * (1 - gain))
        squares.append(means[-1] ** 2 + prior_var * (1 - gain))
    chance = np.array(chance) / np.sum(chance)
    mean, variance = chance @ means, chance @ squares - (chance @ means) ** 2
    # carried from draw to draw, so correlated: allow for twice the error of independent draws
    assert bias.mean() == pytest.approx(mean, abs=8 * np.sqrt(variance / n))
    assert bias.var() == pytest.approx(variance, rel=8 * np.sqrt(2 / n))


def test_fold_in_with_one_seed_is_one_posterior(transfer, newcomers):
    first, again, other = (transfer.fold_in(newcomers, seed=s) for s in (0, 0, 1))
    assert np.array_equal(first.draws["user_vector"], again.draws["user_vector"])
    assert not np.array_equal(first.draws["user_vector"], other.draws["user_vector"])


@pytest.mark.parametrize("seed", [-1, 1.5, True, None, 2**70, "1"])
def test_seeds_of_fold_in_are_checked(transfer, newcomers, seed):
    with pytest.raises(DataError, match="seed must be a whole number of at least 0"):
        transfer.fold_in(newcomers, seed=seed)


@pytest.mark.parametrize("names", [{"value": "chain"}, {"value": "draw"}])
def test_value_columns_named_like_an_axis_of_the_tree_are_refused(frame, names):
    table = frame.rename(columns={"rating": names["value"]})
    with pytest.raises(DataError, match=f"value='{names['value']}'.*axis of that name.*rename"):
        br.Interactions.from_frame(table, target="target", **names)
    named = frame.rename(columns={"user": names["value"]})  # ids are no variable of the tree
    assert br.Interactions.from_frame(named, target="target", user=names["value"]).n_users == 40


def test_fold_in_refuses_known_users_and_empty_frames(transfer, newcomers):
    with pytest.raises(DataError, match=r"user 3 was in the fit already \(row 2\)"):
        transfer.fold_in(newcomers.assign(user=[1, 1, 3] + [1] * (len(newcomers) - 3)).replace({"user": {1: 2000}}))
    with pytest.raises(DataError, match="empty"):
        transfer.fold_in(newcomers.iloc[:0])
    with pytest.raises(DataError, match="known users"):  # a second time
        transfer.fold_in(newcomers).fold_in(newcomers)
    with pytest.raises(DataError, match="new id 'ann'"):
        transfer.fold_in(newcomers.assign(user="ann"))


def test_rows_of_unknown_items_are_left_out_with_a_warning(transfer, newcomers):
    odd = newcomers.reset_index(drop=True).assign(item=lambda t: t["item"].mask(t.index == 4, 888))
    with pytest.warns(DataWarning, match=rf"1 of {len(odd)} rows.*888"):
        more = transfer.fold_in(odd)
    clean = transfer.fold_in(odd.drop(index=4))
    assert np.array_equal(more.draws["user_vector"], clean.draws["user_vector"])


def test_repeated_rows_of_a_newcomer_count_once_the_last(transfer, newcomers):
    twice = pd.concat([newcomers.iloc[[0]].assign(rating=1.0), newcomers], ignore_index=True)
    with pytest.warns(DataWarning, match="repeat"):
        more = transfer.fold_in(twice)
    assert np.array_equal(more.draws["user_vector"], transfer.fold_in(newcomers).draws["user_vector"])
