"""Random ratings written in each official layout are read back as they were, whatever the size of a block."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from bayesrec import datasets
from bayesrec.datasets import tables

N = 400


@pytest.fixture
def rows():
    """400 ratings of distinct pairs, times to the second."""
    rng = np.random.default_rng(5)
    pairs = rng.permutation(900)[:N]
    return pd.DataFrame(
        {
            "user": pairs // 30 + 1,
            "item": pairs % 30 + 1,
            "rating": rng.integers(1, 6, N) * 1.0,
            "time": (np.datetime64("2004-01-01", "s") + rng.integers(0, 10**8, N).astype("timedelta64[s]")),
        }
    )


def seconds(rows):
    return rows["time"].astype("datetime64[s]").astype("int64")


def text(rows, sep, columns, header=None, end="\n"):
    lines = [sep.join(map(str, line)) for line in zip(*columns, strict=True)]
    return end.join([*([header] if header else []), *lines]) + end


def whole(rows):
    return rows["rating"].astype(int)


def ml_100k(top, rows):
    (top / "u.data").write_text(text(rows, "\t", [rows["user"], rows["item"], whole(rows), seconds(rows)]))
    return datasets.movielens, rows


def ml_1m(top, rows):
    (top / "ratings.dat").write_text(text(rows, "::", [rows["user"], rows["item"], whole(rows), seconds(rows)]))
    return datasets.movielens, rows


def ml_10m(top, rows):
    """Half stars, written 5 and 4.5."""
    rows = rows.assign(rating=rows["rating"] - 0.5 * (rows["user"] % 2))
    stars = [f"{r:g}" for r in rows["rating"]]
    (top / "ratings.dat").write_text(text(rows, "::", [rows["user"], rows["item"], stars, seconds(rows)]))
    return datasets.movielens, rows


def ml_latest(top, rows):
    """Half stars, written 5.0 and 4.5; a header; Windows line ends as in the older editions."""
    rows = rows.assign(rating=rows["rating"] - 0.5 * (rows["user"] % 2))
    columns = [rows["user"], rows["item"], rows["rating"], seconds(rows)]
    content = text(rows, ",", columns, "userId,movieId,rating,timestamp", "\r\n")
    (top / "ratings.csv").write_bytes(content.encode())
    return datasets.movielens, rows


def named(rows):
    return rows.assign(user=[f"A{u:013d}" for u in rows["user"]], item=[f"{'B0'[i % 2]}{i:09d}" for i in rows["item"]])


def amazon_2014(top, rows):
    rows = named(rows)
    content = text(rows, ",", [rows["user"], rows["item"], rows["rating"], seconds(rows)])
    (top / "ratings_Books.csv").write_text(content)
    return datasets.amazon, rows


def amazon_2018(top, rows):
    rows = named(rows)
    content = text(rows, ",", [rows["item"], rows["user"], rows["rating"], seconds(rows)])
    (top / "Books.csv.gz").write_bytes(gzip.compress(content.encode()))
    return datasets.amazon, rows


def amazon_2023(top, rows):
    rows = named(rows)
    columns = [rows["user"], rows["item"], rows["rating"], seconds(rows) * 1000 + 123]
    (top / "Books.csv").write_text(text(rows, ",", columns, "user_id,parent_asin,rating,timestamp"))
    return datasets.amazon, rows


def amazon_reviews(top, rows):
    rows = named(rows)
    lines = [
        json.dumps(
            {"rating": row.rating, "title": "a", "text": "line\nend, \"quote\"", "asin": "B00VARIANT",
             "parent_asin": row.item, "user_id": row.user, "timestamp": int(t) * 1000, "verified_purchase": True}
        )
        for row, t in zip(rows.itertuples(), seconds(rows), strict=True)
    ]  # fmt: skip
    (top / "Books.jsonl.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return datasets.amazon, rows


def day(rows):
    return rows.assign(time=rows["time"].astype("datetime64[s]").dt.floor("D").astype("datetime64[s]"))


def netflix(top, rows):
    """Films in order, over two files."""
    rows = day(rows).sort_values("item", kind="stable").reset_index(drop=True)
    for part, own in rows.groupby(rows["item"] > 15):
        films = [
            f"{item}:\n" + text(film, ",", [film["user"], whole(film), film["time"].dt.strftime("%Y-%m-%d")])
            for item, film in own.groupby("item")
        ]
        (top / f"combined_data_{int(part) + 1}.txt").write_text("".join(films))
    return datasets.netflix, rows


def yelp(top, rows):
    rows = day(named(rows))
    lines = [
        json.dumps({"user_id": row.user, "business_id": row.item, "stars": row.rating, "text": "é\n",
                    "date": f"{row.time:%Y-%m-%d} 22:09:11"})
        for row in rows.itertuples()
    ]  # fmt: skip
    (top / "yelp_academic_dataset_review.json").write_text("\n".join(lines) + "\n")
    return datasets.yelp, rows


def douban(top, rows):
    rows = rows.drop(columns="time")
    parts = []
    for domain, own in rows.groupby(np.where(rows["user"] % 2, "book", "music")):
        (top / f"{domain}_ratings.dat").write_text(text(own, "\t", [own["user"], own["item"], whole(own)]))
        parts.append(own.assign(domain=domain))
    return datasets.douban, pd.concat(parts, ignore_index=True)


def ciao(top, rows):
    rows = rows.assign(category=rows["item"] % 28 + 1, helpfulness=(rows["user"] % 6) * 1.0)
    columns = ["user", "item", "category", "rating", "helpfulness", "time"]
    content = [rows["user"], rows["item"], rows["category"], whole(rows), rows["user"] % 6, seconds(rows)]
    (top / "ratings.csv").write_text(text(rows, ",", content, "user,item,category,rating,helpfulness,unix_time"))
    return datasets.ciao, rows[columns]


def tang(top, rows):
    from scipy.io import savemat

    rows = rows.assign(category=rows["item"] % 27 + 1, helpfulness=(rows["user"] % 6) * 1.0)
    columns = ["user", "item", "category", "rating", "helpfulness", "time"]
    matrix = rows[columns].assign(time=seconds(rows)).to_numpy(np.float64)
    savemat(top / "rating_with_timestamp.mat", {"rating_with_timestamp": matrix})
    return datasets.epinions, rows[columns]


def massa(top, rows):
    (top / "ratings_data.txt").write_text(text(rows, " ", [rows["user"], rows["item"], whole(rows)]))
    return datasets.epinions, rows.drop(columns="time")


def movietweetings(top, rows):
    rows = rows.assign(rating=(rows["rating"] - 1) * 2.5 // 1)
    columns = [rows["user"], [f"{i:07d}" for i in rows["item"]], whole(rows), seconds(rows)]
    (top / "ratings.dat").write_text(text(rows, "::", columns))
    return datasets.movietweetings, rows


def recbole(top, rows):
    rows = rows.assign(user=[f"{u:03d}" for u in rows["user"]], item=[f"Film No. {i} (1995)" for i in rows["item"]])
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    content = text(rows, "\t", [rows["user"], rows["item"], whole(rows), seconds(rows)], header)
    (top / "toy.inter").write_text(content)
    return datasets.recbole, rows


LAYOUTS = [
    ml_100k, ml_1m, ml_10m, ml_latest, amazon_2014, amazon_2018, amazon_2023, amazon_reviews, netflix, yelp, douban, ciao,
    tang, massa, movietweetings, recbole,
]  # fmt: skip


@pytest.mark.parametrize("size", [64, 1000, 1 << 23])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_is_read_back(layout, size, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(tables.blocks, "__defaults__", (size,))
    monkeypatch.setattr(tables, "_JSON_ROWS", 7 if size < 1000 else 100_000)
    reader, expected = layout(tmp_path, rows)
    data = reader(tmp_path, strict=True)
    names = [name for name in data.ratings if name in expected]
    assert set(names) == set(expected)
    found = data.ratings[list(expected)]
    kinds = {"user": "int64", "item": "int64"} if expected["user"].dtype.kind == "i" else {}
    pd.testing.assert_frame_equal(
        found, expected.reset_index(drop=True).astype(kinds), check_exact=True, check_dtype=bool(kinds)
    )
    assert data.problems == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_keep_and_max_rows_are_a_filter_and_a_head_of_the_whole(layout, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(tables.blocks, "__defaults__", (300,))
    reader, _ = layout(tmp_path, rows)
    every = reader(tmp_path).ratings
    some = reader(tmp_path, keep=lambda block: block["rating"] >= 4).ratings
    assert some.equals(every[every["rating"] >= 4].reset_index(drop=True))
    for n in (1, 37, N, N + 1):
        assert reader(tmp_path, max_rows=n).ratings.equals(every.head(n))
    both = reader(tmp_path, keep=lambda block: block["rating"] >= 4, max_rows=20).ratings
    assert both.equals(some.head(20))
