"""Folders, archives and compressed files as a list of entries that open as byte streams. Internal."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bayesrec.data.columns import nearest
from bayesrec.errors import DataError

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGED = (
    EOFError, OSError, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip
_DEPTH = 2  # folders below the given one that are looked into


@dataclass(frozen=True)
class Entry:
    """One file: its path inside the source, how messages call it, and how to open it."""

    name: str
    label: str
    raw: Callable[[], IO[bytes]]

    @property
    def base(self) -> str:
        """Name without folders and without the suffix of a compression, such as ``ratings.csv``."""
        base = PurePosixPath(self.name).name
        return next((base[: -len(end)] for end in _OPENERS if base.lower().endswith(end)), base)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file, decompressed; what goes wrong while reading is a DataError that names it."""
        with damage_named(self.label), ExitStack() as stack:
            stream = stack.enter_context(self.raw())
            opener = _OPENERS.get(PurePosixPath(self.name).suffix.lower())
            yield stack.enter_context(opener(stream)) if opener else stream


@dataclass(frozen=True)
class Source:
    """The entries of a folder, an archive or a single file."""

    path: Path
    entries: tuple[Entry, ...]

    @property
    def stem(self) -> str:
        """Name of the folder, archive or file without suffixes."""
        return stem(self.path.resolve().name)

    def every(self, *patterns: str) -> list[Entry]:
        """Entries whose base name matches a pattern (case does not count), by name, numbers as numbers.

        Of a file that stands there compressed and plain the plain one is taken.
        """
        names = {e.name for e in self.entries}
        found = [e for e in self.entries if any(fnmatch(e.base.lower(), pattern) for pattern in patterns)]
        found = [
            e for e in found if e.name.endswith(e.base) or str(PurePosixPath(e.name).with_name(e.base)) not in names
        ]
        return sorted(found, key=lambda e: [(not p.isdigit(), p.zfill(20)) for p in re.split(r"(\d+)", e.name)])

    def find(self, *patterns: str) -> Entry | None:
        """Return the entry nearest to the top that matches the first pattern that any entry matches.

        Raises
        ------
        DataError
            Two candidates at the same depth: which one is meant is not ours to guess.
        """
        for pattern in patterns:
            found = self.every(pattern)
            if found:
                top = min(e.name.count("/") for e in found)
                found = [e for e in found if e.name.count("/") == top]
                if len(found) > 1:
                    raise DataError(f"{self.path} holds {found[0].name} and {found[1].name}; name one of the two")
                return found[0]
        return None

    def need(self, what: str, *patterns: str) -> Entry:
        """Like `find`; a DataError that lists what is there if nothing matches."""
        found = self.find(*patterns)
        if found is None:
            raise self.nothing(what, *patterns)
        return found

    def nothing(self, what: str, *patterns: str) -> DataError:
        """Return the error that no entry matches."""
        if self.find("bayesrec.json"):
            return DataError(f"{self.path} is a saved bayesrec model, not a data set; load it with bayesrec.load")
        names = [e.name for e in self.entries[:8]]
        there = ", ".join(names) + (", ..." if len(self.entries) > 8 else "") if names else "nothing"
        return DataError(
            f"{self.path}: no {what} found (looked for {', '.join(patterns)}); it has: {there}; "
            f"give the folder, archive or file as it was distributed"
        )


def stem(name: str) -> str:
    """Return a file name without suffixes of archives, compressions and formats."""
    cut = re.sub(r"\.(tar|tgz|zip|gz|bz2|xz)(\.(gz|bz2|xz))?$", "", name, flags=re.IGNORECASE)
    return re.sub(r"\.(csv|tsv|dat|data|txt|json|jsonl|inter|mat)$", "", cut, flags=re.IGNORECASE)


@contextmanager
def damage_named(label: str) -> Iterator[None]:
    """Turn what a damaged or truncated file raises into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except _DAMAGED as error:
        why = str(error) or type(error).__name__
        raise DataError(f"{label} cannot be read ({why}); it may be truncated: fetch it again") from error


@contextmanager
def open_source(path: str | os.PathLike[str]) -> Iterator[Source]:
    """Open a folder, a .zip or .tar[.gz] archive (not unpacked to disk) or a file.

    Raises
    ------
    DataError
        A path that does not exist (the nearest name beside it is suggested) or a damaged archive.
    """
    place = Path(path).expanduser()
    if not place.exists():
        beside = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        raise DataError(f"{place} does not exist{nearest(place.name, beside)}")
    if place.is_dir():
        yield Source(place, tuple(_folder(place)))
        return
    with ExitStack() as stack:
        with damage_named(str(place)):
            entries = tuple(_archive(place.name, str(place), _opener(place), stack))
        yield Source(place, entries)


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _folder(top: Path) -> Iterator[Entry]:
    for where, folders, names in os.walk(top):
        inside = Path(where).relative_to(top)
        folders[:] = sorted(f for f in folders if f[:1] not in "._") if len(inside.parts) < _DEPTH else []
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(where, name)
                yield Entry(str(PurePosixPath(inside, name)), str(path), _opener(path))


def _check_end(tar: tarfile.TarFile) -> None:
    """Refuse a .tar that ends between two members: the module takes it for a whole one."""
    if tar.fileobj is not None:
        tar.fileobj.seek(tar.offset)
        if len(tar.fileobj.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("the block that ends a .tar is missing")


def _archive(name: str, label: str, raw: Callable[[], IO[bytes]], stack: ExitStack) -> Iterator[Entry]:
    """Yield the members of an archive, those of a .tar inside it too; any other file is its own only member."""
    lower = name.lower()
    members: dict[str, Callable[[], Any]]
    if lower.endswith(".zip"):
        pack = stack.enter_context(zipfile.ZipFile(stack.enter_context(raw())))
        members = {m.filename: partial(pack.open, m) for m in pack.infolist() if not m.is_dir()}
    elif lower.endswith(_TARS):
        tar = stack.enter_context(tarfile.open(fileobj=stack.enter_context(raw()), mode="r:*"))  # noqa: SIM115
        members = {m.name: partial(tar.extractfile, m) for m in tar.getmembers() if m.isfile()}
        _check_end(tar)
    else:
        yield Entry(name, label, raw)
        return
    for inner, opener in members.items():
        parts = PurePosixPath(inner).parts
        if not parts or parts[0] == "__MACOSX" or parts[-1].startswith("."):
            continue
        if inner.lower().endswith(_TARS):
            for entry in _archive(inner, f"{label}: {inner}", opener, stack):
                yield Entry(f"{inner}/{entry.name}", entry.label, entry.raw)
        else:
            yield Entry(inner, f"{label}: {inner}", opener)
