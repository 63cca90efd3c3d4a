"""A verdict in sentences and in a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from bayesrec.data.html import html_table

if TYPE_CHECKING:
    from bayesrec.diagnostics.transfer_report import TransferReport

CHOICE = (
    "Weights and verdicts are conditional on which items people chose to rate: "
    "they say nothing about items that nobody like these users rates."
)


HARMED = 0.9  # probability above which a user counts as harmed


def se_text(se: float, entity: str = "user") -> str:
    """Return the standard error in brackets' words; a single user has none. Internal."""
    return f"SE unknown, one {entity}" if np.isnan(se) else f"SE {se:.1f}"


def counted(n: int, name: str) -> str:
    """A number of things, with the plural where it belongs. Internal.

    Examples
    --------
    >>> counted(1, "user"), counted(1200, "rating")
    ('1 user', '1,200 ratings')
    """
    return f"{n:,} {name}{'' if n == 1 else 's'}"


def sentences(report: TransferReport) -> list[str]:
    """Return the verdict, the size of the difference and the probability of negative transfer. Internal."""
    source = " and ".join(map(str, report.sources)) or "the source"
    head = {
        "positive": f"The source helps: {source} improves predictions in {report.target}.",
        "negative": f"The source hurts: {source} makes predictions in {report.target} worse (negative transfer).",
        "undetermined": f"Undetermined: the held-out ratings do not say whether {source} helps in {report.target}"
        + (f" ({report.reason})." if report.reason else "."),
    }[report.verdict]
    return [
        head,
        f"Log score {report.labels[0]} minus {report.labels[1]}: {report.delta:+.1f} ({se_text(report.se, report.entity)}) over "
        f"{counted(int(report.per_user['n'].sum()), 'held-out rating')} of {counted(len(report.per_user), report.entity)}, "
        f"{report.delta_per_row:+.4f} a rating; {report.equal_user_mean:+.4f} if every {report.entity} counts the same; "
        f"{report.joint_delta:+.1f} for each {report.entity}'s ratings taken together.",
        f"Probability of negative transfer: {report.probability:.3f}.",
    ]


def summary(report: TransferReport) -> str:
    """Return the sentences, a line for each regime and metric, and who is harmed. Internal."""
    lines = sentences(report)
    for name, row in report.regimes.iterrows():
        lines.append(
            f"  {name:5s} {row['verdict']:12s} delta {row['delta']:+9.1f} ({se_text(row['se'], report.entity)}), "
            f"{row['delta_per_row']:+.4f} a rating, {counted(int(row['n_users']), report.entity)}, "
            f"P(negative) {row['probability']:.3f}"
        )
    return "\n".join([*lines, *metric_lines(report), *harm_lines(report), *report.notes, CHOICE])


def metric_lines(report: TransferReport) -> list[str]:
    """A line for each metric; none for one that nobody's ratings allow. Internal."""
    if report.metrics is None:
        return []
    return [
        f"  {name:9s} {row['with_transfer']:8.4f} with, {row['without']:8.4f} without, difference {row['difference']:+.4f} "
        f"({'SE unknown' if np.isnan(row['se']) else 'SE ' + format(row['se'], '.4f')}), P(worse) {row['harm']:.3f}"
        for name, row in report.metrics.iterrows()
        if row["users"]
    ]


def harm_lines(report: TransferReport) -> list[str]:
    """Whom the source hurts, if anybody, and how far the verdict hangs on priors. Internal."""
    out = []
    if "harm" in report.per_user:
        harmed = int((report.per_user["harm"] > HARMED).sum())
        line = (
            f"Harmed with a probability above {HARMED}: {harmed:,} of {counted(len(report.per_user), report.entity)}."
        )
        if report.segments is not None and len(report.segments):
            worst = report.segments.iloc[int(report.segments["harm"].argmax())]
            line += (
                f" Worst group: {worst['segment']} {worst['level']}, P(negative) {worst['harm']:.3f}, "
                f"{counted(int(worst['users']), report.entity)}."
            )
        out.append(line)
    if report.sensitivity is not None:
        low, high = report.sensitivity["delta_per_row"].min(), report.sensitivity["delta_per_row"].max()
        verdicts = " or ".join(dict.fromkeys(report.sensitivity["verdict"]))
        out.append(f"Priors doubled and halved, first fold: {low:+.4f} to {high:+.4f} a rating, {verdicts}.")
    return out


def card(report: TransferReport) -> str:
    """Return the verdict and the table of regimes as HTML. Internal."""
    head, *others = sentences(report)
    out = f"<p><strong>{escape(head)}</strong></p>" + "".join(f"<p>{escape(line)}</p>" for line in others)
    many = f"{report.entity}s"
    heads = (f"{many} with", "verdict", "delta", "SE", "delta a rating", many, "ratings", "P(negative)")
    rows = [
        (name, row["verdict"], f"{row['delta']:+.1f}", "" if np.isnan(row["se"]) else f"{row['se']:.1f}",
         f"{row['delta_per_row']:+.4f}", int(row["n_users"]), int(row["n_rows"]), f"{row['probability']:.3f}")
        for name, row in report.regimes.iterrows()
    ]  # fmt: skip
    names = {"cold": "no target rating", "few": "1 to 5", "warm": "more"}
    table = html_table(
        heads, [(names.get(str(name), name), *row) for name, *row in rows], "By target ratings in training"
    )
    return out + table + "".join(f"<p>{escape(line)}</p>" for line in (*report.notes, CHOICE))
