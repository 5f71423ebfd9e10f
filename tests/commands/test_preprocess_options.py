"""Options that say how a picture becomes the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from by_path import ROOT
from conftest import Cli

from hiresvit.commands import preprocess_options as opt
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.spec import ModelSpec, PreprocessSpec


def test_preprocessing_is_read_by_the_names_of_its_fields() -> None:
    texts = ["resize=keep", "crop_pct=0.95", "divisor=32", "mean=0.5, 0.5,0.5"]
    assert opt.parse_preprocess(texts) == {
        "resize": "keep",
        "crop_pct": 0.95,
        "divisor": 32,
        "mean": (0.5, 0.5, 0.5),
    }
    assert opt.parse_preprocess(["stride=768", "short_side=512"]) == {"stride": (768, 768), "short_side": 512}
    assert opt.parse_preprocess(["stride=96x128"]) == {"stride": (96, 128)}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["size=3"], "names are resize, interpolation"),
        (["resize"], "give NAME=VALUE"),
        (["resize=keep", "resize=crop"], "already set to keep"),
        (["crop_pct=much"], "give a number"),
        (["std=a,b,c"], "three numbers"),
    ],
)
def test_preprocessing_that_says_nothing_is_refused(texts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        opt.parse_preprocess(texts)


def test_preprocessing_is_for_a_model_name(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is part of the spec that is exported, and a bundle brings its own."""
    from hiresvit.workflows import export

    got: list[ModelSpec] = []

    def noted(spec: ModelSpec, *_: Any, **__: Any) -> None:
        got.append(spec)
        raise HiresvitError("far enough")

    monkeypatch.setattr(export, "export_bundle", noted)
    assert cli("export", "hrvit_nano", "--preprocess", "resize=keep", "--preprocess", "divisor=8").code == 1
    assert got[0].preprocess == PreprocessSpec("keep", divisor=8)
    refused = cli("run", tmp_path, ROOT / "examples" / "street.jpg", "--preprocess", "resize=stretch")
    assert refused.code == 2
    assert "--preprocess, --resize and what else is about pictures: for a model name;" in refused.err
    options = ["--resize", "letterbox", "--mean", "0.5,0.25,0", "--std", "1,1,1", "--channels", "bgr"]
    assert cli("export", "hrvit_nano", *options, "--preprocess", "divisor=8").code == 1
    assert got[1].preprocess == PreprocessSpec(
        "letterbox", mean=(0.5, 0.25, 0.0), std=(1.0, 1.0, 1.0), channels="bgr", divisor=8
    )
    options = ["--resize", "crop", "--crop-pct", "0.5", "--interpolation", "bilinear", "--task", "features"]
    assert cli("export", "hrvit_b1", *options, "--preprocess", "filter=pillow").code == 1
    assert (got[2].preprocess.crop_pct, got[2].preprocess.interpolation) == (0.5, "bilinear")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("--mean 0.5,0.5", "mean (0.5, 0.5): it must be three finite numbers"),
        ("--mean grey", "--mean grey: give three numbers such as 0.5,0.5,0.5"),
        ("--mean 123.675,116.28,103.53", "pixels from 0 to 1; if yours is of 0 to 255, give 0.485,0.456,0.406"),
        ("--std 0.2,0.2,0", "each must be over 0"),
        ("--mean 0,0,0 --preprocess mean=0,0,0", "--mean 0,0,0: --preprocess gives mean, too: leave one of them out"),
        ("--resize keep --preprocess resize=crop", "--resize keep: --preprocess gives resize, too"),
        ("--interpolation bicubic", "give filter=pillow, too (--preprocess filter=pillow)"),
        ("--crop-pct 0.9", "crop_pct is for resize=crop; here it is keep"),
        ("--resize crop", "resize=crop leaves pixels without a label"),
        ("--preprocess stride=9", "stride is for resize=slide; here it is keep"),
        ("--resize slide --preprocess stride=9,wide", "give HEIGHTxWIDTH such as 768x768, or one number for both"),
        ("--resize slide --preprocess stride=513", "stride 513x513: it must be at most the input's size, 512x512"),
        ("--resize slide --task features", "for segment only; the task is features"),
        ("--resize squash", "'stretch', 'crop', 'keep', 'letterbox', 'slide'"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(cli: Cli, typed: str, words: str) -> None:
    result = cli("export", "hrvit_b1", "--task", "segment", *typed.split())
    assert result.code == 2
    assert words in " ".join(result.err.split())
    assert "Traceback" not in result.err
