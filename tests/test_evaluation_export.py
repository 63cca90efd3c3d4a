"""Tables for people are parsed again: numbers, bold, daggers and the sentence that explains them."""

from __future__ import annotations

import html.parser
import re

import numpy as np
import pandas as pd
import pytest

from bayesrec.errors import DataError
from bayesrec.evaluation.result import COLUMNS, PAIRS, Evaluation

#: split, seed, model, kind -> rmse, order
PLANTED = {
    ("cold", "item bias", "simple"): ([0.90, 0.92], [0.60, 0.60]),
    ("cold", "item + user bias", "simple"): ([0.95, 0.97], [0.58, 0.58]),
    ("cold", "popularity", "simple"): ([np.nan, np.nan], [0.70, 0.70]),
    ("cold", "A_1 & B", "model"): ([0.80, 0.84], [0.65, 0.65]),
    ("cold", "worse|one", "model"): ([1.00, 1.10], [0.50, 0.52]),
    ("cold", "worse|one, without gate", "ablation"): ([0.85, 0.85], [0.72, 0.72]),
    ("warm", "item bias", "simple"): ([0.70, 0.70], [0.60, 0.60]),
    ("warm", "item + user bias", "simple"): ([0.60, 0.60], [0.61, 0.61]),
    ("warm", "popularity", "simple"): ([np.nan, np.nan], [0.50, 0.50]),
    ("warm", "A_1 & B", "model"): ([0.65, 0.65], [0.80, 0.80]),
    ("warm", "worse|one", "model"): ([np.nan, np.nan], [np.nan, np.nan]),
    ("warm", "worse|one, without gate", "ablation"): ([0.66, 0.66], [0.55, 0.55]),
}


@pytest.fixture(scope="module")
def result():
    rows, pairs = [], []
    for (split, model, kind), (rmse, order) in PLANTED.items():
        for metric, values in {"rmse": rmse, "order": order}.items():
            for seed, value in enumerate(values):
                method = "" if kind == "simple" else "Gibbs"
                gap = value - PLANTED[split, "item + user bias", "simple"][metric == "order"][seed]
                se = [0.03, 0.04][seed] if np.isfinite(value) else np.nan
                if kind != "simple":
                    for base in ("item bias", "item + user bias", "popularity"):
                        other = PLANTED[split, base, "simple"][metric == "order"][seed]
                        pairs.append((split, seed, method, model, metric, base, value - other, [0.01, 0.07][seed]))
                rows.append((split, seed, method, model, metric, value, se, gap, se / 2, 100, 20, 1.5, kind))
    return Evaluation(
        pd.DataFrame(rows, columns=list(COLUMNS)),
        "item + user bias",
        ("a note",),
        pd.DataFrame(pairs, columns=list(PAIRS)),
    )


def test_the_table_has_means_over_seeds_and_the_spread_between_them(result):
    table = result.table("rmse").set_index(["split", "model"])
    row = table.loc[("cold", "A_1 & B")]
    assert row["value"] == pytest.approx(0.82)
    assert row["spread"] == pytest.approx(np.std([0.80, 0.84], ddof=1))
    assert row["se"] == pytest.approx(np.sqrt((0.03**2 + 0.04**2) / 2))
    assert row["difference"] == pytest.approx((0.80 - 0.95 + 0.84 - 0.97) / 2)
    assert row["difference_se"] == pytest.approx(row["se"] / 2)
    assert (row["seeds"], row["kind"], row["metric"]) == (2, "model", "rmse")
    assert table.loc[("cold", "popularity")][["value", "se"]].isna().all()
    both = result.table(["order", "rmse"])
    assert both["metric"].drop_duplicates().tolist() == ["order", "rmse"]
    assert len(both) == 2 * len(table)


def test_one_failed_seed_is_not_averaged_away(result):
    frame = result.frame.copy()
    frame.loc[frame.query("model == 'A_1 & B' and seed == 1").index, ["value", "se", "difference"]] = np.nan
    table = Evaluation(frame, result.reference).table("rmse").query("model == 'A_1 & B'")
    assert table[["value", "se", "difference"]].isna().all(axis=None)


def test_who_is_behind_the_best_simple_baseline(result):
    behind = result.behind()
    found = {tuple(row) for row in behind[["split", "model", "metric", "baseline"]].itertuples(index=False)}
    assert found == {
        ("cold", "worse|one", "rmse", "item bias"),
        ("cold", "worse|one", "order", "popularity"),
        ("cold", "A_1 & B", "order", "popularity"),
        ("warm", "A_1 & B", "rmse", "item + user bias"),
        ("warm", "worse|one, without gate", "rmse", "item + user bias"),
        ("warm", "worse|one, without gate", "order", "item + user bias"),
    }


def test_the_difference_to_that_baseline_is_paired_and_a_mean_over_seeds(result):
    row = result.behind("rmse").query("model == 'worse|one'").iloc[0]
    assert row["difference"] == pytest.approx((1.00 - 0.90 + 1.10 - 0.92) / 2)
    assert row["difference_se"] == pytest.approx(np.sqrt((0.01**2 + 0.07**2) / 2))
    without = Evaluation(result.frame, result.reference)
    assert without.behind()["difference"].isna().all()
    assert "of item bias, order" in without.to_markdown(), "no pairs, no parentheses"


def cells_of(line):
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def read_markdown(text):
    """{split: frame of strings} and the lines under the tables."""
    tables, split = {}, None
    lines = text.splitlines()
    for k, line in enumerate(lines):
        if line.startswith("**") and ": " in line:
            split = line.strip("*").split(":")[0]
        if line.startswith("|---"):
            heads = cells_of(lines[k - 1])
            assert len(cells_of(line)) == len(heads)
            rows = []
            for row in lines[k + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append(cells_of(row))
            tables[split] = pd.DataFrame(rows, columns=heads).set_index("model")
    return tables, [line for line in lines if line and not line.startswith(("|", "**"))]


def test_markdown_comes_back_as_the_same_numbers(result):
    tables, _ = read_markdown(result.to_markdown(metrics=["rmse", "order"]))
    assert [*tables] == ["cold", "warm"]
    for split, table in tables.items():
        assert table.columns.tolist() == ["method", "RMSE", "order", "RMSE against item + user bias"]
        for row in result.table(["rmse", "order"]).groupby("split").get_group(split).itertuples():
            text = table.loc[row.model, {"rmse": "RMSE", "order": "order"}[row.metric]]
            if np.isnan(row.value):
                assert text == "-"
                continue
            numbers = [float(x) for x in re.findall(r"\d+\.\d+", text)]
            assert numbers == pytest.approx([row.value, row.se, row.spread], abs=6e-5)
            if row.metric == "rmse" and row.model != result.reference:
                gap = re.findall(r"[-+]?\d+\.\d+", table.loc[row.model].iloc[-1])
                assert [float(x) for x in gap] == pytest.approx([row.difference, row.difference_se], abs=6e-5)
    assert tables["cold"].loc["item + user bias"].iloc[-1] == ""


def test_bold_is_who_leads_and_is_ahead_of_every_baseline(result):
    tables, _ = read_markdown(result.to_markdown())
    bold = {
        (split, model, column)
        for split, table in tables.items()
        for model, row in table.iterrows()
        for column, text in row.items()
        if text.startswith("**")
    }
    assert bold == {
        ("cold", "A_1 & B", "RMSE"),
        ("cold", "worse|one, without gate", "order"),
        ("warm", "A_1 & B", "order"),
    }, "no baseline is ever bold, nor a model that is behind one"


def test_daggers_stand_where_a_baseline_wins_and_a_sentence_says_so(result):
    tables, below = read_markdown(result.to_markdown())
    marked = {
        (split, model, column.lower())
        for split, table in tables.items()
        for model, row in table.iterrows()
        for column, text in row.items()
        if text.endswith("†")
    }
    assert marked == {(row.split, row.model, row.metric) for row in result.behind().itertuples()}
    sentence = next(line for line in below if line.startswith("†"))
    assert "worse|one by Gibbs on cold: RMSE 1.0500 against 0.9100 of item bias (+0.1400, 0.0500), order" in sentence
    assert "A_1 & B by Gibbs on warm: RMSE 0.6500 against 0.6000 of item + user bias (+0.0500, 0.0500)." in sentence
    assert "without gate" not in sentence, "an ablation is expected to lose"
    assert any("failed" in line for line in below)
    assert "clustered by user" in below[0]


def test_nothing_behind_nothing_said(result):
    frame = result.frame.query("model in ['item bias', 'item + user bias', 'A_1 & B'] and split == 'cold'")
    text = Evaluation(frame, result.reference).to_markdown(metrics="rmse")
    assert "†" not in text
    assert "failed" not in text


def test_latex_is_balanced_and_has_the_same_marks(result):
    text = result.to_latex()
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    width = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    for row in rows:
        assert len(re.split(r"(?<!\\)&", row)) == len(width), row
    assert len(rows) == 1 + 12
    assert text.count(r"\midrule") == 2
    for rule in (r"\toprule", r"\bottomrule", r"\end{tabular}", r"\usepackage{booktabs}"):
        assert text.count(rule) == 1
    assert text.replace(r"\{", "").replace(r"\}", "").count("{") == text.count("}")
    assert r"A\_1 \& B" in text
    assert not re.search(r"(?<!\\)[_#$](?!-|\^)|(?<![\\ ])&|†", re.sub(r"\$-\$|\$\^\\dagger\$", "", text))
    assert text.count(r"\textbf{") == 3
    assert text.count(r"$^\dagger$") == 6 + 1
    assert "$-$0.1400" in text
    assert "†" not in text


def test_html_is_a_table_for_each_split_and_escapes_names(result):
    class Reader(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.tags, self.text = [], [], ""

        def handle_starttag(self, tag, attrs):
            self.open.append(tag)
            self.tags.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, text):
            self.text += text

    reader = Reader()
    reader.feed(result._repr_html_())
    assert not reader.open
    assert reader.tags.count("table") == 2
    assert reader.tags.count("tr") == 2 * 7
    assert reader.tags.count("b") == 3
    assert "A_1 & B" in reader.text
    assert "A_1 &amp; B" in result._repr_html_()


def test_repr_says_how_much_there_is(result):
    head, *lines = repr(result).splitlines()
    assert head == "Evaluation(2 models, 1 ablation, 3 simple baselines, 2 splits, 2 seeds, 1 note)"
    body = [line for line in lines if line.startswith("A_1 & B")]
    assert len(body) == 2
    assert "0.8200 (0.0354) [0.0283]*" in body[0]


def test_files_are_written_whole(result, tmp_path):
    for name, write in (("t.md", result.to_markdown), ("t.tex", result.to_latex)):
        assert write(tmp_path / name) == (tmp_path / name).read_text(encoding="utf-8") == write()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        result.to_markdown(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "t.md", "t.tex"]


def test_metrics_are_checked(result):
    for method in (
        result.table,
        result.behind,
        lambda m: result.to_markdown(metrics=m),
        lambda m: result.to_latex(metrics=m),
    ):
        with pytest.raises(DataError, match="did you mean 'rmse'"):
            method("rmsee")
