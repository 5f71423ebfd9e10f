"""What a rule about a graph is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from onnx import NodeProto

from hiresvit.graph.index import View, printable

Level = Literal["illegal", "hazard", "advice"]
Spot = tuple[NodeProto | None, str]
"""A node, or None for the whole graph, and what is there."""


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
