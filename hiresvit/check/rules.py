"""Our own rules about an ONNX graph: what a target refuses, and what can go wrong on it, with nothing installed.

A rule looks at the graph for one thing, and asks what the target can do, never which it is. What is said of
TensorRT-RTX was seen when such a graph was built there; what it builds, and another target is documented, or known, to
refuse, is illegal for that one alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hiresvit.check import fp16_rules, operator_rules, qdq_rules, type_rules, validity_rules
from hiresvit.check.rule import Finding, Rule
from hiresvit.check.validity_rules import operands
from hiresvit.check.view import View, common_module, name_of

_NAMED = 5  # nodes that a finding names

RULES: tuple[Rule, ...] = tuple(
    value
    for module in (validity_rules, operator_rules, type_rules, qdq_rules, fp16_rules)
    for value in vars(module).values()
    if isinstance(value, Rule)
)
"""All of them, in the order in which they are asked: as they stand in their files."""


def problems_of(view: View) -> list[Finding]:
    """What `RULES` find in a graph for the view's target, in their order; nodes with the same trouble are one finding.

    Where a node lacks operands that is the only thing said. Raises HiresvitError for constants that are damaged.
    """
    if any(True for _ in operands.find(view)):
        return _findings(view, [operands])  # the other rules count on them
    return _findings(view, RULES)


def _findings(view: View, rules: Sequence[Rule]) -> list[Finding]:
    findings = []
    for rule in rules:
        level = rule.level_on(view.target)
        if level is None:
            continue
        reason = rule.reason.format(target=view.target)
        spots: dict[str, list[str]] = defaultdict(list)
        for node, what in rule.find(view):
            spots[what].extend([] if node is None else [name_of(node)])
        for what, nodes in spots.items():
            named = tuple(nodes[:_NAMED])
            findings.append(Finding(rule.name, level, named, len(nodes), common_module(nodes), f"{what}: {reason}"))
    return findings
