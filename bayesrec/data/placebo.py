"""A placebo source: real histories that belong to somebody else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bayesrec.data.interactions import Interactions, checked_interactions
from bayesrec.data.seeds import generator
from bayesrec.errors import DataError


def derange_sources(data: Interactions, seed: int = 0) -> Interactions:
    """Give each user of a source the history of another user of it, so that nothing true transfers. Provisional.

    In each source the users with rows are put in a uniformly random cycle and each gets the history of the one
    before: no user keeps their own. (A random cycle, not a draw from all derangements.) The items of the rows,
    their values and all target rows stay. With shared items the items of a source are deranged instead.

    Parameters
    ----------
    data : Interactions
        Table with at least one source.
    seed : int
        The cycle depends on it and on the sorted ids.

    Returns
    -------
    Interactions
        Rows in the same order, with the same vocabularies.

    Raises
    ------
    DataError
        No source rows, or a source with fewer than two users.

    Examples
    --------
    >>> from bayesrec.data import synthetic
    >>> frame, _ = synthetic.cross_domain(n_users=10, n_items=(9, 9), n_ratings=(4, 3))
    >>> data = Interactions.from_frame(frame, target="target", value="value")
    >>> placebo = derange_sources(data)
    >>> source = ~data.is_target
    >>> bool((placebo.user[source] != data.user[source]).all()), bool((placebo.item == data.item).all())
    (True, True)
    """
    checked_interactions(data)
    if data.is_target.all():
        raise DataError("there are no source rows to derange")
    side = "user" if data.shared == "users" else "item"
    codes = getattr(data, side).copy()
    for domain, name in enumerate(data.sources):
        rows = np.flatnonzero(data.domain == domain)
        who = np.unique(codes[rows])
        if len(who) == 0:
            continue
        if len(who) < 2:
            raise DataError(f"source {name!r} has one {side} only; a derangement needs two or more")
        cycle = generator(seed, domain).permutation(who)
        heir = np.empty(int(who.max()) + 1, dtype=np.int64)
        heir[cycle] = np.roll(cycle, -1)
        codes[rows] = heir[codes[rows]]
    return replace(data, **{side: codes})
