"""Cross-domain builders: who is in which domain, and that no target rating leaks into the source."""

from __future__ import annotations

import datasets_layouts as layouts
import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec import datasets
from bayesrec.datasets import Dataset
from bayesrec.errors import DataError


@pytest.fixture
def films():
    """200 ratings of 20 films with up to three genres each, of a year each."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation(np.array([(u, i) for u in range(15) for i in range(20)]))[:200]
    times = pd.Series(np.datetime64("2000-01-01", "s") + rng.integers(0, 10**8, 200).astype("timedelta64[s]"))
    ratings = pd.DataFrame(
        {"user": pairs[:, 0], "item": pairs[:, 1], "rating": rng.integers(1, 6, 200) * 1.0, "time": times}
    )
    names = ["Action", "Comedy", "Drama", "War"]
    genres = ["|".join(n for n, on in zip(names, rng.random(4) < 0.4, strict=True) if on) for _ in range(20)]
    items = pd.DataFrame({"item": range(20), "genres": genres, "type": ["TV", "Film"] * 10})
    return Dataset("films", ratings, items, trust=pd.DataFrame({"truster": [1], "trustee": [2]}))


def triples(data):
    frame = data.to_frame()
    return {(u, i): d for u, i, d in zip(frame["user"], frame["item"], frame["domain"], strict=True)}


def test_by_genre_against_a_loop(films):
    data = datasets.by_genre(films, source="Drama", target="Comedy")
    genres = {i: set(g.split("|")) for i, g in zip(films.items["item"], films.items["genres"], strict=True)}
    assert any({"Drama", "Comedy"} <= g for g in genres.values()), "the case that matters is there"
    expected = {}
    for u, i in zip(films.ratings["user"], films.ratings["item"], strict=True):
        if "Comedy" in genres[i]:
            expected[u, i] = "Comedy"
        elif "Drama" in genres[i]:
            expected[u, i] = "Drama"
    assert triples(data) == expected
    assert data.target == "Comedy"
    assert data.sources == ("Drama",)
    assert data.time is not None
    assert data.user_graph is films.trust


def test_no_item_is_in_two_domains(films):
    data = datasets.by_genre(films, source=["Drama", "War", "Action"], target="Comedy")
    assert data.domains == ("Action", "Drama", "War", "Comedy")
    assert data.to_frame().groupby("item")["domain"].nunique().max() == 1
    reordered = datasets.by_genre(films, source=["Action", "War", "Drama"], target="Comedy")
    both = set(films.items["item"][films.items["genres"].str.contains("Action.*Drama")]) - set(
        films.items["item"][films.items["genres"].str.contains("Comedy")]
    )
    assert both
    first, second = triples(data), triples(reordered)
    assert {first[k] for k in first if k[1] in both} == {"Drama"}
    assert {second[k] for k in second if k[1] in both} == {"Action"}


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("Dramas", "Comedy", r"no rated item has genres 'Dramas' \(did you mean 'Drama'\?\)"),
        ("Drama", "Comedi", r"no rated item has genres 'Comedi'"),
        ("Drama", "Drama", "must be different"),
        ([], "Drama", "at least one source"),
        (["War", "War"], "Drama", "must be different"),
    ],
)
def test_by_genre_refuses(source, target, message, films):
    with pytest.raises(DataError, match=message):
        datasets.by_genre(films, source=source, target=target)


def test_by_genre_needs_items(films):
    with pytest.raises(DataError, match="has no items table"):
        datasets.by_genre(Dataset("x", films.ratings), "Drama", "Comedy")
    with pytest.raises(DataError, match=r"no column 'genre' \(did you mean 'genres'\?\)"):
        datasets.by_genre(films, "Drama", "Comedy", column="genre")


def test_a_genre_of_unrated_items_only_is_unknown(films):
    items = pd.concat([films.items, pd.DataFrame({"item": [99], "genres": ["Noir"], "type": ["TV"]})])
    with pytest.raises(DataError, match="no rated item has genres 'Noir'"):
        datasets.by_genre(Dataset("x", films.ratings, items), "Noir", "Comedy")


def test_by_category_of_items(films):
    data = datasets.by_category(films, "type", "TV", "Film")
    assert triples(data) == {
        (u, i): ["TV", "Film"][i % 2] for u, i in zip(films.ratings["user"], films.ratings["item"], strict=True)
    }
    with pytest.raises(DataError, match=r"no column 'typ' \(did you mean 'type'\?\)"):
        datasets.by_category(films, "typ", "TV", "Film")
    with pytest.raises(DataError, match=r"no rated item has type 'Films' \(did you mean 'Film'\?\)"):
        datasets.by_category(films, "type", "TV", "Films")


def test_by_category_of_rows_gives_an_item_one_domain():
    rows = [(1, 7, 24), (2, 7, 4), (3, 7, 5), (1, 8, 24), (2, 9, 4), (3, 9, 5)]
    ratings = pd.DataFrame(rows, columns=["user", "item", "category"]).assign(rating=[1.0, 2, 3, 4, 5, 1])
    data = datasets.by_category(Dataset("c", ratings), "category", source=24, target=4)
    assert triples(data) == {(1, 7): 4, (2, 7): 4, (1, 8): 24, (2, 9): 4}, "rows of category 5 are out"
    assert data.target == 4
    with pytest.raises(DataError, match="no rated item has category 6"):
        datasets.by_category(Dataset("c", ratings), "category", source=6, target=4)


def test_by_category_domain_keeps_items_of_one_id_apart(tmp_path):
    data = datasets.by_category(datasets.douban(layouts.douban(tmp_path)), "domain", "book", "music")
    assert len(data) == 5
    assert data.n_items == 5
    assert data.n_users == 2
    with pytest.raises(DataError, match="'musik'"):
        datasets.by_category(datasets.douban(tmp_path / "douban"), "domain", "book", "musik")


def test_by_time(films):
    moment = pd.Timestamp("2001-06-01")
    data = datasets.by_time(films, "2001-06-01")
    frame = films.ratings
    assert triples(data) == {
        (u, i): "before" if t < moment else "after"
        for u, i, t in zip(frame["user"], frame["item"], frame["time"], strict=True)
    }
    for same in (moment, np.datetime64("2001-06-01"), moment.tz_localize("UTC")):
        assert triples(datasets.by_time(films, same)) == triples(data)
    assert data.n_users == frame["user"].nunique()
    assert data.n_items > frame["item"].nunique(), "an item of both periods counts twice"
    items = datasets.by_time(films, "2001-06-01", shared="items", source="old", target="new")
    assert items.n_items == frame["item"].nunique()
    assert items.target == "new"


@pytest.mark.parametrize("share", [0.005, 0.31, 0.5, 0.995])
def test_by_time_by_share_against_pandas(films, share):
    data = datasets.by_time(films, share)
    frame = films.ratings.assign(rank=films.ratings["time"].rank(method="min") - 1)
    assert frame["time"].is_unique
    expected = np.where(frame["rank"] < int(share * len(frame)), "before", "after")
    assert triples(data) == dict(zip(zip(frame["user"], frame["item"], strict=True), expected, strict=True))


def test_builders_lose_and_change_no_value(films):
    """Values and times of what is built are those of the ratings, pair by pair."""
    items = films.items.assign(genres=films.items["genres"].where(films.items["item"] % 3 > 0, "Comedy|Drama"))
    dataset = Dataset("x", films.ratings, items)
    built = {
        "genre": datasets.by_genre(dataset, ["Drama", "War"], "Comedy"),
        "category": datasets.by_category(dataset, "type", "TV", "Film"),
        "time": datasets.by_time(dataset, "2001-06-01"),
        "file": datasets.by_file({"a": films.ratings[:80], "b": films.ratings[80:]}, "b"),
    }
    wanted = items[items["genres"].str.contains("Comedy|Drama|War")]["item"]
    for name, data in built.items():
        rows = films.ratings if name != "genre" else films.ratings[films.ratings["item"].isin(wanted)]
        found = data.to_frame()[["user", "item", "rating", "time"]].sort_values(["user", "item"], ignore_index=True)
        pd.testing.assert_frame_equal(found, rows.sort_values(["user", "item"], ignore_index=True), check_dtype=False)


def test_by_time_by_share(films):
    data = datasets.by_time(films, 0.8)
    assert (~data.is_target).sum() == 160
    assert data.time[~data.is_target].max() < data.time[data.is_target].min()


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ("1990-01-01", "no ratings before the cut"),
        ("2090-01-01", "no ratings after the cut"),
        ("soon", "cut must be a moment"),
        (1.5, "strictly between 0 and 1"),
        (0.0, "strictly between 0 and 1"),
    ],
)
def test_by_time_refuses(cut, message, films):
    with pytest.raises(DataError, match=message):
        datasets.by_time(films, cut)


def test_by_time_needs_times_and_two_names(films):
    with pytest.raises(DataError, match="has no times"):
        datasets.by_time(Dataset("x", films.ratings.drop(columns="time")), 0.5)
    with pytest.raises(DataError, match="different names"):
        datasets.by_time(films, 0.5, source="x", target="x")


def test_by_file(films, tmp_path):
    tweets = datasets.movietweetings(layouts.movietweetings(tmp_path))
    data = datasets.by_file({"films": films, "tweets": tweets}, target="tweets")
    assert data.domains == ("films", "tweets")
    assert len(data) == 203
    assert data.time is not None
    bare = films.ratings.drop(columns="time")
    assert datasets.by_file({"films": bare, "tweets": tweets}, target="tweets").time is None, (
        "times only if all have them"
    )
    with pytest.raises(DataError, match=r"target 'tweet' is no part \(did you mean 'tweets'\?\)"):
        datasets.by_file({"films": films, "tweets": tweets}, target="tweet")


def test_by_file_takes_polars(films):
    pl = pytest.importorskip("polars")
    part = pl.DataFrame({"user": [1], "item": [2], "rating": [3.0]})
    assert len(datasets.by_file({"a": part, "b": part}, target="b")) == 2


def test_by_file_and_parts_with_domains(tmp_path):
    folder = layouts.douban(tmp_path)
    parts = {name: datasets.douban(folder / f"{name}_ratings.dat") for name in ("book", "music")}
    data = datasets.by_file({"b": parts["book"], "m": parts["music"]}, target="m")
    assert data.domains == ("b", "m"), "names of the parts, not of the files"
    with pytest.raises(DataError, match="part 'both' holds several domains"):
        datasets.by_file({"both": datasets.douban(folder), "m": parts["music"]}, target="m")


def test_shared_items(tmp_path):
    """MovieTweetings and MovieLens share films by their IMDb numbers."""
    tweets = datasets.movietweetings(layouts.movietweetings(tmp_path))
    lens = datasets.movielens(layouts.ml_csv(tmp_path))
    frame = (
        lens.ratings.merge(lens.items[["item", "imdb"]], on="item")
        .drop(columns="item")
        .rename(columns={"imdb": "item"})
    )
    data = datasets.by_file({"tweets": tweets, "lens": frame}, target="lens", shared="items")
    assert data.shared == "items"
    assert data.n_users == 4, "user 1 here is not user 1 there"


def test_features_are_passed_on(films):
    features = datasets.genre_features(films.items)
    for data in (
        datasets.by_genre(films, "Drama", "Comedy", item_features=features),
        datasets.by_category(films, "type", "TV", "Film", item_features=features),
        datasets.by_time(films, 0.5, item_features=features),
        datasets.by_file({"a": films, "b": films}, "b", item_features=features),
    ):
        assert data.item_features is features


def test_what_is_built_can_be_fitted(films):
    data = datasets.by_genre(films, "Drama", "Comedy")
    posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=5, warmup=5, chains=1), progress=False)
    assert np.isfinite(posterior.predict(data).to_numpy()[:, -4:].astype(float)).all()
