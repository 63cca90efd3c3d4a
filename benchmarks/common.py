"""What the benchmarks share: real data, cells that are computed once, a table of metrics with clustered errors.

The data lie under the folder that the variable BAYESREC_DATA names; results are cached in .benchmarks/ (ignored by
git), a file for each cell, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from scipy.special import ndtr

import bayesrec as br
from bayesrec.metrics import clustered_mean, crps_normal, rmse, rmse_difference

CACHE = Path(os.environ.get("BAYESREC_CACHE", ".benchmarks"))


def data_folder() -> Path:
    """Folder of the real data; ends the program with the reason if there is none."""
    folder = os.environ.get("BAYESREC_DATA")
    if not folder or not Path(folder).is_dir():
        sys.exit("skipped: BAYESREC_DATA does not name a folder with the real data")
    return Path(folder)


def douban() -> br.Interactions:
    """Books (source) and music (target) of Douban, shared users."""
    names = ["user", "item", "rating"]
    frames = {
        domain: pd.read_csv(
            data_folder() / f"douban/{domain}_ratings.dat", sep="\t", header=None, usecols=[0, 1, 2], names=names
        ).drop_duplicates(["user", "item"])
        for domain in ("book", "music")
    }
    return br.Interactions.from_frames(frames, target="music")


def anime() -> br.Interactions:
    """Anime series on TV (source) and films (target), shared users; ratings 1 to 10."""
    folder = data_folder() / "anime"
    ratings = pd.read_csv(folder / "ratings.tsv.gz", sep="\t")
    kind = pd.read_csv(folder / "anime.tsv.gz", sep="\t").set_index("anime_ids")["type"]
    ratings = ratings.rename(columns={"User_ID": "user", "Anime_ID": "item", "Feedback": "rating"})
    ratings["domain"] = ratings["item"].map(kind)
    ratings = ratings[ratings["domain"].isin(["TV", "Movie"])].drop_duplicates(["user", "item"])
    return br.Interactions.from_frame(ratings, target="Movie")


def music_to_book() -> br.Interactions:
    """Douban the other way."""
    return br.Interactions.from_frame(douban().to_frame(), target="book")


def ciao(source: int, target: int) -> br.Interactions:
    """Two categories of Ciao, shared users; ratings 1 to 5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", br.errors.DataWarning)  # missing values and repeats
        ratings = br.datasets.ciao(data_folder() / "ciao").ratings
    kept = ratings[ratings["category"].isin([source, target])].drop_duplicates(["user", "item", "category"])
    names = ["user", "item", "category", "rating"]
    return br.Interactions.from_frame(kept[names].rename(columns={"category": "domain"}), target=target)


def films(target: str) -> br.Interactions:
    """MovieTweetings ("tweets") and MovieLens ("lens"), shared items: transposed, so that films are the users."""
    lens, folder = br.datasets.movielens(data_folder() / "ml-latest-small"), data_folder() / "movietweetings"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", br.errors.DataWarning)  # the snapshot has broken rows
        tweets = br.datasets.movietweetings(folder).ratings
    imdb = lens.items.set_index("item")["imdb"]
    rated = lens.ratings.assign(item=lens.ratings["item"].map(imdb)).dropna(subset="item").astype({"item": "int64"})
    names = ["user", "item", "rating"]
    return br.Interactions.from_frames(
        {"tweets": tweets[names], "lens": rated[names]}, target=target, shared="items"
    ).transposed()


PAIRS = {
    "douban": douban,
    "music_to_book": music_to_book,
    "anime": anime,
    **{f"ciao_{s}_{t}": partial(ciao, s, t) for s, t in ((3, 2), (2, 3), (1, 10), (10, 1), (1, 12))},
    "tweets_to_lens": lambda: films("lens"),
    "lens_to_tweets": lambda: films("tweets"),
}


def there(key: str) -> bool:
    """Whether a cell has been computed."""
    return (CACHE / "cells" / f"{key}.npz").exists()


def cell(key: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays of a cell, from the cache if they are there."""
    path = CACHE / "cells" / f"{key}.npz"
    if path.exists():
        with np.load(path) as file:
            return dict(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    arrays = compute()
    arrays["seconds"] = np.array(time.perf_counter() - start)
    fresh = path.with_suffix(".tmp.npz")
    np.savez(fresh, **arrays)
    fresh.rename(path)
    print(f"  {key}: {arrays['seconds']:.0f} s", file=sys.stderr, flush=True)
    return arrays


def predictions(posterior: br.Posterior, test: br.Interactions, weights: bool = False) -> dict[str, np.ndarray]:
    """Predictions and log scores of held-out rows, as arrays for the cache."""
    answer = posterior.predict(test)
    out = {name: answer[name].to_numpy() for name in ("mean", "sd", "lower", "upper")}
    out["scores"] = posterior.scores(test)[0]
    if weights:
        out["source"] = br.source_weight(posterior, test, draws=40)["source"].to_numpy()
    return out


def bias_predictions(baseline, test: br.Interactions) -> dict[str, np.ndarray]:
    """The same for a bias baseline with its one sd."""
    mean = baseline.predict(test.user, test.item)
    sd = np.full(len(test), baseline.sd)
    scores = -(0.5 * ((test.value - mean) / sd) ** 2 + np.log(sd) + 0.5 * np.log(2 * np.pi))
    return {"mean": mean, "sd": sd, "lower": mean - 1.6449 * sd, "upper": mean + 1.6449 * sd, "scores": scores[None]}


def star_scores(mean: np.ndarray, sd: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log mass (row,) of a normal within half a star of ratings from 1 to 5, the ends open."""
    above = np.where(y < 5, ndtr((y + 0.5 - mean) / sd), 1.0)
    with np.errstate(divide="ignore"):
        return np.log(above - np.where(y > 1, ndtr((y - 0.5 - mean) / sd), 0.0))


def log_score(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Pool the chains' log scores (chain, row)."""
    return np.logaddexp.reduce(arrays["scores"], axis=0) - np.log(len(arrays["scores"]))


def measure(
    arrays: dict[str, np.ndarray], test: br.Interactions, against: dict[str, np.ndarray] | None = None
) -> dict[str, float]:
    """RMSE, NLPD, CRPS, coverage and squared standardised residuals, in thirds of the sd too, with clustered errors."""
    y, user = test.value, test.user
    z2 = ((y - arrays["mean"]) / arrays["sd"]) ** 2
    inside = (y >= arrays["lower"]) & (y <= arrays["upper"])
    third = np.minimum(3 * pd.Series(arrays["sd"]).rank(method="first").to_numpy() / (len(y) + 1), 2).astype(int)
    out = {
        "rmse": rmse(y, arrays["mean"]),
        "bias": (y - arrays["mean"]).mean(),
        "nlpd": -log_score(arrays).mean(),
        "crps": crps_normal(y, arrays["mean"], arrays["sd"]).mean(),
        "coverage": inside.mean(),
        "z2": z2.mean(),
        "z2_se": clustered_mean(z2, user)[1],
    }
    for k in range(3):
        out[f"z2_third{k + 1}"], out[f"z2_third{k + 1}_se"] = clustered_mean(z2[third == k], user[third == k])
        out[f"coverage_third{k + 1}"] = inside[third == k].mean()
    if against is not None:
        out["rmse_diff"], out["rmse_diff_se"] = rmse_difference(y, arrays["mean"], against["mean"], user)
        out["nlpd_diff"], out["nlpd_diff_se"] = clustered_mean(log_score(against) - log_score(arrays), user)
    return out


def show(title: str, frame: pd.DataFrame, file: str) -> None:
    """Print a table and keep it as CSV beside the cache."""
    CACHE.mkdir(exist_ok=True)
    frame.to_csv(CACHE / f"{file}.csv")
    print(f"\n{title}\n")
    with pd.option_context("display.width", 220, "display.max_columns", 40, "display.max_rows", 200):
        print(frame.round(4).to_string())


def judge(
    arm: dict[str, np.ndarray], bare: dict[str, np.ndarray], test: br.Interactions, train: br.Interactions
) -> br.TransferReport:
    """The verdict of ``negative_transfer`` from cached scores."""
    from bayesrec.diagnostics.verdict import HeldOut, report

    codes, user = np.unique(test.user, return_inverse=True)
    own = np.bincount(train.user[train.is_target], minlength=train.n_users)[codes]
    held_out = HeldOut(pd.Index(codes), user, own, arm["scores"], bare["scores"], np.zeros(len(codes)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", br.errors.NegativeTransferWarning)
        return report([held_out], train, ("with", "without"), 0.0, 0)
