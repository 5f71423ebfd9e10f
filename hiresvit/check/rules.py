"""Our own rules about an ONNX graph: what a target refuses, and what can go wrong on it, with nothing installed.

A rule looks at the graph for one thing, and asks what the target can do, never which it is. What is said of
TensorRT-RTX was seen when such a graph was built there; what it builds, and another target is documented, or known, to
refuse, is illegal for that one alone; a type that no document of another target lists is a hazard there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import takewhile

from onnx import NodeProto

from hiresvit.check import (
    form_rules,
    fp16_rules,
    htp_rules,
    number_rules,
    operator_rules,
    qdq_rules,
    type_rules,
    validity_rules,
)
from hiresvit.check.rule import Finding, Rule, View
from hiresvit.check.validity_rules import operands

RULES: tuple[Rule, ...] = tuple(
    value
    for module in (
        *(validity_rules, operator_rules, form_rules, type_rules, qdq_rules, number_rules, fp16_rules),
        htp_rules,
    )
    for value in vars(module).values()
    if isinstance(value, Rule)
)
"""All of them, in the order in which they are asked: as they stand in their files."""


def problems_of(view: View) -> list[Finding]:
    """What `RULES` find in a graph for the view's target, in their order; nodes with the same trouble are one finding.

    Where a node lacks operands that is the only thing said. Raises HiresvitError for constants that are damaged.
    """
    lacking = any(True for _ in operands.find(view))  # the other rules count on them
    findings = []
    for rule in [operands] if lacking else RULES:
        level = rule.level_on(view.target)
        if level is None:
            continue
        reason = rule.reason.format(target=view.target)
        spots: dict[str, list[str]] = defaultdict(list)
        for node, what in rule.find(view):
            spots[what].extend([] if node is None else [_name(node)])
        for what, nodes in spots.items():
            message = f"{what}: {reason}"
            findings.append(Finding(rule.name, level, tuple(nodes), len(nodes), _common_module(nodes), what, message))
    return findings


def _name(node: NodeProto) -> str:
    """The node's name, or what it makes if it has none."""
    return node.name or f"{node.op_type} of {', '.join(node.output)}"


def _common_module(nodes: Iterable[str]) -> str:
    """The module that all nodes, named ``module.path/OpType``, are in; "" if they share none."""
    paths = [name.rpartition("/")[0].split(".") for name in nodes]
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in shared)
