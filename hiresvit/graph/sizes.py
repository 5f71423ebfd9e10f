"""Sizes that a graph computes: PyTorch's TorchScript exporter writes many that are known, such as those of a repeat.

ONNX's own inference follows few operators on the way from a Shape to what is given a size, and leaves the rest of the
graph without sizes where it loses one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

_LARGEST = 1024  # numbers of an array that is one of sizes
_FOLLOWED = frozenset(
    {
        *("Add", "And", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather"),
        *("Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Reshape", "Shape", "Slice"),
        *("Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
    }
)
_MAKES = frozenset({"ConstantOfShape", "Expand"})  # as much as their last operand says

Sizes = Mapping[str, tuple[int | None, ...]]


def with_computed(model: ModelProto, shapes: Sizes) -> ModelProto | None:
    """The same graph with constants for what `computed_sizes` finds; None if it finds nothing."""
    values = computed_sizes(model, shapes)
    if not values:
        return None
    known = ModelProto()
    known.CopyFrom(model)
    del known.graph.node[:]
    known.graph.node.extend(node for node in model.graph.node if not values.keys() & set(node.output))
    for name, value in values.items():
        tensor = numpy_helper.from_array(value, name)
        known.graph.initializer.append(tensor)
        known.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    return known


def computed_sizes(model: ModelProto, shapes: Sizes) -> dict[str, NDArray[np.generic]]:
    """What small nodes of a graph, in their order, compute of constants and of ``shapes`` alone, by output name;
    without the constants."""
    values: dict[str, NDArray[np.generic]] = {}
    for tensor in model.graph.initializer:
        with suppress(Exception):  # of any kind, of one that is damaged
            values[tensor.name] = numpy_helper.to_array(tensor)
    found: dict[str, NDArray[np.generic]] = {}
    for node in model.graph.node:
        if node.op_type not in _FOLLOWED or node.domain or len(node.output) != 1:
            continue
        if not node.input and node.op_type != "Constant":  # damaged: it is another's to say so
            continue
        if node.op_type == "Shape":
            value = _shape(node, shapes.get(node.input[0], (None,)))
        else:
            operands = [values.get(name) for name in node.input if name]
            value = _computed(model, node, [one for one in operands if one is not None], count=len(operands))
        if value is not None and value.size <= _LARGEST:
            values[node.output[0]] = value
            if node.op_type != "Constant":
                found[node.output[0]] = value
    return found


def _shape(node: NodeProto, shape: Iterable[int | None]) -> NDArray[np.generic] | None:
    sizes = list(shape)
    if node.attribute or None in sizes:  # a part of a shape is left to ONNX
        return None
    return np.array(sizes, np.int64)


def _computed(
    model: ModelProto, node: NodeProto, operands: list[NDArray[np.generic]], *, count: int
) -> NDArray[np.generic] | None:
    """What a node makes of its operands; None unless all ``count`` are known and it makes little of them."""
    if len(operands) != count or sum(one.size for one in operands) > _LARGEST:
        return None
    if node.op_type in _MAKES and not 0 <= np.prod(operands[-1].astype(np.float64)) <= _LARGEST:
        return None
    alone = NodeProto()
    alone.CopyFrom(node)
    names = [name for name in node.input if name]
    graph = onnx.helper.make_graph([alone], "node", [], [])
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    graph.output.add(name=node.output[0])
    try:
        whole = onnx.helper.make_model(graph, opset_imports=list(model.opset_import))
        [value] = ReferenceEvaluator(whole).run(None, dict(zip(names, operands, strict=True)))
    except Exception:
        return None
    return np.asarray(value)
