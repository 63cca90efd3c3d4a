"""Tables of other libraries: official layouts here, the packages themselves where they are installed."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pandas._libs import parsers

import bayesrec as br
from bayesrec import interop
from bayesrec.errors import DataError, MissingExtraError

FRAME = pd.DataFrame(
    {
        "who": ["a", "b", "b", "c", "a"],
        "what": [7, 7, 8, 9, 7],
        "shop": ["book", "book", "music", "music", "music"],
        "stars": [5, 4, 3, 2, 1.5],
        "when": [10, 20, 30, 40, 50],
    }
)
NAMES = {"user": "who", "item": "what", "domain": "shop"}
PAGE = (Path(__file__).parents[1] / "docs/interop.md").read_text()


def read(frame=FRAME, value="stars", time=None):
    return br.Interactions.from_frame(frame, target="music", value=value, time=time, **NAMES)


def test_surprise_layouts_are_read():
    raw = SimpleNamespace(raw_ratings=[("a", 7, 3.0, None), ("b", 8, 1.0, None)])
    trainset = SimpleNamespace(
        all_ratings=lambda: [(0, 0, 3.0), (1, 1, 1.0)], to_raw_uid="ab".__getitem__, to_raw_iid=[7, 8].__getitem__
    )
    for given in (raw, trainset):
        data = interop.from_surprise(given, target="music")
        assert (data.target, data.sources) == ("music", ())
        assert data.to_frame().to_numpy().tolist() == [["a", 7, 3.0], ["b", 8, 1.0]]
    with pytest.raises(DataError, match="not list; for a Dataset of given folds"):
        interop.from_surprise([1])


@pytest.mark.parametrize(("times", "want"), [(["30", "40"], [30, 40]), (["30", None], None), (["30", "x"], None)])
def test_times_of_surprise_are_kept_where_every_row_has_one(times, want):
    rows = SimpleNamespace(raw_ratings=[("a", 7, 3.0, times[0]), ("b", 8, 1.0, times[1])])
    time = interop.from_surprise(rows).time
    assert time is None if want is None else time.tolist() == want


def test_what_surprise_cannot_predict_is_refused():
    with pytest.raises(DataError, match="data are clicks, and Surprise predicts ratings"):
        interop.to_surprise(read(value=None))
    for scale in ((2, 3), (1, 2.5), (5, 1)):
        with pytest.raises(DataError, match=r"leaves ratings out: they are from 1\.5 to 3"):
            interop.to_surprise(read(), scale=scale)
    with pytest.raises(DataError, match="domain 'book' has no rows: nothing for Surprise"):
        interop.to_surprise(read().without_sources(), domain="book")


def test_surprise_itself(tmp_path):
    surprise = pytest.importorskip("surprise", reason="Surprise is not installed")
    dataset = interop.to_surprise(read())
    assert dataset.raw_ratings == [("b", 8, 3.0, None), ("c", 9, 2.0, None), ("a", 7, 1.5, None)]
    trainset = dataset.build_full_trainset()
    assert trainset.rating_scale == (1.5, 3.0)
    assert interop.to_surprise(read(), scale=(1, 5)).build_full_trainset().rating_scale == (1, 5)
    want = [["a", 7, 1.5], ["b", 8, 3.0], ["c", 9, 2.0]]
    for given in (dataset, trainset):
        assert sorted(interop.from_surprise(given, target="music").to_frame().to_numpy().tolist()) == want
    file = tmp_path / "ratings.tsv"
    file.write_text("a\t7\t3\t30\nb\t8\t1\t40\n")
    timed = surprise.Dataset.load_from_file(file, surprise.Reader(line_format="user item rating timestamp", sep="\t"))
    assert interop.from_surprise(timed).time.tolist() == [30, 40]
    folds = surprise.Dataset.load_from_folds([(file, file)], surprise.Reader("ml-100k"))
    with pytest.raises(DataError, match="for a Dataset of given folds pass each fold's Trainset"):
        interop.from_surprise(folds)


@pytest.mark.parametrize("package", ["surprise", "lenskit.data"])
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    lists = pd.DataFrame({"who": ["a"], "what": [7], "rank": [1], "score": [0.5]})
    with pytest.raises(MissingExtraError, match="is not installed: pip install"):
        interop.to_surprise(read()) if package == "surprise" else interop.lenskit_lists(lists, read())


def test_lenskit_table_has_its_names_and_types():
    out = interop.to_lenskit(read(time="when"))
    assert out.columns.tolist() == ["user_id", "item_id", "rating", "timestamp"]
    assert [str(dtype) for dtype in out.dtypes] == ["object", "int64", "float64", "int64"]
    assert out.to_numpy().tolist() == [["b", 8, 3.0, 30], ["c", 9, 2.0, 40], ["a", 7, 1.5, 50]]
    assert interop.to_lenskit(read(), domain="book")["rating"].tolist() == [5, 4]
    assert "rating" not in interop.to_lenskit(read(value=None))
    back = interop.from_lenskit(out, target="music")
    assert (back.target, back.columns.time) == ("music", "timestamp")
    assert back.to_frame()["rating"].tolist() == [3.0, 2.0, 1.5]
    assert interop.from_lenskit(out[["user_id", "item_id"]]).value.tolist() == [1.0] * 3
    with pytest.raises(DataError, match=r"no column 'user_id' \(did you mean 'userid'\?\)"):
        interop.from_lenskit(out.rename(columns={"user_id": "userid"}))
    with pytest.raises(DataError, match="did you mean 'book'"):
        interop.to_lenskit(read(), domain="bok")


@pytest.mark.parametrize(
    ("dtype", "want"), [("uint8", "int64"), ("Int32", "int64"), ("uint64", "int64"), ("string", "object")]
)
def test_ids_have_types_that_lenskit_knows(dtype, want):
    frame = FRAME.assign(what=FRAME["what"].astype(dtype))
    out = interop.to_lenskit(read(frame))
    assert str(out["item_id"].dtype) == want
    assert out["item_id"].tolist() == [int(x) if want == "int64" else str(x) for x in (8, 9, 7)]
    if dtype != "string":
        mixed = read(frame.assign(what=pd.Series(["x", "y", *frame["what"].tolist()[2:]], dtype=object)))
        assert str(interop.to_lenskit(mixed)["item_id"].dtype) == "int64"  # numbers here, words in the other domain


def shared_items():
    """The frame with items shared, and the table that a posterior of it holds: the transposed one."""
    data = br.Interactions.from_frame(FRAME, target="music", value="stars", time="when", shared="items", **NAMES)
    return data, data.transposed()


@pytest.mark.parametrize("domain", [None, "book"])
def test_shared_items_go_out_as_the_caller_knows_them(tmp_path, domain):
    want = interop.to_lenskit(read(time="when"), domain)  # one domain is the same, whichever side is shared
    files = [path.read_bytes() for path in interop.to_recbole(read(time="when"), tmp_path / "users")]
    for k, data in enumerate(shared_items()):
        pd.testing.assert_frame_equal(interop.to_lenskit(data, domain), want)
        assert [path.read_bytes() for path in interop.to_recbole(data, tmp_path / f"items{k}")] == files


def test_shared_items_in_the_packages_themselves():
    pytest.importorskip("surprise", reason="Surprise is not installed")
    pytest.importorskip("lenskit.data", reason="LensKit is not installed")
    answer = pd.DataFrame({"who": ["a", "a"], "rank": [2, 1], "what": [7, 9], "score": [0.1, 0.2]})
    for data in shared_items():
        assert interop.to_surprise(data).raw_ratings == interop.to_surprise(read()).raw_ratings
        lists = interop.lenskit_lists(answer, data)
        assert [tuple(key) for key, _ in lists] == [("a",)]
        assert lists.to_df()["item_id"].tolist() == [9, 7]


@pytest.mark.parametrize("dtype", ["int64", "uint8", "Int64", "string", "category"])
def test_lenskit_takes_every_type_of_id(dtype):
    lenskit = pytest.importorskip("lenskit.data", reason="LensKit is not installed")
    frame = FRAME.assign(what=FRAME["what"].astype(dtype))
    back = interop.from_lenskit(lenskit.from_interactions_df(interop.to_lenskit(read(frame)))).to_frame()
    assert sorted(map(str, back["item_id"])) == ["7", "8", "9"]


def test_lenskit_itself():
    lenskit = pytest.importorskip("lenskit.data", reason="LensKit is not installed")
    for data in (read(), read(time="when"), read(value=None)):
        rows = interop.to_lenskit(data)
        back = interop.from_lenskit(lenskit.from_interactions_df(rows.copy()), target="music").to_frame()
        key = ["user_id", "item_id"]
        wanted, found = (x.sort_values(key).reset_index(drop=True) for x in (rows, back[rows.columns]))
        assert found.to_numpy().tolist() == wanted.to_numpy().tolist()
    answer = pd.DataFrame({"who": ["a", "a"], "rank": [2, 1], "what": [7, 9], "score": [0.1, 0.2]})
    assert interop.lenskit_lists(answer, read()).to_df()["item_id"].tolist() == [9, 7]


@pytest.mark.parametrize("dates", [False, True])
def test_recbole_files_come_back(tmp_path, dates):
    frame = FRAME.assign(when=pd.to_datetime(FRAME["when"], unit="s")) if dates else FRAME
    data = read(frame, time="when")
    book, music = interop.to_recbole(data, tmp_path / "new")
    assert music == tmp_path / "new" / "music" / "music.inter"
    assert book.read_text().splitlines() == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "a\t7\t5\t10",
        "b\t7\t4\t20",
    ]
    back = br.datasets.recbole(music).ratings
    assert back["user"].tolist() == ["b", "c", "a"]
    assert back["rating"].tolist() == [3.0, 2.0, 1.5]
    assert (back["time"].to_numpy() == np.array([30, 40, 50], dtype="datetime64[s]")).all()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's, of pandas and torch
def test_recbole_itself(tmp_path, monkeypatch):
    pytest.importorskip("recbole", reason="RecBole is not installed")
    for name, kind in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "object0": object}.items():
        monkeypatch.setattr(np, name, kind, raising=False)  # RecBole 1.2.1 wants names that NumPy 2 dropped
    monkeypatch.setattr(np, "bool8", np.bool_, raising=False)
    monkeypatch.setattr(sys, "argv", ["recbole"])  # it reads its options there
    from recbole.config import Config
    from recbole.data import create_dataset

    who = ["a", "b", "a b", 'c"d', "  e"]
    data = read(FRAME.assign(who=who), time="when")
    interop.to_recbole(data, tmp_path)
    given = {"data_path": str(tmp_path), "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]}}
    loaded = create_dataset(Config(model="BPR", dataset="music", config_dict=given))
    rows = loaded.inter_feat
    found = {
        (loaded.id2token("user_id", int(u)), loaded.id2token("item_id", int(i)), float(r), float(t))
        for u, i, r, t in zip(*(rows[name] for name in given["load_col"]["inter"]), strict=True)
    }
    assert found == {("a b", "8", 3.0, 30.0), ('c"d', "9", 2.0, 40.0), ("  e", "7", 1.5, 50.0)}


@pytest.mark.parametrize("name", ["surprise", "lenskit", "recbole"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of the packages' own
def test_blocks_of_the_page_run(name):
    start = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    (block,) = re.findall(rf"```\n(# needs {name}\n.*?)```", PAGE, re.DOTALL)
    pytest.importorskip(name, reason=f"{name} is not installed")
    here = {"__name__": "docs"}
    exec(compile(start + block, "<docs>", "exec"), here)
    test, posterior = here["test"], here["posterior"]
    error = (posterior.predict(test)["mean"].to_numpy() - test.value) ** 2
    if name == "surprise":
        from surprise import accuracy

        assert accuracy.rmse(here["predictions"], verbose=False) == pytest.approx(np.sqrt(error.mean()))
        assert len(here["others"]) == len(test)
        return
    lists = br.recommend(posterior, np.unique(test.users.decode(test.user)), n=10)
    rows = test.to_frame().set_axis(["user", "item", *test.to_frame().columns[2:]], axis=1)
    hits = lists.iloc[:, [0, 2]].set_axis(["user", "item"], axis=1).merge(rows).groupby("user").size()
    recall = (hits / rows.groupby("user").size()).fillna(0).mean()
    if name == "lenskit":
        by_user = np.sqrt(pd.Series(error).groupby(test.user).mean())
        assert here["rating"].list_summary().loc["RMSE", "mean"] == pytest.approx(by_user.mean())
        assert here["ranking"].list_summary().loc["Recall@10", "mean"] == pytest.approx(recall)
    else:
        assert here["result"]["recall@10"] == pytest.approx(recall, abs=1e-4)


def test_every_library_of_the_page_is_run():
    assert re.findall(r"```\n# needs (\w+)\n", PAGE) == ["surprise", "lenskit", "recbole"]
    assert len(re.findall(r"^```\n#", PAGE, re.MULTILINE)) == 3


@pytest.mark.parametrize("bad", ["c\td", "c\nd", "c\x85d", '"c', "NA", "None", "nan", ""])
def test_ids_that_recbole_would_read_as_others_are_refused(tmp_path, bad):
    with pytest.raises(DataError, match=r"user_id .* rename it"):
        interop.to_recbole(read(FRAME.assign(who=["a", "b", "b", bad, "a"])), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_pandas_takes_for_missing_is_what_is_refused():
    assert interop.MISSING == parsers.STR_NA_VALUES
    text = "\n".join(["x", *sorted(interop.MISSING - {""}), "fine", "na"])
    read_back = pd.read_csv(io.StringIO(text), delimiter="\t", dtype=str, engine="python")["x"]
    assert read_back.isna().sum() == len(interop.MISSING) - 1
    assert read_back.dropna().tolist() == ["fine", "na"]


def test_what_recbole_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match="has a tab, a line break"):
        interop.to_recbole(read(FRAME.assign(who=["a", "b", "b", "c\td", "a"])), tmp_path)
    other = br.Interactions.from_frame(FRAME.replace("book", "../book"), target="music", value="stars", **NAMES)
    with pytest.raises(DataError, match="cannot be the name of a file"):
        interop.to_recbole(other, tmp_path)
    assert list(tmp_path.iterdir()) == []
