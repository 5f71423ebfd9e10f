"""A second look at a graph for the HTP: every scale and zero point must be what its range and its form ask for.

It reads the graph as it is, and nothing of how it was made. The compiler takes most of what it finds wrong: a range
that is not shared is computed in floating point, a bias of another scale is a wrong bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from hiresvit.calibration.htp_plan import SHARING, Layout, Range, Ranges, channel_axis
from hiresvit.device.chips import Chip
from hiresvit.errors import GateError
from hiresvit.graph.index import GraphIndex, array_of, attributes, index_graph

_ROUNDING = 1e-6  # of FP32, relative

Array = NDArray[Any]


@dataclass(frozen=True)
class Encoding:
    """A DequantizeLinear: what it makes numbers of, and how."""

    source: str
    dtype: str
    scale: Array
    zero: Array
    axis: int

    def same(self, other: Encoding) -> bool:
        """Whether equal levels are equal numbers."""
        alike = self.dtype == other.dtype and np.array_equal(self.scale, other.scale)
        return alike and np.array_equal(self.zero, other.zero)


def check_htp(
    graph: ModelProto, ready: ModelProto, ranges: Mapping[str, Range], cuts: Mapping[str, float], chip: Chip
) -> int:
    """Raise GateError unless ``graph`` is ``ready`` with Q/DQ in the forms that the HTP of ``chip`` takes, each with
    the scale and zero point of its range; returns how many encodings were held. The arguments are those of
    `quantize_htp`.
    """
    layout = Layout(index_graph(ready))
    look = _Look(index_graph(graph), layout, Ranges(layout, ranges, cuts), chip)
    nodes = {node.name: node for node in look.index.nodes}
    for node in layout.index.nodes:
        if node.op_type != "Constant":
            if node.name not in nodes or nodes[node.name].op_type != node.op_type:
                raise GateError(f"{node.name}: it is not in the quantized graph")
            look.hold(node, nodes[node.name])
    for node in look.index.nodes:
        if node.op_type == "QuantizeLinear":
            look.hold_pair(node)
    return look.count


@dataclass
class _Look:
    """The graph, what it was made from, and how many encodings have been held."""

    index: GraphIndex
    layout: Layout
    ranges: Ranges
    chip: Chip
    count: int = 0

    def hold(self, plain: NodeProto, node: NodeProto) -> None:
        """A node of the plain graph as it is in the quantized one: what it reads, what it makes, and their types."""
        read: dict[str, Encoding] = {}
        for place, name in enumerate(plain.input):
            role = self.layout.role(plain, place)
            if role != "plain":
                read[role] = found = self._read(node, place)
                self._type(node, role, found, read)
                if name in self.layout.index.constants:
                    self._constant(plain, node, place, found)
                else:
                    self._range(node, name, found)
        for place, name in enumerate(plain.output):
            if self.layout.is_float(name):
                made = self._made(node, place)
                self._related(node, read.get("activation"), made)
                self._range(node, name, made)
        if "bias" in read:
            wanted = read["activation"].scale.astype(np.float64) * read["weight"].scale
            if not np.allclose(read["bias"].scale, wanted, rtol=_ROUNDING, atol=0):
                raise GateError(f"{node.name}: the scale of its bias is not that of its input times that of its weight")
        if "weight" in read and read["weight"].axis != channel_axis(node):
            raise GateError(f"{node.name}: the scales of its weight are along axis {read['weight'].axis}")

    def hold_pair(self, node: NodeProto) -> None:
        """What is quantized is read as it was quantized."""
        made = self._encoding(node)
        for reader, _ in self.index.reads(node.output[0]):
            if reader.op_type != "DequantizeLinear" or not made.same(self._encoding(reader)):
                raise GateError(f"{node.name}: {reader.name} reads it with another scale or zero point")

    def _read(self, node: NodeProto, place: int) -> Encoding:
        maker = self.index.producer.get(node.input[place])
        if maker is None or maker.op_type != "DequantizeLinear":
            raise GateError(f"{node.name}: its input {place} is not quantized, and the HTP computes in integers")
        return self._encoding(maker)

    def _made(self, node: NodeProto, place: int) -> Encoding:
        readers = [reader for reader, _ in self.index.reads(node.output[place])]
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear" or node.output[place] in self.index.outputs:
            raise GateError(f"{node.name}: its result {place} is not quantized, and the HTP computes in integers")
        return self._encoding(readers[0])

    def _encoding(self, node: NodeProto) -> Encoding:
        if len(node.input) != 3 or not self.index.constants.keys() >= {*node.input[1:]}:
            raise GateError(f"{node.name}: its scale or zero point is not constant")
        scale, zero = (array_of(self.index.constants[name], name) for name in node.input[1:])
        self.count += 1
        return Encoding(node.input[0], str(zero.dtype), scale, zero, attributes(node).get("axis", 1))

    def _type(self, node: NodeProto, role: str, found: Encoding, read: Mapping[str, Encoding]) -> None:
        """The type that an input must have beside those before it."""
        wide = read.get("activation", found).dtype == "uint16"
        wanted = {
            "activation": ("uint16" if wide else "uint8",),
            "second": ("uint8",) if not wide or not self.chip.wide_products else ("int16",),
            "weight": ("int8",),
            "bias": ("int32",),
            "gain": ("uint8",),
            "shift": ("int32",),
        }[role]
        if found.dtype not in wanted:
            raise GateError(f"{node.name}: its {role} is {found.dtype}, and the HTP takes {wanted[0]} here")
        if found.dtype.startswith("int") and found.zero.any():
            raise GateError(f"{node.name}: its {role} has a zero point, and is signed")

    def _related(self, node: NodeProto, read: Encoding | None, made: Encoding) -> None:
        """A result beside what it is made of."""
        if read is not None and made.dtype != read.dtype:
            raise GateError(f"{node.name}: it reads {read.dtype} and makes {made.dtype}")
        if not made.dtype.startswith("uint"):
            raise GateError(f"{node.name}: its result is {made.dtype}, and the HTP takes unsigned ones only")
        if node.op_type in SHARING and read is not None and not made.same(read):
            raise GateError(f"{node.name}: {node.op_type} must have one scale and zero point on both sides")

    def _constant(self, plain: NodeProto, node: NodeProto, place: int, found: Encoding) -> None:
        """Half a step is what rounding costs."""
        name = plain.input[place]
        if found.source not in self.index.constants:
            raise GateError(f"{node.name}: its input {place} was constant, and is not")
        exact = array_of(self.layout.index.constants[name], name)
        levels = array_of(self.index.constants[found.source], found.source)
        shape = [1] * levels.ndim
        if found.scale.size > 1:
            shape[found.axis] = -1
        step = found.scale.astype(np.float64).reshape(shape)
        made = (levels.astype(np.float64) - found.zero.astype(np.float64).reshape(shape)) * step
        if attributes(plain).get("transB", 0) != attributes(node).get("transB", 0) and place == 1:
            made, step = made.T, step.T  # a Gemm's weight is turned round
        elif made.shape != exact.shape:  # a bias loses its unit axes
            exact = exact.reshape(made.shape)
        if (np.abs(made - exact) > step * 0.501).any():
            raise GateError(f"{node.name}: the integers of its input {place} are not {name!r}")

    def _range(self, node: NodeProto, tensor: str, found: Encoding) -> None:
        """A scale is its range over the levels, and the ends of the range are among them, to half a step."""
        limits = np.iinfo(found.dtype)
        low, high = self.ranges.of(tensor, 8 if found.dtype == "uint8" else 16)
        signed = limits.min < 0
        exact = max(-low, high) / limits.max if signed else (high - low) / limits.max
        scale = float(found.scale)
        if not _near(scale, exact) and exact > 2.0**-60:
            raise GateError(
                f"{node.name}: the scale of {tensor!r} is {scale:.4g}, and its range [{low:.4g}, {high:.4g}] asks for"
                f" {exact:.4g}: calibrate again"
            )
        if not signed and abs(float(found.zero) + low / scale) > 0.501:
            raise GateError(f"{node.name}: the zero point of {tensor!r} is {found.zero}, not {-low / scale:.0f}")


def _near(found: Any, wanted: float) -> bool:
    return bool(np.allclose(found, wanted, rtol=_ROUNDING, atol=0))
