"""SVI: a Gaussian approximation of the posterior, fitted by stochastic gradients of the ELBO."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bayesrec.data import Interactions
from bayesrec.data.batch import Batch as Rows
from bayesrec.errors import ConvergenceWarning, DataError, SamplingError, UnsupportedMethodError
from bayesrec.inference.base import Method, needs_gibbs, positive_number, whole_number
from bayesrec.inference.bound import Bound, bound_of
from bayesrec.inference.progress import Progress
from bayesrec.inference.row_adam import RowAdam
from bayesrec.models.base import Batch, Model, Schema
from bayesrec.posterior import Posterior

__all__ = ["SVI", "warn_if_asleep"]

LAST_RATE = 0.02  # the share of the learning rate at which a fit ends
DECAY = (0.9, 0.99)  # of Adam's moments
SHOWN = 0.05  # what a step counts in the ELBO that the progress bar shows
ASLEEP = 0.03  # sd of p . q over the target's rows, in rating sds, below which the factors say nothing
TOGETHER = 2**18  # rows that are looked at at once
GUIDES = ("rows", "mean_field")


@dataclass(frozen=True)
class SVI(Method):
    """Stochastic variational inference. Provisional.

    Hyperparameters are independent normals on the unconstrained scale; all that belongs to one user is one normal. Where ratings
    are normal given the factors (Gaussian) items are integrated out in closed form, and draws of the users bring exact
    conditional draws of the items; under other likelihoods every item is a normal too. A step touches the users and items of its
    batch alone, so its cost does not grow with the tables. Spreads are narrower than those of Gibbs: docs/methods.md says by how
    much.

    Parameters
    ----------
    steps : int
        Gradient steps (Adam) of each chain.
    batch_size : int, optional
        Ratings a step, about; at random. Where items are integrated out they are all ratings of some items. All by default.
    learning_rate : float
        At the start; it falls along a cosine to a fiftieth.
    draws : int
        Draws from each fitted approximation.
    chains : int
        Fits from different starts, whose draws are pooled: they end in different modes, as Gibbs's chains do.
    guide : {"rows", "mean_field"}
        What is fitted: a full covariance for each user (and item), or everything independent, items included.

    Notes
    -----
    The draws of a chain are independent, so R-hat compares the fits of different chains and says nothing with one.
    ``posterior.stats``, and so ``diagnostics()``, has beside ``log_density`` an ``elbo``, an estimate from each draw: its
    mean over a chain's draws is that chain's ELBO (ratings as the model sees them, in sd units for a Gaussian).

    References
    ----------
    Hoffman, M. D. et al. (2013). Stochastic variational inference. Journal of Machine Learning Research 14.
    Kucukelbir, A. et al. (2017). Automatic differentiation variational inference. Journal of Machine Learning Research 18.

    Examples
    --------
    >>> SVI(steps=500).chains
    4
    >>> SVI(guide="mean_field", batch_size=10_000).steps
    1000
    """

    steps: int = 1000
    batch_size: int | None = None
    learning_rate: float = 0.02
    draws: int = 250
    chains: int = 4
    guide: str = "rows"

    def __post_init__(self) -> None:
        for name in ("steps", "draws", "chains"):
            object.__setattr__(self, name, whole_number(self, name, 1))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", whole_number(self, "batch_size", 1))
        object.__setattr__(self, "learning_rate", positive_number(self, "learning_rate"))
        if self.guide not in GUIDES:
            raise DataError(f"SVI(guide=...) must be one of {', '.join(map(repr, GUIDES))}, not {self.guide!r}")

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
                f"SVI multiplies densities of rows, and {model.likelihood!r} counts all cells; br.Gibbs() fits it."
            )
        table = schema.table(data)
        kept: list[dict[str, np.ndarray]] = []
        stats: list[dict[str, np.ndarray]] = []
        interrupted = False
        with Progress("SVI", self.chains * self.steps, progress) as bar, torch.random.fork_rng(devices=[]):
            for c in range(self.chains):
                rng = np.random.default_rng([seed, c])
                torch.manual_seed(int(rng.integers(2**62)))
                bound, steps = bound_of(model, schema, table, rng, self.guide), 0
                try:
                    for step, elbo in self._climb(bound, rng):
                        steps = step
                        bar.advance()
                        bar.say(f"{elbo / len(data):.3f} nats a rating")
                except KeyboardInterrupt:
                    interrupted = True
                    if kept and steps < self.steps // 2:
                        break  # the chains before are better without this one
                draws, one = bound.draw(self.draws, rng)
                kept.append(draws)
                stats.append(one)
                if interrupted:
                    break
        if interrupted:
            warnings.warn(
                f"interrupted: kept {len(kept)} of {self.chains} chains, the last after {steps} of {self.steps} steps.",
                ConvergenceWarning,
                stacklevel=3,
            )
        everything = {name: np.stack([draws[name] for draws in kept]) for name in model.dims}
        of_chains = {name: np.stack([one[name] for one in stats]) for name in stats[0]}
        posterior = Posterior(everything, model, self, data, schema, of_chains)
        warn_if_asleep(posterior)
        return posterior

    def _climb(self, bound: Bound, rng: np.random.Generator) -> Iterator[tuple[int, float]]:
        """Take gradient steps: their number so far, and a moving average of the ELBO."""
        guide = bound.guide
        alone = torch.optim.Adam(guide.parameters, lr=self.learning_rate, betas=DECAY)
        rows = {axis: RowAdam(members.tables, DECAY) for axis, members in guide.members.items()}
        n = len(bound.table.item_value)
        share = 1.0 if self.batch_size is None else min(1.0, self.batch_size / n)
        mean = float("nan")
        for step in range(self.steps):
            cosine = 0.5 * (1.0 + np.cos(np.pi * step / self.steps))
            fall = LAST_RATE + (1.0 - LAST_RATE) * cosine
            part = bound.part(share, rng)
            taken = guide.take(part.rows)
            elbo = bound.elbo(part, taken)
            if not torch.isfinite(elbo):
                raise SamplingError(f"the ELBO is not finite at step {step}; try a lower learning_rate.")
            alone.zero_grad()
            (-elbo).backward()
            for group in alone.param_groups:
                group["lr"] = self.learning_rate * fall
            alone.step()
            for axis, optimiser in rows.items():
                gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in taken.tensors[axis]]
                optimiser.step(part.rows.get(axis), gradients, self.learning_rate * fall)
            mean = elbo.item() if step == 0 else mean + SHOWN * (elbo.item() - mean)
            yield step + 1, mean


def warn_if_asleep(posterior: Posterior) -> None:
    """Say so if in a fit the factors explain nothing in the target, beyond what users' and items' means do."""
    data = posterior.data.mask(posterior.data.is_target)
    codes = [np.array(x) for x in (data.user, data.item, data.domain)]
    spreads = []
    for c in range(posterior.n_chains):
        latents = {name: torch.as_tensor(x[c, 0]) for name, x in posterior.draws.items()}
        part = np.empty(len(data))
        for first in range(0, len(part), TOGETHER):
            rows = slice(first, first + TOGETHER)
            batch = Batch(*(torch.from_numpy(x[rows]) for x in codes))
            left, right = posterior.model.vectors(latents, batch)
            part[rows] = (left[:, 1:] * right[:, 1:]).sum(-1).numpy()
        for side in codes[:2]:
            count = np.bincount(side)
            part = part - (np.bincount(side, part) / np.maximum(count, 1))[side]
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
