"""Pictures that an attacker, a camera that lost its power, or a file system would leave: `write_all` makes them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STARTS_A_PROGRAM = """%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(executed) (w) file closefile
showpage
"""


def png(
    width: int, height: int, rows: bytes | None = None, *, depth: int = 8, kind: int = 2, extra: tuple[Any, ...] = ()
) -> bytes:
    """A PNG of these numbers, whatever its data: by default as many zeros as it declares."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    if rows is None:
        line = 1 + (width * depth * {0: 1, 2: 3, 3: 1, 6: 4}[kind] + 7) // 8
        packer = zlib.compressobj(9)
        rows = b"".join(packer.compress(bytes(line)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    colours = [(b"PLTE", bytes(range(48)))] if kind == 3 else []
    chunks = [(b"IHDR", header), *colours, *extra, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def scanned_jpeg(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated; each goes over the whole picture."""
    data = saved(Image.new("RGB", (side, side), (90, 120, 60)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + data[-2:]


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture's file."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def looped_tiff() -> bytes:
    """A TIFF whose directory names itself as the next one."""
    data = bytearray(saved(Image.new("RGB", (8, 8)), "TIFF"))
    [directory] = struct.unpack_from("<I", data, 4)
    [count] = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * count, directory)
    return bytes(data)


def big_tiff_tag(tag: int, value: int) -> bytes:
    """A TIFF one number of which is absurd."""
    data = bytearray(saved(Image.new("RGB", (8, 8)), "TIFF"))
    [directory] = struct.unpack_from("<I", data, 4)
    [count] = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] == tag:
            struct.pack_into("<HII", data, entry + 2, 4, 1, value)
    return bytes(data)


def files() -> Iterator[tuple[str, bytes]]:
    """Names and contents."""
    zeros = zlib.compress(b"\0" * 3_000_000)
    yield "bomb-179-million.png", png(13_378, 13_378, depth=1, kind=0)
    yield "bomb-of-colours.png", png(16_000, 11_000, zeros)
    yield "bomb-of-a-palette.png", png(7_000, 7_000, kind=3)
    yield "bomb-in-one-row.png", png(2**31 - 1, 1, zeros)
    yield "bomb-of-rows.png", png(1, 2**26, zeros)
    yield "bomb-of-text.png", png(2, 2, extra=((b"zTXt", b"c\0\0" + zlib.compress(bytes(50_000_000))),))
    yield "bomb-of-profile.png", png(2, 2, extra=((b"iCCP", b"c\0\0" + zlib.compress(bytes(50_000_000))),))
    yield "no-pixels.png", png(0, 0, b"")
    yield "too-little-data.png", png(5_000, 5_000, zlib.compress(b"\0" * 100))
    yield "scans.jpg", scanned_jpeg(6_000, 3_000)
    yield "longest-side.jpg", saved(Image.new("L", (65_000, 8)), "JPEG")
    yield "bomb.gif", saved(Image.new("L", (7_000, 7_000)), "GIF")
    yield "bomb.webp", saved(Image.new("RGB", (7_000, 7_000)), "WEBP", lossless=True)
    yield "bomb.tif", saved(Image.new("L", (7_000, 7_000)), "TIFF", compression="tiff_deflate")
    yield "loop.tif", looped_tiff()
    for tag, value in ((256, 2**32 - 1), (257, 2**31), (273, 2**32 - 1), (278, 0), (279, 2**32 - 1), (277, 65_535)):
        yield f"tag-{tag}.tif", big_tiff_tag(tag, value)
    yield "program.png", STARTS_A_PROGRAM.encode()
    yield "program.jpg", STARTS_A_PROGRAM.encode()
    yield "pointer.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    yield "page.jpg", b"<!DOCTYPE html>\n<html><body>404</body></html>"
    yield "archive.jpg", b"PK\x03\x04" + bytes(22) + b"\x05\0\0\0a.jpg"
    yield "phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    yield "photoshop.png", b"8BPS\0\1" + bytes(20)
    yield "empty.jpg", b""
    yield "zeros.jpg", bytes(4096)
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"):
        data = saved(Image.fromarray(photo), kind)
        yield f"half-{kind}.png", data[: len(data) // 2]
        yield f"start-{kind}.png", data[:20]
        yield f"zeroed-{kind}.png", data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def write_all(folder: Path) -> list[Path]:
    """Write every hostile picture into a folder that is made for it, and say where they are.

    Among them are a pipe into which nobody writes, a device, a link to itself and a folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, data in files():
        paths.append(folder / name)
        paths[-1].write_bytes(data)
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "itself.png").symlink_to("itself.png")
    (folder / "folder.png").mkdir()
    return [*paths, *(folder / name for name in ("pipe.png", "device.png", "itself.png", "folder.png"))]
