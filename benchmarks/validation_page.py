"""docs/validation.md and its figures, from what validate.py found."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bayesrec.plots import GRID, INK, MUTED, OWN, SOURCE
from bayesrec.testing import Ranks, ecdf_band

DOCS = Path(__file__).parents[1] / "docs"
ALPHA, COLUMNS = 0.05, 5
METHODS = {
    "Gibbs": "Gibbs is exact: every quantity should be uniform.",
    "SVI": "SVI is an approximation: the table says where it fails, and by how much.",
    "NUTS": "NUTS, on smaller data, 57 draws after 60 of warm-up: where a quantity is not uniform chains were too short.",
}


def report(claims: dict[str, bool]) -> None:
    """Print which claims hold."""
    for claim, holds in claims.items():
        print(f"  {'holds' if holds else 'FAILS'}: {claim}")


def write(found: dict[str, Any], seed: int, version: str) -> None:
    """Write the sections that were run, and their figures; the others stay as the page has them, with their dates."""
    page = DOCS / "validation.md"
    old = {part.split("\n", 1)[0]: part for part in page.read_text().split("\n## ")[1:]} if page.exists() else {}
    stamp = f"*bayesrec {version}, seed {seed}, {date.today().isoformat()}.*"
    calibration = "Simulation-based calibration"
    fresh = {calibration: lambda: _sbc(found["sbc"], old.get(calibration, ""), stamp) if found.get("sbc") else None}
    fresh["Operating characteristics"] = lambda: _operating(*found["operating"]) if found.get("operating") else None
    fresh["Placebo"] = lambda: _placebo(*found["placebo"]) if found.get("placebo") else None
    parts = [HEAD]
    for title, make in fresh.items():
        body = make()
        if body is not None:
            parts.append(f"## {title}\n\n{body}" if title == calibration else f"## {title}\n\n{stamp}\n\n{body}")
        else:
            parts.append("## " + old[title].strip() if title in old else f"## {title}\n\nNot run yet.")
    page.write_text("\n\n".join(parts) + "\n")


HEAD = """# Validation

`make validate` makes this page, section by section; each says when. It takes hours, and goes on where it stopped; nothing here is
edited by hand. The quick tests of the same samplers are in `tests/`.

A whole run has 500 replications for Gibbs, 200 for SVI and for each point of the operating characteristics, 100 for NUTS, and 10
seeds for each pair of the placebo. Where a section has fewer the bands are wide, and what is not there is not claimed."""


def _sbc(found: dict[tuple[str, str], Ranks], before: str, stamp: str) -> str:
    """The section on calibration: a date, a table for each model and a figure for each method; methods not run stay."""
    kept = {part.split("\n", 1)[0]: part.strip() for part in before.split("\n### ")[1:]}
    out = [
        """Latents are drawn from a model's prior, ratings given them on a fixed design, the model is fitted to them, and the
truth is ranked among thinned draws ([Talts et al. 2018](https://arxiv.org/abs/1804.06788)). Ranks of a sampler that draws from
the posterior are uniform, for parameters and for functions of parameters and data, such as the log density of the ratings. A
quantity is *uniform* if its ECDF stays in the simultaneous band at .05 over the number of quantities of its table. *Distance* is
the largest of ECDF and diagonal, *ess* the median effective size of the draws. Predictions are of a cold user, and of a warm
user's rated and new item. The designs have ten users (five for NUTS, with one noise level a domain)."""
    ]
    for method, words in METHODS.items():
        cases = {model: ranks for (name, model), ranks in found.items() if name == method}
        if not cases:
            out.append("### " + kept.get(method, f"{method}\n\n{words}\n\nNot run yet."))
            continue
        out.append(f"### {method}\n\n{stamp}\n\n{words}")
        for model, ranks in cases.items():
            n, failed = len(ranks.ranks) + len(ranks.failures), len(ranks.failures)
            left = "none failed" if not failed else f"{failed} failed and have no rank"
            out.append(f"{model}, {n} replications, {left}; {ranks.L} draws.")
            out.append(_markdown(ranks.table(ALPHA).drop(columns="n")))
        file = f"images/sbc_{method.lower()}.png"
        _ecdfs(cases).savefig(DOCS / file, dpi=110)
        out.append(f"![ECDF less the diagonal, with the bands, for every quantity under {method}]({file})")
    return "\n\n".join(out)


def _operating(table: pd.DataFrame, claims: dict[str, bool]) -> str:
    _ratios(table).savefig(DOCS / "images/operating.png", dpi=110)
    shown = [
        "n",
        "ratio",
        "upper",
        "coverage",
        "P(negative)",
        "positive",
        "undetermined",
        "negative",
    ]
    pooled = ["ratio", "upper", "coverage", "P(negative)", "positive", "undetermined", "negative"]
    return f"""Synthetic tables of 300 users with 20 source and 20 target ratings; every user is cold once, in one of two folds,
with all target ratings held out. From *none* to *large* an independent part of growing size is added to the users'
factors; of *hostile* users the target factors have nothing to do with the source's. *Ratio* is the RMSE with over
that without the source, the same model otherwise, and *upper* the end of its one-sided 95% interval; *coverage* is
that of 90% intervals. Verdicts are those of `br.assess_transfer`.

{_markdown(table[shown])}

CollectiveMF, which pools the domains and has no gate, on the same tables: what a verdict must find.

{_markdown(table[[f"pooled {name}" for name in pooled]].rename(columns=lambda name: name.removeprefix("pooled ")))}

![RMSE with over without the source, by discrepancy](images/operating.png)

{_claims(claims)}"""


def _placebo(table: pd.DataFrame, claims: dict[str, bool]) -> str:
    return f"""Real pairs of domains whose source users' histories are deranged: there is nothing to transfer. TransferMF against
itself without the source, on cold users; *delta* is the summed log-score difference, *change* that of the RMSE, relative;
standard errors are clustered by user.

{_markdown(table)}

{_claims(claims)}"""


def _claims(claims: dict[str, bool]) -> str:
    return "\n".join(f"* {'Holds' if holds else '**Fails**'}: {claim}." for claim, holds in claims.items())


def _markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, its index first."""
    rows = [["", *map(str, table.columns)], ["---"] * (len(table.columns) + 1)]
    rows += [
        [str(name), *map(_number, row)] for name, row in zip(table.index, table.to_numpy(dtype=object), strict=True)
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _number(x: Any) -> str:
    if isinstance(x, (bool, np.bool_)):
        return "yes" if x else "**no**"
    if float(x).is_integer():
        return f"{x:.0f}"
    if abs(x) < 5e-5:
        return "< .0001"
    digits = 1 if abs(x) >= 10 else 4 if abs(x) < 0.1 else 3
    return f"{x:.{digits}f}".replace("0.", ".", 1) if abs(x) < 1 else f"{x:.{digits}f}"


def _ecdfs(cases: dict[str, Ranks]) -> Figure:
    """ECDF less the diagonal for each quantity, a block of panels for each model."""
    panels = [(model, name) for model, ranks in cases.items() for name in ranks.ranks]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(2.2 * COLUMNS, 1.75 * rows), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True).ravel()
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for ax, (model, name) in zip(axes, panels, strict=False):
        ranks = cases[model]
        n, L = len(ranks.ranks), ranks.L
        grid = np.arange(1, L + 2) / (L + 1)
        lower, upper = ecdf_band(n, L, 1.0 - ALPHA / ranks.ranks.shape[1])
        ecdf = np.cumsum(np.bincount(ranks.ranks[name], minlength=L + 1)) / n
        ax.fill_between(grid, lower - grid, upper - grid, step="mid", color=GRID, linewidth=0)
        inside = ((ecdf >= lower - 1e-12) & (ecdf <= upper + 1e-12)).all()
        ax.step(grid, ecdf - grid, where="mid", color=SOURCE if inside else OWN, linewidth=1.1)
        ax.set_title(f"{model}: {name}", fontsize=7.5, color=INK, loc="left")
        ax.tick_params(labelsize=6.5, colors=MUTED)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _ratios(table: pd.DataFrame) -> Figure:
    """RMSE ratios with their upper bounds, by point."""
    figure = Figure(figsize=(7.6, 3.4), layout="constrained", facecolor="white")
    ax, y = figure.subplots(), np.arange(len(table))[::-1]
    for label, name, color in (("", "TransferMF", SOURCE), ("pooled ", "CollectiveMF", OWN)):
        ratio = table[f"{label}ratio"].astype(float)
        error = table[f"{label}upper"].astype(float) - ratio
        ax.errorbar(ratio, y, xerr=error, fmt="o", color=color, markersize=5, linewidth=1.2, label=name)
    ax.axvline(1.0, color=MUTED, linewidth=0.8)
    ax.set_yticks(y, table.index, fontsize=9, color=INK)
    ax.set_xlabel("RMSE of cold users, with over without the source", fontsize=9, color=INK)
    ax.legend(frameon=False, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
