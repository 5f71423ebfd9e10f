"""Pictures through graphs of the contracts image and camera: labels, confidence and classes as they come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hiresvit.data.preprocess import network_picture
from hiresvit.data.scenes import sample_image
from hiresvit.errors import UsageError
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner, TopClasses
from hiresvit.runtime.runner import About, Runner
from hiresvit.spec import ContractSpec, ModelSpec, PreprocessSpec, Task, TensorSpec

KEEP = PreprocessSpec("keep")


class Graph(Runner):
    """Its labels are the halves of red, and its confidence is green."""

    def __init__(self, *outputs: str) -> None:
        self.inputs = (TensorSpec("image", "uint8", (1, 1, 1, 3)),)
        self.outputs = tuple(TensorSpec(name, "uint8", ()) for name in outputs)
        self.about = About("toy", "1", "CPU")

    def __call__(self, feeds: Any) -> dict[str, Any]:
        image = feeds["image"]
        values = {
            "labels": image[..., 0] // 128,
            "confidence": image[..., 1],
            "classes": np.array([[4, 2, 0]], np.int32),
            "probabilities": np.array([[0.5, 0.25, 0.125]], np.float32),
        }
        return {tensor.name: values[tensor.name] for tensor in self.outputs}

    def close(self) -> None:
        return None


def network(task: Task, contract: ContractSpec, *outputs: str, **options: Any) -> PictureRunner:
    return PictureRunner(Graph(*outputs), ModelSpec("toy", "toy", task, (32, 64), 5, KEEP), contract, **options)


def test_labels_of_the_network_are_enlarged_with_their_confidence() -> None:
    image, contract = sample_image(2, 64, 100), ContractSpec("image", size=(32, 64), confidence=True)
    found = network("segment", contract, "labels", "confidence", confidence=True).predict(image)
    assert isinstance(found, LabelMap)
    assert found.confidence is not None
    seen = network_picture(image, KEEP, (32, 64))[:, :50]  # 100 / 2; the rest shows nothing
    rows, columns = np.arange(64) // 2, np.arange(100) // 2
    np.testing.assert_array_equal(found.labels, seen[rows][:, columns, 0] // 128)
    np.testing.assert_array_equal(found.confidence, seen[rows][:, columns, 1])


def test_a_cameras_labels_are_taken_as_they_are() -> None:
    image, contract = sample_image(2, 48, 80), ContractSpec("camera", size=(48, 80), confidence=True)
    found = network("segment", contract, "labels", "confidence", confidence=True).predict(image)
    assert isinstance(found, LabelMap)
    np.testing.assert_array_equal(found.labels, image[..., 0] // 128)
    np.testing.assert_array_equal(found.confidence, image[..., 1])
    without = network("segment", contract, "labels", "confidence").predict(image)
    assert isinstance(without, LabelMap)
    assert without.confidence is None
    with pytest.raises(UsageError, match="picture is 48x81; this is made for a camera of 48x80"):
        network("segment", contract, "labels").predict(sample_image(2, 48, 81))


def test_the_classes_that_come_out() -> None:
    contract = ContractSpec("image", size=(32, 64), top_k=3)
    found = network("classify", contract, "classes", "probabilities", top_k=2).predict(sample_image(2, 9, 9))
    assert isinstance(found, TopClasses)
    assert found.top == ((4, 0.5), (2, 0.25))


def test_what_does_not_come_out_cannot_be_asked_for() -> None:
    contract = ContractSpec("image", size=(32, 64))
    with pytest.raises(UsageError, match="no confidence comes out of this graph; export it with --confidence"):
        network("segment", contract, "labels", confidence=True)
    with pytest.raises(UsageError, match=r"contract image gives labels, and not \['logits'\]"):
        network("segment", contract, "logits")
    with pytest.raises(UsageError, match="confidence is of labels"):
        network("classify", ContractSpec(), "logits", confidence=True)
