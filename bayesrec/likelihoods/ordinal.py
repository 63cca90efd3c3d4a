"""Ordinal and Bernoulli: a normal response between learned cut points."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from bayesrec import cuts
from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table, key_of
from bayesrec.distributions import Graded, OrderedNormal
from bayesrec.errors import DataError, DataWarning
from bayesrec.likelihoods.base import Fitted, Latents, Units, shown
from bayesrec.likelihoods.noise import CHUNKS, NoisyResponse, in_chunks
from bayesrec.likelihoods.predicted import Levels, Predicted

__all__ = ["Bernoulli", "Ordinal"]

CUT_SCALE = 1.5  # prior sd of the cut points before they are put in order
LOCATION_SCALE = 0.5  # prior sd of the mean of the items' biases
MOST = 100  # levels


@dataclass(frozen=True)
class Ordinal(NoisyResponse):
    """Ratings on a few levels: a cumulative probit with learned cut points. Provisional.

    A rating has level ``k`` where a response ``eta + e / sqrt(w[d, u])``, ``e ~ N(0, 1)``, lies between the cut points
    ``cut[d, k - 1]`` and ``cut[d, k]``. The distance from four stars to five need not be that from three to four, predictions
    are probabilities of levels, and no mass lies between levels or beyond their ends. A shift of all cut points for a user,
    which others add, is the user's bias that every model has; the width of a user's scale is ``w``, as in :class:`Gaussian`.
    The prior of the cut points is that of ordered draws from N(0, 1.5^2).

    Parameters
    ----------
    user_noise : bool
        False gives all users the same width.
    levels : tuple of float, optional
        The values that a rating can take. By default those of the training ratings of each domain, or of another domain that
        has these and more; where two scales differ, give each domain a likelihood of its own. Name them where a fold of the
        ratings may lack one.

    References
    ----------
    Albert and Chib (1993), `albert1993`, for the latent response; Cowles (1996), `cowles1996`, for cut points drawn with the
    responses integrated out, here by a Newton proposal.

    Examples
    --------
    >>> Ordinal(user_noise=False).dims
    {'cut': ('domain', 'threshold')}
    """

    levels: tuple[float, ...] | None = None
    learned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels is None:
            return
        try:
            levels = tuple(float(level) for level in self.levels)
        except (TypeError, ValueError):
            raise DataError(f"levels must be numbers such as (1, 2, 3, 4, 5), not {self.levels!r}") from None
        if len(levels) < 2 or any(not a < b for a, b in zip(levels, levels[1:], strict=False)):
            raise DataError(f"levels must be at least two ascending numbers, not {self.levels!r}")
        object.__setattr__(self, "levels", levels)

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of each site."""
        return {"cut": ("domain", "threshold")} | super().dims

    def check(self, value: np.ndarray, domain: Any) -> None:
        """Refuse values outside the levels, too many levels, and a domain with one level."""
        found = np.unique(value)
        if self.levels is not None:
            wrong = found[~np.isin(found, self.levels)]
            if len(wrong):
                raise DataError(
                    f"domain {domain!r} has a rating {wrong[0]:g}, which is none of the levels {shown(np.array(self.levels))}"
                )
        if len(found) < 2:
            raise DataError(
                f"all {len(value)} ratings of domain {domain!r} are {found[0] if len(found) else None:g}; an ordinal "
                "likelihood needs at least two levels. Clicks (all ones) need a likelihood for implicit feedback."
                if len(found)
                else f"domain {domain!r} has no ratings; an ordinal likelihood needs some on two levels."
            )
        if len(found) > MOST:
            raise DataError(
                f"domain {domain!r} has {len(found)} different values, more than {MOST} levels; a Gaussian suits real-valued "
                "ratings."
            )
        unused = [] if self.levels is None else [level for level in self.levels if level not in found]
        if unused:
            warnings.warn(
                f"no rating of domain {domain!r} has the level {shown(np.array(unused))}: what is said of it comes from the "
                "prior of the cut points.",
                DataWarning,
                stacklevel=5,
            )

    def units(self, values: list[np.ndarray]) -> list[Units]:
        """Levels of each domain: those declared, or those found; where one domain's lie among another's, the larger set."""
        if self.levels is not None:
            return [Units(levels=np.array(self.levels)) for _ in values]
        found = [np.unique(x) for x in values]
        widest = max(reversed(found), key=len)
        found = [widest if np.isin(levels, widest).all() else levels for levels in found]
        sizes = [len(levels) for levels in found if len(levels)]
        if len(set(sizes)) > 1:
            raise DataError(
                f"the domains have ratings on different numbers of levels ({', '.join(map(str, sizes))}, the target last). "
                "Declare levels=(...) that hold for all, or give each domain a likelihood of its own: "
                "likelihood={domain: Ordinal(), ...}"
            )
        return [Units(levels=levels if len(levels) else np.array([0.0, 1.0])) for levels in found]

    def prior(self, schema: Any) -> Latents:
        """Sample cut points, then spreads and widths of the users."""
        n = len(schema.units[-1].levels)
        law = OrderedNormal(torch.full((schema.n_domains, n - 1), CUT_SCALE)).to_event(1)
        return {"cut": pyro.sample("cut", law)} | super().prior(schema)

    def distribution(self, eta: Tensor, latents: Latents, batch: Any) -> dist.TorchDistribution:
        """Return the distribution of level numbers, from 0."""
        cut = latents["cut"].index_select(-2, batch.domain)
        return Graded((cut - eta.unsqueeze(-1)) / self.scale(latents, batch).unsqueeze(-1))

    def predicted(
        self,
        mean: np.ndarray,
        spread: np.ndarray,
        noise: np.ndarray,
        latents: Latents,
        units: list[Units],
        domain: np.ndarray,
    ) -> Predicted:
        """Return probabilities of levels."""
        cut = latents["cut"].numpy().astype(np.float64)[:, domain].swapaxes(0, 1)
        below = ndtr((cut - mean[..., None]) / np.hypot(spread, noise)[..., None])
        levels = np.stack([np.asarray(one.levels) for one in units])
        return Levels(np.diff(below, prepend=0.0, append=1.0), levels[domain])

    def expected(self, eta: Tensor, latents: Latents, batch: Any, units: list[Units]) -> Tensor:
        """Average the levels by their probabilities: the lowest, plus each step up times the chance to be above it."""
        levels = torch.from_numpy(np.stack([np.asarray(one.levels) for one in units])).to(eta.dtype)
        steps, scale = levels.diff()[batch.domain], self.scale(latents, batch)
        out = levels[batch.domain, 0].expand(eta.shape).clone()
        for k in range(steps.shape[-1]):
            cut = latents["cut"][..., k].index_select(-1, batch.domain)
            out += steps[:, k] * torch.special.ndtr((eta - cut) / scale)
        return out

    def observed(self, state: State, table: Table, fitted: Fitted) -> tuple[np.ndarray, np.ndarray]:
        """Return the response that has a rating's score at ``eta``, and the observed information there."""
        value, weight = np.empty((2, len(table.user_value)))
        self._over(table, state, fitted, lambda *given: cuts.informed(*given[:-2], value, weight, *given[-2:]))
        return value, weight

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Cut points that give each level its share; responses in the middle of theirs."""
        n, code = int(table.user_value.max(initial=1.0)) + 1, table.user_value.astype(int)
        n = max(n, len(self.levels or ()))
        domain = table.user_domain
        count = np.full((table.n_domains, n), 0.5)
        np.add.at(count, (domain, code), 1.0)
        share = count / count.sum(1, keepdims=True)
        upper = np.cumsum(share, 1)
        spread = 1.2  # of responses: their noise and what eta explains
        middle = spread * ndtri(upper - 0.5 * share)
        return {"cut": spread * ndtri(upper[:, :-1]), "response": middle[domain, code]} | super().start(table, rng)

    def blocks(self, table: Table, fitted: Fitted) -> list[Block]:
        """Cut points with the responses integrated out, then the responses; widths of the users given them."""

        def responses(state: State, rng: np.random.Generator) -> State:
            key, out = key_of(rng), np.empty(len(table.user_value))
            self._over(table, state, fitted, lambda *given: cuts.draw_responses(*given[:-2], key, out, *given[-2:]))
            return {"response": out}

        def cut_points(state: State, rng: np.random.Generator) -> State:
            here = self._evidence(table, state, fitted)
            proposal = [_newton(cut, stats) for cut, stats in zip(state["cut"], here, strict=True)]
            size = state["cut"].shape[1]
            normals, chance = rng.standard_normal((table.n_domains, size)), np.log(rng.random(table.n_domains))
            new = np.stack([m + np.linalg.solve(c.T, z) for (m, c), z in zip(proposal, normals, strict=True)])
            ordered = (np.diff(new) > 0).all(1)
            new[~ordered] = state["cut"][~ordered]
            there = self._evidence(table, state | {"cut": new}, fitted)
            cut = state["cut"].copy()
            for d in np.flatnonzero(ordered):
                forth = _log_normal(new[d], *proposal[d])
                back = _log_normal(cut[d], *_newton(new[d], there[d]))
                gain = there[d, 0] - here[d, 0] - 0.5 * ((new[d] ** 2).sum() - (cut[d] ** 2).sum()) / CUT_SCALE**2
                if chance[d] < gain + back - forth:
                    cut[d] = new[d]
            return {"cut": cut} | responses(state | {"cut": cut}, rng)

        def location(state: State, rng: np.random.Generator) -> State:
            # Cut points, responses and the biases of all items of a domain may move together: ratings cannot tell, the two
            # priors can. Without this move the location walks in small steps.
            cut, mean, item = state["cut"], state["item_mean"], state["item_vector"]
            precision = cut.shape[1] / CUT_SCALE**2 + 1.0 / LOCATION_SCALE**2
            linear = -cut.sum(1) / CUT_SCALE**2 - mean[:, 0] / LOCATION_SCALE**2
            shift = linear / precision + rng.standard_normal(len(cut)) / np.sqrt(precision)
            bias = np.zeros((len(cut), item.shape[1]))
            bias[:, 0] = shift
            return {
                "cut": cut + shift[:, None],
                "item_mean": mean + bias,
                "item_vector": item + bias[table.item_domain],
                "response": state["response"] + shift[table.user_domain],
            }

        return [
            Block("location", ("cut", "item_mean", "item_vector", "response"), location),
            Block("cut", ("cut", "response"), cut_points),
            *super().blocks(table, fitted),
            Block("response", ("response",), responses, local=True, swept=False),
        ]

    def _over(self, table: Table, state: State, fitted: Fitted, run: Any) -> None:
        """Call a compiled loop for chunks of the ratings, which do not depend on the threads."""
        eta, precision = fitted.eta(state), self.cell_precision(state, table).ravel()
        cut = np.pad(state["cut"].astype(np.float64), ((0, 0), (1, 1)), constant_values=((0, 0), (-np.inf, np.inf)))
        given = table.user_value, table.user_cell, table.n_users, eta, precision, cut
        in_chunks(table, lambda first, last: run(*given, first, last))

    def _evidence(self, table: Table, state: State, fitted: Fitted) -> np.ndarray:
        """What the ratings say of the cut points; see :func:`bayesrec.cuts.evidence`."""
        size = state["cut"].shape[1] + 2
        out = np.zeros((CHUNKS, table.n_domains, 1 + 3 * size))
        chunk = np.linspace(0, len(table.user_value), CHUNKS + 1).astype(int)

        def run(*given: Any) -> None:
            # an empty chunk has the place of another and adds nothing to it
            cuts.evidence(*given[:-2], out[np.searchsorted(chunk, given[-2], "right") - 1], *given[-2:])

        self._over(table, state, fitted, run)
        return out.sum(0)

    def log_density(self, state: State, table: Table, fitted: Fitted) -> float:
        """Log probability of all ratings of the table."""
        return float(self._evidence(table, state, fitted)[:, 0].sum())


@dataclass(frozen=True)
class Bernoulli(Ordinal):
    """Yes or no (1 or 0): a probit. Provisional.

    A yes where a response ``eta + e`` lies above the domain's cut point, which is learned and carries the base rate:
    :class:`Ordinal` with the levels 0 and 1.

    Parameters
    ----------
    user_noise : bool
        True gives every user a noise level of their own. Yes and no say little of it.

    Examples
    --------
    >>> Bernoulli().dims
    {'cut': ('domain', 'threshold')}
    """

    user_noise: bool = False
    levels: tuple[float, ...] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        if tuple(self.levels or ()) != (0.0, 1.0):
            raise DataError(f"Bernoulli has the levels 0 and 1, not {self.levels!r}; see Ordinal")
        super().__post_init__()

    def check(self, value: np.ndarray, domain: Any) -> None:
        """Refuse what is not 0 or 1, and a domain without a no."""
        if len(value) and (value == value[0]).all() and value[0] in (0.0, 1.0):
            raise DataError(
                f"all {len(value)} values of domain {domain!r} are {value[0]:g}: Bernoulli needs both 1 and 0. Data that hold "
                "what was taken only (clicks, purchases) need Implicit, which counts what was not taken as weak zeros."
            )
        super().check(value, domain)


def _newton(cut: np.ndarray, stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a Newton step from these cut points leads, and the Cholesky factor of the precision there."""
    size = len(cut) + 2
    inner = slice(1, size - 1)
    gradient, diagonal, before = stats[1:].reshape(3, size)
    precision = np.diag(diagonal[inner] + 1.0 / CUT_SCALE**2)
    cross = before[2 : size - 1]
    precision += np.diag(cross, 1) + np.diag(cross, -1)
    root = np.linalg.cholesky(precision)
    half = np.linalg.solve(root, gradient[inner] - cut / CUT_SCALE**2)
    return cut + np.linalg.solve(root.T, half), root


def _log_normal(x: np.ndarray, mean: np.ndarray, root: np.ndarray) -> float:
    """Log density at x of a normal whose precision has this Cholesky factor, up to a constant."""
    return float(np.log(root.diagonal()).sum() - 0.5 * ((root.T @ (x - mean)) ** 2).sum())
