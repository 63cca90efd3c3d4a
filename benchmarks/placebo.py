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
from bayesrec.metrics import rmse, rmse_difference

METHOD = br.Gibbs(draws=200, warmup=200, chains=4)
RANK = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default="douban,anime", help=f"of {', '.join(PAIRS)}, or all")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    args = parser.parse_args()
    rows, verdicts, against = [], [], []
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
                "TransferMF, rank 1, activity": (br.models.TransferMF(rank=1, activity=True), train, False),
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
            for source, suffix in (("true", ""), ("deranged", ", shuffled")):
                for rival in ("PMF", f"CollectiveMF{suffix}"):
                    mine, other = (arms[name]["mean"] for name in (f"TransferMF{suffix}", rival))
                    apart = rmse_difference(test.value, mine, other, np.unique(test.user, return_inverse=True)[1])
                    change, se = (100 * x / rmse(test.value, other) for x in apart)
                    row = {"pair": pair, "source": source, "rival": rival, "seed": seed, "change": change, "se": se}
                    against.append(row | {"rmse": rmse(test.value, other)})
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
        _against_best(pd.DataFrame(against)),
        "placebo_best",
    )
    counts = verdict.groupby(["pair", "arm", "verdict"], sort=False).size().unstack(fill_value=0)
    show("Verdicts, number of seeds", counts, "placebo_verdicts")
    show("Verdicts, every seed", verdict.set_index(["pair", "arm", "seed"]).sort_index(), "placebo_verdicts_seeds")


def _against_best(against: pd.DataFrame) -> pd.DataFrame:
    """TransferMF and whichever of PMF and CollectiveMF has the lower mean RMSE, by pair and source; errors by user."""
    out = {}
    for key, part in against.groupby(["pair", "source"], sort=False):
        best = part.groupby("rival")["rmse"].mean().idxmin()
        mine = part[part["rival"] == best]
        se = np.sqrt((mine["se"] ** 2).sum()) / len(mine)
        out[key] = {"best": best, "change": mine["change"].mean(), "se": se, "worst": mine["change"].max()}
        out[key]["at most .3 + 1 SE"] = bool(out[key]["change"] <= 0.3 + se)
    return pd.DataFrame(out).T.rename_axis(["pair", "source"])


if __name__ == "__main__":
    main()
