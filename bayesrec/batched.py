"""The Gibbs updates of :mod:`bayesrec.conjugate` in batches of tensors, for a GPU; they run on torch's CPU device too. Internal.

Arrays come in and go out as NumPy's; in between all is float64 on ``device``. Equal in law to the compiled loops, not bit for
bit: rows of similar length are padded to one length, so that their Gram matrices are one batched product. What pads a row
points at an extra entry of zeros, entry 0 of every array that is gathered from.

Normals come from a ``torch.Generator`` on the device, seeded by one integer of the NumPy generator: equal seeds give equal
draws on the same device. torch's own generators, threads and defaults are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.linalg import cholesky_ex, solve_triangular

__all__ = ["Layouts", "draw_rows", "row_squared_errors", "transfer_rows"]

PIECE = 512  # ratings of a long row that make one matrix product; a power of two


class Bucket(NamedTuple):
    """Rows of similar length: their positions in the chunk (row,), and each rating's (row, length), 0 where padded."""

    rows: Tensor
    rating: Tensor
    other: Tensor


class Chunk(NamedTuple):
    """Units updated at once, (unit,); unit ``u`` has ``n_rows / len(units)`` rows, one a domain."""

    units: Tensor
    n_rows: int
    buckets: list[Bucket]


@dataclass(frozen=True)
class Layouts:
    """How rows are padded, kept on the device from sweep to sweep. Internal.

    Keep one object for as long as the same ``indptr`` and ``index`` arrays come back: a layout is made once for each pair
    of objects (not of values), which must not change in place, and lives as long as this object does.

    Attributes
    ----------
    floats : int
        About how many numbers of 8 bytes the temporary arrays of one batch hold.

    Examples
    --------
    >>> layouts, indptr, index = Layouts(), np.array([0, 2, 2]), np.array([1, 0])
    >>> [chunk] = layouts.of(indptr, index, 3, "cpu")
    >>> chunk.buckets[0].other
    tensor([[2, 1]])
    """

    floats: int = 2**24
    known: dict[Any, Any] = field(default_factory=dict, repr=False)

    def of(
        self, indptr: np.ndarray, index: np.ndarray, size: int, device: str, n_domains: int = 1, matrices: int = 5
    ) -> list[Chunk]:
        """Chunks of units with ``n_domains`` consecutive rows and ``matrices`` temporary matrices (size, size) each."""
        key = (id(indptr), id(index), size, str(device), n_domains, matrices)
        if key not in self.known:
            per_chunk = max(1, self.floats // (matrices * size * size))
            chunks = [*_chunks(indptr, index, size, device, n_domains, per_chunk, self.floats)]
            self.known[key] = indptr, index, chunks  # the arrays too: no other object gets their ids
        return self.known[key][-1]


def _padded(count: np.ndarray) -> np.ndarray:
    """Lengths rounded up to 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    step = np.exp2(np.floor(np.log2(np.maximum(count - 1, 1)))).astype(np.int64) // 2
    step = np.maximum(step, 1)
    return -(-count // step) * step


def _chunks(
    indptr: np.ndarray, index: np.ndarray, size: int, device: str, n_domains: int, per_chunk: int, floats: int
) -> Iterator[Chunk]:
    """Units in order of their number of ratings, ``per_chunk`` at a time."""
    start = np.asarray(indptr[:-1], dtype=np.int64)
    count = np.diff(indptr).astype(np.int64)
    other = np.concatenate([[0], np.asarray(index, dtype=np.int64) + 1])
    order = np.argsort(count.reshape(-1, n_domains).sum(1), kind="stable")
    for first in range(0, len(order), per_chunk):
        units = order[first : first + per_chunk]
        rows = (units[:, None] * n_domains + np.arange(n_domains)).ravel()
        buckets = _buckets(start[rows], count[rows], other, size, device, floats)
        yield Chunk(torch.tensor(units, device=device), len(rows), [*buckets])


def _buckets(
    start: np.ndarray, count: np.ndarray, other: np.ndarray, size: int, device: str, floats: int
) -> Iterator[Bucket]:
    """Rows of one padded length after another; a row beyond the memory of a batch comes in several buckets."""
    padded = _padded(count)
    for length in np.unique(padded[padded > 0]).tolist():
        rows = np.flatnonzero(padded == length)
        width = min(length, max(1, floats // (size * PIECE)) * PIECE)
        many = max(1, floats // (width * size))
        for first in range(0, len(rows), many):
            some = rows[first : first + many]
            for left in range(0, length, width):
                offset = np.arange(left, min(left + width, length))
                rating = np.where(offset < count[some, None], start[some, None] + offset + 1, 0)
                yield Bucket(*(torch.tensor(x, device=device) for x in (some, rating, other[rating])))


def _tensor(array: Any, device: str) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float64, device=device)


def _after_zero(array: np.ndarray, device: str) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.float64, device=device), _tensor(array, device)])


def _designs(other: np.ndarray, device: str) -> Tensor:
    """(1, factors, bias) of every row of the other side after a row of zeros, (1 + n_other, R + 1)."""
    out = torch.zeros((len(other) + 1, other.shape[1] + 1), dtype=torch.float64, device=device)
    out[1:, 0] = 1.0
    out[1:, 1:] = _tensor(other, device).roll(-1, 1)
    return out


def _responses(bucket: Bucket, value: Tensor, designs: Tensor) -> Tensor:
    """Design vector and, last, value less the other side's bias of each rating: (row, length, R + 1)."""
    out = designs.index_select(0, bucket.other.view(-1)).view(*bucket.other.shape, -1)
    out[..., -1] = value[bucket.rating] - out[..., -1]
    return out


def _grams(chunk: Chunk, value: Tensor, weight: Tensor, designs: Tensor) -> Tensor:
    """Sum of w (v, r)(v, r)' of every row of a chunk, (row, R + 1, R + 1): precision, and the linear term last."""
    size = designs.shape[1]
    out = torch.zeros((chunk.n_rows, size, size), dtype=torch.float64, device=designs.device)
    for bucket in chunk.buckets:
        x = _responses(bucket, value, designs)
        x *= weight[bucket.rating].sqrt().unsqueeze(-1)
        n, length, _ = x.shape
        pieces = length // PIECE if length % PIECE == 0 else 1
        x = x.view(n * pieces, length // pieces, size)
        out.index_add_(0, bucket.rows, (x.mT @ x).view(n, pieces, size, size).sum(1))
    return out


def _generator(rng: np.random.Generator, device: str) -> Generator:
    return Generator(device=device).manual_seed(int(rng.integers(2**63)))


def _normals(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


def _uniforms(generator: Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)


def _cholesky(a: Tensor) -> tuple[Tensor, Tensor]:
    """Lower factors, and which of the matrices are not positive definite."""
    root, info = cholesky_ex(a)
    return root, (info != 0) | ~(root.diagonal(dim1=-2, dim2=-1) > 0.0).all(-1)


def _lower(root: Tensor, x: Tensor) -> Tensor:
    """L^-1 x for vectors (..., R)."""
    return solve_triangular(root, x.unsqueeze(-1), upper=False).squeeze(-1)


def _upper(root: Tensor, x: Tensor) -> Tensor:
    """L'^-1 x for vectors (..., R)."""
    return solve_triangular(root.mT, x.unsqueeze(-1), upper=True).squeeze(-1)


def _times(a: Tensor, x: Tensor) -> Tensor:
    """Product of matrices (..., R, R) and vectors (..., R)."""
    return (a @ x.unsqueeze(-1)).squeeze(-1)


def draw_rows(
    indptr: np.ndarray,
    index: np.ndarray,
    value: np.ndarray,
    weight: np.ndarray,
    other: np.ndarray,
    group: np.ndarray,
    mean: np.ndarray,
    precision: np.ndarray,
    rng: np.random.Generator,
    device: str,
    layouts: Layouts,
) -> tuple[np.ndarray, int]:
    """Draw every row from its Gaussian conditional; arguments as in :func:`bayesrec.conjugate.draw_rows`. Internal.

    Returns
    -------
    ndarray, (row, R)
    int
        Number of rows whose precision is not positive definite; what stands there is no draw.

    Examples
    --------
    >>> prior = np.zeros(2, int), np.zeros((1, 3)), np.eye(3)[None]
    >>> ratings = np.array([0, 2, 2]), np.array([1, 0]), np.ones(2), np.ones(2), np.zeros((2, 3))
    >>> rows, bad = draw_rows(*ratings, *prior, np.random.default_rng(0), "cpu", Layouts())
    >>> rows.shape, bad
    ((2, 3), 0)
    """
    size = other.shape[1]
    chunks = layouts.of(indptr, index, size + 1, device)
    values, weights, designs = _after_zero(value, device), _after_zero(weight, device), _designs(other, device)
    groups = torch.tensor(np.asarray(group, dtype=np.int64), device=device)
    prior, centre = _tensor(precision, device), _tensor(mean, device)
    pull = _times(prior, centre)
    out = _normals(_generator(rng, device), len(group), size)
    failed = torch.zeros(len(group), dtype=torch.bool, device=device)
    for chunk in chunks:
        gram, of = _grams(chunk, values, weights, designs), groups[chunk.units]
        root, failed[chunk.units] = _cholesky(gram[:, :-1, :-1] + prior[of])
        half = _lower(root, gram[:, :-1, -1] + pull[of])
        out[chunk.units] = _upper(root, half + out[chunk.units])
    return out.cpu().numpy(), int(failed.sum())


def row_squared_errors(
    indptr: np.ndarray,
    index: np.ndarray,
    value: np.ndarray,
    other: np.ndarray,
    rows: np.ndarray,
    device: str,
    layouts: Layouts,
) -> np.ndarray:
    """Sum of squared residuals of every row, (row,). Internal."""
    values, designs, vectors = _after_zero(value, device), _designs(other, device), _tensor(rows, device)
    out = torch.zeros(len(rows), dtype=torch.float64, device=device)
    for chunk in layouts.of(indptr, index, designs.shape[1], device):
        for bucket in chunk.buckets:
            x, of = _responses(bucket, values, designs), chunk.units[bucket.rows]
            out.index_add_(0, of, (x[..., -1] - _times(x[..., :-1], vectors[of])).square().sum(1))
    return out.cpu().numpy()


class _Target(NamedTuple):
    """Target vectors given gates, all else integrated out: ``centre + root x``, ``x ~ N(M^-1 l, M^-1)``.

    ``inner`` is the Cholesky factor of M and ``half`` is ``inner^-1 l``; ``evidence`` is the log marginal likelihood up to a
    constant.
    """

    evidence: Tensor
    centre: Tensor
    root: Tensor
    inner: Tensor
    half: Tensor


class _Users:
    """Some users' sources and target rows, and the draws of their gates and vectors. Arrays are (source, user, ...)."""

    def __init__(self, gram: Tensor, linear: Tensor, scale: Tensor, mean: Tensor, cov: Tensor, maps: Tensor) -> None:
        self.mean, self.cov, self.maps = mean, cov, maps.unsqueeze(1)
        self.gram, self.linear = gram[-1], linear[-1]
        self.failed = torch.zeros(gram.shape[1], dtype=torch.bool, device=gram.device)
        self.prior = torch.diag_embed(scale**-2.0).unsqueeze(1)
        self.pop = (self.maps * scale[:, None, None] ** 2) @ self.maps.mT
        # what each source says of its own vectors, and of the target's
        self.precision = self.prior + gram[:-1]
        self.own_root = self.factor(self.precision)
        self.own_mean = _upper(self.own_root, _lower(self.own_root, linear[:-1]))
        carried = solve_triangular(self.own_root, self.maps.mT.expand_as(self.own_root), upper=False)
        self.own = carried.mT @ carried
        self.shift = _times(self.maps, self.own_mean)

    def factor(self, a: Tensor) -> Tensor:
        """Lower Cholesky factors; remembers whose matrices are not positive definite."""
        root, failed = _cholesky(a)
        self.failed |= failed.reshape(-1, len(self.failed)).any(0)
        return root

    def spread(self, on: Tensor, first: int) -> Tensor:
        """Covariance of theta given the source vectors before ``first``."""
        return self.cov + torch.where(on[first:, :, None, None], self.own[first:], self.pop[first:]).sum(0)

    def target(self, on: Tensor) -> _Target:
        """Target vectors given the gates, with all source vectors integrated out."""
        centre = self.mean + (on.unsqueeze(-1) * self.shift).sum(0)
        root = self.factor(self.spread(on, 0))
        eye = torch.eye(centre.shape[-1], dtype=centre.dtype, device=centre.device)
        inner = self.factor(eye + root.mT @ self.gram @ root)
        rest = self.linear - _times(self.gram, centre)
        half = _lower(inner, _times(root.mT, rest))
        log_det = inner.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        evidence = 0.5 * half.square().sum(-1) - log_det + 0.5 * (centre * (self.linear + rest)).sum(-1)
        return _Target(evidence, centre, root, inner, half)

    def gates(self, on: Tensor, off: Tensor, uniforms: Tensor) -> tuple[Tensor, _Target]:
        """Draw the gates one after another; also the target given them."""
        now, odds = self.target(on), torch.log1p(-off) - off.log()
        for k in range(len(off)):
            flipped = on.clone()
            flipped[k] = ~on[k]
            then = self.target(flipped)
            gain = torch.where(on[k], now.evidence - then.evidence, then.evidence - now.evidence)
            change = (uniforms[k] < torch.sigmoid(odds[k] + gain)) != on[k]
            on = torch.where(change, flipped, on)
            whose = (change, change[:, None], change[:, None, None])
            now = _Target(*(torch.where(whose[a.ndim - 1], a, b) for a, b in zip(then, now, strict=True)))
        return on, now

    def sources(self, on: Tensor, rest: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Draw phi and phi_used, one source after another, given how far theta is from its centre."""
        n_sources = len(on)
        phi = self.own_mean + _upper(self.own_root, normals[n_sources:])  # from the source rows alone
        used = torch.empty_like(phi)
        for k in range(n_sources):
            # deviation d of phi from its mean: theta's is W d + the later sources' + eps
            gate, root = on[k].unsqueeze(-1), self.factor(self.spread(on, k + 1))
            carried = solve_triangular(root, self.maps[k].expand_as(root), upper=False)
            own = torch.where(gate.unsqueeze(-1), self.precision[k], self.prior[k])
            inner = self.factor(own + carried.mT @ carried)
            half = _lower(inner, _times(carried.mT, _lower(root, rest)))
            deviation = _upper(inner, half + normals[k])
            rest = rest - _times(self.maps[k], deviation)
            used[k] = gate * self.own_mean[k] + deviation
        return torch.where(on.unsqueeze(-1), used, phi), used


def transfer_rows(
    table: Any,
    value: np.ndarray,
    weight: np.ndarray,
    item: np.ndarray,
    scale: np.ndarray,
    mean: np.ndarray,
    cov: np.ndarray,
    maps: np.ndarray,
    off: np.ndarray,
    gate: np.ndarray,
    gated: bool,
    rng: np.random.Generator,
    device: str,
    layouts: Layouts,
    given: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], int]:
    """Draw gates, target factors and source factors of all users; see :func:`bayesrec.kernels.transfer_rows`. Internal.

    Gates are drawn one after another with all vectors integrated out, then theta with all phi integrated out, then one phi
    after another.

    Parameters
    ----------
    given : pair of ndarray, (source, user, R, R) and (source, user, R), optional
        Precision and linear term to add to what the source rows say of phi; its prior is not part of them.

    Returns
    -------
    dict
        ``user_vector`` (user, R), ``source_vector`` and ``phi_used`` (source, user, R), ``on`` bool (source, user).
    int
        Number of users with a matrix that is not positive definite; what stands there is no draw.
    """
    (n_sources, size), n_users, n_domains = maps.shape[:2], table.n_users, len(maps) + 1
    chunks = layouts.of(table.user_ptr, table.user_item, size + 1, device, n_domains, 8 * n_domains + 12)
    values, weights, designs = _after_zero(value, device), _after_zero(weight, device), _designs(item, device)
    hyper = [_tensor(x, device) for x in (scale, mean, cov, maps)]
    generator, shut = _generator(rng, device), _tensor(off, device)
    normals = _normals(generator, 1 + 2 * n_sources, n_users, size)
    uniforms = _uniforms(generator, n_sources, n_users)
    on = torch.tensor(np.asarray(gate, dtype=bool) | (not gated), device=device)
    theta, phi = torch.empty_like(normals[0]), torch.empty_like(normals[1 : 1 + n_sources])
    used, failed = torch.empty_like(phi), torch.zeros(n_users, dtype=torch.bool, device=device)
    for chunk in chunks:
        u = chunk.units
        grams = _grams(chunk, values, weights, designs).view(len(u), n_domains, size + 1, size + 1).transpose(0, 1)
        gram, linear = grams[..., :-1, :-1], grams[..., :-1, -1]
        if given is not None:
            some = u.cpu().numpy()
            gram[:-1] += _tensor(given[0][:, some], device)
            linear[:-1] += _tensor(given[1][:, some], device)
        users, z = _Users(gram, linear, *hyper), normals[:, u]
        on[:, u], now = users.gates(on[:, u], shut, uniforms[:, u]) if gated else (on[:, u], users.target(on[:, u]))
        deviation = _times(now.root, _upper(now.inner, now.half + z[0]))
        theta[u] = now.centre + deviation
        phi[:, u], used[:, u] = users.sources(on[:, u], deviation, z[1:])
        failed[u] = users.failed
    names = ("user_vector", "source_vector", "phi_used", "on")
    out = {name: x.cpu().numpy() for name, x in zip(names, (theta, phi, used, on), strict=True)}
    return out, int(failed.sum())
