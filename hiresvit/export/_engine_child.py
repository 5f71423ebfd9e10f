"""The builder's process, run by `engine.build_engine`: ``python -m hiresvit.export._engine_child REQUEST``.

REQUEST is JSON: graph, plan, max_aux_streams, workspace, batch. Each line of stdout is a JSON object:
``{"phase", "fraction"}`` many times, then ``{"result"}`` or ``{"error", "message"}`` once. The builder's
warnings and errors go to stderr as they come, so that they outlive a crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiresvit.errors import BuildError, HiresvitError, IllegalGraphError
from hiresvit.export.child import peak_rss_bytes
from hiresvit.export.engine import load_trt
from hiresvit.export.layers import count_kinds, parse_layers, parse_memory, realised_precision
from hiresvit.spec import TensorSpec

# Where the builder's name of a datatype in lower case is not numpy's.
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "FP8": "float8_e4m3fn"}
# TensorRT-RTX compiles every kernel inside the phase it calls so, and reports nothing meanwhile.
_PHASES = {"Determining refit engines": "Compiling kernels"}
_PROGRESS_STEP = 0.01


def main(request: dict[str, Any]) -> int:
    """Build, report on stdout, and return the exit code."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever native code prints must not mix with the events

    def send(**event: Any) -> None:
        print(json.dumps(event), file=events)

    try:
        send(result=build(request, lambda phase, fraction: send(phase=phase, fraction=fraction)))
    except HiresvitError as error:
        send(error=type(error).__name__, message=str(error))
        return 1
    return 0


def build(request: dict[str, Any], report: Callable[[str, float], None]) -> dict[str, Any]:
    """Build and write the plan; the fields of EngineReport but ``attentions_total``, as JSON values."""
    trt = load_trt()
    log = make_log(trt)
    started = time.perf_counter()
    network, plan = compile_graph(trt, log, request, report)
    seconds = time.perf_counter() - started
    report("Writing", 1.0)
    try:
        Path(request["plan"]).write_bytes(plan)
    except OSError as error:
        raise HiresvitError(f"cannot write the plan of {request['graph']}: {error.strerror}") from error
    return {
        "backend": "tensorrt_rtx",
        "version": trt.__version__,
        "compute_capability": "8.0 and later",
        "plan_bytes": plan.nbytes,
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "build_seconds": seconds,
        **describe(log),
        "inputs": [asdict(spec(network.get_input(i))) for i in range(network.num_inputs)],
        "outputs": [asdict(spec(network.get_output(i))) for i in range(network.num_outputs)],
        "max_aux_streams": request["max_aux_streams"],
        "batch": request["batch"],
        "peak_rss_bytes": peak_rss_bytes(),
    }


def compile_graph(
    trt: Any, log: Any, request: dict[str, Any], report: Callable[[str, float], None]
) -> tuple[Any, Any]:
    """The network and its plan. Raises IllegalGraphError or BuildError, with the builder's reason."""
    report("Parsing", 0.0)
    builder = trt.Builder(log)
    network = make_network(trt, builder)
    parser = trt.OnnxParser(network, log)  # owns the weights the network refers to: stays until it is built
    parse(parser, request["graph"])
    config = make_config(trt, builder, network, request)
    config.progress_monitor = make_monitor(trt, report)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = " | ".join(log.errors[-3:]) or "the builder gave no reason"
        raise BuildError(f"{request['graph']}: TensorRT-RTX cannot build it: {said}")
    return network, plan


def describe(log: Any) -> dict[str, Any]:
    """What the builder logged about the plan: kernels, precision, memory, warnings."""
    try:
        kernels = parse_layers(log.layers)
    except ValueError as error:
        raise BuildError(f"the plan cannot be described: {error}") from error
    kinds = count_kinds(kernels)
    return {
        "kernel_total": len(kernels),
        "kernels": kinds,
        "precision": realised_precision(kernels),
        "attentions_fused": kinds.get("attention", 0),
        **parse_memory("\n".join(log.memory)),
        "warnings": list(dict.fromkeys(log.warnings)),
    }


def make_log(trt: Any) -> Any:
    """A logger that keeps what the report needs: ``layers``, ``memory``, ``warnings`` and ``errors``."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = ""
            self.memory: list[str] = []
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.WARNING:
                if text := one_line(message):
                    (self.errors if severity <= trt.ILogger.ERROR else self.warnings).append(text)
                    print(text, file=sys.stderr, flush=True)
            elif message.startswith("Layers:"):
                self.layers = message
            elif " Memory: " in message:
                self.memory.append(message)

    return Log()


def make_monitor(trt: Any, report: Callable[[str, float], None]) -> Any:
    """A progress monitor that turns nested phases into one fraction that never falls.

    A phase spans one step of the phase around it, so its share is the product of the step widths above it.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.open: dict[str, list[int]] = {}  # phase -> [steps done, steps], outermost first
            self.fraction = 0.0
            self.reported = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.open[phase_name] = [0, max(1, num_steps)]
            self.update(phase_name, always=True)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.open[phase_name][0] = step + 1
            self.update(phase_name)
            return True

        def phase_finish(self, phase_name: str) -> None:
            del self.open[phase_name]

        def update(self, phase: str, always: bool = False) -> None:
            position, width = 0.0, 1.0
            for done, steps in self.open.values():
                position += width * done / steps
                width /= steps
            self.fraction = max(self.fraction, min(position, 1.0))
            if always or self.fraction >= self.reported + _PROGRESS_STEP:
                self.reported = self.fraction
                report(_PHASES.get(phase, phase), self.fraction)

    return Monitor()


def make_network(trt: Any, builder: Any) -> Any:
    """An empty, strongly typed network; the flag's value differs between versions and some lack it."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return builder.create_network(0 if flag is None else 1 << int(flag))


def parse(parser: Any, graph: str) -> None:
    """Fill the parser's network from a graph. Raises IllegalGraphError naming the first node refused."""
    if parser.parse_from_file(graph):
        return
    if parser.num_errors == 0:
        raise IllegalGraphError(f"{graph}: TensorRT-RTX cannot parse it and gives no reason")
    error = parser.get_error(0)
    node = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_operator() else "the file"
    raise IllegalGraphError(f"{graph}: TensorRT-RTX refuses {node}: {one_line(error.desc())}")


def make_config(trt: Any, builder: Any, network: Any, request: dict[str, Any]) -> Any:
    """Detailed verbosity, without which the builder does not list its kernels, and what was asked for."""
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.max_aux_streams = request["max_aux_streams"]
    if request["workspace"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace"])
    if request["batch"] is not None:
        profile = builder.create_optimization_profile()
        for tensor in (network.get_input(i) for i in range(network.num_inputs)):
            first, *rest = tensor.shape
            sizes = request["batch"] if first == -1 else [first] * 3
            profile.set_shape(tensor.name, *[(size, *rest) for size in sizes])
        config.add_optimization_profile(profile)
    return config


def spec(tensor: Any) -> TensorSpec:
    """Name, numpy dtype and shape of a network input or output; only the batch axis can be dynamic."""
    dtype = _DTYPES.get(tensor.dtype.name, tensor.dtype.name.lower())
    shape = tuple("batch" if size == -1 else int(size) for size in tensor.shape)
    return TensorSpec(tensor.name, dtype, shape)


def one_line(text: str) -> str:
    """A builder message as one line: its reason, without where in the builder and without the missing GPU."""
    lines = [line for line in text.splitlines() if line.strip() and "cudaError" not in line]
    if len(lines) > 1 and lines[0].startswith("Invalid Node"):
        lines = lines[1:2]  # says why; what follows are its consequences
    line = " ".join(" ".join(lines).split())
    reason = re.search(r"Error Code \d+: [\w ]+ \((.*)\. In \S+ at ", line)
    return reason[1] if reason else line


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
