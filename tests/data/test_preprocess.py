from __future__ import annotations

import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from hiresvit.data.image import load_image
from hiresvit.data.preprocess import preprocess
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.spec import PreprocessSpec

PLAIN = PreprocessSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    values = np.arange(height * width * 3) * 7 % 256
    return values.astype(np.uint8).reshape(height, width, 3)


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(ramp(5, 4)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), ramp(5, 4))


def test_exif_orientation_turns_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(ramp(5, 4)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), np.rot90(ramp(5, 4), k=-1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGBX"])
def test_other_modes_become_rgb(mode: str, tmp_path: Path) -> None:
    picture = Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode)
    picture.save(tmp_path / "a.tif")
    image = load_image(tmp_path / "a.tif")
    assert image.shape == (4, 6, 3)
    assert image.min() >= 254  # YCbCr rounds by a level


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    grey = np.array([[0, 128, 129, 255, 32768, 65535]], np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
        image = load_image(tmp_path / f"a.{suffix}")
        # 128 / 257 rounds to 0 and 129 / 257 to 1
        np.testing.assert_array_equal(image[0, :, 1], [0, 0, 1, 1, 128, 255])
        assert image.shape == (1, 6, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_colours_below_alpha_are_kept(mode: str, tmp_path: Path) -> None:
    """As cv2.imread and convert("RGB") do it: a render target has its picture where nothing is opaque."""
    picture = Image.new(mode, (3, 1), (90,) * (len(mode) - 1) + (0,))
    picture.putpixel((1, 0), (200,) * (len(mode) - 1) + (128,))
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png")[0, :, 0], [90, 200, 90])


def test_transparent_palette_entries_keep_their_colour_and_warn_nobody(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=b"\x00\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image[0], [[10, 20, 30], [40, 50, 60]])


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(load_image(tmp_path / "a.gif")[0, 0], (250, 0, 0))


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    for name, words in (
        ("none.jpg", "no such file"),
        (".", "no such file"),
        ("text.jpg", "not a readable image"),
    ):
        with pytest.raises(HiresvitError, match=words) as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 1
    with pytest.raises(HiresvitError, match="not a readable image"):
        load_image(tmp_path / "empty.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "gif"])
def test_a_truncated_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(HiresvitError, match="not a readable image"):
        load_image(path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 199))
def test_damaged_bytes_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.png"
    Image.fromarray(ramp(8, 8)).save(path)
    path.write_bytes(path.read_bytes()[:cut] + tail)
    with suppress(HiresvitError):
        assert load_image(path).shape[2] == 3


def test_a_decompression_bomb_is_refused_unread(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(HiresvitError, match="3600000000 pixels"):
        load_image(path)


def test_large_but_allowed_pictures_warn_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # Pillow warns above this and refuses above twice as much
    Image.fromarray(ramp(8, 8)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").shape == (8, 8, 3)


def test_a_text_chunk_that_explodes_is_refused(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 2_000_000, zip=True)
    Image.fromarray(ramp(2, 2)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(HiresvitError, match="not a readable image"):
        load_image(tmp_path / "a.png")


def test_the_same_size_only_normalises() -> None:
    spec = PreprocessSpec(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    image = np.array([[[255, 255, 255], [0, 0, 0]]], np.uint8)
    x = preprocess(image, spec, (1, 2))
    assert x.shape == (1, 3, 1, 2)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(x[0, :, 0], [[1, -1], [3, -1], [0.5, 0]])  # exact in binary


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 24),
    st.integers(1, 24),
    st.sampled_from(["stretch", "crop"]),
)
def test_any_image_gives_the_asked_size(h: int, w: int, height: int, width: int, resize: Any) -> None:
    x = preprocess(
        np.full((h, w, 3), 51, np.uint8),
        PreprocessSpec(resize, mean=(0, 0, 0), std=(1, 1, 1)),
        (height, width),
    )
    assert x.shape == (1, 3, height, width)
    np.testing.assert_array_equal(x, np.float32(0.2))  # flat stays flat: every filter sums to 1


def test_stretch_uses_the_whole_image() -> None:
    image = np.zeros((2, 8, 3), np.uint8)
    image[:, 4:] = 200
    x = preprocess(image, PLAIN, (4, 2)) * 255
    # Pillow's bilinear filter over 8 -> 2 reaches 4 pixels to each side, with a triangle's weights: the first
    # output averages pixels 0..5, weights 5, 7, 7, 5, 3, 1 of 28, and 4 of 28 of them are bright.
    np.testing.assert_allclose(x[0, 0, 0], [200 * 4 / 28, 200 * 24 / 28], atol=0.5)  # rounded to uint8


def test_crop_is_imagenets_protocol() -> None:
    # 64x128 -> shorter side to 8 / 0.5 = 16, so 16x32; its central 8x8 is columns 48..80 of the source.
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:] = 240
    x = preprocess(image, PreprocessSpec("crop", "bilinear", 0.5, PLAIN.mean, PLAIN.std), (8, 8)) * 255
    assert x.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(x[0, 0, 0], x[0, 0, 7], atol=1e-4)  # float32 of one value
    assert x[0, 0, 0, :3].max() == 0  # the edge's blur reaches one pixel to each side of the middle
    np.testing.assert_allclose(x[0, 0, 0, 5:], 240, atol=1e-4)
    wide = preprocess(image, PreprocessSpec("crop", "bicubic", 1.0, PLAIN.mean, PLAIN.std), (64, 128)) * 255
    np.testing.assert_allclose(wide[0].transpose(1, 2, 0), image, atol=1e-4)  # covered exactly: nothing is lost


# torchvision's CenterCrop starts at int(round((size - crop) / 2.0)), and Python rounds halves to even.
@pytest.mark.parametrize(("over", "first"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4)])
def test_the_centre_is_torchvisions(over: int, first: int) -> None:
    """Of a picture that has the size already which it would be scaled to."""
    image = ramp(13 + over, 13 + over)
    spec = PreprocessSpec("crop", "bilinear", 13 / (13.5 + over), PLAIN.mean, PLAIN.std)
    x = preprocess(image, spec, (13, 13)) * 255
    expected = image[first : first + 13, first : first + 13]
    np.testing.assert_allclose(x[0].transpose(1, 2, 0), expected, atol=1e-4)  # float32 of x / 255 * 255


def test_bicubic_differs_from_bilinear() -> None:
    bilinear = preprocess(ramp(9, 9), PLAIN, (5, 5))
    bicubic = preprocess(ramp(9, 9), PreprocessSpec("stretch", "bicubic", 1.0, PLAIN.mean, PLAIN.std), (5, 5))
    assert np.abs(bilinear - bicubic).max() > 0.01


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_no_image_is_refused(image: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="uint8"):
        preprocess(image, PLAIN, (4, 4))


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="imgsz"):
        preprocess(ramp(4, 4), PLAIN, (0, 4))
    with pytest.raises(UsageError, match="crop_pct"):
        preprocess(ramp(4, 4), PreprocessSpec("crop", crop_pct=1.5), (4, 4))
