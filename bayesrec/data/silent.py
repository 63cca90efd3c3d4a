"""A source that is known by its users alone: a domain without rows. Internal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from bayesrec.data.interactions import Interactions
from bayesrec.errors import DataError

__all__ = ["with_silent_source", "with_users"]


def with_users(data: Interactions, ids: pd.Index) -> Interactions:
    """Return the same rows with the users ``ids`` beside those of the data."""
    return data.extend_users(ids[data.users.encode(ids, None) < 0])


def with_silent_source(data: Interactions, name: Any, ids: pd.Index) -> Interactions:
    """Return the target rows, a source ``name`` without rows or items, and the users ``ids`` beside those of the data.

    Raises
    ------
    DataError
        A source with the name of the target.
    """
    alone = with_users(data, ids).only_target()
    if name == alone.target:
        raise DataError(f"the source prior is of domain {name!r}, which is the target; choose another target.")
    items = replace(alone.items, scopes=tuple(scope + 1 for scope in alone.items.scopes or ()))
    return replace(alone, domains=(name, alone.target), domain=alone.domain + 1, items=items)
