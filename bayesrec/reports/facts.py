"""What goes into a report: numbers and tables, no words and no HTML. Internal.

Users are the shared side here, as they are to the models: where items are shared, they stand in the users' place.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data import Interactions
from bayesrec.diagnostics import TransferReport, conflict, source_weight
from bayesrec.diagnostics.calibration import coverage
from bayesrec.diagnostics.heldout import regime_of
from bayesrec.diagnostics.segments import SOURCE
from bayesrec.errors import ConvergenceWarning, DataWarning, NegativeTransferWarning, UnsupportedMethodError
from bayesrec.metrics import clustered_mean, rmse, rmse_difference
from bayesrec.posterior import Posterior, convergence
from bayesrec.ranking import recommend, sides

__all__ = [
    "Chains",
    "Example",
    "Gains",
    "chains",
    "conflicts",
    "domains",
    "examples",
    "gains",
    "segments",
    "weights",
    "worth",
]

REGIMES = ("cold", "few", "warm")
OWN_EDGES = (0, 1, 6, 21, 51)  # groups of users by own target ratings
SOURCE_EDGES = (0, 1, 6, 21, 51, 201)  # and by source ratings
USERS_A_GROUP, ITEMS_A_USER = 60, 8  # sample behind the mean weights of a group
LIST = 5  # items of an example
LEVELS = np.linspace(0.0, 1.0, 41)
Z90 = 1.645
NONE = "none"  # the group without ratings


@dataclass(frozen=True)
class Gains:
    """Who gains from the source and who is harmed.

    Attributes
    ----------
    values : ndarray (user,)
        Log-score difference a rating, for each user.
    better : float
        Share of users above zero.
    largest, largest_id : float, id
        Share of the sum of absolute differences that one user carries, and who that is.
    groups : DataFrame or None
        By number of source ratings: users, delta (a rating), low, high (90%), better.
    """

    values: np.ndarray
    better: float
    largest: float
    largest_id: Any
    groups: pd.DataFrame | None


@dataclass(frozen=True)
class Chains:
    """Whether the chains agree, on predictions and on the model's inner quantities (scales, weights).

    Attributes
    ----------
    rhat, ess : float
        Worst R-hat and effective sample size of the predictions; NaN with too few draws to tell.
    n, bad : int
        Predictions that were checked; those with an R-hat above the limit.
    inner, inner_bad : int
        The same for the inner quantities.
    worst : DataFrame
        The five worst of all.
    """

    rhat: float
    ess: float
    n: int
    bad: int
    inner: int
    inner_bad: int
    worst: pd.DataFrame


@dataclass(frozen=True)
class Example:
    """A list for one user, never an item: columns item, mean, lower, upper and, with a source, source_weight."""

    regime: str
    user: Any
    n_own: int
    n_source: int
    items: pd.DataFrame


@contextmanager
def quiet(category: type[Warning]) -> Iterator[None]:
    """Leave out warnings of one kind: the page says the same in words. Others, and any of an interruption, pass."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?!interrupted)", category)
        yield


def worth(report: TransferReport) -> pd.DataFrame:
    """One row for each kind of user and one for all: log score and typical error with and without the source."""
    out: dict[str, dict[str, Any]] = {}
    rows = report.rows
    regime = None if rows is None else regime_of(rows["n_own"].to_numpy())
    n_rows = int(report.per_user["n"].sum())
    whole: dict[str, Any] = {
        "verdict": report.verdict,
        "probability": report.probability,
        "reason": report.reason,
        "se": report.se,
    }
    whole |= {"delta_per_row": report.delta_per_row, "n_users": len(report.per_user), "n_rows": n_rows}
    for name in (*REGIMES, "all"):
        if name != "all" and name not in report.regimes.index:
            continue
        row = whole if name == "all" else report.regimes.loc[name].to_dict()
        out[name] = {key: row[key] for key in whole} | {"se": row["se"] / row["n_rows"]}
        if rows is not None:
            part = rows if name == "all" else rows[regime == name]
            y, a, b = (part[c].to_numpy() for c in ("value", "mean", "mean_without"))
            difference, se = rmse_difference(y, a, b, part[report.entity].to_numpy())
            out[name] |= {"rmse": rmse(y, a), "rmse_without": rmse(y, b), "change": difference, "change_se": se}
    return pd.DataFrame.from_dict(out, orient="index")


def counts(data: Interactions, role: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Target and source ratings of each user (role 0) or item (role 1) of the model, (user,) or (item,) each."""
    code, n = ((data.user, data.n_users), (data.item, data.n_items))[role]
    own = np.bincount(code[data.is_target], minlength=n)
    return own, np.bincount(code[~data.is_target], minlength=n)


def span(edges: tuple[int, ...], k: int) -> str:
    """Words for group ``k`` of counts between edges."""
    if k == len(edges) - 1:
        return f"{edges[k]} or more"
    low, high = edges[k], edges[k + 1] - 1
    return (NONE if low == 0 else str(low)) if low == high else f"{low} to {high}"


def gains(report: TransferReport, data: Interactions) -> Gains:
    """Spread of the users' differences, and the groups by number of source ratings if the ratings are there."""
    users = report.per_user
    delta, n = users["delta"].to_numpy(), users["n"].to_numpy()
    size = np.abs(delta)
    top = int(np.argmax(size))
    groups = None
    if len(data) and data.sources:
        code = data.users.encode(pd.Index(users[report.entity]))
        n_source = np.where(code >= 0, counts(data)[1][code], 0)
        group = np.digitize(n_source, SOURCE_EDGES) - 1
        table = {span(SOURCE_EDGES, k): _group(delta[group == k], n[group == k]) for k in np.unique(group)}
        groups = pd.DataFrame.from_dict(table, orient="index")
    largest, who = float(size[top] / (size.sum() or 1.0)), users[report.entity].iloc[top]
    return Gains(delta / n, float((delta > 0).mean()), largest, who, groups)


def _group(delta: np.ndarray, n: np.ndarray) -> dict[str, float]:
    """Mean difference a rating and its 90% interval, users as clusters."""
    mean = delta.sum() / n.sum()
    excess = delta - mean * n
    half = Z90 * np.sqrt(len(n) / max(len(n) - 1, 1) * (excess**2).sum()) / n.sum() if len(n) > 1 else np.inf
    return {"users": len(n), "delta": mean, "low": mean - half, "high": mean + half, "better": (delta > 0).mean()}


def weights(posterior: Posterior) -> pd.DataFrame | None:
    """Mean shares of source, population and own ratings, by own ratings, over a fixed sample of users and items."""
    data = posterior.data
    own, n_source = counts(data)
    rng = np.random.default_rng(0)
    items = np.unique(data.item[data.is_target])
    group = np.where(own + n_source > 0, np.digitize(own, OWN_EDGES) - 1, -1)
    out = {}
    for k in np.unique(group[group >= 0]):
        members = np.flatnonzero(group == k)
        users = np.sort(rng.permutation(members)[:USERS_A_GROUP])
        cells = rng.choice(items, (len(users), min(ITEMS_A_USER, len(items))))
        frame = _cells(data, np.repeat(users, cells.shape[1]), cells.ravel())
        try:
            share = source_weight(posterior, frame, draws=50)
        except UnsupportedMethodError:
            return None
        mean = {name: float(share[name].to_numpy().mean()) for name in ("source", "population", "target")}
        out[span(OWN_EDGES, k)] = {"users": len(members)} | mean
    return pd.DataFrame.from_dict(out, orient="index")


def segments(report: TransferReport) -> pd.DataFrame | None:
    """The report's segments with more than one level, but for that by source ratings, which has a finer table on the page."""
    if report.segments is None:
        return None
    levels = report.segments.groupby("segment")["level"].transform("size")
    return report.segments[(levels > 1) & (report.segments["segment"] != SOURCE)].reset_index(drop=True)


def conflicts(posterior: Posterior) -> tuple[int, int] | None:
    """How many users' own ratings contradict what the source announced, and of how many; None where that cannot be said."""
    try:
        with quiet(NegativeTransferWarning):
            found = conflict(posterior, draws=30)
    except UnsupportedMethodError:
        return None
    return (int(np.asarray(found["conflict"]).sum()), len(found)) if len(found) else None


def _cells(data: Interactions, user: np.ndarray, item: np.ndarray) -> pd.DataFrame:
    names = data.columns
    return pd.DataFrame({names.user: data.users.decode(user), names.item: data.items.decode(item)})


def examples(posterior: Posterior) -> list[Example]:
    """A list for one user of each kind: the one in the middle of their kind by number of source ratings.

    The middle, not the best: an example that was picked for its looks would say nothing. Where items are shared, no
    user of the target has source ratings, and the number of target ratings takes their place.
    """
    data, people = posterior.data, sides(posterior)[0]
    own, n_source = counts(data, data.columns.sides.index("user"))
    kind, order = regime_of(own), own if data.columns.swapped else n_source
    _, thing = data.columns.ids(data.columns.user, data.columns.item)
    names = _titles(data)
    out: list[Example] = []
    for regime in REGIMES:
        here = np.flatnonzero((kind == regime) & ((order if data.sources else own) > 0))
        if not len(here):
            continue
        user = int(here[np.argsort(order[here], kind="stable")[len(here) // 2]])
        id_ = people.decode(np.array([user]))
        try:
            with quiet(DataWarning):
                answer = recommend(posterior, id_, n=LIST)
        except UnsupportedMethodError:
            return out
        table = pd.DataFrame({"item": [names.get(i, str(i)) for i in answer[thing].to_numpy()]})
        for name in ("mean", "lower", "upper", *(["source_weight"] if data.sources else [])):
            table[name] = np.asarray(answer[name], dtype=float)
        out.append(Example(regime, id_[0], int(own[user]), int(n_source[user]), table))
    return out


def _titles(data: Interactions) -> dict[Any, str]:
    """Titles of the caller's items, if their features came with a column ``title`` or ``name``."""
    names, role = data.columns, data.columns.sides.index("item")
    features, own = ((data.user_features, names.user), (data.item_features, names.item))[role]
    columns = list(getattr(features, "columns", ()))
    column = next((c for c in columns if str(c).lower() in ("title", "name")), None)
    if column is None or own not in columns:
        return {}
    keep = [True] * len(features)
    if names.domain in columns and not names.swapped:  # an id may stand for another item in another domain
        keep = [domain == data.target for domain in features[names.domain]]
    pairs = zip(features[own], features[column], keep, strict=True)
    return {item: str(title) for item, title, here in pairs if here}


def chains(posterior: Posterior) -> Chains:
    """R-hat and effective sample sizes in short, with the five worst quantities."""
    with quiet(ConvergenceWarning):
        table = posterior.diagnostics()
    shown = table.index.str.startswith("prediction[")
    above = (table["rhat"] > convergence.RHAT_LIMIT).to_numpy()
    own = table[shown]
    rhat, ess = (float(x) for x in (own["rhat"].max(), own[["ess_bulk", "ess_tail"]].min().min()))
    worst = table.sort_values("rhat", ascending=False).head(5).reset_index()
    worst = worst[["quantity", "rhat", "ess_bulk", "ess_tail"]]
    n, bad, inner, inner_bad = (int(x.sum()) for x in (shown, above & shown, ~shown, above & ~shown))
    return Chains(rhat, ess, n, bad, inner, inner_bad, worst)


def curves(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Share of held-out ratings inside central intervals of ``LEVELS``, for each kind of user."""
    kind = regime_of(rows["n_own"].to_numpy())
    pit = rows["pit"].to_numpy()
    return {name: coverage(pit[kind == name], LEVELS) for name in REGIMES if (kind == name).any()}


def inside(rows: pd.DataFrame, level: float, entity: str) -> tuple[float, float]:
    """Share of held-out ratings inside their interval of ``level``, and its standard error, clustered by entity."""
    hit = np.abs(2.0 * rows["pit"].to_numpy() - 1.0) <= level
    return clustered_mean(hit.astype(float), rows[entity].to_numpy())


def domains(data: Interactions) -> pd.DataFrame:
    """Sizes of each domain: users and items as the caller knows them, and how many of the shared side are in the target."""
    target = np.unique(data.user[data.is_target])
    out = []
    for k, name in enumerate(data.domains):
        rows = data.domain == k
        users, items = np.unique(data.user[rows]), np.unique(data.item[rows])
        out.append(
            {
                "domain": str(name),
                "role": "target" if k == len(data.domains) - 1 else "source",
                "ratings": int(rows.sum()),
                f"{data.columns.sides[0]}s": len(users),
                f"{data.columns.sides[1]}s": len(items),
                "density": rows.sum() / max(len(users) * len(items), 1),
                "shared": len(np.intersect1d(users, target)),
                "mean": float(data.value[rows].mean()) if rows.any() else np.nan,
            }
        )
    return pd.DataFrame(out)
