"""What `bench` measures, on graphs and runners that are small."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import build
from numpy.typing import NDArray
from PIL import Image

from hiresvit.device.power.meter import Meter, polled
from hiresvit.errors import HiresvitError, MissingDependency, UsageError
from hiresvit.evaluation import energy
from hiresvit.evaluation.latency import Limits
from hiresvit.runtime.runner import About, GpuTimes, Runner
from hiresvit.spec import TensorSpec
from hiresvit.workflows import bench as module
from hiresvit.workflows import bench_power, bench_watch
from hiresvit.workflows.answer import Segmentation
from hiresvit.workflows.bench import Benched, BenchSettings, measure_sources
from hiresvit.workflows.bench_frame import frame_side
from hiresvit.workflows.open import Source, Unopened, distinct, open_source
from hiresvit.workflows.predictor import Predictor

QUICK = {"min_s": 0.0, "threads": 1}


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to warm up, and nothing between calls."""
    monkeypatch.setattr(module, "SETTLE_S", 0.0)
    monkeypatch.setattr(module, "Limits", partial(Limits, warmup_s=0.0))


def bench(*sources: Source | Unopened, **settings: Any) -> Benched:
    found = measure_sources(sources, BenchSettings(**{**QUICK, **settings}))
    json.dumps(found.report, allow_nan=False)
    return found


class Fake(Runner):
    """Something that takes its time, says what a GPU would, and may fail at a call."""

    def __init__(self, seconds: float = 0.0, *, fail_at: int = -1, error: BaseException | None = None) -> None:
        self.inputs = (TensorSpec("x", "float32", (1, 3, 4, 4)),)
        self.outputs = self.inputs
        self.about = About("fake", "1", "CPU")
        self.seconds, self.fail_at, self.error = seconds, fail_at, error
        self.calls = 0
        self.times: GpuTimes | None = None

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.calls += 1
        if self.calls > self.fail_at >= 0 and self.error:
            raise self.error
        time.sleep(self.seconds)
        return dict(feeds)

    def last_times(self) -> GpuTimes | None:
        return self.times

    def close(self) -> None:
        return None


def source(runner: Runner, label: str = "a", **fields: Any) -> Source:
    return Source(runner, None, label, origin={"file": f"{label}.onnx"}, **fields)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def slowed(opened: Source, seconds: float) -> Source:
    """The source behind a network that takes longer."""
    runner = opened.runner

    class Slow(Runner):
        inputs, outputs, about = runner.inputs, runner.outputs, runner.about

        def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            time.sleep(seconds)
            return runner(feeds)

        def close(self) -> None:
            return None

    return replace(opened, runner=Slow())


def test_a_call_has_the_parts_that_a_gpu_says(tmp_path: Path) -> None:
    fake = Fake()
    fake.times = GpuTimes(0.5, 2.0, 0.25, 0.125)
    side = bench(source(fake)).report["sides"]["a"]
    assert side["parts"] == {
        "enqueue_ms": 0.125,
        "h2d_ms": 0.5,
        "compute_ms": 2.0,
        "d2h_ms": 0.25,
        "latency_ms": 2.75,
    }
    assert (side["origin"], side["failure"], side["stream"]) == ({"file": "a.onnx"}, None, None)
    fake.times = None
    assert bench(source(fake)).report["sides"]["a"]["parts"] is None, "not measured is not 0"


def test_a_frame_is_what_a_predictor_does_with_a_file(tiny_bundle: Path, picture: Path) -> None:
    opened = open_source(str(tiny_bundle), threads=1)
    with opened.runner:
        found = bench(opened, mode="frame", image=picture).report
        [side] = found["sides"].values()
        assert list(side["parts"]) == ["decode_ms", "prepare_ms", "network_ms", "answer_ms"]
        assert (found["mode"], found["picture"]) == (
            "frame",
            {"file": "photo.png", "size": [48, 64], "format": "png", "bytes": picture.stat().st_size},
        )
        one = frame_side(opened, picture, 1)
        assert one.parts is not None
        began = time.perf_counter()
        answer = one.run()
        whole = 1e3 * (time.perf_counter() - began)
        parts = [value or 0.0 for value in (one.parts() or {}).values()]
        assert all(parts)
        assert sum(parts) <= whole, "they follow one another, and are the whole but for what the clock takes"
        expected = Predictor.of_source(opened)(picture)
        assert isinstance(expected, Segmentation)
        np.testing.assert_array_equal(answer.labels, expected.labels)  # type: ignore[attr-defined]


def test_a_drawn_picture_is_of_the_cameras_size(
    tiny_bundle: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hiresvit.workflows import bench_frame

    monkeypatch.setattr(bench_frame, "DRAWN_SIZE", (32, 48))
    opened = open_source(str(tiny_bundle), threads=1)
    with opened.runner:
        found = bench(opened, mode="frame").report
    assert found["picture"] == {"file": None, "size": [32, 48], "format": "jpg", "bytes": found["picture"]["bytes"]}


@pytest.mark.parametrize("mode", ["frame", "stream"])
def test_what_says_nothing_of_its_answers_answers_no_frame(picture: Path, mode: Any) -> None:
    with pytest.raises(UsageError, match="a does not say what its answers mean, so a frame of it has none"):
        bench(source(Fake()), mode=mode, image=picture)


def test_a_stream_that_keeps_up_and_one_that_does_not(tiny_bundle: Path, picture: Path) -> None:
    opened = open_source(str(tiny_bundle), threads=1)
    with opened.runner:
        slow = replace(slowed(opened, 0.06), label="slow")
        found = bench(slow, mode="stream", image=picture, fps=50.0, min_s=0.4).report
    [side] = found["sides"].values()
    stream = side["stream"]
    assert stream["sent"] == 20
    # 60 ms a frame at one every 20: 7, one under way, and two that wait behind the last
    assert 2 <= stream["answered"] == side["calls"] <= 10
    assert stream["missed"] == stream["sent"] - stream["answered"]
    assert side["warnings"][0].startswith("missed frames:")
    assert side["median_ms"] > 60, "from when a frame was due, not from when it was taken"
    assert list(side["parts"]) == ["prepare_ms", "network_ms", "answer_ms"]
    assert (found["ratios"], found["stopped"]) == ({}, "0.4 s for each stream, one after the other")


def test_a_stream_that_fails_or_is_interrupted(tiny_bundle: Path, picture: Path) -> None:
    opened = open_source(str(tiny_bundle), threads=1)
    broken = replace(opened, runner=Fake(fail_at=0, error=HiresvitError("broken")), label="broken")
    broken.runner.inputs, broken.runner.outputs = opened.runner.inputs, opened.runner.outputs
    stopped = replace(broken, runner=Fake(fail_at=0, error=KeyboardInterrupt()), label="stopped")
    stopped.runner.inputs, stopped.runner.outputs = opened.runner.inputs, opened.runner.outputs
    with opened.runner:
        found = bench(broken, opened, stopped, opened, mode="stream", image=picture, fps=100.0, min_s=0.05)
    sides = found.report["sides"]
    assert sides["broken"]["failure"] == {"message": "broken", "exit_code": 1}
    assert list(sides.values())[1]["calls"] > 0, "the others go on"
    assert [list(sides.values())[place]["calls"] for place in (0, 2, 3)] == [0, 0, 0]
    assert isinstance(found.interrupt, KeyboardInterrupt)
    assert found.report["complete"] is False


class TestBatches:
    def graph(self, folder: Path, first: str) -> Source:
        onnx.save(build(f"g (float[{first},2] x) => (float[{first},2] y) {{ y = Relu(x) }}"), folder / "a.onnx")
        return open_source(str(folder / "a.onnx"), threads=1)

    def test_a_static_graph_takes_its_own_only(self, tmp_path: Path) -> None:
        opened = self.graph(tmp_path, "1")
        with opened.runner, pytest.raises(UsageError, match=r"--batch 4: 'x' of .* is \[1, 2\], made for a batch of 1"):
            bench(opened, mode="offline", batch=4)

    def test_a_dynamic_graph_takes_any(self, tmp_path: Path) -> None:
        onnx.save(build("g (float[N,3,2,2] x) => (float[N,3,2,2] y) { y = Relu(x) }"), tmp_path / "a.onnx")
        opened = open_source(str(tmp_path / "a.onnx"), threads=1)
        with opened.runner:
            side = bench(opened, mode="offline", batch=4).report["sides"]["a.onnx"]
        assert side["warnings"][0] == "called with x 4x3x2x2"
        assert side["throughput"] == pytest.approx(4 * side["calls"] / (sum(side["samples_ns"]) / 1e9))

    def test_pytorch_takes_any(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from tiny import build_tiny

        from hiresvit.models.zoo import MODELS

        monkeypatch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=build_tiny))
        opened = open_source("hrvit_b1", imgsz=(64, 64), num_classes=5, threads=1)
        with opened.runner:
            [side] = bench(opened, mode="offline", batch=2).report["sides"].values()
        assert side["throughput"] == pytest.approx(2 * side["calls"] / (sum(side["samples_ns"]) / 1e9))


def test_compiling_is_no_part_of_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, other = Fake(), Fake()
    compiled.about = replace(compiled.about, backend="torch.compile")
    side = bench(source(compiled, "compiled")).report["sides"]["compiled"]
    assert side["warnings"][0] == "torch.compile took 0 s, which no time here has"
    assert compiled.calls == side["calls"] + 2, "one that compiles, one to warm up"
    missing = MissingDependency("no C++ compiler")
    compiled.calls, compiled.fail_at, compiled.error = 0, 0, missing
    found = bench(source(compiled, "compiled"), source(other, "other"))
    assert found.failures == {"compiled": missing}
    assert found.report["sides"]["compiled"]["failure"] == {"message": "no C++ compiler", "exit_code": 6}
    assert found.report["sides"]["other"]["calls"] > 0
    with pytest.raises(MissingDependency, match=r"no C\+\+"):
        bench(source(compiled, "compiled"))


def test_a_side_that_did_not_open_takes_no_name_away() -> None:
    """A file of another folder can have the name that one that does not open was typed by."""
    found = bench(source(Fake(), "b"), Unopened("a.onnx", MissingDependency("no\nGPU")), source(Fake(), "a.onnx"))
    sides = found.report["sides"]
    assert list(sides) == ["b", "a.onnx", "a.onnx (3)"], "as they were typed"
    assert [side["calls"] > 0 for side in sides.values()] == [True, False, True]
    assert sides["a.onnx"]["failure"] == {"message": "no GPU", "exit_code": 6}
    assert (sides["a.onnx"]["origin"], sides["a.onnx"]["stream"], sides["a.onnx"]["median_ms"]) == (None, None, None)
    assert list(found.report["ratios"]) == ["a.onnx (3)/b"]
    assert distinct(["x (3)", "x", "x"]) == ["x (3)", "x", "x (4)"]


def test_power_is_measured_beside_an_idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 W idle and 7 W from a side's first call on."""
    fake = Fake(0.001)
    meter = Meter("ina3221", "the board", "W", ("VDD_IN",), polled(lambda: {"VDD_IN": 7.0 if fake.calls > 11 else 5.0}))
    monkeypatch.setattr(bench_power, "look_for_meters", lambda: {"ina3221": meter})
    monkeypatch.setattr(energy, "LEAST_S", 0.5)
    found = bench(source(fake), power=True).report["power"]["a"]
    assert (found["source"], found["idle_watts"]) == ("ina3221", pytest.approx(5))
    assert 5 < found["watts"] <= 7
    frames = fake.calls - 11
    joules = (found["watts"] - 5) * found["window_s"] / frames
    assert found["joules_per_frame"] == pytest.approx(joules)


def test_a_machine_without_a_meter_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_power, "look_for_meters", lambda: {"rapl": "it is for root only"})
    found = bench(source(Fake()), power=True)
    assert found.report["power"] is None
    assert found.notes == ["--power: none of rapl measures here; `hiresvit doctor` says why"]
    assert bench(source(Fake())).notes == [], "nobody asked"


def test_power_of_a_side_that_fails_then(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter("rapl", "the CPU", "W", ("package-0",), polled(lambda: {"package-0": 5.0}))
    monkeypatch.setattr(bench_power, "look_for_meters", lambda: {"rapl": meter})
    monkeypatch.setattr(energy, "LEAST_S", 0.05)
    found = bench(source(Fake(0.001, fail_at=20, error=HiresvitError("late"))), source(Fake(0.001), "b"), power=True)
    assert list(found.report["power"]) == ["b"]
    assert found.report["sides"]["a"]["failure"] == {"message": "late", "exit_code": 1}
    assert found.report["sides"]["a"]["calls"] > 0


STATE: dict[str, Any] = {
    "board": None,
    "power_mode": "MAXN",
    "governor": "schedutil",
    "clocks": {"cpu0": {"mhz": 1500.0, "min_mhz": 1500.0, "max_mhz": 1500.0}},
    "throttled": [],
    "throttle_counts": None,
}


@pytest.mark.parametrize(
    ("after", "marks"),
    [
        ({}, []),
        ({"power_mode": "15W"}, ["the power mode changed from MAXN to 15W"]),
        ({"throttled": ["cpu (thermal)"]}, ["throttled: cpu (thermal)", "throttling began: cpu (thermal)"]),
        (
            {"clocks": {"cpu0": {"mhz": 900.0, "min_mhz": 1500.0, "max_mhz": 1500.0}}},
            ["the clock cpu0 is locked and changed from 1500 to 900 MHz"],
        ),
    ],
)
def test_a_machine_that_changes_is_marked(
    monkeypatch: pytest.MonkeyPatch, after: dict[str, Any], marks: list[str]
) -> None:
    states = iter([STATE, STATE | after])
    monkeypatch.setattr(bench_watch, "device_state", lambda: next(states))
    monkeypatch.setattr(bench_watch, "clock_meter", lambda: None)
    monkeypatch.setattr(module, "_unsteady", lambda sides: [])
    found = bench(source(Fake())).report
    assert found["marks"] == marks
    assert found["environment"]["power_mode"] == "MAXN"
    assert found["environment"]["after"] == STATE | after


def test_clocks_that_move_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([2000.0, *[1000.0] * 1000])
    meter = Meter("clocks", "the clocks", "MHz", ("cpu0",), polled(lambda: {"cpu0": next(speeds)}))
    monkeypatch.setattr(bench_watch, "clock_meter", lambda: meter)
    found = bench(source(Fake())).report
    words = "the clock cpu0 moved between 1000 and 2000 MHz"
    assert found["environment"]["clocks_moved"] == [words]
    assert f"clocks that are free to move did: {words}; lock them" in found["marks"]


def test_a_side_that_wavers_is_marked() -> None:
    class Wavering(Fake):
        def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            self.seconds = 0.02 * (self.calls % 2)
            return super().__call__(feeds)

    [mark, *_] = bench(source(Wavering(), "b")).report["marks"]
    assert mark.startswith("b: unstable: coefficient of variation")


def test_the_environment_names_the_host() -> None:
    found = bench(source(Fake())).report["environment"]
    assert {"host", "cpu", "cpus", "affinity", "governor", "load", "steal_percent", "board", "after"} <= found.keys()


def test_pictures_that_can_be_read_once_only(tmp_path: Path, tiny_bundle: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    opened = open_source(str(tiny_bundle), threads=1)
    with opened.runner:
        with pytest.raises(UsageError, match="give a file, it is read again"):
            bench(opened, mode="frame", image=tmp_path / "pipe")
        with pytest.raises(HiresvitError, match="no such file"):
            bench(opened, mode="frame", image=tmp_path / "nothing.png")
