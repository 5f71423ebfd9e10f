"""What the builder's process makes of the builder's callbacks."""

from __future__ import annotations

from typing import Any

import pytest

from hiresvit.errors import BuildError
from hiresvit.export._engine_child import describe, make_log, make_monitor, one_line
from hiresvit.export.engine import INSTALL_HINT, load_trt, rtx_available

needs_rtx = pytest.mark.skipif(not rtx_available(), reason=INSTALL_HINT)


@pytest.fixture(scope="module")
def trt() -> Any:
    return load_trt()


@needs_rtx
def test_log_keeps_what_the_report_needs(trt: Any, capfd: pytest.CaptureFixture[str]) -> None:
    log = make_log(trt)
    for _ in range(2):
        log.log(trt.ILogger.WARNING, "Detected layernorm nodes in FP16.")
    log.log(trt.ILogger.ERROR, "bad\nnews")
    log.log(trt.ILogger.INFO, "Total Weights Memory: 7 bytes")
    log.log(trt.ILogger.VERBOSE, "Layers:\nName: a, LayerType: gemm, Inputs: [], Outputs: []")
    log.log(trt.ILogger.VERBOSE, "chatter")
    assert log.errors == ["bad news"]
    said = describe(log)
    assert (said["kernel_total"], said["weight_bytes"]) == (1, 7)
    assert said["warnings"] == ["Detected layernorm nodes in FP16."]
    assert capfd.readouterr().err.splitlines()[-1] == "bad news"


@needs_rtx
def test_no_layer_list_is_an_error_and_not_a_plan_without_kernels(trt: Any) -> None:
    with pytest.raises(BuildError, match=r"cannot be described: .*'Layers:'"):
        describe(make_log(trt))


@needs_rtx
def test_nested_phases_make_one_fraction(trt: Any) -> None:
    reported: list[tuple[str, float]] = []
    monitor = make_monitor(trt, lambda phase, fraction: reported.append((phase, round(fraction, 4))))
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
    monitor = make_monitor(trt, lambda phase, fraction: reported.append(fraction))
    monitor.phase_start("Building engine", None, 10_000)
    for step in range(10_000):
        monitor.step_complete("Building engine", step)
    assert 90 <= len(reported) <= 101


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "Invalid Node - my_conv\n"
            "ITensor::getDimensions: Error Code 4: API Usage Error (my_conv: `input` and `bias` must be "
            "of same type. `bias` is of type Float. In validateTypes at /_src/a.cpp:110)\n"
            "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35: no driver)",
            "my_conv: `input` and `bias` must be of same type. `bias` is of type Float",
        ),
        (
            "Assertion failed: zero point\n  is not\nsupported.",
            "Assertion failed: zero point is not supported.",
        ),
        ("[checkMacros.cpp] Error Code 1: Cuda Runtime (In x at y:250 (cudaError 35: no driver))", ""),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert one_line(text) == line
