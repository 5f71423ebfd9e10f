"""Run an ONNX graph with ONNX Runtime: on the CPU, or on another of its execution providers where one is asked for.

ONNX Runtime computes on the CPU whatever a provider does not take, and all of it if the provider does not start, and
says neither. Here the first is a warning and the second an error.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hiresvit.errors import HiresvitError, MissingDependency, UsageError
from hiresvit.files import naming_scratch, native_path
from hiresvit.kinds import damaged_graph, no_graph, not_taken, require_graph_file
from hiresvit.runtime.runner import About, Feeds, Runner, check_feeds, check_threads, numpy_dtype
from hiresvit.spec import TensorSpec

CPU = "CPUExecutionProvider"
_SUFFIX = "executionprovider"
_OTHERS = "onnxruntime-gpu (CUDA, TensorRT), onnxruntime-openvino, onnxruntime-qnn and their like bring others"
_NOT_WHOLE = "fallback to CPU EP has been explicitly disabled"  # how a session says that the CPU would take nodes

_WARNINGS = 2
_FATAL = 4  # every error reaches the user as an exception, so that the log would only repeat it on stderr
_DTYPES = {
    **{"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(bool)": "bool"},
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def find_provider(text: str | None) -> str:
    """The execution provider that a text names: ``CUDAExecutionProvider``, ``cuda``; the CPU's for None.

    Raises UsageError for one that this ONNX Runtime was not built with.
    """
    if text is None:
        return CPU
    here: list[str] = onnxruntime.get_available_providers()
    wanted = text.lower().removesuffix(_SUFFIX)
    for name in here:
        if name.lower().removesuffix(_SUFFIX) == wanted:
            return name
    raise UsageError(
        f"ONNX Runtime has no execution provider {text!r} here, only {', '.join(here)}; in place of the package"
        f" onnxruntime, {_OTHERS}"
    )


def open_session(
    graph: str | bytes,
    *,
    threads: int | None = None,
    low_memory: bool = False,
    provider: str = CPU,
    whole: bool = False,
) -> onnxruntime.InferenceSession:
    """A session for a file's name or a graph's bytes: the one place that knows how we want one.

    ``low_memory``: what counts is the peak, so no block is kept for the next run, and what only reads a tensor runs
    as soon as that is there. ``whole``: fail if another ``provider`` than the CPU's does not take every node. Raises
    whatever ONNX Runtime raises; its exception classes share no base.
    """
    # What it says of a weight, before there is a session, goes to another log; on the CPU nothing is read from either.
    onnxruntime.set_default_logger_severity(_FATAL if provider == CPU else _WARNINGS)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    # Q/DQ as written. ONNX Runtime 1.31's rewrite of DQ-Conv-Q puts another bias in place of an FP16 one, and
    # HIRI-ViT-S answered noise (docs/int8.md). TensorRT decides for itself what it fuses.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # Else its threads spin for the next call on the cores that this one's answer needs (benchmarks/frame.py).
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if low_memory:
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", str(int(whole)))
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # The fallback of its Python layer prints on stdout and takes the CPU, when opening and also when running.
    return onnxruntime.InferenceSession(graph, options, providers=[provider], enable_fallback=0)


def _open_on(
    path: Path, name: str, provider: str, threads: int | None
) -> tuple[onnxruntime.InferenceSession, str | None]:
    """A session on another provider than the CPU's, and what is to be said of it; ``name`` is the path's native one.

    Raises MissingDependency if the provider does not start, UsageError if it takes no node, and whatever ONNX Runtime
    raises on a graph that the CPU does not take either.
    """
    with _stderr() as said:
        try:
            return open_session(name, threads=threads, provider=provider, whole=True), None
        except Exception as error:
            failed = error
        if _NOT_WHOLE in str(failed):
            session = open_session(name, threads=threads, provider=provider)
        else:
            session = open_session(name, threads=1)  # raises if the graph is at fault
            said.append(str(failed))
    if session.get_providers()[0] != provider:
        reason = next((line for line in said if "cannot open shared object" in line), said[-1] if said else "")
        raise MissingDependency(
            f"ONNX Runtime's {provider} does not start here ({_first_line(reason) or 'it gives no reason'}); see"
            " what it needs in its documentation, or leave it out to run on the CPU"
        )
    return session, _share_taken(path, session, provider)


def _share_taken(path: Path, session: onnxruntime.InferenceSession, provider: str) -> str:
    """What to say of a provider that did not take the whole graph. Raises UsageError if it took nothing."""
    if not hasattr(session, "get_provider_graph_assignment_info"):  # before ONNX Runtime 1.24
        return f"{provider} took only a part of the graph or none; the CPU computes the rest"
    parts = session.get_provider_graph_assignment_info()
    taken = sum(len(part.get_nodes()) for part in parts if part.ep_name == provider)
    others = [node.op_type for part in parts if part.ep_name != provider for node in part.get_nodes()]
    if not taken:
        raise UsageError(
            f"{path}: {provider} takes none of its {len(others)} nodes, the CPU would compute them all; leave it out"
        )
    kinds = ", ".join(sorted(set(others)))
    return f"{provider} took only {taken} of {taken + len(others)} nodes; the CPU computes the rest ({kinds})"


@contextmanager
def _stderr() -> Iterator[list[str]]:
    """Catch what native code writes on stderr; the lines are there when the body is left.

    Why a provider does not start stands in ONNX Runtime's log and nowhere else.
    """
    said: list[str] = []
    with naming_scratch(), tempfile.TemporaryFile() as caught:
        try:
            before = os.dup(2)
        except OSError:  # stderr is closed: nobody reads it
            yield said
            return
        os.dup2(caught.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            said[:0] = [line for line in caught.read().decode(errors="replace").splitlines() if line.strip()]


class OnnxRuntimeRunner(Runner):
    """An ONNX graph with every graph optimisation on; ``detail`` names an execution provider (see `find_provider`).

    Raises HiresvitError if the file is missing, IllegalGraphError if ONNX Runtime cannot load it, MissingDependency
    for a provider that does not start, and UsageError for ``threads`` under 1, a provider that is not there or takes
    nothing of the graph, or a graph whose inputs or outputs are not numeric tensors.
    """

    def __init__(self, path: Path, *, threads: int | None = None, detail: str | None = None) -> None:
        check_threads(threads)
        provider, note = find_provider(detail), None
        require_graph_file(path)
        try:
            with native_path(path) as name:
                if provider == CPU:
                    session = open_session(name, threads=threads)
                else:
                    session, note = _open_on(path, name, provider, threads)
        except HiresvitError:
            raise
        except Exception as error:  # its exception classes share no base
            if damaged := damaged_graph(path, str(error)):
                raise damaged from error
            raise not_taken(path, "ONNX Runtime", _first_line(error)) from error
        device = "CPU" if provider == CPU else provider
        self.about = About("ONNX Runtime", str(onnxruntime.__version__), device, threads)
        self.warnings = (note,) if note else ()
        try:
            self.metadata = dict(session.get_modelmeta().custom_metadata_map)
            self.inputs = tuple(tensor_spec(node, path) for node in session.get_inputs())
            self.outputs = tuple(tensor_spec(node, path) for node in session.get_outputs())
        except UnicodeDecodeError as error:
            raise no_graph(path, "names or metadata in it are no text; copy it anew or export it again") from error
        self._path = path
        self._session: onnxruntime.InferenceSession | None = session

    def __call__(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        if self._session is None:
            raise UsageError(f"{self._path}: the runner is closed; open it again")
        check_feeds(feeds, self.inputs)
        names = [spec.name for spec in self.outputs]
        try:
            values = self._session.run(names, dict(feeds))
        except Exception as error:
            raise HiresvitError(f"{self._path}: ONNX Runtime failed on this input ({_first_line(error)})") from error
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def close(self) -> None:
        self._session = None


def tensor_spec(node: onnxruntime.NodeArg, path: Path) -> TensorSpec:
    """An input or output of a session. Raises UsageError, about the file, for what numpy cannot hold."""
    shape = tuple(size if size is not None else f"{node.name}_{axis}" for axis, size in enumerate(node.shape))
    return TensorSpec(node.name, numpy_dtype(node.type, _DTYPES, path, node.name), shape)


def _first_line(error: Exception | str) -> str:
    return str(error).strip().split("\n", 1)[0]
