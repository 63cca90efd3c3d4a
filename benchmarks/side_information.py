"""Features of users and items (PMF with features=True): known and cold items, against SMURFF's Macau.

    python benchmarks/side_information.py [--ml100k FOLDER] [--rank 32] [--seeds 0,1,2]

FOLDER holds MovieLens-100K as the files ml-100k.inter, ml-100k.user and ml-100k.item of RecBole; without it that half is left
out. Rows 90/10 at random by the permutation of seed 0, the split on which rivals were measured. Features: age, gender,
occupation; genres. BAYESREC_PEERS names a Python that has SMURFF (see peers.py), which then runs on the same rows with the
same features. The other half takes all ratings of a fifth of the items of ml-latest-small (BAYESREC_DATA) away and predicts
them from genres, whichever items they are.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import bias_predictions, br, cell, data_folder, measure, predictions, show

from bayesrec.baselines import item_user_bias

METHOD = br.Gibbs(draws=200, warmup=150, chains=4)
COLUMNS = ["rmse", "rmse_diff", "rmse_diff_se", "nlpd", "coverage", "seconds"]


def ml100k(folder: Path) -> tuple[br.Interactions, br.Interactions]:
    """Training and held-out ratings with demographics and genres."""
    parts = {}
    for kind in ("inter", "user", "item"):
        parts[kind] = pd.read_csv(folder / f"ml-100k.{kind}", sep="\t")
        parts[kind].columns = [name.split(":")[0] for name in parts[kind].columns]
    ratings, users, items = parts.values()
    people = pd.get_dummies(users["occupation"], dtype=float)
    people.insert(0, "male", (users["gender"] == "M").astype(float))
    people.insert(0, "age", users["age"].astype(float))
    genres = items["class"].fillna("").str.get_dummies(" ").astype(float)
    data = br.Interactions.from_frame(
        ratings, target="films", domain=None, user="user_id", item="item_id",
        user_features=pd.concat([users[["user_id"]], people], axis=1),
        item_features=pd.concat([items[["item_id"]], genres], axis=1),
    )  # fmt: skip
    held = np.zeros(len(data), dtype=bool)
    held[np.random.default_rng(0).permutation(len(data))[: len(data) // 10]] = True
    return data.mask(~held), data.mask(held)


def macau(train: br.Interactions, test: br.Interactions, rank: int) -> dict[str, np.ndarray]:
    """SMURFF's Macau in its own process."""
    tables = {}
    for side, words, column in (("user", train.users, "user_id"), ("item", train.items, "item_id")):
        table = getattr(train, f"{side}_features").set_index(column)
        tables[f"{side}_x"] = table.loc[words.ids].to_numpy(dtype=float)
    tables["user_x"][:, 0] /= 50.0  # age, as the rival was measured before
    rows = {
        "user": train.user,
        "item": train.item,
        "value": train.value,
        "test_user": test.user,
        "test_item": test.item,
    }
    with tempfile.TemporaryDirectory() as place:
        given, answer = Path(place, "given.npz"), Path(place, "answer.npz")
        np.savez(given, rank=rank, **rows, **tables)
        script = Path(__file__).with_name("peers.py")
        subprocess.run([os.environ["BAYESREC_PEERS"], str(script), "macau", "0", str(given), str(answer)], check=True)
        with np.load(answer) as file:
            return dict(file)


def known_items(folder: Path, rank: int) -> None:
    train, test = ml100k(folder)
    arms = {}
    for features in (False, True):
        name = f"PMF, rank {rank}" + (", features" if features else "")

        def compute(features=features):
            return predictions(br.fit(br.models.PMF(rank=rank, features=features), train, METHOD, progress=False), test)

        arms[name] = cell(f"side/ml-100k/{name.replace(', ', '-').replace(' ', '')}", compute)
    bare = next(iter(arms.values()))
    rows = [{"model": name} | measure(arm, test, bare) | {"seconds": arm["seconds"]} for name, arm in arms.items()]
    for peer_rank in (10, 32) if os.environ.get("BAYESREC_PEERS") else ():
        peer = cell(f"side/ml-100k/macau-{peer_rank}", lambda r=peer_rank: macau(train, test, r))
        rmse = float(np.sqrt(((peer["mean"] - test.value) ** 2).mean()))
        rows.append({"model": f"SMURFF Macau, rank {peer_rank}", "rmse": rmse, "seconds": float(peer["seconds"])})
    table = pd.DataFrame(rows).set_index("model")[COLUMNS]
    show("MovieLens-100K, 10,000 held-out ratings; differences to PMF without features", table, "side_ml100k")


def cold_items(seed: int) -> list[dict]:
    """Rows of the table for one choice of items."""
    lens = br.datasets.movielens(data_folder() / "ml-latest-small")
    genres = br.datasets.genre_features(lens.items)
    data = br.Interactions.from_frame(
        lens.ratings[["user", "item", "rating"]], target="films", domain=None, item_features=genres
    )
    chosen = np.random.default_rng(seed).permutation(data.n_items)[: data.n_items // 5]
    held = np.isin(data.item, chosen)
    train, test = data.mask(~held), data.mask(held)
    arms = {"user means": bias_predictions(item_user_bias(train), test)}
    for features in (False, True):
        name = "PMF, rank 8" + (", genres" if features else "")

        def compute(features=features):
            model = br.models.PMF(rank=8, features=features)
            return predictions(br.fit(model, train, METHOD, seed=seed, progress=False), test)

        arms[name] = cell(f"side/cold/{seed}/{'genres' if features else 'bare'}", compute)
    bare = arms["PMF, rank 8"]
    return [
        {"seed": seed, "model": name}
        | measure(arm, test, bare)
        | {"seconds": arm.get("seconds", np.nan), "rows": len(test)}
        for name, arm in arms.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ml100k", type=Path)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    if args.ml100k is None:
        print("MovieLens-100K skipped: --ml100k names no folder", file=sys.stderr)
    else:
        known_items(args.ml100k, args.rank)
    table = pd.DataFrame([row for seed in map(int, args.seeds.split(",")) for row in cold_items(seed)])
    title = "ml-latest-small, items without any rating; differences to the PMF to which they are unknown items"
    show(title, table.set_index(["model", "seed"]).sort_index()[[*COLUMNS, "rows"]], "side_cold_items")
    show("Mean over seeds", table.groupby("model", sort=False)[COLUMNS].mean(), "side_cold_items_mean")


if __name__ == "__main__":
    main()
