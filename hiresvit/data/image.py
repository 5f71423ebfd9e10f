"""One picture from a file, a pipe or stdin as an array, whatever wrote it; and what is refused before it costs much.

A picture is decoded as the authors' loaders do it: alpha is dropped and not painted over (``convert("RGB")`` of timm
and torchvision, ``IMREAD_COLOR`` of OpenCV in mmcv and PaddleSeg), colour profiles are ignored.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
import select
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.kinds import name_file_kind

STDIN = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # what is looked for in folders
SOMETIMES = {".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF"}  # and those, where what is installed reads them
MOST_PIXELS = 2**28  # 268 million: phones have 200
# More than this only where rows are decoded one after the other, at 7 bytes a pixel and not at up to 19, and from a
# file as large as a real one would be: a JPEG of a single colour has a byte for 64 to 85 pixels, others have more.
FEW_PIXELS = 52_000_000
PIXELS_PER_BYTE = 100
_BY_ROWS = ("JPEG", "MPO", "PNG", "TIFF", "BMP", "PPM")
MOST_SCANNED = 2**32  # pixels times scans of a progressive JPEG: writers make about ten scans, an attacker thousands
PIPED_BYTES = 2**29
PIPE_WAIT_S = 15.0
_READ = {f"a {name} picture" for name in ("JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF")}
_GIVE = "give a JPEG, PNG, WebP or TIFF"
_BAND = 2**20  # pixels that are converted at a time
_INSTALL = {
    "a HEIC picture": "install pillow-heif, or save it as JPEG",
    "an AVIF picture": "Pillow from 11.3 on reads it where it was built to; or save it as JPEG",
}
_TURNED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {  # EXIF 2.32, 4.6.4, tag 274
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}
_guard = threading.Lock()
logging.getLogger("PIL").addHandler(logging.NullHandler())  # or Python prints what it logs of a damaged file


def load_image(path: Path | str, *, upright: bool = True) -> NDArray[np.uint8]:
    """Read a picture as uint8 (H, W, 3) RGB, turned as its EXIF orientation says; as it is stored unless ``upright``.

    ``path`` may be a pipe, and ``-`` is stdin. Of an animation it is the first frame; alpha is dropped, and the
    colours below it are kept. Grey of more than 8 bits is scaled to 8, or taken as it is where nothing is above 255;
    floats are of 0 to 1 or of 0 to 255.

    Raises HiresvitError if there is no such file, if it is no picture or a damaged one, if it has more than 268 million
    pixels, or more than 52 million in a file far too small for them, and if a pipe stays silent for 15 s.
    """
    name = local_path(str(path))
    start = b""
    try:
        with _open(name) as stream:
            start = stream.read(512)
            return _decode(stream, upright)
    except HiresvitError:
        raise
    except UnidentifiedImageError:
        kind = name_file_kind(start) or "no kind that is known" if start else "empty"
        kind = f"{kind}, but a damaged or an unusual one (8 bits a channel are safe)" if kind in _READ else kind
        raise HiresvitError(f"{name}: not a readable image, it is {kind}; {_INSTALL.get(kind, _GIVE)}") from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        if isinstance(error, OSError) and error.errno:  # the system's word; Pillow's own errors have no number
            raise HiresvitError(f"cannot read {name}: {error.strerror}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HiresvitError(f"{name}: not a readable image ({reason}); {_GIVE}") from error


def from_pillow(picture: Any) -> NDArray[np.uint8]:
    """A PIL image of any mode as uint8 (H, W, 3) RGB, turned as its EXIF orientation says.

    Raises HiresvitError for one without pixels, with colours that are none of a picture, or whose file is damaged.
    """
    try:
        if not math.prod(picture.size):
            raise ValueError("it has no pixels")
        array = _to_rgb(picture)
        turn = _TURNED.get(picture.getexif().get(0x0112))
    except Exception as error:  # as in `load_image`: it may not be decoded yet
        raise HiresvitError(
            f"the PIL image cannot be taken: {' '.join(str(error).split())}; give an RGB one"
        ) from error
    return np.ascontiguousarray(turn(array)) if turn else array


def readable_suffixes() -> tuple[str, ...]:
    """What is looked for in folders: `SUFFIXES`, and those of AVIF and HEIC where they can be read here."""
    return (*SUFFIXES, *(suffix for suffix, name in SOMETIMES.items() if name in _formats()))


def refuse_url(text: str) -> None:
    """Raise UsageError for an address on the network, also for one that a path has lost a slash of."""
    found = re.match(r"([a-z][a-z0-9+.-]+):/+(?!/)", text, re.IGNORECASE)
    if found and found[1].lower() != "file":
        address = f"{found[1]}://{text[found.end() :]}"
        raise UsageError(f"{address} is an address on the network: download it first and give the file")


def local_path(text: str) -> str:
    """A path as it is, and that of a ``file://`` address, which is what file managers and terminals paste."""
    found = re.match(r"file:(/{1,2}localhost|//)?(?=/)", text, re.IGNORECASE)
    return unquote(text[found.end() :]) if found else text


@cache
def _formats() -> tuple[str, ...]:
    """The formats that Pillow may try. No other: its reader of EPS starts a program, and nobody keeps photos as FLI."""
    Image.init()
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        pass
    wanted = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "HEIF"]
    wanted += ["AVIF"] if features.check("avif") else []
    return tuple(name for name in wanted if name in Image.OPEN)


def _open(name: str) -> IO[bytes]:
    """A file's bytes, or all that comes out of a pipe. Waits for nothing else."""
    try:
        mode = os.fstat(0).st_mode if name in STDIN else os.stat(name).st_mode
        piped = stat.S_ISFIFO(mode) or (stat.S_ISSOCK(mode) and name in STDIN)
        if stat.S_ISREG(mode) or piped:
            descriptor = os.dup(0) if name in STDIN else os.open(name, os.O_RDONLY | os.O_NONBLOCK)
            file = open(descriptor, "rb", buffering=0 if piped else -1)  # noqa: SIM115 (the caller closes it)
            return io.BytesIO(_drain(file, name)) if piped else file
    except (FileNotFoundError, NotADirectoryError):
        refuse_url(name)
        raise HiresvitError(f"{name}: no such file; give the path of a picture") from None
    what = "a folder" if stat.S_ISDIR(mode) else "a device or a terminal"
    raise HiresvitError(f"{name}: no such file, it is {what}; give the path of a picture")


def _drain(pipe: IO[bytes], name: str) -> bytes:
    """What comes out of a pipe until it is closed."""
    got = bytearray()
    with pipe:
        while select.select([pipe], [], [], PIPE_WAIT_S)[0]:
            block: bytes | None = pipe.read(2**20)
            if block == b"":
                return bytes(got)
            got += block or b""  # None: somebody else was faster
            if len(got) > PIPED_BYTES:
                raise HiresvitError(f"{name}: more than {PIPED_BYTES >> 20} MiB came through this pipe; {_GIVE}")
    raise HiresvitError(f"{name}: nothing came through this pipe for {PIPE_WAIT_S:g} s; {_GIVE}")


@contextmanager
def open_picture(path: Path | str) -> Iterator[Any]:
    """Pillow's image of a file, its size checked and nothing of it decoded yet. Raises whatever Pillow does."""
    with _open(str(path)) as stream, _opened(stream) as picture:
        yield picture


@contextmanager
def _opened(stream: IO[bytes]) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF
        with _no_guard():
            picture: Any = Image.open(stream, formats=_formats())
        with picture:
            _check_size(picture, stream)
            yield picture


def _decode(stream: IO[bytes], upright: bool) -> NDArray[np.uint8]:
    """The picture's array; Pillow's image of it is gone before the array is turned."""
    with _opened(stream) as picture:
        wide = ";16" in repr(picture.tile)  # of such colours Pillow takes the upper byte
        with _no_guard() if math.prod(picture.size) > FEW_PIXELS else nullcontext():
            picture.load()
        orientation = picture.getexif().get(0x0112)  # after `load`, which turns a TIFF itself
        array = _to_rgb(picture)
    if wide and not array.any():
        raise ValueError("its 16-bit colours are all below 256, which is black: save them as 8 bits")
    turn = _TURNED.get(orientation) if upright else None
    return np.ascontiguousarray(turn(array)) if turn else array


@contextmanager
def _no_guard() -> Iterator[None]:
    """Pillow's own bound is the whole process's, and neither what a phone takes nor what a bomb costs."""
    with _guard:
        bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = bound


def _check_size(picture: Any, stream: IO[bytes]) -> None:
    """Refuse a picture that would cost more than its file can honestly hold. Nothing is decoded yet."""
    pixels, place = math.prod(picture.size), stream.tell()
    size = stream.seek(0, os.SEEK_END)
    shape = "x".join(map(str, picture.size))
    if pixels > MOST_PIXELS:
        raise ValueError(f"{shape} are {pixels} pixels, and {MOST_PIXELS} are the most: cut or shrink it")
    if pixels > FEW_PIXELS and picture.format not in _BY_ROWS:
        raise ValueError(f"{shape} are {pixels} pixels, too many for {picture.format}: save it as JPEG or PNG")
    if pixels > max(FEW_PIXELS, PIXELS_PER_BYTE * size):
        raise ValueError(f"{shape} pixels out of {size} bytes are no photo: shrink it")
    if picture.format in ("JPEG", "MPO"):
        stream.seek(0)
        scans = stream.read().count(b"\xff\xda")
        if scans * pixels > MOST_SCANNED:
            raise ValueError(f"{shape} pixels in {scans} scans are no photo: save it as a plain JPEG")
    stream.seek(place)


def _to_rgb(picture: Any) -> NDArray[np.uint8]:
    """Any of Pillow's modes as RGB, a band at a time, where plain `convert` would clip wide greys to white."""
    width, height = picture.size
    scaled = _scale(picture) if picture.mode.startswith(("I", "F")) else None
    array = np.empty((height, width, 3), np.uint8)
    rows = max(_BAND // width, 1)
    for top in range(0, height, rows):
        band = picture.crop((0, top, width, min(top + rows, height)))
        array[top : top + rows] = scaled(np.asarray(band))[..., None] if scaled else np.asarray(_convert(band))
    return array


def _convert(band: Any) -> Any:
    """Pixels of 8 bits to RGB. Premultiplied colours are divided; what else hides below alpha is kept."""
    if band.mode in ("La", "RGBa"):
        band = band.convert(f"{band.mode[:-1]}A")
    if band.mode == "LAB":
        raise ValueError("its colours are CIE Lab: save it as RGB")
    return band.convert("RGB")


def _scale(picture: Any) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What makes 8 bits of a grey picture whose pixels are wider, by what they are."""
    lowest, highest = picture.getextrema()
    if not (lowest >= 0 and math.isfinite(highest)):
        raise ValueError(f"its pixels run from {lowest} to {highest}")
    if picture.mode == "F":
        if highest > 255:
            raise ValueError(f"its floats run from {lowest:g} to {highest:g}: save them as 0 to 1 or 0 to 255")
        factor = 255 if highest <= 1 else 1

        def rounded(values: NDArray[Any]) -> NDArray[Any]:
            if np.isnan(values).any():  # which extrema pass over
                raise ValueError("some of its floats are NaN")
            scaled: NDArray[Any] = np.rint(values * np.float32(factor))
            return scaled

        return rounded
    if highest > 65535:
        raise ValueError(f"its pixels run from {lowest} to {highest}, beyond 16 bits")
    if highest <= 255:  # as 16 bits it would be black
        return np.asarray
    return lambda values: np.asarray((values.astype(np.int64) * 255 + 32767) // 65535)
