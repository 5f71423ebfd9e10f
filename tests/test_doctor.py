"""The doctor tries what is here and says what to do about the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hiresvit.doctor import examine, missing
from hiresvit.export.engine import INSTALL_HINT, rtx_available

ROOT = Path(__file__).parents[1]


def test_what_the_package_needs_is_here() -> None:
    found = examine()
    assert json.loads(json.dumps(found)) == found
    names = {row["name"] for row in found["libraries"]}
    assert {"torch", "onnx", "onnxruntime", "tensorrt-rtx-cu12"} <= names
    assert "pytest" not in names, "what hiresvit is developed with is not the user's concern"
    assert all(row["version"] for row in found["libraries"] if row["extra"] is None)
    assert missing(found) is None


def test_the_plan_builder_is_tried() -> None:
    [ability] = [row for row in examine()["abilities"] if "RTX" in row["name"]]
    assert ability["works"] == rtx_available()
    assert (ability["hint"] is None) == ability["works"]


def examined_without(*modules: str) -> tuple[dict[str, dict[str, object]], str]:
    """The abilities by name, and what `missing` says, in a process where these modules cannot be imported."""
    code = (
        f"import sys, json\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"sys.modules.update(dict.fromkeys({modules!r}))\n"  # None there makes an import fail
        "from hiresvit.doctor import examine, missing\n"
        "found = examine()\n"
        "print(json.dumps([found['abilities'], str(missing(found))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    abilities, said = json.loads(done.stdout)
    return {row["name"].split(",")[0]: row for row in abilities}, said


def test_a_library_that_cannot_be_imported_is_found_and_named() -> None:
    abilities, said = examined_without("torch", "onnxruntime")
    assert not abilities["PyTorch"]["works"]
    assert not abilities["ONNX Runtime"]["works"]
    assert "PyTorch, CPU does not work here: install" in said
    assert "ONNX Runtime" in said


def test_without_onnx_nothing_is_written_and_nothing_raises() -> None:
    abilities, said = examined_without("onnx")
    assert abilities["PyTorch"]["works"]
    assert not abilities["ONNX Runtime"]["works"]
    assert abilities["TensorRT-RTX"] == {**abilities["TensorRT-RTX"], "works": False, "hint": INSTALL_HINT}
    assert "TensorRT" not in said, "building plans is optional"
