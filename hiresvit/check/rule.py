"""What a rule about a graph is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from onnx import NodeProto

from hiresvit.check.targets import Target
from hiresvit.check.view import View, printable

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
        return self.level(target) if callable(self.level) else self.level


def rule(level: Level | LevelOf, reason: str) -> Callable[[Find], Rule]:
    """The record of a rule, written above its function, whose name it takes."""
    return lambda find: Rule(find.__name__, level, reason, find)


@dataclass(frozen=True)
class Finding:
    """What a rule found: ``message`` is one line for the user.

    ``nodes`` names the first of the ``count`` nodes; there are none where the graph as a whole is meant. ``module`` is
    the PyTorch module that they all are in, or "". What cannot be printed in their names is spelled out.
    """

    rule: str
    level: Level
    nodes: tuple[str, ...]
    count: int
    module: str
    message: str

    def __post_init__(self) -> None:
        for name in ("module", "message"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        object.__setattr__(self, "nodes", tuple(map(printable, self.nodes)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)
