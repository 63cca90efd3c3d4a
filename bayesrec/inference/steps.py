"""The gradient steps of one chain of SVI, and when they have been enough. Internal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from arviz_stats.base import array_stats

from bayesrec.errors import SamplingError
from bayesrec.inference.asleep import ASLEEP, of_factors
from bayesrec.inference.bound import Bound
from bayesrec.inference.climb import Climb
from bayesrec.inference.row_adam import RowAdam
from bayesrec.inference.watch import Watch

__all__ = ["Steps", "rises"]

LAST_RATE = 0.02  # the share of the learning rate at which a fit ends
DECAY = (0.9, 0.99)  # of Adam's moments
SLOW = 0.1  # of the rate: many directions that wander add up
SHOWN = 0.05  # what a step counts in the ELBO that the progress bar shows
LOOK = 50  # steps between two looks at the trend
GLANCES = 20  # at the rows that are watched, in a whole climb
ENOUGH = 50  # draws that tell the shape of a tail


def rises(elbos: np.ndarray) -> tuple[float, float]:
    """Gain in 100 steps by a straight line through ELBOs (step,), and its standard error."""
    x = np.arange(len(elbos)) - 0.5 * (len(elbos) - 1)
    slope = x @ elbos / (x @ x)
    left = elbos - elbos.mean() - slope * x
    return 100.0 * slope, 100.0 * np.sqrt(left @ left / max(len(elbos) - 2, 1) / (x @ x))


class Steps(Climb):
    """Adam at one rate until the ELBO stands, then along a cosine to almost nothing.

    Parameters
    ----------
    method : SVI
    bound : Bound
    n : int
        Number of ratings.
    watch : Watch, optional
        Held-out rows that the progress bar has a look at, a few draws at a time.
    device : str
        Where the gradients are computed. What is drawn is drawn on the CPU.
    """

    def __init__(
        self,
        method: Any,
        bound: Bound,
        n: int,
        rng: np.random.Generator,
        watch: Watch | None = None,
        device: str = "cpu",
    ):
        super().__init__(method.steps, rng)
        bound = bound.on(device)
        self.method, self.bound, self.n, self.watch, self.device = method, bound, n, watch, device
        slow = [x for x in bound.guide.parameters if x is bound.guide.factor]
        groups = [{"params": [x for x in bound.guide.parameters if x is not bound.guide.factor], "share": 1.0}]
        groups += [{"params": slow, "share": SLOW}] if slow else []
        self.alone = torch.optim.Adam(groups, lr=method.learning_rate, betas=DECAY)
        self.rows = {axis: RowAdam(x.tables, DECAY) for axis, x in bound.guide.members.items() if x.tables}
        ratings = len(bound.table.item_value)
        self.share = 1.0 if method.batch_size is None else min(1.0, method.batch_size / ratings)
        self.elbos: list[float] = []
        self.shown, self.held_out = float("nan"), ""
        self.cooling = self.most  # the step from which the rate falls
        self.end = self.most
        self.latest = self.most - self.most // 3
        self.awake = self._spread(bound.on("cpu").guide.start)  # what the factors explain at the start

    @property
    def usable(self) -> bool:
        """Half-way, or where the ELBO stands."""
        return self.taken >= min(self.most // 2, self.cooling)

    @property
    def collapsed(self) -> bool:
        """Whether the factors of the start explained something, and those of the end do not."""
        if self.awake < ASLEEP:
            return False
        with self._aside():
            draws, _ = self.bound.on("cpu").draw(1, np.random.default_rng(self.taken))
        return self._spread({name: torch.as_tensor(x[0]) for name, x in draws.items()}) < ASLEEP

    def _spread(self, latents: dict[str, torch.Tensor]) -> float:
        """What the factors explain in the target."""
        table = self.bound.table
        target = table.user_domain == table.n_domains - 1
        codes = [x[target].astype(np.int64) for x in (table.user_of, table.user_item, table.user_domain)]
        return of_factors(self.bound.model, latents, codes)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """A look whose random numbers are no part of the fit."""
        state = torch.get_rng_state()
        try:
            yield
        finally:
            torch.set_rng_state(state)

    @contextmanager
    def _there(self) -> Iterator[None]:
        """What models make goes to the device; on a GPU nothing is checked, as every check would wait for it."""
        if self.device == "cpu":
            yield
            return
        with torch.device(self.device), pyro.validation_enabled(False):
            yield

    def advance(self) -> None:
        """Take a gradient step."""
        guide, part, rate = self.bound.guide, self.bound.part(self.share, self.rng), self._rate()
        self.alone.zero_grad()
        with self._there():
            taken = guide.take(part.rows)
            elbo = self.bound.elbo(part, taken)
            (-elbo).backward()
        if not torch.isfinite(elbo):
            raise SamplingError(f"the ELBO is not finite at step {self.taken}; try a lower learning_rate.")
        for group in self.alone.param_groups:
            group["lr"] = rate * group["share"]
        self.alone.step()
        for axis, optimiser in self.rows.items():
            gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in taken.tensors[axis]]
            optimiser.step(part.rows.get(axis), gradients, rate)
        self.taken += 1
        self.elbos.append(elbo.item())
        self.shown = self.elbos[-1] if self.taken == 1 else self.shown + SHOWN * (self.elbos[-1] - self.shown)
        self._look()

    def _rate(self) -> float:
        """Learning rate of the next step."""
        if self.taken < self.cooling:
            return self.method.learning_rate
        cosine = 0.5 * (1.0 + np.cos(np.pi * (self.taken - self.cooling) / max(self.end - self.cooling, 1)))
        return self.method.learning_rate * (LAST_RATE + (1.0 - LAST_RATE) * cosine)

    def _look(self) -> None:
        """Begin to lower the rate where the ELBO stands, or where time runs out."""
        if self.taken < self.cooling and self.taken < self.latest:
            if self.taken >= 2 * LOOK and self.taken % LOOK == 0:
                gain, error = rises(np.array(self.elbos[self.taken // 2 :]))
                if gain + 2.0 * error < self.method.tolerance * self.n:
                    self.cooling, self.end = self.taken, min(self.most, self.taken + max(LOOK, self.taken // 2))
        elif self.taken == self.latest and self.cooling == self.most:
            self.cooling = self.taken
        self.settled = self.end < self.most and self.taken >= self.end

    def words(self) -> str:
        """The ELBO, and now and then the log score of the rows that are watched."""
        if self.watch is not None and self.taken % max(1, self.most // GLANCES) == 0:
            self.held_out = f", {self._glance():.3f} held out"
        return f"{self.shown / self.n:.3f} nats a rating{self.held_out}"

    def _glance(self) -> float:
        """Mean log score of the watched rows under a few draws."""
        assert self.watch is not None
        look = Watch(self.watch.model, self.watch.schema, self.watch.batch)
        with self._aside():
            self.bound.on("cpu").draw(5, np.random.default_rng(self.taken), look)
        look.settle()
        return float((look.sums[3] - np.log(look.n)).mean())

    def state(self) -> dict[str, np.ndarray]:
        """Parameters, moments of Adam, the trace and torch's generator."""
        out = {"elbos": np.array(self.elbos), "shown": np.array(self.shown), "torch": torch.get_rng_state().numpy()}
        out |= {"plan": np.array([self.cooling, self.end]), "awake": np.array(self.awake)}
        for k, x in enumerate(self.bound.guide.parameters):
            out[f"alone-{k}"] = x.detach().cpu().numpy()
            for name, moment in self.alone.state[x].items():
                out[f"alone-{k}-{name}"] = moment.cpu().numpy()
        for axis, optimiser in self.rows.items():
            for name, x in optimiser.arrays().items():
                out[f"{axis}-{name}"] = x.cpu().numpy()
        return out

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Put all of it back."""
        self.elbos, self.shown, self.awake = state["elbos"].tolist(), float(state["shown"]), float(state["awake"])
        self.cooling, self.end = (int(x) for x in state["plan"])
        with torch.no_grad():
            for k, x in enumerate(self.bound.guide.parameters):
                x.copy_(torch.from_numpy(state[f"alone-{k}"]))
                names = {key.rsplit("-", 1)[1] for key in state if key.startswith(f"alone-{k}-")}
                moments = {name: torch.from_numpy(state[f"alone-{k}-{name}"]).clone() for name in names}
                # Adam counts its steps on the CPU
                self.alone.state[x] = {name: y if name == "step" else y.to(x.device) for name, y in moments.items()}
            for axis, optimiser in self.rows.items():
                for name, x in optimiser.arrays().items():
                    x.copy_(torch.from_numpy(state[f"{axis}-{name}"]))
        torch.set_rng_state(torch.from_numpy(state["torch"]))

    def draw(self, watch: Watch | None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Draws of every site, and the stats: with enough draws the Pareto shape of the whole fit, the same for all."""
        draws, stats = self.bound.on("cpu").draw(self.method.draws, self.rng, watch)
        ratios = stats.pop("log_ratio")
        if len(ratios) >= ENOUGH:
            stats["khat"] = np.full(len(ratios), float(array_stats.psislw(-ratios)[1]))  # it takes the negative
        return draws, stats
