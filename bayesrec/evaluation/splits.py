"""Splits by name: who is held out, and for clicks what else they might have clicked. Internal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesrec.data import Interactions, split
from bayesrec.data.columns import nearest
from bayesrec.data.seeds import generator
from bayesrec.errors import DataError

__all__ = ["Split", "make_splits"]

UNSEEN = 200  # items without a click that stand beside a user's held-out clicks

Splitter = Callable[[Interactions, int], tuple[Interactions, Interactions]]


@dataclass(frozen=True)
class Split:
    """Training rows and the rows to answer; for clicks the latter have cells that nobody clicked, with value 0."""

    name: str
    seed: int
    train: Interactions
    test: Interactions
    floor: float  # lowest target value: what gains are counted from
    n_held: int


def cold(data: Interactions, seed: int) -> tuple[Interactions, Interactions]:
    """A fifth of those with source rows lose all their target rows."""
    return _cold_side(data)(data, fraction=0.2, seed=seed)


def few(data: Interactions, seed: int) -> tuple[Interactions, Interactions]:
    """A fifth of those with source rows and more than 5 target rows keep 5."""
    return _cold_side(data)(data, fraction=0.2, n_support=5, seed=seed)


def warm(data: Interactions, seed: int) -> tuple[Interactions, Interactions]:
    """A tenth of the target rows, at random."""
    return split.holdout(data, fraction=0.1, seed=seed)


DEFAULT: dict[str, Splitter] = {"cold": cold, "few": few, "warm": warm}


def _cold_side(data: Interactions) -> Callable[..., tuple[Interactions, Interactions]]:
    return split.cold_users if data.shared == "users" else split.cold_items


def make_splits(data: Interactions, given: Any, seeds: Iterable[int]) -> tuple[list[Split], list[str]]:
    """Split the data for every name and seed; notes say which default was left out and why."""
    notes: list[str] = []
    splitters = _choose(data, given)
    out = []
    for name, splitter in splitters.items():
        for seed in seeds:
            try:
                parts = splitter(data, seed)
            except DataError as error:
                if given is not None or name == "warm":
                    raise
                notes.append(f"split {name!r} left out: {error}")
                break
            out.append(_checked(name, seed, parts, data))
    return out, notes


def _choose(data: Interactions, given: Any) -> Mapping[str, Splitter]:
    if given is None:
        return {"warm": warm} if data.is_target.all() else DEFAULT
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Mapping):
        for name in given:
            if name not in DEFAULT:
                raise DataError(f"splits: unknown {name!r}{nearest(name, DEFAULT)}; there are {list(DEFAULT)}")
        given = {name: DEFAULT[name] for name in given}
    if not given:
        raise DataError("splits is empty; None gives the usual ones")
    for name, splitter in given.items():
        if not callable(splitter):
            raise TypeError(f"splits[{name!r}] must be a function (data, seed) -> (train, test), not {splitter!r}")
    return {str(name): splitter for name, splitter in given.items()}


def _checked(name: str, seed: int, parts: Any, data: Interactions) -> Split:
    try:
        train, test = parts
    except (TypeError, ValueError) as error:
        raise DataError(f"splits[{name!r}] must return (train, test), not {type(parts).__name__}") from error
    for part in (train, test):
        if not isinstance(part, Interactions) or part.domains != data.domains or part.users != data.users:
            raise DataError(f"splits[{name!r}] must return two Interactions with the domains and ids of the data")
    if not len(test) or not test.is_target.all():
        raise DataError(f"splits[{name!r}]: test must hold target rows, and nothing else")
    if not train.is_target.any():
        raise DataError(f"splits[{name!r}]: train has no target row left")
    floor = min(float(part.value[part.is_target].min()) for part in (train, test))
    if data.columns.value is None:
        return Split(name, seed, train, _with_unseen(train, test, seed), 0.0, len(test))
    return Split(name, seed, train, test, floor, len(test))


def _with_unseen(train: Interactions, test: Interactions, seed: int) -> Interactions:
    """Add to each held-out user up to UNSEEN random target items that the user has not clicked, with value 0."""
    target = train.mask(train.is_target)
    items = np.unique(np.concatenate([target.item, test.item]))
    seen = np.unique(np.concatenate([part.user * train.n_items + part.item for part in (target, test)]))
    users, unseen = [], []
    for user in np.unique(test.user):
        own = seen[slice(*np.searchsorted(seen, [user * train.n_items, (user + 1) * train.n_items]))]
        free = np.setdiff1d(items, own - user * train.n_items, assume_unique=True)
        chosen = generator(seed, int(user)).permutation(free)[:UNSEEN]
        users.append(np.full(len(chosen), user))
        unseen.append(chosen)
    more_user, more_item = np.concatenate(users), np.concatenate(unseen)
    return replace(
        test,
        user=np.concatenate([test.user, more_user]),
        item=np.concatenate([test.item, more_item]),
        domain=np.concatenate([test.domain, np.full(len(more_user), len(test.domains) - 1)]),
        value=np.concatenate([test.value, np.zeros(len(more_user))]),
        time=None,
    )
