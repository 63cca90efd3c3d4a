"""The Gibbs blocks of TransferMF for users whom the domains share. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesrec import conjugate
from bayesrec.blocks import Block, State
from bayesrec.conjugate import Table
from bayesrec.linear_maps import without_shift
from bayesrec.models import features, priors, sequential

__all__ = ["SOURCE_BIAS_SCALE", "blocks"]

SOURCE_BIAS_SCALE = 0.5


def blocks(model: Any, table: Table) -> list[Block]:
    """Noise, populations, map and gates' rates first; then users in all domains at once; then items."""
    rank, likelihood = model.rank, model.likelihood
    size, n_sources, n_users = rank + 1, table.n_domains - 1, table.n_users
    present = likelihood.present(table)
    in_target = present[-1]
    given = sequential.given(model.source, table.user_ids, n_users)
    in_source = sequential.known(present, given)
    maps_prior, discrepancy = model.map_prior, model.discrepancy
    prior_mean_precision = 1.0 / priors.mean_scale(rank)[None] ** 2
    used_entries = model.used()
    intercept = np.ones((1, size), dtype=bool)
    free = np.concatenate([intercept, np.tile(used_entries.T, (n_sources, 1))])

    def users(state: State, rng: np.random.Generator) -> State:
        value, weight = likelihood.working(state, table, "user")
        shift, items = features.user_shift(state, table), state["item_vector"]
        if shift is not None:  # of the target alone
            cells = np.zeros((n_users, n_sources + 1, size))
            cells[:, -1] = shift
            cells = cells.reshape(-1, size)
            value = without_shift(table.user_ptr, table.user_item, value, items, cells, table.workers)
        scale = np.ones((n_sources, size))
        scale[:, 0] = state.get("source_bias_scale", 1.0)
        off = state["gate"] if model.gate else np.zeros(n_sources)
        on = state.get("on", np.ones((n_sources, n_users), dtype=bool))
        drawn = conjugate.transfer_rows(
            table, value, weight, items, scale, state["user_mean"], state["user_cov"],
            model.state_maps(state, n_sources), off, on, model.gate, rng, given,
            likelihood.everywhere(state, table, items), present,
        )  # fmt: skip
        return drawn if shift is None else drawn | {"user_vector": drawn["user_vector"] + shift}

    def stacked(state: State) -> np.ndarray:
        return np.concatenate([state["source_vector"], state["user_vector"][None]]).reshape(-1, size)

    def population(state: State, rng: np.random.Generator) -> State:
        # Users who are not in the target are leaves of this regression: nothing is known of their theta but its prior.
        used = state["phi_used"][:, in_target]
        columns, spread = [np.ones((in_target.sum(), 1))], [prior_mean_precision]
        shift = features.user_shift(state, table)
        response = state["user_vector"][in_target] - (0.0 if shift is None else shift[in_target])
        if maps_prior.dims:
            columns, sd = [*columns, *used], maps_prior.sd(state)
            spread += [1.0 / np.maximum(one, 1e-100).T ** 2 for one in sd]
        else:
            response = response - (used * used_entries.diagonal()).sum(0)
        design = np.concatenate(columns, axis=1)
        coefficients = conjugate.regression(
            design, response, state["user_cov"], np.concatenate(spread), rng, free[: design.shape[1]]
        )
        residual = response - design @ coefficients
        cov = discrepancy.covariance(state, residual.T @ residual, len(residual), rng)
        out = {"user_mean": coefficients[0], "user_cov": cov}
        if not maps_prior.dims:
            return out
        maps = coefficients[1:].reshape(n_sources, size, size).transpose(0, 2, 1)
        if not used_entries.all():
            maps = np.where(used_entries, maps, sd * rng.standard_normal(maps.shape))
        return out | {"map": np.ascontiguousarray(maps)}

    def source_bias(state: State, rng: np.random.Generator) -> State:
        copies = in_target & ~(state["on"] & in_source)
        bias = np.where(in_source, state["source_vector"][..., 0], 0.0) ** 2
        copy = np.where(copies, state["phi_used"][..., 0], 0.0) ** 2
        n = in_source.sum(1) + copies.sum(1)
        squares = bias.sum(1) + copy.sum(1)
        scale = conjugate.half_t_scale(state["source_bias_scale"], squares, n, SOURCE_BIAS_SCALE, rng)
        return {"source_bias_scale": scale}

    def gates(state: State, rng: np.random.Generator) -> State:
        both = in_source & in_target
        on = (state["on"] & both).sum(1)
        return {"gate": conjugate.bernoulli_rate(both.sum(1) - on, on, model.gate_prior, rng)}

    def unexplained(state: State) -> np.ndarray:
        used, maps = state["phi_used"][:, in_target], model.state_maps(state, n_sources)
        return state["user_vector"][in_target] - (used @ maps.transpose(0, 2, 1)).sum(0)

    items, item_populations = priors.item_blocks(
        table, rank, likelihood, stacked, model.rater_index(table), model.features, priors.stacked(present)
    )
    user_map = []
    if model.features:
        own = priors.user_scale(rank), priors.mean_scale(rank)
        user_map = [features.user_map_block(unexplained, table.user_x[in_target], *own)]
    noise = likelihood.blocks(table, model.fitted(table))
    scales = tuple(name for name in maps_prior.dims if name != "map")
    # Populations before members: a kept draw's users and items without rows belong to its populations.
    return [
        *(block for block in noise if not block.local),
        *item_populations,
        *user_map,
        Block("map", ("user_mean", "user_cov", *(("map",) if maps_prior.dims else ())), population),
        *([Block("map_scale", scales, maps_prior.update)] if scales else []),
        *([Block("discrepancy", tuple(discrepancy.dims), discrepancy.scales)] if discrepancy.dims else []),
        *([Block("source_bias", ("source_bias_scale",), source_bias)] if model.source is None else []),
        *([Block("gate", ("gate",), gates)] if model.gate else []),
        Block("users", ("source_vector", "user_vector"), users, local=True),
        items,
        *(block for block in noise if block.local),
    ]
