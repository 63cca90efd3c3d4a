"""The rules of a verdict: from log-score differences of users to positive, negative or undetermined. Internal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayesrec.diagnostics.heldout import HeldOut
from bayesrec.diagnostics.power import needed_text
from bayesrec.diagnostics.wording import counted

__all__ = ["Judgement", "called", "chain_sums", "judge", "negative", "sampler_variance"]

LEAST_DELTA = 4.0  # summed log score below which nothing is claimed
LEAST_USERS = 30
CONFIDENCE = 0.95
BOOTSTRAP = 4000


@dataclass(frozen=True)
class Judgement:
    """The verdict on one set of held-out rows. Internal."""

    verdict: str
    probability: float
    delta: float
    delta_per_row: float
    se: float
    sampler_se: float
    n_users: int
    n_rows: int
    equal_user_mean: float
    reason: str


def judge(
    frames: list[pd.DataFrame],
    parts: list[HeldOut],
    chosen: list[np.ndarray],
    min_effect: float,
    seed: int,
    entity: str,
) -> Judgement:
    """Judge the chosen users of each part, or items where they are shared."""
    delta = np.concatenate([f["delta"].to_numpy()[c] for f, c in zip(frames, chosen, strict=True)])
    n = np.concatenate([f["n"].to_numpy()[c] for f, c in zip(frames, chosen, strict=True)])
    chains = [x for p, c in zip(parts, chosen, strict=True) for x in chain_sums(p, c)]
    sampler = sampler_variance(chains)
    n_users, n_rows, total = len(delta), int(n.sum()), float(delta.sum())
    clustered = n_users / (n_users - 1) * ((delta - delta.mean()) ** 2).sum() if n_users > 1 else np.nan
    verdict, probability = _classify(delta, chains, seed)
    reason = ""
    if n_users < LEAST_USERS:
        reason = f"only {counted(n_users, entity)}, at least {LEAST_USERS} are needed"
        reason += needed_text(delta, n, min_effect, entity)
    elif abs(total) < LEAST_DELTA:
        reason = f"the summed difference {total:+.1f} is below {LEAST_DELTA:g} nats"
    elif abs(total) / n_rows < min_effect:
        reason = f"the mean difference {total / n_rows:+.4f} is below the effect of interest {min_effect:g}"
    elif verdict == "undetermined":
        reason = f"the probability of negative transfer is {probability:.2f}"
        reason += needed_text(delta, n, min_effect, entity)
    elif _classify(np.delete(delta, np.argmax(np.abs(delta))), chains, seed)[0] != verdict:
        reason = f"one {entity} decides: without the {entity} with the largest difference the verdict changes"
    return Judgement(
        verdict="undetermined" if reason else verdict,
        probability=probability,
        delta=total,
        delta_per_row=total / n_rows,
        se=float(np.sqrt(clustered + sampler)),
        sampler_se=float(np.sqrt(sampler)),
        n_users=n_users,
        n_rows=n_rows,
        equal_user_mean=float((delta / n).mean()),
        reason=reason,
    )


def negative(delta: np.ndarray, chains: Sequence[np.ndarray], seed: int) -> float:
    """Probability that a sum over users (user,) is below zero, by the Bayesian bootstrap over users and over chains.

    ``chains`` are what each chain of each fit counts (:func:`chain_sums`). One chain in a bad mode makes a sum uncertain to the
    side of that mode alone; a normal of the same variance would say that it may as well lie on the other.
    """
    rng = np.random.default_rng(seed)
    below, done = 0.0, 0
    while done < BOOTSTRAP:  # in pieces: the weights of many users take room
        m = min(500, BOOTSTRAP - done)
        sums = len(delta) * (_bootstrap(rng, m, len(delta)) @ delta)
        for x in chains:  # the bootstrap's variance is Var (C - 1) / (C + 1) / C, and that of a mean is Var / C
            sums += np.sqrt((len(x) + 1.0) / (len(x) - 1.0)) * (_bootstrap(rng, m, len(x)) @ (x - x.mean()))
        below, done = below + (sums < 0).sum() + 0.5 * (sums == 0).sum(), done + m
    return float(below / BOOTSTRAP)


def _bootstrap(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    """Weights (m, n) of the Bayesian bootstrap, which sum to one."""
    weights = rng.standard_exponential((m, n))
    return weights / weights.sum(1, keepdims=True)


def called(delta: float, probability: float) -> str:
    """Verdict from a summed difference in nats and the probability that it is negative."""
    if abs(delta) < LEAST_DELTA:
        return "undetermined"
    if probability > CONFIDENCE:
        return "negative"
    return "positive" if probability < 1.0 - CONFIDENCE else "undetermined"


def _classify(delta: np.ndarray, chains: Sequence[np.ndarray], seed: int) -> tuple[str, float]:
    probability = negative(delta, chains, seed)
    return called(float(delta.sum()), probability), probability


def chain_sums(part: HeldOut, chosen: np.ndarray) -> list[np.ndarray]:
    """Shares (chain,) summed over the rows of chosen users, for each arm with chains enough."""
    rows = chosen[part.user]
    return [shares[:, rows].sum(1) for shares in part.shares]


def sampler_variance(chains: Sequence[np.ndarray]) -> float:
    """Variance of a summed difference that comes from the chains, given what they count (:func:`chain_sums`)."""
    return float(sum(x.var(ddof=1) / len(x) for x in chains))
