"""What a file is, by how it begins."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from hiresvit.kinds import name_file_kind


def tar_of(name: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return packed.getvalue()


def zip_of(name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, "x" * 100)
    return packed.getvalue()


def gzip_of(name: str) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=packed) as archive:
        archive.write(b"x" * 100)
    return packed.getvalue()


def picture(kind: str) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (4, 4)).save(written, kind)
    return written.getvalue()


def npz() -> bytes:
    written = io.BytesIO()
    np.savez(written, a=np.ones(1))
    return written.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (LFS, "a Git LFS pointer, not the file itself: run `git lfs pull`"),
        (b"\n <!DOCTYPE html><title>404</title>", "an HTML page, as a failed download leaves"),
        (b"\xef\xbb\xbf<html lang=en>", "an HTML page, as a failed download leaves"),
        (b'<?xml version="1.0"?><Error/>', "an XML page, as a failed download leaves"),
        (zip_of("w.pth"), "a zip archive of 'w.pth': unpack it first"),
        (zip_of("w\n.pth"), "a zip archive: unpack it first"),
        (zip_of("archive/data.pkl"), "a PyTorch checkpoint"),
        (npz(), "an .npz archive of numpy's arrays"),
        (gzip_of("w.pth"), "a gzip archive of 'w.pth': unpack it first"),
        (gzip_of(""), "a gzip archive: unpack it first"),
        (tar_of("w.pth"), "a tar archive of 'w.pth': unpack it first"),
        (bz2.compress(b"x"), "a bzip2 archive: unpack it first"),
        (lzma.compress(b"x"), "an xz archive: unpack it first"),
        *((picture(kind), f"a {kind} picture") for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WebP")),
        (b"{}", "JSON text"),
        (b' {"names": [', "JSON text"),
        (b"Entry not found", "text that begins 'Entry not found'"),
        (bytes(512), "zeros, as an interrupted download leaves"),
        (pickle.dumps({}), "a pickle, as checkpoints are"),
        (b"\x90\x00\x00\x00\x00\x00\x00\x00{}", "a safetensors file"),
        (bytes.fromhex("080a120770"), "an ONNX graph"),
        (b"", None),
        (b"\xd3\x00\x91", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_is_named_by_how_it_begins(content: bytes, kind: str | None) -> None:
    assert name_file_kind(content) == kind
