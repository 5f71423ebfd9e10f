"""Q/DQ written into a graph where the policy asks for it: INT8 as types in the graph, never as a build flag.

An activation gets one QuantizeLinear-DequantizeLinear pair for each of its readers that is quantized, right before
it. A weight is stored in INT8 and has a DequantizeLinear only. Everything is symmetric with zero point 0, per
tensor for activations and per output channel for weights (but those of `Site.one_scale`), and a scale has the type of
the tensor that it scales.
Biases, graph inputs and graph outputs have none. This is what TensorRT 10.3 to 11 and TensorRT-RTX read alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hiresvit.calibration.attention import Attention
from hiresvit.calibration.sites import Site, Skip
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.export.fp16 import inferred
from hiresvit.export.fp16_typing import fresh
from hiresvit.export.rewrites import replace_all
from hiresvit.graph.dtypes import LARGEST
from hiresvit.graph.index import GraphIndex, attributes, index_graph

LEVELS = 127
"""The number that a tensor's range is stored as."""
MIN_OPSET = 19
"""The first in which a scale may be FP16."""
SMALLEST_SCALE = 2.0**-24
"""FP16 has no smaller one. What it cannot tell from 0 is below the step of FP16 itself."""

Array = NDArray[Any]
Point = tuple[str, int]
"""A node and the number of its input, or `OUTPUT`."""

OUTPUT = -1


@dataclass(frozen=True)
class LayerReport:
    """A site and what became of it; see `Site`.

    ``weight_sqnr_db`` is 20 log10(|w| / |w - INT8 w|), None for a layer in FP16 and for weights without error.
    """

    node: str
    module: str
    op: str
    macs: int
    excluded: str | None
    weight_sqnr_db: float | None


@dataclass(frozen=True)
class Int8Report:
    """What `quantize` did.

    ``sites_fp16`` and ``macs_fp16`` go by the rule that excludes; ``macs_share`` is the part of ``macs_total`` that is
    in INT8, from 0 to 1. ``channels`` are the output channels of the INT8 weights, ``channels_zero`` those that are all
    0, ``channels_floored`` others that are so small that they got `SMALLEST_SCALE`; likewise the tensors
    ``activations_floored``. ``attentions_fp16`` goes by what keeps an attention in FP16 where the policy asks for INT8.
    """

    layers: tuple[LayerReport, ...]
    sites_int8: int
    sites_fp16: dict[str, int]
    macs_int8: int
    macs_fp16: dict[str, int]
    macs_total: int
    macs_share: float
    channels: int
    channels_zero: int
    channels_floored: int
    activations_floored: tuple[str, ...]
    skips: int
    attentions_int8: int
    attentions_fp16: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class QuantizedWeight:
    """int8 ``values`` of the weight's shape, a scale for each of its channels, and how many of those are
    all ``zero``, or ``floored``: so small that they got `SMALLEST_SCALE`.
    """

    values: NDArray[np.int8]
    scales: Array
    zero: int
    floored: int
    sqnr_db: float | None


def calibration_tensors(
    sites: Collection[Site], skips: Collection[Skip] = (), attentions: Collection[Attention] = ()
) -> list[str]:
    """The tensors of the FP32 graph that `quantize` needs a range of, each once."""
    return list(dict.fromkeys(tensor for _, tensor in points_of(sites, skips, attentions)))


def quantize(
    half: ModelProto,
    sites: Collection[Site],
    amax: Mapping[str, float],
    *,
    skips: Collection[Skip] = (),
    attentions: Collection[Attention] = (),
) -> tuple[ModelProto, Int8Report]:
    """Write Q/DQ into a copy of the FP16 form of the graph that the sites were found in.

    ``amax`` gives for each of `calibration_tensors` the magnitude that is stored as ±127; what is beyond it is
    clipped. Equal arguments give equal bytes. The FP32 graph is taken as well: scales have the tensors' types.

    Raises UsageError below opset 19, for a graph that lacks a site's node, and for a pair on a graph input (the
    first convolution of a graph with FP16 inputs); ArtefactError for a range that is missing, negative, not
    finite or too large for a scale; HiresvitError for weights that are not finite; IllegalGraphError for a graph
    that fails `onnx.checker` with full type check, before or after.
    """
    result = inferred(half, "the graph to quantize")
    index = index_graph(result, infer=False)
    wanted = dict(points_of(sites, skips, attentions))
    weighted = {site.node: site for site in sites if site.excluded is None}
    _check_graph(index, wanted, weighted)
    _check_ranges(wanted, amax)
    edit = _Edit(index, {node.name for node in index.nodes} | index.types.keys())
    nodes: list[NodeProto] = []
    for node in index.nodes:
        for place in range(len(node.input)):
            if (node.name, place) in wanted:
                nodes += _pair(edit, node, place, amax[wanted[node.name, place]])
        if node.name in weighted:
            nodes.append(_weight_dequantized(edit, node, one_scale=weighted[node.name].one_scale))
        nodes.append(node)
        if (node.name, OUTPUT) in wanted:
            nodes += _pair(edit, node, OUTPUT, amax[wanted[node.name, OUTPUT]])
    _rewrite(edit, nodes)
    floored = [tensor for tensor in wanted.values() if amax[tensor] < LEVELS * SMALLEST_SCALE]
    report = _report(sites, edit, tuple(dict.fromkeys(floored)), skips, attentions)
    return inferred(result, "the quantized graph"), report


def scales_of(amax: Array, dtype: np.dtype[Any]) -> Array:
    """The scales of ranges of ±amax, from `SMALLEST_SCALE` on, rounded up: nothing within a range is clipped."""
    exact = np.maximum(np.asarray(amax, np.float64) / LEVELS, SMALLEST_SCALE)
    nearest = exact.astype(dtype)
    above = np.nextafter(nearest, np.finfo(dtype).max)
    return np.asarray(np.where(nearest.astype(np.float64) < exact, above, nearest), dtype)


def quantize_weight(weight: Array, axis: int | None, least: Array | float = 0.0) -> QuantizedWeight:
    """Round a float weight to int8 from -127 to 127, with one scale of its own type per index of ``axis``.

    Without an axis it has one scale, of shape (). No scale is below ``least``, which may be one for each.
    """
    if axis is None:
        whole = quantize_weight(weight[None], 0, least)
        return replace(whole, values=whole.values[0], scales=whole.scales.reshape(()))
    exact = np.moveaxis(weight, axis, 0).astype(np.float64)
    rows = exact.reshape(len(exact), -1)
    amax = np.abs(rows).max(1)
    scales = scales_of(np.maximum(amax, np.asarray(least, np.float64) * LEVELS), weight.dtype)
    steps = scales.astype(np.float64)[:, None]
    levels = np.rint(rows / steps)
    noise = float(np.square(rows - levels * steps).sum())
    small = int(np.count_nonzero(amax < LEVELS * SMALLEST_SCALE))
    zero = int(np.count_nonzero(amax == 0))
    values = np.moveaxis(levels.astype(np.int8).reshape(exact.shape), 0, axis)
    sqnr_db = 10 * math.log10(float(np.square(rows).sum()) / noise) if noise else None
    return QuantizedWeight(np.ascontiguousarray(values), scales, zero, small - zero, sqnr_db)


def points_of(
    sites: Collection[Site], skips: Collection[Skip], attentions: Collection[Attention]
) -> Iterator[tuple[Point, str]]:
    """Where a pair goes (a node and the number of its input, or `OUTPUT`), and the FP32 name of the tensor there."""
    for site in sites:
        if site.excluded is None:
            yield (site.node, 0), site.tensor
    for skip in skips:
        yield (skip.node, skip.index), skip.tensor
    for attention in attentions:
        if attention.illegal is None:
            scores, mix = attention.scores, attention.mix
            places = ((scores, 0), (scores, 1), (mix, 0), (mix, 1), (mix, OUTPUT))
            yield from zip(places, attention.points, strict=True)


def _check_graph(index: GraphIndex, wanted: Mapping[Point, str], weighted: Collection[str]) -> None:
    """Raise UsageError where the graph is not the FP16 form of the one that the sites are from, or too old."""
    if (index.opset or 0) < MIN_OPSET:
        raise UsageError(
            f"the graph is opset {index.opset}; FP16 scales need {MIN_OPSET} or later: export with --opset 20"
        )
    nodes = {node.name: node for node in index.nodes}
    for name, place in wanted:
        if name not in nodes or len(nodes[name].input) <= place:
            raise UsageError(f"no node {name!r} with input {place}: give the FP16 form of the sites' graph")
        if name in weighted and nodes[name].input[1] not in index.constants:
            raise UsageError(f"the weight of {name!r} is not constant: give the FP16 form of the sites' graph")
        if place != OUTPUT and nodes[name].input[place] in index.inputs:
            raise UsageError(
                f"{name!r} reads the graph input {nodes[name].input[place]!r}, which must not be quantized:"
                " leave policy.first out, or export with FP32 inputs"
            )


def _check_ranges(wanted: Mapping[Point, str], amax: Mapping[str, float]) -> None:
    missing = [(tensor, node) for (node, _), tensor in wanted.items() if tensor not in amax]
    if missing:
        tensor, node = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ArtefactError(f"no range for tensor {tensor!r} of {node!r}{more}: calibrate this graph again")
    for (node, _), tensor in wanted.items():
        if not 0 <= amax[tensor] <= LEVELS * LARGEST:
            raise ArtefactError(
                f"the range of tensor {tensor!r} of {node!r} is {amax[tensor]}:"
                f" allowed is 0 to {LEVELS * LARGEST:g}, calibrate this graph again"
            )


@dataclass
class _Edit:
    """A graph, the names that are ``taken`` in it, and what is made of them.

    ``weights`` has the names of values and scales for each weight and axis (None: one scale), so that a weight that two
    layers share is stored once; ``sqnr_db`` goes by node.
    """

    index: GraphIndex
    taken: set[str]
    zero: str = ""
    added: list[TensorProto] = field(default_factory=list)
    weights: dict[tuple[str, int | None], tuple[str, str, QuantizedWeight]] = field(default_factory=dict)
    sqnr_db: dict[str, float | None] = field(default_factory=dict)

    def name(self, wanted: str) -> str:
        """A name for a node or tensor that nothing else has."""
        name = fresh(wanted, self.taken)
        self.taken.add(name)
        return name

    def constant(self, wanted: str, value: Array) -> str:
        """Add an initializer; return its name."""
        self.added.append(numpy_helper.from_array(value, self.name(wanted)))
        return self.added[-1].name


def _pair(edit: _Edit, node: NodeProto, place: int, amax: float) -> list[NodeProto]:
    """QuantizeLinear and DequantizeLinear for one input of a node, which reads their result from now on, or behind it.

    There the result keeps its name behind the pair, so that every reader gets that.
    """
    if place == OUTPUT:
        base, target = f"{node.name}/output", node.output[0]
        kind, source = edit.index.dtype(target), edit.name(f"{base}_exact")
        node.output[0] = source
    else:
        base, source = f"{node.name}/input_{place}", node.input[place]
        kind, target = edit.index.dtype(source), edit.name(f"{base}_dequantized")
        node.input[place] = target
    scale = edit.constant(f"{base}_scale", scales_of(np.asarray(amax), np.dtype(kind)))
    levels = edit.name(f"{base}_int8")
    # Without a zero point QuantizeLinear would make uint8.
    edit.zero = edit.zero or edit.constant("int8_zero", np.zeros((), np.int8))
    return [
        helper.make_node(op, [read, scale, edit.zero], [made], edit.name(f"{node.name}/{op}"))
        for op, read, made in (("QuantizeLinear", source, levels), ("DequantizeLinear", levels, target))
    ]


def _weight_dequantized(edit: _Edit, node: NodeProto, *, one_scale: bool) -> NodeProto:
    """Store the weight of a node in INT8 and make it read what a DequantizeLinear makes of that."""
    source, axis = node.input[1], None if one_scale else _channel_axis(node)
    if (source, axis) not in edit.weights:
        exact = edit.index.array(source)
        if exact is None or not np.isfinite(exact).all():
            raise HiresvitError(f"the weight {source!r} of {node.name!r} has NaN or Inf: repair the checkpoint")
        weight = quantize_weight(exact, axis)
        values = edit.constant(f"{source}_int8", weight.values)
        edit.weights[source, axis] = values, edit.constant(f"{source}_scale", weight.scales), weight
    values, scales, weight = edit.weights[source, axis]
    edit.sqnr_db[node.name] = weight.sqnr_db
    node.input[1] = edit.name(f"{node.name}/weight_dequantized")
    name = edit.name(f"{node.name}/weight/DequantizeLinear")
    given: dict[str, Any] = {} if axis is None else {"axis": axis}
    return helper.make_node("DequantizeLinear", [values, scales], [node.input[1]], name, **given)


def _channel_axis(node: NodeProto) -> int:
    """The axis of a weight that counts output channels."""
    return int(node.op_type != "Conv" and not attributes(node).get("transB", 0))


def _rewrite(edit: _Edit, nodes: Sequence[NodeProto]) -> None:
    """The new nodes and constants, without the FP16 weights that nothing reads any more."""
    graph = edit.index.graph
    replace_all(graph.node, nodes)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    replaced = {source for source, _ in edit.weights} - read
    kept = [tensor for tensor in graph.initializer if tensor.name not in replaced]
    replace_all(graph.initializer, [*kept, *edit.added])


def _report(
    sites: Collection[Site],
    edit: _Edit,
    floored: tuple[str, ...],
    skips: Collection[Skip],
    attentions: Collection[Attention],
) -> Int8Report:
    count, macs = Counter[str | None](), Counter[str | None]()
    for site in sites:
        count[site.excluded] += 1
        macs[site.excluded] += site.macs
    total = sum(macs.values())
    weights = [weight for _, _, weight in edit.weights.values()]
    return Int8Report(
        layers=tuple(LayerReport(s.node, s.module, s.op, s.macs, s.excluded, edit.sqnr_db.get(s.node)) for s in sites),
        sites_int8=count[None],
        sites_fp16={rule: number for rule, number in count.items() if rule},
        macs_int8=macs[None],
        macs_fp16={rule: number for rule, number in macs.items() if rule},
        macs_total=total,
        macs_share=macs[None] / total if total else 0.0,
        channels=sum(weight.scales.size for weight in weights),
        channels_zero=sum(weight.zero for weight in weights),
        channels_floored=sum(weight.floored for weight in weights),
        activations_floored=floored,
        skips=len(skips),
        attentions_int8=sum(attention.illegal is None for attention in attentions),
        attentions_fp16=dict(Counter(attention.illegal for attention in attentions if attention.illegal)),
    )
