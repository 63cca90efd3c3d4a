"""Feature tables: who is described, in which numbers, and what is refused."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayesrec as br
from bayesrec.data.features import described, matrices, newcomers
from bayesrec.errors import DataError

FRAME = pd.DataFrame(
    {
        "user": [1, 1, 2, 2, 3, 3],
        "item": [7, 7, 7, 8, 8, 9],
        "domain": ["book", "film", "film", "film", "book", "film"],
        "rating": [5.0, 4.0, 3.0, 2.0, 1.0, 2.0],
    }
)
AGES = pd.DataFrame({"user": [3, 1, 2], "age": [50, 30, 40], "old": [True, False, False]})
FILMS = pd.DataFrame({"item": [9, 7, 8], "domain": "film", "war": [1.0, 0.0, 0.0], "year": [1999, 1990, 1991]})


def data(**given):
    return br.Interactions.from_frame(FRAME, target="film", **given)


def unit(values):
    values = np.asarray(values, dtype=float)
    return (values - values.mean()) / values.std()


@pytest.mark.parametrize("backend", [pd.DataFrame, pl.DataFrame])
def test_rows_are_put_in_the_order_of_codes(backend):
    table = described(data(user_features=backend(AGES), item_features=backend(FILMS)))
    assert table.user_features.names == ("age", "old")
    np.testing.assert_allclose(table.user_features.x.T, [unit([30, 40, 50]), unit([0, 0, 1])])
    assert table.item_features.names == ("war", "year")
    film = table.item_domain == 1
    np.testing.assert_allclose(table.item_features.x[film].T, [unit([0, 0, 1]), unit([1990, 1991, 1999])])
    assert (table.item_features.x[~film] == 0.0).all()  # no table describes a book


def test_the_data_of_the_caller_stay_as_they_are():
    before = data(user_features=AGES, item_features=FILMS)
    described(before)
    assert before.user_features is AGES
    assert before.n_items == 5


def test_an_item_known_by_its_features_alone_is_an_item_of_its_domain():
    more = pd.concat([FILMS, pd.DataFrame({"item": [4], "domain": ["film"], "war": [0.0], "year": [2000]})])
    table = described(data(item_features=more))
    assert table.n_items == 6
    code = table.items.encode([4], 1)[0]
    assert code == 5  # behind the others, whose codes stay
    np.testing.assert_allclose(table.item_features.x[code, 1], unit([1990, 1991, 1999, 2000])[3])
    np.testing.assert_array_equal(table.item, data().item)


def test_without_a_domain_column_an_id_is_in_every_domain_that_has_it_and_else_in_the_target():
    table = pd.DataFrame({"item": [7, 8, 9, 3], "x": [1.0, 2.0, 4.0, 5.0]})
    got = described(data(item_features=table))
    assert [got.items.encode([7, 8, 9, 3], domain).tolist() for domain in (0, 1)] == [[0, 1, -1, -1], [2, 3, 4, 5]]
    np.testing.assert_allclose(got.item_features.x[:2, 0], unit([1, 2]))
    np.testing.assert_allclose(got.item_features.x[2:, 0], unit([1, 2, 4, 5]))


def test_a_column_that_varies_in_one_domain_only_is_zero_in_the_other():
    table = pd.DataFrame(
        {"item": [7, 8, 7, 8, 9], "domain": ["book", "book", "film", "film", "film"], "x": [3, 3, 1, 2, 3]}
    )
    got = described(data(item_features=table)).item_features.x[:, 0]
    np.testing.assert_allclose(got, [0, 0, *unit([1, 2, 3])])


def test_users_known_by_features_alone_and_a_side_without_a_table():
    table = described(data(user_features=pd.concat([AGES, AGES.assign(user=[11, 12, 13])])))
    assert table.n_users == 6
    assert table.item_features.x.shape == (5, 0)


def test_only_the_target_keeps_the_features_of_its_own():
    table = described(data(item_features=pd.DataFrame({"item": [7, 8, 9], "x": [1.0, 2.0, 4.0]}))).only_target()
    np.testing.assert_allclose(table.item_features.x[:, 0], unit([1, 2, 4]))


def test_shared_items_swap_sides():
    mirror = br.Interactions.from_frame(
        FRAME.rename(columns={"user": "item", "item": "user"}), target="film", shared="items",
        item_features=AGES.rename(columns={"user": "item"}),
    )  # fmt: skip
    got = described(mirror.transposed())
    np.testing.assert_allclose(got.user_features.x, described(data(user_features=AGES)).user_features.x)
    with pytest.raises(DataError, match="item_features: id 3 has no features"):
        described(replace(mirror, item_features=AGES[1:].rename(columns={"user": "item"})).transposed())


def test_newcomers_are_measured_as_the_others_are():
    table = described(data(user_features=AGES))
    new = newcomers(table, pd.DataFrame({"age": [45.0, 60.0], "old": [1, 0], "user": [8, 5]}), pd.Index([5, 8]))
    mean, sd = AGES[["age", "old"]].mean(), AGES[["age", "old"]].std(ddof=0)
    np.testing.assert_allclose(
        new, [[(60 - mean.age) / sd.age, -mean.old / sd.old], [(45 - mean.age) / sd.age, (1 - mean.old) / sd.old]]
    )
    assert table.user_features.extended(new).x.shape == (5, 2)


BAD_ITEMS = {
    "strangers": (FILMS.assign(item=[91, 92, 93]), "item_features: none of the 3 ids, such as 91, has a rating"),
    "type": (pd.DataFrame({"item": ["7", "8", "9"], "x": [1, 2, 3]}), "item_features: none of the 3 ids, such as '7'"),
    "mixed": (pd.DataFrame({"item": [7, 8, 9, "ten"], "x": range(4)}), "ids of different types are mixed"),
    "twice": (pd.concat([FILMS, FILMS[:1]]), "item_features: id 9 is there twice, again in row 3"),
    "gap": (FILMS[:2], "item_features: id 8 has no features; add a row"),
    "missing": (FILMS.assign(year=[1.0, np.nan, 2.0]), "column 'year' has 1 missing value.s., the first for id 7"),
    "infinite": (FILMS.assign(year=[1.0, np.inf, 2.0]), "item_features: column 'year'.*NaN or infinite"),
    "text": (FILMS.assign(title=list("abc")), "column 'title'.*not numbers.*Features are numbers"),
    "constant": (FILMS.assign(war=0.1), "column 'war' is constant and says nothing; drop it"),
    "no columns": (FILMS[["item", "domain"]], "has no column besides"),
    "no rows": (FILMS[:0], "the table has no rows"),
    "domain": (FILMS.assign(domain="opera"), "unknown domain 'opera'"),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_bad_tables_are_refused_by_name(case):
    table, message = BAD_ITEMS[case]
    with pytest.raises(DataError, match=message):
        br.fit(br.models.PMF(rank=1, features=True), data(item_features=table), br.Gibbs(draws=1, warmup=0, chains=1))


def test_a_constant_within_every_domain_says_so():
    table = pd.DataFrame(
        {"item": [7, 8, 7, 8, 9], "domain": ["book"] * 2 + ["film"] * 3, "x": [1, 2, 1, 2, 3], "film": [0, 0, 1, 1, 1]}
    )
    with pytest.raises(DataError, match="column 'film' is constant within every domain"):
        described(data(item_features=table))


def test_features_are_asked_for_and_given():
    method = br.Gibbs(draws=2, warmup=0, chains=1)
    with pytest.raises(DataError, match="features=True needs user_features"):
        br.fit(br.models.PMF(rank=1, features=True), data(), method)
    with pytest.raises(DataError, match="features must be True or False"):
        br.models.PMF(features=AGES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posterior = br.fit(br.models.PMF(rank=1, features=True), data(user_features=AGES), method, progress=False)
        plain = br.fit(br.models.PMF(rank=1), data(user_features=AGES), method, progress=False)
    new = pd.DataFrame({"user": [8], "item": [7], "domain": ["film"], "rating": [3.0]})
    for table, message in (
        (None, r"the fit used the features \['age', 'old'\] of users: give those of the new ones"),
        (AGES, "features: user 8 has no row"),
        (AGES.assign(user=[8, 9, 10])[["user", "age"]], "no column 'old'"),
    ):
        with pytest.raises(DataError, match=message):
            posterior.fold_in(new, features=table)
    assert posterior.fold_in(new, features=AGES.assign(user=[8, 9, 10])).data.n_users == 4
    with pytest.raises(DataError, match="uses no features"):
        plain.fold_in(new, features=AGES)


def test_second_moments_are_those_of_the_fit():
    table = pd.DataFrame({"item": [7, 8, 9], "x": [1.0, 2.0, 4.0], "y": [1.0, 0.0, 0.0]})
    known = described(data(user_features=AGES, item_features=table))
    found = matrices(known)
    x = found["item_x"]
    for domain, moment in enumerate(found["item_moment"]):
        here = known.item_domain == domain
        np.testing.assert_allclose(moment, x[here].T @ x[here] / here.sum())
    more = known.user_features.extended(np.ones((1, 2)))
    np.testing.assert_array_equal(more.moment, known.user_features.moment)
    assert matrices(data(user_features=AGES)) == {}
    np.testing.assert_array_equal(matrices(known.only_target())["item_moment"], found["item_moment"][1:])
