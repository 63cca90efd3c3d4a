"""The cold-start splits of CDRIB: two categories of Amazon, clicks, with train, valid and test."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from bayesrec.data.columns import nearest
from bayesrec.datasets.common import Collector, Dataset, Keep, Problems
from bayesrec.datasets.files import Entry, Source, open_source, stem
from bayesrec.datasets.tables import Spec, collect_text
from bayesrec.errors import DataError

SPLITS = ("train", "valid", "test")
_LINE = Spec.of("\t", user="int", item="int")
_PATTERNS = tuple(f"{split}.txt" for split in SPLITS)


def cdrib(
    path: str | os.PathLike[str],
    pair: str | None = None,
    *,
    strict: bool = False,
    keep: Keep | None = None,
    max_rows: int | None = None,
) -> Dataset:
    r"""Read two domains of clicks with the cold-start splits of CDRIB. Provisional.

    The folder ``game_video`` holds the rows of game, ``video_game`` those of video. Below a number that both folders share a
    user id is one person; from there on the same id means two people, who are told apart here. Of a tenth of the shared people
    *all* rows of one domain are in its valid and test, of another tenth all rows of the other.

    Parameters
    ----------
    path : path
        Folder or archive that holds ``game_video`` and ``video_game``, each with ``train.txt``, ``valid.txt`` and ``test.txt``
        (tabs, no header).
    pair : str, optional
        For example ``"game_video"``; needed where the folder holds more than one pair.
    strict : bool
        Whether the first problem is an error.
    keep : callable, optional
        Called with each block of rows, which has `domain` and `split`; returns a boolean mask.
    max_rows : int, optional
        Stop after so many rows.

    Returns
    -------
    Dataset
        `domain` is "game" or "video", `split` is "train", "valid" or "test", every rating is 1. Ids of users are strings:
        "17" is one person in both domains, "game:2300" somebody who is in game alone. `by_split` makes Interactions of them.

    Raises
    ------
    DataError
        No such folders at `path`, one folder of a pair without the other, several pairs and none named, a damaged
        archive, a problem in strict mode.

    References
    ----------
    Cao et al. (2022), `cao2022` in docs/references.bib.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> top = pathlib.Path(tempfile.mkdtemp(), "cdrib")
    >>> rows = {"game_video": ("0\t5\n2\t6\n", "1\t5\n", "1\t6\n"), "video_game": ("1\t5\n2\t9\n", "0\t5\n", "0\t9\n")}
    >>> for folder, texts in rows.items():
    ...     (top / folder).mkdir(parents=True)
    ...     for split, text in zip(SPLITS, texts):
    ...         _ = (top / folder / f"{split}.txt").write_text(text)
    >>> data = cdrib(top)
    >>> data
    Dataset game_video: 8 ratings of 4 users on 4 items, from 1 to 1
      domains: game 4, video 4
    >>> data.ratings.query("split == 'train'").user.tolist()  # 2 is not the same person in the two folders
    ['0', 'game:2', '1', 'video:2']
    """
    problems = Problems(strict)
    with open_source(path) as source:
        pair, folders = _pair(source, pair)
        shared = _shared(folders)
        into = Collector(problems, keep=keep, max_rows=max_rows)
        for folder, files in folders.items():
            domain = folder.split("_")[0]
            if any(collect_text(files[split], _LINE, _Named(into, domain, split, shared)) for split in SPLITS):
                break
        return Dataset(pair, into.table(str(source.path)), problems=problems.sentences())


class _Named(Collector):
    """Names domain, split and people of each block before the collector takes it."""

    def __init__(self, into: Collector, domain: str, split: str, shared: int):
        super().__init__(into.problems)
        self.into, self.domain, self.split, self.shared = into, domain, split, shared

    def add(self, block: pd.DataFrame, label: str, lines: np.ndarray) -> bool:
        """Take a block; see `Collector.add`."""
        user = block["user"]
        name = user.astype(str).where(user < self.shared, f"{self.domain}:" + user.astype(str))
        return self.into.add(block.assign(user=name, domain=self.domain, split=self.split), label, lines)


def _pair(source: Source, pair: str | None) -> tuple[str, dict[str, dict[str, Entry]]]:
    """Name of the pair, and the files of its two folders by split."""
    found: dict[str, dict[str, Entry]] = {}
    for entry in source.every(*_PATTERNS):
        found.setdefault(PurePosixPath(entry.name).parent.name, {})[stem(entry.base)] = entry
    whole = [name for name, files in found.items() if name.count("_") == 1 and set(files) == set(SPLITS)]
    if not whole:
        raise source.nothing("folders such as game_video and video_game, each with the three files,", *_PATTERNS)
    if pair is None:
        pair = min(whole, key=list(found).index)
        others = sorted(set(whole) - {pair, _other(pair)})
        if others:
            raise DataError(f"{source.path} holds several pairs, {sorted(whole)}; name one, such as pair={pair!r}")
    names = [pair, _other(pair)]
    for name in names:
        if name not in whole:
            raise DataError(
                f"{source.path}: no folder {name!r} with train.txt, valid.txt and test.txt{nearest(name, whole)}; it has "
                f"{sorted(whole)}, and a pair needs both of its folders"
            )
    return pair, {name: found[name] for name in names}


def _other(pair: str) -> str:
    """Return the name of the other folder of a pair."""
    first, _, second = pair.partition("_")
    return f"{second}_{first}"


def _shared(folders: dict[str, dict[str, Entry]]) -> int:
    """Return the number below which ids are shared: who is held out is known in both domains, the last of them last."""
    seen = Collector(Problems())
    for files in folders.values():
        for split in ("valid", "test"):
            collect_text(files[split], _LINE, seen)
    return 1 + max((int(block["user"].max()) for block in seen.blocks), default=-1)
