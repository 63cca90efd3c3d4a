"""The validation suite: simulation-based calibration, operating characteristics of the verdict, placebo sources.

    python benchmarks/validate.py [sbc] [operating] [placebo] [--replications 20] [--methods Gibbs] [--jobs 2] [--done] [--write]

Each replication is a cell under BAYESREC_CACHE: Ctrl-C or a crash loses the cells in work, the same command goes on.
Cells know the models, methods and designs they were made with, not the samplers' code: after a change to a sampler
remove the folder cells/validate. The placebo needs BAYESREC_DATA and shares its fits with placebo.py.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import sha256
from itertools import takewhile
from multiprocessing import get_context

import numpy as np
import pandas as pd
import validation_page as page
from common import PAIRS, br, cell, judge, predictions, show, there
from placebo import METHOD as PLACEBO_METHOD
from placebo import RANK as PLACEBO_RANK
from scipy import stats

from bayesrec.data import derange_sources, synthetic
from bayesrec.inference.base import fit_unchecked, whole_fits
from bayesrec.metrics import rmse, rmse_difference
from bayesrec.testing import Ranks, sbc_ranks

SEED, ALPHA = 0, 0.05
VERDICTS = ("positive", "undetermined", "negative")

# Simulation-based calibration: the method, L, the design, rank and likelihood of the models, replications. Spreads near
# zero move slowly: Gibbs takes some hundred sweeps to forget where they were, NUTS hundreds of gradients.
SMALL = {"n_users": 10, "n_items": (8, 8), "n_ratings": (6, 6), "rank": 1, "n_cold": 1}
TINY = {"n_users": 5, "n_items": (4, 4), "n_ratings": (3, 3), "rank": 1, "n_cold": 1}
ONE_NOISE = br.Gaussian(user_noise=False)
SBC = {
    "Gibbs": (br.Gibbs(draws=99, warmup=300, thin=100, chains=1, threads=1), 99, SMALL, 2, br.Gaussian(), 500),
    "SVI": (br.SVI(steps=500, draws=99, chains=1), 99, SMALL, 2, br.Gaussian(), 200),
    "NUTS": (br.NUTS(draws=57, warmup=60, chains=1, max_tree_depth=6), 19, TINY, 1, ONE_NOISE, 100),
}
MODELS = ("PMF", "TransferMF")

# Operating characteristics: correlation of a user's factors in the two domains, and share of users whose target
# factors follow those of somebody who does not exist.
WORLD = {"n_users": 300, "n_items": (80, 60), "n_ratings": (20, 20), "rank": 2}
POINTS = {
    "none": (0.95, 0.0),
    "small": (0.8, 0.0),
    "intermediate": (0.5, 0.0),
    "large": (0.25, 0.0),
    "a quarter hostile": (0.95, 0.25),
    "half hostile": (0.95, 0.5),
    "hostile": (0.95, 1.0),
}
OPERATING_METHOD = br.Gibbs(draws=80, warmup=80, chains=4, threads=1)
FOLDS = 2  # in each of them half of the users are cold
OPERATING, SEEDS = 200, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections: dict[str, Callable] = {"sbc": sbc, "operating": operating, "placebo": placebo}
    parser.add_argument("sections", nargs="*", metavar="section", help="sbc, operating, placebo; all by default")
    parser.add_argument("--replications", type=int, help="at most so many of everything: for a trial")
    parser.add_argument("--methods", default=",".join(SBC), help="of sbc, for a trial")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--done", action="store_true", help="compute nothing: take the replications that are there")
    parser.add_argument(
        "--write", action="store_true", help="write docs/validation.md and its figures, of these sections"
    )
    args = parser.parse_args()
    chosen = args.sections or list(sections)
    if unknown := set(chosen) - set(sections):
        parser.error(f"no section {sorted(unknown)}; there are {list(sections)}")
    sections["sbc"] = partial(sbc, args.methods.split(","))
    most = args.replications or 10**6
    found = {name: sections[name](most, partial(run, jobs=args.jobs, done=args.done)) for name in chosen}
    if args.write:
        page.write(found, SEED, br.__version__)


def run(compute: Callable, key: Callable, tasks: list[tuple], jobs: int, done: bool) -> list[dict[str, np.ndarray]]:
    """Results of ``compute(*task)`` in the order of the tasks, from the cells ``key(*task)`` or computed side by side.

    With ``done`` from cells alone, as far as they go without a gap.
    """
    if done:
        tasks = list(takewhile(lambda task: there(key(*task)), tasks))
    if jobs == 1:
        return [compute(*task) for task in tasks]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_deaf) as pool:
        try:
            return list(pool.map(compute, *zip(*tasks, strict=True)))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            sys.exit("stopped after the cells in work; the same command goes on from here")


def _deaf() -> None:
    """Workers finish their cell: a Gibbs fit that hears Ctrl-C gives back the draws it has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def digest(*config: object) -> str:
    """A short name for what a cell depends on."""
    return sha256(repr((SEED, br.__version__, *config)).encode()).hexdigest()[:8]


def sbc(methods: list[str], most: int, run: Callable) -> dict[tuple[str, str], Ranks]:
    found = {}
    for method in methods:
        n = SBC[method][-1]
        for model in MODELS:
            tasks = [(method, model, number) for number in range(min(n, most))]
            cells = run(sbc_cell, sbc_key, tasks)
            if not cells:
                continue
            ranks = found[method, model] = Ranks.joined([_unpacked(method, x) for x in cells])
            show(f"Simulation-based calibration, {method}, {model}", ranks.table(ALPHA), f"sbc_{method}_{model}")
            print(f"{len(cells)} replications, {len(ranks.failures)} failed {ranks.failures or ''}")
    return found


def sbc_model(method: str, name: str) -> br.models.Model:
    return getattr(br.models, name)(rank=SBC[method][3], likelihood=SBC[method][4])


def sbc_key(method: str, name: str, number: int) -> str:
    how, L, sizes, *_ = SBC[method]
    return f"validate/sbc/{method}-{name}-{digest(sizes, sbc_model(method, name), how, L)}/{number}"


def sbc_cell(method: str, name: str, number: int) -> dict[str, np.ndarray]:
    """One replication: ranks and ESS by quantity, or the error."""
    how, L, sizes, *_ = SBC[method]
    model = sbc_model(method, name)

    def compute() -> dict[str, np.ndarray]:
        frame, _ = synthetic.cross_domain(**sizes, seed=SEED)
        design = br.Interactions.from_frame(frame, target="target", value="value")
        found = sbc_ranks(model, design, how, [number], L=L, seed=SEED)
        out = {"number": np.array(number), "failure": np.array(found.failures.get(number, ""))}
        out["names"] = np.array(found.ranks.columns, dtype=str)
        return out | {"ranks": found.ranks.to_numpy(), "ess": found.ess.to_numpy()}

    return cell(sbc_key(method, name, number), compute)


def _unpacked(method: str, arrays: dict[str, np.ndarray]) -> Ranks:
    number, names, failure = int(arrays["number"]), arrays["names"].tolist(), str(arrays["failure"])
    if failure:
        return Ranks(pd.DataFrame(), pd.DataFrame(), SBC[method][1], {number: failure})
    ranks, ess = (pd.DataFrame(arrays[key], index=[number], columns=names) for key in ("ranks", "ess"))
    return Ranks(ranks, ess, SBC[method][1], {})


def operating(most: int, run: Callable) -> tuple[pd.DataFrame, dict[str, bool]]:
    tasks = [(point, r) for r in range(min(OPERATING, most)) for point in POINTS]
    found = run(operating_cell, operating_key, tasks)
    found = found[: len(found) // len(POINTS) * len(POINTS)]  # as many of every point
    cells = pd.DataFrame([{"point": task[0]} | c for task, c in zip(tasks, found, strict=False)])
    for column in cells.columns.drop("point"):
        cells[column] = cells[column].map(np.ndarray.item)
    groups = dict(iter(cells.groupby("point")))
    table = pd.DataFrame({point: _point(groups[point]) for point in POINTS}).T
    show("Operating characteristics", table, "operating")
    n, harmful = int(table["n"].min()), table["pooled ratio"] >= 1.03
    harmless = table["ratio"] <= 1.0
    limit = 15 if n == OPERATING else int(stats.binom.ppf(0.975, n, 0.05))
    claims = {
        f"at most {limit} of {n} verdicts are negative where the mean RMSE ratio is at most 1": bool(
            (table.loc[harmless, "negative"] <= limit).all()
        ),
        "the upper bound of the RMSE ratio is at most 1.005 everywhere": bool((table["upper"] <= 1.005).all()),
    }
    if harmful.any():
        caught = int(table.loc[harmful, "pooled negative"].min())
        claim = f"at least 90% of verdicts are negative where CollectiveMF costs 3% RMSE (the least: {caught} of {n})"
        claims[claim] = caught >= 0.9 * n
    page.report(claims)
    return table, claims


def _point(part: pd.DataFrame) -> dict[str, float]:
    """A row of the table: TransferMF with over without the source, and CollectiveMF likewise."""
    out: dict[str, float] = {"n": len(part)}
    for arm, label in (("transfer", ""), ("pooled", "pooled ")):
        ratio = part[f"{arm}_rmse"] / part[f"{arm}_none_rmse"]
        out[f"{label}ratio"] = ratio.mean()
        out[f"{label}upper"] = ratio.mean() + 1.645 * ratio.std() / np.sqrt(len(ratio))
        out[f"{label}coverage"] = part[f"{arm}_coverage"].mean()
        out[f"{label}P(negative)"] = part[f"{arm}_probability"].mean()
        out |= {f"{label}{v}": (part[f"{arm}_verdict"] == k).sum() for k, v in enumerate(VERDICTS)}
    return out | {"seconds": part["seconds"].mean()}


def operating_key(point: str, number: int) -> str:
    return f"validate/operating/{digest(WORLD, POINTS[point], OPERATING_METHOD, FOLDS)}/{number}"


def operating_cell(point: str, number: int) -> dict[str, np.ndarray]:
    """One table drawn; TransferMF and CollectiveMF assessed against themselves without the source, on users made cold."""
    correlation, hostile = POINTS[point]

    def compute() -> dict[str, np.ndarray]:
        frame, _ = synthetic.cross_domain(**WORLD, correlation=correlation, hostile=hostile, seed=number)
        data = br.Interactions.from_frame(frame, target="target", value="value")
        out = {}
        for arm, model in (("transfer", br.models.TransferMF(rank=2)), ("pooled", br.models.CollectiveMF(rank=2))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", br.errors.NegativeTransferWarning)
                verdict = br.assess_transfer(
                    model, data, OPERATING_METHOD, folds=FOLDS, baseline=model, seed=number, progress=False
                )
            rows = verdict.rows
            out |= {f"{arm}_rmse": rmse(rows["value"], rows["mean"])}
            out |= {f"{arm}_none_rmse": rmse(rows["value"], rows["mean_without"])}
            out |= {f"{arm}_coverage": ((rows["value"] >= rows["lower"]) & (rows["value"] <= rows["upper"])).mean()}
            out |= {f"{arm}_probability": verdict.probability, f"{arm}_delta": verdict.delta}
            out[f"{arm}_verdict"] = VERDICTS.index(verdict.verdict)
        return {name: np.array(x) for name, x in out.items()}

    return cell(operating_key(point, number), compute)


def placebo(most: int, run: Callable) -> tuple[pd.DataFrame, dict[str, bool]] | None:
    if not os.environ.get("BAYESREC_DATA"):
        print("\nplacebo skipped: BAYESREC_DATA does not name a folder with the real data")
        return None
    tasks = [(pair, seed) for seed in range(min(SEEDS, most)) for pair in PAIRS]
    found = run(placebo_cell, placebo_key, tasks)
    found = found[: len(found) // len(PAIRS) * len(PAIRS)]  # as many of every pair
    cells = pd.DataFrame([{"pair": t[0]} | c for t, c in zip(tasks, found, strict=False)])
    for column in cells.columns.drop("pair"):
        cells[column] = cells[column].map(np.ndarray.item)
    groups = cells.groupby("pair", sort=False)
    table = pd.DataFrame({"seeds": groups.size()})
    for k, verdict in enumerate(VERDICTS):
        table[verdict] = groups["verdict"].agg(lambda x, k=k: (x == k).sum())
    for column in ("delta", "change"):
        table[column] = groups[column].mean()
        table[f"{column} se"] = groups[f"{column}_se"].agg(lambda se: np.sqrt((se**2).sum()) / len(se))
    show("Placebo: the source users' histories deranged among them", table, "placebo_validation")
    n, positive = len(cells), int((cells["verdict"] == VERDICTS.index("positive")).sum())
    limit = int(stats.binom.ppf(0.99, n, ALPHA))
    claims = {
        f"at most {limit} of {n} verdicts are positive (99% of a 5% rate)": positive <= limit,
        "the mean log-score difference is above 0 by 2 SE on no pair": bool(
            (table["delta"] <= 2 * table["delta se"]).all()
        ),
        "the mean RMSE change is at most 0.3% + 1 SE on every pair": bool(
            (table["change"] <= 0.003 + table["change se"]).all()
        ),
    }
    page.report(claims)
    return table, claims


def placebo_key(pair: str, seed: int) -> str:
    return f"validate/placebo/{pair}/{seed}-{digest(PLACEBO_METHOD, PLACEBO_RANK)}"


def placebo_cell(pair: str, seed: int) -> dict[str, np.ndarray]:
    """TransferMF on a deranged source against itself without the source; the fits are cells of placebo.py."""

    def compute() -> dict[str, np.ndarray]:
        train, test = br.split.cold_users(PAIRS[pair](), fraction=0.2, seed=seed)
        arms = []
        for name, weights in (("shuffled", True), ("no-source", False)):

            def fitted(name: str = name, weights: bool = weights) -> dict[str, np.ndarray]:
                rows = derange_sources(train, seed=seed) if name == "shuffled" else train.without_sources()
                with whole_fits("a fit was interrupted"):
                    posterior = fit_unchecked(br.models.TransferMF(rank=PLACEBO_RANK), rows, PLACEBO_METHOD, seed)
                return predictions(posterior, test, weights)

            arms.append(cell(f"placebo/{pair}/{seed}/TransferMF-{name}", fitted))
        verdict = judge(*arms, test, train)
        user, base = np.unique(test.user, return_inverse=True)[1], rmse(test.value, arms[1]["mean"])
        change, error = rmse_difference(test.value, arms[0]["mean"], arms[1]["mean"], user)
        out = {"verdict": VERDICTS.index(verdict.verdict), "delta": verdict.delta, "delta_se": verdict.se}
        out |= {"change": change / base, "change_se": error / base}
        return {name: np.array(x) for name, x in out.items()}

    return cell(placebo_key(pair, seed), compute)


if __name__ == "__main__":
    main()
