"""The doctor tries what is here and says what to do about the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
from onnx import TensorProto, helper

from hiresvit.device.platform import PLATFORMS
from hiresvit.device.tensorrt_api import BACKENDS, installed
from hiresvit.errors import install_line
from hiresvit.workflows.doctor import BUILD_HINTS, ONE_NODE, RUN_HINTS, examine, missing

ROOT = Path(__file__).parents[2]


def test_what_the_package_needs_is_here() -> None:
    found = examine()
    assert json.loads(json.dumps(found)) == found
    names = {row["name"] for row in found["libraries"]}
    assert {"torch", "onnx", "onnxruntime", "tensorrt-rtx-cu12"} <= names
    assert "pytest" not in names, "what hiresvit is developed with is not the user's concern"
    assert all(row["version"] for row in found["libraries"] if row["extra"] is None)
    assert missing(found) is None


def test_every_runner_is_named_and_tried() -> None:
    abilities = {row["name"]: row for row in examine()["abilities"]}
    assert list(abilities) == [
        "PyTorch, CPU",
        "ONNX graphs, make and check",
        "ONNX Runtime, CPU",
        *(f"ONNX Runtime, {name}" for name in onnxruntime.get_available_providers() if name[:3] != "CPU"),
        "OpenVINO, CPU",
        "Qualcomm HTP, emulated",
        "TensorRT-RTX, build plans",
        "TensorRT-RTX, run plans",
        "TensorRT, build plans",
        "TensorRT, run plans",
    ]
    assert abilities["TensorRT-RTX, build plans"]["works"] == installed("tensorrt_rtx")
    assert not abilities["ONNX Runtime, AzureExecutionProvider"]["works"], "it would be the CPU that answers"
    for row in abilities.values():
        assert row["detail"]
        assert (row["hint"] is None) == row["works"]


def test_what_measures_power_is_named_and_why_not_the_rest() -> None:
    power = examine()["power"]
    assert [row["name"] for row in power] == ["ina3221", "tegrastats", "nvml", "rapl"]
    assert all(isinstance(row["works"], bool) and row["detail"] for row in power)


def test_there_is_a_hint_for_every_platform_and_backend() -> None:
    for hints in (BUILD_HINTS, RUN_HINTS):
        assert set(hints) == set(PLATFORMS)
        assert all(set(row) == set(BACKENDS) for row in hints.values())


def examined_without(*modules: str) -> tuple[dict[str, dict[str, object]], str]:
    """The abilities by name, and what `missing` says, in a process where these modules cannot be imported."""
    code = (
        f"import sys, json\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"sys.modules.update(dict.fromkeys({modules!r}))\n"  # None there makes an import fail
        "from hiresvit.workflows.doctor import examine, missing\n"
        "found = examine()\n"
        "print(json.dumps([found['abilities'], str(missing(found))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    abilities, said = json.loads(done.stdout)
    return {row["name"]: row for row in abilities}, said


def test_a_library_that_cannot_be_imported_is_found_and_named() -> None:
    abilities, said = examined_without("torch", "onnxruntime")
    assert not abilities["PyTorch, CPU"]["works"]
    assert not abilities["ONNX Runtime, CPU"]["works"]
    assert "ONNX Runtime, CPU does not work here: install" in said
    assert "PyTorch" not in said, "what only an export needs is optional"


def test_on_a_device_nothing_is_missing() -> None:
    abilities, said = examined_without("onnx", "torch", "openvino")
    assert abilities["ONNX Runtime, CPU"]["works"]
    assert install_line("export") in str(abilities["PyTorch, CPU"]["hint"])
    assert abilities["OpenVINO, CPU"]["hint"] == install_line("openvino")
    assert abilities["TensorRT-RTX, build plans"]["works"] is False
    if installed("tensorrt_rtx"):  # then it is onnx that a build lacks
        assert abilities["TensorRT-RTX, build plans"]["detail"] == "this needs onnx, which is not installed"
        assert abilities["TensorRT-RTX, build plans"]["hint"] == install_line("export")
    if not installed("tensorrt"):
        assert abilities["TensorRT, run plans"]["detail"] == "not tried, for want of a plan: not installed"
    assert said == "None", "all of that is optional"


def test_the_graph_it_tries_is_what_onnx_would_write() -> None:
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one_node", sides[:1], sides[1:])
    model = helper.make_model(body, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    assert onnx.load_from_string(ONE_NODE) == model
