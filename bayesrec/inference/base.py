"""fit, load and sample_prior; what a method of inference is."""

from __future__ import annotations

import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyro
import torch

from bayesrec.data import Interactions
from bayesrec.data.batch import Batch as Rows
from bayesrec.data.frames import open_frame
from bayesrec.data.interactions import checked_interactions
from bayesrec.data.seeds import checked_seed
from bayesrec.errors import ConvergenceWarning, DataError, UnsupportedMethodError
from bayesrec.models.base import Batch, Model, Schema
from bayesrec.posterior import Posterior
from bayesrec.posterior.activity import check_activity, met_by_ratings
from bayesrec.posterior.arviz import axes, row_axis

__all__ = ["Method", "fit", "fit_unchecked", "sample_prior"]

ALONE = threading.RLock()  # who uses Pyro has it


class Method(ABC):
    """How to get from a model and data to draws: a frozen config value with one ``run``. Provisional.

    ``approximates`` says that draws come from an approximation about one point in each chain; ``alone`` that fits in several
    threads wait for one another, since Pyro has one stack of handlers for all of them.
    """

    approximates: ClassVar[bool] = False
    alone: ClassVar[bool] = False

    @abstractmethod
    def run(
        self,
        model: Model,
        data: Interactions,
        schema: Schema,
        seed: int,
        progress: bool,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
        watch: Rows | None = None,
    ) -> Posterior:
        """Return the posterior. ``data`` is what the model looks at, checked; ``watch`` has rows in its codes."""


@contextmanager
def whole_fits(message: str) -> Iterator[None]:
    """End with KeyboardInterrupt(message) where a fit was interrupted and would give back the draws it has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "interrupted", ConvergenceWarning)
        try:
            yield
        except ConvergenceWarning as stop:
            if not str(stop).startswith("interrupted"):
                raise
            raise KeyboardInterrupt(message) from stop


def needs_gibbs(method: Method, checkpoint: Any, device: str, watch: Any) -> None:
    """Refuse those of these options of ``fit`` that are given."""
    for name, given, others in (
        ("checkpoint", checkpoint is not None, "Gibbs, SVI and VMP"),
        ("watch", watch is not None, "Gibbs, SVI and VMP"),
        ("device", device != "cpu", "Gibbs and SVI"),
    ):
        if given:
            raise UnsupportedMethodError(f"{type(method).__name__} cannot use fit({name}=...) so far; {others} can.")


def whole_number(method: Method, name: str, least: int) -> int:
    """An option of a method as a plain integer; DataError if it is none or too small."""
    value = getattr(method, name)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        label = type(method).__name__
        raise DataError(f"{label}({name}=...) must be a whole number of at least {least}, not {value!r}")
    return int(value)  # a NumPy integer is no JSON


def positive_number(method: Method, name: str) -> float:
    """An option of a method as a plain float above zero; DataError otherwise."""
    value = getattr(method, name)
    number = (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, number) or not 0.0 < value < float("inf"):
        raise DataError(f"{type(method).__name__}({name}=...) must be a number above 0, not {value!r}")
    return float(value)


def fit(
    model: Model,
    data: Interactions,
    method: Method,
    *,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    watch: Any = None,
) -> Posterior:
    """Fit a model to data. Stable.

    Parameters
    ----------
    model : Model
        Is not changed.
    data : Interactions
    method : Method
        For example ``Gibbs(draws=500)``.
    seed : int
        Two fits with one seed are equal, whatever the number of threads.
    progress : bool
        Show a progress bar, if the standard error stream is a terminal.
    checkpoint : str or Path, optional
        A folder where every chain writes its state now and then. The same call after an interruption, or after the
        process was killed, goes on from there and gives the draws of an unbroken run; the files go when it is done.
    device : str
        ``"cpu"``, or a GPU as torch calls it, such as ``"cuda"``: Gibbs then updates users and items there, SVI computes its
        gradients there. Equal in law, not bit for bit.
    watch : DataFrame or Interactions, optional
        Rows as for ``predict``, with or without values. Their predictions gather while Gibbs, SVI or VMP runs, over every
        draw, whatever is kept: ``posterior.watched``.

    Returns
    -------
    Posterior

    Raises
    ------
    DataError
        Data that the model or its likelihood cannot use: no source, no shared users, constant values. A checkpoint
        of another model, method, seed or data.
    UnsupportedMethodError
        A device that this machine does not have, or that the method cannot use.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> br.fit(br.models.TransferMF(rank=1), data, br.Gibbs(draws=5, warmup=5, chains=2), progress=False).n_chains
    2
    """
    for value, kind, name in ((model, Model, "model"), (data, Interactions, "data"), (method, Method, "method")):
        if not isinstance(value, kind):
            if name == "data":
                checked_interactions(value)
            hint = " Call it: br.models.PMF(rank=8)." if name == "model" and isinstance(value, type) else ""
            raise TypeError(f"{name} must be a {kind.__name__}, not {value!r}.{hint}")
    seed = checked_seed(seed)
    _check_device(device)
    if checkpoint is not None and Path(checkpoint).is_file():
        raise DataError(f"checkpoint must name a folder, and {str(checkpoint)!r} is a file; name another place")
    view = _view(model, data)
    model = model.bound(view, data)
    model.check(view)
    if model.activity:
        check_activity(model, method, watch)
    more: dict[str, Any] = (
        {} if device == "cpu" and watch is None else {"device": device, "watch": _watched_rows(view, watch)}
    )
    schema = Schema.of(view, model.likelihood)
    with ALONE if method.alone else nullcontext():
        posterior = method.run(model.of_people, view, schema, seed, progress, checkpoint, **more)
    return met_by_ratings(posterior, model, seed)


def _check_device(device: Any) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UnsupportedMethodError(
            f"device {device!r} cannot be used: {reason.rstrip('.')}. 'cpu' always can."
        ) from error


def _watched_rows(view: Interactions, rows: Any) -> Rows | None:
    """The rows of ``fit(watch=...)`` in the codes of what the model sees, with values where the table has them."""
    if rows is None:
        return None
    column = view.columns.value
    has_value = isinstance(rows, Interactions) or (column is not None and column in open_frame(rows).columns)
    return view.encode(rows, need_value=has_value)


def _view(model: Model, data: Interactions) -> Interactions:
    """What the model sees of the data, in which users are shared: shared items have the role of users."""
    return model.view(data if data.shared == "users" else data.transposed())


def fit_unchecked(model: Model, data: Interactions, method: Method, seed: int, progress: bool = False) -> Posterior:
    """Fit without asking whether the model has a source: the other arm of a negative-transfer gap."""
    view = _view(model, data)
    model = model.bound(view, data)
    posterior = method.run(model.of_people, view, Schema.of(view, model.likelihood), seed, progress)
    return met_by_ratings(posterior, model, seed)


def sample_prior(model: Model, data: Interactions, draws: int = 500, seed: int = 0) -> Any:
    """Draw latents and ratings from the prior, before any rating is seen: the prior predictive check. Stable.

    Parameters
    ----------
    model : Model
    data : Interactions
        Gives sizes, units and the cells whose ratings are simulated (the target rows).
    draws : int
    seed : int
        The global random state of torch is left as it was.

    Returns
    -------
    xarray.DataTree
        Groups ``prior``, ``prior_predictive`` (in the units of the ratings) and ``observed_data``.

    Raises
    ------
    DataError
        Fewer draws than one, a seed that is no whole number of 0 or more, data that the model cannot use.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> tree = br.sample_prior(br.models.PMF(rank=2), data, draws=3)
    >>> tree["prior_predictive"]["value"].shape
    (1, 3, 80)
    """
    from arviz_base import from_dict

    if isinstance(draws, bool) or not isinstance(draws, (int, np.integer)) or draws < 1:
        raise DataError(f"draws must be at least 1, not {draws!r}; give a whole number")
    seed = checked_seed(seed)
    checked_interactions(data)
    view = _view(model, data)
    model = model.bound(view, data).of_people
    model.check(view)
    schema = Schema.of(view, model.likelihood)
    rows = view.mask(view.is_target)
    codes = Batch(*(torch.from_numpy(np.array(x)) for x in (rows.user, rows.item, rows.domain)))
    sites: dict[str, list[np.ndarray]] = {name: [] for name in model.dims}
    ratings = []
    with ALONE, torch.random.fork_rng(devices=[]), pyro.poutine.block():
        torch.manual_seed(seed)
        for _ in range(draws):
            latents = model.prior(schema)
            value = model.likelihood.distribution(model.score(latents, codes), latents, codes).sample()
            ratings.append(schema.units[-1].decode(value.numpy()))
            for name in sites:
                sites[name].append(latents[name].numpy())
    prior = {name: np.stack(x)[None] for name, x in sites.items()}
    column = view.columns.value or "value"
    shell = Posterior(prior, model, None, view, schema)
    dims, coords = axes(shell)
    tree = from_dict({"prior": prior}, dims=dims, coords=coords)
    groups = {"prior_predictive": {column: np.stack(ratings)[None]}, "observed_data": {column: rows.value}}
    axis = row_axis(column)
    for name, group in from_dict(groups, dims={column: [axis]}, coords={axis: np.arange(len(rows))}).children.items():
        tree[name] = group  # apart: a value column may be named like a site
    return tree
