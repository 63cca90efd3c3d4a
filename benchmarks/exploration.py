"""What exploring earns: regret of Thompson sampling, UCB, the posterior mean and popularity on the logs of held-out users.

python benchmarks/exploration.py [--pairs douban,anime] [--users 200] [--steps 20]

Users with at least twice as many target ratings as there are steps lose their target rows, keep their source rows, and are
replayed (`br.replay`). Logged replay sees only observed items. Rules marked (user)
are uncertain about the user alone, `about="user"`. The synthetic cases have every rating of every user, 100 new
users in each of five data sets. In "drift" the tastes of the new users lie on the other side of the population's: the first
ratings show it. In "niche" most items are safe and some divide people, as the prior knows. In "shift" the prior is wrong in a
way that what it recommends does not show: the genre it takes for the best has become mediocre, another one that it takes for
mediocre the best, and ratings of one genre say nothing of another. Who goes by the mean stays with the first.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings

import numpy as np
import pandas as pd
from common import CACHE, PAIRS, cell, show

import bayesrec as br
from bayesrec.exploration import CAUTION

SEEDS = 5  # data sets of a synthetic case
METHOD = br.Gibbs(draws=100, warmup=100, chains=2)
RULES = {
    "thompson": "thompson",
    "ucb": "ucb",
    "ucb_half": br.rules.ucb(0.5),
    "greedy": "mean",
    "popularity": "popularity",
}


def real(pair: str, n_users: int, steps: int) -> tuple[br.Interactions, pd.DataFrame]:
    """Training data without the target rows of some users, and these rows."""
    data = PAIRS[pair]()
    count = np.bincount(data.user[data.is_target], minlength=data.n_users)
    eligible = np.flatnonzero(count >= 2 * steps)
    users = np.random.default_rng(0).permutation(eligible)[: min(n_users, len(eligible) // 2)]
    held = data.is_target & np.isin(data.user, users)
    return data.mask(~held), data.mask(held).to_frame()


def synthetic(case: str, seed: int, n_users: int = 100) -> tuple[br.Interactions, pd.DataFrame]:
    """Ratings of 100 items by 300 users of the fit and by users whose prior is wrong, or wide where it matters."""
    rng = np.random.default_rng(seed)
    n_items, n_old = 100, 300
    design = 0.2 * rng.standard_normal((n_items, 3))
    genre = np.arange(n_items) % 10
    if case == "drift":
        design = rng.standard_normal((n_items, 2))
        old, new = ([side, 0.0] + 0.4 * rng.standard_normal((n, 2)) for side, n in ((1.0, n_old), (-1.0, n_users)))
    elif case == "niche":
        design = design[:, :2] + np.where(genre[:, None] < 8, [1.0, 0.0], [0.0, 2.0])
        old, new = ([0.5, -0.3] + [0.2, 1.0] * rng.standard_normal((n, 2)) for n in (n_old, n_users))
    else:
        design = design + np.eye(3)[np.where(genre < 4, 0, np.where(genre < 7, 1, 2))]
        was, now, spread = [1.0, 0.0, 0.0], [0.3, 0.8, 0.0], [0.3, 0.6, 0.6]
        old, new = (mean + spread * rng.standard_normal((n, 3)) for mean, n in ((was, n_old), (now, n_users)))
    parts = []
    for first, tastes, share in ((0, old, 0.2), (n_old, new, 1.0)):
        values = tastes @ design.T + 0.7 * rng.standard_normal((len(tastes), n_items))
        user, item = np.nonzero(rng.random(values.shape) < share)
        parts.append(pd.DataFrame({"user": first + user, "item": item, "rating": values[user, item]}))
    data = br.Interactions.from_frame(parts[0], target="target", domain=None)
    return data, parts[1]


def result(name: str, n_users: int, steps: int, seed: int = 0) -> br.Replay:
    """Rows of a replay, from the cache if they are there."""
    rank = {"drift": 2, "niche": 2, "shift": 3}.get(name, 8)

    def compute() -> dict[str, np.ndarray]:
        train, log = real(name, n_users, steps) if name in PAIRS else synthetic(name, seed)
        model = br.models.TransferMF(rank=8) if train.sources else br.models.PMF(rank=rank)
        posterior = br.fit(model, train, METHOD, progress=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", br.errors.DataWarning)  # the caution is printed with the table
            found = [br.replay(posterior, log, steps=steps, rules=RULES).rows]
            own = {name: rule for name, rule in RULES.items() if name not in ("greedy", "popularity")}
            more = br.replay(posterior, log, steps=steps, rules=own, about="user").rows
            rows = pd.concat([*found, more.assign(rule=more["rule"] + " (user)")], ignore_index=True)
        return {column: rows[column].to_numpy().astype(str if column == "rule" else float) for column in rows}

    key = f"exploration-4-{name}-{n_users}-{steps}" if name in PAIRS else f"exploration-4-{name}-{seed}-{steps}"
    arrays = cell(key, compute)
    rows = pd.DataFrame({key: array for key, array in arrays.items() if key != "seconds"})
    return br.Replay(rows.astype({"step": int}))


def pooled(name: str, n_users: int, steps: int) -> br.Replay:
    """A synthetic case over SEEDS data sets, whose users are others each time."""
    parts = []
    for seed in range(SEEDS):
        rows = result(name, n_users, steps, seed).rows
        parts.append(rows.assign(**{rows.columns[0]: rows.iloc[:, 0] + 10_000 * seed}))
    every = pd.concat(parts, ignore_index=True)
    ends = every[every["step"] == steps].assign(seed=lambda x: x.iloc[:, 0] // 10_000)
    table = ends.pivot_table(index="seed", columns="rule", values="regret")
    gap = table.sub(table["greedy"], axis=0).drop(columns="greedy")
    print(f"\n{name}, {steps} steps: regret minus greedy's in each of {SEEDS} data sets\n{gap.round(2).to_string()}")
    return br.Replay(every)


def main(pairs: list[str], n_users: int, steps: int) -> None:
    """Print regrets at a few steps and the differences from greedy at the end."""
    made_up = [("drift", steps), ("niche", steps), ("niche", 2 * steps), ("shift", steps), ("shift", 2 * steps)]
    for name, length in [*((pair, steps) for pair in pairs), *made_up]:
        found = result(name, n_users, length) if name in PAIRS else pooled(name, n_users, length)
        curves = found.curves()
        at = [step for step in (1, 5, 10, 20, 40) if step <= length]
        table = curves[curves["step"].isin(at)].pivot(index="rule", columns="step", values=["regret", "se"])
        for rule in (name for name in table.index if name != "greedy"):
            last = found.difference(rule, "greedy").iloc[-1]
            table.loc[rule, ("minus greedy", length)], table.loc[rule, ("SE", length)] = last["difference"], last["se"]
        show(
            f"{name}: {found.rows.iloc[:, 0].nunique()} users, cumulative regret", table, f"exploration-{name}-{length}"
        )
        curves.to_csv(CACHE / f"exploration-{name}-{length}-curves.csv", index=False)
    print(f"\n{CAUTION}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", default="douban,anime")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    wanted = [pair for pair in options.pairs.split(",") if pair]
    if wanted and not os.environ.get("BAYESREC_DATA"):
        print("BAYESREC_DATA does not name a folder with the real data: the synthetic cases alone", file=sys.stderr)
        wanted = []
    main(wanted, options.users, options.steps)
