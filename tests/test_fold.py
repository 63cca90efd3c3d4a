"""Folding in by compiled chains, alone, and streaming updates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayesrec as br
from bayesrec.errors import DataError, DataWarning, NotFittedError
from bayesrec.posterior import chains, fold

BY_BLOCKS = fold._by_blocks
CALM = br.Gaussian(user_noise=False)


def _repeated(posterior, times):
    """The same posterior with its draws one behind the other, in a random order."""
    order = np.random.default_rng(0).permutation(np.tile(np.arange(posterior.n_draws), times))
    return replace(posterior, draws={name: x[:, order] for name, x in posterior.draws.items()})


@pytest.fixture(scope="module")
def newcomers(frame):
    rows = frame[frame["user"].isin([6, 20])].reset_index(drop=True)
    return rows.assign(user=rows["user"] + 1000)


@pytest.fixture(scope="module")
def collective(data):
    return br.fit(br.models.CollectiveMF(rank=2), data, br.Gibbs(draws=30, warmup=30, chains=2), progress=False)


@pytest.mark.parametrize("name", [pytest.param("collective", marks=pytest.mark.slow), "transfer"])
def test_compiled_chains_have_the_law_of_the_blocks(name, request, newcomers, monkeypatch):
    """Moments of every site of both users: z scores over thinned draws, 1 in 10,000 runs fails by chance."""
    many = _repeated(request.getfixturevalue(name), 25)
    assert fold.covers(many.model)
    compiled = many.fold_in(newcomers, alone=True).draws
    monkeypatch.setattr(fold, "covers", lambda model: False)
    blocks = many.fold_in(newcomers, seed=1, alone=True).draws
    for site, power in (
        ("user_vector", 1),
        ("user_vector", 2),
        ("user_level", 1),
        ("user_log_precision", 1),
        ("user_log_precision", 2),
        *((("source_vector", 1), ("source_vector", 2)) if name == "transfer" else ()),
    ):
        a, b = ((x[site].reshape(1500, -1)[::5].astype(float)) ** power for x in (compiled, blocks))
        z = (a.mean(0) - b.mean(0)) / np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
        assert np.abs(z).max() < stats.norm.isf(5e-5 / z.size), (site, power)
    monkeypatch.setattr(fold, "_by_blocks", lambda *given: _without_noise(*given))
    fault = many.fold_in(newcomers, seed=1, alone=True).draws["user_level"].reshape(1500, -1)
    level = compiled["user_level"].reshape(1500, -1)
    assert (fault.std(0) < 0.5 * level.std(0)).all(), "planted fault: noise levels that stay at their start"


def _without_noise(model, table, held, local, sweeps, rngs):
    return BY_BLOCKS(model, table, held, [block for block in local if block.name != "user_noise"], sweeps, rngs)


def test_compiled_draws_with_one_noise_are_exact(data, newcomers):
    """Without noise levels each draw is normal with known moments: squared distances are chi-squared."""
    posterior = br.fit(
        br.models.CollectiveMF(rank=2, likelihood=CALM), data, br.Gibbs(draws=20, warmup=20, chains=2), progress=False
    )
    many = _repeated(posterior, 40)
    found = many.fold_in(newcomers, alone=True)
    rows = newcomers[newcomers["user"] == 1006]
    domain = (rows["domain"] == "target").to_numpy().astype(int)
    codes = data.items.encode(rows["item"], domain)
    value = posterior.schema.standardise(rows["rating"].to_numpy(), domain)
    squares = []
    for draw in range(many.n_draws):
        x = many.draw(0, draw, users=np.empty(0, dtype=int))
        design, noise = x["item_vector"][codes].copy(), x["noise"][domain] ** 2
        offset = design[:, 0].copy()
        design[:, 0] = 1.0
        precision = np.linalg.inv(x["user_cov"]) + design.T / noise @ design
        mean = np.linalg.solve(
            precision, np.linalg.solve(x["user_cov"], x["user_mean"]) + design.T / noise @ (value - offset)
        )
        gap = found.draws["user_vector"][0, draw, 0] - mean
        squares.append(gap @ precision @ gap)
    assert stats.kstest(squares, stats.chi2(3).cdf).pvalue > 1e-3


def test_users_alone_are_the_users_folded_in(transfer, collective, newcomers):
    for posterior in (transfer, collective):
        whole, alone = posterior.fold_in(newcomers, seed=2), posterior.fold_in(newcomers, seed=2, alone=True)
        cells = newcomers[["user", "item", "domain"]]
        pd.testing.assert_frame_equal(alone.predict(cells), whole.predict(cells))
        assert alone.data.n_users == 2
        lists = [br.recommend(p, [1006, 1020], n=3) for p in (alone, whole)]
        pd.testing.assert_frame_equal(*lists)
        np.testing.assert_array_equal(
            alone.predict(cells.assign(user=-5))["mean"], whole.predict(cells.assign(user=-5))["mean"]
        )
    with pytest.raises(DataError, match="knows new users alone is not saved"):
        alone.save("nowhere")


def test_threads_do_not_matter(collective, newcomers, monkeypatch):
    from bayesrec.posterior import chains

    one = collective.fold_in(newcomers).draws["user_vector"]
    monkeypatch.setattr(chains, "SHARED", 1)
    np.testing.assert_array_equal(one, collective.fold_in(newcomers).draws["user_vector"])


def test_update_of_new_users_is_fold_in(transfer, newcomers):
    for name, x in transfer.fold_in(newcomers, seed=5).draws.items():
        np.testing.assert_array_equal(x, transfer.update(newcomers, seed=5).draws[name])
    extra = newcomers.head(1).assign(user=6, item=11, domain="target")
    mixed = transfer.update(pd.concat([extra, newcomers]), seed=5)
    np.testing.assert_array_equal(
        mixed.draws["user_vector"][:, :, 40:], transfer.fold_in(newcomers, seed=5).draws["user_vector"][:, :, 40:]
    )


def test_update_touches_those_who_rated_and_nobody_else(transfer, target_rows):
    seen = set(target_rows.loc[target_rows["user"] == 6, "item"])
    item = next(i for i in range(12) if i not in seen)
    row = pd.DataFrame({"user": [6], "item": [item], "domain": "target", "rating": [9.0]})
    more = transfer.update(row)
    for name, axes in transfer.model.dims.items():
        if "user" not in axes:
            np.testing.assert_array_equal(more.draws[name], transfer.draws[name])
        else:
            before, after = (np.moveaxis(p.draws[name], 2 + axes.index("user"), 0) for p in (transfer, more))
            assert not np.array_equal(before[6], after[6])
            np.testing.assert_array_equal(np.delete(before, 6, 0), np.delete(after, 6, 0))
    assert len(more.data) == len(transfer.data) + 1
    assert item not in set(br.recommend(more, [6], n=5)["item"])
    cell = row.drop(columns="rating")
    assert more.predict(cell)["mean"][0] > transfer.predict(cell)["mean"][0]
    again = more.update(row.assign(rating=1.0))  # a rating that is changed
    assert len(again.data) == len(more.data)
    assert again.predict(cell)["mean"][0] < more.predict(cell)["mean"][0]


def test_two_updates_have_the_law_of_one(collective, frame):
    """Moments of the vectors after both orders: 1 in 10,000 runs fails by chance."""
    many = _repeated(collective, 25)
    rows = pd.DataFrame(
        {"user": 3, "item": [0, 2, 5, 7, 8, 9, 10], "domain": "target", "rating": [5.0, 1.0] + 5 * [6.0]}
    )
    rows = pd.concat([rows, rows.assign(user=1234)])
    rows = rows[
        ~rows.set_index(["user", "item", "domain"]).index.isin(frame.set_index(["user", "item", "domain"]).index)
    ]
    first = rows["item"].isin([0, 2])
    once = many.update(rows).draws["user_vector"]
    twice = many.update(rows[first], seed=1).update(rows[~first], seed=2).draws["user_vector"]
    half = many.update(rows[first]).draws["user_vector"]

    def worst(a, b):
        a, b = (x[:, :, [3, 40]].reshape(1500, -1)[::5].astype(float) for x in (a, b))
        parts = [(a**k, b**k) for k in (1, 2)]
        return max(
            np.abs((p.mean(0) - q.mean(0)) / np.sqrt(p.var(0) / len(p) + q.var(0) / len(q))).max() for p, q in parts
        )

    bound = stats.norm.isf(5e-5 / 12)
    assert worst(once, twice) < bound
    assert worst(once, half) > bound, "planted fault: the second step forgotten"


def test_updates_that_cannot_be(transfer, newcomers, tmp_path):
    with pytest.raises(DataError, match="update got an empty frame"):
        transfer.update(newcomers.iloc[:0])
    with pytest.raises(DataError, match="seed must be"):
        transfer.update(newcomers, seed=-1)
    with pytest.warns(DataWarning, match=r"1 of 1 rows are about items that were not in the fit \(the first: 777\)"):
        same = transfer.update(newcomers.head(1).assign(user=6, item=777))
    assert same is transfer
    bare = br.load(transfer.save(tmp_path / "bare", data=False))
    assert bare.update(newcomers).data.n_users == 42
    with pytest.raises(NotFittedError, match="update for users who were in the fit needs the training ratings"):
        bare.update(newcomers.assign(user=6))


def test_users_whose_ids_come_in_any_order(transfer, newcomers):
    """Rows in another order are the same newcomers."""
    turned = newcomers.iloc[::-1]
    a, b = transfer.fold_in(newcomers), transfer.fold_in(turned)
    np.testing.assert_array_equal(a.draws["user_vector"], b.draws["user_vector"])
    assert a.schema.user_ids.tolist() == a.data.users.ids.tolist() == b.schema.user_ids.tolist()


@pytest.mark.parametrize(
    "model",
    [
        br.models.CollectiveMF(rank=2, likelihood=CALM),
        br.models.CollectiveMF(rank=2, likelihood={"source": CALM, "target": CALM}),
        br.models.TransferMF(rank=2, likelihood=CALM),
        br.models.TransferMF(rank=2, likelihood=CALM, power=0.5),
    ],
    ids=["CollectiveMF", "by domain", "TransferMF", "power prior"],
)
def test_a_power_is_more_noise(model, data, newcomers, monkeypatch):
    """With one noise for all the power w of the rows is a noise of 1 / sqrt(w) times as much: the same draws."""
    posterior = br.fit(model, data, br.Gibbs(draws=10, warmup=10, chains=1), progress=False)
    monkeypatch.setattr(fold, "covers", lambda model: False)
    noisy = {name: x / 0.5 if name.startswith("noise") else x for name, x in posterior.draws.items()}
    got = posterior.fold_in(newcomers, alone=True, power=0.25).draws
    want = replace(posterior, draws=noisy).fold_in(newcomers, alone=True).draws
    full = posterior.fold_in(newcomers, alone=True, power=1.0).draws["user_vector"]
    np.testing.assert_allclose(got["user_vector"], want["user_vector"], rtol=1e-4, atol=1e-5)
    assert np.abs(full - want["user_vector"]).max() > 0.1, "planted fault: the power forgotten"


def test_a_power_near_zero_leaves_the_prior(collective, newcomers):
    """Vectors and noise levels of many copies, whitened by their prior: 1 in 1,000 runs fails by chance for each."""
    rows = newcomers[newcomers["user"] == 1006]
    many = pd.concat([rows.assign(user=2000 + k) for k in range(150)])

    def first(power):
        found, z, level = collective.fold_in(many, alone=True, power=power).draws, [], []
        for chain in range(collective.n_chains):
            x = collective.draw(chain, 0, users=np.empty(0, dtype=int))
            root = np.linalg.inv(np.linalg.cholesky(x["user_cov"]))
            z.append((found["user_vector"][chain, 0] - x["user_mean"]) @ root.T)
            level.append(found["user_level"][chain, 0] / x["level_between"])
        return [stats.kstest(np.concatenate(x).ravel(), stats.norm.cdf).pvalue for x in (z, level)]

    assert min(first(1e-9)) > 5e-4
    assert first(1.0)[0] < 5e-4, "planted fault: the power forgotten"


def test_powers_that_cannot_be(collective, data, newcomers):
    for power in (0.0, 1.5, True, "a", np.nan):
        with pytest.raises(DataError, match="power must be a number above 0 and at most 1"):
            collective.fold_in(newcomers, power=power)
    whole = collective.fold_in(newcomers, power=1.0).draws["user_vector"]
    np.testing.assert_array_equal(whole, collective.fold_in(newcomers).draws["user_vector"])
    model = br.models.CollectiveMF(rank=1, likelihood=br.StudentT())
    posterior = br.fit(model, data, br.Gibbs(draws=2, warmup=2, chains=1), progress=False)
    with pytest.raises(DataError, match=r"br\.Gaussian\(\) or br\.Implicit\(\)"):
        posterior.fold_in(newcomers, power=0.5)


@pytest.mark.parametrize("behind", [0, 6])
def test_noise_levels_are_swept_twice_with_numbers_of_their_own(behind):
    """Two sweeps are one after the other with the first and the last keys; the planted fault: the first keys again."""
    n_domains, n_users, rng = 2, 5, np.random.default_rng(0)
    own = 5 + 2 * n_domains
    key = rng.integers(2**64, size=2 * own + behind, dtype=np.uint64)  # what lies between is of the vectors
    squares, count = rng.gamma(5.0, size=(n_domains, n_users)), np.full((n_domains, n_users), 6.0)

    def swept(*steps):
        x, level = np.zeros((n_domains, n_users)), np.zeros(n_users)
        room = (
            np.zeros(n_users), np.zeros((n_domains, n_users)), np.zeros(n_users), np.zeros((1, n_users)),
            np.zeros((n_users, 1)), np.zeros((n_users, n_domains)),
        )  # fmt: skip
        for step, keys in steps:
            assert step(x, level, squares, count, 0.5, 0.4, 3.0, keys, room, 0, n_users) == 0
        return np.concatenate([x.ravel(), level])

    once, twice = chains._level_sweep, swept((chains._levels, key))
    np.testing.assert_array_equal(twice, swept((once, key), (once, key[own + behind :])))
    assert not np.allclose(twice, swept((once, key), (once, key)))
