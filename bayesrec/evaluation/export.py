"""Tables for people: Markdown, LaTeX, HTML and plain text, all from one grid of marked cells. Internal."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayesrec.evaluation.score import METRICS, better
from bayesrec.files import beside

if TYPE_CHECKING:
    from bayesrec.evaluation.result import Evaluation

__all__ = ["behind", "html_page", "latex", "markdown", "text", "written"]

DIGITS = {"coverage": 3, "z2": 2}
HEADS = {"rmse": "RMSE", "mae": "MAE", "nlpd": "NLPD", "crps": "CRPS", "ndcg@10": "NDCG@10"}


@dataclass(frozen=True)
class Entry:
    """One number of a table: its text, and whether it is the best or behind a simple baseline."""

    text: str
    best: bool = False
    behind: bool = False


@dataclass(frozen=True)
class Block:
    """The table of one split: a title and rows of (model, method, kind, entries, difference)."""

    title: str
    rows: list[tuple[str, str, str, list[Entry], str]]


def behind(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table whose value a simple baseline beats, the best such baseline and the paired difference to it."""
    out = []
    for (split, metric), part in table.groupby(["split", "metric"], sort=False):
        top = _best(part[part["kind"] == "simple"], str(metric))
        if top is None:
            continue
        for row in part[part["kind"] != "simple"].to_dict("records"):
            if better(str(metric), top["value"], row["value"]):
                who = (split, row["model"], row["method"], metric)
                out.append((*who, row["value"], top["model"], top["value"], row["kind"]))
    keys = ["split", "model", "method", "metric", "baseline"]
    losers = pd.DataFrame(out, columns=[*keys[:4], "value", "baseline", "baseline_value", "kind"])
    squares = pairs.assign(difference_se=pairs["difference_se"].astype(float) ** 2)
    gaps = squares.groupby(keys)[["difference", "difference_se"]].mean().reset_index()
    return losers.merge(gaps.assign(difference_se=np.sqrt(gaps["difference_se"].astype(float))), on=keys, how="left")


def _best(part: pd.DataFrame, metric: str) -> pd.Series | None:
    """The best row of one metric; None for a metric that has no better and worse."""
    known, sign = part.dropna(subset="value"), METRICS[metric][0]
    if sign == 0 or known.empty:
        return None
    return known.iloc[int(np.argmax(sign * known["value"].to_numpy(dtype=float)))]


def _number(metric: str, value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.{DIGITS.get(metric, 4)}f}"


def _blocks(result: Evaluation, metrics: Sequence[str]) -> Iterator[Block]:
    table = result.table(metrics)
    losers = behind(table, result.pairs)
    lost = set(zip(losers["split"], losers["model"], losers["method"], losers["metric"], strict=True))
    for split, part in table.groupby("split", sort=False):
        leaders = {}
        for name, column in part.groupby("metric", sort=False):
            metric, simple = str(name), column["kind"] == "simple"
            top, base = _best(column[~simple], metric), _best(column[simple], metric)
            if top is not None and (base is None or better(metric, top["value"], base["value"])):
                leaders[metric] = (top["model"], top["method"])
        rows = []
        for names, row in part.groupby(["model", "method"], sort=False):
            model, method = map(str, names)
            values = row.set_index("metric")
            entries = []
            for metric in metrics:
                value, se, spread = np.asarray(values.loc[metric, ["value", "se", "spread"]], dtype=float)
                shown = _number(metric, value)
                if not np.isnan(se):
                    shown += f" ({_number(metric, se)})"
                if not np.isnan(spread):
                    shown += f" [{_number(metric, spread)}]"
                entries.append(
                    Entry(shown, leaders.get(metric) == (model, method), (split, model, method, metric) in lost)
                )
            gap, gap_se = np.asarray(values.loc[metrics[0], ["difference", "difference_se"]], dtype=float)
            shown = "-" if np.isnan(gap) else f"{gap:+.4f} ({_number('', gap_se)})"
            rows.append((model, method, values["kind"].iloc[0], entries, "" if model == result.reference else shown))
        here = result.frame[result.frame["split"] == split]
        sizes = here.drop_duplicates("seed")
        title = f"{split}: {sizes['n_rows'].mean():.0f} held-out rows of {sizes['n_users'].mean():.0f} users"
        yield Block(title + (f", {len(sizes)} seeds" if len(sizes) > 1 else ""), rows)


def _heads(result: Evaluation, metrics: Sequence[str]) -> list[str]:
    names = [HEADS.get(metric, metric) for metric in metrics]
    return ["model", "method", *names, f"{names[0]} against {result.reference}"]


def _legend(result: Evaluation, metrics: Sequence[str]) -> list[str]:
    """Sentences under the table; the second one, if any, explains the dagger."""
    several = result.frame["seed"].nunique() > 1
    who = "Standard errors, clustered by user (by item where items are shared), stand in parentheses"
    lines = [who + (", the standard deviation between seeds in brackets." if several else ".")]
    losers = result.behind(metrics)
    if len(losers):
        lines.append(_losses(losers[losers["kind"] == "model"]))
    failed = result.frame["value"].isna().groupby([result.frame[c] for c in ("model", "method", "split", "seed")]).all()
    if failed.any():
        lines.append("A row of dashes is a fit that failed; the notes of the evaluation say why.")
    return lines


def _daggered(result: Evaluation, metrics: Sequence[str], dagger: str) -> list[str]:
    return [dagger * line.startswith("Behind") + line for line in _legend(result, metrics)]


def _losses(losers: pd.DataFrame) -> str:
    """Who is behind which baseline, in words."""
    sentence = (
        "Behind the best simple baseline, as the values stand (difference and its standard error in parentheses)."
    )
    each = []
    for (model, method, split), part in losers.groupby(["model", "method", "split"], sort=False):
        gaps = (
            f"{HEADS.get(row['metric'], row['metric'])} {_number(row['metric'], row['value'])} against "
            f"{_number(row['metric'], row['baseline_value'])} of {row['baseline']}"
            f"{_gap(row['difference'], row['difference_se'])}"
            for row in part.to_dict("records")
        )
        each.append(f"{model}{f' by {method}' if method else ''} on {split}: {', '.join(gaps)}.")
    return " ".join([sentence, *each])


def _gap(value: float, se: float) -> str:
    return "" if np.isnan(value) else f" ({value:+.4f}, {_number('', se)})"


def markdown(result: Evaluation, metrics: Sequence[str]) -> str:
    """Return one table for each split."""

    def mark(entry: Entry) -> str:
        return (f"**{entry.text}**" if entry.best else entry.text) + (" †" if entry.behind else "")

    out, heads = [], [name.replace("|", r"\|") for name in _heads(result, metrics)]
    for block in _blocks(result, metrics):
        out += [f"**{block.title}**", "", f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
        for model, method, _, entries, gap in block.rows:
            cells = [model.replace("|", r"\|"), method.replace("|", r"\|"), *map(mark, entries), gap]
            out.append(f"| {' | '.join(cells)} |")
        out.append("")
    return "\n".join(out + [line + "\n" for line in _daggered(result, metrics, "† ")])


TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    c: "\\" + c for c in "&%$#_{}"
}


def _tex(value: str) -> str:
    """Plain text for LaTeX; a minus before a digit is a real one."""
    escaped = "".join(TEX.get(c, c) for c in value)
    return re.sub(r"(?<![\w.])-(?=[\d.])", "$-$", escaped)


def latex(result: Evaluation, metrics: Sequence[str]) -> str:
    """Return one tabular, a block for each split, and the sentences under it."""
    heads = _heads(result, metrics)
    lines = ["% needs \\usepackage{booktabs}", f"\\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}", "\\toprule"]
    lines.append(" & ".join(map(_tex, heads)) + r" \\")
    for block in _blocks(result, metrics):
        lines += ["\\midrule", f"\\multicolumn{{{len(heads)}}}{{l}}{{\\textit{{{_tex(block.title)}}}}} \\\\"]
        for model, method, _, entries, gap in block.rows:
            cells = [_tex(model), _tex(method)]
            for entry in entries:
                shown = f"\\textbf{{{_tex(entry.text)}}}" if entry.best else _tex(entry.text)
                cells.append(shown + ("$^\\dagger$" if entry.behind else ""))
            lines.append(" & ".join([*cells, _tex(gap)]) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}", ""]
    for line in _legend(result, metrics):
        lines += ["", (r"$^\dagger$ " if line.startswith("Behind") else "") + _tex(line)]
    return "\n".join(lines) + "\n"


def text(result: Evaluation, metrics: Sequence[str]) -> str:
    """Return plain text in columns."""

    def mark(entry: Entry) -> str:
        return entry.text + ("*" if entry.best else "") + (" †" if entry.behind else "")

    return _text(result, metrics, mark)


def _text(result: Evaluation, metrics: Sequence[str], mark: Callable[[Entry], str]) -> str:
    heads, out = _heads(result, metrics), []
    for block in _blocks(result, metrics):
        rows = [heads] + [[m, how, *map(mark, entries), gap] for m, how, _, entries, gap in block.rows]
        widths = [max(len(row[k]) for row in rows) for k in range(len(heads))]
        out.append("\n" + block.title)
        out += ["  ".join(c.ljust(w) if k < 2 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip()
                for row in rows]  # fmt: skip
    return "\n".join([*out, "", *_daggered(result, metrics, "† ")])


def html_page(result: Evaluation, metrics: Sequence[str]) -> str:
    """Return HTML for a notebook."""

    def mark(entry: Entry) -> str:
        shown = html.escape(entry.text)
        return (f"<b>{shown}</b>" if entry.best else shown) + (" †" if entry.behind else "")

    out, head = [], "".join(f"<th>{html.escape(name)}</th>" for name in _heads(result, metrics))
    for block in _blocks(result, metrics):
        rows = ""
        for model, method, _, entries, gap in block.rows:
            cells = [html.escape(model), html.escape(method), *map(mark, entries), html.escape(gap)]
            rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        caption = f"<caption>{html.escape(block.title)}</caption>"
        out.append(f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    return "".join(out) + "".join(f"<p>{html.escape(line)}</p>" for line in _daggered(result, metrics, "† "))


def written(content: str, path: str | Path | None) -> str:
    """Return the content, after writing it to a file whole or not at all."""
    if path is not None:
        with beside(Path(path)) as fresh:
            fresh.write_text(content, encoding="utf-8")
    return content
