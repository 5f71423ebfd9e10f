"""Qualcomm's HTP, emulated: nothing of a graph is ever computed by the CPU in its place."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import build, copied, noise, run
from lost_transpose import lost_transpose, with_qdq

from hiresvit.device import qnn_context
from hiresvit.device.chips import CHIPS
from hiresvit.errors import ArtefactError, HiresvitError, IllegalGraphError, MissingDependency, UsageError
from hiresvit.process import Worker
from hiresvit.runtime import qnn_runner
from hiresvit.runtime.open import find_backend, open_runner
from hiresvit.runtime.qnn_messages import Failed, Opened, Opening

pytest.importorskip("onnxruntime_qnn")

FEEDS = {"a": noise(1, 8, 12, 8), "b": noise(1, 8, 12, 8, seed=1)}
RELU = "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { r = Relu(x) y = Mul(r, r) }"
# A child that has lost `enable_fallback=0`: ONNX Runtime's own default.
CARELESS = """
import onnxruntime
opened = onnxruntime.InferenceSession
onnxruntime.InferenceSession = lambda *args, enable_fallback: opened(*args)
from hiresvit.runtime._qnn_child import main
main()
"""


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def named(text: str, **constants: np.ndarray) -> onnx.ModelProto:
    """Nodes are called ``net.OUTPUT/OpType``."""
    model = build(text, constants)
    for node in model.graph.node:
        node.name = f"net.{node.output[0]}/{node.op_type}"
    return model


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context for AR1 of a graph with Q/DQ, as the library writes it; do not change it."""
    folder = tmp_path_factory.mktemp("context")
    path = saved(with_qdq(named(RELU)), folder / "graph.onnx")
    worker = Worker(["-m", "hiresvit.runtime._qnn_child"])
    try:
        soc = CHIPS["ar1"].soc_model
        opened = worker.ask(Opening(str(path), soc, context=str(folder / "ctx.onnx")))
    finally:
        worker.close()
    assert isinstance(opened, Opened), opened
    assert {p.name for p in folder.iterdir()} == {"graph.onnx", "ctx.onnx", "ctx_qnn.bin"}
    return folder / "ctx.onnx"


@pytest.fixture
def own(context: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    for path in context.parent.glob("ctx*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / "ctx.onnx"


def test_a_float_graph_is_computed_in_half_precision(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = saved(lost_transpose(8, 12), tmp_path / "a.onnx")
    with open_runner(path, runner="qnn:sm8650") as runner:
        answer = runner(FEEDS)["y"]
        assert (runner.about.emulated, runner.about.device) == (True, "HTP of SM8650")
        assert runner.warnings == ("HTP of SM8650, emulated: its answers count, its time says nothing",)
    [reference] = run(lost_transpose(8, 12), FEEDS)
    error = np.abs(answer - reference).max() / np.abs(reference).max()
    # 58 dB were measured; the CPU gives the reference to the last bit, and eight bits leave 1e-2.
    assert 1e-6 < error < 5e-3
    assert capfd.readouterr() == ("", ""), "what native code prints stays in the child"


def test_the_compilers_error_is_there_without_a_word(tmp_path: Path) -> None:
    """Why all this is: where height and width are the same, the answer is noise and nobody says so."""
    feeds = {name: noise(1, 16, 16, 8, seed=seed) for seed, name in enumerate("ab")}
    path = saved(lost_transpose(16, 16), tmp_path / "a.onnx")
    with open_runner(path, runner="qnn:sm8650") as runner:
        answer = runner(feeds)["y"]
    [reference] = run(lost_transpose(16, 16), feeds)
    assert np.linalg.norm(answer - reference) > 0.5 * np.linalg.norm(reference)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "g (float[1,4] x) => (float[1,4] y) { a = Relu(x) b = Erf(a) y = Erf(b) }",
            "does not take 2 of its nodes, which the CPU would compute: net.b (Erf), net.y (Erf) (Operators of type",
        ),
        (
            "g (float[1,4] x) => (float[1,4] y) { a = Erf(x) b = Erf(a) c = Erf(b) d = Erf(c) y = Erf(d) }",
            "of its nodes, which the CPU would compute: net.a (Erf), net.b (Erf), net.c (Erf) and 2 more",
        ),
        (
            """g (float[1,2,4,4] x) => (float[1,2,4,4] y) {
                s = Reshape(x, six) t = Transpose<perm = [0, 1, 3, 2, 4, 5]>(s) r = Relu(t) y = Reshape(r, four)
            }""",
            "net.t (Transpose)",
        ),
    ],
    ids=["two", "five", "six axes"],
)
def test_nodes_that_the_htp_refuses_are_named(tmp_path: Path, text: str, shown: str) -> None:
    shapes = {"six": np.array([1, 2, 2, 2, 2, 2]), "four": np.array([1, 2, 4, 4])} if "six" in text else {}
    path = saved(named(text, **shapes), tmp_path / "a.onnx")
    with pytest.raises(IllegalGraphError) as caught:
        open_runner(path, runner="qnn:sm8650")
    assert shown in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_session_left_to_the_cpu_is_refused_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a session that was not told to refuse it."""
    path = saved(named("g (float[1,4] x) => (float[1,4] y) { a = Relu(x) y = Erf(a) }"), tmp_path / "a.onnx")
    monkeypatch.setattr(qnn_runner, "Opening", lambda path, soc, **_: Opening(path, soc, whole=False))
    with pytest.raises(IllegalGraphError, match=r"1 of its nodes, which the CPU would compute: net.y \(Erf\)"):
        open_runner(path, runner="qnn:sm8650")


def test_a_run_that_fails_is_an_error_and_no_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = saved(with_qdq(lost_transpose(8, 12)), tmp_path / "a.onnx")
    with open_runner(path, runner="qnn:ar1") as runner:
        for _ in range(2):
            with pytest.raises(HiresvitError) as caught:
                runner(FEEDS)
            assert type(caught.value) is HiresvitError
            assert "failed on this input: concat in net.block.ab or net.block.y: " in str(caught.value)
            assert str(caught.value).endswith("; `hiresvit compare --layers` finds the module")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "a part is allowed"])
@pytest.mark.parametrize("child", [["-m", "hiresvit.runtime._qnn_child"], ["-c", CARELESS]], ids=["ours", "careless"])
def test_each_guard_alone_keeps_the_cpu_away(tmp_path: Path, child: list[str], whole: bool) -> None:
    """A run that fails, with two guards, either, and none: then the CPU answers, equal to its own to the last bit."""
    model = with_qdq(lost_transpose(8, 12))
    path = saved(model, tmp_path / "a.onnx")
    worker = Worker(child)
    try:
        assert isinstance(worker.ask(Opening(str(path), CHIPS["ar1"].soc_model, whole=whole)), Opened)
        answer = worker.ask(FEEDS)
    finally:
        worker.close()
    if child == ["-c", CARELESS] and not whole:
        assert np.array_equal(answer[0], run(model, FEEDS)[0]), "so the other three mean something"
    else:
        assert isinstance(answer, Failed)


def test_a_graph_in_floating_point_for_a_chip_of_integers(tmp_path: Path) -> None:
    path = saved(named(RELU), tmp_path / "a.onnx")
    with pytest.raises(IllegalGraphError, match=r"has none: it computes in integers only: `hiresvit export .* a16w8`"):
        open_runner(path, runner="qnn:ar1")


def test_the_chip_where_none_is_named(tmp_path: Path) -> None:
    for model, part in ((named(RELU), "SM8650"), (with_qdq(named(RELU)), CHIPS["ar1"].part)):
        with open_runner(saved(model, tmp_path / "a.onnx"), runner="QNN") as runner:
            assert runner.about.device == f"HTP of {part}"


def test_an_unknown_chip(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no chip 'ar9': choose one of ar1, "):
        open_runner(saved(named(RELU), tmp_path / "a.onnx"), runner="qnn:ar9")


def test_a_context_gives_what_its_graph_gives(context: Path) -> None:
    x = {"x": noise(1, 2, 4, 4)}
    assert find_backend(context)[0].name == "qnn", "nothing else opens it"
    with pytest.raises(UsageError, match="is a context for Qualcomm's HTP; openvino does not open it: leave"):
        open_runner(context, runner="openvino")
    with open_runner(context) as made, open_runner(context.with_name("graph.onnx"), runner="qnn:ar1") as fresh:
        assert made.about.device == fresh.about.device
        assert np.array_equal(made(x)["y"], fresh(x)["y"])


@pytest.mark.parametrize("weights", [0, 2**19])
def test_a_context_is_known_whatever_the_cpu_has_beside_it(context: Path, tmp_path: Path, weights: int) -> None:
    """2 MiB of FP32, as a part that --allow-cpu left there."""
    model = onnx.load(context)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(weights, np.float32), "beside"))
    path = saved(model, tmp_path / "a.onnx")
    assert find_backend(path)[0].name == "qnn"
    with pytest.raises(UsageError, match=r"context for Qualcomm's HTP; onnxruntime does not open it"):
        find_backend(path, "onnxruntime")


def test_a_context_of_another_chip(context: Path) -> None:
    with pytest.raises(ArtefactError, match=r"was compiled for .*AR1.*, not for .*SM8650.*; build it again for that"):
        open_runner(context, runner="qnn:sm8650")


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
def test_a_context_without_its_binary(own: Path, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    binary = own.with_name("ctx_qnn.bin")
    whole = binary.read_bytes()
    if damage == "missing":
        binary.unlink()
    else:
        binary.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"no context"}[damage])
    with pytest.raises(ArtefactError) as caught:
        open_runner(own)
    assert ("is missing" if damage == "missing" else "is damaged, or of another version") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("v2:6:2.51.0:", "v2:6:2.99.0:", "by QAIRT 2.99.0, and onnxruntime-qnn"),
        (f":{CHIPS['ar1'].soc_model}:", ":99:", "soc_model 99, of which hiresvit knows no chip"),
        ("v2:", "w2:", "does not say for which chip"),
    ],
    ids=["later", "chip", "silent"],
)
def test_what_a_context_says_of_itself(
    own: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str
) -> None:
    model = onnx.load(own)
    [entry] = [entry for entry in model.metadata_props if entry.key.startswith("ep_compatibility_info")]
    assert old in entry.value
    entry.value = entry.value.replace(old, new)
    monkeypatch.setattr(qnn_context, "qairt_version", lambda: "2.51.0")
    with pytest.raises(ArtefactError) as caught:
        open_runner(saved(model, own))
    assert said in str(caught.value)


def test_the_library_dies(tmp_path: Path) -> None:
    path = saved(named(RELU), tmp_path / "a.onnx")
    runner = qnn_runner.QnnRunner(path)
    assert runner._worker is not None
    os.kill(runner._worker._process.pid, signal.SIGSEGV)
    with pytest.raises(HiresvitError, match=r"a.onnx: Qualcomm's library was killed by SIGSEGV$"):
        runner({"x": noise(1, 2, 4, 4)})
    with pytest.raises(UsageError, match="the runner is closed; open it again"):
        runner({"x": noise(1, 2, 4, 4)})


def test_the_library_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qnn_runner, "Worker", lambda argv: Worker(["-c", "import no_such_library"]))
    with pytest.raises(MissingDependency, match="does not start here: ModuleNotFoundError: No module named 'no_such"):
        open_runner(saved(named(RELU), tmp_path / "a.onnx"), runner="qnn")


def test_an_interruption_leaves_no_child(tmp_path: Path) -> None:
    """Ctrl-C while the emulator computes: the child is in native code and looks at nothing."""
    runner = qnn_runner.QnnRunner(saved(with_qdq(lost_transpose(8, 12)), tmp_path / "a.onnx"))
    assert runner._worker is not None
    child = runner._worker._process
    os.kill(child.pid, signal.SIGSTOP)  # a long computation
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        runner(FEEDS)
    assert child.returncode == -signal.SIGKILL
    with pytest.raises(ChildProcessError):  # nothing left to wait for
        os.waitpid(child.pid, os.WNOHANG)


def test_a_device_takes_its_own_chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told to the library there; that it runs cannot be seen here."""
    asked: list[Opening] = []

    class Recorded(Worker):
        def ask(self, question: object) -> object:
            assert isinstance(question, Opening)
            asked.append(question)
            return Opened((("x", "tensor(float)", (1,)),), (("y", "tensor(float)", (1,)),), {})

    monkeypatch.setattr(qnn_runner, "Worker", Recorded)
    monkeypatch.setattr(qnn_runner, "emulated", lambda: False)
    path = saved(named(RELU), tmp_path / "a.onnx")
    for detail, device, soc in ((None, "HTP", None), ("sm8650", "HTP of SM8650", CHIPS["sm8650"].soc_model)):
        with qnn_runner.QnnRunner(path, detail=detail) as runner:
            assert (runner.about.device, runner.about.emulated, runner.warnings) == (device, False, ())
        assert asked[-1].soc_model == soc


def test_a_machine_without_an_htp(tmp_path: Path) -> None:
    """An arm64 device whose ONNX Runtime lists no NPU: planted, here only the emulator's CPU is listed."""
    code = "import platform; platform.machine = lambda: 'aarch64'\nfrom hiresvit.runtime._qnn_child import main; main()"
    worker = Worker(["-c", code])
    try:
        answer = worker.ask(Opening(str(saved(named(RELU), tmp_path / "a.onnx")), None))
    finally:
        worker.close()
    assert isinstance(answer, MissingDependency)
    assert "finds no HTP here" in str(answer)


def test_what_is_no_graph_for_onnxruntime_either(tmp_path: Path) -> None:
    model = copied(named(RELU))
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(IllegalGraphError, match=r"does not take it \(.*NoSuchOperator"):
        open_runner(saved(model, tmp_path / "a.onnx"), runner="qnn")
