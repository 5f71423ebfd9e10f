"""A graph for ONNX Runtime's CPU kernels only: what is faster there and would break a fusion in TensorRT."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from hiresvit.export.rewrites import share_constants

Constants = dict[str, NDArray[Any]]


def for_cpu(model: ModelProto) -> ModelProto:
    """Return a copy in which every LayerNormalization over rows of a known number is an InstanceNormalization.

    The two are the same sum: a row of C numbers is normalised by its own mean and variance, whether it is called
    a token of C channels or a channel of C pixels. ONNX Runtime 1.31's LayerNormalization is
    slower with two threads than with one when rows are many and short, and takes twice as long in HRViT-b1 as
    InstanceNormalization (docs/performance.md). A norm stays as it is if its number of rows is not static (a dynamic
    batch), if it spans several axes, if its affine is computed, or if its mean is read too.
    """
    out = ModelProto()
    out.CopyFrom(model)
    shapes = _shapes(out)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in out.graph.initializer}
    nodes: list[NodeProto] = []
    for node in out.graph.node:
        if _normalises_rows(node, constants) and len(rows := shapes.get(node.input[0], [])) == 2:
            nodes += _instance_norm(out.graph, node, rows, constants)
        else:
            nodes.append(node)
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    del out.graph.value_info[:]
    share_constants(out.graph)  # drops the affines of ones and zeros
    return out


def _normalises_rows(node: NodeProto, constants: Constants) -> bool:
    """Whether it is a LayerNormalization of the last axis, in float32, with a constant affine and one result."""
    return (
        node.op_type == "LayerNormalization"
        and len(node.output) == 1
        and all(attribute.i in (-1, 1) for attribute in node.attribute if attribute.name == "axis")
        and all(name in constants for name in node.input[1:] if name)
        and constants[node.input[1]].dtype == np.float32
    )


def _shapes(model: ModelProto) -> dict[str, list[int]]:
    """Static shapes of all values; a value with a symbolic axis is left out."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = [dim.dim_value for dim in dims]
    return shapes


def _instance_norm(
    graph: GraphProto, node: NodeProto, rows: list[int], constants: Constants
) -> list[NodeProto]:
    count, channels = rows
    scale, bias = constants[node.input[1]], constants.get(node.input[2] if len(node.input) > 2 else "")
    source, target = node.input[0], node.output[0]
    name = node.name or target  # two nodes of one name are an error in ONNX Runtime
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    ones = _constant(graph, constants, f"cpu/ones_{count}", np.ones(count, np.float32))
    zeros = _constant(graph, constants, f"cpu/zeros_{count}", np.zeros(count, np.float32))
    wide = _constant(graph, constants, f"cpu/sample_{count}x{channels}", np.array([1, *rows], np.int64))
    flat = _constant(graph, constants, f"cpu/rows_{count}x{channels}", np.array(rows, np.int64))
    steps = [("Reshape", [wide]), ("InstanceNormalization", [ones, zeros]), ("Reshape", [flat])]
    if not np.all(scale == 1):
        steps.append(("Mul", [node.input[1]]))
    if bias is not None and np.any(bias):
        steps.append(("Add", [node.input[2]]))
    made = []
    for index, (op, extra) in enumerate(steps):
        result = target if index == len(steps) - 1 else f"{target}/{op}_{index}"
        made.append(helper.make_node(op, [source, *extra], [result], f"{name}/{op}_{index}"))
        source = result
    made[1].attribute.append(helper.make_attribute("epsilon", epsilon))
    return made


def _constant(graph: GraphProto, constants: Constants, name: str, value: NDArray[Any]) -> str:
    if name not in constants:
        constants[name] = value
        graph.initializer.append(numpy_helper.from_array(value, name))
    return name
