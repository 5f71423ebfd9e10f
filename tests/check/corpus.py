"""Small graphs about sizes and numbers: Q/DQ, FP16. `CORPUS` has those of the other corpus modules as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from corpus_forms import FORMS
from corpus_graphs import F16, F32, GRAPHS, I8, PICTURE, ROWS, Entry, entry
from corpus_wrong import WRONG

MORE: list[Entry] = []


def add(name: str, body: str, expected: str = "", **more: Any) -> None:
    MORE.append(entry(name, body, expected, **more))


# Sizes
add("eight axes", "y = Relu(x)", io="(float16[1,1,1,1,1,1,1,2] x) => (float16[1,1,1,1,1,1,1,2] y)")
add(
    "nine axes",
    "y = Relu(x)",
    "illegal rank",
    io="(float16[1,1,1,1,1,1,1,1,2] x) => (float16[1,1,1,1,1,1,1,1,2] y)",
)
DYNAMIC = "(float16[N,4,H,W] x) => (float16[N,4,H,W] y)"
add("dynamic", "y = Relu(x)", "illegal dynamic", io=DYNAMIC)
add("dynamic with a profile", "y = Relu(x)", io=DYNAMIC, profiled=True)
add(
    "dynamic that nobody reads",
    "y = Relu(x)",
    "illegal dynamic",
    io="(float16[2] x, float16[N] z) => (float16[2] y)",
)
add(
    "sizes in int64",
    "s = Shape(x) t = Slice(s, axis, two, axis) n = ReduceProd(t, axis) y = Reshape(x, n)",
    io="(float16[4,4] x) => (float16[16] y)",
    constants={"two": np.array([2]), "axis": np.array([0])},
)

# Q/DQ
Q, W = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)", "dw = DequantizeLinear<axis = 0>(w, ws)"
QUANTIZED = {
    "s": F16(0.1),
    "z": I8(0),
    "w": np.ones((16, 16, 1, 1), I8),
    "ws": np.full(16, 0.01, F16),
    "s32": F32(0.1),
    "ws32": np.full(16, 0.01, F32),
}


def add_int8(name: str, body: str, expected: str = "", constants: Mapping[str, Any] | None = None, **more: Any) -> None:
    add(name, body, expected, constants={**QUANTIZED, **(constants or {})}, **more)


CONV = f"{Q} {W} y = Conv(d, dw)"
add_int8("int8 convolution", CONV)
add_int8(
    "int8 convolution with zero points",
    f"{Q} dw = DequantizeLinear<axis = 0>(w, ws, zs) y = Conv(d, dw)",
    constants={"zs": np.zeros(16, I8)},
)
add_int8(
    "int8 convolution of a float weight",
    f"{Q} qw = QuantizeLinear<axis = 0>(wf, ws, zs) dw = DequantizeLinear<axis = 0>(qw, ws, zs) y = Conv(d, dw)",
    constants={"wf": np.ones((16, 16, 1, 1), F16), "zs": np.zeros(16, I8)},
)
add_int8("zero point 3", CONV, "illegal asymmetric", {"z": I8(3)})
add_int8(
    "zero points of a weight",
    f"{Q} dw = DequantizeLinear<axis = 0>(w, ws, zs) y = Conv(d, dw)",
    "illegal asymmetric",
    {"zs": np.arange(16, dtype=I8)},
)
add_int8(
    "zero point that is fed",
    "q = QuantizeLinear(x, s, v) d = DequantizeLinear(q, s, z) y = Relu(d)",
    "illegal asymmetric",
    io="(float16[1,16,8,8] x, int8 v) => (float16[1,16,8,8] y)",
)
add_int8("int16", CONV, "illegal quantized", {"z": np.int16(0)}, opset=21, jetpack6="illegal quantized opset")
add_int8(
    "fp8",
    CONV,
    "illegal quantized",
    {"z": np.zeros((), ml_dtypes.float8_e4m3fn), "w": np.ones((16, 16, 1, 1), ml_dtypes.float8_e4m3fn)},
    trt11="",
    rtx="",
)
add_int8("uint8 weight", CONV, "illegal quantized", {"w": np.ones((16, 16, 1, 1), np.uint8)})
add_int8("uint8 activation", CONV, "illegal unsigned", {"z": np.uint8(0)}, rtx="hazard unsigned")
add_int8(
    "uint8 with zero point 128",
    CONV,
    "illegal unsigned asymmetric",
    {"z": np.uint8(128)},
    rtx="illegal asymmetric hazard unsigned",
)
add_int8(
    "uint8 picture dequantized",
    "y = DequantizeLinear(x, s, z)",
    "illegal uint8",
    {"z": np.uint8(0)},
    io="(uint8[2] x) => (float16[2] y)",
)
add_int8(
    "no zero point",
    f"q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) {W} y = Conv(d, dw)",
    "hazard no_zero_point",
)
add_int8(
    "output_dtype",
    f"q = QuantizeLinear<output_dtype = 3>(x, s) d = DequantizeLinear(q, s) {W} y = Conv(d, dw)",
    opset=21,
    jetpack6="illegal opset",
)
add_int8(
    "int32 bias",
    f"{Q} {W} db = DequantizeLinear<axis = 0>(b, ws) y = Conv(d, dw, db)",
    "illegal bias",
    {"b": np.ones(16, np.int32)},
)
add_int8("float bias", f"{Q} {W} y = Conv(d, dw, b)", constants={"b": np.ones(16, F16)})
TURNED = "t = Transpose(w) dw = DequantizeLinear<axis = 1>(t, ws) y = MatMul(x, dw)"
add_int8(
    "int8 weight that is turned",
    TURNED,
    "illegal stored hazard undocumented_type",
    {"w": np.ones((16, 16), I8)},
    io=ROWS,
    rtx="illegal stored",
)
TURNED = "dw = DequantizeLinear<axis = 0>(w, ws) t = Transpose(dw) y = MatMul(x, t)"
add_int8("float weight that is turned", TURNED, "", {"w": np.ones((16, 16), I8)}, io=ROWS)
CAST = "c = Cast<to = 10>(w) m = Mul(c, s) y = MatMul(x, m)"
add_int8("int8 weight that is cast", CAST, "illegal stored", {"w": np.ones((16, 16), I8)}, io=ROWS)
SCALARS = {"c": I8(5), "v": np.full(1, 5, I8)}
for what, name, expected in (("no axes", "c", "illegal scalar"), ("one axis", "v", "")):
    add_int8(f"int8 factor with {what}", f"d = DequantizeLinear({name}, s, z) y = Mul(x, d)", expected, SCALARS)
add_int8(
    "int8 factor of no axes whose size is read",
    "d = DequantizeLinear(c, s) n = Size(d) f = Cast<to = 10>(n) y = Mul(x, f)",
    "",
    SCALARS,
)
add_int8(
    "int8 factor of no axes for nobody",
    "d = DequantizeLinear(c, s, z) q = Mul(x, d) y = Relu(x)",
    "",
    SCALARS,
)
INT4 = {"z": np.zeros((), ml_dtypes.int4), "w": np.ones((16, 16), ml_dtypes.int4)}
add_int8(
    "int4 activation",
    CONV,
    "illegal int4_activation opset",
    {"z": INT4["z"]},
    opset=21,
    jetpack7="illegal int4_activation",
    trt11="illegal int4_activation",
    rtx="illegal int4_activation",
)
add_int8(
    "int4 weight in blocks",
    "dw = DequantizeLinear<axis = 0, block_size = 8>(w, sb) y = MatMul(x, dw)",
    "",
    {**INT4, "sb": np.full((2, 16), 0.01, F16)},
    io=ROWS,
    opset=21,
    jetpack6="illegal opset",
)
for what, value, rules in (
    ("zero", 0, "scale_sign"),
    ("negative", -1, "scale_sign"),
    ("nan", np.nan, "scale_sign"),
):
    add_int8(f"{what} scale", CONV, f"illegal {rules}", {"s": F16(value)})
add_int8("one scale of a weight zero", CONV, "illegal scale_sign", {"ws": np.array([0, *[0.01] * 15], F16)})
add_int8("smallest scale", CONV, "", {"ws": np.full(16, 2.0**-24, F16)})
add_int8("infinite scale", CONV, "illegal scale_infinite", {"s": F16(np.inf)}, rtx="hazard scale_infinite")
add_int8(
    "scale that is computed",
    "m = ReduceMax<keepdims = 0>(x) c = Mul(m, s) q = QuantizeLinear(x, c, z) y = DequantizeLinear(q, c, z)",
    "hazard scale_dynamic",
)
add_int8(
    "wrong number of scales",
    f"{Q} dw = DequantizeLinear<axis = 2>(w, ws) y = Conv(d, dw)",
    "illegal scale_count weight_axis",
    rtx="illegal scale_count hazard weight_axis",
)
add_int8(
    "one zero point for many scales",
    f"{Q} dw = DequantizeLinear<axis = 0>(w, ws, z) y = Conv(d, dw)",
    "illegal scale_count",
)
add_int8(
    "scale of another type before opset 23",
    f"q = QuantizeLinear(x, s32, z) d = DequantizeLinear(q, s, z) {W} y = Conv(d, dw)",
    "illegal scale_type",
    rtx="",
)
add_int8(
    "scale and zero point that are computed of constants",
    "t = Mul(s, two) k = Cast<to = 3>(z) q = QuantizeLinear(x, t, k) d = DequantizeLinear(q, t, k) "
    f"{W} y = Conv(d, dw)",
    constants={"two": F16(2)},
)
add_int8(
    "scale of another type",
    f"q = QuantizeLinear(x, s32, z) d = DequantizeLinear<output_dtype = 10>(q, s32, z) {W} y = Conv(d, dw)",
    "illegal scale_type opset hazard narrowed",
    opset=23,
    rtx="",
    trt11="illegal scale_type hazard narrowed",
)
WIDE = "(float16[1,16,8,8] x) => (float[1,16,8,8] y)"
add_int8(
    "dequantized in FP32",
    "c = Cast<to = 1>(x) q = QuantizeLinear(c, s32, z) d = DequantizeLinear(q, s32, z) "
    "dw = DequantizeLinear<axis = 0>(w, ws32) y = Conv(d, dw)",
    io=WIDE,
)
add_int8(
    "widened by a cast",
    f"{Q} {W} c = Cast<to = 1>(d) cw = Cast<to = 1>(dw) y = Conv(c, cw)",
    "hazard widened",
    io=WIDE,
    jetpack7="illegal widened",
)
add_int8(
    "narrowed by a cast",
    f"q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s32, z) c = Cast<to = 10>(d) {W} y = Conv(c, dw)",
    "hazard narrowed",
    rtx="",
)
add_int8(
    "weight along its inputs",
    f"{Q} dw = DequantizeLinear<axis = 1>(w, ws) y = Conv(d, dw)",
    "illegal weight_axis",
    rtx="hazard weight_axis",
)
add_int8("weight along axis -4", f"{Q} dw = DequantizeLinear<axis = -4>(w, ws) y = Conv(d, dw)")
add_int8("weight with one scale", f"{Q} dw = DequantizeLinear(w, s) y = Conv(d, dw)")
MATRIX = {"w": np.ones((16, 16), I8)}
for op, axis, expected in (
    ("MatMul", 1, ""),
    ("MatMul", 0, "illegal weight_axis"),
    ("Gemm", 1, ""),
    ("Gemm<transB = 1>", 0, ""),
    ("Gemm<transB = 1>", 1, "illegal weight_axis"),
):
    add_int8(
        f"weight of {op} along axis {axis}",
        f"{Q} dw = DequantizeLinear<axis = {axis}>(w, ws) y = {op}(d, dw)",
        expected,
        MATRIX,
        io=ROWS,
        rtx=expected.replace("illegal", "hazard"),
    )
add_int8(
    "scales of an activation's channels",
    f"q = QuantizeLinear<axis = 1>(x, ws, zs) d = DequantizeLinear<axis = 1>(q, ws, zs) {W} y = Conv(d, dw)",
    "illegal channel_activation",
    {"zs": np.zeros(16, I8)},
    rtx="hazard channel_activation",
)
add_int8(
    "int8 in blocks",
    f"{Q} dw = DequantizeLinear<axis = 0, block_size = 8>(w, sb) y = MatMul(d, dw)",
    "illegal block",
    {**MATRIX, "sb": np.full((2, 16), 0.01, F16)},
    io=ROWS,
    opset=21,
    jetpack6="illegal block opset",
    rtx="hazard block",
)
add_int8(
    "scales of another number of blocks",
    "dw = DequantizeLinear<axis = 1, block_size = 8>(w, sb) y = MatMul(x, dw)",
    "illegal scale_count",
    {**INT4, "sb": np.full((2, 16), 0.01, F16)},
    io=ROWS,
    opset=21,
    jetpack6="illegal scale_count opset",
)
add_int8(
    "blocks along a convolution's inputs",
    f"{Q} dw = DequantizeLinear<axis = 1, block_size = 8>(w, sb) y = Conv(d, dw)",
    "illegal block block_axis",
    {"sb": np.full((16, 2, 1, 1), 0.01, F16)},
    opset=21,
    jetpack6="illegal block block_axis opset",
    rtx="illegal block_axis hazard block",
)

# FP16
MASK = np.triu(np.ones((4, 4)), 1)
HALF: dict[str, Any] = {
    **{
        "last": np.array([-1]),
        "map": np.array([2, 3]),
        "two": F16(2),
        "one": np.ones(1, F16),
        "row": np.ones(16, F16),
    },
    **{"eps3": F16(1e-3), "eps4": F16(1e-4), "eps5": F16(1e-5), "eps0": F16(0), "wide_eps": F32(1e-5)},
    **{
        "small": np.full(16, 1e-6, F16),
        "tiny": np.full((16, 16, 1, 1), 1e-6, F16),
        "linear": np.ones((16, 16), F16),
    },
    **{
        "spread": np.geomspace(1e-7, 1, 256).reshape(16, 16, 1, 1).astype(F16),
        "wide_one": F32(1),
        "half_one": F16(1),
    },
    **{
        **{"least": F16(-65504), "hundred": F16(-100), "zero": F16(0)},
        "m100": F16(-100 * MASK),
        "m65504": F16(-65504 * MASK),
        "wide_mask": F32(-1e9 * MASK),
        "upper": MASK > 0,
    },
    **{"inf": np.array([np.inf], F16), "minus_inf": F16(-np.inf), "wide_inf": np.array([np.inf], F32)},
    "twice": np.array([1, 1, 2, 2], F16),
}


def add_half(name: str, body: str, expected: str = "", io: str = ROWS) -> None:
    add(name, body, expected, io=io, constants=HALF)


NORM = "m = ReduceMean(x, last) c = Sub(x, m) p = {} v = ReduceMean(p, last) e = Add(v, {}) r = Sqrt(e) y = Div(c, r)"
FP32 = "(float[4,16] x) => (float[4,16] y)"
add_half("norm in pieces", NORM.format("Mul(c, c)", "eps5"), "hazard decomposed_norm epsilon")
add_half("norm in pieces with a power", NORM.format("Pow(c, two)", "eps4"), "hazard decomposed_norm")
add_half("norm in pieces in FP32", NORM.format("Mul(c, c)", "wide_eps"), io=FP32)
add_half(
    "squares that are no norm",
    "p = Mul(x, x) y = ReduceMean(p, last)",
    io="(float16[4,16] x) => (float16[4,1] y)",
)
SCORES = "(float16[2,4,4] x) => (float16[2,4,4] y)"
WIDE_SOFTMAX = "s = Softmax(w) y = Cast<to = 10>(s)"
add_half("mask of -100", "a = Add(x, m100) y = Softmax(a)", io=SCORES)
add_half("mask of -65504", "a = Add(x, m65504) y = Softmax(a)", "hazard mask", SCORES)
add_half("mask of -inf", "c = Where(upper, minus_inf, x) y = Softmax(c)", "hazard mask infinite", SCORES)
add_half("mask before FP32", f"a = Add(x, m65504) w = Cast<to = 1>(a) {WIDE_SOFTMAX}", "hazard mask", SCORES)
add_half("mask in FP32", f"c = Cast<to = 1>(x) w = Add(c, wide_mask) {WIDE_SOFTMAX}", io=SCORES)
add_half("mask of -65504 in place", "c = Where(upper, least, x) y = Softmax(c)", io=SCORES)
CAUSAL = "m = Where(upper, {}, zero) a = Add(x, m) y = Softmax(a)"
add_half("causal mask of -65504", CAUSAL.format("least"), "hazard mask", SCORES)
add_half("causal mask of -100", CAUSAL.format("hundred"), io=SCORES)
add_half("least value that is no mask", "y = Add(x, m65504)", io=SCORES)
ROOT = "e = Add(x, {}) r = Sqrt(e) y = Reciprocal(r)"
add_half("epsilon", ROOT.format("eps3"))
add_half("epsilon of 0", ROOT.format("eps0"), "hazard epsilon")
IMAGE = "(float16[1,16,8,8] x) => (float16[1,16,8,8] y)"
add_half("batch norm", "y = BatchNormalization(x, row, row, row, row)", io=IMAGE)
add_half(
    "batch norm of a small variance",
    "y = BatchNormalization(x, row, row, row, small)",
    "hazard epsilon",
    IMAGE,
)
add_half("factor", "y = Mul(x, eps4)")
add_half("tiny factor", "y = Mul(x, eps5)", "hazard tiny_factor")
add_half("tiny weight", "y = Conv(x, tiny)", "hazard tiny_factor", IMAGE)
add_half("tiny bias", "y = Add(x, eps5)")
add_half("weight with tiny values", "y = Conv(x, spread)", io=IMAGE)
add_half("infinite constant", "y = Mul(x, inf)", "hazard infinite")
add_half("infinite constant in FP32", "y = Mul(x, wide_inf)", io=FP32)
MEANS = "(float16[1,2,{0},{0}] x) => (float16[1,2,1,1] y)"
add_half("mean of 1600", "y = GlobalAveragePool(x)", io=MEANS.format(40))
add_half("mean of 3136", "y = GlobalAveragePool(x)", "hazard long_sum", MEANS.format(56))
add_half("mean along two axes", "y = ReduceMean(x, map)", "hazard long_sum", MEANS.format(56))
add_half("mean along all axes", "y = ReduceMean(x)", "hazard long_sum", "(float16[56,56] x) => (float16[1,1] y)")
add_half("mean in FP32", "c = Cast<to = 1>(x) m = GlobalAveragePool(c) y = Cast<to = 10>(m)", io=MEANS.format(56))
add_half("scales of a resize in FP16", "y = Resize(x, , twice)", "hazard half_sizes", PICTURE)
SIZED = "s = Shape<start = 0, end = 1>(x) c = Cast<to = {}>(s) d = Mul(c, {}) n = Cast<to = 7>(d) y = Expand(one, n)"
SIZES = "(float16[4] x) => (float16[N] y)"
add_half("size computed in FP16", SIZED.format(10, "half_one"), "hazard half_sizes", SIZES)
add_half("size computed in FP32", SIZED.format(1, "wide_one"), io=SIZES)
add_half("shared norm", "n = LayerNormalization(x, row) q = MatMul(n, linear) k = MatMul(n, linear) y = Add(q, k)")

CORPUS = [*GRAPHS, *WRONG, *FORMS, *MORE]
