"""Which TensorRT is here, and its words as ours."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hiresvit.device import tensorrt_api as api
from hiresvit.errors import MissingDependency, UsageError

PACKAGE = Path(__file__).parents[2] / "hiresvit"


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(api, "installed", lambda backend: backend in names)


def test_tensorrt_comes_before_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt", "tensorrt_rtx")
    assert api.find_backend() == "tensorrt"
    assert api.find_backend("tensorrt_rtx") == "tensorrt_rtx"
    install(monkeypatch, "tensorrt_rtx")
    assert api.find_backend() == "tensorrt_rtx"


def test_a_library_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tensorrt_rtx")
    with pytest.raises(MissingDependency, match=r"^TensorRT is not installed: on a Jetson"):
        api.find_backend("tensorrt")
    install(monkeypatch)
    with pytest.raises(MissingDependency, match=r"neither is installed\): pip install"):
        api.find_backend()
    with pytest.raises(UsageError, match=r"^backend 'cuda': one of tensorrt, tensorrt_rtx$"):
        api.find_backend("cuda")


@pytest.mark.parametrize("backend", api.BACKENDS)
def test_installed_imports_nothing(backend: api.Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in api._MODULES[backend]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    api.installed(backend)
    assert not any(name in sys.modules for name in api._MODULES[backend])


def test_a_folder_of_that_name_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "tensorrt" in sys.modules or api.installed("tensorrt"):
        pytest.skip("it is installed")
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not api.installed("tensorrt")


def test_a_library_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10:\\n cannot open it')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingDependency, match=r"^TensorRT does not load \(libnvinfer.so.10: cannot open it\): on a"):
        api.load("tensorrt")


def test_datatypes_are_numpys() -> None:
    known = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "UINT8": "uint8"}
    known |= {"BOOL": "bool", "INT64": "int64", "FP8": "float8_e4m3fn"}
    assert {name: api.dtype_name(SimpleNamespace(name=name)) for name in known} == known


def test_one_module_imports_tensorrt() -> None:
    """And by name, so that no other can be meant: everything else is given the module."""
    names = {name for modules in api._MODULES.values() for name in modules}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            assert not names & {name.partition(".")[0] for name in imported}, f"{path} imports TensorRT"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "Invalid Node - my_conv\n"
            "ITensor::getDimensions: Error Code 4: API Usage Error (my_conv: `input` and `bias` must be "
            "of same type. `bias` is of type Float. In validateTypes at /_src/a.cpp:110)\n"
            "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35: no driver)",
            "my_conv: `input` and `bias` must be of same type. `bias` is of type Float",
        ),
        (
            "[a.cpp::alloc::1] Error Code 1: Cuda Runtime (cudaErrorMemoryAllocation: out of memory)",
            "[a.cpp::alloc::1] Error Code 1: Cuda Runtime (cudaErrorMemoryAllocation: out of memory)",
        ),
        (
            "[tactic.cpp:1676: enumerate_tactics] Tactic Selection: no tactics within the limit.",
            "Tactic Selection: no tactics within the limit.",
        ),
        (
            "Assertion failed: zero point\n  is not\nsupported.",
            "Assertion failed: zero point is not supported.",
        ),
        ("[checkMacros.cpp] Error Code 1: Cuda Runtime (In x at y:250 (cudaError 35: no driver))", ""),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert api.one_line(text) == line
