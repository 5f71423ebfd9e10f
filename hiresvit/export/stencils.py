"""A graph for TensorRT only: neighbours of a pixel as slices of a padded map, which its generated kernels take in.

Myelin joins elementwise operators, slices, pads, concatenations and norms into one kernel, but puts nothing in front of
a convolution and nothing but sums behind it; nor does it join a Resize with the norm behind it. Written as
sums of slices both are elementwise: a depthwise convolution and the norm that reads it are then one kernel, which
reads the map once, and so are a resize, the sum it goes into, and the norm of the sum (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from hiresvit.export.rewrites import replace_all, share_constants
from hiresvit.graph.index import GraphIndex, attributes, index_graph, operand

# What moves numbers about and computes none.
_VIEWS = frozenset({"Concat", "Reshape", "Slice", "Split", "Transpose"})
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]  # channels last, and back


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

    def add(self, op: str, *inputs: str | NDArray[Any] | Sequence[int], target: str | None = None, **extra: Any) -> str:
        """Write a node and return what it makes. Arrays and lists of sizes become constants."""
        names = [x if isinstance(x, str) else self.constant(np.asarray(x)) for x in inputs]
        number = len(self.nodes)
        target = target or f"{self.target}/{op}_{number}"
        self.nodes.append(helper.make_node(op, names, [target], f"{self.name}/{op}_{number}", **extra))
        return target

    def slice(self, x: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> str:
        """Part of a tensor."""
        return self.add("Slice", x, starts, ends, axes)

    def sum(self, terms: Sequence[str]) -> str:
        """Terms added in their order."""
        total = terms[0]
        for term in terms[1:]:
            total = self.add("Add", total, term)
        return total


def with_stencils(model: ModelProto, ops: Collection[str] = ("Conv", "Resize")) -> ModelProto:
    """Return a copy of an FP32 graph in which what stands in front of a norm can be one kernel with it.

    That is a depthwise 3x3 convolution of stride 1 that a LayerNormalization reads, and a bilinear
    Resize by a whole factor that goes into a sum that a LayerNormalization reads; through transposes and other
    views. Tensors keep their names; those between are new. All others stay.
    """
    out = ModelProto()
    out.CopyFrom(model)
    index = index_graph(out)
    added: dict[str, NDArray[Any]] = {}
    made: dict[str, list[NodeProto]] = {}
    for node in out.graph.node:
        steps = None
        if node.op_type in ops and node.op_type == "Conv":
            steps = _convolution(index, node, added)
        elif node.op_type in ops and node.op_type == "Resize":
            steps = _resize(index, node, added)
        if steps is not None:
            made[steps.target] = steps.nodes
    nodes = [step for node in out.graph.node for step in made.get(node.output[0], [node])]
    replace_all(out.graph.node, _read(nodes, out.graph))
    del out.graph.value_info[:]
    out.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in added.items())
    share_constants(out.graph)
    return out


def _read(nodes: Sequence[NodeProto], graph: GraphProto) -> list[NodeProto]:
    """Without the nodes of which nothing is read."""
    wanted, kept = {value.name for value in graph.output}, []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _feeds_norm(index: GraphIndex, name: str, through: Collection[str]) -> bool:
    """Whether a LayerNormalization reads a tensor, or what operators of ``through`` make of it."""
    return any(
        node.op_type == "LayerNormalization" or (node.op_type in through and any(_feeds_norm(index, y, _VIEWS) for y in node.output))
        for node, _ in index.reads(name)
    )


def _convolution(index: GraphIndex, node: NodeProto, added: dict[str, NDArray[Any]]) -> _Steps | None:
    """A convolution as nine slices, each times its weights; None for what is not such a convolution."""
    given, weight, shape = attributes(node), index.array(node.input[1]), index.shapes.get(node.input[0], ())
    if weight is None or weight.shape[1:] != (1, 3, 3) or len(shape) != 4 or len(weight) != shape[1]:
        return None
    plain = given.get("strides", [1, 1]) == [1, 1] == given.get("dilations", [1, 1])
    if not plain or given.get("pads") != [1, 1, 1, 1] or not _feeds_norm(index, node.output[0], _VIEWS):
        return None
    if None in shape[1:] or _made_by_norm(index, node.input[0]):
        return None
    bias = index.array(operand(node, 2))
    bias = np.zeros(len(weight), weight.dtype) if bias is None else bias
    if (ends := _groups(index, node)) is not None:
        steps = _Steps(ends[1], added)
        lead = [ends[2], 1, 1]
        _nine_slices(steps, ends[0], (weight.reshape(*lead, -1, 3, 3), bias.reshape(*lead, -1)), shape, ends[1].output[0])
        return steps
    steps = _Steps(node, added)
    x = steps.add("Transpose", node.input[0], perm=_LAST)
    total = _nine_slices(steps, x, (weight[:, 0], bias), shape)
    steps.add("Transpose", total, perm=_FIRST, target=node.output[0])
    return steps


def _nine_slices(steps: _Steps, x: str, numbers: tuple[NDArray[Any], NDArray[Any]], shape: Sequence[int], target: str | None = None) -> str:
    """The sum over nine neighbours of a map (..., H, W, C) with weights (..., C, 3, 3), and the bias."""
    weight, bias = numbers
    height, width = shape[2:]
    axes, terms = [1, 2] if weight.ndim == 3 else [2, 3], []
    for axis in axes:
        edge = steps.add("Mul", steps.slice(x, [0], [1], [axis]), np.zeros(1, weight.dtype))
        x = steps.add("Concat", edge, x, edge, axis=axis)
    for top in range(3):
        for left in range(3):
            part = steps.slice(x, [top, left], [top + height, left + width], axes)
            terms.append(steps.add("Mul", part, np.ascontiguousarray(weight[..., top, left])))
    return steps.add("Add", steps.sum(terms), bias, target=target)


def _groups(index: GraphIndex, node: NodeProto) -> tuple[str, NodeProto, int] | None:
    """Around a convolution of G maps side by side: (B, G, H, W, C) before, the node that makes the same after, and G."""
    flat, readers = index.producer.get(node.input[0]), index.reads(node.output[0])
    if flat is None or flat.op_type != "Reshape" or len(readers) != 1 or readers[0][0].op_type != "Reshape":
        return None
    turned, last = index.producer.get(flat.input[0]), index.reads(readers[0][0].output[0])
    if turned is None or turned.op_type != "Transpose" or len(last) != 1 or last[0][0].op_type != "Transpose":
        return None
    shape = index.shapes.get(turned.input[0], ())
    if attributes(turned).get("perm") != [0, 1, 4, 2, 3] or attributes(last[0][0]).get("perm") != [0, 1, 3, 4, 2]:
        return None
    if index.shapes.get(last[0][0].output[0], ())[1:] != shape[1:] or shape[1] is None:
        return None
    return turned.input[0], last[0][0], shape[1]


def _made_by_norm(index: GraphIndex, name: str) -> bool:
    """Whether a tensor is a norm's result, or a view of it."""
    node = index.producer.get(name)
    return node is not None and (
        node.op_type == "LayerNormalization" or (node.op_type in _VIEWS and _made_by_norm(index, node.input[0]))
    )


def _resize(index: GraphIndex, node: NodeProto, added: dict[str, NDArray[Any]]) -> _Steps | None:
    """A resize as two sums of three neighbours, rows first; None for what is not such a resize."""
    given, scales, shape = attributes(node), index.array(operand(node, 2)), index.sizes(node.input[0])
    if scales is None or shape is None or len(shape) != 4 or given.get("mode") != b"linear":
        return None
    factor = round(float(scales[-1]))
    if scales.tolist() != [1, 1, factor, factor] or given.get("coordinate_transformation_mode", b"half_pixel") not in (b"half_pixel", b"pytorch_half_pixel"):
        return None
    if not (_feeds_norm(index, node.output[0], ("Add",)) or _meets_resize(index, node)):
        return None
    steps = _Steps(node, added)
    x = steps.add("Transpose", node.input[0], perm=_LAST)
    sizes = [-1, *shape[2:], shape[1]]
    for axis in (1, 2):
        x = _enlarged(steps, x, axis, sizes, factor)
        sizes[axis] *= factor
    steps.add("Transpose", x, perm=_FIRST, target=node.output[0])
    return steps


def _meets_resize(index: GraphIndex, node: NodeProto) -> bool:
    """Whether it is added to another resize: TensorRT puts only one of them into a kernel."""
    sums = [reader for reader, _ in index.reads(node.output[0]) if reader.op_type == "Add"]
    makers = [index.producer.get(name) for reader in sums for name in reader.input if name != node.output[0]]
    return any(maker is not None and maker.op_type == "Resize" for maker in makers)


def _enlarged(steps: _Steps, x: str, axis: int, sizes: Sequence[int], factor: int) -> str:
    """Each of ``factor`` pixels for one is a mean of it and its nearer neighbour along an axis."""
    length = sizes[axis]
    first = steps.slice(x, [0], [1], [axis])
    last = steps.slice(x, [length - 1], [length], [axis])
    before = steps.add("Concat", first, steps.slice(x, [0], [length - 1], [axis]), axis=axis)
    after = steps.add("Concat", steps.slice(x, [1], [length], [axis]), last, axis=axis)
    offset = (np.arange(factor) + 0.5) / factor - 0.5  # of a new pixel from the centre of the old one
    shares = [np.maximum(-offset, 0), 1 - np.abs(offset), np.maximum(offset, 0)]
    shape = [*sizes[: axis + 1], 1, *sizes[axis + 1 :]]
    terms = []
    for source, share in zip((before, x, after), shares, strict=True):
        weight = share.astype(np.float32).reshape([factor if i == axis + 1 else 1 for i in range(5)])
        terms.append(steps.add("Mul", steps.add("Reshape", source, shape), weight))
    return steps.add("Reshape", steps.sum(terms), [*sizes[:axis], length * factor, *sizes[axis + 1 :]])
