"""What checkpoints of real writers say of pictures (tests/golden/write_checkpoints.py, `pictures`)."""

from __future__ import annotations

import re
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from by_path import GOLDEN

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.models.create import build_model, convert_weights, find_spec, model_spec
from hiresvit.models.preprocessing import HRVIT, LRFORMER
from hiresvit.models.weights.file import read_checkpoint, read_meta
from hiresvit.models.weights.stated import parse_config, stated_preprocess
from hiresvit.spec import PreprocessSpec, Task

PACKED = GOLDEN / "checkpoints.tar.xz"
BGR = {"mean": (0.407843137, 0.46, 0.48), "std": (0.2, 0.1, 0.003921569), "channels": "bgr"}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    with tarfile.open(PACKED) as archive:
        archive.extractall(made, filter="data")
    return made


@pytest.mark.parametrize(
    ("name", "task", "changes"),
    [
        ("mmengine_bgr.pth", "segment", {**BGR, "divisor": 16}),
        ("mmengine_bgr.pth", "features", {**BGR, "divisor": 16}),
        ("mmengine_bgr.pth", "classify", BGR),
        ("mmengine_slide.pth", "segment", {**HALF, "resize": "stretch"}),
        ("mmcv_pictures.pth", "segment", {"mean": (0, 0.2, 0.4), "std": (1, 1, 0.5), "resize": "stretch"}),
        ("timm_pictures.pth.tar", "segment", {"mean": (0.5, 0.25, 0.75), "std": (0.5, 0.5, 0.5)}),
        (
            "timm_pictures.pth.tar",
            "classify",
            {"mean": (0.5, 0.25, 0.75), "std": (0.5, 0.5, 0.5), "crop_pct": 0.95, "interpolation": "bilinear"},
        ),
        ("lightning_pictures.ckpt", "classify", {"mean": (0.5, 0.5, 0), "std": (1, 1, 0.2)}),
    ],
)
def test_it_counts_more_than_the_familys(folder: Path, name: str, task: Task, changes: dict[str, Any]) -> None:
    found, notes = stated_preprocess(HRVIT[task], task, read_meta(folder / name), {})
    assert found == replace(HRVIT[task], **changes)
    place = {"mme": "cfg", "mmc": "config", "tim": "args", "lig": "hyper_parameters"}[name[:3]]
    assert notes[0].startswith(f"how it takes a picture is in its {place}: ")
    for changed in changes:
        assert f"{changed} " in notes[0]
    assert read_checkpoint(folder / name).meta == read_meta(folder / name)


def test_what_says_nothing_or_the_same_changes_nothing_and_is_not_spoken_of(folder: Path) -> None:
    silent = [path for path in folder.iterdir() if not re.search("dtensor|pictures|_bgr|_slide|json", path.name)]
    assert len(silent) > 20
    for path in silent:
        assert stated_preprocess(HRVIT["segment"], "segment", read_meta(path), {}) == (HRVIT["segment"], ())
    imagenet = "data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)"
    assert stated_preprocess(HRVIT["segment"], "segment", {"cfg": imagenet}, {}) == (HRVIT["segment"], ())


def test_a_users_word_counts_most(folder: Path) -> None:
    meta = read_meta(folder / "mmengine_bgr.pth")
    changes = {"mean": (0.1, 0.2, 0.3), "resize": "stretch"}
    found, notes = stated_preprocess(HRVIT["segment"], "segment", meta, changes)
    assert (found.mean, found.resize) == ((0.1, 0.2, 0.3), "stretch")
    assert (found.std, found.channels) == (BGR["std"], "bgr")
    assert "mean" not in notes[0]
    with pytest.raises(UsageError, match="std"):
        stated_preprocess(HRVIT["segment"], "segment", meta, {"std": (0, 1, 1)})


def test_windows_are_said_and_how_to_ask_for_them(folder: Path) -> None:
    meta = read_meta(folder / "mmengine_slide.pth")
    said = "it was tested in windows: --resize slide --imgsz 96x96 --preprocess stride=64x64 does so"
    assert stated_preprocess(HRVIT["segment"], "segment", meta, {})[1][-1] == said
    assert said not in stated_preprocess(HRVIT["segment"], "segment", meta, {"resize": "slide"})[1]
    kept = {"cfg": str(meta["cfg"]).replace("dict(scale=", "dict(keep_ratio=True, scale=")}
    assert (
        stated_preprocess(HRVIT["segment"], "segment", kept, {})[1][-1].replace(" --preprocess short_side=256", "")
        == said
    )


def test_a_plain_resize_aligns_nothing() -> None:
    config = "test_pipeline = [dict(type='mmseg.Resize', keep_ratio=True, scale=(2048, 512))]"
    assert stated_preprocess(LRFORMER["segment"], "segment", {"cfg": config}, {})[0].divisor == 1
    aligned = config.replace("mmseg.Resize", "AlignResize")
    assert stated_preprocess(LRFORMER["segment"], "segment", {"cfg": aligned}, {})[0] == LRFORMER["segment"]


def test_what_cannot_be_served_is_left_out_and_said() -> None:
    config = "img_norm_cfg = dict(mean=[127.5] * 3, std=[1, 1, 1])\n"
    normalise = "dict(type='Normalize', mean=[51, 51, 51], std=[51, 51, 51], to_rgb=False)"
    config += f"test_pipeline = [dict(type='Resize', interpolation='area'), {normalise}]"
    found, notes = stated_preprocess(HRVIT["segment"], "segment", {"config": config}, {})
    assert found == replace(HRVIT["segment"], mean=(0.2, 0.2, 0.2), std=(0.2, 0.2, 0.2), channels="bgr")
    assert notes[0].startswith("what its config says of the size of pictures is left out: interpolation 'area'")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = (",
        "mean = 1\0",
        "a" * 2**21,
        "(" * 5000,
        "x = " + "-" * 10_000 + "1",
        "import os; os.abort()",
        "x = os.abort()",
    ],
    ids=range(8),
)
def test_a_text_that_is_no_configuration_says_nothing(text: str) -> None:
    assert not any(parse_config(text).values())
    assert stated_preprocess(HRVIT["segment"], "segment", {"cfg": text}, {}) == (HRVIT["segment"], ())


@pytest.mark.parametrize(
    "value", [[1, 2], [1, 2, "3"], [1, 2, float("nan")], [True, 1, 1], 3, None, {"a": 1}, [[1], [2], [3]]], ids=str
)
def test_values_of_another_kind_are_not_taken(value: Any) -> None:
    for place in ("args", "hyper_parameters"):
        meta = {place: {"mean": value, "std": value, "crop_pct": value, "interpolation": value}}
        assert stated_preprocess(HRVIT["classify"], "classify", meta, {}) == (HRVIT["classify"], ())


def test_our_own_file_says_all_of_it_and_a_damaged_one_is_refused() -> None:
    text = '{"resize": "letterbox", "interpolation": "bilinear", "crop_pct": 0.875, "mean": [0,0,0], "std": [1,1,1]}'
    found, notes = stated_preprocess(HRVIT["segment"], "segment", {"hiresvit.preprocess": text}, {})
    assert found == PreprocessSpec("letterbox", mean=(0, 0, 0), std=(1, 1, 1))
    assert "is in its metadata: resize letterbox" in notes[0]
    for damaged in (
        "{",
        "[]",
        '{"resize": "keep"}',
        text.replace("letterbox", "squash"),
        text.replace("1,1,1", "0,1,1"),
    ):
        with pytest.raises(HiresvitError, match=r"hiresvit\.preprocess in the metadata is damaged .*convert it again"):
            stated_preprocess(HRVIT["segment"], "segment", {"hiresvit.preprocess": damaged}, {})


def test_the_model_of_a_file_has_it_and_a_converted_file_keeps_it(tmp_path: Path) -> None:
    spec = model_spec("hrvit_nano", imgsz=64)
    text = "data_preprocessor = dict(mean=[51, 102, 153], std=[51, 51, 51], bgr_to_rgb=False)"
    torch.save({"meta": {"cfg": text}, "state_dict": build_model(spec).state_dict()}, tmp_path / "my.pth")
    bgr = replace(spec.preprocess, mean=(0.2, 0.4, 0.6), std=(0.2, 0.2, 0.2), channels="bgr")
    for asked in (
        find_spec("hrvit_nano", tmp_path / "my.pth", imgsz=64),
        find_spec(str(tmp_path / "my.pth"), imgsz=64),
    ):
        assert asked.spec.preprocess == bgr
        assert "my.pth: how it takes a picture is in its cfg: mean 0.2 0.4 0.6" in asked.notes[-1]
        convert_weights(asked.spec, tmp_path / "my.pth", tmp_path / "my.safetensors", force=True)
        again = find_spec("hrvit_nano", tmp_path / "my.safetensors", preprocess={"channels": "rgb"})
        assert again.spec.preprocess == replace(bgr, channels="rgb")
