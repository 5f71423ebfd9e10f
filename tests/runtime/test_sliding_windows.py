"""Windows over a picture, against what PyTorch makes of whole sums."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiresvit.data.preprocess import preprocess, slide_picture, window_spec, windows
from hiresvit.data.scenes import sample_image
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner
from hiresvit.runtime.slide import slide_labels
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.spec import ContractSpec, ModelSpec, PreprocessSpec, TensorSpec

CLASSES = 4


class Small(nn.Module):
    """Answers at a stride, and by where in its window something is: windows that overlap disagree."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, CLASSES, stride + 4, stride, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.convolution(x)
        return logits + torch.linspace(-1, 1, logits.shape[3]) * torch.tensor([1.0, -1, 0.5, 0])[:, None, None]


def runner(module: nn.Module, imgsz: tuple[int, int], **preprocessing: Any) -> PictureRunner:
    spec = ModelSpec("toy", "toy", "segment", imgsz, CLASSES, PreprocessSpec("slide", **preprocessing))
    sides = (TensorSpec("image", "float32", (1, 3, *imgsz)),), (TensorSpec("logits", "float32", ()),)
    return PictureRunner(TorchRunner(module, *sides), spec)


def as_mmseg(module: nn.Module, image: NDArray[np.uint8], of: PictureRunner) -> NDArray[np.float32]:
    """The logits of mmsegmentation's slide_inference, at the picture's size, with all sums whole."""
    spec, imgsz = of.spec.preprocess, of.spec.imgsz
    picture = slide_picture(image, spec, imgsz)
    whole = picture.shape[:2]
    sums, count = torch.zeros(1, CLASSES, *whole), torch.zeros(1, 1, *whole)
    stride = spec.stride or (imgsz[0] * 3 // 4, imgsz[1] * 3 // 4)
    for top, left in windows((whole[0], whole[1]), imgsz, stride):
        place = (..., slice(top, top + imgsz[0]), slice(left, left + imgsz[1]))
        window = preprocess(picture[top : top + imgsz[0], left : left + imgsz[1]], window_spec(spec), imgsz)
        with torch.no_grad():
            logits = module(torch.from_numpy(window))
        sums[place] += nn.functional.interpolate(logits, imgsz, mode="bilinear", align_corners=False)
        count[place] += 1
    full = nn.functional.interpolate(sums / count, image.shape[:2], mode="bilinear", align_corners=False)
    return full[0].numpy()


@pytest.mark.parametrize("stride_of_head", [1, 4])
@pytest.mark.parametrize(
    ("size", "imgsz", "preprocessing"),
    [
        ((128, 256), (128, 128), {"stride": (96, 96)}),  # Cityscapes: 1024x2048 by 1024x1024, stride 768
        ((150, 201), (64, 48), {}),
        ((90, 130), (64, 64), {"short_side": 72, "stride": (40, 64)}),
        ((40, 300), (64, 64), {"rounding": "round"}),  # scaled up to the window's height
        ((64, 64), (64, 64), {}),
    ],
    ids=str,
)
def test_as_mmsegmentation_slides(
    size: tuple[int, int], imgsz: tuple[int, int], preprocessing: dict[str, Any], stride_of_head: int
) -> None:
    module, image = Small(stride_of_head), sample_image(1, *size)
    of = runner(module, imgsz, **preprocessing)
    expected = as_mmseg(module, image, of)
    found = of.predict(image)
    assert isinstance(found, LabelMap)
    assert found.labels.shape == size
    two = np.sort(expected, 0)[-2:]
    sure = two[1] - two[0] > 1e-4  # sums of up to 16 windows of logits around 3, in another order
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(found.labels[sure], expected.argmax(0)[sure])
    assert len(np.unique(found.labels)) > 1
    certain = PictureRunner(of.runner, of.spec, confidence=True).predict(image)
    assert isinstance(certain, LabelMap)
    assert certain.confidence is not None
    powers = np.exp(expected - expected.max(0)).sum(0)
    assert np.abs(certain.confidence - 255 / powers).max() < 0.51


def test_rows_of_windows_that_lie_wrong_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module, image = Small(4), sample_image(1, 256, 128)
    of = runner(module, (128, 128), stride=(96, 96))
    monkeypatch.setattr("hiresvit.runtime.slide._shift", lambda sums, rows: None)
    found = of.predict(image)
    assert isinstance(found, LabelMap)
    assert (found.labels != as_mmseg(module, image, of).argmax(0)).mean() > 0.05


def test_a_stride_of_the_callers_makes_any_tensor_bundle_slide() -> None:
    module, image = Small(4), sample_image(1, 128, 256)
    of = runner(module, (64, 64), stride=(32, 48))
    stretched = replace(of.spec, preprocess=PreprocessSpec())
    expected, found = of.predict(image), PictureRunner(of.runner, stretched, stride=(32, 48)).predict(image)
    assert isinstance(expected, LabelMap)
    assert isinstance(found, LabelMap)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_where_nothing_can_slide() -> None:
    of = runner(Small(4), (64, 64))
    with pytest.raises(UsageError, match="stride 65x64: it must be at most"):
        PictureRunner(of.runner, of.spec, stride=(65, 64))
    with pytest.raises(UsageError, match=r"stride .*two whole numbers"):
        PictureRunner(of.runner, of.spec, stride=(0, 64))
    for spec, contract in ((replace(of.spec, task="classify"), "tensor"), (of.spec, "image")):
        with pytest.raises(UsageError, match="windows slide for a segmentor of contract tensor"):
            PictureRunner(of.runner, spec, ContractSpec(contract))  # type: ignore[arg-type]


def test_a_window_of_nan_is_an_error() -> None:
    module = Small(4)
    nn.init.constant_(module.convolution.weight, float("nan"))
    with pytest.raises(HiresvitError, match=r"toy: .* logits are NaN or Inf"):
        runner(module, (64, 64)).predict(sample_image(1, 100, 100))


def test_sums_are_as_high_as_a_window() -> None:
    """Of a picture four times as high as wide; all of its sums would be 33 MB."""
    logits = np.random.default_rng(0).standard_normal((CLASSES, 8, 16), dtype=np.float32)
    sizes = ((64, 512), (4096, 512), (4096, 512))
    placed = windows(sizes[1], sizes[0], (64, 512))
    slide_labels(lambda top, left: logits, placed, sizes, CLASSES)
    tracemalloc.start()
    try:
        labels, _ = slide_labels(lambda top, left: logits, placed, sizes, CLASSES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert labels.shape == (4096, 512)
    assert peak < 26e6
