"""The products of a graph: how many multiply-accumulates each has, and in which type the graph has it computed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from hiresvit.graph.index import OWN_DOMAINS, graphs_of
from hiresvit.graph.shapes import (
    Shapes,
    Tensors,
    attributes_of,
    constants_of,
    infer_tensors,
    matmul_sizes,
    name_of,
    sizes_of,
)

_RECURRENT = ("GRU", "LSTM", "RNN")
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Attention", *_RECURRENT)
"""The operators that multiply and accumulate."""

# They multiply, too, in a number that their shapes alone do not tell.
_UNCOUNTED = ("CausalConvWithState", "DeformConv", "DFT", "LinearAttention", "STFT")
# Domains of ONNX itself, and of what NVIDIA's quantizer writes, which multiplies nothing.
_OPEN_DOMAINS = (*OWN_DOMAINS, "trt")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


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


def find_products(model: ModelProto, shapes: Shapes | None = None) -> Products:
    """Count the products of a graph for a batch of 1, or the graph's own.

    ``shapes`` gives dynamic inputs the sizes to count for. A product of constants alone counts nothing, it is
    computed once and for all.
    """
    tensors, constants = infer_tensors(model, shapes), constants_of(model.graph)
    names = Counter(name_of(node) for node in model.graph.node)
    macs: dict[str, int] = {}
    types: dict[str, str] = {}
    uncounted: list[str] = []
    for node in model.graph.node:
        if constants.issuperset(node.output):
            continue
        name = name_of(node)
        count = _macs(node, tensors) if _is_product(node) else None
        if count is None:
            if _may_multiply(node, model):
                uncounted.append(f"{node.op_type} {name!r}")
            continue
        # a kernel that names one of two equals may be either: neither is found
        name = name if names[name] == 1 else f"{name} of {node.output[0]}"
        macs[name] = count
        if (operand := tensors.get(node.input[0])) and operand.dtype in _TYPES:
            types[name] = _TYPES[operand.dtype]
    return Products(macs, types, tuple(uncounted))


def _is_product(node: NodeProto) -> bool:
    """An Einsum of one operand only moves or adds up what there is."""
    moves = node.op_type == "Einsum" and len(node.input) == 1
    return node.op_type in PRODUCTS and node.domain in OWN_DOMAINS and not moves


def _may_multiply(node: NodeProto, model: ModelProto) -> bool:
    """Whether there are products in a node that was not counted, or may be."""
    functions = {(f.domain, f.name): f for f in model.functions}
    pending, seen = [node], set()
    while pending:
        inner = pending.pop()
        if _is_product(inner) or inner.op_type in _UNCOUNTED:
            return True
        key = (inner.domain, inner.op_type)
        if key in functions:
            if key not in seen:
                pending += functions[key].node
            seen.add(key)
        elif inner.domain not in _OPEN_DOMAINS and inner.op_type not in _QUANTIZERS:
            return True
        pending += [one for body in graphs_of(inner) for one in body.node]
    return False


def _macs(node: NodeProto, tensors: Tensors) -> int | None:
    """None where a size is not known."""
    if node.op_type in ("MatMul", "Einsum"):
        product = matmul_sizes(node, tensors)
        return product.macs if product else None
    inputs = [sizes_of(name, tensors) for name in node.input]
    if node.op_type in _RECURRENT:
        # Each place of each sequence meets the weights of input and state, of all gates and directions.
        sequence, *weights = inputs[:3]
        if sequence is None or len(weights) < 2 or None in weights:
            return None
        return math.prod(sequence[:2]) * sum(math.prod(size or ()) for size in weights)
    out = sizes_of(node.output[0], tensors)
    if out is None or None in inputs[:2]:
        return None
    first, second = (size or () for size in inputs[:2])
    attributes = attributes_of(node)
    match node.op_type:
        case "Conv":
            return math.prod(out) * math.prod(second[1:])
        case "ConvTranspose":
            return math.prod(first) * math.prod(second[1:])
        case "Gemm":
            return math.prod(out) * first[0 if attributes.get("transA") else 1]
        case _:  # Attention: (batch, heads, length, width) or (batch, length, heads x width)
            return (math.prod(first) + math.prod(out)) * second[-2]
