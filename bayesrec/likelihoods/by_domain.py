"""A likelihood for each domain: clicks in the source, stars in the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from bayesrec.blocks import Block, State
from bayesrec.errors import DataError, UnsupportedMethodError
from bayesrec.likelihoods.base import Fitted, Latents, Likelihood, Units
from bayesrec.likelihoods.mixed import EachRow, joined
from bayesrec.likelihoods.predicted import Predicted
from bayesrec.table import Part, Table
from bayesrec.whole import Everywhere

__all__ = ["ByDomain"]

OF_MODELS = {"item_vector": 0, "item_mean": 0}  # what blocks of a likelihood may move beside its own sites
OWN_AXES = ("domain", "threshold")  # axes that each part has for itself
WHOLE = "whole state"


@dataclass(frozen=True)
class ByDomain(Likelihood):
    """A likelihood for each domain; models make one of ``likelihood={domain: likelihood}``. Provisional.

    Each part sees the rows of its domain as if there were no other. Its sites have the domain in their names, such as
    ``noise_book``: nothing is shared between the noise of domains, unlike in one Gaussian for all, whose users have a level
    that carries over.

    Parameters
    ----------
    parts : tuple of (domain, Likelihood)
        In the order of the data's domains, the target last; ``fit`` puts them in order.

    Examples
    --------
    >>> from bayesrec.likelihoods import Gaussian, Implicit
    >>> ByDomain((("book", Implicit()), ("music", Gaussian(user_noise=False)))).dims["noise_music"]
    ('domain_music',)
    """

    parts: tuple[tuple[Any, Likelihood], ...]

    def __post_init__(self) -> None:
        parts = tuple((domain, one) for domain, one in self.parts)
        if not parts:
            raise DataError("likelihood={} names no domain; give a likelihood for each.")
        for domain, one in parts:
            if not isinstance(one, Likelihood) or isinstance(one, ByDomain):
                raise DataError(f"the likelihood of domain {domain!r} must be one such as Gaussian(), not {one!r}")
        names = [str(domain) for domain, _ in parts]
        if len(set(names)) < len(names):
            raise DataError(f"the domains {names} have a name twice")
        object.__setattr__(self, "parts", parts)

    def bound(self, domains: tuple, known: tuple) -> ByDomain:
        """The parts in the order of ``domains``; names are checked against the domains that are ``known``."""
        named = {str(domain): (domain, one) for domain, one in self.parts}
        have, all_known = [str(domain) for domain in domains], {str(domain) for domain in (*domains, *known)}
        for name in named:
            if name not in all_known:
                raise DataError(
                    f"likelihood= names the domain {name!r}, which the data do not have; they have {sorted(all_known)}"
                )
        for name in have:
            if name not in named:
                raise DataError(f"likelihood= has none for the domain {name!r}; it names {sorted(named)}. Add one.")
        return ByDomain(tuple(named[name] for name in have))

    def of(self, domain: int) -> Likelihood:
        """The part of a domain (code)."""
        return self.parts[domain][1]

    @property
    def whole(self) -> bool:
        """Whether one of the parts counts cells without a rating."""
        return any(one.whole for _, one in self.parts)

    @property
    def tempers(self) -> bool:
        """Whether every part's updates know powers of its density."""
        return all(one.tempers for _, one in self.parts)

    @property
    def fixed(self) -> tuple[str, ...]:
        """Sites that are known from the data."""
        return tuple(_named(site, d) for d, one in self.parts for site in one.fixed)

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Axes of each site."""
        return {
            _named(site, domain): tuple(_named(axis, domain) if axis in OWN_AXES else axis for axis in axes)
            for domain, one in self.parts
            for site, axes in one.dims.items()
        }

    def check(self, value: np.ndarray, domain: Any) -> None:
        """Have the domain's part check its values."""
        found = [one for name, one in self.parts if str(name) == str(domain)]
        if not found:
            raise DataError(f"likelihood= has none for the domain {str(domain)!r}. Add one.")
        found[0].check(value, domain)

    def units(self, values: list[np.ndarray]) -> list[Units]:
        """Units of each part."""
        if len(values) != len(self.parts):
            raise DataError(f"likelihood= names {len(self.parts)} domains, and the data have {len(values)}.")
        return [one.units([x])[0] for (_, one), x in zip(self.parts, values, strict=True)]

    # as Pyro has it, and what users see: rows go to the part of their domain

    def prior(self, schema: Any) -> Latents:
        """Sample the latents of each part, under their names here."""
        out: Latents = {}
        for d, (domain, one) in enumerate(self.parts):
            levels = (schema.levels[d],) if schema.levels else ()
            alone = replace(
                schema,
                domains=(domain,),
                center=schema.center[d : d + 1],
                scale=schema.scale[d : d + 1],
                levels=levels,
                item_domain=torch.zeros_like(schema.item_domain),
            )
            with _Renamed(domain):
                out |= {_named(site, domain): x for site, x in one.prior(alone).items()}
        return out

    def _latents(self, d: int, latents: Latents) -> Latents:
        """The latents of a part under its own names, as far as they are there."""
        domain, one = self.parts[d]
        return {site: latents[name] for site in one.dims if (name := _named(site, domain)) in latents}

    def _rows(self, batch: Any) -> Iterator[tuple[int, Tensor, Any]]:
        """Each part that has rows: its place, the rows and the batch of them."""
        for d in range(len(self.parts)):
            rows = torch.nonzero(batch.domain == d)[:, 0]
            if len(rows):
                yield d, rows, type(batch)(batch.user[rows], batch.item[rows], torch.zeros_like(rows))

    def distribution(self, eta: Tensor, latents: Latents, batch: Any) -> dist.TorchDistribution:
        """Return the distributions of all rows, each of its part."""
        found = [
            (rows, self.of(d).distribution(eta[..., rows], self._latents(d, latents), mine))
            for d, rows, mine in self._rows(batch)
        ]
        return found[0][1] if len(found) == 1 else EachRow(found, eta.shape)

    def components(self, eta: Tensor, variance: Tensor, latents: Latents, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, its sd and noise of each row's response, each by its part."""
        variance = variance.expand(eta.shape)
        out = (torch.empty_like(eta), torch.empty_like(eta), torch.empty_like(eta))
        for d, rows, mine in self._rows(batch):
            got = self.of(d).components(eta[..., rows], variance[..., rows], self._latents(d, latents), mine)
            for whole, part in zip(out, got, strict=True):
                whole[..., rows] = part.expand(eta[..., rows].shape).to(eta.dtype)
        return out

    def predicted(
        self,
        mean: np.ndarray,
        spread: np.ndarray,
        noise: np.ndarray,
        latents: Latents,
        units: list[Units],
        domain: np.ndarray,
    ) -> Predicted:
        """Return the predictions of all rows, each of its part."""
        found = []
        for d in np.unique(domain):
            rows = np.flatnonzero(domain == d)
            moments = (mean[rows], spread[rows], noise[rows])
            law = self.of(d).predicted(*moments, self._latents(d, latents), [units[d]], np.zeros(len(rows), dtype=int))
            found.append((rows, law))
        return found[0][1] if len(found) == 1 else joined(found)

    def expected(self, eta: Tensor, latents: Latents, batch: Any, units: list[Units]) -> Tensor:
        """Expected ratings, each by its part."""
        out = torch.empty_like(eta)
        for d, rows, mine in self._rows(batch):
            got = self.of(d).expected(eta[..., rows], self._latents(d, latents), mine, [units[d]])
            out[..., rows] = got.to(eta.dtype)
        return out

    def unknown_user(self, latents: Latents) -> Latents:
        """Fill-in values of every part."""
        return self._unknown(latents, lambda one, mine: one.unknown_user(mine))

    def unknown_item(self, latents: Latents) -> Latents:
        """Fill-in values of every part, alike for the items of all domains."""
        n = len(self.parts)
        found = self._unknown(latents, lambda one, mine: one.unknown_item(mine))
        return {name: x.expand(*x.shape[:-1], n) for name, x in found.items()}

    def _unknown(self, latents: Latents, ask: Callable[[Likelihood, Latents], Latents]) -> Latents:
        return {
            _named(site, domain): x
            for d, (domain, one) in enumerate(self.parts)
            for site, x in ask(one, self._latents(d, latents)).items()
        }

    # Gibbs: each part has the table of its domain, and a state cut down to it

    def _state(self, d: int, part: Part, state: State) -> State:
        """A state as a part sees it."""
        domain, one = self.parts[d]
        out: State = {WHOLE: state}
        for site, axes in one.dims.items():
            if (name := _named(site, domain)) in state:
                out[site] = state[name][part.items] if axes == ("item",) else state[name]
        if "item_vector" in state:
            out["item_vector"], out["item_mean"] = state["item_vector"][part.items], state["item_mean"][d : d + 1]
        return out | {key[len(f"{d}@") :]: x for key, x in state.items() if key.startswith(f"{d}@")}

    def _back(self, d: int, part: Part, new: State, state: State, table: Table) -> State:
        """What a part says of its state, in terms of all."""
        domain, one = self.parts[d]
        out: State = {}
        for site, x in new.items():
            if site in one.dims:
                name = _named(site, domain)
                out[name] = x
                if one.dims[site] == ("item",):
                    out[name] = np.zeros(table.n_items)
                    out[name][part.items] = x
            elif site in OF_MODELS:
                out[site] = state[site].copy()
                out[site][part.items if site == "item_vector" else slice(d, d + 1)] = x
            else:
                out[f"{d}@{site}"] = x
            if site == "response":
                out[site] = state[site].copy()
                out[site][part.rows] = x
        return out

    def _fitted(self, d: int, part: Part, table: Table, fitted: Fitted) -> Fitted:
        shape = table.n_users, table.n_domains, -1
        return Fitted(
            lambda state: fitted.errors(state[WHOLE])[d : d + 1],
            lambda state: fitted.eta(state[WHOLE])[part.rows],
            lambda state: np.ascontiguousarray(fitted.vectors(state[WHOLE]).reshape(shape)[:, d]),
        )

    def response(self, state: State, table: Table) -> np.ndarray:
        """Response of each row, in user order."""
        out = np.empty(len(table.user_value))
        for d, part in enumerate(table.parts):
            out[part.rows] = self.of(d).response(self._state(d, part, state), part.table)
        return out

    def working(self, state: State, table: Table, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Response and precision of each row, each by its part."""
        value, weight = np.empty((2, len(table.user_value)))
        for d, part in enumerate(table.parts):
            rows = part.rows if by == "user" else part.item_rows
            value[rows], weight[rows] = self.of(d).working(self._state(d, part, state), part.table, by)
        return value, weight

    def everywhere(
        self, state: State, table: Table, vectors: np.ndarray, members: list[np.ndarray] | None = None
    ) -> Everywhere | None:
        """What cells without a rating say in the domains where they count; nothing in the others."""
        if not self.whole:
            return None
        size = vectors.shape[1]
        precision, linear = np.zeros((table.n_domains, size, size)), np.zeros((table.n_domains, size))
        alike = True
        for d, part in enumerate(table.parts):
            others = vectors[part.items] if members is None else vectors
            mine = None if members is None else [members[d]]
            found = self.of(d).everywhere(self._state(d, part, state), part.table, others, mine)
            alike &= found is not None and found.alike
            if found is not None:
                precision[d], linear[d] = found.precision[0], found.linear[0]
        return Everywhere(precision, linear, alike)

    def present(self, table: Table) -> np.ndarray:
        """Users of whom the cells of a domain say something, each domain by its part."""
        return np.concatenate([self.of(d).present(part.table) for d, part in enumerate(table.parts)])

    def observed(self, state: State, table: Table, fitted: Fitted) -> tuple[np.ndarray, np.ndarray]:
        """A normal response and its precision, each by its part."""
        value, weight = np.empty((2, len(table.user_value)))
        for d, part in enumerate(table.parts):
            given = self._state(d, part, state), part.table, self._fitted(d, part, table, fitted)
            value[part.rows], weight[part.rows] = self.of(d).observed(*given)
        return value, weight

    def start(self, table: Table, rng: np.random.Generator) -> State:
        """Starting values of every part."""
        out: State = {}
        found = [self.of(d).start(part.table, rng) for d, part in enumerate(table.parts)]
        if any("response" in mine for mine in found):
            out["response"] = table.user_value.copy()
        for d, (part, mine) in enumerate(zip(table.parts, found, strict=True)):
            out |= self._back(d, part, mine, out, table)
        if "response" in out:
            out["response"] = self.response(out, table)
        return out

    def blocks(self, table: Table, fitted: Fitted) -> list[Block]:
        """The blocks of every part."""
        return [
            self._block(d, part, block, table)
            for d, part in enumerate(table.parts)
            for block in self.of(d).blocks(part.table, self._fitted(d, part, table, fitted))
        ]

    def _block(self, d: int, part: Part, block: Block, table: Table) -> Block:
        domain, one = self.parts[d]

        def update(state: State, rng: np.random.Generator) -> State:
            return self._back(d, part, block.update(self._state(d, part, state), rng), state, table)

        sites = tuple(_named(site, domain) if site in one.dims else site for site in block.sites)
        kept = tuple(site if site in (*OF_MODELS, "response", *self.dims) else f"{d}@{site}" for site in sites)
        return replace(block, name=_named(block.name, domain), sites=kept, update=update)

    def precision(self, latents: Latents) -> Tensor:
        """Refuse: parts whose ratings are normal and others stand side by side."""
        raise UnsupportedMethodError("ratings with a likelihood per domain are not all normal given the factors.")

    def log_density(self, state: State, table: Table, fitted: Fitted) -> float:
        """Sum over the parts."""
        return float(
            sum(
                self.of(d).log_density(self._state(d, part, state), part.table, self._fitted(d, part, table, fitted))
                for d, part in enumerate(table.parts)
            )
        )


def _named(name: str, domain: Any) -> str:
    return f"{name}_{domain}"


class _Renamed(Messenger):
    """Gives sample sites the domain in their names."""

    def __init__(self, domain: Any):
        super().__init__()
        self.domain = domain

    def _pyro_sample(self, msg: Any) -> None:
        msg["name"] = _named(msg["name"], self.domain)
