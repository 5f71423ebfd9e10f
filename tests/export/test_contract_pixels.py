"""What a network sees behind a contract: its input is given out and compared with `hiresvit.data`'s, level by level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from framed import answers, framed, passing, passing_spec, picture
from graphs import Array, run
from onnx import ModelProto, numpy_helper

from hiresvit.data.resample import resample
from hiresvit.export.contract import complete
from hiresvit.export.resampling import pillow_matrix
from hiresvit.runtime.frame import reference_feed
from hiresvit.spec import ContractSpec, Pixels, PreprocessSpec, Resize, Yuv

# Odd, up and down, one side up and the other down (where Pillow begins with the height), larger than a block of rows.
SIZES = [(150, 260), (41, 53), (64, 96), (131, 77), (97, 700)]
OPENCV = PreprocessSpec("stretch", filter="opencv", rounding="round")
PILLOW = PreprocessSpec("stretch")

Damage = Callable[[ModelProto], object]
Filter = Literal["bilinear", "bicubic"]
Order = Literal["rgb", "bgr"]
Name = Literal["image", "camera"]


def levels_apart(spec: PreprocessSpec, seen: Array, reference: Array) -> Array:
    """How far two inputs are apart, in grey levels."""
    return np.asarray(np.abs(seen - reference) * 255 * np.array(spec.std)[:, None, None])


def differing(preprocess: PreprocessSpec, contract: ContractSpec, damage: Damage | None = None) -> float:
    """The share of pixels that are another grey level; none by more than one, unless the graph is damaged."""
    spec = passing_spec(preprocess)
    model, contract = framed(passing(spec), spec, contract)
    if damage:
        damage(model)
    size = contract.size
    assert size is not None
    found, (reference,) = answers(model, spec, contract, picture(*size))
    apart = levels_apart(preprocess, found["features_4"], reference["image"])
    assert apart[apart < 0.5].max(initial=0) < 1e-3, "levels that are equal are normalised alike"
    assert damage or apart.max() < 1.5
    return float(np.mean(apart > 0.5))


class TestCamera:
    @pytest.mark.parametrize("size", SIZES, ids=str)
    @pytest.mark.parametrize("resize", ["stretch", "crop", "keep", "letterbox"])
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    def test_pillow_to_the_last_level(self, interpolation: Filter, resize: Resize, size: tuple[int, int]) -> None:
        preprocess = replace(PILLOW, resize=resize, interpolation=interpolation)
        assert differing(preprocess, ContractSpec("camera", size=size)) == 0

    @pytest.mark.parametrize("size", SIZES, ids=str)
    @pytest.mark.parametrize(("resize", "divisor"), [("stretch", 1), ("keep", 1), ("keep", 32), ("letterbox", 1)])
    def test_opencv_but_for_a_pixel_in_ten_thousand(self, resize: Resize, divisor: int, size: tuple[int, int]) -> None:
        """A product of 26 bits in FP32 may lie on the other side of a whole number."""
        preprocess = replace(OPENCV, resize=resize, divisor=divisor)
        assert differing(preprocess, ContractSpec("camera", size=size)) <= 2e-4

    def test_a_crop_by_opencv(self) -> None:
        assert differing(replace(OPENCV, resize="crop"), ContractSpec("camera", size=(151, 260))) <= 2e-4


def change_constant(shape: tuple[int, ...], change: Callable[[Array], Array]) -> Damage:
    """Of the first constant of a shape that the contract brought."""

    def damage(model: ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if tuple(t.dims) == shape and t.name.startswith("contract/"))
        value = change(numpy_helper.to_array(tensor)).astype(numpy_helper.to_array(tensor).dtype)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))

    return damage


def shift_slice(model: ModelProto) -> None:
    """The columns that are cut out of the picture begin one earlier, and end one earlier."""
    node = next(node for node in model.graph.node if node.op_type == "Slice")
    for number, name in enumerate(list(node.input[1:3]), 1):
        old = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)
        model.graph.initializer.append(numpy_helper.from_array(old - 1, f"shifted_{number}"))
        node.input[number] = f"shifted_{number}"


class TestFaultsAreSeen:
    """The comparison is of no use unless it notices."""

    def test_half_a_pixel(self) -> None:
        """Twice as many columns: moved by one, they are half a pixel of the network's off."""

        def fault(model: ModelProto) -> None:
            product = next(node for node in model.graph.node if node.op_type == "MatMul")
            tensor = next(t for t in model.graph.initializer if t.name == product.input[1])
            tensor.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(tensor), 1, 0), tensor.name))

        assert differing(PILLOW, ContractSpec("camera", size=(64, 192)), fault) > 0.1

    def test_blue_for_red(self) -> None:
        spec = passing_spec(PILLOW)
        model, _ = framed(passing(spec), spec, ContractSpec("image", "bgr"))
        fed = complete(spec, ContractSpec("image"))
        found, (reference,) = answers(model, spec, fed, picture(64, 96))
        assert levels_apart(PILLOW, found["features_4"], reference["image"]).max() > 10

    def test_a_mean_that_is_not_scaled(self) -> None:
        fault = change_constant((3, 1, 1), lambda old: old * 1.01)
        with pytest.raises(AssertionError, match="normalised alike"):
            differing(PILLOW, ContractSpec("image"), fault)

    def test_a_crop_that_is_off_by_one(self) -> None:
        crop = replace(PILLOW, resize="crop", crop_pct=1.0)
        assert differing(crop, ContractSpec("camera", size=(64, 200)), shift_slice) > 0.1

    def test_a_level_that_is_cut_off_and_not_rounded(self) -> None:
        fault = change_constant((), lambda old: old * 0)
        assert differing(PILLOW, ContractSpec("camera", size=(150, 260)), fault) > 0.3


class TestLayouts:
    @pytest.mark.parametrize("channels", ["rgb", "bgr"])
    @pytest.mark.parametrize("pixels", ["rgb", "bgr", "rgba", "bgra"])
    @pytest.mark.parametrize("name", ["image", "camera"])
    def test_channels(self, name: Name, pixels: Pixels, channels: Order) -> None:
        preprocess = replace(PILLOW, channels=channels, mean=(0.1, 0.2, 0.3), std=(0.2, 0.25, 0.3))
        size = (64, 96) if name == "image" else (80, 96)
        assert differing(preprocess, ContractSpec(name, pixels, size=size)) == 0

    @pytest.mark.parametrize("yuv", ["bt601", "bt709", "bt601-full", "bt709-full"])
    @pytest.mark.parametrize("channels", ["rgb", "bgr"])
    def test_nv12(self, channels: Order, yuv: Yuv) -> None:
        """All pairs of chroma, and luma with each of them: whole levels, halves up."""
        spec = passing_spec(replace(PILLOW, channels=channels), (512, 512))
        model, contract = framed(passing(spec), spec, ContractSpec("image", "nv12", yuv=yuv))
        assert contract.yuv == yuv
        found, (reference,) = answers(model, spec, contract, np.zeros((512, 512, 3), np.uint8))
        assert levels_apart(spec.preprocess, found["features_4"], reference["image"]).max() < 0.5
        blue, red = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
        luma = np.random.default_rng(0).integers(0, 256, (1, 512, 512), dtype=np.uint8)
        feed = {"y": luma, "uv": np.stack((blue, red), -1)[None]}
        seen, wanted = run(model, feed)[0], reference_feed(feed, spec, contract)["image"]
        apart = levels_apart(spec.preprocess, seen, wanted)
        # BT.601's full range has sums that are all but halves, which the order of two additions decides.
        assert np.mean(apart > 0.5) <= 1e-4
        assert apart.max() < 1.5

    def test_nv12_of_a_camera(self) -> None:
        assert differing(OPENCV, ContractSpec("camera", "nv12", size=(150, 262))) <= 2e-4

    def test_wrong_colours_are_seen(self) -> None:
        spec = passing_spec(PILLOW)
        model, contract = framed(passing(spec), spec, ContractSpec("image", "nv12", yuv="bt601"))
        found, (reference,) = answers(model, spec, replace(contract, yuv="bt709"), picture(64, 96))
        assert levels_apart(PILLOW, found["features_4"], reference["image"]).max() > 5


@pytest.mark.parametrize("batch", ["2", "N"])
@pytest.mark.parametrize("contract", [ContractSpec("image"), ContractSpec("camera", "nv12", size=(40, 62))], ids=str)
def test_every_picture_of_a_batch(contract: ContractSpec, batch: str) -> None:
    spec = passing_spec(replace(OPENCV, resize="keep"))
    model, contract = framed(passing(spec, batch), spec, contract)
    size = contract.size
    assert size is not None
    found, references = answers(model, spec, contract, picture(*size), picture(*size, seed=1))
    for seen, reference in zip(found["features_4"], references, strict=True):
        assert levels_apart(spec.preprocess, seen, reference["image"]).max() < 0.5


def test_fp16_at_the_border_is_rounded_once() -> None:
    spec = passing_spec(PILLOW)
    half = passing(spec)
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = 10
    model, contract = framed(half, spec, ContractSpec("image"))
    found, (reference,) = answers(model, spec, contract, picture(64, 96))
    assert found["features_4"].dtype == np.float16
    assert (found["features_4"] == reference["image"].astype(np.float16)).mean() > 0.999


def test_pillows_coefficients() -> None:
    """A row of one pixel each: what Pillow makes of it are its coefficients, rounded to levels."""
    for interpolation in ("bilinear", "bicubic"):
        spec = PreprocessSpec("stretch", interpolation)
        matrix = pillow_matrix(29, 11, interpolation)
        for place in range(29):
            row = np.zeros((1, 29, 3), np.uint8)
            row[0, place] = 255
            wanted = np.clip((matrix[:, place] * 255 + 2**21) >> 22, 0, 255)
            assert np.array_equal(resample(row, (1, 11), spec)[0, :, 0], wanted)
