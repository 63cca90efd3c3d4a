"""How fast answers come: lists for many users, folding in many users, one newcomer at a time.

python benchmarks/serving.py [--users 10000] [--items 10000] [--rank 16] [--draws 100]

The draws are made up, since only their sizes matter. One thread, but for folding in, which shares users among the CPUs. Lists
and products are in seconds of the CPU, which say the same on a busy machine; newcomers in both, folding by the clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import common  # noqa: F401  (one thread a library)
import numpy as np
import pandas as pd
import torch

import bayesrec as br
from bayesrec.models.base import Model, Schema

torch.set_num_threads(1)


def made_up(model: Model, n_users: int, n_items: int, n_draws: int, ratings: int = 10) -> br.Posterior:
    """A posterior of random draws for random ratings."""
    rng = np.random.default_rng(0)
    domains = ["target"] if isinstance(model, br.models.PMF) else ["source", "target"]
    parts = []
    for domain in domains:
        user = np.repeat(np.arange(n_users), ratings)
        item = rng.integers(0, n_items, len(user))
        item[: min(n_items, len(user))] = rng.permutation(n_items)[: len(user)]
        rating = rng.integers(1, 6, len(user)).astype(float)
        parts.append(pd.DataFrame({"user": user, "item": item, "domain": domain, "rating": rating}))
    frame = pd.concat(parts).drop_duplicates(["user", "item", "domain"])
    data = model.view(br.Interactions.from_frame(frame, target="target"))
    schema = Schema.of(data, model.likelihood)
    state, draws = model.start(schema.table(data), rng), {}
    for name in model.dims:
        value = np.asarray(state[name], dtype=np.float32)
        draws[name] = np.broadcast_to(value, (1, n_draws, *value.shape)).copy()
        if name.endswith("_vector"):
            draws[name] += 0.2 * rng.standard_normal(draws[name].shape, dtype=np.float32)
    return br.Posterior(draws, model, br.Gibbs(draws=n_draws, chains=1), data, schema)


def best(work: Callable[[], object], times: int = 3, clock: Callable[[], float] = time.perf_counter) -> float:
    """Shortest of a few times in seconds, after one call that compiles."""
    work()
    seconds = []
    for _ in range(times):
        start = clock()
        work()
        seconds.append(clock() - start)
    return min(seconds)


def lists(n_users: int, n_items: int, rank: int, n_draws: int) -> None:
    """Lists of ten, against the bare matrix products of users and items in every draw, in the best blocks of users."""
    posterior = made_up(br.models.PMF(rank=rank), n_users, n_items, n_draws)
    rng, bare = np.random.default_rng(0), np.inf
    items = rng.standard_normal((n_draws, rank + 2, n_items), dtype=np.float32)
    for block in (16, 32, 64, 128):
        users = rng.standard_normal((n_draws, block, rank + 2), dtype=np.float32)
        out = np.empty((n_draws, block, n_items), dtype=np.float32)
        a, b, c = (torch.from_numpy(x) for x in (users, items, out))
        for product in (
            lambda u=users, o=out: np.matmul(u, items, out=o),
            lambda a=a, b=b, c=c: torch.bmm(a, b, out=c),
        ):
            bare = min(bare, best(product, clock=time.process_time) / block * n_users)
    print(f"bare matrix products, {n_users:,} x {n_items:,}, rank {rank}, {n_draws} draws: {bare:.1f} s")
    for by in ("mean", "ucb", "thompson"):
        seconds = best(lambda by=by: br.recommend(posterior, range(n_users), n=10, by=by), 1, time.process_time)
        print(f"recommend(n=10, by={by!r}): {seconds:.1f} s, {seconds / bare:.2f} times the products")


def folding(n_items: int, rank: int, n_draws: int, n_new: int = 20_000) -> None:
    """Many newcomers with ten ratings each, on one draw and on many."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(n_new) + 10**6, 10)
    new = pd.DataFrame({"user": user, "item": rng.integers(0, n_items, len(user)), "domain": "target"})
    new["rating"] = rng.integers(1, 6, len(user)).astype(float)
    new = new.drop_duplicates(["user", "item"])
    kinds = [(br.models.PMF, False), (br.models.PMF, True), (br.models.TransferMF, True)]
    for kind, user_noise in kinds:
        for draws in (1, n_draws):
            model = kind(rank=rank, likelihood=br.Gaussian(user_noise=user_noise))
            posterior = made_up(model, 1000, n_items, draws)
            some = new if draws == 1 else new[new["user"] < 10**6 + n_new // 10]
            seconds = best(lambda p=posterior, s=some: p.fold_in(s), 3 if draws == 1 else 1)
            rate = some["user"].nunique() / seconds
            print(f"fold_in, {kind.__name__}, {draws} draw(s), user_noise={user_noise}: {rate:,.0f} users a second")


def pointed(n_items: int, rank: int, n_draws: int, n_new: int = 20_000) -> None:
    """The same and lists for them from posterior means, ``posterior.point()``."""
    posterior = made_up(br.models.PMF(rank=rank), 1000, n_items, n_draws)
    seconds = best(posterior.point, 1)
    rng, one = np.random.default_rng(1), posterior.point()
    user = np.repeat(np.arange(n_new) + 10**6, 10)
    new = pd.DataFrame({"user": user, "item": rng.integers(0, n_items, len(user)), "domain": "target"})
    new["rating"] = rng.integers(1, 6, len(user)).astype(float)
    new = new.drop_duplicates(["user", "item"])
    rate = new["user"].nunique() / best(lambda: one.fold_in(new, alone=True))
    more = one.fold_in(new, alone=True)
    lists = n_new / best(lambda: br.recommend(more, range(10**6, 10**6 + n_new), n=10, explain=False), 1)
    print(
        f"point(): {seconds:.1f} s of {n_draws} draws; then fold_in of {rate:,.0f} users a second, {lists:,.0f} lists a second"
    )


def newcomers(n_users: int, n_items: int, rank: int, n_draws: int, times: int = 200) -> None:
    """One cold user: five ratings folded in and a list of ten."""
    for model in (br.models.PMF(rank=rank), br.models.TransferMF(rank=rank)):
        posterior = made_up(model, n_users, n_items, n_draws)
        for alone, explain in ((True, True), (True, False), (False, True)):
            seconds, cpu = [], []
            for k in range(-5, times if alone else times // 10):
                rows = {
                    "user": 10**6 + k + 5,
                    "item": np.arange(5) + k + 5,
                    "domain": "target",
                    "rating": [5.0, 4, 3, 2, 1],
                }
                start, busy = time.perf_counter(), time.process_time()
                more = posterior.fold_in(pd.DataFrame(rows), alone=alone)
                br.recommend(more, [10**6 + k + 5], n=10, explain=explain)
                seconds.append(time.perf_counter() - start)
                cpu.append(time.process_time() - busy)
            middle, high = 1e3 * np.quantile(seconds[5:], [0.5, 0.99])
            busy_middle, busy_high = 1e3 * np.quantile(cpu[5:], [0.5, 0.99])
            print(
                f"{type(model).__name__}, {n_users:,} users, {n_items:,} items, {n_draws} draws: fold_in(alone={alone}) + "
                f"recommend(explain={explain}) of one newcomer: median {middle:.1f} ms, p99 {high:.1f} ms "
                f"(CPU {busy_middle:.1f} and {busy_high:.1f})"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option, default in (("users", 10_000), ("items", 10_000), ("rank", 16), ("draws", 100)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--parts", default="lists,folding,newcomers")
    chosen = parser.parse_args()
    if "newcomers" in chosen.parts:
        newcomers(min(chosen.users, 3000), min(chosen.items, 3000), chosen.rank, chosen.draws)
    if "folding" in chosen.parts:
        folding(min(chosen.items, 5000), chosen.rank, chosen.draws)
        pointed(min(chosen.items, 5000), chosen.rank, chosen.draws)
    if "lists" in chosen.parts:
        lists(chosen.users, chosen.items, chosen.rank, chosen.draws)
