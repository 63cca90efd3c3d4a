"""From Parquet files, portion by portion, to the fields of Interactions: `from_parquet`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayesrec.data import build
from bayesrec.data.columns import Columns, nearest, require_columns
from bayesrec.data.frames import Layout, open_frame, read_numbers, read_time
from bayesrec.data.ids import checked_ids
from bayesrec.data.vocabulary import Vocabulary
from bayesrec.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".pq")
PENDING = 2**16  # ids that may wait to be looked at together
BUFFER = 2**20  # bytes of a column that are read from the disk at once


def fields(
    paths: Any, target: Any, columns: Columns, shared: str, features: Mapping[str, Any], batch_rows: int
) -> dict[str, Any]:
    """Return the fields of Interactions from Parquet files: one round for the ids, one for the rows."""
    build.check_shared(shared)
    if isinstance(batch_rows, bool) or not isinstance(batch_rows, int | np.integer) or batch_rows < 1:
        raise DataError(f"batch_rows must be a whole number of at least 1, not {batch_rows!r}")
    if target is None:
        raise DataError("target=None: name the domain to predict")
    table = Files(_files(paths), columns, int(batch_rows))
    if not table.n:
        raise DataError("the table has no rows; give at least one row of the target domain")
    scoped = {"user": shared == "items", "item": shared == "users"}
    names, ids = _collect(table, columns, scoped)
    domains = build.ordered_domains(names, target, columns.domain)
    code_of = {None: 0} if columns.domain is None else {name: code for code, name in enumerate(domains)}
    words = {side: found.vocabulary(code_of if scoped[side] else None) for side, found in ids.items()}
    del ids
    rows, layout = _encode(table, columns, scoped, code_of, words)
    rows = build.without_duplicates(rows, len(words["item"]), stacklevel=4)
    # domains last: what is wide already and what still is narrow never take more room together than they must
    for name, dtype in (("user", np.int64), ("item", np.int64), ("value", np.float64), ("domain", np.int64)):
        rows[name] = np.ones(len(rows["user"])) if rows[name] is None else rows[name].astype(dtype, copy=False)
    for array in rows.values():
        if array is not None:
            array.flags.writeable = False  # nobody else has them: no need of copies
    return {
        **rows,
        "users": words["user"],
        "items": words["item"],
        "domains": domains,
        "columns": columns,
        "shared": shared,
        "layout": layout,
        **build.checked_features(features, columns),
    }


@dataclass(frozen=True)
class Portion:
    """Some rows of a file: ``table`` has the wanted columns, ``first`` is the number of its first row in all files."""

    path: Path
    table: pa.Table
    first: int
    first_in_file: int

    def column(self, name: str) -> pd.Series:
        """A column as a frame would have it."""
        return self.table.select([name]).to_pandas(ignore_metadata=True, date_as_object=False)[name]

    def words(self, name: str) -> tuple[pd.Series, np.ndarray]:
        """The distinct entries of a column, numbered by the row where each stands first, and the place of each row's (n,)."""
        array = self.table.column(name).combine_chunks().dictionary_encode()
        if not hasattr(array, "indices"):  # of no chunk, or of one
            array = array.chunk(0)
        index = array.indices.to_numpy(zero_copy_only=False)
        words = array.dictionary.to_pandas(date_as_object=False)
        first = np.empty(len(words), dtype=np.int64)
        first[index[::-1]] = np.arange(len(index) - 1, -1, -1)
        words.index = pd.Index(self.first + first)
        return words, index

    def refuse_missing(self) -> None:
        """Raise a DataError for the first missing entry."""
        import pyarrow.compute as pc

        for name in self.table.column_names:
            missing = pc.is_null(self.table.column(name), nan_is_null=True)
            row = pc.index(missing, True).as_py()
            if row >= 0:
                raise DataError(
                    f"column {name!r} has a missing value in row {self.first + row} (rows count from 0), which is row "
                    f"{self.first_in_file + row} of {str(self.path)!r}; drop or fill such rows"
                )


class Files:
    """The wanted columns of some Parquet files as one table, in portions."""

    def __init__(self, paths: list[Path], columns: Columns, batch_rows: int):
        import pyarrow as pa

        self.paths, self.batch_rows, self.n = paths, batch_rows, 0
        self.order: tuple[str, ...] = ()
        wanted = columns.present()
        schemas: list[pa.Schema] = []
        for path in paths:
            with _opened(path) as file:
                schema = file.schema_arrow
                twice = next((name for k, name in enumerate(schema.names) if name in schema.names[:k]), None)
                if twice is not None:
                    raise DataError(f"{str(path)!r} has two columns named {twice!r}; rename one")
                require_columns(schema.names, wanted, repr(str(path)))
                order = [name for name in schema.names if name in wanted.values()]
                self.n += file.metadata.num_rows
            self.order = self.order or tuple(order)
            schemas.append(pa.schema([(name, _plain_type(schema.field(name).type)) for name in self.order]))
        self.schema = schemas[0]
        for path, schema in zip(paths, schemas, strict=True):
            self.schema = _common(self.schema, schema, path)
        for name in (columns.user, columns.item, columns.domain):
            if name is not None and pa.types.is_nested(self.schema.field(name).type):
                raise DataError(
                    f"column {name!r} holds {self.schema.field(name).type}; ids and domains are integers or strings"
                )

    def portions(self) -> Iterator[Portion]:
        """One after another, in the order of the rows; a DataError for a missing entry."""
        import pyarrow as pa

        first = 0
        for path in self.paths:
            start = first
            with _opened(path) as file:
                batches = file.iter_batches(self.batch_rows, columns=list(self.order), use_threads=False)
                for batch in batches:
                    table = pa.Table.from_batches([batch]).select(list(self.order)).cast(self.schema)
                    portion = Portion(path, table, first, first - start)
                    portion.refuse_missing()
                    if len(table):
                        yield portion
                    first += len(table)
        pa.default_memory_pool().release_unused()


class Ids:
    """The distinct ids of one side, scope by scope, as portions bring them."""

    def __init__(self, what: str):
        self.what = what
        self.known: dict[Any, pd.Series] = {}
        self.pending: dict[Any, list[pd.Series]] = {}

    def add(self, words: pd.Series, scope: Any = None) -> None:
        """Take in distinct ids of a scope."""
        waiting = self.pending.setdefault(scope, [])
        waiting.append(words)
        if sum(map(len, waiting)) > max(PENDING, len(self.known.get(scope, ()))):
            self._settle(scope)

    def _settle(self, scope: Any) -> None:
        parts = [self.known[scope]] if scope in self.known else []
        self.known[scope] = pd.concat([*parts, *self.pending[scope]]).drop_duplicates()
        self.pending[scope] = []

    def vocabulary(self, code_of: Mapping[Any, int] | None) -> Vocabulary:
        """Their vocabulary; ``code_of`` has the codes of the scopes, where there are any."""
        for scope in self.pending:
            self._settle(scope)
        ids = pd.concat(list(self.known.values()))
        if code_of is None:
            return Vocabulary.from_ids(ids, None, self.what)
        codes = np.repeat([code_of[name] for name in self.known], [len(part) for part in self.known.values()])
        return Vocabulary.from_ids(ids, codes, self.what)


def whole_numbers(paths: Any, name: str) -> bool:
    """Whether a column of some files holds whole numbers; False if it is not there. Internal."""
    import pyarrow as pa

    with _opened(_files(paths)[0]) as file:
        place = file.schema_arrow.get_field_index(name)
        return place >= 0 and bool(pa.types.is_integer(_plain_type(file.schema_arrow.field(place).type)))


def _collect(table: Files, columns: Columns, scoped: Mapping[str, bool]) -> tuple[list[Any], dict[str, Ids]]:
    """The names of the domains and the ids of both sides, in a first round."""
    names: dict[Any, None] = {}
    sides = {"user": columns.user, "item": columns.item}
    ids = {side: Ids(f"column {name!r}") for side, name in sides.items()}
    for portion in table.portions():
        here, place = _names(portion, columns)
        names |= dict.fromkeys(here)
        for side, name in sides.items():
            words, index = portion.words(name)
            checked_ids(words, f"column {name!r}")
            if not scoped[side]:
                ids[side].add(words)
                continue
            for k, domain in enumerate(here):
                seen = index if len(here) == 1 else index[place == k]
                ids[side].add(words.iloc[np.flatnonzero(np.bincount(seen, minlength=len(words)))], domain)
    return list(names), ids


def _encode(
    table: Files,
    columns: Columns,
    scoped: Mapping[str, bool],
    code_of: Mapping[Any, int],
    words: Mapping[str, Vocabulary],
) -> tuple[dict[str, Any], Layout]:
    """The rows as codes and values, as narrow as holds them, and the layout, in a second round."""
    n, kinds = table.n, {"domain": None, "value": None, "time": None, "zone": None}  # type: tuple[int, dict[str, Any]]
    rows: dict[str, Any] = {side: np.empty(n, dtype=np.int32) for side in ("user", "item")}
    rows["domain"] = np.empty(n, dtype=np.min_scalar_type(-len(code_of)))
    rows |= {"value": None if columns.value is None else np.zeros(n, dtype=np.float32), "time": None}  # zeros: widened
    stop = 0
    for portion in table.portions():
        stop = portion.first + len(portion.table)
        here = slice(portion.first, stop)
        if stop > n:
            break
        names, place = _names(portion, columns)
        codes = np.array([code_of.get(name, -1) for name in names])
        for side, name in (("user", columns.user), ("item", columns.item)):
            ids, index = portion.words(name)
            if not scoped[side] or len(codes) == 1:
                rows[side][here] = words[side].encode(ids, int(codes[0]))[index]
                continue
            for k, code in enumerate(codes):
                known, members = words[side].encode(ids, int(code)), np.flatnonzero(place == k)
                rows[side][portion.first + members] = known[index[members]]
        rows["domain"][here] = codes[place]
        if min(codes.min(), *(rows[side][here].min() for side in ("user", "item"))) < 0:
            break
        if columns.value is not None:
            frame = open_frame(pd.DataFrame({columns.value: portion.column(columns.value)}))
            value, kinds["value"] = read_numbers(frame, columns.value, portion.first)
            if rows["value"].dtype == np.float32 and not _fits_float32(value):
                rows["value"] = rows["value"].astype(np.float64)
            rows["value"][here] = value
        if columns.time is not None:
            frame = open_frame(pd.DataFrame({columns.time: portion.column(columns.time)}))
            time, kinds["time"], kinds["zone"] = read_time(frame, columns.time, portion.first)
            if rows["time"] is None:
                rows["time"] = np.empty(n, dtype=time.dtype)
            rows["time"][here] = time
    else:
        if stop == n:
            if columns.domain is not None:
                kinds["domain"] = str(_empty(table, columns.domain).dtype)
            return rows, Layout("pandas", table.order, *kinds.values())
    raise DataError(f"{str(portion.path)!r} has changed while it was read; read it again when nobody writes to it")


def _fits_float32(value: np.ndarray) -> bool:
    """Whether float32 holds all values (n,) exactly."""
    with np.errstate(over="ignore", under="ignore"):
        return bool((value.astype(np.float32) == value).all())


def _names(portion: Portion, columns: Columns) -> tuple[list[Any], np.ndarray]:
    """Names of the domains in a portion, and the place of each row's (n,); without a column of domains None for all."""
    if columns.domain is None:
        return [None], np.zeros(len(portion.table), dtype=np.int8)
    words, place = portion.words(columns.domain)
    return [build.plain_name(name) for name in words], place


def _empty(table: Files, name: str) -> pd.Series:
    """A column as a frame would have it, without its rows."""
    return table.schema.empty_table().select([name]).to_pandas(ignore_metadata=True, date_as_object=False)[name]


def _plain_type(kind: Any) -> Any:
    """The type of the entries, where they come from a dictionary."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _common(one: Any, other: Any, path: Path) -> Any:
    """The schema that has room for two; a DataError names the file and the column whose types cannot be mixed."""
    import pyarrow as pa

    out = []
    for name in one.names:
        kinds = one.field(name).type, other.field(name).type
        try:
            out.append(pa.unify_schemas([pa.schema([(name, k)]) for k in kinds], promote_options="permissive").field(0))
        except pa.ArrowException as error:
            raise DataError(
                f"column {name!r} holds {kinds[1]} in {str(path)!r} and {kinds[0]} in the files before; cast it to one type"
            ) from error
    return pa.schema(out)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open Parquet file; a DataError where it, or what is done with it, fails."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, buffer_size=BUFFER) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{str(path)!r} is no Parquet file, or damaged or cut short: {error}") from error


def _files(paths: Any) -> list[Path]:
    """Files, and those in folders."""
    if isinstance(paths, str | Path):
        paths = [paths]
    if not isinstance(paths, Iterable):
        raise DataError(f"paths must be a file, a folder or a list of them, not {paths!r}")
    out: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not _hidden(p, path))
            if not inside:
                raise DataError(f"the folder {str(path)!r} has no file that ends in {' or '.join(SUFFIXES)}")
            out += inside
            continue
        if not path.exists():
            here = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise DataError(f"there is no file {str(path)!r}{nearest(path.name, here)}")
        out.append(path)
    if not out:
        raise DataError("there is no file to read: the list of paths is empty")
    return out


def _hidden(path: Path, folder: Path) -> bool:
    """Whether a name on the way from the folder marks what is no table, such as _temporary or .part-0.parquet.crc."""
    return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
