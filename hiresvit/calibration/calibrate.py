"""Calibration: from an FP32 graph and images to the table of ranges that INT8 needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from hiresvit.calibration.collect import DEFAULTS, RunOptions, Statistics, collect
from hiresvit.calibration.observers import METHODS, Method, amax_of
from hiresvit.calibration.table import CalibrationTable, graph_digest, preprocess_json
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.spec import Feed, Feeds, PreprocessSpec
from hiresvit.version import __version__

_DEAD = 1.0  # the amax of a tensor that is 0 on every image; any would do, and 0 is no scale


def calibrate(
    graph: ModelProto,
    tensors: Sequence[str],
    feeds: Feeds,
    *,
    method: Method,
    data_digest: str,
    preprocess: PreprocessSpec,
    run: RunOptions = DEFAULTS,
) -> CalibrationTable:
    """Measure the FP32 ``tensors`` of a graph on every one of ``feeds`` and choose a range for each.

    ``data_digest`` and ``preprocess`` say what ``feeds`` are made of and how, for the table. ``minmax`` needs one pass,
    the other methods two. A tensor that is 0 on every image is listed as dead.

    Raises UsageError for an unknown method, fewer than 2 images and whatever `collect` refuses; HiresvitError if
    every image is of one colour, if every tensor is dead, and for NaN or Inf in a tensor.
    """
    made = calibrate_by([method], graph, tensors, feeds, data_digest=data_digest, preprocess=preprocess, run=run)
    return made[method]


def calibrate_by(
    methods: Sequence[Method],
    graph: ModelProto,
    tensors: Sequence[str],
    feeds: Feeds,
    *,
    data_digest: str,
    preprocess: PreprocessSpec,
    run: RunOptions = DEFAULTS,
) -> dict[Method, CalibrationTable]:
    """`calibrate` by each of ``methods``, for which the pictures are run through the graph once."""
    if unknown := [method for method in methods if method not in METHODS]:
        raise UsageError(f"method {unknown[0]!r}: choose one of {', '.join(METHODS)}")
    _check_images(feeds)
    found = collect(
        graph,
        tensors,
        feeds,
        look="ranges" if set(methods) == {"minmax"} else "histograms",
        digest=f"{data_digest} {preprocess}",  # other inputs, if the same images are prepared otherwise
        run=run,
    )
    dead = tuple(name for name, statistics in found.items() if statistics.dead)
    if len(dead) == len(found):
        raise HiresvitError(
            f"all {len(dead)} tensors are 0 on every image, {dead[0]!r} first: the graph or its weights are broken"
        )
    digest = graph_digest(graph)
    return {
        method: CalibrationTable(
            method=method,
            amax={name: _amax(statistics, method) for name, statistics in found.items()},
            dead=dead,
            ranges={name: (statistics.lowest, statistics.highest) for name, statistics in found.items()},
            images=len(feeds),
            graph=digest,
            data=data_digest,
            preprocess=preprocess_json(preprocess),
            tools={"hiresvit": __version__} | {tool.__name__: tool.__version__ for tool in (np, onnx, onnxruntime)},
        )
        for method in methods
    }


def _check_images(feeds: Feeds) -> None:
    """Raise UsageError on fewer than two images, HiresvitError if each of them is of one colour."""
    if len(feeds) < 2:
        raise UsageError(
            f"{len(feeds)} calibration image(s): one picture does not show a tensor's range;"
            " give at least 2, better 64 or more"
        )
    if not any(_varies(feeds[index]) for index in range(len(feeds))):
        raise HiresvitError(
            f"all {len(feeds)} calibration images are of one colour each (black?), ranges measured on them would be"
            " too small; give pictures like those the network will see"
        )


def _varies(feed: Feed) -> bool:
    """Whether any channel of any input has two different values, but for the zeros that an image is filled up with."""
    for array in feed.values():
        shown, sides = array, tuple(range(min(2, array.ndim - 1), array.ndim))  # without batch and channels
        for axis in sides:
            used = np.flatnonzero(shown.any(tuple({*range(array.ndim)} - {axis})))
            shown = shown.take(range(used.max(initial=-1) + 1), axis)
        if shown.size and np.ptp(shown, sides).any():
            return True
    return False


def _amax(statistics: Statistics, method: Method) -> float:
    if statistics.dead or statistics.counts is None:
        return _DEAD if statistics.dead else statistics.amax
    return amax_of(statistics.counts, statistics.amax, method)
