"""The C++ library, built once for all tests of a run, and the ONNX Runtime that it opens."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import onnxruntime
import pytest

CPP = Path(__file__).parents[2] / "cpp"
ABSENT = "C++ is not built here: "


def built(folder: Path, *options: str) -> Path:
    """Configure and build ``cpp/`` in a folder, or bring up to date what is there, by one process at a time."""
    include = os.environ.get("HIRESVIT_ONNXRUNTIME_INCLUDE", "/usr/include")
    for tool in ("cmake", "ninja", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{ABSENT}no {tool}")
    if not (Path(include) / "onnxruntime" / "onnxruntime_c_api.h").is_file():
        pytest.skip(
            f"{ABSENT}no onnxruntime_c_api.h; Debian's libonnxruntime-dev has it, or HIRESVIT_ONNXRUNTIME_INCLUDE"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        configure = ["-G", "Ninja", "-S", str(CPP), f"-DHIRESVIT_ONNXRUNTIME_INCLUDE={include}", *options]
        for command in (["cmake", "-B", str(folder), *configure], ["cmake", "--build", str(folder)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return folder


def build_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """One for all processes of a run; HIRESVIT_CPP_BUILD names a folder that is kept from run to run."""
    kept = os.environ.get("HIRESVIT_CPP_BUILD")
    base = tmp_path_factory.getbasetemp()
    return Path(kept or (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)) / name


@pytest.fixture(scope="session")
def cpp_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build folder: libhiresvit.so, hiresvit-run, and tests/ with what only tests have."""
    return built(build_folder(tmp_path_factory, "cpp"))


@pytest.fixture(scope="session")
def onnxruntime_library() -> Path:
    """The library of the package that Python runs: both sides compute with one."""
    [library] = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*.*.*")
    return library
