"""A graph for ONNX Runtime's CPU kernels only: what is faster there and would break a fusion in TensorRT."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hiresvit.export.rewrites import replace_all, share_constants
from hiresvit.graph.index import GraphIndex, index_graph


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
    index = index_graph(out)
    added: dict[str, NDArray[Any]] = {}
    nodes: list[NodeProto] = []
    for node in out.graph.node:
        rows = index.sizes(node.input[0]) if _normalises_rows(index, node) else None
        if rows is not None and len(rows) == 2:
            nodes += _instance_norm(index, node, rows, added)
        else:
            nodes.append(node)
    replace_all(out.graph.node, nodes)
    del out.graph.value_info[:]
    out.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in added.items())
    share_constants(out.graph)  # drops the affines of ones and zeros
    return out


def _normalises_rows(index: GraphIndex, node: NodeProto) -> bool:
    """Whether it is a LayerNormalization of the last axis, in float32, with a constant affine and one result."""
    return (
        node.op_type == "LayerNormalization"
        and len(node.output) == 1
        and all(attribute.i in (-1, 1) for attribute in node.attribute if attribute.name == "axis")
        and all(name in index.constants and name not in index.producer for name in node.input[1:] if name)
        and index.type_of(node, 1) == "float"
    )


def _instance_norm(
    index: GraphIndex, node: NodeProto, rows: tuple[int, ...], added: dict[str, NDArray[Any]]
) -> list[NodeProto]:
    """The nodes in place of a norm; the constants that they need go to ``added``."""
    count, channels = rows
    scale, bias = index.array(node.input[1]), index.array(node.input[2] if len(node.input) > 2 else "")
    source, target = node.input[0], node.output[0]
    name = node.name or target  # two nodes of one name are an error in ONNX Runtime
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    ones, zeros = f"cpu/ones_{count}", f"cpu/zeros_{count}"
    wide, flat = f"cpu/sample_{count}x{channels}", f"cpu/rows_{count}x{channels}"
    added |= {ones: np.ones(count, np.float32), zeros: np.zeros(count, np.float32)}
    added |= {wide: np.array([1, *rows], np.int64), flat: np.array(rows, np.int64)}
    steps = [("Reshape", [wide]), ("InstanceNormalization", [ones, zeros]), ("Reshape", [flat])]
    if scale is None or not np.all(scale == 1):
        steps.append(("Mul", [node.input[1]]))
    if bias is not None and np.any(bias):
        steps.append(("Add", [node.input[2]]))
    made = []
    for number, (op, extra) in enumerate(steps):
        result = target if number == len(steps) - 1 else f"{target}/{op}_{number}"
        made.append(helper.make_node(op, [source, *extra], [result], f"{name}/{op}_{number}"))
        source = result
    made[1].attribute.append(helper.make_attribute("epsilon", epsilon))
    return made
