"""What is installed, what works here when it is tried, and what to install for the rest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hiresvit.device import cuda
from hiresvit.device.plan import this_platform
from hiresvit.device.tensorrt_api import BACKENDS, INSTALL_HINT, TITLES, Backend, installed
from hiresvit.errors import HiresvitError, MissingDependency
from hiresvit.runtime.open import open_runner
from hiresvit.version import __version__

Platform = Literal["jetpack6", "jetpack7", "nvidia", "cpu"]
PLATFORMS: dict[Platform, str] = {
    "jetpack6": "Jetson with JetPack 6 (TensorRT 10.3, CUDA 12.6)",
    "jetpack7": "Jetson with JetPack 7 (TensorRT 10.13 or later, CUDA 13)",
    "nvidia": "NVIDIA GPU with a driver",
    "cpu": "no NVIDIA GPU",
}

_SYSTEM = "TensorRT is the system's own: make the environment with python3 -m venv --system-site-packages"
_NO_RTX = "not for Jetson, which builds and runs plans with its own TensorRT"
_NO_GPU = "plans need an NVIDIA GPU: ONNX Runtime runs the .onnx graphs here; run plans on the device"
BUILD_HINTS: dict[Platform, dict[Backend, str]] = {
    "jetpack6": {"tensorrt": _SYSTEM, "tensorrt_rtx": _NO_RTX},
    "jetpack7": {"tensorrt": _SYSTEM, "tensorrt_rtx": _NO_RTX},
    "nvidia": {"tensorrt": "pip install tensorrt", "tensorrt_rtx": INSTALL_HINT},
    "cpu": {
        "tensorrt": "TensorRT builds on the GPU that runs the plan: build there, or build with TensorRT-RTX here",
        "tensorrt_rtx": INSTALL_HINT,
    },
}
RUN_HINTS: dict[Platform, dict[Backend, str]] = {
    "jetpack6": {"tensorrt": f"{_SYSTEM}; {cuda.BINDINGS_12}", "tensorrt_rtx": _NO_RTX},
    "jetpack7": {"tensorrt": f"{_SYSTEM}; {cuda.BINDINGS_13}", "tensorrt_rtx": _NO_RTX},
    "nvidia": {
        "tensorrt": f"pip install tensorrt; {cuda.BINDINGS_13} (for a driver of CUDA 12: {cuda.BINDINGS_12})",
        "tensorrt_rtx": f"a GPU of the RTX 30 series or later; {INSTALL_HINT}; {cuda.BINDINGS_13} (for a driver of"
        f" CUDA 12: {cuda.BINDINGS_12})",
    },
    "cpu": {"tensorrt": _NO_GPU, "tensorrt_rtx": _NO_GPU},
}

# `tensorrt` is the system's own on a Jetson, `dev` is for working on hiresvit itself.
_SHOWN_EXTRAS = (None, "rtx", "cuda")


@dataclass(frozen=True)
class Library:
    """A dependency: the version that is here (None: none), what is wanted, and the extra that asks for it."""

    name: str
    version: str | None
    wanted: str
    extra: str | None


@dataclass(frozen=True)
class Ability:
    """Something hiresvit can do if its libraries work; ``hint`` says how to get it where they do not."""

    name: str
    works: bool
    required: bool
    detail: str
    hint: str | None


def examine() -> dict[str, Any]:
    """Look at the machine, the libraries and each runtime, as plain JSON values; takes a few seconds.

    A runtime counts as working when it has run, or built, a graph of one node here. What is missing raises
    nothing: that is the finding.
    """
    return {
        "machine": {
            "hiresvit": __version__,
            "python": platform.python_version(),
            "system": this_platform(),
            "cpus": len(os.sched_getaffinity(0)),
            "platform": PLATFORMS[find_platform()],
        },
        "libraries": [asdict(library) for library in _libraries()],
        "abilities": [asdict(ability) for ability in _abilities()],
    }


def missing(found: dict[str, Any]) -> MissingDependency | None:
    """The error for what hiresvit cannot do without, if any of it is missing."""
    lost = [row for row in found["abilities"] if row["required"] and not row["works"]]
    if not lost:
        return None
    return MissingDependency("; ".join(f"{row['name']} does not work here: {row['hint']}" for row in lost))


def _libraries() -> list[Library]:
    """The dependencies that the installed package declares."""
    try:
        declared = importlib.metadata.requires("hiresvit") or []
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was never installed
        declared = []
    libraries = []
    for line in declared:
        requirement, _, marker = line.partition(";")
        name, wanted = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement.strip()).groups()  # type: ignore[union-attr]
        extra = re.search(r"extra == ['\"](\w+)", marker)
        libraries.append(Library(name, _version(name), wanted, extra[1] if extra else None))
    return [library for library in libraries if library.extra in _SHOWN_EXTRAS]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_platform() -> Platform:
    """What this machine is, by the files that NVIDIA's systems and drivers have; nothing is loaded for it."""
    release = cuda.jetson_release()
    if release is None:
        return "nvidia" if cuda.has_driver() else "cpu"
    return "jetpack7" if release >= cuda.JETPACK_7 else "jetpack6"


def _abilities() -> list[Ability]:
    again = "install hiresvit again: pip install --force-reinstall hiresvit"
    here = find_platform()
    with tempfile.TemporaryDirectory(prefix="hiresvit-") as folder:
        graph = Path(folder, "one_node.onnx")
        rows = [
            _try("PyTorch, CPU", _try_torch, required=True, hint=again),
            _try("ONNX Runtime, CPU", lambda: _try_onnxruntime(graph), required=True, hint=again),
        ]
        for backend in reversed(BACKENDS):
            building = partial(_try_build, graph, backend)
            name = TITLES[backend]
            rows.append(
                _try(f"{name}, build plans", building, required=False, hint=BUILD_HINTS[here][backend])
            )
            running = partial(_try_run, graph, backend, rows[-1].works)
            rows.append(_try(f"{name}, run plans", running, required=False, hint=RUN_HINTS[here][backend]))
        return rows


def _try(name: str, attempt: Callable[[], str], *, required: bool, hint: str) -> Ability:
    try:
        return Ability(name, True, required, attempt(), None)
    except Exception as error:  # a broken native library raises about anything
        reason = " ".join(str(error).split()) or type(error).__name__
        return Ability(name, False, required, reason, hint)


def _try_torch() -> str:
    import torch

    torch.ones(2, 2) @ torch.ones(2, 2)  # the first call of the matrix library
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _try_onnxruntime(graph: Path) -> str:
    import numpy as np
    import onnxruntime

    _write_one_node(graph)
    with open_runner(graph) as runner:
        runner({"x": np.ones((1, 4), np.float32)})
    return str(onnxruntime.__version__)


def _try_build(graph: Path, backend: Backend) -> str:
    from hiresvit.engine.build import BuildSettings, build_engine

    if not installed(backend):
        raise MissingDependency("not installed")
    _write_one_node(graph)
    report = build_engine(graph, graph.with_suffix(".plan"), BuildSettings(backend=backend))
    return f"{report.version}, {f'on {report.device}' if report.device else 'needs no GPU'}"


def _try_run(graph: Path, backend: Backend, built: bool) -> str:
    """Run the plan that was just built, which asks for a CUDA binding and a GPU first."""
    import numpy as np

    if not built:
        raise MissingDependency("there is no plan to try it with")
    plan = graph.with_suffix(".plan")
    try:
        with open_runner(plan) as runner:
            answer = runner({"x": np.ones((1, 4), np.float32)})
    except HiresvitError as error:
        raise HiresvitError(str(error).removeprefix(f"{plan}: ")) from error  # nobody knows that file
    if not np.array_equal(answer["y"], np.ones((1, 4), np.float32)):
        raise HiresvitError(f"the plan of Relu(1) answers {answer['y'].tolist()}")
    return "a plan of one node gives the right answer"


def _write_one_node(graph: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one_node", sides[:1], sides[1:])
    onnx.save(helper.make_model(body, ir_version=9, opset_imports=[helper.make_opsetid("", 20)]), graph)
