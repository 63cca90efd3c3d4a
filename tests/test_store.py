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
    """Change entries of the index, files' digests included, so that all digests are right."""
    meta = json.loads((folder / store.META).read_text()) | changes
    del meta["digest"]
    meta["files"] = {name: store._digest(folder / name) for name in meta["files"]}
    (folder / store.META).write_text(json.dumps(meta | {"digest": store._own_digest(meta)}))


def _rewrite(folder, name, **arrays):
    """Change arrays of a file; None drops one."""
    with np.load(folder / name) as file:
        arrays = dict(file) | arrays
    np.savez(folder / name, **{key: array for key, array in arrays.items() if array is not None})
    _edit(folder)


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


def test_a_changed_index_is_named(saved):
    meta = json.loads((saved / store.META).read_text())
    for change in ({"domains": ["source", "targets"]}, {"shared": "items"}, {"columns": {}}, {"note": 1}):
        (saved / store.META).write_text(json.dumps(meta | change))
        with pytest.raises(LoadError, match=f"corrupt: {store.META} is not what was written"):
            br.load(saved)
    (saved / store.META).write_text(json.dumps(meta))
    assert br.load(saved).n_draws == 30


TRANSFER = {"rank": 2, "likelihood": {"class": "Gaussian", "fields": {"user_noise": True}}, "gate": True}
GAUSSIAN = {"class": "Gaussian", "fields": {"user_noise": True}}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model": {"class": "TransferMF", "fields": TRANSFER | {"rank": 3}}}, r"draws of .* the shape .*rank=3"),
        ({"model": {"class": "TransferMF", "fields": TRANSFER | {"rank": "2"}}}, "rank must be a whole number"),
        ({"model": {"class": "TransferMF", "fields": TRANSFER | {"gate": False}}}, r"sites \['gate'\] too many"),
        ({"model": {"class": "PMF", "fields": {"rank": 2}}}, "too many and lacks"),
        ({"model": GAUSSIAN}, "model is Gaussian.*, which is no model"),
        ({"model": 3}, "model is 3, which is no model"),
        ({"model": {"class": "PMF", "fields": {"likelihood": {"class": "PMF", "fields": {}}}}}, "likelihood must be"),
        ({"method": GAUSSIAN}, "method is Gaussian.*, which is no method"),
        ({"domains": ["target"]}, "items have 2 blocks with the scopes .* there are 1 domains"),
        ({"domains": ["a", "b", "target"]}, "center in schema.npz is not a number for each of 3 domains"),
        ({"domains": ["target", "target"]}, "domains are .*, not distinct"),
        ({"domains": [None, "target"]}, "domains are .*, not distinct strings or integers"),
        ({"domains": "ab"}, "domains are 'ab'"),
        ({"shared": "items"}, "shared is 'items'"),
        ({"n_users": 39}, "n_users is 39, but 40 ids are here"),
        ({"n_items": 28}, "n_items is 28, but 27 ids"),
        ({"n_users": "40"}, "n_users is '40'"),
        ({"vocabularies": {"users": {"blocks": 0, "scopes": None}, "items": {"blocks": 2, "scopes": [0, 1]}}},
         "users are not in one block"),
        ({"vocabularies": {"users": {"blocks": 1, "scopes": None}, "items": {"blocks": 2, "scopes": [0, 0]}}},
         "item_domain in schema.npz does not say"),
        ({"vocabularies": {"users": {"blocks": 1, "scopes": None}, "items": {"blocks": 2, "scopes": [0, 5]}}},
         r"scopes \(0, 5\)"),
        ({"vocabularies": {"users": {"blocks": 1, "scopes": None}}}, "vocabularies are"),
    ],
)  # fmt: skip
def test_an_index_that_does_not_fit_the_arrays_is_a_load_error(saved, changes, fault):
    _edit(saved)
    assert br.load(saved).n_draws == 30, "the digests alone are right"
    _edit(saved, **changes)
    with pytest.raises(LoadError, match=f"cannot be read: .*{fault}"):
        br.load(saved)


@pytest.mark.parametrize(
    ("file", "arrays", "fault"),
    [
        ("draws.npz", {"noise": None}, r"lacks \['noise'\] of TransferMF"),
        ("draws.npz", {"extra": np.zeros((2, 30))}, r"sites \['extra'\] too many"),
        ("draws.npz", {"noise": np.ones((2, 29, 2), np.float32)}, r"draws of 'noise' have the shape \(2, 29, 2\)"),
        ("draws.npz", {"noise": np.ones((2, 30, 2))}, "draws of 'noise' .* the dtype float64"),
        ("draws.npz", {"noise": np.float32(1)}, r"draws of 'noise' have the shape \(\)"),
        ("stats.npz", {"log_density": np.zeros((2, 29))}, r"'log_density' in stats.npz has the shape \(2, 29\)"),
        ("schema.npz", {"scale": np.zeros(2)}, "scale in schema.npz is not positive"),
        ("schema.npz", {"center": np.array([1.0, np.nan])}, "center in schema.npz"),
        ("schema.npz", {"item_domain": np.zeros(27, int)}, "item_domain in schema.npz"),
        ("ratings.npz", {"user": np.zeros(3, int)}, r"user in ratings.npz has shape \(3,\)"),
        ("ratings.npz", {"user": 40}, r"user in ratings.npz has codes outside 0\.\.39"),
        ("ratings.npz", {"item": -1}, r"item in ratings.npz has codes outside 0\.\.26"),
        ("ratings.npz", {"domain": 5}, "domain in ratings.npz is not that of the items"),
        ("ratings.npz", {"value": np.nan}, "values are not finite"),
        ("ratings.npz", {"value": None}, "'value"),
    ],
)
def test_arrays_that_do_not_fit_are_a_load_error(saved, file, arrays, fault, transfer):
    n = len(transfer.data)
    if file == "ratings.npz":
        arrays = {name: np.full(n, x) if np.ndim(x) == 0 and x is not None else x for name, x in arrays.items()}
    _rewrite(saved, file, **arrays)
    with pytest.raises(LoadError, match=f"cannot be read: .*{fault}"):
        br.load(saved)


def test_numpy_numbers_in_the_settings_can_be_saved(frame, tmp_path):
    alone = frame[frame["domain"] == "target"].drop(columns="domain")
    data = br.Interactions.from_frame(alone, target=np.int64(3), domain=None)
    method = br.Gibbs(draws=np.int64(3), warmup=np.int16(1), chains=np.uint8(2), threads=np.int64(1))
    model = br.models.PMF(rank=np.int64(1), likelihood=br.Gaussian(user_noise=np.bool_(True)))
    posterior = br.fit(model, data, method, progress=False)
    back = br.load(posterior.save(tmp_path / "m"))
    assert back.predict(alone).equals(posterior.predict(alone))
    assert (back.model, back.method, back.data.target) == (model, method, 3)


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


def test_a_class_of_somebody_else_is_not_taken_for_ours(data, tmp_path):
    class PMF(br.models.PMF):
        pass

    posterior = br.fit(PMF(rank=1), data, br.Gibbs(draws=1, warmup=0, chains=1), progress=False)
    with pytest.raises(LoadError, match=r"names the class '.*test_store.*PMF'"):
        br.load(posterior.save(tmp_path / "other"))
