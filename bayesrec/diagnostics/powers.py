"""How much a source rating counts: the exponent of a power prior, chosen on held-out users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesrec.data import Interactions, split
from bayesrec.data.seeds import checked_seed
from bayesrec.diagnostics.heldout import possible
from bayesrec.errors import DataError
from bayesrec.files import beside
from bayesrec.inference import fit
from bayesrec.inference.base import Method, whole_fits
from bayesrec.inference.checkpoint import fingerprint
from bayesrec.metrics import clustered_mean
from bayesrec.models.base import Model

__all__ = ["PowerChoice", "choose_power"]


@dataclass(frozen=True)
class PowerChoice:
    """Powers of the source, judged on held-out users. Provisional.

    Attributes
    ----------
    model : Model
        The model that was given, with the power that was chosen.
    power : float
        The least power whose mean log score is at most one standard error, of the paired difference, below the best.
    best : float
        The power with the highest mean log score.
    table : DataFrame
        A row for each power: log_score and se, difference to the best and its difference_se; nats a held-out rating, standard
        errors clustered by user.

    Examples
    --------
    >>> import bayesrec as br
    >>> table = pd.DataFrame({"log_score": [-1.2], "se": 0.1, "difference": 0.0, "difference_se": 0.0}, index=[1.0])
    >>> PowerChoice(br.models.TransferMF(), 1.0, 1.0, table).power
    1.0
    """

    model: Model
    power: float
    best: float
    table: pd.DataFrame


def choose_power(
    model: Model,
    data: Interactions,
    method: Method,
    grid: Sequence[float] = (0.0, 0.1, 0.25, 0.5, 1.0),
    folds: int = 5,
    *,
    n_support: int = 0,
    seed: int = 0,
    cache: str | Path | None = None,
    progress: bool = True,
) -> PowerChoice:
    """Choose how much a source rating counts by the log scores of held-out target users. Provisional.

    Every user with source and target rows is held out in one fold; each power is fitted to the rest of each fold and scores the
    same rows. Folds and rows are the same for all powers, so their differences are paired. Of the powers that are within
    one standard error of the best, the least is chosen: the source has to earn its weight.

    Parameters
    ----------
    model : Model
        With a field ``power``, such as ``TransferMF()``; its own power is not used.
    data : Interactions
    method : Method
    grid : sequence of float
        Powers from 0 (no source) to 1.
    folds : int
    n_support : int
        Target ratings that a held-out user keeps: 0 chooses for cold users.
    seed : int
        Of the folds and the fits.
    cache : str or Path, optional
        A folder that keeps the scores of each fold and power: the same call after an interruption goes on from there, and a wider
        grid computes what is new.
    progress : bool

    Returns
    -------
    PowerChoice

    Raises
    ------
    DataError
        A model without a power, a grid that is empty or has numbers below 0, above 1 or twice; as ``fit`` and
        ``br.split.kfold_users`` do.
    KeyboardInterrupt
        A fit was interrupted: there is no choice from half a table.

    Notes
    -----
    The scores of the chosen power are a little too good, as those of every winner: judge it on users who took no part.

    References
    ----------
    Ibrahim and Chen (2000), `ibrahim2000`; Bretherton et al. (2025), `bretherton2025`, choose the power on target data too. In
    docs/references.bib.

    Examples
    --------
    >>> import bayesrec as br
    >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(10, 10), n_ratings=(8, 6), rank=1)
    >>> data = br.Interactions.from_frame(frame, target="target", value="value")
    >>> method = br.Gibbs(draws=10, warmup=10, chains=1)
    >>> found = choose_power(br.models.TransferMF(rank=1), data, method, grid=(0, 1), folds=2, progress=False)
    >>> found.table.index.tolist(), found.model.power == found.power
    ([0.0, 1.0], True)
    """
    seed, powers = checked_seed(seed), _grid(model, grid)
    data = data if data.shared == "users" else data.transposed()
    scores: dict[float, list[np.ndarray]] = {power: [] for power in powers}
    users = []
    for fold, (train, test) in enumerate(split.kfold_users(data, folds=folds, n_support=n_support, seed=seed)):
        users.append(test.user)
        for power in powers:
            arm = replace(model, power=power)  # type: ignore[call-arg]
            key = fingerprint(
                arm, method, seed, train.user, train.item, train.domain, train.value, test.user, test.item
            )
            path = None if cache is None else Path(cache) / f"power-{power:g}-fold-{fold}-{key[:16]}.npy"
            found = None if path is None else _read(path)
            if found is None:
                with whole_fits("a fit was interrupted; there is no choice from half a table"):
                    posterior = fit(arm, train, method, seed=seed, progress=progress)
                found = possible(posterior, posterior.log_score(test), test)
                if path is not None:
                    _write(path, found)
            scores[power].append(found)
    user = np.concatenate(users)
    table, best, power = judged({power: np.concatenate(parts) for power, parts in scores.items()}, user)
    return PowerChoice(replace(model, power=power), power, best, table)  # type: ignore[call-arg]


def judged(scores: dict[float, np.ndarray], user: np.ndarray) -> tuple[pd.DataFrame, float, float]:
    """The table, the best power and the one to take, from log scores (row,) by power. Internal."""
    best = max(scores, key=lambda power: scores[power].mean())
    rows = {}
    for power, score in scores.items():
        rows[power] = (*clustered_mean(score, user), *clustered_mean(score - scores[best], user))
    columns = ["log_score", "se", "difference", "difference_se"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("power")
    return table, best, float(table.index[table["difference"] >= -table["difference_se"]].min())


def _grid(model: Model, grid: Any) -> list[float]:
    if "power" not in {field.name for field in fields(model)}:
        raise DataError(
            f"{type(model).__name__} has no power to choose; give a model with a source, such as TransferMF()"
        )
    powers = [float(replace(model, power=power).power) for power in grid]  # type: ignore[attr-defined, call-arg]
    if not powers or len(set(powers)) < len(powers):
        raise DataError(f"grid must be powers from 0 to 1, each once, not {grid!r}")
    return sorted(powers)


def _read(path: Path) -> np.ndarray | None:
    return np.load(path, allow_pickle=False) if path.exists() else None


def _write(path: Path, scores: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as fresh, fresh.open("wb") as file:
        np.save(file, scores, allow_pickle=False)
