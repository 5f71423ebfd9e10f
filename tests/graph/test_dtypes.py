"""Types of tensors and their names in four vocabularies."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from hiresvit.graph.dtypes import FLOAT, HALF, NUMBERS, bits_of, numpy_name, shown, type_name

CODES = [code for name, code in TensorProto.DataType.items() if name != "UNDEFINED"]


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (TensorProto.FLOAT, ("float", "float32", "FP32", 32)),
        (TensorProto.FLOAT16, ("float16", "float16", "FP16", 16)),
        (TensorProto.BFLOAT16, ("bfloat16", "bfloat16", "BF16", 16)),
        (TensorProto.DOUBLE, ("double", "float64", "DOUBLE", 64)),
        (TensorProto.INT8, ("int8", "int8", "INT8", 8)),
        (TensorProto.INT4, ("int4", "int4", "INT4", 4)),
        (TensorProto.FLOAT8E4M3FN, ("float8e4m3fn", "float8_e4m3fn", "FP8", 8)),
        (TensorProto.BOOL, ("bool", "bool", "BOOL", 8)),
    ],
)
def test_one_type_by_four_names(code: int, names: tuple[str, str, str, int]) -> None:
    kind = type_name(code)
    assert (kind, numpy_name(kind), shown(kind), bits_of(code)) == names


def test_what_is_no_type() -> None:
    assert type_name(0) == ""
    assert type_name(999) == "type 999"
    assert numpy_name("") == numpy_name("type 999") == "unknown"
    assert bits_of(999) is bits_of(TensorProto.STRING) is None


@pytest.mark.parametrize("code", CODES)
def test_types_of_whole_bytes_have_numpys_size(code: int) -> None:
    bits = bits_of(code)
    if bits is not None and bits >= 8:
        assert bits == 8 * helper.tensor_dtype_to_np_dtype(code).itemsize
    assert (bits is None) == (code == TensorProto.STRING)


def test_what_tensorrt_has_are_types_of_onnx() -> None:
    assert {type_name(code) for code in CODES} > NUMBERS
    assert (type_name(FLOAT), type_name(HALF)) == ("float", "float16")
    assert np.dtype(numpy_name("float")).itemsize == 4
