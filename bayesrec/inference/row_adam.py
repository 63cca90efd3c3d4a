"""Adam for tables of which a step touches some rows: moments and step counts are those of the row. Internal."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RowAdam"]

TINY = 1e-8


class RowAdam:
    """Adam (Kingma and Ba 2015) row by row. A row that is not touched costs nothing and stays as it is.

    Parameters
    ----------
    tables : list of Tensor, (row, ...)
        Are changed in place.
    decay : tuple of float
        Of the two moments.
    """

    def __init__(self, tables: list[Tensor], decay: tuple[float, float]):
        self.tables, self.decay = tables, decay
        self.first, self.second = ([torch.zeros_like(x) for x in tables] for _ in range(2))
        self.count = tables[0].new_zeros(len(tables[0]))

    def arrays(self) -> dict[str, Tensor]:
        """Tables, moments and counts by name."""
        out = {"count": self.count}
        for kind, tables in (("table", self.tables), ("first", self.first), ("second", self.second)):
            out |= {f"{kind}-{k}": x for k, x in enumerate(tables)}
        return out

    @torch.no_grad()
    def step(self, rows: Tensor | None, gradients: list[Tensor], rate: float) -> None:
        """Go down the gradients of some rows, or of all."""
        some = slice(None) if rows is None else rows
        self.count[some] += 1.0
        count, (fade, fade_squares) = self.count[some].unsqueeze(1), self.decay
        by_first, by_second = 1.0 - fade**count, 1.0 - fade_squares**count
        for table, first, second, gradient in zip(self.tables, self.first, self.second, gradients, strict=True):
            if not table.shape[1]:
                continue
            mean = first if rows is None else first.index_select(0, rows)
            square = second if rows is None else second.index_select(0, rows)
            mean.lerp_(gradient, 1.0 - fade)
            square.mul_(fade_squares).addcmul_(gradient, gradient, value=1.0 - fade_squares)
            move = (mean / by_first).div_((square / by_second).sqrt_().add_(TINY)).mul_(-rate)
            if rows is None:
                table.add_(move)
            else:
                first.index_copy_(0, rows, mean)
                second.index_copy_(0, rows, square)
                table.index_add_(0, rows, move)
