"""Tables in files: every format round trips, ids keep their spelling, damage is told by file, line and row."""

from __future__ import annotations

import csv
import errno
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bayesrec as br
from bayesrec import tables
from bayesrec.errors import BayesrecError, DataError
from bayesrec.tables import Column, read_table, read_tables, write_table

SUFFIXES = [form + zipped for form in (".csv", ".tsv", ".jsonl", ".parquet") for zipped in ("", ".gz")]
WANTED = (Column("user", "id", "--user"), Column("item", "id", "--item"), Column("rating", "number", "--value"))


def file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def ratings():
    numbers = [0.1 + 0.2, 1e-300, np.pi, np.nextafter(4.0, 5.0), -0.0]
    return pd.DataFrame(
        {"user": [3, 1, 2, -5, 2**62], "item": ["007", "a,b", 'c"d', "e\nf", "g\th"], "rating": numbers}
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_back_the_same_bits(tmp_path, ratings, suffix):
    path = write_table(ratings, tmp_path / "deep" / f"t{suffix}")
    back = read_table(path, WANTED)
    assert back["user"].tolist() == ratings["user"].tolist()
    assert back["user"].dtype == np.int64
    assert back["item"].tolist() == ratings["item"].tolist()
    assert back["rating"].to_numpy().tobytes() == ratings["rating"].to_numpy().tobytes()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    if suffix.endswith(".gz"):
        assert path.read_bytes()[:2] == b"\x1f\x8b"
        assert path.read_bytes()[4:8] == bytes(4), "the time of day is in the file"


@pytest.mark.parametrize("suffix", [".csv", ".tsv.gz"])
def test_an_independent_reader_agrees(tmp_path, ratings, suffix):
    path = write_table(ratings, tmp_path / f"t{suffix}")
    opened = gzip.open if suffix.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", newline="") as text:
        theirs = [*csv.DictReader(text, delimiter="\t" if "tsv" in suffix else ",")]
    assert [(int(r["user"]), r["item"], float(r["rating"])) for r in theirs] == [
        *ratings.itertuples(index=False, name=None)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_any_text_is_an_id_that_survives_csv(tmp_path_factory, ids):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    write_table(pd.DataFrame({"user": ids, "n": range(len(ids))}), path)
    back = read_table(path, [Column("user", "id")])["user"]
    assert [str(x) for x in back] == ids
    assert (back.dtype == np.int64) == all(tables.whole(x) for x in ids)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["7", "0", "-3"], [7, 0, -3]),
        (["9223372036854775807", "-9223372036854775808"], [2**63 - 1, -(2**63)]),
        (["9223372036854775808", "1"], None),
        (["007", "8"], None),
        (["7", "+8"], None),
        (["7", "8.0"], None),
        (["7", "1e3"], None),
        (["-0", "1"], None),
        (["7", " 8"], None),
        (["7", "x"], None),
        (["NA", "nan"], None),  # people are called so
    ],
)
def test_ids_are_integers_only_if_all_are_written_so(tmp_path, words, expected):
    path = file(tmp_path, "a.csv", "\n".join(["user", *words]) + "\n")
    assert read_table(path, [Column("user", "id")])["user"].tolist() == (words if expected is None else expected)


def test_tables_that_are_read_together_decide_together(tmp_path):
    a, b = file(tmp_path, "a.csv", "user\n1\n2\n"), file(tmp_path, "b.csv", "user\n2\nx\n")
    ids = [Column("user", "id")]
    both = read_tables({"a": a, "b": b}, ids)
    assert [both["a"]["user"].tolist(), both["b"]["user"].tolist()] == [["1", "2"], ["2", "x"]]
    text = write_table(pd.DataFrame({"user": ["1", "9"]}), tmp_path / "c.parquet")
    assert read_tables({"a": a, "c": text}, ids)["a"]["user"].tolist() == ["1", "2"]
    number = write_table(pd.DataFrame({"user": [1, 9]}), tmp_path / "d.parquet")
    assert read_tables({"a": a, "d": number}, ids)["a"]["user"].tolist() == [1, 2]


def test_without_wanted_columns_kinds_are_guessed_and_007_stays(tmp_path):
    path = file(tmp_path, "a.csv", "a,b,c,d\n1,007,1.5,x\n2,8,,y\n")
    back = read_table(path)
    assert back[["a", "b", "d"]].values.tolist() == [[1, "007", "x"], [2, "8", "y"]]
    assert back["c"].iloc[0] == 1.5
    assert np.isnan(back["c"].iloc[1])
    typed = file(tmp_path, "a.jsonl", '{"a": "12"}\n{"a": "13"}\n')
    assert read_table(typed)["a"].tolist() == ["12", "13"], "JSON has types"


@pytest.mark.parametrize(
    "content",
    [
        b"user,item,rating\r\n1,a,4.5\r\n2,b,3\r\n",
        b"\xef\xbb\xbfuser,item,rating\n1,a,4.5\n2,b,3\n",
        b"\xef\xbb\xbfuser;item;rating\r\n1;a;4.5\r\n2;b;3\r\n",
        b"user\titem\trating\n1\ta\t4.5\n2\tb\t3",
        b"user, item, rating\n1,a,4.5\n\n2,b,3\n\n",
        b"\nextra,user,item,rating\n?,1,a,4.5\n?,2,b,3\n",
        b"user,item,rating\r1,a,4.5\r2,b,3\r",
    ],
)
def test_line_ends_marks_separators_and_spaces_do_not_matter(tmp_path, content):
    back = read_table(file(tmp_path, "a.csv", content), WANTED)
    assert back.to_dict("list") == {"user": [1, 2], "item": ["a", "b"], "rating": [4.5, 3.0]}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_jsonl_with_blank_lines_a_mark_and_missing_keys(tmp_path, end):
    content = "\ufeff" + end.join(['{"user": 1, "item": "a"}', "", '{"item": "b", "user": 2, "rating": "4.5"}', ""])
    back = read_table(file(tmp_path, "a.ndjson", content), WANTED)
    assert back["user"].tolist() == [1, 2]
    assert np.isnan(back["rating"].iloc[0])
    assert back["rating"].iloc[1] == 4.5


def test_numbers_and_times(tmp_path):
    path = file(tmp_path, "a.csv", "x,t,u\n1.5,2020-01-02,5\nNA,2020-01-02T03:04:05,6\n")
    back = read_table(path, [Column("x", "number"), Column("t", "time"), Column("u", "time")])
    assert np.isnan(back["x"].iloc[1])
    assert back["t"].tolist() == [pd.Timestamp("2020-01-02"), pd.Timestamp("2020-01-02 03:04:05")]
    assert back["u"].tolist() == [5, 6]
    with pytest.raises(DataError, match=r"a.csv', column 't', row 0 .*'2020-01-02' is no number"):
        read_table(path, [Column("t", "number")])
    with pytest.raises(DataError, match="column 'w' holds neither numbers nor ISO times"):
        read_table(file(tmp_path, "b.csv", "w\n5\nyesterday\n"), [Column("w", "time")])
    with pytest.raises(DataError, match=r"row 2 \(rows count from 0\): '3,5' is no number"):
        read_table(file(tmp_path, "c.csv", "w;v\n5;\n;1\n3,5;\n"), [Column("w", "number")])


def test_an_empty_id_is_missing_and_from_frame_names_its_row(tmp_path):
    path = file(tmp_path, "a.csv", "user,item,rating\n1,a,3\n,b,4\n")
    with pytest.raises(DataError, match=r"'user' has 1 missing value\(s\), the first in row 1"):
        br.Interactions.from_frame(read_table(path, WANTED), target="t", domain=None)


GOOD = pd.DataFrame({"user": [1, 2] * 500, "item": ["a", "b"] * 500, "rating": np.linspace(1, 5, 1000)})
DAMAGED = [
    ("a.csv.gz", lambda: gzip.compress(tables.to_bytes(GOOD, "csv"))[:-40], "damaged or cut short"),
    ("a.csv.gz", lambda: tables.to_bytes(GOOD, "csv"), "damaged or cut short"),
    ("a.csv.gz", lambda: gzip.compress(tables.to_bytes(GOOD, "csv"))[:60] + b"\0" * 90, "damaged or cut short"),
    ("a.parquet", lambda: tables.to_bytes(GOOD, "parquet")[:-100], "damaged or cut short"),
    ("a.parquet", lambda: tables.to_bytes(GOOD, "parquet")[:600], "damaged or cut short"),
    ("a.pq", lambda: b"user,item\n1,2\n", "no Parquet file"),
    ("a.parquet.gz", lambda: gzip.compress(b"PAR1"), "no Parquet file"),
    ("a.csv", lambda: tables.to_bytes(GOOD, "parquet"), "no CSV file"),
    ("a.csv", lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no CSV file"),
    ("a.jsonl", lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no JSONL file"),
    ("a.csv", lambda: "user,item,rating\n1,2,3\n".encode("utf-16"), "UTF-8"),
    ("a.csv", lambda: "user,item,rating\nJosé,2,3\n".encode("latin-1"), "UTF-8"),
    ("a.csv", lambda: "usér,item,rating\n1,2,3\n".encode("latin-1"), "UTF-8"),
    ("a.csv", lambda: b"", "is empty"),
    ("a.jsonl.gz", lambda: gzip.compress(b""), "is empty"),
    ("a.csv", lambda: b"\r\n \n", "is empty"),
    ("a.csv", lambda: b"\xef\xbb\xbf", "is empty"),
    ("a.csv", lambda: b"user,item,rating\n", "has no rows"),
    (
        "a.csv",
        lambda: b"user,item,rating\n1,2,3\n4,5\n",
        r"row 1 \(rows count from 0\) has 2 fields, its first line 3: '4,5'",
    ),
    ("a.csv", lambda: b'user,item,rating\n1,"2,3\n4,5,6\n', "row 0"),
    ("a.csv", lambda: b"user,item,user\n1,2,3\n", "two columns named 'user'"),
    ("a.csv", lambda: b"Dear reader\nthis is no table\n", "has no column 'user' for --user; it has Dear reader"),
    ("a.csv", lambda: b"usr,item,rating\n1,2,3\n", r"no column 'user' for --user \(did you mean 'usr'\?\)"),
    ("a.jsonl", lambda: b'{"user": 1}\n{"user": 2\n{"user": 3}\n', "line 2 is no JSON"),
    ("a.jsonl", lambda: b'{"user": 1}\n\n[1, 2]\n', "line 3 is no JSON object"),
    ("a.jsonl", lambda: b'{"user": "\xff"}\n', "line 1 is no JSON"),
]


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED)
def test_what_is_no_table_is_told_with_the_file(tmp_path, name, content, message):
    path = file(tmp_path, name, content())
    with pytest.raises(DataError, match=message) as caught:
        read_table(path, WANTED)
    assert name in str(caught.value)


def test_a_name_that_leads_nowhere_gets_the_nearest(tmp_path):
    file(tmp_path, "ratings.csv", "user\n1\n")
    with pytest.raises(DataError, match=r"no file .*ratigns.csv' \(did you mean 'ratings.csv'\?\)"):
        read_table(tmp_path / "ratigns.csv")
    with pytest.raises(DataError, match="there is no folder"):
        read_table(tmp_path / "nowhere" / "ratings.csv")
    with pytest.raises(DataError, match="is a folder; a table is expected"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.cvs", "did you mean '.csv'"), ("a.xlsx.gz", "'.xlsx'"), ("a", "no extension"), ("a.gz", "no extension")],
)
def test_unknown_extensions_are_refused_for_reading_and_writing(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        read_table(file(tmp_path, name, "user\n1\n"))
    with pytest.raises(DataError, match=message):
        write_table(GOOD, tmp_path / "new" / name)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("where", ["write_bytes", "replace"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl.gz", "a.parquet"])
def test_disk_full_leaves_the_old_file(tmp_path, monkeypatch, where, name):
    path = write_table(GOOD, tmp_path / name)
    before = path.read_bytes()

    def full(self, *rest):
        if where == "write_bytes":
            with open(self, "wb") as half:
                half.write(rest[0][: len(rest[0]) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, where, full)
    with pytest.raises(BayesrecError, match="the disk is full; what was there before is as it was"):
        write_table(GOOD.head(3), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path], "half a file was left behind"


def test_a_place_that_cannot_be_written(tmp_path):
    file(tmp_path, "a", "")
    with pytest.raises(BayesrecError, match="could not be written"):
        write_table(GOOD, tmp_path / "a" / "b.csv")


def test_records_hold_what_json_can():
    frame = pd.DataFrame(
        {"a": np.array([1.5, np.nan, np.inf]), "t": pd.to_datetime(["2020-01-01", None, "2021-01-01"])}
    )
    assert tables.records(frame) == [
        {"a": 1.5, "t": "2020-01-01 00:00:00"},
        {"a": None, "t": None},
        {"a": None, "t": "2021-01-01 00:00:00"},
    ]
    assert type(tables.plain(np.int64(3))) is int
    assert tables.plain(True) is True
