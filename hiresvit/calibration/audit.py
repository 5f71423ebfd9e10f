"""Hold an INT8 graph to its calibration: every scale in it must be the one that its tensor's range asks for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from onnx import ModelProto, NodeProto

from hiresvit.calibration.attention import Attention
from hiresvit.calibration.qdq import LEVELS, OUTPUT, SMALLEST_SCALE, points_of
from hiresvit.calibration.sites import Site, Skip
from hiresvit.errors import GateError
from hiresvit.graph.index import GraphIndex, index_graph

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
    index = index_graph(graph, infer=False)
    nodes = {node.name: node for node in index.nodes}
    count = 0
    for (name, place), tensor in points_of(sites, skips, attentions):
        node = nodes[name]
        made = _behind(index, node) if place == OUTPUT else index.producer.get(node.input[place])
        if made is None or made.op_type != "DequantizeLinear" or made.input[0] not in index.producer:
            raise GateError(f"{name}: no Q/DQ pair on {tensor!r}, which the policy quantizes")
        pair = (index.producer[made.input[0]], made)
        exact = max(amax[tensor] / LEVELS, SMALLEST_SCALE)
        for quantizer in pair:
            found = index.array(quantizer.input[1])
            scale = math.nan if found is None else float(found)
            # Below FP16's normal numbers its steps are wider than eleven bits.
            if not exact * (1 - 1e-6) <= scale <= exact * (1 + ROUNDING) + SMALLEST_SCALE:
                raise GateError(
                    f"{name}: the scale of {tensor!r} is {scale:.4g}, and its range {amax[tensor]:.4g} asks for"
                    f" {exact:.4g}, a factor of {scale / exact:.3g}: calibrate again"
                )
        count += 1
    return count


def _behind(index: GraphIndex, node: NodeProto) -> NodeProto:
    """The DequantizeLinear behind a node's own pair."""
    [(level, _)] = index.reads(node.output[0])
    return index.reads(level.output[0])[0][0]
