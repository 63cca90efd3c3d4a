"""SVI: a Gaussian approximation of the posterior, fitted by stochastic gradients of the ELBO."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bayesrec.blocks import State
from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.data.batch import Batch as Rows
from bayesrec.errors import ConvergenceWarning, SamplingError, UnsupportedMethodError
from bayesrec.inference.base import Method, needs_gibbs, positive_number, whole_number
from bayesrec.inference.guide import Guide, Prior
from bayesrec.inference.progress import Progress
from bayesrec.inference.start import warm_start
from bayesrec.likelihoods import Latents
from bayesrec.models.base import Batch, Model, Schema
from bayesrec.models.features import item_loc
from bayesrec.posterior import Posterior
from bayesrec.sums import log_evidence, row_sums

__all__ = ["SVI", "warn_if_asleep"]

LAST_RATE = 0.02  # the learning rate falls along a cosine to this share of its start
START_SWEEPS = 40
ASLEEP = 0.03  # sd of p . q over the target's rows, in rating sds, below which the factors say nothing


@dataclass(frozen=True)
class SVI(Method):
    """Stochastic variational inference. Provisional.

    Items are integrated out in closed form; hyperparameters are independent normals on the unconstrained scale; all
    that belongs to one user is one normal with a full covariance. Draws of the users bring exact conditional draws of
    the items. Spreads are narrower than those of Gibbs: docs/methods.md says by how much.

    Parameters
    ----------
    steps : int
        Gradient steps (Adam) of each chain.
    batch_size : int, optional
        Ratings a step, about: as many items at random as have that many ratings on average. All by default.
    learning_rate : float
        At the start; it falls along a cosine to a fiftieth.
    draws : int
        Draws from each fitted approximation.
    chains : int
        Fits from different starts, whose draws are pooled: they end in different modes, as Gibbs's chains do.

    Notes
    -----
    The draws of a chain are independent, so R-hat compares the fits of different chains and says nothing with one.

    Examples
    --------
    >>> SVI(steps=500).chains
    4
    """

    steps: int = 1000
    batch_size: int | None = None
    learning_rate: float = 0.02
    draws: int = 250
    chains: int = 4

    def __post_init__(self) -> None:
        for name in ("steps", "draws", "chains"):
            object.__setattr__(self, name, whole_number(self, name, 1))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", whole_number(self, "batch_size", 1))
        object.__setattr__(self, "learning_rate", positive_number(self, "learning_rate"))

    def run(
        self,
        model: Model,
        data: Interactions,
        schema: Schema,
        seed: int,
        progress: bool,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
        watch: Rows | None = None,
    ) -> Posterior:
        """Fit one chain after another; Ctrl-C stops climbing and keeps what was reached."""
        needs_gibbs(self, checkpoint, device, watch)
        if not model.likelihood.svi:
            raise UnsupportedMethodError(
                f"SVI fits likelihoods whose ratings are normal given the factors so far, not {model.likelihood!r}; use Gibbs."
            )
        table = schema.table(data)
        kept: list[dict[str, np.ndarray]] = []
        stats: list[np.ndarray] = []
        interrupted = False
        with Progress("SVI", self.chains * self.steps, progress) as bar, torch.random.fork_rng(devices=[]):
            for c in range(self.chains):
                rng = np.random.default_rng([seed, c])
                torch.manual_seed(int(rng.integers(2**62)))
                bound = Bound(model, schema, table, rng)
                steps = 0
                try:
                    for step in self._climb(bound, rng):
                        steps = step
                        bar.advance()
                except KeyboardInterrupt:
                    interrupted = True
                    if kept and steps < self.steps // 2:
                        break  # the chains before are better without this one
                draws, log_density = bound.draw(self.draws, rng)
                kept.append(draws)
                stats.append(log_density)
                if interrupted:
                    break
        if interrupted:
            warnings.warn(
                f"interrupted: kept {len(kept)} of {self.chains} chains, the last after {steps} of {self.steps} steps.",
                ConvergenceWarning,
                stacklevel=3,
            )
        everything = {name: np.stack([draws[name] for draws in kept]) for name in model.dims}
        posterior = Posterior(everything, model, self, data, schema, {"log_density": np.stack(stats)})
        warn_if_asleep(posterior)
        return posterior

    def _climb(self, bound: Bound, rng: np.random.Generator):
        """Take the gradient steps, one for each number yielded."""
        optimiser = torch.optim.Adam(bound.guide.parameters, lr=self.learning_rate, betas=(0.9, 0.99))
        n_items, n_rows = len(bound.rated), len(bound.value)
        size = n_items if self.batch_size is None else max(1, round(n_items * min(1.0, self.batch_size / n_rows)))
        for step in range(self.steps):
            share = 0.5 * (1.0 + np.cos(np.pi * step / self.steps))
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * (LAST_RATE + (1.0 - LAST_RATE) * share)
            items = bound.rated if size == n_items else np.sort(rng.choice(bound.rated, size, replace=False))
            optimiser.zero_grad()
            elbo = bound.elbo(items)
            if not torch.isfinite(elbo):
                raise SamplingError(f"the ELBO is not finite at step {step}; try a lower learning_rate.")
            (-elbo).backward()
            optimiser.step()
            yield step + 1


class Bound:
    """The ELBO of one chain with the items integrated out, and the draws of what was fitted. Internal."""

    def __init__(self, model: Model, schema: Schema, table: Table, rng: np.random.Generator):
        self.model, self.schema, self.table = model, schema, table
        state, blocks = warm_start(model, table, rng, START_SWEEPS)
        self.items = next(block for block in blocks if block.name == "items")
        leaves = model.leaves(table) | {"item_vector": np.ones(table.n_items, dtype=bool)}
        self.guide = Guide(model, schema, state, leaves)
        self.index = model.rater_index(table)
        self.item_x = None if table.item_x is None else table.item_x.astype(np.float32)
        self.value = table.item_value.astype(np.float32)
        self.rated = np.flatnonzero(table.rated)

    def elbo(self, items: np.ndarray) -> Tensor:
        """An unbiased estimate, up to a constant of the data, from one draw of the guide and the rows of ``items``."""
        latents, volume = self.guide.sample()
        prior = Prior(latents, self.guide.leaves).run(self.model, self.schema).log_density
        return prior + volume + self.evidence(latents, items)

    def evidence(self, latents: Latents, items: np.ndarray) -> Tensor:
        """Log density of all ratings given users and hyperparameters, scaled up from those of ``items``."""
        table = self.table
        precision = self.model.likelihood.precision(latents).expand(table.n_domains, table.n_users)
        exponents = self.model.exponents(table.n_domains)
        power = torch.ones(()) if exponents is None else torch.as_tensor(exponents, dtype=precision.dtype)[:, None]
        gram, linear, square = row_sums(
            self.model.raters(latents),
            (power * precision).reshape(-1),
            items,
            table.item_ptr,
            self.index,
            table.item_cell,
            self.value,
        )
        domain = torch.from_numpy(table.item_domain[items])
        mean = item_loc(latents, domain, None if self.item_x is None else self.item_x[items])
        sd = latents["item_scale"].index_select(0, domain)
        part = log_evidence(mean, sd, gram, linear).sum() - 0.5 * square.sum()
        constant = 0.5 * (torch.from_numpy(table.count) * power * (precision / (2.0 * torch.pi)).log()).sum()
        return len(self.rated) / len(items) * part + constant

    def draw(self, n: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Draws (draw, *event) of every site and the log density of the ratings (draw,)."""
        out: dict[str, list[np.ndarray]] = {name: [] for name in self.model.dims}
        stats = []
        with torch.no_grad():
            for _ in range(n):
                latents, _ = self.guide.sample()
                latents = Prior(latents, self.guide.leaves, draw=True).run(self.model, self.schema).latents
                state: State = {name: x.numpy().astype(np.float64) for name, x in latents.items()}
                state |= self.items.update(state, rng)
                stats.append(self.model.log_density(state, self.table))
                for name, draws in out.items():
                    draws.append(np.asarray(state[name], dtype=np.float32))
        return {name: np.stack(x) for name, x in out.items()}, np.array(stats)


def warn_if_asleep(posterior: Posterior) -> None:
    """Say so if in a fit the factors explain nothing in the target, beyond what users' and items' means do."""
    data = posterior.data.mask(posterior.data.is_target)
    user, item, domain = (torch.from_numpy(np.array(x)) for x in (data.user, data.item, data.domain))
    spreads = []
    for c in range(posterior.n_chains):
        latents = {name: torch.as_tensor(x[c, 0]) for name, x in posterior.draws.items()}
        left, right = posterior.model.vectors(latents, Batch(user, item, domain))
        part = (left[:, 1:] * right[:, 1:]).sum(-1).numpy().astype(float)
        for codes in (data.user, data.item):
            count = np.bincount(codes)
            part = part - (np.bincount(codes, part) / np.maximum(count, 1))[codes]
        spreads.append(float(part.std()))
    asleep = sum(spread < ASLEEP for spread in spreads)
    if asleep:
        warnings.warn(
            f"the factors explain nothing in {asleep} of {len(spreads)} fits: p . q has an sd of {min(spreads):.3f} rating "
            "sds over the target's rows. Either the ratings have no such structure or the approximation collapsed to the bias "
            "model; another seed or, for SVI, more steps and a lower learning_rate tell, and Gibbs does not collapse.",
            ConvergenceWarning,
            stacklevel=4,
        )
