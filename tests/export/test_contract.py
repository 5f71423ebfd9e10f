"""What goes into a deployed graph and what comes out, and what it says about itself. In real graphs: test_onnx."""

from __future__ import annotations

from dataclasses import replace

import pytest
from graphs import build
from tiny import CLASSES, tiny_spec

from hiresvit.errors import ArtefactError
from hiresvit.export.contract import INPUT, input_spec, output_names, output_specs, read_stamp, stamp
from hiresvit.spec import TensorSpec


@pytest.mark.parametrize("batch", [1, 4, "batch"])
def test_a_picture_goes_in(batch: int | str) -> None:
    assert input_spec(tiny_spec(), batch) == TensorSpec(INPUT, "float32", (batch, 3, 64, 96))


def test_answers_come_out() -> None:
    assert output_specs(tiny_spec("classify"), 2) == (TensorSpec("logits", "float32", (2, CLASSES)),)
    assert output_specs(tiny_spec("segment"), "batch") == (TensorSpec("logits", "float32", ("batch", CLASSES, 64, 96)),)
    assert output_names(tiny_spec("classify")) == output_names(tiny_spec("segment")) == ["logits"]


def test_feature_maps_come_out_by_stride() -> None:
    specs = output_specs(tiny_spec("features"))
    assert [spec.name for spec in specs] == output_names(tiny_spec("features"))
    assert [(spec.name, spec.shape) for spec in specs] == [
        ("features_4", (1, "channels", 16, 24)),
        ("features_8", (1, "channels", 8, 12)),
        ("features_16", (1, "channels", 4, 6)),
        ("features_32", (1, "channels", 2, 3)),
    ]


def test_a_size_between_strides_is_rounded_up() -> None:
    """A family that takes it pads its input."""
    spec = replace(tiny_spec("features"), imgsz=(65, 97), strides=(8, 32))
    assert [spec.shape[2:] for spec in output_specs(spec)] == [(9, 13), (3, 4)]


def test_a_stamp_is_read_back_and_keeps_what_was_there() -> None:
    model = build("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    model.metadata_props.add(key="author", value="somebody")
    spec = replace(tiny_spec(), overrides=(("drop_path", 0.1),))
    stamp(model, spec, "fp32")
    stamp(model, spec, "int8")  # of the last stage
    found = {prop.key: prop.value for prop in model.metadata_props}
    assert read_stamp(found) == (spec, "int8")
    assert found["author"] == "somebody"
    assert len(model.metadata_props) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "hrvit_b1"}'])
def test_a_stamp_that_is_damaged(text: str) -> None:
    with pytest.raises(ArtefactError, match=r"hiresvit\.spec metadata is damaged"):
        read_stamp({"hiresvit.spec": text})


def test_a_stage_alone_is_no_stamp() -> None:
    assert read_stamp({"hiresvit.stage": "fp32"}) is None
