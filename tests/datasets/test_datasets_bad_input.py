"""Every reader against the same bad input: cut archives, Windows line ends, broken lines, ids that are none."""

from __future__ import annotations

import json

import datasets_layouts as layouts
import pytest

from bayesrec import datasets
from bayesrec.errors import DataError

LINES = {  # reader, how to write its files, the file of ratings
    "ml-100k": (datasets.movielens, layouts.ml_100k, "u.data"),
    "ml-1m": (datasets.movielens, layouts.ml_1m, "ratings.dat"),
    "ml-10m": (datasets.movielens, layouts.ml_10m, "ratings.dat"),
    "ml-32m": (datasets.movielens, layouts.ml_csv, "ratings.csv"),
    "amazon 2023": (datasets.amazon, lambda top: layouts.amazon_2023(top).parent, "All_Beauty.csv"),
    "amazon reviews": (datasets.amazon, layouts.amazon_2023_reviews, "All_Beauty.jsonl"),
    "netflix": (datasets.netflix, layouts.netflix_combined, "combined_data_2.txt"),
    "netflix, a file a film": (datasets.netflix, layouts.netflix_movies, "training_set/mv_0000010.txt"),
    "yelp": (datasets.yelp, layouts.yelp, "yelp_academic_dataset_review.json"),
    "douban": (datasets.douban, layouts.douban, "music_ratings.dat"),
    "cdrib": (datasets.cdrib, layouts.cdrib, "video_game/train.txt"),
    "ciao": (datasets.ciao, layouts.ciao, "ratings.csv"),
    "ciaodvd": (datasets.ciao, layouts.ciaodvd, "movie-ratings.txt"),
    "massa": (datasets.epinions, layouts.massa, "ratings_data.txt"),
    "movietweetings": (datasets.movietweetings, layouts.movietweetings, "ratings.dat"),
    "recbole": (datasets.recbole, layouts.recbole, "toy.inter"),
    "anime": (datasets.anime, layouts.anime, "rating.csv"),
}


@pytest.fixture(params=LINES)
def case(request, tmp_path):
    reader, make, name = LINES[request.param]
    folder = make(tmp_path / "data")
    return reader, folder, folder / name


def same(data, other):
    for part in ("ratings", "items", "users", "trust"):
        one, two = getattr(data, part), getattr(other, part)
        assert (one is None and two is None) or one.equals(two), part


def test_windows_line_ends_lose_nothing(case):
    reader, folder, _ = case
    plain = reader(folder)
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    data = reader(folder)
    same(data, plain)
    assert data.problems == plain.problems


def test_a_broken_line_in_the_middle_is_counted_and_strict_names_it(case):
    reader, folder, file = case
    plain = reader(folder)
    head, _, tail = file.read_bytes().partition(b"\n")
    broken = b'{"rating": 3, "stars"' if head.startswith(b"{") else b"12345"
    file.write_bytes(head + b"\n" + broken + b"\n" + tail)
    data = reader(folder)
    same(data, plain)
    kind = "broken JSON" if broken.startswith(b"{") else "malformed"
    assert data.problems[f"{kind} lines, dropped (first: {file}, line 2)"] == 1
    assert sum(data.problems.values()) == sum(plain.problems.values()) + 1
    with pytest.raises(DataError, match=rf"{file.name}, line 2: (malformed|broken JSON) lines, dropped \(1\)"):
        reader(folder, strict=True)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("pack", ["zip", "tar.gz", "gz"])
def test_a_cut_archive_is_named_and_nothing_is_returned(case, pack, share, tmp_path):
    reader, folder, file = case
    if pack == "gz":
        place = layouts.gzipped(file)
        file.unlink()
    else:
        make = layouts.zipped if pack == "zip" else layouts.tarred
        place = make(folder, tmp_path / f"all.{pack}")
    given = folder if pack == "gz" else place
    reader(given)
    place.write_bytes(place.read_bytes()[: int(share * place.stat().st_size)])
    with pytest.raises(DataError, match=rf"{place.name}.* cannot be read .*truncated: fetch it again"):
        reader(given)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_cut_anywhere_is_named_or_loses_nothing(mode, tmp_path):
    """Also between two members, where the module itself sees a whole archive."""
    plain = datasets.netflix(layouts.netflix_movies(tmp_path / "data"))
    place = layouts.tarred(tmp_path / "data", tmp_path / "all.tar", mode)
    if mode != "w":
        place = place.rename(tmp_path / f"all.tar.{mode[2:]}")
    whole = place.read_bytes()
    named = []
    for cut in range(0, len(whole), 256 if mode == "w" else 8):
        place.write_bytes(whole[:cut])
        try:
            same(datasets.netflix(place), plain)
        except DataError as error:
            named.append(str(error))
    assert len(named) >= 20
    assert all(place.name in line and "truncated: fetch it again" in line for line in named)


@pytest.mark.parametrize("value", [["a"], {"a": 1}, None, 5])
def test_ids_of_products_and_businesses_that_are_none(value, tmp_path):
    layouts.amazon_2023_reviews(tmp_path / "a")
    layouts.yelp(tmp_path / "y")
    bad = {
        tmp_path / "a/meta_All_Beauty.jsonl": "parent_asin",
        tmp_path / "y/yelp_academic_dataset_business.json": "business_id",
        tmp_path / "y/yelp_academic_dataset_user.json": "user_id",
    }
    for reader, folder in ((datasets.amazon, tmp_path / "a"), (datasets.yelp, tmp_path / "y")):
        plain = reader(folder)
        files = [file for file in bad if file.parent == folder]
        for file in files:
            file.write_text(json.dumps({bad[file]: value}) + "\n" + file.read_text())
        data = reader(folder)
        same(data, plain)
        expected = {f"malformed lines of {file.name}, dropped (first: line 1)": 1 for file in files}
        assert data.problems == expected
        with pytest.raises(DataError, match="line 1: malformed lines of"):
            reader(folder, strict=True)


@pytest.mark.parametrize("time", ["1588687728923000", "9223372036854775807", "-9223372036854775808"])
def test_a_time_of_no_year_is_dropped_and_counted(time, tmp_path):
    """Microseconds, for example, taken for milliseconds."""
    file = layouts.write(tmp_path / "u.data", f"1\t2\t3\t881250949\n1\t3\t4\t{time}\n2\t2\t5\t881250950\n")
    data = datasets.movielens(file)
    assert data.ratings["item"].tolist() == [2, 2]
    assert data.problems == {f"times outside the years 1 to 9999, dropped (first: {file}, line 2)": 1}
    assert "1997-12-04" in repr(data)
    with pytest.raises(DataError, match="line 2: times outside the years"):
        datasets.movielens(file, strict=True)


@pytest.mark.parametrize("heading", ["2x:", " 2:", "-2:", ":", "99999999999999999999:"])
@pytest.mark.parametrize("size", [4, 40, 1000])
def test_rows_below_a_netflix_heading_that_is_none_are_no_ratings_of_the_film_above(
    heading, size, tmp_path, monkeypatch
):
    from bayesrec.datasets import tables

    monkeypatch.setattr(tables.blocks, "__defaults__", (size,))
    rows = f"1:\n7,3,2005-09-06\n8,3,2005-09-06\n9,3,2005-09-06\n{heading}\n7,4,2005-09-07\n8,4,2005-09-07\n3:\n7,5,2005-09-08\n"
    data = datasets.netflix(layouts.write(tmp_path / "combined_data_1.txt", rows))
    assert data.ratings[["user", "item"]].to_numpy().tolist() == [[7, 1], [8, 1], [9, 1], [7, 3]]
    assert data.problems == {f"malformed lines, dropped (first: {tmp_path}/combined_data_1.txt, line 5)": 3}


@pytest.mark.parametrize(
    ("reader", "make", "name", "header"),
    [
        (datasets.movielens, layouts.ml_csv, "movies.csv", "movieId,title\n17,Sense\n"),
        (datasets.anime, layouts.anime, "anime.csv", "anime_id,name\n20,Naruto\n"),
    ],
)
def test_items_without_genres_or_without_a_line(reader, make, name, header, tmp_path):
    folder = make(tmp_path)
    (folder / name).write_text(header)
    data = reader(folder)
    assert "genres" not in data.items
    with pytest.raises(DataError, match="has no column 'genres'"):
        datasets.by_genre(data, "Drama", "Comedy")
    (folder / name).write_text("")
    with pytest.raises(DataError, match=rf"{name} is empty"):
        reader(folder)
