"""ONNX's types of tensors, by their names in lower case as ``float16``, and what others call them."""

from __future__ import annotations

from functools import cache

from onnx import TensorProto, helper

FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)

LARGEST, SMALLEST_NORMAL = 65504.0, 2.0**-14
"""FP16's largest number, and the smallest that has all of its 11 bits."""

FLOATS = frozenset({"float", "float16", "bfloat16"})
"""What a product is computed in where nothing is quantized."""
NUMBERS = frozenset(
    {*FLOATS, "double", "int64", "int32", "int8", "uint8", "bool", "int4"}
    | {"float8e4m3fn", "float8e8m0", "float4e2m1"}
)
"""The types of tensor that TensorRT has; DOUBLE it makes FP32."""

_SHOWN = {"float": "FP32", "float16": "FP16", "bfloat16": "BF16", "float8e4m3fn": "FP8", "float4e2m1": "FP4"}
# Of the types that lie side by side in a byte.
_BITS = {"int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4e2m1": 4}


@cache
def type_name(code: int) -> str:
    """ONNX's name of a type in lower case, "" for no type."""
    try:
        return TensorProto.DataType.Name(code).lower() if code else ""
    except ValueError:
        return f"type {code}"


def shown(kind: str) -> str:
    """A type as people write it: ``FP16`` for ``float16``."""
    return _SHOWN.get(kind, kind.upper())


def numpy_name(kind: str) -> str:
    """What numpy (or ml_dtypes) calls a type: ``float32`` for ``float``; ``unknown`` for what it does not have."""
    try:
        code = TensorProto.DataType.Value(kind.upper())
        return str(helper.tensor_dtype_to_np_dtype(code).name)
    except (KeyError, ValueError):
        return "unknown"


def bits_of(code: int) -> int | None:
    """Bits of a number; None for a type that has no fixed size, or that there is not."""
    if code == TensorProto.STRING:
        return None
    try:
        whole = 8 * int(helper.tensor_dtype_to_np_dtype(code).itemsize)
    except (KeyError, ValueError):
        return None
    return _BITS.get(type_name(code), whole)
