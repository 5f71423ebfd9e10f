"""What a form of an operator is, and what the functions that look for one share.

A form is what a parser may refuse of an operator that it has: attributes, ranks, operands. Each is seen by one
function, in `hiresvit.check.layer_forms`, `hiresvit.check.axis_forms` or `hiresvit.check.htp_forms`;
`hiresvit.check.nvidia_parser` and `hiresvit.check.qualcomm` list by name which of them a release refuses or its
documents rule out.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from hiresvit.check.rule import View
from hiresvit.graph.index import attributes, operand
from hiresvit.graph.operators import QUANTIZERS

Look = Callable[[View, NodeProto], str]
"""What a node has of a form, in words; "" if it has not."""
_ROOT, _NEAR = 2**0.5, 1e-2
FORMS: dict[str, tuple[frozenset[str], Look]] = {}
"""By name: the operators that have the form, and how to see it."""


def form_of(name: str, *ops: str) -> Callable[[Look], Look]:
    """Enters what a function sees in `FORMS`, for the operator in the name or for others."""

    def enter(look: Look) -> Look:
        FORMS[name] = (frozenset(ops) or frozenset({name.partition(".")[0]}), look)
        return look

    return enter


def rank_of(view: View, node: NodeProto, index: int) -> int | None:
    """How many axes an operand has; None if that is not known."""
    shape = view.shapes.get(operand(node, index))
    return None if shape is None else len(shape)


def text_of(node: NodeProto, name: str, default: str) -> str:
    """An attribute that is text."""
    text: bytes = attributes(node).get(name, default.encode())
    return text.decode(errors="replace")


def is_computed(view: View, node: NodeProto, index: int) -> bool:
    """Whether an operand is computed of constants, which is not the same as being one."""
    name = operand(node, index)
    around = name in view.inputs  # of a body: a large constant may be one of these
    return bool(name) and name in view.fixed and name not in view.constants and not around


def made_by(view: View, name: str, op: str) -> NodeProto | None:
    """The node that makes a tensor, if it is of an operator."""
    maker = view.producer.get(name)
    return maker if maker is not None and maker.op_type == op else None


def maker_of(view: View, name: str) -> NodeProto | None:
    """Who makes a tensor, Q/DQ apart."""
    while (maker := view.producer.get(name)) is not None and maker.op_type in QUANTIZERS:
        name = maker.input[0]
    return maker


def stored_as(view: View, node: NodeProto, index: int) -> str:
    """The type that an operand is dequantized from; "" if it is not."""
    maker = made_by(view, operand(node, index), "DequantizeLinear")
    if maker is None:
        return ""
    return view.types.get(operand(maker, 2), "") or view.type_of(maker, 0)


def is_gelu_by_erf(view: View, node: NodeProto) -> bool:
    """Whether an Erf is that of a GELU of five operators: of x / sqrt(2), plus 1, times x."""
    scaled = view.producer.get(operand(node, 0))
    wanted = {"Div": _ROOT, "Mul": 1 / _ROOT}.get(scaled.op_type) if scaled is not None else None
    factors = [view.array(name) for name in scaled.input] if scaled is not None else []
    sized = [float(values.item()) for values in factors if values is not None and values.size == 1]
    sums = [reader for reader, _ in view.reads(node.output[0]) if reader.op_type == "Add"]
    times = [reader.op_type for total in sums for reader, _ in view.reads(total.output[0])]
    return wanted is not None and any(abs(value - wanted) < _NEAR for value in sized) and times == ["Mul"]
