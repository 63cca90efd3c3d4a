"""Douban both ways, cold users: 20, 50 and 80% of the shared users lose all their target ratings (the protocol of EMCDR).

Each cell has simple baselines, TransferMF with and without activity=True (new users as they are met in ratings) and, with
BAYESREC_PEERS (see peers.py), SMURFF and myFM on both domains at once, all in the same run. "bias" is the mean residual,
"rmse_unbiased" the RMSE without it, which nobody could know beforehand, "bias_user" the mean over users of their mean residuals,
"bias_activity" the residual's correlation with the logarithm of the user's source ratings. "mae" is that of the mean,
"mae_median" that of the predictive median. NLPD is that of densities and has no value for an ordinal likelihood, which gives
probabilities; "levels" is the log loss of whole stars, which all have: a density counts by its mass within half a star.

    python benchmarks/douban_ways.py [--seeds 0,1,2,3,4] [--ways music,book] [--betas 20,50,80] [--models ...]
    python benchmarks/douban_ways.py --choose    # variants, on cold users held out inside the training half
"""

from __future__ import annotations

import argparse
import os
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from common import bias_predictions, br, cell, douban, log_score, show, star_scores
from douban_rivals import peer

from bayesrec.baselines import bias_transfer, global_mean, item_bias
from bayesrec.diagnostics.simple import Simple
from bayesrec.inference.base import fit_unchecked
from bayesrec.metrics import clustered_mean, crps_normal, rmse_difference
from bayesrec.models.base import Schema

METHOD = br.Gibbs(draws=200, warmup=200, chains=4)
QUICK = br.Gibbs(draws=100, warmup=100, chains=2)  # of a stack, which fits three times
SIMPLE = {"global mean": global_mean, "item bias": item_bias, "+ rho x source user bias": bias_transfer}
RIVALS = ("SMURFF, joint", "myFM, stacked")
AGAINST = "+ rho x source user bias"
MODELS = {
    "TransferMF": br.models.TransferMF(rank=8),
    "TransferMF, activity": br.models.TransferMF(rank=8, activity=True),
    "TransferMF, Ordinal, activity": br.models.TransferMF(rank=8, likelihood=br.Ordinal(), activity=True),
    "TransferMF, Ordinal, activity, rank 1": br.models.TransferMF(rank=1, likelihood=br.Ordinal(), activity=True),
}
# the first one is what the others change
VARIANTS = {
    "rank 8": br.models.TransferMF(rank=8),
    "Ordinal": br.models.TransferMF(rank=8, likelihood=br.Ordinal()),
    "rank 4": br.models.TransferMF(rank=4),
    "rank 16": br.models.TransferMF(rank=16),
    "no gate": br.models.TransferMF(rank=8, gate=False),
    "map scales doubled": br.models.TransferMF(rank=8, shrinkage=2.0),
    "map scales halved": br.models.TransferMF(rank=8, shrinkage=0.5),
    "horseshoe": br.models.TransferMF(rank=8, prior_family="horseshoe"),
    "biases alone": br.models.TransferMF(rank=8, transfers="biases"),
    "Ordinal, rank 16": br.models.TransferMF(rank=16, likelihood=br.Ordinal()),
    "Ordinal, no gate": br.models.TransferMF(rank=8, gate=False, likelihood=br.Ordinal()),
}
LEVELS = br.models.TransferMF(rank=8, likelihood=br.Ordinal(), activity=True)
VARIANTS |= {
    "TransferMF, Ordinal, activity, rank 2": replace(LEVELS, rank=2),
    "TransferMF, Ordinal, activity, biases alone": replace(LEVELS, transfers="biases"),
    "TransferMF, Ordinal, activity, no gate": replace(LEVELS, gate=False),
    "TransferMF, Ordinal, activity, commensurate": replace(LEVELS, prior_family="commensurate"),
}


def toward(target: str) -> br.Interactions:
    """Douban with the other domain as the source."""
    data = douban()
    return data if target == "music" else br.Interactions.from_frame(data.to_frame(), target=target)


def answers(model: br.models.TransferMF, train: br.Interactions, test: br.Interactions, seed: int) -> dict:
    """Fit, and what the table needs of the held-out rows."""
    posterior = fit_unchecked(model, train, METHOD, seed)
    batch, value = posterior.data.encode(test), test.value
    whole = posterior.schema.units[-1].levels is not None
    out = {name: np.empty(len(test)) for name in ("mean", "sd", "median", "levels")}
    for rows, law in posterior.laws(batch):
        out["mean"][rows], out["sd"][rows] = law.moments()
        out["median"][rows] = law.quantiles((0.5,))[:, 0]
        y = value[rows]
        if whole:
            share = law.cdf(y) - law.below(y)
        else:
            share = np.where(y < 5, law.cdf(np.minimum(y, 4) + 0.5), 1.0) - np.where(y > 1, law.cdf(y - 0.5), 0.0)
        out["levels"][rows] = np.log(share)
    return out | ({} if whole else {"scores": posterior.scores(test)[0]})


def stacked(model: br.models.TransferMF, train: br.Interactions, test: br.Interactions, seed: int) -> dict:
    """The same of the model and the third baseline, mixed for squared error by folds inside the training half."""
    arms = {"model": model, "biases": bias_transfer}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", br.errors.NegativeTransferWarning)
        mix = br.stack(model, train, QUICK, folds=2, seed=seed, progress=False, arms=arms, objective="squared_error")
    table = mix.predict(test, level=1e-6)
    out = {name: table[column].to_numpy() for name, column in (("mean", "mean"), ("sd", "sd"), ("median", "lower"))}
    return out | {"levels": mix.log_score(test), "weight": np.array(mix.weights.loc["cold", "model"])}


def with_long_fits(
    weight: np.ndarray, arrays: dict[str, np.ndarray], train: br.Interactions, test: br.Interactions
) -> dict[str, np.ndarray]:
    """The mixture with the weights of a stack and the model's own, longer fit; its median is not known."""
    law, own = Simple(bias_transfer, train, Schema.of(train, br.Ordinal())).law(test.user, test.item), float(weight)
    means, sds = zip(law.moments(), (arrays["mean"], arrays["sd"]), strict=True)
    mean = (1.0 - own) * means[0] + own * means[1]
    square = (1.0 - own) * (sds[0] ** 2 + means[0] ** 2) + own * (sds[1] ** 2 + means[1] ** 2)
    share = np.log1p(-own) + law.log_density(test.value)[:, 0], np.log(own) + arrays["levels"]
    out = {"mean": mean, "sd": np.sqrt(square - mean**2), "levels": np.logaddexp(*share)}
    return out | {"median": np.full(len(test), np.nan)}


def normal(arrays: dict[str, np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
    """The same of a forecast that is a normal."""
    mean, sd = arrays["mean"], arrays["sd"]
    scores = -0.5 * ((y - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2.0 * np.pi)
    return {"mean": mean, "sd": sd, "median": mean, "levels": star_scores(mean, sd, y), "scores": scores[None]}


def measured(
    arrays: dict[str, np.ndarray], against: dict[str, np.ndarray], test: br.Interactions, activity: np.ndarray
) -> dict[str, float]:
    """A line of the table; differences in percent of the baseline, standard errors by user; ``activity`` is each row's user's."""
    y, user = test.value, np.unique(test.user, return_inverse=True)[1]
    residual = y - arrays["mean"]
    error, other = np.abs(y - arrays["mean"]), np.abs(y - against["mean"])
    base = np.sqrt((other**2).mean()), other.mean()
    gap = rmse_difference(y, arrays["mean"], against["mean"], user) if arrays is not against else (0.0, 0.0)
    apart = clustered_mean(error - other, user)
    crps = [crps_normal(y, a["mean"], a["sd"]) for a in (arrays, against)]
    return {
        "rmse": np.sqrt((error**2).mean()),
        "bias": residual.mean(),
        "bias_user": (np.bincount(user, residual) / np.bincount(user)).mean(),
        "bias_activity": np.corrcoef(residual, np.log(activity))[0, 1],
        "rmse_unbiased": residual.std(),
        "rmse_change": 100 * gap[0] / base[0],
        "rmse_change_se": 100 * gap[1] / base[0],
        "mae": error.mean(),
        "mae_change": 100 * apart[0] / base[1],
        "mae_change_se": 100 * apart[1] / base[1],
        "mae_median": np.abs(y - arrays["median"]).mean(),
        "nlpd": -log_score(arrays).mean() if "scores" in arrays else np.nan,
        "levels": -arrays["levels"].mean(),
        "crps": crps[0].mean(),
    }


def rival(label: str, seed: int, train: br.Interactions, test: br.Interactions) -> dict[str, np.ndarray]:
    """A rival's normal forecasts."""
    return normal(peer(label, seed, train, test), test.value)


def arms_of(
    key: str,
    models: dict,
    seed: int,
    train: br.Interactions,
    test: br.Interactions,
    rivals: tuple[str, ...] = (),
    mixed: tuple[str, ...] = (),
) -> dict[str, dict[str, np.ndarray]]:
    """Forecasts of the held-out rows by everybody, from cells."""
    arms = {name: normal(bias_predictions(make(train), test), test.value) for name, make in SIMPLE.items()}
    for label, model in models.items():
        arms[label] = cell(
            f"{key}/{label.replace(', ', '-').replace(' ', '-')}", partial(answers, model, train, test, seed)
        )
    for label in mixed:
        stack = cell(
            f"{key}/stack-{label.replace(', ', '-').replace(' ', '-')}",
            partial(stacked, models[label], train, test, seed),
        )
        arms[f"stack of {label} and biases"] = stack
        arms[f"  its weights, a long fit of {label}"] = with_long_fits(stack["weight"], arms[label], train, test)
    for label in rivals:
        arms[label] = cell(f"{key}/{label.replace(', ', '-')}", partial(rival, label, seed, train, test))
    return arms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2,3,4", help="of the split and the sampler")
    parser.add_argument("--ways", default="music,book", help="targets")
    parser.add_argument("--betas", default="20,50,80", help="percent of the shared users that become cold")
    parser.add_argument("--models", default=";".join(MODELS), help="their names, of variants too, with ; between them")
    parser.add_argument("--deranged", action="store_true", help="the models with deranged sources and with none, too")
    parser.add_argument("--stack", action="store_true", help="the ordinal models mixed with the third baseline, too")
    parser.add_argument("--choose", action="store_true", help="compare variants inside the training half")
    args = parser.parse_args()
    names = [name for name in args.models.split(";") if name]
    known = MODELS | VARIANTS
    if args.choose and args.models == parser.get_default("models"):
        names = list(VARIANTS)
    models = {name: known[name] for name in names}
    # log scores of a stack are those of whole stars where its arms are on levels
    levelled = [name for name, model in models.items() if isinstance(model.likelihood, br.Ordinal)]
    rivals = RIVALS if "BAYESREC_PEERS" in os.environ and not args.choose else ()
    lines = []
    for seed in map(int, args.seeds.split(",")):
        for target in args.ways.split(","):
            for beta in map(int, args.betas.split(",")):
                train, test = br.split.cold_users(toward(target), fraction=beta / 100, seed=seed)
                key = f"ways/{target}/{beta}/{seed}"
                if args.choose:
                    train, test = br.split.cold_users(train, fraction=0.2, seed=1000 + seed)
                    key = f"ways-choice/{target}/{beta}/{seed}"
                arms = arms_of(key, models, seed, train, test, rivals, tuple(levelled) if args.stack else ())
                if args.deranged:
                    for rows, other in (
                        ("deranged", br.data.derange_sources(train, seed=seed)),
                        ("none", train.without_sources()),
                    ):
                        found = arms_of(f"{key}/{rows}", models, seed, other, test)
                        arms |= {f"{label}, source: {rows}": found[label] for label in models}
                activity = np.bincount(train.user[~train.is_target], minlength=train.n_users)[test.user]
                for label, arrays in arms.items():
                    row = {"target": target, "cold": f"{beta}%", "model": label, "seed": seed}
                    lines.append(row | measured(arrays, arms[AGAINST], test, activity))
    if not rivals and not args.choose:
        print("rivals left out: BAYESREC_PEERS does not name a Python that has them (see benchmarks/peers.py)")
    table, name = pd.DataFrame(lines), "douban_choice" if args.choose else "douban_ways"
    groups = table.drop(columns="seed").groupby(["target", "cold", "model"], sort=False)
    mean = groups.mean()
    mean.insert(0, "seeds", groups.size())
    show("Cold users, means over seeds; changes in percent against the third baseline", mean, name)
    changes = mean.groupby("model", sort=False)[["rmse_change", "mae_change", "nlpd", "levels", "crps"]]
    show("Means over all settings above", changes.mean(), f"{name}_all")


if __name__ == "__main__":
    main()
