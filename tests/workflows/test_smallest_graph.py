"""`hiresvit compare --layers --smallest` with Qualcomm's real compiler and its emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Cli
from graphs import noise
from lost_in_network import network, quiet_gelu
from lost_transpose import lost_transpose, with_qdq
from onnx import ModelProto, numpy_helper
from tiny import tiny_spec

from hiresvit.device.chips import CHIPS
from hiresvit.engine.htp import build_context
from hiresvit.evaluation.smallest import find_smallest
from hiresvit.runtime.open import open_runner
from hiresvit.spec import Feed
from hiresvit.workflows.htp import HtpSettings, make_htp

pytest.importorskip("onnxruntime_qnn")
RUNNER = "qnn:sm8650"


def saved(model: ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def compared(cli: Cli, folder: Path, *sides: Path, limit: float | None = None) -> tuple[dict[str, Any], str, str]:
    """The document, and what was said to a person."""
    options: list[Any] = ["--layers", "--images", "1", "--runner", RUNNER, "--smallest", folder / "bug.onnx"]
    limits = [] if limit is None else ["--layer-sqnr", str(limit)]
    result = cli("compare", *sides, *options, *limits, "-o", folder / "found.json")
    assert result.code == (0 if limit is None else 4), result.err
    document: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return document["layers"], result.out, result.err


def test_the_lost_transpose_is_found_in_a_network(cli: Cli, tmp_path: Path) -> None:
    graph = saved(network(), tmp_path / "net.onnx")
    found, said, _ = compared(cli, tmp_path, graph, graph)
    assert found["first"]["module"] == "net.block.y"
    assert found["tolerance"] == 33
    assert found["whole"]["sqnr_db"] < 20
    small = found["smallest"]
    assert [node["op"] for node in small["nodes"]] == ["MatMul", "Transpose", "Concat"]
    assert [node["module"] for node in small["nodes"]] == ["net.block.across", "net.block.down", "net.block.y"]
    assert small["engine"] == {
        "backend": "QNN",
        "device": "HTP of SM8650",
        "emulated": True,
        "chip": "Snapdragon 8 Gen 3 (SM8650, V75)",
    }
    assert None not in small["versions"].values()
    assert small["versions"].keys() == {"onnxruntime", "QNN", "qairt"}
    for text in ("3 nodes of 23", "net.block.down", "emulated; onnxruntime", "y has"):
        assert text in said

    arrays = np.load(tmp_path / "bug.npz")
    feeds: Feed = {name.removeprefix("input/"): arrays[name] for name in arrays if name.startswith("input/")}
    graph = tmp_path / "bug.onnx"
    with open_runner(graph, threads=1) as right, open_runner(graph, runner=RUNNER) as wrong:
        expected, answer = right(feeds)["y"], wrong(feeds)["y"]
    np.testing.assert_array_equal(expected, arrays["expected/y"])
    np.testing.assert_array_equal(answer, arrays["answer/y"])
    assert np.abs(expected - answer).max() > 1
    assert np.abs(answer).max() > 0.1, "it does answer"


def test_it_is_found_in_integers(cli: Cli, tmp_path: Path) -> None:
    """Every module's result is marked in a copy of the Q/DQ graph, which the chip must take as it takes the graph."""
    exact, graph = saved(network(), tmp_path / "fp32.onnx"), tmp_path / "a16w8.onnx"
    settings = HtpSettings("scenes", images=2, form="a16w8", chip=CHIPS["ar1"], threads=1)
    saved(make_htp(network(), tiny_spec("segment", (32, 32)), settings).graph, graph)
    command = ("compare", exact, graph, "--layers", "--images", 1, "--runner", "qnn:ar1", "--json")
    found = json.loads(cli(*command).out)["layers"]
    assert found["test"] == "a16w8.onnx (qnn:ar1, emulated)"
    assert found["first"]["module"] == "net.block.y"


def test_a_wrong_weight_is_named_and_is_no_fault_of_the_engine(cli: Cli, tmp_path: Path) -> None:
    wrong = network(lost=False)
    for tensor in wrong.graph.initializer:
        if tensor.name == "w_down":
            tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
    sides = saved(network(lost=False), tmp_path / "right.onnx"), saved(wrong, tmp_path / "wrong.onnx")
    found, said, _ = compared(cli, tmp_path, *sides)
    assert (found["first"]["module"], found["first"]["verdict"]) == ("ffn.down", "scale")
    assert found["smallest"] is None
    assert "nothing to reduce: what computes wrong.onnx" in said
    assert not (tmp_path / "bug.onnx").exists()


def test_a_fault_that_a_marked_tensor_hides_is_found_where_the_tolerance_is_tight(cli: Cli, tmp_path: Path) -> None:
    """A GELU is fused with the convolution before it, and coarser then, unless what is between them is an output."""
    graph = saved(quiet_gelu(), tmp_path / "net.onnx")
    found, said, _ = compared(cli, tmp_path, graph, graph)
    assert (found["first"], found["smallest"]) == (None, None)
    assert "nothing found: net.onnx" in said

    found, said, failed = compared(cli, tmp_path, graph, graph, limit=55)
    assert "though each module alone has that" in failed
    assert "as a whole, with nothing marked: logits has" in said
    assert [node["op"] for node in found["smallest"]["nodes"]] == ["Conv", "Gelu"]
    assert found["smallest"]["sqnr_db"] < 55


def test_a_context_is_compared_through_the_graph_that_it_was_built_from(cli: Cli, tmp_path: Path) -> None:
    graph, context = saved(network(lost=False), tmp_path / "net.onnx"), tmp_path / "context.onnx"
    build_context(graph, context, CHIPS["sm8650"])
    command = ("compare", graph, context, "--layers", "--images", 1, "--json")
    found = json.loads(cli(*command).out)["layers"]
    assert found["first"] is None
    assert found["tolerance"] == 33
    assert [row["module"] for row in found["modules"]][:2] == ["stem", "act"]
    assert 40 < found["whole"]["sqnr_db"] < 80, "of the context itself, in FP16"
    saved(network(), graph)
    result = cli(*command)
    assert result.code == 2
    assert "compiled context, and" in result.err
    assert "net.onnx, as it was then, is not there" in result.err


@pytest.mark.slow
def test_a_run_that_fails_is_reduced_as_a_wrong_answer_is() -> None:
    """In integers the lost transpose is an error of the kernel where height and width differ."""
    model = with_qdq(lost_transpose(8, 12))
    feeds = {"a": noise(1, 8, 12, 8), "b": noise(1, 8, 12, 8, seed=1)}
    found = find_smallest(model, [feeds], lambda path: open_runner(path, runner="qnn:ar1"), tolerance=20)
    assert found is not None
    assert found.fault.kind == "fails"
    assert "mismatched dim" in (found.fault.message or "")
    steps = [node.op_type for node in found.fault.model.graph.node if "Linear" not in node.op_type]
    assert steps == ["MatMul", "Transpose", "Concat"]
