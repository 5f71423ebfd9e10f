"""Graph simplification: onnxsim in a child process, then our rewrites, kept only if the numbers stay the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hiresvit.errors import HiresvitError
from hiresvit.export.rewrites import rewrite
from hiresvit.files import scratch_folder
from hiresvit.graph.file import load_graph
from hiresvit.process import run_child
from hiresvit.runtime.onnxruntime_runner import open_session

# Folding constants reorders a few float32 operations; anything beyond that is a wrong graph. Relative to the
# largest output: reordering costs about 1e-6, a lost bias or a swapped axis 1e-2 and more.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class SimplifyReport:
    """Node counts before and after; ``rolled_back`` says why the graph was left as it was, if it was."""

    nodes_before: int
    nodes_after: int
    rolled_back: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def simplify(model: onnx.ModelProto) -> tuple[onnx.ModelProto, SimplifyReport]:
    """Return a simpler graph with the same inputs, outputs and numbers, and what became of it.

    onnxsim is native code that has crashed on valid graphs and has changed their numbers, so it runs in a child
    process and its result is run beside the original on two inputs, a dynamic axis once as 1 and once as 2. A
    crash, an invalid graph, another input or output, or a difference above `TOLERANCE` (NaN included) means that
    the original comes back, with the reason in the report.
    """
    before = len(model.graph.node)
    try:
        simple = rewrite(_onnxsim(model))
        onnx.checker.check_model(simple, full_check=True)
        if _interface(simple) != _interface(model):
            raise _SimplifyFailed("onnxsim changed the graph's inputs or outputs")
        difference = _difference(model, simple)
    except (_SimplifyFailed, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        return model, SimplifyReport(before, before, reason)
    if not difference <= TOLERANCE:
        return model, SimplifyReport(before, before, f"the outputs moved by {difference:.1e} of their largest value")
    return simple, SimplifyReport(before, len(simple.graph.node), None)


class _SimplifyFailed(Exception):  # noqa: N818
    """The child died, or its graph does not run."""


def _onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    with scratch_folder() as folder:
        source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
        onnx.save(model, source)
        result = run_child(["-m", "hiresvit.export._simplify_child", str(source), str(target)])
        if result.returncode != 0 or not target.exists():
            raise _SimplifyFailed(f"onnxsim {result.outcome}: {result.stderr[-1] if result.stderr else 'no message'}")
        try:
            simple = load_graph(target, weights=True)
        except HiresvitError as error:
            raise _SimplifyFailed("onnxsim wrote a file that is not an ONNX graph") from error
    simple.producer_name, simple.producer_version = model.producer_name, model.producer_version
    del simple.metadata_props[:]
    simple.metadata_props.extend(model.metadata_props)
    simple.graph.name = model.graph.name
    return simple


def _interface(model: onnx.ModelProto) -> list[tuple[str, bytes]]:
    """Names and types of the inputs and outputs, in order."""
    values = (*model.graph.input, *model.graph.output)
    return [(value.name, value.type.SerializeToString(deterministic=True)) for value in values]


def _difference(reference: onnx.ModelProto, test: onnx.ModelProto) -> float:
    """The largest difference over all outputs, relative to each output's largest value."""
    found = []
    feeds = [_feeds(reference, seed) for seed in range(2)]
    for before, after in zip(_run(reference, feeds), _run(test, feeds), strict=True):
        for a, b in zip(before, after, strict=True):
            if a.shape != b.shape:
                raise _SimplifyFailed(f"an output changed its shape from {a.shape} to {b.shape}")
            scale = float(np.abs(a).max()) or 1.0
            with np.errstate(invalid="ignore"):  # inf - inf
                found.append(float(np.abs(a - b).max()) / scale)
    return float(np.max(found))  # unlike max(), NaN if any of them is


def _feeds(model: onnx.ModelProto, seed: int) -> dict[str, NDArray[np.float32]]:
    """Noise; a dynamic axis is ``seed + 1`` long, so that one that was frozen does not pass."""
    generator = np.random.default_rng(seed)
    return {
        value.name: generator.standard_normal(
            [dim.dim_value or seed + 1 for dim in value.type.tensor_type.shape.dim], dtype=np.float32
        )
        for value in model.graph.input
    }


def _run(model: onnx.ModelProto, feeds: list[dict[str, NDArray[np.float32]]]) -> list[list[NDArray[Any]]]:
    try:
        session = open_session(model.SerializeToString())
        return [session.run(None, feed) for feed in feeds]
    except Exception as error:  # its exception classes share no base
        raise _SimplifyFailed(f"ONNX Runtime refuses the graph: {error}") from error
