"""Building the C++ library for tests, and the ONNX Runtime that it opens."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import onnxruntime
import pytest

CPP = Path(__file__).parents[1] / "cpp"
ABSENT = "C++ is not built here: "


def built(folder: Path, *options: str) -> Path:
    """Configure and build ``cpp/`` in a folder, or bring up to date what is there, by one process at a time."""
    fetched = CPP / "third_party"
    include = os.environ.get("HIRESVIT_ONNXRUNTIME_INCLUDE", str(fetched if fetched.is_dir() else "/usr/include"))
    for tool in ("cmake", "ninja", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{ABSENT}no {tool}")
    if not (Path(include) / "onnxruntime" / "onnxruntime_c_api.h").is_file():
        pytest.skip(f"{ABSENT}no onnxruntime_c_api.h; cpp/get-tools.sh fetches it")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        configure = ["-G", "Ninja", "-S", str(CPP), f"-DHIRESVIT_ONNXRUNTIME_INCLUDE={include}", *options]
        run_tool("cmake", "-B", str(folder), *configure)
        run_tool("cmake", "--build", str(folder))
    return folder


def run_tool(*command: str) -> None:
    """Run a command that must succeed; what it said is in the error if it does not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"


def build_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """One for all processes of a run; HIRESVIT_CPP_BUILD names a folder that is kept from run to run."""
    kept = os.environ.get("HIRESVIT_CPP_BUILD")
    base = tmp_path_factory.getbasetemp()
    return Path(kept or (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)) / name


def onnxruntime_library() -> Path:
    """The library of the package that Python runs: both sides compute with one."""
    [library] = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*.*.*")
    return library
