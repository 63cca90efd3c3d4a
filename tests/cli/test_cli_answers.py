"""bayesrec predict and recommend: the numbers of the Python API, bit for bit; ids matched as they are written."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec.cli import answers
from bayesrec.data import Vocabulary
from bayesrec.tables import read_table, write_table

IDS = ["user", "item"]


def from_csv(text):
    """The printed CSV, by pandas and Python's own float, which rounds correctly."""
    frame = pd.read_csv(io.StringIO(text), dtype=str)
    for name in frame.columns:
        if name in ("mean", "sd", "lower", "upper", "score", "source_weight"):
            frame[name] = [float(word) for word in frame[name]]
    return frame.astype({name: "int64" for name in ("user", "item", "rank") if name in frame})


def test_predictions_are_those_of_the_python_api(run, model, folder, transfer):
    cells = pd.read_csv(folder / "cells.csv")
    for words, level in (((), 0.9), (("--level", 0.5), 0.5)):
        done = run("predict", model, folder / "cells.csv", *words)
        pd.testing.assert_frame_equal(from_csv(done.out), transfer.predict(cells, level=level), check_exact=True)
        assert done.err == ""


def test_a_table_with_domains_keeps_its_order_and_loses_other_columns(run, model, frame, tmp_path, transfer):
    rows = frame.sample(20, random_state=1).reset_index(drop=True)
    table = write_table(rows.assign(note="x"), tmp_path / "t.csv")
    found = from_csv(run("predict", model, table).out)
    assert list(found.columns) == ["user", "item", "domain", "mean", "sd", "lower", "upper"]
    expected = transfer.predict(rows)
    np.testing.assert_array_equal(found.drop(columns="domain"), expected.drop(columns="domain"))
    assert found["domain"].tolist() == rows["domain"].tolist()


@pytest.mark.parametrize("suffix", [".csv.gz", ".tsv", ".jsonl", ".parquet"])
def test_answers_go_to_any_format(run, model, folder, tmp_path, transfer, suffix):
    out = tmp_path / f"p{suffix}"
    done = run("predict", model, folder / "cells.csv", "--out", out)
    assert done.out == ""
    assert f"wrote 7 rows to {out}" in done.err
    pd.testing.assert_frame_equal(
        read_table(out), transfer.predict(pd.read_csv(folder / "cells.csv")), check_exact=True
    )


def test_json_holds_the_same_records(run, model, folder, tmp_path, transfer):
    expected = transfer.predict(pd.read_csv(folder / "cells.csv"))
    found = run("predict", model, folder / "cells.csv", "--json").json()
    assert (found["model"], found["level"], found["rows"], found["warnings"]) == (str(model), 0.9, 7, [])
    pd.testing.assert_frame_equal(pd.DataFrame(found["records"]), expected, check_exact=True)
    found = run("predict", model, folder / "cells.csv", "--json", "--out", tmp_path / "p.csv").json()
    assert found["path"] == str(tmp_path / "p.csv")
    assert "records" not in found


def test_unknown_and_text_ids_are_the_population(run, model, tmp_path, transfer):
    table = tmp_path / "t.csv"
    table.write_text("user,item\n3,4\n007,4\nnew,4\n999,nothing\n")
    found = pd.read_csv(io.StringIO(run("predict", model, table).out), dtype={"user": str, "item": str})
    assert found["user"].tolist() == ["3", "007", "new", "999"]
    cells = pd.DataFrame({"user": [3, -1, -1, -1], "item": [4, 4, 4, -1]})
    expected = transfer.predict(cells)["mean"]
    np.testing.assert_allclose(found["mean"], expected, rtol=1e-12)
    assert found["mean"].iloc[1] == found["mean"].iloc[2] != found["mean"].iloc[0]


@pytest.fixture(scope="module")
def texts(frame, tmp_path_factory):
    """A model whose user ids are text, some of them digits, and whose items are integers."""
    path = tmp_path_factory.mktemp("texts")
    named = frame.assign(user=["u" + str(u) if u < 3 else str(u) for u in frame["user"]])
    data = br.Interactions.from_frame(named, target="target")
    posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=10, warmup=5, chains=2), progress=False)
    return SimpleNamespace(path=posterior.save(path / "m"), posterior=posterior)


def test_digits_match_a_model_of_text_ids(run, texts, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("user,item\n7,4\n8,4\n")  # all whole: they would be integers
    found = pd.read_csv(io.StringIO(run("predict", texts.path, table).out))
    expected = texts.posterior.predict(pd.DataFrame({"user": ["7", "8"], "item": [4, 4]}))
    np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-12)
    unknown = texts.posterior.predict(pd.DataFrame({"user": ["?"], "item": [4]}))["mean"][0]
    assert (abs(found["mean"] - unknown) > 1e-9).all(), "the users were not recognised"
    done = run("recommend", texts.path, "--users", "7,u1", "-n", 2)
    assert "note" not in done.err
    assert "user 'u_1' was not in the fit (did you mean 'u1'?)" in run("recommend", texts.path, "--users", "u_1").err
    assert [line.split(",")[0] for line in done.out.splitlines()[1:]] == ["7", "7", "u1", "u1"]


@pytest.mark.parametrize(
    ("known", "given", "expected"),
    [
        ([1, 2], ["1", "02", "x"], [1, "02", "x"]),
        ([1, 2], ["1", "2"], [1, 2]),
        ([1, 2], [5, 6], [5, 6]),
        (["1", "b"], [1, 2], ["1", "2"]),
        (["1", "b"], ["01", "b"], ["01", "b"]),
    ],
)
def test_ids_take_the_type_of_the_vocabulary(known, given, expected):
    found = answers.as_known(pd.Series(given), Vocabulary.from_ids(known))
    assert found.tolist() == expected
    assert [type(x) for x in found.tolist()] == [type(x) for x in expected]


@pytest.mark.parametrize("by", ["mean", "ucb", "lcb", "thompson", "prob_best"])
def test_lists_are_those_of_the_python_api(run, model, transfer, by):
    found = run("recommend", model, "--users", "5, 11", "-n", 3, "--by", by, "--seed", 2, "--level", 0.8)
    expected = br.recommend(transfer, [5, 11], n=3, by=by, seed=2, level=0.8)
    pd.testing.assert_frame_equal(from_csv(found.out), expected, check_exact=True)


def test_exclude_none_all_and_files(run, model, transfer, tmp_path):
    found = run("recommend", model, "--users", "5", "-n", 12, "--exclude", "none")
    pd.testing.assert_frame_equal(
        from_csv(found.out), br.recommend(transfer, [5], n=12, exclude=None), check_exact=True
    )
    everyone = run("recommend", model, "--all", "-n", 1)
    pd.testing.assert_frame_equal(
        from_csv(everyone.out), br.recommend(transfer, list(range(40)), n=1), check_exact=True
    )
    expected = run("recommend", model, "--users", "8,3").out
    (tmp_path / "u.txt").write_text("\ufeff8\r\n\r\n3\r\n")
    (tmp_path / "u.csv").write_text("user,note\n8,x\n3,y\n8,z\n")
    (tmp_path / "u.jsonl").write_text('{"user": 8}\n{"user": "3"}\n')
    for name in ("u.txt", "u.csv", "u.jsonl"):
        assert run("recommend", model, "--users-file", tmp_path / name).out == expected, name


def test_unknown_users_are_noted_and_ranked_from_the_population(run, model, transfer):
    done = run("recommend", model, "--users", "5,1000,x,y,z", "-n", 1)
    assert "note: user 1000 was not in the fit: ranked from the population" in done.err
    assert "so were 1 users more" in done.err
    lines = [line.split(",") for line in done.out.splitlines()[1:]]
    assert [line[0] for line in lines] == ["5", "1000", "x", "y", "z"]
    assert float(lines[1][3]) == br.recommend(transfer, [1000], n=1)["score"][0]
    assert lines[0][2:] != lines[1][2:]


def test_a_short_list_is_a_warning_line_and_in_the_json(run, model):
    done = run("recommend", model, "--users", "5", "-n", 100, "--json")
    assert "fewer than 100 candidates" in done.json()["warnings"][0]
    assert done.err.startswith("warning: 1 of 1 users")


def test_a_warning_is_told_once_and_others_warnings_are_left_alone(capsys):
    import warnings

    def speak():
        with answers.heard() as lines:
            for text in ("a", "a", "b"):
                warnings.warn(text, br.errors.DataWarning, stacklevel=1)
            warnings.simplefilter("always", UserWarning)
            warnings.warn("not ours", UserWarning, stacklevel=1)
        return lines

    with pytest.warns(UserWarning, match="not ours"):
        lines = speak()
    assert lines == ["a", "b"]
    assert capsys.readouterr().err == "warning: a\nwarning: b\n"


def test_a_terminal_gets_a_drawn_table(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    frame = pd.DataFrame({"user": np.arange(60), "mean": np.linspace(1, 5, 60)})
    answers.put(frame, None, False, {}, [])
    shown = capsys.readouterr()
    assert "1.000" in shown.out
    assert "user" in shown.out
    assert "," not in shown.out
    assert "the first 50 of 60 rows" in shown.err
    assert len([line for line in shown.out.splitlines() if line.strip()]) == 52


def test_what_is_missing_in_an_answer_is_null(capsys):
    answers.put(pd.DataFrame({"user": [1], "source_weight": [np.nan]}), None, True, {}, [])
    assert json.loads(capsys.readouterr().out)["records"] == [{"user": 1, "source_weight": None}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "one of --users, --users-file and --all"),
        (("--users", "1", "--all"), "one of --users, --users-file and --all"),
        (("--users", ","), "users is empty"),
        (("--users", "1,1"), "user 1 is named twice"),
        (("--users", "1", "--exclude", "all"), "--exclude must be seen or none"),
        (("--users", "1", "--by", "best"), "unknown rule 'best'"),
        (("--users", "1", "-n", 0), "n must be a whole number of at least 1"),
        (("--users", "1", "--level", 2), "level must lie strictly between 0 and 1"),
        (("--users", "1", "--out", "a.cvs"), "did you mean '.csv'"),
        (("--users-file", "nobody.txt"), "cannot be read: No such file"),
        (("--users-file", "nobody.csv"), "there is no file 'nobody.csv'"),
    ],
)
def test_recommend_says_what_does_not_fit(refused, model, words, message):
    assert message in refused("recommend", model, *words)


def test_models_and_tables_in_each_others_place(refused, model, folder, tmp_path):
    assert "is a file; a model folder is expected" in refused("predict", folder / "cells.csv", folder / "cells.csv")
    assert "is a model folder; a table is expected" in refused("predict", model, model)
    assert "did you mean 'model'?" in refused("predict", model.parent / "modl", folder / "cells.csv")
    assert "no bayesrec.json" in refused("predict", folder, folder / "cells.csv")
    (tmp_path / "t.csv").write_text("user,itm\n1,2\n")
    assert "no column 'item' for items, as the model's table had them" in refused("predict", model, tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("user,item,domain\n1,2,film\n")
    assert "unknown domain 'film' in row 0" in refused("predict", model, tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("user,item\n1,2\n1,\n")
    assert "'item' has 1 missing value(s), the first in row 1" in refused("predict", model, tmp_path / "t.csv")


def test_disk_full_leaves_the_old_answers(refused, run, model, folder, tmp_path, monkeypatch):
    import errno
    from pathlib import Path

    out = tmp_path / "p.csv"
    run("predict", model, folder / "cells.csv", "--out", out)
    before = out.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    assert "the disk is full" in refused("predict", model, folder / "cells.csv", "--level", 0.5, "--out", out)
    assert out.read_bytes() == before
