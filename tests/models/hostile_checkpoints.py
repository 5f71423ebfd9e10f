"""Checkpoints that want to run code, take memory, hang or confuse: `write_all(folder)` makes one of each kind.

Every file that could run something would create `CANARY` beside itself.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

CANARY = "ran"


class _Call:
    """Pickles as a call, with a state to set afterwards."""

    def __init__(self, function: Callable[..., Any], *args: object, state: object = None) -> None:
        self.parts = (function, args, state) if state is not None else (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def text(value: str) -> bytes:
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def called(module: str, name: str, *args: str) -> bytes:
    return named(module, name) + b"(" + b"".join(map(text, args)) + b"tR"


def long(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<I", len(data)) + data


def zipped(data: bytes, members: dict[str, bytes] | None = None, kind: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", kind) as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/byteorder", b"little")
        archive.writestr("a/version", b"3\n")
        for name, content in (members or {}).items():
            archive.writestr(f"a/{name}", content)
    return made.getvalue()


def saved(content: object, **how: Any) -> bytes:
    made = io.BytesIO()
    torch.save(content, made, **how)
    return made.getvalue()


def storage(kind: str = "FloatStorage", key: bytes = text("0"), elements: bytes = b"K\x04") -> bytes:
    return b"(" + text("storage") + named("torch", kind) + key + text("cpu") + elements + b"tQ"


def tensor(
    shape: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85", offset: bytes = b"K\x00", held: bytes | None = None
) -> bytes:
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    return rebuild + b"(" + (held or storage()) + offset + shape + stride + b"\x89}tR"


def state(value: bytes) -> bytes:
    return b"\x80\x04}" + text("a.weight") + value + b"s."


def attacks(canary: str) -> Iterator[tuple[str, bytes]]:
    """Files that ask for code to be run."""
    command, code = f"touch {canary}", f"open({canary!r}, 'w').close()"
    calls = {
        "system": ("os", "system", command),
        "posix": ("posix", "system", command),
        "popen": ("subprocess", "Popen", command),
        "check_output": ("subprocess", "check_output", command),
        "eval": ("builtins", "eval", code),
        "exec": ("builtins", "exec", code),
        "py2_eval": ("__builtin__", "eval", code),
        "open": ("builtins", "open", canary, "w"),
        "import": ("builtins", "__import__", "antigravity"),
        "run_code": ("runpy", "_run_code", code),
        "timeit": ("timeit", "timeit", code),
        "pdb": ("pdb", "run", code),
        "profile": ("cProfile", "run", code),
        "interact": ("code", "interact", code),
        "interpreter": ("code", "InteractiveInterpreter"),
        "browser": ("webbrowser", "open", f"file://{canary}"),
        "pip": ("pip", "main", "install", canary),
        "hub": ("torch.hub", "load", canary),
        "torch_load": ("torch", "load", canary),
        "numpy_load": ("numpy", "load", canary),
        "memmap": ("numpy", "memmap", canary, "u1", "w+"),
        "numpy_runstring": ("numpy.testing._private.utils", "runstring", code),
        "through_torch": ("torch", "os.system", command),
        "dotted": ("collections", "OrderedDict.__init__.__globals__", command),
        "thread": ("_thread", "start_new_thread", command),
        "process": ("multiprocessing", "Process", command),
        "cdll": ("ctypes", "CDLL", canary),
        "jit": ("torch.jit", "load", canary),
        "cpp": ("torch.utils.cpp_extension", "load_inline", code),
        "control_names": ("\x1b[31mevil\n", "name\u202e", command),
    }
    for name, (module, function, *args) in calls.items():
        yield f"call_{name}.pth", zipped(b"\x80\x04}" + text("args") + called(module, function, *args) + b"s.")
    attack = _Call(os.system, command)
    content = {"state_dict": {"a.weight": torch.ones(2)}, "args": attack}
    yield "beside_weights.pth", saved(content)
    yield "beside_weights_legacy.pth", saved(content, _use_new_zipfile_serialization=False)
    for protocol in range(6):
        yield f"protocol{protocol}.pdparams", pickle.dumps({"a.weight": np.ones(2), "b": attack}, protocol)
    got = named("builtins", "getattr") + b"(" + named("collections", "OrderedDict") + text("__init__") + b"tR"
    yield "getattr_called.pth", zipped(b"\x80\x04" + got + b")R.")
    yield (
        "name_changed.pth",
        zipped(b"\x80\x04" + named("collections", "OrderedDict") + b"N}" + text("x") + b"K\x01s\x86b."),
    )
    yield "dict_changed.pth", zipped(b"\x80\x04}}" + text("__class__") + b"K\x01sb.")
    yield "extension.pth", zipped(b"\x80\x04\x82\x01.")
    inst = b"(" + b"Vtouch " + canary.encode() + b"\n" + b"ios\nsystem\n."
    yield "inst.pdparams", b"\x80\x02" + inst
    yield "obj.pdparams", b"\x80\x02(cos\nsystem\n" + b"Vtouch " + canary.encode() + b"\no."
    yield "load_from_bytes.pth", zipped(state(named("torch.storage", "_load_from_bytes") + b"C\x04evil\x85R"))


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that take memory or time."""
    yield "bytearray8.pdparams", b"\x80\x05\x96" + struct.pack("<Q", 3_300_000_000) + b"\x00."
    yield "bytes8.pdparams", b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"."
    yield "memo_place.pdparams", b"\x80\x04Nr\xff\xff\xff\xff."
    yield "memo_line.pdparams", b"\x80\x02Np" + b"9" * 100_000 + b"\n."
    nested_keys = b"\x80\x04}K\x01" + b"2\x86" * 150 + b"K\x01s."
    yield "nested_keys.pdparams", nested_keys
    yield "nested_keys_zip.pth", zipped(nested_keys)
    colliding = b"".join(long(index * (2**61 - 1)) + b"N" for index in range(1, 20_000))
    yield "colliding_keys.pdparams", b"\x80\x04}(" + colliding + b"u."
    yield "laughs.pdparams", b"\x80\x04]\x94" + b"(" + b"(h\x00h\x00l\x94" * 3 + b"l" + b"2\x86" * 60 + b"."
    laughs = b"\x80\x04}\x94" + text("a") + b"K\x01s"
    for level in range(30):
        laughs += b"\x94}\x94" + b"".join(text(f"k{n}") + b"h" + bytes([level * 2]) + b"s" for n in range(8))
    yield "dict_of_dicts.pdparams", laughs + b"."
    yield "lists.pdparams", b"\x80\x04" + b"]\x94" * 300_000 + b"."
    yield "marks.pdparams", b"\x80\x04" + b"(" * 300_000 + b"."
    yield "digits.pdparams", b"\x80\x02L" + b"9" * 1_000_000 + b"L\n."
    yield "long_number.pth", zipped(state(long(1 << 80_000)))
    deep = b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b"."
    yield "deep_lists.pdparams", deep
    yield "deep_tuples.pth", zipped(b"\x80\x04)" + b"\x85" * 200_000 + b".")
    itself = b"\x80\x04}\x94" + text("a") + b"h\x00s."
    yield "holds_itself.pth", zipped(itself)
    for name, kind in (("bz2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA), ("deflate", zipfile.ZIP_DEFLATED)):
        yield f"zip_{name}.pth", zipped(b"\x80\x04}.", {"data/0": bytes(64 << 20)}, kind)
    yield "gzip_of_bomb.pth.bz2", bz2.compress(bytes(8 << 20))
    yield "xz_of_bomb.pth.xz", lzma.compress(bytes(8 << 20))
    lying = bytearray(zipped(state(tensor()), {"data/0": bytes(16)}))
    entry = lying.rindex(b"PK\x01\x02", 0, lying.rindex(b"a/data/0"))
    lying[entry + 20 : entry + 28] = struct.pack("<II", 0xF0000000, 0xF0000000)
    yield "zip_lying_size.pth", bytes(lying)
    yield from repeated()
    yield "zip_no_end.pth", zipped(b"\x80\x04}.")[:-30]
    yield "header_length.safetensors", struct.pack("<Q", 2**40) + b"{}"
    deep_json = b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    yield "deep_json.safetensors", struct.pack("<Q", len(deep_json)) + deep_json


def repeated() -> Iterator[tuple[str, bytes]]:
    """What is in a file once and in the memory a thousand times, unless that is counted: two GiB of each."""
    encode = b"X" + struct.pack("<I", 500_000) + b"a" * 500_000 + b"\x94" + named("_codecs", "encode") + b"\x94"
    again = b"h\x00" + text("latin1") + b"\x86R"
    yield "encoded_again.pdparams", b"\x80\x04" + encode + b"](" + (b"h\x01" + again) * 4_000 + b"e."
    remake = b"(" + named("a", "B") + b"N" * 100_000 + b"t\x94" + named("copyreg", "_reconstructor") + b"\x94"
    yield "remade.pdparams", b"\x80\x04" + remake + b"](" + b"h\x01h\x00R" * 2_500 + b"e."
    one, half = np.ones(1), torch.float16
    facts = {"student": {"a": one, "b": one}, "teacher": {"a": one, "b": one}, "seen": [np.ones(10_000) / 3] * 6_000}
    yield "facts_again.pdparams", pickle.dumps(facts, 4)
    yield "long_name.pdparams", pickle.dumps({"k" * 200_000: dict.fromkeys(map(str, range(10_000)), 1)}, 4)
    dots = "a." * 20_000
    yield "dotted_name.pdparams", pickle.dumps({f"{dots}b.w": one, f"{dots}c.w": one}, 4)
    few = {f"k{n}": one for n in range(300)}
    yield "dicts_again.pdparams", pickle.dumps({f"m{n}": few for n in range(3_000)}, 4)
    views = {f"a{n}._mean": torch.zeros(1, dtype=half).expand(1 << 26) for n in range(8)}
    yield "views.pdparams", pickle.dumps(views, 4)
    held = b"B" + struct.pack("<I", 6 << 20) + bytes(6 << 20)
    for _ in range(300):
        file = b"N.N.N." + held + b".]."
        held = named("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I", len(file)) + file + b"\x85R"
    yield "files_in_file.pdparams", state(tensor(held=held))


def shapes() -> Iterator[tuple[str, bytes]]:
    """Tensors that cannot be what they say."""
    numbers = {"data/0": bytes(16)}
    huge = long(2**62)
    parts = {
        "huge": tensor(shape=huge + huge + b"\x86", stride=b"K\x00K\x00\x86"),
        "negative": tensor(shape=b"J\xff\xff\xff\xff\x85"),
        "negative_offset": tensor(offset=b"J\xf0\xff\xff\xff"),
        "beyond": tensor(offset=b"K\x02"),
        "axes": tensor(shape=b"(" + b"K\x01" * 100 + b"t", stride=b"(" + b"K\x01" * 100 + b"t"),
        "digits": tensor(shape=long(10**5000) + b"\x85"),
        "text_shape": tensor(shape=text("x") + b"\x85"),
        "true_shape": tensor(shape=b"\x88\x85"),
        "no_storage": tensor(held=b"N"),
        "other_key": tensor(held=storage(key=text("../../etc/passwd"))),
        "list_key": tensor(held=storage(key=b"]")),
        "huge_storage": tensor(held=storage(elements=huge)),
        "bits8": tensor(held=storage("Bits8Storage")),
        "no_type": tensor(held=storage("\x1b[2J")),
        "few_parts": named("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + b"tR",
        "parameter_of_itself": named("torch._utils", "_rebuild_parameter") + b"(NtR",
    }
    for name, value in parts.items():
        yield f"tensor_{name}.pth", zipped(state(value), numbers)
    odd = {
        "float4": torch.zeros(2, dtype=torch.float4_e2m1fn_x2),
        "bits": torch.zeros(2, dtype=torch.bits8),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "sparse": torch.ones(2).to_sparse(),
        "csr": torch.eye(2).to_sparse_csr(),
        "quantised": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
        "meta": torch.ones(2, device="meta"),
    }
    for name, one in odd.items():
        yield f"odd_{name}.pth", saved({"a.weight": one})
    reconstruct = np.zeros(1).__reduce__()[0]
    f4 = np.dtype("f4")
    arrays: dict[str, tuple[object, ...]] = {
        "huge": (1, (10**9, 10**9), f4, False, b""),
        "axes": (1, (1,) * 100, f4, False, bytes(4)),
        "digits": (1, (10**5000,), f4, False, bytes(4)),
        "zero_digits": (1, (0, 10**5000), f4, False, b""),
        "negative": (1, (-1, -4), f4, False, bytes(16)),
        "objects": (1, (1,), np.dtype("O"), False, [1]),
        "record": (1, (1,), np.dtype([("a", "f4")]), False, bytes(4)),
        "text": (1, (1,), np.dtype("U3"), False, bytes(12)),
        "short": (1,),
    }
    for name, held in arrays.items():
        array = _Call(reconstruct, np.ndarray, (0,), b"b", state=held)  # type: ignore[arg-type]
        yield f"array_{name}.pdparams", pickle.dumps({"a.weight": array}, 4)
    shared = (1, (10_000,), f4, False, bytes(40_000))  # a pickle can hand the same bytes to any number of arrays
    same = {f"w{n}": _Call(reconstruct, np.ndarray, (0,), b"b", state=shared) for n in range(100)}  # type: ignore[arg-type]
    yield "array_shared.pdparams", pickle.dumps(same, 4)
    for name, header in {
        "huge": {"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 16]}},
        "axes": {"a": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}},
        "dtype": {"a": {"dtype": "F4", "shape": [32], "data_offsets": [0, 16]}},
        "overlap": {n: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for n in "ab"},
        "metadata": {"__metadata__": {"a": {"b": 1}}},
    }.items():
        content = json.dumps(header).encode()
        yield f"{name}.safetensors", struct.pack("<Q", len(content)) + content + bytes(16)


def others() -> Iterator[tuple[str, bytes]]:
    """What is no checkpoint, and names that confuse."""
    yield "lfs.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    yield "page.pth", b"<!DOCTYPE html><html>"
    yield "missing.pth", b"Entry not found"
    yield "picture.pth", b"\x89PNG\r\n\x1a\n" + bytes(40)
    yield "graph.pth", bytes.fromhex("080a120770") + b"ytorch" + bytes(20)
    yield "json.pth", b'{"weight_map": {"a": "model-1.safetensors"}}'
    yield "zeros.pth", bytes(4096)
    both = io.BytesIO()
    with zipfile.ZipFile(both, "w") as archive:
        for name in "ab":
            archive.writestr(f"{name}/data.pkl", b"\x80\x04}.")
    yield "two_models.pth", both.getvalue()
    names = {"a\n.weight": 1, "\x1b[31mred": 1, "\ud800": 1, "x" * 100_000: 1}
    yield "names.pth", zipped(pickle.dumps({**dict.fromkeys(names, 1), 3: 1}, 4))
    yield "tensor_names.pth", saved({"\x1b]0;evil\x07.weight": torch.ones(1)})
    yield "empty_dict.pth", saved({})
    yield "number.pth", saved(3)
    yield "nothing.pdparams", b"\x80\x04."
    yield "names_only.pdparams", b"\x80\x04" + named("numpy", "ndarray") + b"."


def write_all(folder: Path) -> list[Path]:
    """Write every kind into a folder, and return the files. What is run would create ``folder / CANARY``."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about tensors that only few ever made
        made = [*attacks(str(folder / CANARY)), *bombs(), *shapes(), *others()]
    for name, content in made:
        path = folder / name
        path.write_bytes(content)
        found.append(path)
    return found
