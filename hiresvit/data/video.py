"""The frames of a video file or a camera, by OpenCV or PyAV, whichever is installed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiresvit.errors import HiresvitError, MissingDependency
from hiresvit.kinds import name_file_kind

Picture: TypeAlias = NDArray[np.uint8]


def read_video(source: int | str | Path) -> Iterator[Picture]:
    """The frames of a file, an address that the library knows, or the camera of a number: uint8 (H, W, 3) RGB.

    The iterator lets go of it when it is closed. Raises MissingDependency at once if no library is installed, and
    HiresvitError with the first frame for what cannot be opened and what has none.
    """
    readers = {"cv2": _by_opencv, "av": _by_pyav}
    for name, read in readers.items():
        if find_spec(name):
            return _some(source, read(source))
    raise MissingDependency(
        f"{_name(source)}: to read it, install OpenCV or PyAV (pip install opencv-python-headless); or give the frames"
        " themselves, any iterable of arrays"
    )


def _name(source: int | str | Path) -> str:
    return f"camera {source}" if isinstance(source, int) else str(source)


def _some(source: int | str | Path, frames: Iterator[Picture]) -> Iterator[Picture]:
    """The frames. Raises HiresvitError if there are none."""
    frame = None
    for frame in frames:
        yield frame
    if frame is None:
        raise HiresvitError(f"{_name(source)}: no frame can be read; {_advice(source)}")


def _advice(source: int | str | Path) -> str:
    if isinstance(source, int):
        return "look whether the camera is there (ls /dev/video*) and whether another program has it"
    path = Path(source)
    if not path.exists():
        return "there is no such file"
    kind = name_file_kind(path.open("rb").read(512)) if path.is_file() else "no file"
    return f"it is {kind}; give a video" if kind else "give a video"


def _library(name: str) -> Any:
    """By name, because neither is among the dependencies, and one of them has types."""
    return importlib.import_module(name)


def _by_opencv(source: int | str | Path) -> Iterator[Picture]:
    library = _library("cv2")
    capture = library.VideoCapture(source if isinstance(source, int) else str(source))
    try:
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield np.ascontiguousarray(frame[..., ::-1])
    finally:
        capture.release()


def _by_pyav(source: int | str | Path) -> Iterator[Picture]:
    library = _library("av")
    camera = {"file": f"/dev/video{source}", "format": "v4l2"} if isinstance(source, int) else {"file": str(source)}
    try:
        container = library.open(**camera)
    except (library.error.FFmpegError, OSError):
        return
    with closing(container):
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
