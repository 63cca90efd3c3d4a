"""docs/command_line.md keeps its word: its commands run in order, its tables of keys and options are complete."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from bayesrec.cli import app
from bayesrec.cli.options import MethodOptions

PAGE = Path(__file__).parents[2] / "docs" / "command_line.md"
TEXT = PAGE.read_text()


def commands(block):
    """The commands of a block of shell: lines, joined while a quote is open."""
    open_lines = ""
    for line in block.splitlines():
        open_lines += line + "\n"
        try:
            words = shlex.split(open_lines)
        except ValueError:
            continue
        open_lines = ""
        if words:
            yield words


def keys(command):
    part = re.split(r"^`", TEXT.split("## JSON for machines")[1], flags=re.MULTILINE)
    table = next(p for p in part if p.startswith((f"{command}`", f"{command}` and")) or f" `{command}`:" in p[:30])
    cells = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


@pytest.fixture(scope="module")
def ran(run, tmp_path_factory):
    """Run every bash block in order, in one folder; returns the folder and the last output of each command."""
    folder, said = tmp_path_factory.mktemp("docs"), {}
    (folder / "bayesrec.toml").write_text(re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL):
            for words in commands(block):
                if words[:2] == ["python", "-c"]:
                    exec(compile(words[2], "<docs>", "exec"), {})
                else:
                    assert words[0] == "bayesrec"
                    said[words[1]] = run(*words[1:]).out
        said["fit --json"] = run("fit", *shlex.split("--config bayesrec.toml --draws 5 --warmup 5 --out m --json")).out
        quick = shlex.split("--config bayesrec.toml --draws 5 --warmup 5 --rank 1 --folds 2 --json")
        said["assess --json"] = run("assess", *quick).out
        said["predict --json"] = run("predict", "model", "wanted.csv", "--json").out
        said["report --json"] = run("report", "model", "--no-verdict", "--json").out
    return folder, said


def test_every_command_runs_and_leaves_its_files(ran):
    folder, said = ran
    files = {"ratings.csv", "wanted.csv", "verdict.html", "model", "predictions.parquet", "lists.csv.gz", "report.html"}
    assert files <= {p.name for p in folder.iterdir()}
    assert said["assess"].startswith("The source helps: book improves predictions in music.")
    assert set(said) >= {"assess", "fit", "predict", "recommend", "report"}
    assert (folder / "ratings.csv").read_text().startswith("user,item,domain,rating\n0,1,book,3.28\n0,4,book,3.75\n")


@pytest.mark.parametrize("command", ["fit", "predict", "recommend", "assess"])
def test_the_page_names_every_key_of_the_json(ran, command):
    _, said = ran
    found = json.loads(said["recommend" if command == "recommend" else f"{command} --json"])
    nested = set(found.get("convergence", {})) | {key for entry in found.get("regimes", ()) for key in entry}
    described = keys("predict" if command == "recommend" else command)
    text = TEXT.split("## JSON for machines")[1]
    assert set(found) <= described | ({"by", "n"} if command == "recommend" else set())
    assert all(f"`{key}`" in text for key in nested)
    if command not in ("predict", "recommend"):
        assert described <= set(found)
    assert set(json.loads(said["report --json"])) == {"model", "path", "warnings"}


def test_the_page_names_every_command_and_every_method_option():
    for name in get_command(app).commands:
        assert f"`bayesrec {name}" in TEXT
    for field in MethodOptions.__dataclass_fields__:
        assert "--" + field.replace("_", "-") in TEXT
