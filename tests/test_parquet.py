"""Parquet files in portions give what from_frame gives of the whole table, to the last dtype."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

import bayesrec as br
from bayesrec.data import parquet
from bayesrec.errors import DataError, DataWarning


def ratings(n=600, seed=0):
    """Rows of three domains without a repeated pair; items of one name in several domains; a column nobody asks for."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "item": rng.integers(0, 40, n),
            "user": rng.integers(-5, 60, n),
            "note": "x",
            "domain": rng.choice(["music", "book", "film"], n, p=[0.2, 0.5, 0.3]),
            "rating": rng.integers(1, 6, n),
        }
    )
    return frame.drop_duplicates(["user", "item", "domain"], ignore_index=True)


def written(frame, folder, files=1, rows=None, **options):
    """Write the rows in order to some files of row groups of so many rows."""
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    edges = np.linspace(0, len(table), files + 1).astype(int)
    for k, (start, stop) in enumerate(zip(edges, edges[1:], strict=False)):
        part = table.slice(start, stop - start)
        pq.write_table(part, folder / f"part-{k:02d}.parquet", row_group_size=rows or max(1, len(part)), **options)
    return folder


def assert_same(one, other):
    """Codes, vocabularies, names, layouts: equal, dtypes included."""
    for name in ("user", "item", "domain", "value", "time"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype, name
            assert np.array_equal(a, b), name
            assert not a.flags.writeable
            assert a.flags.owndata  # it took no copy, and holds nothing else
    for name in ("users", "items"):
        a, b = getattr(one, name), getattr(other, name)
        assert a == b
        assert a.scopes == b.scopes
        assert [x.dtype for x in a.blocks] == [x.dtype for x in b.blocks], name
        assert a.ids.tolist() == b.ids.tolist()
    assert (one.domains, one.columns, one.shared, one.layout) == (
        other.domains,
        other.columns,
        other.shared,
        other.layout,
    )
    assert [type(name) for name in one.domains] == [type(name) for name in other.domains]
    pd.testing.assert_frame_equal(one.to_frame(), other.to_frame())


def text(frame):
    return frame.assign(user="u" + frame["user"].astype(str), item=frame["item"].astype(str).str.zfill(3))


MOMENTS = pd.to_datetime("2024-03-01") + pd.to_timedelta(np.arange(10**4) * 977, unit="s")
KINDS = {
    "integers": lambda f: f,
    "narrow integers": lambda f: f.astype({"user": "int16", "item": "uint8", "rating": "int8"}),
    "text": text,
    "text and numbers": lambda f: f.assign(item=f["item"].astype(str)),
    "categories": lambda f: text(f).astype({"user": "category", "item": "category", "domain": "category"}),
    "unused categories": lambda f: text(f).astype("category").iloc[: len(f) // 2].reset_index(drop=True),
    "categories of integers": lambda f: f.astype({"user": "category", "rating": "category"}),
    "integers for domains": lambda f: f.assign(domain=f["domain"].map({"music": 3, "book": 10, "film": 20})),
    "whole floats for ids": lambda f: f.astype({"user": float}),
    "ratings that float32 rounds": lambda f: f.assign(rating=f["rating"] + np.where(np.arange(len(f)) > 400, 0.1, 0.5)),
    "ratings of float32": lambda f: f.astype({"rating": np.float32}),
    "ratings beyond float32": lambda f: f.assign(rating=f["rating"] * np.where(np.arange(len(f)) > 400, 1e300, 1.0)),
    "Decimals": lambda f: f.assign(rating=[Decimal(int(x)) / 2 for x in f["rating"]]),
    "booleans": lambda f: f.assign(rating=f["rating"] > 3),
}


@pytest.mark.parametrize("shared", ["users", "items"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_from_frame(kind, shared, tmp_path):
    frame = KINDS[kind](ratings())
    target = 3 if kind == "integers for domains" else "music"
    folder = written(frame, tmp_path, files=3, rows=70)
    plain = pa.Table.from_pandas(frame, preserve_index=False).to_pandas(ignore_metadata=True)
    whole = br.Interactions.from_frame(plain, target=target, shared=shared)
    for rows in (5, 33, 10**6) if kind == "text" else (33, 10**6):
        assert_same(br.Interactions.from_parquet(folder, target=target, shared=shared, batch_rows=rows), whole)


def test_values_are_widened_whatever_lay_in_the_memory(tmp_path, monkeypatch):
    frame = KINDS["ratings that float32 rounds"](ratings())
    written(frame, tmp_path, rows=70)

    empty = np.empty

    def dirty(shape, dtype=float, **options):
        """np.empty, where NaNs lie that signal when they are cast."""
        out = empty(shape, dtype=dtype, **options)
        if out.dtype == np.float32:
            out.view(np.uint32)[...] = 0x7FA00000
        return out

    with monkeypatch.context() as patch:
        patch.setattr("numpy.empty", dirty)
        read = br.Interactions.from_parquet(tmp_path, target="music", batch_rows=33)
    assert_same(read, br.Interactions.from_frame(frame, target="music"))


@pytest.mark.parametrize("time", ["integers", "floats", "datetime", "zone", "date"])
def test_times(time, tmp_path):
    frame = ratings()
    moments = pd.Series(MOMENTS[: len(frame)])
    frame["when"] = {
        "integers": moments.astype("int64"),
        "floats": moments.astype("int64") / 7,
        "datetime": moments,
        "zone": moments.dt.tz_localize("Europe/Rome"),
        "date": moments.dt.date,
    }[time]
    written(frame, tmp_path, files=2, rows=50)
    plain = pa.Table.from_pandas(frame, preserve_index=False).to_pandas(ignore_metadata=True, date_as_object=False)
    options = {"target": "film", "time": "when", "value": None}
    assert_same(br.Interactions.from_parquet(tmp_path, **options), br.Interactions.from_frame(plain, **options))


def test_clicks_one_domain_and_other_names(tmp_path):
    frame = (
        ratings().drop_duplicates(["user", "item"], ignore_index=True).rename(columns={"user": "who", "item": "what"})
    )
    written(frame, tmp_path, files=2, rows=90)
    options = {"target": "all", "domain": None, "user": "who", "item": "what"}
    for value in (None, "rating"):
        read, whole = (
            br.Interactions.from_parquet(tmp_path, value=value, batch_rows=64, **options),
            br.Interactions.from_frame(frame, value=value, **options),
        )
        assert_same(read, whole)


def test_more_domains_than_a_portion_has_rows(tmp_path):
    frame = ratings().drop_duplicates(["user", "item"], ignore_index=True)
    frame["domain"] = [f"d{k % 70}" for k in range(len(frame))]
    written(frame, tmp_path, rows=100)
    whole = br.Interactions.from_frame(frame, target="d5")
    for rows in (7, 500):
        assert_same(br.Interactions.from_parquet(tmp_path, target="d5", batch_rows=rows), whole)


def test_the_last_of_repeated_pairs_stays(tmp_path):
    frame = pd.concat([ratings(), ratings(seed=1)], ignore_index=True)
    written(frame, tmp_path, files=3, rows=50)
    with pytest.warns(DataWarning) as here:
        read = br.Interactions.from_parquet(tmp_path, target="music", batch_rows=40)
    with pytest.warns(DataWarning) as there:
        whole = br.Interactions.from_frame(frame, target="music")
    assert str(here[0].message) == str(there[0].message)
    assert here[0].filename == there[0].filename == __file__
    assert len(read) < len(frame)
    assert_same(read, whole)


def test_a_fit_gives_the_same_draws(tmp_path):
    frame = ratings()
    written(text(frame), tmp_path, files=2, rows=100)
    draws = [
        br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=3, warmup=2, chains=1, threads=1), progress=False).draws
        for data in (
            br.Interactions.from_parquet(tmp_path, target="music", batch_rows=50),
            br.Interactions.from_frame(text(frame), target="music"),
        )
    ]
    for name, array in draws[0].items():
        assert np.array_equal(array, draws[1][name]), name


def test_files_folders_and_their_order(tmp_path):
    frame, (one, two) = ratings(), (tmp_path / "b", tmp_path / "a")
    for folder in (one, two, one / "_temporary"):
        folder.mkdir()
    half = len(frame) // 2
    frame[:half].to_parquet(one / "x.parquet")
    frame[half:].to_parquet(two / "y.pq")
    (one / "_SUCCESS").touch()
    (one / "_temporary" / "z.parquet").write_bytes(b"half of it")
    (two / "readme.txt").write_text("no table")
    pq.write_table(pa.Table.from_pandas(frame[:0], preserve_index=False), two / "none.parquet")
    read, turned = (
        br.Interactions.from_parquet(paths, target="film") for paths in ([one / "x.parquet", str(two)], tmp_path)
    )
    assert_same(read, br.Interactions.from_frame(frame, target="film"))
    assert_same(turned, br.Interactions.from_frame(pd.concat([frame[half:], frame[:half]]), target="film"))


def test_widths_may_differ_between_files_and_the_order_of_columns(tmp_path):
    frame = ratings()
    frame[:200].astype({"user": "int8", "rating": "int16"}).to_parquet(tmp_path / "a.parquet")
    frame[200:][["rating", "user", "item", "domain"]].assign(rating=frame["rating"] / 2).to_parquet(
        tmp_path / "b.parquet"
    )
    whole = pd.concat([frame[:200], frame[200:].assign(rating=frame["rating"] / 2)])
    read = br.Interactions.from_parquet(tmp_path, target="film")
    assert_same(read, br.Interactions.from_frame(whole, target="film"))


# --- what is refused -----------------------------------------------------------------------------------------------


def refused(folder, match, **options):
    with pytest.raises(DataError, match=match):
        br.Interactions.from_parquet(folder, **{"target": "music", "batch_rows": 40} | options)


@pytest.mark.parametrize("column", ["user", "item", "domain", "rating", "when"])
@pytest.mark.parametrize("words", [False, True])
def test_a_missing_entry_in_the_third_row_group(column, words, tmp_path):
    frame = ratings().assign(when=MOMENTS[: len(ratings())])
    frame = (text(frame).astype({"user": "category"}) if words else frame).astype({"rating": float})
    table = pa.Table.from_pandas(frame, preserve_index=False)
    place = table.schema.get_field_index(column)
    gap = pa.array([row == 333 for row in range(len(table))])
    holed = pa.compute.if_else(
        gap, pa.scalar(None), table.column(column).cast(parquet._plain_type(table.schema[place].type))
    )
    table = table.set_column(place, column, holed)
    written(table, tmp_path, rows=120)
    name = r"part-00\.parquet"
    refused(tmp_path, rf"column '{column}' has a missing value in row 333 .*row 333 of .*{name}", time="when")
    for file in tmp_path.iterdir():
        file.unlink()
    written(table, tmp_path, files=2, rows=60)
    row = 333 - len(table) // 2
    refused(
        tmp_path, rf"'{column}' has a missing value in row 333 .* row {row} of .*part-01", time="when", batch_rows=7
    )


def test_what_is_no_number_no_id_no_domain(tmp_path):
    frame = ratings().astype({"rating": float, "user": float})
    cases = (
        ({"rating": np.nan}, r"'rating' has a missing value in row 333"),
        ({"rating": np.inf}, r"1 value\(s\) up to row \d+ are NaN or infinite, the first in row 333 .*: inf"),
        ({"user": 0.5}, r"id 0\.5 in row 333 is a float"),
    )
    for k, (change, match) in enumerate(cases):
        folder = tmp_path / str(k)
        folder.mkdir()
        bad = frame.copy()
        for name, value in change.items():
            bad.loc[333, name] = value
        refused(written(bad, folder, files=2, rows=50), match)
    day = datetime.date(2024, 1, 1)
    whole = (
        ({"rating": "five"}, "'rating'.*not numbers, the first in row 0.*'five'"),
        ({"user": True}, "ids are booleans"),
        ({"item": [[1]] * len(frame)}, "column 'item' holds list"),
        ({"domain": 0.5}, "the domain 0.5 is of type float"),
        ({"user": day}, "ids must be integers or strings, got"),
        ({"user": np.uint64(2**63)}, "row 0 does not fit a 64-bit integer"),
    )
    for k, (change, match) in enumerate(whole):
        folder = tmp_path / f"all-{k}"
        folder.mkdir()
        refused(written(frame.assign(**change), folder), match)


def test_names_targets_and_options(tmp_path):
    written(ratings(), tmp_path, files=2)
    refused(tmp_path, "target='musik' is no domain of column 'domain' .did you mean 'music'", target="musik")
    refused(tmp_path, r"part-00\.parquet' has no column 'stars' for value.*'note'", value="stars")
    refused(tmp_path, "shared must be", shared="both")
    refused(tmp_path, "target=None", target=None)
    refused(tmp_path, "batch_rows must be", batch_rows=0)
    refused(tmp_path, "named for both", user="item")
    refused(tmp_path / "part-0.parquet", r"no file .*did you mean 'part-0\d\.parquet'")
    refused([], "list of paths is empty")
    refused(5, "paths must be")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "no file that ends in .parquet")
    ratings().drop(columns="rating").to_parquet(tmp_path / "part-02.parquet")
    refused(tmp_path, r"part-02\.parquet' has no column 'rating'")
    refused([written(ratings()[:0], tmp_path / "none")], "has no rows")


def test_types_that_cannot_be_mixed(tmp_path):
    ratings().to_parquet(tmp_path / "a.parquet")
    text(ratings()).to_parquet(tmp_path / "b.parquet")
    refused(tmp_path, r"column 'item' holds (large_)?string in .*b\.parquet' and int64 in the files before; cast")


def test_damaged_files(tmp_path):
    written(ratings(), tmp_path, rows=100)
    file = tmp_path / "part-00.parquet"
    content = file.read_bytes()
    for bad in (b"user,item\n", content[:-100], content[:4] + bytes(2000) + content[2004:]):
        file.write_bytes(bad)
        refused(tmp_path, r"part-00\.parquet' is no Parquet file, or damaged")
    columns = [pa.array([1])] * 3
    pq.write_table(pa.Table.from_arrays(columns, names=["user", "item", "user"]), file)
    refused(tmp_path, "two columns named 'user'", domain=None, value=None)


def test_a_file_that_changes_between_the_rounds(tmp_path, monkeypatch):
    written(ratings(), tmp_path)
    collect = parquet._collect

    def and_then_it_changes(*args):
        out = collect(*args)
        written(ratings(seed=3).assign(user=999), tmp_path)
        return out

    monkeypatch.setattr(parquet, "_collect", and_then_it_changes)
    refused(tmp_path, "changed while it was read")


def test_portions_bound_the_memory(tmp_path, monkeypatch):
    """No more than two portions and one set of narrow arrays are alive before the end: counted, not trusted."""
    frame = ratings(5000)
    written(frame, tmp_path, rows=1000)
    sizes, narrow = [], []
    encode, portions = parquet._encode, parquet.Files.portions

    def counted(self):
        for portion in portions(self):
            sizes.append(len(portion.table))
            yield portion

    def looked_at(*args):
        out = encode(*args)
        narrow.append({name: x.dtype.itemsize for name, x in out[0].items() if x is not None})
        return out

    monkeypatch.setattr(parquet.Files, "portions", counted)
    monkeypatch.setattr(parquet, "_encode", looked_at)
    br.Interactions.from_parquet(tmp_path, target="music", batch_rows=128)
    assert max(sizes) <= 128
    assert sum(sizes) == 2 * len(frame)
    assert narrow == [{"user": 4, "item": 4, "domain": 1, "value": 4}]
