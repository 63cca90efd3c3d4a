"""From the posterior of a source to a prior for each of its users. Internal."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bayesrec import conjugate
from bayesrec.conjugate import Table
from bayesrec.data.seeds import checked_seed
from bayesrec.errors import ConvergenceWarning, DataError, UnsupportedMethodError
from bayesrec.models import PMF
from bayesrec.models.features import user_shift
from bayesrec.posterior import predictive
from bayesrec.posterior.alignment import Designs, align, population_cov
from bayesrec.privacy import checked_budget, gaussian_sigma, noisy, sensitivity
from bayesrec.sources import SourcePrior

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

__all__ = ["as_prior"]

# Shares of the variance of item designs that the other chains explain. Synthetic data with factors: .95 to 1; Douban
# books, rank 8: .81 to .88; synthetic data without factors, where nothing ties the chains together: .1 to .45; random
# matrices for n items, four chains: .9 R / n on average, and 99% of the means below 2 R / n.
AGREE = 0.5
RANDOM = 2.0
NORMS = 0.9  # quantile of the norms of item designs that is the bound of the private mode


def as_prior(posterior: Posterior, side: str, privacy: Any, seed: int | None) -> SourcePrior:
    """Summarise each user's whitened and aligned vector; see :meth:`Posterior.as_prior`."""
    if posterior.model.likelihood.whole:
        raise UnsupportedMethodError(
            f"this reads what single rows say, and {posterior.model.likelihood!r} counts cells without a row as well."
        )
    _check(posterior, side)
    budget = None if privacy is None else checked_budget(privacy)
    rng = np.random.default_rng(None if seed is None else checked_seed(seed))
    table = posterior.schema.table(posterior.data)
    designs = Designs(posterior, np.diff(table.item_ptr).astype(float))
    turns, shares = align(designs)
    _judge(posterior, shares, designs)
    active = np.flatnonzero(table.count[0] > 0)
    if budget is None:
        mean, cov = _moments(posterior, table, active, turns)
    else:
        mean, cov = _private_moments(_items(designs, turns), table, active, budget, rng)
    return SourcePrior(
        name=posterior.data.target,
        users=posterior.data.users.decode(active),
        mean=mean,
        cov=0.5 * (cov + cov.transpose(0, 2, 1)),
        entity=side,
        privacy=budget,
        alignment=float(shares.mean()) if len(shares) else None,
    )


def _check(posterior: Posterior, side: str) -> None:
    """Refuse what has no single vector a user, and the side that is not shared."""
    posterior.require_data("as_prior")
    posterior.require_draws("as_prior")
    (who, other), model = posterior.data.columns.sides, posterior.model
    if side not in ("user", "item"):
        raise DataError(f"side must be 'user' or 'item', not {side!r}")
    if not isinstance(model, PMF):
        raise DataError(
            f"as_prior needs the fit of a source alone, and this is a {type(model).__name__} of {posterior.schema.n_domains} "
            f"domain(s). Fit the source's rows as data of their own: br.fit(br.models.PMF(rank={model.rank}), source_data, ...)"
        )
    if model.activity:
        raise DataError("as_prior is about people, not about ratings: fit the source without activity=True.")
    if side != who:
        raise DataError(
            f"side={side!r}: in this posterior the {who}s are shared between domains and have vectors of their own; an "
            f'{other} belongs to its domain. Use as_prior("{who}"), or fit data with shared="{side}s".'
        )


def _judge(posterior: Posterior, shares: np.ndarray, designs: Designs) -> None:
    """Refuse what random matrices would do as well, warn of chains that went elsewhere."""
    if not len(shares):
        return
    weight, size = designs.weight, posterior.model.rank + 1
    limit = min(RANDOM * size * float(weight @ weight), AGREE)
    advice = "Draw longer chains, or fit the source with a smaller rank."
    if shares.mean() <= limit:
        raise DataError(
            f"the draws of {posterior.data.target!r} cannot be aligned: a chain explains {shares.mean():.2f} of the variance of "
            f"another's item designs, and random ones reach {limit:.2f}. {advice}"
        )
    low = np.flatnonzero(shares < AGREE)
    if low.size:
        halves = posterior.n_chains == 1
        where = "the two halves of chain 0" if halves else "chain(s) " + ", ".join(map(str, low))
        warnings.warn(
            f"{where} of {posterior.data.target!r} found other factors than the rest: {shares.min():.2f} of the variance of item "
            f"designs is explained, less than {AGREE}. The prior says little about the factors. {advice}",
            ConvergenceWarning,
            stacklevel=4,
        )


def _moments(
    posterior: Posterior, table: Table, active: np.ndarray, turns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (user, R) and covariance (user, R, R) of phi over all draws.

    Given items, hyperparameters and noise phi is normal, so a draw adds its conditional moments: the covariance is the
    mean of the conditional covariances plus the covariance of the conditional means.
    """
    pointers = np.append(table.user_ptr[:-1][active], table.user_ptr[-1])  # who is silent has an empty range
    size = turns.shape[-1]
    first, second = np.zeros((len(active), size)), np.zeros((len(active), size, size))
    for chain in range(posterior.n_chains):
        for draw in range(posterior.n_draws):
            state = posterior.draw(chain, draw)
            value, weight = posterior.model.observed(state, table)
            gram, linear = conjugate.row_grams(pointers, table.user_item, value, weight, state["item_vector"])
            root = np.linalg.cholesky(population_cov(posterior, state)) @ turns[chain, draw]
            gram, linear = root.T @ gram @ root, (linear - gram @ state["user_mean"]) @ root
            shift = user_shift(state, table)
            if shift is not None:  # phi ~ N(0, I) over all users; of one whose features are known more is known
                precision = root.T @ np.linalg.inv(state["user_cov"]) @ root
                gram = gram + precision - np.eye(size)
                linear = linear + np.linalg.solve(root, shift[active].T).T @ precision
            mean, cov = _conditional(gram, linear)
            first += mean
            second += cov + mean[:, :, None] * mean[:, None, :]
    n = posterior.n_chains * posterior.n_draws
    mean = first / n
    return mean, second / n - mean[:, :, None] * mean[:, None, :]


def _conditional(precision: np.ndarray, linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of phi ~ N(0, I) after a likelihood with this precision (user, R, R) and linear term (user, R)."""
    cov = np.linalg.inv(np.eye(linear.shape[1]) + precision)
    return (cov @ linear[:, :, None])[..., 0], cov


@dataclass(frozen=True)
class Items:
    """What the private mode takes as public.

    Attributes
    ----------
    design : ndarray, (item, R)
        Posterior means of the aligned designs.
    offset : ndarray, (item,)
        Posterior means of the expected rating of a user at the population's mean.
    spread : ndarray, (item,)
        Posterior variance of the expected rating of a user drawn from the population that comes from the item alone.
    count : ndarray, (item,)
    noise : float
        Noise variance of a user whose noise level is unknown.
    """

    design: np.ndarray
    offset: np.ndarray
    spread: np.ndarray
    count: np.ndarray
    noise: float


def _items(designs: Designs, turns: np.ndarray) -> Items:
    """Average the items over the draws."""
    posterior, rated = designs.posterior, designs.count > 0
    n_items, size = len(rated), turns.shape[-1]
    design, offset, squares = np.zeros((n_items, size)), np.zeros(n_items), np.zeros(n_items)
    n = posterior.n_chains * posterior.n_draws
    for chain, draw in np.ndindex(turns.shape[:2]):
        state, d = designs.state(chain, draw), designs.at(chain, draw) @ turns[chain, draw]
        items = state["item_vector"][rated]
        level = items[:, 0] + state["user_mean"][0] + items[:, 1:] @ state["user_mean"][1:]
        design[rated] += d / n
        offset[rated] += level / n
        squares[rated] += ((d**2).sum(1) + level**2) / n
    stranger = predictive.compact(
        posterior.model, posterior.draws, posterior.schema, *(np.array([code]) for code in (-1, 0, 0))
    )
    eta = posterior.model.score(stranger.latents, stranger.batch)
    *_, sd = posterior.model.likelihood.components(eta, torch.zeros(()), stranger.latents, stranger.batch)
    spread = np.maximum(squares - (design**2).sum(1) - offset**2, 0.0)
    return Items(design, offset, spread, designs.count, float(sd.double().square().mean()))


def _private_moments(
    items: Items, table: Table, active: np.ndarray, budget: tuple[float, float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Moments of phi from natural parameters that carry noise.

    The noise is part of the model: the noisy linear term is ``G phi + N(0, noise G + sigma^2 I)``, and the noisy ``G`` is
    shrunk towards what as many ratings of average items would give.
    """
    epsilon, delta, clip = budget
    design, factor, bound = _bounded(items)
    sigma = gaussian_sigma(epsilon, delta, sensitivity(bound, clip))
    size = design.shape[1]
    gram, linear, n = np.empty((len(active), size, size)), np.empty((len(active), size)), table.count[0][active]
    for row, user in enumerate(active):
        mine = slice(table.user_ptr[user], table.user_ptr[user + 1])
        item = table.user_item[mine]
        residual = factor[item] * (table.user_value[mine] - items.offset[item])
        gram[row], linear[row] = natural(design[item], residual, clip)
    gram, linear = noisy(gram, linear, sigma, rng)
    weight = items.count / items.count.sum()
    each = design[:, :, None] * design[:, None, :]
    typical = np.tensordot(weight, each, 1)
    between = n * (weight @ ((each - typical) ** 2).sum((1, 2)))
    keep = (between / (between + sigma**2 * size * (size + 1) / 2.0))[:, None, None]
    expected = n[:, None, None] * typical
    gram = _semidefinite(expected + keep * (gram - expected))
    # An error E of G is noise E phi of the linear term; phi ~ N(0, I).
    extra = sigma**2 * (1.0 + keep * (size + 1) / 2.0) * np.eye(size)
    gain = np.linalg.solve(items.noise * gram + extra, gram)  # symmetric: both have the eigenvectors of G
    return _conditional(gain @ gram, (gain @ linear[:, :, None])[..., 0])


def _bounded(items: Items) -> tuple[np.ndarray, np.ndarray, float]:
    """Designs (item, R) and the factor (item,) of each item's residuals, scaled to equal noise and within a bound."""
    factor = np.sqrt(items.noise / (items.noise + items.spread))
    norm = factor * np.linalg.norm(items.design, axis=1)
    bound = float(np.quantile(norm[items.count > 0], NORMS))
    factor = factor * np.minimum(1.0, bound / np.maximum(norm, bound))
    return factor[:, None] * items.design, factor, bound


def natural(design: np.ndarray, residual: np.ndarray, clip: float) -> tuple[np.ndarray, np.ndarray]:
    """Sums of ``d d'`` and ``d r`` over ratings (row,), the residuals clipped."""
    return design.T @ design, design.T @ np.clip(residual, -clip, clip)


def _semidefinite(matrix: np.ndarray) -> np.ndarray:
    """Nearest positive semidefinite matrices."""
    value, vector = np.linalg.eigh(matrix)
    return (vector * np.maximum(value, 0.0)[:, None, :]) @ vector.transpose(0, 2, 1)
