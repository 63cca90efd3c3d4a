"""Whether a verdict hangs on the priors: the same fit with each of them doubled and halved. Internal."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pandas as pd

from bayesrec.diagnostics.judge import Judgement
from bayesrec.models.base import Model

__all__ = ["sensitivity", "variants"]


def variants(model: Model) -> dict[str, Model]:
    """The model with the prior odds of an irrelevant source, and the scale of the map, doubled and halved. Internal.

    Empty for a model without the fields ``gate_prior`` (the two counts of a Beta; the first is changed) and ``shrinkage``, and
    for one whose domains share no user, which uses neither.
    """
    known = {field.name for field in fields(model)} if getattr(model, "link", "users") == "users" else set()
    varied: Any = model
    out: dict[str, Any] = {}
    for label, factor in (("x 2", 2.0), ("/ 2", 0.5)):
        if "gate_prior" in known and getattr(model, "gate", True):
            irrelevant, relevant = varied.gate_prior
            out[f"gate prior {label}"] = replace(varied, gate_prior=(factor * irrelevant, relevant))
        if "shrinkage" in known:
            out[f"shrinkage {label}"] = replace(varied, shrinkage=factor * varied.shrinkage)
    return dict(sorted(out.items(), key=lambda item: item[0].split()[0]))


def sensitivity(found: dict[str, Judgement]) -> pd.DataFrame | None:
    """A row for each variant, the default first; None if it is alone. Internal."""
    if len(found) < 2:
        return None
    default = next(iter(found.values()))
    rows = {
        name: (one.delta_per_row, one.se / one.n_rows, one.delta_per_row - default.delta_per_row, one.verdict)
        for name, one in found.items()
    }
    columns = ["delta_per_row", "se", "difference", "verdict"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("variant")
