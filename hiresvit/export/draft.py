"""A graph that is being rewritten: its nodes in their new order, and the constants that were added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hiresvit.export.fp16_typing import fresh
from hiresvit.export.rewrites import replace_all, share_constants
from hiresvit.graph.dtypes import FLOAT, HALF
from hiresvit.graph.index import GraphIndex, index_graph


@dataclass
class Draft:
    """``model`` as it will be, ``index`` of it as it was, and ``nodes`` as far as they are written."""

    model: ModelProto
    index: GraphIndex
    nodes: list[NodeProto] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def add(self, op: str, inputs: Sequence[str], near: str, *, output: str = "", **attributes: Any) -> str:
        """Write a node of the module that ``near``, a node's name, is of; returns the name of what it makes.

        ``output`` is that name where the graph knows the tensor already.
        """
        name = fresh(f"{near.rpartition('/')[0] or 'tensorrt'}/{op}", self.taken)
        made = output or f"{name}/made"
        self.taken |= {name, made}
        self.nodes.append(helper.make_node(op, list(inputs), [made], name, **attributes))
        return made

    def constant(self, values: NDArray[Any] | Sequence[int]) -> str:
        """An initializer; a list is of int64."""
        name = fresh("tensorrt/constant", self.taken)
        self.taken.add(name)
        array = values if isinstance(values, np.ndarray) else np.array(values, np.int64)
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def single(self, tensor: str, near: str) -> str:
        """A tensor in FP32."""
        return self.add("Cast", [tensor], near, to=FLOAT)

    def half(self, tensor: str, near: str, output: str) -> None:
        """A tensor in FP16, under the name that the graph knows it by."""
        self.add("Cast", [tensor], near, output=output, to=HALF)


@dataclass(frozen=True)
class Site:
    """A place of a graph that ``write`` writes anew where the maker of ``output`` was; the makers of ``gone`` go."""

    output: str
    gone: frozenset[str]
    write: Callable[[Draft], None]


def redraw(model: ModelProto, find: Callable[[GraphIndex], Sequence[Site]]) -> ModelProto:
    """A copy with the sites that ``find`` finds written anew; without any, an equal copy."""
    copy = ModelProto()
    copy.CopyFrom(model)
    index = index_graph(copy)
    sites = {site.output: site for site in find(index)}
    if not sites:
        return copy
    draft = Draft(copy, index, taken={node.name for node in copy.graph.node} | set(index.types))
    gone = {tensor for site in sites.values() for tensor in site.gone}
    for node in index.nodes:
        if node.output[0] in sites:
            sites[node.output[0]].write(draft)
        elif node.output[0] not in gone:
            draft.nodes.append(node)
    replace_all(copy.graph.node, draft.nodes)
    made = {name for node in copy.graph.node for name in node.output}
    replace_all(copy.graph.value_info, [value for value in copy.graph.value_info if value.name in made])
    share_constants(copy.graph)
    return copy


def sole_reader(index: GraphIndex, tensor: str) -> NodeProto | None:
    """The one node that reads a tensor, once; None if there are more or it is an output."""
    readers = index.reads(tensor)
    return readers[0][0] if len(readers) == 1 and tensor not in index.outputs else None
