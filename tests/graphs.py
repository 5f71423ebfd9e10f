"""Small graphs by hand, and what ONNX Runtime makes of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from hiresvit.calibration.collect import collect
from hiresvit.graph.index import GraphIndex, index_graph

Array = NDArray[Any]


def build(text: str, constants: Mapping[str, Any] | None = None, opset: int = 20) -> ModelProto:
    """``name (float[2,3] x) => (float[2,3] y) { y = Relu(x) }`` and its initializers; not yet checked."""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]>\n{text}')
    for name, value in (constants or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def indexed(model: ModelProto) -> GraphIndex:
    """For a batch of 1 where the graph leaves it open."""
    return index_graph(model, {})


def copied(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def content(model: ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def constants_of(model: ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def run(model: ModelProto, feeds: Mapping[str, Array], *, optimise: bool = True) -> list[Array]:
    """The outputs, with one thread; without ``optimise`` every node runs as it stands in the graph."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it warns about unused constants; errors come as exceptions
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content(model), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def magnitudes(model: ModelProto, *feeds: Mapping[str, Array]) -> dict[str, float]:
    """The largest magnitude of every FP32 tensor over all feeds, as calibration finds it."""
    index = indexed(model)
    made = (name for node in index.nodes for name in node.output if name not in index.constants)
    names = [name for name in (*index.inputs, *made) if index.dtype(name) == "float32"]
    return {name: found.amax for name, found in collect(model, names, feeds, look="ranges").items()}


def distance(reference: Array, test: Array) -> float:
    """The largest difference, relative to the reference's largest value."""
    assert reference.shape == test.shape
    assert reference.dtype == test.dtype
    return float(np.abs(reference - test).max() / np.abs(reference).max())


def named_graph(body: str, inputs: str, outputs: str, opset: int = 20, **weights: Any) -> ModelProto:
    """Nodes are named ``m.OUTPUT/OpType``."""
    model = build(f"g ({inputs}) => ({outputs}) {{ {body} }}", weights, opset)
    for node in model.graph.node:
        node.name = f"m.{node.output[0]}/{node.op_type}"
    return model


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)
