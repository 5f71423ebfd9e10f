"""The command line for the tests, in this process and in one of its own, and one exported bundle for all of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from hiresvit.cli import main

# A shell lets what it puts in the background ignore SIGINT, and nohup SIGHUP: a test that sends them wants them heard.
# SIGINT here, for this process and the children that inherit it: else a run in the background waits for them forever.
signal.signal(signal.SIGINT, signal.default_int_handler)
PROGRAM = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
{before}
from hiresvit.cli import main
sys.exit(main())
"""
# hrvit_b1 shrunk to what exports in seconds; for what does not depend on the network.
TINY = """
from dataclasses import replace
from hiresvit.models.zoo import MODELS
from tiny import build_tiny
MODELS["hrvit_b1"] = replace(MODELS["hrvit_b1"], build=build_tiny)
"""


@dataclass(frozen=True)
class Result:
    """How a run of the command line ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


def hiresvit_command(*args: str | Path, before: str = "") -> list[str]:
    """What starts the command line in a process of its own, after the code ``before``."""
    return [sys.executable, "-c", PROGRAM.format(before=before), *map(str, args)]


def environment(place: Path | None = None) -> dict[str, str]:
    """The child imports this working tree, and takes one core; what it writes beside what is asked lies in ``place``.

    ORT_DISABLE_TELEMETRY is what hiresvit has set in this process: there it is the child's own to set.
    """
    tests = Path(__file__).parent
    taken = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    own = {"HOME": str(place), "TMPDIR": str(place)} if place else {}
    return {**taken, **own, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}


def run_program(folder: Path, *args: str | Path, before: str = "") -> Result:
    """Run the command line in a process of its own, whose current folder, home and TMPDIR are one."""
    done = subprocess.run(
        hiresvit_command(*args, before=before),
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same weights, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process."""

    def run(*args: str | Path) -> Result:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A bundle of HRViT-b1 with fresh weights and what its export printed; do not change it."""
    folder = tmp_path_factory.mktemp("exported")
    options = ["--imgsz", "64x64", "--fp16", "--images", "2", "--no-latency", "--json"]
    result = run_program(folder, "export", "hrvit_b1", *options)
    assert result.code == 0, result.err
    return folder / "hrvit_b1-segment-64x64", result


@pytest.fixture
def schema_3(tmp_path: Path) -> Path:
    """A whole bundle as it was written before schema 4 (tests/golden/README.md), to be changed."""
    with tarfile.open(Path(__file__).parent / "golden" / "bundle_schema3.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "schema3"


@pytest.fixture
def schema_6(tmp_path: Path) -> Path:
    """A whole bundle as it was written before schema 7 (tests/golden/README.md), to be changed."""
    with tarfile.open(Path(__file__).parent / "golden" / "bundle_schema6.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "schema6"


@pytest.fixture
def schema_5(tmp_path: Path) -> Path:
    """A whole bundle as it was written before schema 6 (tests/golden/README.md), to be changed."""
    with tarfile.open(Path(__file__).parent / "golden" / "bundle_schema5.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "schema5"


@pytest.fixture
def schema_4(tmp_path: Path) -> Path:
    """A whole bundle as it was written before schema 5 (tests/golden/README.md), to be changed."""
    with tarfile.open(Path(__file__).parent / "golden" / "bundle_schema4.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "schema4"


@pytest.fixture
def bundle(exported: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of the exported bundle, to be changed."""
    return Path(shutil.copytree(exported[0], tmp_path / "bundle"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny HRViT with an FP16 graph and the classes of the scenes, made in this process in seconds."""
    from tiny import build_tiny

    from hiresvit.models.create import model_spec
    from hiresvit.models.zoo import MODELS
    from hiresvit.workflows.export import export_bundle
    from hiresvit.workflows.export_settings import ExportSettings

    settings = ExportSettings(fp16=True, plan=False, latency=False, images=1, threads=1)
    target = tmp_path_factory.mktemp("made") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=build_tiny))
        spec = model_spec("hrvit_b1", "segment", (64, 96))
        return export_bundle(spec, target, settings, command=["hiresvit", "export"]).folder


@pytest.fixture(scope="session")
def sweep_file(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `hiresvit sweep` writes of the tiny bundle: see `sweep_rows`."""
    from sweep_rows import write_sweep

    return write_sweep(tiny_bundle, tmp_path_factory.mktemp("swept"))


@pytest.fixture(scope="session")
def cpp_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ build folder: libhiresvit.so, hiresvit-run, and tests/ with what only tests have."""
    from cpp_build import build_folder, built

    return built(build_folder(tmp_path_factory, "cpp"))


@pytest.fixture(scope="session")
def onnxruntime_library() -> Path:
    """The library of the package that Python runs: both sides compute with one."""
    from cpp_build import onnxruntime_library

    return onnxruntime_library()
