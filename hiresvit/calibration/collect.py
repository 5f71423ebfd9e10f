"""Ranges and histograms of a graph's tensors over many images, with memory that does not depend on how many.

Two passes. The first finds each tensor's range; its maxima are taken inside the graph, so that no activation leaves
it. The second fetches the tensors in chunks of a bounded size, each from a graph that ends where the chunk does, and
bins them over the range. Images are read again for each chunk; one is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from hiresvit.calibration.observers import BINS, histogram
from hiresvit.calibration.table import graph_digest
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.files import atomic_path, naming_target
from hiresvit.graph.index import index_graph
from hiresvit.process import trim_memory
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.onnxruntime_runner import open_session
from hiresvit.runtime.runner import check_feeds, check_threads
from hiresvit.spec import TensorSpec

MEMORY_BYTES = 512 * 2**20
SAVE_SECONDS = 5.0
SMALLEST = float(np.finfo(np.float32).tiny)
"""A tensor whose magnitudes are all below this, FP32's smallest normal number, is dead: it has no range."""

_PROBE = "hiresvit/calibration"  # names of what we add to a graph begin with it


class Feeds(Protocol):
    """Inputs of a network by number, each {input name: array}, made when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, NDArray[Any]]: ...


@dataclass(frozen=True, eq=False)
class Statistics:
    """One tensor over all images. ``counts``: its `histogram` over [0, amax], None if not asked for or dead."""

    lowest: float
    highest: float
    counts: NDArray[np.int64] | None

    @property
    def amax(self) -> float:
        """The largest magnitude."""
        return max(-self.lowest, self.highest)

    @property
    def dead(self) -> bool:
        """Whether it was 0 on every image, or as good as that."""
        return self.amax < SMALLEST


@dataclass(frozen=True)
class _Work:
    """``tensors`` are in the order in which the graph makes them."""

    model: ModelProto
    inputs: tuple[TensorSpec, ...]
    tensors: tuple[str, ...]
    feeds: Feeds
    histograms: bool
    memory_bytes: int
    threads: int | None
    on_step: OnStep


@dataclass(frozen=True, eq=False)
class _Progress:
    """What is known after a number of images of a stage: 0 is the pass over ranges, k the k-th chunk of histograms.

    It is replaced as a whole after each image, so that an interruption finds it complete.
    """

    stage: int
    images: int
    ranges: NDArray[np.float32]  # tensors, (lowest, highest)
    counts: NDArray[np.int64]  # tensors, BINS


def collect(
    graph: ModelProto,
    tensors: Sequence[str],
    feeds: Feeds,
    *,
    histograms: bool,
    digest: str,
    memory_bytes: int = MEMORY_BYTES,
    threads: int | None = None,
    state: Path | None = None,
    on_step: OnStep = silent,
) -> dict[str, Statistics]:
    """Run a graph on ONNX Runtime's CPU over all of ``feeds``: {tensor: its statistics}, in the order of ``tensors``.

    ``tensors`` are inputs or results of the graph in FP32. ``memory_bytes`` bounds how much of them is in memory at
    a time; a single tensor that is larger still comes. With ``state``, progress is kept in that file, every few
    seconds and on an interruption, and a later call with the same graph, tensors, options and ``digest`` of the data
    goes on from there, to the same result; another or a damaged file is overwritten. It is removed at the end.

    Raises UsageError for tensors that the graph lacks or that are not FP32, for feeds that do not fit it, and for
    arguments out of range; HiresvitError for NaN or Inf in a tensor and where ONNX Runtime cannot run the graph.
    """
    check_threads(threads)
    if memory_bytes < 1:
        raise UsageError(f"memory_bytes={memory_bytes}: give a positive number of bytes")
    if not len(feeds):
        raise UsageError("no feeds: give at least one input, the ranges are measured on it")
    names = _in_order(graph, tensors)
    work = _Work(graph, _inputs(graph), names, feeds, histograms, memory_bytes, threads, on_step)
    progress = _through(work, state, digest)
    found = {name: _statistics(progress, row) for row, name in enumerate(names)}
    return {name: found[name] for name in tensors}


def _in_order(graph: ModelProto, tensors: Sequence[str]) -> tuple[str, ...]:
    made = [value.name for value in graph.graph.input]
    made += [name for node in graph.graph.node if node.op_type != "Constant" for name in node.output]
    place = {name: index for index, name in enumerate(made)}
    for tensor in graph.graph.initializer:
        place.pop(tensor.name, None)
    if not tensors or len(set(tensors)) != len(tensors):
        raise UsageError(
            f"{len(tensors)} tensors, {len(set(tensors))} different: name at least one, each once"
        )
    if unknown := [name for name in tensors if name not in place]:
        raise UsageError(
            f"{unknown[0]!r} is no input or result in this graph: take the tensors from the same graph"
        )
    return tuple(sorted(tensors, key=place.__getitem__))


def _inputs(graph: ModelProto) -> tuple[TensorSpec, ...]:
    specs = []
    for value in graph.graph.input:
        kind = value.type.tensor_type
        shape = (
            dim.dim_value or dim.dim_param or f"{value.name}_{k}" for k, dim in enumerate(kind.shape.dim)
        )
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
        specs.append(TensorSpec(value.name, dtype, tuple(shape)))
    return tuple(specs)


def _statistics(progress: _Progress, row: int) -> Statistics:
    lowest, highest = progress.ranges[row].tolist()
    counts = progress.counts[row]
    return Statistics(lowest, highest, counts if counts.any() else None)


def _through(work: _Work, state: Path | None, digest: str) -> _Progress:
    """The progress at the end, with what has been done so far kept in ``state``."""
    key = _key(work, digest) if state else ""
    progress = kept = (_load(state, key) if state else None) or _start(work)
    when = time.monotonic()
    try:
        for step in _steps(work, progress):
            progress = step
            if state and time.monotonic() - when >= SAVE_SECONDS:
                _save(state, key, progress)
                kept, when = progress, time.monotonic()
    except HiresvitError:  # it would come again
        if state:
            state.unlink(missing_ok=True)
        raise
    except BaseException:
        if state and progress is not kept:
            with suppress(HiresvitError):  # what is under way already is what the caller has to hear
                _save(state, key, progress)
        raise
    if state:
        with naming_target(state):
            state.unlink(missing_ok=True)
    return progress


def _start(work: _Work) -> _Progress:
    ranges = np.tile(np.array([np.inf, -np.inf], np.float32), (len(work.tensors), 1))
    return _Progress(0, 0, ranges, np.zeros((len(work.tensors), BINS), np.int64))


def _key(work: _Work, digest: str) -> str:
    """Of everything that the numbers depend on."""
    parts = {
        "graph": graph_digest(work.model),
        "tensors": work.tensors,
        "data": [digest, len(work.feeds)],
        "passes": [work.histograms, work.memory_bytes, BINS],
        "onnxruntime": onnxruntime.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _save(state: Path, key: str, progress: _Progress) -> None:
    with atomic_path(state) as temporary, temporary.open("wb") as stream:  # a path would get the suffix .npz
        at = np.array([progress.stage, progress.images])
        np.savez(stream, key=np.array(key), at=at, ranges=progress.ranges, counts=progress.counts)


def _load(state: Path, key: str) -> _Progress | None:
    """What `_save` wrote under this key; None for anything else. The archive's own sums find damage."""
    try:
        with state.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            stage, images = file["at"].tolist()
            return _Progress(stage, images, file["ranges"], file["counts"])
    except Exception:  # a damaged archive makes numpy raise almost anything
        return None


def _steps(work: _Work, start: _Progress) -> Iterator[_Progress]:
    """The progress after each image of each stage that is left."""
    progress, count = start, len(work.feeds)
    while stage := _stage(work, progress):
        name, add = stage
        for image in range(progress.images, count):
            progress = replace(add(progress, image), images=image + 1)
            trim_memory()
            work.on_step(name, progress.images / count)
            yield progress
        progress = replace(progress, stage=progress.stage + 1, images=0)
        del stage, add  # and with them the session, before the next one is made


def _stage(work: _Work, progress: _Progress) -> tuple[str, Callable[[_Progress, int], _Progress]] | None:
    """The name of the stage that progress has come to, and what it does with an image; None at the end."""
    if progress.stage == 0:
        run = _runner(work, _range_graph(work.model, work.tensors))
        return "calibrate: ranges", lambda p, k: replace(p, ranges=_widened(work, p.ranges, run(k), k))
    chunks = _chunks(work, progress.ranges) if work.histograms else []
    if progress.stage > len(chunks):
        return None
    rows = chunks[progress.stage - 1]
    run = _runner(work, _tensor_graph(work.model, [work.tensors[row] for row in rows]))
    name = f"calibrate: histograms {progress.stage} of {len(chunks)}"
    return name, lambda p, k: replace(p, counts=_binned(work, p, rows, run(k), k))


def _widened(
    work: _Work, ranges: NDArray[np.float32], found: list[NDArray[Any]], image: int
) -> NDArray[np.float32]:
    for name, value in zip(work.tensors, found[::3], strict=True):
        if value.dtype != np.float32:
            raise UsageError(
                f"{name!r} is {value.dtype}: only FP32 tensors are calibrated, give the FP32 graph"
            )
    highest, lowest, total = np.array(found).reshape(-1, 3).T
    # ONNX Runtime's maximum and minimum lose a NaN more often than not; a sum never does.
    broken = ~(np.isfinite(highest) & np.isfinite(lowest)) | np.isnan(total)
    if broken.any():
        raise _not_finite(work, int(broken.argmax()), image, int(np.count_nonzero(broken)) - 1)
    return np.stack([np.minimum(ranges[:, 0], lowest), np.maximum(ranges[:, 1], highest)], 1)


def _binned(
    work: _Work, progress: _Progress, rows: list[int], found: list[NDArray[Any]], image: int
) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = progress.counts.copy()
    for row, values in zip(rows, found, strict=True):
        try:
            counts[row] += histogram(values, float(np.abs(progress.ranges[row]).max()))
        except UsageError as error:  # though the first pass found none: the feeds have changed
            raise _not_finite(work, row, image) from error
    return counts


def _not_finite(work: _Work, row: int, image: int, more: int = 0) -> HiresvitError:
    others = f" and {more} behind it have" if more else " has"
    return HiresvitError(
        f"tensor {work.tensors[row]!r}{others} NaN or Inf on image {image} of {len(work.feeds)} (counted from 0):"
        " the FP32 graph itself fails there; mend its weights or leave out the image"
    )


def _chunks(work: _Work, ranges: NDArray[np.float32]) -> list[list[int]]:
    """Rows of the tensors that are not dead, in order, each chunk within ``memory_bytes`` or one tensor."""
    index = index_graph(work.model, {})
    chunks: list[list[int]] = []
    left = 0.0
    for row in np.flatnonzero(np.abs(ranges).max(1) >= SMALLEST).tolist():
        shape = index.sizes(work.tensors[row])
        size = math.inf if shape is None else 4 * math.prod(shape)
        if not chunks or size > left:
            chunks.append([])
            left = work.memory_bytes
        chunks[-1].append(row)
        left -= size
    return chunks


def _runner(work: _Work, cut: ModelProto) -> Callable[[int], list[NDArray[Any]]]:
    """The outputs of a graph on an image, by its number."""
    try:
        session = open_session(cut.SerializeToString(), threads=work.threads, low_memory=True)
    except Exception as error:  # its exception classes share no base
        raise HiresvitError(f"ONNX Runtime cannot load the graph to calibrate ({_line(error)})") from error
    names = [value.name for value in cut.graph.output]

    def run(image: int) -> list[NDArray[Any]]:
        feed = work.feeds[image]
        check_feeds(feed, work.inputs)
        try:
            return list(session.run(names, dict(feed)))
        except Exception as error:
            raise HiresvitError(
                f"ONNX Runtime failed on image {image} of {len(work.feeds)} (counted from 0): {_line(error)}"
            ) from error

    return run


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _range_graph(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Its outputs are maximum, minimum and sum of each tensor, each taken right behind the node that makes it."""
    probes = {name: [_reduction(op, name) for op in ("Max", "Min", "Sum")] for name in names}
    nodes = [probe for value in model.graph.input for probe in probes.get(value.name, ())]
    for node in model.graph.node:
        nodes.append(node)
        nodes += [probe for name in node.output for probe in probes.get(name, ())]
    return _pruned(model, nodes, [probe.output[0] for name in names for probe in probes[name]])


def _reduction(op: str, tensor: str) -> NodeProto:
    # Over all axes without naming them, which is the same in every opset.
    return helper.make_node(f"Reduce{op}", [tensor], [f"{_PROBE}/{op}/{tensor}"], keepdims=0)


def _tensor_graph(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Its outputs are the tensors."""
    inputs = {value.name for value in model.graph.input}
    outputs = {name: f"{_PROBE}/{name}" if name in inputs else name for name in names}
    copies = [helper.make_node("Identity", [a], [b]) for a, b in outputs.items() if a != b]
    return _pruned(model, [*copies, *model.graph.node], list(outputs.values()))


def _pruned(model: ModelProto, nodes: Sequence[NodeProto], outputs: Sequence[str]) -> ModelProto:
    """A graph of those of ``nodes`` that ``outputs`` depend on, and of the weights these read."""
    needed = set(outputs)
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(_reads(node))
    cut = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    cut.graph.name = model.graph.name
    cut.graph.node.extend(reversed(kept))
    cut.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    cut.graph.input.extend(model.graph.input)
    for name in outputs:
        cut.graph.output.add(name=name)  # ONNX Runtime infers its type
    return cut


def _reads(node: NodeProto) -> Iterator[str]:
    """The names that a node reads, also inside its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
            yield from (value.name for value in graph.output)
