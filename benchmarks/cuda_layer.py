"""What our CUDA layer and the TensorRT runner do on a real GPU, as a log: the part that no test reaches without one.

    python benchmarks/cuda_layer.py [PLAN GRAPH.onnx]

Exercises every operation of the CUDA layer for each binding that is installed: memory, pinned and mapped memory,
copies, streams, events, a graph that is recorded and replayed, an allocation that is too large. Given a plan and the
graph it was built from, the runner answers the same noise as ONNX Runtime, with and without a CUDA graph, with
its buffers growing and shrinking where the batch is dynamic. Keep the log with the results.

Not run on hardware so far: it was written where there is no NVIDIA GPU. There it says so in one line and exits 6.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.device.cuda import Cuda
from hiresvit.device.cuda.open import installed, open_cuda
from hiresvit.errors import HiresvitError, MissingDependency
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.runner import Runner
from hiresvit.runtime.tensorrt_runner import TensorRTRunner

SIZE = 1 << 26
REPEATS = 20
TOO_LARGE = 1 << 44
TOLERANCE = 2e-2  # of the largest value: a plan may be FP16, the graph on the CPU is what its types say


def say(*what: object) -> None:
    print(*what, flush=True)


def exercise(cuda: Cuda) -> None:
    """Every operation once, its result checked."""
    say(f"== {cuda.binding}", cuda.device())
    stream, start, end = cuda.stream_create(), cuda.event_create(), cuda.event_create()
    there, back = cuda.host_alloc(SIZE), cuda.host_alloc(SIZE)
    memory = cuda.malloc(SIZE)
    there[:] = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    back[:] = 0
    for name in ("to the GPU", "to the host"):
        cuda.event_record(start, stream)
        for _ in range(REPEATS):
            if name == "to the GPU":
                cuda.copy_to_device(memory, there, stream)
            else:
                cuda.copy_to_host(back, memory, stream)
        cuda.event_record(end, stream)
        cuda.stream_synchronize(stream)
        ms = cuda.event_elapsed_ms(start, end) / REPEATS
        say(f"copy {name}: {ms:.3f} ms for {SIZE >> 20} MiB, {SIZE / ms / 1e6:.1f} GB/s")
    check("what came back is what was sent", np.array_equal(there, back))
    part = SIZE // 3
    back[:] = 0
    cuda.copy_to_host(back[:part], memory, stream)
    cuda.stream_synchronize(stream)
    check(
        "a part of a buffer is copied alone",
        np.array_equal(back[:part], there[:part]) and not back[part:].any(),
    )
    exercise_mapped(cuda, memory, stream)
    exercise_graph(cuda, memory, there, stream)
    exercise_errors(cuda)
    for event in (start, end):
        cuda.event_destroy(event)
    cuda.stream_destroy(stream)
    cuda.free(memory)
    cuda.host_free(there)
    cuda.host_free(back)


def exercise_mapped(cuda: Cuda, memory: int, stream: int) -> None:
    """The GPU writes into the host's memory through the pointer that it was given."""
    mapped = cuda.host_alloc(4096, mapped=True)
    mapped[:] = 7
    pointer = cuda.device_pointer(mapped)
    say(f"mapped memory: host {mapped.ctypes.data:#x}, GPU {pointer:#x}")
    source = cuda.host_alloc(4096)
    source[:] = 9
    cuda.copy_to_device(pointer, source, stream)
    cuda.stream_synchronize(stream)
    check("a copy to the GPU's pointer is seen by the host", bool((mapped == 9).all()))
    cuda.host_free(source)
    cuda.host_free(mapped)


def exercise_graph(cuda: Cuda, memory: int, there: NDArray[np.uint8], stream: int) -> None:
    """Two copies are recorded once and replayed with other data."""
    try:
        cuda.check_capture()
    except MissingDependency as error:
        say(f"graph: {error}")
        return
    back = cuda.host_alloc(4096)
    cuda.capture_begin(stream)
    cuda.copy_to_device(memory, there[:4096], stream)
    cuda.copy_to_host(back, memory, stream)
    graph = cuda.capture_end(stream)
    for value in (1, 2):
        there[:4096] = value
        cuda.graph_launch(graph, stream)
        cuda.stream_synchronize(stream)
        check(f"graph, replay {value}", bool((back == value).all()))
    cuda.graph_destroy(graph)
    cuda.host_free(back)


def exercise_errors(cuda: Cuda) -> None:
    """Each is one line, and the next call works."""
    for allocate in (cuda.malloc, cuda.host_alloc):
        try:
            allocate(TOO_LARGE)
        except HiresvitError as error:
            say(f"refused, as it should be: {error}")
        else:
            check(f"{TOO_LARGE} bytes are refused", False)
    cuda.free(cuda.malloc(1))


def compare(plan: Path, graph: Path) -> None:
    """The runner against ONNX Runtime on the same noise."""
    with OnnxRuntimeRunner(graph) as reference:
        for cuda_graph in (False, True):
            try:
                runner = TensorRTRunner(plan, cuda_graph=cuda_graph)
            except MissingDependency as error:
                say(f"{plan}, cuda_graph={cuda_graph}: {error}")
                continue
            with runner:
                say(f"== {plan}, cuda_graph={cuda_graph}", runner.inputs, runner.outputs, runner.warnings)
                dynamic = any(isinstance(size, str) for spec in runner.inputs for size in spec.shape)
                for batch in (1, 2, 2, 1, 1) if dynamic else (1, 1, 1):
                    compare_once(runner, reference, batch)


def compare_once(runner: TensorRTRunner, reference: Runner, batch: int) -> None:
    generator = np.random.default_rng(batch)
    feeds: dict[str, NDArray[Any]] = {
        spec.name: generator.standard_normal([batch if isinstance(spec.shape[0], str) else best[0], *best[1:]]).astype(
            spec.dtype
        )
        for spec, best in ((spec, runner.best_shapes[spec.name]) for spec in runner.inputs)
    }
    begin = time.perf_counter()
    try:
        found = runner(feeds)
    except HiresvitError as error:  # a batch outside the plan's profile
        say(f"batch {batch}: {error}")
        return
    seconds = time.perf_counter() - begin
    say(f"batch {batch}: {1e3 * seconds:.3f} ms on the host, {runner.last_times()}")
    wanted = reference({spec.name: feeds[spec.name].astype(spec.dtype) for spec in reference.inputs})
    for name, value in wanted.items():
        expected, answered = value.astype(np.float32), found[name].astype(np.float32)
        worst = float(np.abs(expected - answered).max()) / max(float(np.abs(expected).max()), 1e-9)
        check(f"{name}: off by {worst:.2e} of the largest value", worst <= TOLERANCE)


def check(what: str, holds: bool) -> None:
    say(f"{'ok' if holds else 'FAILED'}: {what}")
    if not holds:
        raise SystemExit(1)


def main(arguments: list[str]) -> int:
    if len(arguments) not in (0, 2):
        say("usage: python benchmarks/cuda_layer.py [PLAN GRAPH.onnx]")
        return 2
    try:
        for binding in installed() or (None,):
            exercise(open_cuda(binding))
        if arguments:
            compare(Path(arguments[0]), Path(arguments[1]))
    except HiresvitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
