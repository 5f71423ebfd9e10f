"""What a file is that somebody gives: by its first bytes, and whether it can be an ONNX graph."""

from __future__ import annotations

import re
from pathlib import Path

from hiresvit.errors import HiresvitError, IllegalGraphError
from hiresvit.files import naming_source, open_regular
from hiresvit.wire import MOST_NODES, count_nodes


def require_graph_file(path: Path) -> None:
    """Raise HiresvitError, in the same words for every reader, unless there is a file with something in it."""
    with naming_source(path):
        if not path.exists():
            raise HiresvitError(f"{path}: no such file; give the path of an .onnx graph")
        if not path.is_file():
            raise HiresvitError(f"{path} is no file: write the graph to one, TensorRT opens it again")
        if not path.stat().st_size:
            raise HiresvitError(f"{path} is empty; copy or export it again")
        nodes = count_nodes(path)  # opens it, or native code says in its own words that it may not be read
    if nodes == MOST_NODES:
        raise no_graph(path, f"its local functions call themselves, or with them it is {MOST_NODES:,} parts and more")


def no_graph(path: Path, reason: str = "it does not decode as one") -> HiresvitError:
    """The error for a file that is no ONNX graph, or a damaged one; and what it is, where its first bytes say that."""
    try:
        with open_regular(path) as stream:
            kind = name_file_kind(stream.read(512))
    except OSError:
        kind = None
    if kind not in (None, "an ONNX graph"):
        return HiresvitError(f"{path} is not an ONNX graph: it is {kind}")
    return HiresvitError(f"{path} is not an ONNX graph: {reason}")


_DAMAGED = {  # what ONNX Runtime says of a file that is no graph, and what we do
    "Protobuf parsing failed": "it does not decode as one",
    "No graph was found in the protobuf": "it has no outputs",
}


def damaged_graph(path: Path, message: str) -> HiresvitError | None:
    """The error for a file of which ONNX Runtime says that it is no graph; None if it says anything else."""
    return next((no_graph(path, reason) for said, reason in _DAMAGED.items() if said in message), None)


_UNPACK = ": unpack it first"
# What files begin with that are given by mistake, each with what it is. From the formats' own specifications.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|!--)", "an HTML page, as a failed download leaves"),
    (rb"(\xef\xbb\xbf)?\s*<svg", "an SVG drawing"),
    (rb"(\xef\xbb\xbf)?\s*<\?xml", "an XML page, as a failed download leaves"),
    (rb"PK\x03\x04.{26,90}/(data\.pkl|byteorder|version|\.format_version)", "a PyTorch checkpoint"),
    (rb"PK\x03\x04.{26,200}/code/", "a TorchScript program"),
    (rb"PK\x03\x04.{26,200}\.npy", "an .npz archive of numpy's arrays"),
    (rb"PK(\x03\x04|\x05\x06)", f"a zip archive{_UNPACK}"),
    (rb"\x1f\x8b\x08", f"a gzip archive{_UNPACK}"),
    (rb"BZh[1-9]1AY&SY", f"a bzip2 archive{_UNPACK}"),
    (rb"\xfd7zXZ\x00", f"an xz archive{_UNPACK}"),
    (rb"\x28\xb5\x2f\xfd", f"a zstd archive{_UNPACK}"),
    (rb"\x04\x22\x4d\x18", f"an lz4 archive{_UNPACK}"),
    (rb"7z\xbc\xaf\x27\x1c", f"a 7z archive{_UNPACK}"),
    (rb"Rar!\x1a\x07", f"a rar archive{_UNPACK}"),
    (rb".{257}ustar", f"a tar archive{_UNPACK}"),
    (rb"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (rb"\xff\xd8\xff", "a JPEG picture"),
    (rb"GIF8[79]a", "a GIF picture"),
    (rb"RIFF.{4}WEBP", "a WebP picture"),
    (rb"BM.{4}\x00{4}", "a BMP picture"),
    (rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+", "a TIFF picture"),
    (rb"\x00\x00\x00.ftyp(avif|avis)", "an AVIF picture"),
    (rb"\x00\x00\x00.ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", "a HEIC picture"),
    (rb"\x00\x00\x00.ftyp", "a film"),
    (rb"8BPS\x00\x01", "a Photoshop picture"),
    (rb"%PDF-", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript document"),
    (rb"\x00\x05\x16\x07", "what macOS keeps beside a file (._NAME): take the file itself"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and MATLAB write"),
    (rb"\x93NUMPY", "an .npy array of numpy's"),
    (rb"GGUF", "a GGUF file"),
    (rb".{4}TFL3", "a TensorFlow Lite graph"),
    (rb"[fpv]trt", "a TensorRT plan"),
    (rb"\x00{3}\x02\x00{3}\x03\x00{7}\x01", "a context's binary for Qualcomm's HTP: give the .onnx file beside it"),
    (rb"\x7fELF", "an ELF program or library"),
    (rb"MZ.{60}", "a Windows program or library"),
    (rb".{6}\x00\x00\{", "a safetensors file"),
    (rb"\x08[\x01-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]", "an ONNX graph"),
    (rb"\x80[\x02-\x05]", "a pickle, as checkpoints are"),
    (rb"\x00{16}", "zeros, as an interrupted download leaves"),
    (rb"(\xef\xbb\xbf)?\s*[{\[]\s*([\"{\[\d\-\]}tfn]|$)", "JSON text"),
)


def name_file_kind(start: bytes) -> str | None:
    """What a file is, by its first 512 bytes, to stand after "FILE is"; None if that is not known.

    Such as "a Git LFS pointer, not the file itself: run `git lfs pull`", "a gzip archive of 'a.pth': unpack it first",
    "a PNG picture", or "text that begins 'Entry not found'".
    """
    start = start[:512]
    for pattern, kind in _MAGIC:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            inside = _first_member(start)
            return kind.replace(_UNPACK, f" of {inside!r}{_UNPACK}") if inside else kind
    text = start.decode("utf-8", "ignore").strip()
    if text and all(letter.isprintable() or letter.isspace() for letter in text):
        return f"text that begins {' '.join(text.split())[:40]!r}"
    return None


def _first_member(start: bytes) -> str | None:
    """The name of what an archive holds first, where its format writes that in front."""
    if start.startswith(b"PK\x03\x04"):
        name = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    elif start.startswith(b"\x1f\x8b\x08\x08"):  # gzip whose name follows its ten bytes
        name = start[10:].partition(b"\0")[0]
    elif start[257:262] == b"ustar":
        name = start[:100].partition(b"\0")[0]
    else:
        return None
    shown = name.decode("utf-8", "replace")[:60]
    return shown if shown.isprintable() else None


def not_taken(path: Path, runtime: str, reason: str) -> HiresvitError:
    """The error for a graph that a runtime does not take; it is the same as a builder's no."""
    if "xternal data" in reason:
        return HiresvitError(f"{path}: the file of its weights is missing or cut ({reason}); copy it, too")
    return IllegalGraphError(
        f"{path}: {runtime} cannot load it ({reason}); it is not valid ONNX or uses operators that this {runtime}"
        " lacks, export it again"
    )
