from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from hiresvit.evaluation.statistics import latency_stats
from hiresvit.report.chart import bar_chart
from hiresvit.report.front import Point, front
from hiresvit.report.plots import latency_chart, module_chart, parts_chart, scatter_chart

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</title><script>alert(1)</script>\x00\u202e"


def titles(page: ET.Element, tag: str) -> list[str]:
    return [found.text or "" for one in page.iter(SVG + tag) for found in one.findall(f"{SVG}title")]


def test_the_marked_percentiles_are_trtexecs() -> None:
    samples = [1_000_000 + 37_000 * ((17 * i) % 101) for i in range(101)]
    stats = latency_stats(samples)
    page = ET.fromstring(latency_chart({"a": samples}, title="t"))
    found = titles(page, "circle")
    assert found == [
        f"a: p50 {stats.median_ms:.3g} ms",
        f"a: p90 {stats.p90_ms:.3g} ms",
        f"a: p99 {stats.p99_ms:.3g} ms",
    ]


def test_calls_beyond_the_chart_are_counted() -> None:
    page = ET.fromstring(latency_chart({"a": [1_000_000] * 299 + [90_000_000]}, title="t"))
    assert any("1 calls took longer" in (text.text or "") for text in page.iter(f"{SVG}text"))


def test_the_front_is_what_nothing_is_better_than() -> None:
    points = [Point("a", "", 1, 70), Point("b", "", 2, 80), Point("c", "", 3, 75), Point("d", "", 2, 60)]
    assert front(points) == points[:2]
    page = ET.fromstring(scatter_chart(points, title="t", across="ms", up="%"))
    assert len(titles(page, "circle")) == len(points)
    assert sum("front" in path.attrib["class"] for path in page.iter(f"{SVG}path")) == 1


def test_better_is_to_the_left_and_higher() -> None:
    page = ET.fromstring(scatter_chart([Point("a", "", 1, 70), Point("b", "", 2, 80)], title="t", across="", up=""))
    a, b = ((float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in page.iter(f"{SVG}circle"))
    assert a[0] < b[0]
    assert a[1] > b[1]


def test_parts_are_as_long_as_they_take() -> None:
    page = ET.fromstring(parts_chart({"a": {"x": 1.0, "y": 3.0}, "b": {"y": 2.0}}, title="t", unit="ms"))
    bars = [float(rect.attrib["width"]) for rect in page.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert bars[1] == pytest.approx(3 * bars[0], abs=0.3)
    assert bars[2] == pytest.approx(2 * bars[0], abs=0.3)


def test_one_module_is_marked() -> None:
    page = ET.fromstring(module_chart([("a", 60.0), ("b", None), ("c", 8.0)], title="t", up="dB", marked="c"))
    assert [dot.attrib["class"] for dot in page.iter(f"{SVG}circle")] == ["f0", "f1"]
    assert titles(page, "circle") == ["a: 60.0", "c: 8.0"]


@pytest.mark.parametrize(
    "svg",
    [
        latency_chart({HOSTILE: [1, 2, 3]}, title=HOSTILE),
        scatter_chart(
            [Point(HOSTILE, HOSTILE, 1, 2, 1, 3), Point("b", HOSTILE, 2, 2)], title=HOSTILE, across="", up=""
        ),
        parts_chart({HOSTILE: {HOSTILE: 1.0}}, title=HOSTILE, unit="ms"),
        module_chart([(HOSTILE, 1.0), ("b", 2.0)], title=HOSTILE, up="dB", marked=HOSTILE),
        bar_chart([(HOSTILE, 1.0)], title=HOSTILE, unit=HOSTILE, inline=True),
    ],
)
def test_names_are_text(svg: str) -> None:
    page = ET.fromstring(svg)
    assert not list(page.iter(f"{SVG}script"))
    assert "<script>alert(1)</script>" in "".join(page.itertext())


def test_one_call_and_equal_calls_are_drawn() -> None:
    for samples in ([5], [5, 5, 5]):
        page = ET.fromstring(latency_chart({"a": samples}, title="t"))
        assert len(titles(page, "circle")) == 3, "p50, p90 and p99, at one place"
    page = ET.fromstring(scatter_chart([Point("a", "", 1, 0.0), Point("b", "", 1, 0.0)], title="t", across="", up=""))
    assert len(titles(page, "circle")) == 2


def test_a_chart_in_a_page_has_the_pages_colours_and_no_paper() -> None:
    page = bar_chart([("a", 1.0), ("b", 2.0)], title="t", unit="u", highlight={"b"}, inline=True)
    assert "#" not in page
    assert page.count("<rect") == 2
    assert 'fill="var(--c1)"' in page
