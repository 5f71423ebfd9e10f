"""The attentions of a graph, which of them a plan computes in one kernel, and why not the others.

An attention is a softmax between two products of activations, q k^T and the product with v. TensorRT computes it in
one kernel, without ever writing the scores to memory, or not at all: in FP32, or with one Q/DQ too few, its two
products and the softmax are separate kernels. `attention_rules` knows what it takes; here is what a graph has.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from onnx import ModelProto, NodeProto

from hiresvit.engine.fusion import BARRIERS, HARMLESS, POINTS, Attention, why_not_fused
from hiresvit.engine.kernels import Kernel
from hiresvit.graph.shapes import (
    Product,
    Shapes,
    Tensors,
    attributes_of,
    constants_of,
    has_dynamic_batch,
    infer_tensors,
    matmul_sizes,
    module_of,
    name_of,
    sizes_of,
)

# What may stand between two parts of an attention without a word about it, and what is named; anything else, a
# convolution or a product with weights, ends the search: then it is none.
_SILENT = {"Cast", "DequantizeLinear", "Dropout", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_BETWEEN = _SILENT | HARMLESS | BARRIERS | {"QuantizeLinear"}
# What may stand between Q/DQ and the operand or result that it belongs to; and a scale by one number.
_MOVES = {"Cast", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
_PRODUCTS = {"MatMul", "Einsum"}


@dataclass(frozen=True)
class Explained:
    """An attention in a plan: ``reason`` says why it was not fused."""

    attention: Attention
    fused: bool
    reason: str | None


def count_attentions(model: ModelProto) -> int:
    """Number of attentions: softmaxes between two products of activations, and ``Attention`` nodes.

    Between them may stand scale, mask or bias, layout changes, casts, Q/DQ and functions of each score. A product
    with a constant operand (a Linear, a pooling matrix) is none of the two, so a classifier's softmax does not count.
    """
    return sum(node.op_type != "Sigmoid" for node, _ in _Graph(model).attentions())


def find_attentions(model: ModelProto, shapes: Shapes | None = None) -> list[Attention]:
    """The attentions of a graph, in order, those with a sigmoid in place of the softmax too.

    ``shapes`` gives dynamic inputs the sizes that they are described for; a batch stays dynamic.
    """
    graph, tensors, dynamic = _Graph(model), infer_tensors(model, shapes), has_dynamic_batch(model)
    return [
        _describe(graph, tensors, node, path, dynamic) if path else _describe_op(tensors, node, dynamic)
        for node, path in graph.attentions()
    ]


def explain_attentions(
    model: ModelProto, kernels: Sequence[Kernel], shapes: Shapes | None = None
) -> list[Explained]:
    """Which attentions of a graph are one kernel of its plan, and why not the others.

    A fused kernel names its ONNX nodes. Those that name none are taken to be attentions that nothing is known
    against, in order.
    """
    found = find_attentions(model, shapes)
    fused = [kernel for kernel in kernels if kernel.kind == "attention"]
    named = {node for kernel in fused for node in kernel.nodes}
    nameless = sum(not kernel.nodes for kernel in fused)
    explained = []
    for attention in found:
        reason = why_not_fused(attention)
        is_fused = not named.isdisjoint((attention.node, *attention.products))
        if not is_fused and nameless and reason is None:
            is_fused, nameless = True, nameless - 1
        if not is_fused and reason is None:
            reason = "no known reason: TensorRT may decide against it"
        explained.append(Explained(attention, is_fused, None if is_fused else reason))
    return explained


class _Graph:
    """Who makes and who reads a value, and the way from the first product of an attention to the second."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        # before opset 13 a softmax was over all axes from number 1 on, where nothing is said
        opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 13)
        self.softmax_axis = -1 if opset >= 13 else 1
        self.constants = constants_of(model.graph)
        self.outputs = {value.name for value in model.graph.output}
        self.producer: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            self.producer.update(dict.fromkeys(node.output, node))
            for name in node.input:
                self.readers[name].append(node)

    def attentions(self) -> Iterator[tuple[NodeProto, list[NodeProto]]]:
        """Each softmax, sigmoid or Attention node, with its way from product to product; empty for Attention."""
        for node in self.nodes:
            if node.op_type == "Attention":
                yield node, []
            elif node.op_type in ("Softmax", "Sigmoid"):
                above, below = self.way(node, self.above), self.way(node, self.below)
                if above and below:
                    yield node, [*reversed(above), node, *below]

    def above(self, node: NodeProto) -> Iterable[NodeProto]:
        return (self.producer[name] for name in node.input if name in self.producer)

    def below(self, node: NodeProto) -> Iterable[NodeProto]:
        return (reader for name in node.output for reader in self.readers[name])

    def way(self, start: NodeProto, onward: Callable[[NodeProto], Iterable[NodeProto]]) -> list[NodeProto]:
        """The shortest way from a node to a product of activations, without the node; empty if there is none."""
        ways, seen = [[node] for node in onward(start)], set()
        for way in ways:  # grows meanwhile
            last = way[-1]
            if last.op_type in _PRODUCTS and self.constants.isdisjoint(last.input):
                return way
            if last.op_type in _BETWEEN and last.output[0] not in seen:
                seen.add(last.output[0])
                ways += [[*way, node] for node in onward(last)]
        return []

    def other_reader(self, way: list[NodeProto]) -> str | None:
        """Who beside the next node of a way reads what a node of it makes."""
        for node, following in pairwise(way):
            for reader in self.readers[node.output[0]]:
                if reader is not following:
                    return f"{reader.op_type} {name_of(reader)}"
            if node.output[0] in self.outputs:
                return "the graph's caller"
        return None


def _describe(
    graph: _Graph, tensors: Tensors, node: NodeProto, way: list[NodeProto], dynamic: bool
) -> Attention:
    scores, mix = way[0], way[-1]
    weights = 0 if mix.input[0] in way[-2].output else 1
    at = next(index for index, other in enumerate(way) if other is node)
    before = [other.op_type for other in way[1:at] if other.op_type not in _SILENT]
    after = [other.op_type for other in way[at + 1 : -1] if other.op_type not in _SILENT | {"QuantizeLinear"}]
    first, second = matmul_sizes(scores, tensors), matmul_sizes(mix, tensors)
    operands = (*scores.input, mix.input[weights], mix.input[1 - weights])
    stored = [_stored_as(graph, tensors, name) for name in operands]
    quantized = {point for point, dtype in zip(POINTS, stored, strict=False) if dtype == "int8"}
    if _is_quantized(graph, tensors, mix.output[0]):
        quantized.add("output")
    dtypes = (_computed_in(tensors, scores, stored[:2]), _computed_in(tensors, mix, stored[2:]))
    return Attention(
        node=name_of(node),
        module=module_of(node.name),
        op=node.op_type,
        products=(name_of(scores), name_of(mix)),
        dtypes=dtypes,
        batch=None if first is None or dynamic else first.batch,
        width=first.inner if first else None,
        value_width=_value_width(second, weights),
        queries=first.rows if first else None,
        keys=first.columns if first else None,
        points=tuple(point for point in POINTS if point in quantized),
        masked=not {"Add", "Sub", "Where"}.isdisjoint(before),
        between=(*before, *after),
        flaws=tuple(_flaws(graph, tensors, node, way, int8="int8" in dtypes)),
    )


def _computed_in(tensors: Tensors, product: NodeProto, stored: list[str | None]) -> str:
    """The type that a product is multiplied in: that of the quantized operands only if both are."""
    if stored[0] is not None and stored[0] == stored[1]:
        return stored[0]
    return tensors[product.input[0]].dtype if product.input[0] in tensors else "unknown"


def _value_width(mix: Product | None, weights: int) -> int | None:
    if mix is None:
        return None
    return mix.columns if weights == 0 else mix.rows


def _flaws(
    graph: _Graph, tensors: Tensors, node: NodeProto, way: list[NodeProto], *, int8: bool
) -> Iterator[str]:
    scores, mix = way[0], way[-1]
    axis = attributes_of(node).get("axis", graph.softmax_axis)
    if node.op_type == "Softmax" and axis not in (-1, (_rank(tensors, node.input[0]) or 0) - 1):
        yield f"its softmax is over axis {axis}, not over the keys, the last one"
    if mix.op_type == "MatMul" and mix.input[0] not in way[-2].output:
        yield "its second product is v scores^T: the scores must come first"
    if reader := graph.other_reader(way):
        yield f"its scores are read by {reader} too"
    if not int8 and _is_followed_by_relu(graph, mix):
        yield "Relu stands right behind it"
    if _rank(tensors, scores.output[0]) == 3:
        for turned in _turned(graph, tensors, way, int8=int8):
            yield f"its {turned} transposed, in products of three axes: give them four, with the heads as second"
    if scores.op_type == mix.op_type == "MatMul":
        shapes = [sizes_of(name, tensors) for name in (*scores.input, mix.input[1])]
        queries, keys, values = (None if shape is None else shape[:-2] for shape in shapes)
        if None not in (queries, keys, values) and not _broadcasts(queries, keys, values):
            yield "its heads are broadcast otherwise than keys and values together over those of the queries"


def _rank(tensors: Tensors, name: str) -> int | None:
    return len(tensors[name].shape) if name in tensors else None


def _turned(graph: _Graph, tensors: Tensors, way: list[NodeProto], *, int8: bool) -> Iterator[str]:
    """What is transposed right beside the products so that TensorRT takes it into them and misses the pattern.

    Only in products of three axes. Behind a Linear it makes the transposed form itself, and all is well.
    """
    scores, mix = way[0], way[-1]
    if _is_turned(graph, tensors, scores.input[0]):
        yield "queries are"
    if _is_turned(graph, tensors, mix.input[1]):
        yield "values are"
    result = mix.output[0]
    behind = graph.readers[result]
    if int8 or len(behind) != 1 or result in graph.outputs or behind[0].op_type != "Transpose":
        return
    if attributes_of(behind[0]).get("perm") == [0, 2, 1]:
        yield "result is"


def _is_turned(graph: _Graph, tensors: Tensors, name: str) -> bool:
    """Whether the length of an operand was the last axis, before a Transpose that is not behind a Linear."""
    node = graph.producer.get(name)
    while node is not None and _is_passed_on(graph, tensors, node):
        node = next(iter(graph.above(node)), None)
    if node is None or node.op_type != "Transpose" or attributes_of(node).get("perm", [])[-2:-1] != [2]:
        return False
    source = graph.producer.get(node.input[0])
    return source is None or source.op_type not in ("MatMul", "Gemm")


def _is_passed_on(graph: _Graph, tensors: Tensors, node: NodeProto) -> bool:
    return node.op_type in {"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"} or _is_scale(
        graph, tensors, node
    )


def _broadcasts(
    queries: tuple[int, ...] | None, keys: tuple[int, ...] | None, values: tuple[int, ...] | None
) -> bool:
    """Whether leading axes are those of grouped or multi-query attention, or all equal."""
    assert queries is not None
    if keys is None or keys != values or len(keys) != len(queries):
        return False
    return all(key in (1, query) for key, query in zip(keys, queries, strict=True))


def _is_followed_by_relu(graph: _Graph, mix: NodeProto) -> bool:
    """Whether a Relu, and nothing else, reads a product's result; it then goes into the product."""
    node = mix
    while node.output[0] not in graph.outputs and len(graph.readers[node.output[0]]) == 1:
        node = graph.readers[node.output[0]][0]
        if node.op_type == "Relu":
            return True
        if node.op_type not in {"Reshape", "Squeeze", "Unsqueeze", "Identity"}:
            return False
    return False


def _stored_as(graph: _Graph, tensors: Tensors, name: str) -> str | None:
    """The type that DequantizeLinear makes an operand from; None if it is not quantized."""
    while (node := graph.producer.get(name)) is not None:
        name = next((source for source in node.input if source not in graph.constants), node.input[0])
        if node.op_type == "DequantizeLinear":
            dtype = tensors[name].dtype if name in tensors else None
            return (
                "int8" if dtype == "uint8" else dtype
            )  # ONNX's default without a zero point, int8 to TensorRT
        if node.op_type not in _MOVES and not _is_scale(graph, tensors, node):
            return None
    return None


def _is_quantized(graph: _Graph, tensors: Tensors, name: str) -> bool:
    """Whether everyone who reads a value quantizes it."""
    readers = graph.readers[name]
    if name in graph.outputs or not readers:
        return False
    return all(
        reader.op_type == "QuantizeLinear"
        or (
            (reader.op_type in _MOVES | {"Pad"} or _is_scale(graph, tensors, reader))
            and all(_is_quantized(graph, tensors, made) for made in reader.output)
        )
        for reader in readers
    )


def _is_scale(graph: _Graph, tensors: Tensors, node: NodeProto) -> bool:
    """Whether it multiplies by one number."""
    factors = [sizes_of(name, tensors) for name in node.input if name in graph.constants]
    return node.op_type in ("Mul", "Div") and any(
        size is not None and math.prod(size) == 1 for size in factors
    )


def _describe_op(tensors: Tensors, node: NodeProto, dynamic: bool) -> Attention:
    """ONNX's Attention: (batch, heads, length, width), or (batch, length, heads x width) with heads as attributes."""
    attributes = attributes_of(node)
    counts = [attributes.get(key) for key in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    names = [*node.input, "", "", ""]
    sizes = [_heads(sizes_of(name, tensors), count) for name, count in zip(names, counts, strict=False)]
    queries, keys, values = (size or (None, None, None) for size in sizes)
    dtype = tensors[node.input[0]].dtype if node.input[0] in tensors else "unknown"
    return Attention(
        node=name_of(node),
        module=module_of(node.name),
        op=node.op_type,
        products=(name_of(node),),
        dtypes=(dtype, dtype),
        batch=None if dynamic else queries[0],
        width=queries[2],
        value_width=values[2],
        queries=queries[1],
        keys=keys[1],
        masked=bool(attributes.get("is_causal")) or len(node.input) > 3,
    )


def _heads(sizes: tuple[int, ...] | None, heads: int | None) -> tuple[int, int, int] | None:
    """Batch x heads, length and width of an operand."""
    if sizes is not None and len(sizes) == 4:
        return sizes[0] * sizes[1], sizes[2], sizes[3]
    if sizes is not None and len(sizes) == 3 and heads:
        return sizes[0] * heads, sizes[1], sizes[2] // heads
    return None
