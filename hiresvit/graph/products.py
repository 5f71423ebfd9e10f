"""The products of a graph: how many multiply-accumulates each has, and in which type the graph has it computed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from onnx import NodeProto

from hiresvit.graph.dtypes import FLOATS, shown
from hiresvit.graph.index import GraphIndex, attributes, graphs_of, parser_name
from hiresvit.graph.operators import OWN_DOMAINS, PAIRED, PRODUCTS, QUANTIZERS, RECURRENT

# They multiply, too, in a number that their shapes alone do not tell.
_UNCOUNTED = ("CausalConvWithState", "DeformConv", "DFT", "LinearAttention", "STFT")
# Domains of ONNX itself, and of what NVIDIA's quantizer writes, which multiplies nothing.
_OPEN_DOMAINS = (*OWN_DOMAINS, "trt")


@dataclass(frozen=True)
class Product:
    """``batch`` products of (rows, inner) by (inner, columns)."""

    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.batch * self.rows * self.inner * self.columns


@dataclass(frozen=True)
class Products:
    """Of each product that can be counted, by node name: ``macs``, and the ``types`` of its operands in the graph.

    ``macs`` are multiply-accumulates of one call. A type is ``fp32``, ``fp16`` or ``bf16``; where it is none of these
    or not known there is no entry. ``uncounted`` names nodes which multiply, or may, nobody knows how often: of
    unknown size, with a body of their own, or of a library that is not ONNX.
    """

    macs: dict[str, int]
    types: dict[str, str]
    uncounted: tuple[str, ...]


def find_products(index: GraphIndex) -> Products:
    """Count the products of a graph whose sizes are known, as `index_graph` makes them for a batch of 1 or more.

    A product of constants alone counts nothing, it is computed once and for all.
    """
    names = Counter(parser_name(node) for node in index.nodes)
    macs: dict[str, int] = {}
    types: dict[str, str] = {}
    uncounted: list[str] = []
    for node in index.nodes:
        if index.fixed.issuperset(node.output):
            continue
        name = parser_name(node)
        count = _macs(index, node) if _is_product(node) else None
        if count is None:
            if _may_multiply(index, node):
                uncounted.append(f"{node.op_type} {name!r}")
            continue
        # a kernel that names one of two equals may be either: neither is found
        name = name if names[name] == 1 else f"{name} of {node.output[0]}"
        macs[name] = count
        if (kind := index.type_of(node, 0)) in FLOATS:
            types[name] = shown(kind).lower()
    return Products(macs, types, tuple(uncounted))


def _is_product(node: NodeProto) -> bool:
    """An Einsum of one operand only moves or adds up what there is."""
    moves = node.op_type == "Einsum" and len(node.input) == 1
    return node.op_type in PRODUCTS and node.domain in OWN_DOMAINS and not moves


def _may_multiply(index: GraphIndex, node: NodeProto) -> bool:
    """Whether there are products in a node that was not counted, or may be."""
    pending, seen = [node], set()
    while pending:
        inner = pending.pop()
        if _is_product(inner) or inner.op_type in _UNCOUNTED:
            return True
        key = (inner.domain, inner.op_type)
        if key in index.functions:
            if key not in seen:
                pending += index.functions[key].node
            seen.add(key)
        elif inner.domain not in _OPEN_DOMAINS and inner.op_type not in QUANTIZERS:
            return True
        pending += [one for body in graphs_of(inner) for one in body.node]
    return False


def _macs(index: GraphIndex, node: NodeProto) -> int | None:
    """None where a size is not known."""
    if node.op_type in PAIRED:
        product = matmul_sizes(index, node)
        return product.macs if product else None
    inputs = [index.sizes(name) for name in node.input]
    if node.op_type in RECURRENT:
        # Each place of each sequence meets the weights of input and state, of all gates and directions.
        sequence, *weights = inputs[:3]
        if sequence is None or len(weights) < 2 or None in weights:
            return None
        return math.prod(sequence[:2]) * sum(math.prod(size or ()) for size in weights)
    out = index.sizes(node.output[0])
    if out is None or None in inputs[:2]:
        return None
    first, second = (size or () for size in inputs[:2])
    match node.op_type:
        case "Conv":
            return math.prod(out) * math.prod(second[1:])
        case "ConvTranspose":
            return math.prod(first) * math.prod(second[1:])
        case "Gemm":
            return math.prod(out) * first[0 if attributes(node).get("transA") else 1]
        case _:  # Attention: (batch, heads, length, width) or (batch, length, heads x width)
            return (math.prod(first) + math.prod(out)) * second[-2]


def matmul_sizes(index: GraphIndex, node: NodeProto) -> Product | None:
    """The sizes of a MatMul, or of an Einsum of two operands; None if they are not known, or it has another number."""
    if len(node.input) != 2:
        return None
    left, right, out = (index.sizes(name) for name in (*node.input, node.output[0]))
    if left is None or right is None or out is None:
        return None
    if node.op_type == "Einsum":
        return _einsum_sizes(attributes(node)["equation"].decode(), left, right)
    if min(len(left), len(right)) < 2:  # a vector
        return Product(1, math.prod(out), left[-1], 1)
    return Product(math.prod(out[:-2]), left[-2], left[-1], right[-1])


def _einsum_sizes(equation: str, left: tuple[int, ...], right: tuple[int, ...]) -> Product | None:
    """Letters of both operands and the result are batch, of both operands alone the inner length."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    first, comma, second = operands.partition(",")
    if not arrow:  # then it is the letters that are there once
        result = "".join(sorted(letter for letter in {*first, *second} if operands.count(letter) == 1))
    if "." in equation or not comma or (len(first), len(second)) != (len(left), len(right)):
        return None
    sizes = {**dict(zip(first, left, strict=True)), **dict(zip(second, right, strict=True))}
    shared = set(first) & set(second)

    def size(letters: set[str]) -> int:
        return math.prod(sizes[letter] for letter in letters)

    return Product(
        batch=size(shared & set(result)),
        rows=size(set(first) - shared),
        inner=size(shared - set(result)),
        columns=size(set(second) - shared),
    )
