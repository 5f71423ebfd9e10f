"""What a rule about a graph is, what it sees of it, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from onnx import ModelProto, NodeProto

from hiresvit.check.target import Target
from hiresvit.graph.bodies import index_bodies
from hiresvit.graph.file import require_weights
from hiresvit.graph.index import GraphIndex, index_graph, inline_functions


@dataclass(frozen=True)
class View(GraphIndex):
    """A graph's index for a target. ``profiled`` says that the build gets the sizes of dynamic axes."""

    target: Target
    profiled: bool
    seen: dict[int, dict[str, GraphIndex]] = field(default_factory=dict, repr=False, compare=False)
    """The bodies that were indexed, by their node: the views of other targets share them."""

    def bodies_of(self, node: NodeProto) -> Mapping[str, GraphIndex]:
        """The bodies of an If, a Loop or a Scan, by the names of their attributes; none of other nodes."""
        if id(node) not in self.seen:  # the index keeps the node
            self.seen[id(node)] = index_bodies(self, node)
        return self.seen[id(node)]


def look(model: ModelProto, target: Target, profiled: bool) -> View:
    """The view of a graph; the views of other targets share its index (`dataclasses.replace`).

    Raises UsageError for weights outside the proto, which the rules read, HiresvitError for local functions that
    cannot be resolved.
    """
    require_weights(model)
    index = index_graph(inline_functions(model))
    return View(**vars(index), target=target, profiled=profiled)


def scopes(view: View) -> Iterator[View]:
    """The view, and those of all bodies in it."""
    yield view
    for node in view.nodes:
        for body in view.bodies_of(node).values():
            yield from scopes(replace(view, **vars(body)))


Level = Literal["illegal", "hazard", "advice"]
LevelOf = Callable[[Target], Level | None]
"""The level on a target; None: the rule is not for it."""
Spot = tuple[NodeProto | None, str]
"""A node, or None for the whole graph, and what is there."""
Find = Callable[[View], Iterable[Spot]]


@dataclass(frozen=True)
class Rule:
    """One thing to look for: `rule` makes it of the function ``find``, whose docstring says what it finds.

    ``reason`` says why the target minds and what to do; ``{target}`` in it is the target's title, ``{target.max_rank}``
    a field of it. The level is one for all targets, or chosen by what a target can do, never by its name.
    """

    name: str
    level: Level | LevelOf
    reason: str
    find: Find

    def level_on(self, target: Target) -> Level | None:
        """How grave it is on a target; None where it is not asked."""
        if self.name in target.not_asked:
            return None
        return self.level(target) if callable(self.level) else self.level


def rule(level: Level | LevelOf, reason: str) -> Callable[[Find], Rule]:
    """The record of a rule, written above its function, whose name it takes."""
    return lambda find: Rule(find.__name__, level, reason, find)


@dataclass(frozen=True)
class Finding:
    """What a rule found: ``message`` is one line for the user, ``what`` it begins with is there, the rest is why the
    target minds and what to do.

    There are no ``nodes``, and ``count`` is 0, where the graph as a whole is meant. ``module`` is the PyTorch module
    that they all are in, or "". What cannot be printed in their names is spelled out.
    """

    rule: str
    level: Level
    nodes: tuple[str, ...]
    count: int
    module: str
    what: str
    message: str

    def __post_init__(self) -> None:
        for name in ("module", "what", "message"):
            object.__setattr__(self, name, _printable(getattr(self, name)))
        object.__setattr__(self, "nodes", tuple(map(_printable, self.nodes)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _printable(text: str) -> str:
    """A text with what is no sign of its own spelled out: a name may hold a newline or move a terminal's cursor."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
