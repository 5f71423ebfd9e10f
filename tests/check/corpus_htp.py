"""Small graphs for Qualcomm's HTP: what a chip refuses, and what its compiler takes and computes wrongly.

Beside the verdicts stands how close to FP32 an answer is that is right: `test_htp_corpus.py` compiles and executes
each graph with the real compiler and emulator and holds both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from corpus_graphs import Entry, entry
from graphs import noise
from htp_qdq import Quantizer
from onnx import ModelProto

from hiresvit.device.chips import CHIPS

HTP: list[Entry] = []
LEAST: dict[str, float] = {}
"""By the name of a graph: the dB against FP32 of an answer that is right, where 30 says nothing."""
INTEGERS = [name for name, chip in CHIPS.items() if not chip.fp16]
EARLY = [name for name, chip in CHIPS.items() if chip.arch < 73]

ROWS = "(float[1,12,16] x) => (float[1,12,16] y)"
IMAGE = "(float[1,16,8,8] x) => (float[1,16,8,8] y)"
U8, U16 = Quantizer("uint8"), Quantizer("uint16")


def add(
    name: str,
    body: str,
    expected: str = "",
    *,
    io: str = ROWS,
    integers: str | None = None,
    early: str | None = None,
    qdq: Quantizer | None = None,
    least: float | None = None,
    opset: int = 21,
    constants: Mapping[str, Any] | None = None,
    change: Callable[[ModelProto], object] | None = None,
) -> None:
    """``integers`` is what chips without floating point say instead, ``early`` those before V73."""
    but = dict.fromkeys(EARLY, early) if early is not None else {}
    but |= dict.fromkeys(INTEGERS, integers) if integers is not None else {}
    fields: dict[str, Any] = {"io": io, "constants": constants, "opset": opset, "change": qdq or change, **but}
    HTP.append(entry(name, body, expected, **fields))
    if least is not None:
        LEAST[name] = least


def floating(name: str, body: str, expected: str = "", **more: Any) -> None:
    """A graph in floating point: illegal for chips that have none."""
    more.setdefault("integers", "illegal floating_point")
    add(name, body, expected, **more)


# Operators, axes
floating("relu", "y = Relu(x)")
add("relu in integers", "y = Relu(x)", qdq=U8)
floating("sinh", "y = Sinh(x)", "illegal operator", integers="illegal operator floating_point")
floating("mish", "y = Mish(x)", integers="illegal operator floating_point")
add("mish in integers", "y = Mish(x)", qdq=U8, integers="illegal operator")
floating(
    "double", "y = Relu(x)", "illegal tensor_type", io=ROWS.replace("float", "double"), integers="illegal tensor_type"
)
SIX = "(float[1,2,2,2,2,2] x) => (float[1,2,2,2,2,2] y)"
floating("five axes", "y = Relu(x)", io="(float[1,2,2,2,2] x) => (float[1,2,2,2,2] y)")
floating("six axes", "y = Relu(x)", "illegal rank", io=SIX, integers="illegal rank floating_point")
MOVE = "r = Relu(x) a = Reshape(r, six) t = Transpose<perm = [0, 1, 3, 2, 4, 5]>(a) y = Reshape(t, four)"
for batch, expected in ((1, ""), (2, "illegal rank")):
    size = f"[{batch},192]"
    add(
        f"window of six axes, batch {batch}",
        MOVE,
        expected,
        io=f"(float{size} x) => (float[{batch},4,8,6] y)",
        qdq=U8,
        constants={"six": np.array([batch, 2, 4, 2, 4, 3]), "four": np.array([batch, 4, 8, 6])},
    )
floating(
    "dynamic",
    "y = Relu(x)",
    "illegal dynamic",
    io="(float[N,4] x) => (float[N,4] y)",
    integers="illegal dynamic floating_point",
)
floating(
    "linear of five axes",
    "y = MatMul(x, w)",
    "illegal form",
    io="(float[1,2,3,4,16] x) => (float[1,2,3,4,16] y)",
    integers="illegal form floating_point",
    constants={"w": noise(16, 16)},
)

# Norms
NORM = {"s": noise(16), "b": noise(16, seed=1)}
BODY = "y = LayerNormalization(x, s, b)"
floating("layer norm", BODY, constants=NORM)
FIVE = "(float[1,2,3,4,16] x) => (float[1,2,3,4,16] y)"
floating(
    "layer norm of five axes", BODY, "illegal form", io=FIVE, constants=NORM, integers="illegal form floating_point"
)
add("layer norm in 8 bits", BODY, qdq=U8, constants=NORM)
add("layer norm in 16 bits", BODY, qdq=U16, constants=NORM)
add("layer norm scaled by int8", BODY, "illegal form", qdq=Quantizer(norm="int8"), constants=NORM)
add(
    "layer norm in 16 bits scaled by uint16",
    BODY,
    "illegal form",
    qdq=Quantizer("uint16", norm="uint16"),
    constants=NORM,
)
SIGNED = Quantizer("uint16", norm="int16")
add("layer norm in 16 bits scaled by int16", BODY, qdq=SIGNED, constants=NORM, early="illegal form", least=70)
add(
    "layer norm scaled in FP32", BODY, qdq=Quantizer(bare=("s", "b")), constants=NORM, integers="illegal floating_point"
)
GROUPS = "y = GroupNormalization<num_groups = 4>(x, s, b)"
floating("group norm", GROUPS, io=IMAGE, constants=NORM)
floating(
    "group norm of opset 18",
    GROUPS,
    "illegal form",
    io=IMAGE,
    opset=20,
    constants={"s": noise(4), "b": noise(4)},
    integers="illegal form floating_point",
)
add("group norm in integers", GROUPS, "illegal form", io=IMAGE, qdq=U8, constants=NORM)
BATCH = {**NORM, "m": noise(16, seed=2), "v": np.abs(noise(16, seed=3)) + np.float32(0.5)}
add("batch norm in 8 bits", "y = BatchNormalization(x, s, b, m, v)", io=IMAGE, qdq=U8, constants=BATCH)
add(
    "batch norm in 16 bits", "y = BatchNormalization(x, s, b, m, v)", "illegal form", io=IMAGE, qdq=U16, constants=BATCH
)

INSTANCE = "y = InstanceNormalization(x, s, b)"
floating("instance norm", INSTANCE, io=IMAGE, constants=NORM)
floating(
    "instance norm of five axes",
    INSTANCE,
    "illegal form",
    io="(float[1,16,4,4,4] x) => (float[1,16,4,4,4] y)",
    constants=NORM,
    integers="illegal form floating_point",
)

# Places read from a map
PLACES = {"g": np.clip(noise(1, 4, 4, 2), -1, 1)}
READ = "(float[1,16,8,8] x) => (float[1,16,4,4] y)"
floating("grid sample", 'y = GridSample<mode = "linear">(x, g)', io=READ, constants=PLACES)
floating(
    "grid sample by cubics",
    'y = GridSample<mode = "cubic">(x, g)',
    "illegal form",
    io=READ,
    constants=PLACES,
    integers="illegal form floating_point",
)
floating(
    "grid sample of five axes",
    'y = GridSample<mode = "linear">(x, g)',
    "illegal form",
    io="(float[1,16,8,8,8] x) => (float[1,16,4,4,4] y)",
    constants={"g": np.clip(noise(1, 4, 4, 4, 3), -1, 1)},
    integers="illegal form floating_point",
)

# GELU
PARTS = {"r": np.float32(2**0.5), "o": np.float32(1), "h": np.float32(0.5)}
ERF = "a = Div(x, r) e = Erf(a) f = Add(e, o) d = Mul(x, f) y = Mul(d, h)"
floating("gelu by erf", ERF, constants=PARTS, integers="illegal floating_point")
floating("erf", "y = Erf(x)", "illegal form", integers="illegal form floating_point")
add("gelu by erf in integers", ERF, "illegal form", qdq=U8, constants=PARTS)
add("gelu in integers", "y = Gelu(x)", qdq=U8)
CONV = {"w": noise(16, 16, 1, 1) / np.float32(4), "b": noise(16, seed=1) / np.float32(4)}
floating("gelu behind a relu", "c = Relu(x) y = Gelu(c)", least=55)
floating("gelu behind a convolution", "c = Conv(x, w, b) y = Gelu(c)", io=IMAGE, constants=CONV, least=55)
floating(
    "gelu behind a linear layer",
    "c = MatMul(x, w) d = Add(c, b) y = Gelu(d)",
    constants={"w": noise(16, 16) / np.float32(4), "b": CONV["b"]},
    least=55,
)

# Products
PAIR = "(float[1,2,12,16] x, float[1,2,16,12] z) => (float[1,2,12,12] y)"
add("product in 8 bits", "y = MatMul(x, z)", io=PAIR, qdq=U8)
add("product in 16 bits", "y = MatMul(x, z)", "hazard narrow_product", io=PAIR, qdq=U16, least=60)
WIDE = Quantizer("uint16", kinds={"z": "int16"})
add("product of int16", "y = MatMul(x, z)", io=PAIR, qdq=WIDE, early="illegal form", least=60)
add("product of uint8", "y = MatMul(x, z)", io=PAIR, qdq=Quantizer("uint16", kinds={"z": "uint8"}))
SUM = 'y = Einsum<equation = "bhid,bhdj->bhij">(x, z)'
add("einsum in 8 bits", SUM, io=PAIR, qdq=U8)
add("einsum in 16 bits", SUM, "illegal form", io=PAIR, qdq=U16)
DEEP = "(float16[1,2,3,12,16] x, float16[1,2,3,16,12] z) => (float16[1,2,3,12,12] y)"
floating("product of five axes", "y = MatMul(x, z)", io=DEEP.replace("float16", "float"))
floating("product of five axes in FP16", "y = MatMul(x, z)", "hazard half_product", io=DEEP)
WEIGHT = {"w": np.geomspace(0.01, 1, 256, dtype=np.float32).reshape(16, 16)}
add("weight along its outputs", "y = MatMul(x, w)", qdq=U8, constants=WEIGHT)
add("weight along its inputs", "y = MatMul(x, w)", "hazard turned_weight", qdq=Quantizer(axis=0), constants=WEIGHT)
add("convolution in integers", "y = Conv(x, w, b)", io=IMAGE, qdq=U8, constants=CONV)
add(
    "convolution along its inputs", "y = Conv(x, w, b)", "illegal form", io=IMAGE, qdq=Quantizer(axis=1), constants=CONV
)
add("convolution with a bias in FP32", "y = Conv(x, w, b)", io=IMAGE, qdq=Quantizer(bare=("b",)), constants=CONV)
add(
    "convolution that nobody quantizes",
    "c = Conv(x, w, b) y = Sigmoid(c)",
    "illegal form",
    io=IMAGE,
    qdq=Quantizer(bare=("c",)),
    constants=CONV,
    integers="illegal form floating_point",
)
add("convolution and relu", "c = Conv(x, w, b) y = Relu(c)", io=IMAGE, qdq=Quantizer(bare=("c",)), constants=CONV)
add(
    "sum that nobody quantizes",
    "c = Add(x, x) y = Sigmoid(c)",
    qdq=Quantizer(bare=("c",)),
    integers="illegal floating_point",
)
add(
    "addend in FP32",
    "y = Add(x, k)",
    qdq=Quantizer(bare=("k",)),
    constants={"k": noise(16)},
    integers="illegal floating_point",
)
add(
    "moved without Q/DQ",
    "r = Relu(x) t = Transpose<perm = [0, 2, 1]>(r) y = Relu(t)",
    io="(float[1,12,16] x) => (float[1,16,12] y)",
    qdq=Quantizer(bare=("t",)),
)

# Softmax, masks
SCORES = "(float[1,2,12,12] x) => (float[1,2,12,12] y)"
add("softmax in 8 bits", "y = Softmax(x)", io=SCORES, qdq=U8)
add("softmax in int8", "y = Softmax(x)", "hazard signed_softmax", io=SCORES, qdq=Quantizer("int8"))
UPPER = np.triu(np.ones((12, 12), np.float32), 1)
for bits, quantizer, good, bad in ((8, U8, -20, -100), (16, U16, -50, -1e4)):
    for value in (good, bad):
        add(
            f"mask of {value:g} in {bits} bits",
            "a = Add(x, m) y = Softmax(a)",
            "" if value == good else "hazard wide_mask",
            io=SCORES,
            qdq=quantizer,
            constants={"m": value * UPPER},
            least=30 if bits == 8 else 60,
        )

# Pixels
PIXELS, CAST = "(uint8[1,3,8,8] x) => (float[1,3,8,8] y)", "y = Cast<to = 1>({})"
floating("pixels", CAST.format("x"), "hazard byte_cast", io=PIXELS, integers="illegal floating_point")
floating("pixels by int32", "i = Cast<to = 6>(x) " + CAST.format("i"), io=PIXELS)
add("pixels in integers", "f = Cast<to = 1>(x) y = Relu(f)", io=PIXELS, qdq=U8)

# Pads and means
BORDER = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
PADDED = "(float[1,4,8,8] x) => (float[1,4,10,10] y)"
floating("reflected border", 'y = Pad<mode = "reflect">(x, p)', io=PADDED, constants=BORDER)
floating(
    "repeated border",
    'y = Pad<mode = "edge">(x, p)',
    "hazard edge_pad",
    io=PADDED,
    constants=BORDER,
    integers="illegal floating_point",
)
add("repeated border in integers", 'y = Pad<mode = "edge">(x, p)', io=PADDED, constants=BORDER, qdq=U8)
MAP = "(float[1,16,16,16] x) => (float[1,16,16,16] y)"
MEAN = "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]{}>(x)"
floating("mean that counts its padding", MEAN.format(", count_include_pad = 1"), io=MAP)
floating(
    "mean that does not count its padding",
    MEAN.format(""),
    "hazard padded_mean",
    io=MAP,
    integers="illegal floating_point",
)
LONG = "y = AveragePool<kernel_shape = [4, 4], strides = [4, 4]>(x)"
COARSE = "(float[1,4,24,24] x) => (float[1,4,6,6] y)"
add("mean of 4x4", LONG, io=COARSE, qdq=Quantizer(sharing={"AveragePool"}), least=22)
add("mean of 4x4 with two scales", LONG, "hazard long_mean", io=COARSE, qdq=U8, least=22)
ONE_SIDED = "y = AveragePool<kernel_shape = [2, 2], pads = [0, 0, 1, 1]>(x)"
floating(
    "mean padded at one end",
    ONE_SIDED,
    "hazard padded_mean",
    io=IMAGE,
    integers="illegal floating_point",
)

# Scales
TWICE = {"t": np.array([1, 1, 2, 2], np.float32)}
LARGER = "(float[1,4,8,8] x) => (float[1,4,16,16] y)"
TOGETHER, APART = Quantizer(bare=("t",)), Quantizer(bare=("t",), sharing=())
for mode in ("half_pixel", "align_corners", "asymmetric"):
    body = f'y = Resize<mode = "linear", coordinate_transformation_mode = "{mode}">(x, , t)'
    add(f"resize {mode}", body, io=LARGER, qdq=TOGETHER, constants=TWICE)
    said: dict[str, Any] = (
        {} if mode == "asymmetric" else {"expected": "hazard one_scale", "integers": "illegal one_scale"}
    )
    add(f"resize {mode} with two scales", body, io=LARGER, qdq=APART, constants=TWICE, **said)
LARGEST = "y = MaxPool<kernel_shape = [2, 2]>(x)"
SMALLER = "(float[1,4,8,8] x) => (float[1,4,7,7] y)"
DIFFERENT = Quantizer(sharing=(), ranges={"y": (-9.0, 9.0)})
add("pool", LARGEST, io=SMALLER, qdq=U8)
add("pool with two scales", LARGEST, "hazard one_scale", io=SMALLER, qdq=DIFFERENT, integers="illegal one_scale")
POINT = {"s": np.float32(0.03), "z": np.uint8(128)}
UNIT = "q = QuantizeLinear(x, {0}) d = DequantizeLinear(q, {0}) r = Relu(d) p = QuantizeLinear(r, {1}) "
QDQ = UNIT + "y = DequantizeLinear(p, {1})"
add("scale that is constant", QDQ.format("s, z", "s, z"), constants=POINT)
add(
    "scale that is computed",
    "m = ReduceMax<keepdims = 0>(x) k = Mul(m, s) " + QDQ.format("k, z", "s, z"),
    "illegal form",
    constants=POINT,
    integers="illegal form floating_point",
)
add("no zero point", QDQ.format("s", "s"), "hazard no_zero_point", constants={"s": POINT["s"]})
CHANNELS = {"s": np.full(12, 0.03, np.float32), "z": np.zeros(12, np.uint8)}
BY_CHANNEL = QDQ.format("s, z", "s, z").replace("Linear(", "Linear<axis = 1>(")
add("scales of an activation's channels", BY_CHANNEL, "illegal channel_activation", constants=CHANNELS)

# The Transpose that is lost
ACROSS = (
    "{0}t = Transpose<perm = [0, 1, 3, 2]>({1}) {0}s = MatMul({1}, {0}t) {0}w = Softmax({0}s) {0} = MatMul({0}w, {2}) "
)
HALVES = (
    "ab = Concat<axis = 3>(a, b) q, v, qd, vd = Split<axis = 3, num_outputs = 4>(ab) "
    + ACROSS.format("across", "q", "v")
    + "qt = Transpose<perm = [0, 2, 1, 3]>(qd) vt = Transpose<perm = [0, 2, 1, 3]>(vd) "
    + ACROSS.format("turned", "qt", "vt")
    + "down = Transpose<perm = [0, 2, 1, 3]>(turned) "
)
LOST = HALVES + "c = Concat<axis = 3>(across, down) y = Add(c, e)"
BY_HALF = "f, g = Split<axis = 3, num_outputs = 2>(e) l = Add(across, f) r = Add(down, g) y = Concat<axis = 3>(l, r)"
FLAT = "l = Reshape(across, flat) r = Reshape(down, flat) j = Concat<axis = 1>(l, r) c = Reshape(j, map) y = Add(c, e)"
STRIPES = "(float[1,{0},8] a, float[1,{0},8] b, float[1,{0},8] e) => (float[1,{0},8] y)"
LONE: dict[str, Any] = {"least": 30}
floating(
    "attention both ways",
    LOST,
    "hazard lost_transpose",
    io=STRIPES.format("16,16"),
    integers="illegal floating_point hazard lost_transpose",
    **LONE,
)
floating("attention both ways, added by half", HALVES + BY_HALF, io=STRIPES.format("16,16"), **LONE)
floating(
    "attention both ways, joined flat",
    HALVES + FLAT,
    io=STRIPES.format("16,16"),
    constants={"flat": np.array([256, 4]), "map": np.array([1, 16, 16, 8])},
    **LONE,
)
for bits, quantizer in ((8, U8), (16, U16)):
    add(
        f"attention both ways in {bits} bits",
        LOST,
        f"hazard lost_transpose{' narrow_product' if bits == 16 else ''}",
        io=STRIPES.format("16,16"),
        qdq=quantizer,
        least=20,
    )
    add(
        f"attention both ways in {bits} bits, added by half",
        HALVES + BY_HALF,
        "hazard narrow_product" if bits == 16 else "",
        io=STRIPES.format("16,16"),
        qdq=quantizer,
        least=50 if bits == 16 else 20,
    )
add(
    "attention both ways in 16 bits, 8x12",
    LOST,
    "hazard lost_transpose narrow_product",
    io=STRIPES.format("8,12"),
    qdq=U16,
    least=20,
)
