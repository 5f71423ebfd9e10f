from __future__ import annotations

from hiresvit.report.blocks import Cell, Facts, Lines, Part, Table, as_printed, cells, part
from hiresvit.report.tables import make_table


def test_what_is_printed_becomes_blocks() -> None:
    printed = make_table("a title", "name", ">number", rows=[("x", "1"), ("y", "")])
    assert as_printed(["note: first", "\nsecond\n", printed, "third"]) == [
        Lines(("first", "second")),
        Table("a title", ("name", ">number"), ((Cell("x"), Cell("1")), (Cell("y"), Cell("")))),
        Lines(("third",)),
    ]
    assert as_printed(["", "\n"]) == []


def test_a_table_without_a_head_is_facts() -> None:
    from rich.table import Table as Printed

    printed = Printed(show_header=False)
    for _ in range(2):
        printed.add_column()
    printed.add_row("a", "[b]c[/b]")
    assert as_printed([printed]) == [Facts((("a", "[b]c[/b]"),))]


def test_nothing_is_no_part_and_none_was_not_measured() -> None:
    assert part("title", []) == []
    assert part("title", [Lines(("a",))]) == [Part("title", (Lines(("a",)),))]
    assert cells("a", None) == (Cell("a"), Cell("not measured"))
