"""The range of every FP32 tensor of a graph on given inputs: what would overflow or vanish in FP16."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.runtime.onnxruntime_runner import open_session

_FP16_MAX = float(np.finfo(np.float16).max)
_FP16_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)


@dataclass(frozen=True)
class TensorRange:
    """Magnitudes of one tensor over all feeds: the largest, the smallest that is not 0 (both 0 if all are 0).

    ``non_finite`` counts NaN and ±inf, which the magnitudes leave out.
    """

    name: str
    max_abs: float
    min_abs: float
    non_finite: int

    @property
    def hazard(self) -> Literal["non-finite", "overflow", "underflow"] | None:
        """What FP16 does to it: NaN or inf in FP32 already, some beyond 65504, or all of it below 2**-14."""
        if self.non_finite:
            return "non-finite"
        if self.max_abs > _FP16_MAX:
            return "overflow"
        return "underflow" if 0 < self.max_abs < _FP16_SMALLEST_NORMAL else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "hazard": self.hazard}


def activation_ranges(
    model: ModelProto, feeds: Sequence[Mapping[str, NDArray[Any]]], *, chunk_bytes: int = 256 * 2**20
) -> list[TensorRange]:
    """Run an FP32 graph on each of ``feeds``: the ranges of its inputs, then of all its results in order.

    The results are fetched in chunks: all feeds run once for each ``chunk_bytes`` of them (by inferred shape;
    one that is larger or of unknown size is a chunk of its own), up to the last node that the chunk needs.

    Raises UsageError without feeds, for feeds that do not fit the graph's inputs, and for a graph without
    FP32 tensors; HiresvitError if ONNX Runtime cannot run it.
    """
    if chunk_bytes <= 0:
        raise UsageError(f"chunk_bytes={chunk_bytes}: give a positive number of bytes")
    _check_feeds(model, feeds)
    sizes = _result_bytes(model, feeds[0])
    inputs = [i.name for i in model.graph.input if feeds[0][i.name].dtype == np.float32]
    if not inputs and not sizes:
        raise UsageError("the graph has no FP32 tensor: give the FP32 graph")
    ranges = {name: TensorRange(name, 0.0, 0.0, 0) for name in (*inputs, *sizes)}
    for feed in feeds:
        for name in inputs:
            ranges[name] = _widened(ranges[name], feed[name])
    for names in _chunks(sizes, chunk_bytes):
        for results in _results(model, names, feeds):
            for name, values in zip(names, results, strict=True):
                ranges[name] = _widened(ranges[name], values)
    return list(ranges.values())


def _check_feeds(model: ModelProto, feeds: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    if not feeds:
        raise UsageError("no feeds: give at least one input, the ranges are measured on it")
    wanted = sorted(i.name for i in model.graph.input)
    for k, feed in enumerate(feeds):
        if sorted(feed) != wanted:
            raise UsageError(f"feed {k} has {sorted(feed)}: the graph's inputs are {wanted}")


def _result_bytes(model: ModelProto, feed: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """{FP32 result of a node: its bytes on this feed}, in order; infinite where no shape can be inferred."""
    static = ModelProto()
    static.CopyFrom(model)
    del static.graph.value_info[:]  # its symbolic axes would hide the sizes
    for value in static.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, feed[value.name].shape, strict=False):
            dim.dim_value = size
    graph = onnx.shape_inference.infer_shapes(static, data_prop=True).graph
    values = {value.name: value for value in (*graph.value_info, *graph.output)}
    made = [name for node in graph.node if node.op_type != "Constant" for name in node.output]
    return {name: size for name in made if name in values and (size := _fp32_bytes(values[name])) is not None}


def _fp32_bytes(value: ValueInfoProto) -> float | None:
    kind = value.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        return None
    if not kind.HasField("shape") or any(not dim.HasField("dim_value") for dim in kind.shape.dim):
        return math.inf
    return float(4 * math.prod(dim.dim_value for dim in kind.shape.dim))


def _chunks(sizes: Mapping[str, float], limit: int) -> Iterator[list[str]]:
    """The names in order, each chunk within ``limit`` bytes or one tensor."""
    chunk: list[str] = []
    filled = 0.0
    for name, size in sizes.items():
        if chunk and filled + size > limit:
            yield chunk
            chunk, filled = [], 0.0
        chunk.append(name)
        filled += size
    if chunk:
        yield chunk


def _results(
    model: ModelProto, names: Sequence[str], feeds: Sequence[Mapping[str, NDArray[Any]]]
) -> Iterator[list[NDArray[np.float32]]]:
    """The values of ``names`` for each feed, from the graph up to the last of them."""
    cut = ModelProto()
    cut.CopyFrom(model)
    last = max(k for k, node in enumerate(cut.graph.node) if names[-1] in node.output)
    del cut.graph.node[last + 1 :]
    del cut.graph.output[:]
    for name in names:
        cut.graph.output.add(name=name).type.tensor_type.elem_type = TensorProto.FLOAT
    try:
        session = open_session(cut.SerializeToString(), low_memory=True)
        for feed in feeds:
            yield session.run(names, dict(feed))
    except Exception as error:  # its exception classes share no base
        reason = " ".join(str(error).split())
        raise HiresvitError(f"ONNX Runtime cannot run the graph on these inputs: {reason}") from error


def _widened(known: TensorRange, values: NDArray[np.float32]) -> TensorRange:
    magnitude = np.abs(values)
    finite = magnitude[np.isfinite(magnitude)]
    smallest = float(np.min(finite, where=finite > 0, initial=np.inf))
    least = min(known.min_abs or math.inf, smallest)
    return TensorRange(
        known.name,
        max(known.max_abs, float(np.max(finite, initial=0.0))),
        least if least < math.inf else 0.0,
        known.non_finite + magnitude.size - finite.size,
    )
