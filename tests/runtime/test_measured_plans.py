"""Plans as `bench` measures them, on the engine and the CUDA of host memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_cuda import COPY_MS, ORIN, RTX_4090
from fake_engine import RUN_MS, Network, Tensor, TensorIOMode, network, opened
from graphs import build

from hiresvit.device.cuda import Device
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.runner import Casting, Runner
from hiresvit.workflows.bench import BenchSettings, measure_sources
from hiresvit.workflows.open import Source


def images(*profile: tuple[int, ...]) -> Network:
    """A network on pictures, batch and sizes dynamic."""
    tensors = (
        Tensor("x", TensorIOMode.INPUT, (-1, 3, -1, -1)),
        Tensor("y", TensorIOMode.OUTPUT, (-1, 3, -1, -1)),
    )
    return Network(tensors, profile)


def source(runner: Runner, label: str = "a.plan") -> Source:
    return Source(Casting(runner), None, label)


def bench(*sources: Source, **settings: Any) -> dict[str, Any]:
    return measure_sources(sources, BenchSettings(min_s=0.01, rel_error=1e9, **settings)).report


@pytest.mark.parametrize(
    ("profile", "shape"),
    [
        (((1, 3, 8, 8), (1, 3, 16, 16), (1, 3, 32, 32)), "1x3x16x16"),
        (((2, 3, 8, 8), (4, 3, 8, 8), (4, 3, 8, 8)), "4x3x8x8"),
    ],
    ids=["size", "batch"],
)
def test_a_dynamic_plan_is_called_as_it_was_tuned(
    tmp_path: Path, profile: tuple[tuple[int, ...], ...], shape: str
) -> None:
    """Neither takes 1 for a dynamic size."""
    with opened(tmp_path, images(*profile))[0] as runner:
        side = bench(source(runner))["sides"]["a.plan"]
    assert side["warnings"][0] == f"called with x {shape}"
    # images per second, of calls on as many as the batch has
    expected = profile[1][0] * side["calls"] / (sum(side["samples_ns"]) / 1e9)
    assert side["throughput"] == pytest.approx(expected)


@pytest.mark.parametrize(("device", "copy_ms"), [(RTX_4090, COPY_MS), (ORIN, 0.0)], ids=["pc", "jetson"])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_what_the_gpu_says_is_told(tmp_path: Path, device: Device, copy_ms: float, cuda_graph: bool) -> None:
    what = network(shape=(1, 2))
    with opened(tmp_path, what, device=device, cuda_graph=cuda_graph)[0] as runner:
        report = bench(source(runner))
    side = json.loads(json.dumps(report, allow_nan=False))["sides"]["a.plan"]
    assert (side["h2d_ms"], side["gpu_compute_ms"], side["d2h_ms"]) == (copy_ms, RUN_MS, copy_ms)
    assert not any("called with" in warning for warning in side["warnings"])


def test_a_graph_beside_it_has_no_such_times(tmp_path: Path) -> None:
    onnx.save(build("g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }"), tmp_path / "a.onnx")
    with opened(tmp_path)[0] as plan, OnnxRuntimeRunner(tmp_path / "a.onnx", threads=1) as graph:
        report = bench(source(plan), source(plan), source(graph, "a.onnx"))
    assert list(report["sides"]) == ["a.plan", "a.plan (2)", "a.onnx"]
    found = report["sides"]["a.onnx"]
    assert (found["h2d_ms"], found["gpu_compute_ms"], found["d2h_ms"]) == (None, None, None)
    assert found["warnings"][0] == "called with x 1x2"  # nobody says what it is best at
    assert report["sides"]["a.plan (2)"]["warnings"][0] == "called with x 2x2"


def test_a_plan_of_two_inputs(tmp_path: Path) -> None:
    tensors = (
        Tensor("x", TensorIOMode.INPUT, (-1, 2)),
        Tensor("mask", TensorIOMode.INPUT, (1, 2)),
        Tensor("y", TensorIOMode.OUTPUT, (-1, 2)),
    )
    what = Network(tensors, ((1, 2), (3, 2), (4, 2)), lambda feeds: {"y": feeds["x"] + feeds["mask"]})
    with opened(tmp_path, what)[0] as runner:
        x = np.ones((1, 2), np.float32)
        np.testing.assert_array_equal(runner({"mask": x, "x": x})["y"], 2 * x)
        side = bench(source(runner))["sides"]["a.plan"]
    assert side["warnings"][0] == "called with x 3x2, mask 1x2"
    assert side["h2d_ms"] == 2 * COPY_MS
