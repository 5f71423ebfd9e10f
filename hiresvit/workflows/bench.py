"""`hiresvit bench`: how long several networks take, for a call of the engine or for a frame."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hiresvit.device.boards import Board
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.evaluation.latency import BUDGET_S, SETTLE_S, Limits, Side, measure_sides, sides_report
from hiresvit.evaluation.statistics import no_stats
from hiresvit.spec import TensorSpec
from hiresvit.workflows.bench_bound import find_bounds, multiples
from hiresvit.workflows.bench_frame import bench_picture, frame_side, gpu_parts
from hiresvit.workflows.bench_power import Power, keep_busy, measure_power
from hiresvit.workflows.bench_stream import measure_streams
from hiresvit.workflows.bench_watch import watched
from hiresvit.workflows.open import Source, Unopened, distinct

Mode = Literal["call", "frame", "stream", "offline"]

# A module takes any number of images; that its input says 1 is for comparisons.
_ANY_BATCH = ("PyTorch", "torch.compile")


@dataclass(frozen=True)
class BenchSettings:
    """How it is measured.

    ``min_s``, ``max_s`` and ``rel_error`` are those of `Limits`. ``image`` is the picture of a frame, drawn where none
    is given; ``fps`` is a stream's rate, ``batch`` what is called at a time in mode ``offline``. ``threads`` are for
    what is done with pictures. ``power`` measures joules, too, in windows of their own.
    ``board`` is what plans are held to; None takes the GPU that runs them, where the table of boards has it.
    """

    mode: Mode = "call"
    min_s: float = 3.0
    max_s: float | None = None
    rel_error: float = 1.0
    image: Path | None = None
    fps: float = 30.0
    batch: int | None = None
    threads: int | None = None
    power: bool = False
    board: Board | None = None

    @property
    def limits(self) -> Limits:
        """Without ``max_s`` a measurement takes up to three times ``min_s`` for its medians to become certain."""
        max_s = 3 * self.min_s if self.max_s is None else self.max_s
        # of an offline queue nobody waits for the next call
        settle_s = 0.0 if self.mode == "offline" else SETTLE_S
        return Limits(
            min_s=self.min_s, max_s=max_s, rel_error=self.rel_error, slow_s=max(BUDGET_S, max_s), settle_s=settle_s
        )


@dataclass(frozen=True)
class Benched:
    """A document of plain JSON values, what did not come to its end, whether it was interrupted, and notes."""

    report: dict[str, Any]
    failures: dict[str, HiresvitError]
    interrupt: KeyboardInterrupt | None
    notes: list[str]


def measure_sources(opened: Sequence[Source | Unopened], settings: BenchSettings) -> Benched:
    """Measure all sources in turn, a network alone on noise, which takes a dense one as long as a picture does.

    A side that did not open, or fails, has its ``failure`` and the others go on.
    A dynamic size is what a plan was tuned for, and 1 for a graph; a note says with which shapes it was called.
    Raises UsageError for a source that has no answer for a frame, for a batch that a graph does not take, and for one
    that is emulated; ArtefactError for a plan that is to be held to a board and whose kernels are not known.
    """
    for side in opened:
        if isinstance(side, Source) and side.runner.about.emulated:
            raise refused_time(side.label)
    named = dict(zip(distinct(side.label for side in opened), opened, strict=True))
    sources = {name: side for name, side in named.items() if isinstance(side, Source)}
    broken = {name: side.error for name, side in named.items() if isinstance(side, Unopened)}
    bounds, said = find_bounds(sources, settings.board, settings.batch, settings.mode)
    with ExitStack() as stack:
        extra: dict[str, Any] = {"mode": settings.mode, "picture": None}
        picture = None
        if settings.mode in ("frame", "stream"):
            picture, extra["picture"] = bench_picture(stack, list(sources.values()), settings.image)
        with watched() as watch:
            if settings.mode == "stream":
                assert picture is not None
                seconds = settings.min_s
                report, measured, busy = measure_streams(sources, picture, settings.fps, seconds, settings.threads)
            else:
                sides, uncompiled = _sides(sources, settings, picture)
                broken |= uncompiled
                measured = measure_sides(sides, settings.limits)
                report = sides_report(sides, measured)
                left = {name: side for name, side in sides.items() if name not in measured.failures}
                busy = {name: keep_busy(side.run, side.batch) for name, side in left.items()}
        power = Power()
        if settings.power and not measured.interrupt:
            power = measure_power(busy, settings.min_s)
    failures = broken | measured.failures | power.failures
    report["sides"] = {
        name: {
            "stream": None,
            **(report["sides"].get(name) or no_stats(str(failures[name]))),
            "origin": dict(side.origin) if isinstance(side, Source) else None,
            "failure": failures[name].to_json() if name in failures else None,
        }
        for name, side in named.items()
    }
    for name, side in report["sides"].items():
        side["roofline"] = multiples(side, bounds.get(name), settings.mode)
    report["complete"] = report["complete"] and power.interrupt is None
    marks = [*_unsteady(report["sides"]), *watch.marks]
    extra |= report | {"environment": watch.environment, "marks": marks, "power": power.sides}
    return Benched(extra, failures, measured.interrupt or power.interrupt, [*power.notes, *said])


def refused_time(name: str) -> UsageError:
    """An emulator's time, which must not be taken for a device's."""
    return UsageError(
        f"{name}: the HTP is emulated here, and an emulator's time says nothing of a device's: run bench on the device;"
        " compare and eval tell here how right its answers are"
    )


def _unsteady(sides: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sides that waver, and a machine that others use."""
    said = [(name, word) for name, side in sides.items() for word in side["warnings"]]
    unstable = [f"{name}: {word}" for name, word in said if word.startswith("unstable")]
    return [*unstable, *dict.fromkeys(word for _, word in said if word.startswith("the machine is busy"))]


def _sides(
    sources: Mapping[str, Source], settings: BenchSettings, picture: Path | None
) -> tuple[dict[str, Side], dict[str, HiresvitError]]:
    """What is measured, and what cannot be; the first of these is raised where nothing else is left."""
    sides: dict[str, Side] = {}
    broken: dict[str, HiresvitError] = {}
    for name, source in sources.items():
        if picture is not None:
            side = frame_side(source, picture, settings.threads)
        else:
            side = _call_side(source, settings.batch)
        try:
            sides[name] = _compiled(side) if source.runner.about.backend == "torch.compile" else side
        except HiresvitError as error:
            broken[name] = error
    if not sides:
        raise next(iter(broken.values()))
    return sides, broken


def _compiled(side: Side) -> Side:
    """After the first call, which compiles and is no part of any time."""
    began = time.monotonic()
    side.run()
    return replace(
        side, notes=(*side.notes, f"torch.compile took {time.monotonic() - began:.0f} s, which no time here has")
    )


def _call_side(source: Source, batch: int | None) -> Side:
    runner = source.runner
    if batch is not None and runner.about.backend in _ANY_BATCH:
        runner.inputs = tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in runner.inputs)
    shapes = {name: tuple(shape) for name, shape in runner.best_shapes.items()}
    if batch is not None:
        shapes = {spec.name: _batched(source.label, spec, shapes[spec.name], batch) for spec in runner.inputs}
    generator = np.random.default_rng(0)
    feed = {spec.name: _noise(generator, spec, shapes[spec.name]) for spec in runner.inputs}
    images = next(iter(shapes.values()), ())
    pixels = any(spec.dtype == "uint8" for spec in runner.inputs)  # of NV12 the first has no axis of channels
    several = images[0] if pixels or len(images) == 4 else 1
    open_size = any(isinstance(size, str) for spec in runner.inputs for size in spec.shape)
    sizes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    return Side(
        partial(runner, feed), several, partial(gpu_parts, runner), (f"called with {sizes}",) if open_size else ()
    )


def _batched(label: str, spec: TensorSpec, shape: tuple[int, ...], batch: int) -> tuple[int, ...]:
    """The shape with another batch. Raises UsageError for a graph that was made for one."""
    first = spec.shape[0]
    if first != batch and not isinstance(first, str):
        raise UsageError(
            f"--batch {batch}: {spec.name!r} of {label} is {list(spec.shape)}, made for a batch of"
            f" {first}; leave --batch out, or export with a dynamic batch"
        )
    return (batch, *shape[1:])


def _noise(generator: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> NDArray[Any]:
    """Of the type that a network takes: pixels where that is bytes."""
    if np.issubdtype(np.dtype(spec.dtype), np.integer):
        return generator.integers(0, 256, shape).astype(spec.dtype)
    return generator.standard_normal(shape, dtype=np.float32)
