"""Qualcomm's HTP library, the package ``onnxruntime_qnn``: whether it is here, and if not, why it cannot be.

It is an extra that the user installs: Qualcomm's licence stands on its libraries, and we ship nothing of them.
"""

from __future__ import annotations

import importlib.util
import platform

from hiresvit.device.platform import package_version
from hiresvit.errors import MissingDependency, install_line

PACKAGE = "onnxruntime-qnn"
PROVIDER = "QNNExecutionProvider"
COMPATIBILITY = f"ep_compatibility_info.{PROVIDER}"
"""What a context's ONNX file says of it: ``v2:backend:SDK:API:arch:soc_model:vtcm:driver``."""
_MACHINES = ("x86_64", "aarch64", "AMD64", "ARM64")


def installed() -> bool:
    """Whether the package is here; imports nothing."""
    return importlib.util.find_spec("onnxruntime_qnn") is not None


def installed_version() -> str | None:
    """The package's version, None where it is not here."""
    return package_version(PACKAGE) if installed() else None


def emulated() -> bool:
    """Whether what runs here is Qualcomm's emulator: on x86-64 there is no HTP."""
    return platform.machine() in ("x86_64", "AMD64")


def require_library() -> None:
    """Raise MissingDependency, with the reason and what to do, unless the package is here."""
    if installed():
        return
    if tuple(map(int, platform.python_version_tuple()[:2])) < (3, 11):
        raise MissingDependency(
            f"Qualcomm's compiler needs Python 3.11 or later, this is {platform.python_version()}: make the environment"
            " with a newer Python"
        )
    if platform.machine() not in _MACHINES or platform.system() not in ("Linux", "Windows"):
        raise MissingDependency(
            f"there is no {PACKAGE} for {platform.system()} on {platform.machine()}: Linux and Windows on x86-64 and"
            " arm64 have one"
        )
    raise MissingDependency(f"Qualcomm's compiler is not installed: {install_line('qnn')}")
