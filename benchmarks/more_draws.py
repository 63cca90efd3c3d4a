"""How far the RMSE of predictive means of few draws lies above that of many: what is left for conditional means to win.

`python benchmarks/more_draws.py FOLDER [--rank 8] [--seeds 0,1]` prints it for MovieLens-100K (ml-100k.csv, see
gibbs_vs_peers.py).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import gibbs_vs_peers as peers
import pandas as pd
from common import cell, show

import bayesrec as br
from bayesrec.metrics import rmse

DRAWS = 250, 2000


def error(data: br.Interactions, test: pd.DataFrame, rank: int, draws: int, seed: int) -> dict[str, float]:
    """RMSE of the held-out rows over all draws of four chains."""
    method = br.Gibbs(draws=draws, warmup=peers.WARMUP, keep=())
    fit = br.fit(br.models.PMF(rank=rank), data, method, seed=seed, watch=test[["u", "i"]], progress=False)
    return {"rmse": rmse(test["rating"].to_numpy(), fit.watched["mean"].to_numpy())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seeds", default="0,1")
    args = parser.parse_args()
    data, test = peers.read(args.folder, "ml-100k")
    table = {}
    for seed in map(int, args.seeds.split(",")):
        found = {
            f"4 x {n}": cell(f"more-draws/{args.rank}-{n}-{seed}", partial(error, data, test, args.rank, n, seed))[
                "rmse"
            ]
            for n in DRAWS
        }
        few, many = found.values()
        table[seed] = found | {"difference": few - many}
    show("RMSE of predictive means", pd.DataFrame(table).T.rename_axis("seed").astype(float), "more_draws")


if __name__ == "__main__":
    main()
