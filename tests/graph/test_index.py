"""The index of a graph: who makes and reads what, what is constant, types and sizes, all known at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import build, noise
from onnx import ModelProto, TensorProto, helper

from hiresvit.errors import HiresvitError
from hiresvit.graph.index import (
    dims_of,
    index_graph,
    inline_functions,
    is_read_as_data,
    names_read,
    parser_name,
)

PAIR = "g (float[N,8] x) => (float[N,2] y) { a = MatMul(x, w) y = MatMul(a, v) }"
WEIGHTS = {"w": noise(8, 300), "v": noise(300, 2)}


@pytest.fixture
def inferences(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """An entry for each inference, whether it was strict."""
    calls: list[bool] = []
    infer = onnx.shape_inference.infer_shapes

    def counted(model: ModelProto, **options: Any) -> ModelProto:
        calls.append(options["strict_mode"])
        return infer(model, **options)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", counted)
    return calls


def test_who_makes_and_who_reads() -> None:
    index = index_graph(build("g (float[2] x) => (float[2] y) { a = Relu(x) y = Add(a, a) }"))
    relu, add = index.nodes
    assert (index.producer["a"], index.producer["y"]) == (relu, add)
    assert index.reads("x") == [(relu, 0)]
    assert index.reads("a") == [(add, 0), (add, 1)]  # once for each operand
    assert index.reads("y") == index.reads("nothing") == []
    assert (list(index.inputs), list(index.outputs)) == (["x"], ["y"])
    assert (index.type_of(add, 1), index.type_of(add, 2)) == ("float", "")
    assert index.opset == 20


def test_a_graph_is_inferred_once(inferences: list[bool]) -> None:
    index = index_graph(build(PAIR, WEIGHTS))
    assert inferences == [True]
    assert (index.types["a"], index.complaint) == ("float", "")
    index_graph(build(PAIR, WEIGHTS), infer=False)
    assert inferences == [True]


def test_a_graph_that_complains_is_inferred_again(inferences: list[bool]) -> None:
    index = index_graph(build("g (float[2,3] x) => (float[2] y) { a = MatMul(x, x) y = Relu(a) }"))
    assert inferences == [True, False]
    assert "op_type:MatMul, node name: 0" in index.complaint


@pytest.mark.parametrize(("shapes", "batch"), [(None, None), ({}, 1), ({"x": (5, 8)}, 5), ({"other": (7,)}, 1)])
def test_dynamic_axes(shapes: dict[str, tuple[int, ...]] | None, batch: int | None) -> None:
    """They stay, or are what is said; those of nobody's mention are one picture."""
    model = build(PAIR, WEIGHTS)
    before = model.SerializeToString()
    index = index_graph(model, shapes)
    assert (index.shapes["x"], index.shapes["a"], index.shapes["y"]) == ((batch, 8), (batch, 300), (batch, 2))
    assert index.sizes("a") == (None if batch is None else (batch, 300))
    assert dims_of(index.inputs["x"]) == (None, 8)  # the graph's own, whatever it is sized for
    assert model.SerializeToString() == before


@pytest.mark.parametrize("shapes", [None, {}])
def test_an_axis_that_is_written_as_less_than_nothing(shapes: dict[str, tuple[int, ...]] | None) -> None:
    model = build(PAIR, WEIGHTS)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert index_graph(model, shapes).shapes["a"] == (None if shapes is None else 1, 300)


def test_what_is_not_known() -> None:
    index = index_graph(build("g (float[2] x) => (float[2] y) { a = other.Thing(x) y = Relu(a) }"))
    assert (index.sizes("a"), index.dtype("a")) == (None, "unknown")
    assert "a" not in index.shapes


def test_stale_statements_come_second() -> None:
    model = build("g (float[2] x) => (float[2] y) <int64[9] a> { a = Relu(x) y = Relu(a) }")
    inferred, stated = index_graph(model), index_graph(model, infer=False)
    assert (inferred.types["a"], inferred.sizes("a")) == ("float", (2,))
    assert (stated.types["a"], stated.sizes("a"), stated.dtype("a")) == ("int64", (9,), "int64")


BRANCHES = """g (bool c, float[2] x) => (float[2] y) {
    a = Relu(x)
    y = If(c) <
        then_branch = t () => (float[2] p) { a2 = Neg(a) p = Neg(a2) },
        else_branch = e () => (float[2] q) { a = Abs(x) q = Neg(a) }
    >
}"""


def test_names_that_a_body_hides() -> None:
    """One branch reads `a` from around it, the other makes an `a` of its own: no maker or reader of ours."""
    index = index_graph(build(BRANCHES))
    relu, choice = index.nodes
    assert index.producer["a"] is relu
    assert [node.op_type for node in index.inner] == ["Neg", "Neg", "Abs", "Neg"]
    assert names_read(choice) == {"c", "a", "x"}
    then = choice.attribute[0] if choice.attribute[0].name == "then_branch" else choice.attribute[1]
    del then.g.node[0]
    then.g.node[0].input[0] = "x"
    assert names_read(choice) == {"c", "x"}  # the `a` that is left is the branch's own


def test_a_body_orders_nodes_and_keeps_what_it_reads_alive() -> None:
    model = build(BRANCHES)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert [node.op_type for node in index_graph(model).nodes] == ["Relu", "If"]


def test_nodes_that_wait_for_each_other() -> None:
    index = index_graph(build("g (float[2] x) => (float[2] y) { a = Add(x, b) b = Relu(a) y = Neg(b) }"))
    assert [node.op_type for node in index.circle] == ["Add", "Relu"]
    assert len(index.nodes) == 3


def test_what_is_constant_and_what_is_fixed() -> None:
    model = build(
        "g (float[2,3] x) => (float[6] y) {"
        " k = Constant <value_ints = [6]> () s = Shape(x) n = ReduceProd(s) m = Mul(k, k) y = Reshape(x, k) }",
        {"w": noise(2)},
    )
    index = index_graph(model)
    assert set(index.constants) == {"w", "k"}
    assert index.fixed == {"w", "k", "s", "n", "m"}
    values = index.array("k")
    assert values is not None
    assert values.tolist() == [6]
    assert index.array("x") is None
    open_batch = build("g (float[N,3] x) => (int64[2] s) { s = Shape(x) }")
    assert "s" not in index_graph(open_batch).fixed
    assert "s" in index_graph(open_batch, {}).fixed


def test_weights_in_another_file(tmp_path: Path) -> None:
    """Types and sizes are known without them, their values are refused."""
    onnx.save(build(PAIR, WEIGHTS), tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0)
    index = index_graph(onnx.load(tmp_path / "a.onnx", load_external_data=False), {})
    assert index.sizes("a") == (1, 300)
    with pytest.raises(HiresvitError, match=r"constant 'w' is in another file: load the weights first"):
        index.array("w")


def test_small_constants_in_another_file_are_no_sizes(tmp_path: Path) -> None:
    model = build("g (float[2,3] x) => (y) { y = Reshape(x, s) }", {"s": np.array([3, 2])})
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0)
    index = index_graph(onnx.load(tmp_path / "a.onnx", load_external_data=False))
    assert (index.types["y"], index.sizes("y")) == ("float", None)


def test_damaged_constants() -> None:
    model = build(PAIR, WEIGHTS)
    model.graph.initializer[0].raw_data = b"abc"
    with pytest.raises(HiresvitError, match="constant 'w' does not decode"):
        index_graph(model).array("w")


def test_int8_without_a_zero_point_is_what_tensorrt_makes_of_it() -> None:
    text = "g (float[2] x) => (q) { q = QuantizeLinear(x, s) }"
    assert index_graph(build(text, {"s": np.float32(1)})).types["q"] == "int8"
    said = text.replace("(x, s)", "(x, s, z)")
    assert index_graph(build(said, {"s": np.float32(1), "z": np.uint8(0)})).types["q"] == "uint8"


def test_local_functions_are_taken_apart() -> None:
    model = build("g (float[2] x) => (float[2] y) { y = here.twice(x) }")
    model.opset_import.add(domain="here", version=1)
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("here", "twice", ["a"], ["b"], body, model.opset_import[:1]))
    whole, inlined = index_graph(model), index_graph(inline_functions(model))
    assert [node.op_type for node in whole.nodes] == ["twice"]
    assert list(whole.functions) == [("here", "twice")]
    assert [node.op_type for node in inlined.nodes] == ["Add"]
    assert inlined.functions == {}
    assert whole.sizes("y") == inlined.sizes("y") == (2,)
    broken = ModelProto()
    broken.CopyFrom(model)
    broken.functions[0].node[0].op_type, broken.functions[0].node[0].domain = "twice", "here"
    broken.functions[0].opset_import.add(domain="here", version=1)
    with pytest.raises(HiresvitError, match="local functions cannot be resolved"):
        inline_functions(broken)


def test_sizes_that_decide_no_value() -> None:
    model = build("g (float[2] x, float[2] z) => (float[2] y) { s = Shape(z) y = Expand(x, s) }")
    index = index_graph(model)
    assert is_read_as_data(index, "x")
    assert not is_read_as_data(index, "z")


def test_a_node_without_a_name_has_the_parsers() -> None:
    assert parser_name(helper.make_node("Relu", ["x"], ["y"])) == "node_of_y"
    assert parser_name(helper.make_node("Relu", ["x"], ["y"], "m/Relu")) == "m/Relu"


def test_one_domain_by_two_names() -> None:
    model = build("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.opset_import[0].domain = model.graph.node[0].domain = "ai.onnx"
    index = index_graph(model)
    assert (index.opset, index.sizes("y"), index.complaint) == (20, (2,), "")
    del model.opset_import[:]
    assert index_graph(model).opset is None


def test_an_initializer_that_is_listed_as_an_input_is_not_fed() -> None:
    model = build(PAIR, WEIGHTS)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, ["any", "size"]))
    index = index_graph(model, {})
    assert list(index.inputs) == ["x"]
    assert index.sizes("a") == (1, 300)
