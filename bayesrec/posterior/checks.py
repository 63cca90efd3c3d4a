"""Whether the parts of a saved posterior fit each other: a DataError says what does not. Internal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bayesrec.data.features import Features
from bayesrec.errors import DataError
from bayesrec.models.base import Model

__all__ = ["check_draws", "check_features", "check_objects", "check_ratings", "check_sizes"]


def check_sizes(meta: Mapping[str, Any], vocabularies: Mapping[str, Any], schema: Mapping[str, np.ndarray]) -> None:
    """Names of domains, sizes, ids and units."""
    domains = meta["domains"]
    _need(
        isinstance(domains, list)
        and len(domains) > 0
        and all(isinstance(name, str | int) and not isinstance(name, bool) for name in domains)
        and len(set(domains)) == len(domains),
        f"domains are {domains!r}, not distinct strings or integers",
    )
    _need(meta["shared"] == "users", f"shared is {meta['shared']!r}; models share users")
    swapped = meta["columns"].get("swapped", False)
    _need(isinstance(swapped, bool), f"swapped is {swapped!r}, which is no truth value")
    _need(set(vocabularies) == {"users", "items"}, f"vocabularies are {list(vocabularies)}, not users and items")
    users, items = vocabularies["users"], vocabularies["items"]
    _need(users.scopes is None and len(users.blocks) == 1, "users are not in one block without scopes")
    scopes = items.scopes
    _need(
        scopes is not None and len(scopes) == len(items.blocks) and set(scopes) <= set(range(len(domains))),
        f"items have {len(items.blocks)} blocks with the scopes {scopes}; there are {len(domains)} domains",
    )
    for name, words in (("n_users", users), ("n_items", items)):
        _need(
            _whole(meta[name]) and meta[name] == len(words), f"{name} is {meta[name]!r}, but {len(words)} ids are here"
        )
    scope = items.scope_of()
    _need(
        np.array_equal(schema["item_domain"], scope) and schema["item_domain"].dtype.kind == "i",
        "item_domain in schema.npz does not say of which domain the items are",
    )
    for name in ("center", "scale"):
        array = schema[name]
        _need(
            array.shape == (len(domains),) and array.dtype.kind == "f" and bool(np.isfinite(array).all()),
            f"{name} in schema.npz is not a number for each of {len(domains)} domains",
        )
    _need((schema["scale"] > 0).all(), "scale in schema.npz is not positive")
    for name, array in schema.items():
        good = not name.startswith("levels_") or (
            array.ndim == 1 and len(array) > 1 and bool((np.diff(array) > 0).all())
        )
        _need(good, f"{name} in schema.npz are not ascending numbers")


def check_ratings(ratings: Mapping[str, np.ndarray], n_users: int, n_items: int, item_domain: np.ndarray) -> None:
    """Codes in range, columns of one length."""
    n = len(ratings["value"])
    for name, array in ratings.items():
        _need(array.shape == (n,), f"{name} in ratings.npz has shape {array.shape}, the values {(n,)}")
    _need(ratings["value"].dtype.kind == "f" and np.isfinite(ratings["value"]).all(), "values are not finite numbers")
    for name, size in (("user", n_users), ("item", n_items)):
        codes = ratings[name]
        good = codes.dtype.kind == "i" and (not n or (codes.min() >= 0 and codes.max() < size))
        _need(good, f"{name} in ratings.npz has codes outside 0..{size - 1}")
    good = np.array_equal(ratings["domain"], item_domain[ratings["item"]])
    _need(good, "domain in ratings.npz is not that of the items")


def check_features(model: Any, features: Mapping[str, Features], n_users: int, n_items: int) -> None:
    """Features of both sides where the model uses them, a row for each member."""
    want = {"user", "item"} if getattr(model, "features", False) else set()
    _need(set(features) == want, f"there are features of {sorted(features)}, and the model needs {sorted(want)}")
    for side, one in features.items():
        size = {"user": n_users, "item": n_items}[side], len(one.names)
        good = one.x.shape == size and one.center.shape == one.sd.shape == size[1:] and np.isfinite(one.x).all()
        good = good and one.moment.ndim == 3 and one.moment.shape[1:] == 2 * size[1:]
        _need(good, f"features of {side}s have the shape {one.x.shape}, not {size}, or are not finite")


def check_objects(model: Any, method: Any, methods: Iterable[type]) -> None:
    """A model where a model belongs, a method where a method belongs."""
    _need(isinstance(model, Model), f"model is {model!r}, which is no model")
    _need(method is None or isinstance(method, tuple(methods)), f"method is {method!r}, which is no method")


def check_draws(
    model: Model,
    draws: Mapping[str, np.ndarray],
    stats: Mapping[str, np.ndarray],
    moments: Mapping[str, tuple[np.ndarray, np.ndarray]],
    n_users: int,
    n_items: int,
    n_domains: int,
    features: Mapping[str, Features],
) -> None:
    """Every site of the model and no other, in the shape that the model and the data give it."""
    found = set(draws) | set(moments)
    _need(
        found == set(model.dims) and not set(draws) & set(moments),
        f"draws.npz has the sites {sorted(found - set(model.dims))} too many and lacks "
        f"{sorted(set(model.dims) - found)} of {model!r}",
    )
    size = {"user": n_users, "item": n_items, "domain": n_domains, "source": n_domains - 1}
    size |= {"latent_component": model.rank + 1, "latent_component_bis": model.rank + 1}
    size |= {f"{side}_feature": len(one.names) for side, one in features.items()}
    first = next(iter(draws.values())).shape[:2]
    for name, array in draws.items():
        axes = model.dims[name]
        words = ("chain", "draw", *axes)
        good = array.ndim == len(words) and array.shape[:2] == first and min(first) > 0 and array.dtype == np.float32
        _need(
            good and all(size.get(axis, n) == n for axis, n in zip(axes, array.shape[2:], strict=True)),
            f"draws of {name!r} have the shape {array.shape} and the dtype {array.dtype}, which do not fit "
            f"({', '.join(words)}) of {model!r} with {n_users} users, {n_items} items and {n_domains} domains",
        )
    for name, pair in moments.items():
        shape = (first[0], *(size.get(axis, n) for axis, n in zip(model.dims[name], pair[0].shape[1:], strict=True)))
        _need(
            all(x.shape == shape for x in pair),
            f"moments of {name!r} have the shapes {[x.shape for x in pair]}, not {shape}",
        )
    for name, array in stats.items():
        _need(array.shape == first, f"{name!r} in stats.npz has the shape {array.shape}, the draws {first}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _need(good: Any, fault: str) -> None:
    if not good:
        raise DataError(f"its parts do not fit each other: {fault}")
