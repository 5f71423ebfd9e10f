"""`hiresvit bench`: how long a call of each of several networks takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from hiresvit.evaluation.latency import Side, latency_report
from hiresvit.runtime.runner import Runner
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


def _side(runner: Runner) -> Side:
    shapes = runner.best_shapes
    generator = np.random.default_rng(0)
    feed = {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    images = next(iter(shapes.values()), ())
    batch = images[0] if len(images) == 4 else 1
    open_size = any(isinstance(size, str) for spec in runner.inputs for size in spec.shape)
    sizes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    return Side(partial(runner, feed), batch, runner.last_times, (f"called with {sizes}",) if open_size else ())
