"""What real files are like: each mess is survived, counted with its place, and refused in strict mode."""

from __future__ import annotations

import datasets_layouts as layouts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesrec import datasets
from bayesrec.datasets import tables
from bayesrec.datasets.common import Problems
from bayesrec.errors import DataError

GOOD = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n22\t377\t1\t878887116\n"


def read(tmp_path, text, **options):
    return datasets.movielens(layouts.write(tmp_path / "u.data", text), **options)


@pytest.mark.parametrize(
    "bad",
    [
        "196\t242\t3",  # a field short
        "196\t242\t3\t881250949\t7",  # one too many
        "196\t242\tthree\t881250949",
        "x\t242\t3\t881250949",
        "1.5\t242\t3\t881250949",
        "1_0\t242\t3\t881250949",
        "\t242\t3\t881250949",
        "99999999999999999999\t242\t3\t881250949",
        "nan\t242\t3\t881250949",
        "inf\t242\t3\t881250949",
        "\x00\x01\x02",
        '"196\t242\t3\t881250949',  # a quote that never ends
    ],
)
def test_a_malformed_line_is_dropped_and_counted(bad, tmp_path):
    lines = GOOD.splitlines()
    text = "\n".join([*lines[:2], bad, lines[2]]) + "\n"
    data = read(tmp_path, text)
    assert data.ratings["user"].tolist() == [196, 186, 22]
    assert data.problems == {f"malformed lines, dropped (first: {tmp_path}/u.data, line 3)": 1}
    with pytest.raises(DataError, match=r"u.data, line 3: malformed"):
        read(tmp_path, text, strict=True)


def test_errors_that_cancel_are_seen(tmp_path):
    """One line a field short and one with a field too many have together the right number of separators."""
    data = read(tmp_path, GOOD + "1\t2\t3\n1\t2\t3\t4\t5\n")
    assert list(data.problems.values()) == [2]
    assert len(data.ratings) == 3


def test_line_ends_marks_and_blank_lines_cost_nothing(tmp_path):
    plain = read(tmp_path, GOOD)
    for text in (
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        ("\ufeff" + GOOD).replace("\n", "\r\n").rstrip(),
        GOOD.rstrip("\n"),
        GOOD.replace("\n", "\n\n"),
        "\n" + GOOD,
    ):
        data = read(tmp_path, text, strict=True)
        assert data.ratings.equals(plain.ratings), repr(text)
        assert data.problems == {}


@pytest.mark.parametrize("size", [1, 7, 30, 31, 64, 1000])
def test_blocks_are_whole_lines_wherever_the_file_is_cut(size, tmp_path):
    text = ("\ufeff" + GOOD * 3).replace("\n", "\r\n").encode()
    file = layouts.write(tmp_path / "x", text)
    with file.open("rb") as stream:
        found = list(tables.blocks(stream, "x", max(size, 3)))
    assert b"".join(found) == (GOOD * 3).encode()
    assert all(block.endswith(b"\n") for block in found)


def test_lines_are_counted_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_BLOCK", 64)
    monkeypatch.setattr(tables.blocks, "__defaults__", (64,))
    rows = [f"{k}\t1\t3\t881250949" for k in range(100)]
    rows[57] = "oops"
    data = read(tmp_path, "\n".join(rows) + "\n")
    assert data.problems == {f"malformed lines, dropped (first: {tmp_path}/u.data, line 58)": 1}
    assert data.ratings["user"].tolist() == [k for k in range(100) if k != 57]
    assert read(tmp_path, "\n".join(rows) + "\n", max_rows=70).ratings["user"].max() == 70


def test_ratings_out_of_scale_and_zeros(tmp_path):
    extra = "1\t1\t0\t881250949\n1\t2\t6\t881250949\n1\t3\t-1\t881250949\n1\t4\tnan\t881250949\n1\t5\tinf\t881250949\n"
    data = read(tmp_path, GOOD + extra)
    assert len(data.ratings) == 3
    assert data.problems == {
        f"zero ratings, dropped (first: {tmp_path}/u.data, line 4)": 1,
        f"ratings outside 0.5 to 5, dropped (first: {tmp_path}/u.data, line 5)": 4,
    }
    with pytest.raises(DataError, match=r"line 4: zero ratings"):
        read(tmp_path, GOOD + extra, strict=True)
    with pytest.raises(DataError, match=r"line 4: ratings outside"):
        read(tmp_path, GOOD + extra.splitlines()[1], strict=True)


def test_of_a_repeated_pair_the_newest_stays(tmp_path):
    text = "1\t1\t3\t900000000\n1\t2\t3\t900000001\n1\t1\t5\t900000002\n1\t1\t4\t900000001\n1\t2\t1\t900000001\n"
    data = read(tmp_path, text)
    assert data.ratings[["item", "rating"]].to_numpy().tolist() == [[1, 5], [2, 1]], "of equally old ones the last"
    assert data.problems == {"repeated (user, item) rows, the newest kept": 3}
    with pytest.raises(DataError, match=r"u.data, line 1: repeated"):
        read(tmp_path, text, strict=True)


def test_repeats_against_a_loop(tmp_path):
    rng = np.random.default_rng(3)
    rows = [
        (u, i, r, 9 * 10**8 + t)
        for u, i, r, t in zip(*(rng.integers(1, 6, 200) for _ in range(3)), rng.integers(0, 9, 200), strict=True)
    ]
    newest = {}
    for u, i, r, t in rows:
        if (u, i) not in newest or newest[u, i][1] <= t:
            newest[u, i] = (r, t)
    data = read(tmp_path, "".join("\t".join(map(str, row)) + "\n" for row in rows))
    found = {
        (u, i): (r, t)
        for u, i, r, t in data.ratings.assign(time=data.ratings["time"].astype("int64")).to_numpy().tolist()
    }
    assert found == newest
    assert list(data.problems.values()) == [200 - len(newest)]


def test_undecodable_bytes_are_read_as_latin1_and_counted(tmp_path):
    folder = layouts.movietweetings(tmp_path)
    layouts.write(folder / "movies.dat", "0114508::Fantômas (1913)::Crime\n0208092::Á (1990)::Drama\n", "latin-1")
    data = datasets.movietweetings(folder)
    assert data.items["title"].tolist() == ["Fantômas (1913)", "Á (1990)"]
    assert data.problems == {f"lines that are not UTF-8, read as Latin-1 (first: {folder}/movies.dat, line 1)": 2}
    with pytest.raises(DataError, match=r"movies.dat, line 1: lines that are not UTF-8"):
        datasets.movietweetings(folder, strict=True)


def test_utf16_is_named(tmp_path):
    with pytest.raises(DataError, match=r"u.data is in UTF-16; convert it to UTF-8"):
        read(tmp_path, GOOD.encode("utf-16"))


@pytest.mark.parametrize("text", ["", "\n\n", "a\tb\n" * 50, b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20])
def test_a_file_of_something_else(text, tmp_path):
    with pytest.raises(DataError, match=r"u.data: (no ratings|more malformed lines than ratings)"):
        read(tmp_path, text)


def test_mostly_malformed_is_something_else(tmp_path):
    with pytest.raises(DataError, match="more malformed lines than ratings"):
        read(tmp_path, GOOD + "oops\n" * 4)
    assert len(read(tmp_path, GOOD + "oops\n" * 3).ratings) == 3
    assert len(read(tmp_path, GOOD + "oops\n" * 3, max_rows=1).ratings) == 1, "what is left out counts as good"
    assert len(read(tmp_path, GOOD + "oops\n" * 3, keep=lambda block: block["user"] == 22).ratings) == 1


def test_items_and_users_have_messes_too(tmp_path):
    folder = layouts.ml_csv(tmp_path)
    with (folder / "movies.csv").open("a") as out:
        out.write("oops\n17,Again (1995),Drama\nx,No Number,Drama\n")
    data = datasets.movielens(folder)
    assert data.items["item"].tolist() == [17, 25, 26]
    assert data.problems == {
        "malformed lines of movies.csv, dropped (first: line 5)": 2,
        "repeated ids in movies.csv, the first kept": 1,
    }
    with pytest.raises(DataError, match="malformed lines of movies"):
        datasets.movielens(folder, strict=True)


def test_one_broken_json_line(tmp_path):
    folder = layouts.amazon_2023_reviews(tmp_path)
    file = folder / "All_Beauty.jsonl"
    lines = file.read_text().splitlines()
    layouts.write(file, "\n".join([lines[0], lines[1][:40], "[1, 2]", '{"rating": 3}', "", lines[1]]) + "\n")
    with file.open("a") as out:
        out.write(lines[0].replace("B00YQ6X8EO", "B00YQ6X8E2") + "\n")
    data = datasets.amazon(folder)
    assert len(data.ratings) == 3
    assert data.problems == {
        f"broken JSON lines, dropped (first: {file}, line 2)": 2,
        f"malformed lines, dropped (first: {file}, line 4)": 1,
    }
    with pytest.raises(DataError, match=r"All_Beauty.jsonl, line 2: broken JSON"):
        datasets.amazon(folder, strict=True)


def test_a_json_array_is_named(tmp_path):
    file = layouts.write(tmp_path / "All_Beauty.jsonl", '[{"rating": 3}]')
    with pytest.raises(DataError, match="one JSON array"):
        datasets.amazon(file)


@pytest.mark.parametrize("kind", ["int", "float", "str", "date"])
def test_the_fast_and_the_slow_parser_agree(kind):
    spec = tables.Spec.of("\t", a="int", b=kind)
    second = {"int": "-5", "float": "2.5", "str": "Müller ab", "date": "2005-09-06"}[kind]
    data = f"1\t{second}\n22\t{second}\n".encode()
    numbers = np.array([5, 6])
    fast, lines = tables.parse(data, numbers, spec, Problems(), "x")
    assert tables._parse_fast(data, 2, spec) is not None
    slow, kept = tables.parse(data + b"\n", np.array([5, 6, 7]), spec, Problems(), "x")
    assert tables._parse_fast(data + b"\n", 3, spec) is None
    assert fast.equals(slow)
    assert fast.dtypes.equals(slow.dtypes)
    assert lines.tolist() == kept.tolist() == [5, 6]


WORDS = {
    "int": ["1", "-5", "007", "+7", " 3", "3.0", "1e3", "", "x", "1_0", "0x1f", "9223372036854775808", "nan", "-0", "1 2"],
    "float": ["2.5", ".5", "5.", "-1e-3", "1e400", "nan", "inf", "+2", " 2", "", "1_0", "NULL", "True", "0x10", "1,5"],
    "str": ["a", "NA", "null", "", " a", "a ", "ü", "#x", "'q", "a\x00b", "\\N", "a\rb", "-"],
    "date": ["2005-09-06", "2005-09-06 10:00:00", "2005-9-6", "2005-13-01", "", "9999-12-31", "20050906", "2005-02-30",
             "2005-09- 6", "NaT", "2005-W01-1", "-005-01-01"],
}  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_what_the_fast_parser_takes_the_slow_one_reads_the_same(data):
    """The fast one may decline a block; what it does not decline must be exactly the lines, one by one."""
    sep = data.draw(st.sampled_from(["\t", ",", "::", " "]))
    kinds = data.draw(st.lists(st.sampled_from(list(WORDS)), min_size=1, max_size=3))
    fields = st.tuples(*(st.one_of(st.just(WORDS[kind][0]), st.sampled_from(WORDS[kind])) for kind in kinds))
    lines = [sep.join(line) for line in data.draw(st.lists(fields, min_size=1, max_size=3))]
    spec = tables.Spec(sep, len(kinds), tuple((k, f"c{k}", kind) for k, kind in enumerate(kinds)))
    block = ("\n".join(lines) + "\n").encode()
    fast = tables._parse_fast(block, len(lines), spec)
    if fast is not None:
        slow, kept = tables.parse(block + b"\n", np.arange(len(lines) + 1), spec, Problems(), "x")
        assert kept.tolist() == list(range(len(lines)))
        assert fast.equals(slow)


def test_quoted_fields(tmp_path):
    file = layouts.write(tmp_path / "ratings.csv", layouts.CIAO + '"1","92579","24","5","4","959670000"\n')
    data = datasets.ciao(file)
    assert data.ratings[["user", "item", "category"]].to_numpy().tolist() == [[1, 92579, 24]]
    assert data.problems == {}


@pytest.mark.parametrize(
    "text",
    ["AAAAAAAAAAAAA, B000000001 ,3.0,9\n", " AAAAAAAAAAAAA,B000000001,3.0,9\n", "AAAAAAAAAAAAA , B000000001,3.0,9 \n"],
)
def test_blanks_around_an_id_are_no_part_of_it(text, tmp_path):
    head = "user_id,parent_asin,rating,timestamp\n"
    data = datasets.amazon(
        layouts.write(tmp_path / "x.csv", head + "AAAAAAAAAAAAA,B000000002,3.0,9\n" + text), strict=True
    )
    assert data.ratings["user"].tolist() == ["AAAAAAAAAAAAA"] * 2
    assert data.ratings["item"].tolist() == ["B000000002", "B000000001"]
