"""Boxes in C++ against hiresvit/runtime/boxes.py: the same ones in the same order."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from hiresvit.data.preprocess import valid_region
from hiresvit.runtime.boxes import find_boxes
from hiresvit.spec import AnchorSpec, ModelSpec, PreprocessSpec, Resize

CPP = Path(__file__).parents[2] / "cpp"
IMGSZ, CLASSES = (64, 96), 4
SMALL = AnchorSpec((8, 16, 32), per_level=60, max_boxes=30)
SIZES = ((64, 96), (37, 120), (480, 301), (9, 5))
RESIZES = {
    "stretch": PreprocessSpec(),
    "keep": PreprocessSpec("keep", divisor=32),
    "letterbox": PreprocessSpec("letterbox", rounding="round"),
}
Outputs = dict[str, NDArray[Any]]


class CAnchors(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("strides", "scales", "ratios", "per_level", "max_boxes")),
        ("stride", ctypes.c_int * 16),
        ("scale", ctypes.c_double * 64),
        ("ratio", ctypes.c_double * 64),
        ("base", ctypes.c_double),
        ("means", ctypes.c_double * 4),
        ("stds", ctypes.c_double * 4),
        *((name, ctypes.c_double) for name in ("size_clamp", "score_threshold", "iou_threshold")),
    )


class CDetection(ctypes.Structure):
    _fields_ = (("box", ctypes.c_float * 4), ("score", ctypes.c_float), ("label", ctypes.c_int32))


def c_anchors(anchors: AnchorSpec) -> CAnchors:
    own = CAnchors(len(anchors.strides), len(anchors.scales), len(anchors.ratios), anchors.per_level, anchors.max_boxes)
    for name, values in (("stride", anchors.strides), ("scale", anchors.scales), ("ratio", anchors.ratios)):
        getattr(own, name)[: len(values)] = values
    own.means[:], own.stds[:] = anchors.means, anchors.stds
    for name in ("base", "size_clamp", "score_threshold", "iou_threshold"):
        setattr(own, name, getattr(anchors, name))
    return own


Found = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]  # boxes (N, 4), scores and classes


def cpp_boxes(library: ctypes.CDLL, outputs: Outputs, size: tuple[int, int], spec: ModelSpec) -> Found:
    """What the library makes of raw outputs for a picture of a size."""
    assert spec.anchors is not None
    most, resize = spec.anchors.max_boxes, get_args(Resize).index(spec.preprocess.resize)
    kept = {name: np.ascontiguousarray(value[0]) for name, value in outputs.items()}
    pointers = [
        (ctypes.c_void_p * 16)(*(kept[f"{kind}_{stride}"].ctypes.data for stride in spec.anchors.strides))
        for kind in ("logits", "deltas")
    ]
    half, found = next(iter(kept.values())).dtype == np.float16, (CDetection * most)()
    prep = (
        resize,
        spec.preprocess.rounding == "round",
        spec.preprocess.divisor,
        ctypes.c_double(spec.preprocess.crop_pct),
    )
    anchors = ctypes.byref(c_anchors(spec.anchors))
    count = library.t_boxes(anchors, spec.num_classes, *prep, *spec.imgsz, *pointers, half, *size, most, found)
    if count < 0:
        raise ValueError(bytes(library.t_error()).decode())
    boxes = np.array([list(one.box) for one in found[:count]], np.float64).reshape(-1, 4)
    scores = np.array([one.score for one in found[:count]], np.float64)
    return boxes, scores, np.array([one.label for one in found[:count]], np.int64)


def python_boxes(outputs: Outputs, size: tuple[int, int], spec: ModelSpec) -> Found:
    """What Python makes of them."""
    assert spec.anchors is not None
    found = find_boxes(outputs, spec.anchors, size, valid_region(size, spec.preprocess, spec.imgsz))
    return found.boxes.astype(np.float64), found.scores.astype(np.float64), found.classes.astype(np.int64)


def load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.t_error.restype = ctypes.c_char_p
    return library


@pytest.fixture(scope="module")
def library(cpp_build: Path) -> ctypes.CDLL:
    return load(cpp_build / "tests" / "libhiresvit_boxes.so")


def random_outputs(spec: ModelSpec, seed: int, *, dtype: str = "float32", step: float = 0.0) -> Outputs:
    """As a network gives them, crowded enough that boxes hide each other; with ``step`` many scores are equal."""
    assert spec.anchors is not None
    random, outputs = np.random.default_rng(seed), {}
    for stride in spec.anchors.strides:
        cells = [-(-side // stride) for side in spec.imgsz]
        for kind, depth, wide in (("logits", spec.num_classes, 2.0), ("deltas", 4, 0.7)):
            values = random.normal(-1 if kind == "logits" else 0, wide, (1, spec.anchors.per_cell * depth, *cells))
            outputs[f"{kind}_{stride}"] = (np.round(values / step) * step if step else values).astype(dtype)
    return outputs


def spec_of(preprocess: PreprocessSpec, anchors: AnchorSpec = SMALL) -> ModelSpec:
    return ModelSpec("any", "none", "detect", IMGSZ, CLASSES, preprocess, anchors=anchors)


def require_same(found: Found, wanted: Found) -> None:
    """The same boxes in the same order: single precision of the answer leaves 1e-7 of a side, a wrong anchor pixels."""
    assert np.array_equal(found[2], wanted[2])
    assert np.allclose(found[0], wanted[0], rtol=1e-6, atol=1e-5)
    assert np.allclose(found[1], wanted[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_boxes_are_pythons(library: ctypes.CDLL, resize: str, dtype: str) -> None:
    spec = spec_of(RESIZES[resize])
    for seed, size in enumerate(SIZES):
        for step in (0.0, 0.5):  # with 0.5 hundreds of scores are equal: the order of those is defined, too
            outputs = random_outputs(spec, seed, dtype=dtype, step=step)
            found = cpp_boxes(library, outputs, size, spec)
            assert len(found[0]) == SMALL.max_boxes
            require_same(found, python_boxes(outputs, size, spec))


@pytest.mark.parametrize(
    "changes",
    [
        {"score_threshold": 0.9, "max_boxes": 1000},
        {"score_threshold": 0.999999},
        {"iou_threshold": 0.0, "max_boxes": 1000},
        {"iou_threshold": 1.0, "per_level": 7},
        {"strides": (16,), "scales": (2.0,), "ratios": (1.0, 3.0), "base": 2.5},
        {"means": (0.1, -0.2, 0.3, 0.0), "stds": (0.1, 0.1, 0.2, 0.2), "size_clamp": 0.5},
        {"scales": (1e6,), "base": 1e6, "stds": (1e6, 1e6, 1.0, 1.0)},  # all of it is the whole picture, or nothing
        {"scales": (1e-6,), "max_boxes": 1},
    ],
    ids=str,
)
def test_anchors_and_thresholds_are_obeyed(library: ctypes.CDLL, changes: dict[str, Any]) -> None:
    spec = spec_of(RESIZES["letterbox"], replace(SMALL, **changes))
    outputs = random_outputs(spec, 3)
    require_same(cpp_boxes(library, outputs, (50, 90), spec), python_boxes(outputs, (50, 90), spec))


def test_what_is_no_number_is_said(library: ctypes.CDLL) -> None:
    spec = spec_of(PreprocessSpec())
    for name, value in (("logits_8", np.nan), ("logits_32", np.inf), ("deltas_16", np.nan)):
        outputs = random_outputs(spec, 0)
        outputs[name][...] = value
        with pytest.raises(ValueError, match="NaN or Inf"):
            cpp_boxes(library, outputs, (64, 96), spec)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_score_at_the_threshold_is_decided_alike(library: ctypes.CDLL, dtype: str) -> None:
    """Beside the logit of 0.05, of which the nearest number of the outputs' type is above in FP16 and below in FP32."""
    changes = {"strides": (32,), "iou_threshold": 1.0, "per_level": 1000, "max_boxes": 1000}
    spec = spec_of(PreprocessSpec(), replace(SMALL, **changes))  # type: ignore[arg-type]
    outputs = random_outputs(spec, 0, dtype=dtype)
    nearest = np.array(np.log(0.05 / 0.95), dtype)
    beside = [np.nextafter(nearest, np.array(end, dtype)) for end in (-9, 9)]
    outputs["logits_32"].flat[:] = np.resize([*beside, nearest], outputs["logits_32"].size)
    require_same(cpp_boxes(library, outputs, (64, 96), spec), python_boxes(outputs, (64, 96), spec))


def test_scores_that_are_rounded_to_1_come_level_by_level(library: ctypes.CDLL) -> None:
    spec = spec_of(PreprocessSpec(), replace(SMALL, iou_threshold=1.0))
    outputs = random_outputs(spec, 0)
    for stride, logit in ((8, 50), (16, 60), (32, 70)):
        some = outputs[f"logits_{stride}"].flat[::40].size
        outputs[f"logits_{stride}"].flat[::40] = logit + np.arange(some)
    require_same(cpp_boxes(library, outputs, (64, 96), spec), python_boxes(outputs, (64, 96), spec))


FAULTS = {
    "dx and dy change places": ("delta(axis)", "delta(1 - axis)"),
    "scales before ratios": ("anchors_.scales[anchor % scales]", "anchors_.scales[anchor / anchors_.ratios.size()]"),
    "no clamp": ("std::clamp(delta(2 + axis), -most, most)", "delta(2 + axis)"),
    "the middle of a cell": ("places[axis] * stride", "(places[axis] + 0.5) * stride"),
    "of equals the last": ("a.place < b.place", "a.place > b.place"),
    "classes hide each other": ("label_of(better) == label_of(one) && overlap", "overlap"),
    "not cut": ("if (!show(one, region, picture)) continue;", "show(one, region, picture);"),
}


def compiled(folder: Path, *sources: Path, flags: tuple[str, ...] = ("-c",)) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    include = [f"-I{CPP / 'src'}", f"-I{CPP / 'include'}"]
    command = [compiler, "-std=c++17", "-fPIC", "-ffp-contract=off", *include, *flags, *map(str, sources)]
    subprocess.run(command, cwd=folder, check=True, timeout=300)


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What does not change with a fault, compiled."""
    folder = tmp_path_factory.mktemp("rest")
    (folder / "plain.cpp").symlink_to(CPP / "tests" / "boxes.cpp")
    compiled(folder, Path("plain.cpp"), CPP / "src" / "geometry.cpp")
    return sorted(folder.glob("*.o"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(tmp_path: Path, rest: list[Path], fault: str) -> None:
    text = (CPP / "src" / "boxes.cpp").read_text(encoding="utf-8")
    old, new = FAULTS[fault]
    assert text.count(old) >= 1
    (tmp_path / "boxes.cpp").write_text(text.replace(old, new), encoding="utf-8")
    compiled(tmp_path, Path("boxes.cpp"), *rest, flags=("-shared", "-o", "boxes.so"))
    spec = spec_of(RESIZES["letterbox"], replace(SMALL, max_boxes=1000, size_clamp=0.3))
    outputs = random_outputs(spec, 4, step=0.25)
    wanted = python_boxes(outputs, (50, 90), spec)
    with pytest.raises(AssertionError):
        require_same(cpp_boxes(load(tmp_path / "boxes.so"), outputs, (50, 90), spec), wanted)
