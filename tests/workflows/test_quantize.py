"""The way to an INT8 graph, on seven convolutions with five classes, for which there are no labels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from graphs import content, run
from onnx import ModelProto
from PIL import Image
from tiny import seven_convolutions, tiny_spec

from hiresvit.calibration.calibrate import calibrate
from hiresvit.calibration.observers import METHODS
from hiresvit.data.pictures import Feeds, Pictures, open_pictures
from hiresvit.data.scenes import sample_image, sample_images
from hiresvit.device.plan import EngineReport
from hiresvit.errors import ArtefactError, GateError, HiresvitError, UsageError
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.models.create import model_spec
from hiresvit.spec import PreprocessSpec
from hiresvit.workflows import proof
from hiresvit.workflows import quantize as int8
from hiresvit.workflows.quantize import (
    Int8Result,
    Int8Settings,
    check_calibration,
    make_int8,
    require_fused,
)
from hiresvit.workflows.yardstick import AGREEMENT, answered

SPEC = tiny_spec()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    for index, image in enumerate(sample_image(seed, *SPEC.imgsz) for seed in range(50, 70)):
        Image.fromarray(image).save(folder / f"{index}.png")
    return str(folder)


def make(settings: Int8Settings, **options: Any) -> Int8Result:
    return make_int8(*seven_convolutions(), SPEC, settings, **options)


@pytest.fixture(scope="module")
def plain(photos: str) -> Int8Result:
    return make(Int8Settings(photos, method="minmax", images=6, threads=1))


def test_the_graph_and_its_report(plain: Int8Result) -> None:
    simple, _ = seven_convolutions()
    image = Feeds(open_pictures("scenes", SPEC.imgsz, 1), SPEC, "image")[0]
    found = compare_arrays(run(simple, image)[0], run(plain.graph, image)[0])
    # `deaf` is in INT8, too, with two or three steps for most of what it reads: 7 dB measured.
    assert 0 < found.sqnr_db < 15
    report = plain.report
    assert set(report) == {"calibration", "policy", "quantize", "headroom", "underflow"}
    assert report["calibration"]["images"] == 6
    assert report["calibration"]["tensors"] == len(plain.table.amax) == 5
    assert (report["quantize"]["sites_int8"], report["quantize"]["sites_fp16"]) == (
        5,
        {"first": 1, "last": 1},
    )
    assert report["policy"]["keep"] == []


def test_each_graph_is_looked_at_on_every_picture(plain: Int8Result) -> None:
    """The INT8 graph, too: what a DequantizeLinear makes is in FP16."""
    made = {name for node in plain.graph.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for graph, found in plain.headroom.items():
        names = {tensor.name for tensor in found.tensors}
        assert (found.images, bool(names & made)) == (6, graph == "int8")
    assert plain.report["headroom"] == plain.headroom["int8"].to_json()["headroom"]


def test_equal_settings_give_equal_bytes(photos: str, plain: Int8Result) -> None:
    again = make(Int8Settings(photos, method="minmax", images=6, threads=1))
    assert content(again.graph) == content(plain.graph)
    assert again.table == plain.table


@pytest.mark.parametrize("method", METHODS)
def test_no_method_asks_for_more_than_the_largest_value(photos: str, plain: Int8Result, method: Any) -> None:
    table = make(Int8Settings(photos, method=method, images=6, threads=1)).table
    assert table.method == method
    assert all(0 < table.amax[name] <= largest for name, largest in plain.table.amax.items())


def test_a_table_is_taken_again(photos: str, plain: Int8Result, tmp_path: Path) -> None:
    plain.table.save(tmp_path / "t.json")
    again = make(Int8Settings(photos, images=6, table=tmp_path / "t.json", threads=1))
    assert content(again.graph) == content(plain.graph)


def test_a_stale_table_is_refused(photos: str, plain: Int8Result, tmp_path: Path) -> None:
    table = plain.table
    wrong = PreprocessSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # pictures from 0 to 1, a common mistake
    for stale, what in (
        (replace(table, graph="0" * 64), f"graph {'0' * 12} and not {table.graph[:12]}"),
        (replace(table, data="0" * 64), f"data {'0' * 12} and not {table.data[:12]}"),
        (replace(table, preprocess={**table.preprocess, "mean": [*wrong.mean]}), "(mean)"),
    ):
        stale.save(tmp_path / "t.json")
        with pytest.raises(ArtefactError, match=re.escape(what)) as caught:
            make(Int8Settings(photos, images=6, table=tmp_path / "t.json", threads=1))
        assert caught.value.exit_code == 7


@pytest.fixture(scope="module")
def found(photos: str) -> Int8Result:
    return make(Int8Settings(photos, method="minmax", images=6, max_drop=3.0, threads=1))


def test_labels_that_fp32_does_not_know_prove_nothing() -> None:
    """Nineteen classes, so that the scenes' labels would fit, but 2 % of mIoU that INT8 cannot lose half a point of."""
    spec = model_spec("hrvit_b1", imgsz=SPEC.imgsz)
    settings = Int8Settings("scenes", method="minmax", images=4, max_drop=100, threads=1)
    found = make_int8(*seven_convolutions(spec.num_classes), spec, settings)
    assert found.report["accuracy"]["metric"] == AGREEMENT
    assert found.report["calibration"]["images"] == 4
    shown = make_int8(*seven_convolutions(spec.num_classes), spec, replace(settings, max_drop=None))
    assert "accuracy" not in shown.report


class TestMaxDrop:
    def test_the_result_keeps_what_was_promised(self, found: Int8Result) -> None:
        accuracy, fallback = found.report["accuracy"], found.report["fallback"]
        assert fallback["kept"] == ["deaf"]
        assert found.report["sensitivity"]["modules"][0]["module"] == "deaf"
        assert fallback["full_drop"] > 20
        assert (accuracy["metric"], accuracy["rows"]["fp32"]) == (AGREEMENT, 100.0)
        assert 100 - accuracy["rows"]["int8"] <= 3.0
        assert fallback["kept"] == found.report["policy"]["keep"]
        made = found.report["quantize"]
        kept = {layer["module"] for layer in made["layers"] if layer["excluded"] == "kept"}
        assert kept == set(fallback["kept"])

    def test_every_module_is_in_the_table(self, found: Int8Result) -> None:
        modules = [row["module"] for row in found.report["sensitivity"]["modules"]]
        quantized = {layer["module"] for layer in found.report["quantize"]["layers"] if not layer["excluded"]}
        assert len(modules) == len(set(modules))
        assert set(modules) == quantized | set(found.report["policy"]["keep"])

    def test_everything_is_promised_and_nothing_kept(self, photos: str) -> None:
        found = make(Int8Settings(photos, method="minmax", images=6, max_drop=100, threads=1))
        assert found.report["fallback"]["kept"] == []

    def test_calibration_search_and_proof_share_no_picture(self, photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[str, ...]] = []
        original = answered

        def watched(graph: ModelProto, pictures: Pictures, *rest: Any) -> Any:
            seen.append(pictures.names)
            return original(graph, pictures, *rest)

        def calibrated(simple: Any, tensors: Any, feeds: Feeds, *rest: Any, **options: Any) -> Any:
            seen.append(feeds.pictures.names)
            return table(simple, tensors, feeds, *rest, **options)

        table = calibrate
        monkeypatch.setattr(proof, "answered", watched)
        monkeypatch.setattr(int8, "calibrate", calibrated)
        make(Int8Settings(photos, method="minmax", images=30, max_drop=100, threads=1))
        assert [len(names) for names in seen] == [12, 4, 4]
        assert len({name for names in seen for name in names}) == 20

    def test_a_proof_that_fails(self, photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The search may be wrong about pictures that it has not seen: then there is no graph."""
        rows = {"fp32": 90.0, "fp16": 90.0, "int8": 80.0}
        found = {"metric": "mIoU", "data": "d", "images": 4, "rows": rows}
        monkeypatch.setattr(proof.Proof, "accuracy", lambda *_: found)
        settings = Int8Settings(photos, method="minmax", images=6, max_drop=9, threads=1)
        with pytest.raises(
            GateError,
            match=r"mIoU of INT8 .* on 4 pictures of d .*is 80\.00 %, 10\.00 points below.*--max-drop 9",
        ):
            make(settings)

    def test_too_few_pictures(self, tmp_path: Path) -> None:
        for index, image in enumerate(sample_images(9, SPEC.imgsz)):
            Image.fromarray(image).save(tmp_path / f"{index}.png")
        with pytest.raises(HiresvitError, match=r"9 pictures are too few for --max-drop.*give at least 10"):
            make(Int8Settings(str(tmp_path), images=4, max_drop=1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Int8Settings("x", max_drop=-1), "--max-drop -1: give percentage points from 0 on"),
        (Int8Settings("x", max_drop=float("nan")), "--max-drop nan"),
        (Int8Settings("x", images=1), "--calib-images 1: give at least 2"),
        (Int8Settings("x", memory=0), "--calib-memory 0"),
    ],
)
def test_settings_that_make_no_sense(settings: Int8Settings, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        check_calibration(settings, SPEC)


def test_features_have_no_accuracy() -> None:
    with pytest.raises(UsageError, match="features are none"):
        check_calibration(Int8Settings("x", max_drop=1), tiny_spec("features"))


def engine(kernels: int, fused: int, size: int) -> EngineReport:
    values: dict[str, Any] = dict.fromkeys(EngineReport.__dataclass_fields__, 0)
    values |= {"kernel_total": kernels, "attentions_fused": fused, "attentions_total": 4, "plan_bytes": size}
    return EngineReport(**values)


def test_a_broken_attention_is_caught() -> None:
    require_fused(engine(10, 4, 1), engine(12, 4, 1))
    with pytest.raises(GateError, match="the INT8 plan fuses 3 of 4 attentions, the FP16 plan 4"):
        require_fused(engine(10, 4, 1), engine(12, 3, 1))
