"""Plots of a transfer, drawn with matplotlib (extra ``plots``). Every function returns a Figure and shows nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.diagnostics import TransferReport, Worth
from bayesrec.diagnostics.calibration import coverage
from bayesrec.errors import DataError, MissingExtraError
from bayesrec.exploration import Replay

__all__ = ["calibration", "plot_worth", "ranked_list", "replay", "source_weights", "verdicts"]

INK, MUTED, GRID = "#1f2933", "#66727f", "#dfe4ea"
SOURCE, POPULATION, OWN = "#0b7285", "#adb5bd", "#e8590c"
VERDICT = {"positive": "#2b8a3e", "negative": "#c92a2a", "undetermined": "#66727f"}
GIVEN = {"user": "target ratings the user has given", "item": "target ratings the item has received"}
SERIES = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#a61e4d", "#66727f")


def _figure(width: float, height: float, n: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure of its own (no global state) with ``n`` axes side by side, styled."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'bayesrec[plots]'") from error
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots(1, n, squeeze=False, **options)[0]
    for ax in axes:
        _style(ax)
    return figure, axes


def _style(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    ax.grid(color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)


def _title(ax: Any, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=11, color=INK, fontweight="bold")


def calibration(pits: Mapping[str, np.ndarray]) -> Any:
    """Actual against nominal coverage of central intervals. Provisional.

    Parameters
    ----------
    pits : mapping of name to ndarray (row,)
        PIT values of held-out rows, a curve for each.

    Examples
    --------
    >>> pit = np.random.default_rng(0).uniform(size=500)  # of a model whose intervals are right
    >>> calibration({"right": pit, "too narrow": np.clip(1.5 * pit - 0.25, 0, 1)}).axes[0].get_ylabel()
    'share of ratings inside'
    """
    figure, (ax,) = _figure(5.2, 4.6)
    level = np.linspace(0.02, 0.98, 49)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
    for (name, u), color in zip(pits.items(), SERIES, strict=False):
        ax.plot(level, coverage(u, level), color=color, linewidth=2, label=f"{name} ({len(u):,} ratings)")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="nominal probability of the interval", ylabel="share of ratings inside")
    ax.set_aspect("equal")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    _title(ax, "Do the intervals mean what they say?")
    return figure


def source_weights(weights: pd.DataFrame, n_own: np.ndarray, *, entity: str = "user") -> Any:
    """What a prediction rests on, against the number of the user's own target ratings. Provisional.

    Parameters
    ----------
    weights : DataFrame
        Of :func:`bayesrec.source_weight`.
    n_own : ndarray of int, (row,)
        The target ratings each row's user had in training, or its item where items are shared.
    entity : {"user", "item"}
        Which side is shared; the ``entity`` of the data.

    Examples
    --------
    >>> weights = pd.DataFrame({"source": [0.7, 0.4], "population": [0.3, 0.2], "target": [0.0, 0.4]})
    >>> figure = source_weights(weights, np.array([0, 4]))
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['0', '3-5']
    """
    figure, (ax,) = _figure(6.4, 4.2)
    edges = np.array([0, 1, 3, 6, 11, 21, 41, 81, 161, 321, 10**9])
    group = np.digitize(n_own, edges) - 1
    present = np.unique(group)
    labels = [_range(edges[g], edges[g + 1] - 1) for g in present]
    x, bottom = np.arange(len(present)), np.zeros(len(present))
    names = {"source": "the source", "population": "the target population", "target": f"the {entity}'s own ratings"}
    for name, color in zip(names, (SOURCE, POPULATION, OWN), strict=True):
        height = np.array([weights[name].to_numpy()[group == g].mean() for g in present])
        ax.bar(x, height, 0.8, bottom=bottom, color=color, label=names[name], edgecolor="white", linewidth=0.8)
        bottom += height
    ax.set_xticks(x, labels)
    ax.set(ylim=(0, 1), xlabel=GIVEN[entity], ylabel="share of the prediction")
    ax.grid(visible=False, axis="x")
    ax.legend(frameon=False, fontsize=9, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    _title(ax, "What a prediction rests on")
    return figure


def _range(low: int, high: int) -> str:
    if high >= 10**8:
        return f"{low}+"
    return str(low) if low == high else f"{low}-{high}"


def verdicts(reports: Mapping[str, TransferReport]) -> Any:
    """Log-score difference a rating, by regime, with 90% intervals and the verdict in colour. Provisional.

    Parameters
    ----------
    reports : mapping of name to TransferReport

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(20, 20), n_ratings=(12, 6), rank=1)
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> method = br.Gibbs(draws=10, warmup=10, chains=4)
    >>> found = br.assess_transfer(br.models.TransferMF(rank=1), data, method, folds=2, progress=False)
    >>> [label.get_text() for label in verdicts({"books": found}).axes[0].get_yticklabels()]
    ['books: cold']
    """
    figure, (ax,) = _figure(6.8, 0.9 + 0.42 * sum(len(r.regimes) for r in reports.values()) + 0.25 * len(reports))
    y, ticks, names = 0.0, [], []
    for name, report in reports.items():
        for regime, row in report.regimes.iterrows():
            centre, half = row["delta_per_row"], 1.645 * row["se"] / row["n_rows"]
            color = VERDICT[row["verdict"]]
            ax.plot([centre - half, centre + half], [y, y], color=color, linewidth=2.4, solid_capstyle="round")
            ax.plot([centre], [y], "o", color=color, markersize=6)
            ax.annotate(
                row["verdict"],
                (centre + half, y),
                (6, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                color=color,
            )
            ticks.append(y)
            names.append(f"{name}: {regime}")
            y += 1.0
        y += 0.6
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_yticks(ticks, names)
    ax.set_ylim(y - 0.9, -0.8)
    low, high = ax.get_xlim()
    ax.set_xlim(low, high + 0.22 * (high - low))
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("log score a rating, with the source minus without")
    _title(ax, "Does the source help?")
    return figure


def plot_worth(worth: Worth, ax: Any = None) -> Any:
    """Learning curves with the source and without; the way from one to the other is the worth in ratings. Provisional.

    Parameters
    ----------
    worth : Worth
        Of :func:`bayesrec.worth_in_ratings`.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Examples
    --------
    >>> from bayesrec.diagnostics import Worth
    >>> curve = pd.DataFrame({"n": [0, 2, 5], "loss": [1.2, 1.15, 1.12], "loss_none": [1.3, 1.2, 1.15]})
    >>> steps = pd.DataFrame({"n": [0, 2, 5], "worth": [2.0, 3.0, 0.0], "lower": [1.5, 2.0, 0.0],
    ...                       "upper": [2.5, 3.0, 0.0], "censored": ["", "", "high"]})
    >>> figure = plot_worth(Worth(curve, steps, 9.0, (6.0, 12.0), pd.DataFrame()))
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['2.0', '3.0']
    """
    if ax is None:
        figure, (ax,) = _figure(6.4, 4.2)
    else:
        _style(ax)
        figure = ax.figure
    curve = worth.curve
    ax.plot(curve["n"], curve["loss_none"], "o-", color=OWN, linewidth=2, markersize=5, label="without the source")
    ax.plot(curve["n"], curve["loss"], "o-", color=SOURCE, linewidth=2, markersize=5, label="with the source")
    for level, (_, row) in zip(curve["loss"], worth.worth.iterrows(), strict=True):
        if row["censored"] or abs(row["worth"]) < 0.05:
            continue
        n, m = row["n"], row["n"] + row["worth"]
        ax.plot([n, m], [level, level], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        ax.annotate(
            f"{row['worth']:.1f}",
            ((n + m) / 2, level),
            (0, 3),
            textcoords="offset points",
            fontsize=8,
            ha="center",
            color=INK,
        )
    ax.set(xlabel=GIVEN[worth.entity], ylabel="log loss of a held-out rating")
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    _title(ax, "What the source is worth in ratings")
    return figure


def ranked_list(table: pd.DataFrame, label: str, title: str, scale: tuple[float, float] | None = None) -> Any:
    """A user's list: expected rating, interval and source weight of each item. Provisional.

    Parameters
    ----------
    table : DataFrame
        Rows of :func:`bayesrec.recommend` for one user, in order of rank.
    label : str
        Column that names the items.
    title : str
    scale : tuple of float, optional
        Ends of the rating scale; the intervals are drawn inside.

    Examples
    --------
    >>> table = pd.DataFrame({"film": ["Heat", "Alien"], "mean": [4.4, 3.9], "lower": [3.1, 2.5], "upper": [5.7, 5.3],
    ...                       "source_weight": [0.6, 0.5]})
    >>> figure = ranked_list(table, label="film", title="For ann", scale=(1.0, 5.0))
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['Heat', 'Alien']
    """
    figure, (ax, side) = _figure(7.6, 0.9 + 0.36 * len(table), 2, gridspec_kw={"width_ratios": [4, 1]}, sharey=True)
    y = np.arange(len(table))
    lower, upper = table["lower"].to_numpy(), table["upper"].to_numpy()
    if scale:
        lower, upper = np.clip(lower, *scale), np.clip(upper, *scale)
    ax.hlines(y, lower, upper, color=SOURCE, linewidth=2.4, alpha=0.45)
    ax.plot(table["mean"], y, "o", color=SOURCE, markersize=6)
    names = [name if len(name) <= 38 else name[:37] + "…" for name in table[label].astype(str)]
    ax.set_yticks(y, names)
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xlabel("rating: mean and 90% interval")
    ax.grid(visible=False, axis="y")
    _title(ax, title)
    weight = table["source_weight"].to_numpy()
    side.barh(y, weight, 0.6, color=SOURCE)
    for k, w in enumerate(weight):
        side.annotate(f"{w:.0%}", (w, k), (3, 0), textcoords="offset points", fontsize=8, va="center", color=INK)
    side.set(xlim=(0, 1.25), xlabel="source weight")
    side.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    side.tick_params(left=False, labelleft=False)
    side.grid(visible=False, axis="y")
    return figure


def replay(result: Replay, against: str | None = None) -> Any:
    """Regret curves of the rules of a replay, with bands of two standard errors over users. Provisional.

    Parameters
    ----------
    result : Replay
        Of :func:`bayesrec.replay`.
    against : str, optional
        A rule to take differences from, user by user: their bands are much narrower than those of the curves.

    Raises
    ------
    DataError
        A rule that was not replayed, or a rule alone to be compared with itself.

    Examples
    --------
    >>> from bayesrec import Replay
    >>> rows = pd.DataFrame({"user": [1, 1, 2, 2], "rule": ["ucb", "mean"] * 2, "step": 1, "item": 3,
    ...                      "reward": [5.0, 4.0, 3.0, 5.0], "regret": [0.0, 1.0, 2.0, 0.5]})
    >>> replay(Replay(rows), against="mean").axes[0].get_xlabel()
    'recommendations'
    """
    names = list(dict.fromkeys(result.rows["rule"]))
    if against is None:
        curves = {name: part for name, part in result.curves().rename(columns={"regret": "y"}).groupby("rule")}
    else:
        others = [name for name in names if name != against] or names
        curves = {name: result.difference(name, against).rename(columns={"difference": "y"}) for name in others}
        if others == [against]:
            raise DataError(f"only {against!r} was replayed; there is nothing to compare it with")
    figure, (ax,) = _figure(6.2, 4.4)
    if against is not None:
        ax.axhline(0.0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=against)
    for k, name in enumerate(names):
        if name not in curves:
            continue
        part, color = curves[name].sort_values("step"), SERIES[k % len(SERIES)]
        x, y, half = (part[column].to_numpy(dtype=float) for column in ("step", "y", "se"))
        half = 2.0 * np.nan_to_num(half)  # of one user nothing is known
        ax.fill_between(x, y - half, y + half, color=color, alpha=0.15, linewidth=0)
        ax.plot(x, y, color=color, linewidth=2, label=name, marker="o" if len(x) == 1 else None)
    n_users = result.rows.iloc[:, 0].nunique()
    what = "cumulative regret" if against is None else f"cumulative regret minus that of {against}"
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="recommendations", ylabel=f"{what}, rating points")
    ax.legend(frameon=False, fontsize=9, loc="best")
    _title(ax, f"What exploring earned: mean of {n_users:,} users, 2 SE")
    return figure
