"""numpy's arrays and numbers out of a pickle that was read as data: made here, from bytes that were measured first."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiresvit.models.weights.inert import Made, Refused

MOST_AXES = 16
_RECONSTRUCT = re.compile(r"numpy\._?core\.multiarray\._reconstruct")
_FROM_BUFFER = re.compile(r"numpy\._?core\.numeric\._frombuffer")
_SCALAR = re.compile(r"numpy\._?core\.multiarray\.scalar")
_NUMBER = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")


def array_reader(value: Any) -> Callable[[], NDArray[Any]] | None:
    """What makes the array that ``value`` stands for, owned and in the machine's byte order; None if it is none.

    The reader raises Refused if the parts do not fit together or are no numbers.
    """
    if not isinstance(value, Made):
        return None
    maker = str(value.maker)
    if _RECONSTRUCT.fullmatch(maker):
        return lambda: _reconstructed(value)
    if _FROM_BUFFER.fullmatch(maker):
        return lambda: _from_buffer(value)
    if maker in ("builtins.tuple", "__builtin__.tuple") and len(value.args) == 1:  # Paddle's (name, array)
        inner = value.args[0]
        return array_reader(inner[1]) if isinstance(inner, tuple) and len(inner) == 2 else None
    return None


def number(value: Any) -> int | float | bool | None:
    """The number that a numpy scalar in a pickle stands for; None if it is none."""
    if not isinstance(value, Made) or not _SCALAR.fullmatch(str(value.maker)) or len(value.args) != 2:
        return None
    try:
        [item] = _array((1,), value.args[0], "C", value.args[1]).tolist()
    except Refused:
        return None
    return item  # type: ignore[no-any-return]


def as_tensor(array: NDArray[Any]) -> Tensor:
    """The array in memory of its own."""
    return torch.from_numpy(np.array(array, order="C"))


def _reconstructed(value: Made) -> NDArray[Any]:
    if not value.args or str(value.args[0]) != "numpy.ndarray":
        raise Refused("makes something else than a numpy.ndarray")
    state = value.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise Refused("is an array without contents")
    _version, shape, dtype, fortran, data = state
    return _array(shape, dtype, "F" if fortran is True or fortran == 1 else "C", data)


def _from_buffer(value: Made) -> NDArray[Any]:
    if len(value.args) != 4:
        raise Refused("is an array without contents")
    data, dtype, shape, order = value.args
    return _array(shape, dtype, "F" if order == "F" else "C", data)


def _array(shape: Any, dtype: Any, order: str, data: Any) -> NDArray[Any]:
    kind = _number_type(dtype)
    if isinstance(data, str):  # bytes of a pickle that Python 2 wrote
        data = data.encode("latin1", "replace")
    if not isinstance(shape, tuple) or any(type(side) is not int or side < 0 for side in shape):
        raise Refused("has no shape")
    if len(shape) > MOST_AXES:
        raise Refused(f"has {len(shape)} axes")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * kind.itemsize:
        raise Refused(f"has not the bytes of its shape {list(shape)}")
    array = np.frombuffer(data, kind).reshape(shape, order="F" if order == "F" else "C")
    return np.asarray(array, kind.newbyteorder("="), order="C")


def _number_type(dtype: Any) -> np.dtype[Any]:
    """The type in the file's byte order, if it is a number's. Raises Refused."""
    if not isinstance(dtype, Made) or str(dtype.maker).partition("[")[0] not in ("numpy.dtype", "numpy.dtypes"):
        raise Refused("has no type")
    kind = dtype.args[0] if dtype.args else None
    if not isinstance(kind, str) or not _NUMBER.fullmatch(kind):
        what = "Python objects" if str(kind).startswith("O") else f"type {str(kind)[:20]!r}"
        raise Refused(f"holds {what}, not numbers")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "|"
    return np.dtype(f"{'>' if order == '>' else '<'}{kind.lstrip('<>=|')}")
