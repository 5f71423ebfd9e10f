"""PyTorch's files, zip and older, read as data: what they hold, and their tensors on demand.

Of a zip a tensor's numbers are a member of their own, uncompressed, with a checksum that PyTorch does not verify and
that is verified here. A file of before PyTorch 1.6 is five pickles and then the numbers. Both formats are as
`torch.serialization` documents them.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from numpy.typing import NDArray
from torch import Tensor

from hiresvit.models.weights.arrays import MOST_AXES, array_reader
from hiresvit.models.weights.arrays import as_tensor as array_as_tensor
from hiresvit.models.weights.inert import Made, Persistent, Refused, Source, read_pickle
from hiresvit.models.weights.names import Name

MOST_DIRECTORY = 1 << 24  # bytes of a zip's directory, each of which costs Python twenty
EXPANDED = 3 << 28  # bytes of all tensors that are larger than their storages, views of fewer numbers, in float32

Leaf = Callable[[], Tensor]
Fetch = Callable[[str], bytearray]

_TYPES: Mapping[str, str] = {
    **{"FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16"},
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8"},
    **{"ByteStorage": "uint8", "BoolStorage": "bool"},
    **{"ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128"},
}
_NUMBERS = {
    *_TYPES.values(),
    *("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
}
_ODD = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_qtensor": "quantised",
    "_rebuild_meta_tensor_no_storage": "without its data",
    "_rebuild_nested_tensor": "nested",
}


@dataclass
class Stored:
    """What a file holds as inert data, and where the numbers of its tensors are."""

    content: Any
    fetch: Fetch | None
    named: dict[str, Name]
    size: int
    """Bytes of the file: no more numbers than that are made of what the pickle itself holds."""
    outside: Callable[[Any], Leaf] | None = None
    """What reads a tensor that is no part of a pickle; None where there is a pickle."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    _storages: dict[str, bytearray] = field(default_factory=dict)
    _inner: dict[int, Stored] = field(default_factory=dict)
    _outer: Stored | None = None
    _copied: int = 0
    _expanded: int = 0

    def leaf(self, value: Any) -> Leaf | None:
        """What reads the tensor that ``value`` stands for; None if it stands for none.

        The reader raises Refused for one that is no plain tensor or whose parts do not fit.
        """
        if array := array_reader(value):
            return lambda: self._copy(array())
        if isinstance(value, Persistent) and self.outside:
            return self.outside(value.where)
        maker, args = _unwrapped(value)
        if maker is None:
            return None
        if maker.name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return lambda: self._tensor(args)
        kind = args[0] if args and isinstance(args[0], Name) else maker.name.removeprefix("_rebuild_")
        what = _ODD.get(maker.name, f"a {kind}")
        hint = "; gather the parts and save a full state dict" if "DTensor" in what else ""
        return lambda: _refuse(f"is {what}, not a plain tensor{hint}")

    def _copy(self, array: NDArray[Any]) -> Tensor:
        self._copied += array.nbytes  # many arrays can have the same bytes
        if self._copied > self.size:
            raise Refused("is one of more numbers than the file has bytes for")
        return array_as_tensor(array)

    def _tensor(self, args: tuple[Any, ...]) -> Tensor:
        if len(args) < 4:
            raise Refused("has no shape")
        storage, offset, shape, stride = args[:4]
        is_file = isinstance(storage, Made) and str(storage.maker) == "torch.storage._load_from_bytes"
        if is_file and self._outer is None:  # files in files in files would be held as often as they are deep
            inner = self._from_bytes(storage)
            return inner._tensor((inner.content, *args[1:]))
        kind, key, bytes_of = self._where(storage, args)
        sides = (shape, stride)
        if any(not isinstance(side, tuple) or any(type(n) is not int or n < 0 for n in side) for side in sides):
            raise Refused("has no shape")
        if len(shape) != len(stride) or type(offset) is not int or offset < 0:
            raise Refused("has no shape")
        if len(shape) > MOST_AXES:
            raise Refused(f"has {len(shape)} axes")
        dtype: torch.dtype = getattr(torch, kind)
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1 if count else 0
        whole = self._outer or self
        whole._expanded += count * max(dtype.itemsize, 4) if count * dtype.itemsize > bytes_of else 0
        if last * dtype.itemsize > bytes_of or whole._expanded > EXPANDED:
            raise Refused(f"has not the bytes of its shape {[min(n, 1 << 63) for n in shape]}")
        if not count:
            return torch.empty(shape, dtype=dtype)
        flat = torch.frombuffer(self._storage(key, bytes_of), dtype=dtype)
        return flat.as_strided(shape, stride, offset)

    def _from_bytes(self, storage: Made) -> Stored:
        """A storage that pickle.dump wrote, and not torch.save: a whole file within the file."""
        data = storage.args[0] if storage.args else None
        if not isinstance(data, bytes) or not data:
            raise Refused("has no storage")
        if id(data) not in self._inner:
            self._inner[id(data)] = replace(_legacy(BytesIO(data), len(data)), _outer=self)
        return self._inner[id(data)]

    def _where(self, storage: Any, args: tuple[Any, ...]) -> tuple[str, str, int]:
        """Of a tensor: the type of its numbers, the key of its storage and the bytes that that has."""
        where = storage.where if isinstance(storage, Persistent) else None
        if not isinstance(where, tuple) or len(where) < 5 or where[0] != "storage" or not isinstance(where[1], Name):
            raise Refused("has no storage")
        if len(where) > 5 and where[5] is not None:
            raise Refused("is a part of another, as PyTorch 0.3 wrote it")
        kind, key, elements = where[1].name, where[2], where[4]
        named = next((part for part in args[4:] if isinstance(part, Name) and part.module == "torch"), None)
        dtype = named.name if named else _TYPES.get(kind, kind)
        if dtype not in _NUMBERS:
            raise Refused(f"is of type {ascii(dtype)[1:30].rstrip(chr(39))}, which is no plain number")
        if not isinstance(key, str) or type(elements) is not int or elements < 0:
            raise Refused("has no storage")
        # Of an untyped storage the bytes are counted.
        return dtype, key, elements * (1 if kind == "UntypedStorage" else _itemsize(dtype))

    def _storage(self, key: str, size: int) -> bytearray:
        if key not in self._storages:
            if self.fetch is None:
                raise Refused("has no numbers in the file")
            self._storages[key] = self.fetch(key)
        found = self._storages[key]
        if len(found) < size:
            raise Refused("has fewer bytes than it says")
        return found


def _itemsize(dtype: str) -> int:
    kind: torch.dtype = getattr(torch, dtype)
    return kind.itemsize


def _refuse(why: str) -> Tensor:
    raise Refused(why)


def _unwrapped(value: Any) -> tuple[Name | None, tuple[Any, ...]]:
    """The function of torch that a tensor is rebuilt with, below what makes a parameter of it, and its arguments."""
    for _ in range(8):
        if not isinstance(value, Made):
            break
        maker, args = value.maker, value.args
        text = str(maker)
        if text in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state") and args:
            value = args[0]
        elif text == "torch._tensor._rebuild_from_type_v2" and len(args) == 4 and isinstance(args[0], Name):
            value = Made(args[0], args[2] if isinstance(args[2], tuple) else ())
        elif text.startswith("torch._utils._rebuild_"):
            return maker, args
        else:
            break
    return None, ()


@contextmanager
def open_zip(path: Path) -> Iterator[Stored]:
    """A file of `torch.save`. Raises Refused if it is another zip, is damaged or wants to run code."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if _directory_size(stream, size) > MOST_DIRECTORY:
            raise Refused("has more parts than a checkpoint")
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        prefix = _prefix(list(members))
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise Refused("has compressed parts, which torch.save never writes")
        if sum(info.file_size for info in archive.infolist()) > size:
            raise Refused("says that its parts are larger than the file")
        named: dict[str, Name] = {}
        data = _member(archive, members[f"{prefix}data.pkl"])
        content = read_pickle(Source(BytesIO(data), len(data)), named)
        order = members.get(f"{prefix}byteorder")
        if order and _member(archive, order).strip() == b"big":
            raise Refused("was written on a big-endian machine; convert it there")

        def fetch(key: str) -> bytearray:
            name = f"{prefix}data/{key}"
            if name not in members:
                raise Refused("has no numbers in the file")
            return _member(archive, members[name])

        yield Stored(content, fetch, named, size)


def _prefix(names: list[str]) -> str:
    """The folder in the zip that the checkpoint is in. Raises Refused for what is another kind of zip."""
    if any("/code/" in name for name in names):
        raise Refused("is a TorchScript program, not a checkpoint; save model.state_dict() instead")
    if any(name.endswith(("/archive_format", "serialized_exported_program.json")) for name in names):
        raise Refused("is a program of torch.export, not a checkpoint; save model.state_dict() instead")
    found = [name for name in names if name.rpartition("/")[2] == "data.pkl" and name.count("/") == 1]
    if len(found) == 1:
        return found[0].removesuffix("data.pkl")
    files = [name for name in names if not name.endswith("/")]
    if files and all(name.endswith(".npy") for name in files):
        raise Refused("is an .npz archive of numpy's arrays; save them as a dict by torch.save")
    shown = ", ".join(ascii(name)[:60] for name in files[:3]) + (", ..." if len(files) > 3 else "")
    raise Refused(f"is a zip archive of {shown or 'nothing'}, not a checkpoint: unpack it first")


def _directory_size(stream: BinaryIO, size: int) -> int:
    """How many bytes the list of a zip's members has. Raises EOFError where there is none."""
    start = max(0, size - (1 << 16) - 22)
    stream.seek(start)
    tail = stream.read()
    end = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - 18))
    if end < 0:
        raise EOFError
    count = int.from_bytes(tail[end + 12 : end + 16], "little")
    locator = tail[max(0, end - 20) : end]
    if locator[:4] == b"PK\x06\x07":  # zip64 has another end
        stream.seek(min(int.from_bytes(locator[8:16], "little"), size))
        count = max(count % 0xFFFFFFFF, int.from_bytes(stream.read(56)[40:48], "little"))
    return count


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytearray:
    """A member whole, its checksum verified. Raises Refused if that does not match."""
    data = bytearray(info.file_size)
    view, place = memoryview(data), 0
    try:
        with archive.open(info) as stream:
            while place < len(data):
                block = stream.read(1 << 20)
                if not block:
                    raise EOFError
                view[place : place + len(block)] = block
                place += len(block)
    except zipfile.BadZipFile as error:
        raise Refused(f"is damaged: {info.filename!r} fails its checksum; copy or download it again") from error
    return data


@contextmanager
def open_legacy(path: Path) -> Iterator[Stored]:
    """A file that PyTorch wrote before it took to zip. Raises Refused if it wants to run code."""
    with path.open("rb") as stream:
        yield _legacy(stream, path.stat().st_size)


def _legacy(stream: BinaryIO, size: int) -> Stored:
    named: dict[str, Name] = {}
    source = Source(stream, size)
    _magic, _protocol, system = [read_pickle(source, named) for _ in range(3)]
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Refused("was written on a big-endian machine; convert it there")
    content, keys = read_pickle(source, named), read_pickle(source, named)
    sizes = _storage_sizes(content)
    places: dict[str, tuple[int, int]] = {}
    if not isinstance(keys, list):
        raise EOFError
    for key in keys:
        (elements,) = struct.unpack("<q", source.read(8))
        length = elements * sizes.get(key, 0) if isinstance(key, str) else -1
        if not 0 <= length <= source.left or key not in sizes:
            raise EOFError
        places[key] = (size - source.left, length)
        stream.seek(length, 1)
        source.left -= length

    def fetch(key: str) -> bytearray:
        if key not in places:
            raise Refused("has no numbers in the file")
        place, length = places[key]
        stream.seek(place)
        return bytearray(stream.read(length))

    return Stored(content, fetch, named, size)


@contextmanager
def open_pickle(path: Path) -> Iterator[Stored]:
    """A pickle that PyTorch did not write, such as Paddle's. Raises Refused if it wants to run code."""
    size = path.stat().st_size
    named: dict[str, Name] = {}
    with path.open("rb") as stream:
        yield Stored(read_pickle(Source(stream, size), named), None, named, size)


def _storage_sizes(content: Any) -> dict[str, int]:
    """How many bytes an element has of each storage that is spoken of anywhere in ``content``."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    todo = [content]
    while todo:
        value = todo.pop()
        if isinstance(value, Persistent):
            where = value.where
            if (
                isinstance(where, tuple)
                and len(where) >= 5
                and isinstance(where[1], Name)
                and isinstance(where[2], str)
            ):
                dtype = _TYPES.get(where[1].name)
                # Of the types that are refused with their tensor, one has another size.
                sizes[where[2]] = _itemsize(dtype) if dtype else 4 if where[1].name == "QInt32Storage" else 1
        elif isinstance(value, (list, tuple, dict, Made)) and id(value) not in seen:
            seen.add(id(value))
            todo += parts(value)
    return sizes


def parts(value: Any) -> list[Any]:
    """What is right inside a value."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, Made):
        return [*value.args, value.state, *(value.listed or ()), *(value.pairs or {}).values()]
    return list(value) if isinstance(value, (list, tuple)) else []
