"""What is particular to OpenVINO: FP32 unless bfloat16 is asked for, open sizes, other types, what it cannot do."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import build
from numpy.typing import NDArray

from hiresvit.errors import HiresvitError, IllegalGraphError, MissingDependency, UsageError
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.export.fp16 import to_fp16
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.openvino_runner import OpenVinoRunner, said_of_precision
from hiresvit.runtime.runner import Casting
from hiresvit.spec import TensorSpec

pytest.importorskip("openvino")

# A product of 256 terms: bfloat16 would leave about 50 dB of it, FP32 more than 120.
PRODUCT = "g (float[N,256] x) => (float[N,64] y) { y = MatMul(x, w) }"
WEIGHTS = np.random.default_rng(0).normal(0, 1, (256, 64)).astype(np.float32)
X = np.random.default_rng(1).normal(0, 1, (3, 256)).astype(np.float32)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "a.onnx")
    return folder / "a.onnx"


def sqnr(reference: NDArray[Any], test: NDArray[Any]) -> float:
    return compare_arrays(reference, test).sqnr_db


def test_an_open_size_is_computed_in_fp32(tmp_path: Path) -> None:
    path = save(build(PRODUCT, {"w": WEIGHTS}), tmp_path)
    with OpenVinoRunner(path, threads=1) as runner:
        assert runner.inputs == (TensorSpec("x", "float32", ("x_0", 256)),)
        assert runner.outputs == (TensorSpec("y", "float32", ("y_0", 64)),)
        assert dict(runner.best_shapes) == {"x": (1, 256)}
        for feed in (X, X[:1]):
            assert sqnr(feed.astype(np.float64) @ WEIGHTS, runner({"x": feed})["y"]) > 110


def test_an_fp16_graph_is_widened_and_says_so(tmp_path: Path) -> None:
    half, _ = to_fp16(build(PRODUCT.replace("N", "3"), {"w": WEIGHTS}), io="fp16")
    with OpenVinoRunner(save(half, tmp_path), threads=1) as runner:
        assert [spec.dtype for spec in (*runner.inputs, *runner.outputs)] == ["float16", "float16"]
        assert runner.warnings == ("what the graph has in FP16 is computed in FP32, from weights in FP16",)
        rounded = X.astype(np.float16)
        exact = rounded.astype(np.float64) @ WEIGHTS.astype(np.float16).astype(np.float64)
        # The output's own 11 bits leave 73 dB; FP16 sums of 256 terms would leave some 20 dB less.
        assert sqnr(exact, runner({"x": rounded})["y"]) > 70


def test_qdq_gives_what_onnx_runtime_gives(tmp_path: Path) -> None:
    """A quantized product, whose INT32 sums are exact: what differs is rounding at a tie, at most a step."""
    step = np.float32(0.05)
    constants = {
        "w": np.clip(np.round(WEIGHTS / step), -127, 127).astype(np.int8),
        "s": np.array(step),
        "z": np.array(0, np.int8),
    }
    model = build(
        """g (float[3,256] x) => (float[3,64] y) {
  q = QuantizeLinear(x, s, z)
  d = DequantizeLinear(q, s, z)
  wd = DequantizeLinear(w, s, z)
  y = MatMul(d, wd)
}""",
        constants,
    )
    path = save(model, tmp_path)
    with OpenVinoRunner(path, threads=1) as runner, OnnxRuntimeRunner(path, threads=1) as reference:
        assert sqnr(reference({"x": X})["y"], runner({"x": X})["y"]) > 60


def test_calls_from_several_threads_do_not_mix(tmp_path: Path) -> None:
    path = save(build(PRODUCT, {"w": WEIGHTS}), tmp_path)
    wrong: list[int] = []
    with OpenVinoRunner(path, threads=1) as runner:
        wanted = [runner({"x": X * k})["y"] for k in range(4)]

        def call(k: int) -> None:
            for _ in range(20):
                if not np.array_equal(runner({"x": X * k})["y"], wanted[k]):
                    wrong.append(k)

        workers = [threading.Thread(target=call, args=(k,)) for k in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


def test_an_operator_that_it_lacks_is_named(tmp_path: Path) -> None:
    model = build("g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }")
    model.graph.node[0].op_type = "Teleport"
    with pytest.raises(IllegalGraphError, match=r"OpenVINO cannot load it \(.*Teleport.*\)") as caught:
        OpenVinoRunner(save(model, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_failure_at_run_time_is_one_line(tmp_path: Path) -> None:
    model = build("g (float[N,M] x, float[K,L] w) => (float[A,B] y) { y = MatMul(x, w) }")
    with OpenVinoRunner(save(model, tmp_path), threads=1) as runner:
        w = np.ones((2, 3), np.float32)
        with pytest.raises(HiresvitError, match="OpenVINO failed on this input") as caught:
            runner({"x": np.ones((1, 5), np.float32), "w": w})
        assert "\n" not in str(caught.value)
        assert runner({"x": np.ones((1, 2), np.float32), "w": w})["y"].tolist() == [[2, 2, 2]]


def test_tensors_that_numpy_cannot_hold(tmp_path: Path) -> None:
    model = build("g (bfloat16[2] x) => (bfloat16[2] y) { y = Identity(x) }")
    with pytest.raises(UsageError, match="'x' is bf16; only f32, f16"):
        OpenVinoRunner(save(model, tmp_path))


def test_a_plugin_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    def fails() -> Any:
        raise RuntimeError('Exception from src/core.cpp:9:\nDevice with "CPU" name is not registered\n\n')

    monkeypatch.setattr(openvino, "Core", fails)
    with pytest.raises(MissingDependency, match=r'does not start here \(Device with "CPU" name is not registered\)'):
        OpenVinoRunner(save(build(PRODUCT, {"w": WEIGHTS}), tmp_path))


def test_bfloat16_is_asked_for_and_said(tmp_path: Path) -> None:
    path = save(build(PRODUCT, {"w": WEIGHTS}), tmp_path)
    exact = X.astype(np.float64) @ WEIGHTS
    with bfloat16(path) as runner:
        assert (runner.about.backend, runner.precision) == ("OpenVINO bf16", "bfloat16")
        assert "computed in bfloat16, 8 bits of mantissa" in runner.warnings[0]
        # Rounding both factors to 8 bits leaves about 50 dB; FP32 would be beyond 110.
        assert 40 < sqnr(exact, runner({"x": X})["y"]) < 60
        assert Casting(runner).precision == "bfloat16", "whose gates hang on it"
    with OpenVinoRunner(path, threads=1, detail="F32") as runner:
        assert (runner.about.backend, runner.precision, runner.warnings) == ("OpenVINO", None, ())
        assert sqnr(exact, runner({"x": X})["y"]) > 110


def bfloat16(path: Path) -> OpenVinoRunner:
    try:
        return OpenVinoRunner(path, threads=1, detail="bf16")
    except MissingDependency as error:
        pytest.skip(str(error))


def test_an_fp16_graph_in_bfloat16_says_that(tmp_path: Path) -> None:
    half, _ = to_fp16(build(PRODUCT.replace("N", "3"), {"w": WEIGHTS}), io="fp16")
    with bfloat16(save(half, tmp_path)) as runner:
        assert runner.warnings[1:] == ("what the graph has in FP16 is computed in bfloat16, from weights in FP16",)


def test_another_precision(tmp_path: Path) -> None:
    for name in ("fp16", ""):
        with pytest.raises(UsageError, match=f"computes in f32 or bf16, not in '{name}'; give openvino:bf16"):
            OpenVinoRunner(save(build(PRODUCT, {"w": WEIGHTS}), tmp_path), detail=name)


class StandIn:
    """A compiled model, and a core, of a CPU of another kind."""

    def __init__(self, *, takes: str, abilities: tuple[str, ...]) -> None:
        self.takes, self.abilities = takes, abilities

    def get_property(self, *name: str) -> Any:
        found = {"FULL_DEVICE_NAME": "Old CPU ", "OPTIMIZATION_CAPABILITIES": self.abilities}
        return found[name[1]] if len(name) > 1 else self

    def get_type_name(self) -> str:
        return self.takes

    def Core(self) -> StandIn:  # noqa: N802
        return self


def test_a_cpu_that_does_not_compute_in_bfloat16() -> None:
    """OpenVINO then takes FP32 and says nothing."""
    cpu = StandIn(takes="f32", abilities=("FP32", "INT8"))
    with pytest.raises(
        MissingDependency, match=r"computes in f32 on this CPU \(Old CPU\), not in bf16: leave :bf16 out"
    ):
        said_of_precision(cpu, cpu, "bf16")
    assert said_of_precision(cpu, cpu, "f32") == ()


def test_a_cpu_that_imitates_bfloat16() -> None:
    cpu = StandIn(takes="bf16", abilities=("FP32",))
    assert "no instructions for it, so its time says nothing" in said_of_precision(cpu, cpu, "bf16")[0]
    cpu = StandIn(takes="bf16", abilities=("FP32", "BF16"))
    assert "instructions" not in said_of_precision(cpu, cpu, "bf16")[0]
