"""Speed and memory of the readers, on generated files of the official layouts, against pandas on the same file.

The bare parser beside each reader does what a user would write by hand: ``pandas.read_csv`` with the separator (its
Python engine where the separator is ``::``), or ``pandas.read_json(lines=True)``. It checks nothing. Both run in a process of
their own, turn by turn; the best of the repetitions counts. The seed is fixed, so the files are the same in every run.

    python benchmarks/readers.py --rows 2000000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from bayesrec import datasets

SEED = 20240501
LAYOUTS = {  # name: reader, file, separator, header, share of the rows (JSON lines are long)
    "MovieLens 20M to 32M, latest": ("movielens", "ratings.csv", ",", "userId,movieId,rating,timestamp", 1.0),
    "MovieLens 100K": ("movielens", "u.data", "\t", None, 1.0),
    "MovieLens 1M, 10M": ("movielens", "ratings.dat", "::", None, 1.0),
    "Amazon 2023, ratings only": ("amazon", "Books.csv", ",", "user_id,parent_asin,rating,timestamp", 1.0),
    "Netflix Prize, combined": ("netflix", "combined_data_1.txt", ",", None, 1.0),
    "Douban": ("douban", "book_ratings.dat", "\t", None, 1.0),
    "RecBole": ("recbole", "toy.inter", "\t", "user_id:token\titem_id:token\trating:float\ttimestamp:float", 1.0),
    "Amazon 2023, reviews": ("amazon", "Books.jsonl", None, None, 0.1),
}


def one_in_ten(block: pd.DataFrame) -> pd.Series:
    """Every tenth user."""
    return block["user"] % 10 == 0


def write(path: Path, sep: str | None, header: str | None, rows: int) -> None:
    """Write `rows` ratings of distinct pairs in the layout of a file name."""
    rng = np.random.default_rng(SEED)
    n_items = 20_000
    pairs = np.arange(rows) * 7 + rng.integers(0, 7, rows)
    frame = pd.DataFrame({"user": pairs // n_items + 1, "item": pairs % n_items + 1})
    frame["rating"] = rng.integers(1, 6, rows)
    frame["time"] = 978_300_760 + rng.integers(0, 10**8, rows)
    if path.name.startswith("Books"):
        frame["user"] = "A" + frame["user"].astype(str).str.zfill(27)
        frame["item"] = "B" + frame["item"].astype(str).str.zfill(9)
        frame["rating"] = frame["rating"].astype(float)
        frame["time"] *= 1000
    if path.name == "ratings.csv":
        frame["rating"] /= 2
    if path.suffix == ".jsonl":
        text = "a sentence of a review, of usual length for one " * 5
        with path.open("w") as out:
            for user, item, rating, moment in frame.itertuples(index=False):
                review = {"rating": rating, "title": "t", "text": text, "asin": item, "parent_asin": item,
                          "user_id": user, "timestamp": moment, "helpful_vote": 0, "verified_purchase": True}  # fmt: skip
                out.write(json.dumps(review) + "\n")
    elif path.name.startswith("combined"):
        frame["day"] = pd.to_datetime(frame["time"], unit="s").dt.strftime("%Y-%m-%d")
        with path.open("w") as out:
            for item, film in frame.sort_values("item", kind="stable").groupby("item"):
                out.write(f"{item}:\n")
                film[["user", "rating", "day"]].to_csv(out, header=False, index=False)
    else:
        columns = ["user", "item", "rating"] if path.name == "book_ratings.dat" else list(frame)
        text = frame[columns].to_csv(sep="\x1f" if sep == "::" else sep, header=False, index=False)
        path.write_text((header + "\n" if header else "") + (text.replace("\x1f", "::") if sep == "::" else text))


def by_reader(path: Path, reader: str, keep: Callable[[pd.DataFrame], pd.Series] | None = None) -> int:
    """Rows that a reader of the package gives."""
    return len(getattr(datasets, reader)(path, keep=keep).ratings)


def by_pandas(path: Path, sep: str | None, header: str | None) -> int:
    """Rows that the bare parser gives."""
    if sep is None:
        return len(pd.read_json(path, lines=True))
    names = ["user", "rating", "time"] if path.name.startswith("combined") else None
    engine = "python" if sep == "::" else "c"
    return len(pd.read_csv(path, sep=sep, header=0 if header else None, names=names, engine=engine))


def timed(call: Callable[..., int], *given: object) -> tuple[int, float, float]:
    """Rows, seconds, and the memory in GB by which the call raised the peak of its process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    rows = call(*given)
    seconds = time.perf_counter() - began
    return rows, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6


def process() -> ProcessPoolExecutor:
    """A fresh process for each task."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1)


def best(times: int, *tasks: tuple[object, ...]) -> list[tuple[int, float, float]]:
    """The fastest of some runs of each task, turn by turn, each in a process of its own."""
    found: list[list[tuple[int, float, float]]] = [[] for _ in tasks]
    with process() as pool:
        for _ in range(times):
            for runs, task in zip(found, tasks, strict=True):
                runs.append(pool.submit(timed, *task).result())  # type: ignore[arg-type]
    return [min(runs, key=lambda run: run[1]) for runs in found]


def main() -> None:
    """Print a row for each layout, and one for a reader that keeps a tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000, help="ratings in a file; of JSON lines a tenth")
    parser.add_argument("--times", type=int, default=2, help="repetitions")
    parser.add_argument("--only", default="", help="layouts whose name has this text")
    words = parser.parse_args()
    print("| layout | rows | reader, rows/s | pandas, rows/s | reader / pandas | reader, GB | pandas, GB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (reader, file, sep, header, share) in LAYOUTS.items():
            if words.only not in name:
                continue
            path, rows = Path(folder, file), int(words.rows * share)
            with process() as pool:  # its memory would count as that of the processes started after it
                pool.submit(write, path, sep, header, rows).result()
            tasks = [(by_reader, path, reader), (by_pandas, path, sep, header)]
            keeping = file == "ratings.csv"
            runs = best(words.times, *tasks, *([(by_reader, path, reader, one_in_ten)] if keeping else []))
            (found, ours, peak), (_, theirs, bare) = runs[:2]
            if found != rows:
                raise SystemExit(f"{name}: {found} rows of {rows}")
            for label, spent, high in [(name, ours, peak), *((f"{name}, keep=", *r[1:]) for r in runs[2:])]:
                speeds = f"{rows / spent:,.0f} | {rows / theirs:,.0f} | {theirs / spent:.2f}"
                print(f"| {label} | {rows:,} | {speeds} | {high:.2f} | {bare:.2f} |", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
