"""What every report is made of: tables, numbers and sizes as text."""

from __future__ import annotations

import io
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hiresvit.report.harmless import harmless

Values = Mapping[str, Any]

PLAIN_WIDTH = 120  # of a pipe or a file, which have no width of their own


class _Harmless(Console):
    """Every text of a table or a line passes here before it is measured, and before we give it a colour."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(harmless(text), **options)


def render(items: Iterable[RenderableType]) -> str:
    """Tables and lines as text for stdout, in colour if that is a terminal.

    Nothing is read as markup, since file names may look like it, and nothing in them is a command to a terminal.
    """
    encoding = sys.stdout.encoding or "utf-8"  # decides what lines are drawn with
    page = io.TextIOWrapper(io.BytesIO(), encoding, "backslashreplace")
    terminal = sys.stdout.isatty()
    console = _Harmless(
        file=page,
        force_terminal=terminal or None,
        width=page_width(),
        markup=False,
        highlight=False,
        emoji=False,
    )
    for number, item in enumerate(items):
        if number and isinstance(item, Table):
            console.print()
        console.print(item, soft_wrap=isinstance(item, str | Text))
    page.seek(0)
    return page.read().rstrip("\n")


def page_width() -> int:
    """Columns of the terminal that stdout is, or of a page where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """A text as lines of a width; what is longer in itself, as a name may be, stays whole."""
    lines = textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines or [""]


def size_text(count: int) -> str:
    """Bytes in decimal units, as disks and downloads are counted: ``73.4 MB``."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def make_table(title: str | None, *columns: str, rows: Iterable[Sequence[str]] = ()) -> Table:
    """A table without lines between columns; a column named ``>x`` is aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.show_edge = table.pad_edge = False
    table.padding = (0, 0, 0, 1)  # with the column of the box two blanks between columns
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def number_text(value: float | None, form: str) -> str:
    """A number in Python's format; nothing for None."""
    return "" if value is None else format(value, form)


def counted(number: int, one: str) -> str:
    """How many of what: ``1 image``, ``2 images``."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def headroom_lines(found: Values, what: str) -> list[str]:
    """How much of FP16's range a graph uses, and a line for each tensor that lies below it."""
    lines = []
    if headroom := found.get("headroom"):
        share, where = headroom["share"], _where(headroom)
        most = "NaN or infinity" if share is None else f"{100 * share:.2g} % of FP16's range, {headroom['max_abs']:.4g}"
        lines.append(f"{what}: at most {most}, in {where}, on {counted(headroom['images'], 'image')}")
    for row in found.get("underflow", ()):
        lines.append(f"{what}: underflow in {_where(row)}, all below 2**-14, up to {row['max_abs']:.3g}")
    return lines


def _where(row: Values) -> str:
    return f"{row['tensor']} of {row['module']}" if row["module"] else str(row["tensor"])
