"""The local updates of models with normal ratings, compiled as a whole. Internal.

What :mod:`bayesrec.posterior.fold` does with the blocks of any model, a call from Python for each update of each draw, is here
one loop over draws: somebody who has just arrived has a few ratings, and the calls would take longer than the work.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bayesrec import kernels
from bayesrec.conjugate import Table
from bayesrec.errors import SamplingError
from bayesrec.jit import compiled
from bayesrec.likelihoods import Gaussian
from bayesrec.likelihoods.noise import BOUND
from bayesrec.models import PMF, CollectiveMF, TransferMF
from bayesrec.models.base import Model
from bayesrec.slices import noise_slices
from bayesrec.streams import start, uniform

__all__ = ["chains", "covers"]

SHARED = 1000  # users for whom a thread is worth starting


def covers(model: Model) -> bool:
    """Whether the local updates of this model are the ones compiled here."""
    if type(model.likelihood) is not Gaussian or model.features:
        return False
    if type(model) is TransferMF:
        return model.link == "users" and model.source is None and model.power == 1.0
    return type(model) in (PMF, CollectiveMF)


def chains(
    model: Model,
    table: Table,
    held: dict[str, np.ndarray],
    user_noise: bool,
    warm: int,
    sweeps: int,
    rngs: list[np.random.Generator],
) -> dict[str, np.ndarray]:
    """Draws (chain, draw, *event) of the sites of all users of a table, given the other sites (chain, draw, *event)."""
    n_chains, n_draws, _, size = held["item_vector"].shape
    n_users, n_domains = table.n_users, table.n_domains
    transfer, n_sources = isinstance(model, TransferMF), n_domains - 1
    out = {"user_vector": np.empty((n_chains, n_draws, n_users, size), dtype=np.float32)}
    if transfer:
        out["source_vector"] = np.empty((n_chains, n_draws, n_sources, n_users, size), dtype=np.float32)
    if user_noise:
        out["user_level"] = np.empty((n_chains, n_draws, n_users), dtype=np.float32)
        out["user_log_precision"] = np.empty((n_chains, n_draws, n_domains, n_users), dtype=np.float32)
    precision = np.linalg.inv(held["user_cov"])
    linear = np.einsum("cdij,cdj->cdi", precision, held["user_mean"])
    pointers = np.ascontiguousarray(table.user_ptr[::n_domains])
    index, count = np.ascontiguousarray(table.user_item, dtype=np.int32), table.count.astype(np.float64)
    none = np.zeros((n_draws, 1, 1), dtype=np.float32)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_threads = min(allowed, 1 + n_users // SHARED)
    edges = np.linspace(0, n_users, n_threads + 1).astype(int).tolist()
    of_levels = 5 + 2 * n_domains
    width = of_levels + (2 * n_sources + 2 if transfer else 0) + of_levels  # the levels are drawn twice
    for chain, rng in enumerate(rngs):
        keys = rng.integers(2**64, size=(warm + sweeps * (n_draws - 1), width), dtype=np.uint64)
        scales = (
            [held[name][chain] for name in ("level_between", "level_within")] if user_noise else [np.ones(n_draws)] * 2
        )
        levels = out["user_level"][chain] if user_noise else none[:, 0]
        logs = out["user_log_precision"][chain] if user_noise else none

        prior = _transfer_prior(model, held, chain, n_sources) if isinstance(model, TransferMF) else ()

        def run(
            first: int, last: int, chain=chain, keys=keys, scales=scales, levels=levels, logs=logs, prior=prior
        ) -> int:
            if transfer:
                failed = _transfer_chain(
                    table.user_ptr, index, table.user_value, count, held["item_vector"][chain], *prior, held["noise"][chain],
                    *scales, keys, warm, sweeps, BOUND, user_noise, out["user_vector"][chain], out["source_vector"][chain],
                    levels, logs, first, last,
                )  # fmt: skip
                return int(failed)
            failed = _chain(
                table.user_ptr, pointers, index, table.user_value, count, held["item_vector"][chain], precision[chain],
                linear[chain], held["noise"][chain], *scales, keys, warm, sweeps, BOUND, user_noise,
                out["user_vector"][chain], levels, logs, first, last,
            )  # fmt: skip
            return int(failed)

        if n_threads == 1:
            bad = run(0, n_users)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                bad = sum(pool.map(run, edges[:-1], edges[1:]))
        if bad:
            raise SamplingError(f"{bad} updates of new users failed: a precision or a noise level is not finite.")
    return out


def _transfer_prior(model: TransferMF, held: dict[str, np.ndarray], chain: int, n_sources: int) -> tuple[Any, ...]:
    """What TransferMF says of users in each draw: scales of S0, mean, covariance, maps, chances that gates are off."""
    n_draws = held["item_vector"].shape[1]
    scale = np.ones((n_draws, n_sources, model.rank + 1))
    scale[:, :, 0] = held["source_bias_scale"][chain]
    maps = model.state_maps({name: x[chain] for name, x in held.items() if name == "map"}, n_sources)
    maps = np.ascontiguousarray(np.broadcast_to(maps, (n_draws, *maps.shape[-3:])))
    off = held["gate"][chain] if model.gate else np.zeros((n_draws, n_sources))
    return scale, held["user_mean"][chain], held["user_cov"][chain], maps, off, model.gate


@compiled
def _squares(d, cells, index, value, items, vector, noise, out, first, last):
    """Sums of squared residuals of users first..last in domain d, in units of its noise, to ``out`` (domain, user)."""
    n_domains, size = out.shape[0], vector.shape[1]
    for u in range(first, last):
        total = 0.0
        for t in range(cells[u * n_domains + d], cells[u * n_domains + d + 1]):
            item = items[index[t]]
            e = value[t] - vector[u, 0] - item[0]
            for k in range(1, size):
                e -= vector[u, k] * item[k]
            total += e * e
        out[d, u] = total / noise[d] ** 2


@compiled
def _weigh(cells, x, noise, bound, weight, first, last):
    """The precision of each rating of users first..last."""
    n_domains = len(noise)
    for u in range(first, last):
        for d in range(n_domains):
            w = np.exp(bound * np.tanh(x[d, u] / bound)) / noise[d] ** 2
            for t in range(cells[u * n_domains + d], cells[u * n_domains + d + 1]):
                weight[t] = w


@compiled
def _levels(x, level, squares, count, between, within, bound, key, room, first, last):
    """Two sweeps over the noise levels: given many ratings a level moves slowly, and a sweep costs little beside the vectors'."""
    own = key[len(key) - 5 - 2 * len(x) :]  # the keys of the second, behind all others
    bad = _level_sweep(x, level, squares, count, between, within, bound, key, room, first, last)
    return bad + _level_sweep(x, level, squares, count, between, within, bound, own, room, first, last)


@compiled
def _level_sweep(x, level, squares, count, between, within, bound, key, room, first, last):
    """A sweep over the noise levels of users first..last, as `NoisyResponse.blocks` has it; returns how many updates failed."""
    moved, shift, zeros, no_shift, one, leaf = room
    n_domains, bad = len(x), 0
    shift[:, first:last] = x[:, first:last] - level[first:last]
    kernels.normals(key[1], one, first, last)
    bad += noise_slices(level, zeros, between, count, squares, shift, bound, one, key[2], moved, first, last)
    level[first:last] = moved[first:last]
    for d in range(n_domains):
        x[d, first:last] = level[first:last] + shift[d, first:last]
        kernels.normals(key[5 + 2 * d], one, first, last)
        bad += noise_slices(
            x[d], level, within, count[d : d + 1], squares[d : d + 1], no_shift, bound, one, key[6 + 2 * d], moved, first,
            last,
        )  # fmt: skip
        x[d, first:last] = moved[first:last]
    kernels.normals(key[3], one, first, last)
    kernels.normals(key[4], leaf, first, last)
    for u in range(first, last):
        total, total_precision = 0.0, 1.0 / between**2
        for d in range(n_domains):
            if count[d, u] > 0:
                total += x[d, u] / within**2
                total_precision += 1.0 / within**2
        level[u] = total / total_precision + one[u, 0] / np.sqrt(total_precision)
        for d in range(n_domains):
            if count[d, u] == 0:
                x[d, u] = level[u] + within * leaf[u, d]
    return bad


@compiled
def _chain(
    cells, pointers, index, value, count, items, precision, linear, noise, between, within, keys, warm, sweeps, bound,
    user_noise, vectors, levels, logs, first, last,
):  # fmt: skip
    """One chain of the users first..last; returns how many updates failed."""
    n_draws, n_domains, n_users = items.shape[0], noise.shape[1], len(pointers) - 1
    x, level, moved = np.zeros((n_domains, n_users)), np.zeros(n_users), np.zeros(n_users)
    shift, squares = np.zeros((n_domains, n_users)), np.zeros((n_domains, n_users))
    zeros, no_shift, one = np.zeros(n_users), np.zeros((1, n_users)), np.zeros((n_users, 1))
    leaf = np.zeros((n_users, n_domains))
    vector, normal = np.zeros((n_users, items.shape[2])), np.zeros((n_users, items.shape[2]))
    group, weight = np.zeros(n_users, dtype=np.int64), np.zeros(len(value))
    bad, step = 0, 0
    for s in range(n_draws):
        for _ in range(sweeps if s else warm):
            key = keys[step]
            step += 1
            _weigh(cells, x, noise[s], bound, weight, first, last)
            kernels.normals(key[0], normal, first, last)
            bad += kernels.draw_rows(
                pointers, index, value, weight, items[s], group, precision[s : s + 1], linear[s : s + 1], normal, vector,
                first, last,
            )[0]  # fmt: skip
            if not user_noise:
                continue
            for d in range(n_domains):
                _squares(d, cells, index, value, items[s], vector, noise[s], squares, first, last)
            room = (moved, shift, zeros, no_shift, one, leaf)
            bad += _levels(x, level, squares, count, between[s], within[s], bound, key, room, first, last)
        vectors[s, first:last] = vector[first:last]
        if user_noise:
            levels[s, first:last] = level[first:last]
            logs[s, :, first:last] = x[:, first:last]
    return bad


@compiled
def _transfer_chain(
    cells, index, value, count, items, scale, mean, cov, maps, off, gated, noise, between, within, keys, warm, sweeps, bound,
    user_noise, vectors, sources, levels, logs, first, last,
):  # fmt: skip
    """One chain of the users first..last of TransferMF; returns how many updates failed."""
    n_draws, n_domains, n_users, size = items.shape[0], noise.shape[1], count.shape[1], items.shape[2]
    n_sources, n_normals, base = n_domains - 1, 2 * n_domains - 1, 5 + 2 * n_domains
    x, level, moved = np.zeros((n_domains, n_users)), np.zeros(n_users), np.zeros(n_users)
    shift, squares = np.zeros((n_domains, n_users)), np.zeros((n_domains, n_users))
    room = (
        moved,
        shift,
        np.zeros(n_users),
        np.zeros((1, n_users)),
        np.zeros((n_users, 1)),
        np.zeros((n_users, n_domains)),
    )
    theta, phi, used = (
        np.zeros((n_users, size)),
        np.zeros((n_sources, n_users, size)),
        np.zeros((n_sources, n_users, size)),
    )
    normal, uniforms = np.zeros((n_normals, n_users, size)), np.zeros((n_sources, n_users))
    gate, log_odds = np.ones((n_sources, n_users), dtype=np.bool_), np.zeros((n_sources, n_users))
    weight, present = np.zeros(len(value)), count > 0
    given, given_linear = np.empty((0, n_users, size, size)), np.empty((0, n_users, size))
    common, common_linear = np.empty((0, size, size)), np.empty((0, size))
    bad, step = 0, 0
    for s in range(n_draws):
        prepared = kernels.transfer_prepared(
            cells, index, value, weight, items[s], scale[s], mean[s], cov[s], maps[s], off[s], gated, present, given,
            given_linear, common, common_linear,
        )  # fmt: skip
        for _ in range(sweeps if s else warm):
            key = keys[step]
            step += 1
            _weigh(cells, x, noise[s], bound, weight, first, last)
            for k in range(n_normals):
                kernels.normals(key[base + k], normal[k], first, last)
            for u in range(first, last):
                stream = start(key[base + n_normals], u)
                for k in range(n_sources):
                    uniforms[k, u] = uniform(stream, k)
            bad += kernels.transfer_drawn(prepared, normal, uniforms, theta, phi, used, gate, log_odds, first, last)[0]
            if not user_noise:
                continue
            for d in range(n_domains):
                mine = theta if d == n_sources else phi[d]
                _squares(d, cells, index, value, items[s], mine, noise[s], squares, first, last)
            bad += _levels(x, level, squares, count, between[s], within[s], bound, key, room, first, last)
        vectors[s, first:last] = theta[first:last]
        sources[s, :, first:last] = phi[:, first:last]
        if user_noise:
            levels[s, first:last] = level[first:last]
            logs[s, :, first:last] = x[:, first:last]
    return bad
