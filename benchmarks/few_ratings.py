"""Anime TV -> Movie: held-out users who keep 0 or 5 target ratings, seeds 0 to 2.

python benchmarks/few_ratings.py [--pair anime] [--seeds 0,1,2]
"""

from __future__ import annotations

import argparse

import pandas as pd
from common import PAIRS, bias_predictions, br, cell, measure, predictions, show

from bayesrec.baselines import item_bias, item_user_bias
from bayesrec.inference.base import fit_unchecked

METHOD = br.Gibbs(draws=200, warmup=200, chains=4)
RANK = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", default="anime", choices=list(PAIRS))
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    data, rows = PAIRS[args.pair](), []
    for seed in map(int, args.seeds.split(",")):
        train, test = br.split.cold_users(data, fraction=0.2, n_support=5, seed=seed)
        arms = {"item bias": bias_predictions(item_bias(train), test)}
        arms["item + source user bias"] = bias_predictions(item_user_bias(train), test)
        for model in (br.models.PMF(rank=RANK), br.models.TransferMF(rank=RANK)):
            label = type(model).__name__

            def compute(model=model, train=train, test=test, seed=seed):
                return predictions(fit_unchecked(model, train, METHOD, seed), test)

            arms[label] = cell(f"few/{args.pair}/{seed}/{label}", compute)
        rows += [{"seed": seed, "model": name} | measure(arrays, test, arms["PMF"]) for name, arrays in arms.items()]
    table = pd.DataFrame(rows)
    columns = [
        "rmse",
        "rmse_diff",
        "rmse_diff_se",
        "nlpd",
        "crps",
        "coverage",
        "z2",
        "z2_third1",
        "z2_third2",
        "z2_third3",
    ]
    title = f"{args.pair}: users with 5 target ratings"
    show(f"{title}, mean over seeds", table.groupby("model", sort=False)[columns].mean(), f"few_{args.pair}")
    show(f"{title}, every seed", table.set_index(["seed", "model"])[columns], f"few_{args.pair}_seeds")


if __name__ == "__main__":
    main()
