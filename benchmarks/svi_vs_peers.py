"""VMP and SVI against NumPyro and against Gibbs: MovieLens in seconds to a log score, quality on four data sets, time a pass.

    python benchmarks/svi_vs_peers.py [FOLDER] [--parts movielens,curves,pairs,scaling] [--sizes 1e5,3e5,1e6,2e6]

FOLDER holds ml-100k.csv and ml-1m.csv (see gibbs_vs_peers.py); BAYESREC_NUMPYRO names a Python with numpyro, jax and pandas,
in which numpyro_rival.py runs: the same kind of model, AutoNormal, 3,000 steps at a decaying rate, from there to its
predictions, compilation included. "curves" is the held-out NLPD of fits of growing length against their seconds, each point a
fit of its own, and writes docs/images/nlpd_seconds.png. BAYESREC_DATA has the pairs of domains (see common.py). Everything runs
with two threads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gibbs_vs_peers as peers
import numpy as np
import pandas as pd
import torch
from common import PAIRS, cell, measure, predictions, show
from gibbs_scaling import synthetic
from scipy.stats import linregress
from svi_vs_gibbs import spread

import bayesrec as br
from bayesrec.inference.base import fit_unchecked
from bayesrec.inference.chain import Chain
from bayesrec.inference.start import warm_start
from bayesrec.inference.vmp_single import SingleFit
from bayesrec.models.base import Schema
from bayesrec.plots import INK, SERIES, _figure, _title
from bayesrec.workers import Workers

torch.set_num_threads(1)
GIBBS = br.Gibbs(draws=200, warmup=200, chains=4)
VMP = br.VMP(draws=100)
ONE = br.VMP(draws=100, chains=1)


def numpyro(name: str, folder: Path, steps: int = 3000) -> dict[str, np.ndarray]:
    """Mean, sd and seconds of the rival's own, in its own process."""
    with tempfile.TemporaryDirectory() as place:
        answer = Path(place, "answer.npz")
        script = Path(__file__).with_name("numpyro_rival.py")
        command = [os.environ["BAYESREC_NUMPYRO"], script, folder / f"{name}.csv", answer, str(steps)]
        subprocess.run(command, check=True)
        with np.load(answer) as file:
            return dict(file)


def movielens(folder: Path) -> None:
    """Held-out NLPD and RMSE and the seconds from the call of fit to its return, PMF of rank 8."""
    rows = []
    for name in ("ml-100k", "ml-1m"):
        data, test = peers.read(folder, name)
        held = br.Interactions.from_frame(test[["u", "i", "rating"]], target="films", domain=None, user="u", item="i")
        for label, method in {"Gibbs": GIBBS, "VMP": VMP, "VMP, one chain": ONE}.items():

            def ours(data=data, held=held, method=method):
                br.fit(
                    br.models.PMF(rank=8), data, replace(method, draws=2, chains=1), progress=False
                )  # loads what is compiled
                start = time.perf_counter()
                posterior = br.fit(br.models.PMF(rank=8), data, method, progress=False)
                wall = time.perf_counter() - start
                return predictions(posterior, held) | {"wall": np.array(wall), "load": np.array(os.getloadavg()[0])}

            arrays = cell(f"vmp/{name}-{label.replace(', ', '-').replace(' ', '-')}", ours)
            out = measure(arrays, held)
            rows.append({"data": name, "arm": label, **out, "seconds": arrays["wall"], "load": arrays["load"]})
        if os.environ.get("BAYESREC_NUMPYRO"):
            arrays = cell(f"vmp/{name}-numpyro", lambda name=name: numpyro(name, folder))
            z = (test["rating"].to_numpy() - arrays["mean"]) / arrays["sd"]
            nlpd = np.mean(0.5 * z**2 + np.log(arrays["sd"]) + 0.5 * np.log(2 * np.pi))
            rmse = np.sqrt(np.mean((test["rating"].to_numpy() - arrays["mean"]) ** 2))
            out = {"rmse": rmse, "nlpd": nlpd, "z2": np.mean(z**2), "load": os.getloadavg()[0]}
            rows.append({"data": name, "arm": "NumPyro AutoNormal", **out, "seconds": arrays["wall"]})
    frame = pd.DataFrame(rows).set_index(["data", "arm"])[["rmse", "nlpd", "z2", "coverage", "seconds", "load"]]
    if "NumPyro AutoNormal" in frame.index.get_level_values(1):
        rival = frame["seconds"].xs("NumPyro AutoNormal", level="arm")
        frame["seconds / NumPyro"] = frame["seconds"] / rival.reindex(frame.index.get_level_values("data")).to_numpy()
    show("MovieLens, rank 8: seconds from call to posterior, and held-out rows", frame.astype(float), "vmp_movielens")


def curves(folder: Path, names: list[str]) -> None:
    """Held-out NLPD against seconds, PMF of rank 8: Gibbs and VMP of growing length, and NumPyro of growing numbers of steps."""
    rows = []
    for name in names:
        data, test = peers.read(folder, name)
        y = test["rating"].to_numpy()
        held = br.Interactions.from_frame(test[["u", "i", "rating"]], target="films", domain=None, user="u", item="i")
        arms = {f"Gibbs-{n}": br.Gibbs(draws=n, warmup=n, chains=4) for n in (20, 50, 100, 200)}
        arms |= {f"VMP, one chain-{n}": replace(ONE, passes=n, tolerance=1e-9) for n in (2, 5, 10, 20)}
        arms |= {f"VMP-{n}": replace(VMP, passes=n, tolerance=1e-9) for n in (5, 20)}
        for label, method in arms.items():

            def ours(data=data, held=held, method=method):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", br.errors.ConvergenceWarning)  # short fits are the point
                    br.fit(br.models.PMF(rank=8), data, replace(method, draws=2, chains=1), progress=False)
                    start = time.perf_counter()
                    posterior = br.fit(br.models.PMF(rank=8), data, method, progress=False)
                    wall = time.perf_counter() - start
                return {"nlpd": -posterior.log_score(held).mean(), "wall": np.array(wall)}

            arrays = cell(f"vmp/curve-{name}-{label.replace(', ', '-').replace(' ', '-')}", ours)
            rows.append(
                {"data": name, "arm": label.rsplit("-", 1)[0], **{k: float(arrays[k]) for k in ("wall", "nlpd")}}
            )
        for steps in (100, 300, 1000, 3000) if os.environ.get("BAYESREC_NUMPYRO") else ():
            arrays = cell(f"vmp/curve-{name}-numpyro-{steps}", lambda n=name, k=steps: numpyro(n, folder, k))
            z = (y - arrays["mean"]) / arrays["sd"]
            nlpd = np.mean(0.5 * z**2 + np.log(arrays["sd"]) + 0.5 * np.log(2 * np.pi))
            rows.append({"data": name, "arm": "NumPyro AutoNormal", "wall": float(arrays["wall"]), "nlpd": nlpd})
    frame = pd.DataFrame(rows)
    show("Held-out NLPD against seconds from call to posterior", frame.set_index(["data", "arm"]), "nlpd_seconds")
    figure, axes = _figure(8.0, 3.6, len(names))
    for ax, (name, part) in zip(axes, frame.groupby("data", sort=False), strict=True):
        for (arm, line), color, marker in zip(part.groupby("arm", sort=False), SERIES, "osD^", strict=False):
            ax.plot(line["wall"], line["nlpd"], color=color, marker=marker, markersize=4, linewidth=1.2, label=arm)
        ax.set_xscale("log")
        ax.set_xlabel("seconds", color=INK)
        ax.set_ylabel("held-out NLPD", color=INK)
        _title(ax, {"ml-100k": "MovieLens-100K", "ml-1m": "MovieLens-1M"}[name])
        ax.legend(frameon=False, fontsize=8)
    figure.savefig("docs/images/nlpd_seconds.png")


def pairs(names: list[str]) -> None:
    """VMP against Gibbs on pairs of domains, cold users and held-out rows of the others."""
    rows = []
    for pair in names:
        train, cold = br.split.cold_users(PAIRS[pair](), fraction=0.2, seed=0)
        train, warm = br.split.holdout(train, fraction=0.1, seed=0)
        for model in (br.models.CollectiveMF(rank=8), br.models.TransferMF(rank=8)):
            cells = {}
            for label, method in {"Gibbs": GIBBS, "VMP": VMP}.items():

                def both(method=method, train=train, cold=cold, warm=warm, model=model):
                    posterior = fit_unchecked(model, train, method, 0)
                    out = {"khat": posterior.stats.get("khat", np.full((1, 1), np.nan))}
                    for name, part in (("cold", cold), ("warm", warm)):
                        out |= {f"{name}_{x}": array for x, array in predictions(posterior, part).items()}
                        out[f"{name}_spread"] = spread(posterior, part)
                    return out

                cells[label] = cell(f"vmp/{pair}-{type(model).__name__}-{label}", both)
            for users, test in (("cold", cold), ("warm", warm)):
                arms = {
                    label: {x.removeprefix(f"{users}_"): a for x, a in arrays.items() if x.startswith(users)}
                    for label, arrays in cells.items()
                }
                for label, arrays in arms.items():
                    row = measure(arrays, test, arms["Gibbs"])
                    row["spread"] = np.median(arrays["spread"] / arms["Gibbs"]["spread"])
                    khat, seconds = cells[label]["khat"], cells[label]["seconds"]
                    row |= {"khat > .7": np.mean(khat > 0.7), "seconds": float(seconds)}
                    rows.append({"pair": pair, "model": type(model).__name__, "users": users, "arm": label, **row})
    columns = [
        "rmse",
        "rmse_diff",
        "rmse_diff_se",
        "nlpd",
        "nlpd_diff",
        "nlpd_diff_se",
        "z2",
        "spread",
        "khat > .7",
        "seconds",
    ]
    frame = pd.DataFrame(rows).set_index(["pair", "model", "users", "arm"])[columns]
    show("VMP and Gibbs, rank 8; differences are against Gibbs", frame, "vmp_pairs")


def scaling(sizes: list[int], rank: int = 16, threads: int = 2) -> None:
    """Median seconds of a pass, with Gibbs's sweep on the same rows, and their powers of the ratings."""
    rows = []
    for n in sizes:

        def timed(n=n):
            data = br.Interactions.from_frame(synthetic(n), target="films", domain=None)
            times: dict[str, list[float]] = {"pass": [], "sweep": []}
            model = br.models.PMF(rank=rank)
            with ThreadPoolExecutor(threads) as pool:
                table = replace(Schema.of(data).table(data), workers=Workers(threads, pool))
                fit = SingleFit(model, table, warm_start(model, table, np.random.default_rng(0), 1)[0])
                chain = Chain(model, table, 0, 0, 100, 1)
                for _ in range(min(21, max(5, int(4e6 / n)))):
                    for label, step in (("pass", fit.advance), ("sweep", chain._sweep)):
                        start = time.perf_counter()
                        step()
                        times[label].append(time.perf_counter() - start)
            return {label: np.median(x[1:]) for label, x in times.items()} | {"least": np.min(times["pass"][1:])}

        rows.append({"ratings": n, **cell(f"vmp/scaling-{n}-{rank}-{threads}", timed)})
    frame = pd.DataFrame(rows).drop(columns="seconds").astype(float)
    frame["pass / sweep"] = frame["pass"] / frame["sweep"]
    show(f"Seconds a pass and a sweep, PMF, rank {rank}, {threads} threads", frame, "vmp_scaling")
    for label in ("pass", "least", "sweep"):
        fit = linregress(np.log(frame["ratings"]), np.log(frame[label]))
        print(f"{label}: ratings to the power of {fit.slope:.3f} (standard error {fit.stderr:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--parts", default="movielens,pairs,scaling")
    parser.add_argument("--pairs", default="douban,anime")
    parser.add_argument("--data", default="ml-100k,ml-1m", help="of the curves")
    parser.add_argument("--sizes", default="1e5,3e5,1e6,2e6")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if "movielens" in parts and args.folder:
        movielens(args.folder)
    if "curves" in parts and args.folder:
        curves(args.folder, args.data.split(","))
    if "scaling" in parts:
        scaling([int(float(x)) for x in args.sizes.split(",")])
    if "pairs" in parts:
        pairs(args.pairs.split(","))


if __name__ == "__main__":
    main()
