"""Which tensors become FP16, before anything is rewritten. Whole graphs: test_fp16."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pytest
from graphs import build, indexed, noise

from hiresvit.errors import IllegalGraphError, UsageError
from hiresvit.export.fp16_typing import MAX_TERMS, Versions, decide, float_tensors, fresh
from hiresvit.graph.dtypes import FLOAT, HALF
from hiresvit.graph.operators import ISLANDS

Types = dict[str, tuple[list[int | None], list[int | None]]]


def decided(
    text: str,
    constants: Mapping[str, Any] | None = None,
    io_type: int = FLOAT,
    islands: Collection[str] = ISLANDS,
) -> tuple[Types, Versions]:
    """What each node reads and writes, by its first output."""
    ops, versions = decide(indexed(build(text, constants)), islands, io_type)
    return {op.node.output[0]: (op.reads, op.writes) for op in ops}, versions


def test_everything_is_fp16_but_the_border() -> None:
    ops, versions = decided("g (float[2,8] x) => (float[2,8] y) { a = Relu(x) y = Relu(a) }")
    assert ops == {"a": ([HALF], [HALF]), "y": ([HALF], [HALF])}
    assert versions == {
        "x": {FLOAT: "x", HALF: "x_fp16"},  # made in FP32, wanted in FP16
        "a": {HALF: "a"},
        "y": {HALF: "y_fp16", FLOAT: "y"},
    }


def test_a_border_in_fp16_needs_no_other_versions() -> None:
    _, versions = decided("g (float[2,8] x) => (float[2,8] y) { a = Relu(x) y = Relu(a) }", io_type=HALF)
    assert versions == {"x": {HALF: "x"}, "a": {HALF: "a"}, "y": {HALF: "y"}}


@pytest.mark.parametrize(("islands", "dtype"), [(ISLANDS, FLOAT), ((), HALF)])
def test_islands(islands: Collection[str], dtype: int) -> None:
    ops, versions = decided(
        "g (float[2,8] x) => (float[2,8] y) { a = Relu(x) s = Softmax(a) y = Relu(s) }", islands=islands
    )
    assert ops["s"] == ([dtype], [dtype])
    assert ops["y"] == ([HALF], [HALF])
    assert list(versions["s"]) == list(dict.fromkeys([dtype, HALF]))  # the one it is made in comes first


@pytest.mark.parametrize(("terms", "dtype"), [(MAX_TERMS, HALF), (MAX_TERMS + 1, FLOAT)])
@pytest.mark.parametrize("batch", ["2", "N"])
def test_what_adds_up_more_than_fp16_counts(terms: int, dtype: int, batch: str) -> None:
    ops, _ = decided(
        f"g (float[{batch},{terms}] x) => (float[{batch},1] y) {{ a = Relu(x) m = ReduceSum(a, k) y = Neg(m) }}",
        {"k": np.array([1])},
    )
    assert ops["m"] == ([dtype, None], [dtype])


def test_sizes_stay_in_fp32() -> None:
    """FP16 would make 2050 of 2049."""
    ops, _ = decided(
        "g (float[1,1,4,4] x) => (float[1,1,8,8] y) {"
        " s = Shape(x) f = Cast<to=1>(s) d = Mul(f, two) i = Cast<to=7>(d) a = Relu(x) y = Resize(a, , , i) }",
        {"two": np.array([1, 1, 2, 2], np.float32)},
    )
    assert ops["d"] == ([FLOAT, FLOAT], [FLOAT])
    assert ops["y"][1] == [HALF]


def test_scales_and_regions_of_a_resize_stay_in_fp32() -> None:
    ops, _ = decided(
        'g (float[1,1,4,4] x) => (float[1,1,8,8] y) { y = Resize<mode="linear">(x, none, twice) }',
        {"none": np.zeros(0, np.float32), "twice": np.array([1, 1, 2, 2], np.float32)},
    )
    assert ops["y"] == ([HALF, FLOAT, FLOAT], [HALF])


def test_data_that_is_only_moved_between_islands_is_not_cast_twice() -> None:
    ops, _ = decided(
        "g (float[2,8] x) => (float[8,2] y) { s = Softmax(x) t = Transpose<perm=[1,0]>(s) y = Softmax(t) }"
    )
    assert ops == {name: ([FLOAT], [FLOAT]) for name in ("s", "t", "y")}
    ops, _ = decided("g (float[2,8] x) => (float[8,2] y) { s = Softmax(x) t = Transpose<perm=[1,0]>(s) y = Relu(t) }")
    assert ops["t"] == ([HALF], [HALF])  # its reader wants FP16, so the cast comes before


def test_a_constant_is_there_in_every_type() -> None:
    _, versions = decided(
        "g (float[2,8] x) => (float[2,8] y) { a = Add(x, w) s = LayerNormalization(a, w) y = Relu(s) }",
        {"w": noise(8)},
    )
    assert versions["w"] == {HALF: "w", FLOAT: "w_fp32"}


def test_a_name_that_is_taken() -> None:
    _, versions = decided("g (float[2] x, float[2] x_fp16) => (float[2] y) { y = Add(x, x_fp16) }")
    assert versions["x"][HALF] == "x_fp16_1"
    assert fresh("a", {"a", "a_1"}) == "a_2"
    assert fresh("b", {"a"}) == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g (int64[2] x) => (int64[2] y) { y = Neg(x) }", "has no FP32 tensor: there is nothing to convert"),
        ("g (float16[2] x) => (float16[2] y) { y = Neg(x) }", r"'x' is FLOAT16 already: give the FP32 graph"),
        ("g (bfloat16[2] x) => (bfloat16[2] y) { y = Neg(x) }", r"'x' is BFLOAT16 already"),
        (
            "g (float[2] x) => (float[2] y) { a = here.Thing(x) y = Neg(a) }",
            "'a' of a Thing node: its type cannot be inferred",
        ),
    ],
)
def test_graphs_that_cannot_be_typed(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        float_tensors(indexed(build(text)))


def test_an_operator_that_onnx_does_not_have() -> None:
    with pytest.raises(IllegalGraphError, match="operator 'Thing' of domain 'here' is unknown to ONNX"):
        decided("g (float[2] x) => (float[2] y) { y = here.Thing(x) }")
