"""A graph for TensorRT only: neighbours of a pixel as slices of a map, which its generated kernels take in.

Myelin joins elementwise operators, slices, concatenations and norms into one kernel, but puts nothing in front of
a convolution and only sums and activations behind it; nor does it join a Resize with the norm behind it, or with
another Resize.
Written as sums of slices both are elementwise: a depthwise convolution and the norm that reads it are then one kernel,
which reads the map once, and so are a resize, the sum it goes into, and the norm of the sum (docs/lrformer.md).
ONNX Runtime computes a graph node by node: there a convolution is better.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hiresvit.export.rewrites import replace_all, share_constants
from hiresvit.graph.index import GraphIndex, attributes, index_graph, operand

# What moves numbers about and computes none.
_VIEWS = frozenset({"Concat", "Reshape", "Slice", "Split", "Transpose"})
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]  # channels last, and back
_HALF_PIXEL = (b"half_pixel", b"pytorch_half_pixel")  # the same where a map is more than a pixel wide


class _Steps:
    """Nodes that are written one after the other, and the constants that they read."""

    def __init__(self, node: NodeProto, constants: dict[str, NDArray[Any]]) -> None:
        self.name, self.target = node.name or node.output[0], node.output[0]
        self.constants = constants
        self.nodes: list[NodeProto] = []

    def constant(self, value: NDArray[Any]) -> str:
        """The name of a new constant; equal ones are shared afterwards."""
        name = f"{self.target}/stencil_{len(self.constants)}"
        self.constants[name] = value
        return name

    def add(self, op: str, *inputs: str | NDArray[Any], target: str | None = None, **extra: Any) -> str:
        """Write a node and return what it makes; arrays become constants."""
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        number = len(self.nodes)
        made = target or f"{self.target}/{op}_{number}"
        self.nodes.append(helper.make_node(op, names, [made], f"{self.name}_{op}_{number}", **extra))
        return made

    def slice(self, x: str, start: int, end: int, axis: int) -> str:
        """Part of a tensor along an axis."""
        return self.add("Slice", x, np.array([start]), np.array([end]), np.array([axis]))

    def sum(self, terms: Sequence[str]) -> str:
        """Terms added in their order."""
        total = terms[0]
        for term in terms[1:]:
            total = self.add("Add", total, term)
        return total


def with_stencils(model: ModelProto) -> ModelProto:
    """Return a copy of an FP32 graph in which what stands in front of a norm can be one kernel with it.

    That is a depthwise 3x3 convolution of stride 1 that a LayerNormalization reads, but none that reads such a norm
    itself (TensorRT then cuts that norm in two); and a bilinear Resize by a whole factor that goes into a sum that
    a LayerNormalization reads, or that is added to another Resize. Transposes and other views may lie between. Tensors
    keep their names, all else stays as it is. Exact but for the order of sums, and for infinities at a map's
    border. Raises HiresvitError for a graph that cannot be read.
    """
    out = ModelProto()
    out.CopyFrom(model)
    index = index_graph(out)
    added: dict[str, NDArray[Any]] = {}
    nodes: list[NodeProto] = []
    for node in out.graph.node:
        make = _RULES.get(node.op_type)
        steps = make(index, node, added) if make else None
        nodes += [node] if steps is None else steps.nodes
    replace_all(out.graph.node, nodes)
    del out.graph.value_info[:]
    out.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in added.items())
    share_constants(out.graph)
    return out


def _reads_norm(index: GraphIndex, name: str) -> bool:
    """Whether a tensor is a norm's result, or a view of it."""
    node = index.producer.get(name)
    return node is not None and (
        node.op_type == "LayerNormalization" or (node.op_type in _VIEWS and _reads_norm(index, node.input[0]))
    )


def _feeds_norm(index: GraphIndex, name: str, through: Collection[str]) -> bool:
    """Whether a LayerNormalization reads a tensor, or views of it, or views of what operators of ``through`` make."""
    for node, _ in index.reads(name):
        if node.op_type == "LayerNormalization":
            return True
        if node.op_type in through and any(_feeds_norm(index, made, _VIEWS) for made in node.output):
            return True
    return False


def _map_sizes(index: GraphIndex, name: str) -> list[int] | None:
    """(C, H, W) of a float32 map that is at least two pixels high and wide; None for any other tensor."""
    sizes = [size for size in index.shapes.get(name, ())[1:] if size is not None]
    return sizes if len(sizes) == 3 and min(sizes[1:]) > 1 and index.types.get(name) == "float" else None


def _convolution(index: GraphIndex, node: NodeProto, added: dict[str, NDArray[Any]]) -> _Steps | None:
    """A convolution as nine slices, each times its weights; None for what is not such a convolution."""
    given, weight, sizes = attributes(node), index.array(node.input[1]), _map_sizes(index, node.input[0])
    if weight is None or sizes is None or weight.shape != (sizes[0], 1, 3, 3) or given.get("pads") != [1, 1, 1, 1]:
        return None
    if {*given.get("strides", [1]), *given.get("dilations", [1])} != {1} or _reads_norm(index, node.input[0]):
        return None
    if not _feeds_norm(index, node.output[0], _VIEWS):
        return None
    steps = _Steps(node, added)
    x = steps.add("Transpose", node.input[0], perm=_LAST)
    for axis in (1, 2):
        # A Pad's zeros are a tensor, which TensorRT makes once and keeps for all maps of a size.
        edge = steps.add("Mul", steps.slice(x, 0, 1, axis), np.zeros(1, np.float32))
        x = steps.add("Concat", edge, x, edge, axis=axis)
    terms = []
    for top in range(3):
        for left in range(3):
            ends = [top + sizes[1], left + sizes[2]]
            part = steps.add("Slice", x, np.array([top, left]), np.array(ends), np.array([1, 2]))
            terms.append(steps.add("Mul", part, np.ascontiguousarray(weight[:, 0, top, left])))
    bias = [name] if (name := operand(node, 2)) else []
    steps.add("Transpose", steps.sum([*terms, *bias]), perm=_FIRST, target=node.output[0])
    return steps


def _resize(index: GraphIndex, node: NodeProto, added: dict[str, NDArray[Any]]) -> _Steps | None:
    """A resize as two sums of three neighbours, rows first; None for what is not such a resize."""
    given, scales, sizes = attributes(node), index.array(operand(node, 2)), _map_sizes(index, node.input[0])
    if scales is None or sizes is None or given.get("mode") != b"linear" or operand(node, 3):
        return None
    factor = round(float(scales[-1]))
    if factor < 2 or scales.tolist() != [1, 1, factor, factor]:
        return None
    if given.get("coordinate_transformation_mode", b"half_pixel") not in _HALF_PIXEL or given.get("axes"):
        return None
    if not (_feeds_norm(index, node.output[0], ("Add",)) or _meets_resize(index, node)):
        return None
    steps = _Steps(node, added)
    x = steps.add("Transpose", node.input[0], perm=_LAST)
    shape = [-1, *sizes[1:], sizes[0]]
    for axis in (1, 2):
        x = _enlarged(steps, x, axis, shape, factor)
        shape[axis] *= factor
    steps.add("Transpose", x, perm=_FIRST, target=node.output[0])
    return steps


def _meets_resize(index: GraphIndex, node: NodeProto) -> bool:
    """Whether it is added to another resize: TensorRT puts only one of them into a kernel."""
    sums = [reader for reader, _ in index.reads(node.output[0]) if reader.op_type == "Add"]
    makers = [index.producer.get(name) for reader in sums for name in reader.input if name != node.output[0]]
    return any(maker is not None and maker.op_type == "Resize" for maker in makers)


def _enlarged(steps: _Steps, x: str, axis: int, shape: Sequence[int], factor: int) -> str:
    """``factor`` pixels for each along an axis: means of it and its nearer neighbour, of which a border has none."""
    length = shape[axis]
    before = steps.add("Concat", steps.slice(x, 0, 1, axis), steps.slice(x, 0, length - 1, axis), axis=axis)
    after = steps.add("Concat", steps.slice(x, 1, length, axis), steps.slice(x, length - 1, length, axis), axis=axis)
    offset = (np.arange(factor) + 0.5) / factor - 0.5  # of a new pixel from the centre of the old one
    shares = [np.maximum(-offset, 0), 1 - np.abs(offset), np.maximum(offset, 0)]
    cells = np.array([*shape[: axis + 1], 1, *shape[axis + 1 :]])
    terms = []
    for source, share in zip((before, x, after), shares, strict=True):
        weight = share.astype(np.float32).reshape([factor if i == axis + 1 else 1 for i in range(5)])
        terms.append(steps.add("Mul", steps.add("Reshape", source, cells), weight))
    joined = np.array([*shape[:axis], length * factor, *shape[axis + 1 :]])
    return steps.add("Reshape", steps.sum(terms), joined)


_RULES = {"Conv": _convolution, "Resize": _resize}
