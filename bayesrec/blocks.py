"""Block: one conditional update of a Gibbs sampler. Models and likelihoods declare lists of them. Provisional."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Block", "State"]

State = dict[str, Any]


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
    """

    name: str
    sites: tuple[str, ...]
    update: Callable[[State, np.random.Generator], State]
    local: bool = False
