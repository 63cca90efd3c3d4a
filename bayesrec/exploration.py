"""replay: what exploring would have earned, on the items that held-out users have rated."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data.ids import shown
from bayesrec.data.seeds import checked_seed
from bayesrec.diagnostics.informed import checked_draws, informed, spread_out
from bayesrec.errors import DataError, DataWarning
from bayesrec.likelihoods import Gaussian
from bayesrec.posterior import Posterior, predictive
from bayesrec.ranking import digest
from bayesrec.rules import Rule, by_name

__all__ = ["Replay", "replay"]

CAUTION = (
    "Logged replay sees only observed items: every rule chooses among what these users rated, which they mostly chose "
    "themselves, so regrets are smaller, and rules closer together, than they would be on the whole catalogue."
)
RULES = {"thompson": "thompson", "ucb": "ucb", "greedy": "mean", "popularity": "popularity"}


@dataclass(frozen=True)
class Replay:
    """Rewards and regrets of rules on logged ratings. Provisional.

    Attributes
    ----------
    rows : DataFrame
        user, rule, step (1, 2, ...), item, reward (the rating) and regret: what the user's best ``step`` logged items would
        have earned in excess of what the rule has earned so far.
    left_out : int
        Users whose log was too short.

    Examples
    --------
    >>> rows = pd.DataFrame({"user": [1, 1, 2, 2], "rule": "ucb", "step": [1, 2, 1, 2], "item": [3, 4, 4, 5],
    ...                      "reward": [5.0, 4.0, 3.0, 5.0], "regret": [0.0, 0.0, 2.0, 1.0]})
    >>> Replay(rows).curves()["regret"].tolist()
    [1.0, 0.5]
    """

    rows: pd.DataFrame = field(repr=False)
    left_out: int = 0

    def curves(self) -> pd.DataFrame:
        """Mean regret, its standard error over users and mean reward so far, a row for each rule and step."""
        who, n_users = self.rows.columns[0], self.rows.iloc[:, 0].nunique()
        rows = self.rows.sort_values([who, "rule", "step"])
        rows = rows.assign(so_far=rows.groupby([who, "rule"])["reward"].cumsum() / rows["step"])
        out = rows.groupby(["rule", "step"], sort=False).agg(
            regret=("regret", "mean"), se=("regret", "std"), reward=("so_far", "mean")
        )
        return out.assign(se=out["se"] / np.sqrt(n_users)).reset_index()

    def difference(self, rule: str, other: str) -> pd.DataFrame:
        """Mean regret of a rule minus that of another for each step, with the standard error of the paired users.

        Raises
        ------
        DataError
            A rule that was not replayed.
        """
        who, known = self.rows.columns[0], list(self.rows["rule"].unique())
        for name in (rule, other):
            if name not in known:
                raise DataError(f"rule {name!r} was not replayed; known: {known}")
        table = self.rows.pivot(index=[who, "step"], columns="rule", values="regret")
        gap = (table[rule] - table[other]).groupby("step")
        return pd.DataFrame({"difference": gap.mean(), "se": gap.std() / np.sqrt(gap.count())}).reset_index()

    def summary(self) -> str:
        """The regrets at the end in a few lines, and what they do not say."""
        last = self.rows["step"].max()
        end = self.curves().query("step == @last").sort_values("regret")
        lines = [f"Regret after {last} recommendations, mean over {self.rows.iloc[:, 0].nunique()} users:"]
        lines += [
            f"  {row.rule}: {row.regret:.2f} (SE {row.se:.2f}), reward {row.reward:.3f}" for row in end.itertuples()
        ]
        return "\n".join([*lines, CAUTION])


def replay(
    posterior: Posterior,
    log: Any,
    steps: int = 20,
    rules: Mapping[str, str | Rule] | None = None,
    seed: int = 0,
    *,
    draws: int = 100,
    at_least: int | None = None,
    about: str = "all",
) -> Replay:
    """Replay the ratings of held-out users as if rules had recommended the items one by one. Provisional.

    At every step a rule picks one of the items that the user has rated in the log and that were not picked before; the rating
    is revealed, is the reward, and the user's vector is updated in closed form in each draw, items, hyperparameters and the
    user's noise level held. Logged replay sees only observed items: a rule that would have recommended something that the user
    never rated is not seen doing so, and no curve says how a rule would fare on all items. Regret is against the best items
    of the user's own log.

    Parameters
    ----------
    posterior : Posterior
        Of training data without the ratings of ``log``, of normal ratings. Its users start from what it knows of them, others
        from the population.
    log : DataFrame or Interactions
        Target rows with ratings of held-out users. Rows of unknown items are left out.
    steps : int
    rules : mapping of name to rule, optional
        By default ``{"thompson": "thompson", "ucb": "ucb", "greedy": "mean", "popularity": "popularity"}``; the last shows
        the items with most target ratings in training first.
    seed : int
        Each user has normals of their own, the same for all rules.
    draws : int
        Number of draws, evenly spaced over all chains, that rules see.
    at_least : int, optional
        Rated items that a user must have, by default ``2 * steps``: with no more than ``steps`` there is no choice.
    about : {"all", "user"}
        What rules are uncertain about: everything that the draws leave open, or the user alone, each item's expected rating
        being moved by the user's vector and not by the item's. One user's ratings, which is all that is learned here, teach
        next to nothing of items; optimism about those is paid for in vain.

    Returns
    -------
    Replay

    Raises
    ------
    DataError
        Another likelihood than ``Gaussian``, an unknown ``about``, no user with enough items, pairs that the posterior was
        fitted to, shared items.
    NotFittedError
        Popularity, or users of the fit, with a posterior that was saved without its ratings.

    Warns
    -----
    DataWarning
        Always, of what logged replay cannot see.

    References
    ----------
    Li, Chu, Langford and Wang (2011), Unbiased offline evaluation of contextual-bandit-based news article recommendation
    algorithms; Chapelle and Li (2011), An empirical evaluation of Thompson sampling.

    Examples
    --------
    >>> import bayesrec as br, warnings
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(10, 20), n_ratings=(6, 12))
    >>> data = br.Interactions.from_frame(frame[frame.user < 50], target="target", value="value")
    >>> posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=20, warmup=20, chains=2), progress=False)
    >>> log = frame[(frame.user >= 50) & (frame.domain == "target")]
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", br.errors.DataWarning)
    ...     result = replay(posterior, log, steps=3, draws=10)
    >>> result.curves().columns.tolist()
    ['rule', 'step', 'regret', 'se', 'reward']
    """
    seed, n_draws = checked_seed(seed), checked_draws(draws)
    for name, number in (("steps", steps), ("at_least", 2 * steps if at_least is None else at_least)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
            raise DataError(f"{name} must be a whole number of at least 1, not {number!r}")
    wanted = max(int(steps), 2 * int(steps) if at_least is None else int(at_least))
    if posterior.data.columns.swapped or type(posterior.model.likelihood).expected is not Gaussian.expected:
        raise DataError("replay needs normal ratings (likelihood Gaussian) and shared users, not shared items")
    if about not in ("all", "user"):
        raise DataError(f"about must be 'all' or 'user', not {about!r}")
    posterior.require_draws("replay")
    policies = _policies(posterior, RULES if rules is None else rules)
    batch = posterior.data.encode(log, need_value=True)
    _check_new(posterior, batch)
    usable = np.flatnonzero((batch.item >= 0) & (batch.domain == posterior.schema.n_domains - 1))
    place, ids = pd.factorize(batch.user_id[usable])
    count = np.bincount(place, minlength=len(ids))
    enough = np.flatnonzero(count >= wanted)
    if not len(enough):
        most = int(count.max()) if len(count) else 0
        raise DataError(
            f"no user of the log has {wanted} rated target items that the posterior knows (the most: {most}); "
            "take fewer steps, or set at_least=..."
        )
    warnings.warn(CAUTION, DataWarning, stacklevel=2)
    places, parts = spread_out(posterior, n_draws), []
    rows_of = [usable[place == k] for k in enough]
    for rows, start in zip(rows_of, _starts(posterior, batch.user, rows_of, places), strict=True):
        order = rows[np.argsort(batch.item[rows], kind="stable")]
        items, rewards = batch.item[order], np.asarray(batch.value)[order]
        user_id = batch.user_id[order[0]]
        best = np.cumsum(-np.sort(-rewards)[:steps])
        for name, pick in policies.items():
            rng = np.random.default_rng([seed, digest(user_id)])
            chosen = _played(posterior, start, items, rewards, places, pick, int(steps), about, rng)
            table: dict[str, Any] = {posterior.data.columns.user: [user_id] * len(chosen), "rule": name}
            table |= {"step": np.arange(1, len(chosen) + 1), posterior.data.columns.item: batch.item_id[order[chosen]]}
            regret = best - np.cumsum(rewards[chosen])
            parts.append(pd.DataFrame(table | {"reward": rewards[chosen], "regret": regret}))
    return Replay(pd.concat(parts, ignore_index=True), len(ids) - len(enough))


Pick = Callable[[np.ndarray | None, np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Start:
    """What is known of a user before the log: mean (draw, R), covariance (draw, R, R), noise variance (draw,), in sd units."""

    mean: np.ndarray
    cov: np.ndarray
    noise: np.ndarray


def _policies(posterior: Posterior, rules: Mapping[str, str | Rule]) -> dict[str, Pick | np.ndarray]:
    """A rule, or a utility (item,) that no rating changes, under each name."""
    out: dict[str, Any] = {}
    for name, rule in rules.items():
        if rule == "popularity":
            posterior.require_data("popularity")
            data = posterior.data
            out[name] = np.bincount(data.item[data.is_target], minlength=data.n_items).astype(float)
        else:
            out[name] = by_name(rule)
    if not out:
        raise DataError("rules is empty: name at least one")
    return out


def _check_new(posterior: Posterior, batch: Any) -> None:
    data = posterior.data
    known = (data.user * data.n_items + data.item)[data.is_target]
    pairs = batch.user * data.n_items + batch.item
    again = np.flatnonzero((batch.user >= 0) & (batch.item >= 0) & np.isin(pairs, known))
    if again.size:
        raise DataError(
            f"row {again[0]} of the log (user {shown(batch.user_id[again[0]])}) was in the fit; replay needs ratings held out"
        )


def _starts(posterior: Posterior, user: np.ndarray, rows_of: list[np.ndarray], places: Any) -> Iterator[Start]:
    """The user's vector before the log in every draw, for the users of these rows."""
    codes = np.array([user[rows[0]] for rows in rows_of])
    known = np.unique(codes[codes >= 0])
    moments: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    if len(known):
        posterior.require_data("replay for users of the fit")
        for one in informed(posterior, known, places):
            prior = one.informants.population + one.informants.source
            cov = np.linalg.inv(prior + one.own)
            linear = np.einsum("cuij,cuj->cui", prior, one.informants.mean) + one.linear
            means = np.einsum("cuij,cuj->cui", cov, linear)
            share = one.informants.probability[:, :, None]
            mean = (share * means).sum(0)
            second = (share[..., None] * (cov + means[..., :, None] * means[..., None, :])).sum(0)
            moments.append((mean, second - mean[:, :, None] * mean[:, None, :], 1.0 / one.unit))
    stacked = [np.stack(part, 1) for part in zip(*moments, strict=True)]
    stranger = None
    for code in codes:
        if code >= 0:
            k = int(np.searchsorted(known, code))
            yield Start(*(part[k] for part in stacked))
        else:
            stranger = _stranger(posterior, places) if stranger is None else stranger
            yield stranger


def _stranger(posterior: Posterior, places: Any) -> Start:
    """Somebody from the population."""
    model, last = posterior.model, posterior.schema.n_domains - 1
    take = [c * posterior.n_draws + d for c, d in places]
    nobody, item = np.full(1, -1), np.flatnonzero(posterior.schema.item_domain.numpy() == last)[:1]
    rows = predictive.compact(model, posterior.draws, posterior.schema, nobody, item, np.full(1, last))
    mean = model.vectors(rows.latents, rows.batch)[0][:, 0].double().numpy()
    eta = model.score(rows.latents, rows.batch)
    *_, sd = model.likelihood.components(eta, eta.new_zeros(()), rows.latents, rows.batch)
    noise = np.broadcast_to(sd.double().numpy() ** 2, tuple(eta.shape))[:, 0]
    return Start(mean[take], rows.population.user_cov[:, last].double().numpy()[take], noise[take])


def _played(
    posterior: Posterior, start: Start, items: np.ndarray, rewards: np.ndarray, places: Any, pick: Any, steps: int,
    about: str, rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Places of the items that a rule picks one after another."""
    if isinstance(pick, np.ndarray):
        return np.argsort(-pick[items], kind="stable")[:steps]
    vectors = np.stack([posterior.draws["item_vector"][c, d][items] for c, d in places]).astype(float)
    bias, design = vectors[:, :, 0], np.concatenate([np.ones_like(vectors[:, :, :1]), vectors[:, :, 1:]], 2)
    unit = posterior.schema.units[-1]
    values = unit.encode(rewards)
    mean, cov, normals = start.mean.copy(), start.cov.copy(), rng.standard_normal(start.mean.shape)
    open_ = np.ones(len(items), dtype=bool)
    chosen = []
    for _ in range(steps):
        theta = mean + np.einsum("sij,sj->si", np.linalg.cholesky(cov), normals)
        free = np.flatnonzero(open_)
        if about == "all":
            drawn = np.einsum("sjr,sr->sj", design[:, free], theta) + bias[:, free]
        else:
            drawn = np.einsum("sjr,sr->sj", design[:, free], theta - mean)
            drawn += (np.einsum("sjr,sr->sj", design[:, free], mean) + bias[:, free]).mean(0)
        utility = np.asarray(pick((drawn * unit.scale + unit.center)[:, None, :], rng))[0]
        best = int(free[utility.argmax()])
        chosen.append(best)
        open_[best] = False
        v = design[:, best]
        along = np.einsum("sij,sj->si", cov, v)
        gain = along / ((along * v).sum(1) + start.noise)[:, None]
        mean = mean + gain * (values[best] - bias[:, best] - (v * mean).sum(1))[:, None]
        cov = cov - gain[:, :, None] * along[:, None, :]
        cov = 0.5 * (cov + cov.transpose(0, 2, 1))
    return np.array(chosen)
