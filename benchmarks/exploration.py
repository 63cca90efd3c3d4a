"""What exploring earns: regret of Thompson sampling, UCB, the posterior mean and popularity on the logs of held-out users.

python benchmarks/exploration.py [--pairs douban,anime] [--users 200] [--steps 20]

Users with at least twice as many target ratings as there are steps lose their target rows, keep their source rows, and are
replayed (`br.replay`). Logged replay sees only observed items. The synthetic cases have every rating of every user: in "drift"
the tastes of the new users lie on the other side of the population's, in "niche" most items are safe and some divide people.
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


def synthetic(case: str, n_users: int = 200) -> tuple[br.Interactions, pd.DataFrame]:
    """Ratings of 100 items by 300 users of the fit and by users whose prior is wrong, or wide where it matters."""
    rng = np.random.default_rng(1)
    n_items, n_old = 100, 300
    design = rng.standard_normal((n_items, 2))
    if case == "drift":
        old = [1.0, 0.0] + 0.4 * rng.standard_normal((n_old, 2))
        new = [-1.0, 0.0] + 0.4 * rng.standard_normal((n_users, 2))
    else:
        design = np.where(np.arange(n_items)[:, None] < 80, [1.0, 0.0], [0.0, 2.0]) + 0.2 * design
        scale = np.array([0.2, 1.0])
        old = [0.5, -0.3] + scale * rng.standard_normal((n_old, 2))
        new = [0.5, -0.3] + scale * rng.standard_normal((n_users, 2))
    parts = []
    for first, tastes, share in ((0, old, 0.2), (n_old, new, 1.0)):
        values = tastes @ design.T + 0.7 * rng.standard_normal((len(tastes), n_items))
        user, item = np.nonzero(rng.random(values.shape) < share)
        parts.append(pd.DataFrame({"user": first + user, "item": item, "rating": values[user, item]}))
    data = br.Interactions.from_frame(parts[0], target="target", domain=None)
    return data, parts[1]


def result(name: str, n_users: int, steps: int) -> br.Replay:
    """Rows of a replay, from the cache if they are there."""

    def compute() -> dict[str, np.ndarray]:
        train, log = real(name, n_users, steps) if name in PAIRS else synthetic(name, n_users)
        model = br.models.TransferMF(rank=8) if train.sources else br.models.PMF(rank=2)
        posterior = br.fit(model, train, METHOD, progress=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", br.errors.DataWarning)  # the caution is printed with the table
            rows = br.replay(posterior, log, steps=steps, rules=RULES).rows
        return {column: rows[column].to_numpy().astype(str if column == "rule" else float) for column in rows}

    arrays = cell(f"exploration-2-{name}-{n_users}-{steps}", compute)
    rows = pd.DataFrame({key: array for key, array in arrays.items() if key != "seconds"})
    return br.Replay(rows.astype({"step": int}))


def main(pairs: list[str], n_users: int, steps: int) -> None:
    """Print regrets at a few steps and the differences from greedy at the end."""
    for name, length in [*((pair, steps) for pair in pairs), ("drift", steps), ("niche", steps), ("niche", 2 * steps)]:
        found = result(name, n_users, length)
        curves = found.curves()
        at = [step for step in (1, 5, 10, 20, 40) if step <= length]
        table = curves[curves["step"].isin(at)].pivot(index="rule", columns="step", values=["regret", "se"])
        for rule in ("thompson", "ucb", "ucb_half", "popularity"):
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
