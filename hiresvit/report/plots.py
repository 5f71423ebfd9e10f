"""Charts of a report's page as SVG elements: their colours are the page's (``--ink``, ``--line``, ``--c0``, ...).

Each has its title and every point its name as SVG titles, which a screen reader says and a mouse shows. They are drawn
for a telephone's width, and are 1.25 times as large on a desk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hiresvit.report.chart import short_label, tick_places, tick_step, tick_text, xml_text
from hiresvit.report.front import Point, front

_WIDTH, _LEFT, _RIGHT, _TOP, _PLOT = 480, 52, 14, 12, 210
_ADVANCE, _LINE = 7.2, 18  # of letters; the advance is a generous mean of the fonts in use
_COLOURS = 6
_MOST_STEPS = 150  # of a curve, which has no more pixels
_LOGARITHMIC = 8.0  # times: values further apart than this are drawn on a logarithmic axis
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class _Axis:
    ticks: tuple[tuple[float, str], ...]
    place: Callable[[float], float]


def latency_chart(sides: Mapping[str, Sequence[int]], *, title: str) -> str:
    """How many of the calls took no longer than a time, for each side's samples in nanoseconds.

    The percentiles 50, 90 and 99 are marked. Samples must not be empty. A call beyond 1.5 times the slowest side's 99th
    percentile is not drawn, and the axis says how many there are.
    """
    ordered = {name: sorted(ns / 1e6 for ns in samples) for name, samples in sides.items()}
    most = 1.5 * max(_at(values, 99) for values in ordered.values())
    beyond = sum(value > most for values in ordered.values() for value in values)
    least = min(values[0] for values in ordered.values())
    shown = [value for values in ordered.values() for value in values if value <= most]
    x = _axis([least, *shown], (_LEFT, _WIDTH - _RIGHT))
    y = _Axis(tuple((share, f"p{share}" if share else "0") for share in (0, *PERCENTILES)), _downwards(0, 100))
    unit = "ms of a call" + (f"; {beyond} calls took longer than is shown" if beyond else "")
    parts = _grid(x, y, unit, "share of the calls, %")
    for number, (name, values) in enumerate(ordered.items()):
        parts.append(f'<path d="{_steps(values, most, x, y)}" class="s{number % _COLOURS}"/>')
        for percent in PERCENTILES:
            value = _at(values, percent)
            if value <= most:
                label = f"{name}: p{percent} {_digits(value)} ms"
                parts.append(_dot(x.place(value), y.place(percent), number, label, 3.5))
    return _element(parts, title, list(ordered))


def scatter_chart(points: Sequence[Point], *, title: str, across: str, up: str) -> str:
    """Points with their names and intervals; what no other point of the group is better than is joined by a line.

    Better is further to the left and higher up.
    """
    groups = list(dict.fromkeys(point.group for point in points))
    ends = [value for p in points for value in (p.y, p.low, p.high) if value is not None]
    x = _axis([point.x for point in points], (_LEFT, _WIDTH - _RIGHT), margin=0.12)
    y = _axis(ends, (_TOP + _PLOT, _TOP), margin=0.12, logarithmic=False)
    parts = _grid(x, y, across, up)
    placed = [_box(x.place(p.x) - 5, y.place(p.y) - 5, 10, 10) for p in points]
    for number, group in enumerate(groups):
        own = [point for point in points if point.group == group]
        if len(kept := front(own)) > 1:
            path = "L".join(f"{x.place(p.x):.1f} {y.place(p.y):.1f}" for p in kept)
            parts.append(f'<path d="M{path}" class="s{number % _COLOURS} front"/>')
        for p in own:
            if p.low is not None and p.high is not None:
                ends_at = f"M{x.place(p.x):.1f} {y.place(p.low):.1f}V{y.place(p.high):.1f}"
                parts.append(f'<path d="{ends_at}" class="s{number % _COLOURS} thin"/>')
            parts.append(_dot(x.place(p.x), y.place(p.y), number, f"{p.name}: {_digits(p.x)}, {p.y:.2f}", 5))
    parts += filter(None, (_beside(p.name, x.place(p.x), y.place(p.y), placed) for p in points))
    return _element(parts, title, groups if len(groups) > 1 else [])


def parts_chart(rows: Mapping[str, Mapping[str, float]], *, title: str, unit: str) -> str:
    """A bar for each row, put together of its parts."""
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    longest = max(sum(parts.values()) for parts in rows.values())
    x = _axis([0.0, longest or 1.0], (_LEFT - 40, _WIDTH - _RIGHT - 40), logarithmic=False)
    drawn, top = [], _TOP
    for label, parts in rows.items():
        total = sum(parts.values())
        drawn.append(_text(_LEFT - 40, top + 10, short_label(label)))
        start = 0.0
        for name, value in parts.items():
            left, right = x.place(start), x.place(start + value)
            box = f'x="{left:.1f}" y="{top + 16}" width="{max(right - left, 0.5):.1f}" height="14"'
            said = xml_text(f"{label}: {name} {_digits(value)} {unit}")
            drawn.append(f'<rect {box} class="f{names.index(name) % _COLOURS}"><title>{said}</title></rect>')
            start += value
        drawn.append(_text(x.place(total) + 4, top + 27, f"{_digits(total)} {unit}"))
        top += 40
    return _element(drawn, title, names, height=top)


def module_chart(values: Sequence[tuple[str, float | None]], *, title: str, up: str, marked: str | None) -> str:
    """A value for each module in the order of the network; ``marked`` is one of them."""
    known = [value for _, value in values if value is not None]
    last = max(len(values) - 1, 1)
    x = _Axis(((0, "first module"), (last, "last")), lambda at: _LEFT + (_WIDTH - _RIGHT - _LEFT) * at / last)
    y = _axis([0.0, *known], (_TOP + _PLOT, _TOP), logarithmic=False)
    parts = _grid(x, y, "", up)
    at = [(x.place(n), y.place(value)) for n, (_, value) in enumerate(values) if value is not None]
    if len(at) > 1:
        parts.append(f'<path d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in at)}" class="s0"/>')
    for number, (name, value) in enumerate(values):
        if value is not None and (name == marked or len(values) <= 80):
            size = 5 if name == marked else 2
            parts.append(_dot(x.place(number), y.place(value), int(name == marked), f"{name}: {value:.1f}", size))
    return _element(parts, title, [])


def _at(ascending: Sequence[float], percent: int) -> float:
    """The percentile as trtexec takes it, and the median of the middle two (`hiresvit.evaluation.latency`)."""
    count = len(ascending)
    if percent == 50:
        return (ascending[(count - 1) // 2] + ascending[count // 2]) / 2
    return ascending[max(count - 1 - (100 - percent) * count // 100, 0)]


def _steps(ascending: Sequence[float], most: float, x: _Axis, y: _Axis) -> str:
    """The path of an empirical distribution, at as many places as can be told apart."""
    count = len(ascending)
    every = max(count // _MOST_STEPS, 1)
    taken = sorted({*range(0, count, every), count - 1})
    path = f"M{x.place(ascending[0]):.1f} {y.place(0):.1f}"
    for index in taken:
        if ascending[index] <= most:
            path += f"H{x.place(ascending[index]):.1f}V{y.place(100 * (index + 1) / count):.1f}"
    return path


def _axis(
    values: Sequence[float], ends: tuple[float, float], *, margin: float = 0.0, logarithmic: bool | None = None
) -> _Axis:
    """Ticks around values, and where a value is between two pixels. Logarithmic where they lie far apart."""
    least, most = min(values), max(values)
    if logarithmic is None:
        logarithmic = least > 0 and most / least > _LOGARITHMIC
    start, end = ends
    if logarithmic:
        low, high = math.log10(least) - margin / 2, math.log10(most) + margin / 2
        powers = range(math.floor(low), math.ceil(high) + 1)
        ticks = [times * 10.0**power for power in powers for times in (1, 2, 5)]
        shown = tuple((tick, f"{tick:g}") for tick in ticks if low <= math.log10(tick) <= high)
        return _Axis(shown, lambda value: start + (end - start) * (math.log10(value) - low) / (high - low))
    span = most - least
    room = margin * (span or abs(most) or 1.0)
    low, high = (least - room if least < 0 or least > room else 0.0), most + room
    step = tick_step(high - low)
    places = tick_places(low, high, step)
    first, last = places[0], places[-1]
    ticks = places[:: 2 if len(places) > 7 else 1]
    shown = tuple((tick, tick_text(tick, step)) for tick in ticks)
    return _Axis(shown, lambda value: start + (end - start) * (value - first) / (last - first))


def _downwards(least: float, most: float) -> Callable[[float], float]:
    return lambda value: _TOP + _PLOT * (1 - (value - least) / (most - least))


def _grid(x: _Axis, y: _Axis, across: str, up: str) -> list[str]:
    bottom, right = _TOP + _PLOT, _WIDTH - _RIGHT
    parts = []
    for value, text in y.ticks:
        parts.append(f'<path d="M{_LEFT} {y.place(value):.1f}H{right}" class="grid"/>')
        parts.append(_text(_LEFT - 6, y.place(value) + 4, text, "end faint"))
    for value, text in x.ticks:
        parts.append(f'<path d="M{x.place(value):.1f} {_TOP}V{bottom + 4}" class="grid"/>')
        anchor = "end" if x.place(value) > right - 20 else "middle" if x.place(value) > _LEFT + 20 else "start"
        parts.append(_text(x.place(value), bottom + 18, text, f"{anchor} faint"))
    parts.append(_text(right, bottom + 36, across, "end faint"))
    parts.append(
        f'<text transform="translate(12 {_TOP + _PLOT / 2}) rotate(-90)" class="middle faint">{xml_text(up)}</text>'
    )
    return parts


def _digits(value: float) -> str:
    """Three digits, more only before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x, y, x + width, y + height


def _beside(name: str, x: float, y: float, placed: list[tuple[float, float, float, float]]) -> str:
    """A point's name where it covers neither a point nor another name, "" if there is no such place."""
    name = short_label(name)
    width = _ADVANCE * len(name)
    tries = (
        (x + 8, y + 4, "start"),
        (x - 8, y + 4, "end"),
        (x, y - 9, "middle"),
        (x, y + 18, "middle"),
        (x + 8, y - 9, "start"),
        (x + 8, y + 18, "start"),
        (x - 8, y - 9, "end"),
        (x - 8, y + 18, "end"),
    )
    for at, base, anchor in tries:
        left = at - {"start": 0, "middle": width / 2, "end": width}[anchor]
        box = _box(left, base - 11, width, 14)
        inside = box[0] >= _LEFT and box[2] <= _WIDTH and box[1] >= 0 and box[3] <= _TOP + _PLOT
        if inside and not any(_overlap(box, other) for other in placed):
            placed.append(box)
            return _text(at, base, name, anchor)
    return ""


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _dot(x: float, y: float, number: int, label: str, size: float) -> str:
    colour = f'class="f{number % _COLOURS}"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" {colour}><title>{xml_text(label)}</title></circle>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{xml_text(text)}</text>'


def _element(parts: list[str], title: str, legend: Sequence[str], height: float = _TOP + _PLOT + 44) -> str:
    """The whole chart: its title for those who do not see it, and a line for each colour."""
    for number, name in enumerate(legend):
        y = height + _LINE * number
        parts.append(f'<rect x="{_LEFT - 40}" y="{y:.1f}" width="12" height="12" class="f{number % _COLOURS}"/>')
        parts.append(_text(_LEFT - 22, y + 10.5, short_label(name)))
    whole = height + _LINE * len(legend) + 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {whole:g}" role="img" class="plot"'
    said = xml_text(title)
    return f'{head} aria-label="{said}"><title>{said}</title>{"".join(parts)}</svg>'
