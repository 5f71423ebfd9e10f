"""PaddleClas' ``.pdparams``: a pickle of arrays by name, read without running anything that it brings.

The file is one dict of numpy arrays, and beside them a table of Paddle's own parameter names. Its pickle asks
for three names of numpy and makes arrays with them; here each name stands for a small class of ours that only
keeps what it is given, and the arrays are made afterwards, from bytes that were measured first. So nothing of
numpy runs on what the file says, and any other name ends the reading.

Paddle calls a BatchNorm's statistics ``_mean`` and ``_variance``, and keeps the weight of a Linear as (in, out): which
weights those are is the family's to say, see `as_pytorch`.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiresvit.errors import HiresvitError

NAME_TABLE = "StructuredToParameterName@@"
RENAMED = {"_mean": "running_mean", "_variance": "running_var"}


class _Refused(Exception):  # noqa: N818 (it never leaves this module)
    """What the file asks for or holds, and may not."""


class _NdArray:
    """The name ``numpy.ndarray``, which a file only hands on; it is never made."""

    def __new__(cls, *_args: object) -> _NdArray:
        raise _Refused("makes a numpy.ndarray by itself, as no .pdparams does")

    def __setstate__(self, state: object) -> None:
        raise _Refused("changes numpy.ndarray, as no .pdparams does")


class _DType:
    """``numpy.dtype(kind, align, copy)`` and its state, of which only the byte order matters."""

    kind: object = None
    order: object = "|"

    def __init__(self, kind: object, *_flags: object) -> None:
        self.kind = kind

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order = state[1]

    def made(self) -> np.dtype[Any]:
        """The type in the file's byte order, if it is a number's. Raises _Refused."""
        if not isinstance(self.kind, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]", self.kind):
            what = "Python objects" if str(self.kind).startswith("O") else f"type {str(self.kind)[:20]!r}"
            raise _Refused(f"holds {what}, not numbers")
        return np.dtype(f"{'>' if self.order == '>' else '<'}{self.kind}")


class _Array:
    """``numpy.core.multiarray._reconstruct``, which makes an empty array, and the state that fills it."""

    state: object = None

    def __init__(self, kind: object, *_empty: object) -> None:
        if kind is not _NdArray:
            raise _Refused("makes something else than a numpy.ndarray, as no .pdparams does")

    def __setstate__(self, state: object) -> None:
        self.state = state

    def made(self) -> NDArray[Any]:
        """The array, owned and in the machine's byte order. Raises _Refused if its parts do not fit together."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise _Refused("is an array without contents")
        _version, shape, dtype, fortran, data = self.state
        if not isinstance(dtype, _DType):
            raise _Refused("has no type")
        number = dtype.made()
        if isinstance(data, str):  # bytes of a pickle that Python 2 wrote
            data = data.encode("latin1", "replace")
        if not isinstance(shape, tuple) or any(type(side) is not int or side < 0 for side in shape):
            raise _Refused("has no shape")
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * number.itemsize:
            raise _Refused(f"has not the bytes of its shape {list(shape)}")
        array = np.frombuffer(data, number).reshape(shape, order="F" if fortran else "C")
        return np.array(array, number.type, order="C")


class _Encode:
    """``_codecs.encode(text, "latin1")``: how Python 3 writes bytes in protocol 2."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        if encoding != "latin1":
            raise _Refused(f"encodes as {str(encoding)[:20]!r}, as no .pdparams does")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise _Refused("changes _codecs.encode, as no .pdparams does")


# All of them are classes with a __setstate__: a file can hand a "state" to any object that it was given, and a plain
# function would take it as its attributes. A file can also skip their __init__.
_NAMES: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Encode,
}


class _Reader(pickle._Unpickler):
    """Finds nothing but `_NAMES`.

    It is pickle's reader in Python, not the one in C, which takes as much memory as an index in the file says.
    """

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _NAMES:
            asked = f"{module}.{name}"
            shown = asked if asked.isprintable() and len(asked) <= 80 else repr(asked)[:80]
            raise _Refused(f"asks for {shown}, which is not plain data and could run code")
        return _NAMES[module, name]


def read_pdparams(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pdparams`` under PyTorch's names: floats as float32, in memory of their own.

    The table of names is left out. Raises HiresvitError on a file that cannot be read, is damaged, holds anything but
    arrays of numbers, or asks for anything but these.
    """
    tensors: dict[str, Tensor] = {}
    for key, value in _content(path).items():
        if key == NAME_TABLE:
            continue
        if not isinstance(key, str) or not key.isprintable():
            raise HiresvitError(f"{path}: {repr(key)[:40]} is not a parameter's name")
        if not isinstance(value, _Array):
            raise HiresvitError(f"{path}: {key} is a {_kind(value)}, not an array")
        try:
            array = value.made()
        except _Refused as refused:
            raise HiresvitError(f"{path}: {key} {refused}") from refused
        parent, _, last = key.rpartition(".")
        name = f"{parent}.{RENAMED.get(last, last)}" if parent else key
        if name in tensors:
            raise HiresvitError(f"{path} has {name} twice, under its name in Paddle and in PyTorch")
        tensor = torch.from_numpy(np.array(array, order="C"))
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    return tensors


def as_pytorch(tensors: Mapping[str, Tensor], linears: Collection[str], derived: Collection[str]) -> dict[str, Tensor]:
    """Paddle's tensors as PyTorch has them: the weights of the modules ``linears`` as (out, in), without ``derived``.

    Both are last names. A square weight does not say by its shape whether it is a Linear's; a convolution's has four
    dimensions. ``derived`` are buffers that our models compute.
    """
    found = {}
    for key, tensor in tensors.items():
        parent, _, last = key.rpartition(".")
        linear = last == "weight" and tensor.ndim == 2 and parent.rpartition(".")[2] in linears
        if last not in derived:
            found[key] = tensor.T.contiguous() if linear else tensor
    return found


def _content(path: Path) -> dict[Any, Any]:
    try:
        # From memory, so that a length in the file cannot ask for more than there is.
        content = _Reader(BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise HiresvitError(f"cannot read {path}: {error.strerror}") from error
    except _Refused as refused:
        raise HiresvitError(f"{path} was not loaded: it {refused}") from refused
    except Exception as error:  # on damaged bytes the unpickler raises about anything
        raise HiresvitError(
            f"{path} is truncated, damaged or no .pdparams ({type(error).__name__}); copy or download it again"
        ) from error
    if not isinstance(content, dict):
        raise HiresvitError(f"{path} holds a {_kind(content)}, not a dict of arrays")
    return content


def _kind(value: object) -> str:
    """What to call it: the stand-ins by what they stand for."""
    return {_Array: "numpy array", _DType: "dtype", type: "class"}.get(type(value), type(value).__name__)
