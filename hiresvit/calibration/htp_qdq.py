"""Q/DQ for Qualcomm's HTP: the second writer, from the same ranges as TensorRT's (`hiresvit.calibration.qdq`).

The graph stays in FP32, and everything that a node reads and makes has a pair, for the chip may have no floating point.
Activations are unsigned with a zero point, 8 or 16 bits each; weights are INT8, symmetric, per output channel; biases
have 32 bits. Inputs and outputs of the graph stay in FP32: the HTP quantizes them itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hiresvit.calibration.htp_plan import Bits, Layout, Range, Ranges, Width, channel_axis
from hiresvit.calibration.qdq import quantize_weight
from hiresvit.calibration.sensitivity import Group
from hiresvit.device.chips import Chip
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.export.fp16 import inferred
from hiresvit.export.fp16_typing import fresh
from hiresvit.export.rewrites import replace_all, share_constants
from hiresvit.graph.index import index_graph

MIN_OPSET = 20
"""GELU is an operator from here on; written out it is refused in integers."""
OPSET = 21
"""What is written: the first in which a zero point has 16 bits. Nothing else of it differs for our operators."""
_IR = 10  # the version of the file's format that goes with it
SMALLEST_SCALE = 2.0**-60
"""Its product with a weight's is a normal number of FP32 still."""
_MOST = 2**31 - 1  # of a bias

Array = NDArray[Any]


@dataclass(frozen=True)
class HtpLayer:
    """A product with constant weights: how many bits what it reads has, and ``weight_sqnr_db`` as in `LayerReport`."""

    node: str
    module: str
    op: str
    bits: Width
    weight_sqnr_db: float | None


@dataclass(frozen=True)
class HtpQdqReport:
    """What `quantize_htp` did. ``tensors``: how many activations, constants among them, by their type. ``converts``:
    those of them that are made from another type. ``channels``: output channels of weights; ``channels_zero`` are 0
    throughout, ``channels_lifted`` have a larger scale than their weights ask for, or the bias would not fit 32 bits.
    """

    layers: tuple[HtpLayer, ...]
    tensors: dict[str, int]
    converts: int
    channels: int
    channels_zero: int
    channels_lifted: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def htp_tensors(graph: ModelProto) -> list[str]:
    """Every FP32 tensor of a graph that `quantize_htp` needs a range of: those that are moved only have another's.

    Raises IllegalGraphError for a graph that fails `onnx.checker`.
    """
    return [name for names in _layout(graph)[1].members.values() for name in names]


def htp_groups(graph: ModelProto) -> list[Group]:
    """The modules that `Bits` can name, with the multiply-accumulates of their layers. Raises as `htp_tensors`."""
    return _layout(graph)[1].groups()


def quantize_htp(
    graph: ModelProto,
    ranges: Mapping[str, Range],
    bits: Bits,
    chip: Chip,
    *,
    cuts: Mapping[str, float] | None = None,
) -> tuple[ModelProto, HtpQdqReport]:
    """Write Q/DQ into a copy of an FP32 graph of `hiresvit.export.htp`.

    ``ranges``: lowest and highest value of each of `htp_tensors`, all of which 16 bits keep; ``cuts``: the magnitude
    at which 8 bits cut either side of it. Equal arguments give equal bytes.

    Raises UsageError below opset 20 and for a module that is none; ArtefactError for a range that is missing;
    HiresvitError for weights that are not finite; IllegalGraphError for a graph that fails `onnx.checker` with full
    type check, before or after.
    """
    result, layout = _layout(graph)
    if unknown := bits.but - set(layout.module.values()):
        raise UsageError(f"{min(unknown)!r} is no module of this graph that can have bits of its own")
    edit = _Edit(layout, Ranges(layout, ranges, cuts or {}), bits, chip)
    nodes: list[NodeProto] = []
    edit.begin(nodes)
    for node in layout.index.nodes:
        edit.add(node, nodes)
    replace_all(result.graph.node, nodes)
    result.graph.initializer.extend(edit.added)
    share_constants(result.graph)  # drops the FP32 constants, too
    for opset in result.opset_import:
        if opset.domain == "":
            opset.version = max(opset.version, OPSET)
    result.ir_version = max(result.ir_version, _IR)
    return inferred(result, "the quantized graph"), edit.report()


def _layout(graph: ModelProto) -> tuple[ModelProto, Layout]:
    result = inferred(graph, "the graph to quantize")
    index = index_graph(result, infer=False)
    if (index.opset or 0) < MIN_OPSET:
        raise UsageError(
            f"the graph is opset {index.opset}; the HTP needs {MIN_OPSET} or later: export with --opset 20"
        )
    return result, Layout(index)


@dataclass
class _Edit:
    """What is made of a graph. ``read`` has the name that a reader gets of a tensor in a type."""

    layout: Layout
    ranges: Ranges
    bits: Bits
    chip: Chip
    added: list[TensorProto] = field(default_factory=list)
    read: dict[tuple[str, str], str] = field(default_factory=dict)
    base: dict[str, tuple[str, str]] = field(default_factory=dict)
    layers: list[HtpLayer] = field(default_factory=list)
    count: Counter[str] = field(default_factory=Counter)
    taken: set[str] = field(init=False)

    def __post_init__(self) -> None:
        index = self.layout.index
        self.taken = {node.name for node in index.nodes} | set(index.types) | set(index.constants)

    def name(self, wanted: str) -> str:
        """A name for a node or tensor that nothing else has."""
        name = fresh(wanted, self.taken)
        self.taken.add(name)
        return name

    def constant(self, wanted: str, value: Array) -> str:
        """Add an initializer; return its name."""
        self.added.append(numpy_helper.from_array(np.asarray(value, order="C"), self.name(wanted)))
        return self.added[-1].name

    def begin(self, nodes: list[NodeProto]) -> None:
        """The inputs of the graph."""
        for name in self.layout.index.inputs:
            if self.layout.is_float(name):
                self._quantized(name, name, self.layout.width_fed(name, self.bits), nodes)

    def add(self, node: NodeProto, nodes: list[NodeProto]) -> None:
        """A node with what it reads before it, and with what quantizes its results behind it."""
        layout = self.layout
        width = layout.width(node, self.bits)
        made = deepcopy(node)  # the layout goes on with what was there
        for place, name in enumerate(node.input):
            role = layout.role(node, place)
            if role in ("activation", "second"):
                made.input[place] = self._dequantized(name, self._dtype(role, width), nodes)
            elif role == "gain":
                made.input[place] = self._constant_dequantized(name, "uint8", nodes)
        self._weights(node, width, made, nodes)
        nodes.append(made)
        for place, name in enumerate(node.output):
            if name and layout.is_float(name) and node.op_type != "Constant":
                if name in layout.index.outputs:
                    made.output[place] = self.name(f"{name}/exact")
                self._quantized(name, made.output[place], width, nodes)

    def _dtype(self, role: str, width: Width) -> str:
        if width == 8 or (role == "second" and not self.chip.wide_products):
            return "uint8"
        return "int16" if role == "second" else "uint16"

    def _quantized(self, tensor: str, source: str, width: Width, nodes: list[NodeProto]) -> None:
        """Quantize what is fed or made, and give the graph's output what readers get."""
        dtype = f"uint{width}"
        scale, zero = self._encoding(tensor, dtype)
        levels = self.name(f"{tensor}/{dtype}")
        nodes.append(self._node("QuantizeLinear", tensor, [source, scale, zero], levels))
        self.base[tensor] = dtype, levels
        self.count[dtype] += 1
        if source != tensor:
            nodes.append(self._node("DequantizeLinear", tensor, [levels, scale, zero], tensor))
            self.read[tensor, dtype] = tensor

    def _dequantized(self, tensor: str, dtype: str, nodes: list[NodeProto]) -> str:
        """What a reader gets of a tensor: of another type than it was made in, by way of a pair that converts."""
        if (tensor, dtype) not in self.read:
            if tensor in self.layout.index.constants:
                return self._constant_dequantized(tensor, dtype, nodes)
            made, levels = self.base[tensor]
            scale, zero = self._encoding(tensor, dtype)
            if made != dtype:
                converted = self.name(f"{tensor}/{dtype}")
                source = self._dequantized(tensor, made, nodes)
                nodes.append(self._node("QuantizeLinear", f"{tensor}/{dtype}", [source, scale, zero], converted))
                levels = converted
                self.count[dtype] += 1
                self.count["converts"] += 1
            target = self.name(f"{tensor}/{dtype}/dequantized")
            nodes.append(self._node("DequantizeLinear", f"{tensor}/{dtype}", [levels, scale, zero], target))
            self.read[tensor, dtype] = target
        return self.read[tensor, dtype]

    def _node(self, op: str, about: str, inputs: list[str], output: str, **more: Any) -> NodeProto:
        return helper.make_node(op, inputs, [output], self.name(f"{about}/{op}"), **more)

    def _encoding(self, tensor: str, dtype: str) -> tuple[str, str]:
        """Names of scale and zero point of a tensor in a type."""
        if (tensor, f"{dtype} scale") not in self.read:
            scale, zero = encoding(self.ranges.of(tensor, 8 if dtype == "uint8" else 16), dtype)
            self.read[tensor, f"{dtype} scale"] = self.constant(f"{tensor}/{dtype}/scale", scale)
            self.read[tensor, f"{dtype} zero"] = self.constant(f"{tensor}/{dtype}/zero", zero)
        return self.read[tensor, f"{dtype} scale"], self.read[tensor, f"{dtype} zero"]

    def _constant_dequantized(self, name: str, dtype: str, nodes: list[NodeProto]) -> str:
        if (name, dtype) not in self.read:
            exact = self._finite(name)
            scale, zero = encoding(self.ranges.of(name, 8 if dtype == "uint8" else 16), dtype)
            limits = np.iinfo(dtype)
            levels = np.clip(np.rint(exact / np.float64(scale)) + float(zero), limits.min, limits.max).astype(dtype)
            names = [self.constant(f"{name}/{dtype}", levels), *self._encoding(name, dtype)]
            self.read[name, dtype] = self.name(f"{name}/{dtype}/dequantized")
            nodes.append(self._node("DequantizeLinear", f"{name}/{dtype}", names, self.read[name, dtype]))
            self.count[dtype] += 1
        return self.read[name, dtype]

    def _finite(self, name: str) -> Array:
        exact = self.layout.index.array(name)
        if exact is None or not np.isfinite(exact).all():
            raise HiresvitError(f"the constant {name!r} has NaN or Inf: repair the checkpoint")
        return exact.astype(np.float64)

    def _weights(self, node: NodeProto, width: Width, target: NodeProto, nodes: list[NodeProto]) -> None:
        """Weight and bias of a product, or the bias of a norm, for ``target``, which is the node that is written."""
        places = {self.layout.role(node, place): place for place in range(len(node.input))}
        at = places.get("bias", places.get("shift"))
        bias = None if at is None else self._finite(node.input[at]).reshape(-1)
        scale = self._scale_of(node.input[0], width) if places.keys() & {"weight", "shift"} else 0.0
        if "weight" in places:
            # The bias has 32 bits in steps of the product of both scales.
            least = np.zeros(()) if bias is None else _least(bias) / scale
            scales = self._weight(node, width, places["weight"], least, target=target, nodes=nodes)
            steps = scale * scales.astype(np.float64)
        elif "shift" in places:
            gain = float(encoding(self.ranges.of(node.input[1], 8), "uint8")[0])
            steps = np.maximum(scale * gain, 0.0 if bias is None else _least(bias).max())
        if at is not None and bias is not None:
            rounded = np.asarray(steps, np.float32)
            levels = np.clip(np.rint(bias / rounded.astype(np.float64)), -_MOST, _MOST).astype(np.int32)
            axis = 0 if rounded.ndim else None
            target.input[at] = self._stored(f"{node.name}/bias", levels, rounded, axis, nodes)

    def _weight(
        self, node: NodeProto, width: Width, place: int, least: Array, *, target: NodeProto, nodes: list[NodeProto]
    ) -> Array:
        """Store the weight; its scales, none of which is below ``least``."""
        weight, axis = self._finite(node.input[place]).astype(np.float32), channel_axis(node)
        if node.op_type == "Gemm" and axis:  # the form in which a scale for each channel is taken
            weight, axis = weight.T, 0
            _set_flag(target, "transB")
        made = quantize_weight(weight, axis, least)
        self.count["channels"] += made.scales.size
        self.count["zero"] += made.zero
        self.count["lifted"] += int(np.count_nonzero(made.scales > quantize_weight(weight, axis).scales))
        self.layers.append(HtpLayer(node.name, self.layout.module[node.name], node.op_type, width, made.sqnr_db))
        target.input[place] = self._stored(f"{node.name}/weight", made.values, made.scales, axis, nodes)
        return made.scales

    def _scale_of(self, tensor: str, width: Width) -> float:
        return float(encoding(self.ranges.of(tensor, width), f"uint{width}")[0])

    def _stored(self, about: str, values: Array, scales: Array, axis: int | None, nodes: list[NodeProto]) -> str:
        names = [
            self.constant(about, values),
            self.constant(f"{about}/scale", scales),
            self.constant(f"{about}/zero", np.zeros(scales.shape, values.dtype)),
        ]
        target = self.name(f"{about}/dequantized")
        more = {} if axis is None else {"axis": axis}
        nodes.append(self._node("DequantizeLinear", about, names, target, **more))
        return target

    def report(self) -> HtpQdqReport:
        """What was done."""
        types = {dtype: self.count[dtype] for dtype in ("uint8", "uint16", "int16") if self.count[dtype]}
        channels = (self.count[name] for name in ("converts", "channels", "zero", "lifted"))
        return HtpQdqReport(tuple(self.layers), types, *channels)


def encoding(ends: Range, dtype: str) -> tuple[Array, Array]:
    """Scale (float32) and zero point of a range with 0 in it: symmetric in a signed type, else from end to end."""
    low, high = ends
    limits = np.iinfo(dtype)
    if limits.min < 0:
        return _scale(max(-low, high) / limits.max), np.zeros((), dtype)
    scale = _scale((high - low) / limits.max)
    return scale, np.asarray(np.clip(np.rint(-low / np.float64(scale)), 0, limits.max), dtype)


def _scale(exact: float) -> Array:
    return np.asarray(max(exact, SMALLEST_SCALE), np.float32)


def _least(bias: Array) -> Array:
    """The smallest step in which each value of a bias has 32 bits."""
    return np.asarray(np.abs(bias) / _MOST * (1 + 1e-6))


def _set_flag(node: NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    replace_all(node.attribute, [*kept, helper.make_attribute(name, 1)])
