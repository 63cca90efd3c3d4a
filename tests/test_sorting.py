"""Tables of ratings: their order against NumPy's lexsort, and the memory that a fit takes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec import table
from bayesrec.sorting import sort_ratings
from bayesrec.table import Table


def by_lexsort(user, item, domain, value, n_users, n_items, n_domains):
    """What `sort_ratings` returns, with every temporary that is convenient."""
    cell = domain * n_users + user
    users, items = np.lexsort((item, domain, user)), np.lexsort((domain, user, item))
    size = np.bincount(user * n_domains + domain, minlength=n_users * n_domains)
    return {
        "user_item": item[users],
        "user_cell": cell[users],
        "user_value": value[users],
        "user_ptr": np.append(0, np.cumsum(size)),
        "item_user": user[items],
        "item_cell": cell[items],
        "item_value": value[items],
        "item_ptr": np.append(0, np.cumsum(np.bincount(item, minlength=n_items))),
    }


def narrow(table):
    return {k: x.astype(np.int32) if x.dtype == int and "ptr" not in k else x for k, x in table.items()}


def same(found, want):
    return found.keys() == want.keys() and all(np.array_equal(found[name], want[name]) for name in want)


@pytest.mark.parametrize("sizes", [(7, 9, 1), (7, 9, 3), (400, 2, 2), (1, 1, 1), (50, 60, 2)])
def test_the_order_is_that_of_lexsort(sizes):
    rng = np.random.default_rng(0)
    for n in (0, 1, 600):  # repeats among them
        codes = [rng.integers(0, size, n) for size in sizes]
        value = rng.standard_normal(n)
        want = by_lexsort(*codes, value, *sizes)
        assert same(sort_ratings(*codes, value, *sizes), want)
        if n > 1:
            assert not same(sort_ratings(*codes, value[::-1], *sizes), want)
            assert not same(sort_ratings(*(x[::-1] for x in codes), value[::-1], *sizes), want)  # not stable
        table = Table.build(
            *codes, value, n_users=sizes[0], n_items=sizes[1], n_domains=sizes[2], item_domain=np.zeros(sizes[1], int)
        )
        count = np.zeros((sizes[2], sizes[0]), dtype=int)
        np.add.at(count, (codes[2], codes[0]), 1)
        assert np.array_equal(table.count, count)
        assert np.array_equal(table.user_value[table.item_place], table.item_value)


@pytest.mark.parametrize(("side", "code"), [(0, 5), (0, -1), (1, 6), (1, -1), (2, 2), (2, -1)])
def test_codes_outside_the_table(side, code):
    codes = [np.zeros(4, dtype=int) for _ in range(3)]
    codes[side][2] = code
    with pytest.raises(IndexError, match="rating 2"):
        sort_ratings(*codes, np.ones(4), 5, 6, 2)


def peak_of_a_fit(data, method):
    """Bytes at the peak of a fit beyond its draws, over those of the ratings."""
    tracemalloc.start()
    try:
        draws = br.fit(br.models.PMF(rank=4), data, method, progress=False).draws
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ratings = sum(x.nbytes for x in (data.user, data.item, data.domain, data.value))
    return 1.0 + (peak - sum(x.nbytes for x in draws.values())) / ratings  # the ratings were there before


def test_a_fit_takes_less_than_three_times_the_ratings(monkeypatch):
    rng, n, n_items = np.random.default_rng(0), 60_000, 300
    user, item = np.divmod(rng.choice(300 * n_items, n, replace=False), n_items)
    frame = pd.DataFrame({"user": user, "item": item, "rating": rng.integers(1, 6, n)})
    data = br.Interactions.from_frame(frame, target="films", domain=None)
    method = br.Gibbs(draws=1, warmup=1, chains=1, threads=1)
    br.fit(br.models.PMF(rank=4), data, method, progress=False)  # compiles
    assert peak_of_a_fit(data, method) < 3.0
    monkeypatch.setattr(table, "sort_ratings", lambda *args: narrow(by_lexsort(*args)))
    assert peak_of_a_fit(data, method) > 3.5
