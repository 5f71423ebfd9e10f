"""Hold an INT8 graph to its calibration: every scale in it must be the one that its tensor's range asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from onnx import ModelProto, NodeProto, numpy_helper

from hiresvit.calibration.attention import Attention
from hiresvit.calibration.qdq import LEVELS, OUTPUT, SMALLEST_SCALE, points_of
from hiresvit.calibration.sites import Site, Skip
from hiresvit.errors import GateError

ROUNDING = 2.0**-10
"""How far a scale may be above the exact one: a step of FP16's eleven bits."""


def check_scales(
    graph: ModelProto,
    amax: Mapping[str, float],
    sites: Collection[Site],
    *,
    skips: Collection[Skip] = (),
    attentions: Collection[Attention] = (),
) -> int:
    """Raise GateError unless each point has a Q/DQ pair whose scale is its range / 127; returns how many were held.

    The arguments are those of `quantize`; the graph is read as it is, and nothing of how it was made.
    """
    producers = {name: node for node in graph.graph.node for name in node.output}
    nodes = {node.name: node for node in graph.graph.node}
    scales = {t.name: t for t in graph.graph.initializer}
    count = 0
    for (name, index), tensor in points_of(sites, skips, attentions):
        made = producers.get(nodes[name].input[index]) if index != OUTPUT else _behind(graph, name)
        if made is None or made.op_type != "DequantizeLinear" or made.input[0] not in producers:
            raise GateError(f"{name}: no Q/DQ pair on {tensor!r}, which the policy quantizes")
        pair = (producers[made.input[0]], made)
        exact = max(amax[tensor] / LEVELS, SMALLEST_SCALE)
        for node in pair:
            scale = float(numpy_helper.to_array(scales[node.input[1]]))
            # Below FP16's normal numbers its steps are wider than eleven bits.
            if not exact * (1 - 1e-6) <= scale <= exact * (1 + ROUNDING) + SMALLEST_SCALE:
                raise GateError(
                    f"{name}: the scale of {tensor!r} is {scale:.4g}, and its range {amax[tensor]:.4g} asks for"
                    f" {exact:.4g}, a factor of {scale / exact:.3g}: calibrate again"
                )
        count += 1
    return count


def _behind(graph: ModelProto, name: str) -> NodeProto:
    """The DequantizeLinear behind a node's own pair."""
    [source] = [node.output[0] for node in graph.graph.node if node.name == name]
    [level] = [node for node in graph.graph.node if source in node.input]
    made: list[NodeProto] = [node for node in graph.graph.node if level.output[0] in node.input]
    return made[0]
