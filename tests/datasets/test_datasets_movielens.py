"""MovieLens: every official layout, as folder, archive and single file."""

from __future__ import annotations

import datasets_layouts as layouts
import numpy as np
import pytest

from bayesrec import datasets
from bayesrec.errors import DataError

EDITIONS = {"100k": layouts.ml_100k, "1m": layouts.ml_1m, "10m": layouts.ml_10m, "csv": layouts.ml_csv}


def same(a, b):
    for name in ("ratings", "items", "users"):
        one, two = getattr(a, name), getattr(b, name)
        assert (one is None) == (two is None), name
        if one is not None:
            assert one.equals(two), name


def test_100k(tmp_path):
    data = datasets.movielens(layouts.ml_100k(tmp_path))
    assert data.name == "ml-100k"
    assert data.problems == {}
    assert data.ratings["user"].tolist() == [196, 186, 196, 22]
    assert data.ratings["item"].tolist() == [242, 302, 302, 377]
    assert data.ratings["rating"].tolist() == [3, 3, 5, 1]
    assert data.ratings["time"][0] == np.datetime64("1997-12-04T15:55:49")
    items = data.items.set_index("item")
    assert items["title"][302] == "Misérables, Les (1995)", "Latin-1 is the official encoding"
    assert items["genres"].to_dict() == {242: "Drama", 302: "Action|Thriller", 377: "unknown"}
    assert data.users.set_index("user").loc[186].to_dict() == {
        "age": 39, "gender": "F", "occupation": "executive", "zip": "00000",
    }  # fmt: skip


def test_1m(tmp_path):
    data = datasets.movielens(layouts.ml_1m(tmp_path))
    assert data.problems == {}
    assert data.ratings[["user", "item", "rating"]].to_numpy().tolist() == [[1, 1193, 5], [1, 661, 3], [2, 1193, 4]]
    assert data.ratings["time"].astype("int64").tolist() == [978300760, 978302109, 978298413]
    assert data.items["title"].tolist() == ["James and the Giant Peach (1996)", "Misérables, Les (1995)"]
    assert data.users["age"].tolist() == [1, 56]
    assert data.users["zip"].tolist() == ["48067", "70072"]


def test_10m_is_utf8_and_has_half_stars(tmp_path):
    data = datasets.movielens(layouts.ml_10m(tmp_path))
    assert data.name == "ml-10M100K"
    assert data.ratings["rating"].tolist() == [5, 4.5, 0.5]
    assert data.items["title"][1] == "Misérables, Les (1995)"
    assert data.items["genres"].tolist() == ["Comedy|Romance", ""]
    assert data.users is None


def test_csv_editions_have_links(tmp_path):
    data = datasets.movielens(layouts.ml_csv(tmp_path))
    assert data.ratings.dtypes.astype(str).to_dict() == {
        "user": "int64", "item": "int64", "rating": "float64", "time": "datetime64[s]",
    }  # fmt: skip
    assert data.items["title"].tolist()[1:] == ["American President, The (1995)", 'The "Other" One (1995)']
    assert data.items["imdb"].tolist() == [114388, 112346, 114279]
    assert data.items["tmdb"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("edition", EDITIONS)
def test_an_archive_says_the_same_as_the_folder(edition, tmp_path):
    folder = EDITIONS[edition](tmp_path)
    plain = datasets.movielens(folder)
    for packed in (
        layouts.zipped(folder, tmp_path / f"{folder.name}.zip"),
        layouts.tarred(folder, tmp_path / f"{folder.name}.tar.gz"),
        layouts.tarred(folder, tmp_path / f"{folder.name}.tar", "w"),
    ):
        data = datasets.movielens(packed)
        assert data.name == plain.name
        same(data, plain)
        assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == [folder.name], "nothing is unpacked"


@pytest.mark.parametrize("edition", EDITIONS)
def test_a_file_of_ratings_alone(edition, tmp_path):
    folder = EDITIONS[edition](tmp_path)
    file = next(folder / name for name in ("u.data", "ratings.dat", "ratings.csv") if (folder / name).exists())
    assert datasets.movielens(file).ratings.equals(datasets.movielens(folder).ratings)
    assert datasets.movielens(file).items is None
    assert datasets.movielens(layouts.gzipped(file)).ratings.equals(datasets.movielens(folder).ratings)


@pytest.mark.parametrize("edition", EDITIONS)
def test_strict_has_nothing_against_official_files(edition, tmp_path):
    folder = EDITIONS[edition](tmp_path)
    same(datasets.movielens(folder, strict=True), datasets.movielens(folder))


def test_a_folder_one_level_up_is_looked_into(tmp_path):
    layouts.ml_1m(tmp_path / "data")
    assert len(datasets.movielens(tmp_path / "data").ratings) == 3


def test_two_editions_below_one_folder_are_ambiguous(tmp_path):
    layouts.ml_csv(tmp_path, "ml-20m")
    layouts.ml_csv(tmp_path, "ml-25m")
    with pytest.raises(DataError, match=r"ml-20m/ratings.csv and ml-25m/ratings.csv"):
        datasets.movielens(tmp_path)


def test_keep_and_max_rows(tmp_path):
    folder = layouts.ml_100k(tmp_path)
    kept = datasets.movielens(folder, keep=lambda block: block["time"] < "1998-01-01")
    assert kept.ratings["user"].tolist() == [196, 196, 22]
    assert datasets.movielens(folder, max_rows=2).ratings["user"].tolist() == [196, 186]
    both = datasets.movielens(folder, keep=lambda block: block["user"] == 196, max_rows=2)
    assert both.ratings["item"].tolist() == [242, 302]
    assert len(datasets.movielens(folder, keep=lambda block: block["user"] < 0).ratings) == 0
    with pytest.raises(DataError, match="keep must return one True or False"):
        datasets.movielens(folder, keep=lambda block: [1, 2])
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(DataError, match="max_rows"):
            datasets.movielens(folder, max_rows=wrong)


def test_repr_shows_sizes_and_problems(tmp_path):
    folder = layouts.ml_100k(tmp_path)
    (folder / "u.data").write_bytes((folder / "u.data").read_bytes() + b"1\t2\tfive\t3\n")
    text = repr(datasets.movielens(folder))
    assert "Dataset ml-100k: 4 ratings of 3 users on 3 items, from 1 to 5, 1997-11-07 to 1998-04-04" in text
    assert "items: 3 rows (item, title, date, url, genres)" in text
    assert "problem: 1 x malformed lines, dropped (first: " in text
    assert text.endswith("u.data, line 5)")


def test_a_misspelt_header_is_named_with_the_nearest(tmp_path):
    file = layouts.write(tmp_path / "ratings.csv", "userId,movieIds,rating,timestamp\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"no column for item in the header .*did you mean 'movieIds'"):
        datasets.movielens(file)
