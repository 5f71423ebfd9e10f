"""Small graphs with Q/DQ as Qualcomm's compiler takes them, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from graphs import noise
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_LEAST = {"uint8": 0, "uint16": 0, "int8": -128, "int16": -32768}
_ENTRIES = {"uint8": 255, "uint16": 65535, "int8": 255, "int16": 65535}


class Quantized:
    """A graph that is written node by node; every activation lies in -4 to 4."""

    def __init__(self, kind: str = "uint16") -> None:
        self.kind = kind
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Any] = {}

    def point(self, name: str, kind: str | None = None) -> str:
        """The same tensor behind Q/DQ of a type."""
        kind = kind or self.kind
        quantized, back = f"{name}_{kind}_q", f"{name}_{kind}"
        symmetric = kind.startswith("int")
        self.constants[f"{back}_s"] = np.float32(8 / _ENTRIES[kind])
        self.constants[f"{back}_z"] = np.array(0 if symmetric else (_ENTRIES[kind] + 1) // 2, kind)
        ends = [f"{back}_s", f"{back}_z"]
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *ends], [quantized], name=f"{back}/Q"))
        self.nodes.append(helper.make_node("DequantizeLinear", [quantized, *ends], [back], name=f"{back}/DQ"))
        return back

    def add(self, op: str, inputs: list[str], name: str, kind: str | None = None, **attributes: Any) -> str:
        """A node ``NAME/OP`` with its Q/DQ behind it."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{name}/{op}", **attributes))
        return self.point(name, kind)

    def weights(self, name: str, values: np.ndarray[Any, Any]) -> str:
        """Weights in int8, per channel of axis 0, behind their DQ."""
        scale = np.abs(values).reshape(len(values), -1).max(1).astype(np.float32) / 127
        steps = values / scale.reshape(-1, *[1] * (values.ndim - 1))
        self.constants |= {f"{name}_q": np.rint(steps).astype(np.int8), f"{name}_s": scale}
        self.constants[f"{name}_z"] = np.zeros(len(values), np.int8)
        ends = [f"{name}_{part}" for part in "qsz"]
        self.nodes.append(helper.make_node("DequantizeLinear", ends, [name], name=f"{name}/DQ", axis=0))
        return name

    def model(self, inputs: Mapping[str, tuple[int, ...]], output: str, shape: tuple[int, ...]) -> ModelProto:
        feeds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in inputs.items()]
        ends = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "g", feeds, ends, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


def attention(kind: str = "uint16", second: str = "int16") -> ModelProto:
    """A convolution and a product of two activations, of which the second operand is of another type."""
    g = Quantized(kind)
    x = g.point("x")
    a = g.add("Conv", [x, g.weights("w", noise(8, 3, 3, 3) * 0.2)], "stem", pads=[1, 1, 1, 1])
    b = g.add("Relu", [a], "stem.act")
    g.constants["shape"] = np.array([1, 8, 64])
    c = g.add("Reshape", [b, "shape"], "block.flat")
    d = g.add("Transpose", [c], "block.turned", second, perm=[0, 2, 1])
    e = g.add("MatMul", [c, d], "block.attn")
    return g.model({"x": (1, 3, 8, 8)}, e, (1, 8, 8))
