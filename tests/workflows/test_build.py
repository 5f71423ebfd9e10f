"""What is built from what, under which name, and the line that does it without us."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Result
from graphs import build, content

from hiresvit.device.plan import read_sidecar, sidecar_path
from hiresvit.device.tensorrt_api import INSTALL_HINT, installed
from hiresvit.engine.build import BuildSettings
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.workflows import build as building
from hiresvit.workflows.build import build_file, find_graph, plan_name, trtexec_lines


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(content(build("g (float[1,8] x) => (float[1,8] y) { y = Relu(x) }")))
    return path


def test_names(tmp_path: Path, graph: Path) -> None:
    assert plan_name(graph, None, None) == Path("net.plan")
    assert plan_name(tmp_path, None, None) == Path(f"{tmp_path.name}-fp16.plan")
    assert plan_name(tmp_path, None, "int8") == Path(f"{tmp_path.name}-int8.plan")
    assert plan_name(graph, Path("a/b.engine"), None) == Path("a/b.engine")
    with pytest.raises(UsageError, match=r"give a name that ends in \.plan or \.engine$"):
        plan_name(graph, Path("net.trt"), None)


def test_a_graph_of_a_bundle(exported: tuple[Path, Result], graph: Path) -> None:
    folder, _ = exported
    assert find_graph(folder) == folder / "fp16.onnx"
    assert find_graph(folder, "simplified") == folder / "simplified.onnx"
    assert find_graph(graph) == graph
    with pytest.raises(UsageError, match=r"^--graph cpu: one of fp16, int8, simplified, fp32$"):
        find_graph(folder, "cpu")
    with pytest.raises(UsageError, match=r"is one file$"):
        find_graph(graph, "fp16")


@pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)
def test_files_that_are_there_stay(tmp_path: Path, graph: Path) -> None:
    target = tmp_path / "out" / "a.plan"
    made = build_file(graph, target, BuildSettings())
    assert [path.name for path in made.paths] == ["a.plan", "a.plan.json"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["a.plan", "a.plan.json"]
    for path in made.paths:
        made.paths[0].unlink() if path.suffix == ".json" else None
        with pytest.raises(HiresvitError, match=r"exists; pass --force"):
            build_file(graph, target, BuildSettings())
    again = build_file(graph, target, BuildSettings(), force=True)
    sidecar = read_sidecar(target)
    assert sidecar is not None
    assert sidecar.report == again.report


@pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)
def test_a_plan_that_somebody_else_makes_meanwhile_stays(tmp_path: Path, graph: Path) -> None:
    target = tmp_path / "a.plan"

    def other(phase: str, fraction: float) -> None:
        target.write_bytes(b"theirs")
        sidecar_path(target).write_bytes(b"theirs, too")

    with pytest.raises(HiresvitError, match=r"a\.plan was made by somebody else meanwhile; choose another"):
        build_file(graph, target, BuildSettings(), on_progress=other)
    assert target.read_bytes() == b"theirs"
    assert sidecar_path(target).read_bytes() == b"theirs, too"
    assert {path.name for path in tmp_path.iterdir()} == {"a.plan", "a.plan.json", graph.name}
    target.unlink()
    sidecar_path(target).unlink()
    build_file(graph, target, BuildSettings(), force=True, on_progress=other)
    assert target.read_bytes() != b"theirs"


def test_the_name_of_a_model_is_no_graph() -> None:
    with pytest.raises(UsageError, match=r"^hrvit_b1 is a model and no graph; first: hiresvit export hrvit_b1"):
        find_graph(Path("hrvit_b1"))
    assert find_graph(Path("nothing")) == Path("nothing")
    with pytest.raises(HiresvitError, match="File name too long"):
        find_graph(Path("a" * 5000))


def test_a_line_for_what_is_installed(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "installed", lambda backend: False)
    monkeypatch.setattr(building, "installed_version", lambda backend: None)
    titles = [line["title"] for line in trtexec_lines(graph, None, BuildSettings())]
    assert titles == ["TensorRT 10", "TensorRT 11", "TensorRT-RTX 1"]
    [line] = trtexec_lines(graph, None, BuildSettings(sm=(86,)))  # only RTX has it
    assert line["title"] == "TensorRT-RTX 1"
    with pytest.raises(UsageError, match=r"is an option of TensorRT-RTX"):
        trtexec_lines(graph, None, BuildSettings(backend="tensorrt", sm=(86,)))
    with pytest.raises(UsageError, match=r"^backend 'x': one of"):
        trtexec_lines(graph, None, BuildSettings(backend="x"))


@pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)
def test_a_line_for_the_version_that_is_installed(graph: Path) -> None:
    [line] = trtexec_lines(graph, Path("a.plan"), BuildSettings(backend="tensorrt_rtx"))
    assert line["title"].startswith("TensorRT-RTX 1.")
    assert line["line"].startswith(f"tensorrt_rtx --onnx={graph} --saveEngine=a.plan ")
    with pytest.raises(UsageError, match=r"--sm 999: TensorRT-RTX 1\..* compiles for 75, 80, 86, 89, 120"):
        trtexec_lines(graph, None, BuildSettings(sm=(999,)))


def test_a_line_is_only_for_what_could_be_built(tmp_path: Path, graph: Path) -> None:
    with pytest.raises(HiresvitError, match=r"no such file; give the path of an \.onnx graph"):
        trtexec_lines(tmp_path / "no.onnx", None, BuildSettings())
    shapes = {"x": ((1, 8), (1, 8), (2, 8))}
    with pytest.raises(UsageError, match=r"no axis is dynamic"):
        trtexec_lines(graph, None, BuildSettings(shapes=shapes))
