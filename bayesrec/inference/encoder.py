"""The amortised guide of users: a set encoder from a user's ratings to the normal over all that is theirs. Internal.

What a set of ratings says is pooled in closed form: in each domain the ridge regression of a user's ratings on the items'
current means, with a learned ridge, how sure it is, what it leaves over, and how many ratings there are. None of it depends on
the order of the ratings. A network with one hidden layer and a linear bypass takes these numbers to the normal's mean, sds and
triangle; its weights are all that there is to learn of users, however many there are (Kingma and Welling 2014; Zaheer et
al. 2017).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bayesrec import conjugate
from bayesrec.conjugate import Table
from bayesrec.inference.guide import START_SD, Members
from bayesrec.likelihoods import Latents

__all__ = ["Encoded"]

HIDDEN = 32
DRIFT = 0.01  # sd of the hidden layer's first effect


class Encoded(Members):
    """Users whose normals are computed from their ratings.

    Parameters
    ----------
    table : Table
    items : Members
        Where the items' means come from; they are looked at as they are, without gradients.
    """

    def __init__(
        self,
        dims: dict[str, tuple[str, ...]],
        start: Latents,
        leaves: dict[str, Tensor],
        table: Table,
        items: Members,
    ):
        super().__init__("user", dims, start, leaves, whole=True)
        self.table, self.items = table, items
        loc = self.tables[0]
        size, self.rank = loc.shape[1], items.shapes["item_vector"][0]
        n_in, n_out = table.n_domains * (2 * self.rank + 2), 2 * size + len(self.flat)
        bypass = torch.zeros(n_in, n_out)
        for domain, columns in self._vectors():
            for k, column in enumerate(columns):
                bypass[domain * (2 * self.rank + 2) + k, column] = 1.0
        first = torch.randn(n_in, HIDDEN) / math.sqrt(n_in)
        bias = torch.zeros(n_out)
        bias[:size], bias[size : 2 * size] = loc.mean(0), math.log(START_SD)
        for _, columns in self._vectors():
            bias[columns] = 0.0
        ridge = torch.zeros(table.n_domains)
        self.parameters = [first, torch.zeros(HIDDEN), DRIFT * torch.randn(HIDDEN, n_out), bypass, bias, ridge]
        self.tables = []

    def _vectors(self) -> list[tuple[int, list[int]]]:
        """Domains and the columns of a row that hold the user's vector there."""
        out, first, last = [], 0, self.table.n_domains - 1
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            if name == "user_vector":
                out.append((last, list(range(first, first + size))))
            elif name == "source_vector":
                out += [(k, list(range(first + k * self.rank, first + (k + 1) * self.rank))) for k in range(shape[0])]
            first += size
        return out

    def take(self, rows: Tensor | None) -> list[Tensor]:
        """Means, log sds and triangles of some users, or of all, computed from their ratings."""
        first, shift, second, bypass, bias, ridge = self.parameters
        x = self._pooled(rows, ridge)
        out = torch.relu(x @ first + shift) @ second + x @ bypass + bias
        size = self.free.shape[1]
        return [out[:, :size], out[:, size : 2 * size], out[:, 2 * size :]]

    def _pooled(self, rows: Tensor | None, ridge: Tensor) -> Tensor:
        """What each user's ratings come to, (user, number)."""
        table = self.table
        users = np.arange(table.n_users) if rows is None else rows.cpu().numpy()
        vectors = self._as_items().cpu().numpy().astype(np.float64)
        parts = []
        for domain in range(table.n_domains):
            cell = users * table.n_domains + domain
            start, size = table.user_ptr[cell], table.user_ptr[cell + 1] - table.user_ptr[cell]
            ptr = np.append(0, np.cumsum(size))
            places = np.arange(ptr[-1]) + np.repeat(start - ptr[:-1], size)
            index, value = table.user_item[places], table.user_value[places]
            gram, linear = conjugate.row_grams(ptr, index, value, np.ones(len(places)), vectors)
            square = np.bincount(np.repeat(np.arange(len(users)), size), (value - vectors[index, 0]) ** 2, len(users))
            numbers = (torch.from_numpy(a).to(ridge) for a in (size, gram, linear, square))
            n, gram_, linear_, square_ = numbers
            whole = gram_ + ridge[domain].exp() * torch.eye(self.rank, dtype=ridge.dtype, device=ridge.device)
            inverse = torch.linalg.inv(whole)
            solution = (inverse @ linear_.unsqueeze(-1)).squeeze(-1)
            sure = inverse.diagonal(dim1=-2, dim2=-1).log() * 0.5
            left = (square_ - (solution * linear_).sum(-1)).clamp(min=0.0) / n.clamp(min=1.0)
            parts += [solution, sure, left.unsqueeze(-1), n.log1p().unsqueeze(-1)]
        return torch.cat(parts, 1)

    def _as_items(self) -> Tensor:
        """Means of the items' vectors, (item, R)."""
        assert self.items is not None
        first = 0
        for name in self.items.names:
            size = int(np.prod(self.items.shapes[name]))
            if name == "item_vector":
                return self.items.tables[0][:, first : first + size].detach()
            first += size
        raise KeyError("item_vector")
