"""From options to the objects of the package: interactions, models, methods, saved posteriors."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesrec.cli.options import DataOptions, MethodOptions, ModelOptions
from bayesrec.data.columns import nearest
from bayesrec.errors import DataError, LoadError

if TYPE_CHECKING:
    from bayesrec.data import Interactions
    from bayesrec.inference import Method
    from bayesrec.models.base import Model
    from bayesrec.posterior import Posterior

__all__ = ["check_folder", "check_page", "load_data", "load_model", "make_method", "make_model"]

MODELS = {"pmf": "PMF", "collective": "CollectiveMF", "transfer": "TransferMF"}
METHODS = {"gibbs": "Gibbs", "vmp": "VMP", "svi": "SVI", "nuts": "NUTS"}
LIKELIHOODS = {
    "gaussian": "Gaussian", "ordinal": "Ordinal", "bernoulli": "Bernoulli", "poisson": "Poisson",
    "implicit": "Implicit", "student": "StudentT",
}  # fmt: skip


def load_data(options: DataOptions) -> Interactions:
    """Read the tables as interactions; a folder of Parquet files in portions.

    Raises
    ------
    DataError
        What is wrong with a file, a column or an option.
    """
    from bayesrec.data import Interactions
    from bayesrec.tables import Column, read_tables

    roles: dict[str, Any] = {
        "user": options.user,
        "item": options.item,
        "value": _none(options.value),
        "time": _none(options.time),
    }
    kinds = {"value": "number", "time": "time"}
    advice = {"value": "for clicks give --value none"}
    columns = [
        Column(name, kinds.get(role, "id"), f"--{role}", True, advice.get(role, ""))  # type: ignore[arg-type]
        for role, name in roles.items()
        if name is not None
    ]
    paths = _by_domain(options.tables or [])
    domain = _none(options.domain)
    if None not in paths:
        tables = read_tables(paths, columns)
        return Interactions.from_frames(
            tables, target=options.target, domain=domain or "domain", shared=options.shared, **roles
        )
    if domain is not None:
        hint = "for a table of the target alone give --domain none, for one table a domain NAME=FILE"
        columns.append(Column(domain, "id", "--domain", True, hint))
    if _holds_parquet(paths[None]):
        return _in_portions(paths[None], options, roles, domain)
    frame = read_tables(paths, columns)[None]
    target: Any = options.target
    if domain is not None and domain in frame:
        target = {str(name): name for name in frame[domain].unique().tolist()}.get(target, target)
    return Interactions.from_frame(frame, target=target, domain=domain, shared=options.shared, **roles)


def _holds_parquet(path: Path) -> bool:
    """Whether a path is a folder of tables; that of a model is refused as no table."""
    from bayesrec.data.parquet import SUFFIXES

    if not path.is_dir() or (path / "bayesrec.json").exists():
        return False
    return any(inside.suffix.lower() in SUFFIXES for inside in path.rglob("*"))


def _in_portions(path: Path, options: DataOptions, roles: dict[str, Any], domain: str | None) -> Interactions:
    """Read a folder of Parquet files; the target is a whole number where the domains are."""
    from bayesrec.data import Interactions
    from bayesrec.data.parquet import whole_numbers
    from bayesrec.tables import whole

    target: Any = options.target
    if domain is not None and whole(target) and whole_numbers(path, domain):
        target = int(target)
    return Interactions.from_parquet(path, target=target, domain=domain, shared=options.shared, **roles)


def make_model(options: ModelOptions, name: str | None = None) -> Model:
    """Build the model of a name, by default the one of the options."""
    from bayesrec import likelihoods, models

    likelihood = _pick("--likelihood", options.likelihood, LIKELIHOODS, likelihoods)
    model = _pick("--model", name or options.model, MODELS, models)
    return model(rank=options.rank, likelihood=likelihood(), activity=options.activity)


def make_method(options: MethodOptions) -> Method:
    """Build the method; a DataError for an option that it does not have."""
    from bayesrec import inference

    kind = _pick("--method", options.method, METHODS, inference)
    has = [field.name for field in fields(kind)]
    given = {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if field.name not in ("method", "seed") and getattr(options, field.name) is not None
    }
    for name in given:
        if name not in has:
            flags = [field.name for field in fields(options) if field.name in has]
            raise DataError(f"{_flag(name)} is no option of {options.method}, which has {', '.join(map(_flag, flags))}")
    return kind(**given)


def load_model(path: Path) -> Posterior:
    """Read a model folder; a LoadError that helps if it is none."""
    from bayesrec.inference import load

    if path.is_file():
        raise LoadError(f"{str(path)!r} is a file; a model folder is expected in its place, as bayesrec fit writes it")
    if not path.exists():
        here = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        raise LoadError(f"there is no model folder {str(path)!r}{nearest(path.name, here)}; bayesrec fit makes one")
    return load(path)


def check_folder(out: Path, checkpoint: Path | None = None) -> None:
    """Refuse a place for a model, or for its checkpoint, before the fit, not after."""
    from bayesrec.tables import check_place

    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "bayesrec.json").exists()):
        raise DataError(f"--out {out}: it exists and is no model folder; it is left alone. Choose another name")
    check_place(out)
    if checkpoint is None:
        return
    if checkpoint.is_file() or (checkpoint / "bayesrec.json").exists():
        kind = "file" if checkpoint.is_file() else "model folder"
        raise DataError(f"--checkpoint {checkpoint} is a {kind}; name a folder of its own")
    if checkpoint.resolve().is_relative_to(out.resolve()):
        raise DataError(
            f"--checkpoint {checkpoint} lies in --out {out}, which is replaced at the end; name another folder"
        )
    check_place(checkpoint / "chain-0.npz")


def check_page(out: Path) -> None:
    """Refuse a place for a page before the work, not after."""
    from bayesrec.tables import check_place

    if out.is_dir():
        raise DataError(f"{str(out)!r} is a folder; name a file such as {out / 'report.html'}")
    if not out.parent.is_dir():
        raise DataError(f"{str(out)!r}: there is no folder {str(out.parent)!r}; make it, or choose another name")
    check_place(out)


def _none(text: str | None) -> str | None:
    return None if text is None or text.lower() == "none" else text


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _by_domain(tables: list[str]) -> dict[str | None, Path]:
    """Domain to file; the domain is None where the table has a column of domains."""
    paths: dict[str | None, Path] = {}
    for word in tables:
        name, equals, rest = word.partition("=")
        named = bool(equals) and not Path(word).exists()
        if not named and len(tables) > 1:
            raise DataError(
                f"{word!r}: of several tables each needs the name of its domain, NAME=FILE: book=a.csv music=b.csv"
            )
        if named and (not name or not rest):
            raise DataError(f"{word!r}: give NAME=FILE, for example music={rest or 'b.csv'}")
        if named and name in paths:
            raise DataError(f"the domain {name!r} has two tables; put them into one file")
        paths[name if named else None] = Path(rest if named else word)
    return paths


def _pick(option: str, word: str, names: dict[str, str], module: Any) -> Any:
    """The class of a word, if this version has it."""
    known = [key for key, name in names.items() if hasattr(module, name)]
    if word.lower() not in known:
        raise DataError(
            f"{option} {word}: there is no such choice{nearest(word, known)}; it is one of {', '.join(known)}"
        )
    return getattr(module, names[word.lower()])
