"""`hiresvit bench`: how long a call of each of several networks takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.evaluation.latency import Side, latency_report
from hiresvit.runtime.runner import Runner
from hiresvit.spec import TensorSpec
from hiresvit.workflows.open import Source


def measure_sources(sources: Sequence[Source], min_s: float) -> dict[str, Any]:
    """Latencies of all sources in turn, on noise, which takes a dense network as long as a picture does.

    A dynamic size is what a plan was tuned for, and 1 for a graph; a note says with which shapes it was called.
    """
    sides: dict[str, Side] = {}
    for source in sources:
        number = f" ({len(sides) + 1})" if source.label in sides else ""
        sides[source.label + number] = _side(source.runner)
    return latency_report(sides, min_s=min_s)


def _noise(generator: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> NDArray[Any]:
    """Of the type that a network takes: pixels where that is bytes."""
    if np.issubdtype(np.dtype(spec.dtype), np.integer):
        return generator.integers(0, 256, shape).astype(spec.dtype)
    return generator.standard_normal(shape, dtype=np.float32)


def _side(runner: Runner) -> Side:
    shapes = runner.best_shapes
    generator = np.random.default_rng(0)
    feed = {spec.name: _noise(generator, spec, shapes[spec.name]) for spec in runner.inputs}
    images = next(iter(shapes.values()), ())
    pixels = any(spec.dtype == "uint8" for spec in runner.inputs)  # of NV12 the first has no axis of channels
    batch = images[0] if pixels or len(images) == 4 else 1
    open_size = any(isinstance(size, str) for spec in runner.inputs for size in spec.shape)
    sizes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    return Side(partial(runner, feed), batch, runner.last_times, (f"called with {sizes}",) if open_size else ())
