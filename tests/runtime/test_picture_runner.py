from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiresvit.data.preprocess import preprocess, valid_region
from hiresvit.data.scenes import sample_image
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner, TopClasses
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.spec import ModelSpec, PreprocessSpec, Task, TensorSpec


class Returns(nn.Module):
    """A network whose answer is fixed."""

    def __init__(self, logits: Any) -> None:
        super().__init__()
        self.logits = torch.as_tensor(logits, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


def predictor(
    module: nn.Module, task: Task, classes: int, imgsz: tuple[int, int] = (8, 8), **kwargs: Any
) -> PictureRunner:
    spec = ModelSpec("toy", "toy", task, imgsz, classes, PreprocessSpec())
    runner = TorchRunner(module, (TensorSpec("image", "float32", (1, 3, *imgsz)),), (TensorSpec("y", "float32", ()),))
    return PictureRunner(runner, spec, **kwargs)


def labels_of(logits: Any, height: int, width: int) -> NDArray[Any]:
    result = predictor(Returns(logits), "segment", len(logits[0])).predict(np.zeros((height, width, 3), np.uint8))
    assert isinstance(result, LabelMap)
    return result.labels


@pytest.mark.parametrize("size", [(16, 16), (150, 31), (5, 6), (16, 7), (1, 1)])
def test_labels_are_the_argmax_of_bilinearly_resized_logits(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).standard_normal((1, 5, 16, 16)).astype(np.float32)
    labels = labels_of(logits, *size)
    expected = nn.functional.interpolate(torch.from_numpy(logits), size, mode="bilinear", align_corners=False)
    two = expected.topk(2, dim=1).values[0].numpy()
    sure = two[0] - two[1] > 1e-5  # float32 rounding of logits around 1 differs by up to 1e-6
    assert sure.mean() > 0.99
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[sure], expected.argmax(1)[0].numpy()[sure])


def test_many_classes_need_a_wider_label() -> None:
    logits = np.zeros((1, 300, 2, 2), np.float32)
    logits[0, 299] = 1
    labels = labels_of(logits, 3, 3)
    assert labels.dtype == np.int32
    assert (labels == 299).all()


def test_the_network_sees_the_preprocessed_image() -> None:
    image = sample_image(0, 20, 30)

    class Red(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x[:, :1], torch.zeros_like(x[:, :1])], 1)

    result = predictor(Red(), "segment", 2, (20, 30)).predict(image)
    assert isinstance(result, LabelMap)
    np.testing.assert_array_equal(result.labels == 0, preprocess(image, PreprocessSpec(), (20, 30))[0, 0] >= 0)


def test_classification_lists_the_best_classes() -> None:
    result = predictor(Returns([[math.log(1), math.log(6), math.log(1), math.log(2)]]), "classify", 4, top_k=3).predict(
        np.zeros((9, 9, 3), np.uint8)
    )
    assert isinstance(result, TopClasses)
    assert [index for index, _ in result.top] == [1, 3, 0]  # of the two equals the lower index
    # The logits are float32, so the probabilities are good to about 1e-7.
    assert [p for _, p in result.top] == pytest.approx([0.6, 0.2, 0.1], abs=1e-6)


def test_large_logits_do_not_overflow() -> None:
    result = predictor(Returns([[5000.0, 0.0]]), "classify", 2).predict(np.zeros((9, 9, 3), np.uint8))
    assert isinstance(result, TopClasses)
    assert result.top == ((0, 1.0), (1, 0.0))


def test_nan_is_an_error_and_no_label() -> None:
    logits = np.zeros((1, 3, 4, 4), np.float32)
    logits[0, 1, 2, 2] = np.nan
    with pytest.raises(HiresvitError, match="1 of 48 logits are NaN or Inf"):
        labels_of(logits, 4, 4)


@pytest.mark.parametrize(("shape", "task"), [((1, 3), "segment"), ((1, 4, 2, 2), "segment"), ((2, 3), "classify")])
def test_a_network_that_is_not_the_spec_is_refused(shape: tuple[int, ...], task: Task) -> None:
    with pytest.raises(UsageError, match="its spec says"):
        predictor(Returns(np.zeros(shape)), task, 3).predict(np.zeros((9, 9, 3), np.uint8))


def test_specs_that_cannot_be_predicted_are_refused() -> None:
    with pytest.raises(UsageError, match="raw features are no answer to draw; export the model"):
        predictor(Two(), "features", 3)
    with pytest.raises(UsageError, match="raw masks are no answer to draw"):
        predictor(Two(), "masks", 3)
    with pytest.raises(UsageError, match="top_k 0"):
        predictor(Two(), "classify", 3, top_k=0)
    fine = predictor(Two(), "segment", 3)
    with pytest.raises(UsageError, match="resize=crop"):
        PictureRunner(fine.runner, replace(fine.spec, preprocess=PreprocessSpec("crop")))
    specs = (TensorSpec("a", "float32", ()), TensorSpec("b", "float32", ()))
    with pytest.raises(UsageError, match="1 inputs and 2 outputs"):
        PictureRunner(TorchRunner(Two(), specs[:1], specs), fine.spec)


@pytest.mark.parametrize(("stride", "size"), [(1, (20, 30)), (1, (80, 120)), (4, (40, 60))])
def test_the_filled_part_of_the_input_has_no_say(stride: int, size: tuple[int, int]) -> None:
    """As mmsegmentation undoes a padding: logits to the input's size, cut to the picture, to the picture's own size.

    The network answers at random where the picture is, and one class more surely than any other where it is not.
    """
    imgsz, region = (40, 88), (40, 60)
    logits = np.random.default_rng(0).standard_normal((1, 4, 40 // stride, 88 // stride)).astype(np.float32)
    logits[:, 3] = -9
    logits[:, 3, :, -(-region[1] // stride) :] = 99
    spec = ModelSpec("toy", "toy", "segment", imgsz, 4, PreprocessSpec("keep", filter="opencv", rounding="round"))
    assert valid_region(size, spec.preprocess, imgsz)[2:] == region
    runner = predictor(Returns(logits), "segment", 4, imgsz).runner
    found = PictureRunner(runner, spec).predict(np.zeros((*size, 3), np.uint8))
    whole = nn.functional.interpolate(torch.from_numpy(logits), imgsz, mode="bilinear")[..., : region[0], : region[1]]
    expected = nn.functional.interpolate(whole, size, mode="bilinear")
    two = expected.topk(2, dim=1).values[0].numpy()
    sure = two[0] - two[1] > 1e-4  # float32 rounding of logits up to 99
    assert isinstance(found, LabelMap)
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(found.labels[sure], expected.argmax(1)[0].numpy()[sure])
    assert (found.labels == 3).mean() < 0.1


class Two(nn.Module):
    """A module that is never called."""
