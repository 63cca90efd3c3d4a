"""The options of TransferMF: what they may be, and which of them go together. Internal."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from bayesrec.errors import DataError
from bayesrec.likelihoods import ByDomain, Implicit
from bayesrec.models.discrepancy import COMMENSURATE
from bayesrec.models.maps import FAMILIES
from bayesrec.sources import SourcePrior

__all__ = ["PARTS", "check"]

PARTS = {"all": (True, True, True), "biases": (True, False, False), "factors": (False, True, False)}
NAMES = {"transfers": tuple(PARTS), "prior_family": FAMILIES + COMMENSURATE, "link": ("users", "distribution")}
OF_USERS = ("features", "gate", "transfers", "prior_family", "shrinkage", "gate_prior", "source")


def check(model: Any) -> None:
    """Refuse options that are none or contradict each other, and turn NumPy's numbers into Python's."""
    for name, known in NAMES.items():
        if getattr(model, name) not in known:
            raise DataError(f"{name} must be one of {', '.join(map(repr, known))}, not {getattr(model, name)!r}")
    if not isinstance(model.gate, (bool, np.bool_)):
        raise DataError(f"gate must be True or False, not {model.gate!r}")
    object.__setattr__(model, "gate", bool(model.gate))
    object.__setattr__(model, "shrinkage", _positive("shrinkage", model.shrinkage))
    if not isinstance(model.gate_prior, (tuple, list)) or len(model.gate_prior) != 2:
        raise DataError(f"gate_prior must be two numbers above 0, not {model.gate_prior!r}")
    object.__setattr__(model, "gate_prior", tuple(_positive("gate_prior", x) for x in model.gate_prior))
    changed = [f.name for f in fields(model) if f.name in OF_USERS and getattr(model, f.name) != f.default]
    if model.link == "distribution" and changed:
        raise DataError(f"{changed[0]} is about shared users, and link='distribution' has none; leave {changed[0]} out")
    if model.link == "distribution":
        _check_apart(model.likelihood)
    if model.source is not None:
        _check_source(model)
    _check_power(model)


def _check_apart(likelihood: Any) -> None:
    parts = [one for _, one in likelihood.parts] if isinstance(likelihood, ByDomain) else [likelihood]
    if any(isinstance(one, Implicit) and one.absent == "zeros" for one in parts):
        raise DataError(
            "absent='zeros' says that the users of one domain took nothing in the others, and link='distribution' shares no "
            "user; leave absent out"
        )


def _check_source(model: Any) -> None:
    if not isinstance(model.source, SourcePrior):
        raise DataError(f"source must be a SourcePrior, from posterior.as_prior('user'), not {model.source!r}")
    if model.prior_family in COMMENSURATE:
        raise DataError(
            f"prior_family={model.prior_family!r} needs source ratings: a source prior is whitened, and its unit is lost"
        )
    if model.source.rank != model.rank:
        raise DataError(
            f"the source prior has rank {model.source.rank}, the model {model.rank}; give both the same rank"
        )


def _check_power(model: Any) -> None:
    power = model.power
    if isinstance(power, bool) or not isinstance(power, (int, float, np.number)) or not 0.0 <= power <= 1.0:
        raise DataError(f"power must be a number from 0 to 1, not {power!r}")
    object.__setattr__(model, "power", float(power))
    if power != 1.0 and model.source is not None:
        raise DataError("power is about source ratings, and a source prior stands in their place; leave power out")
    if power not in (0.0, 1.0) and not model.likelihood.normal:
        raise DataError(
            f"power={power:g} needs ratings that are normal given the factors, br.Gaussian(), not {model.likelihood!r}: the "
            "power of another density has no exact update. Powers of 0 and 1 are possible."
        )


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0.0 < value < np.inf:
        raise DataError(f"{name} must be above 0, not {value!r}")
    return float(value)
