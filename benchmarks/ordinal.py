"""Ordinal against Gaussian, and against myFM's ordered probit, on ratings in stars: points, probabilities, calibration.

    python benchmarks/ordinal.py FOLDER [--data ml-100k,douban_b2m_k0] [--rank 10] [--seeds 0]

FOLDER holds a CSV for each data set: u, i (dense codes), rating, part ("test..." is held out) and, for pairs of domains,
dom, where 1 is the target; only target rows are used. BAYESREC_PEERS names a Python that has
myFM (see peers.py); without it the rival's row is left out.

All models are compared by the probability of each level: the Gaussian's is its mass within half a step of the level, with
the ends open. ECE: expected calibration error of all probabilities of all rows in 20 bins. Sets: the most probable levels of
each row until they hold 90%; their stated mass, and how often the rating is among them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import br, cell, show

from bayesrec.inference.base import fit_unchecked
from bayesrec.metrics import clustered_mean, rmse_difference

METHOD = br.Gibbs(draws=250, warmup=200, chains=4)
BINS, MASS = 20, 0.9


def read(folder: Path, name: str) -> tuple[br.Interactions, pd.DataFrame]:
    frame = pd.read_csv(folder / f"{name}.csv")
    if "dom" in frame:
        frame = frame[frame["dom"] == 1]
    columns, held = ["u", "i", "rating"], frame["part"].str.startswith("test")
    train, test = frame[~held][columns], frame[held][columns]
    data = br.Interactions.from_frame(train, target="target", domain=None, user="u", item="i")
    return data, test.reset_index(drop=True)


def level_shares(posterior: br.Posterior, test: pd.DataFrame, levels: np.ndarray) -> np.ndarray:
    """Probability of each level, (row, level)."""
    if posterior.schema.units[-1].levels is not None:
        return posterior.predict_proba(test).filter(like="p_").to_numpy()
    edges = (levels[1:] + levels[:-1]) / 2
    out = np.empty((len(test), len(edges)))
    for rows, law in posterior.laws(posterior.data.encode(test)):
        n = len(law.mean)
        out[rows] = np.stack([law.cdf(np.full(n, edge)) for edge in edges], 1)
    return np.diff(out, prepend=0.0, append=1.0)


def myfm(data: br.Interactions, test: pd.DataFrame, seed: int, rank: int) -> dict[str, np.ndarray]:
    """The rival's probabilities, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        rows, answer = Path(folder, "rows.npz"), Path(folder, "answer.npz")
        frame, columns = data.to_frame(), {"user": "u", "item": "i"}
        parts = {name: frame[column].to_numpy() for name, column in columns.items()} | {"value": data.value}
        parts |= {f"test_{name}": test[column].to_numpy() for name, column in columns.items()}
        np.savez(rows, rank=rank, **parts)
        script = Path(__file__).with_name("peers.py")
        command = [os.environ["BAYESREC_PEERS"], str(script), "ordered probit", str(seed), str(rows), str(answer)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        with np.load(answer) as file:
            return dict(file)


def calibration_error(share: np.ndarray, hit: np.ndarray) -> float:
    """Mean gap of stated and observed shares over bins of equal width, by the number of statements in each."""
    place = np.minimum((share * BINS).astype(int), BINS - 1).ravel()
    stated, seen = np.bincount(place, share.ravel(), BINS), np.bincount(place, hit.ravel(), BINS)
    return float(np.abs(stated - seen).sum() / share.size)


def sets(share: np.ndarray, hit: np.ndarray) -> tuple[float, float]:
    """Stated mass and coverage of the smallest sets of levels that hold MASS."""
    order = np.argsort(-share, 1, kind="stable")
    ranked = np.take_along_axis(share, order, 1)
    inside = np.cumsum(ranked, 1) - ranked < MASS
    return float((ranked * inside).sum(1).mean()), float((np.take_along_axis(hit, order, 1) * inside).sum(1).mean())


def measure(share: np.ndarray, mean: np.ndarray, value: np.ndarray, levels: np.ndarray) -> dict[str, float]:
    hit = levels == value[:, None]
    below = np.cumsum(share, 1)
    ranked = ((below - (levels >= value[:, None])) ** 2)[:, :-1] @ np.diff(levels)
    stated, covered = sets(share, hit)
    return {
        "rmse": float(np.sqrt(np.mean((value - mean) ** 2))),
        "log_loss": -np.log(share[hit]).mean(),
        "rps": ranked.mean(),
        "ece": calibration_error(share, hit),
        "set_mass": stated,
        "set_coverage": covered,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="ml-100k,douban_b2m_k0")
    parser.add_argument("--rank", type=int, default=10)
    parser.add_argument("--seeds", default="0")
    args = parser.parse_args()
    models = {
        "Ordinal": br.Ordinal(),
        "Ordinal, one width": br.Ordinal(user_noise=False),
        "Gaussian": br.Gaussian(),
    }
    rows = []
    for name in args.data.split(","):
        data, test = read(args.folder, name)
        levels, value, user = np.unique(data.value), test["rating"].to_numpy(), test["u"].to_numpy()
        for seed in map(int, args.seeds.split(",")):
            arms = {}
            for label, likelihood in models.items():
                model = br.models.PMF(rank=args.rank, likelihood=likelihood)

                def compute(model=model, data=data, test=test, levels=levels, seed=seed):
                    posterior = fit_unchecked(model, data, METHOD, seed)
                    mean = posterior.predict(test)["mean"].to_numpy()
                    return {"share": level_shares(posterior, test, levels), "mean": mean}

                key = f"ordinal/{name}/{args.rank}/{seed}/{label.replace(', ', '-').replace(' ', '-')}"
                arms[label] = cell(key, compute)
            if "BAYESREC_PEERS" in os.environ:

                def rival(data=data, test=test, seed=seed, rank=args.rank):
                    return myfm(data, test, seed, rank)

                arms["myFM, ordered probit"] = cell(f"ordinal/{name}/{args.rank}/{seed}/myfm", rival)
            gauss = arms["Gaussian"]
            hit = levels == value[:, None]
            for label, arm in arms.items():
                found = {"data": name, "seed": seed, "model": label} | measure(arm["share"], arm["mean"], value, levels)
                found["rmse_diff"], found["rmse_diff_se"] = rmse_difference(value, arm["mean"], gauss["mean"], user)
                gap = np.log(gauss["share"][hit]) - np.log(arm["share"][hit])
                found["log_loss_diff"], found["log_loss_diff_se"] = clustered_mean(gap, user)
                rows.append(found)
    table = pd.DataFrame(rows).drop(columns="seed").groupby(["data", "model"], sort=False).mean()
    show(f"Ratings on levels, rank {args.rank}, mean over seeds; differences against the Gaussian", table, "ordinal")


if __name__ == "__main__":
    main()
