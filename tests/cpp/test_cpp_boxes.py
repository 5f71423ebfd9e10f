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
