"""Boxes in C++ against hiresvit/runtime/boxes.py: the same ones in the same order."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hiresvit.spec import AnchorSpec, PreprocessSpec

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
