"""SVI: a Gaussian approximation of the posterior, fitted by stochastic gradients of the ELBO."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import warnings

import numpy as np
import torch
from torch import Tensor

from bayesrec.conjugate import Table
from bayesrec.data import Interactions
from bayesrec.errors import ConvergenceWarning, DataError, SamplingError, UnsupportedMethodError
from bayesrec.inference.base import Method
from bayesrec.inference.guide import Guide, Prior
from bayesrec.inference.progress import Progress
from bayesrec.models.base import Batch, Model, Schema
from bayesrec.models.evidence import log_evidence
from bayesrec.posterior import Posterior
from bayesrec.sums import row_sums

__all__ = ["SVI"]

LAST_RATE = 0.02  # the learning rate falls along a cosine to this share of its start
START_SWEEPS = 40  # of Gibbs, to start where the factors are awake: near zero they stay asleep for long


@dataclass(frozen=True)
class SVI(Method):
    steps: int = 3000
    batch_size: int | None = None
    learning_rate: float = 0.02
    draws: int = 500
    chains: int = 1

    def run(self, model, data, schema, seed, progress, checkpoint=None):
        table = schema.table(data)
        kept = []
        with Progress("SVI", self.chains * self.steps, progress) as bar, torch.random.fork_rng(devices=[]):
            for c in range(self.chains):
                rng = np.random.default_rng([seed, c])
                torch.manual_seed(int(rng.integers(2**62)))
                bound = Bound(model, schema, table, rng)
                self.bounds.append(bound) if hasattr(self,'bounds') else None
                self._optimise(bound, rng, bar)
                kept.append(bound.draw(self.draws, rng))
        draws = {name: np.stack([k[name] for k in kept]) for name in model.dims}
        return Posterior(draws, model, self, data, schema, {})

    def _optimise(self, bound, rng, bar):
        optimiser = torch.optim.Adam(bound.guide.parameters, lr=self.learning_rate, betas=(0.9, 0.99))
        for step in range(self.steps):
            share = 0.5 * (1 + np.cos(np.pi * step / self.steps))
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * (LAST_RATE + (1 - LAST_RATE) * share)
            optimiser.zero_grad()
            loss = -bound.elbo()
            if step % 100 == 0: self.trace.append(loss.item()) if hasattr(self,'trace') else None
            loss.backward()
            optimiser.step()
            bar.advance()


class Bound:
    def __init__(self, model, schema, table, rng):
        self.model, self.schema, self.table = model, schema, table
        blocks = model.blocks(table)
        state = model.start(table, rng)
        members = next((k for k, block in enumerate(blocks) if block.local), 0)
        for sweep in range(START_SWEEPS):
            for block in blocks[members if sweep == 0 else 0 :]:
                state |= block.update(state, rng)
        self.blocks, self.first = blocks, members
        self.extra = {k: v for k, v in state.items() if k not in model.dims}
        self.items = next(block for block in blocks if block.name == "items")
        leaves = model.leaves(table)
        leaves["item_vector"] = np.ones(table.n_items, dtype=bool)
        self.guide = Guide(model, schema, state, leaves)
        domain = table.item_domain[table.item_of]
        self.weight_of = torch.from_numpy(domain * table.n_users + table.item_user)
        self.index = model.rater_index(table)
        self.value = table.item_value.astype(np.float32)
        self.rated = np.flatnonzero(table.rated)

    def elbo(self):
        latents, volume = self.guide.sample()
        prior = Prior(latents, self.guide.leaves).run(self.model, self.schema).log_density
        return prior + volume + self.evidence(latents, self.rated)

    def evidence(self, latents, items):
        table = self.table
        precision = self.model.likelihood.precision(latents).expand(table.n_domains, table.n_users)
        weight = precision.reshape(-1).index_select(0, self.weight_of)
        gram, linear, square = row_sums(self.model.raters(latents), weight, items, table.item_ptr, self.index, self.value)
        domain = torch.from_numpy(table.item_domain[items])
        mean, sd = latents["item_mean"].index_select(0, domain), latents["item_scale"].index_select(0, domain)
        return log_evidence(mean, sd, gram, linear).sum() - 0.5 * square.sum() + 0.5 * (weight.log().sum())

    def draw(self, n, rng):
        out = {name: [] for name in self.model.dims}
        with torch.no_grad():
            for _ in range(n):
                latents, _ = self.guide.sample()
                latents = Prior(latents, self.guide.leaves, draw=True).run(self.model, self.schema).latents
                state = self.extra | {name: x.numpy().astype(np.float64) for name, x in latents.items()}
                state |= self.items.update(state, rng)
                if SW:
                    for k in range(SW):
                        for b in self.blocks[self.first if k == 0 else 0:]:
                            state |= b.update(state, rng)
                for name in out:
                    out[name].append(state[name].astype(np.float32))
        return {name: np.stack(x) for name, x in out.items()}

SW = 0
