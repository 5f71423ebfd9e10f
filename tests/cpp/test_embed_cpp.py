"""docs/embed-cpp.md is true: its blocks are compiled against the installed package, and run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensor_bundles import write_detector

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "embed-cpp.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def run(words: list[str], folder: Path, **environment: str) -> str:
    """What a command says. It must end well."""
    done = subprocess.run(
        words, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(cpp_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed as the first block of the page says, from the build that all tests share."""
    folder = tmp_path_factory.mktemp("app")
    configure, build, install = blocks("sh")[0].splitlines()
    assert configure == "cmake -G Ninja -S cpp -B build"
    assert build == "cmake --build build"
    (folder / "build").symlink_to(cpp_build)
    run(shlex.split(install), folder)
    return folder


def test_the_page_is_an_app(installed: Path, tiny_bundle: Path, onnxruntime_library: Path) -> None:
    [listing] = blocks("cmake")
    (installed / "CMakeLists.txt").write_text(listing)
    for block in (*blocks("cpp"), *blocks("c")):
        (installed / block.split()[1]).write_text(block)
    strict = "-Wall -Wextra -Werror"
    flags = [f"-DCMAKE_CXX_FLAGS={strict} -std=c++17", f"-DCMAKE_C_FLAGS={strict} -std=c99"]
    found = f"-DCMAKE_PREFIX_PATH={installed / 'installed'}"
    run(["cmake", "-G", "Ninja", "-S", ".", "-B", "made", found, *flags], installed)
    run(["cmake", "--build", "made"], installed)
    library = str(onnxruntime_library)

    said = run(["made/segment", str(tiny_bundle)], installed, HIRESVIT_ONNXRUNTIME=library)
    assert re.search(r"on ONNX Runtime [\d.]+, CPU\nthe first pixel is class \d+, sure by \d+ of 255", said)
    said = run(["made/camera", str(tiny_bundle)], installed, HIRESVIT_ONNXRUNTIME=library)
    assert [line.partition(":")[0] for line in said.splitlines()] == [f"frame {index}" for index in range(9)]
    write_detector(installed / "detector")
    said = run(["made/detect", "detector"], installed, HIRESVIT_ONNXRUNTIME=library)
    assert re.fullmatch(r"(class \d, 0\.\d\d: \d+\.\d( \d+\.\d){3}\n)+at most 20 boxes\n", said)
    assert re.fullmatch(r"class \d+\n", run(["made/plain", str(tiny_bundle)], installed, HIRESVIT_ONNXRUNTIME=library))


def test_the_program_as_the_page_has_it(installed: Path, tiny_bundle: Path, onnxruntime_library: Path) -> None:
    (installed / "my-bundle").symlink_to(tiny_bundle)
    Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(installed / "street.png")
    [line] = blocks("sh")[1].splitlines()
    words = shlex.split(line.replace("hiresvit-run", "installed/bin/hiresvit-run"))
    said = run(words, installed, HIRESVIT_ONNXRUNTIME=str(onnxruntime_library))
    assert "Throughput: " in said
    assert {"overlay.png", "labels.png"} <= {path.name for path in installed.iterdir()}
