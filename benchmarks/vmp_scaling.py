"""How time and memory of VMP grow with the ratings, read from Parquet; and 20 million ratings to within 1% of what can be known.

    python benchmarks/vmp_scaling.py [--parts scaling,target] [--sizes 1e5,3e5,1e6,3e6,1e7,2e7] [--rank 16] [--threads 2]

Needs Linux and some GB of room for temporary files. Every cell runs in a process of its own, which `Interactions.from_parquet`
gives its data. Seconds are of the wall and of all processors: where others use the machine too, only the second mean much.

*scaling*: PMF on the ratings of gibbs_scaling.py. Peaks of memory over what was there before, and the least seconds of a pass.

*target*: 200,000 users, 50,000 items, degrees with power-law tails; ratings are biases and 16 planted factors plus noise. Nobody
who has to learn the vectors comes near the sd of the noise, with 100 ratings a user and 17 numbers to learn from them. So three
numbers say what could be known: the noise; the error of one who is told all items and learns users, exactly; and the *floor*,
which has besides the error of one who is told all users and learns items.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from common import cell, show
from gibbs_scaling import memory, settle, synthetic
from scipy.stats import linregress

import bayesrec as br
from bayesrec.inference.start import warm_start
from bayesrec.inference.vmp_single import SingleFit
from bayesrec.models.base import Schema
from bayesrec.workers import Workers

READ = {"target": "films", "domain": None}
NOISE, BIAS, FACTOR = 0.8, 0.4, 0.125  # sds: of ratings, of biases, of an item's factors; a user's have sd 1
HELD_OUT, LOOKED = 200_000, 20_000
GROUPS = {"row_group_size": 2**20, "compression": "snappy"}


def fresh(function, *args):
    """Call in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def cpu() -> float:
    """Seconds of all processors that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(n: int, rank: int, threads: int) -> dict[str, float]:
    """Peaks of reading and of a fit in bytes, then seconds of a pass."""
    model = br.models.PMF(rank=rank)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ratings.parquet")
        synthetic(10**5).head(1000).to_parquet(file)
        br.fit(model, br.Interactions.from_parquet(file, **READ), br.VMP(passes=2, tolerance=1e9, draws=2, chains=1))
        base = settle()
        synthetic(n).to_parquet(file, **GROUPS)
        before, start = settle(), time.perf_counter()
        data = br.Interactions.from_parquet(file, **READ)
        out = {"base": base, "read": memory("VmHWM") - before, "read_wall": time.perf_counter() - start}
    settle()
    times = []
    with ThreadPoolExecutor(threads) as pool:
        table = replace(Schema.of(data).table(data), workers=Workers(threads, pool))
        fit = SingleFit(model, table, warm_start(model, table, np.random.default_rng(0), 1)[0])
        for _ in range(min(21, max(4, int(3e7 / n)))):
            start = time.perf_counter(), cpu()
            fit.advance()
            times.append((time.perf_counter() - start[0], cpu() - start[1]))
    wall, used = np.min(times[1:], axis=0)
    out |= {"wall": wall, "cpu": used, "fit": memory("VmHWM") - base}
    return out | {"ratings": n, "rows": data.n_users + data.n_items}


def scaling(sizes: list[int], rank: int, threads: int) -> None:
    rows = [cell(f"vmp/growth-{n}-{rank}-{threads}", partial(fresh, measure, n, rank, threads)) for n in sizes]
    frame = pd.DataFrame([{k: float(x) for k, x in row.items()} for row in rows])
    for name in ("read", "fit"):
        frame[f"{name}, bytes a rating"] = frame[name] / frame["ratings"]
    frame["million ratings read a second"] = frame["ratings"] / frame["read_wall"] / 1e6
    frame["fit, GB"] = frame["fit"] / 1e9
    frame["CPU ns a rating"] = 1e9 * frame["cpu"] / frame["ratings"]
    columns = ["ratings", "wall", "cpu", *frame.columns[frame.columns.get_loc("rows") + 1 :]]
    show(f"A pass of VMP, PMF of rank {rank}, {threads} threads", frame[columns], "vmp_growth")
    for label in ("wall", "cpu"):
        fit = linregress(np.log(frame["ratings"]), np.log(frame[label]))
        print(f"{label}: ratings to the power of {fit.slope:.3f} (standard error {fit.stderr:.3f})")


def plant(n: int, rank: int, folder: Path) -> None:
    """Write the ratings to learn from in four files, and the truth with what is held out."""
    rng = np.random.default_rng(1)
    frame = synthetic(n + HELD_OUT)
    user, item = frame["user"].to_numpy(), frame["item"].to_numpy()
    u, v = (rng.standard_normal((codes.max() + 1, rank + 1)) for codes in (user, item))
    u[:, 0] *= BIAS
    v *= np.append(BIAS, np.full(rank, FACTOR))
    eta = np.empty(len(frame))
    for first in range(0, len(eta), 10**6):
        part = slice(first, first + 10**6)
        eta[part] = expected(u[user[part]], v[item[part]])
    frame["rating"] = (eta + NOISE * rng.standard_normal(len(eta))).astype(np.float32)
    held = np.zeros(len(frame), dtype=bool)
    held[rng.choice(len(frame), HELD_OUT, replace=False)] = True
    np.savez(folder / "truth.npz", u=u, v=v, eta=eta[held], **{k: x[held].to_numpy() for k, x in frame.items()})
    frame = frame[~held]
    for k, part in enumerate(np.array_split(np.arange(len(frame)), 4)):
        frame.iloc[part[0] : part[-1] + 1].to_parquet(folder / f"part-{k}.parquet", index=False, **GROUPS)


def expected(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Biases and factors."""
    return 3.5 + u[:, 0] + v[:, 0] + np.einsum("ij,ij->i", u[:, 1:], v[:, 1:])


def told(own, other, rating, wanted, prior) -> np.ndarray:
    """Exact posterior means (n, R) of ``wanted`` rows; ``own`` has the row of each rating, ``other`` what vector it meets."""
    place = np.full(own.max() + 1, -1)
    place[wanted] = np.arange(len(wanted))
    keep = np.flatnonzero(place[own] >= 0)
    keep = keep[np.argsort(place[own[keep]], kind="stable")]
    size = other[1].shape[1]
    precision, linear = np.tile(np.diag(prior**-2.0), (len(wanted), 1, 1)), np.zeros((len(wanted), size))
    for first in range(0, len(keep), 2 * 10**5):
        rows = keep[first : first + 2 * 10**5]
        x = other[1][other[0][rows]].copy()
        y = rating[rows] - 3.5 - x[:, 0]
        x[:, 0] = 1.0
        at, start = np.unique(place[own[rows]], return_index=True)
        precision[at] += np.add.reduceat(x[:, :, None] * x[:, None, :], start) / NOISE**2
        linear[at] += np.add.reduceat(x * y[:, None], start) / NOISE**2
    return np.linalg.solve(precision, linear[..., None])[..., 0]


def floors(folder: Path) -> dict[str, float]:
    """Mean squared errors, beside the noise, on some held-out rows, of who is told items, or users."""
    with np.load(folder / "truth.npz") as file:
        truth = {k: x for k, x in file.items()}
    frame = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))])
    user, item, rating = (frame[name].to_numpy() for name in ("user", "item", "rating"))
    u, v, users, items = truth["u"], truth["v"], truth["user"][:LOOKED], truth["item"][:LOOKED]
    size, out = u.shape[1], {}
    wanted, place = np.unique(users, return_inverse=True)
    known = told(user, (item, v), rating, wanted, np.append(BIAS, np.ones(size - 1)))
    out["told items"] = np.mean((expected(known[place], v[items]) - truth["eta"][:LOOKED]) ** 2)
    wanted, place = np.unique(items, return_inverse=True)
    known = told(item, (user, u), rating, wanted, np.append(BIAS, np.full(size - 1, FACTOR)))
    out["told users"] = np.mean((expected(u[users], known[place]) - truth["eta"][:LOOKED]) ** 2)
    return out


def learn(folder: Path, rank: int, threads: int, passes: int, draws: int, tolerance: float) -> dict[str, float]:
    """Read and fit; seconds, peak of the whole process, errors on what was held out."""
    small = br.Interactions.from_frame(synthetic(10**5).head(2000), **READ)
    method = br.VMP(passes=passes, draws=draws, chains=1, threads=threads, tolerance=tolerance)
    br.fit(br.models.PMF(rank=rank), small, replace(method, tolerance=1e9), progress=False)  # loads what is compiled
    base, start = settle(), (time.perf_counter(), cpu())
    data = br.Interactions.from_parquet(folder, **READ)
    read = time.perf_counter() - start[0], cpu() - start[1]
    count, true = [], SingleFit.advance
    SingleFit.advance = lambda self: (count.append(1), true(self))
    posterior = br.fit(br.models.PMF(rank=rank), data, method, progress=False)
    out = {"wall": time.perf_counter() - start[0], "cpu": cpu() - start[1], "read wall": read[0], "read cpu": read[1]}
    out |= {"peak": memory("VmHWM"), "base": base, "passes": len(count), "ratings": len(data)}
    with np.load(folder / "truth.npz") as file:
        test = pd.DataFrame({name: file[name] for name in ("user", "item", "rating")})
        eta = file["eta"]
    answer = posterior.predict(test)
    z = (test["rating"].to_numpy() - answer["mean"].to_numpy()) / answer["sd"].to_numpy()
    error = answer["mean"].to_numpy() - eta
    return out | {
        "mse": np.mean(error**2),
        "mse, looked": np.mean(error[:LOOKED] ** 2),
        "rmse": np.sqrt(np.mean((test["rating"].to_numpy() - answer["mean"].to_numpy()) ** 2)),
        "z2": np.mean(z**2),
    }


def target(n: int, rank: int, threads: int, passes: int, draws: int, tolerance: float) -> None:
    def compute():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            fresh(plant, n, rank, folder)
            found = fresh(floors, folder)
            return found | fresh(learn, folder, rank, threads, passes, draws, tolerance)

    x = {
        k: float(v) for k, v in cell(f"vmp/target-{n}-{rank}-{threads}-{passes}-{draws}-{tolerance:g}", compute).items()
    }
    with_items, floor = NOISE**2 + x["told items"], NOISE**2 + x["told items"] + x["told users"]
    ours = NOISE**2 + x["mse, looked"]
    table = {
        "noise": NOISE,
        "told all items": with_items**0.5,
        "floor": floor**0.5,
        "VMP": ours**0.5,
        "VMP / floor": (ours / floor) ** 0.5,
        "VMP / told all items": (ours / with_items) ** 0.5,
        "RMSE of all held-out ratings": x["rmse"],
        "squared standardised residual": x["z2"],
        "passes": x["passes"],
        "minutes, wall": x["wall"] / 60,
        "minutes, CPU": x["cpu"] / 60,
        "of which reading, s": x["read wall"],
        "peak of the process, GB": x["peak"] / 1e9,
        "bytes a rating": (x["peak"] - x["base"]) / x["ratings"],
    }
    show(f"{n:,} ratings, rank {rank}, {threads} threads, from files to draws", pd.DataFrame({"": table}), "vmp_target")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = {
        "parts": "scaling,target",
        "sizes": "1e5,3e5,1e6,3e6,1e7,2e7",
        "ratings": 2e7,
        "rank": 16,
        "threads": 2,
    }
    for name, default in (options | {"passes": 150, "draws": 20, "tolerance": 4e-6}).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    args = parser.parse_args()
    if "scaling" in args.parts.split(","):
        scaling([int(float(x)) for x in args.sizes.split(",")], args.rank, args.threads)
    if "target" in args.parts.split(","):
        target(int(args.ratings), args.rank, args.threads, args.passes, args.draws, args.tolerance)


if __name__ == "__main__":
    main()
