"""A part of a graph computes what it computes in the whole."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from graphs import build, indexed, noise, run
from onnx import ModelProto, ValueInfoProto, helper

from hiresvit.graph.cut import cut_out, find_steps, stand_alone, steps_before, without_step
from hiresvit.graph.index import GraphIndex

GRAPH = """g (float[2,4] x) => (float[2,4] y, float[2,2] side) {
    shape = Shape(w)
    like = ConstantOfShape(shape)
    a = Mul(x, w)
    a_q = QuantizeLinear(a, scale, zero)
    a_dq = DequantizeLinear(a_q, scale, zero)
    b = Relu(a_dq)
    left, right = Split<axis = 1, num_outputs = 2>(b)
    side = Tanh(right)
    c = Concat<axis = 1>(side, left)
    d = Add(c, like)
    y = Sub(d, b)
}"""


def quantized() -> ModelProto:
    weights = {"w": noise(2, 4, seed=3), "scale": np.float32(0.05), "zero": np.uint8(128)}
    return build(GRAPH, weights)


def test_any_steps_alone_compute_what_they_compute_in_the_whole() -> None:
    model, feeds = quantized(), {"x": noise(2, 4)}
    index = indexed(model)
    steps = find_steps(index)
    assert [node.op_type for node in steps] == ["Mul", "Relu", "Split", "Tanh", "Concat", "Add", "Sub"]
    names = [name for node in model.graph.node for name in node.output if name not in index.fixed]
    marked = ModelProto()
    marked.CopyFrom(model)
    del marked.graph.output[:]
    marked.graph.output.extend(typed(index, name) for name in names)
    values = dict(zip(names, run(marked, feeds), strict=True)) | feeds
    for length in range(1, len(steps) + 1):
        for chosen in combinations(steps, length):
            part = cut_out(index, chosen)
            assert part is not None
            alone = stand_alone(model, part, values)
            assert [n.op_type for n in find_steps(indexed(alone))] == [n.op_type for n in chosen]
            for output in alone.graph.output:
                output.CopyFrom(typed(index, output.name))
            for name, value in zip(part.outputs, run(alone, {n: values[n] for n in part.inputs}), strict=True):
                np.testing.assert_array_equal(value, values[name])


def typed(index: GraphIndex, name: str) -> ValueInfoProto:
    """As the checker wants the outputs of a graph."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(index.dtype(name)))
    return helper.make_tensor_value_info(name, kind, index.sizes(name))


def test_a_part_of_a_quantized_graph_has_the_pairs_on_both_sides() -> None:
    index = indexed(quantized())
    steps = {node.op_type: node for node in find_steps(index)}
    before, behind = cut_out(index, [steps["Mul"]]), cut_out(index, [steps["Relu"]])
    assert before is not None
    assert behind is not None
    assert [n.op_type for n in before.nodes] == ["Mul", "QuantizeLinear", "DequantizeLinear"]
    assert before.outputs == ("a_dq",)
    assert [n.op_type for n in behind.nodes] == ["QuantizeLinear", "DequantizeLinear", "Relu"]
    assert behind.inputs == ("a",)
    add = cut_out(index, [steps["Add"]])
    assert add is not None
    assert [n.op_type for n in add.nodes] == ["Shape", "ConstantOfShape", "Add"]


def test_steps_before_a_tensor_are_the_nearest_first() -> None:
    index = indexed(quantized())
    assert [n.op_type for n in steps_before(index, "c")] == ["Concat", "Split", "Tanh", "Relu", "Mul"]
    assert steps_before(index, "x") == []


@pytest.mark.parametrize(("op", "reads"), [("Relu", "a_dq"), ("Add", "c"), ("Tanh", "right")])
def test_a_step_is_left_out_where_its_readers_can_read_what_it_read(op: str, reads: str) -> None:
    model = quantized()
    index = indexed(model)
    step = next(node for node in index.nodes if node.op_type == op)
    left = without_step(model, index, step)
    assert left is not None
    assert op not in {node.op_type for node in left.graph.node}
    assert any(reads in node.input for node in left.graph.node if node.op_type != "Split" or op == "Relu")
    assert indexed(left).complaint == ""


@pytest.mark.parametrize("op", ["Split", "Concat"])
def test_a_step_of_another_size_or_of_several_results_stays(op: str) -> None:
    model = quantized()
    index = indexed(model)
    assert without_step(model, index, next(node for node in index.nodes if node.op_type == op)) is None
