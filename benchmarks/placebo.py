"""Does the source help where it should, and does it do no harm where it cannot help?

For each pair and seed: a fifth of the users become cold; PMF, CollectiveMF and TransferMF are fitted with the true
source and with the source users' histories deranged among them; TransferMF also without any source row. Verdicts
compare TransferMF with itself without the source. Of tweets_to_lens and lens_to_tweets the films are shared, not the
people: there a film stands in the user's role, "item bias" is a person's mean, and errors are clustered by film.

    python benchmarks/placebo.py [--pairs douban,anime] [--seeds 0,1,2,3,4]
    python benchmarks/placebo.py --pairs all --seeds 0,1,2
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from common import PAIRS, bias_predictions, br, cell, judge, measure, predictions, show

from bayesrec.baselines import item_bias, item_user_bias
from bayesrec.inference.base import fit_unchecked

METHOD = br.Gibbs(draws=200, warmup=200, chains=4)
RANK = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default="douban,anime", help=f"of {', '.join(PAIRS)}, or all")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    args = parser.parse_args()
    rows, verdicts = [], []
    for pair in PAIRS if args.pairs == "all" else args.pairs.split(","):
        data = PAIRS[pair]()
        for seed in map(int, args.seeds.split(",")):
            train, test = br.split.cold_users(data, fraction=0.2, seed=seed)
            shuffled = br.data.derange_sources(train, seed=seed)
            models = {
                "PMF": (br.models.PMF(rank=RANK), train, False),
                "CollectiveMF": (br.models.CollectiveMF(rank=RANK), train, False),
                "CollectiveMF, shuffled": (br.models.CollectiveMF(rank=RANK), shuffled, False),
                "TransferMF": (br.models.TransferMF(rank=RANK), train, True),
                "TransferMF, shuffled": (br.models.TransferMF(rank=RANK), shuffled, True),
                "TransferMF, no source": (br.models.TransferMF(rank=RANK), train.without_sources(), False),
            }
            arms = {"item bias": bias_predictions(item_bias(train), test)}
            arms["item + source user bias"] = bias_predictions(item_user_bias(train), test)
            for name, (model, rows_in, weights) in models.items():
                key = f"placebo/{pair}/{seed}/{name.replace(', ', '-').replace(' ', '-')}"

                def compute(model=model, rows_in=rows_in, weights=weights, seed=seed, test=test):
                    return predictions(fit_unchecked(model, rows_in, METHOD, seed), test, weights)

                arms[name] = cell(key, compute)
            for name, arrays in arms.items():
                row = {"pair": pair, "seed": seed, "model": name} | measure(arrays, test, arms["PMF"])
                rows.append(row | {"source_weight": arrays["source"].mean() if "source" in arrays else np.nan})
            gaps = {
                "TransferMF": ("TransferMF", "TransferMF, no source"),
                "TransferMF, shuffled": ("TransferMF, shuffled", "TransferMF, no source"),
                "TransferMF, shuffled, against PMF": ("TransferMF, shuffled", "PMF"),
                "CollectiveMF": ("CollectiveMF", "PMF"),
                "CollectiveMF, shuffled": ("CollectiveMF, shuffled", "PMF"),
            }
            for name, (arm, bare) in gaps.items():
                r = judge(arms[arm], arms[bare], test, train)
                verdicts.append(
                    {
                        "pair": pair,
                        "seed": seed,
                        "arm": name,
                        "verdict": r.verdict,
                        "P(negative)": r.probability,
                        "delta": r.delta,
                        "se": r.se,
                    }
                )
    table, verdict = pd.DataFrame(rows), pd.DataFrame(verdicts)
    table["rmse_change"] = table["rmse_diff"] / (table["rmse"] - table["rmse_diff"])
    columns = ["rmse", "rmse_change", "nlpd", "crps", "coverage", "z2", "source_weight", "rmse_diff_se"]
    grouped = table.groupby(["pair", "model"], sort=False)
    mean = grouped[columns].mean()
    mean["worst_change"] = grouped["rmse_change"].max()
    mean["change_se"] = grouped["rmse_change"].sem()
    show("Cold users, mean over seeds; rmse_change is against PMF", mean, "placebo_means")
    show(
        "Every seed",
        table.set_index(["pair", "seed", "model"])[[*columns, "z2_third1", "z2_third2", "z2_third3"]],
        "placebo_seeds",
    )
    show(
        "TransferMF against the better of PMF and CollectiveMF, in percent of its RMSE",
        _against_best(table),
        "placebo_best",
    )
    counts = verdict.groupby(["pair", "arm", "verdict"], sort=False).size().unstack(fill_value=0)
    show("Verdicts, number of seeds", counts, "placebo_verdicts")
    show("Verdicts, every seed", verdict.set_index(["pair", "arm", "seed"]).sort_index(), "placebo_verdicts_seeds")


def _against_best(table: pd.DataFrame) -> pd.DataFrame:
    """RMSE of TransferMF over that of whichever of PMF and CollectiveMF has the lower mean, by pair and source; SE over seeds."""
    rmse = table.pivot(index=["pair", "seed"], columns="model", values="rmse")
    out = {}
    for pair, part in rmse.groupby("pair", sort=False):
        for source, suffix in (("true", ""), ("deranged", ", shuffled")):
            rivals = part[["PMF", f"CollectiveMF{suffix}"]]
            best = rivals.mean().idxmin()
            change = 100 * (part[f"TransferMF{suffix}"] / rivals[best] - 1)
            out[pair, source] = {"best": best, "change": change.mean(), "se": change.sem(), "worst": change.max()}
    return pd.DataFrame(out).T.rename_axis(["pair", "source"])


if __name__ == "__main__":
    main()
