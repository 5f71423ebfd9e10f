"""The whole check of a graph: our rules, then the real TensorRT-RTX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import build, content
from onnx import ModelProto

from hiresvit.check import check
from hiresvit.check.check import check_graph
from hiresvit.check.rule import Finding
from hiresvit.check.targets import TARGETS, find_target
from hiresvit.device.tensorrt_api import INSTALL_HINT, installed
from hiresvit.engine import build as engine
from hiresvit.engine.build import BuildSettings
from hiresvit.engine.profiles import parse_shapes
from hiresvit.errors import BuildError, GateError, IllegalGraphError, MissingDependency

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)
EVERY = list(TARGETS.values())
RTX = [find_target("rtx")]


def save(path: Path, model: ModelProto) -> Path:
    path.write_bytes(content(model))
    return path


def attention(dtype: str = "float16", batch: int | str = 2) -> ModelProto:
    """Two heads of 32 over 64 tokens, and a Linear in FP32 behind it if the rest is FP16."""
    weight = np.eye(32, dtype=np.float32)
    model = build(
        f"""g ({dtype}[{batch},64,32] q, {dtype}[{batch},64,32] k) => (float[{batch},64,32] y) {{
        t = Transpose<perm=[0,2,1]>(k)
        s = MatMul(q, t)
        w = Softmax<axis=-1>(s)
        m = MatMul(w, k)
        f = Cast<to=1>(m)
        y = MatMul(f, weight)
    }}""",
        {"weight": weight},
    )
    for node in model.graph.node:
        node.name = f"{'head.linear' if node.output[0] == 'y' else 'attn'}/{node.op_type}"
    model.graph.node[3].name += "_1"  # the attention's second product
    return model


def asymmetric() -> ModelProto:
    return build(
        """g (float[1,8] x) => (float[1,8] y) {
        [quantize] q = QuantizeLinear(x, scale, zero)
        y = DequantizeLinear(q, scale, zero)
    }""",
        {"scale": np.float32(0.1), "zero": np.int8(3)},
    )


@needs_rtx
def test_what_became_of_a_legal_graph(tmp_path: Path) -> None:
    graph = save(tmp_path / "g.onnx", attention())
    found = check_graph(graph, EVERY)
    assert (found.failure, found.refused, found.skipped, found.missed) == (None, None, None, None)
    assert found.compiled is not None
    [explained] = found.compiled.attentions
    assert explained.fused
    # 2 heads x 64 x 64 x 32 for each product of the attention, 2 x 64 x 32 x 32 for the Linear
    assert found.compiled.macs == {"fp16": 2 * 2 * 64 * 64 * 32, "fp32": 2 * 64 * 32 * 32}
    assert [leftover.module for leftover in found.compiled.leftovers] == ["head.linear"]
    assert found.compiled.unmatched == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.onnx"]
    document = json.loads(json.dumps(found.to_json()))
    assert [row["legal"] for row in document["targets"]] == [True] * len(EVERY)
    assert document["compiled"]["attentions"][0]["fused"] is True


@needs_rtx
@pytest.mark.parametrize(("required", "met"), [("fp16:75%", True), ("fp16:90%", False), ("fp32:100%", True)])
def test_requirements(tmp_path: Path, required: str, met: bool) -> None:
    found = check_graph(save(tmp_path / "g.onnx", attention()), RTX, require=required)
    assert (found.missed is None) == met
    assert isinstance(found.failure, GateError | None)
    if not met:
        assert str(found.failure) == found.missed
        assert found.missed is not None
        assert "FP32: head.linear" in found.missed


@needs_rtx
def test_why_an_attention_is_not_fused(tmp_path: Path) -> None:
    found = check_graph(save(tmp_path / "g.onnx", attention("float")), RTX)
    assert found.compiled is not None
    [explained] = found.compiled.attentions
    assert not explained.fused
    assert explained.reason is not None
    assert "FP32" in explained.reason


@needs_rtx
def test_a_dynamic_graph_is_counted_at_its_best_shape(tmp_path: Path) -> None:
    graph = save(tmp_path / "g.onnx", attention(batch="N"))
    found = check_graph(graph, RTX)
    assert "dynamic" in str(found.failure)
    shapes = [f"{name}=1x64x32:4x64x32:8x64x32" for name in "qk"]
    found = check_graph(graph, RTX, BuildSettings(shapes=parse_shapes(shapes)))
    assert (found.failure, found.skipped) == (None, None)
    assert found.compiled is not None
    assert found.compiled.macs["fp32"] == 4 * 64 * 32 * 32


def test_an_illegal_graph_is_not_built(tmp_path: Path) -> None:
    found = check_graph(save(tmp_path / "g.onnx", asymmetric()), EVERY)
    assert (found.compiled, found.skipped) == (None, "not built: the graph is illegal")
    assert isinstance(found.failure, IllegalGraphError)
    assert str(found.failure).startswith(f"{tmp_path / 'g.onnx'} is illegal for jetpack6, jetpack7, trt11, rtx: ")
    assert [row["legal"] for row in found.to_json()["targets"]] == [False] * len(EVERY)


@needs_rtx
def test_tensorrt_rtx_has_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that no rule of ours would know."""
    monkeypatch.setattr(check, "problems_of", lambda view: [])
    found = check_graph(save(tmp_path / "g.onnx", asymmetric()), EVERY)
    assert found.compiled is None
    assert isinstance(found.failure, IllegalGraphError)
    assert "TensorRT refuses node 'quantize' (QuantizeLinear)" in str(found.failure)
    # the others were not asked: theirs may take what it does not
    assert [row["legal"] for row in found.to_json()["targets"]] == [None, None, None, False]


@needs_rtx
def test_what_one_target_refuses_is_still_built_for_the_others(tmp_path: Path) -> None:
    """Opset 21 is more than JetPack 6 promises to read."""
    model = attention()
    model.opset_import[0].version = 21
    found = check_graph(save(tmp_path / "g.onnx", model), EVERY)
    assert isinstance(found.failure, IllegalGraphError)
    assert found.compiled is not None
    assert [row["legal"] for row in found.to_json()["targets"]] == [False, True, True, True]
    assert check_graph(tmp_path / "g.onnx", EVERY[:1]).skipped == "not built: the graph is illegal"


def test_what_only_tensorrt_rtx_refuses_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rules are asked although it is no target, and a requirement is then not met by silence."""
    finding = Finding("form", "illegal", ("n",), 1, "", "no such", "no such thing")
    monkeypatch.setattr(check, "installed", lambda backend: True)
    monkeypatch.setattr(check, "problems_of", lambda view: [finding] if view.target.name == "rtx" else [])
    graph = save(tmp_path / "g.onnx", attention())
    found = check_graph(graph, EVERY[:1])
    assert (found.failure, found.skipped) == (None, "not built: TensorRT-RTX does not take it: no such thing")
    found = check_graph(graph, EVERY[:1], require="fp16:95%")
    assert isinstance(found.failure, GateError)
    assert str(found.failure) == (
        "fp16:95% can only be seen in a build, and there is none: TensorRT-RTX does not take it: no such thing"
    )


@needs_rtx
def test_a_builder_that_dies_says_nothing_about_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dying.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(engine, "_BUILDER", "dying")
    found = check_graph(save(tmp_path / "g.onnx", attention()), EVERY)
    assert isinstance(found.failure, BuildError)
    assert "was killed by SIGKILL (often: out of memory)" in str(found.failure)
    assert [row["legal"] for row in found.to_json()["targets"]] == [None] * len(EVERY)


@needs_rtx
def test_shapes_that_contradict_each_other_are_not_the_graphs_fault(tmp_path: Path) -> None:
    model = build("g (float[N,8] a, float[N,8] b) => (float[N,8] y) { y = Add(a, b) }")
    shapes = parse_shapes(["a=1x8:2x8:3x8", "b=4x8:5x8:6x8"])
    found = check_graph(save(tmp_path / "g.onnx", model), RTX, BuildSettings(shapes=shapes))
    assert isinstance(found.failure, BuildError)
    assert "engine build failed" in str(found.failure)
    assert [row["legal"] for row in found.to_json()["targets"]] == [None]


@needs_rtx
def test_what_the_parser_refuses_no_profile_is_to_blame_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "problems_of", lambda view: [])
    model = asymmetric()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    shapes = parse_shapes(["x=1x8:2x8:3x8"])
    found = check_graph(save(tmp_path / "g.onnx", model), RTX, BuildSettings(shapes=shapes))
    assert isinstance(found.failure, IllegalGraphError)
    assert [row["legal"] for row in found.to_json()["targets"]] == [False]


@needs_rtx
def test_nodes_in_any_order_are_counted(tmp_path: Path) -> None:
    weight = {"a": np.ones((8, 4), np.float32)}
    model = build("g (float[2,8] x) => (float[2,4] y) { h = Relu(x) m = MatMul(h, a) y = Neg(m) }", weight)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    found = check_graph(save(tmp_path / "g.onnx", model), RTX, require="fp32:100%")
    assert found.failure is None
    assert found.compiled is not None
    assert found.compiled.macs == {"fp32": 2 * 8 * 4}


@pytest.mark.parametrize(
    "body",
    [
        "s = MatMul(x, x) w = Softmax(s) y = MatMul(w)",
        "y = foo.DequantizeLinear(x)",
        "y = foo.Conv(x)",
        "q = QuantizeLinear(x, x) y = Relu(x)",
        "q = Cast<to = 10>(x) y = Relu(x)",
    ],
)
def test_damaged_graphs_get_their_finding(tmp_path: Path, body: str) -> None:
    model = build(f"g (float[8,8] x) => (float[8,8] y) {{ {body} }}")
    if body.startswith("q"):
        del model.graph.node[0].output[:]
    found = check_graph(save(tmp_path / "g.onnx", model), EVERY)
    assert isinstance(found.failure, IllegalGraphError)
    assert all("operands" in {f.rule for f in verdict.illegal} for verdict in found.verdicts)


def test_a_type_that_there_is_not_is_a_finding(tmp_path: Path) -> None:
    model = attention()
    model.graph.input[0].type.tensor_type.elem_type = 99
    found = check_graph(save(tmp_path / "g.onnx", model), EVERY, build=False)
    assert isinstance(found.failure, IllegalGraphError)


def test_weights_behind_a_link(tmp_path: Path) -> None:
    """As a cache lays files out; ONNX's own reader does not follow one."""
    folder = tmp_path / "real"
    folder.mkdir()
    model = attention("float")
    onnx.save(model, folder / "g.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "g.onnx").write_bytes((folder / "g.onnx").read_bytes())
    (tmp_path / "w.bin").symlink_to(folder / "w.bin")
    assert check_graph(tmp_path / "g.onnx", RTX, build=False).failure is None


def test_without_tensorrt_rtx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "installed", lambda backend: False)
    graph = save(tmp_path / "g.onnx", attention())
    found = check_graph(graph, EVERY)
    assert found.failure is None
    assert found.skipped == f"not built: TensorRT-RTX is not installed, {INSTALL_HINT}"
    with pytest.raises(MissingDependency, match=r"^fp16:95% can only be seen in a build"):
        check_graph(graph, EVERY, require="fp16:95%")
