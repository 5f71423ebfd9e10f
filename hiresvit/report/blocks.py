"""What a report's page is made of: a few kinds of blocks, which HTML and Markdown each draw in their own way.

The tables that the command line prints become blocks, too, so that a page says what a terminal says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rich.console import RenderableType
from rich.table import Table as Printed

Tone = Literal["", "good", "doubtful", "bad"]
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Cell:
    """A text of a table, a smaller one under it, and whether it is good news."""

    text: str
    under: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells; a column whose name begins with ``>`` is of numbers."""

    kind: ClassVar[str] = "table"
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Facts:
    """Names with what they are."""

    kind: ClassVar[str] = "facts"
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Lines:
    """Sentences."""

    kind: ClassVar[str] = "lines"
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """What is to be typed."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Chart:
    """An SVG element that `hiresvit.report.plots` or `hiresvit.report.chart` drew, and what it shows in words."""

    kind: ClassVar[str] = "chart"
    svg: str
    words: str


@dataclass(frozen=True)
class Picture:
    """A picture: its ``data:`` address, or None and why there is none."""

    kind: ClassVar[str] = "picture"
    data: str | None
    file: str
    words: str


@dataclass(frozen=True)
class Part:
    """Blocks under a heading; ``folded`` ones are there for who asks."""

    kind: ClassVar[str] = "part"
    title: str
    blocks: tuple[Block, ...]
    folded: bool = False


Block = Table | Facts | Lines | Code | Chart | Picture | Part


def part(title: str, blocks: Sequence[Block], *, folded: bool = False) -> list[Block]:
    """A part with these blocks, none for none."""
    return [Part(title, tuple(blocks), folded)] if blocks else []


def cells(*texts: str | Cell | None) -> tuple[Cell, ...]:
    """A row; what is None was not measured."""
    return tuple(text if isinstance(text, Cell) else Cell(NOT_MEASURED if text is None else text) for text in texts)


def as_printed(items: Iterable[RenderableType], *, titled: bool = True) -> list[Block]:
    """What the command line prints, as blocks: tables, and the lines between them.

    Of a table that is alone under a heading the title can be left out.
    """
    blocks: list[Block] = []
    for item in items:
        if isinstance(item, Printed):
            blocks.append(_table(item, titled))
        elif lines := tuple(line.strip().removeprefix("note: ") for line in str(item).splitlines() if line.strip()):
            if blocks and isinstance(blocks[-1], Lines):
                lines = (*blocks.pop().lines, *lines)  # type: ignore[union-attr]
            blocks.append(Lines(lines))
    return blocks


def facts_of(values: Mapping[str, object]) -> Facts:
    """Facts by name."""
    return Facts(tuple((name, str(value)) for name, value in values.items()))


def _table(printed: Printed, titled: bool) -> Block:
    columns = [[str(cell) for cell in column.cells] for column in printed.columns]
    rows = tuple(tuple(map(Cell, row)) for row in zip(*columns, strict=True))
    if not printed.show_header and len(columns) == 2:
        return Facts(tuple((name.text, value.text) for name, value in rows))
    heads = tuple(f"{'>' * (one.justify == 'right')}{one.header}" for one in printed.columns)
    return Table(str(printed.title or "") if titled else "", heads, rows)
