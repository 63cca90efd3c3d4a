"""Models with features: what all models keep, cold items and users, folding in, source priors."""

import warnings
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_nuts import energies

import bayesrec as br
from bayesrec.testing import ModelConformance, example_frame

PLAIN = br.Gaussian(user_noise=False)


def described_frame():
    """The table of the conformance tests with two features of users and two of items."""
    rng, frame = np.random.default_rng(11), example_frame()
    users, items = rng.standard_normal((30, 2)), rng.standard_normal((2, 12, 2))
    domain = (frame["domain"] == "target").to_numpy().astype(int)
    frame[["user_a", "user_b"]] = users[frame["user"]]
    frame[["item_a", "item_b"]] = items[domain, frame["item"]]
    return frame


class TestPMFWithFeatures(ModelConformance):
    model = br.models.PMF(rank=1, features=True)
    uses_source = False
    likelihoods = ()
    methods = (br.Gibbs(draws=40, warmup=20, chains=2),)

    @classmethod
    def frame(cls):
        return described_frame()


@pytest.mark.slow
class TestOtherMethodsWithFeatures(ModelConformance):
    model = br.models.PMF(rank=1, features=True)
    uses_source = False
    likelihoods = ()

    @classmethod
    def frame(cls):
        return described_frame()


@pytest.mark.slow
class TestTransferMFWithFeatures(ModelConformance):
    model = br.models.TransferMF(rank=1, features=True)
    uses_source = True
    likelihoods = ()
    methods = (br.Gibbs(draws=40, warmup=20, chains=2),)

    @classmethod
    def frame(cls):
        return described_frame()


N_USERS, N_ITEMS, N_COLD = 60, 80, 30  # the last items have no rating


@lru_cache(maxsize=1)
def truth(seed=3):
    """Users and items whose vectors follow their features in part, 12 ratings a user, and the expected ratings of all."""
    rng = np.random.default_rng(seed)
    x, z = rng.standard_normal((N_ITEMS, 3)), rng.standard_normal((N_USERS, 2))
    item = x @ rng.normal(0, 0.35, (3, 3)) + 0.25 * rng.standard_normal((N_ITEMS, 3))
    user = z @ rng.normal(0, 0.5, (2, 3)) + 0.6 * rng.standard_normal((N_USERS, 3))
    eta = 3.5 + user[:, :1] + item[:, 0] + user[:, 1:] @ item[:, 1:].T
    warm = np.sort(rng.random((N_USERS, N_ITEMS - N_COLD)).argsort(1)[:, :12], axis=1)
    frame = pd.DataFrame({"user": np.repeat(np.arange(N_USERS), 12), "item": warm.ravel()})
    frame["rating"] = eta[frame["user"], frame["item"]] + 0.5 * rng.standard_normal(len(frame))
    items = pd.DataFrame(x, columns=list("abc")).assign(item=np.arange(N_ITEMS))
    users = pd.DataFrame(z, columns=["p", "q"]).assign(user=np.arange(N_USERS))
    return frame, users, items, eta


@lru_cache(maxsize=4)
def fitted(features=True):
    frame, users, items, _ = truth()
    data = br.Interactions.from_frame(frame, target="t", domain=None, user_features=users, item_features=items)
    model = br.models.PMF(rank=2, features=features, likelihood=PLAIN)
    return br.fit(model, data, br.Gibbs(draws=300, warmup=200, chains=2), progress=False)


def cold_cells():
    user, item = np.meshgrid(np.arange(N_USERS), np.arange(N_ITEMS - N_COLD, N_ITEMS), indexing="ij")
    return pd.DataFrame({"user": user.ravel(), "item": item.ravel()})


def test_items_without_ratings_are_predicted_from_their_features():
    """RMSE to the truth of expected ratings; without features all that is known of a cold item is the population."""
    cells, eta = cold_cells(), truth()[3]
    want = eta[cells["user"], cells["item"]]
    rmse = {f: float(np.sqrt(((fitted(f).predict(cells)["mean"] - want) ** 2).mean())) for f in (True, False)}
    assert rmse[True] < 0.75 * rmse[False]
    answer = fitted(True).predict(cells)
    rating = want + 0.5 * np.random.default_rng(0).standard_normal(len(want))
    inside = ((rating >= answer["lower"]) & (rating <= answer["upper"])).mean()
    assert 0.82 < inside < 0.97  # 30 items that share features: an sd of about .03 about .9


def test_a_cold_item_is_drawn_from_its_prior():
    """Pivots (vector - mean - x map) / scale of items that no rating informs are standard normal in every draw."""
    posterior = fitted(True)
    d = {name: x.reshape(-1, *x.shape[2:]).astype(float) for name, x in posterior.draws.items()}
    x = posterior.schema.item_x[N_ITEMS - N_COLD :]
    loc = d["item_mean"][:, 0][:, None] + np.einsum("if,sfr->sir", x, d["item_map"][:, 0])
    z = (d["item_vector"][:, N_ITEMS - N_COLD :] - loc) / d["item_scale"][:, 0][:, None]
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-4
    shuffled = d["item_vector"][:, N_ITEMS - N_COLD :][:, ::-1] - loc  # the features of another: planted
    assert stats.kstest((shuffled / d["item_scale"][:, 0][:, None]).ravel(), "norm").pvalue < 1e-4


def test_the_maps_are_found():
    """The map of the items' intercepts, which does not rotate, is within 4 posterior sds of the truth's least squares."""
    *_, items, eta = truth()
    posterior = fitted(True)
    design = np.column_stack(
        [np.ones(N_ITEMS), (items[list("abc")] - items[list("abc")].mean()) / items[list("abc")].std(ddof=0)]
    )
    popularity = eta.mean(0) / posterior.schema.scale[0]
    want = np.linalg.lstsq(design[: N_ITEMS - N_COLD], popularity[: N_ITEMS - N_COLD], rcond=None)[0][1:]
    draws = posterior.draws
    entries = draws["item_map"][:, :, 0].astype(float)  # chain, draw, feature, component
    mean_user = draws["user_vector"].astype(float).mean(2)
    got = entries[..., 0] + np.einsum("cdfk,cdk->cdf", entries[..., 1:], mean_user[..., 1:])
    assert (np.abs(got.mean((0, 1)) - want) / got.std((0, 1)) < 4).all()


def test_new_users_are_folded_in_with_their_features():
    """Means and covariances of a new user's vector over the draws are those of the conditional normals, written out."""
    posterior, users = fitted(True), truth()[1]
    rows = pd.DataFrame({"user": [900] * 3 + [901], "item": [1, 5, 70, 2], "rating": [5.0, 4.0, 4.5, 1.0]})
    new = pd.DataFrame({"user": [900, 901], "p": [2.0, -2.0], "q": [0.0, 1.0]})
    folded = posterior.fold_in(rows, seed=1, features=new)
    x = (new[["p", "q"]] - users[["p", "q"]].mean()) / users[["p", "q"]].std(ddof=0)
    z = []
    for c in range(2):
        for s in range(posterior.n_draws):
            d = {name: a[c, s].astype(float) for name, a in posterior.draws.items()}
            for k, who in enumerate((900, 901)):
                mine = rows[rows["user"] == who]
                v = d["item_vector"][mine["item"]]
                y = posterior.schema.standardise(mine["rating"].to_numpy(), np.zeros(len(mine), dtype=int)) - v[:, 0]
                v = np.column_stack([np.ones(len(v)), v[:, 1:]])
                inverse = np.linalg.inv(d["user_cov"])
                precision = inverse + v.T @ v / d["noise"][0] ** 2
                prior = d["user_mean"] + x.iloc[k].to_numpy() @ d["user_map"]
                mean = np.linalg.solve(precision, inverse @ prior + v.T @ y / d["noise"][0] ** 2)
                vector = folded.draws["user_vector"][c, s, N_USERS + k].astype(float)
                z.append(np.linalg.cholesky(precision).T @ (vector - mean))
    assert stats.kstest(np.ravel(z), "norm").pvalue > 1e-4
    again = posterior.fold_in(rows, seed=1, features=new.assign(p=-new["p"]))
    assert abs(again.predict(rows)["mean"] - folded.predict(rows)["mean"]).max() > 1e-3


def test_a_source_prior_holds_what_features_say():
    """Moments of the aligned vectors of as_prior are those of the draws themselves, turned the same way."""
    from bayesrec.posterior.alignment import Designs, align, population_cov

    posterior = fitted(True)
    prior = posterior.as_prior("user")
    count = np.bincount(posterior.data.item, minlength=N_ITEMS).astype(float)
    turns, _ = align(Designs(posterior, count))
    phi = []
    for c in range(2):
        for s in range(posterior.n_draws):
            d = posterior.draw(c, s)
            root = np.linalg.cholesky(population_cov(posterior, d)) @ turns[c, s]
            phi.append(np.linalg.solve(root, (d["user_vector"] - d["user_mean"]).T).T)
    phi = np.stack(phi)
    error = phi.std(0) / np.sqrt(len(phi) / 10)  # an effective draw in ten
    z = (prior.mean - phi.mean(0)) / error
    assert np.abs(z).max() < 5
    ratio = np.einsum("ukk->uk", prior.cov) / phi.var(0)
    assert 0.9 < np.median(ratio) < 1.1
    assert 0.6 < phi.var((0, 1)).min() < phi.var((0, 1)).max() < 1.6  # whitened over the population, features included


@pytest.mark.parametrize("model", [br.models.PMF, br.models.TransferMF], ids=lambda m: m.__name__)
def test_potential_energy_of_nuts(model):
    """It is that of Pyro's joint density and the Jacobian; the prior itself is tested against Gibbs."""

    def tiny():
        frame, _ = br.data.synthetic.cross_domain(n_users=14, n_items=(8, 7), n_ratings=(6, 4))
        rng = np.random.default_rng(0)
        items = frame[["item", "domain"]].drop_duplicates()
        items["x"] = rng.standard_normal(len(items))
        users = pd.DataFrame({"user": np.arange(14), "y": rng.standard_normal(14)})
        return br.Interactions.from_frame(
            frame, target="target", value="value", user_features=users, item_features=items
        )

    got, expected = energies(model(rank=1, features=True), tiny())
    assert got == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_svi_predicts_cold_items_as_gibbs_does():
    frame, users, items, eta = truth()
    data = br.Interactions.from_frame(frame, target="t", domain=None, user_features=users, item_features=items)
    model = br.models.PMF(rank=2, features=True, likelihood=PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", br.errors.ConvergenceWarning)
        posterior = br.fit(model, data, br.SVI(steps=400, draws=100, chains=2), progress=False)
    cells = cold_cells()
    want = eta[cells["user"], cells["item"]]
    rmse = [
        float(np.sqrt(((p.predict(cells)["mean"] - want) ** 2).mean()))
        for p in (posterior, fitted(True), fitted(False))
    ]
    assert rmse[0] < rmse[1] + 0.3 * (rmse[2] - rmse[1])


def test_with_shared_items_features_of_users_and_items_swap_with_them():
    frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    frame = frame.rename(columns={"user": "item", "item": "user"})
    table = pd.DataFrame({"item": np.arange(20), "x": np.arange(20.0)})
    data = br.Interactions.from_frame(frame, target="target", value="value", shared="items", item_features=table)
    model = br.models.TransferMF(rank=1, features=True)
    tree = br.fit(model, data, br.Gibbs(draws=3, warmup=3, chains=2), progress=False).to_datatree()
    assert tree["posterior"]["user_map"].dims == ("chain", "draw", "item_feature", "latent_component")
    assert tree["posterior"].coords["item_feature"].values.tolist() == ["x"]
    assert tree["posterior"].sizes["user_feature"] == 0


def test_a_source_prior_brings_users_who_need_features_too():
    frame, users, *_ = truth()
    source = fitted(True).as_prior("user")
    few = frame[frame["user"] < 40]
    target = br.Interactions.from_frame(few, target="new", domain=None, user_features=users)
    model = br.models.TransferMF(rank=2, source=source, features=True)
    posterior = br.fit(model, target, br.Gibbs(draws=5, warmup=5, chains=2), progress=False)
    assert posterior.data.n_users == N_USERS
    weights = br.source_weight(posterior, few.head(5))
    assert weights[["source", "population", "target"]].sum(axis=1).to_numpy() == pytest.approx(1.0)
    lacking = br.Interactions.from_frame(few, target="new", domain=None, user_features=users[users["user"] < 40])
    with pytest.raises(br.errors.DataError, match=r"user_features: id 40 .*has no features"):
        br.fit(model, lacking, br.Gibbs(draws=5, warmup=5, chains=2), progress=False)


def test_a_checkpoint_of_other_features_is_refused(tmp_path, monkeypatch):
    from bayesrec.inference import gibbs

    frame, users, _, _ = truth()
    method = br.Gibbs(draws=3, warmup=2, chains=1)
    model = br.models.PMF(rank=1, features=True)

    def data(table):
        return br.Interactions.from_frame(frame, target="t", domain=None, user_features=table)

    monkeypatch.setattr(gibbs.ChainFile, "remove", lambda self: None)
    monkeypatch.setattr("bayesrec.inference.checkpoint.EVERY", 0.0)
    br.fit(model, data(users), method, progress=False, checkpoint=tmp_path)
    with pytest.raises(br.errors.DataError, match="checkpoint"):
        br.fit(model, data(users.assign(p=users["q"])), method, progress=False, checkpoint=tmp_path)


def test_the_reference_of_a_transfer_model_has_its_features():
    from bayesrec.diagnostics.stacking import _arms

    arms = _arms(br.models.TransferMF(rank=1, features=True), None)
    assert all(model.features for model in arms.values())


def test_folded_in_alone_a_user_leaves_the_population_as_it_was():
    posterior = fitted(True)
    new = pd.DataFrame({"user": [900], "p": [3.0], "q": [0.0]})
    rows = pd.DataFrame({"user": [900], "item": [1], "rating": [5.0]})
    folded = posterior.fold_in(rows, features=new, alone=True)
    stranger = pd.DataFrame({"user": [901], "item": [3]})
    pd.testing.assert_frame_equal(folded.predict(stranger), posterior.predict(stranger))
