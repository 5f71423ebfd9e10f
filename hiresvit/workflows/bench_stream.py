"""A camera at a fixed rate as `hiresvit bench` measures it: what `Predictor.stream` makes of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.image import load_image
from hiresvit.device.host import cpu_time, load_words
from hiresvit.errors import HiresvitError
from hiresvit.evaluation.latency import Measured
from hiresvit.evaluation.statistics import no_stats
from hiresvit.evaluation.stream import Answered, stream_stats
from hiresvit.workflows.bench_frame import picture_runner
from hiresvit.workflows.bench_power import Busy
from hiresvit.workflows.open import Source
from hiresvit.workflows.predictor import Predictor

_WARM_S = 0.2
_LEAST = 3  # frames, of which a jitter is made


@dataclass
class Stream:
    """A source and the frames that were sent to it so far, from ``began_ns`` on, and those that were answered."""

    predictor: Predictor
    picture: NDArray[np.uint8]
    fps: float
    began_ns: int = 0
    sent: int = 0
    answered: list[Answered] = field(default_factory=list)

    def run(self, seconds: float) -> int:
        """Send for so long, and say how many were answered. A frame that comes while another waits takes its place."""
        self.predictor(self.picture)  # awake, however long ago it was warm
        self.sent, self.answered = 0, []
        self.began_ns = time.perf_counter_ns()
        frames = self.predictor.stream(self._paced(max(_LEAST, math.ceil(self.fps * seconds))), drop=True)
        try:
            for one in frames:
                parts = {"prepare_ms": one.prepare_ms, "network_ms": one.network_ms, "answer_ms": one.answer_ms}
                self.answered.append(Answered(one.index, time.perf_counter_ns(), parts))
        finally:
            frames.close()
        return len(self.answered)

    def _paced(self, count: int) -> Iterator[NDArray[np.uint8]]:
        """The picture whenever its time has come."""
        for index in range(count):
            wait = self.began_ns / 1e9 + index / self.fps - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            self.sent = index + 1
            yield self.picture


def measure_streams(
    sources: Mapping[str, Source], path: Path, fps: float, seconds: float, threads: int | None
) -> tuple[dict[str, Any], Measured, dict[str, Busy]]:
    """A stream of ``seconds`` for one source after the other: a file's picture, decoded once, ``fps`` times a second.

    Also how each is kept busy so. Raises UsageError for a source that answers no pictures; what else a side raises is
    its failure.
    """
    for source in sources.values():
        picture_runner(source, threads)  # says what cannot be before anything is measured
    picture = load_image(path)
    streams = {name: Stream(Predictor.of_source(one, threads=threads), picture, fps) for name, one in sources.items()}
    measured = Measured({}, {}, f"{seconds:g} s for each stream, one after the other")
    sides: dict[str, dict[str, Any]] = {}
    before = cpu_time()
    for name, stream in streams.items():
        sides[name] = no_stats("interrupted before its turn")
        if not measured.interrupt:
            sides[name] |= _measure(name, stream, seconds, measured)
    for side in sides.values():
        side["warnings"] = [*side["warnings"], *load_words(before, cpu_time())]
    report: dict[str, Any] = {
        "complete": measured.interrupt is None,
        "stopped": measured.stopped,
        "sides": sides,
        "ratios": {},
    }
    busy: dict[str, Busy] = {name: stream.run for name, stream in streams.items() if name not in measured.failures}
    return report, measured, busy


def _measure(name: str, stream: Stream, seconds: float, measured: Measured) -> dict[str, Any]:
    """One side's statistics; why it ended early goes to ``measured``."""
    found: dict[str, Any] = {}
    try:
        end = time.monotonic() + _WARM_S
        while time.monotonic() < end:
            stream.predictor(stream.picture)
        stream.run(seconds)
    except HiresvitError as error:
        measured.failures[name] = error
        found = {"warnings": [str(error)]}
    except KeyboardInterrupt as interrupt:
        measured.interrupt, measured.stopped = interrupt, "interrupted"
    if stream.answered:
        stats, said = stream_stats(stream.fps, stream.sent, stream.began_ns, stream.answered)
        found = stats.to_json() | {"stream": said}
    return found
