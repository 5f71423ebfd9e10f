"""The bodies of an If, a Loop or a Scan, each indexed with what is known around it."""

from __future__ import annotations

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from hiresvit.graph.index import GraphIndex, index_graph, names_read

_SMALL = 4096  # bytes of a constant from around a body that is one in its index too


def index_bodies(index: GraphIndex, node: NodeProto) -> dict[str, GraphIndex]:
    """The bodies of a node, by the names of their attributes; none for most.

    What a body reads from around it is an input of its index, and a constant if it is a small one there. What a Loop
    carries has the type and the sizes that go in first.
    """
    return {a.name: _index_body(index, node, a.g) for a in node.attribute if a.type == onnx.AttributeProto.GRAPH}


def _index_body(index: GraphIndex, node: NodeProto, graph: GraphProto) -> GraphIndex:
    body = ModelProto(ir_version=8, graph=graph)  # with a copy of the graph
    for domain, version in index.opsets.items():
        body.opset_import.add(domain=domain, version=version)
    if node.op_type == "Loop":
        for value, name in zip(body.graph.input, ("", "", *node.input[2:]), strict=False):
            _describe(index, name, value)
    inside = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    inside.update(name for inner in graph.node for name in inner.output)
    read = {name for inner in graph.node for name in names_read(inner)} | {value.name for value in graph.output}
    outer = sorted(read - inside)
    for name in outer:
        constant = index.constants.get(name)
        if constant is None or constant.data_location == TensorProto.EXTERNAL or constant.ByteSize() > _SMALL:
            _describe(index, name, body.graph.input.add(name=name))
        else:
            body.graph.initializer.add().CopyFrom(constant)
            body.graph.initializer[-1].name = name  # that of a Constant node may have another
    return index_graph(body, around=index.fixed.intersection(outer))


def _describe(index: GraphIndex, name: str, value: ValueInfoProto) -> None:
    """Give a value the type and the sizes of a tensor of the graph around it, as far as they are known."""
    kind = index.types.get(name, "").upper()
    code = dict(TensorProto.DataType.items()).get(kind)
    if name in index.shapes and code:
        value.type.CopyFrom(helper.make_tensor_type_proto(code, index.shapes[name]))
