"""Shared fixtures: one torch thread, small posteriors fitted once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bayesrec as br

torch.set_num_threads(1)


def _forget_stale_kernels():
    """Numba looks at the file of a function, not at those of the functions it calls: drop what is older than any of them."""
    folder = Path(br.__file__).parent
    names = (
        "jit",
        "tiles",
        "lanes",
        "rows",
        "streams",
        "kernels",
        "slices",
        "cuts",
        "counts",
        "tails",
        "inference/vmp_rows",
    )
    names += ("posterior/score_tile", "posterior/topn")
    newest = max((folder / f"{name}.py").stat().st_mtime for name in names)
    for file in folder.rglob("__pycache__/*.nb[ic]"):
        if file.stat().st_mtime < newest:
            file.unlink(missing_ok=True)


_forget_stale_kernels()


@pytest.fixture(scope="session")
def frame():
    """40 users, 15 source and 12 target items; the first 5 users have no target rows."""
    table, _ = br.data.synthetic.cross_domain(n_users=40, n_items=(15, 12), n_ratings=(8, 5), rank=2, n_cold=5)
    return table.rename(columns={"value": "rating"})


@pytest.fixture(scope="session")
def data(frame):
    return br.Interactions.from_frame(frame, target="target")


@pytest.fixture(scope="session")
def target_rows(frame):
    return frame[frame["domain"] == "target"].reset_index(drop=True)


def _fit(model, data):
    return br.fit(model, data, br.Gibbs(draws=30, warmup=20, chains=2), progress=False)


@pytest.fixture(scope="session")
def transfer(data):
    """Small TransferMF posterior; never changed by a test."""
    return _fit(br.models.TransferMF(rank=2), data)


@pytest.fixture(scope="session")
def pmf(data):
    """Small PMF posterior; knows no source."""
    return _fit(br.models.PMF(rank=2), data)
