"""What `hiresvit bench` itself costs by the call, and how far apart it sees two sides that are the same.

    python benchmarks/bench_overhead.py [--graph PATH] [--runs 10] [--min-s 3] [--threads 2]

The first is the time of rounds of empty calls less what the calls took by their own clock: with one side and with four,
with the stop criterion on, without parts and with a GPU's. Wanted are less than 20 microseconds. The second opens one
graph twice and measures both as `bench` does, a few times; wanted is a ratio within 2 % in 9 of 10 runs on two noisy
cores. Without --graph it is a stack of convolutions of some milliseconds.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

from hiresvit.evaluation.latency import Limits, Side, measure_sides
from hiresvit.evaluation.statistics import Parts
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.workflows.bench import BenchSettings, measure_sources
from hiresvit.workflows.open import Source

CHANNELS, SIZE, LAYERS = 32, 96, 6


def overhead_us(sides: int, parts: Parts | None, rounds: int = 20_000) -> float:
    """Microseconds by the call that are not the call's."""
    nothing = Side(lambda: None, 1, (lambda: parts) if parts else None)
    # every look at the medians' errors is taken, and none is certain enough: the clock ends it
    limits = Limits(warmup_s=0, min_s=0, min_iterations=10, max_s=1e9, rel_error=-1.0)
    ticks = itertools.count()

    def clock() -> int:
        if next(ticks) > rounds * (2 * sides + 1):
            raise KeyboardInterrupt
        return time.perf_counter_ns()

    began = time.perf_counter_ns()
    found = measure_sides({f"{index}": nothing for index in range(sides)}, limits, clock)
    whole = time.perf_counter_ns() - began
    calls = sum(map(len, found.samples.values()))
    return (whole - sum(map(sum, found.samples.values()))) / calls / 1e3


def convolutions(path: Path) -> None:
    """A graph of some milliseconds."""
    make, shape, kernel = onnx.helper, (1, CHANNELS, SIZE, SIZE), (CHANNELS, CHANNELS, 3, 3)
    names = [f"x{index}" for index in range(LAYERS + 1)]
    nodes = [make.make_node("Conv", [a, "w"], [b], pads=[1, 1, 1, 1]) for a, b in itertools.pairwise(names)]
    feeds, answers = (
        [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)] for name in (names[0], names[-1])
    )
    weights = onnx.numpy_helper.from_array(np.full(kernel, 1e-3, np.float32), "w")
    graph = make.make_graph(nodes, "convolutions", feeds, answers, [weights])
    onnx.save(make.make_model(graph, ir_version=9, opset_imports=[make.make_opsetid("", 17)]), path)


def equal_sides(graph: Path, min_s: float, threads: int) -> float:
    """The median ratio of a graph to itself."""
    with OnnxRuntimeRunner(graph, threads=threads) as a, OnnxRuntimeRunner(graph, threads=threads) as b:
        sources = [Source(a, None, "a"), Source(b, None, "b")]
        found = measure_sources(sources, BenchSettings(min_s=min_s, threads=threads)).report
    for mark in found["marks"]:
        print(f"    {mark}")
    ratio = found["ratios"]["b/a"]
    ms = found["sides"]["a"]["median_ms"]
    print(
        f"  {ratio['median']:.4f} ({ratio['p10']:.3f} to {ratio['p90']:.3f}), {ms:.2f} ms, {found['stopped']}",
        flush=True,
    )
    return float(ratio["median"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", type=Path)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--min-s", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    gpu: Parts = dict.fromkeys(("enqueue_ms", "h2d_ms", "compute_ms", "d2h_ms", "latency_ms"), 1.0)
    for sides, parts in ((1, None), (4, None), (1, gpu)):
        what = f"{sides} side{'s' * (sides > 1)}{', a GPU' * bool(parts)}"
        print(f"overhead by the call, {what}: {overhead_us(sides, parts):.2f} us", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        graph = args.graph or Path(folder) / "convolutions.onnx"
        if args.graph is None:
            convolutions(graph)
        print(f"one graph beside itself, {args.threads} threads: ratio of medians round by round")
        ratios = [equal_sides(graph, args.min_s, args.threads) for _ in range(args.runs)]
    near = sum(abs(ratio - 1) <= 0.02 for ratio in ratios)
    print(f"{near} of {len(ratios)} within 2 %, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
