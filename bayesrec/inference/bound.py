"""The ELBO that SVI climbs, and the draws of what was fitted. Internal."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.inference.encoder import Encoded
from bayesrec.inference.guide import Guide, Prior, Taken
from bayesrec.inference.part import Part, Parts
from bayesrec.inference.start import warm_start
from bayesrec.inference.watch import Watch
from bayesrec.likelihoods import Latents
from bayesrec.models.base import Model, Schema
from bayesrec.models.features import item_loc
from bayesrec.sums import log_evidence, row_sums

__all__ = ["START_SWEEPS", "Bound", "ItemsIn", "ItemsOut", "bound_of"]

START_SWEEPS = 40
FACTORS = 10  # directions of a structured guide


class Bound(ABC):
    """The ELBO of one chain. Abstract."""

    items_out: bool

    def __init__(
        self,
        model: Model,
        schema: Schema,
        table: Table,
        rng: np.random.Generator,
        guide: str = "rows",
        sweeps: int = START_SWEEPS,
    ):
        self.model, self.schema, self.table = model, schema, table
        state, blocks = warm_start(model, table, rng, sweeps)
        self.blocks = {block.name: block for block in blocks}
        self.guide = Guide(
            model, schema, state, self._leaves(), guide != "mean_field", FACTORS if guide == "structured" else 0
        )
        if guide == "amortised":
            of = self.guide
            of.encode(Encoded(of.own, of.start, of.leaves, table, of.members["item"]))
        self.parts = Parts(schema, table)
        exponents = model.exponents(table.n_domains)
        self.power = None if exponents is None else torch.as_tensor(exponents, dtype=torch.get_default_dtype())

    def _leaves(self) -> dict[str, np.ndarray]:
        """Those of the model, and all users and items without ratings: a step may never come across them."""
        leaves = self.model.leaves(self.table)
        silent = {"user": (self.table.count == 0).all(0), "item": ~self.table.rated}
        for name, axes in self.model.dims.items():
            for axis in {"user", "item"} & set(axes):
                mask = silent[axis].reshape((1,) * axes.index(axis) + (-1,))
                leaves[name] = leaves[name] | mask if name in leaves else mask
        sizes = {"user": self.table.n_users, "item": self.table.n_items, "domain": self.table.n_domains}
        sizes["source"] = self.table.n_domains - 1
        for name, mask in leaves.items():
            axes = self.model.dims[name][: mask.ndim]
            leaves[name] = np.broadcast_to(mask, [sizes.get(a, n) for a, n in zip(axes, mask.shape, strict=True)])
        return leaves

    def on(self, device: str) -> Bound:
        """A copy that is computed on a device of torch; itself where it is there already."""
        if device == self.parts.device:
            return self
        out = copy.copy(self)
        out.guide, out.parts = self.guide.on(device), Parts(self.schema, self.table, device)
        out.power = None if self.power is None else self.power.to(device)
        return out

    @abstractmethod
    def part(self, share: float, rng: np.random.Generator) -> Part:
        """About this share of the ratings, at random."""

    @abstractmethod
    def ratings(self, latents: Latents, part: Part) -> Tensor:
        """Log density of the ratings of a part."""

    def elbo(self, part: Part, taken: Taken, noise: dict[str, Tensor] | None = None) -> Tensor:
        """An unbiased estimate, from a part of the ratings and one draw of the guide."""
        latents, volume = self.guide.sample(taken, part.weights, noise)
        prior = Prior(latents, self.guide.masks(taken), part.weights, self.model.dims, silent=self.guide.silent)
        return prior.run(self.model, part.schema).log_density + volume + part.scale * self.ratings(latents, part)

    def draw(
        self, n: int, rng: np.random.Generator, watch: Watch | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Draws (draw, *event) of every site; of each, (draw,), log density of the ratings, ELBO and importance ratio."""
        out: dict[str, list[np.ndarray]] = {name: [] for name in self.model.dims}
        stats: dict[str, list[float]] = {"log_density": [], "elbo": [], "log_ratio": []}
        whole, taken = self.parts.whole(), self.guide.take()
        with torch.no_grad():
            for _ in range(n):
                noise, excess = self.guide.noise(taken)
                latents, volume = self.guide.sample(taken, noise=noise)
                prior = Prior(latents, self.guide.leaves, silent=self.guide.silent).run(self.model, self.schema)
                elbo = prior.log_density + volume
                stats["elbo"].append(float(elbo + self.ratings(latents, whole)))
                stats["log_ratio"].append(stats["elbo"][-1] + excess)
                latents = Prior(latents, self.guide.leaves, draw=True).run(self.model, self.schema).latents
                state: State = {name: x.numpy().astype(np.float64) for name, x in latents.items()}
                if self.items_out:
                    state |= self.blocks["items"].update(state, rng)
                stats["log_density"].append(self.model.log_density(state, self.table))
                for name, draws in out.items():
                    draws.append(np.asarray(state[name], dtype=np.float32))
                if watch is not None:
                    watch.add(state)
        return {name: np.stack(x) for name, x in out.items()}, {name: np.array(x) for name, x in stats.items()}


class ItemsOut(Bound):
    """With the items integrated out: for ratings that are normal given the factors. A part is some items with all ratings."""

    items_out = True

    def _leaves(self) -> dict[str, np.ndarray]:
        return super()._leaves() | {"item_vector": np.ones(self.table.n_items, dtype=bool)}

    def part(self, share: float, rng: np.random.Generator) -> Part:
        """As many items as have that share of the ratings on average."""
        rated = self.parts.rated
        size = max(1, round(len(rated) * share))
        if size >= len(rated):
            return self.parts.whole()
        return self.parts.of_items(rated[np.sort(rng.choice(len(rated), size, replace=False))])

    def ratings(self, latents: Latents, part: Part) -> Tensor:
        """Log density of a part's ratings given users and hyperparameters."""
        table = part.table
        precision = self.model.likelihood.precision(latents).expand(table.n_domains, table.n_users).reshape(-1)
        domain = part.schema.item_domain
        power = None if self.power is None else self.power[:, None].expand(-1, table.n_users).reshape(-1)
        gram, linear, square = row_sums(
            self.model.raters(latents),
            precision if power is None else power * precision,
            np.arange(table.n_items),
            table.item_ptr,
            self.model.rater_index(table),
            table.item_cell,
            torch.from_numpy(table.item_value).to(precision.dtype).numpy(),
        )
        mean, sd = item_loc(latents, domain, table.item_x), latents["item_scale"].index_select(0, domain)
        level = 0.5 * (precision / (2.0 * torch.pi)).log() * (1.0 if power is None else power)
        count = torch.from_numpy(np.bincount(table.item_cell, minlength=len(level))).to(level)
        return log_evidence(mean, sd, gram, linear).sum() - 0.5 * square.sum() + (count * level).sum()


class ItemsIn(Bound):
    """With the items in the guide: for every likelihood of single ratings. A part is some ratings."""

    items_out = False

    def part(self, share: float, rng: np.random.Generator) -> Part:
        """That share of the ratings."""
        n = len(self.table.item_value)
        size = max(1, round(n * share))
        return self.parts.whole() if size >= n else self.parts.of_ratings(np.sort(rng.choice(n, size, replace=False)))

    def ratings(self, latents: Latents, part: Part) -> Tensor:
        """Log density of a part's ratings given all latents."""
        batch = part.batch
        law = self.model.likelihood.distribution(self.model.score(latents, batch), latents, batch)
        density = law.log_prob(
            torch.from_numpy(part.table.item_value).to(batch.domain.device, torch.get_default_dtype())
        )
        return (density if self.power is None else self.power[batch.domain] * density).sum()


def bound_of(
    model: Model,
    schema: Schema,
    table: Table,
    rng: np.random.Generator,
    guide: str,
    sweeps: int = START_SWEEPS,
) -> Bound:
    """The bound that goes with a guide's name, at the state of a few Gibbs sweeps."""
    out = guide in ("rows", "structured") and model.likelihood.normal
    return (ItemsOut if out else ItemsIn)(model, schema, table, rng, guide, sweeps)
