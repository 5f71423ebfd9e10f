"""The documents are true: links, file names, commands and options, tables, and the lines of code they show."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hiresvit import errors
from hiresvit.bundle.folder import writing_bundle
from hiresvit.bundle.golden import write_golden
from hiresvit.bundle.manifest import Manifest, Weights, list_files, write_manifest
from hiresvit.bundle.stages import STAGES
from hiresvit.calibration.observers import METHODS
from hiresvit.calibration.sites import RULES
from hiresvit.check import rules
from hiresvit.check.qualcomm import HTP_TARGETS
from hiresvit.check.rule import Rule
from hiresvit.check.targets import TARGETS
from hiresvit.device.chips import CHIPS
from hiresvit.errors import HiresvitError
from hiresvit.workflows.quantize import DEFAULT_METHOD

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FOLDERS = "hiresvit|tests|docs|docker|benchmarks|examples|\\.ci"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of a language."""
    return [content for found, content in FENCE.findall(text) if found == language]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    return re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """The first cell of every row of the tables in ``text``, headings and rulers left out."""
    rows = re.findall(r"^\| *(.*?) *\|", text, re.MULTILINE)
    rulers = [number for number, cell in enumerate(rows) if set(cell) <= {"-", ":"}]
    return [cell for number, cell in enumerate(rows) if number not in rulers and number + 1 not in rulers]


def anchors(path: Path) -> set[str]:
    """GitHub's names of the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", prose(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@each_document
def test_links_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), f"{path.name} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(linked), f"{path.name} links to {target}: no such heading"


@each_document
def test_files_named_exist(path: Path) -> None:
    named = re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w./*-]*)", path.read_text(encoding="utf-8"))
    roots = (ROOT, ROOT / "cpp" / "include")  # where C++ includes are looked for
    missing = [name for name in named if not any(any(root.glob(name.rstrip("./"))) for root in roots)]
    assert not missing, f"{path.name} names {missing}, which do not exist"


@each_document
def test_nothing_outside_the_repository_is_named(path: Path) -> None:
    text = re.sub(r"https?://\S+|<!--.*?-->", "", path.read_text(encoding="utf-8"))
    # /etc and /sys are every Linux's, a board's too.
    outside = re.findall(r"(?<![\w.)*}\]/])(?:/(?!etc/|sys\b)[A-Za-z][\w.-]*|~/)\S*", text)
    for target in re.findall(r"(?:\.\./)+[\w./-]*", text):
        if not (path.parent / target).resolve().is_relative_to(ROOT):
            outside.append(target)
    assert not outside, f"{path.name} names {outside}"


@each_document
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"`make ([\w-]+)`", prose(text))
    used += [name for block in blocks(text, "sh") for name in re.findall(r"^make ([\w-]+)", block, re.MULTILINE)]
    assert set(used) <= targets


# The command line.


def commands() -> dict[str, Any]:
    """The commands of the app by name; imported here, so that a broken app fails the tests that are about it."""
    from typer.main import get_command

    from hiresvit.cli import app

    return dict(get_command(app).commands)  # type: ignore[attr-defined]


def options(command: Any) -> set[str]:
    """``--long`` and ``-s`` names of a command's options."""
    names = (name for param in command.params for name in (*param.opts, *param.secondary_opts))
    return {name for name in names if name.startswith("-")}


def command_lines() -> list[Any]:
    """Every ``hiresvit ...``: (line, whether it is a whole line to type and not a mention in a sentence)."""
    found: list[Any] = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        typed = [line for block in blocks(text, "sh") for line in block.splitlines()]
        mentioned = re.findall(r"`([^`\n]+)`", prose(text))
        for whole, lines in ((True, typed), (False, mentioned)):
            found += [
                pytest.param(line, whole, id=f"{path.name}: {line}")
                for line in lines
                if re.match(r"(\.venv/bin/)?hiresvit ", line)
            ]
    return found


@pytest.mark.parametrize(("line", "whole"), command_lines())
def test_command_lines_parse(line: str, whole: bool) -> None:
    words = shlex.split(line)[1:]
    if words[0] in ("--help", "-h", "--version"):
        return
    known = commands()
    assert words[0] in known, f"hiresvit has no command {words[0]!r}"
    command = known[words[0]]
    used = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
    assert used <= options(command), f"{words[0]} has no option {sorted(used - options(command))}"
    if whole:
        from hiresvit.cli import join_camera

        command.make_context(
            words[0], join_camera(words[1:])
        )  # raises on missing arguments and on values of another type


def test_every_command_and_option_is_described() -> None:
    text = read("docs/cli.md")
    known = commands()
    for name, command in known.items():
        described = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", section(text, name)))
        assert described, f"docs/cli.md has no section {name!r}"
        own = options(command) - {"--help", "-h"}
        assert described == own, f"{name}: docs/cli.md and --help differ in {sorted(described ^ own)}"


def test_exit_codes_are_those_of_the_errors() -> None:
    children = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, HiresvitError)]
    codes = {0, *(child.exit_code for child in children)}
    signals = {129, 130, 141, 143}  # SIGHUP, Ctrl-C, a closed stdout, SIGTERM
    assert set(map(int, first_cells(section(read("docs/cli.md"), "Exit codes")))) == codes | signals


def test_what_the_readme_shows_is_what_the_demo_printed() -> None:
    [shown] = blocks(read("README.md"), "text")
    [printed] = blocks(read("docs/demo.md"), "text")
    assert len(shown.splitlines()) <= 16
    assert set(shown.splitlines()) <= set(printed.splitlines())


# Tables that mirror the code.


def test_layout_has_every_package() -> None:
    places = {path for path in (ROOT / "hiresvit").iterdir() if path.suffix == ".py"}
    places |= {path.parent for path in (ROOT / "hiresvit").rglob("*/__init__.py")}
    table = section(read("docs/design.md"), "Where a line of code lives")
    listed = [cell.strip("`") for cell in first_cells(table)]
    assert sorted(listed) == sorted(str(path.relative_to(ROOT)) for path in places)


def test_manifest_table_has_every_key() -> None:
    cells = " ".join(first_cells(section(read("docs/bundle.md"), "manifest.json")))
    keys = {field.name for field in dataclasses.fields(Manifest)}
    assert set(re.findall(r"`(\w+)`", cells)) == keys | {"kind", "schema_version", "manifest_sha256"}


def test_bundle_table_has_every_role() -> None:
    row = r"^\| `([\w.]+)` \| `(\w+)` \| `?([\w. ]+)`? \|"
    rows = re.findall(row, section(read("docs/bundle.md"), "Files"), re.MULTILINE)
    made_from = {None: "the weights"} | {name: stage.file for name, stage in STAGES.items()}
    assert rows == [(stage.file, name, made_from[stage.parent]) for name, stage in STAGES.items()]


def chips_table() -> str:
    """Every chip of `--target`: what it is called, and what is known of it."""
    lines = [
        "| `--target` | sold as | part | `soc_model` | HTP | VTCM | floating point |",
        "|---|---|---|---|---|---|---|",
    ]
    for chip in CHIPS.values():
        title, memory = "" if chip.title == chip.part else chip.title, chip.vtcm_mb or ""
        told = f"{chip.part} | {chip.soc_model} | V{chip.arch} | {memory} | {'yes' if chip.fp16 else 'no'}"
        lines.append(f"| `{chip.name}` | {title} | {told} |")
    return "\n".join(lines)


def test_every_chip_is_documented() -> None:
    assert chips_table() in read("docs/ar.md"), f"write this there:\n{chips_table()}"


def report_keys(document: str, heading: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", " ".join(first_cells(section(read(document), heading)))))


def test_int8_rules_and_methods_are_described() -> None:
    text = read("docs/int8.md")
    assert first_cells(section(text, "What becomes INT8")) == [f"`{rule}`" for rule in RULES]
    assert sorted(first_cells(section(text, "Ranges"))) == sorted(f"`{method}`" for method in METHODS)
    assert DEFAULT_METHOD in METHODS
    assert f"| `{DEFAULT_METHOD}` | has the least squared error after rounding; the default |" in text


def levels(rule: Rule) -> str:
    """The level that a rule has on most of NVIDIA's targets, those where it has another, and that on chips."""
    on, chips = ({name: rule.level_on(target) for name, target in rows.items()} for rows in (TARGETS, HTP_TARGETS))
    asked = {name: level for name, level in on.items() if level}
    if not asked:
        said = " or ".join(sorted(filter(None, set(chips.values()))))
        return f"{said} (only {'chips' if all(chips.values()) else 'some chips'})"
    level = Counter(asked.values()).most_common(1)[0][0]
    notes = [f"{name}: {own or 'not asked'}" for name, own in on.items() if own != level]
    notes = [f"only {', '.join(asked)}"] if len(asked) == 1 else notes
    notes += [f"chips: {own or 'not asked'}" for own in set(chips.values()) - {level} if len(asked) > 1]
    return f"{level} ({', '.join(notes)})" if notes else level


def rules_table() -> str:
    """Every rule of `hiresvit check` with its level, where a target has another, and what it looks for."""
    lines = ["| rule | level | what it finds |", "|---|---|---|"]
    for rule in rules.RULES:
        what = " ".join((rule.find.__doc__ or "").split())
        lines.append(f"| `{rule.name}` | {levels(rule)} | {what} |")
    attention = "Attentions that will not be one kernel, see below."
    compiler = "What Qualcomm's compiler refuses and no rule has named."
    more = [f"| `attention` | advice | {attention} |", f"| `compiler` | illegal (only chips) | {compiler} |"]
    return "\n".join([*lines, *more])


def test_every_rule_is_documented() -> None:
    assert rules_table() in read("docs/check.md"), f"write this there:\n{rules_table()}"


def test_report_tables_have_every_key() -> None:
    from hiresvit.device.plan import EngineReport
    from hiresvit.export.fp16 import Fp16Report

    fp16 = {field.name for field in dataclasses.fields(Fp16Report)}
    assert report_keys("docs/fp16.md", "What the report means") == fp16 | {"headroom", "underflow"}
    engine = {field.name for field in dataclasses.fields(EngineReport)}
    assert report_keys("docs/tensorrt.md", "What the report means") == engine


# Code that the documents show.


def small_bundle(target: Path) -> Path:
    import numpy as np

    from hiresvit.models.create import model_spec
    from hiresvit.spec import TensorSpec

    weights = Weights("my.pth", "ab" * 32)
    with writing_bundle(target, force=False) as folder:
        (folder / "fp32.onnx").write_bytes(b"graph")
        (folder / "simplified.onnx").write_bytes(b"smaller graph")
        array = {"x": np.zeros(1)}
        write_golden(folder / "golden.npz", array, array)
        files = list_files(folder, weights)
        tensor = (TensorSpec("x", "float64", (1,)),)
        write_manifest(folder, Manifest(model_spec("hrvit_b1"), tensor, tensor, weights, files, {}, []))
    return target


def verify(bundle: Path) -> subprocess.CompletedProcess[str]:
    script = blocks(read("docs/bundle.md"), "sh")[0]
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], cwd=bundle, capture_output=True, text=True, check=False
    )


def test_bundle_is_verified_without_python(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    result = verify(bundle)
    names = ("fp32.onnx", "simplified.onnx", "golden.npz", "manifest.json")
    assert result.stdout.splitlines() == [f"{name}: OK" for name in names]
    assert result.returncode == 0


def test_damage_is_found_without_python(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace("my.pth", "your.pth"))
    assert "manifest.json: OK" not in verify(bundle).stdout
    (bundle / "fp32.onnx").write_bytes(b"grapH")
    assert "fp32.onnx: FAILED" in verify(bundle).stdout


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    from hiresvit.device.tensorrt_api import INSTALL_HINT, installed

    if not installed("tensorrt_rtx"):
        pytest.skip(INSTALL_HINT)
    example, on_a_device = blocks(read("docs/python.md"), "python")
    ast.parse(on_a_device)  # it runs in tests/test_without_torch.py
    result = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert re.search(r"\d+ nodes; 0 constants overflow", result.stdout)
    agreed = re.search(r"([\d.]+) dB, ([\d.]+)% of the pixels agree", result.stdout)
    assert agreed is not None
    assert float(agreed[1]) > 45  # the FP16 gate of hiresvit.evaluation.parity
    assert re.search(r"(\d+) of \1 attentions fused", result.stdout)
    assert (tmp_path / "fp16.plan").stat().st_size > 1e6  # 8 M parameters in FP16
