"""Counting the attentions of an ONNX graph, without building it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hiresvit.graph.attentions import count_attentions

CONSTANTS: dict[str, np.ndarray[Any, Any]] = {
    "c": np.ones((), np.float16),
    "shape": np.array([1, 8, 8], np.int64),
    "zero": np.zeros((), np.int8),
    "w": np.ones((8, 8), np.float16),
}


def make_model(nodes: list[Any]) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 8, 8]) for name in "xy")
    weights = [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()]
    return helper.make_model(helper.make_graph(nodes, "test", [x], [y], weights))


def attention_nodes(between: list[tuple[str, list[str]]], after: list[tuple[str, list[str]]]) -> list[Any]:
    """x @ x^T, the ops of ``between`` (with their extra operands), Softmax, those of ``after``, @ x."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "k"], ["t"]),
    ]
    for index, (op, extra) in enumerate([*between, ("Softmax", []), *after]):
        attributes: dict[str, Any] = {"to": TensorProto.FLOAT} if op == "Cast" else {}
        nodes.append(helper.make_node(op, [nodes[-1].output[0], *extra], [f"t{index}"], **attributes))
    nodes.append(helper.make_node("MatMul", [nodes[-1].output[0], "x"], ["y"]))
    return nodes


@pytest.mark.parametrize(
    ("between", "after"),
    [
        ([], []),
        ([("Mul", ["c"])], []),
        ([("Div", ["c"]), ("Add", ["c"])], []),
        ([("Reshape", ["shape"]), ("Add", ["c"]), ("Reshape", ["shape"])], [("Reshape", ["shape"])]),
        ([("Cast", [])], [("Cast", [])]),
        (
            [("QuantizeLinear", ["c", "zero"]), ("DequantizeLinear", ["c", "zero"])],
            [("QuantizeLinear", ["c", "zero"]), ("DequantizeLinear", ["c", "zero"])],
        ),
    ],
    ids=["plain", "scale", "scale-mask", "reshaped", "fp32-island", "qdq"],
)
def test_attention_is_counted(between: list[tuple[str, list[str]]], after: list[tuple[str, list[str]]]) -> None:
    assert count_attentions(make_model(attention_nodes(between, after))) == 1


def test_what_is_no_attention() -> None:
    node = helper.make_node
    linear = [node("Transpose", ["w"], ["wt"]), node("MatMul", ["x", "wt"], ["h"])]
    classifier = [*linear, node("Softmax", ["h"], ["y"])]
    gate = [*linear, node("Softmax", ["h"], ["g"]), node("MatMul", ["g", "x"], ["y"])]
    pooled = [*attention_nodes([], [])[:3], node("MatMul", ["t0", "w"], ["y"])]
    for nodes in (classifier, gate, pooled):
        assert count_attentions(make_model(nodes)) == 0


def test_attention_node_is_counted() -> None:
    assert count_attentions(make_model([helper.make_node("Attention", ["x", "x", "x"], ["y"])])) == 1
