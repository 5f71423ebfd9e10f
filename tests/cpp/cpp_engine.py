"""hiresvit.h through ctypes: the C ABI as any language sees it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_ssize_t, c_void_p, sizeof
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIXELS = {"rgb": 0, "bgr": 1, "rgba": 2, "bgra": 3, "nv12": 4}
YUV = {None: 0, "bt601": 1, "bt709": 2, "bt601-full": 3, "bt709-full": 4}
TYPES: dict[str, int] = {"uint8": 0, "int32": 1, "int64": 2, "float16": 3, "float32": 4}


class COptions(Structure):
    """hiresvit_options."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("graph", c_char_p),
        ("backend", c_char_p),
        ("library", c_char_p),
        ("threads", c_int32),
        ("skip_golden", c_int32),
        ("cuda_graph", c_int32),
        ("device", c_int32),
        ("stream", c_void_p),
        ("host_code", c_int32),
        ("context", c_char_p),
        ("provider", c_char_p),
        ("soc_model", c_int32),
    )


class CPicture(Structure):
    """hiresvit_picture."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("pixels", c_int32),
        ("yuv", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("planes", c_void_p * 2),
        ("strides", c_ssize_t * 2),
    )


class CAnswer(Structure):
    """hiresvit_answer."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("height", c_int32),
        ("width", c_int32),
        ("labels", c_void_p),
        ("label_type", c_int32),
        ("stride", c_ssize_t),
        ("confidence", c_void_p),
        ("confidence_stride", c_ssize_t),
        ("k", c_int32),
        ("classes", c_void_p),
        ("probabilities", c_void_p),
        ("boxes", c_void_p),
    )


class CDetection(Structure):
    """hiresvit_detection."""

    _fields_ = (("box", c_float * 4), ("score", c_float), ("label", c_int32))


Detections = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]


def detections_of(found: Sequence[CDetection]) -> Detections:
    """Boxes (N, 4), scores and classes."""
    boxes = np.array([list(one.box) for one in found], np.float32).reshape(-1, 4)
    return boxes, np.array([one.score for one in found], np.float32), np.array([one.label for one in found], np.int32)


class CTensor(Structure):
    """hiresvit_tensor."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("data", c_void_p),
        ("bytes", c_size_t),
        ("type", c_int32),
        ("rank", c_int32),
        ("shape", c_int64 * 8),
    )


class CError(Exception):
    """What a call said: its status and its line."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def picture(planes: list[NDArray[np.uint8]], pixels: str = "rgb", yuv: str | None = None) -> CPicture:
    """Of arrays (H, W, C), or NV12's luma (H, W) and chroma (H/2, W/2, 2), whose rows may lie apart."""
    height, width = planes[0].shape[:2]
    own = CPicture(sizeof(CPicture), PIXELS[pixels], YUV[yuv], height, width)
    for index, plane in enumerate(planes):
        own.planes[index], own.strides[index] = plane.ctypes.data, plane.strides[0]
    own.kept = planes  # as long as the structure
    return own


def label_answer(labels: NDArray[Any], confidence: NDArray[np.uint8] | None = None) -> CAnswer:
    """For labels (H, W) whose rows may lie apart."""
    own = CAnswer(sizeof(CAnswer), *labels.shape)
    own.labels, own.stride, own.label_type = labels.ctypes.data, labels.strides[0], TYPES[labels.dtype.name]
    if confidence is not None:
        own.confidence, own.confidence_stride = confidence.ctypes.data, confidence.strides[0]
    own.kept = labels, confidence
    return own


class CEngine:
    """An engine, opened through a build's libhiresvit.so. Every call raises CError with the library's own words."""

    def __init__(self, build: Path, bundle: Path | str, **options: Any) -> None:
        self.library = ctypes.CDLL(str(build / "libhiresvit.so"))
        self.library.hiresvit_last_error.restype = c_char_p
        self.handle = c_void_p()
        own = COptions(sizeof(COptions))
        for name, value in {"threads": 1, **options}.items():
            setattr(own, name, str(value).encode() if isinstance(value, str | Path) else value)
        self.call("open", str(bundle).encode(), byref(own), byref(self.handle))

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, f"hiresvit_{name}")(*arguments)
        if code:
            raise CError(code, self.library.hiresvit_last_error().decode())

    def submit(self, given: CPicture) -> None:
        self.call("submit", self.handle, byref(given))

    def wait(self, answer: CAnswer) -> None:
        self.call("wait", self.handle, byref(answer))

    def labels(self, given: CPicture, dtype: str = "uint8") -> NDArray[Any]:
        """Of one frame, rows behind each other."""
        found = np.full((given.height, given.width), 99, dtype)
        self.call("run", self.handle, byref(given), byref(label_answer(found)))
        return found

    def output(self, index: int) -> tuple[str, NDArray[Any]]:
        """Name and a copy of a raw output."""
        own = CTensor(sizeof(CTensor))
        self.call("output", self.handle, c_int32(index), byref(own))
        dtype = np.dtype({number: name for name, number in TYPES.items()}[own.type])
        data = ctypes.string_at(own.data, own.bytes)
        return own.name.decode(), np.frombuffer(data, dtype).reshape(own.shape[: own.rank])

    def close(self) -> None:
        self.library.hiresvit_close(byref(self.handle))


def classes_of(engine: CEngine, given: CPicture, k: int) -> tuple[list[int], list[float]]:
    """The best classes and their probabilities."""
    classes, shares = (c_int32 * k)(), (ctypes.c_float * k)()
    own = CAnswer(sizeof(CAnswer))
    own.k, own.classes, own.probabilities = k, ctypes.addressof(classes), ctypes.addressof(shares)
    engine.call("run", engine.handle, byref(given), byref(own))
    return list(classes[: own.k]), list(shares[: own.k])


def boxes_of(engine: CEngine, given: CPicture, most: int) -> Detections:
    """The best boxes, at most as many."""
    found = (CDetection * most)()
    own = CAnswer(sizeof(CAnswer))
    own.k, own.boxes = most, ctypes.addressof(found)
    engine.call("run", engine.handle, byref(given), byref(own))
    return detections_of(found[: own.k])
