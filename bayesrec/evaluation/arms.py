"""Arms: the rows of the table. Simple baselines, models with a method, and models with a part taken out. Internal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from bayesrec import baselines
from bayesrec.data import Interactions
from bayesrec.data.columns import nearest
from bayesrec.errors import DataError
from bayesrec.inference.base import Method
from bayesrec.models.base import Model

__all__ = ["ABLATIONS", "SIMPLE", "Arm", "make_arms", "named"]

SIMPLE: dict[str, Callable[[Interactions], baselines.Baseline]] = {
    "global mean": baselines.global_mean,
    "item bias": baselines.item_bias,
    "item + user bias": baselines.target_bias,
    "bias transfer": baselines.bias_transfer,
    "popularity": baselines.popularity,
    "SVD stacked": baselines.stacked_svd,
    "PPCA stacked": baselines.stacked_ppca,
}
FOR_CLICKS = ("popularity", "PPCA stacked")
FOR_RATINGS = tuple(name for name in SIMPLE if name != "PPCA stacked")

ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "source": ("without source", {}),
    "gate": ("without gate", {"gate": False}),
    "biases": ("without bias transfer", {"transfers": "factors"}),
    "map": ("without factor map", {"transfers": "biases"}),
}


@dataclass(frozen=True)
class Arm:
    """One row of the table: a simple baseline (``model`` is None), or a model and how it is fitted."""

    name: str
    kind: str  # "simple", "model" or "ablation"
    method_name: str = ""
    model: Model | None = None
    method: Method | None = None
    drop_source: bool = False


def named(given: Any, kind: type, what: str) -> dict[str, Any]:
    """Return {name: value} of one value, a sequence or a mapping; names are class names, or the whole repr if two share one."""
    hint = f"{what} must be a {kind.__name__}, a list of them or a dictionary of names"
    if isinstance(given, kind):
        given = [given]
    if isinstance(given, Mapping):
        out = {str(name): value for name, value in given.items()}
    elif isinstance(given, Sequence) and not isinstance(given, str):
        short = [type(value).__name__ for value in given]
        names = [name if short.count(name) == 1 else repr(value) for name, value in zip(short, given, strict=True)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"{what} has {twice[0]} twice; name them with a dictionary")
        out = dict(zip(names, given, strict=True))
    else:
        raise TypeError(f"{hint}, not {given!r}")
    for name, value in out.items():
        if not isinstance(value, kind):
            call = " Call it." if isinstance(value, type) else ""
            raise TypeError(f"{hint}; {name!r} is {value!r}.{call}")
    return out


def make_arms(
    models: Mapping[str, Model], methods: Mapping[str, Method], ablate: Sequence[str], data: Interactions
) -> list[Arm]:
    """All rows, in the order of the table: baselines, then each model with its ablations under each method."""
    ablate = [ablate] if isinstance(ablate, str) else list(dict.fromkeys(ablate))
    for name in ablate:
        if name not in ABLATIONS:
            raise DataError(f"ablate: unknown {name!r}{nearest(name, ABLATIONS)}; there are {list(ABLATIONS)}")
    can = {name: _possible(model, data) for name, model in models.items()}
    for part in ablate:
        if not any(part in possible for possible in can.values()):
            each = "; ".join(f"{name}: {list(possible) or 'nothing'}" for name, possible in can.items())
            raise DataError(f"ablate: no model here has a part {part!r} to take out. What can be ablated: {each}")
    arms = [Arm(name, "simple") for name in _simple(data)]
    for clash in [name for name in models if name in SIMPLE]:
        raise DataError(f"models: the name {clash!r} is taken by a simple baseline; choose another")
    for method_name, method in methods.items():
        for name, model in models.items():
            arms.append(Arm(name, "model", method_name, model, method))
            for part in ablate:
                if part in can[name]:
                    label, changed = f"{name}, {ABLATIONS[part][0]}", can[name][part]
                    arms.append(Arm(label, "ablation", method_name, changed, method, part == "source"))
    return arms


def _simple(data: Interactions) -> tuple[str, ...]:
    """Names of the baselines that these data allow."""
    names = FOR_CLICKS if data.columns.value is None else FOR_RATINGS
    return tuple(name for name in names if name != "bias transfer" or not data.is_target.all())


def _possible(model: Model, data: Interactions) -> dict[str, Model]:
    """What can be taken out of a model, and the model without it."""
    out: dict[str, Model] = {}
    known = {f.name for f in fields(model)}
    for part, (_, change) in ABLATIONS.items():
        if part == "source":
            if not model.view(data).is_target.all():
                out[part] = model
        elif set(change) <= known:
            changed = replace(model, **change)
            if changed != model:
                out[part] = changed
    return out
