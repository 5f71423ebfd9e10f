"""The runner's logic, on an engine and a CUDA of host memory. Nothing here ran on a GPU."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fake_cuda import COPY_MS, ORIN, RTX_4090, FakeCuda
from fake_engine import (
    RUN_MS,
    DataType,
    FakeRTX,
    FakeTensorRT,
    ICudaEngine,
    IExecutionContext,
    IRuntimeConfig,
    Network,
    Runtime,
    Tensor,
    TensorFormat,
    TensorIOMode,
    TensorLocation,
    batch,
    network,
    nothing_is_left,
    opened,
    save_plan,
)
from numpy.typing import NDArray

from hiresvit.device import tensorrt_api
from hiresvit.errors import HiresvitError, MissingDependency, UsageError
from hiresvit.runtime.runner import GpuTimes, Runner
from hiresvit.runtime.tensorrt_runner import TensorRTRunner
from hiresvit.spec import TensorSpec

PC = pytest.param(RTX_4090, id="pc")
JETSON = pytest.param(ORIN, id="jetson")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return save_plan(tmp_path)


def test_a_plan_runs_and_says_what_it_takes(tmp_path: Path) -> None:
    typed: Runner
    with opened(tmp_path)[0] as runner:
        typed = runner
        assert typed.inputs == (TensorSpec("x", "float32", ("batch", 2)),)
        assert typed.outputs == (TensorSpec("y", "float32", ("batch", 2)),)
        y = typed({"x": batch(2)})
        assert list(y) == ["y"]
        np.testing.assert_array_equal(y["y"], batch(2) * 2 + 1)


@pytest.mark.parametrize("device", [PC, JETSON])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_shapes_come_and_go(tmp_path: Path, device: Any, cuda_graph: bool) -> None:
    runner, cuda, trt = opened(tmp_path, device=device, cuda_graph=cuda_graph)
    for step, size in enumerate([1, 1, 3, 3, 3, 2, 4, 1, 1]):
        x = batch(size, start=10.0 * step)
        np.testing.assert_array_equal(runner({"x": x})["y"], x * 2 + 1)
    runner.close()
    assert nothing_is_left(cuda, trt)


def test_buffers_grow_and_stay(tmp_path: Path) -> None:
    runner, cuda, _ = opened(tmp_path)
    seen = []
    for size in (1, 3, 2, 3, 4, 1):
        runner({"x": batch(size)})
        seen.append((cuda.calls["malloc"], cuda.calls["host_alloc"]))
    assert seen == [(2, 2), (4, 4), (4, 4), (4, 4), (6, 6), (6, 6)]
    assert cuda.held()["device"] == 2


def test_a_fixed_shape_is_never_set(tmp_path: Path) -> None:
    runner, _, trt = opened(tmp_path, network(shape=(2, 2)))
    trt.refuse.add("set_input_shape")
    assert runner.inputs[0].shape == (2, 2)
    np.testing.assert_array_equal(runner({"x": batch(2)})["y"], batch(2) * 2 + 1)


def test_every_dynamic_axis_has_a_name(tmp_path: Path) -> None:
    tensors = tuple(Tensor(n, m, (-1, 3, -1, -1)) for n, m in zip("xy", [*TensorIOMode][1:], strict=True))
    profile = ((1, 3, 4, 4), (1, 3, 4, 4), (2, 3, 8, 8))
    runner, _, _ = opened(tmp_path, Network(tensors, profile))
    assert runner.inputs[0].shape == ("batch", 3, "x_2", "x_3")
    assert runner.outputs[0].shape == ("batch", 3, "y_2", "y_3")
    with pytest.raises(UsageError, match=r"\(2, 3, 8, 9\); the plan takes \(1, 3, 4, 4\) to \(2, 3, 8, 8\)"):
        runner({"x": np.zeros((2, 3, 8, 9), np.float32)})
    runner({"x": np.zeros((2, 3, 8, 8), np.float32)})


def test_the_best_shapes_are_the_profiles(tmp_path: Path) -> None:
    assert opened(tmp_path)[0].best_shapes == {"x": (2, 2)}
    assert opened(tmp_path, network(shape=(3, 2)))[0].best_shapes == {"x": (3, 2)}


def test_two_inputs(tmp_path: Path) -> None:
    """Of other types and shapes, with a profile each."""
    tensors = (
        Tensor("x", TensorIOMode.INPUT, (-1, 2)),
        Tensor("y", TensorIOMode.OUTPUT, (-1, 2)),
        Tensor("scale", TensorIOMode.INPUT, (-1, 1), DataType.INT64),
    )

    def compute(feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {"y": (feeds["x"] * feeds["scale"]).astype(np.float32)}

    others = {"scale": ((1, 1), (3, 1), (4, 1))}
    what = Network(tensors, ((1, 2), (3, 2), (4, 2)), compute, others=others)
    runner, cuda, trt = opened(tmp_path, what, cuda_graph=True)
    assert [spec.name for spec in runner.inputs] == ["x", "scale"]
    assert runner.best_shapes == {"x": (3, 2), "scale": (3, 1)}
    for size in (1, 4, 4, 2):
        scale = np.arange(size, dtype=np.int64).reshape(size, 1)
        # the order of the feeds is not the plan's
        np.testing.assert_array_equal(runner({"scale": scale, "x": batch(size)})["y"], batch(size) * scale)
    assert runner.last_times() == GpuTimes(2 * COPY_MS, RUN_MS, COPY_MS)
    with pytest.raises(UsageError, match=r"'scale' is \(5, 1\); the plan takes \(1, 1\) to \(4, 1\)"):
        runner({"x": batch(2), "scale": np.zeros((5, 1), np.int64)})
    runner.close()
    assert nothing_is_left(cuda, trt)


def test_results_belong_to_the_caller(tmp_path: Path) -> None:
    runner, _, _ = opened(tmp_path)
    first = runner({"x": batch(2)})["y"]
    first_again = first.copy()
    second = runner({"x": batch(2, start=5)})["y"]
    assert not np.shares_memory(first, second)
    assert first.base is None  # a view would reach into memory that close() gives back
    runner.close()
    np.testing.assert_array_equal(first, first_again)


def test_strided_and_read_only_feeds_run_too(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::-2]
    x.flags.writeable = False
    runner, _, _ = opened(tmp_path)
    np.testing.assert_array_equal(runner({"x": x})["y"], 2 * x + 1)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "feeds are"),
        ({"z": np.zeros((1, 2), np.float32)}, r"feeds are \['z'\]; the network's inputs are \['x'\]"),
        ({"x": np.zeros((1, 2))}, r"float64 \(1, 2\); the network takes float32 \(batch, 2\)"),
        ({"x": np.zeros((1, 3), np.float32)}, r"float32 \(1, 3\)"),
        ({"x": np.zeros((1, 2), ">f4")}, "the network takes float32"),
        ({"x": np.zeros((5, 2), np.float32)}, r"\(5, 2\); the plan takes \(1, 2\) to \(4, 2\)"),
        ({"x": np.zeros((0, 2), np.float32)}, r"\(0, 2\); the plan takes \(1, 2\) to \(4, 2\)"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(tmp_path: Path, feeds: dict[str, Any], words: str) -> None:
    runner, _, _ = opened(tmp_path)
    with pytest.raises(UsageError, match=words):
        runner(feeds)
    np.testing.assert_array_equal(runner({"x": batch(1)})["y"], batch(1) * 2 + 1)


@pytest.mark.parametrize(
    ("dtype", "numpy"),
    [
        (DataType.HALF, np.float16),
        (DataType.BF16, ml_dtypes.bfloat16),
        (DataType.FP8, ml_dtypes.float8_e4m3fn),
        (DataType.INT8, np.int8),
        (DataType.INT64, np.int64),
        (DataType.UINT8, np.uint8),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_types(tmp_path: Path, dtype: DataType, numpy: Any) -> None:
    runner, _, _ = opened(tmp_path, network(dtype))
    assert runner.inputs[0].dtype == np.dtype(numpy).name
    x = batch(1).astype(numpy)
    y = runner({"x": x})["y"]
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.astype(np.float32), [[1, 3]])


def test_masks_and_numbers(tmp_path: Path) -> None:
    """An output of another type and no axes, and one without elements."""
    tensors = (
        Tensor("x", TensorIOMode.INPUT, (-1, 2)),
        Tensor("sum", TensorIOMode.OUTPUT, (), DataType.HALF),
        Tensor("positive", TensorIOMode.OUTPUT, (-1, 2), DataType.BOOL),
    )

    def compute(feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {"sum": np.array(feeds["x"].sum(), np.float16), "positive": feeds["x"] > 0}

    runner, _, _ = opened(tmp_path, Network(tensors, ((0, 2), (1, 2), (2, 2)), compute))
    found = runner({"x": batch(2)})
    assert found["sum"].shape == ()
    assert found["sum"].dtype == np.float16
    assert found["sum"] == 6
    assert found["positive"].tolist() == [[False, True], [True, True]]
    assert runner({"x": np.zeros((0, 2), np.float32)})["positive"].shape == (0, 2)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (network(location=TensorLocation.HOST), "'y' is read by the host, as a shape"),
        (
            network(format=TensorFormat.CHW16),
            r"'y' is laid out as CHW16; build the plan with plain \(LINEAR\)",
        ),
        (network(dtype=DataType.INT4), "'x' is int4, which numpy cannot hold"),
        (network(dtype=DataType.FP4), "'x' is fp4, which numpy cannot hold"),
    ],
    ids=["host", "layout", "int4", "fp4"],
)
def test_tensors_that_cannot_be_fed_are_refused(tmp_path: Path, plan: Path, what: Network, words: str) -> None:
    cuda = FakeCuda()
    trt = FakeTensorRT(cuda, what)
    with pytest.raises(UsageError, match=words):
        TensorRTRunner._open(plan, trt, cuda)
    assert nothing_is_left(cuda, trt)


def test_a_shape_that_depends_on_the_data_is_refused(tmp_path: Path) -> None:
    runner, cuda, trt = opened(tmp_path, replace(Network(), output_shape=lambda shape: (-1, shape[1])))
    with pytest.raises(HiresvitError, match="the shape of 'y' depends on the data"):
        runner({"x": batch(1)})
    runner.close()
    assert nothing_is_left(cuda, trt)


class TestGraph:
    def test_the_first_call_runs_and_later_ones_replay(self, tmp_path: Path) -> None:
        runner, cuda, trt = opened(tmp_path, cuda_graph=True)
        for step in range(4):
            x = batch(2, start=step)
            np.testing.assert_array_equal(runner({"x": x})["y"], 2 * x + 1)
            assert runner.last_times().compute_ms == RUN_MS
        # once to run, once to be recorded
        assert trt.contexts[0]["executions"] == 2
        assert (cuda.calls["capture_begin"], cuda.calls["graph_launch"]) == (1, 3)

    def test_another_shape_is_recorded_anew(self, tmp_path: Path) -> None:
        runner, cuda, _ = opened(tmp_path, cuda_graph=True)
        for size in (1, 1, 4, 4, 1, 1):
            np.testing.assert_array_equal(runner({"x": batch(size)})["y"], batch(size) * 2 + 1)
        assert (cuda.calls["capture_begin"], cuda.calls["graph_destroy"], cuda.held()["graphs"]) == (3, 2, 1)

    @pytest.mark.parametrize("call", ["capture_begin", "capture_end"])
    def test_cuda_refuses(self, tmp_path: Path, call: str) -> None:
        runner, cuda, trt = opened(tmp_path, cuda_graph=True)
        cuda.failing.add(call)
        for _ in range(2):  # never in silence without one
            with pytest.raises(HiresvitError, match=f"{call} failed; open the plan without a CUDA graph"):
                runner({"x": batch(1)})
        cuda.failing.clear()
        np.testing.assert_array_equal(runner({"x": batch(1)})["y"], batch(1) * 2 + 1)
        runner.close()
        assert nothing_is_left(cuda, trt)

    def test_tensorrt_refuses(self, tmp_path: Path) -> None:
        runner, cuda, trt = opened(tmp_path, cuda_graph=True)
        trt.refuse.add("capture")
        with pytest.raises(HiresvitError, match=r"while recording\); open the plan without a CUDA graph"):
            runner({"x": batch(1)})
        trt.refuse.clear()
        np.testing.assert_array_equal(runner({"x": batch(1)})["y"], batch(1) * 2 + 1)
        runner.close()
        assert nothing_is_left(cuda, trt)

    def test_rtx_does_it_by_itself(self, tmp_path: Path) -> None:
        runner, cuda, trt = opened(tmp_path, rtx=True, cuda_graph=True)
        for _ in range(2):
            np.testing.assert_array_equal(runner({"x": batch(2)})["y"], batch(2) * 2 + 1)
        assert trt.contexts[0]["strategy"] is FakeRTX.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        assert not cuda.calls["capture_begin"]
        assert opened(tmp_path, rtx=True)[2].contexts[0]["strategy"] is None

    def test_a_binding_that_cannot(self, plan: Path) -> None:
        cuda = FakeCuda()
        cuda.binding = "pycuda"
        trt = FakeTensorRT(cuda)
        with pytest.raises(MissingDependency, match="pycuda"):
            TensorRTRunner._open(plan, trt, cuda, cuda_graph=True)
        assert nothing_is_left(cuda, trt)
        TensorRTRunner._open(plan, FakeRTX(cuda), cuda, cuda_graph=True).close()


def test_a_jetson_copies_nothing(tmp_path: Path) -> None:
    runner, cuda, _ = opened(tmp_path, device=ORIN)
    runner({"x": batch(4)})
    assert cuda.held() == {"mapped": 2, "streams": 1, "events": 4}
    assert not any(cuda.calls[name] for name in ("malloc", "copy_to_device", "copy_to_host"))
    times = runner.last_times()
    assert times == GpuTimes(0.0, RUN_MS, 0.0)
    assert times.enqueue_ms is not None, "the host's clock is always there"


def test_times_are_the_last_calls(tmp_path: Path) -> None:
    runner, _, trt = opened(tmp_path)
    with pytest.raises(UsageError, match="nothing was run yet"):
        runner.last_times()
    runner({"x": batch(1)})
    assert runner.last_times() == GpuTimes(COPY_MS, RUN_MS, COPY_MS)
    trt.refuse.add("execute_async_v3")
    with pytest.raises(HiresvitError):
        runner({"x": batch(1)})
    with pytest.raises(UsageError, match="nothing was run yet"):  # not the call before
        runner.last_times()


class TestTogether:
    def test_threads_take_turns(self, tmp_path: Path) -> None:
        def compute(feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            time.sleep(1e-3)  # lets the others in, if they can get in
            return {"y": feeds["x"] * 2 + 1}

        runner, cuda, trt = opened(tmp_path, replace(Network(), compute=compute), cuda_graph=True)
        together = threading.Barrier(4)

        def work(number: int) -> bool:
            together.wait()
            results = []
            for step in range(20):
                x = batch(1 + (number + step) % 4, start=100.0 * number + step)
                results.append(np.array_equal(runner({"x": x})["y"], 2 * x + 1))
            return all(results)

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))
        runner.close()
        assert nothing_is_left(cuda, trt)

    def test_two_runners_do_not_meet(self, plan: Path) -> None:
        cuda = FakeCuda()
        trt = FakeTensorRT(cuda)  # which insists on one log
        first, second = (TensorRTRunner._open(plan, trt, cuda, cuda_graph=True) for _ in range(2))
        for step in range(3):
            for number, runner in enumerate((first, second)):
                x = batch(1 + number, start=10 * step)
                np.testing.assert_array_equal(runner({"x": x})["y"], 2 * x + 1)
        first.close()
        np.testing.assert_array_equal(second({"x": batch(3)})["y"], batch(3) * 2 + 1)
        second.close()
        assert nothing_is_left(cuda, trt)


def test_what_tensorrt_warns_of_is_kept(tmp_path: Path) -> None:
    cuda = FakeCuda()
    plan = opened(tmp_path)[0]._path
    trt = FakeTensorRT(cuda, warning="Using an engine plan file across different\n  models of devices")
    runner = TensorRTRunner._open(plan, trt, cuda)
    assert runner.warnings == ("Using an engine plan file across different models of devices",)
    assert opened(tmp_path)[0].warnings == ()


@pytest.mark.parametrize("wanted", [False, True])
def test_host_code_is_allowed_where_it_is_needed(tmp_path: Path, wanted: bool) -> None:
    runner, _, _ = opened(tmp_path, host_code=wanted)
    assert runner._held["runtime"].engine_host_code_allowed is wanted


def test_the_fake_has_no_name_of_its_own() -> None:
    """So that the runner uses no other: what a class of it lacks would be an AttributeError in these tests."""
    listed = tensorrt_api.RUN_CALLS | tensorrt_api.RUN_OPTIONAL
    cuda = FakeCuda()
    engine = ICudaEngine(FakeRTX(cuda), Runtime(FakeRTX(cuda)))
    context = IExecutionContext(FakeRTX(cuda), engine, None)
    fakes = {type(x).__name__: x for x in (Runtime(FakeRTX(cuda)), engine, context, IRuntimeConfig())}
    had = {f"{kind}.{name}" for kind, fake in fakes.items() for name in dir(fake) if not name.startswith("_")}
    assert had - {"IExecutionContext.record"} == {
        name for name in listed if "." in name and name.split(".")[0] in fakes
    }


@pytest.mark.skipif(not tensorrt_api.installed("tensorrt_rtx"), reason=tensorrt_api.INSTALL_HINT)
def test_the_real_one_has_every_name() -> None:
    trt = tensorrt_api.load("tensorrt_rtx")
    missing = set()
    for dotted in tensorrt_api.RUN_CALLS | tensorrt_api.RUN_OPTIONAL:
        found = trt
        for part in dotted.split("."):
            found = getattr(found, part, None)
        if found is None:
            missing.add(dotted)
    assert not missing
