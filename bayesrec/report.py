"""One self-contained HTML page: no network, light and dark, readable on a phone and on paper."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["page", "png", "table", "write"]

STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #5b6773; --paper: #ffffff; --card: #f6f8fa; --line: #dfe4ea;
  --good: #2b8a3e; --bad: #c92a2a; --accent: #0b7285; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --muted: #a3afbb; --paper: #14181d; --card: #1d2329;
  --line: #343c45; --good: #69db7c; --bad: #ff8787; --accent: #66d9e8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 58rem; padding: 1.5rem 1rem 4rem; font: 1rem/1.55 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead { color: var(--muted); }
.verdicts { display: grid; grid-template-columns: repeat(auto-fit, minmax(12.5rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.verdict { background: var(--card); border-left: .35rem solid var(--muted); border-radius: .4rem; padding: .8rem 1rem; }
.verdict.positive { border-color: var(--good); } .verdict.negative { border-color: var(--bad); }
.verdict b { display: block; font-size: 1.05rem; } .verdict span { color: var(--muted); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { color: var(--muted); font-weight: 600; }
figure { margin: 1rem 0; } figcaption { color: var(--muted); font-size: .9rem; max-width: 46rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .4rem; border: 1px solid var(--line); }
footer { margin-top: 3rem; color: var(--muted); font-size: .85rem; }
@media print { body { max-width: none; } figure, table { break-inside: avoid; } }
"""


def png(figure: Any) -> bytes:
    """Render a matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def image(content: bytes, alt: str, caption: str = "") -> str:
    """An embedded picture with a text for those who cannot see it."""
    data = base64.b64encode(content).decode()
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(alt)}">{below}</figure>'


def table(frame: pd.DataFrame, digits: int = 3) -> str:
    """A frame as an HTML table; the first column or the index is the label."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return "" if pd.isna(value) else f"{value:.{digits}f}"
        return html.escape(str(value))

    head = "".join(f"<th scope='col'>{html.escape(str(name))}</th>" for name in frame.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{text(v)}</td>" for v in row) + "</tr>" for row in frame.itertuples(index=False)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def page(
    title: str, lead: str, verdicts: Sequence[tuple[str, str, str]], sections: Sequence[tuple[str, str]], foot: str
) -> str:
    """Put a page together.

    Parameters
    ----------
    title, lead, foot : str
        Plain text.
    verdicts : sequence of (verdict, headline, detail)
        Plain text; the verdict colours the card.
    sections : sequence of (heading, html)
    """
    cards = "".join(
        f'<div class="verdict {html.escape(kind)}"><b>{html.escape(head)}</b><span>{html.escape(detail)}</span></div>'
        for kind, head, detail in verdicts
    )
    body = "".join(f"<h2>{html.escape(heading)}</h2>{content}" for heading, content in sections)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main><h1>{html.escape(title)}</h1>"
        f"<p class='lead'>{html.escape(lead)}</p><div class='verdicts'>{cards}</div>{body}</main>"
        f"<footer>{html.escape(foot)}</footer></body></html>"
    )


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(data)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
