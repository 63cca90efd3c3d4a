"""evaluate_ranking: rank the candidates of each test user with every model, popularity among them, and measure the lists."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.baselines import Baseline, popularity
from bayesrec.data import Interactions
from bayesrec.data.columns import nearest
from bayesrec.data.ids import shown
from bayesrec.data.interactions import checked_interactions
from bayesrec.diagnostics import Stack
from bayesrec.errors import DataError, DataWarning
from bayesrec.evaluation.candidates import Candidates
from bayesrec.metrics import clustered_mean, list_metrics, list_names
from bayesrec.posterior import Posterior
from bayesrec.ranking import sides
from bayesrec.ranking_metrics import list_chance, unseen

__all__ = ["RankingEvaluation", "evaluate_ranking"]

POPULARITY = "popularity"
COLUMNS = ("model", "metric", "mean", "se", "n_users")
BLOCK = 2**21  # candidates whose scores are held at a time


@dataclass(frozen=True, repr=False)
class RankingEvaluation:
    """Metrics of ranked lists, of every model and of popularity. Provisional.

    Attributes
    ----------
    frame : DataFrame
        ``model``, ``metric``, ``mean``, ``se``, ``n_users``. Means are over lists, standard errors clustered by user. The
        rows ``novelty@n`` (bits) and ``coverage@n`` (a share of the catalogue, without an error) stand there for full ranking
        only: what a list of sampled candidates shows is up to the sample.
    lists : DataFrame
        One row a model and list: ``model``, ``user``, with ``each=True`` the ``item``, and a column a metric.
    negatives : str
        What the lists were made of, in words.

    Examples
    --------
    >>> lists = pd.DataFrame({"model": ["popularity"] * 2 + ["mine"] * 2, "user": [1, 2] * 2, "mrr": [0.5, 0.1, 0.7, 0.5]})
    >>> rows = [("popularity", "mrr", 0.3, 0.2, 2), ("mine", "mrr", 0.6, 0.1, 2)]
    >>> result = RankingEvaluation(pd.DataFrame(rows, columns=list(COLUMNS)), lists, "all candidates")
    >>> result.difference("mine").round(3).to_dict("list")
    {'metric': ['mrr'], 'difference': [0.3], 'se': [0.1]}
    """

    frame: pd.DataFrame
    lists: pd.DataFrame
    negatives: str

    def __repr__(self) -> str:
        wide = self.frame.pivot(index="model", columns="metric", values="mean")
        order = self.frame.drop_duplicates("metric")["metric"]
        wide = wide.loc[list(self.frame["model"].unique()), list(order)]
        users, n = self.lists["user"].nunique(), len(self.lists) // max(self.frame["model"].nunique(), 1)
        return f"{n} lists of {users} users, {self.negatives}\n{wide.round(4).to_string()}"

    def difference(self, model: str, against: str = POPULARITY) -> pd.DataFrame:
        """Each metric of a model minus that of another on the same lists. Provisional.

        Parameters
        ----------
        model, against : str

        Returns
        -------
        DataFrame
            ``metric``, ``difference`` and ``se``, clustered by user.

        Raises
        ------
        DataError
            A name that is no model of the table.
        """
        known = list(self.lists["model"].unique())
        for name in (model, against):
            if name not in known:
                raise DataError(f"no model is called {name!r}{nearest(name, known)}; there are {known}")
        mine, other = (self.lists[self.lists["model"] == name].reset_index(drop=True) for name in (model, against))
        rows = []
        for metric in [name for name in mine if name not in ("model", "user", "item")]:
            rows.append((metric, *_mean(mine[metric].to_numpy() - other[metric].to_numpy(), mine["user"])))
        return pd.DataFrame(rows, columns=["metric", "difference", "se"])


def evaluate_ranking(
    scorers: Any,
    train: Interactions,
    test: Any,
    n: int = 10,
    negatives: str | tuple[str, int] = "all",
    seed: int = 0,
    *,
    each: bool = False,
    exclude: Any = None,
    min_rating: float | None = None,
) -> RankingEvaluation:
    """Rank the candidates of each test user by every model and measure the lists, beside popularity. Provisional.

    Candidates are the items with a target row in training. A user is never shown what stands in the user's own target rows in
    ``train`` or ``exclude``, and no row of ``test`` is a negative of its user.

    Parameters
    ----------
    scorers : {name: scorer}, or one scorer
        A `Posterior` or a `Stack` (expected ratings), a baseline that was fitted to ``train``, or a function of a user's id and
        an array of item ids that returns a score for each item. The name ``"popularity"`` is taken: its row is always there.
    train : Interactions
    test : Interactions or data frame
        Target rows; unknown users are ranked too.
    n : int
        Length of the list that is shown.
    negatives : "all", ("uniform", count) or ("popularity", count)
        Every candidate; or a sample of candidates without replacement, with equal chances or by their target rows in training.
    seed : int
        Of the samples. A user's sample depends on it and on ids alone, not on the order of rows nor on who else is asked for.
    each : bool
        Whether each test row has a list of its own, in which the user's other test rows do not stand: with
        ``negatives=("uniform", 999)`` the protocol of CDRIB.
    exclude : Interactions or data frame, optional
        More rows that users have taken, such as those of validation.
    min_rating : float, optional
        Test rows with a lower value are not relevant; they are left out of the lists.

    Returns
    -------
    RankingEvaluation

    Raises
    ------
    DataError
        A test row that stands in train too, or of another domain; no row to rank; scores that are NaN or of the wrong shape; a
        name twice; an option that makes no sense.
    TypeError
        Something that cannot score.

    Warns
    -----
    DataWarning
        Sampled negatives: metrics over a sample can order models in another way than the full ranking does (Krichene and Rendle
        2020); test rows of items that training does not have; users with fewer candidates than asked for.

    References
    ----------
    Krichene and Rendle (2020), `krichene2020`; Cao et al. (2022), `cao2022` in docs/references.bib.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(12, 12), n_ratings=(8, 6))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> train, test = br.split.holdout(data, fraction=0.2)
    >>> bias = br.baselines.item_bias(train)
    >>> result = evaluate_ranking({"item bias": bias, "by id": lambda user, items: items}, train, test, n=3)
    >>> result.frame["model"].unique().tolist()
    ['popularity', 'item bias', 'by id']
    >>> result.difference("item bias", "by id").columns.tolist()
    ['metric', 'difference', 'se']
    """
    checked_interactions(train, "train")
    if train.columns.swapped:
        raise DataError("train is transposed; give the table as it was before .transposed()")
    models = _named(scorers)
    names, lists = (
        list_names(n) if _length(n) else (),
        Candidates(train, test, negatives, seed, each, exclude, min_rating),
    )
    if lists.how != "all":
        warnings.warn(
            f"metrics over {lists.count} sampled negatives can order models in another way than a full ranking, and mislead "
            "the more the smaller the sample (Krichene and Rendle 2020, KDD): compare with negatives='all'",
            DataWarning,
            stacklevel=2,
        )
    score = {POPULARITY: _scorer(POPULARITY, popularity(train), train, lists)}
    score |= {name: _scorer(name, model, train, lists) for name, model in models.items()}
    full = lists.how == "all"
    n_users = max(int(train.n_users if train.shared == "users" else len(np.unique(train.user[train.is_target]))), 1)
    information = -np.log2(np.maximum(lists.taken, 1) / n_users)
    tally = {name: _Tally(n, len(lists.taken), full) for name in score}
    owner, items = [], []
    block: list[tuple] = []
    size = 0
    for k in range(len(lists)):
        mine = lists.of(k)
        every, where = np.unique(np.concatenate([item for item, _ in mine]), return_inverse=True)
        block.append((mine, where, {name: one(k, every) for name, one in score.items()}))
        owner += [k] * len(mine)
        if each:
            items.append(lists.item_ids(k))
        size += len(where)
        if size >= BLOCK or k == len(lists) - 1:
            _measure(block, tally, information)
            block, size = [], 0
    if lists.short:
        warnings.warn(
            f"{lists.short} of {len(owner)} lists have fewer than {lists.count} items that the user has not taken; they hold "
            "all of them",
            DataWarning,
            stacklevel=2,
        )
    who = np.array(owner)
    head: dict[str, Any] = {"user": lists.user_id.take(who)}
    if each:
        head["item"] = np.concatenate([np.asarray(ids) for ids in items])
    return _result(tally, head, who, names, n, full, len(lists.catalogue), _words(lists))


def _length(n: Any) -> bool:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise DataError(f"n must be a whole number of at least 1, not {n!r}")
    return True


def _words(lists: Candidates) -> str:
    kind = "all candidates" if lists.how == "all" else f"{lists.count} negatives each, {lists.how}"
    return kind + (", one list a test row" if lists.each else ", one list a user")


def _named(scorers: Any) -> dict[str, Any]:
    """Names of the scorers; one scorer has the name of its class or function."""
    if not isinstance(scorers, Mapping):
        scorers = {getattr(scorers, "__name__", type(scorers).__name__): scorers}
    out = {str(name): scorer for name, scorer in scorers.items()}
    if len(out) < len(scorers):
        raise DataError(f"two scorers have one name: {list(scorers)}")
    if POPULARITY in out:
        raise DataError(f"the name {POPULARITY!r} is taken by the row that every table has; choose another")
    return out


def _scorer(name: str, model: Any, train: Interactions, lists: Candidates) -> Callable[[int, np.ndarray], np.ndarray]:
    """Scores of items (codes) for the test user at a place, checked."""
    if isinstance(model, Posterior | Stack):
        people, things, last = sides(model)
        users = people.encode(lists.user_id, last)
        place = np.full(train.n_items, -1)
        place[lists.catalogue] = things.encode(train.items.decode(lists.catalogue), last)

        def raw(k: int, items: np.ndarray) -> Any:
            return model.expected(int(users[k]), place[items]).mean(0)
    elif isinstance(model, Baseline):

        def raw(k: int, items: np.ndarray) -> Any:
            return model.predict(np.full(len(items), lists.user[k]), items)
    elif callable(model) and not isinstance(model, type):
        ids = np.asarray(train.items.ids)

        def raw(k: int, items: np.ndarray) -> Any:
            return model(lists.user_id[k], ids[items])
    else:
        raise TypeError(
            f"{name!r} cannot score: it is {model!r}. Give a posterior (fit the model first), a baseline, or a function of a "
            "user and items"
        )

    def checked(k: int, items: np.ndarray) -> np.ndarray:
        out = np.asarray(raw(k, items), dtype=float)
        if out.shape != items.shape or np.isnan(out).any():
            raise DataError(
                f"{name!r}: the scores of user {shown(lists.user_id[k])} have shape {out.shape} for {len(items)} items"
                + (f", {int(np.isnan(out).sum())} of them are NaN" if out.shape == items.shape else "")
            )
        return out

    return checked


class _Tally:
    """What is kept of a model's lists."""

    def __init__(self, n: int, n_items: int, full: bool):
        self.n, self.full = n, full
        self.metrics: list[dict[str, np.ndarray]] = []
        self.unseen = np.ones(n_items)

    def add(
        self, owner: np.ndarray, item: np.ndarray, relevant: np.ndarray, score: np.ndarray, information: np.ndarray
    ) -> None:
        """Take whole lists, numbered from 0."""
        found = list_metrics(owner, score, relevant, self.n)
        if self.full:
            chance = list_chance(owner, score, self.n)
            found[f"novelty@{self.n}"] = np.bincount(owner, chance * information[item]) / np.bincount(owner, chance)
            self.unseen *= unseen(item, chance, len(self.unseen))
        self.metrics.append(found)


def _measure(block: list[tuple], tally: dict[str, _Tally], information: np.ndarray) -> None:
    """Measure the lists of a block for every model."""
    pairs = [pair for mine, _, _ in block for pair in mine]
    length = [len(item) for item, _ in pairs]
    owner = np.repeat(np.arange(len(pairs)), length)
    item, relevant = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    for name, one in tally.items():
        score = np.concatenate([scores[name][where] for _, where, scores in block])
        one.add(owner, item, relevant, score, information)


def _result(
    tally: dict[str, _Tally],
    head: dict[str, Any],
    who: np.ndarray,
    names: tuple[str, ...],
    n: int,
    full: bool,
    catalogue: int,
    words: str,
) -> RankingEvaluation:
    parts, rows = [], []
    users = len(np.unique(who))
    columns = (*names, f"novelty@{n}") if full else names
    for name, one in tally.items():
        found = {metric: np.concatenate([part[metric] for part in one.metrics]) for metric in columns}
        parts.append(pd.DataFrame({"model": name, **head, **found}))
        rows += [(name, metric, *_mean(values, who), users) for metric, values in found.items()]
        if full:
            rows.append((name, f"coverage@{n}", float((1.0 - one.unseen).sum() / catalogue), np.nan, users))
    return RankingEvaluation(pd.DataFrame(rows, columns=list(COLUMNS)), pd.concat(parts, ignore_index=True), words)


def _mean(values: np.ndarray, cluster: Any) -> tuple[float, float]:
    """Mean and clustered error; no error for one user."""
    mean, se = clustered_mean(values, np.asarray(cluster))
    return mean, se if len(pd.unique(pd.Series(cluster))) > 1 else np.nan
