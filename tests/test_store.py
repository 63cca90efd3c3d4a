"""Saving and loading: what comes back, what is refused, what a failed save leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayesrec as br
from bayesrec.errors import DataError, LoadError, NotFittedError
from bayesrec.posterior import store


@pytest.fixture
def saved(transfer, tmp_path):
    return transfer.save(tmp_path / "model")


def _edit(folder, **changes):
    meta = json.loads((folder / store.META).read_text())
    (folder / store.META).write_text(json.dumps(meta | changes))


def _fit(frame, **names):
    data = br.Interactions.from_frame(frame, target=names.pop("target", "target"), **names)
    return br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=4, warmup=2, chains=2), progress=False)


def test_everything_comes_back(transfer, saved, frame):
    back = br.load(saved)
    assert back.predict(frame).equals(transfer.predict(frame))
    assert back.data.to_frame().equals(transfer.data.to_frame())
    assert (back.model, back.method) == (transfer.model, transfer.method)
    assert back.schema.domains == transfer.schema.domains
    assert np.array_equal(back.schema.scale, transfer.schema.scale)
    assert br.source_weight(back, frame[frame["domain"] == "target"]).equals(
        br.source_weight(transfer, frame[frame["domain"] == "target"])
    )
    assert br.load(str(saved)).n_draws == 30
    assert not [file for file in saved.iterdir() if file.suffix not in (".npz", ".json", ".parquet")]


@pytest.mark.parametrize(
    "users",
    [
        [f"user {k}" for k in range(40)],
        [-(2**63), 2**63 - 1, *range(-19, 19)],
        [2**53 + k for k in range(40)],
        np.arange(40, dtype=np.uint8),
    ],
    ids=["strings", "extremes", "beyond floats", "small"],
)
def test_ids_of_every_kind_survive(frame, tmp_path, users):
    table = frame.assign(user=np.asarray(users)[frame["user"]], item=[f"i{k}" for k in frame["item"]])
    posterior = _fit(table)
    rows = table.iloc[::9]
    back = br.load(posterior.save(tmp_path / "m"))
    assert back.predict(rows).equals(posterior.predict(rows))
    assert back.predict(rows)["user"].tolist() == rows["user"].tolist()
    assert back.data.to_frame().equals(table.reset_index(drop=True))
    lists = br.recommend(back, [users[7]], n=3)
    assert lists["user"].tolist() == [users[7]] * 3
    new = rows.iloc[:3].assign(user="new" if isinstance(users[0], str) else 100)
    assert back.fold_in(new).data.n_users == 41


def test_times_whole_number_domains_and_polars_survive(frame, tmp_path):
    table = frame.assign(domain=np.where(frame["domain"] == "target", 2, 1), when=np.arange(len(frame)))
    table["when"] = pd.to_datetime(table["when"], unit="D")
    posterior = _fit(table, target=2, time="when")
    back = br.load(posterior.save(tmp_path / "m"))
    assert back.data.to_frame().equals(table)
    assert back.data.target == 2
    assert back.predict(table.head()).equals(posterior.predict(table.head()))
    other = _fit(pl.from_pandas(frame))
    assert isinstance(br.recommend(br.load(other.save(tmp_path / "p")), [1], n=2), pl.DataFrame)


def test_a_folded_posterior_survives(transfer, tmp_path, frame):
    rows = frame.head(6).assign(user=777)
    more = transfer.fold_in(rows)
    back = br.load(more.save(tmp_path / "m"))
    cells = pd.DataFrame({"user": [777, 3], "item": [1, 1]})
    assert back.predict(cells).equals(more.predict(cells))


def test_without_data_nothing_of_the_ratings_is_written(transfer, tmp_path, target_rows):
    folder = transfer.save(tmp_path / "model", data=False)
    back = br.load(folder)
    assert len(back.data) == 0
    with np.load(folder / "ratings.npz") as file:
        assert all(len(file[name]) == 0 for name in file)
    rows = target_rows.head(6)
    assert back.predict(rows).equals(transfer.predict(rows))
    assert np.array_equal(back.log_score(rows), transfer.log_score(rows))
    with pytest.raises(NotFittedError, match=r'exclude="seen" needs the training ratings.*data=False'):
        br.recommend(back, [1])
    with pytest.raises(NotFittedError, match="source_weight needs"):
        br.source_weight(back, rows)
    with pytest.raises(NotFittedError, match="relevance needs"):
        br.relevance(back)
    with pytest.raises(NotFittedError, match="log_likelihood needs"):
        back.log_likelihood()
    with pytest.raises(NotFittedError, match="needs the training ratings"):
        br.negative_transfer(back, back, rows)
    lists = br.recommend(back, [1], n=3, exclude=None)
    assert lists["source_weight"].isna().all()
    assert lists["item"].tolist() == br.recommend(transfer, [1], n=3, exclude=None)["item"].tolist()
    assert {"posterior", "log_prior"} <= set(back.to_datatree().children)
    folded = back.fold_in(rows.assign(user=777))
    assert len(folded.data) == 0
    assert len(folded.predict(rows.assign(user=777))) == 6


def test_without_data_and_with_times_fold_in_still_works(frame, tmp_path):
    posterior = _fit(frame.assign(when=np.arange(len(frame))), time="when")
    back = br.load(posterior.save(tmp_path / "m", data=False))
    assert back.fold_in(frame.head(3).assign(user=777)).data.n_users == 41


def test_what_is_not_there_cannot_be_loaded(tmp_path):
    with pytest.raises(LoadError, match=r"there is no folder '.*nowhere'"):
        br.load(tmp_path / "nowhere")
    with pytest.raises(LoadError, match=f"has no {store.META}"):
        br.load(tmp_path)


@pytest.mark.parametrize("name", ["draws.npz", "ratings.npz", "schema.npz", "users-0.parquet", "items-1.parquet"])
def test_a_changed_or_missing_file_is_named(saved, name):
    file = saved / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(LoadError, match=f"corrupt: {name}"):
        br.load(saved)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(LoadError, match=f"corrupt: {name}"):
        br.load(saved)
    file.unlink()
    with pytest.raises(LoadError, match=f"incomplete: {name} is missing"):
        br.load(saved)


def test_a_truncated_or_odd_index_is_a_load_error(saved):
    text = (saved / store.META).read_text()
    for bad in (text[: len(text) // 2], "[]", "", "{}", '{"format": "new"}'):
        (saved / store.META).write_text(bad)
        with pytest.raises(LoadError, match="cannot be read"):
            br.load(saved)


def test_a_newer_format_asks_for_an_upgrade(saved):
    _edit(saved, format=store.FORMAT + 1)
    with pytest.raises(LoadError, match=r"newer bayesrec \(format 2.*Upgrade bayesrec"):
        br.load(saved)


@pytest.mark.parametrize("name", ["Exotic", "Popen", "Path", "Likelihood"])
def test_only_registered_classes_are_built(saved, name):
    _edit(saved, model={"class": name, "fields": {}})
    with pytest.raises(LoadError, match=name):
        br.load(saved)


def test_a_model_with_unknown_options_is_a_load_error(saved):
    _edit(saved, model={"class": "PMF", "fields": {"rank": 2, "depth": 3}})
    with pytest.raises(LoadError, match="depth"):
        br.load(saved)


def test_saving_over_a_posterior_replaces_it(transfer, pmf, saved, target_rows):
    pmf.save(saved)
    assert br.load(saved).predict(target_rows).equals(pmf.predict(target_rows))
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model"]
    assert not (saved / "items-1.parquet").exists()  # nothing of the old one is left


def test_saving_over_something_else_is_refused(transfer, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    (tmp_path / "thesis.txt").write_text("words")
    for name in ("photos", "thesis.txt"):
        with pytest.raises(DataError, match=f"{name}.*is not a saved posterior; it is left alone"):
            transfer.save(tmp_path / name)
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "meow"
    assert (tmp_path / "thesis.txt").read_text() == "words"
    (tmp_path / "empty").mkdir()
    assert br.load(transfer.save(tmp_path / "empty")).n_draws == 30
    assert br.load(transfer.save(tmp_path / "new" / "deep")).n_draws == 30


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_folder_whole(pmf, saved, monkeypatch, transfer, target_rows, error):
    calls = []

    def fail(path, **arrays):
        calls.append(path)
        if len(calls) == 2:
            raise error

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(type(error)):
        pmf.save(saved)
    monkeypatch.undo()
    assert br.load(saved).predict(target_rows).equals(transfer.predict(target_rows))
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_save_that_cannot_move_into_place_puts_the_old_folder_back(pmf, saved, monkeypatch, transfer, target_rows):
    rename = Path.rename

    def fail(self, target):
        if self.name.endswith(".new"):
            raise OSError("not here")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="not here"):
        pmf.save(saved)
    assert br.load(saved).predict(target_rows).equals(transfer.predict(target_rows))
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_folder_left_half_written_by_a_killed_save_is_ignored(transfer, saved):
    left = saved.with_name(".model.1.new")
    shutil.copytree(saved, left)
    (left / store.META).unlink()
    assert br.load(saved).n_draws == transfer.n_draws
    with pytest.raises(LoadError, match="was interrupted"):
        br.load(left)
    transfer.save(saved)
    assert br.load(saved).n_draws == transfer.n_draws
