"""Protocols against an independent referee: windows, mirror images and scales written down in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tiny import CLASSES, tiny_model, tiny_spec
from torch import Tensor, nn

from hiresvit.commands.protocol_options import ProtocolOptions
from hiresvit.data.resample import resample
from hiresvit.data.scenes import sample_image
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.evaluation.passes import Passes
from hiresvit.evaluation.protocol import PROTOCOLS, Answerer, Protocol, answerer, find_protocol
from hiresvit.export.deployed import Deployed
from hiresvit.models.create import model_spec
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner, TopClasses
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.spec import ContractSpec, ModelSpec, PreprocessSpec, TensorSpec

TENSOR = ContractSpec()
SPEC = tiny_spec("segment", (64, 96))
# Probabilities in float32, of logits that were added and resized in another order, differ by up to 2e-6; the smallest
# of `MISTAKES` costs 2e-3.
TOLERANCE = 2e-5


class Loud(nn.Module):
    """The tiny network with logits so far apart that their softmax is no line any more."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.network = Deployed(tiny_model(spec), spec)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)
        return 3 * logits / logits.std()


class Small(nn.Module):
    """Answers by where in its window something is, so that windows, mirror images and scales disagree."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.convolution = nn.Conv2d(3, CLASSES, 5, padding=2)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = 2 * self.convolution(image)
        return logits + torch.linspace(-1, 1, logits.shape[3]) * torch.linspace(-1, 1, CLASSES)[:, None, None]


def runner_of(spec: ModelSpec, module: nn.Module) -> TorchRunner:
    sides = (TensorSpec("image", "float32", (1, 3, *spec.imgsz)),), (TensorSpec("logits", "float32", ()),)
    return TorchRunner(module, *sides)


@dataclass(frozen=True)
class Referee:
    """What mmsegmentation does, and each of its steps done wrong."""

    module: nn.Module
    spec: ModelSpec
    box: tuple[int, int]
    whole: bool = False
    stride: tuple[int, int] | None = None
    divisor: int = 1
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    back: bool = True
    softmax: bool = True
    fill: float = 0.0

    def scaled(self, size: tuple[int, int], scale: float) -> list[tuple[int, int]]:
        """mmcv's rescale_size: the longer side within the long limit, the shorter within the short one."""
        long, short = int(self.box[1] * scale), int(self.box[0] * scale)
        factor = min(long / max(size), short / min(size))
        if self.whole:
            factor = min(factor, *(int(side * scale) / one for side, one in zip(self.spec.imgsz, size, strict=True)))
        kept = int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)
        up = tuple(-(-side // self.divisor) * self.divisor for side in kept)
        return [kept, (up[0], up[1])]

    def logits(self, image: NDArray[np.uint8], scale: float, *, flipped: bool) -> Tensor:
        size, (high, wide) = image.shape[:2], self.spec.imgsz
        by = replace(PreprocessSpec(), filter="opencv")  # held to OpenCV's own numbers in tests/data/test_resample.py
        for wanted in self.scaled((size[0], size[1]), scale):
            image = resample(image, wanted, by)
        x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
            :, None, None
        ]
        height, width = x.shape[2:]
        x = x.flip(3) if flipped else x
        x = F.pad(x, (0, max(wide - width, 0), 0, max(high - height, 0)), value=self.fill)
        sums, count = torch.zeros(1, CLASSES, *x.shape[2:]), torch.zeros(1, 1, *x.shape[2:])
        down, across = self.stride or (high * 3 // 4, wide * 3 // 4)
        for row in range(max(x.shape[2] - high + down - 1, 0) // down + 1):
            for column in range(max(x.shape[3] - wide + across - 1, 0) // across + 1):
                bottom, right = min(row * down + high, x.shape[2]), min(column * across + wide, x.shape[3])
                place = (..., slice(bottom - high, bottom), slice(right - wide, right))
                with torch.no_grad():
                    sums[place] += self.module(x[place])
                count[place] += 1
        found = (sums / count)[:, :, :height, :width].double()  # in float32 PyTorch places column 100 1e-5 beside it
        return F.interpolate(found, (size[0], size[1]), mode="bilinear", align_corners=False)[0]

    def probabilities(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        total = []
        for scale in self.scales:
            for flipped in (False, True)[: 1 + self.flip]:
                found = self.logits(image, scale, flipped=flipped)
                found = found.softmax(0) if self.softmax else found
                total.append(found.flip(2) if flipped and self.back else found)
        mean = torch.stack(total).mean(0)
        return (mean if self.softmax else mean.softmax(0)).numpy()


def passes(spec: ModelSpec, name: str, module: nn.Module, **options: Any) -> Passes:
    """A protocol's passes with a short side of 80 and a long one of at most 200, so that few windows are enough."""
    found = find_protocol(name, spec, TENSOR, **options)
    made = answerer(runner_of(spec, module), spec, TENSOR, replace(found, box=(80, 200)))
    assert isinstance(made, Passes)
    return made


CASES: dict[str, tuple[str, tuple[int, int], dict[str, Any]]] = {
    "windows": ("ade20k-keep", (120, 170), {}),
    "windows, upright": ("cityscapes-slide", (170, 120), {}),
    "windows, long": ("ade20k-keep", (50, 190), {}),
    "flip": ("ade20k-keep", (90, 131), {"flip": True}),
    "scales": ("cityscapes-slide", (60, 111), {"scales": (0.5, 0.75, 1.0, 1.25)}),
    "scales and flip": ("ade20k-keep", (110, 81), {"scales": (0.5, 1.0, 1.75), "flip": True}),
    "one scale": ("ade20k-keep", (90, 120), {"scales": (0.75,)}),
    "whole": ("cityscapes-whole", (90, 140), {}),
    "whole and flip": ("ade20k-fit", (131, 90), {"flip": True}),
    "whole and scales": ("ade20k-fit", (100, 90), {"scales": (0.75, 1.5)}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_plain_pytorch_makes_of_it(case: str) -> None:
    name, size, options = CASES[case]
    image, module = sample_image(3, *size), Loud(SPEC) if case == "scales and flip" else Small()
    referee = Referee(module, SPEC, (80, 200), whole=name in ("cityscapes-whole", "ade20k-fit"), **options)
    made = passes(SPEC, name, module, **options)
    expected = referee.probabilities(image)
    np.testing.assert_allclose(made.probabilities(image), expected, atol=TOLERANCE)
    found = made.predict(image)
    assert isinstance(found, LabelMap)
    assert found.labels.shape == size
    assert len(np.unique(found.labels)) > 1
    two = np.sort(expected, 0)[-2:]
    sure = two[1] - two[0] > 2 * TOLERANCE
    assert sure.mean() > 0.998  # two passes that are both certain, of two classes, make a tie
    np.testing.assert_array_equal(found.labels[sure], expected.argmax(0)[sure])


def test_lrformers_pictures_are_aligned_to_32() -> None:
    spec, image, module = replace(SPEC, name="lrformer_t"), sample_image(1, 90, 120), Small()
    expected = Referee(module, spec, (80, 200), divisor=32).probabilities(image)
    np.testing.assert_allclose(passes(spec, "ade20k-keep", module).probabilities(image), expected, atol=TOLERANCE)


MISTAKES: dict[str, dict[str, Any]] = {
    "stride of a half": {"stride": (32, 48)},
    "stride of a whole window": {"stride": (64, 96)},
    "mirror image not turned back": {"back": False},
    "logits averaged and not their softmax": {"softmax": False},
    "no mirror image": {"flip": False},
    "a scale left out": {"scales": (0.5, 1.0)},
    "another scale": {"scales": (0.5, 1.0, 1.2)},
    "filled with black": {"fill": -2.0},
    "short and long side swapped": {"box": (200, 80)},
    "short side of another network": {"box": (60, 200)},
    "long side not limited": {"box": (80, 2000)},
    "fitted, not slid": {"whole": True},
    "aligned to 32": {"divisor": 32},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_be_noticed(mistake: str) -> None:
    options: dict[str, Any] = {"scales": (0.5, 1.0, 1.25), "flip": True}
    image, module = sample_image(3, 60, 170), Small()
    made = passes(SPEC, "ade20k-keep", module, **options).probabilities(image)
    right, wrong = (Referee(module, SPEC, **{"box": (80, 200), **options, **one}) for one in ({}, MISTAKES[mistake]))
    assert np.abs(made - right.probabilities(image)).max() < TOLERANCE
    assert np.abs(made - wrong.probabilities(image)).max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("network", "name", "size", "scale", "sizes"),
    [
        # what mmcv's rescale_size gives for (2048, 512), (2560, 640) and (2048, 1024), times the scale
        (("hrvit_b1", (512, 512)), "ade20k-keep", (600, 800), 1.0, [(512, 683)]),
        (("hrvit_b1", (512, 512)), "ade20k-keep", (800, 600), 1.0, [(683, 512)]),
        (("hrvit_b1", (512, 512)), "ade20k-keep", (200, 1000), 1.0, [(410, 2048)]),
        (("hrvit_b1", (512, 512)), "ade20k-keep", (600, 800), 1.75, [(896, 1195)]),
        (("lrformer_t", (512, 512)), "ade20k-keep", (600, 800), 1.0, [(512, 683), (512, 704)]),
        (("lrformer_l", (640, 640)), "ade20k-keep", (600, 800), 1.0, [(640, 853), (640, 864)]),
        (("lrformer_l", (640, 640)), "ade20k-keep", (600, 800), 0.5, [(320, 427), (320, 448)]),
        (("hrvit_b1", (512, 512)), "ade20k-fit", (600, 800), 1.0, [(384, 512)]),
        (("hrvit_b1", (1024, 1024)), "ade20k-fit", (600, 800), 1.0, [(512, 683)]),
        (("hrvit_b1", (1024, 1024)), "cityscapes-slide", (1024, 2048), 1.0, [(1024, 2048)]),
        (("hrvit_b1", (1024, 1024)), "cityscapes-slide", (1024, 2048), 0.75, [(768, 1536)]),
        (("hrvit_b1", (512, 512)), "cityscapes-slide", (1024, 2048), 1.0, [(1024, 2048)]),
        (("hrvit_b1", (1024, 2048)), "cityscapes-whole", (1024, 2048), 1.0, [(1024, 2048)]),
        (("hrvit_b1", (512, 1024)), "cityscapes-whole", (1024, 2048), 1.0, [(512, 1024)]),
        (("hrvit_b1", (512, 512)), "cityscapes-whole", (1024, 2048), 1.5, [(384, 768)]),
    ],
)
def test_sizes_are_the_papers(
    network: tuple[str, tuple[int, int]], name: str, size: tuple[int, int], scale: float, sizes: Any
) -> None:
    model, imgsz = network
    found = find_protocol(name, model_spec(model, "segment", imgsz, 150), TENSOR)
    assert list(dict.fromkeys(found.sizes(size, scale))) == sizes


def test_a_document_says_everything() -> None:
    spec = model_spec("hrvit_b1", "segment", (512, 512), 19)
    said = find_protocol("cityscapes-slide", spec, TENSOR, flip=True, scales=(0.5, 1.0)).to_json(255)
    assert {key: said[key] for key in ("name", "size", "resize", "stride", "flip", "scales", "ignore")} == {
        "name": "cityscapes-slide",
        "size": [512, 512],
        "resize": "slide",
        "stride": [384, 384],
        "flip": True,
        "scales": [0.5, 1.0],
        "ignore": 255,
    }
    assert said["filter"] == "bilinear by OpenCV, not antialiased"
    assert said["scaled"].startswith(
        "scaled to a short side of 1024 and a long one of at most 2048; that times 0.5, 1; windows of 512x512, 384x384"
    )
    assert said["labels"].startswith("never resized; logits are resized bilinearly to the picture's own size")
    assert "softmax of 4" in said["labels"]
    assert "1024x1024" in said["notes"][0]
    assert "of any size" in said["notes"][1]
    exact = find_protocol("cityscapes-slide", model_spec("hrvit_b1", "segment", (1024, 1024), 19), TENSOR)
    assert exact.notes == ()
    assert find_protocol("cityscapes-whole", model_spec("hrvit_b1", "segment", (1024, 2048), 19), TENSOR).notes == ()
    whole = find_protocol("cityscapes-whole", spec, TENSOR).to_json()
    assert (whole["resize"], whole["stride"], whole["ignore"]) == ("keep", None, None)
    assert "0.25 times" in whole["notes"][0]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_keeps_the_networks_own_normalisation(name: str) -> None:
    spec = model_spec("hrvit_b1", PROTOCOLS[name][0] or "segment", (64, 64), 5)
    own = replace(spec, preprocess=replace(spec.preprocess, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channels="bgr"))
    made = find_protocol(name, own, TENSOR).preprocess
    assert (made.mean, made.std, made.channels) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bgr")


def test_a_familys_own_crop() -> None:
    spec = model_spec("mixformer_b1", "classify", (224, 224), 1000)
    other = replace(spec, preprocess=PreprocessSpec())
    assert find_protocol("imagenet-center", other, TENSOR).preprocess == spec.preprocess
    assert find_protocol(None, other, TENSOR).preprocess == PreprocessSpec()


def test_what_cannot_be() -> None:
    segment, classify = SPEC, tiny_spec("classify", (64, 64))
    image, camera = ContractSpec("image", size=(64, 96)), ContractSpec("camera", size=(90, 90))
    asked: list[tuple[Callable[[], object], str]] = [
        (
            lambda: find_protocol("cityscapes", segment, TENSOR),
            "cityscapes: there are own, cityscapes-slide",
        ),
        (
            lambda: find_protocol("imagenet-center", segment, TENSOR),
            "to classify; hrvit_b1 is one to segment",
        ),
        (lambda: find_protocol("ade20k-keep", classify, TENSOR), "to segment; hrvit_b1 is one to classify"),
        (lambda: find_protocol("ade20k-keep", segment, image), "export it with --contract tensor"),
        (lambda: find_protocol(None, segment, camera, flip=True), "--flip: a graph with contract camera"),
        (lambda: find_protocol(None, segment, image, scales=(0.5,)), "--scales: a graph with contract image"),
        (lambda: find_protocol(None, classify, TENSOR, scales=(0.5, 1.0)), "--scales 0.5,1: for networks to segment"),
        (lambda: find_protocol(None, segment, TENSOR, scales=()), "give numbers over 0 and up to 4"),
        (lambda: find_protocol(None, segment, TENSOR, scales=(1.0, 1.0)), "each once"),
        (lambda: find_protocol(None, segment, TENSOR, scales=(float("nan"),)), "give numbers over 0"),
        (lambda: find_protocol(None, segment, TENSOR, scales=(5.0,)), "up to 4"),
        (lambda: ProtocolOptions(scales="1;2").find(segment, TENSOR), "--scales 1;2: give numbers with commas"),
    ]
    for ask, words in asked:
        with pytest.raises(UsageError, match=words):
            ask()
    assert find_protocol("own", segment, image).contract == "image"
    assert "nearest" in find_protocol(None, segment, image).to_json()["labels"]
    found = ProtocolOptions("ade20k-fit", flip=True, scales="0.5,1").find(segment, TENSOR)
    assert (found.name, found.flip, found.scales) == ("ade20k-fit", True, (0.5, 1.0))


def answerer_of(pictures: PictureRunner, protocol: Protocol) -> Answerer:
    return answerer(pictures.runner, pictures.spec, TENSOR, protocol)


def own(spec: ModelSpec, module: nn.Module, **options: Any) -> Answerer:
    return answerer(runner_of(spec, module), spec, TENSOR, find_protocol(None, spec, TENSOR, **options))


@pytest.mark.parametrize("resize", ["stretch", "keep", "letterbox", "slide"])
@pytest.mark.parametrize("size", [(70, 150), (150, 70), (40, 50)])
def test_a_pass_is_what_the_networks_own_preprocessing_gives(resize: Any, size: tuple[int, int]) -> None:
    spec = replace(SPEC, preprocess=replace(SPEC.preprocess, resize=resize))
    image, protocol = sample_image(2, *size), find_protocol(None, spec, TENSOR, flip=True)
    pictures = own(spec, Small())
    assert isinstance(pictures, PictureRunner)
    one = Passes(pictures, protocol.sizes, scales=protocol.scales, flip=False)
    expected, found, both = (made.predict(image) for made in (pictures, one, answerer_of(pictures, protocol)))
    assert isinstance(expected, LabelMap)
    assert isinstance(found, LabelMap)
    assert isinstance(both, LabelMap)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert 0.5 < (both.labels == expected.labels).mean() < 1


def test_a_classifiers_probabilities_are_averaged() -> None:
    class Halves(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.stack([image[..., :32].mean(), image[..., 32:].mean(), image.mean()])[None]

    spec = replace(tiny_spec("classify", (64, 64)), num_classes=3)
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :20] = 200
    spec = replace(spec, preprocess=PreprocessSpec())
    plain, both = (own(spec, Halves(), flip=flip).predict(image) for flip in (False, True))
    assert isinstance(plain, TopClasses)
    assert isinstance(both, TopClasses)
    expected = dict(plain.top)
    mean = (expected[0] + expected[1]) / 2
    assert dict(both.top) == pytest.approx({0: mean, 1: mean, 2: expected[2]}, abs=1e-6)
    assert expected[0] > mean + 0.1


def test_a_picture_whose_probabilities_do_not_fit_is_refused_before_anything_is_made() -> None:
    spec = replace(model_spec("hrvit_b1", "segment", (64, 64), 150))
    made = answerer(runner_of(spec, Small()), spec, TENSOR, find_protocol("ade20k-keep", spec, TENSOR, flip=True))
    with pytest.raises(UsageError, match=r"9000x9000: the probabilities of 150 classes .* take 45\.\d GiB"):
        made.predict(np.broadcast_to(np.uint8(0), (9000, 9000, 3)))


def test_nan_is_an_error() -> None:
    module = Small()
    nn.init.constant_(module.convolution.weight, float("nan"))
    for options in ({}, {"flip": True}):
        with pytest.raises(HiresvitError, match=r"hrvit_b1: .* logits are NaN or Inf"):
            passes(SPEC, "ade20k-keep", module, **options).predict(sample_image(0, 90, 90))
