"""Names out of a file have no power over a terminal, in a table, a line, a chart or an error."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from hiresvit.report import chart, results, tables
from hiresvit.report.harmless import harmless

# What turns colours on, conceals, moves the cursor, renames the window, turns text round, and cannot be seen.
POWERS = [
    "\x1b[31m",
    "\x1b[8m",
    "\x1b[2J",
    "\x1b]0;x\x07",
    "\x9b5m",
    "\x85",
    "\r",
    "\x08",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
]


@pytest.mark.parametrize("power", POWERS, ids=ascii)
def test_what_has_power_is_spelled_out(power: str) -> None:
    shown = harmless(f"a{power}b")
    assert shown.isprintable()
    assert ascii(power)[1:-1] in shown


def test_what_has_none_stays() -> None:
    text = "schön, 交通, 🚦, a\tb\nc\\x1b"
    assert harmless(text) == text


@pytest.mark.parametrize("power", POWERS, ids=ascii)
def test_a_table_in_colours_has_only_ours(power: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, where rich sets colours of its own that must pass."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    name = f"a{power}b"
    items: list[Any] = [
        results.shares_table([{"name": name, "share": 0.5}]),
        tables.make_table(f"title {name}", name, rows=[(name,)]),
        results._facts({name: name}),
        f"note: {name}",
    ]
    page = tables.render(items)
    assert re.search(r"\x1b\[1m", page), "ours are there"
    assert harmless(re.sub(r"\x1b\[[\d;]*m", "", page)) == re.sub(r"\x1b\[[\d;]*m", "", page)
    if power.startswith("\x1b[") and power.endswith("m"):
        assert power not in page
    assert page.count(ascii(power)[1:-1]) >= 7, "and nothing is lost"


def test_a_chart_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    svg = chart.bar_chart([("a\x1b[31m\u202eb", 1.0)], title="t\u200b", unit="u")
    assert harmless(svg) == svg
    assert "\\u202e" in svg
