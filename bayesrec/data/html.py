"""How data show their sizes, in text and in HTML for notebooks: plain strings, every cell escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bayesrec.data.interactions import Interactions


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


def sizes_text(data: Interactions) -> str:
    """Return what the data are and a line for each domain, as the caller knows them. Internal."""
    if data.columns.swapped:
        return sizes_text(data.transposed()).replace("\n", ", with users and items in each other's role\n", 1)
    lines = [f"Interactions(target={data.target!r}, sources={data.sources!r}, shared={data.shared!r})"]
    width = max(len(str(name)) for name in data.domains)
    for name, (rows, users, items, density) in zip(data.domains, _sizes(data), strict=True):
        lines.append(f"  {name!s:<{width}}  {rows} rows, {users} users, {items} items, density {density:.2%}")
    return "\n".join(lines)


def sizes_html(data: Interactions) -> str:
    """Return the same as a table. Internal."""
    if data.columns.swapped:
        return sizes_html(data.transposed())
    roles = ["source"] * len(data.sources) + ["target"]
    rows = [
        (name, role, f"{n:,}", f"{users:,}", f"{items:,}", f"{density:.2%}")
        for name, role, (n, users, items, density) in zip(data.domains, roles, _sizes(data), strict=True)
    ]
    heads = ("domain", "role", "rows", "users", "items", "density")
    return html_table(heads, rows, f"Interactions, {data.shared} shared")


def _sizes(data: Interactions) -> list[tuple[int, int, int, float]]:
    """Rows, users, items and density of each domain."""
    out = []
    for code in range(len(data.domains)):
        here = data.domain == code
        rows, users, items = int(here.sum()), len(np.unique(data.user[here])), len(np.unique(data.item[here]))
        out.append((rows, users, items, rows / max(users * items, 1)))
    return out
