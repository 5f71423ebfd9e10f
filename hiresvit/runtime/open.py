"""Open a graph or a plan: the one table of the backends that can, and the choice of one."""

from __future__ import annotations

import importlib
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hiresvit.device.chips import DEFAULT_FLOAT, Chip, find_chip
from hiresvit.device.plan import SUFFIXES
from hiresvit.device.qnn_context import OPERATOR
from hiresvit.errors import UsageError
from hiresvit.files import naming_source
from hiresvit.runtime.runner import Runner
from hiresvit.wire import nodes_and_metadata


@dataclass(frozen=True)
class Backend:
    """One row: what opens the files of some suffixes, and how.

    ``runner`` is a class of this package's ``module``, imported with the first file. ``options`` are what it takes
    beside the path, of ``threads``, ``cuda_graph`` and ``detail``: what may follow the name after a colon, as
    ``detail`` explains.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    runner: str
    options: tuple[str, ...]
    detail: str = ""


# Of two that open one suffix the first is taken where none is named.
BACKENDS = (
    Backend("onnxruntime", (".onnx",), "onnxruntime_runner", "OnnxRuntimeRunner", ("threads", "detail"), "[:PROVIDER]"),
    Backend("openvino", (".onnx",), "openvino_runner", "OpenVinoRunner", ("threads", "detail"), "[:bf16]"),
    Backend("qnn", (".onnx",), "qnn_runner", "QnnRunner", ("detail",), "[:CHIP]"),
    Backend("tensorrt", SUFFIXES, "tensorrt_runner", "TensorRTRunner", ("cuda_graph",)),
)
_MISPLACED = {
    "threads": "threads {} are for a graph on the CPU; leave them out for a plan and for the HTP",
    "cuda_graph": "a CUDA graph is for a plan on a GPU; leave the option out for an .onnx graph",
    "detail": "{!r} is nothing that this runner can be told; leave it out",
}


def find_backend(path: Path, runner: str | None = None) -> tuple[Backend, str | None]:
    """The backend for a file, and what was said after its name: ``onnxruntime:cuda`` gives ``cuda``.

    ``runner`` is None for the first that opens the suffix, which of a compiled context is Qualcomm's library. Raises
    UsageError for an unknown name, and for a suffix that it, or none, opens.
    """
    name, colon, detail = (runner or "").partition(":")
    if name.lower() != "qnn" and not detail and _is_context(path):
        if runner is not None:
            raise UsageError(f"{path} is a context for Qualcomm's HTP; {runner} does not open it: leave --runner out")
        runner = name = "qnn"
    named = [row for row in BACKENDS if runner is None or row.name == name.lower()]
    if not named:
        known = ", ".join(row.name + row.detail for row in BACKENDS)
        raise UsageError(f"runner {runner!r}: one of {known}; `hiresvit doctor` says which work here")
    for row in named:
        if path.suffix.lower() in row.suffixes:
            return row, detail if colon else None
    if runner is None:
        raise UsageError(f"{path}: no runtime for the suffix {path.suffix!r}; give an .onnx graph or a .plan")
    raise UsageError(f"{path}: {name} opens {' and '.join(named[0].suffixes)}; leave the runner out or give another")


def chip_of_runner(runner: str | None) -> Chip | None:
    """The chip of ``qnn:CHIP``, and for ``qnn`` the one that a graph in floating point is for; None for another runner.

    Raises UsageError for an unknown chip.
    """
    name, _, chip = (runner or "").partition(":")
    if name.lower() != "qnn":
        return None
    return find_chip(chip) if chip else DEFAULT_FLOAT


def _is_context(path: Path) -> bool:
    """Whether it is the ONNX file of a compiled context, whatever the CPU computes beside it."""
    if path.suffix.lower() != ".onnx" or not path.is_file() or not path.stat().st_size:
        return False
    with (
        naming_source(path),
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        if data.find(OPERATOR.encode()) < 0:  # nearly every graph, without a look at its nodes
            return False
    return any(operator == OPERATOR for operator, _ in nodes_and_metadata(path)[0])


def open_runner(
    path: Path, *, runner: str | None = None, threads: int | None = None, cuda_graph: bool = False
) -> Runner:
    """Load a graph (.onnx) on the CPU, or a plan (.plan, .engine) on an NVIDIA GPU.

    ``runner`` is a backend's name: for a graph ``onnxruntime`` (default), which takes one of its execution providers
    after a colon as ``onnxruntime:CUDAExecutionProvider``, ``openvino``, which computes in FP32 or as
    ``openvino:bf16`` in bfloat16, or ``qnn``, which takes a chip as ``qnn:ar1``; for a plan ``tensorrt``. ``threads``
    is the most a graph may use (default: the runtime's choice); ``cuda_graph`` launches a plan's kernels as one.

    Raises UsageError for another suffix or name, an option that does not apply and ``threads`` under 1,
    HiresvitError for a missing or damaged graph, IllegalGraphError for one that its runtime does not take,
    ArtefactError for a plan that is damaged or does not fit this machine, MissingDependency for a backend, a provider
    or a device that is not here.
    """
    path = Path(path)
    backend, detail = find_backend(path, runner)
    given: dict[str, Any] = {"threads": threads, "cuda_graph": cuda_graph or None, "detail": detail}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in backend.options:
            raise UsageError(f"{path}: {_MISPLACED[name].format(value)}")
    module = importlib.import_module(f"hiresvit.runtime.{backend.module}")
    return cast(Runner, getattr(module, backend.runner)(path, **given))
