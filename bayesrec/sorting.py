"""Ratings sorted by (user, domain) and by item: counting sorts, which need no room but that of what they fill. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesrec.jit import compiled

__all__ = ["sort_ratings"]


def sort_ratings(user, item, domain, value, n_users: int, n_items: int, n_domains: int) -> dict[str, np.ndarray]:
    """The arrays of a :class:`bayesrec.table.Table` from code arrays and values (rating,) in any order.

    Ratings of a user in a domain are sorted by item, those of an item by user and domain; equals stay in the order they came.
    """
    n, names = len(user), ("user_item", "user_cell", "item_user")
    out: dict[str, Any] = {name: np.empty(n, dtype=np.int32) for name in names}
    out["item_cell"] = np.empty(n, dtype=np.int32) if n_domains > 1 else out["item_user"]
    out |= {name: np.empty(n) for name in ("user_value", "item_value")}
    sizes = {"user_ptr": n_users * n_domains, "item_ptr": n_items}
    out |= {name: np.zeros(size + 1, dtype=np.int64) for name, size in sizes.items()}
    codes = (_locked(x, np.int64) for x in (user, item, domain))
    bad = _sort(*codes, _locked(value, np.float64), n_users, **out)
    if bad >= 0:
        raise IndexError(
            f"rating {bad}: user {user[bad]}, item {item[bad]} or domain {domain[bad]} is no code of the table"
        )
    return out


def _locked(array: Any, dtype: Any) -> np.ndarray:
    """A read-only view: a loop that sees only such arrays is compiled once."""
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view


@compiled
def _sort(
    user,
    item,
    domain,
    value,
    n_users,
    user_ptr,
    item_ptr,
    user_item,
    user_value,
    user_cell,
    item_user,
    item_value,
    item_cell,
):
    """Fill the arrays; pointers start as zeros. Returns the first rating with a code outside the table, else -1."""
    n, n_items, n_domains = len(user), len(item_ptr) - 1, (len(user_ptr) - 1) // max(1, n_users)
    for t in range(n):
        u, i, d = user[t], item[t], domain[t]
        if not (0 <= u < n_users and 0 <= i < n_items and 0 <= d < n_domains):
            return t
        user_ptr[u * n_domains + d + 1] += 1
        item_ptr[i + 1] += 1
    for r in range(1, len(user_ptr)):
        user_ptr[r] += user_ptr[r - 1]
    for r in range(1, len(item_ptr)):
        item_ptr[r] += item_ptr[r - 1]
    end = item_ptr[:-1].copy()
    for t in range(n):
        place = end[item[t]]
        end[item[t]] += 1
        item_user[place], item_cell[place], item_value[place] = user[t], domain[t] * n_users + user[t], value[t]
    end = user_ptr[:-1].copy()
    for i in range(n_items):  # from items in order, so that the items of a user are in order
        for t in range(item_ptr[i], item_ptr[i + 1]):
            u = item_user[t]
            row = u * n_domains + (item_cell[t] - u) // n_users
            place = end[row]
            end[row] += 1
            user_item[place], user_cell[place], user_value[place] = i, item_cell[t], item_value[t]
    end = item_ptr[:-1].copy()
    for t in range(n):  # and from users in order
        i = user_item[t]
        place = end[i]
        end[i] += 1
        item_user[place], item_cell[place], item_value[place] = user_cell[t] % n_users, user_cell[t], user_value[t]
    return -1
