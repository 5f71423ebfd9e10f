"""Build a TensorRT plan from an ONNX graph, and say what the builder made of it.

Precision is in the graph: the network is strongly typed and there is no precision option. The builder runs in
a child process (`_engine_child`), because native code can crash on odd graphs and a build must be stoppable.
No GPU is needed: TensorRT-RTX compiles ahead of time. It targets neither Jetson nor Hopper, so here it is the
gate for legality, fusion and memory; a Jetson builds its own plan.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresvit import errors
from hiresvit.errors import BuildError, HiresvitError, MissingDependency, UsageError
from hiresvit.export.child import run_child
from hiresvit.files import atomic_path
from hiresvit.spec import TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

INSTALL_HINT = "pip install 'hiresvit[rtx]'"

_BUILDER = "hiresvit.export._engine_child"
# The second alone is there when only the wheels were installed, not the meta package.
_MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")

# What may stand below a softmax (layout, an FP32 island, Q/DQ) and above it (scale, mask or bias as well).
_LAYOUT = {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_BELOW = _LAYOUT | {"Cast", "QuantizeLinear", "DequantizeLinear"}
_ABOVE = _BELOW | {"Add", "Div", "Mul", "Where"}


@dataclass(frozen=True)
class EngineReport:
    """What was built and what it is made of; sizes in bytes.

    ``kernels`` counts by kind (see `layers.Kernel.kind`), without the waits between streams. ``precision``
    counts attentions, convolutions and gemms by what they are computed in, as ``{"fp16": 310, "fp32": 4}``.
    ``activation_bytes`` is what one execution context allocates, ``scratch_bytes`` the most that one layer of
    the plan needs of it; a graph compiled as one layer has them equal. ``build_seconds`` covers parsing and
    building, ``peak_rss_bytes`` the builder's whole process. ``batch`` is the profile (min, opt, max) of a
    dynamic batch axis. ``warnings`` are the builder's, each once.
    """

    backend: str
    version: str
    compute_capability: str
    plan_bytes: int
    plan_sha256: str
    build_seconds: float
    peak_rss_bytes: int
    kernel_total: int
    kernels: dict[str, int]
    precision: dict[str, int]
    attentions_fused: int
    attentions_total: int
    activation_bytes: int
    weight_bytes: int
    scratch_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_aux_streams: int
    batch: tuple[int, int, int] | None
    warnings: tuple[str, ...]

    @property
    def precision_share(self) -> dict[str, float]:
        """``precision`` as fractions of 1."""
        total = sum(self.precision.values())
        return {name: count / total for name, count in self.precision.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EngineReport:
        """Rebuild a report. Raises TypeError or KeyError on values that are not one."""
        tensors = {
            side: tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in values[side])
            for side in ("inputs", "outputs")
        }
        batch = tuple(values["batch"]) if values["batch"] else None
        return cls(**{**values, **tensors, "batch": batch, "warnings": tuple(values["warnings"])})


def rtx_available() -> bool:
    """Whether TensorRT-RTX is installed; imports nothing."""
    return any(importlib.util.find_spec(name) is not None for name in _MODULES)


def load_trt() -> Any:
    """The TensorRT-RTX module (100 MB of memory). Raises MissingDependency."""
    reason = "not installed"
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:  # installed, but a shared library does not load
            reason = str(error)
    raise MissingDependency(f"building a plan needs TensorRT-RTX ({reason}): {INSTALL_HINT}")


def build_engine(
    graph: Path,
    plan: Path,
    *,
    max_aux_streams: int = 0,
    workspace: int | None = None,
    batch: tuple[int, int, int] | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> EngineReport:
    """Build ``graph`` with TensorRT-RTX and write ``plan``, for GPUs of compute capability 8.0 and later.

    ``max_aux_streams=0`` keeps one stream: no waits, and a fraction of the activation memory. ``workspace``
    limits the plan's scratch memory in bytes. ``batch`` is (min, opt, max) of a dynamic axis 0, needed
    exactly when the graph has one. ``on_progress(phase, fraction)`` is called in this thread. The fraction
    never falls; it counts the builder's steps: one of them, compiling kernels, takes most of the time.

    Nothing is left behind when it fails or is interrupted. Raises MissingDependency without TensorRT-RTX,
    UsageError on options that do not fit the graph, IllegalGraphError when the parser refuses a node,
    BuildError when the build fails or its process dies, HiresvitError when a file cannot be read or written.
    """
    if not rtx_available():
        raise MissingDependency(f"building a plan needs TensorRT-RTX (not installed): {INSTALL_HINT}")
    if max_aux_streams < 0 or (workspace is not None and workspace <= 0):
        raise UsageError(
            f"max_aux_streams={max_aux_streams}, workspace={workspace}: give at least 0 streams, 1 byte"
        )
    model = _load_graph(graph)
    _check_batch(graph, model, batch)
    with atomic_path(plan) as temporary:
        temporary.touch()  # a folder that cannot be written to is said now, not after the build
        request = {
            "graph": str(graph),
            "plan": str(temporary),
            "max_aux_streams": max_aux_streams,
            "workspace": workspace,
            "batch": batch,
        }
        built = _run_builder(request, on_progress)
    return EngineReport.from_json({**built, "attentions_total": count_attentions(model)})


def count_attentions(model: ModelProto) -> int:
    """Number of attentions: softmaxes between two products of activations, and ``Attention`` nodes.

    Between them may stand scale, mask or bias, layout changes, casts and Q/DQ. A product with a constant
    operand (a Linear, a pooling matrix) is none of the two, so a classifier's softmax does not count.
    """
    producer: dict[str, NodeProto] = {}
    consumers: dict[str, list[NodeProto]] = defaultdict(list)
    constant = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:  # in topological order, as ONNX requires
        if all(name in constant for name in node.input if name):
            constant.update(node.output)
        producer.update(dict.fromkeys(node.output, node))
        for name in node.input:
            consumers[name].append(node)

    def above(node: NodeProto) -> list[NodeProto]:
        return [producer[name] for name in node.input if name in producer]

    def below(node: NodeProto) -> list[NodeProto]:
        return [consumer for name in node.output for consumer in consumers[name]]

    def meets_product(
        start: NodeProto, onward: Callable[[NodeProto], list[NodeProto]], through: set[str]
    ) -> bool:
        pending, seen = onward(start), set()
        while pending:
            node = pending.pop()
            if node.op_type in ("MatMul", "Einsum") and constant.isdisjoint(node.input):
                return True
            if node.op_type in through and node.output[0] not in seen:
                seen.add(node.output[0])
                pending += onward(node)
        return False

    return sum(
        node.op_type == "Attention"
        or (
            node.op_type == "Softmax"
            and meets_product(node, above, _ABOVE)
            and meets_product(node, below, _BELOW)
        )
        for node in model.graph.node
    )


def _load_graph(graph: Path) -> ModelProto:
    """The model without external weights: the builder reads the file itself."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(graph), format="protobuf", load_external_data=False)
    except OSError as error:
        raise HiresvitError(f"cannot read {graph}: {error.strerror}") from error
    except DecodeError as error:
        raise HiresvitError(f"{graph} is not an ONNX graph: it does not decode as one") from error
    if not model.graph.output:
        raise HiresvitError(f"{graph} is not an ONNX graph: it has no outputs")
    return model


def _check_batch(graph: Path, model: ModelProto, batch: tuple[int, int, int] | None) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    dynamic = [
        (value.name, axis)
        for value in model.graph.input
        if value.name not in weights
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        if not dim.HasField("dim_value")
    ]
    for name, axis in dynamic:
        if axis != 0:
            raise UsageError(f"{graph}: axis {axis} of input {name!r} is dynamic; only axis 0 may be")
    if dynamic and batch is None:
        raise UsageError(f"{graph}: the batch axis is dynamic; give batch=(min, opt, max), as (1, 1, 8)")
    if batch is not None:
        if not dynamic:
            raise UsageError(f"{graph}: no axis is dynamic; leave batch={batch} out")
        if not 1 <= batch[0] <= batch[1] <= batch[2]:
            raise UsageError(f"batch={batch} is no profile; give 1 <= min <= opt <= max")


def _run_builder(request: dict[str, Any], on_progress: Callable[[str, float], None] | None) -> dict[str, Any]:
    """Run the child, forward its progress, and return its result or raise its error."""
    phase = "starting"
    final: dict[str, Any] = {}

    def on_line(line: str) -> None:
        nonlocal phase
        event = json.loads(line)
        if "phase" not in event:
            final.update(event)
            return
        phase = event["phase"]
        if on_progress is not None:
            on_progress(phase, event["fraction"])

    child = run_child(["-m", _BUILDER, json.dumps(request)], on_line=on_line)
    if child.returncode == 0 and "result" in final:
        return dict(final["result"])
    if "error" in final:
        raise getattr(errors, final["error"])(final["message"])
    said = "".join(f"; {line}" for line in child.stderr[-2:])
    raise BuildError(f"{request['graph']}: the TensorRT-RTX builder {child.outcome} at {phase!r}{said}")
