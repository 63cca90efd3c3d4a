"""SourcePrior: what a source says of each user, as a mean and a covariance. Provisional."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from bayesrec.data.ids import checked_ids, shown
from bayesrec.errors import DataError, LoadError
from bayesrec.files import beside
from bayesrec.privacy import checked_budget

__all__ = ["SourcePrior"]

FORMAT = 1
SYMMETRIC = 1e-8  # how far a covariance may be from its transpose, in units of its largest entry
SINGULAR = 1e-12  # smallest eigenvalue of a covariance, in units of the largest


@dataclass(frozen=True, eq=False, repr=False)
class SourcePrior:
    """Mean and covariance of each user's vector in a source: all that leaves it in the sequential mode. Provisional.

    The vectors are whitened: over all users of the source's population they are N(0, I), so a covariance near I says that
    the source knows little of the user. Make one with :meth:`bayesrec.posterior.Posterior.as_prior`, which also aligns
    the draws, or from arrays of your own. Two priors with the same contents are equal.

    Attributes
    ----------
    name : str or int
        The source domain.
    users : pandas.Index, (user,)
        Ids, integers or strings, without repetition.
    mean : ndarray, (user, R), float64, read-only
        ``R = rank + 1``, bias first.
    cov : ndarray, (user, R, R), float64, read-only
        Symmetric and positive definite. A vector without uncertainty is refused: the published mapping methods pass on
        point estimates, and a user with five source ratings then counts like one with five hundred.
    entity : {"user", "item"}
        The side whose ids are shared between domains.
    privacy : tuple of float or None
        (epsilon, delta, clip) of the noise that the moments carry. Residuals were clipped to ``clip``, in sds of the source's
        ratings; below 2 the clipping itself biases the means, for which nothing allows. *Protected* is one rating of a user,
        its item and its value: the published moments of this user are (epsilon, delta)-indistinguishable from those with
        another rating in its place. *Not protected*, and taken as public: items, hyperparameters, units and noise, which were
        learned from the ratings (posterior means over all draws; each further version of the items would spend the budget
        again); how many ratings a user and an item have; that a user is in the source. All ratings of a user together are
        not hidden, and the noise is not hardened against attacks on the last bits of its floating-point numbers.
    alignment : float or None
        How well the chains agreed about the items, from 0 to 1; None where nothing could be compared.

    Raises
    ------
    DataError
        Contents that do not fit each other; the message names the id.

    Examples
    --------
    >>> prior = SourcePrior("book", ["ann", "bob"], np.zeros((2, 3)), np.tile(0.5 * np.eye(3), (2, 1, 1)))
    >>> prior, prior.users.tolist()
    (SourcePrior('book', 2 users, rank 2), ['ann', 'bob'])
    """

    name: str | int
    users: pd.Index
    mean: np.ndarray
    cov: np.ndarray
    entity: str = "user"
    privacy: tuple[float, float, float] | None = None
    alignment: float | None = None

    def __post_init__(self) -> None:
        values = {
            "name": _checked_name(self.name),
            "entity": _checked_entity(self.entity),
            "users": _checked_users(self.users, self.entity),
            "mean": _floats("mean", self.mean),
            "cov": _floats("cov", self.cov),
            "privacy": None if self.privacy is None else checked_budget(self.privacy),
            "alignment": None if self.alignment is None else _checked_alignment(self.alignment),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_moments()

    def _check_moments(self) -> None:
        """Shapes first, then numbers, a user at a time."""
        n, mean, cov = len(self.users), self.mean, self.cov
        if mean.ndim != 2 or len(mean) != n or mean.shape[1] < 2:
            raise DataError(
                f"mean has the shape {mean.shape}; {n} {self.entity}s need ({n}, rank + 1), the bias and at least one factor"
            )
        if cov.shape != (*mean.shape, mean.shape[1]):
            raise DataError(f"cov has the shape {cov.shape}; mean asks for {(*mean.shape, mean.shape[1])}")
        self._refuse(~np.isfinite(mean).all(1), "has a mean that is not finite")
        self._refuse(~np.isfinite(cov).all((1, 2)), "has a covariance that is not finite")
        size = np.abs(cov).max((1, 2))
        self._refuse(
            size == 0.0,
            "has a covariance of zero: a prior without uncertainty is refused. Published mapping methods drop it, and are "
            "overconfident; give the posterior covariance",
        )
        lopsided = np.abs(cov - cov.transpose(0, 2, 1)).max((1, 2))
        self._refuse(lopsided > SYMMETRIC * size, "has a covariance that is not symmetric")
        eigenvalues = np.linalg.eigvalsh(cov)
        self._refuse(
            eigenvalues[:, 0] <= SINGULAR * eigenvalues[:, -1], "has a covariance that is not positive definite"
        )

    def _refuse(self, bad: np.ndarray, fault: str) -> None:
        if bad.any():
            more = f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""
            raise DataError(f"{self.entity} {shown(self.users[int(bad.argmax())])}{more} {fault}")

    @property
    def rank(self) -> int:
        """Number of factors, the bias not counted."""
        return self.mean.shape[1] - 1

    @cached_property
    def natural(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision (user, R, R) and linear term (user, R). Internal."""
        precision = np.linalg.inv(self.cov)
        return precision, (precision @ self.mean[..., None])[..., 0]

    def places(self, ids: pd.Index) -> np.ndarray:
        """Where some ids stand among the users, int (id,); -1 for ids that are not there. Internal."""
        return self.users.get_indexer(pd.Index(ids, dtype=object if self.users.dtype == object else None))

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        private = "" if self.privacy is None else ", epsilon {:g}, delta {:g}".format(*self.privacy)
        return f"SourcePrior({self.name!r}, {len(self)} {self.entity}s, rank {self.rank}{private})"

    def _labels(self) -> tuple:
        return self.name, self.entity, self.privacy, self.alignment, self.mean.shape

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SourcePrior):
            return NotImplemented
        return (
            self._labels() == other._labels()
            and self.users.equals(other.users)
            and np.array_equal(self.mean, other.mean)
            and np.array_equal(self.cov, other.cov)
        )

    def __hash__(self) -> int:
        return hash(self._labels())

    def save(self, path: str | Path) -> Path:
        """Write the prior to one file, whole or not at all; an existing file is replaced at the end. Provisional.

        Parameters
        ----------
        path : str or Path
            By custom it ends in ``.npz``: arrays and JSON, no pickle.

        Returns
        -------
        Path

        Raises
        ------
        DataError
            A path that is a folder.

        Examples
        --------
        >>> import tempfile
        >>> prior = SourcePrior("book", [7], np.zeros((1, 2)), np.eye(2)[None])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     SourcePrior.load(prior.save(Path(folder) / "book.npz")) == prior
        True
        """
        path = Path(path)
        if path.is_dir():
            raise DataError(f"{str(path)!r} is a folder; a source prior is one file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self.users.dtype == object
        ids = _bytes(self.users.tolist()) if text else self.users.to_numpy()
        arrays: dict[str, Any] = {"users": ids, "mean": self.mean, "cov": self.cov}
        meta = {
            "format": FORMAT,
            "name": self.name,
            "entity": self.entity,
            "privacy": self.privacy,
            "alignment": self.alignment,
            "ids": "str" if text else "int",
        }
        meta["digest"] = _digest(meta, arrays)
        with beside(path) as fresh, fresh.open("wb") as file:
            np.savez(file, meta=_bytes(meta), **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> SourcePrior:
        """Read a file that :meth:`save` wrote. Provisional.

        Raises
        ------
        LoadError
            No file, a damaged one, one of a newer bayesrec.
        """
        path = Path(path)
        if not path.is_file():
            raise LoadError(f"there is no file {str(path)!r}.")
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = dict(file)
            meta = _parsed(arrays.pop("meta"))
            if meta["format"] > FORMAT:
                raise LoadError(
                    f"{str(path)!r} was written by a newer bayesrec (format {meta['format']}; this one reads up to {FORMAT}). "
                    "Upgrade bayesrec."
                )
            if meta.pop("digest") != _digest(meta, arrays):
                raise LoadError(f"{str(path)!r} is corrupt: its contents are not what was written.")
            users = _parsed(arrays["users"]) if meta["ids"] == "str" else arrays["users"]
            return cls(
                meta["name"], users, arrays["mean"], arrays["cov"], meta["entity"], meta["privacy"], meta["alignment"]
            )
        except DataError as error:
            raise LoadError(f"{str(path)!r} cannot be read: {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, BadZipFile, OSError, EOFError,
                RuntimeError, MemoryError) as error:  # fmt: skip
            raise LoadError(f"{str(path)!r} is no source prior, or damaged: {type(error).__name__}: {error}") from error


def _checked_name(name: Any) -> str | int:
    name = name.item() if isinstance(name, np.generic) else name
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise DataError(f"name must be the name of a domain, a string or an integer, not {name!r}")
    return name


def _checked_entity(entity: Any) -> str:
    if entity not in ("user", "item"):
        raise DataError(f"entity must be 'user' or 'item', not {entity!r}")
    return entity


def _checked_users(users: Any, entity: str) -> pd.Index:
    """Ids as int64 or as objects holding str, without repetition."""
    plain = (
        users if hasattr(users, "dtype") else np.array([*users], dtype=object)
    )  # pandas 3 makes no string of a surrogate
    series = pd.Series(plain, dtype=plain.dtype).reset_index(drop=True)
    if not len(series):
        raise DataError(f"a source prior needs at least one {entity}")
    if series.isna().any():
        raise DataError(f"users: the id in row {int(series.isna().to_numpy().argmax())} is missing")
    plain = checked_ids(series, "users")[1]
    keys = pd.Index(plain, dtype=plain.dtype)
    if not keys.is_unique:
        raise DataError(f"users: {entity} {shown(keys[keys.duplicated()][0])} is there twice; give each id once")
    return keys


def _checked_alignment(share: Any) -> float:
    if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0.0 <= share <= 1.0:
        raise DataError(f"alignment must be None or a share between 0 and 1, not {share!r}")
    return float(share)


def _floats(what: str, array: Any) -> np.ndarray:
    """A read-only copy in float64."""
    try:
        out = np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} is no array of numbers: {error}") from error
    out.setflags(write=False)
    return out


def _bytes(value: Any) -> np.ndarray:
    """JSON as bytes: an array that needs no pickle and loses no character of an id."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _parsed(array: np.ndarray) -> Any:
    return json.loads(array.tobytes())


def _digest(meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    out = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        out.update(f"{name} {array.dtype} {array.shape}".encode())
        out.update(np.ascontiguousarray(array).tobytes())
    return out.hexdigest()
