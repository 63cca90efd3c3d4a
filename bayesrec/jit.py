"""How loops are compiled: without the GIL, kept on disk where there is a place for it. Internal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["compiled", "reordered"]


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    """Compile at the first call.

    Numba keeps what it compiled beside the package or in the user's cache; without a place every process compiles anew.
    """
    options |= {"nogil": True, "error_model": "numpy", "boundscheck": False}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        return njit(**options)(function)


def compiled(function: Callable[..., Any]) -> Any:
    """Compile as it is written."""
    return _compile(function)


def reordered(function: Callable[..., Any]) -> Any:
    """Compile with sums that may be reordered, so that they fill vectors."""
    return _compile(function, fastmath={"reassoc", "contract"})
