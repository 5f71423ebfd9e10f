"""The line for NVIDIA's own program; its options are those of trtexec's documentation, none was run here."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from hiresvit.device.tensorrt_api import Backend
from hiresvit.engine.build import DEFAULTS, BuildSettings
from hiresvit.engine.profiles import parse_shapes
from hiresvit.engine.trtexec import trtexec_line

EVERY: list[tuple[Backend, int]] = [("tensorrt", 10), ("tensorrt", 11), ("tensorrt_rtx", 1)]
COMMON = ["--onnx=my graph.onnx", "--saveEngine=g.plan", "--skipInference", "--profilingVerbosity=detailed"]


def words(backend: Backend, major: int, settings: BuildSettings = DEFAULTS) -> list[str]:
    graph, plan = Path("my graph.onnx"), Path("g.plan")
    return shlex.split(trtexec_line(graph, plan, settings, backend=backend, major=major))


def test_what_each_version_needs() -> None:
    assert words("tensorrt", 10) == [
        *("trtexec", *COMMON[:3], "--stronglyTyped", COMMON[3], "--maxAuxStreams=0"),
    ]
    assert words("tensorrt", 11) == ["trtexec", *COMMON, "--maxAuxStreams=0"]
    assert words("tensorrt_rtx", 1) == ["tensorrt_rtx", *COMMON, "--maxAuxStreams=0"]


@pytest.mark.parametrize(("backend", "major"), EVERY, ids=["10", "11", "rtx"])
def test_no_precision_flag_ever(backend: Backend, major: int) -> None:
    line = words(backend, major, BuildSettings(workspace=1 << 28, opt_level=5))
    assert not {"--fp16", "--int8", "--bf16", "--best", "--fp8"} & set(line)


def test_all_settings_of_tensorrt() -> None:
    shapes = parse_shapes(["x=1x3:2x3:4x3", "y=1x8:2x8:4x8"])
    settings = BuildSettings(
        shapes=shapes,
        workspace=256 << 20,
        timing_cache=Path("cache"),
        opt_level=4,
        max_aux_streams=2,
        hw_compat="same",
        version_compatible=True,
    )
    assert words("tensorrt", 11, settings)[5:] == [
        "--maxAuxStreams=2",
        "--minShapes=x:1x3,y:1x8",
        "--optShapes=x:2x3,y:2x8",
        "--maxShapes=x:4x3,y:4x8",
        "--memPoolSize=workspace:256",
        "--builderOptimizationLevel=4",
        "--timingCacheFile=cache/trtexec.timing",
        "--hardwareCompatibilityLevel=sameComputeCapability",
        "--versionCompatible",
    ]


def test_what_only_rtx_has_and_lacks() -> None:
    line = words("tensorrt_rtx", 1, BuildSettings(sm=(86, 120), timing_cache=Path("cache")))
    assert line[-1] == "--computeCapabilities=86,120"
    assert not any("timing" in word for word in line)
