"""The builder's process, run by `engine.build_engine`: ``python -m hiresvit.engine._build_child REQUEST``.

REQUEST is JSON: `engine.BuildSettings`, graph, plan and the parent's process id. Each line of stdout is a JSON
object: ``{"phase", "fraction"}`` many times, then ``{"result"}`` or ``{"error", "message"}`` once. The builder's
warnings and errors go to stderr as they come, so that they outlive a crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hiresvit.device import cuda
from hiresvit.device import tensorrt_api as api
from hiresvit.device.cuda import open as opening
from hiresvit.device.platform import has_driver, this_platform
from hiresvit.engine.config import load_timing_cache, make_config, read_config, runs_on, save_timing_cache
from hiresvit.engine.kernels import Kernel, count_kinds, parse_inspector, parse_layers, parse_memory, realised_precision
from hiresvit.errors import BuilderRefusal, BuildError, HiresvitError, IllegalGraphError, MissingDependency
from hiresvit.files import native_path
from hiresvit.process import peak_rss_bytes
from hiresvit.spec import TensorSpec

Report = Callable[[str, float], None]

# TensorRT-RTX compiles every kernel inside the phase it calls so, and reports nothing meanwhile.
_PHASES = {"Determining refit engines": "Compiling kernels"}
_PROGRESS_STEP = 0.01


@dataclass
class Said:
    """What the builder logged, as far as the report needs it."""

    layers: str = ""
    memory: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    # TensorRT keeps the first logger of a process, and builder and network point to both: they must outlive these.
    log: Any = None
    recorder: Any = None

    def hear(self, level: str, message: str) -> None:
        """Keep a message; errors and warnings go to stderr as well."""
        if level == "info":
            if message.startswith("Layers:"):
                self.layers = message
            elif " Memory: " in message:
                self.memory.append(message)
        elif text := api.one_line(message):
            (self.errors if level == "error" else self.warnings).append(text)
            print(text, file=sys.stderr, flush=True)


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


def build(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Build and write the plan; the fields of EngineReport but ``attentions_total``, and ``layers``, as JSON values."""
    backend: api.Backend = request["backend"]
    device = find_device(backend)
    trt = api.load(backend)
    said = listen(trt)
    started = time.perf_counter()
    plan, known = compile_graph(trt, said, request, report, device)
    seconds = time.perf_counter() - started
    report("Writing", 1.0)
    try:
        Path(request["plan"]).write_bytes(plan)
    except OSError as error:
        folder = Path(request["plan"]).parent
        raise HiresvitError(f"cannot write the plan of {request['graph']} into {folder}: {error.strerror}") from error
    memory = parse_memory("\n".join(said.memory))
    if backend == "tensorrt_rtx":
        kernels = parse_dump(said)
    else:
        kernels, memory["activation_bytes"] = inspect(trt, said, plan, request["version_compatible"])
    kinds = count_kinds(kernels)
    return {
        "backend": backend,
        "version": trt.__version__,
        "platform": this_platform(),
        "compute_capability": runs_on(request, device.compute_capability if device else None),
        "device": device.name if device else None,
        "plan_bytes": plan.nbytes,
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "build_seconds": seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "kernel_total": len(kernels),
        "kernels": kinds,
        "precision": realised_precision(kernels),
        "attentions_fused": kinds.get("attention", 0),
        **memory,
        **known,
        "profiles": request["shapes"],
        "warnings": list(dict.fromkeys(said.warnings)),
        "layers": [kernel.to_json() for kernel in kernels],
    }


def find_device(backend: api.Backend) -> cuda.Device | None:
    """The GPU that TensorRT builds on, None where no CUDA binding tells. Raises MissingDependency without a GPU.

    TensorRT-RTX compiles ahead of time and needs none. TensorRT without one does not answer, it crashes.
    """
    if backend == "tensorrt_rtx" or (not opening.installed() and has_driver()):
        return None
    try:
        return opening.open_cuda().device(0)
    except MissingDependency as error:
        raise MissingDependency(
            f"TensorRT builds on the GPU that the plan is for, and none can be used here ({error}); build on the"
            " device, or take --backend tensorrt_rtx, which needs none"
        ) from error


def compile_graph(
    trt: Any, said: Said, request: dict[str, Any], report: Report, device: cuda.Device | None
) -> tuple[Any, dict[str, Any]]:
    """The plan, and ``inputs``, ``outputs`` and ``flags`` of the report.

    Raises MissingDependency, UsageError, IllegalGraphError or BuildError, with the builder's reason.
    """
    report("Parsing", 0.0)
    try:
        builder = trt.Builder(said.log)
    except Exception as error:  # pybind's word for a null pointer: there is no driver, or one too old
        reason = " | ".join(said.errors) or str(error)
        raise MissingDependency(f"TensorRT {trt.__version__} does not start here: {reason}") from error
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # its number differs; ignored from 11 on
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    # Not before the network: TensorRT-RTX 1.7 crashes when it then frees that.
    builder.error_recorder = said.recorder
    parser = trt.OnnxParser(network, said.log)  # owns the network's weights: stays until it is built
    parse(parser, request["graph"])
    config = make_config(trt, builder, network, request)
    monitor = make_monitor(trt, report, lambda: os.getppid() == request["parent"])
    config.progress_monitor = monitor
    cache = None
    if request["timing_cache"] is not None:
        if request["backend"] == "tensorrt_rtx":
            said.warnings.append("TensorRT-RTX has no timing cache: it was neither read nor written")
        else:
            gpu = f"{device.name} {device.compute_capability}" if device else "unknown"
            cache = load_timing_cache(trt, config, request["timing_cache"], gpu)
    known = {
        "inputs": [asdict(spec(network.get_input(i))) for i in range(network.num_inputs)],
        "outputs": [asdict(spec(network.get_output(i))) for i in range(network.num_outputs)],
        "flags": read_config(trt, config, request),
    }
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = " | ".join(dict.fromkeys(said.errors[-3:])) or "the builder gave no reason"
        starved = "workspace" in reason and request["workspace"] is not None
        if starved:
            reason += f"; the workspace was {request['workspace'] / 2**20:.3g} MiB, give more or leave the limit out"
        if monitor.cancelled:
            reason = "cancelled, the process that asked for it is gone"
        ours = starved or monitor.cancelled or "memory" in reason.lower()  # and not the graph's fault
        kind = BuildError if ours else BuilderRefusal
        raise kind(f"{request['graph']}: engine build failed: {reason}")
    if cache is not None:
        try:
            save_timing_cache(config, cache)
        except HiresvitError as error:  # it only saves time: the plan is worth more
            said.warnings.append(str(error))
    return plan, known


def listen(trt: Any) -> Said:
    """What hears the builder."""
    said = Said()
    said.log, said.recorder = api.make_log(trt, said.hear), make_recorder(trt, said)
    return said


def make_recorder(trt: Any, said: Said) -> Any:
    """An error recorder: what the builder reports with a code, besides what it logs."""

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.recorded: list[tuple[Any, str]] = []

        def clear(self) -> None:
            self.recorded.clear()

        def get_error_code(self, index: int) -> Any:
            return self.recorded[index][0]

        def get_error_desc(self, index: int) -> str:
            return self.recorded[index][1]

        def has_overflowed(self) -> bool:
            return False

        def num_errors(self) -> int:
            return len(self.recorded)

        def report_error(self, code: Any, desc: str) -> None:
            self.recorded.append((code, desc))
            said.hear("error", desc)  # the builder does not log what it records

    return Recorder()


def make_monitor(trt: Any, report: Report, wanted: Callable[[], bool]) -> Any:
    """A progress monitor that turns nested phases into one fraction that never falls.

    A phase spans one step of the phase around it, so its share is the product of the step widths above it. The
    build is cancelled as soon as it is no longer ``wanted``.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.open: dict[str, list[int]] = {}  # phase -> [steps done, steps], outermost first
            self.fraction = 0.0
            self.reported = 0.0
            self.cancelled = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.open[phase_name] = [0, max(1, num_steps)]
            self.update(phase_name, always=True)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.open[phase_name][0] = step + 1
            self.update(phase_name)
            self.cancelled = self.cancelled or not wanted()
            return not self.cancelled

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


def parse(parser: Any, graph: str) -> None:
    """Fill the parser's network from a graph. Raises IllegalGraphError naming the first node refused."""
    with native_path(Path(graph)) as name:
        if parser.parse_from_file(name):
            return
    if parser.num_errors == 0:
        raise IllegalGraphError(f"{graph}: TensorRT cannot parse it and gives no reason")
    error = parser.get_error(0)
    name = repr(error.node_name()) if error.node_name() else f"number {error.node()}"
    node = f"node {name} ({error.node_operator()})" if error.node_operator() else "the file"
    reason = api.one_line(error.desc())
    if "Plugin not found, are" in reason:
        reason = "it knows no such operator, and has no plugin of that name; write it in other operators"
    raise IllegalGraphError(f"{graph}: TensorRT refuses {node}: {reason}")


def parse_dump(said: Said) -> list[Kernel]:
    """The kernels of a plan that cannot be inspected without a GPU, from the builder's log."""
    try:
        return parse_layers(said.layers)
    except ValueError as error:
        raise BuildError(f"the plan cannot be described: {error}") from error


def inspect(trt: Any, said: Said, plan: Any, version_compatible: bool) -> tuple[list[Kernel], int]:
    """The kernels and the activation bytes of a plan, asked on the GPU that it was built on.

    No kernels, and a warning, if the inspector's words cannot be read. Not run here: it needs a GPU.
    """
    runtime = trt.Runtime(said.log)
    if version_compatible:  # such a plan brings code for the host, which TensorRT runs only when it is told to
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(f"the plan does not load on the GPU it was built on: {' | '.join(said.errors[-2:])}")
    memory = int(engine.device_memory_size_v2)
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return parse_inspector(text), memory
    except ValueError as error:
        said.warnings.append(f"the plan's kernels are not known: {error}")
        return [], memory


def spec(tensor: Any) -> TensorSpec:
    """Name, numpy dtype and shape of a network input or output; a dynamic axis 0 is the batch."""
    names = ("batch", *(f"axis{axis}" for axis in range(1, len(tensor.shape))))
    shape = tuple(names[axis] if size == -1 else int(size) for axis, size in enumerate(tensor.shape))
    return TensorSpec(tensor.name, api.dtype_name(tensor.dtype), shape)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
