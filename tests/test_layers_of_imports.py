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
    ("data", "process"),
    ("kinds",),
    ("files", "schema"),
    ("spec", "errors", "version", "progress", "wire"),
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


READERS = frozenset({"load", "load_model", "load_from_string", "load_model_from_string"})


def graphs_read(tree: ast.AST) -> Iterator[str]:
    """Where a module has ONNX's own reader, as ``onnx.load``, whatever it calls ``onnx``."""
    names = {"onnx"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.asname for alias in node.names if alias.name == "onnx" and alias.asname)
        elif isinstance(node, ast.ImportFrom) and node.module == "onnx":
            yield from (alias.name for alias in node.names if alias.name in READERS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in READERS and isinstance(node.value, ast.Name):
            yield from [node.attr] if node.value.id in names else []


def test_only_one_file_reads_graphs() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(graphs_read(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == {"graph/file.py"}


@pytest.mark.parametrize(
    "text",
    [
        "import onnx\nonnx.load('a')",
        "def f():\n    import onnx as o\n    return o.load_from_string(b'')",
        "from onnx import load_model",
        "import onnx\nread = onnx.load_model",
    ],
)
def test_a_second_reader_would_be_noticed(text: str) -> None:
    assert len(list(graphs_read(ast.parse(text)))) == 1
    assert list(graphs_read(ast.parse("import json, onnx\njson.load(open('a'))\nonnx.save(m, 'a')"))) == []


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
        ("runtime", ("runner", "open", "onnxruntime_runner", "tensorrt_runner", "preflight", "picture_runner")),
        ("evaluation", ("parity", "latency", "accuracy")),
        ("report", ("results", "chart")),
    )
    names = [f"hiresvit.{package}.{module}" for package, members in modules for module in members]
    assert loaded_by(f"import {', '.join(names)}", "torch", names[0]) == {names[0]}


@pytest.mark.parametrize("module", ["open", "inspect", "bench", "doctor", "predictor", "package.package"])
def test_what_answers_loads_only_what_answers(module: str) -> None:
    statement = f"import hiresvit.workflows.{module}"
    assert loaded_by(statement, *HEAVY, "openvino") <= {"numpy", "PIL"}


def test_a_machine_without_torch_can_calibrate() -> None:
    assert loaded_by("import hiresvit.workflows.calibrate", "torch", "hiresvit.workflows.quantize") == {
        "hiresvit.workflows.quantize"
    }


def users_of(*libraries: str) -> set[str]:
    """The files of the package that import a library anywhere in them."""
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            if any(name.split(".")[0] in libraries for name in names):
                found.add(str(path.relative_to(PACKAGE)))
    return found


def test_only_commands_and_report_print() -> None:
    elsewhere = {path for path in users_of("rich", "typer") if not path.startswith(("commands/", "report/"))}
    assert elsewhere == {"cli.py"}, "rich and typer are for what a person sees"


def test_below_the_workflows_torch_is_for_models_and_their_export() -> None:
    allowed = ("workflows/", "models/", "export/")
    assert {path for path in users_of("torch") if not path.startswith(allowed)} == {"runtime/torch_runner.py"}


def test_sessions_of_onnxruntime_are_made_in_one_file_and_for_the_htp_in_its_child() -> None:
    text = {path: path.read_text(encoding="utf-8") for path in MODULES}
    makers = {str(path.relative_to(PACKAGE)) for path, code in text.items() if "InferenceSession(" in code}
    assert makers == {"runtime/onnxruntime_runner.py", "runtime/_qnn_child.py"}


def test_only_the_child_has_qualcomms_library() -> None:
    assert users_of("onnxruntime_qnn") == {"runtime/_qnn_child.py"}, "its native code prints, and may crash"


def test_no_module_leads_back_to_itself() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES}
    leads: dict[str, set[str]] = {}
    for path in MODULES:
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        reached: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hiresvit"):
                modules = {f"{node.module}.{alias.name}" for alias in node.names} & names
                reached |= modules or {str(node.module)}
        leads[own] = (reached & names) - {own}
    while free := [name for name, others in leads.items() if not others & leads.keys()]:
        for name in free:
            del leads[name]
    assert leads == {}, "these, and what leads to them, go in circles"
