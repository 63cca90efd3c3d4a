"""The Gibbs sampler against SMURFF (C++) on MovieLens: seconds a sweep, RMSE for equal draws, effective draws a second.

    python benchmarks/gibbs_vs_peers.py FOLDER [--data ml-100k,ml-1m] [--ranks 10,32] [--repeats 5] [--threads 2]

FOLDER holds a CSV for each data set: u, i (dense codes), rating and part ("test" is held out). BAYESREC_PEERS names a
Python that has SMURFF (see peers.py). Runs alternate; a time is the median over the repeats of the mean sweep of a run.
Both libraries share the rows of one chain among the threads. RMSE: 100 sweeps of warm-up, 200 draws, one chain each.
Effective draws: bulk ESS of the expected rating over 1,000 held-out cells, 4 chains, over the seconds of all sweeps after
the warm-up.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats
from common import cell, show

import bayesrec as br
from bayesrec.inference.chain import Chain
from bayesrec.inference.progress import Progress
from bayesrec.metrics import rmse
from bayesrec.models.base import Schema
from bayesrec.posterior import predictive
from bayesrec.workers import Workers

WARMUP, DRAWS, PROBES = 100, 200, 1000
MODELS = {
    "PMF": br.Gaussian(),
    "PMF, one noise": br.Gaussian(user_noise=False),
}


def read(folder: Path, name: str) -> tuple[br.Interactions, pd.DataFrame]:
    frame = pd.read_csv(folder / f"{name}.csv", usecols=["u", "i", "rating", "part"])
    train, test = frame[frame["part"] != "test"], frame[frame["part"] == "test"]
    data = br.Interactions.from_frame(train.drop(columns="part"), target="films", domain=None, user="u", item="i")
    return data, test.reset_index(drop=True)


def sweeps(data: br.Interactions, rank: int, likelihood, n: int, threads: int, warm: int = 3) -> np.ndarray:
    """Seconds of each of ``n`` sweeps of one chain, (n,)."""
    model = br.models.PMF(rank=rank, likelihood=likelihood)
    with ThreadPoolExecutor(threads) as pool, Progress("", 0, False) as bar:
        table = replace(Schema.of(data).table(data), workers=Workers(threads, pool))
        chain, stop = Chain(model, table, 0, 0, warm + n, 1), threading.Event()
        ends = [time.perf_counter()]
        for _ in range(warm + n):
            chain.warmup = chain.sweep + 1
            chain.advance(0, stop, bar)
            ends.append(time.perf_counter())
    return np.diff(ends[warm:])


def smurff(data: br.Interactions, test: pd.DataFrame, job: dict) -> dict[str, np.ndarray]:
    """Run SMURFF in its own process."""
    rows = {"user": data.users.decode(data.user).to_numpy(), "item": data.items.decode(data.item).to_numpy()}
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "given.npz"), Path(folder, "answer.npz")
        np.savez(given, value=data.value, test_user=test["u"], test_item=test["i"], **rows, **job)
        script = Path(__file__).with_name("peers.py")
        subprocess.run([os.environ["BAYESREC_PEERS"], str(script), "sweeps", "0", str(given), str(answer)], check=True)
        with np.load(answer) as file:
            return dict(file)


def fit(data, test, rank, likelihood, chains, draws, threads):
    """Predictions of the held-out rows, expected ratings of the probes (chain, draw, probe), seconds after warm-up."""
    model, times = br.models.PMF(rank=rank, likelihood=likelihood), []
    for kept in (1, draws):
        method = br.Gibbs(draws=kept, warmup=WARMUP, chains=chains, threads=threads)
        start = time.perf_counter()
        posterior = br.fit(model, data, method, progress=False)
        times.append(time.perf_counter() - start)
    held = test.rename(columns={"rating": "value"})[["u", "i"]]
    batch = posterior.data.encode(held)
    probes = slice(0, PROBES)
    rows = predictive.compact(
        model, posterior.draws, posterior.schema, batch.user[probes], batch.item[probes], batch.domain[probes]
    )
    eta = model.score(rows.latents, rows.batch).numpy().reshape(chains, draws, -1)
    return {"mean": posterior.predict(held)["mean"].to_numpy(), "probes": eta, "seconds_after": times[1] - times[0]}


def effective(draws: np.ndarray) -> dict[str, float]:
    """Least and median bulk ESS and worst R-hat of (chain, draw, probe)."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    ess, rhat = array_stats.ess(draws, method="bulk", **axes), array_stats.rhat(draws, **axes)
    return {"ess_min": float(ess.min()), "ess_median": float(np.median(ess)), "rhat_max": float(rhat.max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="ml-100k,ml-1m")
    parser.add_argument("--ranks", default="10,32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-quality", action="store_true", help="times only")
    args = parser.parse_args()
    if not os.environ.get("BAYESREC_PEERS"):
        sys.exit("skipped: BAYESREC_PEERS does not name a Python with smurff")
    times, quality = [], []
    for name in args.data.split(","):
        data, test = read(args.folder, name)
        for rank in map(int, args.ranks.split(",")):
            n = max(10, int(2e9 / (len(data) * (rank + 5) ** 2)))
            for repeat in range(args.repeats):
                row = {"data": name, "rank": rank, "repeat": repeat}
                for label, likelihood in MODELS.items():
                    row[label] = sweeps(data, rank, likelihood, n, args.threads).mean()
                job = {"rank": rank, "warmup": n, "draws": 0, "seed": repeat, "threads": args.threads}
                row["SMURFF"] = float(smurff(data, test, job)["sweep"])
                times.append(row | {"load": os.getloadavg()[0]})
            if args.skip_quality:
                continue
            y = test["rating"].to_numpy()
            for label, likelihood in MODELS.items():

                def ours(data=data, test=test, rank=rank, likelihood=likelihood):
                    return fit(data, test, rank, likelihood, 1, DRAWS, args.threads)

                mean = cell(f"gibbs/{name}-{rank}-{label.replace(', ', '-').replace(' ', '-')}", ours)["mean"]
                quality.append({"data": name, "rank": rank, "sampler": label, "rmse": rmse(y, mean)})

            def theirs(data=data, test=test, rank=rank):
                job = {"rank": rank, "warmup": WARMUP, "draws": DRAWS, "seed": 1, "threads": args.threads}
                return smurff(data, test, job)

            mean = cell(f"gibbs/{name}-{rank}-SMURFF", theirs)["mean"]
            quality.append({"data": name, "rank": rank, "sampler": "SMURFF", "rmse": rmse(y, mean)})
    frame = pd.DataFrame(times)
    table = frame.groupby(["data", "rank"], sort=False)[[*MODELS, "SMURFF", "load"]].median()
    for label in MODELS:
        table[f"{label} / SMURFF"] = (
            (frame[label] / frame["SMURFF"]).groupby([frame["data"], frame["rank"]], sort=False).median()
        )
    show(f"Seconds a sweep, {args.threads} threads, median of {args.repeats} alternating runs", table, "gibbs_sweeps")
    if not quality:
        return
    show("RMSE of 200 draws of one chain", pd.DataFrame(quality).set_index(["data", "rank", "sampler"]), "gibbs_rmse")
    data, test = read(args.folder, "ml-100k")
    rows = []
    for label, likelihood in MODELS.items():
        found = fit(data, test, 8, likelihood, 4, 500, args.threads)
        rows.append({"sampler": label, "seconds": found["seconds_after"]} | effective(found["probes"]))
    chains, seconds = [], 0.0
    for seed in range(4):
        job = {"rank": 8, "warmup": WARMUP, "draws": 500, "seed": seed, "threads": args.threads}
        found = smurff(data, test, job)
        chains.append(found["draws"][:, :PROBES])
        seconds += float(found["seconds"])
    rows.append({"sampler": "SMURFF", "seconds": seconds} | effective(np.stack(chains)))
    table = pd.DataFrame(rows).set_index("sampler")
    for name in ("ess_min", "ess_median"):
        table[f"{name} a second"] = table[name] / table["seconds"]
    show("Effective draws, MovieLens-100K, rank 8, 4 chains of 500 draws", table, "gibbs_ess")


if __name__ == "__main__":
    main()
