"""Posterior: draws, and everything that is computed from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp

from bayesrec.data import Interactions
from bayesrec.errors import DataError, NotFittedError
from bayesrec.likelihoods.predicted import Predicted
from bayesrec.models.base import Model, Schema
from bayesrec.posterior import answers, arviz, convergence, html, predictive, store, summary
from bayesrec.posterior.learning import Learning
from bayesrec.sources import SourcePrior

__all__ = ["Posterior"]


@dataclass(frozen=True)
class Posterior(Learning):
    """Draws from the posterior of a model, with the data they came from. Stable.

    Attributes
    ----------
    draws : dict of ndarray, (chain, draw, *event), float32
        One array for each site of ``model.dims``; factors are in sd units of the ratings.
    model, method
        What was fitted, and how.
    data : Interactions
        The rows that the model looked at; no rows if it was saved without data. Where items are shared it is the
        transposed table: items have the role of users.
    schema : Schema
        Sizes and units.
    stats : dict of ndarray, (chain, draw)
        What the sampler reports: ``log_density`` of the training ratings.
    moments : dict of (ndarray, ndarray)
        Mean and sd, each (chain, *event), of the sites whose draws were not kept, ``Gibbs(keep=...)``. Factors rotate, so the
        moments of different chains are not to be pooled.
    watched : DataFrame or None
        Of the rows of ``fit(watch=...)``: user, item[, domain], mean and sd as ``predict`` has them, log_score where there were
        values, and rhat of the expected rating over the chains; from every draw, kept or not.
    shelf : ndarray of int or None
        Codes of the items with a target row in training, if these rows are not in ``data``, ``fold_in(alone=True)``.
    memory : dict
        What was worked out before and newcomers ask for again and again; see :meth:`recalled`.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> posterior = br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=10, warmup=10, chains=2), progress=False)
    >>> posterior.draws["user_vector"].shape  # chain, draw, user, component: the bias and one factor
    (2, 10, 20, 2)
    >>> new = frame.head(4).assign(user=99)  # source ratings of somebody who was not in the fit
    >>> posterior.fold_in(new).predict(pd.DataFrame({"user": [99], "item": [0]})).columns.tolist()
    ['user', 'item', 'mean', 'sd', 'lower', 'upper']
    """

    draws: dict[str, np.ndarray]
    model: Model
    method: Any
    data: Interactions
    schema: Schema
    stats: dict[str, np.ndarray] = field(default_factory=dict)
    moments: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    watched: Any = None
    shelf: np.ndarray | None = None
    memory: dict[str, tuple[Any, Any]] = field(default_factory=dict, repr=False, compare=False)

    def recalled(self, name: str, of: Any, work_out: Callable[[], Any]) -> Any:
        """What ``work_out`` returns, asked once as long as ``of`` is the same object. Internal."""
        known = self.memory.get(name)
        if known is None or known[0] is not of:
            known = self.memory[name] = (of, work_out())
        return known[1]

    @property
    def n_chains(self) -> int:
        """Number of chains."""
        return next(iter(self.draws.values())).shape[0]

    @property
    def n_draws(self) -> int:
        """Number of draws in each chain."""
        return next(iter(self.draws.values())).shape[1]

    def __repr__(self) -> str:
        size = sum(a.nbytes for a in self.draws.values()) / 2**20
        place = " in files" if any(isinstance(a, np.memmap) for a in self.draws.values()) else ""
        sizes = {arviz.called(self, "user"): self.data.n_users, arviz.called(self, "item"): self.data.n_items}
        return (
            f"Posterior({self.model!r}, {self.n_chains} chains x {self.n_draws} draws, "
            f"{sizes['user']} users, {sizes['item']} items, {size:.0f} MiB{place})"
        )

    def _repr_html_(self) -> str:
        return html.posterior_html(self)

    def require_data(self, purpose: str) -> None:
        """Raise NotFittedError if the ratings were left out when the posterior was saved."""
        if not len(self.data):
            raise NotFittedError(f"{purpose} needs the training ratings, and this posterior was saved with data=False.")

    def require_draws(self, purpose: str) -> None:
        """Raise NotFittedError if the draws of a site were not kept."""
        missing = [name for name in self.model.dims if name not in self.draws]
        if missing:
            raise NotFittedError(
                f"{purpose} needs the draws of {missing}, which Gibbs(keep={self.method.keep!r}) left out. Fit with keep=None, "
                "or name the rows in fit(watch=...), whose predictions gather while the chains run."
            )

    def predict(self, frame: Any, level: float = 0.9) -> Any:
        """Predict new ratings, parameters and noise included.

        Parameters
        ----------
        frame : DataFrame or Interactions
            User and item columns, and a domain column unless all rows belong to the target. An id that was not in
            the fit means the population: its prior, integrated out.
        level : float
            Probability of the central interval.

        Returns
        -------
        DataFrame
            One row for each row of ``frame``, in its order: user, item[, domain], mean, sd, lower, upper, in the
            units of the ratings. The interval is not clipped to the scale.

        Raises
        ------
        DataError
            A missing column, or a domain that was not fitted.

        Examples
        --------
        >>> import bayesrec as br
        >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
        >>> data = br.Interactions.from_frame(frame, target="target", value="value")
        >>> posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=20, warmup=10, chains=1), progress=False)
        >>> posterior.predict(frame[frame.domain == "target"].head(2)).columns.tolist()
        ['user', 'item', 'domain', 'mean', 'sd', 'lower', 'upper']
        """
        return answers.predict(self, frame, level)

    def predict_proba(self, frame: Any) -> Any:
        """Predict the probability of each level that a rating can take.

        Parameters
        ----------
        frame : DataFrame or Interactions
            As for :meth:`predict`.

        Returns
        -------
        DataFrame
            One row for each row of ``frame``, in its order: user, item[, domain], and for each level a column named after
            it, such as ``"p_4.5"``. Rows sum to one.

        Raises
        ------
        DataError
            A likelihood whose ratings are not on levels, or rows of domains with different levels.

        Examples
        --------
        >>> import bayesrec as br
        >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
        >>> frame["value"] = frame["value"].round().clip(2, 4)
        >>> data = br.Interactions.from_frame(frame, target="target", value="value")
        >>> model = br.models.PMF(rank=1, likelihood=br.Ordinal())
        >>> posterior = br.fit(model, data, br.Gibbs(draws=20, warmup=10, chains=1), progress=False)
        >>> posterior.predict_proba(frame[frame.domain == "target"].head(2)).columns.tolist()
        ['user', 'item', 'domain', 'p_2', 'p_3', 'p_4']
        """
        return answers.predict_proba(self, frame)

    def laws(self, batch: Any) -> Iterator[tuple[slice, Predicted]]:
        """Predictive distributions of the rows of a batch, a chunk of them at a time. Internal."""
        codes = (batch.user, batch.item, batch.domain)
        return predictive.components(self.model, self.draws, self.schema, *codes)

    def log_score(self, frame: Any) -> np.ndarray:
        """Log posterior predictive density of each row's value, float64 (row,).

        Parameters
        ----------
        frame : DataFrame or Interactions
            As for :meth:`predict`, with the value column.
        """
        return logsumexp(self.scores(frame)[0], axis=0) - np.log(self.n_chains)

    def scores(self, frame: Any, look: Any = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log predictive densities under each chain, and of each user's rows taken together. Internal.

        ``look(rows, law)`` sees the predictive distributions of each chunk of rows on the way.

        Returns
        -------
        by_chain : ndarray, (chain, row)
            Log density of each row under the draws of one chain: the spread over chains is sampler noise.
        user : ndarray, (row,)
            Position of each row's user in ``joint``, by id.
        joint : ndarray, (user,)
            Log density of all rows of a user at once. The rows of an unknown user share a vector, which is
            integrated out, domain by domain.
        """
        return answers.scores(self, frame, look)

    def expected(self, user: int, items: np.ndarray) -> np.ndarray:
        """Draws of the expected target rating of one user (code, -1 unknown) for items (codes): (draw, item).

        Users and items are the caller's. All unknown users have the same draws, each that of a user taken from the
        population. Internal.
        """
        return answers.expected(self, user, items)

    def draw(
        self, chain: int, draw: int, users: np.ndarray | None = None, items: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """One draw as a state (float64), with the axes cut down to ``users`` and ``items`` (codes) if given."""
        return answers.draw(self, chain, draw, users, items)

    def latents(self) -> dict[str, torch.Tensor]:
        """All draws as tensors (chain * draw, *event)."""
        return predictive.flat(self.draws)

    def log_likelihood(self) -> np.ndarray:
        """Log density of every target row of the training data given each draw, (chain, draw, row)."""
        return answers.log_likelihood(self)

    def as_prior(
        self, side: str = "user", privacy: tuple[float, float, float] | None = None, seed: int | None = None
    ) -> SourcePrior:
        """Summarise a source for use in the fit of a target: a mean and a covariance for each user. Provisional.

        The sequential mode: the source is fitted alone, its summary crosses over and its ratings stay behind. The
        user's vector is whitened by the population of each draw, all draws are turned to one orientation (generalised
        Procrustes on the items), and the moments are those of the vector given everything else in a draw, averaged over
        draws. Component 0 is what the user adds to an average rating.

        Parameters
        ----------
        side : {"user", "item"}
            The side whose ids are shared between domains: "item" for a fit of data with ``shared="items"``.
        privacy : (epsilon, delta, clip), optional
            Adds noise to what each user's ratings contribute (the Gaussian mechanism, calibrated exactly), and counts it
            as uncertainty. :class:`SourcePrior` says what is protected and what is not. Every call spends the budget anew.
        seed : int, optional
            Seed of that noise. None takes it from the operating system. Who knows the seed can subtract the noise.

        Returns
        -------
        SourcePrior
            Users with ratings only.

        Raises
        ------
        DataError
            A side that is not shared, a model other than PMF, draws that cannot be aligned, a budget that is not positive.
        NotFittedError
            A posterior that was saved without its ratings.

        Warns
        -----
        ConvergenceWarning
            A chain that found other factors than the rest.

        References
        ----------
        Posterior propagation in matrix factorisation: `qin2019`. The analytic Gaussian mechanism: Balle and Wang (2018),
        "Improving the Gaussian Mechanism for Differential Privacy".

        Examples
        --------
        >>> import bayesrec as br
        >>> frame, _ = br.data.synthetic.cross_domain(n_users=50, n_items=(20, 10), n_ratings=(12, 4), rank=1)
        >>> book = frame[frame.domain == "source"].drop(columns="domain")
        >>> data = br.Interactions.from_frame(book, target="book", domain=None, value="value")
        >>> posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=50, warmup=50, chains=2), progress=False)
        >>> prior = posterior.as_prior("user")
        >>> prior, prior.mean.shape, prior.cov.shape
        (SourcePrior('book', 50 users, rank 1), (50, 2), (50, 2, 2))
        """
        return summary.as_prior(self, side, privacy, seed)

    def to_datatree(self, log_likelihood: bool = True) -> Any:
        """ArviZ: groups posterior, log_likelihood (target rows), log_prior, observed_data and sample_stats.

        Parameters
        ----------
        log_likelihood : bool
            False leaves that group out: it has a number for each draw and target row.

        Returns
        -------
        xarray.DataTree
        """
        return arviz.to_datatree(self, log_likelihood)

    def diagnostics(self) -> pd.DataFrame:
        """R-hat and effective sample sizes of identified quantities; factors rotate and are not among them.

        Returns
        -------
        DataFrame
            Index: quantity. Columns: mean, sd, rhat, ess_bulk, ess_tail. One chain is compared half against half.

        Warns
        -----
        ConvergenceWarning
            Where R-hat is above 1.1 for any of them.
        """
        return convergence.diagnostics(self)

    def save(self, path: str | Path, data: bool = True) -> Path:
        """Write the posterior to a folder: arrays and JSON, no pickle. An existing folder is replaced at the end.

        Parameters
        ----------
        path : str or Path
        data : bool
            False leaves the ratings out; what needs them (source weights, ``exclude="seen"``) then says so. Features
            are saved if the model uses them; graphs that came with the data are not.

        Returns
        -------
        Path
        """
        if self.shelf is not None:
            raise DataError("a posterior that knows new users alone is not saved; save the one of the fit.")
        return store.save(self, path, data)
