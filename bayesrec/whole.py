"""Gaussian rows where cells without a rating count as well, at the cost of the ratings: through Gram matrices. Internal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import solve_triangular
from scipy.sparse.linalg import LinearOperator, svds

from bayesrec import conjugate, kernels
from bayesrec.errors import SamplingError, UnsupportedMethodError
from bayesrec.table import Table

__all__ = ["Everywhere", "add", "draw_rows", "grams", "spectral"]


@dataclass(frozen=True)
class Everywhere:
    """What all cells of a domain say of a vector that has cells there, as if none of them had a rating.

    Attributes
    ----------
    precision, linear : ndarray, (domain, R, R) and (domain, R)
        Natural parameters.
    alike : bool
        Whether cells with and without a rating have one weight: then ratings add to the linear terms alone, and all rows of a
        group share one precision.
    """

    precision: np.ndarray
    linear: np.ndarray
    alike: bool


def grams(vectors: np.ndarray, members: list[np.ndarray], precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Natural parameters (domain, R, R) and (domain, R) of a zero with this precision (domain,) at each member of each domain."""
    size = vectors.shape[1]
    gram, linear = np.zeros((len(members), size, size)), np.zeros((len(members), size))
    for d, rows in enumerate(members):
        design = vectors[rows]
        bias = design[:, 0].copy()
        design[:, 0] = 1.0
        gram[d] = precision[d] * (design.T @ design)
        linear[d] = -precision[d] * (bias @ design)
    return gram, linear


def add(rest: Everywhere | None, seen: np.ndarray, gram: np.ndarray, linear: np.ndarray) -> None:
    """Add to natural parameters (row, domain, ...) where a row is ``seen`` (row, domain)."""
    if rest is not None:
        for d in range(len(rest.precision)):
            gram[seen[:, d], d] += rest.precision[d]
            linear[seen[:, d], d] += rest.linear[d]


def spectral(
    table: Table, value: np.ndarray, present: np.ndarray, rank: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of users (user, R) and items (item, R) from the truncated SVD of all cells: where a chain may start.

    Domains are tied by the users whom they share, often few. From a random start the factors of one would turn into those of
    another by small steps. Cells of users who are not ``present`` (domain, user) stand at the mean of their column.
    """
    shape = table.n_users, table.n_items
    users, items = 0.3 * rng.standard_normal((shape[0], rank + 1)), 0.1 * rng.standard_normal((shape[1], rank + 1))
    users[:, 0] = 0.0
    x = sparse.csr_matrix((value, table.user_item, table.user_ptr[:: table.n_domains]), shape=shape)
    seen = present.astype(np.float64)
    total, here = np.asarray(x.sum(0)).ravel(), np.maximum(seen.sum(1), 1.0)
    items[:, 0] = total / here[table.item_domain]
    centre = np.where(table.item_domain == np.arange(table.n_domains)[:, None], items[:, 0], 0.0)
    centred = LinearOperator(
        shape,
        matvec=lambda v: x @ v - seen.T @ (centre @ v),
        rmatvec=lambda u: x.T @ u - centre.T @ (seen @ u),
        dtype=float,
    )
    k = min(rank, min(shape) - 1)
    start = rng.standard_normal(min(shape))
    if k > 0 and np.abs(centred @ start if shape[1] <= shape[0] else centred.T @ start).max() > 1e-9:
        u, size, v = svds(centred, k=k, v0=start)
        users[:, 1 : k + 1] = u * np.sqrt(shape[0])
        items[:, 1 : k + 1] = v.T * size / np.sqrt(shape[0])
    return users, items


def draw_rows(
    indptr, index, value, weight, other, group, mean, precision, rng, block, workers, rest: Everywhere, seen: np.ndarray
):  # fmt: skip
    """As :func:`bayesrec.conjugate.draw_rows`, with all cells of the domains in which a row is ``seen`` (row, domain)."""
    if workers.device is not None:
        raise UnsupportedMethodError("cells without a row are counted on the CPU; fit with device='cpu'.")
    n_domains = seen.shape[1]
    pattern = seen @ (1 << np.arange(n_domains))
    code, group = np.unique(np.asarray(group) * (1 << n_domains) + pattern, return_inverse=True)
    base, on = code >> n_domains, (code[:, None] >> np.arange(n_domains)) & 1
    linear = np.einsum("gij,gj->gi", precision, mean)[base] + on @ rest.linear
    total = precision[base] + np.einsum("gd,dij->gij", on, rest.precision)
    if not rest.alike:
        mean = np.linalg.solve(total, linear[..., None])[..., 0]
        return conjugate.draw_rows(indptr, index, value, weight, other, group, mean, total, rng, block, workers)
    normals = np.empty((len(group), other.shape[1]))
    key = conjugate.key_of(rng)
    workers.share(lambda first, last: kernels.normals(key, normals, first, last) or 0, indptr, conjugate.ROW)
    design = other.copy()
    design[:, 0] = 1.0
    told = sparse.csr_matrix((value * weight, index, indptr), shape=(len(group), len(other))) @ design
    out = np.empty_like(told)
    for g in range(len(code)):
        mine = np.flatnonzero(group == g)
        try:
            upper = np.linalg.cholesky(total[g]).T
        except np.linalg.LinAlgError:
            raise SamplingError(
                f"{len(mine)} rows of block {block!r} had a precision matrix that is not positive definite."
            ) from None
        half = solve_triangular(upper, (told[mine] + linear[g]).T, trans=1) + normals[mine].T
        out[mine] = solve_triangular(upper, half).T
    return out
