"""The Gaussian mechanism of differential privacy: how much noise hides one rating. Provisional.

Noise ``N(0, sigma^2 I)`` on a vector that one change of the data moves by at most ``sensitivity`` (Euclidean norm) is
(epsilon, delta)-private for exactly the delta that :func:`gaussian_delta` gives, whatever epsilon (Balle and Wang 2018).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

from bayesrec.errors import DataError

__all__ = ["checked_budget", "gaussian_delta", "gaussian_sigma", "noisy", "sensitivity"]

WIDEST = 50.0  # the log of sensitivity / sigma is sought within these bounds
FLOOR = -1e6  # log delta where delta underflows: below the log of any positive float


def gaussian_delta(epsilon: float, sigma: float, sensitivity: float) -> float:
    """Smallest delta for which Gaussian noise is (epsilon, delta)-private. Provisional.

    Parameters
    ----------
    epsilon : float
        Above 0; not restricted to values below 1.
    sigma : float
        Sd of the noise on every coordinate.
    sensitivity : float
        Largest Euclidean distance between the vectors of two neighbouring tables.

    Returns
    -------
    float
        ``Phi(a - b) - exp(epsilon) Phi(-a - b)`` with ``a = sensitivity / (2 sigma)``, ``b = epsilon sigma / sensitivity``:
        Theorem 8 of Balle and Wang (2018), computed from logarithms.

    Raises
    ------
    DataError
        An argument that is not a positive number.

    Examples
    --------
    >>> round(gaussian_delta(1.0, 2.0, 1.0), 4)
    0.0068
    """
    epsilon, sigma, sensitivity = (
        _positive(name, x) for name, x in (("epsilon", epsilon), ("sigma", sigma), ("sensitivity", sensitivity))
    )
    return float(np.exp(_log_delta(epsilon, sensitivity / sigma)))


def gaussian_sigma(epsilon: float, delta: float, sensitivity: float) -> float:
    """Smallest sd of Gaussian noise that is (epsilon, delta)-private: the analytic Gaussian mechanism. Provisional.

    Parameters
    ----------
    epsilon, delta : float
        The budget: epsilon above 0, delta strictly between 0 and 1.
    sensitivity : float
        Largest Euclidean distance between the vectors of two neighbouring tables.

    Returns
    -------
    float

    Raises
    ------
    DataError
        An epsilon or a sensitivity that is not positive, a delta outside (0, 1).

    Examples
    --------
    >>> sigma = gaussian_sigma(2.0, 1e-5, 1.0)
    >>> round(sigma, 3), round(gaussian_delta(2.0, sigma, 1.0), 8)
    (1.994, 1e-05)
    """
    epsilon, sensitivity = _positive("epsilon", epsilon), _positive("sensitivity", sensitivity)
    goal = np.log(_share("delta", delta))

    def excess(log_ratio: float) -> float:
        return max(_log_delta(epsilon, np.exp(log_ratio)), FLOOR) - goal

    log_ratio = brentq(excess, -WIDEST, WIDEST, xtol=1e-14)
    while excess(log_ratio) > 0.0:  # never on the wrong side of the root
        log_ratio -= 1e-13
    return float(sensitivity * np.exp(-log_ratio))


def sensitivity(bound: float, clip: float) -> float:
    """How far one rating can move the natural parameters of a user's regression. Internal.

    The largest distance between ``(dd', rd)`` and ``(ee', se)`` for norms up to ``bound`` and residuals up to ``clip``.
    At equal norms B and ``r = -s = c`` its square is ``2 B^4 (1 - x^2) + 2 B^2 c^2 (1 + x)`` in the cosine x of d and e,
    largest at ``x = c^2 / (2 B^2)`` or 1.
    """
    if clip**2 <= 2.0 * bound**2:
        return float(np.sqrt(2.0) * (bound**2 + clip**2 / 2.0))
    return 2.0 * bound * clip


def noisy(
    gram: np.ndarray, linear: np.ndarray, sigma: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (user, R, R) and vectors (user, R) with noise: sd ``sigma`` along every direction of the pair. Internal."""
    noise = rng.normal(0.0, sigma, gram.shape)
    return gram + 0.5 * (noise + noise.transpose(0, 2, 1)), linear + rng.normal(0.0, sigma, linear.shape)


def checked_budget(privacy: Any) -> tuple[float, float, float]:
    """Return (epsilon, delta, clip) as floats, or raise a DataError that says what is wrong. Internal."""
    if not isinstance(privacy, tuple | list) or len(privacy) != 3:
        raise DataError(f"privacy must be None or (epsilon, delta, clip), not {privacy!r}")
    epsilon, delta, clip = privacy
    return _positive("epsilon", epsilon), _share("delta", delta), _positive("clip", clip)


def _log_delta(epsilon: float, ratio: float) -> float:
    """Log of delta for noise of sd ``sensitivity / ratio``."""
    first = log_ndtr(ratio / 2.0 - epsilon / ratio)
    gap = epsilon + log_ndtr(-ratio / 2.0 - epsilon / ratio) - first
    return float(first + np.log(-np.expm1(gap))) if gap < 0.0 else -np.inf


def _positive(name: str, value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.integer | np.floating)
        or not 0.0 < value < np.inf
    ):
        raise DataError(f"{name} must be a positive number, not {value!r}")
    return float(value)


def _share(name: str, value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.integer | np.floating)
        or not 0.0 < value < 1.0
    ):
        raise DataError(f"{name} must lie strictly between 0 and 1, not {value!r}")
    return float(value)
