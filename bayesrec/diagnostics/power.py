"""How many users a verdict takes. Internal."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

__all__ = ["needed_text", "users_needed"]

LEAST_SEEN = 5  # users below which a spread says too little
POWER, CONFIDENCE = 0.8, 0.95
Z = float(ndtri(POWER) + ndtri(CONFIDENCE))


def users_needed(spread: float, effect: float) -> float:
    """Number of users with which an effect is seen in four of five repetitions. Internal.

    The sum over ``U`` users of differences with mean ``m`` (``effect``) and standard deviation ``s`` (``spread``), in nats
    a user, is about normal with mean ``U m`` and sd ``s sqrt(U)``. A verdict needs it to be 1.645 sds from zero; it is, with
    probability .8, where ``U m = (1.645 + 0.842) s sqrt(U)``:

    ``U = (2.486 s / m)^2``.

    The sampler's noise is left out: more draws lessen it, more users do not.

    Examples
    --------
    >>> round(users_needed(spread=1.0, effect=0.2))
    155
    """
    return (Z * spread / abs(effect)) ** 2 if effect else np.inf


def needed_text(delta: np.ndarray, n: np.ndarray, min_effect: float, entity: str) -> str:
    """How many users like these, with summed differences ``delta`` over ``n`` rows, it would take; empty if that is not known.

    The effect is ``min_effect`` a row where it is given, else the size found.
    """
    if len(delta) < LEAST_SEEN:
        return ""
    effect = min_effect * n.mean() if min_effect else delta.mean()
    number = users_needed(float(delta.std(ddof=1)), float(effect))
    if not len(delta) < number < np.inf or number <= 30:
        return ""
    size = f"of {min_effect:g} nats a rating" if min_effect else "of the size found"
    return f"; about {_rounded(number)} {entity}s would show an effect {size}"


def _rounded(number: float) -> str:
    """Two digits are more than a guess has.

    Examples
    --------
    >>> _rounded(154.6), _rounded(40.2), _rounded(3e9)
    ('160', '41', 'over a million')
    """
    if number > 1e6:
        return "over a million"
    unit = 10.0 ** max(np.floor(np.log10(number)) - 1.0, 0.0)
    return f"{int(np.ceil(number / unit) * unit):,}"
