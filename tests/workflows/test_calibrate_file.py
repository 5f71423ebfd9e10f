"""From a graph's file to an INT8 graph's file: what is written, what is left, and what is refused before any work."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from graphs import content
from PIL import Image
from tiny import seven_convolutions, tiny_spec

from hiresvit.calibration.table import load_table
from hiresvit.data.scenes import sample_image
from hiresvit.errors import GateError, HiresvitError, UsageError
from hiresvit.export.contract import read_stamp, stamp
from hiresvit.export.fp16 import to_fp16
from hiresvit.workflows import calibrate, proof
from hiresvit.workflows.calibrate import quantize_file
from hiresvit.workflows.quantize import Int8Settings, make_int8

SPEC = tiny_spec()
SETTINGS = Int8Settings("scenes", method="minmax", images=4, threads=1)


def write_graph(path: Path, stage: str = "simplified") -> Path:
    """Seven convolutions that pass for an export of ours."""
    model = onnx.load_from_string(content(seven_convolutions()[0]))
    stamp(model, SPEC, stage)
    path.write_bytes(content(model))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    for index, image in enumerate(sample_image(seed, *SPEC.imgsz) for seed in range(50, 62)):
        Image.fromarray(image).save(folder / f"{index}.png")
    return str(folder)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "simplified.onnx")


def test_the_file_is_what_make_int8_makes(graph: Path, tmp_path: Path) -> None:
    made = quantize_file(graph, tmp_path / "q.onnx", SETTINGS)
    assert made.paths == (tmp_path / "q.onnx", tmp_path / "q.calibration.json")
    written, simple = onnx.load(tmp_path / "q.onnx"), onnx.load(graph)
    expected = make_int8(simple, to_fp16(simple)[0], SPEC, SETTINGS)
    assert written.graph == expected.graph.graph
    assert read_stamp({prop.key: prop.value for prop in written.metadata_props}) == (SPEC, "int8")
    assert load_table(tmp_path / "q.calibration.json") == expected.table
    assert made.report == expected.report
    assert {path.name for path in tmp_path.iterdir()} == {"simplified.onnx", "q.onnx", "q.calibration.json"}


def test_the_ends_may_be_fp16(graph: Path, tmp_path: Path) -> None:
    quantize_file(graph, tmp_path / "q.onnx", SETTINGS, io="fp16")
    [value] = onnx.load(tmp_path / "q.onnx").graph.output
    assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16


def test_the_name_follows_from_the_files(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from what the graph says of itself: somebody else may have written it."""
    monkeypatch.chdir(tmp_path)
    mine = Path(shutil.copy(graph, tmp_path / "mine.onnx"))
    assert quantize_file(mine, None, SETTINGS).paths[0] == Path("mine-int8.onnx")


def test_a_search_leaves_a_chart(graph: Path, tmp_path: Path, photos: str) -> None:
    settings = Int8Settings(photos, method="minmax", images=4, max_drop=3, threads=1)
    made = quantize_file(graph, tmp_path / "q.onnx", settings)
    assert "deaf" in made.report["fallback"]["kept"]
    assert made.paths[2] == tmp_path / "q.sensitivity.svg"
    assert "deaf" in made.paths[2].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["q.onnx", "q.calibration.json", "q.sensitivity.svg"])
def test_nothing_is_replaced_unasked(graph: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Int8Settings("scenes", images=4, max_drop=3)
    (tmp_path / name).write_text("mine")
    monkeypatch.setattr(calibrate, "make_int8", lambda *_, **__: pytest.fail("the work was begun"))
    with pytest.raises(HiresvitError, match=rf"{name} exists; pass --force"):
        quantize_file(graph, tmp_path / "q.onnx", settings)
    assert (tmp_path / name).read_text() == "mine"


def test_force_replaces(graph: Path, tmp_path: Path) -> None:
    for name in ("q.onnx", "q.calibration.json"):
        (tmp_path / name).write_text("mine")
    quantize_file(graph, tmp_path / "q.onnx", SETTINGS, force=True)
    assert read_stamp({p.key: p.value for p in onnx.load(tmp_path / "q.onnx").metadata_props}) is not None


def refused(source: Path, target: Path | None = None, settings: Int8Settings = SETTINGS) -> Any:
    with pytest.raises(HiresvitError) as caught:
        quantize_file(source, target, settings)
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_is_no_fp32_graph_of_ours(tmp_path: Path) -> None:
    missing = refused(tmp_path / "nothing.onnx")
    assert (missing.exit_code, "no such file; give the path of an .onnx graph" in str(missing)) == (1, True)
    (tmp_path / "half.onnx").write_bytes(b"\x08\x09garbage")
    assert "is not an ONNX graph" in str(refused(tmp_path / "half.onnx"))
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(content(seven_convolutions()[0]))
    assert re.search("does not say how it takes a picture", str(refused(foreign)))
    for stage in ("fp16", "cpu", "int8"):
        said = refused(write_graph(tmp_path / f"{stage}.onnx", stage))
        assert isinstance(said, UsageError)
        assert f"is the {stage} graph; ranges are measured in FP32" in str(said)


def test_settings_and_names_are_looked_at_first(graph: Path, tmp_path: Path) -> None:
    assert "give a name that ends in .onnx" in str(refused(graph, tmp_path / "q.json"))
    assert "nowhere does not exist" in str(refused(graph, settings=Int8Settings(str(tmp_path / "nowhere"))))
    assert "--calib-images 1" in str(refused(graph, settings=Int8Settings("scenes", images=1)))
    table = Int8Settings("scenes", table=tmp_path / "t.json")
    assert "t.json: no such file" in str(refused(graph, settings=table))
    assert not list(tmp_path.glob("*int8*"))


def test_a_proof_that_fails_leaves_nothing(
    graph: Path, tmp_path: Path, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"fp32": 90.0, "fp16": 90.0, "int8": 80.0}
    found = {"metric": "mIoU", "data": "d", "images": 4, "rows": rows}
    monkeypatch.setattr(proof.Proof, "accuracy", lambda *_: found)
    settings = Int8Settings(photos, method="minmax", images=4, max_drop=9, threads=1)
    assert isinstance(refused(graph, tmp_path / "q.onnx", settings), GateError)
    assert [path.name for path in tmp_path.iterdir()] == ["simplified.onnx"]
