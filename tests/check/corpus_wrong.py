"""Small graphs that are no ONNX, and their neighbours that are; and sizes that are fed, operator by operator."""

from __future__ import annotations

from typing import Any

import numpy as np
from corpus_graphs import F16, F32, ROWS, Entry, entry
from onnx import ModelProto, helper, numpy_helper

WRONG: list[Entry] = []


def add(name: str, body: str, expected: str = "", **more: Any) -> None:
    WRONG.append(entry(name, body, expected, **more))


def bad(name: str, body: str, io: str = ROWS, **more: Any) -> None:
    add(name, body, "illegal invalid", io=io, **more)


# Who makes what
PAIR = {"w": np.ones((16, 16), F16), "b": np.ones(16, F16)}
bad("operand that nobody makes", "y = Add(x, nope)")
bad("optional operand that nobody makes", "y = Clip(x, nope)")
add("optional operand that is left out", "y = Clip(x, , m)", io=ROWS, constants={"m": F16(1)})
bad("operand that nobody makes, in a dead node", "y = Relu(x) z = Neg(nope)")
bad("two makers", "a = Relu(x) a = Neg(x) y = Abs(a)")
bad("one maker twice", "a, a = Split<num_outputs = 2>(x) y = Concat<axis = 0>(a, a)")
bad("maker of an input", "x = Relu(b) y = Add(x, b)", constants=PAIR)
bad("maker of a weight", "b = Relu(x) y = Add(x, b)", constants=PAIR)


def twice(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(16, F16), "b"))


def also_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("b", 10, [16]))


def input_twice(model: ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


bad("weight that is there twice", "y = Add(x, b)", constants=PAIR, change=twice)
add("weight that is an input too", "y = Add(x, b)", io=ROWS, constants=PAIR, change=also_input)
bad("input that is there twice", "y = Relu(x)", change=input_twice)
bad("output that nobody makes", "z = Relu(x)")
add("output that is the input", "z = Relu(x)", io="(float16[2] x) => (float16[2] x, float16[2] z)")
bad("circle", "a = Add(x, b) b = Relu(a) c = Neg(b) y = Abs(c)")
bad("circle that is dead", "a = Add(x, b) b = Relu(a) y = Relu(x)")
bad("node that reads itself", "y = Add(x, y)")
add("nodes in any order", "y = Neg(c) c = MatMul(a, w) a = Relu(x)", io=ROWS, constants=PAIR)
bad(
    "nodes in any order that do not fit",
    "y = Neg(c) c = Add(a, v) a = Relu(x)",
    constants={"v": np.ones(15, F16)},
)
# What ONNX would refuse and RTX was seen to build
SQUARE = "(float16[4,4] x) => (float16 y)"
add("sizes to expand to that do not fit", "y = Expand(x, k)", io=SQUARE, constants={"k": np.array([2, 3])})
add(
    "depth with axes",
    "i = Cast<to = 7>(x) y = OneHot(i, d, on)",
    io=SQUARE,
    constants={"d": np.array([[3]]), "on": np.array([0, 1], F16)},
)
add(
    "reshape of what ONNX does not know the size of",
    "a = ReduceSum<keepdims = 0>(x, o) y = Reshape(a, s)",
    io=SQUARE,
    constants={"o": np.array([0]), "s": np.array([2, 2])},
    opset=11,
)
add(
    "places in two types",
    "y = Slice(x, a, b)",
    io=SQUARE,
    constants={"a": np.array([0, 1], np.int32), "b": np.array([2, 3])},
)
add("axes as an attribute", "y = Unsqueeze<axes = [0]>(x)", io=SQUARE)
THEN, ELSE = "t () => (float16[2] a) {{ a = {} }}", "e () => (float16[2] b) {{ b = Neg(x) }}"
BRANCHES = f"y = If(c) <then_branch = {THEN}, else_branch = {ELSE}>"
BRANCHED = "(float16[2] x, bool c) => (float16[2] y)"
bad("operand of a branch that nobody makes", BRANCHES.format("Relu(nope)"), BRANCHED)
bad("branch that reads its own result", BRANCHES.format("Relu(y)"), BRANCHED)
add("branch that reads what comes later", BRANCHES.format("Relu(z)") + " z = Abs(x)", io=BRANCHED)
add("branch of another size than it says", BRANCHES.replace("[2] a", "[3] a").format("Relu(x)"), io=BRANCHED)

# Sizes that do not fit
LEFT = "(float16[4,8] x) => (float16[4,3] y)"
bad("product of 8 and 7", "y = MatMul(x, w)", LEFT, constants={"w": np.ones((7, 3), F16)})
add("product of 8 and 8", "y = MatMul(x, w)", io=LEFT, constants={"w": np.ones((8, 3), F16)})
bad(
    "product of -1 and 8, 7 and 3",
    "y = MatMul(x, w)",
    "(float16[2,4,8] x) => (float16[2,4,3] y)",
    constants={"w": np.ones((3, 8, 3), F16)},
)
bad("sum of 16 and 15", "y = Add(x, b)", constants={"b": np.ones(15, F16)})
bad(
    "concatenation of 16 and 15",
    "y = Concat<axis = 0>(x, b)",
    "(float16[4,16] x) => (float16[5,16] y)",
    constants={"b": np.ones((1, 15), F16)},
)
bad("reshape of 64 to 60", "y = Reshape(x, s)", constants={"s": np.array([4, 15])})
add(
    "reshape of 64 to 64",
    "y = Reshape(x, s)",
    io="(float16[4,16] x) => (float16[8,8] y)",
    constants={"s": np.array([8, 8], np.int32)},
)
bad("axis that is not there", "y = ReduceMax(x, a)", constants={"a": np.array([2])})
bad("squeeze of four", "y = Squeeze(x, a)", constants={"a": np.array([0])})
bad("cast to nothing", "y = Cast(x)")
IMAGE = "(float16[1,4,8,8] x) => (float16[1,6,8,8] y)"
for channels, biases, expected in ((4, 6, ""), (5, 6, "illegal invalid"), (4, 5, "illegal invalid")):
    add(
        f"convolution of 4 channels for {channels} with {biases} biases",
        "y = Conv(x, w, b)",
        expected,
        io=IMAGE,
        constants={"w": np.ones((6, channels, 1, 1), F16), "b": np.ones(biases, F16)},
    )
# ONNX's checker has something against each of these, TensorRT-RTX has not.
add("attribute that ONNX does not know", "y = Relu<foo = 1>(x)", io=ROWS)
add("output without a shape", "y = Relu(x)", io="(float16[2] x) => (float16 y)")
add(
    "strides of one axis",
    "y = Conv<strides = [1]>(x, w)",
    io=IMAGE,
    constants={"w": np.ones((6, 4, 1, 1), F16)},
)
OLD = "a = ReduceSum<axes = [1], keepdims = 0>(x) y = MatMul(a, w)"
add(
    "axes in the form before they were an input",
    OLD,
    io="(float16[4,4] x) => (float16[3] y)",
    constants={"w": np.ones((4, 3), F16)},
)
add(
    "axes in the form before they were an attribute",
    "a = ReduceSum<keepdims = 0>(x, o) y = MatMul(a, w)",
    io="(float16[4,4] x) => (float16[3] y)",
    constants={"w": np.ones((4, 3), F16), "o": np.array([1])},
    opset=11,
)
add("axis behind the last, before opset 13", "y = Softmax<axis = 2>(x)", io=ROWS, opset=12)

# Sizes that are fed
SIZES = {
    **{
        "zero": np.array([0]),
        "one": np.array([1]),
        "four": np.array([4]),
        "n": np.array(4),
        "start": np.array(0),
    },
    **{"step": np.array(1), "border": np.zeros(4, np.int64), "pair": np.array([0, 1]), "on": np.ones(2, F16)},
}


def fed(name: str, value: str, body: str, expected: str = "illegal fed_size", **more: Any) -> None:
    add(
        f"fed {name}",
        body,
        expected,
        io=f"(float16[4,4] x, {value} k) => (float16 y)",
        constants=SIZES,
        **more,
    )


fed("shape", "int64[1]", "y = Reshape(x, k)")
fed("shape to expand to", "int64[2]", "y = Expand(x, k)")
fed("repeats", "int64[2]", "y = Tile(x, k)")
fed("start", "int64[1]", "y = Slice(x, k, four, zero)")
fed("end", "int64[1]", "y = Slice(x, zero, k, zero)")
fed("axis of a slice", "int64[1]", "y = Slice(x, zero, one, k)")
fed("step", "int64[1]", "y = Slice(x, zero, four, zero, k)")
fed("pads", "int64[4]", "y = Pad(x, k)")
fed("axes of a pad", "int64[1]", "y = Pad(x, pair, , k)", jetpack6="illegal fed_size ruled_out")
fed("value of a pad", "float16", "y = Pad(x, border, k)", "")
fed("K", "int64[1]", "y, i = TopK(x, k)")
fed("shape of a constant", "int64[2]", "c = ConstantOfShape<value = float16[1] {1}>(k) y = Add(x, c)")
for position, operands in enumerate(("k, n, step", "start, k, step", "start, n, k")):
    fed(f"range {position}", "int64", f"r = Range({operands}) f = Cast<to = 10>(r) y = Add(x, f)")
fed("depth", "int64", "i = Cast<to = 7>(x) y = OneHot(i, k, on)")
fed("split", "int64[2]", "y, z = Split(x, k)")
fed("axis of a sum", "int64", "y = CumSum(x, k)")
fed("diagonal", "int64", "y = Trilu(x, k)", "")
fed("indices", "int64[1]", "y = Gather(x, k)", "")
fed("limit", "float16", "y = Clip(x, k)", "")
fed("sizes of a resize", "int64[4]", "u = Unsqueeze(x, pair) y = Resize(u, , , k)")
fed("scales of a resize", "float[4]", "u = Unsqueeze(x, pair) y = Resize(u, , k)")
for op in ("BlackmanWindow", "HammingWindow", "HannWindow"):
    fed(
        f"length of a {op}",
        "int64",
        f"r = {op}(k) f = Cast<to = 10>(r) y = Add(x, f)",
        jetpack6="illegal fed_size operator",
    )
fed("scales of an Upsample", "float[4]", "u = Unsqueeze<axes = [0, 1]>(x) y = Upsample(u, k)", opset=9)
fed("axes to squeeze", "int64[1]", "u = Unsqueeze(x, zero) y = Squeeze(u, k)", "illegal form")
fed("training", "bool", "y = Dropout(x, , k)", "illegal form")
fed(
    "K behind arithmetic",
    "int32[1]",
    "t = Mul(k, k) c = Cast<to = 7>(t) s = Add(c, one) y, i = TopK(x, s)",
    "illegal fed_size hazard int64",
)
fed("K behind a TopK", "int64[2]", "s, j = TopK(k, one) y, i = TopK(x, s)", "")
fed("tensor whose shape is K", "float16[2]", "s = Shape(k) y, i = TopK(x, s)", "")
add(
    "fed K with a profile",
    "y, i = TopK(x, k)",
    "illegal fed_size",
    io="(float16[N,4] x, int64[1] k) => (float16 y)",
    profiled=True,
)
add(
    "slice of the first of two axes without axes",
    "y = Slice(x, zero, one)",
    "illegal form",
    io=ROWS.replace("[4,16] y", "[1,16] y"),
    constants=SIZES,
)
add(
    "slice of both axes without axes",
    "y = Slice(x, pair, ends)",
    io="(float16[4,16] x) => (float16 y)",
    constants={**SIZES, "ends": np.array([2, 9])},
)
add(
    "top 5 of 4",
    "y, i = TopK(x, k)",
    "illegal form",
    io="(float16[2,4] x) => (float16 y)",
    constants={"k": np.array([5])},
)
SIGNAL = {"wave": np.array([1, 16, 1]), "by": np.array(2), "window": np.ones(4, F32), "long": np.array(4)}
for name, step, expected in (("step", "by", ""), ("step that is computed", "s", "illegal form")):
    add(
        f"STFT with a {name}",
        f"s = Cast<to = 7>(short) f = Reshape(x, wave) y = STFT(f, {step}, window, long)",
        expected,
        io="(float[4,4] x) => (float y)",
        constants={**SIGNAL, "short": np.array(2, np.int32)},
        jetpack6=f"{expected or 'illegal'} operator",
    )
