"""Every example runs with --smoke."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_runs(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--smoke"])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_is_short(path):
    assert len(path.read_text().splitlines()) <= 80


def test_there_are_four():
    assert len(EXAMPLES) == 4


def test_a_cold_user_becomes_known(capsys):
    """Every answer leaves less uncertainty: a property of the posterior means of variances, with room in every step."""
    example = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "cold_user.py"))
    nothing, one, two = example["main"](smoke=True)
    assert two < one < nothing
    assert "After the second" in capsys.readouterr().out
