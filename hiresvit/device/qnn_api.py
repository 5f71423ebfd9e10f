"""Qualcomm's HTP library, the package ``onnxruntime_qnn``: whether it is here, and if not, why it cannot be.

It is an extra that the user installs: Qualcomm's licence stands on its libraries, and we ship nothing of them.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from contextlib import suppress
from pathlib import Path

from hiresvit.device.platform import package_version
from hiresvit.errors import MissingDependency, install_line

PACKAGE = "onnxruntime-qnn"
PROVIDER = "QNNExecutionProvider"
COMPATIBILITY = f"ep_compatibility_info.{PROVIDER}"
"""What a context's ONNX file says of it: ``v2:backend:SDK:API:arch:soc_model:vtcm:driver``."""
_GLIBC = {"x86_64": (2, 35), "aarch64": (2, 34)}
"""The machines that it is made for, and the least glibc of its wheel there."""
_PYTHONS = ((3, 11), (3, 14))


def installed() -> bool:
    """Whether the package is here; imports nothing."""
    return importlib.util.find_spec("onnxruntime_qnn") is not None


def installed_version() -> str | None:
    """The package's version, None where it is not here."""
    return package_version(PACKAGE) if installed() else None


def qairt_version() -> str | None:
    """The version of Qualcomm's own libraries in it, as ``2.51.0``; None where it does not say, or is not here."""
    found = importlib.util.find_spec("onnxruntime_qnn")
    for folder in (found and found.submodule_search_locations) or ():
        with suppress(OSError):
            said = Path(folder, "build_and_package_info.py").read_text(encoding="utf-8")
            if match := re.search(r"^qnn_version = '([\d.]+)'", said, re.MULTILINE):
                return match[1]
    return None


def emulated() -> bool:
    """Whether what runs here is Qualcomm's emulator: on x86-64 there is no HTP."""
    return platform.machine() in ("x86_64", "AMD64")


def require_library() -> None:
    """Raise MissingDependency, with the reason and what to do, unless the package is here."""
    if not installed():
        raise MissingDependency(why_not() or f"Qualcomm's compiler is not installed: {install_line('qnn')}")


def why_not() -> str | None:
    """Why the package cannot be installed here; None where it can."""
    python, machine, system = sys.version_info[:2], platform.machine(), platform.system()
    if not _PYTHONS[0] <= python <= _PYTHONS[1]:
        first, last = (".".join(map(str, version)) for version in _PYTHONS)
        have = ".".join(map(str, python))
        return f"{PACKAGE} is for Python {first} to {last}, this is {have}: make the environment with one of these"
    if system != "Linux" or machine not in _GLIBC:
        return f"there is no {PACKAGE} for {system} on {machine}: Linux on x86_64 and aarch64 has it"
    library, version = platform.libc_ver()
    least = ".".join(map(str, _GLIBC[machine]))
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < _GLIBC[machine]:
        have = f"{library} {version}".strip() or "another C library"
        return f"{PACKAGE} needs glibc {least}, this system has {have}: take Debian 12, Ubuntu 22.04 or later"
    return None
