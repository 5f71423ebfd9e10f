"""A C++ program of the bundle's own: main.cpp against ``hiresvit.hpp``, found by CMake's ``find_package(hiresvit)``."""

from __future__ import annotations

from pathlib import Path

from hiresvit.workflows.package.shipped import Shipped


def write_cpp(shipped: Shipped, folder: Path) -> list[str]:
    """Fill a folder with the bundle, a program that answers with it, and its CMakeLists.txt."""
    raise NotImplementedError
