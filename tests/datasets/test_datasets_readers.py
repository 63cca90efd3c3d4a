"""The other readers on the official layouts."""

from __future__ import annotations

import json
import shutil
import zipfile

import datasets_layouts as layouts
import numpy as np
import pytest

from bayesrec import datasets
from bayesrec.errors import DataError

READERS = {
    "amazon": lambda top: (datasets.amazon, layouts.amazon_2023_reviews(top)),
    "netflix": lambda top: (datasets.netflix, layouts.netflix_combined(top)),
    "netflix, a file a film": lambda top: (datasets.netflix, layouts.netflix_movies(top)),
    "yelp": lambda top: (datasets.yelp, layouts.yelp(top)),
    "douban": lambda top: (datasets.douban, layouts.douban(top)),
    "cdrib": lambda top: (datasets.cdrib, layouts.cdrib(top)),
    "ciao": lambda top: (datasets.ciao, layouts.ciao(top)),
    "ciaodvd": lambda top: (datasets.ciao, layouts.ciaodvd(top)),
    "epinions": lambda top: (datasets.epinions, layouts.tang(top)),
    "massa": lambda top: (datasets.epinions, layouts.massa(top)),
    "movietweetings": lambda top: (datasets.movietweetings, layouts.movietweetings(top)),
    "recbole": lambda top: (datasets.recbole, layouts.recbole(top)),
    "anime": lambda top: (datasets.anime, layouts.anime(top)),
}


@pytest.mark.parametrize("name", READERS)
def test_archives_say_the_same_as_folders(name, tmp_path):
    reader, folder = READERS[name](tmp_path / "data")
    plain = reader(folder)
    for packed in (layouts.zipped(folder, tmp_path / "a.zip"), layouts.tarred(folder, tmp_path / "a.tar.gz")):
        data = reader(packed)
        assert data.ratings.equals(plain.ratings)
        for part in ("items", "users", "trust"):
            one, two = getattr(data, part), getattr(plain, part)
            assert (one is None and two is None) or one.equals(two), part


@pytest.mark.parametrize("name", READERS)
def test_every_reader_keeps_the_promises_of_a_dataset(name, tmp_path):
    reader, folder = READERS[name](tmp_path / "data")
    data = reader(folder)
    frame = data.ratings
    assert {"user", "item", "rating"} <= set(frame)
    assert frame["rating"].dtype == np.float64
    assert "time" not in frame or str(frame["time"].dtype) == "datetime64[s]"
    assert frame.index.equals(frame.reset_index(drop=True).index)
    assert data.items is None or (data.items.columns[0] == "item" and data.items["item"].is_unique)
    assert data.users is None or (data.users.columns[0] == "user" and data.users["user"].is_unique)
    assert data.trust is None or list(data.trust) == ["truster", "trustee"]
    assert repr(data).startswith(f"Dataset {data.name}: {len(frame)} ratings of {frame['user'].nunique()} users")
    assert len(reader(folder, max_rows=1).ratings) == 1
    first = frame["user"].iloc[0]
    kept = reader(folder, keep=lambda block: block["user"] == first).ratings
    assert kept.equals(frame[frame["user"] == first].reset_index(drop=True))
    wrong = tmp_path / "empty"
    wrong.mkdir()
    with pytest.raises(DataError, match=r"no .* found \(looked for .*it has: nothing"):
        reader(wrong)


def test_amazon_without_header(tmp_path):
    old = datasets.amazon(layouts.amazon_2014(tmp_path), strict=True).ratings
    assert old["user"].tolist() == ["A1YS9MDZP93857", "A3TS466QBAWB9D", "A3BUDYITWUSIS7"]
    assert old["item"].tolist() == ["0006428320", "0014072149", "0041291905"], "leading zeros stay"
    new = datasets.amazon(layouts.amazon_2018(tmp_path), strict=True).ratings
    assert new[["user", "item", "rating", "time"]].equals(old.iloc[:2]), "2018 puts the item first"
    assert old["time"][0] == np.datetime64("2014-03-11T00:00:00")


def test_amazon_order_that_cannot_be_told(tmp_path):
    file = layouts.write(tmp_path / "x.csv", "A123456789,B123456789,3.0,1394496000\n")
    with pytest.raises(DataError, match=r"say order='user,item' .*or order='item,user'"):
        datasets.amazon(file)
    assert datasets.amazon(file, order="user,item").ratings["user"].tolist() == ["A123456789"]
    assert datasets.amazon(file, order="item,user").ratings["user"].tolist() == ["B123456789"]
    with pytest.raises(DataError, match="order must be"):
        datasets.amazon(file, order="user")


def test_amazon_2023_csv_has_milliseconds(tmp_path):
    data = datasets.amazon(layouts.gzipped(layouts.amazon_2023(tmp_path)))
    assert data.name == "All_Beauty"
    assert data.ratings["time"].tolist()[0].isoformat() == "2020-05-05T14:08:48"
    assert data.ratings["item"].tolist() == ["B00YQ6X8EO", "B081TJ8YS3"]


def test_amazon_2023_reviews_and_products(tmp_path):
    data = datasets.amazon(layouts.amazon_2023_reviews(tmp_path), strict=True)
    assert data.ratings["item"].tolist() == ["B00YQ6X8EO", "B081TJ8YS3"], "the parent, not the variant"
    assert data.ratings["rating"].tolist() == [5, 1]
    assert str(data.ratings["time"][1]) == "2020-05-04 18:10:55"
    items = data.items.set_index("item")
    assert items.index.tolist() == ["B00YQ6X8EO", "B081TJ8YS3"], "rated products only"
    assert items.loc["B00YQ6X8EO", "categories"] == "Hair|Spray"
    assert items["price"].tolist()[0] == 13.99
    assert np.isnan(items["price"].tolist()[1])
    assert items["store"].tolist() == ["Howard", ""]


def test_amazon_meta_in_a_file_of_its_own(tmp_path):
    layouts.amazon_2023_reviews(tmp_path)
    other = tmp_path / "elsewhere"
    other.mkdir()
    meta = layouts.gzipped(tmp_path / "meta_All_Beauty.jsonl").rename(other / "meta_All_Beauty.jsonl.gz")
    data = datasets.amazon(tmp_path / "All_Beauty.jsonl", meta=meta)
    assert data.items["title"].tolist() == ["Hair Spray", "Brush"]


def test_amazon_reviews_of_2014(tmp_path):
    review = {"reviewerID": "A1YS9MDZP93857", "asin": "0006428320", "overall": 3.0, "unixReviewTime": 1394496000}
    meta = {"asin": "0006428320", "title": "Sax", "price": 65.5, "categories": [["Books", "Music"], ["Books", "Art"]]}
    layouts.write(tmp_path / "reviews_X_5.json", json.dumps(review) + "\n")
    layouts.write(tmp_path / "meta_X.json", json.dumps(meta) + "\n")
    data = datasets.amazon(tmp_path)
    assert data.ratings["time"].tolist()[0].isoformat() == "2014-03-11T00:00:00"
    assert data.items["categories"].tolist() == ["Books|Music|Art"]


def test_amazon_folder_of_categories(tmp_path):
    layouts.amazon_2023(tmp_path, "Books.csv")
    layouts.gzipped(layouts.amazon_2023(tmp_path, "Music.csv"))
    data = datasets.amazon(tmp_path)
    assert data.ratings["domain"].tolist() == ["Books", "Books", "Music", "Music"], (
        "Music.csv.gz is the same file again"
    )
    assert data.problems == {}, "the same pair in two domains is no repeat"


def test_netflix_both_layouts(tmp_path):
    films = datasets.netflix(layouts.netflix_movies(tmp_path / "a"), strict=True)
    combined = datasets.netflix(layouts.netflix_combined(tmp_path / "b"), strict=True)
    assert films.ratings.equals(combined.ratings)
    assert films.ratings[["user", "item", "rating"]].to_numpy().tolist() == [
        [1488844, 1, 3], [822109, 1, 5], [1488844, 2, 4], [822109, 10, 1],
    ]  # fmt: skip
    assert films.ratings["time"][3] == np.datetime64("2004-12-31")
    assert films.items is None
    assert combined.items["title"].tolist() == ["Dinosaur Planet", "Isle of Man TT, 2004 Review", "Fräulein"]
    assert combined.items["year"].isna().tolist() == [False, True, False]


def test_netflix_as_it_was_distributed(tmp_path):
    """A .tar of the films inside the .tar.gz."""
    layouts.netflix_movies(tmp_path)
    top = tmp_path / "download"
    top.mkdir()
    layouts.tarred(tmp_path / "training_set", top / "training_set.tar", "w")
    layouts.write(top / "movie_titles.txt", "1,2003,Dinosaur Planet\n")
    data = datasets.netflix(layouts.tarred(top, tmp_path / "nf_prize_dataset.tar.gz"))
    assert data.name == "nf_prize_dataset"
    assert data.ratings["item"].tolist() == [1, 1, 2, 10]
    assert data.items["title"].tolist() == ["Dinosaur Planet"]


@pytest.mark.parametrize("size", [4, 9, 25, 40, 64, 1000])
def test_netflix_headings_at_any_cut_and_bad_lines(size, tmp_path, monkeypatch):
    from bayesrec.datasets import tables

    monkeypatch.setattr(tables.blocks, "__defaults__", (size,))
    text = "5,3,2005-09-06\n1:\n7,3,2005-09-06\noops\n8,4,2005-09-07\n2:\n3:\n7,5,2005-13-01\n9,1,2005-01-01\n"
    file = layouts.write(tmp_path / "combined_data_1.txt", text.replace("\n", "\r\n"))
    data = datasets.netflix(file)
    assert data.ratings[["user", "item"]].to_numpy().tolist() == [[7, 1], [8, 1], [9, 3]]
    assert data.problems == {f"malformed lines, dropped (first: {file}, line 1)": 3}


def test_yelp(tmp_path):
    data = datasets.yelp(layouts.yelp(tmp_path), friends=True, strict=True)
    assert data.ratings["rating"].tolist() == [3, 5]
    assert str(data.ratings["time"][0]) == "2018-07-07 00:00:00"
    assert data.items["categories"].tolist() == ["Restaurants|Coffee & Tea"], "rated businesses only"
    assert "name" not in data.users
    assert data.users["review_count"].tolist() == [585, 3]
    assert data.trust.to_numpy().tolist() == [["mh_-eMZ6K5RLWhZyISBhwA", "OyoGAe7OKpv6SyGZT5g77Q"]]
    assert datasets.yelp(tmp_path).trust is None


def test_yelp_tar_in_zip_and_old_lists_of_friends(tmp_path):
    layouts.yelp(tmp_path / "yelp")
    user = tmp_path / "yelp/yelp_academic_dataset_user.json"
    rows = [json.loads(line) for line in user.read_text().splitlines()]
    rows[1]["friends"] = [rows[0]["user_id"], "stranger"]
    layouts.write(user, "".join(json.dumps(row) + "\n" for row in rows))
    tar = layouts.tarred(tmp_path / "yelp", tmp_path / "yelp_dataset.tar", "w")
    with zipfile.ZipFile(tmp_path / "Yelp-JSON.zip", "w") as pack:
        pack.write(tar, "Yelp JSON/yelp_dataset.tar")
    data = datasets.yelp(tmp_path / "Yelp-JSON.zip", friends=True)
    assert len(data.ratings) == 2
    assert len(data.trust) == 2


def test_douban_layouts(tmp_path):
    folder = layouts.douban(tmp_path)
    data = datasets.douban(folder, strict=True)
    assert data.ratings.groupby("domain").size().to_dict() == {"book": 3, "music": 2}
    assert data.problems == {}, "item 1630 of book is not item 1630 of music"
    assert "on 5 items" in repr(data)
    other = tmp_path / "Data"
    for name in ("book", "music"):
        (other / f"douban_{name}").mkdir(parents=True)
        shutil.copy(folder / f"{name}_ratings.dat", other / f"douban_{name}/ratings.dat")
    assert datasets.douban(other).ratings.equals(data.ratings)
    assert datasets.douban(other / "douban_music").ratings["domain"].tolist() == ["music", "music"]
    assert datasets.douban(folder / "music_ratings.dat").ratings["item"].tolist() == [3601, 1630]


def test_douban_reviews_with_header(tmp_path):
    text = 'user_id\tbook_id\trating\tlabels\tcomment\ttime\tID\n1\t1630\t4\t"a|b"\t"so ""good"""\t2008-01-01\t0\n'
    data = datasets.douban(layouts.write(tmp_path / "bookreviews_cleaned.txt", text))
    assert data.ratings.to_dict("records") == [{"user": 1, "item": 1630, "rating": 4.0, "domain": "book"}]


def test_douban_without_domain_in_the_name(tmp_path):
    with pytest.raises(DataError, match=r"no domain \(book, movie, music\) in the name"):
        datasets.douban(layouts.write(tmp_path / "ratings.dat", "1\t2\t3\n"))


@pytest.mark.parametrize(
    ("reader", "make"),
    [
        (datasets.ciao, layouts.ciao),
        (datasets.ciao, layouts.ciaodvd),
        (datasets.epinions, layouts.massa),
        (datasets.epinions, layouts.tang),
        (datasets.epinions, lambda top: layouts.tang(top, times=False)),
    ],
)
def test_ciao_and_epinions(reader, make, tmp_path):
    data = reader(make(tmp_path), strict=True)
    assert data.ratings[["user", "item", "rating"]].to_numpy().tolist() == [[1, 92579, 5], [2, 77965, 4], [2, 92579, 1]]
    assert str(data.ratings["user"].dtype) == "int64"
    assert data.trust.to_numpy().tolist() == [[1, 2], [2, 1]]
    if "helpfulness" in data.ratings:
        assert data.ratings["category"].tolist() == [24, 4, 24]
        assert data.ratings["helpfulness"].tolist() == [4, 0, 4]
    if "time" in data.ratings:
        assert str(data.ratings["time"][0])[:10] == "2000-05-30"


def test_trust_is_cleaned_and_counted(tmp_path):
    folder = layouts.ciaodvd(tmp_path)
    layouts.write(folder / "trusts.txt", "1,2,1\n1,2,1\n3,3,1\n2,1,-1\noops\n5,6,1\n")
    data = datasets.ciao(folder)
    assert data.trust.to_numpy().tolist() == [[1, 2], [5, 6]]
    assert sorted(data.problems.values()) == [1, 1, 1, 1]
    assert [key.split(" (")[0] for key in data.problems] == [
        "malformed lines, dropped",
        "statements without trust, dropped",
        "users who trust themselves, dropped",
        "repeated trust edges, dropped",
    ]


def test_matlab_messes(tmp_path):
    from scipy.io import savemat

    rows = np.array(
        [
            [1, 5, 1, 0, 1, 9e8],
            [1, 6, 1, 3, 1, 9e8],
            [1, 7, 1, 3, 1, 9e8],
            [1.5, 6, 1, 3, 1, 9e8],
            [2, np.nan, 1, 3, 1, 9e8],
        ]
    )
    savemat(tmp_path / "rating_with_timestamp.mat", {"rating": rows, "note": "x"})
    data = datasets.ciao(tmp_path)
    assert data.ratings["item"].tolist() == [6, 7]
    assert sorted(data.problems.values()) == [1, 2]
    savemat(tmp_path / "rating_with_timestamp.mat", {"rating": rows[:, :3]})
    with pytest.raises(DataError, match="5 or 6 columns, this one 3"):
        datasets.ciao(tmp_path)
    savemat(tmp_path / "rating_with_timestamp.mat", {"note": "x"})
    with pytest.raises(DataError, match="holds no matrix"):
        datasets.ciao(tmp_path)


def test_a_truncated_matlab_file_is_named(tmp_path):
    folder = layouts.tang(tmp_path)
    file = folder / "rating_with_timestamp.mat"
    whole = file.read_bytes()
    for cut in (0, 20, 100, 150, len(whole) - 10):
        file.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"rating_with_timestamp.mat"):
            datasets.epinions(folder)


def test_movietweetings_has_zeros_and_imdb_numbers(tmp_path):
    data = datasets.movietweetings(layouts.movietweetings(tmp_path), strict=True)
    assert data.ratings["rating"].tolist() == [8, 0, 10], "0 is a rating here"
    assert data.ratings["item"].tolist() == [114508, 208092, 114508]
    assert data.items["title"].tolist()[1] == "Fantômas - À l'ombre (1913)"
    assert data.users["twitter"].tolist() == ["139564917", "522540374"]


def test_recbole_types(tmp_path):
    data = datasets.recbole(layouts.recbole(tmp_path))
    assert data.ratings["item"].tolist() == ["Heat (1995)", "Heat (1995)", "007"]
    assert str(data.ratings["time"][1]) == "1997-12-04 15:55:50"
    assert data.items["class"].tolist() == ["Action|Crime", "Action"]
    assert data.items["release_year"].tolist()[0] == 1995
    assert np.isnan(data.items["release_year"].tolist()[1])
    assert data.users["age"].tolist() == [24, 53]
    assert data.trust.to_numpy().tolist() == [["u1", "u2"]]
    assert list(data.problems.values()) == [1]


def test_recbole_fields_by_name(tmp_path):
    file = layouts.write(tmp_path / "x.inter", "uid:token\tiid:token\tclick:float\nu\ti\t7\n")
    with pytest.raises(DataError, match=r"no field 'user_id'.*name the right one with user="):
        datasets.recbole(file)
    assert datasets.recbole(file, user="uid", item="iid").ratings["rating"].tolist() == [1.0], "clicks count 1"
    assert datasets.recbole(file, user="uid", item="iid", rating="click").ratings["rating"].tolist() == [7.0]
    layouts.write(file, "user_id\titem_id\nu\ti\n")
    with pytest.raises(DataError, match="no typed header"):
        datasets.recbole(file)


def test_recbole_folder_of_domains(tmp_path):
    for name in ("a", "b"):
        layouts.write(tmp_path / f"{name}.inter", "user_id:token\titem_id:token\nu\ti\n")
    assert datasets.recbole(tmp_path).ratings["domain"].tolist() == ["a", "b"]


def test_anime(tmp_path):
    data = datasets.anime(layouts.anime(tmp_path))
    assert data.ratings[["user", "item", "rating"]].to_numpy().tolist() == [[1, 24, 8], [3, 20, 10]]
    assert [key.split(" (first")[0] for key in data.problems] == ["watched but not rated (-1), dropped"]
    assert data.items["genres"].tolist() == ["Action|Comedy", "Comedy|School"]
    assert data.items["name"].tolist() == ["Naruto, TV", "School Rumble"]


def test_netflix_lines_are_counted_from_the_top(tmp_path):
    file = layouts.write(tmp_path / "combined_data_1.txt", "\n\n1:\n7,3,2005-09-06\noops\n")
    assert datasets.netflix(file).problems == {f"malformed lines, dropped (first: {file}, line 5)": 1}


def test_recbole_numbers_that_are_none(tmp_path):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    rows = "a\tx\t3\t9\nb\tx\tinf\t9\nc\tx\tnan\t9\nd\tx\t3\tnan\ne\tx\t1\t9\nf\tx\t1\t9\n"
    data = datasets.recbole(layouts.write(tmp_path / "x.inter", header + rows))
    assert data.ratings["user"].tolist() == ["a", "e", "f"]
    assert sorted(data.problems.values()) == [1, 2]


def test_recbole_lines_whose_errors_cancel(tmp_path):
    """A missing last token and a superfluous one: the number of tabs is right."""
    file = layouts.write(tmp_path / "x.inter", "user_id:token\titem_id:token\na\tx\nb\tx\nc\nd\tx\ty\n")
    data = datasets.recbole(file)
    assert data.ratings["user"].tolist() == ["a", "b"]
    assert data.problems == {f"malformed lines, dropped (first: {file}, line 4)": 2}


def test_cdrib_tells_apart_who_is_not_shared_and_keeps_the_splits(tmp_path):
    folder = layouts.cdrib(tmp_path)
    data = datasets.cdrib(folder, strict=True)
    frame = data.ratings
    assert data.name == "game_video"
    assert frame["split"].tolist() == ["train"] * 5 + ["valid", "test"] + ["train"] * 5 + ["valid", "test", "test"]
    assert frame["user"].tolist()[:5] == ["game:4", "game:4", "0", "1", "2"]
    assert frame["user"].tolist()[7:12] == ["video:4", "video:5", "0", "3", "3"]
    train, valid, test = datasets.by_split(data, "video", "game", value=None)
    assert (train.sources, train.target, len(train), len(valid), len(test)) == (("video",), "game", 10, 1, 1)
    assert test.to_frame().to_dict("list") == {"user": ["3"], "item": [1], "domain": ["game"]}
    assert train.users == test.users
    other = datasets.by_split(
        datasets.cdrib(folder, "video_game"), "game", "video", value=None, splits=("train", "test")
    )
    assert [len(part) for part in other] == [10, 2]


def test_cdrib_needs_both_folders_of_a_pair_and_one_pair(tmp_path):
    folder = layouts.cdrib(tmp_path)
    with pytest.raises(DataError, match=r"no folder 'game_vide' .*did you mean 'game_video'"):
        datasets.cdrib(folder, "game_vide")
    with pytest.raises(DataError, match=r"looked for train\.txt"):
        datasets.cdrib(folder / "game_video")
    for name in ("cloth_sport", "sport_cloth"):
        shutil.copytree(folder / "game_video", folder / name)
    with pytest.raises(DataError, match="several pairs"):
        datasets.cdrib(folder)
    shutil.rmtree(folder / "sport_cloth")
    with pytest.raises(DataError, match="a pair needs both"):
        datasets.cdrib(folder, "cloth_sport")


def test_by_split_names_what_is_not_there(tmp_path):
    data = datasets.cdrib(layouts.cdrib(tmp_path))
    with pytest.raises(DataError, match="domain 'vide'"):
        datasets.by_split(data, "vide", "game")
    with pytest.raises(DataError, match="split 'dev'"):
        datasets.by_split(data, "video", "game", splits=("train", "dev"))
    with pytest.raises(DataError, match="no column 'split'"):
        datasets.by_split(datasets.douban(layouts.douban(tmp_path)), "book", "music")
