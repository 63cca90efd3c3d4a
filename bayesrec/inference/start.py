"""Where iterative methods start: the state of a few Gibbs sweeps. Internal."""

from __future__ import annotations

import numpy as np

from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.models.base import Model

__all__ = ["first_block", "warm_start"]


def first_block(blocks: list[Block]) -> int:
    """Where the first sweep begins: at the members.

    Populations and maps learned from a random start would forget what ties the domains.
    """
    return next((k for k, block in enumerate(blocks) if block.local), 0)


def warm_start(model: Model, table: Table, rng: np.random.Generator, sweeps: int) -> tuple[State, list[Block]]:
    """State after some sweeps from ``model.start``, and the blocks. Near zero factors stay asleep for long."""
    blocks, state = [block for block in model.blocks(table) if block.swept], model.start(table, rng)
    for sweep in range(sweeps):
        for block in blocks[first_block(blocks) if sweep == 0 else 0 :]:
            state |= block.update(state, rng)
    return state, blocks
