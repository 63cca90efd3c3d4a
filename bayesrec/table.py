"""Table: standardised ratings, sorted for the updates of rows. Internal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bayesrec.errors import DataError
from bayesrec.sorting import sort_ratings
from bayesrec.workers import ALONE, Workers

__all__ = ["Part", "Table"]

CELLS = 2**31 - 1


@dataclass(frozen=True)
class Table:
    """Standardised ratings, sorted once by (user, domain) and once by item.

    Attributes
    ----------
    n_users, n_items, n_domains : int
    item_domain : ndarray of int, (item,)
    user_ptr : ndarray, (user * domain + 1,)
        The ratings of user ``u`` in domain ``d`` are ``user_ptr[u * n_domains + d] : user_ptr[u * n_domains + d + 1]``.
    user_item, user_value : ndarray, (rating,)
        Item code and value, in that order.
    item_ptr : ndarray, (item + 1,)
    item_user, item_value : ndarray, (rating,)
    user_cell, item_cell : ndarray, (rating,)
        ``domain * n_users + user`` of each rating, in either order: its place in a raveled (domain, user) array.
    count : ndarray of int, (domain, user)
        Number of ratings; what a user never rated is a leaf of the model and informs no hyperparameter.
    workers : Workers
        Threads that share the rows of one update.
    user_ids : pandas.Index, optional
        Ids of the users.
    user_x, item_x : ndarray, (user, feature) and (item, feature), optional
        Features of users and items, for models that use them.
    weight : ndarray, (domain,), optional
        Power to which the density of each domain's ratings is raised; 1 without.
    in_fit : ndarray of bool, (user,)
        Users with ratings whom a fit knows; those who are folded in later are not.

    Codes and cells are int32, values float64.
    """

    n_users: int
    n_items: int
    n_domains: int
    item_domain: np.ndarray
    user_ptr: np.ndarray
    user_item: np.ndarray
    user_value: np.ndarray
    item_ptr: np.ndarray
    item_user: np.ndarray
    item_value: np.ndarray
    user_cell: np.ndarray
    item_cell: np.ndarray
    count: np.ndarray
    workers: Workers = ALONE
    user_ids: Any = None
    user_x: Any = None
    item_x: Any = None
    weight: np.ndarray | None = None
    in_fit: Any = None

    @classmethod
    def build(
        cls,
        user,
        item,
        domain,
        value,
        *,
        n_users,
        n_items,
        item_domain,
        n_domains,
        user_ids=None,
        user_x=None,
        item_x=None,
        newcomers=0,
    ) -> Table:
        """Sort ratings given as code arrays (rating,) and standardised values (rating,); the last users are newcomers."""
        if n_domains * n_users > CELLS:
            raise DataError(f"{n_users} users in {n_domains} domains are more than {CELLS} cells; split the data.")
        out: dict[str, Any] = sort_ratings(user, item, domain, value, n_users, n_items, n_domains)
        count = np.ascontiguousarray(np.diff(out["user_ptr"]).reshape(n_users, n_domains).T)
        return cls(
            n_users=n_users,
            n_items=n_items,
            n_domains=n_domains,
            item_domain=np.ascontiguousarray(item_domain),
            count=count,
            in_fit=(count > 0).any(0) & (np.arange(n_users) < n_users - newcomers),
            user_ids=user_ids,
            user_x=user_x,
            item_x=item_x,
            **out,
        )

    @cached_property
    def fitted(self) -> dict[int, Any]:
        """What models remember of this table; see :meth:`bayesrec.models.base.Model.fitted`."""
        return {}

    @cached_property
    def parts(self) -> list[Part]:
        """The table of each domain by itself."""
        out = []
        for d in range(self.n_domains):
            rows, item_rows = (np.flatnonzero(x // self.n_users == d) for x in (self.user_cell, self.item_cell))
            items, count = np.flatnonzero(self.item_domain == d), self.count[d : d + 1]
            item_ptr = np.append(0, np.cumsum(np.diff(self.item_ptr)[items]))
            table = replace(
                self, n_items=len(items), n_domains=1, item_domain=np.zeros_like(items), count=count, item_ptr=item_ptr,
                user_ptr=np.append(0, np.cumsum(count[0])), item_user=self.item_user[item_rows], item_x=None,
                user_item=np.searchsorted(items, self.user_item[rows]).astype(np.int32),
                user_value=self.user_value[rows], item_value=self.item_value[item_rows],
                user_cell=self.user_cell[rows] % self.n_users, item_cell=self.item_cell[item_rows] % self.n_users,
                weight=None if self.weight is None else self.weight[d : d + 1],
            )  # fmt: skip
            out.append(Part(table, items, rows, item_rows))
        return out

    def powered(self, array: np.ndarray) -> np.ndarray:
        """Counts, precisions or sums of squares (domain, user) times the weight of the domain."""
        return array if self.weight is None else array * self.weight[:, None]

    @property
    def user_of(self) -> np.ndarray:
        """User of each rating, in user order."""
        return self.user_cell % self.n_users

    @property
    def user_domain(self) -> np.ndarray:
        """Domain of each rating, in user order."""
        return self.user_cell // self.n_users

    @cached_property
    def item_place(self) -> np.ndarray:
        """Place in user order of each rating in item order, (rating,)."""
        return np.argsort(self.user_item, kind="stable")

    @property
    def rated(self) -> np.ndarray:
        """Items with at least one rating, bool (item,)."""
        return np.diff(self.item_ptr) > 0


@dataclass(frozen=True)
class Part:
    """A domain's own table, and which items and rows (in user and item order) of the whole one it has."""

    table: Table
    items: np.ndarray
    rows: np.ndarray
    item_rows: np.ndarray
