"""Two small plots as inline SVG, for a page without scripts: a curve, and gains with their intervals.

Colours are the page's CSS variables, so that they fit light and dark. Knows nothing of what is plotted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 640, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 28
_ROW = 26  # height of one gain
_NAMES = 190  # width of the gains' names
_NUMBERS = 190  # and of their numbers


@dataclass(frozen=True, slots=True)
class Gain:
    """One row: a relative gain and its interval; higher is better."""

    name: str
    value: float
    low: float
    high: float


def curve(points: Sequence[tuple[float, float]], *, x: str, y: str) -> str:
    """A line through (x, y) points; "" for fewer than two. `x` and `y` name the axes, with their units."""
    if len(points) < 2:
        return ""
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    low, high = _room(min(ys), max(ys))
    first, last = min(xs), max(max(xs), min(xs) + 1e-9)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(point: tuple[float, float]) -> str:
        across = _LEFT + width * (point[0] - first) / (last - first)
        down = _TOP + height * (high - point[1]) / (high - low)
        return f"{across:.1f},{down:.1f}"

    ticks = []
    for part in (0.0, 0.5, 1.0):
        value = low + part * (high - low)
        down = _TOP + height * (1 - part)
        ticks.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
        ticks.append(f'<text x="{_LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    below = _HEIGHT - 8
    ticks.append(f'<text x="{_LEFT}" y="{below}">{_number(first)}</text>')
    ticks.append(f'<text x="{_WIDTH - _RIGHT}" y="{below}" text-anchor="end">{_number(last)}</text>')
    ticks.append(f'<text x="{_LEFT + width / 2:.0f}" y="{below}" text-anchor="middle">{escape(x)}</text>')
    line = " ".join(place(point) for point in points)
    return _figure(_HEIGHT, "".join(ticks) + f'<polyline class="line" points="{line}"/>', y)


def gains(rows: Sequence[Gain]) -> str:
    """Each gain as a point with its interval, around a line at zero; "" for none."""
    if not rows:
        return ""
    low = min(0.0, *(row.low for row in rows), *(row.value for row in rows))
    high = max(0.0, *(row.high for row in rows), *(row.value for row in rows))
    low, high = _room(low, high)
    width = _WIDTH - _NAMES - _NUMBERS

    def across(value: float) -> float:
        return _NAMES + width * (value - low) / (high - low)

    height = _ROW * len(rows) + 8
    made = [f'<line class="axis" x1="{across(0):.1f}" x2="{across(0):.1f}" y1="0" y2="{height}"/>']
    for number, row in enumerate(rows):
        middle = _ROW * number + _ROW / 2 + 4
        kind = "good" if row.low > 0 else "bad" if row.high < 0 else "open"
        made.append(f'<text x="{_NAMES - 10}" y="{middle + 4}" text-anchor="end">{escape(row.name)}</text>')
        made.append(
            f'<line class="{kind}" x1="{across(row.low):.1f}" x2="{across(row.high):.1f}" y1="{middle}" y2="{middle}"/>'
            f'<circle class="{kind}" cx="{across(row.value):.1f}" cy="{middle}" r="4"/>'
        )
        numbers = f"{row.value:+.1%} ({row.low:+.1%} to {row.high:+.1%})"
        made.append(f'<text x="{_WIDTH - _NUMBERS + 10}" y="{middle + 4}">{numbers}</text>')
    return _figure(height, "".join(made), "")


def _figure(height: float, inside: str, caption: str) -> str:
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    label = escape(caption or "gains", quote=True)
    size = f'viewBox="0 0 {_WIDTH} {height:.0f}"'
    return f'<figure>{words}<svg {size} role="img" aria-label="{label}">{inside}</svg></figure>'


def _room(low: float, high: float) -> tuple[float, float]:
    """The bounds with some room around them, and never equal."""
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.01
    return low - room, high + room


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
