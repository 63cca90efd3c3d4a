"""From held-out rows to a line for each user. Internal."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from bayesrec.diagnostics.effects import effects
from bayesrec.diagnostics.heldout import HeldOut, regime_of

__all__ = ["everyone", "log_scores", "user_frame"]


def log_scores(part: HeldOut) -> np.ndarray:
    """Log densities (2, row) with the source and without, chains pooled as densities."""
    return np.stack([logsumexp(x, axis=0) - np.log(len(x)) for x in (part.with_chains, part.without_chains)])


def user_frame(part: HeldOut, entity: str) -> pd.DataFrame:
    """A line for each user: entity, n, delta, joint, regime, and what `effects` needs besides."""
    size = len(part.ids)
    scores = log_scores(part)
    difference = scores[0] - scores[1]
    n = np.bincount(part.user, minlength=size)
    delta = np.bincount(part.user, difference, minlength=size)
    within = np.bincount(part.user, (difference - (delta / n)[part.user]) ** 2, minlength=size)
    sampler = np.zeros(size)
    for shares in part.shares:
        sums = np.stack([np.bincount(part.user, share, minlength=size) for share in shares])
        sampler += (sums / n).var(0, ddof=1) / len(shares)
    table = {entity: part.ids, "n": n, "delta": delta, "joint": part.joint, "regime": regime_of(part.n_own)}
    return pd.DataFrame(table | {"within": within, "sampler": sampler})


def everyone(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The lines of all parts, with each user's effect."""
    table = pd.concat(frames, ignore_index=True)
    found = effects(*(table[name].to_numpy() for name in ("delta", "n", "within", "sampler", "regime")))
    return table.drop(columns=["within", "sampler"]).assign(
        **dict(zip(("effect", "effect_sd", "harm"), found, strict=True))
    )
