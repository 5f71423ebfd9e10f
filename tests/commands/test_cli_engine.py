"""`hiresvit build` and `hiresvit check` as they are typed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Cli, Result, environment, hiresvit_command, run_program
from graphs import build, content

from hiresvit.device.cuda import NO_GPU
from hiresvit.device.plan import read_sidecar
from hiresvit.device.platform import has_driver
from hiresvit.device.tensorrt_api import INSTALL_HINT, installed

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)
STREET = Path(__file__).parents[2] / "examples" / "street.jpg"
RELU = "g (float[1,8] x) => (float[1,8] y) { y = Relu(x) }"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where a command leaves what it makes."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "relu.onnx"
    path.write_bytes(content(build(RELU)))
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@needs_rtx
class TestBuild:
    def test_a_plan_of_a_bundle(self, exported: tuple[Path, Result], cli: Cli, here: Path) -> None:
        bundle, _ = exported
        result = cli("build", bundle, "--sm", "86,89", "--json")
        assert (result.code, result.err) == (0, "")
        document = json.loads(result.out)
        assert document["output"] == [f"{bundle.name}-fp16.plan", f"{bundle.name}-fp16.plan.json"]
        assert files(here) == document["output"]
        assert document["engine"]["compute_capability"] == "8.6, 8.9"
        sidecar = read_sidecar(Path(document["output"][0]))
        assert sidecar is not None
        assert json.loads(json.dumps(sidecar.report.to_json())) == document["engine"]
        assert cli("build", bundle).code == 1, "what is there stays"

    def test_the_last_lines_say_what_and_what_next(self, graph: Path, cli: Cli) -> None:
        result = cli("build", graph, "-o", "a b.plan")
        assert result.code == 0
        [*_, wrote, following] = result.out.splitlines()
        assert wrote.startswith("wrote a b.plan (")
        assert following == "next: hiresvit inspect 'a b.plan'"
        assert "TensorRT-RTX" in cli("inspect", "a b.plan").out

    def test_inspect_of_a_plan(self, graph: Path, cli: Cli) -> None:
        cli("build", graph)
        found = json.loads(cli("inspect", "relu.plan", "--json").out)
        assert (found["kind"], found["graph"]) == ("plan", "relu.onnx")
        assert found["graph_sha256"] == hashlib.sha256(graph.read_bytes()).hexdigest()
        assert [layer["kind"] for layer in found["layers"]] == list(found["report"]["kernels"])
        Path("relu.plan.json").unlink()
        found = json.loads(cli("inspect", "relu.plan", "--json").out)
        assert found["backend"] == "tensorrt_rtx"
        assert "report" not in found
        assert "nothing stands beside the plan" in cli("inspect", "relu.plan").out
        Path("relu.plan").write_bytes(Path("relu.plan").read_bytes()[:-1])
        result = cli("inspect", "relu.plan")
        assert (result.code, result.out) == (7, "")
        assert "relu.plan is cut" in result.err

    def test_what_needs_a_gpu_says_so(self, graph: Path, cli: Cli) -> None:
        if has_driver():
            pytest.skip("this machine has one")
        cli("build", graph)
        for command in (
            ["run", "relu.plan", STREET],
            ["bench", "relu.plan"],
            ["compare", graph, "relu.plan"],
        ):
            result = cli(*command)
            assert result.code == 6
            assert result.err == f"error: relu.plan: {NO_GPU}\n"

    def test_a_timing_cache_is_noted(self, graph: Path, cli: Cli) -> None:
        assert "TensorRT-RTX has no timing cache" in cli("build", graph, "--timing-cache", "cache").out

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (["--workspace", "-1"], 2, "^error: --workspace -1: give a size in MiB, more than 0, as 512$"),
            (["--workspace", "nan"], 2, "--workspace nan"),
            (["--sm", "87"], 2, "^error: --sm 87: TensorRT-RTX .* compiles for 75, 80, "),
            (["--sm", "8.6"], 2, "^error: --sm 8.6: give numbers such as 86,89,120$"),
            (["--sm", ""], 2, "give numbers such as"),
            (["--sm", "²"], 2, "give numbers such as"),
            (["--aux-streams", "99999999999"], 2, "give 0 to 127$"),
            (["--shapes", "x=1x8:2x8:99999999999x8"], 2, "NAME=MIN:OPT:MAX"),
            (["--opt-level", "7"], 2, "give 0 to 5$"),
            (["--shapes", "x"], 2, "NAME=MIN:OPT:MAX"),
            (["--shapes", "x=1x8"], 2, "no axis is dynamic"),
            (["--hw-compat", "ampere+"], 2, "is an option of TensorRT:"),
            (["--backend", "cuda"], 2, "one of tensorrt, tensorrt_rtx$"),
            (["-o", "a.trt"], 2, r"give a name that ends in \.plan or \.engine$"),
            (["--graph", "fp16"], 2, "is one file$"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_is_refused(self, graph: Path, cli: Cli, options: list[str], code: int, message: str) -> None:
        result = cli("build", graph, "--backend", "tensorrt_rtx", *options)
        assert result.code == code
        [line] = result.err.splitlines()[-1:]
        assert re.search(message, line), line
        assert files(Path()) == []

    def test_a_workspace_that_is_too_small(self, tmp_path: Path, cli: Cli, here: Path) -> None:
        tensor = "float16[1,32,16,16]"
        text = f"g ({tensor} x) => ({tensor} y) {{ y = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w) }}"
        graph = tmp_path / "convolution.onnx"
        graph.write_bytes(content(build(text, {"w": np.ones((32, 32, 3, 3), np.float16)})))
        result = cli("build", graph, "--workspace", "0.01")
        assert result.code == 5
        assert re.search(r"engine build failed: .*; the workspace was 0.01 MiB, give more", result.err)
        assert files(here) == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
    def test_a_signal_leaves_nothing_but_its_document(
        self, exported: tuple[Path, Result], here: Path, number: signal.Signals
    ) -> None:
        command = hiresvit_command("build", exported[0] / "fp16.onnx", "--json")
        process = subprocess.Popen(
            command, env=environment(here), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 60
        while not files(here) and time.monotonic() < deadline:  # the temporary file of the plan
            time.sleep(0.01)
        os.kill(process.pid, number)
        document, said = process.communicate(timeout=60)
        assert (process.returncode, said.splitlines()[-1]) == (128 + number, "interrupted")
        assert json.loads(document)["error"]["exit_code"] == 128 + number
        assert files(here) == []

    def test_a_target_that_cannot_be(self, graph: Path, cli: Cli, here: Path) -> None:
        (here / "a.plan.json").mkdir()
        (here / "own.plan").write_bytes(graph.read_bytes())
        result = cli("build", graph, "-o", "a.plan", "--force")
        assert (result.code, result.err) == (
            1,
            "error: cannot write a.plan.json: it is a folder; choose another name\n",
        )
        result = cli("build", "own.plan", "-o", "own.plan", "--force")
        assert (result.code, "is the graph itself" in result.err) == (2, True)
        assert files(here) == ["a.plan.json", "own.plan"]
        assert (here / "own.plan").read_bytes() == graph.read_bytes()

    def test_an_axis_of_minus_one_is_dynamic(self, tmp_path: Path, cli: Cli) -> None:
        model = build(RELU)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = -1
        path = tmp_path / "minus.onnx"
        path.write_bytes(content(model))
        assert "axis 0 of input 'x' (?x8) is dynamic" in cli("build", path).err
        assert cli("build", path, "--shapes", "x=1x8:2x8:4x8").code == 0


class TestDryRun:
    def test_nothing_is_built(self, graph: Path, cli: Cli, here: Path) -> None:
        result = cli("build", graph, "--backend", "tensorrt", "--dry-run", "--workspace", "64")
        assert (result.code, result.err) == (0, "")
        assert files(here) == []
        for line in result.out.splitlines():
            assert line.startswith(("# TensorRT 1", f"trtexec --onnx={graph} --saveEngine=relu.plan "))
            assert "--fp16" not in line

    def test_json(self, graph: Path, cli: Cli) -> None:
        found = json.loads(cli("build", graph, "--dry-run", "--json").out)
        assert all(set(line) == {"title", "line"} for line in found["lines"])


class TestCheck:
    def test_every_target_by_default(self, exported: tuple[Path, Result], cli: Cli, here: Path) -> None:
        result = cli("check", exported[0], "--json")
        assert (result.code, result.err) == (0, "")
        found = json.loads(result.out)
        assert [row["target"] for row in found["targets"]] == ["jetpack6", "jetpack7", "trt11", "rtx"]
        assert all(row["legal"] for row in found["targets"])
        assert files(here) == [], "what was built to look at is gone"
        if installed("tensorrt_rtx"):
            assert set(found["compiled"]["macs"]) == {"fp16"}
            assert all(row["fused"] for row in found["compiled"]["attentions"])

    def test_our_own_rules_alone(self, exported: tuple[Path, Result], cli: Cli) -> None:
        found = json.loads(cli("check", exported[0], "--no-build", "--target", "jetpack6", "--json").out)
        assert found["compiled"] is None
        assert found["skipped"] == "not built: our own rules were asked for"

    def test_an_illegal_graph_is_exit_code_3(self, tmp_path: Path, cli: Cli) -> None:
        model = build(RELU)
        model.graph.node[0].domain = "com.microsoft"
        model.graph.node[0].op_type = "FusedConv"
        (tmp_path / "bad.onnx").write_bytes(content(model))
        result = cli("check", tmp_path / "bad.onnx", "--target", "rtx")
        assert result.code == 3
        assert "ILLEGAL" in result.out
        assert "com.microsoft" in result.err
        document = json.loads(cli("check", tmp_path / "bad.onnx", "--json").out)
        assert document["error"]["exit_code"] == 3

    @needs_rtx
    def test_a_requirement_that_is_missed_is_exit_code_4(self, exported: tuple[Path, Result], cli: Cli) -> None:
        met = cli("check", exported[0], "--require-precision", "fp16:95%")
        assert (met.code, met.err) == (0, "")
        result = cli("check", exported[0], "--graph", "simplified", "--require-precision", "fp16:95%")
        assert result.code == 4
        assert "fp16:95% required, 0 % realised" in result.err
        assert "its products are in FP32" in result.out

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (["--target", "orin"], 2, "no target 'orin': choose one of jetpack6, jetpack7, trt11, rtx, ar1"),
            (["--require-precision", "half"], 2, "'half' is no requirement: give one of .*, as fp16:95%"),
            (["--require-precision", "fp16:95%", "--no-build"], 2, "leave --no-build out"),
            (["--shapes", "x=2x8"], 2, "no axis is dynamic"),
        ],
        ids=["target", "requirement", "no build", "shapes"],
    )
    def test_what_is_refused(self, graph: Path, cli: Cli, options: list[str], code: int, message: str) -> None:
        result = cli("check", graph, *options)
        assert result.code == code
        assert re.search(message, result.err)


@pytest.mark.parametrize("command", ["build", "check"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"relu\.onnx: no such file; give the path of an \.onnx graph"),
        ("text", "is not an ONNX graph: it is text that begins 'hello world"),
        ("cut", "is not an ONNX graph"),
        ("empty", "relu.onnx is empty; copy or export it again"),
        ("external", "its weights are in .*weights.bin, which is not there"),
        ("absolute", "its weights are in '/weights.bin'; they must be in a file in the graph's folder"),
        ("constant", "its weights are in .*weights.bin, which is not there"),
    ],
)
def test_a_file_that_is_no_graph(graph: Path, cli: Cli, command: str, damage: str, message: str) -> None:
    match damage:
        case "missing":
            graph.unlink()
        case "text":
            graph.write_text("hello world\n" * 9)
        case "cut":
            graph.write_bytes(graph.read_bytes()[:-20])
        case "empty":
            graph.write_bytes(b"")
        case _:
            model = build("g (float[1,8] x) => (float[1,8] y) { y = Add(x, w) }", {"w": np.ones(8, np.float32)})
            tensor = model.graph.initializer[0]
            if damage == "constant":
                node = onnx.helper.make_node("Constant", [], ["w"], value=model.graph.initializer.pop())
                model.graph.node.insert(0, node)
                tensor = model.graph.node[0].attribute[0].t
            onnx.external_data_helper.set_external_data(tensor, "weights.bin")
            tensor.ClearField("raw_data")
            if damage == "absolute":
                tensor.external_data[0].value = "/weights.bin"
            graph.write_bytes(content(model))
    result = cli(command, graph)
    assert result.code == 1
    [line] = result.err.splitlines()
    assert re.search(message, line), line
    assert files(Path()) == []


def test_a_dynamic_graph_needs_a_profile(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "dynamic.onnx"
    path.write_bytes(content(build("g (float[N,8] x) => (float[N,8] y) { y = Relu(x) }")))
    result = cli("build", path, "--backend", "tensorrt_rtx") if installed("tensorrt_rtx") else None
    if result is not None:
        assert result.code == 2
        assert "give its least, best and largest shape with --shapes x=MIN:OPT:MAX" in result.err
    assert cli("check", path, "--no-build").code == 3
    assert cli("check", path, "--shapes", "x=1x8:2x8:4x8").code == 0


def test_a_killed_builder_is_exit_code_5(tmp_path: Path, graph: Path) -> None:
    if not installed("tensorrt_rtx"):
        pytest.skip(INSTALL_HINT)
    (tmp_path / "crashing.py").write_text(
        "import os, signal, sys\nprint('last words', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    before = f"sys.path.insert(0, {str(tmp_path)!r})\nfrom hiresvit.engine import build\nbuild._BUILDER = 'crashing'"
    result = run_program(tmp_path, "build", graph, before=before)
    assert result.code == 5
    assert "engine build failed: the TensorRT-RTX builder was killed by SIGSEGV" in result.err
    assert "last words" in result.err
