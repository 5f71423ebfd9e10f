from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hiresvit.errors import UsageError
from hiresvit.report.chart import MOST_ROWS, bar_chart, text_bar

SVG = "{http://www.w3.org/2000/svg}"
ADVANCE = 0.61  # of a font's size, for a character of a monospaced font (DejaVu Sans Mono: 0.602)

Rows = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Bar:
    """As it was drawn: where it starts, how wide it is, its colour and the label that the mouse shows."""

    x: float
    width: float
    fill: str
    label: str


def drawn(rows: Rows, highlight: Collection[str] = ()) -> ET.Element:
    return ET.fromstring(bar_chart(rows, title="a title", unit="points", highlight=highlight))


def bars(page: ET.Element) -> list[Bar]:
    found = []
    for rect in page.iter(f"{SVG}rect"):
        label = rect.find(f"{SVG}title")
        if label is not None:  # the paper has none
            x, width = float(rect.attrib["x"]), float(rect.attrib["width"])
            found.append(Bar(x, width, rect.attrib["fill"], label.text or ""))
    return found


def texts(page: ET.Element) -> list[str]:
    return [text.text or "" for text in page.iter(f"{SVG}text")]


def values_drawn(page: ET.Element) -> list[str]:
    """The monospaced texts are a label and a value in turn."""
    return [text.text or "" for text in page.iter(f"{SVG}text") if "mono" in text.get("font-family", "")][1::2]


@given(st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=60))
@example([4.848302853815017e-308])
@example([2.2250738585072014e-308, -2.2250738585072014e-308])
@settings(max_examples=60, deadline=None)
def test_bars_are_as_long_as_their_values(values: list[float]) -> None:
    rows = [(f"m{i}", value) for i, value in enumerate(values)]
    page = drawn(rows)
    found = bars(page)
    shown = values[:MOST_ROWS]
    assert [bar.label for bar in found] == [f"m{i}" for i in range(len(shown))]
    largest = max(shown, key=abs)
    longest = found[shown.index(largest)].width
    for value, bar in zip(shown, found, strict=True):
        share = abs(value / largest) if largest else 0.0
        assert bar.width == pytest.approx(share * longest, abs=0.11)  # pixels are written to 0.1
    zero = max(bar.x for bar in found) if min(shown) >= 0 else None
    for value, bar in zip(shown, found, strict=True):
        if zero is not None:
            assert bar.x == zero
        elif value < 0:
            ends = [other.x for v, other in zip(shown, found, strict=True) if v >= 0]
            assert all(bar.x + bar.width <= x + 0.11 for x in ends)


ROWS = (("stem", 1.234), ("stage.0", 0.5), ("head", 0.0), ("stage.1", -0.25))


def test_values_stand_at_the_ends_with_three_digits_of_the_largest() -> None:
    assert values_drawn(drawn(ROWS)) == ["1.23", "0.50", "0.00", "−0.25"]
    assert values_drawn(drawn([("a", 123.4), ("b", 5.0)])) == ["123", "5"]
    assert values_drawn(drawn([("a", 98765.0)])) == ["98765"]
    assert values_drawn(drawn([("a", 0.001234), ("b", -1e-9)])) == ["0.00123", "0.00000"]
    assert values_drawn(drawn([("a", 0.0)])) == ["0"]
    assert values_drawn(drawn([("a", 2.5e12), ("b", 3.0)])) == ["2.5e+12", "3"]
    assert values_drawn(drawn([("a", -2.5e-12), ("b", 0.0)])) == ["−2.5e−12", "0"]


def test_a_chart_reads_in_the_order_given_with_title_and_unit() -> None:
    page = drawn(ROWS)
    found = texts(page)
    assert found[0] == "a title"
    assert "points" in found
    assert [text for text in found if text in dict(ROWS)] == ["stem", "stage.0", "head", "stage.1"]
    assert page[0].tag == f"{SVG}title"
    assert page[0].text == "a title"


def test_the_axis_has_round_numbers() -> None:
    found = texts(drawn(ROWS))
    assert [t for t in ("−0.4", "−0.2", "0.0", "0.2", "1.0", "1.2", "1.4") if t in found] == [
        *("−0.4", "−0.2", "0.0", "0.2", "1.0", "1.2", "1.4")
    ]


def test_highlighted_bars_have_a_colour_of_their_own() -> None:
    colours = {bar.label: bar.fill for bar in bars(drawn(ROWS, highlight={"stem", "head"}))}
    assert colours["stem"] == colours["head"] != colours["stage.0"] == colours["stage.1"]


def test_a_long_chart_says_how_many_rows_it_leaves_out() -> None:
    rows = [(f"m{i}", 1.0) for i in range(MOST_ROWS + 7)]
    page = drawn(rows)
    assert len(bars(page)) == MOST_ROWS
    assert "and 7 more" in texts(page)
    assert not any("more" in text for text in texts(drawn(rows[:MOST_ROWS])))


@pytest.mark.parametrize("label", ["a & b < c > \"d\" 'e'", "<script>alert(1)</script>", "]]>", "naïve 层 🚗"])
def test_labels_are_text(label: str) -> None:
    page = ET.fromstring(bar_chart([(label, 1.0)], title=label, unit=label))
    assert texts(page).count(label) == 3  # title, label and unit
    assert bars(page)[0].label == label
    assert not list(page.iter(f"{SVG}script"))


def test_what_xml_cannot_hold_is_replaced() -> None:
    assert "a\\x00b" in texts(drawn([("a\x00b", 1.0)]))


LONG = "backbone.stages.3.modules_list.2.branches.1.blocks.0.attention.projection"


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        [("a", -1234.5), ("b", -0.1)],
        [(LONG, 0.3), ("b", -0.1)],
        [("a", 1e9), ("b", 1.0)],
        [("a", 0.0)],
    ],
)
def test_nothing_leaves_the_page_or_covers_a_label(rows: Rows) -> None:
    page = drawn(rows)
    width, height = float(page.attrib["width"]), float(page.attrib["height"])
    labels_end, values_start = 0.0, width
    for text in page.iter(f"{SVG}text"):
        content, size = text.text or "", float(text.attrib["font-size"])
        long, x = ADVANCE * size * len(content), float(text.attrib["x"])
        start = x - long * {"start": 0, "middle": 0.5, "end": 1}[text.attrib["text-anchor"]]
        assert start >= 0
        assert start + long <= width
        assert 0 < float(text.attrib["y"]) < height
        if "mono" in text.get("font-family", ""):
            is_value = content.lstrip("−")[0].isdigit()
            labels_end = labels_end if is_value else max(labels_end, start + long)
            values_start = min(values_start, start) if is_value else values_start
    assert labels_end <= values_start
    for bar in bars(page):
        assert labels_end <= bar.x
        assert bar.x + bar.width <= width


def test_a_long_label_keeps_its_ends_and_is_whole_under_the_mouse() -> None:
    page = drawn([(LONG, 1.0)])
    [short] = [text for text in texts(page) if "…" in text]
    head, tail = short.split("…")
    assert len(short) < len(LONG)
    assert LONG.startswith(head)
    assert LONG.endswith(tail)
    assert bars(page)[0].label == LONG


def test_a_chart_reads_on_a_dark_page_too() -> None:
    paper = drawn(ROWS)[1]
    assert (paper.attrib["fill"], paper.attrib["width"]) == ("#ffffff", drawn(ROWS).attrib["width"])


def test_the_same_rows_give_the_same_bytes() -> None:
    assert bar_chart(ROWS, title="t", unit="u") == bar_chart(list(ROWS), title="t", unit="u")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_bar_has_a_finite_value(value: float) -> None:
    with pytest.raises(UsageError, match="row 'b' has the value"):
        drawn([("a", 1.0), ("b", value)])


def test_no_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one row"):
        drawn([])


@pytest.mark.parametrize(
    ("value", "largest", "bar"),
    [
        (1.0, 1.0, 20 * "█"),
        (0.5, 1.0, 10 * "█"),
        (3.0, 8.0, "███████▌"),
        (1 / 160, 1.0, "▏"),
        (1e-9, 1.0, "▏"),
        (2.0, 1.0, 20 * "█"),
        (math.inf, 1.0, 20 * "█"),
        (0.0, 1.0, ""),
        (-1.0, 1.0, ""),
        (1.0, 0.0, ""),
    ],
)
def test_bars_of_blocks(value: float, largest: float, bar: str) -> None:
    assert text_bar(value, largest) == bar


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_a_larger_value_has_no_shorter_bar(a: float, b: float) -> None:
    def eighths(text: str) -> int:
        return sum(" ▏▎▍▌▋▊▉█".index(block) for block in text)

    low, high = sorted((a, b))
    assert eighths(text_bar(low, 1.0)) <= eighths(text_bar(high, 1.0)) <= 8 * 20


@pytest.mark.parametrize(("value", "largest"), [(math.nan, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_a_bar_of_nothing_is_refused(value: float, largest: float) -> None:
    with pytest.raises(UsageError, match="a bar of"):
        text_bar(value, largest)
