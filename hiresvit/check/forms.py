"""What a form of an operator is, and what the functions that look for one share.

A form is what a parser may refuse of an operator that it has: attributes, ranks, operands. Each is seen by one
function, in `hiresvit.check.layer_forms` or `hiresvit.check.axis_forms`; `hiresvit.check.nvidia_parser` lists by name
which of them a release refuses or its documents rule out.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from hiresvit.check.rule import View
from hiresvit.graph.index import attributes, operand

Look = Callable[[View, NodeProto], str]
"""What a node has of a form, in words; "" if it has not."""
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
