"""A source of other users and other items: what TransferMF(link="distribution") adds to PMF on a poor target.

Synthetic populations with known spreads. The target has 60 users with 4 ratings each of 40 items; the source 300 other
users with 20 ratings each of 80 other items. "alike" draws both from one population; "unlike" draws the source's users
and factors from another one. Differences are paired over replications, with their standard errors.

python benchmarks/distribution.py [--replications 20]
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from common import br, cell, log_score, predictions, show

METHOD = br.Gibbs(draws=200, warmup=200, chains=2, threads=1)
RANK = 4
# sds of users' biases, items' biases, the part of a rating that is personal taste, and noise
WEAK, STRONG, USUAL = (0.2, 0.3, 0.1, 1.0), (0.2, 0.2, 1.0, 0.4), (0.5, 0.4, 0.5, 0.7)
CASES = {
    "alike, usual": (USUAL, USUAL),
    "alike, little taste": (WEAK, WEAK),
    "alike, much taste": (STRONG, STRONG),
    "unlike: much taste in the source, little in the target": (STRONG, WEAK),
    "unlike: little taste in the source, much in the target": (WEAK, STRONG),
}


def population(sds: tuple[float, ...], n_users: int, n_items: int, rng: np.random.Generator) -> np.ndarray:
    """Ratings of all users and items, (user, item)."""
    user, item, taste, noise = sds
    factors = rng.standard_normal((n_users, 2)) @ rng.standard_normal((2, n_items)) / np.sqrt(2)
    eta = 3 + user * rng.standard_normal((n_users, 1)) + item * rng.standard_normal(n_items) + taste * factors
    return eta + noise * rng.standard_normal(eta.shape)


def rows(
    ratings: np.ndarray, n: int, first: int, domain: str, rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """A random ``n`` ratings of each user as a table, and a mask of what is left."""
    seen = rng.random(ratings.shape).argsort(1) < n
    user, item = np.nonzero(seen)
    table = pd.DataFrame({"user": user + first, "item": item, "domain": domain, "value": ratings[seen]})
    return table, ~seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=20)
    args = parser.parse_args()
    out = []
    for name, (source, target) in CASES.items():
        for r in range(args.replications):
            rng = np.random.default_rng([r, list(CASES).index(name)])
            theirs, _ = rows(population(source, 300, 80, rng), 20, 1000, "source", rng)
            ratings = population(target, 60, 40, rng)
            ours, left = rows(ratings, 4, 0, "target", rng)
            data = br.Interactions.from_frame(pd.concat([theirs, ours]), target="target", value="value")
            user, item = np.nonzero(left)
            test = pd.DataFrame({"user": user, "item": item, "domain": "target", "value": ratings[left]})
            found = {}
            for model in (br.models.PMF(rank=RANK), br.models.TransferMF(rank=RANK, link="distribution")):
                label = type(model).__name__

                def compute(model=model, data=data, test=test, r=r):
                    posterior = br.fit(model, data, METHOD, seed=r, progress=False)
                    ties = {k: posterior.draws[k].mean() for k in ("user_tie", "item_tie") if k in posterior.draws}
                    return predictions(posterior, test) | ties

                arrays = cell(f"distribution/{list(CASES).index(name)}/{r}/{label}", compute)
                error = np.sqrt(((arrays["mean"] - test["value"]) ** 2).mean())
                found[label] = error, -log_score(arrays).mean(), arrays.get("user_tie"), arrays.get("item_tie")
            (rmse0, nlpd0, *_), (rmse1, nlpd1, *ties) = found["PMF"], found["TransferMF"]
            out.append((name, rmse0, rmse1 / rmse0 - 1, nlpd0, nlpd1 - nlpd0, *map(float, ties)))
    names = ["case", "rmse_pmf", "rmse_change", "nlpd_pmf", "nlpd_change", "user_tie", "item_tie"]
    table = pd.DataFrame(out, columns=names)
    by = table.groupby("case", sort=False)
    mean = by.mean()
    for name in ("rmse_change", "nlpd_change"):
        mean.insert(mean.columns.get_loc(name) + 1, f"{name}_se", by[name].sem())
    show(
        f"no shared user: TransferMF(link='distribution') against PMF, {args.replications} replications",
        mean,
        "distribution",
    )


if __name__ == "__main__":
    main()
