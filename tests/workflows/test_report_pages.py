"""`hiresvit report` on a bundle and on what the other commands really wrote about it, looked at in a real browser."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page, browser
from conftest import Cli
from markdown_it import MarkdownIt  # what rich brings

from hiresvit.bundle.manifest import Weights, read_manifest, write_manifest
from hiresvit.cli import main
from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.report.documents import PAGE_SCHEMA, check_page, check_result
from hiresvit.report.harmless import harmless
from hiresvit.report.html import html_page
from hiresvit.report.markdown import markdown_page
from hiresvit.report.page import make_page
from hiresvit.report.sweep import make_sweep
from hiresvit.workflows.report import read_bundles, read_result, read_sweep

NAMES = ("eval", "call", "frame", "compare", "layers", "verify")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "\u202egnp.exe\u202c",
    "{{ 7*7 }}{% raw %}",
    "</style><h1>styled</h1>",
    "</title></svg><iframe src=//evil.example>",
    "![x](https://evil.example/x.png) [link](javascript:alert(3)) | `code` *bold*",
    "\x1b[31mred\x00\x07",
)
ALL = " ".join(HOSTILE)


@pytest.fixture(scope="module")
def measured(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle ``tiny`` and a document of each command about it."""
    place = tmp_path_factory.mktemp("measured")
    tiny = shutil.copytree(tiny_bundle, place / "tiny")
    few = ("--threads", "1")
    runs = {
        "eval": ("eval", tiny, tiny / "fp16.onnx", "--dataset", "scenes", "--limit", "2", "--worst", "1", *few),
        "call": ("bench", tiny, tiny / "fp16.onnx", "--min-s", "0.1", *few),
        "frame": ("bench", tiny, "--mode", "frame", "--min-s", "0.1", *few),
        "compare": ("compare", tiny, tiny / "fp16.onnx", "--images", "1", *few),
        "layers": ("compare", tiny / "simplified.onnx", tiny / "fp16.onnx", "--layers", "--images", "1", *few),
        "verify": ("verify", tiny, *few),
    }
    for name, command in runs.items():
        assert main([*map(str, command), "-o", str(place / f"{name}.json")]) == 0
    return place


def documents(measured: Path) -> list[Path]:
    return [measured / f"{name}.json" for name in NAMES]


def loaded(measured: Path, name: str) -> Any:
    return json.loads((measured / f"{name}.json").read_text())


def made(measured: Path, **changed: Any) -> dict[str, Any]:
    """The page of the bundle and its documents, some of them changed."""
    results = [{"file": f"{name}.json", "document": changed.get(name, loaded(measured, name))} for name in NAMES]
    return make_page(read_bundles([measured / "tiny"]), results, created="2026-11-27 12:00 UTC")


def row_of(page: Any, name: str) -> Any:
    [row] = [row for row in page["rows"] if row["name"] == name]
    return row


def test_one_row_has_accuracy_and_times_of_the_same_bytes(measured: Path) -> None:
    page = made(measured)
    row = row_of(page, "tiny/cpu")
    sides = {name: loaded(measured, name)["latency"]["sides"]["tiny/cpu"] for name in ("call", "frame")}
    [side, _] = loaded(measured, "eval")["accuracy"]["sides"]
    assert row["state"] == "same"
    assert row["origin"]["sha256"] == side["origin"]["sha256"] == sides["call"]["origin"]["sha256"]
    assert row["accuracy"]["value"] == side["metrics"]["miou"]["value"]
    assert {mode: found["median_ms"] for mode, found in row["modes"].items()} == {
        name: found["median_ms"] for name, found in sides.items()
    }
    assert row["modes"]["call"]["joules_per_frame"] is None
    assert row_of(page, "tiny/fp32")["modes"] == {}
    assert row_of(page, "tiny/fp32")["accuracy"] is None


def test_what_was_not_measured_is_said_and_never_zero(measured: Path) -> None:
    page = make_page(read_bundles([measured / "tiny"]), [], created="now")
    text = markdown_page(page)
    assert [card["value"] for card in page["glance"][1:]] == [None, None, None]
    assert text.count("not measured") > 10
    assert not re.search(r"\| 0(\.0+)? ", text.partition("## tiny")[0])
    assert made(measured)["glance"][1]["value"] is not None


def test_a_result_of_another_version_of_a_file_is_an_alarm(measured: Path) -> None:
    document = loaded(measured, "call")
    document["latency"]["sides"]["tiny/cpu"]["origin"]["sha256"] = "ab" * 32
    page = made(measured, call=document)
    [alarm] = [line for line in page["warnings"] if line["level"] == "alarm"]
    assert alarm["about"] == "call.json"
    assert "ANOTHER FILE" in alarm["text"]
    assert "abababababab" in alarm["text"]
    assert page["warnings"][0] == alarm
    other = [row for row in page["rows"] if row["state"] == "other"]
    assert [row["name"] for row in other] == ["tiny/cpu"]
    assert other[0]["accuracy"] is None
    assert "call" not in row_of({"rows": [row for row in page["rows"] if row not in other]}, "tiny/cpu")["modes"]
    assert not [line for line in made(measured)["warnings"] if line["level"] == "alarm"]


def test_a_result_of_no_bundle_stands_alone(measured: Path) -> None:
    results = [{"file": "call.json", "document": loaded(measured, "call")}]
    page = make_page([], results, created="now")
    assert {row["state"] for row in page["rows"]} == {"apart"}
    assert any("in no bundle" in line["text"] for line in page["warnings"])
    assert "Latency" in markdown_page(page)


def test_yardsticks_are_not_mixed(measured: Path) -> None:
    other = loaded(measured, "eval")
    other["accuracy"]["protocol"]["name"] = "cityscapes-whole"
    results = [
        {"file": name, "document": document}
        for name, document in (("a", loaded(measured, "eval")), ("b", other), ("c", loaded(measured, "call")))
    ]
    page = make_page(read_bundles([measured / "tiny"]), results, created="now")
    groups = page["pareto"]
    assert len({group["yardstick"] for group in groups}) == 2
    assert [len(group["points"]) for group in groups] == [2, 2]
    assert len([row for row in page["rows"] if row["name"] == "tiny/cpu"]) == 2
    assert len(made(measured)["pareto"]) == 2  # of calls and of frames


def test_warnings_are_in_plain_words(measured: Path) -> None:
    evaluated, call = loaded(measured, "eval"), loaded(measured, "call")
    evaluated["accuracy"] |= {"complete": False}
    evaluated["accuracy"]["sides"][1] |= {"failure": {"message": "no such provider", "exit_code": 6}}
    evaluated["error"] = {"message": "interrupted", "exit_code": 130}
    call["latency"]["environment"]["throttled"] = ["cpu-therm is at its trip point"]
    late = call["latency"]["sides"]["tiny/cpu"]
    late["failure"] = {"message": "the GPU was lost", "exit_code": 1}
    page = made(measured, eval=evaluated, call=call)
    said: dict[tuple[str, str], list[str]] = {}
    for line in page["warnings"]:
        said.setdefault((line["level"], line["about"]), []).append(line["text"])
    assert any("no such provider" in text for text in said["alarm", "eval.json"])
    assert any("interrupted" in text for text in said["alarm", "eval.json"])
    assert any("throttled" in text for text in said["alarm", "call.json"])
    assert f"tiny/cpu failed after {late['calls']} calls: the GPU was lost" in said["alarm", "call.json"]
    assert any("stopped after 2 of 2 pictures" in text for text in said["warning", "eval.json"])
    assert any("nobody trained" in text for text in said["warning", "tiny"])
    assert any("imitates FP16" in text for text in said["warning", "tiny/fp16"])


# The command.


def test_every_format_is_written(measured: Path, cli: Cli, tmp_path: Path) -> None:
    for name, start in (("r.html", "<!doctype html>"), ("r.md", "# tiny"), ("r.json", "{")):
        result = cli("report", measured / "tiny", *documents(measured), "-o", tmp_path / "new" / name)
        assert result.code == 0, result.err
        text = (tmp_path / "new" / name).read_text(encoding="utf-8")
        assert text.startswith(start)
        assert f"wrote {tmp_path / 'new' / name}" in result.out
    page = json.loads(text)
    check_page(page)
    assert page["results"][0]["document"] == loaded(measured, "eval")
    assert {key for key in page if key in PAGE_SCHEMA["properties"]} == set(page)


def test_the_worst_picture_is_in_the_page(measured: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("report", measured / "eval.json", "-o", tmp_path / "r.html").code == 0
    assert 'src="data:image/' in (tmp_path / "r.html").read_text()
    shutil.copy(measured / "eval.json", tmp_path / "eval.json")  # without its picture
    assert cli("report", tmp_path / "eval.json", "-o", tmp_path / "s.html").code == 0
    assert "src=" not in (tmp_path / "s.html").read_text()
    assert "no such file" in (tmp_path / "s.html").read_text()


def test_no_picture_is_taken_from_elsewhere(measured: Path, cli: Cli, tmp_path: Path) -> None:
    document = loaded(measured, "eval")
    (tmp_path / "inner").mkdir()
    shutil.copy(measured / "tiny" / "golden.png", tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        document["accuracy"]["worst"][0]["image"] = name
        (tmp_path / "inner" / "eval.json").write_text(json.dumps(document))
        assert cli("report", tmp_path / "inner" / "eval.json", "-o", tmp_path / "r.html", "--force").code == 0
        text = (tmp_path / "r.html").read_text()
        assert "src=" not in text
        assert "does not lie beside its document" in text


def test_a_folder_of_bundles_is_all_of_them(measured: Path, cli: Cli, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(measured / "tiny", tmp_path / "all" / name)
    result = cli("report", tmp_path / "all", tmp_path / "all" / "one", "-o", tmp_path / "r.json", "--json")
    assert json.loads(result.out)["report"]["bundles"] == 2
    page = json.loads((tmp_path / "r.json").read_text())
    assert [bundle["name"] for bundle in page["bundles"]] == ["one", "two"]


def damaged_bundle(place: Path, measured: Path) -> Path:
    folder = shutil.copytree(measured / "tiny", place / "damaged")
    (folder / "fp16.onnx").write_bytes(b"other")
    return folder


def written(text: str | bytes) -> Callable[[Path, Path], Path]:
    def make(place: Path, _measured: Path) -> Path:
        target = place / "given.json"
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
        return target

    return make


def cut(place: Path, measured: Path) -> Path:
    return written((measured / "eval.json").read_text()[:700])(place, measured)


BAD: dict[str, tuple[Callable[[Path, Path], Path], int, str]] = {
    "nothing there": (lambda place, _: place / "missing", 1, "No such file"),
    "an empty folder": (lambda place, _: place, 7, "manifest.json"),
    "a damaged bundle": (damaged_bundle, 7, "fp16.onnx"),
    "a cut document": (cut, 7, "cut off"),
    "an empty file": (written(""), 1, "no JSON document"),
    "a picture": (written(b"\x89PNG\r\n\x1a\n\xff"), 1, "no JSON document"),
    "a list": (written("[1, 2]"), 1, "no JSON object"),
    "somebody else's": (written('{"name": "package", "version": "1"}'), 1, "none of accuracy, latency"),
    "another document of ours": (written('{"schema_version": 1, "models": []}'), 1, "none of accuracy, latency"),
    "a report": (written('{"schema_version": 1, "kind": "hiresvit-report"}'), 1, "is a report itself"),
    "a newer one": (written('{"schema_version": 2, "accuracy": {}}'), 7, "update hiresvit"),
    "a field of another type": (
        written('{"schema_version": 1, "latency": {"sides": [], "ratios": {}, "threads": 1}}'),
        7,
        "latency.sides must be object",
    ),
    "a manifest": (lambda _, measured: measured / "tiny" / "manifest.json", 1, "give its folder"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_bundle_and_no_result_is_said_in_a_line(what: str, measured: Path, cli: Cli, tmp_path: Path) -> None:
    make, code, words = BAD[what]
    place = tmp_path / "place"
    place.mkdir()
    result = cli("report", make(place, measured), "-o", tmp_path / "r.html")
    assert result.code == code
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert "internal" not in result.err
    assert not (tmp_path / "r.html").exists()


def test_where_it_goes_is_settled_first(measured: Path, cli: Cli, tmp_path: Path) -> None:
    bundle, target = measured / "tiny", tmp_path / "r.html"
    target.write_text("mine")
    assert "--force" in cli("report", bundle, "-o", target).err
    assert target.read_text() == "mine"
    assert cli("report", bundle, "-o", target, "--force").code == 0
    assert cli("report", bundle, "-o", tmp_path / "r.pdf").code == 2
    assert cli("report", bundle, "-o", tmp_path / "r.pdf", "--format", "md").code == 0
    assert cli("report", bundle, "-o", tmp_path / "a.md", "--format", "json").code == 2
    assert cli("report").code == 2
    (tmp_path / "file").write_text("")
    assert cli("report", bundle, "-o", tmp_path / "file" / "r.html").code == 1


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in items:
        yield (*above, key)
        yield from places(inside, (*above, key))


@pytest.mark.parametrize("name", NAMES)
def test_a_document_with_something_wrong_is_refused_or_shown(name: str, measured: Path) -> None:
    """Whatever is missing or of another type, nothing raises what is no error of ours."""
    whole, bundles, chosen = loaded(measured, name), read_bundles([measured / "tiny"]), random.Random(0)
    ways = [way for way in places(whole) if "samples_ns" not in way[:-1]]
    refused = 0
    for way in chosen.sample(ways, min(len(ways), 70)):
        document = copy.deepcopy(whole)
        at = document
        for key in way[:-1]:
            at = at[key]
        if isinstance(at, dict) and chosen.random() < 0.5:
            del at[way[-1]]
        else:
            at[way[-1]] = chosen.choice([None, -1, 1e99, "text", "", [], {}, [None], True])
        try:
            check_result(document)
        except ValueError:
            refused += 1
            continue
        if name in document or {"eval", "call", "frame", "compare"} & {name}:
            page = make_page(bundles, [{"file": "x.json", "document": document}], created="now")
            assert markdown_page(page)
    assert refused


# Strings that want to be more than text.


def poisoned(value: Any) -> Any:
    """A document with every free text of it hostile."""
    if isinstance(value, dict):
        fixed = {"schema_version", "mode", "task", "unit", "sha256", "role", "bundle", "metrics", "verdict", "created"}
        return {
            (ALL + key if key in ("tiny/cpu", "fp16.onnx") else key): inside if key in fixed else poisoned(inside)
            for key, inside in value.items()
        }
    if isinstance(value, list):
        return [poisoned(inside) for inside in value]
    return ALL + value if isinstance(value, str) else value


@pytest.fixture(scope="module")
def hostile(measured: Path, sweep_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A page whose bundle is called, and whose every document and sweep is full of, what wants to be markup."""
    place = tmp_path_factory.mktemp("hostile")
    folder = shutil.copytree(measured / "tiny", place / f"{HOSTILE[1]}{HOSTILE[3]}")
    manifest = read_manifest(folder / "manifest.json")
    object.__setattr__(manifest, "notes", HOSTILE)
    object.__setattr__(manifest, "command", ["hiresvit", *HOSTILE])
    assert isinstance(manifest.weights, Weights)
    write_manifest(folder, manifest)
    results = []
    for name in NAMES:
        document = {"notes": list(HOSTILE), **poisoned(loaded(measured, name))}
        if name == "layers":
            for row in document["layers"]["modules"]:
                row["verdict"] = "everything" if row["module"] else None
        check_result(document)
        results.append({"file": f"{ALL}{name}.json", "document": document})
    rows = [{**poisoned(row), "command": row["command"]} for row in read_sweep(sweep_file)["rows"]]
    for row in rows:
        check_result(row["document"] or {"schema_version": 1})
    sweep = make_sweep([{"file": ALL, "cut": True, "rows": rows}], budget_ms=1e9)
    page = make_page(read_bundles([folder]), results, created=ALL, sweep=sweep)
    check_page(page)
    return page


class Elements(HTMLParser):
    """The elements and attributes of a page, read as HTML's own rules say."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def test_no_string_becomes_an_element(hostile: dict[str, Any], measured: Path) -> None:
    plain, found = Elements(), Elements()
    plain.feed(html_page(made(measured), {}))
    text = html_page(hostile, {})
    found.feed(text)
    assert found.tags <= plain.tags
    assert found.attributes <= plain.attributes
    assert not {"script", "iframe", "link", "base"} & found.tags
    assert not {name for name in found.attributes if name.startswith("on")}
    assert all(link.startswith("#") for link in found.links)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", text)
    assert "49" not in re.findall(r"\b49\b", text.partition("</title>")[0])


def test_no_string_becomes_markdown(hostile: dict[str, Any]) -> None:
    text = markdown_page(hostile)
    found = Elements()
    found.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))
    assert not found.tags & {"a", "img", "script", "iframe", "style", "em", "s"}
    assert found.links == []
    assert found.text.count(harmless(HOSTILE[0])) > 20
    missing = [string for string in HOSTILE if " ".join(harmless(string).split()) not in found.text]
    assert missing == []
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", text)
    prose = re.sub(r"^```sh$.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "https://" not in prose, "code hosts make links of addresses"


# In a browser.

WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: tests/get-browser.sh installs it")
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


CONTRAST = """(() => {
  const style = getComputedStyle(document.documentElement);
  const light = name => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    const [r, g, b] = [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16) / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pairs = [['--ink', '--card'], ['--faint', '--card'], ['--faint', '--paper'], ['--good', '--card'],
    ['--bad', '--alarm-back'], ['--doubtful', '--warn-back'], ['--link', '--card']];
  return Math.min(...pairs.map(([a, b]) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  }));
})()"""
OUTSIDE = """[...document.querySelectorAll('svg.plot text')].filter(text => {
  const box = text.getBoundingClientRect(), svg = text.closest('svg').getBoundingClientRect();
  return box.left < svg.left - 1 || box.right > svg.right + 1 || box.bottom > svg.bottom + 1;
}).map(text => text.textContent).join('; ')"""


@pytest.fixture(scope="module")
def pages(measured: Path, sweep_file: Path, hostile: dict[str, Any]) -> Path:
    """A folder with plain.html and sweep.html, as the command writes them, and hostile.html."""
    (measured / "hostile.html").write_text(html_page(hostile, {}), encoding="utf-8")
    given = map(str, [measured / "tiny", *documents(measured)])
    assert main(["report", *given, "-o", str(measured / "plain.html")]) == 0
    budget = ("--budget-ms", "100000")
    assert main(["report", str(sweep_file), *budget, "-o", str(measured / "sweep.html")]) == 0
    return measured


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["plain", "sweep", "hostile"])
def test_a_page_fits_its_window_and_asks_for_nothing(kind: str, width: int, tab: Page, pages: Path) -> None:
    target = pages / f"{kind}.html"
    backgrounds = []
    for dark in (False, True):
        tab.requests.clear()
        tab.said.clear()
        tab.show(target, width=width, dark=dark)
        tab.value("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert tab.value("innerWidth") == width
        assert tab.value("document.documentElement.scrollWidth") <= width
        assert tab.value(OUTSIDE) == ""
        assert tab.value(CONTRAST) >= 4.5
        assert tab.value("document.querySelectorAll('script, iframe, [onerror], object, embed').length") == 0
        assert tab.value("document.querySelectorAll('h1').length") == 1
        backgrounds.append(tab.value("getComputedStyle(document.body).backgroundColor"))
        asked = [address for address in tab.requests if not address.startswith("data:image/")]
        assert asked == [target.resolve().as_uri()]
        assert tab.said == []
    assert backgrounds[0] != backgrounds[1]
    if kind == "hostile":
        text = tab.value("document.body.textContent")
        missing = [string for string in HOSTILE if harmless(string) not in text]
        assert missing == []


def test_the_document_describes_the_json() -> None:
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8").partition("\n## JSON\n")[2]
    tables = re.split(r"^Of .*:$", text, flags=re.MULTILINE)
    cells = [" ".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)) for table in tables]
    keys = [set(re.findall(r"`(\w+)`", names)) for names in cells]
    page = PAGE_SCHEMA["properties"]
    assert keys == [set(part["properties"]) for part in (PAGE_SCHEMA, page["rows"]["items"], page["sweep"])]


def test_errors_are_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema_version": 1, "accuracy": 3}')
    with pytest.raises(ArtefactError, match="accuracy must be object"):
        read_result(tmp_path / "a.json")
    with pytest.raises(HiresvitError):
        read_result(tmp_path / "b.json")
