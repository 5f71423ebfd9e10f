"""The attentions of a graph, and which of them TensorRT can compute in INT8.

TensorRT fuses an INT8 attention only with Q/DQ on all five points: both operands of the scores, both of the mix,
and the mix's result. With fewer it computes the two products one by one, slower than in FP16. So it is all or none.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from hiresvit.calibration.sites import Policy, Shapes, module_of, shape_of, static_shapes
from hiresvit.errors import UsageError

WIDTHS = (16, 32, 64)
"""Widths of a head that TensorRT fuses in INT8."""
MAX_LENGTH = 512
"""The longest sequence that it does, of queries and of keys."""

# What may stand behind a softmax (layout, the casts of an FP32 island), and before it (scale, mask or bias, too).
_BEHIND = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_BEFORE = _BEHIND | {"Add", "Div", "Mul", "Where"}


@dataclass(frozen=True)
class Attention:
    """A softmax between two products of activations, by the names of the FP32 graph.

    ``scores`` and ``mix`` are the nodes of the two products. ``points`` are the tensors that INT8 quantizes: both
    operands of ``scores``, both of ``mix`` (the softmax's first), and its result. ``illegal`` says why it stays in
    FP16: ``"width"``, ``"length"``, ``"output"`` (its result is one of the graph), or ``"kept"`` because the policy
    keeps a part of its module.
    """

    module: str
    scores: str
    mix: str
    points: tuple[str, str, str, str, str]
    illegal: str | None


def find_attentions(simple: ModelProto, policy: Policy) -> list[Attention]:
    """The attentions of a simplified FP32 graph, in order, if ``policy.int8_attention`` asks for them.

    Raises UsageError if it does and none of them can be INT8, and for shapes that are not static.
    """
    if not policy.int8_attention:
        return []
    shapes = static_shapes(simple)
    producer = {name: node for node in simple.graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in simple.graph.node:
        for name in node.input:
            readers[name].append(node)
    constants = {tensor.name for tensor in simple.graph.initializer}
    outputs = {value.name for value in simple.graph.output}
    found = []
    for node in simple.graph.node:
        if node.op_type == "Softmax":
            scores = _product_before(node, producer, constants)
            mix = _product_behind(node, readers, constants)
            if scores is not None and mix is not None:
                points = (*scores.input, *mix.input, mix.output[0])
                reason = _illegal(module_of(node.name), points, shapes, policy, outputs)
                found.append(Attention(module_of(node.name), scores.name, mix.name, points, reason))
    if all(attention.illegal not in (None, "kept") for attention in found):
        reasons = ", ".join(sorted({str(attention.illegal) for attention in found})) or "there is none"
        raise UsageError(
            f"int8 attention: none of the {len(found)} attentions can be INT8 ({reasons}); TensorRT needs heads "
            f"{', '.join(map(str, WIDTHS))} wide and sequences up to {MAX_LENGTH}: leave the option out"
        )
    return found


def _illegal(
    module: str, points: tuple[str, ...], shapes: Shapes, policy: Policy, outputs: set[str]
) -> str | None:
    """Why an attention cannot be INT8."""
    queries, keys, values = (shape_of(points[k], shapes) for k in (0, 1, 3))
    if points[4] in outputs:
        return "output"
    if not queries[-1] == keys[-2] == values[-1] or values[-1] not in WIDTHS:
        return "width"
    if max(queries[-2], keys[-1]) > MAX_LENGTH:
        return "length"
    kept = policy.keeps(module) or any(name.startswith(f"{module}.") for name in policy.keep)
    return "kept" if kept else None


def _product_before(
    softmax: NodeProto, producer: dict[str, NodeProto], constants: set[str]
) -> NodeProto | None:
    """The product that makes what the softmax reads."""
    pending = list(softmax.input)
    while pending:
        node = producer.get(pending.pop())
        if node is not None and _is_product(node, constants):
            return node
        if node is not None and node.op_type in _BEFORE:
            pending += node.input
    return None


def _product_behind(
    softmax: NodeProto, readers: dict[str, list[NodeProto]], constants: set[str]
) -> NodeProto | None:
    """The product that reads what the softmax makes, as its first operand."""
    pending = list(softmax.output)
    while pending:
        name = pending.pop()
        for node in readers[name]:
            if _is_product(node, constants) and node.input[0] == name:
                return node
            if node.op_type in _BEHIND:
                pending += node.output
    return None


def _is_product(node: NodeProto, constants: set[str]) -> bool:
    return node.op_type == "MatMul" and constants.isdisjoint(node.input)
