"""Imports go down only: the package's layers, and what may be loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hiresvit"

# From the top down. A module may import from the layers below its own, and from its own package.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("workflows",),
    ("check", "calibration"),
    ("engine", "export", "evaluation"),
    ("graph", "runtime", "report"),
    ("models", "device", "bundle"),
    ("data", "process", "files"),
    ("spec", "errors", "version", "progress"),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(module: str) -> str:
    """``hiresvit.export.fp16`` is of ``export``."""
    return module.split(".")[1]


def imported(tree: ast.AST) -> Iterator[str]:
    """The hiresvit modules that a module imports anywhere in it, also for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "hiresvit")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write hiresvit.…"
            if node.module == "hiresvit":
                yield from (f"hiresvit.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("hiresvit."):
                yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert own in LEVEL, f"{own} is in no layer: put it in LAYERS"
    for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
        part = part_of(module)
        assert part == own or LEVEL[part] > LEVEL[own], f"{own} must not import {module}"


def test_a_sibling_would_be_noticed() -> None:
    found = imported(ast.parse("def f():\n    from hiresvit.check.check import check_graph\n"))
    assert [part_of(module) for module in found] == ["check"]
    assert LEVEL["check"] == LEVEL["calibration"], "so calibration importing check fails the test above"


def loaded_by(statement: str, *names: str) -> set[str]:
    """Which of the modules are loaded after a statement was run in a fresh process."""
    code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{statement}\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(names) & set(done.stdout.split("\n"))


HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "PIL", "rich", "tensorrt_rtx", "onnxscript", "onnxsim")


@pytest.mark.parametrize("statement", ["import hiresvit", "import hiresvit.cli"])
def test_the_command_line_loads_nothing_heavy(statement: str) -> None:
    assert loaded_by(statement, *HEAVY) == set()


@pytest.mark.parametrize("argument", ["--help", "--version", "export --help", "export x --int8"])
def test_help_loads_nothing_heavy(argument: str) -> None:
    statement = f"from hiresvit.cli import main\nmain({argument.split()!r})"
    assert loaded_by(statement, *HEAVY) == set()


def test_a_device_without_torch_can_run_and_compare() -> None:
    modules = (
        ("runtime", ("runner", "open", "onnxruntime_runner", "tensorrt_runner", "preflight", "predictor")),
        ("evaluation", ("parity", "latency", "ranges", "accuracy")),
        ("report", ("results", "chart")),
    )
    names = [f"hiresvit.{package}.{module}" for package, members in modules for module in members]
    assert loaded_by(f"import {', '.join(names)}", "torch", names[0]) == {names[0]}


@pytest.mark.parametrize("module", ["open", "inspect", "bench", "doctor"])
def test_what_answers_loads_only_what_answers(module: str) -> None:
    statement = f"import hiresvit.workflows.{module}"
    assert loaded_by(statement, *HEAVY, "openvino") <= {"numpy", "PIL"}


def test_a_machine_without_torch_can_calibrate() -> None:
    assert loaded_by("import hiresvit.workflows.calibrate", "torch", "hiresvit.workflows.quantize") == {
        "hiresvit.workflows.quantize"
    }
