"""Paths, archives and damage: the message names the file and says what to do."""

from __future__ import annotations

import gzip
import zipfile

import datasets_layouts as layouts
import pytest

from bayesrec import datasets
from bayesrec.datasets.files import open_source, stem
from bayesrec.errors import DataError


def big_ml(top):
    """ml-1m with enough incompressible rows that a cut archive lacks some."""
    folder = layouts.ml_1m(top)
    rows = "".join(
        f"{u}::{(u * 7919 + k * 104729) % 3952 + 1}::{(u * k) % 5 + 1}::{978300760 + u * k * k}\n"
        for u in range(60)
        for k in range(40)
    )
    layouts.write(folder / "ratings.dat", rows)
    return folder


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated_archives_are_named(share, tmp_path):
    folder = big_ml(tmp_path)
    packs = [
        layouts.zipped(folder, tmp_path / "ml-1m.zip"),
        layouts.tarred(folder, tmp_path / "ml-1m.tar.gz"),
        layouts.gzipped(folder / "ratings.dat"),
    ]
    for pack in packs:
        datasets.movielens(pack)
        pack.write_bytes(pack.read_bytes()[: int(share * pack.stat().st_size)])
        with pytest.raises(DataError, match=rf"{pack.name}.* cannot be read .*truncated: fetch it again"):
            datasets.movielens(pack)


def test_a_flipped_byte_in_a_zip_is_seen(tmp_path):
    pack = layouts.zipped(big_ml(tmp_path))
    content = bytearray(pack.read_bytes())
    with zipfile.ZipFile(pack) as opened:
        info = opened.getinfo("ml-1m/ratings.dat")
    content[info.header_offset + 200] ^= 0xFF
    pack.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"ml-1m.zip: ml-1m/ratings.dat cannot be read"):
        datasets.movielens(pack)


def test_a_name_that_lies_about_the_format(tmp_path):
    for name in ("ml-1m.zip", "ml-1m.tar.gz", "ratings.dat.gz"):
        file = layouts.write(tmp_path / name, "1::1193::5::978300760\n")
        with pytest.raises(DataError, match=rf"{name} cannot be read"):
            datasets.movielens(file)


def test_a_missing_path_suggests_its_neighbour(tmp_path):
    layouts.ml_1m(tmp_path)
    with pytest.raises(DataError, match=r"ml-1mm does not exist \(did you mean 'ml-1m'\?\)"):
        datasets.movielens(tmp_path / "ml-1mm")
    with pytest.raises(DataError, match=r"does not exist$"):
        datasets.movielens(tmp_path / "no/where")


def test_nothing_there_lists_what_is(tmp_path):
    layouts.write(tmp_path / "data.xlsx", "x")
    with pytest.raises(DataError, match=r"no MovieLens ratings found \(looked for u.data, .*it has: data.xlsx; give"):
        datasets.movielens(tmp_path)


def test_a_saved_model_is_told_from_a_data_set(tmp_path):
    layouts.write(tmp_path / "bayesrec.json", "{}")
    for reader in (datasets.movielens, datasets.amazon, datasets.yelp, datasets.ciao):
        if reader is datasets.amazon:  # takes any .json
            continue
        with pytest.raises(DataError, match=r"is a saved bayesrec model, not a data set; load it with bayesrec.load"):
            reader(tmp_path)


def test_an_encrypted_member_is_named(tmp_path):
    pack = layouts.zipped(layouts.ml_1m(tmp_path))
    content = bytearray(pack.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := content.find(mark, start)) >= 0:
            content[start + at] |= 1
            start += 4
    pack.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"ml-1m.zip: ml-1m/ratings.dat cannot be read .*encrypted"):
        datasets.movielens(pack)


def test_numbers_in_names_count_as_numbers(tmp_path):
    for k in (10, 9, 1):
        layouts.write(tmp_path / f"combined_data_{k}.txt", "x")
    with open_source(tmp_path) as source:
        assert [entry.base[14:] for entry in source.every("combined*")] == ["1.txt", "9.txt", "10.txt"]


def test_folders_far_below_are_not_searched(tmp_path):
    layouts.ml_1m(tmp_path / "a/b")
    with open_source(tmp_path) as source:
        assert source.find("ratings.dat") is None
    with open_source(tmp_path / "a") as source:
        assert source.find("ratings.dat").name == "b/ml-1m/ratings.dat"


def test_hidden_files_are_no_data(tmp_path):
    layouts.write(tmp_path / "._u.data", "junk")
    layouts.write(tmp_path / ".cache/u.data", "junk")
    with open_source(tmp_path) as source:
        assert source.entries == ()


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("ml-1m.zip", "ml-1m"),
        ("a.tar.gz", "a"),
        ("A.TGZ", "A"),
        ("x.jsonl.gz", "x"),
        ("ml-10M100K", "ml-10M100K"),
        ("v1.2", "v1.2"),
    ],
)
def test_stem(name, short):
    assert stem(name) == short


def test_closing_leaves_no_file_open(tmp_path):
    """An unclosed file is a ResourceWarning, and warnings are errors here."""
    import gc

    for pack in (layouts.zipped(layouts.ml_1m(tmp_path)), layouts.tarred(tmp_path / "ml-1m", tmp_path / "x.tgz")):
        datasets.movielens(pack, max_rows=1)
    file = tmp_path / "u.data.gz"
    file.write_bytes(gzip.compress(b"1\t2\t3\t4\n" * 1000))
    datasets.movielens(file, max_rows=1)
    gc.collect()
