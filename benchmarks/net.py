"""The net: TransferMF and the cheapest transfer, a bias, mixed by br.stack for the best mean, against each alone.

For each pair and seed a fifth of the users become cold. The mixture is `br.stack(..., objective="squared_error")` and the model
the one in it. Standard errors by user.

    python benchmarks/net.py [--pairs ciao_3_2,ciao_2_3,ciao_1_10,ciao_10_1,ciao_1_12] [--seeds 0,1,2]
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial

import numpy as np
import pandas as pd
from common import PAIRS, bias_predictions, br, cell, show

from bayesrec.baselines import bias_transfer
from bayesrec.metrics import rmse, rmse_difference

METHOD = br.Gibbs(draws=150, warmup=150, chains=4)
MODEL = br.models.TransferMF(rank=8)


def mixed(train: br.Interactions, test: br.Interactions, seed: int) -> dict[str, np.ndarray]:
    """Means of the mixture and of the model in it, log scores, and the model's weight for cold users."""
    arms = {"transfer": MODEL, "biases": bias_transfer}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", br.errors.NegativeTransferWarning)
        mix = br.stack(MODEL, train, METHOD, folds=2, seed=seed, progress=False, arms=arms, objective="squared_error")
    alone = mix.arms["transfer"]
    return {
        "mean": mix.predict(test)["mean"].to_numpy(),
        "transfer": alone.predict(test)["mean"].to_numpy(),
        "score": mix.log_score(test),
        "transfer_score": alone.log_score(test),
        "weight": np.array(mix.weights.loc["cold", "transfer"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default=",".join(p for p in PAIRS if p.startswith("ciao")), help=", ".join(PAIRS))
    parser.add_argument("--seeds", default="0,1,2", help="of the split and the sampler")
    args = parser.parse_args()
    lines = []
    for pair in args.pairs.split(","):
        data = PAIRS[pair]()
        for seed in map(int, args.seeds.split(",")):
            train, test = br.split.cold_users(data, fraction=0.2, seed=seed)
            found = cell(f"net/{pair}/{seed}", partial(mixed, train, test, seed))
            biases, y = bias_predictions(bias_transfer(train), test)["mean"], test.value
            user, base = np.unique(test.user, return_inverse=True)[1], rmse(y, biases)
            line = {"pair": pair, "weight of the model": float(found["weight"]), "biases": base}
            for name, mean in (("model", found["transfer"]), ("stack", found["mean"])):
                change, error = rmse_difference(y, mean, biases, user)
                line |= {name: rmse(y, mean), f"{name} %": 100 * change / base, f"{name} % se": 100 * error / base}
            line["log score, stack less model"] = (found["score"] - found["transfer_score"]).mean()
            lines.append(line)
    groups = pd.DataFrame(lines).groupby("pair", sort=False)
    table = groups.mean()
    for name in ("model % se", "stack % se"):
        table[name] = groups[name].agg(lambda se: np.sqrt((se**2).sum()) / len(se))
    table.insert(0, "seeds", groups.size())
    show("Cold users: RMSE of the mixture and of its arms, changes in percent of the biases'", table, "net")


if __name__ == "__main__":
    main()
