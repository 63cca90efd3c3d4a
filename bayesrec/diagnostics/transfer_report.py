"""TransferReport: what held-out ratings say about a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bayesrec.diagnostics import wording

__all__ = ["TransferReport"]


@dataclass(frozen=True)
class TransferReport:
    """What held-out ratings say about a source. Stable.

    Attributes
    ----------
    verdict : {"positive", "negative", "undetermined"}
    probability : float
        Probability of negative transfer: that the summed log-score difference is below zero; a tie counts one half.
    delta : float
        Log score with the source minus without, summed over held-out rows.
    delta_per_row, se : float
        Mean a row; standard error of ``delta``, clustered by user, with the sampler's noise. NaN for a single user.
    per_user : DataFrame
        user (item where items are shared), n (held-out rows), delta, joint (the same for all of a user's rows at once),
        regime; effect, effect_sd, harm: mean difference a row as a hierarchical model of the users of a regime has it,
        its posterior sd, and the probability that it is below zero (see Notes).
    regimes : DataFrame
        A row for each regime (cold: no target rating in training; few: 1 to 5; warm: more) with a verdict of its own.
    equal_user_mean : float
        Mean over users of their delta a row; heavy raters dominate the sum, not this.
    joint_delta : float
        As ``delta``, from the joint density of each user's rows.
    reason : str
        Why a verdict is undetermined; empty otherwise.
    rows : DataFrame or None
        A row for each held-out rating: user, item, n_own (the user's target ratings in training), value, mean, sd,
        lower, upper (90%), pit, mean_without, sd_without (the other arm's prediction), delta. Rating units but for pit
        and delta.
    entity : {"user", "item"}
        Which side is shared. Where it is the items, they stand in the users' place in everything above.
    metrics : DataFrame
        Index metric: log score (a rating), RMSE, CRPS, NDCG@10. Columns with_transfer, without, difference, se (clustered
        by user), harm (probability that the source makes it worse, by the Bayesian bootstrap over users), users. Only the
        log score's row, which is the verdict's, has the sampler's noise in it.
    segments : DataFrame
        A row for each level of each segment: segment, level, users, rows, delta_per_row, se (of that, clustered by user),
        effect and harm (partly pooled over the levels of the segment), verdict.
    sensitivity : DataFrame or None
        Of ``assess_transfer(sensitivity=True)``. Index variant; delta_per_row, se (of that), difference (from the default),
        verdict, all on the first fold.

    Notes
    -----
    CRPS is that of a normal with the predicted mean and sd, as in :class:`bayesrec.evaluation.Evaluation`: the exact one of
    a mixture takes the square of the number of draws. NDCG@10 ranks each user's own held-out rows, with gains above the
    lowest rating, and is the mean over users with two different ratings.

    A user's mean difference a row is taken as a normal effect, ``N(mu, tau^2)`` within a regime, with Student-t noise whose
    scale comes from the spread of the user's rows, moderated as by Smyth (2004), `smyth2004`. Noise that all rows of a user
    share is part of the effect: it is that of these fits.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=60, n_items=(20, 20), n_ratings=(15, 10), rank=1)
    >>> train, test = br.split.cold_users(br.Interactions.from_frame(frame, target="target", value="value"), fraction=0.6)
    >>> method = br.Gibbs(draws=20, warmup=20, chains=4)
    >>> fits = [br.fit(m, train, method, progress=False) for m in (br.models.TransferMF(rank=1), br.models.PMF(rank=1))]
    >>> found = br.negative_transfer(*fits, test)
    >>> found.verdict, found.probability < 0.05, found.regimes.index.tolist()
    ('positive', True, ['cold'])
    >>> found.per_user.columns.tolist()
    ['user', 'n', 'delta', 'joint', 'regime', 'effect', 'effect_sd', 'harm']
    >>> found.metrics.index.tolist(), found.segments["segment"].unique().tolist()
    (['log score', 'RMSE', 'CRPS', 'NDCG@10'], ['own ratings', 'source ratings'])
    """

    verdict: str
    probability: float
    delta: float
    delta_per_row: float
    se: float
    per_user: pd.DataFrame
    regimes: pd.DataFrame
    equal_user_mean: float
    joint_delta: float
    sampler_se: float
    reason: str
    sources: tuple = ()
    target: Any = None
    labels: tuple[str, str] = ("with the source", "without")
    notes: tuple[str, ...] = field(default_factory=tuple)
    rows: pd.DataFrame | None = field(default=None, repr=False)
    entity: str = "user"
    metrics: pd.DataFrame | None = field(default=None, repr=False)
    segments: pd.DataFrame | None = field(default=None, repr=False)
    sensitivity: pd.DataFrame | None = field(default=None, repr=False)

    def summary(self) -> str:
        """A few plain sentences with the numbers."""
        return wording.summary(self)

    def _repr_html_(self) -> str:
        return wording.card(self)

    def __repr__(self) -> str:
        return f"TransferReport({self.verdict!r}, delta={self.delta:+.1f}, se={self.se:.1f}, probability={self.probability:.3f})"
