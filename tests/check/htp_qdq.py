"""Q/DQ around every operator of a small graph, in forms that Qualcomm's compiler takes and in those that it does not.

Not the product's writer: the corpus needs the wrong forms as well, and a second hand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from graphs import run
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

BOUNDS = {"uint8": (0, 255), "uint16": (0, 65535), "int8": (-127, 127), "int16": (-32767, 32767)}
SHARING = frozenset({"Expand", "Flatten", "Gather", "MaxPool", "Reshape", "Resize", "Squeeze", "Tile", "Transpose"})
NORMS = ("InstanceNormalization", "LayerNormalization")


@dataclass
class Quantizer:
    """How a graph is quantized: ``kind`` for all activations, ``kinds`` for some; and what is left alone.

    ``bare`` are tensors without Q/DQ, ``norm`` the type of a norm's scale, ``ranges`` those of some tensors;
    ``sharing`` are operators whose result gets the range of their operand, ``axis`` that of a weight's scales.
    """

    kind: str = "uint8"
    kinds: Mapping[str, str] = field(default_factory=dict)
    bare: Collection[str] = ()
    norm: str = "uint8"
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sharing: Collection[str] = SHARING
    axis: int | None = None

    def __call__(self, model: ModelProto) -> None:
        """Quantize a graph in FP32 in place."""
        self.model, self.scales, self.nodes = model, dict[str, Any](), list[NodeProto]()
        graph = model.graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        outputs = {value.name for value in graph.output}
        self.spans = self._spans()
        renamed = {name: name for name in self.spans}
        for value in graph.input:
            if value.name in self.spans and value.name not in self.bare:
                self._pair(value.name, value.name, f"{value.name}_d")
                renamed[value.name] = f"{value.name}_d"
        for node in [*graph.node]:
            for k, name in enumerate(node.input):
                node.input[k] = renamed.get(name, name)
                constant = self.constants.get(name)
                if constant is not None and constant.dtype == np.float32 and name not in self.bare:
                    node.input[k] = self._constant(node, k, name)
            self.nodes.append(node)
            for k, name in enumerate(node.output):
                if name in self.spans and name not in self.bare:
                    node.output[k] = f"{name}_f"
                    renamed[name] = name if name in outputs else f"{name}_d"
                    self._pair(name, f"{name}_f", renamed[name])
        nodes = list(map(_copied, self.nodes))
        del graph.node[:]
        graph.node.extend(nodes)

    def _spans(self) -> dict[str, tuple[float, float]]:
        """The range of every activation in FP32, with 0 in it."""
        probe = ModelProto()
        probe.CopyFrom(self.model)
        found = onnx.shape_inference.infer_shapes(self.model).graph
        values = {value.name: value for value in (*found.input, *found.value_info, *found.output)}
        values = {name: v for name, v in values.items() if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        del probe.graph.output[:]
        probe.graph.output.extend(values.values())
        results = zip(values, run(probe, feeds_of(self.model)), strict=True)
        spans = {name: (min(0.0, float(v.min())), max(0.0, float(v.max()))) for name, v in results} | dict(self.ranges)
        for node in self.model.graph.node:
            if node.op_type in self.sharing and node.output[0] in spans and node.input[0] in spans:
                spans[node.output[0]] = spans[node.input[0]]
        return spans

    def _store(self, name: str, value: Any) -> str:
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _pair(self, name: str, read: str, made: str) -> None:
        kind = self.kinds.get(name, self.kind)
        scale, zero = _grid(*self.spans[name], kind)
        self.scales[name] = scale
        rest = [self._store(f"{name}_s", scale), self._store(f"{name}_z", zero)]
        self.nodes.append(helper.make_node("QuantizeLinear", [read, *rest], [f"{name}_q"], f"{name}/Q"))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *rest], [made], f"{name}/DQ"))

    def _constant(self, node: NodeProto, index: int, name: str) -> str:
        """The name of a constant that is dequantized."""
        values, axis = self.constants[name], None
        weighs = node.op_type in ("Conv", "Gemm", "MatMul")
        if weighs and index == 1:
            axis = 0 if node.op_type == "Conv" else values.ndim - 1
            axis = axis if self.axis is None else self.axis
            across = tuple(k for k in range(values.ndim) if k != axis)
            scale = (np.abs(values).max(axis=across, keepdims=True) / 127).astype(np.float32)
            stored, zero = np.round(values / scale).astype(np.int8), np.zeros(scale.size, np.int8)
            scale = self.weight_scale = scale.flatten()
        elif index == 2 and (weighs or node.op_type in NORMS):
            data = node.input[0].removesuffix("_d")
            scale = self.weight_scale * self.scales[data] if weighs else np.float32(2.0**-20)
            axis, zero = (0 if weighs else None), np.zeros(np.shape(scale), np.int32)
            stored = np.round(values / scale).astype(np.int32)
        else:
            kind = self.norm if node.op_type in NORMS else self.kinds.get(name, self.kind)
            scale, zero = _grid(min(0.0, float(values.min())), max(0.0, float(values.max())), kind)
            stored = np.clip(np.round(values / scale) + zero, *BOUNDS[kind]).astype(kind)
        rest = [self._store(f"{name}_{part}", value) for part, value in zip("qsz", (stored, scale, zero), strict=True)]
        more: dict[str, Any] = {} if axis is None else {"axis": axis}
        self.nodes.append(helper.make_node("DequantizeLinear", rest, [f"{name}_d"], f"{name}/DQ", **more))
        return f"{name}_d"


def feeds_of(model: ModelProto) -> dict[str, Any]:
    """Noise for each input: positive and more than a few for pixels."""
    constants, noise = {tensor.name for tensor in model.graph.initializer}, np.random.default_rng(0)
    feeds = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        if value.name not in constants:
            shape = [dim.dim_value or 1 for dim in tensor.shape.dim]
            kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            drawn = noise.integers(256, size=shape) if kind == np.uint8 else noise.standard_normal(shape)
            feeds[value.name] = drawn.astype(kind)
    return feeds


def _grid(low: float, high: float, kind: str) -> tuple[np.float32, Any]:
    """Scale and zero point: symmetric where the type has a sign."""
    least, most = BOUNDS[kind]
    if kind.startswith("int"):
        return np.float32(max(-low, high) / most or 1), np.array(0, kind)
    scale = (high - low) / most or 1
    return np.float32(scale), np.array(np.clip(round(-low / scale), least, most), kind)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
