"""Where the PyTorch modules of a graph end: the tensors that each hands on to the others.

Nodes are named ``module.path/OpType`` (`hiresvit.export.onnx`), and every form of a bundle's graph keeps the names of
its results. So one module's result can be found in two graphs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from onnx import NodeProto

from hiresvit.graph.dtypes import FLOATS
from hiresvit.graph.index import GraphIndex, first_output
from hiresvit.graph.operators import CARRIERS, FLOORS

_QUANTITIES = FLOATS | {"double"}


@dataclass(frozen=True)
class Boundary:
    """What a module hands on: ``tensor``, made by a ``kind``: an operator, or the module's class in PyTorch.

    ``source`` is what its readers get: behind Q/DQ that is another tensor. ``shape`` is None where it is not known.
    What is below ``floor`` makes no difference to them: 0 where each is a Relu. -inf where all counts, and None where
    the readers are not known.
    """

    module: str
    kind: str
    tensor: str
    source: str
    shape: tuple[int, ...] | None
    floor: float | None = None

    @property
    def size(self) -> int | None:
        """How many values it has."""
        return None if self.shape is None else math.prod(self.shape)


def find_boundaries(index: GraphIndex) -> list[Boundary]:
    """The modules that compute something themselves, in the order in which their results are made.

    A module's nodes are those that have its own path, not that of a module in it; its boundary is the result of the
    last of them that another module reads, or that leaves the graph. Constants and what is computed of them have none,
    nor do integers.
    """
    found: dict[str, Boundary] = {}
    for node in index.nodes:
        module = owner_of(node)
        if not module or node.op_type in CARRIERS:  # which are of no module: who reads their result reads the tensor
            continue
        for tensor in node.output:
            if tensor in index.fixed or (index.types.get(tensor) or "float") not in _QUANTITIES:
                continue  # a constant, or labels and indices, which are no quantities
            readers = list(_readers(index, tensor))
            if any(reader is None or owner_of(reader) != module for reader in readers):
                found.pop(module, None)  # so that it stands where its last result is made
                source = _as_read(index, tensor)
                floor = min(
                    -math.inf if reader is None else FLOORS.get(reader.op_type, -math.inf) for reader in readers
                )
                found[module] = Boundary(module, node.op_type, tensor, source, index.sizes(tensor), floor)
    return list(found.values())


def owner_of(node: NodeProto) -> str:
    """The module of a node; what a rewrite put in its place is called ``module.path/OpType/...``. "" if unnamed."""
    return node.name.partition("/")[0] if "/" in node.name else ""


def _readers(index: GraphIndex, tensor: str) -> Iterator[NodeProto | None]:
    """The nodes that read a tensor, in whatever type; None for the graph's caller."""
    if tensor in index.outputs:
        yield None
    for reader, _ in index.reads(tensor):
        if reader.op_type in CARRIERS:
            yield from _readers(index, first_output(reader))
        else:
            yield reader


def _as_read(index: GraphIndex, tensor: str) -> str:
    """The first that a Q/DQ pair makes of a tensor, else the tensor."""
    for reader, _ in index.reads(tensor):
        if reader.op_type == "QuantizeLinear":
            for behind, _ in index.reads(first_output(reader)):
                return first_output(behind)
    return tensor
