"""Folding in new items: exact conditionals, latent responses, features, both sides at once, and what cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import bayesrec as br
from bayesrec.errors import DataError, DataWarning, NotFittedError
from bayesrec.models.base import Batch

CALM = br.Gaussian(user_noise=False)
GIBBS = br.Gibbs(draws=20, warmup=20, chains=2)


def _repeated(posterior, times):
    """The same posterior with its draws one behind the other, in a random order."""
    order = np.random.default_rng(0).permutation(np.tile(np.arange(posterior.n_draws), times))
    return replace(posterior, draws={name: x[:, order] for name, x in posterior.draws.items()})


def _fit(model, data):
    return br.fit(model, data, GIBBS, progress=False)


@pytest.fixture(scope="module")
def rows():
    """Two new items of the target and one of the source, all rated by users of the fit."""
    user = np.array([6, 8, 9, 12, 20, 22, 6, 30, 31, 7, 8, 9])
    item = np.array([50, 50, 50, 50, 50, 50, 51, 51, 51, 50, 50, 50])
    domain = np.where(np.arange(12) < 9, "target", "source")
    return pd.DataFrame({"user": user, "item": item, "domain": domain, "rating": 3.0 + np.sin(np.arange(12.0))})


def _squares(many, found, mine, domain, place, noise_of):
    """Squared distances of an item's draws from their conditional mean, in units of its covariance."""
    codes, d = many.data.users.encode(mine["user"]), many.data.domain_code(domain)
    value = many.schema.standardise(mine["rating"].to_numpy(), np.full(len(mine), d))
    out = []
    for chain in range(many.n_chains):
        for draw in range(many.n_draws):
            x = many.draw(chain, draw)
            own = "source_vector" in x and d < many.schema.n_domains - 1
            raters = (x["source_vector"][d] if own else x["user_vector"])[codes]
            noise = noise_of(x, d, codes)
            design, offset = raters.copy(), raters[:, 0]
            design[:, 0] = 1.0
            prior = x["item_scale"][d] ** -2.0
            precision = np.diag(prior) + design.T / noise @ design
            mean = np.linalg.solve(precision, prior * x["item_mean"][d] + design.T / noise @ (value - offset))
            gap = found.draws["item_vector"][chain, draw, place] - mean
            out.append(gap @ precision @ gap)
    return np.array(out)


def _noise(x, d, codes):
    level = x["user_log_precision"][d, codes] if "user_log_precision" in x else np.zeros(len(codes))
    return x["noise"][d] ** 2 / np.exp(3.0 * np.tanh(level / 3.0))


@pytest.mark.parametrize(
    "model",
    [
        br.models.PMF(rank=2),
        br.models.CollectiveMF(rank=2, likelihood=CALM),
        br.models.TransferMF(rank=2),
        br.models.TransferMF(rank=2, likelihood={"source": CALM, "target": CALM}),
    ],
    ids=["PMF", "CollectiveMF", "TransferMF", "by domain"],
)
def test_draws_are_exact(model, data, rows):
    """Each draw is normal with known moments: squared distances are chi-squared; 1 in 1,000 runs fails for each item."""
    by_domain = isinstance(model.likelihood, br.likelihoods.ByDomain)
    many = _repeated(_fit(model, data), 20)
    if isinstance(model, br.models.PMF):
        rows = rows[rows["domain"] == "target"]
    found = many.fold_in(rows, side="item")
    assert found.data.n_items == many.data.n_items + rows[["item", "domain"]].drop_duplicates().shape[0]

    def noise(x, d, codes):
        return np.full(len(codes), x[f"noise_{many.schema.domains[d]}"] ** 2) if by_domain else _noise(x, d, codes)

    for (domain, item), mine in rows.groupby(["domain", "item"]):
        place = int(found.data.items.encode([item], [found.data.domain_code(domain)])[0])
        squares = _squares(many, found, mine, domain, place, noise)
        assert stats.kstest(squares, stats.chi2(3).cdf).pvalue > 1e-3, (domain, item)
        wrong = _squares(many, found, mine, domain, place, lambda x, d, codes, f=noise: 0.1 * f(x, d, codes))
        assert stats.kstest(wrong, stats.chi2(3).cdf).pvalue < 1e-3, "planted fault: a tenth of the noise"


def test_cells_without_a_row_count_for_implicit(data, frame, rows):
    """Every user of the fit with rows in the domain who did not take the item is a zero."""
    table = frame.drop(columns="rating")
    clicks = br.Interactions.from_frame(table, target="target", value=None)
    many = _repeated(_fit(br.models.CollectiveMF(rank=2, likelihood=br.Implicit()), clicks), 20)
    mine = rows[(rows["domain"] == "target") & (rows["item"] == 50)].drop(columns="rating")
    found = many.fold_in(mine, side="item")
    present = np.unique(clicks.user[clicks.is_target])
    took = np.isin(present, clicks.users.encode(mine["user"]))
    assert found.draws["popularity"][0, 0, -1] == len(mine)

    def squares(members):
        out = []
        for chain in range(2):
            for draw in range(many.n_draws):
                x = many.draw(chain, draw)
                design = x["user_vector"][present[members]].copy()
                offset = design[:, 0].copy()
                design[:, 0] = 1.0
                value = np.where(took[members], x["click"][1] * len(mine) ** -0.3, 0.0)
                prior, noise = x["item_scale"][1] ** -2.0, x["noise"][1] ** 2
                precision = np.diag(prior) + design.T @ design / noise
                mean = np.linalg.solve(precision, prior * x["item_mean"][1] + design.T @ (value - offset) / noise)
                gap = found.draws["item_vector"][chain, draw, -1] - mean
                out.append(gap @ precision @ gap)
        return out

    assert stats.kstest(squares(np.ones(len(present), dtype=bool)), stats.chi2(3).cdf).pvalue > 1e-3
    assert stats.kstest(squares(took), stats.chi2(3).cdf).pvalue < 1e-3, "planted fault: the zeros forgotten"


@pytest.mark.parametrize(
    "likelihood", [br.Ordinal(), br.Poisson(), br.StudentT()], ids=["Ordinal", "Poisson", "StudentT"]
)
def test_latent_responses_against_quadrature(likelihood, frame, rows):
    """One draw many times over: moments of the item's vector against a sum over a grid; fails below 1 in 10,000 runs."""
    table = frame.assign(rating=frame["rating"].round().clip(1, 5))
    data = br.Interactions.from_frame(table, target="target")
    posterior = br.fit(
        br.models.PMF(rank=1, likelihood=likelihood), data, br.Gibbs(draws=1, warmup=20, chains=1), progress=False
    )
    many = replace(posterior, draws={name: np.repeat(x, 1500, 1) for name, x in posterior.draws.items()})
    mine = rows[(rows["domain"] == "target") & (rows["item"] == 50)].assign(rating=[5.0, 4, 5, 5, 1, 4])
    if isinstance(likelihood, br.Poisson):
        mine["rating"] *= 5.0
    draws = many.fold_in(mine, side="item").draws["item_vector"][0, :, -1].astype(float)
    x, codes = posterior.draw(0, 0), data.users.encode(mine["user"])
    axis = [np.linspace(draws[:, k].mean() - 8 * draws[:, k].std(), draws[:, k].mean() + 8 * draws[:, k].std(), 121)
            for k in range(2)]  # fmt: skip
    grid = np.stack(np.meshgrid(*axis, indexing="ij"), -1).reshape(-1, 2)
    user = x["user_vector"][codes]
    eta = torch.from_numpy(user[:, 0] + grid[:, :1] + grid[:, 1:] * user[:, 1])
    latents = {name: torch.from_numpy(np.asarray(one)) for name, one in x.items()}
    batch = Batch(torch.from_numpy(codes), torch.zeros(6, dtype=torch.int64), torch.zeros(6, dtype=torch.int64))
    value = torch.from_numpy(posterior.schema.standardise(mine["rating"].to_numpy(), np.zeros(6, dtype=int)))
    law = posterior.model.likelihood.distribution(eta, latents, batch)
    told = law.log_prob(value.expand(eta.shape)).sum(-1).numpy()
    prior = stats.norm.logpdf(grid, x["item_mean"][0], x["item_scale"][0]).sum(1)

    def z(log_density):
        weight = np.exp(log_density - log_density.max())
        weight /= weight.sum()
        mean = weight @ grid
        sd = np.sqrt(weight @ (grid - mean) ** 2)
        # draws 3 sweeps apart are worth at least a third of independent ones: their autocorrelation is below .4, then 0
        return np.concatenate([(draws.mean(0) - mean) / sd * np.sqrt(500), np.log(draws.std(0) / sd) * np.sqrt(1000)])

    assert np.abs(z(told + prior)).max() < 4.5
    assert np.abs(z(prior)).max() > 4.5, "planted fault: the rows forgotten"


def test_it_is_near_a_refit():
    """A new item with 60 ratings: means and sds of its predictions by fold_in and by a fit of everything."""
    frame, _ = br.data.synthetic.cross_domain(n_users=150, n_items=(30, 25), n_ratings=(15, 10), rank=2)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    target = frame[frame["domain"] == "target"]
    item = int(target["item"].value_counts().index[0])
    held = (frame["domain"] == "target") & (frame["item"] == item)
    method, model = br.Gibbs(draws=150, warmup=100, chains=2), br.models.CollectiveMF(rank=2)
    part = br.Interactions.from_frame(frame[~held], target="target", value="value")
    before = br.fit(model, part, method, progress=False)
    folded, whole = before.fold_in(frame[held], side="item"), br.fit(model, data, method, progress=False)
    cells = pd.DataFrame({"user": np.arange(150), "item": item, "domain": "target"})
    one, two, prior = (p.predict(cells) for p in (folded, whole, before))
    users = np.isin(np.arange(150), frame.loc[held, "user"], invert=True)
    gap = [np.abs(p["mean"] - two["mean"])[users].mean() / two["sd"].mean() for p in (one, prior)]
    assert gap[0] < 0.15
    assert gap[1] > 0.3, "planted fault: an item that nobody knows"
    assert abs(np.log(one["sd"].mean() / two["sd"].mean())) < 0.15


def test_the_item_is_known_everywhere(transfer, rows, tmp_path):
    mine = rows[(rows["domain"] == "target") & (rows["item"] == 50)]
    more = transfer.fold_in(mine, side="item")
    cells = mine.drop(columns="rating")
    assert not np.allclose(more.predict(cells)["mean"], transfer.predict(cells)["mean"], rtol=1e-3)
    assert (more.predict(cells)["sd"] < transfer.predict(cells)["sd"]).mean() > 0.8
    assert more.log_score(mine).sum() > transfer.log_score(mine).sum()
    everything = br.recommend(more, [0, 6], n=13, items=[*range(12), 50], exclude=None)
    assert (everything["item"] == 50).sum() == 2
    assert 50 in set(br.recommend(more, [0], n=13)["item"])
    with pytest.warns(DataWarning, match="their lists are shorter"):
        assert 50 not in set(br.recommend(more, [6], n=13)["item"])  # the user has rated it
    assert np.isfinite(br.source_weight(more, cells)[["source", "population", "target"]].to_numpy()).all()
    assert (br.borrowing(more, cells.head(2))["item"] == 50).all()
    assert 50 in set(br.next_question(more, 0, n=13)["item"])
    back = br.load(more.save(tmp_path / "more"))
    pd.testing.assert_frame_equal(back.predict(cells), more.predict(cells))
    new = pd.DataFrame({"user": 900, "item": [50, 1], "domain": "target", "rating": [5.0, 4.0]})
    assert more.fold_in(new).predict(cells.head(1).assign(user=900))["mean"].notna().all()
    assert len(more.update(mine.assign(user=mine["user"] + 1)).data) == len(more.data) + len(mine) - 1


def test_both_sides_are_items_and_then_users(transfer, rows):
    mine = rows[rows["domain"] == "target"]
    stranger = pd.DataFrame({"user": 900, "item": [50, 1, 2], "domain": "target", "rating": [5.0, 4.0, 1.0]})
    both = transfer.fold_in(pd.concat([stranger, mine]), seed=3, side="both")
    steps = transfer.fold_in(mine, seed=3, side="item").fold_in(stranger, seed=3)
    for name, x in steps.draws.items():
        np.testing.assert_array_equal(both.draws[name], x, err_msg=name)
    assert len(both.data) == len(steps.data) == len(transfer.data) + len(mine) + 3
    items = transfer.fold_in(mine, seed=3, side="both")
    np.testing.assert_array_equal(items.draws["item_vector"], steps.draws["item_vector"])
    users = transfer.fold_in(stranger.tail(2), seed=3, side="both")
    np.testing.assert_array_equal(
        users.draws["user_vector"], transfer.fold_in(stranger.tail(2), seed=3).draws["user_vector"]
    )


def test_shared_items_are_the_mirror_image(frame, data, rows):
    """The same table with the words user and item exchanged: a new user of a domain is drawn as the new item was."""
    names = {"user": "item", "item": "user"}
    mirror = br.Interactions.from_frame(frame.rename(columns=names), target="target", shared="items")
    model = br.models.TransferMF(rank=2, likelihood=CALM)
    straight, swapped = (_fit(model, one) for one in (data, mirror))
    a, b = straight.fold_in(rows, side="item"), swapped.fold_in(rows.rename(columns=names), side="user")
    np.testing.assert_array_equal(a.draws["item_vector"], b.draws["item_vector"])
    cells = rows.drop(columns="rating")
    np.testing.assert_array_equal(a.predict(cells)["mean"], b.predict(cells.rename(columns=names))["mean"])
    assert br.recommend(b, [50], n=3)["user"].tolist() == [50, 50, 50]
    new = rows[rows["domain"] == "source"].assign(user=[900, 901, 900], item=[1, 1, 2]).rename(columns=names)
    for side in (None, "item"):
        assert swapped.fold_in(new, side=side).data.n_users == swapped.data.n_users + 2
    with pytest.raises(DataError, match="user 50 was in the fit already"):
        b.fold_in(rows.rename(columns=names), side="user")


@pytest.fixture(scope="module")
def described(frame):
    """A fit with a feature of items."""
    items = pd.DataFrame({"item": np.arange(15), "size": np.sin(np.arange(15.0)), "age": np.arange(15.0) ** 2})
    items = pd.concat([items.assign(domain="source"), items.head(12).assign(domain="target")])
    data = br.Interactions.from_frame(frame, target="target", item_features=items)
    return _fit(br.models.CollectiveMF(rank=2, features=True, likelihood=CALM), data)


def test_features_alone_are_a_prior(described, rows):
    """An item without a row is drawn from what its features say; 1 in 1,000 runs fails by chance."""
    many = _repeated(described, 20)
    table = pd.DataFrame({"item": [70, 71], "size": [0.3, -2.0], "age": [11.0, 40.0]})
    found = many.fold_in(None, side="item", item_features=table)
    assert found.data.n_items == many.data.n_items + 2
    assert len(found.data) == len(many.data)
    known = many.data.item_features
    x = (table[["size", "age"]].to_numpy()[1] - known.center) / known.sd

    def pvalue(x):
        z = []
        for chain in range(2):
            for draw in range(many.n_draws):
                s = many.draw(chain, draw)
                mean = s["item_mean"][1] + x @ s["item_map"][1]
                z.append((found.draws["item_vector"][chain, draw, -1] - mean) / s["item_scale"][1])
        return stats.kstest(np.concatenate(z), stats.norm.cdf).pvalue

    assert pvalue(x) > 1e-3
    assert pvalue(-x) < 1e-3, "planted fault: the features of another item"
    mine = rows[rows["domain"] == "target"]
    features = pd.DataFrame({"item": [50, 51, 70], "size": [0.1, 0.2, 0.3], "age": [1.0, 2.0, 11.0]})
    more = described.fold_in(mine, side="item", features=features)
    assert more.data.items.encode([50, 51, 70], [1, 1, 1]).min() > 0
    assert 70 in set(br.recommend(more, [1], n=1, items=[70])["item"])
    with pytest.raises(DataError, match="item 51 has no row"):
        described.fold_in(mine, side="item", item_features=features.head(1))
    with pytest.raises(DataError, match=r"the fit used the features \['size', 'age'\] of items"):
        described.fold_in(mine, side="item")
    with pytest.raises(DataError, match="item 50 is new in a source"):
        described.fold_in(rows[rows["domain"] == "source"], side="item", item_features=features)
    with pytest.raises(DataError, match="are those of new items"):
        described.fold_in(rows.assign(user=900), item_features=features)
    with pytest.raises(DataError, match="give their features once"):
        described.fold_in(mine, side="item", features=features, item_features=features)


def test_a_power_is_more_noise(data, rows):
    posterior = _fit(br.models.TransferMF(rank=2, likelihood=CALM, power=0.5), data)
    noisy = {name: x / 0.5 if name == "noise" else x for name, x in posterior.draws.items()}
    got = posterior.fold_in(rows, side="item", power=0.25).draws["item_vector"]
    want = replace(posterior, draws=noisy).fold_in(rows, side="item").draws["item_vector"]
    full = posterior.fold_in(rows, side="item").draws["item_vector"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert np.abs(full - want).max() > 0.05, "planted fault: the power forgotten"
    # the power prior of the model holds for new items of its sources
    bare = replace(posterior, model=replace(posterior.model, power=1.0))
    other = bare.fold_in(rows, side="item").draws["item_vector"]
    found = posterior.fold_in(rows, side="item").data.item_domain[data.n_items :] == 0
    np.testing.assert_array_equal(full[:, :, data.n_items :][:, :, ~found], other[:, :, data.n_items :][:, :, ~found])
    assert not np.allclose(full[:, :, data.n_items :][:, :, found], other[:, :, data.n_items :][:, :, found])


def test_items_that_cannot_be(transfer, rows, tmp_path):
    mine = rows[rows["domain"] == "target"]
    with pytest.raises(DataError, match=r"item 3 was in the fit already \(row 0\); fold_in takes new items only"):
        transfer.fold_in(mine.assign(item=3), side="item")
    with pytest.raises(DataError, match=r"user 6 and item 3 were both in the fit already \(row 0\)"):
        transfer.fold_in(mine.assign(item=3), side="both")
    with pytest.raises(DataError, match=r"no row is by a user of the fit \(row 0: 900\)"):
        transfer.fold_in(mine.assign(user=900), side="item")
    with pytest.raises(DataError, match="side must be 'user', 'item' or 'both', not 'items'"):
        transfer.fold_in(mine, side="items")
    with pytest.raises(DataError, match="fold_in got an empty frame"):
        transfer.fold_in(mine.head(0), side="item")
    with pytest.raises(DataError, match="alone=True is for new users"):
        transfer.fold_in(mine, side="item", alone=True)
    with pytest.raises(DataError, match="unknown domain 'moon'"):
        transfer.fold_in(mine.assign(domain="moon"), side="item")
    with pytest.raises(DataError, match="uses no features"):
        transfer.fold_in(mine, side="item", item_features=pd.DataFrame({"item": [50, 51], "size": [1.0, 2.0]}))
    with pytest.raises(DataError, match="the known ids are integers"):
        transfer.fold_in(mine.assign(item="a"), side="item")
    with pytest.warns(DataWarning, match=r"1 of 10 rows are by users who were not in the fit \(the first: 900\)"):
        some = transfer.fold_in(pd.concat([mine, mine.head(1).assign(user=900)]), side="item")
    np.testing.assert_array_equal(some.draws["item_vector"], transfer.fold_in(mine, side="item").draws["item_vector"])
    with pytest.warns(DataWarning, match=r"repeat a \(user, item\) pair"):
        assert len(transfer.fold_in(pd.concat([mine, mine.head(1)]), side="item").data) == len(transfer.data) + 9
    bare = br.load(transfer.save(tmp_path / "bare", data=False)).fold_in(mine, side="item")
    assert len(bare.data) == 0
    assert bare.predict(mine.drop(columns="rating"))["mean"].notna().all()
    assert 50 in set(br.recommend(bare, [6], n=13, exclude=None)["item"])


def test_implicit_items_need_the_rows_of_the_fit(frame, tmp_path):
    clicks = br.Interactions.from_frame(frame.drop(columns="rating"), target="target", value=None)
    posterior = _fit(br.models.CollectiveMF(rank=1, likelihood=br.Implicit()), clicks)
    bare = br.load(posterior.save(tmp_path / "bare", data=False))
    new = pd.DataFrame({"user": [6, 8], "item": 50, "domain": "target"})
    with pytest.raises(NotFittedError, match="fold_in of items with Implicit"):
        bare.fold_in(new, side="item")


def test_a_posterior_of_newcomers_alone_takes_items(transfer, rows):
    stranger = pd.DataFrame({"user": [900, 900, 901], "item": [1, 2, 2], "domain": "target", "rating": [4.0, 1.0, 3.0]})
    alone = transfer.fold_in(stranger, alone=True)
    more = alone.fold_in(pd.DataFrame({"user": [900], "item": [50], "domain": "target", "rating": [5.0]}), side="item")
    assert len(more.shelf) == len(alone.shelf) + 1
    assert 50 in set(br.recommend(more, [901], n=12)["item"])


@pytest.mark.parametrize("fault", [False, True])
def test_what_is_remembered_is_of_the_same_draws(transfer, fault, monkeypatch):
    """Biases of items are worked out once, and anew where the draws of items are others."""
    rated = transfer.data.to_frame()
    mine = rated[rated["domain"] == "source"].drop_duplicates("item").head(3).assign(user=999)
    if fault:
        real = type(transfer).recalled
        monkeypatch.setattr(
            type(transfer), "recalled", lambda self, name, of, work_out: real(self, name, None, work_out)
        )

    def scores(posterior):
        return br.recommend(posterior.fold_in(mine, alone=True), [999], n=5, explain=False)["score"].to_numpy()

    fresh = replace(transfer, memory={})
    first = scores(fresh)
    np.testing.assert_array_equal(scores(fresh), first)
    drawn = transfer.draws["item_vector"].copy()
    drawn[:, :, transfer.data.item_domain == 1, 0] += 0.5
    other = replace(fresh, draws=transfer.draws | {"item_vector": drawn})
    same = np.allclose(scores(other), first + 0.5 * transfer.schema.scale[-1], rtol=1e-4)
    assert same != fault
