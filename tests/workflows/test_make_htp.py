"""The way to a graph for the HTP, on seven convolutions of which one loses much in 8 bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from every import firsts
from graphs import content, run
from PIL import Image
from tiny import seven_convolutions, tiny_simplified, tiny_spec
from variants import chain

from hiresvit.calibration.htp_audit import check_htp
from hiresvit.data.pictures import Feeds, open_pictures
from hiresvit.data.scenes import sample_image
from hiresvit.device.chips import CHIPS
from hiresvit.errors import ArtefactError, GateError, UsageError
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.export.htp import for_htp
from hiresvit.models.zoo import MODELS
from hiresvit.runtime.qnn_runner import QnnRunner
from hiresvit.spec import HtpForm
from hiresvit.workflows import proof
from hiresvit.workflows.htp import HtpResult, HtpSettings, make_htp, tensors_for_htp
from hiresvit.workflows.quantize import Int8Settings, make_int8
from hiresvit.workflows.yardstick import AGREEMENT

SPEC = tiny_spec()
SIMPLE, HALF = seven_convolutions()
AR1 = CHIPS["ar1"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    for index, image in enumerate(sample_image(seed, *SPEC.imgsz) for seed in range(50, 64)):
        Image.fromarray(image).save(folder / f"{index}.png")
    return str(folder)


def make(photos: str, **values: Any) -> HtpResult:
    table = values.pop("table", None)
    chosen = {"method": "minmax", "images": 4, "threads": 1, "prove": False, **values}
    return make_htp(SIMPLE, SPEC, HtpSettings(photos, **chosen), table=table)


@pytest.fixture(scope="module")
def narrow(photos: str) -> HtpResult:
    return make(photos, form="a8w8")


def test_equal_arguments_give_equal_bytes(photos: str, narrow: HtpResult) -> None:
    again = make(photos, form="a8w8")
    assert content(again.graph) == content(narrow.graph)
    assert (again.table, again.report) == (narrow.table, narrow.report)
    assert set(narrow.report) == {"form", "chip", "changes", "calibration", "wide", "quantize"}


def test_one_pass_over_the_pictures_serves_both_writers(photos: str, narrow: HtpResult) -> None:
    """The other writer's table has what this one needs, and gives the same graph."""
    settings = Int8Settings(photos, method="minmax", images=4, threads=1, prove=False)
    both = make_int8(SIMPLE, HALF, SPEC, settings, also=tensors_for_htp(SIMPLE, ("a8w8", "a16w8", "fp16"), AR1))
    assert content(both.graph) == content(make_int8(SIMPLE, HALF, SPEC, settings).graph)
    assert content(make(photos, form="a8w8", table=both.table).graph) == content(narrow.graph)
    wide = make(photos, form="a16w8")
    assert content(make(photos, form="a16w8", table=both.table).graph) == content(wide.graph)
    assert wide.report["quantize"]["tensors"].keys() == {"uint16"}
    assert tensors_for_htp(SIMPLE, ("fp16",), AR1) == []


def test_ranges_without_cuts_do_not_serve_8_bits(photos: str) -> None:
    """Whichever form is made first."""
    wide = make(photos, form="a16w8", method="mse")
    alone = make(photos, form="a8w8", method="mse")
    assert (wide.table and wide.table.method, alone.table and alone.table.method) == ("minmax", "mse")
    assert content(make(photos, form="a8w8", method="mse", table=wide.table).graph) == content(alone.graph)
    assert content(make(photos, form="a16w8", table=alone.table).graph) == content(wide.graph)


def test_a_table_of_version_1_serves_tensorrt_only(photos: str, narrow: HtpResult, tmp_path: Path) -> None:
    assert narrow.table is not None
    old = replace(narrow.table, ranges={})
    old.save(tmp_path / "t.json")
    settings = Int8Settings(photos, images=4, table=tmp_path / "t.json", threads=1, prove=False)
    assert make_int8(SIMPLE, HALF, SPEC, settings).table == old
    with pytest.raises(ArtefactError, match="has magnitudes only, as version 1 had: calibrate again for the HTP"):
        make_htp(SIMPLE, SPEC, HtpSettings(photos, images=4, table=tmp_path / "t.json", threads=1))


def test_fp16_needs_no_pictures_but_a_chip_that_has_it() -> None:
    made = make_htp(SIMPLE, SPEC, HtpSettings("", form="fp16", chip=CHIPS["sm8650"]))
    assert (made.table, made.proof) == (None, None)
    assert content(made.graph) == content(for_htp(SIMPLE, "fp16", CHIPS["sm8650"])[0])
    with pytest.raises(UsageError, match="computes in integers only: make the form a16w8 or a8w8 for it"):
        make_htp(SIMPLE, SPEC, HtpSettings("", form="fp16", chip=AR1))


def test_what_loses_much_gets_16_bits(photos: str) -> None:
    made = make(photos, form="a8w8", max_drop=3.0)
    accuracy, fallback = made.report["accuracy"], made.report["fallback"]
    assert made.report["wide"] == fallback["kept"] != []
    assert set(accuracy["rows"]) == {"fp32", "a16w8", "a8w8"}
    assert accuracy["metric"] == AGREEMENT
    assert 100 - accuracy["rows"]["a8w8"] <= 3.0 < fallback["full_drop"]
    assert {layer["bits"] for layer in made.report["quantize"]["layers"]} == {8, 16}
    assert made.report["quantize"]["converts"] > 0
    assert made.table is not None
    assert check_htp(made.graph, for_htp(SIMPLE, "a8w8", AR1)[0], made.table.ranges, made.table.amax, AR1)


def test_16_bits_that_are_not_enough_are_an_error(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"fp32": 90.0, "a16w8": 80.0}
    found = {"metric": "mIoU", "data": "d", "images": 4, "rows": rows}
    monkeypatch.setattr(proof.Proof, "accuracy", lambda *_: found)
    with pytest.raises(GateError, match=r"mIoU of A16W8 .* is 80\.00 %, 10\.00 points below 90\.00 %: --max-drop 9"):
        make(photos, form="a16w8", max_drop=9.0)


@pytest.mark.parametrize("form", ["a8w8", "a16w8"])
def test_a_network_with_every_part_is_taken_whole(form: HtpForm, tmp_path: Path) -> None:
    """HRViT with stripes, masks, padding and a Resize, on the chip of glasses, which has no floating point.

    Single steps differ, and in 8 bits they grow through a network of fresh weights: 19 dB measured between the two,
    60 in 16 bits. So the emulator is held to what ONNX Runtime's CPU loses to FP32, give or take 3 dB.
    """
    pytest.importorskip("onnxruntime_qnn")
    simple = tiny_simplified(SPEC)
    made = make_htp(simple, SPEC, HtpSettings("scenes", method="minmax", images=2, threads=1, prove=False, form=form))
    path = tmp_path / "graph.onnx"
    path.write_bytes(content(made.graph))
    feed = Feeds(open_pictures("scenes", SPEC.imgsz, 1), SPEC, "image")[0]
    exact, cpu = run(simple, feed)[0], run(made.graph, feed)[0]
    with QnnRunner(path, detail="ar1") as emulator:
        found = emulator(feed)["logits"]
    lost = compare_arrays(exact, cpu).sqnr_db
    assert lost > 10
    assert compare_arrays(exact, found).sqnr_db > lost - 3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["a8w8", "a16w8"])
@pytest.mark.parametrize("name", firsts().values())
def test_every_family_is_taken_whole(name: str, form: HtpForm, tmp_path: Path) -> None:
    """With fresh weights at a small size, held to what ONNX Runtime's CPU loses to FP32, as above."""
    pytest.importorskip("onnxruntime_qnn")
    made_of = chain(name, MODELS[name].task, (64, 64))
    simple, spec = made_of.graphs["simplified"], made_of.spec
    made = make_htp(simple, spec, HtpSettings("scenes", method="minmax", images=2, prove=False, form=form))
    path = tmp_path / "graph.onnx"
    path.write_bytes(content(made.graph))
    feed = Feeds(open_pictures("scenes", spec.imgsz, 1), spec, "image")[0]
    exact, cpu = run(simple, feed)[0], run(made.graph, feed)[0]
    with QnnRunner(path, detail="ar1") as emulator:
        found = next(iter(emulator(feed).values()))
    lost, emulated = compare_arrays(exact, cpu).sqnr_db, compare_arrays(exact, found).sqnr_db
    print(f"{name} {form}: ONNX Runtime {lost:.1f} dB, emulator {emulated:.1f} dB")
    assert emulated > lost - 3
