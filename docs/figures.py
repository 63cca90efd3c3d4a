"""The figures of concepts.md. Run ``python docs/figures.py``: it takes half a minute and writes docs/images/*.svg.

Needs the extra ``plots``. Each picture is drawn from a computation with fixed seeds, so the files change only if the
package, NumPy or matplotlib does.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

import bayesrec as br
from bayesrec.plots import GRID, INK, MUTED, OWN, POPULATION, SOURCE, VERDICT

IMAGES = Path(__file__).parent / "images"
STYLE = {"svg.hashsalt": "bayesrec", "font.size": 10, "text.color": INK, "axes.labelcolor": INK}


def blank(width, height, n=1, **options):
    """Return a white figure and its axes with the ticks and frames that all pictures share."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(1, n, squeeze=False, **options)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(MUTED)
        ax.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    return figure, axes


def domains():
    """Two tables side by side with one row a user; users differ in how many target ratings they have."""
    rng = np.random.default_rng(3)
    sizes = {"source": 26, "target": 18}
    kinds = {
        "cold": ([0] * 4, "no target rating"),
        "few": ([1, 2, 4, 5], "1 to 5 target ratings"),
        "warm": ([7, 9, 11, 13], "more than 5"),
        "unknown": ([0], "not in the fit at all"),
    }
    figure, (ax,) = blank(7.6, 4.4)
    start = {"source": 0, "target": sizes["source"] + 2}
    y = 0.0
    for kind, (counts, words) in kinds.items():
        top = y
        for count in counts:
            rated = {"source": 0 if kind == "unknown" else int(rng.integers(8, 15)), "target": count}
            for domain, size in sizes.items():
                edge = {"facecolor": "white", "edgecolor": GRID, "linewidth": 0.8}
                if kind == "unknown":
                    edge |= {"linestyle": (0, (2, 2)), "edgecolor": MUTED}
                ax.add_patch(Rectangle((start[domain] - 0.5, y - 0.5), size, 1.0, **edge))
                x = start[domain] + rng.permutation(size)[: rated[domain]]
                color = SOURCE if domain == "source" else OWN
                ax.plot(x, np.full(len(x), y), "s", color=color, markersize=6.2, markeredgewidth=0)
            y += 1.0
        middle, right = (top + y - 1.0) / 2.0, start["target"] + sizes["target"] + 0.3
        ax.text(right, middle - 0.05, kind, fontweight="bold", va="bottom")
        ax.text(right, middle + 0.05, words, va="top", fontsize=9, color=MUTED)
        y += 0.7
    for domain, color, words in (
        ("source", SOURCE, "source domain (books)"),
        ("target", OWN, "target domain (films), to predict"),
    ):
        ax.text(start[domain] - 0.5, -1.0, words, color=color, fontweight="bold")
        ax.text(
            start[domain] + sizes[domain] / 2, y - 0.4, "its own items", ha="center", va="top", fontsize=9, color=MUTED
        )
    ax.text(
        -1.4, 5.5, "shared users: one row is one person", rotation=90, va="center", ha="center", fontsize=9, color=MUTED
    )
    ax.set(xlim=(-2.2, 63), ylim=(y + 0.6, -2.0))
    ax.axis("off")
    return figure


def ellipse(ax, mean, cov, probability, **style):
    """Draw the region of a 2-D normal that holds a given probability."""
    values, axes = np.linalg.eigh(cov)
    width, height = 2.0 * np.sqrt(-2.0 * np.log(1.0 - probability) * values)
    angle = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
    ax.add_patch(Ellipse(mean, width, height, angle=angle, **style))


def log_normal(x, mean, cov):
    """Log density of a normal."""
    gap = x - mean
    return -0.5 * (gap @ np.linalg.solve(cov, gap) + np.linalg.slogdet(2.0 * np.pi * cov)[1])


def gate():
    """Prior of a user's target vector with the gate open and closed, and how own ratings choose between the two."""
    mean, sigma = np.array([0.0, 0.0]), np.array([[0.10, 0.02], [0.02, 0.12]])  # m and Sigma
    map_ = np.array([[0.8, 0.1], [0.2, 0.75]])  # W
    population = map_ @ np.diag([0.6, 1.0]) @ map_.T + sigma  # V, gate closed
    told, unsure = np.array([1.1, 1.3]), np.diag([0.04, 0.07])  # what the source rows say of phi
    opened = mean + map_ @ told, map_ @ unsure @ map_.T + sigma
    off = 0.2  # share of users for whom the source says nothing
    noise = np.array([[0.07, -0.01], [-0.01, 0.09]])  # what own ratings leave open
    figure, axes = blank(8.0, 4.9, 2, sharey=True, sharex=True)
    for ax, own, title in zip(
        axes,
        (np.array([1.25, 0.85]), np.array([0.0, -0.25])),
        ("own ratings agree with the source", "own ratings contradict the source"),
        strict=True,
    ):
        on = np.log1p(-off) + log_normal(own, opened[0], opened[1] + noise)
        closed = np.log(off) + log_normal(own, mean, population + noise)
        relevance = 1.0 / (1.0 + np.exp(closed - on))
        for p, alpha in ((0.9, 0.16), (0.5, 0.24)):
            ellipse(ax, mean, population, p, facecolor=POPULATION, alpha=alpha + 0.1, edgecolor="none")
            ellipse(ax, *opened, p, facecolor=SOURCE, alpha=alpha + 0.1, edgecolor="none")
        ellipse(ax, mean, population, 0.9, fill=False, edgecolor=MUTED, linewidth=1.4, linestyle=(0, (4, 3)))
        ellipse(ax, *opened, 0.9, fill=False, edgecolor=SOURCE, linewidth=1.6)
        ellipse(ax, own, noise, 0.9, fill=False, edgecolor=OWN, linewidth=1.6)
        ax.plot(*own, "o", color=OWN, markersize=6)
        ax.set_title(f"{title}\nrelevance {relevance:.2f}", fontsize=10, color=INK)
        ax.set(xlabel="bias of the user in the target", xlim=(-2.5, 2.7), ylim=(-2.6, 2.6))
        ax.set_aspect("equal")
    axes[0].set_ylabel("factor of the user in the target")
    words = {"fontsize": 9, "ha": "center", "va": "center"}
    axes[0].text(-0.55, -1.28, "gate closed:\nthe population", color=INK, **words)
    axes[0].text(0.75, 2.3, "gate open: what the source announces", color=SOURCE, **words)
    axes[0].text(2.1, -0.05, "what own\nratings say", color=OWN, **words)
    return figure


def weights():
    """Source weight against the number of own target ratings, 20 users for each number."""
    most = 30
    frame, _ = br.data.synthetic.cross_domain(
        n_users=20 * (most + 1), n_items=(120, 60), n_ratings=(30, 50), rank=2, correlation=0.8, seed=1
    )
    target = frame["domain"] == "target"
    place = np.random.default_rng(1).permutation(target.sum())
    rank = frame[target].assign(place=place).groupby("user")["place"].rank()
    n_own = frame["user"] % (most + 1)
    kept = ~target | (rank.reindex(frame.index) <= n_own)
    data = br.Interactions.from_frame(frame[kept], target="target", value="value")
    posterior = br.fit(br.models.TransferMF(rank=2), data, br.Gibbs(draws=200, warmup=300, chains=4), progress=False)
    asked = frame[~kept]
    shares = (
        br.source_weight(posterior, asked)[["source", "population", "target"]].groupby(n_own[~kept].to_numpy()).mean()
    )
    figure, (ax,) = blank(6.8, 3.8)
    names = {"source": "source", "population": "target population", "target": "own target ratings"}
    colors = (SOURCE, POPULATION, OWN)
    ax.stackplot(shares.index, shares[list(names)].to_numpy().T, colors=colors, edgecolor="white", linewidth=1.0)
    words = {"fontweight": "bold", "va": "center"}
    ax.text(1.0, 0.2, names["source"], color="white", **words)
    ax.text(17.0, 0.6, names["target"], color="white", **words)
    band = shares.loc[4, "source"] + shares.loc[4, "population"] / 2.0
    line = {"arrowstyle": "-", "color": "white", "shrinkA": 2, "shrinkB": 0}
    ax.annotate(names["population"], (4, band), (7.5, 0.78), color="white", arrowprops=line, **words)
    ax.set(xlim=(0, most), ylim=(0, 1), xlabel="target ratings the user has given", ylabel="share of the prediction")
    return figure


def verdicts():
    """Three verdicts: a true source, a deranged one behind a gate, and a deranged one without a gate."""
    frame, _ = br.data.synthetic.cross_domain(n_users=100, n_items=(60, 40), n_ratings=(8, 12), rank=2, seed=2)
    data = br.Interactions.from_frame(frame, target="target", value="value")
    method = br.Gibbs(draws=200, warmup=200, chains=4)
    transfer, collective = br.models.TransferMF(rank=2), br.models.CollectiveMF(rank=2)
    figure, (ax,) = blank(7.6, 3.0)
    ax.axvspan(-4, 4, color=GRID, linewidth=0)
    ax.axvline(0, color=INK, linewidth=1)
    labels = []
    for y, (name, model, deranged) in enumerate(
        (
            ("TransferMF,\ntrue source", transfer, False),
            ("TransferMF,\nshuffled source", transfer, True),
            ("CollectiveMF,\nshuffled source", collective, True),
        )
    ):
        train, test = br.split.holdout(data, fraction=0.3)
        train = br.data.derange_sources(train) if deranged else train
        arm = br.fit(model, train, method, progress=False)
        bare = br.fit(br.models.PMF(rank=2), train.without_sources(), method, progress=False)
        found = br.negative_transfer(arm, bare, test)
        color, half = VERDICT[found.verdict], 1.645 * found.se
        ax.plot([found.delta - half, found.delta + half], [y, y], color=color, linewidth=3, solid_capstyle="round")
        ax.plot(found.delta, y, "o", color=color, markersize=8)
        words = f"{found.verdict}\n{found.delta:+.0f} nats, P(negative) = {found.probability:.2f}".replace(
            "-", "\u2212"
        )
        ax.text(1.02, y, words, transform=ax.get_yaxis_transform(), color=color, fontsize=9, va="center")
        labels.append(name)
    ax.set_yticks(range(len(labels)), labels)
    ax.set(ylim=(len(labels) - 0.6, -0.6), xlabel="log score with the source minus without (nats)")
    low, high = ax.get_xlim()
    for x, words, side in ((low, "the source hurts", "left"), (high, "the source helps", "right")):
        ax.text(x, -0.65, words, fontsize=9, color=MUTED, ha=side, va="bottom")
    return figure


def main():
    """Write the pictures named on the command line, or all."""
    pictures = {"domains": domains, "gate": gate, "weights": weights, "verdicts": verdicts}
    for name in sys.argv[1:] or pictures:
        with matplotlib.rc_context(STYLE), warnings.catch_warnings():
            warnings.simplefilter("ignore", br.errors.BayesrecWarning)
            figure = pictures[name]()
            figure.savefig(IMAGES / f"concept_{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
