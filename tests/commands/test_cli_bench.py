"""The command `bench`: what it refuses, what it keeps of a side that fails and of an interrupted run, and its gates."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from graphs import build, content

from hiresvit.device.state import device_state
from hiresvit.errors import GateError, HiresvitError, MissingDependency
from hiresvit.evaluation.latency import Limits
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.workflows import bench as module
from hiresvit.workflows import bench_watch

TYPED = ("--min-s", "0", "--threads", "1")


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing between calls, and one to warm up."""
    monkeypatch.setattr(module, "SETTLE_S", 0.0)
    monkeypatch.setattr(module, "Limits", partial(Limits, warmup_s=0.0))


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "relu.onnx"
    path.write_bytes(content(build("g (float[1,3,4,4] x) => (float[1,3,4,4] y) { y = Relu(x) }")))
    return path


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("--mode frames", "frames"),
        ("--image a.png", "--image a.png: for --mode frame and stream, this is call"),
        ("--fps 30 --mode frame", "--fps 30.0: for --mode stream, this is frame"),
        ("--fps 0 --mode stream", "--fps 0: give a number from 0.1 to 1000"),
        ("--fps 1e9 --mode stream", "--fps 1e+09: give a number from 0.1 to 1000"),
        ("-o .", "'.' is a directory"),
        ("--batch 2", "--batch 2: for --mode offline, this is call"),
        ("--batch 2 --mode offline", "made for a batch of 1"),
        ("--max-s 1 --min-s 2", "--max-s 1 is below --min-s 2"),
        ("--rel-error nan", "--rel-error nan: give a number of 0 or more"),
        ("--budget-ms p98:3", "--budget-ms p98:3: give MS or NAME:MS with one of p50, median, p90"),
        ("--budget-ms p99:", "--budget-ms p99:: give a number of 0 or more"),
        ("--budget-ms fast", "--budget-ms fast: give a number of 0 or more"),
        ("--compile", "--compile is for a model name; "),
        ("--mode frame", "does not say what its answers mean, so a frame of it has none"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(cli: Cli, graph: Path, typed: str, says: str) -> None:
    result = cli("bench", graph, "--threads", "1", *typed.split())
    assert result.code == 2
    assert says in result.err
    assert (result.err.count("\n"), result.out) == (1, "")


def test_a_side_that_cannot_start_does_not_stop_the_others(
    cli: Cli, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    both = ("--runner", "openvino", "--runner", "onnxruntime")
    result = cli("bench", graph, *both, *TYPED, "-o", tmp_path / "bench.json", "--json")
    assert result.code == MissingDependency.exit_code == 6
    document = json.loads(result.out)
    assert document == json.loads((tmp_path / "bench.json").read_text())
    sides = document["latency"]["sides"]
    assert sides["relu.onnx (onnxruntime)"]["calls"] > 0
    failed = sides[f"{graph} (openvino)"]
    assert failed["failure"]["exit_code"] == 6
    assert (failed["calls"], failed["median_ms"], failed["samples_ns"]) == (0, None, [])
    assert document["error"]["message"].startswith(f"{graph} (openvino): ")
    text = cli("bench", graph, *both, *TYPED)
    assert text.code == 6
    assert f"failed: {graph} (openvino): " in text.out
    alone = cli("bench", graph, "--runner", "openvino", *TYPED)
    assert (alone.code, alone.out) == (6, ""), "with nothing to measure there is nothing to say but why"


class Failing:
    """ONNX Runtime until a call, counted over all its runners."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int) -> None:
        self.calls = 0
        real = OnnxRuntimeRunner.__call__

        def call(runner: OnnxRuntimeRunner, feeds: Any) -> Any:
            self.calls += 1
            if self.calls >= at:
                raise error
            return real(runner, feeds)

        monkeypatch.setattr(OnnxRuntimeRunner, "__call__", call)


def test_ctrl_c_keeps_what_was_measured(cli: Cli, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Failing(monkeypatch, KeyboardInterrupt(), 20)
    result = cli("bench", graph, "--threads", "1", "--min-s", "60", "-o", tmp_path / "bench.json")
    assert result.code == 130
    assert "interrupted" in result.err
    latency = json.loads((tmp_path / "bench.json").read_text())["latency"]
    assert (latency["complete"], latency["stopped"]) == (False, "interrupted")
    side = latency["sides"]["relu.onnx"]
    assert len(side["samples_ns"]) == side["calls"] > 0
    assert "relu.onnx" in result.out, "the table is printed all the same"


def test_what_was_measured_is_shown_where_its_file_cannot_be_written(cli: Cli, graph: Path, tmp_path: Path) -> None:
    result = cli("bench", graph, *TYPED, "-o", graph / "bench.json")
    assert result.code == 1
    assert "relu.onnx" in result.out
    assert "wrote" not in result.out
    assert result.err.splitlines()[-1].startswith(f"error: cannot write {graph / 'bench.json'}")
    result = cli("bench", graph, *TYPED, "-o", tmp_path / "bench.json")
    assert (result.code, result.err.count("error")) == (0, 0)
    written = tmp_path / "bench.json"
    assert result.out.endswith(f"\nwrote {written}\nnext: hiresvit report {written}\n")


def test_a_side_that_fails_in_the_middle(cli: Cli, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Failing(monkeypatch, HiresvitError("the network broke"), 20)
    result = cli("bench", graph, graph, "--runner", "onnxruntime", "--threads", "1", "--min-s", "60", "--json")
    assert result.code == 1
    document = json.loads(result.out)
    assert document["error"]["message"].startswith("relu.onnx (onnxruntime)")
    assert document["error"]["message"].endswith(": the network broke")
    assert document["latency"]["stopped"] == "every side failed"
    assert all(side["failure"]["message"] == "the network broke" for side in document["latency"]["sides"].values())


@pytest.mark.parametrize("bound", ["p99:0.000001", "0.000001"])
def test_a_budget_of_any_statistic(cli: Cli, graph: Path, bound: str) -> None:
    result = cli("bench", graph, *TYPED, "--budget-ms", bound)
    name = bound.partition(":")[0] if ":" in bound else "median"
    assert result.code == GateError.exit_code == 4
    assert f"relu.onnx: the {name} is" in result.err
    assert cli("bench", graph, *TYPED, "--budget-ms", "p99:1e9").code == 0


@pytest.mark.parametrize(("typed", "code"), [((), 0), (("--strict",), 4)])
def test_strict_fails_where_a_run_is_marked(
    cli: Cli, graph: Path, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], code: int
) -> None:
    hot = device_state() | {"throttled": ["cpu (thermal)"]}
    monkeypatch.setattr(bench_watch, "device_state", lambda: hot)
    result = cli("bench", graph, *TYPED, *typed)
    assert result.code == code
    assert "note: throttled: cpu (thermal)" in result.out
    assert ("--strict: throttled: cpu (thermal)" in result.err) == bool(code)


def test_torch_compile_stands_beside_pytorch(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler that side fails, PyTorch's does not."""
    from dataclasses import replace

    from tiny import build_tiny

    from hiresvit.models.zoo import MODELS
    from hiresvit.runtime import torch_runner

    def refuse(*_: Any) -> Any:
        raise MissingDependency("torch.compile does not compile this here")

    monkeypatch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=build_tiny))
    monkeypatch.setattr(torch_runner, "_call_compiled", refuse)
    monkeypatch.setattr("torch.compile", lambda module: module)
    typed = ("--imgsz", "64x64", "--num-classes", "5", "--compile", "--json")
    result = cli("bench", "hrvit_b1", *TYPED, *typed)
    assert result.code == 6
    sides = json.loads(result.out)["latency"]["sides"]
    assert list(sides) == ["hrvit_b1 (PyTorch)", "hrvit_b1 (torch.compile)"]
    assert sides["hrvit_b1 (PyTorch)"]["calls"] > 0
    assert sides["hrvit_b1 (PyTorch)"]["origin"]["backend"] == "PyTorch"
    assert sides["hrvit_b1 (torch.compile)"]["failure"]["exit_code"] == 6
