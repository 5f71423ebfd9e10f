"""Ranges and histograms of a graph's tensors over many images, with memory that does not depend on how many.

Two passes. The first finds each tensor's range; its maxima are taken inside the graph, so that no activation leaves
it. The second fetches tensors in chunks of a bounded size, each from a graph that ends where the chunk does, to bin
them over the range. Images are read again for each chunk; one is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, helper

from hiresvit.calibration.observers import BINS, histogram
from hiresvit.calibration.probes import range_graph, tensor_graph
from hiresvit.calibration.table import graph_digest
from hiresvit.errors import HiresvitError, IllegalGraphError, UsageError
from hiresvit.files import atomic_path, naming_target
from hiresvit.graph.index import index_graph
from hiresvit.process import trim_memory
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.onnxruntime_runner import open_session
from hiresvit.runtime.runner import check_feeds, check_threads
from hiresvit.spec import Feeds, TensorSpec

MEMORY_BYTES = 512 * 2**20
SAVE_SECONDS = 5.0
SMALLEST = float(np.finfo(np.float32).tiny)
"""A tensor whose magnitudes are all below this, FP32's smallest normal number, is dead: it has no range."""

Look = Literal["ranges", "histograms"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """One tensor over all images. ``counts``: its `histogram` over [0, amax], None if not asked for or dead."""

    lowest: float
    highest: float
    counts: NDArray[np.int64] | None = None

    @property
    def amax(self) -> float:
        """The largest magnitude."""
        return max(-self.lowest, self.highest)

    @property
    def dead(self) -> bool:
        """Whether it was 0 on every image, or as good as that."""
        return self.amax < SMALLEST


@dataclass(frozen=True)
class RunOptions:
    """How a graph is run over images.

    ``memory_bytes`` bounds how much of its tensors is in memory at a time; a single one that is larger still comes.
    In the file ``state`` progress is kept, every few seconds and on an interruption.
    """

    memory_bytes: int = MEMORY_BYTES
    threads: int | None = None
    state: Path | None = None
    on_step: OnStep = silent


DEFAULTS = RunOptions()


@dataclass(frozen=True)
class _Work:
    """``tensors`` are in the order in which the graph makes them."""

    model: ModelProto
    inputs: tuple[TensorSpec, ...]
    tensors: tuple[str, ...]
    feeds: Feeds
    look: Look
    run: RunOptions


@dataclass(frozen=True, eq=False)
class _Progress:
    """What is known after a number of images of a stage: 0 is the pass over ranges, k the k-th chunk of the second.

    It is replaced as a whole after each image, so that an interruption finds it complete.
    """

    stage: int
    images: int
    ranges: NDArray[np.float32]  # tensors, (lowest, highest)
    counts: NDArray[np.int64]  # tensors, BINS of a histogram


def collect(
    graph: ModelProto, tensors: Sequence[str], feeds: Feeds, *, look: Look, digest: str = "", run: RunOptions = DEFAULTS
) -> dict[str, Statistics]:
    """Run a graph on ONNX Runtime's CPU over all of ``feeds``: {tensor: its statistics}, in the order of ``tensors``.

    ``tensors`` are inputs or results of the graph in FP32. ``look`` is for their ranges, or for histograms as well.
    With ``run.state``, a later call with the same graph, tensors, options and ``digest`` of the data goes on from where
    an interrupted one was, to the same result; another or a damaged file is overwritten. It is removed at the end.

    Raises UsageError for tensors that the graph lacks or that are not FP32, for feeds that do not fit it, and for
    arguments out of range; HiresvitError where ONNX Runtime cannot run the graph, and for NaN or Inf in a tensor.
    """
    check_threads(run.threads)
    if run.memory_bytes < 1:
        raise UsageError(f"memory_bytes={run.memory_bytes}: give a positive number of bytes")
    if not len(feeds):
        raise UsageError("no feeds: give at least one input, the ranges are measured on it")
    work = _Work(graph, graph_inputs(graph), _in_order(graph, tensors), feeds, look, run)
    found = dict(zip(work.tensors, _statistics(work, _through(work, digest)), strict=True))
    return {name: found[name] for name in tensors}


def _made(graph: ModelProto) -> list[str]:
    """The inputs and results of a graph, in order."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value.name for value in graph.graph.input if value.name not in weights]
    return inputs + [name for node in graph.graph.node if node.op_type != "Constant" for name in node.output]


def _in_order(graph: ModelProto, tensors: Sequence[str]) -> tuple[str, ...]:
    place = {name: index for index, name in enumerate(_made(graph))}
    if not tensors or len(set(tensors)) != len(tensors):
        raise UsageError(f"{len(tensors)} tensors, {len(set(tensors))} different: name at least one, each once")
    if unknown := [name for name in tensors if name not in place]:
        raise UsageError(f"{unknown[0]!r} is no input or result in this graph: take the tensors from the same graph")
    return tuple(sorted(tensors, key=place.__getitem__))


def graph_inputs(graph: ModelProto) -> tuple[TensorSpec, ...]:
    """Name, type and shape of what is fed to a graph."""
    specs = []
    for value in graph.graph.input:
        kind = value.type.tensor_type
        shape = (dim.dim_value or dim.dim_param or f"{value.name}_{k}" for k, dim in enumerate(kind.shape.dim))
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
        specs.append(TensorSpec(value.name, dtype, tuple(shape)))
    return tuple(specs)


def _statistics(work: _Work, progress: _Progress) -> Iterator[Statistics]:
    binned = _alive(progress.ranges) & (work.look == "histograms")
    for row, (lowest, highest) in enumerate(progress.ranges.tolist()):
        yield Statistics(lowest, highest, progress.counts[row] if binned[row] else None)


def _through(work: _Work, digest: str) -> _Progress:
    """The progress at the end, with what has been done so far kept in the state."""
    state = work.run.state
    key = _key(work, digest) if state else ""
    progress = kept = (state and _load(state, key)) or _start(work)
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
    bins = BINS if work.look == "histograms" else 0
    return _Progress(0, 0, ranges, np.zeros((len(work.tensors), bins), np.int64))


def _key(work: _Work, digest: str) -> str:
    """Of everything that the numbers depend on."""
    parts = {
        "graph": graph_digest(work.model),
        "tensors": work.tensors,
        "data": [digest, len(work.feeds)],
        "passes": [work.look, work.run.memory_bytes, BINS],
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
            work.run.on_step(name, progress.images / count)
            yield progress
        progress = replace(progress, stage=progress.stage + 1, images=0)
        del stage, add  # and with them the session, before the next one is made


def _stage(work: _Work, progress: _Progress) -> tuple[str, Callable[[_Progress, int], _Progress]] | None:
    """The name of the stage that progress has come to, and what it does with an image; None at the end."""
    if progress.stage == 0:
        run = _runner(work, range_graph(work.model, work.tensors))
        return "calibrate: ranges", lambda p, k: replace(p, ranges=_widened(work, p.ranges, run(k), k))
    chunks = _chunks(work, progress.ranges)
    if progress.stage > len(chunks):
        return None
    rows = chunks[progress.stage - 1]
    run = _runner(work, tensor_graph(work.model, [work.tensors[row] for row in rows]))
    return (
        f"calibrate: histograms {progress.stage} of {len(chunks)}",
        lambda p, k: replace(p, counts=_counted(work, p, rows, run(k), k)),
    )


def _widened(work: _Work, ranges: NDArray[np.float32], found: list[NDArray[Any]], image: int) -> NDArray[np.float32]:
    for name, value in zip(work.tensors, found[::3], strict=True):
        if value.dtype != np.float32:
            raise UsageError(f"{name!r} is {value.dtype}: only FP32 tensors are calibrated, give the FP32 graph")
    highest, lowest, total = np.array(found).reshape(-1, 3).T
    # ONNX Runtime's maximum and minimum lose a NaN more often than not; a sum never does.
    broken = ~(np.isfinite(highest) & np.isfinite(lowest)) | np.isnan(total)
    if broken.any():
        raise _not_finite(work, int(broken.argmax()), image, int(np.count_nonzero(broken)) - 1)
    return np.stack([np.minimum(ranges[:, 0], lowest), np.maximum(ranges[:, 1], highest)], 1)


def _counted(
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


def _alive(ranges: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(np.abs(ranges).max(1) >= SMALLEST)


def _chunks(work: _Work, ranges: NDArray[np.float32]) -> list[list[int]]:
    """Rows of the tensors to bin, in order, each chunk within ``memory_bytes`` or one tensor."""
    rows = np.flatnonzero(_alive(ranges)).tolist() if work.look == "histograms" else []
    index = index_graph(work.model, {}, infer=bool(rows))
    chunks: list[list[int]] = []
    left = 0.0
    for row in rows:
        shape = index.sizes(work.tensors[row])
        size = math.inf if shape is None else 4 * math.prod(shape)
        if not chunks or size > left:
            chunks.append([])
            left = work.run.memory_bytes
        chunks[-1].append(row)
        left -= size
    return chunks


def _runner(work: _Work, cut: ModelProto) -> Callable[[int], list[NDArray[Any]]]:
    return fetcher(cut, work.inputs, work.feeds, "calibrate", work.run.threads)


def fetcher(
    cut: ModelProto, inputs: tuple[TensorSpec, ...], feeds: Feeds, purpose: str, threads: int | None
) -> Callable[[int], list[NDArray[Any]]]:
    """The outputs of a graph of `hiresvit.calibration.probes` on one of the feeds, by its number, with little memory.

    ``inputs`` are those of `graph_inputs`. Raises IllegalGraphError if ONNX Runtime cannot load the graph to do what
    ``purpose`` says; what is returned raises UsageError for a feed that does not fit, HiresvitError if it fails on it.
    """
    try:
        session = open_session(cut.SerializeToString(), threads=threads, low_memory=True)
    except Exception as error:  # its exception classes share no base
        raise IllegalGraphError(f"ONNX Runtime cannot load the graph to {purpose} ({_line(error)})") from error
    names = [value.name for value in cut.graph.output]

    def run(image: int) -> list[NDArray[Any]]:
        feed = feeds[image]
        check_feeds(feed, inputs)
        try:
            return list(session.run(names, dict(feed)))
        except Exception as error:
            raise HiresvitError(
                f"ONNX Runtime failed on image {image} of {len(feeds)} (counted from 0): {_line(error)}"
            ) from error

    return run


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
