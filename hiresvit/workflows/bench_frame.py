"""A frame as `hiresvit bench` measures it: from a picture's file to labels or classes, and the parts of that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from hiresvit.data.image import load_image
from hiresvit.data.scenes import sample_image
from hiresvit.errors import UsageError
from hiresvit.evaluation.latency import Side
from hiresvit.evaluation.statistics import Parts
from hiresvit.files import scratch_folder
from hiresvit.runtime.picture_runner import PictureRunner
from hiresvit.runtime.runner import Runner
from hiresvit.workflows.open import Source

DRAWN_SIZE = (1080, 1920)
"""Of the picture that is drawn where none is given and no contract says its camera's."""

_QUALITY = 90


def bench_picture(stack: ExitStack, sources: Sequence[Source], image: Path | None) -> tuple[Path, dict[str, Any]]:
    """The file that every frame is read from, gone with ``stack`` if it is drawn, and what a report says of it.

    Raises HiresvitError for a picture that cannot be read, UsageError for what can be read only once.
    """
    if image is None:
        sizes = [source.contract.size for source in sources if source.contract.size is not None]
        height, width = sizes[0] if sizes else DRAWN_SIZE
        path = stack.enter_context(scratch_folder()) / "street.jpg"
        Image.fromarray(sample_image(0, height, width)).save(path, quality=_QUALITY)
    else:
        path = image
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UsageError(f"--image {path}: give a file, it is read again for every frame")
        height, width, _ = load_image(path).shape
    kind = path.suffix.lstrip(".").lower()
    said = {"file": None if image is None else path.name, "size": [height, width], "format": kind}
    return path, said | {"bytes": path.stat().st_size}


def frame_side(source: Source, path: Path, threads: int | None) -> Side:
    """Decode, prepare, network and answer of one picture after the other. Raises UsageError for what answers none."""
    runner = picture_runner(source, threads)
    parts: dict[str, float | None] = {}

    def run() -> object:
        marks = [time.perf_counter_ns()]
        image = load_image(path)
        marks.append(time.perf_counter_ns())
        prepared = runner.prepare(image)
        marks.append(time.perf_counter_ns())
        outputs = runner.run(prepared)
        marks.append(time.perf_counter_ns())
        answer = runner.read(prepared, outputs)
        marks.append(time.perf_counter_ns())
        spans = (later - earlier for earlier, later in pairwise(marks))
        names = ("decode_ms", "prepare_ms", "network_ms", "answer_ms")
        parts.update({name: span / 1e6 for name, span in zip(names, spans, strict=True)})
        return answer

    def last() -> Parts:
        # of a picture that windows slide over the GPU knows only the last window
        return {**parts, **((None if runner.slides else gpu_parts(source.runner)) or {})}

    return Side(run, 1, last)


def picture_runner(source: Source, threads: int | None) -> PictureRunner:
    """What answers pictures. Raises UsageError for a source that does not say what its answers mean."""
    if source.spec is None:
        raise UsageError(
            f"{source.label} does not say what its answers mean, so a frame of it has none: leave --mode out, or give"
            " one that hiresvit exported"
        )
    return PictureRunner(source.runner, source.spec, source.contract, threads=threads)


def gpu_parts(runner: Runner) -> Parts | None:
    """What the last call was made of by the GPU's clock, in trtexec's words; None for what has no such clock.

    ``enqueue_ms`` is the host's. ``latency_ms`` is trtexec's latency: copies in, kernels, copies out.
    """
    times = runner.last_times()
    if times is None:
        return None
    return {
        "enqueue_ms": times.enqueue_ms,
        "h2d_ms": times.h2d_ms,
        "compute_ms": times.compute_ms,
        "d2h_ms": times.d2h_ms,
        "latency_ms": times.h2d_ms + times.compute_ms + times.d2h_ms,
    }
