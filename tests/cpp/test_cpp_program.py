"""hiresvit-run: pictures are decoded as Pillow decodes them, what is none ends in one line, and times are printed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract_bundles import write_bundle
from cpp_build import build_folder, built
from PIL import Image
from tensor_bundles import IMGSZ, write_detector, write_raw

from hiresvit.data.image import load_image
from hiresvit.spec import ContractSpec, Task
from hiresvit.workflows.report import read_result

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def program(build: Path, library: Path, **environment: str) -> Run:
    """Runs the program of a build."""

    def run(*words: Any) -> Done:
        return subprocess.run(
            [build / "hiresvit-run", *map(str, words)],
            env={**os.environ, "HIRESVIT_ONNXRUNTIME": str(library), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def run(cpp_build: Path, onnxruntime_library: Path) -> Run:
    return program(cpp_build, onnxruntime_library)


@pytest.fixture
def strongest(tmp_path: Path) -> Path:
    """A bundle whose labels say which of a pixel's colours is the strongest."""
    write_bundle(tmp_path / "bundle", ContractSpec("camera", "rgb", IMGSZ, None, "uint8"))
    return tmp_path / "bundle"


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(rgb: np.ndarray[Any, Any]) -> bytes:
    """A PNG of 16-bit colours, which Pillow does not write."""
    height, width = rgb.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def files(folder: Path, height: int, width: int) -> list[Path]:
    """One picture in every way that is read, all of a size once EXIF has turned them."""
    random = np.random.default_rng(3)
    rgb = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    grey = random.integers(0, 65536, (height, width), np.uint16)
    image = Image.fromarray(rgb)
    alpha = Image.fromarray(np.dstack((rgb, grey.astype(np.uint8))))
    written: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "rgb.png": (image, {}),
        "rgba.png": (alpha, {}),
        "palette.png": (image.quantize(200), {}),
        "palette_alpha.png": (alpha.quantize(50), {}),
        "four.png": (image.quantize(4), {"bits": 2}),
        "grey.png": (image.convert("L"), {}),
        "grey_alpha.png": (alpha.convert("LA"), {}),
        "one_bit.png": (image.convert("1"), {}),
        "grey16.png": (Image.fromarray(grey), {}),
        "small16.png": (Image.fromarray(grey // 300), {}),
        "best.jpg": (image, {"quality": 97, "subsampling": 0}),
        "usual.jpg": (image, {"quality": 75}),
        "progressive.jpg": (image, {"quality": 80, "progressive": True}),
        "grey.jpg": (image.convert("L"), {}),
    }
    for turned in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turned
        lying = image.transpose(Image.Transpose.ROTATE_90) if turned > 4 else image
        written[f"turned{turned}.jpg"] = lying, {"exif": exif, "quality": 90}
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    written["turned.png"] = image, {"exif": upside_down}
    for name, (picture, options) in written.items():
        picture.save(folder / name, **options)
    (folder / "wide.png").write_bytes(png16(rgb.astype(np.uint16) * 257 - 40))
    return [*(folder / name for name in written), folder / "wide.png"]


def test_pictures_are_pillows(strongest: Path, tmp_path: Path, run: Run) -> None:
    for path in files(tmp_path, *IMGSZ):
        done = run(strongest, path, "--labels", tmp_path / "labels.png", "-o", tmp_path / "overlay.png")
        assert done.returncode == 0, f"{path.name}: {done.stderr}"
        want = load_image(path)
        found = np.asarray(Image.open(tmp_path / "labels.png"))
        assert np.array_equal(found, want.argmax(2)), path.name
        painted = np.asarray(Image.open(tmp_path / "overlay.png"))
        assert painted.shape == want.shape
        # (picture + colour + 1) / 2 of one colour for a class: what was painted is known but for its lowest bit
        colours = {label: (2 * painted[found == label].astype(int) - want[found == label]) for label in set(found.flat)}
        assert all(np.ptp(mixed, axis=0).max() <= 1 for mixed in colours.values()), path.name
    assert not list(tmp_path.glob("*.tmp-*"))


def bad_files(folder: Path) -> dict[str, bytes]:
    """What is no picture, or one that is refused, by name."""
    plain, jpeg, cmyk = io.BytesIO(), io.BytesIO(), io.BytesIO()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8))
    image.save(plain, "PNG")
    image.save(jpeg, "JPEG")
    image.convert("CMYK").save(cmyk, "JPEG")
    png = plain.getvalue()
    return {
        "nothing.png": b"",
        "text.png": b"hello, I am a picture",
        "cut.png": png[: len(png) // 2],
        "head.png": png[:30],
        "changed.png": png[:100] + bytes([png[100] ^ 255]) + png[101:],
        "cut.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "head.jpg": jpeg.getvalue()[:20],
        "cmyk.jpg": cmyk.getvalue(),
        "black.png": png16(np.full((32, 48, 3), 200, np.uint16)),
        "huge.png": png[:16] + struct.pack(">II", 60000, 60000) + png[24:],
        "zero.png": png[:16] + struct.pack(">II", 0, 5) + png[24:],
        "bomb.png": b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 16000, 16000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b""),
    }


def refused(done: Done, code: int) -> str:
    """The one line of a run that ended as it should."""
    assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


def test_bad_files_end_in_a_line(strongest: Path, tmp_path: Path, run: Run) -> None:
    for name, content in bad_files(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        assert name in refused(run(strongest, tmp_path / name), 1)
    assert "no file" in refused(run(strongest, tmp_path), 1)
    assert "none.png" in refused(run(strongest, tmp_path / "none.png"), 1)


def test_arguments_and_bundles_end_in_a_line(strongest: Path, tmp_path: Path, run: Run) -> None:
    Image.new("RGB", IMGSZ[::-1]).save(tmp_path / "a.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "small.png")
    good = strongest, tmp_path / "a.png"
    for words in (
        (),
        good[:1],
        (*good, "more"),
        (*good, "--fast"),
        (*good, "--bench"),
        (*good, "--bench", "0"),
        (*good, "--threads", "two"),
        (*good, "--graph", "none"),
        (*good, "--backend", "cuda"),
        (strongest, tmp_path / "small.png"),  # no picture of this camera
    ):
        refused(run(*words), 2)
    refused(run(tmp_path, tmp_path / "a.png"), 7)
    refused(run(tmp_path / "none", tmp_path / "a.png"), 1)
    refused(run(*good, "--library", tmp_path / "none.so"), 6)
    refused(run(*good, "-o", tmp_path / "no" / "folder.png"), 1)
    (tmp_path / "taken.png").mkdir()
    refused(run(*good, "-o", tmp_path / "taken.png"), 1)
    assert not list(tmp_path.glob("*.tmp-*"))
    assert run("--help").stdout.startswith("hiresvit-run BUNDLE IMAGE")
    assert re.fullmatch(r"[\d.]+\n", run("--version").stdout)


def test_times_in_trtexecs_words(strongest: Path, tmp_path: Path, run: Run) -> None:
    Image.new("RGB", IMGSZ[::-1]).save(tmp_path / "a.png")
    said = run(strongest, tmp_path / "a.png", "--bench", "7", "--no-golden", "--threads", "1").stdout
    number = r"\d+\.\d+ ms"
    spread = "".join(f", percentile\\({p}%\\) = {number}" for p in (90, 95, 99))
    spread = f": min = {number}, max = {number}, mean = {number}, median = {number}{spread}$"
    assert re.search(r"^Throughput: \d+\.\d+ qps$", said, re.MULTILINE)
    assert re.search(f"^Latency{spread}", said, re.MULTILINE)
    assert re.search(f"^Frame Time{spread}", said, re.MULTILINE)
    assert re.search(f"^Frame: prepare .* = {number}, network = {number}, labels = {number}, whole", said, re.MULTILINE)
    assert "GPU" not in said


def test_times_as_the_document_of_bench(strongest: Path, tmp_path: Path, run: Run) -> None:
    Image.new("RGB", IMGSZ[::-1]).save(tmp_path / "a.png")
    good = strongest, tmp_path / "a.png", "--no-golden", "--threads", "1"
    document = json.loads(run(*good, "--bench", "7", "--json").stdout)
    (tmp_path / "bench.json").write_text(json.dumps(document))
    read_result(tmp_path / "bench.json")  # what `hiresvit report` takes
    [side] = document["latency"]["sides"].values()
    samples = np.array(side["samples_ns"]) / 1e6
    assert (side["calls"], len(samples), document["latency"]["mode"]) == (7, 7, "call")
    for name, value in (
        ("min", samples.min()),
        ("max", samples.max()),
        ("mean", samples.mean()),
        ("median", np.median(samples)),
        ("std", samples.std(ddof=1)),
        ("p99", samples.max()),
    ):
        assert side[f"{name}_ms"] == pytest.approx(value, abs=1e-5), name
    assert side["throughput"] == pytest.approx(1000 / samples.mean(), rel=1e-4)
    assert side["origin"]["backend"].startswith("ONNX Runtime")
    assert (side["h2d_ms"], side["gpu_compute_ms"]) == (None, None), "what was not measured is null"


def test_a_classifier_prints_its_best(tmp_path: Path, run: Run) -> None:
    write_bundle(tmp_path / "bundle", ContractSpec("image", "rgb", IMGSZ, None, "int32", top_k=2), "classify")
    Image.new("RGB", (50, 40), (9, 8, 7)).save(tmp_path / "a.png")
    done = run(tmp_path / "bundle", tmp_path / "a.png")
    assert [line.split()[1:] for line in done.stdout.splitlines()[1:]] == [["class", "0"], ["class", "1"]]
    said = json.loads(run(tmp_path / "bundle", tmp_path / "a.png", "--json").stdout)
    assert [(one["class"], one["name"]) for one in said["top"]] == [(0, "class 0"), (1, "class 1")]
    assert [f"{one['probability']:8.4f}" for one in said["top"]] == [line[:8] for line in done.stdout.splitlines()[1:]]
    refused(run(tmp_path / "bundle", tmp_path / "a.png", "-o", tmp_path / "b.png"), 2)


def test_a_detector_prints_and_draws_its_boxes(tmp_path: Path, run: Run) -> None:
    write_detector(tmp_path / "bundle")
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (4, 6, 3), np.uint8).repeat(20, 0).repeat(20, 1)).save(tmp_path / "a.png")
    given = tmp_path / "bundle", tmp_path / "a.png"
    lines = run(*given, "-o", tmp_path / "boxes.png", "--bench", "1").stdout.splitlines()[1:]
    boxes = json.loads(run(*given, "--json").stdout)["boxes"]
    assert 1 < len(boxes) <= 20
    assert [box["score"] for box in boxes] == sorted((box["score"] for box in boxes), reverse=True)
    for line, one in zip(lines, boxes, strict=False):
        score, *box, _, label = line.split()
        assert (f"{one['score']:.4f}", one["name"]) == (score, f"class {label}")
        assert box == [f"{side:.1f}" for side in one["box"]]
    assert lines[len(boxes)].startswith("Throughput")
    before, drawn = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "boxes.png"))
    left, top, right, _ = (int(side) for side in boxes[0]["box"])
    edge = drawn[top, left : min(right, 119) + 1]
    assert (edge == edge[0]).all(), "the best box is drawn over the others"
    assert (before != drawn).any()
    refused(run(*given, "--labels", tmp_path / "b.png"), 2)


def test_raw_outputs_are_for_an_app(tmp_path: Path, run: Run) -> None:
    Image.new("RGB", (50, 40), (9, 8, 7)).save(tmp_path / "a.png")
    words: dict[Task, str] = {
        "features": "feature maps are no answer",
        "masks": "masks and their classes are no answer",
    }
    for task, word in words.items():
        write_raw(tmp_path / task, task)
        done = run(tmp_path / task, tmp_path / "a.png")
        refused(done, 2)
        assert word in done.stderr


def ctest(build: Path, bundle: Path, library: Path) -> None:
    """The tests that are in C++: the engine on a network that is none, allocations, the wrapper."""
    environment = {**os.environ, "HIRESVIT_TEST_BUNDLE": str(bundle), "HIRESVIT_ONNXRUNTIME": str(library)}
    command = ["ctest", "--output-on-failure", "--timeout", "120"]
    done = subprocess.run(command, cwd=build, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


def test_the_tests_in_cpp(cpp_build: Path, tiny_bundle: Path, onnxruntime_library: Path) -> None:
    ctest(cpp_build, tiny_bundle, onnxruntime_library)


@pytest.mark.parametrize("sanitizers", ["address,undefined", pytest.param("thread", marks=pytest.mark.slow)])
def test_sanitizers_find_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    tiny_bundle: Path,
    onnxruntime_library: Path,
    sanitizers: str,
) -> None:
    name = sanitizers.replace(",", "_")
    options = f"-DHIRESVIT_SANITIZE={sanitizers}", "-DCMAKE_BUILD_TYPE=Debug", "-DBUILD_SHARED_LIBS=OFF"
    build = built(build_folder(tmp_path_factory, name), *options)
    if sanitizers == "thread":  # ONNX Runtime is not instrumented, so that its threads look like races
        engine = shutil.which("engine_test", path=build / "tests")
        assert subprocess.run([str(engine)], check=False).returncode == 0
        return
    ctest(build, tiny_bundle, onnxruntime_library)
    run = program(build, onnxruntime_library, ASAN_OPTIONS="detect_leaks=1")
    write_bundle(tmp_path / "bundle", ContractSpec("camera", "rgb", IMGSZ, None, "uint8"))
    test_pictures_are_pillows(tmp_path / "bundle", tmp_path, run)
    test_bad_files_end_in_a_line(tmp_path / "bundle", tmp_path, run)
    test_arguments_and_bundles_end_in_a_line(tmp_path / "bundle", tmp_path, run)
    (tmp_path / "detector").mkdir()
    test_a_detector_prints_and_draws_its_boxes(tmp_path / "detector", run)
