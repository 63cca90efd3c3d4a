"""Bad input as a user meets it: one line that names the file and the cure, exit code 2, and nothing lost."""

from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec import inference
from bayesrec.tables import read_table, write_table

SMALL = ("--target", "target", "--rank", 1, "--draws", 4, "--warmup", 3, "--chains", 1)


@pytest.fixture
def told(refused, model, tmp_path):
    """Give a table to every command that takes one: each must refuse it; returns the line of fit."""

    def call(path, *words):
        line = refused("fit", path, *SMALL, "--out", tmp_path / "m", *words)
        others = [
            refused("assess", path, *SMALL, *words),
            refused("predict", model, path),
            refused("report", model, "--test", path, "--no-verdict", "--out", tmp_path / "r.html"),
        ]
        assert [Path(path).name in one for one in (line, *others)] == [True] * 4
        assert not (tmp_path / "m").exists()
        assert not (tmp_path / "r.html").exists()
        return line

    return call


def damaged(frame, tmp_path, name, change):
    path = write_table(frame, tmp_path / name)
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("t.csv", lambda b: b"%PDF-1.7\n" + bytes(range(256)) * 9, "holds zero bytes, as pictures and UTF-16 do"),
        ("t.csv", lambda b: b"<html><body>Sign in</body></html>\n" * 3, "no column 'user'"),
        ("t.jsonl", lambda b: b"user,item\n1,2\n", "line 1 is no JSON"),
        ("t.jsonl", lambda b: b"[" * 100_000, "line 1 is no JSON"),
        ("t.jsonl", lambda b: b'{"user": ' + b"[" * 100_000, "line 1 is no JSON"),
        ("t.jsonl", lambda b: json.dumps([{"user": 1}]).encode(), "line 1 is no JSON object"),
        ("t.parquet", lambda b: b"user,item\n1,2\n", "is no Parquet file"),
        ("t.csv", lambda b: b"", "is empty"),
        ("t.csv", lambda b: b.splitlines()[0], "has no rows"),
        ("t.csv.gz", lambda b: b[: len(b) // 2], "damaged or cut short"),
        ("t.jsonl.gz", lambda b: b[:-4], "damaged or cut short"),
        ("t.parquet", lambda b: b[: len(b) // 2], "damaged or cut short"),
        ("t.parquet.gz", lambda b: gzip.compress(gzip.decompress(b)[:-50]), "damaged or cut short"),
        ("t.jsonl", lambda b: b.replace(b"}", b"", 1), "line 1 is no JSON"),
        ("t.jsonl", lambda b: b[: b.rindex(b":")], "is no JSON"),
        ("t.csv", lambda b: b + b"1,2\n", "has 2 fields, its first line 4: '1,2'"),
        ("t.csv", lambda b: b.replace(b"user", b"rating", 1), "has two columns named 'rating'"),
        ("t.zip.csv", lambda b: b"PK\x03\x04" + bytes(40), "holds zero bytes"),
    ],
)
def test_what_is_no_table_or_half_of_one(told, frame, tmp_path, name, change, message):
    assert message in told(damaged(frame, tmp_path, name, change))


@pytest.mark.parametrize("name", ["t.zip", "t.tar.gz", "t.xlsx", "t.json", "table"])
def test_a_file_of_another_kind_gets_the_list_of_kinds(told, tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    line = told(tmp_path / name)
    assert ".csv, .tsv, .jsonl" in line


def test_windows_line_ends_and_byte_order_marks_change_nothing(run, frame, folder, tmp_path):
    text = (folder / "ratings.csv").read_text()
    rows = "".join(json.dumps(row) + "\r\n" for row in frame.to_dict("records"))
    run("fit", folder / "ratings.csv", *SMALL, "--out", tmp_path / "plain")
    expected = br.load(tmp_path / "plain").draws
    for name, content in (
        ("a b.csv", "\ufeff" + text.replace("\n", "\r\n")),
        ("semi.csv", text.replace(",", ";").replace("\n", "\r\n")),
        ("mac.csv", text.replace("\n", "\r")),
        ("w.jsonl", "\ufeff" + rows),
        ("gaps.tsv", text.replace(",", "\t").replace("\n", "\r\n\r\n")),
    ):
        (tmp_path / name).write_bytes(content.encode())
        run("fit", tmp_path / name, *SMALL, "--out", tmp_path / "m")
        for site, draws in br.load(tmp_path / "m").draws.items():
            np.testing.assert_array_equal(draws, expected[site], err_msg=f"{name}, {site}")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("option", ["user", "item", "domain", "value"])
def test_an_option_that_names_no_column_gets_the_nearest(refused, frame, tmp_path, suffix, option):
    path = write_table(frame, tmp_path / f"t{suffix}")
    column = {"value": "rating"}.get(option, option)
    for command, more in (("fit", ("--out", tmp_path / "m")), ("assess", ())):
        line = refused(command, path, *SMALL, *more, f"--{option}", f"{column}s")
        assert f"no column '{column}s' for --{option} (did you mean '{column}'?); it has user, item, domain" in line


@pytest.mark.parametrize(("one", "two"), [("user", "item"), ("value", "user"), ("time", "item"), ("domain", "user")])
def test_a_column_for_two_roles_is_refused(refused, folder, tmp_path, one, two):
    words = (f"--{one}", two, f"--{two}", two, "--out", tmp_path / "m")
    line = refused("fit", folder / "ratings.csv", *SMALL, *words)
    assert f"column '{two}' is named for both" in line


def test_a_model_where_a_table_belongs_and_the_other_way_round(refused, model, folder, tmp_path):
    table, page = folder / "music.csv", tmp_path / "r.html"
    for words in (
        ("fit", model, *SMALL, "--out", tmp_path / "m"),
        ("fit", f"a={model}", *SMALL, "--out", tmp_path / "m"),
        ("assess", model, *SMALL),
        ("predict", model, model),
        ("recommend", model, "--users-file", model),
        ("report", model, "--test", model, "--out", page),
    ):
        assert "is a model folder; a table is expected in its place" in refused(*words), words
    for words in (
        ("predict", table, table),
        ("recommend", table, "--all"),
        ("report", table, "--out", page),
        ("report", model, "--without", table, "--out", page),
    ):
        assert "is a file; a model folder is expected in its place" in refused(*words), words
    assert not page.exists()


@pytest.mark.parametrize("suffix", [".csv", ".tsv.gz", ".jsonl", ".parquet"])
def test_a_disk_that_fills_up_leaves_the_old_table(refused, run, model, folder, tmp_path, monkeypatch, suffix):
    out = tmp_path / f"p{suffix}"
    run("predict", model, folder / "cells.csv", "--out", out)
    before = read_table(out)
    real = Path.write_bytes

    def half(self, data):
        real(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    for words in (("predict", model, folder / "cells.csv"), ("recommend", model, "--all")):
        assert "the disk is full; what was there before is as it was" in refused(*words, "--out", out)
    pd.testing.assert_frame_equal(read_table(out), before, check_exact=True)
    assert [path.name for path in tmp_path.iterdir()] == [out.name], "half a file was left behind"


def test_a_disk_that_fills_up_leaves_the_old_report(refused, model, tmp_path, monkeypatch):
    out = tmp_path / "r.html"
    out.write_text("old")

    def full(self, *rest, **options):
        with open(self, "wb") as page:
            page.write(b"<!doctype html>")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    line = refused("report", model, "--no-verdict", "--out", out)
    assert "r.html' could not be written: the disk is full; what was there before is as it was" in line
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_a_read_only_place_is_refused_before_the_work(refused, model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "fit", lambda *a, **k: pytest.fail("fitted"))
    locked, free = tmp_path / "locked", os.access
    locked.mkdir()
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (mode & os.W_OK and Path(path) == locked) and free(path, mode)
    )
    table = folder / "ratings.csv"
    for words in (
        ("fit", table, *SMALL, "--out", locked / "m"),
        ("fit", table, *SMALL, "--out", locked / "deep" / "m"),
        ("fit", table, *SMALL, "--out", tmp_path / "m", "--checkpoint", locked),
        ("assess", table, *SMALL, "--report", locked / "r.html"),
        ("report", model, "--out", locked / "r.html"),
        ("predict", model, folder / "cells.csv", "--out", locked / "p.csv"),
        ("recommend", model, "--all", "--out", locked / "p.csv"),
    ):
        assert "locked' is read-only; choose another place" in refused(*words), words
    (tmp_path / "file").write_text("x")
    for out in ("file/m", "file/deep/m"):
        assert "is a file, not a folder" in refused("fit", table, *SMALL, "--out", tmp_path / out)
    assert [*locked.iterdir()] == []


def test_a_checkpoint_has_a_folder_of_its_own(refused, run, model, folder, tmp_path):
    words = ("fit", folder / "ratings.csv", *SMALL, "--out", tmp_path / "m", "--checkpoint")
    assert "lies in --out" in refused(*words, tmp_path / "m")
    assert "lies in --out" in refused(*words, tmp_path / "m" / "chains")
    assert "is a model folder; name a folder of its own" in refused(*words, model)
    assert "is a file; name a folder of its own" in refused(*words, folder / "cells.csv")
    run(*words, tmp_path / "chains")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "user;item;domain;rating\n1;2;target;3,5\n",
            "row 0 (rows count from 0): '3,5' is no number; write a decimal point",
        ),
        ("user,item,domain,rating\n1,2,target,3\n1,3,target,good\n", "row 1 (rows count from 0): 'good' is no number"),
        ("user,item,domain,rating\n1,2,target,\n", "'rating' has 1 missing value(s), the first in row 0"),
        ("user,item,domain,rating\n1,2,target,inf\n", "'rating': 1 value(s) are NaN or infinite"),
        ("user,item,domain,rating\n,2,target,3\n", "'user' has 1 missing value(s), the first in row 0"),
        ("user,item,domain,rating\n1,2,,3\n", "'domain' has 1 missing value(s), the first in row 0"),
        ("user,item,domain,rating\n1,2,Target,3\n1,2,source,3\n", "(did you mean 'Target'?)"),
    ],
)
def test_entries_that_do_not_fit_name_their_row(refused, tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    assert message in refused("fit", tmp_path / "t.csv", *SMALL, "--out", tmp_path / "m")


@pytest.mark.parametrize("bad", [[1], {"$oid": "5f"}, []])
def test_lists_and_objects_are_no_ids(refused, model, tmp_path, bad):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ({"user": 3, "item": 2}, {"user": bad, "item": 2})))
    for words in (("predict", model, path), ("recommend", model, "--users-file", path)):
        line = refused(*words)
        assert f"column 'user', row 1 (rows count from 0): {bad!r} is no id" in line


def test_a_missing_id_among_the_users_is_not_called_a_stranger(run, model, tmp_path):
    (tmp_path / "u.csv").write_text("user,note\n3,x\n,y\n")
    done = run("recommend", model, "--users-file", tmp_path / "u.csv", code=2)
    assert "note:" not in done.err
    assert "the id at place 1 (counted from 0) is missing" in done.err
    (tmp_path / "u.jsonl").write_text('{"user": 1.5}\n')
    assert "note: user 1.5 was not in the fit" in run("recommend", model, "--users-file", tmp_path / "u.jsonl").err


def test_large_ids_are_exact(run, frame, tmp_path):
    """Neighbours beyond 2**53 would be one user if they passed through a float."""
    first = 2**53 + 1
    for suffix in (".csv", ".jsonl", ".parquet"):
        table = write_table(frame.assign(user=frame["user"] + first), tmp_path / f"t{suffix}")
        run("fit", table, *SMALL, "--out", tmp_path / "m")
        ids = br.load(tmp_path / "m").data.users.ids
        assert [int(x) - first for x in ids] == sorted(frame["user"].unique())


@pytest.mark.parametrize(
    "times",
    [
        ["2020-03-29T01:30:00+01:00", "2020-03-29T03:30:00+02:00"],  # two offsets: summer time began between them
        ["2020-03-29T00:30:00Z", "2020-03-29T01:30:00Z"],
        ["2020-03-29T00:30:00", "2020-03-29T01:30:00Z"],
        [" 2020-03-29 00:30", "2020-03-29 01:30 "],
    ],
)
def test_times_with_offsets_are_moments_in_utc(run, frame, tmp_path, times):
    table = write_table(frame.assign(when=[times[k % 2] for k in range(len(frame))]), tmp_path / "t.csv")
    run("fit", table, *SMALL, "--time", "when", "--out", tmp_path / "m")
    found = np.unique(br.load(tmp_path / "m").data.time)
    assert found.tolist() == np.array(["2020-03-29T00:30", "2020-03-29T01:30"], found.dtype).tolist()


def test_days_in_parquet_are_times(run, frame, tmp_path):
    table = frame.assign(when=pd.Timestamp("2020-01-02").date())
    table.to_parquet(tmp_path / "t.parquet", index=False)
    run("fit", tmp_path / "t.parquet", *SMALL, "--time", "when", "--out", tmp_path / "m")
    assert (br.load(tmp_path / "m").data.time == np.datetime64("2020-01-02")).all()


def test_a_time_that_is_none_names_its_row(refused, frame, tmp_path):
    times = ["2020-01-02"] * len(frame)
    times[7] = "02/01/2020"
    table = write_table(frame.assign(when=times), tmp_path / "t.csv")
    line = refused("fit", table, *SMALL, "--time", "when", "--out", tmp_path / "m")
    assert "row 7 (rows count from 0) is '02/01/2020'; write times as 2024-05-31" in line


def test_parquet_with_two_columns_of_one_name(refused, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    column = pa.array([1, 2])
    parquet.write_table(pa.Table.from_arrays([column] * 3, names=["user", "item", "user"]), tmp_path / "t.parquet")
    line = refused("fit", tmp_path / "t.parquet", *SMALL, "--out", tmp_path / "m")
    assert "has two columns named 'user'; rename one" in line
