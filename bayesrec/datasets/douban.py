"""Douban: books, music and films rated by the same people."""

from __future__ import annotations

import os
import re

from bayesrec.datasets.common import Collector, Dataset, Keep, Problems
from bayesrec.datasets.files import Entry, open_source
from bayesrec.datasets.tables import Spec, collect_text, fields, first_line

_PLAIN = Spec.of("\t", user="int", item="int", rating="float")
_DOMAIN = re.compile(r"(book|movie|music)", re.IGNORECASE)
_PATTERNS = ("*_ratings.dat", "ratings.dat", "*reviews_cleaned.txt")


def douban(
    path: str | os.PathLike[str], *, strict: bool = False, keep: Keep | None = None, max_rows: int | None = None
) -> Dataset:
    r"""Read Douban as published with GA-DTCDR. Stable.

    Parameters
    ----------
    path : path
        Folder or archive with `book_ratings.dat`, `music_ratings.dat`, `movie_ratings.dat`, or `douban_book/ratings.dat`
        and so on (tabs, no header), or `bookreviews_cleaned.txt` and so on (tabs, header); or one such file.
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows, which has `domain`; returns a boolean mask.
    max_rows : int, optional
        Stop after so many rows.

    Returns
    -------
    Dataset
        `domain` is "book", "movie" or "music". A user id is the same person in all of them; an item id belongs to its
        domain. Memory: blocks of 8 MB; the peak is about three times the table.

    Raises
    ------
    DataError
        No ratings at `path`, a file whose domain is not in its name, a damaged archive, a problem in strict mode.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp(), "douban")
    >>> folder.mkdir()
    >>> _ = (folder / "book_ratings.dat").write_text("1\t1630\t4\n")
    >>> _ = (folder / "music_ratings.dat").write_text("1\t1630\t5\n2\t7\t3\n")
    >>> douban(folder)
    Dataset douban: 3 ratings of 2 users on 3 items, from 3 to 5
      domains: music 2, book 1
    """
    problems = Problems(strict)
    with open_source(path) as source:
        into = Collector(problems, (1.0, 5.0), {0.0: "zero ratings"}, keep, max_rows)
        entries = source.every(*_PATTERNS)
        if not entries:
            raise source.nothing("Douban ratings", *_PATTERNS)
        for entry in entries:
            domain = _DOMAIN.search(entry.name) or _DOMAIN.search(str(source.path.resolve().name))
            if domain is None:
                raise source.nothing("domain (book, movie, music) in the name of " + entry.name, *_PATTERNS)
            spec, header = _layout(entry, domain[1].lower())
            if collect_text(entry, spec, into, header, domain[1].lower()):
                break
        return Dataset(source.stem, into.table(str(source.path)), problems=problems.sentences())


def _layout(entry: Entry, domain: str) -> tuple[Spec, bool]:
    """Tell the columns of a file, and whether it has a header."""
    first = fields(first_line(entry), "\t")
    if not any("rating" in name for name in first):
        return _PLAIN, False
    roles = {
        "user": ("int", ("user_id", "uid", "user")),
        "item": ("int", (f"{domain}_id", "item_id", "item")),
        "rating": ("float", ("rating",)),
    }
    return Spec.from_header(first, "\t", roles, entry.label), True
