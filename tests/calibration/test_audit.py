"""The audit: a pair that is missing and a scale that is off are found, wherever in a graph they are."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import content, indexed
from onnx import ModelProto, numpy_helper
from tiny import tiny_simplified, tiny_spec

from hiresvit.calibration.attention import find_attentions
from hiresvit.calibration.audit import check_scales
from hiresvit.calibration.qdq import calibration_tensors, quantize
from hiresvit.calibration.sites import Policy, find_sites, find_skips
from hiresvit.errors import GateError
from hiresvit.export.fp16 import to_fp16

# Every kind of point there is.
POLICY = Policy(residual=True, int8_attention=True)


@cache
def made() -> tuple[bytes, dict[str, float], dict[str, Any]]:
    """A graph with a pair at every point, the ranges, and the points."""
    simple = tiny_simplified(tiny_spec())
    sites = find_sites(indexed(simple), POLICY)
    more: dict[str, Any] = {
        "skips": find_skips(indexed(simple), sites, POLICY),
        "attentions": find_attentions(indexed(simple), POLICY),
    }
    assert all(more.values())
    tensors = calibration_tensors(sites, more["skips"], more["attentions"])
    # From far below what FP16 holds well to large: rounding of a scale must never look like a mistake.
    ranges = np.geomspace(1e-5, 5e4, len(tensors))
    amax = dict(zip(tensors, map(float, ranges), strict=True))
    graph, _ = quantize(to_fp16(simple)[0], sites, amax, **more)
    return content(graph), amax, {"sites": sites, **more}


def check(graph: ModelProto) -> int:
    _, amax, points = made()
    return check_scales(graph, amax, **points)


def test_a_right_graph_passes() -> None:
    data, _, points = made()
    count = check(onnx.load_from_string(data))
    graph = onnx.load_from_string(data)
    assert count == sum(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    assert count > sum(site.excluded is None for site in points["sites"])


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.01])
def test_every_scale_that_is_off_is_found(factor: float) -> None:
    data, amax, _ = made()
    graph = onnx.load_from_string(data)
    used = {node.input[1] for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    found = 0
    for tensor in graph.graph.initializer:
        value = numpy_helper.to_array(tensor)
        # A hundredth of a scale below FP16's normal numbers is less than its step there.
        if tensor.name not in used or (factor == 1.01 and value < 1e-3):
            continue
        right = tensor.SerializeToString()
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(value * factor, value.dtype), tensor.name))
        with pytest.raises(GateError, match=r"the scale of '.*' is .*a factor of .*: calibrate again"):
            check(graph)
        tensor.ParseFromString(right)
        found += 1
    assert found > 20
    assert check(graph)
    assert len(amax) > 20


def test_a_missing_pair_is_found() -> None:
    data, _, _ = made()
    graph = onnx.load_from_string(data)
    pair = next(node for node in graph.graph.node if node.op_type == "QuantizeLinear")
    [end] = [node for node in graph.graph.node if pair.output[0] in node.input]
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if name == end.output[0]:
                node.input[index] = pair.input[0]
    with pytest.raises(GateError, match=r"no Q/DQ pair on '.*', which the policy quantizes"):
        check(graph)
