"""From a source's posterior to a prior for each user: invariance, moments, truth, alignment, privacy."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.errors import ConvergenceWarning, DataError, NotFittedError
from bayesrec.posterior import alignment, summary
from bayesrec.privacy import gaussian_sigma, sensitivity

RANK, R, N_USERS = 2, 3, 150


@pytest.fixture(scope="module")
def truth():
    """Source rows of 150 users, the first without any, and their vectors in the units of the population."""
    frame, truth = br.data.synthetic.cross_domain(
        n_users=N_USERS, n_items=(40, 10), n_ratings=(15, 3), rank=RANK, noise=0.6, seed=4
    )
    rows = frame[(frame["domain"] == "source") & (frame["user"] > 0)].drop(columns="domain")
    return rows, truth["source_user"] / [0.4, 1.0, 1.0], truth["item_source"]


def table(rows, **more):
    users = pd.concat([rows, rows.head(1).assign(user=0, value=1.0)])
    data = br.Interactions.from_frame(users, target="book", domain=None, value="value", **more)
    return data.mask(np.arange(len(users)) < len(rows))  # user 0 is known and silent


@pytest.fixture(scope="module")
def posterior(truth):
    fitted = br.fit(br.models.PMF(rank=RANK), table(truth[0]), br.Gibbs(draws=40, warmup=60, chains=2), progress=False)
    return replace(fitted, draws={name: x.astype(np.float64) for name, x in fitted.draws.items()})


@pytest.fixture(scope="module")
def prior(posterior):
    return posterior.as_prior("user")


def some(posterior, chains=slice(None), draws=slice(None)):
    return replace(posterior, draws={name: x[chains, draws] for name, x in posterior.draws.items()})


def changed(posterior, change, sites=("user_vector", "user_mean", "user_cov", "item_vector"), dtype=np.float64):
    """Users ``u -> A u`` and items ``(1, q) -> A^-T (1, q)`` with another A in every draw; the scores stay what they are."""
    draws = {name: x.copy() for name, x in posterior.draws.items()}
    for c, s in np.ndindex(posterior.n_chains, posterior.n_draws):
        a = change()
        design = draws["item_vector"][c, s].copy()
        design[:, 0] = 1.0
        new = {"user_vector": draws["user_vector"][c, s] @ a.T, "user_mean": a @ draws["user_mean"][c, s]}
        new |= {"user_cov": a @ draws["user_cov"][c, s] @ a.T}
        new |= {"item_vector": np.column_stack([draws["item_vector"][c, s][:, 0], (design @ np.linalg.inv(a))[:, 1:]])}
        for name in sites:
            draws[name][c, s] = new[name]
    return replace(posterior, draws={name: x.astype(dtype) for name, x in draws.items()})


def rotation(rng):
    out = np.eye(R)
    out[1:, 1:] = np.linalg.qr(rng.standard_normal((RANK, RANK)))[0]
    return out


def shear(rng):
    """Any change that leaves the 1 of an item's design where it is: the bias takes up a part of the factors."""
    out = rng.standard_normal((R, R))
    out[:, 0] = 0.0
    out[0, 0] = 1.0
    return out


def gap(one, other):
    return max(np.abs(one.mean - other.mean).max(), np.abs(one.cov - other.cov).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 3e-5)])
def test_turning_every_draw_by_its_own_matrix_changes_nothing(posterior, prior, dtype, tolerance):
    """To 1e-9 in double precision; draws are stored in single, where rounding of the turned draws is what is left."""
    rng = np.random.default_rng(0)
    assert gap(changed(posterior, lambda: rotation(rng), dtype=dtype).as_prior("user"), prior) < tolerance


def test_nor_does_a_bias_that_takes_up_a_part_of_the_factors(posterior, prior):
    rng = np.random.default_rng(1)
    assert gap(changed(posterior, lambda: shear(rng)).as_prior("user"), prior) < 1e-7


def test_turning_the_items_alone_does(posterior, prior):
    rng = np.random.default_rng(0)
    assert gap(changed(posterior, lambda: rotation(rng), sites=["item_vector"]).as_prior("user"), prior) > 0.01


def test_the_order_of_chains_and_draws_does_not_matter(posterior, prior):
    assert gap(some(posterior, slice(None, None, -1)).as_prior("user"), prior) < 1e-6
    # which draw is last is where the iterations begin: equal up to their convergence
    assert gap(some(posterior, draws=slice(None, None, -1)).as_prior("user"), prior) < 1e-3


def axes_by_hand(posterior):
    """Axes of a single draw: the mean design, then the right singular vectors of what it leaves."""
    draw = posterior.draw(0, 0)
    lower = np.linalg.cholesky(draw["user_cov"])
    rows = posterior.data.item  # one design for each rating: weights are numbers of ratings
    design = np.array([lower.T @ [1.0, *q[1:]] for q in draw["item_vector"][rows]])
    first = design.mean(0) / np.linalg.norm(design.mean(0))
    rest = design - np.outer(design @ first, first)
    axes = np.linalg.svd(rest)[2][:RANK]
    for axis in axes:
        by_item = {i: np.sqrt((rows == i).sum()) * (d @ axis) for i, d in zip(rows, design, strict=True)}
        axis *= np.sign(max(by_item.values(), key=abs))
    return np.column_stack([first, *axes])


def moments_by_hand(posterior, turns):
    """Each user's regression on a design row a rating, in every draw; then the law of total covariance."""
    data, found = posterior.data, {}
    value = posterior.schema.standardise(data.value, data.domain)
    for c, s in np.ndindex(posterior.n_chains, posterior.n_draws):
        draw = posterior.draw(c, s)
        lower = np.linalg.cholesky(draw["user_cov"]) @ turns[c, s]
        for user in np.unique(data.user):
            mine = data.user == user
            v = np.array([[1.0, *q[1:]] for q in draw["item_vector"][data.item[mine]]])
            offset = draw["item_vector"][data.item[mine], 0] + v @ draw["user_mean"]
            sd = draw["noise"][0] * np.exp(-1.5 * np.tanh(draw["user_log_precision"][0, user] / 3.0))
            total = np.linalg.inv(v @ lower @ lower.T @ v.T + sd**2 * np.eye(mine.sum()))  # of the ratings
            gain = lower.T @ v.T @ total
            one = gain @ (value[mine] - offset), np.eye(R) - gain @ v @ lower
            found.setdefault(user, []).append(one)
    mean = np.array([np.mean([m for m, _ in each], 0) for each in found.values()])
    within = np.array([np.mean([cov for _, cov in each], 0) for each in found.values()])
    between = np.array([np.cov(np.array([m for m, _ in each]).T, bias=True) for each in found.values()])
    return mean, within, between


def test_one_draw_gives_the_moments_of_a_regression(posterior):
    one = some(posterior, slice(0, 1), slice(0, 1))
    made = one.as_prior("user")
    mean, within, _ = moments_by_hand(one, axes_by_hand(one)[None, None])
    assert np.abs(made.mean - mean).max() < 1e-9
    assert np.abs(made.cov - within).max() < 1e-9
    assert made.alignment is None
    single = replace(one, draws={name: x.astype(np.float32) for name, x in one.draws.items()})
    assert gap(single.as_prior("user"), made) < 1e-5


def test_several_draws_add_the_spread_of_their_means(posterior):
    few = some(posterior, draws=slice(-3, None))
    counts = np.bincount(few.data.item, minlength=few.data.n_items).astype(float)
    turns, _ = alignment.align(alignment.Designs(few, counts))
    mean, within, between = moments_by_hand(few, turns)
    made = few.as_prior("user")
    assert np.abs(made.mean - mean).max() < 1e-9
    assert np.abs(made.cov - within - between).max() < 1e-9
    assert np.abs(made.cov - within).max() > 1e-3  # what would be missing


def test_who_is_in_a_prior(posterior, prior):
    assert prior.name == "book"
    assert prior.users.tolist() == list(range(1, N_USERS))  # user 0 has no rating
    assert (prior.entity, prior.privacy, prior.rank) == ("user", None, RANK)
    assert prior.alignment > 0.95


def in_the_axes_of(posterior, truth):
    """True vectors (user, R), turned to the axes of the prior by the items."""
    _, phi, items = truth
    counts = np.bincount(posterior.data.item, minlength=posterior.data.n_items).astype(float)
    designs = alignment.Designs(posterior, counts)
    public = summary._items(designs, alignment.align(designs)[0])
    q = items[posterior.data.items.ids.to_numpy()].copy()
    q[:, 0] = 1.0
    left, _, right = np.linalg.svd((q * [0.4, 1.0, 1.0]).T @ (counts[:, None] * public.design))
    return (phi @ left @ right)[1:]


def standardised(prior, phi):
    """Mean of the squared standardised errors of the users' vectors: 1 where the covariances are right."""
    error = phi - prior.mean
    return np.einsum("ui,ui->", error, np.linalg.solve(prior.cov, error[..., None])[..., 0]) / phi.size


@pytest.mark.parametrize("privacy", [None, (1.0, 1e-5, 2.5), (8.0, 1e-5, 2.5), (100.0, 1e-5, 2.5)])
def test_the_true_vectors_are_found_and_covered(posterior, truth, privacy):
    """Over 50 other tables the mean square was .96 to 1.02 with an sd of .07 to .12; the bounds are four sds away."""
    phi = in_the_axes_of(posterior, truth)
    prior = posterior.as_prior("user", privacy=privacy, seed=0)
    assert 0.5 < standardised(prior, phi) < 1.45
    sharp = replace(prior, cov=0.4 * prior.cov)
    assert not 0.5 < standardised(sharp, phi) < 1.45
    if privacy is None:
        assert min(np.corrcoef(phi[:, k], prior.mean[:, k])[0, 1] for k in range(R)) > 0.7


def test_a_larger_budget_leaves_less_uncertainty(posterior, prior):
    made = [posterior.as_prior("user", (epsilon, 1e-5, 2.5), seed=0) for epsilon in (0.5, 2.0, 8.0, 32.0)]
    size = [np.trace(p.cov.mean(0)) / R for p in [*made, prior]]
    assert size == sorted(size, reverse=True)
    assert size[0] > 0.9


def test_over_the_population_a_vector_is_standard_normal(prior):
    second = (prior.mean[:, :, None] * prior.mean[:, None, :] + prior.cov).mean(0)
    assert np.abs(second - np.eye(R)).max() < 0.1


def test_shared_items(truth):
    method = br.Gibbs(draws=60, warmup=100, chains=2)
    rows = truth[0]
    mirror = br.Interactions.from_frame(
        rows.rename(columns={"user": "item", "item": "user"}), target="book", domain=None, value="value", shared="items"
    )
    straight = br.Interactions.from_frame(rows, target="book", domain=None, value="value")
    made = br.fit(br.models.PMF(rank=1), mirror, method, progress=False)
    same = br.fit(br.models.PMF(rank=1), straight, method, progress=False).as_prior("user")
    assert made.as_prior("item") == replace(same, entity="item")
    with pytest.raises(DataError, match=r'the items are shared.*as_prior\("item"\)'):
        made.as_prior("user")


def moved(posterior, chains):
    """Items of some chains with each other's factors: those chains found something else."""
    draws = {name: x.copy() for name, x in posterior.draws.items()}
    for chain in chains:
        order = np.random.default_rng(chain).permutation(posterior.data.n_items)
        draws["item_vector"][chain, ..., 1:] = draws["item_vector"][chain][:, order, 1:]
    return replace(posterior, draws=draws)


def four(posterior):
    return replace(posterior, draws={name: np.concatenate([x, x]) for name, x in posterior.draws.items()})


def test_a_chain_that_went_elsewhere_is_named(posterior, prior):
    with pytest.warns(ConvergenceWarning, match=r"^chain\(s\) 2 of 'book' found other factors"):
        made = moved(four(posterior), [2]).as_prior("user")
    assert made.alignment < prior.alignment
    assert np.trace(made.cov.mean(0)) > np.trace(prior.cov.mean(0))  # what is not known is not claimed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        four(posterior).as_prior("user")


def test_draws_that_random_factors_would_match_are_refused(posterior):
    with pytest.raises(DataError, match=r"the draws of 'book' cannot be aligned.*smaller rank"):
        moved(four(posterior), range(4)).as_prior("user")


def test_one_chain_is_compared_half_against_half(posterior):
    assert some(posterior, slice(0, 1)).as_prior("user").alignment > 0.9


def test_what_cannot_be_summarised_is_refused(posterior, transfer, tmp_path):
    with pytest.raises(DataError, match="side must be"):
        posterior.as_prior("users")
    with pytest.raises(DataError, match="belongs to its domain"):
        posterior.as_prior("item")
    with pytest.raises(DataError, match=r"this is a TransferMF of 2 domain\(s\).*PMF\(rank=2\)"):
        transfer.as_prior("user")
    with pytest.raises(NotFittedError, match="data=False"):
        replace(posterior, data=posterior.data.mask(np.zeros(len(posterior.data), bool))).as_prior("user")
    with pytest.raises(DataError, match="seed"):
        posterior.as_prior("user", privacy=(1.0, 0.1, 1.0), seed=-1)


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        (1.0, "epsilon, delta, clip"),
        ((1.0, 0.1), "epsilon, delta, clip"),
        ((0.0, 0.1, 1.0), "epsilon must"),
        ((1.0, 0.0, 1.0), "delta must"),
        ((1.0, 1.0, 1.0), "delta must"),
        ((1.0, 0.1, 0.0), "clip must"),
    ],
)
def test_what_is_no_budget_is_refused(posterior, privacy, message):
    with pytest.raises(DataError, match=message):
        posterior.as_prior("user", privacy=privacy)


def test_the_noise_is_fresh_unless_a_seed_is_given(posterior):
    budget = (2.0, 1e-5, 2.0)
    one, two = (posterior.as_prior("user", budget, seed=1) for _ in range(2))
    assert one == two
    assert one.privacy == budget
    assert gap(posterior.as_prior("user", budget), posterior.as_prior("user", budget)) > 0.01


def test_nearly_no_noise_gives_nearly_the_moments_without_it(posterior, prior):
    loose = posterior.as_prior("user", (1e9, 0.5, 6.0), seed=0)
    assert min(np.corrcoef(loose.mean[:, k], prior.mean[:, k])[0, 1] for k in range(R)) > 0.97


@pytest.mark.parametrize("fault", [False, True])
def test_one_rating_moves_what_the_noise_hides_by_no_more_than_the_sensitivity(posterior, monkeypatch, fault):
    """Other items and other values, however wild, in the place of a user's rating; everything public stays."""
    released = []

    def record(gram, linear, sigma, rng):
        released.append((gram.copy(), linear.copy(), sigma))
        return gram, linear

    monkeypatch.setattr(summary, "noisy", record)
    if fault:  # residuals that are not clipped
        monkeypatch.setattr(summary, "natural", lambda design, residual, clip: (design.T @ design, design.T @ residual))
    table = posterior.schema.table(posterior.data)
    designs = alignment.Designs(posterior, np.diff(table.item_ptr).astype(float))
    public = summary._items(designs, alignment.align(designs)[0])
    budget, active = (1.5, 1e-4, 0.8), np.arange(1, N_USERS)
    rng = np.random.default_rng(5)
    for _ in range(20):
        item, value = table.user_item.copy(), table.user_value.copy()
        for user in active:
            k = rng.integers(table.user_ptr[user], table.user_ptr[user + 1])
            item[k], value[k] = rng.integers(table.n_items), rng.choice([-1e6, 1e6, 0.0])
        summary._private_moments(public, replace(table, user_item=item, user_value=value), active, budget, rng)
    summary._private_moments(public, table, active, budget, rng)
    bound = summary._bounded(public)[2]
    *others, (gram, linear, sigma) = released
    assert sigma == gaussian_sigma(1.5, 1e-4, sensitivity(bound, 0.8))
    far = max(np.sqrt(((g - gram) ** 2).sum((1, 2)) + ((l - linear) ** 2).sum(1)).max() for g, l, _ in others)
    assert (far <= sensitivity(bound, 0.8) * (1 + 1e-9)) is not fault
    assert far > 0.5 * sensitivity(bound, 0.8)
