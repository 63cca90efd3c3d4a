"""What one step of SVI looks at: some ratings, and the users and items whom they are about. Internal.

A part stands for the whole table: its ratings count ``scale`` times, and the prior and entropy of each user and item in it
count one over the probability that a part of this size has any rating of theirs (Horvitz and Thompson 1952). Weights that follow
the share of their ratings are unbiased too; benchmarks/svi_steps.py prints that their gradient has more noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesrec.conjugate import Table
from bayesrec.models.base import Batch, Schema

__all__ = ["Part", "Parts"]


@dataclass(frozen=True)
class Part:
    """Some ratings.

    Attributes
    ----------
    scale : float
        What each rating counts.
    rows : dict
        Codes of the users and items of these ratings; None for all there are.
    weights : dict
        What the prior and entropy of each of them counts.
    schema : Schema
        With these users and items alone.
    table : Table
        The ratings by item, in the codes of the part; what is sorted by user stands for nothing.
    """

    scale: float
    rows: dict[str, Tensor | None]
    weights: dict[str, Tensor]
    schema: Schema
    table: Table

    @property
    def batch(self) -> Batch:
        """User, item and domain of each rating."""
        table, device = self.table, self.schema.item_domain.device
        item = np.repeat(np.arange(table.n_items), np.diff(table.item_ptr))
        codes = table.item_user.astype(np.int64), item, table.item_domain[item]
        return Batch(*(torch.from_numpy(x).to(device) for x in codes))


class Parts:
    """The parts of a table: of all ratings of some items, or of some ratings; their tensors lie on the device."""

    def __init__(self, schema: Schema, table: Table, device: str = "cpu"):
        self.schema, self.table, self.device = replace(schema, item_domain=schema.item_domain.to(device)), table, device
        self.rated = np.flatnonzero(table.rated)
        self.ratings_of_item = np.diff(table.item_ptr)
        self.ratings_of_user = table.count.sum(0)
        self._missed: dict[tuple[int, int], np.ndarray] = {}

    def whole(self) -> Part:
        """All ratings."""
        return Part(1.0, {"user": None, "item": None}, {}, self.schema, self.table)

    def of_items(self, items: np.ndarray) -> Part:
        """All ratings of some rated items (codes, ascending)."""
        sizes = self.ratings_of_item[items]
        ptr = np.append(0, np.cumsum(sizes))
        places = np.arange(ptr[-1]) + np.repeat(self.table.item_ptr[items] - ptr[:-1], sizes)
        return self._part(items, ptr, places, len(self.rated), len(items), whole_items=True)

    def of_ratings(self, places: np.ndarray) -> Part:
        """Some ratings, by their places (ascending) in item order."""
        item = np.searchsorted(self.table.item_ptr, places, "right") - 1
        items, sizes = np.unique(item, return_counts=True)
        n, m = len(self.table.item_value), len(places)
        return self._part(items, np.append(0, np.cumsum(sizes)), places, n, m, whole_items=False)

    def chance(self, size: np.ndarray, n: int, m: int) -> np.ndarray:
        """Probability that m of n, without replacement, hold any of ``size`` of them: 1 - C(n - size, m) / C(n, m)."""
        if (n, m) not in self._missed:
            most = max(self.ratings_of_user.max(initial=0), self.ratings_of_item.max(initial=0))
            left = np.maximum(n - m - np.arange(most), 0) / np.maximum(n - np.arange(most), 1)
            with np.errstate(divide="ignore"):
                self._missed = {(n, m): np.append(0.0, np.cumsum(np.log(left)))}
        return -np.expm1(self._missed[n, m][size])

    def _part(
        self, items: np.ndarray, ptr: np.ndarray, places: np.ndarray, of: int, drawn: int, *, whole_items: bool
    ) -> Part:
        table = self.table
        users, user = np.unique(table.item_user[places], return_inverse=True)
        n, domain = len(users), table.item_domain[items]
        cell = np.repeat(domain, np.diff(ptr)) * n + user
        some: dict[str, Any] = {
            "user_ids": None if table.user_ids is None else table.user_ids[users],
            "user_x": None if table.user_x is None else table.user_x[users],
            "item_x": None if table.item_x is None else table.item_x[items],
        }
        here = replace(
            table, n_users=n, n_items=len(items), item_domain=domain, item_ptr=ptr, item_user=user.astype(np.int32),
            item_value=table.item_value[places], item_cell=cell.astype(np.int32), count=table.count[:, users], **some,
        )  # fmt: skip
        here_domain = torch.from_numpy(domain).to(self.device)
        schema = replace(self.schema, n_users=n, n_items=len(items), item_domain=here_domain, newcomers=0, **some)
        weight = {"user": 1.0 / self.chance(self.ratings_of_user[users], of, drawn)}
        if not whole_items:
            weight["item"] = 1.0 / self.chance(self.ratings_of_item[items], of, drawn)
        codes, dtype = {"user": users, "item": items}, torch.get_default_dtype()
        return Part(
            of / drawn,
            {axis: torch.from_numpy(x.astype(np.int64)).to(self.device) for axis, x in codes.items()},
            {axis: torch.from_numpy(x).to(self.device, dtype) for axis, x in weight.items()},
            schema,
            here,
        )
