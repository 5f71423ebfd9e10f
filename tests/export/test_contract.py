"""What goes into a deployed graph and what comes out, and what it says about itself. In real graphs: test_onnx."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from graphs import build
from tiny import CLASSES, tiny_spec

from hiresvit.errors import ArtefactError, UsageError
from hiresvit.export.contract import (
    INPUT,
    TENSOR,
    check_contract,
    complete,
    contract_inputs,
    contract_outputs,
    input_spec,
    output_names,
    output_specs,
    read_contract,
    read_stamp,
    stamp,
)
from hiresvit.export.deployed import Deployed
from hiresvit.models.create import model_spec
from hiresvit.models.zoo import MODELS
from hiresvit.spec import ContractSpec, ModelSpec, Task, TensorSpec


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


def plus(task: Task) -> ModelSpec:
    """LRFormer+, whose head is one of queries."""
    return model_spec("lrformer_t_plus", task, (64, 96), 7)


def test_masks_come_out_as_they_are() -> None:
    assert output_specs(plus("masks"), 2) == (
        TensorSpec("classes", "float32", (2, 100, 8)),
        TensorSpec("masks", "float32", (2, 100, 16, 24)),
    )
    assert output_names(plus("masks")) == ["classes", "masks"]
    with torch.device("meta"):
        built = Deployed(MODELS["lrformer_t_plus"].build(plus("masks")), plus("masks"))
        outputs = built.eval()(torch.empty(2, 3, 64, 96))
    assert [tuple(value.shape) for value in outputs] == [one.shape for one in output_specs(plus("masks"), 2)]


def test_labels_of_queries_are_labels() -> None:
    contract = complete(plus("segment"), ContractSpec("camera", size=(100, 80)))
    assert contract_outputs(plus("segment"), contract) == (TensorSpec("labels", "uint8", (1, 100, 80)),)


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


class TestComplete:
    def test_of_a_segmentor(self) -> None:
        spec = tiny_spec()
        assert complete(spec, ContractSpec("image")) == ContractSpec("image", size=(64, 96), label_type="uint8")
        camera = complete(spec, ContractSpec("camera", "nv12", size=(40, 60), confidence=True))
        assert camera == ContractSpec("camera", "nv12", (40, 60), "bt709", "uint8", confidence=True)
        assert complete(spec, camera) == camera

    def test_of_many_classes(self) -> None:
        assert complete(replace(tiny_spec(), num_classes=257), ContractSpec("image")).label_type == "int32"

    def test_of_a_classifier(self) -> None:
        spec = replace(tiny_spec("classify"), num_classes=1000)
        assert complete(spec, ContractSpec("image")) == ContractSpec(
            "image", size=(64, 96), label_type="int32", top_k=5
        )

    def test_of_features_and_of_a_tensor(self) -> None:
        spec = tiny_spec("features")
        assert complete(spec, ContractSpec("image")) == ContractSpec("image", size=(64, 96))
        assert complete(spec, TENSOR) == TENSOR


class TestBorder:
    def test_of_a_tensor(self) -> None:
        assert contract_inputs(tiny_spec(), TENSOR, 2) == (input_spec(tiny_spec(), 2),)
        assert contract_outputs(tiny_spec(), TENSOR, 2) == output_specs(tiny_spec(), 2)

    def test_of_pixels(self) -> None:
        spec = tiny_spec()
        rgba = complete(spec, ContractSpec("camera", "rgba", size=(41, 53)))
        assert contract_inputs(spec, rgba, "N") == (TensorSpec("image", "uint8", ("N", 41, 53, 4)),)
        planes = complete(spec, ContractSpec("camera", "nv12", size=(40, 62)))
        assert contract_inputs(spec, planes) == (
            TensorSpec("y", "uint8", (1, 40, 62)),
            TensorSpec("uv", "uint8", (1, 20, 31, 2)),
        )

    def test_of_answers(self) -> None:
        spec = tiny_spec()
        camera = complete(spec, ContractSpec("camera", size=(41, 53), label_type="int64", confidence=True))
        assert contract_outputs(spec, camera) == (
            TensorSpec("labels", "int64", (1, 41, 53)),
            TensorSpec("confidence", "uint8", (1, 41, 53)),
        )
        classes = complete(tiny_spec("classify"), ContractSpec("image", top_k=2))
        assert contract_outputs(tiny_spec("classify"), classes, "N") == (
            TensorSpec("classes", "int32", ("N", 2)),
            TensorSpec("probabilities", "float32", ("N", 2)),
        )
        features = tiny_spec("features")
        assert contract_outputs(features, complete(features, ContractSpec("image"))) == output_specs(features)


def resized(spec: ModelSpec, resize: str) -> ModelSpec:
    return ModelSpec.from_json({**spec.to_json(), "preprocess": {**spec.to_json()["preprocess"], "resize": resize}})


SEGMENT, CLASSIFY, FEATURES = tiny_spec(), tiny_spec("classify"), tiny_spec("features")
IMPOSSIBLE: list[tuple[ModelSpec, ContractSpec, str]] = [
    (SEGMENT, ContractSpec("tensor", confidence=True), "confidence with contract tensor"),
    (SEGMENT, ContractSpec("tensor", "bgr"), "pixels with contract tensor"),
    (SEGMENT, ContractSpec("camera"), "contract camera has no size"),
    (SEGMENT, ContractSpec("camera", size=(1, 100)), "camera of 1x100: its sides must be from 2 to 16384"),
    (SEGMENT, ContractSpec("camera", size=(100, 16385)), "camera of 100x16385"),
    (SEGMENT, ContractSpec("image", size=(64, 64)), "contract image of 64x64: its pixels are the network's, 64x96"),
    (SEGMENT, ContractSpec("camera", "nv12", size=(40, 61)), "nv12 pixels of 40x61: both sides must be even"),
    (replace(SEGMENT, imgsz=(64, 97)), ContractSpec("image", "nv12"), "nv12 pixels of 64x97"),
    (SEGMENT, ContractSpec("image", "rgb", yuv="bt601"), "yuv bt601 with rgb pixels"),
    (replace(SEGMENT, num_classes=257), ContractSpec("image", label_type="uint8"), "257 classes as uint8 labels"),
    (SEGMENT, ContractSpec("image", top_k=3), "top_k 3 with task segment"),
    (CLASSIFY, ContractSpec("image", confidence=True), "confidence with task classify"),
    (CLASSIFY, ContractSpec("image", label_type="uint8"), "uint8 class numbers"),
    (CLASSIFY, ContractSpec("image", top_k=CLASSES + 1), f"top_k {CLASSES + 1}: from 1 to {CLASSES}"),
    (CLASSIFY, ContractSpec("image", top_k=0), "top_k 0: from 1"),
    (FEATURES, ContractSpec("image", label_type="int32"), "label_type int32 with task features"),
    (FEATURES, ContractSpec("image", confidence=True), "confidence with task features"),
    (plus("segment"), ContractSpec("image", confidence=True), "lrformer_t_plus: no confidence comes of it"),
    (plus("masks"), ContractSpec("image"), "contract image with task masks: .* export task segment for labels"),
    (resized(SEGMENT, "slide"), ContractSpec("image"), "contract image with resize slide"),
    (resized(SEGMENT, "slide"), ContractSpec("camera", size=(40, 60)), "contract camera with resize slide"),
    (resized(SEGMENT, "crop"), ContractSpec("camera", size=(40, 60)), "leaves pixels without a label"),
]


@pytest.mark.parametrize(("spec", "contract", "said"), IMPOSSIBLE, ids=[said for _, _, said in IMPOSSIBLE])
def test_what_cannot_be(spec: ModelSpec, contract: ContractSpec, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        complete(spec, contract)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("contract", "said"),
    [
        (ContractSpec("image"), "has no size"),
        (ContractSpec("image", "nv12", size=(64, 96), label_type="uint8"), "without their colours"),
        (ContractSpec("image", size=(64, 96)), "no label_type"),
    ],
)
def test_a_contract_is_to_be_filled_in(contract: ContractSpec, said: str) -> None:
    for ask in (check_contract, contract_inputs, contract_outputs):
        with pytest.raises(UsageError, match=said):
            ask(SEGMENT, contract)


class TestMetadata:
    def test_a_contract_is_read_back(self) -> None:
        for contract in (
            complete(SEGMENT, ContractSpec("camera", "nv12", size=(40, 62), confidence=True)),
            complete(SEGMENT, ContractSpec("image", "bgra", label_type="int64")),
        ):
            model = build("g (float[1] x) => (float[1] y) { y = Relu(x) }")
            stamp(model, SEGMENT, "fp16", contract=contract)
            assert read_contract({prop.key: prop.value for prop in model.metadata_props}) == contract

    def test_a_tensors_is_not_written(self) -> None:
        model = build("g (float[1] x) => (float[1] y) { y = Relu(x) }")
        stamp(model, SEGMENT, "fp16", contract=TENSOR)
        found = {prop.key: prop.value for prop in model.metadata_props}
        assert "hiresvit.contract" not in found
        assert read_contract(found) == TENSOR

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "image"}', '{"name": "camera", "size": [1]}'])
    def test_a_damaged_one(self, text: str) -> None:
        with pytest.raises(ArtefactError, match=r"hiresvit\.contract metadata is damaged.*export the graph again"):
            read_contract({"hiresvit.contract": text})
