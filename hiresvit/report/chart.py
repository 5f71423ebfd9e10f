"""Bar charts: SVG as text, and bars of block characters for tables in a terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from html import escape

from hiresvit.errors import UsageError
from hiresvit.report.harmless import harmless

MOST_ROWS = 40
"""A longer chart is cut after this many rows, and says how many more there are."""

# Pixels. The font's advance is 0.6 of its size in the monospaced fonts in use.
_WIDTH, _ROW, _BAR, _EDGE, _GAP = 820, 20, 13, 16, 8
_LABEL, _ADVANCE = 12, 7.3
_LONGEST = 52  # characters of a label; a longer one loses its middle
_BARS, _HIGHLIGHT, _TEXT, _FAINT, _GRID = "#3b73af", "#e08214", "#1f2328", "#59636e", "#d8dee4"
# What the style of a page calls these colours, in its light and in its dark.
_THEMED = {_BARS: "c0", _HIGHLIGHT: "c1", _TEXT: "ink", _FAINT: "faint", _GRID: "line"}
_MONO = ' font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace"'
_BLOCKS, _BLOCKS_WIDE = " ▏▎▍▌▋▊▉█", 20
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def bar_chart(
    rows: Sequence[tuple[str, float]], *, title: str, unit: str, highlight: Collection[str] = (), inline: bool = False
) -> str:
    """Horizontal bars of (label, value) in the order given, as one SVG document on white.

    ``unit`` is written under the axis; labels in ``highlight`` get orange bars. ``inline`` is for a page whose style
    says the colours (``--ink``, ``--c0``, ...), without paper of its own. Raises UsageError without rows and for a
    value that is NaN or infinite.
    """
    if not rows:
        raise UsageError("a chart needs at least one row: give (label, value) pairs")
    for label, value in rows:
        if not math.isfinite(value):
            raise UsageError(f"row {label!r} has the value {value}; a bar needs a finite one")
    shown = rows[:MOST_ROWS]
    values = [value for _, value in shown]
    step = tick_step(max(0.0, *values) - min(0.0, *values))
    ticks = tick_places(min(0.0, *values), max(0.0, *values), step)
    texts = _value_texts(values)
    top = _EDGE + 24
    bottom = top + _ROW * len(shown)
    height = bottom + 42 + _EDGE
    left = _EDGE + _ADVANCE * max(len(short_label(label)) for label, _ in shown) + _GAP
    room = _ADVANCE * max(map(len, texts)) + _GAP  # for a value beside its bar
    start, end = left + (room if ticks[0] < 0 else 0), _WIDTH - _EDGE - room

    def across(value: float) -> float:
        # the share first: pixels for a unit would overflow where the values are next to nothing
        return start + (end - start) * ((value - ticks[0]) / (ticks[-1] - ticks[0]))

    parts = [_text(_EDGE, _EDGE + 13, title, size=15, font=' font-weight="bold"')]
    for tick in ticks:
        x, colour = across(tick), _FAINT if tick == 0 else _GRID
        parts.append(f'<path d="M{x:.1f} {top}V{bottom + 4}" stroke="{colour}"/>')
        parts.append(_text(x, bottom + 18, tick_text(tick, step), anchor="middle", fill=_FAINT, size=11))
    parts.append(_text(end, bottom + 36, unit, anchor="end", fill=_FAINT))
    for index, ((label, value), text) in enumerate(zip(shown, texts, strict=True)):
        y = top + _ROW * index
        fill = _HIGHLIGHT if label in highlight else _BARS
        parts.append(_bar(label, (across(0.0), across(value)), y, fill))
        parts.append(_text(left - _GAP, y + 14, short_label(label), anchor="end", font=_MONO))
        beside = (across(value) - 5, "end") if value < 0 else (across(value) + 5, "start")
        parts.append(_text(beside[0], y + 14, text, anchor=beside[1], font=_MONO))
    if len(rows) > len(shown):
        parts.append(_text(_EDGE, bottom + 36, f"and {len(rows) - len(shown)} more", fill=_FAINT))
    return _document(parts, height, title, inline)


def text_bar(value: float, largest: float) -> str:
    """A bar of block characters, 20 of them for ``largest``, to an eighth of one; empty from 0 down.

    A positive value shows at least the thinnest block, one beyond ``largest`` all 20. Raises UsageError for NaN and a
    ``largest`` that is not finite.
    """
    if math.isnan(value) or not math.isfinite(largest):
        raise UsageError(f"a bar of {value} in {largest}: give numbers")
    if value <= 0 or largest <= 0:
        return ""
    eighths = max(1, round(8 * _BLOCKS_WIDE * min(value / largest, 1.0)))
    return _BLOCKS[8] * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def tick_step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that a span has three to eight of them."""
    if span == 0:
        return 1.0
    rough = span / 8
    power = 10.0 ** math.floor(math.log10(rough))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= rough * (1 - 1e-9))


def tick_places(least: float, most: float, step: float) -> list[float]:
    """Multiples of the step from at or below ``least`` to at or above ``most``, at least two."""
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _value_texts(values: Sequence[float]) -> list[str]:
    """All with as many decimals as give the largest three digits."""
    largest = max(map(abs, values))
    place = 10.0 ** (math.floor(math.log10(largest)) - 2) if largest else 1.0
    return [tick_text(value, min(place, 1.0)) for value in values]


def tick_text(value: float, place: float) -> str:
    """With decimals down to ``place``, or a power of ten beyond reason; a true minus, and none before nothing."""
    decimals = max(0, -math.floor(math.log10(place) + 1e-9))
    text = f"{value:.{decimals}f}" if decimals <= 6 and abs(value) < 1e9 else f"{value:.3g}"
    return text.replace("-", "−") if text.strip("-0.") else text.lstrip("-")


def short_label(label: str) -> str:
    """A label that has room: a long one without its middle."""
    if len(label) <= _LONGEST:
        return label
    half = (_LONGEST - 1) // 2
    return f"{label[: _LONGEST - 1 - half]}…{label[-half:]}"


def _bar(label: str, ends: tuple[float, float], y: float, fill: str) -> str:
    """A bar from the axis to its value; a mouse over it shows the whole label."""
    x, width = min(ends), abs(ends[1] - ends[0])
    box = f'x="{x:.1f}" y="{y + (_ROW - _BAR) / 2:.1f}" width="{width:.1f}" height="{_BAR}"'
    return f'<rect {box} fill="{fill}"><title>{xml_text(label)}</title></rect>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", fill: str = _TEXT, size: int = _LABEL, font: str = ""
) -> str:
    """``font`` are attributes beside the colour, the size and the anchor."""
    style = f'fill="{fill}" font-size="{size}" text-anchor="{anchor}"{font}'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{xml_text(text)}</text>'


def xml_text(text: str) -> str:
    """For XML, which has no way to write most control characters."""
    return escape(_NOT_XML.sub("\ufffd", harmless(text)))


def _document(parts: Iterable[str], height: float, title: str, inline: bool) -> str:
    size = f'width="{_WIDTH}" height="{height:g}" viewBox="0 0 {_WIDTH} {height:g}"'
    font = 'font-family="system-ui, DejaVu Sans, Helvetica, Arial, sans-serif"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">'
    paper = [] if inline else [f'<rect width="{_WIDTH}" height="{height:g}" rx="6" fill="#ffffff"/>']
    text = "\n".join([head, f"<title>{xml_text(title)}</title>", *paper, *parts, "</svg>\n"])
    for colour, name in _THEMED.items() if inline else ():  # no label has one in quotes: they are escaped there
        text = text.replace(f'"{colour}"', f'"var(--{name})"')
    return text
