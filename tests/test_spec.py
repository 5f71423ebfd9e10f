"""What is said about a model: the same after a trip through JSON, and no spec from what is none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hiresvit.schema import SPEC, check_spec, compile_schema
from hiresvit.spec import STRIDES, AnchorSpec, ModelSpec, PreprocessSpec

PLAIN = ModelSpec("hrvit_b1", "hrvit", "segment", (512, 1024), 19, PreprocessSpec())
EVERYTHING = ModelSpec(
    name="hiri_vit_s",
    family="hiri_vit",
    task="features",
    imgsz=(448, 224),
    num_classes=0,
    preprocess=PreprocessSpec("keep", "bicubic", 0.9, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "opencv", "round", 8),
    overrides=(("drop_path", 0.1), ("head", "wide"), ("stride_plan", (2, 2, 1))),
    strides=(8, 16, 32, 64),
    anchors=AnchorSpec(
        strides=(16, 32),
        scales=(1.0, 1.5),
        ratios=(0.5, 2.0),
        base=3.0,
        means=(0.0, 0.1, 0.2, 0.3),
        stds=(0.1, 0.1, 0.2, 0.2),
        size_clamp=0.02,
        score_threshold=0.3,
        per_level=400,
        iou_threshold=0.6,
        max_boxes=300,
    ),
)


def through_json(spec: ModelSpec) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(spec.to_json(), allow_nan=False))
    return values


@pytest.mark.parametrize("spec", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_a_spec_is_the_same_after_json(spec: ModelSpec) -> None:
    back = ModelSpec.from_json(through_json(spec))
    assert back == spec
    assert hash(back) == hash(spec)  # lists for tuples would be unequal and have no hash at all


def test_every_field_counts() -> None:
    for field, value in EVERYTHING.to_json().items():
        assert value != PLAIN.to_json().get(field), f"the two specs do not show whether {field} is kept"


def test_older_manifests_know_one_resampling() -> None:
    """What they did: Pillow's filters, sides rounded down."""
    values = through_json(PLAIN)
    for later in ("filter", "rounding", "divisor"):
        del values["preprocess"][later]
    assert ModelSpec.from_json(values) == PLAIN
    assert (PLAIN.preprocess.filter, PLAIN.preprocess.rounding, PLAIN.preprocess.divisor) == ("pillow", "floor", 1)


def test_older_manifests_have_no_strides() -> None:
    values = through_json(PLAIN)
    del values["strides"]
    assert ModelSpec.from_json(values).strides == STRIDES


def test_every_field_of_the_anchors_counts() -> None:
    assert EVERYTHING.anchors is not None
    plain = vars(AnchorSpec())
    assert all(value != plain[field] for field, value in vars(EVERYTHING.anchors).items())
    assert (EVERYTHING.anchors.per_cell, AnchorSpec().per_cell) == (4, 9)


def test_anchors_are_a_detector_s() -> None:
    """Without them its outputs mean nothing, and where other tasks had some, something was mixed up."""
    detect = through_json(replace(EVERYTHING, task="detect"))
    for values in (detect, through_json(PLAIN)):
        compile_schema(SPEC)(values)
        check_spec(values)
    assert "anchors" not in PLAIN.to_json()
    with pytest.raises(ValueError, match="spec of task features has anchors"):
        check_spec(through_json(EVERYTHING))
    del detect["anchors"]
    with pytest.raises(ValueError, match="spec of task detect lacks anchors"):
        check_spec(detect)


def test_reading_changes_nothing_in_what_was_read() -> None:
    values = through_json(EVERYTHING)
    before = json.dumps(values)
    ModelSpec.from_json(values)
    assert json.dumps(values) == before


@pytest.mark.parametrize("field", ["name", "family", "task", "imgsz", "num_classes", "preprocess", "overrides"])
def test_a_field_that_is_missing_is_no_spec(field: str) -> None:
    values = through_json(PLAIN)
    del values[field]
    with pytest.raises((KeyError, TypeError), match=field):
        ModelSpec.from_json(values)


@pytest.mark.parametrize(
    "change",
    [
        {"imgsz": 512},
        {"imgsz": [512]},
        {"imgsz": [512, 512, 3]},
        {"preprocess": None},
        {"preprocess": {"mean": [0, 0, 0], "std": [1, 1, 1], "gamma": 2}},
        {"preprocess": {}},
        {"overrides": [["drop_path"]]},
        {"strides": 4},
        {"colour": "red"},
    ],
    ids=str,
)
def test_other_values_are_no_spec(change: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        ModelSpec.from_json(through_json(PLAIN) | change)


def test_the_slug_says_height_first() -> None:
    assert PLAIN.slug == "hrvit_b1-segment-512x1024"
    assert replace(PLAIN, task="features", imgsz=(32, 64)).slug == "hrvit_b1-features-32x64"
