"""Simulation-based calibration: data from a model's own prior, and where the truth ranks among the draws. Provisional."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pyro
import torch
from arviz_stats.base import array_stats
from scipy import stats

from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.data.seeds import generator
from bayesrec.errors import BayesrecWarning, DataError
from bayesrec.inference import Method
from bayesrec.inference.base import whole_fits
from bayesrec.models.base import Batch, Model, Schema

__all__ = ["Ranks", "ecdf_band", "per_draw", "sbc_ranks", "uniform"]

Quantities = Callable[[Model, State, Table], dict[str, float]]
FAILED = (ArithmeticError, RuntimeError, ValueError)  # SamplingError and NumPy's LinAlgError are among them


@dataclass(frozen=True)
class Ranks:
    """Ranks of true values among the draws, replication by replication. Provisional.

    Attributes
    ----------
    ranks : DataFrame of int, (replication, quantity)
        Number of the ``L`` draws below the truth, 0 to ``L``; ties are broken at random.
    ess : DataFrame of float, (replication, quantity)
        Bulk ESS of the ``L`` draws. Ranks are uniform for draws that are nearly independent: an ESS near ``L``.
    L : int
        Draws that the truth is ranked among.
    failures : dict of int to str
        Replications without a rank, and the error.

    Examples
    --------
    >>> ranks = pd.DataFrame({"noise": np.arange(100), "gate": np.arange(100) // 2})
    >>> Ranks(ranks, 99.0 + 0 * ranks, 99, {}).table()["uniform"].tolist()
    [True, False]
    """

    ranks: pd.DataFrame
    ess: pd.DataFrame
    L: int
    failures: dict[int, str]

    @classmethod
    def joined(cls, parts: Iterable[Ranks]) -> Ranks:
        """Several runs as one."""
        parts = list(parts)
        some = [part for part in parts if len(part.ranks)] or parts[:1]
        failures = {number: why for part in parts for number, why in part.failures.items()}
        return cls(pd.concat([p.ranks for p in some]), pd.concat([p.ess for p in some]), parts[0].L, failures)

    def table(self, alpha: float = 0.05) -> pd.DataFrame:
        """Judge every quantity.

        Parameters
        ----------
        alpha : float
            Divided by the number of quantities: the probability that one of them is called not uniform by chance.

        Returns
        -------
        DataFrame
            A row for each quantity: n (replications), mean_rank (over ``L``), distance (largest, of ECDF and diagonal),
            ess (median), p, uniform.
        """
        rows = {}
        for name, ranks in self.ranks.items():
            ecdf = np.cumsum(np.bincount(ranks, minlength=self.L + 1)) / len(ranks)
            distance = np.abs(ecdf - np.arange(1, self.L + 2) / (self.L + 1)).max()
            p = p_uniform(ranks.to_numpy(), self.L)
            rows[name] = (len(ranks), ranks.mean() / self.L, distance, self.ess[name].median(), p)
        out = pd.DataFrame.from_dict(rows, orient="index", columns=["n", "mean_rank", "distance", "ess", "p"])
        return out.assign(uniform=out["p"] > alpha / len(out))


def sbc_ranks(
    model: Model,
    data: Interactions,
    method: Method,
    replications: int | Iterable[int],
    *,
    L: int = 99,
    seed: int = 0,
    quantities: Quantities | None = None,
) -> Ranks:
    """Draw latents and ratings from the prior, fit, and rank the truth among the draws; again and again. Provisional.

    If the method draws from the posterior, every quantity's rank is uniform on 0 to ``L``; see :func:`uniform`. The
    model works in the units of its prior: ratings are not centred or scaled by their own mean and sd, which would make
    the model that is fitted another one than the model that is simulated.

    Parameters
    ----------
    model : Model
    data : Interactions
        The design: who rates what. Its values are not looked at.
    method : Method
        Gives at least ``L`` draws, chains together; ``L`` of them, evenly spaced, are used. Thin them until the ESS of
        the quantities is near ``L``.
    replications : int or iterable of int
        How many, or the numbers of those to run: each depends on ``seed`` and its number alone.
    L : int
    seed : int
    quantities : callable, optional
        ``quantities(model, state, table)`` names numbers computed from one draw and the simulated ratings;
        :func:`per_draw` by default.

    Returns
    -------
    Ranks

    Raises
    ------
    DataError
        A method with fewer draws than ``L``.

    References
    ----------
    Talts et al. (2018), `talts2018`; quantities that depend on the data: Modrák et al. (2023), `modrak2023` in
    docs/references.bib.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=8, n_items=(6, 6), n_ratings=(4, 4), n_cold=1)
    >>> design = br.Interactions.from_frame(frame, target="target", value="value")
    >>> found = sbc_ranks(br.models.PMF(rank=1), design, br.Gibbs(draws=9, warmup=20, chains=1), 3, L=9)
    >>> found.ranks.shape[0], bool(found.ranks["log_likelihood"].between(0, 9).all())
    (3, True)
    """
    numbers = range(replications) if isinstance(replications, int) else replications
    view = model.view(data)
    domains = np.zeros(len(view.domains)), np.ones(len(view.domains))
    schema = replace(Schema.of(view), center=domains[0], scale=domains[1])
    ranks: dict[int, dict[str, int]] = {}
    ess: dict[int, dict[str, float]] = {}
    failures: dict[int, str] = {}
    for number in numbers:
        rng = generator(seed, number)
        try:
            truth, draws = _replication(model, view, schema, method, L, rng, quantities or per_draw)
        except DataError:
            raise
        except FAILED as error:
            failures[number] = f"{type(error).__name__}: {error}"
            continue
        ranks[number] = {name: rank_among(truth[name], draws[name], rng) for name in truth}
        ess[number] = {name: float(array_stats.ess(x, method="bulk", chain_axis=None)) for name, x in draws.items()}
    return Ranks(
        pd.DataFrame.from_dict(ranks, orient="index"), pd.DataFrame.from_dict(ess, orient="index"), L, failures
    )


def per_draw(model: Model, state: State, table: Table) -> dict[str, float]:
    """Return what is ranked by default, from one draw and the ratings. Provisional.

    The model's identified quantities (noise, spreads; gate and map_r2 of TransferMF); expected ratings of three cells:
    of a cold user, and of a warm user one that is rated and one that is new; the log density of all ratings; and, with
    a source, its weight in the new cell and its relevance to that user.

    Parameters
    ----------
    model : Model
    state : dict of ndarray
        One draw of every site.
    table : Table
        The ratings, in the units of the prior.

    Returns
    -------
    dict of str to float

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=8, n_items=(6, 6), n_ratings=(4, 4), n_cold=1)
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=1, warmup=5, chains=1), progress=False)
    >>> list(per_draw(posterior.model, posterior.draw(0, 0), posterior.schema.table(data)))[-5:]
    ['prediction[rated]', 'prediction[new]', 'log_likelihood', 'source_weight', 'relevance']
    """
    latents = {name: torch.as_tensor(np.asarray(state[name])) for name in model.dims}
    out: dict[str, float] = {}
    for name, value in model.identified(latents).items():
        numbers = np.ravel(np.asarray(value))
        labels = [""] if numbers.size == 1 else [f"[{k}]" for k in range(numbers.size)]
        out |= {name + label: float(x) for label, x in zip(labels, numbers, strict=True)}
    cells = _cells(table)
    user, item = (torch.tensor(codes) for codes in zip(*cells.values(), strict=True))
    eta = model.score(latents, Batch(user, item, torch.full_like(user, table.n_domains - 1)))
    out |= {f"prediction[{name}]": float(x) for name, x in zip(cells, eta, strict=True)}
    out["log_likelihood"] = model.log_density(state, table)
    return out | (_borrowing(model, state, table, *cells["new"]) if table.n_domains > 1 else {})


def uniform(ranks: np.ndarray, L: int, alpha: float = 0.05) -> bool:
    """Whether the ranks' ECDF stays inside the simultaneous band. Provisional.

    Parameters
    ----------
    ranks : ndarray of int, (replication,)
        0 to ``L``.
    L : int
    alpha : float
        Probability of False for uniform ranks, at most; divide it by the number of quantities that are tested.

    Examples
    --------
    >>> uniform(np.arange(100), 99), uniform(np.arange(100) // 2, 99)
    (True, False)
    """
    return p_uniform(ranks, L) > alpha


def ecdf_band(n: int, L: int, probability: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Give the band that holds the whole ECDF of ``n`` uniform ranks with this probability, or a little more. Provisional.

    Parameters
    ----------
    n : int
        Replications.
    L : int
    probability : float

    Returns
    -------
    lower, upper : ndarray, (L + 1,)
        Of the share of ranks of at most 0, 1, ..., ``L``.

    Notes
    -----
    The tail probability is the same at every point (Säilynoja et al. 2022, doi 10.1007/s11222-022-10090-6). The
    coverage is exact: counts of uniform ranks are independent Poisson counts given their sum.

    Examples
    --------
    >>> lower, upper = ecdf_band(100, 9)
    >>> bool((lower < np.arange(1, 11) / 10)[:-1].all()), float(lower[-1])
    (True, 1.0)
    """
    bounds = np.array(_band(n, L, probability), dtype=float) / n
    return bounds[0], bounds[1]


def p_uniform(ranks: np.ndarray, L: int) -> float:
    """Probability that the ECDF of uniform ranks comes as close to the edge of its pointwise distribution. Internal."""
    ranks = np.asarray(ranks)
    if not len(ranks) or ranks.min() < 0 or ranks.max() > L:
        raise DataError(f"ranks must be whole numbers from 0 to {L}, at least one")
    n, share = len(ranks), np.arange(1, L + 1) / (L + 1)
    count = np.cumsum(np.bincount(ranks.astype(int), minlength=L + 1))[:-1]
    tail = np.minimum(stats.binom.cdf(count, n, share), stats.binom.sf(count - 1, n, share)).min()
    return max(0.0, 1.0 - _coverage(n, *_pointwise(n, L, tail * (1.0 + 1e-9))))


def rank_among(truth: float, draws: np.ndarray, rng: np.random.Generator) -> int:
    """Number of draws below the truth; ties count as below with equal chances for every number of them. Internal."""
    return int((draws < truth).sum() + rng.integers((draws == truth).sum() + 1))


def _replication(
    model: Model,
    view: Interactions,
    schema: Schema,
    method: Method,
    L: int,
    rng: np.random.Generator,
    quantities: Quantities,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """True value of every quantity, and its ``L`` draws."""
    seeds = rng.integers(2**62, size=2)
    state, value = _simulated(model, view, schema, int(seeds[0]))
    data = replace(view, value=value)
    table = schema.table(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesrecWarning)
        with whole_fits("a fit was interrupted; a rank among fewer draws means nothing"):
            posterior = method.run(model, data, schema, int(seeds[1]), False)
    total = posterior.n_chains * posterior.n_draws
    if total < L:
        raise DataError(f"{method!r} gives {total} draws; the truth is to be ranked among L={L}")
    chosen = np.linspace(0, total - 1, L).round().astype(int)
    draws = [quantities(model, posterior.draw(*divmod(s, posterior.n_draws)), table) for s in chosen.tolist()]
    truth = quantities(model, state, table)
    bad = [name for name in truth if not np.isfinite([truth[name], *(draw[name] for draw in draws)]).all()]
    if bad:
        raise FloatingPointError(f"{bad} not finite")
    return truth, {name: np.array([draw[name] for draw in draws]) for name in truth}


def _simulated(model: Model, view: Interactions, schema: Schema, seed: int) -> tuple[State, np.ndarray]:
    """Latents from the prior, rounded to float32 as draws are, and ratings (row,) given them."""
    batch = Batch(*(torch.from_numpy(np.array(x)) for x in (view.user, view.item, view.domain)))
    with _double(), torch.random.fork_rng(devices=[]), pyro.poutine.block():
        torch.manual_seed(seed)
        latents = model.prior(schema)
        latents = {name: latents[name].float().double() for name in model.dims}
        value = model.likelihood.distribution(model.score(latents, batch), latents, batch).sample()
    return {name: x.numpy() for name, x in latents.items()}, value.numpy()


@contextmanager
def _double() -> Iterator[None]:
    """Work in double precision: a covariance from the prior can be too near to singular for single."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _cells(table: Table) -> dict[str, tuple[int, int]]:
    """Fixed target cells (user, item) that depend on the design alone."""
    own = table.count[-1]
    warm = int(np.argmax((own > 0) & (table.count > 0).all(0)))
    cold = int(np.argmin(own))
    first = warm * table.n_domains + table.n_domains - 1
    rated = table.user_item[table.user_ptr[first] : table.user_ptr[first + 1]]
    items = np.flatnonzero(table.rated & (table.item_domain == table.n_domains - 1))
    new = items[np.argmin(np.isin(items, rated))]
    return {"cold": (cold, int(items[0])), "rated": (warm, int(rated[0])), "new": (warm, int(new))}


def _borrowing(model: Model, state: State, table: Table, user: int, item: int) -> dict[str, float]:
    """The source's weight in one prediction, and the probability that each source with rows of the user is relevant."""
    informants = model.prior_precision(state, table)
    first = user * table.n_domains + table.n_domains - 1
    mine = slice(table.user_ptr[first], table.user_ptr[first + 1])
    design = np.array(state["item_vector"][table.user_item[mine]])
    vector = np.array(state["item_vector"][item])
    design[:, 0] = vector[0] = 1.0
    precision = model.likelihood.working(state, table, "user")[1][mine]
    rest = informants.population[user] + (design.T * precision) @ design
    weight = 0.0
    for chance, source in zip(informants.probability[:, user], informants.source[:, user], strict=True):
        a = np.linalg.solve(rest + source, vector)
        weight += chance * (a @ source @ a) / (a @ vector)
    relevance = informants.relevance[:, user]
    labels = [""] if len(relevance) == 1 else [f"[{k}]" for k in range(len(relevance))]
    found = {f"relevance{label}": float(x) for label, x in zip(labels, relevance, strict=True) if not np.isnan(x)}
    return {"source_weight": float(weight)} | found


@lru_cache
def _band(n: int, L: int, probability: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Lowest and highest counts, 0 to ``L``: the narrowest of the bands with one tail probability that cover enough."""
    low, high = np.log((1.0 - probability) / L / 2.0), np.log((1.0 - probability) / 2.0)
    for _ in range(40):
        middle = (low + high) / 2.0
        if _coverage(n, *_pointwise(n, L, np.exp(middle))) >= probability:
            low = middle
        else:
            high = middle
    lower, upper = _pointwise(n, L, np.exp(low))
    return (*lower.tolist(), n), (*upper.tolist(), n)


def _pointwise(n: int, L: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts (L,) of ranks of at most 0, ..., L - 1 with at least ``tail`` on their own and the outer side."""
    share = np.arange(1, L + 1) / (L + 1)
    return stats.binom.ppf(tail, n, share).astype(int), n - stats.binom.ppf(tail, n, 1.0 - share).astype(int)


def _coverage(n: int, lower: np.ndarray, upper: np.ndarray) -> float:
    """Probability that the cumulative counts of n uniform ranks stay between the bounds."""
    step, counts = stats.poisson.pmf(np.arange(n + 1), n / (len(lower) + 1)), np.arange(n + 1)
    inside = np.zeros(n + 1)
    inside[0] = 1.0
    for below, above in zip(lower, upper, strict=True):
        inside = np.convolve(inside, step)[: n + 1] * ((counts >= below) & (counts <= above))
    return float(np.convolve(inside, step)[n] / stats.poisson.pmf(n, n))
