"""One self-contained HTML page: no network, light and dark, readable on a phone and on paper."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bayesrec.files import beside

__all__ = ["document", "image", "page", "png", "table", "write"]


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


def table(frame: pd.DataFrame, digits: int = 3, label: str = "Table") -> str:
    """A frame as an HTML table; the first column is the label of its row."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return "" if pd.isna(value) else f"{value:.{digits}f}"
        return html.escape(str(value))

    head = "".join(f"<th scope='col'>{html.escape(str(name))}</th>" for name in frame.columns)
    rows = "".join(
        f"<tr><th scope='row'>{text(label)}</th>" + "".join(f"<td>{text(v)}</td>" for v in rest) + "</tr>"
        for label, *rest in frame.itertuples(index=False)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def document(title: str, body: str, foot: str) -> str:
    """A whole page around ``body`` (HTML); title and foot are plain text. Closed details open on paper."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'><link rel='icon' href='data:,'>"
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body><main><h1>{html.escape(title)}</h1>"
        f"{body}</main><footer>{html.escape(foot)}</footer></body></html>"
    )


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
    lead = f"<p class='lead'>{html.escape(lead)}</p>"
    return document(title, f"{lead}<div class='verdicts'>{cards}</div>{body}", foot)


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    with beside(path) as fresh:
        fresh.write_bytes(data)
