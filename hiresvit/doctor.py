"""What is installed, what works here when it is tried, and what to install for the rest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hiresvit.errors import MissingDependency
from hiresvit.export.engine import INSTALL_HINT, build_engine
from hiresvit.runtime.runner import open_runner
from hiresvit.version import __version__

# `tensorrt` is the system's own on a Jetson, `dev` is for working on hiresvit itself.
_SHOWN_EXTRAS = (None, "rtx")


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
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": len(os.sched_getaffinity(0)),
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


def _abilities() -> list[Ability]:
    again = "install hiresvit again: pip install --force-reinstall hiresvit"
    with tempfile.TemporaryDirectory(prefix="hiresvit-") as folder:
        graph = Path(folder, "one_node.onnx")
        return [
            _try("PyTorch, CPU", _try_torch, required=True, hint=again),
            _try("ONNX Runtime, CPU", lambda: _try_onnxruntime(graph), required=True, hint=again),
            _try("TensorRT-RTX, build plans", lambda: _try_rtx(graph), required=False, hint=INSTALL_HINT),
            _trtexec(),
        ]


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


def _try_rtx(graph: Path) -> str:
    _write_one_node(graph)
    report = build_engine(graph, graph.with_suffix(".plan"))
    return f"{report.version}, needs no GPU"


def _write_one_node(graph: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one_node", sides[:1], sides[1:])
    onnx.save(helper.make_model(body, ir_version=9, opset_imports=[helper.make_opsetid("", 20)]), graph)


def _trtexec() -> Ability:
    """Plans are not run by hiresvit itself yet; TensorRT's own program does it where there is a GPU."""
    found = shutil.which("trtexec")
    detail = f"with {found}" if found else "trtexec is not on the PATH; hiresvit has no TensorRT runner yet"
    hint = None if found else "on the device: TensorRT with trtexec (JetPack has it)"
    return Ability("TensorRT, run plans", found is not None, False, detail, hint)
