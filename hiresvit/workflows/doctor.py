"""What is installed, what works here when it is tried, and what to install for the rest."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from hiresvit.device import cuda
from hiresvit.device.platform import PLATFORMS, Platform, find_platform, package_version, this_platform
from hiresvit.device.power.find import look_for_meters
from hiresvit.device.power.meter import Meter
from hiresvit.device.qnn_api import PACKAGE, emulated, qairt_version, why_not
from hiresvit.device.tensorrt_api import BACKENDS, INSTALL_HINT, TITLES, Backend, installed
from hiresvit.errors import HiresvitError, MissingDependency, install_line, missing_extra, refused
from hiresvit.files import scratch_folder
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.openvino_runner import INSTALL_HINT as INSTALL_OPENVINO
from hiresvit.version import __version__

_SYSTEM = "TensorRT is the system's own: make the environment with python3 -m venv --system-site-packages"
_NO_RTX = "not for Jetson, which builds and runs plans with its own TensorRT"
_BINDINGS = f"{cuda.BINDINGS_13} (for a driver of CUDA 12: {cuda.BINDINGS_12})"
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
        "tensorrt": f"pip install tensorrt; {_BINDINGS}",
        "tensorrt_rtx": f"a GPU of the RTX 30 series or later; {INSTALL_HINT}; {_BINDINGS}",
    },
    "cpu": {"tensorrt": _NO_GPU, "tensorrt_rtx": _NO_GPU},
}

# `tensorrt` is the system's own on a Jetson, `dev` is for working on hiresvit itself.
_SHOWN_EXTRAS = (None, "export", "openvino", "qnn", "rtx", "cuda", "sweep")
_EXPORT_HINT = f"not needed to run what was exported; to export, check and calibrate: {install_line('export')}"

# y = Relu(x) of float32 (1, 4), opset 20: written out, since onnx need not be here (tests/workflows/test_doctor.py).
ONE_NODE = bytes.fromhex(
    "08093a420a0c0a0178120179220452656c7512086f6e655f6e6f64655a130a0178120e0a0c080112080a0208010a0208"
    "0462130a0179120e0a0c080112080a0208010a02080442040a001014"
)


def examine() -> dict[str, Any]:
    """Look at the machine, the libraries and each runtime, as plain JSON values; takes a few seconds.

    ``libraries`` are the dependencies that the package declares: the version that is here (None: none), what is wanted,
    and the extra that asks for it. ``abilities`` are what hiresvit can do if they work; ``hint`` says how to get it
    where they do not. ``power`` are the sources of power, the best first, with their rails or why they have none. A
    runtime counts as working when it has run, or built, a graph of one node here. What is missing
    raises nothing: that is the finding.
    """
    return {
        "machine": {
            "hiresvit": __version__,
            "python": platform.python_version(),
            "system": this_platform(),
            "cpus": len(os.sched_getaffinity(0)),
            "platform": PLATFORMS[find_platform()],
        },
        "libraries": _libraries(),
        "abilities": _abilities(),
        "power": [_power(name, found) for name, found in look_for_meters().items()],
    }


def _power(name: str, found: Meter | str) -> dict[str, Any]:
    detail = found if isinstance(found, str) else f"{found.measures}: {', '.join(found.rails)}"
    return {"name": name, "works": isinstance(found, Meter), "detail": detail}


def missing(found: dict[str, Any]) -> MissingDependency | None:
    """The error for what hiresvit cannot do without, if any of it is missing."""
    lost = [row for row in found["abilities"] if row["required"] and not row["works"]]
    if not lost:
        return None
    return MissingDependency("; ".join(f"{row['name']} does not work here: {row['hint']}" for row in lost))


def _libraries() -> list[dict[str, Any]]:
    try:
        declared = metadata.requires("hiresvit") or []
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        declared = []
    libraries = []
    for line in declared:
        requirement, _, marker = line.partition(";")
        name, wanted = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement.strip()).groups()  # type: ignore[union-attr]
        older = re.search(r"python_version < ['\"](\d+)\.(\d+)", marker)
        if older and sys.version_info >= (int(older[1]), int(older[2])):
            continue  # this Python has that itself
        extra = re.search(r"extra == ['\"](\w+)", marker)
        row = {"name": name, "version": package_version(name), "wanted": wanted, "extra": extra[1] if extra else None}
        libraries.append(row)
    return [row for row in libraries if row["extra"] in _SHOWN_EXTRAS]


def _abilities() -> list[dict[str, Any]]:
    again = "install it again: pip install --force-reinstall onnxruntime"
    here = find_platform()
    with scratch_folder() as folder:
        graph = Path(folder, "one_node.onnx")
        graph.write_bytes(ONE_NODE)
        rows = [
            _try("PyTorch, CPU", _try_torch, _EXPORT_HINT),
            _try("ONNX graphs, make and check", _try_onnx, _EXPORT_HINT),
            _try("ONNX Runtime, CPU", partial(_try_graph, graph, "onnxruntime"), again, required=True),
            *_try_providers(graph),
            _try("OpenVINO, CPU", partial(_try_graph, graph, "openvino"), INSTALL_OPENVINO),
            _try(
                f"Qualcomm HTP{', emulated' * emulated()}", partial(_try_htp, graph), why_not() or install_line("qnn")
            ),
        ]
        for backend in reversed(BACKENDS):
            name, building = TITLES[backend], partial(_try_build, graph, backend)
            rows.append(_try(f"{name}, build plans", building, BUILD_HINTS[here][backend]))
            running = partial(_try_run, graph, rows[-1])
            rows.append(_try(f"{name}, run plans", running, RUN_HINTS[here][backend]))
        return rows


def _try(name: str, attempt: Callable[[], str], hint: str, *, required: bool = False) -> dict[str, Any]:
    try:
        works, detail = True, attempt()
    except Exception as error:  # a broken native library raises about anything
        wants = missing_extra(error)
        works, detail = False, " ".join(str(wants or refused(error) or error).split()) or type(error).__name__
        if wants and hint != _EXPORT_HINT:  # whatever else it needs, this it needs first
            hint = install_line("export")
        detail = detail.removesuffix(hint).removesuffix(install_line("export")).rstrip(" :")  # which is said beside it
    return {"name": name, "works": works, "required": required, "detail": detail, "hint": None if works else hint}


def _try_torch() -> str:
    import torch

    torch.ones(2, 2) @ torch.ones(2, 2)  # the first call of the matrix library
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _try_onnx() -> str:
    import onnx

    for name in ("onnxscript", "onnxsim"):  # PyTorch's exporter writes with the first
        importlib.import_module(name)
    onnx.checker.check_model(ONE_NODE)
    return f"onnx {onnx.__version__}"


def _try_htp(graph: Path) -> str:
    return f"{PACKAGE} {_try_graph(graph, 'qnn')}, QAIRT {qairt_version()}"


def _try_graph(graph: Path, runner: str) -> str:
    try:
        with open_runner(graph, runner=runner) as opened:
            answer = opened({"x": np.ones((1, 4), np.float32)})["y"]
            if not np.allclose(answer, 1, rtol=0, atol=1e-3):  # half precision, where that is all there is
                raise HiresvitError(f"Relu(1) is {answer.tolist()} there")
            # an older ONNX Runtime cannot say which nodes a provider took
            if opened.warnings and not opened.about.emulated:
                raise HiresvitError("; ".join(opened.warnings))
            return opened.about.version
    except HiresvitError as error:
        raise HiresvitError(str(error).removeprefix(f"{graph}: ")) from error  # nobody knows that file


def _try_providers(graph: Path) -> list[dict[str, Any]]:
    """A row for each of ONNX Runtime's execution providers but the CPU's; none without ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError:
        return []
    hint = "what it needs is in ONNX Runtime's documentation; without it graphs run on the CPU"
    return [
        _try(f"ONNX Runtime, {name}", partial(_try_graph, graph, f"onnxruntime:{name}"), hint)
        for name in onnxruntime.get_available_providers()
        if name != "CPUExecutionProvider"
    ]


def _try_build(graph: Path, backend: Backend) -> str:
    if not installed(backend):
        raise MissingDependency("not installed")
    from hiresvit.engine.build import BuildSettings, build_engine

    report = build_engine(graph, graph.with_suffix(".plan"), BuildSettings(backend=backend))
    return f"{report.version}, {f'on {report.device}' if report.device else 'needs no GPU'}"


def _try_run(graph: Path, built: dict[str, Any]) -> str:
    """Run the plan that was just built, which asks for a CUDA binding and a GPU first."""
    if not built["works"]:
        raise MissingDependency(f"not tried, for want of a plan: {built['detail']}")
    _try_graph(graph.with_suffix(".plan"), "tensorrt")
    return "a plan of one node gives the right answer"
