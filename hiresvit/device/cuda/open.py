"""CUDA through whichever binding is here."""

from __future__ import annotations

import importlib.util

from hiresvit.device.cuda import BINDINGS, NO_GPU, Binding, Cuda, driver_api, install_hint, runtime_api
from hiresvit.device.platform import has_driver
from hiresvit.errors import MissingDependency, UsageError

_MODULES: dict[Binding, str] = {"cuda-bindings": "cuda.bindings", "pycuda": "pycuda"}


def installed() -> tuple[Binding, ...]:
    """The bindings that are here, the better one first. Imports neither."""
    return tuple(binding for binding in BINDINGS if _is_installed(_MODULES[binding]))


def open_cuda(binding: str | None = None) -> Cuda:
    """CUDA through a binding (default: the first that is installed), after asking it for a GPU.

    TensorRT may crash where CUDA does not work, so this comes before anything of TensorRT that can run a plan.
    Raises UsageError for an unknown name, MissingDependency without the binding, a driver or a GPU.
    """
    here = installed()
    if binding is None:
        if not here:
            raise MissingDependency(f"no CUDA binding is installed: {install_hint()}" if has_driver() else NO_GPU)
        binding = here[0]
    if binding not in BINDINGS:
        raise UsageError(f"CUDA binding {binding!r}: one of {', '.join(BINDINGS)}")
    if binding not in here:
        how = install_hint() if binding == "cuda-bindings" else "pip install pycuda"
        raise MissingDependency(f"{binding} is not installed: {how}")
    return runtime_api.open_api() if binding == "cuda-bindings" else driver_api.open_api()


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False
