"""activity=True: new users as they are met in ratings, against closed forms and worlds in which much-raters rate lower."""

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.posterior import activity

METHOD = br.Gibbs(draws=60, warmup=60, chains=2)


def world(seed, n=600, slope=-0.5, sd=0.3):
    """Ratings of people whose bias falls with the log number of their ratings, and the truth; everybody rates books, too."""
    rng = np.random.default_rng(seed)
    logs = 2.0 + 0.8 * rng.standard_normal(n)
    count = np.clip(np.exp(logs).round().astype(int), 1, 60)
    phi = rng.standard_normal(n)
    bias = slope * (logs - 2.0) + 0.2 * phi + sd * rng.standard_normal(n)
    items = 0.4 * rng.standard_normal(60)
    rows = []
    for u in range(n):
        for domain, own, k in (("book", 0.5 * phi[u], 12), ("music", bias[u], count[u])):
            chosen = rng.choice(60, k, replace=False)
            value = 3.5 + own + items[chosen] + 0.5 * rng.standard_normal(k)
            rows.append(pd.DataFrame({"user": u, "item": chosen, "domain": domain, "rating": value}))
    return pd.concat(rows, ignore_index=True)


def split(frame):
    data = br.Interactions.from_frame(frame, target="music")
    return br.split.cold_users(data, fraction=0.25, seed=0)


def residual(posterior, test):
    """Mean residual of held-out rows, and its standard error by user."""
    gap = test.value - posterior.predict(test)["mean"].to_numpy()
    return br.metrics.clustered_mean(gap, test.user)


@pytest.fixture(scope="module", params=["PMF", "TransferMF", "CollectiveMF"])
def fits(request):
    train, test = split(world(0))
    model = getattr(br.models, request.param)
    return train, test, *(br.fit(model(rank=1, activity=on), train, METHOD, progress=False) for on in (False, True))


def test_cold_users_are_met_as_they_rate(fits):
    """Of people the prior is right, of ratings it is too high by a covariance; with activity=True it is right of these."""
    _, test, plain, tilted = fits
    if tilted.model.pools:  # source ratings say what a user's only vector is
        return
    before, se = residual(plain, test)
    after, _ = residual(tilted, test)
    assert before < -3.3 * se  # 1e-3, one-sided
    assert abs(after) < 3.3 * se


def test_unknown_users_move_as_the_population_does(fits):
    """The mean moves by gap x slope, whose sign and size the world gives; the spread is that of people."""
    train, _, plain, tilted = fits
    rows = pd.DataFrame({"user": [9999], "item": [0], "domain": "music"})
    one, two = (p.predict(rows).iloc[0] for p in (plain, tilted))
    counts = np.bincount(train.user[train.is_target])
    counts = counts[counts > 0]
    expected = -0.5 * (counts @ np.log(counts) / counts.sum() - np.log(counts).mean())
    assert two["mean"] - one["mean"] == pytest.approx(
        expected, abs=0.15
    )  # four standard errors of a slope of 450 users
    assert two["sd"] == pytest.approx(one["sd"], rel=0.05)


def test_users_with_ratings_stay_as_they_are(fits):
    train, _, plain, tilted = fits
    known = np.unique(train.user[train.is_target])
    for name in plain.draws:
        a, b = plain.draws[name], tilted.draws[name]
        if name == "user_vector":
            a, b = a[:, :, known], b[:, :, known]
        np.testing.assert_array_equal(a, b)
    silent = np.setdiff1d(np.arange(train.n_users), known)
    moved = tilted.draws["user_vector"] - plain.draws["user_vector"]
    shift = tilted.draws["user_shift"]
    expected = np.zeros_like(moved[:, :, silent]) if tilted.model.pools else shift[:, :, None]
    np.testing.assert_allclose(moved[:, :, silent], np.broadcast_to(expected, moved[:, :, silent].shape), atol=1e-6)


def test_the_slope_is_that_of_a_regression():
    """Mean and covariance of the draws of a slope, from the closed form of a ridge regression; a planted variance is seen."""
    rng = np.random.default_rng(0)
    n, size, draws = 200, 3, 4000
    design = np.column_stack([np.ones(n), rng.standard_normal((n, 3))])
    vectors = design @ rng.standard_normal((4, size)) + rng.standard_normal((n, size)) @ np.diag([1.0, 0.5, 2.0])
    found = np.array([activity._slope(design, vectors, rng) for _ in range(draws)])
    penalty = np.diag([0.0, activity.SHARE**-2, 1.0, 1.0])
    inverse = np.linalg.inv(design.T @ design + penalty)
    fitted = inverse @ design.T @ vectors
    left = vectors - design @ fitted
    cov = inverse[1, 1] * left.T @ left / n
    z = (found.mean(0) - fitted[1]) / np.sqrt(np.diag(cov) / draws)
    assert (np.abs(z) < 4).all()

    def alike(cov):
        chi = np.einsum("ni,ij,nj->n", found - fitted[1], np.linalg.inv(cov), found - fitted[1]).mean()
        return abs(chi - size) < 4 * np.sqrt(2 * size / draws)

    assert alike(cov)
    assert not alike(1.2 * cov)  # planted


def test_without_a_tie_between_ratings_and_their_number_nothing_is_lost():
    """No slope in the world: the move is small; and none at all where everybody rates as much."""
    frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(15, 12), n_ratings=(8, 5))
    data = br.Interactions.from_frame(frame, target="target", value="value")
    same = [br.fit(br.models.PMF(rank=1, activity=on), data, METHOD, progress=False) for on in (False, True)]
    assert not same[1].draws["user_shift"].any()
    train, test = split(world(1, slope=0.0))
    plain, tilted = (
        br.fit(br.models.TransferMF(rank=1, activity=on), train, METHOD, progress=False) for on in (False, True)
    )
    moved = (tilted.predict(test)["mean"] - plain.predict(test)["mean"]).abs().max()
    assert moved < 0.1


def test_newcomers_and_saved_fits(tmp_path):
    """Folded in with source rows alone, a newcomer is who a user of the fit without target rows is; and it survives a file."""
    frame = world(2, n=150)
    silent = frame[(frame["user"] >= 30) | (frame["domain"] == "book")]
    kept = silent[silent["user"] >= 10]
    model = br.models.TransferMF(rank=1, activity=True)
    method = br.Gibbs(draws=150, warmup=100, chains=4)
    posterior = br.fit(model, br.Interactions.from_frame(kept, target="music"), method, progress=False)
    assert "activity=True" in repr(posterior.model)
    posterior.save(tmp_path / "fit")
    assert br.load(tmp_path / "fit").model == model
    folded = posterior.fold_in(silent[silent["user"] < 10])
    whole = br.fit(model, br.Interactions.from_frame(silent, target="music"), method, progress=False)
    cells = pd.DataFrame({"user": np.repeat(np.arange(10), 12), "item": np.tile(np.arange(12), 10)})
    gap = folded.predict(cells)["mean"] - whole.predict(cells)["mean"]
    assert abs(gap.mean()) < 0.06


def test_with_shared_items_and_other_likelihoods():
    frame = world(3, n=120)
    frame["rating"] = frame["rating"].round().clip(1, 5)
    data = br.Interactions.from_frame(frame, target="music")
    model = br.models.TransferMF(rank=1, likelihood=br.Ordinal(), activity=True)
    posterior = br.fit(model, data, METHOD, progress=False)
    assert posterior.predict_proba(frame.head(2)[["user", "item"]]).shape == (2, 7)
    swapped = frame.rename(columns={"user": "item", "item": "user"})
    mirror = br.fit(model, br.Interactions.from_frame(swapped, target="music", shared="items"), METHOD, progress=False)
    np.testing.assert_array_equal(mirror.draws["user_shift"], posterior.draws["user_shift"])


def test_refusals():
    frame = world(4, n=60)
    data = br.Interactions.from_frame(frame, target="music")
    model = br.models.PMF(rank=1, activity=True)
    with pytest.raises(br.errors.DataError, match="activity must be True or False, not 'yes'"):
        br.models.PMF(activity="yes")
    with pytest.raises(br.errors.DataError, match="needs the draws of 'user_vector'"):
        br.fit(model, data, br.Gibbs(draws=5, keep=("item_vector",)), progress=False)
    transfer = br.models.TransferMF(rank=1, activity=True)
    with pytest.raises(br.errors.DataError, match="needs the draws of 'source_vector'"):
        br.fit(transfer, data, br.Gibbs(draws=5, keep=("user_vector",)), progress=False)
    with pytest.raises(br.errors.DataError, match=r"fit\(watch=\.\.\.\) predicts while the chains run"):
        br.fit(model, data, METHOD, progress=False, watch=frame.head(2))
    posterior = br.fit(model, data, br.Gibbs(draws=5, warmup=5, chains=2), progress=False)
    with pytest.raises(br.errors.DataError, match="as_prior is about people"):
        posterior.as_prior("user")


def test_draws_in_files_are_moved_where_they_lie():
    data = br.Interactions.from_frame(world(5, n=60), target="music")
    train, _ = br.split.cold_users(data, fraction=0.25, seed=0)
    model, small = br.models.PMF(rank=1, activity=True), br.Gibbs(draws=20, warmup=10, chains=2, memory=1e-6)
    kept = br.fit(model, train, br.Gibbs(draws=20, warmup=10, chains=2), progress=False)
    filed = br.fit(model, train, small, progress=False)
    assert isinstance(filed.draws["user_vector"], np.memmap)
    np.testing.assert_array_equal(filed.draws["user_vector"], kept.draws["user_vector"])


def test_whoever_has_rated_is_not_moved_when_taken_in():
    """Newcomers with target ratings are drawn as without activity; those with source ratings alone are moved by the shift."""
    frame = world(6, n=120)
    kept, new = frame[frame["user"] >= 20], frame[frame["user"] < 20]
    new = new[(new["domain"] == "book") | ((new["user"] < 10) & (new["item"] < 30))]
    data = br.Interactions.from_frame(kept, target="music")
    for model in (br.models.PMF(rank=1), br.models.TransferMF(rank=1)):
        plain = br.fit(model, data, METHOD, progress=False)
        tilted = br.fit(type(model)(rank=1, activity=True), data, METHOD, progress=False)
        rows = new[new["domain"] == "music"] if isinstance(model, br.models.PMF) else new
        one, two = (posterior.fold_in(rows) for posterior in (plain, tilted))
        moved = two.draws["user_vector"] - one.draws["user_vector"]
        for user in np.unique(rows["user"]):
            code = one.data.users.encode(np.array([user]), np.zeros(1, dtype=int))[0]
            rated = ((rows["user"] == user) & (rows["domain"] == "music")).any()
            expected = np.zeros_like(moved[:, :, code]) if rated else two.draws["user_shift"]
            np.testing.assert_allclose(moved[:, :, code], expected, atol=1e-5)
        again = [p.update(frame[(frame["user"] == 50) & (frame["domain"] == "music")].head(1)) for p in (plain, tilted)]
        np.testing.assert_array_equal(again[0].draws["user_vector"], again[1].draws["user_vector"])


def test_the_prior_of_a_tree_is_that_of_people():
    train, _ = split(world(7, n=80))
    trees = [
        br.fit(br.models.PMF(rank=1, activity=on), train, METHOD, progress=False).to_datatree() for on in (False, True)
    ]
    assert "user_shift" in trees[1]["posterior"]
    for name, x in trees[0]["log_prior"].data_vars.items():
        np.testing.assert_allclose(trees[1]["log_prior"][name], x, rtol=1e-4, atol=1e-3)
    assert br.sample_prior(br.models.PMF(rank=1, activity=True), train, draws=2)["prior"].sizes["draw"] == 2
