"""Rules about numbers of any type: weights that are none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from hiresvit.check.rule import Spot, View, rule, scopes
from hiresvit.graph.index import attributes
from hiresvit.graph.operators import QUANTIZERS, WEIGHTED

_FLOATING = frozenset({"bfloat16", "double", "float", "float16", "float4e2m1", "float8e4m3fn"})
# Where infinity is no mask and no bound: it makes all that it meets infinite or NaN.
_WEIGHED = WEIGHTED | {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"}


@rule("hazard", "whatever they meet becomes NaN: look for where the weights were lost, and export again")
def not_a_number(view: View) -> Iterator[Spot]:
    """Constants of any floating type that are not a number."""
    for scope, name, values in _constants(view):
        if lost := int(np.count_nonzero(np.isnan(values))):
            yield from _where(scope, name, f"{lost} of {values.size} values of {name!r} NaN")
    for node in (node for scope in scopes(view) for node in scope.nodes):
        if node.op_type == "ConstantOfShape" and np.isnan(fill_of(node)):
            yield node, "a ConstantOfShape that fills with NaN"


@rule("hazard", "whatever they meet becomes infinite or NaN: look for where the weights were lost, and export again")
def infinite_weight(view: View) -> Iterator[Spot]:
    """Weights of products and norms that are infinite in another type than FP16, which `infinite` is about."""
    for scope, name, values in _constants(view):
        weighs = [node for node, _ in scope.reads(name) if node.op_type in _WEIGHED]
        if weighs and scope.types[name] != "float16" and (lost := int(np.count_nonzero(np.isinf(values)))):
            for node in weighs:
                yield node, f"{lost} of {values.size} values of {name!r} infinite"


def fill_of(node: NodeProto) -> float:
    """What a ConstantOfShape fills with; 0 for any other node, and where its value is damaged."""
    fill = attributes(node).get("value") if node.op_type == "ConstantOfShape" else None
    try:
        return 0.0 if fill is None else float(numpy_helper.to_array(fill).min(initial=0))
    except (ValueError, TypeError):  # the parser will say so
        return 0.0


def _constants(view: View) -> Iterator[tuple[View, str, NDArray[np.floating]]]:
    """Constants in floating point, each with the view of the graph or body that it belongs to."""
    for scope in scopes(view):
        for name in scope.constants:
            if scope.types[name] not in _FLOATING or (scope is not view and name in view.constants):
                continue
            values = scope.array(name)
            if values is not None:
                yield scope, name, values


def _where(scope: View, name: str, what: str) -> Iterator[Spot]:
    """The nodes that read a constant; for one that a body reads, or nobody, the graph."""
    readers = scope.reads(name)
    for node, index in readers:
        if node.op_type not in QUANTIZERS or index == 0:  # a scale: see qdq_rules
            yield node, what
    if not readers:
        yield None, what
