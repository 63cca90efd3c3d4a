"""What a conformance check looks at: a model, a small table, a short fit. Internal."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
import pyro
import torch
from scipy.stats import norm

from bayesrec.data import Interactions, synthetic
from bayesrec.errors import BayesrecWarning, DataError
from bayesrec.inference import Gibbs, Method, fit
from bayesrec.likelihoods import Likelihood, Ordinal, Poisson
from bayesrec.models.base import Batch, Model
from bayesrec.posterior import Posterior

__all__ = ["Case", "example_frame", "global_state_untouched", "quiet", "suited"]

UNKNOWN = 10**6  # an id that no example table holds


def example_frame(seed: int = 0) -> pd.DataFrame:
    """Return the default table: 30 users, 12 + 10 items, 4 users without target rows, 10 noisy raters. Provisional.

    Parameters
    ----------
    seed : int

    Returns
    -------
    pandas.DataFrame
        Columns user, item, domain ("source", "target"), rating.

    Examples
    --------
    >>> example_frame().groupby("domain").size().to_dict()
    {'source': 180, 'target': 104}
    """
    frame, _ = synthetic.cross_domain(
        n_users=30, n_items=(12, 10), n_ratings=(6, 4), rank=1, n_cold=4, noise=0.5, seed=seed
    )
    noise = np.random.default_rng([seed, 1]).standard_normal(len(frame))
    return frame.assign(value=frame["value"] + noise * (frame["user"] % 3 == 0)).rename(columns={"value": "rating"})


def suited(frame: pd.DataFrame, likelihood: Likelihood) -> pd.DataFrame:
    """Return a table with ratings that a likelihood can have produced: real ones become levels, clicks or counts. Provisional.

    Parameters
    ----------
    frame : pandas.DataFrame
        With the columns domain and rating.
    likelihood : Likelihood
        A table that it accepts stays as it is.

    Returns
    -------
    pandas.DataFrame

    Examples
    --------
    >>> from bayesrec.likelihoods import Bernoulli
    >>> suited(example_frame(), Bernoulli())["rating"].unique().tolist()
    [1.0, 0.0]
    """
    try:
        with quiet():
            for name, part in frame.groupby("domain"):
                likelihood.check(part["rating"].to_numpy(), name)
        return frame
    except DataError:
        pass
    grade = frame.groupby("domain")["rating"].rank(pct=True)
    if isinstance(likelihood, Ordinal):
        levels = np.array(likelihood.levels or (1.0, 2.0, 3.0, 4.5))
        rating = levels[np.ceil(grade * len(levels)).astype(int) - 1]
    elif isinstance(likelihood, Poisson):
        rating = np.floor(np.exp(1.2 + norm.ppf(grade - 0.5 / len(frame)) * 0.7))
    else:
        rating = frame["rating"]
    return frame.assign(rating=rating)


@dataclass
class Case:
    """A model with a table to fit it to. Provisional.

    Attributes
    ----------
    model : Model
    uses_source : bool
        Whether source rows may change what the model says of the target.
    frame : pandas.DataFrame
        Columns user, item, domain and rating; integer user ids below a million. The default suits real-valued ratings. Of
        a model that uses features further columns, ``user_...`` and ``item_...``, are those of the row's user and item.
    target : str
    method : Method

    Examples
    --------
    >>> from bayesrec.models import PMF
    >>> from bayesrec.testing.draws import draws_match_dims
    >>> case = Case(PMF(rank=1), uses_source=False)
    >>> case.posterior.n_chains, len(case.target_frame)
    (2, 104)
    >>> draws_match_dims(case)  # one of the checks of ModelConformance; it raises where something is wrong
    """

    model: Model
    uses_source: bool = True
    frame: pd.DataFrame = field(default_factory=example_frame)
    target: str = "target"
    method: Method = field(default_factory=lambda: Gibbs(draws=40, warmup=20, chains=2))

    def interactions(self, frame: pd.DataFrame | None = None) -> Interactions:
        """Return the table, or another one with the same columns, as interactions."""
        frame = self.frame if frame is None else frame
        sides = ("user", "item") if self.model.features else ()
        tables: dict[str, Any] = {f"{side}_features": self.features(side, frame) for side in sides}
        return Interactions.from_frame(frame, target=self.target, **tables)

    def features(self, side: str, frame: pd.DataFrame) -> pd.DataFrame | None:
        """Return the table of features of users or items that the columns of a frame hold; None if there are none."""
        names = [name for name in frame.columns if name.startswith(f"{side}_")]
        ids = [side] if side == "user" else [side, "domain"]
        return frame[[*ids, *names]].drop_duplicates(ids) if names and self.model.features else None

    def fit(self, data: Interactions | None = None, method: Method | None = None, seed: int = 0) -> Posterior:
        """Fit the model, by default to the case's own table with its own method."""
        data = self.data if data is None else data
        with quiet():
            return fit(self.model, data, method or self.method, seed=seed, progress=False)

    def with_chains(self, n: int) -> Method:
        """Return the case's method with another number of chains; every method of the package has some."""
        return cast(Method, replace(cast(Any, self.method), chains=n))

    def eta(self, posterior: Posterior, frame: pd.DataFrame | None = None) -> np.ndarray:
        """Return expected values of the target rows of the table, or of another one, (chain, draw, row), in sd units."""
        frame = self.frame if frame is None else frame
        batch = posterior.data.encode(frame[frame["domain"] == self.target])
        codes = Batch(*(torch.from_numpy(np.array(x)) for x in (batch.user, batch.item, batch.domain)))
        eta = self.model.score(posterior.latents(), codes).numpy().astype(float)
        return eta.reshape(posterior.n_chains, posterior.n_draws, -1)

    @cached_property
    def data(self) -> Interactions:
        """The interactions."""
        return self.interactions()

    @cached_property
    def posterior(self) -> Posterior:
        """One fit, shared by the checks."""
        return self.fit()

    @cached_property
    def rows(self) -> Batch:
        """All rows that the model looks at, as code tensors."""
        data = self.posterior.data
        return Batch(*(torch.from_numpy(np.array(x)) for x in (data.user, data.item, data.domain)))

    @cached_property
    def target_frame(self) -> pd.DataFrame:
        """The target rows of the table."""
        return self.frame[self.frame["domain"] == self.target].reset_index(drop=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the package's own warnings: the fits of a conformance test are short."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesrecWarning)
        yield


@contextmanager
def global_state_untouched(what: str) -> Iterator[None]:
    """Fail if the block moves a global generator (Python, NumPy, torch) or fills Pyro's parameter store."""

    def state() -> tuple[str, str, str]:
        # reading, not using, the legacy generator
        return str(random.getstate()), str(np.random.get_state()), str(torch.get_rng_state().tolist())  # noqa: NPY002

    before = state()
    stored = set(pyro.get_param_store().keys())
    yield
    for name, old, new in zip(("Python's", "NumPy's", "torch's"), before, state(), strict=True):
        assert old == new, f"{what} changes {name} global random state"
    assert set(pyro.get_param_store().keys()) == stored, f"{what} leaves parameters in Pyro's store"
