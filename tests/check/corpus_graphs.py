"""Small graphs about operators and types, and what each target makes of them.

What is said of RTX was found by building the graph with it; test_rules.py does it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from graphs import build
from onnx import ModelProto, helper

F16, F32, I8 = np.float16, np.float32, np.int8


@dataclass(frozen=True)
class Expected:
    """The rules that find something, at each level."""

    illegal: frozenset[str] = frozenset()
    hazard: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Entry:
    """A graph and what is expected of it, on all targets but those in ``but``.

    ``change`` is done to the graph that ``text`` and ``constants`` give. ``profiled``: its dynamic axes get sizes.
    """

    name: str
    text: str
    constants: Mapping[str, Any]
    opset: int
    expected: Expected
    but: Mapping[str, Expected]
    profiled: bool
    change: Callable[[ModelProto], object] | None = field(compare=False)

    def model(self) -> ModelProto:
        made: ModelProto = build(self.text, self.constants, self.opset)
        if self.change is not None:
            self.change(made)
        return made

    def on(self, target: str) -> Expected:
        return self.but.get(target, self.expected)


def said(text: str) -> Expected:
    """``"illegal a b hazard c"`` as what it says."""
    level, found = "", {"illegal": set[str](), "hazard": set[str]()}
    for word in text.split():
        if word in found:
            level = word
        else:
            found[level].add(word)
    return Expected(frozenset(found["illegal"]), frozenset(found["hazard"]))


def entry(
    name: str,
    body: str,
    expected: str = "",
    *,
    io: str = "(float16[1,16,8,8] x) => (float16[1,16,8,8] y)",
    constants: Mapping[str, Any] | None = None,
    opset: int = 20,
    profiled: bool = False,
    change: Callable[[ModelProto], object] | None = None,
    **but: str,
) -> Entry:
    """The names of ``but`` are targets."""
    others = {target: said(words) for target, words in but.items()}
    text = f"g {io} {{ {body} }}"
    return Entry(name, text, constants or {}, opset, said(expected), others, profiled, change)


GRAPHS: list[Entry] = []


def add(name: str, body: str, expected: str = "", **more: Any) -> None:
    GRAPHS.append(entry(name, body, expected, **more))


def domains(*names: str) -> Callable[[ModelProto], object]:
    return lambda model: model.opset_import.extend(helper.make_opsetid(name, 1) for name in names)


# Outputs, opsets, operators
add("relu", "y = Relu(x)")
add("no outputs", "y = Relu(x)", "illegal outputs", io="(float16[2] x) => ()")
add("operand that is missing", "y = Conv(x)", "illegal operands")
add("operands that are missing", "y = BatchNormalization(x, x) z = Foo(y)", "illegal operands")
add("opset 6", "y = Relu(x)", "illegal opset", opset=6, rtx="hazard opset")
add("opset 9", "y = Relu(x)", opset=9)
add("opset 21", "y = Relu(x)", opset=21, jetpack6="illegal opset")
add("opset 23", "y = Relu(x)", "illegal opset", opset=23, trt11="", rtx="")
add("opset 26", "y = Relu(x)", "illegal opset", opset=26, rtx="hazard opset")
add(
    "no opset",
    "y = Relu(x)",
    "illegal opset",
    change=lambda m: m.ClearField("opset_import"),
    rtx="hazard opset",
)
add("opset of ai.onnx", "y = Relu(x)", change=lambda m: setattr(m.opset_import[0], "domain", "ai.onnx"))
add("operator of old", "y = Det(x)", "illegal operator", io="(float[2,3,3] x) => (float[2] y)")
add("operator of nobody", "y = Foo(x)", "illegal operator")
add(
    "operator of ONNX Runtime",
    "y = com.microsoft.QuickGelu(x)",
    "illegal operator",
    change=domains("com.microsoft"),
)
add("operator of a plugin", "y = my.Foo(x)", "illegal operator", change=domains("my"))
add("operator of the ML domain", "y = ai.onnx.ml.Scaler(x)", "illegal operator", change=domains("ai.onnx.ml"))
add(
    "deformable convolution",
    "y = DeformConv(x, w, o)",
    io="(float[1,16,8,8] x, float[1,2,8,8] o) => (float[1,16,8,8] y)",
    constants={"w": np.ones((16, 16, 1, 1), F32)},
    rtx="illegal operator",
)
add(
    "operator without its plugin",
    "y = NonZero(x)",
    io="(float16[2,3] x) => (int64[2,N] y)",
    rtx="illegal operator",
)
ATTENTION = "(float16[1,2,8,16] q, float16[1,2,8,16] k, {}[1,2,8,8] m) => (float16[1,2,8,16] y)"
FUSED: dict[str, Any] = {"io": ATTENTION.format("float16"), "opset": 23}
FUSED |= dict.fromkeys(("jetpack6", "jetpack7"), "illegal opset operator")
add("attention", "y = Attention(q, k, k, m)", **FUSED)
add("attention with itself", "y = Attention(q, q, q, m)", **FUSED, rtx="illegal form")
add(
    "window",
    "w = HannWindow(n) y = Mul(x, w)",
    io="(float[8] x) => (float[8] y)",
    constants={"n": np.array(8)},
    jetpack6="illegal operator",
)
ELSE = "else_branch = e () => (float16[1,16,8,8] b) {{ b = Neg(x) }}"
IF = "then_branch = t () => (float16[1,16,8,8] a) {{ a = {} (x) }}, " + ELSE
IF_IO = "(float16[1,16,8,8] x, bool c) => (float16[1,16,8,8] y)"
add("if", f"y = If(c) <{IF.format('Relu')}>", io=IF_IO)
add("operator in a branch", f"y = If(c) <{IF.format('Foo')}>", "illegal operator", io=IF_IO)
add(
    "domain with a known name",
    "y = com.microsoft.Gelu(x)",
    "illegal domain",
    change=domains("com.microsoft"),
    rtx="hazard domain",
)
add("domain that is ONNX's", "y = ai.onnx.Relu(x)")


def local_function(model: ModelProto) -> None:
    graph = '<ir_version: 9, opset_import: ["" : 20, "my" : 1]> g (float16[2] x) => (float16[2] y) { y = my.f(x) } '
    function = '<domain: "my", opset_import: ["" : 20]> f (a) => (b) { b = Relu(a) }'
    model.CopyFrom(onnx.parser.parse_model(graph + function))


add("local function", "y = Relu(x)", change=local_function)

# Forms of operators
PICTURE = "(float16[1,2,8,8] x) => (float16[1,2,H,W] y)"
SCALES = {"s": np.array([1, 1, 2, 2], F32), "sizes": np.array([1, 2, 16, 16])}
add(
    "resize cubic",
    'y = Resize<mode="cubic">(x, , s)',
    "illegal ruled_out",
    io=PICTURE,
    constants=SCALES,
    rtx="",
)
for what, extra in (
    ("antialias", "antialias = 1"),
    ("symmetric", 'coordinate_transformation_mode = "half_pixel_symmetric"'),
):
    add(
        f"resize {what}",
        f'y = Resize<mode="linear", {extra}>(x, , s)',
        "illegal form",
        io=PICTURE,
        constants=SCALES,
    )
POLICY = 'mode = "linear", keep_aspect_ratio_policy = "not_larger"'
add("resize policy", f"y = Resize<{POLICY}>(x, , , sizes)", "illegal form", io=PICTURE, constants=SCALES)
add("pool", "y = MaxPool<kernel_shape = [3, 3], dilations = [1, 1]>(x)", io=PICTURE)
add("pool dilated", "y = MaxPool<kernel_shape = [3, 3], dilations = [2, 2]>(x)", "illegal form", io=PICTURE)
add(
    "pool with indices",
    "y, z = MaxPool<kernel_shape = [2, 2]>(x)",
    "illegal form",
    io="(float16[1,2,8,8] x) => (float16[1,2,7,7] y, int64[1,2,7,7] z)",
)
ROWS = "(float16[4,16] x) => (float16[4,16] y)"
ONES = {"s": np.ones(16, F16), "f": np.ones(16, F32), "v": np.ones(16, F16)}
add("layer norm", "y = LayerNormalization(x, s)", io=ROWS, constants=ONES)
add(
    "layer norm in training",
    "y, m = LayerNormalization(x, s)",
    "illegal form",
    io="(float16[4,16] x) => (float16[4,16] y, float[4,1] m)",
    constants=ONES,
)
add(
    "batch norm in training",
    "y, a, b = BatchNormalization<training_mode = 1>(x, s, s, s, s)",
    "illegal form",
    io="(float16[1,16,8,8] x) => (float16[1,16,8,8] y, float16[16] a, float16[16] b)",
    constants=ONES,
)
PLACE = {"i": np.array([[0, 1]]), "u": np.ones(1, F16)}
add("scatter", "y = ScatterND(x, i, u)", io=ROWS, constants=PLACE, opset=17)
add("scatter of late", "y = ScatterND(x, i, u)", io=ROWS, constants=PLACE, jetpack6="hazard doubted")
ADDED = 'y = ScatterND<reduction = "add">(x, i, u)'
add("scatter add", ADDED, "illegal form", io=ROWS, constants=PLACE, opset=17)
add(
    "convolution 3D",
    "y = Conv(x, w)",
    io="(float16[1,2,4,4,4] x) => (float16[1,2,4,4,4] y)",
    constants={"w": np.ones((2, 2, 1, 1, 1), F16)},
)
add(
    "convolution 4D",
    "y = Conv(x, w)",
    "illegal form",
    io="(float16[1,2,2,2,2,2] x) => (float16[1,2,2,2,2,2] y)",
    constants={"w": np.ones((2, 2, 1, 1, 1, 1), F16)},
)
add(
    "reduce along what is fed",
    "y = ReduceMax(x, a)",
    "illegal form",
    io="(float16[4,16] x, int64[1] a) => (float16[M,N] y)",
)
add(
    "reduce along what constants give",
    "a = Cast<to = 7>(c) y = ReduceMax(x, a)",
    "illegal ruled_out",
    rtx="",
    io="(float16[4,16] x) => (float16[4,1] y)",
    constants={"c": np.array([1], np.int32)},
)
add("softmax of a vector", "y = Softmax(x)", "illegal form", io="(float16[8] x) => (float16[8] y)")
add("softmax of a row", "y = Softmax(x)", io="(float16[1,8] x) => (float16[1,8] y)")
add("average of a row", "y = GlobalAveragePool(x)", "illegal form", io="(float16[1,8] x) => (float16[1,8] y)")
TOP = "(float16[5000] x) => (float16[K] y, int64[K] z)"
add("top 3839", "y, z = TopK(x, k)", io=TOP, constants={"k": np.array([3839])})
add("top 3840", "y, z = TopK(x, k)", "illegal form", io=TOP, constants={"k": np.array([3840])}, rtx="")
add("top 3841", "y, z = TopK(x, k)", "illegal form", io=TOP, constants={"k": np.array([3841])})
add(
    "dropout in training",
    "y = Dropout(x, r, t)",
    "illegal form",
    constants={"r": np.array(0.5, F32), "t": np.array(True)},
)

# Types of tensors and operands
add("bool input", "y = Where(c, x, x)", io="(float16[2] x, bool[2] c) => (float16[2] y)")
add("uint16 input", "y = Cast<to = 10>(x)", "illegal tensor_type", io="(uint16[2] x) => (float16[2] y)")
add("uint16 that nobody reads", "y = Relu(x)", "illegal tensor_type", constants={"c": np.ones(2, np.uint16)})
add(
    "int16 constant",
    "f = Cast<to = 10>(c) y = Add(x, f)",
    "illegal tensor_type",
    io=ROWS,
    constants={"c": np.ones(16, np.int16)},
)
add(
    "sequence",
    "y = Relu(x)",
    "illegal tensor_type",
    change=lambda m: m.graph.input.append(helper.make_tensor_sequence_value_info("s", 1, [2])),
)
SPARSE = helper.make_sparse_tensor(helper.make_tensor("w", 1, [1], [2.0]), helper.make_tensor("at", 7, [1], [0]), [16])
add(
    "sparse constant",
    "y = Add(x, w)",
    "illegal tensor_type",
    io="(float[4,16] x) => (float[4,16] y)",
    change=lambda m: m.graph.sparse_initializer.append(SPARSE),
)
PIXELS = "(uint8[1,4,4,3] x) => (float16[1,3,4,4] y)"
add("pixels cast first", "f = Cast<to = 10>(x) y = Transpose<perm = [0, 3, 1, 2]>(f)", io=PIXELS)
add(
    "pixels moved first",
    "f = Transpose<perm = [0, 3, 1, 2]>(x) y = Cast<to = 10>(f)",
    "illegal uint8",
    io=PIXELS,
)
add("pixels scaled", "y = Mul(x, x)", "illegal uint8", io="(uint8[2] x) => (uint8[2] y)")
add("uint8 inside", "i = Cast<to = 2>(x) y = Cast<to = 10>(i)", "illegal uint8")
LABELS = "(float16[1,16,8,8] x) => ({}[1,8,8] y)"
add("labels", "y = ArgMax<axis = 1, keepdims = 0>(x)", io=LABELS.format("int64"))
add(
    "labels as uint8",
    "i = ArgMax<axis = 1, keepdims = 0>(x) f = Cast<to = 1>(i) y = Cast<to = 2>(f)",
    io=LABELS.format("uint8"),
)
add(
    "labels plus one",
    "i = ArgMax<axis = 1, keepdims = 0>(x) y = Add(i, o)",
    "hazard int64",
    io=LABELS.format("int64"),
    constants={"o": np.array(1)},
)
add(
    "labels plus one in int32",
    "i = ArgMax<axis = 1, keepdims = 0>(x) j = Cast<to = 6>(i) y = Add(j, o)",
    io=LABELS.format("int32"),
    constants={"o": np.array(1, np.int32)},
)
add("product of int32", "y = MatMul(x, x)", "illegal operand_type", io="(int32[4,4] x) => (int32[4,4] y)")
add(
    "pool of int64",
    "y = MaxPool<kernel_shape = [2, 2]>(x)",
    "illegal operand_type",
    io="(int64[1,1,4,4] x) => (int64[1,1,3,3] y)",
)
add("maximum of int32", "y = ReduceMax(x)", io="(int32[4,4] x) => (int32[1,1] y)")
BF16 = "(bfloat16[1,4,4,4] x) => (bfloat16[1,4,4,4] y)"
add("gelu in bfloat16", "y = Gelu(x)", io=BF16)
add(
    "mish in bfloat16",
    "y = Mish(x)",
    "illegal operand_type opset",
    io=BF16,
    opset=22,
    jetpack7="illegal operand_type",
    trt11="illegal operand_type",
    rtx="illegal operand_type",
)
add("hardswish", "y = HardSwish(x)")
add(
    "hardswish in bfloat16",
    "y = HardSwish(x)",
    "hazard doubtful_type",
    io=BF16,
    opset=22,
    jetpack6="illegal opset hazard doubtful_type",
    rtx="illegal operand_type",
)
add("celu", "y = Celu(x)", "hazard doubtful_type", opset=12, rtx="illegal operand_type")
add("double", "y = Relu(x)", "hazard double", io="(double[2] x) => (double[2] y)")

# Operands that must agree
KERNEL = {"w": np.ones((16, 16, 1, 1), F16), "b": np.ones(16, F16), "f": np.ones(16, F32)}
add("convolution", "y = Conv(x, w, b)", constants=KERNEL)
add("bias of another type", "y = Conv(x, w, f)", "illegal mixed_types", constants=KERNEL)
add(
    "constant that two types share",
    "c = Cast<to = 1>(x) a = Add(c, o) h = Cast<to = 10>(a) y = Add(h, o)",
    "illegal mixed_types",
    constants={"o": np.array(1, F32)},
)
add("norm of another type", "y = LayerNormalization(x, f)", "illegal mixed_types", io=ROWS, constants=ONES)
add(
    "batch norm in FP32",
    "y = BatchNormalization(x, f, f, f, f)",
    constants=KERNEL,
    jetpack6="illegal ruled_out",
)
add("exponent of another type", "y = Pow(x, e)", constants={"e": np.array(2, F32)}, jetpack6="hazard doubted")
GRID = "(float16[1,1,4,4] x) => (float16[1,1,2,2] y)"
add("grid", "y = GridSample(x, g)", io=GRID, constants={"g": np.zeros((1, 2, 2, 2), F16)})
add(
    "grid of another type",
    "y = GridSample(x, g)",
    "illegal mixed_types",
    io=GRID,
    constants={"g": np.zeros((1, 2, 2, 2), F32)},
)
add(
    "attention's mask of another type",
    "y = Attention(q, k, k, m)",
    "illegal mixed_types",
    opset=23,
    io=ATTENTION.format("float"),
    jetpack6="illegal mixed_types opset operator",
    jetpack7="illegal mixed_types opset operator",
)
add("attention's mask of bool", "y = Attention(q, k, k, m)", **{**FUSED, "io": ATTENTION.format("bool")})
BODY = "body = b (int64 i, bool p, float16[2] v) => (bool q, float16[2] w) { q = Identity(p) w = Relu(v) }"
add(
    "what a loop carries",
    f"y = Loop(n, c, x) <{BODY}>",
    io="(float16[2] x) => (float16[2] y)",
    constants={"n": np.array(3), "c": np.array(True)},
)
