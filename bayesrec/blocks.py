"""Block: one conditional update of a Gibbs sampler. Models and likelihoods declare lists of them. Provisional."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Block", "State", "remembered"]

State = dict[str, Any]


def remembered(function: Callable[[State], np.ndarray], sites: tuple[str, ...]) -> Callable[[State], np.ndarray]:
    """The same function of a state, computed anew only when one of the sites is another array than at the last call.

    Updates never change an array in place, so an array that is the same object has the same values. Each thread has a memory
    of its own: chains that run side by side share the function.
    """
    last = threading.local()

    def call(state: State) -> np.ndarray:
        seen, now = getattr(last, "seen", ()), tuple(state.get(name) for name in sites)
        if len(seen) != len(now) or any(a is not b for a, b in zip(seen, now, strict=True)):
            last.value, last.seen = function(state), now
        return last.value

    return call


@dataclass(frozen=True)
class Block:
    """One exact draw from a conditional distribution.

    Attributes
    ----------
    name : str
        Named in errors.
    sites : tuple of str
        What ``update`` returns (auxiliary variables may come along).
    update : callable
        ``update(state, rng) -> dict`` of new values; the state itself is not changed.
    local : bool
        True if the block touches nothing but the latents of each single user, given all else. The local blocks are
        what ``fold_in`` runs for a user who was not in the fit.
    swept : bool
        False if a sweep has this update within another block, so that ``fold_in`` alone runs it.
    """

    name: str
    sites: tuple[str, ...]
    update: Callable[[State, np.random.Generator], State]
    local: bool = False
    swept: bool = True
