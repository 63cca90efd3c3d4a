"""A runner, tables of the shared tiny data, and a saved model of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from bayesrec.cli import app


@pytest.fixture(scope="session")
def run():
    """Run the command line in this process: exit code, stdout, stderr; `json` parses stdout."""

    def call(*words, code=0):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == code, f"exit {done.exit_code}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.output
        return SimpleNamespace(out=done.stdout, err=done.stderr, json=lambda: json.loads(done.stdout))

    return call


@pytest.fixture(scope="session")
def refused(run):
    """Run a command line that must end with code 2, nothing on stdout, and one last line `error: ...`; return it."""

    def call(*words):
        done = run(*words, code=2)
        lines = done.err.strip().splitlines()
        assert done.out == ""
        assert lines[-1].startswith("error: ")
        assert sum(line.startswith("error") for line in lines) == 1
        return lines[-1]

    return call


@pytest.fixture(scope="session")
def folder(frame, tmp_path_factory) -> Path:
    """ratings.csv with all domains; books.csv and music.csv with one each; cells.csv with users and items only."""
    path = tmp_path_factory.mktemp("tables")
    frame.to_csv(path / "ratings.csv", index=False)
    for name, domain in (("books", "source"), ("music", "target")):
        frame[frame["domain"] == domain].drop(columns="domain").to_csv(path / f"{name}.csv", index=False)
    frame[frame["domain"] == "target"][["user", "item"]].head(7).to_csv(path / "cells.csv", index=False)
    return path


@pytest.fixture(scope="session")
def model(transfer, tmp_path_factory) -> Path:
    """The session's TransferMF posterior as a model folder."""
    return transfer.save(tmp_path_factory.mktemp("models") / "model")
