"""A camera at a fixed rate as `hiresvit bench` measures it: what `Predictor.stream` makes of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
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
from hiresvit.workflows.open import Source
from hiresvit.workflows.predictor import Predictor

_WARM_S = 0.2
_LEAST = 3  # frames, of which a jitter is made


def measure_streams(
    sources: Mapping[str, Source], path: Path, fps: float, seconds: float, threads: int | None
) -> tuple[dict[str, Any], Measured]:
    """A stream of ``seconds`` for one source after the other: a file's picture, decoded once, ``fps`` times a second.

    A frame that comes while another waits takes its place, as a camera's does. Raises UsageError for a source that
    answers no pictures; what else a side raises is its failure.
    """
    for source in sources.values():
        picture_runner(source, threads)  # says what cannot be before anything is measured
    picture = load_image(path)
    measured = Measured({}, {}, f"{seconds:g} s for each stream, one after the other")
    sides: dict[str, dict[str, Any]] = {}
    for name, source in sources.items():
        sides[name] = no_stats("interrupted before its turn") | {"stream": None}
        if measured.interrupt:
            continue
        before = cpu_time()
        began, sent, answered = 0, [0], list[Answered]()
        try:
            predictor = Predictor.of_source(source, threads=threads)
            _warm(predictor, picture)
            began = time.perf_counter_ns()
            frames = predictor.stream(_paced(picture, began, fps, _count(fps, seconds), sent), drop=True)
            try:
                for frame in frames:
                    parts = {
                        "prepare_ms": frame.prepare_ms,
                        "network_ms": frame.network_ms,
                        "answer_ms": frame.answer_ms,
                    }
                    answered.append(Answered(frame.index, time.perf_counter_ns(), parts))
            finally:
                frames.close()
        except HiresvitError as error:
            measured.failures[name] = error
            sides[name]["warnings"] = [str(error)]
        except KeyboardInterrupt as interrupt:
            measured.interrupt, measured.stopped = interrupt, "interrupted"
        if answered:
            stats, stream = stream_stats(fps, max(sent[0], answered[-1].index + 1), began, answered)
            sides[name] = stats.to_json() | {"stream": stream}
            sides[name]["warnings"] = [*stats.warnings, *load_words(before, cpu_time())]
    report = {"complete": measured.interrupt is None, "stopped": measured.stopped, "sides": sides, "ratios": {}}
    return report, measured


def _count(fps: float, seconds: float) -> int:
    return max(_LEAST, math.ceil(fps * seconds))


def _warm(predictor: Predictor, picture: NDArray[np.uint8]) -> None:
    end = time.monotonic() + _WARM_S
    predictor(picture)
    while time.monotonic() < end:
        predictor(picture)


def _paced(
    picture: NDArray[np.uint8], began_ns: int, fps: float, count: int, sent: list[int]
) -> Iterator[NDArray[np.uint8]]:
    """The picture when its time has come; ``sent`` counts along."""
    for index in range(count):
        wait = began_ns / 1e9 + index / fps - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        sent[0] = index + 1
        yield picture
