"""A graph as the rules see it: its index, and what it is to be built for; and what a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from onnx import ModelProto, NodeProto

from hiresvit.check.targets import Target
from hiresvit.graph.file import require_weights
from hiresvit.graph.index import GraphIndex, index_graph, inline_functions

Level = Literal["illegal", "hazard", "advice"]
Spot = tuple[NodeProto | None, str]
"""A node, or None for the whole graph, and what is there."""


@dataclass(frozen=True)
class View(GraphIndex):
    """A graph's index for a target. ``profiled`` says that the build gets the sizes of dynamic axes."""

    target: Target
    profiled: bool


@dataclass(frozen=True)
class Rule:
    """One thing to look for. ``reason`` says why the target minds and what to do; ``{target}`` is its title.

    ``elsewhere`` gives the level on targets where it is another one; None: there it is nothing at all.
    """

    name: str
    level: Level
    reason: str
    find: Callable[[View], Iterable[Spot]]
    elsewhere: Mapping[str, Level | None] = field(default_factory=dict)


def look(model: ModelProto, target: Target, profiled: bool) -> View:
    """The view of a graph; the views of other targets share its index (`dataclasses.replace`).

    Raises UsageError for weights outside the proto, which the rules read, HiresvitError for local functions that
    cannot be resolved.
    """
    require_weights(model)
    index = index_graph(inline_functions(model))
    return View(**vars(index), target=target, profiled=profiled)


def name_of(node: NodeProto) -> str:
    """The node's name, or what it makes if it has none."""
    return node.name or f"{node.op_type} of {', '.join(node.output)}"


def printable(text: str) -> str:
    """A text with what is no sign of its own spelled out: a name may hold a newline or move a terminal's cursor."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def common_module(nodes: Iterable[str]) -> str:
    """The module that all nodes, named ``module.path/OpType``, are in; "" if they share none."""
    paths = [name.rpartition("/")[0].split(".") for name in nodes]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
