"""What the builder's process makes of the builder's callbacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from hiresvit.device.tensorrt_api import INSTALL_HINT, installed, load, make_log
from hiresvit.engine._build_child import Said, make_monitor, make_recorder, parse_dump
from hiresvit.engine.build import BuildSettings, _request
from hiresvit.errors import BuildError
from hiresvit.process import run_child

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)


@pytest.fixture(scope="module")
def trt() -> Any:
    return load("tensorrt_rtx")


@needs_rtx
def test_the_log_keeps_what_the_report_needs(trt: Any, capfd: pytest.CaptureFixture[str]) -> None:
    said = Said()
    log = make_log(trt, said.hear)
    for _ in range(2):
        log.log(trt.ILogger.WARNING, "Detected layernorm nodes in FP16.")
    log.log(trt.ILogger.ERROR, "bad\nnews")
    log.log(trt.ILogger.INFO, "Total Weights Memory: 7 bytes")
    log.log(trt.ILogger.VERBOSE, "Layers:\nName: a, LayerType: gemm, Inputs: [], Outputs: []")
    log.log(trt.ILogger.VERBOSE, "chatter")
    assert said.errors == ["bad news"]
    assert [kernel.name for kernel in parse_dump(said)] == ["a"]
    assert said.memory == ["Total Weights Memory: 7 bytes"]
    assert said.warnings == ["Detected layernorm nodes in FP16."] * 2
    assert capfd.readouterr().err.splitlines()[-1] == "bad news"


def test_no_layer_list_is_an_error_and_not_a_plan_without_kernels() -> None:
    with pytest.raises(BuildError, match=r"cannot be described: .*'Layers:'"):
        parse_dump(Said())


@needs_rtx
def test_the_error_recorder_keeps_codes_and_reasons(trt: Any) -> None:
    said = Said()
    recorder = make_recorder(trt, said)
    recorder.report_error(4, "no reason\nat all")
    assert (recorder.num_errors(), recorder.get_error_code(0)) == (1, 4)
    assert (recorder.get_error_desc(0), recorder.has_overflowed()) == ("no reason\nat all", False)
    recorder.clear()
    assert recorder.num_errors() == 0
    assert said.errors == ["no reason at all"]


@needs_rtx
def test_a_build_that_nobody_waits_for_is_cancelled(trt: Any) -> None:
    alive = True
    monitor = make_monitor(trt, lambda phase, fraction: None, lambda: alive)
    monitor.phase_start("Building engine", None, 2)
    assert monitor.step_complete("Building engine", 0) is True
    alive = False
    assert monitor.step_complete("Building engine", 1) is False


@needs_rtx
def test_an_orphan_stops_and_writes_no_plan(tmp_path: Path) -> None:
    """A parent that was killed cannot stop its child: the child looks for itself."""
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", sides[:1], sides[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), tmp_path / "g.onnx")
    request = _request(tmp_path / "g.onnx", tmp_path / "g.plan", BuildSettings(), "tensorrt_rtx")
    request["parent"] = 1 << 30  # no such process
    lines: list[dict[str, Any]] = []
    run_child(
        ["-m", "hiresvit.engine._build_child", json.dumps(request)],
        on_line=lambda line: lines.append(json.loads(line)),
    )
    assert lines[-1]["error"] == "BuildError"
    assert "cancelled" in lines[-1]["message"]
    assert not (tmp_path / "g.plan").exists()


@needs_rtx
def test_nested_phases_make_one_fraction(trt: Any) -> None:
    reported: list[tuple[str, float]] = []
    monitor = make_monitor(trt, lambda phase, fraction: reported.append((phase, round(fraction, 4))), lambda: True)
    monitor.phase_start("Building engine", None, 2)
    monitor.phase_start("Cloning network graph", "Building engine", 0)  # no steps: not a division by zero
    monitor.phase_finish("Cloning network graph")
    monitor.step_complete("Building engine", 0)
    monitor.phase_start("Determining refit engines", "Building engine", 4)
    assert monitor.step_complete("Determining refit engines", 0) is True  # False would cancel the build
    monitor.phase_finish("Determining refit engines")
    monitor.step_complete("Building engine", 0)  # said twice: must not fall back
    monitor.phase_start("Timing", "Building engine", 1000)
    monitor.step_complete("Timing", 900)
    assert reported == [
        ("Building engine", 0.0),
        ("Cloning network graph", 0.0),
        ("Building engine", 0.5),
        ("Compiling kernels", 0.5),
        ("Compiling kernels", 0.625),
        ("Timing", 0.625),
        ("Timing", 0.9505),
    ]


@needs_rtx
def test_steps_too_small_to_see_are_not_reported(trt: Any) -> None:
    reported: list[float] = []
    monitor = make_monitor(trt, lambda phase, fraction: reported.append(fraction), lambda: True)
    monitor.phase_start("Building engine", None, 10_000)
    for step in range(10_000):
        monitor.step_complete("Building engine", step)
    assert 90 <= len(reported) <= 101
