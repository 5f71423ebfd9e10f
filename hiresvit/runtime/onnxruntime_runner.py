"""Run an ONNX graph with ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.files import no_graph, require_graph_file
from hiresvit.runtime.runner import check_feeds, check_threads
from hiresvit.spec import TensorSpec

_FATAL = 4  # every error reaches the user as an exception, so that the log would only repeat it on stderr
_NO_GRAPH = {  # what it says of a file that is none, and what we do
    "Protobuf parsing failed": "it does not decode as one",
    "No graph was found in the protobuf": "it has no outputs",
}
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def open_session(
    graph: str | bytes, *, threads: int | None = None, low_memory: bool = False
) -> onnxruntime.InferenceSession:
    """A session on the CPU for a file's name or a graph's bytes: the one place that knows how we want one.

    ``low_memory``: what counts is the peak, so no block is kept for the next run, and what only reads a tensor runs
    as soon as that is there. Raises whatever ONNX Runtime raises; its exception classes share no base.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    # Q/DQ as written. ONNX Runtime 1.31's rewrite of DQ-Conv-Q puts another bias in place of an FP16 one, and
    # HIRI-ViT-S answered noise (docs/int8.md). TensorRT decides for itself what it fuses.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if low_memory:
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class OnnxRuntimeRunner:
    """An ONNX graph on the CPU execution provider, with every graph optimisation on.

    Raises HiresvitError if the file is missing or no graph, ArtefactError if ONNX Runtime cannot load it, and
    UsageError for ``threads`` under 1 or a graph whose inputs or outputs are not numeric tensors.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        check_threads(threads)
        require_graph_file(path)
        try:
            session = open_session(str(path), threads=threads)
        except Exception as error:  # its exception classes share no base
            for said, reason in _NO_GRAPH.items():
                if said in str(error):
                    raise no_graph(path, reason) from error
            raise ArtefactError(
                f"{path}: ONNX Runtime cannot load it ({_first_line(error)}); the file is damaged or uses"
                " operators that this ONNX Runtime lacks, export it again"
            ) from error
        self.inputs = tuple(_spec(node, path) for node in session.get_inputs())
        self.outputs = tuple(_spec(node, path) for node in session.get_outputs())
        self._path = path
        self._session: onnxruntime.InferenceSession | None = session

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once. Raises UsageError if the feeds do not fit, HiresvitError if the graph fails on them."""
        if self._session is None:
            raise UsageError(f"{self._path}: the runner is closed; open it again")
        check_feeds(feeds, self.inputs)
        names = [spec.name for spec in self.outputs]
        try:
            values = self._session.run(names, dict(feeds))
        except Exception as error:
            raise HiresvitError(
                f"{self._path}: ONNX Runtime failed on this input ({_first_line(error)})"
            ) from error
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def __enter__(self) -> OnnxRuntimeRunner:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _spec(node: onnxruntime.NodeArg, path: Path) -> TensorSpec:
    if node.type not in _DTYPES:
        raise UsageError(
            f"{path}: {node.name!r} is {node.type}; only {', '.join(_DTYPES)} can be fed from numpy"
        )
    shape = tuple(size if size is not None else f"{node.name}_{axis}" for axis, size in enumerate(node.shape))
    return TensorSpec(node.name, _DTYPES[node.type], shape)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
