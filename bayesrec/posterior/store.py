"""Saving and loading posteriors: arrays and JSON in a folder, no pickle. Internal."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch

from bayesrec import likelihoods, models
from bayesrec.data import Columns, Interactions, Vocabulary
from bayesrec.data.features import Features, matrices
from bayesrec.data.frames import Layout
from bayesrec.errors import DataError, LoadError
from bayesrec.models.base import Schema
from bayesrec.posterior import checks
from bayesrec.sources import SourcePrior

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

__all__ = ["load", "save"]

FORMAT = 1
FEATURES = ("x", "center", "sd", "moment")  # arrays of the features of a side
META, PRIOR = "bayesrec.json", "source-prior.npz"


def classes(methods: Mapping[str, type]) -> dict[str, type]:
    """What a saved file may name: the exported models and likelihoods, and the methods given. Nothing else is built."""
    known = {name: getattr(module, name) for module in (models, likelihoods) for name in module.__all__}
    return known | dict(methods)


def pack(value: Any, folder: Path) -> Any:
    """A frozen value object as JSON: its class by name, with its module if that is not ours, and its fields.

    A source prior becomes a file of the folder.
    """
    if isinstance(value, SourcePrior):
        value.save(folder / PRIOR)
        return {"class": "SourcePrior", "fields": {}}
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        name = kind.__name__ if kind.__module__.startswith("bayesrec.") else f"{kind.__module__}.{kind.__qualname__}"
        return {"class": name, "fields": {f.name: pack(getattr(value, f.name), folder) for f in fields(value)}}
    if isinstance(value, (tuple, list)):
        return [pack(one, folder) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def unpack(value: Any, known: Mapping[str, type], folder: Path) -> Any:
    """Build what :func:`pack` wrote; a LoadError for a class that is not registered."""
    if isinstance(value, list):
        return [unpack(one, known, folder) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("class") == "SourcePrior":
        return SourcePrior.load(folder / PRIOR)
    if value.get("class") not in known:
        raise LoadError(
            f"the file names the class {value.get('class')!r}, which this version of bayesrec does not have."
        )
    return known[value["class"]](**{name: unpack(part, known, folder) for name, part in value["fields"].items()})


def save(posterior: Posterior, path: str | Path, data: bool) -> Path:
    """Write to a folder beside ``path`` and move it into place at the end; see :meth:`Posterior.save`."""
    given = Path(path)
    path = given.resolve() if given.is_symlink() else given  # a link goes on to name the place
    if path.exists() and not (path / META).exists() and (path.is_file() or any(path.iterdir())):
        raise DataError(f"{str(path)!r} exists and is not a saved posterior; it is left alone. Choose another path.")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        _write(posterior, fresh, data)
        if path.exists():
            path.rename(old)
        try:
            fresh.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return given


def _write(posterior: Posterior, folder: Path, keep_data: bool) -> None:
    data, schema = posterior.data, posterior.schema
    rows = data if keep_data else data.mask(np.zeros(len(data), dtype=bool))
    groups: dict[str, dict[str, Any]] = {"draws": posterior.draws, "stats": posterior.stats, "ratings": _ratings(rows)}
    if posterior.moments:
        parts = zip(("mean", "sd"), zip(*posterior.moments.values(), strict=True), strict=True)
        groups["moments"] = {
            f"{what}/{name}": x for what, some in parts for name, x in zip(posterior.moments, some, strict=True)
        }
    for name, arrays in groups.items():
        np.savez(folder / f"{name}.npz", **arrays)
    levels = {f"levels_{d}": one.levels for d, one in enumerate(schema.units) if one.levels is not None}
    units: dict[str, Any] = {"center": schema.center, "scale": schema.scale, **levels}
    np.savez(folder / "schema.npz", item_domain=schema.item_domain.numpy(), **units)
    described = {s: f for s in ("user", "item") if isinstance(f := getattr(data, f"{s}_features"), Features)}
    if described:
        parts_of: dict[str, Any] = {f"{s}_{part}": getattr(f, part) for s, f in described.items() for part in FEATURES}
        np.savez(folder / "features.npz", **parts_of)
    vocabularies = {}
    for side in ("users", "items"):
        vocabulary = getattr(data, side)
        for k, block in enumerate(vocabulary.blocks):
            pd.DataFrame({"id": block}).to_parquet(folder / f"{side}-{k}.parquet")
        vocabularies[side] = {"blocks": len(vocabulary.blocks), "scopes": vocabulary.scopes}
    meta = {
        "format": FORMAT,
        "model": pack(posterior.model, folder),
        "method": pack(posterior.method, folder),
        "domains": list(data.domains),
        "shared": data.shared,
        "columns": asdict(data.columns),
        "layout": asdict(data.layout),
        "vocabularies": vocabularies,
        "features": {side: list(features.names) for side, features in described.items()},
        "n_users": schema.n_users,
        "n_items": schema.n_items,
        "newcomers": schema.newcomers,
        "files": {file.name: _digest(file) for file in sorted(folder.iterdir())},
    }
    (folder / META).write_text(json.dumps(meta | {"digest": _own_digest(meta)}, indent=1))


def _ratings(rows: Interactions) -> dict[str, np.ndarray]:
    time = {} if rows.time is None else {"time": rows.time}
    return {name: getattr(rows, name) for name in ("user", "item", "domain", "value")} | time


def load(path: str | Path, methods: Mapping[str, type]) -> dict[str, Any]:
    """Read a folder that :func:`save` wrote: the fields of a Posterior."""
    folder = Path(path)
    if not folder.is_dir():
        raise LoadError(f"there is no folder {str(path)!r}.")
    if not (folder / META).is_file():
        raise LoadError(f"{str(path)!r} has no {META}: it is not a saved posterior, or its writing was interrupted.")
    try:
        meta = json.loads((folder / META).read_text())
        if meta["format"] > FORMAT:
            raise LoadError(
                f"{str(path)!r} was written by a newer bayesrec (format {meta['format']}; this one reads up to "
                f"{FORMAT}). Upgrade bayesrec."
            )
        if meta.pop("digest") != _own_digest(meta):
            raise LoadError(f"{str(path)!r} is corrupt: {META} is not what was written.")
        for name, digest in meta["files"].items():
            if not (folder / name).is_file():
                raise LoadError(f"{str(path)!r} is incomplete: {name} is missing.")
            if _digest(folder / name) != digest:
                raise LoadError(f"{str(path)!r} is corrupt: {name} is not what was written.")
        return _read(folder, meta, methods)
    except DataError as error:
        raise LoadError(f"{str(path)!r} cannot be read: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, BadZipFile, OSError) as error:
        raise LoadError(f"{str(path)!r} cannot be read: {type(error).__name__}: {error}") from error


def _read(folder: Path, meta: dict[str, Any], methods: Mapping[str, type]) -> dict[str, Any]:
    known = classes(methods)

    def arrays(name: str) -> dict[str, np.ndarray]:
        with np.load(folder / name, allow_pickle=False) as file:
            return dict(file)

    vocabularies: dict[str, Any] = {}
    for side, entry in meta["vocabularies"].items():
        blocks = (pd.read_parquet(folder / f"{side}-{k}.parquet")["id"] for k in range(entry["blocks"]))
        scopes = None if entry["scopes"] is None else tuple(entry["scopes"])
        vocabularies[side] = Vocabulary(tuple(pd.Index(b).rename(None) for b in blocks), scopes)
    ratings, schema = arrays("ratings.npz"), arrays("schema.npz")
    layout = dict(meta["layout"], order=tuple(meta["layout"]["order"]))
    domains = tuple(meta["domains"])
    checks.check_sizes(meta, vocabularies, schema)
    checks.check_ratings(ratings, meta["n_users"], meta["n_items"], schema["item_domain"])
    model, method = (unpack(meta[name], known, folder) for name in ("model", "method"))
    checks.check_objects(model, method, methods.values())
    draws, stats = arrays("draws.npz"), arrays("stats.npz")
    parts = arrays("moments.npz") if "moments.npz" in meta["files"] else {}
    moments = {key[5:]: (x, parts[f"sd/{key[5:]}"]) for key, x in parts.items() if key.startswith("mean/")}
    stored = arrays("features.npz") if "features.npz" in meta["files"] else {}
    described: dict[str, Any] = {
        side: Features(tuple(names), *(stored[f"{side}_{part}"] for part in FEATURES))
        for side, names in meta.get("features", {}).items()
    }
    checks.check_features(model, described, meta["n_users"], meta["n_items"])
    checks.check_draws(model, draws, stats, moments, meta["n_users"], meta["n_items"], len(domains), described)
    data = Interactions(
        user=ratings["user"],
        item=ratings["item"],
        domain=ratings["domain"],
        value=ratings["value"],
        time=ratings.get("time"),
        domains=domains,
        columns=Columns(**meta["columns"]),
        shared=meta["shared"],
        layout=Layout(**layout),
        **vocabularies,
        **{f"{side}_features": features for side, features in described.items()},
    )
    return {
        "draws": draws,
        "stats": stats,
        "moments": moments,
        "model": model,
        "method": method,
        "data": data,
        "schema": Schema(
            meta["n_users"],
            meta["n_items"],
            domains,
            torch.from_numpy(schema["item_domain"]),
            schema["center"],
            schema["scale"],
            data.users.decode(np.arange(data.n_users)),
            tuple(schema.get(f"levels_{d}") for d in range(len(domains))),
            newcomers=meta.get("newcomers", 0),
            **matrices(data),
        ),
    }


def _own_digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
