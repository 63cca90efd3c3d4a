"""Small pictures as inline SVG: no library, colours from the page's style, a text for those who cannot see them. Internal.

Bars use percentages instead of a view box, so they stretch with the page while letters and dots keep their size.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

__all__ = ["coverage", "histogram", "interval", "share", "stack"]


def _svg(label: str, height: int, inside: str) -> str:
    return f'<svg role="img" aria-label="{escape(label)}" width="100%" height="{height}">{inside}</svg>'


def _percent(x: float) -> str:
    return f"{100.0 * x:.2f}%"


def interval(lower: float, mean: float, upper: float, scale: tuple[float, float], label: str) -> str:
    """A range with a dot at its mean, on a track from one end of the scale to the other; cut off at the ends."""
    low, span = scale[0], (scale[1] - scale[0]) or 1.0
    a, m, b = (_percent(0.03 + 0.94 * float(np.clip((x - low) / span, 0.0, 1.0))) for x in (lower, mean, upper))
    return _svg(
        label,
        16,
        f'<rect class="track" x="0" y="7" width="100%" height="2"/><line class="range" x1="{a}" x2="{b}" y1="8" y2="8"/>'
        f'<circle class="source" cx="{m}" cy="8" r="4.5"/>',
    )


def share(value: float, label: str) -> str:
    """A bar of ``value``, 0 to 1, on a track."""
    return _svg(
        label,
        10,
        '<rect class="track" width="100%" height="10" rx="2"/>'
        f'<rect class="source" width="{_percent(value)}" height="10" rx="2"/>',
    )


def stack(parts: Mapping[str, float], label: str) -> str:
    """Shares side by side; the keys are the classes ``source``, ``population``, ``own``. Wide ones show their number."""
    inside, left = "", 0.0
    for name, value in parts.items():
        inside += f'<rect class="{name}" x="{_percent(left)}" width="{_percent(value)}" height="22"/>'
        if value >= 0.12:
            middle = _percent(left + value / 2.0)
            inside += f'<text class="on-{name}" x="{middle}" y="15.5" text-anchor="middle">{value:.0%}</text>'
        left += value
    return _svg(label, 22, inside)


def swatch(name: str) -> str:
    """A little square in the colour of a class, for a legend."""
    return f'<svg aria-hidden="true" width="14" height="14"><rect class="{name}" width="14" height="14" rx="2"/></svg>'


def histogram(values: np.ndarray, label: str, ticks: tuple[str, str, str], bins: int = 24) -> str:
    """Counts of values on both sides of zero: below in the colour of harm, above in that of gain.

    Parameters
    ----------
    values : ndarray (n,)
    label : str
    ticks : tuple of str
        What the left end, zero and the right end mean; see :func:`reach` for where the ends lie.
    bins : int
        An even number, so that zero lies on an edge.
    """
    end = reach(values)
    count, _ = np.histogram(np.clip(values, -end, end), bins=bins, range=(-end, end))
    height, base = 120.0, 128.0
    inside = ""
    for k, n in enumerate(count):
        h = height * n / max(count.max(), 1)
        kind = "bad" if k < bins // 2 else "good"
        x, width = _percent((k + 0.06) / bins), _percent(0.88 / bins)
        inside += f'<rect class="{kind}" x="{x}" y="{base - h:.1f}" width="{width}" height="{h:.1f}"/>'
    inside += f'<line class="axis" x1="0" x2="100%" y1="{base}" y2="{base}"/>'
    inside += f'<line class="axis" x1="50%" x2="50%" y1="4" y2="{base + 5}"/>'
    for x, anchor, text in zip(("0", "50%", "100%"), ("start", "middle", "end"), ticks, strict=True):
        inside += f'<text class="muted" x="{x}" y="{base + 19}" text-anchor="{anchor}">{escape(text)}</text>'
    return _svg(label, int(base + 24), inside)


def reach(values: np.ndarray) -> float:
    """Where a histogram ends on either side: all but the 2% most extreme values lie inside."""
    return float(np.quantile(np.abs(values), 0.98)) or 1.0


def coverage(curves: Mapping[str, np.ndarray], level: np.ndarray, label: str) -> str:
    """Actual against nominal coverage: a curve for each name, and the diagonal. At most three curves."""
    left, top, size = 44.0, 8.0, 250.0

    def at(x: float, y: float) -> str:
        return f"{left + size * x:.1f},{top + size * (1.0 - y):.1f}"

    inside = ""
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + size * tick, top + size * (1.0 - tick)
        inside += f'<path class="grid" d="M{at(tick, 0)} L{at(tick, 1)} M{at(0, tick)} L{at(1, tick)}"/>'
        inside += f'<text class="muted" x="{x}" y="{top + size + 16}" text-anchor="middle">{tick:.0%}</text>'
        inside += f'<text class="muted" x="{left - 6}" y="{y + 4}" text-anchor="end">{tick:.0%}</text>'
    inside += f'<path class="axis" stroke-dasharray="4 3" d="M{at(0, 0)} L{at(1, 1)}"/>'
    for k, curve in enumerate(curves.values()):
        points = " ".join(at(a, b) for a, b in zip(level, curve, strict=True))
        inside += f'<polyline class="curve c{k}" points="{points}"/>'
    inside += (
        f'<text x="{left + size / 2}" y="{top + size + 36}" text-anchor="middle">what the interval promises</text>'
    )
    return f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 310 300" width="310" height="300">{inside}</svg>'


def line(k: int) -> str:
    """A short piece of curve ``k``, for a legend."""
    return f'<svg aria-hidden="true" width="30" height="8"><path class="curve c{k}" fill="none" d="M0,4 L30,4"/></svg>'
