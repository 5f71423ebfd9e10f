"""One picture in: what its pixels become, where it may come from, and what is refused before it costs much."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_pictures import png, saved, scanned_jpeg, write_all
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data import image
from hiresvit.data.image import load_image, local_path, refuse_url
from hiresvit.errors import HiresvitError, UsageError

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


def refusal(path: Path | str) -> str:
    with pytest.raises(HiresvitError) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_dropped_and_not_painted(mode: str, tmp_path: Path) -> None:
    """As convert("RGB") of timm and IMREAD_COLOR of OpenCV do it."""
    picture = Image.fromarray(RAMP)
    if mode == "P":
        picture = picture.quantize(16)
        picture.save(tmp_path / "a.png", transparency=bytes(16))
    else:
        picture = picture.convert(mode)
        picture.putalpha(0)
        picture.save(tmp_path / "a.png")
    found = load_image(tmp_path / "a.png")
    np.testing.assert_array_equal(found, np.asarray(Image.open(tmp_path / "a.png").convert("RGBA"))[..., :3])
    assert found.std() > 10, "the colours are there, and neither white nor black"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 128, 129, 65535]], np.int32), [0, 0, 1, 255]),
        (np.array([[0, 100, 255]], np.uint16), [0, 100, 255]),
        (np.array([[0, 32768, 65535]], np.uint16), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 100.4, 255]], np.float32), [0, 100, 255]),
    ],
)
def test_wide_grey_becomes_what_it_means(values: NDArray[Any], expected: list[int], tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "a.tif")[0, :, 1], expected)


def test_16_bit_colours_that_are_meant_as_8_bits_are_not_black(tmp_path: Path) -> None:
    """As cv2.imwrite and tifffile write an array of uint16 whose values are those of 8 bits."""
    rows = np.zeros((2, 1 + 3 * 6), np.uint8)
    rows[:, 2::2] = 200  # the lower bytes, big-endian
    (tmp_path / "a.png").write_bytes(png(3, 2, zlib.compress(rows.tobytes()), depth=16))
    assert "its 16-bit colours are all below 256, which is black: save them as 8 bits" in refusal(tmp_path / "a.png")
    rows[0, 1] = 1
    (tmp_path / "a.png").write_bytes(png(3, 2, zlib.compress(rows.tobytes()), depth=16))
    assert load_image(tmp_path / "a.png").max() == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[-1, 5]], np.int32), "run from -1 to 5"),
        (np.array([[0, 70000]], np.int32), "beyond 16 bits"),
        (np.array([[0, 300.0]], np.float32), "save them as 0 to 1 or 0 to 255"),
        (np.array([[-0.5, 1]], np.float32), "run from -0.5 to 1"),
        (np.array([[0, np.inf]], np.float32), "run from 0.0 to inf"),
        (np.array([[0, np.nan, 1]], np.float32), "some of its floats are NaN"),
    ],
)
def test_numbers_that_are_no_picture(values: NDArray[Any], said: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert said in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_every_orientation_is_as_pillow_turns_it(orientation: int, suffix: str, tmp_path: Path) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = np.random.default_rng(0).integers(0, 256, (5, 9, 3), np.uint8)
    Image.fromarray(shown).save(tmp_path / f"a.{suffix}", exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    found = load_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous


def test_bands_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "_BAND", 50)
    shown = np.random.default_rng(0).integers(0, 256, (23, 19, 3), np.uint8)
    Image.fromarray(shown).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), shown)


def test_more_than_pillows_bound_is_read_and_the_bound_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    monkeypatch.setattr(image, "FEW_PIXELS", 10)  # so that the slow path is taken
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    for suffix in ("png", "tif", "bmp"):
        Image.fromarray(noise).save(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(load_image(tmp_path / f"a.{suffix}"), noise)
    assert Image.MAX_IMAGE_PIXELS == 8
    Image.fromarray(noise).save(tmp_path / "a.webp", lossless=True)
    assert "9x9 are 81 pixels, too many for WEBP: save it as JPEG or PNG" in refusal(tmp_path / "a.webp")


@pytest.mark.slow
def test_a_phones_200_million_pixels(tmp_path: Path) -> None:
    """At 7 bytes of memory for each."""
    noise = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), np.uint8)
    picture = Image.fromarray(noise).resize((16384, 12288), Image.Resampling.BILINEAR)
    picture.save(tmp_path / "a.jpg", quality=90)
    del picture
    code = (
        "import resource, sys; from hiresvit.data.image import load_image; load_image(sys.argv[1]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.jpg"], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 7.5 * 16384 * 12288 + 2**27


def test_what_a_file_cannot_honestly_hold_is_refused_unread(tmp_path: Path) -> None:
    for name, data, said in (
        ("a.png", png(16_000, 11_000, b""), "16000x11000 pixels out of 57 bytes are no photo: shrink it"),
        ("b.png", png(2**15, 2**14, b""), "32768x16384 are 536870912 pixels, and 268435456 are the most"),
        ("c.jpg", scanned_jpeg(2_000, 1_500), "2000x2000 pixels in 1510 scans are no photo: save it as a plain JPEG"),
    ):
        (tmp_path / name).write_bytes(data)
        began = time.monotonic()
        assert said in refusal(tmp_path / name)
        assert time.monotonic() - began < 2, "nothing is decoded"


def test_hostile_pictures_cost_little_and_raise_nothing_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, whose memory is measured, and with a ``gs`` that would leave a file behind."""
    paths = write_all(tmp_path / "hostile")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    code = """
import sys, time
from hiresvit.data import image
from hiresvit.errors import HiresvitError
from hiresvit.process import peak_rss_bytes
image.PIPE_WAIT_S = 0.2
for path in sys.argv[1:]:
    began = time.monotonic()
    try:
        image.load_image(path)
    except HiresvitError as error:
        assert "\\n" not in str(error)
    if time.monotonic() - began > 20:
        print(path)
print(peak_rss_bytes() >> 20)
"""
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *slow, memory = done.stdout.split()
    assert slow == []
    assert int(memory) < 1100, "MiB"
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "it is an HTML page"),
        (b"PK\x03\x04" + bytes(26), "it is a zip archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC picture; install pillow-heif, or save it as JPEG"),
        (b"8BPS\0\1" + bytes(20), "it is a Photoshop picture; give a JPEG"),
        (b"", "it is empty"),
        (b"\xff\xd8\xff\xe0" + bytes(9), "it is a JPEG picture, but a damaged or an unusual one"),
        (b"\x91\x17\x88", "it is no kind that is known"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_named(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    assert said in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("https://host/a.jpg?x=1", "https://host/a.jpg?x=1 is an address on the network: download it first"),
        (Path("https://host/a.jpg"), "https://host/a.jpg is an address"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg is an address"),
        ("a\0b.jpg", "null"),
        ("/dev/zero", "it is a device or a terminal"),
        (".", "it is a folder"),
        ("x" * 300, "File name too long"),
    ],
)
def test_names_of_no_file(typed: Path | str, said: str) -> None:
    assert said in refusal(typed)


def test_what_looks_like_an_address_and_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("a:/b.jpg", "photos/http/a.jpg", "http", "12:30.jpg", "file:///a.jpg"):
        refuse_url(text)
    with pytest.raises(UsageError):
        refuse_url("HTTP:/a")
    Image.fromarray(RAMP).save(tmp_path / "a b.png")
    for address in (f"file://{tmp_path}/a%20b.png", f"file://localhost{tmp_path}/a%20b.png"):
        np.testing.assert_array_equal(load_image(address), RAMP)
        np.testing.assert_array_equal(load_image(Path(address)), RAMP)
    assert local_path("file.png") == "file.png"


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_named_pipe_is_waited_for(fifo: Path) -> None:
    def write() -> None:
        time.sleep(0.2)
        data = saved(Image.fromarray(RAMP), "PNG")
        with fifo.open("wb") as pipe:
            pipe.write(data[:20])
            pipe.flush()
            time.sleep(0.2)
            pipe.write(data[20:])

    writer = threading.Thread(target=write)
    writer.start()
    np.testing.assert_array_equal(load_image(fifo), RAMP)
    writer.join()


def test_a_pipe_that_stays_silent_or_never_ends(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "PIPE_WAIT_S", 0.1)
    assert "nothing came through this pipe for 0.1 s" in refusal(fifo)
    monkeypatch.setattr(image, "PIPED_BYTES", 2**20)
    with subprocess.Popen(["sh", "-c", f"exec cat /dev/zero > '{fifo}'"], stderr=subprocess.DEVNULL) as endless:
        monkeypatch.setattr(image, "PIPE_WAIT_S", 5.0)
        assert "more than 1 MiB came through this pipe" in refusal(fifo)
        endless.kill()


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_stdin_from_a_pipe_a_file_and_nowhere(name: str, tmp_path: Path) -> None:
    code = "import sys; from hiresvit.data.image import load_image; print(load_image(sys.argv[1]).sum())"
    data = saved(Image.fromarray(RAMP), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    typed = [sys.executable, "-c", code, name]
    piped = subprocess.run(typed, input=data, capture_output=True, check=True)
    with (tmp_path / "a.png").open("rb") as file:
        redirected = subprocess.run(typed, stdin=file, capture_output=True, check=True)
    assert int(piped.stdout) == int(redirected.stdout) == RAMP.sum()
    nowhere = subprocess.run(typed, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True)
    assert "it is a device or a terminal" in nowhere.stderr


@pytest.mark.skipif(".avif" not in image.readable_suffixes(), reason="this Pillow reads no AVIF")
def test_avif_is_read_where_it_can_be(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 100, 50)).save(stream, "AVIF")
    (tmp_path / "a.avif").write_bytes(stream.getvalue())
    assert load_image(tmp_path / "a.avif").shape == (8, 16, 3)
