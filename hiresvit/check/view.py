"""A graph as the rules see it: its index, and what it is to be built for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from hiresvit.check.targets import Target
from hiresvit.graph.file import require_weights
from hiresvit.graph.index import GraphIndex, index_graph, inline_functions


@dataclass(frozen=True)
class View(GraphIndex):
    """A graph's index for a target. ``profiled`` says that the build gets the sizes of dynamic axes."""

    target: Target
    profiled: bool


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
