"""How time and memory of a Gibbs fit of PMF grow with the ratings, and how near a sweep is to the machine's floor.

    python benchmarks/gibbs_scaling.py [FOLDER] [--sizes 1e5,3e5,1e6,3e6,1e7,2e7] [--rank 16] [--threads 2] [--out docs/images]

Needs Linux and the extra `plots`. Prints tables and writes gibbs_scaling.png and roofline.png to the folder --out.
Synthetic ratings: 100 a user, four users an item, degrees with power-law tails; three sizes at least. Each size runs in
a process of its own: memory of the Interactions and of one fit first, then the median sweep of a chain. The roofline (see
roofline.py) has MovieLens-1M at rank 32 too where FOLDER holds ml-1m.csv (see gibbs_vs_peers.py). Cells are cached, the
peaks of the machine among them: remove .benchmarks/cells/scaling after a change of code or machine.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import gibbs_vs_peers as peers
import numpy as np
import pandas as pd
from common import cell, show
from roofline import peaks, work
from scipy.stats import linregress

import bayesrec as br
from bayesrec.plots import INK, MUTED, SERIES, _figure, _title

STYLE = {label: {"color": c, "marker": m} for label, c, m in zip(peers.MODELS, SERIES, "os", strict=False)}
DASHED = {"color": MUTED, "linestyle": (0, (4, 3)), "linewidth": 1.5}


def synthetic(n: int) -> pd.DataFrame:
    """So many ratings; before repeats are dropped, the k most frequent of m users (items) have a share of sqrt(k / m)."""
    rng = np.random.default_rng(n)
    sizes, key = (n // 100, n // 400), np.empty(0, dtype=np.int64)
    while len(key) < n:
        user, item = ((size * rng.random(n + n // 8) ** 2).astype(np.int64) for size in sizes)
        key = np.unique(np.concatenate([key, user * sizes[1] + item]))
    value, columns = 3.5 + 0.8 * rng.standard_normal(n), {}
    for name, size, code in zip(("user", "item"), sizes, np.divmod(rng.permutation(key)[:n], sizes[1]), strict=True):
        value += 0.4 * rng.standard_normal(size)[code]
        columns[name] = rng.permutation(size).astype(np.int32)[code]  # an id says nothing of its degree
    return pd.DataFrame(columns | {"rating": value.round().clip(1, 5).astype(np.int8)})


def memory(field: str) -> int:
    """Bytes of a field of /proc/self/status: VmRSS is what is resident now, VmHWM its peak."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def settle() -> int:
    """Give freed memory back to the system, begin a new peak and return the bytes resident."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):  # where it is closed, a peak is that of the process so far
        Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def timed(data: br.Interactions, rank: int, threads: int) -> dict[str, float]:
    """Median seconds of a sweep of each model, and the sizes."""
    n = min(51, max(7, int(2e7 / len(data))))
    out = {label: np.median(peers.sweeps(data, rank, kind, n, threads)) for label, kind in peers.MODELS.items()}
    return out | {"rank": rank, "ratings": len(data), "rows": data.n_users + data.n_items}


def measure(n: int, rank: int, threads: int) -> dict[str, float]:
    """Bytes that the Interactions (beyond the caller's frame) and a fit need at their peaks, then times."""
    model, method = br.models.PMF(rank=rank), br.Gibbs(draws=5, warmup=5, chains=1, threads=threads)
    read = partial(br.Interactions.from_frame, target="films", domain=None)
    br.fit(model, read(synthetic(10**5).head(1000)), method, progress=False)  # loads and compiles everything
    base = settle()
    frame = synthetic(n)
    before = settle()
    data = read(frame)
    out = {"base": base, "build": memory("VmHWM") - before}
    del frame
    settle()
    draws = br.fit(model, data, method, progress=False).draws
    out |= {"fit": memory("VmHWM") - base, "draws": sum(x.nbytes for x in draws.values())}
    out["bytes"] = sum(x.nbytes for x in (data.user, data.item, data.domain, data.value))
    return out | timed(data, rank, threads)


def draw_scaling(sizes: pd.DataFrame, fits: dict) -> object:
    figure, (ax, right) = _figure(10, 4.2, 2)
    x = sizes["ratings"]
    for label, fit in fits.items():
        ax.plot(x, sizes[label], **STYLE[label], linestyle="", label=f"{label}: {fit.slope:.3f} ± {fit.stderr:.3f}")
        ax.plot(x, np.exp(fit.intercept) * x**fit.slope, color=STYLE[label]["color"], linewidth=1.2)
    ax.plot(x, sizes["floor"], **DASHED, label="floor of the machine")
    ax.set(yscale="log", ylabel="seconds a sweep")
    right.plot(x, sizes["fit / ratings"], "o-", color=SERIES[2], label="fit, without its kept draws")
    right.plot(x, sizes["build / ratings"], "s-", color=SERIES[3], label="making the Interactions")
    right.axhline(3, **DASHED, label="goal for the fit")
    right.set(ylim=0, ylabel="peak memory / bytes of the ratings")
    for one, title in ((ax, "Time, and its power of the ratings"), (right, "Memory")):
        one.set(xscale="log", xlabel="ratings")
        one.legend(frameon=False, fontsize=9)
        _title(one, title)
    return figure


def draw_roofline(table: pd.DataFrame, flops: float, bandwidth: float) -> object:
    figure, (ax,) = _figure(6.8, 4.8)
    x = np.geomspace(0.5, 256, 200)
    ax.plot(x, np.minimum(flops, x * bandwidth) / 1e9, color=INK, linewidth=2)
    near = {"textcoords": "offset points", "fontsize": 9, "color": INK}
    ax.annotate(f"dgemm: {flops / 1e9:.0f} Gflop/s", (256, flops / 1e9), (0, 5), ha="right", **near)
    ax.annotate(f"triad: {bandwidth / 1e9:.0f} GB/s", (0.8, 0.8e-9 * bandwidth), (10, -8), **near)
    streamed, all_bytes = table["flops"] / table["streamed"], table["flops"] / (table["streamed"] + table["gathered"])
    for label, style in STYLE.items():
        rate = table["flops"] / table[label] / 1e9
        ax.plot(streamed, rate, **style, linestyle="", label=label)
        ax.plot(all_bytes, rate, **style, linestyle="", markerfacecolor="white")
    for rank, group in table.groupby("rank"):
        lowest = (group["flops"] / group[[*STYLE]].max(axis=1)).min() / 1e9
        ends = " to ".join(dict.fromkeys(group.index[[0, -1]]))
        ax.annotate(f"{ends}, rank {rank:.0f}", (streamed[group.index[0]], lowest), (0, -18), ha="center", **near)
    ax.plot([], [], "o", color=MUTED, markerfacecolor="white", label="had every vector come from memory")
    ax.set(xscale="log", yscale="log", xlabel="flops a byte from memory", ylabel="Gflop/s")
    ax.set(xlim=(0.5, 256), ylim=(flops / 1e11, flops / 6e8))
    ax.legend(frameon=False, fontsize=9, loc="lower right")
    _title(ax, "Sweeps under the roof of the machine")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    options = {"sizes": "1e5,3e5,1e6,3e6,1e7,2e7", "rank": 16, "threads": 2, "out": Path("docs/images")}
    for name, default in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    args = parser.parse_args()
    machine = cell(f"scaling/peaks-{args.threads}", partial(peaks, args.threads))
    flops, bandwidth, rows = machine["flops"], machine["bandwidth"], {}
    for size in args.sizes.split(","):
        job = int(float(size)), args.rank, args.threads
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            run = partial(fresh.submit, measure, *job)
            rows[size] = cell(f"scaling/{'-'.join(map(str, job))}", lambda run=run: run().result())
    if args.folder and (args.folder / "ml-1m.csv").exists():
        data, _ = peers.read(args.folder, "ml-1m")
        rows["MovieLens-1M"] = cell(f"scaling/ml-1m-32-{args.threads}", partial(timed, data, 32, args.threads))
    else:
        print("MovieLens-1M skipped: no FOLDER with ml-1m.csv")
    table = pd.DataFrame.from_dict(rows, orient="index", dtype=float)
    table = table.join(pd.DataFrame([work(*r) for r in table[["ratings", "rows", "rank"]].to_numpy()], table.index))
    table["floor"] = np.maximum(table["flops"] / flops, table["streamed"] / bandwidth)
    table["fit / ratings"] = (table["fit"] - table["draws"]) / table["bytes"]
    table["build / ratings"] = table["build"] / table["bytes"]
    sizes, labels = table[table["bytes"].notna()], [*peers.MODELS]
    fits = {label: linregress(np.log(sizes["ratings"]), np.log(sizes[label])) for label in labels}
    show(f"Seconds a sweep, rank {args.rank}, {args.threads} threads", sizes[["ratings", *labels]], "scaling_time")
    exponents = pd.DataFrame({k: {"exponent": fit.slope, "standard error": fit.stderr} for k, fit in fits.items()})
    show("Time as a power of the ratings", exponents, "scaling_exponents")
    megabytes = sizes[["base", "bytes", "build", "fit", "draws"]] / 1e6
    show("Peak memory, MB", megabytes.join(sizes[["fit / ratings", "build / ratings"]]), "scaling_memory")
    print(f"\nPeaks with {args.threads} threads: dgemm {flops / 1e9:.1f} Gflop/s, triad {bandwidth / 1e9:.1f} GB/s")
    counts, shares = table[["flops", "streamed", "gathered"]] / 1e9, (table["floor"] / table[labels].T).T
    parts = [table["rank"], counts, table[["floor", *labels]], shares.add_prefix("share, ")]
    show("A sweep: 1e9 flops and bytes, seconds, floor / seconds", pd.concat(parts, axis=1), "roofline")
    draw_scaling(sizes, fits).savefig(args.out / "gibbs_scaling.png")
    draw_roofline(table, flops, bandwidth).savefig(args.out / "roofline.png")


if __name__ == "__main__":
    main()
