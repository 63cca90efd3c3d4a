"""Douban book -> music on the split on which the rivals were measured: cold users with 0 or 5 target ratings, and warm users.

The split is rebuilt here from the raw files (seed 0): a fifth of the users with at least 5 books and 6 records become
cold and keep k target ratings; a tenth of the other users' target rows are the warm test. The rivals run in the same
run: BAYESREC_PEERS names the Python of an environment that has them (see peers.py); without it their rows are left out.

"levels" is the log loss of whole stars, in which an ordinal likelihood, whose scores are probabilities and no densities, compares
with the others: of these it is the mass of a normal with their mean and sd within half a star. "bias" is the mean residual.

    python benchmarks/douban_rivals.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from common import bias_predictions, br, cell, data_folder, log_score, measure, predictions, show, star_scores
from peers import PEERS

from bayesrec.baselines import item_bias, item_user_bias
from bayesrec.inference.base import fit_unchecked
from bayesrec.metrics import nlpd_normal, rmse, rmse_difference

METHOD = br.Gibbs(draws=200, warmup=200, chains=4)
RANK = 8
BEST = "TransferMF, Ordinal, activity"
MODELS = {
    "PMF": br.models.PMF(rank=RANK),
    "CollectiveMF": br.models.CollectiveMF(rank=RANK),
    "TransferMF": br.models.TransferMF(rank=RANK),
    "TransferMF, activity": br.models.TransferMF(rank=RANK, activity=True),
    "PMF, Ordinal": br.models.PMF(rank=RANK, likelihood=br.Ordinal()),
    "CollectiveMF, Ordinal": br.models.CollectiveMF(rank=RANK, likelihood=br.Ordinal()),
    "TransferMF, Ordinal": br.models.TransferMF(rank=RANK, likelihood=br.Ordinal()),
    "TransferMF, Ordinal, activity": br.models.TransferMF(rank=RANK, likelihood=br.Ordinal(), activity=True),
}


def rivals_split(k: int) -> tuple[br.Interactions, br.Interactions, br.Interactions]:
    """Train, cold test and warm test with ``k`` target ratings left to the cold users."""

    def read(domain: str) -> pd.DataFrame:
        path = data_folder() / f"douban/{domain}_ratings.dat"
        frame = pd.read_csv(path, sep="\t", header=None, usecols=[0, 1, 2], names=["user", "item", "rating"])
        return frame.drop_duplicates(["user", "item"])

    source, target = read("book"), read("music")
    rng = np.random.default_rng(0)
    n_source, n_target = source["user"].value_counts(), target["user"].value_counts()
    eligible = np.array(sorted(u for u in n_target.index if n_source.get(u, 0) >= 5 and n_target[u] >= 6))
    cold = set(rng.choice(eligible, int(0.2 * len(eligible)), replace=False))
    target = target.sample(frac=1, random_state=0).reset_index(drop=True)
    position, is_cold = target.groupby("user").cumcount(), target["user"].isin(cold)
    warm = (rng.random(len(target)) < 0.1) & ~is_cold
    data = br.Interactions.from_frames({"book": source, "music": target}, target="music")
    held = np.concatenate([np.zeros(len(source), dtype=bool), (is_cold & (position >= k)).to_numpy()])
    warm = np.concatenate([np.zeros(len(source), dtype=bool), warm.to_numpy()])
    return data.mask(~held & ~warm), data.mask(held), data.mask(warm)


def peer(name: str, seed: int, train: br.Interactions, test: br.Interactions) -> dict[str, np.ndarray]:
    """Run one rival in its own environment: mean, and sd where it has one."""
    with tempfile.TemporaryDirectory() as folder:
        rows, answer = Path(folder) / "rows.npz", Path(folder) / "answer.npz"
        parts = {f"train_{x}": getattr(train, x) for x in ("user", "item", "domain", "value")}
        parts |= {f"test_{x}": getattr(test, x) for x in ("user", "item")}
        np.savez(rows, n_users=train.n_users, n_items=train.n_items, **parts)
        script = Path(__file__).with_name("peers.py")
        command = [os.environ["BAYESREC_PEERS"], str(script), name, str(seed), str(rows), str(answer)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        with np.load(answer) as file:
            return dict(file)


def levels(label: str, arrays: dict[str, np.ndarray], test: br.Interactions) -> dict[str, float]:
    """Log loss of whole stars, in which all models compare, and NLPD where it is that of a density."""
    if "Ordinal" in label:
        return {"levels": -log_score(arrays).mean(), "nlpd": np.nan, "nlpd_diff": np.nan, "nlpd_diff_se": np.nan}
    return {"levels": -star_scores(arrays["mean"], arrays["sd"], test.value).mean()}


def peer_row(
    arrays: dict[str, np.ndarray], test: br.Interactions, reference: dict[str, np.ndarray]
) -> dict[str, float]:
    """RMSE, its paired difference from the best of ours and, where the rival has an sd, NLPD and coverage."""
    y, mean = test.value, arrays["mean"]
    out = {"rmse": rmse(y, mean), "bias": (y - mean).mean()}
    out["best_minus_it"], out["best_minus_it_se"] = rmse_difference(y, reference["mean"], mean, test.user)
    if "sd" in arrays:
        out["nlpd"] = nlpd_normal(y, mean, arrays["sd"]).mean()
        out["levels"] = -star_scores(mean, arrays["sd"], y).mean()
        out["coverage"] = (np.abs(y - mean) <= 1.6449 * arrays["sd"]).mean()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", help="sampler seeds; the split stays the same")
    rows = []
    for seed in map(int, parser.parse_args().seeds.split(",")):
        for k in (0, 5):
            train, cold, warm = rivals_split(k)
            for name, test in (("cold", cold), ("warm", warm)):
                arms = {
                    "item bias": bias_predictions(item_bias(train), test),
                    "item + source user bias": bias_predictions(item_user_bias(train), test),
                }
                for label, model in MODELS.items():

                    def both(model=model, train=train, cold=cold, warm=warm, seed=seed):
                        posterior = fit_unchecked(model, train, METHOD, seed)
                        parts = {"cold": predictions(posterior, cold), "warm": predictions(posterior, warm)}
                        return {f"{part}_{x}": array for part, out in parts.items() for x, array in out.items()}

                    arrays = cell(f"rivals/{k}-{label.replace(', ', '-')}-{seed}", both)
                    arms[label] = {
                        x.removeprefix(f"{name}_"): array for x, array in arrays.items() if x.startswith(name)
                    }
                best = arms[BEST]
                for label, arrays in arms.items():
                    row = {"ratings kept": k, "users": name, "model": label, "seed": seed}
                    row |= measure(arrays, test, arms["PMF"]) | levels(label, arrays, test)
                    against = rmse_difference(test.value, best["mean"], arrays["mean"], test.user)
                    rows.append(row | dict(zip(("best_minus_it", "best_minus_it_se"), against, strict=True)))
                for label in PEERS if "BAYESREC_PEERS" in os.environ else ():
                    key = f"peers/{k}-{name}-{label.replace(', ', '-')}-{seed}"
                    arrays = cell(key, partial(peer, label, seed, train, test))
                    row = {"ratings kept": k, "users": name, "model": label, "seed": seed}
                    rows.append(row | peer_row(arrays, test, best))
    if "BAYESREC_PEERS" not in os.environ:
        print("rivals left out: BAYESREC_PEERS does not name a Python that has them (see benchmarks/peers.py)")
    table = pd.DataFrame(rows)
    groups = table.groupby(["ratings kept", "users", "model"], sort=False)
    against = ["best_minus_it", "best_minus_it_se"]
    columns = [
        "rmse",
        "bias",
        *against,
        "nlpd",
        "nlpd_diff",
        "nlpd_diff_se",
        "levels",
        "crps",
        "coverage",
        "z2",
        "z2_se",
    ]
    mean = groups[columns].mean()
    mean.insert(1, "rmse_min", groups["rmse"].min())
    mean.insert(2, "rmse_max", groups["rmse"].max())
    mean = mean.sort_index(level=[0, 1], sort_remaining=False)
    show(
        f"Douban book -> music, rivals' split, mean over sampler seeds; best_minus_it: RMSE of {BEST} minus its own",
        mean,
        "douban_rivals",
    )
    thirds = [f"{x}_third{k}{end}" for k in (1, 2, 3) for x, end in (("z2", ""), ("z2", "_se"), ("coverage", ""))]
    third = groups[thirds].mean().xs("TransferMF", level="model")
    show("TransferMF within thirds of the predicted sd", third, "douban_thirds")


if __name__ == "__main__":
    main()
