"""What the chains of a fit keep: draws of some sites, running moments of the others, log densities. Internal."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import numpy as np

from bayesrec.blocks import State
from bayesrec.errors import DataError
from bayesrec.models.base import Model

__all__ = ["ChainKept", "Kept", "Moments", "kept_sites"]


def kept_sites(model: Model, keep: tuple[str, ...] | None) -> list[str]:
    """Sites whose draws stay: all that have no axis of users or items, and of the others those in ``keep`` (None: all)."""
    large = [name for name, axes in model.dims.items() if {"user", "item"} & set(axes)]
    wrong = [name for name in keep or () if name not in large]
    if wrong:
        raise DataError(
            f"Gibbs(keep=...) chooses among {large}, not {wrong}; the other sites of {model!r} always stay."
        )
    return [name for name in model.dims if keep is None or name not in large or name in keep]


class Moments:
    """Running mean and sum of squared deviations (Welford 1962) of some arrays."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.n = 0
        self.mean = {name: np.zeros(shape) for name, shape in shapes.items()}
        self.squares = {name: np.zeros(shape) for name, shape in shapes.items()}

    def add(self, state: State) -> None:
        """Take in one draw."""
        self.n += 1
        for name, mean in self.mean.items():
            step = state[name] - mean
            mean += step / self.n
            self.squares[name] += step * (state[name] - mean)

    def sd(self, name: str) -> np.ndarray:
        """Standard deviation over the draws so far."""
        return np.sqrt(self.squares[name] / max(self.n, 1))


class ChainKept:
    """One chain's part: views of the draws, its moments, its log densities."""

    def __init__(self, draws: dict[str, np.ndarray], moments: Moments):
        self.n = 0
        self.draws = draws
        self.moments = moments
        self.log_density: list[float] = []

    def put(self, state: State, log_density: float) -> None:
        """Keep a draw."""
        for name, array in self.draws.items():
            array[self.n] = state[name]
        self.moments.add(state)
        self.log_density.append(log_density)
        self.n += 1


class Kept:
    """Room for the draws of all chains, (chain, draw, *event) float32, in memory or in files without a name.

    Parameters
    ----------
    state : dict
        Gives the shapes.
    sites, others : iterable of str
        What is kept draw by draw, and of what the moments are kept.
    chains, draws : int
    memory : float, optional
        Bytes; draws that take more go to temporary files, which the system deletes with the last array that needs them.
    """

    def __init__(
        self, state: State, sites: Iterable[str], others: Iterable[str], chains: int, draws: int, memory: float | None
    ):
        self.memory = float("inf") if memory is None else memory
        self.capacity = 0
        self.shapes = {name: np.shape(state[name]) for name in sites}
        self.draws = {name: np.empty((chains, 0, *shape), np.float32) for name, shape in self.shapes.items()}
        large = {name: np.shape(state[name]) for name in others}
        self.chains = [ChainKept({}, Moments(large)) for _ in range(chains)]
        self.grow(draws)

    def grow(self, draws: int) -> None:
        """Make room for at least so many draws a chain; what is there stays."""
        if draws <= self.capacity:
            return
        self.capacity = draws
        sizes = {name: (len(self.chains), draws, *shape) for name, shape in self.shapes.items()}
        small = 4 * sum(int(np.prod(size)) for size in sizes.values()) <= self.memory
        for name, size in sizes.items():
            old, new = self.draws[name], np.empty(size, np.float32) if small else _on_disk(size)
            new[:, : old.shape[1]] = old
            self.draws[name] = new
        for c, chain in enumerate(self.chains):
            chain.draws = {name: array[c] for name, array in self.draws.items()}

    def arrays(self, chains: list[int], draws: int) -> dict[str, np.ndarray]:
        """The first draws of some chains; without a copy if these are all chains."""
        every = chains == list(range(len(self.chains)))
        return {name: x[:, :draws] if every else x[chains, :draws] for name, x in self.draws.items()}

    def moments(self, name: str, chains: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd of a site, each (chain, *event) float32."""
        parts = [self.chains[c].moments for c in chains]
        mean, sd = [part.mean[name] for part in parts], [part.sd(name) for part in parts]
        return np.stack(mean).astype(np.float32), np.stack(sd).astype(np.float32)


def _on_disk(shape: tuple[int, ...]) -> np.ndarray:
    """An array in a temporary file; without entries it stays in memory."""
    if not np.prod(shape):
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(prefix="bayesrec-") as file:
        return np.memmap(file, np.float32, "w+", shape=shape)
