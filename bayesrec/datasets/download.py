"""Fetch a file whose terms allow it: size, checksum, progress, and never half a file under its final name."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from bayesrec.errors import DataError

_CHUNK = 1 << 18
_SECONDS = 30  # of silence, after which the connection counts as lost
_NETWORK = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


def fetch(url: str, to: str | os.PathLike[str], *, md5: str | None = None) -> Path:
    """Download `url` to the file `to` unless it is there already. Provisional.

    The size is printed to the standard error stream, with a progress bar if that is a terminal. The file is written
    beside its place and moved there once its checksum is right.

    Parameters
    ----------
    url : str
        Address of the file. Its MD5 sum is read from ``url + ".md5"`` unless given.
    to : path
        Where the file goes; its folder is made.
    md5 : str, optional
        The sum, 32 hexadecimal digits.

    Returns
    -------
    Path
        `to`.

    Raises
    ------
    DataError
        No network (the message says what to fetch by hand and where to put it), a wrong checksum, an incomplete
        transfer, or a disk that is full.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> there = pathlib.Path(tempfile.mkdtemp(), "ml-100k.zip")
    >>> _ = there.write_bytes(b"fetched before")
    >>> fetch("https://files.grouplens.org/datasets/movielens/ml-100k.zip", there).name
    'ml-100k.zip'
    """
    target = Path(to).expanduser()
    if target.exists():
        return target
    by_hand = f"fetch {url} by hand, put it at {target} and call again without download=True"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise DataError(f"cannot write to {target.parent} ({error}); choose another place") from error
    try:
        with os.fdopen(handle, "wb") as out:
            known = md5 or _published(url)
            found = _copy(url, out, target.name)
        if found != known:
            raise DataError(f"{url} has the MD5 sum {found}, not {known} as published; nothing was kept: try again")
        os.replace(beside, target)
    except _NETWORK as error:
        raise DataError(f"{url} cannot be fetched ({_reason(error)}); {by_hand}") from error
    except OSError as error:
        raise DataError(f"{target} cannot be written ({error}); nothing was kept") from error
    finally:
        Path(beside).unlink(missing_ok=True)
    return target


def _published(url: str) -> str:
    """Return the MD5 sum that is published beside a file, in either of the two usual formats."""
    with urllib.request.urlopen(f"{url}.md5", timeout=_SECONDS) as answer:
        text = answer.read(1000).decode("ascii", "replace")
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if not found:
        raise DataError(f"{url}.md5 holds no MD5 sum; nothing was fetched")
    return found[0].lower()


def _copy(url: str, out: IO[bytes], name: str) -> str:
    """Copy the file at `url` to an open file and return its MD5 sum."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    digest, done = hashlib.md5(usedforsecurity=False), 0
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
        size = int(answer.headers.get("Content-Length") or 0)
        console.print(f"{name}: {f'{size / 1e6:.1f} MB' if size else 'size not stated'} from {url}", markup=False)
        with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task(name, total=size or None)
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                bar.update(task, completed=done)
    if size and done < size:
        raise http.client.IncompleteRead(b"", size - done)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """Return why a transfer failed, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", "") or error or type(error).__name__)
