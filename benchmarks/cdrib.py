"""Cold-start ranking on the files of CDRIB: popularity, SVD and probabilistic PCA of the stacked matrix, and bayesrec's models.

Every test row of a cold user is one list: it and 999 items that the user has not taken, drawn with equal chances (the
protocol of the paper) or by popularity. In the full ranking each user has one list of all items. Each table is printed
twice: on all test rows, with hyperparameters chosen on all rows of valid, and on the clean ones, chosen on clean rows. A
row is clean unless the same product stands in the user's own source history under another id
(`br.data.cross_domain_duplicates`).

    python benchmarks/cdrib.py [--folders Game,Video,Cloth,Sport] [--seeds 0,1,2]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from common import CACHE, br, cell, data_folder, show
from scipy import sparse
from scipy.sparse.linalg import svds

from bayesrec.baselines import Baseline
from bayesrec.evaluation.candidates import Candidates
from bayesrec.metrics import clustered_mean

FOLDERS = {  # pair of folders, target, source
    "Game": ("game_video", "game", "video"),
    "Video": ("game_video", "video", "game"),
    "Cloth": ("cloth_sport", "cloth", "sport"),
    "Sport": ("cloth_sport", "sport", "cloth"),
}
METRICS = {"mrr": "MRR", "ndcg@10": "NDCG@10", "hr@10": "HR@10"}
KINDS = {"uniform": ("uniform", 999), "popularity": ("popularity", 999), "full": "all"}
ALPHAS, RANKS, NOISES = (0.1, 0.2, 0.3, 0.4, 0.5), (16, 32, 64, 128), (1.0, 3.0, 10.0, 30.0, 100.0)
REFERENCE = "PPCA"
IMPLICIT = [
    *((alpha, rank) for rank in (16, 64) for alpha in (0.2, 0.3, 0.4)),
    *((alpha, 128) for alpha in (0.3, 0.4, 0.5)),
]
POWERS, COPIES = (1.0, 0.1, 0.03, 0.01), 50
SWEEPS = br.Gibbs(draws=15, warmup=30, chains=1)


@dataclass(frozen=True, eq=False)
class Task:
    """One folder and one column of the table: what a model may see, and the rows that it is chosen and tested on."""

    folder: str
    column: str  # "all" or "clean"
    train: br.Interactions
    valid: br.Interactions  # rows to choose on
    test: br.Interactions
    held_out: br.Interactions  # all of valid and test: no negative of its user

    @property
    def cold(self) -> np.ndarray:
        """Codes of the cold users, sorted."""
        return np.unique(self.held_out.user)


@cache
def tasks(folder: str) -> tuple[dict[str, Task], str]:
    """Both columns of a folder, and a line on its leak."""
    pair, target, source = FOLDERS[folder]
    dataset = br.datasets.cdrib(data_folder() / "cdrib", pair, strict=True)
    train, valid, test = br.datasets.by_split(dataset, source, target, value=None)
    shared = [user for user in train.users.ids if ":" not in user]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", br.errors.DataWarning)  # the leak is what the two columns are about
        pairs = br.data.cross_domain_duplicates(train, users=shared)
    leaked = {part: br.data.leaked_rows(train, rows, pairs) for part, rows in (("valid", valid), ("test", test))}
    rows = pd.concat([valid.to_frame(), test.to_frame()])
    everything = train.with_rows(train.encode(rows, need_value=True))
    held_out = everything.mask(np.arange(len(everything)) >= len(train))
    out = {
        "all": Task(folder, "all", train, valid, test, held_out),
        "clean": Task(folder, "clean", train, valid.mask(~leaked["valid"]), test.mask(~leaked["test"]), held_out),
    }
    share = leaked["test"].mean()
    return out, f"{folder}: {len(pairs)} pairs of duplicates, {share:.1%} of {len(test)} test rows leaked"


@dataclass(frozen=True, eq=False)
class Table(Baseline):
    """Scores of the cold users, (cold user, item)."""

    cold: np.ndarray
    scores: np.ndarray
    is_rating = False

    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        return self.scores[np.searchsorted(self.cold, user), item]


def axes(task: Task, alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale of each column, singular values and right singular vectors of the stacked matrix with scaled columns."""
    train = task.train
    scale = np.maximum(np.bincount(train.item, minlength=train.n_items), 1.0) ** -alpha

    def compute() -> dict[str, np.ndarray]:
        x = sparse.csr_matrix((scale[train.item], (train.user, train.item)), shape=(train.n_users, train.n_items))
        _, value, vector = svds(x, k=max(RANKS), v0=np.ones(min(x.shape)))
        return {"value": value[::-1], "vector": vector[::-1].T.astype(np.float32)}

    found = cell(f"cdrib/axes-{task.folder}-{alpha}", compute)
    return scale, found["value"], found["vector"]


def stacked(task: Task, alpha: float, rank: int, noise: float | None) -> np.ndarray:
    """Scores (cold user, item) of a truncated SVD, or with a noise, in units of the last variance, of probabilistic PCA."""
    scale, value, vector = axes(task, alpha)
    train, cold = task.train, task.cold
    variance, v = value[:rank] ** 2 / train.n_users, vector[:, :rank]
    mine = np.isin(train.user, cold) & ~train.is_target
    x = sparse.csr_matrix(
        (scale[train.item[mine]], (np.searchsorted(cold, train.user[mine]), train.item[mine])),
        shape=(len(cold), train.n_items),
    )
    if noise is None:
        z, loading = x @ v, v
    else:
        loading = v * np.sqrt(variance)
        source = loading[train.item_domain < len(train.domains) - 1]
        z = np.linalg.solve(noise * variance[-1] * np.eye(rank) + source.T @ source, (x @ loading).T).T
    return (z.astype(np.float32) @ loading.T.astype(np.float32)) / scale.astype(np.float32)


def reciprocal_ranks(task: Task, scores: np.ndarray, lists: tuple[np.ndarray, np.ndarray]) -> float:
    """MRR of the rows to choose on."""
    own = scores[lists[0][:, None], lists[1]]
    above = (own[:, 1:] > own[:, :1]).sum(1) + 0.5 * (own[:, 1:] == own[:, :1]).sum(1)
    return float((1.0 / (1.0 + above)).mean())


def choose(task: Task, name: str, noises: tuple[float | None, ...]) -> Table:
    """The member of the grid with the best MRR on valid, with 999 uniform negatives."""
    grid = [(alpha, rank, noise) for alpha in ALPHAS for rank in RANKS for noise in noises]

    def compute() -> dict[str, np.ndarray]:
        lists = Candidates(task.train, task.valid, ("uniform", 999), 0, True, task.held_out, None)
        every = [[item for item, _ in lists.of(k)] for k in range(len(lists))]
        who = np.repeat(np.searchsorted(task.cold, lists.user), [len(mine) for mine in every])
        pairs = (who, np.concatenate(every))
        return {"mrr": np.array([reciprocal_ranks(task, stacked(task, *one), pairs) for one in grid])}

    mrr = cell(f"cdrib/choice-{task.folder}-{task.column}-{name}", compute)["mrr"]
    best = grid[int(mrr.argmax())]
    print(
        f"  {task.folder}, {task.column}: {name} with alpha, rank, noise {best}, MRR {mrr.max():.4f} on valid",
        flush=True,
    )
    return Table(task.cold, stacked(task, *best))


def svd(task: Task) -> Table:
    return choose(task, "SVD", (None,))


def ppca(task: Task) -> Table:
    return choose(task, "PPCA", NOISES)


def scores_of(task: Task, alpha: float, rank: int) -> dict[str, np.ndarray]:
    """Posterior mean scores of the target's items (cold user, item) for each power of the fold-in; kept in float16.

    The fit has no row of a cold user. Each is folded in under several ids, whose vectors are averaged within a draw.
    """
    train, target = task.train, task.train.domains[-1]

    def compute() -> dict[str, np.ndarray]:
        cold, last = np.isin(train.user, task.cold), len(train.domains) - 1
        frame = pd.DataFrame({"user": train.user, "item": train.item, "domain": np.array(train.domains)[train.domain]})
        data = br.Interactions.from_frame(frame[~cold], target=target, value=None)
        likelihood = br.Implicit(popularity_exponent=alpha, absent="zeros")
        posterior = br.fit(br.models.CollectiveMF(rank=rank, likelihood=likelihood), data, SWEEPS, progress=False)
        codes = np.flatnonzero(data.item_domain == last)
        place = np.searchsorted(np.flatnonzero(train.item_domain == last), data.items.decode(codes).astype(int))
        rows = frame[cold & ~train.is_target]
        many = pd.concat([rows.assign(user=rows["user"] + k * train.n_users) for k in range(COPIES)])
        flat = np.maximum(np.bincount(data.item, minlength=data.n_items), 1.0)[codes] ** alpha
        out = {}
        for power in POWERS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", br.errors.DataWarning)  # items that only cold users have taken
                folded = posterior.fold_in(many, alone=True, power=power)
            who = np.searchsorted(task.cold, folded.data.users.decode(np.arange(folded.data.n_users)) % train.n_users)
            total = np.zeros((len(task.cold), len(codes)), dtype=np.float32)
            for user, item in zip(folded.draws["user_vector"][0], posterior.draws["item_vector"][0], strict=True):
                mean = np.zeros((len(task.cold), rank + 1), dtype=np.float32)
                np.add.at(mean, who, user / COPIES)
                own = item[codes]
                total += mean[:, :1] + own[:, 0] + mean[:, 1:] @ own[:, 1:].T
            scores = np.zeros((len(task.cold), int((train.item_domain == last).sum())), dtype=np.float16)
            scores[:, place] = (
                total / len(folded.draws["user_vector"][0]) * flat
            )  # click, one factor for all, is left out
            out[str(power)] = scores
        return out

    return cell(f"cdrib/zeros-{task.folder}-{alpha}-{rank}", compute)


@cache
def on_valid(task: Task) -> tuple[Callable[..., np.ndarray], Callable[[np.ndarray], float], dict[tuple, float]]:
    """Scores of a member of the grid on all items, the MRR of scores on valid, and that of every member."""
    lists = Candidates(task.train, task.valid, ("uniform", 999), 0, True, task.held_out, None)
    every = [[item for item, _ in lists.of(k)] for k in range(len(lists))]
    pairs = np.repeat(np.searchsorted(task.cold, lists.user), [len(mine) for mine in every]), np.concatenate(every)
    target = np.flatnonzero(task.train.item_domain == len(task.train.domains) - 1)

    def scores(alpha: float, rank: int, power: float) -> np.ndarray:
        out = np.zeros((len(task.cold), task.train.n_items), dtype=np.float32)
        out[:, target] = scores_of(task, alpha, rank)[str(power)]
        return out

    def mrr(found: np.ndarray) -> float:
        return reciprocal_ranks(task, found, pairs)

    return scores, mrr, {(*one, power): mrr(scores(*one, power)) for one in IMPLICIT for power in POWERS}


def implicit(task: Task) -> Table:
    """The exponent, rank and power with the best MRR on valid; cold users are folded in with their source rows."""
    scores, _, grid = on_valid(task)
    best = max(grid, key=lambda one: grid[one])
    print(f"  {task.folder}, {task.column}: Implicit, MRR on valid by alpha, rank, power; chosen {best}", flush=True)
    print("    " + ", ".join(f"{one}: {x:.4f}" for one, x in grid.items()), flush=True)
    return Table(task.cold, scores(*best))


def implicit_mean(task: Task) -> Table:
    """The mean over the best exponents and ranks, each with its power, of a user's standardised scores; how many, by valid."""
    scores, mrr, grid = on_valid(task)
    power = {one: max(POWERS, key=lambda power, one=one: grid[*one, power]) for one in IMPLICIT}
    order = sorted(IMPLICIT, key=lambda one: -grid[*one, power[one]])
    total, found, best = 0.0, {}, (-1.0, np.empty(0))
    for k, one in enumerate(order, 1):
        part = scores(*one, power[one])
        total = total + part / part.std(1, keepdims=True)
        found[k] = mrr(total)
        if found[k] > best[0]:
            best = found[k], total.copy()
    print(f"  {task.folder}, {task.column}: MRR on valid of the mean of so many members: {found}", flush=True)
    return Table(task.cold, best[1])


def deranged(task: Task) -> Table:
    """The same scores, each cold user's for another one: the fit knows no cold user, so their histories are exchanged."""
    found = implicit_mean(task)
    order = np.random.default_rng(0).permutation(len(task.cold))
    moved = np.empty_like(order)
    moved[order] = np.roll(order, 1)
    return Table(task.cold, found.scores[moved])


# The rows of the tables beside popularity. A model of bayesrec is one more line: a function that sees a Task and returns what
# `br.evaluate_ranking` can score by, such as a posterior of br.fit(model, task.train, ...).
MODELS: dict[str, Callable[[Task], Any]] = {
    "SVD": svd,
    "PPCA": ppca,
    "Implicit": implicit,
    "Implicit, mean": implicit_mean,
    "Implicit, mean, deranged": deranged,
}


def lists_of(task: Task, kind: str, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Metrics of every list, by model; only what is not in the cache is fitted and ranked."""
    key = f"cdrib/{task.folder}-{task.column}-{kind}-{seed}"
    keys = {name: f"{key}-{name.replace(', ', '-')}" for name in ("popularity", *MODELS)}
    missing = [name for name in MODELS if not (CACHE / "cells" / f"{keys[name]}.npz").exists()]

    @cache
    def ranked() -> br.RankingEvaluation:
        scorers = {name: fitted(task, name) for name in missing}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", br.errors.DataWarning)  # the full ranking stands in a table of its own
            return br.evaluate_ranking(
                scorers, task.train, task.test, 10, KINDS[kind], seed, each=kind != "full", exclude=task.held_out
            )

    def compute(name: str) -> dict[str, np.ndarray]:
        mine = ranked().lists[ranked().lists["model"] == name]
        out = {metric: mine[metric].to_numpy() for metric in (*METRICS, "novelty@10") if metric in mine}
        frame = ranked().frame
        whole = frame.loc[(frame["model"] == name) & (frame["metric"] == "coverage@10"), "mean"].to_numpy()
        return out | {"user": mine["user"].to_numpy().astype("U"), "coverage@10": whole}

    return {name: cell(where, partial(compute, name)) for name, where in keys.items()}


@cache
def fitted(task: Task, name: str) -> Any:
    return MODELS[name](task)


def averaged(task: Task, kind: str, seeds: list[int]) -> dict[str, dict[str, np.ndarray]]:
    """Metrics of every list, mean over the seeds of the negatives."""
    runs = [lists_of(task, kind, seed) for seed in (seeds if kind != "full" else [0])]
    return {
        name: {m: np.mean([run[name][m] for run in runs], axis=0) for m in METRICS} | {"user": runs[0][name]["user"]}
        for name in runs[0]
    }


def tables(kind: str, column: str, folders: list[str], seeds: list[int]) -> None:
    """Print the table of a kind of negatives and a column, with paired differences from PPCA."""
    rows: dict[str, dict[tuple[str, str], str]] = {}
    won: dict[str, list[int]] = {}
    csv = []
    for folder in folders:
        found = averaged(tasks(folder)[0][column], kind, seeds)
        for name, arrays in found.items():
            for metric, title in METRICS.items():
                mean, se = clustered_mean(100 * arrays[metric], arrays["user"])
                gap, gap_se = clustered_mean(100 * (arrays[metric] - found[REFERENCE][metric]), arrays["user"])
                text = f"{mean:.2f} ({se:.2f})"
                if name != REFERENCE:
                    text = f"{mean:.2f} {gap:+.2f} ({gap_se:.2f})"
                    count = won.setdefault(name, [0, 0, 0])
                    count[0] += 1
                    count[1] += gap > 0
                    count[2] += gap < -gap_se
                rows.setdefault(name, {})[folder, title] = text
                csv.append((folder, name, title, mean, se, gap, gap_se))
    which = {
        "uniform": "999 uniform negatives",
        "popularity": "999 negatives drawn by popularity",
        "full": "full ranking",
    }
    print(f"\n{which[kind]}, {column} test rows: percent, difference from {REFERENCE} (its clustered SE)\n")
    frame = pd.DataFrame(rows).T
    for folder in folders:
        print(frame[[folder]].to_string(), "\n")
    for name, (cells, above, below) in won.items():
        print(f"  {name}: above {REFERENCE} in {above} of {cells} cells, below by more than one SE in {below}")
    names = ["folder", "model", "metric", "mean", "se", "minus_ppca", "minus_ppca_se"]
    show("", pd.DataFrame(csv, columns=names).set_index(names[:3]), f"cdrib_{kind}_{column}")


def beyond(folders: list[str]) -> None:
    """Print what full lists show: coverage of the catalogue and novelty."""
    rows = {}
    for folder in folders:
        for name, arrays in lists_of(tasks(folder)[0]["all"], "full", 0).items():
            rows[folder, name] = {"coverage@10": arrays["coverage@10"][0], "novelty@10": arrays["novelty@10"].mean()}
    show(
        "full ranking: share of the catalogue shown, mean self-information in bits",
        pd.DataFrame(rows).T,
        "cdrib_beyond",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", default=",".join(FOLDERS))
    parser.add_argument("--seeds", default="0,1,2", help="of the negatives")
    args = parser.parse_args()
    folders, seeds = args.folders.split(","), [int(seed) for seed in args.seeds.split(",")]
    for folder in folders:
        print(tasks(folder)[1])
    for kind in KINDS:
        for column in ("all", "clean"):
            tables(kind, column, folders, seeds)
    beyond(folders)


if __name__ == "__main__":
    main()
