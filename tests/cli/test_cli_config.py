"""The config file: defaults for a command, which the command line overrides; nothing in it is passed over."""

from __future__ import annotations

import pytest
from typer.main import get_command

import bayesrec as br
from bayesrec.cli import app
from bayesrec.cli.config import DATA
from bayesrec.cli.options import DataOptions


@pytest.fixture
def config(tmp_path, folder):
    def write(text):
        path = tmp_path / "bayesrec.toml"
        path.write_text(text.replace("FOLDER", str(folder)))
        return path

    return write


WHOLE = """
[data]
tables = ["FOLDER/ratings.csv"]
target = "target"

[fit]
rank = 1
draws = 6
warmup = 4
chains = 2

[assess]
n-support = 1
folds = 3

[recommend]
all = true
n = 2
by = "ucb"
exclude = "none"
"""


def test_a_file_gives_defaults_and_the_command_line_wins(run, config, tmp_path):
    run("fit", "--config", config(WHOLE), "--out", tmp_path / "m")
    posterior = br.load(tmp_path / "m")
    assert posterior.model.rank == 1
    assert posterior.method == br.Gibbs(draws=6, warmup=4, chains=2)
    run("fit", "--draws", 8, "--config", config(WHOLE), "--rank", 2, "--out", tmp_path / "m")
    posterior = br.load(tmp_path / "m")
    assert posterior.model.rank == 2
    assert posterior.method == br.Gibbs(draws=8, warmup=4, chains=2)


def test_a_table_on_the_command_line_replaces_those_of_the_file(run, refused, config, folder, tmp_path):
    text = WHOLE.replace('["FOLDER/ratings.csv"]', '"FOLDER/nowhere.csv"')
    assert "no file" in refused("fit", "--config", config(text), "--out", tmp_path / "m")
    run("fit", folder / "ratings.csv", "--config", config(text), "--out", tmp_path / "m")


def test_several_named_tables(run, config, tmp_path):
    text = WHOLE.replace('["FOLDER/ratings.csv"]', '["a=FOLDER/books.csv", "target=FOLDER/music.csv"]')
    run("fit", "--config", config(text), "--out", tmp_path / "m")
    assert br.load(tmp_path / "m").data.sources == ("a",)


def test_other_commands_take_their_own_table(run, model, config, transfer):
    done = run("recommend", model, "--config", config(WHOLE), "--json")
    assert (done.json()["n"], done.json()["by"], done.json()["rows"]) == (2, "ucb", 80)
    done = run(
        "recommend", model, "--config", config("[data]\ntarget = 'x'\n[recommend]\nusers = '5'\n"), "-n", 1, "--json"
    )
    assert done.json()["rows"] == 1, "[data] does not bother a command that reads no ratings"


def test_a_commands_own_table_wins_over_the_shared_one(refused, config, tmp_path):
    text = WHOLE.replace("[data]", '[data]\nuser = "u1"').replace("[fit]", '[fit]\nuser = "u2"')
    assert "no column 'u2' for --user" in refused("fit", "--config", config(text), "--out", tmp_path / "m")
    assert "no column 'u1' for --user" in refused("assess", "--config", config(text))
    line = refused("fit", "--user", "u3", "--config", config(text), "--out", tmp_path / "m")
    assert "no column 'u3' for --user" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fit]\nrnk = 3\n", "[fit]: unknown key 'rnk' (did you mean 'rank'?)"),
        ("[data]\ntraget = 'x'\n", "[data]: unknown key 'traget' (did you mean 'target'?)"),
        ("[asses]\nfolds = 3\n", "unknown table 'asses' (did you mean 'assess'?); it may have [data], [fit]"),
        ("target = 'x'\n", "unknown key outside a table, 'target'"),
        ("[recommend]\nrank = 3\n", "[recommend]: unknown key 'rank'"),
        ("[assess]\nfold = 3\n", "did you mean 'folds'"),
        ("[fit]\nrank = 'many'\n", "--rank"),
        ("[fit]\nrank = \n", "is no TOML"),
        ("[fit]\nconfig = 'x'\n", "unknown key 'config'"),
        ("fit = 3\n", "unknown key outside a table, 'fit'"),
    ],
)
def test_what_is_not_known_is_an_error_even_in_another_commands_table(refused, config, folder, tmp_path, text, message):
    words = ("fit", folder / "ratings.csv", "--target", "target", "--out", tmp_path / "m", "--config")
    assert message in refused(*words, config(text))
    assert not (tmp_path / "m").exists()


def test_a_file_that_is_not_there(refused, tmp_path):
    assert "cannot be read: No such file" in refused("fit", "--config", tmp_path / "no.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    assert "is no TOML" in refused("fit", "--config", tmp_path / "x.toml")


def test_the_shared_keys_are_those_of_the_data_options():
    from dataclasses import fields

    assert tuple(field.name for field in fields(DataOptions)) == DATA


@pytest.mark.parametrize("command", ["fit", "predict", "recommend", "assess", "report"])
def test_every_option_of_every_command_may_stand_in_a_file(refused, config, command):
    params = [p for p in get_command(app).commands[command].params if p.name not in ("config", "help")]
    keys = [next((word[2:] for word in p.opts if word.startswith("--")), p.name) for p in params]
    every = "\n".join(f'"{key}" = "x"' for key in keys)
    line = refused(command, "--config", config(f"[{command}]\n{every}\nunknown_one = 1\n"))
    assert "unknown key 'unknown_one'" in line
    assert all(key.replace("-", "_") in line for key in keys)
