"""The attentions of a graph: what each is made of, and what about its form TensorRT does not recognise.

An attention is a softmax between two products of activations, q k^T and the product with v. TensorRT computes it in
one kernel, without ever writing the scores to memory, or not at all: in FP32, or with one Q/DQ too few, its two
products and the softmax are separate kernels. `engine.fusion` knows what it takes; here is what a graph has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from onnx import ModelProto, NodeProto

from hiresvit.graph.index import GraphIndex, attributes, index_graph, module_of, parser_name
from hiresvit.graph.operators import BARRIERS, CUTS, HARMLESS, LINEARS, PAIRED, QUANTIZERS, RESHAPES
from hiresvit.graph.products import matmul_sizes

POINTS = ("queries", "keys", "softmax", "values", "output")
"""What INT8 quantizes: both operands of the scores, both of the mix (the softmax's result first), and its result."""

# What may stand between two parts of an attention without a word about it, and what is named; anything else, a
# convolution or a product with weights, ends the search: then it is none.
_SILENT = RESHAPES | {"Cast", "DequantizeLinear", "Dropout"}
_BETWEEN = _SILENT | HARMLESS | BARRIERS | {"QuantizeLinear"}


@dataclass(frozen=True)
class Attention:
    """An attention of a graph.

    ``node`` is its ``op``: Softmax, Sigmoid in its place, or ONNX's Attention; ``module`` the PyTorch module,
    ``products`` the nodes of q k^T, the scores, and of their mix with v. ``dtypes`` are what the graph asks for these
    to be computed in: ``int8`` where both operands have Q/DQ. ``batch`` is heads x windows x pictures, None if the
    batch is dynamic; ``width`` that of a head's queries and keys. Sizes that are not static are None. ``points`` are
    those of `POINTS` with Q/DQ to INT8, ``between`` the operators between the products beside the softmax, in order,
    and ``flaws`` says in words what about its form is not recognised.
    """

    node: str
    module: str
    op: str
    products: tuple[str, ...]
    dtypes: tuple[str, str]
    batch: int | None
    width: int | None
    value_width: int | None
    queries: int | None
    keys: int | None
    points: tuple[str, ...] = ()
    masked: bool = False
    between: tuple[str, ...] = ()
    flaws: tuple[str, ...] = ()


def count_attentions(model: ModelProto) -> int:
    """Number of attentions: softmaxes between two products of activations, and ``Attention`` nodes.

    Between them may stand scale, mask or bias, layout changes, casts, Q/DQ and functions of each score. A product
    with a constant operand (a Linear, a pooling matrix) is none of the two, so a classifier's softmax does not count;
    queries that are constant in the scores are, since TensorRT fuses them, too.
    Weights may be in another file.
    """
    return sum(node.op_type != "Sigmoid" for node, _ in _ways(index_graph(model, infer=False)))


def find_attentions(index: GraphIndex) -> list[Attention]:
    """The attentions of a graph, in order, those with a sigmoid in place of the softmax too.

    Sizes are those of the index; a batch that the graph leaves open stays so.
    """
    firsts = (value.type.tensor_type.shape.dim[:1] for value in index.inputs.values())
    dynamic = any(not dim.HasField("dim_value") or dim.dim_value < 0 for dims in firsts for dim in dims)
    return [
        _describe(index, node, way, dynamic) if way else _describe_op(index, node, dynamic)
        for node, way in _ways(index)
    ]


def _ways(index: GraphIndex) -> Iterator[tuple[NodeProto, list[NodeProto]]]:
    """Each softmax, sigmoid or Attention node, with its way from product to product; empty for Attention."""

    def above(node: NodeProto) -> Iterable[NodeProto]:
        return (index.producer[name] for name in node.input if name in index.producer)

    def below(node: NodeProto) -> Iterable[NodeProto]:
        return (reader for name in node.output for reader, _ in index.reads(name))

    for node in index.nodes:
        if node.op_type == "Attention":
            yield node, []
        elif node.op_type in ("Softmax", "Sigmoid"):
            before, after = _way(index, node, above, learned=True), _way(index, node, below)
            if before and after:
                yield node, [*reversed(before), node, *after]


def _way(
    index: GraphIndex,
    start: NodeProto,
    onward: Callable[[NodeProto], Iterable[NodeProto]],
    *,
    learned: bool = False,
) -> list[NodeProto]:
    """The shortest way from a node to a product of activations, without the node; empty if there is none.

    With ``learned`` also to one of keys with queries that are the same for every image.
    """
    ways, seen = [[node] for node in onward(start)], set()
    for way in ways:  # grows meanwhile
        last = way[-1]
        if last.op_type in PAIRED and (index.fixed.isdisjoint(last.input) or (learned and _learned(index, last))):
            return way
        if last.op_type in _BETWEEN and last.output[0] not in seen:
            seen.add(last.output[0])
            ways += [[*way, node] for node in onward(last)]
    return []


def _learned(index: GraphIndex, product: NodeProto) -> bool:
    """Whether its first operand alone is constant, and no matrix of weights: a Mask2Former's queries in their layer."""
    first, second = product.input
    return first in index.fixed and second not in index.fixed and len(index.shapes.get(first, ())) > 2


def _other_reader(index: GraphIndex, way: list[NodeProto]) -> str | None:
    """Who beside the next node of a way reads what a node of it makes."""
    for node, following in pairwise(way):
        for reader, _ in index.reads(node.output[0]):
            if reader is not following:
                return f"{reader.op_type} {parser_name(reader)}"
        if node.output[0] in index.outputs:
            return "the graph's caller"
    return None


def _describe(index: GraphIndex, node: NodeProto, way: list[NodeProto], dynamic: bool) -> Attention:
    scores, mix = way[0], way[-1]
    weights = 0 if mix.input[0] in way[-2].output else 1
    at = next(place for place, other in enumerate(way) if other is node)
    before = [other.op_type for other in way[1:at] if other.op_type not in _SILENT]
    after = [other.op_type for other in way[at + 1 : -1] if other.op_type not in _SILENT | {"QuantizeLinear"}]
    first, second = matmul_sizes(index, scores), matmul_sizes(index, mix)
    operands = (*scores.input, mix.input[weights], mix.input[1 - weights])
    stored = [_stored_as(index, name) for name in operands]
    quantized = {point for point, dtype in zip(POINTS, stored, strict=False) if dtype == "int8"}
    if _is_quantized(index, mix.output[0]):
        quantized.add("output")
    dtypes = (_computed_in(index, scores, stored[:2]), _computed_in(index, mix, stored[2:]))
    return Attention(
        node=parser_name(node),
        module=module_of(node.name),
        op=node.op_type,
        products=(parser_name(scores), parser_name(mix)),
        dtypes=dtypes,
        batch=None if first is None or dynamic else first.batch,
        width=first.inner if first else None,
        value_width=(second.rows if weights else second.columns) if second else None,
        queries=first.rows if first else None,
        keys=first.columns if first else None,
        points=tuple(point for point in POINTS if point in quantized),
        masked=not {"Add", "Sub", "Where"}.isdisjoint(before),
        between=(*before, *after),
        flaws=tuple(_flaws(index, node, way, int8="int8" in dtypes)),
    )


def _computed_in(index: GraphIndex, product: NodeProto, stored: list[str | None]) -> str:
    """The type that a product is multiplied in: that of the quantized operands only if both are."""
    return (stored[0] if stored[0] == stored[1] else None) or index.dtype(product.input[0])


def _flaws(index: GraphIndex, node: NodeProto, way: list[NodeProto], *, int8: bool) -> Iterator[str]:
    scores, mix = way[0], way[-1]
    # before opset 13 a softmax was over all axes from number 1 on, where nothing is said
    axis = attributes(node).get("axis", -1 if (index.opset or 13) >= 13 else 1)
    if node.op_type == "Softmax" and axis not in (-1, len(index.shapes.get(node.input[0], ())) - 1):
        yield f"its softmax is over axis {axis}, not over the keys, the last one"
    if mix.op_type == "MatMul" and mix.input[0] not in way[-2].output:
        yield "its second product is v scores^T: the scores must come first"
    if reader := _other_reader(index, way):
        yield f"its scores are read by {reader} too"
    if not int8 and _is_followed_by_relu(index, mix):
        yield "Relu stands right behind it"
    if len(index.shapes.get(scores.output[0], ())) == 3:
        for turned in _turned(index, way, int8=int8):
            yield f"its {turned} transposed, in products of three axes: give them four, with the heads as second"
    if scores.op_type == mix.op_type == "MatMul":
        shapes = [index.sizes(name) for name in (*scores.input, mix.input[1])]
        queries, keys, values = ((shape or ())[:-2] for shape in shapes)
        # leading axes of grouped or multi-query attention, or all equal
        grouped = len(keys) == len(queries) and all(key in (1, query) for key, query in zip(keys, queries, strict=True))
        if None not in shapes and not (grouped and keys == values):
            yield "its heads are broadcast otherwise than keys and values together over those of the queries"


def _turned(index: GraphIndex, way: list[NodeProto], *, int8: bool) -> Iterator[str]:
    """What is transposed right beside the products so that TensorRT takes it into them and misses the pattern.

    Only in products of three axes. Behind a Linear it makes the transposed form itself, and all is well.
    """
    scores, mix = way[0], way[-1]
    if _is_turned(index, scores.input[0]):
        yield "queries are"
    if _is_turned(index, mix.input[1]):
        yield "values are"
    result = mix.output[0]
    behind = index.reads(result)
    if int8 or len(behind) != 1 or result in index.outputs or behind[0][0].op_type != "Transpose":
        return
    if attributes(behind[0][0]).get("perm") == [0, 2, 1]:
        yield "result is"


def _is_turned(index: GraphIndex, name: str) -> bool:
    """Whether the length of an operand was the last axis, before a Transpose that is not behind a Linear."""
    node = index.producer.get(name)
    while node is not None and (node.op_type in QUANTIZERS | {"Cast", "Identity"} or _is_scale(index, node)):
        node = next((index.producer[above] for above in node.input if above in index.producer), None)
    if node is None or node.op_type != "Transpose" or attributes(node).get("perm", [])[-2:-1] != [2]:
        return False
    source = index.producer.get(node.input[0])
    return source is None or source.op_type not in LINEARS


def _is_followed_by_relu(index: GraphIndex, mix: NodeProto) -> bool:
    """Whether a Relu, and nothing else, reads a product's result; it then goes into the product."""
    node = mix
    while node.output[0] not in index.outputs and len(index.reads(node.output[0])) == 1:
        node, _ = index.reads(node.output[0])[0]
        if node.op_type not in RESHAPES:
            return node.op_type == "Relu"
    return False


def _stored_as(index: GraphIndex, name: str) -> str | None:
    """The type that DequantizeLinear makes an operand from; None if it is not quantized."""
    while (node := index.producer.get(name)) is not None:
        name = next((source for source in node.input if source not in index.fixed), node.input[0])
        if node.op_type == "DequantizeLinear":
            # TensorRT takes UINT8 for INT8
            return {"uint8": "int8", "unknown": None}.get(dtype := index.dtype(name), dtype)
        if node.op_type not in CUTS and not _is_scale(index, node):
            return None
    return None


def _is_quantized(index: GraphIndex, name: str) -> bool:
    """Whether everyone who reads a value quantizes it."""
    readers = [reader for reader, _ in index.reads(name)]
    if name in index.outputs or not readers:
        return False
    rest = [reader for reader in readers if reader.op_type != "QuantizeLinear"]
    passed_on = all(reader.op_type in CUTS | {"Pad"} or _is_scale(index, reader) for reader in rest)
    return passed_on and all(_is_quantized(index, made) for reader in rest for made in reader.output)


def _is_scale(index: GraphIndex, node: NodeProto) -> bool:
    """Whether it multiplies by one number."""
    factors = [index.sizes(name) for name in node.input if name in index.fixed]
    return node.op_type in ("Mul", "Div") and any(size is not None and math.prod(size) == 1 for size in factors)


def _describe_op(index: GraphIndex, node: NodeProto, dynamic: bool) -> Attention:
    """ONNX's Attention: (batch, heads, length, width), or (batch, length, heads x width) with heads as attributes."""
    given = attributes(node)
    counts = [given.get(key) for key in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    names = [*node.input, "", "", ""]
    sizes = [_heads(index.sizes(name), count) for name, count in zip(names, counts, strict=False)]
    queries, keys, values = (size or (None, None, None) for size in sizes)
    dtype = index.dtype(node.input[0])
    return Attention(
        node=parser_name(node),
        module=module_of(node.name),
        op=node.op_type,
        products=(parser_name(node),),
        dtypes=(dtype, dtype),
        batch=None if dynamic else queries[0],
        width=queries[2],
        value_width=values[2],
        queries=queries[1],
        keys=keys[1],
        masked=bool(given.get("is_causal")) or len(node.input) > 3,
    )


def _heads(sizes: tuple[int, ...] | None, heads: int | None) -> tuple[int, int, int] | None:
    """Batch x heads, length and width of an operand."""
    if sizes is not None and len(sizes) == 4:
        return sizes[0] * sizes[1], sizes[2], sizes[3]
    if sizes is not None and len(sizes) == 3 and heads:
        return sizes[0] * heads, sizes[1], sizes[2] // heads
    return None
