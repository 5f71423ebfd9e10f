"""What the rules find in a graph, asked as `check_graph` asks them: the graph is looked at once for all targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

from onnx import ModelProto

from hiresvit.check.rule import Finding, Rule, View, look
from hiresvit.check.rules import problems_of
from hiresvit.check.target import Target
from hiresvit.check.targets import RTX, TARGETS, find_target


def view_of(model: ModelProto, target: Target = RTX, profiled: bool = False) -> View:
    return look(model, target, profiled)


def problems_on(
    model: ModelProto, targets: Sequence[Target] = tuple(TARGETS.values()), profiled: bool = False
) -> dict[str, list[Finding]]:
    """By the name of the target."""
    view = view_of(model, profiled=profiled)
    return {target.name: problems_of(replace(view, target=target)) for target in targets}


def find_problems(model: ModelProto, target: str = "rtx", profiled: bool = False) -> list[Finding]:
    return problems_on(model, [find_target(target)], profiled)[target]


def found(model: ModelProto, rule: str, target: str = "rtx") -> list[Finding]:
    return [finding for finding in find_problems(model, target) if finding.rule == rule]


def rules_at(level: str, findings: Sequence[Finding]) -> set[str]:
    return {finding.rule for finding in findings if finding.level == level}


def names_of(module: ModuleType) -> list[str]:
    """The rules of a file, in their order."""
    return [value.name for value in vars(module).values() if isinstance(value, Rule)]
