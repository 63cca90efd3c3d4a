"""Small HTML tables for notebooks: plain strings, every cell escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def html_table(heads: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """Return a table as HTML; the first cell of a row is its header. Internal.

    Examples
    --------
    >>> html_table(["domain", "rows"], [["a<b", 3]])
    '<table><thead><tr><th>domain</th><th>rows</th></tr></thead><tbody><tr><th>a&lt;b</th><td>3</td></tr></tbody></table>'
    """
    top = "".join(f"<th>{escape(str(head))}</th>" for head in heads)
    body = ""
    for first, *others in rows:
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in others)
        body += f"<tr><th>{escape(str(first))}</th>{cells}</tr>"
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
