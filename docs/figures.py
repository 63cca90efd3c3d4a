"""The figures of concepts.md and transfer.md. Run ``python docs/figures.py``: two minutes; it writes docs/images/*.svg.

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


def when():
    """What a source is worth: by own ratings and kinship of the domains, and by the ratings in the source."""
    figure, (left, right) = blank(8.4, 3.6, 2)
    sizes = (0, 1, 2, 4, 8, 16)
    for correlation, alpha, words in ((0.95, 1.0, "near"), (0.6, 0.65, "loose"), (0.0, 0.4, "none")):
        frame, _ = br.data.synthetic.cross_domain(
            n_users=300, n_items=(60, 50), n_ratings=(25, 20), rank=2, correlation=correlation, seed=5
        )
        data = br.Interactions.from_frame(frame, target="target", value="value")
        curve = br.worth_in_ratings(
            br.models.TransferMF(rank=2),
            data,
            br.Gibbs(draws=100, warmup=150, chains=2),
            sizes,
            folds=2,
            progress=False,
        ).curve
        place, half = np.arange(len(sizes)), 1.645 * curve["se"]
        left.fill_between(
            place, curve["gap"] - half, curve["gap"] + half, color=SOURCE, alpha=0.12 * alpha, linewidth=0
        )
        left.plot(place, curve["gap"], "o-", color=SOURCE, alpha=alpha, markersize=4)
        left.text(place[0] - 0.15, curve["gap"].iloc[0], words, ha="right", va="center", fontsize=9, color=MUTED)
    left.axhline(0, color=INK, linewidth=0.8)
    left.set_xticks(range(len(sizes)), [str(n) for n in sizes])
    left.set(
        xlabel="target ratings the user has given",
        ylabel="log score gained a rating (nats)",
        xlim=(-1.0, len(sizes) - 0.8),
    )
    left.set_title("kinship of the domains", fontsize=10, color=INK)
    most = 40
    frame, _ = br.data.synthetic.cross_domain(
        n_users=300, n_items=(60, 50), n_ratings=(most, 10), rank=2, correlation=0.95, seed=5
    )
    source = frame["domain"] == "source"
    levels = np.array([0, 1, 2, 5, 10, 20, 40])
    allowed = levels[frame["user"] % len(levels)]
    order = frame[source].groupby("user").cumcount().reindex(frame.index)
    data = br.Interactions.from_frame(frame[~source | (order < allowed)], target="target", value="value")
    posterior = br.fit(br.models.TransferMF(rank=2), data, br.Gibbs(draws=100, warmup=150, chains=4), progress=False)
    table = br.borrowing(posterior)
    n_source = levels[table["user"] % len(levels)]
    mean, spread = (table["n0"].groupby(n_source).agg(how) for how in ("mean", "std"))
    right.errorbar(range(len(levels)), mean, spread, fmt="o-", color=SOURCE, markersize=4, linewidth=1.5, elinewidth=1)
    right.set_xticks(range(len(levels)), [str(n) for n in levels])
    right.set(xlabel="source ratings the user has given", ylabel="ratings borrowed ($n_0$)", ylim=(0, None))
    right.set_title("what is known in the source (near)", fontsize=10, color=INK)
    return figure


def weighed():
    """One prediction as a compromise, and how far the source moves predictions of users whom it describes or not."""
    figure, (left, right) = blank(8.4, 3.6, 2)
    x = np.linspace(0.5, 5.5, 500)
    population, source, own = (3.1, 0.85), (4.2, 0.45), (3.3, 0.5)  # mean and sd of one expected rating, as each has it
    precision = np.array([1.0 / sd**2 for _, sd in (population, source, own)])
    precision[1] -= precision[0]  # what the source adds to the population
    mean = np.array([source[0] / source[1] ** 2, own[0] / own[1] ** 2]).sum() / precision.sum()
    bare = (population[0] * precision[0] + own[0] * precision[2]) / (precision[0] + precision[2])
    curves = (
        (population, POPULATION, "the population"),
        (source, SOURCE, "and the source"),
        (own, OWN, "own ratings"),
        ((mean, precision.sum() ** -0.5), INK, "the prediction"),
    )
    for (centre, sd), color, words in curves:
        height = np.exp(-0.5 * ((x - centre) / sd) ** 2) / sd / np.sqrt(2.0 * np.pi)
        left.plot(x, height, color=color, linewidth=2)
        at = (
            centre
            + {"the population": -0.9, "and the source": 0.5, "own ratings": -0.35, "the prediction": 0.05}[words] * 1.0
        )
        side = "left" if words in ("and the source", "the prediction") else "right"
        level = np.interp(at, x, height) + 0.04
        left.text(at, level, words, color=MUTED if color == POPULATION else color, fontsize=9, ha=side, va="bottom")
    left.annotate("", (mean, -0.05), (bare, -0.05), arrowprops={"arrowstyle": "->", "color": SOURCE, "linewidth": 1.8})
    left.text((mean + bare) / 2, -0.16, f"pull {mean - bare:+.2f}", color=SOURCE, fontsize=9, ha="center", va="center")
    left.set(xlabel="expected rating", ylim=(-0.25, 1.45), yticks=[])
    left.spines["left"].set_visible(False)
    most = 24
    frame, _ = br.data.synthetic.cross_domain(
        n_users=16 * (most + 1), n_items=(80, 60), n_ratings=(30, most), rank=2, correlation=0.95, seed=6
    )
    user, target = frame["user"].to_numpy(), (frame["domain"] == "target").to_numpy()
    stranger = user % 4 == 0  # a quarter of the users have the source ratings of somebody else
    ids = np.unique(user[stranger])
    swapped = dict(zip(ids, np.roll(ids, 1), strict=True))
    frame["user"] = [swapped[u] if s and not t else u for u, s, t in zip(user, stranger, target, strict=True)]
    n_own = user // 4 % (most + 1)
    order = frame[target].groupby("user").cumcount().reindex(frame.index)
    data = br.Interactions.from_frame(frame[~target | (order < n_own)], target="target", value="value")
    posterior = br.fit(br.models.TransferMF(rank=2), data, br.Gibbs(draws=100, warmup=200, chains=4), progress=False)
    asked = frame[target & (order >= n_own).to_numpy() | (target & (n_own == most))].groupby("user").head(10)
    pull = br.borrowing(posterior, asked, draws=60)["pull"].abs().to_numpy()
    who = asked["user"].to_numpy()
    group = np.minimum(who // 4 % (most + 1), most) // 3 * 3
    for own_source, color, words in (
        (True, SOURCE, "described by the source"),
        (False, VERDICT["negative"], "described by somebody else's"),
    ):
        rows = (who % 4 != 0) == own_source
        size = [pull[rows & (group == g)].mean() for g in np.unique(group)]
        right.plot(np.unique(group) + 1, size, "o-", color=color, markersize=4)
        right.text(10.5, size[3] + 0.02, words, color=color, fontsize=9, va="bottom")
    right.set(
        xlabel="target ratings the user has given", ylabel="mean size of the pull (rating points)", ylim=(0, None)
    )
    return figure


def negative():
    """Gain and harm against the share of users whose source ratings are somebody else's, with and without a gate."""
    figure, (ax,) = blank(7.2, 3.8)
    method, shares, seeds = br.Gibbs(draws=80, warmup=150, chains=2), np.array([0.0, 0.25, 0.5, 0.75, 1.0]), range(4)
    models = {
        "CollectiveMF: trusts everybody": (br.models.CollectiveMF(rank=2), VERDICT["negative"]),
        "TransferMF(gate=False): one map for all": (br.models.TransferMF(rank=2, gate=False), MUTED),
        "TransferMF: a gate for each user": (br.models.TransferMF(rank=2), SOURCE),
    }
    gain, warned = np.zeros((len(models), len(shares), len(seeds))), np.zeros((len(models), len(shares), len(seeds)))
    for s in seeds:
        frame, _ = br.data.synthetic.cross_domain(
            n_users=200, n_items=(50, 40), n_ratings=(25, 12), rank=2, correlation=0.95, seed=10 + s
        )
        order = np.random.default_rng(s).permutation(200)
        for k, share in enumerate(shares):
            some = order[: int(share * 200)]
            place = np.arange(200)
            place[some] = np.roll(some, 1)
            moved = frame.assign(user=np.where(frame["domain"] == "source", place[frame["user"]], frame["user"]))
            train, test = br.split.holdout(
                br.Interactions.from_frame(moved, target="target", value="value"), fraction=0.3
            )
            bare = br.fit(br.models.PMF(rank=2), train, method, progress=False).log_score(test).mean()
            for m, (model, _) in enumerate(models.values()):
                arm = br.fit(model, train, method, progress=False)
                gain[m, k, s] = arm.log_score(test).mean() - bare
                with warnings.catch_warnings(record=True) as heard:
                    warnings.simplefilter("always")
                    br.conflict(arm, draws=40)
                warned[m, k, s] = any(issubclass(w.category, br.errors.NegativeTransferWarning) for w in heard)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.text(50.0, -0.006, "no source", ha="center", va="top", fontsize=9, color=MUTED)
    for m, (words, (_, color)) in enumerate(models.items()):
        mean, alarm = gain[m].mean(1), warned[m].mean(1) > 0.5
        ax.plot(100 * shares, mean, color=color, linewidth=2, label=words)
        for filled in (False, True):
            face = color if filled else "white"
            ax.plot(
                100 * shares[alarm == filled],
                mean[alarm == filled],
                "o",
                color=color,
                markerfacecolor=face,
                markersize=6,
            )
    ax.legend(frameon=False, fontsize=9, loc="lower left")
    ax.set(xlabel="users whose source ratings are somebody else's (%)", ylabel="log score gained a rating (nats)")
    return figure


PICTURES = {
    "concept": {"domains": domains, "gate": gate, "weights": weights, "verdicts": verdicts},
    "transfer": {"when": when, "weighed": weighed, "negative": negative},
}


def main():
    """Write the pictures named on the command line, or all."""
    for page, pictures in PICTURES.items():
        for name in [name for name in sys.argv[1:] or pictures if name in pictures]:
            with matplotlib.rc_context(STYLE), warnings.catch_warnings():
                warnings.simplefilter("ignore", br.errors.BayesrecWarning)
                pictures[name]().savefig(IMAGES / f"{page}_{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
