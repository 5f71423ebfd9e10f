from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import environment
from graphs import build, content, indexed
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hiresvit.calibration.collect import activation_ranges
from hiresvit.calibration.qdq import quantize
from hiresvit.calibration.sites import find_sites
from hiresvit.errors import HiresvitError, IllegalGraphError, MissingDependency, UsageError
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.export.fp16 import to_fp16
from hiresvit.graph.file import load_graph
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.runner import About, Runner
from hiresvit.spec import TensorSpec


def save(path: Path, *nodes: onnx.NodeProto, batch: Any = "batch", kind: int = TensorProto.FLOAT) -> Path:
    """A graph (batch, 2) -> (batch, 2), y being what the nodes make of x."""
    values = [helper.make_tensor_value_info(name, kind, [batch, 2]) for name in ("x", "y")]
    graph = helper.make_graph(list(nodes), "tiny", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def double(tmp_path: Path) -> Path:
    return save(tmp_path / "double.onnx", helper.make_node("Add", ["x", "x"], ["y"]))


def test_a_graph_runs_and_says_what_it_takes(double: Path) -> None:
    with open_runner(double, threads=1) as runner:
        assert runner.inputs == (TensorSpec("x", "float32", ("batch", 2)),)
        assert runner.outputs == (TensorSpec("y", "float32", ("batch", 2)),)
        y = runner({"x": np.array([[1, 2], [3, 4]], np.float32)})
        assert list(y) == ["y"]
        np.testing.assert_array_equal(y["y"], [[2, 4], [6, 8]])


def test_strided_and_read_only_feeds_run_too(double: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::-2]
    x.flags.writeable = False
    with open_runner(double) as runner:
        np.testing.assert_array_equal(runner({"x": x})["y"], 2 * x)


def test_an_unnamed_axis_gets_a_name_and_fp16_its_dtype(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    runner = OnnxRuntimeRunner(save(tmp_path / "a.onnx", node, batch=None, kind=TensorProto.FLOAT16))
    assert runner.inputs == (TensorSpec("x", "float16", ("x_0", 2)),)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "feeds are"),
        ({"z": np.zeros((1, 2), np.float32)}, r"feeds are \['z'\]; the network's inputs are \['x'\]"),
        ({"x": np.zeros((1, 2))}, r"float64 \(1, 2\); the network takes float32 \(batch, 2\)"),
        ({"x": np.zeros((1, 3), np.float32)}, r"float32 \(1, 3\)"),
        ({"x": np.zeros(2, np.float32)}, r"float32 \(2,\)"),
        ({"x": np.zeros((1, 2), ">f4")}, "the network takes float32"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(double: Path, feeds: dict[str, NDArray[Any]], words: str) -> None:
    with open_runner(double) as runner, pytest.raises(UsageError, match=words):
        runner(feeds)


def test_a_closed_runner_says_so(double: Path) -> None:
    runner: Runner = open_runner(double)
    runner.close()
    runner.close()
    with pytest.raises(UsageError, match="closed"):
        runner({"x": np.zeros((1, 2), np.float32)})


def test_damaged_files_are_no_graphs(double: Path, tmp_path: Path) -> None:
    whole = double.read_bytes()
    for name, data in (("half", whole[:-20]), ("empty", b""), ("text", b"no graph")):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(HiresvitError) as caught:
            open_runner(path)
        with pytest.raises(HiresvitError) as of_the_reader:
            load_graph(path)
        assert str(caught.value) == str(of_the_reader.value)
        assert caught.value.exit_code == 1


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", helper.make_node("Teleport", ["x"], ["y"]))
    with pytest.raises(IllegalGraphError, match="Teleport"):
        open_runner(path)


def test_a_failure_at_run_time_is_one_quiet_line(tmp_path: Path) -> None:
    shape = helper.make_node("Constant", [], ["s"], value=helper.make_tensor("s", TensorProto.INT64, [2], [7, 2]))
    path = save(tmp_path / "a.onnx", shape, helper.make_node("Reshape", ["x", "s"], ["y"]))
    script = (
        "import sys, numpy as np; from pathlib import Path; from hiresvit.errors import HiresvitError\n"
        "from hiresvit.runtime.open import open_runner\n"
        "try: open_runner(Path(sys.argv[1]))({'x': np.zeros((1, 2), np.float32)})\n"
        "except HiresvitError as error: print(error)\n"
        "print('torch' in sys.modules)"
    )
    # In a process of its own, because ONNX Runtime logs from C++ straight to the file descriptor.
    result = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    message, torch_loaded = result.stdout.splitlines()
    assert message.startswith(f"{path}: ONNX Runtime failed on this input")
    assert result.stderr == ""
    assert torch_loaded == "False"


def test_what_cannot_be_opened(double: Path, tmp_path: Path) -> None:
    with pytest.raises(HiresvitError, match="no such file"):
        open_runner(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match=r"'\.pth'"):
        open_runner(tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="threads 0"):
        open_runner(double, threads=0)
    for suffix in ("plan", "ENGINE"):  # what a plan that is there is worth: test_preflight.py
        with pytest.raises(HiresvitError, match=f"cannot read .*{suffix}"):
            open_runner(tmp_path / f"a.{suffix}")


def test_tensors_that_numpy_has_no_type_for_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", helper.make_node("Identity", ["x"], ["y"]), kind=TensorProto.STRING)
    with pytest.raises(UsageError, match=r"tensor\(string\)"):
        open_runner(path)


def test_qdq_is_computed_as_written(tmp_path: Path) -> None:
    """Four INT8 convolutions in a row with FP16 biases, which ONNX Runtime 1.31 exchanges if it may rewrite them."""
    generator = np.random.default_rng(0)
    constants = {f"w{i}": generator.normal(0, 1e-2, (32, 32, 1, 1)).astype(np.float32) for i in range(4)}
    constants |= {f"b{i}": generator.normal(0, 1, 32).astype(np.float32) for i in range(4)}
    simple = build(
        """g (float[1,32,8,8] x) => (float[1,32,8,8] y) {
  t0 = Conv<kernel_shape=[1,1]>(x, w0, b0)
  t1 = Conv<kernel_shape=[1,1]>(t0, w1, b1)
  t2 = Conv<kernel_shape=[1,1]>(t1, w2, b2)
  y = Conv<kernel_shape=[1,1]>(t2, w3, b3)
}""",
        constants,
    )
    for index, node in enumerate(simple.graph.node):
        node.name = f"layer{index}/Conv"
    feed = {"x": generator.normal(0, 1, (1, 32, 8, 8)).astype(np.float32)}
    amax = {name: found.amax for name, found in activation_ranges(simple, [feed]).items()}
    quantized, report = quantize(to_fp16(simple)[0], find_sites(indexed(simple)), amax)
    assert report.sites_int8 >= 2
    answers = []
    for name, graph in (("fp32", simple), ("int8", quantized)):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content(graph))
        with OnnxRuntimeRunner(path, threads=1) as runner:
            answers.append(runner(feed)["y"])
    # The biases are a hundred times the weights, so that INT8 leaves 72 dB; with the other biases it is 41.
    assert compare_arrays(answers[0], answers[1]).sqnr_db > 60


class TestProviders:
    """Of the wheel from PyPI only Azure's is there beside the CPU's, and it computes nothing here."""

    def test_one_that_takes_nothing_is_refused_and_not_the_cpu(self, double: Path) -> None:
        with pytest.raises(UsageError, match="AzureExecutionProvider takes none of its 1 nodes") as caught:
            open_runner(double, runner="onnxruntime:azure")
        assert "leave it out" in str(caught.value)

    @pytest.mark.parametrize("text", ["cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"])
    def test_the_cpu_by_its_names(self, double: Path, text: str) -> None:
        with open_runner(double, runner=f"onnxruntime:{text}", threads=1) as runner:
            assert runner.about == About("ONNX Runtime", onnxruntime.__version__, "CPU", 1)
            assert runner.warnings == ()

    @pytest.mark.parametrize("text", ["cuda", "quantum", ""])
    def test_one_that_is_not_there(self, double: Path, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            open_runner(double, runner=f"onnxruntime:{text}")
        said = str(caught.value)
        assert f"no execution provider {text!r} here, only AzureExecutionProvider, CPUExecutionProvider" in said
        assert "onnxruntime-gpu (CUDA, TensorRT)" in said

    def test_one_that_is_listed_and_does_not_start(
        self, double: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """As CUDA's without its libraries: ONNX Runtime writes why on stderr and goes on on the CPU."""
        here = onnxruntime.get_available_providers()
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", *here])
        make = onnxruntime.InferenceSession

        def session(*args: Any, **options: Any) -> Any:
            os.write(2, b"[E:onnxruntime] libcublasLt.so.12: cannot open shared object file\nFailed to create\n")
            return make(*args, **{**options, "providers": ["CPUExecutionProvider"]})

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        with pytest.raises(MissingDependency, match=r"CUDAExecutionProvider does not start here \(.*libcublasLt"):
            open_runner(double, runner="onnxruntime:CUDA")
        assert capfd.readouterr().err == ""

    def test_a_damaged_file_is_not_the_providers_fault(self, tmp_path: Path) -> None:
        (tmp_path / "a.onnx").write_bytes(b"no graph")
        with pytest.raises(HiresvitError, match="is not an ONNX graph"):
            open_runner(tmp_path / "a.onnx", runner="onnxruntime:azure")

    @pytest.mark.parametrize(
        ("old", "said"),
        [
            (False, "took only 2 of 3 nodes; the CPU computes the rest (Relu)"),
            (True, "took only a part of the graph or none; the CPU computes the rest"),
        ],
    )
    def test_a_part_of_the_graph_is_said(
        self, double: Path, monkeypatch: pytest.MonkeyPatch, old: bool, said: str
    ) -> None:
        """A provider that takes two of three nodes, in an ONNX Runtime that counts them and in one that cannot."""
        node = SimpleNamespace
        parts = [
            node(
                ep_name="AzureExecutionProvider",
                get_nodes=lambda: [node(op_type="Conv"), node(op_type="Add")],
            ),
            node(ep_name="CPUExecutionProvider", get_nodes=lambda: [node(op_type="Relu")]),
        ]
        if old:
            monkeypatch.delattr(onnxruntime.InferenceSession.__mro__[1], "get_provider_graph_assignment_info")
        else:
            monkeypatch.setattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info", lambda self: parts)
        with open_runner(double, runner="onnxruntime:Azure", threads=1) as runner:
            assert runner.warnings == (f"AzureExecutionProvider {said}",)
            assert runner.about.device == "AzureExecutionProvider"
            assert runner({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[2, 2]]


@pytest.mark.parametrize("chosen", [None, "0"])
def test_nothing_is_written_but_what_the_user_asks_for(tmp_path: Path, chosen: str | None) -> None:
    """ONNX Runtime 1.32 would keep a device id and a record of its sessions in HOME and TMPDIR, by its import alone."""
    code = "import os, hiresvit.runtime.onnxruntime_runner as r\nfrom hiresvit.process import run_child\n"
    code += "from hiresvit.workflows.doctor import ONE_NODE\nr.open_session(ONE_NODE)\n"
    code += "run_child(['-c', 'import os, onnxruntime; print(os.environ[\"ORT_DISABLE_TELEMETRY\"])'], on_line=print)"
    env = environment(tmp_path) | ({"ORT_DISABLE_TELEMETRY": chosen} if chosen else {})
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == f"{chosen or 1}\n"
    if not chosen:
        assert list(tmp_path.iterdir()) == []
