"""Rules about Q/DQ: for each a graph that it is about and its good neighbour, and what TensorRT-RTX makes of some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from findings import find_problems, found, names_of
from graphs import build, content
from onnx import ModelProto

from hiresvit.check import qdq_rules
from hiresvit.device.tensorrt_api import installed
from hiresvit.engine.build import BuildSettings, build_engine

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason="TensorRT-RTX is not installed")

F16, F32, I8 = np.float16, np.float32, np.int8
Q = "q = QuantizeLinear(r, s, z) d = DequantizeLinear(q, s, z)"
W = "dw = DequantizeLinear<axis = 1>(w, ws)"
QUANTIZED: dict[str, Any] = {
    "s": F16(0.1),
    "z": I8(0),
    "w": np.arange(-64, 64, dtype=I8).repeat(32).reshape(64, 64),
    "ws": np.full(64, 0.01, F16),
    "s32": F32(0.1),
}


def product(before: str, result: str = "float16") -> ModelProto:
    body = f"r = Relu(x) {before} t = MatMul(d, dw) y = Relu(t)"
    return build(f"g (float16[64,64] x) => ({result}[64,64] y) {{ {body} }}", QUANTIZED, 23)


def made(body: str, io: str = "(float16[16,16] x) => (float16[16,16] y)", **constants: Any) -> ModelProto:
    """A graph with a weight ``w`` of ones in INT8 and its scales ``ws``, and the scale ``s`` of the rest."""
    known = {"s": F16(0.1), "z": I8(0), "w": np.ones((16, 16), I8), "ws": np.full(16, 0.01, F16)}
    return build(f"g {io} {{ {body} }}", {**known, **constants}, 21)


PAIR = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
WEIGHT = "e = DequantizeLinear<axis = {}>(w, ws)"
PRODUCT = f"{PAIR} {WEIGHT.format(1)} y = MatMul(d, e)"
FLAT, OTHER = f"{PAIR} y = Relu(d)", "q = QuantizeLinear(x, t, z) d = DequantizeLinear(q, s, z) y = Relu(d)"
FACTOR = "e = DequantizeLinear(c, s) y = Mul(x, e)"
WIDE = f"{PAIR} f = Cast<to = 1>(d) g = Cast<to = 1>(x) {{}} y = Cast<to = 10>(p)"
NARROW = "q = QuantizeLinear(x, s, z) f = DequantizeLinear(q, t, z) d = Cast<to = 10>(f) y = MatMul(d, x)"
BLOCKS = "e = DequantizeLinear<axis = {}, block_size = 8>(w, ws) y = MatMul(x, e)"
INT4, SQUARE = ml_dtypes.int4, np.array([16, 16])
IN_BLOCKS: dict[str, Any] = {"w": np.ones((16, 16), INT4), "ws": np.full((2, 16), 0.01, F16)}
LAST = "e = DequantizeLinear<axis = {}, block_size = 8>(w, ws) r = Reshape(e, s2) y = MatMul(x, r)"
IMAGE = "(float16[1,16,8,8] x) => (float16[1,16,8,8] y)"
FILTER = "e = DequantizeLinear<axis = 0>(k, ws) y = Conv({}, e)"
# The good one and the bad one, which differ in one thing; asked for TensorRT 11 where `ASKED` names no other.
PAIRS: dict[str, tuple[ModelProto, ModelProto]] = {
    "asymmetric": (made(FLAT), made(FLAT, z=I8(-1))),
    "quantized": (made(FLAT), made(FLAT, z=np.int16(0))),
    "unsigned": (made(FLAT), made(FLAT, z=np.uint8(0))),
    "no_zero_point": (
        made("q = QuantizeLinear<output_dtype = 3>(x, s) d = DequantizeLinear(q, s) y = Relu(d)"),
        made("q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) y = Relu(d)"),
    ),
    "bias": (
        made("y = Add(x, b)", b=np.ones(16, F16)),
        made("b = DequantizeLinear<axis = 0>(c, ws) y = Add(x, b)", c=np.ones(16, np.int32)),
    ),
    "stored": (
        made("e = DequantizeLinear<axis = 0>(w, ws) t = Transpose(e) y = MatMul(x, t)"),
        made("t = Transpose(w) e = DequantizeLinear<axis = 1>(t, ws) y = MatMul(x, e)"),
    ),
    "scalar": (made(FACTOR, c=np.ones(1, I8)), made(FACTOR, c=I8(1))),
    "int4_activation": (made(BLOCKS.format(0), **IN_BLOCKS), made(FLAT, z=INT4(0))),
    "scale_sign": (made(FLAT, s=F16(2.0**-24)), made(FLAT, s=F16(0))),
    "scale_infinite": (made(FLAT, s=F16(65504)), made(FLAT, s=F16(np.inf))),
    "scale_dynamic": (
        made(OTHER.replace("q", "t = Mul(s, s) q", 1)),
        made(OTHER.replace("q", "t = ReduceMax<keepdims = 0>(x) q", 1)),
    ),
    "scale_count": (made(PRODUCT), made(PRODUCT, ws=np.full(15, 0.01, F16))),
    "scale_type": (made(OTHER, t=F16(0.1)), made(OTHER, t=F32(0.1))),
    "widened": (made(WIDE.format("p = Add(f, g)")), made(WIDE.format("p = MatMul(f, g)"))),
    "narrowed": (made(f"{PAIR} y = MatMul(d, x)"), made(NARROW, t=F32(0.1))),
    "weight_axis": (made(PRODUCT), made(f"{PAIR} {WEIGHT.format(0)} y = MatMul(d, e)")),
    "channel_activation": (
        made(FLAT, s=np.full(1, 0.1, F16), z=np.zeros(1, I8)),
        made(FLAT, s=np.full(16, 0.1, F16), z=np.zeros(16, I8)),
    ),
    "block": (
        made(BLOCKS.format(0), **IN_BLOCKS),
        made(BLOCKS.format(0), ws=IN_BLOCKS["ws"]),
    ),
    "block_axis": (
        made(LAST.format(-2), w=np.ones((1, 16, 16), INT4), ws=np.ones((1, 2, 16), F16), s2=SQUARE),
        made(LAST.format(-3), w=np.ones((16, 16, 1), INT4), ws=np.ones((2, 16, 1), F16), s2=SQUARE),
    ),
    "orin_qdq": (made("y = MatMul(x, x)"), made(FLAT)),
    "int8_conv": (
        made(FILTER.format("x"), IMAGE, k=np.ones((16, 16, 1, 1), I8)),
        made(f"{PAIR} {FILTER.format('d')}", IMAGE, k=np.ones((16, 16, 1, 1), I8)),
    ),
}
ASKED = {"orin_qdq": "jetpack7", "int8_conv": "rtx", "stored": "rtx"}


@pytest.mark.parametrize("rule", PAIRS)
def test_good_and_bad(rule: str) -> None:
    (good, bad), target = PAIRS[rule], ASKED.get(rule, "trt11")
    assert find_problems(good, target) == []
    assert {finding.rule for finding in find_problems(bad, target)} == {rule}


def test_every_rule_has_a_pair() -> None:
    assert list(PAIRS) == names_of(qdq_rules)


def test_another_type_of_the_same_width_is_not_wider() -> None:
    io = "(float16[16,16] x) => (bfloat16[16,16] y)"
    model = made(f"{PAIR} f = Cast<to = 16>(d) y = MatMul(f, f)", io)
    assert {finding.rule for finding in find_problems(model, "trt11")} == {"narrowed"}


class TestAdvice:
    def test_quantized_graphs_on_orin(self) -> None:
        model = product(f"{Q} {W}")
        (finding,) = found(model, "orin_qdq", "jetpack7")
        assert finding.count == 3
        assert "TensorRT#4832" in finding.message
        assert found(model, "orin_qdq", "jetpack6") == []


# What is said of TensorRT-RTX: which forms it computes in INT8 and which not.
WIDENED = (
    "q = QuantizeLinear(r, s, z) e = DequantizeLinear(q, s, z) d = Cast<to = 1>(e) "
    "f = DequantizeLinear<axis = 1>(w, ws) dw = Cast<to = 1>(f)"
)
REALISED = [
    ("plain", f"{Q} {W}", "float16", None, "int8"),
    ("axis", f"{Q} dw = DequantizeLinear<axis = 0>(w, ws)", "float16", "weight_axis", "fp16"),
    (
        "channels",
        f"q = QuantizeLinear<axis = 1>(r, ws) d = DequantizeLinear<axis = 1>(q, ws) {W}",
        "float16",
        "channel_activation",
        "fp16",
    ),
    ("widened", WIDENED, "float", "widened", "fp32"),
    (
        "narrowed",
        f"q = QuantizeLinear(r, s, z) e = DequantizeLinear(q, s32, z) d = Cast<to = 10>(e) {W}",
        "float16",
        None,
        "int8",
    ),
    (
        "computed",
        f"m = ReduceMax<keepdims = 0>(r) c = Mul(m, s) q = QuantizeLinear(r, c, z) d = DequantizeLinear(q, c, z) {W}",
        "float16",
        "scale_dynamic",
        "fp16",
    ),
    (
        "wide-scale",
        f"q = QuantizeLinear(r, s32, z) d = DequantizeLinear<output_dtype = 10>(q, s32, z) {W}",
        "float16",
        None,
        "int8",
    ),
]


@needs_rtx
@pytest.mark.parametrize("form", REALISED, ids=[form[0] for form in REALISED])
def test_what_rtx_makes_of_it(form: tuple[str, str, str, str | None, str], tmp_path: Path) -> None:
    _, before, result, rule, precision = form
    model = product(before, result)
    path = tmp_path / "graph.onnx"
    path.write_bytes(content(model))
    report = build_engine(path, tmp_path / "plan", BuildSettings("tensorrt_rtx"))
    assert report.precision == {precision: 1}
    told = {f.rule for f in find_problems(model) if f.level == "hazard"}
    assert (rule in told) == (precision != "int8")
