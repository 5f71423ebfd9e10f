"""`hiresvit package`: a folder that is whole or not there, and the line that exports what would fit."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from packages import COMMAND, make_bundle
from tensor_bundles import write_detector, write_raw

from hiresvit.bundle.folder import read_bundle
from hiresvit.commands import package as command
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.spec import ContractSpec
from hiresvit.workflows.package.package import FORMATS, package_bundle
from hiresvit.workflows.package.shipped import Shipped, fill


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_has_every_format() -> None:
    kinds = get_type_hints(command.package)["kind"]
    assert set(get_args(kinds)) == FORMATS.keys()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_in_a_package_is_listed_with_its_sum(tmp_path: Path, kind: Any) -> None:
    contract = ContractSpec() if kind == "deepstream" else ContractSpec("image", label_type="int32")
    made = package_bundle(make_bundle(tmp_path / "b", contract), kind, tmp_path / "new" / "p")
    found = files_in(made.folder)
    assert sorted(found) == sorted(made.files)
    about = json.loads(found.pop("package.json"))
    assert about["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    assert (about["format"], about["weights"]) == (kind, "mine.pth")
    assert "README.md" in found
    for name, data in found.items():
        if not name.endswith((".onnx", ".npz", ".bin")):
            assert b"@{" not in data, name


def test_its_name_is_that_of_the_bundle_and_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bundle(tmp_path / "street")
    monkeypatch.chdir(tmp_path)
    assert package_bundle(Path("street"), "python").folder == Path("street-python")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["street", "street-python"]


def test_only_what_was_packaged_is_replaced(tmp_path: Path) -> None:
    bundle, target = make_bundle(tmp_path / "b"), tmp_path / "p"
    package_bundle(bundle, "python", target)
    before = files_in(target)
    with pytest.raises(HiresvitError, match="exists; pass --force to replace it"):
        package_bundle(bundle, "triton", target)
    (target / "models").mkdir()
    (target / "models" / "model.plan").write_bytes(b"built here, which took minutes")
    with pytest.raises(HiresvitError, match=r"also holds 'models/model\.plan', which --force would delete; move it"):
        package_bundle(bundle, "triton", target, force=True)
    shutil.rmtree(target / "models")
    with pytest.raises(UsageError):
        package_bundle(make_bundle(tmp_path / "image", ContractSpec("image")), "deepstream", target, force=True)
    assert files_in(target) == before, "what fails leaves what was there"
    package_bundle(bundle, "triton", target, force=True)
    assert (target / "models").is_dir()
    assert not (target / "predict.py").exists()
    for other in (tmp_path / "b", tmp_path / "mine"):
        other.mkdir(exist_ok=True)
        with pytest.raises(HiresvitError, match="exists and is not a package"):
            package_bundle(bundle, "triton", other, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "image", "mine", "p"]


def test_a_bundle_that_is_none_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(HiresvitError, match="is not a bundle folder"):
        package_bundle(tmp_path / "nothing", "triton", tmp_path / "p")
    bundle = make_bundle(tmp_path / "b")
    with (bundle / "fp16.onnx").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ArtefactError, match=r"fp16\.onnx has \d+ bytes"):
        package_bundle(bundle, "triton", tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_a_graph_that_is_not_there_or_not_for_the_format(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    with pytest.raises(ArtefactError, match="has no int8 file, only"):
        package_bundle(bundle, "triton", tmp_path / "p", graph="int8")
    with pytest.raises(
        UsageError, match="--graph cpu: this format takes fp16, int8, simplified, fp32, plan or int8_plan"
    ):
        package_bundle(bundle, "deepstream", tmp_path / "p", graph="cpu")
    with pytest.raises(UsageError, match="--graph golden: this format takes fp32"):
        package_bundle(bundle, "python", tmp_path / "p", graph="golden")


@pytest.mark.parametrize("kind", ["cpp", "python"])
def test_maps_and_masks_are_nothing_to_label(tmp_path: Path, kind: Any) -> None:
    for task in ("features", "masks"):
        write_raw(tmp_path / task, task)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=f"task {task} has nothing to label; --format triton serves its tensors"):
            package_bundle(tmp_path / task, kind, tmp_path / "p")


def test_boxes_are_no_label_map(tmp_path: Path) -> None:
    write_detector(tmp_path / "b")
    for kind in ("deepstream", "isaac-ros"):
        with pytest.raises(UsageError, match=r"task detect; this package is of a segmentor.* --format triton"):
            package_bundle(tmp_path / "b", kind, tmp_path / "p")  # type: ignore[arg-type]
    package = package_bundle(tmp_path / "b", "triton", tmp_path / "p")
    config = (package.folder / "models" / "coloured-detect-32x48" / "config.pbtxt").read_text(encoding="utf-8")
    assert 'name: "deltas_16" data_type: TYPE_FP32 dims: [ 1, 24, 2, 3 ]' in config


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (COMMAND, "hiresvit export hrvit_b1 --weights 'my file.pth' --contract image --label-type int32"),
        (
            [
                "hiresvit",
                "export",
                "m",
                "--contract",
                "camera",
                "40x56",
                "--input=nv12",
                "--confidence",
                "--imgsz",
                "32x48",
            ],
            "hiresvit export m --imgsz 32x48 --contract image --label-type int32",
        ),
        (
            [
                "hiresvit",
                "export",
                "m",
                "--contract=tensor",
                "--label-type",
                "uint8",
                "--output",
                "x",
                "--force",
                "--fp16",
            ],
            "hiresvit export m --fp16 --contract image --label-type int32",
        ),
        ([], "hiresvit export hrvit_b1 --task segment --imgsz 32x48 --contract image --label-type int32"),
    ],
)
def test_the_line_that_exports_again_keeps_the_rest(tmp_path: Path, given: list[str], line: str) -> None:
    shipped = Shipped(read_bundle(make_bundle(tmp_path / "b", command=given)))
    assert shipped.export_line(ContractSpec("image", label_type="int32")) == line


def test_the_line_that_exports_again_is_one_that_the_command_line_takes(tmp_path: Path) -> None:
    from typer.main import get_command

    from hiresvit.cli import app

    export = dict(get_command(app).commands)["export"]  # type: ignore[attr-defined]
    shipped = Shipped(read_bundle(make_bundle(tmp_path / "b")))
    for contract in (
        ContractSpec(),
        ContractSpec("image", "bgr", label_type="int64", confidence=True),
        ContractSpec("camera", "nv12", (40, 56), "bt601-full", "uint8"),
    ):
        export.make_context("export", shlex.split(shipped.export_line(contract))[2:])


def test_a_value_that_a_template_does_not_have_is_noticed() -> None:
    with pytest.raises(KeyError, match="more"):
        fill("app.cmake", version="1.0.0", more="?")
    with pytest.raises(KeyError, match="version"):
        fill("app.cmake")


@pytest.mark.parametrize("task", ["segment", "classify", "detect"])
def test_the_program_in_cpp_compiles_against_the_library(tmp_path: Path, task: Any) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    bundle = tmp_path / "b"
    if task == "detect":
        write_detector(bundle)
    else:
        make_bundle(bundle, ContractSpec("image"), task=task, roles=("fp32",))
    folder = package_bundle(bundle, "cpp", tmp_path / "p", graph="fp32").folder
    text = (folder / "main.cpp").read_text(encoding="utf-8")
    assert 'options.graph = "fp32";' in text
    include = Path(__file__).parents[2] / "cpp" / "include"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{include}"]
    subprocess.run([compiler, *flags, str(folder / "main.cpp")], check=True)
    assert read_bundle(folder / "bundle").manifest == read_bundle(bundle).manifest
