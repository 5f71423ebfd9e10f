"""Graph rewrites of our own: what neither the exporter nor onnxsim does. Each is exact; each changes in place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import onnx
from onnx import helper

from hiresvit.errors import IllegalGraphError


def rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    """All rewrites, on a copy."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    drop_identities(out.graph)
    share_constants(out.graph)
    return out


def replace_all(field: Any, values: Iterable[Any]) -> None:
    """Give a repeated protobuf field new content, some of which may be its own."""
    copies = list(values)
    del field[:]
    field.extend(copies)


def drop_identities(graph: onnx.GraphProto) -> None:
    """Connect the readers of each Identity to its source. One that names a graph output stays."""
    outputs = {value.name for value in graph.output}
    source = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity" and n.output[0] not in outputs}
    for node in graph.node:
        for index, name in enumerate(node.input):
            while name in source:
                name = source[name]  # noqa: PLW2901
            node.input[index] = name
    replace_all(graph.node, [n for n in graph.node if n.output[0] not in source])


def share_constants(graph: onnx.GraphProto) -> None:
    """Keep one initializer for each value (shapes, masks, zero biases) and drop those that nothing reads.

    One that is also an input (its default, which a caller may replace) or an output stays as it is.
    """
    border = {value.name for value in (*graph.input, *graph.output)}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    shared: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.name in border:
            continue
        value = onnx.numpy_helper.to_array(tensor)
        key = (tensor.data_type, tuple(tensor.dims), hashlib.sha256(value.tobytes()).digest())
        shared[tensor.name] = first.setdefault(key, tensor.name)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = shared.get(name, name)
    read = {name for node in graph.node for name in node.input} | border
    replace_all(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in read])


# What opset 18 added to operators of our graphs, where the default is what opset 17 does anyway.
_ADDED_IN_18: dict[str, dict[str, Any]] = {
    "ReduceMean": {"noop_with_empty_axes": 0},
    "Resize": {"antialias": 0, "axes": None, "keep_aspect_ratio_policy": b"stretch"},
    "Split": {"num_outputs": None},
}


def lower_to_opset_17(model: onnx.ModelProto) -> None:
    """Rewrite an opset-18 graph for opset 17. Raises IllegalGraphError on a node that has no form there."""
    for node in model.graph.node:
        added = _ADDED_IN_18.get(node.op_type, {})
        for attribute in [a for a in node.attribute if a.name in added]:
            if attribute.name == "num_outputs" and len(node.input) < 2:
                pass  # opset 17 splits evenly into as many outputs as are named
            elif helper.get_attribute_value(attribute) != added[attribute.name]:
                raise IllegalGraphError(f"{node.name}: {attribute.name} has no form in opset 17; use 18 or later")
            node.attribute.remove(attribute)
        if node.op_type == "ReduceMean" and len(node.input) > 1:
            _axes_to_attribute(model, node)
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = 17


def _axes_to_attribute(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Opset 18 moved the reduced axes from an attribute to an input."""
    for initializer in model.graph.initializer:
        if initializer.name == node.input[1]:
            axes = onnx.numpy_helper.to_array(initializer).tolist()
            if axes:  # none means all, in either form
                node.attribute.append(helper.make_attribute("axes", axes))
            del node.input[1:]
            return
    raise IllegalGraphError(f"{node.name}: reduced axes that are computed have no form in opset 17")
