"""What `cmake --install` writes, as an application takes it: find_package, here and for aarch64 on an emulator.

The emulator's processor is described by files of ours: ONNX Runtime's library looks into /proc and /sys when it is
loaded, and would find an x86 there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from cpp_build import CPP, build_folder, built, run_tool
from PIL import Image

import hiresvit

CPUINFO = """processor\t: {}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd07
CPU revision\t: 0

"""
CROSS = f"-DCMAKE_TOOLCHAIN_FILE={CPP / 'cmake' / 'aarch64.cmake'}"


def installed_example(build: Path, folder: Path, *options: str) -> Path:
    """The example, built against what a build installs into ``folder`` and nothing else of ours."""
    prefix, made = folder / "prefix", folder / "example"
    run_tool("cmake", "--install", str(build), "--prefix", str(prefix))
    source = shutil.copytree(CPP / "example", folder / "source")
    run_tool("cmake", "-G", "Ninja", "-S", str(source), "-B", str(made), f"-DCMAKE_PREFIX_PATH={prefix}", *options)
    run_tool("cmake", "--build", str(made))
    return made / "hiresvit-example"


def check_labels(command: list[str], bundle: Path, folder: Path, library: Path) -> None:
    """Hold the example's labels of a picture to Python's."""
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8).repeat(3, 0).repeat(3, 1)
    Image.fromarray(image).save(folder / "picture.ppm")
    words = [*command, str(bundle), str(folder / "picture.ppm"), str(folder / "labels.pgm")]
    environment = {**os.environ, "HIRESVIT_ONNXRUNTIME": str(library)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with hiresvit.Predictor(bundle, threads=1) as predictor:
        expected = predictor(image).labels
    found = np.asarray(Image.open(folder / "labels.pgm"))
    assert len(np.unique(expected)) > 1, "or equal labels say nothing"
    np.testing.assert_array_equal(found, expected)


def test_an_application_finds_what_was_installed(
    cpp_build: Path, tiny_bundle: Path, tmp_path: Path, onnxruntime_library: Path
) -> None:
    example = installed_example(cpp_build, tmp_path)
    check_labels([str(example)], tiny_bundle, tmp_path, onnxruntime_library)
    missing = subprocess.run([example, "nothing", "a", "b"], capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stderr.count("\n")) == (7, 1)


@pytest.fixture(scope="session")
def arm_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX Runtime for aarch64, of the version that Python runs: out of its wheel."""
    folder = tmp_path_factory.mktemp("arm")
    tag = f"{sys.version_info.major}{sys.version_info.minor}"
    run_tool(
        *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--dest", str(folder)),
        *("--python-version", tag, "--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_27_aarch64"),
        f"onnxruntime=={onnxruntime.__version__}",
    )
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [name] = (n for n in archive.namelist() if n.startswith("onnxruntime/capi/libonnxruntime.so"))
        return Path(archive.extract(name, folder))


def test_a_board_gives_the_same_labels(
    tiny_bundle: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, arm_library: Path
) -> None:
    """Emulated, not run on a board: also the golden pair is replayed when the bundle is opened."""
    for tool in ("aarch64-linux-gnu-g++", "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: cpp/get-tools.sh --cross")
    options = (CROSS, "-DHIRESVIT_BUILD_PROGRAM=OFF", "-DHIRESVIT_BUILD_TESTS=OFF")
    build = built(build_folder(tmp_path_factory, "cpp-aarch64"), *options)
    example = installed_example(build, tmp_path, CROSS)
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    (root / "lib").symlink_to("/usr/aarch64-linux-gnu/lib")
    (root / "proc" / "cpuinfo").write_text("".join(CPUINFO.format(core) for core in range(2)))
    check_labels(["qemu-aarch64", "-L", str(root), str(example)], tiny_bundle, tmp_path, arm_library)
