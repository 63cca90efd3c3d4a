"""SVI against Gibbs: the same TransferMF, the same rows, seed 0; cold users and held-out rows of the others.

Prints RMSE and NLPD with paired differences (SE clustered by user), the share of Gibbs's gain over the bias model that
SVI keeps on warm rows, and how narrow SVI is: its sd of an expected rating over that of Gibbs, median over rows.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from common import PAIRS, bias_predictions, cell, measure, predictions, show

import bayesrec as br
from bayesrec.baselines import item_bias
from bayesrec.inference.base import fit_unchecked
from bayesrec.models.base import Batch

torch.set_num_threads(1)
METHODS = {
    "Gibbs": br.Gibbs(draws=200, warmup=200, chains=4),
    "SVI": br.SVI(draws=100),
    "SVI, one long fit": br.SVI(steps=3000, draws=200, chains=1),
}


def spread(posterior: br.Posterior, test: br.Interactions) -> np.ndarray:
    """Sd over draws of each row's expected rating (row,), noise left out; 2,000 rows."""
    rows = np.linspace(0, len(test) - 1, min(2000, len(test))).astype(int)
    codes = (torch.from_numpy(np.array(x[rows])) for x in (test.user, test.item, test.domain))
    return posterior.model.score(posterior.latents(), Batch(*codes)).std(0).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default="douban,anime")
    rows = []
    for pair in parser.parse_args().pairs.split(","):
        train, cold = br.split.cold_users(PAIRS[pair](), fraction=0.2, seed=0)
        train, warm = br.split.holdout(train, fraction=0.1, seed=0)
        for users, test in (("cold", cold), ("warm", warm)):
            arms = {"item bias": bias_predictions(item_bias(train), test)}
            for label, method in METHODS.items():

                def both(method=method, train=train, cold=cold, warm=warm):
                    posterior = fit_unchecked(br.models.TransferMF(rank=8), train, method, 0)
                    out = {}
                    for name, part in (("cold", cold), ("warm", warm)):
                        out |= {f"{name}_{x}": array for x, array in predictions(posterior, part).items()}
                        out[f"{name}_spread"] = spread(posterior, part)
                    return out

                arrays = cell(f"svi/{pair}-{label.replace(', ', '-').replace(' ', '-')}", both)
                arms[label] = {x.removeprefix(f"{users}_"): a for x, a in arrays.items() if x.startswith(users)}
                arms[label]["seconds"] = arrays["seconds"]
            table = {label: measure(arrays, test, arms["Gibbs"]) for label, arrays in arms.items()}
            gain = {label: table["item bias"]["rmse"] - table[label]["rmse"] for label in METHODS}
            for label, row in table.items():
                row |= {"pair": pair, "users": users, "arm": label}
                if label in METHODS:
                    row["share of gain"] = gain[label] / gain["Gibbs"]
                    row["spread"] = float(np.median(arms[label]["spread"] / arms["Gibbs"]["spread"]))
                    row["seconds"] = float(arms[label]["seconds"])
                rows.append(row)
    columns = [
        "rmse",
        "rmse_diff",
        "rmse_diff_se",
        "nlpd",
        "nlpd_diff",
        "nlpd_diff_se",
        "z2",
        "coverage",
        "share of gain",
    ]
    frame = pd.DataFrame(rows).set_index(["pair", "users", "arm"])[[*columns, "spread", "seconds"]]
    show("SVI and Gibbs, TransferMF rank 8; differences are against Gibbs", frame, "svi_vs_gibbs")


if __name__ == "__main__":
    main()
