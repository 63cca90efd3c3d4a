"""Tables of other libraries: official layouts here, the packages themselves where they are installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

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


def test_surprise_itself():
    pytest.importorskip("surprise", reason="Surprise is not installed")
    dataset = interop.to_surprise(read())
    assert dataset.raw_ratings == [("b", 8, 3.0, None), ("c", 9, 2.0, None), ("a", 7, 1.5, None)]
    assert dataset.build_full_trainset().rating_scale == (1.5, 3.0)


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


def test_what_recbole_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match="has a tab or a line break"):
        interop.to_recbole(read(FRAME.assign(who=["a", "b", "b", "c\td", "a"])), tmp_path)
    other = br.Interactions.from_frame(FRAME.replace("book", "../book"), target="music", value="stars", **NAMES)
    with pytest.raises(DataError, match="cannot be the name of a file"):
        interop.to_recbole(other, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_notebooks_show_sizes_with_escaped_names():
    page = read(FRAME.replace("book", "<b>&"))._repr_html_()
    assert "<th>&lt;b&gt;&amp;</th><td>source</td><td>2</td><td>2</td><td>1</td><td>100.00%</td>" in page
    assert "<b>" not in page
