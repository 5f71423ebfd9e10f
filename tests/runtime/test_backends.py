"""What holds for every row of the table of backends, and how one is chosen."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_cuda import ORIN, FakeCuda
from fake_engine import FakeTensorRT, network
from graphs import build
from numpy.typing import NDArray
from plan_files import describe
from plan_files import save as save_plan

from hiresvit.device.plan import Sidecar, write_sidecar
from hiresvit.errors import ArtefactError, HiresvitError, MissingDependency, UsageError, install_line
from hiresvit.runtime import preflight, tensorrt_runner
from hiresvit.runtime.open import BACKENDS, Backend, find_backend, open_runner
from hiresvit.runtime.runner import Runner
from hiresvit.spec import TensorSpec

X = np.array([[1, -2]], np.float32)
GRAPH = "g (float[1,2] x) => (float[1,2] y) { d = Add(x, x) y = Add(d, one) }"

OPTIONAL = {"openvino": "openvino", "qnn": "onnxruntime_qnn"}


@pytest.fixture(params=BACKENDS, ids=lambda row: row.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    if found.name in OPTIONAL:
        pytest.importorskip(OPTIONAL[found.name])
    return found


@pytest.fixture
def file(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of 2 x + 1 that says who made it; a plan is the stand-in's (fake_engine.py)."""
    path = tmp_path / f"a{backend.suffixes[0]}"
    if backend.name == "tensorrt":
        save_plan(path)
        write_sidecar(path, Sidecar("a.onnx", "0" * 64, describe(path, "tensorrt", "10.3.0.30"), (), {"who": "me"}))
        cuda = FakeCuda(ORIN)
        trt = FakeTensorRT(cuda, replace(network(shape=(1, 2)), plan=path.read_bytes()))
        monkeypatch.setattr(tensorrt_runner, "open_cuda", lambda: cuda)
        monkeypatch.setattr(tensorrt_runner, "load", lambda name: trt)
        monkeypatch.setattr(tensorrt_runner, "find_backend", lambda name: name)
        monkeypatch.setattr(preflight, "installed_version", lambda name: "10.3.0")
        return path
    model = build(GRAPH, {"one": np.ones(1, np.float32)})
    model.metadata_props.add(key="who", value="me")
    onnx.save(model, path)
    return path


def values(backend: Backend, answer: NDArray[Any]) -> Any:
    """An answer's numbers; an HTP computes with 11 bits of mantissa, which holds these to a thousandth."""
    return np.round(answer, 3).tolist() if backend.name == "qnn" else answer.tolist()


def test_the_same_graph_gives_the_same_answer(backend: Backend, file: Path) -> None:
    with open_runner(file, runner=backend.name) as runner:
        typed: Runner = runner
        assert typed.inputs == (TensorSpec("x", "float32", (1, 2)),)
        assert typed.outputs == (TensorSpec("y", "float32", (1, 2)),)
        first = runner({"x": X})["y"]
        assert values(backend, runner({"x": 3 * X})["y"]) == [[7, -11]]
        assert values(backend, first) == [[3, -3]], "the results are the caller's own"
        assert dict(runner.metadata) == {"who": "me"}
        assert all("emulated" in line for line in runner.warnings), "of nothing else there is anything to be said"
        assert bool(runner.warnings) == runner.about.emulated == (backend.name == "qnn")
        assert dict(runner.best_shapes) == {"x": (1, 2)}
        assert all((runner.about.backend, runner.about.version, runner.about.device))
        assert (runner.last_times() is None) == (backend.name != "tensorrt"), "only a plan has a clock of its own"


def test_strided_and_read_only_feeds_run_too(backend: Backend, file: Path) -> None:
    x = np.arange(4, dtype=np.float32).reshape(1, 4)[:, ::-2]
    x.flags.writeable = False
    with open_runner(file, runner=backend.name) as runner:
        assert values(backend, runner({"x": x})["y"]) == [[7, 3]]


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({"z": X}, r"feeds are \['z'\]; the network's inputs are \['x'\]"),
        ({"x": X.astype(np.float64)}, r"float64 \(1, 2\); the network takes float32 \(1, 2\)"),
        ({"x": X[:, :1]}, r"float32 \(1, 1\)"),
    ],
    ids=["name", "dtype", "shape"],
)
def test_feeds_that_do_not_fit_are_refused(
    backend: Backend, file: Path, feeds: dict[str, NDArray[Any]], said: str
) -> None:
    with open_runner(file, runner=backend.name) as runner:
        with pytest.raises(UsageError, match=said):
            runner(feeds)
        assert values(backend, runner({"x": X})["y"]) == [[3, -3]], "and the runner is as it was"


def test_a_closed_runner_says_so(backend: Backend, file: Path) -> None:
    runner = open_runner(file, runner=backend.name)
    runner.close()
    runner.close()
    with pytest.raises(UsageError, match="the runner is closed; open it again"):
        runner({"x": X})


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_a_damaged_file(backend: Backend, file: Path, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    whole = file.read_bytes()
    file.write_bytes({"empty": b"", "text": b"no network", "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(HiresvitError) as caught:
        open_runner(file, runner=backend.name)
    # Every reader of a graph says so in the same words, and with the same exit code; a plan has a sidecar that knows.
    assert type(caught.value) is (ArtefactError if backend.name == "tensorrt" else HiresvitError)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "native code has nothing to add"


def test_a_missing_file(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(HiresvitError, match=r"(no such file|cannot read).*") as caught:
        open_runner(tmp_path / f"none{backend.suffixes[0]}", runner=backend.name)
    assert type(caught.value) is HiresvitError


def test_options_go_where_they_apply(backend: Backend, file: Path) -> None:
    options: dict[str, dict[str, int]] = {"threads": {"threads": 1}, "cuda_graph": {"cuda_graph": True}}
    for option, given in options.items():
        if option in backend.options:
            with open_runner(file, runner=backend.name, **given) as runner:  # type: ignore[arg-type]
                assert values(backend, runner({"x": X})["y"]) == [[3, -3]]
                assert option != "threads" or runner.about.threads == 1
        else:
            with pytest.raises(UsageError, match=r"leave (them|the option) out for"):
                open_runner(file, runner=backend.name, **given)  # type: ignore[arg-type]
    if "threads" in backend.options:
        with pytest.raises(UsageError, match="threads 0: give at least 1"):
            open_runner(file, runner=backend.name, threads=0)


def test_the_first_row_of_a_suffix_is_the_default(tmp_path: Path) -> None:
    assert find_backend(Path("a.onnx"))[0].name == "onnxruntime"
    assert find_backend(Path("A.ENGINE"))[0].name == "tensorrt"
    assert find_backend(Path("a.onnx"), "OpenVINO")[0].name == "openvino"
    assert find_backend(Path("a.onnx"), "onnxruntime:cuda")[1] == "cuda"


@pytest.mark.parametrize(
    ("name", "runner", "said"),
    [
        (
            "a.onnx",
            "tflite",
            "runner 'tflite': one of onnxruntime[:PROVIDER], openvino[:bf16], qnn[:CHIP], tensorrt; `hiresvit doctor`",
        ),
        ("a.onnx", "", "runner '': one of onnxruntime"),
        ("a.plan", "openvino", "a.plan: openvino opens .onnx; leave the runner out or give another"),
        ("a.onnx", "tensorrt", "a.onnx: tensorrt opens .plan and .engine; leave"),
        ("a.plan", "tensorrt:GPU", "'GPU' is nothing that this runner can be told; leave it out"),
        ("a.pth", None, "no runtime for the suffix '.pth'"),
    ],
)
def test_what_cannot_be_chosen(name: str, runner: str | None, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_runner(Path(name), runner=runner)
    assert said in str(caught.value)


def test_openvino_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(build(GRAPH, {"one": np.ones(1, np.float32)}), tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependency, match=re.escape(f"not installed: {install_line('openvino')}")):
        open_runner(tmp_path / "a.onnx", runner="openvino")
