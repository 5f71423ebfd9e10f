"""The C++ numerics against Pillow, numpy and the Python definitions: the same bytes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.pixels import from_nv12, to_nv12, to_pixels
from hiresvit.data.preprocess import network_picture, preprocess, slide_picture, valid_region, window_spec
from hiresvit.data.resample import resample
from hiresvit.runtime.labels import label_map, nearest
from hiresvit.spec import Pixels, PreprocessSpec, Resize, Yuv

CPP = Path(__file__).parents[2] / "cpp"
SOURCES = ["picture", "threads", "colours", "taps", "kernels", "resize", "geometry", "preprocess"]
SOURCES += ["logit_rows", "label_band", "postprocess"]
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
LAYOUTS, YUVS, RESIZES = get_args(Pixels), (None, *get_args(Yuv)), get_args(Resize)
TYPES = (np.uint8, np.int32, np.int64)
Bytes = NDArray[np.uint8]


class CSpec(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("resize", "filter", "rounds", "divisor", "bgr", "short_side")),
        ("crop_pct", ctypes.c_double),
        ("mean", ctypes.c_double * 3),
        ("std", ctypes.c_double * 3),
    )


class CPicture(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("pixels", "yuv", "height", "width")),
        ("planes", ctypes.c_void_p * 2),
        ("strides", ctypes.c_ssize_t * 2),
    )


class Core:
    """The library, with arrays for pointers."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.t_error.restype = ctypes.c_char_p

    def __call__(self, name: str, *arguments: Any) -> int:
        plain = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments]
        return int(getattr(self.library, name)(*plain))

    def error(self) -> str:
        return bytes(self.library.t_error()).decode()


def build(folder: Path, source: Path) -> Core:
    """Of changed sources."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    files = [str(source / f"{name}.cpp") for name in SOURCES]
    target = folder / "libnumerics.so"
    flags = ("-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-pthread", f"-I{source}")
    command = [compiler, *flags, f"{CPP}/tests/numerics.cpp", *files, "-o", str(target)]
    subprocess.run(command, check=True, timeout=300)
    return Core(ctypes.CDLL(str(target)))


@pytest.fixture(scope="module", params=["numerics", "numerics_plain"])
def core(request: pytest.FixtureRequest, cpp_build: Path) -> Core:
    """With what the processor has, and as on one that has none of it."""
    return Core(ctypes.CDLL(str(cpp_build / "tests" / f"libhiresvit_{request.param}.so")))


def c_spec(spec: PreprocessSpec) -> Any:
    kind = 3 if spec.filter == "opencv" else ("bilinear", "bicubic", "lanczos").index(spec.interpolation)
    three = ctypes.c_double * 3
    return ctypes.byref(
        CSpec(
            RESIZES.index(spec.resize),
            kind,
            spec.rounding == "round",
            spec.divisor,
            spec.channels == "bgr",
            spec.short_side or 0,
            spec.crop_pct,
            three(*spec.mean),
            three(*spec.std),
        )
    )


def padded(array: Bytes, more: int, rng: np.random.Generator) -> Bytes:
    """The same array whose rows lie ``more`` bytes further apart, with noise in between."""
    flat = array.reshape(len(array), -1)
    wide = rng.integers(0, 256, (len(array), flat.shape[1] + more), dtype=np.uint8)
    wide[:, : flat.shape[1]] = flat
    return wide


def c_picture(planes: list[Bytes], pixels: str, yuv: str | None, size: tuple[int, int]) -> Any:
    pointers = (ctypes.c_void_p * 2)(*(plane.ctypes.data for plane in planes))
    strides = (ctypes.c_ssize_t * 2)(*(plane.strides[0] for plane in planes))
    return ctypes.byref(CPicture(LAYOUTS.index(pixels), YUVS.index(yuv), *size, pointers, strides))


def c_planes(planes: list[Bytes]) -> tuple[Any, Any]:
    pointers = (ctypes.c_void_p * 2)(*(plane.ctypes.data for plane in planes))
    return pointers, (ctypes.c_ssize_t * 2)(*(plane.strides[0] for plane in planes))


def as_planes(image: Bytes, pixels: Pixels, yuv: Yuv | None, rng: np.random.Generator) -> list[Bytes]:
    return [padded(array[0], int(rng.integers(0, 9)), rng) for array in to_pixels(image, pixels, yuv).values()]


def resized(core: Core, image: Bytes, size: tuple[int, int], kind: int, more: int = 0) -> Bytes:
    channels = 1 if image.ndim == 2 else image.shape[2]
    out = np.full((size[0], size[1] * channels + more), 77, np.uint8)
    given = padded(image, more, np.random.default_rng(0))
    step = ctypes.c_ssize_t
    rc = core(
        "t_resize", given, step(given.strides[0]), *image.shape[:2], channels, kind, *size, out, step(out.strides[0])
    )
    assert rc == 0, core.error()
    assert (out[:, size[1] * channels :] == 77).all()
    return out[:, : size[1] * channels].reshape(*size, *image.shape[2:])


def random_size(rng: np.random.Generator, most: int = 300) -> tuple[int, int]:
    height, width = np.exp(rng.uniform(0, np.log(most), 2)).astype(int)
    return int(height), int(width)


def test_a_resize_gives_pillows_bytes(core: Core) -> None:
    rng = np.random.default_rng(1)
    for index in range(200):
        size, target = random_size(rng), random_size(rng)
        channels = (3, 3, 1, 4)[index % 4]
        image = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
        if index % 3 == 0:  # black and white: bicubic and lanczos overshoot most
            image = (image >> 7) * np.uint8(255)
        image = image[..., 0] if channels == 1 else image
        picture = Image.fromarray(image) if channels < 4 else Image.frombytes("CMYK", size[::-1], image.tobytes())
        for kind, resampling in enumerate(FILTERS):
            wanted = np.asarray(picture.resize(target[::-1], resampling))
            found = resized(core, image, target, kind, more=index % 5)
            np.testing.assert_array_equal(found, wanted, f"{size} to {target}, {resampling.name}")


def test_a_resize_gives_opencvs_bytes(core: Core) -> None:
    rng = np.random.default_rng(2)
    spec = PreprocessSpec(filter="opencv")
    for _ in range(60):
        size, target = random_size(rng), random_size(rng)
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        np.testing.assert_array_equal(resized(core, image, target, 3), resample(image, target, spec))


SPECS = (
    PreprocessSpec(),
    PreprocessSpec(interpolation="bicubic", channels="bgr"),
    PreprocessSpec(resize="crop"),
    PreprocessSpec(resize="crop", crop_pct=0.9, rounding="round", interpolation="bicubic"),
    PreprocessSpec(resize="keep", mean=(0.5, 0.25, 1.5), std=(1 / 255, 0.3, 2.0)),
    PreprocessSpec(resize="keep", rounding="round", divisor=8, filter="opencv", channels="bgr", mean=(0.1, 0.5, 0.9)),
    PreprocessSpec(resize="letterbox", divisor=4),
    PreprocessSpec(resize="letterbox", rounding="round", filter="opencv"),
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.resize}-{spec.filter}-{spec.rounding}")
def test_preprocessing_is_pythons_to_the_bit(core: Core, spec: PreprocessSpec) -> None:
    rng = np.random.default_rng(3)
    for index in range(12):
        imgsz = (int(rng.integers(4, 60)), int(rng.integers(4, 60)))
        size = imgsz if index == 0 else random_size(rng, 120)
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        pixels: Pixels = ("rgb", "bgr", "rgba", "bgra")[index % 4]
        planes = as_planes(image, pixels, None, rng)
        found = np.full((1, 3, *imgsz), np.nan, np.float32)
        picture = c_picture(planes, pixels, None, size)
        assert core("t_tensor", c_spec(spec), *imgsz, picture, found) == 0, core.error()
        np.testing.assert_array_equal(found.view(np.uint32), preprocess(image, spec, imgsz).view(np.uint32))
        region = np.zeros(4, np.int32)
        assert core("t_region", c_spec(spec), *imgsz, *size, region) == 0
        assert region.tolist() == list(valid_region(size, spec, imgsz))
        layout: Pixels = ("rgba", "rgb", "bgra", "bgr")[index % 4]
        wanted = to_pixels(network_picture(image, spec, imgsz), layout)["image"][0]
        out = np.full((imgsz[0], imgsz[1] * len(layout) + 3), 77, np.uint8)
        assert core("t_pixels", c_spec(spec), *imgsz, picture, LAYOUTS.index(layout), 0, *c_planes([out])) == 0
        np.testing.assert_array_equal(out[:, :-3].reshape(wanted.shape), wanted)
        assert (out[:, -3:] == 77).all()


def test_sizes_round_as_python_rounds(core: Core) -> None:
    rng = np.random.default_rng(4)
    for index in range(3000):
        spec = SPECS[2 + index % (len(SPECS) - 2)]
        imgsz = (int(rng.integers(1, 1500)), int(rng.integers(1, 1500)))
        size = random_size(rng, 5000)
        region = np.zeros(4, np.int32)
        assert core("t_region", c_spec(spec), *imgsz, *size, region) == 0
        assert region.tolist() == list(valid_region(size, spec, imgsz)), (spec, size, imgsz)


def test_halves_of_a_crop_go_to_the_even_side(core: Core) -> None:
    """5 x 2 pixels that cover 5 x 5 become 12.5 pixels high."""
    spec = PreprocessSpec(resize="crop", crop_pct=1, rounding="round")
    image = np.random.default_rng(13).integers(0, 256, (5, 2, 3), dtype=np.uint8)
    found = np.zeros((1, 3, 5, 5), np.float32)
    assert core("t_tensor", c_spec(spec), 5, 5, c_picture([image.reshape(5, 6)], "rgb", None, (5, 2)), found) == 0
    np.testing.assert_array_equal(found, preprocess(image, spec, (5, 5)))


@pytest.mark.parametrize("yuv", get_args(Yuv))
def test_nv12_is_pythons_to_the_bit(core: Core, yuv: Yuv) -> None:
    rng = np.random.default_rng(5)
    luma = np.arange(256, dtype=np.uint8).repeat(4)[None].repeat(2048, 0)  # with each of all chromas that are multiples
    levels = np.append(np.arange(0, 256, 8), 255).astype(np.uint8)
    chroma = np.stack(np.meshgrid(levels[:32], levels[1:], indexing="ij"), -1).reshape(1024, 1, 2).repeat(512, 1)
    chroma = np.ascontiguousarray(chroma)
    rgb = np.zeros((2048, 1024, 3), np.uint8)
    picture = c_picture([luma, chroma.reshape(1024, -1)], "nv12", yuv, (2048, 1024))
    assert core("t_convert", picture, 0, 0, *c_planes([rgb.reshape(2048, -1)])) == 0, core.error()
    np.testing.assert_array_equal(rgb, from_nv12(luma, chroma, yuv))

    image = rng.integers(0, 256, (70, 2100, 3), dtype=np.uint8)
    image[:20] = image[:20, :, :1]  # grey, where full range has halves
    wanted = to_nv12(image, yuv)
    out = [np.full((70, 2110), 77, np.uint8), np.full((35, 2107), 77, np.uint8)]
    given = as_planes(image, "bgra", None, rng)
    picture = c_picture(given, "bgra", None, (70, 2100))
    assert core("t_convert", picture, LAYOUTS.index("nv12"), YUVS.index(yuv), *c_planes(out)) == 0, core.error()
    for found, plane in zip(out, wanted, strict=True):
        np.testing.assert_array_equal(found[:, :2100], plane.reshape(len(plane), -1))
        assert (found[:, 2100:] == 77).all()


def test_a_camera_of_nv12_is_preprocessed_and_shown_as_nv12(core: Core) -> None:
    rng = np.random.default_rng(6)
    spec, imgsz = PreprocessSpec(resize="letterbox"), (48, 64)
    luma = rng.integers(0, 256, (90, 200), dtype=np.uint8)
    chroma = rng.integers(0, 256, (45, 100, 2), dtype=np.uint8)
    planes = [padded(luma, 7, rng), padded(chroma.reshape(45, 200), 3, rng)]
    image = from_nv12(luma, chroma, "bt709")
    picture = c_picture(planes, "nv12", "bt709", (90, 200))
    found = np.full((1, 3, *imgsz), np.nan, np.float32)
    assert core("t_tensor", c_spec(spec), *imgsz, picture, found) == 0, core.error()
    np.testing.assert_array_equal(found, preprocess(image, spec, imgsz))
    out = [np.zeros((48, 70), np.uint8), np.zeros((24, 66), np.uint8)]
    rc = core("t_pixels", c_spec(spec), *imgsz, picture, LAYOUTS.index("nv12"), YUVS.index("bt601"), *c_planes(out))
    assert rc == 0, core.error()
    for plane, wanted in zip(out, to_nv12(network_picture(image, spec, imgsz), "bt601"), strict=True):
        np.testing.assert_array_equal(plane[:, :64], wanted.reshape(len(wanted), -1))


@pytest.mark.parametrize(("short", "rounding"), [(None, "floor"), (40, "round"), (200, "floor")])
def test_windows_of_a_slide_are_pythons(core: Core, short: int | None, rounding: Any) -> None:
    rng = np.random.default_rng(7)
    spec, imgsz = PreprocessSpec(resize="slide", short_side=short, rounding=rounding), (32, 48)
    for size in ((70, 91), (20, 300), (33, 48)):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        scaled = slide_picture(image, spec, imgsz)
        top, left = scaled.shape[0] - 32, (scaled.shape[1] - 48) // 2
        found, whole = np.zeros((1, 3, *imgsz), np.float32), np.zeros(2, np.int32)
        picture = c_picture([image.reshape(size[0], -1)], "rgb", None, size)
        assert core("t_window", c_spec(spec), *imgsz, picture, top, left, found, whole) == 0, core.error()
        assert tuple(whole) == scaled.shape[:2]
        cut = scaled[top : top + 32, left : left + 48]
        np.testing.assert_array_equal(found, preprocess(cut, window_spec(spec), imgsz))
        assert core("t_window", c_spec(spec), *imgsz, picture, top + 1, left, found, whole) == 2


def smooth(rng: np.random.Generator, classes: int, height: int, width: int) -> NDArray[np.float32]:
    """Logits with regions and borders, as a network gives them."""
    coarse = rng.normal(0, 4, (classes, 5, 6)).astype(np.float32)
    rows = [np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC)) for plane in coarse]
    return np.stack(rows) + rng.normal(0, 0.05, (classes, height, width)).astype(np.float32)


def logits_of(kind: str, rng: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[Any]:
    if kind == "smooth":
        return smooth(rng, *shape)
    if kind == "noise":
        return rng.normal(0, 3, shape)
    return rng.integers(-1, 2, shape) * 0.5 if kind == "ties" else 20000 + rng.integers(-3, 4, shape) * 8.0


def found_labels(
    core: Core,
    logits: NDArray[Any],
    size: tuple[int, int],
    spec: PreprocessSpec,
    imgsz: tuple[int, int],
    *,
    kind: int = 0,
) -> NDArray[Any]:
    out = np.full((size[0], size[1] + 3), 99, TYPES[kind])
    step = ctypes.c_ssize_t
    half = logits.dtype == np.float16
    strides = [step(stride // logits.itemsize) for stride in logits.strides[:2]]
    rc = core(
        "t_labels", c_spec(spec), *imgsz, logits, int(half), *logits.shape, *strides, *size, kind, out,
        step(size[1] + 3), None, step(0),
    )  # fmt: skip
    assert rc == 0, core.error()
    assert (out[:, -3:] == 99).all()
    return out[:, :-3]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", ["smooth", "noise", "ties", "large"])
def test_labels_are_pythons(core: Core, kind: str, dtype: Any) -> None:
    """Ties are between equal logits and between mixes of them; of large ones a mix is rounded to whole numbers."""
    rng = np.random.default_rng(8)
    for index in range(24):
        spec = (PreprocessSpec(), PreprocessSpec(resize="keep"), PreprocessSpec(resize="letterbox"))[index % 3]
        classes, scale = int(rng.integers(1, 24)), int(rng.choice([1, 4]))
        height, width = int(rng.integers(1, 40)), int(rng.integers(1, 50))
        shape = (classes, height, width)
        logits = logits_of(kind, rng, shape).astype(dtype)
        size, imgsz = random_size(rng, 150), (height * scale, width * scale)
        region = valid_region(size, spec, imgsz)
        wanted = label_map(logits, size, region, imgsz)
        wide = np.full((classes, height, width + 5), np.nan, dtype)
        wide[..., :width] = logits
        found = found_labels(core, wide[..., :width], size, spec, imgsz, kind=index % 3)
        np.testing.assert_array_equal(found, wanted, f"{shape} to {size}")


def test_more_than_256_classes_are_int32(core: Core) -> None:
    rng = np.random.default_rng(9)
    logits = rng.normal(0, 1, (300, 6, 7)).astype(np.float32)
    spec, imgsz = PreprocessSpec(), (24, 28)
    wanted = label_map(logits, (50, 40), valid_region((50, 40), spec, imgsz), imgsz)
    np.testing.assert_array_equal(found_labels(core, logits, (50, 40), spec, imgsz, kind=1), wanted)
    out, step = np.zeros((50, 40), np.uint8), ctypes.c_ssize_t
    rest = (*(50, 40, 0), out, step(40), None, step(0))
    assert core("t_labels", c_spec(spec), *imgsz, logits, 0, *logits.shape, step(0), step(0), *rest) == 1
    assert "300 classes" in core.error()


def test_confidence_is_the_winners_probability(core: Core) -> None:
    """Two ways of exp differ by a few roundings, which moves a level only where it lies on a half: 1 in 10,000."""
    rng = np.random.default_rng(10)
    spec, imgsz, size, step = PreprocessSpec(), (64, 80), (111, 150), ctypes.c_ssize_t
    logits = smooth(rng, 7, 16, 20) / 3
    region = valid_region(size, spec, imgsz)
    labels, sure = np.zeros(size, np.uint8), np.zeros((111, 160), np.uint8)
    rc = core(
        "t_labels", c_spec(spec), *imgsz, logits, 0, *logits.shape, step(0), step(0), *size, 0, labels, step(150),
        sure, step(160),
    )  # fmt: skip
    assert rc == 0, core.error()
    np.testing.assert_array_equal(labels, label_map(logits, size, region, imgsz))
    full = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear")[0]
    wanted = np.floor(255 * full.double().softmax(0).amax(0).numpy() + 0.5)
    differing = sure[:, :150] != wanted
    assert differing.mean() < 2e-3
    assert np.abs(sure[:, :150].astype(int) - wanted).max() <= 1


def test_the_nearest_labels_are_pythons(core: Core) -> None:
    rng = np.random.default_rng(11)
    for index in range(27):
        spec = (PreprocessSpec(), PreprocessSpec(resize="keep"), PreprocessSpec(resize="letterbox"))[index % 3]
        imgsz, size = random_size(rng, 80), random_size(rng, 150)
        given, kind = TYPES[index // 3 % 3], index // 9 % 3
        labels = rng.integers(0, 200, imgsz).astype(given)
        out, step = np.full((size[0], size[1] + 2), 99, TYPES[kind]), ctypes.c_ssize_t
        rest = (step(imgsz[1]), *size, kind, out, step(size[1] + 2))
        assert core("t_nearest", c_spec(spec), *imgsz, TYPES.index(given), labels, *rest) == 0, core.error()
        np.testing.assert_array_equal(out[:, :-2], nearest(labels, size, valid_region(size, spec, imgsz)))
        assert (out[:, -2:] == 99).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_best_classes_are_pythons(core: Core, dtype: Any) -> None:
    rng = np.random.default_rng(12)
    for count, k in ((1, 1), (7, 5), (1000, 5), (300, 300)):
        logits = np.round(rng.normal(0, 30, count) * 2).astype(dtype) / 2  # many equal ones, many of no probability
        scratch, classes, shares = np.zeros(count), np.zeros(k, np.int32), np.zeros(k)
        assert core("t_top", logits, int(dtype == np.float16), count, k, scratch, classes, shares) == 0, core.error()
        powers = np.exp(logits.astype(np.float64) - logits.max())
        wanted = powers / powers.sum()
        best = np.argsort(-wanted, kind="stable")[:k]  # of equals the lowest index comes first
        assert classes.tolist() == best.tolist()
        np.testing.assert_allclose(shares, wanted[best], rtol=1e-12)
    logits[3] = np.nan
    assert core("t_top", logits, int(dtype == np.float16), count, k, scratch, classes, shares) == 5
    assert core("t_top", logits, 0, 7, 8, scratch, classes, shares) == 1


def test_what_is_no_picture_is_refused(core: Core) -> None:
    image, out = np.zeros((8, 24), np.uint8), np.zeros((1, 3, 4, 4), np.float32)
    spec, nowhere = c_spec(PreprocessSpec()), np.zeros((8, 24), np.uint8)

    def refused(said: str, pixels: str, yuv: str | None, size: tuple[int, int], *planes: Bytes) -> None:
        picture = c_picture(list(planes), pixels, yuv, size)
        assert core("t_tensor", spec, 4, 4, picture, out) == 1
        assert said in core.error()
        assert core("t_convert", picture, 0, 0, *c_planes([nowhere])) == 1
        assert "\n" not in core.error()

    refused("each side", "rgb", None, (0, 8), image)
    refused("each side", "rgb", None, (8, -1), image)
    refused("each side", "rgb", None, (8, 2**16 + 1), image)
    refused("24 bytes, a row has 27", "rgb", None, (8, 9), image)
    refused("is null", "rgb", None, (8, 8))
    refused("even", "nv12", "bt709", (7, 8), image, image)
    refused("even", "nv12", "bt709", (8, 7), image, image)
    refused("colours", "nv12", None, (8, 8), image, image)
    refused("plane 1 is null", "nv12", "bt709", (8, 8), image)
    refused("plane 1 is 4 bytes", "nv12", "bt709", (8, 8), image, np.zeros((4, 4), np.uint8))
    step = ctypes.c_ssize_t
    for size, channels, kept, given in (
        ((8, 8), 2, 24, 24),
        ((0, 8), 3, 24, 24),
        ((8, 8), 3, 23, 24),
        ((8, 8), 3, 24, 2),
    ):
        assert core("t_resize", image, step(kept), *size, channels, 0, 2, 2, nowhere, step(given)) == 1


def test_specs_that_cannot_be_served_are_refused(core: Core) -> None:
    region = np.zeros(4, np.int32)
    good = PreprocessSpec(resize="keep")
    for spec in (replace(good, crop_pct=0), replace(good, std=(1, 0, 1)), replace(good, mean=(np.nan, 0, 0))):
        picture = c_picture([np.zeros((8, 24), np.uint8)], "rgb", None, (8, 8))
        assert core("t_tensor", c_spec(spec), 4, 4, picture, np.zeros((1, 3, 4, 4), np.float32)) == 2
    assert core("t_region", c_spec(replace(good, resize="slide")), 4, 4, 8, 8, region) == 2


def test_logits_that_are_no_numbers_are_refused(core: Core) -> None:
    step, spec = ctypes.c_ssize_t, c_spec(PreprocessSpec())
    out = np.zeros((20, 20), np.uint8)
    for dtype, bad in ((np.float32, np.nan), (np.float32, -np.inf), (np.float16, np.inf), (np.float16, np.nan)):
        logits = np.zeros((3, 9, 11), dtype)
        logits[1, 8, 10] = bad
        rest = (step(0), step(0), 20, 20, 0, out, step(20), None, step(0))
        assert core("t_labels", spec, 36, 44, logits, int(dtype == np.float16), *logits.shape, *rest) == 5
        assert "NaN" in core.error()


# A fault, the file it is planted in, and the test that has to see it.
FAULTS: dict[str, tuple[str, str, str, Callable[[Core], None]]] = {
    "a weight rounded down": ("taps", "scaled + 0.5)", "scaled + 0.4)", test_a_resize_gives_pillows_bytes),
    "the height always last": ("resize", "lower > std::max", "lower > 10000 + std::max",
                               test_a_resize_gives_pillows_bytes),
    "half a level less": ("kernels", "kHalf = 1 <<", "kHalf = -1 + 1 <<", test_a_resize_gives_pillows_bytes),
    "OpenCV's rounding": ("kernels", ">> 16) + 2) >> 2", ">> 16) + 1) >> 2", test_a_resize_gives_opencvs_bytes),
    "letterbox a pixel up": ("geometry", "imgsz.height - aligned.height) / 2", "imgsz.height - aligned.height + 1) / 2",
                             test_sizes_round_as_python_rounds),
    "halves of a crop up": ("geometry", "std::nearbyint(size.height * scale)", "std::round(size.height * scale)",
                            test_halves_of_a_crop_go_to_the_even_side),
    "the wrong neighbour": ("label_band", "std::min(first[at] + 1, source - 1)", "std::min(first[at] + 2, source - 1)",
                            lambda core: test_labels_are_pythons(core, "smooth", np.float32)),
    "no tolerance": ("label_band", "kTolerance = 4e-6f", "kTolerance = -1e-3f",
                     lambda core: test_labels_are_pythons(core, "large", np.float32)),
    "the last of equals": ("label_band", "found = value > best", "found = value >= best",
                           lambda core: test_labels_are_pythons(core, "ties", np.float32)),
    "nearest without its half": ("postprocess", "(i + 0.5) * side", "(i + 0.4) * side",
                                 test_the_nearest_labels_are_pythons),
    "a colour off by one": ("colours", "colours.bias[1] + 4096", "colours.bias[1] + 4095",
                            lambda core: test_nv12_is_pythons_to_the_bit(core, "bt709")),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_fault_is_seen(name: str, tmp_path: Path) -> None:
    file, good, bad, check = FAULTS[name]
    source = tmp_path / "src"
    shutil.copytree(CPP / "src", source)
    text = (source / f"{file}.cpp").read_text()
    assert text.count(good) >= 1
    (source / f"{file}.cpp").write_text(text.replace(good, bad))
    with pytest.raises(AssertionError):
        check(build(tmp_path, source))
