"""What Qualcomm's HTP wants of integers: who shares a range, what a constant is, what has 8 and what 16 bits.

The forms are those that its compiler takes, and computes rightly, on chips of integers only (measured: docs/ar.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from onnx import NodeProto

from hiresvit.calibration.sensitivity import Group
from hiresvit.calibration.sites import find_sites
from hiresvit.errors import ArtefactError
from hiresvit.graph.index import GraphIndex, attributes, module_of
from hiresvit.graph.operators import CUTS, FLOORS, LINEARS, SPREADS, WEIGHTED
from hiresvit.graph.precision import Lowest, lowest_of, read_lowest

Width = Literal[8, 16]
Range = tuple[float, float]
Role = Literal["activation", "second", "weight", "bias", "gain", "shift", "plain"]
"""What an input is: a tensor with a range; the second of two activations that are multiplied; a product's weight and
bias; a norm's two; something that stays as it is."""

SHARING = (CUTS - {"Cast"}) | SPREADS | {"Flatten", "Pad", "Resize", "MaxPool", "AveragePool"}
"""What makes numbers within the range of those that it reads. Scale and zero point must be the same on both sides, else
these are computed in floating point, refused where there is none, or wrong (AveragePool: 9 dB)."""
NORMS = frozenset({"LayerNormalization", "RMSNormalization", "InstanceNormalization"})
WEIGHINGS = frozenset({"Softmax", "Sigmoid"})
"""What weighs other numbers: its largest values are the ones that count, so 8 bits do not cut it. It keeps the range
that was measured; of [0, 1] 256 keys have a level each (measured: 5 dB for LRFormer with fresh weights, and not 14)."""
# Inputs that are no numbers of the network: sizes in FP32, limits, the value that Pad fills with (0 is the default).
_SETTINGS = {"Resize": (1, 2), "Clip": (1, 2), "Pad": (2,), "Dropout": (1,)}


@dataclass(frozen=True)
class Bits:
    """How many bits activations have: ``default``, and the other number in the modules ``but``.

    A module is one of `Layout.groups`; in it are those below it that have no name there.
    """

    default: Width
    but: frozenset[str] = frozenset()

    def of(self, module: str) -> Width:
        """Of a module."""
        return self.default if module not in self.but else 8 if self.default == 16 else 16


@dataclass(frozen=True)
class Layout:
    """A simplified FP32 graph as the HTP's integers see it."""

    index: GraphIndex

    def is_float(self, name: str) -> bool:
        """Whether a tensor is in FP32."""
        return self.index.types.get(name) == "float"

    def role(self, node: NodeProto, place: int) -> Role:
        """What an input of a node is."""
        name = node.input[place]
        if not name or not self.is_float(name) or place in _SETTINGS.get(node.op_type, ()):
            return "plain"
        constant = name in self.index.constants
        if node.op_type in NORMS and place and constant:
            return "gain" if place == 1 else "shift"
        if node.op_type not in WEIGHTED or not place:
            return "activation"
        if not constant:
            return "second"
        if place == 2:
            return "bias"
        return "weight" if node.op_type != "MatMul" or len(self.index.shapes[name]) == 2 else "second"

    @cached_property
    def activations(self) -> list[str]:
        """Every FP32 tensor that is fed or made, in order."""
        made = [name for node in self.index.nodes if node.op_type != "Constant" for name in node.output if name]
        return [name for name in (*self.index.inputs, *made) if self.is_float(name)]

    def root(self, tensor: str) -> str:
        """The tensor whose numbers these are, moved or chosen; it may be a constant."""
        while (node := self.index.producer.get(tensor)) is not None and node.op_type in SHARING:
            tensor = node.input[0]
        return tensor

    @cached_property
    def members(self) -> dict[str, list[str]]:
        """Each root, with the tensors that have to be measured for its range."""
        found: dict[str, list[str]] = {}
        for name in self.activations:
            found.setdefault(self.root(name), [])
            maker = self.index.producer.get(name)
            if self.root(name) == name:
                found[name].append(name)
            elif maker is not None and attributes(maker).get("mode") == b"cubic":  # it goes beyond what it reads
                found[self.root(name)].append(name)
        return found

    @cached_property
    def lowest(self) -> Lowest:
        """What modules say of the least precision that they bear."""
        return read_lowest(self.index.metadata)

    @cached_property
    def module(self) -> dict[str, str]:
        """The group of each node by its name: the module that has others in it, or else the one that it is in."""
        modules = {module_of(node.name) for node in self.index.nodes}
        holders = {module[:at] for module in modules for at, letter in enumerate(module) if letter == "."}
        return {
            node.name: module if (module := module_of(node.name)) in holders else module.rpartition(".")[0] or module
            for node in self.index.nodes
        }

    def groups(self) -> list[Group]:
        """The modules that can have 8 or 16 bits, in order, with the multiply-accumulates of their layers."""
        macs = Counter[str]()
        for node in self.index.nodes:
            if node.op_type not in SHARING and any(self.is_float(name) for name in node.output):
                macs[self.module[node.name]] += 0
        for site in find_sites(self.index):
            macs[self.module[site.node]] += site.macs
        return [Group(module, count) for module, count in macs.items()]

    def width(self, node: NodeProto, bits: Bits) -> Width:
        """How many bits a node computes with; what moves numbers has those of what made them.

        Of a module that bears no less than FP16 it is 16: a chip of integers only has nothing better.
        """
        if node.op_type in SHARING:
            root = self.root(node.input[0])
            maker = self.index.producer.get(root)
            return self.width_fed(root, bits) if maker is None else self.width(maker, bits)
        return self._own_width(node, bits)

    def _own_width(self, node: NodeProto, bits: Bits) -> Width:
        return 16 if lowest_of(node.name, self.lowest) else bits.of(self.module[node.name])

    def width_fed(self, root: str, bits: Bits) -> Width:
        """How many bits an input of the graph has, or a constant that is moved: as many as any reader wants."""
        return max((self._own_width(node, bits) for node in self._readers(root)), default=8)

    def _readers(self, tensor: str) -> Iterator[NodeProto]:
        """Who computes with it, wherever it was moved to."""
        for node, place in self.index.reads(tensor):
            if node.op_type in SHARING and place == 0:
                for name in node.output:
                    yield from self._readers(name)
            else:
                yield node


@dataclass(frozen=True)
class Ranges:
    """The range of each tensor: ``measured`` as a whole, ``cuts`` the magnitude that 8 bits keep of it."""

    layout: Layout
    measured: Mapping[str, Range]
    cuts: Mapping[str, float]

    def of(self, tensor: str, width: Width) -> Range:
        """Lowest and highest, with 0 between them. Raises ArtefactError for a tensor that was not measured."""
        root = self.layout.root(tensor)
        maker = self.layout.index.producer.get(root)
        if (constant := self.layout.index.array(root)) is not None:
            return _with_zero(float(constant.min()), float(constant.max()))
        low, high = self._measured(root)
        if maker is not None and maker.op_type == "Add":
            low, high = self._sum(maker, low, high)
        if width == 8 and (maker is None or maker.op_type not in WEIGHINGS):
            cut = max((self.cuts.get(name, np.inf) for name in self.layout.members[root]), default=np.inf)
            low, high = max(low, -cut), min(high, cut)
            readers = {node.op_type for node, _ in self.layout.index.reads(root)}
            if readers and readers <= FLOORS.keys() and root not in self.layout.index.outputs:
                low = max(low, min(FLOORS[op] for op in readers))
        return _with_zero(low, high)

    def _measured(self, root: str) -> Range:
        wanted = self.layout.members[root]
        if missing := [name for name in wanted if name not in self.measured]:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise ArtefactError(f"no range for tensor {missing[0]!r}{more}: calibrate again, this graph is another")
        found = [self.measured[name] for name in wanted]
        return min(low for low, _ in found), max(high for _, high in found)

    def _sum(self, node: NodeProto, low: float, high: float) -> Range:
        """Within what a sum with a constant can be: of a mask that was clipped since, the range was measured before."""
        for constant, other in ((0, 1), (1, 0)):
            added, root = self.layout.index.array(node.input[constant]), self.layout.root(node.input[other])
            if added is not None and root in self.layout.members:
                lowest, highest = self.of(root, 16)
                return max(low, lowest + float(added.min())), min(high, highest + float(added.max()))
        return low, high


def _with_zero(low: float, high: float) -> Range:
    """0 is exact in every range: what is padded, and what was clipped, is just that. What is always 0 gets a range."""
    return (min(low, 0.0), max(high, 0.0)) if low or high else (0.0, 1.0)


def channel_axis(node: NodeProto) -> int:
    """The axis of a weight that counts output channels."""
    if node.op_type == "ConvTranspose":
        return 1
    return int(node.op_type in LINEARS and not attributes(node).get("transB", 0))
